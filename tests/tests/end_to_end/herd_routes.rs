//! Statements that a coordinator sends to the worker of their keys without planning them.

use duckherder_tests::duckdb::{Connection, DuckDb};
use duckherder_tests::duckling::LocalDuckling;

use crate::support::attach_with;

const HOW: &str = "SELECT execution_mode || ' ' || merge_strategy FROM duckherder_get_query_execution_stats() \
                   ORDER BY execution_start_time DESC LIMIT 1";

/// What fills a herd, and plain DuckDB in the same way.
const ROWS: [&str; 4] = [
    "INSERT INTO dh.t SELECT range, CASE WHEN range % 10 = 0 THEN NULL ELSE 'n''' || range END, range % 7 FROM range(1000)",
    "INSERT INTO dh.t VALUES (NULL, 'no key', 1)",
    "INSERT INTO dh.s SELECT CASE WHEN range % 2 = 0 THEN 'Ä''' ELSE 'a' END || (range // 4), range % 4, range FROM range(400)",
    "INSERT INTO dh.s VALUES ('', 0, -1), (NULL, 0, -2), ('🦆', NULL, -3)",
];

struct Both {
    herd: Connection,
    plain: Connection,
    workers: Vec<LocalDuckling>,
    coordinator: LocalDuckling,
}

impl Both {
    fn new() -> Self {
        let coordinator = LocalDuckling::start().unwrap();
        // What workers are asked themselves, the coordinator does not see.
        let (_database, mut herd) = attach_with(coordinator.port(), ", ask_workers false");
        let workers: Vec<_> = (0..3).map(|_| LocalDuckling::start().unwrap()).collect();
        for worker in &workers {
            let sql = format!("SELECT duckherder_register_worker('127.0.0.1:{}')", worker.port());
            herd.run(&sql).unwrap();
        }
        let mut plain = DuckDb::plain().unwrap().connect().unwrap();
        plain.run("ATTACH ':memory:' AS dh").unwrap();
        let mut both = Self {
            herd,
            plain,
            workers,
            coordinator,
        };
        both.create("t (k SMALLINT, n VARCHAR, v INTEGER)", "k");
        both.create("s (a VARCHAR, b BIGINT, v INTEGER)", "a, b");
        for sql in ROWS {
            both.run(sql);
        }
        both
    }

    fn create(&mut self, table: &str, keys: &str) {
        let clauses = format!("PARTITIONED BY ({keys}) WITH (partitions = 8)");
        self.herd.run(&format!("CREATE TABLE dh.{table} {clauses}")).unwrap();
        self.plain.run(&format!("CREATE TABLE dh.{table}")).unwrap();
    }

    fn run(&mut self, sql: &str) {
        self.herd.run(sql).unwrap();
        self.plain.run(sql).unwrap();
    }

    /// Runs a query on both, which must say the same; how the herd has executed it.
    fn same(&mut self, sql: &str) -> String {
        let outcome = |connection: &mut Connection| connection.lines(sql).map_err(|error| error.to_string());
        let (herd, plain) = (outcome(&mut self.herd), outcome(&mut self.plain));
        match (&herd, &plain) {
            (Err(herd), Err(plain)) => {
                let class = |text: &str| text.split(':').next().unwrap_or_default().to_owned();
                assert_eq!(class(herd), class(plain), "{sql}: {herd}");
            }
            _ => assert_eq!(herd, plain, "{sql}"),
        }
        self.herd.lines(HOW).unwrap().concat()
    }

    /// The same for a statement with other literals each time, of which only the first is planned.
    fn forwards(&mut self, sql: impl Fn(i64) -> String, literals: impl IntoIterator<Item = i64>) {
        let mut literals = literals.into_iter();
        let first = sql(literals.next().unwrap());
        let how = self.same(&first);
        assert!(how.starts_with("router ") && how != "router forward", "{first}: {how}");
        for literal in literals {
            let sql = sql(literal);
            assert_eq!(self.same(&sql), "router forward", "{sql}");
        }
    }
}

#[test]
fn look_ups_like_an_earlier_one_are_forwarded() {
    let mut both = Both::new();
    let all = |k: i64| format!("SELECT * FROM dh.t WHERE k = {k}");
    both.forwards(all, [3, 4, 999, 0, 1000, 7, 500, 12, 13, 14]);
    both.forwards(
        |k| format!("SELECT n, v + 1 AS w FROM dh.t WHERE {k} = k AND v >= 0"),
        1..30,
    );
    let aggregates = |k: i64| format!("SELECT count(*), sum(v), max(n) FROM dh.t WHERE k = {k} AND n LIKE 'n%'");
    both.forwards(aggregates, 1..20);
    let limited = |k: i64| {
        format!(
            "SELECT k::VARCHAR || n FROM dh.t WHERE (k = {k}) ORDER BY 1 LIMIT {}",
            k + 1
        )
    };
    both.forwards(limited, 1..20);
    let strings = |b: i64| {
        let a = if b % 2 == 0 { "Ä''" } else { "a" };
        format!(
            "SELECT v, a FROM dh.s WHERE b = {} AND a = '{a}{}' ORDER BY v",
            b % 4,
            b / 4
        )
    };
    both.forwards(strings, 0..40);
    let empty = "SELECT v, a FROM dh.s WHERE b = 0 AND a = '' ORDER BY v";
    assert_eq!(both.same(empty), "router forward");
}

#[test]
fn one_row_and_many_are_forwarded() {
    let mut both = Both::new();
    // A worker that finds one row by an index does without DuckDB's executor.
    both.create("u (k BIGINT PRIMARY KEY, v VARCHAR, d DECIMAL(9, 2))", "k");
    both.run("INSERT INTO dh.u SELECT range, 'v' || range, range / 7 FROM range(1000)");
    both.forwards(|k| format!("SELECT d, v FROM dh.u WHERE k = {k}"), 980..1010);
    both.run("UPDATE dh.u SET v = NULL WHERE k = 990");
    assert_eq!(both.same("SELECT d, v FROM dh.u WHERE k = 990"), "router forward");
    // More than is read ahead, and more than one batch.
    both.create("large (k INTEGER, v BIGINT, s VARCHAR)", "k");
    both.run("INSERT INTO dh.large SELECT range % 4, range, repeat('x', 100) || range FROM range(200_000)");
    let large = |k: i64| format!("SELECT v, s FROM dh.large WHERE k = {k} ORDER BY v");
    both.forwards(large, [0, 1, 2, 3, 4, 1]);
    // What a client wants compressed.
    let port = both.coordinator.port();
    let attach = format!(
        "ATTACH 'packed' (TYPE duckherder, server_host '127.0.0.1', server_port {port}, compression 'lz4', ask_workers false)"
    );
    both.herd.run(&attach).unwrap();
    for k in [0, 4, 1, 2] {
        let expected = both.plain.lines(&large(k)).unwrap();
        let packed = large(k).replace("dh.", "packed.");
        assert_eq!(both.herd.lines(&packed).unwrap(), expected);
        let how = HOW.replace("stats()", "stats('packed')");
        assert_eq!(both.herd.lines(&how).unwrap().concat(), "router forward");
    }
}

#[test]
fn what_else_is_compared_is_planned() {
    let mut both = Both::new();
    // Several times each: what was planned is not forwarded afterwards.
    for sql in [
        "SELECT v FROM dh.t WHERE k = 5 OR v = 3 ORDER BY ALL",
        "SELECT v FROM dh.t WHERE k = 5 AND random() < 2",
        "SELECT v FROM dh.t WHERE k = 5 AND v = (SELECT min(v) FROM dh.t WHERE k = 5)",
        "SELECT v FROM dh.t WHERE k = '5'",
        "SELECT v FROM dh.t WHERE k = -5",
        "SELECT v FROM dh.t WHERE k = 5.0",
        "SELECT v FROM dh.t WHERE k = 5 + 1",
        "SELECT v FROM dh.t WHERE NOT k = 5 AND k < 9 ORDER BY ALL",
        "SELECT v FROM dh.s WHERE a = 'a1' ORDER BY ALL",
        "SELECT v FROM dh.s AS s WHERE s.a = 'a1' AND b = 1 ORDER BY ALL",
        "SELECT k FROM dh.t AS t (v, n, k) WHERE k = 5 ORDER BY ALL",
        "WITH t AS (SELECT 5 AS k, 'x' AS v) SELECT v FROM t WHERE k = 5",
        "SELECT a.v FROM dh.t a JOIN dh.t b ON a.k = b.k WHERE a.k = 5",
        "SELECT v FROM dh.t WHERE k = 5 UNION ALL SELECT v FROM dh.t WHERE k = 6 ORDER BY ALL",
    ] {
        for _ in 0..3 {
            assert_ne!(both.same(sql), "router forward", "{sql}");
        }
    }
    // Keys that are none of the column's values: as wide as the comparison is, the column is not.
    let look_up = |k: i64| format!("SELECT v FROM dh.t WHERE k = {k}");
    both.forwards(look_up, [1, 2, 32_767]);
    for key in ["32768", "99999999999", "99999999999999999999999999999999999999999999"] {
        let sql = format!("SELECT v FROM dh.t WHERE k = {key}");
        assert_ne!(both.same(&sql), "router forward", "{sql}");
    }
    assert_eq!(both.same(&look_up(4)), "router forward");
}

#[test]
fn a_route_ends_with_the_definitions_that_it_was_found_with() {
    let mut both = Both::new();
    let look_up = |k: i64| format!("SELECT * FROM dh.t WHERE k = {k}");
    both.forwards(look_up, 1..4);
    both.run("ALTER TABLE dh.t ADD COLUMN more INTEGER DEFAULT 5");
    both.forwards(look_up, 1..4);
    both.run("ALTER TABLE dh.t RENAME COLUMN v TO w");
    both.forwards(look_up, 1..4);
    // By another column, in other partitions.
    both.run("DROP TABLE dh.t");
    both.create("t (v INTEGER, n VARCHAR, k SMALLINT)", "v");
    both.run("INSERT INTO dh.t SELECT range, 'x', range % 100 FROM range(1000)");
    for k in 1..4 {
        let sql = format!("SELECT * FROM dh.t WHERE k = {k} ORDER BY v");
        assert_ne!(both.same(&sql), "router forward", "{sql}");
    }
    // Not spread at all.
    both.run("DROP TABLE dh.t");
    both.run("CREATE TABLE dh.t (k SMALLINT)");
    both.run("INSERT INTO dh.t SELECT range FROM range(9)");
    both.same(&look_up(2));
    both.same(&look_up(3));
    // No more than a name for something else.
    both.run("DROP TABLE dh.t");
    both.run("CREATE VIEW dh.t AS SELECT b AS k, count(*) AS n FROM dh.s GROUP BY ALL");
    both.same(&look_up(2));
    both.same(&look_up(3));
}

#[test]
fn transactions_and_settings_are_what_they_are() {
    let mut both = Both::new();
    let look_up = |k: i64| format!("SELECT v, n, k / 2 AS half FROM dh.t WHERE k = {k}");
    both.forwards(look_up, 1..5);
    both.run("BEGIN");
    both.run("UPDATE dh.t SET v = -1 WHERE k < 10");
    for k in 1..5 {
        assert_ne!(both.same(&look_up(k)), "router forward");
    }
    both.run("ROLLBACK");
    both.forwards(look_up, 1..5);
    both.run("UPDATE dh.t SET v = v * 2 WHERE k < 10");
    assert_eq!(both.same(&look_up(4)), "router forward");
    // With another meaning of the same text, it is another statement.
    both.run("SET integer_division = true");
    both.forwards(look_up, 1..5);
    both.run("RESET integer_division");
    assert_eq!(both.same(&look_up(3)), "router forward");
    both.run("SET default_collation = 'NOCASE'");
    let by_text = |a: i64| format!("SELECT v FROM dh.s WHERE a = 'A{a}' AND b = 1 ORDER BY v");
    for a in 1..5 {
        assert_ne!(both.same(&by_text(a)), "router forward");
    }
    both.run("RESET default_collation");
    both.forwards(by_text, 1..5);
}

#[test]
fn a_worker_that_is_gone_is_named() {
    let mut both = Both::new();
    let look_up = |k: i64| format!("SELECT v FROM dh.t WHERE k = {k}");
    both.forwards(look_up, 1..9);
    both.workers.truncate(1);
    let mut failed = 0;
    for k in 1..60 {
        match both.herd.lines(&look_up(k)) {
            Ok(rows) => assert_eq!(rows, both.plain.lines(&look_up(k)).unwrap()),
            Err(error) => {
                failed += 1;
                assert!(error.to_string().contains("worker"), "{error}");
            }
        }
    }
    assert!((20..60).contains(&failed), "{failed}");
}
