//! How much of DuckDB's memory statements hold: `cpp/held_memory.cpp`.

use std::ffi::{c_char, c_void};
use std::sync::{Mutex, PoisonError};

use duckherder_proto::RemoteError;

use super::connection::Connection;
use super::database::Database;
use super::herd_ddl::check_text;

unsafe extern "C" {
    /// In C++; what it returns is an error, or null.
    fn duckling_held_memory(connection: *mut c_void, held: *mut u64, limit: *mut u64) -> *mut c_char;
}

/// What statements hold of DuckDB's memory: hash tables, sorts, rows that are kept for later, changes of transactions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeldMemory {
    /// Bytes that they hold.
    pub held: u64,
    /// DuckDB's `memory_limit`, in bytes.
    pub limit: u64,
}

/// Reads a database's memory. It takes some microseconds.
pub struct MemoryGauge(Mutex<Connection>);

impl MemoryGauge {
    /// Of this database.
    ///
    /// # Errors
    /// DuckDB's, if it is out of resources.
    pub fn of(database: &Database) -> Result<Self, RemoteError> {
        Ok(Self(Mutex::new(database.connect()?)))
    }

    /// What is held now.
    ///
    /// # Errors
    /// DuckDB's, if it is out of resources.
    pub fn read(&self) -> Result<HeldMemory, RemoteError> {
        let mut connection = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut held, mut limit) = (0, 0);
        // SAFETY: the connection is live, and nobody else uses it while it is locked.
        check_text(unsafe { duckling_held_memory(connection.v1().cast(), &raw mut held, &raw mut limit) })?;
        Ok(HeldMemory { held, limit })
    }
}

#[cfg(test)]
mod tests {
    use super::super::database::DatabaseOptions;
    use super::*;

    #[test]
    fn tables_are_not_held_by_statements_and_unread_results_are() {
        let options = DatabaseOptions {
            memory_limit: Some("1GiB".to_owned()),
            ..DatabaseOptions::default()
        };
        let database = Database::open(":memory:", &options).unwrap();
        let gauge = MemoryGauge::of(&database).unwrap();
        let mut connection = database.connect().unwrap();
        // Random, so that no compression makes them small.
        let rows = "SELECT hash(i) AS a, hash(i + 1) AS b FROM range(2000000) r(i)";
        connection.execute(&format!("CREATE TABLE t AS {rows}")).unwrap();
        let before = gauge.read().unwrap();
        assert_eq!(before.limit, 1 << 30);
        assert!(before.held < 8 << 20, "{before:?}");
        let sorted = connection.parse("SELECT * FROM t ORDER BY a").unwrap();
        let mut result = connection.run(&sorted[0], 2048).unwrap();
        assert!(result.next_batch(&|| false).unwrap().is_some());
        let during = gauge.read().unwrap();
        assert!(during.held > before.held + (16 << 20), "{before:?} {during:?}");
        drop(result);
        assert!(gauge.read().unwrap().held < 8 << 20);
    }
}
