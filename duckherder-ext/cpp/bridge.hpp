//! Between DuckDB's types and those of the C interface.
#pragma once

#include "duckdb.hpp"
#include "duckdb/common/error_data.hpp"
#include "duckdb/main/client_context.hpp"
#include "duckherder_ffi.h"

#include <utility>

namespace duckherder {

//! The functions of the Rust side, given when the extension is loaded.
const DhApi &Api();
void SetApi(const DhApi *api);

inline DhText Text(const duckdb::string &text) {
	return DhText {reinterpret_cast<const uint8_t *>(text.data()), text.size()};
}

inline DhText NoText() {
	return DhText {nullptr, 0};
}

inline duckdb::string String(const DhText &text) {
	return text.len == 0 ? duckdb::string() : duckdb::string(reinterpret_cast<const char *>(text.ptr), text.len);
}

//! The interrupt check of a query, for one call.
DhInterrupt InterruptOf(duckdb::ClientContext &context);

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

	DhBuffer *Slot() {
		return &buffer;
	}
	duckdb::string ToString() const {
		return buffer.ptr ? duckdb::string(reinterpret_cast<const char *>(buffer.ptr), buffer.len) : duckdb::string();
	}

private:
	DhBuffer buffer;
};

//! Calls `call(error slot)`; throws the DuckDB exception of a failure, else returns whether there was something.
template <class CALL>
bool Check(CALL call) {
	Buffer error;
	switch (call(error.Slot())) {
	case DhOk:
		return true;
	case DhEnd:
		return false;
	default:
		duckdb::ErrorData(error.ToString()).Throw();
	}
}

//! Owns an opaque handle of the C interface.
template <class T, void (*DhApi::*FREE)(T *)>
class Handle {
public:
	explicit Handle(T *raw = nullptr) : raw(raw) {
	}
	~Handle() {
		(Api().*FREE)(raw);
	}
	Handle(Handle &&other) noexcept : raw(std::exchange(other.raw, nullptr)) {
	}
	Handle &operator=(Handle &&other) noexcept {
		std::swap(raw, other.raw);
		return *this;
	}
	Handle(const Handle &) = delete;
	Handle &operator=(const Handle &) = delete;

	T *Get() const {
		return raw;
	}
	//! Where a call puts a new one.
	T **Slot() {
		(Api().*FREE)(raw);
		raw = nullptr;
		return &raw;
	}
	explicit operator bool() const {
		return raw != nullptr;
	}

private:
	T *raw;
};

using RemoteHandle = Handle<DhRemote, &DhApi::remote_free>;
using SessionHandle = Handle<DhSession, &DhApi::session_free>;
using ScanHandle = Handle<DhScan, &DhApi::scan_free>;
using GroupHandle = Handle<DhGroup, &DhApi::group_free>;
using TablesHandle = Handle<DhTables, &DhApi::tables_free>;
using DefinitionsHandle = Handle<DhDefinitions, &DhApi::definitions_free>;
using ColumnsHandle = Handle<DhColumns, &DhApi::columns_free>;

//! The path of a schema as SQL in which every name is quoted, and back.
duckdb::string SchemaPathSql(const duckdb::vector<duckdb::Identifier> &path);
duckdb::vector<duckdb::Identifier> SchemaPath(const DhText &sql);

//! The type that a text of another DuckDB means here; false if this DuckDB does not know it.
bool TryParseType(duckdb::ClientContext &context, const duckdb::string &text, duckdb::LogicalType &type);

} // namespace duckherder
