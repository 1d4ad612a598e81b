//! Scans of a herd's tables.
#pragma once

#include "herd_bridge.hpp"

#include "duckdb/catalog/catalog_entry/table_catalog_entry.hpp"
#include "duckdb/function/table_function.hpp"
#include "duckdb/planner/operator/logical_get.hpp"

namespace herd {

//! The tag of a table that says where its rows are: `PLACEMENT_TAG` of `duckherder-catalog`.
constexpr const char *PLACEMENT_TAG = "duckherder_placement";

//! Where the rows of a table are, as JSON; null if it is no table of a herd.
duckdb::optional_ptr<const duckdb::string> PlacementOf(const duckdb::CatalogEntry &table);

//! Like DuckDB's own scan of a table, but without anything that depends on its rows, which are not here.
duckdb::TableFunction ScanFunction();

//! Lets all scans of a herd's tables in a plan read the herd, and not the empty table of that name.
//! `in_change`: the plan is part of an UPDATE, DELETE or MERGE.
void ReplaceScans(duckdb::ClientContext &context, duckdb::LogicalOperator &op, bool in_change = false);

//! Refuses a plan that reads the empty table after all: its result would be wrong.
void RefuseOwnScans(const duckdb::LogicalOperator &op);

//! The table that is scanned, if it is one of a herd.
duckdb::optional_ptr<duckdb::TableCatalogEntry> HerdTableOf(const duckdb::LogicalOperator &op);

//! About how many values a column has that a scan of a herd's table yields; 0 if that is not known, and of other scans.
duckdb::idx_t DistinctCountOf(const duckdb::LogicalGet &get, const duckdb::ColumnIndex &column);

} // namespace herd
