"""Long results and long statements: stopped early, interrupted, abandoned."""

import pathlib
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


def test_a_client_that_dies_leaves_nothing_running(child, t, duckling):
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
    process.process.kill()
    process.process.wait(DEADLINE_S)
    assert t.execute("FROM dh.t").fetchall() == [(1,)]
    duckling.process.send_signal(signal.SIGTERM)
    assert duckling.process.wait(SOON_S) == 0


def test_an_error_in_the_middle_of_a_result(dh):
    dh.execute("CREATE TABLE dh.t AS SELECT i FROM range(3000000) r(i)")
    dh.execute("SELECT CASE WHEN i = 2999999 THEN error('late') ELSE i END FROM dh.t")
    with pytest.raises(duckdb.InvalidInputException, match="late"):
        while dh.fetchmany(100_000):
            pass
    assert dh.execute("SELECT count(*) FROM dh.t").fetchall() == [(3_000_000,)]


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
