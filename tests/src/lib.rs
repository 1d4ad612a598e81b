//! What the end-to-end tests share: a DuckDB that a user would have, with the extension in it, and ducklings to attach.
//!
//! The tests are `tests/sql.rs`, which runs the files under `sql/`, and `tests/end_to_end/`, for what SQL cannot say.

pub mod duckdb;
pub mod duckling;
mod extension;
