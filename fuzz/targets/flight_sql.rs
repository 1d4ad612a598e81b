//! Commands, tickets and actions of Flight SQL.

#![no_main]

#[path = "../../duckling-server/src/flight_sql/messages.rs"]
#[allow(dead_code)]
mod messages;

use arrow_flight::sql::{
    ActionBeginTransactionRequest, ActionCancelQueryRequest, ActionClosePreparedStatementRequest,
    ActionCreatePreparedStatementRequest, ActionEndTransactionRequest, Any, Command,
};
use arrow_flight::{CancelFlightInfoRequest, FlightInfo, RenewFlightEndpointRequest};
use libfuzzer_sys::fuzz_target;
use prost::Message;

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
    let _ = messages::SetSessionOptionsRequest::decode(bytes);
    let _ = CancelFlightInfoRequest::decode(bytes);
    let _ = RenewFlightEndpointRequest::decode(bytes);
});
