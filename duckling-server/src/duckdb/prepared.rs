//! INSERTs of one row of constants and look-ups of one, which are planned once for all of their like: `cpp/prepared.cpp`.

use std::ffi::{c_char, c_void};
use std::ptr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow::ffi::{FFI_ArrowArray, FFI_ArrowSchema};
use duckherder_catalog::template::{LiteralKind, Template};
use duckherder_proto::RemoteError;
use duckherder_proto::types::with_type_texts;

use super::connection::{Connection, ConnectionHandle};
use super::herd_ddl::{Text, check_text, owned};
use super::result::record_batch;
use super::schema::schema_of;
use super::statement::{Statement, StatementKind};

/// Short statements of a connection whose columns are kept.
const SHORT_SCHEMAS_MAX: usize = 64;

/// `DucklingLiteral`.
#[repr(C)]
struct Literal {
    offset: usize,
    is_string: bool,
    text: Text,
}

unsafe extern "C" {
    /// In C++; what it returns is an error, or null.
    fn duckling_prepared(
        connection: *mut c_void,
        statement: *mut c_void,
        text: *const Text,
        literals: *const Literal,
        count: usize,
        execution: *mut *mut c_void,
    ) -> *mut c_char;
    fn duckling_prepared_of_text(
        connection: *mut c_void,
        sql: Text,
        text: Text,
        literals: *const Literal,
        count: usize,
        execution: *mut *mut c_void,
    ) -> *mut c_char;
    fn duckling_run_short(
        connection: *mut c_void,
        text: Text,
        literals: *const Literal,
        count: usize,
        array: *mut FFI_ArrowArray,
        schema: *mut u64,
        catalog_version: *mut u64,
        has_run: *mut bool,
    ) -> *mut c_char;
    fn duckling_catalog_version(connection: *mut c_void, version: *mut u64) -> *mut c_char;
    fn duckling_short_columns(
        connection: *mut c_void,
        text: Text,
        schema: *mut FFI_ArrowSchema,
        types: *mut *mut c_char,
    ) -> *mut c_char;
    fn duckling_prepared_is_short(connection: *mut c_void, text: Text) -> bool;
    fn duckling_prepared_is_outdated(connection: *mut c_void) -> bool;
}

/// What a statement yields that yields one row at most.
pub struct ShortResult {
    /// What it does.
    pub kind: StatementKind,
    /// The columns.
    pub schema: SchemaRef,
    /// One row, if there is one.
    pub row: Option<RecordBatch>,
    /// How long it has taken.
    pub took: Duration,
    /// DuckDB's version of the catalog that it has found its table in.
    pub catalog_version: Option<u64>,
}

/// What stands for no version.
const NO_VERSION: u64 = u64::MAX;

/// What runs in the place of a statement without parameters. `None` if it is to run as it is: if its like has not been seen
/// before, for one.
pub(super) fn prepared(connection: &Arc<ConnectionHandle>, statement: &Statement) -> Option<Statement> {
    if !matches!(statement.kind(), StatementKind::Write | StatementKind::Read) {
        return None;
    }
    let template = Template::of(statement.text());
    let literals = template.as_ref().map(literals).unwrap_or_default();
    let text = template.as_ref().map(|template| Text::of(template.text.as_str()));
    let mut raw = ptr::null_mut();
    // SAFETY: a handle of the API's version 1 is the same connection, a `duckdb::Connection *`, and that of a statement is a
    // `duckdb::SQLStatement *`; both are live, and nobody else uses them. The texts are borrowed for the call.
    let outcome = check_text(unsafe {
        duckling_prepared(
            connection.raw.cast(),
            statement.raw.cast(),
            text.as_ref().map_or(ptr::null(), ptr::from_ref),
            literals.as_ptr(),
            literals.len(),
            &raw mut raw,
        )
    });
    // Why it cannot be done, the statement says when it runs.
    outcome.ok()?;
    (!raw.is_null()).then(|| Statement::prepared(raw.cast(), statement.kind(), statement.text()))
}

/// Whether what was prepared has failed, without having done anything, as the table has changed: the statement is to run
/// as it is.
pub(super) fn is_outdated(connection: &Arc<ConnectionHandle>) -> bool {
    // SAFETY: as above.
    unsafe { duckling_prepared_is_outdated(connection.raw.cast()) }
}

fn known(version: u64) -> Option<u64> {
    (version != NO_VERSION).then_some(version)
}

impl Connection {
    /// The statements of `sql`, to be run here before anything else that is prepared. One that is like another one that has
    /// been run is known by its text, and not parsed.
    ///
    /// # Errors
    /// DuckDB's parser errors.
    pub fn statements(&mut self, sql: &str) -> Result<Vec<Statement>, RemoteError> {
        match self.prepared(sql) {
            Some(prepared) => Ok(vec![prepared]),
            None => self.parse(sql),
        }
    }

    /// Runs `sql` if it [is short](Connection::is_short), in a transaction of its own. `None` if it has to be run like any other
    /// statement after all.
    ///
    /// # Errors
    /// DuckDB's, of what is run.
    pub fn run_short(&mut self, sql: &str) -> Result<Option<ShortResult>, RemoteError> {
        let started = Instant::now();
        let Some(template) = Template::of(sql) else {
            return Ok(None);
        };
        let literals = literals(&template);
        let text = || Text::of(template.text.as_str());
        let mut array = FFI_ArrowArray::empty();
        let (mut number, mut version, mut has_run) = (0, NO_VERSION, false);
        // SAFETY: as above; `FFI_ArrowArray` has the layout of `ArrowArray`, and DuckDB hands its ownership over.
        check_text(unsafe {
            duckling_run_short(
                self.v1().cast(),
                text(),
                literals.as_ptr(),
                literals.len(),
                &raw mut array,
                &raw mut number,
                &raw mut version,
                &raw mut has_run,
            )
        })?;
        if !has_run {
            return Ok(None);
        }
        let schema = match self.short_schemas.get(&number) {
            Some(schema) => Arc::clone(schema),
            None => {
                let schema = self.short_columns(text())?;
                if self.short_schemas.len() >= SHORT_SCHEMAS_MAX {
                    self.short_schemas.clear();
                }
                self.short_schemas.insert(number, Arc::clone(&schema));
                schema
            }
        };
        let row = if array.is_released() {
            None
        } else {
            Some(record_batch(Arc::clone(&schema), array)?)
        };
        let kind = short_kind(sql);
        Ok(Some(ShortResult {
            kind,
            schema,
            row,
            took: started.elapsed(),
            catalog_version: known(version),
        }))
    }

    /// The version of the default database's catalog that the open transaction sees: the same one means the same definitions.
    /// `None` if it has none.
    ///
    /// # Errors
    /// There is no such database any more.
    pub fn catalog_version(&mut self) -> Result<Option<u64>, RemoteError> {
        let mut version = NO_VERSION;
        // SAFETY: as above.
        check_text(unsafe { duckling_catalog_version(self.v1().cast(), &raw mut version) })?;
        Ok(known(version))
    }

    fn short_columns(&mut self, text: Text) -> Result<SchemaRef, RemoteError> {
        let mut raw = FFI_ArrowSchema::empty();
        let mut types = ptr::null_mut();
        // SAFETY: as above; `FFI_ArrowSchema` has the layout of `ArrowSchema`, and DuckDB fills it.
        check_text(unsafe { duckling_short_columns(self.v1().cast(), text, &raw mut raw, &raw mut types) })?;
        let types = owned(types);
        let types: Vec<_> = types.lines().map(str::to_owned).collect();
        Ok(Arc::new(with_type_texts(&schema_of(&raw)?, &types)))
    }

    /// Whether `sql` is like a statement that has been run here before, yields one row at most, and takes next to no time: a
    /// look-up by a unique key, or an INSERT of one row.
    pub fn is_short(&mut self, sql: &str) -> bool {
        // SAFETY: as above.
        Template::of(sql)
            .is_some_and(|template| unsafe { duckling_prepared_is_short(self.v1().cast(), Text::of(&template.text)) })
    }

    fn prepared(&mut self, sql: &str) -> Option<Statement> {
        let template = Template::of(sql)?;
        let literals = literals(&template);
        let mut raw = ptr::null_mut();
        // SAFETY: as above.
        let outcome = check_text(unsafe {
            duckling_prepared_of_text(
                self.v1().cast(),
                Text::of(sql),
                Text::of(template.text.as_str()),
                literals.as_ptr(),
                literals.len(),
                &raw mut raw,
            )
        });
        outcome.ok()?;
        (!raw.is_null()).then(|| Statement::prepared(raw.cast(), short_kind(sql), sql))
    }
}

/// What a short statement does. Told from the first word: nothing else than INSERTs and SELECTs is prepared.
pub fn short_kind(sql: &str) -> StatementKind {
    let is_insert = |word: &str| word.eq_ignore_ascii_case("insert");
    if sql.trim_start().get(..6).is_some_and(is_insert) {
        StatementKind::Write
    } else {
        StatementKind::Read
    }
}

fn literals(template: &Template<'_>) -> Vec<Literal> {
    let literals = template.literals.iter();
    literals
        .map(|literal| Literal {
            offset: literal.offset,
            is_string: literal.kind == LiteralKind::String,
            text: Text::of(literal.text.as_ref()),
        })
        .collect()
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

    /// Runs it as a server does for a client.
    fn collect(connection: &mut Connection, sql: &str) -> Result<(SchemaRef, Vec<RecordBatch>), RemoteError> {
        if connection.is_short(sql)
            && let Some(result) = connection.run_short(sql)?
        {
            return Ok((result.schema, result.row.into_iter().collect()));
        }
        connection.collect(sql)
    }

    /// The same, of an INSERT.
    fn insert(connection: &mut Connection, sql: &str) -> Result<u64, RemoteError> {
        if connection.is_short(sql)
            && let Some(result) = connection.run_short(sql)?
        {
            return Ok(result.row.as_ref().map_or(0, crate::duckdb::rows_changed));
        }
        connection.execute(sql)
    }

    fn rows(connection: &mut Connection, sql: &str) -> Vec<RecordBatch> {
        collect(connection, sql).unwrap().1
    }

    /// Whether a further one of its like would run as a prepared one; as it is parsed, and told from its text.
    fn is_prepared(connection: &mut Connection, sql: &str) -> (bool, bool) {
        let statements = connection.parse(sql).unwrap();
        let is_prepared = prepared(&connection.handle(), &statements[0]).is_some();
        (is_prepared, connection.prepared(sql).is_some())
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
            let cached = insert(&mut connection, &format!("INSERT INTO cached VALUES ({row})"));
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
        let expected = (is_to_be_prepared, is_to_be_prepared);
        assert_eq!(is_prepared(&mut connection, &sql), expected, "{columns}");
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
                insert(&mut connection, "INSERT INTO t VALUES ('2020-01-01 00:00:00')").unwrap();
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
        let seven = "INSERT INTO t VALUES ('007')";
        connection.execute("CREATE TABLE t (v BIGINT)").unwrap();
        let four_times = |connection: &mut Connection| {
            for _ in 0..4 {
                insert(connection, seven).unwrap();
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
        assert!(insert(&mut connection, seven).is_err());
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
        assert!(insert(&mut connection, seven).is_err());
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
            inserted += insert(&mut connection, &format!("INSERT INTO t VALUES ({inserted})")).unwrap_or(0);
        }
        changes.join().unwrap();
        assert_eq!(connection.execute("DELETE FROM t").unwrap(), inserted);
    }

    /// Runs it often enough to be prepared, and as text; the last rows.
    fn look_up(database: &Database, connection: &mut Connection, sql: &str) -> Vec<RecordBatch> {
        let mut last = Vec::new();
        for _ in 0..4 {
            let outcome = collect(connection, sql).map_err(|error| (error.kind, error.message));
            // A connection that has seen no like of it runs the text.
            let mut fresh = database.connect().unwrap();
            let written = fresh.collect(sql).map_err(|error| (error.kind, error.message));
            match (outcome, written) {
                (Ok((schema, rows)), Ok((written_schema, written_rows))) => {
                    assert_eq!(schema, written_schema, "{sql}");
                    assert_eq!(rows, written_rows, "{sql}");
                    last = rows;
                }
                (outcome, written) => assert_eq!(outcome.map(|_| ()), written.map(|_| ()), "{sql}"),
            }
        }
        last
    }

    #[test]
    fn look_ups_find_what_the_text_finds() {
        let database = database();
        let mut connection = database.connect().unwrap();
        connection
            .execute(
                "CREATE TABLE t (k BIGINT PRIMARY KEY, s VARCHAR UNIQUE, d DECIMAL(9, 2), \"odd name\" UTINYINT);
                 INSERT INTO t SELECT i, 'a ''duck'' ' || i, i / 3, i % 200 FROM range(5000) r(i);
                 INSERT INTO t VALUES (-7, NULL, NULL, NULL)",
            )
            .unwrap();
        for column in ["k", "t.k", "main.t.k", "\"odd name\""] {
            for constant in [
                "7",
                "-7",
                "4999",
                "5000",
                "300",
                "9223372036854775807",
                "9223372036854775808",
                "7.0",
                "'7'",
                "'x'",
                "NULL",
                "1 + 6",
                "0x7",
                "7::TINYINT",
                "true",
            ] {
                look_up(
                    &database,
                    &mut connection,
                    &format!("SELECT * FROM t WHERE {column} = {constant}"),
                );
            }
        }
        for constant in ["'a ''duck'' 7'", "'a duck'", "''", "7", "NULL", "e'a \\'duck\\' 8'"] {
            look_up(
                &database,
                &mut connection,
                &format!("SELECT k AS \"Key\", K, t.d FROM t WHERE s = {constant}"),
            );
        }
        for sql in [
            "SELECT * FROM t WHERE k = 3",
            "SELECT s, s, \"odd name\", k FROM t WHERE k = 8",
            "FROM t AS x WHERE x.k = 9",
            "SELECT rowid FROM t WHERE k = 9",
            "SELECT x.* FROM main.t AS x WHERE k = 10",
            "SELECT k FROM t WHERE s = 'a ''duck'' 9'",
            "SELECT k FROM t WHERE \"odd name\" = 9",
            "SELECT \"odd name\" AS k FROM t WHERE k = 9",
        ] {
            look_up(&database, &mut connection, sql);
            assert_eq!(is_prepared(&mut connection, sql), (true, true), "{sql}");
        }
        for sql in [
            "SELECT * FROM t WHERE 3 = k",
            "SELECT k + 1 FROM t WHERE k = 8",
            "SELECT DISTINCT k FROM t WHERE k = 8",
            "SELECT * FROM t WHERE k = 8 LIMIT 1",
            "SELECT count(*) FROM t WHERE k = 8",
            "SELECT * FROM t WHERE k = 8 AND s = 'x'",
            "SELECT * FROM t WHERE k > 8",
            "SELECT * EXCLUDE (k) FROM t WHERE k = 8",
            "SELECT * FROM t, t AS u WHERE t.k = 8",
            "SELECT * FROM t TABLESAMPLE 50% WHERE k = 8",
            "SELECT k FROM t WHERE d = 3",
            "SELECT k AS n FROM t WHERE n = 3",
        ] {
            look_up(&database, &mut connection, sql.replace(" TABLESAMPLE 50%", "").as_str());
            assert_eq!(is_prepared(&mut connection, sql), (false, false), "{sql}");
        }
    }

    #[test]
    fn look_ups_of_rows_that_change() {
        let database = database();
        let mut connection = database.connect().unwrap();
        let mut other = database.connect().unwrap();
        let count = |connection: &mut Connection, sql: &str| -> usize {
            collect(connection, sql)
                .unwrap()
                .1
                .iter()
                .map(RecordBatch::num_rows)
                .sum()
        };
        let seven = "SELECT v FROM t WHERE k = 7";
        connection
            .execute("CREATE TABLE t (k INTEGER PRIMARY KEY, v INTEGER)")
            .unwrap();
        // Of an empty table, the statistics know that there is nothing.
        for _ in 0..8 {
            assert_eq!(count(&mut connection, seven), 0);
        }
        connection.execute("INSERT INTO t VALUES (7, 1)").unwrap();
        // Now they know that it is this.
        for _ in 0..8 {
            assert_eq!(count(&mut connection, seven), 1);
        }
        connection
            .execute("INSERT INTO t SELECT i, 0 FROM range(10, 9000) r(i)")
            .unwrap();
        for _ in 0..4 {
            assert_eq!(count(&mut connection, seven), 1);
            assert_eq!(count(&mut connection, "SELECT v FROM t WHERE k = 8"), 0);
        }
        connection.execute("BEGIN").unwrap();
        connection
            .execute("UPDATE t SET v = 2 WHERE k = 7; INSERT INTO t VALUES (8, 3)")
            .unwrap();
        let value = |connection: &mut Connection| {
            rows(connection, seven)[0]
                .column(0)
                .as_primitive::<arrow::datatypes::Int32Type>()
                .value(0)
        };
        for _ in 0..4 {
            assert_eq!((value(&mut connection), value(&mut other)), (2, 1));
            assert_eq!(count(&mut connection, "SELECT v FROM t WHERE k = 8"), 1);
            assert_eq!(count(&mut other, "SELECT v FROM t WHERE k = 8"), 0);
        }
        connection.execute("DELETE FROM t WHERE k = 7").unwrap();
        for _ in 0..4 {
            assert_eq!((count(&mut connection, seven), count(&mut other, seven)), (0, 1));
        }
        connection.execute("ROLLBACK").unwrap();
        for _ in 0..4 {
            assert_eq!((count(&mut connection, seven), count(&mut other, seven)), (1, 1));
        }
        other.execute("ALTER TABLE t ADD COLUMN w INTEGER DEFAULT 5").unwrap();
        look_up(&database, &mut connection, "SELECT * FROM t WHERE k = 7");
        other.execute("BEGIN; ALTER TABLE t RENAME v TO u").unwrap();
        look_up(&database, &mut connection, "SELECT * FROM t WHERE k = 7");
        other.execute("COMMIT").unwrap();
        assert!(collect(&mut connection, seven).is_err());
        look_up(&database, &mut connection, "SELECT * FROM t WHERE k = 7");
        other
            .execute(
                "DROP TABLE t; CREATE TABLE t (k VARCHAR, v VARCHAR); INSERT INTO t VALUES ('7', 'x'), ('007', 'y')",
            )
            .unwrap();
        look_up(&database, &mut connection, "SELECT * FROM t WHERE k = '7'");
        look_up(&database, &mut connection, "SELECT * FROM t WHERE k = 7");
        connection
            .execute("CREATE TEMP TABLE t (k VARCHAR, v VARCHAR)")
            .unwrap();
        assert_eq!(count(&mut connection, "SELECT * FROM t WHERE k = '7'"), 0);
        connection.execute("DROP TABLE temp.t").unwrap();
        for _ in 0..4 {
            assert_eq!(count(&mut connection, "SELECT * FROM t WHERE k = '7'"), 1);
        }
        connection.execute("INSERT INTO t VALUES ('A', 'z')").unwrap();
        for _ in 0..4 {
            assert_eq!(count(&mut connection, "SELECT * FROM t WHERE k = 'a'"), 0);
        }
        connection.execute("SET default_collation = 'NOCASE'").unwrap();
        for _ in 0..4 {
            assert_eq!(count(&mut connection, "SELECT * FROM t WHERE k = 'a'"), 1);
        }
        connection.execute("RESET default_collation").unwrap();
        other
            .execute("DROP TABLE t; CREATE VIEW t AS SELECT 7 AS k, 8 AS v")
            .unwrap();
        look_up(&database, &mut connection, "SELECT * FROM t WHERE k = '7'");
    }

    #[test]
    fn look_ups_in_tables_that_change_all_the_time() {
        let database = database();
        let mut connection = database.connect().unwrap();
        connection
            .execute("CREATE TABLE t (k BIGINT PRIMARY KEY); INSERT INTO t SELECT i FROM range(3000) r(i)")
            .unwrap();
        let mut other = database.connect().unwrap();
        let changes = std::thread::spawn(move || {
            for index in 0..200 {
                let column = if index % 2 == 0 {
                    "ADD COLUMN v BIGINT DEFAULT 1"
                } else {
                    "DROP COLUMN v"
                };
                let _ = other.execute(&format!("ALTER TABLE t {column}"));
            }
        });
        let mut key = 0;
        while !changes.is_finished() {
            let (schema, rows) = collect(&mut connection, &format!("SELECT * FROM t WHERE k = {key}")).unwrap();
            assert_eq!(rows.iter().map(RecordBatch::num_rows).sum::<usize>(), 1);
            assert_eq!(rows[0].num_columns(), schema.fields().len());
            assert_eq!(
                rows[0].column(0).as_primitive::<arrow::datatypes::Int64Type>().value(0),
                key
            );
            key = (key + 1) % 3000;
        }
        changes.join().unwrap();
    }

    #[test]
    fn texts_that_look_alike_are_told_apart() {
        let database = database();
        let mut connection = database.connect().unwrap();
        connection
            .execute(
                "CREATE TABLE t (k INTEGER PRIMARY KEY, s VARCHAR); INSERT INTO t SELECT i, 'S' || i FROM range(-50, 50) r(i);
                 CREATE TABLE log (i INTEGER, d DOUBLE, s VARCHAR)",
            )
            .unwrap();
        for _ in 0..4 {
            for constant in ["7", "-7", "- 7", "'7'", "7.0", "7.", "07", "(7)", "7 -- seven"] {
                look_up(
                    &database,
                    &mut connection,
                    &format!("SELECT * FROM t WHERE k = {constant}"),
                );
            }
            for text in [
                "SELECT k, S FROM t WHERE k = 7",
                "SELECT K, s FROM t WHERE k = 7",
                "select  k, S from t where k = 7 ",
                "SELECT k AS \"7\" FROM t WHERE k = 7",
                "SELECT k AS \"8\" FROM t WHERE k = 8",
                "SELECT s FROM t WHERE s = 'S7'",
                "SELECT s FROM t WHERE s = 'S''7'",
                "SELECT s FROM t WHERE s = 'S7'; ",
                "SELECT 7 AS n; SELECT s FROM t WHERE k = 8",
            ] {
                look_up(&database, &mut connection, text);
            }
            for row in [
                "1, 2.5, 'a'",
                "-1, 2, 'b'",
                "1, -2, NULL",
                "'3', '4', 5",
                "1, CAST('2' AS DOUBLE), 'x'",
                "4, true, 'y'",
            ] {
                let before = rows(&mut connection, "SELECT count(*) AS n FROM log");
                insert(&mut connection, &format!("INSERT INTO log VALUES ({row})")).unwrap();
                let inserted = "SELECT * FROM log QUALIFY row_number() OVER (ORDER BY rowid DESC) = 1";
                let expected = format!(
                    "SELECT c0::INTEGER AS i, c1::DOUBLE AS d, c2::VARCHAR AS s FROM (VALUES ({row})) v(c0, c1, c2)"
                );
                assert_eq!(
                    rows(&mut connection, inserted),
                    rows(&mut connection, &expected),
                    "{row}"
                );
                assert_ne!(rows(&mut connection, "SELECT count(*) AS n FROM log"), before);
            }
        }
        let name = |connection: &mut Connection| {
            connection
                .collect("SELECT k AS Kk FROM t WHERE k = 7")
                .unwrap()
                .0
                .field(0)
                .name()
                .clone()
        };
        for (setting, expected) in [("preserve_case", "Kk"), ("lowercase", "kk"), ("preserve_case", "Kk")] {
            connection
                .execute(&format!("SET preserve_identifier_case = '{setting}'"))
                .unwrap();
            for _ in 0..4 {
                assert_eq!(name(&mut connection), expected);
            }
        }
        assert_eq!(
            is_prepared(&mut connection, "SELECT * FROM t WHERE k = -7"),
            (true, false)
        );
        assert!(connection.prepared("SELECT k, S FROM t WHERE k = 8").is_some());
        // One that cannot be what the column holds is left to the text, and so are its like until one has been parsed again.
        assert!(connection.prepared("SELECT k, S FROM t WHERE k = 3000000000").is_none());
        assert!(connection.prepared("SELECT k, S FROM t WHERE k = 8").is_none());
    }

    #[test]
    fn many_texts_are_forgotten_and_known_again() {
        let database = database();
        let mut connection = database.connect().unwrap();
        connection
            .execute("CREATE TABLE t (k INTEGER PRIMARY KEY); INSERT INTO t FROM range(100)")
            .unwrap();
        for round in 0..3 {
            for column in 0..100 {
                let sql = format!("SELECT k AS c{column} FROM t WHERE k = {column}");
                for _ in 0..3 {
                    let (schema, rows) = connection.collect(&sql).unwrap();
                    assert_eq!(schema.field(0).name(), &format!("c{column}"));
                    assert_eq!(rows[0].num_rows(), 1, "{round}");
                }
            }
        }
        let count = "SELECT count(*)::INTEGER AS n FROM duckdb_prepared_statements()";
        let kept = rows(&mut connection, count)[0]
            .column(0)
            .as_primitive::<arrow::datatypes::Int32Type>()
            .value(0);
        assert!((1..=32 + 64).contains(&kept), "{kept}");
    }

    #[test]
    fn short_is_what_finds_or_makes_one_row() {
        let database = database();
        let mut connection = database.connect().unwrap();
        connection
            .execute(
                "CREATE TABLE t (k INTEGER PRIMARY KEY, u VARCHAR UNIQUE, v INTEGER, UNIQUE (k, v));
                 INSERT INTO t SELECT i, 'u' || i, i % 3 FROM range(10, 100) r(i);
                 CREATE TABLE free (a VARCHAR, b INTEGER NOT NULL)",
            )
            .unwrap();
        let mut is_short = |sql: &str| {
            let run = |connection: &mut Connection| collect(connection, sql).map(|_| ());
            let outcomes: Vec<_> = (0..4).map(|_| run(&mut connection)).collect();
            (
                connection.is_short(sql),
                outcomes.iter().filter(|outcome| outcome.is_ok()).count(),
            )
        };
        for sql in [
            "SELECT * FROM t WHERE k = 33",
            "SELECT v, k FROM t WHERE u = 'u33'",
            "INSERT INTO free VALUES ('x', 1)",
            "INSERT INTO free (b, a) VALUES (2, 'y')",
        ] {
            assert_eq!(is_short(sql), (true, 4), "{sql}");
        }
        for sql in [
            "SELECT * FROM t WHERE v = 3",
            "SELECT * FROM t WHERE k = 3 AND v = 3",
            "INSERT INTO free (b) VALUES (2)",
            "INSERT INTO free VALUES ('x', 1), ('y', 2)",
            "INSERT INTO free VALUES ('x', 1) RETURNING b",
        ] {
            assert_eq!(is_short(sql), (false, 4), "{sql}");
        }
        assert_eq!(is_short("INSERT INTO t VALUES (1, 'x', 2)"), (true, 1));
        let rows_of_free = "SELECT a, b, count(*) AS n FROM free GROUP BY ALL ORDER BY ALL";
        let expected = "SELECT * FROM (VALUES ('x', 1, 12::BIGINT), ('y', 2, 8), (NULL, 2, 4)) v(a, b, n) ORDER BY ALL";
        assert_eq!(rows(&mut connection, rows_of_free), rows(&mut connection, expected));
    }

    #[test]
    fn short_statements_fail_as_others_do_and_change_nothing() {
        let database = database();
        let mut connection = database.connect().unwrap();
        connection
            .execute("CREATE TABLE t (k INTEGER PRIMARY KEY, v INTEGER NOT NULL)")
            .unwrap();
        for key in 0..4 {
            insert(&mut connection, &format!("INSERT INTO t VALUES ({key}, {key})")).unwrap();
        }
        assert!(connection.is_short("INSERT INTO t VALUES (9, 9)"));
        for (row, error) in [("1, 5", "Duplicate key"), ("9, NULL", "NOT NULL constraint failed")] {
            for _ in 0..2 {
                let failed = insert(&mut connection, &format!("INSERT INTO t VALUES ({row})")).unwrap_err();
                assert!(failed.message.contains(error), "{}", failed.message);
            }
        }
        // In a transaction they run like others.
        connection.execute("BEGIN").unwrap();
        assert!(connection.run_short("INSERT INTO t VALUES (9, 9)").unwrap().is_none());
        insert(&mut connection, "INSERT INTO t VALUES (9, 9)").unwrap();
        connection.execute("ROLLBACK").unwrap();
        let sum = "SELECT count(*) AS n, sum(k)::BIGINT AS s, sum(v)::BIGINT AS v FROM t";
        let expected = "SELECT 4::BIGINT AS n, 6::BIGINT AS s, 6::BIGINT AS v";
        assert_eq!(rows(&mut connection, sum), rows(&mut connection, expected));
        // What another transaction has inserted, and not committed yet, is in the way.
        let mut other = database.connect().unwrap();
        other.execute("BEGIN; INSERT INTO t VALUES (7, 7)").unwrap();
        assert!(insert(&mut connection, "INSERT INTO t VALUES (8, 8)").is_ok());
        let outcomes = [
            insert(&mut connection, "INSERT INTO t VALUES (7, 8)").is_ok(),
            other.execute("COMMIT").is_ok(),
        ];
        assert_eq!(outcomes.iter().filter(|is_ok| **is_ok).count(), 1, "{outcomes:?}");
        assert_eq!(rows(&mut connection, "SELECT v FROM t WHERE k = 7").len(), 1);
    }

    #[test]
    fn short_statements_can_be_watched() {
        let database = database();
        let mut connection = database.connect().unwrap();
        connection
            .execute("CREATE TABLE t (k INTEGER PRIMARY KEY); INSERT INTO t SELECT * FROM range(100)")
            .unwrap();
        let sql = "SELECT * FROM t WHERE k = 3";
        for _ in 0..4 {
            collect(&mut connection, sql).unwrap();
        }
        assert!(connection.run_short(sql).unwrap().is_some());
        connection.execute("CALL enable_logging('QueryLog')").unwrap();
        assert!(connection.run_short(sql).unwrap().is_none());
    }
}
