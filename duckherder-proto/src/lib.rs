//! The wire protocol of Duckherder, version 1.
//!
//! Arrow Flight SQL is what every client may speak; this crate holds what our own client adds to it: the messages of
//! `proto/duckherder/v1/duckherder.proto`, how they sit inside Flight's tickets, descriptors and actions, how DuckDB
//! errors cross the wire, and the version handshake.
//!
//! Nothing here does I/O, and nothing here knows DuckDB: both ends, and clients without DuckDB, use it alike.

#![forbid(unsafe_code)]

pub mod action;
pub mod command;
pub mod error;
pub mod history;
pub mod ipc;
pub mod limits;
pub mod parts;
pub mod types;
pub mod version;

/// The generated messages of package `duckherder.v1`.
#[expect(missing_docs, clippy::all, reason = "generated from the .proto file, which documents it")]
#[rustfmt::skip]
#[path = "generated/duckherder.v1.rs"]
pub mod v1;

pub use error::{ExceptionType, RemoteError};
pub use prost::Message;
