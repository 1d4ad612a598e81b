//! INSERTs of one row of constants, which DuckDB plans once for all of their like: `cpp/prepared_inserts.cpp`.

use std::ffi::{c_char, c_void};
use std::ptr;
use std::sync::Arc;

use libduckdb_sys::v2 as ffi;

use super::connection::ConnectionHandle;
use super::herd_ddl::check_text;
use super::statement::{Statement, StatementKind};

unsafe extern "C" {
    /// In C++; what it returns is an error, or null.
    fn duckling_prepared_insert(
        connection: *mut c_void,
        statement: *mut c_void,
        execution: *mut *mut c_void,
    ) -> *mut c_char;
    fn duckling_prepared_insert_is_outdated(connection: *mut c_void) -> bool;
}

/// What runs in the place of an INSERT.
pub(super) struct PreparedInsert {
    pub(super) raw: ffi::duckdb_v2_sql_statement_handle,
    connection: Arc<ConnectionHandle>,
}

impl Drop for PreparedInsert {
    fn drop(&mut self) {
        // SAFETY: C++ gave it away, a `duckdb::SQLStatement *` like those of the C API; destroyed only here.
        unsafe { ffi::duckdb_v2_sql_statement_destroy(&raw mut self.raw) };
    }
}

impl PreparedInsert {
    /// Of a statement without parameters. `None` if it is to run as it is: if its like has not been seen before, for one.
    pub(super) fn of(connection: &Arc<ConnectionHandle>, statement: &Statement) -> Option<Self> {
        if statement.kind() != StatementKind::Write {
            return None;
        }
        let mut raw = ptr::null_mut();
        // SAFETY: a handle of the API's version 1 is the same connection, a `duckdb::Connection *`, and that of a statement
        // is a `duckdb::SQLStatement *`; both are live, and nobody else uses them.
        let outcome =
            check_text(unsafe { duckling_prepared_insert(connection.raw.cast(), statement.raw.cast(), &raw mut raw) });
        // Why it cannot be done, the statement says when it runs.
        outcome.ok()?;
        (!raw.is_null()).then(|| Self {
            raw: raw.cast(),
            connection: Arc::clone(connection),
        })
    }

    /// Whether it has failed, without having done anything, as the table has changed: the statement is to run as it is.
    pub(super) fn is_outdated(&self) -> bool {
        // SAFETY: as above.
        unsafe { duckling_prepared_insert_is_outdated(self.connection.raw.cast()) }
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::AsArray;
    use arrow::record_batch::RecordBatch;

    use super::super::connection::Connection;
    use super::super::database::{Database, DatabaseOptions};
    use super::*;

    fn database() -> Database {
        Database::open(":memory:", &DatabaseOptions::default()).unwrap()
    }

    fn rows(connection: &mut Connection, sql: &str) -> Vec<RecordBatch> {
        connection.collect(sql).unwrap().1
    }

    /// Whether a further one of its like would run as a prepared one.
    fn is_prepared(connection: &mut Connection, sql: &str) -> bool {
        let statements = connection.parse(sql).unwrap();
        PreparedInsert::of(&connection.handle(), &statements[0]).is_some()
    }

    /// Runs them, each as the like of another one, and one by one in a table of which no like has been seen.
    fn same_as_text(columns: &str, rows_to_insert: &[&str], is_to_be_prepared: bool) {
        let database = database();
        let mut connection = database.connect().unwrap();
        connection.execute(&format!("CREATE TABLE cached ({columns})")).unwrap();
        connection
            .execute(&format!("CREATE TABLE written ({columns})"))
            .unwrap();
        let outcome = |result: Result<u64, duckherder_proto::RemoteError>| {
            result.map_err(|error| (error.kind, error.message.replace("written", "cached")))
        };
        for row in rows_to_insert.iter().chain(rows_to_insert) {
            let cached = connection.execute(&format!("INSERT INTO cached VALUES ({row})"));
            // A connection that has seen no like of it runs the text.
            let mut fresh = database.connect().unwrap();
            let written = fresh.execute(&format!("INSERT INTO written VALUES ({row})"));
            assert_eq!(outcome(cached), outcome(written), "{row}");
        }
        assert_eq!(
            rows(&mut connection, "FROM cached ORDER BY rowid"),
            rows(&mut connection, "FROM written ORDER BY rowid"),
            "{columns}"
        );
        let last = rows_to_insert.last().unwrap();
        let sql = format!("INSERT INTO cached VALUES ({last})");
        assert_eq!(is_prepared(&mut connection, &sql), is_to_be_prepared, "{columns}");
    }

    #[test]
    fn values_and_errors_are_those_of_the_text() {
        same_as_text(
            "i BIGINT, s VARCHAR, d DOUBLE",
            &[
                "1, 'a duck', 1.5",
                "-9223372036854775808, 7, '2e3'",
                "NULL, NULL, NULL",
                "2.5, 1.50, 1e400",
                "3, 'x', 4",
            ],
            true,
        );
        same_as_text(
            "t TINYINT, u UBIGINT, h HUGEINT, c DECIMAL(6, 2)",
            &[
                "127, 18446744073709551615, -170141183460469231731687303715884105728, 1.005",
                "128, 1, 1, 1",
                "'12', ' 7', '8', '-9.999'",
                "1, -1, 1, 1",
                "1, 1, 1, 123456.78",
                "true, false, 0, CAST('1.5' AS DOUBLE)",
            ],
            true,
        );
        same_as_text(
            "d DATE, t TIMESTAMP, z TIMESTAMPTZ, m TIME, u UUID, b BLOB, o BOOLEAN",
            &[
                "'2020-02-30', '2020-01-01', NULL, NULL, NULL, NULL, NULL",
                "'2020-02-29', '2020-01-01 10:11:12.5', '2020-01-01 00:00:00', '10:11:12', '00112233-4455-6677-8899-aabbccddeeff', '\\x00a', 't'",
                "CAST('2020-02-29' AS DATE), CAST('2020-01-01' AS DATE), CAST('2020-01-01' AS TIMESTAMP), NULL, NULL, X'00ff', 'maybe'",
                "'2021-01-01', NULL, '2020-01-01 00:00:00+02', '1:2:3', NULL, 'e', FALSE",
            ],
            true,
        );
        same_as_text(
            "i INTEGER PRIMARY KEY, s VARCHAR NOT NULL",
            &["1, 'a'", "2, NULL", "1, 'b'", "3, 'c'"],
            true,
        );
        for columns in [
            "i INTEGER CHECK (i < 3), s VARCHAR",
            "i INTEGER[], s VARCHAR",
            "i INTERVAL, s VARCHAR",
            "i JSON, s VARCHAR",
            "i VARCHAR COLLATE NOCASE, s VARCHAR",
        ] {
            same_as_text(columns, &["1, 'a'", "'[2]', 'b'", "4, 'c'"], false);
        }
        same_as_text(
            "i INTEGER DEFAULT 7, s VARCHAR",
            &["DEFAULT, 'a'", "1 + 1, lower('B')"],
            false,
        );
    }

    #[test]
    fn settings_count_when_it_runs() {
        let database = database();
        let mut connection = database.connect().unwrap();
        connection.execute("CREATE TABLE t (z TIMESTAMPTZ)").unwrap();
        for zone in ["UTC", "America/New_York", "Asia/Tokyo"] {
            if connection.execute(&format!("SET TimeZone = '{zone}'")).is_err() {
                return;
            }
            for _ in 0..4 {
                connection
                    .execute("INSERT INTO t VALUES ('2020-01-01 00:00:00')")
                    .unwrap();
            }
        }
        let hours = "SELECT DISTINCT epoch(z) // 3600 - epoch('2020-01-01'::TIMESTAMP) // 3600 AS h FROM t ORDER BY h";
        let expected = "SELECT unnest([-9.0, 0.0, 5.0])::DOUBLE AS h";
        assert_eq!(rows(&mut connection, hours), rows(&mut connection, expected));
    }

    #[test]
    fn a_changed_table_is_seen() {
        let database = database();
        let mut connection = database.connect().unwrap();
        let mut other = database.connect().unwrap();
        let insert = "INSERT INTO t VALUES ('007')";
        connection.execute("CREATE TABLE t (v BIGINT)").unwrap();
        let four_times = |connection: &mut Connection| {
            for _ in 0..4 {
                connection.execute(insert).unwrap();
            }
        };
        four_times(&mut connection);
        let prepared = rows(
            &mut connection,
            "SELECT name::VARCHAR AS name FROM duckdb_prepared_statements()",
        );
        let name = prepared[0].column(0).as_string::<i32>().value(0).to_owned();
        connection.execute(&format!("DEALLOCATE \"{name}\"")).unwrap();
        four_times(&mut connection);
        assert_eq!(connection.execute("DELETE FROM t WHERE v = 7").unwrap(), 8);
        four_times(&mut connection);
        other.execute("ALTER TABLE t ALTER v TYPE VARCHAR").unwrap();
        four_times(&mut connection);
        assert_eq!(connection.execute("DELETE FROM t WHERE v = '007'").unwrap(), 4);
        // In a transaction too, and when it is rolled back.
        connection.execute("BEGIN; ALTER TABLE t ADD COLUMN w INTEGER").unwrap();
        assert!(connection.execute(insert).is_err());
        connection.execute("ROLLBACK").unwrap();
        four_times(&mut connection);
        // A temporary table comes first.
        connection.execute("CREATE TEMP TABLE t (v VARCHAR)").unwrap();
        four_times(&mut connection);
        assert_eq!(connection.execute("DELETE FROM temp.t").unwrap(), 4);
        connection.execute("DROP TABLE temp.t").unwrap();
        four_times(&mut connection);
        assert_eq!(connection.execute("DELETE FROM main.t WHERE v = '007'").unwrap(), 8);
        other.execute("CREATE SCHEMA s; CREATE TABLE s.t (v BIGINT)").unwrap();
        connection.execute("SET search_path = 's,main'").unwrap();
        four_times(&mut connection);
        assert_eq!(connection.execute("DELETE FROM s.t WHERE v = 7").unwrap(), 4);
        other.execute("CREATE TABLE log (v BIGINT); CREATE TRIGGER r AFTER INSERT ON s.t FOR EACH STATEMENT INSERT INTO main.log VALUES (1)").unwrap();
        four_times(&mut connection);
        assert_eq!(connection.execute("DELETE FROM main.log").unwrap(), 4);
        other
            .execute("DROP TABLE s.t; CREATE VIEW s.t AS SELECT 1 AS v")
            .unwrap();
        assert!(connection.execute(insert).is_err());
    }

    #[test]
    fn tables_that_change_all_the_time_get_every_row_once() {
        let database = database();
        let mut connection = database.connect().unwrap();
        connection.execute("CREATE TABLE t (v BIGINT)").unwrap();
        let mut other = database.connect().unwrap();
        let changes = std::thread::spawn(move || {
            for index in 0..300 {
                // Each is another version of the table, and of the catalog.
                let sql = format!("ALTER TABLE t ALTER v SET DEFAULT {index}");
                let _ = other.execute(&sql);
            }
        });
        let mut inserted = 0;
        while !changes.is_finished() {
            // It may lose against an ALTER, as any INSERT.
            inserted += connection
                .execute(&format!("INSERT INTO t VALUES ({inserted})"))
                .unwrap_or(0);
        }
        changes.join().unwrap();
        assert_eq!(connection.execute("DELETE FROM t").unwrap(), inserted);
    }
}
