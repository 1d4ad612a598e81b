"""A short tour of Duckherder in Python's DuckDB: python demo.py <extension file>."""

import socket
import sys
import time
from decimal import Decimal

import duckdb

FIRST_PORT = 8815
PORTS_TRIED = 100
ROWS_SHOWN = 20
CELL_WIDTH_MAX = 60

TOUR = [
    (
        "A server, here in this very process, and a connection to it",
        "LOAD '{extension}'",
        "SELECT duckherder_start_local_server({port})",
        "ATTACH DATABASE 'dh' (TYPE duckherder, server_host 'localhost', server_port {port})",
    ),
    (
        "Tables on the server look like any others",
        "CREATE TABLE dh.products (id INTEGER, name VARCHAR, price DECIMAL(10, 2))",
        "INSERT INTO dh.products VALUES (1, 'bread', 3.20), (2, 'pond weed', 1.50), (3, 'rubber duck', 9.90)",
        "FROM dh.products ORDER BY id",
    ),
    (
        "A table here joins a table there",
        "CREATE TABLE orders AS SELECT range AS id, 1 + range % 3 AS product, 1 + range % 7 AS amount FROM range(1000)",
        """SELECT name, count(*) AS orders, sum(amount * price) AS revenue
FROM orders JOIN dh.products ON product = products.id
GROUP BY name
ORDER BY revenue DESC""",
    ),
    (
        "A million rows, made and counted where they are: only the result travels",
        """CREATE TABLE dh.readings AS
SELECT range AS id, range % 5 AS sensor, round(18 + range % 5 + 4 * sin(range / 1000), 2) AS celsius
FROM range(1000000)""",
        """SELECT sensor, count(*) AS readings, round(avg(celsius), 3) AS mean, max(celsius) AS highest
FROM dh.readings
GROUP BY sensor
ORDER BY sensor""",
    ),
    (
        "Changes go where the data is",
        "UPDATE dh.products SET price = price + 0.50 WHERE name = 'bread'",
        "DELETE FROM dh.products WHERE name = 'pond weed'",
        "FROM dh.products ORDER BY id",
    ),
    (
        "What was sent, and what it cost",
        "SELECT kind, rows_received AS rows, round(duration_us / 1000, 1) AS ms, sql FROM duckherder_get_query_history()",
    ),
    (
        "The end",
        "DETACH dh",
        "SELECT duckherder_stop_local_server()",
    ),
]


def free_port():
    """The first free port from the usual one on."""
    for port in range(FIRST_PORT, FIRST_PORT + PORTS_TRIED):
        with socket.socket() as probe:
            # As servers do: a port whose last connections are still closing counts as free.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("", port))
            except OSError:
                continue
            return port
    sys.exit(f"no free port from {FIRST_PORT} to {FIRST_PORT + PORTS_TRIED - 1}")


def cell(value):
    """One value as text on one line, cut if it is long."""
    text = "NULL" if value is None else " ".join(str(value).split())
    return text if len(text) <= CELL_WIDTH_MAX else text[: CELL_WIDTH_MAX - 1] + "…"


def is_number(value):
    return isinstance(value, (int, float, Decimal)) and not isinstance(value, bool)


def table(names, rows):
    """The lines of a table: numbers to the right, everything else to the left."""
    shown = rows[:ROWS_SHOWN]
    to_right = [bool(shown) and all(row[i] is None or is_number(row[i]) for row in shown) for i in range(len(names))]
    cells = [[cell(value) for value in row] for row in shown]
    widths = [max(len(text) for text in column) for column in zip(names, *cells)]

    def line(texts):
        padded = [text.rjust(w) if right else text.ljust(w) for text, w, right in zip(texts, widths, to_right)]
        return "│ " + " │ ".join(padded) + " │"

    def rule(left, middle, right):
        return left + middle.join("─" * (width + 2) for width in widths) + right

    lines = [rule("┌", "┬", "┐"), line(names), rule("├", "┼", "┤"), *map(line, cells), rule("└", "┴", "┘")]
    if len(rows) > len(shown):
        lines.append(f"  and {len(rows) - len(shown)} more rows")
    return lines


def run(connection, sql):
    """Runs one statement and prints it, its result, and how long it took."""
    for number, line in enumerate(sql.splitlines()):
        print(("D " if number == 0 else "  ") + line)
    started = time.perf_counter()
    result = connection.execute(sql)
    names = [column[0] for column in result.description or []]
    rows = result.fetchall()
    elapsed_ms = (time.perf_counter() - started) * 1000
    if rows:
        print("\n".join("  " + line for line in table(names, rows)))
    print(f"  {elapsed_ms:.1f} ms\n")


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(encoding="utf-8", line_buffering=True)
    values = {"extension": sys.argv[1].replace("'", "''"), "port": free_port()}
    connection = duckdb.connect(config={"allow_unsigned_extensions": "true"})
    for title, *statements in TOUR:
        print(f"── {title} ──\n")
        for statement in statements:
            try:
                run(connection, statement.format(**values))
            except duckdb.Error as error:
                sys.exit(f"\nthe demo failed: {type(error).__name__}: {error}")


if __name__ == "__main__":
    main()
