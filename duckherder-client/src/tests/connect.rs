use std::time::{Duration, Instant};

use duckherder_proto::{ExceptionType, RemoteError, v1};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tonic::codegen::http::{HeaderMap, HeaderValue};
use tonic::metadata::MetadataMap;
use tonic::{Code, Status};

use super::server::{Script, hello};
use super::soon;
use crate::{Client, ClientError, ClientOptions};

/// Connects to a peer that does `talk` on every connection.
async fn connect_to<F>(timeout: Duration, talk: impl Fn(TcpStream) -> F + Send + 'static) -> ClientError
where
    F: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            tokio::spawn(talk(socket));
        }
    });
    soon(Client::connect(
        ClientOptions::new("127.0.0.1", port).connect_timeout(timeout),
    ))
    .await
    .unwrap_err()
}

const LONG: Duration = Duration::from_secs(15);

#[tokio::test]
async fn nobody_there_is_told_quickly_and_with_advice() {
    let port = TcpListener::bind("127.0.0.1:0")
        .await
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let started = Instant::now();
    let error = Client::connect(ClientOptions::new("127.0.0.1", port))
        .await
        .unwrap_err();
    assert!(started.elapsed() < Duration::from_secs(5));
    assert!(matches!(error, ClientError::Connect { .. }), "{error:?}");
    let text = error.to_string();
    assert!(
        text.contains(&format!("127.0.0.1:{port}: Connection refused")),
        "{text}"
    );
    assert!(text.contains("is it running"), "{text}");
}

#[tokio::test]
async fn an_impossible_address_is_told() {
    for host in ["two words", "a/b:c"] {
        let error = Client::connect(ClientOptions::new(host, 1)).await.unwrap_err();
        assert!(matches!(error, ClientError::Address { .. }), "{host:?}: {error:?}");
    }
}

#[tokio::test]
async fn a_web_server_is_not_a_duckling() {
    let error = connect_to(LONG, |mut socket| async move {
        let mut request = [0; 16];
        let _ = socket.read(&mut request).await;
        let _ = socket
            .write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
            .await;
        let _ = socket.read(&mut [0; 4096]).await;
    })
    .await;
    assert!(matches!(error, ClientError::NotADuckling { .. }), "{error:?}");
}

#[tokio::test]
async fn a_peer_that_hangs_up_is_not_a_duckling() {
    let error = connect_to(LONG, |socket| async move { drop(socket) }).await;
    assert!(matches!(error, ClientError::NotADuckling { .. }), "{error:?}");
    assert_eq!(error.to_remote_error().kind, ExceptionType::Connection);
}

#[tokio::test]
async fn a_silent_peer_is_waited_for_only_so_long() {
    let error = connect_to(Duration::from_millis(300), |socket| async move {
        let _socket = socket;
        std::future::pending().await
    })
    .await;
    assert!(matches!(error, ClientError::Timeout { .. }), "{error:?}");
}

#[tokio::test]
async fn another_flight_server_is_not_a_duckling() {
    for code in [
        Code::Unimplemented,
        Code::InvalidArgument,
        Code::Unauthenticated,
        Code::Internal,
    ] {
        let (script, events) = Script::new();
        let script = script.on_action::<v1::HelloRequest>(move |_| Err(Status::new(code, "unknown action")));
        let error = script.serve(events).await.try_connect().await.unwrap_err();
        assert!(matches!(error, ClientError::NotADuckling { .. }), "{error:?}");
        assert!(error.to_string().contains("unknown action"), "{error}");
    }
}

#[tokio::test]
async fn a_duckling_may_refuse() {
    let refusal = RemoteError::new(ExceptionType::Connection, "too many sessions");
    let (script, events) = Script::new();
    let script = script.on_action::<v1::HelloRequest>({
        let refusal = refusal.clone();
        move |_| Err(refusal.clone().into())
    });
    let mut server = script.serve(events).await;
    let error = server.try_connect().await.unwrap_err();
    assert!(matches!(error, ClientError::Remote(error) if error == refusal));
    assert_eq!(server.log(), ["Hello"], "a refusal is final");
}

#[tokio::test]
async fn a_strange_hello_ends_in_an_error_and_leaves_no_session() {
    let (script, events) = Script::new();
    let answer = v1::HelloResponse {
        protocol_version: 9,
        ..hello()
    };
    let mut server = script.answers::<v1::HelloRequest>(vec![answer]).serve(events).await;
    let error = server.try_connect().await.unwrap_err();
    assert!(matches!(error, ClientError::Version { version: 9, .. }), "{error:?}");
    server.saw("CloseSession").await;

    let (script, events) = Script::new();
    let answer = v1::HelloResponse {
        session_id: "".into(),
        ..hello()
    };
    let error = script
        .answers::<v1::HelloRequest>(vec![answer])
        .serve(events)
        .await
        .try_connect()
        .await
        .unwrap_err();
    assert!(matches!(error, ClientError::Protocol { .. }), "{error:?}");
}

#[tokio::test]
async fn a_status_that_makes_tonic_panic_is_an_error() {
    let (script, events) = Script::new();
    let script = script.on_action::<v1::HelloRequest>(|_| {
        let mut headers = HeaderMap::new();
        headers.insert(
            "grpc-status-details-bin",
            HeaderValue::from_static("*** not base64 ***"),
        );
        Err(Status::with_metadata(
            Code::Internal,
            "hostile",
            MetadataMap::from_headers(headers),
        ))
    });
    let error = script.serve(events).await.try_connect().await.unwrap_err();
    assert!(
        matches!(&error, ClientError::Protocol { problem, .. } if problem.contains("base64")),
        "{error:?}"
    );
}

#[tokio::test]
async fn the_server_says_who_it_is_and_learns_who_asks() {
    let (script, events) = Script::new();
    let notes = script.events();
    let script = script.on_action::<v1::HelloRequest>(move |hello_request| {
        let _ = notes.send(format!(
            "{} / {}",
            hello_request.client_name, hello_request.duckdb_version
        ));
        super::server::all(vec![duckherder_proto::Message::encode_to_vec(&hello()).into()])
    });
    let mut server = script.serve(events).await;
    let options = server.options().client_name("test 1").duckdb_version("v2.0.0");
    let client = soon(Client::connect(options)).await.unwrap();
    server.saw("test 1 / v2.0.0").await;
    assert_eq!(client.server().address, server.address.to_string());
    assert_eq!(client.server().database_name, "pond");
    assert_eq!(client.server().protocol_version, 1);
    assert!(!format!("{client:?}").contains("secret"));
}
