//! The rows of one stage for one destination, or for several that read the same: written once, read by a known number of
//! readers, each from the start, while it is written or after.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use arrow::datatypes::{Schema, SchemaRef};
use duckherder_proto::{ExceptionType, RemoteError};
use tokio::sync::Notify;

use super::budget::{Budget, Charge};
use super::spill::{Spill, Spilled};
use crate::encode::BatchEncoder;
use crate::message::Message;

/// A batch that is kept.
#[derive(Clone)]
pub enum Stored {
    /// In memory.
    Memory(RecordBatch, Arc<Charge>),
    /// On disk.
    Disk(Spilled, SchemaRef),
}

impl Stored {
    /// The batch. Blocks if it is on disk.
    ///
    /// # Errors
    /// The disk's.
    pub fn batch(&self) -> Result<RecordBatch, RemoteError> {
        match self {
            Self::Memory(batch, _) => Ok(batch.clone()),
            Self::Disk(spilled, schema) => spilled.batch(schema),
        }
    }

    /// The batch as Arrow messages. Blocks.
    ///
    /// # Errors
    /// The disk's.
    pub fn messages(&self, encoder: &mut BatchEncoder) -> Result<Vec<Message>, RemoteError> {
        match self {
            Self::Memory(batch, _) => {
                let mut messages = Vec::new();
                encoder.encode(batch, &mut |message| {
                    messages.push(message);
                    Ok(())
                })?;
                Ok(messages)
            }
            Self::Disk(spilled, _) => spilled.messages(),
        }
    }

    /// Its rows.
    pub fn rows(&self) -> u64 {
        match self {
            Self::Memory(batch, _) => batch.num_rows() as u64,
            Self::Disk(spilled, _) => spilled.rows as u64,
        }
    }

    /// Whether getting at it blocks.
    pub fn is_on_disk(&self) -> bool {
        matches!(self, Self::Disk(..))
    }
}

/// How far a reader is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Position {
    /// Nobody has asked yet.
    Unopened,
    /// The number of the next batch.
    At(u64),
    /// It has all, or wants no more.
    Done,
}

/// What has gone through a log.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    pub rows: u64,
    pub bytes: u64,
    pub spilled_bytes: u64,
}

struct State {
    schema: Option<SchemaRef>,
    batches: VecDeque<Stored>,
    /// The number of the first of `batches`.
    first: u64,
    readers: Vec<Position>,
    outcome: Option<Result<(), RemoteError>>,
    counts: Counts,
}

/// See the module.
pub struct Log {
    budget: Arc<Budget>,
    spill: Arc<Spill>,
    state: Mutex<State>,
    news: Notify,
    progress: Arc<Progress>,
}

/// What happens to a query's logs.
pub struct Progress {
    /// A reader, or a log, has ended.
    pub news: Notify,
    began: Instant,
    /// When somebody last read, in milliseconds since.
    read_ms: AtomicU64,
}

impl Progress {
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            news: Notify::new(),
            began: Instant::now(),
            read_ms: AtomicU64::new(0),
        })
    }

    fn is_read(&self) {
        let now = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.read_ms.store(now, Ordering::Relaxed);
    }

    /// How long nobody has read or written.
    pub fn idle_for(&self) -> Duration {
        let last = self.began + Duration::from_millis(self.read_ms.load(Ordering::Relaxed));
        last.elapsed()
    }
}

impl Log {
    pub fn new(readers: usize, budget: Arc<Budget>, spill: Arc<Spill>, progress: Arc<Progress>) -> Self {
        Self {
            budget,
            spill,
            state: Mutex::new(State {
                schema: None,
                batches: VecDeque::new(),
                first: 0,
                readers: vec![Position::Unopened; readers],
                outcome: None,
                counts: Counts::default(),
            }),
            news: Notify::new(),
            progress,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The columns are known, and rows may come.
    pub fn begin(&self, schema: &SchemaRef) {
        self.lock().schema = Some(Arc::clone(schema));
        self.news.notify_waiters();
    }

    /// Keeps a batch, in memory or else on disk. Blocks.
    ///
    /// # Errors
    /// The query has failed or ended; the disk's.
    pub fn append(&self, encoder: &mut BatchEncoder, batch: RecordBatch) -> Result<(), RemoteError> {
        let bytes = batch.get_array_memory_size() as u64;
        let rows = batch.num_rows() as u64;
        let wanted = {
            let mut state = self.lock();
            if let Some(Err(error)) = &state.outcome {
                return Err(error.clone());
            }
            state.counts.rows += rows;
            state.counts.bytes += bytes;
            state.readers.iter().any(|reader| *reader != Position::Done)
        };
        if !wanted {
            return Ok(());
        }
        let (stored, spilled_bytes) = match self.budget.memory(bytes) {
            Some(charge) => (Stored::Memory(batch, Arc::new(charge)), 0),
            None => {
                let schema = batch.schema();
                let (spilled, bytes) = self.spill.write(encoder, &batch)?;
                (Stored::Disk(spilled, schema), bytes)
            }
        };
        let mut state = self.lock();
        if let Some(Err(error)) = &state.outcome {
            return Err(error.clone());
        }
        state.counts.spilled_bytes += spilled_bytes;
        state.batches.push_back(stored);
        // The last reader may have gone meanwhile.
        state.trim();
        drop(state);
        self.news.notify_waiters();
        Ok(())
    }

    /// There are no more rows.
    pub fn finish(&self) {
        self.lock().outcome.get_or_insert(Ok(()));
        self.progress.is_read();
        self.news.notify_waiters();
        self.progress.news.notify_waiters();
    }

    /// The query has failed or ended: readers that are not done get this error, and what is kept is dropped.
    pub fn fail(&self, error: &RemoteError) {
        let mut state = self.lock();
        if !matches!(state.outcome, Some(Err(_))) {
            state.outcome = Some(Err(error.clone()));
        }
        let batches = std::mem::take(&mut state.batches);
        drop(state);
        drop(batches);
        self.news.notify_waiters();
        self.progress.news.notify_waiters();
    }

    /// Whether it is written and all its readers are done.
    pub fn is_drained(&self) -> bool {
        let state = self.lock();
        state.outcome.is_some() && state.readers.iter().all(|reader| *reader == Position::Done)
    }

    pub fn counts(&self) -> Counts {
        self.lock().counts
    }

    /// The reader of that number, which there is once.
    ///
    /// # Errors
    /// There is no such reader, or it has been opened before.
    pub fn open(self: &Arc<Self>, reader: usize) -> Result<LogReader, RemoteError> {
        let refuse = |message: String| RemoteError::new(ExceptionType::InvalidInput, message);
        let mut state = self.lock();
        let readers = state.readers.len();
        let position = state.readers.get_mut(reader).ok_or_else(|| {
            refuse(format!(
                "an exchange with {readers} readers has none of number {reader}"
            ))
        })?;
        if *position != Position::Unopened {
            return Err(refuse(format!(
                "reader {reader} of an exchange reads it for the second time"
            )));
        }
        *position = Position::At(0);
        Ok(LogReader {
            log: Arc::clone(self),
            reader,
        })
    }

    /// Moves a reader on, and drops what all have passed.
    fn step(&self, reader: usize) -> Step {
        self.progress.is_read();
        let mut state = self.lock();
        let state = &mut *state;
        if let Some(Err(error)) = &state.outcome {
            return Step::Failed(error.clone());
        }
        let Some(Position::At(number)) = state.readers.get(reader).copied() else {
            return Step::End;
        };
        // A reader is never behind what is kept.
        let index = usize::try_from(number - state.first).unwrap_or(usize::MAX);
        let Some(stored) = state.batches.get(index) else {
            return if state.outcome.is_some() { Step::End } else { Step::Wait };
        };
        let stored = stored.clone();
        state.readers[reader] = Position::At(number + 1);
        state.trim();
        Step::Batch(stored)
    }

    fn close(&self, reader: usize) {
        let mut state = self.lock();
        if let Some(position) = state.readers.get_mut(reader) {
            *position = Position::Done;
        }
        state.trim();
        drop(state);
        self.progress.news.notify_waiters();
    }
}

impl State {
    fn trim(&mut self) {
        let behind = |reader: &Position| match reader {
            Position::Unopened => Some(0),
            Position::At(number) => Some(*number),
            Position::Done => None,
        };
        let wanted = self.readers.iter().filter_map(behind).min();
        let wanted = wanted.unwrap_or(u64::MAX);
        while self.first < wanted && self.batches.pop_front().is_some() {
            self.first += 1;
        }
    }
}

enum Step {
    Batch(Stored),
    Wait,
    End,
    Failed(RemoteError),
}

/// Reads a log. Dropped, it wants no more.
pub struct LogReader {
    log: Arc<Log>,
    reader: usize,
}

impl LogReader {
    /// The columns, as soon as they are known.
    ///
    /// # Errors
    /// The query has failed or ended.
    pub async fn schema(&self) -> Result<SchemaRef, RemoteError> {
        loop {
            let mut news = std::pin::pin!(self.log.news.notified());
            news.as_mut().enable();
            {
                let state = self.log.lock();
                match (&state.schema, &state.outcome) {
                    (_, Some(Err(error))) => return Err(error.clone()),
                    (Some(schema), _) => return Ok(Arc::clone(schema)),
                    (None, Some(Ok(()))) => return Ok(Arc::new(Schema::empty())),
                    (None, None) => {}
                }
            }
            news.await;
        }
    }

    /// The next batch; `None` at the end.
    ///
    /// # Errors
    /// The query has failed or ended.
    pub async fn next(&mut self) -> Result<Option<Stored>, RemoteError> {
        loop {
            let mut news = std::pin::pin!(self.log.news.notified());
            news.as_mut().enable();
            match self.log.step(self.reader) {
                Step::Batch(stored) => return Ok(Some(stored)),
                Step::End => return Ok(None),
                Step::Failed(error) => return Err(error),
                Step::Wait => news.await,
            }
        }
    }
}

impl Drop for LogReader {
    fn drop(&mut self) {
        self.log.close(self.reader);
    }
}
