//! Scans of a duckling's tables, for statements that also need what is not there.
#pragma once

#include "bridge.hpp"

#include "duckdb/function/table_function.hpp"

namespace duckherder {

class RemoteTable;

//! The function and its data that scan a table of the duckling. Columns, filters and the filters that a join finds out
//! while it runs go into the SQL that is sent.
duckdb::TableFunction MakeTableScan(duckdb::shared_ptr<RemoteTable> table,
                                    duckdb::unique_ptr<duckdb::FunctionData> &bind_data);

//! The table that a plan's scan reads; null if it is not such a scan.
duckdb::optional_ptr<RemoteTable> TableOfScan(const duckdb::LogicalOperator &op);
duckdb::optional_ptr<RemoteTable> TableOfScan(const duckdb::PhysicalOperator &op);

} // namespace duckherder
