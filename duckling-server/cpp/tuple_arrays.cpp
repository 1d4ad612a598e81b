#include "tuple_arrays.hpp"

#include "duckdb/common/type_visitor.hpp"
#include "duckdb/planner/expression.hpp"
#include "duckdb/planner/expression/bound_aggregate_expression.hpp"
#include "duckdb/planner/logical_operator_visitor.hpp"
#include "duckdb/planner/operator/logical_aggregate.hpp"

namespace duckling {

using namespace duckdb;

namespace {

bool IsTupleOfArrays(const LogicalType &type) {
	return TypeVisitor::Contains(type, [](const LogicalType &part) {
		return part.id() == LogicalTypeId::TUPLE && TypeVisitor::Contains(part, LogicalTypeId::ARRAY);
	});
}

bool AnyIsTupleOfArrays(const vector<unique_ptr<Expression>> &expressions) {
	return std::any_of(expressions.begin(), expressions.end(), [](const unique_ptr<Expression> &expression) {
		return IsTupleOfArrays(expression->GetReturnType());
	});
}

//! Groups, and values of which each counts once.
bool HashesTuples(const LogicalAggregate &aggregate) {
	auto is_distinct = [](const unique_ptr<Expression> &expression) {
		if (expression->GetExpressionClass() != ExpressionClass::BOUND_AGGREGATE) {
			return false;
		}
		auto &call = expression->Cast<BoundAggregateExpression>();
		return call.IsDistinct() && AnyIsTupleOfArrays(call.GetChildren());
	};
	return AnyIsTupleOfArrays(aggregate.groups) ||
	       std::any_of(aggregate.expressions.begin(), aggregate.expressions.end(), is_distinct);
}

//! Whether an operator keeps such values in a hash table: of its inputs, or made of them.
bool HashesTuples(LogicalOperator &op) {
	switch (op.type) {
	case LogicalOperatorType::LOGICAL_AGGREGATE_AND_GROUP_BY:
		return HashesTuples(op.Cast<LogicalAggregate>());
	case LogicalOperatorType::LOGICAL_ANY_JOIN:
	case LogicalOperatorType::LOGICAL_ASOF_JOIN:
	case LogicalOperatorType::LOGICAL_COMPARISON_JOIN:
	case LogicalOperatorType::LOGICAL_DELIM_JOIN:
	case LogicalOperatorType::LOGICAL_DEPENDENT_JOIN:
	case LogicalOperatorType::LOGICAL_DISTINCT:
	case LogicalOperatorType::LOGICAL_EXCEPT:
	case LogicalOperatorType::LOGICAL_INTERSECT:
	case LogicalOperatorType::LOGICAL_RECURSIVE_CTE:
	case LogicalOperatorType::LOGICAL_WINDOW:
		break;
	default:
		return false;
	}
	auto hashes = false;
	for (auto &child : op.children) {
		hashes = hashes || std::any_of(child->types.begin(), child->types.end(), IsTupleOfArrays);
	}
	LogicalOperatorVisitor::EnumerateExpressions(op, [&](unique_ptr<Expression> *expression) {
		hashes = hashes || IsTupleOfArrays((*expression)->GetReturnType());
	});
	return hashes;
}

} // namespace

void RefuseTuplesOfArrays(LogicalOperator &plan) {
	for (auto &child : plan.children) {
		RefuseTuplesOfArrays(*child);
	}
	if (HashesTuples(plan)) {
		throw NotImplementedException(
		    "DuckDB 2.0.0 cannot group by, join or compare tuples with an ARRAY in them; name the parts, as in "
		    "{'a': [1]::INTEGER[1], 'b': 1}, or cast the ARRAY to a LIST");
	}
}

} // namespace duckling
