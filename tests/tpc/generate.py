"""Writes the tables of TPC-H or TPC-DS as Parquet files, and the queries as JSON, with DuckDB 1.5's extensions: there are
none for DuckDB 2.0 on PyPI.

Usage: generate.py tpch|tpcds SCALE DIRECTORY
"""

import json
import pathlib
import sys

import duckdb


def main():
    name, scale, directory = sys.argv[1], sys.argv[2], pathlib.Path(sys.argv[3])
    directory.mkdir(parents=True, exist_ok=True)
    extension = next(pathlib.Path(sys.prefix).glob(f"lib/python*/site-packages/**/{name}.duckdb_extension"))
    connection = duckdb.connect(config={"allow_unsigned_extensions": "true"})
    connection.load_extension(str(extension))
    connection.execute(f"CALL {'dbgen' if name == 'tpch' else 'dsdgen'}(sf = {scale})")
    for (table,) in connection.execute("SELECT table_name FROM duckdb_tables()").fetchall():
        connection.execute(f"COPY {table} TO '{directory / table}.parquet'")
    queries = connection.execute(f"SELECT query FROM {name}_queries() ORDER BY query_nr").fetchall()
    # Last: a directory without it is unfinished.
    (directory / "queries.json").write_text(json.dumps([query.rstrip().rstrip(";") for (query,) in queries]))


main()
