//! A DuckDB instance with one database.

use std::ptr;
use std::sync::{Arc, OnceLock};

use duckherder_proto::RemoteError;
use libduckdb_sys::v2 as ffi;

use super::connection::Connection;
use super::error::check;
use super::linked::register_linked_extensions;
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

/// A DuckDB instance and the database attached to it. Cheap to clone; the last clone closes (and checkpoints) it.
#[derive(Clone)]
pub struct Database {
    instance: Arc<InstanceHandle>,
}

struct InstanceHandle(ffi::duckdb_v2_instance_handle);

// SAFETY: an instance may be used from any thread; DuckDB locks inside (`duckdb_v2_connection_create` and `destroy`).
unsafe impl Send for InstanceHandle {}
// SAFETY: as above; only `connection_create`, which is thread-safe, is called on a shared reference.
unsafe impl Sync for InstanceHandle {}

impl Drop for InstanceHandle {
    fn drop(&mut self) {
        // SAFETY: the handle came from `instance_create_with_options` and is destroyed only here.
        unsafe { ffi::duckdb_v2_instance_destroy(&raw mut self.0) };
    }
}

impl Database {
    /// Opens the database file at `path`, creating it if it does not exist; `:memory:` for one without a file.
    ///
    /// # Errors
    /// DuckDB's error: a file that is no database, locked by another process, not writable …
    pub fn open(path: &str, options: &DatabaseOptions) -> Result<Self, RemoteError> {
        register_linked_extensions()?;
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
        let instance = Arc::new(InstanceHandle(handle));
        let path_view = view(path);
        check(|error| {
            // SAFETY: the instance is live; a null name means "derived from the path", null options mean defaults.
            unsafe {
                ffi::duckdb_v2_instance_attach(
                    instance.0,
                    ptr::null(),
                    &raw const path_view,
                    ptr::null_mut(),
                    true,
                    error,
                )
            }
        })?;
        Ok(Self { instance })
    }

    /// Opens a connection, set up for exact Arrow results and structured errors.
    ///
    /// # Errors
    /// DuckDB's error, if it is out of resources.
    pub fn connect(&self) -> Result<Connection, RemoteError> {
        let mut handle: ffi::duckdb_v2_connection_handle = ptr::null_mut();
        // SAFETY: the instance is live for as long as `self.instance` is.
        check(|error| unsafe { ffi::duckdb_v2_connection_create(self.instance.0, &raw mut handle, error) })?;
        Connection::new(handle, self.clone())
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
