//! Results on their way to DuckDB's scan threads.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use duckherder_client::{ClientError, QueryStream};
use duckherder_proto::ExceptionType;
use futures::{FutureExt, StreamExt};
use tokio::task::AbortHandle;
use tokio::time::Instant;

use crate::error::{ExtError, ForUser, Result};
use crate::history::{self, Outcome, Recording};
use crate::progress::Progress;
use crate::remote::Remote;
use crate::runtime::{self, INTERRUPT_CHECK_INTERVAL, InterruptCheck};

/// Decoded batches, of about 2 MiB each, waiting for scan threads.
const BATCHES_AHEAD: usize = 24;

/// How long after its first message the end of a write's result is waited for: it mostly comes along with it.
const END_WAIT: Duration = Duration::from_millis(2);

/// A group that has so many rows or bytes is not made longer. The rows are those of a row group of DuckDB.
const GROUP_ROWS: usize = 122_880;
const GROUP_BYTES: usize = 32 * 1024 * 1024;

/// Batches that follow each other, all for one thread.
///
/// Whatever of a result there is goes to the thread that asks first, up to a row group: a table that is made of the result
/// is then made of whole ones. DuckDB would write smaller ones a second time, to merge them.
pub struct Group {
    index: u64,
    batches: VecDeque<RecordBatch>,
}

impl Group {
    /// Its place in the result: 0, 1, 2 …
    pub fn index(&self) -> u64 {
        self.index
    }

    /// Takes the next batch out of it.
    pub fn next(&mut self) -> Option<RecordBatch> {
        self.batches.pop_front()
    }
}

/// One result, read by any number of threads. Dropped before its end, it cancels the statement on the server.
pub struct Scan {
    schema: SchemaRef,
    batches: flume::Receiver<Result<RecordBatch>>,
    /// The next group's place; held while one is put together.
    next_index: Mutex<u64>,
    /// Ends the result after the rows that came before it.
    failure: Mutex<Option<ExtError>>,
    rows_read: AtomicU64,
    /// Of a statement that still runs.
    progress: Option<Progress>,
    wakers: Wakers,
    _pump: Option<Pump>,
}

/// Wakes a scan thread that found no batch. Dropped without being called when nobody waits any more.
pub type Waker = Box<dyn FnOnce() + Send>;

type Wakers = Arc<Mutex<Vec<Waker>>>;

fn lock(wakers: &Wakers) -> MutexGuard<'_, Vec<Waker>> {
    wakers.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Calls all wakers, and once more when dropped: the end is worth asking for as well.
struct Wake(Wakers);

impl Wake {
    fn all(&self) {
        let wakers = std::mem::take(&mut *lock(&self.0));
        for waker in wakers {
            waker();
        }
    }
}

impl Drop for Wake {
    fn drop(&mut self) {
        self.all();
    }
}

/// What moves the batches; stopped when this is dropped.
struct Pump {
    task: AbortHandle,
    remote: Arc<Remote>,
}

impl Drop for Pump {
    fn drop(&mut self) {
        // In a forked child there is no such task, and its runtime's locks must not be touched.
        if self.remote.check_process().is_ok() {
            self.task.abort();
        }
    }
}

/// A result that has begun, and what is there of it. The end of a small one is there soon: then no task needs to wait for it,
/// and no thread for the task.
pub struct Begun {
    stream: QueryStream,
    ready: Vec<RecordBatch>,
    /// `None` unless it is over.
    outcome: Option<std::result::Result<(), ClientError>>,
}

impl Begun {
    /// What there is at once; if it `ends_soon`, what comes in a moment too.
    pub async fn of(mut stream: QueryStream, ends_soon: bool) -> Self {
        let deadline = Instant::now() + END_WAIT;
        let mut ready = Vec::new();
        let mut outcome = None;
        while outcome.is_none() && ready.len() < BATCHES_AHEAD {
            let item = match stream.next().now_or_never() {
                Some(item) => Some(item),
                None if ends_soon => tokio::time::timeout_at(deadline, stream.next()).await.ok(),
                None => None,
            };
            match item {
                Some(Some(Ok(batch))) => ready.push(batch),
                Some(Some(Err(error))) => outcome = Some(Err(error)),
                Some(None) => outcome = Some(Ok(())),
                None => break,
            }
        }
        Self { stream, ready, outcome }
    }
}

impl Scan {
    /// The result of a statement that runs on a duckling.
    pub fn stream(remote: Arc<Remote>, begun: Begun, recording: Recording) -> Result<Self> {
        let Begun { stream, ready, outcome } = begun;
        let schema = stream.schema();
        let rows: usize = ready.iter().map(RecordBatch::num_rows).sum();
        recording.traffic().add_received(rows as u64, stream.bytes_received());
        let wakers = Wakers::default();
        // There is room for what is ready, and one more.
        let (sender, batches) = flume::bounded(BATCHES_AHEAD + 1);
        for batch in ready {
            let _ = sender.send(Ok(batch));
        }
        let progress = stream
            .session()
            .filter(|_| outcome.is_none())
            .map(|session| Progress::new(Arc::clone(&remote), session.clone(), stream.statement_id()));
        let pump = match outcome {
            Some(outcome) => {
                if let Err(error) = end(&remote, &stream, recording, outcome) {
                    let _ = sender.send(Err(error));
                }
                None
            }
            None => {
                let wake = Wake(Arc::clone(&wakers));
                let task = runtime::handle()?
                    .spawn(pump(Arc::clone(&remote), stream, recording, sender, wake))
                    .abort_handle();
                Some(Pump { task, remote })
            }
        };
        Ok(Self {
            schema,
            batches,
            next_index: Mutex::default(),
            failure: Mutex::default(),
            rows_read: AtomicU64::new(0),
            progress,
            wakers,
            _pump: pump,
        })
    }

    /// The query history.
    pub fn history() -> Result<Self> {
        let batch = history::snapshot().map_err(|error| ExtError::new(ExceptionType::Io, error.to_string()))?;
        Ok(Self::of(history::schema(), Some(batch)))
    }

    /// No rows, of these columns.
    pub fn of_columns(schema: SchemaRef) -> Self {
        Self::of(schema, None)
    }

    fn of(schema: SchemaRef, batch: Option<RecordBatch>) -> Self {
        let (sender, batches) = flume::bounded(1);
        if let Some(batch) = batch {
            // There is room for one.
            let _ = sender.send(Ok(batch));
        }
        Self {
            schema,
            batches,
            next_index: Mutex::default(),
            failure: Mutex::default(),
            rows_read: AtomicU64::new(0),
            progress: None,
            wakers: Wakers::default(),
            _pump: None,
        }
    }

    /// Whether all of it is there, and one group at most.
    pub fn is_one_group(&self) -> bool {
        self.batches.is_disconnected() && self.batches.len() <= 1
    }

    /// The result's schema.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// Rows handed out so far.
    pub fn rows_read(&self) -> u64 {
        self.rows_read.load(Ordering::Relaxed)
    }

    /// How far the statement is, from 0 to 1, as the duckling estimates it; `None` if that is not known.
    pub fn progress(&self) -> Option<f64> {
        self.progress.as_ref()?.fraction()
    }

    /// The next group if there is something already, `Some(None)` at the end. Else `None`, and `waker` is called, once, as
    /// soon as it is worth asking again.
    ///
    /// # Errors
    /// The server's, the connection's.
    pub fn next_or_wake(&self, waker: Waker) -> Result<Option<Option<Group>>> {
        if let Some(next) = self.try_next()? {
            return Ok(Some(next));
        }
        let mut wakers = lock(&self.wakers);
        // Again, now that the pump cannot miss the waker.
        let next = self.try_next()?;
        if next.is_none() {
            wakers.push(waker);
        }
        Ok(next)
    }

    fn try_next(&self) -> Result<Option<Option<Group>>> {
        let mut next_index = self.next_index.lock().unwrap_or_else(PoisonError::into_inner);
        let mut failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(error) = failure.take() {
            return Err(error);
        }
        let mut batches = VecDeque::new();
        let (mut rows, mut bytes) = (0, 0);
        while rows < GROUP_ROWS && bytes < GROUP_BYTES {
            match self.batches.try_recv() {
                Ok(Ok(batch)) => {
                    rows += batch.num_rows();
                    bytes += batch.get_array_memory_size();
                    batches.push_back(batch);
                }
                Ok(Err(error)) if batches.is_empty() => return Err(error),
                Ok(Err(error)) => {
                    *failure = Some(error);
                    break;
                }
                Err(flume::TryRecvError::Disconnected) if batches.is_empty() => return Ok(Some(None)),
                Err(flume::TryRecvError::Empty) if batches.is_empty() => return Ok(None),
                Err(_) => break,
            }
        }
        self.rows_read.fetch_add(rows as u64, Ordering::Relaxed);
        let index = *next_index;
        *next_index += 1;
        Ok(Some(Some(Group { index, batches })))
    }

    /// The next group, blocking; `None` at the end.
    ///
    /// # Errors
    /// The server's, the connection's; `INTERRUPT`.
    pub fn next(&self, interrupt: &dyn InterruptCheck) -> Result<Option<Group>> {
        loop {
            let (sender, woken) = flume::bounded(1);
            let waker = move || {
                let _ = sender.send(());
            };
            if let Some(next) = self.next_or_wake(Box::new(waker))? {
                return Ok(next);
            }
            while let Err(flume::RecvTimeoutError::Timeout) = woken.recv_timeout(INTERRUPT_CHECK_INTERVAL) {
                if interrupt.is_interrupted() {
                    return Err(runtime::interrupted());
                }
            }
        }
    }
}

/// Moves batches from the network to the scan threads, and the outcome to the books.
async fn pump(
    remote: Arc<Remote>,
    mut stream: QueryStream,
    recording: Recording,
    sender: flume::Sender<Result<RecordBatch>>,
    wake: Wake,
) {
    let mut bytes_counted = stream.bytes_received();
    let mut next = stream.next().await;
    let outcome = loop {
        match next {
            Some(Ok(batch)) => {
                let bytes = stream.bytes_received() - bytes_counted;
                bytes_counted += bytes;
                recording.traffic().add_received(batch.num_rows() as u64, bytes);
                if sender.send_async(Ok(batch)).await.is_err() {
                    return;
                }
            }
            Some(Err(error)) => break Err(error),
            None => break Ok(()),
        }
        next = match stream.next().now_or_never() {
            // One wake-up for the last rows and the end.
            Some(None) => None,
            Some(item) => {
                wake.all();
                item
            }
            None => {
                wake.all();
                stream.next().await
            }
        };
    };
    if let Err(error) = end(&remote, &stream, recording, outcome) {
        let _ = sender.send_async(Err(error)).await;
    }
    drop(sender);
    drop(wake);
}

/// Does the books before the end is told: whoever sees the end must find them in order.
fn end(
    remote: &Remote,
    stream: &QueryStream,
    recording: Recording,
    outcome: std::result::Result<(), ClientError>,
) -> Result<()> {
    match outcome {
        Ok(()) => {
            let summary = stream.summary().cloned().unwrap_or_default();
            if summary.catalog_epoch != 0 {
                remote.cache().observe(summary.catalog_epoch);
            }
            recording.end(Ok(Outcome::of(&summary)));
            Ok(())
        }
        Err(error) => {
            let error = error.for_user();
            recording.end(Err(&error));
            Err(error)
        }
    }
}
