//! The client against peers that misbehave: the subject is what it does then, so the peers are scripted here. That it
//! works with a real duckling is tested end to end, elsewhere.

mod blocking;
mod connect;
mod ingest;
mod query;
mod server;
mod session;
mod streams;

use std::sync::Arc;
use std::time::Duration;

use arrow::array::{Int64Array, RecordBatch, StringArray};
use arrow::datatypes::SchemaRef;
use arrow::ipc::writer::IpcWriteOptions;
use arrow_flight::{FlightData, SchemaAsIpc};
use duckherder_proto::Message;
use duckherder_proto::v1::{ResultKind, StatementSummary};

use crate::ClientError;

/// Fails the test instead of hanging it.
async fn soon<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), work)
        .await
        .expect("it takes too long")
}

#[track_caller]
fn assert_protocol_error(error: &ClientError, expected: &str) {
    assert!(
        matches!(error, ClientError::Protocol { operation, .. } if *operation == expected),
        "{error:?}"
    );
}

#[track_caller]
fn assert_timeout_error(error: &ClientError, expected: &str) {
    assert!(
        matches!(error, ClientError::Timeout { operation, .. } if *operation == expected),
        "{error:?}"
    );
}

fn batch(rows: i64) -> RecordBatch {
    let names: StringArray = (0..rows)
        .map(|row| (row % 3 != 0).then(|| format!("duck {row}")))
        .collect();
    let numbers: Int64Array = (0..rows).collect();
    let columns = [
        ("name", Arc::new(names) as _, true),
        ("number", Arc::new(numbers) as _, false),
    ];
    RecordBatch::try_from_iter_with_nullable(columns).unwrap()
}

fn schema_message(schema: &SchemaRef) -> FlightData {
    SchemaAsIpc::new(schema, &IpcWriteOptions::default()).into()
}

fn batch_message(batch: &RecordBatch) -> FlightData {
    arrow_flight::utils::batches_to_flight_data(&batch.schema(), [batch])
        .unwrap()
        .pop()
        .unwrap()
}

fn summary(rows: u64) -> StatementSummary {
    StatementSummary {
        result_kind: ResultKind::Rows.into(),
        rows,
        ..Default::default()
    }
}

fn summary_message(summary: StatementSummary) -> FlightData {
    FlightData {
        app_metadata: summary.encode_to_vec().into(),
        ..Default::default()
    }
}

/// A whole, correct answer.
fn answer(batches: &[RecordBatch]) -> Vec<FlightData> {
    let rows = batches.iter().map(|batch| batch.num_rows() as u64).sum();
    let mut messages = vec![schema_message(&batches[0].schema())];
    messages.extend(batches.iter().map(batch_message));
    messages.push(summary_message(summary(rows)));
    messages
}
