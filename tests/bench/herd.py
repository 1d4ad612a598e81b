"""A herd of server processes with the tables of the benchmarks."""

import sys
import time

import data
from processes import Contender, Failed, Server

PARTITIONS = 8


class Herd:
    """A coordinator and workers, each a process of its own; facts by order or part, small tables on every worker."""

    def __init__(self, duckling, extension, directory, files, workers):
        directory.mkdir(parents=True)
        self._server = [duckling, "serve", "--listen", "127.0.0.1:0"]
        self.coordinator = Server(*self._server, "--database", directory / "coordinator.duckdb")
        self.workers = []
        self.client = Contender(sys.executable, config={"allow_unsigned_extensions": "true"}, extensions=[extension])
        try:
            self._join(directory, workers)
            self._load(files)
        except BaseException:
            self.close()
            raise

    def _join(self, directory, workers):
        address, port = self.coordinator.address, self.coordinator.port
        for number in range(workers):
            database = directory / f"worker{number}.duckdb"
            self.workers.append(Server(*self._server, "--join", address, "--database", database))
        self.client.run(statements=[f"ATTACH 'hd' (TYPE duckherder, server_host '127.0.0.1', server_port {port})"])
        joined = "FROM hd.query('SELECT count(*) FROM duckling_workers() WHERE state = $$alive$$')"
        deadline = time.monotonic() + 30
        while self.client.rows(sql=joined)["rows"][0][0] < workers:
            if time.monotonic() > deadline:
                raise Failed("the herd's workers have not joined")
            time.sleep(0.1)

    def _load(self, files):
        client = self.client
        for table, key in data.PARTITION_KEYS.items():
            rows = f"FROM '{files / table}.parquet'" if table in data.TABLES else data.ACCOUNTS_SELECT
            client.run(statements=[f"CREATE OR REPLACE TEMP VIEW source AS {rows}"])
            columns = client.rows(sql="SELECT column_name, column_type FROM (DESCRIBE source)")["rows"]
            definition = ", ".join(f"{name} {column_type}" for name, column_type in columns)
            if table == "accounts":
                definition += ", PRIMARY KEY (id)"
            partitioned = f"PARTITIONED BY ({key}) WITH (partitions = {PARTITIONS})"
            clause = partitioned if key else "WITH (distribution = 'replicated')"
            client.run(
                statements=[f"CREATE TABLE hd.{table} ({definition}) {clause}", f"INSERT INTO hd.{table} FROM source"]
            )

    def close(self):
        self.client.close()
        for server in [*self.workers, self.coordinator]:
            server.close()
