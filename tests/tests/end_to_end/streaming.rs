//! Results are streams: neither side holds more of one than it must.

use std::time::{Duration, Instant};

use duckherder_client::Client;
use duckherder_tests::duckling::{LocalDuckling, config};
use futures::TryStreamExt;

use crate::support::{DEADLINE, attach, number, start, within};

#[tokio::test]
async fn a_slow_reader_blocks_nobody_else() {
    let (duckling, client) = start().await;
    let mut slow = client
        .query("SELECT i, repeat('x', 100) AS s FROM range(50000000) r(i)")
        .await
        .unwrap();
    slow.try_next().await.unwrap().unwrap();
    let other = Client::connect(duckling.options()).await.unwrap();
    for _ in 0..20 {
        assert_eq!(
            within(DEADLINE, number(&other, "SELECT count(*) FROM range(1000)")).await,
            1000
        );
    }
    // The same connection too, and the same session.
    assert_eq!(
        within(DEADLINE, number(&client, "SELECT count(*) FROM range(1000)")).await,
        1000
    );
    assert!(slow.try_next().await.unwrap().is_some());
}

#[tokio::test]
async fn the_server_reads_ahead_no_further_than_it_may() {
    let mut config = config();
    config.limits.read_ahead_bytes = 1024 * 1024;
    let duckling = LocalDuckling::start_with(config).unwrap();
    let client = Client::connect(duckling.options()).await.unwrap();
    client.execute("CREATE SEQUENCE produced").await.unwrap();
    // Rows of 10 kB; nextval counts how far the server has come.
    let sql = "SELECT nextval('produced') AS n, repeat('x', 10000) AS s FROM range(1000000) r(i)";
    let mut slow = client.query(sql).await.unwrap();
    slow.try_next().await.unwrap().unwrap();
    let other = Client::connect(duckling.options()).await.unwrap();
    let produced = "SELECT last_value FROM duckdb_sequences() WHERE sequence_name = 'produced'";
    // Until it does not go on while another query takes its time: then it waits for its reader.
    let mut rows = -1;
    let started = Instant::now();
    loop {
        let now = number(&other, produced).await;
        if now == rows {
            break;
        }
        assert!(started.elapsed() < DEADLINE, "the server never waits for its reader");
        rows = now;
        number(
            &other,
            "SELECT count(*) FROM range(30000) a, range(1000) b WHERE a.range > b.range",
        )
        .await;
    }
    assert!(
        rows < 200_000,
        "the server has made {rows} rows of 10 kB for a reader who took one batch"
    );
}

#[tokio::test]
async fn a_dropped_stream_frees_the_server() {
    let mut config = config();
    config.limits.statements_max = 1;
    let duckling = LocalDuckling::start_with(config).unwrap();
    let client = Client::connect(duckling.options()).await.unwrap();
    for _ in 0..3 {
        let mut endless = client.query("SELECT i FROM range(1000000000000) r(i)").await.unwrap();
        endless.try_next().await.unwrap().unwrap();
        drop(endless);
        // There is place for one statement: this one runs when the dropped one has gone.
        assert_eq!(within(DEADLINE, number(&client, "SELECT 7::BIGINT")).await, 7);
    }
}

#[tokio::test]
async fn a_dropped_stream_from_before_a_transaction_leaves_it_alone() {
    let (_duckling, client) = start().await;
    client.execute("CREATE TABLE t (i BIGINT)").await.unwrap();
    let endless = "SELECT i FROM range(1000000000000) r(i)";
    let mut first = client.query(endless).await.unwrap();
    first.try_next().await.unwrap().unwrap();
    // Beside the first, on another connection of the session.
    let mut beside = client.query(endless).await.unwrap();
    beside.try_next().await.unwrap().unwrap();
    drop(first);
    within(DEADLINE, client.execute("BEGIN")).await.unwrap();
    client.execute("INSERT INTO t VALUES (1)").await.unwrap();
    drop(beside);
    // When its end has got there, the transaction goes on.
    for _ in 0..50 {
        tokio::time::sleep(Duration::from_millis(10)).await;
        assert_eq!(within(DEADLINE, number(&client, "SELECT count(*) FROM t")).await, 1);
    }
    client.execute("COMMIT").await.unwrap();
    assert_eq!(number(&client, "SELECT count(*) FROM t").await, 1);
}

#[tokio::test]
async fn a_dropped_future_stops_a_statement_that_has_not_answered() {
    let mut config = config();
    config.limits.statements_max = 1;
    let duckling = LocalDuckling::start_with(config).unwrap();
    let client = Client::connect(duckling.options()).await.unwrap();
    let busy =
        client.execute("SELECT count(*) FROM range(1000000) a, range(1000000) b WHERE a.range * b.range % 7 = 3");
    assert!(tokio::time::timeout(Duration::from_millis(200), busy).await.is_err());
    assert_eq!(within(DEADLINE, number(&client, "SELECT 7::BIGINT")).await, 7);
}

#[tokio::test]
async fn a_limit_does_not_fetch_the_rest() {
    let (duckling, client) = start().await;
    client
        .execute("CREATE TABLE big AS SELECT i, repeat('x', 100) AS s FROM range(2000000) r(i)")
        .await
        .unwrap();
    let port = duckling.port();
    tokio::task::spawn_blocking(move || {
        let (_database, mut connection) = attach(port);
        connection.run("CREATE TABLE one AS SELECT 1 AS one").unwrap();
        let started = Instant::now();
        let lines = connection
            .lines("SELECT count(*) FROM (SELECT b.s FROM dh.big b, one LIMIT 5)")
            .unwrap();
        assert_eq!(lines, ["5"]);
        assert!(started.elapsed() < DEADLINE);
        let bytes =
            "SELECT count(*) FROM duckherder_get_query_history() WHERE sql LIKE '%\"s\"%' AND rows_received >= 2000000";
        assert_eq!(connection.lines(bytes).unwrap(), ["0"]);
    })
    .await
    .unwrap();
    assert_eq!(number(&client, "SELECT 1::BIGINT").await, 1);
}

#[tokio::test]
async fn an_interrupt_in_the_users_duckdb_stops_the_server() {
    let mut config = config();
    config.limits.statements_max = 1;
    let duckling = LocalDuckling::start_with(config).unwrap();
    let client = Client::connect(duckling.options()).await.unwrap();
    client
        .execute("CREATE TABLE t AS SELECT i FROM range(100000) r(i)")
        .await
        .unwrap();
    let (_database, mut connection) = attach(duckling.port());
    let interrupter = connection.interrupter();
    let running = tokio::task::spawn_blocking(move || {
        let error = connection
            .run("SELECT count(*) FROM dh.t a, dh.t b WHERE a.i * b.i % 7 = 3")
            .unwrap_err();
        (connection, error)
    });
    // Whoever asks for the one place has to wait: so it runs.
    let probe = || tokio::time::timeout(Duration::from_millis(300), client.execute("SELECT 1"));
    while probe().await.is_ok() {}
    interrupter.interrupt();
    let (mut connection, error) = within(DEADLINE, running).await.unwrap();
    assert!(error.0.starts_with("INTERRUPT Error"), "{error}");
    within(DEADLINE, client.execute("SELECT 1")).await.unwrap();
    tokio::task::spawn_blocking(move || assert_eq!(connection.lines("SELECT count(*) FROM dh.t").unwrap(), ["100000"]))
        .await
        .unwrap();
}
