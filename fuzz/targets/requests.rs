//! What a connection begins with, and tickets, descriptors and actions of our own protocol.

#![no_main]

#[path = "../../duckling-server/src/frames.rs"]
#[allow(dead_code)]
mod frames;

use duckherder_proto::action;
use duckherder_proto::command::Command;
use duckherder_proto::v1;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    open(bytes);
    if let Ok(Some(command)) = Command::decode(bytes) {
        // What was understood means the same when it is said again.
        assert_eq!(Command::decode(&command.encode()).ok().flatten(), Some(command));
    }
    let _ = action::decode::<v1::HelloRequest>(bytes);
    let _ = action::decode::<v1::CloseSessionRequest>(bytes);
    let _ = action::decode::<v1::KeepAliveRequest>(bytes);
    let _ = action::decode::<v1::ChangeSettingsRequest>(bytes);
    let _ = action::decode::<v1::DescribeRequest>(bytes);
    let _ = action::decode::<v1::CancelRequest>(bytes);
    let _ = action::decode::<v1::LookupSchemaRequest>(bytes);
    let _ = action::decode::<v1::LookupTableRequest>(bytes);
    let _ = action::decode::<v1::ListTablesRequest>(bytes);
    let _ = action::decode::<v1::ListDefinitionsRequest>(bytes);
    let _ = action::decode::<v1::LoadExtensionRequest>(bytes);
});

/// As a connection does, which reads no more than is missing.
fn open(bytes: &[u8]) {
    let mut opening = frames::Opening::default();
    let mut rest = bytes;
    while opening.missing() > 0 && !rest.is_empty() {
        let (part, later) = rest.split_at(opening.missing().min(rest.len()));
        opening.push(part);
        rest = later;
    }
    let read = bytes.len() - rest.len();
    let (opened, frame_bytes_max) = opening.finish();
    assert!(frame_bytes_max >= 16 * 1024);
    // One setting more, at most.
    assert!(opened.len() == read || opened.len() == read + 6);
}
