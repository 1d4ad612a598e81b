//! A large result in several streams, from servers that number, lose, repeat and mix up what they send.

use std::sync::Arc;

use arrow::array::{Int64Array, RecordBatch, StringArray};
use arrow_flight::FlightData;
use duckherder_proto::v1::BatchMetadata;
use duckherder_proto::{ExceptionType, Message, RemoteError};
use futures::stream::{self, StreamExt};
use tokio::sync::Notify;
use tonic::Status;

use super::server::{Answers, Script, Server, all};
use super::{assert_protocol_error, batch, batch_message, schema_message, soon, summary, summary_message};
use crate::{Client, ClientError};

/// Two batches of it make a client read with more streams.
const LARGE_BYTES: usize = 17 * 1024 * 1024;

/// One row, whose number is the batch's place.
fn row(index: u64) -> RecordBatch {
    let bytes = if index < 2 { LARGE_BYTES } else { 10 };
    let texts: StringArray = [Some("x".repeat(bytes))].into_iter().collect();
    let numbers = Int64Array::from(vec![index.cast_signed()]);
    RecordBatch::try_from_iter([("name", Arc::new(texts) as _), ("number", Arc::new(numbers) as _)]).unwrap()
}

fn schema() -> FlightData {
    schema_message(&row(2).schema())
}

fn numbered(index: u64) -> FlightData {
    FlightData {
        app_metadata: BatchMetadata { index }.encode_to_vec().into(),
        ..batch_message(&row(index))
    }
}

/// A stream that begins with the schema.
fn rows(indexes: &[u64]) -> Vec<FlightData> {
    let mut messages = vec![schema()];
    messages.extend(indexes.iter().map(|index| numbered(*index)));
    messages
}

/// The first of two streams, which has the first two batches.
fn first(indexes: &[u64]) -> Vec<FlightData> {
    rows(&[&[0, 1], indexes].concat())
}

async fn serve(
    first: Vec<FlightData>,
    further: impl Fn() -> Answers<FlightData> + Send + Sync + 'static,
) -> (Server, Client) {
    let (script, events) = Script::new();
    let script = script.on_get(move |request| {
        assert_eq!(request.further_streams, 1);
        all(first.clone())
    });
    let server = script.on_join(move |_| further()).serve(events).await;
    let client = soon(Client::connect(server.options().streams(2))).await.unwrap();
    (server, client)
}

/// The numbers that arrive, and what ends them.
async fn read(client: &Client) -> (Vec<i64>, Option<ClientError>) {
    let mut result = soon(client.query("FROM t")).await.unwrap();
    let mut numbers = Vec::new();
    loop {
        match soon(result.next()).await {
            Some(Ok(batch)) => {
                let column = batch.column(1).as_any().downcast_ref::<Int64Array>().unwrap();
                numbers.extend_from_slice(column.values());
            }
            Some(Err(error)) => {
                assert!(soon(result.next()).await.is_none(), "an error ends the stream");
                assert!(result.summary().is_none());
                return (numbers, Some(error));
            }
            None => {
                let rows = result.summary().map(|summary| summary.rows);
                assert_eq!(rows, Some(numbers.len() as u64));
                assert_eq!(result.rows_received(), numbers.len() as u64);
                return (numbers, None);
            }
        }
    }
}

/// As [`read`], of two streams.
async fn read_both(first: Vec<FlightData>, further: Vec<FlightData>) -> (Vec<i64>, Option<ClientError>) {
    let (_server, client) = serve(first, move || all(further.clone())).await;
    read(&client).await
}

fn with_summary(mut messages: Vec<FlightData>, rows: u64) -> Vec<FlightData> {
    messages.push(summary_message(summary(rows)));
    messages
}

#[tokio::test]
async fn two_streams_become_one() {
    for (of_first, of_further) in [
        (&[3, 5][..], &[2, 4][..]),
        (&[2, 3], &[4, 5]),
        (&[4, 5], &[2, 3]),
        (&[], &[2, 3, 4, 5]),
    ] {
        let (numbers, error) = read_both(with_summary(first(of_first), 6), rows(of_further)).await;
        assert!(error.is_none(), "{error:?}");
        assert_eq!(numbers, [0, 1, 2, 3, 4, 5]);
        let (numbers, error) = read_both(first(of_first), with_summary(rows(of_further), 6)).await;
        assert!(error.is_none(), "{error:?}");
        assert_eq!(numbers, [0, 1, 2, 3, 4, 5]);
    }
}

#[tokio::test]
async fn a_server_that_does_not_number_is_read_in_one_stream() {
    let mut messages = vec![schema()];
    messages.extend((0..4).map(|index| batch_message(&row(index))));
    let (mut server, client) = serve(with_summary(messages, 4), || panic!("nobody joins")).await;
    assert_eq!(read(&client).await.0, [0, 1, 2, 3]);
    assert!(!server.log().contains(&"join".to_owned()));
}

#[tokio::test]
async fn a_small_result_is_read_in_one_stream() {
    let (mut server, client) = serve(with_summary(rows(&[0]), 1), || panic!("nobody joins")).await;
    assert_eq!(read(&client).await.0, [0]);
    assert_eq!(server.log(), ["Hello"]);
}

#[tokio::test]
async fn a_further_stream_that_cannot_be_had_is_not_needed() {
    let refuse = || Err(Status::invalid_argument("no"));
    let (mut server, client) = serve(with_summary(first(&[2, 3]), 4), refuse).await;
    let (numbers, error) = read(&client).await;
    assert!(error.is_none(), "{error:?}");
    assert_eq!(numbers, [0, 1, 2, 3]);
    server.saw("join").await;
    // Nor one that never says anything.
    let silent = || Ok(stream::pending().boxed());
    let (_server, client) = serve(with_summary(first(&[2, 3]), 4), silent).await;
    assert_eq!(read(&client).await.0, [0, 1, 2, 3]);
}

#[tokio::test]
async fn what_is_missing_is_an_error() {
    for (of_first, of_further, before) in [
        (with_summary(first(&[3]), 4), rows(&[]), 2),
        (with_summary(first(&[3]), 3), rows(&[]), 2),
        (with_summary(first(&[2]), 4), rows(&[]), 3),
        (first(&[3]), rows(&[2]), 4),
        (with_summary(first(&[2, 3]), 5), rows(&[]), 4),
    ] {
        let (numbers, error) = read_both(of_first, of_further).await;
        assert_protocol_error(&error.unwrap(), "Execute");
        assert_eq!(numbers.len(), before);
    }
}

#[tokio::test]
async fn what_comes_twice_is_an_error() {
    for (of_first, of_further) in [
        (with_summary(first(&[2, 3]), 5), rows(&[2, 4])),
        (with_summary(first(&[2, 3]), 5), rows(&[1, 4])),
        (with_summary(first(&[3, 2]), 4), rows(&[])),
        (with_summary(first(&[2, 3]), 4), with_summary(rows(&[4]), 4)),
        (with_summary(first(&[2]), 3), rows(&[u64::MAX])),
    ] {
        let (numbers, error) = read_both(of_first, of_further).await;
        if let Some(error) = error {
            assert_protocol_error(&error, "Execute");
        } else {
            // What came too late to be seen.
            assert!(numbers.iter().copied().eq(0..numbers.len() as i64), "{numbers:?}");
        }
    }
}

#[tokio::test]
async fn other_columns_are_an_error() {
    let other = vec![schema_message(&batch(1).schema())];
    let (_, error) = read_both(with_summary(first(&[3]), 4), other).await;
    assert_protocol_error(&error.unwrap(), "Execute");
}

#[tokio::test]
async fn an_error_comes_after_the_rows_before_it_and_the_cause_before_what_follows_from_it() {
    let of_statement = || Status::from(RemoteError::new(ExceptionType::OutOfRange, "too far"));
    let (numbers, error) = read_failing((&[3, 4], of_statement()), (&[2, 5], of_statement())).await;
    assert_eq!(numbers, [0, 1, 2, 3, 4, 5]);
    assert!(
        matches!(&error, ClientError::Remote(error) if error.message == "too far"),
        "{error:?}"
    );
    let (numbers, error) = read_failing((&[3], of_statement()), (&[2], Status::unavailable("gone"))).await;
    assert_eq!(numbers, [0, 1, 2, 3]);
    assert!(matches!(error, ClientError::Lost { .. }), "{error:?}");
}

/// What comes of two streams that fail after batches, the first one not before the other has begun.
async fn read_failing(of_first: (&[u64], Status), of_further: (&[u64], Status)) -> (Vec<i64>, ClientError) {
    let stream = |messages: Vec<FlightData>, status: Status| {
        let messages: Vec<_> = messages.into_iter().map(Ok).chain([Err(status)]).collect();
        move || stream::iter(messages.clone())
    };
    let begun = Arc::new(Notify::new());
    let waiting = Arc::clone(&begun);
    let rest = stream(rows(of_first.0).split_off(1), of_first.1);
    let further = stream(rows(of_further.0), of_further.1);
    let (script, events) = Script::new();
    let script = script.on_get(move |_| {
        let (waiting, rest) = (Arc::clone(&waiting), rest());
        let rest = stream::once(async move { waiting.notified().await }).flat_map(move |()| rest.clone());
        Ok(stream::iter(first(&[]).into_iter().map(Ok)).chain(rest).boxed())
    });
    let script = script.on_join(move |_| {
        begun.notify_one();
        Ok(further().boxed())
    });
    let server = script.serve(events).await;
    let client = soon(Client::connect(server.options().streams(2))).await.unwrap();
    let (numbers, error) = read(&client).await;
    (numbers, error.unwrap())
}
