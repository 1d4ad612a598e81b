//! The query history: what this process has sent to ducklings, bounded in size.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use arrow::array::{
    ArrayRef, Float64Builder, Int64Builder, RecordBatch, StringBuilder, TimestampMicrosecondBuilder, UInt64Builder,
};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use duckherder_proto::v1::StatementSummary;

/// Statements remembered; the oldest are forgotten first.
const ENTRIES_MAX: usize = 10_000;

/// Longest SQL text kept, in bytes.
const SQL_BYTES_MAX: usize = 64 * 1024;

/// One statement.
#[derive(Debug, Clone)]
struct Entry {
    id: u64,
    catalog: String,
    server: String,
    sql: String,
    kind: &'static str,
    started: SystemTime,
    duration: Option<Duration>,
    summary: StatementSummary,
    error: Option<String>,
}

/// The history of this process.
static HISTORY: Mutex<VecDeque<Entry>> = Mutex::new(VecDeque::new());
static NEXT_ID: AtomicU64 = AtomicU64::new(1);

fn lock() -> MutexGuard<'static, VecDeque<Entry>> {
    HISTORY.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A statement being recorded. It is in the history from the start, and gets its outcome at [`Recording::finish`]; one
/// that is dropped before counts as cancelled.
pub struct Recording {
    id: u64,
    started: Instant,
    done: bool,
}

impl Recording {
    /// Records that a statement is sent now. `kind` is `read` or `write`.
    pub fn start(catalog: &str, server: &str, sql: &str, kind: &'static str) -> Self {
        let id = NEXT_ID.fetch_add(1, Ordering::Relaxed);
        let mut history = lock();
        if history.len() >= ENTRIES_MAX {
            history.pop_front();
        }
        history.push_back(Entry {
            id,
            catalog: catalog.to_owned(),
            server: server.to_owned(),
            sql: sql[..sql.floor_char_boundary(SQL_BYTES_MAX)].to_owned(),
            kind,
            started: SystemTime::now(),
            duration: None,
            summary: StatementSummary::default(),
            error: None,
        });
        Self {
            id,
            started: Instant::now(),
            done: false,
        }
    }

    /// Records the outcome.
    pub fn finish(mut self, outcome: Result<&StatementSummary, String>) {
        self.complete(outcome.copied_or_error());
    }

    fn complete(&mut self, (summary, error): (StatementSummary, Option<String>)) {
        self.done = true;
        let mut history = lock();
        // Ids rise along the queue.
        if let Ok(index) = history.binary_search_by_key(&self.id, |entry| entry.id) {
            let entry = &mut history[index];
            entry.duration = Some(self.started.elapsed());
            entry.summary = summary;
            entry.error = error;
        }
    }
}

trait Outcome {
    fn copied_or_error(self) -> (StatementSummary, Option<String>);
}

impl Outcome for Result<&StatementSummary, String> {
    fn copied_or_error(self) -> (StatementSummary, Option<String>) {
        match self {
            Ok(summary) => (*summary, None),
            Err(error) => (StatementSummary::default(), Some(error)),
        }
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        if !self.done {
            self.complete((StatementSummary::default(), Some("cancelled before its end".to_owned())));
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
    Arc::new(Schema::new(vec![
        field("id", DataType::UInt64),
        field("catalog", DataType::Utf8),
        field("server", DataType::Utf8),
        field("sql", DataType::Utf8),
        field("kind", DataType::Utf8),
        field("start_time", DataType::Timestamp(TimeUnit::Microsecond, None)),
        field("duration_ms", DataType::Float64),
        field("server_ms", DataType::Float64),
        field("rows", DataType::UInt64),
        field("bytes", DataType::UInt64),
        field("rows_changed", DataType::Int64),
        field("error", DataType::Utf8),
    ]))
}

/// The history, oldest first: one row a statement. Times are UTC; durations in milliseconds; what is not known yet, or
/// never will be, is NULL.
pub fn snapshot() -> Result<RecordBatch, arrow::error::ArrowError> {
    let history = lock();
    let mut id = UInt64Builder::new();
    let mut catalog = StringBuilder::new();
    let mut server = StringBuilder::new();
    let mut sql = StringBuilder::new();
    let mut kind = StringBuilder::new();
    let mut start_time = TimestampMicrosecondBuilder::new();
    let mut duration_ms = Float64Builder::new();
    let mut server_ms = Float64Builder::new();
    let mut rows = UInt64Builder::new();
    let mut bytes = UInt64Builder::new();
    let mut rows_changed = Int64Builder::new();
    let mut error = StringBuilder::new();
    for entry in history.iter() {
        let finished = entry.duration.is_some() && entry.error.is_none();
        id.append_value(entry.id);
        catalog.append_value(&entry.catalog);
        server.append_value(&entry.server);
        sql.append_value(&entry.sql);
        kind.append_value(entry.kind);
        start_time.append_option(
            entry
                .started
                .duration_since(UNIX_EPOCH)
                .ok()
                .and_then(|since| i64::try_from(since.as_micros()).ok()),
        );
        duration_ms.append_option(entry.duration.map(|duration| duration.as_secs_f64() * 1e3));
        server_ms.append_option(finished.then_some(entry.summary.elapsed_us as f64 / 1e3));
        rows.append_option(finished.then_some(entry.summary.rows));
        bytes.append_option(finished.then_some(entry.summary.bytes));
        let changed = (finished && entry.kind == "write").then_some(entry.summary.rows_changed);
        rows_changed.append_option(changed.and_then(|changed| i64::try_from(changed).ok()));
        error.append_option(entry.error.as_deref());
    }
    let columns: Vec<ArrayRef> = vec![
        Arc::new(id.finish()),
        Arc::new(catalog.finish()),
        Arc::new(server.finish()),
        Arc::new(sql.finish()),
        Arc::new(kind.finish()),
        Arc::new(start_time.finish()),
        Arc::new(duration_ms.finish()),
        Arc::new(server_ms.finish()),
        Arc::new(rows.finish()),
        Arc::new(bytes.finish()),
        Arc::new(rows_changed.finish()),
        Arc::new(error.finish()),
    ];
    RecordBatch::try_new(schema(), columns)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_statement_is_recorded_once_with_its_outcome() {
        clear();
        let summary = StatementSummary {
            rows: 3,
            ..Default::default()
        };
        Recording::start("dh", "h:1", "SELECT 1", "read").finish(Ok(&summary));
        drop(Recording::start("dh", "h:1", "SELECT 2", "read"));
        for _ in 0..ENTRIES_MAX - 1 {
            Recording::start("dh", "h:1", "SELECT 3", "read").finish(Err("no".into()));
        }
        let batch = snapshot().unwrap();
        assert_eq!(batch.num_rows(), ENTRIES_MAX, "bounded");
        clear();
        assert_eq!(snapshot().unwrap().num_rows(), 0);
    }
}
