//! Bulk appends of Arrow batches.

use std::ffi::{CStr, CString};
use std::ptr;

use arrow::array::{Array, RecordBatch, StructArray};
use arrow::datatypes::Schema;
use arrow::ffi::FFI_ArrowArray;
use duckherder_proto::{ExceptionType, RemoteError};
use libduckdb_sys as ffi;

use super::connection::Connection;
use super::error::parse_text;
use super::parameters::convert_schema;

/// Appends record batches to one table, by position, casting to the table's types.
///
/// Rows are the table's only after [`Appender::finish`], and durable when the surrounding transaction commits.
pub struct Appender<'connection> {
    connection: &'connection mut Connection,
    raw: ffi::duckdb_appender,
    schema: ConvertedSchema,
}

/// An Arrow schema as DuckDB understands it.
pub(super) struct ConvertedSchema(pub(super) ffi::duckdb_arrow_converted_schema);

impl Drop for ConvertedSchema {
    fn drop(&mut self) {
        // SAFETY: the handle came from `duckdb_schema_from_arrow` and is destroyed only here; null-safe.
        unsafe { ffi::duckdb_destroy_arrow_converted_schema(&raw mut self.0) };
    }
}

impl Drop for Appender<'_> {
    fn drop(&mut self) {
        // Destroying would flush what is still buffered: after an error that must not happen.
        // SAFETY: `raw` is null or a live appender; both calls accept that, and it is destroyed only here.
        unsafe {
            if !self.raw.is_null() {
                ffi::duckdb_appender_clear(self.raw);
            }
            ffi::duckdb_appender_destroy(&raw mut self.raw);
        }
    }
}

impl<'connection> Appender<'connection> {
    /// An appender for `schema_name.table_name` of the default catalog or the named one, for batches of Arrow schema `schema`.
    ///
    /// # Errors
    /// No such table, or an Arrow type that DuckDB does not know.
    pub fn new(
        connection: &'connection mut Connection,
        catalog_name: Option<&str>,
        schema_name: &str,
        table_name: &str,
        schema: &Schema,
    ) -> Result<Self, RemoteError> {
        let converted = convert_schema(connection, schema)?;
        let v1 = connection.v1();
        let catalog_name = catalog_name.map(c_string).transpose()?;
        let catalog_name = catalog_name.as_ref().map_or(ptr::null(), |name| name.as_ptr());
        let schema_name = c_string(schema_name)?;
        let table_name = c_string(table_name)?;
        let mut raw: ffi::duckdb_appender = ptr::null_mut();
        // SAFETY: the connection is live and the names are NUL-terminated; the catalog's may be null.
        let state = unsafe {
            ffi::duckdb_appender_create_ext(
                v1,
                catalog_name,
                schema_name.as_ptr(),
                table_name.as_ptr(),
                &raw mut raw,
            )
        };
        let appender = Self {
            connection,
            raw,
            schema: converted,
        };
        appender.check(state)?;
        Ok(appender)
    }

    /// From here on batches hold the columns of these names, in this order; the table's others get their defaults.
    ///
    /// # Errors
    /// The table has no such column.
    pub fn set_columns<'name>(&mut self, names: impl Iterator<Item = &'name str>) -> Result<(), RemoteError> {
        for name in names {
            let name = c_string(name)?;
            // SAFETY: the appender is live, and the name NUL-terminated.
            let state = unsafe { ffi::duckdb_appender_add_column(self.raw, name.as_ptr()) };
            self.check(state)?;
        }
        Ok(())
    }

    /// Appends one batch.
    ///
    /// # Errors
    /// A value that does not fit its column, a violated constraint, a full disk.
    pub fn append(&mut self, batch: &RecordBatch) -> Result<(), RemoteError> {
        const CHUNK_ROWS: usize = 2048;
        for offset in (0..batch.num_rows()).step_by(CHUNK_ROWS) {
            let rows = CHUNK_ROWS.min(batch.num_rows() - offset);
            self.append_chunk(&batch.slice(offset, rows))?;
        }
        Ok(())
    }

    fn append_chunk(&mut self, batch: &RecordBatch) -> Result<(), RemoteError> {
        let mut array = FFI_ArrowArray::new(&StructArray::from(batch.clone()).to_data());
        let v1 = self.connection.v1();
        let mut chunk: ffi::duckdb_data_chunk = ptr::null_mut();
        // SAFETY: `array` has the layout of `ArrowArray` and the schema it was converted with; DuckDB takes it over and
        // marks it released.
        check_data(unsafe {
            ffi::duckdb_data_chunk_from_arrow(v1, (&raw mut array).cast(), self.schema.0, &raw mut chunk)
        })?;
        // SAFETY: appender and chunk are live; the rows are copied, and the chunk destroyed only here.
        let state = unsafe {
            let state = ffi::duckdb_append_data_chunk(self.raw, chunk);
            ffi::duckdb_destroy_data_chunk(&raw mut chunk);
            state
        };
        self.check(state)
    }

    /// Hands everything appended to the table.
    ///
    /// # Errors
    /// As for [`Appender::append`]; nothing of the appender's is then in the table.
    pub fn finish(self) -> Result<(), RemoteError> {
        // SAFETY: the appender is live.
        let state = unsafe { ffi::duckdb_appender_close(self.raw) };
        self.check(state)
    }

    fn check(&self, state: ffi::duckdb_state) -> Result<(), RemoteError> {
        if state == ffi::DuckDBSuccess {
            return Ok(());
        }
        // SAFETY: `raw` is null or a live appender; the error data is ours and destroyed in `take_error`.
        Err(unsafe { take_error(ffi::duckdb_appender_error_data(self.raw)) })
    }
}

pub(super) fn check_data(data: ffi::duckdb_error_data) -> Result<(), RemoteError> {
    if data.is_null() {
        return Ok(());
    }
    // SAFETY: error data that the caller was handed and has not destroyed.
    Err(unsafe { take_error(data) })
}

/// # Safety
/// `data` is null or error data that the caller owns; it is destroyed here.
unsafe fn take_error(mut data: ffi::duckdb_error_data) -> RemoteError {
    if data.is_null() {
        return RemoteError::new(ExceptionType::Io, "DuckDB failed without a message");
    }
    // SAFETY: `data` is live; the message is a NUL-terminated string that it owns, copied before it is destroyed.
    let message = unsafe {
        let text = ffi::duckdb_error_data_message(data);
        let message = if text.is_null() {
            String::new()
        } else {
            CStr::from_ptr(text).to_string_lossy().into_owned()
        };
        ffi::duckdb_destroy_error_data(&raw mut data);
        message
    };
    parse_text(&message).unwrap_or_else(|| RemoteError::new(ExceptionType::InvalidInput, message))
}

fn c_string(text: &str) -> Result<CString, RemoteError> {
    CString::new(text)
        .map_err(|_| RemoteError::new(ExceptionType::InvalidInput, "names must not contain NUL characters"))
}
