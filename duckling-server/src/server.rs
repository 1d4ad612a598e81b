//! Starting, serving, stopping.

use std::ffi::CStr;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use duckherder_proto::{ExceptionType, RemoteError};
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tonic::service::Routes;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;
use tonic_reflection::server::v1::{ServerReflection, ServerReflectionServer};
use tracing::{debug, info, warn};

use crate::catalog::rows;
use crate::config::{DucklingConfig, IN_MEMORY, Limits};
use crate::connections::incoming;
use crate::duckdb::{Connection, Database, HAS_ICU, TableSource, return_freed_blocks};
use crate::error::ServerError;
use crate::get::Services;
use crate::herd::registry::Place;
use crate::herd::statistics::{self, Statistics, StatisticsTable};
use crate::herd::tables::{self, PartitionsTable, WorkersTable};
use crate::herd::watching::watch_workers;
use crate::herd::{Herd, JoinConfig, Registry, join};
use crate::history::{self, HistoryTable};
use crate::http2;
use crate::memory;
use crate::recovery;
use crate::reflection;
use crate::service::DucklingService;
use crate::session::Sessions;

/// How often idle sessions are looked for.
const IDLE_CHECK_INTERVAL: Duration = Duration::from_secs(5);

/// How long interrupted statements get to notice before the server stops anyway.
const INTERRUPT_GRACE: Duration = Duration::from_secs(5);

/// A server with its database open, not yet listening.
pub struct Duckling {
    sessions: Arc<Sessions>,
    registry: Arc<Registry>,
    join: Option<JoinConfig>,
    /// Whether there is a file to checkpoint.
    has_file: bool,
    has_icu: bool,
    set_up: SetUp,
}

/// What every instance that opens the database is given.
#[derive(Clone)]
struct SetUp {
    /// DuckDB's share of the process's memory.
    memory_limit: Option<u64>,
    default_partitions: usize,
    functions: [(&'static CStr, Arc<dyn TableSource>); 5],
}

impl Duckling {
    /// Opens the database.
    ///
    /// # Errors
    /// [`ServerError::OpenDatabase`] with DuckDB's own error; [`ServerError::Functions`]; [`ServerError::Herd`] if the
    /// database has a herd's tables that cannot be read.
    pub fn open(config: DucklingConfig) -> Result<Self, ServerError> {
        let has_file = config.database != IN_MEMORY;
        let mut database_options = config.database_options;
        if config.memory_limit.is_some() {
            database_options.memory_limit = config.memory_limit.clone();
        }
        let open = || {
            let database = Database::open(&config.database, &database_options)?;
            let has_icu = load_icu(&mut database.connect()?)?;
            Ok((database, has_icu))
        };
        let (database, has_icu) = open().map_err(|source| ServerError::OpenDatabase {
            path: config.database.clone(),
            source,
        })?;
        let mut limits = config.limits;
        let memory_limit = match database_options.memory_limit {
            Some(_) => divide_memory(&database, &mut limits, config.memory_limit.is_some()),
            None => Ok(None),
        }
        .map_err(ServerError::Functions)?;
        let limits = Arc::new(limits);
        let registry = Registry::open(database.clone(), has_file, Arc::clone(&limits)).map_err(ServerError::Herd)?;
        let registry = Arc::new(registry);
        let directory = config.exchange_directory.unwrap_or_else(std::env::temp_dir);
        let herd = Herd::new(Arc::clone(&registry), directory);
        let sessions = Arc::new(Sessions::new(database, limits, herd));
        let duckling = Self {
            has_file,
            has_icu,
            join: config.join,
            set_up: SetUp {
                memory_limit,
                default_partitions: config.default_partitions,
                functions: functions(&sessions, &registry),
            },
            registry,
            sessions,
        };
        let set_up = || duckling.set_up.run(&mut duckling.sessions.database().connect()?);
        set_up().map_err(ServerError::Functions)?;
        Ok(duckling)
    }

    /// The herd's members, as this duckling knows them; for a program that has more than one duckling, or wants to tell
    /// one when to join.
    #[must_use]
    pub fn registry(&self) -> &Arc<Registry> {
        &self.registry
    }

    /// What this duckling has of the herd.
    #[must_use]
    pub fn herd(&self) -> &Arc<Herd> {
        self.sessions.herd()
    }

    /// How this duckling, as a coordinator, has executed its latest queries.
    #[must_use]
    pub fn statistics(&self) -> &Arc<Statistics> {
        self.herd().statistics()
    }

    /// Whether there is ICU: time zones other than UTC, calendars, collations.
    #[must_use]
    pub fn has_icu(&self) -> bool {
        self.has_icu
    }

    /// Answers clients of `listener` until `shutdown` resolves. Then it accepts no more requests, lets running statements
    /// finish within the drain timeout, interrupts the rest, checkpoints and returns.
    ///
    /// # Errors
    /// If the listener has no address, the herd to join is no address, or the last checkpoint fails (committed data is then in the
    /// write-ahead log).
    pub async fn serve(
        self,
        listener: TcpListener,
        shutdown: impl Future<Output = ()> + Send + 'static,
    ) -> Result<(), ServerError> {
        let (mut health, health_service) = tonic_health::server::health_reporter();
        recovery::set_health(&health, ServingStatus::Serving).await;
        let reflection = reflection()?;
        self.registry.serves(Place {
            listen: listener.local_addr().map_err(ServerError::Listen)?,
            runtime: Handle::current(),
        });
        if let Some(config) = &self.join {
            join::join(&self.registry, config).map_err(ServerError::Herd)?;
        }
        let watching = tokio::spawn(watch_workers(Arc::clone(&self.registry)));
        let (stop, stopped) = watch::channel(false);
        let idle = tokio::spawn(close_idle_sessions(Arc::clone(&self.sessions), stopped.clone()));
        let recovering = tokio::spawn(self.recover(health.clone()));
        let registry = Arc::clone(&self.registry);
        let signal = tokio::spawn(async move {
            shutdown.await;
            // Whoever balances load is to look for another server from now on. Those who watch are told, and their
            // streams end: the shutdown would wait for them.
            recovery::end_health(&mut health).await;
            let _ = stop.send(true);
            join::stop(&registry, true).await;
        });
        let connections = incoming(listener, self.sessions.limits().connections_max);
        let services = self.services(Routes::new(health_service).add_service(reflection))?;
        let serving = http2::serve(connections, services, wait_for_stop(stopped.clone()));
        tokio::pin!(serving);
        tokio::select! {
            () = &mut serving => {}
            () = self.give_up_draining(stopped.clone()) => {
                // Interrupted statements end their streams; a client that does not read must not hold us up.
                let _ = tokio::time::timeout(INTERRUPT_GRACE, &mut serving).await;
            }
        }
        if *stopped.borrow() {
            // The farewell, which takes a moment at most.
            let _ = signal.await;
        } else {
            signal.abort();
        }
        idle.abort();
        // They hold the database.
        for task in [watching, recovering] {
            task.abort();
            let _ = task.await;
        }
        self.close().await
    }

    /// Opens the database again when it has to be.
    fn recover(&self, health: HealthReporter) -> impl Future<Output = ()> + Send + use<> {
        let set_up = self.set_up.clone();
        let run = move |connection: &mut Connection| {
            load_icu(connection)?;
            set_up.run(connection)
        };
        recovery::watch_database(Arc::clone(&self.sessions), self.has_file, run, health)
    }

    fn services(&self, others: Routes) -> Result<Services, ServerError> {
        let service = DucklingService::new(Arc::clone(&self.sessions), Arc::clone(&self.registry))
            .map_err(ServerError::FlightSql)?;
        Ok(Services::new(service, others))
    }

    /// Resolves when the drain timeout has passed after the stop, with all statements interrupted.
    async fn give_up_draining(&self, stopped: watch::Receiver<bool>) {
        wait_for_stop(stopped).await;
        info!(
            "stopping: running statements have {:?} to finish",
            self.sessions.limits().drain_timeout
        );
        tokio::time::sleep(self.sessions.limits().drain_timeout).await;
        warn!("interrupting the statements that still run");
        self.sessions.interrupt_all();
    }

    async fn close(self) -> Result<(), ServerError> {
        self.sessions.close_all();
        if !self.has_file {
            return Ok(());
        }
        let database = self.sessions.database().clone();
        let checkpoint = tokio::task::spawn_blocking(move || database.connect()?.execute("FORCE CHECKPOINT"));
        match checkpoint.await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(ServerError::Checkpoint(error)),
            Err(_) => Ok(()),
        }
    }
}

/// Server reflection, for tools that learn from the server what it can do.
fn reflection() -> Result<ServerReflectionServer<impl ServerReflection>, ServerError> {
    tonic_reflection::server::Builder::configure()
        .register_file_descriptor_set(reflection::flight())
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .build_v1()
        .map_err(ServerError::Reflection)
}

impl SetUp {
    fn run(&self, connection: &mut Connection) -> Result<(), RemoteError> {
        if let Some(bytes) = self.memory_limit {
            return_freed_blocks();
            connection.execute(&format!("SET GLOBAL memory_limit = '{}KiB'", bytes >> 10))?;
        }
        connection.install_herd()?;
        connection.execute(&format!(
            "SET GLOBAL duckherder_default_partitions = {}",
            self.default_partitions
        ))?;
        for (name, source) in &self.functions {
            connection.register_table_function(name, Arc::clone(source))?;
        }
        Ok(())
    }
}

/// The table functions that tell about the server.
fn functions(sessions: &Sessions, registry: &Arc<Registry>) -> [(&'static CStr, Arc<dyn TableSource>); 5] {
    let registry = Arc::downgrade(registry);
    let own = sessions.herd().statistics();
    let execution = |registry| -> Arc<dyn TableSource> {
        Arc::new(StatisticsTable {
            own: Arc::clone(own),
            registry,
        })
    };
    [
        (
            history::FUNCTION,
            Arc::new(HistoryTable(Arc::clone(sessions.history()))),
        ),
        (tables::WORKERS, Arc::new(WorkersTable(registry.clone()))),
        (tables::PARTITIONS, Arc::new(PartitionsTable(registry.clone()))),
        (statistics::FUNCTION, execution(Some(registry))),
        (statistics::OWN_FUNCTION, execution(None)),
    ]
}

/// Lowers limits to their shares of DuckDB's memory limit. If that was meant for the process, what is left for DuckDB.
fn divide_memory(database: &Database, limits: &mut Limits, is_process: bool) -> Result<Option<u64>, RemoteError> {
    let given = memory_limit(database)?;
    if is_process {
        return Ok(Some(memory::divide(given, limits)));
    }
    memory::bound_exchanges(given, limits);
    Ok(None)
}

/// DuckDB's memory limit in bytes, which it tells as people read it: `372.5 MiB`.
fn memory_limit(database: &Database) -> Result<u64, RemoteError> {
    let found = rows(&mut database.connect()?, "SELECT current_setting('memory_limit')")?;
    let text = found.first().and_then(|row| row.text(0)).unwrap_or_default();
    bytes(text).ok_or_else(|| {
        RemoteError::new(
            ExceptionType::InvalidInput,
            format!("DuckDB's memory limit cannot be read: '{text}'"),
        )
    })
}

fn bytes(text: &str) -> Option<u64> {
    let (number, unit) = text.trim().split_once(' ')?;
    let power = match unit {
        "bytes" | "byte" => 0,
        "KiB" => 1,
        "MiB" => 2,
        "GiB" => 3,
        "TiB" => 4,
        "PiB" => 5,
        _ => return None,
    };
    Some((number.parse::<f64>().ok()? * 1024_f64.powi(power)) as u64)
}

/// Whether the database has ICU. A server that was built without loads it where it is installed.
fn load_icu(connection: &mut Connection) -> Result<bool, RemoteError> {
    if !HAS_ICU && let Err(error) = connection.execute("LOAD icu") {
        debug!(%error, "there is no ICU to load");
    }
    Ok(connection.has_setting("TimeZone"))
}

async fn wait_for_stop(mut stopped: watch::Receiver<bool>) {
    // An error means that the sender is gone, which is a stop as well.
    let _ = stopped.wait_for(|stop| *stop).await;
}

async fn close_idle_sessions(sessions: Arc<Sessions>, stopped: watch::Receiver<bool>) {
    let stop = wait_for_stop(stopped);
    tokio::pin!(stop);
    loop {
        tokio::select! {
            () = &mut stop => return,
            () = tokio::time::sleep(IDLE_CHECK_INTERVAL) => sessions.close_idle(),
        }
    }
}
