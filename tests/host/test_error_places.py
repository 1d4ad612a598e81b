"""Errors point to the place in what the user has typed, as they do without a server."""

import duckdb
import pytest

TABLES = "CREATE TABLE dh.t (i INTEGER, s VARCHAR); INSERT INTO dh.t VALUES (1, 'one'), (2, 'two')"


def place(con, sql):
    """What the error shows of the text, and what it underlines there; None if nothing."""
    with pytest.raises(duckdb.Error) as error:
        con.execute(sql).fetchall()
    message = str(error.value)
    return message[message.index("LINE ") :] if "LINE " in message else None


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT missing FROM dh.t",
        "SELECT i,\n       s,\n       missing\nFROM dh.t",
        'SELECT "i", Missing, s FROM dh.main.t WHERE i > 0 -- missing',
        "SELECT i FROM dh.t WHERE s = 'missing' AND missing = 1",
        "SELECT t.i, t.missing FROM dh.t",
        "SELECT nothing.i FROM dh.t",
        "SELECT i FROM dh.t GROUP BY s",
        "SELECT sum(sum(i)) FROM dh.t",
        "SELECT i + s::BLOB FROM dh.t",
        "SELECT lower(i, s) FROM dh.t",
        "SELECT (SELECT missing FROM dh.t) FROM dh.t",
        "UPDATE dh.t SET i = missing WHERE i = 1",
        "DELETE FROM dh.t WHERE missing",
        "INSERT INTO dh.t VALUES (1, missing)",
        "SELECT s::INTEGER FROM dh.t",
        "SELECT 1, CAST(s AS DATE) FROM dh.t ORDER BY s",
    ],
)
def test_same_place(dh, sql):
    with duckdb.connect() as plain:
        plain.execute("ATTACH ':memory:' AS dh")
        plain.execute(TABLES)
        dh.execute(TABLES)
        expected = place(plain, sql)
        assert expected is not None
        assert place(dh, sql) == expected
