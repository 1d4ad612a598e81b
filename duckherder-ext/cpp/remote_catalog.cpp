#include "remote_catalog.hpp"

#include "bind_aside.hpp"
#include "deparse.hpp"
#include "expression_visitor.hpp"
#include "name_rewriter.hpp"
#include "remote_default.hpp"
#include "remote_insert.hpp"
#include "remote_query.hpp"
#include "remote_schema.hpp"
#include "remote_session.hpp"
#include "remote_transaction.hpp"
#include "result_names.hpp"
#include "row_changes.hpp"

#include "duckdb/execution/physical_plan_generator.hpp"
#include "duckdb/main/attached_database.hpp"
#include "duckdb/parser/parsed_data/create_schema_info.hpp"
#include "duckdb/parser/parsed_data/drop_info.hpp"
#include "duckdb/parser/expression/constant_expression.hpp"
#include "duckdb/parser/expression/function_expression.hpp"
#include "duckdb/parser/expression/parameter_expression.hpp"
#include "duckdb/parser/expression/star_expression.hpp"
#include "duckdb/parser/parsed_data/create_index_info.hpp"
#include "duckdb/parser/parsed_data/create_table_info.hpp"
#include "duckdb/parser/parser.hpp"
#include "duckdb/parser/query_node.hpp"
#include "duckdb/parser/query_node/select_node.hpp"
#include "duckdb/parser/query_node/set_operation_node.hpp"
#include "duckdb/parser/sql_statement.hpp"
#include "duckdb/parser/statement/create_statement.hpp"
#include "duckdb/parser/statement/select_statement.hpp"
#include "duckdb/parser/tableref/table_function_ref.hpp"
#include "duckdb/planner/binder.hpp"
#include "duckdb/planner/operator/logical_create_table.hpp"
#include "duckdb/planner/operator/logical_insert.hpp"
#include "duckdb/planner/parsed_data/bound_create_table_info.hpp"
#include "duckdb/storage/database_size.hpp"

namespace duckherder {

using namespace duckdb;

RemoteCatalog::RemoteCatalog(AttachedDatabase &db, shared_ptr<RemoteHandle> remote)
    : Catalog(db), remote(std::move(remote)) {
}

RemoteCatalog::~RemoteCatalog() = default;

DhSession *RemoteCatalog::Session(ClientContext &context) {
	return RemoteSession::Of(context, *this)->Open(context);
}

void RemoteCatalog::Execute(CatalogTransaction transaction, const string &sql) {
	auto &context = transaction.GetContext();
	RunToEnd(context, Session(context), sql, !context.transaction.IsAutoCommit());
}

void RemoteCatalog::Initialize(bool) {
}

optional<Identifier> RemoteCatalog::GetDefaultSchema() const {
	return Identifier::DefaultSchema();
}

string RemoteCatalog::GetDBPath() {
	return "grpc://" + GetConnectDisplay();
}

string RemoteCatalog::GetConnectDisplay() {
	return String(Api().remote_address(remote->Get()));
}

string RemoteCatalog::GetDisplayName() {
	return GetName().GetIdentifierName() + " (" + GetConnectDisplay() + ")";
}

DatabaseSize RemoteCatalog::GetDatabaseSize(ClientContext &) {
	return DatabaseSize();
}

void RemoteCatalog::OnDetach(ClientContext &context) {
	RemoteSession::Forget(context, *this);
}

RemoteSchema &RemoteCatalog::SchemaEntry(const vector<Identifier> &path) {
	optional_ptr<RemoteSchema> parent;
	if (path.size() > 1) {
		parent = SchemaEntry(vector<Identifier>(path.begin(), path.end() - 1));
	}
	lock_guard<mutex> guard(lock);
	auto &entry = schemas[SchemaPathSql(path)];
	if (!entry) {
		CreateSchemaInfo info;
		// As DuckDB's own: it is always there, and EXPORT DATABASE does not create it.
		info.internal = !parent && path.back() == Identifier::DefaultSchema();
		info.SetQualifiedName(QualifiedName({path.back()}, Identifier()));
		entry = make_uniq<RemoteSchema>(*this, info, parent);
	}
	return *entry;
}

optional_ptr<RemoteSchema> RemoteCatalog::FindSchema(CatalogTransaction transaction, const vector<Identifier> &path) {
	auto exists = path.size() == 1 && path[0] == Identifier::DefaultSchema();
	if (!exists && !path.empty() && transaction.HasContext()) {
		auto &context = transaction.GetContext();
		auto sql = SchemaPathSql(path);
		exists = Check([&](DhBuffer *error) {
			return Api().lookup_schema(Session(context), Text(sql), InterruptOf(context), error);
		});
	}
	if (!exists) {
		return nullptr;
	}
	return SchemaEntry(path);
}

optional_ptr<SchemaCatalogEntry> RemoteCatalog::LookupSchema(CatalogTransaction transaction,
                                                             const EntryLookupInfo &schema_lookup,
                                                             OnEntryNotFound if_not_found) {
	auto &name = schema_lookup.GetQualifiedName().Path();
	vector<Identifier> path;
	// A bound name begins with the catalog; a bare one is the schema's.
	for (idx_t i = name.size() > 1 ? 1 : 0; i < name.size(); i++) {
		if (!name[i].empty()) {
			path.push_back(name[i]);
		}
	}
	auto schema = FindSchema(transaction, path);
	if (!schema && if_not_found == OnEntryNotFound::THROW_EXCEPTION) {
		throw CatalogException(schema_lookup.GetErrorContext(), "Schema with name %s does not exist on %s",
		                       QualifiedName::FromPath(path).ToString(), GetConnectDisplay());
	}
	return schema.get();
}

void RemoteCatalog::ScanSchemas(ClientContext &context, std::function<void(SchemaCatalogEntry &)> callback) {
	shared_ptr<TablesHandle> tables;
	try {
		tables = RemoteTransaction::Get(context, *this).Tables(context);
	} catch (std::exception &exception) {
		if (ErrorData(exception).Type() != ExceptionType::CONNECTION) {
			throw;
		}
		// Whoever lists tables gets this error from the schema. Whoever has misspelt the name of a local one, for which
		// DuckDB looks for similar names everywhere, is to be told just that.
		callback(SchemaEntry({DEFAULT_SCHEMA}));
		return;
	}
	for (idx_t i = 0; i < Api().tables_schemas_len(tables->Get()); i++) {
		callback(SchemaEntry(SchemaPath(Api().tables_schema(tables->Get(), i))));
	}
}

bool RemoteCatalog::Supports(RemoteCapability) const {
	return true;
}

//! Names the result columns with parameters in them before these become values, which would name them otherwise.
static void NameAfterParameters(QueryNode &node) {
	if (node.type == QueryNodeType::SET_OPERATION_NODE) {
		auto &children = node.Cast<SetOperationNode>().children;
		if (!children.empty()) {
			NameAfterParameters(*children[0]);
		}
	}
	if (node.type != QueryNodeType::SELECT_NODE) {
		return;
	}
	for (auto &expression : node.Cast<SelectNode>().select_list) {
		if (expression->GetAlias().empty() && expression->HasParameter()) {
			expression->SetAlias(Identifier(expression->GetName()));
		}
	}
}

//! The parameters in a query or statement, one of each name.
template <class STATEMENT>
static vector<unique_ptr<ParsedExpression>> CollectParameters(STATEMENT &statement) {
	vector<unique_ptr<ParsedExpression>> parameters;
	identifier_set_t seen;
	VisitExpressions(statement, [&](unique_ptr<ParsedExpression> &expression) {
		if (expression->GetExpressionClass() == ExpressionClass::PARAMETER &&
		    seen.insert(expression->Cast<ParameterExpression>().Identifier()).second) {
			auto parameter = expression->Copy();
			// An alias would make it a named argument of our function.
			parameter->SetAlias(Identifier());
			parameters.push_back(std::move(parameter));
		}
	});
	return parameters;
}

//! The text in `FROM dh.query('…')`, if that is all there is to the query.
static optional<string> RawSql(QueryNode &node) {
	if (node.type != QueryNodeType::SELECT_NODE || !node.modifiers.empty() || !node.cte_map.map.empty()) {
		return optional<string>();
	}
	auto &select = node.Cast<SelectNode>();
	auto plain = select.select_list.size() == 1 && !select.where_clause && !select.having && !select.qualify &&
	             !select.sample && select.groups.group_expressions.empty() &&
	             select.select_list[0]->ToString() == StarExpression().ToString();
	if (!plain || !select.from_table || select.from_table->type != TableReferenceType::TABLE_FUNCTION) {
		return optional<string>();
	}
	auto &function = select.from_table->Cast<TableFunctionRef>().function->Cast<FunctionExpression>();
	auto &arguments = function.GetArguments();
	if (function.FunctionName() != Identifier("query") || arguments.size() != 1 ||
	    arguments[0].GetExpression().GetExpressionClass() != ExpressionClass::CONSTANT) {
		return optional<string>();
	}
	auto &literal = arguments[0].GetExpression().Cast<ConstantExpression>().GetLiteral();
	return literal.kind == LiteralKind::STRING ? optional<string>(literal.text) : optional<string>();
}

static QueryShape ShapeOfText(ClientContext &context, const string &sql) {
	try {
		Parser parser(context);
		parser.ParseQuery(sql);
		if (parser.statements.size() == 1 && parser.statements[0]->type == StatementType::SELECT_STATEMENT) {
			return ShapeOf(context, *parser.statements[0]->Cast<SelectStatement>().node);
		}
	} catch (std::exception &) { // NOLINT: the server says what is wrong with it
	}
	return QueryShape::DESCRIBED;
}

unique_ptr<TableRef> RemoteCatalog::RemoteExecute(ClientContext &context, unique_ptr<QueryNode> node) {
	auto raw_sql = RawSql(*node);
	if (raw_sql) {
		return MakeRemoteQuery(*this, *raw_sql, ShapeOfText(context, *raw_sql));
	}
	NameRewriter(context, *this).Rewrite(*node);
	auto parameters = CollectParameters(*node);
	if (!parameters.empty()) {
		NameAfterParameters(*node);
	}
	return MakeRemoteQuery(*this, Deparse(context, *node), ShapeOf(context, *node), std::move(parameters));
}

//! The text of a CREATE INDEX for a temporary table of this process: DuckDB has handed it over without looking for one.
static optional<string> IndexOfTemporaryTable(ClientContext &context, const SQLStatement &statement) {
	if (statement.type != StatementType::CREATE_STATEMENT) {
		return optional<string>();
	}
	// The statement as it was written: catalogs have been taken out of this one.
	auto written = ParseAgain(context, statement);
	if (!written || written->Cast<CreateStatement>().info->type != CatalogType::INDEX_ENTRY) {
		return optional<string>();
	}
	auto &index = written->Cast<CreateStatement>().info->Cast<CreateIndexInfo>();
	auto &name = index.GetQualifiedName();
	if (!name.Catalog().empty() || !(name.Schema().empty() || name.Schema() == Identifier::DefaultSchema())) {
		return optional<string>();
	}
	EntryLookupInfo lookup(CatalogType::TABLE_ENTRY, QualifiedName("temp", Identifier::DefaultSchema(), index.table));
	auto table = Catalog::GetEntry(context, lookup, OnEntryNotFound::RETURN_NULL);
	return table ? optional<string>(written->query) : optional<string>();
}

unique_ptr<TableRef> RemoteCatalog::RemoteExecute(ClientContext &context, unique_ptr<SQLStatement> statement) {
	auto local_index = IndexOfTemporaryTable(context, *statement);
	if (local_index) {
		return MakeRemoteQuery(*this, *local_index, QueryShape::LOCAL);
	}
	if (statement->type == StatementType::CREATE_STATEMENT) {
		NameAsTyped(context, statement->Cast<CreateStatement>());
	}
	NameRewriter(context, *this).Rewrite(*statement);
	auto parameters = CollectParameters(*statement);
	return MakeRemoteQuery(*this, Deparse(context, *statement), ShapeOf(*statement), std::move(parameters));
}

unique_ptr<TableRef> RemoteCatalog::RemoteExecute(ClientContext &, const string &sql) {
	return MakeRemoteQuery(*this, sql, QueryShape::DESCRIBED);
}

bool RemoteCatalog::SupportsPushdown(const ParsedExpression &) {
	return true;
}

bool RemoteCatalog::SupportsPushdown(const TableRef &) {
	return true;
}

bool RemoteCatalog::SupportsPushdown(const QueryNode &) {
	return true;
}

bool RemoteCatalog::SupportsPushdown(const SQLStatement &) {
	return true;
}

void ThrowLocalRowsNotSupported(const char *statement) {
	throw NotImplementedException("%s on a duckling's table cannot use rows of this process here: only tables and "
	                              "functions of the one duckling may appear in the statement",
	                              statement);
}

optional_ptr<CatalogEntry> RemoteCatalog::CreateSchema(CatalogTransaction transaction, CreateSchemaInfo &info) {
	auto path = info.ParentSchemas();
	path.push_back(info.SchemaName());
	auto copy = info.Copy();
	copy->SetQualifiedName(QualifiedName(path, Identifier()));
	Execute(transaction, copy->ToString());
	return SchemaEntry(path);
}

PhysicalOperator &RemoteCatalog::PlanCreateTableAs(ClientContext &, PhysicalPlanGenerator &planner,
                                                   LogicalCreateTable &op, PhysicalOperator &plan) {
	auto &info = op.info->Base();
	UploadTarget target;
	target.schema_path = op.schema.GetSchemaPath();
	target.table_name = info.GetTableName().GetIdentifierName();
	ResolveAlias(*this, target.schema_path, target.table_name);
	target.mode = info.on_conflict == OnCreateConflict::REPLACE_ON_CONFLICT ? DhCreateOrReplace : DhCreate;
	target.table_clauses = info.ExtraOptionsToString();
	for (auto &column : info.columns.Logical()) {
		target.column_names.push_back(column.Name().GetIdentifierName());
	}
	auto &insert = planner.Make<RemoteInsert>(*this, std::move(target), op.estimated_cardinality);
	insert.children.push_back(plan);
	return insert;
}

PhysicalOperator &RemoteCatalog::PlanInsert(ClientContext &, PhysicalPlanGenerator &planner, LogicalInsert &op,
                                            optional_ptr<PhysicalOperator> plan) {
	if (op.on_conflict_info.action_type != OnConflictAction::THROW) {
		ThrowLocalRowsNotSupported("INSERT ... ON CONFLICT");
	}
	if (!plan) {
		ThrowLocalRowsNotSupported("INSERT DEFAULT VALUES");
	}
	if (op.return_chunk) {
		return PlanInsertReturning(planner, op, *plan);
	}
	auto &table = op.table.Cast<RemoteTable>();
	UploadTarget target;
	target.schema_path = table.RemoteSchemaPath();
	target.table_name = table.RemoteTableName();
	auto given = LeaveOutDefaults(*plan);
	target.mode = given.size() < table.GetColumns().PhysicalColumnCount() ? DhAppendByName : DhAppend;
	for (auto &column : given) {
		target.column_names.push_back(table.GetColumns().GetColumn(column).Name().GetIdentifierName());
	}
	auto &insert = planner.Make<RemoteInsert>(*this, std::move(target), op.estimated_cardinality);
	insert.children.push_back(*plan);
	return insert;
}

PhysicalOperator &RemoteCatalog::PlanDelete(ClientContext &, PhysicalPlanGenerator &planner, LogicalDelete &op,
                                            PhysicalOperator &plan) {
	return PlanRowDelete(planner, op, plan);
}

PhysicalOperator &RemoteCatalog::PlanUpdate(ClientContext &context, PhysicalPlanGenerator &planner, LogicalUpdate &op,
                                            PhysicalOperator &plan) {
	return PlanRowUpdate(context, planner, op, plan);
}

unique_ptr<LogicalOperator> RemoteCatalog::BindCreateIndex(Binder &binder, CreateStatement &stmt,
                                                           TableCatalogEntry &table, unique_ptr<LogicalOperator>) {
	// DuckDB's own way of doing it writes into the scan's data, which it takes for its own.
	auto &remote_table = table.Cast<RemoteTable>();
	auto info = unique_ptr_cast<CreateInfo, CreateIndexInfo>(stmt.info->Copy());
	info->table = Identifier(remote_table.RemoteTableName());
	info->SetQualifiedName(QualifiedName(remote_table.RemoteSchemaPath(), info->GetIndexName()));
	auto select = make_uniq<SelectNode>();
	select->select_list.push_back(make_uniq<StarExpression>());
	select->from_table = MakeRemoteQuery(*this, info->ToString(), QueryShape::CREATED);
	SelectStatement statement;
	statement.node = std::move(select);
	return BindAside(binder.context, binder, statement).plan;
}

PhysicalOperator &RemoteCatalog::PlanMergeInto(ClientContext &context, PhysicalPlanGenerator &planner,
                                               LogicalMergeInto &op, PhysicalOperator &plan) {
	return PlanRowMerge(context, planner, op, plan);
}

void RemoteCatalog::DropSchema(ClientContext &context, DropInfo &info) {
	auto copy = info.Copy();
	// The catalog, and the path of the schema.
	auto &path = info.GetQualifiedName().Path();
	copy->SetQualifiedName(QualifiedName::FromPath(vector<Identifier>(path.size() > 1 ? path.begin() + 1 : path.begin(),
	                                                                  path.end())));
	Execute(GetCatalogTransaction(context), copy->ToString());
}

} // namespace duckherder
