//! How far a statement is that runs on a duckling, for DuckDB's progress bar.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use duckherder_client::Session;

use crate::remote::Remote;
use crate::runtime;

/// A statement that takes less is not asked for.
const FIRST_LOOK: Duration = Duration::from_millis(400);

/// How often the duckling is asked, as long as somebody wants to know.
const LOOK_INTERVAL: Duration = Duration::from_millis(200);

/// How long its answer is waited for.
const LOOK_TIMEOUT: Duration = Duration::from_secs(2);

/// Asks the duckling while the statement runs. Nobody waits for the answers: what is told is the last one.
pub struct Progress {
    remote: Arc<Remote>,
    session: Session,
    statement_id: u64,
    next_look: Mutex<Instant>,
    last: Arc<Last>,
}

#[derive(Default)]
struct Last {
    /// Of an `f64`, from 0 to 1; those of -1 if it is not known.
    bits: AtomicU64,
    is_asked: AtomicBool,
}

impl Progress {
    /// Of a statement that has just begun in a session of `remote`.
    pub fn new(remote: Arc<Remote>, session: Session, statement_id: u64) -> Self {
        let last = Last::default();
        last.bits.store((-1.0_f64).to_bits(), Ordering::Relaxed);
        Self {
            remote,
            session,
            statement_id,
            next_look: Mutex::new(Instant::now() + FIRST_LOOK),
            last: Arc::new(last),
        }
    }

    /// How far it is, from 0 to 1, as the duckling said last; `None` if it does not know, or has not said yet.
    pub fn fraction(&self) -> Option<f64> {
        self.look();
        let fraction = f64::from_bits(self.last.bits.load(Ordering::Relaxed));
        (fraction >= 0.0).then_some(fraction)
    }

    fn look(&self) {
        let now = Instant::now();
        {
            let mut next_look = self.next_look.lock().unwrap_or_else(PoisonError::into_inner);
            if now < *next_look {
                return;
            }
            *next_look = now + LOOK_INTERVAL;
        }
        // In a forked child the session is the parent's.
        if self.remote.check_process().is_err() || self.last.is_asked.swap(true, Ordering::Relaxed) {
            return;
        }
        let (session, statement_id, last) = (self.session.clone(), self.statement_id, Arc::clone(&self.last));
        let ask = async move {
            let asked = tokio::time::timeout(LOOK_TIMEOUT, session.progress(statement_id)).await;
            if let Ok(Ok(Some(fraction))) = asked {
                last.bits.store(fraction.to_bits(), Ordering::Relaxed);
            }
            last.is_asked.store(false, Ordering::Relaxed);
        };
        match runtime::handle() {
            Ok(handle) => drop(handle.spawn(ask)),
            Err(_) => self.last.is_asked.store(false, Ordering::Relaxed),
        }
    }
}
