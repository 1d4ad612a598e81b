//! Rows on their way from DuckDB to a duckling.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use duckherder_client::{IngestOptions, IngestTarget, Session};
use duckherder_proto::ExceptionType;
use duckherder_proto::v1::IngestResponse;
use futures::{Stream, stream};
use tokio::task::AbortHandle;

use crate::error::{ExtError, ForUser, Result};
use crate::history::{Outcome, Recording};
use crate::remote::Remote;
use crate::runtime::{self, INTERRUPT_CHECK_INTERVAL, InterruptCheck};

/// Batches waiting for the network.
const BATCHES_AHEAD: usize = 4;

/// An upload under way. Dropped before [`Upload::finish`], it is broken off, and the server keeps nothing of it.
pub struct Upload {
    schema: SchemaRef,
    /// `None` as an item is the upload's end; an end without it is that of a broken-off one.
    batches: flume::Sender<Option<RecordBatch>>,
    outcome: flume::Receiver<Result<IngestResponse>>,
    task: AbortHandle,
    remote: Arc<Remote>,
    recording: Option<Recording>,
}

impl Upload {
    /// Starts sending rows of `schema` to a table.
    ///
    /// # Errors
    /// If the runtime cannot start; what the server thinks of it is learnt later.
    pub fn start(
        remote: Arc<Remote>,
        session: Session,
        target: IngestTarget,
        schema: SchemaRef,
        recording: Recording,
    ) -> Result<Self> {
        let options = IngestOptions {
            history_id: Some(recording.id()),
            traffic: Arc::clone(recording.traffic()),
        };
        let (batches, queue) = flume::bounded(BATCHES_AHEAD);
        let (sender, outcome) = flume::bounded(1);
        let sent_schema = Arc::clone(&schema);
        let task = runtime::handle()?.spawn(async move {
            let answer = session
                .ingest_with(target, sent_schema, until_end(queue), options)
                .await;
            let _ = sender.send(answer.map_err(ForUser::for_user));
        });
        let task = task.abort_handle();
        Ok(Self {
            schema,
            batches,
            outcome,
            task,
            remote,
            recording: Some(recording),
        })
    }

    /// The schema of the batches.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// Queues a batch, waiting for room.
    ///
    /// # Errors
    /// The server's, if it has refused the upload; `INTERRUPT`.
    pub fn push(&self, interrupt: &dyn InterruptCheck, batch: RecordBatch) -> Result<()> {
        self.send(interrupt, Some(batch))
    }

    fn send(&self, interrupt: &dyn InterruptCheck, mut item: Option<RecordBatch>) -> Result<()> {
        loop {
            item = match self.batches.send_timeout(item, INTERRUPT_CHECK_INTERVAL) {
                Ok(()) => return Ok(()),
                Err(flume::SendTimeoutError::Timeout(_)) if interrupt.is_interrupted() => {
                    return Err(runtime::interrupted());
                }
                Err(flume::SendTimeoutError::Timeout(item)) => item,
                // Nobody takes batches any more: the outcome says why.
                Err(flume::SendTimeoutError::Disconnected(_)) => {
                    return match self.wait(interrupt) {
                        Err(error) => Err(error),
                        Ok(_) => Err(ended()),
                    };
                }
            };
        }
    }

    /// Ends the upload and waits until the server has kept it; the number of rows.
    ///
    /// # Errors
    /// The server's, the connection's; `INTERRUPT`. Nothing is kept then.
    pub fn finish(&mut self, interrupt: &dyn InterruptCheck) -> Result<u64> {
        let outcome = self.send(interrupt, None).and_then(|()| self.wait(interrupt));
        let recording = self.recording.take();
        match outcome {
            Ok(response) => {
                self.remote.cache().observe(response.catalog_epoch);
                if let Some(recording) = recording {
                    recording.end(Ok(Outcome {
                        rows_changed: Some(response.rows),
                        server_us: response.elapsed_us,
                    }));
                }
                Ok(response.rows)
            }
            Err(error) => {
                if let Some(recording) = recording {
                    recording.end(Err(&error));
                }
                Err(error)
            }
        }
    }

    fn wait(&self, interrupt: &dyn InterruptCheck) -> Result<IngestResponse> {
        loop {
            match self.outcome.recv_timeout(INTERRUPT_CHECK_INTERVAL) {
                Ok(outcome) => return outcome,
                Err(flume::RecvTimeoutError::Timeout) if interrupt.is_interrupted() => {
                    return Err(runtime::interrupted());
                }
                Err(flume::RecvTimeoutError::Timeout) => {}
                Err(flume::RecvTimeoutError::Disconnected) => return Err(ended()),
            }
        }
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        // In a forked child there is no such task, and its runtime's locks must not be touched.
        if self.remote.check_process().is_ok() {
            self.task.abort();
        }
    }
}

/// The batches up to the end; an error if the queue ends before it.
fn until_end(queue: flume::Receiver<Option<RecordBatch>>) -> impl Stream<Item = Result<RecordBatch>> + Send + 'static {
    stream::unfold(Some(queue), |queue| async move {
        let queue = queue?;
        match queue.recv_async().await {
            Ok(Some(batch)) => Some((Ok(batch), Some(queue))),
            Ok(None) => None,
            Err(flume::RecvError::Disconnected) => Some((Err(runtime::interrupted()), None)),
        }
    })
}

fn ended() -> ExtError {
    ExtError::new(ExceptionType::Io, "the upload has already ended")
}
