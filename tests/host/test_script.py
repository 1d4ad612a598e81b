"""The script of the README, statement by statement."""

import datetime
from decimal import Decimal

import duckdb
import pytest

from conftest import free_port


def test_the_script(con):
    # Another process may have 8815; the rest is verbatim.
    port = free_port()

    def run(sql):
        return con.execute(sql.replace("8815", str(port))).fetchall()

    assert run("SELECT duckherder_start_local_server(8815)") == [(f"local server started at localhost:{port}",)]
    run("ATTACH DATABASE 'dh' (TYPE duckherder, server_host 'localhost', server_port 8815)")
    assert run("SELECT type FROM duckdb_databases() WHERE database_name = 'dh'") == [("duckherder",)]
    run("PRAGMA duckherder_register_remote_table('products', 'products')")
    run(
        "CREATE TABLE dh.products (id INTEGER, name VARCHAR, price DECIMAL(10,2), stock INTEGER,"
        " created_at TIMESTAMP)"
    )
    inserted = run(
        "INSERT INTO dh.products VALUES (1, 'Laptop', 999.99, 50, NOW()), (2, 'Mouse', 29.99, 200, NOW()),"
        " (3, 'Keyboard', 79.99, 150, NOW())"
    )
    assert inserted == [(3,)]
    assert run("SELECT name, price FROM dh.products WHERE stock > 100") == [
        ("Mouse", Decimal("29.99")),
        ("Keyboard", Decimal("79.99")),
    ]
    run("CREATE INDEX idx_products_stock ON dh.products(stock)")
    run("ALTER TABLE dh.products ADD COLUMN category VARCHAR DEFAULT 'Electronics'")
    rows = run("SELECT * FROM dh.products ORDER BY id")
    assert [row[0] for row in rows] == [1, 2, 3]
    assert {row[5] for row in rows} == {"Electronics"}
    assert abs(datetime.datetime.now(datetime.timezone.utc).replace(tzinfo=None) - rows[0][4]).total_seconds() < 86_400
    history = run("SELECT * FROM duckherder_get_query_history()")
    kinds = [row[4] for row in history[-6:]]
    assert kinds == ["write", "write", "read", "write", "write", "read"]
    assert {row[1] for row in history[-6:]} == {"dh"}
    run("DROP TABLE dh.products")
    with pytest.raises(duckdb.CatalogException, match="products"):
        run("SELECT * FROM dh.products")
    run("PRAGMA duckherder_unregister_remote_table('products')")
    assert run("SELECT duckherder_stop_local_server()") == [(f"local server at localhost:{port} stopped",)]
    assert run("SELECT 42") == [(42,)]
