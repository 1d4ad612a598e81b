#include "sql_export.hpp"

#include "deparse.hpp"
#include "remote_catalog.hpp"
#include "remote_default.hpp"

#include "duckdb/planner/expression/bound_aggregate_expression.hpp"
#include "duckdb/planner/expression/bound_cast_expression.hpp"
#include "duckdb/planner/expression/bound_function_expression.hpp"
#include "duckdb/optimizer/column_binding_replacer.hpp"
#include "duckdb/planner/column_binding_map.hpp"
#include "duckdb/planner/expression_iterator.hpp"

namespace duckherder {

using namespace duckdb;

static bool ServerHasFunction(ClientContext &context, RemoteCatalog &catalog, const string &name) {
	return Check([&](DhBuffer *error) {
		return Api().has_function(catalog.Session(context), Text(StringUtil::Lower(name)), InterruptOf(context), error);
	});
}

//! Operators that have a spelling of their own are there without a function of that name.
static bool IsOperator(const Expression &expression, const string &name) {
	return BoundCastExpression::IsCast(expression) || expression.GetExpressionType() != ExpressionType::BOUND_FUNCTION ||
	       (!name.empty() && !StringUtil::CharacterIsAlpha(name[0]));
}

bool ServerKnowsFunctions(ClientContext &context, RemoteCatalog &catalog, const Expression &expression) {
	if (IsRemoteDefault(expression)) {
		return true;
	}
	auto known = true;
	if (expression.GetExpressionClass() == ExpressionClass::BOUND_FUNCTION) {
		auto name = expression.Cast<BoundFunctionExpression>().Function().GetName().GetIdentifierName();
		auto internal = StringUtil::StartsWith(name, "__internal");
		known = !internal && (IsOperator(expression, name) || ServerHasFunction(context, catalog, name));
	} else if (expression.GetExpressionClass() == ExpressionClass::BOUND_AGGREGATE) {
		auto &aggregate = expression.Cast<BoundAggregateExpression>();
		known = ServerHasFunction(context, catalog, aggregate.Function().GetName().GetIdentifierName());
	}
	ExpressionIterator::EnumerateChildren(expression, [&](const Expression &child) {
		known = known && ServerKnowsFunctions(context, catalog, child);
	});
	return known;
}

optional<string> ExportExpression(ClientContext &context, RemoteCatalog &catalog, const Expression &expression,
                                  BoundExpressionSQLBindingResolver resolve) {
	if (expression.IsVolatile() || expression.HasParameter() || expression.HasSubquery() ||
	    !ServerKnowsFunctions(context, catalog, expression)) {
		return optional<string>();
	}
	BoundExpressionSQLExportContext export_context;
	export_context.client_context = &context;
	export_context.resolve_binding = std::move(resolve);
	auto exported = BoundExpressionSQLExporter::Export(expression, export_context);
	if (exported.HasError()) {
		return optional<string>();
	}
	return Deparse(context, std::move(exported.GetValue()));
}

void ReplaceColumns(LogicalOperator &root, const vector<ColumnBinding> &old_bindings, LogicalOperator &replacement) {
	auto new_bindings = replacement.GetColumnBindings();
	column_binding_set_t seen;
	ColumnBindingReplacer replacer;
	for (idx_t i = 0; i < old_bindings.size(); i++) {
		if (seen.insert(old_bindings[i]).second) {
			replacer.replacement_bindings.emplace_back(old_bindings[i], new_bindings[i]);
		}
	}
	replacer.stop_operator = replacement;
	replacer.VisitOperator(root);
}

} // namespace duckherder
