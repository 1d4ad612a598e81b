//! The workers of an attached coordinator.

use super::remote::DhRemote;
use super::{DhBuffer, DhInterrupt, DhStatus, DhText, guard};
use crate::herd;

/// Makes the duckling at an address a worker; its id goes to `id`, its address to `address`.
///
/// # Safety
/// `remote` is live, `worker` is valid for the call; the outputs are places for one each.
pub(super) unsafe extern "C" fn worker_register(
    remote: *const DhRemote,
    worker: DhText,
    interrupt: DhInterrupt,
    id: *mut DhBuffer,
    address: *mut DhBuffer,
    error: *mut DhBuffer,
) -> DhStatus {
    guard(error, || {
        // SAFETY: the caller's promise.
        let (remote, worker) = unsafe { (&(*remote).0, worker.to_owned()?) };
        let registered = herd::register_worker(&interrupt, remote, &worker)?;
        // SAFETY: the caller's promise.
        unsafe {
            id.write(DhBuffer::new(registered.0));
            address.write(DhBuffer::new(registered.1));
        }
        Ok(DhStatus::DhOk)
    })
}

/// Takes a worker, named by its id or its address, out of the herd, one that is `lost` with its rows; its id goes to `id`,
/// its address to `address`.
///
/// # Safety
/// As for [`worker_register`].
pub(super) unsafe extern "C" fn worker_unregister(
    remote: *const DhRemote,
    worker: DhText,
    lost: bool,
    interrupt: DhInterrupt,
    id: *mut DhBuffer,
    address: *mut DhBuffer,
    error: *mut DhBuffer,
) -> DhStatus {
    guard(error, || {
        // SAFETY: the caller's promise.
        let (remote, worker) = unsafe { (&(*remote).0, worker.to_owned()?) };
        let unregistered = herd::unregister_worker(&interrupt, remote, &worker, lost)?;
        // SAFETY: the caller's promise.
        unsafe {
            id.write(DhBuffer::new(unregistered.0));
            address.write(DhBuffer::new(unregistered.1));
        }
        Ok(DhStatus::DhOk)
    })
}

/// How many workers statements can use.
///
/// # Safety
/// `remote` is live; the outputs are places for one each.
pub(super) unsafe extern "C" fn worker_count(
    remote: *const DhRemote,
    interrupt: DhInterrupt,
    count: *mut u64,
    error: *mut DhBuffer,
) -> DhStatus {
    guard(error, || {
        // SAFETY: the caller's promise.
        let remote = unsafe { &(*remote).0 };
        let counted = herd::worker_count(&interrupt, remote)?;
        // SAFETY: the caller's promise.
        unsafe { count.write(counted) };
        Ok(DhStatus::DhOk)
    })
}
