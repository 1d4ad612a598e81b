//! Sending rows into a table.
//!
//! The server takes an upload whole or not at all, and what tells it that it has the whole is the `IngestEnd` in the last
//! message: the end of the gRPC stream alone does not, since a server may see a reset stream as an ended one. To break an
//! upload off, the request runs as a task of its own and its body *fails*, which resets the stream with an error code, so
//! that the server does not wait for more.

use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use arrow::array::{Array, RecordBatch};
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use arrow::ipc::writer::{DictionaryTracker, IpcDataGenerator, IpcWriteContext, IpcWriteOptions};
use arrow_flight::{FlightData, FlightDescriptor, PutResult, SchemaAsIpc};
use bytes::Bytes;
use duckherder_proto::command::Command;
use duckherder_proto::history::Traffic;
use duckherder_proto::parts::Values;
use duckherder_proto::v1::{Compression, IngestEnd, IngestMode, IngestRequest, IngestResponse};
use duckherder_proto::{Message, limits};
use futures::stream::BoxStream;
use futures::{Stream, StreamExt, stream};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::client::Grpc;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::codegen::http::uri::PathAndQuery;
use tonic::{Request, Status};

use crate::connection::Connection;
use crate::contain::contained_async;
use crate::error::{BoxError, Call, ClientError};

/// About how much Arrow data goes into one message: large enough to be fast, small enough for any receiver.
const MESSAGE_BYTES_TARGET: usize = 2 * 1024 * 1024;

/// What a message may hold besides its body and header.
const MESSAGE_BYTES_OVERHEAD: usize = 64 * 1024;

/// Which table to send rows into, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IngestTarget {
    /// The table's schema; empty for the session's default one.
    pub schema: String,
    /// The schemas that the schema is nested in, outermost first.
    pub parent_schemas: Vec<String>,
    /// The table's name.
    pub table: String,
    /// Whether the table must exist already, or must not.
    pub mode: IngestMode,
    /// What stands behind the columns of a table that is made, as SQL: `PARTITIONED BY (k) WITH (partitions = 16)`. Mostly
    /// empty.
    pub table_clauses: String,
    /// Begin a transaction first, unless the session is in one. Outside a transaction an ingestion is one by itself.
    pub begin_transaction: bool,
}

impl IngestTarget {
    /// Append to a table of the session's default schema.
    pub fn append(table: impl Into<String>) -> Self {
        Self {
            schema: String::new(),
            parent_schemas: Vec::new(),
            table: table.into(),
            mode: IngestMode::Append,
            table_clauses: String::new(),
            begin_transaction: false,
        }
    }

    /// Create a table in the session's default schema.
    pub fn create(table: impl Into<String>) -> Self {
        Self {
            mode: IngestMode::Create,
            ..Self::append(table)
        }
    }

    pub(crate) fn into_request(self, session_id: Bytes, statement_id: u64) -> IngestRequest {
        IngestRequest {
            session_id,
            statement_id,
            schema_name: self.schema,
            parent_schemas: self.parent_schemas,
            table_name: self.table,
            mode: self.mode.into(),
            table_clauses: self.table_clauses,
            begin_transaction: self.begin_transaction,
            ..IngestRequest::default()
        }
    }
}

/// How rows are sent.
#[derive(Default)]
pub(crate) struct Sending {
    pub(crate) compression: Compression,
    /// What is handed to the network is counted here.
    pub(crate) traffic: Arc<Traffic>,
}

/// Uploads `batches` and waits for the server's word that it has kept them.
pub(crate) async fn run<S, E>(
    connection: &Connection,
    request: IngestRequest,
    schema: SchemaRef,
    batches: S,
    sending: Sending,
) -> Result<IngestResponse, ClientError>
where
    S: Stream<Item = Result<RecordBatch, E>> + Send + 'static,
    E: Into<BoxError> + Send + 'static,
{
    let call = connection.start("Ingest");
    let progress = Arc::new(Progress::default());
    let _abandon_on_drop = progress.abandoned.clone().drop_guard();
    let upload = Upload {
        messages: encode(&request, &schema, batches, sending)?.boxed(),
        abandoned: Box::pin(progress.abandoned.clone().cancelled_owned()),
        progress: Arc::clone(&progress),
    };
    let task = tokio::spawn(send(connection.clone(), call.clone(), upload, Arc::clone(&progress)));
    let outcome = match task.await {
        Ok(outcome) => outcome,
        Err(failure) if failure.is_panic() => Err(call.protocol("it cannot be read")),
        Err(_) => Err(call.cancelled()),
    };
    // What broke the upload off on this side explains whatever the other side makes of it.
    match progress.take_failure() {
        Some(failure) => Err(failure),
        None => outcome,
    }
}

/// How far an upload is, as its three parties (caller, request, request body) need to know of each other.
#[derive(Default)]
struct Progress {
    /// The caller does not want it any more.
    abandoned: CancellationToken,
    /// All messages have been handed to the transport.
    complete: CancellationToken,
    /// Why the body failed.
    failure: Mutex<Option<ClientError>>,
}

impl Progress {
    fn take_failure(&self) -> Option<ClientError> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn fail(&self, error: ClientError) {
        self.failure
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get_or_insert(error);
    }
}

async fn send(
    connection: Connection,
    call: Call,
    upload: Upload,
    progress: Arc<Progress>,
) -> Result<IngestResponse, ClientError> {
    // While the upload runs, its body breaks it off. After that the stream has its end already: dropping is safe.
    let abandoned = async {
        progress.complete.cancelled().await;
        progress.abandoned.cancelled().await;
    };
    let answer = tokio::select! {
        answer = contained_async(put(&connection, upload)) => answer,
        () = abandoned => return Err(call.cancelled()),
    };
    let answers = answer
        .map_err(|panicked| call.protocol(panicked.0))?
        .map_err(|status| call.failed(status))?;
    let [answer] = answers.as_slice() else {
        return Err(call.protocol(format!("one answer was expected, {} arrived", answers.len())));
    };
    if !progress.complete.is_cancelled() {
        return Err(call.protocol("it came before the last row was sent"));
    }
    IngestResponse::decode(&*answer.app_metadata).map_err(|error| call.protocol(format!("it is malformed: {error}")))
}

/// `DoPut`, with a body that can fail: the generated client's cannot.
async fn put(connection: &Connection, upload: Upload) -> Result<Vec<PutResult>, Status> {
    let mut client = Grpc::new(connection.channel())
        .max_decoding_message_size(limits::MESSAGE_BYTES_MAX)
        .max_encoding_message_size(limits::MESSAGE_BYTES_MAX);
    client.ready().await.map_err(|error| Status::from_error(error.into()))?;
    let path = PathAndQuery::from_static("/arrow.flight.protocol.FlightService/DoPut");
    let mut answers = client
        .streaming(Request::new(upload), path, UploadCodec)
        .await?
        .into_inner();
    let mut received = Vec::new();
    while let Some(answer) = answers.message().await? {
        received.push(answer);
        // One too many is enough to know.
        if received.len() > 1 {
            break;
        }
    }
    Ok(received)
}

/// The body of the request.
struct Upload {
    messages: BoxStream<'static, Result<FlightData, ClientError>>,
    abandoned: Pin<Box<WaitForCancellationFutureOwned>>,
    progress: Arc<Progress>,
}

/// Breaks the upload off.
struct BrokenOff;

impl Stream for Upload {
    type Item = Result<FlightData, BrokenOff>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.abandoned.as_mut().poll(context).is_ready() {
            return Poll::Ready(Some(Err(BrokenOff)));
        }
        Poll::Ready(match ready!(self.messages.poll_next_unpin(context)) {
            Some(Ok(message)) => Some(Ok(message)),
            Some(Err(error)) => {
                self.progress.fail(error);
                Some(Err(BrokenOff))
            }
            None => {
                self.progress.complete.cancel();
                None
            }
        })
    }
}

/// protobuf, except that an item may be the failure of the body.
struct UploadCodec;

impl Codec for UploadCodec {
    type Encode = Result<FlightData, BrokenOff>;
    type Decode = PutResult;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for UploadCodec {
    type Item = Result<FlightData, BrokenOff>;
    type Error = Status;

    fn encode(&mut self, item: Self::Item, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        // Not `cancelled`: the server must not take it for the end of the stream.
        let message = item.map_err(|BrokenOff| Status::aborted("the upload was broken off"))?;
        message
            .encode(buffer)
            .map_err(|error| Status::internal(error.to_string()))
    }
}

impl Decoder for UploadCodec {
    type Item = PutResult;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<PutResult>, Status> {
        PutResult::decode(buffer)
            .map(Some)
            .map_err(|error| Status::internal(error.to_string()))
    }
}

/// The messages of an upload: the schema with the request in its descriptor, the batches, the end.
fn encode<S, E>(
    request: &IngestRequest,
    schema: &SchemaRef,
    batches: S,
    Sending { compression, traffic }: Sending,
) -> Result<impl Stream<Item = Result<FlightData, ClientError>> + Send + use<S, E>, ClientError>
where
    S: Stream<Item = Result<RecordBatch, E>> + Send + 'static,
    E: Into<BoxError> + Send + 'static,
{
    let mut encoder = BatchEncoder::new(schema, compression)?;
    let first = FlightData {
        flight_descriptor: Some(FlightDescriptor::new_cmd(Command::Ingest(request.clone()).encode())),
        ..encoder.schema()
    };
    let rows = Arc::new(AtomicU64::new(0));
    let rows_sent = Arc::clone(&rows);
    let rows_traffic = Arc::clone(&traffic);
    let batches = batches.flat_map(move |batch| {
        stream::iter(match batch {
            Ok(batch) => {
                rows.fetch_add(batch.num_rows() as u64, Ordering::Relaxed);
                rows_traffic.add_sent(batch.num_rows() as u64, 0);
                split(&batch, MESSAGE_BYTES_TARGET).into_iter().map(Ok).collect()
            }
            Err(error) => vec![Err(ClientError::Input(error.into()))],
        })
    });
    Ok(stream::iter([Ok(first)])
        .chain(batches.map(move |piece| encoder.batch(&piece?)))
        .map(move |message| {
            let message = message?;
            traffic.add_sent(0, (message.data_header.len() + message.data_body.len()) as u64);
            fits(message)
        })
        .chain(stream::once(async move {
            let end = IngestEnd {
                rows: rows_sent.load(Ordering::Relaxed),
            };
            Ok(FlightData {
                app_metadata: end.encode_to_vec().into(),
                ..FlightData::default()
            })
        })))
}

/// Record batches to messages, one each. Dictionaries travel as their values.
struct BatchEncoder {
    values: Values,
    options: IpcWriteOptions,
    generator: IpcDataGenerator,
    /// There are none.
    dictionaries: DictionaryTracker,
    context: IpcWriteContext,
}

impl BatchEncoder {
    fn new(schema: &SchemaRef, compression: Compression) -> Result<Self, ClientError> {
        Ok(Self {
            values: Values::of(schema),
            options: compression.write_options().map_err(ClientError::Encode)?,
            generator: IpcDataGenerator::default(),
            dictionaries: DictionaryTracker::new(true),
            context: IpcWriteContext::default(),
        })
    }

    fn schema(&self) -> FlightData {
        SchemaAsIpc::new(self.values.schema(), &self.options).into()
    }

    fn batch(&mut self, batch: &RecordBatch) -> Result<FlightData, ClientError> {
        let batch = self.values.batch(batch).map_err(ClientError::Encode)?;
        let (_, encoded) = self
            .generator
            .encode(&batch, &mut self.dictionaries, &self.options, &mut self.context)
            .map_err(ClientError::Encode)?;
        Ok(encoded.into())
    }
}

/// One row is never split, so it may be too large for any message.
fn fits(message: FlightData) -> Result<FlightData, ClientError> {
    let bytes = message.data_body.len() + message.data_header.len();
    if bytes > limits::MESSAGE_BYTES_MAX - MESSAGE_BYTES_OVERHEAD {
        let problem = format!("a row takes {bytes} bytes, the limit is {}", limits::MESSAGE_BYTES_MAX);
        return Err(ClientError::Encode(ArrowError::InvalidArgumentError(problem)));
    }
    Ok(message)
}

/// `batch` in pieces of about `bytes_target` each, and of at least one row; without copying.
fn split(batch: &RecordBatch, bytes_target: usize) -> Vec<RecordBatch> {
    let rows = batch.num_rows();
    let pieces = slice_bytes(batch).div_ceil(bytes_target).clamp(1, rows.max(1));
    let rows_per_piece = rows.div_ceil(pieces).max(1);
    (0..rows)
        .step_by(rows_per_piece)
        .map(|offset| batch.slice(offset, rows_per_piece.min(rows - offset)))
        .collect()
}

/// The bytes that the rows of `batch` take, as opposed to those of the buffers it is a slice of.
fn slice_bytes(batch: &RecordBatch) -> usize {
    batch
        .columns()
        .iter()
        .map(|column| {
            column
                .to_data()
                .get_slice_memory_size()
                .unwrap_or_else(|_| column.get_buffer_memory_size())
        })
        .sum()
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use arrow::array::{ArrayRef, DictionaryArray, Int32Array, Int64Array, ListArray, StringArray, UnionArray};
    use arrow::buffer::OffsetBuffer;
    use arrow::datatypes::{DataType, Field, Int32Type, Schema, UnionFields, UnionMode};
    use futures::TryStreamExt;

    fn numbers(rows: usize) -> RecordBatch {
        let column: Int64Array = (0..rows as i64).collect();
        RecordBatch::try_from_iter([("i", Arc::new(column) as _)]).unwrap()
    }

    async fn messages(schema: Schema, batches: Vec<RecordBatch>) -> Result<Vec<FlightData>, ClientError> {
        let batches = stream::iter(batches.into_iter().map(Ok::<_, BoxError>));
        encode(
            &IngestRequest::default(),
            &Arc::new(schema),
            batches,
            Sending::default(),
        )?
        .try_collect()
        .await
    }

    #[test]
    fn batches_are_split_by_the_bytes_of_their_rows() {
        let batch = numbers(100_000);
        let pieces = split(&batch, 100_000);
        assert_eq!(pieces.len(), 8);
        assert_eq!(pieces.iter().map(RecordBatch::num_rows).sum::<usize>(), 100_000);
        assert_eq!(
            split(&batch.slice(7, 1000), 100_000).len(),
            1,
            "a slice counts for itself"
        );
        assert_eq!(split(&numbers(2), 1).len(), 2, "a row is never split");
        assert!(split(&numbers(0), 100).is_empty());
    }

    #[tokio::test]
    async fn the_first_message_has_the_request_and_the_schema() {
        let batch = numbers(3);
        let messages = messages(batch.schema().as_ref().clone(), vec![batch]).await.unwrap();
        assert_eq!(messages.len(), 3);
        let end = IngestEnd::decode(&*messages[2].app_metadata).unwrap();
        assert_eq!((end.rows, messages[2].data_header.len()), (3, 0));
        let descriptor = messages[0].flight_descriptor.as_ref().unwrap();
        assert!(matches!(Command::decode(&descriptor.cmd), Ok(Some(Command::Ingest(_)))));
        assert_eq!(Schema::try_from(&messages[0]).unwrap().field(0).name(), "i");
    }

    #[tokio::test]
    async fn a_schema_keeps_all_its_metadata() {
        let metadata = HashMap::from([("duckdb:type".to_owned(), "UNION(n INTEGER)".to_owned())]);
        let member = Field::new("n", DataType::Int32, true);
        let union = DataType::Union(UnionFields::try_new([0], [member]).unwrap(), UnionMode::Sparse);
        let schema = Schema::new(vec![Field::new("u", union, false).with_metadata(metadata)]);
        let messages = messages(schema.clone(), vec![]).await.unwrap();
        assert_eq!(Schema::try_from(&messages[0]).unwrap(), schema);
    }

    #[tokio::test]
    async fn dictionaries_become_values() {
        let column: DictionaryArray<Int32Type> = ["a", "b", "a"].into_iter().collect();
        let batch = RecordBatch::try_from_iter([("d", Arc::new(column) as _)]).unwrap();
        let messages = messages(batch.schema().as_ref().clone(), vec![batch]).await.unwrap();
        let decoder = crate::decode::Decoder::new(&messages[0]).unwrap();
        let batch = decoder.batch(messages[1].clone()).unwrap();
        let expected = StringArray::from(vec!["a", "b", "a"]);
        assert_eq!(batch.column(0).as_any().downcast_ref::<StringArray>(), Some(&expected));
    }

    #[tokio::test]
    async fn unions_in_lists_keep_their_nulls_and_lose_their_dictionaries() {
        let moods: DictionaryArray<Int32Type> = [Some("b"), None, Some("a"), None].into_iter().collect();
        let moods_field = |data_type: &DataType| Field::new("mood", data_type.clone(), true);
        let union = |mood: Field, moods: ArrayRef| {
            let fields = UnionFields::from_fields(vec![mood, Field::new("number", DataType::Int32, true)]);
            let numbers = Int32Array::from(vec![None, Some(7), None, None]);
            UnionArray::try_new(fields, vec![0_i8, 1, 0, 1].into(), None, vec![moods, Arc::new(numbers)]).unwrap()
        };
        let list = |union: UnionArray| -> RecordBatch {
            let item = Arc::new(Field::new("item", union.data_type().clone(), true));
            let list = ListArray::new(item, OffsetBuffer::from_lengths([3, 1]), Arc::new(union), None);
            RecordBatch::try_from_iter([("l", Arc::new(list) as ArrayRef)]).unwrap()
        };
        let values = StringArray::from(vec![Some("b"), None, Some("a"), None]);
        let expected = list(union(moods_field(&DataType::Utf8), Arc::new(values)));
        let sent = list(union(moods_field(moods.data_type()), Arc::new(moods)));

        let messages = messages(sent.schema().as_ref().clone(), vec![sent]).await.unwrap();

        let decoder = crate::decode::Decoder::new(&messages[0]).unwrap();
        assert_eq!(decoder.batch(messages[1].clone()).unwrap(), expected);
    }

    #[tokio::test]
    async fn a_batch_of_another_schema_is_an_error() {
        let schema = Schema::new(vec![Field::new("j", DataType::Int64, true)]);
        assert!(matches!(
            messages(schema, vec![numbers(1)]).await,
            Err(ClientError::Encode(_))
        ));
    }
}
