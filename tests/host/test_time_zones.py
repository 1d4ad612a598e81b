"""What is shipped means what it means here: time zone, calendar, collation and other settings, with DuckDB as the judge."""

import pytest

from conftest import DEADLINE_S, Duckling, attach_sql, connect, poll

ZONES = [
    "UTC",
    "America/New_York",
    "Europe/Berlin",
    "Asia/Kathmandu",
    "Australia/Lord_Howe",  # half an hour of daylight saving
    "Pacific/Apia",  # had no 30 December 2011
    "America/St_Johns",
    "Etc/GMT+12",
]

# Around changes of the clocks, before there were zones, and the ends of time.
INSTANTS = [
    "2024-03-10 06:59:59.999999+00",
    "2024-03-10 07:00:00+00",
    "2024-11-03 05:30:00+00",
    "2024-11-03 06:30:00+00",
    "2024-10-27 00:30:00+00",
    "2024-04-06 15:15:00+00",
    "2011-12-30 09:00:00+00",
    "1969-12-31 23:59:59+00",
    "1850-06-15 12:00:00+00",
    "0044-03-15 (BC) 00:00:00+00",
    "2999-12-31 23:59:59+00",
    "infinity",
    "-infinity",
    None,
]

# Of the columns ts TIMESTAMPTZ, t TIMESTAMP, d DATE, s VARCHAR.
EXPRESSIONS = [
    "ts",
    "ts::VARCHAR",
    "ts::TIMESTAMP",
    "ts::DATE",
    "ts::TIME",
    "ts::TIMETZ",
    "t::TIMESTAMPTZ",
    "d::TIMESTAMPTZ",
    "s::TIMESTAMPTZ",
    "ts AT TIME ZONE 'Asia/Tokyo'",
    "t AT TIME ZONE 'Asia/Tokyo'",
    "date_trunc('day', ts)",
    "date_trunc('week', ts)",
    "date_trunc('month', ts)",
    "date_trunc('hour', ts)",
    "time_bucket(INTERVAL 3 HOURS, ts)",
    "time_bucket(INTERVAL 1 MONTH, ts)",
    "extract(hour FROM ts)",
    "extract(doy FROM ts)",
    "extract(isoyear FROM ts)",
    "extract(timezone FROM ts)",
    "extract(epoch FROM ts)",
    "date_part(['year', 'month', 'timezone_hour'], ts)",
    "dayname(ts)",
    "last_day(ts)",
    "era(ts)",
    "ts + INTERVAL 1 DAY",
    "ts - INTERVAL 1 MONTH",
    "age(ts, TIMESTAMPTZ '2020-02-29 00:00:00+00')",
    "date_diff('day', TIMESTAMPTZ '2020-02-29 00:00:00+00', ts)",
    "date_sub('month', TIMESTAMPTZ '2020-02-29 00:00:00+00', ts)",
    "strftime(ts, '%Y-%m-%d %H:%M:%S %Z %z')",
    "strptime('2024-07-01 12:00:00 Asia/Tokyo', '%Y-%m-%d %H:%M:%S %Z')",
    "make_timestamptz(2024, 7, 1, 12, 30, 0.5)",
    "make_timestamptz(2024, 7, 1, 12, 30, 0.5, 'Asia/Tokyo')",
    "ts = t",
    "ts < d",
    "TIMESTAMPTZ '2024-07-01 00:00:00'",
    "[ts, t]",
    "{'a': ts, 'b': [ts]}",
    "to_timestamp(0)",
    "epoch_ms(ts)",
    "range(TIMESTAMPTZ '2024-03-09 12:00', TIMESTAMPTZ '2024-03-12 12:00', INTERVAL 1 DAY)",
]

COLUMNS = "id INTEGER, ts TIMESTAMPTZ, t TIMESTAMP, d DATE, s VARCHAR"


def rows_sql():
    instants = ", ".join("NULL" if instant is None else f"'{instant}'" for instant in INSTANTS)
    return f"""
        SELECT row_number() OVER ()::INTEGER AS id, i::TIMESTAMPTZ AS ts, ts AT TIME ZONE 'UTC' AS t, t::DATE AS d,
               CASE WHEN isfinite(ts) THEN strftime(t, '%c') END AS s
        FROM (SELECT unnest([{instants}]) AS i)"""


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """A DuckDB with the same rows in `here` and in `dh.there`."""
    duckling = Duckling(tmp_path_factory.mktemp("zones") / "duckling.db")
    con = duckling.attach(connect())
    con.execute(f"CREATE TABLE here ({COLUMNS})")
    con.execute(f"INSERT INTO here {rows_sql()}")
    con.execute("CREATE TABLE one AS SELECT 1 AS one")
    con.execute("SET TimeZone = 'America/New_York'")
    con.execute("CREATE TABLE dh.there AS FROM here")  # uploaded under another zone than the server's
    con.execute("RESET TimeZone")
    yield con
    con.close()
    duckling.close()


def outcome(con, sql):
    try:
        return con.execute(sql).fetchall()
    except Exception as error:
        return type(error).__name__


def compare(con, expression):
    sql = f"SELECT ({expression})::VARCHAR, typeof({expression}) FROM "
    assert outcome(con, f"{sql} dh.there ORDER BY id") == outcome(con, f"{sql} here ORDER BY id"), expression


@pytest.mark.parametrize("zone", ZONES)
def test_expressions_under_every_zone(both, zone):
    both.execute(f"SET TimeZone = '{zone}'")
    for expression in EXPRESSIONS:
        compare(both, expression)


@pytest.mark.parametrize("zone", ZONES)
def test_instants_travel_exactly_under_every_zone(both, zone):
    """Read whole, scanned beside a local table, and sent: the microseconds stay the same, and so does the type."""
    both.execute(f"SET TimeZone = '{zone}'")
    here = both.execute("SELECT epoch_us(ts), ts::VARCHAR FROM here WHERE isfinite(ts) ORDER BY id").fetchall()
    assert len(here) == len(INSTANTS) - 3
    both.execute("CREATE OR REPLACE TABLE copied AS SELECT id, ts, [ts] AS l, {'a': ts} AS st FROM dh.there")
    for source in ["copied", "(FROM dh.there, one)"]:
        query = f"SELECT epoch_us(ts), ts::VARCHAR FROM {source} WHERE isfinite(ts) ORDER BY id"
        assert both.execute(query).fetchall() == here, source
    both.execute("CREATE OR REPLACE TABLE dh.sent AS FROM copied")
    both.execute("INSERT INTO dh.sent FROM copied")
    assert both.execute("SELECT typeof(ts), typeof(l), typeof(st) FROM dh.sent LIMIT 1").fetchone() == (
        "TIMESTAMP WITH TIME ZONE",
        "TIMESTAMP WITH TIME ZONE[]",
        "STRUCT(a TIMESTAMP WITH TIME ZONE)",
    )
    query = "SELECT epoch_us(ts), epoch_us(l[1]), epoch_us(st.a) FROM dh.sent WHERE isfinite(ts) ORDER BY id"
    assert both.execute(query).fetchall() == [(us, us, us) for us, _ in here for _ in range(2)]
    infinite = "SELECT count(*) FROM dh.sent WHERE ts IN ('infinity', '-infinity')"
    assert both.execute(infinite).fetchone() == (4,)


@pytest.mark.parametrize("zone", ZONES)
def test_the_clock(both, zone):
    both.execute(f"SET TimeZone = '{zone}'")
    both.execute("BEGIN")
    for expression in [
        "now()::TIMESTAMP",
        "now()::VARCHAR",
        "current_date",
        "today()",
        "current_localtimestamp()",
        "current_localtime()",
        "current_setting('TimeZone')",
    ]:
        compare(both, expression)
    both.execute("COMMIT")


@pytest.mark.parametrize("zone", ["America/New_York", "Pacific/Apia"])
def test_writes_that_are_shipped(both, zone):
    both.execute(f"SET TimeZone = '{zone}'")
    for table in ["dh.w", "w"]:
        both.execute(f"CREATE OR REPLACE TABLE {table} (id INTEGER, ts TIMESTAMPTZ, d DATE)")
        both.execute(f"INSERT INTO {table} VALUES (1, '2024-07-01 00:00:00', NULL), (2, '2011-12-29 23:00:00', NULL)")
        both.execute(f"UPDATE {table} SET d = ts + INTERVAL 2 HOURS")
        both.execute(f"DELETE FROM {table} WHERE ts::DATE = DATE '2024-06-30'")
    query = "SELECT id, epoch_us(ts), d FROM %s ORDER BY id"
    assert both.execute(query % "dh.w").fetchall() == both.execute(query % "w").fetchall()


@pytest.mark.parametrize("calendar", ["gregorian", "buddhist", "hebrew", "japanese", "islamic-umalqura"])
def test_calendars(both, calendar):
    both.execute("SET TimeZone = 'Europe/Berlin'")
    both.execute(f"SET Calendar = '{calendar}'")
    for expression in ["year(ts)", "month(ts)", "era(ts)", "date_trunc('year', ts)", "ts + INTERVAL 1 MONTH"]:
        compare(both, expression)
    both.execute("RESET Calendar")
    compare(both, "year(ts)")


def test_collations(both):
    words = "('Zebra'), ('äpfel'), ('Apfel'), ('zebra'), ('Österreich'), ('oben'), ('pêche'), ('péché'), ('peche')"
    both.execute("CREATE OR REPLACE TABLE dh.words (s VARCHAR)")
    both.execute("CREATE OR REPLACE TABLE words (s VARCHAR)")
    for table in ["dh.words", "words"]:
        both.execute(f"INSERT INTO {table} VALUES {words}")

    def compare_words(select):
        assert both.execute(select % "dh.words").fetchall() == both.execute(select % "words").fetchall(), select

    by_code = both.execute("SELECT s FROM words ORDER BY s").fetchall()
    for collation in ["de", "sv", "fr", "icu_noaccent", "NOCASE.NOACCENT", "de.NOCASE"]:
        compare_words(f"SELECT s FROM %s ORDER BY s COLLATE {collation}, s")
        compare_words(f"SELECT count(DISTINCT s COLLATE {collation}) FROM %s")
        both.execute(f"SET default_collation = '{collation}'")
        compare_words("SELECT s FROM %s ORDER BY s, encode(s)")
        compare_words("SELECT max(s), count(*) FILTER (s = 'APFEL') FROM %s")
        assert both.execute("SELECT s FROM dh.words ORDER BY s, encode(s)").fetchall() != by_code
    both.execute("RESET default_collation")
    compare_words("SELECT s FROM %s ORDER BY s")
    compare_words("SELECT icu_sort_key(s, 'de') FROM %s ORDER BY s")


@pytest.mark.parametrize(
    "setting, value, query",
    [
        ("disable_timestamptz_casts", "true", "SELECT t::TIMESTAMPTZ::VARCHAR FROM %s ORDER BY id"),
        ("error_on_division_by_zero", "false", "SELECT id / (id - id), id %% (id - id) FROM %s ORDER BY id"),
        ("regex_match_operator_semantics", "'full'", "SELECT s ~ '2024' FROM %s ORDER BY id"),
        ("integer_division", "true", "SELECT id / 4 FROM %s ORDER BY id"),
        ("default_null_order", "nulls_first", "SELECT s FROM %s ORDER BY s"),
    ],
)
def test_other_settings(both, setting, value, query):
    before = outcome(both, query % "dh.there")
    assert before == outcome(both, query % "here")
    both.execute(f"SET {setting} = {value}")
    changed = outcome(both, query % "dh.there")
    assert changed == outcome(both, query % "here")
    assert changed != before, "the setting makes no difference: the query shows nothing"
    both.execute(f"RESET {setting}")
    assert outcome(both, query % "dh.there") == before


# --- who says what the zone is ---

def remote_zone(con, name="dh"):
    """The zone that shipped statements find, by what midnight in UTC is there."""
    con.execute(f"CREATE TABLE IF NOT EXISTS {name}.z AS SELECT TIMESTAMPTZ '2024-07-01 00:00:00+00' AS ts")
    return con.execute(f"SELECT ts::VARCHAR FROM {name}.z").fetchone()[0]


@pytest.fixture
def in_zone(monkeypatch):
    """Makes what is started afterwards believe to be elsewhere."""
    return lambda zone: monkeypatch.setenv("TZ", zone)


def test_the_clients_zone_counts_though_nobody_set_it(in_zone, start_duckling):
    in_zone("Asia/Tokyo")
    duckling = start_duckling()
    in_zone("America/New_York")
    con = duckling.attach(connect())
    assert con.execute("SELECT current_setting('TimeZone')").fetchone() == ("America/New_York",)
    assert remote_zone(con) == "2024-06-30 20:00:00-04"
    con.execute("SET TimeZone = 'Asia/Kolkata'")
    assert remote_zone(con) == "2024-07-01 05:30:00+05:30"
    con.execute("RESET TimeZone")
    assert remote_zone(con) == "2024-06-30 20:00:00-04"
    con.close()


def test_each_connection_has_its_own_zone(dh):
    other = dh.cursor()
    dh.execute("SET SESSION TimeZone = 'Asia/Tokyo'")
    other.execute("SET SESSION TimeZone = 'America/New_York'")
    for _ in range(2):
        assert remote_zone(dh) == "2024-07-01 09:00:00+09"
        assert remote_zone(other) == "2024-06-30 20:00:00-04"


def test_a_zone_set_inside_a_transaction_holds_at_once(dh):
    remote_zone(dh)
    dh.execute("BEGIN")
    dh.execute("INSERT INTO dh.z VALUES (now())")
    dh.execute("SET TimeZone = 'Asia/Tokyo'")
    assert remote_zone(dh) == "2024-07-01 09:00:00+09"
    dh.execute("ROLLBACK")
    assert remote_zone(dh) == "2024-07-01 09:00:00+09"


def test_a_changed_zone_does_not_keep_a_failed_transaction_from_ending(dh):
    remote_zone(dh)
    dh.execute("BEGIN")
    dh.execute("INSERT INTO dh.z VALUES (now())")
    with pytest.raises(Exception, match="Conversion"):
        dh.execute("INSERT INTO dh.z SELECT 'x' || ts::VARCHAR FROM dh.z")
    dh.execute("ROLLBACK")
    dh.execute("SET TimeZone = 'Asia/Tokyo'")
    assert remote_zone(dh) == "2024-07-01 09:00:00+09"
    assert dh.execute("SELECT count(*) FROM dh.z").fetchone() == (1,)


def test_a_restarted_server_is_told_again(con, tmp_path, start_duckling):
    duckling = start_duckling(database=tmp_path / "again.db")
    duckling.attach(con)
    con.execute("SET TimeZone = 'Asia/Tokyo'")
    assert remote_zone(con) == "2024-07-01 09:00:00+09"
    assert duckling.terminate() == 0
    start_duckling(port=duckling.port, database=tmp_path / "again.db")

    def zone():
        try:
            return con.execute("SELECT ts::VARCHAR FROM dh.z").fetchone()[0]
        except Exception:
            return None  # the broken connection was noticed by this statement

    assert poll(zone, "a statement on the restarted server", DEADLINE_S) == "2024-07-01 09:00:00+09"


def test_the_local_server_has_icu(in_zone):
    in_zone("Europe/Berlin")
    con = connect()
    address = con.execute("SELECT duckherder_start_local_server(0)").fetchone()[0]
    try:
        con.execute(attach_sql(address.rsplit(":", 1)[1]))
        assert remote_zone(con) == "2024-07-01 02:00:00+02"
        con.execute("SET TimeZone = 'Asia/Tokyo'")
        assert remote_zone(con) == "2024-07-01 09:00:00+09"
        assert con.execute("SELECT date_trunc('day', ts)::VARCHAR FROM dh.z").fetchone() == ("2024-07-01 00:00:00+09",)
        con.execute("DETACH dh")
    finally:
        con.execute("SELECT duckherder_stop_local_server()")
        con.close()
