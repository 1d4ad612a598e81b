"""Names, texts and results of unusual size and shape."""

import duckdb
import pytest

NAMES = ['with "quotes"', "it's", "日本語", "🦆", "select", "a.b", "Tab\there", "new\nline", " spaces ", "ÄÖÜ", "semi;colon"]


def quoted(name):
    return '"' + name.replace('"', '""') + '"'


@pytest.mark.parametrize("name", NAMES)
def test_identifiers(dh, name):
    table = f"dh.{quoted(name)}"
    column = quoted(name)
    dh.execute(f"CREATE TABLE {table} ({column} INTEGER)")
    dh.execute(f"INSERT INTO {table} ({column}) VALUES (1)")
    dh.execute(f"UPDATE {table} SET {column} = {column} + 1")
    dh.execute("CREATE TABLE l AS SELECT 2 AS i")
    result = dh.execute(f"SELECT * FROM {table}")
    assert [d[0] for d in result.description] == [name]
    assert result.fetchall() == [(2,)]
    assert dh.execute(f"SELECT r.{column} FROM {table} r JOIN l ON r.{column} = l.i").fetchall() == [(2,)]
    assert dh.execute("SHOW TABLES FROM dh").fetchall() == [(name,)]
    dh.execute(f"CREATE INDEX {quoted('by ' + name)} ON {table} ({column})")
    dh.execute(f"DROP TABLE {table}")


def test_catalog_names(con, duckling):
    for name in NAMES:
        con.execute(f"ATTACH 'x' AS {quoted(name)} (TYPE duckherder, server_host 'localhost', server_port {duckling.port})")
        con.execute(f"CREATE OR REPLACE TABLE {quoted(name)}.t AS SELECT 1 AS i")
        assert con.execute(f"FROM {quoted(name)}.t").fetchall() == [(1,)]
        con.execute(f"DETACH {quoted(name)}")


def test_long_sql(dh):
    dh.execute("CREATE TABLE dh.t (i INTEGER, s VARCHAR)")
    values = ", ".join(f"({i}, '{'x' * 20}')" for i in range(3000))
    sql = f"INSERT INTO dh.t VALUES {values}"
    assert len(sql) > 64 * 1024
    assert dh.execute(sql).fetchall() == [(3000,)]
    assert dh.execute("SELECT count(*), sum(i) FROM dh.t").fetchall() == [(3000, 4498500)]
    ids = ", ".join(str(i) for i in range(20000))
    assert dh.execute(f"SELECT count(*) FROM dh.t WHERE i IN ({ids})").fetchall() == [(3000,)]


def test_texts(dh):
    dh.execute("CREATE TABLE dh.t (s VARCHAR)")
    for text in ["", "it's", "日本語 🦆", "back\\slash", "new\nline", "\x01", "--", "/*", "$$", "%", '"']:
        dh.execute("DELETE FROM dh.t")
        dh.execute(f"INSERT INTO dh.t VALUES ('{text.replace(chr(39), 2 * chr(39))}')")
        assert dh.execute("FROM dh.t").fetchall() == [(text,)]


def test_nul_in_a_text(dh):
    dh.execute("CREATE TABLE dh.t AS SELECT 'a' || chr(i::INTEGER) || 'b' AS s FROM range(1) r(i)")
    assert dh.execute("FROM dh.t").fetchall() == [("a\0b",)]


def test_nul_in_sql(dh):
    dh.execute("CREATE TABLE dh.t AS SELECT 1 AS i")
    with pytest.raises(duckdb.Error):
        dh.execute("SELECT '\0' FROM dh.t WHERE s\0 = 1")
    assert dh.execute("FROM dh.t").fetchall() == [(1,)]


def test_results_without_rows(dh):
    dh.execute("CREATE TABLE dh.t (i INTEGER, s VARCHAR)")
    for sql in ["FROM dh.t", "SELECT * FROM dh.t WHERE false", "SELECT * FROM dh.t LIMIT 0"]:
        result = dh.execute(sql)
        assert [d[0] for d in result.description] == ["i", "s"]
        assert result.fetchall() == []
    assert dh.execute("SELECT count(*), sum(i) FROM dh.t").fetchall() == [(0, None)]
    assert dh.execute("UPDATE dh.t SET i = 1").fetchall() == [(0,)]
    assert dh.execute("DELETE FROM dh.t RETURNING i").fetchall() == []


def test_results_without_columns_of_the_table(dh):
    dh.execute("CREATE TABLE dh.t AS SELECT i FROM range(5000) r(i)")
    dh.execute("CREATE TABLE l AS SELECT 1 AS one FROM range(2)")
    assert dh.execute("SELECT count(*) FROM dh.t, l").fetchall() == [(10_000,)]
    assert len(dh.execute("SELECT one FROM dh.t, l").fetchall()) == 10_000


def test_duplicate_columns(dh):
    dh.execute("CREATE TABLE dh.t AS SELECT 1 AS i, 2 AS j")
    assert dh.execute("SELECT i, j, i, i FROM dh.t").fetchall() == [(1, 2, 1, 1)]
    assert dh.execute("SELECT * FROM dh.t a, dh.t b").fetchall() == [(1, 2, 1, 2)]


def test_many_columns(dh):
    columns = ", ".join(f"{i} AS c{i}" for i in range(1000))
    dh.execute(f"CREATE TABLE dh.t AS SELECT {columns}")
    assert dh.execute("FROM dh.t").fetchall() == [tuple(range(1000))]


def test_a_million_rows(dh):
    dh.execute("CREATE TABLE dh.t AS SELECT i, i % 7 AS k FROM range(1000000) r(i)")
    assert dh.execute("SELECT count(*), sum(i), count(DISTINCT k) FROM dh.t").fetchall() == [
        (1_000_000, 499_999_500_000, 7)
    ]
    dh.execute("CREATE TABLE l AS SELECT i, i % 7 AS k FROM range(1000000) r(i)")
    assert dh.execute("SELECT count(*), sum(l.i) FROM dh.t JOIN l USING (i, k)").fetchall() == [
        (1_000_000, 499_999_500_000)
    ]
    dh.execute("CREATE TABLE copied AS FROM dh.t")
    assert dh.execute("SELECT count(*), sum(i), sum(k) FROM copied").fetchall() == dh.execute(
        "SELECT count(*), sum(i), sum(k) FROM l"
    ).fetchall()


def test_the_order_of_rows_is_kept(dh):
    dh.execute("CREATE TABLE dh.t AS SELECT i FROM range(500000) r(i)")
    assert dh.execute("SELECT i FROM dh.t ORDER BY i DESC LIMIT 3").fetchall() == [(499999,), (499998,), (499997,)]
    rows = dh.execute("SELECT i FROM dh.t").fetchall()
    assert rows == [(i,) for i in range(500_000)]


def test_large_texts(dh):
    dh.execute("CREATE TABLE dh.t AS SELECT i, repeat(chr(65 + i::INT), 10000000) AS s FROM range(3) r(i)")
    rows = dh.execute("SELECT s FROM dh.t ORDER BY i").fetchall()
    assert [(row[0][0], len(row[0]), len(set(row[0]))) for row in rows] == [
        ("A", 10_000_000, 1),
        ("B", 10_000_000, 1),
        ("C", 10_000_000, 1),
    ]
    dh.execute(f"INSERT INTO dh.t VALUES (3, '{'Z' * 2_000_000}')")
    assert dh.execute("SELECT length(s) FROM dh.t WHERE i = 3").fetchall() == [(2_000_000,)]
