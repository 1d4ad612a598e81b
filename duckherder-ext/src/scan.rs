//! Results on their way to DuckDB's scan threads.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use duckherder_client::QueryStream;
use duckherder_proto::ExceptionType;
use futures::StreamExt;
use tokio::task::AbortHandle;

use crate::error::{ExtError, ForUser, Result};
use crate::history::{self, Outcome, Recording};
use crate::remote::Remote;
use crate::runtime::{self, INTERRUPT_CHECK_INTERVAL, InterruptCheck};

/// Decoded batches waiting for scan threads.
const BATCHES_AHEAD: usize = 4;

/// A batch and its place in the result.
pub struct Numbered {
    /// 0, 1, 2 …
    pub index: u64,
    /// The rows.
    pub batch: RecordBatch,
}

/// One result, read by any number of threads. Dropped before its end, it cancels the statement on the server.
pub struct Scan {
    schema: SchemaRef,
    batches: flume::Receiver<Result<Numbered>>,
    rows_read: AtomicU64,
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

impl Scan {
    /// The result of a statement that runs on a duckling.
    pub fn stream(remote: Arc<Remote>, stream: QueryStream, recording: Recording) -> Result<Self> {
        let schema = stream.schema();
        let wakers = Wakers::default();
        let (sender, batches) = flume::bounded(BATCHES_AHEAD);
        let task = runtime::handle()?
            .spawn(pump(
                Arc::clone(&remote),
                stream,
                recording,
                sender,
                Wake(Arc::clone(&wakers)),
            ))
            .abort_handle();
        Ok(Self {
            schema,
            batches,
            rows_read: AtomicU64::new(0),
            wakers,
            _pump: Some(Pump { task, remote }),
        })
    }

    /// The query history.
    pub fn history() -> Result<Self> {
        let batch = history::snapshot().map_err(|error| ExtError::new(ExceptionType::Io, error.to_string()))?;
        let (sender, batches) = flume::bounded(1);
        // There is room for one.
        let _ = sender.send(Ok(Numbered { index: 0, batch }));
        Ok(Self {
            schema: history::schema(),
            batches,
            rows_read: AtomicU64::new(0),
            wakers: Wakers::default(),
            _pump: None,
        })
    }

    /// The result's schema.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// Rows handed out so far.
    pub fn rows_read(&self) -> u64 {
        self.rows_read.load(Ordering::Relaxed)
    }

    /// The next batch if it is here already, `Some(None)` at the end. Else `None`, and `waker` is called, once, as soon as
    /// it is worth asking again.
    ///
    /// # Errors
    /// The server's, the connection's.
    pub fn next_or_wake(&self, waker: Waker) -> Result<Option<Option<Numbered>>> {
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

    fn try_next(&self) -> Result<Option<Option<Numbered>>> {
        match self.batches.try_recv() {
            Ok(item) => self.count(item?).map(Some),
            Err(flume::TryRecvError::Disconnected) => Ok(Some(None)),
            Err(flume::TryRecvError::Empty) => Ok(None),
        }
    }

    fn count(&self, item: Numbered) -> Result<Option<Numbered>> {
        self.rows_read
            .fetch_add(item.batch.num_rows() as u64, Ordering::Relaxed);
        Ok(Some(item))
    }

    /// The next batch, blocking; `None` at the end.
    ///
    /// # Errors
    /// The server's, the connection's; `INTERRUPT`.
    pub fn next(&self, interrupt: &dyn InterruptCheck) -> Result<Option<Numbered>> {
        loop {
            match self.batches.recv_timeout(INTERRUPT_CHECK_INTERVAL) {
                Ok(item) => return self.count(item?),
                Err(flume::RecvTimeoutError::Disconnected) => return Ok(None),
                Err(flume::RecvTimeoutError::Timeout) if interrupt.is_interrupted() => {
                    return Err(runtime::interrupted());
                }
                Err(flume::RecvTimeoutError::Timeout) => {}
            }
        }
    }
}

/// Moves batches from the network to the scan threads, and the outcome to the books.
async fn pump(
    remote: Arc<Remote>,
    mut stream: QueryStream,
    recording: Recording,
    sender: flume::Sender<Result<Numbered>>,
    wake: Wake,
) {
    let mut index = 0;
    let mut bytes_counted = stream.bytes_received();
    recording.traffic().add_received(0, bytes_counted);
    while let Some(item) = stream.next().await {
        let item = match item {
            Ok(batch) => {
                let bytes = stream.bytes_received() - bytes_counted;
                bytes_counted += bytes;
                recording.traffic().add_received(batch.num_rows() as u64, bytes);
                Ok(Numbered { index, batch })
            }
            Err(error) => {
                let error = error.for_user();
                recording.end(Err(&error));
                let _ = sender.send_async(Err(error)).await;
                drop(sender);
                drop(wake);
                return;
            }
        };
        index += 1;
        if sender.send_async(item).await.is_err() {
            return;
        }
        wake.all();
    }
    let summary = stream.summary().cloned().unwrap_or_default();
    // Before the end is told: whoever sees the end must find the books in order.
    remote.cache().observe(summary.catalog_epoch);
    recording.end(Ok(Outcome::of(&summary)));
    drop(sender);
    drop(wake);
}
