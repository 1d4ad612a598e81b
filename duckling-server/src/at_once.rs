//! Statements that run on the network's threads.
//!
//! To hand a statement to a thread that may block, and its answer back, takes about as long as it takes to look a row up:
//! other threads have to be woken, and may have to wait for a core. So a statement that is known to be short runs where its
//! request arrived, and its whole answer leaves with one write.
//!
//! At most one of the network's threads does that at a time, and others are there for everybody else. If a statement has
//! taken longer than it should, for a slow disk maybe, none is run like that for a while.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

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
    /// Runs what does not wait for this task: here, if it `is_short` and nothing speaks against it, and else on a thread
    /// that may block. A panic in it stays there.
    pub fn run(&self, is_short: bool, work: impl FnOnce() + Send + 'static) {
        match is_short.then(|| self.take()).flatten() {
            Some(taken) => {
                // As on a thread of its own: what `work` owned says that it has not ended well.
                let _ = catch_unwind(AssertUnwindSafe(work));
                drop(taken);
            }
            None => drop(tokio::task::spawn_blocking(work)),
        }
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
    use std::sync::mpsc;
    use std::thread::{self, ThreadId};

    use super::*;

    fn runtime(threads: usize) -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(threads)
            .enable_time()
            .build()
            .unwrap()
    }

    /// Runs something that takes so long, in a task; whether it was on the task's own thread.
    async fn runs_here(at_once: &Arc<AtOnce>, is_short: bool, takes: Duration) -> bool {
        let at_once = Arc::clone(at_once);
        let task = tokio::spawn(async move {
            let (sender, receiver) = mpsc::channel::<ThreadId>();
            at_once.run(is_short, move || {
                thread::sleep(takes);
                sender.send(thread::current().id()).unwrap();
            });
            receiver.recv().unwrap() == thread::current().id()
        });
        task.await.unwrap()
    }

    #[test]
    fn what_is_short_runs_here() {
        runtime(2).block_on(async {
            let at_once = Arc::new(AtOnce::default());
            assert!(runs_here(&at_once, true, Duration::ZERO).await);
            assert!(!runs_here(&at_once, false, Duration::ZERO).await);
        });
    }

    #[test]
    fn one_that_was_not_short_stops_it_for_a_while() {
        runtime(2).block_on(async {
            let at_once = Arc::new(AtOnce::default());
            let takes = Duration::from_millis(200);
            assert!(runs_here(&at_once, true, takes).await);
            assert!(!runs_here(&at_once, true, Duration::ZERO).await);
            tokio::time::sleep(PAUSE_FACTOR * takes * 2).await;
            assert!(runs_here(&at_once, true, Duration::ZERO).await);
        });
    }

    #[test]
    fn one_runs_at_a_time() {
        runtime(3).block_on(async {
            let at_once = Arc::new(AtOnce::default());
            let taken = at_once.take().unwrap();
            assert!(!runs_here(&at_once, true, Duration::ZERO).await);
            drop(taken);
            assert!(!at_once.lock().is_taken);
        });
    }

    #[test]
    fn the_only_thread_is_not_taken() {
        runtime(1).block_on(async {
            assert!(!runs_here(&Arc::default(), true, Duration::ZERO).await);
        });
    }

    #[test]
    fn a_panic_stays_there() {
        runtime(2).block_on(async {
            let at_once = Arc::new(AtOnce::default());
            let of_task = Arc::clone(&at_once);
            let task = tokio::spawn(async move { of_task.run(true, || panic!("expected")) });
            task.await.unwrap();
            assert!(!at_once.lock().is_taken);
        });
    }
}
