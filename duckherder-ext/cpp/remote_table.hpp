//! A table or view on a duckling.
#pragma once

#include "bridge.hpp"

#include "duckdb/catalog/catalog_entry/table_catalog_entry.hpp"
#include "duckdb/storage/table_storage_info.hpp"

namespace duckherder {

class RemoteCatalog;

//! What an entry is made for.
enum class TablePurpose : uint8_t {
	//! Statements. They leave it to the server to check constraints and to fire triggers.
	USE,
	//! Listings, which have these too.
	LISTING,
	//! DESCRIBE of a view, whose columns are described like those of the tables that they come from.
	DESCRIBING_VIEW
};

//! Columns and estimated size are those that the server described; rows are read by sending a SELECT.
class RemoteTable : public duckdb::TableCatalogEntry, public duckdb::enable_shared_from_this<RemoteTable> {
public:
	RemoteTable(RemoteCatalog &catalog, duckdb::SchemaCatalogEntry &schema, duckdb::CreateTableInfo &info,
	            duckdb::shared_ptr<TablesHandle> described, duckdb::idx_t index, TablePurpose purpose);

	//! `local_name` is the alias it is known by here, or else its own name.
	static duckdb::shared_ptr<RemoteTable> Make(duckdb::ClientContext &context, RemoteCatalog &catalog,
	                                            duckdb::SchemaCatalogEntry &schema,
	                                            const duckdb::Identifier &local_name,
	                                            const duckdb::shared_ptr<TablesHandle> &described,
	                                            duckdb::idx_t index, TablePurpose purpose);

	//! Forgets foreign keys that refer to other tables than these.
	void DropForeignKeysExceptTo(const duckdb::identifier_set_t &tables);

	//! What DESCRIBE shows: this, unless it is a view.
	duckdb::TableCatalogEntry &Described() {
		return as_described ? *as_described : *this;
	}
	//! Two descriptions of the same identity are one and the same.
	const void *Identity() const {
		return identity;
	}
	//! Its names on the server.
	const duckdb::vector<duckdb::Identifier> &RemoteSchemaPath() const {
		return remote_schema_path;
	}
	const duckdb::string &RemoteTableName() const {
		return remote_table_name;
	}
	//! Both, without the catalog.
	duckdb::QualifiedName RemoteQualifiedName() const;
	//! The same as SQL, every name quoted.
	duckdb::string RemoteName() const;
	duckdb::optional_idx EstimatedRows() const {
		return estimated_rows;
	}
	RemoteCatalog &GetRemoteCatalog() const {
		return remote_catalog;
	}

	const duckdb::ColumnList &GetColumns() const override {
		return columns;
	}
	duckdb::unique_ptr<duckdb::BaseStatistics> GetStatistics(duckdb::ClientContext &context,
	                                                         duckdb::column_t column_id) override;
	duckdb::TableFunction GetScanFunction(duckdb::ClientContext &context,
	                                      duckdb::unique_ptr<duckdb::FunctionData> &bind_data) override;
	//! As the server has it. EXPORT DATABASE writes it.
	duckdb::string ToSQL() const override;
	duckdb::TableStorageInfo GetStorageInfo(duckdb::ClientContext &context) override;
	duckdb::optional_ptr<duckdb::CatalogEntry> CreateTrigger(duckdb::CatalogTransaction transaction,
	                                                         duckdb::CreateTriggerInfo &info) override;
	void ScanTriggers(duckdb::CatalogTransaction transaction,
	                  const std::function<void(duckdb::CatalogEntry &)> &callback) const override;
	bool DropTrigger(duckdb::CatalogTransaction transaction, const duckdb::Identifier &name, bool cascade) override;
	void BindUpdateConstraints(duckdb::Binder &binder, duckdb::LogicalGet &get, duckdb::LogicalProjection &proj,
	                           duckdb::LogicalUpdate &update, duckdb::ClientContext &context) override;
	duckdb::virtual_column_map_t GetVirtualColumns() const override;
	duckdb::vector<duckdb::column_t> GetRowIdColumns() const override;

private:
	bool HasTrigger(duckdb::ClientContext &context, const duckdb::Identifier &name) const;

	RemoteCatalog &remote_catalog;
	//! Keeps what `identity` points at from being freed and its address used again.
	duckdb::shared_ptr<TablesHandle> described;
	duckdb::idx_t index;
	TablePurpose purpose;
	const void *identity;
	duckdb::vector<duckdb::Identifier> remote_schema_path;
	duckdb::string remote_table_name;
	duckdb::string definition_sql;
	duckdb::optional_idx estimated_rows;
	duckdb::idx_t index_count;
	duckdb::vector<duckdb::IndexInfo> unique_indexes;
	duckdb::ColumnList columns;
	duckdb::shared_ptr<RemoteTable> as_described;
};

} // namespace duckherder
