#include "remote_schema.hpp"

#include "name_rewriter.hpp"
#include "remote_catalog.hpp"
#include "remote_definitions.hpp"
#include "remote_transaction.hpp"

#include "duckdb/parser/parsed_data/alter_info.hpp"
#include "duckdb/parser/parsed_data/create_function_info.hpp"
#include "duckdb/parser/parsed_data/create_index_info.hpp"
#include "duckdb/parser/parsed_data/create_schema_info.hpp"
#include "duckdb/parser/parsed_data/create_sequence_info.hpp"
#include "duckdb/parser/parsed_data/create_table_info.hpp"
#include "duckdb/parser/parsed_data/create_type_info.hpp"
#include "duckdb/parser/parsed_data/create_view_info.hpp"
#include "duckdb/parser/parsed_data/drop_info.hpp"
#include "duckdb/planner/parsed_data/bound_create_table_info.hpp"

namespace duckherder {

using namespace duckdb;

//! Entries of tables that a schema keeps.
static constexpr idx_t TABLES_KEPT = 1024;

RemoteSchema::RemoteSchema(RemoteCatalog &catalog, CreateSchemaInfo &info)
    : SchemaCatalogEntry(catalog, info), remote_catalog(catalog) {
}

CatalogEntry &RemoteSchema::Entry(ClientContext &context, const Identifier &local_name,
                                  const shared_ptr<TablesHandle> &described, idx_t index) {
	DhTableView view;
	Api().tables_get(described->Get(), index, &view);
	auto &transaction = RemoteTransaction::Get(context, remote_catalog);
	{
		lock_guard<mutex> guard(lock);
		auto known = tables.find(local_name);
		if (known != tables.end() && known->second->Identity() == view.identity) {
			return transaction.Keep(known->second);
		}
	}
	auto table = RemoteTable::Make(context, remote_catalog, *this, local_name, described, index);
	lock_guard<mutex> guard(lock);
	if (tables.size() >= TABLES_KEPT) {
		tables.clear();
	}
	tables[local_name] = table;
	return transaction.Keep(std::move(table));
}

optional_ptr<CatalogEntry> RemoteSchema::LookupEntry(CatalogTransaction transaction,
                                                     const EntryLookupInfo &lookup_info) {
	if (lookup_info.GetCatalogType() != CatalogType::TABLE_ENTRY || !transaction.HasContext()) {
		return nullptr;
	}
	auto &context = transaction.GetContext();
	auto schema_name = name.GetIdentifierName();
	auto table_name = lookup_info.GetEntryName();
	auto is_alias = ResolveAlias(remote_catalog, schema_name, table_name);
	// The pushdown optimizer asks, without a place in the query, only whether the table exists: the server will find out
	// itself if that is no longer so. The binder goes on to use the columns, so these must be current.
	auto validate = lookup_info.GetErrorContext().query_location.IsValid();
	auto described = make_shared_ptr<TablesHandle>();
	auto found = Check([&](DhBuffer *error) {
		return Api().lookup_table(remote_catalog.Session(context), Text(schema_name), Text(table_name), validate,
		                       InterruptOf(context), described->Slot(), error);
	});
	if (!found) {
		return nullptr;
	}
	DhTableView view;
	Api().tables_get(described->Get(), 0, &view);
	auto local_name = is_alias ? lookup_info.GetEntryIdentifier() : Identifier(String(view.table_name));
	return Entry(context, local_name, described, 0);
}

void RemoteSchema::Scan(ClientContext &context, CatalogType type,
                        const std::function<void(CatalogEntry &)> &callback) {
	if (type == CatalogType::SEQUENCE_ENTRY || type == CatalogType::INDEX_ENTRY) {
		return ScanDefinitions(context, type, callback);
	}
	if (type != CatalogType::TABLE_ENTRY && type != CatalogType::VIEW_ENTRY) {
		return;
	}
	auto described = make_shared_ptr<TablesHandle>();
	Check([&](DhBuffer *error) {
		return Api().list_tables(remote_catalog.Session(context), InterruptOf(context), described->Slot(), error);
	});
	for (idx_t i = 0; i < Api().tables_len(described->Get()); i++) {
		DhTableView view;
		Api().tables_get(described->Get(), i, &view);
		if (name != String(view.schema_name)) {
			continue;
		}
		auto entry = view.is_view ? MakeView(context, *this, described, i) : nullptr;
		if (entry) {
			callback(RemoteTransaction::Get(context, remote_catalog).Keep(std::move(entry)));
		} else if (type == CatalogType::TABLE_ENTRY) {
			// A view that cannot be read here is listed as what it can be used as.
			callback(Entry(context, Identifier(String(view.table_name)), described, i));
		}
	}
}

void RemoteSchema::ScanDefinitions(ClientContext &context, CatalogType type,
                                   const std::function<void(CatalogEntry &)> &callback) {
	auto kind = type == CatalogType::SEQUENCE_ENTRY ? DhSequences : DhIndexes;
	TablesHandle listed;
	Check([&](DhBuffer *error) {
		return Api().list_definitions(remote_catalog.Session(context), kind, InterruptOf(context), listed.Slot(), error);
	});
	for (idx_t i = 0; i < Api().tables_len(listed.Get()); i++) {
		DhTableView view;
		Api().tables_get(listed.Get(), i, &view);
		auto entry = name == String(view.schema_name) ? MakeDefinition(context, *this, view) : nullptr;
		if (entry) {
			callback(RemoteTransaction::Get(context, remote_catalog).Keep(std::move(entry)));
		}
	}
}

void RemoteSchema::Scan(CatalogType, const std::function<void(CatalogEntry &)> &) {
	// Without a connection there is no session to ask.
}

//! Ships the SQL of a definition, named as the server knows it.
template <class INFO>
static void Ship(RemoteCatalog &catalog, CatalogTransaction transaction, const Identifier &schema, const INFO &info) {
	auto copy = info.Copy();
	copy->SetQualifiedName(QualifiedName(Identifier(), schema, info.GetQualifiedName().Name()));
	catalog.Execute(transaction, copy->ToString());
}

optional_ptr<CatalogEntry> RemoteSchema::CreateIndex(CatalogTransaction transaction, CreateIndexInfo &info,
                                                     TableCatalogEntry &) {
	Ship<CreateInfo>(remote_catalog, transaction, name, info);
	return nullptr;
}

optional_ptr<CatalogEntry> RemoteSchema::CreateFunction(CatalogTransaction transaction, CreateFunctionInfo &info) {
	Ship<CreateInfo>(remote_catalog, transaction, name, info);
	return nullptr;
}

optional_ptr<CatalogEntry> RemoteSchema::CreateTable(CatalogTransaction transaction, BoundCreateTableInfo &info) {
	Ship<CreateInfo>(remote_catalog, transaction, name, info.Base());
	return nullptr;
}

optional_ptr<CatalogEntry> RemoteSchema::CreateView(CatalogTransaction transaction, CreateViewInfo &info) {
	Ship<CreateInfo>(remote_catalog, transaction, name, info);
	return nullptr;
}

optional_ptr<CatalogEntry> RemoteSchema::CreateSequence(CatalogTransaction transaction, CreateSequenceInfo &info) {
	Ship<CreateInfo>(remote_catalog, transaction, name, info);
	return nullptr;
}

optional_ptr<CatalogEntry> RemoteSchema::CreateType(CatalogTransaction transaction, CreateTypeInfo &info) {
	Ship<CreateInfo>(remote_catalog, transaction, name, info);
	return nullptr;
}

void RemoteSchema::DropEntry(ClientContext &context, DropInfo &info) {
	Ship(remote_catalog, remote_catalog.GetCatalogTransaction(context), name, info);
}

void RemoteSchema::Alter(CatalogTransaction transaction, AlterInfo &info) {
	Ship(remote_catalog, transaction, name, info);
}

} // namespace duckherder
