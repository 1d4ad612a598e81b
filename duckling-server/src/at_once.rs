//! Statements that run on the network's threads.
//!
//! To hand a statement to a thread that may block, and its answer back, takes about as long as it takes to look a row up:
//! other threads have to be woken, and may have to wait for a core. So a statement that is [known to be
//! short](crate::session::Lease::is_short) runs where its request arrived, and its whole answer leaves with one write.
//!
//! At most one of the network's threads does that at a time, and others are there for everybody else. If a statement has
//! taken longer than it should, for a slow disk maybe, none is run like that for a while.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use duckherder_proto::{ExceptionType, RemoteError};
use tokio::runtime::{Handle, RuntimeFlavor};

/// What a short statement may take.
const SHORT: Duration = Duration::from_millis(2);

/// After one that took longer, none is run for so many times what it took.
const PAUSE_FACTOR: u32 = 10;

/// Decides where a server's statements run.
#[derive(Default)]
pub struct AtOnce(Mutex<State>);

#[derive(Default)]
struct State {
    /// One is running.
    is_taken: bool,
    not_before: Option<Instant>,
}

impl AtOnce {
    /// Runs `work` on this thread. `None` if something speaks against it: then it has not been run. A panic in it is an error.
    pub fn run<T>(&self, work: impl FnOnce() -> Result<T, RemoteError>) -> Option<Result<T, RemoteError>> {
        let taken = self.take()?;
        let outcome = catch_unwind(AssertUnwindSafe(work));
        drop(taken);
        Some(outcome.unwrap_or_else(|_| {
            Err(RemoteError::new(
                ExceptionType::Io,
                "the server failed while running this statement",
            ))
        }))
    }

    fn take(&self) -> Option<Taken<'_>> {
        let mut state = self.lock();
        let now = Instant::now();
        if state.is_taken || state.not_before.is_some_and(|not_before| now < not_before) || !has_other_threads() {
            return None;
        }
        state.is_taken = true;
        Some(Taken { of: self, started: now })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Of one statement, as long as it runs.
struct Taken<'a> {
    of: &'a AtOnce,
    started: Instant,
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        let mut state = self.of.lock();
        state.is_taken = false;
        let took = self.started.elapsed();
        if took > SHORT {
            state.not_before = Instant::now().checked_add(PAUSE_FACTOR * took);
        }
    }
}

fn has_other_threads() -> bool {
    Handle::try_current().is_ok_and(|runtime| {
        runtime.runtime_flavor() == RuntimeFlavor::MultiThread && runtime.metrics().num_workers() > 1
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::thread;

    use super::*;

    fn runtime(threads: usize) -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(threads)
            .enable_time()
            .build()
            .unwrap()
    }

    /// Runs something that takes so long, in a task; whether it was run.
    async fn runs(at_once: &Arc<AtOnce>, takes: Duration) -> bool {
        let at_once = Arc::clone(at_once);
        let task = tokio::spawn(async move {
            at_once.run(|| {
                thread::sleep(takes);
                Ok(())
            })
        });
        task.await.unwrap().is_some()
    }

    #[test]
    fn one_that_was_not_short_stops_it_for_a_while() {
        runtime(2).block_on(async {
            let at_once = Arc::new(AtOnce::default());
            let takes = Duration::from_millis(200);
            assert!(runs(&at_once, takes).await);
            assert!(!runs(&at_once, Duration::ZERO).await);
            tokio::time::sleep(PAUSE_FACTOR * takes * 2).await;
            assert!(runs(&at_once, Duration::ZERO).await);
        });
    }

    #[test]
    fn one_runs_at_a_time() {
        runtime(3).block_on(async {
            let at_once = Arc::new(AtOnce::default());
            let taken = at_once.take().unwrap();
            assert!(!runs(&at_once, Duration::ZERO).await);
            drop(taken);
            assert!(!at_once.lock().is_taken);
        });
    }

    #[test]
    fn the_only_thread_is_not_taken() {
        runtime(1).block_on(async {
            assert!(!runs(&Arc::default(), Duration::ZERO).await);
        });
    }

    #[test]
    fn a_panic_is_an_error() {
        runtime(2).block_on(async {
            let at_once = AtOnce::default();
            let outcome = at_once.run::<()>(|| panic!("expected"));
            assert_eq!(outcome.unwrap().unwrap_err().kind, ExceptionType::Io);
            assert!(!at_once.lock().is_taken);
        });
    }
}
