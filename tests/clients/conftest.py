"""What the tests of other people's clients share: ducklings to talk to.

The server's path comes from DUCKLING, and defaults to the debug build.
"""

import os
import pathlib
import selectors
import subprocess
import time

import adbc_driver_flightsql.dbapi
import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
DUCKLING = os.environ.get("DUCKLING", str(ROOT / "build/debug/duckling"))

# Generous: the machine may be busy. What is to be quick says so itself.
DEADLINE_S = 20

COOKIES = {"adbc.flight.sql.rpc.with_cookie_middleware": "true"}
BASIC = {"username": "mallard", "password": "quack"}


def poll(condition, what, deadline_s=DEADLINE_S):
    """Waits until `condition` gives something true, and returns that."""
    end = time.monotonic() + deadline_s
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < end, f"{what}: not within {deadline_s} s"
        time.sleep(0.02)


class Server:
    """A `duckling serve` with a database in memory."""

    def __init__(self, log):
        self.log = open(log, "ab")
        command = [DUCKLING, "serve", "--listen", "127.0.0.1:0", "--threads", "2"]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=self.log, text=True)
        with selectors.DefaultSelector() as selector:
            selector.register(self.process.stdout, selectors.EVENT_READ)
            assert selector.select(DEADLINE_S), "the duckling printed no address in time"
        line = self.process.stdout.readline().strip()
        assert line, pathlib.Path(log).read_text()
        self.port = int(line.rsplit(":", 1)[1])
        self.uri = f"grpc://127.0.0.1:{self.port}"

    def connect(self, options=None, **more):
        """An ADBC connection, with cookies and in autocommit unless told otherwise."""
        more.setdefault("autocommit", True)
        return adbc_driver_flightsql.dbapi.connect(self.uri, db_kwargs=COOKIES if options is None else options, **more)

    def query(self, sql):
        """Rows of a statement, over a connection of its own."""
        with self.connect() as connection, connection.cursor() as cursor:
            return cursor.execute(sql).fetchall()

    def running(self, text):
        """How many statements with that text run."""
        return self.query(
            "SELECT count(*) FROM duckling_history() WHERE state = 'running' "
            f"AND contains(sql, '{text}') AND NOT contains(sql, 'duckling_history')"
        )[0][0]

    def close(self):
        """Stops it; it must not have crashed meanwhile."""
        crashed = self.process.poll()
        if crashed is None:
            self.process.kill()
            self.process.wait(DEADLINE_S)
        self.process.stdout.close()
        self.log.close()
        assert crashed is None, f"the server ended by itself: {crashed}\n{pathlib.Path(self.log.name).read_text()}"


@pytest.fixture
def server(tmp_path):
    """A fresh server."""
    server = Server(tmp_path / "server.log")
    yield server
    server.close()


@pytest.fixture
def connection(server):
    """An ADBC connection to it, with cookies, in autocommit."""
    with server.connect() as connection:
        yield connection


@pytest.fixture
def cursor(connection):
    """A cursor of `connection`."""
    with connection.cursor() as cursor:
        yield cursor
