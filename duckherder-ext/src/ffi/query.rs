//! Statements and their rows.

use arrow::array::{Array, StructArray};
use arrow::ffi::{FFI_ArrowArray, FFI_ArrowSchema};
use duckherder_proto::ExceptionType;
use duckherder_proto::types::type_text;

use super::catalog::{DhColumns, columns};
use super::remote::DhSession;
use super::types::{DhWaker, OwnedWaker};
use super::{DhBuffer, DhInterrupt, DhStatus, DhText, guard};
use crate::error::ExtError;
use crate::scan::{Group, Scan};
use crate::session::Access;

/// A result being read.
pub struct DhScan(Scan);

/// Batches of a result that one thread reads.
pub struct DhGroup(Group);

/// An Arrow schema, `struct ArrowSchema` of the C data interface.
pub type ArrowSchema = FFI_ArrowSchema;

/// An Arrow array, `struct ArrowArray` of the C data interface.
pub type ArrowArray = FFI_ArrowArray;

/// Starts a statement and waits for its result's schema. `typed` is the user's text, if the statement was made of that alone,
/// and empty otherwise.
///
/// # Safety
/// `session` is live, the texts are valid for the call, `scan` and `error` are places for one each.
pub(super) unsafe extern "C" fn scan_start(
    session: *const DhSession,
    sql: DhText,
    typed: DhText,
    transactional: bool,
    writes: bool,
    interrupt: DhInterrupt,
    scan: *mut *mut DhScan,
    error: *mut DhBuffer,
) -> DhStatus {
    guard(error, || {
        // SAFETY: the caller's promise.
        let (session, sql, typed) = unsafe { (&(*session).0, sql.to_owned()?, typed.to_owned()?) };
        let typed = (!typed.is_empty()).then_some(typed.as_str());
        let access = if writes { Access::Write } else { Access::Read };
        let started = session.start(&interrupt, &sql, typed, transactional, access)?;
        // SAFETY: the caller's promise.
        unsafe { scan.write(Box::into_raw(Box::new(DhScan(started)))) };
        Ok(DhStatus::DhOk)
    })
}

/// The columns that a statement's result will most likely have, if it was sent ahead: a result of these without rows. Else
/// `DhEnd`.
///
/// # Safety
/// `session` is live, `sql` is valid for the call, `scan` and `error` are places for one each.
pub(super) unsafe extern "C" fn scan_foreseen(
    session: *const DhSession,
    sql: DhText,
    scan: *mut *mut DhScan,
    error: *mut DhBuffer,
) -> DhStatus {
    guard(error, || {
        // SAFETY: the caller's promise.
        let (session, sql) = unsafe { (&(*session).0, sql.to_owned()?) };
        let Some(schema) = session.foreseen_columns(&sql) else {
            return Ok(DhStatus::DhEnd);
        };
        // SAFETY: the caller's promise.
        unsafe { scan.write(Box::into_raw(Box::new(DhScan(Scan::of_columns(schema))))) };
        Ok(DhStatus::DhOk)
    })
}

/// Whether two results have the same columns.
///
/// # Safety
/// Both are live.
pub(super) unsafe extern "C" fn scan_has_columns_of(scan: *const DhScan, other: *const DhScan) -> bool {
    // SAFETY: the caller's promise.
    unsafe { (*scan).0.schema() == (*other).0.schema() }
}

/// Whether all of a result is there, and one group at most.
///
/// # Safety
/// `scan` is live.
pub(super) unsafe extern "C" fn scan_is_one_group(scan: *const DhScan) -> bool {
    // SAFETY: the caller's promise.
    unsafe { &(*scan).0 }.is_one_group()
}

/// Reads the query history.
///
/// # Safety
/// `scan` and `error` are places for one each.
pub(super) unsafe extern "C" fn scan_history(scan: *mut *mut DhScan, error: *mut DhBuffer) -> DhStatus {
    guard(error, || {
        let history = Scan::history()?;
        // SAFETY: the caller's promise.
        unsafe { scan.write(Box::into_raw(Box::new(DhScan(history)))) };
        Ok(DhStatus::DhOk)
    })
}

/// The Arrow schema of a result; the caller releases it.
///
/// # Safety
/// `scan` is live; `schema` is a place for one, and so is `error`.
pub(super) unsafe extern "C" fn scan_schema(
    scan: *const DhScan,
    schema: *mut ArrowSchema,
    error: *mut DhBuffer,
) -> DhStatus {
    guard(error, || {
        // SAFETY: the caller's promise.
        let scan = unsafe { &(*scan).0 };
        let exported = FFI_ArrowSchema::try_from(scan.schema().as_ref())
            .map_err(|error| ExtError::new(ExceptionType::Serialization, error.to_string()))?;
        // SAFETY: the caller's promise.
        unsafe { schema.write(exported) };
        Ok(DhStatus::DhOk)
    })
}

/// The DuckDB type text of a result column, valid as long as the result; empty if the Arrow type says it all.
///
/// # Safety
/// `scan` is live.
pub(super) unsafe extern "C" fn scan_type_text(scan: *const DhScan, column: usize) -> DhText {
    // SAFETY: the caller's promise.
    let scan = unsafe { &(*scan).0 };
    let text = scan
        .schema()
        .fields()
        .get(column)
        .and_then(|field| type_text(field))
        .unwrap_or("");
    DhText::of(text)
}

/// The next group of batches, for one thread. `DhEnd` after the last one.
///
/// # Safety
/// `scan` is live; the outputs are places for one each.
pub(super) unsafe extern "C" fn scan_next(
    scan: *const DhScan,
    interrupt: DhInterrupt,
    group: *mut *mut DhGroup,
    error: *mut DhBuffer,
) -> DhStatus {
    guard(error, || {
        // SAFETY: the caller's promise.
        let next = unsafe { &(*scan).0 }.next(&interrupt)?;
        // SAFETY: the caller's promise.
        Ok(unsafe { hand_out(next, group) })
    })
}

/// As [`scan_next`], but `DhPending` instead of waiting: then `waker` is called.
///
/// # Safety
/// As for [`scan_next`]; `waker` is as documented with [`DhWaker`].
pub(super) unsafe extern "C" fn scan_next_or_wake(
    scan: *const DhScan,
    waker: DhWaker,
    group: *mut *mut DhGroup,
    error: *mut DhBuffer,
) -> DhStatus {
    guard(error, || {
        let waker = OwnedWaker::new(waker);
        // SAFETY: the caller's promise.
        let scan = unsafe { &(*scan).0 };
        let Some(next) = scan.next_or_wake(Box::new(move || waker.wake()))? else {
            return Ok(DhStatus::DhPending);
        };
        // SAFETY: the caller's promise.
        Ok(unsafe { hand_out(next, group) })
    })
}

/// # Safety
/// `group` is a place for one.
unsafe fn hand_out(next: Option<Group>, group: *mut *mut DhGroup) -> DhStatus {
    let Some(next) = next else { return DhStatus::DhEnd };
    // SAFETY: the caller's promise.
    unsafe { group.write(Box::into_raw(Box::new(DhGroup(next)))) };
    DhStatus::DhOk
}

/// The place of a group in its result: 0, 1, 2 …
///
/// # Safety
/// `group` is live.
pub(super) unsafe extern "C" fn group_index(group: *const DhGroup) -> u64 {
    // SAFETY: the caller's promise.
    unsafe { &(*group).0 }.index()
}

/// Takes the next batch out of a group: a struct array the caller releases. `DhEnd` after the last one.
///
/// # Safety
/// `group` is live and used by one thread at a time; the outputs are places for one each.
pub(super) unsafe extern "C" fn group_next(
    group: *mut DhGroup,
    array: *mut ArrowArray,
    error: *mut DhBuffer,
) -> DhStatus {
    guard(error, || {
        // SAFETY: the caller's promise.
        let Some(batch) = unsafe { &mut (*group).0 }.next() else {
            return Ok(DhStatus::DhEnd);
        };
        let exported = FFI_ArrowArray::new(&StructArray::from(batch).to_data());
        // SAFETY: the caller's promise.
        unsafe { array.write(exported) };
        Ok(DhStatus::DhOk)
    })
}

/// Lets go of a group.
///
/// # Safety
/// `group` is null or came from this library, and is not used again.
pub(super) unsafe extern "C" fn group_free(group: *mut DhGroup) {
    if !group.is_null() {
        guard(std::ptr::null_mut(), || {
            // SAFETY: made by `Box::into_raw`, freed once.
            drop(unsafe { Box::from_raw(group) });
            Ok(DhStatus::DhOk)
        });
    }
}

/// Rows handed out so far.
///
/// # Safety
/// `scan` is live.
pub(super) unsafe extern "C" fn scan_rows_read(scan: *const DhScan) -> u64 {
    // SAFETY: the caller's promise.
    unsafe { &(*scan).0 }.rows_read()
}

/// How far the statement is, from 0 to 1, as the duckling estimates it; -1 if that is not known.
///
/// # Safety
/// `scan` is live.
pub(super) unsafe extern "C" fn scan_progress(scan: *const DhScan) -> f64 {
    let mut fraction = -1.0;
    guard(std::ptr::null_mut(), || {
        // SAFETY: the caller's promise.
        fraction = unsafe { &(*scan).0 }.progress().unwrap_or(-1.0);
        Ok(DhStatus::DhOk)
    });
    fraction
}

/// Ends a result; the statement is cancelled if it still runs.
///
/// # Safety
/// `scan` is null or came from this library, and is not used again.
pub(super) unsafe extern "C" fn scan_free(scan: *mut DhScan) {
    if !scan.is_null() {
        guard(std::ptr::null_mut(), || {
            // SAFETY: made by `Box::into_raw`, freed once.
            drop(unsafe { Box::from_raw(scan) });
            Ok(DhStatus::DhOk)
        });
    }
}

/// The columns of a statement's result, without running it.
///
/// # Safety
/// `session` is live, `sql` is valid for the call, the outputs are places for one each.
pub(super) unsafe extern "C" fn describe(
    session: *const DhSession,
    sql: DhText,
    interrupt: DhInterrupt,
    described: *mut *mut DhColumns,
    error: *mut DhBuffer,
) -> DhStatus {
    guard(error, || {
        // SAFETY: the caller's promise.
        let (session, sql) = unsafe { (&(*session).0, sql.to_owned()?) };
        let description = session.describe(&interrupt, &sql)?;
        // SAFETY: the caller's promise.
        unsafe { described.write(columns(description)) };
        Ok(DhStatus::DhOk)
    })
}
