//! The queue between the thread that runs a statement and the stream that answers it.
//!
//! Bounded by bytes: a little at first, as most of a result may never be read, and more with what has been. The producer
//! blocks (it is a DuckDB thread), the consumer awaits (it is a gRPC stream, or several that take turns). A consumer that goes
//! away is noticed by the producer at once, and the statement is interrupted.
//!
//! All queues of a server share a bound as well. When that is reached each holds no more than one message, so that every
//! statement goes on as fast as its client reads, and none needs more memory for it.
//!
//! A little is held back for a moment, unless the producer flushes it: the count of a write, its summary and its end leave
//! together, as one write to the network and one wake-up of the client.

use std::collections::VecDeque;
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use duckherder_proto::{ExceptionType, RemoteError};
use tokio::sync::Notify;

use crate::admission::Pauses;
use crate::message::Message;

/// What a queue holds before anything has been read from it.
const FIRST_BYTES_MAX: usize = 2 * 1024 * 1024;

/// Fewer queued bytes than this are held back.
const HELD_BYTES: usize = 64 * 1024;

/// For so long.
const HELD_FOR: Duration = Duration::from_millis(20);

/// What makes queues, and what they hold together.
#[derive(Clone)]
pub struct Queues {
    queue_bytes_max: usize,
    pool: Arc<Pool>,
}

struct Pool {
    bytes: AtomicUsize,
    bytes_max: usize,
}

impl Queues {
    /// Queues that come to hold `queue_bytes_max` bytes each, and about `bytes_max` together.
    pub fn new(queue_bytes_max: usize, bytes_max: usize) -> Self {
        let pool = Arc::new(Pool {
            bytes: AtomicUsize::new(0),
            bytes_max,
        });
        Self { queue_bytes_max, pool }
    }

    /// A new one; one message may always pass, however large.
    #[must_use]
    pub fn open(&self) -> (Producer, Consumer) {
        let state = State {
            messages: VecDeque::new(),
            bytes: 0,
            bytes_max: self.queue_bytes_max.min(FIRST_BYTES_MAX),
            limit: self.queue_bytes_max,
            outcome: None,
            closed: false,
            is_waited_for: false,
            flushed: false,
            is_late: false,
            hurried: false,
            is_for_little: false,
        };
        let shared = Arc::new(Shared {
            state: Mutex::new(state),
            pool: Arc::clone(&self.pool),
            pauses: OnceLock::new(),
            room: Condvar::new(),
            news: Notify::new(),
        });
        (Producer(Arc::clone(&shared)), Consumer(shared))
    }
}

struct State {
    messages: VecDeque<Message>,
    bytes: usize,
    /// So many at the moment.
    bytes_max: usize,
    /// What that grows to.
    limit: usize,
    /// `Some` once the producer is done; the outcome is handed out after the last message.
    outcome: Option<Result<(), RemoteError>>,
    closed: bool,
    /// Its producer waits for room.
    is_waited_for: bool,
    /// What is queued need not be held back.
    flushed: bool,
    /// For a while nothing has come: nothing is held back any more.
    is_late: bool,
    /// The bound has been lifted to free the connection; from now on passing it is an error, not a wait.
    hurried: bool,
    /// Its producer does not wait, as it has little to send.
    is_for_little: bool,
}

struct Shared {
    state: Mutex<State>,
    pool: Arc<Pool>,
    /// Whom to tell that the producer waits.
    pauses: OnceLock<Pauses>,
    room: Condvar,
    /// Tells all that wait: one that is told need not be polled soon, since a client that does not read keeps its stream back.
    news: Notify,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_full(&self, state: &State) -> bool {
        let is_full = || {
            state.bytes >= state.bytes_max
                || (state.bytes > 0 && self.pool.bytes.load(Ordering::Relaxed) >= self.pool.bytes_max)
        };
        !state.is_for_little && is_full()
    }

    /// Whether a producer that waits is to go on. In a queue that does not grow any more it would stop and go for each message,
    /// which wakes threads each time; so it goes on when half of it has been read.
    fn has_room(&self, state: &State) -> bool {
        let grows = state.bytes_max < state.limit;
        !self.is_full(state) && (grows || state.bytes <= state.limit / 2)
    }

    fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        state.messages.clear();
        self.pool
            .bytes
            .fetch_sub(std::mem::take(&mut state.bytes), Ordering::Relaxed);
        if state.is_waited_for {
            self.room.notify_all();
        }
    }
}

/// The statement's end. Dropped without [`Producer::finish`], it reports a failure: never a short result.
pub struct Producer(Arc<Shared>);

/// The client's end.
pub struct Consumer(Arc<Shared>);

/// Asks a producer to stop waiting for its consumer.
#[derive(Clone)]
pub struct Hurry(Arc<Shared>);

/// Ends a queue as its consumer's going away does, while the consumer may still wait for the producer's outcome.
pub struct Close(Arc<Shared>);

impl Producer {
    /// Queues a message, waiting for room.
    ///
    /// # Errors
    /// `INTERRUPT` if the consumer has gone; `Out of Memory` if the queue was hurried and is full.
    pub fn send(&self, message: Message) -> Result<(), RemoteError> {
        let pauses = self.0.pauses.get();
        let mut paused = None;
        let mut waits = false;
        let mut state = self.0.lock();
        // Whoever waits here has something queued, so its own consumer wakes it.
        while !state.closed && !state.hurried && (self.0.is_full(&state) || waits && !self.0.has_room(&state)) {
            waits = true;
            self.flush_locked(&mut state);
            paused = paused.or_else(|| pauses.map(Pauses::pause));
            state.is_waited_for = true;
            state = self.0.room.wait(state).unwrap_or_else(PoisonError::into_inner);
            state.is_waited_for = false;
        }
        if state.closed {
            return Err(RemoteError::new(
                ExceptionType::Interrupt,
                "the client has stopped reading",
            ));
        }
        if state.hurried && self.0.is_full(&state) {
            return Err(RemoteError::new(
                ExceptionType::OutOfMemory,
                format!(
                    "an earlier result of this transaction is still being read and exceeds the {} MiB that the server \
                     buffers for it, or the {} MiB for all; read it to its end before the next statement",
                    state.bytes_max >> 20,
                    self.0.pool.bytes_max >> 20
                ),
            ));
        }
        state.bytes += message.bytes();
        self.0.pool.bytes.fetch_add(message.bytes(), Ordering::Relaxed);
        state.messages.push_back(message);
        state.flushed |= state.is_late || state.bytes >= HELD_BYTES.min(state.bytes_max);
        let wake = state.flushed;
        drop(state);
        if wake {
            self.0.news.notify_waiters();
        }
        Ok(())
    }

    /// Tells `pauses` whenever this end waits for room.
    pub fn set_pauses(&self, pauses: Pauses) {
        let _ = self.0.pauses.set(pauses);
    }

    /// From now on [`Producer::send`] does not wait: for a result of one row at most, or one that is in memory already.
    pub fn expect_little(&self) {
        self.0.lock().is_for_little = true;
    }

    /// Lets the consumer have what is queued at once. To be called before whatever may take time.
    pub fn flush(&self) {
        self.flush_locked(&mut self.0.lock());
    }

    fn flush_locked(&self, state: &mut State) {
        if !state.messages.is_empty() && !state.flushed {
            state.flushed = true;
            self.0.news.notify_waiters();
        }
    }

    /// Whether the consumer has gone.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.0.lock().closed
    }

    /// Ends the stream.
    pub fn finish(self, outcome: Result<(), RemoteError>) {
        self.set_outcome(outcome);
    }

    /// A handle to lift this queue's bound.
    #[must_use]
    pub fn hurry(&self) -> Hurry {
        Hurry(Arc::clone(&self.0))
    }

    fn set_outcome(&self, outcome: Result<(), RemoteError>) {
        self.0.lock().outcome.get_or_insert(outcome);
        self.0.news.notify_waiters();
    }
}

impl Drop for Producer {
    fn drop(&mut self) {
        self.set_outcome(Err(RemoteError::new(
            ExceptionType::Io,
            "the statement ended unexpectedly on the server",
        )));
    }
}

impl Hurry {
    /// From now on the producer does not wait for its consumer, up to `bytes_max` queued bytes.
    pub fn hurry(&self, bytes_max: usize) {
        let mut state = self.0.lock();
        state.hurried = true;
        state.limit = state.limit.max(bytes_max);
        state.bytes_max = state.limit;
        drop(state);
        self.0.room.notify_all();
    }
}

impl Consumer {
    /// The next message, then again and again the outcome: `None` after the last message of a stream that ended well.
    pub async fn next(&self) -> Option<Result<Message, RemoteError>> {
        loop {
            let mut news = pin!(self.0.news.notified());
            // What comes after the look into the queue is news.
            news.as_mut().enable();
            match self.try_next(false) {
                Next::Item(item) => return item,
                Next::Nothing => news.await,
                Next::Held => {
                    // Of what it holds back the producer says nothing.
                    let news = tokio::time::timeout(HELD_FOR, news).await;
                    if news.is_err()
                        && let Next::Item(item) = self.try_next(true)
                    {
                        return item;
                    }
                }
            }
        }
    }

    /// A handle to end the queue early.
    #[must_use]
    pub fn close(&self) -> Close {
        Close(Arc::clone(&self.0))
    }

    fn try_next(&self, held_too: bool) -> Next {
        let mut state = self.0.lock();
        if !state.messages.is_empty() && !state.flushed && state.outcome.is_none() && !held_too {
            return Next::Held;
        }
        if held_too && state.messages.is_empty() {
            state.is_late = true;
        }
        if let Some(message) = state.messages.pop_front() {
            state.bytes -= message.bytes();
            state.bytes_max = state.bytes_max.saturating_add(message.bytes()).min(state.limit);
            self.0.pool.bytes.fetch_sub(message.bytes(), Ordering::Relaxed);
            // One that was waited for takes along what is behind it.
            state.flushed = !state.messages.is_empty();
            if state.is_waited_for && self.0.has_room(&state) {
                self.0.room.notify_all();
            }
            return Next::Item(Some(Ok(message)));
        }
        match state.outcome.clone() {
            // Something may be held back before it is asked for the next time.
            None if !state.is_late => Next::Held,
            None => Next::Nothing,
            Some(outcome) => Next::Item(outcome.err().map(Err)),
        }
    }
}

/// What there is for the consumer.
enum Next {
    /// A message, an error, or the end.
    Item(Option<Result<Message, RemoteError>>),
    /// Nothing, or a little for which more may come in a moment.
    Held,
    /// Nothing; what comes is told at once.
    Nothing,
}

impl Close {
    /// What is queued is dropped, and the producer stops.
    pub fn close(&self) {
        self.0.close();
    }
}

impl Drop for Consumer {
    fn drop(&mut self) {
        self.0.close();
    }
}

#[cfg(test)]
mod tests {
    use std::task::Poll;
    use std::time::Instant;

    use futures::poll;

    use super::*;

    fn bounded(bytes_max: usize) -> (Producer, Consumer) {
        Queues::new(bytes_max, usize::MAX).open()
    }

    fn message(bytes: usize) -> Message {
        Message::of_metadata(vec![0; bytes])
    }

    fn size(message: &Message) -> usize {
        message.bytes()
    }

    #[tokio::test]
    async fn messages_come_in_order_then_the_end() {
        let (producer, consumer) = bounded(10);
        producer.send(message(1)).unwrap();
        producer.send(message(2)).unwrap();
        producer.finish(Ok(()));
        assert_eq!(size(&consumer.next().await.unwrap().unwrap()), 1);
        assert_eq!(size(&consumer.next().await.unwrap().unwrap()), 2);
        assert!(consumer.next().await.is_none());
        assert!(consumer.next().await.is_none());
    }

    #[tokio::test]
    async fn a_little_is_held_for_a_moment_unless_it_is_flushed() {
        let (producer, consumer) = bounded(10 * HELD_BYTES);
        let at_once = |next: Poll<Option<Result<Message, RemoteError>>>| match next {
            Poll::Ready(Some(Ok(message))) => Some(message.bytes()),
            _ => None,
        };
        producer.send(message(1)).unwrap();
        producer.flush();
        assert_eq!(at_once(poll!(pin!(consumer.next()))), Some(1));
        producer.send(message(HELD_BYTES)).unwrap();
        assert_eq!(at_once(poll!(pin!(consumer.next()))), Some(HELD_BYTES));
        producer.send(message(2)).unwrap();
        producer.send(message(3)).unwrap();
        let started = Instant::now();
        assert_eq!(size(&consumer.next().await.unwrap().unwrap()), 2);
        assert!(started.elapsed() >= HELD_FOR);
        assert_eq!(at_once(poll!(pin!(consumer.next()))), Some(3));
        producer.send(message(4)).unwrap();
        assert_eq!(at_once(poll!(pin!(consumer.next()))), None);
        producer.finish(Ok(()));
        assert_eq!(at_once(poll!(pin!(consumer.next()))), Some(4));
        assert!(consumer.next().await.is_none());
    }

    #[tokio::test]
    async fn after_a_while_without_anything_nothing_is_held() {
        let (producer, consumer) = bounded(10 * HELD_BYTES);
        let started = Instant::now();
        assert!(tokio::time::timeout(2 * HELD_FOR, consumer.next()).await.is_err());
        assert!(started.elapsed() >= 2 * HELD_FOR);
        producer.send(message(1)).unwrap();
        assert!(poll!(pin!(consumer.next())).is_ready());
    }

    #[tokio::test]
    async fn who_waits_for_room_holds_nothing_back() {
        let (producer, consumer) = Queues::new(10 * HELD_BYTES, 1).open();
        let waiting = std::thread::spawn(move || {
            for _ in 0..100 {
                producer.send(message(1)).unwrap();
            }
            producer.finish(Ok(()));
        });
        let started = Instant::now();
        let mut count = 0;
        while consumer.next().await.is_some() {
            count += 1;
        }
        waiting.join().unwrap();
        assert_eq!(count, 100);
        assert!(started.elapsed() < 20 * HELD_FOR, "{:?}", started.elapsed());
    }

    #[tokio::test]
    async fn a_full_queue_makes_the_producer_wait_and_a_gone_consumer_wakes_it() {
        let (producer, consumer) = bounded(1);
        producer.send(message(5)).unwrap();
        let waiting = std::thread::spawn(move || producer.send(message(5)));
        drop(consumer);
        assert_eq!(waiting.join().unwrap().unwrap_err().kind, ExceptionType::Interrupt);
    }

    #[tokio::test]
    async fn a_queue_grows_with_what_is_read() {
        let (producer, consumer) = bounded(4 * FIRST_BYTES_MAX);
        let sent = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&sent);
        let sending = std::thread::spawn(move || {
            while producer.send(message(FIRST_BYTES_MAX / 2)).is_ok() {
                count.fetch_add(1, Ordering::SeqCst);
            }
        });
        // Half of the first bound each: 2 at first; what is read makes room for itself and as much again, 8 in the end. Then
        // half is read before there are more.
        for (read, ahead) in [2, 3, 4, 5, 6, 7, 6, 5, 8, 7].into_iter().enumerate() {
            let deadline = Instant::now() + Duration::from_secs(5);
            while sent.load(Ordering::SeqCst) < read + ahead && Instant::now() < deadline {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
            assert_eq!(sent.load(Ordering::SeqCst), read + ahead, "after {read}");
            consumer.next().await.unwrap().unwrap();
        }
        drop(consumer);
        sending.join().unwrap();
    }

    #[tokio::test]
    async fn hurrying_lifts_the_bound_and_keeps_one() {
        let (producer, consumer) = bounded(1);
        producer.send(message(5)).unwrap();
        producer.hurry().hurry(10);
        producer.send(message(5)).unwrap();
        assert_eq!(producer.send(message(5)).unwrap_err().kind, ExceptionType::OutOfMemory);
        assert!(consumer.next().await.unwrap().is_ok());
    }

    #[tokio::test]
    async fn when_all_together_are_full_each_still_holds_one_message() {
        let queues = Queues::new(100, 50);
        let (first, first_consumer) = queues.open();
        let (second, second_consumer) = queues.open();
        first.send(message(60)).unwrap();
        second.send(message(10)).unwrap();
        let waiting = std::thread::spawn(move || {
            second.send(message(10)).unwrap();
            second.finish(Ok(()));
        });
        assert_eq!(size(&second_consumer.next().await.unwrap().unwrap()), 10);
        assert_eq!(size(&second_consumer.next().await.unwrap().unwrap()), 10);
        assert!(second_consumer.next().await.is_none());
        waiting.join().unwrap();
        assert_eq!(queues.pool.bytes.load(Ordering::Relaxed), 60);
        first.hurry().hurry(1000);
        assert_eq!(first.send(message(1)).unwrap_err().kind, ExceptionType::OutOfMemory);
        drop(first_consumer);
        assert_eq!(queues.pool.bytes.load(Ordering::Relaxed), 0);
    }

    #[tokio::test]
    async fn a_lost_producer_is_an_error_not_an_end() {
        let (producer, consumer) = bounded(1);
        drop(producer);
        assert!(consumer.next().await.unwrap().is_err());
        assert!(consumer.next().await.unwrap().is_err());
    }
}
