"""ADBC's Flight SQL driver (Go), through its Python packages."""

import datetime
import decimal
import threading
import time

import adbc_driver_manager
import pyarrow as pa
import pytest

from conftest import BASIC, COOKIES, DEADLINE_S, poll

D = decimal.Decimal
UTC = datetime.timezone.utc

# How a client may present itself.
LOGINS = {"nothing": {}, "cookies": COOKIES, "basic": BASIC, "basic and cookies": {**BASIC, **COOKIES}}

# SQL, the Arrow type that arrives, and the value.
QUERIED = [
    ("NULL::BOOLEAN", pa.bool_(), None),
    ("true", pa.bool_(), True),
    ("(-128)::TINYINT", pa.int8(), -128),
    ("255::UTINYINT", pa.uint8(), 255),
    ("(-32768)::SMALLINT", pa.int16(), -32768),
    ("65535::USMALLINT", pa.uint16(), 65535),
    ("(-2147483648)::INTEGER", pa.int32(), -2147483648),
    ("4294967295::UINTEGER", pa.uint32(), 4294967295),
    ("(-9223372036854775808)::BIGINT", pa.int64(), -(2**63)),
    ("18446744073709551615::UBIGINT", pa.uint64(), 2**64 - 1),
    ("(-99999999999999999999999999999999999999)::HUGEINT", pa.decimal128(38, 0), D(-(10**38) + 1)),
    ("99999999999999999999999999999999999999::UHUGEINT", pa.decimal128(38, 0), D(10**38 - 1)),
    ("0.5::FLOAT", pa.float32(), 0.5),
    ("-1e300::DOUBLE", pa.float64(), -1e300),
    ("1.50::DECIMAL(4, 2)", pa.decimal128(4, 2), D("1.50")),
    ("-0.0000000001::DECIMAL(38, 10)", pa.decimal128(38, 10), D("-0.0000000001")),
    ("'größe 🦆'", pa.string(), "größe 🦆"),
    ("'\\x00\\xFF'::BLOB", pa.binary(), b"\x00\xff"),
    ("DATE '0001-01-01'", pa.date32(), datetime.date(1, 1, 1)),
    ("TIME '23:59:59.999999'", pa.time64("us"), datetime.time(23, 59, 59, 999999)),
    ("TIMESTAMP '2024-02-29 01:02:03.000004'", pa.timestamp("us"), datetime.datetime(2024, 2, 29, 1, 2, 3, 4)),
    ("TIMESTAMP_S '2024-02-29 01:02:03'", pa.timestamp("s"), datetime.datetime(2024, 2, 29, 1, 2, 3)),
    ("TIMESTAMP_MS '2024-02-29 01:02:03.004'", pa.timestamp("ms"), datetime.datetime(2024, 2, 29, 1, 2, 3, 4000)),
    ("TIMESTAMPTZ '2024-02-29 12:00:00+02'", pa.timestamp("us", "UTC"), datetime.datetime(2024, 2, 29, 10, tzinfo=UTC)),
    ("INTERVAL '1 month 2 days 3.5 seconds'", pa.month_day_nano_interval(), pa.MonthDayNano([1, 2, 3_500_000_000])),
    ("[1, NULL]", pa.list_(pa.int32()), [1, None]),
    ("['a', 'b']::VARCHAR[2]", pa.list_(pa.string(), 2), ["a", "b"]),
    ("{'a': 1, 'b': [{'c': NULL::DATE}]}", None, {"a": 1, "b": [{"c": None}]}),
    ("MAP {'a': 1}", pa.map_(pa.string(), pa.int32()), [("a", 1)]),
    ("row(1, 'x')", None, {"element1": 1, "element2": "x"}),
    ("union_value(n := 7)", None, 7),
    ("'b'::ENUM('a', 'b')", pa.dictionary(pa.uint8(), pa.string()), "b"),
    # What Arrow has no plain type for comes as text.
    ("'00112233-4455-6677-8899-aabbccddeeff'::UUID", pa.string(), "00112233-4455-6677-8899-aabbccddeeff"),
    ("'{\"a\": 1}'::JSON", pa.string(), '{"a": 1}'),
    ("'0101'::BIT", pa.string(), "0101"),
    ("TIMETZ '12:00:00+05:30'", pa.string(), "12:00:00+05:30"),
    ("'-123456789012345678901234567890123456789012345'::BIGNUM", pa.string(), "-123456789012345678901234567890123456789012345"),
]

# Values that no plain Arrow type holds: refused, with the column and the cast to write.
REFUSED = [
    "170141183460469231731687303715884105727::HUGEINT",
    "340282366920938463463374607431768211455::UHUGEINT",
    "42::VARIANT",
]

# What clients bind and upload, and the DuckDB type of the column it fits into.
BOUND = [
    (pa.array([True, None]), "BOOLEAN"),
    (pa.array([-1, None], pa.int8()), "TINYINT"),
    (pa.array([-1, 2], pa.int16()), "SMALLINT"),
    (pa.array([-1, 2], pa.int32()), "INTEGER"),
    (pa.array([-(2**63), 2**63 - 1], pa.int64()), "BIGINT"),
    (pa.array([255], pa.uint8()), "UTINYINT"),
    (pa.array([65535], pa.uint16()), "USMALLINT"),
    (pa.array([2**32 - 1], pa.uint32()), "UINTEGER"),
    (pa.array([2**64 - 1, 0], pa.uint64()), "UBIGINT"),
    (pa.array([0.5, None], pa.float32()), "FLOAT"),
    (pa.array([1e300, float("inf")]), "DOUBLE"),
    (pa.array([D("1.50"), None], pa.decimal128(4, 2)), "DECIMAL(4, 2)"),
    (pa.array([D("-1.5")], pa.decimal128(38, 10)), "DECIMAL(38, 10)"),
    (pa.array(["größe", "", None]), "VARCHAR"),
    (pa.array(["x", None], pa.large_string()), "VARCHAR"),
    (pa.array(["a rather long text that is no prefix", None], pa.string_view()), "VARCHAR"),
    (pa.array([b"\x00\xff", b"", None]), "BLOB"),
    (pa.array([b"ab"], pa.binary(2)), "BLOB"),
    (pa.array([datetime.date(2024, 2, 29), None]), "DATE"),
    (pa.array([datetime.time(1, 2, 3, 4)], pa.time64("us")), "TIME"),
    (pa.array([datetime.datetime(2024, 2, 29, 1, 2, 3, 4), None], pa.timestamp("us")), "TIMESTAMP"),
    (pa.array([datetime.datetime(2024, 2, 29)], pa.timestamp("s")), "TIMESTAMP_S"),
    (pa.array([1], pa.timestamp("ns")), "TIMESTAMP_NS"),
    (pa.array([datetime.datetime(2024, 2, 29, tzinfo=UTC)], pa.timestamp("us", "UTC")), "TIMESTAMPTZ"),
    (pa.array([pa.MonthDayNano([1, 2, 3000])]), "INTERVAL"),
    (pa.array([[1, None], [], None], pa.list_(pa.int32())), "INTEGER[]"),
    (pa.array([[1, 2]], pa.list_(pa.int32(), 2)), "INTEGER[2]"),
    (pa.array([{"a": 1, "b": "x"}, None]), "STRUCT(a BIGINT, b VARCHAR)"),
    (pa.array([[("k", 1)]], pa.map_(pa.string(), pa.int32())), "MAP(VARCHAR, INTEGER)"),
    (pa.array(["a", "b", "a"]).dictionary_encode(), "VARCHAR"),
]


def types(cases):
    return [f"{case[1]} from {case[0].type}" for case in cases]


def plain(array):
    """The values, with plain texts for dictionaries."""
    return array.to_pylist()


class TestConnecting:
    @pytest.mark.parametrize("login", LOGINS)
    def test_every_login_works(self, server, login):
        with server.connect(LOGINS[login]) as connection, connection.cursor() as cursor:
            assert cursor.execute("SELECT 42 AS answer").fetchall() == [(42,)]
            cursor.execute("CREATE TABLE t (i INTEGER)")
            assert cursor.execute("INSERT INTO t VALUES (1), (2)").rowcount in (-1, 2)
        assert server.query("SELECT count(*) FROM t") == [(2,)]

    def test_an_unknown_token_is_refused(self, server):
        options = {"adbc.flight.sql.authorization_header": "Bearer nonsense"}
        with server.connect(options) as connection, connection.cursor() as cursor:
            with pytest.raises(adbc_driver_manager.Error, match="(?i)unauth"):
                cursor.execute("SELECT 1")

    def test_names_and_versions(self, connection):
        info = connection.adbc_get_info()
        assert info["vendor_name"] and info["vendor_version"] and info["vendor_arrow_version"]

    @pytest.mark.parametrize("login", ["cookies", "basic"])
    def test_a_session_keeps_its_state(self, server, login):
        with server.connect(LOGINS[login]) as connection, connection.cursor() as cursor:
            cursor.execute("CREATE TEMP TABLE mine (i INTEGER)")
            cursor.execute("SET VARIABLE x = 7")
            assert cursor.execute("SELECT getvariable('x'), count(*) FROM mine").fetchall() == [(7, 0)]
            with server.connect(LOGINS[login]) as other, other.cursor() as theirs:
                with pytest.raises(adbc_driver_manager.Error, match="mine"):
                    theirs.execute("FROM mine").fetchall()

    def test_catalog_and_schema_of_a_session(self, connection, cursor):
        cursor.execute("CREATE SCHEMA pond")
        cursor.execute("CREATE TABLE pond.ducks (name VARCHAR)")
        assert (connection.adbc_current_catalog, connection.adbc_current_db_schema) == ("memory", "main")
        connection.adbc_current_db_schema = "pond"
        assert connection.adbc_current_db_schema == "pond"
        assert cursor.execute("FROM ducks").fetchall() == []
        with pytest.raises(adbc_driver_manager.Error):
            connection.adbc_current_db_schema = "nosuch"

    def test_many_connections(self, server):
        connections = [server.connect() for _ in range(50)]
        for connection in connections:
            with connection.cursor() as cursor:
                assert cursor.execute("SELECT 1").fetchall() == [(1,)]
        for connection in connections:
            connection.close()


class TestStatements:
    def test_ddl_and_dml_run_exactly_once(self, server, cursor):
        cursor.execute("CREATE TABLE t (i INTEGER)")
        cursor.execute("CREATE SEQUENCE s")
        cursor.execute("INSERT INTO t SELECT nextval('s')")
        cursor.execute("INSERT INTO t SELECT nextval('s') RETURNING i")
        assert cursor.fetchall() == [(2,)]
        assert cursor.execute("SELECT i FROM t ORDER BY i").fetchall() == [(1,), (2,)]
        assert cursor.execute("SELECT nextval('s')").fetchall() == [(3,)]
        with pytest.raises(adbc_driver_manager.Error, match="already exists"):
            cursor.execute("CREATE TABLE t (i INTEGER)")

    def test_rows_affected(self, cursor):
        cursor.execute("CREATE TABLE t AS SELECT range AS i FROM range(10)")
        assert cursor.adbc_statement is not None
        for sql, rows in [
            ("INSERT INTO t SELECT range FROM range(5)", 5),
            ("UPDATE t SET i = i + 1 WHERE i > 6", 3),
            ("DELETE FROM t WHERE false", 0),
            ("DELETE FROM t", 15),
        ]:
            cursor.adbc_statement.set_sql_query(sql)
            assert cursor.adbc_statement.execute_update() == rows, sql

    def test_nothing_and_no_rows_have_a_schema(self, cursor):
        table = cursor.execute("SELECT 1::SMALLINT AS a, 'x' AS b WHERE false").fetch_arrow_table()
        assert table.num_rows == 0
        assert table.schema.names == ["a", "b"] and table.schema.types == [pa.int16(), pa.string()]

    def test_columns_of_equal_names(self, cursor):
        table = cursor.execute("SELECT 1 AS a, 2 AS a").fetch_arrow_table()
        assert table.schema.names == ["a", "a"] and [column.to_pylist() for column in table.columns] == [[1], [2]]

    def test_errors_are_duckdbs(self, cursor):
        for sql, message in [
            ("SELEC 1", "Parser Error: syntax error at or near"),
            ("FROM nosuch", "Catalog Error: Table with name nosuch does not exist"),
            ("SELECT nosuch", "Binder Error: Referenced column"),
            ("SELECT error('my own')", "Invalid Input Error: my own"),
            ("SELECT 'x'::INTEGER", "Conversion Error: Could not convert string 'x' to INT32"),
        ]:
            with pytest.raises(adbc_driver_manager.Error, match=message):
                cursor.execute(sql).fetchall()
        assert cursor.execute("SELECT 1").fetchall() == [(1,)]

    def test_an_error_in_the_middle_of_a_result(self, cursor):
        with pytest.raises(adbc_driver_manager.Error, match="in the middle"):
            cursor.execute("SELECT CASE WHEN range = 900_000 THEN error('in the middle') ELSE range END FROM range(1_000_000)")
            cursor.fetchall()
        assert cursor.execute("SELECT 1").fetchall() == [(1,)]

    def test_a_large_result_arrives_whole(self, cursor):
        table = cursor.execute("SELECT range AS i, repeat('x', 100) AS s FROM range(500_000)").fetch_arrow_table()
        assert table.num_rows == 500_000
        assert table.column("i").to_pylist() == list(range(500_000))

    def test_messages_stay_below_the_limits_of_clients(self, cursor):
        """The driver takes 16 MiB; one row of ten texts of 1 MiB fits, hundred of them in one message would not."""
        table = cursor.execute(
            "SELECT " + ", ".join(f"repeat('x', 1_000_000) AS c{i}" for i in range(10)) + " FROM range(20)"
        ).fetch_arrow_table()
        assert table.num_rows == 20 and table.nbytes > 200_000_000

    def test_cursors_of_one_connection_are_read_in_turn(self, connection):
        with connection.cursor() as one, connection.cursor() as two:
            one.execute("SELECT range FROM range(300_000)")
            two.execute("SELECT range + 1 FROM range(300_000)")
            for expected in range(1000):
                assert (one.fetchone(), two.fetchone()) == ((expected,), (expected + 1,))

    def test_a_result_that_is_not_read_holds_nobody_up(self, connection):
        with connection.cursor() as cursor:
            cursor.execute("SELECT range FROM range(100_000_000)")
            cursor.fetchone()
        with connection.cursor() as cursor:
            assert cursor.execute("SELECT 1").fetchall() == [(1,)]

    def test_the_schema_is_known_before_running(self, cursor):
        cursor.execute("CREATE SEQUENCE s")
        schema = cursor.adbc_execute_schema("SELECT nextval('s') AS n, ?::DATE AS d")
        assert schema.names == ["n", "d"] and schema.types == [pa.int64(), pa.date32()]
        assert cursor.execute("SELECT nextval('s')").fetchall() == [(1,)]

    def test_partitions_make_up_the_result(self, connection, cursor):
        partitions, schema = cursor.adbc_execute_partitions("SELECT range AS i FROM range(1000) ORDER BY i")
        assert schema.names == ["i"] and partitions
        rows = []
        for partition in partitions:
            cursor.adbc_read_partition(partition)
            rows += [row[0] for row in cursor.fetchall()]
        assert rows == list(range(1000))


    def test_a_large_result_comes_in_several_streams(self, connection, cursor):
        sql = "SELECT range AS i FROM range(2_000_000)"
        table = cursor.execute(sql).fetch_arrow_table()
        assert sorted(table.column("i").to_pylist()) == list(range(2_000_000))
        partitions, _ = cursor.adbc_execute_partitions(sql)
        assert len(partitions) == 3
        rows = []
        for partition in reversed(partitions):
            cursor.adbc_read_partition(partition)
            rows += cursor.fetch_arrow_table().column("i").to_pylist()
        assert sorted(rows) == list(range(2_000_000))
        # What has an order keeps it, and one stream is to be had.
        table = cursor.execute(f"{sql} ORDER BY i DESC").fetch_arrow_table()
        assert table.column("i").to_pylist() == list(range(1_999_999, -1, -1))
        connection.adbc_connection.set_options(**{"adbc.flight.sql.session.option.duckherder.endpoints": "1"})
        table = cursor.execute(sql).fetch_arrow_table()
        assert table.column("i").to_pylist() == list(range(2_000_000))

    def test_an_error_in_one_of_several_streams(self, cursor):
        with pytest.raises(adbc_driver_manager.Error, match="in the middle"):
            cursor.execute(
                "SELECT CASE WHEN range = 1_900_000 THEN error('in the middle') ELSE range END FROM range(2_000_000)"
            ).fetch_arrow_table()
        assert cursor.execute("SELECT 1").fetchall() == [(1,)]


class TestTypes:
    @pytest.mark.parametrize("sql,arrow_type,value", QUERIED, ids=[case[0] for case in QUERIED])
    def test_query(self, cursor, sql, arrow_type, value):
        table = cursor.execute(f"SELECT {sql} AS v UNION ALL SELECT NULL").fetch_arrow_table()
        assert arrow_type is None or table.schema.field("v").type.equals(arrow_type)
        assert table.column("v").to_pylist() == [value, None]

    @pytest.mark.parametrize("sql", REFUSED)
    def test_what_does_not_fit_is_refused(self, cursor, sql):
        with pytest.raises(adbc_driver_manager.Error, match=r'column "v".*CAST\("v" AS VARCHAR\)'):
            cursor.execute(f"SELECT {sql} AS v").fetchall()
        assert cursor.execute(f"SELECT CAST({sql} AS VARCHAR) AS v").fetchone()[0] == sql.split("::")[0]

    def test_lossless_values_on_request(self, connection, cursor):
        connection.adbc_connection.set_options(**{"adbc.flight.sql.session.optionbool.duckherder.lossless": "true"})
        table = cursor.execute("SELECT 340282366920938463463374607431768211455::UHUGEINT AS v").fetch_arrow_table()
        metadata = table.schema.field("v").metadata
        assert b"uhugeint" in metadata.get(b"ARROW:extension:metadata", b"") + metadata.get(b"duckdb:type", b"").lower()

    @pytest.mark.parametrize("array,type_name", BOUND, ids=types(BOUND))
    def test_bind_to_a_query(self, cursor, array, type_name):
        for index in range(len(array)):
            parameters = pa.record_batch([array.slice(index, 1)], names=["1"])
            table = cursor.execute(f"SELECT ?::{type_name} AS v", parameters).fetch_arrow_table()
            assert plain(table.column("v")) == plain(array.slice(index, 1))

    @pytest.mark.parametrize("array,type_name", BOUND, ids=types(BOUND))
    def test_bind_to_an_update(self, cursor, array, type_name):
        cursor.execute(f"CREATE TABLE t (n INTEGER, v {type_name})")
        numbers = pa.array(range(len(array)), pa.int32())
        cursor.executemany("INSERT INTO t VALUES (?, ?)", pa.record_batch([numbers, array], names=["1", "2"]))
        table = cursor.execute("SELECT v FROM t ORDER BY n").fetch_arrow_table()
        assert plain(table.column("v")) == plain(array)

    @pytest.mark.parametrize("array,type_name", BOUND, ids=types(BOUND))
    def test_ingest(self, cursor, array, type_name):
        numbers = pa.array(range(len(array)), pa.int32())
        data = pa.table({"n": numbers, "v": array})
        assert cursor.adbc_ingest("made", data, mode="create") == len(array)
        cursor.execute(f"CREATE TABLE there (n INTEGER, v {type_name})")
        assert cursor.adbc_ingest("there", data, mode="append") == len(array)
        for name in ["made", "there"]:
            table = cursor.execute(f"SELECT v FROM {name} ORDER BY n").fetch_arrow_table()
            assert plain(table.column("v")) == plain(array), name


class TestParameters:
    def test_by_position_and_number(self, cursor):
        assert cursor.execute("SELECT ? || ?", ("a", "b")).fetchall() == [("ab",)]
        assert cursor.execute("SELECT $2 - $1", (1, 43)).fetchall() == [(42,)]
        assert cursor.execute("SELECT $1 + $1", (21,)).fetchall() == [(42,)]

    def test_none_and_texts_that_look_like_sql(self, cursor):
        assert cursor.execute("SELECT ?, ?", (None, "'; DROP TABLE t; --")).fetchall() == [(None, "'; DROP TABLE t; --")]

    def test_a_wrong_number_is_an_error(self, cursor):
        for parameters in [(), (1,), (1, 2, 3)]:
            with pytest.raises(adbc_driver_manager.Error):
                cursor.execute("SELECT ? + ?", parameters).fetchall()
        assert cursor.execute("SELECT 1").fetchall() == [(1,)]

    def test_a_wrong_type_is_an_error(self, cursor):
        cursor.execute("CREATE TABLE t (i INTEGER)")
        with pytest.raises(adbc_driver_manager.Error, match="(?i)convert"):
            cursor.execute("INSERT INTO t VALUES (?)", ("no number",))
        assert cursor.execute("SELECT count(*) FROM t").fetchall() == [(0,)]

    def test_a_batch_of_them(self, cursor):
        cursor.execute("CREATE TABLE t (i INTEGER, s VARCHAR)")
        cursor.executemany("INSERT INTO t VALUES (?, ?)", [(i, f"row {i}") for i in range(1000)])
        assert cursor.execute("SELECT count(*), sum(i), max(s) FROM t").fetchall() == [(1000, D(499500), "row 999")]

    def test_a_batch_is_taken_whole_or_not_at_all(self, cursor):
        cursor.execute("CREATE TABLE t (i INTEGER PRIMARY KEY)")
        with pytest.raises(adbc_driver_manager.Error, match="(?i)constraint"):
            cursor.executemany("INSERT INTO t VALUES (?)", [(1,), (2,), (1,)])
        assert cursor.execute("SELECT count(*) FROM t").fetchall() == [(0,)]

    def test_a_batch_for_a_query_gives_all_results(self, cursor):
        numbers = pa.record_batch([pa.array([1, 2, 3])], names=["1"])
        assert cursor.execute("SELECT ? * 10 AS v", numbers).fetchall() == [(10,), (20,), (30,)]

    def test_a_prepared_statement_sees_what_was_committed_since(self, cursor):
        cursor.execute("CREATE TABLE t (i INTEGER)")
        cursor.adbc_prepare("SELECT count(*) FROM t WHERE i > ?")
        for rows in range(3):
            assert cursor.execute("SELECT count(*) FROM t WHERE i > ?", (0,)).fetchall() == [(rows,)]
            with cursor.connection.cursor() as other:
                other.execute("INSERT INTO t VALUES (1)")

    def test_the_types_of_parameters(self, cursor):
        schema = cursor.adbc_prepare("SELECT ?::INTEGER AS a, ?::VARCHAR AS b")
        assert len(schema) == 2


class TestIngest:
    DATA = pa.table({"i": pa.array([1, 2, 3], pa.int32()), "s": ["a", None, "c"]})

    def rows(self, cursor, table="t"):
        return cursor.execute(f"SELECT * FROM {table} ORDER BY ALL").fetchall()

    def test_create(self, cursor):
        assert cursor.adbc_ingest("t", self.DATA, mode="create") == 3
        assert self.rows(cursor) == [(1, "a"), (2, None), (3, "c")]
        with pytest.raises(adbc_driver_manager.Error, match="already exists"):
            cursor.adbc_ingest("t", self.DATA, mode="create")
        assert len(self.rows(cursor)) == 3

    def test_append(self, cursor):
        with pytest.raises(adbc_driver_manager.Error):
            cursor.adbc_ingest("t", self.DATA, mode="append")
        cursor.execute("CREATE TABLE t (i INTEGER, s VARCHAR)")
        cursor.adbc_ingest("t", self.DATA, mode="append")
        cursor.adbc_ingest("t", self.DATA, mode="append")
        assert len(self.rows(cursor)) == 6

    def test_replace(self, cursor):
        cursor.execute("CREATE TABLE t (other DATE)")
        cursor.adbc_ingest("t", self.DATA, mode="replace")
        assert len(self.rows(cursor)) == 3

    def test_create_append(self, cursor):
        for _ in range(2):
            cursor.adbc_ingest("t", self.DATA, mode="create_append")
        assert len(self.rows(cursor)) == 6

    def test_nothing_makes_an_empty_table(self, cursor):
        # With no batch at all, the driver sends nothing that a server could see.
        empty = pa.record_batch([pa.array([], pa.int32())], names=["i"])
        assert cursor.adbc_ingest("t", empty, mode="create") in (0, -1)
        assert self.rows(cursor) == []

    def test_schema_and_catalog(self, cursor):
        cursor.execute("CREATE SCHEMA pond")
        cursor.adbc_ingest("t", self.DATA, mode="create", catalog_name="memory", db_schema_name="pond")
        assert len(self.rows(cursor, "memory.pond.t")) == 3
        cursor.execute("ATTACH ':memory:' AS other")
        cursor.adbc_ingest("t", self.DATA, mode="create", catalog_name="other", db_schema_name="main")
        assert len(self.rows(cursor, "other.main.t")) == 3
        with pytest.raises(adbc_driver_manager.Error):
            cursor.adbc_ingest("t", self.DATA, mode="create", db_schema_name="nosuch")

    def test_temporary(self, server, cursor):
        cursor.adbc_ingest("t", self.DATA, mode="create", temporary=True)
        assert len(self.rows(cursor, "temp.t")) == 3
        with pytest.raises(adbc_driver_manager.Error):
            server.query("FROM t")

    def test_names_that_need_quotes(self, cursor):
        data = self.DATA.rename_columns(["a b", 'c"; DROP'])
        cursor.adbc_ingest('t "x"', data, mode="create")
        assert len(self.rows(cursor, '"t ""x"""')) == 3

    def test_it_is_taken_whole_or_not_at_all(self, cursor):
        cursor.execute("CREATE TABLE t (i INTEGER CHECK (i < 100_000), s VARCHAR)")
        many = pa.table({"i": pa.array(range(100_001), pa.int32()), "s": pa.nulls(100_001, pa.string())})
        with pytest.raises(adbc_driver_manager.Error, match="CHECK"):
            cursor.adbc_ingest("t", many, mode="append")
        assert cursor.execute("SELECT count(*) FROM t").fetchall() == [(0,)]

    def test_wrong_columns_are_an_error(self, cursor):
        cursor.execute("CREATE TABLE t (d DATE)")
        with pytest.raises(adbc_driver_manager.Error):
            cursor.adbc_ingest("t", self.DATA, mode="append")
        assert self.rows(cursor) == []

    def test_a_large_one(self, cursor):
        many = pa.table({"i": pa.array(range(1_000_000)), "s": pa.array(["some text"] * 1_000_000)})
        # The driver sends a batch as one message, of at most 16 MiB.
        batches = pa.RecordBatchReader.from_batches(many.schema, many.to_batches(100_000))
        assert cursor.adbc_ingest("t", batches, mode="create") == 1_000_000
        assert cursor.execute("SELECT count(*), sum(i) FROM t").fetchall() == [(1_000_000, D(499_999_500_000))]


class TestTransactions:
    @pytest.mark.parametrize("login", LOGINS)
    def test_commit_and_rollback(self, server, login):
        server.query("CREATE TABLE t (i INTEGER)")
        with server.connect(LOGINS[login], autocommit=False) as connection, connection.cursor() as cursor:
            cursor.execute("INSERT INTO t VALUES (1)")
            assert server.query("SELECT count(*) FROM t") == [(0,)]
            connection.commit()
            assert server.query("SELECT count(*) FROM t") == [(1,)]
            cursor.execute("INSERT INTO t VALUES (2)")
            cursor.executemany("INSERT INTO t VALUES (?)", [(3,), (4,)])
            assert cursor.execute("SELECT count(*) FROM t").fetchall() == [(4,)]
            connection.rollback()
            assert cursor.execute("SELECT count(*) FROM t").fetchall() == [(1,)]

    def test_closing_rolls_back(self, server):
        server.query("CREATE TABLE t (i INTEGER)")
        with server.connect(autocommit=False) as connection, connection.cursor() as cursor:
            cursor.execute("INSERT INTO t VALUES (1)")
        # Nothing is left that would hold up others.
        poll(lambda: server.query("SELECT count(*) FROM t") == [(0,)], "the rollback")
        server.query("ALTER TABLE t ADD COLUMN j INTEGER")

    def test_ddl_is_part_of_it(self, server):
        with server.connect(autocommit=False) as connection, connection.cursor() as cursor:
            cursor.execute("CREATE TABLE t (i INTEGER)")
            connection.rollback()
            with pytest.raises(adbc_driver_manager.Error):
                cursor.execute("FROM t")

    @pytest.mark.parametrize("login", ["cookies", "basic"])
    def test_an_upload_is_part_of_it(self, server, login):
        server.query("CREATE TABLE t (i BIGINT)")
        with server.connect(LOGINS[login], autocommit=False) as connection, connection.cursor() as cursor:
            cursor.execute("INSERT INTO t VALUES (1)")
            cursor.adbc_ingest("t", pa.table({"i": [2, 3]}), mode="append")
            assert cursor.execute("SELECT count(*) FROM t").fetchall() == [(3,)]
            assert server.query("SELECT count(*) FROM t") == [(0,)]
            connection.rollback()
            assert cursor.execute("SELECT count(*) FROM t").fetchall() == [(0,)]

    def test_after_an_error_only_rollback_helps(self, server):
        server.query("CREATE TABLE t (i INTEGER PRIMARY KEY)")
        with server.connect(autocommit=False) as connection, connection.cursor() as cursor:
            cursor.execute("INSERT INTO t VALUES (1)")
            with pytest.raises(adbc_driver_manager.Error):
                cursor.execute("INSERT INTO t VALUES (1)")
            with pytest.raises(adbc_driver_manager.Error):
                cursor.execute("SELECT 1").fetchall()
            connection.rollback()
            assert cursor.execute("SELECT count(*) FROM t").fetchall() == [(0,)]

    def test_conflicts_are_errors(self, server):
        server.query("CREATE TABLE t AS SELECT 1 AS i")
        with server.connect(autocommit=False) as one, server.connect(autocommit=False) as two:
            with one.cursor() as mine, two.cursor() as theirs:
                mine.execute("UPDATE t SET i = 2")
                with pytest.raises(adbc_driver_manager.Error, match="(?i)conflict"):
                    theirs.execute("UPDATE t SET i = 3")
                one.commit()


class TestMetadata:
    @pytest.fixture(autouse=True)
    def tables(self, server):
        server.query("CREATE SCHEMA pond")
        server.query("CREATE TABLE pond.species (id INTEGER PRIMARY KEY, latin VARCHAR NOT NULL)")
        server.query(
            "CREATE TABLE pond.ducks (name VARCHAR, species INTEGER REFERENCES pond.species (id), "
            "weight DECIMAL(6, 2) DEFAULT 1.5, UNIQUE (name))"
        )
        server.query("CREATE VIEW pond.heavy AS SELECT name FROM pond.ducks WHERE weight > 1")
        server.query("CREATE TABLE per_cent (\"100%\" INTEGER)")
        server.query("CREATE TABLE percent (i INTEGER)")

    def objects(self, connection, **filters):
        return connection.adbc_get_objects(**filters).read_all().to_pylist()

    def names(self, objects):
        return {
            (catalog["catalog_name"], schema["db_schema_name"], table["table_name"])
            for catalog in objects
            for schema in catalog["catalog_db_schemas"] or []
            for table in schema["db_schema_tables"] or []
        }

    def test_catalogs(self, connection):
        objects = self.objects(connection, depth="catalogs")
        assert "memory" in [catalog["catalog_name"] for catalog in objects]
        assert all(catalog["catalog_db_schemas"] is None for catalog in objects)
        assert self.objects(connection, depth="catalogs", catalog_filter="nosuch") == []

    def test_schemas(self, connection):
        (memory,) = self.objects(connection, depth="db_schemas", catalog_filter="memory")
        schemas = [schema["db_schema_name"] for schema in memory["catalog_db_schemas"]]
        assert {"main", "pond"} <= set(schemas) and schemas == sorted(schemas)
        (memory,) = self.objects(connection, depth="db_schemas", catalog_filter="memory", db_schema_filter="p_nd")
        assert [schema["db_schema_name"] for schema in memory["catalog_db_schemas"]] == ["pond"]

    def test_tables(self, connection):
        objects = self.objects(connection, depth="tables", catalog_filter="memory")
        assert self.names(objects) >= {
            ("memory", "pond", "ducks"),
            ("memory", "pond", "heavy"),
            ("memory", "pond", "species"),
            ("memory", "main", "percent"),
        }
        tables = [t for c in objects for s in c["catalog_db_schemas"] for t in s["db_schema_tables"]]
        assert all(table["table_columns"] is None for table in tables)
        kinds = {table["table_name"]: table["table_type"] for table in tables}
        assert "VIEW" in kinds["heavy"] and "TABLE" in kinds["ducks"]

    def test_filters_are_patterns(self, connection):
        def found(pattern):
            return {name for _, _, name in self.names(self.objects(connection, depth="tables", table_name_filter=pattern))}

        assert found("d%") == {"ducks"}
        assert found("per_cent") == {"per_cent"}
        assert found("per\\_cent") <= {"per_cent"}
        assert found("nosuch") == set()
        assert found("duck'; --") == set()

    def test_filters_of_table_types(self, connection):
        kinds = connection.adbc_get_table_types()
        view = next(kind for kind in kinds if "VIEW" in kind)
        objects = self.objects(connection, depth="tables", catalog_filter="memory", table_types_filter=[view])
        assert self.names(objects) == {("memory", "pond", "heavy")}

    def test_columns(self, connection):
        objects = self.objects(connection, depth="all", db_schema_filter="pond", table_name_filter="ducks")
        (schema,) = [s for c in objects for s in c["catalog_db_schemas"] or [] if s["db_schema_tables"]]
        (table,) = schema["db_schema_tables"]
        columns = table["table_columns"]
        assert [(column["ordinal_position"], column["column_name"]) for column in columns] == [
            (1, "name"),
            (2, "species"),
            (3, "weight"),
        ]
        assert [column["xdbc_type_name"] for column in columns] == ["VARCHAR", "INTEGER", "DECIMAL(6,2)"]
        objects = self.objects(connection, depth="all", table_name_filter="ducks", column_name_filter="w%")
        names = [
            column["column_name"]
            for c in objects
            for s in c["catalog_db_schemas"] or []
            for t in s["db_schema_tables"] or []
            for column in t["table_columns"] or []
        ]
        assert names == ["weight"]

    def test_the_schema_of_a_table(self, connection):
        schema = connection.adbc_get_table_schema("ducks", db_schema_filter="pond")
        assert schema.names == ["name", "species", "weight"]
        assert schema.types == [pa.string(), pa.int32(), pa.decimal128(6, 2)]
        assert not connection.adbc_get_table_schema("species", db_schema_filter="pond").field("latin").nullable
        with pytest.raises(adbc_driver_manager.Error):
            connection.adbc_get_table_schema("nosuch")

    def test_attached_databases_are_catalogs(self, connection, cursor):
        cursor.execute("ATTACH ':memory:' AS other")
        cursor.execute("CREATE TABLE other.main.o (i INTEGER)")
        assert ("other", "main", "o") in self.names(self.objects(connection, depth="tables"))


class TestCancelling:
    SLOW = "SELECT sum(a.range * b.range) AS slow FROM range(10_000_000) a, range(1_000_000) b"

    @pytest.mark.parametrize("login", LOGINS)
    def test_cancel_stops_the_statement_on_the_server(self, server, login):
        with server.connect(LOGINS[login]) as connection, connection.cursor() as cursor:
            threading.Thread(target=self.cancel_soon, args=(server, cursor)).start()
            started = time.monotonic()
            with pytest.raises(adbc_driver_manager.Error):
                cursor.execute(self.SLOW).fetchall()
            assert time.monotonic() - started < DEADLINE_S
            poll(lambda: server.running("AS slow") == 0, "the statement stopped")

    def cancel_soon(self, server, cursor):
        poll(lambda: server.running("AS slow") == 1, "the statement running")
        cursor.adbc_cancel()

    def test_closing_a_cursor_stops_its_statement(self, server):
        with server.connect() as connection, connection.cursor() as cursor:
            cursor.execute("SELECT range AS slow FROM range(1_000_000_000_000)")
            cursor.fetchone()
        poll(lambda: server.running("AS slow") == 0, "the statement stopped")

    def test_a_deadline_of_the_client_stops_the_statement(self, server):
        options = {**COOKIES, "adbc.flight.sql.rpc.timeout_seconds.fetch": "1.0"}
        with server.connect(options) as connection, connection.cursor() as cursor:
            with pytest.raises(adbc_driver_manager.Error):
                cursor.execute(self.SLOW).fetchall()
        poll(lambda: server.running("AS slow") == 0, "the statement stopped")
