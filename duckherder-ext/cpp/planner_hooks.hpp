//! What the extension adds to DuckDB's planner.
#pragma once

namespace duckdb {
struct DBConfig;
}

namespace duckherder {

//! After binding a statement that runs on a duckling: EXPLAIN shows the duckling's plan, result columns keep their names
//! even if two are the same, and clients are told what kind of result it has.
void RegisterPostBind(duckdb::DBConfig &config);

//! A statement that cannot be bound here, since it uses what only the default duckling knows (a sequence, type, macro or
//! trigger of its own), is bound there as a whole.
void RegisterRemoteBind(duckdb::DBConfig &config);

} // namespace duckherder
