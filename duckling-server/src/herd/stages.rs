//! As a worker: running the stages of a distributed query.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use duckherder_catalog::herd::placement::WorkerId;
use duckherder_proto::history::Traffic;
use duckherder_proto::v1::{HerdStage, HerdStageSummary, OutputKind, RunStagesRequest, RunStagesSummary};
use duckherder_proto::{ExceptionType, Message as _, RemoteError};
use futures::{StreamExt, stream};
use tonic::Status;
use tracing::{debug, info_span};

use super::exchange::{Outputs, Part, query_id};
use super::running::{RunningQuery, schema_of};
use crate::config::Limits;
use crate::duckdb::{ArrowResult, Connection, Parameters, ResultTypes, Statement, StatementKind};
use crate::encode::BatchEncoder;
use crate::history::{Recording, Sender};
use crate::message::Message;
use crate::plain::{Mapping, Plain};
use crate::queue::Producer;
use crate::routing::may_run_beside;
use crate::running::{Answer, AnswerStream, Turn, here_or_aside, recorded};
use crate::session::{Lease, Place, Sessions};
use crate::statement::{self, Way, begin, find_short_way, in_own_transaction};

/// Stages of one request, and exchanges that they read.
const STAGES_MAX: usize = 256;

/// Destinations, producers and addresses, of each stage or exchange.
const WORKERS_MAX: usize = 1024;

/// Buckets of a stage.
const BUCKETS_MAX: usize = 64 * 1024;

/// Readers of a stage's rows on one destination.
const READERS_MAX: u32 = 1024;

/// Runs a worker's part of a query; the gathered rows are read from the stream, which stays open while rows of the query
/// are kept. Returns when the first message is there.
///
/// # Errors
/// The request makes no sense, does not get its turn, or fails before its first message. All others come from the stream.
pub async fn run(
    sessions: &Arc<Sessions>,
    request: RunStagesRequest,
    client: Option<SocketAddr>,
) -> Result<Answer, Status> {
    let session = sessions.get(&request.session_id)?;
    let sender = Sender {
        session: session.number,
        client: client.map(|address| address.to_string().into()),
    };
    let text = history_text(&request);
    let recording = sessions.history().arrived(&request.history_id, sender, &text);
    recording.traffic().add_received(0, text.len() as u64);
    let herd = sessions.herd();
    let begun = check(&request).and_then(|()| {
        if !request.coordinator_id.is_empty() {
            let coordinator = WorkerId(request.coordinator_id.clone());
            herd.registry().check_coordinator(&coordinator)?;
        }
        let id = query_id(&request.query_id)?;
        // Before the turn is there: peers may ask already.
        herd.exchanges()
            .begin(id, session.id, &request.worker_id, &request.stages)
    });
    let (recording, part) = recorded(recording, begun)?;
    let place = if request.begin_transaction {
        Place::Begin
    } else {
        Place::Session
    };
    let turn = Turn::of_part(sessions, &session, routed_by(&request), place, request.statement_id).await;
    let (recording, mut turn) = recorded(recording, turn)?;
    part.outputs.stop_with(turn.registration.abandoner());
    let limits = sessions.limits();
    let (producer, consumer) = sessions.queues().open();
    let answer = AnswerStream::new(consumer, &turn.registration);
    let outputs = Arc::clone(&part.outputs);
    let idle_timeout = limits.exchange_idle_timeout;
    let sessions = Arc::clone(sessions);
    let span = info_span!("stages", id = request.statement_id);
    let way = match request.stages.as_slice() {
        [stage] if stage.output() == OutputKind::Gather && !request.begin_transaction => {
            find_short_way(&sessions, &mut turn.lease, &stage.sql, &turn.registration)
        }
        _ => None,
    };
    let has_run = matches!(way, Some(Way::Ran(_)));
    if has_run {
        producer.expect_little();
    }
    here_or_aside(has_run, move || {
        let _entered = span.entered();
        let outcome = run_turn(&sessions, turn, &request, way, &outputs, recording, &producer);
        if let Err(error) = &outcome {
            debug!(%error, "failed");
            outputs.fail(error);
        }
        producer.finish(outcome);
    });
    let answer = answer.start().await?;
    Ok(kept_open(answer, part, idle_timeout))
}

/// The answer, and after its end nothing, until nothing of the query is kept any more. Dropped, it ends the query.
fn kept_open(answer: Answer, part: Part, idle_timeout: Duration) -> Answer {
    let rest = async move {
        let outcome = part.outputs.drained(idle_timeout).await;
        drop(part);
        outcome.err().map(|error| Err(Status::from(error)))
    };
    answer
        .chain(stream::once(rest).filter_map(futures::future::ready))
        .boxed()
}

/// What the history shows.
fn history_text(request: &RunStagesRequest) -> String {
    let texts: Vec<_> = request.stages.iter().map(|stage| stage.sql.as_str()).collect();
    texts.join(";\n")
}

/// The statement that says which connection the stages need.
fn routed_by(request: &RunStagesRequest) -> &str {
    let texts = || request.stages.iter().map(|stage| stage.sql.as_str());
    texts()
        .find(|sql| !may_run_beside(sql))
        .or_else(|| texts().next())
        .unwrap_or_default()
}

/// Whether a request holds together.
fn check(request: &RunStagesRequest) -> Result<(), RemoteError> {
    let refuse = |message: String| Err(RemoteError::new(ExceptionType::InvalidInput, message));
    if request.stages.is_empty() {
        return refuse("there are no stages to run".to_owned());
    }
    if request.stages.len() > STAGES_MAX || request.exchanges.len() > STAGES_MAX {
        return refuse(format!("a query has at most {STAGES_MAX} stages and exchanges"));
    }
    if request.addresses.len() > WORKERS_MAX {
        return refuse(format!("a query has at most {WORKERS_MAX} workers"));
    }
    let last = request.stages.last().map(|stage| stage.stage);
    for stage in &request.stages {
        let number = stage.stage;
        if stage.destinations.len() > WORKERS_MAX || stage.buckets.len() > BUCKETS_MAX {
            return refuse(format!(
                "stage {number} has more than {WORKERS_MAX} destinations or {BUCKETS_MAX} buckets"
            ));
        }
        if stage
            .destinations
            .iter()
            .any(|destination| destination.readers > READERS_MAX)
        {
            return refuse(format!("stage {number} is read more than {READERS_MAX} times"));
        }
        if stage.output() == OutputKind::Gather && Some(number) != last {
            return refuse(format!("stage {number} gathers, and is not the last one"));
        }
    }
    let mut exchanges = HashSet::new();
    for exchange in &request.exchanges {
        if !exchanges.insert(exchange.stage) {
            return refuse(format!("exchange {} is there twice", exchange.stage));
        }
        if exchange.producers.len() > WORKERS_MAX {
            return refuse(format!(
                "exchange {} has more than {WORKERS_MAX} producers",
                exchange.stage
            ));
        }
    }
    Ok(())
}

/// Answers a request that is no more than a short statement. `None` if it has to be run like any other after all.
fn run_short(
    lease: &mut Lease,
    sessions: &Sessions,
    request: &RunStagesRequest,
    way: Way,
    recording: &Recording,
    producer: &Producer,
) -> Result<Option<RunStagesSummary>, RemoteError> {
    let [stage] = request.stages.as_slice() else {
        return Ok(None);
    };
    let Some(result) = statement::run_short(lease, &stage.sql, way)? else {
        return Ok(None);
    };
    recording.is_a(result.kind.name());
    let definitions = statement::definitions_version(sessions, result.catalog_version);
    // One thread has done all of it.
    let elapsed_us = microseconds(result.took);
    let mut answer = StageAnswer::new(sessions.limits(), producer, recording.traffic());
    let plain = Plain::new(&result.schema, Mapping::Stored)?;
    answer.begin(plain.schema())?;
    if let Some(row) = result.row {
        answer.batch(&plain.batch(row)?)?;
    }
    let summary = HerdStageSummary {
        stage: stage.stage,
        rows: answer.rows,
        bytes: answer.bytes,
        cpu_us: Some(elapsed_us),
        elapsed_us,
        ..HerdStageSummary::default()
    };
    Ok(Some(RunStagesSummary {
        definitions,
        ..answer.summary(vec![summary])
    }))
}

fn run_turn(
    sessions: &Sessions,
    turn: Turn,
    request: &RunStagesRequest,
    mut way: Option<Way>,
    outputs: &Arc<Outputs>,
    recording: Recording,
    producer: &Producer,
) -> Result<(), RemoteError> {
    let Turn {
        admitted,
        mut lease,
        registration,
    } = turn;
    recording.runs();
    let mut work = || {
        if request.begin_transaction {
            begin(&mut lease)?;
        }
        lease.apply_settings()?;
        if let Some(way) = way.take() {
            if matches!(way, Way::Short) {
                registration.start(false)?;
            }
            if let Some(summary) = run_short(&mut lease, sessions, request, way, &recording, producer)? {
                return Ok(summary);
            }
        }
        let in_transaction = lease.in_transaction();
        let query = RunningQuery::new(
            lease.connection()?,
            query_id(&request.query_id)?,
            request.worker_id.clone(),
            request.exchanges.clone(),
            request.addresses.clone(),
            Arc::clone(outputs),
        )?;
        let statements = parse(lease.connection()?, &request.stages)?;
        let reads = statements
            .iter()
            .all(|statement| statement.kind() == StatementKind::Read);
        recording.is_a(
            if reads {
                StatementKind::Read
            } else {
                StatementKind::Write
            }
            .name(),
        );
        registration.start(in_transaction && statements.iter().all(Statement::only_reads))?;
        lease.set_reader(producer.hurry());
        let _running = lease.herd()?.run_query(Arc::clone(&query));
        let mut runner = Runner {
            limits: sessions.limits(),
            traffic: recording.traffic(),
            outputs,
            answer: StageAnswer::new(sessions.limits(), producer, recording.traffic()),
            summaries: Vec::new(),
        };
        let mut run = |connection: &mut Connection| {
            // Nothing waits for the stages before the last one to know the columns.
            if request.stages.len() > 1 || runs_no_gather(request) {
                let schema = schema_of(connection, &request.columns)?;
                runner.answer.begin(&schema)?;
                producer.flush();
            }
            for (stage, statement) in request.stages.iter().zip(&statements) {
                runner.run(connection, stage, statement)?;
            }
            Ok(())
        };
        let outcome = if in_transaction || request.stages.len() == 1 {
            run(lease.connection()?)
        } else {
            in_own_transaction(lease.connection()?, run)
        };
        // A peer's error has gone through DuckDB, and has lost something there.
        outcome.map_err(|error| query.failure().unwrap_or(error))?;
        Ok(runner.summary())
    };
    let outcome = work();
    outputs.runs_no_more();
    // As for a statement: the connection is free, and the history true, before the end is told.
    drop((registration, lease, admitted));
    recording.end(outcome.as_ref().map(|_| None));
    producer.send(Message::of_metadata(outcome?.encode_to_vec()))
}

fn runs_no_gather(request: &RunStagesRequest) -> bool {
    request.stages.iter().all(|stage| stage.output() != OutputKind::Gather)
}

/// Each stage's one statement.
fn parse(connection: &mut Connection, stages: &[HerdStage]) -> Result<Vec<Statement>, RemoteError> {
    stages
        .iter()
        .map(|stage| {
            // What is prepared is to be run before anything else that is.
            let mut statements = match stages {
                [_] => connection.statements(&stage.sql)?,
                _ => connection.parse(&stage.sql)?,
            };
            match (statements.pop(), statements.is_empty()) {
                (Some(statement), true) => Ok(statement),
                _ => Err(RemoteError::new(
                    ExceptionType::InvalidInput,
                    format!("stage {} must be one SQL statement", stage.stage),
                )),
            }
        })
        .collect()
}

/// The rows that are gathered, on their way to the coordinator.
struct StageAnswer<'a> {
    producer: &'a Producer,
    traffic: &'a Traffic,
    encoder: BatchEncoder,
    schema: Option<SchemaRef>,
    rows: u64,
    bytes: u64,
}

impl<'a> StageAnswer<'a> {
    fn new(limits: &Limits, producer: &'a Producer, traffic: &'a Traffic) -> Self {
        Self {
            producer,
            traffic,
            encoder: BatchEncoder::new(limits.message_bytes),
            schema: None,
            rows: 0,
            bytes: 0,
        }
    }

    /// The columns are these. Said twice, they must be the same.
    fn begin(&mut self, schema: &SchemaRef) -> Result<(), RemoteError> {
        if let Some(known) = &self.schema {
            return same_types(known, schema);
        }
        let message = self.encoder.schema(schema);
        self.schema = Some(Arc::clone(schema));
        self.send(message)
    }

    fn batch(&mut self, batch: &RecordBatch) -> Result<(), RemoteError> {
        self.rows += batch.num_rows() as u64;
        self.traffic.add_sent(batch.num_rows() as u64, 0);
        let mut messages = Vec::new();
        self.encoder.encode(batch, &mut |message| {
            messages.push(message);
            Ok(())
        })?;
        messages.into_iter().try_for_each(|message| self.send(message))
    }

    fn summary(self, stages: Vec<HerdStageSummary>) -> RunStagesSummary {
        RunStagesSummary {
            rows: self.rows,
            bytes: self.bytes,
            stages,
            definitions: None,
        }
    }

    fn send(&mut self, message: Message) -> Result<(), RemoteError> {
        let bytes = message.arrow_bytes() as u64;
        self.bytes += bytes;
        self.traffic.add_sent(0, bytes);
        self.producer.send(message)
    }
}

fn microseconds(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

fn same_types(planned: &SchemaRef, found: &SchemaRef) -> Result<(), RemoteError> {
    let types = |schema: &SchemaRef| -> Vec<_> {
        let fields = schema.fields().iter();
        fields.map(|field| field.data_type().clone()).collect()
    };
    if types(planned) == types(found) {
        return Ok(());
    }
    Err(RemoteError::new(
        ExceptionType::InvalidInput,
        format!("a stage yields other columns than planned: {found} instead of {planned}"),
    ))
}

/// Starts a stage.
fn start<'connection>(
    connection: &'connection mut Connection,
    statement: &Statement,
    limits: &Limits,
) -> Result<ArrowResult<'connection>, RemoteError> {
    connection.run_with(statement, &Parameters::none(), limits.batch_size(), ResultTypes::Stored)
}

/// Runs stages.
struct Runner<'a> {
    limits: &'a Limits,
    traffic: &'a Traffic,
    outputs: &'a Arc<Outputs>,
    answer: StageAnswer<'a>,
    summaries: Vec<HerdStageSummary>,
}

impl Runner<'_> {
    fn run(
        &mut self,
        connection: &mut Connection,
        stage: &HerdStage,
        statement: &Statement,
    ) -> Result<(), RemoteError> {
        if let Some(error) = self.outputs.failure() {
            return Err(error);
        }
        let started = Instant::now();
        let cpu_time = connection.count_cpu_time();
        let mut summary = if stage.output() == OutputKind::Gather {
            self.gather(connection, statement)?
        } else {
            self.exchange(connection, stage, statement)?
        };
        summary.stage = stage.stage;
        summary.cpu_us = cpu_time.end().map(microseconds);
        summary.elapsed_us = microseconds(started.elapsed());
        self.summaries.push(summary);
        Ok(())
    }

    fn gather(&mut self, connection: &mut Connection, statement: &Statement) -> Result<HerdStageSummary, RemoteError> {
        let mut result = start(connection, statement, self.limits)?;
        let plain = Plain::new(&result.schema()?, Mapping::Stored)?;
        let before = self.answer.bytes;
        self.answer.begin(plain.schema())?;
        let (producer, outputs) = (self.answer.producer, self.outputs);
        let stopped = || {
            producer.flush();
            producer.is_closed() || outputs.failure().is_some()
        };
        while let Some(batch) = result.next_batch(&stopped)? {
            self.answer.batch(&plain.batch(batch)?)?;
        }
        Ok(HerdStageSummary {
            rows: self.answer.rows,
            bytes: self.answer.bytes - before,
            ..HerdStageSummary::default()
        })
    }

    fn exchange(
        &mut self,
        connection: &mut Connection,
        stage: &HerdStage,
        statement: &Statement,
    ) -> Result<HerdStageSummary, RemoteError> {
        let mut result = start(connection, statement, self.limits)?;
        let plain = Plain::new(&result.schema()?, Mapping::Stored)?;
        let mut writer = self
            .outputs
            .write(stage.stage, plain.schema(), self.limits.message_bytes)?;
        let (planned, found) = (stage.columns.len(), writer.schema().fields().len());
        if planned != found {
            return Err(RemoteError::new(
                ExceptionType::InvalidInput,
                format!("stage {} yields {found} columns, {planned} were planned", stage.stage),
            ));
        }
        let (producer, outputs) = (self.answer.producer, self.outputs);
        let stopped = || producer.is_closed() || outputs.failure().is_some();
        while let Some(batch) = result.next_batch(&stopped)? {
            writer.batch(plain.batch(batch)?)?;
        }
        let written = writer.finish()?;
        self.traffic.add_sent(written.rows, 0);
        Ok(HerdStageSummary {
            rows: written.rows,
            bytes: written.bytes,
            spilled_bytes: written.spilled_bytes,
            edges: written.edges,
            ..HerdStageSummary::default()
        })
    }

    fn summary(self) -> RunStagesSummary {
        self.answer.summary(self.summaries)
    }
}
