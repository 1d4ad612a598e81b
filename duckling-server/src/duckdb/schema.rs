//! Result schemas.

use std::ffi::c_char;
use std::ptr;

use arrow::datatypes::{DataType, Field, Schema};
use arrow::ffi::FFI_ArrowSchema;
use duckherder_proto::types::with_type_texts;
use duckherder_proto::{ExceptionType, RemoteError};
use libduckdb_sys as v1;
use libduckdb_sys::v2 as ffi;

use super::appender::check_data;
use super::connection::Connection;
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
        (0..self.count()?)
            .map(|index| self.column(index).map(|(name, type_text, _)| (name, type_text)))
            .collect()
    }

    /// The columns as DuckDB exports them on `connection`, with their type texts.
    pub(super) fn arrow_schema(&self, connection: &mut Connection) -> Result<Schema, RemoteError> {
        self.fields(connection, Err)
    }

    /// As [`SchemaHandle::arrow_schema`], for parameters: a type that is not known yet is Arrow's `Null`.
    pub(super) fn parameter_schema(&self, connection: &mut Connection) -> Result<Schema, RemoteError> {
        self.fields(connection, |_| Ok(Field::new("", DataType::Null, true)))
    }

    fn fields(
        &self,
        connection: &mut Connection,
        otherwise: impl Fn(RemoteError) -> Result<Field, RemoteError>,
    ) -> Result<Schema, RemoteError> {
        let options = ArrowOptions::of(connection.v1());
        let mut fields = Vec::new();
        let mut texts = Vec::new();
        for index in 0..self.count()? {
            let (name, type_text, logical_type) = self.column(index)?;
            // SAFETY: the type is borrowed from this schema, which is live.
            let field = unsafe { options.arrow_type(logical_type) }.or_else(&otherwise)?;
            fields.push(field.with_name(name));
            texts.push(type_text);
        }
        Ok(with_type_texts(&Schema::new(fields), &texts))
    }

    fn count(&self) -> Result<u64, RemoteError> {
        let mut count = 0;
        // SAFETY: the schema is live.
        check(|error| unsafe { ffi::duckdb_v2_schema_get_count(self.0, &raw mut count, error) })?;
        Ok(count)
    }

    /// Name, type text and type, which is borrowed from the schema.
    fn column(&self, index: u64) -> Result<(String, String, ffi::duckdb_v2_logical_type_handle), RemoteError> {
        let mut name = ffi::duckdb_v2_identifier_t {
            ptr: ptr::null(),
            len: 0,
        };
        let mut logical_type: ffi::duckdb_v2_logical_type_handle = ptr::null_mut();
        check(|error| {
            // SAFETY: the schema is live and `index` below its count; name and type are borrowed from the schema.
            unsafe { ffi::duckdb_v2_schema_get_field(self.0, index, &raw mut name, &raw mut logical_type, error) }
        })?;
        // SAFETY: DuckDB owns the name for as long as the schema lives.
        let name = unsafe { text_of(name) };
        // SAFETY: the type is borrowed from the live schema.
        let type_text = unsafe { type_text(logical_type) }?;
        Ok((name, type_text, logical_type))
    }
}

/// # Safety
/// `name` is empty, or points at bytes that live during the call.
pub(super) unsafe fn text_of(name: ffi::duckdb_v2_identifier_t) -> String {
    if name.len == 0 {
        return String::new();
    }
    // SAFETY: as the caller promises.
    let bytes = unsafe { std::slice::from_raw_parts(name.ptr.cast::<u8>(), name.len as usize) };
    String::from_utf8_lossy(bytes).into_owned()
}

/// How a connection exports Arrow.
pub(super) struct ArrowOptions(v1::duckdb_arrow_options);

// SAFETY: options are plain owned data; DuckDB binds nothing to the thread that made them.
unsafe impl Send for ArrowOptions {}

impl Drop for ArrowOptions {
    fn drop(&mut self) {
        // SAFETY: the handle came from `duckdb_connection_get_arrow_options` and is destroyed only here; null-safe.
        unsafe { v1::duckdb_destroy_arrow_options(&raw mut self.0) };
    }
}

impl ArrowOptions {
    pub(super) fn of(connection: v1::duckdb_connection) -> Self {
        let mut options = Self(ptr::null_mut());
        // SAFETY: the connection is live. On failure the options stay null, which those that use them report.
        unsafe { v1::duckdb_connection_get_arrow_options(connection, &raw mut options.0) };
        options
    }

    pub(super) fn raw(&self) -> v1::duckdb_arrow_options {
        self.0
    }

    /// The Arrow type that DuckDB exports a column of this type as.
    ///
    /// # Safety
    /// `logical_type` is live.
    unsafe fn arrow_type(&self, mut logical_type: ffi::duckdb_v2_logical_type_handle) -> Result<Field, RemoteError> {
        let mut raw = FFI_ArrowSchema::empty();
        let mut names = [c"".as_ptr()];
        // DuckDB 2.0.0: a type of the API's version 1 is a `LogicalType *`; one of version 2 is the `LogicalTypeInfo *`
        // that is the only member of `LogicalType` (`types.hpp`, `capi_v2_internal.hpp`): its address is the former.
        let mut types: [v1::duckdb_logical_type; 1] = [(&raw mut logical_type).cast()];
        // SAFETY: the options are live or null; types and names have one element each; the type is copied, with a
        // reference of its own; `raw` has the layout of `ArrowSchema`.
        check_data(unsafe {
            v1::duckdb_to_arrow_schema(self.0, types.as_mut_ptr(), names.as_mut_ptr(), 1, (&raw mut raw).cast())
        })?;
        Ok(schema_of(&raw)?.field(0).clone())
    }
}

/// The head of `ArrowSchema`: <https://arrow.apache.org/docs/format/CDataInterface.html#the-arrowschema-structure>
#[repr(C)]
struct SchemaHead {
    format: *const c_char,
    name: *const c_char,
    metadata: *const c_char,
    flags: i64,
    n_children: i64,
    children: *const *const SchemaHead,
    dictionary: *const SchemaHead,
}

impl SchemaHead {
    /// Whether the field and all its parts have a format.
    ///
    /// # Safety
    /// It is the head of a valid `ArrowSchema`, but for that.
    unsafe fn is_whole(&self) -> bool {
        let count = usize::try_from(self.n_children).unwrap_or_default();
        !self.format.is_null()
            && (0..count).all(|index| {
                // SAFETY: there are so many children, each the head of such a schema.
                unsafe { (**self.children.add(index)).is_whole() }
            })
            // SAFETY: a dictionary is such a schema too, or null.
            && unsafe { self.dictionary.as_ref().is_none_or(|dictionary| dictionary.is_whole()) }
    }
}

/// What DuckDB has said of columns. It leaves out what it has no Arrow type for, some parts of an aggregate's state for one.
///
/// # Errors
/// There is such a column, or one that the arrow crate has no type for.
pub(super) fn schema_of(raw: &FFI_ArrowSchema) -> Result<Schema, RemoteError> {
    // SAFETY: `FFI_ArrowSchema` has the layout of `ArrowSchema`.
    if !unsafe { (*ptr::from_ref(raw).cast::<SchemaHead>()).is_whole() } {
        return Err(RemoteError::new(
            ExceptionType::NotImplemented,
            "DuckDB has no Arrow type for a column of this result, such as the state of an aggregate: CAST it",
        ));
    }
    Schema::try_from(raw).map_err(|error| RemoteError::new(ExceptionType::Serialization, error.to_string()))
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
