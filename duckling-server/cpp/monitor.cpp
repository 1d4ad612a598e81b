//! What a DuckDB instance tells of its state: for `src/duckdb/monitor.rs`.

#include "herd_bridge.hpp"

#include "duckdb.hpp"
#include "duckdb/main/attached_database.hpp"
#include "duckdb/main/database_manager.hpp"
#include "duckdb/main/valid_checker.hpp"
#include "duckdb/storage/buffer_manager.hpp"

namespace {

using duckdb::MemoryTag;

//! Whether memory of this kind is held by statements, and free when they end. The rest is either of tables and indexes,
//! whatever runs, or a cache that gives way by itself.
bool IsHeldByStatements(MemoryTag tag) {
	switch (tag) {
	case MemoryTag::HASH_TABLE:
	case MemoryTag::ORDER_BY:
	case MemoryTag::COLUMN_DATA:
	case MemoryTag::WINDOW:
	case MemoryTag::PARQUET_READER:
	case MemoryTag::CSV_READER:
	case MemoryTag::TRANSACTION:
	case MemoryTag::ALLOCATOR:
		return true;
	default:
		return false;
	}
}

bool IsInvalidated(duckdb::DatabaseInstance &instance) {
	if (duckdb::ValidChecker::IsInvalidated(instance)) {
		return true;
	}
	auto &databases = duckdb::DatabaseManager::Get(instance);
	auto first = databases.GetDatabase(databases.GetDefaultDatabase());
	return first && duckdb::ValidChecker::IsInvalidated(*first);
}

} // namespace

extern "C" {

//! Whether DuckDB has given up, after a fatal or an internal error, the instance or its first database.
char *duckling_is_invalidated(void *connection, bool *invalidated) {
	return herd::Caught([&]() {
		*invalidated = IsInvalidated(duckdb::DatabaseInstance::GetDatabase(herd::ContextOf(connection)));
	});
}

//! Whether an error has undone the connection's transaction, which can only be rolled back then.
char *duckling_transaction_is_invalidated(void *connection, bool *invalidated) {
	return herd::Caught([&]() {
		auto &transaction = herd::ContextOf(connection).transaction;
		*invalidated = transaction.HasActiveTransaction() &&
		               duckdb::ValidChecker::IsInvalidated(transaction.ActiveTransaction());
	});
}

//! How much of DuckDB's memory belongs to what statements do at the moment.
char *duckling_held_memory(void *connection, uint64_t *held, uint64_t *limit) {
	return herd::Caught([&]() {
		auto &buffers = duckdb::BufferManager::GetBufferManager(herd::ContextOf(connection));
		*held = 0;
		for (auto &usage : buffers.GetMemoryUsageInfo()) {
			if (IsHeldByStatements(usage.tag)) {
				*held += usage.size;
			}
		}
		*limit = buffers.GetMaxMemory();
	});
}
}
