//! The entry point that DuckDB calls after loading the file.

use std::ffi::c_void;

use super::api::{API, DhApi};

unsafe extern "C-unwind" {
    /// `cpp/extension.cpp`
    fn duckherder_load(loader: *mut c_void, api: &'static DhApi);
}

/// What `LOAD duckherder` calls: DuckDB's name for it is fixed, and it must be a Rust symbol to be exported from a Rust
/// shared library.
///
/// It is "C-unwind" since the C++ layer reports a failed load as DuckDB expects it, by a C++ exception.
///
/// # Safety
/// `loader` is the `duckdb::ExtensionLoader &` that DuckDB passes.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn duckherder_duckdb_cpp_init(loader: *mut c_void) {
    // SAFETY: passed on as it came.
    unsafe { duckherder_load(loader, &API) };
}
