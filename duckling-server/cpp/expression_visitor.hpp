//! Walks over all expressions of a parsed statement.
#pragma once

#include "duckdb/parser/parsed_expression.hpp"
#include "duckdb/parser/query_node.hpp"
#include "duckdb/parser/sql_statement.hpp"
#include "duckdb/parser/tableref.hpp"

#include <functional>

namespace duckherder {

using ExpressionVisitor = std::function<void(duckdb::unique_ptr<duckdb::ParsedExpression> &)>;
using TableRefVisitor = std::function<void(duckdb::TableRef &)>;

//! Calls `visit` for every expression, children first, also in subqueries, and `visit_ref` for every table reference.
//! `visit` may replace the expression.
void VisitExpressions(duckdb::QueryNode &node, const ExpressionVisitor &visit,
                      const TableRefVisitor &visit_ref = [](duckdb::TableRef &) {});

//! The same for a statement: those around a query, and the queries of CREATE.
void VisitExpressions(duckdb::SQLStatement &statement, const ExpressionVisitor &visit,
                      const TableRefVisitor &visit_ref = [](duckdb::TableRef &) {});

} // namespace duckherder
