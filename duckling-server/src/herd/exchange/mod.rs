//! The exchange store: the rows of stages that this duckling has run, until those they are for have read them.
//!
//! A producer never waits for a consumer: what does not fit into memory goes to disk. So stages can run one after the other,
//! on all workers, and never wait for each other in a circle.

mod budget;
mod log;
mod serve;
mod spill;
pub(super) mod split;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, VecDeque};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use duckherder_catalog::herd::query::StageId;
use duckherder_proto::v1::{HerdEdgeSummary, HerdStage, OutputKind};
use duckherder_proto::{ExceptionType, RemoteError};
use tokio::sync::Notify;

use self::budget::Budget;
pub use self::budget::Taken;
pub use self::log::LogReader;
use self::log::{Log, Progress};
use self::spill::Spill;
use self::split::{Coalescer, Splitter};
use crate::config::Limits;
use crate::encode::BatchEncoder;
use crate::session::SessionId;

/// Names a query, and is the permission to read its exchanges.
pub type QueryId = [u8; 16];

/// Ended queries that are remembered, so that what comes too late for them is refused at once.
const ENDED_QUERIES_MAX: usize = 1024;

/// The query id in a request.
///
/// # Errors
/// It is none.
pub fn query_id(bytes: &[u8]) -> Result<QueryId, RemoteError> {
    QueryId::try_from(bytes).map_err(|_| RemoteError::new(ExceptionType::InvalidInput, "a query id must have 16 bytes"))
}

/// The store.
pub struct Exchanges {
    budget: Arc<Budget>,
    directory: PathBuf,
    wait_timeout: Duration,
    queries: Mutex<Queries>,
    /// A query has come or gone.
    news: Notify,
}

#[derive(Default)]
struct Queries {
    open: HashMap<QueryId, Arc<Outputs>>,
    /// With what whoever comes too late is told.
    ended: HashMap<QueryId, RemoteError>,
    ended_in_order: VecDeque<QueryId>,
}

impl Queries {
    fn end(&mut self, id: QueryId) -> Option<Arc<Outputs>> {
        let outputs = self.open.remove(&id);
        let why = outputs
            .as_ref()
            .and_then(|outputs| outputs.failure())
            .unwrap_or_else(ended);
        if self.ended.insert(id, why).is_none() {
            self.ended_in_order.push_back(id);
        }
        if self.ended_in_order.len() > ENDED_QUERIES_MAX
            && let Some(oldest) = self.ended_in_order.pop_front()
        {
            self.ended.remove(&oldest);
        }
        outputs
    }
}

/// What a store holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Holdings {
    /// Queries that have not ended.
    pub queries: usize,
    /// Memory and disk.
    pub taken: Taken,
}

impl Exchanges {
    /// An empty one, which spills to files in `directory`.
    #[must_use]
    pub fn new(limits: &Limits, directory: PathBuf) -> Arc<Self> {
        Arc::new(Self {
            budget: Budget::new(limits.exchange_memory_bytes, limits.exchange_disk_bytes),
            directory,
            wait_timeout: limits.exchange_wait_timeout,
            queries: Mutex::default(),
            news: Notify::new(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Queries> {
        self.queries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes a query's part known, with the outputs of its stages. It ends with what is returned, if not before.
    ///
    /// # Errors
    /// There is one of that id, or has been; a stage's output does not make sense.
    pub fn begin(
        self: &Arc<Self>,
        id: QueryId,
        session: SessionId,
        worker: &str,
        stages: &[HerdStage],
    ) -> Result<Part, RemoteError> {
        let outputs = Outputs::new(self, session, worker, stages)?;
        let mut queries = self.lock();
        if let Some(why) = queries.ended.get(&id) {
            return Err(why.clone());
        }
        if queries.open.contains_key(&id) {
            return Err(RemoteError::new(
                ExceptionType::InvalidInput,
                "this worker has a query of that id already",
            ));
        }
        queries.open.insert(id, Arc::clone(&outputs));
        drop(queries);
        self.news.notify_waiters();
        Ok(Part {
            exchanges: Arc::clone(self),
            id,
            outputs,
        })
    }

    /// A reader of an exchange. Waits a while for the query to become known.
    ///
    /// # Errors
    /// It does not, or has ended; there is no such exchange or reader.
    pub async fn open(
        &self,
        id: QueryId,
        stage: StageId,
        destination: &str,
        reader: u32,
    ) -> Result<LogReader, RemoteError> {
        let outputs = tokio::time::timeout(self.wait_timeout, self.known(id)).await;
        let outputs = outputs.map_err(|_| {
            RemoteError::new(
                ExceptionType::Connection,
                format!(
                    "nothing is known of this query, after {} s",
                    self.wait_timeout.as_secs_f32()
                ),
            )
        })??;
        outputs.open(stage, destination, reader)
    }

    async fn known(&self, id: QueryId) -> Result<Arc<Outputs>, RemoteError> {
        loop {
            let mut news = std::pin::pin!(self.news.notified());
            news.as_mut().enable();
            {
                let queries = self.lock();
                if let Some(outputs) = queries.open.get(&id) {
                    return Ok(Arc::clone(outputs));
                }
                if let Some(why) = queries.ended.get(&id) {
                    return Err(why.clone());
                }
            }
            news.await;
        }
    }

    /// Ends a query; whether there was one. One that is not known yet will be refused.
    pub fn release(&self, id: QueryId) -> bool {
        let outputs = self.lock().end(id);
        self.news.notify_waiters();
        let Some(outputs) = outputs else { return false };
        outputs.fail(&ended());
        outputs.stop();
        true
    }

    /// Ends what a session has begun.
    pub fn release_session(&self, session: &SessionId) {
        let queries = self.lock();
        let of_session = queries.open.iter().filter(|(_, outputs)| outputs.session == *session);
        let ids: Vec<_> = of_session.map(|(id, _)| *id).collect();
        drop(queries);
        for id in ids {
            self.release(id);
        }
    }

    /// Ends all queries.
    pub fn release_all(&self) {
        let ids: Vec<_> = self.lock().open.keys().copied().collect();
        for id in ids {
            self.release(id);
        }
    }

    /// What there is now.
    #[must_use]
    pub fn holdings(&self) -> Holdings {
        Holdings {
            queries: self.lock().open.len(),
            taken: self.budget.taken(),
        }
    }
}

fn ended() -> RemoteError {
    RemoteError::new(
        ExceptionType::Interrupt,
        "the distributed query has ended on this worker",
    )
}

/// This worker's part of a query. Dropped, it ends, and all that is kept of it goes.
pub struct Part {
    exchanges: Arc<Exchanges>,
    id: QueryId,
    pub outputs: Arc<Outputs>,
}

impl Drop for Part {
    fn drop(&mut self) {
        let mut queries = self.exchanges.lock();
        let is_ours = queries
            .open
            .get(&self.id)
            .is_some_and(|open| Arc::ptr_eq(open, &self.outputs));
        if is_ours {
            queries.end(self.id);
        }
        drop(queries);
        self.exchanges.news.notify_waiters();
        self.outputs.fail(&ended());
        self.outputs.stop();
    }
}

/// The outputs of one query's stages on this worker.
pub struct Outputs {
    session: SessionId,
    stages: HashMap<StageId, Arc<Output>>,
    spill: Arc<Spill>,
    /// Stops what runs.
    stop: Mutex<Option<Box<dyn FnOnce() + Send>>>,
    progress: Arc<Progress>,
    outcome: Mutex<Option<RemoteError>>,
}

impl Outputs {
    fn new(
        exchanges: &Exchanges,
        session: SessionId,
        worker: &str,
        stages: &[HerdStage],
    ) -> Result<Arc<Self>, RemoteError> {
        let spill = Arc::new(Spill::new(exchanges.directory.clone(), Arc::clone(&exchanges.budget)));
        let progress = Progress::new();
        let mut outputs = HashMap::new();
        for stage in stages {
            let log = |readers: usize| {
                let (budget, spill) = (Arc::clone(&exchanges.budget), Arc::clone(&spill));
                Arc::new(Log::new(readers, budget, spill, Arc::clone(&progress)))
            };
            let output = Output::new(stage, worker, log)?;
            if outputs.insert(stage.stage, Arc::new(output)).is_some() {
                return Err(RemoteError::new(
                    ExceptionType::InvalidInput,
                    format!("stage {} is there twice", stage.stage),
                ));
            }
        }
        Ok(Arc::new(Self {
            session,
            stages: outputs,
            spill,
            stop: Mutex::default(),
            progress,
            outcome: Mutex::default(),
        }))
    }

    /// What is to be done to stop what runs, when the query ends.
    pub fn stop_with(&self, stop: impl FnOnce() + Send + 'static) {
        *self.stop.lock().unwrap_or_else(PoisonError::into_inner) = Some(Box::new(stop));
        if self.failure().is_some() {
            self.stop();
        }
    }

    /// Nothing runs any more.
    pub fn runs_no_more(&self) {
        drop(self.stop.lock().unwrap_or_else(PoisonError::into_inner).take());
    }

    fn stop(&self) {
        let stop = self.stop.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(stop) = stop {
            stop();
        }
    }

    /// Why it has failed or ended, if it has.
    pub fn failure(&self) -> Option<RemoteError> {
        self.outcome.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Nothing more comes, and nothing is kept: readers that are not done get this error.
    pub fn fail(&self, error: &RemoteError) {
        self.outcome
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get_or_insert_with(|| error.clone());
        for log in self.logs() {
            log.fail(error);
        }
        self.spill.clear();
        self.progress.news.notify_waiters();
    }

    fn logs(&self) -> impl Iterator<Item = &Arc<Log>> {
        self.stages.values().flat_map(|output| &output.logs)
    }

    /// A reader of an exchange.
    ///
    /// # Errors
    /// There is none such.
    pub fn open(&self, stage: StageId, destination: &str, reader: u32) -> Result<LogReader, RemoteError> {
        let output = self.stages.get(&stage).ok_or_else(|| {
            RemoteError::new(
                ExceptionType::InvalidInput,
                format!("this worker does not run stage {stage} of the query"),
            )
        })?;
        let place = output.places.get(destination).ok_or_else(|| {
            RemoteError::new(
                ExceptionType::InvalidInput,
                format!("stage {stage} has no rows for worker {destination}"),
            )
        })?;
        if reader >= place.readers {
            return Err(RemoteError::new(
                ExceptionType::InvalidInput,
                format!(
                    "worker {destination} reads exchange {stage} {} times, so there is no reader {reader}",
                    place.readers
                ),
            ));
        }
        output.logs[place.log].open(place.first_reader + reader as usize)
    }

    /// Takes the rows of a stage, all of which have `schema`. For a hash exchange the bucket is the last column.
    ///
    /// # Errors
    /// The schema has no bucket; there is no such stage.
    pub fn write(&self, stage: StageId, schema: &SchemaRef, message_bytes: usize) -> Result<Writer, RemoteError> {
        let output = self.stages.get(&stage).ok_or_else(|| {
            RemoteError::new(
                ExceptionType::InvalidInput,
                format!("there is no stage {stage} to write"),
            )
        })?;
        Writer::new(Arc::clone(output), schema, message_bytes)
    }

    /// Resolves when all that was written has been read by all that were to read it.
    ///
    /// # Errors
    /// The query has failed; nobody has read anything for `idle_timeout`.
    pub async fn drained(&self, idle_timeout: Duration) -> Result<(), RemoteError> {
        loop {
            let mut progress = std::pin::pin!(self.progress.news.notified());
            progress.as_mut().enable();
            if let Some(error) = self.failure() {
                return Err(error);
            }
            if self.logs().all(|log| log.is_drained()) {
                return Ok(());
            }
            let left = idle_timeout.saturating_sub(self.progress.idle_for());
            if left.is_zero() {
                let error = RemoteError::new(
                    ExceptionType::Io,
                    format!(
                        "nobody has read this query's rows for {} s; they are dropped",
                        idle_timeout.as_secs()
                    ),
                );
                self.fail(&error);
                return Err(error);
            }
            let _ = tokio::time::timeout(left, progress).await;
        }
    }
}

/// Where in the logs a destination's rows are.
struct Place {
    log: usize,
    first_reader: usize,
    readers: u32,
}

/// What becomes of one stage's rows.
struct Output {
    kind: OutputKind,
    buckets: Vec<u32>,
    logs: Vec<Arc<Log>>,
    places: HashMap<String, Place>,
    /// In the order of the request.
    destinations: Vec<String>,
}

impl Output {
    fn new(stage: &HerdStage, worker: &str, log: impl Fn(usize) -> Arc<Log>) -> Result<Self, RemoteError> {
        let kind = stage.output();
        let refuse = |problem: &str| {
            Err(RemoteError::new(
                ExceptionType::InvalidInput,
                format!("stage {}: {problem}", stage.stage),
            ))
        };
        match kind {
            OutputKind::Unspecified => return refuse("it is not said what becomes of its rows"),
            OutputKind::Gather if !stage.destinations.is_empty() => {
                return refuse("rows that are gathered have no destinations");
            }
            OutputKind::Forward if !matches!(stage.destinations.as_slice(), [one] if one.worker_id == worker) => {
                return refuse("rows that stay have their worker as the one destination");
            }
            OutputKind::Hash if stage.buckets.is_empty() => return refuse("there are no buckets"),
            _ => {}
        }
        let destinations: Vec<_> = stage
            .destinations
            .iter()
            .map(|destination| destination.worker_id.clone())
            .collect();
        // Checked here, so that nothing has run when it is wrong.
        Splitter::new(stage.buckets.clone(), destinations.len())?;
        let mut places = HashMap::new();
        let mut logs = Vec::new();
        let mut readers = 0;
        for (index, destination) in stage.destinations.iter().enumerate() {
            let place = if kind == OutputKind::Broadcast {
                Place {
                    log: 0,
                    first_reader: readers,
                    readers: destination.readers,
                }
            } else {
                logs.push(log(destination.readers as usize));
                Place {
                    log: index,
                    first_reader: 0,
                    readers: destination.readers,
                }
            };
            readers += destination.readers as usize;
            if places.insert(destination.worker_id.clone(), place).is_some() {
                return refuse("a destination is there twice");
            }
        }
        if kind == OutputKind::Broadcast {
            logs.push(log(readers));
        }
        Ok(Self {
            kind,
            buckets: stage.buckets.clone(),
            logs,
            places,
            destinations,
        })
    }
}

/// Writes a stage's rows.
pub struct Writer {
    output: Arc<Output>,
    splitter: Option<Splitter>,
    /// Without the bucket.
    schema: SchemaRef,
    coalescers: Vec<Coalescer>,
    encoder: BatchEncoder,
}

impl Writer {
    fn new(output: Arc<Output>, schema: &SchemaRef, message_bytes: usize) -> Result<Self, RemoteError> {
        let (splitter, schema) = if output.kind == OutputKind::Hash {
            let splitter = Splitter::new(output.buckets.clone(), output.logs.len())?;
            let schema = Arc::new(splitter.schema(schema)?);
            (Some(splitter), schema)
        } else {
            (None, Arc::clone(schema))
        };
        let encoder = BatchEncoder::new(message_bytes);
        for log in &output.logs {
            log.begin(&schema);
        }
        let siblings = output.logs.len();
        Ok(Self {
            splitter,
            coalescers: (0..siblings)
                .map(|_| Coalescer::new(Arc::clone(&schema), siblings))
                .collect(),
            schema,
            encoder,
            output,
        })
    }

    /// The columns, without the bucket.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// Takes rows in. Blocks.
    ///
    /// # Errors
    /// The query has failed or ended; a row has no bucket; the disk's.
    pub fn batch(&mut self, batch: RecordBatch) -> Result<(), RemoteError> {
        let (logs, coalescers, encoder) = (&self.output.logs, &mut self.coalescers, &mut self.encoder);
        let mut keep = |destination: usize, batch: RecordBatch| {
            let (Some(log), Some(coalescer)) = (logs.get(destination), coalescers.get_mut(destination)) else {
                return Ok(());
            };
            match coalescer.push(batch)? {
                Some(batch) => log.append(encoder, batch),
                None => Ok(()),
            }
        };
        match &self.splitter {
            Some(splitter) => splitter.split(&batch, &self.schema, &mut keep),
            None => keep(0, batch),
        }
    }

    /// There are no more rows; what has been written, and for whom.
    ///
    /// # Errors
    /// As [`Writer::batch`].
    pub fn finish(mut self) -> Result<Written, RemoteError> {
        for (log, coalescer) in self.output.logs.iter().zip(&mut self.coalescers) {
            if let Some(batch) = coalescer.flush()? {
                log.append(&mut self.encoder, batch)?;
            }
        }
        let mut written = Written::default();
        for log in &self.output.logs {
            let counts = log.counts();
            written.rows += counts.rows;
            written.bytes += counts.bytes;
            written.spilled_bytes += counts.spilled_bytes;
        }
        for destination in &self.output.destinations {
            let log = self
                .output
                .places
                .get(destination)
                .map(|place| &self.output.logs[place.log]);
            let counts = log.map(|log| log.counts()).unwrap_or_default();
            written.edges.push(HerdEdgeSummary {
                worker_id: destination.clone(),
                rows: counts.rows,
                bytes: counts.bytes,
            });
        }
        for log in &self.output.logs {
            log.finish();
        }
        Ok(written)
    }
}

/// What a stage has written.
#[derive(Debug, Default)]
pub struct Written {
    pub rows: u64,
    pub bytes: u64,
    pub spilled_bytes: u64,
    pub edges: Vec<HerdEdgeSummary>,
}
