"""Transactions across the wire."""

import duckdb
import pytest

from conftest import connect, poll


@pytest.fixture
def t(dh):
    dh.execute("CREATE TABLE dh.t AS SELECT 1 AS i")
    return dh


def values(con):
    return [row[0] for row in con.execute("SELECT i FROM dh.t ORDER BY i").fetchall()]


def test_commit(t, other):
    t.begin()
    t.execute("INSERT INTO dh.t VALUES (2)")
    assert values(t) == [1, 2]
    assert values(other) == [1]
    t.commit()
    assert values(other) == [1, 2]


def test_rollback(t, other):
    t.begin()
    t.execute("INSERT INTO dh.t VALUES (2)")
    t.execute("CREATE TABLE dh.u AS SELECT 1 AS i")
    assert t.execute("FROM dh.u").fetchall() == [(1,)]
    t.rollback()
    assert values(t) == values(other) == [1]
    with pytest.raises(duckdb.CatalogException):
        t.execute("FROM dh.u")


def test_a_snapshot_does_not_move(t, other):
    t.begin()
    assert values(t) == [1]
    other.execute("INSERT INTO dh.t VALUES (2)")
    assert values(t) == [1]
    t.commit()
    assert values(t) == [1, 2]


def test_autocommit(t, other):
    t.execute("INSERT INTO dh.t VALUES (2)")
    assert values(other) == [1, 2]
    with pytest.raises(duckdb.TransactionException):
        t.rollback()
    assert values(other) == [1, 2]


def test_sql_and_methods_mix(t, other):
    t.execute("BEGIN")
    t.execute("DELETE FROM dh.t")
    t.rollback()
    t.begin()
    t.execute("INSERT INTO dh.t VALUES (2)")
    t.execute("COMMIT")
    assert values(other) == [1, 2]


def test_an_error_aborts_as_it_does_locally(t, other):
    t.execute("CREATE TABLE dh.k (i INTEGER PRIMARY KEY)")
    t.begin()
    t.execute("INSERT INTO dh.k VALUES (1)")
    with pytest.raises(duckdb.ConstraintException):
        t.execute("INSERT INTO dh.k VALUES (1)")
    with pytest.raises(duckdb.TransactionException, match="aborted.*ROLLBACK"):
        t.execute("FROM dh.k")
    t.rollback()
    assert other.execute("FROM dh.k").fetchall() == []
    t.execute("INSERT INTO dh.k VALUES (2)")
    assert other.execute("FROM dh.k").fetchall() == [(2,)]


def test_a_local_error_leaves_no_half_transaction(t, other):
    t.begin()
    t.execute("INSERT INTO dh.t VALUES (2)")
    with pytest.raises(duckdb.Error):
        t.execute("SELECT error('local')").fetchall()
    t.rollback()
    assert values(other) == values(t) == [1]


def test_conflicting_writers(t, other):
    t.begin()
    other.begin()
    t.execute("UPDATE dh.t SET i = 2")
    with pytest.raises(duckdb.TransactionException, match="(?i)conflict"):
        other.execute("UPDATE dh.t SET i = 3")
    other.rollback()
    t.commit()
    assert values(other) == [2]


def test_a_commit_that_fails_says_so(t, other):
    t.execute("CREATE TABLE dh.k (i INTEGER PRIMARY KEY)")
    t.begin()
    other.begin()
    t.execute("INSERT INTO dh.k VALUES (1)")
    with pytest.raises(duckdb.Error):
        other.execute("INSERT INTO dh.k VALUES (1)")
        t.commit()
        other.commit()
    for con in (t, other):
        try:
            con.rollback()
        except duckdb.TransactionException:
            pass
    assert t.execute("SELECT count(*) <= 1 FROM dh.k").fetchall() == [(True,)]


def test_closing_rolls_back(t, other, duckling):
    con = duckling.attach(connect())
    con.begin()
    con.execute("UPDATE dh.t SET i = 100")
    con.close()

    def update():
        try:
            other.execute("UPDATE dh.t SET i = 2")
            return True
        except duckdb.TransactionException:
            return False

    poll(update, "the other transaction's end", 5)
    assert values(t) == [2]


def test_cursors_have_transactions_of_their_own(t):
    first, second = t.cursor(), t.cursor()
    first.begin()
    first.execute("INSERT INTO dh.t VALUES (2)")
    assert values(second) == [1]
    first.commit()
    assert values(second) == [1, 2]


def test_two_scans_in_one_statement(t):
    t.execute("INSERT INTO dh.t SELECT i FROM range(2, 100001) r(i)")
    t.execute("CREATE TABLE l AS SELECT i FROM range(1, 100001) r(i)")
    t.begin()
    t.execute("INSERT INTO dh.t VALUES (0)")
    joined = "SELECT count(*), sum(a.i) FROM dh.t a JOIN dh.t b USING (i) JOIN l USING (i)"
    assert t.execute(joined).fetchall() == [(100_000, 5_000_050_000)]
    assert t.execute("SELECT count(*) FROM dh.t a, dh.t b, l WHERE a.i = b.i AND b.i = l.i").fetchall() == [(100_000,)]
    t.rollback()


def test_an_unfinished_result_then_another_statement(t):
    t.execute("CREATE TABLE dh.big AS SELECT i FROM range(5000000) r(i)")
    t.begin()
    t.execute("INSERT INTO dh.t VALUES (2)")
    assert t.execute("SELECT i FROM dh.big").fetchone() == (0,)
    t.execute("INSERT INTO dh.t VALUES (3)")
    assert t.execute("SELECT i FROM dh.big").fetchone() == (0,)
    assert values(t) == [1, 2, 3]
    t.execute("SELECT i FROM dh.big").fetchone()
    t.commit()
    assert values(t) == [1, 2, 3]


def test_remote_and_local_changes_in_one_transaction(t):
    t.execute("CREATE TABLE l (i INTEGER)")
    t.begin()
    t.execute("INSERT INTO dh.t VALUES (2)")
    with pytest.raises(duckdb.TransactionException, match="single attached database"):
        t.execute("INSERT INTO l VALUES (1)")
    t.rollback()
    assert values(t) == [1]
    t.begin()
    t.execute("INSERT INTO l SELECT i FROM dh.t")
    t.commit()
    assert t.execute("FROM l").fetchall() == [(1,)]


def test_two_servers_in_one_transaction(t, start_duckling):
    start_duckling().attach(t, "pond")
    t.execute("CREATE TABLE pond.t AS SELECT 10 AS i")
    t.begin()
    assert t.execute("SELECT a.i, b.i FROM dh.t a, pond.t b").fetchall() == [(1, 10)]
    t.execute("INSERT INTO dh.t VALUES (2)")
    with pytest.raises(duckdb.TransactionException):
        t.execute("INSERT INTO pond.t VALUES (20)")
    t.rollback()
    assert values(t) == [1]


def test_a_transaction_that_only_reads_or_does_nothing(t):
    t.begin()
    t.commit()
    t.begin()
    t.rollback()
    t.begin()
    assert values(t) == [1]
    t.rollback()
    t.execute("INSERT INTO dh.t VALUES (2)")
    assert values(t) == [1, 2]


def test_detach_in_a_transaction(t, other):
    t.begin()
    t.execute("INSERT INTO dh.t VALUES (2)")
    try:
        t.execute("DETACH dh")
    except duckdb.Error:
        pass
    t.rollback()
    assert values(other) == [1]


def test_an_insert_of_no_rows_meets_conflicts_too(t, other):
    t.execute("CREATE TEMP TABLE nothing (i INTEGER)")
    other.begin()
    other.execute("ALTER TABLE dh.t ADD COLUMN j INTEGER")
    with pytest.raises(duckdb.TransactionException, match="has been altered by a different transaction"):
        t.execute("INSERT INTO dh.t (i) FROM nothing")
    other.rollback()
    assert t.execute("INSERT INTO dh.t FROM nothing").fetchall() == [(0,)]


def test_what_a_transaction_has_defined_is_not_what_others_see(t):
    t.execute("CREATE TABLE l AS SELECT 7 AS i")
    beside = t.cursor()
    t.begin()
    t.execute("ALTER TABLE dh.t ADD COLUMN j INTEGER")
    assert beside.execute("SELECT column_count FROM duckdb_tables() WHERE database_name = 'dh'").fetchall() == [(1,)]
    t.execute("INSERT INTO dh.t BY NAME SELECT i, 8 AS j FROM l")
    t.execute("INSERT INTO dh.t BY NAME SELECT i, 9 AS j FROM l WHERE i < 0")
    assert t.execute("FROM dh.t ORDER BY i").fetchall() == [(1, None), (7, 8)]
    assert beside.execute("FROM dh.t").fetchall() == [(1,)]
    t.commit()
    assert beside.execute("FROM dh.t ORDER BY i").fetchall() == [(1, None), (7, 8)]


def test_a_transaction_does_not_see_what_others_have_defined_since(t):
    t.begin()
    assert t.execute("SELECT count(*) FROM dh.t").fetchone() == (1,)
    beside = t.cursor()
    beside.execute("ALTER TABLE dh.t ADD COLUMN j INTEGER")
    assert len(beside.execute("DESCRIBE dh.t").fetchall()) == 2
    assert len(t.execute("DESCRIBE dh.t").fetchall()) == 1
    assert len(t.execute("DESCRIBE dh.t").fetchall()) == 1
    t.commit()
    assert len(t.execute("DESCRIBE dh.t").fetchall()) == 2
