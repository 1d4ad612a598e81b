#include "remote_transaction.hpp"

#include "remote_catalog.hpp"

#include "duckdb/main/active_query_context.hpp"
#include "duckdb/main/client_context.hpp"
#include "duckdb/main/settings.hpp"

namespace duckherder {

using namespace duckdb;

RemoteTransaction::RemoteTransaction(TransactionManager &manager, ClientContext &context,
                                     shared_ptr<RemoteSession> session)
    : Transaction(manager, context), session(std::move(session)), is_together(false) {
}

RemoteTransaction &RemoteTransaction::Get(ClientContext &context, Catalog &catalog) {
	return Transaction::Get(context, catalog).Cast<RemoteTransaction>();
}

namespace {

//! What runs in a client context is its own secret. Explicit instantiations may name private members.
template <unique_ptr<ActiveQueryContext> ClientContext::*MEMBER>
struct ActiveQueryOf {
	friend const unique_ptr<ActiveQueryContext> &ActiveQuery(ClientContext &context) {
		return context.*MEMBER;
	}
};
const unique_ptr<ActiveQueryContext> &ActiveQuery(ClientContext &context);
template struct ActiveQueryOf<&ClientContext::active_query>;

//! Whether DuckDB has made several statements of the one that runs: ALTER TABLE … ADD COLUMN with a DEFAULT that is to be
//! evaluated, PIVOT. All or none of them count, in autocommit too.
bool IsOneOfSeveral(ClientContext &context) {
	auto &query = ActiveQuery(context);
	return query && query->ExpandsIntoSeveral();
}

} // namespace

bool RemoteTransaction::SpansStatements(ClientContext &context, Catalog &catalog) {
	return !context.transaction.IsAutoCommit() || IsOneOfSeveral(context) || Get(context, catalog).is_together;
}

void RemoteTransaction::KeepTogether() {
	is_together = true;
}

CatalogEntry &RemoteTransaction::Keep(shared_ptr<CatalogEntry> entry) {
	lock_guard<mutex> guard(lock);
	auto &result = *entry;
	kept.emplace(&result, std::move(entry));
	return result;
}

void RemoteTransaction::ReadFor(ClientContext &context) {
	auto query = context.transaction.GetActiveQuery();
	// What is no statement has no number of its own.
	if (query != listing.query || query >= MAXIMUM_QUERY_ID) {
		listing = Listing();
		listing.query = query;
	}
}

bool RemoteTransaction::IsFirstLookup(ClientContext &context) {
	lock_guard<mutex> guard(lock);
	ReadFor(context);
	return !std::exchange(listing.has_looked_up, true);
}

shared_ptr<TablesHandle> RemoteTransaction::Tables(ClientContext &context) {
	lock_guard<mutex> guard(lock);
	ReadFor(context);
	if (!listing.tables) {
		auto tables = make_shared_ptr<TablesHandle>();
		auto open_session = session->Open(context);
		Check([&](DhBuffer *error) {
			return Api().list_tables(open_session, InterruptOf(context), tables->Slot(), error);
		});
		listing.tables = std::move(tables);
	}
	return listing.tables;
}

shared_ptr<DefinitionsHandle> RemoteTransaction::Definitions(ClientContext &context, DhDefinitionKind kind) {
	lock_guard<mutex> guard(lock);
	ReadFor(context);
	auto &known = listing.definitions[kind];
	if (!known) {
		auto definitions = make_shared_ptr<DefinitionsHandle>();
		auto open_session = session->Open(context);
		Check([&](DhBuffer *error) {
			return Api().list_definitions(open_session, kind, InterruptOf(context), definitions->Slot(), error);
		});
		known = std::move(definitions);
	}
	return known;
}

void RemoteTransaction::DropAfterwards(const string &temporary_table) {
	lock_guard<mutex> guard(lock);
	temporary_tables.insert(temporary_table);
}

void RemoteTransaction::DropTemporaryTables(const DhSession *open_session) {
	for (auto &table : temporary_tables) {
		Api().session_drop_temporary(open_session, Text(table));
	}
}

RemoteTransactionManager::RemoteTransactionManager(AttachedDatabase &db, RemoteCatalog &catalog)
    : TransactionManager(db), catalog(catalog) {
}

Transaction &RemoteTransactionManager::StartTransaction(ClientContext &context) {
	auto transaction = make_uniq<RemoteTransaction>(*this, context, RemoteSession::Of(context, catalog));
	auto &result = *transaction;
	if (!context.transaction.IsAutoCommit() && Settings::Get<ImmediateTransactionModeSetting>(context)) {
		auto session = result.Session().Open(context);
		Check([&](DhBuffer *error) { return Api().session_begin(session, InterruptOf(context), error); });
	}
	lock_guard<mutex> guard(lock);
	transactions[result] = std::move(transaction);
	return result;
}

unique_ptr<RemoteTransaction> RemoteTransactionManager::Take(Transaction &transaction) {
	lock_guard<mutex> guard(lock);
	auto entry = transactions.find(transaction);
	if (entry == transactions.end()) {
		return nullptr;
	}
	auto taken = std::move(entry->second);
	transactions.erase(entry);
	return taken;
}

ErrorData RemoteTransactionManager::CommitTransaction(ClientContext &, Transaction &transaction) {
	auto taken = Take(transaction);
	auto session = taken ? taken->Session().IfOpen() : nullptr;
	if (!session) {
		return ErrorData();
	}
	try {
		// Not interruptible: whether it happened must be known. It has a deadline instead.
		Check([&](DhBuffer *error) { return Api().session_commit(session, DhInterrupt {nullptr, nullptr}, error); });
		taken->DropTemporaryTables(session);
		return ErrorData();
	} catch (std::exception &ex) {
		return ErrorData(ex);
	}
}

void RemoteTransactionManager::RollbackTransaction(Transaction &transaction) {
	auto taken = Take(transaction);
	auto session = taken ? taken->Session().IfOpen() : nullptr;
	if (session) {
		Api().session_rollback(session);
		taken->DropTemporaryTables(session);
	}
}

void RemoteTransactionManager::Checkpoint(ClientContext &, bool) {
	// The duckling checkpoints itself.
}

} // namespace duckherder
