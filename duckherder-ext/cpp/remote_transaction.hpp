//! Transactions that reach over to the duckling.
#pragma once

#include "remote_session.hpp"

#include "duckdb/transaction/transaction.hpp"
#include "duckdb/transaction/transaction_manager.hpp"

namespace duckherder {

class RemoteTransaction : public duckdb::Transaction {
public:
	RemoteTransaction(duckdb::TransactionManager &manager, duckdb::ClientContext &context,
	                  duckdb::shared_ptr<RemoteSession> session);

	static RemoteTransaction &Get(duckdb::ClientContext &context, duckdb::Catalog &catalog);

	RemoteSession &Session() {
		return *session;
	}
	//! Keeps a catalog entry alive until the transaction ends: DuckDB holds plain references to what a look-up returned.
	duckdb::CatalogEntry &Keep(duckdb::shared_ptr<duckdb::CatalogEntry> entry);
	//! Drops a temporary table of the session when the transaction has ended.
	void DropAfterwards(const duckdb::string &temporary_table);
	void DropTemporaryTables(const DhSession *open_session);

private:
	duckdb::shared_ptr<RemoteSession> session;
	duckdb::mutex lock;
	duckdb::vector<duckdb::shared_ptr<duckdb::CatalogEntry>> kept;
	duckdb::set<duckdb::string> temporary_tables;
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
