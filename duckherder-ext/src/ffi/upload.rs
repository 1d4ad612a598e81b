//! Rows for a duckling's table.

use std::sync::Arc;

use arrow::array::{RecordBatch, RecordBatchOptions, StructArray};
use arrow::datatypes::{DataType, Schema};
use arrow::error::ArrowError;
use arrow::ffi::from_ffi_and_data_type;
use duckherder_catalog::SchemaPath;
use duckherder_client::{IngestMode, IngestTarget};
use duckherder_proto::ExceptionType;
use duckherder_proto::types::with_type_texts;

use super::query::{ArrowArray, ArrowSchema};
use super::remote::DhSession;
use super::{DhBuffer, DhInterrupt, DhStatus, DhText, guard};
use crate::error::{ExtError, ForUser, Result};
use crate::upload::Upload;

/// An upload under way.
pub struct DhUpload(Upload);

/// What to do about the table that rows are sent to.
#[expect(
    clippy::enum_variant_names,
    reason = "C has one name space for the values of all enumerations"
)]
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DhIngestMode {
    /// It exists.
    DhAppend = 0,
    /// It must not exist, and is made.
    DhCreate = 1,
    /// It is made anew.
    DhCreateOrReplace = 2,
    /// A temporary table of the session, replacing one of that name.
    DhCreateTemporary = 3,
    /// It exists. It has columns of the same names; those that it has besides get their defaults.
    DhAppendByName = 4,
}

/// Starts sending rows of an Arrow schema, whose columns have these DuckDB types, to a table in the schema of that path,
/// which is SQL. The Arrow schema stays the caller's.
///
/// # Safety
/// `session` is live; texts and `schema` are valid for the call; `type_texts` points at one text a column; the outputs
/// are places for one each.
pub(super) unsafe extern "C" fn upload_start(
    session: *const DhSession,
    schema_path: DhText,
    table_name: DhText,
    mode: DhIngestMode,
    table_clauses: DhText,
    transactional: bool,
    schema: *const ArrowSchema,
    type_texts: *const DhText,
    interrupt: DhInterrupt,
    upload: *mut *mut DhUpload,
    error: *mut DhBuffer,
) -> DhStatus {
    guard(error, || {
        // SAFETY: the caller's promise.
        let (session, schema_path, table_name, schema) =
            unsafe { (&(*session).0, schema_path.to_owned()?, table_name.to_owned()?, &*schema) };
        // SAFETY: the caller's promise.
        let table_clauses = unsafe { table_clauses.to_owned()? };
        let path: SchemaPath = schema_path.parse().map_err(ForUser::for_user)?;
        let (parent_schemas, schema_name) = path.split();
        let schema = Schema::try_from(schema).map_err(arrow_error)?;
        let mut texts = Vec::with_capacity(schema.fields().len());
        for column in 0..schema.fields().len() {
            // SAFETY: the caller's promise: there is one text a column.
            texts.push(unsafe { (*type_texts.add(column)).to_owned()? });
        }
        let mode = match mode {
            DhIngestMode::DhAppend => IngestMode::Append,
            DhIngestMode::DhAppendByName => IngestMode::AppendByName,
            DhIngestMode::DhCreate => IngestMode::Create,
            DhIngestMode::DhCreateOrReplace => IngestMode::CreateOrReplace,
            DhIngestMode::DhCreateTemporary => IngestMode::CreateTemporary,
        };
        let target = IngestTarget {
            schema: schema_name,
            parent_schemas,
            table: table_name,
            mode,
            table_clauses,
            begin_transaction: false,
        };
        let started = session.upload(
            &interrupt,
            target,
            Arc::new(with_type_texts(&schema, &texts)),
            transactional,
        )?;
        // SAFETY: the caller's promise.
        unsafe { upload.write(Box::into_raw(Box::new(DhUpload(started)))) };
        Ok(DhStatus::DhOk)
    })
}

/// Sends a batch: a struct array, which is taken over.
///
/// # Safety
/// `upload` is live; `array` is of the upload's schema; `error` is a place for one buffer.
pub(super) unsafe extern "C" fn upload_push(
    upload: *const DhUpload,
    array: *mut ArrowArray,
    interrupt: DhInterrupt,
    error: *mut DhBuffer,
) -> DhStatus {
    guard(error, || {
        // SAFETY: the caller's promise; the array is marked as released where it was.
        let (upload, array) = unsafe { (&(*upload).0, ArrowArray::from_raw(array)) };
        let fields = upload.schema().fields().clone();
        // SAFETY: the caller's promise: the array is of this schema.
        let data = unsafe { from_ffi_and_data_type(array, DataType::Struct(fields)) }.map_err(arrow_error)?;
        upload.push(&interrupt, batch(upload, StructArray::from(data))?)?;
        Ok(DhStatus::DhOk)
    })
}

fn batch(upload: &Upload, rows: StructArray) -> Result<RecordBatch> {
    let options = RecordBatchOptions::new().with_row_count(Some(arrow::array::Array::len(&rows)));
    RecordBatch::try_new_with_options(Arc::clone(upload.schema()), rows.columns().to_vec(), &options)
        .map_err(arrow_error)
}

/// Ends an upload and waits until the server has kept it; the number of rows goes to `rows`.
///
/// # Safety
/// `upload` is live; the outputs are places for one each.
pub(super) unsafe extern "C" fn upload_finish(
    upload: *mut DhUpload,
    interrupt: DhInterrupt,
    rows: *mut u64,
    error: *mut DhBuffer,
) -> DhStatus {
    guard(error, || {
        // SAFETY: the caller's promise.
        let upload = unsafe { &mut (*upload).0 };
        let kept = upload.finish(&interrupt)?;
        // SAFETY: the caller's promise.
        unsafe { rows.write(kept) };
        Ok(DhStatus::DhOk)
    })
}

/// Frees an upload; one that was not finished is broken off.
///
/// # Safety
/// `upload` is null or came from [`upload_start`], and is not used again.
pub(super) unsafe extern "C" fn upload_free(upload: *mut DhUpload) {
    if !upload.is_null() {
        guard(std::ptr::null_mut(), || {
            // SAFETY: made by `Box::into_raw`, freed once.
            drop(unsafe { Box::from_raw(upload) });
            Ok(DhStatus::DhOk)
        });
    }
}

fn arrow_error(error: ArrowError) -> ExtError {
    ExtError::new(
        ExceptionType::Serialization,
        format!("preparing rows for the duckling: {error}"),
    )
}
