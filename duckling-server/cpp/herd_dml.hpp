//! UPDATE, DELETE and MERGE of a herd's tables: each worker changes its own rows.
#pragma once

#include "herd_bridge.hpp"

#include "duckdb/planner/binder.hpp"
#include "duckdb/planner/logical_operator.hpp"

namespace herd {

//! Puts our operator where `op`, or what is right below it for RETURNING, changes rows of a herd's table; whether it did.
bool PlanHerdChange(duckdb::ClientContext &context, duckdb::Binder &binder,
                    duckdb::unique_ptr<duckdb::LogicalOperator> &op);

} // namespace herd
