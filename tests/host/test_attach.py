"""ATTACH and DETACH."""

import duckdb
import pytest

from conftest import EXTENSION, attach_sql, connect


@pytest.mark.parametrize(
    "options, says",
    [
        ("server_prot 1", "unknown option 'server_prot'.*known are server_host, server_port"),
        ("server_port 1", "needs the option server_host.*ATTACH 'dh'"),
        ("server_host 'localhost'", "needs the option server_port.*ATTACH 'dh'"),
        ("server_host '', server_port 1", "needs the option server_host"),
        ("server_host 'localhost', server_port 'abc'", "server_port must be a number from 1 to 65535, not 'abc'"),
        ("server_host 'localhost', server_port 70000", "1 to 65535, not '70000'"),
        ("server_host 'localhost', server_port 0", "1 to 65535, not '0'"),
        ("server_host 'localhost', server_port -1", "1 to 65535, not '-1'"),
        ("server_host 'localhost', server_port 8815.5", "1 to 65535, not '8815.5'"),
        ("server_host 'localhost', server_port 1, connect_timeout_ms 0", "connect_timeout_ms must be a number"),
        ("server_host 'localhost', server_port 1, connect_timeout_ms 'soon'", "connect_timeout_ms must be a number"),
    ],
)
def test_wrong_options(con, options, says):
    with pytest.raises(duckdb.InvalidInputException, match=says):
        con.execute(f"ATTACH 'dh' (TYPE duckherder, {options})")
    assert con.execute("SELECT count(*) FROM duckdb_databases() WHERE database_name = 'dh'").fetchall() == [(0,)]


@pytest.mark.parametrize("options", ["server_host NULL, server_port 1", "server_host 'localhost', server_port NULL"])
def test_null_options(con, options):
    with pytest.raises(duckdb.BinderException, match="NULL is not supported"):
        con.execute(f"ATTACH 'dh' (TYPE duckherder, {options})")


def test_option_names_ignore_case(con, duckling):
    con.execute(f"ATTACH 'dh' (TYPE DUCKHERDER, Server_Host 'localhost', SERVER_PORT '{duckling.port}')")
    con.execute("CREATE TABLE dh.t AS SELECT 1 AS i")
    assert con.execute("FROM dh.t").fetchall() == [(1,)]


def test_a_name_that_is_taken(dh, duckling):
    with pytest.raises(duckdb.BinderException, match="already"):
        duckling.attach(dh)
    dh.execute("CREATE TABLE dh.t (i INT)")


def test_attach_as_and_if_not_exists(con, duckling):
    con.execute(attach_sql(duckling.port, "server").replace(" (", " AS pond (", 1))
    con.execute("CREATE TABLE pond.t AS SELECT 1 AS i")
    con.execute(attach_sql(duckling.port, "pond").replace("ATTACH", "ATTACH IF NOT EXISTS"))
    assert con.execute("FROM pond.t").fetchall() == [(1,)]


def test_read_only_refuses_writes(con, duckling, other):
    other.execute("CREATE TABLE dh.t AS SELECT 1 AS i")
    duckling.attach(con, "ro", ", READ_ONLY")
    for sql in [
        "INSERT INTO ro.t VALUES (2)",
        "UPDATE ro.t SET i = 2",
        "DELETE FROM ro.t",
        "CREATE TABLE ro.u (i INT)",
        "CREATE TABLE ro.u AS SELECT 1 AS i",
        "CREATE INDEX x ON ro.t (i)",
        "CREATE VIEW ro.v AS SELECT 1 AS i",
        "ALTER TABLE ro.t ADD COLUMN j INT",
        "DROP TABLE ro.t",
    ]:
        with pytest.raises(duckdb.InvalidInputException, match="read-only"):
            con.execute(sql)
    assert con.execute("FROM ro.t").fetchall() == [(1,)]
    assert other.execute("FROM dh.t").fetchall() == [(1,)]


def test_detach_and_attach_again(con, start_duckling):
    first, second = start_duckling(), start_duckling()
    first.attach(con)
    con.execute("CREATE TABLE dh.t AS SELECT 'first' AS name")
    assert con.execute("FROM dh.t").fetchall() == [("first",)]
    con.execute("DETACH dh")
    with pytest.raises(duckdb.CatalogException):
        con.execute("FROM dh.t")
    second.attach(con)
    with pytest.raises(duckdb.CatalogException):
        con.execute("FROM dh.t")
    con.execute("CREATE TABLE dh.t AS SELECT 2 AS number, 3 AS more")
    assert con.execute("FROM dh.t").fetchall() == [(2, 3)]
    con.execute("DETACH dh")
    first.attach(con)
    assert con.execute("FROM dh.t").fetchall() == [("first",)]


def test_several_names_for_one_server(dh, duckling):
    duckling.attach(dh, "pond")
    dh.execute("CREATE TABLE dh.t AS SELECT 1 AS i")
    assert dh.execute("FROM pond.t").fetchall() == [(1,)]
    assert dh.execute("SELECT count(*) FROM dh.t a JOIN pond.t b USING (i)").fetchall() == [(1,)]
    dh.execute("INSERT INTO pond.t VALUES (2)")
    assert dh.execute("SELECT sum(i) FROM dh.t").fetchall() == [(3,)]
    dh.execute("DETACH pond")
    assert dh.execute("SELECT sum(i) FROM dh.t").fetchall() == [(3,)]


def test_detach_with_an_open_result(child, duckling):
    process = child(
        """
        con = connect()
        con.execute(attach_sql(sys.argv[1]))
        con.execute("CREATE TABLE dh.t AS SELECT i, repeat('x', 100) AS s FROM range(1000000) r(i)")
        reader = con.cursor()
        reader.execute("SELECT i FROM dh.t")
        reader.fetchone()
        con.execute("DETACH dh")
        try:
            rows = 1 + len(reader.fetchall())
            assert rows == 1000000, rows
        except duckdb.Error as error:
            print(error)
        con.execute(attach_sql(sys.argv[1]))
        assert con.execute("SELECT count(*) FROM dh.t").fetchall() == [(1000000,)]
        reader.close()
        con.close()
        """,
        duckling.port,
    )
    process.finish()


def test_detach_on_the_connection_of_an_open_result(child, duckling):
    process = child(
        """
        con = connect()
        con.execute(attach_sql(sys.argv[1]))
        con.execute("CREATE TABLE dh.t AS SELECT i FROM range(1000000) r(i)")
        con.execute("SELECT i FROM dh.t")
        con.fetchone()
        con.execute("DETACH dh")
        con.execute(attach_sql(sys.argv[1]))
        assert con.execute("SELECT count(*) FROM dh.t").fetchall() == [(1000000,)]
        """,
        duckling.port,
    )
    process.finish()


def test_close_with_an_open_result_and_everything_attached(child, duckling):
    process = child(
        """
        con = connect()
        con.execute(attach_sql(sys.argv[1]))
        con.execute("CREATE TABLE dh.t AS SELECT i FROM range(1000000) r(i)")
        relation = con.sql("SELECT i FROM dh.t")
        relation.limit(1).fetchall()
        cursor = con.cursor().execute("SELECT i FROM dh.t")
        cursor.fetchone()
        con.close()
        print("closed")
        """,
        duckling.port,
    )
    assert process.finish() == "closed"


def test_the_default_catalog(dh):
    dh.execute("USE dh")
    dh.execute("CREATE TABLE t AS SELECT 1 AS i")
    assert dh.execute("FROM t").fetchall() == [(1,)]
    dh.execute("USE memory")
    with pytest.raises(duckdb.CatalogException, match="dh.t"):
        dh.execute("FROM t")


def test_a_second_duckdb_of_the_same_process(dh, duckling):
    with connect() as second:
        with pytest.raises(duckdb.CatalogException):
            second.execute("FROM dh.t")
        duckling.attach(second)
        dh.execute("CREATE TABLE dh.t AS SELECT 1 AS i")
        assert second.execute("FROM dh.t").fetchall() == [(1,)]
    assert dh.execute("FROM dh.t").fetchall() == [(1,)]


def test_loaded_twice(con, duckling):
    con.load_extension(EXTENSION)
    con.execute(f"LOAD '{EXTENSION}'")
    duckling.attach(con)
    assert con.execute("CREATE TABLE dh.t AS SELECT 1 AS i").fetchall() == [(1,)]
