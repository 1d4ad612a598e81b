//! The Arrow Flight client of Duckherder: SQL on a duckling, results as Arrow record batches.
//!
//! ```
//! use duckherder_client::{Client, ClientError, ClientOptions};
//! use futures::TryStreamExt;
//!
//! # let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
//! # let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
//! # let port = listener.local_addr().unwrap().port();
//! # let duckling = duckling_server::Duckling::open(duckling_server::DucklingConfig::default()).unwrap();
//! # runtime.spawn(duckling.serve(listener, std::future::pending()));
//! # async fn example(port: u16) -> Result<(), ClientError> {
//! // A duckling listens on `port`; 8815 unless it was told otherwise.
//! let client = Client::connect(ClientOptions::new("localhost", port)).await?;
//! client.execute("CREATE TABLE ducks (name VARCHAR, grams INTEGER)").await?;
//! let rows = client.execute("INSERT INTO ducks VALUES ('mallard', 1100), ('teal', 330)").await?;
//! assert_eq!(rows, 2);
//!
//! // The schema is known at once; batches follow as the server produces them.
//! let mut heavy = client.query("SELECT name FROM ducks WHERE grams > 1000").await?;
//! assert_eq!(heavy.schema().field(0).name(), "name");
//! while let Some(batch) = heavy.try_next().await? {
//!     assert_eq!(batch.num_rows(), 1);
//! }
//!
//! // Batches go the other way just so.
//! let all: Vec<_> = client.query("FROM ducks").await?.try_collect().await?;
//! let rows = client.ingest("ducks", futures::stream::iter(all.into_iter().map(Ok::<_, ClientError>))).await?;
//! assert_eq!(rows, 2);
//! # Ok(())
//! # }
//! # runtime.block_on(example(port)).unwrap();
//! ```
//!
//! Without async, the same:
//!
//! ```
//! use duckherder_client::{ClientError, ClientOptions, blocking::Client};
//!
//! # let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
//! # let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
//! # let port = listener.local_addr().unwrap().port();
//! # let duckling = duckling_server::Duckling::open(duckling_server::DucklingConfig::default()).unwrap();
//! # runtime.spawn(duckling.serve(listener, std::future::pending()));
//! # fn example(port: u16) -> Result<(), ClientError> {
//! let client = Client::connect(ClientOptions::new("localhost", port))?;
//! for batch in client.query("FROM range(3)")? {
//!     assert_eq!(batch?.num_rows(), 3);
//! }
//! # Ok(())
//! # }
//! # example(port).unwrap();
//! ```
//!
//! # Sessions and transactions
//!
//! A [`Session`] is one DuckDB connection on the server. `BEGIN`, `COMMIT` and `ROLLBACK` are statements like any other;
//! [`QueryOptions::begin_transaction`] saves the round trip of the first. A [`Client`] has a session of its own and
//! opens more.
//!
//! # Cancelling
//!
//! Drop the future or the stream: the server stops the statement. [`Session::cancel`] does so from elsewhere.
//!
//! # Errors
//!
//! One type, [`ClientError`]. Only connecting is ever tried again by itself: whether a statement whose connection broke
//! took effect, only the caller can find out. A look-up that a worker was asked for
//! ([`ask_workers`](ClientOptions::ask_workers)) and has not begun to answer goes to its coordinator.
//!
//! # Trust
//!
//! What arrives is validated as Arrow (offsets, lengths, UTF-8), and a malformed answer is an error, never a panic.
//! Whether values make sense for their DuckDB types is not checked here.

#![forbid(unsafe_code)]

pub mod blocking;
mod channel;
mod client;
mod connection;
mod contain;
mod decode;
mod direct;
mod error;
mod ingest;
mod merge;
mod node;
mod options;
mod pool;
mod reorder;
mod session;
mod stream;
#[cfg(test)]
mod tests;

pub use client::Client;
pub use duckherder_proto::history::{HistoryId, Traffic};
pub use duckherder_proto::v1::{
    ColumnDescription, IngestMode, IngestResponse, ResultKind, StatementSummary, TableDescription,
};
pub use duckherder_proto::{ExceptionType, RemoteError, v1};
pub use error::{BoxError, ClientError};
pub use ingest::IngestTarget;
pub use node::Node;
pub use options::{AddressError, ClientOptions};
pub use session::{CatalogSnapshot, IngestOptions, QueryOptions, ServerInfo, Session, StatementShape, TableLookup};
pub use stream::{BatchMessage, ExchangeStream, QueryStream, RowStream, SchemaMessage, StagesStream, Summary};
