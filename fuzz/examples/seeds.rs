//! Writes inputs to begin with: `seeds DIRECTORY` makes one directory a target below it.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryArray, BooleanArray, Decimal128Array, DictionaryArray, FixedSizeListArray, Int32Array,
    Int32Builder, Int64Array, IntervalMonthDayNanoArray, ListArray, MapBuilder, NullArray, RecordBatch, StringArray,
    StringBuilder, StringViewArray, StructArray, Time64MicrosecondArray, UnionArray,
};
use arrow::datatypes::{DataType, Field, Int32Type, Schema, UnionFields};
use arrow_flight::encode::FlightDataEncoderBuilder;
use arrow_flight::sql::{
    ActionCreatePreparedStatementRequest, ActionEndTransactionRequest, CommandGetDbSchemas, CommandGetTables,
    CommandPreparedStatementQuery, CommandStatementIngest, CommandStatementQuery, ProstMessageExt,
    TicketStatementQuery,
};
use duckherder_fuzz::layout;
use duckherder_proto::command::Command;
use duckherder_proto::v1::{ExecuteRequest, HelloRequest, IngestRequest};
use futures::{StreamExt, stream};
use prost::Message;

fn main() -> std::io::Result<()> {
    let root = PathBuf::from(std::env::args_os().nth(1).unwrap_or_else(|| "corpus".into()));
    let streams: Vec<Vec<u8>> = columns().into_iter().map(stream_of).collect();
    for (target, inputs) in [
        ("requests", requests()),
        ("flight_sql", flight_sql()),
        ("upload", streams.clone()),
        ("answers", streams),
    ] {
        write(&root.join(target), &inputs)?;
    }
    Ok(())
}

fn write(directory: &Path, inputs: &[Vec<u8>]) -> std::io::Result<()> {
    fs::create_dir_all(directory)?;
    inputs
        .iter()
        .enumerate()
        .try_for_each(|(index, input)| fs::write(directory.join(format!("seed-{index}")), input))
}

fn requests() -> Vec<Vec<u8>> {
    let execute = ExecuteRequest {
        session_id: vec![7; 16].into(),
        statement_id: 1,
        sql: "SELECT 42".to_owned(),
        begin_transaction: true,
        history_id: vec![1; 16].into(),
        stored_types: true,
        further_streams: 3,
        ..ExecuteRequest::default()
    };
    let ingest = IngestRequest {
        session_id: vec![7; 16].into(),
        table_name: "t".to_owned(),
        mode: 2,
        ..IngestRequest::default()
    };
    let hello = HelloRequest {
        protocol_version_min: 1,
        protocol_version_max: 1,
        client_name: "fuzz".to_owned(),
        settings: [("TimeZone".to_owned(), "UTC".to_owned())].into(),
        ..HelloRequest::default()
    };
    // A frame of settings, with one of them.
    let opening = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\x06\x04\0\0\0\0\0\0\x05\0\0\x40\0";
    vec![
        opening.to_vec(),
        Command::Execute(execute).encode().to_vec(),
        Command::Ingest(ingest).encode().to_vec(),
        hello.encode_to_vec(),
    ]
}

fn flight_sql() -> Vec<Vec<u8>> {
    let query = CommandStatementQuery {
        query: "SELECT 42".to_owned(),
        transaction_id: Some(vec![1; 24].into()),
    };
    let handle = CommandPreparedStatementQuery {
        prepared_statement_handle: vec![2; 24].into(),
    };
    let ingest = CommandStatementIngest {
        table: "t".to_owned(),
        schema: Some("main".to_owned()),
        options: HashMap::from([("a".to_owned(), "b".to_owned())]),
        ..CommandStatementIngest::default()
    };
    let tables = CommandGetTables {
        catalog: Some("memory".to_owned()),
        table_types: vec!["VIEW".to_owned()],
        include_schema: true,
        ..CommandGetTables::default()
    };
    let prepare = ActionCreatePreparedStatementRequest {
        query: "SELECT ?".to_owned(),
        transaction_id: None,
    };
    let end = ActionEndTransactionRequest {
        transaction_id: vec![3; 24].into(),
        action: 1,
    };
    let ticket = TicketStatementQuery {
        statement_handle: vec![4; 24].into(),
    };
    // Headers, and the handle of a result's second endpoint.
    let plain = [
        b"Basic dXM6cA".as_slice(),
        b"Bearer 0102030405060708090a0b0c0d0e0f10",
        b"a=b; arrow_flight_session_id=\"s-0102030405060708090a0b0c0d0e0f10\"",
        b"arrow_flight_session_id=n-0102030405060708090a0b0c0d0e0f10-ffeeddccbbaa99887766554433221100",
        &[4; 25],
    ];
    let wrapped = [
        query.as_any(),
        handle.as_any(),
        ingest.as_any(),
        tables.as_any(),
        prepare.as_any(),
        end.as_any(),
        ticket.as_any(),
        CommandGetDbSchemas::default().as_any(),
    ]
    .map(|message| message.encode_to_vec());
    [wrapped.to_vec(), plain.map(<[u8]>::to_vec).to_vec()].concat()
}

/// A short column of every kind that is read in a way of its own.
fn columns() -> Vec<(Field, ArrayRef)> {
    let numbers: ArrayRef = Arc::new(Int32Array::from(vec![Some(1), None, Some(3)]));
    let texts: ArrayRef = Arc::new(StringArray::from(vec![Some("größe"), None, Some("")]));
    let mut map = MapBuilder::new(None, StringBuilder::new(), Int32Builder::new());
    for _ in 0..3 {
        map.keys().append_value("k");
        map.values().append_value(1);
        map.append(true).expect("keys and values are alike");
    }
    let members = || {
        UnionFields::from_fields(vec![
            Field::new("n", DataType::Int32, true),
            Field::new("s", DataType::Utf8, true),
        ])
    };
    let children = vec![Arc::clone(&numbers), Arc::clone(&texts)];
    let sparse = UnionArray::try_new(members(), vec![0, 1, 0].into(), None, children.clone());
    let dense = UnionArray::try_new(members(), vec![1, 1, 1].into(), Some(vec![0, 1, 2].into()), children);
    let list = ListArray::from_iter_primitive::<Int32Type, _, _>([Some(vec![Some(1), None]), None, Some(vec![])]);
    let fixed = FixedSizeListArray::from_iter_primitive::<Int32Type, _, _>([Some(vec![Some(1)]), None, None], 1);
    let rows = StructArray::from(vec![
        (Arc::new(Field::new("a", DataType::Int32, true)), Arc::clone(&numbers)),
        (Arc::new(Field::new("b", DataType::Utf8, true)), Arc::clone(&texts)),
    ]);
    let words: DictionaryArray<Int32Type> = ["a", "b", "a"].into_iter().collect();
    let decimals = Decimal128Array::from(vec![150, -1, 0])
        .with_precision_and_scale(4, 2)
        .expect("it fits");
    let long = StringViewArray::from(vec!["a text that is too long to lie in the view", "short", ""]);
    let mut columns: Vec<(Field, ArrayRef)> = [
        numbers,
        texts,
        Arc::new(map.finish()),
        Arc::new(sparse.expect("it is a union")),
        Arc::new(dense.expect("it is a union")),
        Arc::new(list),
        Arc::new(fixed),
        Arc::new(rows),
        Arc::new(words),
        Arc::new(decimals),
        Arc::new(long),
        Arc::new(BooleanArray::from(vec![Some(true), None, Some(false)])),
        Arc::new(Int64Array::from(vec![i64::MIN, 0, i64::MAX])),
        Arc::new(IntervalMonthDayNanoArray::from(vec![None, None, None])),
        Arc::new(Time64MicrosecondArray::from(vec![0, 1, 86_399_999_999])),
        Arc::new(NullArray::new(3)),
    ]
    .into_iter()
    .map(|array: ArrayRef| (Field::new("v", array.data_type().clone(), true), array))
    .collect();
    for (name, value) in [
        ("bit", &b"\x04\xF5"[..]),
        ("bignum", b"\x80\x00\x01\x2A"),
        ("hugeint", &[1; 16]),
    ] {
        let metadata = HashMap::from([
            ("ARROW:extension:name".to_owned(), "arrow.opaque".to_owned()),
            (
                "ARROW:extension:metadata".to_owned(),
                format!(r#"{{"type_name": "{name}", "vendor_name": "DuckDB"}}"#),
            ),
        ]);
        let array: ArrayRef = Arc::new(BinaryArray::from_vec(vec![value; 3]));
        columns.push((Field::new("v", DataType::Binary, true).with_metadata(metadata), array));
    }
    columns
}

fn stream_of((field, array): (Field, ArrayRef)) -> Vec<u8> {
    let schema = Arc::new(Schema::new(vec![field]));
    let batch = RecordBatch::try_new(schema, vec![array]).expect("the column fits its field");
    let encoder = FlightDataEncoderBuilder::new().build(stream::iter([Ok(batch)]));
    let messages: Vec<_> = futures::executor::block_on(encoder.map(|message| message.expect("it encodes")).collect());
    layout(&messages)
}
