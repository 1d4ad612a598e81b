//! A herd: what a duckling does together with others.
//!
//! A coordinator has a query's stages run by its workers and gathers the last one's rows; a worker runs stages, keeps
//! their rows in its exchange store, and reads those of its peers. Any duckling can be either.

pub mod ddl;
pub(crate) mod join;
mod membership;
pub(crate) mod placements;
pub(crate) mod registry;
pub mod source;
pub(crate) mod statistics;
mod store;
pub(crate) mod tables;
pub(crate) mod watch;
pub mod workers;
pub mod write;

use std::sync::Arc;

use tokio::runtime::Handle;

use crate::config::Limits;

pub use join::JoinConfig;
pub use membership::{Origin, Versions, WorkerInfo, WorkerState};
pub use registry::Registry;
pub use source::{BatchSource, Next};
pub use statistics::{QueryStatistics, StageStatistics, Statistics};

/// What a duckling has of the herd; one for each server.
pub struct Herd {
    limits: Arc<Limits>,
    registry: Arc<Registry>,
    runtime: Handle,
}

impl Herd {
    /// For a server on `runtime`.
    #[must_use]
    pub fn new(limits: Arc<Limits>, registry: Arc<Registry>, runtime: Handle) -> Arc<Self> {
        Arc::new(Self {
            limits,
            registry,
            runtime,
        })
    }

    /// The members, as this duckling knows them.
    #[must_use]
    pub fn registry(&self) -> &Arc<Registry> {
        &self.registry
    }

    /// The server's bounds.
    #[must_use]
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// The runtime that the server runs on: its network's, hence also that of all talk with peers.
    #[must_use]
    pub fn runtime(&self) -> &Handle {
        &self.runtime
    }
}
