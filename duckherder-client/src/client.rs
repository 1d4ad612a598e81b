//! The client: a connection to one duckling, with a session of its own.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use backon::{ExponentialBuilder, Retryable};
use bytes::Bytes;
use duckherder_proto::v1::{ReadExchangeRequest, ReleaseQueryRequest};
use futures::{Stream, StreamExt, stream};
use tokio::time::timeout;

use crate::connection::Connection;
use crate::error::{BoxError, ClientError, at_first_contact};
use crate::ingest::IngestTarget;
use crate::node::Node;
use crate::options::ClientOptions;
use crate::session::{ServerInfo, Session};
use crate::stream::{ExchangeStream, QueryStream};

/// Attempts after the first. A server that is being restarted is back soon, or not within a time anyone waits for.
const CONNECT_RETRIES_MAX: usize = 2;
const CONNECT_RETRY_DELAY_MIN: Duration = Duration::from_millis(50);
const CONNECT_RETRY_DELAY_MAX: Duration = Duration::from_millis(200);

/// A connection to one duckling. Clones are cheap and share it.
///
/// Statements run in the client's own [`Session`]; [`Client::open_session`] gives another one over the same
/// connection, with its own settings, temporary tables and transaction. All sessions of a client share one HTTP/2
/// connection, hence one thread's throughput, and the further ones that large results come over
/// ([`ClientOptions::streams`]); connect another client for more.
///
/// A client belongs to the tokio runtime that it was connected on.
///
/// ```no_run
/// use duckherder_client::{Client, ClientError, ClientOptions};
///
/// # async fn example() -> Result<(), ClientError> {
/// let client = Client::connect(ClientOptions::new("localhost", 8815)).await?;
/// let rows = client.execute("INSERT INTO ducks VALUES ('mallard'), ('teal')").await?;
/// assert_eq!(rows, 2);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Client {
    connection: Connection,
    options: Arc<ClientOptions>,
    session: Session,
}

impl Client {
    /// Connects and opens the client's session.
    ///
    /// A connection that is refused or lost is tried again twice, within [`ClientOptions::connect_timeout`].
    ///
    /// # Errors
    /// [`ClientError::Connect`] after the last attempt, [`ClientError::Timeout`], [`ClientError::Address`];
    /// [`ClientError::NotADuckling`] or [`ClientError::Version`] if the other side does not speak the protocol;
    /// [`ClientError::Remote`] if it refuses, for example because it has too many sessions.
    pub async fn connect(options: ClientOptions) -> Result<Self, ClientError> {
        let attempts = (|| Self::connect_once(&options))
            .retry(
                ExponentialBuilder::default()
                    .with_min_delay(CONNECT_RETRY_DELAY_MIN)
                    .with_max_delay(CONNECT_RETRY_DELAY_MAX)
                    .with_max_times(CONNECT_RETRIES_MAX),
            )
            .when(|error| matches!(error, ClientError::Connect { .. } | ClientError::Lost { .. }));
        match timeout(options.connect_timeout, attempts).await {
            Ok(outcome) => outcome.map_err(at_first_contact),
            Err(_) => Err(ClientError::Timeout {
                address: options.address(),
                operation: "connecting",
                after: options.connect_timeout,
            }),
        }
    }

    async fn connect_once(options: &ClientOptions) -> Result<Self, ClientError> {
        let connection = Connection::open(options).await?;
        let session = Session::open(&connection, options, BTreeMap::new()).await?;
        Ok(Self {
            connection,
            options: Arc::new(options.clone()),
            session,
        })
    }

    /// What the duckling said of itself when the client connected.
    #[must_use]
    pub fn server(&self) -> &ServerInfo {
        self.session.server()
    }

    /// The session that the client's own statements run in.
    #[must_use]
    pub fn session(&self) -> &Session {
        &self.session
    }

    /// The connection, for requests that need no session.
    #[must_use]
    pub fn node(&self) -> Node {
        Node::of(self.connection.clone())
    }

    /// Opens a further session over the same connection.
    ///
    /// # Errors
    /// As [`Client::connect`], without its repeated attempts.
    pub async fn open_session(&self) -> Result<Session, ClientError> {
        self.open_session_with(BTreeMap::new()).await
    }

    /// As [`Client::open_session`], with DuckDB settings for the session: see [`Session::change_settings`].
    ///
    /// # Errors
    /// The same, and [`ClientError::Remote`] for something that is no name of a setting.
    pub async fn open_session_with(&self, settings: BTreeMap<String, String>) -> Result<Session, ClientError> {
        Session::open(&self.connection, &self.options, settings).await
    }

    /// Runs a statement; see [`Session::query`].
    ///
    /// # Errors
    /// As [`Session::query`].
    pub async fn query(&self, sql: impl Into<String>) -> Result<QueryStream, ClientError> {
        self.session.query(sql).await
    }

    /// Runs a statement to its end and returns the number of rows it changed; see [`Session::execute`].
    ///
    /// # Errors
    /// As [`Session::execute`].
    pub async fn execute(&self, sql: impl Into<String>) -> Result<u64, ClientError> {
        self.session.execute(sql).await
    }

    /// Reads what this duckling, a worker of a distributed query, has for another one, and returns as soon as the rows'
    /// schema is known, which may be long after.
    ///
    /// # Errors
    /// [`ClientError::Remote`] if it knows no such query, even after a while, or the query has failed there; those of the
    /// connection.
    pub async fn read_exchange(&self, request: ReadExchangeRequest) -> Result<ExchangeStream, ClientError> {
        ExchangeStream::read(&self.connection, request).await
    }

    /// Ends a distributed query on this duckling, one of its workers; whether there was anything of it.
    ///
    /// # Errors
    /// Those of the connection.
    pub async fn release_query(&self, query_id: impl Into<Bytes>) -> Result<bool, ClientError> {
        let request = ReleaseQueryRequest {
            query_id: query_id.into(),
        };
        Ok(self.connection.request(&request).await?.found)
    }

    /// Appends `batches` to a table of the default schema, all or nothing, and returns the number of rows.
    ///
    /// The first batch's schema is the schema of all; without any batch nothing is sent. [`Session::ingest`] has the
    /// other choices.
    ///
    /// # Errors
    /// As [`Session::ingest`].
    pub async fn ingest<S, E>(&self, table: impl Into<String>, batches: S) -> Result<u64, ClientError>
    where
        S: Stream<Item = Result<RecordBatch, E>> + Send + 'static,
        E: Into<BoxError> + Send + 'static,
    {
        let mut batches = Box::pin(batches);
        let first = match batches.next().await {
            None => return Ok(0),
            Some(first) => first.map_err(|error| ClientError::Input(error.into()))?,
        };
        let schema = first.schema();
        let all = stream::iter([Ok(first)]).chain(batches);
        Ok(self
            .session
            .ingest(IngestTarget::append(table), schema, all)
            .await?
            .rows)
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Client")
            .field("session", &self.session)
            .finish_non_exhaustive()
    }
}
