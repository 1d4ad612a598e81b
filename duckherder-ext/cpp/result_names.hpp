//! Names of result columns that have none of their own.
#pragma once

#include "duckdb/common/identifier.hpp"
#include "duckdb/main/client_context.hpp"
#include "duckdb/parser/statement/create_statement.hpp"

namespace duckherder {

//! DuckDB names such a column after its expression, and the duckling after what was sent, in which catalogs are missing
//! and constants folded. Gives the columns of `sent` in `names` the names that they have in what the user has typed.
void NameAsTyped(duckdb::ClientContext &context, const duckdb::string &sent,
                 duckdb::vector<duckdb::Identifier> &names);

//! The same for CREATE TABLE AS, whose columns get these names.
void NameAsTyped(duckdb::ClientContext &context, duckdb::CreateStatement &statement);

} // namespace duckherder
