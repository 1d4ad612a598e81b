//! The DuckDB extension: wiring between DuckDB's C++ classes (`cpp/`) and the Duckherder client.
//!
//! It translates and decides nothing: names and cached schemas are `duckherder-catalog`'s, the wire is
//! `duckherder-client`'s, the local server is `duckling-server`'s. C++ calls the functions of [`ffi`]; Rust calls back
//! only through function pointers handed in for the length of one call.

#![deny(unsafe_code)]

mod ahead;
mod attach;
mod error;
pub mod ffi;
mod herd;
mod history;
mod local_server;
mod progress;
mod remote;
mod runtime;
mod scan;
mod session;
mod upload;
