"""Large results, which come over several connections."""

import contextlib
import pathlib
import signal
import threading
import time

import duckdb
import pytest

from conftest import poll
from herd import Herd

# For a reaction of people's liking.
SOON_S = 4

WIDE = "SELECT i, repeat(chr((65 + i % 26)::INTEGER), 100) AS s FROM range(1_000_000) r(i)"


@pytest.fixture
def wide(con, duckling):
    """`con` with a duckling whose large results come in four streams, and its table dh.wide of some 110 MB."""
    duckling.attach(con, more=", streams 4")
    con.execute(f"CREATE TABLE dh.wide AS {WIDE}")
    return con


def connections(duckling):
    """How many clients' connections it has."""
    tables = [pathlib.Path(f"/proc/net/{name}") for name in ("tcp", "tcp6")]
    lines = [line.split() for table in tables if table.exists() for line in table.read_text().splitlines()[1:]]
    established = [line for line in lines if line[3] == "01"]
    return sum(int(line[1].rsplit(":", 1)[1], 16) == duckling.port for line in established)


def test_a_large_result_in_several_streams(wide, duckling):
    assert connections(duckling) == 1
    wide.execute("SELECT i, s FROM dh.wide LIMIT 100000").fetchall()
    assert connections(duckling) == 1
    wide.execute("CREATE TABLE here AS FROM dh.wide")
    assert connections(duckling) == 4
    # The rows that DuckDB itself makes, in their order.
    assert wide.execute(f"SELECT count(*) FROM (FROM here EXCEPT ALL ({WIDE}))").fetchall() == [(0,)]
    in_place = "SELECT count(*) FROM (SELECT i, row_number() OVER () - 1 AS place FROM here) WHERE i = place"
    assert wide.execute(in_place).fetchall() == [(1_000_000,)]
    # Read by rows, in the order that was asked for.
    wide.execute("SELECT i FROM dh.wide WHERE length(s) = 100 ORDER BY i DESC")
    assert [row[0] for row in wide.fetchmany(1000)] == list(range(999_999, 998_999, -1))
    history = "FROM duckherder_get_query_history() SELECT rows_received WHERE sql LIKE '%wide%' AND rows_received = 1000000"
    assert wide.execute(history).fetchall() != []
    wide.execute("DETACH dh")
    poll(lambda: connections(duckling) == 0, "DETACH closes all connections")


def test_several_streams_joined_with_what_is_here(wide):
    wide.execute("CREATE TABLE l AS SELECT i FROM range(0, 1_000_000, 3) r(i)")
    sql = "SELECT count(*), sum(w.i), sum(length(s)), min(s), max(s) FROM {} w LEFT JOIN l USING (i)"
    expected = wide.execute(sql.format(f"({WIDE})")).fetchall()
    assert wide.execute(sql.format("dh.wide")).fetchall() == expected


@pytest.mark.parametrize("in_transaction", [False, True])
def test_several_streams_that_are_given_up(wide, duckling, in_transaction):
    if in_transaction:
        wide.begin()
        wide.execute("INSERT INTO dh.wide VALUES (-1, 'new')")
    endless = "SELECT w.i, w.s FROM dh.wide w, range(100000) r(x)"
    for _ in range(3):
        # More than comes in one stream.
        assert len(wide.execute(endless).fetchmany(600_000)) == 600_000
    assert connections(duckling) == 4
    started = time.monotonic()
    assert wide.execute("SELECT count(*) FROM dh.wide").fetchall() == [(1_000_000 + in_transaction,)]
    assert time.monotonic() - started < SOON_S
    if in_transaction:
        wide.commit()
    duckling.process.send_signal(signal.SIGTERM)
    # Less than the drain timeout: nothing runs any more.
    assert duckling.process.wait(SOON_S) == 0


@pytest.mark.parametrize("in_transaction", [False, True])
def test_interrupt_while_several_streams_are_read(wide, duckling, in_transaction):
    if in_transaction:
        wide.begin()
    stopped = []

    def interrupt():
        poll(lambda: connections(duckling) == 4, "the result comes in several streams")
        while not stopped:
            stopped.append(time.monotonic())
            wide.interrupt()

    thread = threading.Thread(target=interrupt, daemon=True)
    thread.start()
    with pytest.raises(duckdb.InterruptException):
        wide.execute("CREATE TABLE here AS SELECT w.i, w.s FROM dh.wide w, range(100000) r(x)")
    assert time.monotonic() - stopped[0] < SOON_S
    thread.join()
    if in_transaction:
        wide.rollback()
    assert wide.execute("SELECT count(*) FROM dh.wide").fetchall() == [(1_000_000,)]
    duckling.process.send_signal(signal.SIGTERM)
    assert duckling.process.wait(SOON_S) == 0


def test_a_server_that_dies_while_it_sends_several_streams(wide, duckling):
    endless = "SELECT w.i, w.s FROM dh.wide w, range(100000) r(x)"
    assert len(wide.execute(endless).fetchmany(600_000)) == 600_000
    assert connections(duckling) == 4
    duckling.kill()
    with pytest.raises(duckdb.Error, match="lost the connection"):
        while wide.fetchmany(100_000):
            pass
    assert wide.execute("SELECT 42").fetchall() == [(42,)]


def test_one_stream_if_that_is_wanted(con, duckling):
    duckling.attach(con, more=", streams 1")
    con.execute(f"CREATE TABLE dh.wide AS {WIDE}; CREATE TABLE here AS FROM dh.wide")
    assert connections(duckling) == 1
    with pytest.raises(duckdb.InvalidInputException, match="streams must be a number from 1 to 16, not '0'"):
        duckling.attach(con, "other", more=", streams 0")


LONG = """
    SELECT i, x AS a, [x, NULL, i::VARCHAR] AS b, {'i': i % 3, 's': [x]} AS c, [x, x]::VARCHAR[2] AS d,
        [i % 2 = 0, NULL, i % 5 = 0]::BOOLEAN[3] AS e, range(i % 50 * 100) AS f, MAP {i: x} AS g
    FROM (SELECT i, CASE WHEN i % 10 < 9 THEN repeat(chr((97 + i % 26)::INTEGER), (i % 40 * 300)::INTEGER) END AS x
          FROM range(1500) r(i))
"""


@pytest.mark.parametrize("clauses", ["", " PARTITIONED BY (i) WITH (partitions = 3)"], ids=["plain", "partitioned"])
def test_rows_that_are_too_long_for_one_message(tmp_path, clauses):
    """Each upload and result here is of more bytes than a message, in fewer rows than DuckDB has in one chunk."""
    with contextlib.closing(Herd(tmp_path, 2)) as herd, herd.connect() as con:
        con.execute(f"CREATE TABLE here AS {LONG}")
        con.execute(f"CREATE TABLE dh.there{clauses} AS FROM here LIMIT 0")
        con.execute("INSERT INTO dh.there FROM here")
        con.execute("CREATE TABLE back AS FROM dh.there")
        assert con.execute("SELECT count(*), sum(length(a)), sum(length(d[2])) FROM back").fetchall() == con.execute(
            "SELECT count(*), sum(length(a)), sum(length(d[2])) FROM here"
        ).fetchall()
        assert con.execute("SELECT count(*) FROM (FROM here EXCEPT ALL FROM back)").fetchall() == [(0,)]
