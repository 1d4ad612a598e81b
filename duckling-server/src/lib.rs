//! The duckling: an Arrow Flight server that holds a DuckDB database.
//!
//! [`Duckling::open`] opens the database, [`Duckling::serve`] answers on a listener that the caller owns, until a
//! shutdown future that the caller owns resolves. The binary `duckling` is a thin shell around it.
//!
//! ```
//! # tokio::runtime::Runtime::new().unwrap().block_on(async {
//! use duckling_server::{Duckling, DucklingConfig};
//!
//! let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
//! let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
//! let duckling = Duckling::open(DucklingConfig::default())?;
//! let serving = tokio::spawn(duckling.serve(listener, async { drop(stopped.await) }));
//! drop(stop);
//! serving.await??;
//! # Ok::<_, Box<dyn std::error::Error + Send + Sync>>(()) }).unwrap();
//! ```

#![deny(unsafe_code)]

mod admission;
mod arrow_check;
mod at_once;
mod catalog;
mod config;
mod connections;
mod definitions;
pub mod duckdb;
mod encode;
mod error;
mod estimate;
mod exact;
mod flight_sql;
mod frames;
mod get;
pub mod herd;
mod history;
mod http2;
mod ingest;
mod memory;
mod message;
mod parts;
mod plain;
mod presence;
mod queue;
mod recovery;
mod reflection;
mod routing;
mod running;
mod server;
mod service;
mod session;
mod settings;
mod statement;
mod variant;

pub use config::{DucklingConfig, IN_MEMORY, Limits};
pub use error::ServerError;
pub use server::Duckling;
