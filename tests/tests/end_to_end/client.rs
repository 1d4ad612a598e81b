//! The client crate against a real server.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::Int64Type;
use duckherder_client::{
    Client, ClientError, ClientOptions, ExceptionType, IngestTarget, QueryOptions, Session, blocking,
};
use futures::{StreamExt, TryStreamExt, stream};

use crate::proxy::Proxy;
use crate::support::{DEADLINE, batch, number, remote, start, within};

#[tokio::test]
async fn a_query_yields_its_schema_its_rows_and_a_summary() {
    let (_duckling, client) = start().await;
    let mut result = client
        .query("SELECT i, 'v' || i AS v FROM range(100000) r(i) ORDER BY i")
        .await
        .unwrap();
    let names: Vec<_> = result
        .schema()
        .fields()
        .iter()
        .map(|field| field.name().clone())
        .collect();
    assert_eq!(names, ["i", "v"]);
    assert!(result.summary().is_none());
    let mut next = 0;
    while let Some(batch) = result.try_next().await.unwrap() {
        let numbers = batch.column(0).as_primitive::<Int64Type>();
        let texts = batch.column(1).as_string::<i32>();
        for row in 0..batch.num_rows() {
            assert_eq!(numbers.value(row), next);
            assert_eq!(texts.value(row), format!("v{next}"));
            next += 1;
        }
    }
    assert_eq!(next, 100_000);
    assert_eq!(result.summary().unwrap().rows, 100_000);
    assert_eq!(result.rows_received(), 100_000);
}

#[tokio::test]
async fn a_small_answer_is_written_at_once() {
    let (duckling, client) = start().await;
    client
        .execute("CREATE TABLE t AS SELECT i, repeat('v', 500) || i AS v FROM range(100) r(i)")
        .await
        .unwrap();
    client.execute("ALTER TABLE t ADD PRIMARY KEY (i)").await.unwrap();
    let proxy = Proxy::start(duckling.port()).await;
    let client = Client::connect(ClientOptions::new("127.0.0.1", proxy.port))
        .await
        .unwrap();
    let look_up = async |key: i32| {
        let result = client.query(format!("SELECT v FROM t WHERE i = {key}")).await.unwrap();
        let rows: Vec<_> = result.try_collect().await.unwrap();
        assert_eq!(rows[0].column(0).as_string::<i32>().value(0).len(), 501);
    };
    // One that takes long, on a busy machine, has others run on threads of their own for a while.
    let all_are = async {
        loop {
            let before = proxy.pieces();
            for key in 0..10 {
                look_up(key).await;
            }
            if proxy.pieces() - before == 10 {
                return;
            }
        }
    };
    within(DEADLINE, all_are).await;
}

#[tokio::test]
async fn execute_counts_the_rows_it_changes() {
    let (_duckling, client) = start().await;
    assert_eq!(client.execute("CREATE TABLE t (i INTEGER)").await.unwrap(), 0);
    assert_eq!(client.execute("INSERT INTO t FROM range(10)").await.unwrap(), 10);
    assert_eq!(client.execute("UPDATE t SET i = 0 WHERE i < 4").await.unwrap(), 4);
    assert_eq!(client.execute("DELETE FROM t WHERE i = 0").await.unwrap(), 4);
    assert_eq!(client.execute("SELECT * FROM t").await.unwrap(), 0);
    assert_eq!(number(&client, "SELECT count(*) FROM t").await, 6);
}

#[tokio::test]
async fn several_statements_in_one_text_yield_the_last_ones_rows() {
    let (_duckling, client) = start().await;
    assert_eq!(
        number(
            &client,
            "CREATE TABLE t AS FROM range(3) r(i); INSERT INTO t VALUES (9); SELECT sum(i)::BIGINT FROM t"
        )
        .await,
        12
    );
}

#[tokio::test]
async fn empty_and_columnless_results_end_well() {
    let (_duckling, client) = start().await;
    let result = client.query("SELECT 1 AS x WHERE false").await.unwrap();
    assert_eq!(result.schema().fields().len(), 1);
    assert_eq!(result.try_collect::<Vec<_>>().await.unwrap().len(), 0);
    client.execute("").await.map_err(remote).unwrap_err();
}

#[tokio::test]
async fn errors_are_duckdbs_own() {
    let (_duckling, client) = start().await;
    for (sql, kind, part) in [
        ("SELECT nope FROM range(1)", ExceptionType::Binder, "\"nope\" not found"),
        (
            "SELECT * FROM missing",
            ExceptionType::Catalog,
            "Table with name missing does not exist",
        ),
        ("SELEC 1", ExceptionType::Parser, "syntax error"),
        (
            "SELECT 'x'::INTEGER",
            ExceptionType::Conversion,
            "Could not convert string 'x'",
        ),
        ("SELECT error('quack')", ExceptionType::InvalidInput, "quack"),
        ("COMMIT", ExceptionType::Transaction, "no transaction is active"),
    ] {
        let error = remote(client.execute(sql).await.unwrap_err());
        assert_eq!(error.kind, kind, "{sql}: {error}");
        assert!(error.message.contains(part), "{sql}: {error}");
    }
    let error = remote(client.execute("SELECT nope FROM range(1)").await.unwrap_err());
    assert_eq!(
        error.extra_info.get("position").map(String::as_str),
        Some("7"),
        "{error:?}"
    );
    assert_eq!(number(&client, "SELECT 42::BIGINT").await, 42);
}

#[tokio::test]
async fn an_error_in_mid_stream_is_an_error_not_an_end() {
    let (_duckling, client) = start().await;
    let sql = "SELECT CASE WHEN i < 900000 THEN i ELSE error('late') END AS i FROM range(1000000) r(i)";
    let outcome = match client.query(sql).await {
        Ok(stream) => stream.try_collect::<Vec<_>>().await,
        Err(error) => Err(error),
    };
    assert!(remote(outcome.unwrap_err()).message.contains("late"));
}

#[tokio::test]
async fn ingest_appends() {
    let (_duckling, client) = start().await;
    client.execute("CREATE TABLE t (n BIGINT, s VARCHAR)").await.unwrap();
    let batches = (0..20).map(|i| Ok::<_, ClientError>(batch(i * 50_000, 50_000)));
    assert_eq!(client.ingest("t", stream::iter(batches)).await.unwrap(), 1_000_000);
    assert_eq!(number(&client, "SELECT count(*) FROM t").await, 1_000_000);
    assert_eq!(number(&client, "SELECT sum(n)::BIGINT FROM t").await, 499_999_500_000);
    assert_eq!(
        number(&client, "SELECT count(s) FROM t WHERE s = 'row ' || n").await,
        800_000
    );
    let none = stream::iter(Vec::<Result<RecordBatch, ClientError>>::new());
    assert_eq!(client.ingest("t", none).await.unwrap(), 0);
}

#[tokio::test]
async fn ingest_creates_and_refuses_to_create_twice() {
    let (_duckling, client) = start().await;
    let session = client.session();
    let rows = || stream::iter([Ok::<_, ClientError>(batch(0, 7))]);
    let schema = batch(0, 1).schema();
    let taken = session
        .ingest(IngestTarget::create("made"), schema.clone(), rows())
        .await
        .unwrap();
    assert_eq!(taken.rows, 7);
    assert_eq!(number(&client, "SELECT count(s) FROM made").await, 5);
    let again = session
        .ingest(IngestTarget::create("made"), schema.clone(), rows())
        .await;
    assert_eq!(remote(again.unwrap_err()).kind, ExceptionType::Catalog);
    let missing = session.ingest(IngestTarget::append("missing"), schema, rows()).await;
    let error = remote(missing.unwrap_err());
    assert!(error.message.contains("missing"), "{error}");
    assert_eq!(number(&client, "SELECT count(*) FROM made").await, 7);
}

#[tokio::test]
async fn an_upload_that_breaks_off_leaves_nothing() {
    let (_duckling, client) = start().await;
    client.execute("CREATE TABLE t (n BIGINT, s VARCHAR)").await.unwrap();
    let good = (0..10).map(|i| Ok(batch(i * 50_000, 50_000)));
    let broken = good.chain([Err(std::io::Error::other("the disk is gone"))]);
    let error = client.ingest("t", stream::iter(broken)).await.unwrap_err();
    assert!(matches!(&error, ClientError::Input(_)), "{error:?}");
    assert!(error.to_string().contains("the disk is gone"));
    assert_eq!(number(&client, "SELECT count(*) FROM t").await, 0);

    // The caller loses interest in the middle.
    let endless = stream::iter((0..).map(|i| Ok::<_, ClientError>(batch(i * 50_000, 50_000))));
    let given_up = tokio::time::timeout(std::time::Duration::from_millis(300), client.ingest("t", endless)).await;
    assert!(given_up.is_err());
    assert_eq!(within(DEADLINE, number(&client, "SELECT count(*) FROM t")).await, 0);
}

#[tokio::test]
async fn a_violated_constraint_keeps_nothing_of_an_upload() {
    let (_duckling, client) = start().await;
    client
        .execute("CREATE TABLE t (n BIGINT PRIMARY KEY, s VARCHAR)")
        .await
        .unwrap();
    client.execute("INSERT INTO t VALUES (70000, 'mine')").await.unwrap();
    let batches = stream::iter([Ok::<_, ClientError>(batch(0, 50_000)), Ok(batch(50_000, 50_000))]);
    let error = remote(client.ingest("t", batches).await.unwrap_err());
    assert_eq!(error.kind, ExceptionType::Constraint, "{error}");
    assert_eq!(number(&client, "SELECT count(*) FROM t").await, 1);
}

#[tokio::test]
async fn sessions_have_settings_and_temporary_tables_of_their_own() {
    let (_duckling, client) = start().await;
    let other = client.open_session().await.unwrap();
    client.execute("CREATE TEMP TABLE mine AS SELECT 1 AS x").await.unwrap();
    client.execute("SET VARIABLE v = 5").await.unwrap();
    assert_eq!(number(&client, "SELECT getvariable('v')::BIGINT FROM mine").await, 5);
    assert_eq!(
        remote(other.execute("FROM mine").await.unwrap_err()).kind,
        ExceptionType::Catalog
    );
    other.close().await.unwrap();
    other.close().await.unwrap();
    assert!(
        remote(other.execute("SELECT 1").await.unwrap_err())
            .message
            .contains("session")
    );
}

#[tokio::test]
async fn transactions_are_the_sessions() {
    let (_duckling, client) = start().await;
    client.execute("CREATE TABLE t (i INTEGER)").await.unwrap();
    let session = client.open_session().await.unwrap();
    let begin = QueryOptions {
        begin_transaction: true,
        ..QueryOptions::default()
    };
    session.execute_with("INSERT INTO t VALUES (1)", begin).await.unwrap();
    session.execute_with("INSERT INTO t VALUES (2)", begin).await.unwrap();
    assert_eq!(number(&client, "SELECT count(*) FROM t").await, 0);
    session.execute("ROLLBACK").await.unwrap();
    session.execute("BEGIN").await.unwrap();
    session.execute("INSERT INTO t VALUES (3)").await.unwrap();
    session.execute("COMMIT").await.unwrap();
    assert_eq!(number(&client, "SELECT sum(i)::BIGINT FROM t").await, 3);

    // A dropped session takes its open transaction with it.
    session.execute("BEGIN").await.unwrap();
    session.execute("DELETE FROM t").await.unwrap();
    drop(session);
    assert_eq!(number(&client, "SELECT count(*) FROM t").await, 1);
}

#[tokio::test]
async fn an_upload_takes_part_in_a_transaction() {
    let (_duckling, client) = start().await;
    client.execute("CREATE TABLE t (n BIGINT, s VARCHAR)").await.unwrap();
    client.execute("BEGIN").await.unwrap();
    let rows = stream::iter([Ok::<_, ClientError>(batch(0, 10))]);
    assert_eq!(client.ingest("t", rows).await.unwrap(), 10);
    assert_eq!(number(&client, "SELECT count(*) FROM t").await, 10);
    client.execute("ROLLBACK").await.unwrap();
    assert_eq!(number(&client, "SELECT count(*) FROM t").await, 0);
}

#[tokio::test]
async fn two_results_of_one_transaction_can_be_read_at_once() {
    let (_duckling, client) = start().await;
    client
        .execute("CREATE TABLE t AS SELECT i FROM range(500000) r(i)")
        .await
        .unwrap();
    client.execute("BEGIN").await.unwrap();
    client.execute("INSERT INTO t VALUES (-1)").await.unwrap();
    let mut first = client.query("SELECT i FROM t").await.unwrap();
    let some = first.try_next().await.unwrap().unwrap().num_rows();
    let second: usize = client
        .query("SELECT i FROM t")
        .await
        .unwrap()
        .map_ok(|batch| batch.num_rows())
        .try_fold(0, |sum, rows| async move { Ok(sum + rows) })
        .await
        .unwrap();
    let rest = first
        .map_ok(|batch| batch.num_rows())
        .try_fold(0, |sum, rows| async move { Ok(sum + rows) })
        .await
        .unwrap();
    assert_eq!((some + rest, second), (500_001, 500_001));
    client.execute("COMMIT").await.unwrap();
}

#[tokio::test]
async fn cancel_stops_a_statement_at_once() {
    let (_duckling, client) = start().await;
    let mut result = client.query("SELECT i FROM range(100000000000) r(i)").await.unwrap();
    result.try_next().await.unwrap().unwrap();
    let started = Instant::now();
    assert!(client.session().cancel(result.statement_id()).await.unwrap());
    let error = within(DEADLINE, async {
        loop {
            match result.try_next().await {
                Ok(Some(_)) => {}
                Ok(None) => panic!("a cancelled result must not look whole"),
                Err(error) => return error,
            }
        }
    })
    .await;
    assert_eq!(remote(error).kind, ExceptionType::Interrupt);
    assert!(started.elapsed().as_secs() < 5);
    assert!(!client.session().cancel(result.statement_id()).await.unwrap());
    assert_eq!(number(&client, "SELECT 1::BIGINT").await, 1);
}

#[tokio::test]
async fn progress_is_told_of_what_runs() {
    let (_duckling, client) = start().await;
    client
        .execute("CREATE TABLE t AS SELECT i FROM range(2_000_000) r(i)")
        .await
        .unwrap();
    let slow = "SELECT sum(list_sum([hash(i, x) % 10 for x in range(200)])) FROM t";
    let mut result = client.query(slow).await.unwrap();
    let id = result.statement_id();
    let fraction = within(DEADLINE, async {
        loop {
            match client.session().progress(id).await.unwrap() {
                Some(fraction) if fraction > 0.0 => return fraction,
                _ => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    })
    .await;
    assert!(fraction < 1.0, "{fraction}");
    assert_eq!(client.session().progress(id + 1).await.unwrap(), None);
    client.session().cancel(id).await.unwrap();
    assert!(result.try_next().await.is_err());
    assert_eq!(client.session().progress(id).await.unwrap(), None);
}

#[tokio::test]
async fn describing_runs_nothing() {
    let (_duckling, client) = start().await;
    client.execute("CREATE TABLE t (i INTEGER)").await.unwrap();
    let shape = client
        .session()
        .describe("INSERT INTO t VALUES (1) RETURNING i, i::VARCHAR AS s")
        .await
        .unwrap();
    let columns: Vec<_> = shape
        .columns
        .iter()
        .map(|c| (c.name.as_str(), c.type_text.as_str()))
        .collect();
    assert_eq!(columns, [("i", "INTEGER"), ("s", "VARCHAR")]);
    assert_eq!(number(&client, "SELECT count(*) FROM t").await, 0);
}

#[tokio::test]
async fn the_catalog_can_be_asked() {
    let (_duckling, client) = start().await;
    let session = client.session();
    client
        .execute("CREATE SCHEMA farm; CREATE TABLE farm.\"My Ducks\" (i INTEGER NOT NULL, s DECIMAL(5,1) DEFAULT 2)")
        .await
        .unwrap();
    let lookup = session.lookup_table(&["FARM"], "my ducks").await.unwrap();
    let table = lookup.table.unwrap();
    assert_eq!(table.table_name, "My Ducks");
    assert_eq!(table.columns[0].type_text, "INTEGER");
    assert_eq!(table.columns[1].type_text, "DECIMAL(5,1)");
    assert!(session.lookup_table(&["farm"], "geese").await.unwrap().table.is_none());
    assert!(session.lookup_schema(&["farm"]).await.unwrap().1);
    assert!(!session.lookup_schema(&["zoo"]).await.unwrap().1);
    let snapshot = session.list_tables().await.unwrap();
    assert!(snapshot.schemas.iter().any(|schema| schema.schema_name == "farm"));
    assert_eq!(snapshot.tables.len(), 1);
    let before = session.keep_alive().await.unwrap();
    client
        .execute("ALTER TABLE farm.\"My Ducks\" ADD COLUMN x INTEGER")
        .await
        .unwrap();
    assert!(
        session.keep_alive().await.unwrap() > before,
        "a change of the catalog shows in its epoch"
    );
}

#[tokio::test]
async fn many_clients_at_once() {
    let (duckling, client) = start().await;
    client
        .execute("CREATE TABLE t (client INTEGER, n INTEGER)")
        .await
        .unwrap();
    let options = duckling.options();
    let clients = (0..32_i64).map(|id| {
        let options = options.clone();
        async move {
            let client = Client::connect(options).await.unwrap();
            client
                .execute(format!("INSERT INTO t SELECT {id}, i FROM range(1000) r(i)"))
                .await
                .unwrap();
            let own = number(&client, &format!("SELECT count(*) FROM t WHERE client = {id}")).await;
            let rows = number(&client, "SELECT count(*) FROM range(100000)").await;
            (own, rows)
        }
    });
    let outcomes: Vec<_> = within(DEADLINE, stream::iter(clients).buffer_unordered(32).collect()).await;
    assert_eq!(outcomes, vec![(1000, 100_000); 32]);
    assert_eq!(number(&client, "SELECT count(*) FROM t").await, 32_000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixty_four_clients_make_progress_fairly() {
    const CLIENTS: usize = 64;
    const ROUND: Duration = Duration::from_secs(3);
    let (duckling, client) = start().await;
    client
        .execute("CREATE TABLE t (i BIGINT PRIMARY KEY, text VARCHAR); INSERT INTO t SELECT i, 'row ' || i FROM range(10_000) r(i)")
        .await
        .unwrap();
    // Results that nobody reads, and statements that take all cores.
    let mut unread = Vec::new();
    for _ in 0..4 {
        let other = Client::connect(duckling.options()).await.unwrap();
        unread.push(
            other
                .query("SELECT repeat('x', 1000) FROM range(100_000_000)")
                .await
                .unwrap(),
        );
        unread.push(
            other
                .query("SELECT sum(sqrt(i)) FROM range(100_000_000_000) r(i)")
                .await
                .unwrap(),
        );
    }
    let work = |id: usize| {
        let options = duckling.options();
        async move {
            let client = Client::connect(options).await.unwrap();
            let (started, mut done) = (Instant::now(), 0_u32);
            while started.elapsed() < ROUND {
                let key = (id * 97 + done as usize) % 10_000;
                let found = number(&client, &format!("SELECT i FROM t WHERE i = {key}")).await;
                assert_eq!(found, key as i64);
                done += 1;
            }
            done
        }
    };
    let clients = stream::iter((0..CLIENTS).map(work)).buffer_unordered(CLIENTS);
    let mut done: Vec<u32> = within(DEADLINE, clients.collect()).await;
    done.sort_unstable();
    let (least, median) = (done[0], done[CLIENTS / 2]);
    assert!(least > 0 && least * 4 >= median, "{done:?}");
}

#[test]
fn without_async_it_is_the_same() {
    let duckling = duckherder_tests::duckling::LocalDuckling::start().unwrap();
    let client = blocking::Client::connect(duckling.options()).unwrap();
    client.execute("CREATE TABLE t (n BIGINT, s VARCHAR)").unwrap();
    let rows = client
        .ingest("t", [Ok::<_, ClientError>(batch(0, 3)), Ok(batch(3, 2))])
        .unwrap();
    assert_eq!(rows, 5);
    let mut result = client.query("SELECT n FROM t ORDER BY n").unwrap();
    let batch = result.next().unwrap().unwrap();
    assert_eq!(
        batch.column(0).as_primitive::<Int64Type>().values().to_vec(),
        [0, 1, 2, 3, 4]
    );
    assert!(result.next().is_none());
    assert_eq!(result.summary().unwrap().rows, 5);
    let error = client.query("SELECT * FROM missing").unwrap_err();
    assert_eq!(remote(error).kind, ExceptionType::Catalog);
    assert!(!batch.column(0).is_null(0));
}

#[tokio::test]
async fn settings_reach_every_connection_of_a_session() {
    let (_duckling, client) = start().await;
    let settings = |zone: &str| BTreeMap::from([("TimeZone".to_owned(), zone.to_owned())]);
    let session = client.open_session_with(settings("Asia/Tokyo")).await.unwrap();
    let zone = |session: Session| async move {
        let batches: Vec<_> = session
            .query("SELECT current_setting('TimeZone')")
            .await?
            .try_collect()
            .await?;
        Ok::<_, ClientError>(batches[0].column(0).as_string::<i32>().value(0).to_owned())
    };
    assert_eq!(zone(session.clone()).await.unwrap(), "Asia/Tokyo");
    // A result that nobody reads keeps the session's own connection busy: the next statement gets another.
    let unread = session
        .query("SELECT repeat('x', 1000) FROM range(10000000)")
        .await
        .unwrap();
    assert_eq!(within(DEADLINE, zone(session.clone())).await.unwrap(), "Asia/Tokyo");
    session.change_settings(settings("Asia/Kolkata")).await.unwrap();
    assert_eq!(within(DEADLINE, zone(session.clone())).await.unwrap(), "Asia/Kolkata");
    drop(unread);
    // Others keep the server's, and so does this one when it wants nothing any more.
    let default = zone(client.session().clone()).await.unwrap();
    session.change_settings(BTreeMap::new()).await.unwrap();
    assert_eq!(zone(session.clone()).await.unwrap(), default);
}

#[tokio::test]
async fn settings_that_cannot_be_are_refused() {
    let (_duckling, client) = start().await;
    let wanting = |name: &str, value: &str| BTreeMap::from([(name.to_owned(), value.to_owned())]);
    let hostile = wanting("x = 1; DROP TABLE t; --", "");
    let error = remote(client.session().change_settings(hostile.clone()).await.unwrap_err());
    assert_eq!(error.kind, ExceptionType::InvalidInput);
    let error = remote(client.open_session_with(hostile).await.unwrap_err());
    assert_eq!(error.kind, ExceptionType::InvalidInput);
    // Unknown ones do no harm. A value that DuckDB refuses fails what needs it, and not the end of a transaction.
    let session = client.open_session_with(wanting("no_such_setting", "1")).await.unwrap();
    session.execute("BEGIN").await.unwrap();
    session.change_settings(wanting("TimeZone", "Atlantis'")).await.unwrap();
    let error = remote(session.execute("SELECT 1").await.unwrap_err());
    assert!(
        error.message.contains("Unknown TimeZone 'Atlantis''"),
        "{}",
        error.message
    );
    session.execute("ROLLBACK").await.unwrap();
    session.change_settings(BTreeMap::new()).await.unwrap();
    session.execute("SELECT 1").await.unwrap();
}

#[tokio::test]
async fn what_arrow_has_no_type_for_is_an_error() {
    let (_duckling, client) = start().await;
    let state = "SELECT bool_or(true) EXPORT_STATE AS state";
    let error = remote(client.query(state).await.unwrap_err());
    assert_eq!(error.kind, ExceptionType::NotImplemented);
    assert!(error.message.contains("no Arrow type"), "{}", error.message);
    assert_eq!(number(&client, "SELECT 1::BIGINT").await, 1);
}
