//! A herd: what a duckling does together with others.
//!
//! A coordinator has a query's stages run by its workers and gathers the last one's rows; a worker runs stages, keeps
//! their rows in its exchange store, and reads those of its peers. Any duckling can be either.

pub mod source;

use std::sync::Arc;

use tokio::runtime::Handle;

use crate::config::Limits;

pub use source::{BatchSource, Next};

/// What a duckling has of the herd; one for each server.
pub struct Herd {
    limits: Arc<Limits>,
    runtime: Handle,
}

impl Herd {
    /// For a server on `runtime`.
    #[must_use]
    pub fn new(limits: Arc<Limits>, runtime: Handle) -> Arc<Self> {
        Arc::new(Self { limits, runtime })
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
