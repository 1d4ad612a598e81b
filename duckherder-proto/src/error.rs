//! DuckDB errors on the wire.
//!
//! A DuckDB error is a type, a message and some extra information (position, candidates). All three travel in the
//! standard `google.rpc.Status` of a gRPC status (`grpc-status-details-bin`), so that the client can raise the same
//! error; the gRPC code and text are for everyone else.

use std::collections::BTreeMap;
use std::fmt;

use prost::Message;
use prost_types::Any;
use tonic::{Code, Status};

use crate::limits::ERROR_TEXT_BYTES_MAX;
use crate::v1::ErrorDetail;

/// DuckDB's key, in an error's extra information, of what exactly is wrong.
pub const ERROR_SUBTYPE: &str = "error_subtype";

/// [`ERROR_SUBTYPE`] of an error for a session that the server does not have (any more). Nothing was run.
pub const SESSION_NOT_OPEN: &str = "SESSION_NOT_OPEN";

/// [`ERROR_SUBTYPE`] of an error for a statement that was sent to a worker whose definitions are others by now. Nothing was run.
pub const ROUTE_OUTDATED: &str = "ROUTE_OUTDATED";

/// Key, in an error's extra information, of the worker of a herd whose error it was first.
pub const HERD_WORKER: &str = "herd_worker";

/// What DuckDB puts before the error of a COMMIT (`duckdb/src/transaction/transaction_context.cpp`), on each side that commits.
pub const FAILED_TO_COMMIT: &str = "Failed to commit: ";

const TYPE_URL: &str = "type.googleapis.com/duckherder.v1.ErrorDetail";

macro_rules! exception_types {
    ($($variant:ident => $name:literal, $code:ident;)*) => {
        /// The DuckDB exception types that cross the wire.
        ///
        /// Names are those of `Exception::ExceptionTypeToString` (DuckDB 2.0.0, `src/common/exception.cpp`). `INTERNAL`
        /// and `FATAL` are left out on purpose: raised in a client they would invalidate the user's own database, so a
        /// server's internal error arrives as [`ExceptionType::Io`].
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum ExceptionType {
            $(#[doc = concat!("`", $name, " Error`")] $variant),*
        }

        impl ExceptionType {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            /// DuckDB's name of the type, the part before ` Error: `.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $name),* }
            }

            /// The gRPC code that fits it best.
            #[must_use]
            pub fn code(self) -> Code {
                match self { $(Self::$variant => Code::$code),* }
            }
        }
    };
}

exception_types! {
    OutOfRange => "Out of Range", OutOfRange;
    Conversion => "Conversion", InvalidArgument;
    UnknownType => "Unknown Type", InvalidArgument;
    Decimal => "Decimal", InvalidArgument;
    MismatchType => "Mismatch Type", InvalidArgument;
    DivideByZero => "Divide by Zero", InvalidArgument;
    ObjectSize => "Object Size", InvalidArgument;
    InvalidType => "Invalid type", InvalidArgument;
    Serialization => "Serialization", Internal;
    Transaction => "TransactionContext", Aborted;
    NotImplemented => "Not implemented", Unimplemented;
    Expression => "Expression", InvalidArgument;
    Catalog => "Catalog", NotFound;
    Parser => "Parser", InvalidArgument;
    Planner => "Planner", InvalidArgument;
    Scheduler => "Scheduler", Internal;
    Executor => "Executor", Internal;
    Constraint => "Constraint", FailedPrecondition;
    Index => "Index", Internal;
    Stat => "Stat", Internal;
    Connection => "Connection", Unavailable;
    Syntax => "Syntax", InvalidArgument;
    Settings => "Settings", InvalidArgument;
    Binder => "Binder", InvalidArgument;
    Optimizer => "Optimizer", Internal;
    NullPointer => "NullPointer", Internal;
    Io => "IO", Internal;
    Interrupt => "INTERRUPT", Cancelled;
    InvalidInput => "Invalid Input", InvalidArgument;
    OutOfMemory => "Out of Memory", ResourceExhausted;
    Permission => "Permission", PermissionDenied;
    ParameterNotResolved => "Parameter Not Resolved", InvalidArgument;
    ParameterNotAllowed => "Parameter Not Allowed", InvalidArgument;
    Dependency => "Dependency", FailedPrecondition;
    Http => "HTTP", Unavailable;
    MissingExtension => "Missing Extension", FailedPrecondition;
    Autoload => "Extension Autoloading", FailedPrecondition;
    Sequence => "Sequence", FailedPrecondition;
    InvalidConfiguration => "Invalid Configuration", InvalidArgument;
    ResourceInUse => "Resource In Use", Unavailable;
}

impl ExceptionType {
    /// The type with that DuckDB name. What has no place on the wire (internal, fatal, unknown) becomes
    /// [`ExceptionType::Io`].
    #[must_use]
    pub fn from_name(name: &str) -> Self {
        Self::ALL
            .iter()
            .copied()
            .find(|kind| kind.name() == name)
            .unwrap_or(Self::Io)
    }
}

/// A DuckDB error that comes from, or goes to, the other end.
///
/// Displayed as DuckDB displays it: `Binder Error: Referenced column "x" not found …`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteError {
    /// DuckDB's exception type.
    pub kind: ExceptionType,
    /// The message, without the type in front.
    pub message: String,
    /// DuckDB's extra information: `position`, `candidates`, `error_subtype` …
    pub extra_info: BTreeMap<String, String>,
}

impl RemoteError {
    /// An error without extra information.
    pub fn new(kind: ExceptionType, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            extra_info: BTreeMap::new(),
        }
    }

    /// The error in a gRPC status, if a duckling put one there.
    #[must_use]
    pub fn from_status(status: &Status) -> Option<Self> {
        let rpc = RpcStatus::decode(status.details()).ok()?;
        let any = rpc.details.iter().find(|any| any.type_url == TYPE_URL)?;
        let detail = ErrorDetail::decode(&*any.value).ok()?;
        Some(Self {
            kind: ExceptionType::from_name(&detail.exception_type),
            message: detail.message,
            extra_info: detail.extra_info,
        })
    }
}

impl fmt::Display for RemoteError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} Error: {}", self.kind.name(), self.message)
    }
}

impl std::error::Error for RemoteError {}

impl From<RemoteError> for Status {
    fn from(error: RemoteError) -> Self {
        let text = cut(error.to_string(), ERROR_TEXT_BYTES_MAX / 4);
        let mut budget = ERROR_TEXT_BYTES_MAX;
        let message = cut(error.message, ERROR_TEXT_BYTES_MAX);
        budget = budget.saturating_sub(message.len());
        let mut extra_info = BTreeMap::new();
        for (key, value) in error.extra_info {
            // Whole entries or none: half a JSON value or position would be worse than none.
            if key.len() + value.len() <= budget {
                budget -= key.len() + value.len();
                extra_info.insert(key, value);
            }
        }
        let detail = ErrorDetail {
            exception_type: error.kind.name().to_owned(),
            message,
            extra_info,
        };
        let code = error.kind.code();
        let rpc = RpcStatus {
            code: code as i32,
            message: text.clone(),
            details: vec![Any {
                type_url: TYPE_URL.to_owned(),
                value: detail.encode_to_vec(),
            }],
        };
        Status::with_details(code, text, rpc.encode_to_vec().into())
    }
}

/// `google.rpc.Status`: <https://github.com/googleapis/googleapis/blob/master/google/rpc/status.proto>
#[derive(Clone, PartialEq, Message)]
struct RpcStatus {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(string, tag = "2")]
    message: String,
    #[prost(message, repeated, tag = "3")]
    details: Vec<Any>,
}

fn cut(mut text: String, bytes_max: usize) -> String {
    if text.len() > bytes_max {
        text.truncate(text.floor_char_boundary(bytes_max.saturating_sub('…'.len_utf8())));
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_error_survives_the_wire() {
        let mut error = RemoteError::new(ExceptionType::Binder, "no such column");
        error.extra_info.insert("position".into(), "7".into());
        let status = Status::from(error.clone());
        assert_eq!(status.code(), Code::InvalidArgument);
        assert_eq!(status.message(), "Binder Error: no such column");
        assert_eq!(RemoteError::from_status(&status), Some(error));
    }

    #[test]
    fn names_are_unique() {
        for kind in ExceptionType::ALL {
            assert_eq!(ExceptionType::from_name(kind.name()), *kind);
        }
        assert_eq!(ExceptionType::from_name("INTERNAL"), ExceptionType::Io);
        assert_eq!(ExceptionType::from_name("FATAL"), ExceptionType::Io);
    }

    #[test]
    fn statuses_of_others_are_none() {
        assert_eq!(RemoteError::from_status(&Status::unavailable("gone")), None);
    }

    proptest! {
        #[test]
        fn long_errors_are_cut_to_fit_the_header(message in ".{0,2000}", repeat in 1usize..40) {
            let error = RemoteError::new(ExceptionType::Parser, message.repeat(repeat));
            let status = Status::from(error);
            prop_assert!(status.details().len() <= 2 * ERROR_TEXT_BYTES_MAX);
            prop_assert!(status.message().len() <= ERROR_TEXT_BYTES_MAX);
            prop_assert!(RemoteError::from_status(&status).is_some());
        }
    }
}
