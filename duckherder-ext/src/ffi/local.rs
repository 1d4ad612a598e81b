//! The local server.

use super::{DhBuffer, DhInterrupt, DhStatus, guard};
use crate::{history, local_server};

/// Starts the duckling inside this process; its address goes to `address`.
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

/// Stops it; the address it had goes to `address`.
///
/// # Safety
/// `address` and `error` are places for one buffer each.
pub(super) unsafe extern "C" fn local_server_stop(
    interrupt: DhInterrupt,
    address: *mut DhBuffer,
    error: *mut DhBuffer,
) -> DhStatus {
    guard(error, || {
        let text = local_server::stop(&interrupt)?;
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
