//! Results as Arrow, made by appenders of ours.
#pragma once

#include "duckdb/main/capi_v2/capi_v2_internal.hpp"

namespace duckling {

//! Rows as Arrow: a struct array whose members are columns of `types`.
ArrowArray ToArrow(duckdb::ClientContext &context, const duckdb::vector<duckdb::LogicalType> &types,
                   duckdb::DataChunk &rows);

} // namespace duckling

extern "C" {

//! `duckdb_v2_statement_execute_arrow`, for arrays of at most `batch_rows` rows, or DuckDB's number if that is 0, and of about
//! `batch_bytes`.
DUCKDB_V2_ERROR duckling_execute_arrow(duckdb_v2_connection_handle connection, duckdb_v2_sql_statement_handle statement,
                                       const duckdb_v2_identifier_t *parameter_names,
                                       const duckdb_v2_value_handle *parameter_values, uint64_t parameter_count,
                                       uint64_t batch_rows, uint64_t batch_bytes, duckdb_v2_arrow_result_handle *result,
                                       duckdb_v2_error_info_handle *error);
}
