//! The queue between the thread that runs a statement and the stream that answers it.
//!
//! Bounded by bytes. The producer blocks (it is a DuckDB thread), the consumer awaits (it is a gRPC stream). A consumer
//! that goes away is noticed by the producer at once, and the statement is interrupted.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use arrow_flight::FlightData;
use duckherder_proto::{ExceptionType, RemoteError};
use tokio::sync::Notify;

struct State {
    messages: VecDeque<FlightData>,
    bytes: usize,
    bytes_max: usize,
    /// `Some` once the producer is done; the outcome is handed out after the last message.
    outcome: Option<Result<(), RemoteError>>,
    closed: bool,
    /// The bound has been lifted to free the connection; from now on passing it is an error, not a wait.
    hurried: bool,
}

struct Shared {
    state: Mutex<State>,
    room: Condvar,
    news: Notify,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The statement's end. Dropped without [`Producer::finish`], it reports a failure: never a short result.
pub struct Producer(Arc<Shared>);

/// The client's end.
pub struct Consumer(Arc<Shared>);

/// Asks a producer to stop waiting for its consumer.
#[derive(Clone)]
pub struct Hurry(Arc<Shared>);

/// A queue that holds `bytes_max` bytes; one message may always pass, however large.
#[must_use]
pub fn bounded(bytes_max: usize) -> (Producer, Consumer) {
    let state = State {
        messages: VecDeque::new(),
        bytes: 0,
        bytes_max,
        outcome: None,
        closed: false,
        hurried: false,
    };
    let shared = Arc::new(Shared {
        state: Mutex::new(state),
        room: Condvar::new(),
        news: Notify::new(),
    });
    (Producer(Arc::clone(&shared)), Consumer(shared))
}

fn size(message: &FlightData) -> usize {
    message.data_body.len() + message.data_header.len() + message.app_metadata.len()
}

impl Producer {
    /// Queues a message, waiting for room.
    ///
    /// # Errors
    /// `INTERRUPT` if the consumer has gone; `Out of Memory` if the queue was hurried and is full.
    pub fn send(&self, message: FlightData) -> Result<(), RemoteError> {
        let mut state = self.0.lock();
        while !state.closed && !state.hurried && state.bytes >= state.bytes_max {
            state = self.0.room.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        if state.closed {
            return Err(RemoteError::new(
                ExceptionType::Interrupt,
                "the client has stopped reading",
            ));
        }
        if state.hurried && state.bytes >= state.bytes_max {
            return Err(RemoteError::new(
                ExceptionType::OutOfMemory,
                format!(
                    "an earlier result of this transaction is still being read and exceeds the {} MiB that the server \
                     buffers for it; read it to its end before the next statement",
                    state.bytes_max >> 20
                ),
            ));
        }
        state.bytes += size(&message);
        state.messages.push_back(message);
        drop(state);
        self.0.news.notify_one();
        Ok(())
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
        self.0.news.notify_one();
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
        state.bytes_max = state.bytes_max.max(bytes_max);
        drop(state);
        self.0.room.notify_all();
    }
}

impl Consumer {
    /// The next message; `None` after the last one of a stream that ended well.
    pub async fn next(&mut self) -> Option<Result<FlightData, RemoteError>> {
        loop {
            if let Some(item) = self.try_next() {
                return item;
            }
            self.0.news.notified().await;
        }
    }

    fn try_next(&mut self) -> Option<Option<Result<FlightData, RemoteError>>> {
        let mut state = self.0.lock();
        if let Some(message) = state.messages.pop_front() {
            state.bytes -= size(&message);
            drop(state);
            self.0.room.notify_all();
            return Some(Some(Ok(message)));
        }
        match state.outcome.take() {
            None => None,
            Some(Ok(())) => {
                state.outcome = Some(Ok(()));
                Some(None)
            }
            Some(Err(error)) => {
                state.outcome = Some(Ok(()));
                Some(Some(Err(error)))
            }
        }
    }
}

impl Drop for Consumer {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.closed = true;
        state.messages.clear();
        drop(state);
        self.0.room.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(bytes: usize) -> FlightData {
        FlightData {
            data_body: vec![0; bytes].into(),
            ..Default::default()
        }
    }

    #[tokio::test]
    async fn messages_come_in_order_then_the_end() {
        let (producer, mut consumer) = bounded(10);
        producer.send(message(1)).unwrap();
        producer.send(message(2)).unwrap();
        producer.finish(Ok(()));
        assert_eq!(size(&consumer.next().await.unwrap().unwrap()), 1);
        assert_eq!(size(&consumer.next().await.unwrap().unwrap()), 2);
        assert!(consumer.next().await.is_none());
        assert!(consumer.next().await.is_none());
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
    async fn hurrying_lifts_the_bound_and_keeps_one() {
        let (producer, mut consumer) = bounded(1);
        producer.send(message(5)).unwrap();
        producer.hurry().hurry(10);
        producer.send(message(5)).unwrap();
        assert_eq!(producer.send(message(5)).unwrap_err().kind, ExceptionType::OutOfMemory);
        assert!(consumer.next().await.unwrap().is_ok());
    }

    #[tokio::test]
    async fn a_lost_producer_is_an_error_not_an_end() {
        let (producer, mut consumer) = bounded(1);
        drop(producer);
        assert!(consumer.next().await.unwrap().is_err());
        assert!(consumer.next().await.is_none());
    }
}
