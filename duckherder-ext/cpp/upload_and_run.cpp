#include "upload_and_run.hpp"

#include "remote_catalog.hpp"
#include "remote_default.hpp"
#include "remote_insert.hpp"
#include "remote_transaction.hpp"

#include "duckdb/execution/executor.hpp"
#include "duckdb/execution/operator/scan/physical_table_scan.hpp"
#include "duckdb/parallel/meta_pipeline.hpp"
#include "duckdb/parallel/pipeline.hpp"

namespace duckherder {

using namespace duckdb;

namespace {

//! Its children are the scan of the statement's result, and the uploads that come before, one after the other: they
//! share a connection on the server.
class PhysicalUploadAndRun : public PhysicalOperator {
public:
	PhysicalUploadAndRun(PhysicalPlan &plan, vector<LogicalType> types, RemoteCatalog &catalog, vector<string> tables,
	                     bool is_one_transaction, idx_t estimated_cardinality)
	    : PhysicalOperator(plan, PhysicalOperatorType::EXTENSION, std::move(types), estimated_cardinality),
	      catalog(catalog), tables(std::move(tables)), is_one_transaction(is_one_transaction) {
	}

	string GetName() const override {
		return "DUCKHERDER_UPLOAD_AND_RUN";
	}

	vector<const_reference<PhysicalOperator>> GetSources() const override {
		return children[0].get().GetSources();
	}

	//! Called whenever the plan is about to run, before any of its scans and uploads starts.
	void BuildPipelines(Pipeline &current, MetaPipeline &meta_pipeline) override {
		auto &transaction = RemoteTransaction::Get(meta_pipeline.GetExecutor().context, catalog);
		for (auto &table : tables) {
			transaction.DropAfterwards(table);
		}
		if (is_one_transaction) {
			transaction.KeepTogether();
		}
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

private:
	RemoteCatalog &catalog;
	vector<string> tables;
	bool is_one_transaction;
};

//! Columns of a result that has no names.
vector<string> ColumnNames(idx_t count) {
	vector<string> names;
	for (idx_t i = 0; i < count; i++) {
		names.push_back("c" + to_string(i));
	}
	return names;
}

PhysicalOperator &PlanStatement(PhysicalPlanGenerator &planner, RemoteStatement statement,
                                const vector<LogicalType> &types, idx_t estimated_cardinality) {
	unique_ptr<FunctionData> bind_data;
	auto function = MakeStatementScan(std::move(statement), types, bind_data);
	vector<ColumnIndex> column_ids;
	for (idx_t i = 0; i < types.size(); i++) {
		column_ids.emplace_back(i);
	}
	return planner.Make<PhysicalTableScan>(types, BoundTableFunction(function), std::move(bind_data), types,
	                                       std::move(column_ids), vector<idx_t>(), ColumnNames(types.size()), nullptr,
	                                       estimated_cardinality, ExtraOperatorInfo(), vector<Value>(),
	                                       virtual_column_map_t());
}

PhysicalOperator &PlanUpload(PhysicalPlanGenerator &planner, RemoteCatalog &catalog, const RowsToUpload &upload) {
	auto &rows = upload.rows.get();
	UploadTarget target;
	target.table_name = upload.table_name;
	target.mode = DhCreateTemporary;
	target.column_names = ColumnNames(rows.types.size());
	auto &insert = planner.Make<RemoteInsert>(catalog, std::move(target), rows.estimated_cardinality);
	insert.children.push_back(rows);
	return insert;
}

} // namespace

string UploadedName(const string &table_name) {
	return "temp.main." + SQLIdentifier::ToString(Identifier(table_name));
}

PhysicalOperator &PlanUploadAndRun(PhysicalPlanGenerator &planner, RemoteStatement statement,
                                   const vector<LogicalType> &types, const vector<RowsToUpload> &uploads,
                                   idx_t estimated_cardinality) {
	auto &catalog = statement.catalog;
	vector<string> tables;
	auto reads_duckling = false;
	for (auto &upload : uploads) {
		tables.push_back(upload.table_name);
		reads_duckling = reads_duckling || ReadsDuckling(upload.rows.get(), catalog) ||
		                 HasRemoteDefault(upload.rows.get());
	}
	auto &result = planner.Make<PhysicalUploadAndRun>(types, catalog, std::move(tables), reads_duckling,
	                                                  estimated_cardinality);
	result.children.push_back(PlanStatement(planner, std::move(statement), types, estimated_cardinality));
	for (auto &upload : uploads) {
		result.children.push_back(PlanUpload(planner, catalog, upload));
	}
	return result;
}

} // namespace duckherder
