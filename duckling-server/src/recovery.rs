//! A database that DuckDB has given up is opened again.
//!
//! After a fatal error (the disk is full while a transaction is written, a file that changed below it) or one of its own
//! bugs, a DuckDB instance refuses every statement until the database is opened anew. In a process of one's own one would
//! start again; so does a duckling, without ending: sessions and their transactions are gone, as after a restart.

use std::sync::Arc;
use std::time::Duration;

use duckherder_proto::RemoteError;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;
use tracing::{error, info, warn};

use crate::duckdb::Connection;
use crate::session::Sessions;

/// How often the database is looked at. Whoever comes in between gets DuckDB's own error.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// How long statements of the old instance get to notice that they were interrupted, before the next attempt.
const CLOSE_PATIENCE: Duration = Duration::from_secs(10);

/// What `grpc.health.v1` is asked about: the server, and its service.
const HEALTH_SERVICES: [&str; 2] = ["", "arrow.flight.protocol.FlightService"];

/// Tells whoever watches the server's health.
pub async fn set_health(health: &HealthReporter, status: ServingStatus) {
    for service in HEALTH_SERVICES {
        health.set_service_status(service, status).await;
    }
}

/// Tells whoever watches that the server stops; their streams end.
pub async fn end_health(health: &mut HealthReporter) {
    set_health(health, ServingStatus::NotServing).await;
    for service in HEALTH_SERVICES {
        health.clear_service_status(service).await;
    }
}

/// Opens the database again whenever DuckDB has given it up, and runs `set_up` on it. What is in memory alone cannot be
/// opened again: its duckling stays as it is, and says that it does not serve.
///
/// Returns in that case only.
pub async fn watch_database(
    sessions: Arc<Sessions>,
    has_file: bool,
    set_up: impl Fn(&mut Connection) -> Result<(), RemoteError> + Clone + Send + 'static,
    health: HealthReporter,
) {
    loop {
        while !sessions.database().is_invalidated().unwrap_or(false) {
            tokio::time::sleep(CHECK_INTERVAL).await;
        }
        set_health(&health, ServingStatus::NotServing).await;
        if !has_file {
            error!(
                "DuckDB has given up the database after an internal error, and it is in memory only: it is lost. \
                 Start the duckling again"
            );
            return;
        }
        warn!("DuckDB has given up the database after an internal error: it is opened again, all sessions end");
        while let Err(error) = reopen(&sessions, set_up.clone()).await {
            warn!(%error, "the database cannot be opened again yet");
            tokio::time::sleep(CHECK_INTERVAL).await;
        }
        info!("the database is open again");
        set_health(&health, ServingStatus::Serving).await;
    }
}

async fn reopen(
    sessions: &Arc<Sessions>,
    set_up: impl Fn(&mut Connection) -> Result<(), RemoteError> + Send + 'static,
) -> Result<(), RemoteError> {
    sessions.close_all();
    let database = sessions.database().clone();
    let work = move || database.reopen(CLOSE_PATIENCE, |connection| set_up(connection));
    match tokio::task::spawn_blocking(work).await {
        Ok(Ok(())) => {
            sessions.definitions().reopened();
            Ok(())
        }
        Ok(Err(error)) => Err(error),
        Err(panic) => std::panic::resume_unwind(panic.into_panic()),
    }
}
