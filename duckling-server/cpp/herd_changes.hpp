//! Statements that change a herd's tables.
#pragma once

#include "herd_bridge.hpp"

#include "duckdb/planner/logical_operator.hpp"

namespace herd {

//! Lets what changes rows of a herd's tables in an optimized plan do so on the workers. Afterwards nothing in the plan
//! writes to the coordinator's own, empty tables of that name: what cannot be done is an error.
void PlanChanges(duckdb::ClientContext &context, duckdb::unique_ptr<duckdb::LogicalOperator> &plan);

//! The same for a plan that is just bound: needed where no optimizer follows.
void PlanChangesWithoutOptimizer(duckdb::ClientContext &context, duckdb::unique_ptr<duckdb::LogicalOperator> &plan);

} // namespace herd
