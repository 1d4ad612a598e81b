//! Which statements may run: so many at once, and fewer the more of DuckDB's memory those hold that run.
//!
//! DuckDB writes what it cannot keep to disk, but every statement that sorts, joins or aggregates needs some memory that it
//! cannot give away. When too many of them share it they fail, or write and read all the time. How much memory a statement
//! is going to take shows only once it runs. So few begin at the same time, and who comes later waits while those that
//! run hold more than leaves room for another one. A few always run, whatever they hold: one large query does not keep the
//! others waiting.
//!
//! Who waits here holds nothing that a running statement could need: neither a connection nor a place.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use duckherder_proto::{ExceptionType, RemoteError};
use tokio::sync::{Mutex as AsyncMutex, Notify, OwnedSemaphorePermit, Semaphore};

use crate::config::Limits;
use crate::duckdb::HeldMemory;

/// Statements that may run even if they hold all memory. DuckDB promises each of their operators a sixteenth of it.
const STATEMENTS_MIN: usize = 4;

/// Memory of which statements hold less than one part in so many is not short.
const MEMORY_SHORT_SHARE: u64 = 10;

/// Statements that may be in their beginnings at once; more if there are more cores.
const BEGINNING_MAX: usize = 16;

/// How long a beginning takes: until it shows what memory the statement takes.
const BEGINNING: Duration = Duration::from_millis(50);

/// How often memory is looked at, at most, and who waits for it looks again.
const LOOK_INTERVAL: Duration = Duration::from_millis(5);

/// Tells what statements hold of DuckDB's memory.
pub type Gauge = Box<dyn Fn() -> Result<HeldMemory, RemoteError> + Send + Sync>;

/// Statements that may run at once while those that run hold this much.
fn statements_max(memory: HeldMemory) -> usize {
    if memory.held < memory.limit / MEMORY_SHORT_SHARE {
        return usize::MAX;
    }
    let room = (STATEMENTS_MIN as u128) * u128::from(memory.limit) / u128::from(memory.held.max(1));
    usize::try_from(room).unwrap_or(usize::MAX).max(STATEMENTS_MIN)
}

/// See the module.
pub struct Admission {
    places: Arc<Semaphore>,
    places_max: usize,
    wait_timeout: Duration,
    beginning_max: usize,
    /// Whose turn it is to wait for memory: first come, first served.
    turn: AsyncMutex<()>,
    gauge: Gauge,
    /// As it was last looked at.
    memory: Mutex<Option<(Instant, HeldMemory)>>,
    running: Arc<Running>,
}

impl Admission {
    /// With the limits of the server.
    pub fn new(limits: &Limits, gauge: Gauge) -> Self {
        Self {
            places: Arc::new(Semaphore::new(limits.statements_max)),
            places_max: limits.statements_max,
            wait_timeout: limits.statement_wait_timeout,
            beginning_max: std::thread::available_parallelism()
                .map_or(BEGINNING_MAX, |cores| cores.get().max(BEGINNING_MAX)),
            turn: AsyncMutex::default(),
            gauge,
            memory: Mutex::default(),
            running: Arc::default(),
        }
    }

    /// A place for what must not wait for memory, as somebody who has some waits for it: a statement of an open
    /// transaction, a part of a distributed query; or for what takes next to none, such as an upload.
    ///
    /// # Errors
    /// None became free in time.
    pub async fn part(&self) -> Result<Admitted, RemoteError> {
        let place = tokio::time::timeout(self.wait_timeout, self.place()).await;
        let place = place.unwrap_or_else(|_| Err(self.refusal()))?;
        Ok(Admitted {
            _place: place,
            entry: None,
        })
    }

    /// A place for a statement, when there is memory for it.
    ///
    /// # Errors
    /// There was no place, or no memory, in time.
    pub async fn statement(&self) -> Result<Admitted, RemoteError> {
        if let Ok(_turn) = self.turn.try_lock()
            && let Ok(place) = Arc::clone(&self.places).try_acquire_owned()
            && let Some(entry) = self.enter()
        {
            return Ok(Admitted {
                _place: place,
                entry: Some(entry),
            });
        }
        let admitted = tokio::time::timeout(self.wait_timeout, self.wait()).await;
        admitted.unwrap_or_else(|_| Err(self.refusal()))
    }

    async fn wait(&self) -> Result<Admitted, RemoteError> {
        let _turn = self.turn.lock().await;
        loop {
            let place = self.place().await?;
            if let Some(entry) = self.enter() {
                return Ok(Admitted {
                    _place: place,
                    entry: Some(entry),
                });
            }
            drop(place);
            // Memory becomes free when a statement ends, but also while it runs.
            let _ = tokio::time::timeout(LOOK_INTERVAL, self.running.fewer.notified()).await;
        }
    }

    async fn place(&self) -> Result<OwnedSemaphorePermit, RemoteError> {
        // Nobody closes the semaphore.
        let place = Arc::clone(&self.places).acquire_owned().await;
        place.map_err(|_| self.refusal())
    }

    /// Counts a statement in, if there is memory for it.
    fn enter(&self) -> Option<Entry> {
        let runs_max = if self.running.lock().count < STATEMENTS_MIN {
            STATEMENTS_MIN
        } else {
            self.look().map_or(usize::MAX, statements_max)
        };
        self.running.enter(runs_max, self.beginning_max)
    }

    /// What is held now, or was a moment ago. `None` if it cannot be told.
    fn look(&self) -> Option<HeldMemory> {
        let mut memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        if let Some((looked, held)) = *memory
            && now.duration_since(looked) < LOOK_INTERVAL
        {
            return Some(held);
        }
        let held = (self.gauge)().ok()?;
        *memory = Some((now, held));
        Some(held)
    }

    /// The error of who has waited too long.
    fn refusal(&self) -> RemoteError {
        let seconds = self.wait_timeout.as_secs();
        if self.places.available_permits() > 0
            && let Some(HeldMemory { held, limit }) = self.look()
        {
            return RemoteError::new(
                ExceptionType::OutOfMemory,
                format!(
                    "the statements that run on the duckling hold {} MiB of DuckDB's {} MiB of memory, and have not left \
                     enough for this one within {seconds} s; try again later",
                    held >> 20,
                    limit >> 20
                ),
            );
        }
        RemoteError::new(
            ExceptionType::Connection,
            format!(
                "the duckling runs {} statements, its limit, and none ended within {seconds} s; try again later",
                self.places_max
            ),
        )
    }
}

/// The statements that count.
#[derive(Default)]
struct Running {
    state: Mutex<State>,
    /// Notified when one fewer counts.
    fewer: Notify,
}

#[derive(Default)]
struct State {
    /// Statements that run, without those that wait for their readers.
    count: usize,
    /// Those in their beginnings: number, and when they were let in.
    beginning: VecDeque<(u64, Instant)>,
    /// The number of the statement let in last.
    entered: u64,
}

impl Running {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn enter(self: &Arc<Self>, runs_max: usize, beginning_max: usize) -> Option<Entry> {
        let mut state = self.lock();
        let now = Instant::now();
        while let Some((_, since)) = state.beginning.front()
            && now.duration_since(*since) >= BEGINNING
        {
            state.beginning.pop_front();
        }
        if state.count >= runs_max || state.beginning.len() >= beginning_max {
            return None;
        }
        state.count += 1;
        state.entered += 1;
        let number = state.entered;
        state.beginning.push_back((number, now));
        Some(Entry {
            running: Arc::clone(self),
            number,
        })
    }
}

/// A statement that counts, until it is dropped.
struct Entry {
    running: Arc<Running>,
    number: u64,
}

impl Drop for Entry {
    fn drop(&mut self) {
        let mut state = self.running.lock();
        state.count = state.count.saturating_sub(1);
        state.beginning.retain(|(number, _)| *number != self.number);
        drop(state);
        self.running.fewer.notify_one();
    }
}

/// A statement may run for as long as this is there.
pub struct Admitted {
    _place: OwnedSemaphorePermit,
    entry: Option<Entry>,
}

impl Admitted {
    /// For whoever makes the statement wait for its reader. `None` if the statement does not count.
    #[must_use]
    pub fn pauses(&self) -> Option<Pauses> {
        self.entry.as_ref().map(|entry| Pauses(Arc::clone(&entry.running)))
    }
}

/// Tells that a statement waits for its reader, for as long as that likes: meanwhile it does not count, as it takes no more
/// memory.
pub struct Pauses(Arc<Running>);

impl Pauses {
    /// It waits until the returned value is dropped.
    #[must_use]
    pub fn pause(&self) -> Paused<'_> {
        let mut state = self.0.lock();
        state.count = state.count.saturating_sub(1);
        drop(state);
        self.0.fewer.notify_one();
        Paused(&self.0)
    }
}

/// A statement that waits for its reader.
pub struct Paused<'a>(&'a Running);

impl Drop for Paused<'_> {
    fn drop(&mut self) {
        self.0.lock().count += 1;
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::sync::atomic::{AtomicU64, Ordering};

    use futures::poll;
    use proptest::prelude::*;

    use super::*;

    const LIMIT: u64 = 1000;

    /// Of a database whose statements hold what the number says, out of [`LIMIT`].
    fn admission(wait_timeout: Duration) -> (Admission, Arc<AtomicU64>) {
        let held = Arc::new(AtomicU64::new(0));
        let told = Arc::clone(&held);
        let gauge = move || {
            Ok(HeldMemory {
                held: told.load(Ordering::SeqCst),
                limit: LIMIT,
            })
        };
        let limits = Limits {
            statements_max: 100,
            statement_wait_timeout: wait_timeout,
            ..Limits::default()
        };
        (Admission::new(&limits, Box::new(gauge)), held)
    }

    async fn several(admission: &Admission, count: usize) -> Vec<Admitted> {
        let mut admitted = Vec::new();
        for _ in 0..count {
            admitted.push(admission.statement().await.unwrap());
        }
        admitted
    }

    proptest! {
        #[test]
        fn the_more_they_hold_the_fewer_may_run(held: u64, more: u32, limit: u64) {
            let now = statements_max(HeldMemory { held, limit });
            let then = statements_max(HeldMemory { held: held.saturating_add(more.into()), limit });
            prop_assert!(then <= now);
            prop_assert!(then >= STATEMENTS_MIN);
        }
    }

    #[tokio::test]
    async fn a_few_run_whatever_they_hold_and_the_next_waits_until_one_ends() {
        let (admission, held) = admission(Duration::from_secs(60));
        held.store(LIMIT, Ordering::SeqCst);
        let mut running = several(&admission, STATEMENTS_MIN).await;
        let mut next = pin!(admission.statement());
        assert!(poll!(&mut next).is_pending());
        // What must not wait does not.
        admission.part().await.unwrap();
        running.pop();
        next.await.unwrap();
    }

    #[tokio::test]
    async fn memory_that_becomes_free_lets_the_next_in_and_in_order() {
        let (admission, held) = admission(Duration::from_secs(60));
        held.store(LIMIT, Ordering::SeqCst);
        let _running = several(&admission, STATEMENTS_MIN).await;
        let (mut first, mut second) = (pin!(admission.statement()), pin!(admission.statement()));
        assert!(poll!(&mut first).is_pending());
        assert!(poll!(&mut second).is_pending());
        held.store(0, Ordering::SeqCst);
        assert!(poll!(&mut second).is_pending(), "it is not its turn");
        let _first = first.await.unwrap();
        second.await.unwrap();
    }

    #[tokio::test]
    async fn who_waits_too_long_is_told_why() {
        let (admission, held) = admission(Duration::from_millis(20));
        held.store(LIMIT, Ordering::SeqCst);
        let _running = several(&admission, STATEMENTS_MIN).await;
        let (first, second) = futures::join!(admission.statement(), admission.statement());
        for refused in [first, second] {
            let error = refused.err().unwrap();
            assert_eq!(error.kind, ExceptionType::OutOfMemory, "{error}");
        }
        let mut places = Vec::new();
        while let Ok(place) = admission.part().await {
            places.push(place);
        }
        assert_eq!(places.len(), 100 - STATEMENTS_MIN);
        let error = admission.statement().await.err().unwrap();
        assert_eq!(error.kind, ExceptionType::Connection, "{error}");
    }

    #[tokio::test]
    async fn who_waits_for_a_reader_does_not_count() {
        let (admission, held) = admission(Duration::from_secs(60));
        held.store(LIMIT, Ordering::SeqCst);
        let running = several(&admission, STATEMENTS_MIN).await;
        let pauses = running[0].pauses().unwrap();
        let paused = pauses.pause();
        let _another = admission.statement().await.unwrap();
        let mut next = pin!(admission.statement());
        assert!(poll!(&mut next).is_pending());
        drop(paused);
        assert!(poll!(&mut next).is_pending());
        drop(running);
        next.await.unwrap();
        assert_eq!(admission.running.lock().count, 1);
    }

    #[tokio::test]
    async fn not_too_many_begin_at_once() {
        let (admission, _) = admission(Duration::from_secs(60));
        let began = Instant::now();
        let running = several(&admission, admission.beginning_max + 1).await;
        assert!(began.elapsed() >= BEGINNING);
        drop(running);
        assert!(admission.running.lock().beginning.is_empty());
    }
}
