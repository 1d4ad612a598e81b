//! A schema on a duckling. Its tables are looked up when they are asked for.
#pragma once

#include "remote_table.hpp"

#include "duckdb/catalog/catalog_entry/schema_catalog_entry.hpp"

namespace duckherder {

class RemoteSchema : public duckdb::SchemaCatalogEntry {
public:
	RemoteSchema(RemoteCatalog &catalog, duckdb::CreateSchemaInfo &info, duckdb::optional_ptr<RemoteSchema> parent);

	duckdb::optional_ptr<duckdb::CatalogEntry> LookupEntry(duckdb::CatalogTransaction transaction,
	                                                       const duckdb::EntryLookupInfo &lookup_info) override;
	//! None if the duckling cannot be asked: it is for an error about something else.
	duckdb::SimilarCatalogEntry GetSimilarEntry(duckdb::CatalogTransaction transaction,
	                                            const duckdb::EntryLookupInfo &lookup_info) override;
	void Scan(duckdb::ClientContext &context, duckdb::CatalogType type,
	          const std::function<void(duckdb::CatalogEntry &)> &callback) override;
	void Scan(duckdb::CatalogType type, const std::function<void(duckdb::CatalogEntry &)> &callback) override;

	duckdb::optional_ptr<duckdb::CatalogEntry> CreateIndex(duckdb::CatalogTransaction transaction,
	                                                       duckdb::CreateIndexInfo &info,
	                                                       duckdb::TableCatalogEntry &table) override;
	duckdb::optional_ptr<duckdb::CatalogEntry> CreateFunction(duckdb::CatalogTransaction transaction,
	                                                          duckdb::CreateFunctionInfo &info) override;
	duckdb::optional_ptr<duckdb::CatalogEntry> CreateTable(duckdb::CatalogTransaction transaction,
	                                                       duckdb::BoundCreateTableInfo &info) override;
	duckdb::optional_ptr<duckdb::CatalogEntry> CreateView(duckdb::CatalogTransaction transaction,
	                                                      duckdb::CreateViewInfo &info) override;
	duckdb::optional_ptr<duckdb::CatalogEntry> CreateSequence(duckdb::CatalogTransaction transaction,
	                                                          duckdb::CreateSequenceInfo &info) override;
	duckdb::optional_ptr<duckdb::CatalogEntry> CreateType(duckdb::CatalogTransaction transaction,
	                                                      duckdb::CreateTypeInfo &info) override;
	void DropEntry(duckdb::ClientContext &context, duckdb::DropInfo &info) override;
	void Alter(duckdb::CatalogTransaction transaction, duckdb::AlterInfo &info) override;

private:
	//! A type or macro that statements here can be bound with; null if there is none, or this DuckDB cannot do with it.
	duckdb::optional_ptr<duckdb::CatalogEntry> LookupDefinition(duckdb::ClientContext &context, DhDefinitionKind kind,
	                                                            const duckdb::EntryLookupInfo &lookup_info);
	duckdb::optional_ptr<duckdb::CatalogEntry> LookupTable(duckdb::ClientContext &context,
	                                                       const duckdb::EntryLookupInfo &lookup_info);
	void ScanTables(duckdb::ClientContext &context, duckdb::CatalogType type,
	                const std::function<void(duckdb::CatalogEntry &)> &callback);
	void ScanDefinitions(duckdb::ClientContext &context, DhDefinitionKind kind,
	                     const std::function<void(duckdb::CatalogEntry &)> &callback);
	//! The entry of a described table, kept alive by the transaction.
	duckdb::CatalogEntry &Entry(duckdb::ClientContext &context, const duckdb::Identifier &local_name,
	                            const duckdb::shared_ptr<TablesHandle> &tables, duckdb::idx_t index);

	//! What was made of a definition.
	struct KnownDefinition {
		//! Keeps what `identity` points at from being freed and its address used again.
		duckdb::shared_ptr<DefinitionsHandle> described;
		const void *identity;
		//! Null if nothing can be made of it.
		duckdb::shared_ptr<duckdb::CatalogEntry> entry;
	};

	RemoteCatalog &remote_catalog;
	//! Its path as SQL.
	duckdb::string path_sql;
	duckdb::mutex lock;
	//! The newest entry of each table that was looked up, as long as there is room: making one takes longer than a lookup.
	duckdb::identifier_map_t<duckdb::shared_ptr<RemoteTable>> tables;
	//! The same of types and macros.
	duckdb::map<DhDefinitionKind, duckdb::identifier_map_t<KnownDefinition>> definitions;
};

} // namespace duckherder
