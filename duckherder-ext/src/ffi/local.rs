//! The ducklings inside this process.

use super::{DhBuffer, DhInterrupt, DhStatus, DhText, guard};
use crate::{history, local_server};

/// Starts the duckling inside this process, and workers for it; its address goes to `address`.
///
/// # Safety
/// `address` and `error` are places for one buffer each.
pub(super) unsafe extern "C" fn local_server_start(
    port: u16,
    workers: u32,
    interrupt: DhInterrupt,
    address: *mut DhBuffer,
    error: *mut DhBuffer,
) -> DhStatus {
    guard(error, || {
        let text = local_server::start(&interrupt, port, workers)?;
        // SAFETY: the caller's promise.
        unsafe { address.write(DhBuffer::new(text)) };
        Ok(DhStatus::DhOk)
    })
}

/// Stops all ducklings inside this process; the address that the server had, empty if there was none, goes to `address`,
/// the number of workers to `workers`.
///
/// # Safety
/// `address`, `workers` and `error` are places for one each.
pub(super) unsafe extern "C" fn local_server_stop(
    interrupt: DhInterrupt,
    address: *mut DhBuffer,
    workers: *mut u64,
    error: *mut DhBuffer,
) -> DhStatus {
    guard(error, || {
        let stopped = local_server::stop(&interrupt)?;
        // SAFETY: the caller's promise.
        unsafe {
            address.write(DhBuffer::new(stopped.server.unwrap_or_default()));
            workers.write(stopped.workers as u64);
        }
        Ok(DhStatus::DhOk)
    })
}

/// Starts a duckling inside this process that is to be somebody's worker; its address goes to `address`.
///
/// # Safety
/// `address` and `error` are places for one buffer each.
pub(super) unsafe extern "C" fn local_worker_start(
    port: u16,
    interrupt: DhInterrupt,
    address: *mut DhBuffer,
    error: *mut DhBuffer,
) -> DhStatus {
    guard(error, || {
        let text = local_server::start_worker(&interrupt, port)?;
        // SAFETY: the caller's promise.
        unsafe { address.write(DhBuffer::new(text)) };
        Ok(DhStatus::DhOk)
    })
}

/// Makes a duckling inside this process a worker of the coordinator at that address, under that id; its own address goes to
/// `address`.
///
/// # Safety
/// The texts are valid for the call; `address` and `error` are places for one buffer each.
pub(super) unsafe extern "C" fn local_worker_join(
    id: DhText,
    coordinator: DhText,
    interrupt: DhInterrupt,
    address: *mut DhBuffer,
    error: *mut DhBuffer,
) -> DhStatus {
    guard(error, || {
        // SAFETY: the caller's promise.
        let (id, coordinator) = unsafe { (id.to_owned()?, coordinator.to_owned()?) };
        let text = local_server::join(&interrupt, &id, &coordinator)?;
        // SAFETY: the caller's promise.
        unsafe { address.write(DhBuffer::new(text)) };
        Ok(DhStatus::DhOk)
    })
}

/// Forgets the query history.
///
/// # Safety
/// `error` is a place for one buffer.
pub(super) unsafe extern "C" fn history_clear(error: *mut DhBuffer) -> DhStatus {
    guard(error, || {
        history::clear();
        Ok(DhStatus::DhOk)
    })
}
