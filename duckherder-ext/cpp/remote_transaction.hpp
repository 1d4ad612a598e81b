//! Transactions that reach over to the duckling.
#pragma once

#include "remote_session.hpp"

#include "duckdb/transaction/transaction.hpp"
#include "duckdb/transaction/transaction_manager.hpp"

namespace duckherder {

//! What a statement has read of the catalog.
struct Listing {
	//! The statement's number.
	duckdb::idx_t query = duckdb::DConstants::INVALID_INDEX;
	bool has_looked_up = false;
	duckdb::shared_ptr<TablesHandle> tables;
	duckdb::map<DhDefinitionKind, duckdb::shared_ptr<DefinitionsHandle>> definitions;
};

class RemoteTransaction : public duckdb::Transaction {
public:
	RemoteTransaction(duckdb::TransactionManager &manager, duckdb::ClientContext &context,
	                  duckdb::shared_ptr<RemoteSession> session);

	static RemoteTransaction &Get(duckdb::ClientContext &context, duckdb::Catalog &catalog);
	//! Whether what is sent to the duckling now belongs to a transaction there: the user's, or one that a single
	//! statement needs.
	static bool SpansStatements(duckdb::ClientContext &context, duckdb::Catalog &catalog);

	RemoteSession &Session() {
		return *session;
	}
	//! Keeps a catalog entry alive until the transaction ends: DuckDB holds plain references to what a look-up returned.
	duckdb::CatalogEntry &Keep(duckdb::shared_ptr<duckdb::CatalogEntry> entry);
	//! Everything in the catalog, read once for all that one statement asks.
	duckdb::shared_ptr<TablesHandle> Tables(duckdb::ClientContext &context);
	duckdb::shared_ptr<DefinitionsHandle> Definitions(duckdb::ClientContext &context, DhDefinitionKind kind);
	//! Whether a statement looks its first type or macro up.
	bool IsFirstLookup(duckdb::ClientContext &context);
	//! What is sent from here on is one transaction on the duckling, also if the user has begun none.
	void KeepTogether();
	//! Drops a temporary table of the session when the transaction has ended.
	void DropAfterwards(const duckdb::string &temporary_table);
	void DropTemporaryTables(const DhSession *open_session);

private:
	//! Forgets what another statement has read. Holds `lock`.
	void ReadFor(duckdb::ClientContext &context);

	duckdb::shared_ptr<RemoteSession> session;
	duckdb::mutex lock;
	duckdb::unordered_map<const duckdb::CatalogEntry *, duckdb::shared_ptr<duckdb::CatalogEntry>> kept;
	Listing listing;
	duckdb::set<duckdb::string> temporary_tables;
	duckdb::atomic<bool> is_together;
};

class RemoteTransactionManager : public duckdb::TransactionManager {
public:
	RemoteTransactionManager(duckdb::AttachedDatabase &db, RemoteCatalog &catalog);

	duckdb::Transaction &StartTransaction(duckdb::ClientContext &context) override;
	duckdb::ErrorData CommitTransaction(duckdb::ClientContext &context, duckdb::Transaction &transaction) override;
	void RollbackTransaction(duckdb::Transaction &transaction) override;
	void Checkpoint(duckdb::ClientContext &context, bool force) override;

private:
	duckdb::unique_ptr<RemoteTransaction> Take(duckdb::Transaction &transaction);

	RemoteCatalog &catalog;
	duckdb::mutex lock;
	duckdb::reference_map_t<duckdb::Transaction, duckdb::unique_ptr<RemoteTransaction>> transactions;
};

} // namespace duckherder
