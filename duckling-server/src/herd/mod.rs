//! A herd: what a duckling does together with others.
//!
//! A coordinator has a query's stages run by its workers and gathers the last one's rows; a worker runs stages, keeps
//! their rows in its exchange store, and reads those of its peers. Any duckling can be either.

pub(crate) mod ddl;
pub(crate) mod exchange;
pub(crate) mod gather;
pub(crate) mod join;
mod membership;
mod merge;
mod moves;
mod parts;
mod peers;
pub(crate) mod placements;
mod planning;
pub(crate) mod registry;
pub(crate) mod routes;
mod running;
pub mod session;
pub mod source;
pub(crate) mod stages;
pub(crate) mod statistics;
mod store;
pub(crate) mod tables;
pub(crate) mod upload;
pub(crate) mod watching;
pub mod write;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use duckherder_proto::{ExceptionType, RemoteError};
use tokio::runtime::Handle;

use crate::config::Limits;

pub use exchange::{Exchanges, Holdings, Taken};
use planning::TableEstimates;
use routes::Routes;

pub use gather::{EdgeStatistics, GatherStatistics, TaskStatistics};
pub use join::JoinConfig;
pub use membership::{Origin, Versions, WorkerInfo, WorkerState};
pub use peers::Peers;
pub use planning::Planning;
pub use registry::Registry;
pub use session::HerdSession;
pub use source::{BatchSource, Next};
pub use statistics::{QueryStatistics, StageStatistics, Statistics};
pub(crate) use store::SCHEMA;

/// What a duckling has of the herd; one for each server.
pub struct Herd {
    registry: Arc<Registry>,
    peers: Peers,
    exchanges: Arc<Exchanges>,
    table_estimates: TableEstimates,
    routes: Routes,
    /// Statements planned so far.
    planned: AtomicU64,
    statistics: Arc<Statistics>,
}

impl Herd {
    /// Exchanges that do not fit into memory go to `directory`.
    #[must_use]
    pub fn new(registry: Arc<Registry>, directory: PathBuf) -> Arc<Self> {
        Arc::new(Self {
            peers: Peers::default(),
            statistics: Arc::new(Statistics::new(registry.limits())),
            exchanges: Exchanges::new(registry.limits(), directory),
            table_estimates: TableEstimates::default(),
            routes: Routes::default(),
            planned: AtomicU64::new(0),
            registry,
        })
    }

    /// The members, as this duckling knows them.
    #[must_use]
    pub fn registry(&self) -> &Arc<Registry> {
        &self.registry
    }

    /// Connections to other members.
    #[must_use]
    pub fn peers(&self) -> &Peers {
        &self.peers
    }

    /// What this duckling, as a worker, keeps for others.
    #[must_use]
    pub fn exchanges(&self) -> &Arc<Exchanges> {
        &self.exchanges
    }

    /// Which statements need no plan.
    pub(crate) fn routes(&self) -> &Routes {
        &self.routes
    }

    /// How this duckling, as a coordinator, has executed its latest statements.
    #[must_use]
    pub fn statistics(&self) -> &Arc<Statistics> {
        &self.statistics
    }

    /// The server's bounds.
    #[must_use]
    pub fn limits(&self) -> &Limits {
        self.registry.limits()
    }

    /// The runtime that the server runs on: its network's, hence also that of all talk with peers.
    ///
    /// # Errors
    /// It does not run yet.
    pub fn runtime(&self) -> Result<Handle, RemoteError> {
        self.registry
            .place()
            .map(|place| place.runtime.clone())
            .ok_or_else(|| RemoteError::new(ExceptionType::Connection, "the duckling does not serve yet"))
    }
}
