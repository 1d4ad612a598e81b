//! One result, read by several streams.
//!
//! The statement runs once, into one queue. The streams take turns: what one of them has taken, no other gets. So any
//! number of them, side by side or one after the other, get every row once, and one that is never opened keeps nothing
//! back: the others get its share. The price is that a stream that is given up has taken rows that nobody can have any
//! more: it ends the whole result.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use duckherder_proto::{ExceptionType, RemoteError};
use futures::{StreamExt, stream};
use tonic::Status;

use crate::message::Message;
use crate::queue::{Close, Consumer};
use crate::running::Answer;

/// Interrupts the statement.
pub type Cancel = Box<dyn FnOnce() + Send>;

/// A result that streams share.
pub struct Parts {
    consumer: Consumer,
    close: Close,
    /// The first message, with which every stream begins. Whoever locks it while it is not there waits for it.
    schema: tokio::sync::Mutex<Option<Message>>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// A stream has seen the end.
    ended: bool,
    given_up: bool,
    /// Not yet there while the statement waits for its turn.
    cancel: Option<Cancel>,
}

impl Parts {
    /// Of the messages of a queue, of which the first is the schema and all others are record batches.
    pub fn new(consumer: Consumer) -> Self {
        Self {
            close: consumer.close(),
            consumer,
            schema: tokio::sync::Mutex::default(),
            state: Mutex::default(),
        }
    }

    /// The statement runs, and is stopped like this.
    pub fn set_cancel(&self, cancel: Cancel) {
        let mut state = self.lock();
        if !state.given_up {
            state.cancel = Some(cancel);
            return;
        }
        drop(state);
        cancel();
    }

    /// One of the streams that the result was announced with.
    pub fn part(self: &Arc<Self>) -> Part {
        self.part_that(true)
    }

    /// A stream besides those: as long as it has taken nothing, it may leave.
    pub fn further_part(self: &Arc<Self>) -> Part {
        self.part_that(false)
    }

    fn part_that(self: &Arc<Self>, is_missed: bool) -> Part {
        Part {
            parts: Arc::clone(self),
            is_missed,
        }
    }

    /// Takes the next message out of the queue: `None` at the result's end, which all streams see. Nothing is locked while
    /// it waits: a stream whose client does not read is not polled, and must not keep the others waiting.
    async fn take(&self) -> Option<Result<Message, RemoteError>> {
        let item = self.consumer.next().await;
        let mut state = self.lock();
        // Closing the queue has emptied it: what it says from then on is not the result's end.
        let item = if state.given_up { Some(Err(given_up())) } else { item };
        if !matches!(item, Some(Ok(_))) {
            state.ended = true;
            // It holds the session, which holds this.
            state.cancel = None;
        }
        item
    }

    /// The schema. Not part of a stream that a client may not read: the lock waits.
    async fn schema(&self) -> Option<Result<Message, RemoteError>> {
        let mut schema = self.schema.lock().await;
        if schema.is_none() {
            match self.take().await {
                Some(Ok(message)) => *schema = Some(message),
                end => return end,
            }
        }
        schema.clone().map(Ok)
    }

    fn give_up(&self) {
        let mut state = self.lock();
        if state.ended {
            return;
        }
        state.given_up = true;
        let cancel = state.cancel.take();
        drop(state);
        self.close.close();
        if let Some(cancel) = cancel {
            cancel();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn given_up() -> RemoteError {
    // Not INTERRUPT: some clients take a stream that ends as cancelled for one that ends.
    RemoteError::new(
        ExceptionType::Io,
        "another stream of this result was given up, and its rows with it: run the statement anew",
    )
}

/// One of the streams. Dropped before its end, it ends the result.
pub struct Part {
    parts: Arc<Parts>,
    /// Without it the result would not be whole.
    is_missed: bool,
}

impl Part {
    /// The stream's messages, once the first is there.
    ///
    /// # Errors
    /// The statement's, if it has failed.
    pub async fn start(mut self) -> Result<Answer, Status> {
        let parts = Arc::clone(&self.parts);
        let first = match parts.schema().await {
            Some(Ok(schema)) => Some(Ok(schema)),
            end => {
                self.is_missed = false;
                end.transpose()?.map(Ok)
            }
        };
        let has_begun = first.is_some();
        let rest = stream::unfold(has_begun.then_some(self), |part| async move { part?.next().await });
        Ok(stream::iter(first).chain(rest).boxed())
    }

    /// The next message, and what yields those after it: nothing after the end or an error.
    async fn next(mut self) -> Option<(Result<Message, Status>, Option<Self>)> {
        let item = self.parts.take().await;
        self.is_missed = matches!(item, Some(Ok(_)));
        match item? {
            Ok(message) => Some((Ok(message), Some(self))),
            Err(error) => Some((Err(error.into()), None)),
        }
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        if self.is_missed {
            self.parts.give_up();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::Duration;

    use futures::{TryStreamExt, poll};

    use super::*;
    use crate::queue::{Producer, Queues};

    fn message(number: u8) -> Message {
        Message::of_metadata(vec![number; 10])
    }

    /// A result of a schema and the numbers from one on.
    fn result(numbers: u8) -> (Producer, Arc<Parts>) {
        let (producer, consumer) = Queues::new(1 << 20, usize::MAX).open();
        for number in 0..=numbers {
            producer.send(message(number)).unwrap();
        }
        (producer, Arc::new(Parts::new(consumer)))
    }

    async fn read(part: Part) -> Result<Vec<u8>, Status> {
        let messages: Vec<_> = part.start().await?.try_collect().await?;
        Ok(messages.iter().map(|message| message.app_metadata[0]).collect())
    }

    #[tokio::test]
    async fn side_by_side_they_get_everything_once() {
        let (producer, parts) = result(100);
        producer.finish(Ok(()));
        let read = |_| tokio::spawn(read(parts.part()));
        let mut all = Vec::new();
        for part in (0..3).map(read).collect::<Vec<_>>() {
            let numbers = part.await.unwrap().unwrap();
            assert_eq!(numbers[0], 0, "the schema comes first");
            all.extend_from_slice(&numbers[1..]);
        }
        all.sort_unstable();
        assert_eq!(all, (1..=100).collect::<Vec<_>>());
    }

    #[tokio::test]
    async fn one_after_the_other_the_first_gets_everything() {
        let (producer, parts) = result(3);
        producer.finish(Ok(()));
        assert_eq!(read(parts.part()).await.unwrap(), [0, 1, 2, 3]);
        assert_eq!(read(parts.part()).await.unwrap(), [0]);
    }

    #[tokio::test]
    async fn an_open_stream_that_is_not_read_holds_nobody_up() {
        let (producer, parts) = result(3);
        producer.finish(Ok(()));
        let mut unread = parts.part().start().await.unwrap();
        assert_eq!(read(parts.part()).await.unwrap(), [0, 1, 2, 3]);
        assert_eq!(unread.try_next().await.unwrap(), Some(message(0)));
        assert_eq!(unread.try_next().await.unwrap(), None);
    }

    #[tokio::test]
    async fn one_that_waits_and_is_not_polled_any_more_holds_nobody_up() {
        let (producer, parts) = result(0);
        let mut waiting = parts.part().start().await.unwrap();
        let mut read = parts.part().start().await.unwrap();
        for stream in [&mut waiting, &mut read] {
            assert_eq!(stream.try_next().await.unwrap(), Some(message(0)));
        }
        assert!(poll!(waiting.try_next()).is_pending());
        for number in 1..3 {
            producer.send(message(number)).unwrap();
            let next = tokio::time::timeout(Duration::from_secs(10), read.try_next()).await;
            assert_eq!(next.unwrap().unwrap(), Some(message(number)));
        }
        producer.finish(Ok(()));
        assert_eq!(read.try_next().await.unwrap(), None);
        assert_eq!(waiting.try_next().await.unwrap(), None);
    }

    #[tokio::test]
    async fn all_are_told_of_an_error() {
        let (producer, parts) = result(1);
        producer.finish(Err(RemoteError::new(ExceptionType::OutOfRange, "too far")));
        for _ in 0..2 {
            assert!(read(parts.part()).await.unwrap_err().message().contains("too far"));
        }
    }

    #[tokio::test]
    async fn one_that_is_given_up_stops_the_statement_and_ends_the_others() {
        let (producer, parts) = result(3);
        let stopped = Arc::new(AtomicBool::new(false));
        let stop = Arc::clone(&stopped);
        parts.set_cancel(Box::new(move || stop.store(true, Ordering::SeqCst)));
        let mut other = parts.part().start().await.unwrap();
        assert_eq!(other.try_next().await.unwrap(), Some(message(0)));
        assert_eq!(other.try_next().await.unwrap(), Some(message(1)));
        drop(parts.part().start().await.unwrap());
        assert!(stopped.load(Ordering::SeqCst));
        // Also if the statement was done by then: a short result must not look like a whole one.
        producer.finish(Ok(()));
        assert!(other.try_next().await.unwrap_err().message().contains("given up"));
        assert!(read(parts.part()).await.unwrap_err().message().contains("given up"));
    }

    #[tokio::test]
    async fn a_further_one_may_leave_unless_it_has_taken_something() {
        let (producer, parts) = result(2);
        let mut first = parts.part().start().await.unwrap();
        assert_eq!(first.try_next().await.unwrap(), Some(message(0)));
        drop(parts.further_part());
        let mut further = parts.further_part().start().await.unwrap();
        assert_eq!(further.try_next().await.unwrap(), Some(message(0)));
        drop(further);
        assert_eq!(first.try_next().await.unwrap(), Some(message(1)));
        let mut further = parts.further_part().start().await.unwrap();
        assert_eq!(further.try_next().await.unwrap(), Some(message(0)));
        assert_eq!(further.try_next().await.unwrap(), Some(message(2)));
        drop(further);
        producer.finish(Ok(()));
        assert!(first.try_next().await.unwrap_err().message().contains("given up"));
    }

    #[tokio::test]
    async fn one_that_is_given_up_before_the_statement_has_its_turn_stops_it_then() {
        let (_producer, parts) = result(0);
        drop(parts.part());
        let (stop, stopped) = std::sync::mpsc::channel();
        parts.set_cancel(Box::new(move || stop.send(()).unwrap()));
        stopped.try_recv().unwrap();
    }
}
