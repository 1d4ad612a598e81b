//! One result, read over several connections.
//!
//! A task for each stream decodes its messages; here they become one stream again, in the result's order. What is lost on
//! the way is an error at the end: batches are numbered, and the summary counts all rows.

use std::sync::Arc;
use std::task::{Context, Poll};

use arrow::array::{ArrayRef, RecordBatch};
use arrow_flight::{FlightData, Ticket};
use duckherder_proto::Message;
use duckherder_proto::command::Command;
use duckherder_proto::v1::{BatchMetadata, KeepAliveRequest, ReadResultRequest};
use futures::StreamExt;
use tokio::runtime::Handle;
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tonic::Streaming;

use crate::connection::Connection;
use crate::contain::contained_async;
use crate::decode::Decoder;
use crate::error::{Call, ClientError};
use crate::pool::Used;
use crate::reorder::Reorder;
use crate::stream::{Summary, arrow_bytes};

/// Bytes of batches that are kept until those before them have come. Besides, each stream has a batch or two on its way.
const REORDER_BYTES_MAX: usize = 32 * 1024 * 1024;

/// What a batch counts for at the least: also those without rows must not be kept without a bound.
const BATCH_BYTES_MIN: usize = 4 * 1024;

/// What the messages of a result are.
pub(crate) enum Item<S> {
    Batch(Batch),
    Summary(S),
}

/// A record batch as it came.
pub(crate) struct Batch {
    pub(crate) rows: RecordBatch,
    /// Its place in the result, or 0 if the server does not number them.
    pub(crate) index: u64,
    /// Of the Arrow message.
    pub(crate) bytes: u64,
}

impl<S: Summary> Item<S> {
    /// # Errors
    /// The message is not what the protocol says.
    pub(crate) fn read(data: FlightData, decoder: &Decoder, call: &Call) -> Result<Self, ClientError> {
        let is_malformed = |error| call.protocol(format!("its metadata is malformed: {error}"));
        if data.data_header.is_empty() && data.data_body.is_empty() {
            return S::decode(&*data.app_metadata)
                .map(Self::Summary)
                .map_err(|error| call.protocol(format!("its summary is malformed: {error}")));
        }
        Ok(Self::Batch(Batch {
            index: BatchMetadata::decode(&*data.app_metadata).map_err(is_malformed)?.index,
            bytes: arrow_bytes(&data),
            rows: decoder.batch(data).map_err(|error| call.undecodable(error))?,
        }))
    }
}

/// What a stream's task tells.
enum Event<S> {
    /// The server is asked for a further stream: from here on it may have batches that no other one gets.
    Asks,
    Item(Item<S>),
    /// It has ended well, or cannot be had.
    Ended,
    Failed(ClientError),
}

/// What further streams of a result need.
#[derive(Debug, Clone)]
pub(crate) struct Further {
    pub(crate) connection: Connection,
    pub(crate) request: ReadResultRequest,
    pub(crate) runtime: Handle,
}

/// The streams of a result, as one.
pub(crate) struct Merge<S> {
    /// `None` for those that have ended.
    streams: Vec<Option<Receiver<Event<S>>>>,
    /// Those that the server has been asked for.
    asked: Vec<bool>,
    reorder: Reorder<Batch>,
    rows: u64,
    summary: Option<S>,
    failure: Option<ClientError>,
    is_over: bool,
    call: Call,
    /// Ended with this.
    _tasks: JoinSet<()>,
}

impl<S: Summary + Send + Unpin + 'static> Merge<S> {
    /// Goes on with a result of which so many batches and rows have been read, from `first`.
    pub(crate) fn start(
        first: Streaming<FlightData>,
        further: &Further,
        decoder: &Arc<Decoder>,
        call: &Call,
        (batches, rows): (u64, u64),
    ) -> Self {
        let count = further.connection.further_max() as usize + 1;
        let (mut tasks, mut streams) = (JoinSet::new(), Vec::with_capacity(count));
        let mut first = Some(first);
        for place in 0..count {
            let (sender, receiver) = channel(1);
            streams.push(Some(receiver));
            let reader = Reader {
                decoder: Arc::clone(decoder),
                call: call.clone(),
                events: sender,
            };
            match first.take() {
                Some(messages) => tasks.spawn_on(reader.read(messages), &further.runtime),
                None => tasks.spawn_on(reader.join(further.clone(), place - 1), &further.runtime),
            };
        }
        Self {
            asked: (0..count).map(|place| place == 0).collect(),
            streams,
            reorder: Reorder::new(count, batches, REORDER_BYTES_MAX),
            rows,
            summary: None,
            failure: None,
            is_over: false,
            call: call.clone(),
            _tasks: tasks,
        }
    }

    /// The next batch in the result's order; then the summary, once everything is here; then the end.
    pub(crate) fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Item<S>, ClientError>>> {
        loop {
            if self.is_over {
                return Poll::Ready(None);
            }
            if let Some(batch) = self.reorder.pop() {
                self.rows = self.rows.saturating_add(batch.rows.num_rows() as u64);
                return Poll::Ready(Some(Ok(Item::Batch(batch))));
            }
            let (mut waits, mut took) = (false, false);
            for place in 0..self.streams.len() {
                match self.poll_stream(place, context) {
                    Poll::Ready(true) => took = true,
                    Poll::Ready(false) => {}
                    Poll::Pending => waits = true,
                }
            }
            if !took && waits && !self.is_whole() {
                return Poll::Pending;
            }
            if !took {
                self.is_over = true;
                return Poll::Ready(self.end());
            }
        }
    }

    /// Whether something was taken from a stream, if there was room for it.
    fn poll_stream(&mut self, place: usize, context: &mut Context<'_>) -> Poll<bool> {
        if !self.reorder.has_room(place) {
            return Poll::Ready(false);
        }
        let Some(stream) = &mut self.streams[place] else {
            return Poll::Ready(false);
        };
        let event = std::task::ready!(stream.poll_recv(context));
        match event {
            Some(Event::Asks) => self.asked[place] = true,
            Some(Event::Item(Item::Batch(batch))) => {
                let (index, bytes) = (batch.index, memory_bytes(&batch.rows));
                if self.reorder.push(place, index, bytes, batch).is_err() {
                    let problem = format!("record batch {index} is not in its place");
                    self.fail(place, self.call.protocol(problem));
                }
            }
            Some(Event::Item(Item::Summary(_))) if self.summary.is_some() => {
                self.fail(place, self.call.protocol("there are two summaries of it"));
            }
            Some(Event::Item(Item::Summary(summary))) => self.summary = Some(summary),
            Some(Event::Ended) => self.streams[place] = None,
            Some(Event::Failed(error)) => self.fail(place, error),
            None => self.fail(place, self.call.protocol("one of its streams ended unexpectedly")),
        }
        Poll::Ready(true)
    }

    /// Ends a stream. What has come before the failure is still handed out.
    fn fail(&mut self, place: usize, error: ClientError) {
        self.streams[place] = None;
        // Others have nothing of what comes before it.
        for (stream, asked) in self.streams.iter_mut().zip(&self.asked) {
            if !asked {
                *stream = None;
            }
        }
        // If a stream is lost, the server ends the others for that.
        let is_cause = !matches!(error, ClientError::Remote(_));
        if self.failure.is_none() || (is_cause && matches!(self.failure, Some(ClientError::Remote(_)))) {
            self.failure = Some(error);
        }
    }

    /// All rows are here, and the statement has ended well, whatever the other streams still have to say.
    fn is_whole(&self) -> bool {
        let all_rows = self.summary.as_ref().is_some_and(|summary| summary.rows() == self.rows);
        all_rows && self.streams[0].is_none() && self.failure.is_none()
    }

    /// What ends the stream, now that no batch can come any more.
    fn end(&mut self) -> Option<Result<Item<S>, ClientError>> {
        if let Some(error) = self.failure.take() {
            return Some(Err(error));
        }
        if !self.reorder.is_empty() {
            let problem = format!("record batch {} is missing", self.reorder.next());
            return Some(Err(self.call.protocol(problem)));
        }
        self.summary.take().map(|summary| Ok(Item::Summary(summary)))
    }
}

/// What a batch takes, which is more than its message if that was compressed.
fn memory_bytes(batch: &RecordBatch) -> usize {
    let bytes_of = |column: &ArrayRef| column.to_data().get_slice_memory_size().unwrap_or_default();
    batch.columns().iter().map(bytes_of).sum::<usize>().max(BATCH_BYTES_MIN)
}

/// A stream's task.
struct Reader<S> {
    decoder: Arc<Decoder>,
    call: Call,
    events: Sender<Event<S>>,
}

impl<S: Summary + Send + 'static> Reader<S> {
    /// Tells all of a stream, to its end.
    async fn read(self, mut messages: Streaming<FlightData>) {
        loop {
            let event = match contained_async(messages.next()).await {
                Err(panicked) => Event::Failed(self.call.protocol(panicked.0)),
                Ok(None) => Event::Ended,
                Ok(Some(Err(status))) => Event::Failed(self.call.failed(status)),
                Ok(Some(Ok(data))) => match Item::read(data, &self.decoder, &self.call) {
                    Ok(item) => Event::Item(item),
                    Err(error) => Event::Failed(error),
                },
            };
            let is_last = matches!(event, Event::Ended | Event::Failed(_));
            if self.events.send(event).await.is_err() || is_last {
                return;
            }
        }
    }

    /// Joins in reading the result, if that can be done: it is whole without that, too.
    async fn join(self, further: Further, place: usize) {
        let deadline = further.connection.request_timeout();
        let opened = match timeout(deadline, contained_async(self.open(further, place))).await {
            Ok(Ok(opened)) => opened,
            Ok(Err(panicked)) => Err(self.call.protocol(panicked.0)),
            Err(_) => Err(self.call.timed_out()),
        };
        match opened {
            Ok((_used, first, messages)) => match self.check_schema(&first) {
                Ok(()) => self.read(messages).await,
                Err(error) => drop(self.events.send(Event::Failed(error)).await),
            },
            Err(error) => {
                tracing::debug!(%error, "a further stream of a result cannot be had");
                drop(self.events.send(Event::Ended).await);
            }
        }
    }

    /// A further stream, and its first message.
    async fn open(
        &self,
        further: Further,
        place: usize,
    ) -> Result<(Used, FlightData, Streaming<FlightData>), ClientError> {
        let Further {
            connection, request, ..
        } = further;
        let connected = connection.further(place).await;
        let (connection, used) = connected.ok_or_else(|| self.call.protocol("there is no connection for it"))?;
        // What the server begins to send and cannot is lost. So first whether it is there, and the session.
        let session_id = request.session_id.clone();
        connection.request(&KeepAliveRequest { session_id }).await?;
        drop(self.events.send(Event::Asks).await);
        let ticket = Ticket {
            ticket: Command::ReadResult(request).encode(),
        };
        let failed = |status| self.call.failed(status);
        let mut messages = connection.flight().do_get(ticket).await.map_err(failed)?.into_inner();
        let first = messages.message().await.map_err(failed)?;
        let first = first.ok_or_else(|| self.call.protocol("a further stream ends before its schema"))?;
        Ok((used, first, messages))
    }

    fn check_schema(&self, first: &FlightData) -> Result<(), ClientError> {
        let decoder = Decoder::new(first).map_err(|error| self.call.undecodable(error))?;
        if decoder.schema() == self.decoder.schema() {
            Ok(())
        } else {
            Err(self.call.protocol("its streams have different schemas"))
        }
    }
}
