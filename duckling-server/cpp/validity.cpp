#include "duckdb/main/attached_database.hpp"
#include "duckdb/main/client_context.hpp"
#include "duckdb/main/connection.hpp"
#include "duckdb/main/database.hpp"
#include "duckdb/main/database_manager.hpp"
#include "duckdb/main/valid_checker.hpp"

using namespace duckdb;

namespace {

bool IsInvalidated(DatabaseInstance &instance) {
	if (ValidChecker::IsInvalidated(instance)) {
		return true;
	}
	auto &databases = DatabaseManager::Get(instance);
	auto first = databases.GetDatabase(databases.GetDefaultDatabase());
	return first && ValidChecker::IsInvalidated(*first);
}

} // namespace

extern "C" {

//! Whether DuckDB has given up, after a fatal or an internal error, the instance or its first database.
bool duckling_is_invalidated(void *connection) {
	try {
		auto &context = *static_cast<Connection *>(connection)->context;
		return IsInvalidated(DatabaseInstance::GetDatabase(context));
	} catch (...) { // NOLINT: nothing may be thrown into Rust
		return false;
	}
}
}
