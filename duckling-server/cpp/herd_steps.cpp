#include "herd_steps.hpp"

#include "deparse.hpp"
#include "herd_estimates.hpp"
#include "herd_json.hpp"
#include "herd_scan.hpp"
#include "herd_source.hpp"

#include "duckdb/catalog/catalog_entry/aggregate_function_catalog_entry.hpp"
#include "duckdb/common/extension_type_info.hpp"
#include "duckdb/function/function_binder.hpp"
#include "duckdb/function/scalar/generic_common.hpp"
#include "duckdb/optimizer/column_binding_replacer.hpp"
#include "duckdb/parser/expression/constant_expression.hpp"
#include "duckdb/parser/expression/function_expression.hpp"
#include "duckdb/parser/query_node/select_node.hpp"
#include "duckdb/parser/statement/select_statement.hpp"
#include "duckdb/parser/expression/columnref_expression.hpp"
#include "duckdb/parser/tableref/subqueryref.hpp"
#include "duckdb/parser/tableref/table_function_ref.hpp"
#include "duckdb/planner/bound_expression_sql_exporter.hpp"
#include "duckdb/planner/column_binding_map.hpp"
#include "duckdb/planner/expression/bound_cast_expression.hpp"
#include "duckdb/planner/expression/bound_columnref_expression.hpp"
#include "duckdb/planner/expression/bound_constant_expression.hpp"
#include "duckdb/planner/expression/bound_operator_expression.hpp"
#include "duckdb/planner/logical_plan_sql_exporter.hpp"
#include "duckdb/planner/operator/logical_aggregate.hpp"
#include "duckdb/planner/operator/logical_comparison_join.hpp"
#include "duckdb/planner/operator/logical_distinct.hpp"
#include "duckdb/planner/operator/logical_get.hpp"
#include "duckdb/planner/operator/logical_limit.hpp"
#include "duckdb/planner/operator/logical_projection.hpp"
#include "duckdb/planner/operator/logical_top_n.hpp"

#include "yyjson.hpp"

namespace herd {

using namespace duckdb;
using namespace duckdb_yyjson; // NOLINT
using duckherder::Deparse;

namespace {

//===--------------------------------------------------------------------===//
// Exchanges in a plan
//===--------------------------------------------------------------------===//

constexpr const char *EXCHANGE_SOURCE = "duckherder_exchange_source";
constexpr const char *GATHER = "duckherder_gather";

constexpr const char *STATE_STORAGE = "duckherder_state_storage";

//! What a type is sent as: a state of an aggregate is its storage, as Arrow has no types of our own.
LogicalType SentAs(const LogicalType &type) {
	return type.IsAggregateState() ? type.WithAlias("").WithExtensionInfo(nullptr) : type;
}

unique_ptr<FunctionData> BindStateStorage(BindScalarFunctionInput &input) {
	input.GetBoundFunction().SetReturnType(SentAs(input.GetArguments()[0]->GetReturnType()));
	return nullptr;
}

void StateStorage(DataChunk &arguments, ExpressionState &, Vector &result) {
	result.Reinterpret(arguments.data[0]);
}

bool HasState(const vector<LogicalType> &types) {
	return std::any_of(types.begin(), types.end(), [](const LogicalType &type) { return type.IsAggregateState(); });
}

//! A stage: its parts of a `duckherder_catalog::herd::query::Stage`.
struct StageDraft {
	idx_t id = 0;
	//! Without the bucket.
	string sql;
	//! With it, if its rows are hashed.
	string hashed_sql;
	string workers;
	string output;
	//! Who runs it, and what becomes of its rows, for people.
	string shown;
	vector<LogicalType> types;
	//! The stages that it reads, as often as it reads them.
	vector<shared_ptr<StageDraft>> inputs;
	//! Whether all workers make the same rows.
	bool forward = false;
	//! Of the rows of all workers together.
	Estimates estimates;

	string Json(bool gather) const {
		auto &text = gather || hashed_sql.empty() ? sql : hashed_sql;
		vector<LogicalType> sent;
		for (auto &type : types) {
			sent.push_back(SentAs(type));
		}
		return "{\"id\":" + to_string(id) + ",\"sql\":" + JsonText(text) + ",\"workers\":" + workers +
		       ",\"columns\":" + JsonColumns(sent) + ",\"output\":" + (gather ? "{\"kind\":\"gather\"}" : output) +
		       ",\"inputs\":" + JsonList(inputs.size(), [&](idx_t i) { return to_string(inputs[i]->id); }) +
		       ",\"estimates\":{\"rows\":" + to_string(estimates.rows) + ",\"distinct\":" +
		       JsonList(estimates.distinct.size(), [&](idx_t i) { return to_string(estimates.distinct[i]); }) + "}}";
	}
};

//! A scan of a stage's rows: on the coordinator if it gathers, else a part of another stage, only ever exported.
struct ExchangeData : public TableFunctionData {
	ExchangeData(shared_ptr<StageDraft> stage, bool gather, shared_ptr<const string> summary)
	    : stage(std::move(stage)), gather(gather), summary(std::move(summary)) {
	}

	shared_ptr<StageDraft> stage;
	bool gather;
	//! What the planner has to say of the whole plan, as JSON.
	shared_ptr<const string> summary;

	unique_ptr<FunctionData> Copy() const override {
		return make_uniq<ExchangeData>(stage, gather, summary);
	}
	bool Equals(const FunctionData &other) const override {
		return stage == other.Cast<ExchangeData>().stage;
	}
	bool SupportStatementCache() const override {
		return false;
	}
};

void CollectStages(const shared_ptr<StageDraft> &stage, vector<shared_ptr<StageDraft>> &stages) {
	for (auto &input : stage->inputs) {
		if (std::find(stages.begin(), stages.end(), input) == stages.end()) {
			CollectStages(input, stages);
		}
	}
	if (std::find(stages.begin(), stages.end(), stage) == stages.end()) {
		stages.push_back(stage);
	}
}

//! All stages that a gather needs, each before those that read it.
vector<shared_ptr<StageDraft>> StagesOf(const ExchangeData &data) {
	vector<shared_ptr<StageDraft>> stages;
	CollectStages(data.stage, stages);
	return stages;
}

//! "3 workers", of a JSON list of their ids.
string CountOf(const string &workers) {
	auto count = std::count(workers.begin(), workers.end(), ',') + 1;
	return to_string(count) + (count == 1 ? " worker" : " workers");
}

unique_ptr<GlobalTableFunctionState> GatherInit(ClientContext &context, TableFunctionInitInput &input) {
	auto &data = input.bind_data->Cast<ExchangeData>();
	auto stages = StagesOf(data);
	auto query = "{\"stages\":" + JsonList(stages.size(), [&](idx_t i) {
		             return stages[i]->Json(i + 1 == stages.size());
	             }) + ",\"summary\":" + *data.summary + "}";
	Source source;
	Check([&](HerdBuffer *error) {
		return Api().gather(SessionState::Of(context), Text(query), source.Slot(), error);
	});
	return MakeSourceScan(context, std::move(source), data.stage->types);
}

InsertionOrderPreservingMap<string> GatherToString(TableFunctionToStringInput &input) {
	auto stages = StagesOf(input.bind_data->Cast<ExchangeData>());
	InsertionOrderPreservingMap<string> result;
	auto &summary = *input.bind_data->Cast<ExchangeData>().summary;
	unique_ptr<yyjson_doc, void (*)(yyjson_doc *)> document(yyjson_read(summary.c_str(), summary.size(), 0),
	                                                        yyjson_doc_free);
	auto said = [&](const char *key, const char *heading) {
		auto text = document ? yyjson_get_str(yyjson_obj_get(yyjson_doc_get_root(document.get()), key)) : nullptr;
		if (text) {
			result[heading] = text;
		}
	};
	said("tier", "Tier");
	said("merge", "Merge");
	said("fallback", "Gathered Since");
	for (idx_t i = 0; i < stages.size(); i++) {
		auto &stage = *stages[i];
		auto route = i + 1 == stages.size() ? string("gather") : stage.shown;
		result["Stage " + to_string(stage.id)] = route + " from " + CountOf(stage.workers) + ": " + stage.sql;
	}
	return result;
}

TableFunctionToSQLResult ExchangeToSql(ClientContext &, const LogicalGet &get) {
	auto &data = get.bind_data->Cast<ExchangeData>();
	TableFunctionToSQLResult result;
	if (data.gather) {
		result.unsupported_reason = "gathered";
		return result;
	}
	vector<unique_ptr<ParsedExpression>> arguments;
	arguments.push_back(ConstantExpression::FromValue(Value::UINTEGER(NumericCast<uint32_t>(data.stage->id))));
	auto ref = make_uniq<TableFunctionRef>();
	ref->function = make_uniq<FunctionExpression>(Identifier("duckherder_exchange"), std::move(arguments));
	auto &types = data.stage->types;
	if (!HasState(types)) {
		result.source = std::move(ref);
		return result;
	}
	auto select = make_uniq<SelectNode>();
	for (idx_t i = 0; i < types.size(); i++) {
		unique_ptr<ParsedExpression> column = make_uniq<ColumnRefExpression>(Identifier("c" + to_string(i)));
		if (types[i].IsAggregateState()) {
			column = ExportAggregateFunction::StateToSQL(types[i], std::move(column));
			if (!column) {
				result.unsupported_reason = "aggregate_state_parameters";
				return result;
			}
		}
		column->SetAlias(Identifier("c" + to_string(i)));
		select->select_list.push_back(std::move(column));
	}
	select->from_table = std::move(ref);
	auto statement = make_uniq<SelectStatement>();
	statement->node = std::move(select);
	result.source = make_uniq<SubqueryRef>(std::move(statement));
	return result;
}

TableFunction ExchangeSource(bool gather) {
	TableFunction function(Identifier(gather ? GATHER : EXCHANGE_SOURCE), {}, nullptr, nullptr,
	                       gather ? GatherInit : nullptr);
	SetUpSourceScan(function);
	function.to_sql = ExchangeToSql;
	if (gather) {
		function.to_string = GatherToString;
	}
	return function;
}

optional_ptr<ExchangeData> ExchangeOf(LogicalOperator &op) {
	if (op.type != LogicalOperatorType::LOGICAL_GET) {
		return nullptr;
	}
	auto &get = op.Cast<LogicalGet>();
	auto &name = get.function.GetName();
	if (name != Identifier(EXCHANGE_SOURCE) && name != Identifier(GATHER)) {
		return nullptr;
	}
	return get.bind_data->Cast<ExchangeData>();
}

//===--------------------------------------------------------------------===//
// Steps
//===--------------------------------------------------------------------===//

string TextOf(yyjson_val *object, const char *key) {
	auto text = yyjson_get_str(yyjson_obj_get(object, key));
	return text ? text : "";
}

idx_t NumberOf(yyjson_val *object, const char *key) {
	return yyjson_get_uint(yyjson_obj_get(object, key));
}

string Raw(yyjson_val *value) {
	size_t length;
	auto text = yyjson_val_write(value, 0, &length);
	if (!text) {
		throw IOException("the distributed plan is not readable");
	}
	string result(text, length);
	free(text); // NOLINT: yyjson's default allocator
	return result;
}

class Application {
public:
	Application(ClientContext &context, Binder &binder, unique_ptr<LogicalOperator> &root, Nodes &nodes, string summary)
	    : context(context), binder(binder), root(root), nodes(nodes),
	      summary(make_shared_ptr<const string>(std::move(summary))) {
	}

	//! Applies a step to the operator in `slot`; whether the result can become part of a stage.
	bool Apply(yyjson_val *step, unique_ptr<LogicalOperator> &slot) {
		auto kind = TextOf(step, "step");
		if (kind == "operator") {
			return ApplyOperator(step, slot);
		}
		if (kind == "partial") {
			return Apply(yyjson_obj_get(step, "child"), slot->children[0]);
		}
		if (kind == "exchange") {
			return ApplyExchange(step, slot);
		}
		if (kind == "shared_cte") {
			return ApplySharedCte(step, slot);
		}
		if (kind == "exchange_ref") {
			auto stage = stages.find(NumberOf(step, "stage"));
			if (stage == stages.end()) {
				throw IOException("the distributed plan reads a stage that it has not made");
			}
			Replace(slot, stage->second, false);
			return true;
		}
		throw IOException("the distributed plan has a step of an unknown kind: %s", kind);
	}

private:
	bool ApplyOperator(yyjson_val *step, unique_ptr<LogicalOperator> &slot) {
		auto node = NumberOf(step, "node");
		auto &op = nodes[node].get();
		auto steps = yyjson_obj_get(step, "children");
		if (yyjson_arr_size(steps) == 1 && HasPartial(yyjson_arr_get_first(steps), node)) {
			// The operator may get a projection above it.
			InsertPartial(slot);
		}
		auto moved = true;
		for (idx_t i = 0; i < op.children.size(); i++) {
			auto child = yyjson_arr_get(steps, i);
			if (!child) {
				throw IOException("the distributed plan leaves out an operator");
			}
			moved = Apply(child, op.children[i]) && moved;
		}
		return moved;
	}

	//! Whether the first phase of the operator is below a step, with at most an exchange in between.
	static bool HasPartial(yyjson_val *step, idx_t node) {
		while (TextOf(step, "step") == "exchange") {
			step = yyjson_obj_get(step, "child");
		}
		return TextOf(step, "step") == "partial" && NumberOf(step, "node") == node;
	}

	//===----------------------------------------------------------------===//
	// First phases
	//===----------------------------------------------------------------===//

	void InsertPartial(unique_ptr<LogicalOperator> &slot) {
		unique_ptr<LogicalOperator> partial;
		switch (slot->type) {
		case LogicalOperatorType::LOGICAL_AGGREGATE_AND_GROUP_BY:
			return SplitAggregate(slot);
		case LogicalOperatorType::LOGICAL_DISTINCT: {
			auto &distinct = slot->Cast<LogicalDistinct>();
			vector<unique_ptr<Expression>> targets;
			for (auto &target : distinct.distinct_targets) {
				targets.push_back(target->Copy());
			}
			partial = make_uniq<LogicalDistinct>(std::move(targets), distinct.distinct_type);
			break;
		}
		case LogicalOperatorType::LOGICAL_TOP_N: {
			auto &top_n = slot->Cast<LogicalTopN>();
			vector<BoundOrderByNode> orders;
			for (auto &order : top_n.orders) {
				orders.push_back(order.Copy());
			}
			partial = make_uniq<LogicalTopN>(std::move(orders), top_n.limit + top_n.offset, 0);
			break;
		}
		case LogicalOperatorType::LOGICAL_LIMIT: {
			auto &limit = slot->Cast<LogicalLimit>();
			auto offset =
			    limit.offset_val.Type() == LimitNodeType::CONSTANT_VALUE ? limit.offset_val.GetConstantValue() : 0;
			partial = make_uniq<LogicalLimit>(
			    BoundLimitNode::ConstantValue(NumericCast<int64_t>(limit.limit_val.GetConstantValue() + offset)),
			    BoundLimitNode());
			break;
		}
		default:
			throw IOException("the distributed plan divides an operator that has no phases: %s", slot->GetName());
		}
		partial->children.push_back(std::move(slot->children[0]));
		if (slot->has_estimated_cardinality) {
			partial->SetEstimatedCardinality(slot->estimated_cardinality);
		}
		partial->ResolveOperatorTypes();
		slot->children[0] = std::move(partial);
	}

	unique_ptr<BoundAggregateExpression> Bind(const string &name, vector<unique_ptr<Expression>> arguments,
	                                          unique_ptr<Expression> filter = nullptr) {
		auto &entry = Catalog::GetSystemCatalog(context).GetEntry<AggregateFunctionCatalogEntry>(
		    context, QualifiedName(Identifier(), Identifier::DefaultSchema(), Identifier(name)));
		vector<pair<Identifier, unique_ptr<Expression>>> named;
		for (auto &argument : arguments) {
			named.emplace_back(Identifier(), std::move(argument));
		}
		ErrorData error;
		FunctionBinder function_binder(binder);
		auto bound = function_binder.BindAggregateFunction(entry, std::move(named), error, std::move(filter));
		if (error.HasError()) {
			error.Throw();
		}
		return bound;
	}

	unique_ptr<Expression> BindDivision(unique_ptr<Expression> dividend, unique_ptr<Expression> divisor) {
		vector<unique_ptr<Expression>> arguments;
		arguments.push_back(BoundCastExpression::AddCastToType(context, std::move(dividend), LogicalType::DOUBLE));
		arguments.push_back(BoundCastExpression::AddCastToType(context, std::move(divisor), LogicalType::DOUBLE));
		ErrorData error;
		FunctionBinder function_binder(binder);
		auto bound =
		    function_binder.BindScalarFunction(Identifier::DefaultSchema(), Identifier("/"), std::move(arguments), error, true);
		if (error.HasError()) {
			error.Throw();
		}
		return bound;
	}

	//! Makes of `AGGREGATE(x)` a `PROJECTION(AGGREGATE(PARTIAL(x)))`, whose columns take the place of the aggregate's.
	void SplitAggregate(unique_ptr<LogicalOperator> &slot) {
		auto &upper = slot->Cast<LogicalAggregate>();
		upper.ResolveOperatorTypes();
		auto old_bindings = upper.GetColumnBindings();
		auto old_types = upper.types;
		auto partial =
		    make_uniq<LogicalAggregate>(binder.GenerateTableIndex(), binder.GenerateTableIndex(), vector<unique_ptr<Expression>>());
		partial->groups = std::move(upper.groups);
		auto several_sets = upper.grouping_sets.size() > 1;
		if (several_sets) {
			// All groups there are; the second phase makes the sets of them.
			GroupingSet all;
			for (auto index : ProjectionIndex::GetIndexes(partial->groups.size())) {
				all.insert(index);
			}
			partial->grouping_sets.push_back(std::move(all));
		} else {
			partial->grouping_sets = upper.grouping_sets;
		}
		upper.groups.clear();
		// The first phase, and what the second does with each of its columns.
		vector<string> second;
		vector<vector<idx_t>> parts;
		vector<bool> counts;
		auto add = [&](unique_ptr<BoundAggregateExpression> first, const string &then) {
			partial->expressions.push_back(std::move(first));
			second.push_back(then);
			return partial->expressions.size() - 1;
		};
		for (auto &expression : upper.expressions) {
			auto aggregate = unique_ptr_cast<Expression, BoundAggregateExpression>(std::move(expression));
			auto name = aggregate->Function().GetName().GetIdentifierName();
			counts.push_back(name == "count" || name == "count_star");
			if (name == "avg" || name == "mean") {
				vector<unique_ptr<Expression>> summands, counted;
				summands.push_back(aggregate->GetChildren()[0]->Copy());
				counted.push_back(aggregate->GetChildren()[0]->Copy());
				auto filter = [&]() {
					return aggregate->GetFilter() ? aggregate->GetFilter()->Copy() : nullptr;
				};
				auto sum = add(Bind("sum", std::move(summands), filter()), "sum");
				auto count = add(Bind("count", std::move(counted), filter()), "sum");
				parts.push_back({sum, count});
			} else if (name == "count" || name == "count_star" || name == "sum" || name == "sum_no_overflow") {
				parts.push_back({add(std::move(aggregate), "sum")});
			} else if (name == "first") {
				// A worker without rows has a first value too, NULL.
				parts.push_back({add(std::move(aggregate), "any_value")});
			} else {
				parts.push_back({add(std::move(aggregate), name)});
			}
		}
		upper.expressions.clear();
		partial->children.push_back(std::move(upper.children[0]));
		if (upper.has_estimated_cardinality) {
			partial->SetEstimatedCardinality(upper.estimated_cardinality);
		}
		partial->ResolveOperatorTypes();

		for (idx_t i = 0; i < partial->groups.size(); i++) {
			upper.groups.push_back(make_uniq<BoundColumnRefExpression>(
			    partial->types[i], ColumnBinding(partial->group_index, ProjectionIndex(i))));
		}
		for (idx_t i = 0; i < second.size(); i++) {
			vector<unique_ptr<Expression>> arguments;
			arguments.push_back(make_uniq<BoundColumnRefExpression>(
			    partial->types[partial->groups.size() + i],
			    ColumnBinding(partial->aggregate_index, ProjectionIndex(i))));
			upper.expressions.push_back(Bind(second[i], std::move(arguments)));
		}
		upper.group_stats.clear();
		upper.children[0] = std::move(partial);
		upper.ResolveOperatorTypes();

		vector<unique_ptr<Expression>> columns;
		auto result = [&](idx_t part) {
			return make_uniq<BoundColumnRefExpression>(upper.types[upper.groups.size() + part],
			                                           ColumnBinding(upper.aggregate_index, ProjectionIndex(part)));
		};
		for (idx_t i = 0; i < upper.groups.size(); i++) {
			columns.push_back(make_uniq<BoundColumnRefExpression>(
			    upper.types[i], ColumnBinding(upper.group_index, ProjectionIndex(i))));
		}
		for (idx_t i = 0; i < parts.size(); i++) {
			unique_ptr<Expression> column = result(parts[i][0]);
			if (parts[i].size() == 2) {
				column = BindDivision(std::move(column), result(parts[i][1]));
			}
			auto &type = old_types[upper.groups.size() + i];
			column = BoundCastExpression::AddCastToType(context, std::move(column), type);
			if (several_sets && counts[i]) {
				// The set of no groups has a row also if the first phase has none.
				auto count = make_uniq<BoundOperatorExpression>(ExpressionType::OPERATOR_COALESCE, type);
				count->GetChildrenMutable().push_back(std::move(column));
				count->GetChildrenMutable().push_back(make_uniq<BoundConstantExpression>(Value::Numeric(type, 0)));
				column = std::move(count);
			}
			columns.push_back(std::move(column));
		}
		for (auto index : ProjectionIndex::GetIndexes(upper.grouping_functions.size())) {
			columns.push_back(make_uniq<BoundColumnRefExpression>(LogicalType::BIGINT,
			                                                      ColumnBinding(upper.groupings_index, index)));
		}
		auto projection = make_uniq<LogicalProjection>(binder.GenerateTableIndex(), std::move(columns));
		if (upper.has_estimated_cardinality) {
			projection->SetEstimatedCardinality(upper.estimated_cardinality);
		}
		projection->children.push_back(std::move(slot));
		projection->ResolveOperatorTypes();
		slot = std::move(projection);
		ReplaceColumns(old_bindings, *slot);
	}

	//===----------------------------------------------------------------===//
	// Exchanges
	//===----------------------------------------------------------------===//

	bool ApplyExchange(yyjson_val *step, unique_ptr<LogicalOperator> &slot) {
		auto route = yyjson_obj_get(step, "route");
		auto kind = TextOf(route, "kind");
		auto gather = kind == "gather";
		auto stage = make_shared_ptr<StageDraft>();
		if (!Apply(yyjson_obj_get(step, "child"), slot) || !Export(step, *slot, *stage)) {
			// It stays on the coordinator, over what it reads from the herd.
			GatherRest(slot);
			return false;
		}
		stages[stage->id] = stage;
		Replace(slot, stage, gather);
		return true;
	}

	bool ApplySharedCte(yyjson_val *step, unique_ptr<LogicalOperator> &slot) {
		if (!Apply(yyjson_obj_get(step, "definition"), slot->children[0])) {
			throw NotImplementedException("a common table expression over a herd's tables that cannot be written as SQL");
		}
		auto child = std::move(slot->children[1]);
		slot = std::move(child);
		return Apply(yyjson_obj_get(step, "child"), slot);
	}

	//! Gathers all that a part of the plan, which stays here, reads from the herd.
	void GatherRest(unique_ptr<LogicalOperator> &slot) {
		auto exchange = ExchangeOf(*slot);
		if (exchange) {
			if (!exchange->gather) {
				SetGather(slot->Cast<LogicalGet>(), *exchange);
			}
			return;
		}
		// A scan that is left here gathers by itself.
		for (auto &child : slot->children) {
			GatherRest(child);
		}
	}

	static void SetGather(LogicalGet &get, ExchangeData &exchange) {
		if (exchange.stage->forward) {
			throw NotImplementedException("a common table expression over a herd's tables, part of which cannot be "
			                              "written as SQL");
		}
		exchange.gather = true;
		get.function = BoundTableFunction(ExchangeSource(true));
	}

	//! Writes a part of the plan as the SQL of a stage; false if that cannot be.
	bool Export(yyjson_val *step, LogicalOperator &op, StageDraft &stage) {
		op.ResolveOperatorTypes();
		ForgetRunTimeFilters(op);
		auto bindings = op.GetColumnBindings();
		LogicalPlanSQLExportOptions options;
		vector<Identifier> names;
		for (idx_t i = 0; i < bindings.size(); i++) {
			names.emplace_back("c" + to_string(i));
		}
		options.output_names = names;
		auto exported = LogicalPlanSQLExporter::ExportWithSources(context, op, {}, options);
		if (exported.HasError()) {
			return false;
		}
		auto &relation = exported.GetValue();
		for (auto &field : relation.fields) {
			if (field.optimizer_type) {
				return false;
			}
		}
		stage.id = NumberOf(step, "stage");
		stage.workers = Raw(yyjson_obj_get(step, "workers"));
		stage.sql = Deparse(context, *relation.query);
		stage.types = op.types;
		if (bindings.empty()) {
			stage.sql = "SELECT NULL::BOOLEAN AS c0 FROM (" + stage.sql + ") AS s";
			stage.types = {LogicalType::BOOLEAN};
		}
		if (HasState(stage.types)) {
			vector<string> columns;
			for (idx_t i = 0; i < stage.types.size(); i++) {
				auto name = "c" + to_string(i);
				columns.push_back(stage.types[i].IsAggregateState()
				                      ? string(STATE_STORAGE) + "(" + name + ") AS " + name
				                      : name);
			}
			stage.sql = "SELECT " + StringUtil::Join(columns, ", ") + " FROM (" + stage.sql + ") AS s";
		}
		CollectInputs(op, stage.inputs);
		return WriteRoute(yyjson_obj_get(step, "route"), bindings, stage);
	}

	bool WriteRoute(yyjson_val *route, const vector<ColumnBinding> &bindings, StageDraft &stage) {
		auto kind = TextOf(route, "kind");
		stage.output = "{\"kind\":\"" + kind + "\"}";
		stage.forward = kind == "forward";
		stage.shown = kind;
		if (kind == "broadcast") {
			auto to = Raw(yyjson_obj_get(route, "to"));
			stage.output = "{\"kind\":\"broadcast\",\"to\":" + to + "}";
			stage.shown = "broadcast to " + CountOf(to);
		} else if (kind == "hash") {
			auto buckets = yyjson_obj_get(route, "buckets");
			stage.output = "{\"kind\":\"hash\",\"buckets\":" + Raw(buckets) + "}";
			vector<string> keys;
			idx_t index, count;
			yyjson_val *key;
			yyjson_arr_foreach(yyjson_obj_get(route, "keys"), index, count, key) {
				auto sql = KeySql(key, bindings, stage.types);
				if (!sql) {
					return false;
				}
				keys.push_back(std::move(*sql));
			}
			stage.shown = "hash(" + StringUtil::Join(keys, ", ") + ")";
			stage.hashed_sql = "SELECT *, hash(hash(" + StringUtil::Join(keys, ", ") + ")) % " +
			                   to_string(yyjson_arr_size(buckets)) + "::UBIGINT AS bucket FROM (" + stage.sql + ") AS s";
		}
		return true;
	}

	optional<string> KeySql(yyjson_val *key, const vector<ColumnBinding> &bindings, const vector<LogicalType> &types) {
		auto position = [&](const ColumnBinding &binding) -> optional_idx {
			for (idx_t i = 0; i < bindings.size(); i++) {
				if (bindings[i] == binding) {
					return i;
				}
			}
			return optional_idx();
		};
		auto of = TextOf(key, "of");
		if (of == "column") {
			auto binding = yyjson_obj_get(key, "binding");
			ColumnBinding column(TableIndex(yyjson_get_uint(yyjson_arr_get(binding, 0))),
			                     ProjectionIndex(yyjson_get_uint(yyjson_arr_get(binding, 1))));
			column = Current(column);
			auto found = position(column);
			return found.IsValid() ? optional<string>("c" + to_string(found.GetIndex())) : optional<string>();
		}
		auto &op = nodes[NumberOf(key, "node")].get();
		optional_ptr<const Expression> expression;
		if (of == "join_condition") {
			auto &condition = op.Cast<LogicalComparisonJoin>().conditions[NumberOf(key, "condition")];
			expression = yyjson_get_bool(yyjson_obj_get(key, "left")) ? condition.GetLHS() : condition.GetRHS();
		} else if (op.type == LogicalOperatorType::LOGICAL_DISTINCT) {
			expression = *op.Cast<LogicalDistinct>().distinct_targets[NumberOf(key, "index")];
		} else {
			expression = *op.Cast<LogicalAggregate>().groups[NumberOf(key, "index")];
		}
		BoundExpressionSQLExportContext export_context;
		export_context.client_context = &context;
		export_context.resolve_binding = [&](const ColumnBinding &binding) -> optional<ResolvedSQLColumnReference> {
			auto found = position(binding);
			if (!found.IsValid()) {
				return optional<ResolvedSQLColumnReference>();
			}
			auto index = found.GetIndex();
			return ResolvedSQLColumnReference {{Identifier("c" + to_string(index))}, types[index]};
		};
		auto exported = BoundExpressionSQLExporter::Export(*expression, export_context);
		if (exported.HasError()) {
			return optional<string>();
		}
		return Deparse(context, std::move(exported.GetValue()));
	}

	//! Joins here do not tell scans there what they look for.
	static void ForgetRunTimeFilters(LogicalOperator &op) {
		if (op.type == LogicalOperatorType::LOGICAL_COMPARISON_JOIN) {
			op.Cast<LogicalComparisonJoin>().filter_pushdown.reset();
		} else if (op.type == LogicalOperatorType::LOGICAL_GET) {
			op.Cast<LogicalGet>().dynamic_filters.reset();
		}
		for (auto &child : op.children) {
			ForgetRunTimeFilters(*child);
		}
	}

	static void CollectInputs(LogicalOperator &op, vector<shared_ptr<StageDraft>> &inputs) {
		auto exchange = ExchangeOf(op);
		if (exchange) {
			inputs.push_back(exchange->stage);
		}
		for (auto &child : op.children) {
			CollectInputs(*child, inputs);
		}
	}

	//! About how many values a column of an operator has, which is that of a scan below; 0 if that is not known.
	static idx_t DistinctCount(LogicalOperator &op, const ColumnBinding &binding) {
		auto index = binding.column_index.GetIndex();
		auto below = [&](const Expression &expression) -> idx_t {
			return expression.GetExpressionClass() == ExpressionClass::BOUND_COLUMN_REF
			           ? DistinctCount(*op.children[0], expression.Cast<BoundColumnRefExpression>().Binding())
			           : 0;
		};
		switch (op.type) {
		case LogicalOperatorType::LOGICAL_GET: {
			auto &get = op.Cast<LogicalGet>();
			if (get.table_index != binding.table_index || index >= get.GetColumnIds().size()) {
				return 0;
			}
			auto exchange = ExchangeOf(get);
			return exchange ? exchange->stage->estimates.Distinct(get.GetColumnIds()[index].GetPrimaryIndex())
			                : DistinctCountOf(get, get.GetColumnIds()[index]);
		}
		case LogicalOperatorType::LOGICAL_PROJECTION:
			return op.Cast<LogicalProjection>().table_index == binding.table_index ? below(*op.expressions[index]) : 0;
		case LogicalOperatorType::LOGICAL_AGGREGATE_AND_GROUP_BY: {
			auto &aggregate = op.Cast<LogicalAggregate>();
			return aggregate.group_index == binding.table_index ? below(*aggregate.groups[index]) : 0;
		}
		default:
			for (auto &child : op.children) {
				auto count = DistinctCount(*child, binding);
				if (count > 0) {
					return count;
				}
			}
			return 0;
		}
	}

	//! Puts a scan of a stage's rows into a slot of the plan.
	void Replace(unique_ptr<LogicalOperator> &slot, const shared_ptr<StageDraft> &stage, bool gather) {
		auto old_bindings = slot->GetColumnBindings();
		if (slot->has_estimated_cardinality) {
			stage->estimates.rows = slot->estimated_cardinality;
		}
		for (auto &binding : old_bindings) {
			stage->estimates.distinct.push_back(DistinctCount(*slot, binding));
		}
		vector<Identifier> names;
		vector<ColumnIndex> column_ids;
		for (idx_t i = 0; i < stage->types.size(); i++) {
			names.emplace_back("c" + to_string(i));
			column_ids.emplace_back(i);
		}
		auto get = make_uniq<LogicalGet>(binder.GenerateTableIndex(), BoundTableFunction(ExchangeSource(gather)),
		                                 make_uniq<ExchangeData>(stage, gather, summary), stage->types, std::move(names));
		get->SetColumnIds(std::move(column_ids));
		if (slot->has_estimated_cardinality) {
			get->SetEstimatedCardinality(slot->estimated_cardinality);
		}
		get->ResolveOperatorTypes();
		slot = std::move(get);
		ReplaceColumns(old_bindings, *slot);
	}

	//! Lets the rest of the plan refer to the columns of what has been put into it.
	void ReplaceColumns(const vector<ColumnBinding> &old_bindings, LogicalOperator &replacement) {
		auto new_bindings = replacement.GetColumnBindings();
		ColumnBindingReplacer replacer;
		column_binding_set_t seen;
		for (idx_t i = 0; i < old_bindings.size(); i++) {
			if (seen.insert(old_bindings[i]).second) {
				replacer.replacement_bindings.emplace_back(old_bindings[i], new_bindings[i]);
				replaced[old_bindings[i]] = new_bindings[i];
			}
		}
		replacer.stop_operator = replacement;
		replacer.VisitOperator(*root);
	}

	//! The column that a column of the described plan is by now.
	ColumnBinding Current(ColumnBinding binding) const {
		for (auto found = replaced.find(binding); found != replaced.end(); found = replaced.find(binding)) {
			binding = found->second;
		}
		return binding;
	}

	ClientContext &context;
	Binder &binder;
	unique_ptr<LogicalOperator> &root;
	Nodes &nodes;
	shared_ptr<const string> summary;
	unordered_map<idx_t, shared_ptr<StageDraft>> stages;
	column_binding_map_t<ColumnBinding> replaced;
};

} // namespace

ScalarFunction StateStorageFunction() {
	ScalarFunction function(Identifier(STATE_STORAGE), {LogicalType::ANY}, LogicalType::ANY, StateStorage,
	                        BindStateStorage);
	function.SetNullHandling(FunctionNullHandling::SPECIAL_HANDLING);
	return function;
}

void ApplySteps(ClientContext &context, Binder &binder, unique_ptr<LogicalOperator> &root, Nodes &nodes,
                const string &steps) {
	unique_ptr<yyjson_doc, void (*)(yyjson_doc *)> document(yyjson_read(steps.c_str(), steps.size(), 0),
	                                                        yyjson_doc_free);
	if (!document) {
		throw IOException("the distributed plan is not readable");
	}
	auto answer = yyjson_doc_get_root(document.get());
	Application(context, binder, root, nodes, Raw(yyjson_obj_get(answer, "summary"))).Apply(yyjson_obj_get(answer, "plan"), root);
	root->ResolveOperatorTypes();
}

} // namespace herd
