//! The query history: what this process has sent to ducklings, bounded in number and size.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use arrow::array::{
    ArrayRef, FixedSizeBinaryBuilder, Int64Builder, RecordBatch, StringBuilder, TimestampMicrosecondBuilder,
    UInt64Builder,
};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use arrow::error::ArrowError;
use duckherder_proto::history::{BYTES_MAX, HistoryId, KeptText, Ring, STATEMENTS_MAX, State, Traffic};
use duckherder_proto::v1::StatementSummary;

use crate::error::ExtError;
use crate::remote::Remote;

/// What a statement may do, as far as is known before it is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// It changes nothing.
    Read,
    /// It changes something, or may.
    Write,
    /// COMMIT or ROLLBACK.
    Transaction,
}

impl Kind {
    /// The word in the history.
    fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Transaction => "transaction",
        }
    }
}

/// What the server says of a statement that has ended well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outcome {
    /// `None` for a statement that changes no rows.
    pub rows_changed: Option<u64>,
    /// How long it ran there.
    pub server_us: u64,
}

impl Outcome {
    /// What a summary says.
    pub fn of(summary: &StatementSummary) -> Self {
        Self {
            rows_changed: summary.rows_changed,
            server_us: summary.elapsed_us,
        }
    }
}

/// One statement.
struct Entry {
    id: HistoryId,
    catalog: Arc<str>,
    server: Arc<str>,
    sql: Arc<str>,
    kind: Kind,
    started: SystemTime,
    clock: Instant,
    traffic: Arc<Traffic>,
    state: State,
    duration: Option<Duration>,
    outcome: Option<Outcome>,
    error: Option<(&'static str, Arc<str>)>,
}

/// The history of this process.
static HISTORY: Mutex<Ring<Entry>> = Mutex::new(Ring::new(STATEMENTS_MAX, BYTES_MAX));

fn lock() -> MutexGuard<'static, Ring<Entry>> {
    HISTORY.lock().unwrap_or_else(PoisonError::into_inner)
}

/// When a statement began, and its id, before it is known whether it belongs into the history.
pub struct Beginning {
    id: HistoryId,
    started: SystemTime,
    clock: Instant,
}

impl Beginning {
    /// That of a statement which begins now.
    pub fn now() -> Self {
        Self {
            id: uuid::Uuid::now_v7().into_bytes(),
            started: SystemTime::now(),
            clock: Instant::now(),
        }
    }

    /// The statement's id, for the server's history too.
    pub fn id(&self) -> HistoryId {
        self.id
    }
}

/// A statement being recorded. It is in the history from the start, and gets its outcome at [`Recording::end`]; one that
/// is dropped before counts as cancelled.
pub struct Recording {
    id: HistoryId,
    key: u64,
    clock: Instant,
    text: KeptText,
    traffic: Arc<Traffic>,
    ended: bool,
}

impl Recording {
    /// Records that a statement is about to be sent.
    pub fn start(remote: &Remote, sql: &str, kind: Kind) -> Self {
        Self::begun(Beginning::now(), remote, sql, kind)
    }

    /// Records a statement that has begun a while ago.
    pub fn begun(beginning: Beginning, remote: &Remote, sql: &str, kind: Kind) -> Self {
        Self::start_as(beginning, remote.catalog_name(), remote.address(), sql, kind)
    }

    fn start_as(beginning: Beginning, catalog: &str, server: &str, sql: &str, kind: Kind) -> Self {
        let Beginning { id, started, clock } = beginning;
        let text = KeptText::of(sql);
        let traffic = Arc::new(Traffic::default());
        let entry = Entry {
            id,
            catalog: catalog.into(),
            server: server.into(),
            sql: text.sql().into(),
            kind,
            started,
            clock,
            traffic: Arc::clone(&traffic),
            state: State::Running,
            duration: None,
            outcome: None,
            error: None,
        };
        let text_bytes = catalog.len() + server.len() + text.sql().len();
        let key = lock().push(entry, text_bytes);
        Self {
            id,
            key,
            clock,
            text,
            traffic,
            ended: false,
        }
    }

    /// The statement's id, for the server's history too.
    pub fn id(&self) -> HistoryId {
        self.id
    }

    /// What the statement moves.
    pub fn traffic(&self) -> &Arc<Traffic> {
        &self.traffic
    }

    /// Records the end.
    pub fn end(mut self, outcome: Result<Outcome, &ExtError>) {
        match outcome {
            Ok(outcome) => self.set_end(State::Finished, Some(outcome), None),
            Err(error) => {
                let text = self.text.error(error);
                self.set_end(State::after(error), None, Some((error.kind.name(), text.into())));
            }
        }
    }

    fn set_end(&mut self, state: State, outcome: Option<Outcome>, error: Option<(&'static str, Arc<str>)>) {
        self.ended = true;
        let duration = self.clock.elapsed();
        lock().update(self.key, |entry| {
            entry.state = state;
            entry.duration = Some(duration);
            entry.outcome = outcome;
            entry.error = error;
            entry.error.as_ref().map_or(0, |(_, text)| text.len())
        });
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        if !self.ended {
            self.set_end(State::Cancelled, None, None);
        }
    }
}

/// Forgets everything.
pub fn clear() {
    lock().clear();
}

/// The columns of [`snapshot`].
pub fn schema() -> SchemaRef {
    let field = |name: &str, data_type| Field::new(name, data_type, true);
    let uuid = [("ARROW:extension:name".to_owned(), "arrow.uuid".to_owned())];
    Arc::new(Schema::new(vec![
        field("id", DataType::FixedSizeBinary(16)).with_metadata(uuid),
        field("catalog", DataType::Utf8),
        field("server", DataType::Utf8),
        field("sql", DataType::Utf8),
        field("kind", DataType::Utf8),
        field("state", DataType::Utf8),
        field("start_time", DataType::Timestamp(TimeUnit::Microsecond, None)),
        field("duration_us", DataType::Int64),
        field("server_us", DataType::Int64),
        field("rows_sent", DataType::UInt64),
        field("rows_received", DataType::UInt64),
        field("bytes_sent", DataType::UInt64),
        field("bytes_received", DataType::UInt64),
        field("rows_changed", DataType::Int64),
        field("error_type", DataType::Utf8),
        field("error", DataType::Utf8),
    ]))
}

/// One builder a column, in the order of [`schema`].
#[derive(Default)]
struct Columns {
    catalog: StringBuilder,
    server: StringBuilder,
    sql: StringBuilder,
    kind: StringBuilder,
    state: StringBuilder,
    start_time: TimestampMicrosecondBuilder,
    duration_us: Int64Builder,
    server_us: Int64Builder,
    rows_sent: UInt64Builder,
    rows_received: UInt64Builder,
    bytes_sent: UInt64Builder,
    bytes_received: UInt64Builder,
    rows_changed: Int64Builder,
    error_type: StringBuilder,
    error: StringBuilder,
}

impl Columns {
    fn append(&mut self, entry: &Entry) {
        let ((rows_sent, bytes_sent), (rows_received, bytes_received)) =
            (entry.traffic.sent(), entry.traffic.received());
        let duration = entry.duration.unwrap_or_else(|| entry.clock.elapsed());
        let started = entry.started.duration_since(UNIX_EPOCH).unwrap_or_default();
        let signed = |value: u64| i64::try_from(value).ok();
        let outcome = entry.outcome.as_ref();
        self.catalog.append_value(&entry.catalog);
        self.server.append_value(&entry.server);
        self.sql.append_value(&entry.sql);
        self.kind.append_value(entry.kind.name());
        self.state.append_value(entry.state.name());
        self.start_time.append_option(i64::try_from(started.as_micros()).ok());
        self.duration_us.append_option(i64::try_from(duration.as_micros()).ok());
        self.server_us
            .append_option(outcome.and_then(|outcome| signed(outcome.server_us)));
        self.rows_sent.append_value(rows_sent);
        self.rows_received.append_value(rows_received);
        self.bytes_sent.append_value(bytes_sent);
        self.bytes_received.append_value(bytes_received);
        self.rows_changed
            .append_option(outcome.and_then(|outcome| outcome.rows_changed.and_then(signed)));
        self.error_type
            .append_option(entry.error.as_ref().map(|(kind, _)| *kind));
        self.error.append_option(entry.error.as_ref().map(|(_, text)| &**text));
    }
}

/// The history, oldest first: one row a statement. Times are UTC; what is not known is NULL.
pub fn snapshot() -> Result<RecordBatch, ArrowError> {
    let history = lock();
    let mut id = FixedSizeBinaryBuilder::with_capacity(history.iter().len(), 16);
    let mut rest = Columns::default();
    for entry in history.iter() {
        id.append_value(entry.id)?;
        rest.append(entry);
    }
    drop(history);
    let columns: Vec<ArrayRef> = vec![
        Arc::new(id.finish()),
        Arc::new(rest.catalog.finish()),
        Arc::new(rest.server.finish()),
        Arc::new(rest.sql.finish()),
        Arc::new(rest.kind.finish()),
        Arc::new(rest.state.finish()),
        Arc::new(rest.start_time.finish()),
        Arc::new(rest.duration_us.finish()),
        Arc::new(rest.server_us.finish()),
        Arc::new(rest.rows_sent.finish()),
        Arc::new(rest.rows_received.finish()),
        Arc::new(rest.bytes_sent.finish()),
        Arc::new(rest.bytes_received.finish()),
        Arc::new(rest.rows_changed.finish()),
        Arc::new(rest.error_type.finish()),
        Arc::new(rest.error.finish()),
    ];
    RecordBatch::try_new(schema(), columns)
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{Array, AsArray};
    use arrow::datatypes::{Int64Type, UInt64Type};
    use duckherder_proto::ExceptionType;

    fn start(sql: &str) -> Recording {
        Recording::start_as(Beginning::now(), "dh", "h:1", sql, Kind::Read)
    }

    fn texts(batch: &RecordBatch, name: &str) -> Vec<Option<String>> {
        let column = batch.column_by_name(name).unwrap().as_string::<i32>();
        column.iter().map(|text| text.map(str::to_owned)).collect()
    }

    /// One test, since the history is the process's.
    #[test]
    fn statements_are_recorded_with_their_ends_within_the_bounds() {
        clear();
        let running = start("running");
        running.traffic().add_sent(0, 5);
        running.traffic().add_received(3, 40);
        start("finished").end(Ok(Outcome {
            rows_changed: Some(2),
            server_us: 9,
        }));
        start("failed").end(Err(&ExtError::new(ExceptionType::Binder, "no such column")));
        start("interrupted").end(Err(&ExtError::new(ExceptionType::Interrupt, "Interrupted!")));
        drop(start("dropped"));
        let batch = snapshot().unwrap();
        let states = ["running", "finished", "failed", "cancelled", "cancelled"];
        assert_eq!(texts(&batch, "state"), states.map(|state| Some(state.to_owned())));
        let types = [None, None, Some("Binder"), Some("INTERRUPT"), None];
        assert_eq!(texts(&batch, "error_type"), types.map(|text| text.map(str::to_owned)));
        assert_eq!(
            texts(&batch, "error")[2].as_deref(),
            Some("Binder Error: no such column")
        );
        let number = |name: &str| {
            batch
                .column_by_name(name)
                .unwrap()
                .as_primitive::<UInt64Type>()
                .value(0)
        };
        assert_eq!(
            ["bytes_sent", "rows_received", "bytes_received"].map(number),
            [5, 3, 40]
        );
        let changed = batch
            .column_by_name("rows_changed")
            .unwrap()
            .as_primitive::<Int64Type>();
        assert_eq!(changed.iter().collect::<Vec<_>>(), [None, Some(2), None, None, None]);
        let ids = batch.column_by_name("id").unwrap().as_fixed_size_binary();
        assert!(
            (1..ids.len()).all(|row| ids.value(row - 1) < ids.value(row)),
            "ids rise"
        );

        for _ in 0..STATEMENTS_MAX {
            start("many");
        }
        assert_eq!(snapshot().unwrap().num_rows(), STATEMENTS_MAX, "bounded in number");
        drop(running);
        clear();
        let long = "x".repeat(70_000);
        for _ in 0..1_200 {
            start(&long);
        }
        let batch = snapshot().unwrap();
        let kept = batch.column_by_name("sql").unwrap().as_string::<i32>();
        assert!(kept.values().len() <= BYTES_MAX, "bounded in size");
        assert!(batch.num_rows() > 500);
        clear();
        assert_eq!(snapshot().unwrap().num_rows(), 0);
    }
}
