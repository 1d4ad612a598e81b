//! COPY FROM DATABASE, to a duckling: what is not rows.
#pragma once

#include "bridge.hpp"

#include "duckdb/planner/operator/logical_copy_database.hpp"

namespace duckherder {

class RemoteCatalog;

//! Makes the entries that DuckDB would make itself, one statement each, in the duckling's part of the transaction.
duckdb::unique_ptr<duckdb::LogicalOperator> PlanCopySchema(RemoteCatalog &catalog,
                                                           const duckdb::LogicalCopyDatabase &copy);

} // namespace duckherder
