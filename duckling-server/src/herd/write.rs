//! Rows and statements on their way from the coordinator to workers.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use duckherder_catalog::herd::placement::WorkerId;
use duckherder_client::{BoxError, ClientError, IngestTarget, QueryOptions, Session};
use duckherder_proto::v1::IngestMode;
use duckherder_proto::{ExceptionType, RemoteError};
use futures::future::try_join_all;
use futures::stream;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::task::{JoinError, JoinHandle};

use super::peers::named;
use super::session::{Access, HerdSession, lock};

/// Batches for one worker that wait for the network.
const BATCHES_AHEAD: usize = 4;

/// Where rows go.
pub struct WriteTarget {
    /// The table's schema.
    pub schema: String,
    /// The table.
    pub table: String,
    /// Who gets rows.
    pub workers: Vec<WorkerId>,
    /// Every batch goes to all of them.
    pub everywhere: bool,
    /// The table is made for them, as a temporary one of this name.
    pub temporary: bool,
}

/// How a step of something that takes time went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress<T> {
    /// It has ended.
    Done(T),
    /// It goes on.
    Pending,
}

/// Rows on their way into a table of workers, in the transactions of a connection. A worker that gets none is asked for
/// nothing. Dropped before its end, it is broken off; the transactions are then to be rolled back.
pub struct Write {
    session: Arc<HerdSession>,
    runtime: Handle,
    target: IngestTarget,
    schema: SchemaRef,
    everywhere: bool,
    lanes: Vec<Lane>,
    /// Held while lanes are opened.
    opening: Mutex<()>,
    rows: Mutex<u64>,
}

/// What goes to one worker.
struct Lane {
    worker: WorkerId,
    state: Mutex<LaneState>,
    upload: Mutex<Option<JoinHandle<Result<u64, ClientError>>>>,
}

enum LaneState {
    /// There were no rows for it yet.
    Closed,
    Open(mpsc::Sender<RecordBatch>),
    Ended,
}

impl Lane {
    fn is_closed(&self) -> bool {
        matches!(*lock(&self.state), LaneState::Closed)
    }

    fn sender(&self) -> Option<mpsc::Sender<RecordBatch>> {
        match &*lock(&self.state) {
            LaneState::Open(sender) => Some(sender.clone()),
            LaneState::Closed | LaneState::Ended => None,
        }
    }
}

impl Write {
    /// Of the rows that [`Write::push`] takes. Blocks, as its methods do: not for the runtime's threads.
    ///
    /// # Errors
    /// The table is to be made, and a worker is not alive, or cannot be reached.
    pub fn start(session: &Arc<HerdSession>, target: &WriteTarget, schema: SchemaRef) -> Result<Self, RemoteError> {
        let session = session.writing();
        let lanes = target.workers.iter().map(|worker| Lane {
            worker: worker.clone(),
            state: Mutex::new(LaneState::Closed),
            upload: Mutex::default(),
        });
        let write = Self {
            runtime: session.herd().runtime()?,
            target: IngestTarget {
                schema: target.schema.clone(),
                parent_schemas: Vec::new(),
                table: target.table.clone(),
                mode: if target.temporary {
                    IngestMode::CreateTemporary
                } else {
                    IngestMode::Append
                },
                table_clauses: String::new(),
                begin_transaction: true,
            },
            schema,
            everywhere: target.everywhere,
            lanes: lanes.collect(),
            opening: Mutex::default(),
            rows: Mutex::default(),
            session,
        };
        if target.temporary {
            write.open(&write.lanes)?;
        }
        Ok(write)
    }

    /// Opens the table on the workers of those lanes that are closed.
    fn open(&self, lanes: &[Lane]) -> Result<(), RemoteError> {
        if !lanes.iter().any(Lane::is_closed) {
            return Ok(());
        }
        let _opening = lock(&self.opening);
        let closed: Vec<_> = lanes.iter().filter(|lane| lane.is_closed()).collect();
        let opening = closed.iter().map(|lane| open(&self.session, &lane.worker));
        let opened = self.session.wait(try_join_all(opening))?;
        for (lane, on_worker) in closed.into_iter().zip(opened) {
            let (sender, receiver) = mpsc::channel(BATCHES_AHEAD);
            let batches = stream::unfold(receiver, |mut receiver: mpsc::Receiver<RecordBatch>| async {
                let batch = receiver.recv().await?;
                Some((Ok::<_, BoxError>(batch), receiver))
            });
            let (target, schema) = (self.target.clone(), SchemaRef::clone(&self.schema));
            let upload = async move { Ok(on_worker.ingest(target, schema, batches).await?.rows) };
            *lock(&lane.upload) = Some(self.runtime.spawn(upload));
            *lock(&lane.state) = LaneState::Open(sender);
        }
        Ok(())
    }

    /// The columns that every batch must have.
    #[must_use]
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// Takes a batch over, for the worker of that number, or for all.
    ///
    /// # Errors
    /// The worker is not alive, or cannot be reached. What ended an upload: a violated constraint, a worker that has gone.
    pub fn push(&self, worker: usize, batch: RecordBatch, timeout: Duration) -> Result<Progress<()>, RemoteError> {
        let lanes = if self.everywhere {
            &self.lanes[..]
        } else {
            self.lanes.get(worker..=worker).unwrap_or_default()
        };
        self.open(lanes)?;
        let rows = batch.num_rows() as u64;
        let senders: Option<Vec<_>> = lanes.iter().map(Lane::sender).collect();
        let senders = senders.ok_or_else(ended)?;
        let reserved = self.runtime.block_on(async {
            // All or none: whoever calls again has the batch still whole.
            tokio::time::timeout(timeout, try_join_all(senders.iter().map(|sender| sender.reserve()))).await
        });
        match reserved {
            Err(_) => Ok(Progress::Pending),
            Ok(Err(_)) => Err(self.failure()),
            Ok(Ok(permits)) => {
                for permit in permits {
                    permit.send(batch.clone());
                }
                *lock(&self.rows) += rows;
                Ok(Progress::Done(()))
            }
        }
    }

    /// All rows have been pushed. Ends once they are in the tables of all workers, not yet committed; their number.
    ///
    /// # Errors
    /// As [`Write::push`].
    pub fn finish(&self, timeout: Duration) -> Result<Progress<u64>, RemoteError> {
        for lane in &self.lanes {
            *lock(&lane.state) = LaneState::Ended;
        }
        let sent = *lock(&self.rows);
        for lane in &self.lanes {
            let mut upload = lock(&lane.upload);
            let Some(running) = upload.as_mut() else { continue };
            let gone = std::slice::from_ref(&lane.worker);
            let outcome = self.runtime.block_on(async {
                tokio::select! {
                    outcome = running => Some(self.settled(lane, outcome)),
                    error = self.session.herd().registry().gone(gone) => Some(Err(error)),
                    () = tokio::time::sleep(timeout) => None,
                }
            });
            match outcome {
                None => return Ok(Progress::Pending),
                Some(outcome) => {
                    upload.take();
                    outcome?;
                }
            }
        }
        Ok(Progress::Done(sent))
    }

    /// Why an upload has ended before its time.
    fn failure(&self) -> RemoteError {
        for lane in &self.lanes {
            let mut upload = lock(&lane.upload);
            if let Some(running) = upload.take_if(|running| running.is_finished())
                && let Err(error) = self.settled(lane, self.runtime.block_on(running))
            {
                return error;
            }
        }
        ended()
    }

    fn settled(&self, lane: &Lane, outcome: Result<Result<u64, ClientError>, JoinError>) -> Result<u64, RemoteError> {
        let address = || self.session.herd().registry().address(&lane.worker).unwrap_or_default();
        match outcome {
            Ok(outcome) => outcome.map_err(|error| named(&lane.worker.0, &address(), error.to_remote_error())),
            Err(_) => Err(ended()),
        }
    }
}

impl Drop for Write {
    fn drop(&mut self) {
        for lane in &self.lanes {
            // An upload whose future is dropped is broken off.
            if let Some(running) = lock(&lane.upload).take() {
                running.abort();
            }
        }
    }
}

fn ended() -> RemoteError {
    RemoteError::new(ExceptionType::Interrupt, "the upload to a worker was broken off")
}

/// The rows that each worker has changed.
type RowsChanged = Result<Vec<u64>, RemoteError>;

/// A statement that runs on several workers at once, in the transactions of a connection.
pub struct Execution {
    runtime: Handle,
    running: Mutex<Option<JoinHandle<RowsChanged>>>,
}

impl Execution {
    /// Starts it.
    ///
    /// # Errors
    /// The server does not serve.
    pub fn start(session: &Arc<HerdSession>, on: Vec<WorkerId>, sql: String) -> Result<Self, RemoteError> {
        let session = session.writing();
        let runtime = session.herd().runtime()?;
        let running = runtime.spawn(async move { session.execute_at_all(&on, &sql).await });
        Ok(Self {
            runtime,
            running: Mutex::new(Some(running)),
        })
    }

    /// The rows that each worker has changed, once all are done.
    ///
    /// # Errors
    /// The first one's that has failed.
    pub fn wait(&self, timeout: Duration) -> Result<Progress<Vec<u64>>, RemoteError> {
        let mut running = lock(&self.running);
        let Some(task) = running.as_mut() else {
            return Err(ended());
        };
        let outcome = self
            .runtime
            .block_on(async { tokio::time::timeout(timeout, task).await });
        match outcome {
            Err(_) => Ok(Progress::Pending),
            Ok(outcome) => {
                running.take();
                outcome.map_err(|_| ended())?.map(Progress::Done)
            }
        }
    }
}

impl Drop for Execution {
    fn drop(&mut self) {
        if let Some(running) = lock(&self.running).take() {
            running.abort();
        }
    }
}

/// The session on a worker, in the transaction, which begins there with it if it has not yet: what follows cannot be
/// sent twice, for a worker that does not know the session any more.
async fn open(session: &HerdSession, worker: &WorkerId) -> Result<Session, RemoteError> {
    let on_worker = session.with_session(worker, Access::Write, |on_worker, begin_transaction| async move {
        let options = QueryOptions {
            begin_transaction,
            ..QueryOptions::default()
        };
        on_worker.execute_with("SELECT 1", options).await?;
        Ok(on_worker)
    });
    on_worker.await
}
