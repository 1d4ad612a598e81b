"""The duckling inside the user's process."""

import socket

import duckdb
import pytest

from conftest import attach_sql, connect, free_port


@pytest.fixture
def local_port(con):
    """The port of a local server, which is stopped afterwards."""
    text = con.execute("SELECT duckherder_start_local_server(0)").fetchone()[0]
    yield int(text.rsplit(":", 1)[1])
    con.execute("SELECT duckherder_stop_local_server()")


def test_starting_twice(con, local_port):
    with pytest.raises(duckdb.InvalidInputException, match=f"{local_port}.*duckherder_stop_local_server"):
        con.execute("SELECT duckherder_start_local_server(0)")
    with connect() as second, pytest.raises(duckdb.InvalidInputException, match=f"{local_port}"):
        second.execute("SELECT duckherder_start_local_server(0)")
    con.execute(attach_sql(local_port))
    assert con.execute("CREATE TABLE dh.t AS SELECT 1 AS i").fetchall() == [(1,)]


def test_stopping_when_none_runs(con):
    with pytest.raises(duckdb.InvalidInputException, match="no local server runs.*duckherder_start_local_server"):
        con.execute("SELECT duckherder_stop_local_server()")
    assert con.execute("SELECT 42").fetchall() == [(42,)]


def test_a_port_that_is_taken(con):
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        with pytest.raises(duckdb.IOException, match=f"{port}.*another process.*choose another port"):
            con.execute(f"SELECT duckherder_start_local_server({port})")
    con.execute("SELECT duckherder_start_local_server(0)")
    con.execute("SELECT duckherder_stop_local_server()")


@pytest.mark.parametrize("arguments", ["NULL", "-1", "70000", "8815, NULL", "8815, -1"])
def test_wrong_arguments(con, arguments):
    with pytest.raises(duckdb.InvalidInputException, match="duckherder_start_local_server: "):
        con.execute(f"SELECT duckherder_start_local_server({arguments})")


def test_workers(con):
    text = con.execute("SELECT duckherder_start_local_server(0, 2)").fetchone()[0]
    assert text.endswith("with 2 workers")
    con.execute(attach_sql(text.split()[4].rsplit(":", 1)[1]))
    workers = con.execute("SELECT state, registered FROM duckherder_workers()").fetchall()
    assert workers == [("alive", "joined")] * 2
    con.execute("DETACH dh")
    assert con.execute("SELECT duckherder_stop_local_server()").fetchone()[0].endswith("and 2 workers stopped")


def test_stop_and_start_again_on_the_same_port(con):
    port = free_port()
    for name in ["first", "second"]:
        con.execute(f"SELECT duckherder_start_local_server({port})")
        con.execute(attach_sql(port, name))
        # Its database was in memory.
        con.execute(f"CREATE TABLE {name}.t AS SELECT 1 AS i")
        con.execute("SELECT duckherder_stop_local_server()")
        con.execute(f"DETACH {name}")


def test_not_at_bind_time(con):
    con.execute("EXPLAIN SELECT duckherder_start_local_server(0)")
    con.execute("PREPARE start AS SELECT duckherder_start_local_server(0)")
    relation = con.sql("SELECT duckherder_start_local_server(0) AS message")
    assert relation.columns == ["message"]
    with pytest.raises(duckdb.InvalidInputException, match="no local server runs"):
        con.execute("SELECT duckherder_stop_local_server()")


def test_the_process_ends_while_it_runs(child):
    process = child(
        """
        con = connect()
        port = con.execute("SELECT duckherder_start_local_server(0)").fetchone()[0].rsplit(":", 1)[1]
        con.execute(attach_sql(port))
        con.execute("CREATE TABLE dh.t AS SELECT i FROM range(1000000) r(i)")
        con.execute("FROM dh.t").fetchone()
        """
    )
    process.finish()


def test_stopped_while_attached(child):
    process = child(
        """
        con = connect()
        port = con.execute("SELECT duckherder_start_local_server(0)").fetchone()[0].rsplit(":", 1)[1]
        con.execute(attach_sql(port))
        con.execute("CREATE TABLE dh.t AS SELECT i FROM range(1000000) r(i)")
        con.execute("SELECT duckherder_stop_local_server()")
        try:
            con.execute("FROM dh.t").fetchall()
        except duckdb.ConnectionException as error:
            print("localhost:" + port in str(error))
        con.execute("DETACH dh")
        assert con.execute("SELECT 42").fetchall() == [(42,)]
        """
    )
    assert process.finish() == "True"
