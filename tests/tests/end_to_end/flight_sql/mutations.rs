//! Uploads and parameters with random changes: whatever arrives, the database stays usable, and what it accepted can be
//! read.
//!
//! `DUCKHERDER_MUTATION_SECONDS` is for how long, `DUCKHERDER_MUTATION_SEED` where to begin. Unlike the targets in
//! `fuzz/`, which stop where DuckDB begins, this goes all the way.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use arrow::datatypes::Schema;
use arrow_flight::FlightData;
use arrow_flight::sql::{
    ActionCreatePreparedStatementRequest, CommandPreparedStatementQuery, CommandStatementIngest,
    TableDefinitionOptions, TableExistsOption, TableNotExistOption,
};
use duckherder_client::{Client, ClientError};
use duckherder_tests::duckling::LocalDuckling;
use futures::TryStreamExt;

use super::support::{Raw, messages};
use crate::support::{DEADLINE, within};

const SECONDS: &str = "DUCKHERDER_MUTATION_SECONDS";
const SEED: &str = "DUCKHERDER_MUTATION_SEED";
const DEFAULT_SECONDS: u64 = 2;

/// Changes to one upload.
const CHANGES: std::ops::RangeInclusive<usize> = 1..=4;

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |value| value.parse().unwrap())
}

/// A table with one column of every type and its extremes, a batch each.
async fn batches(client: &Client) -> Vec<RecordBatch> {
    let all: Vec<RecordBatch> = client
        .query("FROM test_all_types()")
        .await
        .unwrap()
        .try_collect()
        .await
        .unwrap();
    let all = &all[0];
    let schema = all.schema();
    let fields = schema.fields().iter().zip(all.columns());
    fields
        .map(|(field, column)| {
            let schema = Schema::new(vec![field.as_ref().clone().with_name("v")]);
            RecordBatch::try_new(Arc::new(schema), vec![Arc::clone(column)]).unwrap()
        })
        .collect()
}

fn change(messages: &mut Vec<FlightData>, rng: &mut fastrand::Rng) {
    for _ in 0..rng.usize(CHANGES) {
        let index = rng.usize(..messages.len());
        if rng.u32(..60) == 0 {
            // The first one names the command.
            match index {
                0 => {}
                _ if rng.bool() => drop(messages.remove(index)),
                _ => messages.push(messages[index].clone()),
            }
            continue;
        }
        let message = &mut messages[index];
        let part = if rng.u32(..3) == 0 {
            &mut message.data_header
        } else {
            &mut message.data_body
        };
        let mut bytes = part.to_vec();
        if bytes.is_empty() {
            continue;
        }
        let at = rng.usize(..bytes.len());
        match rng.u32(..8) {
            0 => bytes[at] = 0,
            1 => bytes[at] = 0xFF,
            2 => bytes[at] = 0x80,
            3 => bytes[at] = rng.u8(..),
            4 if rng.u32(..4) == 0 => bytes.truncate(at),
            5 => bytes[at] = bytes[at].wrapping_add(1),
            _ => bytes[at] ^= 1 << rng.u32(..8),
        }
        *part = bytes.into();
    }
}

/// Reads what was accepted, in the ways that look at every bit of it.
async fn read(client: &Client, what: &str) {
    for sql in [
        "FROM changed",
        "SELECT CAST(v AS VARCHAR) FROM changed",
        "SELECT count(DISTINCT v), min(v), max(v) FROM changed",
    ] {
        let outcome: Result<Vec<RecordBatch>, ClientError> = match client.query(sql).await {
            Ok(stream) => stream.try_collect().await,
            Err(error) => Err(error),
        };
        match outcome {
            // A value may have no cast; what it must not have is bytes that are no value.
            Ok(_) | Err(ClientError::Remote(_)) => {}
            Err(error) => panic!("{what}: {sql}: {error}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_change_of_an_upload_harms_the_database() {
    let duckling = LocalDuckling::start().unwrap();
    let client = Client::connect(duckling.options()).await.unwrap();
    let mut raw = Raw::logged_in(&duckling).await;
    let ingest = CommandStatementIngest {
        table: "changed".to_owned(),
        table_definition_options: Some(TableDefinitionOptions {
            if_not_exist: TableNotExistOption::Create.into(),
            if_exists: TableExistsOption::Replace.into(),
        }),
        ..CommandStatementIngest::default()
    };
    let prepare = ActionCreatePreparedStatementRequest {
        query: "SELECT ?".to_owned(),
        transaction_id: None,
    };
    let prepared = raw
        .act_wrapped::<arrow_flight::sql::ActionCreatePreparedStatementResult>("CreatePreparedStatement", &prepare)
        .await
        .unwrap();
    let bind = CommandPreparedStatementQuery {
        prepared_statement_handle: prepared.prepared_statement_handle,
    };
    let (mut uploads, mut parameters) = (Vec::new(), Vec::new());
    for batch in batches(&client).await {
        uploads.push(messages(&ingest, Some(vec![batch.clone()])).await);
        parameters.push(messages(&bind, Some(vec![batch])).await);
    }

    let end = Instant::now() + Duration::from_secs(setting(SECONDS, DEFAULT_SECONDS));
    let mut seed = setting(SEED, 0);
    let (mut accepted, mut refused) = (0, 0);
    while Instant::now() < end {
        let mut rng = fastrand::Rng::with_seed(seed);
        let what = format!("{SEED}={seed}");
        seed += 1;
        let is_upload = rng.u32(..4) > 0;
        let originals = if is_upload { &uploads } else { &parameters };
        let mut changed = originals[rng.usize(..originals.len())].clone();
        change(&mut changed, &mut rng);
        let outcome = within(DEADLINE, raw.put_messages(changed)).await;
        match outcome {
            Ok(_) if is_upload => {
                accepted += 1;
                within(DEADLINE, read(&client, &what)).await;
            }
            Ok(_) => {
                accepted += 1;
                // Running it is what uses the values.
                let _ = within(DEADLINE, raw.fetch(&bind)).await;
            }
            Err(_) => refused += 1,
        }
        if let Err(error) = within(DEADLINE, client.execute("FROM range(1)")).await {
            panic!("{what}: the database is not usable any more: {error}");
        }
    }
    println!(
        "{accepted} accepted, {refused} refused, from {SEED}={}",
        setting(SEED, 0)
    );
    assert!(accepted > 0 && refused > 0);
}
