"""What a herd does when its members die, stop and come back, as whole processes."""

import json
import threading
import time

import duckdb
import pytest

from conftest import DEADLINE_S, attach_sql, connect, forget_peak, memory_mib, poll
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


@pytest.fixture
def start_herd(tmp_path):
    """Starts herds: `start_herd(workers, *arguments)`."""
    started = []

    def start(*arguments, **more):
        started.append(Herd(tmp_path, *arguments, **more))
        return started[-1]

    yield start
    for herd in started:
        herd.close()


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


def test_a_coordinator_killed_while_it_writes_leaves_whole_parts(herd, con):
    con.execute("CREATE TABLE dh.w (k BIGINT, batch INTEGER) PARTITIONED BY (k) WITH (partitions = 6)")
    acknowledged = []

    def write():
        for batch in range(10_000):
            try:
                con.execute(f"INSERT INTO dh.w SELECT range, {batch} FROM range(3000)")
            except duckdb.Error:
                return
            acknowledged.append(batch)

    thread = threading.Thread(target=write)
    thread.start()
    poll(lambda: len(acknowledged) > 3, "rows are written")
    herd.restart_coordinator(kill=True)
    thread.join(DEADLINE_S)
    assert not thread.is_alive()
    again = herd.connect()
    batches = dict(again.execute("SELECT batch, count(*) FROM dh.w GROUP BY ALL").fetchall())
    assert all(batches.pop(batch) == 3000 for batch in acknowledged)
    assert len(batches) <= 1, "only one was under way"
    # Of that one, every worker has its part or nothing.
    for worker in herd.workers:
        own = connect()
        own.execute(attach_sql(worker.port, "w"))
        parts = dict(own.execute("SELECT batch, count(*) FROM w.w GROUP BY ALL").fetchall())
        assert len(set(parts.values())) == 1, parts
        own.close()
    # Nothing of it holds anybody up.
    assert again.execute("INSERT INTO dh.w SELECT range, -1 FROM range(3000)").fetchall() == [(3000,)]
    assert again.execute("DELETE FROM dh.w WHERE batch = -1").fetchall() == [(3000,)]
    again.close()


def test_default_partitions_spread_tables_without_clauses(start_herd):
    herd = start_herd(2, coordinator_arguments=["--default-partitions", "5"])
    con = herd.connect()
    con.execute("CREATE TABLE dh.keyed (id BIGINT PRIMARY KEY, s VARCHAR)")
    con.execute("INSERT INTO dh.keyed SELECT range, 'x' FROM range(1000)")
    con.execute("CREATE TABLE dh.made AS SELECT range AS n FROM range(1000)")
    for table, keyed in (("keyed", True), ("made", False)):
        partitions = con.execute(f"SELECT partition, rows FROM duckherder_partitions('{table}')").fetchall()
        assert len(partitions) == 5
        if keyed:
            assert sum(rows for _, rows in partitions) == 1000
        assert con.execute(f"SELECT count(*) FROM dh.{table}").fetchall() == [(1000,)]
    counts = []
    for worker in herd.workers:
        own = connect()
        own.execute(attach_sql(worker.port, "w"))
        counts.append(own.execute("SELECT (SELECT count(*) FROM w.keyed), (SELECT count(*) FROM w.made)").fetchone())
        own.close()
    assert [sum(column) for column in zip(*counts)] == [1000, 1000] and all(map(all, counts)), counts
    con.close()


def test_a_shuffle_larger_than_memory_stays_below_the_limit(start_herd):
    limit_mib, rows = 400, 3_000_000
    herd = start_herd(2, "--memory-limit", f"{limit_mib}MiB")
    con = herd.connect()
    idle = [memory_mib(worker) for worker in herd.workers]
    con.execute("CREATE TABLE dh.t (k BIGINT, v BIGINT, s VARCHAR) PARTITIONED BY (k) WITH (partitions = 4)")
    # Made on the coordinator; different texts, so that they are no smaller in DuckDB.
    con.execute(
        "FROM dh.query('INSERT INTO t SELECT i, hash(i) % 3_000_000, repeat(md5(i::VARCHAR), 8) "
        f"FROM range({rows}) r(i)')"
    )
    for worker in herd.workers:
        forget_peak(worker)
    # Every row goes to the worker of its v: 780 MB, half of them to the other one.
    numbered = "SELECT v, s, row_number() OVER (PARTITION BY v ORDER BY k) AS n FROM dh.t"
    longest = f"SELECT max(length(s || n)) > 256, count(*) FILTER (n >= 1) FROM ({numbered})"
    assert con.execute(longest).fetchall() == [(True, rows)]
    stages = con.execute(
        "SELECT execution_mode, bytes_moved, stages FROM duckherder_get_query_execution_stats() "
        "ORDER BY execution_start_time DESC LIMIT 1"
    ).fetchone()
    spilled = sum(stage["spilled_bytes"] for stage in json.loads(stages[2]))
    assert stages[0] == "shuffle" and spilled > 0, stages
    # All of it: the program, DuckDB, exchanges, messages on their way, and what the allocator keeps.
    peaks = [memory_mib(worker, "VmHWM") for worker in herd.workers]
    assert max(peaks) < limit_mib, f"{idle} MiB idle, {peaks} MiB at most"
    con.close()
