//! `CommandStatementIngest`: rows into a table, whole or not at all.

use std::sync::Arc;

use arrow::array::{ArrayRef, DictionaryArray, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::Int32Type;
use arrow_flight::sql::{
    CommandStatementIngest, DoPutUpdateResult, EndTransaction, TableDefinitionOptions, TableExistsOption,
    TableNotExistOption,
};
use bytes::Bytes;
use duckherder_proto::Message;
use futures::stream;
use tonic::{Code, Status};

use super::support::{Raw, assert_code, log_in, messages, number, numbers, query, start, update};
use crate::support::{DEADLINE, within};

const CREATE: (TableNotExistOption, TableExistsOption) = (TableNotExistOption::Create, TableExistsOption::Fail);
const APPEND: (TableNotExistOption, TableExistsOption) = (TableNotExistOption::Fail, TableExistsOption::Append);
const CREATE_APPEND: (TableNotExistOption, TableExistsOption) =
    (TableNotExistOption::Create, TableExistsOption::Append);
const CREATE_REPLACE: (TableNotExistOption, TableExistsOption) =
    (TableNotExistOption::Create, TableExistsOption::Replace);
const REPLACE: (TableNotExistOption, TableExistsOption) = (TableNotExistOption::Fail, TableExistsOption::Replace);

fn into(table: &str, (not_exist, exists): (TableNotExistOption, TableExistsOption)) -> CommandStatementIngest {
    CommandStatementIngest {
        table: table.to_owned(),
        table_definition_options: Some(TableDefinitionOptions {
            if_not_exist: not_exist.into(),
            if_exists: exists.into(),
        }),
        ..CommandStatementIngest::default()
    }
}

async fn ingest(raw: &mut Raw, command: &CommandStatementIngest, batches: Vec<RecordBatch>) -> Result<i64, Status> {
    let result = raw.put(command, Some(batches)).await?;
    Ok(DoPutUpdateResult::decode(&*result.app_metadata).unwrap().record_count)
}

#[tokio::test]
async fn tables_are_made_appended_to_and_replaced() {
    let (duckling, mut client) = start().await;
    let mut raw = Raw::logged_in(&duckling).await;
    let mut go = async |how, rows: i64| ingest(&mut raw, &into("t", how), vec![numbers(0..rows)]).await;
    assert_code(go(APPEND, 1).await, Code::NotFound);
    assert_code(go(REPLACE, 1).await, Code::NotFound);
    assert_eq!(go(CREATE, 3).await.unwrap(), 3);
    assert_code(go(CREATE, 1).await, Code::NotFound);
    assert_eq!(go(APPEND, 2).await.unwrap(), 2);
    assert_eq!(number(&mut client, "SELECT count(*) FROM t").await, 5);
    assert_eq!(go(CREATE_REPLACE, 4).await.unwrap(), 4);
    assert_eq!(number(&mut client, "SELECT count(*) FROM t").await, 4);
    assert_eq!(go(REPLACE, 1).await.unwrap(), 1);
    assert_eq!(go(CREATE_APPEND, 1).await.unwrap(), 1);
    assert_eq!(number(&mut client, "SELECT count(*) FROM t").await, 2);
    assert_eq!(
        ingest(&mut raw, &into("u", CREATE_APPEND), vec![numbers([1])])
            .await
            .unwrap(),
        1
    );
    assert_eq!(
        ingest(&mut raw, &into("v", CREATE), vec![numbers([])]).await.unwrap(),
        0
    );
    assert_eq!(number(&mut client, "SELECT count(*) FROM v").await, 0);
}

#[tokio::test]
async fn a_replacement_that_fails_leaves_the_old_table() {
    let (duckling, mut client) = start().await;
    update(&mut client, "CREATE TABLE t AS SELECT 'old' AS n").await;
    let mut raw = Raw::logged_in(&duckling).await;
    let mut broken = messages(&into("t", CREATE_REPLACE), Some(vec![numbers(0..10), numbers(0..10)])).await;
    let last = broken.len() - 1;
    broken[last].data_body = broken[last].data_body.slice(0..8);
    assert_code(raw.put_messages(broken).await, Code::InvalidArgument);
    assert_eq!(query(&mut client, "FROM t").await.unwrap(), [["old"]]);
}

#[tokio::test]
async fn columns_go_where_their_names_are() {
    let (duckling, mut client) = start().await;
    update(&mut client, "CREATE TABLE t (a BIGINT, b VARCHAR, c INTEGER DEFAULT 9)").await;
    let mut raw = Raw::logged_in(&duckling).await;
    let b: ArrayRef = Arc::new(vec!["x"].into_iter().collect::<DictionaryArray<Int32Type>>());
    let a: ArrayRef = Arc::new(Int64Array::from(vec![1]));
    let batch = RecordBatch::try_from_iter([("b", b), ("A", Arc::clone(&a))]).unwrap();
    assert_eq!(ingest(&mut raw, &into("t", APPEND), vec![batch]).await.unwrap(), 1);
    assert_eq!(query(&mut client, "FROM t").await.unwrap(), [["1", "x", "9"]]);
    let unknown = RecordBatch::try_from_iter([("nothing", a)]).unwrap();
    ingest(&mut raw, &into("t", APPEND), vec![unknown]).await.unwrap_err();
    assert_eq!(number(&mut client, "SELECT count(*) FROM t").await, 1);
}

#[tokio::test]
async fn schemas_catalogs_and_temporary_tables() {
    let (duckling, mut client) = start().await;
    update(
        &mut client,
        "ATTACH ':memory:' AS other; CREATE SCHEMA other.s; CREATE SCHEMA s2",
    )
    .await;
    let mut raw = Raw::logged_in(&duckling).await;
    let placed = |catalog: Option<&str>, schema: Option<&str>| CommandStatementIngest {
        catalog: catalog.map(str::to_owned),
        schema: schema.map(str::to_owned),
        ..into("t", CREATE)
    };
    for (catalog, schema, name) in [
        (Some("other"), Some("s"), "other.s.t"),
        (Some("other"), None, "other.main.t"),
        (None, Some("s2"), "memory.s2.t"),
        (None, None, "memory.main.t"),
    ] {
        ingest(&mut raw, &placed(catalog, schema), vec![numbers([1])])
            .await
            .unwrap();
        assert_eq!(number(&mut client, &format!("SELECT count(*) FROM {name}")).await, 1);
    }
    assert_code(
        ingest(&mut raw, &placed(Some("nowhere"), None), vec![numbers([1])]).await,
        Code::NotFound,
    );
    let temporary = CommandStatementIngest {
        temporary: true,
        ..into("tmp", CREATE)
    };
    ingest(&mut raw, &temporary, vec![numbers(0..3)]).await.unwrap();
    let select = arrow_flight::sql::CommandStatementQuery {
        query: "SELECT count(*)::BIGINT FROM tmp".to_owned(),
        transaction_id: None,
    };
    assert_eq!(super::support::sum(&raw.fetch(&select).await.unwrap()), 3);
    // It is this session's alone.
    query(&mut client, "FROM tmp").await.unwrap_err();
    let placed = CommandStatementIngest {
        schema: Some("s2".to_owned()),
        ..temporary
    };
    assert_code(
        ingest(&mut raw, &placed, vec![numbers([1])]).await,
        Code::InvalidArgument,
    );
}

#[tokio::test]
async fn in_a_transaction() {
    let (duckling, mut client) = start().await;
    let mut raw = Raw::anonymous(&duckling)
        .await
        .with("authorization", format!("Bearer {}", client.token().unwrap()));
    for with_id in [true, false] {
        let transaction = client.begin_transaction().await.unwrap();
        let command = CommandStatementIngest {
            transaction_id: with_id.then(|| transaction.clone()),
            ..into("t", CREATE)
        };
        ingest(&mut raw, &command, vec![numbers(0..3)]).await.unwrap();
        let inside = client
            .execute("SELECT count(*) FROM t".to_owned(), Some(transaction.clone()))
            .await;
        inside.unwrap();
        client
            .end_transaction(transaction, EndTransaction::Rollback)
            .await
            .unwrap();
        query(&mut client, "FROM t").await.unwrap_err();
    }
    let unknown = CommandStatementIngest {
        transaction_id: Some(Bytes::from_static(b"nonsense")),
        ..into("t", CREATE)
    };
    assert_code(
        ingest(&mut raw, &unknown, vec![numbers([1])]).await,
        Code::InvalidArgument,
    );
}

#[tokio::test]
async fn an_upload_must_say_what_it_wants() {
    let (duckling, _client) = start().await;
    let mut raw = Raw::logged_in(&duckling).await;
    let unspecified = CommandStatementIngest {
        table: "t".to_owned(),
        ..CommandStatementIngest::default()
    };
    let nonsense = into("t", (TableNotExistOption::Fail, TableExistsOption::Fail));
    let half = into("t", (TableNotExistOption::Create, TableExistsOption::Unspecified));
    let mut option = into("t", CREATE);
    option.options.insert("speed".to_owned(), "high".to_owned());
    for command in [unspecified, nonsense, half, into("", CREATE), option] {
        assert_code(
            ingest(&mut raw, &command, vec![numbers([1])]).await,
            Code::InvalidArgument,
        );
    }
    // No Arrow at all.
    assert_code(raw.put(&into("t", CREATE), None).await, Code::InvalidArgument);
}

#[tokio::test]
async fn an_upload_that_breaks_off_leaves_nothing() {
    let (duckling, mut client) = start().await;
    let mut raw = Raw::logged_in(&duckling).await;
    let all = messages(&into("t", CREATE), Some(vec![numbers(0..1000)])).await;
    let (sender, receiver) = tokio::sync::mpsc::unbounded_channel();
    all.into_iter().for_each(|message| sender.send(message).unwrap());
    let stream = stream::unfold(receiver, |mut receiver| async move {
        Some((receiver.recv().await?, receiver))
    });
    let request = raw.request(stream);
    let mut service = raw.service().clone();
    let putting = tokio::spawn(async move { service.do_put(request).await.map(drop) });
    let mut watcher = log_in(&duckling).await;
    let received = "SELECT count(*) FROM duckling_history() WHERE state = 'running' AND rows_received = 1000";
    within(DEADLINE, async { while number(&mut watcher, received).await == 0 {} }).await;
    putting.abort();
    let ended = "SELECT count(*) FROM duckling_history() WHERE state = 'cancelled'";
    within(DEADLINE, async { while number(&mut watcher, ended).await == 0 {} }).await;
    drop(sender);
    query(&mut client, "FROM t").await.unwrap_err();
}

#[tokio::test]
async fn texts_with_nulls_in_many_batches() {
    let (duckling, mut client) = start().await;
    let mut raw = Raw::logged_in(&duckling).await;
    let batch = |first: i64| {
        let texts = (first..first + 5000).map(|n| (n % 3 != 0).then(|| n.to_string()));
        let column: ArrayRef = Arc::new(texts.collect::<StringArray>());
        RecordBatch::try_from_iter_with_nullable([("s", column, true)]).unwrap()
    };
    let rows = ingest(&mut raw, &into("t", CREATE), (0..10).map(|n| batch(n * 5000)).collect())
        .await
        .unwrap();
    assert_eq!(rows, 50_000);
    let sum: i64 = (0..50_000).filter(|n| n % 3 != 0).sum();
    assert_eq!(number(&mut client, "SELECT sum(s::BIGINT)::BIGINT FROM t").await, sum);
}
