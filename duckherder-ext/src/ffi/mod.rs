//! The boundary with C++: the crate's only `unsafe`.
//!
//! Every export has the form `DhStatus f(arguments…, out, error)` and is one line over `guard`, which catches panics;
//! nothing unwinds into C++. Data is `repr(C)`: (pointer, length) text that is borrowed for the call, opaque handles that
//! are freed by the function beside their maker, Arrow C data for rows. The C header `cpp/include/duckherder_ffi.h` is
//! generated from here.

#![expect(unsafe_code, reason = "the boundary with C++; every block says why it is sound")]

mod api;
mod catalog;
mod entry;
mod guard;
mod herd;
mod local;
mod query;
mod remote;
mod types;
mod upload;

pub use api::DhApi;
use guard::guard;
pub use types::{DhBuffer, DhInterrupt, DhStatus, DhText};
