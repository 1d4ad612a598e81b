//! The server's history, as any client reads it: `FROM duckling_history()`.

use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::UInt64Type;
use duckherder_client::{Client, ClientError, ExceptionType, IngestOptions, IngestTarget, QueryOptions, Session};
use duckherder_tests::duckling::{LocalDuckling, config};
use futures::{StreamExt, TryStreamExt, stream};

use crate::support::{DEADLINE, batch, number, remote, start, within};

/// More than any test waits for.
const SLOW: &str = "SELECT count(*) FROM range(10000000) a, range(10000000) b WHERE (a.range * b.range) % 7 = 3";

/// The first column of a query's rows, as text.
async fn texts(session: &Session, sql: &str) -> Vec<String> {
    let batches: Vec<RecordBatch> = session.query(sql).await.unwrap().try_collect().await.unwrap();
    let columns = batches.iter().map(|batch| batch.column(0).as_string::<i32>());
    columns
        .flat_map(|column| {
            column
                .iter()
                .map(|text| text.unwrap_or("NULL").to_owned())
                .collect::<Vec<_>>()
        })
        .collect()
}

/// Waits until the history has a statement like `pattern` in this state.
async fn reaches(session: &Session, pattern: &str, state: &str) {
    let sql = format!("SELECT state FROM duckling_history() WHERE sql LIKE '{pattern}' AND sql NOT LIKE '%history%'");
    let reached = async {
        while !texts(session, &sql).await.contains(&state.to_owned()) {
            tokio::task::yield_now().await;
        }
    };
    within(DEADLINE, reached).await;
}

#[tokio::test]
async fn every_client_sees_what_all_have_sent() {
    let (duckling, client) = start().await;
    let other = Client::connect(duckling.options()).await.unwrap();
    let options = QueryOptions {
        history_id: Some([0xAB; 16]),
        ..QueryOptions::default()
    };
    let session = client.session();
    session
        .execute_with("SELECT 'mine' FROM range(3)", options)
        .await
        .unwrap();
    session
        .execute("CREATE TABLE t (i INTEGER); INSERT INTO t VALUES (1), (2)")
        .await
        .unwrap();
    session.execute("SELECT nope").await.unwrap_err();
    session.execute("SELEC 1").await.unwrap_err();
    let lines = "SELECT concat_ws('|', sql, coalesce(kind, '-'), state, rows_sent, coalesce(rows_changed, -1), \
                 coalesce(error_type, '-')) FROM duckling_history() WHERE sql NOT LIKE '%history%' ORDER BY start_time, id";
    assert_eq!(
        texts(other.session(), lines).await,
        [
            "SELECT 'mine' FROM range(3)|read|finished|3|-1|-",
            "CREATE TABLE t (i INTEGER); INSERT INTO t VALUES (1), (2)|write|finished|1|2|-",
            "SELECT nope|read|failed|0|-1|Binder",
            "SELEC 1|-|failed|0|-1|Parser",
        ]
    );
    let known = "SELECT count(*) FROM duckling_history() WHERE id = 'abababab-abab-abab-abab-abababababab'";
    assert_eq!(number(&other, known).await, 1);
    let unique = "SELECT count(DISTINCT id) - count(*) FROM duckling_history()";
    assert_eq!(number(&other, unique).await, 0, "ids are made up for who sends none");
    let sane = "SELECT count(*) FROM duckling_history() WHERE queued_us < 0 OR duration_us < queued_us \
                OR bytes_received <> strlen(sql) OR (state = 'finished') <> (bytes_sent > 0 AND error IS NULL) \
                AND state <> 'running' OR client NOT LIKE '127.0.0.1:%'";
    assert_eq!(number(&other, sane).await, 0);
    let session_ids = "SELECT count(DISTINCT session) FROM duckling_history()";
    assert_eq!(number(&other, session_ids).await, 2);
}

#[tokio::test]
async fn the_summary_and_the_history_agree() {
    let (_duckling, client) = start().await;
    let options = |byte| QueryOptions {
        history_id: Some([byte; 16]),
        ..QueryOptions::default()
    };
    let sql = "SELECT i, 'v' || i AS v FROM range(100000) r(i)";
    let mut result = client.session().query_with(sql, options(1)).await.unwrap();
    while result.try_next().await.unwrap().is_some() {}
    let summary = result.summary().unwrap().clone();
    assert_eq!((summary.rows_changed, summary.bytes), (None, result.bytes_received()));
    let found = client
        .query("SELECT rows_sent, bytes_sent, (duration_us - queued_us)::UBIGINT FROM duckling_history() LIMIT 1");
    let found: Vec<RecordBatch> = found.await.unwrap().try_collect().await.unwrap();
    let value = |index: usize| found[0].column(index).as_primitive::<UInt64Type>().value(0);
    assert_eq!((value(0), value(1)), (summary.rows, summary.bytes));
    assert!(
        summary.elapsed_us <= value(2) && summary.elapsed_us > 0,
        "{summary:?} {}",
        value(2)
    );

    client.execute("CREATE TABLE t (i INTEGER)").await.unwrap();
    let returning = "INSERT INTO t VALUES (1), (2) RETURNING i";
    let summary = client.session().execute_with(returning, options(2)).await.unwrap();
    assert_eq!((summary.rows, summary.rows_changed), (2, Some(2)));
    let summary = client.session().execute_with("DROP TABLE t", options(3)).await.unwrap();
    assert_eq!(summary.rows_changed, None);
}

#[tokio::test]
async fn running_waiting_and_cancelled_statements() {
    let mut config = config();
    config.limits.statements_max = 3;
    let duckling = LocalDuckling::start_with(config).unwrap();
    let client = Client::connect(duckling.options()).await.unwrap();
    let watcher = Client::connect(duckling.options()).await.unwrap();
    let watch = watcher.session();

    // `SLOW` has no first row: the stream is open when the statement runs.
    let first = client.open_session().await.unwrap();
    let running = first.query(SLOW).await.unwrap();
    reaches(watch, "SELECT count(*)%", "running").await;
    // By `Cancel`.
    assert!(first.cancel(running.statement_id()).await.unwrap());
    let error = remote(running.try_collect::<Vec<_>>().await.unwrap_err());
    assert_eq!(error.kind, ExceptionType::Interrupt);
    reaches(watch, "SELECT count(*)%", "cancelled").await;

    // By losing interest, running and waiting for the session's connection.
    let session = client.open_session().await.unwrap();
    session.execute("SET VARIABLE only_here = 1").await.unwrap();
    let running = session.query(format!("{SLOW} AND 2 = 2")).await.unwrap();
    reaches(watch, "%2 = 2", "running").await;
    let waiting = tokio::spawn({
        let session = session.clone();
        async move { session.execute("SELECT 'later'").await }
    });
    reaches(watch, "SELECT ''later''", "waiting").await;
    waiting.abort();
    reaches(watch, "SELECT ''later''", "cancelled").await;
    drop(running);
    reaches(watch, "%2 = 2", "cancelled").await;
}

#[tokio::test]
async fn uploads_are_counted_and_their_ends_told() {
    let (_duckling, client) = start().await;
    client.execute("CREATE TABLE t (n BIGINT, s VARCHAR)").await.unwrap();
    let session = client.session();
    let options = IngestOptions {
        history_id: Some([7; 16]),
        ..IngestOptions::default()
    };
    let traffic = Arc::clone(&options.traffic);
    let rows = stream::iter((0..3).map(|i| Ok::<_, ClientError>(batch(i * 50_000, 50_000))));
    let target = || IngestTarget::append("t");
    let schema = batch(0, 1).schema();
    let answer = session
        .ingest_with(target(), schema.clone(), rows, options)
        .await
        .unwrap();
    assert!(answer.elapsed_us > 0);
    let received = "SELECT bytes_received::BIGINT FROM duckling_history() WHERE rows_received = 150000 AND kind = 'write' \
                    AND rows_changed = 150000 AND state = 'finished' AND id = '07070707-0707-0707-0707-070707070707'";
    let (rows_sent, bytes_sent) = traffic.sent();
    assert_eq!(rows_sent, 150_000);
    assert_eq!(number(&client, received).await, i64::try_from(bytes_sent).unwrap());

    let (break_off, broken_off) = tokio::sync::oneshot::channel::<()>();
    let failure = stream::once(async move {
        drop(broken_off.await);
        Err(std::io::Error::other("the disk is gone"))
    });
    let rows = stream::iter([Ok(batch(0, 10))]).chain(failure);
    let upload = tokio::spawn({
        let (session, schema) = (session.clone(), schema.clone());
        async move { session.ingest(target(), schema, rows).await }
    });
    reaches(session, "INSERT INTO t (uploaded rows)", "running").await;
    drop(break_off);
    upload.await.unwrap().unwrap_err();
    reaches(session, "INSERT INTO t (uploaded rows)", "cancelled").await;
    let missing = IngestTarget::append("missing");
    session
        .ingest(missing, schema, stream::empty::<Result<_, ClientError>>())
        .await
        .unwrap_err();
    reaches(session, "INSERT INTO missing (uploaded rows)", "failed").await;
}

#[tokio::test]
async fn it_is_bounded_in_number_and_size() {
    let mut config = config();
    config.limits.history_statements_max = 5;
    config.limits.history_bytes_max = 200_000;
    let duckling = LocalDuckling::start_with(config).unwrap();
    let client = Client::connect(duckling.options()).await.unwrap();
    for _ in 0..8 {
        client.execute("SELECT 1").await.unwrap();
    }
    assert_eq!(number(&client, "SELECT count(*) FROM duckling_history()").await, 5);
    let long = format!("SELECT '{}'", "x".repeat(1_000_000));
    for _ in 0..4 {
        client.execute(&long).await.unwrap();
    }
    let size = "SELECT sum(strlen(sql))::BIGINT FROM duckling_history()";
    let size = number(&client, size).await;
    assert!((64 * 1024..=200_000).contains(&size), "{size}");
}
