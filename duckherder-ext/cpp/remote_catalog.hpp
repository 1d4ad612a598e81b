//! An attached duckling, as DuckDB's catalog.
#pragma once

#include "bridge.hpp"

#include "duckdb/catalog/catalog.hpp"

namespace duckherder {

class RemoteSchema;

class RemoteCatalog : public duckdb::Catalog {
public:
	RemoteCatalog(duckdb::AttachedDatabase &db, duckdb::shared_ptr<RemoteHandle> remote);
	~RemoteCatalog() override;

	//! What `TYPE` means in ATTACH.
	static constexpr const char *TYPE = "duckherder";

	const duckdb::shared_ptr<RemoteHandle> &Remote() const {
		return remote;
	}
	//! The session of `context`, opened if need be.
	DhSession *Session(duckdb::ClientContext &context);
	//! Runs a statement on the duckling to its end. DDL comes here where the optimizer did not ship the whole statement.
	void Execute(duckdb::CatalogTransaction transaction, const duckdb::string &sql);

	duckdb::string GetCatalogType() override {
		return TYPE;
	}
	void Initialize(bool load_builtin) override;
	duckdb::optional<duckdb::Identifier> GetDefaultSchema() const override;
	bool InMemory() override {
		return false;
	}
	duckdb::string GetDBPath() override;
	duckdb::string GetConnectDisplay() override;
	//! Name and address, as plans show them.
	duckdb::string GetDisplayName();
	duckdb::DatabaseSize GetDatabaseSize(duckdb::ClientContext &context) override;
	void OnDetach(duckdb::ClientContext &context) override;

	bool SupportsNestedSchemas() const override {
		return true;
	}
	//! The entry of a schema, if the server has it.
	duckdb::optional_ptr<RemoteSchema> FindSchema(duckdb::CatalogTransaction transaction,
	                                              const duckdb::vector<duckdb::Identifier> &path);
	duckdb::optional_ptr<duckdb::SchemaCatalogEntry> LookupSchema(duckdb::CatalogTransaction transaction,
	                                                              const duckdb::EntryLookupInfo &schema_lookup,
	                                                              duckdb::OnEntryNotFound if_not_found) override;
	void ScanSchemas(duckdb::ClientContext &context,
	                 std::function<void(duckdb::SchemaCatalogEntry &)> callback) override;

	bool Supports(duckdb::RemoteCapability capability) const override;
	duckdb::unique_ptr<duckdb::TableRef> RemoteExecute(duckdb::ClientContext &context,
	                                                   duckdb::unique_ptr<duckdb::QueryNode> node) override;
	duckdb::unique_ptr<duckdb::TableRef> RemoteExecute(duckdb::ClientContext &context,
	                                                   duckdb::unique_ptr<duckdb::SQLStatement> statement) override;
	duckdb::unique_ptr<duckdb::TableRef> RemoteExecute(duckdb::ClientContext &context,
	                                                   const duckdb::string &sql) override;
	bool SupportsPushdown(const duckdb::ParsedExpression &expression) override;
	bool SupportsPushdown(const duckdb::TableRef &ref) override;
	bool SupportsPushdown(const duckdb::QueryNode &node) override;
	bool SupportsPushdown(const duckdb::SQLStatement &statement) override;

	duckdb::optional_ptr<duckdb::CatalogEntry> CreateSchema(duckdb::CatalogTransaction transaction,
	                                                        duckdb::CreateSchemaInfo &info) override;
	//! Which clauses a table may have is for the duckling to say.
	duckdb::ErrorData SupportsCreateTable(duckdb::BoundCreateTableInfo &) override {
		return duckdb::ErrorData();
	}
	duckdb::PhysicalOperator &PlanCreateTableAs(duckdb::ClientContext &context,
	                                            duckdb::PhysicalPlanGenerator &planner,
	                                            duckdb::LogicalCreateTable &op,
	                                            duckdb::PhysicalOperator &plan) override;
	duckdb::PhysicalOperator &PlanInsert(duckdb::ClientContext &context, duckdb::PhysicalPlanGenerator &planner,
	                                     duckdb::LogicalInsert &op,
	                                     duckdb::optional_ptr<duckdb::PhysicalOperator> plan) override;
	duckdb::PhysicalOperator &PlanDelete(duckdb::ClientContext &context, duckdb::PhysicalPlanGenerator &planner,
	                                     duckdb::LogicalDelete &op, duckdb::PhysicalOperator &plan) override;
	duckdb::PhysicalOperator &PlanUpdate(duckdb::ClientContext &context, duckdb::PhysicalPlanGenerator &planner,
	                                     duckdb::LogicalUpdate &op, duckdb::PhysicalOperator &plan) override;
	duckdb::unique_ptr<duckdb::LogicalOperator>
	BindCreateIndex(duckdb::Binder &binder, duckdb::CreateStatement &stmt, duckdb::TableCatalogEntry &table,
	                duckdb::unique_ptr<duckdb::LogicalOperator> plan) override;
	duckdb::PhysicalOperator &PlanMergeInto(duckdb::ClientContext &context, duckdb::PhysicalPlanGenerator &planner,
	                                        duckdb::LogicalMergeInto &op, duckdb::PhysicalOperator &plan) override;

private:
	void DropSchema(duckdb::ClientContext &context, duckdb::DropInfo &info) override;
	RemoteSchema &SchemaEntry(const duckdb::vector<duckdb::Identifier> &path);

	duckdb::shared_ptr<RemoteHandle> remote;
	duckdb::mutex lock;
	//! By path, as SQL, in each spelling that is used. Kept until DETACH: there are few, and DuckDB holds references to them.
	duckdb::unordered_map<duckdb::string, duckdb::unique_ptr<RemoteSchema>> schemas;
};

//! The error for statements that need rows of this process written to a duckling.
[[noreturn]] void ThrowLocalRowsNotSupported(const char *statement);

} // namespace duckherder
