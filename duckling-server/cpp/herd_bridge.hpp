//! Between DuckDB's types and those of the C interface.
#pragma once

#include "duckdb.hpp"
#include "duckdb/common/error_data.hpp"
#include "duckdb/main/client_context.hpp"
#include "duckdb/main/client_context_state.hpp"
#include "herd_cpu.hpp"
#include "herd_ffi.h"

#include <cstring>
#include <utility>

namespace herd {

const HerdApi &Api();

inline HerdText Text(const duckdb::string &text) {
	return HerdText {reinterpret_cast<const uint8_t *>(text.data()), text.size()};
}

//! Text that Rust made; freed with this.
class Buffer {
public:
	Buffer() : buffer {nullptr, 0} {
	}
	~Buffer() {
		Api().buffer_free(buffer);
	}
	Buffer(const Buffer &) = delete;
	Buffer &operator=(const Buffer &) = delete;

	HerdBuffer *Slot() {
		return &buffer;
	}
	duckdb::string ToString() const {
		return buffer.ptr ? duckdb::string(reinterpret_cast<const char *>(buffer.ptr), buffer.len) : duckdb::string();
	}

private:
	HerdBuffer buffer;
};

//! Calls `call(error slot)`; throws the DuckDB exception of a failure, else returns the status.
template <class CALL>
HerdStatus Check(CALL call) {
	Buffer error;
	auto status = call(error.Slot());
	if (status == HerdFailed) {
		duckdb::ErrorData(error.ToString()).Throw();
	}
	return status;
}

//! Record batches out of the herd.
class Source {
public:
	explicit Source(HerdSource *raw = nullptr) : raw(raw) {
	}
	~Source() {
		if (raw) {
			Api().source_free(raw);
		}
	}
	Source(Source &&other) noexcept : raw(std::exchange(other.raw, nullptr)) {
	}
	Source &operator=(Source &&) = delete;
	Source(const Source &) = delete;

	HerdSource *Get() const {
		return raw;
	}
	HerdSource **Slot() {
		return &raw;
	}

private:
	HerdSource *raw;
};

//! A connection's session, kept for as long as the connection lives.
class SessionState : public duckdb::ClientContextState {
public:
	explicit SessionState(const HerdSession *session) : session(session) {
	}
	~SessionState() override {
		Api().session_free(session);
	}

	//! The session of a connection; throws if it has none.
	static const HerdSession *Of(duckdb::ClientContext &context);
	//! The same, or null.
	static const HerdSession *Find(duckdb::ClientContext &context);
	//! What a connection has, or null.
	static duckdb::shared_ptr<SessionState> Get(duckdb::ClientContext &context);

	//! Whether statements may change the definitions of a herd's tables here, since whoever runs them sees to the workers.
	static bool ChangesDefinitions(duckdb::ClientContext &context);
	static void SetChangesDefinitions(duckdb::ClientContext &context, bool changes);

	void OnTaskStart(duckdb::ClientContext &) override {
		cpu_time.Enter();
	}
	void OnTaskStop(duckdb::ClientContext &) override {
		cpu_time.Leave();
	}

	const HerdSession *session;
	//! Of the stage that the connection runs.
	CpuTime cpu_time;

private:
	bool changes_definitions = false;
};

//! Runs `work`; its error as the JSON of DuckDB's errors, to be freed with `herd_error_free`, or null.
template <class WORK>
char *Caught(WORK work) {
	try {
		work();
		return nullptr;
	} catch (std::exception &exception) {
		duckdb::ErrorData error(exception);
		error.ConvertErrorToJSON();
		return strdup(error.Message().c_str());
	} catch (...) { // NOLINT: nothing may be thrown into Rust
		return strdup("an unknown error");
	}
}

inline duckdb::ClientContext &ContextOf(void *connection) {
	return *static_cast<duckdb::Connection *>(connection)->context;
}

inline duckdb::string StringOf(HerdText text) {
	return duckdb::string(reinterpret_cast<const char *>(text.ptr), text.len);
}

//! The type that a text means.
duckdb::LogicalType ParseType(duckdb::ClientContext &context, const duckdb::string &text);

} // namespace herd
