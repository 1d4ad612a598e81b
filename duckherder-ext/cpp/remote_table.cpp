#include "remote_table.hpp"

#include "remote_catalog.hpp"
#include "remote_definitions.hpp"
#include "table_scan.hpp"

#include "duckdb/parser/constraints/not_null_constraint.hpp"
#include "duckdb/parser/constraints/unique_constraint.hpp"
#include "duckdb/parser/expression/function_expression.hpp"
#include "duckdb/optimizer/remote_pushdown_optimizer.hpp"
#include "duckdb/parser/parsed_data/create_table_info.hpp"
#include "duckdb/parser/parsed_data/create_trigger_info.hpp"
#include "duckdb/parser/tableref/basetableref.hpp"
#include "duckdb/parser/parser.hpp"
#include "duckdb/storage/statistics/base_statistics.hpp"
#include "duckdb/storage/table_storage_info.hpp"

namespace duckherder {

using namespace duckdb;

static string Quoted(const string &identifier) {
	return "\"" + StringUtil::Replace(identifier, "\"", "\"\"") + "\"";
}

//! The default that an INSERT of this process's rows fills in.
static void SetDefault(ColumnDefinition &column, const string &sql) {
	if (sql.empty()) {
		return;
	}
	try {
		auto expressions = Parser::GetBuiltinParser().ParseExpressionList(sql);
		if (expressions.size() == 1) {
			column.SetDefaultValue(std::move(expressions[0]));
		}
	} catch (std::exception &) { // NOLINT: the table stays usable, an INSERT will say what it misses
		column.SetDefaultValue(make_uniq<FunctionExpression>(Identifier("duckherder_default_not_known_here"),
		                                                     vector<unique_ptr<ParsedExpression>>()));
	}
}

//! The keys that a CREATE TABLE statement declares, on the columns of `info`. What cannot be understood here is left out:
//! the server sees to it that they hold.
static void AddKeys(const CreateTableInfo &parsed_table, CreateTableInfo &info) {
	for (auto &constraint : parsed_table.constraints) {
		if (constraint->type != ConstraintType::UNIQUE) {
			continue;
		}
		auto &key = constraint->Cast<UniqueConstraint>();
		auto indexes = key.GetLogicalIndexes(parsed_table.columns);
		vector<Identifier> names;
		for (auto &index : indexes) {
			auto &name = parsed_table.columns.GetColumn(index).Name();
			if (info.columns.ColumnExists(name)) {
				names.push_back(name);
			}
		}
		if (names.size() != indexes.size()) {
			continue;
		}
		if (names.size() == 1) {
			auto index = info.columns.GetColumn(names[0]).Logical();
			info.constraints.push_back(make_uniq<UniqueConstraint>(index, names[0], key.IsPrimaryKey()));
		} else {
			info.constraints.push_back(make_uniq<UniqueConstraint>(std::move(names), key.IsPrimaryKey()));
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

RemoteTable::RemoteTable(RemoteCatalog &catalog, SchemaCatalogEntry &schema, CreateTableInfo &info,
                         shared_ptr<TablesHandle> described_p, const DhTableView &view)
    : TableCatalogEntry(catalog, schema, info), remote_catalog(catalog), described(std::move(described_p)),
      identity(view.identity), remote_schema_name(String(view.schema_name)),
      remote_table_name(String(view.table_name)), definition_sql(String(view.definition_sql)),
      columns(info.columns.Copy()) {
	if (view.has_estimated_rows) {
		estimated_rows = view.estimated_rows;
	}
}

string RemoteTable::RemoteName() const {
	return Quoted(remote_schema_name) + "." + Quoted(remote_table_name);
}

shared_ptr<RemoteTable> RemoteTable::Make(ClientContext &context, RemoteCatalog &catalog, SchemaCatalogEntry &schema,
                                          const Identifier &local_name, const shared_ptr<TablesHandle> &described,
                                          idx_t index) {
	DhTableView view;
	Api().tables_get(described->Get(), index, &view);
	auto parsed = view.is_view ? nullptr : TryParseDefinition(context, String(view.definition_sql));
	optional_ptr<CreateTableInfo> definition_info;
	if (parsed && parsed->type == CatalogType::TABLE_ENTRY) {
		definition_info = parsed->Cast<CreateTableInfo>();
	}
	CreateTableInfo info(schema, local_name);
	if (view.comment.len > 0) {
		info.comment = Value(String(view.comment));
	}
	for (idx_t i = 0; i < view.columns_len; i++) {
		DhColumnView column;
		Api().tables_column(described->Get(), index, i, &column);
		LogicalType type;
		if (!TryParseType(context, String(column.type_text), type)) {
			// A type of the server that is unknown here arrives as text; the table stays usable.
			type = LogicalType::VARCHAR;
		}
		ColumnDefinition definition(UniqueName(info.columns, String(column.name)), std::move(type));
		if (IsGenerated(definition_info, definition.Name())) {
			auto &expression = definition_info->columns.GetColumn(definition.Name()).GeneratedExpression();
			info.columns.AddColumn(ColumnDefinition(definition.Name(), definition.Type(), expression.Copy(),
			                                        TableColumnType::GENERATED));
			continue;
		}
		SetDefault(definition, String(column.default_sql));
		info.columns.AddColumn(std::move(definition));
		if (column.not_null) {
			info.constraints.push_back(make_uniq<NotNullConstraint>(LogicalIndex(i)));
		}
	}
	if (definition_info) {
		AddKeys(*definition_info, info);
	}
	auto table = make_shared_ptr<RemoteTable>(catalog, schema, info, described, view);
	table->oid = StableOid(CatalogType::TABLE_ENTRY, schema.name, local_name);
	return table;
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
	for (auto &constraint : GetConstraints()) {
		if (constraint->type != ConstraintType::UNIQUE) {
			continue;
		}
		auto &key = constraint->Cast<UniqueConstraint>();
		IndexInfo index;
		index.is_unique = true;
		index.is_primary = key.IsPrimaryKey();
		index.is_foreign = false;
		for (auto &column : key.GetLogicalIndexes(columns)) {
			index.column_set.insert(columns.GetColumn(column).Physical().index);
		}
		info.index_info.push_back(std::move(index));
	}
	return info;
}

optional_ptr<CatalogEntry> RemoteTable::CreateTrigger(CatalogTransaction transaction, CreateTriggerInfo &info) {
	auto copy = unique_ptr_cast<CreateInfo, CreateTriggerInfo>(info.Copy());
	copy->SetQualifiedName(QualifiedName(info.GetTriggerName()));
	copy->base_table->SetQualifiedName(
	    QualifiedName(Identifier(), Identifier(remote_schema_name), Identifier(remote_table_name)));
	RemotePushdownOptimizer::StripCatalogName(*copy->trigger_action, remote_catalog.GetName());
	remote_catalog.Execute(transaction, copy->ToString());
	return nullptr;
}

bool RemoteTable::DropTrigger(CatalogTransaction transaction, const Identifier &name, bool) {
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
