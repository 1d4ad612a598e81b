//! A DuckDB instance with one database.

use std::mem;
use std::num::NonZero;
use std::ptr;
use std::sync::{Arc, OnceLock, PoisonError, RwLock, Weak};
use std::thread;
use std::time::{Duration, Instant};

use duckherder_proto::{ExceptionType, RemoteError};
use libduckdb_sys::v2 as ffi;

use super::connection::Connection;
use super::error::check;
use super::linked::register_linked_extensions;
use super::monitor::{HeldMemory, Monitor};
use super::view;

/// What an instance is started with.
#[derive(Debug, Clone, Default)]
pub struct DatabaseOptions {
    /// Worker threads; DuckDB's default (all cores) if absent.
    pub threads: Option<usize>,
    /// DuckDB's `memory_limit`, for example `4GB`; DuckDB's default (80 % of memory) if absent.
    pub memory_limit: Option<String>,
    /// Whether extensions that nobody has signed may be loaded.
    pub allow_unsigned_extensions: bool,
}

/// What DuckDB's threads hold of a result that nobody has fetched yet, for each of them; 10 MiB at most, as DuckDB has it. The
/// server's own queue is behind it, and with few threads more here is only older when it is sent, and in no cache any more.
const STREAM_BYTES_PER_THREAD: usize = 2 * 1024 * 1024;
const STREAM_BYTES_MAX: usize = 10 * 1024 * 1024;

/// How often an instance that is to close is looked at.
const CLOSE_INTERVAL: Duration = Duration::from_millis(10);

/// A database, and the DuckDB instance that has it open. Cheap to clone; the last clone and the last connection close (and
/// checkpoint) it.
#[derive(Clone)]
pub struct Database {
    shared: Arc<Shared>,
}

struct Shared {
    path: String,
    options: DatabaseOptions,
    state: RwLock<State>,
}

enum State {
    Open {
        instance: Arc<Instance>,
        monitor: Monitor,
    },
    /// To be opened again, when the old instance's connections are gone.
    Closed(Weak<Instance>),
}

/// A DuckDB instance.
pub(super) struct Instance {
    handle: ffi::duckdb_v2_instance_handle,
    /// DuckDB's, when it was opened.
    threads: usize,
}

// SAFETY: an instance may be used from any thread; DuckDB locks inside (`duckdb_v2_connection_create` and `destroy`).
unsafe impl Send for Instance {}
// SAFETY: as above; only `connection_create`, which is thread-safe, is called on a shared reference.
unsafe impl Sync for Instance {}

impl Drop for Instance {
    fn drop(&mut self) {
        // SAFETY: the handle came from `instance_create_with_options` and is destroyed only here.
        unsafe { ffi::duckdb_v2_instance_destroy(&raw mut self.handle) };
    }
}

impl Database {
    /// Opens the database file at `path`, creating it if it does not exist; `:memory:` for one without a file.
    ///
    /// # Errors
    /// DuckDB's error: a file that is no database, locked by another process, not writable …
    pub fn open(path: &str, options: &DatabaseOptions) -> Result<Self, RemoteError> {
        register_linked_extensions()?;
        let state = State::open(Arc::new(Instance::open(path, options)?))?;
        Ok(Self {
            shared: Arc::new(Shared {
                path: path.to_owned(),
                options: options.clone(),
                state: RwLock::new(state),
            }),
        })
    }

    /// Opens a connection, set up for exact Arrow results and structured errors.
    ///
    /// # Errors
    /// DuckDB's error, if it is out of resources; a `CONNECTION` error while the database is opened again.
    pub fn connect(&self) -> Result<Connection, RemoteError> {
        let instance = self.shared.opened(|instance, _| Ok(Arc::clone(instance)))?;
        instance.connect()
    }

    /// Whether DuckDB refuses every further statement on its instance, or on the database that it was opened for: it has
    /// met an error after which it does not trust its own state. Takes no time.
    ///
    /// # Errors
    /// The database is being opened again.
    pub fn is_invalidated(&self) -> Result<bool, RemoteError> {
        self.shared.opened(|_, monitor| monitor.is_invalidated())
    }

    /// What statements hold of DuckDB's memory now. Takes some microseconds.
    ///
    /// # Errors
    /// The database is being opened again.
    pub fn held_memory(&self) -> Result<HeldMemory, RemoteError> {
        self.shared.opened(|_, monitor| monitor.held_memory())
    }

    /// Opens the file in a new instance: what DuckDB asks for after errors from which on it refuses every statement. Nobody
    /// gets a connection before `set_up` has been through with its own.
    ///
    /// Blocks for as long as connections of the old instance are open, and for `patience` at most. After an error the
    /// database stays closed, and this can be called again.
    ///
    /// # Errors
    /// There are connections still; those of [`Database::open`] and of `set_up`.
    pub fn reopen(
        &self,
        patience: Duration,
        set_up: impl FnOnce(&mut Connection) -> Result<(), RemoteError>,
    ) -> Result<(), RemoteError> {
        let old = self.shared.close();
        let deadline = Instant::now() + patience;
        let instance = loop {
            // Also if the last connection is gone, the instance may still be closing, and hold the file.
            let opened = if old.strong_count() == 0 {
                Instance::open(&self.shared.path, &self.shared.options)
            } else {
                Err(RemoteError::new(
                    ExceptionType::Connection,
                    "statements on the old one have not ended",
                ))
            };
            match opened {
                Ok(instance) => break Arc::new(instance),
                Err(error) if Instant::now() >= deadline => return Err(error),
                Err(_) => thread::sleep(CLOSE_INTERVAL),
            }
        };
        set_up(&mut instance.connect()?)?;
        *self.shared.state.write().unwrap_or_else(PoisonError::into_inner) = State::open(instance)?;
        Ok(())
    }
}

impl State {
    fn open(instance: Arc<Instance>) -> Result<Self, RemoteError> {
        let monitor = Monitor::new(instance.connect()?);
        Ok(Self::Open { instance, monitor })
    }
}

impl Shared {
    fn opened<T>(
        &self,
        work: impl FnOnce(&Arc<Instance>, &Monitor) -> Result<T, RemoteError>,
    ) -> Result<T, RemoteError> {
        match &*self.state.read().unwrap_or_else(PoisonError::into_inner) {
            State::Open { instance, monitor } => work(instance, monitor),
            State::Closed(_) => Err(RemoteError::new(
                ExceptionType::Connection,
                "the duckling opens its database again, which DuckDB has given up after an internal error; try again in \
                 a moment",
            )),
        }
    }

    /// Gives out no more connections; the instance that there was.
    fn close(&self) -> Weak<Instance> {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        let old = match &*state {
            State::Open { instance, .. } => Arc::downgrade(instance),
            State::Closed(old) => Weak::clone(old),
        };
        let before = mem::replace(&mut *state, State::Closed(Weak::clone(&old)));
        // It may be the last reference, and closing takes time.
        drop(state);
        drop(before);
        old
    }
}

impl Instance {
    fn open(path: &str, options: &DatabaseOptions) -> Result<Self, RemoteError> {
        let settings = startup_settings(options);
        let names: Vec<_> = settings.iter().map(|(name, _)| view(name)).collect();
        let values: Vec<_> = settings.iter().map(|(_, value)| view(value)).collect();
        let environment = environment()?;
        let mut handle: ffi::duckdb_v2_instance_handle = ptr::null_mut();
        check(|error| {
            // SAFETY: `names` and `values` are parallel arrays of that length and outlive the call.
            unsafe {
                ffi::duckdb_v2_instance_create_with_options(
                    environment,
                    names.as_ptr(),
                    values.as_ptr(),
                    names.len() as u64,
                    &raw mut handle,
                    error,
                )
            }
        })?;
        let threads = options
            .threads
            .unwrap_or_else(|| thread::available_parallelism().map_or(1, NonZero::get));
        let instance = Self { handle, threads };
        let path = view(path);
        check(|error| {
            // SAFETY: the instance is live; a null name means "derived from the path", null options mean defaults.
            unsafe {
                ffi::duckdb_v2_instance_attach(
                    instance.handle,
                    ptr::null(),
                    &raw const path,
                    ptr::null_mut(),
                    true,
                    error,
                )
            }
        })?;
        Ok(instance)
    }

    fn connect(self: &Arc<Self>) -> Result<Connection, RemoteError> {
        let mut handle: ffi::duckdb_v2_connection_handle = ptr::null_mut();
        // SAFETY: the instance is live.
        check(|error| unsafe { ffi::duckdb_v2_connection_create(self.handle, &raw mut handle, error) })?;
        let mut connection = Connection::new(handle, Arc::clone(self))?;
        let ahead = STREAM_BYTES_PER_THREAD
            .saturating_mul(self.threads)
            .min(STREAM_BYTES_MAX);
        connection.execute(&format!("SET max_streaming_buffer_size = '{}KiB'", ahead >> 10))?;
        Ok(connection)
    }
}

fn startup_settings(options: &DatabaseOptions) -> Vec<(&'static str, String)> {
    // A client's transaction sees what was there when it began, not when it first looked.
    let mut settings = vec![("immediate_transaction_mode", "true".to_owned())];
    if let Some(threads) = options.threads {
        settings.push(("threads", threads.to_string()));
    }
    if let Some(limit) = &options.memory_limit {
        settings.push(("memory_limit", limit.clone()));
    }
    if options.allow_unsigned_extensions {
        settings.push(("allow_unsigned_extensions", "true".to_owned()));
    }
    settings
}

struct Environment(ffi::duckdb_v2_environment_handle);
// SAFETY: the environment is only passed to `instance_create_with_options`, which locks inside.
unsafe impl Send for Environment {}
// SAFETY: as above.
unsafe impl Sync for Environment {}

/// The process's one environment. All instances share it, so that DuckDB refuses to open one file twice; it is never
/// destroyed, as it must outlive them all.
fn environment() -> Result<ffi::duckdb_v2_environment_handle, RemoteError> {
    static ENVIRONMENT: OnceLock<Result<Environment, RemoteError>> = OnceLock::new();
    ENVIRONMENT
        .get_or_init(|| {
            let mut handle: ffi::duckdb_v2_environment_handle = ptr::null_mut();
            // SAFETY: `handle` is a valid slot for the new environment.
            check(|error| unsafe { ffi::duckdb_v2_environment_create(&raw mut handle, error) })?;
            Ok(Environment(handle))
        })
        .as_ref()
        .map(|environment| environment.0)
        .map_err(Clone::clone)
}
