"""Stopping a statement from here: Ctrl-C, interrupt(), results that nobody reads on."""

import signal
import threading
import time

import duckdb
import pytest

def test_many_pending_results_at_once(dh):
    dh.execute("CREATE TABLE dh.big AS SELECT i, hash(i) AS h FROM range(5000000) r(i)")
    cursors = [dh.cursor() for _ in range(20)]
    for cursor in cursors:
        assert cursor.execute("SELECT i FROM dh.big").fetchone() == (0,)
    assert dh.execute("SELECT count(*) FROM dh.big").fetchall() == [(5_000_000,)]
    for cursor in cursors:
        assert cursor.fetchone() == (1,)
        cursor.close()


ENDLESS = "SELECT count(*) FROM dh.t, range(100000000000) a(x), range(1000) b(y) WHERE hash(i, x, y) = 42"
SOON_S = 4


@pytest.fixture
def t(dh):
    dh.execute("CREATE TABLE dh.t AS SELECT 1 AS i")
    return dh


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
