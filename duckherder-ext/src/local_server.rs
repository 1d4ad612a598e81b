//! The duckling inside this process.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use duckherder_proto::ExceptionType;
use duckling_server::{Duckling, DucklingConfig, Limits, ServerError};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::error::{ExtError, Result, invalid_input};
use crate::runtime::{self, InterruptCheck};

/// A local server is stopped by somebody who waits for it.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(2);

struct LocalServer {
    process_id: u32,
    address: String,
    stop: oneshot::Sender<()>,
    serving: JoinHandle<std::result::Result<(), ServerError>>,
}

static LOCAL_SERVER: Mutex<Option<LocalServer>> = Mutex::new(None);

fn lock() -> MutexGuard<'static, Option<LocalServer>> {
    let mut slot = LOCAL_SERVER.lock().unwrap_or_else(PoisonError::into_inner);
    // A forked child inherits the record of its parent's server, not the server.
    if slot
        .as_ref()
        .is_some_and(|server| server.process_id != std::process::id())
    {
        std::mem::forget(slot.take());
    }
    slot
}

/// Starts a duckling with an in-memory database of its own on this machine's loopback; port 0 takes a free one. Returns
/// its address.
///
/// # Errors
/// One runs already; the port is taken; workers are asked for.
pub fn start(interrupt: &dyn InterruptCheck, port: u16, workers: u32) -> Result<String> {
    if workers > 0 {
        return Err(ExtError::new(
            ExceptionType::NotImplemented,
            "local workers are not available in this version: leave the second argument out, or pass 0",
        ));
    }
    let mut slot = lock();
    if let Some(server) = slot.as_ref() {
        return Err(invalid_input(format!(
            "a local server runs already, at {}; stop it first: SELECT duckherder_stop_local_server()",
            server.address
        )));
    }
    let (listener, address) = runtime::wait(interrupt, listen(port))?;
    let limits = Limits {
        drain_timeout: DRAIN_TIMEOUT,
        ..Limits::default()
    };
    let duckling = Duckling::open(DucklingConfig {
        limits,
        ..DucklingConfig::default()
    })
    .map_err(|error| ExtError::new(ExceptionType::Io, error.to_string()))?;
    let (stop, stopped) = oneshot::channel();
    let serving = runtime::handle()?.spawn(duckling.serve(listener, async move {
        let _ = stopped.await;
    }));
    *slot = Some(LocalServer {
        process_id: std::process::id(),
        address: address.clone(),
        stop,
        serving,
    });
    Ok(address)
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

/// Stops it. Statements that still run get a moment to finish; its data is gone.
///
/// # Errors
/// None runs.
pub fn stop(interrupt: &dyn InterruptCheck) -> Result<String> {
    let Some(server) = lock().take() else {
        return Err(invalid_input(
            "no local server runs; start one: SELECT duckherder_start_local_server(8815)",
        ));
    };
    // It may have died by itself: then there is nobody to tell.
    let _ = server.stop.send(());
    runtime::wait(interrupt, async move {
        match server.serving.await {
            Ok(Ok(())) => Ok(server.address),
            Ok(Err(error)) => Err(ExtError::new(ExceptionType::Io, error.to_string())),
            Err(_) => Err(ExtError::new(ExceptionType::Io, "the local server had failed")),
        }
    })
}
