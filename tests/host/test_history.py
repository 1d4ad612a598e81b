"""What duckherder_get_query_history() tells."""

import datetime

import duckdb
import pytest

from conftest import connect

COLUMNS = [
    ("id", "UBIGINT"),
    ("catalog", "VARCHAR"),
    ("server", "VARCHAR"),
    ("sql", "VARCHAR"),
    ("kind", "VARCHAR"),
    ("start_time", "TIMESTAMP"),
    ("duration_ms", "DOUBLE"),
    ("server_ms", "DOUBLE"),
    ("rows", "UBIGINT"),
    ("bytes", "UBIGINT"),
    ("rows_changed", "BIGINT"),
    ("error", "VARCHAR"),
]


@pytest.fixture
def t(dh):
    dh.execute("CREATE TABLE dh.t AS SELECT i FROM range(3) r(i)")
    dh.execute("SELECT duckherder_clear_query_recorder_stats()")
    return dh


def history(con, columns="*"):
    return con.execute(f"SELECT {columns} FROM duckherder_get_query_history() ORDER BY id").fetchall()


def test_columns(con):
    described = con.execute("DESCRIBE FROM duckherder_get_query_history()").fetchall()
    assert [row[:2] for row in described] == COLUMNS


def test_clear(t):
    t.execute("FROM dh.t").fetchall()
    assert len(history(t)) == 1
    assert t.execute("SELECT duckherder_clear_query_recorder_stats()").fetchall() == [("query history cleared",)]
    assert history(t) == []


def test_reads_and_writes(t, duckling):
    t.execute("SELECT i FROM dh.t WHERE i > 0").fetchall()
    t.execute("INSERT INTO dh.t VALUES (7), (8)").fetchall()
    rows = history(t, "catalog, server, kind, rows_changed, error")
    server = f"localhost:{duckling.port}"
    assert rows == [("dh", server, "read", None, None), ("dh", server, "write", 2, None)]
    sql, number, length = history(t, "sql, rows, bytes")[0]
    assert sql.startswith("SELECT i FROM t")
    assert number == 2 and length > 0
    started, took, took_there = history(t, "start_time, duration_ms, server_ms")[0]
    now = datetime.datetime.now(datetime.timezone.utc).replace(tzinfo=None)
    assert datetime.timedelta(0) <= now - started < datetime.timedelta(minutes=5)
    assert 0 < took_there <= took < 60_000


def test_ids_rise(t):
    for _ in range(3):
        t.execute("FROM dh.t").fetchall()
    ids = [row[0] for row in history(t, "id")]
    assert ids == sorted(set(ids)) and len(ids) == 3


def test_errors(t):
    with pytest.raises(duckdb.ConversionException):
        t.execute("SELECT ('x' || i)::INTEGER FROM dh.t").fetchall()
    with pytest.raises(duckdb.InvalidInputException):
        t.execute("SELECT error('boom ' || i) FROM dh.t").fetchall()
    errors = history(t, "error, rows, server_ms")
    assert "Could not convert" in errors[0][0]
    assert "boom" in errors[1][0]
    assert [row[1:] for row in errors] == [(None, None)] * 2


def test_a_result_that_is_not_read_to_its_end(t):
    t.execute("CREATE TABLE dh.big AS SELECT i FROM range(5000000) r(i)")
    cursor = t.cursor()
    cursor.execute("FROM dh.big").fetchone()
    cursor.close()
    assert [row[0] for row in history(t, "sql")][-1].endswith("big")


def test_queries_on_the_history(t):
    t.execute("FROM dh.t").fetchall()
    query = "SELECT kind, count(*) FROM duckherder_get_query_history() WHERE rows = 3 GROUP BY kind"
    assert t.execute(query).fetchall() == [("read", 1)]


def test_it_belongs_to_the_process(t, con):
    t.execute("FROM dh.t").fetchall()
    with connect() as second:
        assert len(history(second)) == 1


def test_long_sql_is_cut(t):
    t.execute(f"SELECT '{'x' * 100_000}' FROM dh.t LIMIT 1").fetchall()
    assert len(history(t, "sql")[0][0]) == 64 * 1024
