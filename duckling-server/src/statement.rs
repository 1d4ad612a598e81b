//! Running one request's SQL, on a blocking thread, into a queue.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::time::Instant;

use arrow::array::RecordBatch;
use arrow::datatypes::{Schema, SchemaRef};
use duckherder_client::{BatchMessage, SchemaMessage};
use duckherder_proto::error::{ERROR_SUBTYPE, ROUTE_OUTDATED};
use duckherder_proto::history::{HistoryId, Traffic};
use duckherder_proto::v1::{
    BatchMetadata, ColumnDescription, Compression, DefinitionsVersion, ResultKind, StatementSummary,
};
use duckherder_proto::{ExceptionType, Message as _, RemoteError};
use tokio::sync::OwnedSemaphorePermit;

use crate::config::Limits;
use crate::duckdb::{
    ArrowResult, Connection, Parameters, Plan, ResultTypes, ShortResult, Statement, StatementKind, for_each_row,
    short_kind,
};
use crate::encode::BatchEncoder;
use crate::estimate::Estimate;
use crate::herd::gather::RoutedRows;
use crate::herd::routes::{Candidate, Found, Route};
use crate::herd::statistics::QueryStatistics;
use crate::herd::{HerdSession, ddl};
use crate::history::Recording;
use crate::message::Message;
use crate::plain::{Mapping, Plain};
use crate::queue::Producer;
use crate::routing::TransactionControl;
use crate::session::{Lease, Place, Registration, Sessions};

/// How often a rollback is tried that is interrupted each time.
const ROLLBACKS_MAX: usize = 8;

/// As DuckDB says it of a transaction that an error has aborted.
const ABORTED: &str = "Current transaction is aborted (please ROLLBACK)";

const NO_STATEMENT: &str = "there is no SQL statement to run";

/// Statements to run, as some protocol asked for them.
pub struct Job {
    /// One statement or several; the last one's result counts.
    pub sql: String,
    /// Where they run.
    pub place: Place,
    /// Values for the last statement's parameters: it runs once for every row. `None` for one that has none. They have
    /// been [checked](crate::arrow_check).
    pub parameters: Option<Arc<Values>>,
    /// Who reads the result.
    pub mapping: Mapping,
    /// So many further streams may join in reading the result: if there are any, each record batch says its place in it.
    pub further_streams: u32,
    pub routing: Routing,
}

/// What the sender has to do with how a herd's coordinator routes statements.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub enum Routing {
    /// Nothing.
    #[default]
    None,
    /// It wants to know how to send the next one like this to its worker.
    Wanted,
    /// It has sent it to its worker: to be run there if the definitions are still these.
    Known(DefinitionsVersion),
}

/// Rows of values for parameters.
pub struct Values {
    pub batches: Vec<RecordBatch>,
    /// What they take of the memory that their session may take.
    pub memory: Vec<OwnedSemaphorePermit>,
}

/// Runs all statements of a job and streams the last one's result into `producer`, or drops it if there is none. On our
/// own link, the summary is the last message. Returns the rows changed, for a statement that changes rows.
pub fn run(
    sessions: &Sessions,
    lease: &mut Lease,
    job: &Job,
    way: Way,
    registration: &Registration,
    recording: &Recording,
    producer: Option<&Producer>,
) -> Result<Option<u64>, RemoteError> {
    let started = Instant::now();
    if TransactionControl::first_in(&job.sql).is_none() {
        // Before parsing, and before a transaction begins: some settings, such as integer_division, are the parser's, and
        // some the transaction's.
        lease.apply_settings()?;
    }
    if job.place == Place::Begin {
        begin(lease)?;
    }
    let mut to_learn = None;
    match way {
        Way::Ran(_) | Way::Short => {
            if matches!(way, Way::Short) {
                registration.start(false)?;
            }
            if let Some(result) = run_short(lease, &job.sql, way)? {
                recording.is_a(result.kind.name());
                let compression = compression(lease, job);
                let mut sink = Sink::new(sessions.limits(), recording.traffic(), producer, job, compression)?;
                let started = started.checked_sub(result.took).unwrap_or(started);
                if let Routing::Known(known) = job.routing {
                    check_definitions(sessions, known, result.kind, result.catalog_version)?;
                }
                sink.take_short(result)?;
                return finish(sessions, job, sink.summary, started, recording.id(), producer);
            }
        }
        Way::Routed(route, rows, settled) => {
            recording.is_a(StatementKind::Read.name());
            registration.start(false)?;
            let compression = compression(lease, job);
            let mut sink = Sink::new(sessions.limits(), recording.traffic(), producer, job, compression)?;
            let herd = lease.herd()?;
            let is_told = job.routing == Routing::Wanted;
            if run_routed(&herd, &route, rows, is_told, &mut sink)? {
                // What was being changed meanwhile may be so on some workers, and not yet on others.
                if settled.is_none() || settled != sessions.definitions().settled() {
                    sink.summary.route = None;
                }
                return finish(sessions, job, sink.summary, started, recording.id(), producer);
            }
            if let Some(known) = candidate(sessions, lease, job)? {
                herd.herd().routes().forget(known);
            }
        }
        Way::Planned => {}
        Way::Unknown => to_learn = candidate(sessions, lease, job)?,
    }
    let connection = lease.connection()?;
    let mut statements = match job.parameters {
        None => connection.statements(&job.sql)?,
        Some(_) => connection.parse(&job.sql)?,
    };
    let last = statements
        .pop()
        .ok_or_else(|| RemoteError::new(ExceptionType::InvalidInput, NO_STATEMENT))?;
    recording.is_a(last.kind().name());
    if let Routing::Known(known) = job.routing {
        registration.start(false)?;
        let compression = compression(lease, job);
        let mut sink = Sink::new(sessions.limits(), recording.traffic(), producer, job, compression)?;
        let kind = if statements.is_empty() && !lease.in_transaction() {
            last.kind()
        } else {
            StatementKind::Other
        };
        in_own_transaction(lease.connection()?, |connection| {
            let version = connection.catalog_version()?;
            check_definitions(sessions, known, kind, version)?;
            sink.take(connection, &last, &Parameters::none())
        })?;
        return finish(sessions, job, sink.summary, started, recording.id(), producer);
    }
    if !statements.is_empty() {
        registration.start(false)?;
    }
    for statement in &statements {
        let _changing = may_change_definitions(statement).then(|| sessions.definitions().changing());
        prepare_workers(sessions, lease, statement)?;
        let mut run = |connection: &mut Connection, statement: &Statement| drain(connection, statement);
        let outcome = run_or_define(lease, statement, &mut run, &mut |lease| {
            drain(lease.connection()?, statement)
        });
        note_effects(sessions, lease, statement, outcome.is_ok());
        end_on_workers(lease, outcome, false)?;
    }
    registration.start(lease.in_transaction() && last.only_reads())?;
    if lease.is_aborted() {
        if commits(&last) {
            return refuse_commit(sessions, lease);
        }
        if last.kind() != StatementKind::Transaction {
            return Err(RemoteError::new(ExceptionType::Transaction, ABORTED));
        }
    }
    let changing = may_change_definitions(&last).then(|| sessions.definitions().changing());
    prepare_workers(sessions, lease, &last)?;
    let compression = compression(lease, job);
    let mut sink = Sink::new(sessions.limits(), recording.traffic(), producer, job, compression)?;
    let outcome = if defines(&last) {
        let sink = RefCell::new(&mut sink);
        let mut run = |connection: &mut Connection, statement: &Statement| {
            run_with_parameters(connection, statement, job, &mut sink.borrow_mut())
        };
        let mut otherwise = |lease: &mut Lease| run_last(lease, &last, job, &mut sink.borrow_mut());
        run_or_define(lease, &last, &mut run, &mut otherwise)
    } else {
        run_last(lease, &last, job, &mut sink)
    };
    note_effects(sessions, lease, &last, outcome.is_ok());
    let is_given_up = last.kind() == StatementKind::Read && producer.is_some_and(Producer::is_closed);
    end_on_workers(lease, outcome, is_given_up)?;
    drop(changing);
    let schema = sink.plain.as_ref().map(|plain| Arc::clone(plain.schema()));
    let mut summary = sink.summary;
    if last.kind() == StatementKind::Write && producer.is_some() && summary.result_kind() == ResultKind::Rows {
        // RETURNING: one row for each that was changed.
        summary.rows_changed = Some(summary.rows);
    }
    let changed = finish(sessions, job, summary, started, recording.id(), producer)?;
    if let Some(candidate) = to_learn
        && statements.is_empty()
        && last.kind() == StatementKind::Read
    {
        let herd = lease.herd()?;
        let gathered = herd.only_gather();
        let routes = herd.herd().routes();
        routes.learn(
            candidate,
            lease.connection()?,
            &last,
            schema.as_ref(),
            gathered.as_ref(),
        );
    }
    Ok(changed)
}

fn compression(lease: &Lease, job: &Job) -> Compression {
    match job.mapping {
        Mapping::Link | Mapping::Stored => lease.session.compression,
        // Not every client of Flight SQL can unpack.
        Mapping::Generic | Mapping::Lossless => Compression::None,
    }
}

/// The version of a worker's definitions, of which `catalog_version` is the part that is DuckDB's. `None` if it may be no worker of
/// its coordinator any more.
pub fn definitions_version(sessions: &Sessions, catalog_version: Option<u64>) -> Option<DefinitionsVersion> {
    Some(DefinitionsVersion {
        instance: sessions.definitions().instance(),
        catalog_version: catalog_version?,
        term: sessions.herd().registry().term()?,
    })
}

/// Whether a statement that was sent to its worker is to be run there: a query, and the definitions that it finds are those that its
/// sender has found its way with.
fn check_definitions(
    sessions: &Sessions,
    known: DefinitionsVersion,
    kind: StatementKind,
    catalog_version: Option<u64>,
) -> Result<(), RemoteError> {
    let is_same = definitions_version(sessions, catalog_version) == Some(known);
    if is_same && kind == StatementKind::Read {
        return Ok(());
    }
    let mut error = RemoteError::new(
        ExceptionType::InvalidInput,
        "this worker is not known to have the statement's rows any more: ask the coordinator",
    );
    error
        .extra_info
        .insert(ERROR_SUBTYPE.to_owned(), ROUTE_OUTDATED.to_owned());
    Err(error)
}

/// Whether what a statement does, here or on workers, may be seen in the catalog.
fn may_change_definitions(statement: &Statement) -> bool {
    !matches!(statement.kind(), StatementKind::Read | StatementKind::Write)
}

/// Tells the end of a job.
fn finish(
    sessions: &Sessions,
    job: &Job,
    mut summary: StatementSummary,
    started: Instant,
    id: HistoryId,
    producer: Option<&Producer>,
) -> Result<Option<u64>, RemoteError> {
    let elapsed = started.elapsed();
    summary.elapsed_us = u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX);
    if matches!(job.routing, Routing::Known(_)) {
        let herd = sessions.herd();
        let worker = herd.registry().own_id();
        let statistics = QueryStatistics::of_direct(id, &job.sql, worker, elapsed, summary.rows, summary.bytes);
        herd.statistics().record(statistics);
    }
    summary.catalog_epoch = sessions.epoch();
    if let Some(producer) = producer
        && matches!(job.mapping, Mapping::Link | Mapping::Stored)
    {
        producer.send(Message::of_metadata(summary.encode_to_vec()))?;
    }
    Ok(summary.rows_changed)
}

/// How a job is run, as far as that is known before it begins.
pub enum Way {
    /// It is [short](Lease::is_short), and has been run.
    Ran(Result<ShortResult, RemoteError>),
    /// It is short.
    Short,
    /// One worker has its rows, and has been asked for them; [`Definitions::settled`] before that.
    Routed(Arc<Route>, Result<Box<RoutedRows>, RemoteError>, Option<u64>),
    /// It has to be planned.
    Planned,
    /// It has to be planned, and may be known afterwards.
    Unknown,
}

/// Runs a statement if it is short, and may be run at once. `None` if it is not short.
pub fn find_short_way(sessions: &Sessions, lease: &mut Lease, sql: &str, registration: &Registration) -> Option<Way> {
    if !lease.is_short(sql) {
        return None;
    }
    let ran = sessions.at_once().run(|| {
        lease.apply_settings()?;
        registration.start(false)?;
        lease.connection()?.run_short(sql)
    });
    Some(match ran.map(Result::transpose) {
        Some(Some(ran)) => Way::Ran(ran),
        Some(None) => Way::Planned,
        None => Way::Short,
    })
}

/// The result of a statement that is short. `None` if it has to be run like any other after all.
pub fn run_short(lease: &mut Lease, sql: &str, way: Way) -> Result<Option<ShortResult>, RemoteError> {
    match way {
        Way::Ran(ran) => ran.map(Some),
        Way::Short => lease.connection()?.run_short(sql),
        _ => Ok(None),
    }
}

/// Finds out how a job may be run, without blocking. The flag says that it does not block then, and has little to send.
pub async fn find_way(sessions: &Sessions, lease: &mut Lease, job: &Job, registration: &Registration) -> (Way, bool) {
    // What changes something is not run before it is looked at whether it may be.
    let is_read = !matches!(job.routing, Routing::Known(_)) || short_kind(&job.sql) == StatementKind::Read;
    if is_read
        && job.parameters.is_none()
        && job.place != Place::Begin
        && let Some(way) = find_short_way(sessions, lease, &job.sql, registration)
    {
        let has_run = matches!(way, Way::Ran(_));
        return (way, has_run);
    }
    let settled = sessions.definitions().settled();
    let Ok(Some(candidate)) = candidate(sessions, lease, job) else {
        return (Way::Planned, false);
    };
    let (Ok(herd), Ok(())) = (lease.herd(), lease.apply_settings()) else {
        return (Way::Planned, false);
    };
    match herd.herd().routes().find(&candidate) {
        Found::Worker(route, worker) if registration.start(false).is_ok() => {
            let mut rows = RoutedRows::start(&herd, &route, worker, &job.sql).await.map(Box::new);
            let is_whole = match &mut rows {
                Ok(rows) if rows.is_expected() => rows.read_ahead().await,
                _ => false,
            };
            (Way::Routed(route, rows, settled), is_whole)
        }
        Found::Worker(..) | Found::Planned => (Way::Planned, false),
        Found::Unknown => (Way::Unknown, false),
    }
}

/// The job, if a worker of the herd might answer it without a plan, on behalf of the extension.
fn candidate<'job>(
    sessions: &Sessions,
    lease: &mut Lease,
    job: &'job Job,
) -> Result<Option<Candidate<'job>>, RemoteError> {
    let session = &lease.session;
    let is_plain = job.mapping == Mapping::Stored
        && job.place == Place::Session
        && job.parameters.is_none()
        && !lease.in_transaction()
        && !session.is_stateful()
        && !matches!(job.routing, Routing::Known(_));
    let settings = session.settings();
    if !is_plain || !lease.herd()?.herd().registry().has_workers() {
        return Ok(None);
    }
    Ok(Candidate::of(&job.sql, &settings, sessions.epoch()))
}

/// Has a worker answer the statement; whether it could. It has if there is an error. The summary gets how a client can ask the worker
/// itself, if that `is_told`.
fn run_routed(
    herd: &HerdSession,
    route: &Route,
    rows: Result<Box<RoutedRows>, RemoteError>,
    is_told: bool,
    sink: &mut Sink,
) -> Result<bool, RemoteError> {
    let mut rows = match rows {
        Ok(rows) => rows,
        Err(error) if herd.is_cancelled() => return Err(error),
        // What is wrong, the planner can say better.
        Err(_) => return Ok(false),
    };
    if !rows.is_expected() {
        return Ok(false);
    }
    rows.accept();
    sink.summary.set_result_kind(ResultKind::Rows);
    if sink.is_compressed {
        sink.begin(&route.schema)?;
    } else {
        sink.forward_schema(&rows.schema_message())?;
    }
    while let Some(message) = rows.next()? {
        if sink.is_compressed {
            let batch = rows.decode(message)?;
            sink.batch(batch)?;
        } else {
            sink.forward(message)?;
        }
    }
    if is_told {
        sink.summary.route = rows.route_of_client(route);
    }
    Ok(true)
}

fn drain(connection: &mut Connection, statement: &Statement) -> Result<(), RemoteError> {
    connection.run(statement)?.drain().map(|_| ())
}

/// Whether a statement may be one that changes the definition of a herd's table.
fn defines(statement: &Statement) -> bool {
    matches!(statement.kind(), StatementKind::Catalog | StatementKind::Other)
}

/// Runs a statement: if it changes the definition of a herd's table, here and on its workers, each part of it that is run
/// here with `run`; else with `otherwise`.
fn run_or_define(
    lease: &mut Lease,
    statement: &Statement,
    run: &mut ddl::Run<'_>,
    otherwise: &mut dyn FnMut(&mut Lease) -> Result<(), RemoteError>,
) -> Result<(), RemoteError> {
    if !defines(statement) {
        return otherwise(lease);
    }
    let herd = lease.herd()?;
    let is_open = lease.in_transaction();
    let mut in_transaction = |connection: &mut Connection, work: &mut ddl::Work<'_>| {
        if is_open {
            return work(connection);
        }
        in_own_transaction(connection, |connection| herd.end_writes(work(connection)))
    };
    let outcome = ddl::run(lease.connection()?, &herd, statement, &mut in_transaction, run);
    if !is_open {
        herd.ended();
    }
    if outcome.is_err() && is_open {
        // What has been done of it is not to be committed.
        lease.session.abort_transaction();
    }
    if outcome? { Ok(()) } else { otherwise(lease) }
}

/// Runs a statement, once for every row of the job's parameters if it takes any.
fn run_with_parameters(
    connection: &mut Connection,
    statement: &Statement,
    job: &Job,
    sink: &mut Sink,
) -> Result<(), RemoteError> {
    match &job.parameters {
        Some(values) if !statement.parameters()?.is_empty() => values.batches.iter().try_for_each(|batch| {
            for_each_row(connection, batch, |connection, parameters| {
                sink.take(connection, statement, &parameters)
            })
        }),
        _ => sink.take(connection, statement, &Parameters::none()),
    }
}

/// Runs the statement once for every row of the job's parameters. If several runs change something, all do or none.
fn run_last(lease: &mut Lease, statement: &Statement, job: &Job, sink: &mut Sink) -> Result<(), RemoteError> {
    if let Some(producer) = sink.producer {
        lease.set_reader(producer.hurry());
    }
    // On a lease outside the session's transaction, the connection is in none.
    let in_transaction = lease.in_transaction();
    let connection = lease.connection()?;
    let Some(parameters) = &job.parameters else {
        let mut run_once = |connection: &mut Connection| sink.take(connection, statement, &Parameters::none());
        if job.mapping == Mapping::Generic && returns_rows(statement) && !in_transaction {
            // A row that its reader cannot be given must not have been written.
            return in_own_transaction(connection, run_once);
        }
        return run_once(connection);
    };
    let rows: usize = parameters.batches.iter().map(RecordBatch::num_rows).sum();
    if rows == 0 {
        return sink.take_nothing(connection, statement);
    }
    let mut run_all = |connection: &mut Connection| {
        parameters.batches.iter().try_for_each(|batch| {
            for_each_row(connection, batch, |connection, parameters| {
                sink.take(connection, statement, &parameters)
            })
        })
    };
    if statement.kind() == StatementKind::Write && (rows > 1 || returns_rows(statement)) && !in_transaction {
        in_own_transaction(connection, run_all)
    } else {
        run_all(connection)
    }
}

/// Whether a write has RETURNING: a guess from the text, wrong only to the safe side.
fn returns_rows(statement: &Statement) -> bool {
    statement.kind() == StatementKind::Write && statement.text().to_ascii_lowercase().contains("returning")
}

/// Runs `work` in a transaction of its own, on a connection that is in none.
pub fn in_own_transaction<T>(
    connection: &mut Connection,
    work: impl FnOnce(&mut Connection) -> Result<T, RemoteError>,
) -> Result<T, RemoteError> {
    let outcome = catch_unwind(AssertUnwindSafe(|| begin_and_commit(connection, work)));
    if !matches!(outcome, Ok(Ok(_))) {
        // The first error is the one to report. An interrupt may have hit any of these when they had begun or ended the
        // transaction, or not; it may hit the rollback too, and so may one that comes late.
        for _ in 0..ROLLBACKS_MAX {
            if connection.execute("ROLLBACK").is_ok() {
                break;
            }
        }
    }
    outcome.unwrap_or_else(|panic| resume_unwind(panic))
}

fn begin_and_commit<T>(
    connection: &mut Connection,
    work: impl FnOnce(&mut Connection) -> Result<T, RemoteError>,
) -> Result<T, RemoteError> {
    connection.execute("BEGIN TRANSACTION")?;
    let value = work(connection)?;
    connection.execute("COMMIT")?;
    Ok(value)
}

/// Begins a transaction on the session's connection, unless it is in one.
pub fn begin(lease: &mut Lease) -> Result<(), RemoteError> {
    if !lease.session.in_transaction() {
        lease.connection()?.execute("BEGIN TRANSACTION")?;
        lease.session.set_in_transaction(true);
        lease.herd()?.begin();
    }
    Ok(())
}

/// What workers do before a statement runs here. A transaction begins there with its first statement. It is committed
/// there before it is here: theirs is what may fail. If it does, all is rolled back that still can be.
fn prepare_workers(sessions: &Sessions, lease: &mut Lease, statement: &Statement) -> Result<(), RemoteError> {
    if statement.kind() != StatementKind::Transaction && lease.in_transaction() {
        return lease.herd()?.begin_everywhere();
    }
    if !commits(statement) {
        return Ok(());
    }
    if lease.herd()?.has_writers() && lease.connection()?.transaction_is_invalidated()? {
        // DuckDB would roll its own part back, without a word.
        return refuse_commit(sessions, lease).map(|_| ());
    }
    let outcome = lease.herd()?.commit();
    outcome.map(|_| ()).or_else(|error| {
        roll_back(sessions, lease)?;
        Err(error)
    })
}

/// What a statement outside a transaction has begun on workers ends with it. A query that its reader has given up leaves
/// a transaction as it was, here and there.
fn end_on_workers(lease: &mut Lease, outcome: Result<(), RemoteError>, is_given_up: bool) -> Result<(), RemoteError> {
    let herd = lease.herd()?;
    if !lease.in_transaction() {
        return herd.end_writes(outcome);
    }
    if outcome.is_err() && !is_given_up && herd.has_written() {
        // What the others have done of it is not to be committed.
        lease.session.abort_transaction();
    }
    outcome
}

fn commits(statement: &Statement) -> bool {
    statement.kind() == StatementKind::Transaction
        && TransactionControl::of(statement.text()) == TransactionControl::Commit
}

/// Rolls an aborted transaction back and says so.
fn refuse_commit(sessions: &Sessions, lease: &mut Lease) -> Result<Option<u64>, RemoteError> {
    roll_back(sessions, lease)?;
    Err(RemoteError::new(
        ExceptionType::Transaction,
        "cannot commit: a statement of this transaction was interrupted or has failed in the middle, so it has been rolled \
         back",
    ))
}

fn roll_back(sessions: &Sessions, lease: &mut Lease) -> Result<(), RemoteError> {
    let _ = lease.connection()?.execute("ROLLBACK");
    lease.herd()?.rollback();
    lease.session.set_in_transaction(false);
    sessions.advance_epoch();
    Ok(())
}

/// Keeps the session's and the catalog's books after a statement. A failed statement may have changed something too.
fn note_effects(sessions: &Sessions, lease: &mut Lease, statement: &Statement, succeeded: bool) {
    match statement.kind() {
        StatementKind::Read | StatementKind::Write => {}
        StatementKind::Catalog => sessions.advance_epoch(),
        StatementKind::Transaction => match TransactionControl::of(statement.text()) {
            TransactionControl::Begin => {
                if succeeded {
                    lease.session.set_in_transaction(true);
                    if let Ok(herd) = lease.herd() {
                        herd.begin();
                    }
                }
            }
            // A COMMIT that fails has rolled back.
            TransactionControl::Commit | TransactionControl::Rollback => {
                lease.session.set_in_transaction(false);
                if let Ok(herd) = lease.herd() {
                    herd.rollback();
                }
                sessions.advance_epoch();
            }
        },
        StatementKind::Other => {
            lease.session.set_stateful();
            sessions.advance_epoch();
        }
    }
}

/// Takes the results of one statement's runs.
struct Sink<'a> {
    limits: &'a Limits,
    traffic: &'a Traffic,
    producer: Option<&'a Producer>,
    mapping: Mapping,
    encoder: BatchEncoder,
    is_compressed: bool,
    /// Set by the first run.
    plain: Option<Plain>,
    summary: StatementSummary,
    /// The place of the next record batch, if they say theirs.
    index: Option<u64>,
}

impl<'a> Sink<'a> {
    fn new(
        limits: &'a Limits,
        traffic: &'a Traffic,
        producer: Option<&'a Producer>,
        job: &Job,
        compression: Compression,
    ) -> Result<Self, RemoteError> {
        Ok(Self {
            limits,
            traffic,
            producer,
            mapping: job.mapping,
            encoder: BatchEncoder::compressed(limits.message_bytes, compression)?,
            is_compressed: compression != Compression::None,
            plain: None,
            summary: StatementSummary::default(),
            index: (job.further_streams > 0).then_some(0),
        })
    }

    /// The result of the next run has this schema: told once, and the same for all.
    fn begin(&mut self, schema: &SchemaRef) -> Result<(), RemoteError> {
        let plain = Plain::new(schema, self.mapping)?;
        match &self.plain {
            None => {
                let message = self.encoder.schema(plain.schema());
                self.plain = Some(plain);
                send(message, self.traffic, self.producer, &mut self.summary.bytes)
            }
            Some(first) if first.schema() == plain.schema() => Ok(()),
            Some(_) => Err(RemoteError::new(
                ExceptionType::InvalidInput,
                "with these parameters the statement yields other columns than with the ones before; CAST them",
            )),
        }
    }

    fn take(
        &mut self,
        connection: &mut Connection,
        statement: &Statement,
        parameters: &Parameters,
    ) -> Result<(), RemoteError> {
        let types = match self.mapping {
            Mapping::Stored => ResultTypes::Stored,
            _ => ResultTypes::Arrow,
        };
        let mut result = connection.run_with(statement, parameters, self.limits.batch_size(), types)?;
        if self.producer.is_none() {
            return self.drop_rows(result, statement.kind());
        }
        let schema = result.schema()?;
        let result_kind = result.result_kind()?;
        self.summary.set_result_kind(result_kind);
        self.begin(&schema)?;
        let producer = self.producer;
        // A client can plan with the columns of a query while it runs; of a write it waits for the count.
        let flushes = result_kind == ResultKind::Rows;
        let pausing = || {
            producer.is_some_and(|producer| {
                if flushes {
                    producer.flush();
                }
                producer.is_closed()
            })
        };
        while let Some(batch) = result.next_batch(&pausing)? {
            if result_kind == ResultKind::ChangedRows {
                *self.summary.rows_changed.get_or_insert(0) += crate::duckdb::rows_changed(&batch);
            }
            self.batch(batch)?;
        }
        Ok(())
    }

    fn take_short(&mut self, result: ShortResult) -> Result<(), RemoteError> {
        if result.kind == StatementKind::Write {
            self.summary.set_result_kind(ResultKind::ChangedRows);
            self.summary.rows_changed = Some(result.row.as_ref().map_or(0, crate::duckdb::rows_changed));
        } else {
            self.summary.set_result_kind(ResultKind::Rows);
        }
        self.begin(&result.schema)?;
        result.row.map_or(Ok(()), |row| self.batch(row))
    }

    /// Runs to the end, for the rows changed only.
    fn drop_rows(&mut self, mut result: ArrowResult<'_>, kind: StatementKind) -> Result<(), RemoteError> {
        if kind != StatementKind::Write {
            return result.drain().map(|_| ());
        }
        result.schema()?;
        let counts = result.result_kind()? == ResultKind::ChangedRows;
        let changed = self.summary.rows_changed.get_or_insert(0);
        while let Some(batch) = result.next_batch(&|| false)? {
            *changed += if counts {
                crate::duckdb::rows_changed(&batch)
            } else {
                // RETURNING: one row for each that was changed.
                batch.num_rows() as u64
            };
        }
        Ok(())
    }

    fn batch(&mut self, batch: RecordBatch) -> Result<(), RemoteError> {
        self.summary.rows += batch.num_rows() as u64;
        self.traffic.add_sent(batch.num_rows() as u64, 0);
        let Some(plain) = &self.plain else { return Ok(()) };
        let batch = plain.batch(batch)?;
        let (traffic, producer, sent) = (self.traffic, self.producer, &mut self.summary.bytes);
        let next_index = &mut self.index;
        self.encoder.encode(&batch, &mut |mut message| {
            number(&mut message, next_index);
            send(message, traffic, producer, sent)
        })
    }

    /// The result's columns, encoded elsewhere.
    fn forward_schema(&mut self, schema: &SchemaMessage) -> Result<(), RemoteError> {
        let message = Message::of_arrow(schema.header().clone(), Vec::new());
        send(message, self.traffic, self.producer, &mut self.summary.bytes)
    }

    /// A batch that has been encoded elsewhere, for the columns of this result.
    fn forward(&mut self, batch: BatchMessage) -> Result<(), RemoteError> {
        self.summary.rows += batch.rows;
        self.traffic.add_sent(batch.rows, 0);
        let mut message = Message::of_arrow(batch.data.data_header, vec![batch.data.data_body]);
        number(&mut message, &mut self.index);
        send(message, self.traffic, self.producer, &mut self.summary.bytes)
    }

    /// The statement is not run at all: an empty result.
    fn take_nothing(&mut self, connection: &mut Connection, statement: &Statement) -> Result<(), RemoteError> {
        if statement.kind() == StatementKind::Write {
            self.summary.rows_changed = Some(0);
        }
        if self.producer.is_none() {
            return Ok(());
        }
        let columns = connection.plan(statement)?.columns.unwrap_or_else(Schema::empty);
        self.begin(&Arc::new(columns))
    }
}

/// Says the place of a batch in its result, if that is to be said.
fn number(message: &mut Message, next_index: &mut Option<u64>) {
    if let Some(index) = next_index {
        message.app_metadata = BatchMetadata { index: *index }.encode_to_vec().into();
        *index += 1;
    }
}

fn send(message: Message, traffic: &Traffic, producer: Option<&Producer>, sent: &mut u64) -> Result<(), RemoteError> {
    let bytes = message.arrow_bytes() as u64;
    *sent += bytes;
    traffic.add_sent(0, bytes);
    producer.map_or(Ok(()), |producer| producer.send(message))
}

/// What is known of `sql`, which is not run.
pub struct Planned {
    /// The last statement's kind.
    pub kind: StatementKind,
    /// The last statement's columns and parameters; `None` if they are known only when it runs: when statements before
    /// it have run, for one.
    pub plan: Option<Plan>,
    /// How large the result may be, if that was asked for and can be told.
    pub estimate: Option<Estimate>,
}

/// Parses and binds `sql`, one statement or several. With `estimates`, a query is also planned, as it would be to run.
///
/// # Errors
/// DuckDB's parser, binder and catalog errors.
pub fn plan(lease: &mut Lease, sql: &str, estimates: bool) -> Result<Planned, RemoteError> {
    lease.apply_settings()?;
    let connection = lease.connection()?;
    let statements = connection.parse(sql)?;
    let last = statements
        .last()
        .ok_or_else(|| RemoteError::new(ExceptionType::InvalidInput, NO_STATEMENT))?;
    let plan = match statements.as_slice() {
        [one] => Some(connection.plan(one)?),
        _ => None,
    };
    let is_whole_query = last.kind() == StatementKind::Read
        && plan
            .as_ref()
            .is_some_and(|plan| plan.columns.is_some() && plan.parameters.fields().is_empty());
    Ok(Planned {
        kind: last.kind(),
        plan,
        estimate: if estimates && is_whole_query {
            Estimate::of(connection, last)
        } else {
            None
        },
    })
}

/// The result columns of `sql`'s one statement, which is not run.
pub fn describe(lease: &mut Lease, sql: &str) -> Result<Vec<ColumnDescription>, RemoteError> {
    lease.apply_settings()?;
    let connection = lease.connection()?;
    let statements = connection.parse(sql)?;
    let [statement] = statements.as_slice() else {
        return Err(RemoteError::new(
            ExceptionType::InvalidInput,
            "exactly one SQL statement can be described",
        ));
    };
    let columns = connection.describe(statement)?;
    Ok(columns
        .into_iter()
        .map(|(name, type_text)| ColumnDescription {
            name,
            type_text,
            ..ColumnDescription::default()
        })
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::duckdb::{Database, DatabaseOptions};

    #[test]
    fn a_transaction_does_not_outlive_a_panic() {
        let database = Database::open(":memory:", &DatabaseOptions::default()).unwrap();
        let mut connection = database.connect().unwrap();
        connection.execute("CREATE TABLE t (i INTEGER)").unwrap();
        let panicked = catch_unwind(AssertUnwindSafe(|| {
            in_own_transaction(&mut connection, |connection| -> Result<(), RemoteError> {
                connection.execute("INSERT INTO t VALUES (1)")?;
                panic!("as if there were a bug")
            })
        }));
        assert!(panicked.is_err());
        connection.execute("BEGIN").unwrap();
        connection.execute("COMMIT").unwrap();
        assert_eq!(connection.execute("DELETE FROM t").unwrap(), 0);
    }
}
