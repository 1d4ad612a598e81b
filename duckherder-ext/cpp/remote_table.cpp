#include "remote_table.hpp"

#include "remote_catalog.hpp"
#include "remote_default.hpp"
#include "remote_definitions.hpp"
#include "remote_transaction.hpp"
#include "table_scan.hpp"

#include "duckdb/parser/constraints/check_constraint.hpp"
#include "duckdb/parser/constraints/foreign_key_constraint.hpp"
#include "duckdb/parser/constraints/not_null_constraint.hpp"
#include "duckdb/parser/constraints/unique_constraint.hpp"
#include "duckdb/parser/expression/columnref_expression.hpp"
#include "duckdb/optimizer/remote_pushdown_optimizer.hpp"
#include "duckdb/parser/parsed_data/create_table_info.hpp"
#include "duckdb/parser/parsed_data/create_trigger_info.hpp"
#include "duckdb/parser/tableref/basetableref.hpp"
#include "duckdb/parser/parsed_expression_iterator.hpp"
#include "duckdb/parser/parser.hpp"
#include "duckdb/storage/statistics/base_statistics.hpp"
#include "duckdb/storage/table_storage_info.hpp"

namespace duckherder {

using namespace duckdb;

//! Null if it is something that this DuckDB cannot read.
static unique_ptr<ParsedExpression> TryParseExpression(const string &sql) {
	try {
		auto expressions = Parser::GetBuiltinParser().ParseExpressionList(sql);
		return expressions.size() == 1 ? std::move(expressions[0]) : nullptr;
	} catch (std::exception &) { // NOLINT: the server can
		return nullptr;
	}
}

static void SetDefault(const RemoteCatalog &catalog, ColumnDefinition &column, const string &sql,
                       TablePurpose purpose) {
	if (sql.empty()) {
		return;
	}
	auto value = TryParseExpression(sql);
	// Listed tables are copied to other databases.
	auto is_itself = value && (purpose == TablePurpose::LISTING || value->GetExpressionClass() == ExpressionClass::CONSTANT);
	if (!is_itself) {
		value = make_uniq<RemoteDefault>(catalog.GetName(), sql, column.Type());
	}
	column.SetDefaultValue(std::move(value));
}

//! The columns of a UNIQUE or PRIMARY KEY, in the table as it is here; null if it has not all of them.
static unique_ptr<Constraint> Key(const CreateTableInfo &definition, const ColumnList &columns,
                                  const UniqueConstraint &key) {
	vector<Identifier> names;
	for (auto &index : key.GetLogicalIndexes(definition.columns)) {
		names.push_back(definition.columns.GetColumn(index).Name());
		if (!columns.ColumnExists(names.back())) {
			return nullptr;
		}
	}
	if (names.size() == 1) {
		return make_uniq<UniqueConstraint>(columns.GetColumn(names[0]).Logical(), names[0], key.IsPrimaryKey());
	}
	return make_uniq<UniqueConstraint>(std::move(names), key.IsPrimaryKey());
}

//! Whether all columns that an expression names are the table's: DuckDB's listings look them up.
static bool HasColumns(const ColumnList &columns, const ParsedExpression &expression) {
	auto result = true;
	ParsedExpressionIterator::VisitExpression<ColumnRefExpression>(expression, [&](const ColumnRefExpression &column) {
		result = result && columns.ColumnExists(column.GetColumnName());
	});
	return result;
}

static bool HasColumns(const ColumnList &columns, const vector<Identifier> &names) {
	return std::all_of(names.begin(), names.end(),
	                   [&](const Identifier &name) { return columns.ColumnExists(name); });
}

static unique_ptr<Constraint> ForeignKey(const CreateTableInfo &info, const ForeignKeyConstraint &key) {
	auto copy = unique_ptr_cast<Constraint, ForeignKeyConstraint>(key.Copy());
	copy->info.type = key.info.table == info.GetTableName() ? ForeignKeyType::FK_TYPE_SELF_REFERENCE_TABLE
	                                                        : ForeignKeyType::FK_TYPE_FOREIGN_KEY_TABLE;
	return std::move(copy);
}

//! A constraint of the definition, on the columns of `info`; null for what cannot be understood here, or is of no use.
static unique_ptr<Constraint> MakeConstraint(const CreateTableInfo &definition, const CreateTableInfo &info,
                                             const Constraint &constraint, TablePurpose purpose) {
	switch (constraint.type) {
	case ConstraintType::NOT_NULL: {
		auto &name = definition.columns.GetColumn(constraint.Cast<NotNullConstraint>().index).Name();
		if (!info.columns.ColumnExists(name)) {
			return nullptr;
		}
		return make_uniq<NotNullConstraint>(info.columns.GetColumn(name).Logical());
	}
	case ConstraintType::UNIQUE:
		return Key(definition, info.columns, constraint.Cast<UniqueConstraint>());
	case ConstraintType::CHECK:
		if (purpose == TablePurpose::LISTING &&
		    HasColumns(info.columns, *constraint.Cast<CheckConstraint>().expression)) {
			return constraint.Copy();
		}
		return nullptr;
	case ConstraintType::FOREIGN_KEY:
		if (purpose == TablePurpose::LISTING &&
		    HasColumns(info.columns, constraint.Cast<ForeignKeyConstraint>().fk_columns)) {
			return ForeignKey(info, constraint.Cast<ForeignKeyConstraint>());
		}
		return nullptr;
	default:
		return nullptr;
	}
}

//! In DuckDB's order: those of the definition, and then what follows from a primary key.
static void AddConstraints(optional_ptr<CreateTableInfo> definition, const logical_index_set_t &not_null,
                           CreateTableInfo &info, TablePurpose purpose) {
	auto missing = not_null;
	if (definition) {
		for (auto &constraint : definition->constraints) {
			auto made = MakeConstraint(*definition, info, *constraint, purpose);
			if (!made) {
				continue;
			}
			if (made->type == ConstraintType::NOT_NULL) {
				missing.erase(made->Cast<NotNullConstraint>().index);
			}
			info.constraints.push_back(std::move(made));
		}
	}
	for (auto &column : info.columns.Logical()) {
		if (missing.find(column.Logical()) != missing.end()) {
			info.constraints.push_back(make_uniq<NotNullConstraint>(column.Logical()));
		}
	}
}

//! A view may have columns of the same name.
static Identifier UniqueName(const ColumnList &columns, const string &name) {
	auto unique = Identifier(name);
	for (idx_t i = 1; columns.ColumnExists(unique); i++) {
		unique = Identifier(name + "_" + to_string(i));
	}
	return unique;
}

static bool IsGenerated(optional_ptr<CreateTableInfo> definition, const Identifier &column) {
	return definition && definition->columns.ColumnExists(column) && definition->columns.GetColumn(column).Generated();
}

static ColumnDefinition MakeColumn(ClientContext &context, const RemoteCatalog &catalog, const ColumnList &columns,
                                   optional_ptr<CreateTableInfo> definition, const DhColumnView &view, TablePurpose purpose) {
	LogicalType type;
	if (!TryParseType(context, String(view.type_text), type)) {
		// A type of the server that is unknown here arrives as text; the table stays usable.
		type = LogicalType::VARCHAR;
	}
	auto name = UniqueName(columns, String(view.name));
	auto is_generated = IsGenerated(definition, name);
	ColumnDefinition column =
	    is_generated ? ColumnDefinition(name, std::move(type),
	                                    definition->columns.GetColumn(name).GeneratedExpression().Copy(),
	                                    TableColumnType::GENERATED)
	                 : ColumnDefinition(name, std::move(type));
	if (!is_generated) {
		SetDefault(catalog, column, String(view.default_sql), purpose);
	}
	if (view.has_comment) {
		column.SetComment(Value(String(view.comment)));
	}
	return column;
}

static vector<IndexInfo> UniqueIndexes(const TablesHandle &described, idx_t table, const ColumnList &columns) {
	vector<IndexInfo> result;
	DhUniqueIndexView view;
	for (idx_t i = 0; Api().tables_unique_index(described.Get(), table, i, &view) == DhOk; i++) {
		IndexInfo index;
		index.is_unique = true;
		index.is_primary = view.is_primary_key;
		index.is_foreign = false;
		for (idx_t k = 0; k < view.columns_len; k++) {
			LogicalIndex column(view.columns[k]);
			if (column.index < columns.LogicalColumnCount() && !columns.GetColumn(column).Generated()) {
				index.column_set.insert(columns.GetColumn(column).Physical().index);
			}
		}
		result.push_back(std::move(index));
	}
	return result;
}

//! A view has none, but its columns may come from those of keys.
static void AddKeysOfView(const TablesHandle &described, idx_t view, CreateTableInfo &info) {
	for (auto &key : UniqueIndexes(described, view, info.columns)) {
		for (auto position : key.column_set) {
			auto &column = info.columns.GetColumn(PhysicalIndex(position));
			info.constraints.push_back(make_uniq<UniqueConstraint>(column.Logical(), column.Name(), key.is_primary));
		}
	}
}

RemoteTable::RemoteTable(RemoteCatalog &catalog, SchemaCatalogEntry &schema, CreateTableInfo &info,
                         shared_ptr<TablesHandle> described_p, idx_t index, TablePurpose purpose)
    : TableCatalogEntry(catalog, schema, info), remote_catalog(catalog), described(std::move(described_p)),
      index(index), purpose(purpose), columns(info.columns.Copy()) {
	DhTableView view;
	Api().tables_get(described->Get(), index, &view);
	identity = view.identity;
	remote_schema_path = SchemaPath(view.schema_path);
	remote_table_name = String(view.table_name);
	definition_sql = String(view.definition_sql);
	if (view.has_estimated_rows) {
		estimated_rows = view.estimated_rows;
	}
	index_count = view.index_count;
	if (!view.is_view) {
		unique_indexes = UniqueIndexes(*described, index, columns);
	}
	oid = LocalOid(catalog, view.oid);
}

QualifiedName RemoteTable::RemoteQualifiedName() const {
	return QualifiedName(remote_schema_path, Identifier(remote_table_name));
}

string RemoteTable::RemoteName() const {
	return SchemaPathSql(remote_schema_path) + "." + SchemaPathSql({Identifier(remote_table_name)});
}

shared_ptr<RemoteTable> RemoteTable::Make(ClientContext &context, RemoteCatalog &catalog, SchemaCatalogEntry &schema,
                                          const Identifier &local_name, const shared_ptr<TablesHandle> &described,
                                          idx_t index, TablePurpose purpose) {
	DhTableView view;
	Api().tables_get(described->Get(), index, &view);
	auto parsed = view.is_view ? nullptr : TryParseDefinition(context, String(view.definition_sql));
	optional_ptr<CreateTableInfo> definition_info;
	if (parsed && parsed->type == CatalogType::TABLE_ENTRY) {
		definition_info = parsed->Cast<CreateTableInfo>();
	}
	CreateTableInfo info(schema, local_name);
	if (view.has_comment) {
		info.comment = Value(String(view.comment));
	}
	DhText tag, value;
	for (idx_t i = 0; i < view.tags_len; i++) {
		Api().tables_tag(described->Get(), index, i, &tag, &value);
		info.tags[String(tag)] = String(value);
	}
	logical_index_set_t not_null;
	for (idx_t i = 0; i < view.columns_len; i++) {
		DhColumnView column;
		Api().tables_column(described->Get(), index, i, &column);
		if (view.is_view && purpose != TablePurpose::DESCRIBING_VIEW) {
			column.not_null = false;
			column.default_sql = DhText {};
		}
		info.columns.AddColumn(MakeColumn(context, catalog, info.columns, definition_info, column, purpose));
		if (column.not_null) {
			not_null.insert(LogicalIndex(i));
		}
	}
	AddConstraints(definition_info, not_null, info, purpose);
	if (purpose == TablePurpose::DESCRIBING_VIEW) {
		AddKeysOfView(*described, index, info);
	}
	auto table = make_shared_ptr<RemoteTable>(catalog, schema, info, described, index, purpose);
	if (view.is_view && purpose == TablePurpose::USE) {
		table->as_described =
		    Make(context, catalog, schema, local_name, described, index, TablePurpose::DESCRIBING_VIEW);
	}
	return table;
}

void RemoteTable::DropForeignKeysExceptTo(const identifier_set_t &tables) {
	for (idx_t i = constraints.size(); i > 0; i--) {
		auto &constraint = *constraints[i - 1];
		if (constraint.type == ConstraintType::FOREIGN_KEY &&
		    tables.find(constraint.Cast<ForeignKeyConstraint>().info.table) == tables.end()) {
			constraints.erase_at(i - 1);
		}
	}
}

unique_ptr<BaseStatistics> RemoteTable::GetStatistics(ClientContext &, column_t) {
	return nullptr;
}

TableFunction RemoteTable::GetScanFunction(ClientContext &, unique_ptr<FunctionData> &bind_data) {
	return MakeTableScan(shared_from_this(), bind_data);
}

string RemoteTable::ToSQL() const {
	return definition_sql.empty() ? TableCatalogEntry::ToSQL() : definition_sql;
}

TableStorageInfo RemoteTable::GetStorageInfo(ClientContext &) {
	TableStorageInfo info;
	info.cardinality = estimated_rows;
	info.index_info = unique_indexes;
	// Listings count the others as well.
	while (purpose == TablePurpose::LISTING && info.index_info.size() < index_count) {
		IndexInfo index;
		index.is_unique = false;
		index.is_primary = false;
		index.is_foreign = false;
		info.index_info.push_back(std::move(index));
	}
	return info;
}

optional_ptr<CatalogEntry> RemoteTable::CreateTrigger(CatalogTransaction transaction, CreateTriggerInfo &info) {
	auto copy = unique_ptr_cast<CreateInfo, CreateTriggerInfo>(info.Copy());
	copy->SetQualifiedName(QualifiedName(info.GetTriggerName()));
	copy->base_table->SetQualifiedName(RemoteQualifiedName());
	RemotePushdownOptimizer::StripCatalogName(*copy->trigger_action, remote_catalog.GetName());
	remote_catalog.Execute(transaction, copy->ToString());
	return nullptr;
}

void RemoteTable::ScanTriggers(CatalogTransaction transaction,
                               const std::function<void(CatalogEntry &)> &callback) const {
	if (purpose != TablePurpose::LISTING || !transaction.HasContext()) {
		// The server fires them.
		return;
	}
	auto &context = transaction.GetContext();
	DhDefinitionView view;
	for (idx_t i = 0; Api().tables_trigger(described->Get(), index, i, &view) == DhOk; i++) {
		auto trigger = MakeTrigger(context, schema, view);
		if (trigger) {
			callback(RemoteTransaction::Get(context, remote_catalog).Keep(std::move(trigger)));
		}
	}
}

//! As the server has it now.
bool RemoteTable::HasTrigger(ClientContext &context, const Identifier &name) const {
	auto now = make_shared_ptr<TablesHandle>();
	auto path = SchemaPathSql(remote_schema_path);
	auto found = Check([&](DhBuffer *error) {
		return Api().lookup_table(remote_catalog.Session(context), Text(path), Text(remote_table_name), true,
		                          InterruptOf(context), now->Slot(), error);
	});
	DhDefinitionView view;
	for (idx_t i = 0; found && Api().tables_trigger(now->Get(), 0, i, &view) == DhOk; i++) {
		if (Identifier(String(view.name)) == name) {
			return true;
		}
	}
	return false;
}

bool RemoteTable::DropTrigger(CatalogTransaction transaction, const Identifier &name, bool) {
	if (!HasTrigger(transaction.GetContext(), name)) {
		return false;
	}
	remote_catalog.Execute(transaction, "DROP TRIGGER " + SQLIdentifier::ToString(name) + " ON " + RemoteName());
	return true;
}

void RemoteTable::BindUpdateConstraints(Binder &, LogicalGet &, LogicalProjection &, LogicalUpdate &, ClientContext &) {
	// The server checks them, with columns that need not come here for it.
}

virtual_column_map_t RemoteTable::GetVirtualColumns() const {
	virtual_column_map_t result;
	result.insert({COLUMN_IDENTIFIER_EMPTY, TableColumn(Identifier(), LogicalType::BOOLEAN)});
	result.insert({COLUMN_IDENTIFIER_ROW_ID, TableColumn("rowid", LogicalType::ROW_TYPE)});
	return result;
}

vector<column_t> RemoteTable::GetRowIdColumns() const {
	return {COLUMN_IDENTIFIER_ROW_ID};
}

} // namespace duckherder
