//! What the tests here share.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::Int64Type;
use duckherder_client::{Client, ClientError, RemoteError};
use duckherder_tests::duckdb::{Connection, DuckDb};
use duckherder_tests::duckling::LocalDuckling;
use futures::TryStreamExt;

/// Longer than anything here takes, shorter than anybody waits.
pub const DEADLINE: Duration = Duration::from_secs(20);

/// What a test must not take longer than.
pub async fn within<T>(deadline: Duration, work: impl Future<Output = T>) -> T {
    tokio::time::timeout(deadline, work).await.expect("it takes too long")
}

/// A duckling and a client of it.
pub async fn start() -> (LocalDuckling, Client) {
    let duckling = LocalDuckling::start().unwrap();
    let client = Client::connect(duckling.options()).await.unwrap();
    (duckling, client)
}

/// The one number that a query yields.
pub async fn number(client: &Client, sql: &str) -> i64 {
    let batches: Vec<RecordBatch> = client.query(sql).await.unwrap().try_collect().await.unwrap();
    batches[0].column(0).as_primitive::<Int64Type>().value(0)
}

/// The DuckDB error in a client's error.
pub fn remote(error: ClientError) -> RemoteError {
    match error {
        ClientError::Remote(error) => error,
        other => panic!("not the server's error: {other:?}"),
    }
}

/// Rows `first..first + rows` of (n BIGINT, s VARCHAR).
pub fn batch(first: i64, rows: i64) -> RecordBatch {
    let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values(first..first + rows));
    let texts: ArrayRef = Arc::new(StringArray::from_iter(
        (first..first + rows).map(|n| (n % 5 != 0).then(|| format!("row {n}"))),
    ));
    RecordBatch::try_from_iter_with_nullable([("n", numbers, true), ("s", texts, true)]).unwrap()
}

/// A user's DuckDB with `duckling` attached as `dh`.
pub fn attach(port: u16) -> (DuckDb, Connection) {
    attach_with(port, "")
}

/// The same with further options, a comma before each.
pub fn attach_with(port: u16, options: &str) -> (DuckDb, Connection) {
    let database = DuckDb::with_duckherder().unwrap();
    let mut connection = database.connect().unwrap();
    connection
        .run(&format!(
            "ATTACH 'dh' (TYPE duckherder, server_host '127.0.0.1', server_port {port}{options})"
        ))
        .unwrap();
    (database, connection)
}
