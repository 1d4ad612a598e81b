//! Arrow batches that Rust hands out, as DuckDB's vectors.
#pragma once

#include "bridge.hpp"

#include "duckdb/function/table_function.hpp"

#include <functional>

namespace duckherder {

//! Names and exact types of a result's columns.
void ArrowResultColumns(duckdb::ClientContext &context, const DhScan *scan,
                        duckdb::vector<duckdb::LogicalType> &types, duckdb::vector<duckdb::Identifier> &names);

//! Makes column names unique, as DuckDB does for results.
void DeduplicateNames(duckdb::vector<duckdb::Identifier> &names);

//! The state of a scan that yields columns of `types`, cast from what arrives where that is of another type. It is the
//! result of `sql`.
duckdb::unique_ptr<duckdb::GlobalTableFunctionState> MakeArrowScan(duckdb::ClientContext &context, ScanHandle scan,
                                                                   duckdb::vector<duckdb::LogicalType> types,
                                                                   duckdb::string sql);

//! Rows that a scan has read so far.
duckdb::idx_t ArrowScanRowsRead(const duckdb::GlobalTableFunctionState &state);

//! How far the statement is, in percent, as the duckling estimates it; -1 if that is not known.
double ArrowScanProgress(const duckdb::GlobalTableFunctionState &state);

//! Reads all that such a state yields, in this thread.
void ReadArrowScan(duckdb::ClientContext &context, duckdb::GlobalTableFunctionState &state,
                   const std::function<void(duckdb::DataChunk &)> &take);

//! Sets the callbacks that read such a state: any number of threads, order kept, progress told.
void SetUpArrowScan(duckdb::TableFunction &function);

} // namespace duckherder
