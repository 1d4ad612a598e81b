//! Prepared statements: parameters, batches of them, whose they are.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryArray, BooleanArray, Date32Array, Decimal128Array, DictionaryArray, Float64Array, Int32Array,
    Int64Array, IntervalMonthDayNanoArray, LargeStringArray, ListArray, NullArray, RecordBatch, StringArray,
    StructArray, Time64MicrosecondArray, TimestampMicrosecondArray, UInt8Array,
};
use arrow::datatypes::{DataType, Field, Int32Type, IntervalMonthDayNano, Schema};
use arrow_flight::IpcMessage;
use arrow_flight::sql::{
    ActionClosePreparedStatementRequest, ActionCreatePreparedStatementRequest, CommandPreparedStatementQuery,
    CommandPreparedStatementUpdate, DoPutPreparedStatementResult, DoPutUpdateResult, ProstMessageExt,
};
use bytes::Bytes;
use duckherder_proto::Message;
use futures::TryStreamExt;
use tonic::{Code, Status};

use super::support::{Raw, assert_code, number, numbers, start, sum, texts, ticket, update};

/// `ActionCreatePreparedStatementResult` as the specification has it.
#[derive(Clone, PartialEq, prost::Message)]
struct Created {
    #[prost(bytes = "bytes", tag = "1")]
    handle: Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    dataset_schema: Bytes,
    #[prost(bytes = "bytes", tag = "3")]
    parameter_schema: Bytes,
    #[prost(bool, optional, tag = "4")]
    is_update: Option<bool>,
}

impl Created {
    fn query(&self) -> CommandPreparedStatementQuery {
        CommandPreparedStatementQuery {
            prepared_statement_handle: self.handle.clone(),
        }
    }

    fn update(&self) -> CommandPreparedStatementUpdate {
        CommandPreparedStatementUpdate {
            prepared_statement_handle: self.handle.clone(),
        }
    }

    fn parameters(&self) -> Schema {
        Schema::try_from(IpcMessage(self.parameter_schema.clone())).unwrap()
    }
}

async fn create(raw: &mut Raw, sql: &str) -> Result<Created, Status> {
    let request = ActionCreatePreparedStatementRequest {
        query: sql.to_owned(),
        transaction_id: None,
    };
    let bodies = raw
        .act("CreatePreparedStatement", request.as_any().encode_to_vec())
        .await?;
    let any = arrow_flight::sql::Any::decode(&*bodies[0]).unwrap();
    assert!(any.type_url.ends_with("ActionCreatePreparedStatementResult"));
    Ok(Created::decode(&*any.value).unwrap())
}

async fn close(raw: &mut Raw, created: &Created) -> Result<Vec<Bytes>, Status> {
    let request = ActionClosePreparedStatementRequest {
        prepared_statement_handle: created.handle.clone(),
    };
    raw.act("ClosePreparedStatement", request.as_any().encode_to_vec())
        .await
}

fn row(columns: Vec<ArrayRef>) -> RecordBatch {
    let named = columns
        .into_iter()
        .enumerate()
        .map(|(index, column)| (index.to_string(), column, true));
    RecordBatch::try_from_iter_with_nullable(named).unwrap()
}

fn count(result: &arrow_flight::PutResult) -> i64 {
    DoPutUpdateResult::decode(&*result.app_metadata).unwrap().record_count
}

#[tokio::test]
async fn in_the_order_of_jdbc() {
    let (duckling, _client) = start().await;
    let mut raw = Raw::logged_in(&duckling).await;
    let created = create(&mut raw, "SELECT ?::BIGINT + 1 AS n, $2::VARCHAR AS s")
        .await
        .unwrap();
    assert_eq!(created.is_update, Some(false));
    let dataset = Schema::try_from(IpcMessage(created.dataset_schema.clone())).unwrap();
    assert_eq!(dataset.field(0).data_type(), &DataType::Int64);
    let parameters = created.parameters();
    let types: Vec<_> = parameters.fields().iter().map(|field| field.data_type()).collect();
    assert_eq!(types, [&DataType::Int64, &DataType::Utf8]);
    for n in [1, 41] {
        let values = row(vec![
            Arc::new(Int64Array::from(vec![n])),
            Arc::new(StringArray::from(vec!["x"])),
        ]);
        let bound = raw.put(&created.query(), Some(vec![values])).await.unwrap();
        let bound = DoPutPreparedStatementResult::decode(&*bound.app_metadata).unwrap();
        assert_eq!(bound.prepared_statement_handle, Some(created.handle.clone()));
        let info = raw.info(&created.query()).await.unwrap();
        assert_eq!(info.clone().try_decode_schema().unwrap(), dataset);
        assert_eq!(
            texts(&raw.get(ticket(&info)).await.unwrap()),
            [[(n + 1).to_string(), "x".to_owned()]]
        );
    }
    close(&mut raw, &created).await.unwrap();
    assert_code(raw.info(&created.query()).await, Code::InvalidArgument);
    assert_code(raw.put(&created.update(), None).await, Code::InvalidArgument);
    close(&mut raw, &created).await.unwrap();
}

#[tokio::test]
async fn with_the_client_of_arrow_flight() {
    let (_duckling, mut client) = start().await;
    let mut prepared = client.prepare("SELECT $1::BIGINT * 2".to_owned(), None).await.unwrap();
    assert_eq!(prepared.parameter_schema().unwrap().fields().len(), 1);
    prepared.set_parameters(numbers([21])).unwrap();
    let info = prepared.execute().await.unwrap();
    let stream = client.do_get(ticket(&info)).await.unwrap();
    let batches: Vec<_> = stream.try_collect().await.unwrap();
    assert_eq!(sum(&batches), 42);
    prepared.close().await.unwrap();
    update(&mut client, "CREATE TABLE t (n BIGINT)").await;
    let mut prepared = client
        .prepare("INSERT INTO t VALUES (?)".to_owned(), None)
        .await
        .unwrap();
    prepared.set_parameters(numbers([1, 2, 3])).unwrap();
    assert_eq!(prepared.execute_update().await.unwrap(), 3);
    assert_eq!(number(&mut client, "SELECT sum(n)::BIGINT FROM t").await, 6);
}

#[tokio::test]
async fn values_come_with_the_update_or_before_it() {
    let (duckling, mut client) = start().await;
    update(&mut client, "CREATE TABLE t (n BIGINT)").await;
    let mut raw = Raw::logged_in(&duckling).await;
    let created = create(&mut raw, "INSERT INTO t VALUES (?)").await.unwrap();
    assert_eq!(created.is_update, Some(true));
    assert!(created.dataset_schema.is_empty());
    let with = raw
        .put(&created.update(), Some(vec![numbers(0..3), numbers(3..5)]))
        .await
        .unwrap();
    assert_eq!(count(&with), 5);
    raw.put(&created.query(), Some(vec![numbers([7])])).await.unwrap();
    assert_eq!(count(&raw.put(&created.update(), None).await.unwrap()), 1);
    assert_eq!(number(&mut client, "SELECT sum(n)::BIGINT FROM t").await, 17);
    // No rows: nothing runs.
    let none = raw.put(&created.update(), Some(vec![numbers([])])).await.unwrap();
    assert_eq!(count(&none), 0);
    assert_eq!(number(&mut client, "SELECT count(*) FROM t").await, 6);
}

#[tokio::test]
async fn a_batch_of_updates_takes_effect_whole_or_not_at_all() {
    let (duckling, mut client) = start().await;
    update(&mut client, "CREATE TABLE t (n BIGINT CHECK (n < 3))").await;
    let mut raw = Raw::logged_in(&duckling).await;
    let created = create(&mut raw, "INSERT INTO t VALUES (?)").await.unwrap();
    let refused = raw.put(&created.update(), Some(vec![numbers(0..5)])).await;
    assert_code(refused, Code::FailedPrecondition);
    assert_eq!(number(&mut client, "SELECT count(*) FROM t").await, 0);
    assert_eq!(
        count(&raw.put(&created.update(), Some(vec![numbers(0..3)])).await.unwrap()),
        3
    );
}

#[tokio::test]
async fn a_query_yields_the_rows_of_all_its_values() {
    let (duckling, _client) = start().await;
    let mut raw = Raw::logged_in(&duckling).await;
    let created = create(&mut raw, "FROM range(?::BIGINT)").await.unwrap();
    raw.put(&created.query(), Some(vec![numbers([2, 3])])).await.unwrap();
    let rows = texts(&raw.fetch(&created.query()).await.unwrap());
    assert_eq!(rows.concat(), ["0", "1", "0", "1", "2"]);
    raw.put(&created.query(), Some(vec![numbers([])])).await.unwrap();
    assert!(texts(&raw.fetch(&created.query()).await.unwrap()).is_empty());
}

#[tokio::test]
async fn statements_on_the_query_path_run_once() {
    let (duckling, mut client) = start().await;
    update(&mut client, "CREATE TABLE t (n BIGINT)").await;
    let mut raw = Raw::logged_in(&duckling).await;
    let created = create(&mut raw, "INSERT INTO t VALUES (?)").await.unwrap();
    raw.put(&created.query(), Some(vec![numbers([1, 2])])).await.unwrap();
    let info = raw.info(&created.query()).await.unwrap();
    assert_eq!(number(&mut client, "SELECT count(*) FROM t").await, 0);
    raw.get(ticket(&info)).await.unwrap();
    assert_code(raw.get(ticket(&info)).await, Code::InvalidArgument);
    assert_eq!(number(&mut client, "SELECT count(*) FROM t").await, 2);
}

#[tokio::test]
async fn values_of_every_type() {
    let (duckling, _client) = start().await;
    let mut raw = Raw::logged_in(&duckling).await;
    let created = create(&mut raw, "SELECT typeof(c), c::VARCHAR FROM (SELECT ? AS c)")
        .await
        .unwrap();
    assert_eq!(created.parameters().field(0).data_type(), &DataType::Null);
    let interval = IntervalMonthDayNano::new(1, 2, 3_000_000_000);
    let item: ArrayRef = Arc::new(Int32Array::from(vec![1]));
    let field = Arc::new(Field::new("a", DataType::Int32, true));
    let list = ListArray::from_iter_primitive::<Int32Type, _, _>([Some(vec![Some(1), None])]);
    let cases: Vec<(ArrayRef, &str, &str)> = vec![
        (Arc::new(BooleanArray::from(vec![true])), "BOOLEAN", "true"),
        (Arc::new(UInt8Array::from(vec![255])), "UTINYINT", "255"),
        (Arc::new(Int64Array::from(vec![-1])), "BIGINT", "-1"),
        (Arc::new(Float64Array::from(vec![0.5])), "DOUBLE", "0.5"),
        (
            Arc::new(
                Decimal128Array::from(vec![12345])
                    .with_precision_and_scale(10, 2)
                    .unwrap(),
            ),
            "DECIMAL(10,2)",
            "123.45",
        ),
        (Arc::new(StringArray::from(vec!["ä\0"])), "VARCHAR", "ä\0"),
        (Arc::new(LargeStringArray::from(vec!["x"])), "VARCHAR", "x"),
        (Arc::new(BinaryArray::from(vec![&b"\xAA"[..]])), "BLOB", "\\xAA"),
        (Arc::new(Date32Array::from(vec![1])), "DATE", "1970-01-02"),
        (
            Arc::new(Time64MicrosecondArray::from(vec![1_000_000])),
            "TIME",
            "00:00:01",
        ),
        (
            Arc::new(TimestampMicrosecondArray::from(vec![0])),
            "TIMESTAMP",
            "1970-01-01 00:00:00",
        ),
        (
            Arc::new(TimestampMicrosecondArray::from(vec![0]).with_timezone("UTC")),
            "TIMESTAMP WITH TIME ZONE",
            "1970-01-01 00:00:00+00",
        ),
        (
            Arc::new(IntervalMonthDayNanoArray::from(vec![interval])),
            "INTERVAL",
            "1 month 2 days 00:00:03",
        ),
        (Arc::new(list), "INTEGER[]", "[1, NULL]"),
        (
            Arc::new(StructArray::from(vec![(field, item)])),
            "STRUCT(a INTEGER)",
            "{'a': 1}",
        ),
        (
            Arc::new(vec!["b"].into_iter().collect::<DictionaryArray<Int32Type>>()),
            "VARCHAR",
            "b",
        ),
        (Arc::new(NullArray::new(1)), "\"NULL\"", ""),
        (Arc::new(Int64Array::from(vec![None])), "BIGINT", ""),
    ];
    for (value, type_text, text) in cases {
        raw.put(&created.query(), Some(vec![row(vec![value])])).await.unwrap();
        let rows = texts(&raw.fetch(&created.query()).await.unwrap());
        assert_eq!(rows, [[type_text, text]]);
    }
}

#[tokio::test]
async fn named_parameters_come_in_the_order_of_the_schema() {
    let (duckling, _client) = start().await;
    let mut raw = Raw::logged_in(&duckling).await;
    let created = create(&mut raw, "SELECT $b::BIGINT - $a::BIGINT").await.unwrap();
    let names: Vec<_> = created
        .parameters()
        .fields()
        .iter()
        .map(|field| field.name().clone())
        .collect();
    let values = names
        .iter()
        .map(|name| Arc::new(Int64Array::from(vec![if name == "b" { 10 } else { 3 }])) as ArrayRef)
        .collect();
    raw.put(&created.query(), Some(vec![row(values)])).await.unwrap();
    assert_eq!(sum(&raw.fetch(&created.query()).await.unwrap()), 7);
}

#[tokio::test]
async fn wrong_values_are_refused() {
    let (duckling, _client) = start().await;
    let mut raw = Raw::logged_in(&duckling).await;
    let created = create(&mut raw, "SELECT ?::BIGINT").await.unwrap();
    let none_bound = assert_code(raw.info(&created.query()).await, Code::InvalidArgument);
    assert!(none_bound.contains("no values were bound"), "{none_bound}");
    assert_code(raw.put(&created.update(), None).await, Code::InvalidArgument);
    let number: ArrayRef = Arc::new(Int64Array::from(vec![1]));
    let two = row(vec![Arc::clone(&number), number]);
    let message = assert_code(raw.put(&created.query(), Some(vec![two])).await, Code::InvalidArgument);
    assert!(message.contains("1 parameters, and 2 values"), "{message}");
    let text = row(vec![Arc::new(StringArray::from(vec!["x"]))]);
    raw.put(&created.query(), Some(vec![text])).await.unwrap();
    assert_code(raw.fetch(&created.query()).await, Code::InvalidArgument);
    assert_code(create(&mut raw, "SELECT FROM").await, Code::InvalidArgument);
    // Columns of parameters' own types may differ from one row of values to the next.
    let anything = create(&mut raw, "SELECT ?").await.unwrap();
    assert!(anything.dataset_schema.is_empty());
    raw.put(&anything.query(), Some(vec![numbers([4])])).await.unwrap();
    assert_eq!(sum(&raw.fetch(&anything.query()).await.unwrap()), 4);
}

#[tokio::test]
async fn handles_are_private_to_their_session() {
    let (duckling, _client) = start().await;
    let mut mine = Raw::logged_in(&duckling).await;
    let mut other = Raw::logged_in(&duckling).await;
    let created = create(&mut mine, "SELECT 1::BIGINT").await.unwrap();
    assert_code(other.info(&created.query()).await, Code::PermissionDenied);
    assert_code(other.put(&created.update(), None).await, Code::PermissionDenied);
    assert_code(close(&mut other, &created).await, Code::PermissionDenied);
    let info = mine.info(&created.query()).await.unwrap();
    assert_code(other.get(ticket(&info)).await, Code::PermissionDenied);
    let mut guessed = created.clone();
    guessed.handle = Bytes::from([&created.handle[..8], &[0; 16]].concat());
    assert_code(mine.info(&guessed.query()).await, Code::InvalidArgument);
    assert_eq!(sum(&mine.get(ticket(&info)).await.unwrap()), 1);
}

#[tokio::test]
async fn open_prepared_statements_have_a_limit() {
    let (duckling, _client) = start().await;
    let mut raw = Raw::logged_in(&duckling).await;
    let mut all = Vec::new();
    let refused = loop {
        match create(&mut raw, "SELECT 1").await {
            Ok(created) => all.push(created),
            Err(status) => break status,
        }
        assert!(all.len() < 10_000);
    };
    assert_eq!(refused.code(), Code::ResourceExhausted);
    assert!(refused.message().contains("close some"), "{refused:?}");
    close(&mut raw, &all[0]).await.unwrap();
    create(&mut raw, "SELECT 1").await.unwrap();
}

#[tokio::test]
async fn what_is_an_update_and_what_a_query() {
    let (duckling, mut client) = start().await;
    update(&mut client, "CREATE TABLE t (n BIGINT)").await;
    let mut raw = Raw::logged_in(&duckling).await;
    for (sql, is_update) in [
        ("SELECT 1", false),
        ("WITH x AS (SELECT 1) FROM x", false),
        ("SHOW TABLES", false),
        ("DESCRIBE t", false),
        ("EXPLAIN SELECT 1", false),
        ("PRAGMA version", false),
        ("INSERT INTO t VALUES (1) RETURNING n", false),
        ("INSERT INTO t VALUES (1)", true),
        ("DELETE FROM t", true),
        ("CREATE TABLE u (i INT)", true),
        ("DROP TABLE t", true),
        ("BEGIN", true),
        ("SET threads = 2", true),
    ] {
        let created = create(&mut raw, sql).await.unwrap();
        assert_eq!(created.is_update, Some(is_update), "{sql}");
        assert_eq!(created.dataset_schema.is_empty(), is_update, "{sql}");
    }
}
