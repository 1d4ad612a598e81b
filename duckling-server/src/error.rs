//! Errors of running a server. What clients see are [`RemoteError`]s, not these.

use duckherder_proto::RemoteError;

/// Why a duckling could not start, or stopped.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// The database could not be opened.
    #[error("cannot open database '{path}': {source}")]
    OpenDatabase {
        /// As configured.
        path: String,
        /// DuckDB's error.
        source: RemoteError,
    },
    /// The functions that tell about the server could not be made in the database.
    #[error("cannot make duckling_history() and its like: {0}")]
    Functions(#[source] RemoteError),
    /// The duckling's part in a herd could not be read from its database, or set up.
    #[error("cannot be part of a herd: {0}")]
    Herd(#[source] RemoteError),
    /// The tables that describe the server to Flight SQL clients could not be built.
    #[error("cannot describe the server: {0}")]
    FlightSql(#[source] arrow_flight::error::FlightError),
    /// What gRPC's server reflection tells does not hold together.
    #[error("cannot describe the service: {0}")]
    Reflection(#[source] tonic_reflection::server::Error),
    /// The listener could not be used.
    #[error("cannot listen: {0}")]
    Listen(#[source] std::io::Error),
    /// The last checkpoint failed; the write-ahead log still holds all committed data.
    #[error("checkpoint at shutdown failed: {0}")]
    Checkpoint(#[source] RemoteError),
}
