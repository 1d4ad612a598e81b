#include "herd_write.hpp"

#include "herd_json.hpp"

namespace herd {

using namespace duckdb;

//! How long a call waits before the user's interrupt is looked for.
static constexpr uint32_t SLICE_MS = 20;

//! Repeats `call(error slot)` while it is pending.
template <class CALL>
static void Wait(ClientContext &context, CALL call) {
	while (Check(call) == HerdPending) {
		context.BlockingInterruptCheck();
	}
}

void Write::Start(ClientContext &context, const HerdWriteTarget &target, ArrowSchema &schema,
                  const vector<LogicalType> &types) {
	vector<string> names;
	for (auto &type : types) {
		names.push_back(type.ToString());
	}
	vector<HerdText> texts;
	for (auto &name : names) {
		texts.push_back(Text(name));
	}
	Check([&](HerdBuffer *error) {
		return Api().write_start(SessionState::Of(context), &target, &schema, texts.data(),
		                         texts.size(), &raw, error);
	});
}

void Write::Push(ClientContext &context, idx_t worker, ArrowArray &batch) {
	Wait(context, [&](HerdBuffer *error) { return Api().write_push(raw, worker, SLICE_MS, &batch, error); });
}

idx_t Write::Finish(ClientContext &context) {
	uint64_t rows = 0;
	Wait(context, [&](HerdBuffer *error) { return Api().write_finish(raw, SLICE_MS, &rows, error); });
	return rows;
}

ClientProperties ArrowProperties(ClientContext &context) {
	auto properties = context.GetClientProperties();
	properties.time_zone = "UTC";
	properties.arrow_offset_size = ArrowOffsetSize::REGULAR;
	properties.arrow_use_list_view = false;
	properties.produce_arrow_string_view = false;
	properties.arrow_lossless_conversion = true;
	return properties;
}

vector<idx_t> ExecuteOn(ClientContext &context, const vector<string> &workers, const string &sql) {
	auto list = JsonList(workers.size(), [&](idx_t i) { return JsonText(workers[i]); });
	vector<uint64_t> rows(workers.size());
	HerdExecution *execution = nullptr;
	Check([&](HerdBuffer *error) {
		return Api().execute_start(SessionState::Of(context), Text(list), Text(sql), &execution, error);
	});
	struct Free {
		HerdExecution *execution;
		~Free() {
			Api().execute_free(execution);
		}
	} guard {execution};
	Wait(context, [&](HerdBuffer *error) { return Api().execute_wait(execution, SLICE_MS, rows.data(), error); });
	return vector<idx_t>(rows.begin(), rows.end());
}

Source RunReturning(ClientContext &context, const string &query) {
	Source source;
	Check([&](HerdBuffer *error) {
		return Api().change(SessionState::Of(context), Text(query), source.Slot(), error);
	});
	return source;
}

void MoveRows(ClientContext &context, const string &schema, const string &table, const string &placement,
              const vector<MovedColumn> &columns) {
	auto list = JsonList(columns.size(), [&](idx_t i) {
		return "{\"name\":" + JsonText(columns[i].name) + ",\"in_place\":" + (columns[i].in_place ? "true" : "false") + "}";
	});
	Check([&](HerdBuffer *error) {
		return Api().move_rows(SessionState::Of(context), Text(schema), Text(table), Text(placement), Text(list), error);
	});
}

} // namespace herd
