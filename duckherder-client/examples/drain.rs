//! Reads a statement's result to its end and tells how long that took.
//!
//! `drain HOST:PORT SQL [PAUSE_MS [BATCHES_MAX [STREAMS]]]` prints one line of JSON: seconds, rows, and bytes of Arrow
//! messages. With a pause after each batch it is a slow reader, and with a number of batches (0: all) one that leaves early.

use std::error::Error;
use std::time::{Duration, Instant};

use duckherder_client::{Client, ClientOptions};
use futures::TryStreamExt;

fn main() -> Result<(), Box<dyn Error>> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?
        .block_on(drain())
}

async fn drain() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [address, sql, rest @ ..] = arguments.as_slice() else {
        return Err("usage: drain HOST:PORT SQL [PAUSE_MS [BATCHES_MAX [STREAMS]]]".into());
    };
    let (host, port) = address.rsplit_once(':').ok_or("HOST:PORT has no colon")?;
    let pause = Duration::from_millis(rest.first().map_or(Ok(0), |text| text.parse())?);
    let batches_max = match rest.get(1).map_or(Ok(0), |text| text.parse())? {
        0 => usize::MAX,
        batches => batches,
    };
    let mut options = ClientOptions::new(host, port.parse()?);
    if let Some(streams) = rest.get(2) {
        options = options.streams(streams.parse()?);
    }

    let client = Client::connect(options).await?;
    let started = Instant::now();
    let mut result = client.query(sql).await?;
    let mut batches = 0;
    while batches < batches_max && result.try_next().await?.is_some() {
        batches += 1;
        if !pause.is_zero() {
            tokio::time::sleep(pause).await;
        }
    }
    println!(
        "{{\"seconds\": {}, \"rows\": {}, \"bytes\": {}, \"batches\": {batches}}}",
        started.elapsed().as_secs_f64(),
        result.rows_received(),
        result.bytes_received()
    );
    Ok(())
}
