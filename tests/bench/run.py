"""`cargo xtask bench`: Duckherder beside a local DuckDB, Quack, and pyarrow.flight, in one run on one machine.

Every scenario is measured in rounds, its contenders taking turns, so that a machine whose speed drifts slows all of them.
"""

import argparse
import json
import os
import pathlib
import platform
import random
import shutil
import statistics
import subprocess
import sys
import time
from xml.etree import ElementTree

import data
from herd import Herd
from processes import HERE, Contender, Failed, Server, output_of
from scenarios import DUCKHERDER, HERD, LOCAL, PYARROW, QUACK, SCENARIOS

QUACK_TOKEN = "benchmark"

HERD_WORKERS = 2


class Bench:
    """The contenders, started when first asked for, and what measuring needs of them."""

    def __init__(self, options):
        self.options = options
        self.random = random.Random(1)
        self.rate_seconds = options.rate_seconds
        self.details = {}
        #: Tables of their own, in Markdown.
        self.reports = []
        self.contenders = {}
        self.stored_server = None
        self._servers = {}
        self._queries = None
        self.work = options.directory / f"run-{os.getpid()}"
        self.work.mkdir(parents=True)

    def start(self, names):
        for name in names:
            if name not in self.contenders and name != PYARROW:
                self.contenders[name] = getattr(self, f"_start_{name}")()
        if PYARROW in names and PYARROW not in self._servers:
            self._servers[PYARROW] = Server(
                sys.executable, HERE / "flight_server.py", "serve", self.files / "lineitem.parquet", 16 * 1024
            )

    @property
    def files(self):
        tool = pathlib.Path(sys.executable).with_name("tpchgen-cli")
        return data.parquet(self.options.directory, tool, self.options.scale)

    def _database(self, python, version):
        return data.database(self.options.directory, python, version, self.files)

    def _start_local(self):
        database = data.copy(self._database(sys.executable, "2.0.0"), self.work, "bench")
        return Contender(sys.executable, database)

    def duckling(self):
        """The server that the scenarios share."""
        if DUCKHERDER not in self._servers:
            database = data.copy(self._database(sys.executable, "2.0.0"), self.work, "duckling")
            self._servers[DUCKHERDER] = Server(
                self.options.duckling, "serve", "--listen", "127.0.0.1:0", "--database", database
            )
        return self._servers[DUCKHERDER]

    def fresh_duckling(self):
        """A server of one's own, with an empty database in memory."""
        return Server(self.options.duckling, "serve", "--listen", "127.0.0.1:0")

    def _start_duckherder(self):
        contender = Contender(
            sys.executable, config={"allow_unsigned_extensions": "true"}, extensions=[self.options.extension]
        )
        port = self.duckling().port
        contender.run(statements=[f"ATTACH 'dh' (TYPE duckherder, server_host '127.0.0.1', server_port {port})"])
        return contender

    def _start_herd(self):
        herd = Herd(self.options.duckling, self.options.extension, self.work / "herd", self.files, HERD_WORKERS)
        self._servers.update({HERD: herd.coordinator}, **{f"worker {i}": w for i, w in enumerate(herd.workers)})
        return herd.client

    def _start_quack(self):
        python = self.options.quack_python
        extensions = [
            next(pathlib.Path(python).parents[1].glob(f"lib/python*/site-packages/**/{name}.duckdb_extension"))
            for name in ("httpfs", "quack")
        ]
        database = data.copy(self._database(python, "1.5.5"), self.work, "quack")
        server = Contender(python, database, extensions=extensions)
        self._servers[QUACK] = server
        port = free_port()
        server.run(statements=[f"CALL quack_serve('quack:localhost:{port}', token = '{QUACK_TOKEN}')"])
        contender = Contender(python, extensions=extensions)
        contender.run(
            statements=[
                "SET httpfs_connection_caching = true",
                f"ATTACH 'quack:localhost:{port}' AS r (TYPE quack, TOKEN '{QUACK_TOKEN}')",
            ]
        )
        return contender

    def tpch_queries(self):
        """The 22 queries, from DuckDB's tpch extension."""
        if self._queries is None:
            python = self.options.quack_python
            extension = next(pathlib.Path(python).parents[1].glob("lib/python*/site-packages/**/tpch.duckdb_extension"))
            source = Contender(python, extensions=[extension])
            self._queries = [
                query.rstrip().rstrip(";")
                for (query,) in source.rows(sql="SELECT query FROM tpch_queries() ORDER BY query_nr")["rows"]
            ]
            source.close()
        return self._queries

    def drain(self, sql, server=None, pause_ms=0, batches=None):
        """Reads a result with the client crate: seconds, rows, bytes."""
        if server is None:
            server = self.duckling()
        more = [pause_ms] + ([batches] if batches else [])
        return output_of(self.options.drain, f"127.0.0.1:{server.port}", sql, *more)

    def pyarrow_drain(self):
        return output_of(sys.executable, HERE / "flight_server.py", "drain", self._servers[PYARROW].address)

    def adbc_read(self, sql, server=None):
        """Reads a result with ADBC's driver, from the duckling if no other server is told."""
        server = server or self.duckling()
        return output_of(sys.executable, HERE / "adbc_client.py", "read", f"grpc://127.0.0.1:{server.port}", sql)

    def serve_batches_of_duckling(self, sql):
        """Starts a server of pyarrow's, with the batches that ADBC's driver gets from the duckling."""
        stored = self.work / "batches.arrow"
        uri = f"grpc://127.0.0.1:{self.duckling().port}"
        output_of(sys.executable, HERE / "adbc_client.py", "store", uri, sql, stored)
        self.stored_server = Server(sys.executable, HERE / "flight_server.py", "serve-stored", stored)
        self._servers["stored"] = self.stored_server

    def failed_herd_tests(self):
        """Runs the tests of TPC-H and TPC-DS on a herd at this scale; the number of those that fail."""
        directory = self.options.directory / f"tpc-{self.options.scale}"
        for name in ("tpch", "tpcds"):
            if not (directory / name / "queries.json").exists():
                generate = [self.options.tpc_python, HERE.parent / "tpc/generate.py", name, self.options.scale]
                subprocess.run([*generate, directory / name], check=True)
        environment = {
            "DUCKHERDER_EXTENSION": self.options.extension,
            "DUCKLING": self.options.duckling,
            "DUCKHERDER_TPC": str(directory),
        }
        report = self.work / "herd-tests.xml"
        tests = [HERE.parent / "host/test_herd_tpc.py", "-o", "faulthandler_timeout=3600", f"--junitxml={report}"]
        subprocess.run(
            [self.options.host_python, "-m", "pytest", *tests], env=os.environ | environment, cwd=HERE.parents[1]
        )
        suite = ElementTree.parse(report).getroot()[0]
        if suite.get("tests") == "0" or suite.get("skipped") != "0":
            raise Failed("the tests of TPC-H and TPC-DS on a herd did not run")
        return int(suite.get("failures")) + int(suite.get("errors"))

    def scalar(self, contender, sql):
        return self.contenders[contender].rows(sql=sql)["rows"][0][0]

    def bytes_received(self, sql):
        """Bytes of Arrow messages that a statement brought in, of all its parts."""
        ours = self.contenders[DUCKHERDER]
        history = "(SELECT coalesce(sum(bytes_received), 0) FROM duckherder_get_query_history())"
        ours.run(statements=["FROM duckherder_get_query_history() LIMIT 0"])
        before = self.scalar(DUCKHERDER, history)
        ours.time(statements=[sql])
        return self.scalar(DUCKHERDER, history) - before

    def close(self):
        for process in [*self.contenders.values(), *self._servers.values()]:
            process.close()
        shutil.rmtree(self.work, ignore_errors=True)


def free_port():
    import socket

    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def measure(bench, scenario, rounds):
    """The measurements of each contender, one a round; one more round before them is not counted."""
    bench.start(scenario.measure if scenario.once_with is None else scenario.once_with)
    if scenario.prepare:
        scenario.prepare(bench)
    figures = {contender: [] for contender in scenario.measure}
    if scenario.once_with is not None:
        return {contender: [once(bench)] for contender, once in scenario.measure.items()}
    for number in range(rounds + 1):
        for contender, once in scenario.measure.items():
            figure = once(bench)
            if number > 0:
                figures[contender].append(figure)
    return figures


def show(figure):
    return f"{figure:,.0f}" if figure >= 100 else f"{figure:.3g}"


def row(scenario, medians, met):
    def cell(contender):
        return show(medians[contender]) if contender in medians else ""

    others = [contender for contender in (LOCAL, QUACK, PYARROW) if contender in medians]
    ours = scenario.bar.ours
    others += [DUCKHERDER] if DUCKHERDER in medians and ours != DUCKHERDER else []
    ratios = ", ".join(f"{medians[ours] / medians[other]:.2f} x {other}" for other in others)
    return [
        scenario.title,
        scenario.unit,
        *(cell(contender) for contender in (LOCAL, QUACK, PYARROW, DUCKHERDER, HERD)),
        ratios,
        str(scenario.bar),
        "met" if met else "MISSED",
    ]


def table(rows):
    head = ["scenario", "unit", "local", "Quack", "pyarrow", "duckherder", "herd", "ratios", "bar", ""]
    widths = [max(len(line[column]) for line in [head, *rows]) for column in range(len(head))]
    lines = [head, ["-" * width for width in widths], *rows]
    return "\n".join("| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths)) + " |" for line in lines)


def machine():
    model = next(
        (line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")), "unknown"
    )
    memory = int(open("/proc/meminfo").readline().split()[1]) / 2**20
    return f"{os.cpu_count()} x {model}, {memory:.0f} GiB, Linux {platform.release()}"


def parse():
    parser = argparse.ArgumentParser(prog="cargo xtask bench", description=__doc__)
    parser.add_argument("--extension", required=True, help=argparse.SUPPRESS)
    parser.add_argument("--duckling", required=True, help=argparse.SUPPRESS)
    parser.add_argument("--drain", required=True, help=argparse.SUPPRESS)
    parser.add_argument("--quack-python", required=True, help=argparse.SUPPRESS)
    parser.add_argument("--host-python", required=True, help=argparse.SUPPRESS)
    parser.add_argument("--tpc-python", required=True, help=argparse.SUPPRESS)
    parser.add_argument("--directory", required=True, type=pathlib.Path, help=argparse.SUPPRESS)
    names = [scenario.name for scenario in SCENARIOS]
    parser.add_argument("--scenario", action="append", choices=names, help="only this one; may be repeated")
    parser.add_argument("--scale", default="1", help="TPC-H's scale factor")
    parser.add_argument("--rounds", type=int, default=5, help="measurements of each, of which the median counts")
    parser.add_argument("--rate-seconds", type=float, default=3, help="seconds that a rate is measured for")
    parser.add_argument("--json", type=pathlib.Path, help="where to write all measurements")
    return parser.parse_args()


def main():
    options = parse()
    wanted = [scenario for scenario in SCENARIOS if not options.scenario or scenario.name in options.scenario]
    bench = Bench(options)
    results, rows, missed = {}, [], []
    print(f"{machine()}; TPC-H scale factor {options.scale}, medians of {options.rounds}\n", flush=True)
    try:
        for scenario in wanted:
            started = time.monotonic()
            figures = measure(bench, scenario, options.rounds)
            medians = {contender: statistics.median(all_of) for contender, all_of in figures.items()}
            met = scenario.bar.is_met(medians)
            if not met:
                missed.append(scenario.name)
            results[scenario.name] = {
                "unit": scenario.unit,
                "figures": figures,
                "medians": medians,
                "bar": str(scenario.bar),
                "met": met,
            }
            rows.append(row(scenario, medians, met))
            print(f"{scenario.name}: {rows[-1][7] or show(medians[scenario.bar.ours])} ({time.monotonic() - started:.0f} s)", flush=True)
    finally:
        bench.close()
    print("\n" + table(rows))
    for report in bench.reports:
        print("\n" + report)
    if options.json:
        content = {"machine": machine(), "scale": options.scale, "results": results, "details": bench.details}
        options.json.write_text(json.dumps(content, indent=1))
        print(f"\nall measurements: {options.json}")
    if missed:
        raise SystemExit(f"\nmissed: {', '.join(missed)}")


if __name__ == "__main__":
    try:
        main()
    except (Failed, subprocess.SubprocessError) as error:
        raise SystemExit(f"error: {error}") from None
