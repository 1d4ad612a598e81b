"""Threads, processes, forks."""

import concurrent.futures

from conftest import connect

WORKERS = 32


def test_threads_with_cursors_of_one_connection(dh):
    dh.execute("CREATE TABLE dh.t AS SELECT i, i % 16 AS k FROM range(16000) r(i)")
    dh.execute("CREATE TABLE l AS SELECT i FROM range(16) r(i)")

    def work(worker):
        cursor = dh.cursor()
        for _ in range(5):
            assert cursor.execute(f"SELECT count(*) FROM dh.t WHERE k = {worker}").fetchall() == [(1000,)]
            mixed = f"SELECT count(*) FROM dh.t JOIN l ON k = l.i WHERE l.i = {worker}"
            assert cursor.execute(mixed).fetchall() == [(1000,)]
            cursor.execute(f"CREATE OR REPLACE TABLE dh.t{worker} AS SELECT {worker} AS w")
            assert cursor.execute(f"FROM dh.t{worker}").fetchall() == [(worker,)]
            cursor.execute(f"INSERT INTO dh.t{worker} VALUES (1)")
        cursor.close()

    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        list(pool.map(work, range(16)))


def test_threads_with_databases_of_their_own(duckling, other):
    other.execute("CREATE TABLE dh.t (worker INTEGER, i INTEGER)")

    def work(worker):
        with connect() as con:
            duckling.attach(con)
            for i in range(5):
                con.execute(f"INSERT INTO dh.t VALUES ({worker}, {i})")
            con.begin()
            con.execute(f"INSERT INTO dh.t VALUES ({worker}, 100)")
            con.commit() if worker % 2 else con.rollback()
            return con.execute(f"SELECT count(*) FROM dh.t WHERE worker = {worker}").fetchone()[0]

    with concurrent.futures.ThreadPoolExecutor(WORKERS) as pool:
        counts = list(pool.map(work, range(WORKERS)))
    assert counts == [6 if worker % 2 else 5 for worker in range(WORKERS)]
    assert other.execute("SELECT count(*) FROM dh.t").fetchall() == [(sum(counts),)]


def test_processes(child, duckling, other):
    other.execute("CREATE TABLE dh.t (worker INTEGER)")
    workers = [
        child(
            """
            con = connect()
            con.execute(attach_sql(sys.argv[1]))
            for _ in range(5):
                con.execute(f"INSERT INTO dh.t VALUES ({sys.argv[2]})")
            print(con.execute(f"SELECT count(*) FROM dh.t WHERE worker = {sys.argv[2]}").fetchone()[0])
            """,
            duckling.port,
            worker,
        )
        for worker in range(8)
    ]
    assert [worker.finish() for worker in workers] == ["5"] * 8
    assert other.execute("SELECT count(*) FROM dh.t").fetchall() == [(40,)]


FORK = """
import os, signal
con = connect()
{before}
pid = os.fork()
if pid == 0:
    signal.alarm(20)
    faulthandler.dump_traceback_later(15, exit=True)
    status = 1
    try:
        {child}
        status = 0
    except BaseException as error:
        print(repr(error), file=sys.stderr, flush=True)
    os._exit(status)
assert os.waitpid(pid, 0)[1] == 0, "the forked child failed"
{after}
"""
ATTACH = "con.execute(attach_sql(sys.argv[1])); con.execute('CREATE TABLE dh.t AS SELECT 1 AS i'); con.execute('FROM dh.t').fetchall()"
USE = "assert con.execute('FROM dh.t').fetchall() == [(1,)]"


def test_a_forked_child_with_a_duckdb_of_its_own(child, duckling):
    use = "own = connect(); own.execute(attach_sql(sys.argv[1])); assert own.execute('FROM dh.t').fetchall() == [(1,)]; own.close()"
    child(FORK.format(before=ATTACH, child=use, after=USE), duckling.port).finish()


def test_a_forked_child_that_uses_what_is_its_parents(child, duckling):
    use = """
        try:
            con.execute('FROM dh.t').fetchall()
            raise AssertionError('it worked')
        except duckdb.ConnectionException as error:
            assert 'forked' in str(error), error
    """.strip()
    child(FORK.format(before=ATTACH, child=use, after=USE), duckling.port).finish()


def test_loaded_before_the_fork_and_used_after(child, duckling):
    use = "con.execute(attach_sql(sys.argv[1])); con.execute('CREATE TABLE dh.t AS SELECT 1 AS i'); " + USE
    child(FORK.format(before="", child=use, after="con.execute(attach_sql(sys.argv[1])); " + USE), duckling.port).finish()


def test_a_forked_child_and_its_parents_local_server(child):
    start = (
        "port = con.execute('SELECT duckherder_start_local_server(0)').fetchone()[0].rsplit(':', 1)[1]; "
        "con.execute(attach_sql(port)); con.execute('CREATE TABLE dh.t AS SELECT 1 AS i')"
    )
    use = (
        "own = connect(); own.execute('SELECT duckherder_start_local_server(0)'); "
        "own.execute(attach_sql(port)); assert own.execute('FROM dh.t').fetchall() == [(1,)]; "
        "own.execute('SELECT duckherder_stop_local_server()')"
    )
    # The child asks its parent's server while the parent waits: its threads answer.
    child(FORK.format(before=start, child=use, after=USE)).finish()


def test_exit_without_closing(child, duckling):
    child(
        """
        con = connect()
        con.execute(attach_sql(sys.argv[1]))
        con.execute("CREATE TABLE dh.t AS SELECT i FROM range(1000000) r(i)")
        cursor = con.cursor()
        cursor.execute("FROM dh.t")
        cursor.fetchone()
        con.begin()
        con.execute("INSERT INTO dh.t VALUES (1)")
        """,
        duckling.port,
    ).finish()
    with connect() as con:
        duckling.attach(con)
        assert con.execute("SELECT count(*) FROM dh.t").fetchall() == [(1_000_000,)]
