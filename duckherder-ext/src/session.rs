//! One client connection's session on an attached duckling.

use std::collections::{BTreeMap, HashSet};
use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arrow::array::AsArray;
use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use duckherder_catalog::{Definitions, SchemaCache, SchemaPath};
use duckherder_client::{ClientError, IngestMode, IngestTarget, QueryOptions, QueryStream, Session, StatementSummary};
use duckherder_proto::error::{ERROR_SUBTYPE, FAILED_TO_COMMIT, SESSION_NOT_OPEN};
use duckherder_proto::history::upload_text;
use duckherder_proto::v1::{ColumnDescription, DefinitionDescription, DefinitionKind, TableDescription};
use duckherder_proto::{ExceptionType, RemoteError};
use futures::TryStreamExt;

use crate::ahead::Ahead;
use crate::error::{ExtError, ForUser, Result};
use crate::history::{Beginning, Kind, Outcome, Recording};
use crate::remote::Remote;
use crate::runtime::{self, InterruptCheck, Never};
use crate::scan::{Begun, Scan};
use crate::upload::Upload;

/// How long COMMIT and ROLLBACK may take: long enough for a large checkpoint.
const CONTROL_TIMEOUT: Duration = Duration::from_secs(120);

/// Rows that are read of a listing of the server's functions; what comes after is not known here.
const LISTED_ROWS_MAX: usize = 1_000_000;

/// Which functions the server has, in lower case.
const FUNCTION_NAMES: &str = "SELECT DISTINCT lower(function_name) FROM duckdb_functions()";

/// What a statement here can be bound with, from its definition.
const BINDABLE: [DefinitionKind; 3] = [DefinitionKind::Type, DefinitionKind::Macro, DefinitionKind::TableMacro];

/// How statements begin that leave the catalog as it is.
const WITHOUT_DEFINITIONS: [&str; 8] = [
    "SELECT", "FROM", "WITH", "VALUES", "INSERT", "UPDATE", "DELETE", "MERGE",
];

/// A DuckDB connection on the server that belongs to one DuckDB connection here.
///
/// A session that the server has lost is opened anew for the next statement, unless a transaction went with it: then
/// every statement fails until that has been rolled back here as well.
pub struct RemoteSession {
    remote: Arc<Remote>,
    /// `None` before the first request, and after it was lost.
    session: Mutex<Option<Session>>,
    transaction: Mutex<TransactionState>,
    settings: Mutex<Settings>,
    snapshot: Mutex<Snapshot>,
    /// The read of the query that runs, if it was foreseen and has not been asked for yet.
    ahead: Mutex<Option<Ahead>>,
}

/// The catalog as the transaction sees it: as it was when it began, with what it has changed itself.
#[derive(Debug, Default)]
struct Snapshot {
    /// The cache, which is for all sessions of this process, is true for the transaction as long as it has this epoch. `None`
    /// when the transaction may have changed definitions.
    epoch: Option<u64>,
    /// What has been looked up in the transaction, since it has changed any.
    own: SchemaCache,
}

/// Settings of the client connection that change what a statement means, name to value.
#[derive(Debug, Default)]
struct Settings {
    /// As they are here.
    wanted: BTreeMap<String, String>,
    /// What the server's session has been told.
    told: BTreeMap<String, String>,
}

/// The server's part of the client connection's transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum TransactionState {
    /// The server has not been told of any.
    None,
    /// The server has begun it.
    Open,
    /// The server had begun it, and has lost it.
    Lost,
}

/// Whether a statement changes something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// It does not.
    Read,
    /// It does, or may.
    Write,
}

impl Access {
    fn kind(self) -> Kind {
        match self {
            Self::Read => Kind::Read,
            Self::Write => Kind::Write,
        }
    }
}

impl RemoteSession {
    /// A session that is opened with its first request, so that a failure to do so is that request's.
    pub fn new(remote: Arc<Remote>) -> Self {
        Self {
            remote,
            session: Mutex::new(None),
            transaction: Mutex::new(TransactionState::None),
            settings: Mutex::default(),
            snapshot: Mutex::default(),
            ahead: Mutex::default(),
        }
    }

    /// The session, opened if it is not yet or was lost.
    fn session(&self, interrupt: &dyn InterruptCheck) -> Result<Session> {
        self.remote.check_process()?;
        let mut slot = lock(&self.session);
        if let Some(session) = slot.as_ref() {
            return Ok(session.clone());
        }
        let client = self.remote.client()?.clone();
        let settings = lock(&self.settings).wanted.clone();
        let wanted = settings.clone();
        let session = runtime::wait(interrupt, async move {
            client.open_session_with(wanted).await.map_err(ForUser::for_user)
        })?;
        *slot = Some(session.clone());
        lock(&self.settings).told = settings;
        Ok(session)
    }

    /// Says what the settings of the client connection are. They reach the server ahead of the next request.
    pub fn want_settings(&self, wanted: BTreeMap<String, String>) {
        lock(&self.settings).wanted = wanted;
    }

    fn tell_settings(&self, interrupt: &dyn InterruptCheck, session: &Session) -> Result<()> {
        let wanted = {
            let settings = lock(&self.settings);
            if settings.told == settings.wanted {
                return Ok(());
            }
            settings.wanted.clone()
        };
        let (session, changed) = (session.clone(), wanted.clone());
        runtime::wait(interrupt, async move {
            session.change_settings(changed).await.map_err(ForUser::for_user)
        })?;
        lock(&self.settings).told = wanted;
        Ok(())
    }

    /// Runs a request on the session. If the server does not have the session (any more), nothing was run: a new session
    /// is opened and the request repeated once, unless a transaction was lost with the old one.
    fn request<T, F>(&self, interrupt: &dyn InterruptCheck, request: impl Fn(Session) -> F) -> Result<T>
    where
        T: Send + 'static,
        F: Future<Output = std::result::Result<T, ClientError>> + Send + 'static,
    {
        self.remote.check_process()?;
        let mut repeated = false;
        loop {
            let error = match self.request_once(interrupt, &request) {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            if error.kind != ExceptionType::Connection {
                return Err(error);
            }
            let transaction_lost = self.forget_session();
            let never_ran = error
                .extra_info
                .get(ERROR_SUBTYPE)
                .is_some_and(|subtype| subtype == SESSION_NOT_OPEN);
            if transaction_lost || !never_ran || repeated {
                return Err(error);
            }
            repeated = true;
        }
    }

    fn request_once<T, F>(&self, interrupt: &dyn InterruptCheck, request: &impl Fn(Session) -> F) -> Result<T>
    where
        T: Send + 'static,
        F: Future<Output = std::result::Result<T, ClientError>> + Send + 'static,
    {
        let session = self.session(interrupt)?;
        self.tell_settings(interrupt, &session)?;
        let call = request(session);
        runtime::wait(interrupt, async move { call.await.map_err(ForUser::for_user) })
    }

    /// Gives a broken session up; whether a transaction went with it.
    fn forget_session(&self) -> bool {
        *lock(&self.session) = None;
        self.remote.cache().clear();
        let mut transaction = lock(&self.transaction);
        if *transaction == TransactionState::Open {
            *transaction = TransactionState::Lost;
        }
        *transaction == TransactionState::Lost
    }

    /// Whether what the user has written is like a read that has been sent before.
    pub fn foresees(&self, typed: &str) -> bool {
        self.remote.rewrites().foresee(typed).is_some()
    }

    /// Sends what `typed`, a query that begins outside of a transaction, will most likely become. Whether it has been sent:
    /// not if nothing is foreseen, or something would have to be sent before.
    ///
    /// # Errors
    /// In a forked process; if the operating system refuses threads.
    pub fn send_ahead(&self, typed: &str) -> Result<bool> {
        let foreseen = self
            .remote
            .rewrites()
            .foresee(typed)
            .map(|(sql, schema)| (sql, Arc::clone(schema)));
        let Some((sql, schema)) = foreseen else {
            return Ok(false);
        };
        self.remote.check_process()?;
        let Some(session) = lock(&self.session).clone() else {
            return Ok(false);
        };
        if !self.is_settled() {
            return Ok(false);
        }
        let recording = Recording::start(&self.remote, &sql, Kind::Read);
        let options = QueryOptions {
            begin_transaction: false,
            history_id: Some(recording.id()),
            stored_types: true,
        };
        recording.traffic().add_sent(0, sql.len() as u64);
        // Nobody waits for its columns: what there is in a moment comes with them.
        let request = begin(session, sql.clone(), options, true);
        let begun = runtime::spawn(async move { request.await.map_err(ForUser::for_user) })?;
        *lock(&self.ahead) = Some(Ahead {
            typed: typed.to_owned(),
            sql,
            schema,
            recording,
            begun,
        });
        // Where the network's thread waits for this core, it is to send before DuckDB goes on.
        std::thread::yield_now();
        Ok(true)
    }

    /// What the columns of a read will most likely be, if it has been sent ahead.
    pub fn foreseen_columns(&self, sql: &str) -> Option<SchemaRef> {
        let ahead = lock(&self.ahead);
        let ahead = ahead.as_ref().filter(|ahead| ahead.sql == sql)?;
        Some(Arc::clone(&ahead.schema))
    }

    /// Cancels what has been sent ahead, if it has not been asked for.
    pub fn drop_ahead(&self) {
        let ahead = lock(&self.ahead).take();
        if let Some(ahead) = ahead {
            self.remote.rewrites().give_up(&ahead.typed);
        }
    }

    /// What has been sent ahead, if it is this.
    fn take_ahead(&self, sql: &str, transactional: bool, access: Access) -> Option<Ahead> {
        let ahead = lock(&self.ahead).take()?;
        if ahead.sql == sql && !transactional && access == Access::Read && self.is_settled() {
            return Some(ahead);
        }
        self.remote.rewrites().give_up(&ahead.typed);
        None
    }

    /// Whether a statement in autocommit would be sent without anything before it.
    fn is_settled(&self) -> bool {
        let settings = lock(&self.settings);
        settings.told == settings.wanted && *lock(&self.transaction) == TransactionState::None
    }

    /// Starts a statement and waits for its result's schema. `transactional`: the client connection is in an explicit
    /// transaction, which the server joins with this statement at the latest. `typed`: the user's text, if the statement
    /// has been made of that and nothing else.
    ///
    /// # Errors
    /// The server's, or the connection's.
    pub fn start(
        &self,
        interrupt: &dyn InterruptCheck,
        sql: &str,
        typed: Option<&str>,
        transactional: bool,
        access: Access,
    ) -> Result<Scan> {
        let (recording, foreseen, begun) = match self.take_ahead(sql, transactional, access) {
            Some(ahead) => (ahead.recording, Some(ahead.schema), Some(ahead.begun)),
            None => (Recording::start(&self.remote, sql, access.kind()), None, None),
        };
        let outcome = match begun.map(|begun| begun.wait(interrupt)) {
            // What was lost is a read: it is sent again, on a new session if need be.
            Some(Err(error)) if error.kind == ExceptionType::Connection => None,
            outcome => outcome,
        };
        let outcome = outcome.unwrap_or_else(|| self.start_recorded(interrupt, sql, transactional, access, &recording));
        match outcome {
            Ok(begun) => {
                let scan = Scan::stream(Arc::clone(&self.remote), begun, recording)?;
                if let Some(typed) = typed
                    && foreseen.as_ref() != Some(scan.schema())
                    && !transactional
                    && access == Access::Read
                {
                    self.remote.rewrites().learn(typed, sql, Arc::clone(scan.schema()));
                }
                Ok(scan)
            }
            Err(error) => {
                self.forget_stale_catalog(&error);
                recording.end(Err(&error));
                Err(error)
            }
        }
    }

    fn start_recorded(
        &self,
        interrupt: &dyn InterruptCheck,
        sql: &str,
        transactional: bool,
        access: Access,
        recording: &Recording,
    ) -> Result<Begun> {
        let options = QueryOptions {
            begin_transaction: self.joins_now(transactional)?,
            history_id: Some(recording.id()),
            stored_types: true,
        };
        if access == Access::Write && changes_definitions(sql) {
            *lock(&self.snapshot) = Snapshot::default();
        }
        let outcome = self.request(interrupt, |session| {
            let sql = sql.to_owned();
            recording.traffic().add_sent(0, sql.len() as u64);
            begin(session, sql, options, access == Access::Write)
        });
        if options.begin_transaction {
            self.note_begun(outcome.as_ref().err());
        }
        outcome
    }

    /// Starts sending rows to a table.
    ///
    /// # Errors
    /// The connection's; what the server thinks of it is learnt later.
    pub fn upload(
        &self,
        interrupt: &dyn InterruptCheck,
        target: IngestTarget,
        schema: SchemaRef,
        transactional: bool,
    ) -> Result<Upload> {
        let text = upload_text(&target.schema, &target.table);
        let recording = Recording::start(&self.remote, &text, Kind::Write);
        let (session, begin_transaction) = match self.ready_for_upload(interrupt, transactional) {
            Ok(ready) => ready,
            Err(error) => {
                recording.end(Err(&error));
                return Err(error);
            }
        };
        if !matches!(target.mode, IngestMode::Append | IngestMode::AppendByName) {
            *lock(&self.snapshot) = Snapshot::default();
        }
        let target = IngestTarget {
            begin_transaction,
            ..target
        };
        Upload::start(Arc::clone(&self.remote), session, target, schema, recording)
    }

    /// A session to send rows on, and whether they are to begin the server's part of the transaction.
    fn ready_for_upload(&self, interrupt: &dyn InterruptCheck, transactional: bool) -> Result<(Session, bool)> {
        let begin_transaction = self.joins_now(transactional)?;
        // A session that the server has lost is noticed here: an upload cannot be repeated.
        self.request(interrupt, |session| async move { session.keep_alive().await })?;
        let session = self.session(interrupt)?;
        if begin_transaction {
            self.note_begun(None);
        }
        Ok((session, begin_transaction))
    }

    /// Whether the next statement is to begin the server's part of the transaction. If so, it is about to.
    fn joins_now(&self, transactional: bool) -> Result<bool> {
        let joins = match *lock(&self.transaction) {
            TransactionState::Lost if transactional => Err(ExtError::new(
                ExceptionType::Transaction,
                "the transaction was lost when the connection to the duckling broke, and nothing of it was committed \
                 there: ROLLBACK and begin anew",
            )),
            TransactionState::Open => Ok(false),
            _ => Ok(transactional),
        }?;
        if joins {
            *lock(&self.snapshot) = Snapshot {
                epoch: Some(self.remote.cache().epoch()),
                own: SchemaCache::default(),
            };
        }
        Ok(joins)
    }

    /// The server was asked to begin. Even if the statement failed it may have begun before it did; a rollback too many
    /// is harmless.
    fn note_begun(&self, error: Option<&ExtError>) {
        let lost = error.is_some_and(|error| error.kind == ExceptionType::Connection);
        *lock(&self.transaction) = if lost {
            TransactionState::Lost
        } else {
            TransactionState::Open
        };
    }

    /// Begins the server's part of the client connection's transaction now, instead of with its first statement.
    ///
    /// # Errors
    /// The server's, or the connection's.
    pub fn begin(&self, interrupt: &dyn InterruptCheck) -> Result<()> {
        if self.joins_now(true)? {
            let options = QueryOptions {
                begin_transaction: true,
                ..QueryOptions::default()
            };
            let outcome = self.request(interrupt, |session| async move {
                session.execute_with("SELECT 1", options).await
            });
            self.note_begun(outcome.as_ref().err());
            outcome?;
        }
        Ok(())
    }

    /// The columns of a statement's result, without running it.
    ///
    /// # Errors
    /// The server's, or the connection's.
    pub fn describe(&self, interrupt: &dyn InterruptCheck, sql: &str) -> Result<Vec<ColumnDescription>> {
        let beginning = Beginning::now();
        let id = beginning.id();
        let bytes_sent = AtomicU64::new(0);
        let shape = self.request(interrupt, |session| {
            let sql = sql.to_owned();
            bytes_sent.fetch_add(sql.len() as u64, Ordering::Relaxed);
            async move { session.describe_as(sql, Some(id)).await }
        });
        shape.map(|shape| shape.columns).inspect_err(|error| {
            // Such a statement is not going to be run: this is its end.
            let recording = Recording::begun(beginning, &self.remote, sql, Kind::Write);
            recording.traffic().add_sent(0, bytes_sent.into_inner());
            recording.end(Err(error));
        })
    }

    /// Ends the server's part of the client connection's transaction, if it has one.
    ///
    /// # Errors
    /// A COMMIT's. The transaction is over all the same.
    pub fn commit(&self, interrupt: &dyn InterruptCheck) -> Result<()> {
        match self.end_transaction() {
            TransactionState::None => Ok(()),
            TransactionState::Open => self
                .run_control(interrupt, "COMMIT", Kind::Transaction)
                .map_err(without_commit_prefix),
            TransactionState::Lost => {
                let error = ExtError::new(
                    ExceptionType::Transaction,
                    "the transaction was lost when the connection to the duckling broke; nothing of it was committed \
                     there",
                );
                Recording::start(&self.remote, "COMMIT", Kind::Transaction).end(Err(&error));
                Err(error)
            }
        }
    }

    /// Undoes the server's part of the client connection's transaction, if it has one. Never fails: a server that
    /// cannot be told rolls back by itself when it misses the session.
    pub fn rollback(&self) {
        if self.end_transaction() == TransactionState::Open {
            let _ = self.run_control(&Never, "ROLLBACK", Kind::Transaction);
        }
    }

    /// Drops a temporary table of the session, if it can: it goes with the session in any case.
    pub fn drop_temporary(&self, name: &str) {
        let name = name.replace('"', "\"\"");
        let sql = format!("DROP TABLE IF EXISTS temp.main.\"{name}\"");
        let _ = self.run_control(&Never, &sql, Kind::Write);
    }

    fn end_transaction(&self) -> TransactionState {
        *lock(&self.snapshot) = Snapshot::default();
        std::mem::replace(&mut *lock(&self.transaction), TransactionState::None)
    }

    fn run_control(&self, interrupt: &dyn InterruptCheck, sql: &str, kind: Kind) -> Result<()> {
        let recording = Recording::start(&self.remote, sql, kind);
        match self.control(interrupt, sql, &recording) {
            Ok(summary) => {
                self.remote.cache().observe(summary.catalog_epoch);
                recording.end(Ok(Outcome::of(&summary)));
                Ok(())
            }
            Err(error) => {
                // Not in a forked child, where dropping the session would disturb the parent's.
                if error.kind == ExceptionType::Connection && self.remote.check_process().is_ok() {
                    // Whatever the session's state is: it is not used again.
                    self.forget_session();
                }
                recording.end(Err(&error));
                Err(error)
            }
        }
    }

    fn control(&self, interrupt: &dyn InterruptCheck, sql: &str, recording: &Recording) -> Result<StatementSummary> {
        self.remote.check_process()?;
        // Never on a session opened anew: that one has no transaction to end.
        let Some(session) = lock(&self.session).clone() else {
            return Err(ExtError::new(
                ExceptionType::Connection,
                "the connection to the duckling is gone",
            ));
        };
        let options = QueryOptions {
            history_id: Some(recording.id()),
            ..QueryOptions::default()
        };
        recording.traffic().add_sent(0, sql.len() as u64);
        let traffic = Arc::clone(recording.traffic());
        let sql = sql.to_owned();
        runtime::wait(interrupt, async move {
            let answer = tokio::time::timeout(CONTROL_TIMEOUT, session.execute_with(sql.as_str(), options));
            let summary = answer.await.map_err(|_| {
                ExtError::new(
                    ExceptionType::Connection,
                    format!("the duckling did not answer {sql} in time"),
                )
            })?;
            let summary = summary.map_err(ForUser::for_user)?;
            traffic.add_received(summary.rows, summary.bytes);
            Ok(summary)
        })
    }

    /// A table or view by name. With `validate`, what is cached is first checked to be current.
    ///
    /// # Errors
    /// The server's, or the connection's.
    pub fn lookup_table(
        &self,
        interrupt: &dyn InterruptCheck,
        schema: &SchemaPath,
        table_name: &str,
        validate: bool,
    ) -> Result<Option<Arc<TableDescription>>> {
        let in_transaction = self.in_transaction();
        let get = |cache: &SchemaCache| cache.get(schema, table_name);
        if let Some(known) = self.known(interrupt, in_transaction, validate, get)? {
            return Ok(Some(known));
        }
        let lookup = self.request(interrupt, |session| {
            let (schema, table_name) = (schema.clone(), table_name.to_owned());
            async move { session.lookup_table(&schema.names(), table_name).await }
        })?;
        if in_transaction {
            let own = &mut lock(&self.snapshot).own;
            return Ok(lookup.table.map(|table| own.insert(own.epoch(), table)));
        }
        let mut cache = self.remote.cache();
        cache.observe(lookup.epoch);
        Ok(lookup.table.map(|table| cache.insert(lookup.epoch, table)))
    }

    /// Whether a schema exists.
    ///
    /// # Errors
    /// The server's, or the connection's.
    pub fn lookup_schema(&self, interrupt: &dyn InterruptCheck, schema: &SchemaPath) -> Result<bool> {
        let (epoch, exists) = self.request(interrupt, |session| {
            let schema = schema.clone();
            async move { session.lookup_schema(&schema.names()).await }
        })?;
        self.remote.cache().observe(epoch);
        Ok(exists)
    }

    /// Whether the server has a function of this name, whatever its arguments. The names are read once.
    ///
    /// # Errors
    /// The server's, or the connection's.
    pub fn has_function(&self, interrupt: &dyn InterruptCheck, name: &str) -> Result<bool> {
        if let Some(names) = &*self.remote.functions() {
            return Ok(names.contains(name));
        }
        let names = self.request(interrupt, |session| async move {
            let batches = collect(session.query(FUNCTION_NAMES).await?).await?;
            Ok(string_set(&batches))
        })?;
        let found = names.contains(name);
        *self.remote.functions() = Some(names);
        Ok(found)
    }

    fn cache_is_current(&self, interrupt: &dyn InterruptCheck) -> Result<bool> {
        let epoch = self.request(interrupt, |session| async move { session.keep_alive().await })?;
        Ok(!self.remote.cache().observe(epoch))
    }

    /// What is known of the catalog already; in a transaction, as that sees it. With `validate`, only what is sure to be
    /// current.
    fn known<T>(
        &self,
        interrupt: &dyn InterruptCheck,
        in_transaction: bool,
        validate: bool,
        get: impl Fn(&SchemaCache) -> Option<T>,
    ) -> Result<Option<T>> {
        if !in_transaction {
            let known = get(&self.remote.cache());
            let is_current = known.is_some() && (!validate || self.cache_is_current(interrupt)?);
            return Ok(known.filter(|_| is_current));
        }
        let snapshot = lock(&self.snapshot);
        let own = get(&snapshot.own);
        if own.is_some() || validate {
            return Ok(own);
        }
        let cache = self.remote.cache();
        Ok(get(&cache).filter(|_| snapshot.epoch == Some(cache.epoch())))
    }

    fn in_transaction(&self) -> bool {
        *lock(&self.transaction) == TransactionState::Open
    }

    /// All schemas, tables and views of the remote database.
    ///
    /// # Errors
    /// The server's, or the connection's.
    pub fn list_tables(&self, interrupt: &dyn InterruptCheck) -> Result<(Vec<SchemaPath>, Vec<Arc<TableDescription>>)> {
        let in_transaction = self.in_transaction();
        let snapshot = self.request(interrupt, |session| async move { session.list_tables().await })?;
        let schemas = snapshot.schemas.iter();
        let schemas = schemas
            .map(|schema| SchemaPath::new(&schema.parent_schemas, &schema.schema_name))
            .collect();
        if in_transaction {
            return Ok((schemas, snapshot.tables.into_iter().map(Arc::new).collect()));
        }
        let mut cache = self.remote.cache();
        cache.observe(snapshot.epoch);
        let tables = snapshot
            .tables
            .into_iter()
            .map(|table| {
                if table.is_view {
                    // Its columns may be those of before its tables were changed, as in DuckDB's own lists. Whoever uses it asks.
                    return Arc::new(table);
                }
                cache.insert(snapshot.epoch, table)
            })
            .collect();
        Ok((schemas, tables))
    }

    /// The definitions of one kind in the remote database.
    ///
    /// # Errors
    /// The server's, or the connection's.
    pub fn list_definitions(
        &self,
        interrupt: &dyn InterruptCheck,
        kind: DefinitionKind,
    ) -> Result<Vec<DefinitionDescription>> {
        let (_, listed) = self.request(interrupt, move |session| async move {
            session.list_definitions(&[kind]).await
        })?;
        Ok(listed)
    }

    /// A type or macro by name. All of them are read once an epoch. With `validate`, what is cached is first checked to be
    /// current.
    ///
    /// # Errors
    /// The server's, or the connection's.
    pub fn lookup_definition(
        &self,
        interrupt: &dyn InterruptCheck,
        kind: DefinitionKind,
        schema: &SchemaPath,
        name: &str,
        validate: bool,
    ) -> Result<Option<Arc<DefinitionDescription>>> {
        let known = self.bindable_definitions(interrupt, validate)?;
        Ok(known.get(kind, schema, name))
    }

    fn bindable_definitions(&self, interrupt: &dyn InterruptCheck, validate: bool) -> Result<Arc<Definitions>> {
        let in_transaction = self.in_transaction();
        if let Some(known) = self.known(interrupt, in_transaction, validate, SchemaCache::definitions)? {
            return Ok(known);
        }
        let (epoch, listed) = self.request(
            interrupt,
            |session| async move { session.list_definitions(&BINDABLE).await },
        )?;
        let listed = Arc::new(Definitions::new(listed));
        if in_transaction {
            let own = &mut lock(&self.snapshot).own;
            own.set_definitions(own.epoch(), Arc::clone(&listed));
        } else {
            self.remote.cache().set_definitions(epoch, Arc::clone(&listed));
        }
        Ok(listed)
    }

    /// Loads a DuckDB extension on the server.
    ///
    /// # Errors
    /// The server's, or the connection's.
    pub fn load_extension(&self, interrupt: &dyn InterruptCheck, name: &str) -> Result<()> {
        self.request(interrupt, |session| {
            let name = name.to_owned();
            async move { session.load_extension(name).await }
        })?;
        self.remote.cache().clear();
        *self.remote.functions() = None;
        Ok(())
    }

    /// A catalog or binder error may mean that what is cached is out of date: look again next time.
    fn forget_stale_catalog(&self, error: &RemoteError) {
        if matches!(error.kind, ExceptionType::Catalog | ExceptionType::Binder) {
            self.remote.cache().clear();
        }
    }
}

/// Sends a statement and waits for its result to begin.
async fn begin(
    session: Session,
    sql: String,
    options: QueryOptions,
    ends_soon: bool,
) -> std::result::Result<Begun, ClientError> {
    let stream = session.query_with(sql, options).await?;
    Ok(Begun::of(stream, ends_soon).await)
}

impl Drop for RemoteSession {
    fn drop(&mut self) {
        if self.remote.check_process().is_err() {
            // A forked child's copy: closing it would use the parent's runtime, whose threads are not here.
            std::mem::forget(lock(&self.session).take());
        }
    }
}

/// The batches of a listing, as far as [`LISTED_ROWS_MAX`] allows.
async fn collect(mut batches: QueryStream) -> std::result::Result<Vec<RecordBatch>, ClientError> {
    let mut all = Vec::new();
    let mut rows = 0;
    while let Some(batch) = batches.try_next().await? {
        rows += batch.num_rows();
        all.push(batch);
        if rows >= LISTED_ROWS_MAX {
            break;
        }
    }
    Ok(all)
}

/// Whether a statement may make or drop types and macros, as far as its text tells: wrong only to the safe side.
fn changes_definitions(sql: &str) -> bool {
    let word = sql.split(|c: char| !c.is_ascii_alphabetic()).next().unwrap_or_default();
    !WITHOUT_DEFINITIONS.iter().any(|plain| word.eq_ignore_ascii_case(plain))
}

/// The values of the first column, which is text.
fn string_set(batches: &[RecordBatch]) -> HashSet<String> {
    let mut set = HashSet::new();
    for batch in batches {
        if let Some(column) = batch.columns().first().and_then(|column| column.as_string_opt::<i32>()) {
            set.extend(column.iter().flatten().map(str::to_owned));
        }
    }
    set
}

/// DuckDB puts these words before the error of a COMMIT, on the server and here again.
fn without_commit_prefix(mut error: ExtError) -> ExtError {
    if let Some(rest) = error.message.strip_prefix(FAILED_TO_COMMIT) {
        error.message = rest.to_owned();
    }
    error
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_statements_leave_definitions_alone() {
        assert!(!changes_definitions("insert into t values (1)"));
        for sql in ["CREATE MACRO m() AS 1", "DROP TYPE t", "/* */ SELECT 1", ""] {
            assert!(changes_definitions(sql), "{sql}");
        }
    }

    #[test]
    fn a_failed_commit_says_so_once() {
        let error = ExtError::new(ExceptionType::Transaction, "Failed to commit: a conflict");
        assert_eq!(without_commit_prefix(error).message, "a conflict");
    }
}
