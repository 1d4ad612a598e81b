"""`duckling sql`: arguments, scripts, formats, and the prompt on a terminal."""

import codecs
import fcntl
import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import termios
import time

import duckdb
import pytest

from conftest import DEADLINE_S, DUCKLING, EXTENSION, poll

TYPES = {
    "BOOLEAN": ["true", "NULL"],
    "TINYINT": ["-128"],
    "UBIGINT": ["18446744073709551615"],
    "HUGEINT": ["170141183460469231731687303715884105727", "-1"],
    "UHUGEINT": ["340282366920938463463374607431768211455"],
    "BIGNUM": ["'-123456789012345678901234567890123456789012345678901'"],
    "FLOAT": ["0.1", "'nan'", "1e30"],
    "DOUBLE": ["0.1", "'-inf'", "1e300", "123456789.125", "-0.0"],
    "DECIMAL(38,10)": ["-1.5", "9999999999999999999999999999.0123456789"],
    "VARCHAR": ["'größe'", "'a\"b,c'", "''"],
    "BLOB": ["'\\x00ab\\xFF'::BLOB"],
    "BIT": ["'0101101'"],
    "DATE": ["'2024-02-29'", "'infinity'", "'0044-03-15 (BC)'"],
    "TIME": ["'23:59:59.999999'"],
    "TIMETZ": ["'12:00:00+05:30'"],
    "TIMESTAMP": ["'2024-02-29 01:02:03.000004'", "'-infinity'"],
    "TIMESTAMP_S": ["'2024-02-29 01:02:03'"],
    "TIMESTAMP_NS": ["'2024-02-29 01:02:03.000000004'"],
    "TIMESTAMPTZ": ["'2024-07-01 12:00:00+00'"],
    "INTERVAL": ["INTERVAL '1 year 2 months 3 days 4 hours 5.5 seconds'", "INTERVAL '-1 day'"],
    "UUID": ["'00112233-4455-6677-8899-aabbccddeeff'"],
    "ENUM('sad', 'so so')": ["'so so'"],
    "JSON": ["'{\"a\": [1, null]}'"],
    "INTEGER[]": ["[1, NULL, 3]", "[]"],
    "VARCHAR[2]": ["['a', NULL]"],
    "STRUCT(a INTEGER, b STRUCT(c VARCHAR[]))": ["{'a': 1, 'b': {'c': ['x y', NULL]}}"],
    "MAP(VARCHAR, DATE)": ["MAP {'a b': DATE '2024-01-01'}"],
    "UNION(n INTEGER, s VARCHAR)": ["union_value(s := 'text')", "union_value(n := 1)"],
    "VARIANT": ["42::VARIANT", "{'a': [1, 2]}::VARIANT"],
}


def sql(duckling, *arguments, stdin="", check=True, environment=None):
    """Runs `duckling sql` to its end."""
    done = subprocess.run(
        [DUCKLING, "sql", "--server", f"127.0.0.1:{duckling.port}", *arguments],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=2 * DEADLINE_S,
        env={**os.environ, "TZ": "Europe/Berlin", **(environment or {})},
    )
    if check:
        assert done.returncode == 0, done.stderr
    return done


def test_arguments_run_in_order(duckling):
    out = sql(duckling, "CREATE TABLE t (i INTEGER); INSERT INTO t VALUES (1), (2)", "SELECT sum(i) AS total FROM t").stdout
    assert out.splitlines() == [
        "2 rows changed",
        "┌────────┐",
        "│ total  │",
        "│ int128 │",
        "├────────┤",
        "│      3 │",
        "└────────┘",
    ]


def test_a_script_stops_at_its_first_error(duckling, tmp_path):
    script = tmp_path / "script.sql"
    script.write_text("CREATE TABLE t (i INTEGER);\nINSERT INTO t VALUES (';');\nINSERT INTO t VALUES (1);")
    failed = sql(duckling, "-f", str(script), check=False)
    assert failed.returncode == 1 and failed.stdout == ""
    assert failed.stderr.startswith("Conversion Error: Could not convert string ';' to INT32"), failed.stderr
    assert sql(duckling, "--format=csv", "SELECT count(*) AS n FROM t").stdout == "n\n0\n"


def test_errors_show_their_place(duckling):
    failed = sql(duckling, "SELECT 1;\nSELECT 1,\n  nosuch", check=False)
    assert failed.stderr.endswith("LINE 2:   nosuch\n          ^\n"), failed.stderr
    assert failed.stderr.startswith("Binder Error: "), failed.stderr


def test_statements_from_a_pipe_run_as_they_come(duckling):
    process = subprocess.Popen(
        [DUCKLING, "sql", "--server", f"127.0.0.1:{duckling.port}", "--format=csv"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    process.stdin.write("SELECT ';\n' AS a, $$;$$ AS b -- ;\n;\n")
    process.stdin.flush()
    assert [process.stdout.readline() for _ in range(3)] == ["a,b\n", '";\n', '",;\n']
    process.stdin.write("SELECT 2 AS c")
    out, _ = process.communicate(timeout=DEADLINE_S)
    assert out == "c\n2\n" and process.returncode == 0


@pytest.mark.parametrize("type_name", TYPES)
def test_values_read_as_duckdb_writes_them(duckling, type_name):
    values = ", ".join(f"(CAST({value} AS {type_name}))" for value in TYPES[type_name])
    query = f"SELECT v FROM (VALUES {values}, (NULL)) AS t(v)"
    local = duckdb.connect()
    local.execute("SET TimeZone = 'Europe/Berlin'")
    texts = [row[0] for row in local.execute(f"SELECT v::VARCHAR FROM ({query})").fetchall()]
    csv = sql(duckling, "--format=csv", query).stdout
    # As one column, so that only texts with commas, quotes and nothing in them are quoted.
    read = [
        None if line == "" else line[1:-1].replace('""', '"') if line[0] == '"' else line
        for line in csv.removesuffix("\n").split("\n")[1:]
    ]
    assert read == texts
    boxes = sql(duckling, query).stdout
    for text in texts:
        assert "NULL" in boxes if text is None else text in boxes
    array = json.loads(sql(duckling, "--format=json", query).stdout, parse_float=str, parse_int=str)
    assert [list(row) for row in array] == [["v"]] * len(texts)
    assert array[-1]["v"] is None


def test_json_is_json(duckling):
    query = "SELECT range AS i, 'a\"\\\n' AS s, 'nan'::DOUBLE AS n FROM range(3)"
    rows = json.loads(sql(duckling, "--format=json", query).stdout)
    assert rows == [{"i": i, "s": 'a"\\\n', "n": "NaN"} for i in range(3)]
    assert sql(duckling, "--format=json", "SELECT 1 AS i WHERE false").stdout == "[]\n"


def test_only_rows_are_printed_for_programs(duckling):
    statements = 'CREATE TABLE t (i INTEGER); INSERT INTO t VALUES (7); SELECT 5::BIGINT AS "Count"; UPDATE t SET i = 1'
    assert sql(duckling, "--format=csv", statements).stdout == "Count\n5\n"
    assert sql(duckling, "--format=csv", "SELECT 1 AS i WHERE false").stdout == "i\n"
    assert sql(duckling, "--format=csv", "INSERT INTO t VALUES (3), (4) RETURNING i").stdout == "i\n3\n4\n"


def test_large_results_show_head_and_tail(duckling):
    out = sql(duckling, "--rows=4", "FROM range(1_000_000)").stdout
    numbers = re.findall(r"│ +(\d+) │", out)
    assert numbers == ["0", "1", "999998", "999999"]
    assert out.endswith("  1000000 rows (4 shown)\n")


def test_large_results_are_not_kept(duckling):
    """A result of 400 MB goes through a program with 300 MB of memory beside what DuckDB itself reserves."""
    query = "SELECT range AS i, repeat('x', 100) AS s FROM range(4_000_000)"
    command = f"{DUCKLING} sql --server 127.0.0.1:{duckling.port} --format=csv \"{query}\" | wc -c"
    process = subprocess.Popen(["/usr/bin/env", "bash", "-c", command], stdout=subprocess.PIPE, text=True)
    peak = 0

    def ended():
        nonlocal peak
        peak = max(peak, resident_kib("sql --server 127.0.0.1:%d" % duckling.port))
        return process.poll() is not None

    poll(ended, "printing", deadline_s=6 * DEADLINE_S)
    assert int(process.stdout.read()) > 400_000_000
    assert 0 < peak < 300_000, f"{peak} KiB"


def resident_kib(arguments):
    """The resident memory of the process with those arguments."""
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/cmdline", "rb") as file:
                line = file.read().replace(b"\0", b" ").decode(errors="replace")
            if line.startswith(DUCKLING) and arguments in line:
                with open(f"/proc/{pid}/status") as file:
                    return int(re.search(r"VmRSS:\s+(\d+)", file.read())[1])
        except (OSError, TypeError):
            continue
    return 0


def test_a_closed_pipe_ends_it_quietly(duckling):
    command = f"{DUCKLING} sql --server 127.0.0.1:{duckling.port} --format=csv 'FROM range(10_000_000)' | head -n 2"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=DEADLINE_S)
    assert done.stdout == "range\n0\n" and done.stderr == ""


def test_no_server_is_an_error(duckling):
    duckling.kill()
    failed = sql(duckling, "--connect-timeout=2", "SELECT 1", check=False)
    assert failed.returncode == 1 and failed.stderr.startswith("Connection Error: cannot connect to the duckling at")


@pytest.mark.parametrize("arguments", [["--server", "a:b", "SELECT 1"], ["--server", ":", "SELECT 1"]])
def test_wrong_addresses_are_errors(arguments):
    done = subprocess.run([DUCKLING, "sql", *arguments], capture_output=True, text=True, timeout=DEADLINE_S)
    assert done.returncode == 1 and "is no HOST:PORT" in done.stderr


def test_wrong_arguments_are_errors():
    for arguments in [["--format=xml"], ["--rows=1"], ["-f", "x", "SELECT 1"], ["--load-extension=x"]]:
        done = subprocess.run([DUCKLING, "sql", *arguments], capture_output=True, text=True, timeout=DEADLINE_S)
        assert done.returncode == 2, arguments


def test_sigint_ends_a_script(duckling):
    command = [DUCKLING, "sql", "--server", f"127.0.0.1:{duckling.port}", "CREATE TABLE begun AS SELECT 1", SLOW, "SELECT 2"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    poll(lambda: is_running(duckling), "the statement running")
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=DEADLINE_S)
    assert (process.returncode, err) == (130, "INTERRUPT Error: Interrupted!\n"), (out, err)
    poll(lambda: not is_running(duckling), "the statement stopped on the server")


SLOW = "SELECT sum(a.range * b.range) AS slow FROM range(10_000_000) a, range(1_000_000) b"


def is_running(duckling):
    query = "SELECT count(*) AS n FROM duckling_history() WHERE sql LIKE '%AS slow%' AND sql NOT LIKE '%history%' AND state = 'running'"
    return sql(duckling, "--format=csv", query).stdout == "n\n1\n"


# Where the line editor begins and ends to read: it tells the terminal whether to mark what is pasted.
READS, ACCEPTED = "<reads>", "<accepted>"


class Prompt:
    """`duckling sql` on a terminal of its own."""

    def __init__(self, arguments, home, columns=80):
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            environment = {**os.environ, "HOME": str(home), "TERM": "xterm", "TZ": "UTC"}
            environment.pop("DUCKLING_HISTORY", None)
            os.execve(DUCKLING, [DUCKLING, "sql", *arguments], environment)
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
        self.seen = ""
        self.decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self.unfinished = ""

    def until(self, text, deadline_s=DEADLINE_S):
        """Reads until `text` has come; returns all up to and with it."""
        end = time.monotonic() + deadline_s
        while text not in self.seen:
            left = end - time.monotonic()
            assert left > 0, f"{text!r} did not come: {self.seen!r}"
            if select.select([self.fd], [], [], left)[0]:
                try:
                    piece = os.read(self.fd, 65536)
                except OSError:
                    piece = b""
                assert piece, f"ended before {text!r}: {self.seen!r}"
                # A character or a sequence may come in two pieces.
                chunk = self.unfinished + self.decoder.decode(piece)
                self.unfinished = re.search(r"(\x1b(\[[?0-9;]*)?)?\Z", chunk)[0]
                chunk = chunk.removesuffix(self.unfinished).replace("\x1b[?2004h", READS).replace("\x1b[?2004l", ACCEPTED)
                self.seen += re.sub(r"\x1b\[[?0-9;]*[A-Za-z]", "", chunk)
        index = self.seen.index(text) + len(text)
        read, self.seen = self.seen[:index], self.seen[index:]
        return read

    def type(self, text):
        os.write(self.fd, text.encode())

    def run(self, text):
        """Types a line, and returns what comes before the next prompt."""
        self.type(text + "\r")
        self.until(ACCEPTED)
        return self.until(READS)

    def exit_code(self):
        def ended():
            try:
                # Unread output would hold it up.
                if select.select([self.fd], [], [], 0)[0]:
                    os.read(self.fd, 65536)
            except OSError:
                pass
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            return (os.waitstatus_to_exitcode(status),) if pid else None

        code = poll(ended, "the end")[0]
        self.pid = None
        return code

    def close(self):
        if self.pid is not None:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        os.close(self.fd)


@pytest.fixture
def open_prompt(tmp_path):
    prompts = []

    def start(*arguments, columns=80):
        prompts.append(Prompt(arguments, tmp_path, columns))
        prompts[-1].until(READS)
        return prompts[-1]

    yield start
    for prompt in prompts:
        prompt.close()


@pytest.fixture
def prompt(open_prompt, duckling):
    return open_prompt("--server", f"127.0.0.1:{duckling.port}")


def test_the_prompt_runs_statements_of_several_lines(prompt):
    prompt.type("SELECT 'a;\r")
    prompt.type("b' AS text,\r")
    out = prompt.run("42 AS number;")
    assert re.search(r"│ a;\\nb +│ +42 │", out), out
    assert "42" in prompt.run("SELECT 6 * 7 AS answer;")


def test_the_prompt_goes_on_after_errors(prompt):
    assert "Catalog Error" in prompt.run("FROM nosuch;")
    assert "there is no command" in prompt.run("\\nosuch")
    assert "42" in prompt.run("SELECT 42;")


def test_commands_of_the_prompt(prompt, tmp_path):
    prompt.run("CREATE TABLE ducks (name VARCHAR, grams INTEGER NOT NULL);")
    assert re.search(r"main +│ ducks +│ table", prompt.run("\\d"))
    assert re.search(r"grams +│ INTEGER +│ NO", prompt.run("\\d ducks"))
    assert "timing is on" in prompt.run("\\timing")
    assert re.search(r"\d\.\d{3} s, \d\.\d{3} s on the server", prompt.run("FROM ducks;"))
    prompt.run("\\timing off")
    prompt.run("\\format json")
    assert '[{"a":1}]' in prompt.run("SELECT 1 AS a;")
    assert "json" in prompt.run("\\format")
    prompt.run("\\format arrow")
    assert "not for a terminal" in prompt.run("SELECT 1 AS a;")
    prompt.run("\\format csv")
    path = tmp_path / "out.csv"
    prompt.run(f"\\o {path}")
    prompt.run("SELECT 1 AS a; SELECT 2 AS b;")
    prompt.run("\\o")
    assert path.read_text() == "a\n1\nb\n2\n"
    assert "Ctrl-C" in prompt.run("\\?")
    prompt.type("\\q\r")
    assert prompt.exit_code() == 0


def test_ctrl_c_stops_the_statement_and_not_the_prompt(prompt, duckling):
    prompt.run("CREATE TABLE kept (i INTEGER);")
    prompt.run("BEGIN;")
    prompt.run("INSERT INTO kept VALUES (1);")
    prompt.type(SLOW + ";\r")
    poll(lambda: is_running(duckling), "the statement running")
    prompt.until(" 1s ", deadline_s=5)  # the sign of life
    prompt.type("\x03")
    prompt.until("INTERRUPT Error: Interrupted!", deadline_s=5)
    prompt.until(READS)
    poll(lambda: not is_running(duckling), "the statement stopped on the server")
    prompt.run("ROLLBACK;")
    assert "42" in prompt.run("SELECT 42;")


def test_the_prompt_says_how_far_a_statement_is(prompt):
    prompt.run("CREATE TABLE big AS SELECT i FROM range(2_000_000) r(i);")
    prompt.type("SELECT sum(list_sum([hash(i, x) % 10 for x in range(1000)])) FROM big;\r")
    prompt.until(ACCEPTED)
    prompt.until(" %")
    prompt.type("\x03")
    assert "Interrupted" in prompt.until(READS)


def test_ctrl_c_empties_the_prompt_and_ctrl_d_ends_it(prompt):
    prompt.type("SELECT (")
    prompt.type("\x03")
    prompt.until(READS)
    assert "42" in prompt.run("SELECT 42;")
    prompt.type("\x04")
    assert prompt.exit_code() == 0


def test_the_history_is_kept(open_prompt, duckling, tmp_path):
    server = ["--server", f"127.0.0.1:{duckling.port}"]
    first = open_prompt(*server)
    first.run("SELECT 'remember' || 'ed';")
    first.run(" SELECT 'a secret';")
    first.type("\x04")
    assert first.exit_code() == 0
    history = (tmp_path / ".duckling_history").read_text()
    assert "'remember'" in history and "secret" not in history
    second = open_prompt(*server)
    second.type("\x1b[A")
    assert "remembered" in second.run("")


def test_boxes_fit_the_terminal(open_prompt, duckling):
    prompt = open_prompt("--server", f"127.0.0.1:{duckling.port}", columns=60)
    prompt.run("CREATE TABLE wide AS SELECT " + ", ".join(f"repeat('x', 50) AS column{i}" for i in range(20)) + ";")
    out = prompt.run("FROM wide;")
    box = [line.rstrip("\r") for line in out.splitlines() if line and line[0] in "┌│├└"]
    assert box and all(len(line) <= 60 for line in box), out
    assert "20 columns (" in out


def test_a_lost_session_is_replaced(open_prompt, start_duckling, tmp_path):
    database = tmp_path / "kept.db"
    first = start_duckling(database=database)
    prompt = open_prompt("--server", f"127.0.0.1:{first.port}")
    assert "42" in prompt.run("SELECT 42;")
    first.kill()
    assert "Connection Error" in prompt.run("SELECT 43;")
    start_duckling(port=first.port, database=database)
    poll(lambda: "44" in prompt.run("SELECT 40 + 4;"), "a new session")


def test_the_same_prompt_on_a_local_database_with_the_extension(open_prompt, duckling, tmp_path):
    database = tmp_path / "local.db"
    prompt = open_prompt("--database", str(database), "--load-extension", EXTENSION)
    prompt.run(f"ATTACH 'dh' (TYPE duckherder, server_host '127.0.0.1', server_port {duckling.port});")
    assert "2 rows changed" in prompt.run("CREATE TABLE dh.there AS SELECT range AS i FROM range(2);") + prompt.run(
        "INSERT INTO dh.there VALUES (8), (9);"
    )
    prompt.run("CREATE TABLE here AS SELECT i, 'x'::ENUM('x', 'y') AS e FROM dh.there;")
    assert re.search(r"8 │ x", prompt.run("FROM here ORDER BY i;"))
    assert "there" in prompt.run("\\d")
    assert "Binder Error" in prompt.run("SELECT nosuch FROM dh.there;")
    prompt.type(SLOW + ";\r")
    prompt.until(" 1s ", deadline_s=5)
    prompt.type("\x03")
    prompt.until("INTERRUPT Error", deadline_s=5)
    prompt.until(READS)
    assert "4" in prompt.run("SELECT count(*) FROM here;")
    prompt.type("\x04")
    assert prompt.exit_code() == 0
    assert duckdb.connect(str(database)).execute("SELECT count(*) FROM here").fetchall() == [(4,)]
