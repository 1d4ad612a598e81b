#include "remote_default.hpp"

#include "arrow_scan.hpp"
#include "expression_visitor.hpp"
#include "remote_catalog.hpp"
#include "remote_transaction.hpp"

#include "duckdb/execution/expression_executor_state.hpp"
#include "duckdb/execution/operator/projection/physical_projection.hpp"
#include "duckdb/execution/operator/scan/physical_expression_scan.hpp"
#include "duckdb/function/scalar_function.hpp"
#include "duckdb/main/extension/extension_loader.hpp"
#include "duckdb/parser/expression/cast_expression.hpp"
#include "duckdb/parser/expression/constant_expression.hpp"
#include "duckdb/parser/parser.hpp"
#include "duckdb/planner/expression/bound_function_expression.hpp"
#include "duckdb/planner/expression_iterator.hpp"
#include "duckdb/planner/logical_operator.hpp"
#include "duckdb/planner/logical_operator_visitor.hpp"

namespace duckherder {

using namespace duckdb;

//! `duckherder_default(catalog, default, NULL of the column's type)`
static constexpr const char *FUNCTION = "duckherder_default";

static vector<unique_ptr<ParsedExpression>> Arguments(const Identifier &catalog, const string &sql,
                                                      const LogicalType &type) {
	vector<unique_ptr<ParsedExpression>> arguments;
	arguments.push_back(ConstantExpression::FromValue(Value(catalog.GetIdentifierName())));
	arguments.push_back(ConstantExpression::FromValue(Value(sql)));
	arguments.push_back(ConstantExpression::FromValue(Value(type)));
	return arguments;
}

RemoteDefault::RemoteDefault(const Identifier &catalog, const string &sql, const LogicalType &type)
    : FunctionExpression(QualifiedName("system", "main", FUNCTION), Arguments(catalog, sql, type)), catalog(catalog),
      sql(sql), type(type) {
}

string RemoteDefault::ToString() const {
	return sql;
}

unique_ptr<ParsedExpression> RemoteDefault::Copy() const {
	return make_uniq<RemoteDefault>(catalog, sql, type);
}

bool IsRemoteDefault(const Expression &expression) {
	return expression.GetExpressionClass() == ExpressionClass::BOUND_FUNCTION &&
	       expression.Cast<BoundFunctionExpression>().Function().GetName() == Identifier(FUNCTION);
}

static bool Contains(const Expression &expression) {
	auto contains = IsRemoteDefault(expression);
	ExpressionIterator::EnumerateChildren(expression,
	                                      [&](const Expression &child) { contains = contains || Contains(child); });
	return contains;
}

bool HasRemoteDefault(LogicalOperator &op) {
	auto has = false;
	LogicalOperatorVisitor::EnumerateExpressions(
	    op, [&](unique_ptr<Expression> *expression) { has = has || Contains(**expression); });
	for (auto &child : op.children) {
		has = has || HasRemoteDefault(*child);
	}
	return has;
}

static bool Contain(const vector<unique_ptr<Expression>> &expressions) {
	return std::any_of(expressions.begin(), expressions.end(),
	                   [](const unique_ptr<Expression> &expression) { return Contains(*expression); });
}

bool HasRemoteDefault(const PhysicalOperator &op) {
	auto has = false;
	// INSERT puts them nowhere else.
	if (op.type == PhysicalOperatorType::PROJECTION) {
		has = Contain(op.Cast<PhysicalProjection>().select_list);
	} else if (op.type == PhysicalOperatorType::EXPRESSION_SCAN) {
		for (auto &row : op.Cast<PhysicalExpressionScan>().expressions) {
			has = has || Contain(row);
		}
	}
	for (auto &child : op.GetChildren()) {
		has = has || HasRemoteDefault(child.get());
	}
	return has;
}

vector<PhysicalIndex> LeaveOutDefaults(PhysicalOperator &rows) {
	vector<PhysicalIndex> left;
	vector<unique_ptr<Expression>> expressions;
	vector<LogicalType> types;
	auto is_projection = rows.type == PhysicalOperatorType::PROJECTION;
	for (idx_t i = 0; i < rows.types.size(); i++) {
		if (!is_projection || !IsRemoteDefault(*rows.Cast<PhysicalProjection>().select_list[i])) {
			left.emplace_back(i);
		}
	}
	if (left.empty()) {
		// There is no upload without columns.
		left.emplace_back(idx_t(0));
	}
	if (left.size() == rows.types.size()) {
		return left;
	}
	for (auto &column : left) {
		expressions.push_back(std::move(rows.Cast<PhysicalProjection>().select_list[column.index]));
		types.push_back(rows.types[column.index]);
	}
	rows.Cast<PhysicalProjection>().select_list = std::move(expressions);
	rows.types = std::move(types);
	return left;
}

//! The text in an argument that has been bound and become SQL again.
static const string &TextOf(const ParsedExpression &argument) {
	auto is_cast = argument.GetExpressionClass() == ExpressionClass::CAST;
	auto &text = is_cast ? argument.Cast<CastExpression>().Child() : argument;
	if (text.GetExpressionClass() != ExpressionClass::CONSTANT) {
		throw InvalidInputException("%s is not to be called", FUNCTION);
	}
	return text.Cast<ConstantExpression>().GetLiteral().text;
}

void WriteRemoteDefaults(QueryNode &node) {
	VisitExpressions(node, [](unique_ptr<ParsedExpression> &expression) {
		if (expression->GetExpressionClass() != ExpressionClass::FUNCTION) {
			return;
		}
		auto &function = expression->Cast<FunctionExpression>();
		if (function.FunctionName() != Identifier(FUNCTION)) {
			return;
		}
		auto alias = expression->GetAlias();
		auto sql = TextOf(function.GetArguments()[1].GetExpression());
		auto parsed = Parser::GetBuiltinParser().ParseExpressionList(sql);
		expression = std::move(parsed.at(0));
		expression->SetAlias(alias);
	});
}

static unique_ptr<FunctionData> Bind(BindScalarFunctionInput &input) {
	input.GetBoundFunction().SetReturnType(input.GetArguments()[2]->GetReturnType());
	return nullptr;
}

//! Asks the duckling for as many values as there are rows. An INSERT that leaves the column out does without.
static void Evaluate(DataChunk &arguments, ExpressionState &state, Vector &result) {
	auto &context = state.GetContext();
	auto rows = arguments.size();
	if (rows == 0) {
		return;
	}
	auto name = arguments.GetValue(0, 0);
	auto value = arguments.GetValue(1, 0);
	auto entry = name.IsNull() ? nullptr : Catalog::GetCatalogEntry(context, Identifier(StringValue::Get(name)));
	if (!entry || entry->GetCatalogType() != RemoteCatalog::TYPE || value.IsNull()) {
		throw InvalidInputException("%s is not to be called", FUNCTION);
	}
	auto &catalog = entry->Cast<RemoteCatalog>();
	auto sql = "SELECT (" + StringValue::Get(value) + ") FROM range(" + to_string(rows) + ")";
	ScanHandle scan;
	Check([&](DhBuffer *error) {
		return Api().scan_start(catalog.Session(context), Text(sql), NoText(),
		                        RemoteTransaction::SpansStatements(context, catalog), true, InterruptOf(context),
		                        scan.Slot(), error);
	});
	auto arriving = MakeArrowScan(context, std::move(scan), {result.GetType()}, sql);
	idx_t done = 0;
	ReadArrowScan(context, *arriving, [&](DataChunk &values) {
		for (idx_t i = 0; i < values.size() && done < rows; i++) {
			result.SetValue(done++, values.GetValue(0, i));
		}
	});
	if (done < rows) {
		throw IOException("the duckling has given %llu values of a default for %llu rows", done, rows);
	}
}

void RegisterRemoteDefault(ExtensionLoader &loader) {
	ScalarFunction function(Identifier(FUNCTION), {LogicalType::VARCHAR, LogicalType::VARCHAR, LogicalType::ANY},
	                        LogicalType::ANY, Evaluate, Bind);
	function.SetVolatile();
	function.SetFallible();
	function.SetNullHandling(FunctionNullHandling::SPECIAL_HANDLING);
	loader.RegisterFunction(function);
}

} // namespace duckherder
