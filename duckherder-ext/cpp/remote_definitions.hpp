//! What a duckling's catalog holds besides tables: made of its SQL when it is asked for.
#pragma once

#include "bridge.hpp"

#include "duckdb/catalog/catalog_entry/schema_catalog_entry.hpp"

namespace duckherder {

class RemoteSchema;

//! A view with the columns that the server says it has; null if its SQL is none that this DuckDB can read.
duckdb::shared_ptr<duckdb::CatalogEntry> MakeView(duckdb::ClientContext &context, RemoteSchema &schema,
                                                  const duckdb::shared_ptr<TablesHandle> &described,
                                                  duckdb::idx_t index);

//! A sequence, index, type or macro, for listings; null as above, and for a type whose parts are not known here.
duckdb::shared_ptr<duckdb::CatalogEntry> MakeDefinition(duckdb::ClientContext &context, RemoteSchema &schema,
                                                        DhDefinitionKind kind, const DefinitionsHandle &described,
                                                        duckdb::idx_t index);

//! The trigger of a table, for listings; null as above.
duckdb::shared_ptr<duckdb::CatalogEntry> MakeTrigger(duckdb::ClientContext &context,
                                                     duckdb::SchemaCatalogEntry &schema,
                                                     const DhDefinitionView &view);

//! A type or macro that a statement can be bound with here, with the same meaning as there; null if it cannot.
duckdb::shared_ptr<duckdb::CatalogEntry> MakeBindable(duckdb::ClientContext &context, RemoteSchema &schema,
                                                      DhDefinitionKind kind, const DefinitionsHandle &described,
                                                      duckdb::idx_t index);

//! The parsed CREATE statement of something on the server; null if this DuckDB cannot read it.
duckdb::unique_ptr<duckdb::CreateInfo> TryParseDefinition(duckdb::ClientContext &context, const duckdb::string &sql);

//! The number of an entry here, from the server's: listings are joined on it, and EXPORT DATABASE goes by it.
duckdb::idx_t LocalOid(duckdb::Catalog &catalog, uint64_t remote_oid);

} // namespace duckherder
