//! Large results over several connections: in their order, whole or an error, and nothing more for small ones.

use std::time::Instant;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::Int64Type;
use arrow_flight::flight_service_client::FlightServiceClient;
use arrow_flight::{FlightData, Ticket};
use bytes::Bytes;
use duckherder_client::v1::Compression;
use duckherder_client::{Client, ClientError, ClientOptions, ExceptionType, QueryStream};
use duckherder_proto::command::Command;
use duckherder_proto::limits::MESSAGE_BYTES_MAX;
use duckherder_proto::v1::{ExecuteRequest, ReadResultRequest};
use duckherder_tests::duckling::{DucklingProcess, LocalDuckling, config};
use futures::TryStreamExt;
use tonic::transport::Channel;
use tonic::{Code, Status, Streaming};

use crate::proxy::{Link, Proxy};
use crate::support::{DEADLINE, number, remote, start, within};

/// Of a client that reads a large result with four streams.
const CONNECTIONS: usize = 4;

/// A result that is larger than what makes a client read over several connections, and the bytes of that.
const FURTHER_STREAMS_BYTES: u64 = 32 << 20;

const ROWS: i64 = 1_000_000;

/// About 110 MB.
const LARGE: &str = "SELECT i, repeat('x', 100) AS s FROM range(1_000_000) r(i)";

const ENDLESS: &str = "SELECT i, repeat('x', 100) AS s FROM range(1_000_000_000_000) r(i)";

/// A client that reads large results over several connections, all through a proxy.
async fn connect(port: u16) -> (Proxy, Client) {
    let proxy = Proxy::start(port).await;
    let options = ClientOptions::new("127.0.0.1", proxy.port).streams(4);
    (proxy, Client::connect(options).await.unwrap())
}

fn numbers(batch: &RecordBatch) -> &[i64] {
    batch.column(0).as_primitive::<Int64Type>().values()
}

/// Reads on, in order from `next`, until so many bytes have come, or to the end; the number after the last one.
async fn read(result: &mut QueryStream, mut next: i64, bytes: u64) -> Result<i64, ClientError> {
    while result.bytes_received() < bytes {
        let Some(batch) = within(DEADLINE, result.try_next()).await? else {
            break;
        };
        for number in numbers(&batch) {
            assert_eq!(*number, next);
            next += 1;
        }
    }
    Ok(next)
}

/// Reads until several connections are at it.
async fn read_over_all(proxy: &Proxy, result: &mut QueryStream) -> i64 {
    let mut next = read(result, 0, FURTHER_STREAMS_BYTES).await.unwrap();
    let started = Instant::now();
    while proxy.answered().iter().filter(|bytes| **bytes > 1 << 20).count() < CONNECTIONS {
        assert!(started.elapsed() < DEADLINE, "{:?}", proxy.answered());
        next = read(result, next, result.bytes_received() + 1).await.unwrap();
    }
    next
}

#[tokio::test]
async fn a_large_result_comes_over_several_connections_in_its_order() {
    let (duckling, _client) = start().await;
    let (proxy, client) = connect(duckling.port()).await;
    for sql in [
        LARGE,
        "SELECT i, repeat('x', 100) AS s FROM range(1_000_000) r(i) ORDER BY i",
    ] {
        let mut result = client.query(sql).await.unwrap();
        assert_eq!(read(&mut result, 0, u64::MAX).await.unwrap(), ROWS);
        let summary = result.summary().unwrap();
        assert_eq!(summary.rows, ROWS as u64);
        assert_eq!(
            (result.rows_received(), result.bytes_received()),
            (summary.rows, summary.bytes)
        );
    }
    let answered = proxy.answered();
    assert_eq!(answered.len(), CONNECTIONS, "two results share their connections");
    assert!(answered.iter().all(|bytes| *bytes > 1 << 20), "{answered:?}");
    assert!(answered.iter().sum::<usize>() > 200_000_000);
}

#[tokio::test]
async fn compressed_results_do_too() {
    let (duckling, _client) = start().await;
    let proxy = Proxy::start(duckling.port()).await;
    let options = ClientOptions::new("127.0.0.1", proxy.port).streams(4);
    let client = Client::connect(options.compression(Compression::Lz4Frame))
        .await
        .unwrap();
    let random =
        "SELECT i, hash(i), hash(i, 1), hash(i, 2), hash(i, 3), hash(i, 4), hash(i, 5) FROM range(1_000_000) r(i)";
    let mut result = client.query(random).await.unwrap();
    assert_eq!(read(&mut result, 0, u64::MAX).await.unwrap(), ROWS);
    assert_eq!(proxy.answered().len(), CONNECTIONS);
}

#[tokio::test]
async fn several_results_at_once_share_the_connections() {
    let (duckling, _client) = start().await;
    let (proxy, client) = connect(duckling.port()).await;
    let session = client.open_session().await.unwrap();
    let (mut first, mut second) = (client.query(LARGE).await.unwrap(), session.query(LARGE).await.unwrap());
    let both = futures::join!(read(&mut first, 0, u64::MAX), read(&mut second, 0, u64::MAX));
    assert_eq!((both.0.unwrap(), both.1.unwrap()), (ROWS, ROWS));
    assert_eq!(proxy.answered().len(), CONNECTIONS);
}

#[tokio::test]
async fn small_results_and_one_stream_need_no_second_connection() {
    let (duckling, _client) = start().await;
    let (proxy, client) = connect(duckling.port()).await;
    let mut small = client
        .query("SELECT i, repeat('x', 100) FROM range(200_000) r(i)")
        .await
        .unwrap();
    assert_eq!(read(&mut small, 0, u64::MAX).await.unwrap(), 200_000);
    assert_eq!(number(&client, "SELECT 7::BIGINT").await, 7);
    assert_eq!(proxy.answered().len(), 1);
    let (proxy, _) = connect(duckling.port()).await;
    let options = ClientOptions::new("127.0.0.1", proxy.port).streams(1);
    let client = Client::connect(options).await.unwrap();
    let connections = proxy.answered().len();
    let mut large = client.query(LARGE).await.unwrap();
    assert_eq!(read(&mut large, 0, u64::MAX).await.unwrap(), ROWS);
    assert_eq!(proxy.answered().len(), connections);
}

#[tokio::test]
async fn without_further_connections_one_is_enough() {
    let (duckling, _client) = start().await;
    for link in [Link::CutAfter(0), Link::SilentAfter(0)] {
        let (proxy, client) = connect(duckling.port()).await;
        proxy.becomes(link);
        let mut result = client.query(LARGE).await.unwrap();
        assert_eq!(read(&mut result, 0, u64::MAX).await.unwrap(), ROWS);
        assert!(result.summary().is_some());
        assert!(proxy.answered().len() > 1, "{link:?}");
    }
}

#[tokio::test]
async fn a_dropped_result_frees_the_server() {
    let mut config = config();
    config.limits.statements_max = 1;
    let duckling = LocalDuckling::start_with(config).unwrap();
    let (proxy, client) = connect(duckling.port()).await;
    for _ in 0..3 {
        let mut endless = client.query(ENDLESS).await.unwrap();
        read_over_all(&proxy, &mut endless).await;
        drop(endless);
        // There is place for one statement: this one runs when the dropped one has gone.
        assert_eq!(within(DEADLINE, number(&client, "SELECT 7::BIGINT")).await, 7);
    }
    assert_eq!(proxy.answered().len(), CONNECTIONS);
}

#[tokio::test]
async fn a_connection_that_is_cut_is_an_error() {
    let (duckling, _client) = start().await;
    let (proxy, client) = connect(duckling.port()).await;
    let mut result = client.query(ENDLESS).await.unwrap();
    let next = read_over_all(&proxy, &mut result).await;
    // The last one only.
    proxy.spares(CONNECTIONS - 1);
    proxy.cut();
    let error = read(&mut result, next, u64::MAX).await.unwrap_err();
    assert!(matches!(error, ClientError::Lost { .. }), "{error:?}");
    assert!(result.summary().is_none());
    assert!(result.try_next().await.unwrap().is_none(), "an error ends the stream");
    // The first connection is as it was, and the others are made anew.
    proxy.becomes(Link::Good);
    assert_eq!(within(DEADLINE, number(&client, "SELECT 7::BIGINT")).await, 7);
    let running = "SELECT count(*) FROM duckling_history() WHERE state = 'running' AND NOT contains(sql, 'history')";
    within(DEADLINE, async { while number(&client, running).await != 0 {} }).await;
    let mut result = client.query(LARGE).await.unwrap();
    assert_eq!(read(&mut result, 0, u64::MAX).await.unwrap(), ROWS);
}

#[tokio::test]
async fn a_server_that_dies_is_an_error() {
    let directory = tempfile::tempdir().unwrap();
    let mut duckling = DucklingProcess::start(&directory.path().join("ducks.db")).unwrap();
    let (proxy, client) = connect(duckling.port()).await;
    let mut result = client.query(ENDLESS).await.unwrap();
    let next = read_over_all(&proxy, &mut result).await;
    duckling.kill().unwrap();
    let error = read(&mut result, next, u64::MAX).await.unwrap_err();
    assert!(matches!(error, ClientError::Lost { .. }), "{error:?}");
    assert!(result.summary().is_none());
}

#[tokio::test]
async fn an_error_in_the_middle_comes_once_and_after_the_rows_before_it() {
    let (duckling, _client) = start().await;
    let (proxy, client) = connect(duckling.port()).await;
    let fails = "SELECT CASE WHEN i = 900_000 THEN error('too far') ELSE i END::BIGINT AS i, repeat('x', 100) AS s \
                 FROM range(1_000_000) r(i)";
    let mut result = client.query(fails).await.unwrap();
    let error = remote(read(&mut result, 0, u64::MAX).await.unwrap_err());
    assert!(error.message.contains("too far"), "{error}");
    assert!(within(DEADLINE, result.try_next()).await.unwrap().is_none());
    assert!(result.rows_received() > 300_000, "{}", result.rows_received());
    assert_eq!(proxy.answered().len(), CONNECTIONS);
}

#[tokio::test]
async fn cancelling_ends_it_at_once() {
    let (duckling, _client) = start().await;
    let (proxy, client) = connect(duckling.port()).await;
    let mut result = client.query(ENDLESS).await.unwrap();
    let next = read_over_all(&proxy, &mut result).await;
    let bytes = result.bytes_received();
    assert!(client.session().cancel(result.statement_id()).await.unwrap());
    let error = remote(read(&mut result, next, u64::MAX).await.unwrap_err());
    assert_eq!(error.kind, ExceptionType::Interrupt, "{error}");
    // What the server had read ahead, and what was on its way.
    let after = result.bytes_received() - bytes;
    assert!(after < 128 << 20, "{after} bytes came afterwards");
}

#[tokio::test]
async fn transactions_are_as_with_one_stream() {
    let (duckling, observer) = start().await;
    let (proxy, client) = connect(duckling.port()).await;
    client.execute("CREATE TABLE t (i BIGINT)").await.unwrap();
    client.execute("BEGIN").await.unwrap();
    client.execute("INSERT INTO t VALUES (1_000_000)").await.unwrap();
    // It sees what the transaction has done.
    let mut result = client
        .query(format!("{LARGE} UNION ALL SELECT i, '' FROM t"))
        .await
        .unwrap();
    assert_eq!(read(&mut result, 0, u64::MAX).await.unwrap(), ROWS + 1);
    // One that is given up leaves the transaction as it was.
    let mut endless = client.query(ENDLESS).await.unwrap();
    read_over_all(&proxy, &mut endless).await;
    drop(endless);
    assert_eq!(within(DEADLINE, number(&client, "SELECT count(*) FROM t")).await, 1);
    // One that is not read yet is kept while the next statement runs.
    let mut large = client.query(LARGE).await.unwrap();
    let next = read_over_all(&proxy, &mut large).await;
    assert_eq!(within(DEADLINE, number(&client, "SELECT count(*) FROM t")).await, 1);
    assert_eq!(read(&mut large, next, u64::MAX).await.unwrap(), ROWS);
    client.execute("COMMIT").await.unwrap();
    assert_eq!(number(&observer, "SELECT count(*) FROM t").await, 1);
}

#[tokio::test]
async fn a_slow_reader_makes_the_server_wait() {
    let mut config = config();
    config.limits.read_ahead_bytes = 1 << 20;
    let duckling = LocalDuckling::start_with(config).unwrap();
    let (proxy, client) = connect(duckling.port()).await;
    client.execute("CREATE SEQUENCE produced").await.unwrap();
    // Rows of 1 kB; nextval counts how far the server has come.
    let sql = "SELECT nextval('produced') - 1 AS n, repeat('x', 1000) AS s FROM range(10_000_000) r(i)";
    let mut slow = client.query(sql).await.unwrap();
    let read_rows = read_over_all(&proxy, &mut slow).await;
    let other = Client::connect(duckling.options()).await.unwrap();
    let produced = "SELECT last_value FROM duckdb_sequences() WHERE sequence_name = 'produced'";
    // Until it does not go on while another query takes its time: then it waits for its reader.
    let busy = "SELECT count(*) FROM range(30_000) a, range(1000) b WHERE a.range > b.range";
    let started = Instant::now();
    let mut rows = -1;
    loop {
        let now = number(&other, produced).await;
        if now == rows {
            break;
        }
        assert!(started.elapsed() < DEADLINE, "the server never waits for its reader");
        rows = now;
        number(&other, busy).await;
    }
    assert!(
        rows - read_rows < 250_000,
        "{rows} rows for a reader who took {read_rows}"
    );
    assert_eq!(
        within(DEADLINE, number(&client, "SELECT count(*) FROM range(1000)")).await,
        1000,
        "nobody else waits"
    );
}

async fn flight(port: u16) -> FlightServiceClient<Channel> {
    let address = format!("http://127.0.0.1:{port}");
    let channel = Channel::from_shared(address).unwrap().connect().await.unwrap();
    FlightServiceClient::new(channel).max_decoding_message_size(MESSAGE_BYTES_MAX)
}

async fn get(port: u16, command: Command) -> Result<Streaming<FlightData>, Status> {
    let ticket = Ticket {
        ticket: command.encode(),
    };
    Ok(flight(port).await.do_get(ticket).await?.into_inner())
}

fn execute(session_id: &Bytes, statement_id: u64, sql: &str, further_streams: u32) -> Command {
    Command::Execute(ExecuteRequest {
        session_id: session_id.clone(),
        statement_id,
        sql: sql.to_owned(),
        further_streams,
        ..ExecuteRequest::default()
    })
}

fn join(session_id: &Bytes, statement_id: u64) -> Command {
    Command::ReadResult(ReadResultRequest {
        session_id: session_id.clone(),
        statement_id,
    })
}

/// Messages to the end of a stream, the schema and the summary included.
async fn rest(mut stream: Streaming<FlightData>) -> Result<usize, Status> {
    let mut messages = 0;
    while within(DEADLINE, stream.message()).await?.is_some() {
        messages += 1;
    }
    Ok(messages)
}

#[tokio::test]
async fn streams_that_nobody_may_read_or_nobody_reads_cost_nothing() {
    let (duckling, client) = start().await;
    let (port, session) = (duckling.port(), client.session().id().clone());
    let refused = |status: Status| assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
    refused(get(port, join(&session, 4711)).await.unwrap_err());
    let stranger = get(port, join(&Bytes::from_static(&[7; 16]), 4711)).await.unwrap_err();
    assert!(stranger.message().contains("session"), "{stranger:?}");
    // One that was not announced.
    let alone = get(port, execute(&session, 101, ENDLESS, 0)).await.unwrap();
    refused(get(port, join(&session, 101)).await.unwrap_err());
    drop(alone);
    // Announced and not opened.
    let whole = get(port, execute(&session, 102, LARGE, u32::MAX)).await.unwrap();
    let messages = rest(whole).await.unwrap();
    refused(get(port, join(&session, 102)).await.unwrap_err());
    // Opened and not read, given up before anything was read, and opened too often.
    let first = get(port, execute(&session, 103, LARGE, u32::MAX)).await.unwrap();
    let mut unread = get(port, join(&session, 103)).await.unwrap();
    let mut further = Vec::new();
    let status = loop {
        match get(port, join(&session, 103)).await {
            Ok(stream) => further.push(stream),
            Err(status) => break status,
        }
        assert!(further.len() < 100);
    };
    refused(status);
    assert_eq!(further.len(), 14);
    let mut counts = rest(first).await.unwrap();
    while within(DEADLINE, unread.message()).await.unwrap().is_some() {
        counts += 1;
    }
    for stream in further {
        counts += rest(stream).await.unwrap();
    }
    // Each has a schema of its own.
    assert_eq!(counts, messages + 15);
}
