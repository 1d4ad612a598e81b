//! Connections to other ducklings, shared by all who talk to them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use duckherder_client::{Client, ClientError};
use duckherder_proto::error::{FAILED_TO_COMMIT, HERD_WORKER};
use duckherder_proto::{ExceptionType, RemoteError};
use tokio::sync::OnceCell;

use super::registry::Registry;

/// Connections that are kept. One more takes the place of another.
const CONNECTIONS_MAX: usize = 1024;

/// How long a connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long short requests may take, such as opening a session: a worker may be busy.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// The connections, one for each address.
#[derive(Default)]
pub struct Peers {
    by_address: Mutex<HashMap<String, Arc<OnceCell<Client>>>>,
}

impl Peers {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Arc<OnceCell<Client>>>> {
        self.by_address.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The connection to `address`, made if there is none. Whoever asks meanwhile waits for the same one.
    ///
    /// # Errors
    /// It cannot be made. The next one who asks tries again.
    pub async fn client(&self, registry: &Registry, address: &str) -> Result<Client, RemoteError> {
        let options = registry.peer(address)?;
        let options = options
            .connect_timeout(CONNECT_TIMEOUT)
            .request_timeout(REQUEST_TIMEOUT);
        let cell = {
            let mut by_address = self.lock();
            if by_address.len() >= CONNECTIONS_MAX && !by_address.contains_key(address) {
                let another = by_address.keys().next().cloned();
                by_address.remove(&another.unwrap_or_default());
            }
            Arc::clone(by_address.entry(address.to_owned()).or_default())
        };
        let client = cell.get_or_try_init(|| Client::connect(options)).await;
        client.cloned().map_err(|error| error.to_remote_error())
    }

    /// Notes that something went wrong: a connection that is lost is not used again.
    pub fn failed(&self, address: &str, error: &ClientError) {
        if matches!(
            error,
            ClientError::Lost { .. } | ClientError::Connect { .. } | ClientError::Timeout { .. }
        ) {
            self.lock().remove(address);
        }
    }
}

/// The error, with the worker that it is from.
#[must_use]
pub fn named(worker: &str, address: &str, mut error: RemoteError) -> RemoteError {
    if !error.extra_info.contains_key(HERD_WORKER) {
        // Behind DuckDB's own beginning, which a client's DuckDB knows and does not repeat.
        let (beginning, rest) = match error.message.strip_prefix(FAILED_TO_COMMIT) {
            Some(rest) => (FAILED_TO_COMMIT, rest),
            None => ("", error.message.as_str()),
        };
        error.message = format!("{beginning}worker {worker} at {address}: {rest}");
        error.extra_info.insert(HERD_WORKER.to_owned(), worker.to_owned());
    }
    error
}

/// Whether an error that `worker` reports is only about another one: that one's own says more.
#[must_use]
pub fn is_secondary(worker: &str, error: &RemoteError) -> bool {
    let of_another = error.extra_info.get(HERD_WORKER).is_some_and(|origin| origin != worker);
    of_another || error.kind == ExceptionType::Interrupt
}
