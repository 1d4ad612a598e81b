#include "join_filters.hpp"

#include "duckdb/execution/operator/join/join_filter_pushdown.hpp"
#include "duckdb/planner/operator/logical_comparison_join.hpp"
#include "duckdb/planner/operator/logical_get.hpp"

namespace duckling {

using namespace duckdb;

namespace {

//! The scans of a plan by what joins push their filters into.
using Scans = unordered_map<const DynamicTableFilterSet *, reference<const LogicalGet>>;

void FindScans(const LogicalOperator &op, Scans &scans) {
	if (op.type == LogicalOperatorType::LOGICAL_GET) {
		auto &get = op.Cast<LogicalGet>();
		if (get.dynamic_filters) {
			scans.emplace(get.dynamic_filters.get(), get);
		}
	}
	for (auto &child : op.children) {
		FindScans(*child, scans);
	}
}

bool IsRowId(const LogicalGet &scan, const JoinFilterPushdownColumn &column) {
	return scan.GetColumnIds()[column.probe_column_index.column_index].IsRowIdColumn();
}

void VisitJoins(LogicalOperator &op, const Scans &scans) {
	for (auto &child : op.children) {
		VisitJoins(*child, scans);
	}
	if (op.type != LogicalOperatorType::LOGICAL_COMPARISON_JOIN && op.type != LogicalOperatorType::LOGICAL_DELIM_JOIN) {
		return;
	}
	auto &pushdown = op.Cast<LogicalComparisonJoin>().filter_pushdown;
	if (!pushdown) {
		return;
	}
	for (auto &probe : pushdown->probe_info) {
		auto scan = scans.find(probe.dynamic_filters.get());
		for (auto &column : probe.columns) {
			if (scan == scans.end() || IsRowId(scan->second.get(), column)) {
				column.mode = JoinFilterPushdownMode::STORAGE_ONLY;
			}
		}
	}
}

} // namespace

void WithoutRowIdBloomFilters(LogicalOperator &plan) {
	Scans scans;
	FindScans(plan, scans);
	if (!scans.empty()) {
		VisitJoins(plan, scans);
	}
}

} // namespace duckling
