#include "herd_dml.hpp"

#include "deparse.hpp"
#include "herd_insert.hpp"
#include "herd_json.hpp"
#include "herd_plan.hpp"
#include "herd_scan.hpp"
#include "herd_source.hpp"
#include "herd_write.hpp"

#include "duckdb/catalog/catalog_entry/schema_catalog_entry.hpp"
#include "duckdb/catalog/catalog_entry/table_catalog_entry.hpp"
#include "duckdb/execution/physical_plan_generator.hpp"
#include "duckdb/optimizer/column_binding_replacer.hpp"
#include "duckdb/parallel/meta_pipeline.hpp"
#include "duckdb/parallel/pipeline.hpp"
#include "duckdb/parser/query_node/delete_query_node.hpp"
#include "duckdb/parser/query_node/merge_query_node.hpp"
#include "duckdb/parser/query_node/update_query_node.hpp"
#include "duckdb/parser/tableref/basetableref.hpp"
#include "duckdb/planner/constraints/bound_check_constraint.hpp"
#include "duckdb/planner/expression/bound_cast_expression.hpp"
#include "duckdb/parser/expression/columnref_expression.hpp"
#include "duckdb/parser/statement/merge_into_statement.hpp"
#include "duckdb/planner/expression/bound_columnref_expression.hpp"
#include "duckdb/planner/expression/bound_constant_expression.hpp"
#include "duckdb/planner/expression/bound_function_expression.hpp"
#include "duckdb/planner/expression/bound_parameter_expression.hpp"
#include "duckdb/planner/expression_iterator.hpp"
#include "duckdb/planner/logical_operator_visitor.hpp"
#include "duckdb/planner/logical_plan_sql_exporter.hpp"
#include "duckdb/planner/operator/logical_comparison_join.hpp"
#include "duckdb/planner/operator/logical_cteref.hpp"
#include "duckdb/planner/operator/logical_delete.hpp"
#include "duckdb/planner/operator/logical_extension_operator.hpp"
#include "duckdb/planner/operator/logical_get.hpp"
#include "duckdb/planner/operator/logical_join.hpp"
#include "duckdb/planner/operator/logical_materialized_cte.hpp"
#include "duckdb/planner/operator/logical_merge_into.hpp"
#include "duckdb/planner/operator/logical_projection.hpp"
#include "duckdb/planner/operator/logical_update.hpp"
#include "duckdb/storage/table_storage_info.hpp"

namespace herd {

using namespace duckdb;
using duckherder::Deparse;
using duckherder::SetSomething;

namespace {

constexpr const char *STAND_IN = "duckherder_uploaded_rows";

//! Numbers the temporary tables of this process.
atomic<idx_t> next_table {0};

//! What is run on the workers.
struct Change {
	string schema_name;
	string table_name;
	string sql;
	Placement placement;
	//! Those that run it.
	vector<string> workers;
	//! JSON.
	string placement_tag;
	//! Those of the table that hold values.
	vector<MovedColumn> columns;
	//! Rows may belong to other partitions afterwards.
	bool moves = false;
	bool returning = false;
	//! Temporary tables that it reads.
	vector<string> tables;
};

//===--------------------------------------------------------------------===//
// What runs
//===--------------------------------------------------------------------===//

struct ChangeState : public GlobalSourceState {
	bool done = false;
	unique_ptr<SourceReader> rows;
};

//! Its children send the rows that the statement needs to the workers, one after the other.
class PhysicalHerdChange : public PhysicalOperator {
public:
	PhysicalHerdChange(PhysicalPlan &plan, Change change, vector<LogicalType> types, idx_t estimated_cardinality)
	    : PhysicalOperator(plan, PhysicalOperatorType::EXTENSION, std::move(types), estimated_cardinality),
	      change(std::move(change)) {
	}

	string GetName() const override {
		return "HERD_CHANGE";
	}

	InsertionOrderPreservingMap<string> ParamsToString() const override {
		InsertionOrderPreservingMap<string> result;
		result["Table"] = change.schema_name + "." + change.table_name;
		result["Distribution"] = change.placement.Describe();
		result["Workers"] = to_string(change.workers.size());
		result["Statement"] = change.sql;
		return result;
	}

	bool IsSource() const override {
		return true;
	}
	vector<const_reference<PhysicalOperator>> GetSources() const override {
		return {*this};
	}

	void BuildPipelines(Pipeline &current, MetaPipeline &meta_pipeline) override {
		vector<shared_ptr<Pipeline>> before;
		for (auto &child : children) {
			auto &upload = child.get();
			upload.sink_state.reset();
			auto &built = meta_pipeline.CreateChildMetaPipeline(current, upload);
			built.Build(upload.children[0].get());
			vector<shared_ptr<Pipeline>> pipelines;
			built.GetPipelines(pipelines, false);
			for (auto &pipeline : pipelines) {
				for (auto &other : before) {
					pipeline->AddDependency(other);
				}
			}
			before = std::move(pipelines);
		}
		meta_pipeline.GetState().SetPipelineSource(current, *this);
	}

	unique_ptr<GlobalSourceState> GetGlobalSourceState(ClientContext &) const override {
		return make_uniq<ChangeState>();
	}

protected:
	SourceResultType GetDataInternal(ExecutionContext &context, DataChunk &chunk,
	                                 OperatorSourceInput &input) const override {
		auto &state = input.global_state.Cast<ChangeState>();
		if (state.done) {
			return SourceResultType::FINISHED;
		}
		if (change.returning) {
			return Return(context.client, chunk, state);
		}
		state.done = true;
		auto counts = ExecuteOn(context.client, change.workers, change.sql);
		Finish(context.client);
		chunk.SetChildCardinality(1);
		chunk.data[0].SetValue(0, Value::BIGINT(NumericCast<int64_t>(Total(counts))));
		return SourceResultType::FINISHED;
	}

private:
	SourceResultType Return(ClientContext &context, DataChunk &chunk, ChangeState &state) const {
		if (!state.rows) {
			if (change.placement.IsReplicated() && change.workers.size() > 1) {
				// All have the same rows: one of them tells which.
				ExecuteOn(context, vector<string>(change.workers.begin() + 1, change.workers.end()), change.sql);
			}
			state.rows = make_uniq<SourceReader>(context, RunReturning(context, ReturningQuery()), types);
		}
		state.rows->Read(context, chunk);
		if (chunk.size() > 0) {
			return SourceResultType::HAVE_MORE_OUTPUT;
		}
		state.done = true;
		state.rows.reset();
		Finish(context);
		return SourceResultType::FINISHED;
	}

	string ReturningQuery() const {
		auto telling = change.placement.IsReplicated() ? 1 : change.workers.size();
		auto workers = JsonList(telling, [&](idx_t i) { return JsonText(change.workers[i]); });
		return "{\"stages\":[{\"id\":0,\"sql\":" + JsonText(change.sql) + ",\"workers\":" + workers + ",\"columns\":" + JsonColumns(types) +
		       ",\"output\":{\"kind\":\"gather\"},\"inputs\":[]}]}";
	}

	idx_t Total(const vector<idx_t> &counts) const {
		idx_t result = 0;
		for (auto count : counts) {
			if (change.placement.IsReplicated() && count != counts[0]) {
				throw IOException("the workers do not have the same rows of the replicated table %s: the statement "
				                  "concerns %llu rows on one of them and %llu on another",
				                  change.table_name, counts[0], count);
			}
			result += count;
		}
		return change.placement.IsReplicated() ? counts[0] : result;
	}

	//! Rows go where they belong; what was made for the statement is dropped.
	void Finish(ClientContext &context) const {
		if (change.moves) {
			MoveRows(context, change.schema_name, change.table_name, change.placement_tag, change.columns);
		}
		for (auto &table : change.tables) {
			ExecuteOn(context, change.workers, "DROP TABLE IF EXISTS temp.main." + SQLIdentifier::ToString(table));
		}
	}

	Change change;
};

class LogicalHerdChange : public LogicalExtensionOperator {
public:
	LogicalHerdChange(Change change, vector<InsertTarget> uploads, vector<ColumnBinding> bindings,
	                  vector<LogicalType> result_types)
	    : change(std::move(change)), uploads(std::move(uploads)), bindings(std::move(bindings)),
	      result_types(std::move(result_types)) {
	}

	PhysicalOperator &CreatePlan(ClientContext &, PhysicalPlanGenerator &planner) override {
		auto &result = planner.Make<PhysicalHerdChange>(change, result_types, estimated_cardinality);
		for (idx_t i = 0; i < children.size(); i++) {
			auto &source = planner.CreatePlan(*children[i]);
			result.children.push_back(
			    MakeHerdInsert(planner, uploads[i], source, children[i]->estimated_cardinality));
		}
		return result;
	}

	vector<ColumnBinding> GetColumnBindings() override {
		return bindings;
	}
	string GetName() const override {
		return "HERD_CHANGE";
	}
	string GetExtensionName() const override {
		return "duckherder_change";
	}
	idx_t EstimateCardinality(ClientContext &context) override {
		return change.returning ? LogicalOperator::EstimateCardinality(context) : 1;
	}

protected:
	void ResolveTypes() override {
		types = result_types;
	}

private:
	Change change;
	//! One a child.
	vector<InsertTarget> uploads;
	vector<ColumnBinding> bindings;
	vector<LogicalType> result_types;
};

//===--------------------------------------------------------------------===//
// What is changed
//===--------------------------------------------------------------------===//

optional_ptr<TableCatalogEntry> ChangedTable(LogicalOperator &op, bool &returning) {
	switch (op.type) {
	case LogicalOperatorType::LOGICAL_UPDATE:
		returning = op.Cast<LogicalUpdate>().return_chunk;
		return op.Cast<LogicalUpdate>().table;
	case LogicalOperatorType::LOGICAL_DELETE:
		returning = op.Cast<LogicalDelete>().return_chunk;
		return op.Cast<LogicalDelete>().table;
	case LogicalOperatorType::LOGICAL_MERGE_INTO:
		returning = op.Cast<LogicalMergeInto>().return_chunk;
		return op.Cast<LogicalMergeInto>().table;
	default:
		return nullptr;
	}
}

[[noreturn]] void Refuse(const TableCatalogEntry &table, const string &why) {
	throw NotImplementedException("this statement cannot change rows of the herd's table %s: %s", table.name, why);
}

bool HasRowNumbers(LogicalGet &get) {
	for (auto &index : get.GetColumnIds()) {
		if (index.IsRowIdColumn()) {
			return true;
		}
	}
	return false;
}

//! Scans of the table that yield the numbers that rows have on their worker.
void FindNumbered(LogicalOperator &op, const TableCatalogEntry &table, vector<reference<LogicalGet>> &scans) {
	auto scanned = HerdTableOf(op);
	if (scanned && &*scanned == &table && HasRowNumbers(op.Cast<LogicalGet>())) {
		scans.push_back(op.Cast<LogicalGet>());
	}
	for (auto &child : op.children) {
		FindNumbered(*child, table, scans);
	}
}

//! The operator that makes the columns of a table index.
optional_ptr<LogicalOperator> FindMaker(LogicalOperator &op, TableIndex index) {
	auto made = op.GetTableIndex();
	if (std::find(made.begin(), made.end(), index) != made.end()) {
		return &op;
	}
	for (auto &child : op.children) {
		auto maker = FindMaker(*child, index);
		if (maker) {
			return maker;
		}
	}
	return nullptr;
}

//! The references to common table expressions that rows of the target come through.
using References = vector<reference<LogicalCTERef>>;

//! The scan whose row numbers an expression is.
optional_ptr<LogicalGet> NumberedBy(LogicalOperator &root, const Expression &expression, References &through) {
	if (expression.GetExpressionClass() != ExpressionClass::BOUND_COLUMN_REF) {
		return nullptr;
	}
	auto &binding = expression.Cast<BoundColumnRefExpression>().Binding();
	auto maker = FindMaker(root, binding.table_index);
	auto column = binding.column_index.GetIndex();
	if (!maker) {
		return nullptr;
	}
	if (maker->type == LogicalOperatorType::LOGICAL_PROJECTION && column < maker->expressions.size()) {
		return NumberedBy(root, *maker->expressions[column], through);
	}
	if (maker->type == LogicalOperatorType::LOGICAL_CTE_REF) {
		auto &ref = maker->Cast<LogicalCTERef>();
		auto cte = FindMaker(root, ref.cte_index);
		if (!cte || cte->type != LogicalOperatorType::LOGICAL_MATERIALIZED_CTE) {
			return nullptr;
		}
		through.push_back(ref);
		auto bindings = cte->children[0]->GetColumnBindings();
		return column < bindings.size()
		           ? NumberedBy(root, BoundColumnRefExpression(expression.GetReturnType(), bindings[column]), through)
		           : nullptr;
	}
	if (maker->type != LogicalOperatorType::LOGICAL_GET) {
		return nullptr;
	}
	auto &get = maker->Cast<LogicalGet>();
	auto &ids = get.GetColumnIds();
	return column < ids.size() && ids[column].IsRowIdColumn() ? &get : nullptr;
}

//! The scan whose rows are changed.
optional_ptr<LogicalGet> FindTarget(LogicalOperator &change, References &through) {
	auto &child = *change.children[0];
	if (change.type == LogicalOperatorType::LOGICAL_DELETE) {
		return change.expressions.empty() ? nullptr : NumberedBy(child, *change.expressions[0], through);
	}
	if (child.type != LogicalOperatorType::LOGICAL_PROJECTION || child.expressions.empty()) {
		return nullptr;
	}
	return NumberedBy(child, *child.expressions.back(), through);
}

bool Contains(const LogicalOperator &op, const LogicalOperator &part) {
	if (&op == &part) {
		return true;
	}
	for (auto &child : op.children) {
		if (Contains(*child, part)) {
			return true;
		}
	}
	return false;
}

//! Whether each row of the side that the target is on goes through a join by itself, whatever other rows there are.
bool KeepsRowsApart(const LogicalJoin &join, bool is_left) {
	switch (join.join_type) {
	case JoinType::INNER:
		return true;
	case JoinType::LEFT:
	case JoinType::SEMI:
	case JoinType::ANTI:
	case JoinType::MARK:
	case JoinType::SINGLE:
		return is_left;
	case JoinType::RIGHT:
	case JoinType::RIGHT_SEMI:
	case JoinType::RIGHT_ANTI:
		return !is_left;
	default:
		return false;
	}
}

//! Which child the target is in; one more than there are if in none.
idx_t SideOf(const LogicalOperator &op, const LogicalOperator &target) {
	idx_t side = 0;
	while (side < op.children.size() && !Contains(*op.children[side], target)) {
		side++;
	}
	return side;
}

//! Whether DuckDB has made it of a correlated subquery.
bool IsOfSubquery(const LogicalMaterializedCTE &cte) {
	return StringUtil::StartsWith(cte.ctename.GetIdentifierName(), "__duckdb_delim");
}

//! Whether a worker can do with its own rows of the target what all workers would do with all of them. `matched`: a join
//! whose other side has only those rows on each worker that its target rows can match.
bool IsRowWise(const LogicalOperator &op, const LogicalOperator &target, const References &through,
               optional_ptr<const LogicalOperator> matched) {
	if (&op == &target) {
		return true;
	}
	auto side = SideOf(op, target);
	if (side == op.children.size()) {
		return false;
	}
	if (matched && &op == matched.get()) {
		return IsRowWise(*op.children[side], target, through, matched);
	}
	auto keeps = false;
	switch (op.type) {
	case LogicalOperatorType::LOGICAL_PROJECTION:
	case LogicalOperatorType::LOGICAL_FILTER:
	case LogicalOperatorType::LOGICAL_ORDER_BY:
	case LogicalOperatorType::LOGICAL_CROSS_PRODUCT:
	case LogicalOperatorType::LOGICAL_UNNEST:
		keeps = true;
		break;
	case LogicalOperatorType::LOGICAL_MATERIALIZED_CTE:
		// The target is in the definition if DuckDB has made it of a correlated subquery. What else is read of it is then
		// for the subquery's part, which is about the same rows.
		keeps = side == 1;
		for (auto &ref : through) {
			if (side == 0 && IsOfSubquery(op.Cast<LogicalMaterializedCTE>()) && ref.get().cte_index == op.Cast<LogicalMaterializedCTE>().table_index) {
				keeps = IsRowWise(*op.children[1], ref.get(), through, matched);
			}
		}
		break;
	case LogicalOperatorType::LOGICAL_COMPARISON_JOIN:
	case LogicalOperatorType::LOGICAL_ANY_JOIN:
	case LogicalOperatorType::LOGICAL_DELIM_JOIN:
		keeps = KeepsRowsApart(op.Cast<LogicalJoin>(), side == 0);
		break;
	default:
		break;
	}
	return keeps && IsRowWise(*op.children[side], target, through, matched);
}

//! Whether a join lets each row of the target meet only itself, as `other` has scanned it on the same worker.
bool MeetsItself(LogicalOperator &root, LogicalOperator &op, LogicalGet &target, LogicalGet &other) {
	if (op.type == LogicalOperatorType::LOGICAL_COMPARISON_JOIN) {
		auto &join = op.Cast<LogicalComparisonJoin>();
		for (auto &condition : join.conditions) {
			if (!condition.IsComparison() || condition.GetComparisonType() != ExpressionType::COMPARE_EQUAL) {
				continue;
			}
			References through;
			auto left = NumberedBy(root, condition.GetLHS(), through);
			auto right = NumberedBy(root, condition.GetRHS(), through);
			if ((left == &target && right == &other) || (left == &other && right == &target)) {
				auto side = SideOf(join, other);
				return side < join.children.size() && IsRowWise(*join.children[side], other, through, nullptr);
			}
		}
	}
	for (auto &child : op.children) {
		if (MeetsItself(root, *child, target, other)) {
			return true;
		}
	}
	return false;
}

//===--------------------------------------------------------------------===//
// The rows that it needs of elsewhere
//===--------------------------------------------------------------------===//

struct UploadedData : public TableFunctionData {
	explicit UploadedData(string table_name) : table_name(std::move(table_name)) {
	}

	string table_name;

	unique_ptr<FunctionData> Copy() const override {
		return make_uniq<UploadedData>(table_name);
	}
	bool Equals(const FunctionData &other) const override {
		return table_name == other.Cast<UploadedData>().table_name;
	}
};

TableFunctionToSQLResult UploadedToSql(ClientContext &, const LogicalGet &get) {
	auto table = make_uniq<BaseTableRef>();
	auto &name = get.bind_data->Cast<UploadedData>().table_name;
	table->SetQualifiedName(QualifiedName("temp", "main", Identifier(name)));
	TableFunctionToSQLResult result;
	result.source = std::move(table);
	return result;
}

//! A stand-in for rows that are sent to the workers, which only ever becomes SQL.
unique_ptr<LogicalGet> MakeUploaded(Binder &binder, const string &table_name, const vector<LogicalType> &types) {
	TableFunction function(Identifier(STAND_IN), {}, nullptr, nullptr);
	function.to_sql = UploadedToSql;
	vector<Identifier> names;
	vector<ColumnIndex> column_ids;
	for (idx_t i = 0; i < types.size(); i++) {
		names.emplace_back("c" + to_string(i));
		column_ids.emplace_back(i);
	}
	auto get = make_uniq<LogicalGet>(binder.GenerateTableIndex(), BoundTableFunction(function),
	                                 make_uniq<UploadedData>(table_name), types, std::move(names));
	get->SetColumnIds(std::move(column_ids));
	get->ResolveOperatorTypes();
	return get;
}

//! Takes what has rows of elsewhere out of a plan, and puts stand-ins there.
class Elsewhere {
public:
	//! `kept`: scans that each worker does on its own rows.
	Elsewhere(Binder &binder, const vector<string> &workers, LogicalOperator &root,
	          const vector<reference<LogicalGet>> &kept)
	    : binder(binder), workers(workers), root(root), kept(kept) {
	}

	void TakeOut(unique_ptr<LogicalOperator> &op) {
		if (IsStandIn(*op) || IsOnWorkers(*op)) {
			return;
		}
		if (ContainsKept(*op) || DependsOnOutside(*op) || op->GetColumnBindings().empty()) {
			for (auto &child : op->children) {
				TakeOut(child);
			}
			return;
		}
		InsertTarget upload;
		upload.placement.workers = workers;
		Replace(op, std::move(upload), {});
	}

	//! The same for rows that each belong to one worker, by the hash of `keys`; whether that can be.
	bool TakeOutByKeys(unique_ptr<LogicalOperator> &op, const Placement &placement,
	                   const vector<unique_ptr<Expression>> &keys) {
		if (DependsOnOutside(*op) || op->GetColumnBindings().empty()) {
			return false;
		}
		InsertTarget upload;
		upload.placement = placement;
		Replace(op, std::move(upload), keys);
		return true;
	}

	vector<InsertTarget> uploads;
	vector<unique_ptr<LogicalOperator>> taken;

private:
	void Replace(unique_ptr<LogicalOperator> &op, InsertTarget upload, const vector<unique_ptr<Expression>> &keys) {
		op->ResolveOperatorTypes();
		upload.table_name = "__duckherder_rows_" + to_string(++next_table);
		upload.temporary = true;
		auto types = op->types;
		for (auto &key : keys) {
			upload.key_columns.push_back(types.size());
			types.push_back(key->GetReturnType());
		}
		for (idx_t i = 0; i < types.size(); i++) {
			upload.column_names.push_back("c" + to_string(i));
		}
		auto stand_in = MakeUploaded(binder, upload.table_name, types);
		auto old_bindings = op->GetColumnBindings();
		auto new_bindings = stand_in->GetColumnBindings();
		uploads.push_back(std::move(upload));
		taken.push_back(InOrder(std::move(op), old_bindings, keys));
		ColumnBindingReplacer replacer;
		for (idx_t i = 0; i < old_bindings.size(); i++) {
			replacer.replacement_bindings.emplace_back(old_bindings[i], new_bindings[i]);
		}
		replacer.stop_operator = *stand_in;
		op = std::move(stand_in);
		replacer.VisitOperator(root);
	}

	unique_ptr<LogicalOperator> InOrder(unique_ptr<LogicalOperator> op, const vector<ColumnBinding> &bindings,
	                                    const vector<unique_ptr<Expression>> &keys) {
		vector<unique_ptr<Expression>> columns;
		for (idx_t i = 0; i < bindings.size(); i++) {
			columns.push_back(make_uniq<BoundColumnRefExpression>(op->types[i], bindings[i]));
		}
		for (auto &key : keys) {
			columns.push_back(key->Copy());
		}
		auto cardinality = op->estimated_cardinality;
		auto projection = make_uniq<LogicalProjection>(binder.GenerateTableIndex(), std::move(columns));
		projection->children.push_back(std::move(op));
		projection->SetEstimatedCardinality(cardinality);
		projection->ResolveOperatorTypes();
		return std::move(projection);
	}

	bool ContainsKept(const LogicalOperator &op) const {
		return std::any_of(kept.begin(), kept.end(), [&](LogicalGet &scan) { return Contains(op, scan); });
	}

	static bool IsStandIn(const LogicalOperator &op) {
		return op.type == LogicalOperatorType::LOGICAL_GET &&
		       op.Cast<LogicalGet>().function.GetName() == Identifier(STAND_IN);
	}

	//! Whether every worker can make its rows: constants, and tables of which each of them has all rows.
	bool IsOnWorkers(const LogicalOperator &op) const {
		switch (op.type) {
		case LogicalOperatorType::LOGICAL_DUMMY_SCAN:
		case LogicalOperatorType::LOGICAL_EXPRESSION_GET:
		case LogicalOperatorType::LOGICAL_EMPTY_RESULT:
			break;
		case LogicalOperatorType::LOGICAL_PROJECTION:
		case LogicalOperatorType::LOGICAL_FILTER:
			break;
		case LogicalOperatorType::LOGICAL_GET: {
			auto table = HerdTableOf(op);
			if (!table) {
				return false;
			}
			auto other = Placement::Parse(*PlacementOf(*table));
			for (auto &worker : workers) {
				auto &have = other.workers;
				if (!other.IsReplicated() || std::find(have.begin(), have.end(), worker) == have.end()) {
					return false;
				}
			}
			break;
		}
		default:
			return false;
		}
		bool same = true;
		LogicalOperatorVisitor::EnumerateExpressions(op, [&](const unique_ptr<Expression> *expression) {
			same = same && (*expression)->IsConsistent();
		});
		for (auto &child : op.children) {
			same = same && IsOnWorkers(*child);
		}
		return same;
	}

	//! Whether it reads what another part of the plan makes.
	static bool DependsOnOutside(const LogicalOperator &op) {
		unordered_set<TableIndex> inside;
		return DependsOnOutside(op, inside);
	}

	//! `inside`: the CTEs that are defined within it.
	static bool DependsOnOutside(const LogicalOperator &op, unordered_set<TableIndex> &inside) {
		if (op.type == LogicalOperatorType::LOGICAL_DELIM_GET) {
			return true;
		}
		if (op.type == LogicalOperatorType::LOGICAL_CTE_REF) {
			return inside.find(op.Cast<LogicalCTERef>().cte_index) == inside.end();
		}
		if (op.type == LogicalOperatorType::LOGICAL_MATERIALIZED_CTE) {
			inside.insert(op.Cast<LogicalMaterializedCTE>().table_index);
		}
		for (auto &child : op.children) {
			if (DependsOnOutside(*child, inside)) {
				return true;
			}
		}
		return false;
	}

	Binder &binder;
	const vector<string> &workers;
	LogicalOperator &root;
	const vector<reference<LogicalGet>> &kept;
};

//===--------------------------------------------------------------------===//
// The statement
//===--------------------------------------------------------------------===//

//! Puts values in the places of a prepared statement's parameters.
class BindValues : public LogicalOperatorVisitor {
protected:
	unique_ptr<Expression> VisitReplace(BoundParameterExpression &expression, unique_ptr<Expression> *) override {
		auto &data = expression.ParameterData();
		auto value = data->GetValue().DefaultCastAs(expression.GetReturnType());
		return make_uniq<BoundConstantExpression>(std::move(value));
	}
};

//! What a worker would do in its own way.
void CheckExpressions(LogicalOperator &op, const TableCatalogEntry &table, bool replicated) {
	LogicalOperatorVisitor::EnumerateExpressions(op, [&](unique_ptr<Expression> *expression) {
		if (replicated && !(*expression)->IsConsistent()) {
			Refuse(table, "it is replicated, and an expression of the statement has another value each time");
		}
		ExpressionIterator::VisitExpression<BoundFunctionExpression>(**expression, [&](const BoundFunctionExpression &call) {
			auto name = call.Function().GetName().GetIdentifierName();
			if (name == "nextval" || name == "currval") {
				Refuse(table, "workers do not have the coordinator's sequences; CREATE TEMP TABLE with the values first");
			}
		});
	});
	for (auto &child : op.children) {
		CheckExpressions(*child, table, replicated);
	}
}

bool IsKey(const Placement &placement, const TableCatalogEntry &table, PhysicalIndex column) {
	auto &name = table.GetColumns().GetColumn(column).Name();
	for (auto &key : placement.keys) {
		if (Identifier(key) == name) {
			return true;
		}
	}
	return false;
}

bool MovesRows(LogicalOperator &change, const Placement &placement, const TableCatalogEntry &table) {
	auto changes_key = [&](const vector<PhysicalIndex> &columns) {
		return std::any_of(columns.begin(), columns.end(),
		                   [&](PhysicalIndex column) { return IsKey(placement, table, column); });
	};
	if (change.type == LogicalOperatorType::LOGICAL_UPDATE) {
		return changes_key(change.Cast<LogicalUpdate>().columns);
	}
	if (change.type != LogicalOperatorType::LOGICAL_MERGE_INTO) {
		return false;
	}
	for (auto &entry : change.Cast<LogicalMergeInto>().actions) {
		for (auto &action : entry.second) {
			if (changes_key(action->columns)) {
				return true;
			}
		}
	}
	return false;
}

//! Those that hold values. Which of them DuckDB updates in place is as `TableCatalogEntry::BindUpdateConstraints` has it.
vector<MovedColumn> ColumnsThatMove(ClientContext &context, Binder &binder, TableCatalogEntry &table) {
	physical_index_set_t not_in_place;
	for (auto &column : table.GetColumns().Physical()) {
		if (!column.Type().SupportsRegularUpdate()) {
			not_in_place.insert(column.Physical());
		}
	}
	for (auto &index : table.GetStorageInfo(context).index_info) {
		for (auto &column : index.column_set) {
			not_in_place.insert(PhysicalIndex(column));
		}
	}
	// Columns of a CHECK are updated together.
	auto constraints = binder.BindConstraints(table.GetConstraints(), table.name, table.GetColumns());
	auto known = not_in_place.size() + 1;
	while (known != not_in_place.size()) {
		known = not_in_place.size();
		for (auto &constraint : constraints) {
			if (constraint->type != ConstraintType::CHECK) {
				continue;
			}
			auto &columns = constraint->Cast<BoundCheckConstraint>().bound_columns;
			if (std::any_of(columns.begin(), columns.end(),
			                [&](const PhysicalIndex &column) { return not_in_place.count(column) > 0; })) {
				not_in_place.insert(columns.begin(), columns.end());
			}
		}
	}
	vector<MovedColumn> result;
	for (auto &column : table.GetColumns().Physical()) {
		result.push_back({column.Name().GetIdentifierName(), not_in_place.count(column.Physical()) == 0});
	}
	return result;
}

//===--------------------------------------------------------------------===//
// MERGE
//===--------------------------------------------------------------------===//

//! Whether a MERGE does something with rows of its source that match none of the target.
bool Inserts(LogicalMergeInto &merge) {
	return merge.actions.count(MergeActionCondition::WHEN_NOT_MATCHED_BY_TARGET) > 0;
}

//! The join of a MERGE's source with its target.
optional_ptr<LogicalComparisonJoin> FindMergeJoin(LogicalOperator &op, const LogicalOperator &target) {
	if (op.type == LogicalOperatorType::LOGICAL_COMPARISON_JOIN) {
		auto &join = op.Cast<LogicalComparisonJoin>();
		auto side = SideOf(op, target);
		auto keeps_source = join.join_type == JoinType::OUTER || (join.join_type == JoinType::LEFT && side == 1) ||
		                    (join.join_type == JoinType::RIGHT && side == 0);
		if (keeps_source) {
			return &join;
		}
	}
	auto side = SideOf(op, target);
	return side < op.children.size() ? FindMergeJoin(*op.children[side], target) : nullptr;
}

//! An expression without casts from one integer type to another.
const Expression &WithoutIntegerCasts(const Expression &expression) {
	if (!BoundCastExpression::IsCast(expression)) {
		return expression;
	}
	auto &child = BoundCastExpression::Child(expression.Cast<BoundFunctionExpression>());
	return expression.GetReturnType().IsIntegral() && child.GetReturnType().IsIntegral() ? WithoutIntegerCasts(child)
	                                                                                      : expression;
}

//! Whether an expression is that column of the target's scan.
bool IsColumn(const Expression &expression, LogicalGet &target, LogicalIndex column) {
	if (expression.GetExpressionClass() != ExpressionClass::BOUND_COLUMN_REF) {
		return false;
	}
	auto &binding = expression.Cast<BoundColumnRefExpression>().Binding();
	auto &ids = target.GetColumnIds();
	auto position = binding.column_index.GetIndex();
	return binding.table_index == target.table_index && position < ids.size() &&
	       !ids[position].IsVirtualColumn() && ids[position].GetPrimaryIndex() == column.index;
}

//! For each key of the target what the join compares it with, as a value of the key's type.
vector<unique_ptr<Expression>> KeysOfSource(ClientContext &context, LogicalComparisonJoin &join, LogicalGet &target,
                                            const TableCatalogEntry &table, const Placement &placement) {
	auto is_left = SideOf(join, target) == 0;
	vector<unique_ptr<Expression>> result;
	for (auto &key : placement.keys) {
		auto &column = table.GetColumn(Identifier(key));
		for (auto &condition : join.conditions) {
			if (!condition.IsComparison() || condition.GetComparisonType() != ExpressionType::COMPARE_EQUAL) {
				continue;
			}
			// An integer that does not fit the key's type is equal to no key.
			auto &own = WithoutIntegerCasts(is_left ? condition.GetLHS() : condition.GetRHS());
			auto &other = is_left ? condition.GetRHS() : condition.GetLHS();
			if (IsColumn(own, target, column.Logical())) {
				result.push_back(BoundCastExpression::AddCastToType(context, other.Copy(), column.Type(), true));
				break;
			}
		}
	}
	return result;
}

//! Whether what a MERGE inserts has just those keys, so that it is on the right worker.
bool InsertsKeys(LogicalMergeInto &merge, const TableCatalogEntry &table, const Placement &placement,
                 const vector<unique_ptr<Expression>> &keys) {
	if (merge.children[0]->type != LogicalOperatorType::LOGICAL_PROJECTION) {
		return false;
	}
	auto &projection = merge.children[0]->Cast<LogicalProjection>();
	for (auto &action : merge.actions[MergeActionCondition::WHEN_NOT_MATCHED_BY_TARGET]) {
		if (action->action_type != MergeActionType::MERGE_INSERT) {
			continue;
		}
		for (idx_t i = 0; i < keys.size(); i++) {
			auto place = table.GetColumn(Identifier(placement.keys[i])).StorageOid();
			auto &value = WithoutIntegerCasts(*action->expressions[place]);
			if (value.GetExpressionClass() != ExpressionClass::BOUND_COLUMN_REF) {
				return false;
			}
			auto &binding = value.Cast<BoundColumnRefExpression>().Binding();
			if (binding.table_index != projection.table_index) {
				return false;
			}
			auto &inserted = WithoutIntegerCasts(*projection.expressions[binding.column_index.GetIndex()]);
			if (!inserted.Equals(WithoutIntegerCasts(*keys[i]))) {
				return false;
			}
		}
	}
	return true;
}

void SetTarget(TableRef &ref, const TableCatalogEntry &table) {
	auto &base = ref.Cast<BaseTableRef>();
	base.SetQualifiedName(QualifiedName(Identifier(), table.schema.name, table.name));
}

void SetTarget(QueryNode &node, const TableCatalogEntry &table) {
	switch (node.type) {
	case QueryNodeType::UPDATE_QUERY_NODE:
		SetTarget(*node.Cast<UpdateQueryNode>().table, table);
		break;
	case QueryNodeType::DELETE_QUERY_NODE:
		SetTarget(*node.Cast<DeleteQueryNode>().table, table);
		break;
	case QueryNodeType::MERGE_QUERY_NODE:
		SetTarget(*node.Cast<MergeQueryNode>().target, table);
		SetSomething(node.Cast<MergeQueryNode>(), table);
		break;
	default:
		Refuse(table, "it is of an unknown kind");
	}
}

} // namespace

bool PlanHerdChange(ClientContext &context, Binder &binder, unique_ptr<LogicalOperator> &op) {
	auto returning_list = op->type == LogicalOperatorType::LOGICAL_PROJECTION && op->children.size() == 1;
	auto &change = returning_list ? *op->children[0] : *op;
	bool returning = false;
	auto changed = ChangedTable(change, returning);
	if (!changed || !PlacementOf(*changed) || returning != returning_list) {
		return false;
	}
	auto &table = *changed;
	Change result;
	result.placement_tag = *PlacementOf(table);
	result.placement = Placement::Parse(result.placement_tag);
	result.placement.CheckWrites(table.name.GetIdentifierName());
	result.workers = result.placement.workers;
	result.schema_name = table.schema.name.GetIdentifierName();
	result.table_name = table.name.GetIdentifierName();
	result.returning = returning;
	result.moves = MovesRows(change, result.placement, table);
	BindValues().VisitOperator(*op);
	CheckExpressions(*op, table, result.placement.IsReplicated());
	References through;
	auto found = FindTarget(change, through);
	if (!found || HerdTableOf(*found).get() != &table) {
		Refuse(table, "the rows that it changes cannot be told apart from others of the table");
	}
	auto &target = *found;
	vector<reference<LogicalGet>> numbered;
	FindNumbered(*change.children[0], table, numbered);
	for (auto &scan : numbered) {
		auto is_target = &scan.get() == &target;
		if (!is_target && !MeetsItself(*change.children[0], *change.children[0], target, scan.get())) {
			Refuse(table, "it compares rowid, which says nothing about rows of other workers");
		}
	}
	optional_ptr<LogicalComparisonJoin> merge_join;
	vector<unique_ptr<Expression>> keys;
	if (change.type == LogicalOperatorType::LOGICAL_MERGE_INTO && Inserts(change.Cast<LogicalMergeInto>()) &&
	    !result.placement.IsReplicated()) {
		auto &merge = change.Cast<LogicalMergeInto>();
		merge_join = FindMergeJoin(*change.children[0], target);
		if (merge_join) {
			keys = KeysOfSource(context, *merge_join, target, table, result.placement);
		}
		if (result.placement.keys.empty() || keys.size() != result.placement.keys.size()) {
			Refuse(table, "where a row is to be inserted is known only if the condition compares all columns that the table "
			              "is PARTITIONED BY with values of the same type");
		}
		result.moves = result.moves || !InsertsKeys(merge, table, result.placement, keys);
	}
	if (!result.placement.IsReplicated() && !IsRowWise(*change.children[0], target, through, merge_join.get())) {
		Refuse(table, "whether a row is changed depends on rows of other workers; CREATE TEMP TABLE with the keys of the "
		              "rows first, and change those");
	}
	if (result.moves) {
		result.columns = ColumnsThatMove(context, binder, table);
	}
	auto bucket = merge_join ? optional<hash_t>() : FixedBucket(target, result.placement.keys);
	if (bucket) {
		// The rows are all on one worker.
		auto &partitions = result.placement.partitions;
		result.workers = {result.placement.workers[partitions[*bucket % partitions.size()]]};
	}
	Elsewhere elsewhere(binder, result.workers, *op, numbered);
	if (merge_join && !elsewhere.TakeOutByKeys(merge_join->children[1 - SideOf(*merge_join, target)], result.placement, keys)) {
		Refuse(table, "its source depends on the table's rows");
	}
	elsewhere.TakeOut(change.children[0]);
	op->ResolveOperatorTypes();
	auto exported = LogicalPlanSQLExporter::Export(context, *op);
	if (exported.HasError()) {
		Refuse(table, "it cannot be written as SQL for the workers (" + exported.GetIssues()[0].message +
		                  "); CREATE TEMP TABLE with what it needs first");
	}
	auto &query = *exported.GetValue().query;
	SetTarget(query, table);
	result.sql = Deparse(context, query);
	for (auto &upload : elsewhere.uploads) {
		result.tables.push_back(upload.table_name);
	}
	auto planned = make_uniq<LogicalHerdChange>(std::move(result), std::move(elsewhere.uploads), op->GetColumnBindings(),
	                                            op->types);
	planned->children = std::move(elsewhere.taken);
	planned->SetEstimatedCardinality(op->estimated_cardinality);
	planned->ResolveOperatorTypes();
	op = std::move(planned);
	return true;
}

} // namespace herd
