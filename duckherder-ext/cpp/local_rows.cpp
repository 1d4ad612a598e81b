#include "local_rows.hpp"

#include "deparse.hpp"
#include "remote_catalog.hpp"
#include "remote_default.hpp"
#include "remote_query.hpp"
#include "remote_table.hpp"
#include "sql_export.hpp"
#include "table_scan.hpp"
#include "upload_and_run.hpp"

#include "duckdb/execution/physical_plan_generator.hpp"
#include "duckdb/main/config.hpp"
#include "duckdb/main/database_manager.hpp"
#include "duckdb/optimizer/cte_inlining.hpp"
#include "duckdb/optimizer/filter_pushdown.hpp"
#include "duckdb/optimizer/optimizer.hpp"
#include "duckdb/optimizer/optimizer_extension.hpp"
#include "duckdb/parser/query_node/delete_query_node.hpp"
#include "duckdb/parser/query_node/merge_query_node.hpp"
#include "duckdb/parser/query_node/update_query_node.hpp"
#include "duckdb/parser/tableref/basetableref.hpp"
#include "duckdb/planner/binder.hpp"
#include "duckdb/planner/expression/bound_case_expression.hpp"
#include "duckdb/planner/expression/bound_columnref_expression.hpp"
#include "duckdb/planner/expression/bound_constant_expression.hpp"
#include "duckdb/planner/expression/bound_operator_expression.hpp"
#include "duckdb/planner/logical_operator_visitor.hpp"
#include "duckdb/planner/logical_plan_sql_exporter.hpp"
#include "duckdb/planner/operator/logical_delete.hpp"
#include "duckdb/planner/operator/logical_explain.hpp"
#include "duckdb/planner/operator/logical_extension_operator.hpp"
#include "duckdb/planner/operator/logical_get.hpp"
#include "duckdb/planner/operator/logical_merge_into.hpp"
#include "duckdb/planner/operator/logical_projection.hpp"
#include "duckdb/planner/operator/logical_update.hpp"

namespace duckherder {

using namespace duckdb;

namespace {

//! The place that a statement takes in the plan. Its children produce the rows that go up.
class LogicalUploadAndRun : public LogicalExtensionOperator {
public:
	LogicalUploadAndRun(RemoteStatement statement, vector<string> uploads, vector<ColumnBinding> bindings,
	                    vector<LogicalType> result_types)
	    : statement(std::move(statement)), uploads(std::move(uploads)), bindings(std::move(bindings)),
	      result_types(std::move(result_types)) {
	}

	PhysicalOperator &CreatePlan(ClientContext &, PhysicalPlanGenerator &planner) override {
		vector<RowsToUpload> rows;
		for (idx_t i = 0; i < children.size(); i++) {
			rows.push_back({planner.CreatePlan(*children[i]), uploads[i]});
		}
		return PlanUploadAndRun(planner, statement, result_types, rows, estimated_cardinality);
	}

	vector<ColumnBinding> GetColumnBindings() override {
		return bindings;
	}
	string GetName() const override {
		return "DUCKHERDER_UPLOAD_AND_RUN";
	}
	string GetExtensionName() const override {
		return "duckherder_upload_and_run";
	}

protected:
	void ResolveTypes() override {
		types = result_types;
	}

private:
	RemoteStatement statement;
	//! Temporary tables, one a child.
	vector<string> uploads;
	vector<ColumnBinding> bindings;
	vector<LogicalType> result_types;
};

//===--------------------------------------------------------------------===//
// The rows of this process in a statement
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

//! A stand-in for rows that have gone up, which only ever becomes SQL. Its columns are called like those of `rows`.
unique_ptr<LogicalGet> MakeUploaded(const LogicalProjection &rows, const string &table_name) {
	TableFunction function("duckherder_uploaded", {}, nullptr, nullptr);
	function.to_sql = UploadedToSql;
	vector<Identifier> names;
	vector<ColumnIndex> column_ids;
	for (idx_t i = 0; i < rows.types.size(); i++) {
		names.emplace_back("c" + to_string(i));
		column_ids.emplace_back(i);
	}
	auto get = make_uniq<LogicalGet>(rows.table_index, BoundTableFunction(function),
	                                 make_uniq<UploadedData>(table_name), rows.types, std::move(names));
	get->SetColumnIds(std::move(column_ids));
	get->ResolveOperatorTypes();
	return get;
}

//! Takes what does not belong to the duckling out of a plan, and puts stand-ins there.
class LocalRows {
public:
	LocalRows(Binder &binder, RemoteCatalog &catalog, LogicalOperator &root)
	    : binder(binder), catalog(catalog), root(root) {
	}

	void TakeOut(unique_ptr<LogicalOperator> &op) {
		if (TouchesDuckling(*op) || HasRemoteDefault(*op) || DependsOnOutside(*op) || op->GetColumnBindings().empty()) {
			for (auto &child : op->children) {
				TakeOut(child);
			}
			return;
		}
		op->ResolveOperatorTypes();
		tables.push_back("__duckherder_rows_" + to_string(tables.size() + 1));
		auto old_bindings = op->GetColumnBindings();
		auto rows = InOrder(std::move(op), old_bindings);
		op = MakeUploaded(*rows, tables.back());
		taken.push_back(std::move(rows));
		ReplaceColumns(root, old_bindings, *op);
	}

	//! Undoes it.
	void PutBack(unique_ptr<LogicalOperator> &op) {
		if (op->type == LogicalOperatorType::LOGICAL_GET) {
			for (auto &rows : taken) {
				if (rows && rows->Cast<LogicalProjection>().table_index == op->Cast<LogicalGet>().table_index) {
					op = std::move(rows);
					return;
				}
			}
		}
		for (auto &child : op->children) {
			PutBack(child);
		}
	}

	vector<string> tables;
	vector<unique_ptr<LogicalOperator>> taken;

private:
	//! With its columns in the order that they have now, whatever the optimizer makes of it: swapped joins, for one.
	unique_ptr<LogicalProjection> InOrder(unique_ptr<LogicalOperator> op, const vector<ColumnBinding> &bindings) {
		vector<unique_ptr<Expression>> columns;
		for (idx_t i = 0; i < bindings.size(); i++) {
			columns.push_back(make_uniq<BoundColumnRefExpression>(op->types[i], bindings[i]));
		}
		auto projection = make_uniq<LogicalProjection>(binder.GenerateTableIndex(), std::move(columns));
		projection->children.push_back(std::move(op));
		projection->ResolveOperatorTypes();
		return projection;
	}

	bool TouchesDuckling(const LogicalOperator &op) const {
		auto table = TableOfScan(op);
		if (table && &table->GetRemoteCatalog() == &catalog) {
			return true;
		}
		for (auto &child : op.children) {
			if (TouchesDuckling(*child)) {
				return true;
			}
		}
		return false;
	}

	//! Whether it reads what another part of the plan makes.
	static bool DependsOnOutside(const LogicalOperator &op) {
		if (op.type == LogicalOperatorType::LOGICAL_DELIM_GET || op.type == LogicalOperatorType::LOGICAL_CTE_REF) {
			return true;
		}
		for (auto &child : op.children) {
			if (DependsOnOutside(*child)) {
				return true;
			}
		}
		return false;
	}

	Binder &binder;
	RemoteCatalog &catalog;
	LogicalOperator &root;
};

//===--------------------------------------------------------------------===//
// The statement
//===--------------------------------------------------------------------===//

//! The table whose rows a plan's node changes; null if it changes none.
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

void SetTarget(TableRef &ref, const RemoteTable &table) {
	auto &base = ref.Cast<BaseTableRef>();
	base.SetQualifiedName(table.RemoteQualifiedName());
	// Generated references use the table's name here.
	base.alias = table.name;
}

void SetTarget(QueryNode &node, const RemoteTable &table) {
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
		throw NotImplementedException("a change of a duckling's table of this kind");
	}
}

//! Makes WHEN NOT MATCHED BY SOURCE into WHEN MATCHED, which by rowid it is: the plan has joined the rows already, and a
//! column of it says which of them have a source.
void MatchWithoutSource(LogicalMergeInto &merge) {
	auto by_source = merge.actions.find(MergeActionCondition::WHEN_NOT_MATCHED_BY_SOURCE);
	if (by_source == merge.actions.end() || !merge.source_marker.IsValid()) {
		return;
	}
	auto marker = merge.children[0]->GetColumnBindings()[merge.source_marker.GetIndex()];
	auto restrict_to = [&](BoundMergeIntoAction &action, ExpressionType marker_test) {
		auto test = make_uniq<BoundOperatorExpression>(marker_test, LogicalType::BOOLEAN);
		test->GetChildrenMutable().push_back(make_uniq<BoundColumnRefExpression>(LogicalType::INTEGER, marker));
		if (!action.condition) {
			action.condition = std::move(test);
			return;
		}
		// In this order: the condition may fail for other rows.
		action.condition =
		    make_uniq<BoundCaseExpression>(std::move(test), std::move(action.condition),
		                                   make_uniq<BoundConstantExpression>(Value::BOOLEAN(false)));
	};
	auto &matched = merge.actions[MergeActionCondition::WHEN_MATCHED];
	for (auto &action : matched) {
		restrict_to(*action, ExpressionType::OPERATOR_IS_NOT_NULL);
	}
	for (auto &action : by_source->second) {
		restrict_to(*action, ExpressionType::OPERATOR_IS_NULL);
		matched.push_back(std::move(action));
	}
	merge.actions.erase(by_source);
	merge.source_marker = optional_idx();
}

bool ServerKnowsFunctionsOf(ClientContext &context, RemoteCatalog &catalog, LogicalOperator &op) {
	auto known = true;
	LogicalOperatorVisitor::EnumerateExpressions(op, [&](unique_ptr<Expression> *expression) {
		known = known && ServerKnowsFunctions(context, catalog, **expression);
	});
	for (auto &child : op.children) {
		known = known && ServerKnowsFunctionsOf(context, catalog, *child);
	}
	return known;
}

//! Puts the change as one statement in the plan's place, if there is SQL for it. What there is none for is planned by the
//! catalog.
void SendAsStatement(OptimizerExtensionInput &input, unique_ptr<LogicalOperator> &plan, LogicalOperator &change,
                     RemoteTable &table) {
	auto &catalog = table.GetRemoteCatalog();
	if (change.type == LogicalOperatorType::LOGICAL_MERGE_INTO) {
		MatchWithoutSource(change.Cast<LogicalMergeInto>());
	}
	auto &rows = change.children[0];
	FilterPushdown filter_pushdown(input.optimizer);
	// Marks that a projection keeps are not to become semi joins.
	unordered_set<TableIndex> referenced;
	filter_pushdown.CheckMarkToSemi(*rows, referenced);
	rows = filter_pushdown.Rewrite(std::move(rows));
	LocalRows local(input.optimizer.binder, catalog, *plan);
	local.TakeOut(rows);
	plan->ResolveOperatorTypes();
	auto exported = LogicalPlanSQLExporter::Export(input.context, *plan);
	if (exported.HasError() || !ServerKnowsFunctionsOf(input.context, catalog, *rows)) {
		return local.PutBack(rows);
	}
	auto &query = *exported.GetValue().query;
	SetTarget(query, table);
	WriteRemoteDefaults(query);
	RemoteStatement statement {catalog, Deparse(input.context, query), QueryShape::DESCRIBED, {}, {}};
	auto result = make_uniq<LogicalUploadAndRun>(std::move(statement), std::move(local.tables),
	                                             plan->GetColumnBindings(), plan->types);
	result->children = std::move(local.taken);
	result->SetEstimatedCardinality(1);
	result->ResolveOperatorTypes();
	plan = std::move(result);
}

//! Whether somewhere below it is a change that has to be sent.
bool ChangesDuckling(LogicalOperator &op) {
	auto returning = false;
	auto table = ChangedTable(op, returning);
	if (table && table->ParentCatalog().GetCatalogType() == RemoteCatalog::TYPE) {
		return true;
	}
	for (auto &child : op.children) {
		if (ChangesDuckling(*child)) {
			return true;
		}
	}
	return false;
}

void Rewrite(OptimizerExtensionInput &input, unique_ptr<LogicalOperator> &plan) {
	if (plan->type == LogicalOperatorType::LOGICAL_EXPLAIN || plan->type == LogicalOperatorType::LOGICAL_EXECUTE) {
		for (auto &child : plan->children) {
			Rewrite(input, child);
		}
		return;
	}
	if (plan->type == LogicalOperatorType::LOGICAL_MATERIALIZED_CTE && ChangesDuckling(*plan)) {
		plan = CTEInlining(input.optimizer).Optimize(std::move(plan));
	}
	auto returning_list = plan->type == LogicalOperatorType::LOGICAL_PROJECTION && plan->children.size() == 1;
	auto &change = returning_list ? *plan->children[0] : *plan;
	auto returning = false;
	auto table = ChangedTable(change, returning);
	if (!table || returning != returning_list || table->ParentCatalog().GetCatalogType() != RemoteCatalog::TYPE) {
		return;
	}
	SendAsStatement(input, plan, change, table->Cast<RemoteTable>());
}

void PreOptimize(OptimizerExtensionInput &input, unique_ptr<LogicalOperator> &plan) {
	if (DatabaseManager::Get(input.context).GetRemoteCatalogCount() > 0) {
		Rewrite(input, plan);
	}
}

} // namespace

void RegisterLocalRows(DBConfig &config) {
	OptimizerExtension extension;
	extension.pre_optimize_function = PreOptimize;
	OptimizerExtension::Register(config, extension);
}

} // namespace duckherder
