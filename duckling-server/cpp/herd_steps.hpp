//! The distributed plan, made of a logical plan and the planner's steps: `duckherder_catalog::herd::plan::Step`.
#pragma once

#include "herd_bridge.hpp"
#include "herd_plan.hpp"

#include "duckdb/function/scalar_function.hpp"
#include "duckdb/planner/binder.hpp"

namespace herd {

//! Puts scans of distributed queries in the places that the steps, as JSON, name. What cannot be written as SQL after all
//! runs on the coordinator, over what can.
void ApplySteps(duckdb::ClientContext &context, duckdb::Binder &binder, duckdb::unique_ptr<duckdb::LogicalOperator> &root,
                Nodes &nodes, const duckdb::string &steps);

//! `duckherder_state_storage(state)`: the state of an aggregate as what it is kept in. DuckDB has no cast for most of them.
duckdb::ScalarFunction StateStorageFunction();

} // namespace herd
