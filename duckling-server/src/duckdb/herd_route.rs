//! Which worker has all rows of a statement: `cpp/herd_route.cpp`.

use std::ffi::{c_char, c_void};

use duckherder_proto::RemoteError;

use super::connection::Connection;
use super::herd_ddl::{Text, check_text, take_text};
use super::statement::Statement;

// In C++; what they return is an error, or null.
unsafe extern "C" {
    fn herd_describe_route(
        connection: *mut c_void,
        statement: *const c_void,
        description: *mut *mut c_char,
    ) -> *mut c_char;
    fn herd_partition_hash(types: *const Text, texts: *const Text, count: usize, hash: *mut u64) -> *mut c_char;
}

impl Connection {
    /// Which literals of a statement say which worker has its rows, as the JSON that `herd::routes` reads; empty if there
    /// are none.
    ///
    /// # Errors
    /// None that is known.
    pub fn describe_route(&mut self, statement: &Statement) -> Result<String, RemoteError> {
        let connection = self.v1().cast();
        // SAFETY: connection and statement are live; a v2 statement handle is a `duckdb::SQLStatement *`.
        take_text(|text| unsafe { herd_describe_route(connection, statement.raw.cast(), text) })
    }
}

/// What a row with these keys, each a type and a value, has its partition from: `hash(hash(keys))`.
///
/// # Errors
/// A text is no value of its type.
pub fn partition_hash<'a>(keys: impl Iterator<Item = (&'a str, &'a str)>) -> Result<u64, RemoteError> {
    let (types, texts): (Vec<_>, Vec<_>) = keys.map(|(kind, text)| (Text::of(kind), Text::of(text))).unzip();
    let mut hash = 0;
    // SAFETY: both lists have this length, and they and their texts live during the call.
    check_text(unsafe { herd_partition_hash(types.as_ptr(), texts.as_ptr(), types.len(), &raw mut hash) })?;
    Ok(hash)
}
