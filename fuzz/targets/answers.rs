//! Arrow data of results, as our client reads it.

#![no_main]

#[path = "../../duckherder-client/src/contain.rs"]
#[allow(dead_code)]
mod contain;
#[path = "../../duckherder-client/src/decode.rs"]
#[allow(dead_code)]
mod decode;

use duckherder_fuzz::{expect_panics, messages};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    expect_panics();
    let mut messages = messages(bytes);
    let Some(first) = messages.next() else { return };
    let Ok(decoder) = decode::Decoder::new(&first) else {
        return;
    };
    for message in messages {
        if let Ok(batch) = decoder.batch(message) {
            for column in batch.columns() {
                column.to_data().validate_full().expect("decoded data is valid");
            }
        }
    }
});
