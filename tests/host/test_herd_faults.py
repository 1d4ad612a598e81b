"""What a herd does when its members die, stop and come back, as whole processes."""

import threading
import time

import duckdb
import pytest

from conftest import DEADLINE_S, connect, poll
from herd import Herd


@pytest.fixture
def herd(tmp_path):
    herd = Herd(tmp_path)
    yield herd
    herd.close()


@pytest.fixture
def con(herd):
    con = herd.connect()
    con.execute("CREATE TABLE dh.t (k BIGINT, v VARCHAR) PARTITIONED BY (k) WITH (partitions = 7)")
    con.execute("INSERT INTO dh.t SELECT range, 'v' || range % 10 FROM range(20_000)")
    yield con
    con.close()


TOTAL = "SELECT count(*), sum(k) FROM dh.t"
SHUFFLE = "SELECT count(*) FROM dh.t a JOIN dh.t b ON a.k = b.k + 1"
#: Runs until it is stopped: every worker makes rows for all others.
LONG = "SELECT count(*) FROM dh.t a JOIN dh.t b ON a.v = b.v JOIN dh.t c ON b.v = c.v WHERE a.k + b.k + c.k = -1"


def states(con):
    return con.execute("FROM dh.query('SELECT state FROM duckling_workers() ORDER BY address')").fetchall()


def fails(con, sql):
    with pytest.raises(duckdb.Error) as raised:
        con.execute(sql).fetchall()
    return str(raised.value)


def test_a_worker_that_dies_is_named_and_comes_back(herd, con):
    worker = herd.workers[1]
    worker.kill()
    poll(lambda: ("down",) in states(con), "the dead worker is found down", 10)
    started = time.monotonic()
    message = fails(con, TOTAL)
    assert "worker" in message and time.monotonic() - started < 5, message
    # Its rows are in its file: it is the same worker again.
    herd.restart(1)
    assert con.execute(TOTAL).fetchall() == [(20_000, 199_990_000)]
    assert con.execute(SHUFFLE).fetchall() == [(19_999,)]


def test_a_worker_that_dies_in_the_middle_of_a_query_ends_it(herd, con):
    outcome = []

    def run():
        try:
            outcome.append(con.execute(LONG).fetchall())
        except duckdb.Error as error:
            outcome.append(str(error))

    thread = threading.Thread(target=run)
    thread.start()
    other = herd.connect()
    running = "FROM dh.query('SELECT count(*) FROM duckling_history() WHERE state = ''running'' AND sql LIKE ''%c.k%''')"
    poll(lambda: other.execute(running).fetchall() != [(0,)], "the query runs")
    herd.workers[2].kill()
    thread.join(DEADLINE_S)
    assert not thread.is_alive()
    assert "worker" in outcome[0], outcome
    herd.restart(2)
    assert other.execute(TOTAL).fetchall() == [(20_000, 199_990_000)]
    other.close()


def test_an_interrupt_stops_the_query_on_all_workers(herd, con):
    timer = threading.Timer(1.0, con.interrupt)
    timer.start()
    started = time.monotonic()
    fails(con, LONG)
    assert time.monotonic() - started < 5
    ports = [worker.port for worker in herd.workers]
    quiet = "FROM w.query('SELECT count(*) FROM duckling_history() WHERE state = ''running'' AND sql LIKE ''%duckherder_ex'' || ''change%''')"
    for port in ports:
        own = connect()
        own.execute(f"ATTACH 'w' (TYPE duckherder, server_host 'localhost', server_port {port})")
        poll(lambda: own.execute(quiet).fetchall() == [(0,)], "nothing runs any more", 5)
        own.close()
    assert con.execute(TOTAL).fetchall() == [(20_000, 199_990_000)]


def test_a_coordinator_that_dies_finds_everything_again(herd, con):
    herd.restart_coordinator(kill=True)
    again = herd.connect()
    assert again.execute(TOTAL).fetchall() == [(20_000, 199_990_000)]
    assert again.execute("SELECT v FROM dh.t WHERE k = 17").fetchall() == [("v7",)]
    again.close()


def test_a_transaction_whose_worker_dies_is_not_committed(herd, con):
    con.execute("BEGIN")
    con.execute("INSERT INTO dh.t SELECT range, 'new' FROM range(1_000_000, 1_000_100)")
    herd.workers[0].kill()
    fails(con, "COMMIT")
    herd.restart(0)
    other = herd.connect()
    count = other.execute("SELECT count(*) FROM dh.t WHERE v = 'new'").fetchone()[0]
    assert count < 100, "not all of it can be there: one worker had died before"
    other.close()
