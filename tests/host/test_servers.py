"""Servers that are not there, are something else, go away, come back."""

import contextlib
import re
import signal
import socket
import subprocess
import threading

import duckdb
import pytest

from conftest import DEADLINE_S, connect, free_port, poll, serve_arguments


@contextlib.contextmanager
def fake_server(answer):
    """A TCP server that hands every connection to `answer`; gives its port."""
    connections = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve():
            while True:
                try:
                    connection = listener.accept()[0]
                except OSError:
                    return
                connections.append(connection)
                threading.Thread(target=guarded, args=(connection,), daemon=True).start()

        def guarded(connection):
            with contextlib.suppress(OSError):
                answer(connection)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
    thread.join(DEADLINE_S)
    for connection in connections:
        connection.close()


def answer_http(connection):
    connection.recv(4096)
    connection.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
    connection.shutdown(socket.SHUT_WR)


def answer_garbage(connection):
    connection.recv(4096)
    connection.sendall(bytes(range(256)) * 16)
    connection.shutdown(socket.SHUT_WR)


def answer_never(connection):
    while connection.recv(4096):
        pass


def answer_by_closing(connection):
    connection.close()


def answer_version_7(connection):
    """Just enough HTTP/2 and gRPC to be a duckling that chooses protocol version 7."""

    def frame(kind, flags, stream, payload=b""):
        connection.sendall(len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload)

    def header(name, value):
        return b"\x00" + bytes([len(name)]) + name + bytes([len(value)]) + value

    data, headers, settings, ping = 0, 1, 4, 6
    source = connection.makefile("rb")
    source.read(24)
    frame(settings, 0, 0)
    while head := source.read(9):
        length, kind, flags = int.from_bytes(head[:3], "big"), head[3], head[4]
        stream = int.from_bytes(head[5:], "big")
        payload = source.read(length)
        if kind in (settings, ping) and not flags & 1:
            frame(kind, 1, 0, payload if kind == ping else b"")
        elif kind in (data, headers) and flags & 1:
            hello = b"\x08\x07\x12\x10" + bytes(16)
            result = b"\x0a" + bytes([len(hello)]) + hello
            frame(headers, 4, stream, b"\x88" + header(b"content-type", b"application/grpc"))
            frame(data, 0, stream, b"\x00" + len(result).to_bytes(4, "big") + result)
            frame(headers, 5, stream, header(b"grpc-status", b"0"))


def assert_attach_fails(con, port, says, host="localhost"):
    with pytest.raises(duckdb.ConnectionException, match=says):
        con.execute(
            f"ATTACH 'dh' (TYPE duckherder, server_host '{host}', server_port {port}, connect_timeout_ms 1000)"
        )
    assert con.execute("SELECT count(*) FROM duckdb_databases() WHERE database_name = 'dh'").fetchall() == [(0,)]


def test_nobody_there(con):
    port = free_port()
    assert_attach_fails(con, port, f"cannot connect to the duckling at localhost:{port}.*is it running")


def test_wrong_host_name(con):
    assert_attach_fails(con, 8815, "cannot connect to the duckling at no-such-host.invalid:8815", "no-such-host.invalid")


@pytest.mark.parametrize("host", ["not a host", "a/b", "http://localhost", "ho'st"])
def test_what_is_no_host_name(con, host):
    with pytest.raises((duckdb.InvalidInputException, duckdb.ConnectionException), match=re.escape(host)):
        con.execute(
            f"ATTACH 'dh' (TYPE duckherder, server_host '{host.replace(chr(39), 2 * chr(39))}', server_port 8815,"
            " connect_timeout_ms 1000)"
        )


@pytest.mark.parametrize("answer", [answer_http, answer_garbage, answer_by_closing])
def test_what_is_not_a_duckling(con, answer):
    with fake_server(answer) as port:
        assert_attach_fails(con, port, f"localhost:{port}.*is the port right|lost the connection.*localhost:{port}")


def test_what_never_answers(con):
    with fake_server(answer_never) as port:
        assert_attach_fails(con, port, f"localhost:{port} did not answer .* within 1")


def test_another_protocol_version(con):
    with fake_server(answer_version_7) as port:
        assert_attach_fails(con, port, "protocol version 7.*upgrade the older")


def test_the_binary_says_that_its_port_is_taken(duckling, tmp_path):
    finished = subprocess.run(
        serve_arguments(tmp_path / "second.db", duckling.port), capture_output=True, text=True, timeout=DEADLINE_S
    )
    assert finished.returncode != 0
    assert f"127.0.0.1:{duckling.port}" in finished.stderr
    assert "another process listens there" in finished.stderr


def test_the_binary_says_that_its_file_is_in_use(duckling):
    finished = subprocess.run(serve_arguments(duckling.database), capture_output=True, text=True, timeout=DEADLINE_S)
    assert finished.returncode != 0
    assert str(duckling.database) in finished.stderr
    assert "lock" in finished.stderr


def test_the_binary_says_that_its_file_is_no_database(tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("not a database" * 1000)
    finished = subprocess.run(serve_arguments(path), capture_output=True, text=True, timeout=DEADLINE_S)
    assert finished.returncode != 0
    assert str(path) in finished.stderr
    assert path.read_text() == "not a database" * 1000


def test_stopped_and_started_again_outside_a_transaction(dh, duckling, start_duckling):
    dh.execute("CREATE TABLE dh.t AS SELECT 1 AS i")
    assert duckling.terminate() == 0
    with pytest.raises(duckdb.ConnectionException, match=f"localhost:{duckling.port}"):
        dh.execute("FROM dh.t")
    start_duckling(port=duckling.port, database=duckling.database)
    assert dh.execute("FROM dh.t").fetchall() == [(1,)]
    dh.execute("INSERT INTO dh.t VALUES (2)")
    dh.execute("CREATE TABLE dh.u AS FROM dh.t")
    assert dh.execute("SELECT sum(i) FROM dh.u").fetchall() == [(3,)]


def test_errors_about_other_tables_when_the_server_is_gone(dh, duckling):
    duckling.kill()
    with pytest.raises(duckdb.CatalogException, match="nowhere does not exist"):
        dh.execute("FROM memory.main.nowhere")
    with pytest.raises(duckdb.ConnectionException, match=f"localhost:{duckling.port}"):
        dh.execute("SHOW ALL TABLES")


def test_started_again_unnoticed(dh, duckling, start_duckling):
    dh.execute("CREATE TABLE dh.t AS SELECT 1 AS i")
    duckling.kill()
    start_duckling(port=duckling.port, database=duckling.database)
    assert dh.execute("FROM dh.t").fetchall() == [(1,)]
    dh.execute("CREATE TABLE l AS SELECT 1 AS i")
    assert dh.execute("FROM dh.t JOIN l USING (i)").fetchall() == [(1,)]


@pytest.mark.parametrize("stop", ["terminate", "kill"])
def test_started_again_inside_a_transaction(dh, duckling, start_duckling, stop):
    dh.execute("CREATE TABLE dh.t AS SELECT 1 AS i")
    dh.begin()
    dh.execute("INSERT INTO dh.t VALUES (2)")
    getattr(duckling, stop)()
    start_duckling(port=duckling.port, database=duckling.database)
    with pytest.raises(duckdb.Error, match="(?i)transaction.*(lost|rolled back|aborted)"):
        dh.execute("INSERT INTO dh.t VALUES (3)")
    dh.rollback()
    assert dh.execute("FROM dh.t").fetchall() == [(1,)]
    dh.execute("INSERT INTO dh.t VALUES (4)")
    assert dh.execute("SELECT sum(i) FROM dh.t").fetchall() == [(5,)]


def test_a_commit_to_a_server_that_was_started_again_fails(dh, duckling, start_duckling):
    dh.execute("CREATE TABLE dh.t AS SELECT 1 AS i")
    dh.begin()
    dh.execute("INSERT INTO dh.t VALUES (2)")
    duckling.kill()
    start_duckling(port=duckling.port, database=duckling.database)
    with pytest.raises(duckdb.Error):
        dh.commit()
    assert dh.execute("FROM dh.t").fetchall() == [(1,)]


def test_killed_while_a_result_is_read(child, duckling, start_duckling):
    process = child(
        """
        con = connect()
        con.execute(attach_sql(sys.argv[1]))
        con.execute("CREATE TABLE dh.big AS SELECT i, repeat('x', 100) AS s FROM range(2000000) r(i)")
        con.execute("CHECKPOINT dh")
        con.execute("SELECT i, s FROM dh.big")
        con.fetchmany(10)
        print("reading")
        sys.stdin = None
        input_seen = poll(lambda: not_running(int(sys.argv[2])), "the kill")
        rows = 10
        try:
            while chunk := con.fetchmany(100000):
                rows += len(chunk)
            print("end", rows)
        except duckdb.Error as error:
            print(type(error).__name__)
        try:
            con.execute("FROM dh.big LIMIT 1")
        except duckdb.ConnectionException:
            print("gone")
        assert con.execute("SELECT 42").fetchall() == [(42,)]
        """.replace("not_running(int(sys.argv[2]))", "not os.path.exists('/proc/' + sys.argv[2] + '/exe')"),
        duckling.port,
        duckling.process.pid,
    )
    assert process.line() == "reading"
    duckling.kill()
    assert process.line() == "ConnectionException"
    assert process.line() == "gone"
    process.finish()
    again = start_duckling(database=duckling.database)
    with connect() as con:
        again.attach(con)
        assert con.execute("SELECT count(*), sum(i) FROM dh.big").fetchall() == [(2000000, 1999999000000)]


def test_committed_rows_survive_a_kill(dh, duckling, start_duckling):
    dh.execute("CREATE TABLE dh.t (i INTEGER)")
    for i in range(10):
        dh.execute(f"INSERT INTO dh.t VALUES ({i})")
    dh.begin()
    dh.execute("INSERT INTO dh.t VALUES (100)")
    duckling.kill()
    with connect() as con:
        start_duckling(database=duckling.database).attach(con)
        assert con.execute("SELECT count(*), sum(i) FROM dh.t").fetchall() == [(10, 45)]


def test_stopped_while_a_statement_runs(child, start_duckling):
    duckling = start_duckling("--drain-timeout", "1")
    process = child(
        """
        con = connect()
        con.execute(attach_sql(sys.argv[1]))
        con.execute("CREATE TABLE dh.t AS SELECT 1 AS i")
        print("running")
        try:
            con.execute("SELECT count(*) FROM dh.t, range(10000000000) a(x), range(1000) b(y) WHERE hash(x, y) = 42")
            con.fetchall()
            print("end")
        except duckdb.Error as error:
            print(type(error).__name__)
        assert con.execute("SELECT 42").fetchall() == [(42,)]
        """,
        duckling.port,
    )
    assert process.line() == "running"
    with connect() as con:
        duckling.attach(con)
        poll(lambda: con.execute("SELECT count(*) FROM dh.t").fetchall(), "an answer")
    assert duckling.terminate() == 0
    assert process.line() in ("InterruptException", "ConnectionException")
    process.finish()


def test_a_short_statement_is_drained(dh, start_duckling):
    duckling = start_duckling()
    with connect() as con:
        duckling.attach(con)
        con.execute("CREATE TABLE dh.t AS SELECT i FROM range(3000000) r(i)")
        con.execute("SELECT i FROM dh.t")
        rows = [con.fetchone()]
        duckling.process.send_signal(signal.SIGTERM)
        while chunk := con.fetchmany(100_000):
            rows += chunk
        assert len(rows) == 3_000_000
        assert duckling.process.wait(DEADLINE_S) == 0


def test_sigterm_without_statements_is_quick(dh, duckling):
    dh.execute("CREATE TABLE dh.t AS SELECT 1 AS i")
    duckling.process.send_signal(signal.SIGTERM)
    assert duckling.process.wait(3) == 0


def test_extensions_of_the_server(dh):
    assert "json" in dh.execute("SELECT duckherder_load_extension('json')").fetchone()[0]
    with pytest.raises((duckdb.IOException, duckdb.HTTPException), match="no_such_extension"):
        dh.execute("SELECT duckherder_load_extension('no_such_extension')")
    with pytest.raises(duckdb.InvalidInputException, match="must not be NULL"):
        dh.execute("SELECT duckherder_load_extension(NULL)")
    with pytest.raises(duckdb.InvalidInputException, match="not an attached duckling"):
        dh.execute("SELECT duckherder_load_extension('json', 'pond')")
    assert dh.execute("SELECT 42").fetchall() == [(42,)]


def test_extensions_need_a_name_when_several_are_attached(con, start_duckling):
    with pytest.raises(duckdb.InvalidInputException, match="no duckling is attached"):
        con.execute("SELECT duckherder_load_extension('json')")
    start_duckling().attach(con, "one")
    start_duckling().attach(con, "two")
    with pytest.raises(duckdb.InvalidInputException, match="several ducklings"):
        con.execute("SELECT duckherder_load_extension('json')")
    con.execute("SELECT duckherder_load_extension('json', 'two')")
