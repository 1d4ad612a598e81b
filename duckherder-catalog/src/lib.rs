//! Pure decisions about a remote catalog: which remote table a local name means, and what is still known of it.
//!
//! And about a herd: where rows are, and how a query is divided ([`herd`]). What is known of a statement from its text alone:
//! [`template`], [`Rewrites`].
//!
//! Functions of values only: no I/O, no clock, no DuckDB, no async. The extension and the server feed them.

#![forbid(unsafe_code)]

mod alias;
mod cache;
pub mod herd;
mod name;
mod rewrite;
pub mod template;

pub use alias::{AliasError, AliasRegistry};
pub use cache::{Definitions, SchemaCache};
pub use name::{NameError, SchemaPath, TableName};
pub use rewrite::Rewrites;
