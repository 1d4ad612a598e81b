#include "stored_results.hpp"

#include "stored_types.hpp"
#include "type_text.hpp"

#include "duckdb/main/client_context.hpp"
#include "duckdb/main/client_context_state.hpp"
#include "duckdb/main/connection.hpp"
#include "duckdb/planner/binder.hpp"
#include "duckdb/planner/expression/bound_columnref_expression.hpp"
#include "duckdb/planner/expression/bound_function_expression.hpp"
#include "duckdb/planner/operator/logical_projection.hpp"

namespace duckling {

using namespace duckdb;

namespace {

constexpr const char *FUNCTION = "duckling_stored";
constexpr const char *STATE = "duckling_stored_results";

struct StoredResults : public ClientContextState {
	bool stores = false;
	//! Of the statement that was planned last; empty if nothing of it is stored, and DuckDB's own texts are exact.
	vector<string> types;

	static shared_ptr<StoredResults> Get(ClientContext &context) {
		return context.registered_state->Get<StoredResults>(STATE);
	}
};

void Execute(DataChunk &input, ExpressionState &, Vector &result) {
	result.Reference(duckherder::ToStored(input.data[0]));
}

unique_ptr<Expression> Stored(unique_ptr<Expression> column) {
	auto &type = column->GetReturnType();
	ScalarFunction function(FUNCTION, {type}, duckherder::StoredType(type), Execute);
	vector<unique_ptr<Expression>> arguments;
	arguments.push_back(std::move(column));
	return make_uniq<BoundFunctionExpression>(BoundScalarFunction(function), std::move(arguments), nullptr);
}

//! Statements that plan another one, or none.
bool HasOwnResult(const LogicalOperator &plan) {
	switch (plan.type) {
	case LogicalOperatorType::LOGICAL_PREPARE:
	case LogicalOperatorType::LOGICAL_EXECUTE:
	case LogicalOperatorType::LOGICAL_EXPLAIN:
		return false;
	default:
		return true;
	}
}

bool IsStored(const Expression &expression) {
	return expression.GetExpressionClass() == ExpressionClass::BOUND_FUNCTION &&
	       expression.Cast<BoundFunctionExpression>().Function().GetName() == Identifier(FUNCTION);
}

} // namespace

void StoreResult(ClientContext &context, Binder &binder, BoundStatement &bound) {
	auto state = StoredResults::Get(context);
	if (!state || !state->stores || !bound.plan) {
		return;
	}
	state->types.clear();
	if (!HasOwnResult(*bound.plan)) {
		return;
	}
	auto stored = duckherder::StoredTypes(bound.types);
	auto is_stored = stored != bound.types;
	if (is_stored || std::any_of(bound.types.begin(), bound.types.end(), duckherder::IsCollated)) {
		for (auto &type : bound.types) {
			state->types.push_back(duckherder::TypeText(type));
		}
	}
	if (!is_stored) {
		return;
	}
	bound.plan->ResolveOperatorTypes();
	auto bindings = bound.plan->GetColumnBindings();
	if (bindings.size() != bound.types.size()) {
		state->types.clear();
		return;
	}
	vector<unique_ptr<Expression>> columns;
	for (idx_t i = 0; i < bindings.size(); i++) {
		unique_ptr<Expression> column = make_uniq<BoundColumnRefExpression>(bound.types[i], bindings[i]);
		columns.push_back(stored[i] == bound.types[i] ? std::move(column) : Stored(std::move(column)));
	}
	auto projection = make_uniq<LogicalProjection>(binder.GenerateTableIndex(), std::move(columns));
	projection->children.push_back(std::move(bound.plan));
	projection->ResolveOperatorTypes();
	bound.plan = std::move(projection);
	bound.types = std::move(stored);
}

unique_ptr<LogicalOperator> &BelowStored(unique_ptr<LogicalOperator> &plan) {
	if (plan->type != LogicalOperatorType::LOGICAL_PROJECTION) {
		return plan;
	}
	for (auto &expression : plan->expressions) {
		if (IsStored(*expression)) {
			return plan->children[0];
		}
	}
	return plan;
}

} // namespace duckling

extern "C" {

void duckling_store_results(void *connection, bool stores) {
	using duckling::StoredResults;
	try {
		auto &context = *static_cast<duckdb::Connection *>(connection)->context;
		auto state = context.registered_state->GetOrCreate<StoredResults>(duckling::STATE);
		state->stores = stores;
		if (stores) {
			state->types.clear();
		}
	} catch (...) { // NOLINT: nothing may be thrown into Rust; results then leave as Arrow has them
	}
}

const char *duckling_stored_column(void *connection, size_t column) {
	using duckling::StoredResults;
	try {
		auto state = StoredResults::Get(*static_cast<duckdb::Connection *>(connection)->context);
		return state && column < state->types.size() ? state->types[column].c_str() : nullptr;
	} catch (...) { // NOLINT: nothing may be thrown into Rust
		return nullptr;
	}
}
}
