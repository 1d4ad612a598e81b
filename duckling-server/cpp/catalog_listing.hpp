//! What the catalog holds, as JSON for `src/catalog.rs`. A look-up of one entry reads no other.
#pragma once

#include "duckdb.hpp"

namespace duckling {

//! A table or view, `null` if there is none of that name, or none but DuckDB's own. `schema_path`: the names of the
//! schema and of those that it is nested in, outermost first.
duckdb::string LookupTable(duckdb::ClientContext &context, const duckdb::vector<duckdb::Identifier> &schema_path,
                           const duckdb::Identifier &name);

//! Whether there is a schema.
bool SchemaExists(duckdb::ClientContext &context, const duckdb::vector<duckdb::Identifier> &schema_path);

//! All schemas, tables and views of the default database: `{"schemas": […], "tables": […]}`.
duckdb::string ListTables(duckdb::ClientContext &context);

//! Its other entries of these kinds, `sequence`, `index`, `type`, `macro` and `table_macro`, each kind in the order in
//! which they were made.
duckdb::string ListDefinitions(duckdb::ClientContext &context, const duckdb::vector<duckdb::string> &kinds);

} // namespace duckling
