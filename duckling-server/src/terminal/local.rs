//! A database of this process, behind the same face as a duckling: statements run on a thread of its own.

use std::sync::mpsc as std_mpsc;
use std::thread::{self, JoinHandle};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use duckherder_client::ResultKind;
use duckherder_proto::{ExceptionType, RemoteError};
use duckling_server::duckdb::{Connection, Database, DatabaseOptions, Interrupter, rows_changed};
use tokio::sync::mpsc;

use super::engine::Summary;

/// Batches that the database may be ahead of what is printed.
const BATCHES_AHEAD: usize = 2;

/// An open database.
pub struct Local {
    jobs: std_mpsc::Sender<Job>,
    thread: JoinHandle<()>,
    interrupter: Interrupter,
    database_name: String,
}

struct Job {
    sql: String,
    events: mpsc::Sender<Event>,
}

enum Event {
    Schema(SchemaRef),
    Batch(RecordBatch),
    End(Summary),
    Failed(RemoteError),
}

impl Local {
    /// Opens the database and loads extensions, signed or not.
    pub fn open(path: &str, extensions: &[String]) -> Result<Self, RemoteError> {
        let options = DatabaseOptions {
            allow_unsigned_extensions: true,
            ..DatabaseOptions::default()
        };
        let mut connection = Database::open(path, &options)?.connect()?;
        for extension in extensions {
            connection.execute(&format!("LOAD '{}'", extension.replace('\'', "''")))?;
        }
        let interrupter = connection.interrupter();
        let (jobs, waiting) = std_mpsc::channel();
        let thread = thread::Builder::new()
            .name("database".to_owned())
            .spawn(move || serve(connection, &waiting))
            .map_err(|error| RemoteError::new(ExceptionType::Io, format!("cannot start a thread: {error}")))?;
        Ok(Self {
            jobs,
            thread,
            interrupter,
            database_name: name_of(path),
        })
    }

    pub fn database_name(&self) -> &str {
        &self.database_name
    }

    /// Starts a statement.
    pub async fn run(&self, sql: &str) -> Result<LocalAnswer, RemoteError> {
        let (events, mut answers) = mpsc::channel(BATCHES_AHEAD);
        let job = Job {
            sql: sql.to_owned(),
            events,
        };
        self.jobs.send(job).map_err(|_| stopped())?;
        // Dropped here, by Ctrl-C, the statement still has to be told.
        let guard = Guard(self.interrupter.clone());
        match answers.recv().await {
            Some(Event::Schema(schema)) => Ok(LocalAnswer {
                schema,
                answers,
                summary: None,
                guard,
            }),
            Some(Event::Failed(error)) => Err(error),
            _ => Err(stopped()),
        }
    }

    /// Waits until the database is closed, and its file so whole.
    pub fn close(self) {
        drop(self.jobs);
        drop(self.interrupter);
        // A panic there has been printed.
        let _ = self.thread.join();
    }
}

/// The name that DuckDB gives a database.
fn name_of(path: &str) -> String {
    if path.starts_with(":memory:") || path.is_empty() {
        return "memory".to_owned();
    }
    let stem = std::path::Path::new(path).file_stem();
    stem.map_or_else(|| path.to_owned(), |stem| stem.to_string_lossy().into_owned())
}

fn stopped() -> RemoteError {
    RemoteError::new(ExceptionType::Io, "the database has stopped")
}

/// A statement that runs here.
pub struct LocalAnswer {
    schema: SchemaRef,
    answers: mpsc::Receiver<Event>,
    summary: Option<Summary>,
    guard: Guard,
}

/// Stops what still runs.
struct Guard(Interrupter);

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.interrupt();
    }
}

impl LocalAnswer {
    pub fn schema(&self) -> SchemaRef {
        SchemaRef::clone(&self.schema)
    }

    pub async fn next(&mut self) -> Result<Option<RecordBatch>, RemoteError> {
        match self.answers.recv().await {
            Some(Event::Batch(batch)) => Ok(Some(batch)),
            Some(Event::End(summary)) => {
                self.summary = Some(summary);
                Ok(None)
            }
            Some(Event::Failed(error)) => Err(error),
            Some(Event::Schema(_)) | None if self.summary.is_some() => Ok(None),
            Some(Event::Schema(_)) | None => Err(stopped()),
        }
    }

    pub fn summary(&self) -> Option<Summary> {
        self.summary
    }

    pub fn cancel(&self) {
        self.guard.0.interrupt();
    }

    pub fn progress(&self) -> Option<f64> {
        self.guard.0.progress()
    }
}

fn serve(mut connection: Connection, jobs: &std_mpsc::Receiver<Job>) {
    while let Ok(job) = jobs.recv() {
        // Whoever asked may be gone; then nobody wants to know.
        let last = match answer(&mut connection, &job) {
            Ok(summary) => Event::End(summary),
            Err(error) => Event::Failed(error),
        };
        let _ = job.events.blocking_send(last);
    }
}

fn answer(connection: &mut Connection, job: &Job) -> Result<Summary, RemoteError> {
    let mut summary = Summary {
        kind: ResultKind::Nothing,
        rows_changed: None,
        server_elapsed: None,
    };
    let statements = connection.parse(&job.sql)?;
    let (last, first) = statements
        .split_last()
        .ok_or_else(|| RemoteError::new(ExceptionType::InvalidInput, "there is no SQL statement to run"))?;
    for statement in first {
        connection.run(statement)?.drain()?;
    }
    let gone = || RemoteError::new(ExceptionType::Interrupt, "Interrupted!");
    let mut result = connection.run(last)?;
    let schema = result.schema()?;
    summary.kind = result.result_kind()?;
    job.events.blocking_send(Event::Schema(schema)).map_err(|_| gone())?;
    while let Some(batch) = result.next_batch(&|| job.events.is_closed())? {
        if summary.kind == ResultKind::ChangedRows {
            summary.rows_changed = Some(rows_changed(&batch));
        }
        if batch.num_rows() > 0 {
            job.events.blocking_send(Event::Batch(batch)).map_err(|_| gone())?;
        }
    }
    Ok(summary)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn databases_are_named_as_duckdb_names_them() {
        assert_eq!(name_of(":memory:"), "memory");
        assert_eq!(name_of("/data/sales.2024.duckdb"), "sales.2024");
    }
}
