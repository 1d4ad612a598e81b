//! Queries of the rows of a table where one column is a constant: `SELECT … FROM t WHERE k = 1`.
//!
//! DuckDB plans a prepared query anew each time it is executed, as what its optimizer takes from the statistics may be
//! outdated. A plan that is no more than a scan with this one filter has nothing of that in it, and stays right with
//! another constant in the filter.

#include "herd_scan.hpp"
#include "prepared.hpp"

#include "duckdb/catalog/catalog.hpp"
#include "duckdb/catalog/catalog_entry/duck_table_entry.hpp"
#include "duckdb/common/types/uuid.hpp"
#include "duckdb/execution/execution_context.hpp"
#include "duckdb/execution/operator/projection/physical_projection.hpp"
#include "duckdb/execution/operator/scan/physical_table_scan.hpp"
#include "duckdb/execution/physical_plan_generator.hpp"
#include "duckdb/function/table/table_scan.hpp"
#include "duckdb/main/client_data.hpp"
#include "duckdb/main/settings.hpp"
#include "duckdb/parser/constraints/unique_constraint.hpp"
#include "duckdb/parallel/interrupt.hpp"
#include "duckdb/parallel/thread_context.hpp"
#include "duckdb/parser/expression/comparison_expression.hpp"
#include "duckdb/parser/expression/columnref_expression.hpp"
#include "duckdb/parser/expression/constant_expression.hpp"
#include "duckdb/parser/expression/star_expression.hpp"
#include "duckdb/parser/query_node/select_node.hpp"
#include "duckdb/parser/statement/select_statement.hpp"
#include "duckdb/parser/tableref/basetableref.hpp"
#include "duckdb/planner/expression/bound_reference_expression.hpp"
#include "duckdb/planner/filter/expression_filter.hpp"
#include "duckdb/planner/operator/logical_get.hpp"
#include "duckdb/planner/planner.hpp"

namespace duckling {

using namespace duckdb;

namespace {

//! Of columns that are asked for.
constexpr idx_t COLUMNS_MAX = 256;

//! The scan that a plan is, but for the choice of its columns; null if there is more to it.
optional_ptr<PhysicalTableScan> ScanOf(PhysicalPlan &plan) {
	auto op = optional_ptr<PhysicalOperator>(plan.Root());
	while (op->type == PhysicalOperatorType::PROJECTION) {
		for (auto &expression : op->Cast<PhysicalProjection>().select_list) {
			if (expression->GetExpressionClass() != ExpressionClass::BOUND_REF) {
				return nullptr;
			}
		}
		op = op->children[0].get();
	}
	if (op->type != PhysicalOperatorType::TABLE_SCAN) {
		return nullptr;
	}
	return op->Cast<PhysicalTableScan>();
}

//! The column that a scan's only filter compares with a constant of the column's type.
optional_ptr<const ColumnDefinition> FilteredColumn(const PhysicalTableScan &scan, const TableCatalogEntry &table) {
	auto has_filter = scan.table_filters && scan.table_filters->FilterCount() == 1 &&
	                  !scan.table_filters->HasMultiColumnFilters() && !scan.dynamic_filters &&
	                  !scan.extra_info.sample_options;
	if (!has_filter || scan.function.GetName() != Identifier("seq_scan") || !scan.bind_data) {
		return nullptr;
	}
	auto &bound = scan.bind_data->Cast<TableScanBindData>();
	if (&bound.table != &table || bound.order_options || bound.partitions_to_scan) {
		return nullptr;
	}
	auto entry = *scan.table_filters->begin();
	auto &filter = ExpressionFilter::GetExpressionFilter(entry.Filter(), "a look-up");
	auto column = entry.GetIndex();
	if (!BoundComparisonExpression::IsComparison(*filter.expr) || column.GetIndex() >= scan.column_ids.size()) {
		return nullptr;
	}
	ExpressionType comparison;
	auto constant =
	    ExpressionFilter::TryGetColumnConstantComparison(filter.expr->Cast<BoundFunctionExpression>(), comparison);
	auto &id = scan.column_ids[column.GetIndex()];
	if (!constant || comparison != ExpressionType::COMPARE_EQUAL || id.IsVirtualColumn() || id.HasChildren()) {
		return nullptr;
	}
	auto &definition = table.GetColumn(id.ToLogical());
	return constant->GetReturnType() == definition.Type() ? &definition : nullptr;
}

//! Whether a value is in that column once at most, and an index finds it.
bool IsUnique(TableCatalogEntry &table, const ColumnDefinition &column) {
	auto &constraints = table.GetConstraints();
	return std::any_of(constraints.begin(), constraints.end(), [&](const unique_ptr<Constraint> &constraint) {
		if (constraint->type != ConstraintType::UNIQUE) {
			return false;
		}
		auto columns = constraint->Cast<UniqueConstraint>().GetLogicalIndexes(table.GetColumns());
		return columns.size() == 1 && columns[0] == column.Logical();
	});
}

//! Which columns of the scan the plan yields.
vector<idx_t> ColumnsOf(PhysicalPlan &plan) {
	vector<idx_t> columns;
	auto op = optional_ptr<PhysicalOperator>(plan.Root());
	for (idx_t i = 0; i < op->types.size(); i++) {
		columns.push_back(i);
	}
	for (; op->type == PhysicalOperatorType::PROJECTION; op = op->children[0].get()) {
		auto &expressions = op->Cast<PhysicalProjection>().select_list;
		for (auto &column : columns) {
			column = expressions[column]->Cast<BoundReferenceExpression>().Index();
		}
	}
	return columns;
}

//! The constant that a column is compared with.
class LookupKey : public Constants {
public:
	optional<vector<Value>> ToValues(ClientContext &context, const vector<Constant> &constants,
	                                 const vector<LogicalType> &types) const override {
		auto &literal = constants[0].literal;
		auto is_text = literal.kind == LiteralKind::STRING;
		if (types.size() != 1 || is_text != (types[0].id() == LogicalTypeId::VARCHAR) ||
		    (is_text && !Settings::Get<DefaultCollationSetting>(context).empty())) {
			return {};
		}
		string error;
		auto value = literal.ToValue().TryCastAs(context, types[0], &error);
		return value && !value->IsNull() ? optional<vector<Value>>(vector<Value> {std::move(*value)})
		                                 : optional<vector<Value>>();
	}

	void Bind(Prepared &prepared, vector<Value> values, ExecuteStatement &) const override {
		auto &filters = *ScanOf(*prepared.data->physical_plan)->table_filters;
		auto column = (*filters.begin()).GetIndex();
		filters.SetFilterByColumnIndex(
		    column, ExpressionFilter::CreateComparisonFilter(ExpressionType::COMPARE_EQUAL, std::move(values[0])));
	}

	void RunShort(ClientContext &context, const Prepared &prepared, const vector<Value> &,
	              const std::function<void(DataChunk &)> &take) const override {
		auto &plan = *prepared.data->physical_plan;
		auto &scan = *ScanOf(plan);
		auto columns = ColumnsOf(plan);
		ThreadContext thread(context);
		ExecutionContext execution(context, thread, nullptr);
		auto global = scan.GetGlobalSourceState(context);
		auto local = scan.GetLocalSourceState(execution, *global);
		InterruptState interrupt;
		OperatorSourceInput input {*global, *local, interrupt};
		DataChunk rows;
		DataChunk result;
		rows.Initialize(context, scan.GetTypes());
		result.InitializeEmpty(prepared.data->types);
		auto status = SourceResultType::HAVE_MORE_OUTPUT;
		while (status == SourceResultType::HAVE_MORE_OUTPUT) {
			rows.Reset();
			status = scan.GetData(execution, rows, input);
			if (rows.size() > 0) {
				result.ReferenceColumns(rows, columns);
				take(result);
			}
		}
		if (status == SourceResultType::BLOCKED) {
			throw InternalException("a look-up that nobody waits for has been parked");
		}
	}
};

class Lookup : public Repeated {
public:
	Lookup(const SelectStatement &statement, const BaseTableRef &from, const ColumnRefExpression &column,
	       const ConstantExpression &constant)
	    : statement(statement), from(from), column(column), constant(constant) {
	}

	string Key() const override {
		auto key = "SELECT " + from.GetQualifiedName().ToString() + '\0' + from.alias.GetIdentifierName();
		for (auto &expression : statement.node->Cast<SelectNode>().select_list) {
			key += '\0' + expression->ToString() + '\0' + expression->GetAlias().GetIdentifierName();
		}
		return key + "\0\0" + column.ToString();
	}

	const QualifiedName &TableName() const override {
		return from.GetQualifiedName();
	}

	//! That of the column, if a literal of this kind is compared with it as what it is.
	vector<LogicalType> Types(ClientContext &, TableCatalogEntry &table) const override {
		auto &name = column.GetColumnName();
		if (!table.IsDuckTable() || herd::PlacementOf(table) || !table.ColumnExists(name)) {
			return {};
		}
		auto &definition = table.GetColumn(name);
		auto &type = definition.Type();
		auto fits = constant.GetLiteral().kind == LiteralKind::INTEGER ? type.IsIntegral() : type.id() == LogicalTypeId::VARCHAR;
		return fits && IsPlain(type) && !definition.Generated() ? vector<LogicalType> {type} : vector<LogicalType>();
	}

	const Constants &Kind() const override {
		static const LookupKey KIND;
		return KIND;
	}

	vector<Constant> GetConstants() const override {
		Constant result;
		result.literal = constant.GetLiteral();
		if (constant.HasQueryLocation()) {
			result.offset = constant.GetQueryLocation().Start();
		}
		return {result};
	}

	void Prepare(ClientContext &context, Prepared &prepared) const override {
		context.RunFunctionInTransaction([&]() { PrepareInTransaction(context, prepared); });
	}

private:
	void PrepareInTransaction(ClientContext &context, Prepared &prepared) const {
		Planner planner(context);
		planner.CreatePlan(statement.Copy());
		planner.Optimize();
		if (!planner.properties.bound_all_parameters || !std::all_of(planner.types.begin(), planner.types.end(), IsPlain)) {
			return;
		}
		auto data = make_shared_ptr<PreparedStatementData>(StatementType::SELECT_STATEMENT);
		data->physical_plan = PhysicalPlanGenerator(context).Plan(std::move(planner.plan));
		auto table = Catalog::GetEntry(context, EntryLookupInfo(CatalogType::TABLE_ENTRY, TableName()),
		                               OnEntryNotFound::RETURN_NULL);
		auto scan = ScanOf(*data->physical_plan);
		if (!table || table->type != CatalogType::TABLE_ENTRY || !scan) {
			return;
		}
		auto filtered = FilteredColumn(*scan, table->Cast<TableCatalogEntry>());
		// The name may be an alias of the SELECT list, or that of a field.
		if (!filtered || filtered->Name() != column.GetColumnName() || filtered->Type() != prepared.types[0]) {
			return;
		}
		data->unbound_statement = statement.Copy();
		data->names = planner.names;
		data->types = planner.types;
		data->properties = planner.properties;
		data->properties.always_require_rebind = false;
		auto name = "duckling_lookup_" + UUID::ToString(UUID::GenerateRandomUUID());
		ClientData::Get(context).prepared_statements[Identifier(name)] = data;
		prepared.handle = make_uniq<PreparedStatement>(context.shared_from_this(), std::move(name), statement.query,
		                                               PreparedStatementInfo());
		prepared.data = std::move(data);
		prepared.is_short = table.get() == prepared.table && IsUnique(table->Cast<TableCatalogEntry>(), *filtered);
	}

	const SelectStatement &statement;
	const BaseTableRef &from;
	const ColumnRefExpression &column;
	const ConstantExpression &constant;
};

//! A column by its name, or all of them.
bool IsColumn(const unique_ptr<ParsedExpression> &expression) {
	if (expression->GetExpressionClass() == ExpressionClass::COLUMN_REF) {
		return true;
	}
	if (expression->GetExpressionClass() != ExpressionClass::STAR) {
		return false;
	}
	auto &star = expression->Cast<StarExpression>();
	return star.ExcludeList().empty() && star.ReplaceList().empty() && star.RenameList().empty() && !star.Expression() &&
	       !star.IsColumns();
}

} // namespace

unique_ptr<Repeated> RepeatedLookup(SQLStatement &statement) {
	if (statement.type != StatementType::SELECT_STATEMENT) {
		return nullptr;
	}
	auto &select = statement.Cast<SelectStatement>();
	if (select.node->type != QueryNodeType::SELECT_NODE) {
		return nullptr;
	}
	auto &node = select.node->Cast<SelectNode>();
	auto has_more = !node.modifiers.empty() || !node.cte_map.map.empty() || !node.groups.group_expressions.empty() ||
	                !node.groups.grouping_sets.empty() || node.having || node.qualify || node.sample ||
	                node.aggregate_handling != AggregateHandling::STANDARD_HANDLING ||
	                node.select_list.size() > COLUMNS_MAX;
	if (has_more || !node.from_table || node.from_table->type != TableReferenceType::BASE_TABLE ||
	    !node.where_clause || node.where_clause->GetExpressionType() != ExpressionType::COMPARE_EQUAL ||
	    !std::all_of(node.select_list.begin(), node.select_list.end(), IsColumn)) {
		return nullptr;
	}
	auto &from = node.from_table->Cast<BaseTableRef>();
	auto &comparison = node.where_clause->Cast<ComparisonExpression>();
	if (from.at_clause || from.sample || !from.column_name_alias.empty() || from.external_dependency ||
	    comparison.Left().GetExpressionClass() != ExpressionClass::COLUMN_REF ||
	    comparison.Right().GetExpressionClass() != ExpressionClass::CONSTANT) {
		return nullptr;
	}
	auto &constant = comparison.Right().Cast<ConstantExpression>();
	auto kind = constant.GetLiteral().kind;
	if (kind != LiteralKind::INTEGER && kind != LiteralKind::STRING) {
		return nullptr;
	}
	return make_uniq<Lookup>(select, from, comparison.Left().Cast<ColumnRefExpression>(), constant);
}

} // namespace duckling
