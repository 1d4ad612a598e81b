//! Between DuckDB's planner on the coordinator, in C++, and the decisions in `duckherder_catalog::herd`.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use duckherder_catalog::herd::distribute::{Workers, distribute};
use duckherder_catalog::herd::placement::{Placement, WorkerId};
use duckherder_catalog::herd::plan::{Node, Step};
use duckherder_catalog::herd::query::{HerdQuery, Summary};
use duckherder_proto::{ExceptionType, RemoteError};
use serde::Serialize;

use super::session::HerdSession;
use super::source::BatchSource;
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

impl HerdHooks for Arc<HerdSession> {
    fn distribute(&self, plan: &str) -> Result<Option<String>, RemoteError> {
        let plan: Node = serde_json::from_str(plan).map_err(|error| unreadable("plan", &error))?;
        let herd = self.herd();
        let workers = Workers {
            live: herd.registry().live().into_iter().collect(),
            hash_version: herd.duckdb_version().to_owned(),
            spread: herd.next_spread(),
        };
        let Some(distributed) = distribute(&plan, &workers)
            .map_err(|error| RemoteError::new(ExceptionType::InvalidInput, error.to_string()))?
        else {
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
        serde_json::to_string(&answer).map(Some).map_err(|error| unreadable("distributed plan", &error))
    }

    fn table_rows(&self, schema: &str, table: &str, placement: &str) -> Result<u64, RemoteError> {
        let key = (schema.to_owned(), table.to_owned());
        let known = self.herd().table_rows();
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
        HerdSession::gather(self, query)
    }

    fn exchange_columns(&self, stage: u32) -> Result<String, RemoteError> {
        let columns = HerdSession::exchange_columns(self, stage)?;
        serde_json::to_string(&columns).map_err(|error| unreadable("columns", &error))
    }

    fn exchange(&self, stage: u32) -> Result<Arc<dyn BatchSource>, RemoteError> {
        self.open_exchange(stage)
    }
}

fn unreadable(what: &str, error: &serde_json::Error) -> RemoteError {
    RemoteError::new(
        ExceptionType::Serialization,
        format!("the {what} of a statement over the herd is not readable: {error}"),
    )
}
