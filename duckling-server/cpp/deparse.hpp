//! The SQL text of what DuckDB's optimizer hands over for the server.
#pragma once

#include "duckdb.hpp"

#include "duckdb/parser/query_node.hpp"
#include "duckdb/parser/sql_statement.hpp"

namespace duckherder {

//! The text of a query. DuckDB's own ToString loses some of its meaning, and so does the folding of constants that comes
//! before: what is known of both is put right first.
duckdb::string Deparse(duckdb::ClientContext &context, duckdb::QueryNode &node);
duckdb::string Deparse(duckdb::ClientContext &context, duckdb::SQLStatement &statement);
duckdb::string Deparse(duckdb::ClientContext &context, duckdb::unique_ptr<duckdb::ParsedExpression> expression);

} // namespace duckherder
