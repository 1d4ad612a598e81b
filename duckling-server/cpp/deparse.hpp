//! The SQL text of what DuckDB's optimizer hands over for the server.
#pragma once

#include "duckdb.hpp"

#include "duckdb/parser/query_node.hpp"
#include "duckdb/parser/sql_statement.hpp"

namespace duckdb {
class MergeQueryNode;
class TableCatalogEntry;
} // namespace duckdb

namespace duckherder {

//! The text of a query. DuckDB's own ToString loses some of its meaning, and so does the folding of constants that comes
//! before: what is known of both is put right first.
duckdb::string Deparse(duckdb::ClientContext &context, duckdb::QueryNode &node);
duckdb::string Deparse(duckdb::ClientContext &context, duckdb::SQLStatement &statement);
duckdb::string Deparse(duckdb::ClientContext &context, duckdb::unique_ptr<duckdb::ParsedExpression> expression);

//! INSERT OR REPLACE of rows that are all key sets nothing. That has no SQL, and its rows count as changed all the same: a
//! column is set to what it is.
void SetSomething(duckdb::MergeQueryNode &merge, const duckdb::TableCatalogEntry &table);

} // namespace duckherder
