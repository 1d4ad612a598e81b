//! Tickets, descriptors and actions of our own protocol.

#![no_main]

use duckherder_proto::action;
use duckherder_proto::command::Command;
use duckherder_proto::v1;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
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
