//! Arrow data of uploads and parameters, as the server reads it: decoded, unwrapped, checked. Like the server
//! (`running::checked_batches`, `next_batch`), it takes a panic of the decoder for an error; none may come from our own code.

#![no_main]

#[path = "../../duckling-server/src/arrow_check.rs"]
mod arrow_check;
#[path = "../../duckling-server/src/exact.rs"]
#[allow(dead_code)]
mod exact;
#[path = "../../duckling-server/src/flight_sql/unions.rs"]
mod unions;
#[path = "../../duckling-server/src/variant.rs"]
#[allow(dead_code)]
mod variant;

use std::panic::AssertUnwindSafe;

use arrow_flight::decode::FlightRecordBatchStream;
use arrow_flight::error::FlightError;
use duckherder_fuzz::{expect_panics, messages};
use duckherder_proto::ipc::check_message;
use futures::{FutureExt, StreamExt, stream};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    expect_panics();
    let checked = messages(bytes).map(|message| check_message(&message).map(|()| message).map_err(FlightError::Arrow));
    let mut batches = FlightRecordBatchStream::new_from_flight_data(stream::iter(checked));
    let mut next = || futures::executor::block_on(AssertUnwindSafe(batches.next()).catch_unwind());
    while let Ok(Some(Ok(batch))) = next() {
        let Ok(batch) = unions::unwrapped(batch) else { return };
        if arrow_check::check(&batch).is_ok() {
            // What was accepted is whole: this reads every offset and every text.
            for column in batch.columns() {
                column.to_data().validate_full().expect("checked data is valid");
            }
        }
    }
});
