//! What a client uploads into a table of the herd, as rows for DuckDB's threads.

use std::sync::Mutex;
use std::time::Duration;

use arrow::datatypes::SchemaRef;
use duckherder_proto::RemoteError;
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use super::session::lock;
use super::source::{BatchSource, Next};
use crate::arrow_check;
use crate::ingest::{Upload, broken_off, check_end};

/// See the module.
pub struct UploadSource {
    schema: SchemaRef,
    runtime: Handle,
    state: Mutex<State>,
}

struct State {
    batches: mpsc::Receiver<Result<Upload, RemoteError>>,
    rows: u64,
    ended: bool,
}

impl UploadSource {
    /// What `batches` yields, all of `schema`.
    pub fn new(schema: SchemaRef, runtime: Handle, batches: mpsc::Receiver<Result<Upload, RemoteError>>) -> Self {
        Self {
            schema,
            runtime,
            state: Mutex::new(State {
                batches,
                rows: 0,
                ended: false,
            }),
        }
    }

    /// How many rows there were, if all have been read.
    ///
    /// # Errors
    /// The upload has not come to its end.
    pub fn rows(&self) -> Result<u64, RemoteError> {
        let state = lock(&self.state);
        if state.ended { Ok(state.rows) } else { Err(broken_off()) }
    }
}

impl BatchSource for UploadSource {
    fn schema(&self) -> SchemaRef {
        SchemaRef::clone(&self.schema)
    }

    fn next(&self, timeout: Duration) -> Result<Next, RemoteError> {
        let mut state = lock(&self.state);
        if state.ended {
            return Ok(Next::End);
        }
        let received = self
            .runtime
            .block_on(async { tokio::time::timeout(timeout, state.batches.recv()).await });
        match received {
            Err(_) => Ok(Next::Pending),
            Ok(None) => Err(broken_off()),
            Ok(Some(Err(error))) => Err(error),
            Ok(Some(Ok(Upload::Batch(batch)))) => {
                arrow_check::check(&batch)?;
                state.rows += batch.num_rows() as u64;
                Ok(Next::Batch(batch))
            }
            Ok(Some(Ok(Upload::End { rows }))) => {
                check_end(rows, state.rows)?;
                state.ended = true;
                Ok(Next::End)
            }
        }
    }
}
