"""Aliases of remote tables."""

import duckdb
import pytest


def register(con, *names):
    con.execute(f"PRAGMA duckherder_register_remote_table({', '.join(repr(name) for name in names)})")


def unregister(con, *names):
    con.execute(f"PRAGMA duckherder_unregister_remote_table({', '.join(repr(name) for name in names)})")


def test_registering_twice_and_unregistering_unknown(dh):
    register(dh, "goods", "products")
    with pytest.raises(duckdb.InvalidInputException, match="goods"):
        register(dh, "goods", "other")
    unregister(dh, "goods")
    with pytest.raises(duckdb.InvalidInputException, match="goods"):
        unregister(dh, "goods")
    register(dh, "goods", "other")


def test_nothing_attached(con):
    with pytest.raises(duckdb.InvalidInputException, match="ATTACH 'dh'"):
        register(con, "a", "b")
    with pytest.raises(duckdb.InvalidInputException, match="not an attached duckling"):
        register(con, "a", "b", "memory")


def test_null_names(dh):
    with pytest.raises(duckdb.InvalidInputException, match="NULL"):
        dh.execute("PRAGMA duckherder_register_remote_table(NULL, 'x')")


def test_several_ducklings_need_a_name(con, start_duckling):
    start_duckling().attach(con, "one")
    start_duckling().attach(con, "two")
    with pytest.raises(duckdb.InvalidInputException, match="(one, two|two, one).*USE"):
        register(con, "goods", "products")
    register(con, "goods", "products", "two")
    con.execute("CREATE TABLE two.products AS SELECT 2 AS i")
    assert con.execute("FROM two.goods").fetchall() == [(2,)]
    with pytest.raises(duckdb.CatalogException):
        con.execute("FROM one.goods")
    con.execute("USE one")
    register(con, "things", "products")
    con.execute("CREATE TABLE one.products AS SELECT 1 AS i")
    assert con.execute("FROM one.things").fetchall() == [(1,)]
    with pytest.raises(duckdb.InvalidInputException, match="goods"):
        unregister(con, "goods")
    unregister(con, "goods", "two")


def test_every_statement_goes_to_the_remote_name(dh, other):
    # Before there is such a table.
    register(dh, "goods", "products")
    dh.execute("CREATE TABLE dh.goods (id INTEGER, name VARCHAR)")
    assert other.execute("FROM dh.products").fetchall() == []
    dh.execute("INSERT INTO dh.goods VALUES (1, 'a'), (2, 'b')")
    dh.execute("UPDATE dh.goods SET name = 'c' WHERE id = 2")
    dh.execute("DELETE FROM dh.goods WHERE id = 1")
    dh.execute("ALTER TABLE dh.goods ADD COLUMN price INTEGER DEFAULT 7")
    dh.execute("CREATE INDEX by_id ON dh.goods (id)")
    assert dh.execute("SELECT goods.id, goods.name, price FROM dh.goods").fetchall() == [(2, "c", 7)]
    assert other.execute("FROM dh.products").fetchall() == [(2, "c", 7)]
    assert other.execute("SELECT count(*) FROM dh.products p JOIN dh.products q USING (id)").fetchall() == [(1,)]
    dh.execute("CREATE VIEW dh.v AS SELECT id FROM dh.goods")
    assert other.execute("FROM dh.v").fetchall() == [(2,)]
    dh.execute("DROP VIEW dh.v")
    dh.execute("DROP TABLE dh.goods")
    with pytest.raises(duckdb.CatalogException):
        other.execute("FROM dh.products")


def test_in_subqueries_ctes_and_mixed_joins(dh):
    dh.execute("CREATE TABLE dh.products AS SELECT i FROM range(3) r(i)")
    register(dh, "goods", "products")
    dh.execute("CREATE TABLE local_ids AS SELECT 1 AS i")
    assert dh.execute("SELECT i FROM dh.products WHERE i IN (SELECT i + 1 FROM dh.goods) ORDER BY i").fetchall() == [
        (1,),
        (2,),
    ]
    assert dh.execute("WITH g AS (FROM dh.goods) SELECT sum(i) FROM g").fetchall() == [(3,)]
    assert dh.execute("SELECT goods.i FROM dh.goods JOIN local_ids USING (i)").fetchall() == [(1,)]
    assert dh.execute("SELECT (SELECT max(i) FROM dh.goods)").fetchall() == [(2,)]


def test_a_name_with_a_schema(dh):
    dh.execute("CREATE TABLE dh.products AS SELECT 1 AS i")
    register(dh, "goods", "main.products")
    assert dh.execute("FROM dh.goods").fetchall() == [(1,)]


def test_unregistered_names_are_gone(dh):
    dh.execute("CREATE TABLE dh.products AS SELECT 1 AS i")
    register(dh, "goods", "products")
    assert dh.execute("FROM dh.goods").fetchall() == [(1,)]
    unregister(dh, "goods")
    with pytest.raises(duckdb.CatalogException, match="goods"):
        dh.execute("FROM dh.goods")
    assert dh.execute("FROM dh.products").fetchall() == [(1,)]
