//! Results whose columns of UNION and VARIANT leave as what DuckDB keeps them in.
#pragma once

#include "duckdb/planner/bound_statement.hpp"
#include "duckdb/planner/operator_extension.hpp"

namespace duckling {

//! Puts a projection on top of a statement that the connection is to yield so, if it has such columns.
void StoreResult(duckdb::ClientContext &context, duckdb::Binder &binder, duckdb::BoundStatement &bound);

//! The plan below that projection, if this is one; else `plan` itself.
duckdb::unique_ptr<duckdb::LogicalOperator> &BelowStored(duckdb::unique_ptr<duckdb::LogicalOperator> &plan);

} // namespace duckling

extern "C" {

//! Whether the statements of a `duckdb::Connection` that are planned from here on yield their UNION and VARIANT columns as
//! `duckherder::StoredType`. The connection's plans, not those of others, are meant.
void duckling_store_results(void *connection, bool stores);

//! The type that a column of the statement had which was planned last; null if it still has it. It lives until the next
//! statement is planned.
const char *duckling_stored_column(void *connection, size_t column);
}
