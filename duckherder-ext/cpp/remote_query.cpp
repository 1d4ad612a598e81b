#include "remote_query.hpp"

#include "arrow_scan.hpp"
#include "deparse.hpp"
#include "error_place.hpp"
#include "expression_visitor.hpp"
#include "remote_catalog.hpp"
#include "remote_session.hpp"
#include "remote_transaction.hpp"

#include "duckdb/catalog/catalog_entry/table_catalog_entry.hpp"
#include "duckdb/execution/operator/scan/physical_table_scan.hpp"
#include "duckdb/main/attached_database.hpp"
#include "duckdb/main/extension/extension_loader.hpp"
#include "duckdb/parser/expression/constant_expression.hpp"
#include "duckdb/parser/expression/function_expression.hpp"
#include "duckdb/parser/expression/parameter_expression.hpp"
#include "duckdb/parser/expression/subquery_expression.hpp"
#include "duckdb/parser/parsed_expression_iterator.hpp"
#include "duckdb/parser/parser.hpp"
#include "duckdb/parser/query_node.hpp"
#include "duckdb/parser/query_node/delete_query_node.hpp"
#include "duckdb/parser/query_node/insert_query_node.hpp"
#include "duckdb/parser/query_node/merge_query_node.hpp"
#include "duckdb/parser/query_node/update_query_node.hpp"
#include "duckdb/parser/parsed_data/create_table_info.hpp"
#include "duckdb/parser/statement/create_statement.hpp"
#include "duckdb/parser/statement/select_statement.hpp"
#include "duckdb/parser/tableref/table_function_ref.hpp"
#include "duckdb/planner/binder.hpp"
#include "duckdb/planner/operator/logical_get.hpp"
#include "duckdb/storage/statistics/node_statistics.hpp"

namespace duckherder {

using namespace duckdb;

static constexpr const char *QUERY_FUNCTION = "duckherder_remote";

//===--------------------------------------------------------------------===//
// Shapes
//===--------------------------------------------------------------------===//

static bool HasSideEffects(ClientContext &context, const FunctionExpression &function) {
	auto name = StringUtil::Lower(function.FunctionName().GetIdentifierName());
	if (name == "nextval" || name == "setseed") {
		return true;
	}
	// A function that is not known here may be a macro of the server that does anything.
	auto known = [&](CatalogType type) {
		EntryLookupInfo lookup(type, QualifiedName(function.FunctionName()));
		return Catalog::GetEntry(context, lookup, OnEntryNotFound::RETURN_NULL) != nullptr;
	};
	return !known(CatalogType::SCALAR_FUNCTION_ENTRY) && !known(CatalogType::TABLE_FUNCTION_ENTRY);
}

static bool HasDml(QueryNode &node) {
	switch (node.type) {
	case QueryNodeType::INSERT_QUERY_NODE:
	case QueryNodeType::UPDATE_QUERY_NODE:
	case QueryNodeType::DELETE_QUERY_NODE:
	case QueryNodeType::MERGE_QUERY_NODE:
		return true;
	default:
		break;
	}
	for (auto &entry : node.cte_map.map) {
		if (entry.second->query_node && HasDml(*entry.second->query_node)) {
			return true;
		}
	}
	return false;
}

static bool HasSideEffects(ClientContext &context, QueryNode &node) {
	auto found = HasDml(node);
	VisitExpressions(node, [&](unique_ptr<ParsedExpression> &expression) {
		found = found || (expression->GetExpressionClass() == ExpressionClass::FUNCTION &&
		                  HasSideEffects(context, expression->Cast<FunctionExpression>()));
	});
	return found;
}

QueryShape ShapeOf(ClientContext &context, QueryNode &node) {
	auto count = [](const vector<unique_ptr<ParsedExpression>> &returning) {
		return returning.empty() ? QueryShape::COUNT : QueryShape::DESCRIBED;
	};
	switch (node.type) {
	case QueryNodeType::INSERT_QUERY_NODE:
		return count(node.Cast<InsertQueryNode>().returning_list);
	case QueryNodeType::UPDATE_QUERY_NODE:
		return count(node.Cast<UpdateQueryNode>().returning_list);
	case QueryNodeType::DELETE_QUERY_NODE:
		return count(node.Cast<DeleteQueryNode>().returning_list);
	case QueryNodeType::MERGE_QUERY_NODE:
		return count(node.Cast<MergeQueryNode>().returning_list);
	default:
		return HasSideEffects(context, node) ? QueryShape::DESCRIBED : QueryShape::ROWS;
	}
}

QueryShape ShapeOf(const SQLStatement &statement) {
	if (statement.type == StatementType::CREATE_STATEMENT) {
		auto &info = *statement.Cast<CreateStatement>().info;
		auto has_rows = info.type == CatalogType::TABLE_ENTRY && info.Cast<CreateTableInfo>().query;
		return has_rows ? QueryShape::COUNT : QueryShape::CREATED;
	}
	return QueryShape::NOTHING;
}

unique_ptr<TableRef> MakeRemoteQuery(RemoteCatalog &catalog, const string &sql, QueryShape shape,
                                     vector<unique_ptr<ParsedExpression>> parameters) {
	vector<unique_ptr<ParsedExpression>> arguments;
	arguments.push_back(ConstantExpression::String(catalog.GetName().GetIdentifierName()));
	arguments.push_back(ConstantExpression::String(sql));
	arguments.push_back(ConstantExpression::FromValue(Value::UTINYINT(static_cast<uint8_t>(shape))));
	for (auto &parameter : parameters) {
		auto &name = parameter->Cast<ParameterExpression>().Identifier();
		arguments.push_back(ConstantExpression::String(name.GetIdentifierName()));
		arguments.push_back(std::move(parameter));
	}
	auto result = make_uniq<TableFunctionRef>();
	result->function = make_uniq<FunctionExpression>(Identifier(QUERY_FUNCTION), std::move(arguments));
	return std::move(result);
}

bool IsRemoteQuery(const TableRef &ref) {
	if (ref.type != TableReferenceType::TABLE_FUNCTION) {
		return false;
	}
	auto &function = *ref.Cast<TableFunctionRef>().function;
	return function.GetExpressionClass() == ExpressionClass::FUNCTION &&
	       function.Cast<FunctionExpression>().FunctionName() == Identifier(QUERY_FUNCTION);
}

//===--------------------------------------------------------------------===//
// Statements
//===--------------------------------------------------------------------===//

namespace {

//! A started scan, and the query it was started for. Whoever binds first and executes in the same query gets it;
//! anybody else must see what has been committed since, and starts another.
struct StartedScan {
	mutex lock;
	ScanHandle scan;
	transaction_t query_id = MAXIMUM_QUERY_ID;
};

struct RemoteQueryData : public TableFunctionData {
	explicit RemoteQueryData(RemoteStatement statement)
	    : statement(std::move(statement)), started(make_shared_ptr<StartedScan>()) {
	}

	RemoteStatement statement;
	vector<LogicalType> types;
	shared_ptr<StartedScan> started;

	unique_ptr<FunctionData> Copy() const override {
		auto copy = make_uniq<RemoteQueryData>(statement);
		copy->types = types;
		copy->started = started;
		return std::move(copy);
	}
	bool Equals(const FunctionData &other) const override {
		return this == &other;
	}
	bool SupportStatementCache() const override {
		return false;
	}

	//! `typed`: the user's text, if the statement was made of that alone.
	ScanHandle Start(ClientContext &context, const string &typed = string()) const {
		ScanHandle scan;
		auto transactional = RemoteTransaction::SpansStatements(context, statement.catalog);
		CheckSent(context, statement.sql, [&](DhBuffer *error) {
			return Api().scan_start(statement.catalog.Session(context), Text(statement.sql), Text(typed), transactional,
			                        statement.shape != QueryShape::ROWS, InterruptOf(context), scan.Slot(), error);
		});
		return scan;
	}

	//! For whoever executes it in this query.
	void SetStarted(ClientContext &context, ScanHandle scan) const {
		lock_guard<mutex> guard(started->lock);
		started->scan = std::move(scan);
		started->query_id = context.transaction.GetActiveQuery();
	}
};

//! Names and values of parameters come after the function's own arguments.
constexpr idx_t FIRST_PARAMETER = 3;

//! Puts values in the place of the parameters of `sql`.
string WithParameterValues(ClientContext &context, const string &sql, const vector<Value> &arguments) {
	if (arguments.size() <= FIRST_PARAMETER) {
		return sql;
	}
	identifier_map_t<Value> values;
	for (idx_t i = FIRST_PARAMETER; i + 1 < arguments.size(); i += 2) {
		values[Identifier(StringValue::Get(arguments[i]))] = arguments[i + 1];
	}
	Parser parser(context);
	parser.ParseQuery(sql);
	if (parser.statements.size() != 1) {
		throw InvalidInputException("%s: parameters are for one statement", QUERY_FUNCTION);
	}
	auto statement = std::move(parser.statements[0]);
	VisitExpressions(*statement, [&](unique_ptr<ParsedExpression> &expression) {
		if (expression->GetExpressionClass() != ExpressionClass::PARAMETER) {
			return;
		}
		auto value = values.find(expression->Cast<ParameterExpression>().Identifier());
		if (value == values.end()) {
			throw InvalidInputException("no value for parameter %s", expression->ToString());
		}
		auto alias = expression->GetAlias();
		expression = ConstantExpression::FromValue(value->second);
		expression->SetAlias(std::move(alias));
	});
	return Deparse(context, *statement);
}

//! The columns of a statement that the duckling binds and does not run.
void DescribeColumns(ClientContext &context, const RemoteStatement &statement, vector<LogicalType> &types,
                     vector<Identifier> &names) {
	ColumnsHandle columns;
	CheckSent(context, statement.sql, [&](DhBuffer *error) {
		return Api().describe(statement.catalog.Session(context), Text(statement.sql), InterruptOf(context),
		                      columns.Slot(), error);
	});
	DhColumnView column;
	for (idx_t i = 0; Api().columns_get(columns.Get(), i, &column) == DhOk; i++) {
		LogicalType type;
		if (!TryParseType(context, String(column.type_text), type)) {
			type = LogicalType::VARCHAR;
		}
		types.push_back(std::move(type));
		names.emplace_back(String(column.name));
	}
}

unique_ptr<FunctionData> RemoteQueryBind(ClientContext &context, TableFunctionBindInput &input,
                                         vector<LogicalType> &return_types, vector<Identifier> &names) {
	auto catalog_name = Identifier(StringValue::Get(input.inputs[0]));
	auto &catalog = Catalog::GetCatalog(context, catalog_name);
	if (catalog.GetCatalogType() != RemoteCatalog::TYPE) {
		throw InvalidInputException("\"%s\" is not an attached duckling", catalog_name.GetIdentifierName());
	}
	auto shape_value = UTinyIntValue::Get(input.inputs[2]);
	if (shape_value > static_cast<uint8_t>(QueryShape::LOCAL)) {
		throw InvalidInputException("%s: unknown shape %d", QUERY_FUNCTION, shape_value);
	}
	auto data = make_uniq<RemoteQueryData>(
	    RemoteStatement {catalog.Cast<RemoteCatalog>(),
	                     WithParameterValues(context, StringValue::Get(input.inputs[1]), input.inputs),
	                     static_cast<QueryShape>(shape_value),
	                     {},
	                     {}});
	auto &statement = data->statement;
	for (idx_t i = FIRST_PARAMETER; i < input.inputs.size(); i += 2) {
		statement.parameters.emplace_back(StringValue::Get(input.inputs[i]));
	}
	if (input.binder && statement.shape != QueryShape::LOCAL) {
		auto &properties = input.binder->GetStatementProperties();
		if (statement.shape == QueryShape::ROWS) {
			properties.RegisterDBRead(catalog, context);
		} else {
			// DuckDB then refuses writes to what is attached READ_ONLY, and to two databases in one transaction.
			properties.RegisterDBModify(catalog, context, DatabaseModificationType::INSERT_DATA);
		}
	}
	switch (statement.shape) {
	case QueryShape::ROWS: {
		auto session = RemoteSession::Of(context, statement.catalog);
		if (session->OnlyBinds(context)) {
			if (RemoteTransaction::SpansStatements(context, statement.catalog)) {
				Check([&](DhBuffer *error) {
					return Api().session_begin(statement.catalog.Session(context), InterruptOf(context), error);
				});
			}
			DescribeColumns(context, statement, return_types, names);
			break;
		}
		auto foreseen = make_shared_ptr<ScanHandle>();
		if (session->WillConfirm() && Check([&](DhBuffer *error) {
			    return Api().scan_foreseen(statement.catalog.Session(context), Text(statement.sql), foreseen->Slot(), error);
		    })) {
			ArrowResultColumns(context, foreseen->Get(), return_types, names);
			session->ConfirmWith([foreseen, session = session.get(),
			                      to_start = make_shared_ptr<RemoteQueryData>(*data)](ClientContext &context) {
				auto scan = to_start->Start(context, session->TypedText(context));
				auto is_foreseen = Api().scan_has_columns_of(scan.Get(), foreseen->Get());
				if (is_foreseen) {
					to_start->SetStarted(context, std::move(scan));
				} else {
					session->Keep(std::move(scan), to_start->statement.sql);
				}
				return is_foreseen;
			});
			break;
		}
		auto scan = session->TakeKept(statement.sql);
		if (!scan) {
			scan = data->Start(context, session->TypedText(context));
		}
		ArrowResultColumns(context, scan.Get(), return_types, names);
		data->SetStarted(context, std::move(scan));
		break;
	}
	case QueryShape::NOTHING:
		return_types.push_back(LogicalType::BOOLEAN);
		names.emplace_back("Success");
		break;
	case QueryShape::COUNT:
	case QueryShape::CREATED:
	case QueryShape::LOCAL:
		return_types.push_back(LogicalType::BIGINT);
		names.emplace_back("Count");
		break;
	case QueryShape::DESCRIBED:
		DescribeColumns(context, statement, return_types, names);
		break;
	}
	statement.names = names;
	DeduplicateNames(names);
	data->types = return_types;
	return std::move(data);
}

unique_ptr<GlobalTableFunctionState> RemoteQueryInit(ClientContext &context, TableFunctionInitInput &input) {
	auto &data = input.bind_data->Cast<RemoteQueryData>();
	ScanHandle scan;
	{
		lock_guard<mutex> guard(data.started->lock);
		if (data.started->query_id == context.transaction.GetActiveQuery()) {
			scan = std::move(data.started->scan);
		}
		data.started->query_id = MAXIMUM_QUERY_ID;
	}
	if (!scan) {
		scan = data.Start(context);
	}
	return MakeArrowScan(context, std::move(scan), data.types, data.statement.sql);
}

InsertionOrderPreservingMap<string> RemoteQueryToString(TableFunctionToStringInput &input) {
	auto &data = input.bind_data->Cast<RemoteQueryData>();
	InsertionOrderPreservingMap<string> result;
	result["Duckling"] = data.statement.catalog.GetDisplayName();
	result["SQL"] = data.statement.sql;
	return result;
}

} // namespace

static optional_ptr<const RemoteStatement> StatementOf(const BoundTableFunction &function,
                                                       const unique_ptr<FunctionData> &bind_data) {
	if (function.GetName() != Identifier(QUERY_FUNCTION) || !bind_data) {
		return nullptr;
	}
	return bind_data->Cast<RemoteQueryData>().statement;
}

optional_ptr<const RemoteStatement> WholeRemoteStatement(const LogicalOperator &plan) {
	optional_ptr<const LogicalOperator> op = plan;
	while (op->type == LogicalOperatorType::LOGICAL_PROJECTION && op->children.size() == 1) {
		op = op->children[0].get();
	}
	if (op->type != LogicalOperatorType::LOGICAL_GET) {
		return nullptr;
	}
	auto &get = op->Cast<LogicalGet>();
	return StatementOf(get.function, get.bind_data);
}

optional_ptr<const RemoteStatement> StatementOfScan(const PhysicalOperator &op) {
	if (op.type != PhysicalOperatorType::TABLE_SCAN) {
		return nullptr;
	}
	auto &scan = op.Cast<PhysicalTableScan>();
	return StatementOf(scan.function, scan.bind_data);
}

static TableFunction QueryFunction() {
	TableFunction function(Identifier(QUERY_FUNCTION), {LogicalType::VARCHAR, LogicalType::VARCHAR, LogicalType::UTINYINT},
	                       nullptr, RemoteQueryBind, RemoteQueryInit);
	// Names and values of parameters.
	function.GetSignature().AddArgs("parameters", LogicalType::ANY);
	SetUpArrowScan(function);
	function.to_string = RemoteQueryToString;
	return function;
}

TableFunction MakeStatementScan(RemoteStatement statement, vector<LogicalType> types,
                                unique_ptr<FunctionData> &bind_data) {
	auto data = make_uniq<RemoteQueryData>(std::move(statement));
	data->types = std::move(types);
	bind_data = std::move(data);
	return QueryFunction();
}

void RegisterRemoteQuery(ExtensionLoader &loader) {
	loader.RegisterFunction(QueryFunction());
}

} // namespace duckherder
