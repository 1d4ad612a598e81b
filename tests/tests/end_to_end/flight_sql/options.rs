//! Session options.

use std::collections::HashMap;

use duckherder_proto::Message;
use tonic::Code;

use super::support::{Raw, assert_code, start, texts};
use arrow_flight::sql::CommandStatementQuery;

/// `SessionOptionValue` as the specification has it, with the kinds used here.
#[derive(Clone, PartialEq, prost::Message)]
struct Value {
    #[prost(string, optional, tag = "1")]
    text: Option<String>,
    #[prost(bool, optional, tag = "2")]
    flag: Option<bool>,
    #[prost(sfixed64, optional, tag = "3")]
    number: Option<i64>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Options {
    #[prost(map = "string, message", tag = "1")]
    options: HashMap<String, Value>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Refused {
    #[prost(int32, tag = "1")]
    why: i32,
}

#[derive(Clone, PartialEq, prost::Message)]
struct SetResult {
    #[prost(map = "string, message", tag = "1")]
    errors: HashMap<String, Refused>,
}

fn text(text: &str) -> Value {
    Value {
        text: Some(text.to_owned()),
        ..Value::default()
    }
}

fn flag(flag: bool) -> Value {
    Value {
        flag: Some(flag),
        ..Value::default()
    }
}

/// Sets options; why each that was refused was.
async fn set(raw: &mut Raw, options: &[(&str, Value)]) -> HashMap<String, i32> {
    let options = options
        .iter()
        .map(|(name, value)| ((*name).to_owned(), value.clone()))
        .collect();
    let bodies = raw
        .act("SetSessionOptions", Options { options }.encode_to_vec())
        .await
        .unwrap();
    let result = SetResult::decode(&*bodies[0]).unwrap();
    result
        .errors
        .into_iter()
        .map(|(name, refused)| (name, refused.why))
        .collect()
}

async fn get(raw: &mut Raw) -> HashMap<String, Value> {
    let bodies = raw.act("GetSessionOptions", Vec::new()).await.unwrap();
    Options::decode(&*bodies[0]).unwrap().options
}

async fn query(raw: &mut Raw, sql: &str) -> Vec<Vec<String>> {
    let command = CommandStatementQuery {
        query: sql.to_owned(),
        transaction_id: None,
    };
    texts(&raw.fetch(&command).await.unwrap())
}

#[tokio::test]
async fn the_default_catalog_and_schema() {
    let (duckling, _client) = start().await;
    let mut raw = Raw::logged_in(&duckling).await;
    let setup = "ATTACH ':memory:' AS other; CREATE SCHEMA \"a.b\"; CREATE TABLE \"a.b\".here AS SELECT 1 AS i; \
                 CREATE SCHEMA other.s; CREATE TABLE other.s.there AS SELECT 2 AS i";
    query(&mut raw, setup).await;
    assert_eq!(get(&mut raw).await["catalog"], text("memory"));
    assert!(set(&mut raw, &[("schema", text("a.b"))]).await.is_empty());
    assert_eq!(query(&mut raw, "FROM here").await, [["1"]]);
    assert!(
        set(&mut raw, &[("catalog", text("other")), ("schema", text("s"))])
            .await
            .is_empty()
    );
    assert_eq!(query(&mut raw, "FROM there").await, [["2"]]);
    let options = get(&mut raw).await;
    assert_eq!((&options["catalog"], &options["schema"]), (&text("other"), &text("s")));
    // What is not there is not taken, and changes nothing.
    let refused = set(&mut raw, &[("schema", text("nowhere")), ("catalog", text("nowhere"))]).await;
    assert_eq!(refused.len(), 2);
    assert!(refused.values().all(|why| *why == 2));
    assert_eq!(query(&mut raw, "FROM there").await, [["2"]]);
    assert!(set(&mut raw, &[("catalog", Value::default())]).await.is_empty());
    assert_eq!(get(&mut raw).await["catalog"], text("memory"));
}

#[tokio::test]
async fn settings_on_the_list_and_no_others() {
    let (duckling, _client) = start().await;
    let mut raw = Raw::logged_in(&duckling).await;
    assert_eq!(get(&mut raw).await["TimeZone"], text("UTC"));
    let refused = set(
        &mut raw,
        &[
            ("timezone", text("Asia/Tokyo")),
            ("integer_division", flag(true)),
            ("default_order", text("sideways")),
            ("memory_limit", text("1GB")),
            ("no such thing", text("x")),
            ("catalog", flag(true)),
        ],
    )
    .await;
    assert_eq!(refused.len(), 4, "{refused:?}");
    for (name, why) in [
        ("default_order", 2),
        ("memory_limit", 1),
        ("no such thing", 1),
        ("catalog", 2),
    ] {
        assert_eq!(refused[name], why, "{name}");
    }
    assert_eq!(
        query(&mut raw, "SELECT 7 / 2, current_setting('TimeZone')").await,
        [["3", "Asia/Tokyo"]]
    );
    assert!(
        set(&mut raw, &[("integer_division", Value::default())])
            .await
            .is_empty()
    );
    assert_eq!(query(&mut raw, "SELECT 7 / 2").await, [["3.5"]]);
    // They are this session's alone.
    let mut other = Raw::logged_in(&duckling).await;
    assert_eq!(query(&mut other, "SELECT current_setting('TimeZone')").await, [["UTC"]]);
}

#[tokio::test]
async fn results_with_exact_types() {
    let (duckling, _client) = start().await;
    let mut raw = Raw::logged_in(&duckling).await;
    let command = CommandStatementQuery {
        query: "SELECT (2::HUGEINT ** 126)::HUGEINT AS h, 1::VARIANT AS v".to_owned(),
        transaction_id: None,
    };
    assert_code(raw.fetch(&command).await, Code::InvalidArgument);
    assert!(set(&mut raw, &[("duckherder.lossless", flag(true))]).await.is_empty());
    assert_eq!(get(&mut raw).await["duckherder.lossless"], flag(true));
    let batches = raw.fetch(&command).await.unwrap();
    let schema = batches[0].schema();
    let extension = |index: usize| schema.field(index).metadata().get("ARROW:extension:name").cloned();
    assert_eq!(extension(0).as_deref(), Some("arrow.opaque"));
    assert_eq!(extension(1).as_deref(), Some("arrow.parquet.variant"));
    assert!(
        set(&mut raw, &[("duckherder.lossless", text("false"))])
            .await
            .is_empty()
    );
    assert_code(raw.fetch(&command).await, Code::InvalidArgument);
}

#[tokio::test]
async fn how_many_streams_a_large_result_comes_in() {
    let (duckling, _client) = start().await;
    let mut raw = Raw::logged_in(&duckling).await;
    let large = CommandStatementQuery {
        query: "FROM range(3_000_000)".to_owned(),
        transaction_id: None,
    };
    let number = |number| Value {
        number: Some(number),
        ..Value::default()
    };
    assert!(!get(&mut raw).await.contains_key("duckherder.endpoints"));
    for (value, endpoints) in [(number(1), 1), (text("16"), 16), (number(2), 2), (Value::default(), 3)] {
        let refused = set(&mut raw, &[("duckherder.endpoints", value)]).await;
        assert!(refused.is_empty(), "{refused:?}");
        assert_eq!(raw.info(&large).await.unwrap().endpoint.len(), endpoints);
    }
    for value in [number(0), number(17), number(-1), number(257), text("many"), flag(true)] {
        let refused = set(&mut raw, &[("duckherder.endpoints", value)]).await;
        assert_eq!(refused["duckherder.endpoints"], 2);
    }
}

#[tokio::test]
async fn malformed_and_too_many() {
    let (duckling, _client) = start().await;
    let mut raw = Raw::logged_in(&duckling).await;
    assert_code(raw.act("SetSessionOptions", vec![0xFF; 9]).await, Code::InvalidArgument);
    let options = (0..1000).map(|index| (index.to_string(), text("x"))).collect();
    let many = Options { options }.encode_to_vec();
    assert_code(raw.act("SetSessionOptions", many).await, Code::InvalidArgument);
}
