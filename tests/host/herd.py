"""A herd of server processes, and TPC-H and TPC-DS on it."""

import json
import math
import os
import pathlib

from conftest import Duckling, attach_sql, connect, poll

# How tables are spread: the key of each partitioned one. "facts" has the small tables on every worker, "all" has none.
KEYS = {
    "tpch": {
        "lineitem": "l_orderkey",
        "orders": "o_orderkey",
        "customer": "c_custkey",
        "part": "p_partkey",
        "partsupp": "ps_partkey",
        "supplier": "s_suppkey",
        "nation": "n_nationkey",
        "region": "r_regionkey",
    },
    "tpcds": {
        "store_sales": "ss_ticket_number",
        "store_returns": "sr_ticket_number",
        "catalog_sales": "cs_order_number",
        "catalog_returns": "cr_order_number",
        "web_sales": "ws_order_number",
        "web_returns": "wr_order_number",
        "inventory": "inv_item_sk",
    },
}
FACTS = {
    "tpch": ["lineitem", "orders", "customer", "part", "partsupp"],
    "tpcds": list(KEYS["tpcds"]),
}


class Herd:
    """A coordinator and workers, each a process of its own."""

    def __init__(self, directory, workers=3, *arguments, coordinator_arguments=()):
        self._directory = pathlib.Path(directory)
        self._arguments = arguments
        self._coordinator_arguments = coordinator_arguments
        self.coordinator = Duckling(self._directory / "coordinator.db", 0, *coordinator_arguments)
        self.workers = [self._worker(number) for number in range(workers)]

    def _worker(self, number, port=0):
        join = f"127.0.0.1:{self.coordinator.port}"
        return Duckling(self._directory / f"worker{number}.db", port, "--join", join, *self._arguments)

    def restart(self, number):
        """Starts a dead worker again, with its database, and waits until the coordinator knows."""
        self.workers[number].close()
        self.workers[number] = worker = self._worker(number)
        con = connect()
        con.execute(attach_sql(self.coordinator.port))
        known = f"SELECT count(*) FROM duckling_workers() WHERE state = $$alive$$ AND address LIKE $$%:{worker.port}$$"
        poll(lambda: con.execute(f"FROM dh.query('{known}')").fetchall() == [(1,)], "the worker is back")
        con.close()

    def restart_coordinator(self, kill=False):
        """At the same address, where the workers look for it."""
        port = self.coordinator.port
        if kill:
            self.coordinator.kill()
        else:
            self.coordinator.terminate()
        self.coordinator.close()
        self.coordinator = Duckling(self._directory / "coordinator.db", port, *self._coordinator_arguments)

    def connect(self, name="dh"):
        con = connect()
        con.execute(attach_sql(self.coordinator.port, name))
        alive = f"FROM {name}.query('SELECT count(*) FROM duckling_workers() WHERE state = ''alive''')"
        poll(lambda: con.execute(alive).fetchall() == [(len(self.workers),)], "all workers have joined")
        return con

    def close(self):
        for duckling in [*self.workers, self.coordinator]:
            duckling.close()


def data(name):
    """The directory of the tables of `tpch` or `tpcds`, and their queries."""
    directory = pathlib.Path(os.environ["DUCKHERDER_TPC"]) / name
    return directory, json.loads((directory / "queries.json").read_text())


def load(con, name, partitions, everything=False, catalog="dh"):
    """Makes the tables in a herd and fills them; the same in the local database."""
    directory, _ = data(name)
    for file in sorted(directory.glob("*.parquet")):
        table = file.stem
        con.execute(f"CREATE OR REPLACE TABLE {table} AS FROM '{file}'")
        columns = con.execute(f"DESCRIBE {table}").fetchall()
        key = KEYS[name].get(table) or (columns[0][0] if everything else None)
        if key and (everything or table in FACTS[name]):
            clause = f"PARTITIONED BY ({key}) WITH (partitions = {partitions})"
        else:
            clause = "WITH (distribution = 'replicated')"
        definition = ", ".join(f"{column[0]} {column[1]}" for column in columns)
        con.execute(f"CREATE OR REPLACE TABLE {catalog}.{table} ({definition}) {clause}")
        con.execute(f"INSERT INTO {catalog}.{table} FROM {table}")


def rows(con, sql, catalog):
    con.execute(f"USE {catalog}")
    try:
        return con.execute(sql).fetchall()
    finally:
        con.execute("USE memory")


def same(left, right):
    """Whether two values are equal, but for the order in which floating-point numbers were added."""
    if isinstance(left, float) and isinstance(right, float):
        return left == right or math.isclose(left, right, rel_tol=1e-9, abs_tol=1e-9) or left != left and right != right
    return left == right


def key(row):
    return [(value is None, f"{value:.6e}" if isinstance(value, float) else str(value)) for value in row]


def difference(expected, found):
    """What is wrong with the rows of a query, or None. The order of rows that are equal to ORDER BY is free."""
    if len(expected) != len(found):
        return f"{len(found)} rows instead of {len(expected)}"
    for left, right in zip(sorted(expected, key=key), sorted(found, key=key)):
        if not all(map(same, left, right)):
            return f"{right} instead of {left}"
    return None
