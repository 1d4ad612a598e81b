//! Containment: whatever happens inside, C++ gets a status.

use std::panic::{AssertUnwindSafe, catch_unwind};

use duckherder_proto::ExceptionType;

use super::types::{DhBuffer, DhStatus};
use crate::error::{ExtError, Result};

/// Runs `inner` and reports its outcome; an error's JSON goes to `error`, which C++ owns.
pub(super) fn guard(error: *mut DhBuffer, inner: impl FnOnce() -> Result<DhStatus>) -> DhStatus {
    // A panic's payload may panic when dropped: it is leaked. Whoever catches one has other worries.
    let outcome = catch_unwind(AssertUnwindSafe(inner)).unwrap_or_else(|payload| {
        std::mem::forget(payload);
        Err(ExtError::new(
            ExceptionType::Io,
            "duckherder failed in an unexpected way; please report this",
        ))
    });
    let failure = match outcome {
        Ok(status) => return status,
        Err(failure) => failure,
    };
    let text = catch_unwind(AssertUnwindSafe(|| to_json(&failure))).unwrap_or_default();
    if !error.is_null() {
        // SAFETY: the caller passes a place for one buffer, and takes it over without reading what was there.
        unsafe { error.write(DhBuffer::new(text)) };
    }
    DhStatus::DhFailed
}

/// The form that DuckDB's `ErrorData(const string &)` reads.
fn to_json(error: &ExtError) -> String {
    let mut map = serde_json::Map::new();
    for (key, value) in &error.extra_info {
        map.insert(key.clone(), value.clone().into());
    }
    map.insert("exception_type".to_owned(), error.kind.name().into());
    map.insert("exception_message".to_owned(), error.message.clone().into());
    serde_json::Value::Object(map).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ffi::types::buffer_free;

    struct PanicsOnDrop;

    impl Drop for PanicsOnDrop {
        fn drop(&mut self) {
            panic!("in drop");
        }
    }

    fn failed(inner: impl FnOnce() -> Result<DhStatus>) -> String {
        let mut error = DhBuffer {
            ptr: std::ptr::null_mut(),
            len: 0,
        };
        assert_eq!(guard(&raw mut error, inner), DhStatus::DhFailed);
        // SAFETY: `guard` has just filled it.
        let text = unsafe { std::slice::from_raw_parts(error.ptr, error.len) };
        let text = String::from_utf8(text.to_vec()).unwrap();
        // SAFETY: freed once.
        unsafe { buffer_free(error) };
        text
    }

    #[test]
    fn errors_arrive_as_json() {
        let mut error = ExtError::new(ExceptionType::Binder, "a \"b\"\0");
        error.extra_info.insert("position".into(), "3".into());
        let text = failed(|| Err(error));
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value["exception_type"], "Binder");
        assert_eq!(value["exception_message"], "a \"b\"\0");
        assert_eq!(value["position"], "3");
    }

    #[test]
    fn panics_stay_inside() {
        assert!(failed(|| panic!("inside")).contains("unexpected"));
        assert!(failed(|| std::panic::panic_any(PanicsOnDrop)).contains("unexpected"));
    }

    #[test]
    fn a_null_error_slot_is_fine() {
        let status = guard(std::ptr::null_mut(), || Err(ExtError::new(ExceptionType::Io, "x")));
        assert_eq!(status, DhStatus::DhFailed);
    }
}
