//! Between DuckDB's planner on the coordinator, in C++, and the decisions in `duckherder_catalog::herd`.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use arrow::array::{Array, AsArray};
use arrow::datatypes::{SchemaRef, UInt64Type};
use duckherder_catalog::herd::distribute::{DistributeError, Workers, distribute};
use duckherder_catalog::herd::placement::{Placement, WorkerId};
use duckherder_catalog::herd::plan::{Node, PlanError, Step};
use duckherder_catalog::herd::query::{Estimates, HerdQuery, Summary};
use duckherder_client::ClientError;
use duckherder_proto::{ExceptionType, RemoteError};
use futures::TryStreamExt;
use futures::future::try_join_all;
use serde::Serialize;
use tokio::time::timeout;

use super::moves::{MovedColumn, move_rows};
use super::session::HerdSession;
use super::write::{Execution, Write, WriteTarget};
use super::{BatchSource, Herd};
use crate::catalog::{identifier, literal};
use crate::duckdb::HerdHooks;

/// How long what is known of a table's rows, which the planner only estimates with, is taken for true.
const ESTIMATES_VALID: Duration = Duration::from_secs(5);

/// How long workers may take to tell it.
const ESTIMATES_TIMEOUT: Duration = Duration::from_secs(3);

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

/// What is known of the rows of herd tables, each by its schema and name, and since when.
#[derive(Default)]
pub struct TableEstimates(Mutex<HashMap<(String, String), Known>>);

type Known = (Instant, Arc<Estimates>);

impl TableEstimates {
    fn get(&self, table: &(String, String)) -> Option<Arc<Estimates>> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (when, estimates) = known.get(table)?;
        (when.elapsed() < ESTIMATES_VALID).then(|| Arc::clone(estimates))
    }

    fn set(&self, table: (String, String), estimates: Arc<Estimates>) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= TABLES_MAX {
            known.clear();
        }
        known.insert(table, (Instant::now(), estimates));
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

    /// Asks the workers what they know of their rows of a table.
    fn ask_workers(
        &self,
        table: &(String, String),
        columns: &[String],
        placement: &Placement,
    ) -> Result<Estimates, RemoteError> {
        let herd = self.0.herd();
        let mut workers = placement.workers();
        if matches!(placement, Placement::Replicated { .. }) {
            workers.retain(|worker| herd.registry().address(worker).is_ok());
            workers.truncate(1);
        }
        let sql = estimates_sql(table, columns);
        let answers = try_join_all(workers.iter().map(|worker| ask(herd, worker, &sql)));
        let answers = herd.runtime()?.block_on(timeout(ESTIMATES_TIMEOUT, answers));
        let answers = answers.map_err(|_| RemoteError::new(ExceptionType::Connection, "no answer in time"))?;
        Ok(together(&answers?, columns, placement))
    }
}

/// The query for a worker's rows of a table, about, and the values of each column that is asked about: those that DuckDB
/// counts with a HyperLogLog as rows come.
fn estimates_sql(table: &(String, String), columns: &[String]) -> String {
    let counts = columns.iter().map(|column| {
        if column.is_empty() {
            return "NULL::UBIGINT".to_owned();
        }
        format!("TRY_CAST(stats({}).approx_unique AS UBIGINT)", identifier(column))
    });
    let counts = counts.collect::<Vec<_>>().join(", ");
    format!(
        "SELECT estimated_size::UBIGINT AS rows, (SELECT [{counts}]::UBIGINT[] FROM {}.{} LIMIT 1) AS counts \
         FROM duckdb_tables() WHERE database_name = current_database() AND schema_name = {} AND table_name = {}",
        identifier(&table.0),
        identifier(&table.1),
        literal(&table.0),
        literal(&table.1)
    )
}

/// What is known of all rows, of what workers know of theirs. Values that are in a partition's key are on one worker only;
/// others may be on several: on all, where each value is in many rows.
fn together(answers: &[Estimates], columns: &[String], placement: &Placement) -> Estimates {
    let keys: &[String] = match placement {
        Placement::Hash { keys, .. } => keys,
        _ => &[],
    };
    let rows = answers.iter().map(|answer| answer.rows).sum();
    let distinct = columns.iter().enumerate().map(|(index, column)| {
        let counts = || {
            answers
                .iter()
                .map(|answer| answer.distinct.get(index).copied().unwrap_or(0))
        };
        let adds_up = keys.iter().any(|key| key.eq_ignore_ascii_case(column))
            || answers
                .iter()
                .zip(counts())
                .all(|(answer, count)| count > answer.rows / 2);
        if adds_up {
            counts().sum()
        } else {
            counts().max().unwrap_or(0)
        }
    });
    Estimates {
        rows,
        distinct: distinct.collect(),
    }
}

async fn ask(herd: &Herd, worker: &WorkerId, sql: &str) -> Result<Estimates, RemoteError> {
    let address = herd.registry().address(worker)?;
    let client = herd.peers().client(herd.registry(), &address).await?;
    let failed = |error: ClientError| {
        herd.peers().failed(&address, &error);
        error.to_remote_error()
    };
    let mut rows = client.query(sql).await.map_err(failed)?;
    let mut estimates = Estimates::default();
    while let Some(batch) = rows.try_next().await.map_err(failed)? {
        let [rows, counts] = batch.columns() else { continue };
        let rows = rows.as_primitive_opt::<UInt64Type>();
        estimates.rows += rows.map_or(0, |rows| rows.iter().flatten().sum());
        let counts = counts.as_list_opt::<i32>().filter(|counts| counts.is_valid(0));
        let counts = counts.map(|counts| counts.value(0));
        if let Some(counts) = counts
            .as_ref()
            .and_then(|counts| counts.as_primitive_opt::<UInt64Type>())
        {
            estimates.distinct = counts.iter().map(Option::unwrap_or_default).collect();
        }
    }
    Ok(estimates)
}

impl HerdHooks for Planning {
    fn distribute(&self, plan: &str) -> Result<Option<String>, RemoteError> {
        let plan = match Node::from_json(plan) {
            Ok(plan) => plan,
            // Each scan then gathers by itself.
            Err(PlanError::TooDeep) => return Ok(None),
            Err(PlanError::Json(error)) => return Err(unreadable("plan", &error)),
        };
        let herd = self.0.herd();
        let workers = Workers {
            live: herd.registry().live().into_iter().collect(),
            hash_version: herd.registry().hash_version(),
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

    fn table_estimates(
        &self,
        schema: &str,
        table: &str,
        columns: &str,
        placement: &str,
    ) -> Result<String, RemoteError> {
        let key = (schema.to_owned(), table.to_owned());
        let known = &self.0.herd().table_estimates;
        let estimates = match known.get(&key) {
            Some(estimates) => estimates,
            None => {
                let placement: Placement =
                    serde_json::from_str(placement).map_err(|error| unreadable("placement", &error))?;
                let columns: Vec<String> =
                    serde_json::from_str(columns).map_err(|error| unreadable("table", &error))?;
                let estimates = Arc::new(self.ask_workers(&key, &columns, &placement).unwrap_or(Estimates {
                    rows: ROWS_UNKNOWN,
                    distinct: Vec::new(),
                }));
                known.set(key, Arc::clone(&estimates));
                estimates
            }
        };
        serde_json::to_string(&*estimates).map_err(|error| unreadable("estimates", &error))
    }

    fn is_given_up(&self) -> bool {
        self.0.is_given_up()
    }

    fn is_cancelled(&self) -> bool {
        self.0.is_cancelled()
    }

    fn gather(&self, query: &str) -> Result<Arc<dyn BatchSource>, RemoteError> {
        let query: HerdQuery = serde_json::from_str(query).map_err(|error| unreadable("query", &error))?;
        self.0.gather(&query)
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

    fn change(&self, query: &str) -> Result<Arc<dyn BatchSource>, RemoteError> {
        let query: HerdQuery = serde_json::from_str(query).map_err(|error| unreadable("query", &error))?;
        self.0.change(&query)
    }

    fn move_rows(&self, schema: &str, table: &str, placement: &str, columns: &str) -> Result<(), RemoteError> {
        let placement: Placement = serde_json::from_str(placement).map_err(|error| unreadable("placement", &error))?;
        let columns: Vec<MovedColumn> = serde_json::from_str(columns).map_err(|error| unreadable("table", &error))?;
        move_rows(&self.0, schema, table, &placement, &columns)
    }
}

fn unreadable(what: &str, error: &serde_json::Error) -> RemoteError {
    RemoteError::new(
        ExceptionType::Serialization,
        format!("the {what} of a statement over the herd is not readable: {error}"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_keys_and_of_unique_columns_add_up() {
        let columns = ["k", "colour", "text"].map(str::to_owned);
        let of_worker = |rows, distinct: &[u64]| Estimates {
            rows,
            distinct: distinct.to_vec(),
        };
        let answers = [of_worker(1000, &[10, 7, 990]), of_worker(2000, &[20, 6, 1500])];
        let worker = |name: &str| WorkerId(name.to_owned());
        let placement = Placement::Hash {
            keys: vec!["K".to_owned()],
            partitions: vec![worker("a"), worker("b")],
            hash_version: String::new(),
        };
        let all = together(&answers, &columns, &placement);
        assert_eq!(all, of_worker(3000, &[30, 7, 2490]));
        let even = Placement::Even {
            partitions: vec![worker("a"), worker("b")],
        };
        assert_eq!(together(&answers, &columns, &even).distinct, [20, 7, 2490]);
        assert_eq!(together(&[], &columns, &even).distinct, [0, 0, 0]);
    }
}
