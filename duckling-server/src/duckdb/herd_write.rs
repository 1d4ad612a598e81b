//! Rows and statements for workers, as C++ hands them over: `cpp/herd_write.cpp`.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{Array, RecordBatch, RecordBatchOptions, StructArray};
use arrow::datatypes::{DataType, Schema};
use arrow::error::ArrowError;
use arrow::ffi::{FFI_ArrowArray, FFI_ArrowSchema, from_ffi_and_data_type};
use duckherder_catalog::herd::placement::WorkerId;
use duckherder_proto::types::with_type_texts;
use duckherder_proto::{ExceptionType, RemoteError};

use super::herd::{Buffer, Session, Status, Text, guard};
use crate::herd::write::{Execution, Progress, Write, WriteTarget};

/// Where rows go: `HerdWriteTarget`.
#[repr(C)]
pub(super) struct Target {
    schema: Text,
    table: Text,
    workers: Text,
    everywhere: bool,
    temporary: bool,
}

fn arrow_error(error: ArrowError) -> RemoteError {
    RemoteError::new(ExceptionType::Serialization, error.to_string())
}

fn worker_list(json: &str) -> Result<Vec<WorkerId>, RemoteError> {
    serde_json::from_str(json).map_err(|error| RemoteError::new(ExceptionType::Serialization, error.to_string()))
}

/// # Safety
/// As for all that follow: handles are live, texts live during the call, and outputs are places for what they name. Here,
/// there are `type_count` types, one a column of the schema.
pub(super) unsafe extern "C" fn write_start(
    session: *const Session,
    target: *const Target,
    schema: *const FFI_ArrowSchema,
    types: *const Text,
    type_count: usize,
    write: *mut *mut Write,
    error: *mut Buffer,
) -> Status {
    // SAFETY: the caller's promise, here and in all that follow.
    unsafe {
        guard(error, || {
            let given = &*target;
            let target = WriteTarget {
                schema: given.schema.get()?.to_owned(),
                table: given.table.get()?.to_owned(),
                workers: worker_list(given.workers.get()?)?,
                everywhere: given.everywhere,
                temporary: given.temporary,
            };
            let texts = (0..type_count)
                .map(|column| Ok((*types.add(column)).get()?.to_owned()))
                .collect::<Result<Vec<_>, RemoteError>>()?;
            let schema = Schema::try_from(&*schema).map_err(arrow_error)?;
            let schema = Arc::new(with_type_texts(&schema, &texts));
            let started = (*session).0.write(&target, schema)?;
            write.write(Box::into_raw(Box::new(started)));
            Ok(Status::Ok)
        })
    }
}

/// # Safety
/// As for [`write_start`]. The array has the columns of the write's schema; it is taken over, and given back if there is
/// no room for it.
pub(super) unsafe extern "C" fn write_push(
    write: *const Write,
    worker: usize,
    timeout_ms: u32,
    array: *mut FFI_ArrowArray,
    error: *mut Buffer,
) -> Status {
    // SAFETY: the caller's promise.
    unsafe {
        guard(error, || {
            let write = &*write;
            let fields = write.schema().fields().clone();
            let data = from_ffi_and_data_type(FFI_ArrowArray::from_raw(array), DataType::Struct(fields))
                .map_err(arrow_error)?;
            let rows = StructArray::from(data);
            let options = RecordBatchOptions::new().with_row_count(Some(rows.len()));
            let batch =
                RecordBatch::try_new_with_options(Arc::clone(write.schema()), rows.columns().to_vec(), &options)
                    .map_err(arrow_error)?;
            Ok(
                match write.push(worker, batch, Duration::from_millis(timeout_ms.into()))? {
                    Progress::Done(()) => Status::Ok,
                    Progress::Pending => {
                        array.write(FFI_ArrowArray::new(&rows.to_data()));
                        Status::Pending
                    }
                },
            )
        })
    }
}

/// # Safety
/// As for [`write_start`].
pub(super) unsafe extern "C" fn write_finish(
    write: *const Write,
    timeout_ms: u32,
    rows: *mut u64,
    error: *mut Buffer,
) -> Status {
    // SAFETY: the caller's promise.
    unsafe {
        guard(error, || {
            Ok(match (*write).finish(Duration::from_millis(timeout_ms.into()))? {
                Progress::Done(count) => {
                    rows.write(count);
                    Status::Ok
                }
                Progress::Pending => Status::Pending,
            })
        })
    }
}

/// # Safety
/// The handle is one of ours, freed once.
pub(super) unsafe extern "C" fn write_free(write: *mut Write) {
    let _ = catch_unwind(AssertUnwindSafe(|| {
        // SAFETY: made by `Box::into_raw`.
        drop(unsafe { Box::from_raw(write) });
    }));
}

/// # Safety
/// As for [`write_start`].
pub(super) unsafe extern "C" fn execute_start(
    session: *const Session,
    workers: Text,
    sql: Text,
    execution: *mut *mut Execution,
    error: *mut Buffer,
) -> Status {
    // SAFETY: the caller's promise.
    unsafe {
        guard(error, || {
            let started = (*session).0.execute(worker_list(workers.get()?)?, sql.get()?)?;
            execution.write(Box::into_raw(Box::new(started)));
            Ok(Status::Ok)
        })
    }
}

/// # Safety
/// As for [`write_start`]. There is room for as many counts as there are workers.
pub(super) unsafe extern "C" fn execute_wait(
    execution: *const Execution,
    timeout_ms: u32,
    rows: *mut u64,
    error: *mut Buffer,
) -> Status {
    // SAFETY: the caller's promise.
    unsafe {
        guard(error, || {
            Ok(match (*execution).wait(Duration::from_millis(timeout_ms.into()))? {
                Progress::Done(counts) => {
                    for (place, count) in counts.into_iter().enumerate() {
                        rows.add(place).write(count);
                    }
                    Status::Ok
                }
                Progress::Pending => Status::Pending,
            })
        })
    }
}

/// # Safety
/// The handle is one of ours, freed once.
pub(super) unsafe extern "C" fn execute_free(execution: *mut Execution) {
    let _ = catch_unwind(AssertUnwindSafe(|| {
        // SAFETY: made by `Box::into_raw`.
        drop(unsafe { Box::from_raw(execution) });
    }));
}
