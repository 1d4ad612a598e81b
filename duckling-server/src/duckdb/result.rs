//! Results as Arrow.

use std::ffi::{CStr, c_char, c_void};
use std::marker::PhantomData;
use std::ptr;
use std::sync::Arc;

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
use super::prepared_inserts::PreparedInsert;
use super::schema::{ArrowOptions, SchemaHandle, schema_of};
use super::statement::{Statement, StatementKind};
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
    /// The structs that DuckDB keeps UNION and VARIANT in, as told in the type texts. Of reads and writes only: what PREPARE
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
    fn duckling_store_results(connection: *mut c_void, stores: bool);
    fn duckling_stored_column(connection: *mut c_void, column: usize) -> *const c_char;
}

/// How a statement may be started.
#[derive(Debug, PartialEq)]
pub(super) enum Start {
    /// As often as it takes.
    Freely,
    /// Once.
    Once,
    /// Once, and its rows, which have this schema, are looked at before they become Arrow.
    Checked(SchemaRef),
}

/// The stream of a statement's rows, as Arrow record batches converted on DuckDB's worker threads.
///
/// Dropping it before the end aborts the statement: in autocommit its writes are rolled back.
pub struct ArrowResult<'connection> {
    raw: ffi::duckdb_v2_arrow_result_handle,
    connection: Arc<ConnectionHandle>,
    /// Nothing of the statement runs any more.
    ended: bool,
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
        // SAFETY: the handle came from `statement_execute_arrow` and is destroyed only here.
        unsafe { ffi::duckdb_v2_arrow_result_destroy(&raw mut self.raw) };
    }
}

impl ArrowResult<'_> {
    pub(super) fn start(
        connection: &Arc<ConnectionHandle>,
        statement: &Statement,
        parameters: &Parameters,
        batch_rows_max: usize,
        types: ResultTypes,
        start: Start,
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
            schema: None,
            intervals: Intervals::None,
            storing: (types == ResultTypes::Stored
                && matches!(statement.kind(), StatementKind::Read | StatementKind::Write))
            .then(|| Storing::start(connection)),
            _connection: PhantomData,
        };
        let may_start_twice = start == Start::Freely && statement.kind() == StatementKind::Read;
        if let Start::Checked(schema) = start {
            result.start_checked(statement, &names, parameters)?;
            result.schema = Some(schema);
        } else {
            let prepared = names
                .is_empty()
                .then(|| PreparedInsert::of(connection, statement))
                .flatten();
            let mut execute = |statement| {
                check(|error| {
                    // SAFETY: connection and statement are live; names and values are parallel arrays of that length, which
                    // DuckDB copies.
                    unsafe {
                        ffi::duckdb_v2_statement_execute_arrow(
                            connection.raw,
                            statement,
                            names.as_ptr(),
                            parameters.values(),
                            names.len() as u64,
                            batch_rows_max as u64,
                            &raw mut result.raw,
                            error,
                        )
                    }
                })
            };
            match &prepared {
                None => execute(statement.raw)?,
                Some(prepared) => match execute(prepared.raw) {
                    Err(_) if prepared.is_outdated() => execute(statement.raw)?,
                    outcome => outcome?,
                },
            }
            result.look_for_intervals(may_start_twice.then_some(statement), &names, parameters)?;
        }
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
                // SAFETY: the handle came from `statement_execute_arrow`; the slot is null afterwards.
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
        loop {
            let (array, status) = self.step(&schema)?;
            match status {
                StepStatus::DUCKDB_V2_RESULT_STEP_STATUS_CHUNK => {
                    let batch = record_batch(schema, array)?;
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

fn record_batch(schema: SchemaRef, array: FFI_ArrowArray) -> Result<RecordBatch, RemoteError> {
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
