"""What is known of the server's tables, and when it changes."""

import duckdb
import pytest


def test_a_table_that_is_missing(dh):
    for sql in [
        "FROM dh.nope",
        "INSERT INTO dh.nope VALUES (1)",
        "UPDATE dh.nope SET i = 1",
        "DELETE FROM dh.nope",
        "DROP TABLE dh.nope",
        "ALTER TABLE dh.nope ADD COLUMN i INT",
        "CREATE INDEX x ON dh.nope (i)",
    ]:
        with pytest.raises(duckdb.CatalogException, match="nope.*does not exist"):
            dh.execute(sql)
    dh.execute("DROP TABLE IF EXISTS dh.nope")
    assert dh.execute("SELECT 42").fetchall() == [(42,)]


def test_a_schema_that_is_missing(dh):
    with pytest.raises(duckdb.Error, match="nope"):
        dh.execute("FROM dh.nope.t")


def test_a_column_that_is_missing(dh):
    dh.execute("CREATE TABLE dh.t (i INT)")
    with pytest.raises(duckdb.BinderException, match="nope"):
        dh.execute("SELECT nope FROM dh.t")
    assert dh.execute("FROM dh.t").fetchall() == []


def test_a_table_that_is_there_already(dh):
    dh.execute("CREATE TABLE dh.t (i INT)")
    for sql in ["CREATE TABLE dh.t (i INT)", "CREATE TABLE dh.t AS SELECT 1 AS i", "CREATE VIEW dh.t AS SELECT 1 AS i"]:
        with pytest.raises(duckdb.CatalogException, match='"t" already exists'):
            dh.execute(sql)
    dh.execute("CREATE TABLE IF NOT EXISTS dh.t (j INT)")
    dh.execute("CREATE OR REPLACE TABLE dh.t AS SELECT 1 AS k")
    assert dh.execute("FROM dh.t").fetchall() == [(1,)]


def test_dropped_by_another_client(dh, other):
    dh.execute("CREATE TABLE l AS SELECT 1 AS i")
    for sql in ["FROM dh.t", "FROM dh.t JOIN l USING (i)", "INSERT INTO dh.t VALUES (1)"]:
        dh.execute("CREATE TABLE dh.t AS SELECT 1 AS i")
        dh.execute(sql)
        other.execute("DROP TABLE dh.t")
        with pytest.raises(duckdb.CatalogException, match="t does not exist"):
            dh.execute(sql)
    assert dh.execute("FROM l").fetchall() == [(1,)]


@pytest.mark.parametrize("sql", ["FROM dh.t", "SELECT t.* FROM dh.t JOIN l USING (i)"])
def test_changed_by_another_client(dh, other, sql):
    dh.execute("CREATE TABLE l AS SELECT 1 AS i")
    dh.execute("CREATE TABLE dh.t AS SELECT 1 AS i")
    assert dh.execute(sql).fetchall() == [(1,)]
    other.execute("ALTER TABLE dh.t ADD COLUMN j VARCHAR DEFAULT 'new'")
    assert dh.execute(sql).fetchall() == [(1, "new")]
    other.execute("ALTER TABLE dh.t ALTER COLUMN j TYPE BLOB")
    assert dh.execute(sql).fetchall() == [(1, b"new")]
    other.execute("ALTER TABLE dh.t DROP COLUMN j")
    assert dh.execute(sql).fetchall() == [(1,)]
    other.execute("CREATE OR REPLACE TABLE dh.t AS SELECT 'k' AS k, 1 AS i")
    assert dh.execute(sql).fetchall() == [("k", 1)]


def test_replaced_by_a_view(dh, other):
    dh.execute("CREATE TABLE dh.t AS SELECT 1 AS i")
    assert dh.execute("FROM dh.t").fetchall() == [(1,)]
    other.execute("DROP TABLE dh.t")
    other.execute("CREATE VIEW dh.t AS SELECT 'view' AS name")
    assert dh.execute("FROM dh.t").fetchall() == [("view",)]


def test_a_prepared_statement_sees_a_changed_table(dh, other):
    dh.execute("CREATE TABLE dh.t AS SELECT 1 AS i")
    dh.execute("PREPARE p AS SELECT * FROM dh.t")
    assert dh.execute("EXECUTE p").fetchall() == [(1,)]
    other.execute("INSERT INTO dh.t VALUES (2)")
    assert dh.execute("EXECUTE p").fetchall() == [(1,), (2,)]


def test_views(dh):
    dh.execute("CREATE TABLE dh.t AS SELECT i FROM range(10) r(i)")
    dh.execute("CREATE VIEW dh.v AS SELECT i, i * i AS square FROM dh.t WHERE i > 7")
    assert dh.execute("FROM dh.v ORDER BY i").fetchall() == [(8, 64), (9, 81)]
    dh.execute("CREATE TABLE l AS SELECT 9 AS i")
    assert dh.execute("SELECT square FROM dh.v JOIN l USING (i)").fetchall() == [(81,)]
    dh.execute("CREATE VIEW local_view AS SELECT max(i) AS i FROM dh.v")
    assert dh.execute("FROM local_view").fetchall() == [(9,)]
    dh.execute("DROP VIEW dh.v")
    with pytest.raises(duckdb.CatalogException):
        dh.execute("FROM dh.v")


def test_schemas(dh):
    dh.execute("CREATE SCHEMA dh.s")
    dh.execute("CREATE TABLE dh.s.t AS SELECT 1 AS i")
    dh.execute("CREATE TABLE dh.t AS SELECT 2 AS i")
    assert dh.execute("FROM dh.s.t").fetchall() == [(1,)]
    assert dh.execute("FROM dh.main.t").fetchall() == [(2,)]
    dh.execute("CREATE TABLE l AS SELECT 1 AS i")
    assert dh.execute("SELECT s.t.i FROM dh.s.t JOIN l USING (i)").fetchall() == [(1,)]
    dh.execute("DROP SCHEMA dh.s CASCADE")
    with pytest.raises(duckdb.Error):
        dh.execute("FROM dh.s.t")


def test_what_is_listed(dh, other):
    other.execute("CREATE TABLE dh.t (i INTEGER NOT NULL, name VARCHAR)")
    assert dh.execute("SHOW TABLES FROM dh").fetchall() == [("t",)]
    assert dh.execute(
        "SELECT table_name, column_count FROM duckdb_tables() WHERE database_name = 'dh'"
    ).fetchall() == [("t", 2)]
    assert [row[:3] for row in dh.execute("DESCRIBE dh.t").fetchall()] == [
        ("i", "INTEGER", "NO"),
        ("name", "VARCHAR", "YES"),
    ]
    columns = "SELECT column_name, data_type FROM duckdb_columns() WHERE database_name = 'dh'"
    assert dh.execute(columns).fetchall() == [("i", "INTEGER"), ("name", "VARCHAR")]
    other.execute("DROP TABLE dh.t")
    assert dh.execute("SHOW TABLES FROM dh").fetchall() == []


def test_json(dh):
    dh.execute("CREATE TABLE dh.t AS SELECT '{\"a\": 1}'::JSON AS j, 1 AS i")
    assert dh.execute("FROM dh.t").fetchall() == [('{"a": 1}', 1)]
    assert dh.execute("SELECT json_extract(j, '$.a') FROM dh.t").fetchall() == [("1",)]
    dh.execute("CREATE TABLE l AS SELECT 1 AS i")
    assert dh.execute("SELECT j FROM dh.t JOIN l USING (i)").fetchall() == [('{"a": 1}',)]


def test_types_of_the_user(dh):
    dh.execute("CREATE TYPE dh.mood AS ENUM ('good', 'bad')")
    dh.execute("CREATE TYPE dh.euro AS DECIMAL(10, 2)")
    dh.execute("CREATE TABLE dh.t (m mood, e euro)")
    dh.execute("INSERT INTO dh.t VALUES ('good', 1.5)")
    dh.execute("CREATE TABLE l AS SELECT 1 AS one")
    for sql in ["SELECT m::VARCHAR, e::VARCHAR FROM dh.t", "SELECT m::VARCHAR, e::VARCHAR FROM dh.t, l"]:
        assert dh.execute(sql).fetchall() == [("good", "1.50")]


def test_names_ignore_case(dh):
    dh.execute('CREATE TABLE dh."Products" ("Id" INTEGER)')
    dh.execute("INSERT INTO DH.PRODUCTS VALUES (1)")
    assert dh.execute("SELECT ID FROM dh.products").fetchall() == [(1,)]
    dh.execute("CREATE TABLE l AS SELECT 1 AS id")
    result = dh.execute("SELECT * FROM dh.PRODUCTS JOIN l USING (ID)")
    assert result.fetchall() == [(1,)]


@pytest.mark.parametrize(
    "sql, error",
    [
        ("INSERT INTO dh.t VALUES (1)", duckdb.ConstraintException),
        ("SELECT 'x'::INTEGER FROM dh.t", duckdb.ConversionException),
        ("SELECT error('boom') FROM dh.t", duckdb.InvalidInputException),
        ("SELECT i + 9223372036854775807::BIGINT FROM dh.t", duckdb.OutOfRangeException),
        ("INSERT INTO dh.t SELECT 'x'", duckdb.ConversionException),
        ("INSERT INTO dh.t (j) VALUES (1)", duckdb.BinderException),
        ("SELECT no_such_function(i) FROM dh.t", duckdb.CatalogException),
    ],
)
def test_errors_of_the_server_keep_their_class(dh, sql, error):
    dh.execute("CREATE TABLE dh.t (i BIGINT PRIMARY KEY)")
    dh.execute("INSERT INTO dh.t VALUES (1)")
    with pytest.raises(error) as raised:
        dh.execute(sql).fetchall()
    assert type(raised.value) is error
    assert "exception_type" not in str(raised.value)
    assert dh.execute("FROM dh.t").fetchall() == [(1,)]


@pytest.mark.parametrize(
    ("sql", "left"),
    [
        ("UPDATE dh.t SET i = l.j FROM l WHERE t.i = l.i", [(5,)]),
        ("DELETE FROM dh.t USING l WHERE t.i = l.i", []),
        ("MERGE INTO dh.t USING l ON t.i = l.j WHEN NOT MATCHED THEN INSERT VALUES (l.j)", [(1,), (5,)]),
    ],
)
def test_changes_with_rows_of_this_process(dh, sql, left):
    dh.execute("CREATE TABLE dh.t AS SELECT 1 AS i")
    dh.execute("CREATE TABLE l AS SELECT 1 AS i, 5 AS j")
    assert dh.execute(sql).fetchall() == [(1,)]
    assert dh.execute("FROM dh.t ORDER BY i").fetchall() == left
    # The rows that went up are gone.
    assert dh.execute("FROM dh.query('SELECT count(*) FROM duckdb_tables() WHERE temporary')").fetchall() == [(0,)]


def test_rows_that_went_up_for_a_change_that_failed_are_gone(dh):
    dh.execute("CREATE TABLE dh.t (i INTEGER PRIMARY KEY)")
    dh.execute("INSERT INTO dh.t VALUES (1)")
    dh.execute("CREATE TABLE l AS SELECT 1 AS i")
    with pytest.raises(duckdb.ConstraintException):
        dh.execute("INSERT INTO dh.t FROM l RETURNING i")
    assert dh.execute("FROM dh.query('SELECT count(*) FROM duckdb_tables() WHERE temporary')").fetchall() == [(0,)]


def test_a_listed_view_follows_its_tables(dh):
    dh.execute("CREATE TABLE dh.t AS SELECT 1 AS i")
    dh.execute("CREATE VIEW dh.v AS SELECT i FROM dh.t UNION ALL SELECT i + 1 FROM dh.t")
    dh.execute("CREATE TABLE l AS SELECT '1' AS i")
    dh.execute("ALTER TABLE dh.t ALTER i TYPE VARCHAR USING 'number ' || i")
    assert dh.execute("SELECT name FROM (SHOW ALL TABLES) WHERE database = 'dh'").fetchall() == [("t",), ("v",)]
    with pytest.raises(duckdb.BinderException):
        dh.execute("FROM dh.v")
    dh.execute("CREATE OR REPLACE VIEW dh.v AS SELECT i FROM dh.t UNION ALL SELECT i || '!' FROM dh.t")
    dh.execute("ALTER TABLE dh.t ALTER i TYPE INTEGER USING 7")
    dh.execute("FROM duckdb_columns() WHERE database_name = 'dh'").fetchall()
    assert dh.execute("SELECT column_type FROM (DESCRIBE dh.v)").fetchall() == [("VARCHAR",)]
    dh.execute("CREATE OR REPLACE VIEW dh.v AS SELECT i FROM dh.t UNION ALL SELECT i FROM dh.t")
    dh.execute("ALTER TABLE dh.t ALTER i TYPE DOUBLE USING 7.5")
    dh.execute("FROM duckdb_columns() WHERE database_name = 'dh'").fetchall()
    assert dh.execute("SELECT column_type FROM (DESCRIBE dh.v)").fetchall() == [("DOUBLE",)]
    assert dh.execute("SELECT v.i FROM dh.v AS v, l").fetchall() == [(7.5,), (7.5,)]
