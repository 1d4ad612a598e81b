"""Whole databases into a herd and out of it."""

import json

import duckdb
import pytest

from conftest import attach_sql, connect
from herd import Herd

TABLES = ("keyed", "spread", "everywhere", "plain", "empty")

ROWS = {
    "keyed": "SELECT range AS id, 'row ' || range AS s FROM range(3000)",
    "spread": "SELECT range % 7 AS n, {'a': range, 'b': [range, NULL]} AS nested FROM range(1000)",
    "everywhere": "SELECT range AS n, DATE '2026-01-01' + range::INTEGER AS day FROM range(20)",
    "plain": "SELECT range / 3 AS x FROM range(10)",
}


@pytest.fixture(scope="module")
def herds(tmp_path_factory):
    """A herd with tables of all kinds, and an empty one whose tables are spread by default."""
    first = Herd(tmp_path_factory.mktemp("first"), 2)
    second = Herd(tmp_path_factory.mktemp("second"), 2, coordinator_arguments=["--default-partitions", "5"])
    con = first.connect()
    con.execute("CREATE TABLE dh.keyed (id BIGINT PRIMARY KEY, s VARCHAR NOT NULL) PARTITIONED BY (id)")
    con.execute("CREATE TABLE dh.spread (n BIGINT, nested STRUCT(a BIGINT, b BIGINT[])) WITH (partitions = 5)")
    con.execute("CREATE TABLE dh.everywhere (n BIGINT, day DATE) WITH (distribution = 'replicated')")
    con.execute("CREATE TABLE dh.plain (x DOUBLE)")
    con.execute("CREATE TABLE dh.empty (x DOUBLE DEFAULT 3) WITH (partitions = 3)")
    for table, rows in ROWS.items():
        con.execute(f"INSERT INTO dh.{table} {rows}")
    con.execute("CREATE VIEW dh.seen AS SELECT n, count(*) AS many FROM spread GROUP BY n")
    yield first, second
    con.close()
    second.close()
    first.close()


def content(con, catalog):
    tables = {table: sorted(con.execute(f"FROM {catalog}.{table}").fetchall(), key=str) for table in TABLES}
    return tables | {"seen": con.execute(f"FROM {catalog}.seen ORDER BY ALL").fetchall()}


def expected():
    con = connect()
    for table, rows in ROWS.items():
        con.execute(f"CREATE TABLE {table} AS {rows}")
    con.execute("CREATE TABLE empty (x DOUBLE)")
    con.execute("CREATE VIEW seen AS SELECT n, count(*) AS many FROM spread GROUP BY n")
    return content(con, "memory")


def clear(con, catalog):
    con.execute(f"DROP VIEW IF EXISTS {catalog}.seen")
    for table in TABLES:
        con.execute(f"DROP TABLE IF EXISTS {catalog}.{table}")


def test_a_herd_is_copied_out_and_in(herds):
    first, second = herds
    con = first.connect()
    con.execute(attach_sql(second.coordinator.port, "other"))
    con.execute("ATTACH ':memory:' AS here")
    con.execute("COPY FROM DATABASE dh TO here")
    assert content(con, "here") == expected()
    con.execute("COPY FROM DATABASE here TO other")
    assert content(con, "other") == expected()
    # Where the rows are is up to the herd that they are copied to.
    partitions = con.execute("SELECT count(*) FROM duckherder_partitions('keyed', 'other')").fetchone()
    assert partitions == (5,)
    clear(con, "other")
    con.close()


def test_a_herd_is_exported_and_imported(herds, tmp_path):
    first, second = herds
    con = first.connect()
    con.execute(attach_sql(second.coordinator.port, "other"))
    con.execute(f"EXPORT DATABASE dh TO '{tmp_path}' (FORMAT parquet)")
    local = connect()
    local.execute(f"IMPORT DATABASE '{tmp_path}'")
    assert content(local, "memory") == expected()
    local.close()
    con.execute("USE other")
    con.execute(f"IMPORT DATABASE '{tmp_path}'")
    con.execute("USE memory")
    assert content(con, "other") == expected()
    assert con.execute("SELECT count(*) FROM duckherder_partitions('keyed', 'other')").fetchone() == (5,)
    clear(con, "other")
    con.close()


def placements(con, schema):
    found = con.execute(
        "SELECT table_name, tags['duckherder_placement'] FROM duckdb_tables() "
        f"WHERE database_name = 'dh' AND schema_name = '{schema}'"
    )
    placements = {table: json.loads(tag or "{}") for table, tag in found.fetchall()}
    return {
        table: (tag.get("distribution"), tag.get("keys"), len(tag.get("partitions", tag.get("workers", []))))
        for table, tag in placements.items()
    }


@pytest.mark.parametrize("schema", ["dh.made", "made"])
def test_tables_of_local_rows_are_spread_as_they_say(herds, schema):
    first, _ = herds
    con = first.connect()
    con.execute("CREATE OR REPLACE TEMP TABLE l AS SELECT range AS k, 'row ' || range AS s FROM range(1000)")
    con.execute("CREATE SCHEMA dh.made")
    con.execute("USE dh")
    con.execute(f"CREATE TABLE {schema}.defined (k INTEGER) PARTITIONED BY (k)")
    con.execute(f"CREATE TABLE {schema}.keyed PARTITIONED BY (k, s) WITH (partitions = 3) AS FROM temp.l")
    con.execute(f"CREATE TABLE {schema}.spread WITH (partitions = 5) AS FROM temp.l WHERE k < 100")
    con.execute(f"CREATE OR REPLACE TABLE {schema}.spread WITH (distribution = 'replicated') AS FROM temp.l")
    con.execute(f"CREATE TABLE {schema}.plain AS FROM temp.l")
    assert placements(con, "made") == {
        "defined": ("hash", ["k"], 8),
        "keyed": ("hash", ["k", "s"], 3),
        "spread": ("replicated", None, 2),
        "plain": (None, None, 0),
    }
    for table in ("keyed", "spread", "plain"):
        assert con.execute(f"SELECT count(*) FROM (FROM {schema}.{table} INTERSECT FROM temp.l)").fetchone() == (1000,)
    with pytest.raises(duckdb.Error, match='unknown table option "sides"'):
        con.execute(f"CREATE TABLE {schema}.wrong WITH (sides = 6) AS FROM temp.l")
    con.execute("DROP SCHEMA dh.made CASCADE")
    con.close()


def test_without_a_herd_clauses_are_refused(dh):
    dh.execute("CREATE TABLE l AS SELECT 1 AS k")
    with pytest.raises(duckdb.Error, match="no live worker"):
        dh.execute("CREATE TABLE dh.t PARTITIONED BY (k) AS FROM memory.l")
    with pytest.raises(duckdb.CatalogException):
        dh.execute("FROM dh.t")
