"""What a statement's result looks like, in comparison with a database of one's own."""

import duckdb
import pytest

from conftest import connect

STATEMENTS = [
    "CREATE TABLE dh.t (a INTEGER PRIMARY KEY, b VARCHAR)",
    "INSERT INTO dh.t VALUES (1, 'x'), (2, 'y')",
    "CREATE TABLE dh.u AS SELECT a + 1 FROM dh.t",
    "CREATE OR REPLACE TABLE dh.u AS SELECT 42 AS i",
    "CREATE VIEW dh.v AS FROM dh.t",
    "CREATE SCHEMA dh.s",
    "CREATE SEQUENCE dh.q",
    "CREATE MACRO dh.m(x) AS x + 1",
    "CREATE TYPE dh.e AS ENUM ('a')",
    "CREATE UNIQUE INDEX i ON dh.t (b)",
    "COMMENT ON TABLE dh.t IS 'x'",
    "UPDATE dh.t SET b = b || '!' WHERE a = 1",
    "DELETE FROM dh.t WHERE a = 2 RETURNING dh.t.a + (1 + 1), lower(b || 'x' || 'y')",
    "SELECT dh.t.a + (1 + 1), sum(a + 3 - 2) OVER (), '1'::INTEGER FROM dh.t",
    "SELECT a + (1 + 1), a + 2, a FROM dh.t UNION ALL SELECT 1, 2, 3 FROM dh.t",
    "SELECT COLUMNS(lambda c: c = 'a') + (1 + 1) FROM dh.t",
    "SELECT max(COLUMNS(*)) FROM dh.t",
    "PREPARE p AS SELECT a + (1 + 1) + ? FROM dh.t",
    "EXECUTE p(1)",
    "EXPLAIN ANALYZE INSERT INTO dh.u VALUES (1)",
    "SHOW TABLES FROM dh",
    "DESCRIBE dh.v",
    "TRUNCATE dh.u",
    "ALTER TABLE dh.t ADD COLUMN c INTEGER",
    "DROP VIEW dh.v",
    "BEGIN",
    "DROP TABLE dh.u",
    "COMMIT",
    "USE dh",
]


def outcome(con, sql):
    con.execute(sql)
    columns = [(name, str(data_type)) for name, data_type, *_ in con.description or []]
    rows = con.fetchall() if con.description else []
    return columns, [] if sql.startswith("EXPLAIN") else rows


@pytest.mark.parametrize("cursor", [False, True], ids=["connection", "cursor"])
def test_names_types_and_rows_are_those_of_duckdb(dh, cursor):
    plain = connect()
    plain.execute("ATTACH ':memory:' AS dh")
    if cursor:
        plain, dh = plain.cursor(), dh.cursor()
    for sql in STATEMENTS:
        assert (sql, *outcome(dh, sql)) == (sql, *outcome(plain, sql))


@pytest.mark.parametrize(
    "sql, values",
    [
        ("SELECT nope FROM dh.t WHERE a = ?", [1]),
        ("SELECT ? + a FROM dh.t", ["5"]),
        ("SELECT sum(?) FROM dh.t", ["a"]),
        ("SELECT lower(?) FROM dh.t", [1]),
        ("SELECT nope(?) FROM dh.t", [1]),
        ("SELECT a FROM dh.t LIMIT ?", ["x"]),
        ("INSERT INTO dh.t VALUES (?)", ["x"]),
        ("SELECT a FROM dh.t WHERE a = ?", []),
        ("SELECT a FROM dh.t WHERE a = ?", [1, 2]),
    ],
)
def test_what_is_wrong_with_parameters_is_said_as_by_duckdb(dh, sql, values):
    plain = connect()
    plain.execute("ATTACH ':memory:' AS dh")
    messages = []
    for con in (plain, dh):
        con.execute("CREATE TABLE dh.t (a INTEGER)")
        with pytest.raises(duckdb.Error) as error:
            con.execute(sql, values).fetchall()
        # A value that is sent is a literal, which has a type of its own name.
        messages.append((type(error.value), str(error.value).split("\n")[0].replace("_LITERAL", "")))
    assert messages[0] == messages[1]
