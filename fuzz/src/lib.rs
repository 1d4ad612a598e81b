//! How a stream of Flight messages is laid out in the input of a fuzz target.

use arrow_flight::FlightData;
use bytes::Bytes;

/// Messages of one input.
const MESSAGES_MAX: usize = 16;

/// The messages in `bytes`: the length of a header and of a body, as `u16` in little endian, and both; what is missing at
/// the end is cut.
pub fn messages(bytes: &[u8]) -> impl Iterator<Item = FlightData> + use<> {
    let mut rest = Bytes::copy_from_slice(bytes);
    std::iter::from_fn(move || {
        if rest.len() < 4 {
            return None;
        }
        let lengths = rest.split_to(4);
        let length = |at: usize| usize::from(u16::from_le_bytes([lengths[at], lengths[at + 1]]));
        let mut take = |length: usize| rest.split_to(length.min(rest.len()));
        Some(FlightData {
            data_header: take(length(0)),
            data_body: take(length(2)),
            ..FlightData::default()
        })
    })
    .take(MESSAGES_MAX)
}

/// For targets whose code catches panics of libraries: those are no findings. A panic that nobody catches still is one.
pub fn expect_panics() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| std::panic::set_hook(Box::new(|_| {})));
}

/// The other way round.
pub fn layout(messages: &[FlightData]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for message in messages {
        for part in [&message.data_header, &message.data_body] {
            bytes.extend(u16::try_from(part.len()).unwrap_or(u16::MAX).to_le_bytes());
        }
        bytes.extend_from_slice(&message.data_header);
        bytes.extend_from_slice(&message.data_body);
    }
    bytes
}
