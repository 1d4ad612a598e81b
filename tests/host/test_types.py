"""Every type there is, stored on the server and read back: pushed down, and in a scan."""

import pytest

from conftest import Duckling, connect

# Whatever DuckDB has, also in later versions.
with connect() as _con:
    TYPES = dict(row[:2] for row in _con.execute("DESCRIBE SELECT * FROM test_all_types()").fetchall())


@pytest.fixture(scope="module")
def types(tmp_path_factory):
    """A DuckDB with dh.types, and a local table to force scans with."""
    duckling = Duckling(tmp_path_factory.mktemp("types") / "duckling.db")
    con = duckling.attach(connect())
    con.execute("CONNECT dh")
    con.execute("CREATE TABLE types AS SELECT * FROM test_all_types()")
    con.execute("DISCONNECT")
    con.execute("CREATE TABLE one AS SELECT 1 AS one")
    yield con
    con.close()
    duckling.close()


def text(column):
    # As text, for Python has no value for the extremes of some types.
    return f'SELECT "{column}"::VARCHAR AS text, typeof("{column}") AS type'


def compare(types, columns, source):
    for column in columns:
        there = types.execute(f"{text(column)} FROM (SELECT \"{column}\" FROM {source}) all_types, one").fetchall()
        here = types.execute(f"{text(column)} FROM test_all_types()").fetchall()
        assert there == here, column


@pytest.mark.parametrize("source", ["dh.types", "dh.types, one"], ids=["pushed", "scanned"])
@pytest.mark.parametrize("column", TYPES)
def test_type(types, column, source):
    there = types.execute(f'DESCRIBE SELECT "{column}" FROM {source}').fetchall()
    assert there[0][1] == TYPES[column]
    compare(types, [column], source)


@pytest.mark.parametrize("column", [name for name, kind in TYPES.items() if "TIME ZONE" not in kind])
def test_python_values(types, column):
    query = f'SELECT "{column}" FROM'
    try:
        here = types.execute(f"{query} test_all_types()").fetchall()
    except Exception as error:
        # DuckDB's own limits hold here too.
        with pytest.raises(type(error)):
            types.execute(f"{query} dh.types").fetchall()
        return
    assert repr(types.execute(f"{query} dh.types").fetchall()) == repr(here)


def test_local_copies(types):
    for column in TYPES:
        types.execute(f'CREATE OR REPLACE TABLE copied AS SELECT "{column}" FROM dh.types')
        here = types.execute(f"{text(column)} FROM test_all_types()").fetchall()
        assert types.execute(f"{text(column)} FROM copied").fetchall() == here, column


def test_literals_of_every_type(types):
    types.execute("CREATE OR REPLACE TABLE dh.l (d DECIMAL(38,10), h HUGEINT, b BLOB, u UUID, a INTEGER[3], m MAP(VARCHAR, INTEGER))")
    types.execute(
        "INSERT INTO dh.l VALUES (1234567890123456789012345678.0123456789, -170141183460469231731687303715884105728,"
        " '\\x00\\xFF'::BLOB, '00000000-0000-0000-0000-000000000001', [1, 2, NULL]::INTEGER[3], MAP {'a': 1})"
    )
    sent = types.execute("SELECT d::VARCHAR, h, b, u::VARCHAR, a, m FROM dh.l").fetchall()
    assert sent == [
        (
            "1234567890123456789012345678.0123456789",
            -170141183460469231731687303715884105728,
            b"\0\xff",
            "00000000-0000-0000-0000-000000000001",
            (1, 2, None),
            {"a": 1},
        )
    ]


def test_intervals_that_are_longer_than_those_of_arrow(dh):
    """Arrow counts nanoseconds, in 64 bits as DuckDB does microseconds."""
    rows = """
        SELECT i, v, [v, NULL] AS l, {'a': v, 'b': union_value(x := v)} AS s, MAP {i: v} AS m, [v]::INTERVAL[1] AS a
        FROM (SELECT i, CASE WHEN i % 4 > 0 THEN to_months(i::INTEGER) + to_days((-i)::INTEGER) + to_hours((i - 20) * 100_000_000) END AS v
              FROM range(40) r(i))
    """
    dh.execute(f"CREATE TABLE here AS {rows}; CREATE TABLE dh.there AS FROM here; CREATE TABLE dh.made AS {rows}")
    expected = dh.execute("FROM here").fetchall()
    for table in ("there", "made"):
        assert dh.execute(f"FROM dh.{table} ORDER BY i").fetchall() == expected
    changed = "UPDATE {} SET v = v + to_hours(200_000_000) WHERE i = 7 RETURNING v"
    assert dh.execute(changed.format("dh.there")).fetchall() == dh.execute(changed.format("here")).fetchall()
    joined = "SELECT h.i FROM here h JOIN dh.there t ON h.v = t.v AND h.s = t.s ORDER BY ALL"
    assert dh.execute(joined).fetchall() == [(i,) for i in range(40) if i % 4 > 0]


# Of each of these types, a literal is one of the type only if it is as large as that.
INTEGERS = {
    "INTEGER": ["0", "-2147483648"],
    "BIGINT": ["3", "9223372036854775807"],
    "HUGEINT": ["3", "-170141183460469231731687303715884105728"],
    "UHUGEINT": ["3", "340282366920938463463374607431768211455"],
    "BIGNUM": ["3", "-340282366920938463463374607431768211455", "98765432109876543210987654321098765432109876543210"],
    "UTINYINT": ["255"],
    "DECIMAL(38, 0)": ["99999999999999999999999999999999999999"],
}


@pytest.mark.parametrize("type", INTEGERS)
def test_folded_constants_keep_their_type(dh, type):
    dh.execute("CREATE TABLE dh.three AS SELECT i FROM range(3) r(i); CREATE TABLE three AS SELECT i FROM range(3) r(i)")
    for value in INTEGERS[type]:
        constant = f"greatest('{value}'::{type}, '{value}'::{type})"
        columns = f"max({constant}) AS m, list({constant} ORDER BY {constant}) AS l, typeof(any_value({constant})) AS t"
        here = dh.execute(f"SELECT {columns} FROM three")
        expected = [[str(column[1]) for column in here.description], here.fetchall()]
        there = dh.execute(f"SELECT {columns} FROM dh.three")
        assert [[str(column[1]) for column in there.description], there.fetchall()] == expected, value
