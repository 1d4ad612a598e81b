//! How the coordinator has executed its latest queries over herd tables: `FROM duckling_execution_stats()`.

use std::collections::BTreeSet;
use std::ffi::CStr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, SystemTime};

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use duckherder_catalog::herd::placement::WorkerId;
use duckherder_catalog::herd::query::{StageId, Summary};
use duckherder_proto::RemoteError;
use duckherder_proto::history::{HistoryId, KeptText, Ring};
use serde::Serialize;

use super::gather::{EdgeStatistics, GatherStatistics, TaskStatistics};
use super::registry::Registry;
use super::routes::ROUTER;
use super::tables::{self, signed, text, timestamp};
use crate::config::Limits;
use crate::duckdb::{Cell, ColumnType, TableSource};

/// The table function that reads them.
pub const FUNCTION: &CStr = c"duckling_execution_stats";

/// The one that reads those of this duckling only.
pub const OWN_FUNCTION: &CStr = c"duckling_own_execution_stats";

/// The merge strategy of look-ups that a client has sent to the worker itself.
const DIRECT: &str = "direct";

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
    /// CPU time that it took the worker that it took the most; `None` where it is not known.
    pub cpu_us: Option<u64>,
    /// Bytes that did not fit into the workers' memory.
    pub spilled_bytes: u64,
    /// Each worker's part.
    pub tasks: Vec<TaskStatistics>,
}

impl StageStatistics {
    /// The stages of a query, in the order in which their first task ended.
    #[must_use]
    pub fn of(tasks: &[TaskStatistics]) -> Vec<Self> {
        let mut stages: Vec<Self> = Vec::new();
        for task in tasks {
            let index = stages
                .iter()
                .position(|stage| stage.stage == task.stage)
                .unwrap_or_else(|| {
                    stages.push(Self {
                        stage: task.stage,
                        ..Self::default()
                    });
                    stages.len() - 1
                });
            let stage = &mut stages[index];
            stage.workers += 1;
            stage.rows += task.rows;
            stage.bytes += task.bytes;
            stage.duration_us = stage.duration_us.max(task.elapsed_us);
            stage.cpu_us = stage.cpu_us.max(task.cpu_us);
            stage.spilled_bytes += task.spilled_bytes;
            stage.tasks.push(task.clone());
        }
        stages.sort_by_key(|stage| stage.stage);
        stages
    }

    /// How many times its share the worker has made that has made the most rows.
    #[must_use]
    pub fn skew(&self) -> f64 {
        let most = self.tasks.iter().map(|task| task.rows).max().unwrap_or(0);
        if self.rows == 0 {
            return 1.0;
        }
        most as f64 * self.tasks.len() as f64 / self.rows as f64
    }
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
    /// Why it failed, if it did.
    pub error: Option<String>,
}

impl QueryStatistics {
    /// Of a look-up that this worker was asked for by a client itself, which has taken `duration` until now.
    #[must_use]
    pub fn of_direct(id: HistoryId, sql: &str, worker: WorkerId, duration: Duration, rows: u64, bytes: u64) -> Self {
        let task = TaskStatistics {
            stage: 1,
            worker,
            rows,
            bytes,
            elapsed_us: u64::try_from(duration.as_micros()).unwrap_or(u64::MAX),
            cpu_us: None,
            spilled_bytes: 0,
            edges: vec![EdgeStatistics { to: None, rows, bytes }],
        };
        let now = SystemTime::now();
        Self {
            id,
            sql: sql.to_owned(),
            execution_mode: ROUTER.to_owned(),
            merge_strategy: DIRECT.to_owned(),
            started: now.checked_sub(duration).unwrap_or(now),
            duration,
            workers: 1,
            tasks: 1,
            fallback_reason: None,
            rows_moved: rows,
            bytes_moved: bytes,
            stages: StageStatistics::of(&[task]),
            error: None,
        }
    }

    /// CPU time of all workers, in microseconds; `None` where it is not known.
    fn cpu_us(&self) -> Option<u64> {
        let tasks = self.stages.iter().flat_map(|stage| &stage.tasks);
        tasks.map(|task| task.cpu_us).sum()
    }

    /// CPU time if each stage waited for the worker that it took the most, in microseconds.
    fn critical_path_cpu_us(&self) -> Option<u64> {
        self.stages.iter().map(|stage| stage.cpu_us).sum()
    }

    /// Of a statement that has run these distributed queries; `None` if it has run none.
    #[must_use]
    pub fn of(id: HistoryId, sql: &str, gathers: &[GatherStatistics], error: Option<&RemoteError>) -> Option<Self> {
        let started = gathers.iter().map(|gather| gather.started).min()?;
        let ended = gathers
            .iter()
            .filter_map(|gather| gather.started.checked_add(gather.duration?))
            .max();
        let workers: BTreeSet<_> = gathers.iter().flat_map(|gather| &gather.workers).collect();
        let edges = || {
            gathers
                .iter()
                .flat_map(|gather| &gather.done)
                .flat_map(TaskStatistics::moved)
        };
        let said = |what: fn(&Summary) -> &str| {
            let mut texts: Vec<_> = gathers
                .iter()
                .filter_map(|gather| gather.summary.as_ref())
                .map(what)
                .collect();
            texts.dedup();
            texts.join(", ")
        };
        let fallback = gathers
            .iter()
            .filter_map(|gather| gather.summary.as_ref()?.fallback.clone());
        Some(Self {
            id,
            sql: sql.to_owned(),
            execution_mode: said(|summary| &summary.tier),
            merge_strategy: said(|summary| &summary.merge),
            started,
            duration: ended
                .and_then(|ended| ended.duration_since(started).ok())
                .unwrap_or_default(),
            workers: workers.len(),
            tasks: gathers.iter().map(|gather| gather.tasks).sum(),
            fallback_reason: fallback.reduce(|all, one| if all == one { all } else { format!("{all}; {one}") }),
            rows_moved: edges().map(|edge| edge.rows).sum(),
            bytes_moved: edges().map(|edge| edge.bytes).sum(),
            stages: gathers
                .iter()
                .flat_map(|gather| StageStatistics::of(&gather.done))
                .collect(),
            error: error.map(ToString::to_string),
        })
    }
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
        let text = KeptText::of(&query.sql);
        query.sql = text.sql().to_owned();
        let reason = query.fallback_reason.as_ref().map_or(0, String::len);
        let error = query.error.as_ref().map_or(0, String::len);
        let texts = query.sql.len() + query.execution_mode.len() + query.merge_strategy.len() + reason + error;
        let tasks = query.stages.iter().flat_map(|stage| &stage.tasks);
        let tasks: usize = tasks
            .map(|task| size_of_val(task) + size_of_val(task.edges.as_slice()))
            .sum();
        let stages = size_of_val(query.stages.as_slice());
        self.lock().push(query, texts + stages + tasks);
    }
}

/// Reads the statistics, those of workers too which clients have asked themselves.
pub struct StatisticsTable {
    /// This duckling's.
    pub own: Arc<Statistics>,
    /// Where its workers are, if they are to be asked.
    pub registry: Option<Weak<Registry>>,
}

const COLUMNS: &[(&CStr, ColumnType)] = &[
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
    (c"cpu_time_ms", ColumnType::Double),
    (c"critical_path_cpu_time_ms", ColumnType::Double),
    (c"stages", ColumnType::Text),
    (c"error", ColumnType::Text),
];

impl TableSource for StatisticsTable {
    fn columns(&self) -> &'static [(&'static CStr, ColumnType)] {
        COLUMNS
    }

    fn rows(&self, _: &[String]) -> Result<Vec<Vec<Cell>>, RemoteError> {
        let mut rows: Vec<_> = self.own.lock().iter().map(row).collect();
        if let Some(registry) = &self.registry {
            let registry = tables::registry(registry)?;
            let workers = registry.workers();
            let queries = workers.iter().map(|worker| (worker.id.clone(), direct_sql()));
            let answers = tables::ask_for_batches(&registry, &workers, queries.collect());
            rows.extend(answers.values().flatten().flat_map(cells));
            rows.sort_by_key(|row| started(row));
        }
        Ok(rows)
    }
}

/// When a row's query started, in microseconds.
fn started(row: &[Cell]) -> Option<i64> {
    row.iter().find_map(|cell| match cell {
        Cell::Timestamp(time) => Some(*time),
        _ => None,
    })
}

/// What a worker is asked for: the look-ups that clients have asked it for themselves, all columns as text.
fn direct_sql() -> String {
    let columns = COLUMNS.iter().map(|(name, kind)| {
        let name = name.to_string_lossy();
        match kind {
            ColumnType::Timestamp => format!("epoch_us({name})::VARCHAR"),
            _ => format!("{name}::VARCHAR"),
        }
    });
    let columns: Vec<_> = columns.collect();
    let columns = columns.join(", ");
    format!("SELECT {columns} FROM duckling_own_execution_stats() WHERE merge_strategy = '{DIRECT}'")
}

/// The rows of such an answer. What cannot be read is NULL.
fn cells(batch: &RecordBatch) -> Vec<Vec<Cell>> {
    let texts: Vec<_> = batch
        .columns()
        .iter()
        .map(|column| cast(column, &DataType::Utf8).ok())
        .collect();
    let cell = |row: usize, place: usize| {
        let column = texts.get(place)?.as_ref()?.as_string_opt::<i32>()?;
        let value = column.is_valid(row).then(|| column.value(row))?;
        Some(match COLUMNS.get(place)?.1 {
            ColumnType::Uuid => Cell::Uuid(*uuid::Uuid::try_parse(value).ok()?.as_bytes()),
            ColumnType::Double => Cell::Double(value.parse().ok()?),
            ColumnType::Signed => Cell::Signed(value.parse().ok()?),
            ColumnType::Unsigned => Cell::Unsigned(value.parse().ok()?),
            ColumnType::Timestamp => Cell::Timestamp(value.parse().ok()?),
            _ => text(value),
        })
    };
    let row = |row| {
        (0..COLUMNS.len())
            .map(|place| cell(row, place).unwrap_or(Cell::Null))
            .collect()
    };
    (0..batch.num_rows()).map(row).collect()
}

fn milliseconds(microseconds: Option<u64>) -> Cell {
    microseconds.map_or(Cell::Null, |time| Cell::Double(time as f64 / 1e3))
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
        milliseconds(query.cpu_us()),
        milliseconds(query.critical_path_cpu_us()),
        // Numbers only: it cannot fail.
        serde_json::to_string(&query.stages).map_or(Cell::Null, |json| text(&json)),
        query.error.as_deref().map_or(Cell::Null, text),
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
                ..StageStatistics::default()
            }],
            error: None,
        }
    }

    #[test]
    fn queries_are_read_with_sql() {
        let statistics = Arc::new(Statistics::new(&Limits::default()));
        let database = Database::open(IN_MEMORY, &DatabaseOptions::default()).unwrap();
        let mut connection = database.connect().unwrap();
        let table = Arc::new(StatisticsTable {
            own: Arc::clone(&statistics),
            registry: None,
        });
        connection.register_table_function(FUNCTION, table).unwrap();
        statistics.record(query("SELECT 1"));
        let check = "SELECT CASE WHEN sql = 'SELECT 1' AND query_duration_ms = 1.5 AND num_workers_used = 3 \
                     AND num_tasks_generated = 6 AND execution_start_time = TIMESTAMP '1970-01-01' \
                     AND fallback_reason IS NULL AND bytes_moved = 96 AND json_extract_string(stages, '$[0].duration_us') = '900' \
                     THEN 1 ELSE error('they are not') END FROM duckling_execution_stats()";
        connection.execute(check).unwrap();
    }

    #[test]
    fn the_critical_path_is_of_the_slowest_workers() {
        let task = |stage, worker: &str, cpu_us| TaskStatistics {
            stage,
            worker: WorkerId(worker.to_owned()),
            rows: 1,
            bytes: 8,
            elapsed_us: 10,
            cpu_us,
            spilled_bytes: 0,
            edges: Vec::new(),
        };
        let of = |tasks: &[TaskStatistics]| {
            let mut query = query("SELECT 1");
            query.stages = StageStatistics::of(tasks);
            (query.cpu_us(), query.critical_path_cpu_us())
        };
        let mut tasks = vec![
            task(1, "a", Some(5)),
            task(1, "b", Some(7)),
            task(2, "a", Some(30)),
            task(2, "b", Some(20)),
        ];
        assert_eq!(of(&tasks), (Some(62), Some(37)));
        tasks.push(task(3, "a", None));
        assert_eq!(of(&tasks), (None, None));
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
