//! The same client for code that is not async.
//!
//! Every method waits on the calling thread. Inside an async runtime that would block it, so there the methods return
//! [`ClientError::Runtime`]; use the async [`crate::Client`] there.
//!
//! ```no_run
//! use duckherder_client::{ClientError, ClientOptions, blocking::Client};
//!
//! # fn example() -> Result<(), ClientError> {
//! let client = Client::connect(ClientOptions::new("localhost", 8815))?;
//! for batch in client.query("SELECT 42 AS answer")? {
//!     println!("{} rows", batch?.num_rows());
//! }
//! # Ok(())
//! # }
//! ```

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use bytes::Bytes;
use duckherder_proto::history::HistoryId;
use duckherder_proto::v1::{IngestResponse, StatementSummary};
use futures::{SinkExt, StreamExt, channel::mpsc};
use tokio::runtime::{Builder, Handle};

use crate::error::{BoxError, ClientError};
use crate::ingest::IngestTarget;
use crate::options::ClientOptions;
use crate::session::{CatalogSnapshot, IngestOptions, QueryOptions, ServerInfo, StatementShape, TableLookup};

/// Threads of a runtime that the client makes for itself: one may wait while the other moves data.
const WORKER_THREADS: usize = 2;

/// Batches to ingest that are read ahead.
const INGEST_BATCHES_AHEAD: usize = 2;

/// How long dropping a session may wait for the server to close it.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// The blocking flavour of [`crate::Client`]. Clones are cheap and share the connection.
#[derive(Debug, Clone)]
pub struct Client {
    inner: crate::Client,
    session: Session,
}

impl Client {
    /// Connects, on a runtime of two threads that the client makes for itself.
    ///
    /// # Errors
    /// [`ClientError::Runtime`] if there can be no runtime; else as [`crate::Client::connect`].
    pub fn connect(options: ClientOptions) -> Result<Self, ClientError> {
        Self::connect_with(Runtime::new()?, options)
    }

    /// Connects, on a multi-threaded runtime that the caller has already, and keeps running as long as the client.
    ///
    /// # Errors
    /// As [`crate::Client::connect`].
    pub fn connect_on(runtime: Handle, options: ClientOptions) -> Result<Self, ClientError> {
        Self::connect_with(
            Runtime {
                handle: runtime,
                owned: None,
            },
            options,
        )
    }

    fn connect_with(runtime: Runtime, options: ClientOptions) -> Result<Self, ClientError> {
        let inner = runtime.wait(crate::Client::connect(options))?;
        let session = Session::new(inner.session().clone(), runtime);
        Ok(Self { inner, session })
    }

    /// What the duckling said of itself when the client connected.
    #[must_use]
    pub fn server(&self) -> &ServerInfo {
        self.inner.server()
    }

    /// The session that the client's own statements run in.
    #[must_use]
    pub fn session(&self) -> &Session {
        &self.session
    }

    /// As [`crate::Client::open_session`].
    ///
    /// # Errors
    /// The same.
    pub fn open_session(&self) -> Result<Session, ClientError> {
        let runtime = &self.session.0.runtime;
        Ok(Session::new(runtime.wait(self.inner.open_session())?, runtime.clone()))
    }

    /// As [`crate::Client::open_session_with`].
    ///
    /// # Errors
    /// The same.
    pub fn open_session_with(&self, settings: BTreeMap<String, String>) -> Result<Session, ClientError> {
        let runtime = &self.session.0.runtime;
        let session = runtime.wait(self.inner.open_session_with(settings))?;
        Ok(Session::new(session, runtime.clone()))
    }

    /// As [`crate::Client::query`].
    ///
    /// # Errors
    /// The same.
    pub fn query(&self, sql: impl Into<String>) -> Result<QueryStream, ClientError> {
        self.session.query(sql)
    }

    /// As [`crate::Client::execute`].
    ///
    /// # Errors
    /// The same.
    pub fn execute(&self, sql: impl Into<String>) -> Result<u64, ClientError> {
        self.session.execute(sql)
    }

    /// As [`crate::Client::ingest`]. The batches are read on the calling thread.
    ///
    /// # Errors
    /// The same.
    pub fn ingest<I, E>(&self, table: impl Into<String>, batches: I) -> Result<u64, ClientError>
    where
        I: IntoIterator<Item = Result<RecordBatch, E>>,
        E: Into<BoxError> + Send + 'static,
    {
        self.session
            .0
            .runtime
            .wait(fed(batches, |batches| self.inner.ingest(table, batches)))
    }
}

/// The blocking flavour of [`crate::Session`]. Clones are cheap and mean the same session.
///
/// Dropping the last clone waits up to a second for the server to close the session.
#[derive(Debug, Clone)]
pub struct Session(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    session: crate::Session,
    runtime: Runtime,
}

impl Session {
    fn new(session: crate::Session, runtime: Runtime) -> Self {
        Self(Arc::new(Inner { session, runtime }))
    }

    fn wait<T>(&self, work: impl Future<Output = Result<T, ClientError>>) -> Result<T, ClientError> {
        self.0.runtime.wait(work)
    }

    /// As [`crate::Session::id`].
    #[must_use]
    pub fn id(&self) -> &Bytes {
        self.0.session.id()
    }

    /// As [`crate::Session::server`].
    #[must_use]
    pub fn server(&self) -> &ServerInfo {
        self.0.session.server()
    }

    /// As [`crate::Session::query`].
    ///
    /// # Errors
    /// The same.
    pub fn query(&self, sql: impl Into<String>) -> Result<QueryStream, ClientError> {
        self.query_with(sql, QueryOptions::default())
    }

    /// As [`crate::Session::query_with`].
    ///
    /// # Errors
    /// The same.
    pub fn query_with(&self, sql: impl Into<String>, options: QueryOptions) -> Result<QueryStream, ClientError> {
        let stream = self.wait(self.0.session.query_with(sql, options))?;
        Ok(QueryStream {
            stream,
            session: self.clone(),
            ended: false,
        })
    }

    /// As [`crate::Session::execute`].
    ///
    /// # Errors
    /// The same.
    pub fn execute(&self, sql: impl Into<String>) -> Result<u64, ClientError> {
        self.wait(self.0.session.execute(sql))
    }

    /// As [`crate::Session::execute_with`].
    ///
    /// # Errors
    /// The same.
    pub fn execute_with(&self, sql: impl Into<String>, options: QueryOptions) -> Result<StatementSummary, ClientError> {
        self.wait(self.0.session.execute_with(sql, options))
    }

    /// As [`crate::Session::describe`].
    ///
    /// # Errors
    /// The same.
    pub fn describe(&self, sql: impl Into<String>) -> Result<StatementShape, ClientError> {
        self.wait(self.0.session.describe(sql))
    }

    /// As [`crate::Session::describe_as`].
    ///
    /// # Errors
    /// The same.
    pub fn describe_as(
        &self,
        sql: impl Into<String>,
        history_id: Option<HistoryId>,
    ) -> Result<StatementShape, ClientError> {
        self.wait(self.0.session.describe_as(sql, history_id))
    }

    /// As [`crate::Session::lookup_schema`].
    ///
    /// # Errors
    /// The same.
    pub fn lookup_schema(&self, path: &[&str]) -> Result<(u64, bool), ClientError> {
        self.wait(self.0.session.lookup_schema(path))
    }

    /// As [`crate::Session::lookup_table`].
    ///
    /// # Errors
    /// The same.
    pub fn lookup_table(&self, schema: &[&str], table: impl Into<String>) -> Result<TableLookup, ClientError> {
        self.wait(self.0.session.lookup_table(schema, table))
    }

    /// As [`crate::Session::list_definitions`].
    ///
    /// # Errors
    /// The same.
    pub fn list_definitions(
        &self,
        kinds: &[crate::v1::DefinitionKind],
    ) -> Result<(u64, Vec<crate::v1::DefinitionDescription>), ClientError> {
        self.wait(self.0.session.list_definitions(kinds))
    }

    /// As [`crate::Session::list_tables`].
    ///
    /// # Errors
    /// The same.
    pub fn list_tables(&self) -> Result<CatalogSnapshot, ClientError> {
        self.wait(self.0.session.list_tables())
    }

    /// As [`crate::Session::load_extension`].
    ///
    /// # Errors
    /// The same.
    pub fn load_extension(&self, name: impl Into<String>) -> Result<u64, ClientError> {
        self.wait(self.0.session.load_extension(name))
    }

    /// As [`crate::Session::change_settings`].
    ///
    /// # Errors
    /// The same.
    pub fn change_settings(&self, settings: BTreeMap<String, String>) -> Result<(), ClientError> {
        self.wait(self.0.session.change_settings(settings))
    }

    /// As [`crate::Session::cancel`].
    ///
    /// # Errors
    /// The same.
    pub fn cancel(&self, statement_id: u64) -> Result<bool, ClientError> {
        self.wait(self.0.session.cancel(statement_id))
    }

    /// As [`crate::Session::progress`].
    ///
    /// # Errors
    /// The same.
    pub fn progress(&self, statement_id: u64) -> Result<Option<f64>, ClientError> {
        self.wait(self.0.session.progress(statement_id))
    }

    /// As [`crate::Session::keep_alive`].
    ///
    /// # Errors
    /// The same.
    pub fn keep_alive(&self) -> Result<u64, ClientError> {
        self.wait(self.0.session.keep_alive())
    }

    /// As [`crate::Session::ingest`]. The batches are read on the calling thread.
    ///
    /// # Errors
    /// The same.
    pub fn ingest<I, E>(
        &self,
        target: IngestTarget,
        schema: SchemaRef,
        batches: I,
    ) -> Result<IngestResponse, ClientError>
    where
        I: IntoIterator<Item = Result<RecordBatch, E>>,
        E: Into<BoxError> + Send + 'static,
    {
        self.wait(fed(batches, |batches| self.0.session.ingest(target, schema, batches)))
    }

    /// As [`crate::Session::ingest_with`]. The batches are read on the calling thread.
    ///
    /// # Errors
    /// The same.
    pub fn ingest_with<I, E>(
        &self,
        target: IngestTarget,
        schema: SchemaRef,
        batches: I,
        options: IngestOptions,
    ) -> Result<IngestResponse, ClientError>
    where
        I: IntoIterator<Item = Result<RecordBatch, E>>,
        E: Into<BoxError> + Send + 'static,
    {
        self.wait(fed(batches, |batches| {
            self.0.session.ingest_with(target, schema, batches, options)
        }))
    }

    /// As [`crate::Session::close`].
    ///
    /// # Errors
    /// The same.
    pub fn close(&self) -> Result<(), ClientError> {
        self.wait(self.0.session.close())
    }
}

impl Drop for Inner {
    /// Closes the session before a runtime of our own, on which it would be closed in the background, is gone.
    fn drop(&mut self) {
        if self.runtime.owned.is_some() {
            let closing = async {
                // A session that cannot be closed is dropped by the server when it has been idle.
                let _ = tokio::time::timeout(CLOSE_TIMEOUT, self.session.close()).await;
                Ok(())
            };
            let _ = self.runtime.wait(closing);
        }
    }
}

/// The blocking flavour of [`crate::QueryStream`]: an iterator over the record batches of a running statement.
///
/// Dropping it before its end cancels the statement on the server.
#[derive(Debug)]
pub struct QueryStream {
    stream: crate::QueryStream,
    session: Session,
    /// Makes the iterator end after an error that the stream does not know of.
    ended: bool,
}

impl QueryStream {
    /// As [`crate::QueryStream::schema`].
    #[must_use]
    pub fn schema(&self) -> SchemaRef {
        self.stream.schema()
    }

    /// As [`crate::QueryStream::summary`].
    #[must_use]
    pub fn summary(&self) -> Option<&StatementSummary> {
        self.stream.summary()
    }

    /// As [`crate::QueryStream::statement_id`].
    #[must_use]
    pub fn statement_id(&self) -> u64 {
        self.stream.statement_id()
    }

    /// As [`crate::QueryStream::rows_received`].
    #[must_use]
    pub fn rows_received(&self) -> u64 {
        self.stream.rows_received()
    }

    /// As [`crate::QueryStream::bytes_received`].
    #[must_use]
    pub fn bytes_received(&self) -> u64 {
        self.stream.bytes_received()
    }
}

impl Iterator for QueryStream {
    type Item = Result<RecordBatch, ClientError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let (runtime, stream) = (&self.session.0.runtime, &mut self.stream);
        let item = runtime.wait(async { stream.next().await.transpose() }).transpose();
        self.ended = !matches!(item, Some(Ok(_)));
        item
    }
}

/// Runs `consume` over `batches`, which are read on the calling thread.
async fn fed<I, E, T, F>(
    batches: I,
    consume: impl FnOnce(mpsc::Receiver<Result<RecordBatch, E>>) -> F,
) -> Result<T, ClientError>
where
    I: IntoIterator<Item = Result<RecordBatch, E>>,
    F: Future<Output = Result<T, ClientError>>,
{
    let (mut sender, receiver) = mpsc::channel(INGEST_BATCHES_AHEAD);
    let feed = async move {
        for batch in batches {
            // Nobody receives any more when the server has refused; the consumer says why.
            if sender.send(batch).await.is_err() {
                return;
            }
        }
    };
    futures::join!(consume(receiver), feed).0
}

/// A runtime to wait on: the client's own, or the caller's.
#[derive(Debug, Clone)]
struct Runtime {
    handle: Handle,
    owned: Option<Arc<OwnedRuntime>>,
}

impl Runtime {
    fn new() -> Result<Self, ClientError> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(WORKER_THREADS)
            .thread_name("duckherder-client")
            .enable_all()
            .build()
            .map_err(ClientError::Runtime)?;
        Ok(Self {
            handle: runtime.handle().clone(),
            owned: Some(Arc::new(OwnedRuntime(Some(runtime)))),
        })
    }

    fn wait<T>(&self, work: impl Future<Output = Result<T, ClientError>>) -> Result<T, ClientError> {
        // Checked, because tokio panics.
        if Handle::try_current().is_ok() {
            let problem = "it was called inside an async runtime, which it would block; use the async client there";
            return Err(ClientError::Runtime(io::Error::other(problem)));
        }
        self.handle.block_on(work)
    }
}

/// A runtime that may be dropped anywhere.
#[derive(Debug)]
struct OwnedRuntime(Option<tokio::runtime::Runtime>);

impl Drop for OwnedRuntime {
    fn drop(&mut self) {
        // The plain drop waits for the threads, and panics inside an async runtime.
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}
