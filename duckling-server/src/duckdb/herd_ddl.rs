//! What statements do to the definitions of a herd's tables: `cpp/herd_ddl.cpp`.

use std::ffi::{CStr, c_char, c_void};
use std::ptr;

use duckherder_proto::{ExceptionType, RemoteError};

use super::connection::Connection;
use super::error::parse_text;
use super::statement::Statement;

/// Text that C++ reads during a call: `HerdText`.
#[repr(C)]
pub(super) struct Text {
    ptr: *const u8,
    len: usize,
}

impl Text {
    pub(super) fn of(text: &str) -> Self {
        Self {
            ptr: text.as_ptr(),
            len: text.len(),
        }
    }
}

// In C++; what they return is an error, or null.
unsafe extern "C" {
    fn herd_describe_ddl(
        connection: *mut c_void,
        statement: *const c_void,
        description: *mut *mut c_char,
    ) -> *mut c_char;
    fn herd_describe_tables(connection: *mut c_void, description: *mut *mut c_char) -> *mut c_char;
    fn herd_shadow_table(
        connection: *mut c_void,
        statement: *const c_void,
        placement: Text,
        name: Text,
        result: *mut *mut c_void,
    ) -> *mut c_char;
    fn herd_fill_table(
        connection: *mut c_void,
        statement: *const c_void,
        name: Text,
        result: *mut *mut c_void,
    ) -> *mut c_char;
    fn herd_statement_parts(
        connection: *mut c_void,
        statement: *const c_void,
        add: extern "C" fn(*mut c_void, *mut c_void),
        into: *mut c_void,
    ) -> *mut c_char;
    fn herd_change_definitions(connection: *mut c_void, changes: bool);
    fn herd_error_free(text: *mut c_char);
}

impl Connection {
    /// What a statement does to a herd's tables, as the JSON that `herd::ddl` reads.
    ///
    /// # Errors
    /// DuckDB's, for a statement that cannot be bound.
    pub fn describe_ddl(&mut self, statement: &Statement) -> Result<String, RemoteError> {
        let connection = self.v1().cast();
        // SAFETY: connection and statement are live; a v2 statement handle is a `duckdb::SQLStatement *`.
        take_text(|text| unsafe { herd_describe_ddl(connection, statement.raw.cast(), text) })
    }

    /// All tables of the herd that this connection sees, as JSON.
    ///
    /// # Errors
    /// None that is known.
    pub fn describe_herd_tables(&mut self) -> Result<String, RemoteError> {
        let connection = self.v1().cast();
        // SAFETY: the connection is live.
        take_text(|text| unsafe { herd_describe_tables(connection, text) })
    }

    /// The statement that makes the coordinator's own table, with the placement as its tag. `statement` is a CREATE
    /// TABLE; `name` the table's, if it is another one.
    ///
    /// # Errors
    /// DuckDB's, for a query that cannot be bound.
    pub fn shadow_table(
        &mut self,
        statement: &Statement,
        placement: &str,
        name: Option<&str>,
    ) -> Result<Statement, RemoteError> {
        let connection = self.v1().cast();
        let (placement, name) = (Text::of(placement), Text::of(name.unwrap_or_default()));
        // SAFETY: all are live during the call, and the statement is a CREATE TABLE.
        take_statement(|result| unsafe { herd_shadow_table(connection, statement.raw.cast(), placement, name, result) })
    }

    /// The INSERT that fills what [`Connection::shadow_table`] has made of a CREATE TABLE AS.
    ///
    /// # Errors
    /// None that is known.
    pub fn fill_table(&mut self, statement: &Statement, name: Option<&str>) -> Result<Statement, RemoteError> {
        let connection = self.v1().cast();
        let name = Text::of(name.unwrap_or_default());
        // SAFETY: all are live during the call, and the statement is a CREATE TABLE AS.
        take_statement(|result| unsafe { herd_fill_table(connection, statement.raw.cast(), name, result) })
    }

    /// The statements that DuckDB makes of one, if that is an ALTER of a herd's table; else none.
    ///
    /// # Errors
    /// None that is known.
    pub fn alter_parts(&mut self, statement: &Statement) -> Result<Vec<Statement>, RemoteError> {
        extern "C" fn add(part: *mut c_void, into: *mut c_void) {
            // SAFETY: `into` is the vector below, which nobody else uses during the call.
            unsafe { (*into.cast::<Vec<*mut c_void>>()).push(part) };
        }
        let mut parts: Vec<*mut c_void> = Vec::new();
        let connection = self.v1().cast();
        // SAFETY: connection and statement are live; `add` gets the vector.
        check_text(unsafe { herd_statement_parts(connection, statement.raw.cast(), add, (&raw mut parts).cast()) })?;
        parts.into_iter().map(|part| Statement::new(part.cast())).collect()
    }

    /// Runs `work`, whose statements may change the definitions of a herd's tables here: it sees to the workers' too.
    ///
    /// # Errors
    /// Those of `work`.
    pub fn changing_definitions<T>(
        &mut self,
        work: impl FnOnce(&mut Self) -> Result<T, RemoteError>,
    ) -> Result<T, RemoteError> {
        // SAFETY: the connection is live, and runs no statement.
        unsafe { herd_change_definitions(self.v1().cast(), true) };
        let outcome = work(self);
        // SAFETY: as before.
        unsafe { herd_change_definitions(self.v1().cast(), false) };
        outcome
    }
}

pub(super) fn take_text(call: impl FnOnce(*mut *mut c_char) -> *mut c_char) -> Result<String, RemoteError> {
    let mut text = ptr::null_mut();
    check_text(call(&raw mut text))?;
    Ok(owned(text))
}

fn take_statement(call: impl FnOnce(*mut *mut c_void) -> *mut c_char) -> Result<Statement, RemoteError> {
    let mut raw = ptr::null_mut();
    check_text(call(&raw mut raw))?;
    Statement::new(raw.cast())
}

/// The error that a call has returned, if it has.
pub(super) fn check_text(error: *mut c_char) -> Result<(), RemoteError> {
    if error.is_null() {
        return Ok(());
    }
    let text = owned(error);
    Err(parse_text(&text).unwrap_or_else(|| RemoteError::new(ExceptionType::Io, text)))
}

/// A text that C++ has made, which is freed.
pub(super) fn owned(text: *mut c_char) -> String {
    if text.is_null() {
        return String::new();
    }
    // SAFETY: it is NUL-terminated, ours, and freed only here, after it has been copied.
    unsafe {
        let copy = CStr::from_ptr(text).to_string_lossy().into_owned();
        herd_error_free(text);
        copy
    }
}
