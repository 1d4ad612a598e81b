//! Results as Arrow.

use std::ffi::{CStr, c_char, c_void};
use std::marker::PhantomData;
use std::ptr;
use std::sync::Arc;
use std::thread;

use arrow::array::{Array, AsArray, RecordBatch, RecordBatchOptions, StructArray};
use arrow::datatypes::{DataType, Int64Type, Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow::ffi::{FFI_ArrowArray, FFI_ArrowSchema, from_ffi_and_data_type};
use duckherder_proto::types::with_type_texts;
use duckherder_proto::v1::ResultKind;
use duckherder_proto::{ExceptionType, RemoteError};
use libduckdb_sys::v2 as ffi;

use super::connection::{Connection, ConnectionHandle};
use super::error::{check, check_code};
use super::intervals::{Chunk, check_whole, has_intervals};
use super::parameters::Parameters;
use super::prepared::{is_outdated, prepared};
use super::schema::{ArrowOptions, SchemaHandle, schema_of};
use super::statement::{Statement, StatementKind, parse};
use super::view;

use ffi::DUCKDB_V2_ERROR as Code;
use ffi::DUCKDB_V2_RESULT_STEP_STATUS as StepStatus;
use ffi::DUCKDB_V2_RESULT_TYPE as ResultType;

/// What is done about INTERVAL values that Arrow has no room for.
enum Intervals {
    /// There are none.
    None,
    /// Rows are looked at before they become Arrow.
    Checked(ArrowOptions),
    /// What has become Arrow is looked at.
    Suspect,
}

/// What becomes of columns that Arrow has no exact types for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResultTypes {
    /// Arrow's union, and Parquet's variant: both lose some values, or refuse them.
    Arrow,
    /// The structs that DuckDB keeps UNION, VARIANT and INTERVAL in, as told in the type texts. Of reads and writes only: what PREPARE
    /// and EXECUTE yield stays Arrow's.
    Stored,
}

/// Has the statements be planned with [`ResultTypes::Stored`] that a connection plans as long as this lives.
pub struct Storing {
    connection: Arc<ConnectionHandle>,
}

impl Storing {
    pub(super) fn start(connection: &Arc<ConnectionHandle>) -> Self {
        // SAFETY: a handle of the API's version 1 is the same connection, a `duckdb::Connection *`.
        unsafe { duckling_store_results(connection.raw.cast(), true) };
        Self {
            connection: Arc::clone(connection),
        }
    }

    /// The type of a column that is stored.
    pub(super) fn type_text(&self, column: usize) -> Option<String> {
        // SAFETY: as above; the text is C++'s, and lives until the next statement is planned.
        let text = unsafe { duckling_stored_column(self.connection.raw.cast(), column) };
        // SAFETY: a text of C++ ends with a zero.
        (!text.is_null()).then(|| unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned())
    }
}

impl Drop for Storing {
    fn drop(&mut self) {
        // SAFETY: as in `start`.
        unsafe { duckling_store_results(self.connection.raw.cast(), false) };
    }
}

unsafe extern "C" {
    /// `duckdb_v2_statement_execute_arrow`, with appenders of ours.
    fn duckling_execute_arrow(
        connection: ffi::duckdb_v2_connection_handle,
        statement: ffi::duckdb_v2_sql_statement_handle,
        parameter_names: *const ffi::duckdb_v2_identifier_t,
        parameter_values: *const ffi::duckdb_v2_value_handle,
        parameter_count: u64,
        batch_rows: u64,
        batch_bytes: u64,
        result: *mut ffi::duckdb_v2_arrow_result_handle,
        error: *mut ffi::duckdb_v2_error_info_handle,
    ) -> Code;
    fn duckling_store_results(connection: *mut c_void, stores: bool);
    fn duckling_stored_column(connection: *mut c_void, column: usize) -> *const c_char;
}

/// How large the record batches of a result become.
#[derive(Debug, Clone, Copy)]
pub struct BatchSize {
    /// At most; 0 for as many as DuckDB's own.
    pub rows: usize,
    /// Arrow bytes, about; a single row may have more.
    pub bytes: usize,
}

impl BatchSize {
    /// So many rows, unless they are long.
    pub fn of_rows(rows: usize) -> Self {
        Self {
            rows,
            bytes: 16 * 1024 * 1024,
        }
    }
}

impl Default for BatchSize {
    fn default() -> Self {
        Self::of_rows(0)
    }
}

/// Batches of so many rows are not all of a short result: one of DuckDB's vectors.
const LARGE_BATCH_ROWS: usize = 2048;

/// The stream of a statement's rows, as Arrow record batches converted on DuckDB's worker threads.
///
/// Dropping it before the end aborts the statement: in autocommit its writes are rolled back.
pub struct ArrowResult<'connection> {
    raw: ffi::duckdb_v2_arrow_result_handle,
    connection: Arc<ConnectionHandle>,
    /// Nothing of the statement runs any more.
    ended: bool,
    /// The latest batch was: a thread that makes others may be about to pause, as this one was too slow for it. Who takes the
    /// next batch wakes it, which DuckDB does in a loop (`Executor::RescheduleTask`) until it has paused, and must not keep the
    /// processor from it meanwhile.
    is_large: bool,
    schema: Option<SchemaRef>,
    intervals: Intervals,
    /// Until the schema is known.
    storing: Option<Storing>,
    _connection: PhantomData<&'connection mut Connection>,
}

// SAFETY: a result is used from one thread at a time (`&mut self`), and DuckDB lets that thread change.
unsafe impl Send for ArrowResult<'_> {}

impl Drop for ArrowResult<'_> {
    fn drop(&mut self) {
        if !self.ended {
            // Destroying waits for the threads that run the statement, and these look for an interrupt only. The
            // connection's next statement clears it.
            // SAFETY: the connection is live; the call is documented as safe at any time.
            unsafe { ffi::duckdb_v2_connection_interrupt(self.connection.raw, ptr::null_mut()) };
        }
        // SAFETY: the handle came from `duckling_execute_arrow` and is destroyed only here.
        unsafe { ffi::duckdb_v2_arrow_result_destroy(&raw mut self.raw) };
    }
}

impl ArrowResult<'_> {
    pub(super) fn start(
        connection: &Arc<ConnectionHandle>,
        statement: &Statement,
        parameters: &Parameters,
        batch_size: BatchSize,
        types: ResultTypes,
    ) -> Result<Self, RemoteError> {
        let names = statement.parameters()?;
        if names.len() != parameters.len() {
            return Err(RemoteError::new(
                ExceptionType::InvalidInput,
                format!(
                    "the statement has {} parameters, and {} values were given",
                    names.len(),
                    parameters.len()
                ),
            ));
        }
        // By name, which is the position for those without one, and skips positions that the statement leaves out.
        let names: Vec<_> = names.iter().map(|name| view(name)).collect();
        let mut result = Self {
            raw: ptr::null_mut(),
            connection: Arc::clone(connection),
            // Not before something runs.
            ended: true,
            is_large: false,
            schema: None,
            intervals: Intervals::None,
            storing: (types == ResultTypes::Stored
                && matches!(statement.kind(), StatementKind::Read | StatementKind::Write))
            .then(|| Storing::start(connection)),
            _connection: PhantomData,
        };
        let prepares = names.is_empty() && !statement.is_prepared;
        let execution = prepares.then(|| prepared(connection, statement)).flatten();
        let mut execute = |statement| {
            check(|error| {
                // SAFETY: connection and statement are live; names and values are parallel arrays of that length, which
                // DuckDB copies.
                unsafe {
                    duckling_execute_arrow(
                        connection.raw,
                        statement,
                        names.as_ptr(),
                        parameters.values(),
                        names.len() as u64,
                        batch_size.rows as u64,
                        batch_size.bytes as u64,
                        &raw mut result.raw,
                        error,
                    )
                }
            })
        };
        let outcome = execute(execution.as_ref().unwrap_or(statement).raw);
        let is_instead = execution.is_some() || statement.is_prepared;
        if outcome.is_err() && is_instead && is_outdated(connection) {
            let parsed = parse(connection, statement.text())?;
            parsed.iter().try_for_each(|statement| execute(statement.raw))?;
        } else {
            outcome?;
        }
        // Stored results have none; they are what must not be started twice.
        let may_start_twice = types == ResultTypes::Arrow && statement.kind() == StatementKind::Read;
        result.look_for_intervals(may_start_twice.then_some(statement), &names, parameters)?;
        if result.schema.is_some() {
            result.storing = None;
        }
        result.ended = false;
        Ok(result)
    }

    /// Starts the statement with rows that can be looked at before they become Arrow.
    fn start_checked(
        &mut self,
        statement: &Statement,
        names: &[ffi::duckdb_v2_identifier_t],
        parameters: &Parameters,
    ) -> Result<(), RemoteError> {
        let mut raw: ffi::duckdb_v2_result_handle = ptr::null_mut();
        check(|error| {
            // SAFETY: connection and statement are live; names and values are parallel arrays of that length, which DuckDB
            // copies.
            unsafe {
                ffi::duckdb_v2_statement_execute(
                    self.connection.raw,
                    statement.raw,
                    names.as_ptr(),
                    parameters.values(),
                    names.len() as u64,
                    &raw mut raw,
                    error,
                )
            }
        })?;
        // As in `columns`: the two handle types are one object.
        self.raw = raw.cast();
        // A handle of the API's version 1 is the same connection, as in `Connection::v1`.
        self.intervals = Intervals::Checked(ArrowOptions::of(self.connection.raw.cast()));
        Ok(())
    }

    /// Starts the statement anew, with rows that can be looked at, if intervals are among them and it is a `read` that may
    /// be started twice: what DuckDB's threads have begun of it by then is given up.
    fn look_for_intervals(
        &mut self,
        read: Option<&Statement>,
        names: &[ffi::duckdb_v2_identifier_t],
        parameters: &Parameters,
    ) -> Result<(), RemoteError> {
        match (self.read_schema(), read) {
            (Ok(schema), _) if !has_intervals(&schema) => self.schema = Some(schema),
            (Ok(schema), Some(statement)) => {
                // SAFETY: the handle came from `duckling_execute_arrow`; the slot is null afterwards.
                unsafe { ffi::duckdb_v2_arrow_result_destroy(&raw mut self.raw) };
                self.start_checked(statement, names, parameters)?;
                self.schema = Some(schema);
            }
            // What has no schema yet may have one, or tell why not, later.
            (Ok(_), None) | (Err(_), _) => self.intervals = Intervals::Suspect,
        }
        Ok(())
    }

    /// The schema, each field with its DuckDB type text. For a statement that DuckDB expands into several (PIVOT), the
    /// ones before the last run first.
    ///
    /// # Errors
    /// DuckDB's error of what had to run.
    pub fn schema(&mut self) -> Result<SchemaRef, RemoteError> {
        if let Some(schema) = &self.schema {
            return Ok(Arc::clone(schema));
        }
        loop {
            match self.read_schema() {
                Ok(schema) => {
                    self.schema = Some(Arc::clone(&schema));
                    self.storing = None;
                    return Ok(schema);
                }
                Err((Code::DUCKDB_V2_ERROR_INPUT_METADATA_DEFERRED, _)) => self.step_towards_schema()?,
                Err((_, error)) => return Err(error),
            }
        }
    }

    fn read_schema(&self) -> Result<SchemaRef, (Code, RemoteError)> {
        let mut raw = FFI_ArrowSchema::empty();
        check_code(|error| {
            // SAFETY: `FFI_ArrowSchema` has the layout of `ArrowSchema` (Arrow C data interface); DuckDB fills it.
            unsafe { ffi::duckdb_v2_arrow_result_get_schema(self.raw, (&raw mut raw).cast(), error) }
        })?;
        let schema = schema_of(&raw).map_err(|error| (Code::DUCKDB_V2_ERROR_API, error))?;
        let columns = self.columns().map_err(|error| (Code::DUCKDB_V2_ERROR_API, error))?;
        let (names, texts): (Vec<_>, Vec<_>) = columns.into_iter().unzip();
        Ok(Arc::new(with_names(&with_type_texts(&schema, &texts), &names)))
    }

    /// Each column's name, and DuckDB's own text of its type. DuckDB 2.0.0 represents an Arrow result and a plain result by one and
    /// the same object (`capi_v2_result.cpp`, `Convert`), so the plain result's schema call serves both.
    fn columns(&self) -> Result<Vec<(String, String)>, RemoteError> {
        let mut schema = SchemaHandle(ptr::null_mut());
        // SAFETY: see above: the two handle types are one object.
        check(|error| unsafe { ffi::duckdb_v2_result_get_schema(self.raw.cast(), &raw mut schema.0, error) })?;
        let mut columns = schema.columns()?;
        if let Some(storing) = &self.storing {
            for (index, (_, text)) in columns.iter_mut().enumerate() {
                if let Some(stored) = storing.type_text(index) {
                    *text = stored;
                }
            }
        }
        Ok(columns)
    }

    fn step_towards_schema(&mut self) -> Result<(), RemoteError> {
        let mut array = FFI_ArrowArray::empty();
        let mut status = StepStatus::DUCKDB_V2_RESULT_STEP_STATUS_WAITING;
        check(|error| {
            // SAFETY: the result is live; `array` has the layout of `ArrowArray` and is filled only with a batch.
            unsafe { ffi::duckdb_v2_arrow_result_step(self.raw, (&raw mut array).cast(), &raw mut status, error) }
        })?;
        match status {
            StepStatus::DUCKDB_V2_RESULT_STEP_STATUS_WAITING => {
                // SAFETY: the result is live.
                check(|error| unsafe { ffi::duckdb_v2_arrow_result_wait(self.raw, error) })
            }
            StepStatus::DUCKDB_V2_RESULT_STEP_STATUS_CANCELLED => Err(interrupted()),
            _ => {
                self.schema = Some(Arc::new(Schema::empty()));
                Ok(())
            }
        }
    }

    /// What the statement gives back. Known once [`ArrowResult::schema`] has returned.
    ///
    /// # Errors
    /// DuckDB's error.
    pub fn result_kind(&self) -> Result<ResultKind, RemoteError> {
        let mut kind = ResultType::DUCKDB_V2_RESULT_TYPE_QUERY_RESULT;
        // SAFETY: the result is live.
        match check_code(|error| unsafe { ffi::duckdb_v2_arrow_result_get_result_type(self.raw, &raw mut kind, error) })
        {
            Ok(()) => {}
            Err((Code::DUCKDB_V2_ERROR_INPUT_METADATA_DEFERRED, _)) => return Ok(ResultKind::Nothing),
            Err((_, error)) => return Err(error),
        }
        Ok(match kind {
            ResultType::DUCKDB_V2_RESULT_TYPE_CHANGED_ROWS => ResultKind::ChangedRows,
            ResultType::DUCKDB_V2_RESULT_TYPE_NOTHING => ResultKind::Nothing,
            _ => ResultKind::Rows,
        })
    }

    /// The next batch, blocking; `None` at the end. `stopped` is asked in between: once it says so, the statement is not
    /// run any further.
    ///
    /// # Errors
    /// DuckDB's error; `INTERRUPT` if the statement was cancelled or stopped.
    pub fn next_batch(&mut self, stopped: &dyn Fn() -> bool) -> Result<Option<RecordBatch>, RemoteError> {
        let schema = self.schema()?;
        if self.is_large {
            thread::yield_now();
        }
        loop {
            let (array, status) = self.step(&schema)?;
            match status {
                StepStatus::DUCKDB_V2_RESULT_STEP_STATUS_CHUNK => {
                    let batch = record_batch(schema, array)?;
                    self.is_large = batch.num_rows() >= LARGE_BATCH_ROWS;
                    if matches!(self.intervals, Intervals::Suspect) {
                        check_whole(&batch)?;
                    }
                    return Ok(Some(batch));
                }
                StepStatus::DUCKDB_V2_RESULT_STEP_STATUS_FINISHED => {
                    self.ended = true;
                    return Ok(None);
                }
                StepStatus::DUCKDB_V2_RESULT_STEP_STATUS_CANCELLED => {
                    self.ended = true;
                    return Err(interrupted());
                }
                _ if stopped() => return Err(interrupted()),
                _ => {
                    // SAFETY: the result is live.
                    check(|error| unsafe { ffi::duckdb_v2_arrow_result_wait(self.raw, error) })?;
                }
            }
        }
    }

    /// A step of the statement, and the rows that it has yielded, if it has.
    fn step(&mut self, schema: &Schema) -> Result<(FFI_ArrowArray, StepStatus), RemoteError> {
        let mut status = StepStatus::DUCKDB_V2_RESULT_STEP_STATUS_WAITING;
        let Intervals::Checked(options) = &self.intervals else {
            let mut array = FFI_ArrowArray::empty();
            check(|error| {
                // SAFETY: the result is live; `array` has the layout of `ArrowArray`, and DuckDB hands its ownership over.
                unsafe { ffi::duckdb_v2_arrow_result_step(self.raw, (&raw mut array).cast(), &raw mut status, error) }
            })?;
            return Ok((array, status));
        };
        let mut chunk = Chunk::new();
        // SAFETY: the result is live, and one of chunks; the chunk is handed over.
        check(|error| unsafe { ffi::duckdb_v2_result_step(self.raw.cast(), chunk.slot(), &raw mut status, error) })?;
        if status != StepStatus::DUCKDB_V2_RESULT_STEP_STATUS_CHUNK {
            return Ok((FFI_ArrowArray::empty(), status));
        }
        Ok((chunk.into_arrow(schema, options)?, status))
    }

    /// Runs to the end, dropping rows; the number of rows changed, 0 for statements that change none.
    ///
    /// # Errors
    /// DuckDB's error; `INTERRUPT` if the statement was cancelled.
    pub fn drain(mut self) -> Result<u64, RemoteError> {
        let mut rows_changed = 0;
        if matches!(self.intervals, Intervals::Checked(_)) {
            // SAFETY: the result is live, and one of chunks.
            check(|error| unsafe { ffi::duckdb_v2_result_drain(self.raw.cast(), &raw mut rows_changed, error) })?;
        } else {
            // SAFETY: the result is live.
            check(|error| unsafe { ffi::duckdb_v2_arrow_result_drain(self.raw, &raw mut rows_changed, error) })?;
        }
        self.ended = true;
        Ok(rows_changed)
    }
}

/// The number in a changed-rows result: one BIGINT.
#[must_use]
pub fn rows_changed(batch: &RecordBatch) -> u64 {
    batch
        .columns()
        .first()
        .and_then(|column| column.as_primitive_opt::<Int64Type>())
        .filter(|column| !column.is_empty())
        .map_or(0, |column| column.value(0).unsigned_abs())
}

pub(super) fn record_batch(schema: SchemaRef, array: FFI_ArrowArray) -> Result<RecordBatch, RemoteError> {
    // SAFETY: `array` is what DuckDB produced for exactly this schema.
    let data = unsafe { from_ffi_and_data_type(array, DataType::Struct(schema.fields().clone())) }
        .map_err(|error| arrow_error(&error))?;
    let rows = StructArray::from(data);
    let options = RecordBatchOptions::new().with_row_count(Some(rows.len()));
    RecordBatch::try_new_with_options(schema, rows.columns().to_vec(), &options).map_err(|error| arrow_error(&error))
}

/// The error of what was stopped, as DuckDB words it.
pub fn interrupted() -> RemoteError {
    RemoteError::new(ExceptionType::Interrupt, "Interrupted!")
}

fn arrow_error(error: &ArrowError) -> RemoteError {
    RemoteError::new(
        ExceptionType::Serialization,
        format!("reading DuckDB's Arrow result: {error}"),
    )
}

/// The columns' own names: DuckDB makes those of its Arrow schema unique.
fn with_names(schema: &Schema, names: &[String]) -> Schema {
    let fields: Vec<_> = schema
        .fields()
        .iter()
        .zip(names)
        .map(|(field, name)| field.as_ref().clone().with_name(name))
        .collect();
    if fields.len() != schema.fields().len() {
        return schema.clone();
    }
    Schema::new_with_metadata(fields, schema.metadata().clone())
}

#[cfg(test)]
mod tests {
    use arrow::compute::concat_batches;

    use super::*;
    use crate::duckdb::{Database, DatabaseOptions};

    /// Values of number `i`, of each type whose appender is ours, and of what has such in it.
    const VALUES: &[&str] = &[
        "(i % 200 - 100)::TINYINT",
        "(i % 60000 - 30000)::SMALLINT",
        "(i * 7919 - 3)::INTEGER",
        "(i * 1000003 - 5_000_000_000)::BIGINT",
        "(i::HUGEINT - 100) * 170141183460469231731",
        "(i % 256)::UTINYINT",
        "(i % 65536)::USMALLINT",
        "(i * 7919)::UINTEGER",
        "(i * 1000003)::UBIGINT",
        "i::UHUGEINT * 170141183460469231731",
        "(i / 7)::FLOAT",
        "(i - 100) / 7",
        "(i % 1999 - 999)::DECIMAL(5, 1) / 10",
        "((i % 1999 - 999) / 10)::DECIMAL(4, 1)",
        "((i - 3000) / 100)::DECIMAL(9, 2)",
        "((i - 3000) * 1000003 / 1000)::DECIMAL(18, 3)",
        "((i - 3000) * 1000003)::DECIMAL(38, 10)",
        "DATE '1969-12-01' + i::INTEGER",
        "TIME '00:00:01' + to_microseconds(i * 1001)",
        "make_timestamp(i * 1_000_003 - 5_000_000_000)",
        "make_timestamp(i * 1_000_003)::TIMESTAMP_S",
        "make_timestamp(i * 1_000_003)::TIMESTAMP_MS",
        "make_timestamp_ns(i * 1_000_003)",
        "make_timestamptz(i * 1_000_003)",
        "i % 3 = 0",
        "md5_number(i::VARCHAR)::UUID",
        "['red', 'green', 'blue'][i % 3 + 1]::ENUM ('red', 'green', 'blue')",
        "repeat(chr((97 + i % 26)::INTEGER), (i % 80)::INTEGER)",
        "repeat('é', (i * 31 % 90)::INTEGER)",
        "CASE WHEN i % 500 = 7 THEN repeat('long', 3000) ELSE i::VARCHAR END",
        "'constant, and longer than twelve bytes'",
        "'constant'",
        "'one of a few words: ' || (i % 5)",
        "encode(repeat('b', (i % 20)::INTEGER))",
        "i::BIT",
        "i::BIGNUM",
        "[repeat('e', (j % 20)::INTEGER) FOR j IN range(i % 5)]",
        "[j::DECIMAL(18, 2) FOR j IN range(i % 4)]",
        "{'s': repeat('s', (i % 15)::INTEGER), 'd': i::DECIMAL(9, 2), 'l': [i, NULL]}",
        "MAP {i::VARCHAR: 'value ' || i, 'b': NULL}",
        "[i::VARCHAR, NULL, 'third, of more than twelve bytes']::VARCHAR[3]",
        "NULL",
    ];

    /// Which of the rows are NULL.
    const NULLS: &[&str] = &["false", "true", "i % 3 = 1", "i // 1500 % 2 = 0", "i = 2047"];

    /// Rows whose columns are all values with all kinds of NULLs.
    fn source(rows: usize) -> String {
        let columns: Vec<_> = VALUES
            .iter()
            .flat_map(|value| NULLS.iter().map(move |null| (value, null)))
            .enumerate()
            .map(|(number, (value, null))| match *null {
                "false" => format!("{value} AS c{number}"),
                _ => format!("CASE WHEN {null} THEN NULL ELSE {value} END AS c{number}"),
            })
            .collect();
        format!("SELECT i, {} FROM range({rows}) r(i)", columns.join(", "))
    }

    fn rows(result: &mut ArrowResult) -> Result<Vec<RecordBatch>, RemoteError> {
        let mut batches = Vec::new();
        while let Some(batch) = result.next_batch(&|| false)? {
            batches.push(batch);
        }
        Ok(batches)
    }

    /// What DuckDB's own appender makes of a statement.
    fn by_duckdb(
        connection: &Connection,
        statement: &Statement,
        batch_rows: usize,
    ) -> Result<Vec<RecordBatch>, RemoteError> {
        let mut result = ArrowResult {
            raw: ptr::null_mut(),
            connection: connection.handle(),
            ended: false,
            is_large: false,
            schema: None,
            intervals: Intervals::None,
            storing: None,
            _connection: PhantomData,
        };
        check(|error| {
            // SAFETY: connection and statement are live, and there are no parameters.
            unsafe {
                ffi::duckdb_v2_statement_execute_arrow(
                    connection.handle().raw,
                    statement.raw,
                    ptr::null(),
                    ptr::null(),
                    0,
                    batch_rows as u64,
                    &raw mut result.raw,
                    error,
                )
            }
        })?;
        rows(&mut result)
    }

    fn assert_same(connection: &mut Connection, sql: &str, batch_rows: usize) {
        let statement = connection.parse(sql).unwrap().remove(0);
        let expected = by_duckdb(connection, &statement, batch_rows).unwrap();
        // DuckDB's have no bound for their bytes.
        let batch_size = BatchSize {
            rows: batch_rows,
            bytes: 1 << 30,
        };
        let found = rows(
            &mut connection
                .run_with(&statement, &Parameters::none(), batch_size, ResultTypes::Arrow)
                .unwrap(),
        )
        .unwrap();
        let sizes = |batches: &[RecordBatch]| batches.iter().map(RecordBatch::num_rows).collect::<Vec<_>>();
        assert_eq!(sizes(&found), sizes(&expected), "{sql}");
        assert!(!found.is_empty(), "{sql}");
        for (found, expected) in found.iter().zip(&expected) {
            assert_eq!(found.schema(), expected.schema(), "{sql}");
            for (found, expected) in found.columns().iter().zip(expected.columns()) {
                found.to_data().validate_full().unwrap();
                assert_eq!(found.null_count(), expected.null_count(), "{sql}");
                let nulls = found
                    .nulls()
                    .map_or(0, |nulls| nulls.iter().filter(|valid| !valid).count());
                assert_eq!(found.null_count(), nulls, "{sql}");
                assert_eq!(found, expected, "{sql}");
            }
        }
    }

    /// One thread, so that rows come in the same arrays each time.
    fn connection(path: &str) -> Connection {
        let options = DatabaseOptions {
            threads: Some(1),
            ..DatabaseOptions::default()
        };
        Database::open(path, &options).unwrap().connect().unwrap()
    }

    #[test]
    fn arrays_are_what_duckdb_makes() {
        let directory = tempfile::tempdir().unwrap();
        let mut connection = connection(directory.path().join("rows").to_str().unwrap());
        let source = source(6000);
        connection
            .execute(&format!(
                "CREATE TABLE t AS {source}; CHECKPOINT; CREATE TEMP TABLE u AS FROM t"
            ))
            .unwrap();
        for settings in [
            "SET arrow_lossless_conversion = true",
            "SET arrow_lossless_conversion = false",
            "SET arrow_large_buffer_size = true",
            "SET arrow_large_buffer_size = false; SET arrow_output_version = '1.5'",
            "SET produce_arrow_string_view = true",
        ] {
            connection.execute(settings).unwrap();
            for (sql, batch_rows) in [
                (source.as_str(), 0),
                ("FROM t", 0),
                ("FROM t", 2048),
                ("FROM t", 777),
                ("FROM u", 5000),
                ("FROM t WHERE i % 3 = 1", 1500),
                ("FROM t LIMIT 3000 OFFSET 777", 30 * 1024),
                ("FROM t ORDER BY i DESC", 1001),
                (
                    "SELECT t.* FROM t JOIN range(0, 9000, 7) r(j) ON i = j OR i = j + 1",
                    1000,
                ),
                ("FROM t WHERE i < 20", 7),
            ] {
                assert_same(&mut connection, sql, batch_rows);
            }
        }
    }

    #[test]
    fn strings_of_all_compressions_are_what_duckdb_makes() {
        let directory = tempfile::tempdir().unwrap();
        let mut connection = connection(directory.path().join("strings").to_str().unwrap());
        connection.execute("SET enable_fsst_vectors = true").unwrap();
        for compression in ["uncompressed", "fsst", "dictionary", "dict_fsst", "zstd"] {
            connection
                .execute(&format!(
                    "SET force_compression = '{compression}';
                     CREATE OR REPLACE TABLE t AS
                     SELECT i, CASE WHEN i % 11 <> 3 THEN 'customer number ' || (i * 7919 % 10007) END AS a,
                         CASE WHEN i // 3000 % 2 = 0 THEN repeat(chr((97 + i % 26)::INTEGER), (i % 300)::INTEGER) END AS b,
                         'mode ' || (i % 7) AS c, '' AS d, NULL::VARCHAR AS e,
                         CASE WHEN i % 13 <> 5 THEN repeat('x', (30 + i % 3)::INTEGER) END AS f,
                         repeat('y', (31 + i // 50_000 + i % 2)::INTEGER) AS g
                     FROM range(130_000) r(i);
                     CHECKPOINT"
                ))
                .unwrap();
            for (sql, batch_rows) in [
                ("FROM t", 30 * 1024),
                ("FROM t", 1000),
                ("FROM t WHERE i % 5 = 2", 3000),
                ("FROM t WHERE a = 'customer number 7919' OR c = 'mode 3'", 4096),
                ("SELECT * FROM t LIMIT 5000 OFFSET 122_000", 1023),
            ] {
                assert_same(&mut connection, sql, batch_rows);
            }
        }
    }

    #[test]
    fn arrays_of_long_values_have_few_rows() {
        let mut connection = connection(":memory:");
        connection
            .execute(
                "CREATE TABLE t AS SELECT i, x AS a, [x, NULL, i::VARCHAR] AS b, {i: i % 3, s: [x]} AS c, [x, x]::VARCHAR[2] AS d,
                     [i % 2 = 0, NULL, i % 5 = 0]::BOOLEAN[3] AS e, range(i % 50 * 1000) AS f, MAP {i: x} AS g, i % 7 AS h
                 FROM (SELECT i, CASE WHEN i % 10 < 9 THEN repeat(chr((97 + i % 26)::INTEGER), (i % 40 * 1000)::INTEGER) END AS x
                       FROM range(2500) r(i))",
            )
            .unwrap();
        // The last one has a row that is larger than an array should be.
        for sql in [
            "FROM t",
            "SELECT * FROM t WHERE i % 3 = 1 ORDER BY i DESC",
            "SELECT h, a FROM t UNION ALL (SELECT 0, repeat('x', 20_000_000)) UNION ALL SELECT 1, 'y'",
        ] {
            let statement = connection.parse(sql).unwrap().remove(0);
            let expected = by_duckdb(&connection, &statement, 30 * 1024).unwrap();
            let found = rows(
                &mut connection
                    .run_with(
                        &statement,
                        &Parameters::none(),
                        BatchSize::of_rows(30 * 1024),
                        ResultTypes::Arrow,
                    )
                    .unwrap(),
            )
            .unwrap();
            let schema = expected[0].schema();
            assert_eq!(
                concat_batches(&schema, &found).unwrap(),
                concat_batches(&schema, &expected).unwrap(),
                "{sql}"
            );
            for batch in found {
                let bytes: usize = batch
                    .columns()
                    .iter()
                    .map(|column| column.to_data().get_slice_memory_size().unwrap())
                    .sum();
                assert!(bytes <= 17 << 20 || batch.num_rows() == 1, "{sql}: {bytes} bytes");
            }
        }
    }

    #[test]
    fn a_value_of_more_than_two_gib_is_refused() {
        let mut connection = connection(":memory:");
        let sql = "SELECT repeat(repeat('x', 1000), 2_200_000 + i) FROM range(1) r(i)";
        let statement = connection.parse(sql).unwrap().remove(0);
        let error = rows(&mut connection.run(&statement).unwrap()).unwrap_err();
        assert!(error.message.contains("more than 2 GiB of text or bytes"), "{error}");
    }
}
