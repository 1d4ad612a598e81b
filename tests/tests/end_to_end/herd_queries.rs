//! What a coordinator tells of the queries that it has divided, and phases that are made of one aggregate.

use std::time::Duration;

use duckherder_client::Client;
use duckherder_tests::duckdb::Connection;
use duckherder_tests::duckling::LocalDuckling;

use crate::herd_tables::texts;
use crate::support::{attach, number};

struct Herd {
    coordinator: LocalDuckling,
    _workers: Vec<LocalDuckling>,
    connection: Connection,
}

/// Two workers, and a table of (k BIGINT, v BIGINT).
fn herd(rows: u64) -> Herd {
    let coordinator = LocalDuckling::start().unwrap();
    let (_database, mut connection) = attach(coordinator.port());
    let workers: Vec<_> = (0..2).map(|_| LocalDuckling::start().unwrap()).collect();
    for worker in &workers {
        connection
            .run(&format!(
                "SELECT duckherder_register_worker('127.0.0.1:{}')",
                worker.port()
            ))
            .unwrap();
    }
    connection
        .run("CREATE TABLE dh.t (k BIGINT, v BIGINT) PARTITIONED BY (k) WITH (partitions = 4)")
        .unwrap();
    connection
        .run(&format!(
            "INSERT INTO dh.t SELECT range, (range * 7919) % {rows} FROM range({rows})"
        ))
        .unwrap();
    Herd {
        coordinator,
        _workers: workers,
        connection,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn stages_count_their_cpu_time() {
    let mut herd = tokio::task::spawn_blocking(|| herd(300_000)).await.unwrap();
    let client = Client::connect(herd.coordinator.options()).await.unwrap();
    let sql = "SELECT sum(hash(a.k, b.v) % 7)::BIGINT FROM t a JOIN t b ON a.v = b.v";
    assert!(number(&client, sql).await > 0);
    // A worker's share is between all of it and an even one; all of the query's own time is on two threads a node.
    let told = "SELECT concat_ws(',', execution_mode, cpu_time_ms > 1, critical_path_cpu_time_ms <= cpu_time_ms, \
                critical_path_cpu_time_ms * num_workers_used >= cpu_time_ms, \
                critical_path_cpu_time_ms < query_duration_ms * 2 * num_workers_used, \
                (stages->>'$[0].cpu_us')::BIGINT = greatest((stages->>'$[0].tasks[0].cpu_us')::BIGINT, \
                                                            (stages->>'$[0].tasks[1].cpu_us')::BIGINT)) \
                FROM dh.query('SELECT * FROM duckling_execution_stats() WHERE sql LIKE ''%hash(a.k, b.v)%''')";
    assert_eq!(
        herd.connection.lines(told).unwrap(),
        ["shuffle,true,true,true,true,true"]
    );
    let text = texts(&client, &format!("EXPLAIN (ANALYZE, FORMAT json) {sql}"))
        .await
        .concat();
    assert!(text.contains(" rows in ") && text.contains(", CPU "), "{text}");
}

#[test]
fn grouping_sets_are_made_in_two_phases() {
    let mut herd = herd(10_000);
    let mut plain = duckherder_tests::duckdb::DuckDb::plain().unwrap().connect().unwrap();
    plain.run("ATTACH ':memory:' AS dh").unwrap();
    plain
        .run("CREATE TABLE dh.t AS SELECT range AS k, (range * 7919) % 10_000 AS v FROM range(10_000)")
        .unwrap();
    let sets = [
        ("dh.t", "ROLLUP (v % 10, k % 3)"),
        ("dh.t", "CUBE (v % 10, k % 3)"),
        ("dh.t", "GROUPING SETS ((v % 10), (v % 10), (), (v % 10, k % 3))"),
        // Of no rows the set of no groups has one.
        ("(FROM dh.t WHERE k < 0)", "ROLLUP (v % 10, k % 3)"),
        ("(FROM dh.t WHERE k = 77)", "GROUPING SETS ((v % 10, k % 3), (), ())"),
    ];
    // DuckDB's optimizer makes other operators of most of them.
    for disabled in ["", "grouping_sets"] {
        let set = format!("FROM dh.query('SET GLOBAL disabled_optimizers = ''{disabled}''')");
        herd.connection.run(&set).unwrap();
        for (from, sets) in sets {
            let sql = format!(
                "SELECT v % 10, k % 3, GROUPING(v % 10), GROUPING(v % 10, k % 3), count(*), count(v), sum(v), avg(k), \
                 min(v), max(k), bool_or(k > 9_000), sum(v) FILTER (k % 2 = 0), count(*) FILTER (k < 0), \
                 max(make_timestamp(k)), min(DATE '2020-01-01' + v::INTEGER), max(INTERVAL (k) HOUR), max(v::VARCHAR), \
                 min(v::DECIMAL(20,2)), max(k % 2 = 0) \
                 FROM {from} GROUP BY {sets} ORDER BY ALL"
            );
            assert_eq!(
                herd.connection.lines(&sql).unwrap(),
                plain.lines(&sql).unwrap(),
                "{sql}"
            );
            if from == "dh.t" && !disabled.is_empty() {
                let how = "SELECT execution_mode, fallback_reason FROM duckherder_get_query_execution_stats() \
                           ORDER BY execution_start_time DESC LIMIT 1";
                assert_eq!(herd.connection.lines(how).unwrap(), ["two_phase|NULL"], "{sql}");
            }
        }
    }
    let duplicated = "SELECT v % 10, GROUPING(v % 10) FROM dh.t GROUP BY v % 10 ORDER BY ALL";
    assert_eq!(
        herd.connection.lines(duplicated).unwrap(),
        plain.lines(duplicated).unwrap()
    );
}

/// The clocks of workers may differ from each other: a query has one time, the coordinator's.
#[test]
fn a_statement_has_one_time() {
    let mut herd = herd(1000);
    let connection = &mut herd.connection;
    connection.run("ALTER TABLE dh.t ADD COLUMN seen TIMESTAMPTZ").unwrap();
    for sql in [
        "UPDATE dh.t SET seen = now()",
        "UPDATE dh.t SET seen = current_timestamp, v = v + 1 WHERE k >= 0",
        "INSERT INTO dh.t SELECT range + 5000, 1, now() FROM range(100)",
    ] {
        connection.run("UPDATE dh.t SET seen = NULL").unwrap();
        connection.run(sql).unwrap();
        assert_eq!(
            connection.lines("SELECT count(DISTINCT seen) FROM dh.t").unwrap(),
            ["1"],
            "{sql}"
        );
    }
    for clock in [
        "now()",
        "current_date",
        "current_timestamp",
        "current_localtimestamp()",
        "today()",
    ] {
        let sql = format!("SELECT count(*) FROM dh.t WHERE seen < {clock}");
        let plan = connection
            .lines(&format!("EXPLAIN {sql}"))
            .unwrap()
            .join("\n")
            .to_lowercase();
        assert!(plan.contains("stage 0"), "{plan}");
        for name in ["now(", "current_d", "current_t", "today("] {
            assert!(!plan.contains(name), "{plan}");
        }
    }
}

/// Two statements that the fuzzer has found.
#[test]
fn values_are_computed_and_keys_replaced() {
    let mut herd = herd(100);
    let connection = &mut herd.connection;
    let found = connection
        .lines(
            "SELECT count(*) FROM dh.t SEMI JOIN (VALUES ('7'::DECIMAL(18, 11)), ('8'::DECIMAL(18, 11))) s(x) ON k = x",
        )
        .unwrap();
    assert_eq!(found, ["2"]);
    connection
        .run("CREATE TABLE dh.u (a BIGINT, b BIGINT, UNIQUE (a, b)) PARTITIONED BY (a) WITH (partitions = 3)")
        .unwrap();
    for (rows, all) in [("(1, 1), (2, 2)", "2"), ("(1, 1), (3, 3)", "3")] {
        let replaced = connection
            .run(&format!("INSERT OR REPLACE INTO dh.u VALUES {rows}"))
            .unwrap();
        assert_eq!(replaced.rows_changed(), Some(2));
        assert_eq!(connection.lines("SELECT count(*) FROM dh.u").unwrap(), [all]);
    }
}

#[test]
fn unions_and_variants_keep_all_of_their_values() {
    let mut herd = herd(10);
    let mut plain = duckherder_tests::duckdb::DuckDb::plain().unwrap().connect().unwrap();
    plain.run("ATTACH ':memory:' AS dh").unwrap();
    let columns = "(k INTEGER, m MAP(VARCHAR, UNION(i INTEGER, s VARCHAR)), u UNION(x HUGEINT, y BOOLEAN), v VARIANT)";
    let placed = format!("CREATE TABLE dh.h {columns} PARTITIONED BY (k) WITH (partitions = 4)");
    herd.connection.run(&placed).unwrap();
    plain.run(&format!("CREATE TABLE dh.h {columns}")).unwrap();
    let all = "SELECT k, m, u, union_tag(u), v::VARCHAR, variant_typeof(v) FROM dh.h ORDER BY k";
    let changes = [
        "INSERT INTO dh.h VALUES \
         (1, MAP {'a': union_value(i := 1)::UNION(i INTEGER, s VARCHAR)}, union_value(x := NULL::HUGEINT), 1::UHUGEINT::VARIANT), \
         (2, MAP {}, NULL, NULL), (3, NULL, true, {'a': INTERVAL '1 day'}::VARIANT), \
         (4, MAP {'z': NULL}, 5::HUGEINT, [1::UTINYINT]::VARIANT)",
        "CREATE TABLE here AS FROM dh.h",
        "INSERT INTO dh.h SELECT k + 10, m, u, v FROM here",
        "INSERT INTO dh.h SELECT k + 100, m, u, v FROM dh.h",
        "UPDATE dh.h SET u = union_value(y := NULL::BOOLEAN) WHERE k % 2 = 0",
        "UPDATE dh.h SET k = k + 1, v = v WHERE k > 100",
    ];
    let queries = [
        all,
        "SELECT u, union_tag(u), count(*) FROM dh.h GROUP BY ALL ORDER BY ALL",
        "SELECT k, u, union_tag(u), v::VARCHAR FROM dh.h WHERE k = 1",
        "SELECT a.k, b.u, union_tag(b.u), b.v::VARCHAR, variant_typeof(b.v) FROM dh.h a JOIN dh.h b ON a.k = b.k + 10 ORDER BY a.k",
        "SELECT max(u), min(v::VARCHAR), list(union_tag(u) ORDER BY k) FROM dh.h",
        "SELECT k, v::VARCHAR, variant_typeof(v) FROM dh.h ORDER BY k DESC LIMIT 3",
        "SELECT k, u, union_tag(u), v::VARCHAR FROM here ORDER BY k",
    ];
    for change in changes {
        herd.connection.run(change).unwrap();
        plain.run(change).unwrap();
        assert_eq!(
            herd.connection.lines(all).unwrap(),
            plain.lines(all).unwrap(),
            "{change}"
        );
    }
    for query in queries {
        assert_eq!(
            herd.connection.lines(query).unwrap(),
            plain.lines(query).unwrap(),
            "{query}"
        );
    }
    // Of a replicated table one worker's rows are returned, and the others' are not looked at.
    let columns = "dh.r (k INTEGER, v VARIANT)";
    herd.connection
        .run(&format!("CREATE TABLE {columns} WITH (distribution = 'replicated')"))
        .unwrap();
    plain.run(&format!("CREATE TABLE {columns}")).unwrap();
    for change in [
        "INSERT INTO dh.r SELECT 1, 340282366920938463463374607431768211455::UHUGEINT::VARIANT",
        "UPDATE dh.r SET k = 2 RETURNING k, v::VARCHAR, v",
        "DELETE FROM dh.r RETURNING k, v",
    ] {
        assert_eq!(
            herd.connection.lines(change).unwrap(),
            plain.lines(change).unwrap(),
            "{change}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_query_that_is_given_up_leaves_the_transaction_as_it_was() {
    let herd = tokio::task::spawn_blocking(|| herd(100_000)).await.unwrap();
    let client = Client::connect(herd.coordinator.options()).await.unwrap();
    client.execute("BEGIN").await.unwrap();
    client.execute("INSERT INTO t VALUES (-1, -1)").await.unwrap();
    let queries = [
        "SELECT k FROM t ORDER BY k",
        "SELECT a.k, b.v FROM t a JOIN t b ON a.v = b.k ORDER BY ALL",
        // It may be given up while it waits for one exchange, or for the workers to begin with another.
        "SELECT count(*) FROM t a RIGHT JOIN t b ON EXISTS (FROM t i WHERE i.k = b.v) WHERE a.k = -1 \
         UNION ALL SELECT count(*) FROM t a JOIN t b ON a.v = b.v",
    ];
    for round in 0..8 {
        for sql in queries {
            drop(client.query(sql).await.unwrap());
            assert_eq!(number(&client, "SELECT count(*) FROM t").await, 100_001, "{sql}");
            let begun = tokio::time::timeout(Duration::from_millis(4 << round), client.query(sql)).await;
            drop(begun);
            assert_eq!(number(&client, "SELECT count(*) FROM t").await, 100_001, "{sql}");
        }
    }
    client.execute("COMMIT").await.unwrap();
    assert_eq!(number(&client, "SELECT min(k) FROM t").await, -1);
}

/// What a stage reads of others is there once. Rows with INTERVAL are looked at before they become Arrow, for which DuckDB
/// is asked in another way, and must be at once.
#[test]
fn a_stage_with_intervals_reads_an_exchange_once() {
    let mut herd = herd(0);
    let rows = "SELECT range AS k, INTERVAL (range) DAY AS i FROM range(9)";
    let sql = |from: &str| {
        format!(
            "SELECT k, i FROM (SELECT DISTINCT ON (k) k, i FROM (SELECT k, i FROM {from} ORDER BY k LIMIT 8)) ORDER BY k"
        )
    };
    herd.connection
        .run("CREATE TABLE dh.durations (k BIGINT, i INTERVAL) PARTITIONED BY (k) WITH (partitions = 4)")
        .unwrap();
    herd.connection
        .run(&format!("INSERT INTO dh.durations {rows}"))
        .unwrap();
    let mut plain = duckherder_tests::duckdb::DuckDb::plain().unwrap().connect().unwrap();
    let expected = plain.lines(&sql(&format!("({rows})"))).unwrap();
    // Whether DuckDB's threads begin before the result is asked for is chance.
    for _ in 0..30 {
        assert_eq!(herd.connection.lines(&sql("dh.durations")).unwrap(), expected);
    }
    let how = "SELECT execution_mode FROM duckherder_get_query_execution_stats() WHERE sql LIKE '%durations%' \
               ORDER BY execution_start_time DESC LIMIT 1";
    assert_eq!(herd.connection.lines(how).unwrap(), ["shuffle"]);
}

/// DuckDB makes joins of these when all else has been bound.
#[test]
fn subqueries_in_conditions_of_joins_read_the_herd() {
    let mut herd = herd(20);
    let mut plain = duckherder_tests::duckdb::DuckDb::plain().unwrap().connect().unwrap();
    plain.run("ATTACH ':memory:' AS dh").unwrap();
    plain
        .run("CREATE TABLE dh.t AS SELECT range AS k, (range * 7919) % 20 AS v FROM range(20)")
        .unwrap();
    for sql in [
        "SELECT a.k, b.k FROM dh.t a LEFT JOIN dh.t b ON EXISTS (FROM dh.t i WHERE i.k = a.v AND i.v < 5)",
        "SELECT a.k, b.k FROM dh.t a LEFT JOIN dh.t b ON b.k = a.k AND b.v > (SELECT avg(i.v) FROM dh.t i WHERE i.k <> a.k)",
        "SELECT a.k, r FROM dh.t a FULL JOIN range(30) s(r) ON r IN (SELECT i.v FROM dh.t i WHERE i.k = a.k)",
        "SELECT k FROM dh.t WHERE v > (SELECT max(b.k) FROM dh.t b LEFT JOIN dh.t c ON EXISTS (FROM dh.t i WHERE i.k = b.k) \
         WHERE b.v < dh.t.k)",
    ] {
        let sql = format!("{sql} ORDER BY ALL");
        assert_eq!(
            herd.connection.lines(&sql).unwrap(),
            plain.lines(&sql).unwrap(),
            "{sql}"
        );
    }
}
