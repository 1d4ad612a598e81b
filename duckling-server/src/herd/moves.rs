//! Rows whose keys have changed, on their way to the worker where they belong now.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use duckherder_catalog::herd::placement::{Placement, WorkerId};
use duckherder_client::QueryOptions;
use duckherder_proto::{ExceptionType, RemoteError};
use futures::TryStreamExt;
use futures::future::try_join_all;
use serde::Deserialize;

use super::exchange::split::Splitter;
use super::placements::partition_sql;
use super::session::{Access, HerdSession};
use super::write::{Progress, Write, WriteTarget};
use crate::catalog::identifier;
use crate::duckdb::interrupted;

/// How long a step waits before it looks whether the statement is cancelled.
const STEP: Duration = Duration::from_millis(20);

/// A column of a table whose rows move.
#[derive(Debug, Deserialize)]
pub struct MovedColumn {
    name: String,
    /// Whether an UPDATE of it leaves rows where they are on their worker. Of other columns DuckDB makes a DELETE and an
    /// INSERT.
    in_place: bool,
}

/// Takes all rows from where they do not belong, and puts them where they do, in the transaction that the session writes
/// in. `columns`: those of the table that hold values. Blocks: not for the runtime's threads.
///
/// In DuckDB transactions do not disturb each other if they change different columns of a row, or if one of them deletes it.
/// One that moves it takes all of it along as it has seen it, and what another has changed meanwhile would be lost. So it
/// changes all columns first, to what they are: whoever comes second is told of a conflict.
///
/// # Errors
/// A worker's, of conflicts for one; `Out of Memory` if more rows move than the coordinator may hold.
pub fn move_rows(
    session: &Arc<HerdSession>,
    schema: &str,
    table: &str,
    placement: &Placement,
    columns: &[MovedColumn],
) -> Result<(), RemoteError> {
    let Placement::Hash { keys, partitions, .. } = placement else {
        return Ok(());
    };
    let workers = placement.workers();
    let place = |worker: &WorkerId| workers.iter().position(|other| other == worker).unwrap_or_default();
    let buckets: Vec<usize> = partitions.iter().map(place).collect();
    let names = || columns.iter().map(|column| identifier(&column.name));
    let returned: Vec<_> = names().collect();
    let kept: Vec<_> = columns
        .iter()
        .zip(names())
        .filter(|(column, _)| column.in_place)
        .map(|(_, name)| format!("{name} = {name}"))
        .collect();
    let bucket = format!("{}::UBIGINT", partition_sql(keys, partitions.len()));
    let table_sql = format!("{}.{}", identifier(schema), identifier(table));
    let sql = |worker: usize| {
        let own = (0..buckets.len()).filter(|bucket| buckets[*bucket] == worker);
        let own: Vec<_> = own.map(|bucket| bucket.to_string()).collect();
        let misplaced = format!("{bucket} NOT IN ({})", own.join(", "));
        let keep = match kept.as_slice() {
            [] => String::new(),
            kept => format!("UPDATE {table_sql} SET {} WHERE {misplaced}; ", kept.join(", ")),
        };
        format!(
            "{keep}DELETE FROM {table_sql} WHERE {misplaced} RETURNING {}, ({bucket})::UBIGINT",
            returned.join(", ")
        )
    };
    let writing = session.writing();
    let bytes_max = writing.herd().limits().transaction_buffer_bytes / workers.len().max(1);
    let taken = workers
        .iter()
        .enumerate()
        .map(|(number, worker)| take(&writing, worker, sql(number), bytes_max));
    let taken = writing.wait(try_join_all(taken))?;
    let moving: Vec<_> = taken
        .into_iter()
        .flatten()
        .filter(|batch| batch.num_rows() > 0)
        .collect();
    let Some(first) = moving.first() else { return Ok(()) };
    let buckets = buckets.iter().filter_map(|place| u32::try_from(*place).ok()).collect();
    let splitter = Splitter::new(buckets, workers.len())?;
    let columns = Arc::new(splitter.schema(&first.schema())?);
    let target = WriteTarget {
        schema: schema.to_owned(),
        table: table.to_owned(),
        workers: workers.clone(),
        everywhere: false,
        temporary: false,
    };
    let write = Write::start(session, &target, SchemaRef::clone(&columns))?;
    for batch in &moving {
        splitter.split(batch, &columns, &mut |worker, rows| {
            until_done(session, || write.push(worker, rows.clone(), STEP))
        })?;
    }
    until_done(session, || write.finish(STEP)).map(|_| ())
}

/// Takes rows from one worker.
async fn take(
    session: &HerdSession,
    worker: &WorkerId,
    sql: String,
    bytes_max: usize,
) -> Result<Vec<RecordBatch>, RemoteError> {
    let sql = &sql;
    let mut rows = session
        .with_session(worker, Access::Write, |on_worker, begin_transaction| async move {
            let options = QueryOptions {
                begin_transaction,
                stored_types: true,
                ..QueryOptions::default()
            };
            on_worker.query_with(sql.clone(), options).await
        })
        .await?;
    let mut batches = Vec::new();
    let mut bytes = 0;
    while let Some(batch) = rows.try_next().await.map_err(|error| error.to_remote_error())? {
        bytes += batch.get_array_memory_size();
        if bytes > bytes_max {
            return Err(RemoteError::new(
                ExceptionType::OutOfMemory,
                "more rows change their partition than the coordinator may hold at a time; change them in several steps",
            ));
        }
        batches.push(batch);
    }
    Ok(batches)
}

fn until_done<T>(session: &HerdSession, step: impl Fn() -> Result<Progress<T>, RemoteError>) -> Result<T, RemoteError> {
    loop {
        if let Progress::Done(value) = step()? {
            return Ok(value);
        }
        if session.is_cancelled() {
            return Err(interrupted());
        }
    }
}
