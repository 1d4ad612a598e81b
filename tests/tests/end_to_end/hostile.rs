//! Requests that no honest client makes: an error each, and the server goes on.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, ArrowPrimitiveType, AsArray, BinaryArray, ListArray, PrimitiveArray, RecordBatch, StructArray,
    UInt8Array,
};
use arrow::datatypes::{DataType, SchemaRef, UInt8Type, UInt32Type};
use arrow_flight::flight_service_client::FlightServiceClient;
use arrow_flight::{Action, Criteria, Empty, FlightData, FlightDescriptor, HandshakeRequest, Ticket};
use bytes::Bytes;
use duckherder_client::{Client, ClientError, IngestTarget, QueryOptions, RemoteError};
use duckherder_proto::ExceptionType;
use duckherder_proto::action;
use duckherder_proto::command::Command;
use duckherder_proto::v1::{ExecuteRequest, HelloRequest, IngestRequest, KeepAliveRequest};
use duckherder_tests::duckling::LocalDuckling;
use fastrand::Rng;
use futures::{StreamExt, TryStreamExt, stream};
use tonic::transport::Channel;
use tonic::{Code, Status};

use crate::support::{DEADLINE, number, remote, start, within};

pub async fn flight(duckling: &LocalDuckling) -> FlightServiceClient<Channel> {
    let address = format!("http://127.0.0.1:{}", duckling.port());
    FlightServiceClient::new(Channel::from_shared(address).unwrap().connect().await.unwrap())
}

async fn get(flight: &mut FlightServiceClient<Channel>, ticket: impl Into<Bytes>) -> Status {
    let ticket = Ticket { ticket: ticket.into() };
    match flight.do_get(ticket).await {
        Err(status) => status,
        Ok(answer) => answer.into_inner().message().await.unwrap_err(),
    }
}

async fn act(flight: &mut FlightServiceClient<Channel>, action: Action) -> Status {
    match flight.do_action(action).await {
        Err(status) => status,
        Ok(answer) => answer.into_inner().message().await.unwrap_err(),
    }
}

async fn put(flight: &mut FlightServiceClient<Channel>, messages: Vec<FlightData>) -> Status {
    match flight.do_put(stream::iter(messages)).await {
        Err(status) => status,
        Ok(answer) => answer.into_inner().message().await.unwrap_err(),
    }
}

fn garbage() -> Vec<Vec<u8>> {
    let mut all = vec![
        vec![],
        vec![0],
        vec![0xFF; 100],
        b"SELECT 1".to_vec(),
        vec![0x0A; 70_000],
    ];
    // The right envelope around the wrong content.
    let mut command = Command::Execute(ExecuteRequest::default()).encode().to_vec();
    command.extend_from_slice(&[0xFF, 0xFF, 0x03]);
    all.push(command.clone());
    command.truncate(command.len() / 2);
    all.push(command);
    all
}

#[tokio::test]
async fn garbage_is_refused_and_the_server_lives() {
    let (duckling, client) = start().await;
    let mut flight = flight(&duckling).await;
    for bytes in garbage() {
        within(DEADLINE, get(&mut flight, bytes.clone())).await;
        let descriptor = FlightDescriptor::new_cmd(bytes.clone());
        let message = FlightData::new()
            .with_descriptor(descriptor.clone())
            .with_data_header(Bytes::from(bytes.clone()));
        within(DEADLINE, put(&mut flight, vec![message])).await;
        for name in [
            "",
            "duckherder.v1.Hello",
            "duckherder.v1.Cancel",
            "duckherder.v1.Fly",
            "CreatePreparedStatement",
        ] {
            let status = flight.do_action(Action::new(name, bytes.clone())).await;
            // An empty body is a message of defaults, and Hello with those asks for no version there is.
            status
                .err()
                .unwrap_or_else(|| panic!("{name} with {bytes:?} was taken"));
        }
        flight.get_flight_info(descriptor.clone()).await.unwrap_err();
        flight.get_schema(descriptor.clone()).await.unwrap_err();
        flight.poll_flight_info(descriptor).await.unwrap_err();
    }
    flight
        .list_flights(Criteria {
            expression: Bytes::from_static(b"\xFF"),
        })
        .await
        .unwrap_err();
    let handshake = HandshakeRequest {
        protocol_version: 7,
        payload: Bytes::from_static(b"user:password"),
    };
    flight.handshake(stream::iter([handshake])).await.unwrap_err();
    flight.do_exchange(stream::iter([FlightData::new()])).await.unwrap_err();
    put(&mut flight, vec![]).await;
    let actions: Vec<_> = flight
        .list_actions(Empty {})
        .await
        .unwrap()
        .into_inner()
        .collect()
        .await;
    assert!(actions.iter().all(Result::is_ok) && !actions.is_empty());
    assert_eq!(number(&client, "SELECT 1::BIGINT").await, 1);
}

#[tokio::test]
async fn another_version_is_told_what_to_do() {
    let (duckling, _client) = start().await;
    let mut flight = flight(&duckling).await;
    for (min, max, upgrade) in [(99, 100, "upgrade the server"), (0, 0, "upgrade the client")] {
        let hello = HelloRequest {
            protocol_version_min: min,
            protocol_version_max: max,
            ..HelloRequest::default()
        };
        let status = act(&mut flight, action::encode(&hello)).await;
        assert_eq!(status.code(), Code::Unavailable);
        let error = RemoteError::from_status(&status).unwrap();
        assert!(error.message.contains(upgrade), "{error}");
    }
}

#[tokio::test]
async fn sessions_cannot_be_guessed_or_left_out() {
    let (duckling, client) = start().await;
    let mut flight = flight(&duckling).await;
    for session_id in [
        Bytes::new(),
        Bytes::from_static(&[0; 16]),
        Bytes::from(vec![1; 100_000]),
    ] {
        let execute = ExecuteRequest {
            session_id: session_id.clone(),
            statement_id: 1,
            sql: "SELECT 1".to_owned(),
            ..ExecuteRequest::default()
        };
        let status = get(&mut flight, Command::Execute(execute).encode()).await;
        assert!(
            RemoteError::from_status(&status).unwrap().message.contains("session"),
            "{status:?}"
        );
        let status = act(&mut flight, action::encode(&KeepAliveRequest { session_id })).await;
        assert!(RemoteError::from_status(&status).is_some(), "{status:?}");
    }
    assert_eq!(number(&client, "SELECT 1::BIGINT").await, 1);
}

#[tokio::test]
async fn odd_sql_is_an_error() {
    let (_duckling, client) = start().await;
    let nested = format!("SELECT {}1{}", "(".repeat(5000), ")".repeat(5000));
    let long = format!("SELECT '{}", "x".repeat(3_000_000));
    for sql in [
        "",
        ";",
        "  -- nothing",
        "\0",
        "SELECT '\0'",
        "SELECT \u{FFFF}",
        &nested,
        &long,
    ] {
        within(DEADLINE, client.execute(sql)).await.unwrap_err();
    }
    let long = format!("SELECT length('{}')::BIGINT", "x".repeat(3_000_000));
    assert_eq!(number(&client, &long).await, 3_000_000);
}

#[tokio::test]
async fn uploads_that_are_not_arrow_keep_nothing() {
    let (duckling, client) = start().await;
    client.execute("CREATE TABLE t (n BIGINT, s VARCHAR)").await.unwrap();
    let mut flight = flight(&duckling).await;
    let command = || {
        Command::Ingest(IngestRequest {
            session_id: client.session().id().clone(),
            statement_id: 1000,
            table_name: "t".to_owned(),
            ..IngestRequest::default()
        })
        .encode()
    };
    for header in [&b""[..], b"\x10\0\0\0\0\0\x0A\0", &[0xFF; 64]] {
        let message = FlightData::new()
            .with_descriptor(FlightDescriptor::new_cmd(command()))
            .with_data_header(Bytes::copy_from_slice(header))
            .with_data_body(Bytes::from_static(&[0xAB; 64]));
        within(DEADLINE, put(&mut flight, vec![message])).await;
    }
    assert_eq!(within(DEADLINE, number(&client, "SELECT count(*) FROM t")).await, 0);
}

#[tokio::test]
async fn a_connection_that_speaks_no_http_harms_nobody() {
    use tokio::io::AsyncWriteExt;
    let (duckling, client) = start().await;
    for bytes in [
        &b"GET / HTTP/1.1\r\n\r\n"[..],
        b"\x16\x03\x01\x02\x00",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\xFF\xFF\xFF",
    ] {
        let mut socket = tokio::net::TcpStream::connect(("127.0.0.1", duckling.port()))
            .await
            .unwrap();
        socket.write_all(bytes).await.unwrap();
    }
    let other = Client::connect(duckling.options()).await.unwrap();
    assert_eq!(number(&other, "SELECT 1::BIGINT").await, 1);
    assert_eq!(number(&client, "SELECT 1::BIGINT").await, 1);
}

/// DuckDB 2.0.0 writes outside of its memory with a Bloom filter on the rowids of a table with deleted rows. It takes one for
/// rowids that are far apart.
#[tokio::test]
async fn joins_on_rowids_stay_inside_of_memory() {
    let (_duckling, client) = start().await;
    let run = async |sql: &str| client.execute(sql).await.unwrap();
    run("CREATE TABLE t AS SELECT range AS i FROM range(200_000)").await;
    run("DELETE FROM t WHERE i % 97 <> 0 AND i < 199_000").await;
    run("CREATE TABLE ids AS SELECT range * 97 AS id FROM range(1_000) \
         UNION ALL SELECT 4_611_686_018_427_388_000")
    .await;
    let count = "SELECT count(*) FROM t WHERE rowid IN (FROM ids)";
    // Also without the extension that takes such filters out.
    for disabled in ["", "extension", ""] {
        run(&format!("SET GLOBAL disabled_optimizers = '{disabled}'")).await;
        for _ in 0..10 {
            assert_eq!(number(&client, count).await, 1_000);
        }
    }
}

/// DuckDB 2.0.0 lets joins that become nested loops leave out columns, and they give them all. Elsewhere the optimizer that is
/// disabled here clears that; in a herd, of whose values it knows too little, it does not.
#[tokio::test]
async fn nested_loops_have_the_columns_that_they_are_to_have() {
    let (_duckling, client) = start().await;
    let run = async |sql: &str| client.execute(sql).await.unwrap();
    run("CREATE TABLE t AS SELECT [i] AS x, i::TINYINT AS k FROM range(-100, 100) r(i)").await;
    let anti = "SELECT count(*) FROM (SELECT DISTINCT x, k FROM t AS a SEMI JOIN t AS b ON a.k >= ANY (SELECT k FROM t) \
                ANTI JOIN range(2) r(i) ON a.k <= -98::TINYINT)";
    let left = "SELECT count(x) + count(y) FROM (SELECT a.x, b.x AS y FROM t AS a LEFT JOIN t AS b \
                ON a.k >= ANY (SELECT k FROM t) AND (a.k::INTEGER + b.k = 7 OR a.k::INTEGER - b.k = 9))";
    let mut expected = Vec::new();
    for disabled in ["", "statistics_propagation", "unused_columns"] {
        run(&format!(
            "SET GLOBAL disabled_optimizers = 'join_filter_pushdown,{disabled}'"
        ))
        .await;
        expected.push((number(&client, anti).await, number(&client, left).await));
    }
    assert_eq!(expected[0].0, 197);
    assert!(expected.iter().all(|found| *found == expected[0]), "{expected:?}");
}

/// Values of a list's items, changed here and there.
fn shaken(rng: &mut Rng, list: &ListArray, change: impl Fn(&mut Rng, &StructArray) -> Vec<ArrayRef>) -> ArrayRef {
    let items = list.values().as_struct();
    let columns = change(rng, items);
    let items = StructArray::new(items.fields().clone(), columns, items.nulls().cloned());
    let DataType::List(field) = list.data_type() else {
        unreachable!("it is a list")
    };
    Arc::new(ListArray::new(
        Arc::clone(field),
        list.offsets().clone(),
        Arc::new(items),
        list.nulls().cloned(),
    ))
}

/// Numbers of which one is another, or NULL.
fn other_number<T: ArrowPrimitiveType>(rng: &mut Rng, numbers: &ArrayRef, other: T::Native) -> ArrayRef {
    let numbers = numbers.as_primitive::<T>();
    let mut values: Vec<_> = numbers.iter().collect();
    if let Some(value) = rng.choice(values.iter_mut()) {
        *value = rng.bool().then_some(other);
    }
    Arc::new(PrimitiveArray::<T>::from_iter(values))
}

/// A column of VARIANT as DuckDB keeps it, with something in it that does not belong there.
fn malformed_variants(rng: &mut Rng, variants: &StructArray) -> StructArray {
    let mut parts: Vec<ArrayRef> = variants.columns().to_vec();
    let small = rng.u32(..6);
    let large = [u32::MAX, u32::MAX - 1, 1 << 31, 1 << 16, 255][rng.usize(..5)];
    let index = if rng.bool() { small } else { large };
    match rng.u32(..6) {
        0 => {
            parts[1] = shaken(rng, variants.column(1).as_list(), |rng, items| {
                vec![
                    other_number::<UInt32Type>(rng, items.column(0), index),
                    Arc::clone(items.column(1)),
                ]
            });
        }
        1 => {
            parts[1] = shaken(rng, variants.column(1).as_list(), |rng, items| {
                vec![
                    Arc::clone(items.column(0)),
                    other_number::<UInt32Type>(rng, items.column(1), index),
                ]
            });
        }
        2 => {
            let other = rng.u8(..40);
            parts[2] = shaken(rng, variants.column(2).as_list(), |rng, items| {
                vec![
                    other_number::<UInt8Type>(rng, items.column(0), other),
                    Arc::clone(items.column(1)),
                ]
            });
        }
        3 => {
            parts[2] = shaken(rng, variants.column(2).as_list(), |rng, items| {
                vec![
                    Arc::clone(items.column(0)),
                    other_number::<UInt32Type>(rng, items.column(1), index),
                ]
            });
        }
        _ => {
            let blobs = variants.column(3).as_binary::<i32>();
            let blobs = blobs.iter().map(|blob| {
                let mut blob = blob.unwrap_or_default().to_vec();
                match rng.u32(..4) {
                    0 => blob.truncate(rng.usize(..=blob.len())),
                    _ => {
                        if let Some(byte) = rng.choice(blob.iter_mut()) {
                            *byte = [0, 1, 0x7F, 0x80, 0xFF][rng.usize(..5)];
                        }
                    }
                }
                Some(blob)
            });
            parts[3] = Arc::new(blobs.collect::<BinaryArray>());
        }
    }
    StructArray::new(variants.fields().clone(), parts, variants.nulls().cloned())
}

/// What DuckDB keeps is believed by DuckDB: it is looked at before.
#[tokio::test]
async fn malformed_variants_and_unions_are_refused_and_the_server_lives() {
    let (_duckling, client) = start().await;
    client
        .execute("CREATE TABLE v (v VARIANT); CREATE TABLE u (u UNION(i INTEGER, s VARCHAR))")
        .await
        .unwrap();
    let stored = QueryOptions {
        stored_types: true,
        ..QueryOptions::default()
    };
    let query = "SELECT {'a': [1, NULL], 'x': 'two', 'y': 3.5::DECIMAL(30,2), 'b': {'a': '0101'::BIT, 'c': 12::BIGNUM}, \
                 'd': TIMETZ '12:00:00+01', 'e': 'POINT (1 2)'::GEOMETRY, 'f': '\\xAA'::BLOB}::VARIANT AS v FROM range(3)";
    let result = client.session().query_with(query, stored).await.unwrap();
    let schema = result.schema();
    let batches: Vec<RecordBatch> = result.try_collect().await.unwrap();
    let variants = batches[0].column(0).as_struct();
    let append = async |table: &str, schema: SchemaRef, column: StructArray| {
        let batch = RecordBatch::try_new(Arc::clone(&schema), vec![Arc::new(column)]).unwrap();
        let rows = stream::iter([Ok::<_, ClientError>(batch)]);
        client.session().ingest(IngestTarget::append(table), schema, rows).await
    };
    append("v", Arc::clone(&schema), variants.clone()).await.unwrap();
    let mut rng = Rng::with_seed(1);
    let (mut taken, mut refused) = (0, 0);
    for _ in 0..1_000 {
        let malformed = malformed_variants(&mut rng, variants);
        match append("v", Arc::clone(&schema), malformed).await {
            Ok(_) => taken += 1,
            Err(error) => {
                assert_eq!(remote(error).kind, ExceptionType::InvalidInput);
                refused += 1;
            }
        }
    }
    // Some changes make other values of them.
    assert!(taken > 50 && refused > 200, "{taken} taken, {refused} refused");
    // Objects with the same key twice are objects, of which some functions say that they are not.
    let mut read = 0;
    for row in 0..number(&client, "SELECT count(*) FROM v").await {
        let sql = format!("SELECT v::VARCHAR || variant_typeof(v) || v::JSON FROM v WHERE rowid = {row}");
        read += i32::from(client.execute(sql).await.is_ok());
    }
    assert!(read > 150, "{read} read");

    let query = "SELECT union_value(i := 1)::UNION(i INTEGER, s VARCHAR) AS u";
    let result = client.session().query_with(query, stored).await.unwrap();
    let schema = result.schema();
    let batches: Vec<RecordBatch> = result.try_collect().await.unwrap();
    let union = batches[0].column(0).as_struct();
    for tag in [None, Some(1), Some(2), Some(255)] {
        let tag: ArrayRef = Arc::new(UInt8Array::from_iter([tag]));
        let columns = vec![tag, Arc::clone(union.column(1)), Arc::clone(union.column(2))];
        let column = StructArray::new(union.fields().clone(), columns, None);
        let error = remote(append("u", Arc::clone(&schema), column).await.unwrap_err());
        assert_eq!(error.message, "a malformed UNION value");
    }
    assert_eq!(number(&client, "SELECT count(*) FROM u").await, 0);
}
