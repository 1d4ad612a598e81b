//! A database that DuckDB has given up.

use std::time::{Duration, Instant};

use duckherder_client::{Client, ClientError};
use duckherder_tests::duckdb::Connection;
use duckherder_tests::duckling::{LocalDuckling, config};
use futures::TryStreamExt;
use tokio::time::sleep;
use tonic::transport::Endpoint;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use crate::support::{DEADLINE, attach, number, within};

fn file(directory: &tempfile::TempDir) -> LocalDuckling {
    let mut config = config();
    config.database = directory.path().join("d.duckdb").display().to_string();
    LocalDuckling::start_with(config).unwrap()
}

/// Makes DuckDB give up the instance, with transactions on its first database open: it cannot commit to another one.
async fn break_instance(duckling: &LocalDuckling) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("other.duckdb").display().to_string();
    let client = Client::connect(duckling.options()).await.unwrap();
    client.execute(format!("ATTACH '{path}' AS other")).await.unwrap();
    client
        .execute("SET debug_checkpoint_abort = 'before_wal_flush'")
        .await
        .unwrap();
    let error = client.execute("CREATE TABLE other.t (i INTEGER)").await.unwrap_err();
    assert!(error.to_string().contains("Simulated crash"), "{error}");
}

/// Makes DuckDB give up the database in the middle of a checkpoint.
async fn break_database(duckling: &LocalDuckling) {
    let client = Client::connect(duckling.options()).await.unwrap();
    for sql in [
        "CREATE OR REPLACE TABLE last AS SELECT 1 AS i",
        "SET debug_checkpoint_abort = 'before_header'",
    ] {
        client.execute(sql).await.unwrap();
    }
    let error = client.execute("CHECKPOINT").await.unwrap_err();
    assert!(error.to_string().contains("Checkpoint aborted"), "{error}");
}

/// A client of the duckling, as soon as it serves one.
async fn client_again(duckling: &LocalDuckling) -> Client {
    let started = Instant::now();
    loop {
        match Client::connect(duckling.options()).await {
            Ok(client) => return client,
            Err(error) => assert!(started.elapsed() < DEADLINE, "{error}"),
        }
        sleep(Duration::from_millis(50)).await;
    }
}

async fn health(duckling: &LocalDuckling) -> ServingStatus {
    let address = format!("http://127.0.0.1:{}", duckling.port());
    let channel = Endpoint::from_shared(address).unwrap().connect().await.unwrap();
    let about = HealthCheckRequest { service: String::new() };
    HealthClient::new(channel)
        .check(about)
        .await
        .unwrap()
        .into_inner()
        .status()
}

#[tokio::test]
async fn a_database_that_was_given_up_is_opened_again() {
    let directory = tempfile::tempdir().unwrap();
    let duckling = file(&directory);
    let client = Client::connect(duckling.options()).await.unwrap();
    client
        .execute("CREATE TABLE t AS SELECT range AS i FROM range(1000)")
        .await
        .unwrap();
    let (_database, mut local) = attach(duckling.port());
    assert_eq!(local.lines("SELECT count(*) FROM dh.t").unwrap(), ["1000"]);

    for round in 0..2_i64 {
        let rows = 1000 + round;
        let writer = Client::connect(duckling.options()).await.unwrap();
        writer.execute("BEGIN").await.unwrap();
        writer.execute("INSERT INTO t VALUES (-1)").await.unwrap();
        let reader = Client::connect(duckling.options()).await.unwrap();
        let mut unread = reader
            .query("SELECT i, repeat('x', 1000) FROM range(10000000) r(i)")
            .await
            .unwrap();
        assert!(unread.try_next().await.unwrap().is_some());
        local.run("BEGIN").unwrap();
        local.run("INSERT INTO dh.t VALUES (-2)").unwrap();

        break_instance(&duckling).await;

        // The result is not taken for a whole one, nor the transactions for committed ones.
        let rest = async {
            while unread.try_next().await?.is_some() {}
            Ok::<_, ClientError>(())
        };
        within(DEADLINE, rest).await.unwrap_err();
        let client = client_again(&duckling).await;
        assert_eq!(number(&client, "SELECT count(*) FROM t").await, rows);
        writer.execute("COMMIT").await.unwrap_err();
        local = tokio::task::spawn_blocking(move || {
            local.run("COMMIT").unwrap_err();
            let _ = local.run("ROLLBACK");
            local
        })
        .await
        .unwrap();
        assert_eq!(health(&duckling).await, ServingStatus::Serving);

        // The server's own functions are there, and the herd's planner.
        let history = "SELECT count(*) FROM duckling_history() WHERE sql = 'CREATE TABLE other.t (i INTEGER)'";
        assert_eq!(number(&client, history).await, round + 1);
        let error = client
            .execute("CREATE TABLE h (i INTEGER) PARTITIONED BY (i) WITH (partitions = 2)")
            .await
            .unwrap_err();
        assert!(error.to_string().contains("worker"), "{error}");
        client.execute("INSERT INTO t VALUES (0)").await.unwrap();
        assert_eq!(count(&mut local), [(rows + 1).to_string()]);
    }

    break_database(&duckling).await;
    let client = client_again(&duckling).await;
    assert_eq!(number(&client, "SELECT count(*) FROM t").await, 1002);
    assert_eq!(number(&client, "SELECT count(*) FROM last").await, 1);
    drop(client);
    within(DEADLINE, duckling.stop()).await.unwrap();
    let duckling = file(&directory);
    let client = Client::connect(duckling.options()).await.unwrap();
    assert_eq!(number(&client, "SELECT count(*) FROM t").await, 1002);
}

fn count(local: &mut Connection) -> Vec<String> {
    local.lines("SELECT count(*) FROM dh.t").unwrap()
}

#[tokio::test]
async fn what_is_in_memory_only_is_not_replaced_by_nothing() {
    let duckling = LocalDuckling::start().unwrap();
    let client = Client::connect(duckling.options()).await.unwrap();
    client.execute("CREATE TABLE t AS SELECT 1 AS i").await.unwrap();
    assert_eq!(health(&duckling).await, ServingStatus::Serving);
    break_instance(&duckling).await;
    within(DEADLINE, async {
        while health(&duckling).await == ServingStatus::Serving {
            sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
    let error = client
        .execute("CREATE TABLE IF NOT EXISTS t (i INTEGER)")
        .await
        .unwrap_err();
    assert!(error.to_string().contains("invalidated"), "{error}");
    within(DEADLINE, duckling.stop()).await.unwrap();
}
