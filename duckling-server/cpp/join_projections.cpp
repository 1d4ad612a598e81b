#include "join_projections.hpp"

#include "duckdb/optimizer/column_binding_replacer.hpp"
#include "duckdb/planner/binder.hpp"
#include "duckdb/planner/expression/bound_columnref_expression.hpp"
#include "duckdb/planner/operator/logical_comparison_join.hpp"
#include "duckdb/planner/operator/logical_projection.hpp"

namespace duckling {

using namespace duckdb;

namespace {

//! Whether it may become an operator that knows nothing of its projection maps.
bool IgnoresProjection(const LogicalOperator &op) {
	if (op.type == LogicalOperatorType::LOGICAL_ANY_JOIN) {
		return true;
	}
	if (op.type != LogicalOperatorType::LOGICAL_COMPARISON_JOIN) {
		return false;
	}
	auto &join = op.Cast<LogicalComparisonJoin>();
	idx_t range_count = 0;
	return join.join_type != JoinType::MARK && !join.HasEquality(range_count);
}

void Visit(Binder &binder, unique_ptr<LogicalOperator> &root, unique_ptr<LogicalOperator> &slot) {
	for (auto &child : slot->children) {
		Visit(binder, root, child);
	}
	if (!IgnoresProjection(*slot)) {
		return;
	}
	auto &join = slot->Cast<LogicalJoin>();
	if (join.left_projection_map.empty() && join.right_projection_map.empty()) {
		return;
	}
	join.ResolveOperatorTypes();
	auto types = join.types;
	auto bindings = join.GetColumnBindings();
	join.left_projection_map.clear();
	join.right_projection_map.clear();
	vector<unique_ptr<Expression>> columns;
	for (idx_t i = 0; i < bindings.size(); i++) {
		columns.push_back(make_uniq<BoundColumnRefExpression>(types[i], bindings[i]));
	}
	auto projection = make_uniq<LogicalProjection>(binder.GenerateTableIndex(), std::move(columns));
	if (slot->has_estimated_cardinality) {
		projection->SetEstimatedCardinality(slot->estimated_cardinality);
	}
	projection->children.push_back(std::move(slot));
	projection->ResolveOperatorTypes();
	slot = std::move(projection);
	ColumnBindingReplacer replacer;
	replacer.AddReplacements(bindings, slot->GetColumnBindings());
	replacer.stop_operator = *slot;
	replacer.VisitOperator(*root);
}

} // namespace

void ProjectAboveJoins(Binder &binder, unique_ptr<LogicalOperator> &plan) {
	Visit(binder, plan, plan);
}

} // namespace duckling
