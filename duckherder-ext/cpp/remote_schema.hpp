//! A schema on a duckling. Its tables are looked up when they are asked for.
#pragma once

#include "remote_table.hpp"

#include "duckdb/catalog/catalog_entry/schema_catalog_entry.hpp"

namespace duckherder {

class RemoteSchema : public duckdb::SchemaCatalogEntry {
public:
	RemoteSchema(RemoteCatalog &catalog, duckdb::CreateSchemaInfo &info);

	duckdb::optional_ptr<duckdb::CatalogEntry> LookupEntry(duckdb::CatalogTransaction transaction,
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
	void ScanDefinitions(duckdb::ClientContext &context, duckdb::CatalogType type,
	                     const std::function<void(duckdb::CatalogEntry &)> &callback);
	//! The entry of a described table, kept alive by the transaction.
	duckdb::CatalogEntry &Entry(duckdb::ClientContext &context, const duckdb::Identifier &local_name,
	                            const duckdb::shared_ptr<TablesHandle> &tables, duckdb::idx_t index);

	RemoteCatalog &remote_catalog;
	duckdb::mutex lock;
	//! The newest entry of each table that was looked up, as long as there is room: making one takes longer than a lookup.
	duckdb::identifier_map_t<duckdb::shared_ptr<RemoteTable>> tables;
};

} // namespace duckherder
