//! What one DuckDB connection keeps for one attached duckling.
#pragma once

#include "bridge.hpp"

#include "duckdb/main/client_context_state.hpp"

namespace duckherder {

class RemoteCatalog;

//! The connection's session on the server, opened when it is first needed and closed with the connection.
class RemoteSession : public duckdb::ClientContextState {
public:
	RemoteSession(duckdb::shared_ptr<RemoteHandle> remote, duckdb::Identifier catalog_name);

	//! The session of `context` on `catalog`.
	static duckdb::shared_ptr<RemoteSession> Of(duckdb::ClientContext &context, RemoteCatalog &catalog);
	//! Closes it, if there is one.
	static void Forget(duckdb::ClientContext &context, RemoteCatalog &catalog);

	//! The open session.
	DhSession *Open(duckdb::ClientContext &context);
	//! The session if it has been opened, else null.
	DhSession *IfOpen();
	//! Whether the statement that is being bound is not going to run now as it is: one of PREPARE or EXPLAIN, or one that only
	//! its columns are asked of.
	bool OnlyBinds(duckdb::ClientContext &context) const;
	//! The user's text, of the query that runs; empty if that is not known.
	duckdb::string TypedText(duckdb::ClientContext &context) const;

	//! Whether what `ConfirmWith` gets is called before the statement that is being bound is executed.
	bool WillConfirm() const;
	//! `confirm` waits for the result whose columns were foreseen; whether they are those.
	void ConfirmWith(std::function<bool(duckdb::ClientContext &)> confirm);
	//! Keeps a result until the query's end, for whoever binds its statement anew.
	void Keep(ScanHandle scan, const duckdb::string &sql);
	//! What was kept of that statement, or null.
	ScanHandle TakeKept(const duckdb::string &sql);

	void QueryBegin(duckdb::ClientContext &context) override;
	void QueryEnd() override;
	bool CanRequestRebind() override;
	duckdb::RebindQueryInfo OnFinalizePrepare(duckdb::ClientContext &context, duckdb::PreparedStatementData &prepared,
	                                          duckdb::PreparedStatementMode mode) override;

private:
	//! UNKNOWN: it has been made since the last query began.
	enum class Moment : uint8_t { UNKNOWN, IN_QUERY, BETWEEN_QUERIES };

	void TellSettings(duckdb::ClientContext &context);

	duckdb::shared_ptr<RemoteHandle> remote;
	duckdb::Identifier catalog_name;
	duckdb::mutex lock;
	SessionHandle session;
	Moment moment = Moment::UNKNOWN;
	//! A read has been sent before it was bound, and has to be dropped if it is not asked for.
	bool has_sent_ahead = false;
	bool will_confirm = false;
	std::function<bool(duckdb::ClientContext &)> confirm;
	ScanHandle kept;
	duckdb::string kept_sql;
	//! The query in which the settings were told.
	duckdb::transaction_t told_in = duckdb::MAXIMUM_QUERY_ID;
	//! Where DuckDB keeps these settings, once ICU is loaded.
	duckdb::optional_idx time_zone_index;
	duckdb::optional_idx calendar_index;
};

//! Runs a statement to its end, and lets go of its rows.
void RunToEnd(duckdb::ClientContext &context, DhSession *session, const duckdb::string &sql, bool transactional);

} // namespace duckherder
