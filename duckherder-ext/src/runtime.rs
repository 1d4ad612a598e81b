//! The process's one async runtime, and waiting on it from DuckDB's threads.
//!
//! Made on first use, never at load: a process may load the extension, fork, and use it in the child only. A child that
//! inherits a used runtime gets a new one, since threads do not survive a fork; what was opened before the fork stays
//! the parent's.

use std::future::Future;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use duckherder_proto::ExceptionType;
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::task::AbortHandle;

use crate::error::{ExtError, Result};

/// At most so many network threads: one for each connection that a large result comes over, unless there are more of these.
/// Decoding batches happens on them.
const WORKER_THREADS_MAX: usize = 4;

/// How often a blocked DuckDB thread looks whether the user has interrupted the query.
pub const INTERRUPT_CHECK_INTERVAL: Duration = Duration::from_millis(20);

/// One where there are few cores: a second would mostly wake the first, and be in the way of DuckDB's.
fn worker_threads() -> usize {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    (cores / 2).clamp(1, WORKER_THREADS_MAX)
}

struct ProcessRuntime {
    process_id: u32,
    runtime: Runtime,
}

/// Leaked, as dropping a runtime would block on, or in a forked child wait for ever for, its threads.
static RUNTIME: Mutex<Option<&'static ProcessRuntime>> = Mutex::new(None);

/// The runtime of this process.
///
/// # Errors
/// If the operating system refuses threads.
pub fn handle() -> Result<Handle> {
    let mut slot = RUNTIME.lock().unwrap_or_else(PoisonError::into_inner);
    let process_id = std::process::id();
    if let Some(current) = *slot
        && current.process_id == process_id
    {
        return Ok(current.runtime.handle().clone());
    }
    let runtime = Builder::new_multi_thread()
        .worker_threads(worker_threads())
        .thread_name("duckherder")
        .enable_all()
        .build()
        .map_err(|error| ExtError::new(ExceptionType::Io, format!("cannot start duckherder's threads: {error}")))?;
    let current: &'static ProcessRuntime = Box::leak(Box::new(ProcessRuntime { process_id, runtime }));
    *slot = Some(current);
    Ok(current.runtime.handle().clone())
}

/// Whether the user has asked for the running query to stop.
pub trait InterruptCheck {
    /// Asked every [`INTERRUPT_CHECK_INTERVAL`] by a waiting thread.
    fn is_interrupted(&self) -> bool;
}

/// For waits that cannot be interrupted, and are bounded otherwise.
pub struct Never;

impl InterruptCheck for Never {
    fn is_interrupted(&self) -> bool {
        false
    }
}

/// A future that runs on the runtime. Dropped, it is too.
pub struct Task<T> {
    outcome: flume::Receiver<Result<T>>,
    task: AbortHandle,
    process_id: u32,
}

/// Has `future` run on the runtime.
///
/// # Errors
/// If the operating system refuses threads.
pub fn spawn<T, F>(future: F) -> Result<Task<T>>
where
    T: Send + 'static,
    F: Future<Output = Result<T>> + Send + 'static,
{
    let (sender, outcome) = flume::bounded(1);
    let task = handle()?.spawn(async move {
        let _ = sender.send(future.await);
    });
    Ok(Task {
        outcome,
        task: task.abort_handle(),
        process_id: std::process::id(),
    })
}

impl<T> Task<T> {
    /// Blocks until the future is done, or the user interrupts: then it is dropped.
    ///
    /// # Errors
    /// The future's own; `INTERRUPT`.
    pub fn wait(self, interrupt: &dyn InterruptCheck) -> Result<T> {
        loop {
            match self.outcome.recv_timeout(INTERRUPT_CHECK_INTERVAL) {
                Ok(outcome) => return outcome,
                Err(flume::RecvTimeoutError::Timeout) if interrupt.is_interrupted() => return Err(interrupted()),
                Err(flume::RecvTimeoutError::Timeout) => {}
                Err(flume::RecvTimeoutError::Disconnected) => {
                    return Err(ExtError::new(
                        ExceptionType::Io,
                        "duckherder's network task ended unexpectedly",
                    ));
                }
            }
        }
    }
}

impl<T> Drop for Task<T> {
    fn drop(&mut self) {
        // In a forked child there is no such task, and its runtime's locks must not be touched.
        if self.process_id == std::process::id() {
            self.task.abort();
        }
    }
}

/// Runs `future` on the runtime and blocks until it is done, or the user interrupts: then it is dropped.
///
/// # Errors
/// The future's own; `INTERRUPT`.
pub fn wait<T, F>(interrupt: &dyn InterruptCheck, future: F) -> Result<T>
where
    T: Send + 'static,
    F: Future<Output = Result<T>> + Send + 'static,
{
    spawn(future)?.wait(interrupt)
}

/// What an interrupted wait reports.
pub fn interrupted() -> ExtError {
    ExtError::new(ExceptionType::Interrupt, "Interrupted!")
}
