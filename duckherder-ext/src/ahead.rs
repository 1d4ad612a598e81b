//! Reads that are sent before DuckDB has bound them.
//!
//! DuckDB binds and plans a statement here although all of it runs on the duckling, and takes about as long for it as the
//! duckling for a look-up. So a read like an earlier one is sent when its query begins, as what it will most likely become
//! ([`Rewrites`](duckherder_catalog::Rewrites)). It is only used if DuckDB comes to ask for that, byte for byte, with the
//! same settings and in no transaction. If not, it is cancelled, and nothing is foreseen of its like any more.
//!
//! Nor does DuckDB wait for the columns: it plans with those of the last read like it, and binds anew if they turn out to be
//! others.

use arrow::datatypes::SchemaRef;

use crate::history::Recording;
use crate::runtime::Task;
use crate::scan::Begun;

/// A read that has been sent. Dropped, it is cancelled.
pub struct Ahead {
    /// As the user wrote it.
    pub typed: String,
    /// As it was sent.
    pub sql: String,
    /// The columns of the last read like it: these will most likely be the same.
    pub schema: SchemaRef,
    /// Its place in the history.
    pub recording: Recording,
    /// Its result.
    pub begun: Task<Begun>,
}
