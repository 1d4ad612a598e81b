"""What the host tests share: a DuckDB from PyPI, the built extension, and ducklings to talk to.

Paths come from DUCKHERDER_EXTENSION and DUCKLING, and default to the debug build.
"""

import os
import pathlib
import selectors
import signal
import socket
import subprocess
import sys
import textwrap
import time

import duckdb
import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
EXTENSION = os.environ.get(
    "DUCKHERDER_EXTENSION", str(ROOT / "build/debug/extension/duckherder/duckherder.duckdb_extension")
)
DUCKLING = os.environ.get("DUCKLING", str(ROOT / "build/debug/duckling"))

# Generous: the machine may be busy. What is to be quick says so itself.
DEADLINE_S = 20


def connect(path=":memory:"):
    """A DuckDB with the extension loaded."""
    con = duckdb.connect(path, config={"allow_unsigned_extensions": "true"})
    con.load_extension(EXTENSION)
    return con


def attach_sql(port, name="dh", more=""):
    return f"ATTACH '{name}' (TYPE duckherder, server_host 'localhost', server_port {port}{more})"


def poll(condition, what, deadline_s=DEADLINE_S):
    """Waits until `condition` gives something true, and returns that."""
    end = time.monotonic() + deadline_s
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < end, f"{what}: not within {deadline_s} s"
        time.sleep(0.02)


def memory_mib(process, what="VmRSS"):
    """Resident memory of a `Duckling` in MiB: now, or the most since `forget_peak` (`VmHWM`)."""
    status = pathlib.Path(f"/proc/{process.process.pid}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith(f"{what}:")) / 1024


def forget_peak(process):
    """The most of memory so far does not count."""
    pathlib.Path(f"/proc/{process.process.pid}/clear_refs").write_text("5")


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def serve_arguments(database, port=0, *more):
    return [DUCKLING, "serve", "--database", str(database), "--listen", f"127.0.0.1:{port}", *more]


class Duckling:
    """A `duckling serve` process."""

    def __init__(self, database, port=0, *more):
        self.database = database
        self.log = open(f"{database}.log", "ab")
        self.process = subprocess.Popen(
            serve_arguments(database, port, *more), stdout=subprocess.PIPE, stderr=self.log, text=True
        )
        self.port = int(self._first_line().rsplit(":", 1)[1])

    def _first_line(self):
        with selectors.DefaultSelector() as selector:
            selector.register(self.process.stdout, selectors.EVENT_READ)
            assert selector.select(DEADLINE_S), "the duckling printed no address in time"
        line = self.process.stdout.readline().strip()
        assert line, pathlib.Path(self.log.name).read_text()
        return line

    def attach(self, con, name="dh", more=""):
        con.execute(attach_sql(self.port, name, more))
        return con

    def terminate(self):
        """SIGTERM; returns the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(DEADLINE_S)

    def kill(self):
        """SIGKILL, as if the machine had died."""
        self.process.kill()
        self.process.wait(DEADLINE_S)

    def close(self):
        if self.process.poll() is None:
            self.kill()
        self.process.stdout.close()
        self.log.close()


@pytest.fixture
def con():
    """A fresh DuckDB with the extension."""
    con = connect()
    yield con
    con.close()


@pytest.fixture
def start_duckling(tmp_path):
    """Starts ducklings: `start_duckling(port=0, database=..., *arguments)`."""
    started = []

    def start(*more, port=0, database=None):
        started.append(Duckling(database or tmp_path / f"duckling{len(started)}.db", port, *more))
        return started[-1]

    yield start
    for duckling in started:
        duckling.close()


@pytest.fixture
def duckling(start_duckling):
    """A fresh server with a database file of its own."""
    return start_duckling()


@pytest.fixture
def dh(con, duckling):
    """`con` with `duckling` attached as dh."""
    return duckling.attach(con)


@pytest.fixture
def other(duckling):
    """A second client of `duckling`: another DuckDB, attached as dh."""
    con = duckling.attach(connect())
    yield con
    con.close()


class Child:
    """A Python process running `code`, with this module imported; what it prints is read line by line."""

    def __init__(self, code, *arguments):
        prelude = "import faulthandler, sys, duckdb; faulthandler.enable(); from conftest import *\n"
        self.process = subprocess.Popen(
            [sys.executable, "-u", "-c", prelude + textwrap.dedent(code), *map(str, arguments)],
            cwd=pathlib.Path(__file__).parent,
            env={**os.environ, "PYTHONPATH": str(pathlib.Path(__file__).parent)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def line(self, deadline_s=DEADLINE_S):
        """The next line it prints."""
        with selectors.DefaultSelector() as selector:
            selector.register(self.process.stdout, selectors.EVENT_READ)
            assert selector.select(deadline_s), "the child printed nothing in time"
        line = self.process.stdout.readline()
        assert line, self.process.communicate(timeout=DEADLINE_S)[1]
        return line.strip()

    def finish(self, deadline_s=2 * DEADLINE_S):
        """Waits for its end, which must be a good one; returns the rest of its output."""
        out, err = self.process.communicate(timeout=deadline_s)
        assert self.process.returncode == 0, f"exit {self.process.returncode}\n{out}\n{err}"
        return out.strip()

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.communicate()


@pytest.fixture
def child():
    """Starts children, for what might hang or crash: `child(code, *arguments)`."""
    children = []

    def start(code, *arguments):
        children.append(Child(code, *arguments))
        return children[-1]

    yield start
    for process in children:
        process.close()
