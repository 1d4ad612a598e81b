//! Parsed statements.

use std::ffi::CString;
use std::ptr;
use std::sync::Arc;

use duckherder_proto::{ExceptionType, RemoteError};
use libduckdb_sys::v2 as ffi;

use super::connection::ConnectionHandle;
use super::error::check;
use super::schema::text_of;

use ffi::DUCKDB_V2_STATEMENT_TYPE as Type;

/// Words of statements that change rows.
const CHANGES: [&str; 5] = ["insert", "update", "delete", "merge", "truncate"];

/// What a statement does to the session and the catalog, as far as the server must know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StatementKind {
    /// Reads: SELECT, EXPLAIN.
    Read,
    /// Changes rows: INSERT, UPDATE, DELETE, MERGE.
    Write,
    /// BEGIN, COMMIT, ROLLBACK.
    Transaction,
    /// Changes the catalog, and nothing of the session: CREATE, ALTER, DROP of what is not temporary.
    Catalog,
    /// Everything else: may change the catalog, or the session (SET, PREPARE, ATTACH …).
    Other,
}

impl StatementKind {
    /// The word in the history: what is neither a read nor transaction control may change something.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Transaction => "transaction",
            Self::Write | Self::Catalog | Self::Other => "write",
        }
    }
}

/// One parsed SQL statement.
pub struct Statement {
    pub(super) raw: ffi::duckdb_v2_sql_statement_handle,
    kind: StatementKind,
    text: String,
    /// It is the execution of one that was prepared, in the place of what the text says.
    pub(super) is_prepared: bool,
}

// SAFETY: a parsed statement is plain owned data; DuckDB binds nothing to the thread that parsed it.
unsafe impl Send for Statement {}

impl Drop for Statement {
    fn drop(&mut self) {
        // SAFETY: the handle came from `statement_iterator_next` and is destroyed only here.
        unsafe { ffi::duckdb_v2_sql_statement_destroy(&raw mut self.raw) };
    }
}

impl Statement {
    /// What kind of statement it is.
    #[must_use]
    pub fn kind(&self) -> StatementKind {
        self.kind
    }

    /// Whether it changes no rows either, in a WITH or under EXPLAIN ANALYZE: a guess from the text, wrong only to the safe side.
    #[must_use]
    pub fn only_reads(&self) -> bool {
        if self.kind != StatementKind::Read {
            return false;
        }
        let text = self.text.to_ascii_lowercase();
        !CHANGES.iter().any(|word| text.contains(word))
    }

    /// Its own SQL text.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The names of its parameters, in the order in which values are bound: `1`, `2` … for those without a name.
    ///
    /// # Errors
    /// None that is known.
    pub fn parameters(&self) -> Result<Vec<String>, RemoteError> {
        let mut count = 0;
        // SAFETY: `raw` is a live statement.
        check(|error| unsafe { ffi::duckdb_v2_sql_statement_get_parameter_count(self.raw, &raw mut count, error) })?;
        (0..count)
            .map(|index| {
                let mut name = ffi::duckdb_v2_identifier_t {
                    ptr: ptr::null(),
                    len: 0,
                };
                check(|error| {
                    // SAFETY: `raw` is a live statement, and `index` below its count.
                    unsafe { ffi::duckdb_v2_sql_statement_get_parameter_name(self.raw, index, &raw mut name, error) }
                })?;
                // SAFETY: DuckDB owns the name for as long as the statement lives.
                Ok(unsafe { text_of(name) })
            })
            .collect()
    }

    /// Takes over what runs in the place of a statement of that kind and text.
    pub(super) fn prepared(raw: ffi::duckdb_v2_sql_statement_handle, kind: StatementKind, text: &str) -> Self {
        Self {
            raw,
            kind,
            text: text.to_owned(),
            is_prepared: true,
        }
    }

    /// Takes over a statement of the C API, or a `duckdb::SQLStatement *`, which is the same.
    pub(super) fn new(raw: ffi::duckdb_v2_sql_statement_handle) -> Result<Self, RemoteError> {
        let mut statement = Self {
            raw,
            kind: StatementKind::Other,
            text: String::new(),
            is_prepared: false,
        };
        let mut kind = Type::DUCKDB_V2_STATEMENT_TYPE_INVALID;
        // SAFETY: `raw` is a live statement.
        check(|error| unsafe { ffi::duckdb_v2_sql_statement_get_type(raw, &raw mut kind, error) })?;
        let mut text = ffi::duckdb_v2_str {
            ptr: ptr::null(),
            len: 0,
        };
        // SAFETY: `raw` is a live statement.
        check(|error| unsafe { ffi::duckdb_v2_sql_statement_get_text(raw, &raw mut text, error) })?;
        if !text.ptr.is_null() {
            // SAFETY: DuckDB owns `len` bytes at `ptr` for as long as the statement lives.
            let bytes = unsafe { std::slice::from_raw_parts(text.ptr.cast::<u8>(), text.len as usize) };
            statement.text = String::from_utf8_lossy(bytes).into_owned();
        }
        statement.kind = classify(kind, &statement.text);
        Ok(statement)
    }
}

fn classify(kind: Type, text: &str) -> StatementKind {
    match kind {
        Type::DUCKDB_V2_STATEMENT_TYPE_SELECT | Type::DUCKDB_V2_STATEMENT_TYPE_EXPLAIN => StatementKind::Read,
        Type::DUCKDB_V2_STATEMENT_TYPE_INSERT
        | Type::DUCKDB_V2_STATEMENT_TYPE_UPDATE
        | Type::DUCKDB_V2_STATEMENT_TYPE_DELETE
        | Type::DUCKDB_V2_STATEMENT_TYPE_MERGE_INTO => StatementKind::Write,
        Type::DUCKDB_V2_STATEMENT_TYPE_TRANSACTION => StatementKind::Transaction,
        // A temporary table belongs to the session. The word may be somewhere else in the text: then it costs a wait.
        Type::DUCKDB_V2_STATEMENT_TYPE_CREATE if !text.to_ascii_lowercase().contains("temp") => StatementKind::Catalog,
        Type::DUCKDB_V2_STATEMENT_TYPE_ALTER | Type::DUCKDB_V2_STATEMENT_TYPE_DROP => StatementKind::Catalog,
        _ => StatementKind::Other,
    }
}

struct Iterator(ffi::duckdb_v2_statement_iterator_handle);

impl Drop for Iterator {
    fn drop(&mut self) {
        // SAFETY: the handle came from `parse_sql` and is destroyed only here.
        unsafe { ffi::duckdb_v2_statement_iterator_destroy(&raw mut self.0) };
    }
}

pub(super) fn parse(connection: &Arc<ConnectionHandle>, sql: &str) -> Result<Vec<Statement>, RemoteError> {
    let sql = CString::new(sql)
        .map_err(|_| RemoteError::new(ExceptionType::InvalidInput, "SQL text must not contain NUL characters"))?;
    let mut iterator = Iterator(ptr::null_mut());
    // SAFETY: the connection is live and `sql` is NUL-terminated; the text is copied.
    check(|error| unsafe { ffi::duckdb_v2_parse_sql(connection.raw, sql.as_ptr(), &raw mut iterator.0, error) })?;
    let mut statements = Vec::new();
    loop {
        let mut raw: ffi::duckdb_v2_sql_statement_handle = ptr::null_mut();
        // SAFETY: the iterator is live; `raw` is a slot for the next statement, null at the end.
        check(|error| unsafe { ffi::duckdb_v2_statement_iterator_next(iterator.0, &raw mut raw, error) })?;
        if raw.is_null() {
            return Ok(statements);
        }
        statements.push(Statement::new(raw)?);
    }
}

#[cfg(test)]
mod tests {
    use crate::duckdb::{Database, DatabaseOptions};

    #[test]
    fn what_may_change_rows_does_not_only_read() {
        let database = Database::open(":memory:", &DatabaseOptions::default()).unwrap();
        let mut connection = database.connect().unwrap();
        let mut only_reads = |sql| connection.parse(sql).unwrap()[0].only_reads();
        assert!(only_reads("SELECT 1"));
        assert!(only_reads("EXPLAIN ANALYZE FROM range(3)"));
        assert!(!only_reads("EXPLAIN ANALYZE INSERT INTO t VALUES (1)"));
        assert!(!only_reads("WITH d AS (DELETE FROM t RETURNING *) FROM d"));
        assert!(!only_reads("INSERT INTO t VALUES (1)"));
        assert!(!only_reads("SET threads = 1"));
    }
}
