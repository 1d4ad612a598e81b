//! A logical plan as the planner in Rust sees it: `duckherder_catalog::herd::plan::Node`.
#pragma once

#include "herd_bridge.hpp"

#include "duckdb/planner/logical_operator.hpp"
#include "duckdb/planner/expression/bound_aggregate_expression.hpp"

namespace herd {

//! The operators of a plan by their number in its description.
using Nodes = duckdb::vector<duckdb::reference<duckdb::LogicalOperator>>;

//! Describes a plan as JSON, and numbers its operators.
duckdb::string DescribePlan(duckdb::ClientContext &context, duckdb::LogicalOperator &root, Nodes &nodes);

//! Whether an aggregate can be computed in two phases: `SplitAggregate` in herd_steps.cpp does it.
bool IsTwoPhase(const duckdb::BoundAggregateExpression &aggregate);

} // namespace herd
