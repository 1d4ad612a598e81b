//! Sessions: what the server keeps for each client connection.
//!
//! A session owns one DuckDB connection, which carries its settings, temporary tables and transaction. Outside a
//! transaction, plain statements may borrow further connections while that one is busy; inside one, all share it, and
//! an unread earlier result is buffered so that the next statement can run.

use std::collections::HashMap;
use std::ops::DerefMut;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use duckherder_proto::error::{ERROR_SUBTYPE, SESSION_NOT_OPEN};
use duckherder_proto::limits::RESULT_STREAMS_MAX;
use duckherder_proto::v1::Compression;
use duckherder_proto::{ExceptionType, RemoteError};
use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard, OwnedSemaphorePermit, Semaphore};

use crate::admission::Admission;
use crate::at_once::AtOnce;
use crate::config::Limits;
use crate::definitions::Definitions;
use crate::duckdb::{Connection, Database, Interrupter, interrupted};
use crate::flight_sql;
use crate::herd::{Herd, HerdSession};
use crate::history::History;
use crate::parts::{Part, Parts};
use crate::presence::Presence;
use crate::queue::{Hurry, Queues};
use crate::routing::may_run_beside;
use crate::settings::{Settings, SettledConnection};

/// How long a read in a transaction gets to notice that its client has gone, before it is interrupted, and the
/// transaction aborted with it.
pub const STOP_GRACE: Duration = Duration::from_secs(10);

/// Idle time of a session that no client has come back for.
const UNCONFIRMED_IDLE_TIMEOUT: Duration = Duration::from_secs(60);

/// Opaque, unguessable: whoever has it can use the session.
pub type SessionId = [u8; 16];

/// The server's sessions.
pub struct Sessions {
    database: Database,
    herd: Arc<Herd>,
    limits: Arc<Limits>,
    definitions: Definitions,
    admission: Admission,
    queues: Queues,
    at_once: AtOnce,
    history: Arc<History>,
    /// The number of the session opened last.
    opened: AtomicU64,
    by_id: Mutex<HashMap<SessionId, Arc<Session>>>,
    cookie_seal: flight_sql::CookieSeal,
}

impl Sessions {
    pub fn new(database: Database, limits: Arc<Limits>, herd: Arc<Herd>) -> Self {
        let gauge = database.clone();
        let admission = Admission::new(&limits, Box::new(move || gauge.held_memory()));
        let queues = Queues::new(limits.read_ahead_bytes, limits.results_bytes_max);
        Self {
            database,
            herd,
            history: Arc::new(History::new(&limits)),
            opened: AtomicU64::new(0),
            limits,
            definitions: Definitions::new(),
            admission,
            at_once: AtOnce::default(),
            queues,
            by_id: Mutex::default(),
            cookie_seal: flight_sql::CookieSeal::new(),
        }
    }

    pub fn open(&self, settings: Settings, compression: Compression) -> Result<Arc<Session>, RemoteError> {
        self.open_as(*uuid::Uuid::new_v4().as_bytes(), settings, compression)
    }

    /// The session of that id, opened if there is none. It has to be an id that the server has given out.
    ///
    /// # Errors
    /// There are too many.
    pub fn open_as(
        &self,
        id: SessionId,
        settings: Settings,
        compression: Compression,
    ) -> Result<Arc<Session>, RemoteError> {
        let connection = self.database.connect()?;
        let mut by_id = lock(&self.by_id);
        if let Some(session) = by_id.get(&id) {
            session.touch();
            return Ok(Arc::clone(session));
        }
        if by_id.len() >= self.limits.sessions_max {
            return Err(RemoteError::new(
                ExceptionType::Connection,
                format!(
                    "the duckling has {} open sessions, its limit; try again later",
                    by_id.len()
                ),
            ));
        }
        let session = Arc::new(Session::new(
            id,
            self.opened.fetch_add(1, Ordering::Relaxed) + 1,
            connection,
            (settings, compression),
            self.database.clone(),
            Arc::clone(&self.herd),
            Arc::clone(&self.limits),
        )?);
        by_id.insert(session.id, Arc::clone(&session));
        Ok(session)
    }

    pub fn get(&self, id: &[u8]) -> Result<Arc<Session>, RemoteError> {
        let session = SessionId::try_from(id)
            .ok()
            .and_then(|id| lock(&self.by_id).get(&id).cloned());
        Self::found(session)
    }

    /// The session of that id, which a client has come back for.
    pub fn claim(&self, id: &SessionId) -> Result<Arc<Session>, RemoteError> {
        let by_id = lock(&self.by_id);
        let session = by_id.get(id).cloned();
        if let Some(session) = &session {
            session.confirmed.store(true, Ordering::SeqCst);
        }
        drop(by_id);
        Self::found(session)
    }

    /// The session of that number, for a request that names something of it that cannot be guessed.
    pub fn by_number(&self, number: u64) -> Result<Arc<Session>, RemoteError> {
        let session = lock(&self.by_id)
            .values()
            .find(|session| session.number == number)
            .cloned();
        Self::found(session)
    }

    fn found(session: Option<Arc<Session>>) -> Result<Arc<Session>, RemoteError> {
        let session = session.ok_or_else(|| {
            let mut error = RemoteError::new(
                ExceptionType::Connection,
                "this session is not open (any more) on the duckling: it was closed, was idle for too long, or the \
                 server was restarted; an open transaction has been rolled back",
            );
            error
                .extra_info
                .insert(ERROR_SUBTYPE.to_owned(), SESSION_NOT_OPEN.to_owned());
            error
        })?;
        session.touch();
        Ok(session)
    }

    pub fn close(&self, id: &[u8]) {
        let session = SessionId::try_from(id)
            .ok()
            .and_then(|id| lock(&self.by_id).remove(&id));
        if let Some(session) = session {
            self.end(&session);
        }
    }

    /// Closes a session, unless a client has come back for it or would miss something.
    pub fn close_unclaimed(&self, session: &Session) {
        let mut by_id = lock(&self.by_id);
        if session.is_confirmed() || session.holds_something() {
            return;
        }
        // Another one may have been opened under its id since.
        let is_open = by_id.get(&session.id).is_some_and(|open| open.number == session.number);
        if is_open {
            by_id.remove(&session.id);
            drop(by_id);
            self.end(session);
        }
    }

    fn end(&self, session: &Session) {
        session.interrupt_all();
        self.herd.exchanges().release_session(&session.id);
    }

    /// Closes sessions that nobody has used for the idle timeout, or that a client has left in a transaction.
    pub fn close_idle(&self) {
        let mut closed = Vec::new();
        lock(&self.by_id).retain(|_, session| {
            let is_abandoned = session.is_abandoned();
            if is_abandoned {
                closed.push(session.id);
            }
            !is_abandoned
        });
        for id in &closed {
            self.herd.exchanges().release_session(id);
        }
    }

    /// Interrupts every running statement.
    pub fn interrupt_all(&self) {
        for session in lock(&self.by_id).values() {
            session.interrupt_all();
        }
        self.herd.exchanges().release_all();
    }

    /// Forgets all sessions: their connections close as soon as their statements have ended.
    pub fn close_all(&self) {
        self.interrupt_all();
        lock(&self.by_id).clear();
    }

    pub fn database(&self) -> &Database {
        &self.database
    }

    pub fn herd(&self) -> &Arc<Herd> {
        &self.herd
    }

    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Which statements run on the network's threads.
    pub fn at_once(&self) -> &AtOnce {
        &self.at_once
    }

    /// What tells the ids that it has given out in cookies.
    pub fn cookie_seal(&self) -> &flight_sql::CookieSeal {
        &self.cookie_seal
    }

    /// What results wait in.
    pub fn queues(&self) -> &Queues {
        &self.queues
    }

    pub fn history(&self) -> &Arc<History> {
        &self.history
    }

    /// What is known of the catalog's state.
    pub fn definitions(&self) -> &Definitions {
        &self.definitions
    }

    pub fn epoch(&self) -> u64 {
        self.definitions.epoch()
    }

    pub fn advance_epoch(&self) {
        self.definitions.advance();
    }

    /// Who may run.
    pub fn admission(&self) -> &Admission {
        &self.admission
    }
}

/// Where in its session a statement runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// In the open transaction, if there is one.
    Session,
    /// In the open transaction, which begins with it if there is none.
    Begin,
    /// By itself, also while a transaction is open.
    Outside,
}

#[derive(Default)]
struct PrimaryQueue {
    waiting: usize,
    reader: Option<Hurry>,
}

/// One client connection's state.
pub struct Session {
    pub id: SessionId,
    /// Its name in the history, for everybody to see.
    pub number: u64,
    /// Of the results of our own clients.
    pub compression: Compression,
    database: Database,
    herd: Arc<Herd>,
    limits: Arc<Limits>,
    primary: Arc<AsyncMutex<SettledConnection>>,
    /// Who waits for `primary`, and what holds it while a result streams from it.
    primary_queue: Mutex<PrimaryQueue>,
    spare: Mutex<Vec<SettledConnection>>,
    spare_permits: Arc<Semaphore>,
    /// What the client wants set, on whatever connection.
    settings: Mutex<Settings>,
    in_transaction: AtomicBool,
    /// A statement of the open transaction was interrupted or done in part, which rolls the transaction back.
    aborted: AtomicBool,
    /// A statement has changed settings, temporary tables or the like: only `primary` has them.
    stateful: AtomicBool,
    running: Mutex<HashMap<u64, Running>>,
    last_used: Mutex<Instant>,
    presence: Presence,
    /// Whether a client has shown that it comes back for the session.
    confirmed: AtomicBool,
    /// What a Flight SQL client has besides.
    pub flight_sql: flight_sql::State,
}

impl Session {
    fn new(
        id: SessionId,
        number: u64,
        connection: Connection,
        (settings, compression): (Settings, Compression),
        database: Database,
        herd: Arc<Herd>,
        limits: Arc<Limits>,
    ) -> Result<Self, RemoteError> {
        Ok(Self {
            id,
            number,
            compression,
            database,
            primary: Arc::new(AsyncMutex::new(SettledConnection::new(connection, &herd)?)),
            primary_queue: Mutex::default(),
            spare: Mutex::default(),
            spare_permits: Arc::new(Semaphore::new(limits.session_statements_max)),
            settings: Mutex::new(settings),
            in_transaction: AtomicBool::new(false),
            aborted: AtomicBool::new(false),
            stateful: AtomicBool::new(false),
            running: Mutex::default(),
            last_used: Mutex::new(Instant::now()),
            presence: Presence::default(),
            confirmed: AtomicBool::new(true),
            flight_sql: flight_sql::State::default(),
            herd,
            limits,
        })
    }

    /// A client uses the session.
    pub fn touch(&self) {
        *lock(&self.last_used) = Instant::now();
        self.presence.touch();
    }

    /// A session that is open for one request, as nobody may come back for it.
    pub fn set_unconfirmed(&self) {
        self.confirmed.store(false, Ordering::SeqCst);
    }

    fn is_confirmed(&self) -> bool {
        self.confirmed.load(Ordering::SeqCst)
    }

    /// Whether something would be lost with the session.
    pub fn holds_something(&self) -> bool {
        self.is_busy() || self.in_transaction() || self.is_stateful() || self.flight_sql.is_in_use()
    }

    /// How long it may be idle.
    fn idle_timeout(&self) -> Duration {
        let timeout = self.limits.session_idle_timeout;
        if self.is_confirmed() {
            timeout
        } else {
            timeout.min(UNCONFIRMED_IDLE_TIMEOUT)
        }
    }

    /// Whether nobody has used it for too long.
    fn is_abandoned(&self) -> bool {
        if self.is_busy() {
            return false;
        }
        let gone_client_timeout = self.limits.gone_client_timeout;
        lock(&self.last_used).elapsed() >= self.idle_timeout()
            || self.in_transaction() && self.presence.gone_for() >= Some(gone_client_timeout)
    }

    fn is_busy(&self) -> bool {
        !lock(&self.running).is_empty()
    }

    pub fn in_transaction(&self) -> bool {
        self.in_transaction.load(Ordering::SeqCst)
    }

    pub fn set_in_transaction(&self, value: bool) {
        self.aborted.store(false, Ordering::SeqCst);
        self.in_transaction.store(value, Ordering::SeqCst);
    }

    /// Whether the open transaction can only be rolled back. DuckDB would take a COMMIT of it for a ROLLBACK, silently.
    pub fn is_aborted(&self) -> bool {
        self.aborted.load(Ordering::SeqCst)
    }

    /// The open transaction can only be rolled back from here on.
    pub fn abort_transaction(&self) {
        self.aborted.store(true, Ordering::SeqCst);
    }

    /// What the client wants set.
    pub fn settings(&self) -> Settings {
        lock(&self.settings).clone()
    }

    /// Which settings statements find from here on.
    pub fn change_settings(&self, settings: Settings) {
        *lock(&self.settings) = settings;
    }

    /// Whether statements depend on more than the text and the settings that the client wants.
    pub fn is_stateful(&self) -> bool {
        self.stateful.load(Ordering::SeqCst)
    }

    pub fn set_stateful(&self) {
        self.stateful.store(true, Ordering::SeqCst);
    }

    /// A connection to run `sql` on.
    pub async fn lease(self: &Arc<Self>, sql: &str, place: Place) -> Result<Lease, RemoteError> {
        if place == Place::Outside && self.in_transaction() {
            return self.lease_outside();
        }
        let needs_primary =
            place == Place::Begin || self.in_transaction() || self.is_stateful() || !may_run_beside(sql);
        if !needs_primary {
            if let Ok(guard) = Arc::clone(&self.primary).try_lock_owned() {
                return Ok(Lease::primary(guard, Arc::clone(self)));
            }
            if let Ok(permit) = Arc::clone(&self.spare_permits).try_acquire_owned() {
                return self.lease_spare(permit);
            }
        }
        self.lease_primary().await
    }

    /// A connection to read the catalog with: any, unless the session's own sees more than the others.
    pub async fn lease_catalog(self: &Arc<Self>) -> Result<Lease, RemoteError> {
        self.lease("SELECT", Place::Session).await
    }

    /// A connection that is in no transaction, while the session's own is in one.
    fn lease_outside(self: &Arc<Self>) -> Result<Lease, RemoteError> {
        let refuse = |message: &str| Err(RemoteError::new(ExceptionType::Transaction, message));
        if self.is_stateful() {
            return refuse(
                "this session has settings or temporary tables that only its open transaction sees: name the \
                 transaction, or end it first",
            );
        }
        match Arc::clone(&self.spare_permits).try_acquire_owned() {
            Ok(permit) => self.lease_spare(permit),
            Err(_) => refuse("too many statements of this session run beside its open transaction"),
        }
    }

    /// The session's own connection, for what must see its transaction.
    pub async fn lease_primary(self: &Arc<Self>) -> Result<Lease, RemoteError> {
        let _waiting = Waiting::enter(self);
        let timeout = self.limits.statement_wait_timeout;
        let guard = tokio::time::timeout(timeout, Arc::clone(&self.primary).lock_owned())
            .await
            .map_err(|_| {
                RemoteError::new(
                    ExceptionType::Connection,
                    format!(
                        "an earlier statement of this session has not ended within {} s",
                        timeout.as_secs()
                    ),
                )
            })?;
        Ok(Lease::primary(guard, Arc::clone(self)))
    }

    fn lease_spare(self: &Arc<Self>, permit: OwnedSemaphorePermit) -> Result<Lease, RemoteError> {
        let spare = lock(&self.spare).pop();
        let connection = match spare {
            Some(connection) => connection,
            None => SettledConnection::new(self.database.connect()?, &self.herd)?,
        };
        Ok(Lease {
            kind: LeaseKind::Spare(Some(connection), permit),
            session: Arc::clone(self),
        })
    }

    /// A further stream of a running statement's result.
    ///
    /// # Errors
    /// No such statement runs, or its client has said that no more streams would read the result.
    pub fn join(&self, statement_id: u64) -> Result<Part, RemoteError> {
        let mut running = lock(&self.running);
        let shared = running
            .get_mut(&statement_id)
            .and_then(|running| running.shared.as_mut());
        match shared {
            Some((parts, further_streams @ 1..)) => {
                *further_streams -= 1;
                Ok(parts.further_part())
            }
            Some((_, 0)) => Err(RemoteError::new(
                ExceptionType::InvalidInput,
                "this result has as many streams as it was asked for",
            )),
            None => Err(RemoteError::new(
                ExceptionType::InvalidInput,
                "no statement of this number runs (any more) whose result further streams may read",
            )),
        }
    }

    /// Interrupts a running statement; whether there was one.
    pub fn cancel(&self, statement_id: u64) -> bool {
        // Under the lock: a statement that has just ended must not pass its interrupt on to the next one.
        let mut running = lock(&self.running);
        let found = running.get_mut(&statement_id);
        found.map(|running| self.interrupt(running)).is_some()
    }

    /// How far a running statement is, from 0 to 1. `None` if DuckDB does not know, or no such statement runs.
    pub fn progress(&self, statement_id: u64) -> Option<f64> {
        let running = lock(&self.running);
        let running = running.get(&statement_id)?;
        // The connection may still be another statement's.
        (running.phase != Phase::Waits).then(|| running.interrupter.progress())?
    }

    fn interrupt(&self, running: &mut Running) {
        if matches!(running.phase, Phase::Waits | Phase::GivenUp) {
            running.phase = Phase::GivenUp;
            return;
        }
        // What runs beside the session's own connection is in no transaction, though one may have begun in the meantime.
        if running.is_primary && self.in_transaction() {
            self.aborted.store(true, Ordering::SeqCst);
        }
        running.interrupter.interrupt();
        running.herd.cancel();
    }

    /// The client has stopped reading a statement's result. Returns whether the statement still has to be cancelled, a
    /// while from now, if it has not noticed by itself.
    fn abandon(&self, statement_id: u64) -> bool {
        let mut running = lock(&self.running);
        match running.get_mut(&statement_id) {
            Some(running) if running.phase == Phase::StopsByItself => {
                running.herd.give_up();
                true
            }
            Some(running) => {
                self.interrupt(running);
                false
            }
            None => false,
        }
    }

    pub fn interrupt_all(&self) {
        for running in lock(&self.running).values_mut() {
            self.interrupt(running);
        }
    }
}

/// One waiter for a session's own connection; whoever streams from it is told to hurry.
struct Waiting<'session>(&'session Session);

impl<'session> Waiting<'session> {
    fn enter(session: &'session Session) -> Self {
        let mut queue = lock(&session.primary_queue);
        queue.waiting += 1;
        if let Some(reader) = &queue.reader {
            reader.hurry(session.limits.transaction_buffer_bytes);
        }
        Self(session)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        lock(&self.0.primary_queue).waiting -= 1;
    }
}

struct Running {
    interrupter: Interrupter,
    /// It runs on the session's own connection.
    is_primary: bool,
    /// It may wait for workers.
    herd: Arc<HerdSession>,
    phase: Phase,
    /// Its result, and how many further streams may still join in reading it.
    shared: Option<(Arc<Parts>, u32)>,
}

/// How far a statement is, as whoever wants it stopped needs to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// It has done nothing yet.
    Waits,
    /// It was stopped before it did anything, and never will: its transaction goes on.
    GivenUp,
    Runs,
    /// It looks itself whether its client has gone.
    StopsByItself,
}

/// A running statement's entry in its session.
pub struct Registration {
    session: Arc<Session>,
    statement_id: u64,
}

impl Registration {
    /// So many further streams may read the statement's result, as long as it runs.
    pub fn share(&self, parts: &Arc<Parts>, further_streams: u32) {
        if let Some(running) = lock(&self.session.running).get_mut(&self.statement_id) {
            running.shared = Some((Arc::clone(parts), further_streams.min(RESULT_STREAMS_MAX - 1)));
        }
    }

    /// From here on, stopping the statement interrupts it; unless it `stops_by_itself`, as it looks whether its client has
    /// gone. An interrupt is an error, and an error aborts the transaction that it is in.
    ///
    /// # Errors
    /// It has been stopped.
    pub fn start(&self, stops_by_itself: bool) -> Result<(), RemoteError> {
        let mut running = lock(&self.session.running);
        match running.get_mut(&self.statement_id) {
            Some(running) if running.phase == Phase::GivenUp => Err(interrupted()),
            Some(running) => {
                running.phase = if stops_by_itself {
                    Phase::StopsByItself
                } else {
                    Phase::Runs
                };
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// For the client's end: tells the statement, if it still runs, that its result is not wanted any more.
    pub fn abandoner(&self) -> impl FnOnce() + Send + use<> {
        let (session, statement_id) = (Arc::clone(&self.session), self.statement_id);
        move || {
            if session.abandon(statement_id)
                && let Ok(runtime) = tokio::runtime::Handle::try_current()
            {
                // A session that is closed meanwhile has to end, and its transaction: a checkpoint waits for that.
                let session = Arc::downgrade(&session);
                runtime.spawn(async move {
                    tokio::time::sleep(STOP_GRACE).await;
                    if let Some(session) = session.upgrade() {
                        session.cancel(statement_id);
                    }
                });
            }
        }
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        lock(&self.session.running).remove(&self.statement_id);
        self.session.touch();
    }
}

/// A connection on loan from a session.
pub struct Lease {
    kind: LeaseKind,
    pub session: Arc<Session>,
}

enum LeaseKind {
    Primary(OwnedMutexGuard<SettledConnection>),
    /// `None` only while being dropped.
    Spare(
        Option<SettledConnection>,
        #[expect(dead_code, reason = "held, not read")] OwnedSemaphorePermit,
    ),
}

impl Lease {
    fn primary(guard: OwnedMutexGuard<SettledConnection>, session: Arc<Session>) -> Self {
        Self {
            kind: LeaseKind::Primary(guard),
            session,
        }
    }

    /// Makes the statement that is to run known to [`Session::cancel`] until the returned registration is dropped.
    ///
    /// # Errors
    /// None that is known.
    pub fn register(&mut self, statement_id: u64) -> Result<Registration, RemoteError> {
        let herd = self.herd()?;
        herd.not_stopped();
        let running = Running {
            interrupter: self.connection()?.interrupter(),
            is_primary: self.is_primary(),
            herd,
            phase: Phase::Waits,
            shared: None,
        };
        lock(&self.session.running).insert(statement_id, running);
        Ok(Registration {
            session: Arc::clone(&self.session),
            statement_id,
        })
    }

    fn is_primary(&self) -> bool {
        matches!(self.kind, LeaseKind::Primary(_))
    }

    /// Whether what runs on it is in a transaction. Another connection than the session's own never is.
    pub fn in_transaction(&self) -> bool {
        self.is_primary() && self.session.in_transaction()
    }

    /// Whether that transaction can only be rolled back.
    pub fn is_aborted(&self) -> bool {
        self.is_primary() && self.session.is_aborted()
    }

    /// Tells the session how to get its own connection back while a result is being read from it.
    pub fn set_reader(&self, hurry: Hurry) {
        if self.is_primary() {
            let mut queue = lock(&self.session.primary_queue);
            if queue.waiting > 0 {
                hurry.hurry(self.session.limits.transaction_buffer_bytes);
            }
            queue.reader = Some(hurry);
        }
    }

    /// Gives the leased connection the settings that the session's client wants: for every request but
    /// transaction control, which must run whatever the settings are.
    pub fn apply_settings(&mut self) -> Result<(), RemoteError> {
        let wanted = lock(&self.session.settings).clone();
        self.settled()?.apply(&wanted)
    }

    /// The leased connection.
    pub fn connection(&mut self) -> Result<&mut Connection, RemoteError> {
        self.settled().map(|settled| &mut settled.connection)
    }

    /// Whether a statement is [short](Connection::is_short), and may be run with [`Connection::run_short`].
    pub fn is_short(&mut self, sql: &str) -> bool {
        if self.in_transaction() {
            return false;
        }
        self.settled().is_ok_and(|settled| {
            // A coordinator asks its workers, and waits for them.
            !settled.herd.herd().registry().has_workers() && settled.connection.is_short(sql)
        })
    }

    /// What the leased connection has of the herd.
    pub fn herd(&mut self) -> Result<Arc<HerdSession>, RemoteError> {
        self.settled().map(|settled| Arc::clone(&settled.herd))
    }

    fn settled(&mut self) -> Result<&mut SettledConnection, RemoteError> {
        match &mut self.kind {
            LeaseKind::Primary(guard) => Ok(guard.deref_mut()),
            LeaseKind::Spare(connection, _) => connection
                .as_mut()
                .ok_or_else(|| RemoteError::new(ExceptionType::Io, "the leased connection is gone")),
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        match &mut self.kind {
            LeaseKind::Primary(_) => lock(&self.session.primary_queue).reader = None,
            LeaseKind::Spare(connection, _) => lock(&self.session.spare).extend(connection.take()),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
