"""Rows of the user's process that go into the server's tables."""

import duckdb
import pytest

from conftest import connect


@pytest.fixture
def rows(dh):
    """dh with an empty dh.t (i BIGINT, s VARCHAR) and a local table l like it, with 100000 rows."""
    dh.execute("CREATE TABLE dh.t (i BIGINT, s VARCHAR)")
    dh.execute("CREATE TABLE l AS SELECT i, 'row ' || i AS s FROM range(100000) r(i)")
    return dh


TOTAL = "SELECT count(*), sum(i), sum(length(s)) FROM "


def test_insert(rows, other):
    assert rows.execute("INSERT INTO dh.t FROM l").fetchall() == [(100_000,)]
    assert other.execute(TOTAL + "dh.t").fetchall() == rows.execute(TOTAL + "l").fetchall()


def test_create_table_as(rows, other):
    assert rows.execute("CREATE TABLE dh.u AS FROM l").fetchall() == [(100_000,)]
    assert other.execute(TOTAL + "dh.u").fetchall() == rows.execute(TOTAL + "l").fetchall()


def test_no_rows(rows):
    assert rows.execute("INSERT INTO dh.t FROM l WHERE false").fetchall() == [(0,)]
    assert rows.execute("CREATE TABLE dh.u AS FROM l WHERE false").fetchall() == [(0,)]
    assert rows.execute("FROM dh.u").fetchall() == []


def test_some_columns_and_defaults(rows, other):
    other.execute("CREATE TABLE dh.d (i BIGINT, s VARCHAR DEFAULT 'none')")
    rows.execute("INSERT INTO dh.d (i) SELECT i FROM l WHERE i < 2")
    assert other.execute("FROM dh.d ORDER BY i").fetchall() == [(0, "none"), (1, "none")]


def test_parameters(rows, other):
    rows.execute("INSERT INTO dh.t VALUES (?, ?)", [1, "it's"])
    rows.execute("INSERT INTO dh.t VALUES ($i, $s)", {"i": 2, "s": None})
    rows.executemany("INSERT INTO dh.t VALUES (?, ?)", [[3, "c"], [4, "d"]])
    assert other.execute("FROM dh.t ORDER BY i").fetchall() == [(1, "it's"), (2, None), (3, "c"), (4, "d")]


def test_rows_from_both_sides(rows):
    rows.execute("INSERT INTO dh.t VALUES (1, 'there')")
    rows.execute("INSERT INTO dh.t SELECT l.i, l.s || t.s FROM l JOIN dh.t ON l.i = t.i")
    assert rows.execute("FROM dh.t ORDER BY s").fetchall() == [(1, "row 1there"), (1, "there")]


def test_from_one_server_to_another(rows, start_duckling):
    start_duckling().attach(rows, "pond")
    rows.execute("INSERT INTO dh.t FROM l")
    rows.execute("CREATE TABLE pond.t AS FROM dh.t")
    assert rows.execute(TOTAL + "pond.t").fetchall() == rows.execute(TOTAL + "l").fetchall()


def test_all_or_nothing_when_the_source_fails(rows, other):
    with pytest.raises(duckdb.InvalidInputException, match="late"):
        rows.execute("INSERT INTO dh.t SELECT i, CASE WHEN i = 99999 THEN error('late') ELSE s END FROM l")
    assert other.execute("FROM dh.t").fetchall() == []
    with pytest.raises(duckdb.InvalidInputException, match="late"):
        rows.execute("CREATE TABLE dh.u AS SELECT i, CASE WHEN i = 99999 THEN error('late') ELSE s END AS s FROM l")
    with pytest.raises(duckdb.CatalogException):
        other.execute("FROM dh.u")
    rows.execute("INSERT INTO dh.t FROM l LIMIT 1")


def test_all_or_nothing_when_the_server_refuses(rows, other):
    other.execute("CREATE TABLE dh.k (i BIGINT PRIMARY KEY, s VARCHAR NOT NULL)")
    other.execute("INSERT INTO dh.k VALUES (99999, 'there')")
    with pytest.raises(duckdb.ConstraintException):
        rows.execute("INSERT INTO dh.k FROM l")
    with pytest.raises(duckdb.ConstraintException, match="(?i)not null"):
        rows.execute("INSERT INTO dh.k SELECT i, CASE WHEN i < 9 THEN s END FROM l WHERE i < 10")
    assert other.execute("FROM dh.k").fetchall() == [(99999, "there")]


def test_in_a_transaction(rows, other):
    rows.begin()
    rows.execute("INSERT INTO dh.t FROM l")
    assert rows.execute("SELECT count(*) FROM dh.t").fetchall() == [(100_000,)]
    assert other.execute("SELECT count(*) FROM dh.t").fetchall() == [(0,)]
    rows.rollback()
    assert rows.execute("SELECT count(*) FROM dh.t").fetchall() == [(0,)]
    rows.begin()
    rows.execute("INSERT INTO dh.t FROM l")
    rows.execute("INSERT INTO dh.t VALUES (1, 'more')")
    rows.commit()
    assert other.execute("SELECT count(*) FROM dh.t").fetchall() == [(100_001,)]


def test_explain_and_prepare_send_nothing(rows, other):
    rows.execute("EXPLAIN INSERT INTO dh.t FROM l")
    rows.execute("EXPLAIN CREATE TABLE dh.u AS FROM l")
    rows.execute("PREPARE p AS INSERT INTO dh.t FROM l")
    assert other.execute("SELECT count(*) FROM dh.t").fetchall() == [(0,)]
    assert other.execute("SHOW TABLES FROM dh").fetchall() == [("t",)]
    rows.execute("EXECUTE p")
    assert other.execute("SELECT count(*) FROM dh.t").fetchall() == [(100_000,)]


def test_killed_in_the_middle(child, duckling, start_duckling, other):
    other.execute("CREATE TABLE dh.t (i BIGINT)")
    process = child(
        """
        con = connect()
        con.execute(attach_sql(sys.argv[1]))
        con.execute("CREATE TABLE l AS SELECT i FROM range(100000) r(i)")
        print("sending")
        try:
            con.execute("INSERT INTO dh.t SELECT i FROM l, range(1000000) r(j)")
        except duckdb.ConnectionException:
            print("gone")
        assert con.execute("SELECT 42").fetchall() == [(42,)]
        """,
        duckling.port,
    )
    assert process.line() == "sending"
    assert other.execute("SELECT count(*) FROM dh.t").fetchall() == [(0,)]
    duckling.kill()
    assert process.line() == "gone"
    process.finish()
    with connect() as con:
        start_duckling(database=duckling.database).attach(con)
        assert con.execute("FROM dh.t").fetchall() == []


def test_every_type(dh, other):
    dh.execute("CREATE TABLE here AS SELECT * FROM test_all_types()")
    columns = [row[0] for row in dh.execute("DESCRIBE here").fetchall()]
    for column in columns:
        dh.execute(f'CREATE OR REPLACE TABLE dh.there AS SELECT "{column}" FROM here')
        query = f'SELECT "{column}"::VARCHAR, typeof("{column}") FROM'
        assert other.execute(f"{query} dh.there").fetchall() == dh.execute(f"{query} here").fetchall(), column
