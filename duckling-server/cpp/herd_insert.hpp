//! INSERT into a herd's table: rows go to the workers of their partitions.
#pragma once

#include "herd_bridge.hpp"

#include "duckdb/planner/logical_operator.hpp"

namespace herd {

//! Puts our operator where `op` inserts into a herd's table; whether it did.
bool PlanHerdInsert(duckdb::unique_ptr<duckdb::LogicalOperator> &op);

} // namespace herd
