//! What crosses between the C++ layer of the server and `src/duckdb/herd.rs`, which declares the same in Rust.
#pragma once

#include <cstddef>
#include <cstdint>

struct ArrowArray;
struct ArrowSchema;

extern "C" {

//! UTF-8 text that the callee only reads during the call.
struct HerdText {
	const uint8_t *ptr;
	size_t len;
};

//! Text made by Rust, freed with `HerdApi::buffer_free`. `ptr` is null for none.
struct HerdBuffer {
	uint8_t *ptr;
	size_t len;
};

//! How a call went.
enum HerdStatus : int32_t {
	//! Well; outputs are set.
	HerdOk = 0,
	//! There is nothing (more).
	HerdEnd = 1,
	//! Badly; the error is set, as the JSON that `ErrorData` reads.
	HerdFailed = 2,
	//! Nothing yet.
	HerdPending = 3,
};

//! What a connection's session knows of the herd.
struct HerdSession;
//! Record batches out of the herd.
struct HerdSource;
//! Rows on their way into a herd's table.
struct HerdWrite;

//! The functions of the Rust side. All may be called from any thread; none unwinds.
struct HerdApi {
	void (*buffer_free)(HerdBuffer buffer);
	void (*session_free)(const HerdSession *session);

	//! The distributed plan of a described one, both as JSON. `HerdEnd`: it stays as it is.
	HerdStatus (*distribute)(const HerdSession *session, HerdText plan, HerdBuffer *steps, HerdBuffer *error);
	//! About how many rows a herd's table has.
	HerdStatus (*table_rows)(const HerdSession *session, HerdText schema, HerdText table, HerdText placement,
	                         uint64_t *rows, HerdBuffer *error);

	//! Starts a distributed query, given as JSON.
	HerdStatus (*gather)(const HerdSession *session, HerdText query, HerdSource **source, HerdBuffer *error);
	//! Names and types of the columns of an exchange, as JSON.
	HerdStatus (*exchange_columns)(const HerdSession *session, uint32_t stage, HerdBuffer *columns, HerdBuffer *error);
	//! The rows of an exchange for this worker.
	HerdStatus (*exchange)(const HerdSession *session, uint32_t stage, HerdSource **source, HerdBuffer *error);
	//! The Arrow schema of a source.
	HerdStatus (*source_schema)(const HerdSource *source, ArrowSchema *schema, HerdBuffer *error);
	//! The next batch; waits for no longer than `timeout_ms`.
	HerdStatus (*source_next)(const HerdSource *source, uint32_t timeout_ms, ArrowArray *batch, HerdBuffer *error);
	void (*source_free)(HerdSource *source);
};

//! Makes the herd's functions and planner known to the database of a `duckdb::Connection`. Null, or an error to be freed
//! with `herd_error_free`.
char *herd_install(void *connection, const HerdApi *api);
//! Gives a `duckdb::Connection` its session, which it frees.
char *herd_bind_session(void *connection, const HerdSession *session);
void herd_error_free(char *error);
}
