//! Who belongs to a herd: joining, leaving, dying, coming back.

use std::path::Path;
use std::time::{Duration, Instant};

use arrow_flight::flight_service_server::{FlightService, FlightServiceServer};
use arrow_flight::{
    Action, ActionType, Criteria, Empty, FlightData, FlightDescriptor, FlightInfo, HandshakeRequest, HandshakeResponse,
    PollInfo, PutResult, SchemaResult, Ticket,
};
use duckherder_catalog::herd::placement::WorkerId;
use duckherder_client::{ClientError, ExceptionType, Node, v1};
use duckherder_proto::Message;
use duckherder_tests::duckdb::Connection;
use duckherder_tests::duckling::{DucklingProcess, LocalDuckling, config};
use duckling_server::herd::{JoinConfig, WorkerInfo, WorkerState};
use duckling_server::{DucklingConfig, Limits};
use futures::stream::{self, BoxStream, StreamExt};
use tonic::{Request, Response, Status, Streaming};

use crate::support::{DEADLINE, attach, remote, within};

/// Of the default failure detector, and what a busy machine may add.
const DOWN_DEADLINE: Duration = Duration::from_secs(10);

/// A failure detector for the impatient.
fn impatient() -> DucklingConfig {
    let mut config = config();
    config.limits = Limits {
        worker_heartbeat_interval: Duration::from_millis(50),
        worker_suspected_after: Duration::from_millis(1_000),
        worker_down_after: Duration::from_millis(2_000),
        ..config.limits
    };
    config
}

fn joining(port: u16) -> DucklingConfig {
    DucklingConfig {
        join: Some(JoinConfig {
            coordinator: format!("localhost:{port}"),
            advertise: None,
        }),
        ..impatient()
    }
}

fn in_file(config: DucklingConfig, path: &Path) -> DucklingConfig {
    DucklingConfig {
        database: path.to_string_lossy().into_owned(),
        ..config
    }
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let waiting = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    assert!(tokio::time::timeout(DEADLINE, waiting).await.is_ok(), "{what}");
}

fn workers(coordinator: &LocalDuckling) -> Vec<WorkerInfo> {
    coordinator.herd().registry().workers()
}

fn states(coordinator: &LocalDuckling) -> Vec<WorkerState> {
    workers(coordinator).iter().map(|worker| worker.state).collect()
}

/// The one worker, as soon as it is alive.
async fn the_worker(coordinator: &LocalDuckling) -> WorkerInfo {
    until("the worker is alive", || states(coordinator) == [WorkerState::Alive]).await;
    workers(coordinator).remove(0)
}

async fn node(port: u16) -> Node {
    Node::connect(&duckherder_client::ClientOptions::new("127.0.0.1", port))
        .await
        .unwrap()
}

async fn register(coordinator: u16, worker: u16) -> Result<v1::RegisterWorkerResponse, ClientError> {
    let request = v1::RegisterWorkerRequest {
        address: format!("127.0.0.1:{worker}"),
        ..v1::RegisterWorkerRequest::default()
    };
    node(coordinator).await.request(&request).await
}

async fn unregister(coordinator: u16, worker: &str) -> Result<v1::UnregisterWorkerResponse, ClientError> {
    take_out(coordinator, worker, false).await
}

async fn take_out(coordinator: u16, worker: &str, lost: bool) -> Result<v1::UnregisterWorkerResponse, ClientError> {
    let request = v1::UnregisterWorkerRequest {
        worker: worker.to_owned(),
        lost,
    };
    node(coordinator).await.request(&request).await
}

/// What a request was refused with.
fn refused<T: std::fmt::Debug>(outcome: Result<T, ClientError>) -> String {
    remote(outcome.unwrap_err()).message
}

/// Lines of a query, repeated until they are these.
async fn reaches(connection: &mut Connection, sql: &str, lines: &[&str]) {
    let started = Instant::now();
    loop {
        let found = connection.lines(sql).unwrap();
        if found == lines {
            return;
        }
        assert!(started.elapsed() < DEADLINE, "{sql}: {found:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_worker_joins_leaves_and_returns_under_its_id() {
    let directory = tempfile::tempdir().unwrap();
    let database = directory.path().join("worker.duckdb");
    let coordinator = LocalDuckling::start_with(impatient()).unwrap();
    let join = format!("localhost:{}", coordinator.port());
    let mut process = DucklingProcess::start_with(&database, &["--join", &join]).unwrap();
    let first = the_worker(&coordinator).await;
    assert_eq!(first.address, format!("127.0.0.1:{}", process.port()));
    assert!(process.terminate(DEADLINE).unwrap().success());
    until("it has left", || states(&coordinator) == [WorkerState::Left]).await;
    let registry = coordinator.herd().registry();
    let error = registry.address(&first.id).unwrap_err();
    assert!(
        error.message.contains(&first.id.0) && error.message.contains("has left"),
        "{error}"
    );

    let process = DucklingProcess::start_with(&database, &["--join", &join]).unwrap();
    let second = the_worker(&coordinator).await;
    assert_eq!(second.id, first.id);
    assert_eq!(second.address, format!("127.0.0.1:{}", process.port()));
    assert_eq!(registry.live(), [first.id]);
}

#[tokio::test]
async fn killed_workers_are_down_within_seconds() {
    let directory = tempfile::tempdir().unwrap();
    // With the failure detector that everybody has.
    let coordinator = LocalDuckling::start().unwrap();
    let join = format!("localhost:{}", coordinator.port());
    let mut joined = DucklingProcess::start_with(&directory.path().join("joined"), &["--join", &join]).unwrap();
    let mut named = DucklingProcess::start(&directory.path().join("named")).unwrap();
    register(coordinator.port(), named.port()).await.unwrap();
    until("both are alive", || states(&coordinator) == [WorkerState::Alive; 2]).await;
    let killed = Instant::now();
    joined.kill().unwrap();
    named.kill().unwrap();
    until("both are down", || states(&coordinator) == [WorkerState::Down; 2]).await;
    assert!(killed.elapsed() < DOWN_DEADLINE, "{:?}", killed.elapsed());
    let registry = coordinator.herd().registry();
    let ids: Vec<WorkerId> = workers(&coordinator).into_iter().map(|worker| worker.id).collect();
    let error = within(DEADLINE, registry.gone(&ids)).await;
    assert_eq!(error.kind, ExceptionType::Connection);
    assert!(
        error.message.contains(&ids[0].0) && error.message.contains("is down"),
        "{error}"
    );
    assert!(registry.live().is_empty());

    // The one that the coordinator asks is found again where it was, as another process.
    let options = ["--listen", &format!("127.0.0.1:{}", named.port())].map(str::to_owned);
    let options = options.each_ref().map(String::as_str);
    let _named = DucklingProcess::start_with(&directory.path().join("named"), &options).unwrap();
    until("it is back", || registry.live().len() == 1).await;
}

#[tokio::test]
async fn the_coordinator_may_come_later() {
    let port = free_port();
    let worker = LocalDuckling::start_with(joining(port)).unwrap();
    let coordinator = LocalDuckling::start_at(impatient(), port).unwrap();
    let known = the_worker(&coordinator).await;
    assert_eq!(known.id, worker.herd().registry().own_id());
    assert_eq!(
        worker.herd().registry().coordinator(),
        Some(coordinator.herd().registry().own_id())
    );
}

#[tokio::test]
async fn the_registry_survives_the_coordinator() {
    let directory = tempfile::tempdir().unwrap();
    let database = directory.path().join("coordinator.duckdb");
    let coordinator = || in_file(impatient(), &database);
    let first = LocalDuckling::start_with(coordinator()).unwrap();
    let port = first.port();
    let joined = LocalDuckling::start_with(joining(port)).unwrap();
    let gone = LocalDuckling::start_with(joining(port)).unwrap();
    let named = LocalDuckling::start_with(impatient()).unwrap();
    until("two have joined", || first.herd().registry().live().len() == 2).await;
    register(port, named.port()).await.unwrap();
    let gone_id = gone.herd().registry().own_id();
    gone.stop().await.unwrap();
    until("one has left", || states(&first).contains(&WorkerState::Left)).await;
    let own_id = first.herd().registry().own_id();
    let before: Vec<_> = workers(&first)
        .into_iter()
        .map(|worker| (worker.id, worker.address, worker.origin))
        .collect();
    first.stop().await.unwrap();

    let second = LocalDuckling::start_at(coordinator(), port).unwrap();
    let registry = second.herd().registry();
    assert_eq!(registry.own_id(), own_id);
    let after = workers(&second);
    let left = after.iter().find(|worker| worker.id == gone_id).unwrap();
    assert_eq!((left.state, left.last_heartbeat), (WorkerState::Left, None));
    let after: Vec<_> = after
        .into_iter()
        .map(|worker| (worker.id, worker.address, worker.origin))
        .collect();
    assert_eq!(after, before);
    until("both are back", || registry.live().len() == 2).await;
    for worker in [&joined, &named] {
        assert!(registry.live().contains(&worker.herd().registry().own_id()));
    }
}

#[tokio::test]
async fn a_worker_has_one_coordinator() {
    let directory = tempfile::tempdir().unwrap();
    let coordinator = |name: &str| LocalDuckling::start_with(in_file(impatient(), &directory.path().join(name)));
    let (a, b) = (coordinator("a").unwrap(), coordinator("b").unwrap());
    let database = directory.path().join("worker");
    let worker = LocalDuckling::start_with(in_file(impatient(), &database)).unwrap();
    let port = worker.port();
    register(a.port(), port).await.unwrap();
    let (a_id, b_id) = (a.herd().registry().own_id(), b.herd().registry().own_id());
    let refusal = refused(register(b.port(), port).await);
    let expected = format!("worker of coordinator {}, and not of coordinator {}", a_id.0, b_id.0);
    assert!(refusal.contains(&expected), "{refusal}");
    assert!(workers(&b).is_empty());
    worker.herd().registry().check_coordinator(&a_id).unwrap();
    let error = worker.herd().registry().check_coordinator(&b_id).unwrap_err();
    assert_eq!(error.kind, ExceptionType::ResourceInUse);

    // It remembers.
    worker.stop().await.unwrap();
    let worker = LocalDuckling::start_at(in_file(impatient(), &database), port).unwrap();
    let refusal = refused(register(b.port(), port).await);
    assert!(refusal.contains(&expected), "{refusal}");
    unregister(a.port(), &format!("localhost:{port}")).await.unwrap_err();
    let unregistered = unregister(a.port(), &format!("127.0.0.1:{port}")).await.unwrap();
    assert_eq!(unregistered.worker_id, worker.herd().registry().own_id().0);
    register(b.port(), port).await.unwrap();
    assert_eq!(worker.herd().registry().coordinator(), Some(b_id));
}

#[tokio::test]
async fn a_worker_that_is_back_and_was_not_heard_yet_can_be_unregistered() {
    let directory = tempfile::tempdir().unwrap();
    let coordinator = LocalDuckling::start_with(in_file(config(), &directory.path().join("coordinator"))).unwrap();
    let database = directory.path().join("worker");
    let worker = LocalDuckling::start_with(in_file(config(), &database)).unwrap();
    let port = worker.port();
    register(coordinator.port(), port).await.unwrap();
    worker.stop().await.unwrap();
    let worker = LocalDuckling::start_at(in_file(config(), &database), port).unwrap();
    assert!(worker.herd().registry().coordinator().is_some());
    let address = format!("127.0.0.1:{port}");
    unregister(coordinator.port(), &address).await.unwrap();
    assert_eq!(worker.herd().registry().coordinator(), None);
}

#[tokio::test]
async fn a_coordinator_without_a_file_is_given_up() {
    let worker = LocalDuckling::start_with(impatient()).unwrap();
    let first = LocalDuckling::start_with(impatient()).unwrap();
    register(first.port(), worker.port()).await.unwrap();
    let second = LocalDuckling::start_with(impatient()).unwrap();
    let refusal = refused(register(second.port(), worker.port()).await);
    assert!(refusal.contains(&first.herd().registry().own_id().0), "{refusal}");
    first.stop().await.unwrap();
    until("it is given up", || worker.herd().registry().coordinator().is_none()).await;
    register(second.port(), worker.port()).await.unwrap();
}

#[tokio::test]
async fn who_cannot_be_a_worker() {
    let coordinator = LocalDuckling::start_with(impatient()).unwrap();
    let worker = LocalDuckling::start_with(impatient()).unwrap();
    register(coordinator.port(), worker.port()).await.unwrap();
    let refusal = refused(register(coordinator.port(), coordinator.port()).await);
    assert!(refusal.contains("is this coordinator itself"), "{refusal}");
    let refusal = refused(register(worker.port(), free_port()).await);
    assert!(refusal.contains("cannot have workers of its own"), "{refusal}");
    let other = LocalDuckling::start_with(impatient()).unwrap();
    let refusal = refused(register(other.port(), coordinator.port()).await);
    assert!(
        refusal.contains("has workers of its own and cannot be a worker"),
        "{refusal}"
    );
    let port = free_port();
    let refusal = refused(register(coordinator.port(), port).await);
    assert!(refusal.contains(&format!("127.0.0.1:{port}")), "{refusal}");
    // What it advertises is another one's.
    let request = v1::RegisterWorkerRequest {
        address: format!("127.0.0.1:{}", worker.port()),
        worker_id: "somebody".to_owned(),
        ..v1::RegisterWorkerRequest::default()
    };
    let refusal = refused(node(coordinator.port()).await.request(&request).await);
    assert!(refusal.contains("worker somebody says that it is at"), "{refusal}");
    for address in ["", ":9", "a b:1", "[::1"] {
        let request = v1::RegisterWorkerRequest {
            address: address.to_owned(),
            ..v1::RegisterWorkerRequest::default()
        };
        refused(node(coordinator.port()).await.request(&request).await);
    }
    let refusal = refused(unregister(coordinator.port(), "nobody").await);
    assert!(refusal.contains("there is no worker 'nobody'"), "{refusal}");
    assert_eq!(states(&coordinator), [WorkerState::Alive]);
}

#[tokio::test]
async fn another_version_is_refused() {
    let coordinator = LocalDuckling::start_with(impatient()).unwrap();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let serving = tonic::transport::Server::builder()
        .add_service(FlightServiceServer::new(Stranger))
        .serve_with_incoming(tonic::transport::server::TcpIncoming::from(listener));
    let serving = tokio::spawn(serving);
    let refusal = refused(register(coordinator.port(), port).await);
    assert!(
        refusal.contains("it has DuckDB v9.9.9 and protocol version 1, the coordinator has DuckDB v2.0.0"),
        "{refusal}"
    );
    assert!(workers(&coordinator).is_empty());
    serving.abort();
}

#[tokio::test]
async fn the_unregistered_stay_away() {
    let coordinator = LocalDuckling::start_with(impatient()).unwrap();
    let worker = LocalDuckling::start_with(joining(coordinator.port())).unwrap();
    let known = the_worker(&coordinator).await;
    unregister(coordinator.port(), &known.id.0).await.unwrap();
    let registry = worker.herd().registry();
    assert_eq!(registry.coordinator(), None);
    // One that is told to stays, and hears of the coordinator once more before it gives up to join: it is not back then.
    let heartbeat = v1::HeartbeatRequest {
        worker_id: known.id.0.clone(),
        incarnation: registry.incarnation().to_vec().into(),
        leaving: false,
    };
    let answer = node(coordinator.port()).await.request(&heartbeat).await.unwrap();
    assert_eq!(answer.answer(), v1::HeartbeatAnswer::Unknown);
    tokio::time::sleep(10 * Duration::from_millis(50)).await;
    assert!(workers(&coordinator).is_empty());
    // Until somebody wants it back.
    register(coordinator.port(), worker.port()).await.unwrap();
    assert_eq!(the_worker(&coordinator).await.id, known.id);
}

#[tokio::test]
async fn a_lost_worker_is_forgotten_with_its_rows() {
    let directory = tempfile::tempdir().unwrap();
    let coordinator = LocalDuckling::start_with(impatient()).unwrap();
    let port = coordinator.port();
    let (_database, mut connection) = attach(port);
    let file = directory.path().join("lost.duckdb");
    let mut lost = DucklingProcess::start(&file).unwrap();
    let kept = LocalDuckling::start_with(impatient()).unwrap();
    register(port, kept.port()).await.unwrap();
    let registered = register(port, lost.port()).await.unwrap();
    let id = registered.worker_id;
    connection
        .run("CREATE TABLE dh.t (k INTEGER) PARTITIONED BY (k) WITH (partitions = 4)")
        .unwrap();
    connection.run("INSERT INTO dh.t FROM range(100)").unwrap();
    let forget = format!("SELECT duckherder_forget_worker('{id}')");

    let message = connection.lines(&forget).unwrap_err().0;
    assert!(message.contains("is alive, and not lost"), "{message}");
    lost.kill().unwrap();
    until("it is down", || states(&coordinator).contains(&WorkerState::Down)).await;
    for sql in ["SELECT count(*) FROM dh.t", "DROP TABLE dh.t"] {
        let message = connection.lines(sql).unwrap_err().0;
        assert!(message.contains(&id), "{sql}: {message}");
    }
    let message = refused(unregister(port, &id).await);
    assert!(message.contains("duckherder_forget_worker"), "{message}");
    assert_eq!(
        connection.lines(&forget).unwrap(),
        [format!("worker {id} at {} forgotten", registered.address)]
    );
    let message = connection.lines("SELECT count(*) FROM dh.t").unwrap_err().0;
    assert!(message.contains(&id), "{message}");
    // It comes back after all.
    let mut lost = DucklingProcess::start(&file).unwrap();
    assert_eq!(register(port, lost.port()).await.unwrap().worker_id, id);
    assert_eq!(connection.lines("SELECT count(*) FROM dh.t").unwrap(), ["100"]);
    lost.kill().unwrap();
    until("it is down again", || states(&coordinator).contains(&WorkerState::Down)).await;
    connection.run(&forget).unwrap();
    // New tables do without it, and the old one can go.
    connection.run("DROP TABLE dh.t").unwrap();
    connection
        .run("CREATE TABLE dh.t (k INTEGER) PARTITIONED BY (k) WITH (partitions = 4)")
        .unwrap();
    connection.run("INSERT INTO dh.t FROM range(10)").unwrap();
    assert_eq!(connection.lines("SELECT count(*) FROM dh.t").unwrap(), ["10"]);
}

#[tokio::test]
async fn a_worker_stays_while_a_table_is_made_there() {
    let coordinator = LocalDuckling::start_with(impatient()).unwrap();
    let port = coordinator.port();
    let (_database, mut connection) = attach(port);
    let worker = LocalDuckling::start_with(impatient()).unwrap();
    let id = register(port, worker.port()).await.unwrap().worker_id;
    for end in ["ROLLBACK", "COMMIT"] {
        connection.run("BEGIN").unwrap();
        connection
            .run("CREATE TABLE dh.t (k INTEGER) WITH (partitions = 4)")
            .unwrap();
        let message = refused(unregister(port, &id).await);
        assert!(message.contains("a table that is being made"), "{message}");
        connection.run(end).unwrap();
    }
    let message = refused(unregister(port, &id).await);
    assert!(message.contains("holds rows of main.t"), "{message}");
    connection.run("DROP TABLE dh.t").unwrap();
    // One that fails, and one that is made outside a transaction, hold nobody up afterwards.
    connection
        .run("CREATE TABLE dh.t WITH (partitions = 4) AS SELECT error('no') AS k")
        .unwrap_err();
    connection
        .run("CREATE TABLE dh.t WITH (partitions = 4) AS SELECT 1 AS k")
        .unwrap();
    connection.run("DROP TABLE dh.t").unwrap();
    unregister(port, &id).await.unwrap();
    let message = connection
        .run("CREATE TABLE dh.t (k INTEGER) WITH (partitions = 4)")
        .unwrap_err()
        .0;
    assert!(message.contains("no live worker"), "{message}");
}

/// Tables are made while workers come and go: no table ever has rows on one that is not registered.
#[tokio::test(flavor = "multi_thread")]
async fn tables_are_never_made_on_a_worker_that_goes() {
    let coordinator = LocalDuckling::start_with(impatient()).unwrap();
    let port = coordinator.port();
    let workers = [(); 2].map(|()| LocalDuckling::start_with(impatient()).unwrap());
    let mut ids = Vec::new();
    for worker in &workers {
        ids.push(register(port, worker.port()).await.unwrap().worker_id);
    }
    let makes = tokio::task::spawn_blocking(move || {
        let (_database, mut connection) = attach(port);
        let mut made = 0;
        for _ in 0..30 {
            match connection.run("CREATE TABLE dh.t (k INTEGER) WITH (partitions = 4)") {
                Ok(_) => {
                    made += 1;
                    assert_eq!(connection.lines("SELECT count(*) FROM dh.t").unwrap(), ["0"]);
                    connection.run("DROP TABLE dh.t").unwrap();
                }
                Err(error) => assert!(error.0.contains("unregistered"), "{error}"),
            }
        }
        made
    });
    let mut gone = 0;
    while !makes.is_finished() {
        if unregister(port, &ids[1]).await.is_ok() {
            gone += 1;
            register(port, workers[1].port()).await.unwrap();
        }
    }
    assert!(makes.await.unwrap() > 0 && gone > 0, "it was never tried");
}

#[tokio::test]
async fn an_id_can_be_taken_over() {
    let coordinator = LocalDuckling::start_with(impatient()).unwrap();
    let join = JoinConfig {
        coordinator: format!("grpc://localhost:{}", coordinator.port()),
        advertise: None,
    };
    let (first, second) = (
        LocalDuckling::start_with(impatient()).unwrap(),
        LocalDuckling::start_with(impatient()).unwrap(),
    );
    let id = || WorkerId("driver-1".to_owned());
    for (worker, step) in [(&first, 1), (&first, 2), (&second, 3)] {
        worker.herd().registry().join_as(&join, id()).await.unwrap();
        let known = the_worker(&coordinator).await;
        assert_eq!(known.id, id(), "{step}");
        assert_eq!(known.address, format!("127.0.0.1:{}", worker.port()), "{step}");
    }
    let registry = first.herd().registry();
    let error = registry.join_as(&join, WorkerId("no id".to_owned())).await.unwrap_err();
    assert_eq!(error.kind, ExceptionType::InvalidInput);
    let nowhere = JoinConfig {
        coordinator: format!("localhost:{}", free_port()),
        advertise: None,
    };
    let third = LocalDuckling::start_with(impatient()).unwrap();
    let error = third.herd().registry().join_as(&nowhere, id()).await.unwrap_err();
    assert_eq!(error.kind, ExceptionType::Connection);
}

#[tokio::test(flavor = "multi_thread")]
async fn sql_tells_who_is_there() {
    let coordinator = LocalDuckling::start_with(impatient()).unwrap();
    let worker = LocalDuckling::start_with(impatient()).unwrap();
    let joined = LocalDuckling::start_with(joining(coordinator.port())).unwrap();
    let (_database, mut connection) = attach(coordinator.port());
    let address = format!("127.0.0.1:{}", worker.port());
    let message = connection
        .lines(&format!("SELECT duckherder_register_worker('{address}')"))
        .unwrap();
    let id = worker.herd().registry().own_id().0;
    assert_eq!(message, [format!("worker {id} at {address} registered")]);
    reaches(&mut connection, "SELECT duckherder_get_worker_count('dh')", &["2"]).await;
    let sizes = format!(
        "SELECT id, address, state, partitions, rows, bytes >= 0, registered, last_heartbeat > state_since - INTERVAL 1 \
         MINUTE FROM duckherder_workers() WHERE id = '{id}'"
    );
    let line = format!("{id}|{address}|alive|0|0|true|named|true");
    assert_eq!(connection.lines(&sizes).unwrap(), [line]);
    let registered = "SELECT registered FROM duckherder_workers('dh') ORDER BY ALL";
    assert_eq!(connection.lines(registered).unwrap(), ["joined", "named"]);
    joined.stop().await.unwrap();
    let left = "SELECT state, rows, bytes FROM duckherder_workers() WHERE registered = 'joined'";
    reaches(&mut connection, left, &["left|NULL|NULL"]).await;
    reaches(&mut connection, "SELECT duckherder_get_worker_count()", &["1"]).await;
    let error = connection.lines("FROM duckherder_partitions('nothing')").unwrap_err();
    assert!(
        error.0.contains("no partitioned or replicated table main.nothing"),
        "{error}"
    );
    let columns = "SELECT string_agg(column_name, ',') FROM (DESCRIBE FROM duckherder_get_query_execution_stats())";
    assert_eq!(
        connection.lines(columns).unwrap(),
        [
            "id,sql,execution_mode,merge_strategy,query_duration_ms,num_workers_used,num_tasks_generated,\
          execution_start_time,fallback_reason,rows_moved,bytes_moved,cpu_time_ms,\
          critical_path_cpu_time_ms,stages,error"
        ]
    );
    let message = connection
        .lines(&format!("SELECT duckherder_unregister_worker('{id}')"))
        .unwrap();
    assert_eq!(message, [format!("worker {id} at {address} unregistered")]);
}

fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

/// A duckling with a DuckDB that nobody has.
struct Stranger;

type Answers<T> = BoxStream<'static, Result<T, Status>>;

#[tonic::async_trait]
impl FlightService for Stranger {
    type HandshakeStream = Answers<HandshakeResponse>;
    type ListFlightsStream = Answers<FlightInfo>;
    type DoGetStream = Answers<FlightData>;
    type DoPutStream = Answers<PutResult>;
    type DoActionStream = Answers<arrow_flight::Result>;
    type ListActionsStream = Answers<ActionType>;
    type DoExchangeStream = Answers<FlightData>;

    async fn do_action(&self, _: Request<Action>) -> Result<Response<Self::DoActionStream>, Status> {
        let answer = v1::ClaimWorkerResponse {
            worker_id: "stranger".to_owned(),
            incarnation: vec![1].into(),
            duckdb_version: "v9.9.9".to_owned(),
            protocol_version: 1,
        };
        let body = answer.encode_to_vec().into();
        Ok(Response::new(stream::iter([Ok(arrow_flight::Result { body })]).boxed()))
    }

    async fn handshake(
        &self,
        _: Request<Streaming<HandshakeRequest>>,
    ) -> Result<Response<Self::HandshakeStream>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn list_flights(&self, _: Request<Criteria>) -> Result<Response<Self::ListFlightsStream>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn get_flight_info(&self, _: Request<FlightDescriptor>) -> Result<Response<FlightInfo>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn poll_flight_info(&self, _: Request<FlightDescriptor>) -> Result<Response<PollInfo>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn get_schema(&self, _: Request<FlightDescriptor>) -> Result<Response<SchemaResult>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn do_get(&self, _: Request<Ticket>) -> Result<Response<Self::DoGetStream>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn do_put(&self, _: Request<Streaming<FlightData>>) -> Result<Response<Self::DoPutStream>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn list_actions(&self, _: Request<Empty>) -> Result<Response<Self::ListActionsStream>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn do_exchange(&self, _: Request<Streaming<FlightData>>) -> Result<Response<Self::DoExchangeStream>, Status> {
        Err(Status::unimplemented(""))
    }
}
