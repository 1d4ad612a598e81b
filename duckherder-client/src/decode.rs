//! Arrow IPC messages to schemas and batches, distrusting the sender.
//!
//! arrow-flight has a decoder for whole streams; ours is per message, because the last message of a statement's stream
//! is not Arrow, and because this one does not copy a message body whose buffers already lie well.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::buffer::Buffer;
use arrow::datatypes::{DataType, Schema, SchemaRef, UnionMode};
use arrow::error::ArrowError;
use arrow::ipc;
use arrow::ipc::reader::RecordBatchDecoder;
use arrow_flight::FlightData;

use crate::contain::{Panicked, contained};

/// Alignment that satisfies every Arrow type.
const BODY_ALIGNMENT: usize = 64;

/// Decodes the messages of one stream.
#[derive(Debug)]
pub(crate) struct Decoder {
    schema: SchemaRef,
    /// arrow's reader realigns the buffers of every type but this one.
    has_dense_union: bool,
}

impl Decoder {
    /// Reads the first message of a stream, the schema.
    pub(crate) fn new(first: &FlightData) -> Result<Self, ArrowError> {
        let schema = flatten(contained(|| {
            let message = message(&first.data_header)?;
            let schema = message
                .header_as_schema()
                .ok_or_else(|| malformed("the first message is not a schema"))?;
            ipc::convert::try_fb_to_schema(schema)
        }))?;
        Ok(Self {
            has_dense_union: has_dense_union(&schema),
            schema: Arc::new(schema),
        })
    }

    pub(crate) fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// Reads any later message, a record batch.
    pub(crate) fn batch(&self, data: FlightData) -> Result<RecordBatch, ArrowError> {
        flatten(contained(|| {
            let message = message(&data.data_header)?;
            let batch = message
                .header_as_record_batch()
                .ok_or_else(|| malformed("a message is not a record batch"))?;
            check(&batch, data.data_body.len())?;
            let misaligned = data.data_body.as_ptr().align_offset(BODY_ALIGNMENT) != 0;
            let body = if self.has_dense_union && misaligned {
                Buffer::from(data.data_body.as_ref())
            } else {
                Buffer::from(data.data_body)
            };
            let no_dictionaries = HashMap::new();
            let schema = Arc::clone(&self.schema);
            RecordBatchDecoder::try_new(&body, batch, schema, &no_dictionaries, &message.version())?.read_record_batch()
        }))
    }
}

fn flatten<T>(outcome: Result<Result<T, ArrowError>, Panicked>) -> Result<T, ArrowError> {
    outcome.unwrap_or_else(|Panicked(text)| Err(malformed(&text)))
}

fn malformed(problem: &str) -> ArrowError {
    ArrowError::IpcError(problem.to_owned())
}

fn message(header: &[u8]) -> Result<ipc::Message<'_>, ArrowError> {
    ipc::root_as_message(header).map_err(|error| malformed(&format!("a message header is malformed: {error}")))
}

/// Rejects what arrow's reader would panic on, or would believe.
fn check(batch: &ipc::RecordBatch<'_>, body_bytes: usize) -> Result<(), ArrowError> {
    // Version 1 of the protocol has no compression, and a claimed size would be allocated before anything is unpacked.
    if batch.compression().is_some() {
        return Err(malformed("a record batch is compressed"));
    }
    let nodes_are_sane = batch
        .nodes()
        .into_iter()
        .flatten()
        .all(|node| node.length() >= 0 && node.null_count() >= 0);
    if batch.length() < 0 || !nodes_are_sane {
        return Err(malformed("a record batch has a negative length"));
    }
    let lies_in_body = |buffer: &ipc::Buffer| {
        let offset = usize::try_from(buffer.offset()).ok();
        let end = offset.and_then(|offset| offset.checked_add(usize::try_from(buffer.length()).ok()?));
        end.is_some_and(|end| end <= body_bytes)
    };
    if batch.buffers().into_iter().flatten().all(lies_in_body) {
        Ok(())
    } else {
        Err(malformed("a buffer of a record batch lies outside its message"))
    }
}

fn has_dense_union(schema: &Schema) -> bool {
    schema
        .flattened_fields()
        .iter()
        .any(|field| matches!(field.data_type(), DataType::Union(_, UnionMode::Dense)))
}
