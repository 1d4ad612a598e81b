//! What the catalog holds: `cpp/catalog_listing.cpp`, which writes it as JSON for `catalog.rs`.

use std::ffi::{c_char, c_void};

use duckherder_proto::RemoteError;

use super::connection::Connection;
use super::herd_ddl::{Text, check_text, take_text};

// In C++; what they return is an error, or null. A schema's path is SQL text, a list of kinds has commas.
unsafe extern "C" {
    fn duckling_lookup_table(
        connection: *mut c_void,
        schema_path: Text,
        name: Text,
        description: *mut *mut c_char,
    ) -> *mut c_char;
    fn duckling_schema_exists(connection: *mut c_void, schema_path: Text, exists: *mut bool) -> *mut c_char;
    fn duckling_list_tables(connection: *mut c_void, description: *mut *mut c_char) -> *mut c_char;
    fn duckling_list_definitions(connection: *mut c_void, kinds: Text, description: *mut *mut c_char) -> *mut c_char;
}

impl Connection {
    /// One table or view; `null` if there is none. `schema_path` is the schema's path as SQL.
    ///
    /// # Errors
    /// DuckDB's, for a view that cannot be bound.
    pub fn lookup_table(&mut self, schema_path: &str, name: &str) -> Result<String, RemoteError> {
        let connection = self.v1().cast();
        let (schema_path, name) = (Text::of(schema_path), Text::of(name));
        // SAFETY: all are live during the call.
        take_text(|text| unsafe { duckling_lookup_table(connection, schema_path, name, text) })
    }

    /// Whether there is a schema of this path, given as SQL.
    ///
    /// # Errors
    /// The transaction was aborted.
    pub fn schema_exists(&mut self, schema_path: &str) -> Result<bool, RemoteError> {
        let mut exists = false;
        let connection = self.v1().cast();
        // SAFETY: all are live during the call.
        check_text(unsafe { duckling_schema_exists(connection, Text::of(schema_path), &raw mut exists) })?;
        Ok(exists)
    }

    /// All schemas, tables and views.
    ///
    /// # Errors
    /// The transaction was aborted.
    pub fn list_tables(&mut self) -> Result<String, RemoteError> {
        let connection = self.v1().cast();
        // SAFETY: the connection is live.
        take_text(|text| unsafe { duckling_list_tables(connection, text) })
    }

    /// All entries of these kinds, names with commas between.
    ///
    /// # Errors
    /// The transaction was aborted.
    pub fn list_definitions(&mut self, kinds: &str) -> Result<String, RemoteError> {
        let connection = self.v1().cast();
        let kinds = Text::of(kinds);
        // SAFETY: all are live during the call.
        take_text(|text| unsafe { duckling_list_definitions(connection, kinds, text) })
    }
}
