#include "herd_source.hpp"

#include "herd_estimates.hpp"
#include "stored_types.hpp"

#include "duckdb/function/table/arrow.hpp"
#include "duckdb/main/profiler/profiling_node.hpp"
#include "duckdb/storage/statistics/node_statistics.hpp"

#include "yyjson.hpp"

namespace herd {

using namespace duckdb;
using namespace duckdb_yyjson; // NOLINT

namespace {

//! How long a thread waits before it looks for an interrupt.
constexpr uint32_t WAIT_MS = 20;

struct SourceScanState : public GlobalTableFunctionState {
	SourceScanState(Source source, vector<LogicalType> types) : source(std::move(source)), types(std::move(types)) {
	}

	//! None if the query has been given up: no rows.
	Source source;
	//! What the scan yields.
	vector<LogicalType> types;
	//! What arrives.
	ArrowTableSchema arriving;
	idx_t threads = 1;

	idx_t MaxThreads() const override {
		return threads;
	}
};

struct SourceThreadState : public LocalTableFunctionState {
	explicit SourceThreadState(ClientContext &context) : arrow(make_uniq<ArrowArrayWrapper>(), context) {
	}

	//! The batch being read, and where in it.
	ArrowScanLocalState arrow;
	bool has_batch = false;
	//! Columns as they arrive, when some are to be cast.
	DataChunk arriving;

	bool Unread() const {
		return has_batch && arrow.chunk_offset < NumericCast<idx_t>(arrow.chunk->arrow_array.length);
	}
};

unique_ptr<LocalTableFunctionState> MakeThreadState(ClientContext &context, SourceScanState &global) {
	auto result = make_uniq<SourceThreadState>(context);
	if (global.source.Get() && global.arriving.GetTypes() != global.types) {
		result->arriving.Initialize(context, global.arriving.GetTypes());
	}
	return std::move(result);
}

unique_ptr<LocalTableFunctionState> InitThread(ExecutionContext &context, TableFunctionInitInput &,
                                               GlobalTableFunctionState *global_state) {
	return MakeThreadState(context.client, global_state->Cast<SourceScanState>());
}

//! Gets the next batch; whether there is one.
bool NextBatch(ClientContext &context, SourceScanState &global, SourceThreadState &local) {
	if (!global.source.Get()) {
		return false;
	}
	auto batch = make_shared_ptr<ArrowArrayWrapper>();
	while (true) {
		auto status = Check([&](HerdBuffer *error) {
			return Api().source_next(global.source.Get(), WAIT_MS, &batch->arrow_array, error);
		});
		if (status == HerdEnd) {
			return false;
		}
		if (status == HerdOk) {
			break;
		}
		context.InterruptCheck();
	}
	local.arrow.Reset();
	local.arrow.chunk = std::move(batch);
	local.has_batch = true;
	return true;
}

void CastColumns(ClientContext &context, DataChunk &from, DataChunk &to) {
	for (idx_t i = 0; i < to.ColumnCount(); i++) {
		if (to.data[i].GetType().IsAggregateState()) {
			// It is kept as what it arrives as.
			to.data[i].Reinterpret(from.data[i]);
		} else {
			duckherder::FromArriving(context, from.data[i], to.data[i]);
		}
	}
}

void Read(ClientContext &context, TableFunctionInput &input, DataChunk &output) {
	auto &global = input.global_state->Cast<SourceScanState>();
	auto &local = input.local_state->Cast<SourceThreadState>();
	auto &arrow = local.arrow;
	while (!local.Unread()) {
		if (!NextBatch(context, global, local)) {
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

//! Tells EXPLAIN ANALYZE what the herd did.
void Report(TableFunctionGetMetricsInput &input) {
	auto source = input.global_state ? input.global_state->Cast<SourceScanState>().source.Get() : nullptr;
	if (!source) {
		return;
	}
	Buffer report;
	Check([&](HerdBuffer *error) { return Api().source_report(source, report.Slot(), error); });
	auto json = report.ToString();
	unique_ptr<yyjson_doc, void (*)(yyjson_doc *)> document(yyjson_read(json.c_str(), json.size(), 0), yyjson_doc_free);
	idx_t index, count;
	yyjson_val *pair;
	yyjson_arr_foreach(document ? yyjson_doc_get_root(document.get()) : nullptr, index, count, pair) {
		input.operator_metrics.AddExtraInfo(yyjson_get_str(yyjson_arr_get(pair, 0)),
		                                    yyjson_get_str(yyjson_arr_get(pair, 1)));
	}
}

//===--------------------------------------------------------------------===//
// duckherder_exchange
//===--------------------------------------------------------------------===//

//! The exchange of an upload's rows.
constexpr uint32_t UPLOAD = std::numeric_limits<uint32_t>::max();

struct ExchangeData : public TableFunctionData {
	uint32_t stage = 0;
	vector<LogicalType> types;
	Estimates estimates;

	unique_ptr<FunctionData> Copy() const override {
		auto copy = make_uniq<ExchangeData>();
		copy->stage = stage;
		copy->types = types;
		copy->estimates = estimates;
		return std::move(copy);
	}
	bool Equals(const FunctionData &other) const override {
		return stage == other.Cast<ExchangeData>().stage;
	}
	bool SupportStatementCache() const override {
		return false;
	}
};

//! The columns, from `{"columns": [{"name": …, "type_text": …}, …]}`.
void ReadColumns(ClientContext &context, const string &json, vector<LogicalType> &types, vector<Identifier> &names) {
	auto document = yyjson_read(json.c_str(), json.size(), 0);
	if (!document) {
		throw IOException("the columns of an exchange are not readable");
	}
	unique_ptr<yyjson_doc, void (*)(yyjson_doc *)> guard(document, yyjson_doc_free);
	idx_t index, count;
	yyjson_val *column;
	yyjson_arr_foreach(yyjson_obj_get(yyjson_doc_get_root(document), "columns"), index, count, column) {
		names.emplace_back(yyjson_get_str(yyjson_obj_get(column, "name")));
		types.push_back(ParseType(context, yyjson_get_str(yyjson_obj_get(column, "type_text"))));
	}
}

unique_ptr<FunctionData> ExchangeBind(ClientContext &context, TableFunctionBindInput &input,
                                      vector<LogicalType> &return_types, vector<Identifier> &names) {
	auto data = make_uniq<ExchangeData>();
	data->stage = input.inputs.empty() ? UPLOAD : UIntegerValue::Get(input.inputs[0]);
	Buffer columns;
	Check([&](HerdBuffer *error) {
		return Api().exchange_columns(SessionState::Of(context), data->stage, columns.Slot(), error);
	});
	ReadColumns(context, columns.ToString(), return_types, names);
	data->estimates = Estimates::FromJson(columns.ToString());
	data->types = return_types;
	return std::move(data);
}

unique_ptr<NodeStatistics> ExchangeCardinality(ClientContext &, const FunctionData *bind_data) {
	auto rows = bind_data->Cast<ExchangeData>().estimates.rows;
	return rows > 0 ? make_uniq<NodeStatistics>(rows) : nullptr;
}

unique_ptr<BaseStatistics> ExchangeStatistics(ClientContext &, const FunctionData *bind_data, column_t column) {
	auto &data = bind_data->Cast<ExchangeData>();
	return column < data.types.size() ? data.estimates.Statistics(column, data.types[column]) : nullptr;
}

unique_ptr<GlobalTableFunctionState> ExchangeInit(ClientContext &context, TableFunctionInitInput &input) {
	auto &data = input.bind_data->Cast<ExchangeData>();
	Source source;
	Check([&](HerdBuffer *error) {
		return Api().exchange(SessionState::Of(context), data.stage, source.Slot(), error);
	});
	return MakeSourceScan(context, std::move(source), data.types);
}

//! One thread: rows keep their order.
unique_ptr<GlobalTableFunctionState> UploadInit(ClientContext &context, TableFunctionInitInput &input) {
	auto state = ExchangeInit(context, input);
	state->Cast<SourceScanState>().threads = 1;
	return state;
}

} // namespace

unique_ptr<GlobalTableFunctionState> MakeSourceScan(ClientContext &context, Source source, vector<LogicalType> types) {
	auto state = make_uniq<SourceScanState>(std::move(source), std::move(types));
	if (!state->source.Get()) {
		return std::move(state);
	}
	ArrowSchemaWrapper schema;
	Check([&](HerdBuffer *error) {
		return Api().source_schema(state->source.Get(), &schema.arrow_schema, error);
	});
	ArrowTableFunction::PopulateArrowTableSchema(context, state->arriving, schema.arrow_schema);
	if (state->arriving.GetTypes().size() != state->types.size()) {
		throw IOException("%llu columns arrived from the herd where %llu were expected", state->arriving.GetTypes().size(),
		                  state->types.size());
	}
	state->threads = context.db->NumberOfThreads();
	return std::move(state);
}

SourceReader::SourceReader(ClientContext &context, Source source, vector<LogicalType> types)
    : global(MakeSourceScan(context, std::move(source), std::move(types))),
      local(MakeThreadState(context, global->Cast<SourceScanState>())) {
}

void SourceReader::Read(ClientContext &context, DataChunk &chunk) {
	TableFunctionInput input(nullptr, local.get(), global.get());
	herd::Read(context, input, chunk);
}

void SetUpSourceScan(TableFunction &function) {
	function.function = Read;
	function.init_local = InitThread;
	function.get_metrics = Report;
	function.order_preservation_type = OrderPreservationType::NO_ORDER;
}

namespace {

//! An optimizer that would scan an exchange twice copies its plan first. Rows are there once for each scan that the
//! coordinator has planned.
void RefuseCopy(Serializer &, const optional_ptr<FunctionData>, const BoundTableFunction &) {
	throw NotImplementedException("a second scan of an exchange");
}

unique_ptr<FunctionData> RefuseCopies(Deserializer &, BoundTableFunction &) {
	throw NotImplementedException("a second scan of an exchange");
}

} // namespace

TableFunction ExchangeFunction() {
	TableFunction function(Identifier("duckherder_exchange"), {LogicalType::UINTEGER}, nullptr, ExchangeBind, ExchangeInit);
	SetUpSourceScan(function);
	function.cardinality = ExchangeCardinality;
	function.statistics = ExchangeStatistics;
	function.SetSerializeCallback(RefuseCopy);
	function.SetDeserializeCallback(RefuseCopies);
	function.verify_serialization = false;
	return function;
}

TableFunction UploadFunction() {
	TableFunction function(Identifier("duckherder_upload"), {}, nullptr, ExchangeBind, UploadInit);
	SetUpSourceScan(function);
	function.order_preservation_type = OrderPreservationType::INSERTION_ORDER;
	return function;
}

} // namespace herd
