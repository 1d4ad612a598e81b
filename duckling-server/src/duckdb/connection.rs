//! One session on the database.

use std::collections::HashMap;
use std::ffi::{c_char, c_void};
use std::ptr;
use std::sync::Arc;

use arrow::datatypes::{FieldRef, Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use duckherder_proto::RemoteError;
use duckherder_proto::types::{type_text, with_type_texts};
use libduckdb_sys::v2 as ffi;

use super::database::Instance;
use super::error::{check, check_code};
use super::herd_ddl::check_text;
use super::parameters::Parameters;
use super::result::{ArrowResult, BatchSize, ResultTypes, Storing};
use super::schema::SchemaHandle;
use super::statement::{Statement, parse};
use super::view;

use ffi::DUCKDB_V2_ERROR as Code;

/// Run on every connection before anything else. Exact types both ways, errors with all their parts; DuckDB keeps count of how
/// far statements are, and draws nothing in the server's terminal.
const SETUP: &[&str] = &[
    "SET arrow_lossless_conversion = true",
    "SET errors_as_json = true",
    "SET enable_progress_bar_print = false",
    "SET enable_progress_bar = true",
];

// In C++ (`cpp/monitor.cpp`); what it returns is an error, or null.
unsafe extern "C" {
    fn duckling_transaction_is_invalidated(connection: *mut c_void, invalidated: *mut bool) -> *mut c_char;
}

/// What is known of a statement before it runs.
pub struct Plan {
    /// The result's columns, as its batches will have them; `None` if they are known only when it runs: PIVOT, or
    /// columns whose type is that of a parameter.
    pub columns: Option<Schema>,
    /// The parameters, in the order in which values are bound. Arrow's `Null` type stands for one that is not known.
    pub parameters: Schema,
}

/// A DuckDB connection: settings, temporary tables and a transaction of its own.
///
/// It runs one statement at a time: [`Connection::run`] borrows it mutably for as long as the result lives.
pub struct Connection {
    handle: Arc<ConnectionHandle>,
    /// The columns of short statements, by the number that C++ gives these.
    pub(super) short_schemas: HashMap<u64, SchemaRef>,
}

pub(super) struct ConnectionHandle {
    pub(super) raw: ffi::duckdb_v2_connection_handle,
    /// Keeps the instance open; dropped after `raw` is destroyed.
    _instance: Arc<Instance>,
}

// SAFETY: a connection may move between threads; DuckDB binds nothing to the creating thread.
unsafe impl Send for ConnectionHandle {}
// SAFETY: shared references are used for `connection_interrupt` only, which DuckDB documents as safe from any thread;
// everything else goes through `&mut Connection`.
unsafe impl Sync for ConnectionHandle {}

impl Drop for ConnectionHandle {
    fn drop(&mut self) {
        // SAFETY: the handle came from `connection_create` and is destroyed only here.
        unsafe { ffi::duckdb_v2_connection_destroy(&raw mut self.raw) };
    }
}

impl Connection {
    pub(super) fn new(raw: ffi::duckdb_v2_connection_handle, instance: Arc<Instance>) -> Result<Self, RemoteError> {
        let mut connection = Self {
            handle: Arc::new(ConnectionHandle {
                raw,
                _instance: instance,
            }),
            short_schemas: HashMap::new(),
        };
        for sql in SETUP {
            connection.execute(sql)?;
        }
        Ok(connection)
    }

    /// The statements of `sql`, parsed and not run.
    ///
    /// # Errors
    /// DuckDB's parser error.
    pub fn parse(&mut self, sql: &str) -> Result<Vec<Statement>, RemoteError> {
        parse(&self.handle, sql)
    }

    /// Starts `statement`. Nothing runs before the result is fetched from.
    ///
    /// # Errors
    /// DuckDB's binder and catalog errors.
    pub fn run(&mut self, statement: &Statement) -> Result<ArrowResult<'_>, RemoteError> {
        self.run_with(statement, &Parameters::none(), BatchSize::default(), ResultTypes::Arrow)
    }

    /// As [`Connection::run`], with values for the statement's parameters, in batches of that size, and with columns of `types`.
    ///
    /// # Errors
    /// Those, and another number of values than there are parameters.
    pub fn run_with(
        &mut self,
        statement: &Statement,
        parameters: &Parameters,
        batch_size: BatchSize,
        types: ResultTypes,
    ) -> Result<ArrowResult<'_>, RemoteError> {
        ArrowResult::start(&self.handle, statement, parameters, batch_size, types)
    }

    /// The columns of [`Connection::plan`] with [`ResultTypes::Stored`].
    ///
    /// # Errors
    /// As there.
    pub fn plan_stored(&mut self, statement: &Statement) -> Result<Option<Schema>, RemoteError> {
        let storing = Storing::start(&self.handle);
        let Some(columns) = self.plan(statement)?.columns else {
            return Ok(None);
        };
        let own = |field: &FieldRef| type_text(field).unwrap_or_default().to_owned();
        let fields = columns.fields().iter().enumerate();
        let texts: Vec<_> = fields
            .map(|(index, field)| storing.type_text(index).unwrap_or_else(|| own(field)))
            .collect();
        Ok(Some(with_type_texts(&columns, &texts)))
    }

    /// What `statement`, which is bound and not run, would yield, and what parameters it takes.
    ///
    /// # Errors
    /// DuckDB's binder and catalog errors.
    pub fn plan(&mut self, statement: &Statement) -> Result<Plan, RemoteError> {
        let mut columns = SchemaHandle(ptr::null_mut());
        let mut parameters = SchemaHandle(ptr::null_mut());
        let bound = check_code(|error| {
            // SAFETY: connection and statement are live.
            unsafe {
                ffi::duckdb_v2_statement_bind(
                    self.handle.raw,
                    statement.raw,
                    &raw mut columns.0,
                    &raw mut parameters.0,
                    error,
                )
            }
        });
        match bound {
            Ok(()) => {
                let parameters = parameters.parameter_schema(self)?;
                let columns = columns.arrow_schema(self);
                let columns = if parameters.fields().is_empty() {
                    Some(columns?)
                } else {
                    // A column whose type is that of a parameter has none before there is a value.
                    columns.ok()
                };
                Ok(Plan { columns, parameters })
            }
            Err((Code::DUCKDB_V2_ERROR_INPUT_METADATA_DEFERRED, _)) => Ok(Plan {
                columns: None,
                parameters: Schema::empty(),
            }),
            Err((_, error)) => Err(error),
        }
    }

    /// Name and DuckDB type text of each result column of `statement`, which is bound and not run.
    ///
    /// # Errors
    /// DuckDB's binder and catalog errors; an error too if the columns are known only once it runs (PIVOT).
    pub fn describe(&mut self, statement: &Statement) -> Result<Vec<(String, String)>, RemoteError> {
        let mut schema = SchemaHandle(ptr::null_mut());
        check(|error| {
            // SAFETY: connection and statement are live; the parameter schema is optional and not asked for.
            unsafe {
                ffi::duckdb_v2_statement_bind(
                    self.handle.raw,
                    statement.raw,
                    &raw mut schema.0,
                    ptr::null_mut(),
                    error,
                )
            }
        })?;
        schema.columns()
    }

    /// Runs all statements of `sql` to their ends and returns the rows that the last one changed.
    ///
    /// # Errors
    /// DuckDB's error of the first statement that fails.
    pub fn execute(&mut self, sql: &str) -> Result<u64, RemoteError> {
        let mut rows_changed = 0;
        for statement in self.statements(sql)? {
            rows_changed = self.run(&statement)?.drain()?;
        }
        Ok(rows_changed)
    }

    /// Runs one statement and collects its rows: for small results only.
    ///
    /// # Errors
    /// DuckDB's error.
    pub fn collect(&mut self, sql: &str) -> Result<(SchemaRef, Vec<RecordBatch>), RemoteError> {
        let statements = self.statements(sql)?;
        let mut collected = (SchemaRef::new(Schema::empty()), Vec::new());
        for statement in &statements {
            let mut result = self.run(statement)?;
            let schema = result.schema()?;
            let mut batches = Vec::new();
            while let Some(batch) = result.next_batch(&|| false)? {
                batches.push(batch);
            }
            collected = (schema, batches);
        }
        Ok(collected)
    }

    /// Whether DuckDB, or an extension that is loaded, has a setting of that name.
    #[must_use]
    pub fn has_setting(&self, name: &str) -> bool {
        let mut config: ffi::duckdb_v2_config_handle = ptr::null_mut();
        // SAFETY: the connection is live; the config is borrowed from it.
        let got =
            check(|error| unsafe { ffi::duckdb_v2_connection_get_config(self.handle.raw, &raw mut config, error) });
        if got.is_err() {
            return false;
        }
        let name = view(name);
        let mut option: ffi::duckdb_v2_option_handle = ptr::null_mut();
        let found = check(|error| {
            // SAFETY: config and name are live.
            unsafe { ffi::duckdb_v2_config_get_option_by_name(config, &raw const name, &raw mut option, error) }
        });
        // SAFETY: null, or the handle that was just given out, destroyed once.
        unsafe { ffi::duckdb_v2_option_destroy(&raw mut option) };
        found.is_ok()
    }

    /// Whether an error has undone the open transaction, so that DuckDB takes COMMIT for ROLLBACK.
    ///
    /// # Errors
    /// DuckDB's.
    pub fn transaction_is_invalidated(&mut self) -> Result<bool, RemoteError> {
        let mut invalidated = false;
        // SAFETY: the connection is live, and runs nothing.
        check_text(unsafe { duckling_transaction_is_invalidated(self.v1().cast(), &raw mut invalidated) })?;
        Ok(invalidated)
    }

    /// Cancels the connection's running statement, from any thread.
    #[must_use]
    pub fn interrupter(&self) -> Interrupter {
        Interrupter(Arc::clone(&self.handle))
    }

    /// The handle, for one call of the C API.
    pub(super) fn raw(&mut self) -> ffi::duckdb_v2_connection_handle {
        self.handle.raw
    }

    /// Whoever has it keeps the connection open.
    pub(super) fn handle(&self) -> Arc<ConnectionHandle> {
        Arc::clone(&self.handle)
    }

    /// The same connection as the C API v1 knows it, for what v2 lacks (the appender).
    pub(super) fn v1(&mut self) -> libduckdb_sys::duckdb_connection {
        // DuckDB 2.0.0: a v1 handle is a `duckdb::Connection *`; a v2 handle is a `CV2Connection *`, which derives from
        // `Connection` as its first and only base (`main/capi_v2/capi_v2_internal.hpp`), so the address is the same.
        self.handle.raw.cast()
    }
}

/// Cancels what runs on one connection.
#[derive(Clone)]
pub struct Interrupter(Arc<ConnectionHandle>);

impl Interrupter {
    /// Asks the running statement to stop; it then fails with an `INTERRUPT` error. Does nothing if none runs.
    pub fn interrupt(&self) {
        // SAFETY: the connection is live while the `Arc` is; the call is documented as safe from any thread.
        unsafe { ffi::duckdb_v2_connection_interrupt(self.0.raw, ptr::null_mut()) };
    }

    /// How far the running statement is, from 0 to 1; `None` if DuckDB does not know, or none runs.
    #[must_use]
    pub fn progress(&self) -> Option<f64> {
        let mut percentage = -1.0;
        let (mut rows, mut rows_total) = (0, 0);
        // SAFETY: the connection is live while the `Arc` is; the call is documented as safe from any thread.
        let code = unsafe {
            ffi::duckdb_v2_connection_progress_get(
                self.0.raw,
                &raw mut percentage,
                &raw mut rows,
                &raw mut rows_total,
                ptr::null_mut(),
            )
        };
        let known = code == Code::DUCKDB_V2_ERROR_NONE && percentage >= 0.0;
        known.then(|| (percentage / 100.0).min(1.0))
    }
}
