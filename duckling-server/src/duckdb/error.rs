//! Errors out of the C API.

use std::collections::BTreeMap;
use std::ptr;

use duckherder_proto::{ExceptionType, RemoteError};
use libduckdb_sys::v2 as ffi;

use ffi::DUCKDB_V2_ERROR as Code;

/// Calls `call` with an error slot and turns what it reports into a `Result`.
pub(super) fn check(call: impl FnOnce(*mut ffi::duckdb_v2_error_info_handle) -> Code) -> Result<(), RemoteError> {
    check_code(call).map_err(|(_, error)| error)
}

/// As [`check`], with the C API's own code beside the error.
pub(super) fn check_code(
    call: impl FnOnce(*mut ffi::duckdb_v2_error_info_handle) -> Code,
) -> Result<(), (Code, RemoteError)> {
    let mut info: ffi::duckdb_v2_error_info_handle = ptr::null_mut();
    let code = call(&raw mut info);
    if code == Code::DUCKDB_V2_ERROR_NONE {
        return Ok(());
    }
    let text = text_of(info);
    // SAFETY: `info` is null or a handle that the call above handed to us; destroying is null-safe and happens once.
    unsafe { ffi::duckdb_v2_error_info_destroy(&raw mut info) };
    Err((code, parse(code, &text)))
}

fn text_of(info: ffi::duckdb_v2_error_info_handle) -> String {
    let mut text = ffi::duckdb_v2_str {
        ptr: ptr::null(),
        len: 0,
    };
    // SAFETY: `info` is null (then the call reports an error and leaves `text` alone) or a live error handle.
    let code = unsafe { ffi::duckdb_v2_error_info_get_text(info, &raw mut text) };
    if code != Code::DUCKDB_V2_ERROR_NONE || text.ptr.is_null() {
        return String::new();
    }
    // SAFETY: DuckDB owns `len` bytes at `ptr` until `info` is destroyed, which the caller does after this.
    let bytes = unsafe { std::slice::from_raw_parts(text.ptr.cast::<u8>(), text.len as usize) };
    String::from_utf8_lossy(bytes).into_owned()
}

/// The parts of an error text.
///
/// Connections run with `errors_as_json`, so the text is a flat JSON object (DuckDB `StringUtil::ExceptionToJSONMap`),
/// mostly with the exception type in front of it once more. Errors of the API itself are plain text.
fn parse(code: Code, text: &str) -> RemoteError {
    parse_text(text).unwrap_or_else(|| {
        let kind = match code {
            Code::DUCKDB_V2_ERROR_RUNTIME_INTERRUPT => ExceptionType::Interrupt,
            Code::DUCKDB_V2_ERROR_RESOURCE_OUT_OF_MEMORY => ExceptionType::OutOfMemory,
            Code::DUCKDB_V2_ERROR_INPUT_INVALID => ExceptionType::InvalidInput,
            _ => ExceptionType::Io,
        };
        let message = if text.is_empty() {
            format!("DuckDB failed without a message ({code:?})")
        } else {
            text.to_owned()
        };
        RemoteError::new(kind, message)
    })
}

/// The parts of a text that names its exception type, in JSON or in front.
pub(super) fn parse_text(text: &str) -> Option<RemoteError> {
    let json = text.find(JSON_START).map(|start| &text[start..]);
    if let Some(mut map) = json.and_then(|json| serde_json::from_str::<BTreeMap<String, String>>(json).ok()) {
        let kind = map.remove("exception_type").unwrap_or_default();
        let message = map.remove("exception_message").unwrap_or_default();
        map.remove("stack_trace");
        map.remove("stack_trace_pointers");
        return Some(RemoteError {
            kind: ExceptionType::from_name(&kind),
            message,
            extra_info: map,
        });
    }
    let (kind, message) = split_type(text);
    Some(RemoteError::new(kind?, message))
}

/// How DuckDB's JSON errors begin.
const JSON_START: &str = "{\"exception_type\"";

/// The exception type in front of a text, and the rest.
fn split_type(text: &str) -> (Option<ExceptionType>, &str) {
    for kind in ExceptionType::ALL {
        if let Some(rest) = text
            .strip_prefix(kind.name())
            .and_then(|rest| rest.strip_prefix(" Error: "))
        {
            return (Some(*kind), rest);
        }
    }
    (None, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_errors_keep_all_parts() {
        let text = r#"{"exception_type":"Binder","exception_message":"no \"x\"","position":"7"}"#;
        for text in [
            text.to_owned(),
            format!("Binder Error: {text}"),
            format!("Failed to append: {text}"),
        ] {
            let error = parse(Code::DUCKDB_V2_ERROR_QUERY_BINDER, &text);
            assert_eq!(
                (error.kind, error.message.as_str()),
                (ExceptionType::Binder, "no \"x\"")
            );
            assert_eq!(error.extra_info["position"], "7");
        }
    }

    #[test]
    fn plain_errors_lose_their_prefix() {
        let error = parse(Code::DUCKDB_V2_ERROR_INPUT_INVALID, "Invalid Input Error: no");
        assert_eq!(
            (error.kind, error.message.as_str()),
            (ExceptionType::InvalidInput, "no")
        );
        let error = parse(Code::DUCKDB_V2_ERROR_RUNTIME_INTERRUPT, "");
        assert_eq!(error.kind, ExceptionType::Interrupt);
    }
}
