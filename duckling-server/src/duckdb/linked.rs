//! DuckDB's own extensions that are linked in beside DuckDB.

use duckherder_proto::{ExceptionType, RemoteError};

/// Whether ICU (time zones, calendars, collations) was there to be compiled: see `build.rs`.
pub const HAS_ICU: bool = cfg!(icu);

/// Makes the extensions known to DuckDB: every database opened afterwards in this process has them.
///
/// [`Database::open`](super::Database::open) does it by itself; for a process that opens databases by other means.
///
/// # Errors
/// DuckDB has another extension of the same name already.
pub fn register_linked_extensions() -> Result<(), RemoteError> {
    if register() {
        Ok(())
    } else {
        Err(RemoteError::new(
            ExceptionType::InvalidConfiguration,
            "DuckDB does not take the ICU extension that is linked in",
        ))
    }
}

#[cfg(not(icu))]
fn register() -> bool {
    true
}

#[cfg(icu)]
fn register() -> bool {
    use libduckdb_sys::v2 as ffi;

    /// The DuckDB release that the sources are of.
    const VERSION: &str = concat!(env!("ICU_VERSION"), "\0");

    unsafe extern "C" {
        /// The extension's entry point: C++, taking a `duckdb::ExtensionLoader &`. Only ever called by DuckDB, which
        /// expects the C++ exceptions that it may throw.
        fn icu_duckdb_cpp_init();
    }

    unsafe extern "C" fn describe(descriptor: *mut ffi::duckdb_extension_descriptor) -> i32 {
        // SAFETY: DuckDB passes a descriptor to fill in, and copies the texts; the function's type is erased in it, as
        // `duckdb_static_extension.h` says.
        unsafe {
            (*descriptor).version = 1;
            (*descriptor).name = c"icu".as_ptr();
            (*descriptor).extension_version = VERSION.as_ptr().cast();
            (*descriptor).api_version = VERSION.as_ptr().cast();
            (*descriptor).entry_cpp = Some(icu_duckdb_cpp_init);
        }
        0
    }

    // SAFETY: `describe` has the signature that DuckDB asks for. A second registration of it does nothing.
    unsafe { ffi::duckdb_register_static_extension(Some(describe)) == 0 }
}
