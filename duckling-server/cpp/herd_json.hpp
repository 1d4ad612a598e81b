//! The JSON that the planner in Rust reads and writes: `duckherder_catalog::herd::{plan, query}`.
#pragma once

#include "duckdb.hpp"

namespace herd {

//! A JSON string.
duckdb::string JsonText(const duckdb::string &text);
//! `[…]` of what `item(i)` writes.
template <class ITEM>
duckdb::string JsonList(duckdb::idx_t count, ITEM item) {
	duckdb::string result = "[";
	for (duckdb::idx_t i = 0; i < count; i++) {
		result += (i == 0 ? "" : ",") + item(i);
	}
	return result + "]";
}
//! The columns `c0`, `c1` … of these types.
duckdb::string JsonColumns(const duckdb::vector<duckdb::LogicalType> &types);
//! A `HerdQuery` that scans one table: `sql` on all workers that hold its rows, or on one if all hold the same.
duckdb::string ScanQuery(const duckdb::string &placement, const duckdb::string &sql,
                         const duckdb::vector<duckdb::LogicalType> &types);

} // namespace herd
