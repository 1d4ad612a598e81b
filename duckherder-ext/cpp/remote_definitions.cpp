#include "remote_definitions.hpp"

#include "macro_body.hpp"
#include "remote_catalog.hpp"
#include "remote_schema.hpp"

#include "duckdb/catalog/catalog.hpp"
#include "duckdb/catalog/catalog_entry/index_catalog_entry.hpp"
#include "duckdb/catalog/catalog_entry/macro_catalog_entry.hpp"
#include "duckdb/catalog/catalog_entry/sequence_catalog_entry.hpp"
#include "duckdb/catalog/catalog_entry/table_catalog_entry.hpp"
#include "duckdb/catalog/catalog_entry/trigger_catalog_entry.hpp"
#include "duckdb/catalog/catalog_entry/type_catalog_entry.hpp"
#include "duckdb/catalog/catalog_entry/view_catalog_entry.hpp"
#include "duckdb/common/type_visitor.hpp"
#include "duckdb/parser/expression/columnref_expression.hpp"
#include "duckdb/parser/parsed_data/create_index_info.hpp"
#include "duckdb/parser/parsed_data/create_macro_info.hpp"
#include "duckdb/parser/parsed_data/create_sequence_info.hpp"
#include "duckdb/parser/parsed_data/create_trigger_info.hpp"
#include "duckdb/parser/parsed_data/create_type_info.hpp"
#include "duckdb/parser/parsed_data/create_view_info.hpp"
#include "duckdb/parser/parsed_expression_iterator.hpp"
#include "duckdb/parser/parser.hpp"
#include "duckdb/parser/statement/create_statement.hpp"
#include "duckdb/planner/binder.hpp"

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

//! A sequence with where it began, as listings have it; its definition begins where it has got to.
class RemoteSequence : public SequenceCatalogEntry {
public:
	RemoteSequence(Catalog &catalog, SchemaCatalogEntry &schema, CreateSequenceInfo &listed,
	               unique_ptr<CreateInfo> definition, string definition_sql)
	    : SequenceCatalogEntry(catalog, schema, listed), definition(std::move(definition)),
	      definition_sql(std::move(definition_sql)) {
	}

	string ToSQL() const override {
		return definition_sql;
	}
	unique_ptr<CreateInfo> GetInfo() const override {
		return definition->Copy();
	}

private:
	unique_ptr<CreateInfo> definition;
	string definition_sql;
};

shared_ptr<CatalogEntry> MakeSequence(SchemaCatalogEntry &schema, unique_ptr<CreateInfo> info,
                                      const DhDefinitionView &view) {
	auto listed = unique_ptr_cast<CreateInfo, CreateSequenceInfo>(info->Copy());
	listed->start_value = view.start_value;
	if (view.has_last_value) {
		listed->usage_count = 1;
		listed->last_value = view.last_value;
	}
	return make_shared_ptr<RemoteSequence>(schema.catalog, schema, *listed, std::move(info),
	                                       String(view.definition_sql));
}

//! The columns that an index is on, in the order of its expressions.
vector<column_t> IndexedColumns(const CreateIndexInfo &index, const TableCatalogEntry &table) {
	vector<column_t> result;
	for (auto &expression : index.parsed_expressions) {
		ParsedExpressionIterator::VisitExpression<ColumnRefExpression>(
		    *expression, [&](const ColumnRefExpression &column) {
			    if (!table.ColumnExists(column.GetColumnName())) {
				    return;
			    }
			    auto id = table.GetColumn(column.GetColumnName()).StorageOid();
			    if (std::find(result.begin(), result.end(), id) == result.end()) {
				    result.push_back(id);
			    }
		    });
	}
	return result;
}

shared_ptr<CatalogEntry> MakeIndex(ClientContext &context, RemoteSchema &schema, CreateInfo &info,
                                   const DhDefinitionView &view) {
	auto &index = info.Cast<CreateIndexInfo>();
	index.table = Identifier(String(view.table_name));
	index.sql = String(view.definition_sql);
	auto table = schema.GetEntry(schema.GetCatalogTransaction(context), CatalogType::TABLE_ENTRY, index.table);
	if (!table) {
		return nullptr;
	}
	index.column_ids = IndexedColumns(index, table->Cast<TableCatalogEntry>());
	return make_shared_ptr<RemoteIndex>(schema.catalog, schema, index);
}

//! Replaces what a text has named by the type that it names in the duckling's schema; false if it is not known here.
bool TryBindType(ClientContext &context, RemoteSchema &schema, LogicalType &type) {
	try {
		auto binder = Binder::CreateBinder(context);
		binder->SetSearchPath(schema.catalog, schema.name);
		binder->BindLogicalType(type);
		return true;
	} catch (std::exception &error) { // NOLINT: it is not known here
		if (ErrorData(error).Type() == ExceptionType::INTERRUPT) {
			throw;
		}
		return false;
	}
}

shared_ptr<CatalogEntry> MakeType(ClientContext &context, RemoteSchema &schema, CreateInfo &info) {
	auto &type = info.Cast<CreateTypeInfo>();
	if (type.query || !TryBindType(context, schema, type.type)) {
		return nullptr;
	}
	return make_shared_ptr<TypeCatalogEntry>(schema.catalog, schema, type);
}

//! The types of a macro's parameters.
bool TryBindParameters(ClientContext &context, RemoteSchema &schema, MacroFunction &macro) {
	for (auto &type : macro.types) {
		if (type.id() == LogicalTypeId::UNBOUND && !TryBindType(context, schema, type)) {
			return false;
		}
	}
	return true;
}

shared_ptr<CatalogEntry> MakeMacro(ClientContext &context, RemoteSchema &schema, CreateInfo &info) {
	auto &macro = info.Cast<CreateMacroInfo>();
	for (auto &overload : macro.macros) {
		if (!TryBindParameters(context, schema, *overload)) {
			return nullptr;
		}
	}
	return macro.macros.empty() ? nullptr
	                            : shared_ptr<CatalogEntry>(MacroCatalogEntry::Create(schema.catalog, schema, macro));
}

CatalogType TypeOf(DhDefinitionKind kind) {
	switch (kind) {
	case DhSequence:
		return CatalogType::SEQUENCE_ENTRY;
	case DhIndex:
		return CatalogType::INDEX_ENTRY;
	case DhType:
		return CatalogType::TYPE_ENTRY;
	case DhMacro:
		return CatalogType::MACRO_ENTRY;
	case DhTableMacro:
		return CatalogType::TABLE_MACRO_ENTRY;
	}
	return CatalogType::INVALID;
}

void SetComment(CreateInfo &info, bool has_comment, const DhText &comment) {
	if (has_comment) {
		info.comment = Value(String(comment));
	}
}

//! The parsed definition, named as it is here; null if this DuckDB cannot read it, or it is something else.
unique_ptr<CreateInfo> Parse(ClientContext &context, SchemaCatalogEntry &schema, const DhDefinitionView &view,
                             CatalogType type) {
	auto info = TryParseDefinition(context, String(view.definition_sql));
	if (!info || info->type != type) {
		return nullptr;
	}
	info->SetQualifiedName(schema.GetQualifiedName(Identifier(String(view.name))));
	SetComment(*info, view.has_comment, view.comment);
	return info;
}

unique_ptr<CreateInfo> Parse(ClientContext &context, SchemaCatalogEntry &schema, DhDefinitionKind kind,
                             const DefinitionsHandle &described, idx_t index, DhDefinitionView &view) {
	Api().definitions_get(described.Get(), index, &view);
	auto info = Parse(context, schema, view, TypeOf(kind));
	DhText name, value;
	for (idx_t i = 0; info && i < view.tags_len; i++) {
		Api().definitions_tag(described.Get(), index, i, &name, &value);
		info->tags[String(name)] = String(value);
	}
	return info;
}

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

idx_t LocalOid(Catalog &catalog, uint64_t remote_oid) {
	// DuckDB shows it as BIGINT, and small numbers are taken by its own.
	return (idx_t(1) << 61) | ((catalog.GetOid() & 0xfffff) << 40) | (remote_oid & 0xffffffffff);
}

shared_ptr<CatalogEntry> MakeView(ClientContext &context, RemoteSchema &schema,
                                  const shared_ptr<TablesHandle> &described, idx_t index) {
	DhTableView view;
	Api().tables_get(described->Get(), index, &view);
	auto info = TryParseDefinition(context, String(view.definition_sql));
	if (!info || info->type != CatalogType::VIEW_ENTRY) {
		return nullptr;
	}
	info->SetQualifiedName(schema.GetQualifiedName(Identifier(String(view.table_name))));
	SetComment(*info, view.has_comment, view.comment);
	auto &view_info = info->Cast<CreateViewInfo>();
	vector<LogicalType> types;
	vector<Identifier> names;
	for (idx_t i = 0; i < view.columns_len; i++) {
		DhColumnView column;
		Api().tables_column(described->Get(), index, i, &column);
		LogicalType type;
		types.push_back(TryParseType(context, String(column.type_text), type) ? type : LogicalType::VARCHAR);
		names.emplace_back(String(column.name));
		if (column.has_comment) {
			view_info.column_comments_map[names.back()] = Value(String(column.comment));
		}
	}
	auto entry = make_shared_ptr<ViewCatalogEntry>(schema.catalog, schema, view_info);
	if (!types.empty()) {
		// Else it can be bound on the server as little as here.
		entry->UpdateBinding(types, names);
	}
	entry->oid = LocalOid(schema.catalog, view.oid);
	return entry;
}

shared_ptr<CatalogEntry> MakeDefinition(ClientContext &context, RemoteSchema &schema, DhDefinitionKind kind,
                                        const DefinitionsHandle &described, idx_t index) {
	DhDefinitionView view;
	auto info = Parse(context, schema, kind, described, index, view);
	if (!info) {
		return nullptr;
	}
	shared_ptr<CatalogEntry> entry;
	switch (kind) {
	case DhSequence:
		entry = MakeSequence(schema, std::move(info), view);
		break;
	case DhIndex:
		entry = MakeIndex(context, schema, *info, view);
		break;
	case DhType:
		entry = MakeType(context, schema, *info);
		break;
	case DhMacro:
	case DhTableMacro:
		entry = MakeMacro(context, schema, *info);
		break;
	}
	if (entry) {
		entry->oid = LocalOid(schema.catalog, view.oid);
	}
	return entry;
}

shared_ptr<CatalogEntry> MakeTrigger(ClientContext &context, SchemaCatalogEntry &schema,
                                     const DhDefinitionView &view) {
	auto info = Parse(context, schema, view, CatalogType::TRIGGER_ENTRY);
	if (!info) {
		return nullptr;
	}
	auto entry = make_shared_ptr<TriggerCatalogEntry>(schema.catalog, schema, info->Cast<CreateTriggerInfo>());
	entry->oid = LocalOid(schema.catalog, view.oid);
	return entry;
}

shared_ptr<CatalogEntry> MakeBindable(ClientContext &context, RemoteSchema &schema, DhDefinitionKind kind,
                                      const DefinitionsHandle &described, idx_t index) {
	DhDefinitionView view;
	auto info = Parse(context, schema, kind, described, index, view);
	if (!info) {
		return nullptr;
	}
	shared_ptr<CatalogEntry> entry;
	if (kind == DhType) {
		entry = MakeType(context, schema, *info);
	} else if (MacroBody(context, schema).Qualify(info->Cast<CreateMacroInfo>())) {
		entry = MakeMacro(context, schema, *info);
	}
	if (entry) {
		entry->oid = LocalOid(schema.catalog, view.oid);
	}
	return entry;
}

} // namespace duckherder
