//! INSERTs of one row of constants. DuckDB keeps the plan of a prepared one with parameters in their place.

#include "herd_scan.hpp"
#include "prepared.hpp"

#include "duckdb/catalog/catalog.hpp"
#include "duckdb/catalog/catalog_entry/duck_table_entry.hpp"
#include "duckdb/execution/operator/persistent/physical_batch_insert.hpp"
#include "duckdb/execution/operator/persistent/physical_insert.hpp"
#include "duckdb/execution/physical_plan_generator.hpp"
#include "duckdb/main/client_data.hpp"
#include "duckdb/parser/constraint.hpp"
#include "duckdb/parser/expression/cast_expression.hpp"
#include "duckdb/parser/expression/constant_expression.hpp"
#include "duckdb/parser/expression/parameter_expression.hpp"
#include "duckdb/parser/expression/type_expression.hpp"
#include "duckdb/parser/statement/insert_statement.hpp"
#include "duckdb/parser/tableref/expressionlistref.hpp"
#include "duckdb/storage/data_table.hpp"

namespace duckling {

using namespace duckdb;

namespace {

//! Columns of an INSERT that is prepared.
constexpr idx_t COLUMNS_MAX = 256;

using Row = vector<unique_ptr<ParsedExpression>>;

LogicalType TypeOfCast(const CastExpression &cast) {
	return TransformStringToLogicalTypeId(cast.TargetType().GetTypeName().GetIdentifierName());
}

//! A literal, or a cast of one to a type that values have whether they are written or not.
bool IsConstant(const unique_ptr<ParsedExpression> &expression) {
	auto inner = optional_ptr<const ParsedExpression>(expression.get());
	if (inner->GetExpressionClass() == ExpressionClass::CAST) {
		auto &cast = inner->Cast<CastExpression>();
		if (cast.IsTryCast() || !cast.TargetType().GetChildren().empty() || !cast.TargetType().GetSchema().empty()) {
			return false;
		}
		auto type = TypeOfCast(cast);
		if (type.id() == LogicalTypeId::DECIMAL || !IsPlain(type)) {
			return false;
		}
		inner = cast.Child();
	}
	return inner->GetExpressionClass() == ExpressionClass::CONSTANT;
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

//! A literal as a value of a type, or nothing.
optional<Value> Cast(ClientContext &context, const Value &value, const LogicalType &type) {
	string error;
	return value.IsNull() ? optional<Value>(Value(type)) : value.TryCastAs(context, type, &error);
}

//! Where a plan inserts.
struct Target {
	optional_ptr<DuckTableEntry> table;
	optional_ptr<const vector<unique_ptr<BoundConstraint>>> constraints;

	//! Without a table if the plan does more than that.
	static Target Of(PreparedStatementData &data) {
		auto &root = data.physical_plan->Root();
		if (root.type == PhysicalOperatorType::BATCH_INSERT) {
			auto &insert = root.Cast<PhysicalBatchInsert>();
			return {insert.insert_table, insert.bound_constraints};
		}
		if (root.type != PhysicalOperatorType::INSERT) {
			return {};
		}
		auto &insert = root.Cast<PhysicalInsert>();
		if (insert.return_chunk || insert.action_type != OnConflictAction::THROW) {
			return {};
		}
		return {insert.insert_table, insert.bound_constraints};
	}
};

class RowValues : public Constants {
public:
	optional<vector<Value>> ToValues(ClientContext &context, const vector<Constant> &constants,
	                                 const vector<LogicalType> &types) const override {
		if (types.size() != constants.size()) {
			return {};
		}
		vector<Value> values;
		for (idx_t i = 0; i < constants.size(); i++) {
			auto value = optional<Value>(constants[i].literal.ToValue());
			auto &cast = constants[i].cast;
			if (cast.IsValid()) {
				value = Cast(context, *value, cast);
			}
			value = value ? Cast(context, *value, types[i]) : value;
			if (!value) {
				return {};
			}
			values.push_back(std::move(*value));
		}
		return values;
	}

	void Bind(Prepared &prepared, vector<Value> values, ExecuteStatement &execution) const override {
		for (idx_t i = 0; i < values.size(); i++) {
			execution.bound_values[Identifier(to_string(i + 1))] =
			    BoundParameterData(std::move(values[i]), prepared.types[i]);
		}
	}

	void RunShort(ClientContext &context, const Prepared &prepared, const vector<Value> &values,
	              const std::function<void(DataChunk &)> &take) const override {
		auto target = Target::Of(*prepared.data);
		DataChunk row;
		row.Initialize(context, target.table->GetTypes());
		for (idx_t i = 0; i < row.ColumnCount(); i++) {
			row.data[i].Append(values[prepared.values_of_columns[i]]);
		}
		auto &storage = target.table->GetStorage();
		storage.BindIndexes(context);
		storage.LocalAppend(*target.table, context, row, *target.constraints);
		DataChunk count;
		count.Initialize(context, prepared.data->types);
		count.data[0].Append(Value::BIGINT(1));
		take(count);
	}
};

Constant ConstantOf(const ParsedExpression &expression) {
	Constant result;
	auto inner = optional_ptr<const ParsedExpression>(expression);
	if (inner->GetExpressionClass() == ExpressionClass::CAST) {
		auto &cast = inner->Cast<CastExpression>();
		result.cast = TypeOfCast(cast);
		inner = cast.Child();
	}
	result.literal = inner->Cast<ConstantExpression>().GetLiteral();
	if (inner->HasQueryLocation()) {
		result.offset = inner->GetQueryLocation().Start();
	}
	return result;
}

class Insert : public Repeated {
public:
	Insert(const InsertStatement &statement, const Row &row) : statement(statement), node(*statement.node), row(row) {
	}

	string Key() const override {
		auto key = "INSERT " + node.qualified_name.ToString();
		for (auto &column : node.columns) {
			// A name cannot hold it.
			key += '\0' + column.GetIdentifierName();
		}
		return key;
	}

	const QualifiedName &TableName() const override {
		return node.qualified_name;
	}

	//! Those of the columns, if it gives all of them values.
	vector<LogicalType> Types(ClientContext &context, TableCatalogEntry &table) const override {
		vector<LogicalType> types;
		auto is_check = [](const unique_ptr<Constraint> &constraint) {
			return constraint->type == ConstraintType::CHECK;
		};
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

	const Constants &Kind() const override {
		static const RowValues KIND;
		return KIND;
	}

	vector<Constant> GetConstants() const override {
		vector<Constant> constants;
		for (auto &expression : row) {
			constants.push_back(ConstantOf(*expression));
		}
		return constants;
	}

	void Prepare(ClientContext &context, Prepared &prepared) const override {
		auto copy = statement.Copy();
		auto &parameters = copy->Cast<InsertStatement>().node->GetValuesList()->values[0];
		for (idx_t i = 0; i < parameters.size(); i++) {
			auto parameter = make_uniq<ParameterExpression>();
			parameter->IdentifierMutable() = Identifier(to_string(i + 1));
			parameters[i] = make_uniq<CastExpression>(prepared.types[i], std::move(parameter));
			copy->named_param_map[Identifier(to_string(i + 1))] = i + 1;
		}
		auto handle = context.Prepare(std::move(copy));
		if (handle->HasError()) {
			return;
		}
		auto &properties = handle->GetStatementProperties();
		if (!properties.bound_all_parameters || properties.always_require_rebind) {
			return;
		}
		auto &known = ClientData::Get(context).prepared_statements;
		auto entry = known.find(Identifier(handle->GetName()));
		if (entry != known.end()) {
			prepared.data = entry->second;
			prepared.handle = std::move(handle);
			context.RunFunctionInTransaction([&]() {
				// What the plan says of it may have been dropped since: only if it is this, it is not.
				auto table = TableOf(context, TableName());
				prepared.is_short = table && table.get() == Target::Of(*prepared.data).table.get() &&
				                    table.get() == prepared.table &&
				                    FindValuesOfColumns(*table, prepared.values_of_columns);
			});
		}
	}

private:
	//! Whether each column gets one of the values.
	bool FindValuesOfColumns(const TableCatalogEntry &table, vector<idx_t> &values) const {
		values.clear();
		for (auto &column : table.GetColumns().Physical()) {
			auto value = values.size();
			if (!node.columns.empty()) {
				auto name = std::find(node.columns.begin(), node.columns.end(), column.Name());
				value = NumericCast<idx_t>(name - node.columns.begin());
			}
			if (value >= row.size()) {
				return false;
			}
			values.push_back(value);
		}
		return true;
	}

	const InsertStatement &statement;
	const InsertQueryNode &node;
	const Row &row;
};

} // namespace

unique_ptr<Repeated> RepeatedInsert(SQLStatement &statement) {
	if (statement.type != StatementType::INSERT_STATEMENT) {
		return nullptr;
	}
	auto &insert = statement.Cast<InsertStatement>();
	auto &node = *insert.node;
	// An INSERT of rows always has a query for them, be it a list of values.
	auto has_more = !node.select_statement || !node.select_statement->node->modifiers.empty() ||
	                node.on_conflict_info || !node.returning_list.empty() || !node.cte_map.map.empty() ||
	                !node.modifiers.empty() || node.default_values ||
	                node.column_order != InsertColumnOrder::INSERT_BY_POSITION;
	auto list = has_more ? nullptr : node.GetValuesList();
	if (!list || list->values.size() != 1 || list->values[0].empty() || list->values[0].size() > COLUMNS_MAX) {
		return nullptr;
	}
	auto &row = list->values[0];
	return std::all_of(row.begin(), row.end(), IsConstant) ? make_uniq<Insert>(insert, row) : nullptr;
}

} // namespace duckling
