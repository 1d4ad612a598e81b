//! INSERTs of one row of constants, run as statements that are prepared once: for `src/duckdb/prepared_inserts.rs`.
//!
//! DuckDB keeps the plan of a prepared INSERT of parameters. What comes as text, with other constants each time, is
//! turned into the execution of such a one when its like has been seen before. The constants become values of the
//! columns' types here, by DuckDB's own casts. Whatever is not sure to have the same outcome stays as it is: an INSERT
//! that fails, for one, fails as it was written.

#include "herd_bridge.hpp"
#include "herd_scan.hpp"

#include "duckdb.hpp"
#include "duckdb/catalog/catalog.hpp"
#include "duckdb/catalog/catalog_entry/duck_table_entry.hpp"
#include "duckdb/main/client_data.hpp"
#include "duckdb/main/prepared_statement.hpp"
#include "duckdb/main/prepared_statement_data.hpp"
#include "duckdb/parser/constraint.hpp"
#include "duckdb/parser/expression/cast_expression.hpp"
#include "duckdb/parser/expression/constant_expression.hpp"
#include "duckdb/parser/expression/parameter_expression.hpp"
#include "duckdb/parser/expression/type_expression.hpp"
#include "duckdb/parser/statement/execute_statement.hpp"
#include "duckdb/parser/statement/insert_statement.hpp"
#include "duckdb/parser/tableref/expressionlistref.hpp"

#include <list>

namespace duckling {

using namespace duckdb;

namespace {

constexpr const char *STATE = "duckling_prepared_inserts";

//! Of each connection; the ones that were used last.
constexpr idx_t PREPARED_MAX = 32;

//! Columns of an INSERT that is prepared.
constexpr idx_t COLUMNS_MAX = 256;

using Row = vector<unique_ptr<ParsedExpression>>;

struct PreparedInsert {
	//! Table and columns, as they were written.
	string key;
	//! The table that was meant, to be compared only: a change of the table is another entry.
	const void *table = nullptr;
	//! Of the values.
	vector<LogicalType> types;
	//! Null if its like has been seen once only, or cannot be prepared.
	unique_ptr<PreparedStatement> prepared;
	//! Of `prepared`.
	shared_ptr<PreparedStatementData> data;
	bool is_hopeless = false;
};

struct PreparedInserts : public ClientContextState {
	//! The one used last is the first.
	std::list<PreparedInsert> inserts;
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
	PreparedInsert &Find(const string &key) {
		for (auto entry = inserts.begin(); entry != inserts.end(); ++entry) {
			if (entry->key == key) {
				inserts.splice(inserts.begin(), inserts, entry);
				return inserts.front();
			}
		}
		if (inserts.size() >= PREPARED_MAX) {
			inserts.pop_back();
		}
		inserts.emplace_front();
		inserts.front().key = key;
		return inserts.front();
	}
};

//! The one row of constants that an INSERT consists of; null if there is more to it.
optional_ptr<Row> RowOf(SQLStatement &statement) {
	if (statement.type != StatementType::INSERT_STATEMENT || !statement.named_param_map.empty()) {
		return nullptr;
	}
	auto &node = *statement.Cast<InsertStatement>().node;
	// An INSERT of rows always has a query for them, be it a list of values.
	auto has_more = !node.select_statement || !node.select_statement->node->modifiers.empty() ||
	                node.on_conflict_info || !node.returning_list.empty() || !node.cte_map.map.empty() ||
	                !node.modifiers.empty() || node.default_values ||
	                node.column_order != InsertColumnOrder::INSERT_BY_POSITION;
	auto values = has_more ? nullptr : node.GetValuesList();
	if (!values || values->values.size() != 1 || values->values[0].empty() || values->values[0].size() > COLUMNS_MAX) {
		return nullptr;
	}
	auto is_constant = [](const unique_ptr<ParsedExpression> &expression) {
		auto inner = optional_ptr<const ParsedExpression>(expression.get());
		if (inner->GetExpressionClass() == ExpressionClass::CAST) {
			auto &cast = inner->Cast<CastExpression>();
			if (cast.IsTryCast() || !cast.TargetType().GetChildren().empty() || !cast.TargetType().GetSchema().empty()) {
				return false;
			}
			inner = cast.Child();
		}
		return inner->GetExpressionClass() == ExpressionClass::CONSTANT;
	};
	auto &row = values->values[0];
	return std::all_of(row.begin(), row.end(), is_constant) ? optional_ptr<Row>(row) : nullptr;
}

string KeyOf(const InsertQueryNode &node) {
	auto key = node.qualified_name.ToString();
	for (auto &column : node.columns) {
		// A name cannot hold it.
		key += '\0' + column.GetIdentifierName();
	}
	return key;
}

//! Types whose values are the same whether they come as a parameter or as a constant in the text.
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

bool HasTriggers(ClientContext &context, TableCatalogEntry &table) {
	auto transaction = table.ParentCatalog().GetCatalogTransaction(context);
	for (auto timing : {TriggerTiming::BEFORE, TriggerTiming::AFTER}) {
		for (auto each : {TriggerForEach::STATEMENT, TriggerForEach::ROW}) {
			if (!table.GetTriggersForEvent(transaction, timing, TriggerEventType::INSERT_EVENT, each).empty()) {
				return true;
			}
		}
	}
	return false;
}

//! The types of the columns that an INSERT gives values; none unless those are all, and a plan for it depends on nothing
//! but the table.
vector<LogicalType> TypesOf(ClientContext &context, TableCatalogEntry &table, const InsertQueryNode &node) {
	vector<LogicalType> types;
	auto is_check = [](const unique_ptr<Constraint> &constraint) { return constraint->type == ConstraintType::CHECK; };
	auto &constraints = table.GetConstraints();
	if (!table.IsDuckTable() || herd::PlacementOf(table) || table.HasGeneratedColumns() ||
	    std::any_of(constraints.begin(), constraints.end(), is_check) || HasTriggers(context, table)) {
		return types;
	}
	if (node.columns.empty()) {
		types = table.GetTypes();
	} else if (node.columns.size() == table.GetColumns().PhysicalColumnCount()) {
		for (auto &column : node.columns) {
			if (!table.ColumnExists(column)) {
				return {};
			}
			types.push_back(table.GetColumn(column).Type());
		}
	}
	return std::all_of(types.begin(), types.end(), IsPlain) ? types : vector<LogicalType>();
}

optional_ptr<TableCatalogEntry> TableOf(ClientContext &context, const InsertQueryNode &node) {
	EntryLookupInfo lookup(CatalogType::TABLE_ENTRY, node.qualified_name);
	auto entry = Catalog::GetEntry(context, lookup, OnEntryNotFound::RETURN_NULL);
	return entry && entry->type == CatalogType::TABLE_ENTRY ? &entry->Cast<TableCatalogEntry>() : nullptr;
}

//! A literal as a value of a type, or nothing.
optional<Value> Cast(ClientContext &context, const Value &value, const LogicalType &type) {
	string error;
	return value.IsNull() ? optional<Value>(Value(type)) : value.TryCastAs(context, type, &error);
}

//! The value of a constant, as one of a column of this type, or nothing.
optional<Value> ValueOf(ClientContext &context, const ParsedExpression &expression, const LogicalType &type) {
	if (expression.GetExpressionClass() == ExpressionClass::CONSTANT) {
		return Cast(context, expression.Cast<ConstantExpression>().GetLiteral().ToValue(), type);
	}
	auto &written = expression.Cast<CastExpression>();
	LogicalType between(TransformStringToLogicalTypeId(written.TargetType().GetTypeName().GetIdentifierName()));
	if (between.id() == LogicalTypeId::DECIMAL || !IsPlain(between)) {
		return optional<Value>();
	}
	auto value = Cast(context, written.Child().Cast<ConstantExpression>().GetLiteral().ToValue(), between);
	return value ? Cast(context, *value, type) : value;
}

bool ValuesOf(ClientContext &context, const Row &row, const vector<LogicalType> &types,
              identifier_map_t<BoundParameterData> &values) {
	for (idx_t i = 0; i < row.size(); i++) {
		auto value = ValueOf(context, *row[i], types[i]);
		if (!value) {
			return false;
		}
		values[Identifier(to_string(i + 1))] = BoundParameterData(std::move(*value), types[i]);
	}
	return true;
}

//! Prepares the statement with parameters in the place of its constants.
void Prepare(ClientContext &context, const InsertStatement &statement, PreparedInsert &insert) {
	auto copy = statement.Copy();
	auto &row = copy->Cast<InsertStatement>().node->GetValuesList()->values[0];
	for (idx_t i = 0; i < row.size(); i++) {
		auto parameter = make_uniq<ParameterExpression>();
		parameter->IdentifierMutable() = Identifier(to_string(i + 1));
		row[i] = make_uniq<CastExpression>(insert.types[i], std::move(parameter));
		copy->named_param_map[Identifier(to_string(i + 1))] = i + 1;
	}
	auto prepared = context.Prepare(std::move(copy));
	if (prepared->HasError()) {
		return;
	}
	auto &properties = prepared->GetStatementProperties();
	if (!properties.bound_all_parameters || properties.always_require_rebind) {
		return;
	}
	auto &known = ClientData::Get(context).prepared_statements;
	auto entry = known.find(Identifier(prepared->GetName()));
	if (entry != known.end()) {
		insert.data = entry->second;
		insert.prepared = std::move(prepared);
	}
}

//! Whether the connection still has it: DEALLOCATE takes whatever has been prepared.
bool IsKnown(ClientContext &context, const PreparedInsert &insert) {
	auto &known = ClientData::Get(context).prepared_statements;
	auto entry = known.find(Identifier(insert.prepared->GetName()));
	return entry != known.end() && entry->second == insert.data;
}

unique_ptr<SQLStatement> Execution(ClientContext &context, SQLStatement &statement) {
	auto row = RowOf(statement);
	if (!row) {
		return nullptr;
	}
	auto &node = *statement.Cast<InsertStatement>().node;
	auto state = context.registered_state->GetOrCreate<PreparedInserts>(STATE);
	auto &insert = state->Find(KeyOf(node));
	identifier_map_t<BoundParameterData> values;
	auto fits = false;
	auto is_new = false;
	context.RunFunctionInTransaction([&]() {
		auto table = TableOf(context, node);
		if (!table) {
			return;
		}
		is_new = insert.table != table.get();
		if (is_new || !insert.data) {
			// Another table may be where a dropped one was; what has been prepared knows that.
			insert.table = table.get();
			insert.types = TypesOf(context, *table, node);
		}
		if (!is_new && insert.types.size() == row->size() && !insert.is_hopeless) {
			try {
				fits = ValuesOf(context, *row, insert.types, values);
			} catch (std::exception &) { // NOLINT: the statement as it was written says what is wrong with it
			}
		}
		if (fits && insert.data && (!IsKnown(context, insert) || insert.data->RequireRebind(context, values))) {
			fits = false;
			is_new = true;
		}
	});
	if (is_new) {
		insert.data = nullptr;
		insert.prepared = nullptr;
		insert.is_hopeless = false;
	}
	if (!fits) {
		return nullptr;
	}
	if (!insert.prepared) {
		// For the next one: the table may have been changed since it was looked at, and then another one is found.
		Prepare(context, statement.Cast<InsertStatement>(), insert);
		insert.is_hopeless = !insert.prepared;
		return nullptr;
	}
	auto result = make_uniq<ExecuteStatement>();
	result->name = Identifier(insert.prepared->GetName());
	result->bound_values = std::move(values);
	result->query = statement.query;
	result->stmt_location = statement.stmt_location;
	state->running = insert.data.get();
	state->is_outdated = false;
	return std::move(result);
}

} // namespace

} // namespace duckling

extern "C" {

//! Puts what runs in the place of a statement into `execution`; null if it runs as it is. An error, or null.
char *duckling_prepared_insert(void *connection, void *statement, void **execution) {
	*execution = nullptr;
	return herd::Caught([&]() {
		auto &context = herd::ContextOf(connection);
		*execution = duckling::Execution(context, *static_cast<duckdb::SQLStatement *>(statement)).release();
	});
}

//! Whether what `duckling_prepared_insert` gave last was not run, as the table has changed in between.
bool duckling_prepared_insert_is_outdated(void *connection) {
	using duckling::PreparedInserts;
	try {
		auto state = herd::ContextOf(connection).registered_state->Get<PreparedInserts>(duckling::STATE);
		return state && state->is_outdated;
	} catch (...) { // NOLINT: nothing may be thrown into Rust
		return false;
	}
}
}
