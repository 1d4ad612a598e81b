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

//! Entries of tables that a schema keeps, and those of each kind of definition.
static constexpr idx_t ENTRIES_KEPT = 1024;

RemoteSchema::RemoteSchema(RemoteCatalog &catalog, CreateSchemaInfo &info, optional_ptr<RemoteSchema> parent)
    : SchemaCatalogEntry(catalog, info, parent.get()), remote_catalog(catalog), path_sql(SchemaPathSql(GetSchemaPath())) {
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
	auto table = RemoteTable::Make(context, remote_catalog, *this, local_name, described, index, TablePurpose::USE);
	lock_guard<mutex> guard(lock);
	if (tables.size() >= ENTRIES_KEPT) {
		tables.clear();
	}
	tables[local_name] = table;
	return transaction.Keep(std::move(table));
}

optional_ptr<CatalogEntry> RemoteSchema::LookupEntry(CatalogTransaction transaction,
                                                     const EntryLookupInfo &lookup_info) {
	if (!transaction.HasContext()) {
		return nullptr;
	}
	auto &context = transaction.GetContext();
	switch (lookup_info.GetCatalogType()) {
	case CatalogType::TABLE_ENTRY:
		return LookupTable(context, lookup_info);
	case CatalogType::SCHEMA_ENTRY: {
		auto path = GetSchemaPath();
		path.push_back(lookup_info.GetEntryIdentifier());
		return remote_catalog.FindSchema(transaction, path).get();
	}
	case CatalogType::TYPE_ENTRY:
		return LookupDefinition(context, DhType, lookup_info);
	case CatalogType::SCALAR_FUNCTION_ENTRY:
	case CatalogType::AGGREGATE_FUNCTION_ENTRY:
	case CatalogType::WINDOW_FUNCTION_ENTRY:
	case CatalogType::MACRO_ENTRY:
		return LookupDefinition(context, DhMacro, lookup_info);
	case CatalogType::TABLE_FUNCTION_ENTRY:
	case CatalogType::TABLE_MACRO_ENTRY:
		return LookupDefinition(context, DhTableMacro, lookup_info);
	default:
		return nullptr;
	}
}

optional_ptr<CatalogEntry> RemoteSchema::LookupTable(ClientContext &context, const EntryLookupInfo &lookup_info) {
	auto schema_path = GetSchemaPath();
	auto table_name = lookup_info.GetEntryName();
	auto is_alias = ResolveAlias(remote_catalog, schema_path, table_name);
	auto remote_path = is_alias ? SchemaPathSql(schema_path) : path_sql;
	// The pushdown optimizer asks, without a place in the query, only whether the table exists: the server will find out
	// itself if that is no longer so. The binder goes on to use the columns, so these must be current.
	auto validate = lookup_info.GetErrorContext().query_location.IsValid();
	auto described = make_shared_ptr<TablesHandle>();
	auto found = Check([&](DhBuffer *error) {
		return Api().lookup_table(remote_catalog.Session(context), Text(remote_path), Text(table_name), validate,
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

//! Whether DuckDB itself has a function or type of that name, which is then the one that is meant here.
static bool IsBuiltIn(ClientContext &context, const EntryLookupInfo &lookup_info) {
	auto &system = Catalog::GetSystemCatalog(context);
	auto &schema = system.GetSchema(context, Identifier::DefaultSchema());
	return schema.GetEntry(system.GetCatalogTransaction(context), lookup_info.GetCatalogType(),
	                       lookup_info.GetEntryIdentifier()) != nullptr;
}

optional_ptr<CatalogEntry> RemoteSchema::LookupDefinition(ClientContext &context, DhDefinitionKind kind,
                                                          const EntryLookupInfo &lookup_info) {
	// DuckDB asks for every function and type of a statement, if the duckling is its default database.
	if (IsBuiltIn(context, lookup_info)) {
		return nullptr;
	}
	auto &transaction = RemoteTransaction::Get(context, remote_catalog);
	auto validate = transaction.IsFirstLookup(context);
	auto described = make_shared_ptr<DefinitionsHandle>();
	auto name = lookup_info.GetEntryName();
	auto found_there = Check([&](DhBuffer *error) {
		return Api().lookup_definition(remote_catalog.Session(context), kind, Text(path_sql), Text(name), validate,
		                               InterruptOf(context), described->Slot(), error);
	});
	if (!found_there) {
		return nullptr;
	}
	DhDefinitionView view;
	Api().definitions_get(described->Get(), 0, &view);
	KnownDefinition known;
	{
		lock_guard<mutex> guard(lock);
		auto &of_kind = definitions[kind];
		auto found = of_kind.find(lookup_info.GetEntryIdentifier());
		if (found != of_kind.end() && found->second.identity == view.identity) {
			known = found->second;
		}
	}
	if (!known.described) {
		known = KnownDefinition {described, view.identity, MakeBindable(context, *this, kind, *described, 0)};
		lock_guard<mutex> guard(lock);
		auto &of_kind = definitions[kind];
		if (of_kind.size() >= ENTRIES_KEPT) {
			of_kind.clear();
		}
		of_kind[lookup_info.GetEntryIdentifier()] = known;
	}
	return known.entry ? &transaction.Keep(known.entry) : nullptr;
}

SimilarCatalogEntry RemoteSchema::GetSimilarEntry(CatalogTransaction transaction, const EntryLookupInfo &lookup_info) {
	try {
		return SchemaCatalogEntry::GetSimilarEntry(transaction, lookup_info);
	} catch (std::exception &) {
		return SimilarCatalogEntry();
	}
}

void RemoteSchema::Scan(ClientContext &context, CatalogType type,
                        const std::function<void(CatalogEntry &)> &callback) {
	switch (type) {
	case CatalogType::TABLE_ENTRY:
	case CatalogType::VIEW_ENTRY:
		return ScanTables(context, type, callback);
	case CatalogType::SEQUENCE_ENTRY:
		return ScanDefinitions(context, DhSequence, callback);
	case CatalogType::INDEX_ENTRY:
		return ScanDefinitions(context, DhIndex, callback);
	case CatalogType::TYPE_ENTRY:
		return ScanDefinitions(context, DhType, callback);
	case CatalogType::SCALAR_FUNCTION_ENTRY:
	case CatalogType::MACRO_ENTRY:
		return ScanDefinitions(context, DhMacro, callback);
	case CatalogType::TABLE_FUNCTION_ENTRY:
	case CatalogType::TABLE_MACRO_ENTRY:
		return ScanDefinitions(context, DhTableMacro, callback);
	default:
		return;
	}
}

void RemoteSchema::ScanTables(ClientContext &context, CatalogType type,
                              const std::function<void(CatalogEntry &)> &callback) {
	auto &transaction = RemoteTransaction::Get(context, remote_catalog);
	auto described = transaction.Tables(context);
	// Tables by name, as DuckDB lists them; views as they were made, since they may use each other.
	vector<shared_ptr<RemoteTable>> listed;
	vector<shared_ptr<CatalogEntry>> views;
	identifier_set_t names;
	for (idx_t i = 0; i < Api().tables_len(described->Get()); i++) {
		DhTableView view;
		Api().tables_get(described->Get(), i, &view);
		if (!StringUtil::CIEquals(path_sql, String(view.schema_path))) {
			continue;
		}
		auto entry = view.is_view ? MakeView(context, *this, described, i) : nullptr;
		if (entry) {
			views.push_back(std::move(entry));
		} else if (type == CatalogType::TABLE_ENTRY) {
			// A view that cannot be read here is listed as what it can be used as.
			auto name = Identifier(String(view.table_name));
			names.insert(name);
			listed.push_back(
			    RemoteTable::Make(context, remote_catalog, *this, name, described, i, TablePurpose::LISTING));
		}
	}
	std::sort(listed.begin(), listed.end(),
	          [](const shared_ptr<RemoteTable> &left, const shared_ptr<RemoteTable> &right) {
		          return left->name < right->name;
	          });
	for (auto &table : listed) {
		// DuckDB would wait forever for the one that such a key refers to.
		table->DropForeignKeysExceptTo(names);
		callback(transaction.Keep(std::move(table)));
	}
	for (auto &view : views) {
		callback(transaction.Keep(std::move(view)));
	}
}

void RemoteSchema::ScanDefinitions(ClientContext &context, DhDefinitionKind kind,
                                   const std::function<void(CatalogEntry &)> &callback) {
	auto &transaction = RemoteTransaction::Get(context, remote_catalog);
	auto listed = transaction.Definitions(context, kind);
	DhDefinitionView view;
	for (idx_t i = 0; Api().definitions_get(listed->Get(), i, &view) == DhOk; i++) {
		if (!StringUtil::CIEquals(path_sql, String(view.schema_path))) {
			continue;
		}
		auto entry = MakeDefinition(context, *this, kind, *listed, i);
		if (entry) {
			callback(transaction.Keep(std::move(entry)));
		}
	}
}

void RemoteSchema::Scan(CatalogType, const std::function<void(CatalogEntry &)> &) {
	// Without a connection there is no session to ask.
}

//! Ships the SQL of a definition, named as the server knows it.
template <class INFO>
static void Ship(RemoteCatalog &catalog, CatalogTransaction transaction, const SchemaCatalogEntry &schema,
                 const INFO &info) {
	auto copy = info.Copy();
	copy->SetQualifiedName(QualifiedName(schema.GetSchemaPath(), info.GetQualifiedName().Name()));
	catalog.Execute(transaction, copy->ToString());
}

optional_ptr<CatalogEntry> RemoteSchema::CreateIndex(CatalogTransaction transaction, CreateIndexInfo &info,
                                                     TableCatalogEntry &) {
	Ship<CreateInfo>(remote_catalog, transaction, *this, info);
	return nullptr;
}

optional_ptr<CatalogEntry> RemoteSchema::CreateFunction(CatalogTransaction transaction, CreateFunctionInfo &info) {
	Ship<CreateInfo>(remote_catalog, transaction, *this, info);
	return nullptr;
}

optional_ptr<CatalogEntry> RemoteSchema::CreateTable(CatalogTransaction transaction, BoundCreateTableInfo &info) {
	Ship<CreateInfo>(remote_catalog, transaction, *this, info.Base());
	return nullptr;
}

optional_ptr<CatalogEntry> RemoteSchema::CreateView(CatalogTransaction transaction, CreateViewInfo &info) {
	Ship<CreateInfo>(remote_catalog, transaction, *this, info);
	return nullptr;
}

optional_ptr<CatalogEntry> RemoteSchema::CreateSequence(CatalogTransaction transaction, CreateSequenceInfo &info) {
	Ship<CreateInfo>(remote_catalog, transaction, *this, info);
	return nullptr;
}

optional_ptr<CatalogEntry> RemoteSchema::CreateType(CatalogTransaction transaction, CreateTypeInfo &info) {
	Ship<CreateInfo>(remote_catalog, transaction, *this, info);
	return nullptr;
}

void RemoteSchema::DropEntry(ClientContext &context, DropInfo &info) {
	Ship(remote_catalog, remote_catalog.GetCatalogTransaction(context), *this, info);
}

void RemoteSchema::Alter(CatalogTransaction transaction, AlterInfo &info) {
	Ship(remote_catalog, transaction, *this, info);
}

} // namespace duckherder
