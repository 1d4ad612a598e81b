//! INTERVAL values that Arrow has no room for.
//!
//! Arrow counts nanoseconds where DuckDB counts microseconds, and DuckDB 2.0.0 multiplies without looking: an INTERVAL of
//! more than 292 years of time (not of months or days) would arrive as another one. So results with such columns are
//! looked at before they become Arrow.

use std::ptr;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::{DataType, Field, IntervalMonthDayNanoType, IntervalUnit, Schema};
use arrow::ffi::FFI_ArrowArray;
use duckherder_proto::{ExceptionType, RemoteError};
use libduckdb_sys as v1;
use libduckdb_sys::v2 as ffi;

use super::appender::check_data;
use super::error::check;
use super::schema::ArrowOptions;
use crate::exact::column_error;

/// Microseconds that are still nanoseconds in 64 bits.
const MICROS_MAX: i64 = i64::MAX / 1000;

const NANOS_PER_MICRO: i64 = 1000;

/// Whether a result has INTERVAL values, at any depth.
pub(super) fn has_intervals(schema: &Schema) -> bool {
    schema.fields().iter().any(|field| is_or_holds(field.data_type()))
}

fn is_or_holds(data_type: &DataType) -> bool {
    match data_type {
        DataType::Interval(_) => true,
        DataType::List(item) | DataType::FixedSizeList(item, _) | DataType::Map(item, _) => {
            is_or_holds(item.data_type())
        }
        DataType::Struct(fields) => fields.iter().any(|field| is_or_holds(field.data_type())),
        DataType::Union(fields, _) => fields.iter().any(|(_, field)| is_or_holds(field.data_type())),
        _ => false,
    }
}

/// Rows as DuckDB has them.
pub(super) struct Chunk(ffi::duckdb_v2_data_chunk_handle);

impl Drop for Chunk {
    fn drop(&mut self) {
        // SAFETY: the handle came from `result_step` and is destroyed only here; null-safe.
        unsafe { ffi::duckdb_v2_data_chunk_destroy(&raw mut self.0) };
    }
}

impl Chunk {
    pub(super) const fn new() -> Self {
        Self(ptr::null_mut())
    }

    pub(super) fn slot(&mut self) -> *mut ffi::duckdb_v2_data_chunk_handle {
        &raw mut self.0
    }

    /// The rows as Arrow, once all their intervals have been found to fit.
    ///
    /// # Errors
    /// `Conversion`, naming the column.
    pub(super) fn into_arrow(self, schema: &Schema, options: &ArrowOptions) -> Result<FFI_ArrowArray, RemoteError> {
        let mut rows = 0;
        // SAFETY: the chunk is live.
        check(|error| unsafe { ffi::duckdb_v2_data_chunk_get_size(self.0, &raw mut rows, error) })?;
        for (index, field) in schema.fields().iter().enumerate() {
            if is_or_holds(field.data_type()) {
                let mut vector: ffi::duckdb_v2_vector_handle = ptr::null_mut();
                check(|error| {
                    // SAFETY: the chunk is live, and has the schema's columns.
                    unsafe { ffi::duckdb_v2_data_chunk_get_vector(self.0, index as u64, &raw mut vector, error) }
                })?;
                // SAFETY: the vector is the live chunk's, of this type, with so many rows.
                if !unsafe { all_fit(vector, field.data_type(), rows) }? {
                    return Err(too_long(field));
                }
            }
        }
        let mut array = FFI_ArrowArray::empty();
        // SAFETY: the chunk and the options are live; DuckDB 2.0.0: the chunk handles of both versions of the API are a
        // `duckdb::DataChunk *` (`data_chunk-c.cpp`, `capi_v2_internal.hpp`); `array` has the layout of `ArrowArray`.
        check_data(unsafe { v1::duckdb_data_chunk_to_arrow(options.raw(), self.0.cast(), (&raw mut array).cast()) })?;
        Ok(array)
    }
}

fn too_long(field: &Field) -> RemoteError {
    let name = field.name();
    column_error(
        ExceptionType::Conversion,
        name,
        &format!(
            "an INTERVAL is longer than Arrow's, which counts nanoseconds in 64 bits; write CAST(\"{name}\" AS VARCHAR)"
        ),
    )
}

/// # Safety
/// `vector` is live, of the type that DuckDB exports as `data_type`, and has `rows` rows.
unsafe fn all_fit(vector: ffi::duckdb_v2_vector_handle, data_type: &DataType, rows: u64) -> Result<bool, RemoteError> {
    // SAFETY: the vector is live, and this thread's.
    check(|error| unsafe { ffi::duckdb_v2_vector_flatten(vector, error) })?;
    // DuckDB 2.0.0: the vector handles of both versions of the API are a `duckdb::Vector *`.
    let flat: v1::duckdb_vector = vector.cast();
    // SAFETY: the vector is live and flat; children are live as long as it is, and have the types and sizes that their
    // parents say.
    unsafe {
        match data_type {
            DataType::Interval(_) => Ok(flat_intervals_fit(flat, rows)),
            DataType::List(item) => {
                let rows = v1::duckdb_list_vector_get_size(flat);
                all_fit(v1::duckdb_list_vector_get_child(flat).cast(), item.data_type(), rows)
            }
            DataType::Map(entries, _) => {
                let rows = v1::duckdb_list_vector_get_size(flat);
                all_fit(v1::duckdb_list_vector_get_child(flat).cast(), entries.data_type(), rows)
            }
            DataType::FixedSizeList(item, size) => {
                let rows = rows * u64::from(size.unsigned_abs());
                all_fit(v1::duckdb_array_vector_get_child(flat).cast(), item.data_type(), rows)
            }
            DataType::Struct(fields) => children_fit(flat, fields.iter().map(|field| field.data_type()), 0, rows),
            // The first child of a union tells which of the others counts.
            DataType::Union(fields, _) => {
                children_fit(flat, fields.iter().map(|(_, field)| field.data_type()), 1, rows)
            }
            _ => Ok(true),
        }
    }
}

/// # Safety
/// `vector` is a live, flat struct vector with these children from index `first` on.
unsafe fn children_fit<'a>(
    vector: v1::duckdb_vector,
    types: impl Iterator<Item = &'a DataType>,
    first: u64,
    rows: u64,
) -> Result<bool, RemoteError> {
    for (index, data_type) in (first..).zip(types) {
        if is_or_holds(data_type) {
            // SAFETY: as the caller promises.
            let fit = unsafe {
                all_fit(
                    v1::duckdb_struct_vector_get_child(vector, index).cast(),
                    data_type,
                    rows,
                )
            };
            if !fit? {
                return Ok(false);
            }
        }
    }
    Ok(true)
}

/// # Safety
/// `vector` is a live, flat INTERVAL vector of `rows` rows.
unsafe fn flat_intervals_fit(vector: v1::duckdb_vector, rows: u64) -> bool {
    // SAFETY: as the caller promises; the validity may be null, which means that all rows are valid.
    unsafe {
        let values: *const v1::duckdb_interval = v1::duckdb_vector_get_data(vector).cast();
        let validity = v1::duckdb_vector_get_validity(vector);
        (0..rows).all(|row| {
            let valid = validity.is_null() || v1::duckdb_validity_row_is_valid(validity, row);
            !valid || (-MICROS_MAX..=MICROS_MAX).contains(&(*values.add(row as usize)).micros)
        })
    }
}

/// Whether intervals that are Arrow already look as if they had fitted: all microseconds are whole. For results that
/// cannot be looked at before; nearly all that did not fit are found.
///
/// # Errors
/// `Conversion`, naming the column.
pub(super) fn check_whole(batch: &RecordBatch) -> Result<(), RemoteError> {
    for (column, field) in batch.columns().iter().zip(batch.schema().fields()) {
        if !are_whole(column) {
            return Err(too_long(field));
        }
    }
    Ok(())
}

fn are_whole(array: &ArrayRef) -> bool {
    match array.data_type() {
        DataType::Interval(IntervalUnit::MonthDayNano) => array
            .as_primitive::<IntervalMonthDayNanoType>()
            .iter()
            .flatten()
            .all(|interval| interval.nanoseconds % NANOS_PER_MICRO == 0),
        DataType::List(_) => are_whole(array.as_list::<i32>().values()),
        DataType::FixedSizeList(..) => are_whole(array.as_fixed_size_list().values()),
        DataType::Map(..) => array.as_map().entries().columns().iter().all(are_whole),
        DataType::Struct(_) => array.as_struct().columns().iter().all(are_whole),
        DataType::Union(fields, _) => fields.iter().all(|(id, _)| are_whole(array.as_union().child(id))),
        _ => true,
    }
}
