//! The extension, linked into the test binary as DuckDB's own extensions are into DuckDB.

use std::cell::Cell;
use std::ffi::{c_char, c_void};
use std::sync::Once;

use duckherder_ext as _;
use libduckdb_sys::v2 as ffi;

unsafe extern "C-unwind" {
    /// The entry point that DuckDB calls on LOAD.
    fn duckherder_duckdb_cpp_init(loader: *mut c_void);
}

thread_local! {
    static WANTED: Cell<bool> = const { Cell::new(false) };
}

/// Runs `open`, which opens a DuckDB instance on this thread; the instance has the extension if `wanted`.
///
/// DuckDB loads what is linked in into every instance of the process. Ducklings in the same process must stay as they
/// are outside tests, so the entry point does nothing for them.
pub(crate) fn with_extension<T>(wanted: bool, open: impl FnOnce() -> T) -> T {
    static REGISTERED: Once = Once::new();
    REGISTERED.call_once(|| {
        // SAFETY: `describe` has the signature that DuckDB asks for.
        let status = unsafe { ffi::duckdb_register_static_extension(Some(describe)) };
        assert_eq!(status, 0, "DuckDB does not take the extension");
        // A user's DuckDB has ICU, as a duckling has.
        let linked = duckling_server::duckdb::register_linked_extensions();
        assert!(linked.is_ok(), "DuckDB does not take its own extensions");
    });
    let before = WANTED.replace(wanted);
    let outcome = open();
    WANTED.set(before);
    outcome
}

unsafe extern "C" fn describe(descriptor: *mut ffi::duckdb_extension_descriptor) -> i32 {
    // SAFETY: DuckDB passes a descriptor to fill in; the function's type is erased in it, as its documentation says.
    unsafe {
        (*descriptor).version = 1;
        (*descriptor).name = c"duckherder".as_ptr().cast::<c_char>();
        (*descriptor).extension_version = c"test".as_ptr().cast::<c_char>();
        (*descriptor).api_version = c"v2.0.0".as_ptr().cast::<c_char>();
        (*descriptor).entry_cpp = Some(std::mem::transmute::<
            unsafe extern "C-unwind" fn(*mut c_void),
            unsafe extern "C" fn(),
        >(load));
    }
    0
}

unsafe extern "C-unwind" fn load(loader: *mut c_void) {
    if WANTED.get() {
        // SAFETY: passed on as it came.
        unsafe { duckherder_duckdb_cpp_init(loader) };
    }
}
