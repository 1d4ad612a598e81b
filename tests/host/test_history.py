"""What duckherder_get_query_history(), and the duckling's own duckling_history(), tell."""

import datetime
import threading
import uuid

import duckdb
import pytest

from conftest import connect, poll

COLUMNS = [
    ("id", "UUID"),
    ("catalog", "VARCHAR"),
    ("server", "VARCHAR"),
    ("sql", "VARCHAR"),
    ("kind", "VARCHAR"),
    ("state", "VARCHAR"),
    ("start_time", "TIMESTAMP"),
    ("duration_us", "BIGINT"),
    ("server_us", "BIGINT"),
    ("rows_sent", "UBIGINT"),
    ("rows_received", "UBIGINT"),
    ("bytes_sent", "UBIGINT"),
    ("bytes_received", "UBIGINT"),
    ("rows_changed", "BIGINT"),
    ("error_type", "VARCHAR"),
    ("error", "VARCHAR"),
]


@pytest.fixture
def t(dh):
    dh.execute("CREATE TABLE dh.t AS SELECT i FROM range(3) r(i)")
    dh.execute("SELECT duckherder_clear_query_recorder_stats()")
    return dh


def history(con, columns="*"):
    return con.execute(f"SELECT {columns} FROM (FROM duckherder_get_query_history() ORDER BY id)").fetchall()


def server_history(con, columns="*", where="true"):
    query = f"SELECT {columns} FROM (FROM duckherder_server_history('dh') WHERE {where} ORDER BY id)"
    return con.execute(query).fetchall()


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
    rows = history(t, "catalog, server, kind, state, rows_changed, error")
    server = f"localhost:{duckling.port}"
    assert rows == [
        ("dh", server, "read", "finished", None, None),
        ("dh", server, "write", "finished", 2, None),
    ]
    sql, number, length, sent = history(t, "sql, rows_received, bytes_received, bytes_sent")[0]
    assert sql.startswith("SELECT i FROM t")
    assert number == 2 and length > 0 and sent == len(sql)
    started, took, took_there = history(t, "start_time, duration_us, server_us")[0]
    now = datetime.datetime.now(datetime.timezone.utc).replace(tzinfo=None)
    assert datetime.timedelta(0) <= now - started < datetime.timedelta(minutes=5)
    assert 0 < took_there <= took < 60_000_000


def test_rows_changed(t):
    t.execute("CREATE TABLE rows AS SELECT i FROM range(10) r(i)")
    for sql, changed in [
        ("INSERT INTO dh.t VALUES (7), (8) RETURNING i", 2),
        ("UPDATE dh.t SET i = 9 WHERE i > 6", 2),
        ("MERGE INTO dh.t USING (VALUES (9), (10)) s(i) ON t.i = s.i WHEN NOT MATCHED THEN INSERT VALUES (s.i)", 1),
        ("DELETE FROM dh.t WHERE i = 9", 2),
        ("CREATE TABLE dh.copy AS FROM dh.t", 4),
        ("CREATE TABLE dh.sent AS FROM rows", 10),
        ("INSERT INTO dh.copy FROM rows", 10),
        ("ALTER TABLE dh.copy ADD COLUMN j INTEGER", None),
        ("FROM dh.copy", None),
    ]:
        t.execute(sql).fetchall()
        assert history(t, "rows_changed, state")[-1] == (changed, "finished"), sql


def test_uploads(t):
    t.execute("CREATE TABLE rows AS SELECT i FROM range(100_000) r(i)")
    t.execute("INSERT INTO dh.t FROM rows")
    columns = "sql, kind, rows_sent, rows_received, rows_changed, bytes_sent, bytes_received, server_us > 0"
    sql, kind, *counts, sent, received, timed = history(t, columns)[-1]
    assert (sql, kind, counts, received, timed) == (
        "INSERT INTO t (uploaded rows)", "write", [100_000, 0, 100_000], 0, True
    )
    assert 800_000 < sent < 1_000_000
    # The duckling has it as what came in.
    assert server_history(t, "kind, state, rows_received, rows_changed, bytes_received", f"sql = '{sql}'") == [
        ("write", "finished", 100_000, 100_000, sent)
    ]


def test_an_upload_that_fails(t):
    t.execute("CREATE TABLE dh.one (i INTEGER PRIMARY KEY)")
    t.execute("CREATE TABLE rows AS SELECT 1 AS i FROM range(2)")
    with pytest.raises(duckdb.ConstraintException):
        t.execute("INSERT INTO dh.one FROM rows")
    columns = "state, error_type, rows_changed"
    assert history(t, columns)[-1] == ("failed", "Constraint", None)
    assert server_history(t, columns, "sql LIKE '%uploaded%'") == [("failed", "Constraint", None)]


def test_ids_rise_and_are_unique(t):
    for _ in range(3):
        t.execute("FROM dh.t").fetchall()
    rows = history(t, "id, start_time")
    assert len({row[0] for row in rows}) == 3
    assert [row[1] for row in rows] == sorted(row[1] for row in rows)
    assert all(isinstance(row[0], uuid.UUID) and row[0].version == 7 for row in rows)


def test_errors(t):
    with pytest.raises(duckdb.ConversionException):
        t.execute("SELECT ('x' || i)::INTEGER FROM dh.t").fetchall()
    with pytest.raises(duckdb.InvalidInputException):
        t.execute("SELECT error('boom ' || i) FROM dh.t").fetchall()
    errors = history(t, "error, state, error_type, rows_received, server_us")
    assert "Could not convert" in errors[0][0]
    assert "boom" in errors[1][0]
    assert [row[1:] for row in errors] == [
        ("failed", "Conversion", 0, None),
        ("failed", "Invalid Input", 0, None),
    ]


def test_a_failure_before_anything_is_sent(t, duckling):
    t.execute("CONNECT dh")
    t.execute("SELECT 1").fetchall()
    duckling.kill()
    with pytest.raises(duckdb.Error):
        t.execute("SELECT 2").fetchall()
    with pytest.raises(duckdb.Error):
        t.execute("SELECT 3").fetchall()
    t.execute("DISCONNECT")
    rows = history(t, "sql, state, error_type")
    assert ("SELECT 3", "failed", "Connection") in rows, rows


def test_the_first_statement_of_a_connection_to_a_dead_server(t, duckling):
    second = t.cursor()
    duckling.kill()
    second.execute("CONNECT dh")
    with pytest.raises(duckdb.Error):
        second.execute("SELECT 4").fetchall()
    row = t.execute("SELECT state, error_type, bytes_sent FROM duckherder_get_query_history() WHERE sql = 'SELECT 4'")
    assert row.fetchall() == [("failed", "Connection", 0)]


def test_transactions(t):
    t.execute("BEGIN")
    t.execute("INSERT INTO dh.t VALUES (5)")
    t.execute("COMMIT")
    t.execute("BEGIN")
    t.execute("COMMIT")
    assert [row[1:] for row in history(t, "id, sql, kind, state")][1:] == [("COMMIT", "transaction", "finished")]


def test_a_result_that_is_not_read_to_its_end(t):
    t.execute("CREATE TABLE dh.big AS SELECT i FROM range(5000000) r(i)")
    cursor = t.cursor()
    cursor.execute("FROM dh.big").fetchone()
    cursor.close()
    state = poll(
        lambda: [row for row in history(t, "state, error_type, rows_received, sql") if row[0] == "cancelled"],
        "it counts as cancelled",
    )
    assert state[0][3].endswith("big")
    assert state[0][1] is None and 0 < state[0][2] < 5_000_000
    poll(lambda: server_history(t, "id", "state = 'cancelled' AND sql LIKE '%big'"), "there too")


def test_a_statement_is_seen_while_it_runs_and_after_it_was_interrupted(t, other):
    t.execute("CREATE TABLE dh.n AS SELECT i FROM range(100000) r(i)")
    slow = "SELECT count(*) FROM dh.n a, dh.n b WHERE a.i * b.i % 7 = 3"
    errors = []

    def run():
        try:
            t.execute(slow).fetchall()
        except duckdb.Error as error:
            errors.append(error)

    running = threading.Thread(target=run)
    running.start()
    found = "sql LIKE 'SELECT count%%7%'"
    poll(lambda: server_history(other, "id", f"state = 'running' AND {found}"), "seen by another client")
    # The history belongs to the process, so `other` sees both ends.
    both = f"""SELECT c.state, s.state, s.kind, c.duration_us > 0, s.rows_sent
        FROM duckherder_get_query_history() c JOIN duckherder_server_history('dh') s USING (id) WHERE s.{found}"""
    assert other.execute(both).fetchall() == [("running", "running", "read", True, 0)]
    t.interrupt()
    running.join()
    assert isinstance(errors[0], duckdb.InterruptException)
    poll(lambda: other.execute(both).fetchall()[0][:2] == ("cancelled", "cancelled"), "cancelled at both ends")


def test_the_server_tells_clients_apart(t, other):
    t.execute("SELECT 'mine' FROM dh.t").fetchall()
    other.execute("SELECT 'other' FROM dh.t").fetchall()
    rows = server_history(other, "session, client, sql", "sql LIKE 'SELECT %mine%' OR sql LIKE 'SELECT %other%'")
    rows = [row for row in rows if "duckling_history" not in row[2]]
    assert len({row[0] for row in rows}) == 2
    assert len({row[1] for row in rows}) == 2 and all(row[1].startswith("127.0.0.1:") for row in rows)


def test_the_servers_history_as_sql(t):
    t.execute("FROM dh.t").fetchall()
    t.execute("CONNECT dh")
    query = "SELECT count(*) FROM duckling_history() WHERE state = 'finished' AND rows_sent = 3"
    assert t.execute(query).fetchall() == [(1,)]
    t.execute("DISCONNECT")
    t.execute("USE dh")
    assert t.execute("SELECT count(*) FROM duckherder_server_history() WHERE rows_sent = 3").fetchall() == [(1,)]


def test_the_servers_history_can_be_bounded_and_turned_off(start_duckling, con):
    start_duckling("--history-statements", "2").attach(con)
    for _ in range(3):
        con.execute("CREATE OR REPLACE TABLE dh.t (i INTEGER)")
    assert len(server_history(con)) == 2
    start_duckling("--history-statements", "0").attach(con, "off")
    con.execute("CREATE TABLE off.t (i INTEGER)")
    assert con.execute("FROM duckherder_server_history('off')").fetchall() == []


def test_secrets_are_in_neither_history(t):
    t.execute("CONNECT dh")
    t.execute("CREATE SECRET s (TYPE http, BEARER_TOKEN 'hunter2')")
    with pytest.raises(duckdb.Error, match="nonsense"):
        t.execute("CREATE SECRET s2 (TYPE http, NONSENSE 'hunter2')")
    t.execute("DISCONNECT")
    for rows in [history(t, "sql, error"), server_history(t, "sql, error")]:
        assert "hunter2" not in str(rows)
        assert ("CREATE SECRET (text withheld)", None) in rows
        assert any((row[1] or "").endswith("Error: (message withheld)") for row in rows), rows


def test_queries_on_the_history(t):
    t.execute("FROM dh.t").fetchall()
    query = "SELECT kind, count(*) FROM duckherder_get_query_history() WHERE rows_received = 3 GROUP BY kind"
    assert t.execute(query).fetchall() == [("read", 1)]


def test_it_belongs_to_the_process(t, con):
    t.execute("FROM dh.t").fetchall()
    with connect() as second:
        assert len(history(second)) == 1


def test_long_sql_is_cut(t):
    t.execute(f"SELECT '{'x' * 100_000}' FROM dh.t LIMIT 1").fetchall()
    assert len(history(t, "sql")[0][0]) == 64 * 1024
    assert server_history(t, "max(length(sql))") == [(64 * 1024,)]
