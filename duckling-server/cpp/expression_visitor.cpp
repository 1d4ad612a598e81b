#include "expression_visitor.hpp"

#include "duckdb/parser/expression/subquery_expression.hpp"
#include "duckdb/parser/parsed_data/create_table_info.hpp"
#include "duckdb/parser/parsed_data/create_view_info.hpp"
#include "duckdb/parser/parsed_expression_iterator.hpp"
#include "duckdb/parser/query_node/delete_query_node.hpp"
#include "duckdb/parser/query_node/insert_query_node.hpp"
#include "duckdb/parser/query_node/merge_query_node.hpp"
#include "duckdb/parser/query_node/update_query_node.hpp"
#include "duckdb/parser/statement/create_statement.hpp"
#include "duckdb/parser/statement/delete_statement.hpp"
#include "duckdb/parser/statement/insert_statement.hpp"
#include "duckdb/parser/statement/merge_into_statement.hpp"
#include "duckdb/parser/statement/select_statement.hpp"
#include "duckdb/parser/statement/update_statement.hpp"

namespace duckherder {

using namespace duckdb;

static void Visit(unique_ptr<ParsedExpression> &expression, const ExpressionVisitor &visit,
                  const TableRefVisitor &visit_ref) {
	if (expression->GetExpressionClass() == ExpressionClass::SUBQUERY) {
		VisitExpressions(*expression->Cast<SubqueryExpression>().SubqueryMutable()->node, visit, visit_ref);
	}
	ParsedExpressionIterator::EnumerateChildren(
	    *expression, [&](unique_ptr<ParsedExpression> &child) { Visit(child, visit, visit_ref); });
	visit(expression);
}

void VisitExpressions(QueryNode &node, const ExpressionVisitor &visit, const TableRefVisitor &visit_ref) {
	ParsedExpressionIterator::EnumerateQueryNodeChildren(
	    node, [&](unique_ptr<ParsedExpression> &expression) { Visit(expression, visit, visit_ref); }, visit_ref);
}

void VisitExpressions(SQLStatement &statement, const ExpressionVisitor &visit, const TableRefVisitor &visit_ref) {
	switch (statement.type) {
	case StatementType::SELECT_STATEMENT:
		return VisitExpressions(*statement.Cast<SelectStatement>().node, visit, visit_ref);
	case StatementType::INSERT_STATEMENT:
		return VisitExpressions(*statement.Cast<InsertStatement>().node, visit, visit_ref);
	case StatementType::UPDATE_STATEMENT:
		return VisitExpressions(*statement.Cast<UpdateStatement>().node, visit, visit_ref);
	case StatementType::DELETE_STATEMENT:
		return VisitExpressions(*statement.Cast<DeleteStatement>().node, visit, visit_ref);
	case StatementType::MERGE_INTO_STATEMENT:
		return VisitExpressions(*statement.Cast<MergeIntoStatement>().node, visit, visit_ref);
	case StatementType::CREATE_STATEMENT: {
		auto &info = *statement.Cast<CreateStatement>().info;
		if (info.type == CatalogType::TABLE_ENTRY && info.Cast<CreateTableInfo>().query) {
			VisitExpressions(*info.Cast<CreateTableInfo>().query->node, visit, visit_ref);
		} else if (info.type == CatalogType::VIEW_ENTRY) {
			VisitExpressions(*info.Cast<CreateViewInfo>().query->node, visit, visit_ref);
		}
		return;
	}
	default:
		return;
	}
}

} // namespace duckherder
