//! Between DuckDB's planner on the coordinator, in C++, and the decisions in `duckherder_catalog::herd`.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use arrow::array::AsArray;
use arrow::datatypes::{SchemaRef, UInt64Type};
use duckherder_catalog::herd::distribute::{DistributeError, Workers, distribute};
use duckherder_catalog::herd::placement::{Placement, WorkerId};
use duckherder_catalog::herd::plan::{Node, Step};
use duckherder_catalog::herd::query::{HerdQuery, Summary};
use duckherder_client::ClientError;
use duckherder_proto::{ExceptionType, RemoteError};
use futures::TryStreamExt;
use futures::future::try_join_all;
use serde::Serialize;
use tokio::time::timeout;

use super::session::HerdSession;
use super::write::{Execution, Write, WriteTarget};
use super::{BatchSource, Herd};
use crate::catalog::literal;
use crate::duckdb::HerdHooks;

/// How long the number of a table's rows, which the planner only estimates with, is taken for true.
const ROWS_VALID: Duration = Duration::from_secs(5);

/// How long workers may take to tell it.
const ROWS_TIMEOUT: Duration = Duration::from_secs(3);

/// What a table is taken to have if nobody tells.
const ROWS_UNKNOWN: u64 = 100_000;

/// Tables that are remembered.
const TABLES_MAX: usize = 10_000;

/// What C++ is answered.
#[derive(Serialize)]
struct Answer {
    plan: Step,
    summary: Summary,
}

/// How many rows herd tables have, about.
#[derive(Default)]
pub struct TableRows {
    known: Mutex<HashMap<(String, String), (Instant, u64)>>,
}

impl TableRows {
    fn get(&self, table: &(String, String)) -> Option<u64> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let (when, rows) = known.get(table)?;
        (when.elapsed() < ROWS_VALID).then_some(*rows)
    }

    fn set(&self, table: (String, String), rows: u64) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= TABLES_MAX {
            known.clear();
        }
        known.insert(table, (Instant::now(), rows));
    }
}

/// What DuckDB's planner and scans on one connection ask of its session.
pub struct Planning(Arc<HerdSession>);

impl Planning {
    /// For the connection of `session`.
    #[must_use]
    pub fn new(session: Arc<HerdSession>) -> Self {
        Self(session)
    }

    /// Asks the workers how many rows of a table they have.
    fn count_rows(&self, table: &(String, String), placement: &Placement) -> Result<u64, RemoteError> {
        let herd = self.0.herd();
        let mut workers = placement.workers();
        if matches!(placement, Placement::Replicated { .. }) {
            workers.retain(|worker| herd.registry().address(worker).is_ok());
            workers.truncate(1);
        }
        let sql = format!(
            "SELECT estimated_size::UBIGINT AS rows FROM duckdb_tables() WHERE database_name = current_database() \
             AND schema_name = {} AND table_name = {}",
            literal(&table.0),
            literal(&table.1)
        );
        let counts = try_join_all(workers.iter().map(|worker| count_on(herd, worker, &sql)));
        let counts = herd.runtime()?.block_on(timeout(ROWS_TIMEOUT, counts));
        let counts = counts.map_err(|_| RemoteError::new(ExceptionType::Connection, "no answer in time"))?;
        Ok(counts?.into_iter().sum())
    }
}

async fn count_on(herd: &Herd, worker: &WorkerId, sql: &str) -> Result<u64, RemoteError> {
    let address = herd.registry().address(worker)?;
    let client = herd.peers().client(herd.registry(), &address).await?;
    let failed = |error: ClientError| {
        herd.peers().failed(&address, &error);
        error.to_remote_error()
    };
    let mut rows = client.query(sql).await.map_err(failed)?;
    let mut sum = 0;
    while let Some(batch) = rows.try_next().await.map_err(failed)? {
        let counts = batch
            .columns()
            .first()
            .and_then(|column| column.as_primitive_opt::<UInt64Type>());
        sum += counts.map_or(0, |counts| counts.iter().flatten().sum());
    }
    Ok(sum)
}

impl HerdHooks for Planning {
    fn distribute(&self, plan: &str) -> Result<Option<String>, RemoteError> {
        let plan: Node = serde_json::from_str(plan).map_err(|error| unreadable("plan", &error))?;
        let herd = self.0.herd();
        let workers = Workers {
            live: herd.registry().live().into_iter().collect(),
            hash_version: herd.registry().duckdb_version().to_owned(),
            spread: herd.planned.fetch_add(1, Ordering::Relaxed),
        };
        let distributed = distribute(&plan, &workers).map_err(|error| {
            let kind = match error {
                DistributeError::WorkerDown { .. } | DistributeError::NoWorkers => ExceptionType::Connection,
                DistributeError::Target { .. } | DistributeError::TooDeep => ExceptionType::NotImplemented,
                DistributeError::Plan { .. } => ExceptionType::Planner,
            };
            RemoteError::new(kind, error.to_string())
        })?;
        let Some(distributed) = distributed else {
            return Ok(None);
        };
        let summary = Summary {
            tier: distributed.tier.as_str().to_owned(),
            merge: distributed.merge.as_str().to_owned(),
            fallback: distributed.fallback_reason(),
        };
        let answer = Answer {
            plan: distributed.step,
            summary,
        };
        let answer = serde_json::to_string(&answer).map_err(|error| unreadable("distributed plan", &error))?;
        Ok(Some(answer))
    }

    fn table_rows(&self, schema: &str, table: &str, placement: &str) -> Result<u64, RemoteError> {
        let key = (schema.to_owned(), table.to_owned());
        let known = &self.0.herd().table_rows;
        if let Some(rows) = known.get(&key) {
            return Ok(rows);
        }
        let placement: Placement = serde_json::from_str(placement).map_err(|error| unreadable("placement", &error))?;
        let rows = self.count_rows(&key, &placement).unwrap_or(ROWS_UNKNOWN);
        known.set(key, rows);
        Ok(rows)
    }

    fn gather(&self, query: &str) -> Result<Arc<dyn BatchSource>, RemoteError> {
        let query: HerdQuery = serde_json::from_str(query).map_err(|error| unreadable("query", &error))?;
        self.0.gather(query)
    }

    fn exchange_columns(&self, stage: u32) -> Result<String, RemoteError> {
        let columns = self.0.exchange_columns(stage)?;
        serde_json::to_string(&columns).map_err(|error| unreadable("columns", &error))
    }

    fn exchange(&self, stage: u32) -> Result<Arc<dyn BatchSource>, RemoteError> {
        self.0.open_exchange(stage)
    }

    fn write(&self, target: &WriteTarget, schema: SchemaRef) -> Result<Write, RemoteError> {
        Write::start(&self.0, target, schema)
    }

    fn execute(&self, workers: Vec<WorkerId>, sql: &str) -> Result<Execution, RemoteError> {
        Execution::start(&self.0, workers, sql.to_owned())
    }
}

fn unreadable(what: &str, error: &serde_json::Error) -> RemoteError {
    RemoteError::new(
        ExceptionType::Serialization,
        format!("the {what} of a statement over the herd is not readable: {error}"),
    )
}
