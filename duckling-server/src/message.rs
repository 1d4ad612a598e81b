//! Flight messages on their way to clients.

use std::collections::VecDeque;
use std::io::IoSlice;

use arrow_flight::FlightData;
use bytes::{Buf, BufMut, Bytes, BytesMut};
use prost::encoding::{encode_varint, encoded_len_varint};

/// Pieces of a body that are smaller are copied together: a frame of HTTP/2 has its price too.
const PIECE_BYTES_MIN: usize = 4 * 1024;

/// Bytes of a gRPC message's prefix: whether it is compressed, and its length.
/// [gRPC over HTTP/2](https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md), "Length-Prefixed-Message".
const PREFIX_BYTES: usize = 5;

/// Tags of the fields of `FlightData` (`Flight.proto`), all with a length: `(number << 3) | 2`, as varints.
const TAG_DATA_HEADER: &[u8] = &[0x12];
const TAG_APP_METADATA: &[u8] = &[0x1A];
const TAG_DATA_BODY: &[u8] = &[0xC2, 0x3E];

/// Bytes of a varint, at most.
const VARINT_BYTES_MAX: usize = 10;

/// What a [`FlightData`] is, with a body in pieces: Arrow's buffers as they are, without a copy that brings them together.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Message {
    /// An encapsulated Arrow message's metadata.
    pub header: Bytes,
    pub app_metadata: Bytes,
    body: Vec<Bytes>,
    body_bytes: usize,
}

impl Message {
    /// One with nothing of Arrow's.
    pub fn of_metadata(app_metadata: impl Into<Bytes>) -> Self {
        Self {
            app_metadata: app_metadata.into(),
            ..Self::default()
        }
    }

    /// An Arrow message.
    pub fn of_arrow(header: impl Into<Bytes>, body: Vec<Bytes>) -> Self {
        Self {
            header: header.into(),
            app_metadata: Bytes::new(),
            body_bytes: body.iter().map(Bytes::len).sum(),
            body,
        }
    }

    /// The body's pieces.
    pub fn body(&self) -> &[Bytes] {
        &self.body
    }

    /// Bytes of the body.
    pub fn body_bytes(&self) -> usize {
        self.body_bytes
    }

    /// Bytes of Arrow's: header and body.
    pub fn arrow_bytes(&self) -> usize {
        self.header.len() + self.body_bytes
    }

    /// Bytes of all.
    pub fn bytes(&self) -> usize {
        self.arrow_bytes() + self.app_metadata.len()
    }

    /// Bytes of the message in gRPC, without its prefix.
    pub fn encoded_bytes(&self) -> usize {
        let field = |tag: &[u8], bytes: usize| match bytes {
            0 => 0,
            _ => tag.len() + encoded_len_varint(bytes as u64) + bytes,
        };
        field(TAG_DATA_HEADER, self.header.len())
            + field(TAG_APP_METADATA, self.app_metadata.len())
            + field(TAG_DATA_BODY, self.body_bytes)
    }

    /// Appends the message as gRPC has it, prefix included, to `pieces`: what is small to `gathered`, which goes before
    /// what is large, and is left with what comes last. The message must be shorter than 4 GiB.
    pub fn encode(self, gathered: &mut BytesMut, pieces: &mut impl Extend<Bytes>) {
        let encoded_bytes = self.encoded_bytes();
        gathered.reserve(
            PREFIX_BYTES + self.header.len() + self.app_metadata.len() + 3 * (VARINT_BYTES_MAX + TAG_DATA_BODY.len()),
        );
        gathered.put_u8(0);
        gathered.put_u32(u32::try_from(encoded_bytes).unwrap_or(u32::MAX));
        for (tag, value) in [(TAG_DATA_HEADER, &self.header), (TAG_APP_METADATA, &self.app_metadata)] {
            if !value.is_empty() {
                gathered.extend_from_slice(tag);
                encode_varint(value.len() as u64, gathered);
                gathered.extend_from_slice(value);
            }
        }
        if self.body_bytes == 0 {
            return;
        }
        gathered.extend_from_slice(TAG_DATA_BODY);
        encode_varint(self.body_bytes as u64, gathered);
        for piece in self.body {
            if piece.len() < PIECE_BYTES_MIN {
                gathered.extend_from_slice(&piece);
            } else {
                pieces.extend([gathered.split().freeze(), piece]);
            }
        }
    }
}

/// Bytes in several pieces, to be sent one after the other.
#[derive(Debug, Default)]
pub struct Parts {
    /// None of them empty.
    pieces: VecDeque<Bytes>,
    bytes: usize,
}

impl Parts {
    /// Adds a piece behind the others.
    pub fn push(&mut self, piece: Bytes) {
        if !piece.is_empty() {
            self.bytes += piece.len();
            self.pieces.push_back(piece);
        }
    }
}

impl FromIterator<Bytes> for Parts {
    fn from_iter<I: IntoIterator<Item = Bytes>>(pieces: I) -> Self {
        let mut parts = Self::default();
        for piece in pieces {
            parts.push(piece);
        }
        parts
    }
}

impl Buf for Parts {
    fn remaining(&self) -> usize {
        self.bytes
    }

    fn chunk(&self) -> &[u8] {
        self.pieces.front().map_or(&[], |piece| piece)
    }

    fn chunks_vectored<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        for (slice, piece) in slices.iter_mut().zip(&self.pieces) {
            *slice = IoSlice::new(piece);
        }
        slices.len().min(self.pieces.len())
    }

    fn advance(&mut self, mut count: usize) {
        assert!(count <= self.bytes, "there are {} bytes, not {count}", self.bytes);
        self.bytes -= count;
        while let Some(piece) = self.pieces.front_mut() {
            if count < piece.len() {
                piece.advance(count);
                return;
            }
            count -= piece.len();
            self.pieces.pop_front();
        }
    }
}

impl From<FlightData> for Message {
    fn from(data: FlightData) -> Self {
        let body = if data.data_body.is_empty() {
            Vec::new()
        } else {
            vec![data.data_body]
        };
        Self {
            app_metadata: data.app_metadata,
            ..Self::of_arrow(data.data_header, body)
        }
    }
}

impl From<Message> for FlightData {
    /// Copies the body together, if it has several pieces.
    fn from(message: Message) -> Self {
        let data_body = match message.body.as_slice() {
            [] => Bytes::new(),
            [one] => one.clone(),
            pieces => pieces.concat().into(),
        };
        Self {
            data_header: message.header,
            app_metadata: message.app_metadata,
            data_body,
            flight_descriptor: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use prost::Message as _;

    use super::*;

    fn bytes(max: usize) -> impl Strategy<Value = Bytes> {
        proptest::collection::vec(any::<u8>(), 0..max).prop_map(Bytes::from)
    }

    fn pieces() -> impl Strategy<Value = Vec<Bytes>> {
        let large = bytes(8).prop_map(|seed| Bytes::from(seed.repeat(2000)));
        proptest::collection::vec(prop_oneof![bytes(300), large], 0..6)
    }

    proptest! {
        #[test]
        fn parts_are_what_they_are_of(pieces in pieces(), steps in proptest::collection::vec(0..20_000_usize, 0..8)) {
            let mut expected: &[u8] = &pieces.concat();
            let mut parts: Parts = pieces.into_iter().collect();
            for step in steps {
                let step = step.min(expected.len());
                let mut slices = [IoSlice::new(&[]); 2];
                let count = parts.chunks_vectored(&mut slices);
                let seen: Vec<u8> = slices[..count].iter().flat_map(|slice| slice.iter().copied()).collect();
                prop_assert!(expected.starts_with(&seen) && seen.is_empty() == expected.is_empty());
                prop_assert!(seen.starts_with(parts.chunk()));
                parts.advance(step);
                expected = &expected[step..];
                prop_assert_eq!(parts.remaining(), expected.len());
            }
            prop_assert_eq!(parts.copy_to_bytes(expected.len()), expected);
        }

        #[test]
        fn messages_are_encoded_as_protocol_buffers_are(
            header in bytes(300),
            app_metadata in bytes(20),
            body in pieces(),
            before in bytes(20),
        ) {
            let message = Message { app_metadata, ..Message::of_arrow(header, body) };
            let expected = FlightData::from(message.clone());
            let (mut gathered, mut pieces) = (BytesMut::from(&*before), Vec::new());
            prop_assert_eq!(message.encoded_bytes(), expected.encoded_len());
            message.encode(&mut gathered, &mut pieces);
            pieces.push(gathered.freeze());
            let all = pieces.concat();
            let (found_before, rest) = all.split_at(before.len());
            prop_assert_eq!(found_before, &*before);
            let (prefix, rest) = rest.split_at(PREFIX_BYTES);
            prop_assert_eq!(prefix[0], 0);
            prop_assert_eq!(u32::from_be_bytes(prefix[1..].try_into().unwrap()) as usize, rest.len());
            prop_assert_eq!(FlightData::decode(rest).unwrap(), expected);
        }
    }
}
