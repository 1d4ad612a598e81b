//! Sessions: where statements run.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use bytes::Bytes;
use duckherder_proto::history::{HistoryId, Traffic};
use duckherder_proto::v1::{self, Compression};
use duckherder_proto::version::{PROTOCOL_VERSION, PROTOCOL_VERSION_MIN};
use futures::{Stream, TryStreamExt};
use tokio::runtime::Handle;
use tokio::task::AbortHandle;

use crate::connection::Connection;
use crate::direct::{Change, Direct, Sent};
use crate::error::{BoxError, ClientError};
use crate::ingest::{self, IngestTarget};
use crate::options::ClientOptions;
use crate::stream::{QueryStream, SchemaMessage, StagesStream};

/// Bounds of the pause between two signs of life, whatever timeout the server names.
const KEEP_ALIVE_PAUSE_MIN: Duration = Duration::from_millis(100);
const KEEP_ALIVE_PAUSE_MAX: Duration = Duration::from_secs(600);

/// What a duckling says of itself in the handshake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerInfo {
    /// `host:port`, as the client was told.
    pub address: String,
    /// The version of the protocol that both sides speak.
    pub protocol_version: u32,
    /// The version of the duckling.
    pub server_version: String,
    /// The version of its DuckDB, for example `v2.0.0`.
    pub duckdb_version: String,
    /// The database that unqualified names mean.
    pub database_name: String,
}

/// How to run a statement.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct QueryOptions {
    /// Begin a transaction first, unless the session is in one. Saves the round trip of a `BEGIN`.
    pub begin_transaction: bool,
    /// The statement's id in the server's history, the bytes of a UUID; without one, the server makes it up.
    pub history_id: Option<HistoryId>,
    /// UNION, VARIANT and INTERVAL columns come as the structs that DuckDB keeps them in. Arrow's union cannot tell a NULL from a
    /// member that is NULL, and Parquet's variant lacks unsigned integers and intervals, for two.
    pub stored_types: bool,
}

/// How to send rows.
#[derive(Debug, Clone, Default)]
pub struct IngestOptions {
    /// The upload's id in the server's history, the bytes of a UUID; without one, the server makes it up.
    pub history_id: Option<HistoryId>,
    /// Where to count the rows and bytes that have been handed to the network, while the upload runs.
    pub traffic: Arc<Traffic>,
}

/// What a statement would give back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StatementShape {
    /// Name and DuckDB type of each result column; a statement without rows has one status column.
    pub columns: Vec<v1::ColumnDescription>,
}

/// The answer to "is there such a table or view?".
#[derive(Debug, Clone, PartialEq)]
pub struct TableLookup {
    /// The catalog's epoch: the answer holds until it changes.
    pub epoch: u64,
    /// `None` if there is no such table or view.
    pub table: Option<v1::TableDescription>,
}

/// All schemas, tables and views of the default database.
#[derive(Debug, Clone, PartialEq)]
pub struct CatalogSnapshot {
    /// The catalog's epoch: the answer holds until it changes.
    pub epoch: u64,
    /// Schemas, empty ones included.
    pub schemas: Vec<v1::SchemaDescription>,
    /// Tables and views.
    pub tables: Vec<v1::TableDescription>,
}

/// A session on a duckling: one DuckDB connection there, with its own settings, temporary tables and transaction.
///
/// Clones are cheap and mean the same session. It is kept alive in the background, and closed on the server, which
/// rolls back an open transaction, when the last clone and the last [`QueryStream`] of it are dropped.
pub struct Session(Arc<Inner>);

struct Inner {
    connection: Connection,
    server: ServerInfo,
    session_id: Bytes,
    /// `None` where statements always go to the duckling itself.
    direct: Option<Arc<Direct>>,
    /// Of uploads.
    compression: Compression,
    statements: AtomicU64,
    closed: AtomicBool,
    runtime: Handle,
    keep_alive: Option<AbortHandle>,
}

impl Session {
    pub(crate) async fn open(
        connection: &Connection,
        options: &ClientOptions,
        settings: BTreeMap<String, String>,
    ) -> Result<Self, ClientError> {
        let hello = v1::HelloRequest {
            protocol_version_min: PROTOCOL_VERSION_MIN,
            protocol_version_max: PROTOCOL_VERSION,
            client_name: options.client_name.clone(),
            duckdb_version: options.duckdb_version.clone(),
            settings: settings.clone(),
            compression: options.compression.into(),
        };
        let answer = connection.request(&hello).await?;
        let version = answer.protocol_version;
        // First the session, so that the checks below close it on the server when they fail.
        let direct = options
            .asks_workers
            .then(|| Arc::new(Direct::new(options, connection.workers(), settings)));
        let session = Self(Arc::new(Inner::new(connection.clone(), answer, direct)));
        if !(PROTOCOL_VERSION_MIN..=PROTOCOL_VERSION).contains(&version) {
            return Err(ClientError::Version {
                address: options.address(),
                version,
            });
        }
        if session.id().is_empty() {
            return Err(connection.start(crate::error::HELLO).protocol("it names no session"));
        }
        Ok(session)
    }

    /// The session's name on the server. Opaque, and a secret: whoever has it can use the session.
    #[must_use]
    pub fn id(&self) -> &Bytes {
        &self.0.session_id
    }

    /// What the duckling said of itself when the session was opened.
    #[must_use]
    pub fn server(&self) -> &ServerInfo {
        &self.0.server
    }

    /// Runs one SQL statement and returns as soon as the shape of its result is known.
    ///
    /// No deadline applies. Dropping the future, or the stream before its end, cancels the statement on the server.
    ///
    /// # Errors
    /// [`ClientError::Remote`] with DuckDB's error, if the statement does not parse, bind or start; errors while it runs
    /// come from the stream. [`ClientError::Lost`] and the like for the connection.
    pub async fn query(&self, sql: impl Into<String>) -> Result<QueryStream, ClientError> {
        self.query_with(sql, QueryOptions::default()).await
    }

    /// [`Session::query`], with options.
    ///
    /// # Errors
    /// As [`Session::query`].
    pub async fn query_with(&self, sql: impl Into<String>, options: QueryOptions) -> Result<QueryStream, ClientError> {
        let request = v1::ExecuteRequest {
            session_id: self.id().clone(),
            statement_id: self.next_statement_id(),
            sql: sql.into(),
            begin_transaction: options.begin_transaction,
            history_id: id_bytes(options.history_id),
            stored_types: options.stored_types,
            further_streams: self.0.connection.further_max(),
            wants_route: false,
            definitions: None,
        };
        let Some(direct) = &self.0.direct else {
            return self.execute_here(request).await;
        };
        match direct.send(&request).await {
            Sent::Answered(stream) => Ok(stream.of_worker()),
            Sent::Not => self.execute_here(request).await,
            Sent::Changes(change) => Ok(self.execute_here(request).await?.changing(change)),
            Sent::Teaches(lesson) => {
                let request = v1::ExecuteRequest {
                    wants_route: true,
                    ..request
                };
                let stream = self.execute_here(request).await?;
                Ok(stream.teaching(Arc::clone(direct), lesson))
            }
        }
    }

    /// Has the duckling itself run a statement.
    pub(crate) async fn execute_here(&self, request: v1::ExecuteRequest) -> Result<QueryStream, ClientError> {
        QueryStream::execute(self.clone(), &self.0.connection, request).await
    }

    /// Something begins that may change what statements mean.
    fn change(&self) -> Option<Change> {
        self.0.direct.as_ref().map(Direct::change)
    }

    /// Runs one SQL statement to its end, drops the rows it gives back, and returns how many it changed (INSERT,
    /// UPDATE, DELETE, MERGE, COPY, CREATE TABLE AS; else 0).
    ///
    /// # Errors
    /// As [`Session::query`], and those of the running statement.
    pub async fn execute(&self, sql: impl Into<String>) -> Result<u64, ClientError> {
        let summary = self.execute_with(sql, QueryOptions::default()).await?;
        Ok(summary.rows_changed.unwrap_or(0))
    }

    /// [`Session::execute`], with options, returning the server's whole summary.
    ///
    /// # Errors
    /// As [`Session::execute`].
    pub async fn execute_with(
        &self,
        sql: impl Into<String>,
        options: QueryOptions,
    ) -> Result<v1::StatementSummary, ClientError> {
        let options = QueryOptions {
            // So that no row is refused that nobody sees.
            stored_types: true,
            ..options
        };
        let mut stream = self.query_with(sql, options).await?;
        while stream.try_next().await?.is_some() {}
        let call = self.0.connection.start("Execute");
        stream
            .summary()
            .cloned()
            .ok_or_else(|| call.protocol("it has no summary"))
    }

    /// Has a worker's part of a distributed query run here, and returns as soon as the gathered rows' schema is known. The
    /// request's session and statement id are filled in.
    ///
    /// No deadline applies. Dropping the future or the stream ends the query on this worker, whatever it is doing.
    ///
    /// # Errors
    /// As [`Session::query`].
    pub async fn run_stages(&self, request: v1::RunStagesRequest) -> Result<StagesStream, ClientError> {
        self.run_stages_expecting(request, None).await
    }

    /// [`Session::run_stages`], with what the schema probably is, if it is known.
    ///
    /// # Errors
    /// As [`Session::run_stages`]; that the schema is another is not one.
    pub async fn run_stages_expecting(
        &self,
        request: v1::RunStagesRequest,
        expected: Option<&SchemaMessage>,
    ) -> Result<StagesStream, ClientError> {
        let request = v1::RunStagesRequest {
            session_id: self.id().clone(),
            statement_id: self.next_statement_id(),
            ..request
        };
        StagesStream::run(self.clone(), &self.0.connection, request, expected).await
    }

    /// The shape of a statement's result, without running it.
    ///
    /// # Errors
    /// [`ClientError::Remote`] if the statement does not parse or bind, or its shape shows only when it runs (PIVOT).
    pub async fn describe(&self, sql: impl Into<String>) -> Result<StatementShape, ClientError> {
        self.describe_as(sql, None).await
    }

    /// [`Session::describe`], with the id that a failure gets in the server's history.
    ///
    /// # Errors
    /// As [`Session::describe`].
    pub async fn describe_as(
        &self,
        sql: impl Into<String>,
        history_id: Option<HistoryId>,
    ) -> Result<StatementShape, ClientError> {
        let request = v1::DescribeRequest {
            session_id: self.id().clone(),
            sql: sql.into(),
            history_id: id_bytes(history_id),
        };
        Ok(StatementShape {
            columns: self.0.connection.request(&request).await?.columns,
        })
    }

    /// Whether a schema exists, with the catalog's epoch at which that was so. Case-insensitive. `path` is its name, after
    /// those of the schemas that it is nested in, outermost first.
    ///
    /// # Errors
    /// Those of the connection; that there is no such schema is not one.
    pub async fn lookup_schema(&self, path: &[&str]) -> Result<(u64, bool), ClientError> {
        let (parent_schemas, schema_name) = split(path);
        let request = v1::LookupSchemaRequest {
            session_id: self.id().clone(),
            schema_name,
            parent_schemas,
        };
        let response = self.0.connection.request(&request).await?;
        Ok((response.catalog_epoch, response.exists))
    }

    /// One table or view, found case-insensitively. `schema` is the path of its schema, as in [`Session::lookup_schema`];
    /// an empty one means `main`.
    ///
    /// # Errors
    /// Those of the connection; that there is no such table is not one.
    pub async fn lookup_table(&self, schema: &[&str], table: impl Into<String>) -> Result<TableLookup, ClientError> {
        let (parent_schemas, schema_name) = split(schema);
        let request = v1::LookupTableRequest {
            session_id: self.id().clone(),
            schema_name,
            table_name: table.into(),
            parent_schemas,
        };
        let answer = self.0.connection.request(&request).await?;
        Ok(TableLookup {
            epoch: answer.catalog_epoch,
            table: answer.table,
        })
    }

    /// All schemas, tables and views of the default database.
    ///
    /// # Errors
    /// Those of the connection.
    pub async fn list_tables(&self) -> Result<CatalogSnapshot, ClientError> {
        let request = v1::ListTablesRequest {
            session_id: self.id().clone(),
        };
        let answers = self.0.connection.request_many(&request).await?;
        let call = self.0.connection.start("ListTables");
        // If the catalog changed between two answers, the older epoch is the one that makes a cache look again.
        let epoch = answers.iter().map(|answer| answer.catalog_epoch).min();
        let epoch = epoch.ok_or_else(|| call.protocol("there is none"))?;
        let mut snapshot = CatalogSnapshot {
            epoch,
            schemas: Vec::new(),
            tables: Vec::new(),
        };
        for answer in answers {
            snapshot.schemas.extend(answer.schemas);
            snapshot.tables.extend(answer.tables);
        }
        Ok(snapshot)
    }

    /// All entries of these kinds in the default database, with the catalog's epoch at which that was so.
    ///
    /// # Errors
    /// Those of the connection.
    pub async fn list_definitions(
        &self,
        kinds: &[v1::DefinitionKind],
    ) -> Result<(u64, Vec<v1::DefinitionDescription>), ClientError> {
        let request = v1::ListDefinitionsRequest {
            session_id: self.id().clone(),
            kinds: kinds.iter().map(|kind| i32::from(*kind)).collect(),
        };
        let answers = self.0.connection.request_many(&request).await?;
        let call = self.0.connection.start("ListDefinitions");
        let epoch = answers.iter().map(|answer| answer.catalog_epoch).min();
        let epoch = epoch.ok_or_else(|| call.protocol("there is none"))?;
        Ok((
            epoch,
            answers.into_iter().flat_map(|answer| answer.definitions).collect(),
        ))
    }

    /// Loads a DuckDB extension on the server, installing it first where it is not, and returns the catalog's epoch.
    ///
    /// # Errors
    /// [`ClientError::Remote`] if there is no such extension, or the server may not install it.
    pub async fn load_extension(&self, name: impl Into<String>) -> Result<u64, ClientError> {
        let _change = self.change();
        let request = v1::LoadExtensionRequest {
            session_id: self.id().clone(),
            extension_name: name.into(),
        };
        Ok(self.0.connection.request(&request).await?.catalog_epoch)
    }

    /// Says which DuckDB settings hold for the session's statements that start from now on, name to value (`TimeZone` to
    /// `Asia/Tokyo`): those that were set so before, and are not named, are reset. Unlike a `SET` statement this binds
    /// the session to no connection, and its statements still run beside each other.
    ///
    /// A setting that the server's DuckDB does not have is left out. A value that it does not accept fails the next
    /// statement.
    ///
    /// # Errors
    /// [`ClientError::Remote`] for something that is no name of a setting, and for too many; those of the connection.
    pub async fn change_settings(&self, settings: BTreeMap<String, String>) -> Result<(), ClientError> {
        let _change = self.change();
        if let Some(direct) = &self.0.direct {
            direct.set_settings(settings.clone());
        }
        let request = v1::ChangeSettingsRequest {
            session_id: self.id().clone(),
            settings,
        };
        self.0.connection.request(&request).await.map(|_| ())
    }

    /// Stops a running statement, [`QueryStream::statement_id`], and returns whether it was found running. Its stream
    /// then yields DuckDB's `INTERRUPT` error.
    ///
    /// # Errors
    /// Those of the connection.
    pub async fn cancel(&self, statement_id: u64) -> Result<bool, ClientError> {
        let request = v1::CancelRequest {
            session_id: self.id().clone(),
            statement_id,
        };
        Ok(self.0.connection.request(&request).await?.found)
    }

    /// How far a running statement, [`QueryStream::statement_id`], is: from 0 to 1, as the server's DuckDB estimates it.
    /// `None` if it does not know, or no such statement runs.
    ///
    /// # Errors
    /// Those of the connection.
    pub async fn progress(&self, statement_id: u64) -> Result<Option<f64>, ClientError> {
        let request = v1::ProgressRequest {
            session_id: self.id().clone(),
            statement_id,
        };
        Ok(self.0.connection.request(&request).await?.fraction)
    }

    /// Tells the server that the session is still wanted, and returns the catalog's epoch. Happens by itself as long as
    /// the session lives; useful to learn the epoch, or whether the session is still there.
    ///
    /// # Errors
    /// [`ClientError::Remote`] if the server does not know the session any more.
    pub async fn keep_alive(&self) -> Result<u64, ClientError> {
        let request = v1::KeepAliveRequest {
            session_id: self.id().clone(),
        };
        Ok(self.0.connection.request(&request).await?.catalog_epoch)
    }

    /// Sends `batches` into a table, all or nothing. `schema` is the schema of every batch.
    ///
    /// Batches are cut into messages of about 2 MiB; dictionaries are sent as plain values. No deadline applies. If the
    /// future is dropped, or `batches` yields an error, the upload is broken off and the server keeps none of it.
    ///
    /// # Errors
    /// [`ClientError::Input`] with the error that `batches` yielded; [`ClientError::Encode`] for a batch that does not
    /// fit `schema`; [`ClientError::Remote`] from the server, for example for a violated constraint.
    pub async fn ingest<S, E>(
        &self,
        target: IngestTarget,
        schema: SchemaRef,
        batches: S,
    ) -> Result<v1::IngestResponse, ClientError>
    where
        S: Stream<Item = Result<RecordBatch, E>> + Send + 'static,
        E: Into<BoxError> + Send + 'static,
    {
        self.ingest_with(target, schema, batches, IngestOptions::default())
            .await
    }

    /// [`Session::ingest`], with options.
    ///
    /// # Errors
    /// As [`Session::ingest`].
    pub async fn ingest_with<S, E>(
        &self,
        target: IngestTarget,
        schema: SchemaRef,
        batches: S,
        options: IngestOptions,
    ) -> Result<v1::IngestResponse, ClientError>
    where
        S: Stream<Item = Result<RecordBatch, E>> + Send + 'static,
        E: Into<BoxError> + Send + 'static,
    {
        let mut request = target.into_request(self.id().clone(), self.next_statement_id());
        request.history_id = id_bytes(options.history_id);
        let changes = request.begin_transaction || request.mode() == v1::IngestMode::CreateTemporary;
        let _change = changes.then(|| self.change());
        let sending = ingest::Sending {
            compression: self.0.compression,
            traffic: options.traffic,
        };
        ingest::run(&self.0.connection, request, schema, batches, sending).await
    }

    /// Closes the session on the server now, for all clones. An open transaction is rolled back; what still runs is
    /// interrupted. Closing again does nothing.
    ///
    /// # Errors
    /// Those of the connection. The session counts as closed all the same; the server drops it when it has been idle.
    pub async fn close(&self) -> Result<(), ClientError> {
        if let Some(direct) = &self.0.direct {
            direct.close();
        }
        if self.0.retire() {
            close(&self.0.connection, self.id().clone()).await
        } else {
            Ok(())
        }
    }

    fn next_statement_id(&self) -> u64 {
        self.0.statements.fetch_add(1, Ordering::Relaxed)
    }
}

impl Clone for Session {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl fmt::Debug for Session {
    /// Without the session's id, which is a secret.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Session")
            .field("server", &self.0.server)
            .finish_non_exhaustive()
    }
}

impl Inner {
    fn new(connection: Connection, hello: v1::HelloResponse, direct: Option<Arc<Direct>>) -> Self {
        let runtime = Handle::current();
        let keep_alive = keep_alive_pause(hello.session_idle_timeout_ms).map(|pause| {
            runtime
                .spawn(keep_alive(connection.clone(), hello.session_id.clone(), pause))
                .abort_handle()
        });
        Self {
            compression: hello.compression(),
            server: ServerInfo {
                address: connection.address().to_owned(),
                protocol_version: hello.protocol_version,
                server_version: hello.server_version,
                duckdb_version: hello.duckdb_version,
                database_name: hello.database_name,
            },
            connection,
            session_id: hello.session_id,
            direct,
            statements: AtomicU64::new(1),
            closed: AtomicBool::new(false),
            runtime,
            keep_alive,
        }
    }

    /// Ends the signs of life; whether the session still was to be closed on the server.
    fn retire(&self) -> bool {
        if let Some(task) = &self.keep_alive {
            task.abort();
        }
        !self.closed.swap(true, Ordering::SeqCst)
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        if self.retire() && !self.session_id.is_empty() {
            let (connection, session_id) = (self.connection.clone(), std::mem::take(&mut self.session_id));
            // On a runtime that has shut down this does nothing; then the server drops the session when it is idle.
            self.runtime.spawn(async move {
                if let Err(error) = close(&connection, session_id).await {
                    tracing::debug!(%error, "a session could not be closed on the server");
                }
            });
        }
    }
}

fn id_bytes(id: Option<HistoryId>) -> Bytes {
    id.map(|id| Bytes::copy_from_slice(&id)).unwrap_or_default()
}

async fn close(connection: &Connection, session_id: Bytes) -> Result<(), ClientError> {
    connection
        .request(&v1::CloseSessionRequest { session_id })
        .await
        .map(|_| ())
}

/// The parents and the name in a schema's path.
fn split(path: &[&str]) -> (Vec<String>, String) {
    let mut names: Vec<String> = path.iter().map(|name| (*name).to_owned()).collect();
    let name = names.pop().unwrap_or_default();
    (names, name)
}

/// A third of the server's patience, so that one lost sign of life does no harm; `None` if it waits forever.
fn keep_alive_pause(idle_timeout_ms: u64) -> Option<Duration> {
    let pause = Duration::from_millis(idle_timeout_ms / 3);
    (idle_timeout_ms > 0).then(|| pause.clamp(KEEP_ALIVE_PAUSE_MIN, KEEP_ALIVE_PAUSE_MAX))
}

/// Runs until aborted. Holds nothing of the session but its id, so that it does not keep it open by itself.
async fn keep_alive(connection: Connection, session_id: Bytes, pause: Duration) {
    let request = v1::KeepAliveRequest { session_id };
    loop {
        tokio::time::sleep(pause).await;
        // A failure means something only to the next statement, which will find out itself.
        if let Err(error) = connection.request(&request).await {
            tracing::debug!(%error, "a sign of life failed");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signs_of_life_come_often_enough_and_not_too_often() {
        assert_eq!(keep_alive_pause(0), None);
        assert_eq!(keep_alive_pause(1), Some(KEEP_ALIVE_PAUSE_MIN));
        assert_eq!(keep_alive_pause(90_000), Some(Duration::from_secs(30)));
        assert_eq!(keep_alive_pause(u64::MAX), Some(KEEP_ALIVE_PAUSE_MAX));
    }
}
