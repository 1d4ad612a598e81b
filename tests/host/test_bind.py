"""Nothing runs at bind time, and everything runs once."""

import duckdb
import pytest


@pytest.fixture
def t(dh):
    dh.execute("CREATE TABLE dh.t AS SELECT i FROM range(3) r(i)")
    return dh


def rows(con):
    return con.execute("SELECT count(*) FROM dh.t").fetchone()[0]


DML = [
    "INSERT INTO dh.t VALUES (7)",
    "INSERT INTO dh.t VALUES (7) RETURNING i",
    "DELETE FROM dh.t",
    "DELETE FROM dh.t RETURNING i",
    "UPDATE dh.t SET i = 100",
]
# DuckDB prepares no DDL.
DDL = ["DROP TABLE dh.t", "CREATE TABLE dh.u AS SELECT 1 AS i"]


@pytest.mark.parametrize("sql", [f"EXPLAIN {sql}" for sql in DML + DDL] + [f"PREPARE p AS {sql}" for sql in DML])
def test_explain_and_prepare_change_nothing(t, sql):
    t.execute(sql)
    assert t.execute("SELECT i FROM dh.t ORDER BY i").fetchall() == [(0,), (1,), (2,)]
    assert t.execute("SHOW TABLES FROM dh").fetchall() == [("t",)]


def test_explain_shows_the_plan_of_the_server(t):
    plan = t.execute("EXPLAIN SELECT i FROM dh.t WHERE i > 1").fetchall()[0][1]
    assert plan.startswith("On dh (localhost:")
    assert "i > 1" in plan


def test_explain_shows_what_is_fetched(t):
    t.execute("CREATE TABLE here AS SELECT 1 AS i")
    plan = t.execute("EXPLAIN SELECT t.i FROM dh.t, here WHERE t.i > 1").fetchall()[0][1]
    assert "Duckling: dh (localhost:" in plan
    assert "Remote Filters:" in plan


def test_explain_analyze_runs_once(t):
    t.execute("EXPLAIN ANALYZE INSERT INTO dh.t VALUES (7)")
    assert rows(t) == 4
    t.execute("EXPLAIN ANALYZE DELETE FROM dh.t WHERE i = 7")
    assert rows(t) == 3
    t.execute("EXPLAIN ANALYZE SELECT * FROM dh.t")
    assert rows(t) == 3


def test_a_prepared_insert_runs_at_execute(t):
    t.execute("PREPARE p AS INSERT INTO dh.t VALUES (7)")
    assert rows(t) == 3
    for expected in [4, 5, 6]:
        t.execute("EXECUTE p")
        assert rows(t) == expected


def test_a_prepared_query_runs_at_execute(t):
    sent = "SELECT sql FROM duckherder_get_query_history() WHERE kind = 'read'"
    # Full of other tests' statements it forgets one for each new one.
    t.execute("SELECT duckherder_clear_query_recorder_stats()")
    t.execute("EXPLAIN SELECT count(*) FROM dh.t")
    t.execute("  explain (analyze) SELECT count(*) FROM dh.t")
    t.execute("PREPARE p AS SELECT i, i = 1 AS one FROM dh.t ORDER BY i")
    assert t.execute(sent).fetchall() == []
    for _ in range(2):
        assert t.execute("EXECUTE p").fetchall() == [(0, False), (1, True), (2, False)]
    assert len(t.execute(sent).fetchall()) == 2
    t.begin()
    t.execute("PREPARE fails AS SELECT error('no') FROM dh.t")
    assert t.execute("EXECUTE p").fetchone() == (0, False)
    with pytest.raises(duckdb.Error, match="no"):
        t.execute("EXECUTE fails").fetchall()
    t.rollback()


def test_each_statement_of_a_script_runs_once(t):
    t.execute("INSERT INTO dh.t VALUES (7); INSERT INTO dh.t VALUES (8); UPDATE dh.t SET i = i + 1")
    assert t.execute("SELECT count(*), sum(i) FROM dh.t").fetchall() == [(5, 0 + 1 + 2 + 7 + 8 + 5)]


def test_describe_does_not_run(t):
    t.execute("DESCRIBE SELECT * FROM dh.t")
    statements = t.extract_statements("INSERT INTO dh.t VALUES (7)")
    assert rows(t) == 3
    t.execute(statements[0])
    assert rows(t) == 4


def test_a_relation_inserts_once(t):
    relation = t.sql("INSERT INTO dh.t VALUES (7) RETURNING i")
    if relation is not None:
        relation.fetchall()
    assert rows(t) == 4


def test_a_relation_that_only_counts_inserts_once(t):
    relation = t.sql("INSERT INTO dh.t VALUES (7)")
    if relation is not None:
        relation.fetchall()
    assert rows(t) == 4


def test_relations_see_what_is_committed_when_they_run(t, other):
    relation = t.sql("SELECT count(*) FROM dh.t")
    other.execute("INSERT INTO dh.t VALUES (7)")
    assert relation.fetchall() == [(4,)]
    other.execute("INSERT INTO dh.t VALUES (8)")
    assert relation.fetchall() == [(5,)]


def test_relations_compose(t):
    relation = t.sql("SELECT i FROM dh.t").filter("i > 0").project("i * 10 AS j").order("j")
    assert relation.fetchall() == [(10,), (20,)]
    t.execute("CREATE TABLE l AS SELECT 1 AS i")
    assert t.sql("SELECT i FROM dh.t").join(t.table("l"), "i").fetchall() == [(1,)]
    t.sql("SELECT i FROM dh.t").create("copied")
    assert t.execute("SELECT count(*) FROM copied").fetchall() == [(3,)]


def test_an_insert_in_a_cte_is_not_repeated(t):
    t.execute("SELECT i FROM dh.t, (SELECT 1 AS one) WHERE i IN (SELECT i FROM dh.t)").fetchall()
    assert rows(t) == 3
