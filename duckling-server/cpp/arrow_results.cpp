#include "arrow_results.hpp"

#include "arrow_append.hpp"
#include "chunk_pieces.hpp"

#include "duckdb/common/arrow/arrow_appender.hpp"
#include "duckdb/common/arrow/arrow_format.hpp"
#include "duckdb/main/capi_v2/capi_v2_result_internal.hpp"

namespace duckling {

using namespace duckdb;

namespace {

//! Rows of an array if nobody says how many, as in DuckDB's C API.
constexpr idx_t DEFAULT_BATCH_ROWS = 131072;

//! What `ArrowFormat::UnpackUnit` takes apart: the same members as those of DuckDB's own class, which is not in a header.
class ArrowUnit : public ResultUnit {
public:
	ArrowUnit(idx_t row_count, idx_t byte_size, unique_ptr<ArrowArrayWrapper> array)
	    : ResultUnit(row_count, byte_size), array(std::move(array)) {
	}

	unique_ptr<ArrowArrayWrapper> array;
};

using ArrowExtensions = unordered_map<idx_t, const shared_ptr<ArrowTypeExtensionData>>;

//! An array in the making.
class Batch {
public:
	Batch(const vector<LogicalType> &types, const ClientProperties &options, const ArrowExtensions &extensions,
	      idx_t capacity, const ArrowSizes &sizes)
	    : types(types), properties(options) {
		for (idx_t i = 0; i < types.size(); i++) {
			auto extension = extensions.find(i);
			columns.push_back(ArrowAppender::InitializeChild(
			    types[i], capacity, properties, extension == extensions.end() ? nullptr : extension->second));
		}
		AppendFaster(columns);
		sizes.Reserve(columns);
	}

	void Append(DataChunk &chunk, idx_t from, idx_t to) {
		for (idx_t i = 0; i < columns.size(); i++) {
			columns[i]->AppendChild(chunk.data[i], from, to, chunk.size());
		}
		row_count += to - from;
	}

	idx_t RowCount() const {
		return row_count;
	}

	idx_t ByteSize() const {
		idx_t bytes = 0;
		for (auto &column : columns) {
			bytes += column->ByteSize();
		}
		return bytes;
	}

	//! What it comes to with more rows, about: such as there are, but for their strings and lists, which are known to have
	//! `bytes`.
	idx_t SizeWith(idx_t rows, idx_t bytes) const {
		auto size = ByteSize();
		return size + MaxValue(bytes, size / row_count * rows);
	}

	ArrowSizes Sizes() {
		return ArrowSizes(columns);
	}

	//! Once, at the end.
	ArrowArray Finish() {
		auto holder = make_uniq<ArrowAppendData>(properties);
		ArrowAppender::AddChildren(*holder, types.size());
		ArrowArray result {};
		result.children = holder->child_pointers.data();
		result.n_children = NumericCast<int64_t>(types.size());
		result.length = NumericCast<int64_t>(row_count);
		result.n_buffers = 1;
		result.buffers = holder->buffers.data();
		holder->child_data = std::move(columns);
		for (idx_t i = 0; i < types.size(); i++) {
			holder->child_arrays[i] = *ArrowAppender::FinalizeChild(types[i], std::move(holder->child_data[i]));
		}
		result.private_data = holder.release();
		result.release = ArrowAppender::ReleaseArray;
		return result;
	}

private:
	const vector<LogicalType> &types;
	ClientProperties properties;
	ArrowColumns columns;
	idx_t row_count = 0;
};

//! What a batch has come to.
struct BatchSizes {
	idx_t row_count = 0;
	ArrowSizes sizes;
};

//! Of one thread.
class LocalState : public ResultFormatLocalState {
public:
	unique_ptr<Batch> batch;
	deque<unique_ptr<ArrowUnit>> finished;

	//! How large the next batch is likely to be: as the latest, or as the one before it, where the latest is the rest of a row
	//! group. What is taken for more rows than come is kept until the batch has been read.
	const BatchSizes &Expected() const {
		return before.row_count > latest.row_count ? before : latest;
	}

	void Finish() {
		auto row_count = batch->RowCount();
		before = std::move(latest);
		latest = {row_count, batch->Sizes()};
		auto byte_size = batch->ByteSize();
		auto array = make_uniq<ArrowArrayWrapper>();
		array->arrow_array = batch->Finish();
		batch.reset();
		finished.push_back(make_uniq<ArrowUnit>(row_count, byte_size, std::move(array)));
	}

private:
	BatchSizes latest;
	BatchSizes before;
};

//! DuckDB's format, by its name too, with batches of ours.
class ResultBatches : public ArrowFormat {
public:
	ResultBatches(idx_t batch_rows, idx_t batch_bytes)
	    : ArrowFormat(batch_rows), batch_rows(batch_rows), batch_bytes(batch_bytes) {
	}

	unique_ptr<ResultFormatLocalState> InitLocal(ResultFormatGlobalState &) override {
		return make_uniq<LocalState>();
	}

	void AppendToUnit(ResultFormatGlobalState &global_state, ResultFormatLocalState &local_state,
	                  DataChunk &chunk) override {
		auto &global = global_state.Cast<ArrowFormatGlobalState>();
		auto &local = local_state.Cast<LocalState>();
		duckherder::TakeInPieces(chunk, batch_bytes, [&](DataChunk &rows, idx_t bytes) {
			if (local.batch && local.batch->SizeWith(rows.size(), bytes) > batch_bytes) {
				local.Finish();
			}
			Append(global, local, rows);
		});
	}

	bool IsUnitFinished(ResultFormatLocalState &local_state) override {
		return !local_state.Cast<LocalState>().finished.empty();
	}

	unique_ptr<ResultUnit> FinishUnit(ResultFormatGlobalState &, ResultFormatLocalState &local_state) override {
		auto &local = local_state.Cast<LocalState>();
		if (local.finished.empty() && local.batch) {
			local.Finish();
		}
		if (local.finished.empty()) {
			return nullptr;
		}
		auto unit = std::move(local.finished.front());
		local.finished.pop_front();
		return std::move(unit);
	}

private:
	void Append(ArrowFormatGlobalState &global, LocalState &local, DataChunk &chunk) const {
		idx_t done = 0;
		while (done < chunk.size()) {
			auto rows = chunk.size() - done;
			if (!local.batch) {
				auto &expected = local.Expected();
				auto capacity = MinValue(MaxValue(rows, expected.row_count), batch_rows);
				local.batch = make_uniq<Batch>(global.Types(), global.Properties(), global.ExtensionTypes(), capacity,
				                               expected.sizes);
			}
			rows = MinValue(rows, batch_rows - local.batch->RowCount());
			local.batch->Append(chunk, done, done + rows);
			done += rows;
			if (local.batch->RowCount() >= batch_rows) {
				local.Finish();
			}
		}
	}

	idx_t batch_rows;
	idx_t batch_bytes;
};

} // namespace

ArrowArray ToArrow(ClientContext &context, const vector<LogicalType> &types, DataChunk &rows) {
	auto extensions = ArrowTypeExtensionData::GetExtensionTypes(context, types);
	Batch batch(types, context.GetClientProperties(), extensions, rows.size(), ArrowSizes());
	batch.Append(rows, 0, rows.size());
	return batch.Finish();
}

} // namespace duckling

DUCKDB_V2_ERROR duckling_execute_arrow(duckdb_v2_connection_handle connection, duckdb_v2_sql_statement_handle statement,
                                       const duckdb_v2_identifier_t *parameter_names,
                                       const duckdb_v2_value_handle *parameter_values, uint64_t parameter_count,
                                       uint64_t batch_rows, uint64_t batch_bytes, duckdb_v2_arrow_result_handle *result,
                                       duckdb_v2_error_info_handle *error) {
	using namespace duckdb::capiv2;
	return WithErrorHandler(error, [&]() {
		auto format = duckdb::make_shared_ptr<duckling::ResultBatches>(
		    batch_rows == 0 ? duckling::DEFAULT_BATCH_ROWS : batch_rows, batch_bytes);
		auto wrapper = ExecuteStatementV2(Convert(connection)->context, *Convert(statement), parameter_names,
		                                  parameter_values, parameter_count, __func__, std::move(format));
		*result = ConvertArrowResult(wrapper.release());
	});
}
