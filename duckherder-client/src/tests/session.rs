use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use duckherder_proto::v1;
use futures::stream::{self, StreamExt};

use super::server::{Script, Server, all, hello};
use super::{assert_protocol_error, assert_timeout_error, soon};
use crate::Client;

fn schema_description(name: &str) -> v1::SchemaDescription {
    v1::SchemaDescription {
        schema_name: name.to_owned(),
        ..Default::default()
    }
}

fn table(name: &str) -> v1::TableDescription {
    v1::TableDescription {
        table_name: name.to_owned(),
        ..Default::default()
    }
}

async fn serve(script: impl FnOnce(Script) -> Script) -> Server {
    let (base, events) = Script::new();
    script(base).serve(events).await
}

#[tokio::test]
async fn requests_get_their_answers() {
    let column = v1::ColumnDescription {
        name: "a".to_owned(),
        type_text: "INTEGER".to_owned(),
        ..Default::default()
    };
    let described = v1::DescribeResponse {
        columns: vec![column.clone()],
    };
    let server = serve(|script| {
        script
            .answers::<v1::DescribeRequest>(vec![described])
            .on_action::<v1::LookupTableRequest>(|request| {
                let table = (request.table_name == "ducks").then(|| table("ducks"));
                all(vec![encoded(&v1::LookupTableResponse {
                    catalog_epoch: 3,
                    table,
                })])
            })
            .answers::<v1::LookupSchemaRequest>(vec![v1::LookupSchemaResponse {
                catalog_epoch: 2,
                exists: true,
            }])
            .answers::<v1::LoadExtensionRequest>(vec![v1::LoadExtensionResponse { catalog_epoch: 9 }])
            .on_action::<v1::CancelRequest>(|request| {
                all(vec![encoded(&v1::CancelResponse {
                    found: request.statement_id == 5,
                })])
            })
    })
    .await;
    let client = server.connect().await;
    let session = soon(client.open_session()).await.unwrap();
    assert_eq!(soon(session.describe("SELECT a")).await.unwrap().columns, [column]);
    assert_eq!(soon(session.lookup_schema(&["main"])).await.unwrap(), (2, true));
    let found = soon(session.lookup_table(&[], "ducks")).await.unwrap();
    assert_eq!((found.epoch, found.table), (3, Some(table("ducks"))));
    assert_eq!(soon(session.lookup_table(&[], "geese")).await.unwrap().table, None);
    assert_eq!(soon(session.load_extension("json")).await.unwrap(), 9);
    assert!(soon(session.cancel(5)).await.unwrap());
    assert!(!soon(session.cancel(6)).await.unwrap());
    assert_eq!(soon(session.keep_alive()).await.unwrap(), 7);
}

fn encoded(message: &impl duckherder_proto::Message) -> Bytes {
    message.encode_to_vec().into()
}

#[tokio::test]
async fn settings_travel_with_the_session_and_on_their_own() {
    let settings = |zone: &str| BTreeMap::from([("TimeZone".to_owned(), zone.to_owned())]);
    let (at_hello, changed) = (settings("Asia/Tokyo"), settings("UTC"));
    let (hello_seen, seen) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Mutex::new(Vec::new())));
    let (hellos, changes) = (Arc::clone(&hello_seen), Arc::clone(&seen));
    let server = serve(|script| {
        script
            .on_action::<v1::HelloRequest>(move |request| {
                hellos.lock().unwrap().push(request.settings);
                all(vec![encoded(&hello())])
            })
            .on_action::<v1::ChangeSettingsRequest>(move |request| {
                changes.lock().unwrap().push(request.settings);
                all(vec![encoded(&v1::ChangeSettingsResponse {})])
            })
    })
    .await;
    let client = server.connect().await;
    let session = soon(client.open_session_with(at_hello.clone())).await.unwrap();
    soon(session.change_settings(changed.clone())).await.unwrap();
    assert_eq!(*hello_seen.lock().unwrap(), [BTreeMap::new(), at_hello]);
    assert_eq!(*seen.lock().unwrap(), [changed]);
}

#[tokio::test]
async fn a_long_catalog_is_merged_under_its_oldest_epoch() {
    let part = |catalog_epoch, schema: &str, name: &str| v1::ListTablesResponse {
        catalog_epoch,
        schemas: vec![schema_description(schema)],
        tables: vec![table(name)],
    };
    let parts = vec![part(5, "main", "a"), part(4, "other", "b")];
    let client = serve(|script| script.answers::<v1::ListTablesRequest>(parts))
        .await
        .connect()
        .await;
    let snapshot = soon(client.session().list_tables()).await.unwrap();
    assert_eq!(snapshot.epoch, 4);
    assert_eq!(snapshot.schemas, ["main", "other"].map(schema_description));
    assert_eq!(snapshot.tables, [table("a"), table("b")]);
}

#[tokio::test]
async fn wrong_answers_are_errors() {
    let found = v1::CancelResponse { found: true };
    for bodies in [
        vec![],
        vec![encoded(&found), encoded(&found)],
        vec![Bytes::from_static(&[0xff; 20])],
    ] {
        let server = serve(|script| {
            let cancel = bodies.clone();
            script
                .on_action::<v1::CancelRequest>(move |_| all(cancel.clone()))
                .on_action::<v1::ListTablesRequest>(move |_| all(vec![Bytes::from_static(&[0xff; 20])]))
        })
        .await;
        let client = server.connect().await;
        let error = soon(client.session().cancel(1)).await.unwrap_err();
        assert_protocol_error(&error, "Cancel");
        let error = soon(client.session().list_tables()).await.unwrap_err();
        assert_protocol_error(&error, "ListTables");
    }
}

#[tokio::test]
async fn no_answer_and_endless_answers_end_at_the_deadline() {
    let server = serve(|script| {
        script
            .on_action::<v1::CancelRequest>(|_| Ok(stream::pending().boxed()))
            .on_action::<v1::ListTablesRequest>(|_| Ok(stream::repeat_with(|| Ok(Bytes::new())).boxed()))
    })
    .await;
    let options = server.options().request_timeout(Duration::from_millis(200));
    let client = soon(Client::connect(options)).await.unwrap();
    let error = soon(client.session().cancel(1)).await.unwrap_err();
    assert_timeout_error(&error, "Cancel");
    let error = soon(client.session().list_tables()).await.unwrap_err();
    assert_timeout_error(&error, "ListTables");
}

#[tokio::test]
async fn a_session_is_closed_once_when_its_last_clone_is_dropped() {
    let mut server = serve(|script| script).await;
    let client = server.connect().await;
    let session = soon(client.open_session()).await.unwrap();
    drop(session.clone());
    assert!(!server.log().contains(&"CloseSession".to_owned()));
    drop(session);
    server.saw("CloseSession").await;

    let session = soon(client.open_session()).await.unwrap();
    soon(session.close()).await.unwrap();
    soon(session.close()).await.unwrap();
    drop(session);
    soon(client.session().keep_alive()).await.unwrap();
    assert_eq!(server.log(), ["Hello", "CloseSession", "KeepAlive"]);
}

#[tokio::test]
async fn a_session_is_kept_alive_while_it_lives_even_if_that_fails() {
    let answer = v1::HelloResponse {
        session_idle_timeout_ms: 300,
        ..hello()
    };
    let mut server = serve(|script| {
        script
            .answers::<v1::HelloRequest>(vec![answer])
            .on_action::<v1::KeepAliveRequest>(|_| Err(tonic::Status::internal("not now")))
    })
    .await;
    let client = server.connect().await;
    server.saw("KeepAlive").await;
    server.saw("KeepAlive").await;
    drop(client);
    server.saw("CloseSession").await;
}
