//! Look-ups in a herd's tables that the client sends to the worker of their key itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use arrow_flight::flight_service_client::FlightServiceClient;
use arrow_flight::{FlightData, Ticket};
use duckherder_client::Client;
use duckherder_proto::command::Command;
use duckherder_proto::v1::{DefinitionsVersion, ExecuteRequest};
use duckherder_tests::duckdb::{Connection, DuckDb};
use duckherder_tests::duckling::{LocalDuckling, config, runtime};
use duckling_server::herd::JoinConfig;
use duckling_server::{DucklingConfig, Limits};
use futures::TryStreamExt;
use tonic::Status;
use tonic::transport::Channel;

use crate::hostile::flight;
use crate::proxy::{Link, Proxy};
use crate::support::{DEADLINE, attach, attach_with};

/// Sessions on workers are opened beside statements, and those on one that has failed after half a minute.
const PATIENCE: Duration = Duration::from_secs(60);

/// What is in the text of a look-up as it is sent.
const LOOK_UP: &str = "WHERE (k = ";

struct Herd {
    coordinator: LocalDuckling,
    workers: Vec<LocalDuckling>,
    _database: DuckDb,
    client: Connection,
}

impl Herd {
    fn new(workers: usize) -> Self {
        // However busy the machine is, nobody is given up.
        let start = || {
            let mut config = config();
            config.limits.worker_suspected_after = Duration::from_secs(60);
            config.limits.worker_down_after = Duration::from_secs(120);
            LocalDuckling::start_with(config).unwrap()
        };
        let coordinator = start();
        let (database, mut client) = attach(coordinator.port());
        let workers: Vec<_> = (0..workers).map(|_| start()).collect();
        for worker in &workers {
            let sql = format!("SELECT duckherder_register_worker('127.0.0.1:{}')", worker.port());
            client.run(&sql).unwrap();
        }
        Self::of(coordinator, workers, (database, client))
    }

    fn of(coordinator: LocalDuckling, workers: Vec<LocalDuckling>, attached: (DuckDb, Connection)) -> Self {
        let (database, client) = attached;
        Self {
            coordinator,
            workers,
            _database: database,
            client,
        }
    }

    fn create(&mut self, rows: u32) {
        self.client
            .run("CREATE TABLE dh.t (k BIGINT PRIMARY KEY, v VARCHAR) PARTITIONED BY (k) WITH (partitions = 8)")
            .unwrap();
        self.client
            .run(&format!(
                "INSERT INTO dh.t SELECT range, 'v' || range FROM range({rows})"
            ))
            .unwrap();
    }

    /// How many statements with that text the coordinator has run or sent on.
    fn seen(&mut self, text: &str) -> usize {
        let sql = format!(
            "FROM dh.query('SELECT count(*) FROM duckling_history() WHERE contains(sql, ''{text}'') AND NOT contains(sql, ''history'')')"
        );
        self.client.lines(&sql).unwrap().concat().parse().unwrap()
    }

    /// Looks keys up until none of a round of them goes by way of the coordinator.
    fn until_direct(&mut self) {
        let begun = Instant::now();
        loop {
            let before = self.seen(LOOK_UP);
            for key in 0..20 {
                look_up(&mut self.client, key);
            }
            if self.seen(LOOK_UP) == before {
                return;
            }
            assert!(
                begun.elapsed() < PATIENCE,
                "look-ups still go by way of the coordinator"
            );
        }
    }
}

fn look_up(client: &mut Connection, key: i64) -> Vec<String> {
    client.lines(&format!("SELECT * FROM dh.t WHERE k = {key}")).unwrap()
}

fn row(key: i64) -> Vec<String> {
    vec![format!("{key}|v{key}")]
}

#[test]
fn a_worker_is_asked_once_it_is_known() {
    let mut herd = Herd::new(3);
    herd.create(1000);
    assert_eq!(look_up(&mut herd.client, 5), row(5));
    assert_eq!(herd.seen(LOOK_UP), 1);
    herd.until_direct();
    let before = herd.seen(LOOK_UP);
    for key in 0..300 {
        assert_eq!(look_up(&mut herd.client, key), row(key));
    }
    assert_eq!(look_up(&mut herd.client, 1000), Vec::<String>::new());
    assert_eq!(herd.seen(LOOK_UP), before);
    // What is changed by way of the coordinator is seen.
    herd.client.run("UPDATE dh.t SET v = 'changed' WHERE k = 7").unwrap();
    herd.client.run("DELETE FROM dh.t WHERE k = 8").unwrap();
    herd.client
        .run("UPDATE dh.t SET k = 2000, v = 'v2000' WHERE k = 9")
        .unwrap();
    assert_eq!(look_up(&mut herd.client, 7), ["7|changed"]);
    assert_eq!(look_up(&mut herd.client, 8), Vec::<String>::new());
    assert_eq!(look_up(&mut herd.client, 9), Vec::<String>::new());
    assert_eq!(look_up(&mut herd.client, 2000), row(2000));
}

#[test]
fn keys_may_be_of_any_type() {
    let mut herd = Herd::new(3);
    let keys: [(&str, &str); 6] = [
        (
            "VARCHAR",
            "CASE WHEN i % 3 = 0 THEN 'a longer one, ''🦆'' ' || i ELSE 'k' || i END",
        ),
        ("UTINYINT", "i"),
        ("HUGEINT", "i"),
        ("UUID", "format('{:032x}', i)::UUID"),
        ("DECIMAL(9, 2)", "i / 4"),
        ("DATE", "DATE '2026-01-01' + i::INTEGER"),
    ];
    for (number, (kind, key)) in keys.into_iter().enumerate() {
        let table = format!("t{number}");
        herd.client
            .run(&format!(
                "CREATE TABLE dh.{table} (k {kind} PRIMARY KEY, v BIGINT) PARTITIONED BY (k) WITH (partitions = 7)"
            ))
            .unwrap();
        herd.client
            .run(&format!("INSERT INTO dh.{table} SELECT {key}, i FROM range(100) r(i)"))
            .unwrap();
        let keys = herd
            .client
            .lines(&format!("SELECT k::VARCHAR FROM dh.{table} ORDER BY v"))
            .unwrap();
        // So often, that there is time to go over to the workers.
        for _ in 0..3 {
            for (value, key) in keys.iter().enumerate() {
                let key = if matches!(kind, "UTINYINT" | "HUGEINT" | "DECIMAL(9, 2)") {
                    key.clone()
                } else {
                    format!("'{}'", key.replace('\'', "''"))
                };
                let sql = format!("SELECT v FROM dh.{table} WHERE k = {key}");
                assert_eq!(herd.client.lines(&sql).unwrap(), [value.to_string()], "{sql}");
            }
        }
        let direct = format!(
            "SELECT count(*) > 0 FROM duckherder_get_query_execution_stats() WHERE merge_strategy = 'direct' AND contains(sql, '{table} ')"
        );
        let is_direct = matches!(kind, "VARCHAR" | "UTINYINT");
        assert_eq!(herd.client.lines(&direct).unwrap(), [is_direct.to_string()], "{kind}");
    }
}

#[test]
fn the_coordinator_has_them_in_its_statistics() {
    let mut herd = Herd::new(2);
    herd.create(100);
    herd.until_direct();
    let statistics = |client: &mut Connection| {
        let sql = "SELECT count(*), min(execution_mode), max(num_workers_used), count(DISTINCT id) = count(*), \
                   max(rows_moved), min(stages[1:10]), bool_and(execution_start_time BETWEEN now()::TIMESTAMP - INTERVAL 1 MINUTE \
                   AND now()::TIMESTAMP + INTERVAL 1 SECOND) \
                   FROM duckherder_get_query_execution_stats() WHERE merge_strategy = 'direct'";
        client.lines(sql).unwrap().concat()
    };
    let before: usize = statistics(&mut herd.client).split('|').next().unwrap().parse().unwrap();
    assert!(before >= 20, "{before}");
    look_up(&mut herd.client, 3);
    let expected = format!("{}|router|1|true|1|[{{\"stage\":|true", before + 1);
    assert_eq!(statistics(&mut herd.client), expected);
    let sorted = "SELECT list(execution_start_time) = list_sort(list(execution_start_time)), count(DISTINCT merge_strategy) > 1 \
                  FROM duckherder_get_query_execution_stats()";
    assert_eq!(herd.client.lines(sorted).unwrap(), ["true|true"], "oldest first");
}

#[test]
fn other_definitions_are_noticed() {
    let mut herd = Herd::new(3);
    herd.create(200);
    herd.until_direct();
    let (_database, mut other) = attach(herd.coordinator.port());
    // The same keys are on other workers afterwards, and nobody tells this client.
    for partitions in [5, 16, 2, 7, 1, 8] {
        let make = format!(
            "CREATE OR REPLACE TABLE dh.t (k BIGINT PRIMARY KEY, v VARCHAR) PARTITIONED BY (k) WITH (partitions = {partitions})"
        );
        other.run(&make).unwrap();
        let insert = format!("INSERT INTO dh.t SELECT range, 'v{partitions} ' || range FROM range(200)");
        other.run(&insert).unwrap();
        for round in 0..3 {
            for key in 0..40 {
                let expected = [format!("{key}|v{partitions} {key}")];
                assert_eq!(
                    look_up(&mut herd.client, key),
                    expected,
                    "{partitions} partitions, round {round}"
                );
            }
        }
    }
    other.run("ALTER TABLE dh.t ADD COLUMN w INTEGER DEFAULT 5").unwrap();
    assert_eq!(look_up(&mut herd.client, 1), ["1|v8 1|5"]);
    other.run("ALTER TABLE dh.t RENAME TO u").unwrap();
    assert!(herd.client.lines("SELECT * FROM dh.t WHERE k = 1").is_err());
    other
        .run("CREATE VIEW dh.t AS SELECT k, 'seen' AS v FROM dh.u")
        .unwrap();
    for _ in 0..3 {
        assert_eq!(look_up(&mut herd.client, 1), ["1|seen"]);
    }
    other.run("DROP VIEW dh.t").unwrap();
    other
        .run("CREATE TABLE dh.t AS SELECT 1::BIGINT AS k, 'plain' AS v")
        .unwrap();
    for _ in 0..3 {
        assert_eq!(look_up(&mut herd.client, 1), ["1|plain"]);
    }
}

/// What is in a table is told with its generation; those who have made it say so before anybody looks.
#[test]
fn a_table_that_is_made_anew_all_the_time_has_its_own_rows() {
    let mut herd = Herd::new(2);
    herd.create(50);
    herd.until_direct();
    let port = herd.coordinator.port();
    let made = Arc::new(AtomicI64::new(0));
    let making = {
        let made = Arc::clone(&made);
        std::thread::spawn(move || {
            let (_database, mut other) = attach(port);
            for generation in 1..=12_i64 {
                let partitions = 1 + generation % 7;
                for sql in [
                    "BEGIN".to_owned(),
                    format!(
                        "CREATE OR REPLACE TABLE dh.t (k BIGINT PRIMARY KEY, v BIGINT) PARTITIONED BY (k) \
                         WITH (partitions = {partitions})"
                    ),
                    format!("INSERT INTO dh.t SELECT range, {generation} FROM range(50)"),
                    "COMMIT".to_owned(),
                ] {
                    other.run(&sql).map_err(|error| format!("{sql}: {error}"))?;
                }
                made.store(generation, Ordering::SeqCst);
                std::thread::sleep(Duration::from_millis(20));
            }
            Ok::<(), String>(())
        })
    };
    let mut seen = 0;
    let mut key = 0;
    while !making.is_finished() {
        let before = made.load(Ordering::SeqCst);
        let rows = herd.client.lines(&format!("SELECT * FROM dh.t WHERE k = {key}"));
        key = (key + 7) % 50;
        let after = made.load(Ordering::SeqCst);
        if before == 0 || before != after {
            continue;
        }
        // The next one may be there by now, or be about to come.
        let Ok(rows) = rows else { continue };
        if let [row] = rows.as_slice() {
            let generation: i64 = row.split('|').nth(1).unwrap().parse().unwrap();
            assert!(generation >= before, "{row}, but {before} had been made");
            seen += 1;
        }
    }
    making.join().unwrap().unwrap();
    assert!(seen > 0);
    for key in 0..50 {
        assert_eq!(look_up(&mut herd.client, key), [format!("{key}|12")]);
    }
}

#[test]
fn the_session_is_what_it_is() {
    let mut herd = Herd::new(2);
    herd.create(100);
    herd.until_direct();
    let (_database, mut other) = attach(herd.coordinator.port());
    let client = &mut herd.client;
    // A transaction sees what was there when it began.
    client.run("BEGIN").unwrap();
    assert_eq!(look_up(client, 50), row(50));
    other.run("UPDATE dh.t SET v = 'other' WHERE k >= 50").unwrap();
    for key in 50..70 {
        assert_eq!(look_up(client, key), row(key));
    }
    client.run("COMMIT").unwrap();
    for key in 50..70 {
        assert_eq!(look_up(client, key), [format!("{key}|other")]);
    }
    client.run("BEGIN").unwrap();
    client.run("UPDATE dh.t SET v = 'mine' WHERE k < 50").unwrap();
    for key in 0..50 {
        assert_eq!(look_up(client, key), [format!("{key}|mine")]);
    }
    client.run("ROLLBACK").unwrap();
    for key in 0..50 {
        assert_eq!(look_up(client, key), row(key));
    }
    let half = |client: &mut Connection, key: i64| {
        client
            .lines(&format!("SELECT k / 2 AS half FROM dh.t WHERE k = {key}"))
            .unwrap()
    };
    for division in ["true", "false", "true"] {
        client.run(&format!("SET integer_division = {division}")).unwrap();
        for key in 0..30 {
            let expected = if division == "true" {
                (key / 2).to_string()
            } else {
                format!("{:?}", key as f64 / 2.0)
            };
            assert_eq!(half(client, key), [expected]);
            assert_eq!(look_up(client, key), row(key));
        }
    }
    client.run("RESET integer_division").unwrap();
    // A temporary table of the session at the coordinator has the name of the herd's.
    client
        .run("FROM dh.query('CREATE TEMP TABLE t AS SELECT 1::BIGINT AS k, ''temporary'' AS v')")
        .unwrap();
    for key in 0..20 {
        let direct = look_up(client, key);
        let by_coordinator = client
            .lines(&format!("FROM dh.query('SELECT * FROM main.t WHERE (k = {key})')"))
            .unwrap();
        assert_eq!(direct, by_coordinator);
    }
    client.run("FROM dh.query('DROP TABLE temp.t')").unwrap();
}

#[test]
fn several_clients_at_once() {
    let mut herd = Herd::new(2);
    herd.create(1000);
    let port = herd.coordinator.port();
    let clients: Vec<_> = (0..8_i64)
        .map(|number| {
            std::thread::spawn(move || {
                let (_database, mut client) = attach(port);
                for turn in 0..100 {
                    let key = (turn * 37 + number) % 1000;
                    assert_eq!(look_up(&mut client, key), row(key));
                    if turn % 10 == 0 {
                        let own = 10_000 + number * 1000 + turn;
                        client
                            .run(&format!("INSERT INTO dh.t VALUES ({own}, 'v{own}')"))
                            .unwrap();
                        assert_eq!(look_up(&mut client, own), row(own));
                    }
                }
            })
        })
        .collect();
    for client in clients {
        client.join().unwrap();
    }
}

#[test]
fn a_worker_that_is_gone_is_named_by_the_coordinator() {
    let mut herd = Herd::new(2);
    herd.create(200);
    herd.until_direct();
    herd.workers.truncate(1);
    let begun = Instant::now();
    let mut failed = 0;
    for key in 0..60 {
        match herd.client.lines(&format!("SELECT * FROM dh.t WHERE k = {key}")) {
            Ok(rows) => assert_eq!(rows, row(key)),
            Err(error) => {
                failed += 1;
                assert!(error.to_string().contains("worker"), "{error}");
            }
        }
    }
    assert!((15..60).contains(&failed), "{failed}");
    assert!(begun.elapsed() < DEADLINE, "{:?}", begun.elapsed());
}

#[test]
fn a_worker_that_was_started_anew_is_asked_again() {
    let directory = tempfile::tempdir().unwrap();
    let config = || DucklingConfig {
        database: directory.path().join("w.db").to_string_lossy().into_owned(),
        ..config()
    };
    let mut herd = Herd::new(0);
    let worker = LocalDuckling::start_with(config()).unwrap();
    let port = worker.port();
    herd.client
        .run(&format!("SELECT duckherder_register_worker('127.0.0.1:{port}')"))
        .unwrap();
    herd.create(100);
    herd.until_direct();
    runtime().unwrap().block_on(worker.stop()).unwrap();
    let again = LocalDuckling::start_at(config(), port).unwrap();
    let begun = Instant::now();
    while herd.client.run("SELECT * FROM dh.t WHERE k = 1").is_err() {
        assert!(begun.elapsed() < DEADLINE, "the worker does not come back");
    }
    for key in 0..100 {
        assert_eq!(look_up(&mut herd.client, key), row(key));
    }
    herd.until_direct();
    herd.workers.push(again);
}

/// A worker that the coordinator has lost sight of may be replaced there, and must not go on answering clients that still reach it.
#[test]
fn a_worker_that_its_coordinator_does_not_see_answers_nobody() {
    let impatient = || DucklingConfig {
        limits: Limits {
            worker_heartbeat_interval: Duration::from_millis(100),
            worker_suspected_after: Duration::from_millis(1000),
            worker_down_after: Duration::from_millis(2000),
            ..Limits::default()
        },
        ..config()
    };
    let runtime = runtime().unwrap();
    let coordinator = LocalDuckling::start_with(impatient()).unwrap();
    let worker = LocalDuckling::start_with(impatient()).unwrap();
    let (database, client) = attach(coordinator.port());
    let proxy = runtime.block_on(Proxy::start(coordinator.port()));
    let join = JoinConfig {
        coordinator: format!("127.0.0.1:{}", proxy.port),
        advertise: Some(format!("127.0.0.1:{}", worker.port())),
    };
    let registry = Arc::clone(worker.herd().registry());
    let id = registry.own_id();
    runtime.block_on(registry.join_as(&join, id)).unwrap();
    let mut herd = Herd::of(coordinator, vec![worker], (database, client));
    herd.create(100);
    herd.until_direct();
    // The worker's heartbeats come this way, and nothing else does.
    proxy.spares(0);
    proxy.cut();
    let begun = Instant::now();
    let error = loop {
        if let Err(error) = herd.client.lines("SELECT * FROM dh.t WHERE k = 1") {
            break error.to_string();
        }
        assert!(begun.elapsed() < DEADLINE, "the worker goes on answering");
    };
    assert!(error.contains("worker"), "{error}");
    assert!(herd.client.lines("SELECT * FROM dh.t WHERE k = 1").is_err());
    proxy.becomes(Link::Good);
    let begun = Instant::now();
    while herd.client.lines("SELECT * FROM dh.t WHERE k = 1").is_err() {
        assert!(begun.elapsed() < DEADLINE, "the worker does not come back");
    }
    assert_eq!(look_up(&mut herd.client, 1), row(1));
    herd.until_direct();
}

#[test]
fn a_worker_that_is_silent_to_the_client_alone_is_left() {
    let runtime = runtime().unwrap();
    let coordinator = LocalDuckling::start().unwrap();
    let worker = LocalDuckling::start().unwrap();
    let proxy = runtime.block_on(Proxy::start(worker.port()));
    let (database, mut client) = attach(coordinator.port());
    client
        .run(&format!(
            "SELECT duckherder_register_worker('127.0.0.1:{}')",
            proxy.port
        ))
        .unwrap();
    let mut herd = Herd::of(coordinator, vec![worker], (database, client));
    herd.create(100);
    // Those of the coordinator come before that of the client.
    let before = proxy.answered().len();
    herd.until_direct();
    assert!(proxy.answered().len() > before);
    proxy.becomes(Link::SilentAfter(0));
    proxy.spares(before);
    let begun = Instant::now();
    for key in 0..20 {
        assert_eq!(look_up(&mut herd.client, key), row(key));
    }
    // It is waited for once, for 2 s.
    assert!(begun.elapsed() < DEADLINE, "{:?}", begun.elapsed());
}

#[test]
fn a_client_may_be_told_to_ask_the_coordinator_only() {
    let mut herd = Herd::new(1);
    herd.create(100);
    let (_database, mut other) = attach_with(herd.coordinator.port(), ", ask_workers false");
    for round in 1..=3 {
        for key in 0..20 {
            assert_eq!(look_up(&mut other, key), row(key));
        }
        assert_eq!(herd.seen(LOOK_UP), 20 * round);
    }
}

/// Whatever comes with a wrong version is not run, and does no harm.
#[tokio::test]
async fn a_worker_runs_nothing_for_outdated_routes() {
    let worker = LocalDuckling::start().unwrap();
    let client = Client::connect(worker.options()).await.unwrap();
    client.execute("CREATE TABLE t (k BIGINT PRIMARY KEY)").await.unwrap();
    for key in 0..5 {
        // From the third one on they are known by their text, and run at once.
        client.execute(format!("INSERT INTO t VALUES ({key})")).await.unwrap();
        client
            .execute(format!("SELECT * FROM t WHERE k = {key}"))
            .await
            .unwrap();
    }
    let session = client.session().id().clone();
    let mut flight = flight(&worker).await;
    for (number, sql) in (1000..).zip([
        "SELECT * FROM t WHERE k = 1",
        "INSERT INTO t VALUES (77)",
        "DELETE FROM t",
        "DROP TABLE t",
        "SELECT 1; SELECT 2",
        "SELECT count(*) FROM t",
        "BEGIN",
        "nonsense",
        "",
    ]) {
        for catalog_version in [0, 1, 2, 3, u64::MAX] {
            let command = Command::Execute(ExecuteRequest {
                session_id: session.clone(),
                statement_id: number,
                sql: sql.to_owned(),
                stored_types: true,
                definitions: Some(DefinitionsVersion {
                    instance: 1,
                    catalog_version,
                    term: 1,
                }),
                ..ExecuteRequest::default()
            });
            let ticket = Ticket {
                ticket: command.encode(),
            };
            assert!(get_all(&mut flight, ticket).await.is_err(), "{sql}");
        }
    }
    assert_eq!(client.execute("DELETE FROM t").await.unwrap(), 5);
}

async fn get_all(flight: &mut FlightServiceClient<Channel>, ticket: Ticket) -> Result<Vec<FlightData>, Status> {
    flight.do_get(ticket).await?.into_inner().try_collect().await
}
