#include "remote_insert.hpp"

#include "chunk_pieces.hpp"
#include "remote_catalog.hpp"
#include "remote_default.hpp"
#include "remote_query.hpp"
#include "remote_table.hpp"
#include "remote_transaction.hpp"
#include "stored_types.hpp"
#include "table_scan.hpp"
#include "type_text.hpp"

#include "duckdb/common/arrow/arrow_appender.hpp"
#include "duckdb/common/arrow/arrow_converter.hpp"
#include "duckdb/common/arrow/arrow_type_extension.hpp"
#include "duckdb/common/arrow/arrow_wrapper.hpp"
#include "duckdb/common/types/column/column_data_collection.hpp"

namespace duckherder {

using namespace duckdb;

namespace {

//! A batch is sent when it has so many bytes or rows.
constexpr idx_t BATCH_BYTES = 2 * 1024 * 1024;
constexpr idx_t BATCH_ROWS = 64 * 1024;

//! Exact types, and the layouts that every Arrow implementation reads.
ClientProperties ArrowProperties(ClientContext &context) {
	auto properties = context.GetClientProperties();
	properties.time_zone = "UTC";
	properties.arrow_offset_size = ArrowOffsetSize::REGULAR;
	properties.arrow_use_list_view = false;
	properties.produce_arrow_string_view = false;
	properties.arrow_lossless_conversion = true;
	return properties;
}

//! One thread at a time: rows keep their order.
struct InsertState : public GlobalSinkState {
	//! Started with the first rows: what produces them may need the session's connection before.
	UploadHandle upload;
	unique_ptr<ArrowAppender> appender;
	//! Rows that must wait for all others.
	unique_ptr<ColumnDataCollection> collected;
	idx_t rows = 0;
};

struct CountState : public GlobalSourceState {
	bool done = false;
};

void StartUpload(ClientContext &context, RemoteCatalog &catalog, const UploadTarget &target,
                 const vector<LogicalType> &types, InsertState &state) {
	auto properties = ArrowProperties(context);
	ArrowSchemaWrapper schema;
	ArrowConverter::ToArrowSchema(&schema.arrow_schema, StoredTypes(types), target.column_names, properties);
	vector<string> names;
	for (auto &type : types) {
		names.push_back(TypeText(type));
	}
	vector<DhText> texts;
	for (auto &name : names) {
		texts.push_back(Text(name));
	}
	auto schema_path = SchemaPathSql(target.schema_path);
	Check([&](DhBuffer *error) {
		return Api().upload_start(catalog.Session(context), Text(schema_path), Text(target.table_name),
		                          target.mode, Text(target.table_clauses),
		                          RemoteTransaction::SpansStatements(context, catalog), &schema.arrow_schema, texts.data(), InterruptOf(context), state.upload.Slot(),
		                          error);
	});
}

void SendBatch(ClientContext &context, InsertState &state) {
	if (!state.appender) {
		return;
	}
	ArrowArrayWrapper batch;
	batch.arrow_array = state.appender->Finalize();
	state.appender.reset();
	Check([&](DhBuffer *error) {
		return Api().upload_push(state.upload.Get(), &batch.arrow_array, InterruptOf(context), error);
	});
}

void Send(ClientContext &context, RemoteCatalog &catalog, const UploadTarget &target, DataChunk &chunk,
          InsertState &state) {
	if (!state.upload) {
		StartUpload(context, catalog, target, chunk.GetTypes(), state);
	}
	StoredChunk stored(chunk);
	TakeInPieces(stored.Get(), BATCH_BYTES, [&](DataChunk &rows, idx_t bytes) {
		if (state.appender && state.appender->ByteSize() + bytes > 2 * BATCH_BYTES) {
			SendBatch(context, state);
		}
		if (!state.appender) {
			auto properties = ArrowProperties(context);
			auto extension_types = ArrowTypeExtensionData::GetExtensionTypes(context, rows.GetTypes());
			state.appender = make_uniq<ArrowAppender>(rows.GetTypes(), STANDARD_VECTOR_SIZE, properties, extension_types);
		}
		state.appender->Append(rows, 0, rows.size(), rows.size());
		if (state.appender->ByteSize() >= BATCH_BYTES || state.appender->RowCount() >= BATCH_ROWS) {
			SendBatch(context, state);
		}
	});
}

bool Appends(const UploadTarget &target) {
	return target.mode == DhAppend || target.mode == DhAppendByName;
}

//! Whether a plan may start scans after its first rows have come out.
bool StartsScansLate(const PhysicalOperator &op) {
	if (op.type == PhysicalOperatorType::UNION || op.type == PhysicalOperatorType::RECURSIVE_CTE) {
		return true;
	}
	for (auto &child : op.GetChildren()) {
		if (StartsScansLate(child.get())) {
			return true;
		}
	}
	return false;
}

} // namespace

bool ReadsDuckling(const PhysicalOperator &op, const RemoteCatalog &catalog) {
	auto table = TableOfScan(op);
	auto statement = StatementOfScan(op);
	if ((table && &table->GetRemoteCatalog() == &catalog) || (statement && &statement->catalog == &catalog)) {
		return true;
	}
	for (auto &child : op.GetChildren()) {
		if (ReadsDuckling(child.get(), catalog)) {
			return true;
		}
	}
	return false;
}

RemoteInsert::RemoteInsert(PhysicalPlan &plan, RemoteCatalog &catalog, UploadTarget target, idx_t estimated_cardinality)
    : PhysicalOperator(plan, PhysicalOperatorType::EXTENSION, {LogicalType::BIGINT}, estimated_cardinality),
      catalog(catalog), target(std::move(target)) {
}

string RemoteInsert::GetName() const {
	return Appends(target) ? "DUCKHERDER_INSERT" : "DUCKHERDER_CREATE_TABLE_AS";
}

InsertionOrderPreservingMap<string> RemoteInsert::ParamsToString() const {
	InsertionOrderPreservingMap<string> result;
	result["Duckling"] = catalog.GetDisplayName();
	result["Table"] = QualifiedName(target.schema_path, Identifier(target.table_name)).ToString();
	return result;
}

//! An upload occupies the session's connection until its end. A scan that needs the same one would wait for it in vain.
bool RemoteInsert::CollectsFirst(ClientContext &context) const {
	auto &rows = children[0].get();
	return (ReadsDuckling(rows, catalog) || HasRemoteDefault(rows)) &&
	       (RemoteTransaction::SpansStatements(context, catalog) || StartsScansLate(rows));
}

unique_ptr<GlobalSinkState> RemoteInsert::GetGlobalSinkState(ClientContext &context) const {
	auto state = make_uniq<InsertState>();
	if (CollectsFirst(context)) {
		state->collected = make_uniq<ColumnDataCollection>(context, children[0].get().GetTypes());
	}
	return std::move(state);
}

SinkResultType RemoteInsert::Sink(ExecutionContext &context, DataChunk &chunk, OperatorSinkInput &input) const {
	auto &state = input.global_state.Cast<InsertState>();
	if (state.collected) {
		state.collected->Append(chunk);
	} else {
		Send(context.client, catalog, target, chunk, state);
	}
	return SinkResultType::NEED_MORE_INPUT;
}

SinkFinalizeType RemoteInsert::Finalize(Pipeline &, Event &, ClientContext &context,
                                        OperatorSinkFinalizeInput &input) const {
	auto &state = input.global_state.Cast<InsertState>();
	if (state.collected) {
		for (auto &chunk : state.collected->Chunks()) {
			Send(context, catalog, target, chunk, state);
		}
		state.collected.reset();
	}
	if (!state.upload) {
		// A table without rows is a table; and whether there is one to append to is for the duckling to say.
		StartUpload(context, catalog, target, children[0].get().GetTypes(), state);
	}
	SendBatch(context, state);
	uint64_t rows = 0;
	Check([&](DhBuffer *error) {
		return Api().upload_finish(state.upload.Get(), InterruptOf(context), &rows, error);
	});
	state.rows = rows;
	return SinkFinalizeType::READY;
}

unique_ptr<GlobalSourceState> RemoteInsert::GetGlobalSourceState(ClientContext &) const {
	return make_uniq<CountState>();
}

SourceResultType RemoteInsert::GetDataInternal(ExecutionContext &, DataChunk &chunk, OperatorSourceInput &input) const {
	auto &count = input.global_state.Cast<CountState>();
	if (count.done) {
		return SourceResultType::FINISHED;
	}
	count.done = true;
	chunk.SetChildCardinality(1);
	chunk.data[0].SetValue(0, Value::BIGINT(NumericCast<int64_t>(sink_state->Cast<InsertState>().rows)));
	return SourceResultType::FINISHED;
}

} // namespace duckherder
