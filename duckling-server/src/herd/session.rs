//! What one connection of a session has of the herd: as a coordinator, its sessions on workers and their part of the
//! transaction; as a worker, the query whose stages it runs.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use duckherder_catalog::herd::placement::WorkerId;
use duckherder_catalog::herd::query::{Column, Estimates, HerdQuery, StageId};
use duckherder_client::{ClientError, QueryOptions, SchemaMessage, Session, StagesStream};
use duckherder_proto::error::{ERROR_SUBTYPE, SESSION_NOT_OPEN};
use duckherder_proto::history::HistoryId;
use duckherder_proto::v1::RunStagesRequest;
use duckherder_proto::{ExceptionType, RemoteError};
use futures::future::{join, join_all};
use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard, watch};

use super::gather::{self, GatherStatistics};
use super::peers::named;
use super::registry::PlaceHold;
use super::running::{ExchangeColumns, RunningQuery};
use super::statistics::QueryStatistics;
use super::{BatchSource, Herd};
use crate::duckdb::interrupted;
use crate::settings::Settings;

/// The exchange that a statement reads the rows of an upload with: no query has so many stages.
pub const UPLOAD: StageId = StageId::MAX;

/// How long a worker of which nothing is wanted yet may take to begin a transaction. It begins when it is asked, then.
const LOOK_TIMEOUT: Duration = Duration::from_secs(2);

/// How long COMMIT and ROLLBACK may take on a worker.
const CONTROL_TIMEOUT: Duration = Duration::from_secs(120);

/// See the module. One for each connection of a session, since it is the connection's transaction and its settings.
pub struct HerdSession {
    herd: Arc<Herd>,
    /// Sessions on workers, opened when first needed.
    workers: Mutex<BTreeMap<WorkerId, Arc<AsyncMutex<Slot>>>>,
    transaction: Mutex<Transaction>,
    /// What statements outside a transaction write with: they may read at the same time, and a session on a worker does
    /// one thing at a time.
    writes: OnceLock<Arc<HerdSession>>,
    /// What is set on this connection, and so on workers.
    settings: Mutex<Settings>,
    /// As a worker.
    running: Mutex<Option<Arc<RunningQuery>>>,
    /// What a client uploads into a herd's table, read as exchange [`UPLOAD`].
    upload: Mutex<Option<Upload>>,
    /// Whether the statement that runs is to stop.
    stop: watch::Sender<Stop>,
    statement: Mutex<Statement>,
    /// Workers that are to hold rows of tables which the transaction makes.
    holds: Mutex<Vec<PlaceHold>>,
    /// Held while a query of the transaction gets its connection on each worker.
    starting: Arc<AsyncMutex<()>>,
}

/// The turn of a query of the transaction to get its connections.
pub(super) type Starting = OwnedMutexGuard<()>;

/// Columns of rows that a client uploads, and the rows.
type Upload = (Vec<Column>, Arc<dyn BatchSource>);

/// A session on a worker.
#[derive(Default)]
struct Slot {
    session: Option<Session>,
    address: String,
    /// The settings that it was told.
    told: Settings,
}

/// Whether a statement is to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stop {
    No,
    /// Without an error in DuckDB, which would cost its transaction.
    GivenUp,
    Cancelled,
}

/// The workers' part of the connection's transaction.
#[derive(Default)]
struct Transaction {
    is_open: bool,
    /// All workers are to begin with the transaction's first statement.
    begins_everywhere: bool,
    joined: BTreeMap<WorkerId, Joined>,
    /// A worker's part has been lost: it cannot be committed.
    broken: Option<RemoteError>,
}

/// What a request does on a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    Read,
    Write,
}

/// A worker's part of the transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Joined {
    progress: Progress,
    /// Whether it may have something to commit.
    writes: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Progress {
    /// It was asked to begin; whether it has is not known.
    Asked,
    /// It has begun.
    Begun,
    /// The same, for the snapshot alone: it was asked for nothing yet. Nothing is lost with it.
    Looking,
}

/// The statement that runs, and what it has done with the herd.
#[derive(Default)]
struct Statement {
    id: HistoryId,
    sql: Arc<str>,
    gathers: Vec<Arc<Mutex<GatherStatistics>>>,
    /// Whether workers were asked to change something.
    writes: bool,
}

impl HerdSession {
    /// Of a new connection.
    #[must_use]
    pub fn new(herd: Arc<Herd>) -> Arc<Self> {
        Arc::new(Self {
            herd,
            workers: Mutex::default(),
            transaction: Mutex::default(),
            writes: OnceLock::new(),
            settings: Mutex::default(),
            running: Mutex::default(),
            upload: Mutex::default(),
            stop: watch::Sender::new(Stop::No),
            statement: Mutex::default(),
            holds: Mutex::default(),
            starting: Arc::default(),
        })
    }

    /// The duckling's herd.
    #[must_use]
    pub fn herd(&self) -> &Arc<Herd> {
        &self.herd
    }

    // Statements.

    /// A statement is about to begin: whatever was stopped was another one.
    pub fn not_stopped(&self) {
        self.stop.send_replace(Stop::No);
        if let Some(writes) = self.writes.get() {
            writes.stop.send_replace(Stop::No);
        }
    }

    /// A statement begins, which has this id in the history.
    pub fn statement_begins(&self, id: HistoryId, sql: &str) {
        *lock(&self.statement) = Statement {
            id,
            sql: sql.into(),
            gathers: Vec::new(),
            writes: false,
        };
    }

    /// The statement has ended. What it has done with the herd, if it has, goes into the statistics.
    pub fn statement_ends(&self, error: Option<&RemoteError>) {
        let Statement { id, sql, gathers, .. } = std::mem::take(&mut *lock(&self.statement));
        let gathers: Vec<_> = gathers.iter().map(|gather| lock(gather).clone()).collect();
        if let Some(statistics) = QueryStatistics::of(id, &sql, &gathers, error) {
            self.herd.statistics().record(statistics);
        }
    }

    pub(super) fn record(&self, gather: &Arc<Mutex<GatherStatistics>>) {
        lock(&self.statement).gathers.push(Arc::clone(gather));
    }

    /// How the distributed query went that the running statement consists of; `None` if it is not one.
    #[must_use]
    pub fn only_gather(&self) -> Option<GatherStatistics> {
        match lock(&self.statement).gathers.as_slice() {
            [one] => Some(lock(one).clone()),
            _ => None,
        }
    }

    /// Stops what the running statement waits for.
    pub fn cancel(&self) {
        self.stop.send_replace(Stop::Cancelled);
        if let Some(writes) = self.writes.get() {
            writes.cancel();
        }
    }

    pub(crate) fn is_cancelled(&self) -> bool {
        *self.stop.borrow() == Stop::Cancelled
    }

    /// Nobody reads what the running query, one of a transaction, yields. What it reads itself is over.
    pub fn give_up(&self) {
        self.stop.send_if_modified(|stop| {
            let runs = *stop == Stop::No;
            if runs {
                *stop = Stop::GivenUp;
            }
            runs
        });
    }

    pub(super) fn is_given_up(&self) -> bool {
        *self.stop.borrow() == Stop::GivenUp
    }

    /// Which settings the connection has from here on; the workers' sessions follow.
    pub fn set_settings(&self, settings: Settings) {
        *lock(&self.settings) = settings;
    }

    /// Waits for `work` on this thread, which must not be one of the runtime's, until the statement is cancelled.
    pub(super) fn wait<T>(&self, work: impl Future<Output = Result<T, RemoteError>>) -> Result<T, RemoteError> {
        self.herd.runtime()?.block_on(self.unless_cancelled(work))
    }

    /// What comes of `work`, unless the statement is cancelled before.
    pub(super) async fn unless_cancelled<T>(
        &self,
        work: impl Future<Output = Result<T, RemoteError>>,
    ) -> Result<T, RemoteError> {
        let mut stop = self.stop.subscribe();
        tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop == Stop::Cancelled) => Err(interrupted()),
            outcome = work => outcome,
        }
    }

    // As a worker.

    /// The connection runs stages of `query` until the guard is dropped.
    pub fn run_query(self: &Arc<Self>, query: Arc<RunningQuery>) -> Running {
        *lock(&self.running) = Some(query);
        Running(Arc::clone(self))
    }

    fn running_query(&self) -> Result<Arc<RunningQuery>, RemoteError> {
        lock(&self.running).clone().ok_or_else(|| {
            RemoteError::new(
                ExceptionType::InvalidInput,
                "there is no exchange to read: it is for the stages of a distributed query only",
            )
        })
    }

    /// The columns of an exchange of the query whose stages this connection runs, and what is known of its rows.
    ///
    /// # Errors
    /// There is no such exchange.
    pub fn exchange_columns(&self, stage: StageId) -> Result<ExchangeColumns, RemoteError> {
        if stage == UPLOAD {
            return Ok(ExchangeColumns {
                columns: self.upload()?.0,
                estimates: Estimates::default(),
            });
        }
        self.running_query()?.columns(stage)
    }

    /// The rows of an exchange for this worker. Each call is one of the readers that were announced.
    ///
    /// # Errors
    /// There is no such exchange. That of a peer comes from the source.
    pub fn open_exchange(&self, stage: StageId) -> Result<Arc<dyn BatchSource>, RemoteError> {
        if stage == UPLOAD {
            return Ok(self.upload()?.1);
        }
        self.running_query()?.open(&self.herd, stage)
    }

    // As a coordinator.

    /// What exchange [`UPLOAD`] yields, until there is something else.
    pub fn set_upload(&self, upload: Option<(Vec<Column>, Arc<dyn BatchSource>)>) {
        *lock(&self.upload) = upload;
    }

    fn upload(&self) -> Result<(Vec<Column>, Arc<dyn BatchSource>), RemoteError> {
        let upload = lock(&self.upload).clone();
        upload.ok_or_else(|| RemoteError::new(ExceptionType::InvalidInput, "there is no upload to read"))
    }

    /// Starts a distributed query, and returns when the columns of its rows are known. Blocks: not for the runtime's
    /// threads.
    ///
    /// # Errors
    /// A worker cannot be reached, or fails before there are rows. Later errors come from the source.
    pub fn gather(self: &Arc<Self>, query: &HerdQuery) -> Result<Arc<dyn BatchSource>, RemoteError> {
        gather::start(self, query, Access::Read)
    }

    /// The same for a statement that changes rows where they are, in the transaction if one is open, and else in one that
    /// ends with the statement ([`HerdSession::end_writes`]).
    ///
    /// # Errors
    /// As [`HerdSession::gather`].
    pub fn change(self: &Arc<Self>, query: &HerdQuery) -> Result<Arc<dyn BatchSource>, RemoteError> {
        gather::start(&self.writing(), query, Access::Write)
    }

    /// Runs one statement on each of these workers, in the transaction if one is open, and else each by itself; the rows
    /// that each has changed. Blocks: not for the runtime's threads.
    ///
    /// # Errors
    /// That of the first worker that fails; the others are stopped. In the transaction, it is to be rolled back then.
    pub fn execute_on(&self, workers: &[WorkerId], sql: &str) -> Result<Vec<(WorkerId, u64)>, RemoteError> {
        let counts = self.wait(self.execute_at_all(workers, sql))?;
        Ok(workers.iter().cloned().zip(counts).collect())
    }

    /// The same, on one of the runtime's threads.
    pub(super) async fn execute_at_all(&self, workers: &[WorkerId], sql: &str) -> Result<Vec<u64>, RemoteError> {
        futures::future::try_join_all(workers.iter().map(|worker| self.execute_at(worker, sql))).await
    }

    /// Fails as soon as the worker is down.
    async fn execute_at(&self, worker: &WorkerId, sql: &str) -> Result<u64, RemoteError> {
        let executed = self.with_session(worker, Access::Write, |session, begin_transaction| async move {
            let options = QueryOptions {
                begin_transaction,
                ..QueryOptions::default()
            };
            let summary = session.execute_with(sql, options).await?;
            Ok(summary.rows_changed.unwrap_or(0))
        });
        self.herd.registry().unless_gone(worker, executed).await
    }

    /// Sends a worker its part of a query. `expected` is what its rows' schema probably is, if it is known.
    pub(super) async fn run_stages(
        &self,
        worker: &WorkerId,
        access: Access,
        request: RunStagesRequest,
        expected: Option<&SchemaMessage>,
    ) -> Result<StagesStream, RemoteError> {
        let request = &request;
        self.with_session(worker, access, |session, begin_transaction| async move {
            let request = RunStagesRequest {
                begin_transaction,
                ..request.clone()
            };
            session.run_stages_expecting(request, expected).await
        })
        .await
    }

    /// Sends a worker a request, in the transaction if one is open. One that the worker did not run, as it does not know
    /// the session any more, is sent once more.
    ///
    /// # Errors
    /// The worker's, with its name.
    pub(super) async fn with_session<T, F>(
        &self,
        worker: &WorkerId,
        access: Access,
        request: impl Fn(Session, bool) -> F,
    ) -> Result<T, RemoteError>
    where
        F: Future<Output = Result<T, ClientError>>,
    {
        if access == Access::Write {
            lock(&self.statement).writes = true;
        }
        let mut is_repeated = false;
        loop {
            let (session, address) = self.session(worker).await?;
            let begins = self.ask_to_join(worker, access)?;
            let error = match request(session, begins).await {
                Ok(value) => {
                    self.has_joined(worker);
                    return Ok(value);
                }
                Err(error) => error,
            };
            self.herd.peers().failed(&address, &error);
            let is_lost = is_lost(&error);
            if is_lost || matches!(error, ClientError::Lost { .. } | ClientError::Connect { .. }) {
                self.forget(worker).await;
            }
            let error = named(&worker.0, &address, error.to_remote_error());
            if !is_lost {
                return Err(error);
            }
            let has_lost_transaction = self.left(worker, &error);
            if is_repeated || has_lost_transaction {
                return Err(error);
            }
            is_repeated = true;
        }
    }

    /// A statement is about to run. With the first one of a transaction, workers begin as the coordinator does, so that what
    /// is committed later is seen on none of them. One that cannot, begins when it is asked for something. Blocks: not for
    /// the runtime's threads.
    ///
    /// # Errors
    /// The statement was cancelled.
    pub fn begin_everywhere(&self) -> Result<(), RemoteError> {
        if !std::mem::take(&mut lock(&self.transaction).begins_everywhere) {
            return Ok(());
        }
        let workers = self.herd.registry().live();
        if workers.is_empty() {
            return Ok(());
        }
        self.wait(async {
            join_all(workers.iter().map(|worker| self.begin_at(worker))).await;
            Ok(())
        })
    }

    async fn begin_at(&self, worker: &WorkerId) {
        let begun = tokio::time::timeout(LOOK_TIMEOUT, async {
            let (session, _) = self.session(worker).await.ok()?;
            let looks = Joined {
                progress: Progress::Looking,
                writes: false,
            };
            lock(&self.transaction).joined.insert(worker.clone(), looks);
            let options = QueryOptions {
                begin_transaction: true,
                ..QueryOptions::default()
            };
            session.execute_with("SELECT 1", options).await.ok()
        });
        if !matches!(begun.await, Ok(Some(_))) {
            // The server closes the session, if it has begun there.
            lock(&self.transaction).joined.remove(worker);
            self.forget(worker).await;
        }
    }

    /// Waits until no other query of the session is about to get its connections.
    pub(super) async fn turn(&self) -> Starting {
        Arc::clone(&self.starting).lock_owned().await
    }

    /// The session on a worker, opened if there is none, with this connection's settings.
    async fn session(&self, worker: &WorkerId) -> Result<(Session, String), RemoteError> {
        let address = self.herd.registry().address(worker)?;
        let slot = Arc::clone(lock(&self.workers).entry(worker.clone()).or_default());
        let mut slot = slot.lock().await;
        let wanted = lock(&self.settings).clone();
        let outcome = self.settle(&mut slot, &address, wanted).await;
        let session = outcome.map_err(|error| named(&worker.0, &address, error))?;
        Ok((session, address))
    }

    async fn settle(&self, slot: &mut Slot, address: &str, wanted: Settings) -> Result<Session, RemoteError> {
        if slot.address != address {
            slot.session = None;
        }
        if let Some(session) = &slot.session {
            if slot.told == wanted {
                return Ok(session.clone());
            }
            match session.change_settings(wanted.clone()).await {
                Ok(()) => {
                    slot.told = wanted;
                    return Ok(session.clone());
                }
                Err(error) => {
                    self.herd.peers().failed(address, &error);
                    slot.session = None;
                    if !is_lost(&error) {
                        return Err(error.to_remote_error());
                    }
                }
            }
        }
        let client = self.herd.peers().client(self.herd.registry(), address).await?;
        let session = client.open_session_with(wanted.clone()).await.map_err(|error| {
            self.herd.peers().failed(address, &error);
            error.to_remote_error()
        })?;
        *slot = Slot {
            session: Some(session.clone()),
            address: address.to_owned(),
            told: wanted,
        };
        Ok(session)
    }

    async fn forget(&self, worker: &WorkerId) {
        let slot = lock(&self.workers).get(worker).cloned();
        if let Some(slot) = slot {
            slot.lock().await.session = None;
        }
    }

    // The transaction.

    /// Holds workers for a table that the transaction makes, until it has ended here ([`HerdSession::ended`]).
    ///
    /// # Errors
    /// One of them is being unregistered.
    pub(super) fn place_on(&self, workers: &[WorkerId]) -> Result<(), RemoteError> {
        let hold = self.herd.registry().place_on(workers)?;
        lock(&self.holds).push(hold);
        Ok(())
    }

    /// The coordinator's own transaction has ended, in whatever way.
    pub fn ended(&self) {
        lock(&self.holds).clear();
    }

    /// Whether a transaction is open that workers join.
    #[must_use]
    pub fn in_transaction(&self) -> bool {
        lock(&self.transaction).is_open
    }

    /// Whether workers have something to commit.
    #[must_use]
    pub fn has_writers(&self) -> bool {
        lock(&self.transaction).joined.values().any(|joined| joined.writes)
    }

    /// Whether the running statement may have changed something on workers.
    #[must_use]
    pub fn has_written(&self) -> bool {
        lock(&self.statement).writes
    }

    /// What to write with: in the transaction if one is open, and else in one that ends with the statement
    /// ([`HerdSession::end_writes`]).
    #[must_use]
    pub fn writing(self: &Arc<Self>) -> Arc<Self> {
        if self.in_transaction() {
            return Arc::clone(self);
        }
        let writes = self.writes.get_or_init(|| Self::new(Arc::clone(&self.herd)));
        writes.set_settings(lock(&self.settings).clone());
        writes.open_transaction(false);
        if self.is_cancelled() {
            writes.cancel();
        }
        Arc::clone(writes)
    }

    /// What a statement outside a transaction has written is committed if the statement has done its work, and else
    /// rolled back. Blocks: not for the runtime's threads.
    ///
    /// # Errors
    /// The statement's, or that of [`HerdSession::commit`].
    pub fn end_writes<T>(&self, outcome: Result<T, RemoteError>) -> Result<T, RemoteError> {
        let Some(writes) = self.writes.get().filter(|writes| writes.in_transaction()) else {
            return outcome;
        };
        match outcome {
            Ok(value) => writes.commit().map(|_| value),
            Err(error) => {
                writes.rollback();
                Err(error)
            }
        }
    }

    /// A transaction begins, on workers with its first statement ([`HerdSession::begin_everywhere`]).
    pub fn begin(&self) {
        self.open_transaction(true);
    }

    fn open_transaction(&self, begins_everywhere: bool) {
        let mut transaction = lock(&self.transaction);
        if !transaction.is_open {
            *transaction = Transaction {
                is_open: true,
                begins_everywhere,
                ..Transaction::default()
            };
        }
    }

    /// Whether the next request to a worker begins its transaction, or is in it.
    fn ask_to_join(&self, worker: &WorkerId, access: Access) -> Result<bool, RemoteError> {
        let mut transaction = lock(&self.transaction);
        if let Some(broken) = &transaction.broken {
            return Err(broken.clone());
        }
        if transaction.is_open {
            let joined = transaction.joined.entry(worker.clone()).or_insert(Joined {
                progress: Progress::Asked,
                writes: false,
            });
            if joined.progress == Progress::Looking {
                joined.progress = Progress::Begun;
            }
            joined.writes |= access == Access::Write;
        }
        Ok(transaction.is_open)
    }

    fn has_joined(&self, worker: &WorkerId) {
        if let Some(joined) = lock(&self.transaction).joined.get_mut(worker) {
            joined.progress = Progress::Begun;
        }
    }

    /// The worker has lost the session; whether the transaction was lost with it.
    fn left(&self, worker: &WorkerId, error: &RemoteError) -> bool {
        let mut transaction = lock(&self.transaction);
        let joined = transaction.joined.remove(worker);
        let had_begun = joined.is_some_and(|joined| joined.progress == Progress::Begun);
        if had_begun {
            transaction.broken.get_or_insert_with(|| error.clone());
        }
        had_begun
    }

    /// Commits on every worker that was asked to change something; those. The others are let go. To be called before the
    /// coordinator's own commit. Blocks: not for the runtime's threads. Not to be cancelled, since the outcome must be
    /// known.
    ///
    /// # Errors
    /// A worker has not committed, or nobody knows: the message says what each has done. Workers that have not, have
    /// rolled back.
    pub fn commit(&self) -> Result<Vec<WorkerId>, RemoteError> {
        let transaction = std::mem::take(&mut *lock(&self.transaction));
        if let Some(broken) = transaction.broken {
            self.roll_back(transaction.joined);
            return Err(broken);
        }
        let (writers, readers): (BTreeMap<_, _>, BTreeMap<_, _>) =
            transaction.joined.into_iter().partition(|(_, joined)| joined.writes);
        if writers.is_empty() {
            self.roll_back(readers);
            return Ok(Vec::new());
        }
        let runtime = self.herd.runtime()?;
        if writers.len() > 1 {
            // One that has lost its part, to a query that was given up for one, must be found before any of them commits.
            let outcomes = runtime.block_on(self.control(writers.clone(), "SELECT 1"));
            if let Some((_, error)) = outcomes.into_iter().find_map(|outcome| outcome.result.err()) {
                self.roll_back(writers.into_iter().chain(readers).collect());
                return Err(error);
            }
        }
        let (outcomes, _) = runtime.block_on(join(self.control(writers, "COMMIT"), self.control(readers, "ROLLBACK")));
        judge(outcomes)
    }

    /// Rolls back on every worker that has joined. Never fails: a worker that cannot be told rolls back when it misses the
    /// session. Blocks: not for the runtime's threads.
    pub fn rollback(&self) {
        let transaction = std::mem::take(&mut *lock(&self.transaction));
        self.roll_back(transaction.joined);
        self.ended();
    }

    fn roll_back(&self, joined: BTreeMap<WorkerId, Joined>) {
        if joined.is_empty() {
            return;
        }
        let Ok(runtime) = self.herd.runtime() else { return };
        for outcome in runtime.block_on(self.control(joined, "ROLLBACK")) {
            if let Err(error) = outcome.result {
                tracing::debug!(worker = outcome.worker.0, error = %error.1, "a worker could not be told to roll back");
            }
        }
    }

    /// Ends the workers' transactions.
    async fn control(&self, joined: BTreeMap<WorkerId, Joined>, sql: &'static str) -> Vec<Outcome> {
        join_all(joined.into_iter().map(|(worker, joined)| async move {
            let result = self.control_at(&worker, joined, sql).await;
            if result.is_err() {
                // The server closes the session, and rolls back what is open.
                self.forget(&worker).await;
            }
            Outcome { worker, result }
        }))
        .await
    }

    async fn control_at(&self, worker: &WorkerId, joined: Joined, sql: &str) -> Result<(), (Known, RemoteError)> {
        let slot = lock(&self.workers).get(worker).cloned().unwrap_or_default();
        let (session, address) = {
            let slot = slot.lock().await;
            (slot.session.clone(), slot.address.clone())
        };
        let Some(session) = session else {
            if joined.progress == Progress::Asked {
                return Ok(());
            }
            let error = RemoteError::new(
                ExceptionType::Connection,
                "the connection was lost, and with it the transaction",
            );
            return Err((Known::RolledBack, named(&worker.0, &address, error)));
        };
        let (known, error) = match tokio::time::timeout(CONTROL_TIMEOUT, session.execute(sql)).await {
            Ok(Ok(_)) => return Ok(()),
            // It had not begun.
            Ok(Err(ClientError::Remote(error)))
                if joined.progress == Progress::Asked && error.message.contains("no transaction is active") =>
            {
                return Ok(());
            }
            Ok(Err(ClientError::Remote(error))) => (Known::RolledBack, error),
            Ok(Err(error)) => {
                self.herd.peers().failed(&address, &error);
                (Known::No, error.to_remote_error())
            }
            Err(_) => (
                Known::No,
                RemoteError::new(
                    ExceptionType::Connection,
                    format!("no answer to {sql} within {} s", CONTROL_TIMEOUT.as_secs()),
                ),
            ),
        };
        Err((known, named(&worker.0, &address, error)))
    }
}

/// Whether it is known what a worker has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Known {
    RolledBack,
    No,
}

/// What has come of a COMMIT or ROLLBACK on one worker.
struct Outcome {
    worker: WorkerId,
    result: Result<(), (Known, RemoteError)>,
}

/// What has come of a COMMIT on all of them.
fn judge(outcomes: Vec<Outcome>) -> Result<Vec<WorkerId>, RemoteError> {
    let mut committed = Vec::new();
    let mut rolled_back = Vec::new();
    let mut unknown = Vec::new();
    let mut first: Option<RemoteError> = None;
    for Outcome { worker, result } in outcomes {
        match result {
            Ok(()) => committed.push(worker),
            Err((known, error)) => {
                first.get_or_insert(error);
                match known {
                    Known::RolledBack => rolled_back.push(worker),
                    Known::No => unknown.push(worker),
                }
            }
        }
    }
    let Some(mut error) = first else { return Ok(committed) };
    if committed.is_empty() && unknown.is_empty() {
        return Err(error);
    }
    let list = |workers: &[WorkerId]| {
        let names: Vec<_> = workers.iter().map(|worker| worker.0.as_str()).collect();
        if names.is_empty() {
            "none".to_owned()
        } else {
            names.join(", ")
        }
    };
    error.kind = ExceptionType::Transaction;
    error.message = format!(
        "the transaction is committed on a part of the workers only. Committed: {}; rolled back: {}; not known: {}. \
         The first error: {}",
        list(&committed),
        list(&rolled_back),
        list(&unknown),
        error.message
    );
    Err(error)
}

/// The session was not open any more, so nothing was run.
fn is_lost(error: &ClientError) -> bool {
    let ClientError::Remote(error) = error else {
        return false;
    };
    error
        .extra_info
        .get(ERROR_SUBTYPE)
        .is_some_and(|subtype| subtype == SESSION_NOT_OPEN)
}

/// While it lives, its connection runs stages of a query.
pub struct Running(Arc<HerdSession>);

impl Drop for Running {
    fn drop(&mut self) {
        drop(lock(&self.0.running).take());
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(worker: &str, result: Result<(), Known>) -> Outcome {
        let error = |known| {
            (
                known,
                RemoteError::new(ExceptionType::Constraint, format!("{worker} says no")),
            )
        };
        Outcome {
            worker: WorkerId(worker.to_owned()),
            result: result.map_err(error),
        }
    }

    #[test]
    fn a_commit_that_nobody_has_taken_is_the_workers_error() {
        let error = judge(vec![
            outcome("a", Err(Known::RolledBack)),
            outcome("b", Err(Known::RolledBack)),
        ])
        .unwrap_err();
        assert_eq!(
            (error.kind, error.message.as_str()),
            (ExceptionType::Constraint, "a says no")
        );
    }

    #[test]
    fn a_commit_that_some_have_taken_says_who() {
        let outcomes = vec![
            outcome("a", Ok(())),
            outcome("b", Err(Known::RolledBack)),
            outcome("c", Err(Known::No)),
        ];
        let error = judge(outcomes).unwrap_err();
        assert_eq!(error.kind, ExceptionType::Transaction);
        assert!(
            error.message.contains("Committed: a; rolled back: b; not known: c."),
            "{error}"
        );
        assert!(error.message.contains("b says no"), "{error}");
    }

    #[test]
    fn a_commit_that_all_have_taken_is_one() {
        let all = judge(vec![outcome("a", Ok(())), outcome("b", Ok(()))]).unwrap();
        assert_eq!(all, [WorkerId("a".into()), WorkerId("b".into())]);
    }
}
