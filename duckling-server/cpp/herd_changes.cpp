#include "herd_changes.hpp"

#include "herd_ddl.hpp"
#include "herd_insert.hpp"
#include "herd_scan.hpp"

#include "duckdb/catalog/catalog_entry/table_catalog_entry.hpp"
#include "duckdb/main/settings.hpp"
#include "duckdb/planner/operator/logical_delete.hpp"
#include "duckdb/planner/operator/logical_insert.hpp"
#include "duckdb/planner/operator/logical_merge_into.hpp"
#include "duckdb/planner/operator/logical_update.hpp"

namespace herd {

using namespace duckdb;

namespace {

//! The table whose rows a plan's node changes.
optional_ptr<TableCatalogEntry> ChangedTable(LogicalOperator &op) {
	switch (op.type) {
	case LogicalOperatorType::LOGICAL_INSERT:
		return op.Cast<LogicalInsert>().table;
	case LogicalOperatorType::LOGICAL_UPDATE:
		return op.Cast<LogicalUpdate>().table;
	case LogicalOperatorType::LOGICAL_DELETE:
		return op.Cast<LogicalDelete>().table;
	case LogicalOperatorType::LOGICAL_MERGE_INTO:
		return op.Cast<LogicalMergeInto>().table;
	default:
		return nullptr;
	}
}

void PlanRows(ClientContext &context, unique_ptr<LogicalOperator> &op) {
	for (auto &child : op->children) {
		PlanRows(context, child);
	}
	auto table = ChangedTable(*op);
	if (!table || !PlacementOf(*table) || PlanHerdInsert(op)) {
		return;
	}
	throw NotImplementedException("this statement cannot change rows of the herd's table %s",
	                              table->name.GetIdentifierName());
}

} // namespace

void PlanChanges(ClientContext &context, unique_ptr<LogicalOperator> &plan) {
	CheckDefinitions(context, *plan);
	PlanRows(context, plan);
}

void PlanChangesWithoutOptimizer(ClientContext &context, unique_ptr<LogicalOperator> &plan) {
	if (!Settings::Get<EnableOptimizerSetting>(context)) {
		PlanChanges(context, plan);
	}
}

} // namespace herd
