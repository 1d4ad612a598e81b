//! Statements that go to the worker of their rows, and not by way of the coordinator: [`duckherder_catalog::herd::direct`] knows
//! which; this sends them.
//!
//! Nothing depends on it: whatever goes wrong on this way, the statement goes to the coordinator. A session on a worker is
//! opened beside the statements, never in their way.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use duckherder_catalog::herd::direct::{DirectRoutes, Lesson, Way};
use duckherder_proto::error::{ERROR_SUBTYPE, ROUTE_OUTDATED, SESSION_NOT_OPEN};
use duckherder_proto::v1::{ExecuteRequest, StatementRoute};
use tokio::runtime::Handle;
use tokio::sync::Mutex as AsyncMutex;
use tokio::time::timeout;

use crate::connection::Connection;
use crate::error::ClientError;
use crate::options::ClientOptions;
use crate::session::Session;
use crate::stream::QueryStream;

/// How long a worker may take to begin with its answer: it only looks a row up.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);

/// How long a worker that cannot be reached, or fails, is left alone.
const PAUSE: Duration = Duration::from_secs(30);

/// Workers that a client knows of.
const WORKERS_MAX: usize = 1024;

/// What a session knows of workers.
pub(crate) struct Direct {
    options: ClientOptions,
    connections: Arc<Connections>,
    runtime: Handle,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    routes: DirectRoutes,
    /// Those of the session: its sessions on workers have the same.
    settings: BTreeMap<String, String>,
    /// Counts how often they were changed.
    generation: u64,
    /// By address.
    workers: HashMap<String, Worker>,
}

enum Worker {
    Opening,
    Open(Session),
    /// It has failed then.
    Avoided(Instant),
}

/// The connections to workers that a client's sessions share.
#[derive(Debug, Default)]
pub(crate) struct Connections(Mutex<HashMap<String, Place>>);

type Place = Arc<AsyncMutex<Option<Connection>>>;

/// What has become of a statement.
pub(crate) enum Sent {
    /// A worker answers it.
    Answered(Box<QueryStream>),
    /// It has to go to the coordinator.
    Not,
    /// The same; the answer may teach the lesson.
    Teaches(Lesson),
    /// The same; it may change what statements mean.
    Changes(Change),
}

/// Something that may change what statements mean is under way: what is learnt until its end holds no longer.
pub(crate) struct Change(Arc<Direct>);

impl Drop for Change {
    fn drop(&mut self) {
        self.0.lock().routes.forget_all();
    }
}

impl Direct {
    /// Of a session with these settings.
    pub(crate) fn new(
        options: &ClientOptions,
        connections: Arc<Connections>,
        settings: BTreeMap<String, String>,
    ) -> Self {
        let state = State {
            settings,
            ..State::default()
        };
        Self {
            options: options.clone(),
            connections,
            runtime: Handle::current(),
            state: Mutex::new(state),
        }
    }

    /// Sends a statement to its worker, if that is known. To be called for every statement.
    pub(crate) async fn send(self: &Arc<Self>, request: &ExecuteRequest) -> Sent {
        let (session, address, definitions, lesson) = {
            let mut state = self.lock();
            match state.routes.way(&request.sql) {
                _ if request.begin_transaction => {
                    drop(state);
                    return Sent::Changes(self.change());
                }
                Way::Coordinator => {
                    drop(state);
                    return Sent::Changes(self.change());
                }
                _ if !request.stored_types => return Sent::Not,
                Way::Learn(lesson) => return Sent::Teaches(lesson),
                Way::Worker(address, definitions, lesson) => match self.session(&mut state, &address) {
                    Some(session) => (session, address, definitions, lesson),
                    None => return Sent::Not,
                },
            }
        };
        let request = ExecuteRequest {
            session_id: session.id().clone(),
            further_streams: 0,
            definitions: Some(definitions),
            ..request.clone()
        };
        match timeout(ANSWER_TIMEOUT, session.execute_here(request)).await {
            Ok(Ok(stream)) => return Sent::Answered(Box::new(stream)),
            Ok(Err(error)) => self.failed(&address, &lesson, &error),
            Err(_) => self.avoid(&address),
        }
        Sent::Not
    }

    /// The coordinator has said how to send statements like one that it was sent.
    pub(crate) fn learn(&self, lesson: Lesson, route: StatementRoute) {
        self.lock().routes.learn(lesson, route);
    }

    /// Something begins that may change what statements mean.
    pub(crate) fn change(self: &Arc<Self>) -> Change {
        self.lock().routes.forget_all();
        Change(Arc::clone(self))
    }

    /// The session has other settings from here on.
    pub(crate) fn set_settings(&self, settings: BTreeMap<String, String>) {
        let closed = {
            let mut state = self.lock();
            state.routes.forget_all();
            state.settings = settings;
            state.generation += 1;
            std::mem::take(&mut state.workers)
        };
        drop(closed);
    }

    /// Closes the sessions on workers.
    pub(crate) fn close(&self) {
        let settings = self.lock().settings.clone();
        self.set_settings(settings);
    }

    fn failed(&self, address: &str, lesson: &Lesson, error: &ClientError) {
        tracing::debug!(%error, "a statement that was sent to a worker goes to the coordinator");
        let subtype = match error {
            ClientError::Remote(error) => error.extra_info.get(ERROR_SUBTYPE).map(String::as_str),
            _ => None,
        };
        match subtype {
            Some(ROUTE_OUTDATED) => self.lock().routes.refused(lesson, address),
            Some(SESSION_NOT_OPEN) => {
                // It has been started anew, maybe as one that knows nothing of definitions and their versions.
                let closed = {
                    let mut state = self.lock();
                    state.routes.forget_all();
                    state.workers.remove(address)
                };
                drop(closed);
            }
            _ => self.avoid(address),
        }
    }

    fn avoid(&self, address: &str) {
        let closed = self
            .lock()
            .workers
            .insert(address.to_owned(), Worker::Avoided(Instant::now()));
        drop(closed);
    }

    /// The session on a worker. `None` if there is none yet: one is opened then, if it is time for that.
    fn session(self: &Arc<Self>, state: &mut State, address: &str) -> Option<Session> {
        match state.workers.get(address) {
            Some(Worker::Open(session)) => return Some(session.clone()),
            Some(Worker::Opening) => return None,
            Some(Worker::Avoided(since)) if since.elapsed() < PAUSE => return None,
            Some(Worker::Avoided(_)) => {}
            None if state.workers.len() >= WORKERS_MAX => return None,
            None => {}
        }
        state.workers.insert(address.to_owned(), Worker::Opening);
        let (direct, generation) = (Arc::downgrade(self), state.generation);
        let options = self.options.of_worker(address);
        let (connections, settings, address) = (
            Arc::clone(&self.connections),
            state.settings.clone(),
            address.to_owned(),
        );
        self.runtime.spawn(async move {
            let session = match options {
                Some(options) => connections.open_session(&address, &options, settings).await,
                None => None,
            };
            let Some(direct) = direct.upgrade() else { return };
            let mut state = direct.lock();
            if state.generation == generation {
                let worker = session.map_or_else(|| Worker::Avoided(Instant::now()), Worker::Open);
                state.workers.insert(address, worker);
            }
        });
        None
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Connections {
    /// A session over the connection to a worker, which is made if there is none yet.
    async fn open_session(
        &self,
        address: &str,
        options: &ClientOptions,
        settings: BTreeMap<String, String>,
    ) -> Option<Session> {
        let opened = async {
            let connection = self.connection(address, options).await?;
            Session::open(&connection, options, settings).await
        };
        match timeout(options.connect_timeout, opened).await {
            Ok(Ok(session)) => Some(session),
            Ok(Err(error)) => {
                tracing::debug!(%error, "a worker is not asked directly");
                None
            }
            Err(_) => {
                tracing::debug!(address, "a worker is not asked directly: it cannot be reached in time");
                None
            }
        }
    }

    async fn connection(&self, address: &str, options: &ClientOptions) -> Result<Connection, ClientError> {
        let place = {
            let mut places = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            if places.len() >= WORKERS_MAX && !places.contains_key(address) {
                places.clear();
            }
            Arc::clone(places.entry(address.to_owned()).or_default())
        };
        let mut place = place.lock().await;
        if let Some(connection) = &*place {
            return Ok(connection.clone());
        }
        let connection = Connection::open(options).await?;
        Ok(place.insert(connection).clone())
    }
}
