#include "herd_scan.hpp"

#include "deparse.hpp"
#include "herd_estimates.hpp"
#include "herd_json.hpp"
#include "herd_source.hpp"

#include "duckdb/catalog/catalog.hpp"
#include "duckdb/catalog/catalog_entry/schema_catalog_entry.hpp"
#include "duckdb/common/serializer/deserializer.hpp"
#include "duckdb/common/serializer/serializer.hpp"
#include "duckdb/parser/tableref/basetableref.hpp"
#include "duckdb/planner/bound_expression_sql_exporter.hpp"
#include "duckdb/planner/expression/bound_columnref_expression.hpp"
#include "duckdb/planner/expression/bound_subquery_expression.hpp"
#include "duckdb/planner/expression_iterator.hpp"
#include "duckdb/planner/filter/expression_filter.hpp"
#include "duckdb/planner/logical_operator_visitor.hpp"
#include "duckdb/planner/table_filter_set.hpp"
#include "duckdb/storage/statistics/node_statistics.hpp"

namespace herd {

using namespace duckdb;
using duckherder::Deparse;

namespace {

constexpr const char *SCAN_FUNCTION = "duckherder_herd_scan";

struct ScanData : public TableFunctionData {
	ScanData(TableCatalogEntry &table, string placement, Estimates estimates)
	    : table(table), placement(std::move(placement)), estimates(std::move(estimates)) {
	}

	TableCatalogEntry &table;
	string placement;
	//! Of the table's columns, by their logical index.
	Estimates estimates;

	unique_ptr<FunctionData> Copy() const override {
		return make_uniq<ScanData>(table, placement, estimates);
	}
	bool Equals(const FunctionData &other) const override {
		return &table == &other.Cast<ScanData>().table;
	}
	bool SupportStatementCache() const override {
		return false;
	}
};

unique_ptr<NodeStatistics> Cardinality(ClientContext &, const FunctionData *bind_data) {
	return make_uniq<NodeStatistics>(bind_data->Cast<ScanData>().estimates.rows);
}

unique_ptr<BaseStatistics> ColumnStatistics(ClientContext &, const FunctionData *bind_data, column_t column) {
	auto &data = bind_data->Cast<ScanData>();
	if (IsVirtualColumn(column)) {
		return nullptr;
	}
	return data.estimates.Statistics(column, data.table.GetColumn(LogicalIndex(column)).Type());
}

optional_ptr<TableCatalogEntry> Table(optional_ptr<const FunctionData> bind_data) {
	return bind_data->Cast<ScanData>().table;
}

//! The table by the name that it has on the workers.
unique_ptr<BaseTableRef> WorkerTable(TableCatalogEntry &table) {
	auto result = make_uniq<BaseTableRef>();
	result->SetQualifiedName(QualifiedName(Identifier(), table.schema.name, table.name));
	return result;
}

TableFunctionToSQLResult ToSql(ClientContext &, const LogicalGet &get) {
	TableFunctionToSQLResult result;
	result.source = WorkerTable(get.bind_data->Cast<ScanData>().table);
	return result;
}

InsertionOrderPreservingMap<string> ToString(TableFunctionToStringInput &input) {
	auto &data = input.bind_data->Cast<ScanData>();
	InsertionOrderPreservingMap<string> result;
	result["Table"] = data.table.name.GetIdentifierName();
	return result;
}

//! A scan that the planner has left alone, since the optimizer is turned off: it gathers its columns and filters them.
unique_ptr<GlobalTableFunctionState> Init(ClientContext &context, TableFunctionInitInput &input) {
	auto &data = input.bind_data->Cast<ScanData>();
	vector<LogicalType> types;
	vector<string> list;
	auto resolve = [&](const ColumnBinding &binding) -> optional<ResolvedSQLColumnReference> {
		auto id = input.column_ids[binding.column_index.GetIndex()];
		if (IsVirtualColumn(id)) {
			return optional<ResolvedSQLColumnReference>();
		}
		auto &column = data.table.GetColumn(LogicalIndex(id));
		return ResolvedSQLColumnReference {{column.Name()}, column.Type()};
	};
	for (idx_t i = 0; i < input.column_ids.size(); i++) {
		auto id = input.column_ids[i];
		if (id == COLUMN_IDENTIFIER_ROW_ID) {
			throw NotImplementedException("rowid of %s: the rows of a herd's table have none",
			                              data.table.name.GetIdentifierName());
		}
		auto alias = " AS c" + to_string(i);
		if (IsVirtualColumn(id)) {
			list.push_back("NULL::BOOLEAN" + alias);
			types.push_back(LogicalType::BOOLEAN);
			continue;
		}
		auto &column = data.table.GetColumn(LogicalIndex(id));
		list.push_back(SQLIdentifier::ToString(column.Name()) + alias);
		types.push_back(column.Type());
	}
	vector<string> predicates;
	if (input.filters) {
		for (auto &entry : *input.filters) {
			if (ExpressionFilter::IsOptionalFilter(entry.Filter())) {
				continue;
			}
			auto reference = resolve(ColumnBinding(TableIndex(0), entry.GetIndex()));
			if (!reference) {
				throw NotImplementedException("a filter on a virtual column of a herd's table");
			}
			BoundColumnRefExpression column(reference->type, ColumnBinding(TableIndex(0), entry.GetIndex()));
			BoundExpressionSQLExportContext export_context;
			export_context.client_context = &context;
			export_context.resolve_binding = resolve;
			auto exported = BoundExpressionSQLExporter::Export(*entry.Filter().ToExpression(column), export_context);
			if (exported.HasError()) {
				throw NotImplementedException("this filter on a herd's table cannot be written as SQL");
			}
			predicates.push_back("(" + Deparse(context, std::move(exported.GetValue())) + ")");
		}
	}
	auto sql = "SELECT " + StringUtil::Join(list, ", ") + " FROM " + WorkerTable(data.table)->ToString();
	if (!predicates.empty()) {
		sql += " WHERE " + StringUtil::Join(predicates, " AND ");
	}
	Source source;
	auto query = ScanQuery(data.placement, sql, types);
	Check([&](HerdBuffer *error) {
		return Api().gather(SessionState::Of(context), Text(query), source.Slot(), error);
	});
	return MakeSourceScan(context, std::move(source), std::move(types));
}

unique_ptr<FunctionData> RefuseCall(ClientContext &, TableFunctionBindInput &, vector<LogicalType> &,
                                    vector<Identifier> &) {
	throw BinderException("%s is for the tables of a herd, and not to be called", SCAN_FUNCTION);
}

//! Optimizers copy parts of a plan by writing and reading them.
void Write(Serializer &serializer, const optional_ptr<FunctionData> bind_data, const BoundTableFunction &) {
	auto &data = bind_data->Cast<ScanData>();
	serializer.WriteProperty(100, "table", data.table.schema.GetQualifiedName(data.table.name));
	serializer.WriteProperty(101, "placement", data.placement);
	serializer.WriteProperty(102, "rows", data.estimates.rows);
	serializer.WriteProperty(103, "distinct", data.estimates.distinct);
}

unique_ptr<FunctionData> ReadBack(Deserializer &deserializer, BoundTableFunction &) {
	auto name = deserializer.ReadProperty<QualifiedName>(100, "table");
	auto placement = deserializer.ReadProperty<string>(101, "placement");
	Estimates estimates;
	estimates.rows = deserializer.ReadProperty<idx_t>(102, "rows");
	estimates.distinct = deserializer.ReadProperty<vector<idx_t>>(103, "distinct");
	auto &table = Catalog::GetEntry<TableCatalogEntry>(deserializer.Get<ClientContext &>(), name);
	return make_uniq<ScanData>(table, std::move(placement), std::move(estimates));
}

} // namespace

TableFunction ScanFunction() {
	TableFunction function(Identifier(SCAN_FUNCTION), {}, nullptr, RefuseCall, Init);
	SetUpSourceScan(function);
	function.cardinality = Cardinality;
	function.statistics = ColumnStatistics;
	function.get_table_entry = Table;
	function.to_sql = ToSql;
	function.to_string = ToString;
	function.projection_pushdown = true;
	function.filter_pushdown = true;
	function.filter_prune = false;
	function.sampling_pushdown = false;
	function.late_materialization = false;
	function.SetSerializeCallback(Write);
	function.SetDeserializeCallback(ReadBack);
	function.verify_serialization = false;
	return function;
}

namespace {

Estimates EstimatesOf(ClientContext &context, TableCatalogEntry &table, const string &placement) {
	vector<string> names;
	for (auto &column : table.GetColumns().Logical()) {
		names.push_back(column.Generated() ? string() : column.Name().GetIdentifierName());
	}
	auto columns = JsonList(names.size(), [&](idx_t i) { return JsonText(names[i]); });
	Buffer estimates;
	Check([&](HerdBuffer *error) {
		return Api().table_estimates(SessionState::Of(context), Text(table.schema.name.GetIdentifierName()),
		                             Text(table.name.GetIdentifierName()), Text(columns), Text(placement),
		                             estimates.Slot(), error);
	});
	return Estimates::FromJson(estimates.ToString());
}

} // namespace

optional_ptr<const string> PlacementOf(const CatalogEntry &table) {
	auto tag = table.tags.find(PLACEMENT_TAG);
	return tag == table.tags.end() ? nullptr : optional_ptr<const string>(tag->second);
}

static bool ChangesRows(const LogicalOperator &op) {
	return op.type == LogicalOperatorType::LOGICAL_DELETE || op.type == LogicalOperatorType::LOGICAL_UPDATE ||
	       op.type == LogicalOperatorType::LOGICAL_MERGE_INTO;
}

//! Rows have numbers on their worker only, so that only what is done there can use them.
static void RefuseRowNumbers(LogicalGet &get, const TableCatalogEntry &table) {
	for (auto &index : get.GetColumnIds()) {
		if (index.IsVirtualColumn() && !index.IsEmptyColumn()) {
			throw NotImplementedException("%s of %s: the rows of a herd's table have none, as they are on several workers",
			                              get.GetColumnName(index), table.name);
		}
	}
	get.virtual_columns.clear();
}

//! The table that DuckDB is about to scan by itself; null if it scans none, or has been told not to.
static optional_ptr<TableCatalogEntry> OwnTableOf(const LogicalGet &get) {
	return get.function.GetName() == Identifier(SCAN_FUNCTION) ? nullptr : get.GetTable();
}

void RefuseOwnScans(const LogicalOperator &op) {
	if (op.type == LogicalOperatorType::LOGICAL_CREATE_INDEX) {
		return;
	}
	for (auto &child : op.children) {
		RefuseOwnScans(*child);
	}
	if (op.type != LogicalOperatorType::LOGICAL_GET) {
		return;
	}
	auto table = OwnTableOf(op.Cast<LogicalGet>());
	if (table && PlacementOf(*table)) {
		throw NotImplementedException("a scan of the herd's table %s in this place", table->name.GetIdentifierName());
	}
}

void ReplaceScans(ClientContext &context, LogicalOperator &op, bool in_change) {
	if (op.type == LogicalOperatorType::LOGICAL_CREATE_INDEX) {
		// Of the coordinator's own, empty table: workers make their own.
		return;
	}
	for (auto &child : op.children) {
		ReplaceScans(context, *child, in_change || ChangesRows(op));
	}
	// DuckDB makes joins of some subqueries only after they have been bound.
	LogicalOperatorVisitor::EnumerateExpressions(op, [&](unique_ptr<Expression> *expression) {
		ExpressionIterator::VisitExpressionMutable<BoundSubqueryExpression>(
		    *expression, [&](BoundSubqueryExpression &subquery, unique_ptr<Expression> &) {
			    if (subquery.Subquery().plan) {
				    ReplaceScans(context, *subquery.SubqueryMutable().plan, false);
			    }
		    });
	});
	if (op.type != LogicalOperatorType::LOGICAL_GET) {
		return;
	}
	auto &get = op.Cast<LogicalGet>();
	auto table = OwnTableOf(get);
	if (!table) {
		return;
	}
	auto placement = PlacementOf(*table);
	if (!placement) {
		return;
	}
	if (get.at_clause) {
		throw NotImplementedException("AT on a herd's table");
	}
	if (!in_change) {
		RefuseRowNumbers(get, *table);
	}
	get.bind_data = make_uniq<ScanData>(*table, *placement, EstimatesOf(context, *table, *placement));
	get.function = BoundTableFunction(ScanFunction());
}

idx_t DistinctCountOf(const LogicalGet &get, const ColumnIndex &column) {
	if (!HerdTableOf(get) || column.IsVirtualColumn()) {
		return 0;
	}
	return get.bind_data->Cast<ScanData>().estimates.Distinct(column.GetPrimaryIndex());
}

optional_ptr<TableCatalogEntry> HerdTableOf(const LogicalOperator &op) {
	if (op.type != LogicalOperatorType::LOGICAL_GET) {
		return nullptr;
	}
	auto &get = op.Cast<LogicalGet>();
	if (get.function.GetName() != Identifier(SCAN_FUNCTION) || !get.bind_data) {
		return nullptr;
	}
	return get.bind_data->Cast<ScanData>().table;
}

} // namespace herd
