"""What is measured: for each scenario, how each contender does it, and the bar that we have to reach."""

import statistics
from dataclasses import dataclass, field

import data
import scaling

LOCAL, QUACK, DUCKHERDER, PYARROW = "local", "quack", "duckherder", "pyarrow"
#: A coordinator with two workers.
HERD = "herd"


@dataclass(frozen=True)
class Bar:
    """The figure of `ours` is at most (or, for rates, at least) `factor` times that of `of`, or `factor` itself."""

    factor: float
    of: str | None = None
    at_least: bool = False
    ours: str = DUCKHERDER

    def limit(self, medians):
        return self.factor * (medians[self.of] if self.of else 1)

    def is_met(self, medians):
        ours = medians[self.ours]
        return ours >= self.limit(medians) if self.at_least else ours <= self.limit(medians)

    def __str__(self):
        of = f" x {self.of}" if self.of else ""
        return f"{'>=' if self.at_least else '<='} {self.factor:g}{of}"


@dataclass(frozen=True)
class Scenario:
    name: str
    title: str
    unit: str
    #: Contender to a function of the bench that measures once.
    measure: dict
    bar: Bar
    #: Measurements of each contender in a round, of which the best counts.
    prepare: object = field(default=None)
    #: It takes its rounds by itself, and needs these contenders only.
    once_with: tuple | None = None


def seconds(before, timed, **on):
    """Measures `timed`, a template in which `{dh}` is the catalog's name, after `before`."""

    def measure(contender, catalog):
        def once(bench):
            process = bench.contenders[contender]
            process.run(statements=[statement.format(dh=catalog) for statement in before])
            return process.time(statements=[timed.format(dh=catalog)])["seconds"]

        return once

    return {contender: measure(contender, catalog) for contender, catalog in on.items()}


def remote(sql):
    """A statement for Quack's server, as text."""
    return f"FROM r.query('{sql.replace(chr(39), chr(39) * 2)}')"


# --- fetch and upload ---------------------------------------------------------------------------------------------

FETCH = "CREATE OR REPLACE TEMP TABLE fetched AS FROM {dh}lineitem"


def quack_fetch(bench):
    return bench.contenders[QUACK].time(
        statements=["CREATE OR REPLACE TEMP TABLE fetched AS " + remote("FROM lineitem")]
    )["seconds"]


def prepare_upload(bench):
    for contender, source in ((LOCAL, "lineitem"), (DUCKHERDER, "dh.lineitem"), (QUACK, "r.lineitem")):
        bench.contenders[contender].run(
            statements=[f"CREATE OR REPLACE TEMP TABLE million AS FROM {source} LIMIT 1_000_000"]
        )


def upload(contender, catalog):
    return seconds(
        [f"DROP TABLE IF EXISTS {catalog}.uploaded"],
        f"CREATE TABLE {catalog}.uploaded AS FROM million",
        **{contender: catalog},
    )[contender]


# --- small statements ---------------------------------------------------------------------------------------------


def keys(bench, count=300):
    return [bench.random.randrange(data.ACCOUNTS_ROWS) for _ in range(count)]


def median_ms(contender, template):
    def once(bench):
        statements = [template.format(key) for key in keys(bench)]
        return statistics.median(bench.contenders[contender].latencies(statements=statements)["seconds"]) * 1000

    return once


POINT = "SELECT * FROM {}accounts WHERE id = {{}}"


def limit_one(contender, sql):
    return median_ms(contender, sql)


def rate(contender, template, threads):
    def once(bench):
        process = bench.contenders[contender]
        return process.rate(template=template, threads=threads, seconds=bench.rate_seconds)["per_second"]

    return once


INSERT = "INSERT INTO {dh}.inserted VALUES ({{i}}, 'a duck', 1.5)"


def prepare_inserts(bench):
    for contender, catalog in ((LOCAL, "bench"), (DUCKHERDER, "dh")):
        bench.contenders[contender].run(
            statements=[f"CREATE OR REPLACE TABLE {catalog}.inserted (i BIGINT, s VARCHAR, d DOUBLE)"]
        )
    bench.contenders[QUACK].run(
        statements=[remote("CREATE OR REPLACE TABLE inserted (i BIGINT, s VARCHAR, d DOUBLE)")]
    )


def inserts(threads):
    return {
        LOCAL: rate(LOCAL, INSERT.format(dh="bench"), threads),
        QUACK: rate(QUACK, remote("INSERT INTO inserted VALUES ({i}, 'a duck', 1.5)"), threads),
        DUCKHERDER: rate(DUCKHERDER, INSERT.format(dh="dh"), threads),
    }


# --- TPC-H ----------------------------------------------------------------------------------------------------------


def tpch(contender, wrap=lambda sql: sql, use=None):
    def once(bench):
        process = bench.contenders[contender]
        if use:
            process.run(statements=[f"USE {use}"])
        queries = [wrap(query) for query in bench.tpch_queries()]
        runs = [process.latencies(statements=queries)["seconds"] for _ in range(2)]
        if use:
            process.run(statements=["USE memory"])
        bench.details[f"tpch {contender}"] = [min(pair) for pair in zip(*runs)]
        return sum(min(pair) for pair in zip(*runs))

    return once


def wrong_results(bench):
    """How many ways to spread the tables, of 12, make a query of TPC-H or TPC-DS yield something else than locally."""
    return bench.failed_herd_tests()


# --- the wire -------------------------------------------------------------------------------------------------------


def mib_per_second(result):
    return result["bytes"] / result["seconds"] / 2**20


def raw_duckherder(bench):
    return mib_per_second(bench.drain("FROM lineitem"))


def raw_pyarrow(bench):
    return mib_per_second(bench.pyarrow_drain())


# Other people's client, and the very batches that it gets from the duckling.


def prepare_adbc(bench):
    bench.serve_batches_of_duckling("FROM lineitem")


def adbc_duckherder(bench):
    return mib_per_second(bench.adbc_read("FROM lineitem"))


def adbc_pyarrow(bench):
    return mib_per_second(bench.adbc_read("SELECT 1", server=bench.stored_server))


def slow_reader_memory(bench):
    """MiB over idle of the server while 60 M rows stream to a reader that takes a pause after each batch."""
    server = bench.fresh_duckling()
    try:
        idle = server.resident_mib()
        server.forget_peak()
        sql = "SELECT i, i * 2 AS j, 'row ' || i AS s FROM range(60_000_000) r(i)"
        bench.drain(sql, server=server, pause_ms=20, batches=400)
        return server.resident_mib("VmHWM") - idle
    finally:
        server.close()


def limit_bytes(bench):
    """MiB received for one row of lineitem."""
    return bench.bytes_received("FROM dh.lineitem LIMIT 1") / 2**20


JOIN_KEYS = 1000


def join_bytes(bench):
    """Bytes received for a join of 1,000 local keys with lineitem, over those of the matching rows alone."""
    step = bench.scalar(DUCKHERDER, "SELECT max(l_orderkey) // 1000 FROM dh.lineitem")
    bench.contenders[DUCKHERDER].run(
        statements=[f"CREATE OR REPLACE TEMP TABLE wanted AS SELECT i * {step} + 1 AS k FROM range({JOIN_KEYS}) r(i)"]
    )
    keys_sql = f"SELECT i * {step} + 1 FROM range({JOIN_KEYS}) r(i)"
    joined = bench.bytes_received("FROM wanted JOIN dh.lineitem ON k = l_orderkey")
    matching = bench.bytes_received(f"FROM dh.lineitem WHERE l_orderkey IN ({keys_sql})")
    return joined / matching


SCENARIOS = [
    Scenario(
        "fetch",
        "lineitem into a temp table",
        "s",
        {**seconds([], FETCH, local="", duckherder="dh."), QUACK: quack_fetch},
        Bar(0.60, QUACK),
    ),
    Scenario(
        "upload",
        "1 M rows up, CREATE TABLE AS",
        "s",
        {LOCAL: upload(LOCAL, "bench"), QUACK: upload(QUACK, "r"), DUCKHERDER: upload(DUCKHERDER, "dh")},
        Bar(0.60, QUACK),
        prepare=prepare_upload,
    ),
    Scenario(
        "point",
        "SELECT by primary key, median",
        "ms",
        {
            LOCAL: median_ms(LOCAL, POINT.format("")),
            QUACK: median_ms(QUACK, remote(POINT.format(""))),
            DUCKHERDER: median_ms(DUCKHERDER, POINT.format("dh.")),
        },
        Bar(0.75, QUACK),
    ),
    Scenario(
        "limit",
        "FROM lineitem LIMIT 1, median",
        "ms",
        {
            LOCAL: median_ms(LOCAL, "FROM lineitem LIMIT 1"),
            QUACK: median_ms(QUACK, "FROM r.lineitem LIMIT 1"),
            DUCKHERDER: median_ms(DUCKHERDER, "FROM dh.lineitem LIMIT 1"),
        },
        Bar(6),
    ),
    Scenario("limit-bytes", "received for it", "MiB", {DUCKHERDER: limit_bytes}, Bar(4)),
    Scenario(
        "insert-1",
        "one-row INSERTs, 1 thread",
        "/s",
        inserts(1),
        Bar(1.3, QUACK, at_least=True),
        prepare=prepare_inserts,
    ),
    Scenario(
        "insert-4",
        "one-row INSERTs, 4 threads",
        "/s",
        inserts(4),
        Bar(1.4, QUACK, at_least=True),
        prepare=prepare_inserts,
    ),
    Scenario(
        "tpch",
        "TPC-H, 22 queries, best of 2",
        "s",
        {LOCAL: tpch(LOCAL), QUACK: tpch(QUACK, remote), DUCKHERDER: tpch(DUCKHERDER, use="dh")},
        Bar(1.12, LOCAL),
    ),
    Scenario(
        "herd-tpch",
        "TPC-H, coordinator and 2 workers",
        "s",
        {LOCAL: tpch(LOCAL), HERD: tpch(HERD, use="hd")},
        Bar(2.0, LOCAL, ours=HERD),
    ),
    Scenario(
        "herd-point",
        "SELECT by partition key, median",
        "ms",
        {
            DUCKHERDER: median_ms(DUCKHERDER, POINT.format("dh.")),
            HERD: median_ms(HERD, POINT.format("hd.")),
        },
        Bar(1.5, DUCKHERDER, ours=HERD),
    ),
    Scenario(
        "herd-results",
        "TPC-H and TPC-DS, layouts with wrong results, of 12",
        "layouts",
        {DUCKHERDER: wrong_results},
        Bar(0),
        once_with=(),
    ),
    Scenario(
        "herd-scaling",
        "TPC-H, CPU time on the critical path, 8 workers",
        "s",
        {LOCAL: scaling.one_node, HERD: scaling.herds},
        Bar(1.0, LOCAL, ours=HERD),
        once_with=(LOCAL,),
    ),
    Scenario(
        "raw",
        "Arrow from server to client",
        "MiB/s",
        {PYARROW: raw_pyarrow, DUCKHERDER: raw_duckherder},
        Bar(1.0, PYARROW, at_least=True),
    ),
    Scenario(
        "adbc",
        "the same, to ADBC's driver (Go)",
        "MiB/s",
        {PYARROW: adbc_pyarrow, DUCKHERDER: adbc_duckherder},
        Bar(0.8, PYARROW, at_least=True),
        prepare=prepare_adbc,
    ),
    Scenario(
        "memory", "server, slow reader of 60 M rows", "MiB", {DUCKHERDER: slow_reader_memory}, Bar(256)
    ),
    Scenario(
        "join-bytes", "received / matching, 1,000 keys", "x", {DUCKHERDER: join_bytes}, Bar(3)
    ),
]
