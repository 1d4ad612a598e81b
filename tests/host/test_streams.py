"""Long results and long statements: stopped early, interrupted, abandoned."""

import signal
import threading
import time

import duckdb
import pytest

from conftest import DEADLINE_S, poll

# Would run for hours.
ENDLESS = "SELECT count(*) FROM dh.t, range(100000000000) a(x), range(1000) b(y) WHERE hash(i, x, y) = 42"
# For a reaction of people's liking; far below the time that the statement would take.
SOON_S = 4


@pytest.fixture
def t(dh):
    dh.execute("CREATE TABLE dh.t AS SELECT 1 AS i")
    return dh


def create_big(con, rows):
    con.execute(f"CREATE TABLE dh.big AS SELECT i, hash(i) AS h FROM range({rows}) r(i)")


def test_limit_is_quick(dh):
    create_big(dh, 10_000_000)
    dh.execute("CREATE TABLE l AS SELECT 1 AS one")
    started = time.monotonic()
    assert len(dh.execute("FROM dh.big LIMIT 1").fetchall()) == 1
    assert len(dh.execute("SELECT i FROM dh.big, l LIMIT 1").fetchall()) == 1
    assert len(dh.execute("SELECT * FROM (FROM dh.big), l LIMIT 10").fetchall()) == 10
    assert time.monotonic() - started < SOON_S


def test_closing_a_cursor_stops_the_statement(dh, duckling, other):
    create_big(dh, 10_000_000)
    for _ in range(5):
        cursor = dh.cursor()
        assert cursor.execute("FROM dh.big").fetchone() is not None
        cursor.close()
    started = time.monotonic()
    assert other.execute("SELECT count(*) FROM dh.big").fetchall() == [(10_000_000,)]
    assert time.monotonic() - started < SOON_S
    duckling.process.send_signal(signal.SIGTERM)
    assert duckling.process.wait(SOON_S) == 0


def test_another_statement_replaces_a_pending_result(dh):
    create_big(dh, 5_000_000)
    for _ in range(10):
        dh.execute("FROM dh.big").fetchone()
    assert dh.execute("SELECT count(*) FROM dh.big").fetchall() == [(5_000_000,)]


def test_many_pending_results_at_once(dh):
    create_big(dh, 5_000_000)
    cursors = [dh.cursor() for _ in range(20)]
    for cursor in cursors:
        assert cursor.execute("SELECT i FROM dh.big").fetchone() == (0,)
    assert dh.execute("SELECT count(*) FROM dh.big").fetchall() == [(5_000_000,)]
    for cursor in cursors:
        assert cursor.fetchone() == (1,)
        cursor.close()


@pytest.mark.parametrize(
    "statement",
    [
        ENDLESS,
        ENDLESS.replace("count(*)", "i, x, y"),
        "INSERT INTO dh.t " + ENDLESS,
    ],
    ids=["aggregate", "rows", "insert"],
)
def test_control_c(child, t, duckling, statement):
    process = child(
        """
        import signal, time
        con = connect()
        con.execute(attach_sql(sys.argv[1]))
        signal.signal(signal.SIGINT, signal.default_int_handler)
        print("running")
        try:
            con.execute(sys.argv[2]).fetchall()
        except (KeyboardInterrupt, duckdb.InterruptException):
            print("interrupted")
        except RuntimeError as error:
            # What DuckDB's Python client makes of Ctrl-C.
            print("interrupted" if "interrupted" in str(error) else error)
        for _ in range(3):
            try:
                assert con.execute("FROM dh.t").fetchall() == [(1,)]
                break
            except KeyboardInterrupt:
                pass
        con.execute("INSERT INTO dh.t VALUES (2)")
        print("usable")
        """,
        duckling.port,
        statement,
    )
    assert process.line() == "running"
    time.sleep(0.5)  # The point is an interrupt in the middle, of which there is no sign to wait for.
    started = time.monotonic()
    process.process.send_signal(signal.SIGINT)
    assert process.line() == "interrupted"
    assert time.monotonic() - started < SOON_S
    assert process.line() == "usable"
    process.finish()
    assert t.execute("FROM dh.t").fetchall() == [(1,), (2,)]


def interrupt_later(con, running):
    """con.interrupt() from another thread, again and again until `running` is cleared: the first may come too early."""

    def interrupt():
        time.sleep(0.3)
        while running.is_set():
            con.interrupt()
            time.sleep(0.3)

    running.set()
    thread = threading.Thread(target=interrupt, daemon=True)
    thread.start()
    return thread


@pytest.mark.parametrize("in_transaction", [False, True])
def test_interrupt_from_another_thread(t, in_transaction):
    if in_transaction:
        t.begin()
        t.execute("INSERT INTO dh.t VALUES (2)")
    running = threading.Event()
    thread = interrupt_later(t, running)
    started = time.monotonic()
    with pytest.raises(duckdb.InterruptException):
        t.execute(ENDLESS).fetchall()
    assert time.monotonic() - started < SOON_S
    running.clear()
    thread.join()
    if in_transaction:
        t.rollback()
    assert t.execute("FROM dh.t").fetchall() == [(1,)]


def test_an_interrupted_statement_ends_on_the_server(t, duckling):
    running = threading.Event()
    thread = interrupt_later(t, running)
    with pytest.raises(duckdb.InterruptException):
        t.execute(ENDLESS).fetchall()
    running.clear()
    thread.join()
    duckling.process.send_signal(signal.SIGTERM)
    # Less than the drain timeout: nothing runs any more.
    assert duckling.process.wait(SOON_S) == 0


@pytest.mark.parametrize("after_s", [0, 0.5], ids=["at once", "later"])
def test_a_client_that_dies_leaves_nothing_running(child, t, duckling, after_s):
    process = child(
        """
        con = connect()
        con.execute(attach_sql(sys.argv[1]))
        con.begin()
        con.execute("UPDATE dh.t SET i = 100")
        print("running")
        con.execute(sys.argv[2]).fetchall()
        """,
        duckling.port,
        ENDLESS,
    )
    assert process.line() == "running"
    time.sleep(after_s)
    process.process.kill()
    process.process.wait(DEADLINE_S)
    assert t.execute("FROM dh.t").fetchall() == [(1,)]
    # Its transaction, too, or the last checkpoint would wait for it.
    duckling.process.send_signal(signal.SIGTERM)
    assert duckling.process.wait(SOON_S) == 0


def test_an_error_in_the_middle_of_a_result(dh):
    dh.execute("CREATE TABLE dh.t AS SELECT i FROM range(3000000) r(i)")
    dh.execute("SELECT CASE WHEN i = 2999999 THEN error('late') ELSE i END FROM dh.t")
    with pytest.raises(duckdb.InvalidInputException, match="late"):
        while dh.fetchmany(100_000):
            pass
    assert dh.execute("SELECT count(*) FROM dh.t").fetchall() == [(3_000_000,)]


# Takes a while for each of its rows.
SLOW = "SELECT sum(list_sum([hash(i, x) % 10 for x in range(1000)]))"


@pytest.mark.parametrize(
    "query",
    [
        f"{SLOW} FROM dh.big",
        f"FROM dh.query('{SLOW} FROM big')",
        f"CREATE TABLE dh.made AS {SLOW} FROM dh.big",
        # The duckling's part of a query that runs here.
        f"SELECT * FROM ({SLOW} AS s FROM dh.big), l WHERE s > l.one",
    ],
)
def test_the_progress_bar_moves(dh, query):
    create_big(dh, 2_000_000)
    dh.execute("CREATE TABLE l AS SELECT 1 AS one")
    dh.execute("SET enable_progress_bar = true; SET enable_progress_bar_print = false")
    failures = []

    def run():
        try:
            dh.execute(query)
        except duckdb.InterruptException as error:
            failures.append(error)

    running = threading.Thread(target=run)
    running.start()
    try:
        first = poll(lambda: max(dh.query_progress(), 0), "a first step")
        assert first < 100
        poll(lambda: dh.query_progress() > first, "a second step")
    finally:
        dh.interrupt()
        running.join()
    assert failures, "it ran to its end"
