//! Requests that no honest client makes: an error each, and the server goes on.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, BinaryArray, Decimal128Array, FixedSizeBinaryArray, Int64Array, RecordBatch, StringArray,
    StructArray, Time32MillisecondArray, Time64MicrosecondArray,
};
use arrow::datatypes::{Field, Schema};
use arrow_flight::sql::{
    Any, CommandGetTables, CommandPreparedStatementQuery, CommandPreparedStatementUpdate, CommandStatementIngest,
    CommandStatementQuery, CommandStatementSubstraitPlan, CommandStatementUpdate, ProstMessageExt,
    TableDefinitionOptions, TableExistsOption, TableNotExistOption, TicketStatementQuery,
};
use arrow_flight::{FlightData, FlightDescriptor, Ticket};
use bytes::Bytes;
use duckherder_client::{Client, IngestTarget};
use duckherder_proto::Message;
use tonic::{Code, Status};

use super::support::{Raw, assert_code, messages, numbers, query, start, sum};
use crate::support::{DEADLINE, within};

const ACTIONS: &[&str] = &[
    "CreatePreparedStatement",
    "ClosePreparedStatement",
    "CreatePreparedSubstraitPlan",
    "BeginTransaction",
    "EndTransaction",
    "BeginSavepoint",
    "EndSavepoint",
    "CancelQuery",
    "CancelFlightInfo",
    "RenewFlightEndpoint",
];

fn garbage() -> Vec<Vec<u8>> {
    let any = |type_url: &str, value: &[u8]| {
        let any = Any {
            type_url: type_url.to_owned(),
            value: value.to_vec().into(),
        };
        any.encode_to_vec()
    };
    let ours = "type.googleapis.com/arrow.flight.protocol.sql.";
    let mut all = vec![
        vec![0xFF; 64],
        b"SELECT 1".to_vec(),
        any("", b""),
        any("type.googleapis.com/google.protobuf.Empty", b""),
        any(&format!("{ours}CommandNothing"), b""),
        any(&format!("{ours}CommandGetTables"), &[0xFF; 9]),
        any(&format!("{ours}TicketStatementQuery"), &[0xFF; 9]),
        any(&"x".repeat(1_000_000), b""),
        // What it says it is belongs elsewhere.
        any(&format!("{ours}ActionBeginTransactionResult"), b""),
        any(&format!("{ours}DoPutUpdateResult"), b""),
    ];
    let whole = CommandStatementQuery::default().as_any().encode_to_vec();
    all.push(whole[..whole.len() - 1].to_vec());
    all
}

#[tokio::test]
async fn garbage_is_refused_wherever_it_comes() {
    let (duckling, mut client) = start().await;
    let mut raw = Raw::logged_in(&duckling).await;
    for bytes in garbage() {
        let refused = |status: Status| assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
        let ticket = Ticket::new(bytes.clone());
        refused(within(DEADLINE, raw.get(ticket)).await.unwrap_err());
        let descriptor = FlightDescriptor::new_cmd(bytes.clone());
        let request = raw.request(descriptor.clone());
        refused(raw.service().get_flight_info(request).await.unwrap_err());
        let request = raw.request(descriptor.clone());
        refused(raw.service().get_schema(request).await.unwrap_err());
        let message = FlightData::new().with_descriptor(descriptor);
        refused(within(DEADLINE, raw.put_messages(vec![message])).await.unwrap_err());
        for action in ACTIONS {
            let status = raw.act(action, bytes.clone()).await.unwrap_err();
            assert!(
                matches!(status.code(), Code::InvalidArgument | Code::Unimplemented),
                "{action}: {status:?}"
            );
        }
    }
    assert_eq!(query(&mut client, "SELECT 1").await.unwrap(), [["1"]]);
}

#[tokio::test]
async fn commands_in_the_wrong_place() {
    let (duckling, _client) = start().await;
    let mut raw = Raw::logged_in(&duckling).await;
    let update = CommandStatementUpdate::default();
    assert_code(raw.info(&update).await, Code::InvalidArgument);
    assert_code(
        raw.info(&CommandStatementIngest::default()).await,
        Code::InvalidArgument,
    );
    assert_code(raw.info(&TicketStatementQuery::default()).await, Code::InvalidArgument);
    assert_code(
        raw.put(&CommandStatementQuery::default(), None).await,
        Code::InvalidArgument,
    );
    assert_code(raw.put(&CommandGetTables::default(), None).await, Code::InvalidArgument);
    let plan = CommandStatementSubstraitPlan::default();
    assert_code(raw.info(&plan).await, Code::Unimplemented);
    assert_code(raw.put(&plan, None).await, Code::Unimplemented);
    // A DoPut without a descriptor, and one without a message.
    assert_code(raw.put_messages(vec![FlightData::new()]).await, Code::InvalidArgument);
    assert_code(raw.put_messages(vec![]).await, Code::InvalidArgument);
}

#[tokio::test]
async fn handles_that_are_none() {
    let (duckling, _client) = start().await;
    let mut raw = Raw::logged_in(&duckling).await;
    for handle in [
        vec![],
        vec![1; 7],
        vec![0; 23],
        vec![0; 25],
        vec![0xFF; 24],
        vec![0; 100_000],
    ] {
        let handle = Bytes::from(handle);
        let ticket = TicketStatementQuery {
            statement_handle: handle.clone(),
        };
        let refused = |status: Status| {
            assert!(
                matches!(status.code(), Code::InvalidArgument | Code::PermissionDenied),
                "{status:?}"
            );
        };
        refused(raw.get(Ticket::new(ticket.as_any().encode_to_vec())).await.unwrap_err());
        let prepared = CommandPreparedStatementQuery {
            prepared_statement_handle: handle.clone(),
        };
        refused(raw.info(&prepared).await.unwrap_err());
        refused(raw.put(&prepared, Some(vec![numbers([1])])).await.unwrap_err());
        let update = CommandPreparedStatementUpdate {
            prepared_statement_handle: handle.clone(),
        };
        refused(raw.put(&update, None).await.unwrap_err());
    }
}

#[tokio::test]
async fn headers_that_are_none() {
    let (duckling, _client) = start().await;
    for (header, value) in [
        ("authorization", "Basic"),
        ("authorization", "Bearer"),
        ("authorization", "x y z"),
        ("authorization", ""),
    ] {
        let mut raw = Raw::anonymous(&duckling).await.with(header, value.to_owned());
        assert_code(raw.info(&CommandGetTables::default()).await, Code::Unauthenticated);
    }
    for cookie in [
        "",
        ";;;",
        "arrow_flight_session_id",
        "arrow_flight_session_id=s-",
        "=",
        "arrow_flight_session_id=x-y",
    ] {
        let mut raw = Raw::anonymous(&duckling).await.with("cookie", cookie.to_owned());
        raw.fetch(&CommandGetTables::default()).await.unwrap();
    }
}

fn ingest() -> CommandStatementIngest {
    CommandStatementIngest {
        table: "t".to_owned(),
        table_definition_options: Some(TableDefinitionOptions {
            if_not_exist: TableNotExistOption::Create.into(),
            if_exists: TableExistsOption::Append.into(),
        }),
        ..CommandStatementIngest::default()
    }
}

/// A column of one of DuckDB's own types.
fn exact(type_name: &str, column: ArrayRef) -> RecordBatch {
    let (name, metadata) = match type_name {
        "hugeint" | "time_tz" | "bit" | "bignum" => (
            "arrow.opaque",
            format!("{{\"type_name\":\"{type_name}\",\"vendor_name\":\"DuckDB\"}}"),
        ),
        other => (other, String::new()),
    };
    let metadata = HashMap::from([
        ("ARROW:extension:name".to_owned(), name.to_owned()),
        ("ARROW:extension:metadata".to_owned(), metadata),
    ]);
    let field = Field::new("v", column.data_type().clone(), true).with_metadata(metadata);
    RecordBatch::try_new(Arc::new(Schema::new(vec![field])), vec![column]).unwrap()
}

fn binary(bytes: &[u8]) -> ArrayRef {
    Arc::new(BinaryArray::from(vec![Some(bytes), None]))
}

fn fixed(bytes: &[u8]) -> ArrayRef {
    Arc::new(FixedSizeBinaryArray::try_from_iter([bytes].into_iter()).unwrap())
}

fn variant(value: &[u8]) -> ArrayRef {
    let part = |name: &str, bytes: &[u8]| {
        let field = Arc::new(Field::new(name, arrow::datatypes::DataType::Binary, false));
        let column: ArrayRef = Arc::new(BinaryArray::from(vec![bytes]));
        (field, column)
    };
    Arc::new(StructArray::from(vec![
        part("metadata", &[1, 0, 0]),
        part("value", value),
    ]))
}

/// Values that fit their storage and not their type.
fn malformed() -> Vec<RecordBatch> {
    let plain = |column: ArrayRef| RecordBatch::try_from_iter_with_nullable([("v", column, true)]).unwrap();
    let too_wide = Decimal128Array::from(vec![10_i128.pow(20)])
        .with_precision_and_scale(38, 2)
        .unwrap();
    let data = too_wide.into_data().into_builder();
    let too_wide = data
        .data_type(arrow::datatypes::DataType::Decimal128(10, 2))
        .build()
        .unwrap();
    vec![
        exact("bit", binary(b"")),
        exact("bit", binary(&[8, 0xFF])),
        exact("bit", binary(&[3, 0x00])),
        exact("bit", binary(&[0xFF])),
        exact("bignum", binary(b"")),
        exact("bignum", binary(&[0x80, 0, 9, 1])),
        exact("bignum", binary(&[0x80, 0, 0])),
        exact("bignum", binary(&[0x80, 0])),
        exact("hugeint", fixed(&[0; 8])),
        exact("arrow.uuid", fixed(&[0; 15])),
        exact("time_tz", fixed(&[0xFF; 8])),
        exact("time_tz", fixed(&[0; 16])),
        exact("arrow.json", Arc::new(StringArray::from(vec!["{\"a\""]))),
        exact("arrow.json", Arc::new(StringArray::from(vec![""]))),
        exact("arrow.parquet.variant", variant(&[])),
        exact("arrow.parquet.variant", variant(&[0b11, 3, 0])),
        plain(arrow::array::make_array(too_wide)),
        plain(Arc::new(Time64MicrosecondArray::from(vec![-1]))),
        plain(Arc::new(Time64MicrosecondArray::from(vec![86_400_000_001]))),
        plain(Arc::new(Time32MillisecondArray::from(vec![i32::MAX]))),
    ]
}

#[tokio::test]
async fn values_that_are_none_are_refused_before_duckdb_sees_them() {
    let (duckling, mut client) = start().await;
    let mut raw = Raw::logged_in(&duckling).await;
    let own = Client::connect(duckling.options()).await.unwrap();
    let session = own.open_session().await.unwrap();
    query(&mut client, "CREATE TABLE sink (v VARCHAR)").await.unwrap();
    for batch in malformed() {
        let field = batch.schema().field(0).clone();
        let message = raw.put(&ingest(), Some(vec![batch.clone()])).await.unwrap_err();
        assert_eq!(message.code(), Code::InvalidArgument, "{field:?}: {message:?}");
        assert!(message.message().contains("\"v\""), "{field:?}: {message:?}");
        // As parameters.
        let request = arrow_flight::sql::ActionCreatePreparedStatementRequest {
            query: "INSERT INTO sink SELECT ?::VARCHAR".to_owned(),
            transaction_id: None,
        };
        let created: arrow_flight::sql::ActionCreatePreparedStatementResult =
            raw.act_wrapped("CreatePreparedStatement", &request).await.unwrap();
        let update = CommandPreparedStatementUpdate {
            prepared_statement_handle: created.prepared_statement_handle,
        };
        assert_code(raw.put(&update, Some(vec![batch.clone()])).await, Code::InvalidArgument);
        // On our own link.
        let refused = own_ingest(&session, batch).await;
        assert!(
            refused.contains("\"v\"") || refused.contains("column"),
            "{field:?}: {refused}"
        );
    }
    assert_eq!(query(&mut client, "SELECT count(*) FROM sink").await.unwrap(), [["0"]]);
    query(&mut client, "FROM t").await.unwrap_err();
}

async fn own_ingest(session: &duckherder_client::Session, batch: RecordBatch) -> String {
    let schema = batch.schema();
    let batches = futures::stream::iter([Ok::<_, std::io::Error>(batch)]);
    let outcome = session.ingest(IngestTarget::create("own"), schema, batches).await;
    outcome.unwrap_err().to_string()
}

#[tokio::test]
async fn arrow_that_does_not_hold_together() {
    let (duckling, mut client) = start().await;
    let mut raw = Raw::logged_in(&duckling).await;
    let text: ArrayRef = Arc::new(StringArray::from(vec!["some text", "more text"]));
    let batch = RecordBatch::try_from_iter([("v", text)]).unwrap();
    let whole = messages(&ingest(), Some(vec![batch])).await;
    let mut broken = Vec::new();
    for position in 0..whole[1].data_body.len() {
        let mut messages = whole.clone();
        let mut body = messages[1].data_body.to_vec();
        // Offsets out of range, and bytes that are no UTF-8.
        body[position] ^= 0xF8;
        messages[1].data_body = body.into();
        broken.push(messages);
    }
    for position in (0..whole[1].data_header.len()).step_by(3) {
        let mut messages = whole.clone();
        let mut header = messages[1].data_header.to_vec();
        header[position] ^= 0xFF;
        messages[1].data_header = header.into();
        broken.push(messages);
    }
    for cut in [0, 1, 8, 63] {
        let mut messages = whole.clone();
        messages[1].data_body = messages[1].data_body.slice(0..cut);
        broken.push(messages);
    }
    let mut refused = 0;
    for messages in broken {
        // Padding may be anything: not all of these are malformed.
        match within(DEADLINE, raw.put_messages(messages)).await {
            Ok(_) => {}
            Err(status) => {
                refused += 1;
                assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
            }
        }
    }
    assert!(refused > 20, "{refused}");
    query(&mut client, "SELECT max(length(v)), count(*) FROM t")
        .await
        .unwrap();
}

#[tokio::test]
async fn parameters_have_a_bound() {
    let (duckling, _client) = start().await;
    let mut raw = Raw::logged_in(&duckling).await;
    let request = arrow_flight::sql::ActionCreatePreparedStatementRequest {
        query: "SELECT ?".to_owned(),
        transaction_id: None,
    };
    let created: arrow_flight::sql::ActionCreatePreparedStatementResult =
        raw.act_wrapped("CreatePreparedStatement", &request).await.unwrap();
    let bind = CommandPreparedStatementQuery {
        prepared_statement_handle: created.prepared_statement_handle,
    };
    let large: ArrayRef = Arc::new(Int64Array::from(vec![7; 1_500_000]));
    let large = RecordBatch::try_from_iter([("n", large)]).unwrap();
    let refused = raw.put(&bind, Some(vec![large; 25])).await;
    assert_code(refused, Code::ResourceExhausted);
    raw.put(&bind, Some(vec![numbers([3])])).await.unwrap();
    assert_eq!(sum(&raw.fetch(&bind).await.unwrap()), 3);
    // What has been fetched makes room for what comes.
    let large = format!("SELECT 1::BIGINT -- {}", "x".repeat(30_000_000));
    for _ in 0..9 {
        let statement = CommandStatementQuery {
            query: large.clone(),
            transaction_id: None,
        };
        assert_eq!(sum(&raw.fetch(&statement).await.unwrap()), 1);
    }
}

#[tokio::test]
async fn requests_that_never_go_on_hold_up_nobody() {
    let (duckling, mut client) = start().await;
    let mut open = Vec::new();
    for index in 0..300 {
        let raw = Raw::logged_in(&duckling).await;
        // A descriptor and a schema, or nothing at all; then silence.
        let begun = match index % 3 {
            0 => Vec::new(),
            1 => messages(&ingest(), Some(vec![numbers([])])).await[..1].to_vec(),
            _ => messages(&CommandStatementUpdate::default(), None).await[..0].to_vec(),
        };
        let silent = futures::StreamExt::chain(futures::stream::iter(begun), futures::stream::pending());
        let request = raw.request(silent);
        let mut service = raw.clone().service().clone();
        open.push(tokio::spawn(async move { service.do_put(request).await.map(drop) }));
    }
    assert_eq!(query(&mut client, "SELECT 1").await.unwrap(), [["1"]]);
    within(DEADLINE, duckling.stop()).await.unwrap();
    open.iter().for_each(tokio::task::JoinHandle::abort);
}
