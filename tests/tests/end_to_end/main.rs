//! What SQL files cannot say: the client crate, faults, processes, time.
//!
//! Nothing here sleeps: what has to become true is waited for, up to a deadline.

#![expect(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

mod admission;
mod client;
mod compression;
mod differential;
mod faults;
mod flight_sql;
mod fuzz;
mod herd_direct;
mod herd_exchange;
mod herd_faults;
mod herd_keys;
mod herd_membership;
mod herd_queries;
mod herd_routes;
mod herd_tables;
mod history;
mod hostile;
mod proxy;
mod recovery;
mod script;
mod streaming;
mod streams;
mod support;
