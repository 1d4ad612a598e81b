//! Headers, commands, tickets, handles and actions of Flight SQL.

#![no_main]

#[path = "../../duckling-server/src/flight_sql/cookie.rs"]
#[allow(dead_code)]
mod cookie;
#[path = "../../duckling-server/src/flight_sql/handle.rs"]
#[allow(dead_code)]
mod handle;
#[path = "../../duckling-server/src/flight_sql/headers.rs"]
#[allow(dead_code)]
mod headers;
#[path = "../../duckling-server/src/flight_sql/messages.rs"]
#[allow(dead_code)]
mod messages;

use arrow_flight::sql::{
    ActionBeginTransactionRequest, ActionCancelQueryRequest, ActionClosePreparedStatementRequest,
    ActionCreatePreparedStatementRequest, ActionEndTransactionRequest, Any, Command,
};
use arrow_flight::{BasicAuth, CancelFlightInfoRequest, FlightInfo, RenewFlightEndpointRequest};
use libfuzzer_sys::fuzz_target;
use prost::Message;
use tonic::metadata::{MetadataMap, MetadataValue};

fuzz_target!(|bytes: &[u8]| {
    if let Ok(any) = Any::decode(bytes) {
        let _ = any.unpack::<ActionCreatePreparedStatementRequest>();
        let _ = any.unpack::<ActionClosePreparedStatementRequest>();
        let _ = any.unpack::<ActionBeginTransactionRequest>();
        let _ = any.unpack::<ActionEndTransactionRequest>();
        if let Ok(Some(request)) = any.unpack::<ActionCancelQueryRequest>() {
            let _ = FlightInfo::decode(request.info);
        }
        if let Ok(command) = Command::try_from(any) {
            let again = command.clone().into_any();
            assert!(Command::try_from(again).is_ok_and(|again| again == command));
        }
    }
    if let Ok((handle, endpoint)) = handle::Handle::decode_endpoint(bytes) {
        assert_eq!(handle.encode_endpoint(endpoint), bytes);
    }
    let _ = handle::Handle::decode(bytes);
    read_headers(bytes);
    let _ = BasicAuth::decode(bytes);
    let _ = messages::SetSessionOptionsRequest::decode(bytes);
    let _ = CancelFlightInfoRequest::decode(bytes);
    let _ = RenewFlightEndpointRequest::decode(bytes);
});

/// The bytes, in each of the headers that say who asks.
fn read_headers(bytes: &[u8]) {
    for name in ["authorization", "cookie"] {
        if let Ok(value) = MetadataValue::try_from(bytes) {
            let mut headers = MetadataMap::new();
            headers.insert(name, value);
            if let Ok(headers::Presented::Cookie(cookie)) = headers::Presented::read(&headers) {
                let header = cookie.header();
                let value = header.split(['=', ';']).nth(1).unwrap();
                assert_eq!(cookie::Cookie::read(value), Some(cookie));
            }
        }
    }
    let mut headers = MetadataMap::new();
    headers.insert_bin("auth-token-bin", MetadataValue::from_bytes(bytes));
    let _ = headers::Presented::read(&headers);
}
