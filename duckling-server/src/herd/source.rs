//! Rows on their way into DuckDB.

use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use duckherder_proto::RemoteError;

/// Record batches for DuckDB's threads; several may ask at once. Dropping the source cancels what feeds it, on every node.
pub trait BatchSource: Send + Sync {
    /// Columns; each field with DuckDB's type text in its metadata ([`duckherder_proto::types`]).
    fn schema(&self) -> SchemaRef;

    /// The next batch. Waits no longer than `timeout`, so that the caller can look for an interrupt.
    ///
    /// # Errors
    /// What has gone wrong on the way, on whatever node. The source yields nothing more after it.
    fn next(&self, timeout: Duration) -> Result<Next, RemoteError>;

    /// What became of it, for `EXPLAIN ANALYZE`: pairs of a heading and a text. Empty before the end.
    fn report(&self) -> Vec<(String, String)> {
        Vec::new()
    }
}

/// What a [`BatchSource`] has.
#[derive(Debug, Clone, PartialEq)]
pub enum Next {
    /// Rows.
    Batch(RecordBatch),
    /// Nothing yet.
    Pending,
    /// Nothing more.
    End,
}
