//! DuckDB, behind a safe surface: the only module of this crate with `unsafe`.
//!
//! It wraps DuckDB's C API v2 (`duckdb_v2.h`), whose Arrow results are converted on DuckDB's own worker threads.
//! [`Database`] -> [`Connection`] -> [`Statement`] -> [`ArrowResult`]. Errors come out as [`RemoteError`], with
//! DuckDB's exception type, message and extra information kept apart.
//!
//! [`RemoteError`]: duckherder_proto::RemoteError

#![expect(unsafe_code, reason = "calls into DuckDB's C API; every block says why it is sound")]

mod appender;
mod catalog_listing;
mod connection;
mod database;
mod error;
mod herd;
mod herd_ddl;
mod herd_route;
mod herd_write;
mod intervals;
mod linked;
mod monitor;
mod parameters;
mod prepared;
mod result;
mod schema;
mod statement;
mod table_function;
mod tokenizer;

pub use appender::Appender;
pub use connection::{Connection, Interrupter, Plan};
pub use database::{Database, DatabaseOptions};
pub use herd::{HerdHooks, return_freed_blocks};
pub use herd_route::partition_hash;
pub use linked::{HAS_ICU, register_linked_extensions};
pub use monitor::HeldMemory;
pub use parameters::{Parameters, for_each_row};
pub use prepared::{ShortResult, short_kind};
pub use result::{ArrowResult, BatchSize, ResultTypes, interrupted, rows_changed};
pub use statement::{Statement, StatementKind};
pub use table_function::{Cell, ColumnType, TableSource};
pub use tokenizer::Split;

use libduckdb_sys::v2 as ffi;

/// A borrowed view of `text` for the C API; valid while `text` is.
fn view(text: &str) -> ffi::duckdb_v2_str {
    ffi::duckdb_v2_str {
        ptr: text.as_ptr().cast(),
        len: text.len() as u64,
    }
}
