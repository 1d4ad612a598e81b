//! Rows as they arrive: the result of a statement, and what ducklings of a herd send each other.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow_flight::{FlightData, Ticket};
use bytes::Bytes;
use duckherder_catalog::herd::direct::Lesson;
use duckherder_proto::Message;
use duckherder_proto::command::Command;
use duckherder_proto::v1::{
    ExchangeSummary, ExecuteRequest, ReadExchangeRequest, ReadResultRequest, ResultKind, RunStagesRequest,
    RunStagesSummary, StatementRoute, StatementSummary,
};
use futures::stream::FusedStream;
use futures::{Stream, StreamExt};
use tokio::runtime::Handle;
use tonic::{Status, Streaming};

use crate::connection::Connection;
use crate::contain::{contained, contained_async};
use crate::decode::{Decoder, rows_of};
use crate::direct::{Change, Direct};
use crate::error::{Call, ClientError};
use crate::merge::{Further, Item, Merge};
use crate::session::Session;

/// A result of which so many bytes have come in one stream is read with several from there on, if it may be.
const FURTHER_STREAMS_BYTES: u64 = 32 * 1024 * 1024;

/// What the last message of a stream says of the whole.
pub trait Summary: Message + Default {
    /// The stream may go on after it, without anything in it: as long as it is open, its sender keeps something.
    const STAYS_OPEN: bool;

    /// Rows that were sent.
    fn rows(&self) -> u64;

    /// Whether it can be one at all: an empty message reads as a summary of zeros.
    ///
    /// # Errors
    /// What is wrong with it.
    fn check(&self) -> Result<(), &'static str>;

    /// Takes out how to send a statement like this one to the worker of its rows, if it says that.
    fn take_route(&mut self) -> Option<StatementRoute> {
        None
    }

    /// It is a worker's, of a statement that was sent there in the place of the coordinator: what it says of the catalog is left
    /// out.
    fn comes_from_worker(&mut self) {}
}

impl Summary for StatementSummary {
    const STAYS_OPEN: bool = false;

    fn rows(&self) -> u64 {
        self.rows
    }

    fn check(&self) -> Result<(), &'static str> {
        if self.result_kind() == ResultKind::Unspecified {
            return Err("its summary names no kind of result");
        }
        Ok(())
    }

    fn take_route(&mut self) -> Option<StatementRoute> {
        self.route.take()
    }

    fn comes_from_worker(&mut self) {
        self.catalog_epoch = 0;
    }
}

impl Summary for RunStagesSummary {
    const STAYS_OPEN: bool = true;

    fn rows(&self) -> u64 {
        self.rows
    }

    fn check(&self) -> Result<(), &'static str> {
        if self.bytes == 0 {
            return Err("its summary does not count the schema");
        }
        Ok(())
    }
}

impl Summary for ExchangeSummary {
    const STAYS_OPEN: bool = false;

    fn rows(&self) -> u64 {
        self.rows
    }

    fn check(&self) -> Result<(), &'static str> {
        if self.bytes == 0 {
            return Err("its summary does not count the schema");
        }
        Ok(())
    }
}

/// The record batches of a running statement. See [`RowStream`].
pub type QueryStream = RowStream<StatementSummary>;

/// The rows that a worker's part of a distributed query yields. See [`RowStream`]; it ends with the worker's summary, and
/// the worker keeps what others still are to read of the query as long as it is not dropped.
pub type StagesStream = RowStream<RunStagesSummary>;

/// The rows that one worker of a herd has for another. See [`RowStream`].
pub type ExchangeStream = RowStream<ExchangeSummary>;

/// A schema as it was sent, for streams whose schemas are the same: the next one's is not read again. Clones are cheap.
#[derive(Debug, Clone)]
pub struct SchemaMessage(Arc<Decoder>);

impl SchemaMessage {
    /// The message's header, an Arrow IPC `Message`; it has no body.
    #[must_use]
    pub fn header(&self) -> &Bytes {
        self.0.header()
    }

    /// Whether both are one: one was expected to be the other, and was.
    #[must_use]
    pub fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

/// A record batch as it was sent.
pub struct BatchMessage {
    /// Header and body are Arrow's.
    pub data: FlightData,
    /// As its header says.
    pub rows: u64,
}

/// Record batches on their way from a duckling, and the summary behind them.
///
/// The schema is known from the start; batches have at least one row. The stream ends after the server's summary and
/// the right number of rows, or with an error: a short result never looks like a whole one.
///
/// A large result is read over several connections at once ([`ClientOptions::streams`](crate::ClientOptions::streams)), and
/// comes in its order all the same.
///
/// Back-pressure is HTTP/2's: the server runs ahead by one flow-control window
/// ([`STREAM_WINDOW_BYTES`](duckherder_proto::limits::STREAM_WINDOW_BYTES)) a connection and its own queue. Dropping the
/// stream before its end resets it, upon which the server cancels the statement.
///
/// ```no_run
/// use duckherder_client::{Client, ClientError};
/// use futures::TryStreamExt;
///
/// # async fn example(client: Client) -> Result<(), ClientError> {
/// let mut result = client.query("SELECT * FROM range(1_000_000)").await?;
/// println!("{}", result.schema());
/// while let Some(batch) = result.try_next().await? {
///     println!("{} rows", batch.num_rows());
/// }
/// println!("{:?}", result.summary());
/// # Ok(())
/// # }
/// ```
pub struct RowStream<S> {
    /// `None` once the stream has ended, well or not.
    messages: Option<Messages<S>>,
    decoder: Arc<Decoder>,
    call: Call,
    statement_id: u64,
    batches_received: u64,
    rows_received: u64,
    bytes_received: u64,
    /// What to read the result with besides, if it turns out to be large.
    further: Option<Further>,
    summary: Option<S>,
    origin: Origin,
    /// Keeps the session open while its result is being read.
    session: Option<Session>,
}

/// Whose rows they are, and what else the summary is good for.
enum Origin {
    Duckling,
    /// The duckling may tell which worker has rows like these.
    Coordinator(Arc<Direct>, Lesson),
    /// The statement may change what others mean; held until its end.
    Changing(#[expect(dead_code, reason = "held, not read")] Change),
    /// A worker was asked in the place of the duckling.
    Worker,
}

enum Messages<S> {
    One(Streaming<FlightData>),
    Several(Merge<S>),
}

impl RowStream<StatementSummary> {
    /// Sends the statement and waits for the schema.
    pub(crate) async fn execute(
        session: Session,
        connection: &Connection,
        request: ExecuteRequest,
    ) -> Result<Self, ClientError> {
        let call = connection.start("Execute");
        let statement_id = request.statement_id;
        let further = (request.further_streams > 0).then(|| Further {
            connection: connection.clone(),
            request: ReadResultRequest {
                session_id: request.session_id.clone(),
                statement_id,
            },
            runtime: Handle::current(),
        });
        let command = Command::Execute(request);
        let stream = Self::start(call, connection, command, statement_id, Some(session), None).await?;
        Ok(Self { further, ..stream })
    }

    /// The summary may teach how to send statements like this one.
    pub(crate) fn teaching(self, direct: Arc<Direct>, lesson: Lesson) -> Self {
        Self {
            origin: Origin::Coordinator(direct, lesson),
            ..self
        }
    }

    /// The statement may change what others mean.
    pub(crate) fn changing(self, change: Change) -> Self {
        Self {
            origin: Origin::Changing(change),
            ..self
        }
    }

    /// They come from a worker of the duckling that was asked.
    pub(crate) fn of_worker(self) -> Self {
        Self {
            origin: Origin::Worker,
            ..self
        }
    }
}

impl RowStream<RunStagesSummary> {
    /// Sends the stages and waits for the schema, which is probably `expected`.
    pub(crate) async fn run(
        session: Session,
        connection: &Connection,
        request: RunStagesRequest,
        expected: Option<&SchemaMessage>,
    ) -> Result<Self, ClientError> {
        let call = connection.start("RunStages");
        let statement_id = request.statement_id;
        let command = Command::RunStages(request);
        Self::start(call, connection, command, statement_id, Some(session), expected).await
    }

    /// The schema as it was sent.
    #[must_use]
    pub fn schema_message(&self) -> SchemaMessage {
        SchemaMessage(Arc::clone(&self.decoder))
    }

    /// The next batch as it was sent, for whoever passes it on: not decoded, and not checked but for its number of rows. `None`
    /// after the last one.
    ///
    /// # Errors
    /// Those of the stream.
    pub async fn next_message(&mut self) -> Result<Option<BatchMessage>, ClientError> {
        while !self.is_over() {
            let Some(Messages::One(messages)) = &mut self.messages else {
                return Err(self.call.protocol("it has several streams, where there is one"));
            };
            let message = contained_async(messages.message()).await;
            let message = message.map_err(|panicked| self.call.protocol(panicked.0));
            let message = message.and_then(|message| message.map_err(|status| self.call.failed(status)));
            match message.and_then(|message| self.take_message(message)) {
                Ok(None) => {}
                outcome => return outcome.map_err(|error| self.fail(error)),
            }
        }
        Ok(None)
    }

    fn take_message(&mut self, message: Option<FlightData>) -> Result<Option<BatchMessage>, ClientError> {
        let data = message.ok_or_else(|| self.call.protocol("it ends without its summary: rows may be missing"))?;
        if data.data_header.is_empty() && data.data_body.is_empty() {
            let item = Item::read(data, &self.decoder, &self.call)?;
            self.take(item)?;
            return Ok(None);
        }
        let rows = rows_of(&data.data_header).map_err(|error| self.call.undecodable(error))?;
        self.batches_received += 1;
        self.rows_received = self.rows_received.saturating_add(rows);
        self.bytes_received = self.bytes_received.saturating_add(arrow_bytes(&data));
        Ok(Some(BatchMessage { data, rows }))
    }

    /// The rows of a message of this stream.
    ///
    /// # Errors
    /// It is not what the protocol says.
    pub fn decode(&self, message: BatchMessage) -> Result<RecordBatch, ClientError> {
        self.decoder
            .batch(message.data)
            .map_err(|error| self.call.undecodable(error))
    }

    /// To be called after the last row: waits until the worker keeps nothing of the query any more.
    ///
    /// # Errors
    /// The query has failed in the meantime, or the connection is lost.
    pub async fn until_released(mut self) -> Result<(), ClientError> {
        match std::future::poll_fn(|context| self.poll_item(context)).await {
            None => Ok(()),
            Some(Ok(_)) => Err(self.call.protocol("it goes on after its summary")),
            Some(Err(error)) => Err(error),
        }
    }
}

impl RowStream<ExchangeSummary> {
    /// Asks for the rows and waits for their schema.
    pub(crate) async fn read(connection: &Connection, request: ReadExchangeRequest) -> Result<Self, ClientError> {
        let call = connection.start("ReadExchange");
        Self::start(call, connection, Command::ReadExchange(request), 0, None, None).await
    }
}

impl<S: Summary + Send + Unpin + 'static> RowStream<S> {
    async fn start(
        call: Call,
        connection: &Connection,
        command: Command,
        statement_id: u64,
        session: Option<Session>,
        expected: Option<&SchemaMessage>,
    ) -> Result<Self, ClientError> {
        let ticket = Ticket {
            ticket: command.encode(),
        };
        let mut flight = connection.flight();
        let opened = contained_async(async {
            let mut messages = flight.do_get(ticket).await?.into_inner();
            let first = messages.message().await?;
            Ok::<_, Status>((messages, first))
        });
        let opened = opened.await.map_err(|panicked| call.protocol(panicked.0))?;
        let (messages, first) = opened.map_err(|status| call.failed(status))?;
        let first = first.ok_or_else(|| call.protocol("it ends before its schema"))?;
        let decoder = match expected {
            Some(SchemaMessage(known)) => known.again(&first),
            None => Decoder::new(&first).map(Arc::new),
        };
        let decoder = decoder.map_err(|error| call.undecodable(error))?;
        Ok(Self {
            messages: Some(Messages::One(messages)),
            decoder,
            call,
            statement_id,
            batches_received: 0,
            rows_received: 0,
            bytes_received: arrow_bytes(&first),
            further: None,
            summary: None,
            origin: Origin::Duckling,
            session,
        })
    }

    /// The result columns. Each field has DuckDB's text of its type in the metadata, see
    /// [`type_text`](duckherder_proto::types::type_text): Arrow has no ENUM, for one.
    #[must_use]
    pub fn schema(&self) -> SchemaRef {
        SchemaRef::clone(self.decoder.schema())
    }

    /// What the server says of the whole statement: `None` until the stream has ended well. Its catalog's epoch is 0 where a worker
    /// was asked, and not the duckling that the session is on ([`ask_workers`](crate::ClientOptions::ask_workers)).
    #[must_use]
    pub fn summary(&self) -> Option<&S> {
        if self.is_over() { self.summary.as_ref() } else { None }
    }

    /// Nothing more comes.
    fn is_over(&self) -> bool {
        self.messages.is_none() || (S::STAYS_OPEN && self.summary.is_some())
    }

    /// The session that the statement runs in; `None` of rows that have none.
    #[must_use]
    pub fn session(&self) -> Option<&Session> {
        self.session.as_ref()
    }

    /// The number in its session of the statement that yields the rows, for [`Session::cancel`] and [`Session::progress`].
    #[must_use]
    pub fn statement_id(&self) -> u64 {
        self.statement_id
    }

    /// Rows received so far.
    #[must_use]
    pub fn rows_received(&self) -> u64 {
        self.rows_received
    }

    /// Bytes of Arrow messages received so far, header and body, the schema's included.
    #[must_use]
    pub fn bytes_received(&self) -> u64 {
        self.bytes_received
    }

    fn poll_item(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Item<S>, ClientError>>> {
        match &mut self.messages {
            None => Poll::Ready(None),
            Some(Messages::Several(merge)) => merge.poll_next(context),
            Some(Messages::One(messages)) => Poll::Ready(match contained(|| messages.poll_next_unpin(context)) {
                Err(panicked) => Some(Err(self.call.protocol(panicked.0))),
                Ok(polled) => ready!(polled).map(|message| {
                    let data = message.map_err(|status| self.call.failed(status))?;
                    Item::read(data, &self.decoder, &self.call)
                }),
            }),
        }
    }

    /// Takes one message in; `None` if it holds no rows.
    fn take(&mut self, item: Item<S>) -> Result<Option<RecordBatch>, ClientError> {
        if self.summary.is_some() {
            return Err(self.call.protocol("it goes on after its summary"));
        }
        match item {
            Item::Summary(mut summary) => {
                self.check(&summary)?;
                match std::mem::replace(&mut self.origin, Origin::Duckling) {
                    Origin::Duckling | Origin::Changing(_) => {}
                    Origin::Coordinator(direct, lesson) => {
                        if let Some(route) = summary.take_route() {
                            direct.learn(lesson, route);
                        }
                    }
                    Origin::Worker => summary.comes_from_worker(),
                }
                self.summary = Some(summary);
                Ok(None)
            }
            Item::Batch(batch) => {
                if batch.index != self.batches_received {
                    // An older server does not number them.
                    self.further = None;
                }
                self.batches_received += 1;
                self.bytes_received = self.bytes_received.saturating_add(batch.bytes);
                self.rows_received = self.rows_received.saturating_add(batch.rows.num_rows() as u64);
                self.read_on_with_several();
                Ok((batch.rows.num_rows() > 0).then_some(batch.rows))
            }
        }
    }

    /// From here on reads a large result over several connections, if it may.
    fn read_on_with_several(&mut self) {
        if self.bytes_received < FURTHER_STREAMS_BYTES || self.batches_received < 2 {
            return;
        }
        let Some(further) = self.further.take() else { return };
        self.messages = match self.messages.take() {
            Some(Messages::One(first)) => {
                let received = (self.batches_received, self.rows_received);
                let merge = Merge::start(first, &further, &self.decoder, &self.call, received);
                Some(Messages::Several(merge))
            }
            messages => messages,
        };
    }

    fn check(&self, summary: &S) -> Result<(), ClientError> {
        summary.check().map_err(|problem| self.call.protocol(problem))?;
        if summary.rows() != self.rows_received {
            let (said, arrived) = (summary.rows(), self.rows_received);
            return Err(self
                .call
                .protocol(format!("its summary says {said} rows, {arrived} arrived")));
        }
        Ok(())
    }

    fn fail(&mut self, error: ClientError) -> ClientError {
        self.messages = None;
        self.summary = None;
        error
    }
}

/// Bytes of an Arrow message, header and body.
pub(crate) fn arrow_bytes(data: &FlightData) -> u64 {
    (data.data_header.len() + data.data_body.len()) as u64
}

impl<S: Summary + Send + Unpin + 'static> Stream for RowStream<S> {
    type Item = Result<RecordBatch, ClientError>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        loop {
            if this.is_over() {
                return Poll::Ready(None);
            }
            let item = match ready!(this.poll_item(context)) {
                Some(item) => item,
                None if this.summary.is_some() => {
                    this.messages = None;
                    return Poll::Ready(None);
                }
                None => {
                    let error = this.call.protocol("it ends without its summary: rows may be missing");
                    return Poll::Ready(Some(Err(this.fail(error))));
                }
            };
            match item.and_then(|item| this.take(item)) {
                Ok(Some(batch)) => return Poll::Ready(Some(Ok(batch))),
                Ok(None) => {}
                Err(error) => return Poll::Ready(Some(Err(this.fail(error)))),
            }
        }
    }
}

impl<S: Summary + Send + Unpin + 'static> FusedStream for RowStream<S> {
    fn is_terminated(&self) -> bool {
        self.is_over()
    }
}

impl<S: fmt::Debug> fmt::Debug for RowStream<S> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("RowStream")
            .field("statement_id", &self.statement_id)
            .field("rows_received", &self.rows_received)
            .field("bytes_received", &self.bytes_received)
            .field("summary", &self.summary)
            .finish_non_exhaustive()
    }
}
