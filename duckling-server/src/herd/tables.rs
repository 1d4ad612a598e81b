//! What SQL sees of a herd: `duckling_workers()` and `duckling_partitions(table)`.

use std::collections::BTreeMap;
use std::ffi::CStr;
use std::sync::{Arc, Weak, mpsc};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::Int64Type;
use duckherder_catalog::TableName;
use duckherder_catalog::herd::placement::WorkerId;
use duckherder_client::{Client, ClientError, ClientOptions};
use duckherder_proto::{ExceptionType, RemoteError};
use futures::TryStreamExt;
use futures::future::join_all;
use tracing::debug;

use super::membership::WorkerInfo;
use super::placements::{self, PlacedTable};
use super::registry::Registry;
use crate::duckdb::{Cell, ColumnType, TableSource};

/// The table functions.
pub const WORKERS: &CStr = c"duckling_workers";
pub const PARTITIONS: &CStr = c"duckling_partitions";

/// How long workers get to count. What is not there by then is NULL.
const COUNT_TIMEOUT: Duration = Duration::from_secs(5);

/// Bytes of the tables of a worker's database: blocks in use of a file, memory of tables without one.
const BYTES_SQL: &str = "SELECT (SELECT coalesce(sum(used_blocks * block_size), 0) FROM pragma_database_size() \
     WHERE database_name = current_database())::BIGINT + (SELECT coalesce(sum(memory_usage_bytes), 0) \
     FROM duckdb_memory() WHERE tag = 'IN_MEMORY_TABLE')::BIGINT";

pub fn text(text: &str) -> Cell {
    Cell::Text(text.into())
}

pub fn signed(number: u64) -> Cell {
    i64::try_from(number).map_or(Cell::Null, Cell::Signed)
}

pub fn timestamp(time: SystemTime) -> Cell {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).map_or(Cell::Null, Cell::Timestamp)
}

/// The registry, as long as there is one. The functions are in the database that the registry holds open: they must not
/// hold the registry.
pub(super) fn registry(registry: &Weak<Registry>) -> Result<Arc<Registry>, RemoteError> {
    let gone = || RemoteError::new(ExceptionType::InvalidInput, "the duckling has stopped");
    registry.upgrade().ok_or_else(gone)
}

/// The workers of a coordinator.
pub struct WorkersTable(pub Weak<Registry>);

impl TableSource for WorkersTable {
    fn columns(&self) -> &'static [(&'static CStr, ColumnType)] {
        &[
            (c"id", ColumnType::Text),
            (c"address", ColumnType::Text),
            (c"state", ColumnType::Text),
            (c"last_heartbeat", ColumnType::Timestamp),
            (c"partitions", ColumnType::Signed),
            (c"rows", ColumnType::Signed),
            (c"bytes", ColumnType::Signed),
            (c"state_since", ColumnType::Timestamp),
            (c"registered", ColumnType::Text),
        ]
    }

    fn rows(&self, _: &[String]) -> Result<Vec<Vec<Cell>>, RemoteError> {
        let registry = registry(&self.0)?;
        let workers = registry.workers();
        if workers.is_empty() {
            return Ok(Vec::new());
        }
        let tables = placements::read(&mut registry.connect()?)?;
        let ids: Vec<_> = workers.iter().map(|worker| worker.id.clone()).collect();
        let partitions = placements::count(&tables, &ids);
        let queries = ids.iter().map(|id| {
            let there = placements::on(&tables, id);
            let rows = if there.is_empty() {
                "0::BIGINT".to_owned()
            } else {
                format!("({})", placements::rows_sql(&there))
            };
            (id.clone(), format!("SELECT {rows}, ({BYTES_SQL})"))
        });
        let sizes = ask(&registry, &workers, queries.collect());
        let row = |worker: &WorkerInfo| {
            let size = sizes.get(&worker.id).and_then(|rows| rows.first());
            let number = |index: usize| {
                let number = size.and_then(|numbers| *numbers.get(index)?);
                number.map_or(Cell::Null, Cell::Signed)
            };
            vec![
                text(&worker.id.0),
                text(&worker.address),
                text(worker.state.name()),
                worker.last_heartbeat.map_or(Cell::Null, timestamp),
                signed(partitions.get(&worker.id).copied().unwrap_or(0)),
                number(0),
                number(1),
                timestamp(worker.since),
                text(worker.origin.name()),
            ]
        };
        Ok(workers.iter().map(row).collect())
    }
}

/// The partitions of a table of the herd.
pub struct PartitionsTable(pub Weak<Registry>);

impl TableSource for PartitionsTable {
    fn arguments(&self) -> usize {
        1
    }

    fn columns(&self) -> &'static [(&'static CStr, ColumnType)] {
        &[
            (c"schema", ColumnType::Text),
            (c"table", ColumnType::Text),
            (c"partition", ColumnType::Signed),
            (c"worker", ColumnType::Text),
            (c"address", ColumnType::Text),
            (c"state", ColumnType::Text),
            (c"rows", ColumnType::Signed),
        ]
    }

    fn rows(&self, arguments: &[String]) -> Result<Vec<Vec<Cell>>, RemoteError> {
        let registry = registry(&self.0)?;
        let name = arguments.first().map(String::as_str).unwrap_or_default();
        let table = find(&placements::read(&mut registry.connect()?)?, name)?;
        let workers = registry.workers();
        let sql = placements::partition_rows_sql(&table);
        let queries = table.placement.workers().into_iter().map(|id| (id, sql.clone()));
        let counts = ask(&registry, &workers, queries.collect());
        let counts: BTreeMap<_, _> = counts.iter().map(|(id, rows)| (id, pairs(rows))).collect();
        let row = |partition: &placements::Partition| {
            let worker = workers.iter().find(|worker| worker.id == partition.worker);
            let counted = counts.get(&partition.worker);
            let rows = counted.and_then(|counted| placements::rows_of(&table, partition, counted));
            vec![
                text(&table.schema),
                text(&table.table),
                partition.number.map_or(Cell::Null, signed),
                text(&partition.worker.0),
                worker.map_or(Cell::Null, |worker| text(&worker.address)),
                worker.map_or_else(|| text("unregistered"), |worker| text(worker.state.name())),
                rows.map_or(Cell::Null, signed),
            ]
        };
        Ok(placements::partitions(&table.placement).iter().map(row).collect())
    }
}

/// The table of that name, which may have a schema in front.
fn find(tables: &[PlacedTable], name: &str) -> Result<PlacedTable, RemoteError> {
    let wanted: TableName = name.parse().map_err(|error: duckherder_catalog::NameError| {
        RemoteError::new(ExceptionType::InvalidInput, error.to_string())
    })?;
    let schema = wanted.schema.as_deref().unwrap_or("main");
    let is_it = |table: &&PlacedTable| {
        table.schema.eq_ignore_ascii_case(schema) && table.table.eq_ignore_ascii_case(&wanted.table)
    };
    tables.iter().find(is_it).cloned().ok_or_else(|| {
        RemoteError::new(
            ExceptionType::Catalog,
            format!(
                "there is no partitioned or replicated table {schema}.{} here",
                wanted.table
            ),
        )
    })
}

/// Number of a partition, and of its rows.
fn pairs(rows: &[Vec<Option<i64>>]) -> Vec<(Option<u64>, u64)> {
    let unsigned = |number: i64| u64::try_from(number).unwrap_or(0);
    let pair = |row: &Vec<Option<i64>>| {
        let number = (*row.first()?).map(unsigned);
        let rows = unsigned((*row.get(1)?)?);
        Some((number, rows))
    };
    rows.iter().filter_map(pair).collect()
}

type Numbers = Vec<Vec<Option<i64>>>;

/// Runs a query of BIGINT columns on each of these workers, all at once. Who is not there, or not quick enough, is left
/// out. Waits: not for a thread of the network.
fn ask(registry: &Registry, workers: &[WorkerInfo], queries: Vec<(WorkerId, String)>) -> BTreeMap<WorkerId, Numbers> {
    let answers = ask_for_batches(registry, workers, queries);
    answers
        .iter()
        .map(|(id, batches)| (id.clone(), numbers(batches)))
        .collect()
}

/// The same for a query of any columns.
pub(super) fn ask_for_batches(
    registry: &Registry,
    workers: &[WorkerInfo],
    queries: Vec<(WorkerId, String)>,
) -> BTreeMap<WorkerId, Vec<RecordBatch>> {
    let Some(place) = registry.place() else {
        return BTreeMap::new();
    };
    let usable = |id: &WorkerId| {
        let worker = workers.iter().find(|worker| worker.id == *id);
        worker
            .filter(|worker| worker.state.is_usable())
            .map(|worker| worker.address.clone())
    };
    let queries: Vec<_> = queries
        .into_iter()
        .filter_map(|(id, sql)| Some((registry.peer(&usable(&id)?).ok()?, id, sql)))
        .collect();
    if queries.is_empty() {
        return BTreeMap::new();
    }
    let (sender, receiver) = mpsc::sync_channel(1);
    place.runtime.spawn(async move {
        let answers = queries.into_iter().map(|(worker, id, sql)| async move {
            match tokio::time::timeout(COUNT_TIMEOUT, batches(worker, &sql)).await {
                Ok(Ok(batches)) => return Some((id, batches)),
                Ok(Err(error)) => debug!(worker = id.0, %error, "a worker cannot be asked"),
                Err(_) => debug!(worker = id.0, "a worker takes too long to answer"),
            }
            None
        });
        let answers = join_all(answers).await;
        let _ = sender.send(answers.into_iter().flatten().collect());
    });
    // A runtime that shuts down drops the sender.
    receiver.recv_timeout(2 * COUNT_TIMEOUT).unwrap_or_default()
}

async fn batches(worker: ClientOptions, sql: &str) -> Result<Vec<RecordBatch>, ClientError> {
    let client = Client::connect(worker).await?;
    client.query(sql).await?.try_collect().await
}

fn numbers(batches: &[RecordBatch]) -> Numbers {
    let rows = batches.iter().flat_map(|batch| {
        (0..batch.num_rows()).map(|row| {
            let number = |column: &Arc<dyn Array>| {
                let column = column.as_primitive_opt::<Int64Type>()?;
                column.is_valid(row).then(|| column.value(row))
            };
            batch.columns().iter().map(number).collect()
        })
    });
    rows.collect()
}
