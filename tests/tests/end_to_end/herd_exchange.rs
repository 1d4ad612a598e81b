//! Rows between the ducklings of a herd: stages, exchanges, gathering.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::Int64Type;
use duckherder_client::{Client, ClientError, ColumnDescription, ExceptionType, RemoteError, StagesStream};
use duckherder_proto::v1::{
    HerdDestination, HerdExchange, HerdStage, OutputKind, ReadExchangeRequest, RegisterWorkerRequest, RunStagesRequest,
};
use duckherder_tests::duckling::{DucklingProcess, LocalDuckling, config};
use duckling_server::Limits;
use duckling_server::herd::{BatchSource, HerdSession, Next};
use futures::TryStreamExt;

use crate::support::{DEADLINE, number, remote, within};

/// How long a cancelled query may still be there, on any node.
const CANCEL_DEADLINE: Duration = Duration::from_secs(1);

/// A statement that runs until it is interrupted.
const ENDLESS: &str = "SELECT count(*) FROM range(10_000_000) a, range(10_000_000) b";

const NAMES: [&str; 3] = ["a", "b", "c"];

/// Three workers, `a`, `b` and `c`, each with a table t (n BIGINT, s VARCHAR) of its own thousand rows.
struct Workers {
    ducklings: Vec<LocalDuckling>,
    clients: Vec<Client>,
}

impl Workers {
    async fn start() -> Self {
        Self::start_with(Limits::default()).await
    }

    async fn start_with(limits: Limits) -> Self {
        let mut workers = Self {
            ducklings: Vec::new(),
            clients: Vec::new(),
        };
        for first in [0, 1000, 2000] {
            let mut config = config();
            config.limits = Limits {
                drain_timeout: config.limits.drain_timeout,
                ..limits.clone()
            };
            let duckling = LocalDuckling::start_with(config).unwrap();
            let client = Client::connect(duckling.options()).await.unwrap();
            let last = first + 1000;
            let sql = format!("CREATE TABLE t AS SELECT range AS n, 'row ' || range AS s FROM range({first}, {last})");
            client.execute(sql).await.unwrap();
            workers.ducklings.push(duckling);
            workers.clients.push(client);
        }
        workers
    }

    fn addresses(&self) -> BTreeMap<String, String> {
        let address = |duckling: &LocalDuckling| format!("127.0.0.1:{}", duckling.port());
        let addresses = self.ducklings.iter().map(address);
        NAMES.into_iter().map(str::to_owned).zip(addresses).collect()
    }

    /// The same stages on all three.
    async fn run(&self, id: u8, stages: &[HerdStage]) -> Vec<Result<StagesStream, ClientError>> {
        let mut streams = Vec::new();
        for (name, client) in NAMES.iter().zip(&self.clients) {
            let request = RunStagesRequest {
                addresses: self.addresses(),
                ..request(id, name, stages)
            };
            streams.push(client.session().run_stages(request).await);
        }
        streams
    }

    fn is_empty(&self) -> bool {
        self.ducklings.iter().all(is_empty)
    }

    /// Waits until no worker keeps anything.
    async fn until_empty(&self, deadline: Duration) {
        let started = Instant::now();
        while !self.is_empty() {
            assert!(started.elapsed() < deadline, "something is left behind");
            tokio::task::yield_now().await;
        }
    }
}

fn is_empty(duckling: &LocalDuckling) -> bool {
    let holdings = duckling.herd().exchanges().holdings();
    holdings.queries == 0 && holdings.taken.memory_bytes == 0 && holdings.taken.disk_bytes == 0
}

fn request(id: u8, worker: &str, stages: &[HerdStage]) -> RunStagesRequest {
    RunStagesRequest {
        query_id: vec![id; 16].into(),
        worker_id: worker.to_owned(),
        stages: stages
            .iter()
            .map(|stage| {
                let mut stage = stage.clone();
                if stage.output() == OutputKind::Forward {
                    stage.destinations = to(&[worker], 1);
                }
                stage
            })
            .collect(),
        columns: stages.last().map(|stage| stage.columns.clone()).unwrap_or_default(),
        ..RunStagesRequest::default()
    }
}

fn columns(types: &[(&str, &str)]) -> Vec<ColumnDescription> {
    let column = |(name, type_text): &(&str, &str)| ColumnDescription {
        name: (*name).to_owned(),
        type_text: (*type_text).to_owned(),
        ..ColumnDescription::default()
    };
    types.iter().map(column).collect()
}

fn to(workers: &[&str], readers: u32) -> Vec<HerdDestination> {
    let destination = |worker: &&str| HerdDestination {
        worker_id: (*worker).to_owned(),
        readers,
    };
    workers.iter().map(destination).collect()
}

fn stage(number: u32, sql: &str, output: OutputKind) -> HerdStage {
    HerdStage {
        stage: number,
        sql: sql.to_owned(),
        columns: columns(&[("n", "BIGINT"), ("s", "VARCHAR")]),
        output: output.into(),
        ..HerdStage::default()
    }
}

/// Rows of t to `a`, `b` and `c` by the hash of n, in 8 buckets.
fn shuffle(sql: &str) -> HerdStage {
    HerdStage {
        destinations: to(&NAMES, 1),
        buckets: vec![0, 1, 2, 0, 1, 2, 0, 1],
        ..stage(1, sql, OutputKind::Hash)
    }
}

const SHUFFLE: &str = "SELECT n, s, hash(n) % 8 FROM t";

fn exchange(id: u8, destination: &str, reader: u32) -> ReadExchangeRequest {
    ReadExchangeRequest {
        query_id: vec![id; 16].into(),
        stage: 1,
        destination: destination.to_owned(),
        reader,
    }
}

async fn read(client: &Client, request: ReadExchangeRequest) -> Result<Vec<i64>, ClientError> {
    let batches: Vec<RecordBatch> = client.read_exchange(request).await?.try_collect().await?;
    Ok(numbers(&batches))
}

fn numbers(batches: &[RecordBatch]) -> Vec<i64> {
    let mut all = Vec::new();
    for batch in batches {
        let values = batch.column(0).as_primitive::<Int64Type>();
        if batch.num_columns() > 1 {
            let texts = batch.column(1).as_string::<i32>();
            for row in 0..batch.num_rows() {
                assert_eq!(texts.value(row), format!("row {}", values.value(row)));
            }
        }
        all.extend_from_slice(values.values());
    }
    all.sort_unstable();
    all
}

async fn end(mut stream: StagesStream) -> StagesStream {
    while stream.try_next().await.unwrap().is_some() {}
    stream
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shuffle_brings_every_row_to_its_bucket_and_leaves_nothing() {
    let limits = [
        Limits::default(),
        Limits {
            exchange_memory_bytes: 10_000,
            ..Limits::default()
        },
    ];
    for limits in limits {
        let workers = Workers::start_with(limits).await;
        let streams = workers.run(1, &[shuffle(SHUFFLE)]).await;
        let mut ended = Vec::new();
        for stream in streams {
            ended.push(within(DEADLINE, end(stream.unwrap())).await);
        }
        let mut all = Vec::new();
        for (place, destination) in NAMES.iter().enumerate() {
            for client in &workers.clients {
                let rows = within(DEADLINE, read(client, exchange(1, destination, 0)))
                    .await
                    .unwrap();
                let list = rows.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
                let wrong = format!(
                    "SELECT count(*) FROM (SELECT unnest([{list}]::BIGINT[]) AS n) WHERE [0, 1, 2, 0, 1, 2, 0, 1][1 + \
                     (hash(n) % 8)::BIGINT] <> {place}"
                );
                assert_eq!(number(client, &wrong).await, 0);
                all.extend(rows);
            }
        }
        all.sort_unstable();
        assert_eq!(all, (0..3000).collect::<Vec<_>>());
        for stream in ended {
            let summary = stream.summary().unwrap().clone();
            let [stage] = summary.stages.as_slice() else {
                panic!("one stage: {summary:?}")
            };
            assert_eq!((summary.rows, stage.rows, stage.edges.len()), (0, 1000, 3));
            assert_eq!(stage.edges.iter().map(|edge| edge.rows).sum::<u64>(), 1000);
            within(DEADLINE, stream.until_released()).await.unwrap();
        }
        workers.until_empty(DEADLINE).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_may_come_first_and_get_rows_while_they_are_made() {
    let workers = Workers::start().await;
    let reading = tokio::spawn({
        let client = workers.clients[0].clone();
        async move { client.read_exchange(exchange(1, "b", 0)).await }
    });
    tokio::task::yield_now().await;
    let broadcast = HerdStage {
        destinations: to(&["b", "c"], 2),
        ..stage(
            1,
            "SELECT range AS n, 'row ' || range AS s FROM range(10_000_000)",
            OutputKind::Broadcast,
        )
    };
    let session = workers.clients[0].session();
    let stream = session.run_stages(request(1, "a", &[broadcast])).await.unwrap();
    let mut rows = within(DEADLINE, reading).await.unwrap().unwrap();
    let first = within(DEADLINE, rows.try_next()).await.unwrap().unwrap();
    assert!(first.num_rows() > 0);
    assert_eq!(rows.schema().field(1).name(), "s");
    // A reader that has had enough stops its stream only.
    drop(rows);
    let mut other = workers.clients[0].read_exchange(exchange(1, "c", 1)).await.unwrap();
    assert!(within(DEADLINE, other.try_next()).await.unwrap().is_some());
    drop((stream, other));
    workers.until_empty(CANCEL_DEADLINE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn gathered_rows_are_the_answer() {
    let workers = Workers::start().await;
    let stages = [
        HerdStage {
            destinations: to(&NAMES, 0),
            ..stage(1, "SELECT n, s FROM t", OutputKind::Broadcast)
        },
        stage(2, "SELECT n, s FROM t ORDER BY n", OutputKind::Gather),
    ];
    let mut all = Vec::new();
    for stream in workers.run(1, &stages).await {
        let mut stream = stream.unwrap();
        assert_eq!(stream.schema().field(0).name(), "n");
        let batches: Vec<RecordBatch> = (&mut stream).try_collect().await.unwrap();
        let summary = stream.summary().unwrap();
        assert_eq!((summary.rows, summary.stages.len()), (1000, 2));
        all.extend(numbers(&batches));
        within(DEADLINE, stream.until_released()).await.unwrap();
    }
    assert_eq!(all, (0..3000).collect::<Vec<_>>());
    assert!(workers.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failing_stage_is_its_readers_error_too() {
    let workers = Workers::start().await;
    let waiting = tokio::spawn({
        let client = workers.clients[1].clone();
        async move { read(&client, exchange(1, "a", 0)).await }
    });
    tokio::task::yield_now().await;
    let failing = shuffle("SELECT n, s, CASE WHEN n = 999 THEN error('no good') ELSE hash(n) % 8 END FROM t");
    let failing = RunStagesRequest {
        ..request(1, "b", &[failing])
    };
    workers.clients[1]
        .execute("UPDATE t SET n = 999 WHERE n = 1999")
        .await
        .unwrap();
    let failed = async {
        let mut stream = workers.clients[1].session().run_stages(failing).await?;
        stream.try_next().await
    };
    let error = remote(within(DEADLINE, failed).await.unwrap_err());
    assert_eq!(
        (error.kind, error.message.as_str()),
        (ExceptionType::InvalidInput, "no good")
    );
    assert_eq!(remote(within(DEADLINE, waiting).await.unwrap().unwrap_err()), error);
    // Also that of whoever comes late.
    let late = within(DEADLINE, read(&workers.clients[1], exchange(1, "c", 0))).await;
    assert_eq!(remote(late.unwrap_err()), error);
    workers.until_empty(CANCEL_DEADLINE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stage_that_does_not_bind_fails_the_request() {
    let workers = Workers::start().await;
    let wrong = [
        ("SELECT nothing FROM t", ExceptionType::Binder),
        ("SELECT", ExceptionType::Parser),
        ("SELECT 1; SELECT 2", ExceptionType::InvalidInput),
        ("SELECT n FROM t", ExceptionType::InvalidInput),
        ("SELECT n, s, 8::UBIGINT FROM t", ExceptionType::InvalidInput),
        ("SELECT n, s, NULL::UBIGINT FROM t", ExceptionType::InvalidInput),
        ("SELECT n, s, s, hash(n) % 8 FROM t", ExceptionType::InvalidInput),
    ];
    for (id, (sql, kind)) in (1..).zip(wrong) {
        for stream in workers.run(id, &[shuffle(sql)]).await {
            let outcome = match stream {
                Ok(mut stream) => within(DEADLINE, stream.try_next()).await.map(|_| ()),
                Err(error) => Err(error),
            };
            let error = remote(outcome.unwrap_err());
            assert_eq!(error.kind, kind, "{sql}: {error}");
        }
    }
    workers.until_empty(CANCEL_DEADLINE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_answer_stops_everything_of_the_query() {
    let workers = Workers::start().await;
    let endless = shuffle("SELECT n, s, hash(a.range + b.range) % 8 FROM t, range(1_000_000) a, range(1_000_000) b");
    let streams = workers.run(1, &[endless]).await;
    let mut readers = Vec::new();
    for client in &workers.clients {
        let mut reader = client.read_exchange(exchange(1, "a", 0)).await.unwrap();
        within(DEADLINE, reader.try_next()).await.unwrap().unwrap();
        readers.push(reader);
    }
    drop(streams);
    let started = Instant::now();
    for mut reader in readers {
        let error = loop {
            match within(CANCEL_DEADLINE, reader.try_next()).await {
                Ok(Some(_)) => {}
                Ok(None) => panic!("it must not look like an end"),
                Err(error) => break remote(error),
            }
        };
        assert_eq!(error.kind, ExceptionType::Interrupt);
    }
    workers.until_empty(CANCEL_DEADLINE).await;
    let running = "SELECT count(*) FROM duckling_history() WHERE state = 'running' AND sql LIKE '%range(1_000_000)%' \
                   AND sql NOT LIKE '%duckling_history%'";
    for client in &workers.clients {
        while number(client, running).await > 0 {
            assert!(started.elapsed() < CANCEL_DEADLINE, "it runs on");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_released_query_stops_and_comes_too_late_for_ever() {
    let workers = Workers::start().await;
    let mut endless = stage(1, ENDLESS, OutputKind::Gather);
    endless.columns = columns(&[("n", "BIGINT")]);
    let client = &workers.clients[0];
    let forward = stage(2, "SELECT n, s FROM t", OutputKind::Forward);
    let stream = client
        .session()
        .run_stages(request(1, "a", &[forward, endless.clone()]))
        .await;
    let mut stream = stream.unwrap();
    assert!(client.release_query(vec![1; 16]).await.unwrap());
    let error = remote(within(CANCEL_DEADLINE, stream.try_next()).await.unwrap_err());
    assert_eq!(error.kind, ExceptionType::Interrupt);
    assert!(!client.release_query(vec![1; 16]).await.unwrap());
    let again = client.session().run_stages(request(1, "a", &[endless])).await;
    assert_eq!(remote(again.unwrap_err()).kind, ExceptionType::Interrupt);
    workers.until_empty(CANCEL_DEADLINE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_worker_is_an_error_and_not_an_end() {
    let directory = tempfile::tempdir().unwrap();
    let mut killed = DucklingProcess::start(&directory.path().join("killed.db")).unwrap();
    let client = Client::connect(killed.options()).await.unwrap();
    let broadcast = HerdStage {
        destinations: to(&["b"], 1),
        ..stage(
            1,
            "SELECT range AS n, 'row ' || range AS s FROM range(1_000_000_000)",
            OutputKind::Broadcast,
        )
    };
    let mut stream = client
        .session()
        .run_stages(request(1, "a", &[broadcast]))
        .await
        .unwrap();
    let mut rows = client.read_exchange(exchange(1, "b", 0)).await.unwrap();
    within(DEADLINE, rows.try_next()).await.unwrap().unwrap();
    killed.kill().unwrap();
    loop {
        match within(DEADLINE, rows.try_next()).await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("it must not look like an end"),
            Err(error) => {
                assert!(matches!(error, ClientError::Lost { .. }), "{error:?}");
                break;
            }
        }
    }
    assert!(within(DEADLINE, stream.try_next()).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_left_when_the_coordinator_is_gone() {
    let workers = Workers::start().await;
    // As if killed: the connection is cut, and nothing is said.
    let lost = Client::connect(workers.ducklings[0].options()).await.unwrap();
    let broadcast = HerdStage {
        destinations: to(&["b"], 1),
        ..stage(1, "SELECT n, s FROM t", OutputKind::Broadcast)
    };
    let stream = lost.session().run_stages(request(1, "a", &[broadcast])).await.unwrap();
    let stream = within(DEADLINE, end(stream)).await;
    assert!(!workers.is_empty(), "it is kept for b");
    drop((stream, lost));
    workers.until_empty(CANCEL_DEADLINE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stages_of_one_query_see_one_snapshot() {
    let workers = Workers::start().await;
    let client = &workers.clients[0];
    // The second stage begins after the first one's rows are there to be read.
    let slow = "SELECT n, s FROM t WHERE n >= (SELECT 0 * count(*) FROM range(30_000_000) WHERE hash(range) = 1)";
    let broadcast = HerdStage {
        destinations: to(&["b"], 1),
        ..stage(1, slow, OutputKind::Broadcast)
    };
    let mut gather = stage(2, "SELECT count(*) AS n FROM t", OutputKind::Gather);
    gather.columns = columns(&[("n", "BIGINT")]);
    let session = client.open_session().await.unwrap();
    let mut stream = session.run_stages(request(1, "a", &[broadcast, gather])).await.unwrap();
    client.execute("INSERT INTO t VALUES (-1, 'late')").await.unwrap();
    let batches: Vec<RecordBatch> = (&mut stream).try_collect().await.unwrap();
    let seen = numbers(&batches)[0];
    assert_eq!(seen, read(client, exchange(1, "b", 0)).await.unwrap().len() as i64);
}

#[tokio::test(flavor = "multi_thread")]
async fn stages_run_in_the_sessions_transaction() {
    let workers = Workers::start().await;
    let session = workers.clients[0].open_session().await.unwrap();
    let count = |id| {
        let mut gather = stage(1, "SELECT count(*) AS n FROM t", OutputKind::Gather);
        gather.columns = columns(&[("n", "BIGINT")]);
        RunStagesRequest {
            begin_transaction: true,
            ..request(id, "a", &[gather])
        }
    };
    let seen = async |id| {
        let stream = session.run_stages(count(id)).await.unwrap();
        let batches: Vec<RecordBatch> = stream.try_collect().await.unwrap();
        numbers(&batches)[0]
    };
    assert_eq!(seen(1).await, 1000);
    workers.clients[0].execute("DELETE FROM t WHERE n < 10").await.unwrap();
    assert_eq!(seen(2).await, 1000);
    session.execute("COMMIT").await.unwrap();
    assert_eq!(number(&workers.clients[0], "SELECT count(*) FROM t").await, 990);
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_make_no_sense_are_refused() {
    let workers = Workers::start().await;
    let session = workers.clients[0].session();
    let good = request(1, "a", &[shuffle(SHUFFLE)]);
    let wrong = [
        RunStagesRequest {
            query_id: vec![1; 3].into(),
            ..good.clone()
        },
        RunStagesRequest {
            stages: vec![],
            ..good.clone()
        },
        RunStagesRequest {
            stages: vec![good.stages[0].clone(); 2],
            ..good.clone()
        },
        RunStagesRequest {
            stages: vec![good.stages[0].clone(); 1000],
            ..good.clone()
        },
        RunStagesRequest {
            stages: vec![stage(1, "SELECT 1", OutputKind::Gather), good.stages[0].clone()],
            ..good.clone()
        },
        RunStagesRequest {
            stages: vec![HerdStage {
                buckets: vec![9],
                ..good.stages[0].clone()
            }],
            ..good.clone()
        },
        RunStagesRequest {
            stages: vec![HerdStage {
                destinations: to(&["a"], u32::MAX),
                ..good.stages[0].clone()
            }],
            ..good.clone()
        },
        RunStagesRequest {
            exchanges: vec![
                HerdExchange {
                    stage: 7,
                    ..HerdExchange::default()
                };
                2
            ],
            ..good.clone()
        },
        RunStagesRequest {
            exchanges: vec![HerdExchange {
                stage: 7,
                columns: columns(&[("n", "BIGINT); DROP TABLE t; SELECT (1")]),
                ..HerdExchange::default()
            }],
            ..good.clone()
        },
    ];
    for request in wrong {
        let refused = within(DEADLINE, async { session.run_stages(request).await?.try_next().await }).await;
        let error = remote(refused.unwrap_err());
        assert!(
            matches!(
                error.kind,
                ExceptionType::InvalidInput | ExceptionType::Parser | ExceptionType::Interrupt
            ),
            "{error}"
        );
    }
    assert_eq!(number(&workers.clients[0], "SELECT count(*) FROM t").await, 1000);
    workers.until_empty(CANCEL_DEADLINE).await;
}

/// A coordinator with the three workers, under ids of their own.
struct Coordinator {
    duckling: LocalDuckling,
    workers: Workers,
    ids: Vec<duckherder_catalog::herd::placement::WorkerId>,
}

impl Coordinator {
    async fn start() -> Self {
        let workers = Workers::start().await;
        let duckling = LocalDuckling::start().unwrap();
        let client = Client::connect(duckling.options()).await.unwrap();
        let mut ids = Vec::new();
        for worker in &workers.ducklings {
            let request = RegisterWorkerRequest {
                address: format!("127.0.0.1:{}", worker.port()),
                ..RegisterWorkerRequest::default()
            };
            let answer = client.node().request(&request).await.unwrap();
            ids.push(duckherder_catalog::herd::placement::WorkerId(answer.worker_id));
        }
        Self { duckling, workers, ids }
    }

    fn session(&self) -> Arc<HerdSession> {
        HerdSession::new(Arc::clone(self.duckling.herd()))
    }

    fn gather(&self, sql: &str) -> duckherder_catalog::herd::query::HerdQuery {
        use duckherder_catalog::herd::query::{Column, Estimates, HerdQuery, Output, Stage};
        HerdQuery {
            stages: vec![Stage {
                id: 1,
                sql: sql.to_owned(),
                workers: self.ids.clone(),
                columns: vec![Column {
                    name: "n".to_owned(),
                    type_text: "BIGINT".to_owned(),
                }],
                output: Output::Gather,
                inputs: vec![],
                estimates: Estimates::default(),
            }],
            summary: None,
        }
    }
}

/// Runs `work` where DuckDB's threads would.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    within(DEADLINE, tokio::task::spawn_blocking(work)).await.unwrap()
}

fn drain(source: &dyn BatchSource) -> Result<Vec<i64>, RemoteError> {
    let mut batches = Vec::new();
    loop {
        match source.next(Duration::from_millis(20))? {
            Next::Batch(batch) => batches.push(batch),
            Next::Pending => {}
            Next::End => return Ok(numbers(&batches)),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_coordinator_gathers_from_all_workers() {
    let coordinator = Coordinator::start().await;
    let (session, query) = (coordinator.session(), coordinator.gather("SELECT n FROM t"));
    for _ in 0..2 {
        let (session, query) = (Arc::clone(&session), query.clone());
        let (rows, report) = blocking(move || {
            let source = session.gather(&query).unwrap();
            assert_eq!(source.schema().field(0).name(), "n");
            (drain(&*source).unwrap(), source.report())
        })
        .await;
        assert_eq!(rows, (0..3000).collect::<Vec<_>>());
        assert!(report[0].1.starts_with("3000 rows"), "{report:?}");
    }
    coordinator.workers.until_empty(CANCEL_DEADLINE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_error_names_its_worker_and_stops_the_others() {
    let coordinator = Coordinator::start().await;
    let sql = "SELECT CASE WHEN n = 1500 THEN error('no good') ELSE n END::BIGINT AS n FROM t, \
               range(CASE WHEN n BETWEEN 1000 AND 2000 THEN 1 ELSE 100_000_000_000 END)";
    let (session, query) = (coordinator.session(), coordinator.gather(sql));
    let error = blocking(move || session.gather(&query).and_then(|source| drain(&*source)).unwrap_err()).await;
    assert_eq!(error.kind, ExceptionType::InvalidInput);
    let worker = &coordinator.ids[1].0;
    let address = format!("127.0.0.1:{}", coordinator.workers.ducklings[1].port());
    assert_eq!(error.message, format!("worker {worker} at {address}: no good"));
    coordinator.workers.until_empty(CANCEL_DEADLINE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_or_cancelled_gather_stops_on_every_worker() {
    let coordinator = Coordinator::start().await;
    let rows = coordinator.gather("SELECT n FROM t, range(1_000_000_000)");
    let session = coordinator.session();
    let source = blocking({
        let session = Arc::clone(&session);
        move || session.gather(&rows).unwrap()
    })
    .await;
    assert!(!coordinator.workers.is_empty());
    drop(source);
    coordinator.workers.until_empty(CANCEL_DEADLINE).await;

    let (waiting, ids) = (Arc::clone(&session), coordinator.ids.clone());
    let waiting = tokio::task::spawn_blocking(move || waiting.execute_on(&ids, ENDLESS));
    let running = format!("SELECT count(*) FROM duckling_history() WHERE state = 'running' AND sql = '{ENDLESS}'");
    for client in &coordinator.workers.clients {
        let started = Instant::now();
        while number(client, &running).await == 0 {
            assert!(started.elapsed() < DEADLINE, "it does not begin");
        }
    }
    session.cancel();
    let error = within(CANCEL_DEADLINE, waiting).await.unwrap().unwrap_err();
    assert_eq!(error.kind, ExceptionType::Interrupt);
    for client in &coordinator.workers.clients {
        let started = Instant::now();
        while number(client, &running).await > 0 {
            assert!(started.elapsed() < CANCEL_DEADLINE, "it runs on");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn transactions_reach_the_workers_that_were_asked() {
    let coordinator = Coordinator::start().await;
    let (session, ids) = (coordinator.session(), coordinator.ids.clone());
    let count = async |index: usize| number(&coordinator.workers.clients[index], "SELECT count(*) FROM t").await;
    let two = ids[..2].to_vec();
    let changed = blocking({
        let (session, two) = (Arc::clone(&session), two.clone());
        move || {
            session.begin();
            session.execute_on(&two, "DELETE FROM t WHERE n % 1000 < 10").unwrap()
        }
    })
    .await;
    assert_eq!(changed, [(ids[0].clone(), 10), (ids[1].clone(), 10)]);
    assert_eq!((count(0).await, count(1).await), (1000, 1000));
    let rolled_back = Arc::clone(&session);
    blocking(move || rolled_back.rollback()).await;
    let committed = blocking({
        let (session, two) = (Arc::clone(&session), two.clone());
        move || {
            assert_eq!(session.commit().unwrap(), []);
            session.begin();
            session.execute_on(&two, "DELETE FROM t WHERE n % 1000 < 20").unwrap();
            session.commit().unwrap()
        }
    })
    .await;
    // In the order of their ids.
    let mut expected = two.clone();
    expected.sort();
    assert_eq!(committed, expected);
    assert_eq!((count(0).await, count(1).await, count(2).await), (980, 980, 1000));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_one_worker_refuses_says_who_has_committed() {
    let coordinator = Coordinator::start().await;
    let (session, ids) = (coordinator.session(), coordinator.ids.clone());
    for client in &coordinator.workers.clients {
        client.execute("CREATE TABLE u (n BIGINT PRIMARY KEY)").await.unwrap();
    }
    blocking({
        let (session, ids) = (Arc::clone(&session), ids.clone());
        move || {
            session.begin();
            session.execute_on(&ids, "INSERT INTO u VALUES (1)").unwrap();
        }
    })
    .await;
    // Somebody else is faster on the second worker.
    coordinator.workers.clients[1]
        .execute("INSERT INTO u VALUES (1)")
        .await
        .unwrap();
    let error = blocking(move || session.commit().unwrap_err()).await;
    assert_eq!(error.kind, ExceptionType::Transaction);
    let expected = format!("Committed: {}, {}; rolled back: {};", ids[0].0, ids[2].0, ids[1].0);
    let expected = [
        expected,
        format!("Committed: {}, {}; rolled back: {};", ids[2].0, ids[0].0, ids[1].0),
    ];
    assert!(
        expected.iter().any(|expected| error.message.contains(expected)),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_is_gone_is_named() {
    let mut coordinator = Coordinator::start().await;
    let session = coordinator.session();
    let query = coordinator.gather("SELECT n FROM t");
    let first = blocking({
        let (session, query) = (Arc::clone(&session), query.clone());
        move || session.gather(&query).and_then(|source| drain(&*source))
    });
    assert_eq!(first.await.unwrap().len(), 3000);
    let gone = coordinator.workers.ducklings.remove(1);
    within(DEADLINE, gone.stop()).await.unwrap();
    let error = blocking(move || session.gather(&query).and_then(|source| drain(&*source)).unwrap_err()).await;
    assert_eq!(error.kind, ExceptionType::Connection);
    assert!(error.message.contains(&coordinator.ids[1].0), "{error}");
    coordinator.workers.until_empty(CANCEL_DEADLINE).await;
}

/// The exchange of [`shuffle`], read by all three.
fn shuffled() -> HerdExchange {
    HerdExchange {
        stage: 1,
        columns: columns(&[("n", "BIGINT"), ("s", "VARCHAR")]),
        producers: NAMES.map(str::to_owned).to_vec(),
        ..HerdExchange::default()
    }
}

impl Workers {
    /// Starts the stages on all three at once, and reads what each gathers.
    async fn gather(
        &self,
        id: u8,
        stages: &[HerdStage],
        exchanges: &[HerdExchange],
    ) -> Vec<Result<Vec<i64>, ClientError>> {
        let parts = NAMES.iter().zip(&self.clients).map(|(name, client)| async move {
            let request = RunStagesRequest {
                addresses: self.addresses(),
                exchanges: exchanges.to_vec(),
                ..request(id, name, stages)
            };
            let mut stream = client.session().run_stages(request).await?;
            let batches: Vec<RecordBatch> = (&mut stream).try_collect().await?;
            Ok((numbers(&batches), stream))
        });
        // As a coordinator does, the streams are kept until all have ended.
        let ended = within(DEADLINE, futures::future::join_all(parts)).await;
        ended.into_iter().map(|part| part.map(|(rows, _stream)| rows)).collect()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn stages_read_the_rows_of_all_workers() {
    let limits = [
        Limits::default(),
        Limits {
            exchange_memory_bytes: 10_000,
            read_ahead_bytes: 10_000,
            ..Limits::default()
        },
    ];
    for limits in limits {
        let workers = Workers::start_with(limits).await;
        let stages = [
            shuffle(SHUFFLE),
            stage(2, "SELECT n, s FROM duckherder_exchange(1)", OutputKind::Gather),
        ];
        let mut all = Vec::new();
        for rows in workers.gather(1, &stages, &[shuffled()]).await {
            let rows = rows.unwrap();
            assert!(rows.len() > 500 && rows.len() < 1500, "{}", rows.len());
            all.extend(rows);
        }
        all.sort_unstable();
        assert_eq!(all, (0..3000).collect::<Vec<_>>());
        workers.until_empty(CANCEL_DEADLINE).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn all_types_go_through_an_exchange() {
    let workers = Workers::start().await;
    let values = "SELECT range AS n, {'a': range, 'b': [range::VARCHAR, NULL]} AS s1, \
                  CASE WHEN range % 3 > 0 THEN 'x' ELSE 'y' END::ENUM('x', 'y') AS s2, \
                  MAP {range: 'v'} AS s3, union_value(k := range) AS s4, [range, range]::BIGINT[2] AS s5, \
                  range::HUGEINT * 1_000_000_000_000_000_000_000_000_000 AS s6, range::VARCHAR::BLOB AS s7, \
                  INTERVAL (range) DAY AS s8, uuid() AS s9, range::DECIMAL(30, 3) AS s10, '101'::BIT AS s11, \
                  DATE '2020-01-01' + range::INTEGER AS s12, NULL::INTEGER AS s13, 12345678901234567890::BIGNUM AS s14, \
                  TIMESTAMPTZ '2020-01-01 00:00:00+00' AS s15, range::VARCHAR::JSON AS s16, range::VARIANT AS s17, \
                  range::UHUGEINT AS s18, TIMETZ '12:00:00+01' AS s19, range::VARCHAR COLLATE nocase AS s20";
    let client = &workers.clients[0];
    let described = client
        .session()
        .describe(format!("{values} FROM range(1)"))
        .await
        .unwrap()
        .columns;
    let names: Vec<_> = described.iter().map(|column| column.name.clone()).collect();
    let names = names.join(", ");
    for client in &workers.clients {
        client
            .execute(format!("CREATE TABLE v AS {values} FROM range(500)"))
            .await
            .unwrap();
    }
    let shuffled = HerdExchange {
        columns: described.clone(),
        ..shuffled()
    };
    let mut first = shuffle(&format!("SELECT {names}, hash(n) % 8 FROM v"));
    first.columns = described;
    // Equal to what the worker has itself: all three have the same, but for the UUIDs.
    let same = names.replace(", s9", "");
    let sql = format!(
        "SELECT count(*) AS n FROM (SELECT {same} FROM duckherder_exchange(1) EXCEPT SELECT {same} FROM v) \
         UNION ALL SELECT count(*) FROM duckherder_exchange(1)"
    );
    let mut second = stage(2, &sql, OutputKind::Gather);
    second.columns = columns(&[("n", "BIGINT")]);
    first.destinations = to(&NAMES, 2);
    let mut rows = 0;
    for found in workers.gather(1, &[first, second], &[shuffled]).await {
        let found = found.unwrap();
        assert_eq!(found[0], 0);
        rows += found[1];
    }
    assert_eq!(rows, 1500);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peers_error_is_told_with_its_name() {
    let workers = Workers::start().await;
    workers.clients[1]
        .execute("UPDATE t SET n = -1 WHERE n = 1999")
        .await
        .unwrap();
    let failing = shuffle("SELECT n, s, CASE WHEN n < 0 THEN error('no good') ELSE hash(n) % 8 END FROM t");
    let stages = [
        failing,
        stage(2, "SELECT n, s FROM duckherder_exchange(1)", OutputKind::Gather),
    ];
    let address = &workers.addresses()["b"];
    for (name, outcome) in NAMES.iter().zip(workers.gather(1, &stages, &[shuffled()]).await) {
        let error = remote(outcome.unwrap_err());
        assert_eq!(error.kind, ExceptionType::InvalidInput, "{error}");
        if *name == "b" {
            assert_eq!(error.message, "no good");
        } else {
            assert_eq!(error.message, format!("worker b at {address}: no good"));
            assert_eq!(error.extra_info["herd_worker"], "b");
        }
    }
    workers.until_empty(CANCEL_DEADLINE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exchange_that_is_read_too_often_or_not_planned_is_an_error() {
    let workers = Workers::start().await;
    for (id, sql) in [
        (
            1,
            "SELECT n, s FROM duckherder_exchange(1) UNION ALL SELECT n, s FROM duckherder_exchange(1)",
        ),
        (2, "SELECT n, s FROM duckherder_exchange(7)"),
    ] {
        let stages = [shuffle(SHUFFLE), stage(2, sql, OutputKind::Gather)];
        for outcome in workers.gather(id, &stages, &[shuffled()]).await {
            let error = remote(outcome.unwrap_err());
            assert_eq!(error.kind, ExceptionType::InvalidInput, "{error}");
        }
        workers.until_empty(CANCEL_DEADLINE).await;
    }
    let outside = workers.clients[0].execute("SELECT * FROM duckherder_exchange(1)").await;
    assert_eq!(remote(outside.unwrap_err()).kind, ExceptionType::InvalidInput);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stage_that_waits_for_a_peer_can_be_cancelled() {
    let workers = Workers::start().await;
    let client = &workers.clients[0];
    let request = RunStagesRequest {
        addresses: workers.addresses(),
        exchanges: vec![shuffled()],
        ..request(
            1,
            "a",
            &[
                shuffle(SHUFFLE),
                stage(2, "SELECT n, s FROM duckherder_exchange(1)", OutputKind::Gather),
            ],
        )
    };
    // The other two never hear of the query.
    let stream = within(DEADLINE, client.session().run_stages(request)).await.unwrap();
    assert!(!workers.is_empty());
    drop(stream);
    workers.until_empty(CANCEL_DEADLINE).await;
    let running = "SELECT count(*) FROM duckling_history() WHERE state = 'running' AND sql LIKE '%duckherder_exchange%' \
                   AND sql NOT LIKE '%duckling_history%'";
    let started = Instant::now();
    while number(client, running).await > 0 {
        assert!(started.elapsed() < CANCEL_DEADLINE, "it runs on");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_killed_in_the_middle_fails_its_readers() {
    let workers = Workers::start().await;
    let directory = tempfile::tempdir().unwrap();
    let mut killed = DucklingProcess::start(&directory.path().join("killed.db")).unwrap();
    let peer = Client::connect(killed.options()).await.unwrap();
    let broadcast = HerdStage {
        destinations: to(&["a"], 1),
        ..stage(
            1,
            "SELECT range AS n, 'row ' || range AS s FROM range(1_000_000_000)",
            OutputKind::Broadcast,
        )
    };
    let _made = peer
        .session()
        .run_stages(request(1, "killed", &[broadcast]))
        .await
        .unwrap();
    let address = format!("127.0.0.1:{}", killed.port());
    let mut reading = stage(2, "SELECT n, s FROM duckherder_exchange(1)", OutputKind::Gather);
    reading.columns = columns(&[("n", "BIGINT"), ("s", "VARCHAR")]);
    let request = RunStagesRequest {
        addresses: BTreeMap::from([("killed".to_owned(), address.clone())]),
        exchanges: vec![HerdExchange {
            producers: vec!["killed".to_owned()],
            ..shuffled()
        }],
        ..request(1, "a", &[reading])
    };
    let mut stream = within(DEADLINE, workers.clients[0].session().run_stages(request))
        .await
        .unwrap();
    within(DEADLINE, stream.try_next()).await.unwrap().unwrap();
    killed.kill().unwrap();
    let error = loop {
        match within(DEADLINE, stream.try_next()).await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("it must not look like an end"),
            Err(error) => break remote(error),
        }
    };
    assert_eq!(error.kind, ExceptionType::Connection, "{error}");
    assert!(
        error
            .message
            .starts_with(&format!("worker killed at {address}: lost the connection")),
        "{error}"
    );
    workers.until_empty(CANCEL_DEADLINE).await;
}
