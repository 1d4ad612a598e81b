//! What a herd does when the network between two of its workers fails, when a worker is slow, and when a disk is full.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use duckherder_client::{Client, ClientError, ExceptionType, RemoteError};
use duckherder_tests::duckling::{LocalDuckling, config};
use duckling_server::herd::JoinConfig;
use duckling_server::{DucklingConfig, Limits};
use futures::TryStreamExt;

use crate::proxy::{Link, Proxy};
use crate::support::{DEADLINE, number, remote, within};

/// How long a cancelled query may still be there, on any node.
const CANCEL_DEADLINE: Duration = Duration::from_secs(1);

/// A coordinator and three workers, the first of which is reached through a proxy. Workers join by themselves, so that
/// their signs of life take another way.
struct Herd {
    coordinator: LocalDuckling,
    client: Client,
    workers: Vec<LocalDuckling>,
    proxy: Proxy,
}

impl Herd {
    async fn start() -> Self {
        Self::start_with(DucklingConfig::default()).await
    }

    /// With the limits, and the directory of exchanges, of `worker`.
    async fn start_with(worker: DucklingConfig) -> Self {
        let coordinator = LocalDuckling::start().unwrap();
        let client = Client::connect(coordinator.options()).await.unwrap();
        let mut workers = Vec::new();
        for _ in 0..3 {
            let config = DucklingConfig {
                limits: Limits {
                    drain_timeout: config().limits.drain_timeout,
                    ..worker.limits.clone()
                },
                exchange_directory: worker.exchange_directory.clone(),
                ..config()
            };
            workers.push(LocalDuckling::start_with(config).unwrap());
        }
        let proxy = Proxy::start(workers[0].port()).await;
        for (number, worker) in workers.iter().enumerate() {
            let port = if number == 0 { proxy.port } else { worker.port() };
            let join = JoinConfig {
                coordinator: format!("127.0.0.1:{}", coordinator.port()),
                advertise: Some(format!("127.0.0.1:{port}")),
            };
            let registry = worker.herd().registry();
            let id = registry.own_id();
            registry.join_as(&join, id).await.unwrap();
        }
        let herd = Self {
            coordinator,
            client,
            workers,
            proxy,
        };
        herd.run("CREATE TABLE t (k BIGINT, v BIGINT, s VARCHAR) PARTITIONED BY (k) WITH (partitions = 6)")
            .await;
        herd.run("INSERT INTO t SELECT i, (i * 7919) % 100_000, repeat('x', 50) FROM range(100_000) r(i)")
            .await;
        // Now the coordinator has a connection to every worker, and workers have none to each other.
        assert_eq!(number(&herd.client, COUNT).await, 100_000);
        herd
    }

    async fn run(&self, sql: &str) {
        let outcome = within(2 * DEADLINE, self.client.execute(sql)).await;
        outcome.unwrap_or_else(|error| panic!("{sql}\n{error}"));
    }

    async fn error(&self, sql: &str) -> RemoteError {
        match within(2 * DEADLINE, self.client.execute(sql)).await {
            Ok(_) => panic!("no error: {sql}"),
            Err(error) => remote(error),
        }
    }

    /// The first worker's name and address, as errors have them.
    fn behind_proxy(&self) -> String {
        let id = self.workers[0].herd().registry().own_id();
        format!("worker {} at 127.0.0.1:{}", id.0, self.proxy.port)
    }

    fn is_empty(&self) -> bool {
        let all = self.workers.iter().chain([&self.coordinator]);
        all.map(|duckling| duckling.herd().exchanges().holdings())
            .all(|holdings| {
                let taken = holdings.taken;
                (holdings.queries, taken.memory_bytes, taken.disk_bytes) == (0, 0, 0)
            })
    }

    /// Nothing of a query is left on any node, soon.
    async fn until_empty(&self) {
        let started = Instant::now();
        while !self.is_empty() {
            assert!(started.elapsed() < CANCEL_DEADLINE, "something is left behind");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// All is as it was, and the herd works.
    async fn works(&self) {
        self.until_empty().await;
        self.proxy.becomes(Link::Good);
        assert_eq!(number(&self.client, COUNT).await, 100_000);
        assert_eq!(within(DEADLINE, number(&self.client, SHUFFLE)).await, 100_000);
        let tier =
            "SELECT count(*) FROM duckling_execution_stats() WHERE execution_mode LIKE '%shuffle%' AND error IS NULL";
        assert!(number(&self.client, tier).await > 0, "workers send each other nothing");
    }
}

const COUNT: &str = "SELECT count(*) FROM t";

/// Every worker has rows for all others.
const SHUFFLE: &str = "SELECT count(*) FROM (SELECT a.s || b.s AS s FROM t a JOIN t b ON a.v = b.v) WHERE s <> ''";

#[tokio::test(flavor = "multi_thread")]
async fn workers_that_do_not_reach_each_other_are_both_named() {
    let herd = Herd::start().await;
    herd.proxy.becomes(Link::CutAfter(0));
    let started = Instant::now();
    let error = herd.error(SHUFFLE).await;
    assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
    assert_eq!(error.kind, ExceptionType::Connection, "{error}");
    assert!(error.message.starts_with(&herd.behind_proxy()), "{error}");
    let readers = herd.workers[1..]
        .iter()
        .map(|worker| worker.herd().registry().own_id().0);
    assert!(
        readers
            .into_iter()
            .any(|reader| error.message.contains(&format!("worker {reader} was reading"))),
        "{error}"
    );
    // The coordinator reaches all of them.
    assert_eq!(number(&herd.client, COUNT).await, 100_000);
    herd.works().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_between_workers_that_breaks_in_the_middle_ends_the_query() {
    let herd = Herd::start().await;
    // Enough to begin with, and not all.
    herd.proxy.becomes(Link::CutAfter(200_000));
    let error = herd.error(SHUFFLE).await;
    assert_eq!(error.kind, ExceptionType::Connection, "{error}");
    assert!(error.message.starts_with(&herd.behind_proxy()), "{error}");
    herd.works().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_query_over_a_link_that_has_gone_silent_can_be_cancelled() {
    let herd = Herd::start().await;
    herd.proxy.becomes(Link::SilentAfter(200_000));
    let waiting = async {
        let rows = herd.client.query(SHUFFLE).await?;
        rows.try_collect::<Vec<_>>().await
    };
    let outcome = tokio::time::timeout(Duration::from_secs(2), waiting).await;
    assert!(outcome.is_err(), "it does not wait for what does not come: {outcome:?}");
    // What waits is dropped, and with it the query, on all nodes.
    herd.works().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_cannot_be_connected_to_is_given_up() {
    let herd = Herd::start().await;
    herd.proxy.becomes(Link::SilentAfter(0));
    let error = herd.error(SHUFFLE).await;
    assert!(error.message.starts_with(&herd.behind_proxy()), "{error}");
    herd.works().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_worker_is_waited_for() {
    let herd = Herd::start().await;
    herd.proxy.becomes(Link::Slow(Duration::from_millis(20)));
    // For the coordinator too.
    herd.proxy.spares(0);
    let started = Instant::now();
    assert_eq!(within(3 * DEADLINE, number(&herd.client, SHUFFLE)).await, 100_000);
    assert!(started.elapsed() > Duration::from_millis(100), "nothing was slow");
    herd.run("UPDATE t SET s = 'y' WHERE k < 10").await;
    herd.works().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_fit_nowhere_end_the_query_and_leave_nothing() {
    let little = Limits {
        exchange_memory_bytes: 64 * 1024,
        exchange_disk_bytes: 256 * 1024,
        ..Limits::default()
    };
    let no_directory = Limits {
        exchange_disk_bytes: Limits::default().exchange_disk_bytes,
        ..little.clone()
    };
    let missing = PathBuf::from("/proc/no/such/directory");
    for (limits, directory, kind, words) in [
        (little, None, ExceptionType::OutOfMemory, "of disk, their limit"),
        (
            no_directory,
            Some(missing),
            ExceptionType::Io,
            "/proc/no/such/directory",
        ),
    ] {
        let herd = Herd::start_with(DucklingConfig {
            limits,
            exchange_directory: directory,
            ..DucklingConfig::default()
        })
        .await;
        let error = herd.error(SHUFFLE).await;
        assert_eq!(error.kind, kind, "{error}");
        assert!(
            error.message.starts_with("worker ") && error.message.contains(words),
            "{error}"
        );
        herd.until_empty().await;
        assert_eq!(number(&herd.client, COUNT).await, 100_000);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_coordinator_that_goes_before_its_commit_has_changed_nothing() {
    let herd = Herd::start().await;
    let Herd {
        coordinator,
        client,
        workers,
        ..
    } = herd;
    let session = client.open_session().await.unwrap();
    session.execute("BEGIN").await.unwrap();
    session.execute("DELETE FROM t").await.unwrap();
    // Its sessions on the workers end with it, and so do their transactions.
    coordinator.stop().await.unwrap();
    let outcome: Result<_, ClientError> = session.execute("COMMIT").await;
    assert!(outcome.is_err());
    let mut rows = 0;
    for worker in &workers {
        let direct = Client::connect(worker.options()).await.unwrap();
        rows += number(&direct, COUNT).await;
    }
    assert_eq!(rows, 100_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_the_coordinator_loses_in_a_transaction_rolls_it_back() {
    let limits = Limits {
        gone_client_timeout: Duration::from_millis(100),
        ..Limits::default()
    };
    let herd = Herd::start_with(DucklingConfig {
        limits,
        ..DucklingConfig::default()
    })
    .await;
    let session = herd.client.open_session().await.unwrap();
    session.execute("BEGIN").await.unwrap();
    session.execute("UPDATE t SET v = 0").await.unwrap();
    herd.proxy.spares(0);
    herd.proxy.cut();
    let direct = Client::connect(herd.workers[0].options()).await.unwrap();
    let mut conflicts = 0;
    within(DEADLINE, async {
        while let Err(error) = direct.execute("UPDATE t SET v = v").await {
            let error = remote(error);
            assert!(error.message.contains("Conflict"), "{error}");
            conflicts += 1;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    assert!(conflicts > 0, "the worker has not waited for the coordinator");
    herd.proxy.becomes(Link::Good);
    // It is found before the others commit.
    let error = remote(session.execute("COMMIT").await.unwrap_err());
    assert!(error.message.starts_with(&herd.behind_proxy()), "{error}");
    assert_eq!(number(&herd.client, "SELECT count(*) FROM t WHERE v < 2").await, 2);
    herd.works().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_changed_on_a_worker_that_goes_before_the_commit_is_committed_nowhere() {
    let mut herd = Herd::start().await;
    let session = herd.client.open_session().await.unwrap();
    session.execute("BEGIN").await.unwrap();
    session.execute("DELETE FROM t").await.unwrap();
    let gone = herd.workers.remove(1);
    let name = gone.herd().registry().own_id().0;
    gone.stop().await.unwrap();
    let error = remote(session.execute("COMMIT").await.unwrap_err());
    assert!(error.message.contains(&name), "{error}");
    assert!(!error.message.contains("on a part of the workers"), "{error}");
    for worker in &herd.workers {
        let direct = Client::connect(worker.options()).await.unwrap();
        assert!(number(&direct, COUNT).await > 30_000);
    }
}
