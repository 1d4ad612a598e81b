//! Requests that no honest client makes: an error each, and the server goes on.

use arrow_flight::flight_service_client::FlightServiceClient;
use arrow_flight::{Action, Criteria, Empty, FlightData, FlightDescriptor, HandshakeRequest, Ticket};
use bytes::Bytes;
use duckherder_client::{Client, RemoteError};
use duckherder_proto::action;
use duckherder_proto::command::Command;
use duckherder_proto::v1::{ExecuteRequest, HelloRequest, IngestRequest, KeepAliveRequest};
use duckherder_tests::duckling::LocalDuckling;
use futures::{StreamExt, stream};
use tonic::transport::Channel;
use tonic::{Code, Status};

use crate::support::{DEADLINE, number, start, within};

async fn flight(duckling: &LocalDuckling) -> FlightServiceClient<Channel> {
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
