#include "remote_definitions.hpp"

#include "duckdb/catalog/catalog.hpp"
#include "duckdb/catalog/catalog_entry/index_catalog_entry.hpp"
#include "duckdb/catalog/catalog_entry/sequence_catalog_entry.hpp"
#include "duckdb/catalog/catalog_entry/view_catalog_entry.hpp"
#include "duckdb/parser/parsed_data/create_index_info.hpp"
#include "duckdb/parser/parsed_data/create_sequence_info.hpp"
#include "duckdb/parser/parsed_data/create_view_info.hpp"
#include "duckdb/parser/parser.hpp"
#include "duckdb/parser/statement/create_statement.hpp"

namespace duckherder {

using namespace duckdb;

namespace {

class RemoteIndex : public IndexCatalogEntry {
public:
	RemoteIndex(Catalog &catalog, SchemaCatalogEntry &schema, CreateIndexInfo &info)
	    : IndexCatalogEntry(catalog, schema, info), table(info.table) {
	}

	Identifier GetSchemaName() const override {
		return schema.name;
	}
	Identifier GetTableName() const override {
		return table;
	}

private:
	Identifier table;
};

class RemoteSequence : public SequenceCatalogEntry {
public:
	RemoteSequence(Catalog &catalog, SchemaCatalogEntry &schema, CreateSequenceInfo &info, string definition_sql)
	    : SequenceCatalogEntry(catalog, schema, info), definition_sql(std::move(definition_sql)) {
	}

	//! As the server has it, with where it has got to.
	string ToSQL() const override {
		return definition_sql;
	}

private:
	string definition_sql;
};

} // namespace

unique_ptr<CreateInfo> TryParseDefinition(ClientContext &context, const string &sql) {
	try {
		Parser parser(context);
		parser.ParseQuery(sql);
		if (parser.statements.size() == 1 && parser.statements[0]->type == StatementType::CREATE_STATEMENT) {
			return std::move(parser.statements[0]->Cast<CreateStatement>().info);
		}
	} catch (std::exception &) { // NOLINT: whatever the server has must not keep the rest from being listed
	}
	return nullptr;
}

idx_t StableOid(CatalogType type, const Identifier &schema, const Identifier &name) {
	auto text = to_string(static_cast<uint8_t>(type)) + "." + StringUtil::Lower(schema.GetIdentifierName()) + "." +
	            StringUtil::Lower(name.GetIdentifierName());
	// DuckDB shows it as BIGINT, and small numbers are taken by its own.
	return (Hash(text.c_str(), text.size()) >> 2) | (idx_t(1) << 61);
}

shared_ptr<CatalogEntry> MakeView(ClientContext &context, SchemaCatalogEntry &schema,
                                  const shared_ptr<TablesHandle> &described, idx_t index) {
	DhTableView view;
	Api().tables_get(described->Get(), index, &view);
	auto info = TryParseDefinition(context, String(view.definition_sql));
	if (!info || info->type != CatalogType::VIEW_ENTRY) {
		return nullptr;
	}
	info->SetQualifiedName(QualifiedName(schema.catalog.GetName(), schema.name, Identifier(String(view.table_name))));
	if (view.comment.len > 0) {
		info->comment = Value(String(view.comment));
	}
	auto entry = make_shared_ptr<ViewCatalogEntry>(schema.catalog, schema, info->Cast<CreateViewInfo>());
	vector<LogicalType> types;
	vector<Identifier> names;
	for (idx_t i = 0; i < view.columns_len; i++) {
		DhColumnView column;
		Api().tables_column(described->Get(), index, i, &column);
		LogicalType type;
		types.push_back(TryParseType(context, String(column.type_text), type) ? type : LogicalType::VARCHAR);
		names.emplace_back(String(column.name));
	}
	entry->UpdateBinding(types, names);
	entry->oid = StableOid(CatalogType::TABLE_ENTRY, schema.name, entry->name);
	return entry;
}

shared_ptr<CatalogEntry> MakeDefinition(ClientContext &context, SchemaCatalogEntry &schema, const DhTableView &view) {
	auto info = TryParseDefinition(context, String(view.definition_sql));
	if (!info) {
		return nullptr;
	}
	info->SetQualifiedName(QualifiedName(schema.catalog.GetName(), schema.name, Identifier(String(view.table_name))));
	if (view.comment.len > 0) {
		info->comment = Value(String(view.comment));
	}
	shared_ptr<CatalogEntry> entry;
	switch (info->type) {
	case CatalogType::SEQUENCE_ENTRY:
		entry = make_shared_ptr<RemoteSequence>(schema.catalog, schema, info->Cast<CreateSequenceInfo>(),
		                                        String(view.definition_sql));
		break;
	case CatalogType::INDEX_ENTRY: {
		auto &index = info->Cast<CreateIndexInfo>();
		index.sql = String(view.definition_sql);
		entry = make_shared_ptr<RemoteIndex>(schema.catalog, schema, index);
		break;
	}
	default:
		return nullptr;
	}
	entry->oid = StableOid(info->type, schema.name, entry->name);
	return entry;
}

} // namespace duckherder
