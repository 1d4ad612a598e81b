//! The ducklings inside this process: a server, its workers, and workers for others.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use arrow::array::AsArray;
use duckherder_catalog::herd::placement::WorkerId;
use duckherder_proto::ExceptionType;
use duckling_server::duckdb::DatabaseOptions;
use duckling_server::herd::{JoinConfig, Registry};
use duckling_server::{Duckling, DucklingConfig, Limits, ServerError};
use futures::future::join_all;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::error::{ExtError, Result, invalid_input};
use crate::runtime::{self, InterruptCheck};

/// A local server is stopped by somebody who waits for it.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(2);

/// Workers of the local server: each is a DuckDB of its own.
const WORKERS_MAX: u32 = 64;

/// Workers for others, started one by one.
const STANDALONE_MAX: usize = 64;

/// How long the workers get to join.
const JOIN_TIMEOUT: Duration = Duration::from_secs(30);

/// How often it is looked whether they have.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);

/// A duckling in this process. Dropped, it stops by itself.
struct Served {
    address: String,
    registry: Arc<Registry>,
    stop: oneshot::Sender<()>,
    serving: JoinHandle<std::result::Result<(), ServerError>>,
}

/// The ducklings of a process.
struct Servers {
    process_id: u32,
    server: Option<Served>,
    /// The server's.
    workers: Vec<Served>,
    /// Those of others, in the order in which they were started.
    standalone: Vec<Served>,
}

static SERVERS: Mutex<Option<Servers>> = Mutex::new(None);

/// The ducklings of this process, locked.
struct Slot(MutexGuard<'static, Option<Servers>>);

impl Slot {
    fn lock() -> Self {
        let mut slot = SERVERS.lock().unwrap_or_else(PoisonError::into_inner);
        // A forked child inherits the record of its parent's ducklings, not the ducklings.
        if slot
            .as_ref()
            .is_some_and(|servers| servers.process_id != std::process::id())
        {
            std::mem::forget(slot.take());
        }
        Self(slot)
    }

    fn servers(&mut self) -> &mut Servers {
        self.0.get_or_insert_with(|| Servers {
            process_id: std::process::id(),
            server: None,
            workers: Vec::new(),
            standalone: Vec::new(),
        })
    }
}

/// Starts a duckling with an in-memory database of its own on this machine's loopback, and so many workers for it; port 0
/// takes a free one. Returns its address.
///
/// # Errors
/// One runs already; the port is taken; too many workers are asked for, or they do not come up.
pub fn start(interrupt: &dyn InterruptCheck, port: u16, workers: u32) -> Result<String> {
    if workers > WORKERS_MAX {
        return Err(invalid_input(format!(
            "a local server has at most {WORKERS_MAX} workers, not {workers}"
        )));
    }
    let mut slot = Slot::lock();
    let servers = slot.servers();
    if let Some(server) = &servers.server {
        return Err(invalid_input(format!(
            "a local server runs already, at {}; stop it first: SELECT duckherder_stop_local_server()",
            server.address
        )));
    }
    let server = serve(interrupt, port, DucklingConfig::default())?;
    let options = worker_options(&server.registry, workers);
    let mut started = Vec::new();
    for _ in 0..workers {
        let config = DucklingConfig {
            database_options: options.clone(),
            join: Some(JoinConfig {
                coordinator: server.address.clone(),
                advertise: None,
            }),
            ..DucklingConfig::default()
        };
        started.push(serve(interrupt, 0, config)?);
    }
    let registry = Arc::clone(&server.registry);
    runtime::wait(interrupt, async move {
        let began = Instant::now();
        while registry.live().len() < workers as usize {
            if began.elapsed() > JOIN_TIMEOUT {
                return Err(ExtError::new(
                    ExceptionType::Io,
                    format!(
                        "of {workers} local workers only {} have joined within {} s",
                        registry.live().len(),
                        JOIN_TIMEOUT.as_secs()
                    ),
                ));
            }
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
        Ok(())
    })?;
    let address = server.address.clone();
    servers.workers = started;
    servers.server = Some(server);
    Ok(address)
}

/// Starts a duckling that somebody is to have for a worker; port 0 takes a free one. Returns its address.
///
/// # Errors
/// The port is taken; there are too many.
pub fn start_worker(interrupt: &dyn InterruptCheck, port: u16) -> Result<String> {
    let mut slot = Slot::lock();
    let servers = slot.servers();
    if servers.standalone.len() >= STANDALONE_MAX {
        return Err(invalid_input(format!(
            "this process has {STANDALONE_MAX} standalone workers, its limit"
        )));
    }
    let worker = serve(interrupt, port, DucklingConfig::default())?;
    let address = worker.address.clone();
    servers.standalone.push(worker);
    Ok(address)
}

/// Makes a duckling of this process a worker of the coordinator there, under that id, in the place of whoever has it.
/// Returns the address of the worker.
///
/// # Errors
/// There is none that can be a worker; the coordinator cannot be reached, or refuses.
pub fn join(interrupt: &dyn InterruptCheck, id: &str, coordinator: &str) -> Result<String> {
    let (address, registry) = {
        let mut slot = Slot::lock();
        let servers = slot.servers();
        let chosen = choose(servers, id).ok_or_else(|| {
            invalid_input(
                "this process has no duckling that can be a worker; start one: SELECT \
                 duckherder_start_standalone_worker(0)",
            )
        })?;
        (chosen.address.clone(), Arc::clone(&chosen.registry))
    };
    let config = JoinConfig {
        coordinator: coordinator.to_owned(),
        advertise: None,
    };
    let id = WorkerId(id.to_owned());
    runtime::wait(interrupt, async move {
        registry.join_as(&config, id).await?;
        Ok(address)
    })
}

/// The standalone worker that has the id already; else the newest that belongs to nobody; else the newest; else the local
/// server, if it has no workers of its own.
fn choose<'servers>(servers: &'servers Servers, id: &str) -> Option<&'servers Served> {
    let newest_first = || servers.standalone.iter().rev();
    newest_first()
        .find(|worker| worker.registry.own_id().0 == id)
        .or_else(|| newest_first().find(|worker| worker.registry.coordinator().is_none()))
        .or_else(|| newest_first().next())
        .or_else(|| {
            let server = servers.server.as_ref();
            server.filter(|server| !server.registry.has_workers())
        })
}

/// Opens a duckling and serves it.
fn serve(interrupt: &dyn InterruptCheck, port: u16, config: DucklingConfig) -> Result<Served> {
    let (listener, address) = runtime::wait(interrupt, listen(port))?;
    let limits = Limits {
        drain_timeout: DRAIN_TIMEOUT,
        ..Limits::default()
    };
    let duckling = Duckling::open(DucklingConfig { limits, ..config })
        .map_err(|error| ExtError::new(ExceptionType::Io, error.to_string()))?;
    let registry = Arc::clone(duckling.registry());
    let (stop, stopped) = oneshot::channel();
    let serving = runtime::handle()?.spawn(duckling.serve(listener, async move {
        let _ = stopped.await;
    }));
    Ok(Served {
        address,
        registry,
        stop,
        serving,
    })
}

/// Workers of one process share its cores, and the memory that one of them would take.
fn worker_options(server: &Registry, workers: u32) -> DatabaseOptions {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let workers = workers.max(1);
    DatabaseOptions {
        threads: Some((cores / workers as usize).max(1)),
        memory_limit: memory_limit(server).and_then(|limit| divided(&limit, workers)),
        ..DatabaseOptions::default()
    }
}

/// DuckDB's limit, `19.1 GiB`, if it tells.
fn memory_limit(server: &Registry) -> Option<String> {
    let mut connection = server.connect().ok()?;
    let (_, batches) = connection.collect("SELECT current_setting('memory_limit')").ok()?;
    let texts = batches.first()?.column(0).as_string_opt::<i32>()?;
    Some(texts.value(0).to_owned())
}

fn divided(limit: &str, by: u32) -> Option<String> {
    let (number, unit) = limit.split_once(' ')?;
    let number: f64 = number.parse().ok()?;
    Some(format!("{:.3} {unit}", number / f64::from(by)))
}

async fn listen(port: u16) -> Result<(TcpListener, String)> {
    let explain = |error: std::io::Error| {
        let hint = match error.kind() {
            std::io::ErrorKind::AddrInUse => {
                " (another process listens there: choose another port, or 0 for a free one)"
            }
            std::io::ErrorKind::PermissionDenied => " (choose a port above 1023)",
            _ => "",
        };
        ExtError::new(
            ExceptionType::Io,
            format!("cannot start a local server on port {port}: {error}{hint}"),
        )
    };
    let listener = TcpListener::bind(("127.0.0.1", port)).await.map_err(explain)?;
    let address = listener.local_addr().map_err(explain)?;
    Ok((listener, format!("localhost:{}", address.port())))
}

/// What was stopped.
pub struct Stopped {
    /// The local server's address.
    pub server: Option<String>,
    /// How many workers.
    pub workers: usize,
}

/// Stops them all. Statements that still run get a moment to finish; their data is gone.
///
/// # Errors
/// None runs.
pub fn stop(interrupt: &dyn InterruptCheck) -> Result<Stopped> {
    let servers = Slot::lock().0.take();
    let Some(servers) = servers.filter(|servers| servers.server.is_some() || !servers.standalone.is_empty()) else {
        return Err(invalid_input(
            "no local server runs; start one: SELECT duckherder_start_local_server(8815)",
        ));
    };
    let stopped = Stopped {
        server: servers.server.as_ref().map(|server| server.address.clone()),
        workers: servers.workers.len() + servers.standalone.len(),
    };
    let all = servers
        .server
        .into_iter()
        .chain(servers.workers)
        .chain(servers.standalone);
    let ending: Vec<_> = all
        .map(|served| {
            // It may have died by itself: then there is nobody to tell.
            let _ = served.stop.send(());
            served.serving
        })
        .collect();
    runtime::wait(interrupt, async move {
        for ended in join_all(ending).await {
            match ended {
                Ok(Ok(())) => {}
                Ok(Err(error)) => return Err(ExtError::new(ExceptionType::Io, error.to_string())),
                Err(_) => return Err(ExtError::new(ExceptionType::Io, "the local server had failed")),
            }
        }
        Ok(stopped)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_shared() {
        assert_eq!(divided("19.1 GiB", 4).as_deref(), Some("4.775 GiB"));
        assert_eq!(divided("unlimited", 4), None);
    }
}
