#include "deparse.hpp"

#include "expression_visitor.hpp"

#include "duckdb/catalog/catalog_entry/table_catalog_entry.hpp"
#include "duckdb/parser/expression/cast_expression.hpp"
#include "duckdb/parser/expression/columnref_expression.hpp"
#include "duckdb/parser/expression/constant_expression.hpp"
#include "duckdb/parser/expression/function_expression.hpp"
#include "duckdb/parser/parsed_expression_iterator.hpp"
#include "duckdb/parser/parser.hpp"
#include "duckdb/parser/query_node/insert_query_node.hpp"
#include "duckdb/parser/query_node/merge_query_node.hpp"
#include "duckdb/parser/statement/insert_statement.hpp"
#include "duckdb/parser/statement/merge_into_statement.hpp"
#include "duckdb/parser/tableref/basetableref.hpp"

namespace duckherder {

using namespace duckdb;

namespace {

//===--------------------------------------------------------------------===//
// Folded constants
//===--------------------------------------------------------------------===//

//! What a constant was folded from: the optimizer names the constant after it. Null if that is a name that a user gave.
unique_ptr<ParsedExpression> FoldedFrom(ClientContext &context, const ParsedExpression &expression) {
	auto &alias = expression.GetAlias();
	auto &text = alias.GetIdentifierName();
	if (std::all_of(text.begin(), text.end(),
	                [](char c) { return StringUtil::CharacterIsAlphaNumeric(c) || c == '_'; })) {
		return nullptr;
	}
	try {
		auto parsed = Parser(context).ParseExpressionList(text);
		if (parsed.size() == 1 && parsed[0]->GetExpressionClass() != ExpressionClass::COLUMN_REF &&
		    parsed[0]->ToString() == text) {
			return std::move(parsed[0]);
		}
	} catch (std::exception &) { // NOLINT: then it is a name
	}
	return nullptr;
}

//! `+` and its like. Other functions may ask this process for its clock, settings or variables, whatever they say of
//! themselves.
bool IsOperator(const FunctionExpression &function) {
	auto &name = function.FunctionName().GetIdentifierName();
	return !name.empty() && !StringUtil::CharacterIsAlpha(name[0]) && name[0] != '_';
}

//! Functions that only put values together.
bool IsConstructor(const FunctionExpression &function) {
	static const identifier_set_t CONSTRUCTORS {"union_value", "struct_pack", "list_value", "row", "map"};
	return CONSTRUCTORS.find(function.FunctionName()) != CONSTRUCTORS.end();
}

//! Whether an expression means the same wherever it is evaluated. Then it need not be folded here, and as it was
//! written it has the type that it was written with: a literal would take on another.
bool MeansTheSameThere(const ParsedExpression &expression) {
	switch (expression.GetExpressionClass()) {
	case ExpressionClass::CONSTANT:
	case ExpressionClass::CAST:
	case ExpressionClass::OPERATOR:
	case ExpressionClass::COMPARISON:
	case ExpressionClass::CONJUNCTION:
	case ExpressionClass::CASE:
	case ExpressionClass::BETWEEN:
		break;
	case ExpressionClass::FUNCTION:
		if (!IsOperator(expression.Cast<FunctionExpression>()) &&
		    !IsConstructor(expression.Cast<FunctionExpression>())) {
			return false;
		}
		break;
	default:
		return false;
	}
	auto same = true;
	ParsedExpressionIterator::EnumerateChildren(expression, [&](const ParsedExpression &child) {
		same = same && MeansTheSameThere(child);
	});
	return same;
}

unique_ptr<ParsedExpression> CastTo(const char *type_name, unique_ptr<ParsedExpression> expression) {
	auto type = make_uniq<TypeExpression>(Identifier(type_name), vector<unique_ptr<ParsedExpression>>());
	return make_uniq<CastExpression>(std::move(type), std::move(expression));
}

//! A literal with the type of the value that it was made of.
unique_ptr<ParsedExpression> Typed(const ConstantExpression &constant) {
	switch (constant.GetLiteral().kind) {
	case LiteralKind::STRING:
		return CastTo("VARCHAR", constant.Copy());
	case LiteralKind::INVALID:
	case LiteralKind::NULL_LITERAL:
		return nullptr;
	default:
		// It was made a literal since that is of the value's type. An aggregate's ORDER BY, for one, refuses literals.
		return make_uniq<CastExpression>(constant.GetLiteral().ToValue().type(), constant.Copy());
	}
}

//! Text with NULs in it, which SQL text cannot have.
unique_ptr<ParsedExpression> WithoutNul(const string &text) {
	vector<unique_ptr<ParsedExpression>> parts;
	idx_t start = 0;
	while (true) {
		auto end = text.find('\0', start);
		parts.push_back(ConstantExpression::String(text.substr(start, end - start)));
		if (end == string::npos) {
			break;
		}
		vector<unique_ptr<ParsedExpression>> code;
		code.push_back(ConstantExpression::Integer(0));
		parts.push_back(make_uniq<FunctionExpression>("chr", std::move(code)));
		start = end + 1;
	}
	return CastTo("VARCHAR", make_uniq<FunctionExpression>("concat", std::move(parts)));
}

void RestoreConstant(ClientContext &context, unique_ptr<ParsedExpression> &expression) {
	auto alias = expression->GetAlias();
	auto &constant = expression->Cast<ConstantExpression>();
	auto &literal = constant.GetLiteral();
	auto original = FoldedFrom(context, constant);
	if (original && MeansTheSameThere(*original)) {
		expression = std::move(original);
	} else if (literal.kind == LiteralKind::STRING && literal.text.find('\0') != string::npos) {
		expression = WithoutNul(literal.text);
	} else if (original) {
		auto typed = Typed(constant);
		if (typed) {
			expression = std::move(typed);
		}
	}
	expression->SetAlias(std::move(alias));
}

//! A folded argument has got a name, and would be taken for a named argument.
void ForgetNamesOfArguments(ClientContext &context, FunctionExpression &function) {
	for (auto &argument : function.GetArgumentsMutable()) {
		auto &expression = argument.GetExpressionMutable();
		if (FoldedFrom(context, *expression)) {
			expression->SetAlias(Identifier());
		}
	}
}

void Restore(ClientContext &context, unique_ptr<ParsedExpression> &expression) {
	switch (expression->GetExpressionClass()) {
	case ExpressionClass::CONSTANT:
		return RestoreConstant(context, expression);
	case ExpressionClass::FUNCTION:
		return ForgetNamesOfArguments(context, expression->Cast<FunctionExpression>());
	default:
		return;
	}
}

//===--------------------------------------------------------------------===//
// Names that are written without quotes
//===--------------------------------------------------------------------===//

void Quote(vector<Identifier> &names) {
	for (auto &name : names) {
		name = Identifier(SQLIdentifier::ToString(name));
	}
}

void QuoteNames(QueryNode &node) {
	if (node.type == QueryNodeType::INSERT_QUERY_NODE) {
		auto &conflict = node.Cast<InsertQueryNode>().on_conflict_info;
		if (conflict) {
			Quote(conflict->indexed_columns);
			if (conflict->set_info) {
				Quote(conflict->set_info->columns);
			}
		}
	} else if (node.type == QueryNodeType::MERGE_QUERY_NODE) {
		Quote(node.Cast<MergeQueryNode>().using_columns);
	}
	for (auto &entry : node.cte_map.map) {
		if (entry.second->query_node) {
			QuoteNames(*entry.second->query_node);
		}
	}
}

void RestoreAll(ClientContext &context, unique_ptr<ParsedExpression> &expression) {
	ParsedExpressionIterator::EnumerateChildren(
	    *expression, [&](unique_ptr<ParsedExpression> &child) { RestoreAll(context, child); });
	Restore(context, expression);
}

} // namespace

string Deparse(ClientContext &context, unique_ptr<ParsedExpression> expression) {
	RestoreAll(context, expression);
	return expression->ToString();
}

string Deparse(ClientContext &context, QueryNode &node) {
	VisitExpressions(node, [&](unique_ptr<ParsedExpression> &expression) { Restore(context, expression); });
	QuoteNames(node);
	return node.ToString();
}

string Deparse(ClientContext &context, SQLStatement &statement) {
	VisitExpressions(statement, [&](unique_ptr<ParsedExpression> &expression) { Restore(context, expression); });
	if (statement.type == StatementType::INSERT_STATEMENT) {
		QuoteNames(*statement.Cast<InsertStatement>().node);
	} else if (statement.type == StatementType::MERGE_INTO_STATEMENT) {
		QuoteNames(*statement.Cast<MergeIntoStatement>().node);
	}
	return statement.ToString();
}

void SetSomething(MergeQueryNode &merge, const TableCatalogEntry &table) {
	auto &target = merge.target->Cast<BaseTableRef>();
	auto &name = target.alias.empty() ? table.name : target.alias;
	for (auto &entry : merge.actions) {
		for (auto &action : entry.second) {
			if (!action->update_info || !action->update_info->columns.empty()) {
				continue;
			}
			auto &column = table.GetColumns().GetColumn(PhysicalIndex(0)).Name();
			action->update_info->columns.push_back(column);
			action->update_info->expressions.push_back(make_uniq<ColumnRefExpression>(column, name));
		}
	}
}

} // namespace duckherder
