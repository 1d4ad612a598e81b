//! What can go wrong, a variant per operation that failed.

use std::error::Error;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::error::ArrowError;
use duckherder_proto::{ExceptionType, RemoteError};
use tonic::{Code, Status};

/// Name of the operation that opens a session; only there can a server turn out not to be a duckling.
pub(crate) const HELLO: &str = "Hello";

/// An error of any type, as the caller's own code may raise it.
pub type BoxError = Box<dyn Error + Send + Sync>;

/// Why a call to a duckling failed.
///
/// [`ClientError::Remote`] is DuckDB's own answer to the statement; everything else is about the way there and back.
/// The messages name the duckling and the root cause; [`Error::source`] has the whole chain.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// Host and port do not make an address.
    #[error("'{address}' is not the address of a duckling: {}", root_cause(source))]
    Address {
        /// `host:port` as given.
        address: String,
        /// What the URI parser says.
        source: http::uri::InvalidUri,
    },
    /// No connection could be made.
    #[error(
        "cannot connect to the duckling at {address}: {}; is it running, are host and port right, does a firewall let \
         it through?",
        root_cause(source.as_ref())
    )]
    Connect {
        /// `host:port`
        address: String,
        /// The last attempt's failure.
        source: BoxError,
    },
    /// Something answers, but does not know the Duckherder protocol.
    #[error(
        "what answers at {address} is not a duckling: {}; is the port right, and is there no proxy or TLS in between?",
        root_cause(source.as_ref())
    )]
    NotADuckling {
        /// `host:port`
        address: String,
        /// Its answer to the handshake.
        source: Box<Status>,
    },
    /// The duckling speaks a version of the protocol that this client does not.
    #[error(
        "the duckling at {address} answers with protocol version {version}, which this client does not speak; upgrade \
         the older of the two"
    )]
    Version {
        /// `host:port`
        address: String,
        /// The server's choice.
        version: u32,
    },
    /// A DuckDB error that the duckling sent.
    #[error(transparent)]
    Remote(#[from] RemoteError),
    /// The connection broke, or the server went away, in the middle of an operation. Whether a statement took effect
    /// is not known.
    #[error("lost the connection to the duckling at {address} during {operation}: {}", root_cause(source.as_ref()))]
    Lost {
        /// `host:port`
        address: String,
        /// The protocol's name of the operation.
        operation: &'static str,
        /// What gRPC says.
        source: Box<Status>,
    },
    /// No answer in time.
    #[error("the duckling at {address} did not answer {operation} within {} s", after.as_secs_f32())]
    Timeout {
        /// `host:port`
        address: String,
        /// The protocol's name of the operation.
        operation: &'static str,
        /// How long was waited.
        after: Duration,
    },
    /// The operation was cancelled before it ended.
    #[error("{operation} was cancelled")]
    Cancelled {
        /// The protocol's name of the operation.
        operation: &'static str,
    },
    /// A gRPC failure that carries no DuckDB error: from something between the two ends, or a limit that was hit.
    #[error(
        "{operation} failed at the duckling at {address} ({}): {}",
        source.code().description(),
        root_cause(source.as_ref())
    )]
    Rpc {
        /// `host:port`
        address: String,
        /// The protocol's name of the operation.
        operation: &'static str,
        /// The failure.
        source: Box<Status>,
    },
    /// The answer breaks the protocol.
    #[error("the duckling at {address} broke the protocol in its answer to {operation}: {problem}")]
    Protocol {
        /// `host:port`
        address: String,
        /// The protocol's name of the operation.
        operation: &'static str,
        /// What is wrong with it.
        problem: String,
    },
    /// Data that arrived is not valid Arrow.
    #[error("the duckling at {address} sent invalid Arrow data in its answer to {operation}: {source}")]
    Decode {
        /// `host:port`
        address: String,
        /// The protocol's name of the operation.
        operation: &'static str,
        /// What the decoder says.
        source: ArrowError,
    },
    /// A batch to ingest cannot be sent; for example, its schema is not the one announced.
    #[error("cannot send this batch: {0}")]
    Encode(#[source] ArrowError),
    /// The caller's stream of batches to ingest yielded an error. Nothing was ingested.
    #[error("the rows to ingest could not be read: {0}")]
    Input(#[source] BoxError),
    /// The blocking client has no runtime to run on, or would block one.
    #[error("the blocking client cannot run: {0}")]
    Runtime(#[source] std::io::Error),
}

impl ClientError {
    /// The error as a DuckDB error, for a caller that is a DuckDB itself.
    ///
    /// Trouble with the connection becomes a `Connection` error, a cancelled operation `INTERRUPT`, bad data an `IO`
    /// error; what the duckling sent stays what it was. Never a type that would invalidate the caller's database.
    #[must_use]
    pub fn to_remote_error(&self) -> RemoteError {
        let kind = match self {
            Self::Remote(error) => return error.clone(),
            Self::Input(source) => {
                if let Some(error) = source.downcast_ref::<RemoteError>() {
                    return error.clone();
                }
                if let Some(error) = source.downcast_ref::<Self>() {
                    return error.to_remote_error();
                }
                ExceptionType::InvalidInput
            }
            Self::Connect { .. }
            | Self::NotADuckling { .. }
            | Self::Version { .. }
            | Self::Lost { .. }
            | Self::Timeout { .. } => ExceptionType::Connection,
            Self::Cancelled { .. } => ExceptionType::Interrupt,
            Self::Rpc { source, .. } => exception_type(source.code()),
            Self::Address { .. } | Self::Encode(_) => ExceptionType::InvalidInput,
            Self::Protocol { .. } | Self::Decode { .. } | Self::Runtime(_) => ExceptionType::Io,
        };
        RemoteError::new(kind, self.to_string())
    }
}

/// What an error means for a client that was never connected.
///
/// A peer that accepts the connection and then breaks it off speaks something else: HTTP/1, TLS, another database. What
/// h2 makes of that depends on who closes first.
pub(crate) fn at_first_contact(error: ClientError) -> ClientError {
    match error {
        ClientError::Lost { address, source, .. } if source.code() != Code::Unavailable => {
            ClientError::NotADuckling { address, source }
        }
        error => error,
    }
}

fn exception_type(code: Code) -> ExceptionType {
    match code {
        Code::Unauthenticated | Code::PermissionDenied => ExceptionType::Permission,
        Code::InvalidArgument => ExceptionType::InvalidInput,
        Code::Unimplemented => ExceptionType::NotImplemented,
        _ => ExceptionType::Io,
    }
}

/// The innermost error's text: the outer ones only say "transport error".
fn root_cause(error: &(dyn Error + 'static)) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    match cause.downcast_ref::<Status>() {
        Some(status) if status.message().is_empty() => status.code().description().to_owned(),
        Some(status) => status.message().to_owned(),
        None => cause.to_string(),
    }
}

/// One operation under way: what its errors need to say.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    address: Arc<str>,
    operation: &'static str,
    started: Instant,
}

impl Call {
    pub(crate) fn start(address: Arc<str>, operation: &'static str) -> Self {
        Self {
            address,
            operation,
            started: Instant::now(),
        }
    }

    fn address(&self) -> String {
        self.address.as_ref().to_owned()
    }

    /// What a gRPC status means for this call.
    pub(crate) fn failed(&self, status: Status) -> ClientError {
        from_status(status, &self.address, self.operation, self.started.elapsed())
    }

    /// The deadline passed.
    pub(crate) fn timed_out(&self) -> ClientError {
        ClientError::Timeout {
            address: self.address(),
            operation: self.operation,
            after: self.started.elapsed(),
        }
    }

    pub(crate) fn cancelled(&self) -> ClientError {
        ClientError::Cancelled {
            operation: self.operation,
        }
    }

    /// The answer is not what the protocol says.
    pub(crate) fn protocol(&self, problem: impl Into<String>) -> ClientError {
        ClientError::Protocol {
            address: self.address(),
            operation: self.operation,
            problem: problem.into(),
        }
    }

    /// The data is not Arrow.
    pub(crate) fn undecodable(&self, source: ArrowError) -> ClientError {
        ClientError::Decode {
            address: self.address(),
            operation: self.operation,
            source,
        }
    }
}

/// What a failed RPC means.
///
/// A status that came over the wire has no `source`; one that tonic made of a transport failure has.
fn from_status(status: Status, address: &str, operation: &'static str, after: Duration) -> ClientError {
    if let Some(error) = RemoteError::from_status(&status) {
        return ClientError::Remote(error);
    }
    let address = address.to_owned();
    let of_transport = status.source().is_some();
    let code = status.code();
    let source = Box::new(status);
    match code {
        Code::Unavailable => ClientError::Lost {
            address,
            operation,
            source,
        },
        Code::DeadlineExceeded => ClientError::Timeout {
            address,
            operation,
            after,
        },
        Code::Cancelled if !of_transport => ClientError::Cancelled { operation },
        // A duckling's own errors all carry a DuckDB error, so this is somebody else's answer.
        _ if operation == HELLO && !of_transport => ClientError::NotADuckling { address, source },
        // `Unknown` from the wire is tonic's code for a stream that ended without its trailers.
        _ if of_transport || code == Code::Unknown => ClientError::Lost {
            address,
            operation,
            source,
        },
        _ => ClientError::Rpc {
            address,
            operation,
            source,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ADDRESS: &str = "pond:8815";

    fn map(status: Status, operation: &'static str) -> ClientError {
        from_status(status, ADDRESS, operation, Duration::from_secs(2))
    }

    fn of_transport(code: Code) -> Status {
        let mut status = Status::new(code, "transport error");
        status.set_source(Arc::new(std::io::Error::other("broken pipe")));
        status
    }

    #[test]
    fn duckdb_errors_come_first_whatever_the_code() {
        let error = RemoteError::new(ExceptionType::ResourceInUse, "locked");
        let status = Status::from(error.clone());
        assert_eq!(status.code(), Code::Unavailable);
        for operation in [HELLO, "Execute"] {
            assert!(
                matches!(map(Status::from(error.clone()), operation), ClientError::Remote(found) if found == error)
            );
        }
    }

    #[test]
    fn broken_transports_are_lost() {
        for code in [Code::Unknown, Code::Unavailable, Code::Cancelled, Code::Internal] {
            let error = map(of_transport(code), "Execute");
            assert!(
                matches!(
                    &error,
                    ClientError::Lost {
                        operation: "Execute",
                        ..
                    }
                ),
                "{code:?}: {error:?}"
            );
            assert_eq!(
                error.to_string(),
                "lost the connection to the duckling at pond:8815 during Execute: broken pipe"
            );
            assert_eq!(error.to_remote_error().kind, ExceptionType::Connection);
        }
        assert!(matches!(
            map(Status::unavailable("draining"), "Execute"),
            ClientError::Lost { .. }
        ));
        assert!(matches!(
            map(Status::unknown("no trailers"), "Execute"),
            ClientError::Lost { .. }
        ));
        assert!(matches!(
            map(of_transport(Code::Unknown), HELLO),
            ClientError::Lost { .. }
        ));
    }

    #[test]
    fn strangers_are_known_by_their_hello() {
        for error in [
            map(Status::unimplemented("no such action"), HELLO),
            map(Status::unauthenticated(""), HELLO),
            at_first_contact(map(of_transport(Code::Internal), HELLO)),
            at_first_contact(map(of_transport(Code::Unknown), HELLO)),
        ] {
            assert!(matches!(error, ClientError::NotADuckling { .. }), "{error:?}");
            assert_eq!(error.to_remote_error().kind, ExceptionType::Connection);
        }
        assert!(matches!(
            map(Status::unimplemented("new action"), "Describe"),
            ClientError::Rpc { .. }
        ));
    }

    #[test]
    fn cancelled_and_late_are_told_apart() {
        let cancelled = map(Status::cancelled("by the server"), "Execute");
        assert!(matches!(cancelled, ClientError::Cancelled { operation: "Execute" }));
        assert_eq!(cancelled.to_remote_error().kind, ExceptionType::Interrupt);
        let late = map(Status::deadline_exceeded(""), "Execute");
        assert_eq!(
            late.to_string(),
            "the duckling at pond:8815 did not answer Execute within 2 s"
        );
        assert_eq!(late.to_remote_error().kind, ExceptionType::Connection);
    }

    #[test]
    fn other_statuses_keep_their_meaning() {
        for (code, kind) in [
            (Code::PermissionDenied, ExceptionType::Permission),
            (Code::InvalidArgument, ExceptionType::InvalidInput),
            (Code::OutOfRange, ExceptionType::Io),
            (Code::DataLoss, ExceptionType::Io),
        ] {
            let error = map(Status::new(code, "because"), "Execute");
            assert!(error.to_string().ends_with("because"), "{error}");
            assert_eq!(error.to_remote_error().kind, kind);
        }
        assert!(
            map(Status::data_loss(""), "Execute")
                .to_string()
                .ends_with("Unrecoverable data loss or corruption")
        );
    }

    #[test]
    fn the_callers_own_errors_come_back_unchanged() {
        let own = RemoteError::new(ExceptionType::DivideByZero, "local");
        assert_eq!(ClientError::Input(Box::new(own.clone())).to_remote_error(), own);
        let nested = ClientError::Input(Box::new(ClientError::Remote(own.clone())));
        assert_eq!(nested.to_remote_error(), own);
        let other = ClientError::Input("no such file".into());
        assert_eq!(
            other.to_remote_error().message,
            "the rows to ingest could not be read: no such file"
        );
    }
}
