//! What joins may tell the scans below them.

#pragma once

#include "duckdb/planner/logical_operator.hpp"

namespace duckling {

//! Has no join push a Bloom filter onto the rowids of a scan.
//!
//! DuckDB 2.0.0 writes outside of its memory with such a filter: `RowIdColumnData::Filter` says that there are as many
//! rows to filter as are left over by then, and `BloomFilterExecutor` (`planner/table_filter_state.cpp`) makes room for
//! the hashes of so many, but puts each at the place that its row has among all. Smallest and largest rowid, and lists of
//! them, are still pushed.
void WithoutRowIdBloomFilters(duckdb::LogicalOperator &plan);

} // namespace duckling
