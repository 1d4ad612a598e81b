//! A stage's batches on their way into logs: each row to the destination of its bucket, small batches made larger.

use std::sync::Arc;

use arrow::array::{Array, AsArray, RecordBatch, RecordBatchOptions, UInt32Array, UInt64Array};
use arrow::compute::{concat_batches, take_arrays};
use arrow::datatypes::{DataType, Schema, SchemaRef, UInt64Type};
use arrow::error::ArrowError;
use duckherder_proto::{ExceptionType, RemoteError};

/// Rows that are enough for one batch.
const BATCH_ROWS: usize = 64 * 1024;

/// Bytes that are enough for one batch.
const BATCH_BYTES: usize = 1024 * 1024;

/// Bytes that wait to become batches, for all destinations together.
const WAITING_BYTES: usize = 32 * 1024 * 1024;

/// The fewest bytes that are waited for.
const BATCH_BYTES_MIN: usize = 64 * 1024;

/// Puts small batches together.
pub struct Coalescer {
    schema: SchemaRef,
    waiting: Vec<RecordBatch>,
    rows: usize,
    bytes: usize,
    bytes_wanted: usize,
}

impl Coalescer {
    /// One of `siblings`.
    pub fn new(schema: SchemaRef, siblings: usize) -> Self {
        Self {
            schema,
            waiting: Vec::new(),
            rows: 0,
            bytes: 0,
            bytes_wanted: (WAITING_BYTES / siblings.max(1)).clamp(BATCH_BYTES_MIN, BATCH_BYTES),
        }
    }

    /// Takes a batch in; gives one back when there is enough.
    ///
    /// # Errors
    /// Batches cannot be put together.
    pub fn push(&mut self, batch: RecordBatch) -> Result<Option<RecordBatch>, RemoteError> {
        if batch.num_rows() == 0 {
            return Ok(None);
        }
        self.rows += batch.num_rows();
        self.bytes += batch.get_array_memory_size();
        self.waiting.push(batch);
        if self.rows >= BATCH_ROWS || self.bytes >= self.bytes_wanted {
            self.flush()
        } else {
            Ok(None)
        }
    }

    /// What there is.
    ///
    /// # Errors
    /// Batches cannot be put together.
    pub fn flush(&mut self) -> Result<Option<RecordBatch>, RemoteError> {
        let mut waiting = std::mem::take(&mut self.waiting);
        let rows = std::mem::take(&mut self.rows);
        self.bytes = 0;
        if waiting.len() < 2 {
            return Ok(waiting.pop());
        }
        if self.schema.fields().is_empty() {
            return batch_of(&self.schema, Vec::new(), rows).map(Some);
        }
        concat_batches(&self.schema, &waiting).map(Some).map_err(failed)
    }
}

/// Says where each row goes.
pub struct Splitter {
    /// The destination of each bucket.
    buckets: Vec<u32>,
    destinations: usize,
}

impl Splitter {
    /// `buckets` has places in a list of `destinations`.
    ///
    /// # Errors
    /// It has others.
    pub fn new(buckets: Vec<u32>, destinations: usize) -> Result<Self, RemoteError> {
        if buckets.iter().any(|place| *place as usize >= destinations) {
            return Err(RemoteError::new(
                ExceptionType::InvalidInput,
                "a bucket's destination is not among the destinations",
            ));
        }
        Ok(Self { buckets, destinations })
    }

    /// The columns without the bucket.
    ///
    /// # Errors
    /// The last column is no bucket.
    pub fn schema(&self, schema: &Schema) -> Result<Schema, RemoteError> {
        match schema.fields().split_last() {
            Some((bucket, fields)) if *bucket.data_type() == DataType::UInt64 => {
                Ok(Schema::new_with_metadata(fields.to_vec(), schema.metadata().clone()))
            }
            _ => Err(RemoteError::new(
                ExceptionType::InvalidInput,
                "a stage's last column must be the bucket of each row, a UBIGINT",
            )),
        }
    }

    /// Hands the rows of each destination that has some to `send`. `schema` is without the bucket.
    ///
    /// # Errors
    /// A row has no bucket, or one that there is not; those of `send`.
    pub fn split(
        &self,
        batch: &RecordBatch,
        schema: &SchemaRef,
        send: &mut dyn FnMut(usize, RecordBatch) -> Result<(), RemoteError>,
    ) -> Result<(), RemoteError> {
        let Some((buckets, columns)) = batch.columns().split_last() else {
            return Err(no_bucket());
        };
        let buckets = buckets.as_primitive_opt::<UInt64Type>().ok_or_else(no_bucket)?;
        let rows = self.rows(buckets)?;
        for (destination, rows) in rows.into_iter().enumerate() {
            if rows.is_empty() {
                continue;
            }
            let count = rows.len();
            let columns = if count == batch.num_rows() {
                columns.to_vec()
            } else {
                take_arrays(columns, &UInt32Array::from(rows), None).map_err(failed)?
            };
            send(destination, batch_of(schema, columns, count)?)?;
        }
        Ok(())
    }

    /// The rows of each destination.
    fn rows(&self, buckets: &UInt64Array) -> Result<Vec<Vec<u32>>, RemoteError> {
        if buckets.null_count() > 0 {
            return Err(no_bucket());
        }
        let expected = buckets.len() / self.destinations.max(1);
        let mut rows = vec![Vec::with_capacity(expected + expected / 4); self.destinations];
        for (row, bucket) in (0_u32..).zip(buckets.values()) {
            let place = usize::try_from(*bucket)
                .ok()
                .and_then(|bucket| self.buckets.get(bucket));
            let place = place.ok_or_else(|| {
                RemoteError::new(
                    ExceptionType::InvalidInput,
                    format!("a stage yields a row for bucket {bucket} of {}", self.buckets.len()),
                )
            })?;
            rows[*place as usize].push(row);
        }
        Ok(rows)
    }
}

fn batch_of(schema: &SchemaRef, columns: Vec<arrow::array::ArrayRef>, rows: usize) -> Result<RecordBatch, RemoteError> {
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options).map_err(failed)
}

fn no_bucket() -> RemoteError {
    RemoteError::new(ExceptionType::InvalidInput, "a stage yields a row without a bucket")
}

fn failed(error: ArrowError) -> RemoteError {
    RemoteError::new(
        ExceptionType::Serialization,
        format!("dividing a stage's rows: {error}"),
    )
}
