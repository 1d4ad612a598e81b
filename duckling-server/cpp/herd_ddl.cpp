#include "herd_ddl.hpp"

#include "herd_json.hpp"
#include "herd_scan.hpp"

#include "duckdb/catalog/catalog.hpp"
#include "duckdb/catalog/catalog_entry/duck_index_entry.hpp"
#include "duckdb/catalog/catalog_entry/schema_catalog_entry.hpp"
#include "duckdb/catalog/catalog_entry/table_catalog_entry.hpp"
#include "duckdb/common/type_visitor.hpp"
#include "duckdb/main/attached_database.hpp"
#include "duckdb/main/database_manager.hpp"
#include "duckdb/main/client_context.hpp"
#include "duckdb/parser/constraints/foreign_key_constraint.hpp"
#include "duckdb/parser/constraints/unique_constraint.hpp"
#include "duckdb/parser/expression/cast_expression.hpp"
#include "duckdb/parser/expression/columnref_expression.hpp"
#include "duckdb/parser/expression/constant_expression.hpp"
#include "duckdb/parser/parsed_data/alter_table_info.hpp"
#include "duckdb/parser/parsed_data/create_index_info.hpp"
#include "duckdb/parser/parsed_data/create_table_info.hpp"
#include "duckdb/parser/parsed_data/create_trigger_info.hpp"
#include "duckdb/parser/parsed_data/drop_info.hpp"
#include "duckdb/parser/query_node/insert_query_node.hpp"
#include "duckdb/parser/statement/alter_statement.hpp"
#include "duckdb/parser/statement/create_statement.hpp"
#include "duckdb/parser/statement/drop_statement.hpp"
#include "duckdb/parser/statement/insert_statement.hpp"
#include "duckdb/parser/statement/multi_statement.hpp"
#include "duckdb/parser/statement/select_statement.hpp"
#include "duckdb/parser/tableref/basetableref.hpp"
#include "duckdb/planner/binder.hpp"
#include "duckdb/planner/operator/logical_alter.hpp"
#include "duckdb/planner/operator/logical_create_index.hpp"
#include "duckdb/planner/operator/logical_create_table.hpp"
#include "duckdb/planner/operator/logical_drop.hpp"
#include "duckdb/planner/parsed_data/bound_create_table_info.hpp"

namespace herd {

using namespace duckdb;

namespace {

string Quoted(const string &text) {
	return JsonText(text);
}

string Quoted(const Identifier &name) {
	return Quoted(name.GetIdentifierName());
}

const char *Flag(bool value) {
	return value ? "true" : "false";
}

template <class LIST, class WRITE>
string Array(const LIST &list, WRITE write) {
	string result = "[";
	for (auto &item : list) {
		if (result.size() > 1) {
			result += ",";
		}
		result += write(item);
	}
	return result + "]";
}

string Names(const vector<Identifier> &names) {
	return Array(names, [](const Identifier &name) { return Quoted(name); });
}

//! The members of a JSON object.
class Object {
public:
	Object &Raw(const char *key, const string &json) {
		members += members.empty() ? "" : ",";
		members += Quoted(string(key)) + ":" + json;
		return *this;
	}
	Object &Text(const char *key, const string &text) {
		return Raw(key, Quoted(text));
	}
	Object &Text(const char *key, const Identifier &name) {
		return Raw(key, Quoted(name));
	}
	Object &Bool(const char *key, bool value) {
		return Raw(key, Flag(value));
	}
	string ToString() const {
		return "{" + members + "}";
	}

private:
	string members;
};

string Nothing() {
	return Object().Text("kind", string("none")).ToString();
}

//! Whether it lies in the database that the server has opened: those that are attached besides are none of the herd's.
bool IsOwn(Catalog &catalog) {
	return DatabaseManager::Get(catalog.GetAttached()).GetDefaultDatabase() == catalog.GetName();
}

bool IsNested(const SchemaCatalogEntry &schema) {
	// [catalog, schema, name]
	return schema.GetQualifiedName(Identifier("t")).Path().size() > 3;
}

QualifiedName NameOnWorkers(const Identifier &schema, const Identifier &name) {
	return QualifiedName(vector<Identifier> {schema}, name);
}

//! Schema, name and placement of a table.
string Describe(const TableCatalogEntry &table) {
	Object result;
	result.Text("schema", table.schema.name).Text("name", table.name);
	auto placement = PlacementOf(table);
	result.Raw("placement", placement ? Quoted(*placement) : "null");
	return result.ToString();
}

optional_ptr<TableCatalogEntry> FindTable(ClientContext &context, const QualifiedName &name) {
	auto binder = Binder::CreateBinder(context);
	EntryLookupInfo lookup(CatalogType::TABLE_ENTRY, binder->BindTableName(name));
	auto entry = Catalog::GetEntry(context, lookup, OnEntryNotFound::RETURN_NULL);
	if (!entry || entry->type != CatalogType::TABLE_ENTRY) {
		return nullptr;
	}
	return entry->Cast<TableCatalogEntry>();
}

optional_ptr<TableCatalogEntry> FindHerdTable(ClientContext &context, const QualifiedName &name) {
	auto table = FindTable(context, name);
	return table && PlacementOf(*table) ? table : nullptr;
}

//! Types that a user has made are unknown to workers: what they are made of is not.
LogicalType Spelled(ClientContext &context, const LogicalType &type) {
	return TypeVisitor::VisitReplace(type, [&](const LogicalType &part) {
		if (!part.HasAlias()) {
			return part;
		}
		auto &system = Catalog::GetSystemCatalog(context);
		auto known = system.GetEntry(context, CatalogType::TYPE_ENTRY, Identifier::DefaultSchema(),
		                             Identifier(part.GetAlias()), OnEntryNotFound::RETURN_NULL);
		return known ? part : part.WithAlias("");
	});
}

//! Whether equal values of the type have equal hashes, now and in the next version's data files.
bool IsHashable(const LogicalType &type) {
	switch (type.id()) {
	case LogicalTypeId::BOOLEAN:
	case LogicalTypeId::TINYINT:
	case LogicalTypeId::SMALLINT:
	case LogicalTypeId::INTEGER:
	case LogicalTypeId::BIGINT:
	case LogicalTypeId::HUGEINT:
	case LogicalTypeId::UTINYINT:
	case LogicalTypeId::USMALLINT:
	case LogicalTypeId::UINTEGER:
	case LogicalTypeId::UBIGINT:
	case LogicalTypeId::UHUGEINT:
	case LogicalTypeId::FLOAT:
	case LogicalTypeId::DOUBLE:
	case LogicalTypeId::DECIMAL:
	case LogicalTypeId::BLOB:
	case LogicalTypeId::UUID:
	case LogicalTypeId::ENUM:
	case LogicalTypeId::DATE:
	case LogicalTypeId::TIME:
	case LogicalTypeId::TIMESTAMP:
	case LogicalTypeId::TIMESTAMP_SEC:
	case LogicalTypeId::TIMESTAMP_MS:
	case LogicalTypeId::TIMESTAMP_NS:
	case LogicalTypeId::TIMESTAMP_TZ:
		return true;
	case LogicalTypeId::VARCHAR:
		// Under a collation, values that are equal have different hashes.
		return StringType::GetCollation(type).empty();
	default:
		return false;
	}
}

vector<Identifier> ColumnsOf(const UniqueConstraint &constraint, const ColumnList &columns) {
	if (constraint.HasIndex()) {
		return {columns.GetColumn(constraint.GetIndex()).Name()};
	}
	return constraint.GetColumnNames();
}

//! What a CREATE TABLE would make, with exact types.
unique_ptr<BoundCreateTableInfo> BindTable(ClientContext &context, const CreateTableInfo &info) {
	auto copy = unique_ptr_cast<CreateInfo, CreateTableInfo>(info.Copy());
	copy->partition_keys.clear();
	copy->sort_keys.clear();
	copy->options.clear();
	auto binder = Binder::CreateBinder(context);
	return binder->BindCreateTableInfo(std::move(copy));
}

//! Columns and constraints as workers have them: defaults are filled in here.
string DefinitionOnWorkers(ClientContext &context, const CreateTableInfo &info) {
	ColumnList columns;
	for (auto &column : info.columns.Logical()) {
		auto copy = column.Copy();
		if (!copy.Generated()) {
			copy.SetDefaultValue(nullptr);
		}
		copy.SetType(Spelled(context, copy.GetType()));
		columns.AddColumn(std::move(copy));
	}
	return TableCatalogEntry::ColumnsToSQL(columns, info.constraints);
}

void DescribeColumns(ClientContext &context, const CreateTableInfo &info, Object &result) {
	vector<string> columns;
	for (auto &column : info.columns.Logical()) {
		Object described;
		described.Text("name", column.Name()).Text("type", column.GetType().ToString());
		described.Bool("hashable", IsHashable(column.GetType())).Bool("generated", column.Generated());
		columns.push_back(described.ToString());
	}
	result.Raw("columns", Array(columns, [](const string &column) { return column; }));
	vector<string> uniques;
	string primary_key = "null";
	for (auto &constraint : info.constraints) {
		if (constraint->type != ConstraintType::UNIQUE) {
			continue;
		}
		auto &unique = constraint->Cast<UniqueConstraint>();
		auto names = Names(ColumnsOf(unique, info.columns));
		uniques.push_back(names);
		if (unique.IsPrimaryKey()) {
			primary_key = names;
		}
	}
	result.Raw("uniques", Array(uniques, [](const string &names) { return names; }));
	result.Raw("primary_key", primary_key);
	result.Text("definition", DefinitionOnWorkers(context, info));
}

string OptionText(const ParsedExpression &expression) {
	switch (expression.GetExpressionClass()) {
	case ExpressionClass::CONSTANT:
		return expression.Cast<ConstantExpression>().GetLiteral().ToValue().ToString();
	case ExpressionClass::COLUMN_REF:
		return expression.Cast<ColumnRefExpression>().GetColumnName().GetIdentifierName();
	default:
		return expression.ToString();
	}
}

idx_t DefaultPartitions(ClientContext &context) {
	Value value;
	return context.TryGetCurrentSetting(DEFAULT_PARTITIONS, value) && !value.IsNull() ? value.GetValue<uint64_t>() : 0;
}

string DescribeCreateTable(ClientContext &context, const CreateTableInfo &info) {
	if (info.temporary) {
		return Nothing();
	}
	auto named = unique_ptr_cast<CreateInfo, CreateTableInfo>(info.Copy());
	named->query.reset();
	auto binder = Binder::CreateBinder(context);
	auto &schema = binder->BindSchema(*named);
	if (!IsOwn(schema.ParentCatalog()) || schema.ParentCatalog().IsTemporaryCatalog()) {
		return Nothing();
	}
	Object result;
	result.Text("kind", string("create_table"));
	result.Text("catalog", schema.ParentCatalog().GetName());
	result.Text("schema", schema.name).Text("name", info.GetTableName()).Bool("nested", IsNested(schema));
	EntryLookupInfo lookup(CatalogType::TABLE_ENTRY, schema.GetQualifiedName(info.GetTableName()));
	auto existing = Catalog::GetEntry(context, lookup, OnEntryNotFound::RETURN_NULL);
	result.Bool("exists", existing != nullptr);
	result.Raw("existing", existing && existing->type == CatalogType::TABLE_ENTRY
	                           ? Describe(existing->Cast<TableCatalogEntry>())
	                           : "null");
	result.Bool("replace", info.on_conflict == OnCreateConflict::REPLACE_ON_CONFLICT);
	result.Bool("from_query", info.query != nullptr);
	result.Bool("sorted", !info.sort_keys.empty());
	result.Raw("partitioned_by", Array(info.partition_keys, [](const unique_ptr<ParsedExpression> &key) -> string {
		           auto column = key->GetExpressionClass() == ExpressionClass::COLUMN_REF &&
		                         !key->Cast<ColumnRefExpression>().IsQualified();
		           return column ? Quoted(key->Cast<ColumnRefExpression>().GetColumnName()) : "null";
	           }));
	result.Raw("options", Array(info.options, [](const std::pair<const string, unique_ptr<ParsedExpression>> &option) {
		           return "[" + Quoted(StringUtil::Lower(option.first)) + "," + Quoted(OptionText(*option.second)) + "]";
	           }));
	vector<string> foreign;
	for (auto &constraint : info.constraints) {
		if (constraint->type != ConstraintType::FOREIGN_KEY) {
			continue;
		}
		auto &key = constraint->Cast<ForeignKeyConstraint>();
		// DuckDB looks for it in the table's own schema.
		auto target = FindTable(context, schema.GetQualifiedName(key.info.table));
		foreign.push_back(target ? Describe(*target) : "null");
	}
	result.Raw("foreign_keys", Array(foreign, [](const string &table) { return table; }));
	auto settled = existing && info.on_conflict != OnCreateConflict::REPLACE_ON_CONFLICT;
	auto default_partitions = DefaultPartitions(context);
	result.Raw("default_partitions", to_string(default_partitions));
	if (!settled && (default_partitions > 0 || !info.partition_keys.empty() || !info.options.empty())) {
		auto bound = BindTable(context, info);
		DescribeColumns(context, bound->Base(), result);
	}
	return result.ToString();
}

string DescribeCreateIndex(ClientContext &context, const CreateIndexInfo &info) {
	auto table = FindHerdTable(context, info.GetQualifiedName().WithName(info.table));
	if (!table) {
		return Nothing();
	}
	auto copy = unique_ptr_cast<CreateInfo, CreateIndexInfo>(info.Copy());
	copy->SetQualifiedName(NameOnWorkers(table->schema.name, info.GetIndexName()));
	copy->table = table->name;
	Object result;
	result.Text("kind", string("create_index")).Raw("table", Describe(*table));
	result.Bool("unique", info.constraint_type == IndexConstraintType::UNIQUE);
	result.Raw("columns", Array(info.parsed_expressions, [](const unique_ptr<ParsedExpression> &key) -> string {
		           return key->GetExpressionClass() == ExpressionClass::COLUMN_REF
		                      ? Quoted(key->Cast<ColumnRefExpression>().GetColumnName())
		                      : "null";
	           }));
	result.Text("sql", copy->ToString());
	return result.ToString();
}

string DescribeCreate(ClientContext &context, const CreateStatement &statement) {
	auto &info = *statement.info;
	switch (info.type) {
	case CatalogType::TABLE_ENTRY:
		return DescribeCreateTable(context, info.Cast<CreateTableInfo>());
	case CatalogType::INDEX_ENTRY:
		return DescribeCreateIndex(context, info.Cast<CreateIndexInfo>());
	case CatalogType::TRIGGER_ENTRY: {
		auto table = FindHerdTable(context, info.Cast<CreateTriggerInfo>().base_table->GetQualifiedName());
		return table ? Object().Text("kind", string("create_trigger")).Raw("table", Describe(*table)).ToString()
		             : Nothing();
	}
	default:
		return Nothing();
	}
}

//! What the workers run for an ALTER, and which column it is about.
struct AlterOnWorkers {
	string action;
	Identifier column;
	//! The other columns of a constraint.
	vector<Identifier> columns;
	Identifier new_name;
};

bool IsConstant(const ParsedExpression &expression) {
	if (expression.GetExpressionClass() == ExpressionClass::CAST) {
		return IsConstant(expression.Cast<CastExpression>().Child());
	}
	return expression.GetExpressionClass() == ExpressionClass::CONSTANT;
}

AlterOnWorkers DescribeAction(ClientContext &context, TableCatalogEntry &table, AlterTableInfo &info) {
	auto binder = Binder::CreateBinder(context);
	binder->SetSearchPath(table.ParentCatalog(), table.schema.name);
	auto spell = [&](LogicalType &type) {
		binder->BindLogicalType(type);
		type = Spelled(context, type);
	};
	AlterOnWorkers result;
	switch (info.alter_table_type) {
	case AlterTableType::RENAME_TABLE:
		result.action = "rename_table";
		result.new_name = info.Cast<RenameTableInfo>().new_table_name;
		break;
	case AlterTableType::RENAME_COLUMN:
		result.action = "rename_column";
		result.column = info.Cast<RenameColumnInfo>().old_name;
		break;
	case AlterTableType::ADD_COLUMN: {
		auto &add = info.Cast<AddColumnInfo>();
		// Others come as an ALTER and an UPDATE, except with IF NOT EXISTS.
		auto computed = add.new_column.HasDefaultValue() && !IsConstant(add.new_column.DefaultValue());
		result.action = computed ? "add_computed_column" : "add_column";
		result.column = add.new_column.Name();
		spell(add.new_column.TypeMutable());
		break;
	}
	case AlterTableType::REMOVE_COLUMN:
		result.action = "drop_column";
		result.column = info.Cast<RemoveColumnInfo>().removed_column;
		break;
	case AlterTableType::ALTER_COLUMN_TYPE: {
		auto &change = info.Cast<ChangeColumnTypeInfo>();
		result.action = "change_type";
		result.column = change.column_path[0];
		spell(change.target_type);
		break;
	}
	case AlterTableType::SET_DEFAULT:
		result.action = "set_default";
		break;
	case AlterTableType::SET_NOT_NULL:
	case AlterTableType::DROP_NOT_NULL:
		result.action = "set_not_null";
		break;
	case AlterTableType::ADD_CONSTRAINT: {
		auto &constraint = *info.Cast<AddConstraintInfo>().constraint;
		result.action = constraint.type == ConstraintType::UNIQUE ? "add_unique" : "add_constraint";
		if (constraint.type == ConstraintType::UNIQUE) {
			result.columns = ColumnsOf(constraint.Cast<UniqueConstraint>(), table.GetColumns());
		}
		break;
	}
	case AlterTableType::ADD_FIELD: {
		auto &add = info.Cast<AddFieldInfo>();
		result.action = "change_field";
		result.column = add.column_path[0];
		spell(add.new_field.TypeMutable());
		break;
	}
	case AlterTableType::REMOVE_FIELD:
		result.action = "change_field";
		result.column = info.Cast<RemoveFieldInfo>().column_path[0];
		break;
	case AlterTableType::RENAME_FIELD:
		result.action = "change_field";
		result.column = info.Cast<RenameFieldInfo>().column_path[0];
		break;
	case AlterTableType::SET_COLUMN_COMMENT:
		result.action = "comment";
		break;
	default:
		result.action = "other";
		break;
	}
	return result;
}

string DescribeAlter(ClientContext &context, const AlterStatement &statement) {
	if (statement.info->type != AlterType::ALTER_TABLE) {
		return Nothing();
	}
	auto table = FindHerdTable(context, statement.info->GetQualifiedName());
	if (!table) {
		return Nothing();
	}
	auto copy = unique_ptr_cast<AlterInfo, AlterTableInfo>(statement.info->Copy());
	copy->SetQualifiedName(NameOnWorkers(table->schema.name, table->name));
	auto action = DescribeAction(context, *table, *copy);
	Object result;
	result.Text("kind", string("alter")).Raw("table", Describe(*table));
	result.Text("action", action.action).Text("column", action.column);
	result.Raw("columns", Names(action.columns)).Text("new_name", action.new_name);
	result.Text("sql", copy->ToString());
	return result.ToString();
}

string DescribeDropIndex(ClientContext &context, const DropInfo &info) {
	auto binder = Binder::CreateBinder(context);
	EntryLookupInfo lookup(CatalogType::INDEX_ENTRY, binder->BindTableName(info.GetQualifiedName()));
	auto entry = Catalog::GetEntry(context, lookup, OnEntryNotFound::RETURN_NULL);
	if (!entry || entry->type != CatalogType::INDEX_ENTRY) {
		return Nothing();
	}
	auto &index = entry->Cast<IndexCatalogEntry>();
	auto table = FindHerdTable(context, index.schema.GetQualifiedName(index.GetTableName()));
	if (!table) {
		return Nothing();
	}
	Object result;
	result.Text("kind", string("drop_index")).Raw("table", Describe(*table)).Text("name", index.name);
	return result.ToString();
}

//! All are in the database that the server has opened.
template <class VISIT>
void ForEachHerdTable(ClientContext &context, VISIT visit) {
	for (auto &schema : Catalog::GetAllSchemas(context)) {
		if (!IsOwn(schema.get().ParentCatalog())) {
			continue;
		}
		schema.get().Scan(context, CatalogType::TABLE_ENTRY, [&](CatalogEntry &entry) {
			if (entry.type == CatalogType::TABLE_ENTRY && PlacementOf(entry)) {
				visit(entry.Cast<TableCatalogEntry>());
			}
		});
	}
}

string DescribeHerdTables(ClientContext &context) {
	vector<string> tables;
	ForEachHerdTable(context, [&](TableCatalogEntry &table) { tables.push_back(Describe(table)); });
	return Array(tables, [](const string &table) { return table; });
}

string DescribeDrop(ClientContext &context, const DropStatement &statement) {
	auto &info = *statement.info;
	if (info.type == CatalogType::INDEX_ENTRY) {
		return DescribeDropIndex(context, info);
	}
	if (!info.cascade && (info.type != CatalogType::TABLE_ENTRY || !FindHerdTable(context, info.GetQualifiedName()))) {
		return Nothing();
	}
	// What else goes with it is known afterwards.
	return Object().Text("kind", string("drop")).Raw("tables", DescribeHerdTables(context)).ToString();
}

//! The table of the herd whose definition a plan's node changes; or any, if what it drops takes others along.
optional_ptr<TableCatalogEntry> TableChangedBy(ClientContext &context, LogicalOperator &op) {
	switch (op.type) {
	case LogicalOperatorType::LOGICAL_ALTER: {
		auto &info = *op.Cast<LogicalAlter>().info;
		return info.type == AlterType::ALTER_TABLE ? FindHerdTable(context, info.GetQualifiedName()) : nullptr;
	}
	case LogicalOperatorType::LOGICAL_CREATE_INDEX: {
		auto &table = op.Cast<LogicalCreateIndex>().table;
		return PlacementOf(table) ? &table : nullptr;
	}
	case LogicalOperatorType::LOGICAL_CREATE_TABLE: {
		auto &create = op.Cast<LogicalCreateTable>();
		auto &info = create.info->Base();
		auto replaces = info.on_conflict == OnCreateConflict::REPLACE_ON_CONFLICT;
		return replaces ? FindHerdTable(context, create.schema.GetQualifiedName(info.GetTableName())) : nullptr;
	}
	case LogicalOperatorType::LOGICAL_DROP: {
		auto &info = *op.Cast<LogicalDrop>().info;
		if (info.type == CatalogType::TABLE_ENTRY || !info.cascade) {
			return info.type == CatalogType::TABLE_ENTRY ? FindHerdTable(context, info.GetQualifiedName()) : nullptr;
		}
		optional_ptr<TableCatalogEntry> any;
		ForEachHerdTable(context, [&](TableCatalogEntry &table) { any = &table; });
		return any;
	}
	default:
		return nullptr;
	}
}

const CreateTableInfo &TableInfoOf(const SQLStatement &statement) {
	return statement.Cast<CreateStatement>().info->Cast<CreateTableInfo>();
}

//! The name that the table is made under, where the statement says it belongs.
QualifiedName NameOf(const CreateTableInfo &info, const string &name) {
	return name.empty() ? info.GetQualifiedName() : info.GetQualifiedName().WithName(Identifier(name));
}

} // namespace

string DescribeDdl(ClientContext &context, const SQLStatement &statement) {
	string result = Nothing();
	switch (statement.type) {
	case StatementType::CREATE_STATEMENT:
		context.RunFunctionInTransaction(
		    [&]() { result = DescribeCreate(context, statement.Cast<CreateStatement>()); });
		break;
	case StatementType::ALTER_STATEMENT:
		context.RunFunctionInTransaction([&]() { result = DescribeAlter(context, statement.Cast<AlterStatement>()); });
		break;
	case StatementType::DROP_STATEMENT:
		context.RunFunctionInTransaction([&]() { result = DescribeDrop(context, statement.Cast<DropStatement>()); });
		break;
	default:
		break;
	}
	return result;
}

string DescribeTables(ClientContext &context) {
	string result;
	context.RunFunctionInTransaction([&]() { result = DescribeHerdTables(context); });
	return result;
}

vector<unique_ptr<SQLStatement>> PartsOf(ClientContext &context, const SQLStatement &statement) {
	vector<unique_ptr<SQLStatement>> result;
	if (statement.type != StatementType::MULTI_STATEMENT) {
		return result;
	}
	auto &parts = statement.Cast<MultiStatement>().statements;
	if (parts.empty() || parts[0]->type != StatementType::ALTER_STATEMENT) {
		return result;
	}
	auto &info = *parts[0]->Cast<AlterStatement>().info;
	auto ours = false;
	context.RunFunctionInTransaction([&]() { ours = FindHerdTable(context, info.GetQualifiedName()) != nullptr; });
	for (idx_t i = 0; ours && i < parts.size(); i++) {
		result.push_back(parts[i]->Copy());
	}
	return result;
}

unique_ptr<SQLStatement> ShadowTable(ClientContext &context, const SQLStatement &statement, const string &placement,
                                     const string &name) {
	auto &info = TableInfoOf(statement);
	auto shadow = unique_ptr_cast<CreateInfo, CreateTableInfo>(info.Copy());
	shadow->partition_keys.clear();
	shadow->sort_keys.clear();
	shadow->options.clear();
	shadow->tags[PLACEMENT_TAG] = placement;
	shadow->SetQualifiedName(NameOf(info, name));
	if (info.query) {
		context.RunFunctionInTransaction([&]() { shadow->columns = BindTable(context, info)->Base().columns.Copy(); });
		shadow->query.reset();
	}
	if (!name.empty()) {
		shadow->on_conflict = OnCreateConflict::ERROR_ON_CONFLICT;
	}
	auto result = make_uniq<CreateStatement>();
	result->info = std::move(shadow);
	result->query = statement.query;
	return std::move(result);
}

unique_ptr<SQLStatement> FillTable(ClientContext &, const SQLStatement &statement, const string &name) {
	auto &info = TableInfoOf(statement);
	auto result = make_uniq<InsertStatement>();
	result->node->qualified_name = NameOf(info, name);
	result->node->select_statement = unique_ptr_cast<SQLStatement, SelectStatement>(info.query->Copy());
	result->named_param_map = statement.named_param_map;
	result->query = statement.query;
	return std::move(result);
}

void CheckDefinitions(ClientContext &context, LogicalOperator &op) {
	auto table = SessionState::ChangesDefinitions(context) ? nullptr : TableChangedBy(context, op);
	if (table) {
		throw NotImplementedException("the definition of the herd's table %s cannot be changed in this way, for its "
		                              "workers would not follow; run the statement itself, not prepared",
		                              table->name.GetIdentifierName());
	}
	for (auto &child : op.children) {
		CheckDefinitions(context, *child);
	}
}

} // namespace herd

namespace {

const duckdb::SQLStatement &StatementOf(const void *statement) {
	return *static_cast<const duckdb::SQLStatement *>(statement);
}

} // namespace

using herd::Caught;
using herd::ContextOf;
using herd::StringOf;

extern "C" {

char *herd_describe_ddl(void *connection, const void *statement, char **description) {
	return Caught([&]() {
		*description = strdup(herd::DescribeDdl(ContextOf(connection), StatementOf(statement)).c_str());
	});
}

char *herd_describe_tables(void *connection, char **description) {
	return Caught([&]() { *description = strdup(herd::DescribeTables(ContextOf(connection)).c_str()); });
}

char *herd_shadow_table(void *connection, const void *statement, HerdText placement, HerdText name, void **result) {
	return Caught([&]() {
		*result = herd::ShadowTable(ContextOf(connection), StatementOf(statement), StringOf(placement), StringOf(name))
		              .release();
	});
}

char *herd_fill_table(void *connection, const void *statement, HerdText name, void **result) {
	return Caught([&]() {
		*result = herd::FillTable(ContextOf(connection), StatementOf(statement), StringOf(name)).release();
	});
}

char *herd_statement_parts(void *connection, const void *statement, void (*add)(void *part, void *into), void *into) {
	return Caught([&]() {
		for (auto &part : herd::PartsOf(ContextOf(connection), StatementOf(statement))) {
			add(part.release(), into);
		}
	});
}

void herd_change_definitions(void *connection, bool changes) {
	herd::SessionState::SetChangesDefinitions(ContextOf(connection), changes);
}
}
