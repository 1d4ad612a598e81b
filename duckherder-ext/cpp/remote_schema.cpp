#include "remote_schema.hpp"

#include "alias_rewriter.hpp"
#include "remote_catalog.hpp"
#include "remote_transaction.hpp"

#include "duckdb/parser/parsed_data/create_schema_info.hpp"
#include "duckdb/parser/parsed_data/create_table_info.hpp"
#include "duckdb/planner/parsed_data/bound_create_table_info.hpp"

namespace duckherder {

using namespace duckdb;

RemoteSchema::RemoteSchema(RemoteCatalog &catalog, CreateSchemaInfo &info)
    : SchemaCatalogEntry(catalog, info), remote_catalog(catalog) {
}

CatalogEntry &RemoteSchema::Entry(ClientContext &context, const shared_ptr<TablesHandle> &described, idx_t index) {
	DhTableView view;
	Api().tables_get(described->Get(), index, &view);
	Identifier table_name(String(view.table_name));
	auto &transaction = RemoteTransaction::Get(context, remote_catalog);
	{
		lock_guard<mutex> guard(lock);
		auto known = tables[table_name].lock();
		if (known && known->Identity() == view.identity) {
			return transaction.Keep(std::move(known));
		}
	}
	auto table = RemoteTable::Make(context, remote_catalog, *this, described, index);
	lock_guard<mutex> guard(lock);
	tables[table_name] = table;
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
	ResolveAlias(remote_catalog, schema_name, table_name);
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
	return Entry(context, described, 0);
}

void RemoteSchema::Scan(ClientContext &context, CatalogType type,
                        const std::function<void(CatalogEntry &)> &callback) {
	if (type != CatalogType::TABLE_ENTRY) {
		return;
	}
	auto described = make_shared_ptr<TablesHandle>();
	Check([&](DhBuffer *error) {
		return Api().list_tables(remote_catalog.Session(context), InterruptOf(context), described->Slot(), error);
	});
	for (idx_t i = 0; i < Api().tables_len(described->Get()); i++) {
		DhTableView view;
		Api().tables_get(described->Get(), i, &view);
		if (name == String(view.schema_name)) {
			callback(Entry(context, described, i));
		}
	}
}

void RemoteSchema::Scan(CatalogType, const std::function<void(CatalogEntry &)> &) {
	// Without a connection there is no session to ask.
}

optional_ptr<CatalogEntry> RemoteSchema::CreateIndex(CatalogTransaction, CreateIndexInfo &, TableCatalogEntry &) {
	ThrowLocalRowsNotSupported("CREATE INDEX");
}

optional_ptr<CatalogEntry> RemoteSchema::CreateFunction(CatalogTransaction, CreateFunctionInfo &) {
	ThrowLocalRowsNotSupported("CREATE FUNCTION");
}

optional_ptr<CatalogEntry> RemoteSchema::CreateTable(CatalogTransaction transaction, BoundCreateTableInfo &info) {
	// What gets here is CREATE TABLE AS, of local rows, for a table that exists; all else is planned or sent whole.
	auto &base = info.Base();
	if (base.on_conflict == OnCreateConflict::ERROR_ON_CONFLICT) {
		throw CatalogException("Table with name \"%s\" already exists!", base.GetTableName().GetIdentifierName());
	}
	return LookupEntry(transaction, EntryLookupInfo(CatalogType::TABLE_ENTRY, QualifiedName(base.GetTableName())));
}

optional_ptr<CatalogEntry> RemoteSchema::CreateView(CatalogTransaction, CreateViewInfo &) {
	ThrowLocalRowsNotSupported("CREATE VIEW");
}

optional_ptr<CatalogEntry> RemoteSchema::CreateSequence(CatalogTransaction, CreateSequenceInfo &) {
	ThrowLocalRowsNotSupported("CREATE SEQUENCE");
}

optional_ptr<CatalogEntry> RemoteSchema::CreateType(CatalogTransaction, CreateTypeInfo &) {
	ThrowLocalRowsNotSupported("CREATE TYPE");
}

void RemoteSchema::DropEntry(ClientContext &, DropInfo &) {
	ThrowLocalRowsNotSupported("DROP");
}

void RemoteSchema::Alter(CatalogTransaction, AlterInfo &) {
	ThrowLocalRowsNotSupported("ALTER");
}

} // namespace duckherder
