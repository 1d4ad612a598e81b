#include "arrow_scan.hpp"

#include "error_place.hpp"
#include "stored_types.hpp"

#include "duckdb/function/table/arrow.hpp"
#include "duckdb/main/query_result.hpp"
#include "duckdb/parallel/async_result.hpp"
#include "duckdb/parallel/interrupt.hpp"

namespace duckherder {

using namespace duckdb;

namespace {

struct ArrowScanState : public GlobalTableFunctionState {
	ArrowScanState(ScanHandle scan, vector<LogicalType> types, string sql)
	    : scan(std::move(scan)), sql(std::move(sql)), types(std::move(types)) {
	}

	ScanHandle scan;
	//! What was sent.
	string sql;
	//! What the scan yields.
	vector<LogicalType> types;
	//! What arrives.
	ArrowTableSchema arriving;
	idx_t threads = 1;

	idx_t MaxThreads() const override {
		return threads;
	}
};

struct ArrowThreadState : public LocalTableFunctionState {
	explicit ArrowThreadState(ClientContext &context)
	    : arrow(make_uniq<ArrowArrayWrapper>(), context) {
	}

	//! What this thread has taken of the result.
	GroupHandle group;
	//! The batch being read, and where in it.
	ArrowScanLocalState arrow;
	bool has_batch = false;
	//! Columns as they arrive, when some are to be cast.
	DataChunk arriving;

	bool Unread() const {
		return has_batch && arrow.chunk_offset < NumericCast<idx_t>(arrow.chunk->arrow_array.length);
	}
};

void ReadSchema(ClientContext &context, const DhScan *scan, ArrowTableSchema &schema) {
	ArrowSchemaWrapper arrow_schema;
	Check([&](DhBuffer *error) { return Api().scan_schema(scan, &arrow_schema.arrow_schema, error); });
	ArrowTableFunction::PopulateArrowTableSchema(context, schema, arrow_schema.arrow_schema);
}

unique_ptr<ArrowThreadState> MakeThreadState(ClientContext &context, ArrowScanState &global) {
	auto result = make_uniq<ArrowThreadState>(context);
	if (global.arriving.GetTypes() != global.types) {
		result->arriving.Initialize(context, global.arriving.GetTypes());
	}
	return result;
}

unique_ptr<LocalTableFunctionState> InitThread(ExecutionContext &context, TableFunctionInitInput &,
                                               GlobalTableFunctionState *global_state) {
	return MakeThreadState(context.client, global_state->Cast<ArrowScanState>());
}

void Wake(void *context) {
	unique_ptr<InterruptState> parked(static_cast<InterruptState *>(context));
	try {
		parked->Callback();
	} catch (...) { // NOLINT: nothing may be thrown into Rust; a query that cannot be woken has ended
	}
}

void Discard(void *context) {
	delete static_cast<InterruptState *>(context);
}

enum class Next { FOUND, END, PARKED };

//! Gets the next group of batches. Where DuckDB allows, it parks the task instead of blocking the thread: the one that
//! executes the query must stay free to notice an interrupt.
Next NextGroup(ClientContext &context, TableFunctionInput &input, ArrowScanState &global, ArrowThreadState &local) {
	auto parked = false;
	auto found = CheckSent(context, global.sql, [&](DhBuffer *error) {
		if (!input.interrupt_state || input.results_execution_mode != AsyncResultsExecutionMode::TASK_EXECUTOR) {
			return Api().scan_next(global.scan.Get(), InterruptOf(context), local.group.Slot(), error);
		}
		DhWaker waker {Wake, Discard, make_uniq<InterruptState>(*input.interrupt_state).release()};
		auto status = Api().scan_next_or_wake(global.scan.Get(), waker, local.group.Slot(), error);
		parked = status == DhPending;
		return parked ? DhEnd : status;
	});
	if (parked) {
		input.async_result = SourceResultType::BLOCKED;
		return Next::PARKED;
	}
	return found ? Next::FOUND : Next::END;
}

//! Gets the next batch, which may be without rows: of the thread's group, then of another.
Next NextBatch(ClientContext &context, TableFunctionInput &input, ArrowScanState &global, ArrowThreadState &local) {
	auto batch = make_shared_ptr<ArrowArrayWrapper>();
	auto taken = [&]() {
		return local.group && Check([&](DhBuffer *error) {
			       return Api().group_next(local.group.Get(), &batch->arrow_array, error);
		       });
	};
	while (!taken()) {
		auto next = NextGroup(context, input, global, local);
		if (next != Next::FOUND) {
			return next;
		}
	}
	local.arrow.Reset();
	local.arrow.chunk = std::move(batch);
	local.arrow.batch_index = Api().group_index(local.group.Get());
	local.has_batch = true;
	return Next::FOUND;
}

void CastColumns(ClientContext &context, DataChunk &from, DataChunk &to) {
	for (idx_t i = 0; i < to.ColumnCount(); i++) {
		duckherder::FromArriving(context, from.data[i], to.data[i]);
	}
}

void Read(ClientContext &context, TableFunctionInput &input, DataChunk &output) {
	auto &global = input.global_state->Cast<ArrowScanState>();
	auto &local = input.local_state->Cast<ArrowThreadState>();
	auto &arrow = local.arrow;
	while (!local.Unread()) {
		if (NextBatch(context, input, global, local) != Next::FOUND) {
			return;
		}
	}
	auto left = NumericCast<idx_t>(arrow.chunk->arrow_array.length) - arrow.chunk_offset;
	auto rows = MinValue<idx_t>(STANDARD_VECTOR_SIZE, left);
	if (local.arriving.ColumnCount() > 0) {
		local.arriving.Reset();
		local.arriving.SetChildCardinality(rows);
		ArrowTableFunction::ArrowToDuckDB(arrow, global.arriving.GetColumns(), local.arriving);
		output.SetChildCardinality(rows);
		CastColumns(context, local.arriving, output);
	} else {
		output.SetChildCardinality(rows);
		ArrowTableFunction::ArrowToDuckDB(arrow, global.arriving.GetColumns(), output);
	}
	arrow.chunk_offset += rows;
}

double ProgressOf(ClientContext &, const FunctionData *, const GlobalTableFunctionState *state) {
	return state ? ArrowScanProgress(*state) : -1;
}

OperatorPartitionData PartitionOf(ClientContext &, TableFunctionGetPartitionInput &input) {
	if (input.partition_info.RequiresPartitionColumns()) {
		throw NotImplementedException("partition columns of a remote result");
	}
	return OperatorPartitionData(input.local_state->Cast<ArrowThreadState>().arrow.batch_index);
}

} // namespace

void ArrowResultColumns(ClientContext &context, const DhScan *scan, vector<LogicalType> &types,
                        vector<Identifier> &names) {
	ArrowTableSchema schema;
	ArrowSchemaWrapper arrow_schema;
	Check([&](DhBuffer *error) { return Api().scan_schema(scan, &arrow_schema.arrow_schema, error); });
	ArrowTableFunction::PopulateArrowTableSchema(context, schema, arrow_schema.arrow_schema);
	auto &arriving = schema.GetTypes();
	for (idx_t i = 0; i < arriving.size(); i++) {
		LogicalType type;
		auto text = String(Api().scan_type_text(scan, i));
		// A type of the server that is unknown here stays what Arrow says it is.
		auto is_other = !text.empty() && text != arriving[i].ToString();
		types.push_back(is_other && TryParseType(context, text, type) ? type : arriving[i]);
		// As the server calls it: the table schema's names have been made unique.
		names.emplace_back(arrow_schema.arrow_schema.children[i]->name);
	}
}

void DeduplicateNames(vector<Identifier> &names) {
	vector<string> texts;
	for (auto &name : names) {
		texts.push_back(name.GetIdentifierName());
	}
	QueryResult::DeduplicateColumns(texts);
	for (idx_t i = 0; i < names.size(); i++) {
		names[i] = Identifier(texts[i]);
	}
}

unique_ptr<GlobalTableFunctionState> MakeArrowScan(ClientContext &context, ScanHandle scan, vector<LogicalType> types,
                                                   string sql) {
	auto state = make_uniq<ArrowScanState>(std::move(scan), std::move(types), std::move(sql));
	ReadSchema(context, state->scan.Get(), state->arriving);
	if (state->arriving.GetTypes().size() != state->types.size()) {
		throw IOException("the duckling's result has %llu columns where %llu were announced: its tables have changed in "
		                  "between; run the statement again",
		                  state->arriving.GetTypes().size(), state->types.size());
	}
	if (!Api().scan_is_one_group(state->scan.Get())) {
		state->threads = context.db->NumberOfThreads();
	}
	return std::move(state);
}

idx_t ArrowScanRowsRead(const GlobalTableFunctionState &state) {
	return Api().scan_rows_read(state.Cast<ArrowScanState>().scan.Get());
}

double ArrowScanProgress(const GlobalTableFunctionState &state) {
	auto fraction = Api().scan_progress(state.Cast<ArrowScanState>().scan.Get());
	return fraction < 0 ? -1 : 100 * fraction;
}

void ReadArrowScan(ClientContext &context, GlobalTableFunctionState &state,
                   const std::function<void(DataChunk &)> &take) {
	auto &global = state.Cast<ArrowScanState>();
	auto local = MakeThreadState(context, global);
	TableFunctionInput input(nullptr, *local, global);
	DataChunk rows;
	rows.Initialize(context, global.types);
	for (Read(context, input, rows); rows.size() > 0; Read(context, input, rows)) {
		take(rows);
		rows.Reset();
	}
}

void SetUpArrowScan(TableFunction &function) {
	function.function = Read;
	function.init_local = InitThread;
	function.get_partition_data = PartitionOf;
	function.table_scan_progress = ProgressOf;
}

} // namespace duckherder
