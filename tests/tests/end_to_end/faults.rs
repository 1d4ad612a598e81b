//! Servers that are not there, stop, die, or are somebody else.

use std::time::{Duration, Instant};

use duckherder_client::{Client, ClientError, ClientOptions, ExceptionType};
use duckherder_tests::duckling::{DucklingProcess, LocalDuckling, config};
use futures::TryStreamExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::{DEADLINE, attach, number, remote, start, within};

#[tokio::test]
async fn nobody_there() {
    let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = socket.local_addr().unwrap().port();
    drop(socket);
    let error = Client::connect(ClientOptions::new("127.0.0.1", port))
        .await
        .unwrap_err();
    assert!(matches!(error, ClientError::Connect { .. }), "{error:?}");
    let error = Client::connect(ClientOptions::new("no-such-host.invalid", 1))
        .await
        .unwrap_err();
    assert!(matches!(error, ClientError::Connect { .. }), "{error:?}");
    let error = Client::connect(ClientOptions::new("no host", 1)).await.unwrap_err();
    assert!(matches!(error, ClientError::Address { .. }), "{error:?}");
}

/// Something that answers every connection with `answer` and closes it, or says nothing and keeps it.
async fn stranger(answer: Option<&'static [u8]>) -> u16 {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        let mut kept = Vec::new();
        while let Ok((mut socket, _)) = listener.accept().await {
            if let Some(answer) = answer {
                let mut request = [0; 1024];
                let _ = socket.read(&mut request).await;
                let _ = socket.write_all(answer).await;
            } else {
                kept.push(socket);
            }
        }
    });
    port
}

#[tokio::test]
async fn something_that_is_not_a_duckling() {
    for answer in [
        &b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"[..],
        b"SSH-2.0-OpenSSH_9.9\r\n",
        b"\0\0\0\0",
    ] {
        let port = stranger(Some(answer)).await;
        let options = ClientOptions::new("127.0.0.1", port).connect_timeout(Duration::from_secs(3));
        let error = within(DEADLINE, Client::connect(options)).await.unwrap_err();
        let is_clear = matches!(error, ClientError::NotADuckling { .. } | ClientError::Connect { .. });
        assert!(is_clear, "{error:?}");
    }
}

#[tokio::test]
async fn something_that_never_answers() {
    let port = stranger(None).await;
    let options = ClientOptions::new("127.0.0.1", port).connect_timeout(Duration::from_millis(300));
    let error = within(DEADLINE, Client::connect(options)).await.unwrap_err();
    assert!(matches!(error, ClientError::Timeout { .. }), "{error:?}");
}

#[tokio::test]
async fn a_table_dropped_by_somebody_else() {
    let (duckling, client) = start().await;
    client.execute("CREATE TABLE t AS SELECT 1 AS i").await.unwrap();
    let (_database, mut connection) = attach(duckling.port());
    assert_eq!(connection.lines("SELECT i FROM dh.t").unwrap(), ["1"]);
    connection.run("CREATE TABLE one AS SELECT 1 AS one").unwrap();
    assert_eq!(connection.lines("SELECT i FROM dh.t, one").unwrap(), ["1"]);
    client.execute("DROP TABLE t").await.unwrap();
    for sql in [
        "SELECT i FROM dh.t",
        "SELECT i FROM dh.t, one",
        "INSERT INTO dh.t VALUES (2)",
        "INSERT INTO dh.t FROM one WHERE one > 1",
    ] {
        let error = connection.run(sql).unwrap_err();
        assert!(
            error.0.starts_with("Catalog Error: Table with name t does not exist"),
            "{sql}: {error}"
        );
    }
    client
        .execute("CREATE TABLE t AS SELECT 'text' AS other, 2 AS more")
        .await
        .unwrap();
    assert_eq!(connection.lines("FROM dh.t").unwrap(), ["text|2"]);
    assert_eq!(connection.lines("SELECT t.* FROM dh.t, one").unwrap(), ["text|2"]);
}

#[tokio::test]
async fn a_server_that_stops_under_its_users() {
    let (duckling, client) = start().await;
    client.execute("CREATE TABLE t AS SELECT 1 AS i").await.unwrap();
    let port = duckling.port();
    let (_database, mut connection) = attach(port);
    assert_eq!(connection.lines("SELECT i FROM dh.t").unwrap(), ["1"]);
    within(DEADLINE, duckling.stop()).await.unwrap();
    tokio::task::spawn_blocking(move || {
        for sql in [
            "SELECT i FROM dh.t",
            "INSERT INTO dh.t VALUES (2)",
            "CREATE TABLE dh.u (i INTEGER)",
        ] {
            let error = connection.run(sql).unwrap_err();
            let class = error.0.split(':').next().unwrap_or_default();
            assert!(["IO Error", "Connection Error"].contains(&class), "{sql}: {error}");
            assert!(error.0.contains(&format!("127.0.0.1:{port}")), "{sql}: {error}");
        }
        assert_eq!(connection.lines("SELECT 1").unwrap(), ["1"]);
        connection.run("DETACH dh").unwrap();
    })
    .await
    .unwrap();
    let error = client.execute("SELECT 1").await.unwrap_err();
    assert!(
        matches!(error, ClientError::Lost { .. } | ClientError::Connect { .. }),
        "{error:?}"
    );
}

#[tokio::test]
async fn a_stopping_server_lets_statements_finish() {
    let mut config = config();
    config.limits.drain_timeout = DEADLINE;
    let mut duckling = LocalDuckling::start_with(config).unwrap();
    let client = Client::connect(duckling.options()).await.unwrap();
    let mut result = client
        .query("SELECT i, repeat('x', 100) FROM range(1000000) r(i)")
        .await
        .unwrap();
    let mut rows = result.try_next().await.unwrap().unwrap().num_rows();
    duckling.begin_stop();
    let stopping = tokio::spawn(duckling.stop());
    within(DEADLINE, async {
        while let Some(batch) = result.try_next().await.unwrap() {
            rows += batch.num_rows();
        }
    })
    .await;
    assert_eq!(rows, 1_000_000);
    drop((result, client));
    within(DEADLINE, stopping).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_stopping_server_interrupts_what_takes_too_long() {
    let mut config = config();
    config.limits.drain_timeout = Duration::from_millis(100);
    let mut duckling = LocalDuckling::start_with(config).unwrap();
    let client = Client::connect(duckling.options()).await.unwrap();
    let mut result = client.query("SELECT i FROM range(1000000000000) r(i)").await.unwrap();
    result.try_next().await.unwrap().unwrap();
    duckling.begin_stop();
    let stopping = tokio::spawn(duckling.stop());
    let outcome = within(DEADLINE, async {
        while result.try_next().await?.is_some() {}
        Ok::<_, ClientError>(())
    })
    .await;
    let error = outcome.unwrap_err();
    assert!(
        matches!(&error, ClientError::Remote(_) | ClientError::Lost { .. }),
        "{error:?}"
    );
    within(DEADLINE, stopping).await.unwrap().unwrap();
}

#[tokio::test]
async fn data_in_a_file_survives_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let mut config = config();
    config.database = directory.path().join("ducks.db").to_string_lossy().into_owned();
    for expected in 0..3 {
        let duckling = LocalDuckling::start_with(config.clone()).unwrap();
        let client = Client::connect(duckling.options()).await.unwrap();
        client
            .execute("CREATE TABLE IF NOT EXISTS t (i INTEGER)")
            .await
            .unwrap();
        assert_eq!(number(&client, "SELECT count(*) FROM t").await, expected);
        client.execute("INSERT INTO t VALUES (1)").await.unwrap();
        client.execute("BEGIN").await.unwrap();
        client.execute("INSERT INTO t VALUES (2)").await.unwrap();
        drop(client);
        within(DEADLINE, duckling.stop()).await.unwrap();
    }
}

#[tokio::test]
async fn one_file_has_one_server() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ducks.db");
    let first = DucklingProcess::start(&path).unwrap();
    assert!(DucklingProcess::start(&path).is_err());
    let client = Client::connect(first.options()).await.unwrap();
    assert_eq!(number(&client, "SELECT 1::BIGINT").await, 1);
}

#[tokio::test]
async fn sigkill_in_mid_stream_is_an_error_and_committed_data_is_there_after_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ducks.db");
    let mut duckling = DucklingProcess::start(&path).unwrap();
    let client = Client::connect(duckling.options()).await.unwrap();
    client
        .execute("CREATE TABLE t AS SELECT i FROM range(1000) r(i)")
        .await
        .unwrap();
    let other = client.open_session().await.unwrap();
    other.execute("BEGIN").await.unwrap();
    other.execute("INSERT INTO t FROM range(5)").await.unwrap();
    let (_database, mut connection) = attach(duckling.port());
    connection.run("CREATE TABLE here AS SELECT 1 AS x").unwrap();

    let mut result = client
        .query("SELECT i, repeat('x', 100) AS s FROM range(1000000000) r(i)")
        .await
        .unwrap();
    result.try_next().await.unwrap().unwrap();
    duckling.kill().unwrap();
    let started = Instant::now();
    let outcome = within(DEADLINE, async {
        while result.try_next().await?.is_some() {}
        Ok::<_, ClientError>(())
    })
    .await;
    let error = outcome.unwrap_err();
    assert!(matches!(error, ClientError::Lost { .. }), "{error:?}");
    assert!(started.elapsed() < DEADLINE);
    assert!(result.summary().is_none());

    let connection = tokio::task::spawn_blocking(move || {
        let error = connection.run("SELECT count(*) FROM dh.t").unwrap_err();
        let class = error.0.split(':').next().unwrap_or_default();
        assert!(["IO Error", "Connection Error"].contains(&class), "{error}");
        assert_eq!(connection.lines("FROM here").unwrap(), ["1"]);
        connection
    })
    .await
    .unwrap();
    drop(connection);

    let again = DucklingProcess::start(&path).unwrap();
    let client = Client::connect(again.options()).await.unwrap();
    assert_eq!(number(&client, "SELECT count(*) FROM t").await, 1000);
}

#[tokio::test]
async fn sigterm_ends_the_binary_well() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ducks.db");
    let mut duckling = DucklingProcess::start(&path).unwrap();
    let client = Client::connect(duckling.options()).await.unwrap();
    client
        .execute("CREATE TABLE t AS SELECT 42::BIGINT AS i")
        .await
        .unwrap();
    let mut endless = client.query("SELECT i FROM range(1000000000000) r(i)").await.unwrap();
    endless.try_next().await.unwrap().unwrap();
    let (duckling, status) = tokio::task::spawn_blocking(move || {
        let status = duckling.terminate(DEADLINE).unwrap();
        (duckling, status)
    })
    .await
    .unwrap();
    assert_eq!(status.code(), Some(0));
    drop((duckling, endless, client));
    assert!(
        !path.with_extension("db.wal").exists(),
        "the log has been written into the file"
    );
    let again = DucklingProcess::start(&path).unwrap();
    let client = Client::connect(again.options()).await.unwrap();
    assert_eq!(number(&client, "SELECT i FROM t").await, 42);
}

#[tokio::test]
async fn more_sessions_than_there_may_be() {
    let mut config = config();
    config.limits.sessions_max = 2;
    let duckling = LocalDuckling::start_with(config).unwrap();
    let first = Client::connect(duckling.options()).await.unwrap();
    let second = first.open_session().await.unwrap();
    let error = remote(Client::connect(duckling.options()).await.unwrap_err());
    assert_eq!(error.kind, ExceptionType::Connection);
    assert!(error.message.contains("limit"), "{error}");
    second.close().await.unwrap();
    Client::connect(duckling.options()).await.unwrap();
}
