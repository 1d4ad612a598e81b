//! A distributed query, ready to run.

use serde::{Deserialize, Serialize};

use super::placement::WorkerId;

/// Number of a stage, and of the exchange that its rows go through; unique within its query.
pub type StageId = u32;

/// A result column.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// Its DuckDB type, as text.
    pub type_text: String,
}

/// What becomes of the rows of a stage.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Output {
    /// They go to the coordinator. Of the last stage only.
    Gather,
    /// Each row goes to the worker of its bucket. The stage's SQL yields one column more than `columns`, the last: the
    /// bucket, a `UBIGINT` below `buckets.len()`.
    Hash {
        /// The worker of each bucket.
        buckets: Vec<WorkerId>,
    },
    /// Every row goes to each of these workers.
    Broadcast {
        /// Workers.
        to: Vec<WorkerId>,
    },
    /// Every row stays on the worker that made it.
    Forward,
}

/// About how many rows there are, and values in their columns.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Estimates {
    /// 0 if that is not known.
    pub rows: u64,
    /// Of each column; 0 if that is not known.
    pub distinct: Vec<u64>,
}

/// One statement that several workers run, each on its own rows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stage {
    /// Its number, which is its exchange's as well.
    pub id: StageId,
    /// What each worker runs. It reads the exchange of an earlier stage as `duckherder_exchange(<stage>)`.
    pub sql: String,
    /// Who runs it.
    pub workers: Vec<WorkerId>,
    /// The columns of its rows, without the bucket.
    pub columns: Vec<Column>,
    /// Where its rows go.
    pub output: Output,
    /// The exchanges that it reads; one that it reads twice is here twice.
    pub inputs: Vec<StageId>,
    /// Of the rows that all its workers make together.
    #[serde(default)]
    pub estimates: Estimates,
}

/// A query over a herd's tables: stages in an order in which each reads earlier ones only; the last one gathers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HerdQuery {
    /// The stages.
    pub stages: Vec<Stage>,
    /// What the planner says of it; of a scan that the planner has not seen, nothing.
    #[serde(default)]
    pub summary: Option<Summary>,
}

/// How a query is distributed, for EXPLAIN and statistics.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    /// How far: router, colocated …
    pub tier: String,
    /// What the coordinator does with the workers' rows.
    pub merge: String,
    /// Why less of it is distributed than might have been.
    #[serde(default)]
    pub fallback: Option<String>,
}
