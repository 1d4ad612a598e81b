//! Errors on their way to the user.

use duckherder_catalog::{AliasError, NameError};
use duckherder_client::ClientError;
use duckherder_proto::{ExceptionType, RemoteError};

/// What the user's DuckDB raises: a DuckDB exception type, a message, extra information.
pub type ExtError = RemoteError;

/// The outcome of everything that C++ can ask for.
pub type Result<T> = std::result::Result<T, ExtError>;

/// An `Invalid Input` error.
pub fn invalid_input(message: impl Into<String>) -> ExtError {
    RemoteError::new(ExceptionType::InvalidInput, message)
}

/// Turns the errors of other crates into what the user sees.
pub trait ForUser {
    /// The error as DuckDB raises it.
    fn for_user(self) -> ExtError;
}

impl ForUser for ClientError {
    fn for_user(self) -> ExtError {
        self.to_remote_error()
    }
}

impl ForUser for AliasError {
    fn for_user(self) -> ExtError {
        invalid_input(self.to_string())
    }
}

impl ForUser for NameError {
    fn for_user(self) -> ExtError {
        invalid_input(self.to_string())
    }
}
