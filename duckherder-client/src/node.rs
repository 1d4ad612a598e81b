//! Requests that need no session.

use std::time::Duration;

use duckherder_proto::action::ActionRequest;
use tokio::time::timeout;

use crate::connection::Connection;
use crate::error::ClientError;
use crate::options::ClientOptions;

/// A connection to a duckling without a session: for what the members of a herd say to each other.
///
/// Clones are cheap and share the connection.
///
/// ```no_run
/// use duckherder_client::{ClientError, ClientOptions, Node, v1};
///
/// # async fn example() -> Result<(), ClientError> {
/// let coordinator = Node::connect(&ClientOptions::new("coordinator", 8815)).await?;
/// let worker = v1::RegisterWorkerRequest { address: "worker-7:8815".to_owned(), ..Default::default() };
/// println!("its id is {}", coordinator.request(&worker).await?.worker_id);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Node(Connection);

impl Node {
    /// Connects, once, within [`ClientOptions::connect_timeout`].
    ///
    /// # Errors
    /// [`ClientError::Connect`], [`ClientError::Timeout`], [`ClientError::Address`].
    pub async fn connect(options: &ClientOptions) -> Result<Self, ClientError> {
        match timeout(options.connect_timeout, Connection::open(options)).await {
            Ok(connection) => connection.map(Self),
            Err(_) => Err(ClientError::Timeout {
                address: options.address(),
                operation: "Connect",
                after: options.connect_timeout,
            }),
        }
    }

    pub(crate) fn of(connection: Connection) -> Self {
        Self(connection)
    }

    /// The same connection, whose requests wait so long for their answers instead of
    /// [`ClientOptions::request_timeout`].
    #[must_use]
    pub fn request_timeout(mut self, timeout: Duration) -> Self {
        self.0.set_request_timeout(timeout);
        self
    }

    /// `host:port`
    #[must_use]
    pub fn address(&self) -> &str {
        self.0.address()
    }

    /// Sends a request that has exactly one answer, and waits for it within [`ClientOptions::request_timeout`].
    ///
    /// # Errors
    /// [`ClientError::Remote`] with the duckling's own; those of the connection.
    pub async fn request<R: ActionRequest>(&self, request: &R) -> Result<R::Response, ClientError> {
        self.0.request(request).await
    }
}
