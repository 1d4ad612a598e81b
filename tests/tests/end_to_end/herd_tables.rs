//! Tables of a herd: their definitions, and changes of their rows.

use std::collections::BTreeMap;
use std::path::Path;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::Int64Type;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use duckherder_client::{Client, ClientError, ExceptionType, IngestMode, IngestTarget, RemoteError};
use duckherder_proto::v1::RegisterWorkerRequest;
use duckherder_tests::duckdb::DuckDb;
use duckherder_tests::duckling::{LocalDuckling, config};
use futures::{TryStreamExt, stream};

use crate::support::{batch, number, remote};

/// A coordinator and its workers, all in this process.
struct Herd {
    coordinator: Option<LocalDuckling>,
    client: Client,
    workers: Vec<Option<LocalDuckling>>,
    /// To each worker, past the coordinator.
    direct: Vec<Client>,
}

impl Herd {
    async fn start(workers: usize) -> Self {
        Self::start_in(None, workers).await
    }

    /// With database files in `directory`, if there is one.
    async fn start_in(directory: Option<&Path>, workers: usize) -> Self {
        let start = |name: String| {
            let mut config = config();
            if let Some(directory) = directory {
                config.database = directory.join(name).to_string_lossy().into_owned();
            }
            LocalDuckling::start_with(config).unwrap()
        };
        let coordinator = start("coordinator.duckdb".to_owned());
        let client = Client::connect(coordinator.options()).await.unwrap();
        let mut herd = Self {
            coordinator: Some(coordinator),
            client,
            workers: Vec::new(),
            direct: Vec::new(),
        };
        for number in 0..workers {
            let worker = start(format!("worker{number}.duckdb"));
            let request = RegisterWorkerRequest {
                address: format!("127.0.0.1:{}", worker.port()),
                ..RegisterWorkerRequest::default()
            };
            herd.client.node().request(&request).await.unwrap();
            herd.direct.push(Client::connect(worker.options()).await.unwrap());
            herd.workers.push(Some(worker));
        }
        herd
    }

    async fn stop(mut self) {
        drop((self.client, self.direct));
        for worker in self.workers.iter_mut().filter_map(Option::take) {
            worker.stop().await.unwrap();
        }
        if let Some(coordinator) = self.coordinator.take() {
            coordinator.stop().await.unwrap();
        }
    }

    async fn run(&self, sql: &str) -> u64 {
        self.client
            .execute(sql)
            .await
            .unwrap_or_else(|error| panic!("{sql}\n{error}"))
    }

    async fn error(&self, sql: &str) -> RemoteError {
        match self.client.execute(sql).await {
            Ok(_) => panic!("no error: {sql}"),
            Err(error) => remote(error),
        }
    }

    /// Refused with a message that says so.
    async fn refused(&self, sql: &str, words: &str) {
        let error = self.error(sql).await;
        assert!(error.message.contains(words), "{sql}\n{error}");
    }

    /// What a query yields on each worker, rows as text, sorted.
    async fn on_workers(&self, sql: &str) -> Vec<Vec<String>> {
        let mut all = Vec::new();
        for client in &self.direct {
            all.push(texts(client, sql).await);
        }
        all
    }

    /// The rows of all workers, sorted.
    async fn everywhere(&self, sql: &str) -> Vec<String> {
        let mut all = self.on_workers(sql).await.concat();
        all.sort();
        all
    }

    async fn counts(&self, table: &str) -> Vec<i64> {
        let mut all = Vec::new();
        for client in &self.direct {
            all.push(number(client, &format!("SELECT count(*) FROM {table}")).await);
        }
        all
    }

    /// Whether no row is on a worker that is not that of its hash.
    async fn is_placed(&self, table: &str, keys: &str, partitions: usize) {
        let mut owner: BTreeMap<i64, usize> = BTreeMap::new();
        for (worker, client) in self.direct.iter().enumerate() {
            let sql = format!("SELECT DISTINCT (hash(hash({keys})) % {partitions}::UBIGINT)::BIGINT FROM {table}");
            let batches: Vec<RecordBatch> = client.query(sql).await.unwrap().try_collect().await.unwrap();
            for bucket in batches
                .iter()
                .flat_map(|batch| batch.column(0).as_primitive::<Int64Type>().values())
            {
                let other = owner.insert(*bucket, worker);
                assert_eq!(other, None, "bucket {bucket} of {table} is on two workers");
            }
        }
        // The order of the workers is theirs, but partition b and b + n have the same one.
        for (bucket, worker) in &owner {
            if let Some(other) = owner.get(&(bucket % self.direct.len() as i64)) {
                assert_eq!(worker, other, "bucket {bucket} of {table}");
            }
        }
    }

    /// Whether the coordinator's own table of that name, read without the herd, has no rows.
    async fn is_empty_here(&self, table: &str) {
        let sql = format!("SELECT estimated_size FROM duckdb_tables() WHERE table_name = '{table}'");
        assert_eq!(number(&self.client, &sql).await, 0, "{table}");
    }
}

/// All rows as text, sorted.
pub async fn texts(client: &Client, sql: &str) -> Vec<String> {
    let batches: Vec<RecordBatch> = client.query(sql).await.unwrap().try_collect().await.unwrap();
    let options = FormatOptions::new().with_null("NULL");
    let mut rows = Vec::new();
    for batch in &batches {
        let columns: Vec<_> = batch
            .columns()
            .iter()
            .map(|column| ArrayFormatter::try_new(column, &options).unwrap())
            .collect();
        rows.extend((0..batch.num_rows()).map(|row| {
            let values: Vec<_> = columns.iter().map(|column| column.value(row).to_string()).collect();
            format!("({})", values.join(", "))
        }));
    }
    rows.sort();
    rows
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_are_where_their_hash_says() {
    let herd = Herd::start(3).await;
    herd.run("CREATE TABLE t (k BIGINT, s VARCHAR) PARTITIONED BY (k) WITH (partitions = 7)")
        .await;
    assert_eq!(
        herd.run("INSERT INTO t SELECT range, 'row ' || range FROM range(10_000)")
            .await,
        10_000
    );
    assert_eq!(herd.run("INSERT INTO t VALUES (NULL, 'nothing'), (-1, NULL)").await, 2);
    assert_eq!(herd.counts("t").await.iter().sum::<i64>(), 10_002);
    assert!(herd.counts("t").await.iter().all(|count| *count > 1000));
    herd.is_placed("t", "k", 7).await;
    herd.is_empty_here("t").await;
    // By several keys, of several types.
    herd.run(
        "CREATE TABLE u (a DOUBLE, b VARCHAR, c DECIMAL(30,3), n INTEGER) PARTITIONED BY (b, a) WITH (partitions = 16)",
    )
    .await;
    herd.run(
        "INSERT INTO u SELECT CASE WHEN range % 3 = 0 THEN -0.0 WHEN range % 3 = 1 THEN 0.0 ELSE 'nan'::DOUBLE END, \
         'key ' || range % 50, range, range FROM range(5000)",
    )
    .await;
    assert_eq!(herd.counts("u").await.iter().sum::<i64>(), 5000);
    herd.is_placed("u", "b, a", 16).await;
    // Zeros are equal, whatever their sign.
    let zeros = "SELECT DISTINCT b FROM u WHERE a = 0.0 AND b = 'key 7'";
    assert_eq!(herd.everywhere(zeros).await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_way_to_spread_a_table() {
    let herd = Herd::start(3).await;
    herd.run("CREATE TABLE even (n BIGINT) WITH (partitions = 6)").await;
    herd.run("INSERT INTO even SELECT * FROM range(6000)").await;
    let counts = herd.counts("even").await;
    assert!(counts.iter().all(|count| (1500..2500).contains(count)), "{counts:?}");
    for n in 0..30 {
        herd.run(&format!("INSERT INTO even VALUES ({n})")).await;
    }
    assert_eq!(herd.counts("even").await.iter().sum::<i64>(), 6030);

    herd.run("CREATE TABLE everywhere (n BIGINT, s VARCHAR) WITH (distribution = 'replicated')")
        .await;
    assert_eq!(
        herd.run("INSERT INTO everywhere SELECT range, range FROM range(100)")
            .await,
        100
    );
    assert_eq!(herd.counts("everywhere").await, [100, 100, 100]);

    herd.run("CREATE TABLE by_key (a INTEGER, b INTEGER PRIMARY KEY) WITH (partitions = 4)")
        .await;
    herd.run("INSERT INTO by_key SELECT range, range FROM range(100)").await;
    herd.is_placed("by_key", "b", 4).await;

    herd.run("CREATE TABLE s AS SELECT range AS n, range % 10 AS k FROM range(1000)")
        .await;
    assert_eq!(
        herd.run("CREATE TABLE copied PARTITIONED BY (k) WITH (partitions = 5) AS FROM s")
            .await,
        1000
    );
    herd.is_placed("copied", "k", 5).await;
    assert_eq!(herd.counts("copied").await.iter().sum::<i64>(), 1000);
    herd.run("CREATE OR REPLACE TABLE copied PARTITIONED BY (n) AS SELECT n, k FROM s WHERE n < 10")
        .await;
    assert_eq!(herd.counts("copied").await.iter().sum::<i64>(), 10);
    herd.run("CREATE TABLE IF NOT EXISTS copied PARTITIONED BY (k) AS FROM s")
        .await;
    assert_eq!(herd.counts("copied").await.iter().sum::<i64>(), 10);
    herd.refused("CREATE TABLE copied (i INTEGER) PARTITIONED BY (i)", "already exists")
        .await;
    herd.run("CREATE TABLE no_rows PARTITIONED BY (n) AS FROM s WITH NO DATA")
        .await;
    assert_eq!(herd.counts("no_rows").await, [0, 0, 0]);

    // Plain tables stay here, unless the herd has a default.
    herd.run("CREATE TABLE plain (n INTEGER)").await;
    assert_eq!(
        herd.everywhere("SELECT table_name FROM duckdb_tables() WHERE table_name = 'plain'")
            .await
            .len(),
        0
    );
    herd.run("SET duckherder_default_partitions = 4").await;
    herd.run("CREATE TABLE spread (n INTEGER)").await;
    herd.run("CREATE TABLE spread_by_key (n INTEGER PRIMARY KEY, m INTEGER)")
        .await;
    herd.run("CREATE TABLE not_spread (n INTEGER UNIQUE, m INTEGER)").await;
    herd.run("INSERT INTO spread SELECT * FROM range(100)").await;
    herd.run("INSERT INTO spread_by_key SELECT range, range FROM range(100)")
        .await;
    assert_eq!(herd.counts("spread").await.iter().sum::<i64>(), 100);
    herd.is_placed("spread_by_key", "n", 4).await;
    assert_eq!(
        herd.everywhere("SELECT table_name FROM duckdb_tables() WHERE table_name = 'not_spread'")
            .await
            .len(),
        0
    );
    herd.refused("SET duckherder_default_partitions = 5000", "at most 1024")
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_spread_is_refused() {
    let herd = Herd::start(2).await;
    for (sql, words) in [
        (
            "CREATE TABLE t (a INTEGER) PARTITIONED BY (a + 1)",
            "columns, not expressions",
        ),
        ("CREATE TABLE t (a INTEGER) PARTITIONED BY (b)", "does not have"),
        ("CREATE TABLE t (a INTEGER) PARTITIONED BY (a, a)", "twice"),
        ("CREATE TABLE t (a INTEGER[]) PARTITIONED BY (a)", "different hashes"),
        (
            "CREATE TABLE t (a VARCHAR COLLATE NOCASE) PARTITIONED BY (a)",
            "different hashes",
        ),
        (
            "CREATE TABLE t (a INTEGER, b AS (a + 1)) PARTITIONED BY (b)",
            "generated column",
        ),
        ("CREATE TABLE t (a INTEGER) WITH (partitions = 0)", "from 1 to 1024"),
        ("CREATE TABLE t (a INTEGER) WITH (partitions = 1025)", "from 1 to 1024"),
        (
            "CREATE TABLE t (a INTEGER) WITH (partitions = 'many')",
            "from 1 to 1024",
        ),
        ("CREATE TABLE t (a INTEGER) WITH (replicas = 2)", "unknown table option"),
        (
            "CREATE TABLE t (a INTEGER) WITH (distribution = 'random')",
            "'hash', 'even' or 'replicated'",
        ),
        (
            "CREATE TABLE t (a INTEGER) PARTITIONED BY (a) WITH (distribution = 'replicated')",
            "takes no PARTITIONED BY",
        ),
        (
            "CREATE TABLE t (a INTEGER PRIMARY KEY, b INTEGER) PARTITIONED BY (b)",
            "must contain all columns",
        ),
        (
            "CREATE TABLE t (a INTEGER UNIQUE) WITH (partitions = 2)",
            "spread evenly cannot have UNIQUE",
        ),
        (
            "CREATE TABLE t (a INTEGER) PARTITIONED BY (a) SORTED BY (a)",
            "SORTED BY",
        ),
    ] {
        herd.refused(sql, words).await;
    }
    herd.run("CREATE TABLE parent (a INTEGER PRIMARY KEY) PARTITIONED BY (a)")
        .await;
    herd.refused(
        "CREATE TABLE child (a INTEGER REFERENCES parent (a))",
        "FOREIGN KEY to the herd's table",
    )
    .await;
    herd.run("CREATE TABLE plain (a INTEGER PRIMARY KEY)").await;
    herd.refused(
        "CREATE TABLE child (a INTEGER REFERENCES plain (a)) PARTITIONED BY (a)",
        "FOREIGN KEY",
    )
    .await;
    // Nothing of it was made anywhere.
    let sql = "SELECT table_name FROM duckdb_tables() WHERE table_name NOT IN ('parent', 'plain') AND NOT internal \
               AND schema_name = 'main'";
    assert_eq!(texts(&herd.client, sql).await.len(), 0);
    assert_eq!(herd.everywhere(sql).await.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_coordinator_without_workers_says_so() {
    let herd = Herd::start(0).await;
    herd.refused("CREATE TABLE t (a INTEGER) PARTITIONED BY (a)", "no live worker")
        .await;
    herd.run("CREATE TABLE t (a INTEGER)").await;
    herd.run("INSERT INTO t VALUES (1)").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn definitions_are_the_same_on_workers() {
    let herd = Herd::start(2).await;
    herd.run("CREATE SCHEMA shop").await;
    herd.run("CREATE TYPE mood AS ENUM ('sad', 'ok')").await;
    herd.run(
        "CREATE TABLE shop.t (id INTEGER PRIMARY KEY, m mood, j JSON, n INTEGER NOT NULL DEFAULT 7, \
         twice INTEGER AS (n * 2), s STRUCT(a INTEGER, b mood[]), CHECK (n < 100), UNIQUE (id, n)) \
         PARTITIONED BY (id) WITH (partitions = 4)",
    )
    .await;
    herd.run("INSERT INTO shop.t (id, m, j, s) VALUES (1, 'ok', '{\"x\": 1}', {'a': 1, 'b': ['sad', 'ok']}), (2, NULL, NULL, NULL)")
        .await;
    let rows = herd.everywhere("SELECT id, m, j, n, twice, s FROM shop.t").await;
    assert_eq!(rows.len(), 2);
    assert!(rows[0].contains("ok") && rows[0].contains("14"), "{rows:?}");
    for (sql, kind) in [
        ("INSERT INTO shop.t (id, n) VALUES (3, 100)", ExceptionType::Constraint),
        ("INSERT INTO shop.t (id) VALUES (1)", ExceptionType::Constraint),
        ("INSERT INTO shop.t (id, n) VALUES (3, NULL)", ExceptionType::Constraint),
        (
            "INSERT INTO shop.t (id, m) VALUES (3, 'glad')",
            ExceptionType::Conversion,
        ),
    ] {
        let error = herd.error(sql).await;
        assert_eq!(error.kind, kind, "{sql}\n{error}");
    }
    assert_eq!(herd.counts("shop.t").await.iter().sum::<i64>(), 2);
    herd.run("INSERT INTO shop.t BY NAME SELECT 5 AS n, 9 AS id").await;
    herd.run("INSERT INTO shop.t (n, id) VALUES (DEFAULT, 10), (3, 11)")
        .await;
    assert_eq!(
        herd.everywhere("SELECT id, n FROM shop.t WHERE id >= 9").await,
        ["(10, 7)", "(11, 3)", "(9, 5)"]
    );
    herd.run("DROP SCHEMA shop CASCADE").await;
    assert_eq!(
        herd.everywhere("SELECT table_name FROM duckdb_tables() WHERE schema_name = 'shop'")
            .await
            .len(),
        0
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_are_altered_everywhere() {
    let herd = Herd::start(2).await;
    herd.run("CREATE TABLE t (k INTEGER, a INTEGER, b VARCHAR) PARTITIONED BY (k) WITH (partitions = 4)")
        .await;
    herd.run("INSERT INTO t SELECT range, range * 2, 'b' || range FROM range(100)")
        .await;
    herd.run("ALTER TABLE t ADD COLUMN c INTEGER DEFAULT 5").await;
    herd.run("ALTER TABLE t ADD COLUMN d VARCHAR DEFAULT upper('x')").await;
    herd.run("ALTER TABLE t ADD COLUMN e INTEGER").await;
    herd.run("INSERT INTO t (k) VALUES (1000)").await;
    assert_eq!(
        herd.everywhere("SELECT DISTINCT c, d, e FROM t").await,
        ["(5, X, NULL)", "(5, X, NULL)"]
    );
    herd.run("ALTER TABLE t RENAME COLUMN a TO aa").await;
    herd.run("ALTER TABLE t ALTER COLUMN aa TYPE BIGINT USING aa + 1").await;
    herd.run("ALTER TABLE t DROP COLUMN b").await;
    herd.run("ALTER TABLE t ALTER COLUMN e SET DEFAULT 8").await;
    herd.run("UPDATE t SET aa = 1 WHERE aa IS NULL").await;
    herd.run("ALTER TABLE t ALTER COLUMN aa SET NOT NULL").await;
    herd.run("INSERT INTO t (k, aa) VALUES (1001, 3)").await;
    assert_eq!(
        herd.everywhere("SELECT k, aa, c, d, e FROM t WHERE k > 999 OR k = 4")
            .await,
        ["(1000, 1, 5, X, NULL)", "(1001, 3, 5, X, 8)", "(4, 9, 5, X, NULL)"]
    );
    for (sql, words) in [
        ("ALTER TABLE t DROP COLUMN k", "cannot be dropped"),
        ("ALTER TABLE t RENAME COLUMN K TO kk", "cannot be renamed"),
        (
            "ALTER TABLE t ALTER COLUMN k TYPE BIGINT",
            "cannot be given another type",
        ),
        ("ALTER TABLE t ADD PRIMARY KEY (aa)", "must contain all columns"),
        ("ALTER TABLE t ADD COLUMN z INTEGER DEFAULT nextval('q')", "sequence"),
        ("CREATE UNIQUE INDEX i ON t (aa)", "must contain all columns"),
    ] {
        let error = herd.error(sql).await;
        assert!(error.message.to_lowercase().contains(words), "{sql}\n{error}");
    }
    herd.run("CREATE INDEX by_aa ON t (aa)").await;
    herd.run("CREATE UNIQUE INDEX by_k ON t (k)").await;
    let error = herd.error("INSERT INTO t (k, aa) VALUES (4, 1)").await;
    assert_eq!(error.kind, ExceptionType::Constraint, "{error}");
    assert_eq!(
        herd.everywhere("SELECT index_name FROM duckdb_indexes()").await.len(),
        4
    );
    herd.run("DROP INDEX by_aa").await;
    assert_eq!(
        herd.everywhere("SELECT index_name FROM duckdb_indexes()").await,
        ["(by_k)", "(by_k)"]
    );
    herd.run("COMMENT ON TABLE t IS 'of the herd'").await;
    herd.run("COMMENT ON COLUMN t.aa IS 'twice'").await;
    herd.run("DROP INDEX by_k").await;
    herd.run("ALTER TABLE t RENAME TO tt").await;
    herd.run("INSERT INTO tt (k, aa) VALUES (2000, 1)").await;
    assert_eq!(herd.counts("tt").await.iter().sum::<i64>(), 103);
    herd.run("CREATE VIEW v AS SELECT k FROM tt").await;
    herd.run("DROP VIEW v").await;
    assert_eq!(herd.run("TRUNCATE tt").await, 103);
    assert_eq!(herd.counts("tt").await, [0, 0]);
    herd.run("DROP TABLE tt").await;
    herd.run("DROP TABLE IF EXISTS tt").await;
    assert_eq!(herd.everywhere("SELECT table_name FROM duckdb_tables()").await.len(), 0);
    // By other ways the two could come to differ.
    herd.run("CREATE TABLE t (k INTEGER) PARTITIONED BY (k)").await;
    herd.refused(
        "CREATE TRIGGER g AFTER INSERT ON t FOR EACH STATEMENT INSERT INTO t VALUES (1)",
        "triggers",
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn transactions_are_of_all_workers() {
    let herd = Herd::start(3).await;
    herd.run("CREATE TABLE t (k INTEGER) PARTITIONED BY (k)").await;
    herd.run("BEGIN").await;
    herd.run("CREATE TABLE u (k INTEGER) PARTITIONED BY (k)").await;
    herd.run("INSERT INTO t SELECT * FROM range(100)").await;
    herd.run("INSERT INTO u SELECT * FROM range(100)").await;
    herd.run("DELETE FROM t WHERE k < 10").await;
    assert_eq!(herd.counts("t").await, [0, 0, 0]);
    herd.run("ROLLBACK").await;
    assert_eq!(herd.counts("t").await, [0, 0, 0]);
    assert_eq!(
        herd.everywhere("SELECT table_name FROM duckdb_tables() WHERE table_name = 'u'")
            .await
            .len(),
        0
    );
    herd.run("BEGIN").await;
    herd.run("CREATE TABLE u (k INTEGER) PARTITIONED BY (k)").await;
    herd.run("INSERT INTO t SELECT * FROM range(100)").await;
    herd.run("INSERT INTO u SELECT * FROM range(100)").await;
    herd.run("UPDATE t SET k = k + 100 WHERE k < 50").await;
    herd.run("DELETE FROM t WHERE k < 60").await;
    herd.run("COMMIT").await;
    assert_eq!(herd.counts("t").await.iter().sum::<i64>(), 90);
    assert_eq!(herd.counts("u").await.iter().sum::<i64>(), 100);
    // A statement that fails on one worker leaves nothing on the others.
    herd.run("CREATE TABLE p (k INTEGER PRIMARY KEY) PARTITIONED BY (k)")
        .await;
    herd.run("INSERT INTO p VALUES (7)").await;
    let error = herd.error("INSERT INTO p SELECT * FROM range(1000)").await;
    assert_eq!(error.kind, ExceptionType::Constraint, "{error}");
    assert!(error.message.contains("worker "), "{error}");
    assert_eq!(herd.counts("p").await.iter().sum::<i64>(), 1);
    herd.run("BEGIN").await;
    herd.run("INSERT INTO t VALUES (1)").await;
    herd.error("INSERT INTO p VALUES (7)").await;
    let _ = herd.client.execute("COMMIT").await;
    let _ = herd.client.execute("ROLLBACK").await;
    assert_eq!(herd.counts("t").await.iter().sum::<i64>(), 90);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_worker_changes_its_own_rows() {
    let herd = Herd::start(3).await;
    herd.run("CREATE TABLE t (k INTEGER, a INTEGER, s VARCHAR) PARTITIONED BY (k) WITH (partitions = 8)")
        .await;
    herd.run("INSERT INTO t SELECT range, range % 10, 'row ' || range FROM range(1000)")
        .await;
    assert_eq!(herd.run("DELETE FROM t WHERE a = 3").await, 100);
    assert_eq!(herd.run("UPDATE t SET s = s || '!', a = a + 1 WHERE k < 100").await, 90);
    assert_eq!(herd.run("DELETE FROM t WHERE k = 5").await, 1);
    // With rows of elsewhere: plain tables, the herd's, the same table.
    herd.run("CREATE TABLE plain AS SELECT range AS k FROM range(10, 20)")
        .await;
    herd.run("CREATE TABLE other (id INTEGER, k INTEGER) PARTITIONED BY (id)")
        .await;
    herd.run("INSERT INTO other SELECT range, 900 + range FROM range(10)")
        .await;
    assert_eq!(herd.run("DELETE FROM t USING plain WHERE t.k = plain.k").await, 9);
    assert_eq!(
        herd.run("UPDATE t SET a = other.id FROM other WHERE other.k = t.k")
            .await,
        9
    );
    assert_eq!(
        herd.run("DELETE FROM t WHERE k IN (SELECT k FROM other WHERE id < 5)")
            .await,
        4
    );
    assert_eq!(herd.run("DELETE FROM t WHERE k > (SELECT max(k) - 3 FROM t)").await, 3);
    let left = herd.counts("t").await.iter().sum::<i64>();
    assert_eq!(left, 1000 - 100 - 1 - 9 - 4 - 3);
    herd.is_placed("t", "k", 8).await;
    herd.is_empty_here("t").await;
    assert_eq!(
        herd.everywhere("SELECT k, a, s FROM t WHERE k IN (4, 906)").await,
        ["(4, 5, row 4!)", "(906, 6, row 906)"]
    );
    // Parameters and RETURNING.
    let rows = texts(&herd.client, "DELETE FROM t WHERE k IN (20, 21) RETURNING k, s").await;
    assert_eq!(rows, ["(20, row 20!)", "(21, row 21!)"]);
    let rows = texts(
        &herd.client,
        "INSERT INTO t VALUES (5000, 1, 'x'), (5001, 2, 'y') RETURNING k + 1",
    )
    .await;
    assert_eq!(rows, ["(5001)", "(5002)"]);
    herd.run("PREPARE p AS UPDATE t SET s = $2 WHERE k = $1").await;
    for k in [30, 31] {
        herd.run(&format!("EXECUTE p({k}, 'prepared')")).await;
    }
    assert_eq!(
        herd.everywhere("SELECT k FROM t WHERE s = 'prepared'").await,
        ["(30)", "(31)"]
    );
    // Replicated tables are counted once, and their rows told once.
    herd.run("CREATE TABLE r (n INTEGER, s VARCHAR) WITH (distribution = 'replicated')")
        .await;
    herd.run("INSERT INTO r SELECT range, range FROM range(10)").await;
    assert_eq!(herd.run("UPDATE r SET s = 'x' WHERE n < 5").await, 5);
    assert_eq!(herd.run("DELETE FROM r WHERE n = 9").await, 1);
    assert_eq!(herd.counts("r").await, [9, 9, 9]);
    let rows = texts(&herd.client, "UPDATE r SET s = 'y' WHERE n >= 7 RETURNING n").await;
    assert_eq!(rows, ["(7)", "(8)"]);
    assert_eq!(
        herd.everywhere("SELECT count(*) FROM r WHERE s = 'y'").await,
        ["(2)", "(2)", "(2)"]
    );
    herd.refused("UPDATE r SET n = (random() * 10)::INTEGER", "replicated")
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_take_groups_of_several_sets() {
    let herd = Herd::start(2).await;
    herd.run("CREATE TABLE r (k INTEGER, many INTEGER) WITH (distribution = 'replicated')")
        .await;
    herd.run("INSERT INTO r SELECT k, 0 FROM range(5) i(k)").await;
    herd.run("CREATE TABLE t (k INTEGER, a INTEGER) PARTITIONED BY (a)")
        .await;
    herd.run("INSERT INTO t SELECT a % 5, a FROM range(100) i(a)").await;
    // DuckDB makes the larger groups of the smaller ones' states, in a CTE of its own.
    let groups = "SELECT k, a, count(*) AS many, bit_xor(hash(a)) AS x FROM t GROUP BY CUBE (k, a)";
    let update = format!("UPDATE r SET many = s.many FROM ({groups}) s WHERE r.k = s.k AND s.a IS NULL");
    assert_eq!(herd.run(&update).await, 5);
    for direct in &herd.direct {
        assert_eq!(number(direct, "SELECT count(*) FROM r WHERE many = 20").await, 5);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_whose_keys_change_move() {
    let herd = Herd::start(3).await;
    herd.run("CREATE TABLE t (k INTEGER, n INTEGER, twice AS (n * 2)) PARTITIONED BY (k) WITH (partitions = 16)")
        .await;
    herd.run("INSERT INTO t SELECT range, range FROM range(1000)").await;
    assert_eq!(herd.run("UPDATE t SET k = k + 1").await, 1000);
    herd.is_placed("t", "k", 16).await;
    assert_eq!(herd.counts("t").await.iter().sum::<i64>(), 1000);
    assert_eq!(
        herd.everywhere("SELECT count(*) FROM t WHERE k <> n + 1").await,
        ["(0)", "(0)", "(0)"]
    );
    herd.run("BEGIN").await;
    herd.run("UPDATE t SET k = -k WHERE k < 500").await;
    herd.run("ROLLBACK").await;
    assert_eq!(
        herd.everywhere("SELECT count(*) FROM t WHERE k < 0").await,
        ["(0)", "(0)", "(0)"]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_move_lose_no_change_of_others() {
    let herd = Herd::start(2).await;
    let other = herd.client.open_session().await.unwrap();
    for (more, change) in [
        ("a VARCHAR", "a = 'changed'"),
        ("a VARCHAR, b INTEGER, c INTEGER[]", "a = 'changed'"),
        ("a VARCHAR CHECK (a <> b), b VARCHAR, c INTEGER[]", "a = 'changed'"),
        ("a VARCHAR, c INTEGER[]", "c = [1]"),
        ("b VARCHAR[], a VARCHAR CHECK (len(b) < 9)", "a = 'changed'"),
    ] {
        let columns = format!("k INTEGER, {more}");
        herd.run("DROP TABLE IF EXISTS t").await;
        herd.run(&format!(
            "CREATE TABLE t ({columns}) PARTITIONED BY (k) WITH (partitions = 8)"
        ))
        .await;
        if more.contains("b INTEGER") {
            herd.run("CREATE INDEX i ON t (b)").await;
        }
        herd.run("INSERT INTO t (k) SELECT * FROM range(20)").await;
        let change = format!("UPDATE t SET {change}");
        let all = "SELECT count(*) FROM t";

        // Who moves them comes second, and then first.
        herd.run("BEGIN").await;
        assert_eq!(number(&herd.client, all).await, 20);
        assert_eq!(other.execute(&change).await.unwrap(), 20);
        let error = herd.error("UPDATE t SET k = k + 1").await;
        assert!(error.message.contains("Conflict on "), "{columns}: {error}");
        herd.run("ROLLBACK").await;
        other.execute("BEGIN").await.unwrap();
        other.execute(all).await.unwrap();
        assert_eq!(herd.run("UPDATE t SET k = k + 1").await, 20);
        let error = remote(other.execute(&change).await.unwrap_err());
        assert!(error.message.contains("Conflict on "), "{columns}: {error}");
        other.execute("ROLLBACK").await.unwrap();

        // One after the other.
        assert_eq!(herd.run("UPDATE t SET k = k + 1").await, 20);
        assert_eq!(other.execute(&change).await.unwrap(), 20);
        herd.is_placed("t", "k", 8).await;
        assert_eq!(number(&herd.client, "SELECT sum(k)::BIGINT FROM t").await, 230);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn conflicts_are_found_where_the_keys_are() {
    let herd = Herd::start(3).await;
    herd.run("CREATE TABLE p (k INTEGER PRIMARY KEY, s VARCHAR DEFAULT 'none', n INTEGER) WITH (partitions = 5)")
        .await;
    herd.run("INSERT INTO p SELECT range, 'old', range FROM range(100)")
        .await;
    assert_eq!(
        herd.run("INSERT INTO p SELECT range, 'new', 0 FROM range(50, 150) ON CONFLICT DO NOTHING")
            .await,
        50
    );
    let upsert =
        "INSERT INTO p VALUES (0, 'upserted', 1), (1000, 'upserted', 2) ON CONFLICT (k) DO UPDATE SET s = excluded.s";
    assert_eq!(herd.run(upsert).await, 2);
    assert_eq!(
        herd.run("INSERT OR REPLACE INTO p (k, n) VALUES (1, 77), (1001, 78)")
            .await,
        2
    );
    herd.run(
        "MERGE INTO p USING (SELECT range AS k FROM range(2, 200)) source ON p.k = source.k AND p.k < 10 \
         WHEN MATCHED AND p.k = 2 THEN DELETE WHEN MATCHED THEN UPDATE SET s = 'merged', n = source.k * 2",
    )
    .await;
    herd.run(
        "MERGE INTO p USING (SELECT range AS id FROM range(2, 4)) source ON p.k = source.id \
         WHEN NOT MATCHED THEN INSERT (k, s) VALUES (source.id + 5000, 'moved')",
    )
    .await;
    assert_eq!(
        herd.everywhere("SELECT * FROM p WHERE k IN (0, 1, 2, 3, 99, 149) OR k >= 1000")
            .await,
        [
            "(0, upserted, 0)",
            "(1, old, 77)",
            "(1000, upserted, 2)",
            "(1001, none, 78)",
            "(149, new, 0)",
            "(3, merged, 6)",
            "(5002, moved, NULL)",
            "(99, old, 99)",
        ]
    );
    herd.is_placed("p", "k", 5).await;
    herd.refused(
        "MERGE INTO p USING (SELECT 1 AS n) s ON p.n = s.n WHEN NOT MATCHED THEN INSERT (k) VALUES (1)",
        "PARTITIONED BY",
    )
    .await;
    herd.run("CREATE TABLE even (n INTEGER) WITH (partitions = 3)").await;
    herd.refused(
        "MERGE INTO even USING (SELECT 1 AS n) s USING (n) WHEN NOT MATCHED THEN INSERT",
        "PARTITIONED BY",
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn uploads_go_to_the_workers() {
    let herd = Herd::start(2).await;
    herd.run("CREATE TABLE t (n BIGINT, s VARCHAR) PARTITIONED BY (n) WITH (partitions = 6)")
        .await;
    let batches = stream::iter((0..4).map(|part| Ok::<_, ClientError>(batch(part * 1000, 1000))));
    assert_eq!(herd.client.ingest("t", batches).await.unwrap(), 4000);
    herd.is_placed("t", "n", 6).await;
    herd.is_empty_here("t").await;
    assert_eq!(herd.counts("t").await.iter().sum::<i64>(), 4000);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_has_gone_is_named() {
    let mut herd = Herd::start(2).await;
    herd.run("CREATE TABLE t (k INTEGER) PARTITIONED BY (k)").await;
    herd.run("INSERT INTO t SELECT * FROM range(100)").await;
    let before = number(&herd.direct[0], "SELECT count(*) FROM t").await;
    herd.workers[1].take().unwrap().stop().await.unwrap();
    for sql in [
        "INSERT INTO t SELECT * FROM range(100)",
        "DELETE FROM t",
        "UPDATE t SET k = 1",
        "ALTER TABLE t ADD COLUMN a INTEGER",
        "DROP TABLE t",
    ] {
        let error = herd.error(sql).await;
        assert!(error.message.contains("worker"), "{sql}\n{error}");
    }
    assert_eq!(number(&herd.direct[0], "SELECT count(*) FROM t").await, before);
    assert_eq!(
        texts(
            &herd.client,
            "SELECT column_name FROM duckdb_columns() WHERE table_name = 't'"
        )
        .await,
        ["(k)"]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn placement_survives_restarts() {
    let directory = tempfile::tempdir().unwrap();
    let herd = Herd::start_in(Some(directory.path()), 3).await;
    herd.run("CREATE TABLE t (k INTEGER, s VARCHAR) PARTITIONED BY (k) WITH (partitions = 12)")
        .await;
    herd.run("ALTER TABLE t ADD COLUMN c INTEGER DEFAULT 1").await;
    herd.run("ALTER TABLE t RENAME TO tt").await;
    herd.run("INSERT INTO tt SELECT range, range, range FROM range(1000)")
        .await;
    let counts = herd.counts("tt").await;
    herd.stop().await;
    // They have new addresses, and are told by their ids.
    let herd = Herd::start_in(Some(directory.path()), 3).await;
    assert_eq!(herd.counts("tt").await, counts);
    herd.run("INSERT INTO tt SELECT range, range, range FROM range(1000, 2000)")
        .await;
    assert_eq!(herd.counts("tt").await.iter().sum::<i64>(), 2000);
    herd.is_placed("tt", "k", 12).await;
    herd.stop().await;
}

/// Statements that change rows, each on some table: `{t}` is its name, `{a}`, `{b}` numbers.
const CHANGES: [&str; 19] = [
    "INSERT INTO {t} SELECT range + {a}, range % 7, 'row ' || range FROM range({b})",
    "INSERT INTO {t} (k) VALUES ({a}), (NULL)",
    "INSERT INTO {t} SELECT k + {a}, n, s FROM other",
    "INSERT INTO {t} SELECT k + {a}, n, s FROM {t} WHERE k < {b}",
    "DELETE FROM {t} WHERE n = {a} % 7",
    "DELETE FROM {t} WHERE k IS NULL",
    "DELETE FROM {t} WHERE k = {a}",
    "DELETE FROM {t} WHERE k IN (SELECT k FROM other WHERE n < {a} % 5)",
    "DELETE FROM {t} USING plain WHERE plain.k = {t}.k AND plain.n > {t}.n",
    "DELETE FROM {t} WHERE NOT EXISTS (SELECT 1 FROM plain WHERE plain.k >= {t}.k)",
    "UPDATE {t} SET n = n + 1, s = s || '!' WHERE k < {a}",
    "UPDATE {t} SET n = (SELECT max(n) FROM plain) WHERE k % 3 = {a} % 3",
    "UPDATE {t} SET n = (SELECT count(*) FROM other WHERE other.k = {t}.k)",
    "UPDATE {t} SET s = other.s FROM other WHERE other.k = {t}.k",
    "UPDATE {t} SET k = k + {a} WHERE k > {b}",
    "UPDATE {t} SET k = -k, n = k WHERE n = {a} % 4",
    "UPDATE {t} SET n = 0 WHERE k > (SELECT avg(k) FROM {t})",
    "MERGE INTO {t} USING (SELECT DISTINCT k FROM plain) source ON {t}.k = source.k WHEN MATCHED AND source.k < {a} THEN DELETE \
     WHEN MATCHED THEN UPDATE SET s = 'merged'",
    "DELETE FROM {t} WHERE s IN (SELECT s FROM everywhere)",
];

#[tokio::test(flavor = "multi_thread")]
async fn changes_are_those_of_a_single_duckdb() {
    let herd = Herd::start(3).await;
    let database = DuckDb::plain().unwrap();
    let mut plain = database.connect().unwrap();
    let columns = "(k BIGINT, n BIGINT, s VARCHAR)";
    for (table, clause) in [
        ("hashed", "PARTITIONED BY (k) WITH (partitions = 7)"),
        ("even", "WITH (partitions = 5)"),
        ("everywhere", "WITH (distribution = 'replicated')"),
        ("other", "PARTITIONED BY (n)"),
        ("plain", ""),
    ] {
        herd.run(&format!("CREATE TABLE {table} {columns} {clause}")).await;
        plain.run(&format!("CREATE TABLE {table} {columns}")).unwrap();
    }
    let fill = |table: &str, rows: u32| {
        format!("INSERT INTO {table} SELECT range, range % 11, 'row ' || range FROM range({rows})")
    };
    for (table, rows) in [
        ("hashed", 300),
        ("even", 300),
        ("everywhere", 40),
        ("other", 30),
        ("plain", 50),
    ] {
        herd.run(&fill(table, rows)).await;
        plain.run(&fill(table, rows)).unwrap();
    }
    let seed = std::env::var("DUCKHERDER_SEED").ok().and_then(|text| text.parse().ok());
    let seed = seed.unwrap_or_else(|| fastrand::u64(..));
    println!("DUCKHERDER_SEED={seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    for _ in 0..60 {
        let table = ["hashed", "even", "everywhere"][random.usize(..3)];
        let change = CHANGES[random.usize(..CHANGES.len())]
            .replace("{t}", table)
            .replace("{a}", &random.u32(..300).to_string())
            .replace("{b}", &random.u32(..100).to_string());
        let changed = herd.run(&change).await;
        let expected = plain.run(&change).unwrap().rows_changed();
        assert_eq!(Some(changed), expected, "{change}");
        let sql = format!("SELECT k, n, s FROM {table}");
        let rows = texts(&herd.client, &sql).await;
        let lines = plain.lines(&sql).unwrap();
        let mut expected: Vec<_> = lines
            .iter()
            .map(|line| format!("({})", line.replace('|', ", ")))
            .collect();
        expected.sort();
        assert_eq!(rows, expected, "{change}");
        if rows.len() > 5000 {
            herd.run(&format!("DELETE FROM {table} WHERE k % 2 = 0")).await;
            plain.run(&format!("DELETE FROM {table} WHERE k % 2 = 0")).unwrap();
        }
    }
    herd.is_placed("hashed", "k", 7).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_sees_all_workers_as_they_were() {
    let mut herd = Herd::start(3).await;
    herd.run("CREATE TABLE t (k INTEGER) PARTITIONED BY (k)").await;
    herd.run("CREATE TABLE r (k INTEGER) WITH (distribution = 'replicated')")
        .await;
    herd.run("INSERT INTO t SELECT * FROM range(100)").await;
    let other = herd.client.open_session().await.unwrap();
    let one = "SELECT count(*) FROM t WHERE k = 77";
    herd.run("BEGIN").await;
    // One worker answers.
    assert_eq!(number(&herd.client, one).await, 1);
    other
        .execute("INSERT INTO t SELECT * FROM range(100, 200)")
        .await
        .unwrap();
    other.execute("DELETE FROM t WHERE k < 50").await.unwrap();
    other.execute("INSERT INTO r VALUES (1)").await.unwrap();
    assert_eq!(number(&herd.client, "SELECT count(*) FROM t").await, 100);
    assert_eq!(number(&herd.client, "SELECT count(*) FROM r").await, 0);
    herd.run("COMMIT").await;
    assert_eq!(number(&herd.client, "SELECT count(*) FROM t").await, 150);
    assert_eq!(number(&herd.client, "SELECT count(*) FROM r").await, 1);

    // Also where the first statement is about the coordinator's own rows.
    herd.run("CREATE TABLE here (i INTEGER)").await;
    herd.run("BEGIN").await;
    assert_eq!(number(&herd.client, "SELECT count(*) FROM here").await, 0);
    other
        .execute("INSERT INTO t SELECT * FROM range(200, 300)")
        .await
        .unwrap();
    assert_eq!(number(&herd.client, "SELECT count(*) FROM t").await, 150);
    herd.run("ROLLBACK").await;
    assert_eq!(number(&herd.client, "SELECT count(*) FROM t").await, 250);

    // A worker of which nothing is wanted may go.
    herd.run("BEGIN").await;
    herd.run("INSERT INTO here VALUES (1)").await;
    assert_eq!(number(&herd.client, one).await, 1);
    for worker in 0..3 {
        if number(&herd.direct[worker], one).await == 0 {
            herd.workers[worker].take().unwrap().stop().await.unwrap();
        }
    }
    assert_eq!(number(&herd.client, one).await, 1);
    herd.run("COMMIT").await;
    assert_eq!(number(&herd.client, "SELECT count(*) FROM here").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_ends_with_a_worker() {
    let mut herd = Herd::start(3).await;
    herd.run("CREATE TABLE t (k INTEGER) PARTITIONED BY (k)").await;
    herd.run("BEGIN").await;
    herd.run("INSERT INTO t SELECT * FROM range(100)").await;
    herd.workers[1].take().unwrap().stop().await.unwrap();
    let error = herd.error("COMMIT").await;
    assert!(
        error.message.contains("worker") || error.message.contains("workers"),
        "{error}"
    );
    let _ = herd.client.execute("ROLLBACK").await;
    // Who has committed is in the error: nobody else has rows.
    for worker in [0, 2] {
        let rows = number(&herd.direct[worker], "SELECT count(*) FROM t").await;
        let committed = error.message.contains("Committed:");
        assert!(rows == 0 || committed, "{rows} rows\n{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_that_were_only_read_commit_nothing() {
    let herd = Herd::start(3).await;
    herd.run("CREATE TABLE p (k INTEGER PRIMARY KEY) PARTITIONED BY (k)")
        .await;
    herd.run("INSERT INTO p SELECT * FROM range(100)").await;
    let other = herd.client.open_session().await.unwrap();
    other.execute("BEGIN").await.unwrap();
    other.execute("INSERT INTO p VALUES (777)").await.unwrap();
    herd.run("BEGIN").await;
    assert_eq!(number(&herd.client, "SELECT count(*) FROM p").await, 100);
    herd.run("INSERT INTO p VALUES (777)").await;
    other.execute("COMMIT").await.unwrap();
    let error = herd.error("COMMIT").await;
    assert!(!error.message.contains("workers only"), "{error}");
    assert!(error.message.contains("777"), "{error}");
    assert_eq!(number(&herd.client, "SELECT count(*) FROM p").await, 101);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_failed_on_the_coordinator_is_not_committed_on_workers() {
    let herd = Herd::start(2).await;
    herd.run("CREATE TABLE t (k INTEGER) PARTITIONED BY (k)").await;
    herd.run("CREATE TABLE here (k INTEGER)").await;
    for failing in [
        "SELECT 'no number'::INTEGER FROM range(1)",
        "SELECT error('no') FROM here",
        "SELECT nothing FROM t",
    ] {
        herd.run("BEGIN").await;
        herd.run("INSERT INTO here VALUES (1)").await;
        herd.run("INSERT INTO t SELECT * FROM range(100)").await;
        herd.error(failing).await;
        herd.error("COMMIT").await;
        assert_eq!(number(&herd.client, "SELECT count(*) FROM t").await, 0);
        assert_eq!(number(&herd.client, "SELECT count(*) FROM here").await, 0);
    }
    assert_eq!(herd.run("INSERT INTO t SELECT * FROM range(100)").await, 100);
    assert_eq!(number(&herd.client, "SELECT count(*) FROM t").await, 100);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_committed_in_part_is_told() {
    let herd = Herd::start(3).await;
    herd.run("CREATE TABLE p (k INTEGER PRIMARY KEY) PARTITIONED BY (k)")
        .await;
    let other = herd.client.open_session().await.unwrap();
    other.execute("BEGIN").await.unwrap();
    other.execute("INSERT INTO p VALUES (7)").await.unwrap();
    herd.run("BEGIN").await;
    herd.run("INSERT INTO p SELECT * FROM range(100)").await;
    other.execute("COMMIT").await.unwrap();
    let error = herd.error("COMMIT").await;
    assert_eq!(error.kind, ExceptionType::Transaction, "{error}");
    assert!(error.message.contains("on a part of the workers only"), "{error}");
    // As the message says: one has rolled back, two have committed.
    let counts = herd.counts("p").await;
    assert_eq!(
        counts.iter().filter(|count| **count > 1).count(),
        2,
        "{counts:?}\n{error}"
    );
    herd.run("DELETE FROM p").await;
    assert_eq!(herd.run("INSERT INTO p SELECT * FROM range(100)").await, 100);
}

#[tokio::test(flavor = "multi_thread")]
async fn uploads_make_tables_too() {
    let herd = Herd::start(2).await;
    herd.run("SET GLOBAL duckherder_default_partitions = 4").await;
    let target = IngestTarget::create("made");
    let rows = batch(0, 1000);
    let upload = |target: IngestTarget, rows: RecordBatch| {
        let schema = rows.schema();
        herd.client
            .session()
            .ingest(target, schema, stream::iter([Ok::<_, ClientError>(rows)]))
    };
    assert_eq!(upload(target, rows.clone()).await.unwrap().rows, 1000);
    assert_eq!(herd.counts("made").await.iter().sum::<i64>(), 1000);
    let again = IngestTarget {
        mode: IngestMode::CreateOrReplace,
        ..IngestTarget::create("made")
    };
    assert_eq!(upload(again, batch(0, 10)).await.unwrap().rows, 10);
    assert_eq!(herd.counts("made").await.iter().sum::<i64>(), 10);
    // What breaks off leaves nothing.
    let broken = stream::iter([Ok(rows.clone()), Err(ClientError::Cancelled { operation: "test" })]);
    let schema = rows.schema();
    let outcome = herd
        .client
        .session()
        .ingest(IngestTarget::append("made"), schema, broken)
        .await;
    assert!(outcome.is_err());
    assert_eq!(herd.counts("made").await.iter().sum::<i64>(), 10);
}
