//! The tour of the README, word for word, on the port that it names. No other test uses that port.

use duckherder_tests::duckdb::{Connection, DuckDb};

fn lines(connection: &mut Connection, sql: &str) -> Vec<String> {
    connection.lines(sql).unwrap_or_else(|error| panic!("{sql}\n{error}"))
}

#[test]
fn the_tour() {
    let database = DuckDb::with_duckherder().unwrap();
    let mut duckdb = database.connect().unwrap();
    let duckdb = &mut duckdb;

    assert_eq!(
        lines(duckdb, "SELECT duckherder_start_local_server(8815);"),
        ["local server started at localhost:8815"]
    );
    lines(
        duckdb,
        "ATTACH DATABASE 'dh' (TYPE duckherder, server_host 'localhost', server_port 8815);",
    );
    lines(
        duckdb,
        "PRAGMA duckherder_register_remote_table('products', 'products');",
    );
    lines(
        duckdb,
        "CREATE TABLE dh.products (id INTEGER, name VARCHAR, price DECIMAL(10,2), stock INTEGER, created_at TIMESTAMP);",
    );
    let inserted = duckdb
        .run(
            "INSERT INTO dh.products VALUES (1, 'Laptop', 999.99, 50, NOW()), (2, 'Mouse', 29.99, 200, NOW()), \
             (3, 'Keyboard', 79.99, 150, NOW());",
        )
        .unwrap();
    assert_eq!(inserted.rows_changed(), Some(3));

    let mut cheap = lines(duckdb, "SELECT name, price FROM dh.products WHERE stock > 100;");
    cheap.sort();
    assert_eq!(cheap, ["Keyboard|79.99", "Mouse|29.99"]);

    lines(duckdb, "CREATE INDEX idx_products_stock ON dh.products(stock);");
    lines(
        duckdb,
        "ALTER TABLE dh.products ADD COLUMN category VARCHAR DEFAULT 'Electronics';",
    );
    assert_eq!(
        lines(duckdb, "SELECT name, category FROM dh.products ORDER BY id"),
        ["Laptop|Electronics", "Mouse|Electronics", "Keyboard|Electronics"]
    );
    assert_eq!(
        lines(
            duckdb,
            "SELECT count(*) FROM dh.products WHERE abs(epoch(created_at) - epoch(now()::TIMESTAMP)) < 600"
        ),
        ["3"]
    );

    let history = duckdb.run("SELECT * FROM duckherder_get_query_history();").unwrap();
    let column = |name: &str| history.columns.iter().position(|(column, _)| column == name).unwrap();
    let (sql, server, error) = (column("sql"), column("server"), column("error"));
    for part in ["CREATE TABLE", "INSERT INTO", "SELECT", "CREATE INDEX", "ALTER TABLE"] {
        let found = history.rows.iter().any(|row| {
            row[server].as_deref() == Some("localhost:8815")
                && row[error].is_none()
                && row[sql]
                    .as_deref()
                    .is_some_and(|sql| sql.contains(part) && sql.contains("products"))
        });
        assert!(found, "{part} is not in the history: {:?}", history.rows);
    }

    lines(duckdb, "DROP TABLE dh.products;");
    let error = duckdb.run("SELECT * FROM dh.products").unwrap_err();
    assert!(error.0.starts_with("Catalog Error"), "{error}");
    lines(duckdb, "PRAGMA duckherder_unregister_remote_table('products');");
    assert_eq!(
        lines(duckdb, "SELECT duckherder_stop_local_server();"),
        ["local server at localhost:8815 stopped"]
    );
}
