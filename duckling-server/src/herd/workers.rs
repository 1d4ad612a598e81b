//! What one connection of the coordinator does on workers in its transaction: a session on each worker that it uses, and
//! the transaction that is open there.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use duckherder_catalog::herd::placement::WorkerId;
use duckherder_client::{Client, ClientError, QueryOptions, Session};
use duckherder_proto::{ExceptionType, RemoteError};
use futures::future::join_all;
use tokio::runtime::Handle;

use super::Registry;

/// The sessions of one connection on workers.
pub struct Workers {
    registry: Arc<Registry>,
    open: Mutex<BTreeMap<WorkerId, Opened>>,
}

struct Opened {
    session: Session,
    /// Whether something has been written there that is neither committed nor rolled back.
    in_transaction: bool,
}

impl Workers {
    /// None is open yet.
    #[must_use]
    pub fn new(registry: Arc<Registry>) -> Self {
        Self {
            registry,
            open: Mutex::default(),
        }
    }

    /// The herd's members.
    #[must_use]
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// The runtime of the server's network.
    ///
    /// # Errors
    /// The server does not serve.
    pub fn runtime(&self) -> Result<Handle, RemoteError> {
        let place = self.registry.place();
        place.map(|place| place.runtime.clone()).ok_or_else(|| {
            RemoteError::new(
                ExceptionType::Connection,
                "the tables of a herd can be used once the coordinator listens",
            )
        })
    }

    /// The session on a worker, which from here on counts as being in a transaction: whoever asks begins one with the
    /// first thing that is sent.
    ///
    /// # Errors
    /// The worker is not alive, or cannot be reached.
    pub async fn writing(&self, worker: &WorkerId) -> Result<Session, RemoteError> {
        self.registry.address(worker)?;
        let opened = self.lock().get_mut(worker).map(|opened| {
            opened.in_transaction = true;
            opened.session.clone()
        });
        if let Some(session) = opened {
            return Ok(session);
        }
        let session = self.connect(worker).await?;
        let mut open = self.lock();
        let opened = open.entry(worker.clone()).or_insert(Opened {
            session,
            in_transaction: true,
        });
        opened.in_transaction = true;
        Ok(opened.session.clone())
    }

    async fn connect(&self, worker: &WorkerId) -> Result<Session, RemoteError> {
        let options = self.registry.peer(&self.registry.address(worker)?)?;
        let client = Client::connect(options)
            .await
            .map_err(|error| self.error(worker, error))?;
        Ok(client.session().clone())
    }

    /// Whether something has been written on a worker that is not committed yet.
    #[must_use]
    pub fn in_transaction(&self) -> bool {
        self.lock().values().any(|opened| opened.in_transaction)
    }

    /// Commits on all workers that have been written on.
    ///
    /// # Errors
    /// Which workers have committed and which have not, with their reasons. Those that have not have rolled back, or will
    /// once they notice that the coordinator has gone.
    pub fn commit(&self) -> Result<(), RemoteError> {
        let writing = self.take_writing();
        if writing.is_empty() {
            return Ok(());
        }
        let outcomes = self.run_on(writing, "COMMIT")?;
        let (committed, failed): (Vec<_>, Vec<_>) = outcomes.into_iter().partition(|(_, outcome)| outcome.is_ok());
        let failures: Vec<_> = failed
            .into_iter()
            .filter_map(|(worker, outcome)| {
                // What became of the transaction is not known: the session must not be used any more.
                self.lock().remove(&worker);
                outcome.err()
            })
            .collect();
        let Some(first) = failures.first() else {
            return Ok(());
        };
        let reasons: Vec<_> = failures.iter().map(|error| error.message.as_str()).collect();
        let done = if committed.is_empty() {
            "no worker has committed".to_owned()
        } else {
            let names: Vec<_> = committed.iter().map(|(worker, _)| worker.0.as_str()).collect();
            format!(
                "ATTENTION: committed, and not to be undone, on worker {}; not so on the others, so that the tables \
                 concerned now hold a part of the transaction",
                names.join(", ")
            )
        };
        Err(RemoteError::new(
            first.kind,
            format!("Failed to commit: {}; {done}", reasons.join("; ")),
        ))
    }

    /// Rolls back on all workers that have been written on. A worker that cannot be told rolls back by itself when the
    /// session is dropped.
    pub fn rollback(&self) {
        let writing = self.take_writing();
        if writing.is_empty() {
            return;
        }
        let outcomes = self.run_on(writing, "ROLLBACK").unwrap_or_default();
        for (worker, outcome) in outcomes {
            if outcome.is_err() {
                self.lock().remove(&worker);
            }
        }
    }

    /// The sessions that are in a transaction, and are not any more.
    fn take_writing(&self) -> Vec<(WorkerId, Session)> {
        let mut open = self.lock();
        let writing = open.iter_mut().filter(|(_, opened)| opened.in_transaction);
        writing
            .map(|(worker, opened)| {
                opened.in_transaction = false;
                (worker.clone(), opened.session.clone())
            })
            .collect()
    }

    fn run_on(
        &self,
        sessions: Vec<(WorkerId, Session)>,
        sql: &'static str,
    ) -> Result<Vec<(WorkerId, Result<(), RemoteError>)>, RemoteError> {
        Ok(self.runtime()?.block_on(join_all(sessions.into_iter().map(
            |(worker, session)| async move {
                let outcome = self.execute(&worker, &session, sql, false).await.map(|_| ());
                (worker, outcome)
            },
        ))))
    }

    /// Runs one statement on a worker; the rows that it has changed. Fails as soon as the worker is down.
    ///
    /// # Errors
    /// The worker's, which say whose they are.
    pub async fn execute(
        &self,
        worker: &WorkerId,
        session: &Session,
        sql: &str,
        begin_transaction: bool,
    ) -> Result<u64, RemoteError> {
        let options = QueryOptions {
            begin_transaction,
            ..QueryOptions::default()
        };
        let gone = std::slice::from_ref(worker);
        let summary = tokio::select! {
            summary = session.execute_with(sql, options) => summary.map_err(|error| self.error(worker, error))?,
            error = self.registry.gone(gone) => return Err(error),
        };
        Ok(summary.rows_changed.unwrap_or(0))
    }

    /// An error of a worker, which says so.
    pub fn error(&self, worker: &WorkerId, error: ClientError) -> RemoteError {
        let mut remote = match error {
            ClientError::Remote(remote) => remote,
            other => RemoteError::new(ExceptionType::Connection, other.to_string()),
        };
        let address = self.registry.workers().into_iter().find(|known| known.id == *worker);
        let place = address.map_or_else(String::new, |known| format!(" at {}", known.address));
        remote.message = format!("worker {}{place}: {}", worker.0, remote.message);
        remote
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<WorkerId, Opened>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
