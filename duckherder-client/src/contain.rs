//! Panic containment, for code that panics on what a peer sends.
//!
//! Two libraries on the way do: arrow's IPC reader on some malformed batches, tonic on a status whose details are not
//! base64. A broken or hostile server must not take the caller's thread down, so both are called through here.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

use futures::FutureExt;

/// What a contained panic said.
#[derive(Debug)]
pub(crate) struct Panicked(pub(crate) String);

impl Panicked {
    fn of(payload: &(dyn Any + Send)) -> Self {
        let text = payload.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| payload.downcast_ref::<&str>().copied());
        Self(format!("it cannot be read ({})", text.unwrap_or("no reason given")))
    }
}

/// Runs `work`, which must leave nothing behind that is used after a panic.
pub(crate) fn contained<T>(work: impl FnOnce() -> T) -> Result<T, Panicked> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|payload| Panicked::of(payload.as_ref()))
}

/// [`contained`], for a future.
pub(crate) async fn contained_async<T>(work: impl Future<Output = T>) -> Result<T, Panicked> {
    AssertUnwindSafe(work)
        .catch_unwind()
        .await
        .map_err(|payload| Panicked::of(payload.as_ref()))
}
