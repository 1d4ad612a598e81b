//! As a coordinator: a distributed query on its way through the workers.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use arrow::array::RecordBatch;
use arrow::datatypes::{Schema, SchemaRef};
use duckherder_catalog::herd::placement::WorkerId;
use duckherder_catalog::herd::query::{HerdQuery, StageId, Summary};
use duckherder_client::{BatchMessage, SchemaMessage, StagesStream};
use duckherder_proto::v1::{
    HerdStage, HerdStageSummary, OutputKind, RunStagesRequest, RunStagesSummary, StatementRoute,
};
use duckherder_proto::{ExceptionType, RemoteError};
use futures::{FutureExt, TryStreamExt};
use serde::Serialize;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::merge::{Merge, Merged};
use super::parts::{Part, gathered, parts};
use super::peers::{is_secondary, named};
use super::routes::Route;
use super::session::{Access, HerdSession, Starting, lock};
use super::statistics::StageStatistics;
use super::{BatchSource, Herd, Next};
use crate::duckdb::interrupted;

/// How much of a result is read before somebody asks for it.
const AHEAD_BYTES: usize = 64 * 1024;

/// How long a worker's error that is about another worker waits for that one's own.
const CAUSE_GRACE: Duration = Duration::from_millis(300);

/// How often who waits for the columns looks whether the statement is cancelled.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);

/// How one worker has run one stage.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TaskStatistics {
    /// The stage.
    pub stage: StageId,
    /// The worker.
    pub worker: WorkerId,
    /// Rows that it has made.
    pub rows: u64,
    /// Bytes of them: in memory, or on the network for the stage that gathers.
    pub bytes: u64,
    /// How long it took.
    pub elapsed_us: u64,
    /// CPU time of all threads that ran it, where it is known.
    pub cpu_us: Option<u64>,
    /// Bytes written to disk.
    pub spilled_bytes: u64,
    /// Rows and bytes for each destination.
    pub edges: Vec<EdgeStatistics>,
}

impl TaskStatistics {
    /// What has gone to other nodes.
    pub fn moved(&self) -> impl Iterator<Item = &EdgeStatistics> {
        self.edges.iter().filter(|edge| edge.to.as_ref() != Some(&self.worker))
    }
}

/// What a task had for one destination.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct EdgeStatistics {
    /// The worker; `None` is the coordinator.
    pub to: Option<WorkerId>,
    /// Rows.
    pub rows: u64,
    /// Bytes.
    pub bytes: u64,
}

/// How one distributed query went.
#[derive(Debug, Clone)]
pub struct GatherStatistics {
    /// When it was started.
    pub started: SystemTime,
    /// How long it took, once it has ended.
    pub duration: Option<Duration>,
    /// The workers that took part.
    pub workers: Vec<WorkerId>,
    /// Stages, each counted once for every worker that ran it.
    pub tasks: usize,
    /// Of the workers that have ended.
    pub done: Vec<TaskStatistics>,
    /// Why it failed, if it did.
    pub error: Option<String>,
    /// What the planner says of it.
    pub summary: Option<Summary>,
}

impl GatherStatistics {
    /// For `EXPLAIN ANALYZE`, which has a heading once only: "Stage 1" says what the stage is.
    fn report(&self) -> Vec<(String, String)> {
        let stages = StageStatistics::of(&self.done);
        stages
            .iter()
            .map(|stage| (format!("Stage {} Ran", stage.stage), told(stage)))
            .collect()
    }
}

fn told(stage: &StageStatistics) -> String {
    use std::fmt::Write;
    let mut text = format!("{} rows, {} bytes", stage.rows, stage.bytes);
    // Writing into a string cannot fail.
    if stage.spilled_bytes > 0 {
        let _ = write!(text, ", {} bytes on disk", stage.spilled_bytes);
    }
    let moved = stage.tasks.iter().flat_map(TaskStatistics::moved);
    let (rows, bytes) = moved.fold((0, 0), |sum, edge| (sum.0 + edge.rows, sum.1 + edge.bytes));
    let _ = write!(
        text,
        "; to other nodes {rows} rows, {bytes} bytes; skew {:.2}",
        stage.skew()
    );
    for task in &stage.tasks {
        let time = Duration::from_micros(task.elapsed_us);
        let _ = write!(text, "\n{}: {} rows in {time:.1?}", task.worker.0, task.rows);
        if let Some(cpu_us) = task.cpu_us {
            let _ = write!(text, ", CPU {:.1?}", Duration::from_micros(cpu_us));
        }
    }
    text
}

/// Keeps a query's statistics while it runs. Dropped before its end, it was cancelled.
struct Keeper {
    statistics: Arc<Mutex<GatherStatistics>>,
    began: Instant,
}

impl Keeper {
    fn new(parts: &[Part], summary: Option<Summary>) -> Self {
        let workers = parts.iter().map(|part| part.worker.clone()).collect();
        Self::of(workers, parts.iter().map(|part| part.stages.len()).sum(), summary)
    }

    fn of(workers: Vec<WorkerId>, tasks: usize, summary: Option<Summary>) -> Self {
        let statistics = GatherStatistics {
            started: SystemTime::now(),
            duration: None,
            workers,
            tasks,
            done: Vec::new(),
            error: None,
            summary,
        };
        Self {
            statistics: Arc::new(Mutex::new(statistics)),
            began: Instant::now(),
        }
    }

    fn part_ends(&self, worker: &WorkerId, summary: RunStagesSummary) {
        let tasks = summary.stages.into_iter().map(|stage| task(worker, stage));
        lock(&self.statistics).done.extend(tasks);
    }

    fn ends(&self, outcome: &Result<(), RemoteError>) {
        let mut statistics = lock(&self.statistics);
        statistics.duration = Some(self.began.elapsed());
        statistics.error = outcome.as_ref().err().map(RemoteError::to_string);
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        if lock(&self.statistics).duration.is_none() {
            self.ends(&Err(interrupted()));
        }
    }
}

fn task(worker: &WorkerId, stage: HerdStageSummary) -> TaskStatistics {
    let mut edges: Vec<_> = stage
        .edges
        .into_iter()
        .map(|edge| EdgeStatistics {
            to: Some(WorkerId(edge.worker_id)),
            rows: edge.rows,
            bytes: edge.bytes,
        })
        .collect();
    if edges.is_empty() {
        edges.push(EdgeStatistics {
            to: None,
            rows: stage.rows,
            bytes: stage.bytes,
        });
    }
    TaskStatistics {
        stage: stage.stage,
        worker: worker.clone(),
        rows: stage.rows,
        bytes: stage.bytes,
        elapsed_us: stage.elapsed_us,
        cpu_us: stage.cpu_us,
        spilled_bytes: stage.spilled_bytes,
        edges,
    }
}

/// Starts a query and waits for the columns of its rows.
pub(super) fn start(
    session: &Arc<HerdSession>,
    query: &HerdQuery,
    access: Access,
) -> Result<Arc<dyn BatchSource>, RemoteError> {
    let herd = session.herd();
    let parts = parts(query)?;
    let requests = parts
        .into_iter()
        .map(|part| Ok((request(herd, query, &part)?, part)))
        .collect::<Result<Vec<_>, RemoteError>>()?;
    let id = *uuid::Uuid::new_v4().as_bytes();
    let parts: Vec<_> = requests.iter().map(|(_, part)| part.clone()).collect();
    let keeper = Keeper::new(&parts, query.summary.clone());
    let statistics = Arc::clone(&keeper.statistics);
    session.record(&statistics);
    let merge = Merge::new(herd.limits().read_ahead_bytes);
    let (begun, to_merge) = (Arc::clone(session), Arc::clone(&merge));
    let supervisor = herd.runtime()?.spawn(async move {
        // Workers have one connection for the transaction, and for a session with a state of its own. All must give it to the
        // same query first: else two would wait for each other.
        let turn = Arc::new(begun.turn().await);
        let mut tasks = JoinSet::new();
        for (mut request, part) in requests {
            request.query_id = id.to_vec().into();
            let (session, merge) = (Arc::clone(&begun), Arc::clone(&to_merge));
            tasks.spawn(run(session, part, access, request, merge, Arc::clone(&turn)));
        }
        drop(turn);
        supervise(begun.herd(), tasks, parts, keeper, &to_merge).await;
    });
    // Before the wait: an error, or a cancelled wait, drops it, and with it all that was started.
    let mut rows = Merged::new(
        Arc::clone(&merge),
        Arc::new(Schema::empty()),
        vec![supervisor.abort_handle()],
    );
    let deadline = Instant::now() + herd.limits().statement_wait_timeout + herd.limits().exchange_wait_timeout;
    loop {
        if session.is_cancelled() || session.is_given_up() {
            return Err(interrupted());
        }
        if let Some(schema) = merge.schema(LOOK_INTERVAL)? {
            rows.set_schema(schema);
            return Ok(Arc::new(Gathered { rows, statistics }));
        }
        if Instant::now() > deadline {
            return Err(RemoteError::new(
                ExceptionType::Connection,
                "the workers have not begun with the query in time",
            ));
        }
    }
}

/// The gathered rows.
struct Gathered {
    rows: Merged,
    statistics: Arc<Mutex<GatherStatistics>>,
}

impl BatchSource for Gathered {
    fn schema(&self) -> SchemaRef {
        self.rows.schema()
    }

    fn next(&self, timeout: Duration) -> Result<Next, RemoteError> {
        self.rows.next(timeout)
    }

    fn report(&self) -> Vec<(String, String)> {
        lock(&self.statistics).report()
    }
}

/// The rows of a statement that one worker runs as it is written, for this thread alone.
pub struct RoutedRows {
    session: Arc<HerdSession>,
    worker: WorkerId,
    address: String,
    stream: StagesStream,
    /// Its columns are those of the route.
    is_expected: bool,
    keeper: Keeper,
    /// What has been read before it was asked for.
    ahead: VecDeque<Result<Option<BatchMessage>, RemoteError>>,
}

impl RoutedRows {
    /// Has `worker` run a statement, and waits for its columns.
    ///
    /// # Errors
    /// The worker cannot be reached, or fails before there are rows; the statement is cancelled.
    pub async fn start(
        session: &Arc<HerdSession>,
        route: &Route,
        worker: WorkerId,
        sql: &str,
    ) -> Result<Self, RemoteError> {
        let registry = session.herd().registry();
        let address = registry.address(&worker)?;
        let stage = HerdStage {
            sql: sql.to_owned(),
            output: OutputKind::Gather.into(),
            ..HerdStage::default()
        };
        let request = RunStagesRequest {
            query_id: uuid::Uuid::new_v4().as_bytes().to_vec().into(),
            worker_id: worker.0.clone(),
            stages: vec![stage],
            coordinator_id: registry.own_id().0,
            ..RunStagesRequest::default()
        };
        let keeper = Keeper::of(vec![worker.clone()], 1, Some(route.summary.clone()));
        let known = route.schema_message();
        // In its place: it is large, and would be moved from one into the other.
        let answer = session.run_stages(&worker, Access::Read, request, known).boxed();
        let stream = session.unless_cancelled(registry.unless_gone(&worker, answer)).await?;
        let is_expected = route.is_of(&stream);
        Ok(Self {
            is_expected,
            session: Arc::clone(session),
            worker,
            address,
            stream,
            keeper,
            ahead: VecDeque::new(),
        })
    }

    /// Reads the rows if they are few. Whether these are all.
    pub async fn read_ahead(&mut self) -> bool {
        let mut bytes = 0;
        while bytes < AHEAD_BYTES {
            let next = self.receive().await;
            if let Ok(Some(message)) = &next {
                bytes += message.data.data_header.len() + message.data.data_body.len();
            }
            let is_end = !matches!(next, Ok(Some(_)));
            self.ahead.push_back(next);
            if is_end {
                return true;
            }
        }
        false
    }

    async fn receive(&mut self) -> Result<Option<BatchMessage>, RemoteError> {
        let session = Arc::clone(&self.session);
        let next = async {
            self.stream.next_message().await.map_err(|error| {
                session.herd().peers().failed(&self.address, &error);
                named(&self.worker.0, &self.address, error.to_remote_error())
            })
        };
        let next = session.herd().registry().unless_gone(&self.worker, next);
        session.unless_cancelled(next).await
    }

    /// The rows of a message of these.
    ///
    /// # Errors
    /// It is malformed.
    pub fn decode(&self, message: BatchMessage) -> Result<RecordBatch, RemoteError> {
        self.stream
            .decode(message)
            .map_err(|error| named(&self.worker.0, &self.address, error.to_remote_error()))
    }

    /// Whether the columns are those of the route.
    pub fn is_expected(&self) -> bool {
        self.is_expected
    }

    /// The columns, as they were sent.
    pub fn schema_message(&self) -> SchemaMessage {
        self.stream.schema_message()
    }

    /// How a client can send a statement like this one to the worker itself, once all rows have been read. `None` if it cannot.
    pub fn route_of_client(&self, route: &Route) -> Option<StatementRoute> {
        let definitions = self.stream.summary()?.definitions?;
        let registry = self.session.herd().registry();
        route.of_client(&self.worker, definitions, |worker| registry.address(worker).ok())
    }

    /// These are the statement's rows: it is in the statistics from here on.
    pub fn accept(&self) {
        self.session.record(&self.keeper.statistics);
    }

    /// The next rows; `None` after the last ones. Blocks, unless they have been read ahead: not for the runtime's threads.
    ///
    /// # Errors
    /// The worker's.
    pub fn next(&mut self) -> Result<Option<BatchMessage>, RemoteError> {
        let next = match self.ahead.pop_front() {
            Some(next) => next,
            None => self.session.herd().runtime()?.clone().block_on(self.receive()),
        };
        match &next {
            Ok(Some(_)) => {}
            Ok(None) => {
                if let Some(summary) = self.stream.summary() {
                    self.keeper.part_ends(&self.worker, summary.clone());
                }
                self.keeper.ends(&Ok(()));
            }
            Err(error) => self.keeper.ends(&Err(error.clone())),
        }
        next
    }
}

/// What a worker is asked for, but for the query's id.
fn request(herd: &Herd, query: &HerdQuery, part: &Part) -> Result<RunStagesRequest, RemoteError> {
    let registry = herd.registry();
    // Of the worker itself too: a query that needs one that is down fails before anything has run.
    registry.address(&part.worker)?;
    let addresses = part
        .peers
        .iter()
        .map(|peer| Ok((peer.0.clone(), registry.address(peer)?)))
        .collect::<Result<BTreeMap<_, _>, RemoteError>>()?;
    Ok(RunStagesRequest {
        worker_id: part.worker.0.clone(),
        stages: part.stages.clone(),
        exchanges: part.exchanges.clone(),
        columns: gathered(query),
        addresses,
        coordinator_id: registry.own_id().0,
        ..RunStagesRequest::default()
    })
}

/// What has come of a worker's part. The stream is kept: the worker drops its exchanges with it.
struct Ended {
    worker: WorkerId,
    outcome: Result<StagesStream, RemoteError>,
}

async fn run(
    session: Arc<HerdSession>,
    part: Part,
    access: Access,
    request: RunStagesRequest,
    merge: Arc<Merge>,
    turn: Arc<Starting>,
) -> Ended {
    let outcome = run_part(&session, &part, access, request, &merge, turn).await;
    Ended {
        worker: part.worker,
        outcome,
    }
}

async fn run_part(
    session: &HerdSession,
    part: &Part,
    access: Access,
    request: RunStagesRequest,
    merge: &Merge,
    turn: Arc<Starting>,
) -> Result<StagesStream, RemoteError> {
    let worker = &part.worker;
    let mut stream = session.run_stages(worker, access, request, None).await?;
    drop(turn);
    let address = session.herd().registry().address(worker).unwrap_or_default();
    let of_worker = |error| named(&worker.0, &address, error);
    if part.gathers {
        merge.begin(&stream.schema()).map_err(of_worker)?;
    }
    loop {
        match stream.try_next().await {
            Ok(Some(batch)) => merge.push(batch).await?,
            Ok(None) => return Ok(stream),
            Err(error) => {
                session.herd().peers().failed(&address, &error);
                return Err(of_worker(error.to_remote_error()));
            }
        }
    }
}

/// Waits for all parts. The first error ends all others; one that is only about another worker leaves that one a moment
/// for its own.
async fn supervise(herd: &Herd, mut tasks: JoinSet<Ended>, parts: Vec<Part>, keeper: Keeper, merge: &Merge) {
    let workers: Vec<_> = parts.into_iter().map(|part| part.worker).collect();
    let mut streams = Vec::new();
    let mut secondary: Option<RemoteError> = None;
    let outcome = loop {
        let joined = async {
            if secondary.is_some() {
                timeout(CAUSE_GRACE, tasks.join_next()).await.unwrap_or_default()
            } else {
                tasks.join_next().await
            }
        };
        let joined = tokio::select! {
            joined = joined => joined,
            error = herd.registry().gone(&workers) => break Err(secondary.unwrap_or(error)),
        };
        match joined {
            None => break secondary.map_or(Ok(()), Err),
            Some(Ok(Ended { worker, outcome })) => match outcome {
                Ok(stream) => {
                    if let Some(summary) = stream.summary() {
                        keeper.part_ends(&worker, summary.clone());
                    }
                    streams.push(stream);
                }
                Err(error) if is_secondary(&worker.0, &error) => {
                    secondary.get_or_insert(error);
                }
                Err(error) => break Err(error),
            },
            Some(Err(_)) => {
                break Err(RemoteError::new(
                    ExceptionType::Io,
                    "gathering a worker's rows failed in an unexpected way",
                ));
            }
        }
    };
    // What still runs stops, and what workers keep goes, with the streams: before the end is told.
    drop((tasks, streams));
    keeper.ends(&outcome);
    merge.finish(outcome);
}
