"""The keys that a join looks for go along to the scan of a remote table."""

import pytest

KEYS = 1000


@pytest.fixture
def joined(dh):
    dh.execute("CREATE TABLE dh.big AS SELECT i AS k, i % 7 AS v FROM range(1_000_000) r(i)")
    dh.execute(f"CREATE TABLE wanted AS SELECT i * 997 AS k FROM range({KEYS}) r(i)")

    def rows_received(prelude=""):
        if prelude:
            dh.execute(prelude)
        dh.execute("SELECT duckherder_clear_query_recorder_stats()")
        assert dh.execute("SELECT count(*), sum(v) FROM wanted JOIN dh.big USING (k)").fetchall() == dh.execute(
            f"SELECT count(*), sum((i * 997) % 7) FROM range({KEYS}) r(i)"
        ).fetchall()
        return dh.execute("SELECT sum(rows_received)::BIGINT FROM duckherder_get_query_history()").fetchone()[0]

    return rows_received


def test_only_matching_rows_are_received(dh, joined):
    assert joined() == KEYS


def test_the_threshold_is_raised_for_the_statement_only(dh, joined):
    setting = "SELECT current_setting('dynamic_or_filter_threshold')"
    before = dh.execute(setting).fetchall()
    joined()
    assert dh.execute(setting).fetchall() == before
    with pytest.raises(Exception, match="no such|Conversion|Invalid"):
        dh.execute("SELECT error('no such') FROM wanted JOIN dh.big USING (k)").fetchall()
    assert dh.execute(setting).fetchall() == before


def test_the_users_own_threshold_is_kept(dh, joined):
    assert joined("SET dynamic_or_filter_threshold = 10") > KEYS
    assert dh.execute("SELECT current_setting('dynamic_or_filter_threshold')").fetchall() == [(10,)]


def test_joins_that_become_nested_loops(dh):
    """DuckDB 2.0.0 fails to run some, with an internal error that ends its database, where it has no statistics."""
    dh.execute("CREATE TABLE dh.t AS SELECT [i] AS x, i::TINYINT AS k FROM range(-100, 100) r(i)")
    dh.execute("CREATE TABLE l AS SELECT range AS i FROM range(2)")
    anti = """SELECT count(*) FROM (SELECT DISTINCT x, k FROM dh.t AS a SEMI JOIN dh.t AS b ON a.k >= ANY (SELECT k FROM dh.t)
              ANTI JOIN memory.l ON a.k <= -98::TINYINT)"""
    assert dh.execute(anti).fetchall() == [(197,)]
    left = """SELECT count(x), count(y), count(i) FROM (SELECT a.x, b.x AS y, i FROM dh.t AS a LEFT JOIN dh.t AS b
              ON a.k >= ANY (SELECT k FROM dh.t) AND (a.k::INTEGER + b.k = 7 OR a.k::INTEGER - b.k = 9)
              LEFT JOIN memory.l ON a.k >= ANY (SELECT k FROM dh.t) AND i > 0)"""
    dh.execute("CREATE TABLE t AS FROM dh.t")
    expected = dh.execute(left.replace("dh.t", "memory.t")).fetchall()
    assert dh.execute(left).fetchall() == expected
