//! How the coordinator has executed its latest queries over herd tables: `FROM duckling_execution_stats()`.

use std::ffi::CStr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use duckherder_catalog::herd::query::StageId;
use duckherder_proto::RemoteError;
use duckherder_proto::history::{HistoryId, KeptText, Ring};
use serde::Serialize;

use super::tables::{signed, text, timestamp};
use crate::config::Limits;
use crate::duckdb::{Cell, ColumnType, TableSource};

/// The table function that reads them.
pub const FUNCTION: &CStr = c"duckling_execution_stats";

/// What one stage did.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct StageStatistics {
    /// Its number.
    pub stage: StageId,
    /// Workers that ran it.
    pub workers: usize,
    /// Rows that it sent to its exchange, from all workers.
    pub rows: u64,
    /// Arrow bytes of those.
    pub bytes: u64,
    /// How long the slowest worker took for it.
    pub duration_us: u64,
}

/// How one query was executed.
#[derive(Debug, Clone)]
pub struct QueryStatistics {
    /// Its id.
    pub id: HistoryId,
    /// Its text.
    pub sql: String,
    /// The tier: how it was distributed.
    pub execution_mode: String,
    /// How the workers' rows became the result.
    pub merge_strategy: String,
    /// When it started.
    pub started: SystemTime,
    /// How long it took.
    pub duration: Duration,
    /// Workers that took part.
    pub workers: usize,
    /// Fragments that workers ran, each stage on each of its workers.
    pub tasks: usize,
    /// Why less of it was distributed than might have been.
    pub fallback_reason: Option<String>,
    /// Rows that went between nodes.
    pub rows_moved: u64,
    /// Arrow bytes of those.
    pub bytes_moved: u64,
    /// Its stages.
    pub stages: Vec<StageStatistics>,
}

/// The latest queries; bounded as the history of statements is.
pub struct Statistics {
    ring: Mutex<Ring<QueryStatistics>>,
}

impl Statistics {
    /// Of no query.
    #[must_use]
    pub fn new(limits: &Limits) -> Self {
        Self {
            ring: Mutex::new(Ring::new(limits.history_statements_max, limits.history_bytes_max)),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Ring<QueryStatistics>> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A query has ended.
    pub fn record(&self, mut query: QueryStatistics) {
        query.sql = KeptText::of(&query.sql).sql().to_owned();
        let reason = query.fallback_reason.as_ref().map_or(0, String::len);
        let texts = query.sql.len() + query.execution_mode.len() + query.merge_strategy.len() + reason;
        let stages = size_of_val(query.stages.as_slice());
        self.lock().push(query, texts + stages);
    }
}

/// Reads the statistics.
pub struct StatisticsTable(pub Arc<Statistics>);

impl TableSource for StatisticsTable {
    fn columns(&self) -> &'static [(&'static CStr, ColumnType)] {
        &[
            (c"id", ColumnType::Uuid),
            (c"sql", ColumnType::Text),
            (c"execution_mode", ColumnType::Text),
            (c"merge_strategy", ColumnType::Text),
            (c"query_duration_ms", ColumnType::Double),
            (c"num_workers_used", ColumnType::Signed),
            (c"num_tasks_generated", ColumnType::Signed),
            (c"execution_start_time", ColumnType::Timestamp),
            (c"fallback_reason", ColumnType::Text),
            (c"rows_moved", ColumnType::Unsigned),
            (c"bytes_moved", ColumnType::Unsigned),
            (c"stages", ColumnType::Text),
        ]
    }

    fn rows(&self, _: &[String]) -> Result<Vec<Vec<Cell>>, RemoteError> {
        Ok(self.0.lock().iter().map(row).collect())
    }
}

fn row(query: &QueryStatistics) -> Vec<Cell> {
    vec![
        Cell::Uuid(query.id),
        text(&query.sql),
        text(&query.execution_mode),
        text(&query.merge_strategy),
        Cell::Double(query.duration.as_secs_f64() * 1e3),
        signed(query.workers as u64),
        signed(query.tasks as u64),
        timestamp(query.started),
        query.fallback_reason.as_deref().map_or(Cell::Null, text),
        Cell::Unsigned(query.rows_moved),
        Cell::Unsigned(query.bytes_moved),
        // Numbers only: it cannot fail.
        serde_json::to_string(&query.stages).map_or(Cell::Null, |json| text(&json)),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::IN_MEMORY;
    use crate::duckdb::{Database, DatabaseOptions};

    fn query(sql: &str) -> QueryStatistics {
        QueryStatistics {
            id: [7; 16],
            sql: sql.to_owned(),
            execution_mode: "two_phase".to_owned(),
            merge_strategy: "aggregate".to_owned(),
            started: SystemTime::UNIX_EPOCH,
            duration: Duration::from_micros(1_500),
            workers: 3,
            tasks: 6,
            fallback_reason: None,
            rows_moved: 12,
            bytes_moved: 96,
            stages: vec![StageStatistics {
                stage: 1,
                workers: 3,
                rows: 12,
                bytes: 96,
                duration_us: 900,
            }],
        }
    }

    #[test]
    fn queries_are_read_with_sql() {
        let statistics = Arc::new(Statistics::new(&Limits::default()));
        let database = Database::open(IN_MEMORY, &DatabaseOptions::default()).unwrap();
        let mut connection = database.connect().unwrap();
        let table = Arc::new(StatisticsTable(Arc::clone(&statistics)));
        connection.register_table_function(FUNCTION, table).unwrap();
        statistics.record(query("SELECT 1"));
        let check = "SELECT CASE WHEN sql = 'SELECT 1' AND query_duration_ms = 1.5 AND num_workers_used = 3 \
                     AND num_tasks_generated = 6 AND execution_start_time = TIMESTAMP '1970-01-01' \
                     AND fallback_reason IS NULL AND bytes_moved = 96 AND (stages::JSON)->0->>'duration_us' = '900' \
                     THEN 1 ELSE error('they are not') END FROM duckling_execution_stats()";
        connection.execute(check).unwrap();
    }

    #[test]
    fn they_are_bounded_and_keep_no_secrets() {
        let limits = Limits {
            history_statements_max: 2,
            ..Limits::default()
        };
        let statistics = Statistics::new(&limits);
        statistics.record(query("first"));
        statistics.record(query("CREATE SECRET s (TYPE s3, SECRET 'hunter2')"));
        statistics.record(query("last"));
        let texts: Vec<_> = statistics.lock().iter().map(|query| query.sql.clone()).collect();
        assert_eq!(texts, ["CREATE SECRET (text withheld)", "last"]);
    }
}
