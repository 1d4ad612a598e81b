//! Record batches to Flight messages.

use arrow::array::RecordBatch;
use arrow::buffer::Buffer;
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use arrow::ipc::writer::{DictionaryTracker, IpcDataGenerator, IpcWriteOptions, StreamEncoder};
use arrow::ipc::{MessageHeader, root_as_message};
use arrow_flight::FlightData;
use bytes::Bytes;
use duckherder_proto::v1::Compression;
use duckherder_proto::{ExceptionType, RemoteError};

use crate::message::Message;

/// Bytes that every client accepts as one message: tonic's and grpc-js's default, less a margin for the envelope.
const MESSAGE_BYTES_ACCEPTED: usize = 4 * 1024 * 1024 - 64 * 1024;

/// Bytes before an encapsulated message's metadata in a stream: the continuation marker and the metadata's length.
/// [Arrow columnar format, "Encapsulated message format"](https://arrow.apache.org/docs/format/Columnar.html#encapsulated-message-format).
const PREFIX_BYTES: usize = 8;

/// Record batches to Flight messages of bounded size, without copying their buffers.
pub struct BatchEncoder {
    options: IpcWriteOptions,
    /// There from the first batch on.
    stream: Option<StreamEncoder>,
    message_bytes: usize,
}

impl BatchEncoder {
    /// Messages get about `message_bytes` of Arrow data; a single row is never split.
    pub fn new(message_bytes: usize) -> Self {
        Self {
            options: IpcWriteOptions::default(),
            stream: None,
            message_bytes,
        }
    }

    /// As [`BatchEncoder::new`], with compressed buffers; the size of messages is that before.
    ///
    /// # Errors
    /// None that is known.
    pub fn compressed(message_bytes: usize, compression: Compression) -> Result<Self, RemoteError> {
        Ok(Self {
            options: compression.write_options().map_err(|error| failed(&error))?,
            ..Self::new(message_bytes)
        })
    }

    /// The schema message.
    pub fn schema(&self, schema: &SchemaRef) -> Message {
        let mut dictionaries = DictionaryTracker::new(false);
        let encoded = IpcDataGenerator::default().schema_to_bytes_with_dictionary_tracker(
            schema,
            &mut dictionaries,
            &self.options,
        );
        FlightData::from(encoded).into()
    }

    /// Hands the messages of one batch to `send`. All batches have the same schema.
    ///
    /// # Errors
    /// Those of `send`.
    pub fn encode(
        &mut self,
        batch: &RecordBatch,
        send: &mut dyn FnMut(Message) -> Result<(), RemoteError>,
    ) -> Result<(), RemoteError> {
        let bytes = batch.get_array_memory_size();
        let pieces = bytes
            .div_ceil(self.message_bytes.max(1))
            .clamp(1, batch.num_rows().max(1));
        let rows = batch.num_rows().div_ceil(pieces).max(1);
        let mut offset = 0;
        loop {
            let piece = batch.slice(offset, rows.min(batch.num_rows() - offset));
            self.encode_piece(&piece, send)?;
            offset += rows;
            if offset >= batch.num_rows() {
                return Ok(());
            }
        }
    }

    /// One message, or more if rows of very different size make it larger than others may accept.
    fn encode_piece(
        &mut self,
        piece: &RecordBatch,
        send: &mut dyn FnMut(Message) -> Result<(), RemoteError>,
    ) -> Result<(), RemoteError> {
        let messages = self.messages(piece).map_err(|error| failed(&error))?;
        let rows = piece.num_rows();
        for (kind, message) in messages {
            if kind == MessageHeader::RecordBatch && message.arrow_bytes() > MESSAGE_BYTES_ACCEPTED && rows > 1 {
                let half = rows / 2;
                self.encode_piece(&piece.slice(0, half), send)?;
                return self.encode_piece(&piece.slice(half, rows - half), send);
            }
            send(message)?;
        }
        Ok(())
    }

    /// The messages of a batch: dictionaries that are new, and the rows.
    fn messages(&mut self, batch: &RecordBatch) -> Result<Vec<(MessageHeader, Message)>, ArrowError> {
        let stream = match &mut self.stream {
            Some(stream) => stream,
            None => {
                let stream = StreamEncoder::try_new_with_options(&batch.schema(), self.options.clone())?;
                self.stream.insert(stream)
            }
        };
        let mut messages = Vec::with_capacity(1);
        let mut rest = Pieces(stream.encode(batch)?.into_iter());
        while let Some(prefix) = rest.take(PREFIX_BYTES)? {
            let length = prefix.concat();
            let length: Option<[u8; 4]> = length.get(4..).and_then(|length| length.try_into().ok());
            let length = length.map(u32::from_le_bytes).unwrap_or_default() as usize;
            let header: Bytes = rest.take(length)?.unwrap_or_default().concat().into();
            let (kind, body_bytes) = {
                let message = root_as_message(&header).map_err(|error| ArrowError::IpcError(error.to_string()))?;
                (
                    message.header_type(),
                    usize::try_from(message.bodyLength()).unwrap_or_default(),
                )
            };
            let body = rest.take(body_bytes)?.unwrap_or_default();
            // The first batch brings the schema along.
            if kind != MessageHeader::Schema {
                messages.push((kind, Message::of_arrow(header, body)));
            }
        }
        Ok(messages)
    }
}

/// What an encoder has yielded, piece by piece.
struct Pieces(std::vec::IntoIter<Buffer>);

impl Pieces {
    /// As many pieces as make `bytes`; `None` at the end.
    ///
    /// # Errors
    /// The pieces' ends are elsewhere.
    fn take(&mut self, bytes: usize) -> Result<Option<Vec<Bytes>>, ArrowError> {
        let (mut taken, mut missing) = (Vec::new(), bytes);
        while missing > 0 {
            let Some(piece) = self.0.next() else {
                if taken.is_empty() {
                    return Ok(None);
                }
                return Err(ArrowError::IpcError("an encoded message is cut off".to_owned()));
            };
            missing = missing
                .checked_sub(piece.len())
                .ok_or_else(|| ArrowError::IpcError("an encoded message is longer than it says".to_owned()))?;
            if !piece.is_empty() {
                taken.push(Bytes::from_owner(piece));
            }
        }
        Ok(Some(taken))
    }
}

fn failed(error: &ArrowError) -> RemoteError {
    RemoteError::new(ExceptionType::Serialization, error.to_string())
}
