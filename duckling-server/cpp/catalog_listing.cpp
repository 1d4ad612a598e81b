#include "catalog_listing.hpp"

#include "herd_bridge.hpp"
#include "herd_json.hpp"
#include "type_text.hpp"

#include "duckdb/catalog/catalog.hpp"
#include "duckdb/catalog/catalog_entry/index_catalog_entry.hpp"
#include "duckdb/catalog/catalog_entry/schema_catalog_entry.hpp"
#include "duckdb/catalog/catalog_entry/sequence_catalog_entry.hpp"
#include "duckdb/catalog/catalog_entry/table_catalog_entry.hpp"
#include "duckdb/catalog/catalog_entry/trigger_catalog_entry.hpp"
#include "duckdb/catalog/catalog_entry/view_catalog_entry.hpp"
#include "duckdb/main/database_manager.hpp"
#include "duckdb/parser/constraints/not_null_constraint.hpp"
#include "duckdb/parser/expression/star_expression.hpp"
#include "duckdb/parser/query_node/select_node.hpp"
#include "duckdb/parser/statement/select_statement.hpp"
#include "duckdb/parser/tableref/basetableref.hpp"
#include "duckdb/parser/tableref/showref.hpp"
#include "duckdb/planner/binder.hpp"
#include "duckdb/planner/operator/logical_column_data_get.hpp"
#include "duckdb/storage/table_storage_info.hpp"

namespace duckling {

using namespace duckdb;
using herd::JsonList;
using herd::JsonText;

namespace {

string JsonName(const Identifier &name) {
	return JsonText(name.GetIdentifierName());
}

const char *JsonFlag(bool value) {
	return value ? "true" : "false";
}

//! A text that may be missing.
string JsonOptional(const Value &value) {
	return value.IsNull() ? "null" : JsonText(value.ToString());
}

string JsonTags(const InsertionOrderPreservingMap<string> &tags) {
	string result = "{";
	for (auto &tag : tags) {
		result += (result.size() > 1 ? "," : "") + JsonText(tag.first) + ":" + JsonText(tag.second);
	}
	return result + "}";
}

string JsonPath(const SchemaCatalogEntry &schema) {
	auto path = schema.GetSchemaPath();
	return JsonList(path.size(), [&](idx_t i) { return JsonName(path[i]); });
}

//! What all entries have.
string JsonEntry(const CatalogEntry &entry, const SchemaCatalogEntry &schema, const string &sql) {
	return "\"schema_path\":" + JsonPath(schema) + ",\"name\":" + JsonName(entry.name) +
	       ",\"oid\":" + to_string(entry.oid) + ",\"comment\":" + JsonOptional(entry.comment) +
	       ",\"tags\":" + JsonTags(entry.tags) + ",\"sql\":" + JsonText(sql);
}

string JsonColumn(const Identifier &name, const LogicalType &type, bool not_null, const string &default_sql,
                  const Value &comment) {
	return "{\"name\":" + JsonName(name) + ",\"type_text\":" + JsonText(duckherder::TypeText(type)) +
	       ",\"not_null\":" + JsonFlag(not_null) + ",\"default_sql\":" + default_sql +
	       ",\"comment\":" + JsonOptional(comment) + "}";
}

string DefaultOf(const ColumnDefinition &column) {
	if (column.Generated()) {
		return JsonText(column.GeneratedExpression().ToString());
	}
	return column.HasDefaultValue() ? JsonText(column.DefaultValue().ToString()) : "null";
}

string JsonColumns(const TableCatalogEntry &table) {
	logical_index_set_t not_null;
	for (auto &constraint : table.GetConstraints()) {
		if (constraint->type == ConstraintType::NOT_NULL) {
			not_null.insert(constraint->Cast<NotNullConstraint>().index);
		}
	}
	auto &columns = table.GetColumns();
	return JsonList(columns.LogicalColumnCount(), [&](idx_t i) {
		auto &column = columns.GetColumn(LogicalIndex(i));
		return JsonColumn(column.Name(), column.Type(), not_null.find(LogicalIndex(i)) != not_null.end(),
		                  DefaultOf(column), column.Comment());
	});
}

//! Null if there is none.
optional_ptr<ColumnDataCollection> FindRows(LogicalOperator &plan) {
	if (plan.type == LogicalOperatorType::LOGICAL_CHUNK_GET) {
		return *plan.Cast<LogicalColumnDataGet>().collection;
	}
	for (auto &child : plan.children) {
		if (auto rows = FindRows(*child)) {
			return rows;
		}
	}
	return nullptr;
}

//! What DESCRIBE says of a view's columns: for those that are a table's, also what the table says of them.
class DescribedView {
public:
	DescribedView(ClientContext &context, ViewCatalogEntry &view) {
		auto view_ref = make_uniq<BaseTableRef>();
		auto path = view.schema.GetSchemaPath();
		path.insert(path.begin(), view.catalog.GetName());
		view_ref->SetQualifiedName(QualifiedName(std::move(path), view.name));
		auto describe = make_uniq<ShowRef>();
		describe->show_type = ShowType::DESCRIBE;
		describe->query = SelectAll(std::move(view_ref));
		SelectStatement statement;
		statement.node = SelectAll(std::move(describe));
		try {
			plan = Binder::CreateBinder(context)->Bind(statement.Cast<SQLStatement>()).plan;
			rows = FindRows(*plan);
		} catch (std::exception &) { // NOLINT: what it had when it was bound last is still known
		}
	}

	bool IsNotNull(idx_t column) const {
		return Get(column, 2) == "NO";
	}
	string Key(idx_t column) const {
		return Get(column, 3);
	}
	string Default(idx_t column) const {
		return Get(column, 4);
	}

private:
	static unique_ptr<SelectNode> SelectAll(unique_ptr<TableRef> from) {
		auto node = make_uniq<SelectNode>();
		node->select_list.push_back(make_uniq<StarExpression>());
		node->from_table = std::move(from);
		return node;
	}

	string Get(idx_t column, idx_t fact) const {
		auto value = rows && column < rows->Count() ? rows->GetValue(fact, column) : Value();
		return value.IsNull() ? string() : value.ToString();
	}

	unique_ptr<LogicalOperator> plan;
	optional_ptr<ColumnDataCollection> rows;
};

string JsonColumns(ViewCatalogEntry &view, const ViewColumnInfo &columns, const DescribedView &described) {
	return JsonList(columns.types.size(), [&](idx_t i) {
		auto &name = i < view.aliases.size() ? view.aliases[i] : columns.names[i];
		auto default_sql = described.Default(i);
		return JsonColumn(name, columns.types[i], described.IsNotNull(i),
		                  default_sql.empty() ? "null" : JsonText(default_sql), view.GetColumnComment(i));
	});
}

string JsonIndex(const vector<idx_t> &columns, bool is_primary_key) {
	return "{\"columns\":" + JsonList(columns.size(), [&](idx_t i) { return to_string(columns[i]); }) +
	       ",\"is_primary_key\":" + JsonFlag(is_primary_key) + "}";
}

string JsonUniqueIndexes(idx_t column_count, const DescribedView &described) {
	vector<string> keys;
	for (idx_t i = 0; i < column_count; i++) {
		auto key = described.Key(i);
		if (!key.empty()) {
			keys.push_back(JsonIndex({i}, key == "PRI"));
		}
	}
	return JsonList(keys.size(), [&](idx_t i) { return keys[i]; });
}

string JsonTriggers(ClientContext &context, const TableCatalogEntry &table) {
	vector<string> triggers;
	table.ScanTriggers(table.schema.catalog.GetCatalogTransaction(context), [&](CatalogEntry &entry) {
		triggers.push_back("{\"kind\":\"trigger\"," + JsonEntry(entry, table.schema, entry.ToSQL()) + "}");
	});
	return JsonList(triggers.size(), [&](idx_t i) { return triggers[i]; });
}

string JsonUniqueIndexes(const TableCatalogEntry &table, const vector<IndexInfo> &indexes) {
	vector<string> unique;
	for (auto &index : indexes) {
		if (!index.is_unique) {
			continue;
		}
		vector<idx_t> positions;
		for (auto &column : table.GetColumns().Physical()) {
			if (index.column_set.find(column.Physical().index) != index.column_set.end()) {
				positions.push_back(column.Logical().index);
			}
		}
		unique.push_back(JsonIndex(positions, index.is_primary));
	}
	return JsonList(unique.size(), [&](idx_t i) { return unique[i]; });
}

string DescribeTable(ClientContext &context, TableCatalogEntry &table) {
	auto storage = table.GetStorageInfo(context);
	auto info = table.GetInfo();
	info->StripCatalogQualification();
	auto rows = storage.cardinality.IsValid() ? to_string(storage.cardinality.GetIndex()) : "null";
	return "{\"is_view\":false," + JsonEntry(table, table.schema, info->ToString()) + ",\"estimated_rows\":" + rows +
	       ",\"index_count\":" + to_string(storage.index_info.size()) +
	       ",\"unique_indexes\":" + JsonUniqueIndexes(table, storage.index_info) + ",\"columns\":" + JsonColumns(table) +
	       ",\"triggers\":" + JsonTriggers(context, table) + "}";
}

string DescribeView(ClientContext &context, ViewCatalogEntry &view) {
	auto result = "{\"is_view\":true," + JsonEntry(view, view.schema, view.ToSQL());
	auto columns = view.GetColumnInfo();
	if (!columns) {
		return result + ",\"columns\":[]}";
	}
	DescribedView described(context, view);
	return result + ",\"unique_indexes\":" + JsonUniqueIndexes(columns->types.size(), described) +
	       ",\"columns\":" + JsonColumns(view, *columns, described) + "}";
}

Catalog &DefaultCatalog(ClientContext &context) {
	return Catalog::GetCatalog(context, DatabaseManager::GetDefaultDatabase(context));
}

optional_ptr<SchemaCatalogEntry> FindSchema(ClientContext &context, const vector<Identifier> &path) {
	if (path.empty()) {
		return nullptr;
	}
	auto &catalog = DefaultCatalog(context);
	return catalog.GetSchema(catalog.GetCatalogTransaction(context), path, OnEntryNotFound::RETURN_NULL);
}

//! The schemas that are not only DuckDB's own.
vector<reference<SchemaCatalogEntry>> OwnSchemas(ClientContext &context) {
	vector<reference<SchemaCatalogEntry>> result;
	for (auto &schema : DefaultCatalog(context).GetSchemas(context)) {
		if (!schema.get().internal || schema.get().name == Identifier::DefaultSchema()) {
			result.push_back(schema);
		}
	}
	return result;
}

//! The entries of all schemas that a scan for `type` finds, in the order in which they were made. They are looked at when
//! no lock is held any more.
vector<reference<CatalogEntry>> EntriesOf(ClientContext &context, CatalogType type) {
	vector<reference<CatalogEntry>> result;
	for (auto &schema : OwnSchemas(context)) {
		schema.get().Scan(context, type, [&](CatalogEntry &entry) {
			if (!entry.internal) {
				result.push_back(entry);
			}
		});
	}
	std::sort(result.begin(), result.end(), [](const reference<CatalogEntry> &left, const reference<CatalogEntry> &right) {
		return left.get().oid < right.get().oid;
	});
	return result;
}

string DescribeListed(ClientContext &context, CatalogEntry &entry) {
	if (entry.type == CatalogType::TABLE_ENTRY) {
		return DescribeTable(context, entry.Cast<TableCatalogEntry>());
	}
	auto &view = entry.Cast<ViewCatalogEntry>();
	try {
		view.BindView(context);
	} catch (std::exception &) { // NOLINT: it is listed without columns
	}
	return DescribeView(context, view);
}

struct Kind {
	const char *name;
	//! What is scanned for, and is the type of what is listed.
	CatalogType type;
};

constexpr Kind KINDS[] = {{"sequence", CatalogType::SEQUENCE_ENTRY},
                          {"index", CatalogType::INDEX_ENTRY},
                          {"type", CatalogType::TYPE_ENTRY},
                          {"macro", CatalogType::MACRO_ENTRY},
                          {"table_macro", CatalogType::TABLE_MACRO_ENTRY}};

string DescribeDefinition(const Kind &kind, const CatalogEntry &entry) {
	auto result = "{\"kind\":" + JsonText(kind.name) + "," + JsonEntry(entry, entry.ParentSchema(), entry.ToSQL());
	if (entry.type == CatalogType::SEQUENCE_ENTRY) {
		auto data = entry.Cast<SequenceCatalogEntry>().GetData();
		result += ",\"start_value\":" + to_string(data.start_value);
		// As `duckdb_sequences()` has it.
		if (data.usage_count > 0 && data.last_value) {
			result += ",\"last_value\":" + to_string(*data.last_value);
		}
	} else if (entry.type == CatalogType::INDEX_ENTRY) {
		result += ",\"table_name\":" + JsonName(entry.Cast<IndexCatalogEntry>().GetTableName());
	}
	return result + "}";
}

//! In a transaction that was aborted too: what cannot be bound fails there with its own error, as in DuckDB.
void Look(ClientContext &context, const std::function<void()> &look) {
	context.RunFunctionInTransaction(look, false);
}

} // namespace

string LookupTable(ClientContext &context, const vector<Identifier> &schema_path, const Identifier &name) {
	string result = "null";
	// Not found is no error: that would abort the session's transaction.
	Look(context, [&]() {
		auto schema = FindSchema(context, schema_path);
		if (!schema) {
			return;
		}
		auto entry = schema->GetEntry(schema->GetCatalogTransaction(context), CatalogType::TABLE_ENTRY, name);
		if (!entry || entry->internal) {
			return;
		}
		if (entry->type == CatalogType::TABLE_ENTRY) {
			result = DescribeTable(context, entry->Cast<TableCatalogEntry>());
		} else if (entry->type == CatalogType::VIEW_ENTRY) {
			auto &view = entry->Cast<ViewCatalogEntry>();
			view.BindView(context, BindViewAction::FORCE_REBIND);
			result = DescribeView(context, view);
		}
	});
	return result;
}

bool SchemaExists(ClientContext &context, const vector<Identifier> &schema_path) {
	auto result = false;
	Look(context, [&]() { result = FindSchema(context, schema_path) != nullptr; });
	return result;
}

string ListTables(ClientContext &context) {
	string result;
	Look(context, [&]() {
		auto schemas = OwnSchemas(context);
		auto entries = EntriesOf(context, CatalogType::TABLE_ENTRY);
		result = "{\"schemas\":" + JsonList(schemas.size(), [&](idx_t i) { return JsonPath(schemas[i].get()); });
		result += ",\"tables\":";
		result += JsonList(entries.size(), [&](idx_t i) { return DescribeListed(context, entries[i].get()); });
		result += "}";
	});
	return result;
}

string ListDefinitions(ClientContext &context, const vector<string> &kinds) {
	vector<string> definitions;
	Look(context, [&]() {
		for (auto &kind : KINDS) {
			if (std::find(kinds.begin(), kinds.end(), kind.name) == kinds.end()) {
				continue;
			}
			for (auto &entry : EntriesOf(context, kind.type)) {
				if (entry.get().type == kind.type) {
					definitions.push_back(DescribeDefinition(kind, entry.get()));
				}
			}
		}
	});
	return JsonList(definitions.size(), [&](idx_t i) { return definitions[i]; });
}

} // namespace duckling

namespace {

duckdb::vector<duckdb::Identifier> Path(HerdText text) {
	return duckdb::QualifiedName::ParseComponents(herd::StringOf(text));
}

} // namespace

extern "C" {

char *duckling_lookup_table(void *connection, HerdText schema_path, HerdText name, char **description) {
	return herd::Caught([&]() {
		auto &context = herd::ContextOf(connection);
		auto table_name = duckdb::Identifier(herd::StringOf(name));
		*description = strdup(duckling::LookupTable(context, Path(schema_path), table_name).c_str());
	});
}

char *duckling_schema_exists(void *connection, HerdText schema_path, bool *exists) {
	return herd::Caught(
	    [&]() { *exists = duckling::SchemaExists(herd::ContextOf(connection), Path(schema_path)); });
}

char *duckling_list_tables(void *connection, char **description) {
	return herd::Caught(
	    [&]() { *description = strdup(duckling::ListTables(herd::ContextOf(connection)).c_str()); });
}

char *duckling_list_definitions(void *connection, HerdText kinds, char **description) {
	return herd::Caught([&]() {
		auto names = duckdb::StringUtil::Split(herd::StringOf(kinds), ',');
		*description = strdup(duckling::ListDefinitions(herd::ContextOf(connection), names).c_str());
	});
}
}
