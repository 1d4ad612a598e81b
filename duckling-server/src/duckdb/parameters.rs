//! Values for the parameters of a statement.

use std::ptr;

use arrow::array::{Array, RecordBatch, StructArray};
use arrow::datatypes::Schema;
use arrow::ffi::{FFI_ArrowArray, FFI_ArrowSchema};
use duckherder_proto::{ExceptionType, RemoteError};
use libduckdb_sys as v1;
use libduckdb_sys::v2 as ffi;

use super::appender::{ConvertedSchema, check_data};
use super::connection::Connection;
use super::error::check;

/// Rows that DuckDB converts at once.
const CHUNK_ROWS: usize = 2048;

/// Values for one run of a statement, in the order of its parameters.
pub struct Parameters {
    values: Vec<ffi::duckdb_v2_value_handle>,
}

// SAFETY: values are plain owned data; DuckDB binds nothing to the thread that made them.
unsafe impl Send for Parameters {}

impl Drop for Parameters {
    fn drop(&mut self) {
        for value in &mut self.values {
            // SAFETY: each handle came from `vector_get_value` and is destroyed only here.
            unsafe { ffi::duckdb_v2_value_destroy(value) };
        }
    }
}

impl Parameters {
    /// For a statement without parameters.
    #[must_use]
    pub const fn none() -> Self {
        Self { values: Vec::new() }
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.values.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    pub(super) fn values(&self) -> *const ffi::duckdb_v2_value_handle {
        self.values.as_ptr()
    }
}

struct Chunk(v1::duckdb_data_chunk);

impl Drop for Chunk {
    fn drop(&mut self) {
        // SAFETY: the handle came from `duckdb_data_chunk_from_arrow` and is destroyed only here; null-safe.
        unsafe { v1::duckdb_destroy_data_chunk(&raw mut self.0) };
    }
}

/// Hands the rows of `batch`, each as the values of one run, to `each`, until that fails. The batch must have been
/// checked (`arrow_check`).
///
/// # Errors
/// An Arrow type that DuckDB does not know; what `each` fails with.
pub fn for_each_row(
    connection: &mut Connection,
    batch: &RecordBatch,
    mut each: impl FnMut(&mut Connection, Parameters) -> Result<(), RemoteError>,
) -> Result<(), RemoteError> {
    let schema = convert_schema(connection, &batch.schema())?;
    for offset in (0..batch.num_rows()).step_by(CHUNK_ROWS) {
        let piece = batch.slice(offset, CHUNK_ROWS.min(batch.num_rows() - offset));
        let chunk = convert_chunk(connection, &schema, &piece)?;
        for row in 0..piece.num_rows() {
            let parameters = row_of(&chunk, piece.num_columns(), row)?;
            each(connection, parameters)?;
        }
    }
    Ok(())
}

pub(super) fn convert_schema(connection: &mut Connection, schema: &Schema) -> Result<ConvertedSchema, RemoteError> {
    let arrow_schema = FFI_ArrowSchema::try_from(schema)
        .map_err(|error| RemoteError::new(ExceptionType::InvalidInput, error.to_string()))?;
    let mut converted = ConvertedSchema(ptr::null_mut());
    // SAFETY: the connection is live; `arrow_schema` has the layout of `ArrowSchema` and stays ours.
    check_data(unsafe {
        v1::duckdb_schema_from_arrow(
            connection.v1(),
            (&raw const arrow_schema).cast_mut().cast(),
            &raw mut converted.0,
        )
    })?;
    Ok(converted)
}

fn convert_chunk(
    connection: &mut Connection,
    schema: &ConvertedSchema,
    batch: &RecordBatch,
) -> Result<Chunk, RemoteError> {
    let mut array = FFI_ArrowArray::new(&StructArray::from(batch.clone()).to_data());
    let mut chunk = Chunk(ptr::null_mut());
    // SAFETY: `array` has the layout of `ArrowArray` and the schema that was converted; DuckDB takes it over and marks
    // it released.
    check_data(unsafe {
        v1::duckdb_data_chunk_from_arrow(connection.v1(), (&raw mut array).cast(), schema.0, &raw mut chunk.0)
    })?;
    Ok(chunk)
}

fn row_of(chunk: &Chunk, columns: usize, row: usize) -> Result<Parameters, RemoteError> {
    let mut parameters = Parameters {
        values: Vec::with_capacity(columns),
    };
    for column in 0..columns {
        let mut value: ffi::duckdb_v2_value_handle = ptr::null_mut();
        check(|error| {
            // SAFETY: the chunk is live and has that column. DuckDB 2.0.0: the vector handles of both versions of the
            // API are a `duckdb::Vector *` (`data_chunk-c.cpp`, `capi_v2_internal.hpp`).
            unsafe {
                let vector = v1::duckdb_data_chunk_get_vector(chunk.0, column as u64);
                ffi::duckdb_v2_vector_get_value(vector.cast(), row as u64, &raw mut value, error)
            }
        })?;
        parameters.values.push(value);
    }
    Ok(parameters)
}
