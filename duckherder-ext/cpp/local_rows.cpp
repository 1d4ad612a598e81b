#include "local_rows.hpp"

#include "deparse.hpp"
#include "remote_catalog.hpp"
#include "remote_insert.hpp"
#include "remote_query.hpp"
#include "remote_table.hpp"
#include "remote_transaction.hpp"
#include "sql_export.hpp"
#include "table_scan.hpp"

#include "duckdb/execution/operator/scan/physical_table_scan.hpp"
#include "duckdb/execution/physical_plan_generator.hpp"
#include "duckdb/main/config.hpp"
#include "duckdb/main/database_manager.hpp"
#include "duckdb/optimizer/cte_inlining.hpp"
#include "duckdb/optimizer/filter_pushdown.hpp"
#include "duckdb/optimizer/optimizer.hpp"
#include "duckdb/optimizer/optimizer_extension.hpp"
#include "duckdb/parallel/meta_pipeline.hpp"
#include "duckdb/parallel/pipeline.hpp"
#include "duckdb/parser/query_node/delete_query_node.hpp"
#include "duckdb/parser/query_node/insert_query_node.hpp"
#include "duckdb/parser/query_node/merge_query_node.hpp"
#include "duckdb/parser/query_node/update_query_node.hpp"
#include "duckdb/parser/tableref/basetableref.hpp"
#include "duckdb/planner/binder.hpp"
#include "duckdb/planner/expression/bound_columnref_expression.hpp"
#include "duckdb/planner/logical_plan_sql_exporter.hpp"
#include "duckdb/planner/operator/logical_delete.hpp"
#include "duckdb/planner/operator/logical_explain.hpp"
#include "duckdb/planner/operator/logical_extension_operator.hpp"
#include "duckdb/planner/operator/logical_get.hpp"
#include "duckdb/planner/operator/logical_insert.hpp"
#include "duckdb/planner/operator/logical_merge_into.hpp"
#include "duckdb/planner/operator/logical_projection.hpp"
#include "duckdb/planner/operator/logical_update.hpp"

namespace duckherder {

using namespace duckdb;

namespace {

//===--------------------------------------------------------------------===//
// What runs
//===--------------------------------------------------------------------===//

//! Its children are the scan of the statement's result, and the uploads that come before, one after the other: they
//! share a connection on the server.
class PhysicalUploadAndRun : public PhysicalOperator {
public:
	PhysicalUploadAndRun(PhysicalPlan &plan, vector<LogicalType> types, idx_t estimated_cardinality)
	    : PhysicalOperator(plan, PhysicalOperatorType::EXTENSION, std::move(types), estimated_cardinality) {
	}

	string GetName() const override {
		return "DUCKHERDER_UPLOAD_AND_RUN";
	}

	vector<const_reference<PhysicalOperator>> GetSources() const override {
		return children[0].get().GetSources();
	}

	void BuildPipelines(Pipeline &current, MetaPipeline &meta_pipeline) override {
		vector<shared_ptr<Pipeline>> before;
		for (idx_t i = 1; i < children.size(); i++) {
			auto &upload = children[i].get();
			upload.sink_state.reset();
			auto &child = meta_pipeline.CreateChildMetaPipeline(current, upload);
			child.Build(upload.children[0].get());
			vector<shared_ptr<Pipeline>> pipelines;
			child.GetPipelines(pipelines, false);
			for (auto &pipeline : pipelines) {
				for (auto &other : before) {
					pipeline->AddDependency(other);
				}
			}
			before = std::move(pipelines);
		}
		children[0].get().BuildPipelines(current, meta_pipeline);
	}
};

//! The place that a statement takes in the plan. Its children produce the rows that go up.
class LogicalUploadAndRun : public LogicalExtensionOperator {
public:
	LogicalUploadAndRun(RemoteStatement statement, vector<string> uploads, vector<ColumnBinding> bindings,
	                    vector<LogicalType> result_types)
	    : statement(std::move(statement)), uploads(std::move(uploads)), bindings(std::move(bindings)),
	      result_types(std::move(result_types)) {
	}

	PhysicalOperator &CreatePlan(ClientContext &context, PhysicalPlanGenerator &planner) override {
		auto &result = planner.Make<PhysicalUploadAndRun>(result_types, estimated_cardinality);
		unique_ptr<FunctionData> bind_data;
		auto function = MakeStatementScan(statement, result_types, bind_data);
		vector<ColumnIndex> column_ids;
		vector<string> names;
		for (idx_t i = 0; i < result_types.size(); i++) {
			column_ids.emplace_back(i);
			names.push_back("c" + to_string(i));
		}
		auto &scan = planner.Make<PhysicalTableScan>(
		    result_types, BoundTableFunction(function), std::move(bind_data), result_types, std::move(column_ids),
		    vector<idx_t>(), std::move(names), nullptr, estimated_cardinality, ExtraOperatorInfo(), vector<Value>(),
		    virtual_column_map_t());
		result.children.push_back(scan);
		auto &transaction = RemoteTransaction::Get(context, statement.catalog);
		for (idx_t i = 0; i < children.size(); i++) {
			UploadTarget target;
			target.table_name = uploads[i];
			target.mode = DhCreateTemporary;
			for (idx_t column = 0; column < children[i]->types.size(); column++) {
				target.column_names.push_back("c" + to_string(column));
			}
			auto &upload =
			    planner.Make<RemoteInsert>(statement.catalog, std::move(target), children[i]->estimated_cardinality);
			upload.children.push_back(planner.CreatePlan(*children[i]));
			result.children.push_back(upload);
			transaction.DropAfterwards(uploads[i]);
		}
		return result;
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

//! A stand-in for rows that have gone up, which only ever becomes SQL.
unique_ptr<LogicalGet> MakeUploaded(Binder &binder, const string &table_name, const vector<LogicalType> &types) {
	TableFunction function("duckherder_uploaded", {}, nullptr, nullptr);
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
	return get;
}

//! Takes what does not belong to the duckling out of a plan, and puts stand-ins there.
class LocalRows {
public:
	LocalRows(Binder &binder, RemoteCatalog &catalog, LogicalOperator &root)
	    : binder(binder), catalog(catalog), root(root) {
	}

	void TakeOut(unique_ptr<LogicalOperator> &op) {
		if (TouchesDuckling(*op) || DependsOnOutside(*op) || op->GetColumnBindings().empty()) {
			for (auto &child : op->children) {
				TakeOut(child);
			}
			return;
		}
		op->ResolveOperatorTypes();
		tables.push_back("__duckherder_rows_" + to_string(tables.size() + 1));
		auto uploaded = MakeUploaded(binder, tables.back(), op->types);
		uploaded->ResolveOperatorTypes();
		auto old_bindings = op->GetColumnBindings();
		taken.push_back(InOrder(std::move(op), old_bindings));
		op = std::move(uploaded);
		ReplaceColumns(root, old_bindings, *op);
	}

	vector<string> tables;
	vector<unique_ptr<LogicalOperator>> taken;

private:
	//! With its columns in the order that they have now, whatever the optimizer makes of it: swapped joins, for one.
	unique_ptr<LogicalOperator> InOrder(unique_ptr<LogicalOperator> op, const vector<ColumnBinding> &bindings) {
		vector<unique_ptr<Expression>> columns;
		for (idx_t i = 0; i < bindings.size(); i++) {
			columns.push_back(make_uniq<BoundColumnRefExpression>(op->types[i], bindings[i]));
		}
		auto projection = make_uniq<LogicalProjection>(binder.GenerateTableIndex(), std::move(columns));
		projection->children.push_back(std::move(op));
		projection->ResolveOperatorTypes();
		return std::move(projection);
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

//! The table that a plan's node changes; null if it changes none, or if DuckDB's own way of planning it does.
optional_ptr<TableCatalogEntry> ChangedTable(LogicalOperator &op, bool &returning) {
	switch (op.type) {
	case LogicalOperatorType::LOGICAL_INSERT: {
		auto &insert = op.Cast<LogicalInsert>();
		returning = insert.return_chunk;
		return returning ? &insert.table : nullptr;
	}
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
	case QueryNodeType::INSERT_QUERY_NODE:
		node.Cast<InsertQueryNode>().qualified_name = table.RemoteQualifiedName();
		break;
	case QueryNodeType::UPDATE_QUERY_NODE:
		SetTarget(*node.Cast<UpdateQueryNode>().table, table);
		break;
	case QueryNodeType::DELETE_QUERY_NODE:
		SetTarget(*node.Cast<DeleteQueryNode>().table, table);
		break;
	case QueryNodeType::MERGE_QUERY_NODE:
		SetTarget(*node.Cast<MergeQueryNode>().target, table);
		break;
	default:
		throw NotImplementedException("a change of a duckling's table of this kind");
	}
}

unique_ptr<LogicalOperator> MakeUploadAndRun(OptimizerExtensionInput &input, unique_ptr<LogicalOperator> root,
                                             LogicalOperator &change, RemoteTable &table) {
	auto &catalog = table.GetRemoteCatalog();
	FilterPushdown filter_pushdown(input.optimizer);
	change.children[0] = filter_pushdown.Rewrite(std::move(change.children[0]));
	LocalRows local(input.optimizer.binder, catalog, *root);
	local.TakeOut(change.children[0]);
	root->ResolveOperatorTypes();
	auto exported = LogicalPlanSQLExporter::Export(input.context, *root);
	if (exported.HasError()) {
		throw NotImplementedException("a duckling's table cannot be changed with rows of this process in this way (%s); "
		                              "put the rows into a table of the duckling first",
		                              exported.GetIssues()[0].message);
	}
	auto &query = *exported.GetValue().query;
	SetTarget(query, table);
	RemoteStatement statement {catalog, Deparse(input.context, query), QueryShape::DESCRIBED, {}, {}};
	auto result = make_uniq<LogicalUploadAndRun>(std::move(statement), std::move(local.tables),
	                                             root->GetColumnBindings(), root->types);
	result->children = std::move(local.taken);
	result->SetEstimatedCardinality(1);
	result->ResolveOperatorTypes();
	return std::move(result);
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
	auto &remote_table = table->Cast<RemoteTable>();
	auto &changed = change;
	plan = MakeUploadAndRun(input, std::move(plan), changed, remote_table);
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
