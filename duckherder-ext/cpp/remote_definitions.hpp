//! What a duckling's catalog holds besides tables, for listings: made anew from its SQL whenever it is asked for.
#pragma once

#include "bridge.hpp"

#include "duckdb/catalog/catalog_entry/schema_catalog_entry.hpp"

namespace duckherder {

//! A view with the columns that the server says it has; null if its SQL is none that this DuckDB can read.
duckdb::shared_ptr<duckdb::CatalogEntry> MakeView(duckdb::ClientContext &context, duckdb::SchemaCatalogEntry &schema,
                                                  const duckdb::shared_ptr<TablesHandle> &described,
                                                  duckdb::idx_t index);

//! A sequence or an index; null as above.
duckdb::shared_ptr<duckdb::CatalogEntry> MakeDefinition(duckdb::ClientContext &context,
                                                        duckdb::SchemaCatalogEntry &schema, const DhTableView &view);

//! The parsed CREATE statement of something on the server; null if this DuckDB cannot read it.
duckdb::unique_ptr<duckdb::CreateInfo> TryParseDefinition(duckdb::ClientContext &context, const duckdb::string &sql);

//! A number for an entry, the same whenever it is made: listings are joined on it.
duckdb::idx_t StableOid(duckdb::CatalogType type, const duckdb::Identifier &schema, const duckdb::Identifier &name);

} // namespace duckherder
