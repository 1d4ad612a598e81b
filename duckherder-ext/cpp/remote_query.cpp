#include "remote_query.hpp"

#include "arrow_scan.hpp"
#include "remote_catalog.hpp"
#include "remote_table.hpp"

#include "duckdb/catalog/catalog_entry/table_catalog_entry.hpp"
#include "duckdb/main/attached_database.hpp"
#include "duckdb/main/extension/extension_loader.hpp"
#include "duckdb/parser/expression/constant_expression.hpp"
#include "duckdb/parser/expression/function_expression.hpp"
#include "duckdb/parser/expression/subquery_expression.hpp"
#include "duckdb/parser/parsed_expression_iterator.hpp"
#include "duckdb/parser/query_node.hpp"
#include "duckdb/parser/query_node/delete_query_node.hpp"
#include "duckdb/parser/query_node/insert_query_node.hpp"
#include "duckdb/parser/query_node/merge_query_node.hpp"
#include "duckdb/parser/query_node/update_query_node.hpp"
#include "duckdb/parser/statement/select_statement.hpp"
#include "duckdb/parser/tableref/table_function_ref.hpp"
#include "duckdb/planner/binder.hpp"
#include "duckdb/planner/operator/logical_get.hpp"
#include "duckdb/storage/statistics/node_statistics.hpp"

namespace duckherder {

using namespace duckdb;

static constexpr const char *QUERY_FUNCTION = "duckherder_remote";
static constexpr const char *SCAN_FUNCTION = "duckherder_scan";

//===--------------------------------------------------------------------===//
// Shapes
//===--------------------------------------------------------------------===//

static bool HasSideEffects(ClientContext &context, QueryNode &node);

static bool HasSideEffects(ClientContext &context, const FunctionExpression &function) {
	auto name = StringUtil::Lower(function.FunctionName().GetIdentifierName());
	if (name == "nextval" || name == "setseed") {
		return true;
	}
	// A function that is not known here may be a macro of the server that does anything.
	auto known = [&](CatalogType type) {
		EntryLookupInfo lookup(type, QualifiedName(function.FunctionName()));
		return Catalog::GetEntry(context, lookup, OnEntryNotFound::RETURN_NULL) != nullptr;
	};
	return !known(CatalogType::SCALAR_FUNCTION_ENTRY) && !known(CatalogType::TABLE_FUNCTION_ENTRY);
}

static bool HasSideEffects(ClientContext &context, ParsedExpression &expression) {
	auto found = false;
	if (expression.GetExpressionClass() == ExpressionClass::SUBQUERY) {
		found = HasSideEffects(context, *expression.Cast<SubqueryExpression>().SubqueryMutable()->node);
	} else if (expression.GetExpressionClass() == ExpressionClass::FUNCTION) {
		found = HasSideEffects(context, expression.Cast<FunctionExpression>());
	}
	ParsedExpressionIterator::EnumerateChildren(expression, [&](unique_ptr<ParsedExpression> &child) {
		found = found || HasSideEffects(context, *child);
	});
	return found;
}

static bool HasDml(QueryNode &node) {
	switch (node.type) {
	case QueryNodeType::INSERT_QUERY_NODE:
	case QueryNodeType::UPDATE_QUERY_NODE:
	case QueryNodeType::DELETE_QUERY_NODE:
	case QueryNodeType::MERGE_QUERY_NODE:
		return true;
	default:
		break;
	}
	for (auto &entry : node.cte_map.map) {
		if (entry.second->query_node && HasDml(*entry.second->query_node)) {
			return true;
		}
	}
	return false;
}

static bool HasSideEffects(ClientContext &context, QueryNode &node) {
	auto found = HasDml(node);
	ParsedExpressionIterator::EnumerateQueryNodeChildren(node, [&](unique_ptr<ParsedExpression> &expression) {
		found = found || HasSideEffects(context, *expression);
	});
	return found;
}

QueryShape ShapeOf(ClientContext &context, QueryNode &node) {
	auto count = [](const vector<unique_ptr<ParsedExpression>> &returning) {
		return returning.empty() ? QueryShape::COUNT : QueryShape::DESCRIBED;
	};
	switch (node.type) {
	case QueryNodeType::INSERT_QUERY_NODE:
		return count(node.Cast<InsertQueryNode>().returning_list);
	case QueryNodeType::UPDATE_QUERY_NODE:
		return count(node.Cast<UpdateQueryNode>().returning_list);
	case QueryNodeType::DELETE_QUERY_NODE:
		return count(node.Cast<DeleteQueryNode>().returning_list);
	case QueryNodeType::MERGE_QUERY_NODE:
		return count(node.Cast<MergeQueryNode>().returning_list);
	default:
		return HasSideEffects(context, node) ? QueryShape::DESCRIBED : QueryShape::ROWS;
	}
}

unique_ptr<TableRef> MakeRemoteQuery(RemoteCatalog &catalog, const string &sql, QueryShape shape) {
	vector<unique_ptr<ParsedExpression>> arguments;
	arguments.push_back(ConstantExpression::String(catalog.GetName().GetIdentifierName()));
	arguments.push_back(ConstantExpression::String(sql));
	arguments.push_back(ConstantExpression::FromValue(Value::UTINYINT(static_cast<uint8_t>(shape))));
	auto result = make_uniq<TableFunctionRef>();
	result->function = make_uniq<FunctionExpression>(Identifier(QUERY_FUNCTION), std::move(arguments));
	return std::move(result);
}

//===--------------------------------------------------------------------===//
// Statements
//===--------------------------------------------------------------------===//

namespace {

//! A started scan, and the query it was started for. Whoever binds first and executes in the same query gets it;
//! anybody else must see what has been committed since, and starts another.
struct StartedScan {
	mutex lock;
	ScanHandle scan;
	transaction_t query_id = MAXIMUM_QUERY_ID;
};

struct RemoteQueryData : public TableFunctionData {
	RemoteQueryData(RemoteCatalog &catalog, string sql, QueryShape shape)
	    : catalog(catalog), sql(std::move(sql)), shape(shape), started(make_shared_ptr<StartedScan>()) {
	}

	RemoteCatalog &catalog;
	string sql;
	QueryShape shape;
	vector<LogicalType> types;
	shared_ptr<StartedScan> started;

	unique_ptr<FunctionData> Copy() const override {
		auto copy = make_uniq<RemoteQueryData>(catalog, sql, shape);
		copy->types = types;
		copy->started = started;
		return std::move(copy);
	}
	bool Equals(const FunctionData &other) const override {
		return this == &other;
	}
	bool SupportStatementCache() const override {
		return false;
	}

	ScanHandle Start(ClientContext &context) const {
		ScanHandle scan;
		auto transactional = !context.transaction.IsAutoCommit();
		Check([&](DhBuffer *error) {
			return Api().scan_start(catalog.Session(context), Text(sql), transactional, shape != QueryShape::ROWS,
			                     InterruptOf(context), scan.Slot(), error);
		});
		return scan;
	}
};

unique_ptr<FunctionData> RemoteQueryBind(ClientContext &context, TableFunctionBindInput &input,
                                         vector<LogicalType> &return_types, vector<Identifier> &names) {
	auto catalog_name = Identifier(StringValue::Get(input.inputs[0]));
	auto &catalog = Catalog::GetCatalog(context, catalog_name);
	if (catalog.GetCatalogType() != RemoteCatalog::TYPE) {
		throw InvalidInputException("\"%s\" is not an attached duckling", catalog_name.GetIdentifierName());
	}
	auto shape_value = UTinyIntValue::Get(input.inputs[2]);
	if (shape_value > static_cast<uint8_t>(QueryShape::DESCRIBED)) {
		throw InvalidInputException("%s: unknown shape %d", QUERY_FUNCTION, shape_value);
	}
	auto data = make_uniq<RemoteQueryData>(catalog.Cast<RemoteCatalog>(), StringValue::Get(input.inputs[1]),
	                                       static_cast<QueryShape>(shape_value));
	if (input.binder) {
		auto &properties = input.binder->GetStatementProperties();
		if (data->shape == QueryShape::ROWS) {
			properties.RegisterDBRead(catalog, context);
		} else {
			// DuckDB then refuses writes to what is attached READ_ONLY, and to two databases in one transaction.
			properties.RegisterDBModify(catalog, context, DatabaseModificationType::INSERT_DATA);
		}
	}
	switch (data->shape) {
	case QueryShape::ROWS: {
		auto scan = data->Start(context);
		ArrowResultColumns(context, scan.Get(), return_types, names);
		data->started->scan = std::move(scan);
		data->started->query_id = context.transaction.GetActiveQuery();
		break;
	}
	case QueryShape::COUNT:
		return_types.push_back(LogicalType::BIGINT);
		names.emplace_back("Count");
		break;
	case QueryShape::DESCRIBED: {
		ColumnsHandle columns;
		Check([&](DhBuffer *error) {
			return Api().describe(data->catalog.Session(context), Text(data->sql), InterruptOf(context), columns.Slot(),
			                   error);
		});
		DhColumnView column;
		for (idx_t i = 0; Api().columns_get(columns.Get(), i, &column) == DhOk; i++) {
			LogicalType type;
			if (!TryParseType(context, String(column.type_text), type)) {
				type = LogicalType::VARCHAR;
			}
			return_types.push_back(std::move(type));
			names.emplace_back(String(column.name));
		}
		break;
	}
	}
	DeduplicateNames(names);
	data->types = return_types;
	return std::move(data);
}

unique_ptr<GlobalTableFunctionState> RemoteQueryInit(ClientContext &context, TableFunctionInitInput &input) {
	auto &data = input.bind_data->Cast<RemoteQueryData>();
	ScanHandle scan;
	{
		lock_guard<mutex> guard(data.started->lock);
		if (data.started->query_id == context.transaction.GetActiveQuery()) {
			scan = std::move(data.started->scan);
		}
		data.started->query_id = MAXIMUM_QUERY_ID;
	}
	if (!scan) {
		scan = data.Start(context);
	}
	return MakeArrowScan(context, std::move(scan), data.types);
}

InsertionOrderPreservingMap<string> RemoteQueryToString(TableFunctionToStringInput &input) {
	auto &data = input.bind_data->Cast<RemoteQueryData>();
	InsertionOrderPreservingMap<string> result;
	result["Duckling"] = data.catalog.GetName().GetIdentifierName() + " (" + data.catalog.GetConnectDisplay() + ")";
	result["SQL"] = data.sql;
	return result;
}

//===--------------------------------------------------------------------===//
// Table scans
//===--------------------------------------------------------------------===//

struct TableScanData : public TableFunctionData {
	explicit TableScanData(shared_ptr<RemoteTable> table) : table(std::move(table)) {
	}

	shared_ptr<RemoteTable> table;

	unique_ptr<FunctionData> Copy() const override {
		return make_uniq<TableScanData>(table);
	}
	bool Equals(const FunctionData &other) const override {
		return table == other.Cast<TableScanData>().table;
	}
	bool SupportStatementCache() const override {
		return false;
	}
};

//! The SELECT for the columns that the plan asks for.
string ScanSql(const TableScanData &data, const vector<column_t> &column_ids, vector<LogicalType> &types) {
	auto &columns = data.table->GetColumns();
	string list;
	for (auto column_id : column_ids) {
		if (!list.empty()) {
			list += ", ";
		}
		if (column_id == COLUMN_IDENTIFIER_EMPTY) {
			list += "NULL::BOOLEAN";
			types.push_back(LogicalType::BOOLEAN);
			continue;
		}
		if (column_id == COLUMN_IDENTIFIER_ROW_ID) {
			list += "rowid";
			types.push_back(LogicalType::ROW_TYPE);
			continue;
		}
		auto &column = columns.GetColumn(LogicalIndex(column_id));
		list += "\"" + StringUtil::Replace(column.Name().GetIdentifierName(), "\"", "\"\"") + "\"";
		types.push_back(column.Type());
	}
	return "SELECT " + list + " FROM " + data.table->RemoteName();
}

unique_ptr<GlobalTableFunctionState> TableScanInit(ClientContext &context, TableFunctionInitInput &input) {
	auto &data = input.bind_data->Cast<TableScanData>();
	vector<LogicalType> types;
	auto sql = ScanSql(data, input.column_ids, types);
	ScanHandle scan;
	Check([&](DhBuffer *error) {
		return Api().scan_start(data.table->GetRemoteCatalog().Session(context), Text(sql),
		                     !context.transaction.IsAutoCommit(), false, InterruptOf(context), scan.Slot(), error);
	});
	return MakeArrowScan(context, std::move(scan), std::move(types));
}

unique_ptr<NodeStatistics> TableScanCardinality(ClientContext &, const FunctionData *bind_data) {
	auto rows = bind_data->Cast<TableScanData>().table->EstimatedRows();
	return rows.IsValid() ? make_uniq<NodeStatistics>(rows.GetIndex()) : make_uniq<NodeStatistics>();
}

double TableScanProgress(ClientContext &, const FunctionData *bind_data, const GlobalTableFunctionState *state) {
	auto rows = bind_data->Cast<TableScanData>().table->EstimatedRows();
	if (!rows.IsValid() || rows.GetIndex() == 0 || !state) {
		return -1;
	}
	return MinValue<double>(100, 100.0 * double(ArrowScanRowsRead(*state)) / double(rows.GetIndex()));
}

optional_ptr<TableCatalogEntry> TableScanTable(optional_ptr<const FunctionData> bind_data) {
	return bind_data->Cast<TableScanData>().table.get();
}

InsertionOrderPreservingMap<string> TableScanToString(TableFunctionToStringInput &input) {
	auto &table = *input.bind_data->Cast<TableScanData>().table;
	auto &catalog = table.GetRemoteCatalog();
	InsertionOrderPreservingMap<string> result;
	result["Duckling"] = catalog.GetName().GetIdentifierName() + " (" + catalog.GetConnectDisplay() + ")";
	result["Table"] = table.RemoteName();
	return result;
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
	function.projection_pushdown = true;
	return function;
}

void RegisterRemoteQuery(ExtensionLoader &loader) {
	TableFunction function(Identifier(QUERY_FUNCTION), {LogicalType::VARCHAR, LogicalType::VARCHAR, LogicalType::UTINYINT},
	                       nullptr, RemoteQueryBind, RemoteQueryInit);
	SetUpArrowScan(function);
	function.to_string = RemoteQueryToString;
	loader.RegisterFunction(std::move(function));
}

} // namespace duckherder
