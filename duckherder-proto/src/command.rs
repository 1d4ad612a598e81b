//! Commands: requests that travel in a `Ticket` or in a `FlightDescriptor`, wrapped in `google.protobuf.Any` as Flight
//! SQL wraps its own, so that a server tells the two apart by the type URL.

use prost::Message;
use prost::bytes::Bytes;
use prost_types::Any;

use crate::error::{ExceptionType, RemoteError};
use crate::v1::{ExecuteRequest, IngestRequest, ReadExchangeRequest, ReadResultRequest, RunStagesRequest};

const TYPE_URL_PREFIX: &str = "type.googleapis.com/duckherder.v1.";

/// A command of our own protocol.
#[derive(Debug, Clone, PartialEq)]
pub enum Command {
    /// Run a statement (`DoGet`).
    Execute(ExecuteRequest),
    /// Join in reading a statement's result (`DoGet`).
    ReadResult(ReadResultRequest),
    /// Take rows in (`DoPut`).
    Ingest(IngestRequest),
    /// Run a worker's part of a distributed query (`DoGet`).
    RunStages(RunStagesRequest),
    /// Read what one worker has for another (`DoGet`).
    ReadExchange(ReadExchangeRequest),
}

impl Command {
    /// The bytes of a ticket or of a descriptor's `cmd`.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let (name, value) = match self {
            Self::Execute(request) => ("ExecuteRequest", request.encode_to_vec()),
            Self::ReadResult(request) => ("ReadResultRequest", request.encode_to_vec()),
            Self::Ingest(request) => ("IngestRequest", request.encode_to_vec()),
            Self::RunStages(request) => ("RunStagesRequest", request.encode_to_vec()),
            Self::ReadExchange(request) => ("ReadExchangeRequest", request.encode_to_vec()),
        };
        Any {
            type_url: format!("{TYPE_URL_PREFIX}{name}"),
            value,
        }
        .encode_to_vec()
        .into()
    }

    /// The command in a ticket or descriptor; `None` if the bytes are not of our own protocol (Flight SQL, then).
    ///
    /// # Errors
    /// An `Invalid Input` error if the bytes claim to be ours and are not.
    pub fn decode(bytes: &[u8]) -> Result<Option<Self>, RemoteError> {
        let Ok(any) = Any::decode(bytes) else { return Ok(None) };
        let Some(name) = any.type_url.strip_prefix(TYPE_URL_PREFIX) else {
            return Ok(None);
        };
        let malformed = |error| {
            RemoteError::new(
                ExceptionType::InvalidInput,
                format!("malformed command duckherder.v1.{name}: {error}"),
            )
        };
        match name {
            "ExecuteRequest" => Ok(Some(Self::Execute(
                ExecuteRequest::decode(&*any.value).map_err(malformed)?,
            ))),
            "ReadResultRequest" => Ok(Some(Self::ReadResult(
                ReadResultRequest::decode(&*any.value).map_err(malformed)?,
            ))),
            "IngestRequest" => Ok(Some(Self::Ingest(
                IngestRequest::decode(&*any.value).map_err(malformed)?,
            ))),
            "RunStagesRequest" => Ok(Some(Self::RunStages(
                RunStagesRequest::decode(&*any.value).map_err(malformed)?,
            ))),
            "ReadExchangeRequest" => Ok(Some(Self::ReadExchange(
                ReadExchangeRequest::decode(&*any.value).map_err(malformed)?,
            ))),
            _ => Err(RemoteError::new(
                ExceptionType::InvalidInput,
                format!("unknown command duckherder.v1.{name}: is this duckling older than the client?"),
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn other_peoples_commands_are_left_to_them() {
        assert_eq!(Command::decode(b"\xff\xff garbage").unwrap(), None);
        let any = Any {
            type_url: "type.googleapis.com/arrow.flight.protocol.sql.CommandGetTables".into(),
            value: vec![],
        };
        assert_eq!(Command::decode(&any.encode_to_vec()).unwrap(), None);
    }

    #[test]
    fn unknown_commands_of_ours_are_an_error() {
        let any = Any {
            type_url: "type.googleapis.com/duckherder.v1.Fly".into(),
            value: vec![],
        };
        assert!(
            Command::decode(&any.encode_to_vec())
                .unwrap_err()
                .message
                .contains("duckherder.v1.Fly")
        );
    }

    proptest! {
        #[test]
        fn commands_round_trip(sql in ".*", statement_id: u64, begin_transaction: bool, session in any::<Vec<u8>>(), history: [u8; 16]) {
            let command = Command::Execute(ExecuteRequest {
                session_id: session.into(),
                statement_id,
                sql,
                begin_transaction,
                history_id: history.to_vec().into(),
                stored_types: true,
                further_streams: 3,
                ..ExecuteRequest::default()
            });
            prop_assert_eq!(Command::decode(&command.encode()).unwrap(), Some(command));
            let command = Command::ReadResult(ReadResultRequest {
                session_id: history.to_vec().into(),
                statement_id,
            });
            prop_assert_eq!(Command::decode(&command.encode()).unwrap(), Some(command));
        }

        #[test]
        fn hostile_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..256)) {
            let _ = Command::decode(&bytes);
        }
    }
}
