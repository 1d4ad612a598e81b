//! Statements that fill DuckDB's memory, and those that wait for it.

use std::time::{Duration, Instant};

use duckherder_client::{Client, ClientError, ClientOptions};
use duckherder_proto::ExceptionType;
use duckherder_tests::duckling::{LocalDuckling, config};
use duckling_server::DucklingConfig;
use futures::future::join_all;

use crate::support::{DEADLINE, number, remote, within};

/// More of them than this run only while there is memory.
const ALWAYS_RUN: usize = 4;

/// Keeps a tenth of the memory that [`short_of_memory`] gives for itself, and never ends.
const HOLDS_MEMORY: &str = "WITH s AS MATERIALIZED (SELECT * FROM t)
    SELECT count(*) FROM s a, s b, s c WHERE a.a::HUGEINT * b.b + c.a = 7";

/// What statements hold of DuckDB's memory.
const HELD: &str = "SELECT sum(memory_usage_bytes)::BIGINT FROM duckdb_memory()
    WHERE tag IN ('COLUMN_DATA', 'HASH_TABLE', 'ORDER_BY', 'ALLOCATOR')";

fn short_of_memory(wait_timeout: Duration) -> DucklingConfig {
    let mut config = config();
    config.database_options.memory_limit = Some("256MiB".to_owned());
    config.limits.statement_wait_timeout = wait_timeout;
    config
}

/// A duckling with a table `t` that takes a tenth of its memory.
async fn start(wait_timeout: Duration) -> (LocalDuckling, Client) {
    let duckling = LocalDuckling::start_with(short_of_memory(wait_timeout)).unwrap();
    let client = connect(&duckling.options()).await;
    client
        .execute("CREATE TABLE t AS SELECT hash(i) AS a, hash(i + 1) AS b FROM range(1600000) r(i)")
        .await
        .unwrap();
    (duckling, client)
}

async fn connect(options: &ClientOptions) -> Client {
    Client::connect(options.clone()).await.unwrap()
}

/// Statements that hold most of the memory until they are aborted.
async fn fill(options: &ClientOptions, watcher: &Client) -> Vec<tokio::task::JoinHandle<Result<(), ClientError>>> {
    let mut running = Vec::new();
    for _ in 0..2 * ALWAYS_RUN {
        let client = connect(options).await;
        running.push(tokio::spawn(
            async move { client.execute(HOLDS_MEMORY).await.map(|_| ()) },
        ));
    }
    let began = Instant::now();
    while number(watcher, HELD).await < 180 << 20 {
        assert!(began.elapsed() < DEADLINE, "they do not take memory");
    }
    running
}

#[tokio::test]
async fn a_statement_waits_for_memory_and_an_open_transaction_does_not() {
    let (duckling, client) = start(Duration::from_secs(60)).await;
    client.execute("CREATE TABLE written (i INTEGER)").await.unwrap();
    client.execute("BEGIN").await.unwrap();
    client.execute("INSERT INTO written VALUES (1)").await.unwrap();
    let watcher = connect(&duckling.options()).await;
    watcher.execute("BEGIN").await.unwrap();
    let running = fill(&duckling.options(), &watcher).await;
    let other = connect(&duckling.options()).await;
    let waiting = tokio::time::timeout(Duration::from_millis(300), other.execute("SELECT 1"));
    assert!(waiting.await.is_err(), "there is no memory for it");
    within(DEADLINE, client.execute("INSERT INTO written VALUES (2)"))
        .await
        .unwrap();
    within(DEADLINE, client.execute("COMMIT")).await.unwrap();
    let waiting = tokio::spawn(async move { number(&other, "SELECT count(*) FROM written").await });
    for statement in running {
        statement.abort();
    }
    assert_eq!(within(DEADLINE, waiting).await.unwrap(), 2);
}

#[tokio::test]
async fn a_statement_that_waits_too_long_for_memory_is_told_so() {
    let (duckling, client) = start(Duration::from_millis(500)).await;
    let watcher = connect(&duckling.options()).await;
    watcher.execute("BEGIN").await.unwrap();
    let running = fill(&duckling.options(), &watcher).await;
    let error = remote(client.execute("SELECT 1").await.unwrap_err());
    assert_eq!(error.kind, ExceptionType::OutOfMemory, "{error}");
    assert!(error.message.contains("of DuckDB's 256 MiB of memory"), "{error}");
    for statement in running {
        statement.abort();
    }
    let began = Instant::now();
    while client.execute("SELECT 1").await.is_err() {
        assert!(began.elapsed() < DEADLINE, "it waits for statements that have gone");
    }
}

#[tokio::test]
async fn many_large_statements_at_once_all_succeed() {
    let (duckling, client) = start(Duration::from_secs(300)).await;
    let statements = [
        "SELECT count(*) FROM (SELECT a, count(*) FROM t GROUP BY a)",
        "SELECT count(*) FROM t x JOIN t y ON x.a = y.a",
        "SELECT max(len(l)) FROM (SELECT a % 100000 AS k, list(b) AS l FROM t GROUP BY k)",
    ];
    let mut expected = Vec::new();
    for sql in statements {
        expected.push(number(&client, sql).await);
    }
    let mut clients = Vec::new();
    for _ in 0..24 {
        clients.push(connect(&duckling.options()).await);
    }
    let runs = clients.iter().enumerate().map(async |(index, client)| {
        let which = index % statements.len();
        (which, number(client, statements[which]).await)
    });
    for (which, found) in join_all(runs).await {
        assert_eq!(found, expected[which], "{}", statements[which]);
    }
}
