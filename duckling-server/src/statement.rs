//! Running one request's SQL, on a blocking thread, into a queue.

use std::time::Instant;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow::ipc::writer::{DictionaryTracker, IpcDataGenerator, IpcWriteContext, IpcWriteOptions};
use arrow_flight::{FlightData, SchemaAsIpc};
use duckherder_proto::history::Traffic;
use duckherder_proto::v1::{ColumnDescription, ExecuteRequest, ResultKind, StatementSummary};
use duckherder_proto::{ExceptionType, Message, RemoteError};

use crate::config::Limits;
use crate::duckdb::{ArrowResult, Statement, StatementKind};
use crate::history::Recording;
use crate::plain::Plain;
use crate::queue::Producer;
use crate::routing::TransactionControl;
use crate::session::{Lease, Registration, Sessions};

/// Runs all statements of a request and streams the last one's result; the summary is the last message. Returns the rows
/// changed, for a statement that changes rows.
pub fn run(
    sessions: &Sessions,
    lease: &mut Lease,
    request: &ExecuteRequest,
    registration: &Registration,
    recording: &Recording,
    producer: &Producer,
) -> Result<Option<u64>, RemoteError> {
    let started = Instant::now();
    if request.begin_transaction {
        begin(lease)?;
    }
    if TransactionControl::first_in(&request.sql).is_none() {
        // Before parsing: some settings, such as integer_division, are the parser's.
        lease.apply_settings()?;
    }
    let mut statements = lease.connection()?.parse(&request.sql)?;
    let last = statements
        .pop()
        .ok_or_else(|| RemoteError::new(ExceptionType::InvalidInput, "there is no SQL statement to run"))?;
    recording.is_a(last.kind().name());
    for statement in &statements {
        let outcome = lease.connection()?.run(statement, 0).and_then(ArrowResult::drain);
        note_effects(sessions, lease, statement, outcome.is_ok());
        outcome?;
    }
    if last.kind() == StatementKind::Read && lease.session.in_transaction() {
        registration.stops_by_itself();
    }
    if commits(&last) && lease.session.is_aborted() {
        return refuse_commit(sessions, lease);
    }
    let outcome = stream(lease, &last, sessions.limits(), recording.traffic(), producer);
    note_effects(sessions, lease, &last, outcome.is_ok());
    let mut summary = outcome?;
    summary.elapsed_us = u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX);
    summary.catalog_epoch = sessions.epoch();
    producer.send(FlightData {
        app_metadata: summary.encode_to_vec().into(),
        ..FlightData::default()
    })?;
    Ok(summary.rows_changed)
}

/// Begins a transaction on the session's connection, unless it is in one.
pub fn begin(lease: &mut Lease) -> Result<(), RemoteError> {
    if !lease.session.in_transaction() {
        lease.connection()?.execute("BEGIN TRANSACTION")?;
        lease.session.set_in_transaction(true);
    }
    Ok(())
}

fn commits(statement: &Statement) -> bool {
    statement.kind() == StatementKind::Transaction
        && TransactionControl::of(statement.text()) == TransactionControl::Commit
}

/// Rolls an aborted transaction back and says so.
fn refuse_commit(sessions: &Sessions, lease: &mut Lease) -> Result<Option<u64>, RemoteError> {
    let _ = lease.connection()?.execute("ROLLBACK");
    lease.session.set_in_transaction(false);
    sessions.advance_epoch();
    Err(RemoteError::new(
        ExceptionType::Transaction,
        "cannot commit: a statement of this transaction was interrupted, so it has been rolled back",
    ))
}

/// Keeps the session's and the catalog's books after a statement. A failed statement may have changed something too.
fn note_effects(sessions: &Sessions, lease: &Lease, statement: &Statement, succeeded: bool) {
    match statement.kind() {
        StatementKind::Read | StatementKind::Write => {}
        StatementKind::Catalog => sessions.advance_epoch(),
        StatementKind::Transaction => match TransactionControl::of(statement.text()) {
            TransactionControl::Begin => {
                if succeeded {
                    lease.session.set_in_transaction(true);
                }
            }
            // A COMMIT that fails has rolled back.
            TransactionControl::Commit | TransactionControl::Rollback => {
                lease.session.set_in_transaction(false);
                sessions.advance_epoch();
            }
        },
        StatementKind::Other => {
            lease.session.set_stateful();
            sessions.advance_epoch();
        }
    }
}

fn stream(
    lease: &mut Lease,
    statement: &Statement,
    limits: &Limits,
    traffic: &Traffic,
    producer: &Producer,
) -> Result<StatementSummary, RemoteError> {
    lease.set_reader(producer.hurry());
    let mut result = lease.connection()?.run(statement, limits.batch_rows)?;
    let schema = result.schema()?;
    let result_kind = result.result_kind()?;
    let mut encoder = BatchEncoder::new(limits.message_bytes);
    let plain = Plain::new(&schema);
    let mut bytes = 0;
    let mut send = |message: FlightData| {
        let message_bytes = (message.data_body.len() + message.data_header.len()) as u64;
        bytes += message_bytes;
        traffic.add_sent(0, message_bytes);
        producer.send(message)
    };
    send(encoder.schema(plain.schema(&schema)))?;
    let mut summary = StatementSummary {
        result_kind: result_kind.into(),
        ..StatementSummary::default()
    };
    // A client can plan with the columns of a query while it runs; of a write it waits for the count.
    let flushes = result_kind == ResultKind::Rows;
    let pausing = || {
        if flushes {
            producer.flush();
        }
        producer.is_closed()
    };
    while let Some(batch) = result.next_batch(&pausing)? {
        if result_kind == ResultKind::ChangedRows {
            summary.rows_changed = Some(crate::duckdb::rows_changed(&batch));
        }
        summary.rows += batch.num_rows() as u64;
        traffic.add_sent(batch.num_rows() as u64, 0);
        let batch = plain
            .batch(batch)
            .map_err(|error| RemoteError::new(ExceptionType::Serialization, format!("sending the result: {error}")))?;
        encoder.encode(&batch, &mut send)?;
    }
    summary.bytes = bytes;
    if statement.kind() == StatementKind::Write && result_kind == ResultKind::Rows {
        // RETURNING: one row for each that was changed.
        summary.rows_changed = Some(summary.rows);
    }
    Ok(summary)
}

/// Record batches to Flight messages of bounded size.
pub struct BatchEncoder {
    generator: IpcDataGenerator,
    options: IpcWriteOptions,
    dictionaries: DictionaryTracker,
    context: IpcWriteContext,
    message_bytes: usize,
}

impl BatchEncoder {
    /// Messages get about `message_bytes` of Arrow data; a single row is never split.
    pub fn new(message_bytes: usize) -> Self {
        Self {
            generator: IpcDataGenerator::default(),
            options: IpcWriteOptions::default(),
            dictionaries: DictionaryTracker::new(false),
            context: IpcWriteContext::default(),
            message_bytes,
        }
    }

    /// The schema message.
    pub fn schema(&self, schema: &SchemaRef) -> FlightData {
        SchemaAsIpc::new(schema, &self.options).into()
    }

    /// Hands the messages of one batch to `send`.
    pub fn encode(
        &mut self,
        batch: &RecordBatch,
        send: &mut dyn FnMut(FlightData) -> Result<(), RemoteError>,
    ) -> Result<(), RemoteError> {
        let bytes = batch.get_array_memory_size();
        let pieces = bytes
            .div_ceil(self.message_bytes.max(1))
            .clamp(1, batch.num_rows().max(1));
        let rows = batch.num_rows().div_ceil(pieces).max(1);
        let mut offset = 0;
        loop {
            let piece = batch.slice(offset, rows.min(batch.num_rows() - offset));
            let (dictionaries, encoded) = self
                .generator
                .encode(&piece, &mut self.dictionaries, &self.options, &mut self.context)
                .map_err(|error| RemoteError::new(ExceptionType::Serialization, error.to_string()))?;
            for message in dictionaries {
                send(message.into())?;
            }
            send(encoded.into())?;
            offset += rows;
            if offset >= batch.num_rows() {
                return Ok(());
            }
        }
    }
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
