//! Statements that are run again and again, with other constants, planned once: for `src/duckdb/prepared.rs`.
//!
//! What comes as text, with other constants each time, is turned into the execution of a prepared statement when its like
//! has been seen before. The constants become values of the columns' types here, by DuckDB's own casts. Whatever is not
//! sure to have the same outcome stays as it is: an INSERT that fails, for one, fails as it was written.

#include "prepared.hpp"

#include "herd_bridge.hpp"

#include "duckdb/catalog/catalog.hpp"
#include "duckdb/catalog/catalog_entry/table_catalog_entry.hpp"
#include "duckdb/main/client_data.hpp"

#include <list>

namespace duckling {

using namespace duckdb;

bool IsPlain(const LogicalType &type) {
	if (type.HasAlias()) {
		return false;
	}
	switch (type.id()) {
	case LogicalTypeId::VARCHAR:
		return StringType::GetCollation(type).empty();
	case LogicalTypeId::BOOLEAN:
	case LogicalTypeId::TINYINT:
	case LogicalTypeId::SMALLINT:
	case LogicalTypeId::INTEGER:
	case LogicalTypeId::BIGINT:
	case LogicalTypeId::HUGEINT:
	case LogicalTypeId::UTINYINT:
	case LogicalTypeId::USMALLINT:
	case LogicalTypeId::UINTEGER:
	case LogicalTypeId::UBIGINT:
	case LogicalTypeId::UHUGEINT:
	case LogicalTypeId::FLOAT:
	case LogicalTypeId::DOUBLE:
	case LogicalTypeId::DECIMAL:
	case LogicalTypeId::BLOB:
	case LogicalTypeId::UUID:
	case LogicalTypeId::DATE:
	case LogicalTypeId::TIME:
	case LogicalTypeId::TIMESTAMP:
	case LogicalTypeId::TIMESTAMP_SEC:
	case LogicalTypeId::TIMESTAMP_MS:
	case LogicalTypeId::TIMESTAMP_NS:
	case LogicalTypeId::TIMESTAMP_TZ:
		return true;
	default:
		return false;
	}
}

namespace {

constexpr const char *STATE = "duckling_prepared";

//! Of each connection; the ones that were used last.
constexpr idx_t PREPARED_MAX = 32;

//! After as many no further one is prepared.
constexpr idx_t FAILURES_MAX = 4;

struct PreparedStatements : public ClientContextState {
	//! The one used last is the first.
	std::list<Prepared> statements;
	//! What is being run, and whether DuckDB was about to plan it anew.
	optional_ptr<const PreparedStatementData> running;
	bool is_outdated = false;

	RebindQueryInfo OnRebindPreparedStatement(ClientContext &, BindPreparedStatementCallbackInfo &info,
	                                          RebindQueryInfo current_rebind) override {
		if (current_rebind == RebindQueryInfo::ATTEMPT_TO_REBIND && running.get() == &info.prepared_statement) {
			is_outdated = true;
			throw BinderException("the table has changed");
		}
		return RebindQueryInfo::DO_NOT_REBIND;
	}

	//! The entry of `key`, which is new if there is none.
	Prepared &Find(const string &key) {
		for (auto entry = statements.begin(); entry != statements.end(); ++entry) {
			if (entry->key == key) {
				statements.splice(statements.begin(), statements, entry);
				return statements.front();
			}
		}
		if (statements.size() >= PREPARED_MAX) {
			statements.pop_back();
		}
		statements.emplace_front();
		statements.front().key = key;
		return statements.front();
	}
};

optional_ptr<TableCatalogEntry> TableOf(ClientContext &context, const QualifiedName &name) {
	EntryLookupInfo lookup(CatalogType::TABLE_ENTRY, name);
	auto entry = Catalog::GetEntry(context, lookup, OnEntryNotFound::RETURN_NULL);
	return entry && entry->type == CatalogType::TABLE_ENTRY ? &entry->Cast<TableCatalogEntry>() : nullptr;
}

//! Whether it would run without being planned anew. The connection may have it no more: DEALLOCATE takes whatever has
//! been prepared.
bool IsCurrent(ClientContext &context, const Prepared &prepared, const ExecuteStatement &execution) {
	auto &known = ClientData::Get(context).prepared_statements;
	auto entry = known.find(execution.name);
	if (entry == known.end() || entry->second != prepared.data) {
		return false;
	}
	auto values = execution.bound_values;
	return !prepared.data->RequireRebind(context, values);
}

unique_ptr<SQLStatement> Execution(ClientContext &context, SQLStatement &statement) {
	if (!statement.named_param_map.empty()) {
		return nullptr;
	}
	auto repeated = RepeatedInsert(statement);
	if (!repeated) {
		repeated = RepeatedLookup(statement);
	}
	if (!repeated) {
		return nullptr;
	}
	auto state = context.registered_state->GetOrCreate<PreparedStatements>(STATE);
	auto &prepared = state->Find(repeated->Key());
	unique_ptr<ExecuteStatement> execution;
	auto is_new = false;
	auto is_to_prepare = false;
	context.RunFunctionInTransaction([&]() {
		auto table = TableOf(context, repeated->TableName());
		if (!table) {
			return;
		}
		is_new = prepared.table != table.get();
		if (is_new || !prepared.data) {
			// Another table may be where a dropped one was; what has been prepared knows that.
			prepared.table = table.get();
			prepared.types = repeated->Types(context, *table);
		}
		if (is_new || prepared.types.empty() || prepared.failures >= FAILURES_MAX) {
			return;
		}
		optional<vector<Value>> values;
		try {
			values = repeated->Values(context, prepared.types);
		} catch (std::exception &) { // NOLINT: the statement as it was written says what is wrong with it
		}
		is_to_prepare = values && !prepared.data;
		if (!values || !prepared.data) {
			return;
		}
		execution = make_uniq<ExecuteStatement>();
		execution->name = Identifier(prepared.handle->GetName());
		repeated->Bind(prepared, std::move(*values), *execution);
		if (!IsCurrent(context, prepared, *execution)) {
			execution = nullptr;
			is_new = true;
		}
	});
	if (is_new) {
		prepared.Forget();
	}
	if (is_to_prepare) {
		// For the next one: the table may have been changed since it was looked at, and then another one is found.
		prepared.failures++;
		repeated->Prepare(context, prepared);
	}
	if (!execution) {
		return nullptr;
	}
	execution->query = statement.query;
	execution->stmt_location = statement.stmt_location;
	state->running = prepared.data.get();
	state->is_outdated = false;
	return std::move(execution);
}

} // namespace

} // namespace duckling

extern "C" {

//! Puts what runs in the place of a statement into `execution`; null if it runs as it is. An error, or null.
char *duckling_prepared(void *connection, void *statement, void **execution) {
	*execution = nullptr;
	return herd::Caught([&]() {
		auto &context = herd::ContextOf(connection);
		*execution = duckling::Execution(context, *static_cast<duckdb::SQLStatement *>(statement)).release();
	});
}

//! Whether what `duckling_prepared` gave last was not run, as the table has changed in between.
bool duckling_prepared_is_outdated(void *connection) {
	using duckling::PreparedStatements;
	try {
		auto state = herd::ContextOf(connection).registered_state->Get<PreparedStatements>(duckling::STATE);
		return state && state->is_outdated;
	} catch (...) { // NOLINT: nothing may be thrown into Rust
		return false;
	}
}
}
