//! Where the rows of a herd's table are.

use serde::{Deserialize, Serialize};

/// The tag of a table of the coordinator's catalog that holds its [`Placement`], as JSON.
pub const PLACEMENT_TAG: &str = "duckherder_placement";

/// The most partitions that a table may have.
pub const PARTITIONS_MAX: usize = 1024;

/// A worker's lasting name.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct WorkerId(pub String);

/// Where the rows of one table are: kept with the table in the coordinator's catalog, and so as transactional and lasting
/// as the table itself. The coordinator's own table of that name is empty.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "distribution", rename_all = "snake_case")]
pub enum Placement {
    /// A row is in the partition `hash(hash(keys)) % partitions.len()`, DuckDB's `hash` over the key columns in this order.
    /// DuckDB's hash tables and its estimates of distinct values use the bits of `hash(keys)`: rows of one worker must not
    /// have some of those in common.
    Hash {
        /// Key columns.
        keys: Vec<String>,
        /// The worker of each partition. A worker holds all its partitions in one table.
        partitions: Vec<WorkerId>,
        /// Whose `hash` it is, and how it is used: [`hash_version`]. By another one it is not known where a row is.
        hash_version: String,
    },
    /// A row is anywhere.
    Even {
        /// The worker of each partition.
        partitions: Vec<WorkerId>,
    },
    /// Every one of these workers has all rows.
    Replicated {
        /// Workers.
        workers: Vec<WorkerId>,
    },
}

/// What partitions and exchanges are made with: DuckDB's `hash`, which may change with its version, applied twice.
/// `HashVersion` of the server's C++ says the same.
#[must_use]
pub fn hash_version(duckdb_version: &str) -> String {
    format!("{duckdb_version} hash(hash)")
}

impl Placement {
    /// The workers that hold rows, each once, in order of their first partition.
    #[must_use]
    pub fn workers(&self) -> Vec<WorkerId> {
        let all = match self {
            Self::Hash { partitions, .. } | Self::Even { partitions } => partitions,
            Self::Replicated { workers } => workers,
        };
        let mut seen = Vec::new();
        for worker in all {
            if !seen.contains(worker) {
                seen.push(worker.clone());
            }
        }
        seen
    }
}
