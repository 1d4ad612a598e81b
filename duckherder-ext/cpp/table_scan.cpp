#include "table_scan.hpp"

#include "arrow_scan.hpp"
#include "error_place.hpp"
#include "remote_catalog.hpp"
#include "remote_table.hpp"
#include "remote_transaction.hpp"
#include "sql_export.hpp"

#include "duckdb/catalog/catalog_entry/table_catalog_entry.hpp"
#include "duckdb/common/type_visitor.hpp"
#include "duckdb/execution/operator/scan/physical_table_scan.hpp"
#include "duckdb/parser/parser.hpp"
#include "duckdb/parser/query_node/select_node.hpp"
#include "duckdb/parser/expression/columnref_expression.hpp"
#include "duckdb/parser/expression/star_expression.hpp"
#include "duckdb/parser/statement/select_statement.hpp"
#include "duckdb/parser/tableref/basetableref.hpp"
#include "duckdb/parser/tableref/subqueryref.hpp"
#include "duckdb/planner/expression/bound_columnref_expression.hpp"
#include "duckdb/planner/expression/bound_operator_expression.hpp"
#include "duckdb/planner/expression_iterator.hpp"
#include "duckdb/planner/filter/expression_filter.hpp"
#include "duckdb/planner/operator/logical_get.hpp"
#include "duckdb/planner/table_filter_set.hpp"
#include "duckdb/storage/statistics/node_statistics.hpp"

namespace duckherder {

using namespace duckdb;

namespace {

constexpr const char *SCAN_FUNCTION = "duckherder_scan";
//! The longest text of filters that a join has found out which is sent; beyond it they are left to the join.
constexpr idx_t DYNAMIC_FILTER_TEXT_MAX = 1024 * 1024;

struct TableScanData : public TableFunctionData {
	explicit TableScanData(shared_ptr<RemoteTable> table) : table(std::move(table)) {
	}

	shared_ptr<RemoteTable> table;
	//! Predicates on the table's columns, as SQL; all of them must be true.
	vector<string> filters;

	unique_ptr<FunctionData> Copy() const override {
		auto copy = make_uniq<TableScanData>(table);
		copy->filters = filters;
		return std::move(copy);
	}
	bool Equals(const FunctionData &other) const override {
		auto &data = other.Cast<TableScanData>();
		return table == data.table && filters == data.filters;
	}
	bool SupportStatementCache() const override {
		return false;
	}
};

//! A column by its place among the table's; nothing for one that has no name in SQL.
optional<ResolvedSQLColumnReference> ColumnReference(const RemoteTable &table, column_t column_id) {
	if (column_id == COLUMN_IDENTIFIER_ROW_ID) {
		return ResolvedSQLColumnReference {{Identifier("rowid")}, LogicalType::ROW_TYPE};
	}
	if (IsVirtualColumn(column_id)) {
		return optional<ResolvedSQLColumnReference>();
	}
	auto &column = table.GetColumns().GetColumn(LogicalIndex(column_id));
	return ResolvedSQLColumnReference {{column.Name()}, column.Type()};
}

string SelectList(const TableScanData &data, const vector<column_t> &column_ids, vector<LogicalType> &types) {
	vector<string> list;
	for (auto column_id : column_ids) {
		auto column = ColumnReference(*data.table, column_id);
		if (!column) {
			list.emplace_back("NULL::BOOLEAN");
			types.push_back(LogicalType::BOOLEAN);
			continue;
		}
		list.push_back(SQLIdentifier::ToString(column->names[0]));
		types.push_back(column->type);
	}
	return StringUtil::Join(list, ", ");
}

string ScanSql(const TableScanData &data, const vector<column_t> &column_ids, const vector<string> &dynamic_filters,
               vector<LogicalType> &types) {
	auto filters = data.filters;
	filters.insert(filters.end(), dynamic_filters.begin(), dynamic_filters.end());
	auto sql = "SELECT " + SelectList(data, column_ids, types) + " FROM " + data.table->RemoteName();
	return filters.empty() ? sql : sql + " WHERE (" + StringUtil::Join(filters, ") AND (") + ")";
}

//===--------------------------------------------------------------------===//
// Filters
//===--------------------------------------------------------------------===//

//! Whether DuckDB is to keep a filter with the scan, where it looks for it (`NotNullExpressionAnalyzer`): where one side of a join
//! has no NULLs it makes `=` of IS NOT DISTINCT FROM, which is not the same for a UNION whose member is NULL.
bool StaysWithScan(const Expression &filter) {
	if (filter.GetExpressionType() != ExpressionType::OPERATOR_IS_NOT_NULL) {
		return false;
	}
	auto &column = *filter.Cast<BoundOperatorExpression>().GetChildren()[0];
	return column.GetExpressionType() == ExpressionType::BOUND_COLUMN_REF &&
	       TypeVisitor::Contains(column.GetReturnType(), LogicalTypeId::UNION);
}

void PushdownFilters(ClientContext &context, LogicalGet &get, FunctionData *bind_data,
                     vector<unique_ptr<Expression>> &filters) {
	auto &data = bind_data->Cast<TableScanData>();
	auto resolve = [&](const ColumnBinding &binding) -> optional<ResolvedSQLColumnReference> {
		auto &column_ids = get.GetColumnIds();
		if (binding.table_index != get.table_index || binding.column_index.GetIndex() >= column_ids.size()) {
			return optional<ResolvedSQLColumnReference>();
		}
		return ColumnReference(*data.table, column_ids[binding.column_index.GetIndex()].GetPrimaryIndex());
	};
	vector<unique_ptr<Expression>> left;
	for (auto &filter : filters) {
		auto sql = StaysWithScan(*filter)
		               ? optional<string>()
		               : ExportExpression(context, data.table->GetRemoteCatalog(), *filter, resolve);
		if (sql) {
			data.filters.push_back(*sql);
		} else {
			left.push_back(std::move(filter));
		}
	}
	filters = std::move(left);
}

idx_t TextLength(const vector<string> &texts) {
	idx_t length = 0;
	for (auto &text : texts) {
		length += text.size();
	}
	return length;
}

//! Adds the parts of a filter on `column` that can be sent; whether that is all of it.
bool AddTableFilter(ClientContext &context, RemoteCatalog &catalog, const Expression &filter,
                    const BoundColumnRefExpression &column, const BoundExpressionSQLBindingResolver &resolve,
                    vector<string> &filters) {
	auto optional_part = ExpressionFilter::GetOptionalFilterChild(filter);
	if (optional_part) {
		// It is kept aside, with a placeholder for the column.
		auto part = optional_part->Copy();
		ExpressionFilter::ReplaceExpressionRecursive(part, column);
		AddTableFilter(context, catalog, *part, column, resolve, filters);
		return true;
	}
	if (filter.GetExpressionType() == ExpressionType::CONJUNCTION_AND) {
		auto complete = true;
		ExpressionIterator::EnumerateChildren(filter, [&](const Expression &part) {
			complete = AddTableFilter(context, catalog, part, column, resolve, filters) && complete;
		});
		return complete;
	}
	auto sql = ExportExpression(context, catalog, filter, resolve);
	if (sql) {
		filters.push_back(*sql);
	}
	return sql.has_value();
}

//! Whether a filter was there when the query was planned, and DuckDB relies on the scan to apply it.
bool IsRequired(TableFunctionInitInput &input, ProjectionIndex column, const TableFilter &filter) {
	if (ExpressionFilter::IsOptionalFilter(filter) || !input.op || input.op->type != PhysicalOperatorType::TABLE_SCAN) {
		return false;
	}
	auto &planned = input.op->Cast<PhysicalTableScan>().table_filters;
	return planned && planned->HasFilter(column);
}

//! The filters that PushdownFilters has not seen: those that a join has found out in the meantime.
vector<string> TableFilters(ClientContext &context, const TableScanData &data, TableFunctionInitInput &input) {
	vector<string> filters;
	if (!input.filters) {
		return filters;
	}
	auto resolve = [&](const ColumnBinding &binding) {
		return ColumnReference(*data.table, input.column_ids[binding.column_index.GetIndex()]);
	};
	for (auto &entry : *input.filters) {
		auto column = ColumnReference(*data.table, input.column_ids[entry.GetIndex().GetIndex()]);
		if (!column) {
			continue;
		}
		BoundColumnRefExpression reference(column->type, ColumnBinding(TableIndex(0), entry.GetIndex()));
		auto before = filters.size();
		auto complete = AddTableFilter(context, data.table->GetRemoteCatalog(), *entry.Filter().ToExpression(reference),
		                               reference, resolve, filters);
		if (!complete && IsRequired(input, entry.GetIndex(), entry.Filter())) {
			throw NotImplementedException("the filter %s on a table of a duckling", ExpressionFilter::GetExpressionFilter(entry.Filter(), "duckherder_scan").DebugToString());
		}
		if (TextLength(filters) > DYNAMIC_FILTER_TEXT_MAX && !IsRequired(input, entry.GetIndex(), entry.Filter())) {
			filters.resize(before);
		}
	}
	return filters;
}

//===--------------------------------------------------------------------===//
// The function
//===--------------------------------------------------------------------===//

unique_ptr<GlobalTableFunctionState> TableScanInit(ClientContext &context, TableFunctionInitInput &input) {
	auto &data = input.bind_data->Cast<TableScanData>();
	vector<LogicalType> types;
	auto sql = ScanSql(data, input.column_ids, TableFilters(context, data, input), types);
	ScanHandle scan;
	CheckSent(context, sql, [&](DhBuffer *error) {
		return Api().scan_start(data.table->GetRemoteCatalog().Session(context), Text(sql), NoText(),
		                        RemoteTransaction::SpansStatements(context, data.table->GetRemoteCatalog()), false,
		                        InterruptOf(context), scan.Slot(), error);
	});
	return MakeArrowScan(context, std::move(scan), std::move(types), std::move(sql));
}

unique_ptr<NodeStatistics> TableScanCardinality(ClientContext &, const FunctionData *bind_data) {
	auto rows = bind_data->Cast<TableScanData>().table->EstimatedRows();
	return rows.IsValid() ? make_uniq<NodeStatistics>(rows.GetIndex()) : make_uniq<NodeStatistics>();
}

double TableScanProgress(ClientContext &, const FunctionData *bind_data, const GlobalTableFunctionState *state) {
	auto told = state ? ArrowScanProgress(*state) : -1;
	if (told >= 0) {
		return told;
	}
	// A herd does not tell.
	auto rows = bind_data->Cast<TableScanData>().table->EstimatedRows();
	if (!rows.IsValid() || rows.GetIndex() == 0 || !state) {
		return -1;
	}
	return MinValue<double>(100, 100.0 * double(ArrowScanRowsRead(*state)) / double(rows.GetIndex()));
}

optional_ptr<TableCatalogEntry> TableScanTable(optional_ptr<const FunctionData> bind_data) {
	return bind_data->Cast<TableScanData>().table->Described();
}

InsertionOrderPreservingMap<string> TableScanToString(TableFunctionToStringInput &input) {
	auto &data = input.bind_data->Cast<TableScanData>();
	InsertionOrderPreservingMap<string> result;
	result["Duckling"] = data.table->GetRemoteCatalog().GetDisplayName();
	result["Table"] = data.table->RemoteName();
	if (!data.filters.empty()) {
		result["Remote Filters"] = StringUtil::Join(data.filters, " AND ");
	}
	return result;
}

//! The table, with its filters, as a source in SQL.
TableFunctionToSQLResult TableScanToSql(ClientContext &context, const LogicalGet &get) {
	auto &data = get.bind_data->Cast<TableScanData>();
	auto table = make_uniq<BaseTableRef>();
	table->SetQualifiedName(data.table->RemoteQualifiedName());
	TableFunctionToSQLResult result;
	if (data.filters.empty()) {
		result.source = std::move(table);
		return result;
	}
	auto select = make_uniq<SelectNode>();
	select->select_list.push_back(make_uniq<StarExpression>());
	for (auto &index : get.GetColumnIds()) {
		if (index.GetPrimaryIndex() == COLUMN_IDENTIFIER_ROW_ID) {
			select->select_list.push_back(make_uniq<ColumnRefExpression>("rowid"));
			break;
		}
	}
	select->from_table = std::move(table);
	auto predicates = Parser(context).ParseExpressionList("(" + StringUtil::Join(data.filters, ") AND (") + ")");
	select->where_clause = std::move(predicates[0]);
	auto statement = make_uniq<SelectStatement>();
	statement->node = std::move(select);
	result.source = make_uniq<SubqueryRef>(std::move(statement));
	return result;
}

//! Optimizers that would scan twice copy their plan first: then they leave it.
void RefuseCopy(Serializer &, const optional_ptr<FunctionData>, const BoundTableFunction &) {
	throw NotImplementedException("a copy of a scan of a duckling's table");
}

unique_ptr<FunctionData> RefuseCopies(Deserializer &, BoundTableFunction &) {
	throw NotImplementedException("a copy of a scan of a duckling's table");
}

} // namespace

TableFunction MakeTableScan(shared_ptr<RemoteTable> table, unique_ptr<FunctionData> &bind_data) {
	bind_data = make_uniq<TableScanData>(std::move(table));
	TableFunction function(Identifier(SCAN_FUNCTION), {}, nullptr, nullptr, TableScanInit);
	SetUpArrowScan(function);
	function.cardinality = TableScanCardinality;
	function.table_scan_progress = TableScanProgress;
	function.get_table_entry = TableScanTable;
	function.to_string = TableScanToString;
	function.to_sql = TableScanToSql;
	function.projection_pushdown = true;
	function.filter_pushdown = true;
	function.pushdown_complex_filter = PushdownFilters;
	function.SetSerializeCallback(RefuseCopy);
	function.SetDeserializeCallback(RefuseCopies);
	function.verify_serialization = false;
	return function;
}

static optional_ptr<RemoteTable> TableOfScan(const BoundTableFunction &function,
                                             const unique_ptr<FunctionData> &bind_data) {
	if (function.GetName() != Identifier(SCAN_FUNCTION) || !bind_data) {
		return nullptr;
	}
	return bind_data->Cast<TableScanData>().table.get();
}

optional_ptr<RemoteTable> TableOfScan(const LogicalOperator &op) {
	if (op.type != LogicalOperatorType::LOGICAL_GET) {
		return nullptr;
	}
	auto &get = op.Cast<LogicalGet>();
	return TableOfScan(get.function, get.bind_data);
}

optional_ptr<RemoteTable> TableOfScan(const PhysicalOperator &op) {
	if (op.type != PhysicalOperatorType::TABLE_SCAN) {
		return nullptr;
	}
	auto &scan = op.Cast<PhysicalTableScan>();
	return TableOfScan(scan.function, scan.bind_data);
}

} // namespace duckherder
