//! Result schemas.

use std::ptr;

use duckherder_proto::RemoteError;
use libduckdb_sys::v2 as ffi;

use super::error::check;

/// Names and types of columns.
pub(super) struct SchemaHandle(pub(super) ffi::duckdb_v2_schema_handle);

impl Drop for SchemaHandle {
    fn drop(&mut self) {
        // SAFETY: the handle came from DuckDB and is destroyed only here.
        unsafe { ffi::duckdb_v2_schema_destroy(&raw mut self.0) };
    }
}

impl SchemaHandle {
    /// Name and type text of every column.
    pub(super) fn columns(&self) -> Result<Vec<(String, String)>, RemoteError> {
        let mut count = 0;
        // SAFETY: the schema is live.
        check(|error| unsafe { ffi::duckdb_v2_schema_get_count(self.0, &raw mut count, error) })?;
        (0..count).map(|index| self.column(index)).collect()
    }

    fn column(&self, index: u64) -> Result<(String, String), RemoteError> {
        let mut name = ffi::duckdb_v2_identifier_t {
            ptr: ptr::null(),
            len: 0,
        };
        let mut logical_type: ffi::duckdb_v2_logical_type_handle = ptr::null_mut();
        check(|error| {
            // SAFETY: the schema is live and `index` below its count; name and type are borrowed from the schema.
            unsafe { ffi::duckdb_v2_schema_get_field(self.0, index, &raw mut name, &raw mut logical_type, error) }
        })?;
        let name = if name.len == 0 {
            &[]
        } else {
            // SAFETY: DuckDB owns `len` bytes at `ptr` for as long as the schema lives.
            unsafe { std::slice::from_raw_parts(name.ptr.cast::<u8>(), name.len as usize) }
        };
        // SAFETY: the type is borrowed from the live schema.
        let type_text = unsafe { type_text(logical_type) }?;
        Ok((String::from_utf8_lossy(name).into_owned(), type_text))
    }
}

/// # Safety
/// `logical_type` is live.
unsafe fn type_text(logical_type: ffi::duckdb_v2_logical_type_handle) -> Result<String, RemoteError> {
    let mut length = 0;
    check(|error| {
        // SAFETY: the type is borrowed from the live schema; a null buffer asks for the length only.
        unsafe { ffi::duckdb_v2_logical_type_to_text(logical_type, ptr::null_mut(), 0, &raw mut length, error) }
    })?;
    let mut text = vec![0u8; length as usize + 1];
    check(|error| {
        // SAFETY: the buffer has room for `length` bytes and the terminator.
        unsafe {
            ffi::duckdb_v2_logical_type_to_text(
                logical_type,
                text.as_mut_ptr().cast(),
                text.len() as u64,
                &raw mut length,
                error,
            )
        }
    })?;
    text.truncate(length as usize);
    Ok(String::from_utf8_lossy(&text).into_owned())
}
