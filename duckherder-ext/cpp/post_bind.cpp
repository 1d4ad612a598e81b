#include "bind_aside.hpp"
#include "copy_schema.hpp"
#include "planner_hooks.hpp"
#include "remote_catalog.hpp"
#include "remote_query.hpp"
#include "remote_table.hpp"
#include "result_names.hpp"

#include "duckdb/execution/physical_plan_generator.hpp"
#include "duckdb/main/config.hpp"
#include "duckdb/parser/expression/columnref_expression.hpp"
#include "duckdb/parser/expression/constant_expression.hpp"
#include "duckdb/parser/expression/function_expression.hpp"
#include "duckdb/parser/expression/parameter_expression.hpp"
#include "duckdb/parser/expression/star_expression.hpp"
#include "duckdb/parser/parser.hpp"
#include "duckdb/parser/query_node/select_node.hpp"
#include "duckdb/parser/statement/explain_statement.hpp"
#include "duckdb/parser/statement/select_statement.hpp"
#include "duckdb/planner/binder.hpp"
#include "duckdb/planner/bound_parameter_map.hpp"
#include "duckdb/planner/expression/bound_parameter_expression.hpp"
#include "duckdb/planner/operator/logical_explain.hpp"
#include "duckdb/planner/operator/logical_extension_operator.hpp"
#include "duckdb/planner/operator/logical_vacuum.hpp"
#include "duckdb/planner/planner_extension.hpp"

namespace duckherder {

using namespace duckdb;

//! The plan of a statement that runs on a duckling as a whole. DuckDB's optimizers, some forty of them, would look at it in
//! vain.
class LogicalWholeStatement : public LogicalExtensionOperator {
public:
	static constexpr const char *NAME = "duckherder_statement";

	explicit LogicalWholeStatement(unique_ptr<LogicalOperator> plan) {
		children.push_back(std::move(plan));
		LogicalOperator::ResolveOperatorTypes();
	}

	PhysicalOperator &CreatePlan(ClientContext &, PhysicalPlanGenerator &planner) override {
		return planner.CreatePlan(*children[0]);
	}
	bool RequireOptimizer() const override {
		return false;
	}
	vector<ColumnBinding> GetColumnBindings() override {
		return children[0]->GetColumnBindings();
	}
	string GetName() const override {
		return "DUCKHERDER_STATEMENT";
	}
	string GetExtensionName() const override {
		return NAME;
	}

protected:
	void ResolveTypes() override {
		types = children[0]->types;
	}
};

//! EXPLAIN with the options of `explain`, of the statement on the server.
static string ExplainSql(const LogicalExplain &explain, const RemoteStatement &statement) {
	vector<string> options;
	switch (explain.explain_type) {
	case ExplainType::EXPLAIN_ANALYZE:
		options.emplace_back("ANALYZE");
		break;
	case ExplainType::EXPLAIN_SQL:
		options.emplace_back("SQL");
		break;
	default:
		break;
	}
	if (explain.format != ProfilerPrintFormat::Default()) {
		options.push_back("FORMAT " + explain.format.ToString());
	}
	auto text = options.empty() ? string() : "(" + StringUtil::Join(options, ", ") + ") ";
	return "EXPLAIN " + text + statement.sql;
}

//! Plans as text say where they run. Other formats are for programs, and stay as they are.
static bool IsForPeople(const LogicalExplain &explain) {
	return explain.explain_type != ExplainType::EXPLAIN_SQL &&
	       (explain.format == ProfilerPrintFormat::Default() || explain.format == ProfilerPrintFormat::Text());
}

static unique_ptr<LogicalOperator> BindSelect(PlannerExtensionInput &input, unique_ptr<SelectNode> select) {
	SelectStatement statement;
	statement.node = std::move(select);
	return BindAside(input.context, input.binder, statement).plan;
}

//! The statement that is explained, if all of it runs on a duckling. One that is executed with EXECUTE has been bound anew.
static optional_ptr<const RemoteStatement> ExplainedStatement(const LogicalExplain &explain) {
	optional_ptr<const LogicalOperator> plan = *explain.children[0];
	if (plan->type == LogicalOperatorType::LOGICAL_EXECUTE && !plan->children.empty()) {
		plan = *plan->children[0];
	}
	if (plan->type == LogicalOperatorType::LOGICAL_EXTENSION_OPERATOR &&
	    plan->Cast<LogicalExtensionOperator>().GetExtensionName() == LogicalWholeStatement::NAME) {
		plan = *plan->children[0];
	}
	return WholeRemoteStatement(*plan);
}

static unique_ptr<LogicalOperator> PlanRemoteExplain(PlannerExtensionInput &input, const LogicalExplain &explain,
                                                     const RemoteStatement &statement) {
	auto select = make_uniq<SelectNode>();
	select->select_list.push_back(make_uniq<ColumnRefExpression>("explain_key"));
	unique_ptr<ParsedExpression> value = make_uniq<ColumnRefExpression>("explain_value");
	if (IsForPeople(explain)) {
		vector<unique_ptr<ParsedExpression>> arguments;
		arguments.push_back(ConstantExpression::String("On " + statement.catalog.GetDisplayName() + ":\n"));
		arguments.push_back(std::move(value));
		value = make_uniq<FunctionExpression>("concat", std::move(arguments));
	}
	select->select_list.push_back(std::move(value));
	select->from_table =
	    MakeRemoteQuery(statement.catalog, ExplainSql(explain, statement), QueryShape::DESCRIBED);
	return BindSelect(input, std::move(select));
}

//! VACUUM and ANALYZE of a table run where the table is; DuckDB's own operator knows only its own tables.
static void ReplaceVacuum(PlannerExtensionInput &input, BoundStatement &bound) {
	auto &vacuum = bound.plan->Cast<LogicalVacuum>();
	if (!vacuum.HasTable() || vacuum.GetTable().ParentCatalog().GetCatalogType() != RemoteCatalog::TYPE) {
		return;
	}
	auto &table = vacuum.GetTable().Cast<RemoteTable>();
	vector<string> columns;
	for (auto &column : vacuum.GetInfo().columns) {
		columns.push_back(SQLIdentifier::ToString(column));
	}
	auto sql = string(vacuum.GetInfo().options.vacuum ? "VACUUM " : "") +
	           (vacuum.GetInfo().options.analyze ? "ANALYZE " : "") + table.RemoteName() +
	           (columns.empty() ? string() : "(" + StringUtil::Join(columns, ", ") + ")");
	auto select = make_uniq<SelectNode>();
	select->select_list.push_back(make_uniq<StarExpression>());
	select->from_table = MakeRemoteQuery(table.GetRemoteCatalog(), sql, QueryShape::DESCRIBED);
	bound.plan = BindSelect(input, std::move(select));
	bound.plan->ResolveOperatorTypes();
	bound.types = bound.plan->types;
}

//! Schemas, tables and the like that COPY FROM DATABASE makes on a duckling are made by SQL.
static void ReplaceCopySchema(PlannerExtensionInput &input, BoundStatement &bound) {
	auto &copy = bound.plan->Cast<LogicalCopyDatabase>();
	auto &catalog = Catalog::GetCatalog(input.context, copy.info->target_database);
	if (catalog.GetCatalogType() != RemoteCatalog::TYPE) {
		return;
	}
	bound.plan = PlanCopySchema(catalog.Cast<RemoteCatalog>(), copy);
	bound.plan->ResolveOperatorTypes();
}

//! DuckDB counts the parameters of the statement that it binds, which has none left: without these it would refuse values.
static void DeclareParameters(Binder &binder, const RemoteStatement &statement) {
	auto parameters = binder.GetParameters();
	if (!parameters) {
		return;
	}
	for (auto &name : statement.parameters) {
		auto value = parameters->GetParameterData().find(name);
		if (value == parameters->GetParameterData().end()) {
			continue;
		}
		ParameterExpression parameter;
		parameter.IdentifierMutable() = name;
		auto bound = parameters->BindParameterExpression(parameter);
		bound->ParameterDataMutable()->return_type = value->second.GetValue().type();
	}
}

//! Binds a statement that DuckDB has handed over although it is about this process.
static BoundStatement BindHere(PlannerExtensionInput &input, const RemoteStatement &statement) {
	Parser parser(input.context);
	parser.ParseQuery(statement.sql);
	return BindAside(input.context, input.binder, *parser.statements[0], input.binder.GetStatementProperties());
}

static void PostBind(PlannerExtensionInput &input, BoundStatement &bound) {
	if (!bound.plan) {
		return;
	}
	if (bound.plan->type == LogicalOperatorType::LOGICAL_EXPLAIN) {
		auto &explain = bound.plan->Cast<LogicalExplain>();
		auto statement = ExplainedStatement(explain);
		if (statement) {
			bound.plan = PlanRemoteExplain(input, explain, *statement);
		}
		return;
	}
	if (bound.plan->type == LogicalOperatorType::LOGICAL_VACUUM) {
		return ReplaceVacuum(input, bound);
	}
	if (bound.plan->type == LogicalOperatorType::LOGICAL_COPY_DATABASE) {
		return ReplaceCopySchema(input, bound);
	}
	auto statement = WholeRemoteStatement(*bound.plan);
	if (!statement) {
		return;
	}
	if (statement->shape == QueryShape::LOCAL) {
		bound = BindHere(input, *statement);
		return;
	}
	if (statement->names.size() == bound.names.size()) {
		bound.names = statement->names;
		NameAsTyped(input.context, statement->sql, bound.names);
	}
	DeclareParameters(input.binder, *statement);
	auto &properties = input.binder.GetStatementProperties();
	switch (statement->shape) {
	case QueryShape::COUNT:
		properties.return_type = StatementReturnType::CHANGED_ROWS;
		break;
	case QueryShape::NOTHING:
	case QueryShape::CREATED:
		properties.return_type = StatementReturnType::NOTHING;
		break;
	default:
		break;
	}
	bound.plan = make_uniq<LogicalWholeStatement>(std::move(bound.plan));
}

void RegisterPostBind(DBConfig &config) {
	PlannerExtension extension;
	extension.post_bind_function = PostBind;
	PlannerExtension::Register(config, extension);
}

} // namespace duckherder
