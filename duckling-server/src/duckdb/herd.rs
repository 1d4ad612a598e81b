//! The server's C++ layer, which plans queries over a herd's tables: `cpp/herd_ffi.h` is the other side of this file.
//!
//! C++ calls Rust through a table of functions, [`API`]; nothing unwinds into it, and no C++ exception comes out of it.

use std::ffi::{CStr, c_char, c_void};
use std::marker::PhantomData;
use std::mem::ManuallyDrop;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{Array, StructArray};
use arrow::datatypes::SchemaRef;
use arrow::ffi::{FFI_ArrowArray, FFI_ArrowSchema};
use duckherder_catalog::herd::placement::WorkerId;
use duckherder_proto::{ExceptionType, RemoteError};

use super::connection::{Connection, ConnectionHandle};
use super::herd_write::{self, Target};
use super::result::interrupted;
use crate::herd::write::{Execution, Write, WriteTarget};
use crate::herd::{BatchSource, Next};

/// What a connection's session does for DuckDB with the herd. Called on DuckDB's threads; may block, within deadlines.
pub trait HerdHooks: Send + Sync + 'static {
    /// The distributed plan of a plan, both as JSON (`duckherder_catalog::herd::plan`); `None` if it stays as it is.
    ///
    /// # Errors
    /// The plan cannot be run: a worker is down, or a statement needs what there is not.
    fn distribute(&self, plan: &str) -> Result<Option<String>, RemoteError>;

    /// About how many rows a herd's table has, and values its columns, as JSON: `{"rows", "distinct"}`. `columns` are names,
    /// empty for columns that are not asked about, and `placement` is the table's placement, both as JSON.
    ///
    /// # Errors
    /// What is given is not readable.
    fn table_estimates(&self, schema: &str, table: &str, columns: &str, placement: &str)
    -> Result<String, RemoteError>;

    /// Whether nobody reads the rows of the running query any more. Then what it reads ends, and is no error: that would abort
    /// its transaction.
    fn is_given_up(&self) -> bool;

    /// Whether the running statement has been cancelled. DuckDB forgets an interrupt that comes just before a statement begins.
    fn is_cancelled(&self) -> bool;

    /// Starts a distributed query, `duckherder_catalog::herd::query::HerdQuery` as JSON.
    ///
    /// # Errors
    /// It cannot be started.
    fn gather(&self, query: &str) -> Result<Arc<dyn BatchSource>, RemoteError>;

    /// The columns of an exchange of the query whose stages this connection runs, and what is known of its rows, as JSON:
    /// `{"columns": [{"name", "type_text"}], "rows", "distinct"}`.
    ///
    /// # Errors
    /// There is no such exchange.
    fn exchange_columns(&self, stage: u32) -> Result<String, RemoteError>;

    /// The rows of an exchange for this worker.
    ///
    /// # Errors
    /// There is no such exchange.
    fn exchange(&self, stage: u32) -> Result<Arc<dyn BatchSource>, RemoteError>;

    /// Starts to write rows to workers.
    ///
    /// # Errors
    /// A worker is down.
    fn write(&self, target: &WriteTarget, schema: SchemaRef) -> Result<Write, RemoteError>;

    /// Starts a statement on each of these workers.
    ///
    /// # Errors
    /// The server does not serve.
    fn execute(&self, workers: Vec<WorkerId>, sql: &str) -> Result<Execution, RemoteError>;

    /// As [`HerdHooks::gather`], for a query that changes rows.
    ///
    /// # Errors
    /// It cannot be started.
    fn change(&self, query: &str) -> Result<Arc<dyn BatchSource>, RemoteError>;

    /// Sends rows of a table that are on the wrong worker to the right one. Placement and columns, those that hold values,
    /// as JSON.
    ///
    /// # Errors
    /// A worker's.
    fn move_rows(&self, schema: &str, table: &str, placement: &str, columns: &str) -> Result<(), RemoteError>;
}

/// What C++ holds of a session.
pub(super) struct Session(pub(super) Arc<dyn HerdHooks>);

/// What C++ holds of a source.
struct Source {
    rows: Arc<dyn BatchSource>,
    hooks: Arc<dyn HerdHooks>,
}

impl Source {
    /// Opens one for a session. There is none if the query has been given up.
    ///
    /// # Safety
    /// The session is live, and `source` is a place for a pointer.
    unsafe fn open(
        session: *const Session,
        source: *mut *mut Self,
        open: impl FnOnce(&dyn HerdHooks) -> Result<Arc<dyn BatchSource>, RemoteError>,
    ) -> Result<Status, RemoteError> {
        // SAFETY: the caller's promise.
        let hooks = unsafe { Arc::clone(&(*session).0) };
        match open(&*hooks) {
            Ok(rows) => {
                let opened = Box::into_raw(Box::new(Self { rows, hooks }));
                // SAFETY: the caller's promise.
                unsafe { source.write(opened) };
                Ok(Status::Ok)
            }
            Err(_) if hooks.is_given_up() => Ok(Status::End),
            Err(error) => Err(error),
        }
    }

    fn next(&self, timeout: Duration) -> Result<Next, RemoteError> {
        if self.hooks.is_given_up() {
            return Ok(Next::End);
        }
        if self.hooks.is_cancelled() {
            return Err(interrupted());
        }
        let next = self.rows.next(timeout);
        if next.is_err() && self.hooks.is_given_up() {
            return Ok(Next::End);
        }
        next
    }
}

#[repr(C)]
#[derive(Clone, Copy)]
pub(super) struct Text {
    ptr: *const u8,
    len: usize,
}

impl Text {
    /// # Safety
    /// It lives during the call and is UTF-8, as all of DuckDB's text.
    pub(super) unsafe fn get<'a>(self) -> Result<&'a str, RemoteError> {
        if self.len == 0 {
            return Ok("");
        }
        // SAFETY: the caller's promise.
        let bytes = unsafe { std::slice::from_raw_parts(self.ptr, self.len) };
        std::str::from_utf8(bytes).map_err(|error| RemoteError::new(ExceptionType::InvalidInput, error.to_string()))
    }
}

#[repr(C)]
pub(super) struct Buffer {
    ptr: *mut u8,
    len: usize,
}

impl Buffer {
    fn new(text: String) -> Self {
        let mut bytes = ManuallyDrop::new(text.into_bytes().into_boxed_slice());
        Self {
            ptr: bytes.as_mut_ptr(),
            len: bytes.len(),
        }
    }
}

#[repr(i32)]
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Status {
    Ok = 0,
    End = 1,
    Failed = 2,
    Pending = 3,
}

#[repr(C)]
struct Api {
    buffer_free: unsafe extern "C" fn(Buffer),
    session_free: unsafe extern "C" fn(*const Session),
    distribute: unsafe extern "C" fn(*const Session, Text, *mut Buffer, *mut Buffer) -> Status,
    table_estimates: unsafe extern "C" fn(*const Session, Text, Text, Text, Text, *mut Buffer, *mut Buffer) -> Status,
    gather: unsafe extern "C" fn(*const Session, Text, *mut *mut Source, *mut Buffer) -> Status,
    exchange_columns: unsafe extern "C" fn(*const Session, u32, *mut Buffer, *mut Buffer) -> Status,
    exchange: unsafe extern "C" fn(*const Session, u32, *mut *mut Source, *mut Buffer) -> Status,
    source_schema: unsafe extern "C" fn(*const Source, *mut FFI_ArrowSchema, *mut Buffer) -> Status,
    source_next: unsafe extern "C" fn(*const Source, u32, *mut FFI_ArrowArray, *mut Buffer) -> Status,
    source_report: unsafe extern "C" fn(*const Source, *mut Buffer, *mut Buffer) -> Status,
    source_free: unsafe extern "C" fn(*mut Source),
    write_start: unsafe extern "C" fn(
        *const Session,
        *const Target,
        *const FFI_ArrowSchema,
        *const Text,
        usize,
        *mut *mut Write,
        *mut Buffer,
    ) -> Status,
    write_push: unsafe extern "C" fn(*const Write, usize, u32, *mut FFI_ArrowArray, *mut Buffer) -> Status,
    write_finish: unsafe extern "C" fn(*const Write, u32, *mut u64, *mut Buffer) -> Status,
    write_free: unsafe extern "C" fn(*mut Write),
    execute_start: unsafe extern "C" fn(*const Session, Text, Text, *mut *mut Execution, *mut Buffer) -> Status,
    execute_wait: unsafe extern "C" fn(*const Execution, u32, *mut u64, *mut Buffer) -> Status,
    execute_free: unsafe extern "C" fn(*mut Execution),
    change: unsafe extern "C" fn(*const Session, Text, *mut *mut Source, *mut Buffer) -> Status,
    move_rows: unsafe extern "C" fn(*const Session, Text, Text, Text, Text, *mut Buffer) -> Status,
}

static API: Api = Api {
    buffer_free,
    session_free,
    distribute,
    table_estimates,
    gather,
    exchange_columns,
    exchange,
    source_schema,
    source_next,
    source_report,
    source_free,
    write_start: herd_write::write_start,
    write_push: herd_write::write_push,
    write_finish: herd_write::write_finish,
    write_free: herd_write::write_free,
    execute_start: herd_write::execute_start,
    execute_wait: herd_write::execute_wait,
    execute_free: herd_write::execute_free,
    change,
    move_rows: herd_write::move_rows,
};

#[expect(improper_ctypes, reason = "C++ only keeps the pointers")]
unsafe extern "C" {
    fn herd_install(connection: *mut c_void, api: *const Api) -> *mut c_char;
    fn herd_bind_session(connection: *mut c_void, api: *const Api, session: *const Session) -> *mut c_char;
    fn herd_cpu_begin(connection: *mut c_void);
    fn herd_cpu_end(connection: *mut c_void) -> i64;
    fn herd_return_freed_blocks();
    fn herd_error_free(error: *mut c_char);
}

/// From here on, memory of the size of DuckDB's blocks, and larger, goes back to the system when it is freed. Otherwise the
/// allocator keeps it, in pieces that the next one may not fit into. It costs a little time. Of the whole process.
pub fn return_freed_blocks() {
    // SAFETY: it takes nothing, and may be called by any thread.
    unsafe { herd_return_freed_blocks() };
}

impl Connection {
    /// Makes the herd's functions and planner known to all connections of the database.
    ///
    /// # Errors
    /// DuckDB's.
    pub fn install_herd(&mut self) -> Result<(), RemoteError> {
        // SAFETY: a v1 connection is a `duckdb::Connection *`; the table of functions lives forever.
        told(unsafe { herd_install(self.v1().cast(), &raw const API) })
    }

    /// Gives this connection its part of the herd.
    ///
    /// # Errors
    /// DuckDB's.
    pub fn bind_herd(&mut self, hooks: Arc<dyn HerdHooks>) -> Result<(), RemoteError> {
        let session = Box::into_raw(Box::new(Session(hooks)));
        // SAFETY: as above; the session is C++'s, which frees it with the connection.
        told(unsafe { herd_bind_session(self.v1().cast(), &raw const API, session) })
    }

    /// Counts the CPU time of this thread, and of what DuckDB's threads do for the connection, from here on.
    pub fn count_cpu_time(&mut self) -> CpuTime {
        let connection = self.v1();
        // SAFETY: the connection is live.
        unsafe { herd_cpu_begin(connection.cast()) };
        CpuTime {
            connection,
            counts: true,
            _open: self.handle(),
            _thread: PhantomData,
        }
    }
}

/// CPU time that is being counted; see [`Connection::count_cpu_time`]. It stays on its thread, as its end counts for that.
pub struct CpuTime {
    connection: libduckdb_sys::duckdb_connection,
    counts: bool,
    _open: Arc<ConnectionHandle>,
    _thread: PhantomData<*const ()>,
}

impl CpuTime {
    /// What has been spent: nothing runs on the connection any more. `None` where the system does not tell.
    #[must_use]
    pub fn end(mut self) -> Option<Duration> {
        self.stop()
    }

    fn stop(&mut self) -> Option<Duration> {
        if !std::mem::take(&mut self.counts) {
            return None;
        }
        // SAFETY: the connection is kept open, and this is the thread that began.
        let spent_ns = unsafe { herd_cpu_end(self.connection.cast()) };
        u64::try_from(spent_ns).ok().map(Duration::from_nanos)
    }
}

impl Drop for CpuTime {
    fn drop(&mut self) {
        // The thread must not go on counting.
        let _ = self.stop();
    }
}

/// The error that C++ tells of, if it does.
fn told(error: *mut c_char) -> Result<(), RemoteError> {
    if error.is_null() {
        return Ok(());
    }
    // SAFETY: C++ gives NUL-terminated text, to be freed once.
    let text = unsafe {
        let text = CStr::from_ptr(error).to_string_lossy().into_owned();
        herd_error_free(error);
        text
    };
    Err(RemoteError::new(ExceptionType::Io, text))
}

/// Runs `inner` and reports its outcome.
///
/// # Safety
/// `error` is a place for a buffer, which C++ takes over.
pub(super) unsafe fn guard(error: *mut Buffer, inner: impl FnOnce() -> Result<Status, RemoteError>) -> Status {
    // A panic's payload may panic when dropped: it is leaked.
    let outcome = catch_unwind(AssertUnwindSafe(inner)).unwrap_or_else(|payload| {
        std::mem::forget(payload);
        Err(RemoteError::new(
            ExceptionType::Io,
            "the server failed in an unexpected way; please report this",
        ))
    });
    match outcome {
        Ok(status) => status,
        Err(failure) => {
            // SAFETY: the caller's promise.
            unsafe { error.write(Buffer::new(to_json(&failure))) };
            Status::Failed
        }
    }
}

/// The form that DuckDB's `ErrorData(const string &)` reads.
fn to_json(error: &RemoteError) -> String {
    let mut map = serde_json::Map::new();
    for (key, value) in &error.extra_info {
        map.insert(key.clone(), value.clone().into());
    }
    map.insert("exception_type".to_owned(), error.kind.name().into());
    map.insert("exception_message".to_owned(), error.message.clone().into());
    serde_json::Value::Object(map).to_string()
}

/// # Safety
/// The buffer is one of ours, freed once.
unsafe extern "C" fn buffer_free(buffer: Buffer) {
    if !buffer.ptr.is_null() {
        // SAFETY: made by `Buffer::new` of a boxed slice of this length.
        drop(unsafe { Box::from_raw(std::ptr::slice_from_raw_parts_mut(buffer.ptr, buffer.len)) });
    }
}

/// # Safety
/// The session is one of ours, freed once.
unsafe extern "C" fn session_free(session: *const Session) {
    let _ = catch_unwind(AssertUnwindSafe(|| {
        // SAFETY: made by `Box::into_raw`.
        drop(unsafe { Box::from_raw(session.cast_mut()) });
    }));
}

/// # Safety
/// As for all that follow: the session is live, texts live during the call, and outputs are places for what they name.
unsafe extern "C" fn distribute(session: *const Session, plan: Text, steps: *mut Buffer, error: *mut Buffer) -> Status {
    // SAFETY: the caller's promise, here and in all that follow.
    unsafe {
        guard(error, || {
            Ok(match (*session).0.distribute(plan.get()?)? {
                Some(text) => {
                    steps.write(Buffer::new(text));
                    Status::Ok
                }
                None => Status::End,
            })
        })
    }
}

/// # Safety
/// As for [`distribute`].
unsafe extern "C" fn table_estimates(
    session: *const Session,
    schema: Text,
    table: Text,
    columns: Text,
    placement: Text,
    estimates: *mut Buffer,
    error: *mut Buffer,
) -> Status {
    // SAFETY: the caller's promise.
    unsafe {
        guard(error, || {
            let found = (*session)
                .0
                .table_estimates(schema.get()?, table.get()?, columns.get()?, placement.get()?)?;
            estimates.write(Buffer::new(found));
            Ok(Status::Ok)
        })
    }
}

/// # Safety
/// As for [`distribute`].
unsafe extern "C" fn gather(
    session: *const Session,
    query: Text,
    source: *mut *mut Source,
    error: *mut Buffer,
) -> Status {
    // SAFETY: the caller's promise.
    unsafe {
        guard(error, || {
            let query = query.get()?;
            Source::open(session, source, |hooks| hooks.gather(query))
        })
    }
}

/// # Safety
/// As for [`distribute`].
unsafe extern "C" fn change(
    session: *const Session,
    query: Text,
    source: *mut *mut Source,
    error: *mut Buffer,
) -> Status {
    // SAFETY: the caller's promise.
    unsafe {
        guard(error, || {
            let query = query.get()?;
            Source::open(session, source, |hooks| hooks.change(query))
        })
    }
}

/// # Safety
/// As for [`distribute`].
unsafe extern "C" fn exchange_columns(
    session: *const Session,
    stage: u32,
    columns: *mut Buffer,
    error: *mut Buffer,
) -> Status {
    // SAFETY: the caller's promise.
    unsafe {
        guard(error, || {
            columns.write(Buffer::new((*session).0.exchange_columns(stage)?));
            Ok(Status::Ok)
        })
    }
}

/// # Safety
/// As for [`distribute`].
unsafe extern "C" fn exchange(
    session: *const Session,
    stage: u32,
    source: *mut *mut Source,
    error: *mut Buffer,
) -> Status {
    // SAFETY: the caller's promise.
    unsafe { guard(error, || Source::open(session, source, |hooks| hooks.exchange(stage))) }
}

/// # Safety
/// The source is live; the schema is an empty one.
unsafe extern "C" fn source_schema(source: *const Source, schema: *mut FFI_ArrowSchema, error: *mut Buffer) -> Status {
    // SAFETY: the caller's promise.
    unsafe {
        guard(error, || {
            let exported = FFI_ArrowSchema::try_from((*source).rows.schema().as_ref())
                .map_err(|error| RemoteError::new(ExceptionType::Serialization, error.to_string()))?;
            schema.write(exported);
            Ok(Status::Ok)
        })
    }
}

/// # Safety
/// The source is live; the batch is an empty one.
unsafe extern "C" fn source_next(
    source: *const Source,
    timeout_ms: u32,
    batch: *mut FFI_ArrowArray,
    error: *mut Buffer,
) -> Status {
    // SAFETY: the caller's promise.
    unsafe {
        guard(error, || {
            Ok(match (*source).next(Duration::from_millis(timeout_ms.into()))? {
                Next::Batch(rows) => {
                    batch.write(FFI_ArrowArray::new(&StructArray::from(rows).to_data()));
                    Status::Ok
                }
                Next::Pending => Status::Pending,
                Next::End => Status::End,
            })
        })
    }
}

/// # Safety
/// The source is live; `report` is a place for a buffer.
unsafe extern "C" fn source_report(source: *const Source, report: *mut Buffer, error: *mut Buffer) -> Status {
    // SAFETY: the caller's promise.
    unsafe {
        guard(error, || {
            let text = serde_json::to_string(&(*source).rows.report())
                .map_err(|error| RemoteError::new(ExceptionType::Serialization, error.to_string()))?;
            report.write(Buffer::new(text));
            Ok(Status::Ok)
        })
    }
}

/// # Safety
/// The source is one of ours, freed once.
unsafe extern "C" fn source_free(source: *mut Source) {
    let _ = catch_unwind(AssertUnwindSafe(|| {
        // SAFETY: made by `Box::into_raw`.
        drop(unsafe { Box::from_raw(source) });
    }));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::IN_MEMORY;
    use crate::duckdb::{Database, DatabaseOptions};
    use crate::herd::{Herd, HerdSession, Planning, Registry};

    /// A source whose rows do not come, or that has failed.
    struct Waiting {
        fails: bool,
    }

    impl BatchSource for Waiting {
        fn schema(&self) -> SchemaRef {
            Arc::new(arrow::datatypes::Schema::empty())
        }

        fn next(&self, _: Duration) -> Result<Next, RemoteError> {
            if self.fails {
                Err(interrupted())
            } else {
                Ok(Next::Pending)
            }
        }
    }

    #[test]
    fn who_is_given_up_sees_an_end_and_who_is_cancelled_an_error() {
        let database = Database::open(IN_MEMORY, &DatabaseOptions::default()).unwrap();
        let (_connection, session) = bound(&database);
        let source = |fails| Source {
            rows: Arc::new(Waiting { fails }),
            hooks: Arc::new(Planning::new(Arc::clone(&session))),
        };
        let next = |fails| source(fails).next(Duration::ZERO);
        assert!(matches!(next(false), Ok(Next::Pending)));
        assert!(next(true).is_err());
        session.give_up();
        assert!(matches!(next(false), Ok(Next::End)));
        assert!(matches!(next(true), Ok(Next::End)));
        session.cancel();
        assert!(next(false).is_err());
        session.give_up();
        assert!(next(false).is_err(), "what is cancelled stays so");
        session.not_stopped();
        assert!(matches!(next(false), Ok(Next::Pending)));
    }

    fn bound(database: &Database) -> (Connection, Arc<HerdSession>) {
        let registry = Registry::open(database.clone(), false, Arc::default()).unwrap();
        let session = HerdSession::new(Herd::new(Arc::new(registry), std::env::temp_dir()));
        let mut connection = database.connect().unwrap();
        connection
            .bind_herd(Arc::new(Planning::new(Arc::clone(&session))))
            .unwrap();
        (connection, session)
    }

    #[test]
    fn a_connection_frees_its_session_without_the_planner_too() {
        let database = Database::open(IN_MEMORY, &DatabaseOptions::default()).unwrap();
        let (connection, session) = bound(&database);
        assert_eq!(Arc::strong_count(&session), 2);
        drop(connection);
        assert_eq!(Arc::strong_count(&session), 1);
    }

    const BUSY: &str = "SELECT sum(hash(i) % 7) FROM range(3_000_000) r(i)";

    #[test]
    fn cpu_time_is_that_of_the_connections_own_work() {
        let database = Database::open(IN_MEMORY, &DatabaseOptions::default()).unwrap();
        let (mut connection, _session) = bound(&database);
        let count = |connection: &mut Connection, sql: &str| {
            let cpu_time = connection.count_cpu_time();
            connection.execute(sql).unwrap();
            cpu_time.end().unwrap()
        };
        let idle = count(&mut connection, "SELECT 1");
        let busy = count(&mut connection, BUSY);
        assert!(busy > idle * 3, "{busy:?} beside {idle:?}");
        // What another connection does at the same time, on the same threads of DuckDB, is not in it.
        let (mut other, _other_session) = bound(&database);
        let thread = std::thread::spawn(move || {
            for _ in 0..3 {
                other.execute(BUSY).unwrap();
            }
        });
        let beside = count(&mut connection, "SELECT 1");
        thread.join().unwrap();
        assert!(beside < busy, "{beside:?} beside {busy:?}");
    }

    #[test]
    fn a_count_that_is_given_up_leaves_nothing_behind() {
        let database = Database::open(IN_MEMORY, &DatabaseOptions::default()).unwrap();
        let (mut connection, _session) = bound(&database);
        drop(connection.count_cpu_time());
        connection.execute(BUSY).unwrap();
        let cpu_time = connection.count_cpu_time();
        connection.execute(BUSY).unwrap();
        let spent = cpu_time.end().unwrap();
        assert!(spent > Duration::from_millis(1), "{spent:?}");
    }
}
