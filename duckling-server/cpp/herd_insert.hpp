//! INSERT into a herd's table: rows go to the workers of their partitions.
#pragma once

#include "herd_bridge.hpp"

#include "duckdb/optimizer/optimizer_extension.hpp"

namespace herd {

//! Puts our operator where `op` inserts into a herd's table; whether it did.
bool PlanHerdInsert(duckdb::OptimizerExtensionInput &input, duckdb::unique_ptr<duckdb::LogicalOperator> &op);

} // namespace herd
