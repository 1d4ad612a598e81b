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

//! A statement that runs on workers.
struct HerdExecution;

//! Where rows go.
struct HerdWriteTarget {
	HerdText schema;
	HerdText table;
	//! Who gets them: ids of workers, as a JSON list.
	HerdText workers;
	//! Every batch goes to all of them.
	bool everywhere;
	//! The table is made for them, as a temporary one of this name.
	bool temporary;
};

//! The functions of the Rust side. All may be called from any thread; none unwinds.
struct HerdApi {
	void (*buffer_free)(HerdBuffer buffer);
	void (*session_free)(const HerdSession *session);

	//! The distributed plan of a described one, both as JSON: `{"plan": Step, "summary": Summary}`. `HerdEnd`: it stays
	//! as it is.
	HerdStatus (*distribute)(const HerdSession *session, HerdText plan, HerdBuffer *steps, HerdBuffer *error);
	//! About how many rows a herd's table has, and values its columns, of which the names are given as JSON:
	//! `{"rows": …, "distinct": [… or 0]}`.
	HerdStatus (*table_estimates)(const HerdSession *session, HerdText schema, HerdText table, HerdText columns,
	                              HerdText placement, HerdBuffer *estimates, HerdBuffer *error);

	//! Starts a distributed query, given as JSON. As with the other sources: `HerdEnd`, and none, if the statement that it is
	//! for has been given up.
	HerdStatus (*gather)(const HerdSession *session, HerdText query, HerdSource **source, HerdBuffer *error);
	//! Names and types of the columns of an exchange, and about how many rows and values they have, as JSON:
	//! `{"columns": [{"name": …, "type_text": …}, …], "rows": … or 0, "distinct": [… or 0]}`.
	HerdStatus (*exchange_columns)(const HerdSession *session, uint32_t stage, HerdBuffer *columns, HerdBuffer *error);
	//! The rows of an exchange for this worker.
	HerdStatus (*exchange)(const HerdSession *session, uint32_t stage, HerdSource **source, HerdBuffer *error);
	//! The Arrow schema of a source.
	HerdStatus (*source_schema)(const HerdSource *source, ArrowSchema *schema, HerdBuffer *error);
	//! The next batch; waits for no longer than `timeout_ms`.
	HerdStatus (*source_next)(const HerdSource *source, uint32_t timeout_ms, ArrowArray *batch, HerdBuffer *error);
	//! What became of a source, for EXPLAIN ANALYZE, as JSON: `[[heading, text], …]`.
	HerdStatus (*source_report)(const HerdSource *source, HerdBuffer *report, HerdBuffer *error);
	void (*source_free)(HerdSource *source);

	//! Starts to write rows. Column `i` of the schema is of DuckDB type `types[i]`.
	HerdStatus (*write_start)(const HerdSession *session, const HerdWriteTarget *target, const ArrowSchema *schema,
	                          const HerdText *types, size_t type_count, HerdWrite **write, HerdBuffer *error);
	//! Takes a batch for a worker over, unless it is pending: no room within `timeout_ms`.
	HerdStatus (*write_push)(const HerdWrite *write, size_t worker, uint32_t timeout_ms, ArrowArray *batch,
	                         HerdBuffer *error);
	//! All rows have been pushed; pending until they are in the tables. Yields their number.
	HerdStatus (*write_finish)(const HerdWrite *write, uint32_t timeout_ms, uint64_t *rows, HerdBuffer *error);
	void (*write_free)(HerdWrite *write);
	//! Starts a statement on each of these workers, a JSON list of ids.
	HerdStatus (*execute_start)(const HerdSession *session, HerdText workers, HerdText sql, HerdExecution **execution,
	                            HerdBuffer *error);
	//! Pending until it has ended everywhere. Yields the rows changed, one number a worker.
	HerdStatus (*execute_wait)(const HerdExecution *execution, uint32_t timeout_ms, uint64_t *rows, HerdBuffer *error);
	void (*execute_free)(HerdExecution *execution);
	//! As `gather`, for a query that changes rows.
	HerdStatus (*change)(const HerdSession *session, HerdText query, HerdSource **source, HerdBuffer *error);
	//! Sends rows of a table that are on the wrong worker to the right one. Blocks until that is done, or the statement is
	//! cancelled.
	//! `columns`: the table's columns that hold values, a JSON list of `MovedColumn`.
	HerdStatus (*move_rows)(const HerdSession *session, HerdText schema, HerdText table, HerdText placement,
	                        HerdText columns, HerdBuffer *error);
};

//! Makes the herd's functions and planner known to the database of a `duckdb::Connection`. Null, or an error to be freed
//! with `herd_error_free`.
char *herd_install(void *connection, const HerdApi *api);
//! Gives a `duckdb::Connection` its session, which it frees.
char *herd_bind_session(void *connection, const HerdApi *api, const HerdSession *session);
//! From here on, the CPU time is counted of this thread, and of whatever DuckDB's threads do for the connection …
void herd_cpu_begin(void *connection);
//! … until here, on the same thread: in nanoseconds, or -1 if it is not known.
int64_t herd_cpu_end(void *connection);
//! From here on, large pieces of memory go back to the system when they are freed.
void herd_return_freed_blocks();
void herd_error_free(char *error);
}
