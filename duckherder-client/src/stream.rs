//! The result of a statement, as it arrives.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow_flight::{FlightData, Ticket};
use duckherder_proto::Message;
use duckherder_proto::command::Command;
use duckherder_proto::v1::{ExecuteRequest, ResultKind, StatementSummary};
use futures::stream::FusedStream;
use futures::{Stream, StreamExt};
use tonic::{Status, Streaming};

use crate::connection::Connection;
use crate::contain::{contained, contained_async};
use crate::decode::Decoder;
use crate::error::{Call, ClientError};
use crate::session::Session;

/// The record batches of a running statement.
///
/// The schema is known from the start; batches have at least one row. The stream ends after the server's summary and
/// the right number of rows, or with an error: a short result never looks like a whole one.
///
/// Back-pressure is HTTP/2's: the server runs ahead by one flow-control window
/// ([`STREAM_WINDOW_BYTES`](duckherder_proto::limits::STREAM_WINDOW_BYTES)) and its own queue. Dropping the stream
/// before its end resets it, upon which the server cancels the statement.
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
pub struct QueryStream {
    /// `None` once the stream has ended, well or not.
    messages: Option<Streaming<FlightData>>,
    decoder: Decoder,
    call: Call,
    statement_id: u64,
    rows_received: u64,
    bytes_received: u64,
    summary: Option<StatementSummary>,
    /// Keeps the session open while its result is being read.
    _session: Session,
}

impl QueryStream {
    /// Sends the statement and waits for the schema.
    pub(crate) async fn start(
        session: Session,
        connection: &Connection,
        request: ExecuteRequest,
    ) -> Result<Self, ClientError> {
        let call = connection.start("Execute");
        let statement_id = request.statement_id;
        let ticket = Ticket {
            ticket: Command::Execute(request).encode(),
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
        let decoder = Decoder::new(&first).map_err(|error| call.undecodable(error))?;
        Ok(Self {
            messages: Some(messages),
            decoder,
            call,
            statement_id,
            rows_received: 0,
            bytes_received: arrow_bytes(&first),
            summary: None,
            _session: session,
        })
    }

    /// The result columns. Each field has DuckDB's text of its type in the metadata, see
    /// [`type_text`](duckherder_proto::types::type_text): Arrow has no ENUM, for one.
    #[must_use]
    pub fn schema(&self) -> SchemaRef {
        SchemaRef::clone(self.decoder.schema())
    }

    /// What the server says of the whole statement: `None` until the stream has ended well.
    #[must_use]
    pub fn summary(&self) -> Option<&StatementSummary> {
        if self.messages.is_none() {
            self.summary.as_ref()
        } else {
            None
        }
    }

    /// The statement's number in its session, for [`Session::cancel`].
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

    fn poll_message(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<FlightData, ClientError>>> {
        let Some(messages) = &mut self.messages else {
            return Poll::Ready(None);
        };
        Poll::Ready(match contained(|| messages.poll_next_unpin(context)) {
            Err(panicked) => Some(Err(self.call.protocol(panicked.0))),
            Ok(polled) => ready!(polled).map(|outcome| outcome.map_err(|status| self.call.failed(status))),
        })
    }

    /// Takes one message in; `None` if it holds no rows.
    fn take(&mut self, data: FlightData) -> Result<Option<RecordBatch>, ClientError> {
        if self.summary.is_some() {
            return Err(self.call.protocol("it goes on after its summary"));
        }
        if data.data_header.is_empty() && data.data_body.is_empty() {
            self.summary = Some(self.read_summary(&data)?);
            return Ok(None);
        }
        let bytes = arrow_bytes(&data);
        let batch = self.decoder.batch(data).map_err(|error| self.call.undecodable(error))?;
        self.bytes_received = self.bytes_received.saturating_add(bytes);
        self.rows_received = self.rows_received.saturating_add(batch.num_rows() as u64);
        Ok((batch.num_rows() > 0).then_some(batch))
    }

    fn read_summary(&self, data: &FlightData) -> Result<StatementSummary, ClientError> {
        let summary = StatementSummary::decode(&*data.app_metadata)
            .map_err(|error| self.call.protocol(format!("its summary is malformed: {error}")))?;
        // An empty message reads as a summary of zeros; a real one always names the kind.
        if summary.result_kind() == ResultKind::Unspecified {
            return Err(self.call.protocol("its summary names no kind of result"));
        }
        if summary.rows != self.rows_received {
            let (said, arrived) = (summary.rows, self.rows_received);
            return Err(self
                .call
                .protocol(format!("its summary says {said} rows, {arrived} arrived")));
        }
        Ok(summary)
    }

    fn fail(&mut self, error: ClientError) -> ClientError {
        self.messages = None;
        self.summary = None;
        error
    }
}

fn arrow_bytes(data: &FlightData) -> u64 {
    (data.data_header.len() + data.data_body.len()) as u64
}

impl Stream for QueryStream {
    type Item = Result<RecordBatch, ClientError>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        loop {
            let message = match ready!(this.poll_message(context)) {
                Some(message) => message,
                None if this.is_terminated() => return Poll::Ready(None),
                None if this.summary.is_some() => {
                    this.messages = None;
                    return Poll::Ready(None);
                }
                None => {
                    let error = this.call.protocol("it ends without its summary: rows may be missing");
                    return Poll::Ready(Some(Err(this.fail(error))));
                }
            };
            match message.and_then(|data| this.take(data)) {
                Ok(Some(batch)) => return Poll::Ready(Some(Ok(batch))),
                Ok(None) => {}
                Err(error) => return Poll::Ready(Some(Err(this.fail(error)))),
            }
        }
    }
}

impl FusedStream for QueryStream {
    fn is_terminated(&self) -> bool {
        self.messages.is_none()
    }
}

impl fmt::Debug for QueryStream {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("QueryStream")
            .field("statement_id", &self.statement_id)
            .field("rows_received", &self.rows_received)
            .field("bytes_received", &self.bytes_received)
            .field("summary", &self.summary)
            .finish_non_exhaustive()
    }
}
