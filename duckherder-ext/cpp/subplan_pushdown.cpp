#include "subplan_pushdown.hpp"

#include "deparse.hpp"
#include "remote_catalog.hpp"
#include "remote_query.hpp"
#include "remote_table.hpp"
#include "sql_export.hpp"
#include "table_scan.hpp"

#include "duckdb/main/config.hpp"
#include "duckdb/main/database_manager.hpp"
#include "duckdb/optimizer/optimizer.hpp"
#include "duckdb/optimizer/optimizer_extension.hpp"
#include "duckdb/planner/binder.hpp"
#include "duckdb/planner/logical_operator_visitor.hpp"
#include "duckdb/planner/logical_plan_sql_exporter.hpp"
#include "duckdb/planner/operator/logical_comparison_join.hpp"
#include "duckdb/planner/operator/logical_cteref.hpp"
#include "duckdb/planner/operator/logical_get.hpp"
#include "duckdb/planner/operator/logical_materialized_cte.hpp"
#include "duckdb/planner/table_filter_set.hpp"

namespace duckherder {

using namespace duckdb;

namespace {

//! Whether an operator gives out fewer rows than it takes in, as a rule.
bool IsReducing(LogicalOperatorType type) {
	switch (type) {
	case LogicalOperatorType::LOGICAL_AGGREGATE_AND_GROUP_BY:
	case LogicalOperatorType::LOGICAL_DISTINCT:
	case LogicalOperatorType::LOGICAL_LIMIT:
	case LogicalOperatorType::LOGICAL_TOP_N:
		return true;
	default:
		return false;
	}
}

//! Whether it works row by row, or only puts rows in order.
bool IsRowWise(LogicalOperatorType type) {
	switch (type) {
	case LogicalOperatorType::LOGICAL_PROJECTION:
	case LogicalOperatorType::LOGICAL_FILTER:
	case LogicalOperatorType::LOGICAL_ORDER_BY:
		return true;
	default:
		return false;
	}
}

//! Whether a join gives out no more rows than it takes in, as far as is known.
bool IsReducingJoin(const LogicalOperator &op) {
	if (op.type != LogicalOperatorType::LOGICAL_COMPARISON_JOIN || !op.has_estimated_cardinality) {
		return false;
	}
	idx_t taken = 0;
	for (auto &child : op.children) {
		if (!child->has_estimated_cardinality) {
			return false;
		}
		taken += child->estimated_cardinality;
	}
	return op.estimated_cardinality <= taken;
}

//! The operator that decides how many rows come out of a part of a plan.
const LogicalOperator &DecidingOperator(const LogicalOperator &op) {
	if (op.type == LogicalOperatorType::LOGICAL_MATERIALIZED_CTE) {
		return DecidingOperator(*op.children[1]);
	}
	return IsRowWise(op.type) && op.children.size() == 1 ? DecidingOperator(*op.children[0]) : op;
}

using FilterSets = unordered_set<const DynamicTableFilterSet *>;

//! What the joins of a plan will know only when it runs, and hand to scans then; not those in `without`.
void CollectHandedOut(const LogicalOperator &op, const LogicalOperator &without, FilterSets &sets) {
	if (&op == &without) {
		return;
	}
	if (op.type == LogicalOperatorType::LOGICAL_COMPARISON_JOIN) {
		auto &pushdown = op.Cast<LogicalComparisonJoin>().filter_pushdown;
		if (pushdown) {
			for (auto &probe : pushdown->probe_info) {
				sets.insert(probe.dynamic_filters.get());
			}
		}
	}
	for (auto &child : op.children) {
		CollectHandedOut(*child, without, sets);
	}
}

bool HasScanWithAnyOf(const LogicalOperator &op, const FilterSets &sets) {
	if (op.type == LogicalOperatorType::LOGICAL_GET && sets.count(op.Cast<LogicalGet>().dynamic_filters.get()) > 0) {
		return true;
	}
	for (auto &child : op.children) {
		if (HasScanWithAnyOf(*child, sets)) {
			return true;
		}
	}
	return false;
}

class SubplanPushdown {
public:
	SubplanPushdown(OptimizerExtensionInput &input, LogicalOperator &root)
	    : context(input.context), binder(input.optimizer.binder), root(root) {
	}

	void Visit(unique_ptr<LogicalOperator> &op) {
		if (IsWorthSending(*op)) {
			auto catalog = CatalogOf(*op);
			if (catalog && TryPush(op, *catalog)) {
				return;
			}
		}
		for (auto &child : op->children) {
			Visit(child);
		}
	}

private:
	//! Whether fewer rows come out of a part of a plan than its scans would bring.
	bool IsWorthSending(const LogicalOperator &op) const {
		auto &deciding = DecidingOperator(op);
		if (IsReducing(deciding.type)) {
			return true;
		}
		if (!IsReducingJoin(deciding)) {
			return false;
		}
		// What a join with rows of this process finds out may leave less than this one does.
		FilterSets sets;
		CollectHandedOut(root, op, sets);
		return !HasScanWithAnyOf(op, sets);
	}

	//! The one duckling whose tables are all that a part of a plan reads, with functions that it has.
	optional_ptr<RemoteCatalog> CatalogOf(LogicalOperator &op) {
		optional_ptr<RemoteCatalog> catalog;
		set<TableIndex> ctes;
		return ReadsOne(op, catalog, ctes) && catalog && KnowsAllOf(*catalog, op) ? catalog : nullptr;
	}

	//! Whether nothing is read but `catalog`, which is set by the first scan, and `ctes` that are defined in the same part.
	bool ReadsOne(LogicalOperator &op, optional_ptr<RemoteCatalog> &catalog, set<TableIndex> &ctes) {
		if (op.type == LogicalOperatorType::LOGICAL_MATERIALIZED_CTE) {
			ctes.insert(op.Cast<LogicalMaterializedCTE>().table_index);
		}
		for (auto &child : op.children) {
			if (!ReadsOne(*child, catalog, ctes)) {
				return false;
			}
		}
		if (!op.children.empty() || op.type == LogicalOperatorType::LOGICAL_DUMMY_SCAN) {
			return true;
		}
		if (op.type == LogicalOperatorType::LOGICAL_CTE_REF) {
			return ctes.count(op.Cast<LogicalCTERef>().cte_index) > 0;
		}
		auto table = TableOfScan(op);
		if (!table || (catalog && &table->GetRemoteCatalog() != catalog.get())) {
			return false;
		}
		catalog = table->GetRemoteCatalog();
		return true;
	}

	bool KnowsAllOf(RemoteCatalog &catalog, LogicalOperator &op) {
		auto known = true;
		LogicalOperatorVisitor::EnumerateExpressions(op, [&](unique_ptr<Expression> *expression) {
			known = known && !(*expression)->IsVolatile() && ServerKnowsFunctions(context, catalog, **expression);
		});
		for (auto &child : op.children) {
			known = known && KnowsAllOf(catalog, *child);
		}
		return known;
	}

	bool TryPush(unique_ptr<LogicalOperator> &op, RemoteCatalog &catalog) {
		op->ResolveOperatorTypes();
		auto old_bindings = op->GetColumnBindings();
		auto exported = LogicalPlanSQLExporter::Export(context, *op);
		if (exported.HasError() || old_bindings.empty()) {
			return false;
		}
		for (auto &type : op->types) {
			if (type.IsAggregateState()) {
				// It is DuckDB's own, and not for export.
				return false;
			}
		}
		for (auto &field : exported.GetValue().fields) {
			if (field.optimizer_type) {
				// What is above expects values as the optimizer has encoded them.
				return false;
			}
		}
		auto sql = Deparse(context, *exported.GetValue().query);
		if (!CanRun(catalog, sql)) {
			return false;
		}
		RemoteStatement statement {catalog, std::move(sql), QueryShape::ROWS, {}, {}};
		unique_ptr<FunctionData> bind_data;
		auto function = MakeStatementScan(std::move(statement), op->types, bind_data);
		vector<Identifier> names;
		vector<ColumnIndex> column_ids;
		for (idx_t i = 0; i < op->types.size(); i++) {
			names.emplace_back("c" + to_string(i));
			column_ids.emplace_back(i);
		}
		auto get = make_uniq<LogicalGet>(binder.GenerateTableIndex(), BoundTableFunction(function),
		                                 std::move(bind_data), op->types, std::move(names));
		get->SetColumnIds(std::move(column_ids));
		if (op->has_estimated_cardinality) {
			get->SetEstimatedCardinality(op->estimated_cardinality);
		}
		get->ResolveOperatorTypes();
		auto is_root = op.get() == &root;
		op = std::move(get);
		if (!is_root) {
			ReplaceColumns(root, old_bindings, *op);
		}
		return true;
	}

	//! Whether the server can bind it. It is asked only where a no cannot spoil the user's transaction.
	bool CanRun(RemoteCatalog &catalog, const string &sql) {
		try {
			ColumnsHandle columns;
			return Check([&](DhBuffer *error) {
				return Api().describe(catalog.Session(context), Text(sql), InterruptOf(context), columns.Slot(), error);
			});
		} catch (std::exception &error) { // NOLINT: then it runs here
			if (ErrorData(error).Type() == ExceptionType::INTERRUPT) {
				throw;
			}
			return false;
		}
	}

	ClientContext &context;
	Binder &binder;
	LogicalOperator &root;
};

void Optimize(OptimizerExtensionInput &input, unique_ptr<LogicalOperator> &plan) {
	auto &context = input.context;
	if (DatabaseManager::Get(context).GetRemoteCatalogCount() == 0 || !context.transaction.IsAutoCommit() ||
	    Optimizer::OptimizerDisabled(context, OptimizerType::REMOTE_PUSHDOWN)) {
		return;
	}
	SubplanPushdown(input, *plan).Visit(plan);
}

} // namespace

void RegisterSubplanPushdown(DBConfig &config) {
	OptimizerExtension extension;
	extension.optimize_function = Optimize;
	OptimizerExtension::Register(config, extension);
}

} // namespace duckherder
