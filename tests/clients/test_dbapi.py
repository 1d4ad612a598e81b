"""flightsql-dbapi: DB API 2, and SQLAlchemy, over pyarrow's C++."""

import datetime

import flightsql
import flightsql.sqlalchemy  # makes the dialect known
import pyarrow.flight
import pytest
import sqlalchemy
from flightsql import FlightSQLClient


LOGIN = {"user": "mallard", "password": "quack"}


@pytest.fixture
def client(server):
    return FlightSQLClient(host="127.0.0.1", port=server.port, insecure=True, **LOGIN)


@pytest.fixture
def cursor(client):
    return flightsql.connect(client).cursor()


def test_without_a_login_the_server_says_what_is_wrong(server):
    """The package then sends the token `None`."""
    client = FlightSQLClient(host="127.0.0.1", port=server.port, insecure=True)
    with pytest.raises(pyarrow.flight.FlightUnauthenticatedError, match="token is not known"):
        client.execute("SELECT 1")


def test_statements(cursor):
    cursor.execute("CREATE TABLE t (i INTEGER, s VARCHAR)")
    cursor.execute("INSERT INTO t VALUES (1, 'a'), (2, 'b')")
    assert cursor.execute("SELECT i, s FROM t ORDER BY i").fetchall() == [[1, "a"], [2, "b"]]
    assert [column[0] for column in cursor.description] == ["i", "s"]
    assert cursor.execute("SELECT count(*) FROM t").fetchone() == [2]


def test_parameters(cursor):
    assert cursor.execute("SELECT ? || ?", ("a", "b")).fetchall() == [["ab"]]
    cursor.execute("CREATE TABLE t (i INTEGER, s VARCHAR)")
    cursor.executemany("INSERT INTO t VALUES (?, ?)", [(1, "a"), (2, "b")])
    assert cursor.execute("SELECT s FROM t WHERE i = ?", (2,)).fetchall() == [["b"]]


def test_errors(cursor):
    with pytest.raises(Exception, match="Table with name nosuch does not exist"):
        cursor.execute("FROM nosuch")
    assert cursor.execute("SELECT 1").fetchall() == [[1]]


def test_an_update(client):
    assert client.execute_update("CREATE TABLE t AS SELECT range AS i FROM range(5)") in (-1, 0, 5)
    assert client.execute_update("DELETE FROM t WHERE i > 2") == 2


def test_metadata(client, cursor):
    cursor.execute("CREATE TABLE t (i INTEGER PRIMARY KEY, s VARCHAR)")
    connection = flightsql.connect(client)
    assert connection.flightsql_get_table_names("main") == ["t"]
    assert "main" in connection.flightsql_get_schema_names()
    assert [column["name"] for column in connection.flightsql_get_columns("t")] == ["i", "s"]
    assert [key["column_name"] for key in connection.flightsql_get_primary_keys("t")] == ["i"]


def test_sqlalchemy(server):
    engine = sqlalchemy.create_engine(f"datafusion+flightsql://mallard:quack@127.0.0.1:{server.port}?insecure=true")
    with engine.connect() as connection:
        connection.execute("CREATE TABLE ducks (name VARCHAR, hatched DATE)")
        connection.execute("INSERT INTO ducks VALUES ('mallard', '2024-03-01')")
        ducks = sqlalchemy.Table("ducks", sqlalchemy.MetaData(), autoload_with=engine, schema="main")
        assert [column.name for column in ducks.columns] == ["name", "hatched"]
        query = sqlalchemy.select(ducks.c.name).where(ducks.c.name == "mallard")
        assert connection.execute(query).fetchall() == [("mallard",)]
        assert sqlalchemy.inspect(engine).get_table_names("main") == ["ducks"]
    engine.dispose()


def test_dates_and_times(cursor):
    (row,) = cursor.execute("SELECT DATE '2024-02-29' AS d, TIMESTAMP '2024-02-29 01:02:03' AS t").fetchall()
    assert [value.date() if isinstance(value, datetime.datetime) else value for value in row][0] == datetime.date(2024, 2, 29)
