//! The bodies of Arrow IPC messages: how they are compressed, and what of one can be checked before it is decoded.

use std::str::FromStr;

use arrow::error::ArrowError;
use arrow::ipc;
use arrow::ipc::CompressionType;
use arrow::ipc::writer::IpcWriteOptions;
use arrow_flight::FlightData;

use crate::limits::MESSAGE_BYTES_MAX;
use crate::v1::Compression;

/// Bytes before a compressed buffer: how long it is otherwise, or -1 for one that is not compressed.
/// [Arrow columnar format, "Compression"](https://arrow.apache.org/docs/format/Columnar.html#compression).
const LENGTH_BYTES: usize = 8;

/// A text that is no name of a compression.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is no compression; there are none, lz4 and zstd")]
pub struct CompressionError(String);

/// `none`, `lz4` or `zstd`, in any case.
impl FromStr for Compression {
    type Err = CompressionError;

    fn from_str(text: &str) -> Result<Self, CompressionError> {
        match text.to_ascii_lowercase().as_str() {
            "none" => Ok(Self::None),
            "lz4" => Ok(Self::Lz4Frame),
            "zstd" => Ok(Self::Zstd),
            _ => Err(CompressionError(text.chars().take(64).collect())),
        }
    }
}

impl Compression {
    /// How Arrow's writers are to write.
    ///
    /// # Errors
    /// None: Arrow's format has had compression since its version 5, which is what is written.
    pub fn write_options(self) -> Result<IpcWriteOptions, ArrowError> {
        IpcWriteOptions::default().try_with_compression(match self {
            Self::None => None,
            Self::Lz4Frame => Some(CompressionType::LZ4_FRAME),
            Self::Zstd => Some(CompressionType::ZSTD),
        })
    }
}

/// Refuses a message whose decoder would panic, or allocate what it claims: to be asked before anything is decoded. What
/// is no record batch passes.
///
/// # Errors
/// What is malformed, or that the batch takes more than [`MESSAGE_BYTES_MAX`] when it is unpacked.
pub fn check_message(data: &FlightData) -> Result<(), ArrowError> {
    if data.data_header.is_empty() {
        return Ok(());
    }
    let message = message(&data.data_header)?;
    let batch = match message.header_type() {
        ipc::MessageHeader::RecordBatch => message.header_as_record_batch(),
        ipc::MessageHeader::DictionaryBatch => message.header_as_dictionary_batch().and_then(|batch| batch.data()),
        _ => None,
    };
    batch.map_or(Ok(()), |batch| check_batch(&batch, &data.data_body))
}

/// The message of a header.
///
/// # Errors
/// It is malformed.
pub fn message(header: &[u8]) -> Result<ipc::Message<'_>, ArrowError> {
    ipc::root_as_message(header).map_err(|error| malformed(&format!("a message header is malformed: {error}")))
}

/// As [`check_message`], of a record batch and its message's body.
///
/// # Errors
/// As [`check_message`].
pub fn check_batch(batch: &ipc::RecordBatch<'_>, body: &[u8]) -> Result<(), ArrowError> {
    let nodes_are_sane = batch
        .nodes()
        .into_iter()
        .flatten()
        .all(|node| node.length() >= 0 && node.null_count() >= 0);
    if batch.length() < 0 || !nodes_are_sane {
        return Err(malformed("a record batch has a negative length"));
    }
    let mut unpacked: usize = 0;
    for buffer in batch.buffers().into_iter().flatten() {
        let bytes =
            bytes_of(buffer, body).ok_or_else(|| malformed("a buffer of a record batch lies outside its message"))?;
        if batch.compression().is_some() && !bytes.is_empty() {
            let length = bytes
                .first_chunk::<LENGTH_BYTES>()
                .map(|length| i64::from_le_bytes(*length))
                .ok_or_else(|| malformed("a compressed buffer does not say how long it is"))?;
            // -1: as it is.
            let length = if length == -1 {
                bytes.len()
            } else {
                usize::try_from(length).unwrap_or(usize::MAX)
            };
            unpacked = unpacked.saturating_add(length);
        }
    }
    if unpacked > MESSAGE_BYTES_MAX {
        return Err(malformed(&format!(
            "a compressed record batch takes more than {} MiB, the limit, when it is unpacked",
            MESSAGE_BYTES_MAX >> 20
        )));
    }
    Ok(())
}

fn bytes_of<'a>(buffer: &ipc::Buffer, body: &'a [u8]) -> Option<&'a [u8]> {
    let start = usize::try_from(buffer.offset()).ok()?;
    let length = usize::try_from(buffer.length()).ok()?;
    body.get(start..start.checked_add(length)?)
}

/// An error that says what is wrong with a message.
#[must_use]
pub fn malformed(problem: &str) -> ArrowError {
    ArrowError::IpcError(problem.to_owned())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Int64Array, RecordBatch};
    use arrow::ipc::writer::{DictionaryTracker, IpcDataGenerator, IpcWriteContext};

    use super::*;

    fn compressed(compression: Compression) -> FlightData {
        let numbers = Int64Array::from(vec![7; 10_000]);
        let batch = RecordBatch::try_from_iter([("i", Arc::new(numbers) as _)]).unwrap();
        let (_, encoded) = IpcDataGenerator::default()
            .encode(
                &batch,
                &mut DictionaryTracker::new(false),
                &compression.write_options().unwrap(),
                &mut IpcWriteContext::default(),
            )
            .unwrap();
        encoded.into()
    }

    #[test]
    fn names_are_those_of_attach() {
        assert_eq!("LZ4".parse(), Ok(Compression::Lz4Frame));
        assert_eq!("none".parse(), Ok(Compression::None));
        assert_eq!("zstd".parse(), Ok(Compression::Zstd));
        assert!(
            "gzip"
                .parse::<Compression>()
                .unwrap_err()
                .to_string()
                .contains("lz4 and zstd")
        );
    }

    #[test]
    fn compressed_batches_are_smaller_and_pass() {
        let plain = compressed(Compression::None);
        check_message(&plain).unwrap();
        for compression in [Compression::Lz4Frame, Compression::Zstd] {
            let message = compressed(compression);
            assert!(message.data_body.len() * 10 < plain.data_body.len());
            check_message(&message).unwrap();
        }
    }

    #[test]
    fn a_length_that_is_claimed_is_not_believed() {
        let message = compressed(Compression::Zstd);
        for claimed in [i64::MAX, MESSAGE_BYTES_MAX as i64 + 1, -2] {
            let mut body = message.data_body.to_vec();
            let old = 80_000_i64.to_le_bytes();
            let at = body.windows(LENGTH_BYTES).position(|window| window == old).unwrap();
            body[at..at + LENGTH_BYTES].copy_from_slice(&claimed.to_le_bytes());
            let message = FlightData {
                data_body: body.into(),
                ..message.clone()
            };
            assert!(
                check_message(&message).unwrap_err().to_string().contains("the limit"),
                "{claimed}"
            );
        }
    }

    #[test]
    fn buffers_outside_of_the_body_are_refused() {
        let message = compressed(Compression::None);
        let short = FlightData {
            data_body: message.data_body.slice(..64),
            ..message
        };
        assert!(check_message(&short).unwrap_err().to_string().contains("outside"));
    }
}
