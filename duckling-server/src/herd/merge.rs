//! Several streams of record batches as one source for DuckDB's threads.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::datatypes::{Schema, SchemaRef};
use duckherder_proto::{ExceptionType, RemoteError};
use tokio::sync::Notify;
use tokio::task::AbortHandle;

use super::source::{BatchSource, Next};

struct State {
    schema: Option<SchemaRef>,
    batches: VecDeque<RecordBatch>,
    bytes: usize,
    outcome: Option<Result<(), RemoteError>>,
    closed: bool,
}

/// The queue between tasks that receive batches and threads that take them; bounded by bytes.
pub struct Merge {
    bytes_max: usize,
    state: Mutex<State>,
    /// For threads: there is a batch, the schema or the end.
    news: Condvar,
    /// For tasks: there is room, or nobody takes any more.
    room: Notify,
}

impl Merge {
    /// One that holds `bytes_max` bytes; one batch may always pass, however large.
    pub fn new(bytes_max: usize) -> Arc<Self> {
        Arc::new(Self {
            bytes_max,
            state: Mutex::new(State {
                schema: None,
                batches: VecDeque::new(),
                bytes: 0,
                outcome: None,
                closed: false,
            }),
            news: Condvar::new(),
            room: Notify::new(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The columns are these.
    ///
    /// # Errors
    /// Another stream has said something else.
    pub fn begin(&self, schema: &SchemaRef) -> Result<(), RemoteError> {
        let mut state = self.lock();
        match &state.schema {
            Some(known) => check(known, schema),
            None => {
                state.schema = Some(Arc::clone(schema));
                drop(state);
                self.news.notify_all();
                Ok(())
            }
        }
    }

    /// Queues a batch, waiting for room.
    ///
    /// # Errors
    /// Its columns are others; `INTERRUPT` if nobody takes any more.
    pub async fn push(&self, batch: RecordBatch) -> Result<(), RemoteError> {
        let mut batch = Some(batch);
        loop {
            let mut room = std::pin::pin!(self.room.notified());
            room.as_mut().enable();
            if self.try_push(&mut batch)? {
                return Ok(());
            }
            room.await;
        }
    }

    fn try_push(&self, batch: &mut Option<RecordBatch>) -> Result<bool, RemoteError> {
        let mut state = self.lock();
        if state.closed || state.outcome.is_some() {
            return Err(RemoteError::new(
                ExceptionType::Interrupt,
                "the rows are not wanted any more",
            ));
        }
        if state.bytes >= self.bytes_max && !state.batches.is_empty() {
            return Ok(false);
        }
        if let Some(taken) = batch.take() {
            let taken = match &state.schema {
                Some(schema) => conform(taken, schema)?,
                None => taken,
            };
            state.bytes += taken.get_array_memory_size();
            state.batches.push_back(taken);
            drop(state);
            self.news.notify_one();
        }
        Ok(true)
    }

    /// Ends the stream: after all that is queued, or at once with an error. The first end counts.
    pub fn finish(&self, outcome: Result<(), RemoteError>) {
        let mut state = self.lock();
        if state.outcome.is_some() {
            return;
        }
        if outcome.is_err() {
            state.batches.clear();
            state.bytes = 0;
        }
        state.outcome = Some(outcome);
        drop(state);
        self.news.notify_all();
        self.room.notify_waiters();
    }

    /// Waits for the columns, up to a deadline; `None` if it passes.
    ///
    /// # Errors
    /// What the stream has failed with.
    pub fn schema(&self, timeout: Duration) -> Result<Option<SchemaRef>, RemoteError> {
        let deadline = Instant::now() + timeout;
        let mut state = self.lock();
        loop {
            if let Some(Err(error)) = &state.outcome {
                return Err(error.clone());
            }
            if let Some(schema) = &state.schema {
                return Ok(Some(Arc::clone(schema)));
            }
            if state.outcome.is_some() {
                return Ok(Some(Arc::new(Schema::empty())));
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            state = self
                .news
                .wait_timeout(state, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    fn next(&self, timeout: Duration) -> Result<Next, RemoteError> {
        let deadline = Instant::now() + timeout;
        let mut state = self.lock();
        loop {
            if let Some(batch) = state.batches.pop_front() {
                state.bytes = state.bytes.saturating_sub(batch.get_array_memory_size());
                drop(state);
                self.room.notify_waiters();
                return Ok(Next::Batch(batch));
            }
            match &state.outcome {
                Some(Ok(())) => return Ok(Next::End),
                Some(Err(error)) => return Err(error.clone()),
                None => {}
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(Next::Pending);
            }
            state = self
                .news
                .wait_timeout(state, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    /// Whether nobody takes any more.
    pub fn is_closed(&self) -> bool {
        self.lock().closed
    }

    fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        state.batches.clear();
        state.bytes = 0;
        drop(state);
        self.room.notify_waiters();
        self.news.notify_all();
    }
}

/// Whether batches of one schema can stand for those of another.
fn check(wanted: &Schema, found: &Schema) -> Result<(), RemoteError> {
    let types = |schema: &Schema| -> Vec<_> {
        let fields = schema.fields().iter();
        fields.map(|field| field.data_type().clone()).collect()
    };
    if types(wanted) == types(found) {
        return Ok(());
    }
    Err(RemoteError::new(
        ExceptionType::InvalidInput,
        format!("a worker's rows have other columns than planned: {found} instead of {wanted}"),
    ))
}

fn conform(batch: RecordBatch, schema: &SchemaRef) -> Result<RecordBatch, RemoteError> {
    if Arc::ptr_eq(batch.schema_ref(), schema) {
        return Ok(batch);
    }
    check(schema, batch.schema_ref())?;
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(Arc::clone(schema), batch.columns().to_vec(), &options)
        .map_err(|error| RemoteError::new(ExceptionType::InvalidInput, format!("a worker's rows: {error}")))
}

/// The source that takes from a [`Merge`]. Dropped, it ends the tasks that feed it.
pub struct Merged {
    merge: Arc<Merge>,
    schema: SchemaRef,
    tasks: Vec<AbortHandle>,
}

impl Merged {
    pub fn new(merge: Arc<Merge>, schema: SchemaRef, tasks: Vec<AbortHandle>) -> Self {
        Self { merge, schema, tasks }
    }

    /// The columns have become known.
    pub fn set_schema(&mut self, schema: SchemaRef) {
        self.schema = schema;
    }
}

impl BatchSource for Merged {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn next(&self, timeout: Duration) -> Result<Next, RemoteError> {
        self.merge.next(timeout)
    }
}

impl Drop for Merged {
    fn drop(&mut self) {
        self.merge.close();
        for task in &self.tasks {
            task.abort();
        }
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{ArrayRef, Int32Array, Int64Array};

    use super::*;

    const MOMENT: Duration = Duration::from_millis(5);

    fn batch(value: i64) -> RecordBatch {
        RecordBatch::try_from_iter([("n", Arc::new(Int64Array::from(vec![value])) as ArrayRef)]).unwrap()
    }

    fn merged(bytes_max: usize) -> (Arc<Merge>, Merged) {
        let merge = Merge::new(bytes_max);
        let schema = batch(0).schema();
        merge.begin(&schema).unwrap();
        let merged = Merged::new(Arc::clone(&merge), schema, Vec::new());
        (merge, merged)
    }

    #[tokio::test]
    async fn batches_then_the_end() {
        let (merge, merged) = merged(1 << 20);
        assert_eq!(merged.next(MOMENT), Ok(Next::Pending));
        merge.push(batch(1)).await.unwrap();
        merge.push(batch(2)).await.unwrap();
        merge.finish(Ok(()));
        assert_eq!(merged.next(MOMENT), Ok(Next::Batch(batch(1))));
        assert_eq!(merged.next(MOMENT), Ok(Next::Batch(batch(2))));
        assert_eq!(merged.next(MOMENT), Ok(Next::End));
    }

    #[tokio::test]
    async fn an_error_comes_at_once_and_the_first_one_stays() {
        let (merge, merged) = merged(1 << 20);
        merge.push(batch(1)).await.unwrap();
        let error = RemoteError::new(ExceptionType::DivideByZero, "first");
        merge.finish(Err(error.clone()));
        merge.finish(Err(RemoteError::new(ExceptionType::Io, "second")));
        assert_eq!(merged.next(MOMENT), Err(error.clone()));
        assert_eq!(merged.next(MOMENT), Err(error));
        assert!(merge.push(batch(2)).await.is_err());
    }

    #[tokio::test]
    async fn a_full_queue_waits_for_its_readers() {
        let (merge, merged) = merged(1);
        merge.push(batch(1)).await.unwrap();
        let second = tokio::spawn({
            let merge = Arc::clone(&merge);
            async move { merge.push(batch(2)).await }
        });
        assert_eq!(merged.next(MOMENT), Ok(Next::Batch(batch(1))));
        second.await.unwrap().unwrap();
        assert_eq!(merged.next(MOMENT), Ok(Next::Batch(batch(2))));
        merge.push(batch(3)).await.unwrap();
        let fourth = tokio::spawn({
            let merge = Arc::clone(&merge);
            async move { merge.push(batch(4)).await }
        });
        drop(merged);
        assert_eq!(fourth.await.unwrap().unwrap_err().kind, ExceptionType::Interrupt);
    }

    #[tokio::test]
    async fn other_columns_are_refused() {
        let (merge, _merged) = merged(1 << 20);
        let other = RecordBatch::try_from_iter([("n", Arc::new(Int32Array::from(vec![1])) as ArrayRef)]).unwrap();
        assert!(merge.begin(&other.schema()).is_err());
        assert!(merge.push(other).await.is_err());
    }
}
