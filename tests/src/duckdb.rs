//! A user's DuckDB: SQL in, values out as DuckDB itself writes them.
//!
//! Values are rendered by DuckDB's `Value::ToString`, so every type comes out exactly, and nothing between the result
//! and the test can hide a difference.

use std::ffi::CString;
use std::ptr;
use std::sync::{Arc, OnceLock};

use libduckdb_sys::v2 as ffi;

use crate::extension::with_extension;

use ffi::DUCKDB_V2_ERROR as Code;

/// An error of DuckDB, as the user reads it: `Binder Error: …`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct SqlError(pub String);

/// What a statement gave back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// Name and DuckDB type of each column.
    pub columns: Vec<(String, String)>,
    /// Values as text, `None` for NULL.
    pub rows: Vec<Vec<Option<String>>>,
    /// The result is a number of changed rows, not rows: as hosts such as the CLI tell the two apart.
    pub is_changed_rows: bool,
}

impl Output {
    /// The number of changed rows, if that is what the result is: one BIGINT column `Count`.
    #[must_use]
    pub fn rows_changed(&self) -> Option<u64> {
        let [(name, data_type)] = self.columns.as_slice() else {
            return None;
        };
        if name != "Count" || data_type != "BIGINT" {
            return None;
        }
        self.rows.first()?.first()?.as_deref()?.parse().ok()
    }

    /// The rows as lines, values separated by `|`.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        let value = |value: &Option<String>| value.clone().unwrap_or_else(|| "NULL".to_owned());
        self.rows
            .iter()
            .map(|row| row.iter().map(value).collect::<Vec<_>>().join("|"))
            .collect()
    }
}

/// A DuckDB instance with an in-memory database. Clones are the same instance.
#[derive(Clone)]
pub struct DuckDb(Arc<Instance>);

struct Instance(ffi::duckdb_v2_instance_handle);

// SAFETY: an instance may be used from any thread; DuckDB locks inside.
unsafe impl Send for Instance {}
// SAFETY: as above.
unsafe impl Sync for Instance {}

impl Drop for Instance {
    fn drop(&mut self) {
        // SAFETY: the handle came from `instance_create` and is destroyed only here.
        unsafe { ffi::duckdb_v2_instance_destroy(&raw mut self.0) };
    }
}

impl DuckDb {
    /// A DuckDB that has the extension.
    ///
    /// # Errors
    /// DuckDB's.
    pub fn with_duckherder() -> Result<Self, SqlError> {
        Self::open(true)
    }

    /// A DuckDB without it.
    ///
    /// # Errors
    /// DuckDB's.
    pub fn plain() -> Result<Self, SqlError> {
        Self::open(false)
    }

    fn open(extension: bool) -> Result<Self, SqlError> {
        let environment = environment()?;
        let (name, value) = (view("threads"), view("2"));
        let mut raw: ffi::duckdb_v2_instance_handle = ptr::null_mut();
        with_extension(extension, || {
            check(|error| {
                // SAFETY: one name and one value, which outlive the call.
                unsafe {
                    ffi::duckdb_v2_instance_create_with_options(
                        environment,
                        &raw const name,
                        &raw const value,
                        1,
                        &raw mut raw,
                        error,
                    )
                }
            })
        })?;
        let instance = Self(Arc::new(Instance(raw)));
        let path = view(":memory:");
        check(|error| {
            // SAFETY: the instance is live; a null name means "derived from the path", null options mean defaults.
            unsafe { ffi::duckdb_v2_instance_attach(raw, ptr::null(), &raw const path, ptr::null_mut(), true, error) }
        })?;
        Ok(instance)
    }

    /// Opens a connection.
    ///
    /// # Errors
    /// DuckDB's.
    pub fn connect(&self) -> Result<Connection, SqlError> {
        let mut raw: ffi::duckdb_v2_connection_handle = ptr::null_mut();
        // SAFETY: the instance is live.
        check(|error| unsafe { ffi::duckdb_v2_connection_create(self.0.0, &raw mut raw, error) })?;
        let handle = Arc::new(ConnectionHandle {
            raw,
            _database: self.clone(),
        });
        Ok(Connection(handle))
    }
}

/// A connection to a [`DuckDb`].
pub struct Connection(Arc<ConnectionHandle>);

struct ConnectionHandle {
    raw: ffi::duckdb_v2_connection_handle,
    _database: DuckDb,
}

// SAFETY: a connection may move between threads.
unsafe impl Send for ConnectionHandle {}
// SAFETY: shared references only interrupt, which may happen on any thread; all else takes `&mut Connection`.
unsafe impl Sync for ConnectionHandle {}

impl Drop for ConnectionHandle {
    fn drop(&mut self) {
        // SAFETY: the handle came from `connection_create` and is destroyed only here.
        unsafe { ffi::duckdb_v2_connection_destroy(&raw mut self.raw) };
    }
}

/// Interrupts what runs on a connection, as Ctrl-C does.
pub struct Interrupter(Arc<ConnectionHandle>);

impl Interrupter {
    /// Asks the running statement to stop.
    pub fn interrupt(&self) {
        // SAFETY: the connection is live; the call is documented as safe from any thread.
        unsafe { ffi::duckdb_v2_connection_interrupt(self.0.raw, ptr::null_mut()) };
    }
}

impl Connection {
    /// Runs all statements of `sql`; what the last one gives back.
    ///
    /// # Errors
    /// DuckDB's, of the first statement that fails.
    pub fn run(&mut self, sql: &str) -> Result<Output, SqlError> {
        let text = CString::new(sql).map_err(|error| SqlError(error.to_string()))?;
        let mut statements = Statements(ptr::null_mut());
        // SAFETY: the connection is live and the text NUL-terminated.
        check(|error| unsafe { ffi::duckdb_v2_parse_sql(self.0.raw, text.as_ptr(), &raw mut statements.0, error) })?;
        let mut output = None;
        loop {
            let mut statement = Statement(ptr::null_mut());
            // SAFETY: the iterator is live; null marks its end.
            check(|error| unsafe {
                ffi::duckdb_v2_statement_iterator_next(statements.0, &raw mut statement.0, error)
            })?;
            if statement.0.is_null() {
                return output.ok_or_else(|| SqlError("there is no statement".to_owned()));
            }
            output = Some(self.run_statement(&statement)?);
        }
    }

    /// The rows of `sql`'s last statement as lines, values separated by `|`.
    ///
    /// # Errors
    /// As [`Connection::run`].
    pub fn lines(&mut self, sql: &str) -> Result<Vec<String>, SqlError> {
        Ok(self.run(sql)?.lines())
    }

    /// A handle for other threads.
    #[must_use]
    pub fn interrupter(&self) -> Interrupter {
        Interrupter(Arc::clone(&self.0))
    }

    fn run_statement(&mut self, statement: &Statement) -> Result<Output, SqlError> {
        let mut result = ResultHandle(ptr::null_mut());
        check(|error| {
            // SAFETY: connection and statement are live; no parameters are passed.
            unsafe {
                ffi::duckdb_v2_statement_execute(
                    self.0.raw,
                    statement.0,
                    ptr::null(),
                    ptr::null(),
                    0,
                    &raw mut result.0,
                    error,
                )
            }
        })?;
        let mut rows = Vec::new();
        while let Some(chunk) = result.next_chunk()? {
            chunk.append_rows(&mut rows)?;
        }
        Ok(Output {
            columns: result.columns()?,
            rows,
            is_changed_rows: result.is_changed_rows()?,
        })
    }
}

struct Statements(ffi::duckdb_v2_statement_iterator_handle);

impl Drop for Statements {
    fn drop(&mut self) {
        // SAFETY: null, or a handle that is destroyed only here.
        unsafe { ffi::duckdb_v2_statement_iterator_destroy(&raw mut self.0) };
    }
}

struct Statement(ffi::duckdb_v2_sql_statement_handle);

impl Drop for Statement {
    fn drop(&mut self) {
        // SAFETY: null, or a handle that is destroyed only here.
        unsafe { ffi::duckdb_v2_sql_statement_destroy(&raw mut self.0) };
    }
}

struct ResultHandle(ffi::duckdb_v2_result_handle);

impl Drop for ResultHandle {
    fn drop(&mut self) {
        // SAFETY: null, or a handle that is destroyed only here.
        unsafe { ffi::duckdb_v2_result_destroy(&raw mut self.0) };
    }
}

impl ResultHandle {
    fn next_chunk(&mut self) -> Result<Option<Chunk>, SqlError> {
        let mut chunk = Chunk(ptr::null_mut());
        // SAFETY: the result is live.
        check(|error| unsafe { ffi::duckdb_v2_result_fetch_chunk(self.0, &raw mut chunk.0, error) })?;
        Ok((!chunk.0.is_null()).then_some(chunk))
    }

    fn is_changed_rows(&self) -> Result<bool, SqlError> {
        let mut kind = ffi::DUCKDB_V2_RESULT_TYPE::DUCKDB_V2_RESULT_TYPE_NOTHING;
        // SAFETY: the result is live.
        check(|error| unsafe { ffi::duckdb_v2_result_get_result_type(self.0, &raw mut kind, error) })?;
        Ok(kind == ffi::DUCKDB_V2_RESULT_TYPE::DUCKDB_V2_RESULT_TYPE_CHANGED_ROWS)
    }

    fn columns(&self) -> Result<Vec<(String, String)>, SqlError> {
        let mut schema = Schema(ptr::null_mut());
        // SAFETY: the result is live.
        check(|error| unsafe { ffi::duckdb_v2_result_get_schema(self.0, &raw mut schema.0, error) })?;
        let mut count = 0;
        // SAFETY: the schema is live.
        check(|error| unsafe { ffi::duckdb_v2_schema_get_count(schema.0, &raw mut count, error) })?;
        (0..count).map(|index| schema.column(index)).collect()
    }
}

struct Schema(ffi::duckdb_v2_schema_handle);

impl Drop for Schema {
    fn drop(&mut self) {
        // SAFETY: null, or a handle that is destroyed only here.
        unsafe { ffi::duckdb_v2_schema_destroy(&raw mut self.0) };
    }
}

impl Schema {
    fn column(&self, index: u64) -> Result<(String, String), SqlError> {
        let mut name = ffi::duckdb_v2_identifier_t {
            ptr: ptr::null(),
            len: 0,
        };
        let mut data_type: ffi::duckdb_v2_logical_type_handle = ptr::null_mut();
        check(|error| {
            // SAFETY: the schema is live and `index` below its count; both are borrowed from it.
            unsafe { ffi::duckdb_v2_schema_get_field(self.0, index, &raw mut name, &raw mut data_type, error) }
        })?;
        let name = if name.len == 0 {
            String::new()
        } else {
            // SAFETY: the schema, which is live, owns `len` bytes there.
            let bytes = unsafe { std::slice::from_raw_parts(name.ptr.cast::<u8>(), name.len as usize) };
            String::from_utf8_lossy(bytes).into_owned()
        };
        let data_type = text(|buffer, capacity, length, error| {
            // SAFETY: the type is borrowed from the live schema; the buffer has that capacity.
            unsafe { ffi::duckdb_v2_logical_type_to_text(data_type, buffer, capacity, length, error) }
        })?;
        Ok((name, data_type))
    }
}

struct Chunk(ffi::duckdb_v2_data_chunk_handle);

impl Drop for Chunk {
    fn drop(&mut self) {
        // SAFETY: null, or a handle that is destroyed only here.
        unsafe { ffi::duckdb_v2_data_chunk_destroy(&raw mut self.0) };
    }
}

impl Chunk {
    fn append_rows(&self, rows: &mut Vec<Vec<Option<String>>>) -> Result<(), SqlError> {
        let (mut row_count, mut column_count) = (0, 0);
        // SAFETY: the chunk is live.
        check(|error| unsafe { ffi::duckdb_v2_data_chunk_get_size(self.0, &raw mut row_count, error) })?;
        // SAFETY: the chunk is live.
        check(|error| unsafe { ffi::duckdb_v2_data_chunk_get_vector_count(self.0, &raw mut column_count, error) })?;
        for row in 0..row_count {
            rows.push(
                (0..column_count)
                    .map(|column| self.value(column, row))
                    .collect::<Result<_, _>>()?,
            );
        }
        Ok(())
    }

    fn value(&self, column: u64, row: u64) -> Result<Option<String>, SqlError> {
        let mut vector: ffi::duckdb_v2_vector_handle = ptr::null_mut();
        // SAFETY: the chunk is live and has that column; the vector is borrowed from it.
        check(|error| unsafe { ffi::duckdb_v2_data_chunk_get_vector(self.0, column, &raw mut vector, error) })?;
        let mut value = Value(ptr::null_mut());
        // SAFETY: the vector is live and has that row.
        check(|error| unsafe { ffi::duckdb_v2_vector_get_value(vector, row, &raw mut value.0, error) })?;
        let mut is_null = false;
        // SAFETY: the value is live.
        check(|error| unsafe { ffi::duckdb_v2_value_is_null(value.0, &raw mut is_null, error) })?;
        if is_null {
            return Ok(None);
        }
        // SAFETY: the value is live; the buffer has that capacity.
        text(|buffer, capacity, length, error| unsafe {
            ffi::duckdb_v2_value_to_string(value.0, buffer, capacity, length, error)
        })
        .map(Some)
    }
}

struct Value(ffi::duckdb_v2_value_handle);

impl Drop for Value {
    fn drop(&mut self) {
        // SAFETY: null, or a handle that is destroyed only here.
        unsafe { ffi::duckdb_v2_value_destroy(&raw mut self.0) };
    }
}

/// Calls `render` twice: for the length, and for the text.
fn text(
    render: impl Fn(*mut std::ffi::c_char, u64, *mut u64, *mut ffi::duckdb_v2_error_info_handle) -> Code,
) -> Result<String, SqlError> {
    let mut length = 0;
    check(|error| render(ptr::null_mut(), 0, &raw mut length, error))?;
    let mut buffer = vec![0u8; length as usize + 1];
    check(|error| render(buffer.as_mut_ptr().cast(), buffer.len() as u64, &raw mut length, error))?;
    buffer.truncate(length as usize);
    Ok(String::from_utf8_lossy(&buffer).into_owned())
}

fn view(text: &'static str) -> ffi::duckdb_v2_str {
    ffi::duckdb_v2_str {
        ptr: text.as_ptr().cast(),
        len: text.len() as u64,
    }
}

fn check(call: impl FnOnce(*mut ffi::duckdb_v2_error_info_handle) -> Code) -> Result<(), SqlError> {
    let mut info: ffi::duckdb_v2_error_info_handle = ptr::null_mut();
    let code = call(&raw mut info);
    if code == Code::DUCKDB_V2_ERROR_NONE {
        return Ok(());
    }
    let mut text = ffi::duckdb_v2_str {
        ptr: ptr::null(),
        len: 0,
    };
    // SAFETY: null (then the call reports an error and leaves `text` alone), or a live handle.
    unsafe { ffi::duckdb_v2_error_info_get_text(info, &raw mut text) };
    let message = if text.ptr.is_null() {
        format!("{code:?}")
    } else {
        // SAFETY: the handle, which is live, owns `len` bytes there.
        let bytes = unsafe { std::slice::from_raw_parts(text.ptr.cast::<u8>(), text.len as usize) };
        String::from_utf8_lossy(bytes).into_owned()
    };
    // SAFETY: null, or a handle that is destroyed only here.
    unsafe { ffi::duckdb_v2_error_info_destroy(&raw mut info) };
    Err(SqlError(message))
}

/// The process's environment of test DuckDBs; never destroyed, as it must outlive them.
fn environment() -> Result<ffi::duckdb_v2_environment_handle, SqlError> {
    struct Environment(ffi::duckdb_v2_environment_handle);
    // SAFETY: only passed to `instance_create_with_options`, which locks inside.
    unsafe impl Send for Environment {}
    // SAFETY: as above.
    unsafe impl Sync for Environment {}
    static ENVIRONMENT: OnceLock<Result<Environment, SqlError>> = OnceLock::new();
    ENVIRONMENT
        .get_or_init(|| {
            let mut raw: ffi::duckdb_v2_environment_handle = ptr::null_mut();
            // SAFETY: a slot for the new environment.
            check(|error| unsafe { ffi::duckdb_v2_environment_create(&raw mut raw, error) })?;
            Ok(Environment(raw))
        })
        .as_ref()
        .map(|environment| environment.0)
        .map_err(Clone::clone)
}
