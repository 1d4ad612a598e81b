//! The distributed plan, made of a logical plan and the planner's steps: `duckherder_catalog::herd::plan::Step`.
#pragma once

#include "herd_bridge.hpp"
#include "herd_plan.hpp"

#include "duckdb/planner/binder.hpp"

namespace herd {

//! Puts scans of distributed queries in the places that the steps, as JSON, name. What cannot be written as SQL after all
//! runs on the coordinator, over what can.
void ApplySteps(duckdb::ClientContext &context, duckdb::Binder &binder, duckdb::unique_ptr<duckdb::LogicalOperator> &root,
                Nodes &nodes, const duckdb::string &steps);

} // namespace herd
