//! Bound expressions and plans back to SQL that means the same on a duckling.
#pragma once

#include "bridge.hpp"

#include "duckdb/planner/bound_expression_sql_exporter.hpp"
#include "duckdb/planner/logical_operator.hpp"

namespace duckherder {

class RemoteCatalog;

//! Whether every function in `expression` exists on the server.
bool ServerKnowsFunctions(duckdb::ClientContext &context, RemoteCatalog &catalog, const duckdb::Expression &expression);

//! The SQL of an expression whose columns `resolve` names; nothing if it has none, is volatile, or needs functions that
//! the server lacks.
duckdb::optional<duckdb::string> ExportExpression(duckdb::ClientContext &context, RemoteCatalog &catalog,
                                                  const duckdb::Expression &expression,
                                                  duckdb::BoundExpressionSQLBindingResolver resolve);

//! Makes what refers to the columns of a part of a plan refer to those of what has taken its place: `replacement`, which is
//! left alone. One column may be given out twice.
void ReplaceColumns(duckdb::LogicalOperator &root, const duckdb::vector<duckdb::ColumnBinding> &old_bindings,
                    duckdb::LogicalOperator &replacement);

} // namespace duckherder
