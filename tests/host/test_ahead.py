"""Reads like earlier ones, which are sent before DuckDB has bound them: what they find is what any read finds."""

import threading

import duckdb
import pytest

from conftest import connect, poll

#: A statement is foreseen from the third like it on.
UNTIL_KNOWN = 3


@pytest.fixture
def t(dh):
    dh.execute("CREATE TABLE dh.t (k INTEGER PRIMARY KEY, v VARCHAR)")
    dh.execute("INSERT INTO dh.t SELECT i, 'v' || i FROM range(100) r(i)")
    return dh


def rows(con, sql):
    result = con.execute(sql)
    return [column[0] for column in result.description], result.fetchall()


def make_known(con, sql):
    """Runs it until it is foreseen; what it found last."""
    for _ in range(UNTIL_KNOWN):
        found = rows(con, sql)
    return found


def reads_on_server(other, sql):
    query = "SELECT count(*) FROM duckherder_server_history('dh') WHERE sql = $1"
    return other.execute(query, [sql]).fetchone()[0]


def test_other_constants(t):
    for key in [*range(0, 30), -1, 1000, 99]:
        expected = [(key, f"v{key}")] if 0 <= key < 100 else []
        assert rows(t, f"SELECT * FROM dh.t WHERE k = {key}") == (["k", "v"], expected)
        assert t.execute(f"FROM dh.t WHERE v = 'v{key}';").fetchall() == expected


def test_one_that_is_not_asked_for_is_cancelled_and_the_next_one_not_sent(t, other):
    t.execute("CREATE TABLE memory.t AS SELECT 8 AS k, 'here' AS v")
    shapes = (f"SELECT v AS v{n} FROM t WHERE (k = 8)" for n in range(100))

    def sent_for_nothing():
        sent = next(shapes)
        t.execute("USE dh")
        make_known(t, sent.replace("8", "7"))
        assert reads_on_server(other, sent) == 0
        t.execute("USE memory")
        for _ in range(5):
            assert rows(t, sent)[1] == [("here",)]
        # Once, if it was not cancelled before it left.
        count = reads_on_server(other, sent)
        assert count <= 1
        t.execute("USE dh")
        assert rows(t, sent)[1] == [("v8",)]
        return count

    poll(sent_for_nothing, "a read that was sent ahead and not asked for")


def test_one_that_cannot_be_bound(t, other):
    t.execute("CREATE TABLE dh.items AS FROM dh.t")
    make_known(t, "SELECT v FROM dh.items WHERE k = 7")
    other.execute("ALTER TABLE dh.items RENAME v TO w")
    for _ in range(3):
        with pytest.raises(duckdb.BinderException, match='"v" not found'):
            t.execute("SELECT v FROM dh.items WHERE k = 7").fetchall()
    other.execute("DROP TABLE dh.items")
    for _ in range(3):
        with pytest.raises(duckdb.CatalogException):
            t.execute("SELECT v FROM dh.items WHERE k = 7").fetchall()
    other.execute("CREATE TABLE dh.items AS SELECT 7 AS k, 'anew' AS v")
    for _ in range(3):
        assert rows(t, "SELECT v FROM dh.items WHERE k = 7") == (["v"], [("anew",)])


def test_columns_that_have_changed(t, other):
    sql = "SELECT * FROM dh.t WHERE k = 7"
    assert make_known(t, sql) == (["k", "v"], [(7, "v7")])
    other.execute("ALTER TABLE dh.t ADD COLUMN w DOUBLE DEFAULT 1.5")
    assert rows(t, sql) == (["k", "v", "w"], [(7, "v7", 1.5)])
    # It was bound anew, and not run anew.
    assert reads_on_server(other, "SELECT * FROM t WHERE (k = 7)") == UNTIL_KNOWN + 1
    other.execute("ALTER TABLE dh.t RENAME v TO u")
    assert rows(t, sql) == (["k", "u", "w"], [(7, "v7", 1.5)])
    other.execute("ALTER TABLE dh.t ALTER w TYPE VARCHAR")
    assert rows(t, sql) == (["k", "u", "w"], [(7, "v7", "1.5")])
    other.execute("ALTER TABLE dh.t DROP COLUMN u")
    assert rows(t, sql) == (["k", "w"], [(7, "1.5")])
    assert t.sql(sql).description == t.execute(sql).description


def test_columns_that_have_changed_in_a_statement_around_it(t, other):
    make_known(t, "CREATE OR REPLACE TABLE memory.made AS SELECT v FROM dh.t WHERE k = 7")
    other.execute("DROP TABLE dh.t")
    other.execute("CREATE TABLE dh.t AS SELECT 7 AS k, [1, 2] AS v")
    t.execute("CREATE OR REPLACE TABLE memory.made AS SELECT v FROM dh.t WHERE k = 7")
    assert t.execute("SELECT v, typeof(v) FROM memory.made").fetchall() == [([1, 2], "INTEGER[]")]


def test_settings(t):
    t.execute("CREATE TABLE dh.z AS SELECT 1 AS k, '2026-01-01 12:00:00+00'::TIMESTAMPTZ AS z, NULL::INTEGER AS n")
    t.execute("INSERT INTO dh.z VALUES (2, '2026-01-01 12:00:00+00', 5)")
    for zone, hour in [("UTC", 12), ("Asia/Tokyo", 21), ("America/New_York", 7), ("UTC", 12)]:
        t.execute(f"SET TimeZone = '{zone}'")
        for _ in range(UNTIL_KNOWN):
            assert t.execute("SELECT hour(z) FROM dh.z WHERE k = 1").fetchall() == [(hour,)]
    for order, expected in [("NULLS FIRST", [(None,), (5,)]), ("NULLS LAST", [(5,), (None,)])]:
        t.execute(f"SET default_null_order = '{order}'")
        for _ in range(UNTIL_KNOWN):
            assert t.execute("SELECT n FROM dh.z ORDER BY n").fetchall() == expected
    t.execute("SET VARIABLE key = 1")
    for key in [1, 2, 1]:
        t.execute(f"SET VARIABLE key = {key}")
        for _ in range(UNTIL_KNOWN):
            assert t.execute("SELECT k FROM dh.z WHERE k = getvariable('key')").fetchall() == [(key,)]


def test_transactions(t, other):
    sql = "SELECT v FROM dh.t WHERE k = 7"
    make_known(t, sql)
    t.begin()
    assert t.execute(sql).fetchall() == [("v7",)]
    t.execute("UPDATE dh.t SET v = 'mine' WHERE k = 7")
    assert t.execute(sql).fetchall() == [("mine",)]
    assert other.execute(sql).fetchall() == [("v7",)]
    t.rollback()
    assert t.execute(sql).fetchall() == [("v7",)]
    other.execute("UPDATE dh.t SET v = 'theirs' WHERE k = 7")
    assert t.execute(sql).fetchall() == [("theirs",)]
    t.begin()
    assert t.execute(sql).fetchall() == [("theirs",)]
    other.execute("UPDATE dh.t SET v = 'theirs again' WHERE k = 7")
    assert t.execute(sql).fetchall() == [("theirs",)]
    t.commit()
    assert t.execute(sql).fetchall() == [("theirs again",)]


def test_aliases(t):
    t.execute("CREATE TABLE dh.u AS SELECT 7 AS k, 'of u' AS v")
    t.execute("PRAGMA duckherder_register_remote_table('alias', 't')")
    sql = "SELECT v FROM dh.alias WHERE k = 7"
    assert make_known(t, sql)[1] == [("v7",)]
    t.execute("PRAGMA duckherder_unregister_remote_table('alias')")
    t.execute("PRAGMA duckherder_register_remote_table('alias', 'u')")
    for _ in range(UNTIL_KNOWN):
        assert t.execute(sql).fetchall() == [("of u",)]


def test_the_same_text_explained_prepared_and_described(t):
    sql = "SELECT v FROM dh.t WHERE k = 7"
    make_known(t, sql)
    assert "dh" in t.execute(f"EXPLAIN {sql}").fetchall()[0][1]
    t.execute(f"PREPARE p AS {sql}")
    t.execute("UPDATE dh.t SET v = 'new' WHERE k = 7")
    assert t.execute("EXECUTE p").fetchall() == [("new",)]
    assert t.sql(sql).fetchall() == [("new",)]
    assert t.execute(f"DESCRIBE {sql}").fetchall()[0][:2] == ("v", "VARCHAR")
    assert t.execute(f"CREATE TABLE memory.c AS {sql}") and t.execute("FROM memory.c").fetchall() == [("new",)]
    assert t.execute("SELECT v FROM dh.t WHERE k = ?", [7]).fetchall() == [("new",)]


def test_errors_are_those_of_the_statement(t):
    for key in range(5):
        with pytest.raises(duckdb.ConversionException, match=f"Could not convert string 'v{key}' to INT32"):
            t.execute(f"SELECT v::INTEGER FROM dh.t WHERE k = {key}").fetchall()
    for key in range(5):
        assert t.execute(f"SELECT TRY_CAST(v AS INTEGER) FROM dh.t WHERE k = {key}").fetchall() == [(None,)]


def test_large_results_and_such_as_are_not_read_to_their_end(t):
    t.execute("CREATE TABLE dh.large AS SELECT i, i * 2 AS j FROM range(2_000_000) r(i)")
    for _ in range(2 * UNTIL_KNOWN):
        assert t.execute("SELECT count(j), sum(i) FROM dh.large").fetchall() == [(2_000_000, 1999999000000)]
        assert t.execute("SELECT * FROM dh.large").fetchone() == (0, 0)
        assert len(t.execute("SELECT * FROM dh.large").fetchall()) == 2_000_000
        assert t.execute("SELECT * FROM dh.large LIMIT 1").fetchall() == [(0, 0)]


def test_a_server_that_comes_back(con, start_duckling, tmp_path):
    duckling = start_duckling(database=tmp_path / "d.db")
    duckling.attach(con)
    con.execute("CREATE TABLE dh.t AS SELECT 7 AS k, 'v7' AS v")
    sql = "SELECT v FROM dh.t WHERE k = 7"
    make_known(con, sql)
    port = duckling.port
    duckling.kill()
    with pytest.raises(duckdb.ConnectionException):
        con.execute(sql).fetchall()
    start_duckling(port=port, database=tmp_path / "d.db")
    for _ in range(UNTIL_KNOWN):
        assert con.execute(sql).fetchall() == [("v7",)]


def test_an_interrupt_ends_it(t, other):
    sql = "SELECT count(*) FROM dh.t a, dh.t b, dh.t c, dh.t d, dh.t e WHERE (a.k + b.k + c.k + d.k + e.k) % 7 = {}"
    # Known by its like, which ends at once.
    for _ in range(UNTIL_KNOWN):
        t.execute("DELETE FROM dh.t WHERE k > 2")
        t.execute(sql.format(1)).fetchall()
    t.execute("INSERT INTO dh.t SELECT i, '' FROM range(1000, 2000) r(i)")
    failed = []

    def run():
        try:
            t.execute(sql.format(2)).fetchall()
        except duckdb.Error as error:
            failed.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    running = "SELECT count(*) FROM duckherder_server_history('dh') WHERE state = 'running' AND sql LIKE '%% 7) = 2%'"
    poll(lambda: other.execute(running).fetchone()[0], "the statement on the server")
    while thread.is_alive():
        t.interrupt()
        thread.join(0.05)
    assert len(failed) == 1 and isinstance(failed[0], duckdb.InterruptException)
    poll(lambda: other.execute(running).fetchone()[0] == 0, "the end of the statement on the server")
    assert t.execute("SELECT v FROM dh.t WHERE k = 2").fetchall() == [("v2",)]


def test_many_clients(t, duckling):
    def work(failures):
        try:
            con = duckling.attach(connect())
            for key in range(300):
                key %= 100
                assert con.execute(f"SELECT * FROM dh.t WHERE k = {key}").fetchall() == [(key, f"v{key}")]
                assert con.execute(f"INSERT INTO dh.log VALUES ({key}, 'x')").fetchall() == [(1,)]
            con.close()
        except Exception as failure:  # noqa: BLE001: told by the test's own thread
            failures.append(failure)

    t.execute("CREATE TABLE dh.log (k INTEGER, v VARCHAR)")
    failures = []
    threads = [threading.Thread(target=work, args=(failures,)) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert t.execute("SELECT count(*), count(DISTINCT k) FROM dh.log").fetchall() == [(16 * 300, 100)]
