#include "herd_insert.hpp"

#include "chunk_pieces.hpp"
#include "herd_placement.hpp"
#include "herd_scan.hpp"
#include "herd_write.hpp"
#include "stored_types.hpp"

#include "duckdb/catalog/catalog_entry/table_catalog_entry.hpp"
#include "duckdb/common/arrow/arrow_appender.hpp"
#include "duckdb/common/arrow/arrow_converter.hpp"
#include "duckdb/common/arrow/arrow_type_extension.hpp"
#include "duckdb/common/arrow/arrow_wrapper.hpp"
#include "duckdb/common/types/column/column_data_collection.hpp"
#include "duckdb/execution/physical_operator.hpp"
#include "duckdb/execution/physical_plan_generator.hpp"
#include "duckdb/planner/operator/logical_extension_operator.hpp"
#include "duckdb/planner/operator/logical_insert.hpp"

namespace herd {

using namespace duckdb;

namespace {

//! A batch is sent when it has so many rows, or when a thread's batches have so many bytes together.
constexpr idx_t BATCH_ROWS = 64 * 1024;
constexpr idx_t THREAD_BYTES = 16 * 1024 * 1024;
constexpr idx_t BATCH_BYTES_MAX = 2 * 1024 * 1024;
constexpr idx_t BATCH_BYTES_MIN = 64 * 1024;

//! A batch in the making.
struct Batch {
	unique_ptr<ArrowAppender> appender;
	//! Rows of a chunk that belong to it.
	SelectionVector selection;
	idx_t count = 0;
};

struct InsertGlobalState : public GlobalSinkState {
	InsertGlobalState(ClientContext &context, const vector<LogicalType> &types) : returned(context, types) {
	}

	//! Started with the first rows: what produces them may still use the workers' sessions before.
	mutex lock;
	Write write;
	//! The first partition of the next chunk of rows that belong nowhere in particular.
	atomic<idx_t> next_partition {0};
	ColumnDataCollection returned;
	idx_t rows = 0;
};

struct InsertLocalState : public LocalSinkState {
	InsertLocalState(ClientContext &context, const vector<LogicalType> &types, idx_t batch_count)
	    : batches(batch_count), returned(context, types) {
		slice.Initialize(context, types);
		returned.InitializeAppend(append_state);
		for (auto &batch : batches) {
			batch.selection.Initialize(STANDARD_VECTOR_SIZE);
		}
	}

	//! One a worker; of a replicated table one for all.
	vector<Batch> batches;
	DataChunk slice;
	ColumnDataCollection returned;
	ColumnDataAppendState append_state;
};

struct InsertSourceState : public GlobalSourceState {
	bool done = false;
	ColumnDataScanState scan;
};

class PhysicalHerdInsert : public PhysicalOperator {
public:
	PhysicalHerdInsert(PhysicalPlan &plan, InsertTarget target, vector<LogicalType> types, bool returning,
	                   idx_t estimated_cardinality)
	    : PhysicalOperator(plan, PhysicalOperatorType::EXTENSION, std::move(types), estimated_cardinality),
	      target(std::move(target)), returning(returning) {
	}

	string GetName() const override {
		return "HERD_INSERT";
	}

	InsertionOrderPreservingMap<string> ParamsToString() const override {
		InsertionOrderPreservingMap<string> result;
		result["Table"] = target.schema_name + "." + target.table_name;
		result["Distribution"] = target.placement.Describe();
		return result;
	}

	bool IsSink() const override {
		return true;
	}
	bool ParallelSink() const override {
		return true;
	}
	bool SinkOrderDependent() const override {
		return false;
	}

	unique_ptr<GlobalSinkState> GetGlobalSinkState(ClientContext &context) const override {
		return make_uniq<InsertGlobalState>(context, children[0].get().GetTypes());
	}
	unique_ptr<LocalSinkState> GetLocalSinkState(ExecutionContext &context) const override {
		auto batch_count = target.placement.IsReplicated() ? 1 : target.placement.workers.size();
		return make_uniq<InsertLocalState>(context.client, children[0].get().GetTypes(), batch_count);
	}

	SinkResultType Sink(ExecutionContext &context, DataChunk &chunk, OperatorSinkInput &input) const override {
		auto &global = input.global_state.Cast<InsertGlobalState>();
		auto &local = input.local_state.Cast<InsertLocalState>();
		if (returning) {
			local.returned.Append(local.append_state, chunk);
		}
		Start(context.client, chunk.GetTypes(), global);
		if (target.placement.IsReplicated()) {
			Append(context.client, global, local, 0, chunk);
			return SinkResultType::NEED_MORE_INPUT;
		}
		Divide(global, local, chunk);
		for (idx_t worker = 0; worker < local.batches.size(); worker++) {
			auto &batch = local.batches[worker];
			if (batch.count == 0) {
				continue;
			}
			if (batch.count == chunk.size()) {
				Append(context.client, global, local, worker, chunk);
				continue;
			}
			local.slice.Reset();
			local.slice.Slice(chunk, batch.selection, batch.count);
			Append(context.client, global, local, worker, local.slice);
		}
		return SinkResultType::NEED_MORE_INPUT;
	}

	SinkCombineResultType Combine(ExecutionContext &context, OperatorSinkCombineInput &input) const override {
		auto &global = input.global_state.Cast<InsertGlobalState>();
		auto &local = input.local_state.Cast<InsertLocalState>();
		for (idx_t worker = 0; worker < local.batches.size(); worker++) {
			Send(context.client, global, local, worker);
		}
		if (returning) {
			lock_guard<mutex> guard(global.lock);
			global.returned.Combine(local.returned);
		}
		return SinkCombineResultType::FINISHED;
	}

	SinkFinalizeType Finalize(Pipeline &, Event &, ClientContext &context,
	                          OperatorSinkFinalizeInput &input) const override {
		auto &global = input.global_state.Cast<InsertGlobalState>();
		if (target.temporary) {
			// A table without rows is a table.
			Start(context, children[0].get().GetTypes(), global);
		}
		if (global.write) {
			global.rows = global.write.Finish(context);
		}
		return SinkFinalizeType::READY;
	}

	bool IsSource() const override {
		return true;
	}

	unique_ptr<GlobalSourceState> GetGlobalSourceState(ClientContext &) const override {
		auto result = make_uniq<InsertSourceState>();
		if (returning) {
			sink_state->Cast<InsertGlobalState>().returned.InitializeScan(result->scan);
		}
		return std::move(result);
	}

protected:
	SourceResultType GetDataInternal(ExecutionContext &, DataChunk &chunk, OperatorSourceInput &input) const override {
		auto &source = input.global_state.Cast<InsertSourceState>();
		auto &global = sink_state->Cast<InsertGlobalState>();
		if (returning) {
			global.returned.Scan(source.scan, chunk);
			return chunk.size() == 0 ? SourceResultType::FINISHED : SourceResultType::HAVE_MORE_OUTPUT;
		}
		if (!source.done) {
			source.done = true;
			chunk.SetChildCardinality(1);
			chunk.data[0].SetValue(0, Value::BIGINT(NumericCast<int64_t>(global.rows)));
		}
		return SourceResultType::FINISHED;
	}

private:
	void Start(ClientContext &context, const vector<LogicalType> &types, InsertGlobalState &global) const {
		lock_guard<mutex> guard(global.lock);
		if (global.write) {
			return;
		}
		auto properties = ArrowProperties(context);
		ArrowSchemaWrapper schema;
		ArrowConverter::ToArrowSchema(&schema.arrow_schema, duckherder::StoredTypes(types), target.column_names,
		                              properties);
		auto workers = target.placement.WorkersJson();
		HerdWriteTarget write {Text(target.schema_name), Text(target.table_name), Text(workers),
		                       target.placement.IsReplicated(), target.temporary};
		global.write.Start(context, write, schema.arrow_schema, types);
	}

	//! Which rows of the chunk go to which worker.
	void Divide(InsertGlobalState &global, InsertLocalState &local, DataChunk &chunk) const {
		for (auto &batch : local.batches) {
			batch.count = 0;
		}
		auto &partitions = target.placement.partitions;
		auto add = [&](idx_t partition, idx_t row) {
			auto &batch = local.batches[partitions[partition]];
			batch.selection.set_index(batch.count++, row);
		};
		auto rows = chunk.size();
		if (!target.key_columns.empty()) {
			auto keys = target.key_columns;
			Vector hash_vector(LogicalType::HASH);
			chunk.Hash(keys, hash_vector);
			hash_vector.Flatten();
			auto hashes = FlatVector::GetData<hash_t>(hash_vector);
			for (idx_t row = 0; row < rows; row++) {
				add(PartitionHash(hashes[row]) % partitions.size(), row);
			}
			return;
		}
		auto first = global.next_partition.fetch_add(MinValue<idx_t>(rows, partitions.size()));
		for (idx_t row = 0; row < rows; row++) {
			// Runs of neighbours, as many as there are partitions.
			auto run = rows < partitions.size() ? row : row * partitions.size() / rows;
			add((first + run) % partitions.size(), row);
		}
	}

	void Append(ClientContext &context, InsertGlobalState &global, InsertLocalState &local, idx_t worker,
	            DataChunk &chunk) const {
		duckherder::StoredChunk stored(chunk);
		auto &appender = local.batches[worker].appender;
		auto bytes_max = MaxValue(BATCH_BYTES_MIN, MinValue(BATCH_BYTES_MAX, THREAD_BYTES / local.batches.size()));
		duckherder::TakeInPieces(stored.Get(), bytes_max, [&](DataChunk &rows, idx_t bytes) {
			if (appender && appender->ByteSize() + bytes > 2 * bytes_max) {
				Send(context, global, local, worker);
			}
			if (!appender) {
				auto properties = ArrowProperties(context);
				auto extension_types = ArrowTypeExtensionData::GetExtensionTypes(context, rows.GetTypes());
				appender =
				    make_uniq<ArrowAppender>(rows.GetTypes(), STANDARD_VECTOR_SIZE, properties, extension_types);
			}
			appender->Append(rows, 0, rows.size(), rows.size());
			if (appender->ByteSize() >= bytes_max || appender->RowCount() >= BATCH_ROWS) {
				Send(context, global, local, worker);
			}
		});
	}

	void Send(ClientContext &context, InsertGlobalState &global, InsertLocalState &local, idx_t worker) const {
		auto &appender = local.batches[worker].appender;
		if (!appender) {
			return;
		}
		ArrowArrayWrapper array;
		array.arrow_array = appender->Finalize();
		appender.reset();
		global.write.Push(context, worker, array.arrow_array);
	}

	InsertTarget target;
	bool returning;
};

class LogicalHerdInsert : public LogicalExtensionOperator {
public:
	LogicalHerdInsert(InsertTarget target, vector<ColumnBinding> bindings, vector<LogicalType> result_types,
	                  bool returning)
	    : target(std::move(target)), bindings(std::move(bindings)), result_types(std::move(result_types)),
	      returning(returning) {
	}

	PhysicalOperator &CreatePlan(ClientContext &, PhysicalPlanGenerator &planner) override {
		auto &source = planner.CreatePlan(*children[0]);
		auto &insert = planner.Make<PhysicalHerdInsert>(target, result_types, returning, estimated_cardinality);
		insert.children.push_back(source);
		return insert;
	}

	vector<ColumnBinding> GetColumnBindings() override {
		return bindings;
	}
	string GetName() const override {
		return "HERD_INSERT";
	}
	string GetExtensionName() const override {
		return "duckherder_insert";
	}
	idx_t EstimateCardinality(ClientContext &context) override {
		return returning ? LogicalOperator::EstimateCardinality(context) : 1;
	}

protected:
	void ResolveTypes() override {
		types = result_types;
	}

private:
	InsertTarget target;
	vector<ColumnBinding> bindings;
	vector<LogicalType> result_types;
	bool returning;
};

} // namespace

PhysicalOperator &MakeHerdInsert(PhysicalPlanGenerator &planner, InsertTarget target, PhysicalOperator &source,
                                 idx_t estimated_cardinality) {
	auto &insert = planner.Make<PhysicalHerdInsert>(std::move(target), vector<LogicalType> {LogicalType::BIGINT}, false,
	                                                estimated_cardinality);
	insert.children.push_back(source);
	return insert;
}

bool PlanHerdInsert(unique_ptr<LogicalOperator> &op) {
	if (op->type != LogicalOperatorType::LOGICAL_INSERT) {
		return false;
	}
	auto &insert = op->Cast<LogicalInsert>();
	auto placement = PlacementOf(insert.table);
	if (!placement) {
		return false;
	}
	if (insert.children.size() != 1 || !insert.column_index_map.empty() ||
	    insert.on_conflict_info.action_type != OnConflictAction::THROW) {
		throw NotImplementedException("This kind of INSERT is not supported for the herd's table \"%s\"",
		                              insert.table.name);
	}
	InsertTarget target;
	target.schema_name = insert.table.schema.name.GetIdentifierName();
	target.table_name = insert.table.name.GetIdentifierName();
	target.placement = Placement::Parse(*placement);
	target.placement.CheckWrites(target.table_name);
	for (auto &column : insert.table.GetColumns().Physical()) {
		target.column_names.push_back(column.Name().GetIdentifierName());
	}
	for (auto &key : target.placement.keys) {
		target.key_columns.push_back(insert.table.GetColumn(Identifier(key)).StorageOid());
	}
	op->ResolveOperatorTypes();
	auto result =
	    make_uniq<LogicalHerdInsert>(std::move(target), op->GetColumnBindings(), op->types, insert.return_chunk);
	result->children = std::move(op->children);
	result->SetEstimatedCardinality(op->estimated_cardinality);
	result->ResolveOperatorTypes();
	op = std::move(result);
	return true;
}

} // namespace herd
