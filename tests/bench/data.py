"""TPC-H data, made once per scale factor: Parquet files, and from them a DuckDB file for each version that takes part."""

import pathlib
import shutil
import subprocess

from processes import Contender

TABLES = ("customer", "lineitem", "nation", "orders", "part", "partsupp", "region", "supplier")

# How a herd has them: the key that they are partitioned by; without one they are on every worker.
PARTITION_KEYS = {
    "lineitem": "l_orderkey",
    "orders": "o_orderkey",
    "customer": "c_custkey",
    "part": "p_partkey",
    "partsupp": "ps_partkey",
    "supplier": None,
    "nation": None,
    "region": None,
    "accounts": "id",
}

# Beside TPC-H: rows to be found by a primary key.
ACCOUNTS_ROWS = 1_000_000
ACCOUNTS_SELECT = f"""
SELECT i AS id, 'owner ' || i AS owner, ((i * 7919 % 1000000) / 100)::DECIMAL(18, 2) AS balance
FROM range({ACCOUNTS_ROWS}) r(i)
"""
ACCOUNTS = f"""
CREATE TABLE accounts (id BIGINT PRIMARY KEY, owner VARCHAR, balance DECIMAL(18, 2));
INSERT INTO accounts {ACCOUNTS_SELECT};
"""


def parquet(directory, tool, scale):
    """The directory of Parquet files, one a table."""
    files = directory / f"tpch-{scale}"
    if not (files / "done").exists():
        shutil.rmtree(files, ignore_errors=True)
        files.mkdir(parents=True)
        subprocess.run([tool, "parquet", "-s", str(scale), "-o", files], check=True, stdout=subprocess.DEVNULL)
        (files / "done").touch()
    return files


def database(directory, python, version, files):
    """A DuckDB file with the tables, made by the DuckDB of `python`."""
    path = pathlib.Path(directory / f"{files.name}-{version}.duckdb")
    if not path.exists():
        making = path.with_suffix(".making")
        for old in (making, making.with_suffix(".making.wal")):
            old.unlink(missing_ok=True)
        contender = Contender(python, making)
        contender.run(
            statements=[f"CREATE TABLE {table} AS FROM '{files / table}.parquet'" for table in TABLES]
            + [ACCOUNTS, "CHECKPOINT"]
        )
        contender.close()
        making.rename(path)
    return path


def copy(database_file, directory, name):
    """A copy for one server to write to."""
    target = directory / f"{name}.duckdb"
    shutil.copy(database_file, target)
    return target
