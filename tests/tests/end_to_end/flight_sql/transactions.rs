//! Transactions by id.

use std::time::Duration;

use arrow_flight::sql::{
    ActionBeginSavepointRequest, ActionBeginTransactionRequest, ActionBeginTransactionResult,
    ActionEndTransactionRequest, CommandStatementQuery, CommandStatementUpdate, EndTransaction, ProstMessageExt,
};
use bytes::Bytes;
use duckherder_proto::Message;
use duckherder_tests::duckling::{LocalDuckling, config};
use tonic::{Code, Status};

use super::support::{Client, Raw, assert_code, log_in, number, query, start, status, sum, update};
use crate::support::{DEADLINE, within};

async fn insert(client: &mut Client, transaction: &Bytes) -> i64 {
    let sql = "INSERT INTO t VALUES (1)".to_owned();
    client.execute_update(sql, Some(transaction.clone())).await.unwrap()
}

#[tokio::test]
async fn commit_and_rollback() {
    let (duckling, mut client) = start().await;
    let mut other = log_in(&duckling).await;
    update(&mut client, "CREATE TABLE t (i INTEGER)").await;
    for (action, rows) in [(EndTransaction::Rollback, 0), (EndTransaction::Commit, 1)] {
        let transaction = client.begin_transaction().await.unwrap();
        assert_eq!(insert(&mut client, &transaction).await, 1);
        assert_eq!(number(&mut other, "SELECT count(*) FROM t").await, 0);
        client.end_transaction(transaction.clone(), action).await.unwrap();
        assert_eq!(number(&mut other, "SELECT count(*) FROM t").await, rows);
        let over = client.end_transaction(transaction, action).await;
        assert_code(over.map_err(status), Code::Aborted);
    }
}

#[tokio::test]
async fn that_of_a_client_that_is_gone_is_rolled_back() {
    async fn add(client: &mut Client, row: i32) -> Bytes {
        let transaction = client.begin_transaction().await.unwrap();
        let sql = format!("UPDATE t SET i = i + 10 WHERE i = {row}");
        client.execute_update(sql, Some(transaction.clone())).await.unwrap();
        transaction
    }

    let mut config = config();
    config.limits.gone_client_timeout = Duration::from_millis(100);
    let duckling = LocalDuckling::start_with(config).unwrap();
    let mut other = log_in(&duckling).await;
    update(&mut other, "CREATE TABLE t AS SELECT unnest([1, 2]) AS i").await;
    let mut gone = log_in(&duckling).await;
    add(&mut gone, 1).await;
    let mut idle = log_in(&duckling).await;
    let transaction = add(&mut idle, 2).await;
    let change = "UPDATE t SET i = 5 WHERE i = 1";
    let conflict = other.execute_update(change.to_owned(), None).await;
    let message = assert_code(conflict.map_err(status), Code::Aborted);
    assert!(message.contains("Conflict"), "{message}");
    drop(gone);
    within(DEADLINE, async {
        while other.execute_update(change.to_owned(), None).await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    // One that does nothing, and is there, goes on.
    idle.end_transaction(transaction, EndTransaction::Commit).await.unwrap();
    assert_eq!(number(&mut other, "SELECT sum(i) FROM t").await, 5 + 12);
}

#[tokio::test]
async fn statements_without_the_id_commit_by_themselves() {
    let (_duckling, mut client) = start().await;
    update(&mut client, "CREATE TABLE t (i INTEGER)").await;
    let transaction = client.begin_transaction().await.unwrap();
    insert(&mut client, &transaction).await;
    assert_eq!(number(&mut client, "SELECT count(*) FROM t").await, 0);
    update(&mut client, "CREATE TABLE beside AS SELECT 1").await;
    client
        .end_transaction(transaction, EndTransaction::Rollback)
        .await
        .unwrap();
    assert_eq!(number(&mut client, "SELECT count(*) FROM beside").await, 1);
    assert_eq!(number(&mut client, "SELECT count(*) FROM t").await, 0);
}

#[tokio::test]
async fn several_results_are_open_at_once() {
    let (duckling, _client) = start().await;
    let mut raw = Raw::logged_in(&duckling).await;
    let begun: ActionBeginTransactionResult = raw
        .act_wrapped("BeginTransaction", &ActionBeginTransactionRequest {})
        .await
        .unwrap();
    let select = |sql: &str| CommandStatementQuery {
        query: sql.to_owned(),
        transaction_id: Some(begun.transaction_id.clone()),
    };
    let first = raw
        .info(&select("SELECT range::BIGINT FROM range(300000)"))
        .await
        .unwrap();
    let second = raw.info(&select("SELECT 1::BIGINT")).await.unwrap();
    let request = raw.request(super::support::ticket(&first));
    let unread = raw.service().do_get(request).await.unwrap().into_inner();
    assert_eq!(sum(&raw.get(super::support::ticket(&second)).await.unwrap()), 1);
    let read = super::support::read(futures::TryStreamExt::map_err(unread, |status| {
        arrow_flight::error::FlightError::Tonic(Box::new(status))
    }));
    assert_eq!(sum(&read.await.unwrap()), 300_000 * 299_999 / 2);
}

#[tokio::test]
async fn one_at_a_time_and_only_the_sessions_own() {
    let (duckling, mut client) = start().await;
    let transaction = client.begin_transaction().await.unwrap();
    assert_code(client.begin_transaction().await.map_err(status), Code::Aborted);
    let mut other = Raw::logged_in(&duckling).await;
    let foreign = CommandStatementUpdate {
        query: "CREATE TABLE t (i INT)".to_owned(),
        transaction_id: Some(transaction.clone()),
    };
    assert_code(other.put(&foreign, None).await, Code::PermissionDenied);
    let end = |action| ActionEndTransactionRequest {
        transaction_id: transaction.clone(),
        action,
    };
    let request = end(1).as_any().encode_to_vec();
    assert_code(other.act("EndTransaction", request).await, Code::PermissionDenied);
    let mut mine = Raw::anonymous(&duckling)
        .await
        .with("authorization", format!("Bearer {}", client.token().unwrap()));
    for action in [0, 9] {
        let request = end(action).as_any().encode_to_vec();
        assert_code(mine.act("EndTransaction", request).await, Code::InvalidArgument);
    }
    client
        .end_transaction(transaction, EndTransaction::Commit)
        .await
        .unwrap();
}

#[tokio::test]
async fn a_failed_transaction_does_not_commit() {
    let (_duckling, mut client) = start().await;
    update(&mut client, "CREATE TABLE t (i INTEGER PRIMARY KEY)").await;
    let transaction = client.begin_transaction().await.unwrap();
    insert(&mut client, &transaction).await;
    let twice = client
        .execute_update("INSERT INTO t VALUES (1)".to_owned(), Some(transaction.clone()))
        .await;
    assert_code(twice.map_err(status), Code::FailedPrecondition);
    let _ = client.end_transaction(transaction, EndTransaction::Commit).await;
    assert_eq!(number(&mut client, "SELECT count(*) FROM t").await, 0);
    assert_eq!(query(&mut client, "SELECT 1").await.unwrap(), [["1"]]);
}

#[tokio::test]
async fn transactions_of_sql_are_the_sessions() {
    let (_duckling, mut client) = start().await;
    update(&mut client, "CREATE TABLE t (i INTEGER)").await;
    query(&mut client, "BEGIN").await.unwrap();
    update(&mut client, "INSERT INTO t VALUES (1)").await;
    assert_eq!(number(&mut client, "SELECT count(*) FROM t").await, 1);
    assert_code(client.begin_transaction().await.map_err(status), Code::Aborted);
    update(&mut client, "ROLLBACK").await;
    assert_eq!(number(&mut client, "SELECT count(*) FROM t").await, 0);
}

#[tokio::test]
async fn savepoints_are_refused() {
    let (duckling, mut client) = start().await;
    let transaction_id = client.begin_transaction().await.unwrap();
    let mut raw = Raw::logged_in(&duckling).await;
    let request = ActionBeginSavepointRequest {
        transaction_id,
        name: "s".to_owned(),
    };
    let refused: Result<_, Status> = raw.act("BeginSavepoint", request.as_any().encode_to_vec()).await;
    assert_code(refused, Code::Unimplemented);
}
