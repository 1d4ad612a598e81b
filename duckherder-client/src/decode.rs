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
use bytes::Bytes;
use duckherder_proto::ipc::{check_batch, malformed, message};

use crate::contain::{Panicked, contained};

/// Alignment that satisfies every Arrow type.
const BODY_ALIGNMENT: usize = 64;

/// Decodes the messages of one stream.
#[derive(Debug)]
pub(crate) struct Decoder {
    schema: SchemaRef,
    /// As it was sent.
    header: Bytes,
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
            // What it came in may be much larger, and this may be kept.
            header: Bytes::copy_from_slice(&first.data_header),
        })
    }

    /// As [`Decoder::new`], for a stream whose schema is probably that of this one.
    pub(crate) fn again(self: &Arc<Self>, first: &FlightData) -> Result<Arc<Self>, ArrowError> {
        if first.data_header == self.header {
            return Ok(Arc::clone(self));
        }
        Self::new(first).map(Arc::new)
    }

    /// The header of the message that the schema came in.
    pub(crate) fn header(&self) -> &Bytes {
        &self.header
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
            check_batch(&batch, &data.data_body)?;
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

/// How many rows the header of a record batch says.
pub(crate) fn rows_of(header: &[u8]) -> Result<u64, ArrowError> {
    flatten(contained(|| {
        let message = message(header)?;
        let batch = message
            .header_as_record_batch()
            .ok_or_else(|| malformed("a message is not a record batch"))?;
        u64::try_from(batch.length()).map_err(|_| malformed("a record batch has a negative number of rows"))
    }))
}

fn flatten<T>(outcome: Result<Result<T, ArrowError>, Panicked>) -> Result<T, ArrowError> {
    outcome.unwrap_or_else(|Panicked(text)| Err(malformed(&text)))
}

fn has_dense_union(schema: &Schema) -> bool {
    schema
        .flattened_fields()
        .iter()
        .any(|field| matches!(field.data_type(), DataType::Union(_, UnionMode::Dense)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{
        ArrayRef, BooleanArray, DictionaryArray, FixedSizeBinaryArray, Int64Array, ListArray, NullArray, StringArray,
        StringViewArray, StructArray, UnionArray,
    };
    use arrow::datatypes::{Field, Int32Type, UnionFields};
    use arrow_flight::encode::{DictionaryHandling, FlightDataEncoderBuilder};
    use arrow_flight::utils::batches_to_flight_data;
    use futures::TryStreamExt;
    use proptest::prelude::*;

    /// A batch with every layout that Arrow has for its buffers.
    fn batch() -> RecordBatch {
        let text = StringArray::from(vec![Some("mallard"), None, Some("")]);
        let member = || Field::new("n", DataType::Int64, true);
        let numbers: ArrayRef = Arc::new(Int64Array::from(vec![Some(1), None, Some(-1)]));
        let ids = || vec![0_i8; 3].into();
        let fields = || UnionFields::try_new([0], [member()]).unwrap();
        let sparse = UnionArray::try_new(fields(), ids(), None, vec![Arc::clone(&numbers)]).unwrap();
        let offsets = Some(vec![2, 0, 1].into());
        let dense = UnionArray::try_new(fields(), ids(), offsets, vec![Arc::clone(&numbers)]).unwrap();
        let structs = StructArray::from(vec![(Arc::new(member()), Arc::clone(&numbers))]);
        let lists = ListArray::from_iter_primitive::<Int32Type, _, _>([Some(vec![Some(1), None]), None, Some(vec![])]);
        let blobs = FixedSizeBinaryArray::try_from_iter([[1; 16], [2; 16], [3; 16]].iter()).unwrap();
        let views = StringViewArray::from(vec![Some("a text too long to be inlined"), None, Some("short")]);
        RecordBatch::try_from_iter([
            ("text", Arc::new(text) as _),
            ("numbers", numbers),
            (
                "flags",
                Arc::new(BooleanArray::from(vec![Some(true), None, Some(false)])) as _,
            ),
            ("sparse", Arc::new(sparse) as _),
            ("dense", Arc::new(dense) as _),
            ("structs", Arc::new(structs) as _),
            ("lists", Arc::new(lists) as _),
            ("blobs", Arc::new(blobs) as _),
            ("views", Arc::new(views) as _),
            ("nothing", Arc::new(NullArray::new(3)) as _),
        ])
        .unwrap()
    }

    fn messages() -> [FlightData; 2] {
        let batch = batch();
        batches_to_flight_data(&batch.schema(), [&batch])
            .unwrap()
            .try_into()
            .unwrap()
    }

    fn moved(bytes: &[u8], by: usize) -> bytes::Bytes {
        bytes::Bytes::from([vec![0; by].as_slice(), bytes].concat()).slice(by..)
    }

    #[test]
    fn batches_are_read_wherever_their_bytes_lie() {
        let [schema, data] = messages();
        let decoder = Decoder::new(&schema).unwrap();
        for by in 0..BODY_ALIGNMENT {
            let data = FlightData {
                data_body: moved(&data.data_body, by),
                ..data.clone()
            };
            assert_eq!(decoder.batch(data).unwrap(), batch());
        }
    }

    #[test]
    fn buffers_that_lie_well_are_not_copied() {
        let batch = RecordBatch::try_from_iter([("text", Arc::new(StringArray::from(vec!["mallard"])) as _)]).unwrap();
        let [schema, data] = batches_to_flight_data(&batch.schema(), [&batch])
            .unwrap()
            .try_into()
            .unwrap();
        let body = data.data_body.as_ptr_range();
        let decoded = Decoder::new(&schema).unwrap().batch(data.clone()).unwrap();
        let column = decoded.column(0).as_any().downcast_ref::<StringArray>().unwrap();
        assert!(body.contains(&column.value_data().as_ptr()));
    }

    #[test]
    fn dictionaries_are_not_expected() {
        let column: DictionaryArray<Int32Type> = ["a", "b", "a"].into_iter().collect();
        let batch = RecordBatch::try_from_iter([("d", Arc::new(column) as _)]).unwrap();
        let encoder = FlightDataEncoderBuilder::new().with_dictionary_handling(DictionaryHandling::Resend);
        let messages = encoder
            .build(futures::stream::iter([Ok(batch)]))
            .try_collect::<Vec<_>>();
        let messages = futures::executor::block_on(messages).unwrap();
        let decoder = Decoder::new(&messages[0]).unwrap();
        assert!(decoder.batch(messages[1].clone()).is_err());
    }

    #[test]
    fn invalid_text_is_an_error() {
        let [schema, mut data] = messages();
        let mut body = data.data_body.to_vec();
        let start = body.windows(7).position(|window| window == b"mallard").unwrap();
        body[start] = 0xff;
        data.data_body = body.into();
        assert!(Decoder::new(&schema).unwrap().batch(data).is_err());
    }

    fn damaged(bytes: &[u8], damage: &[(prop::sample::Index, u8)]) -> bytes::Bytes {
        let mut bytes = bytes.to_vec();
        for (index, value) in damage {
            let index = index.index(bytes.len());
            bytes[index] = *value;
        }
        bytes.into()
    }

    fn damage() -> impl Strategy<Value = Vec<(prop::sample::Index, u8)>> {
        let extreme = prop_oneof![Just(0), Just(1), Just(0x7f), Just(0x80), Just(0xff), any::<u8>()];
        prop::collection::vec((any::<prop::sample::Index>(), extreme), 1..4)
    }

    proptest! {
        #[test]
        fn damaged_headers_never_take_the_caller_down(damage in damage()) {
            let [schema, mut data] = messages();
            data.data_header = damaged(&data.data_header, &damage);
            let _ = Decoder::new(&schema).unwrap().batch(data);
        }

        #[test]
        fn damaged_bodies_never_take_the_caller_down(damage in damage()) {
            let [schema, mut data] = messages();
            data.data_body = damaged(&data.data_body, &damage);
            let _ = Decoder::new(&schema).unwrap().batch(data);
        }

        #[test]
        fn damaged_schemas_never_take_the_caller_down(damage in damage()) {
            let [mut schema, data] = messages();
            schema.data_header = damaged(&schema.data_header, &damage);
            if let Ok(decoder) = Decoder::new(&schema) {
                let _ = decoder.batch(data);
            }
        }
    }
}
