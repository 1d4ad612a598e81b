//! A logical plan as the planner in Rust sees it: `duckherder_catalog::herd::plan::Node`.
#pragma once

#include "herd_bridge.hpp"

#include "duckdb/planner/logical_operator.hpp"
#include "duckdb/planner/expression/bound_aggregate_expression.hpp"
#include "duckdb/planner/operator/logical_get.hpp"

namespace herd {

//! The operators of a plan by their number in its description.
using Nodes = duckdb::vector<duckdb::reference<duckdb::LogicalOperator>>;

//! Describes a plan as JSON, and numbers its operators.
duckdb::string DescribePlan(duckdb::ClientContext &context, duckdb::LogicalOperator &root, Nodes &nodes);

//! The bucket that all rows of a scan are in, before it is reduced to the number of partitions, if filters fix all of `keys`.
duckdb::optional<duckdb::hash_t> FixedBucket(duckdb::LogicalGet &get, const duckdb::vector<duckdb::string> &keys);

//! Whether an aggregate can be computed in two phases: `SplitAggregate` in herd_steps.cpp does it.
bool IsTwoPhase(const duckdb::BoundAggregateExpression &aggregate);

} // namespace herd
