//! What is to be known of an instance, whatever runs on it: `cpp/monitor.cpp`.

use std::ffi::{c_char, c_void};
use std::sync::{Mutex, MutexGuard, PoisonError};

use duckherder_proto::RemoteError;

use super::connection::Connection;
use super::herd_ddl::check_text;

// In C++; what they return is an error, or null.
unsafe extern "C" {
    fn duckling_is_invalidated(connection: *mut c_void, invalidated: *mut bool) -> *mut c_char;
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

/// A connection to an instance that runs nothing, to ask for its state.
pub(super) struct Monitor(Mutex<Connection>);

impl Monitor {
    pub(super) fn new(connection: Connection) -> Self {
        Self(Mutex::new(connection))
    }

    pub(super) fn is_invalidated(&self) -> Result<bool, RemoteError> {
        let mut invalidated = false;
        // SAFETY: the connection is live, and nobody else uses it while it is locked.
        check_text(unsafe { duckling_is_invalidated(self.lock().v1().cast(), &raw mut invalidated) })?;
        Ok(invalidated)
    }

    pub(super) fn held_memory(&self) -> Result<HeldMemory, RemoteError> {
        let (mut held, mut limit) = (0, 0);
        // SAFETY: as above.
        check_text(unsafe { duckling_held_memory(self.lock().v1().cast(), &raw mut held, &raw mut limit) })?;
        Ok(HeldMemory { held, limit })
    }

    fn lock(&self) -> MutexGuard<'_, Connection> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::super::database::{Database, DatabaseOptions};
    use super::super::parameters::Parameters;
    use super::super::result::{BatchSize, ResultTypes};

    #[test]
    fn tables_are_not_held_by_statements_and_unread_results_are() {
        let options = DatabaseOptions {
            memory_limit: Some("1GiB".to_owned()),
            ..DatabaseOptions::default()
        };
        let database = Database::open(":memory:", &options).unwrap();
        let mut connection = database.connect().unwrap();
        // Random, so that no compression makes them small.
        let rows = "SELECT hash(i) AS a, hash(i + 1) AS b FROM range(2000000) r(i)";
        connection.execute(&format!("CREATE TABLE t AS {rows}")).unwrap();
        let before = database.held_memory().unwrap();
        assert_eq!(before.limit, 1 << 30);
        assert!(before.held < 8 << 20, "{before:?}");
        let sorted = connection.parse("SELECT * FROM t ORDER BY a").unwrap();
        let mut result = connection
            .run_with(
                &sorted[0],
                &Parameters::none(),
                BatchSize::of_rows(2048),
                ResultTypes::Arrow,
            )
            .unwrap();
        assert!(result.next_batch(&|| false).unwrap().is_some());
        let during = database.held_memory().unwrap();
        assert!(during.held > before.held + (16 << 20), "{before:?} {during:?}");
        drop(result);
        assert!(database.held_memory().unwrap().held < 8 << 20);
    }
}
