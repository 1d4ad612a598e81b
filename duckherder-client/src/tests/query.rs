use std::sync::Arc;

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::datatypes::Schema;
use arrow_flight::FlightData;
use duckherder_proto::v1::{ResultKind, StatementSummary};
use duckherder_proto::{ExceptionType, RemoteError};
use futures::stream::{self, StreamExt};
use futures::{FutureExt, TryStreamExt};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tonic::Status;

use super::server::{Script, Server};
use super::{answer, assert_protocol_error, batch, batch_message, schema_message, soon, summary, summary_message};
use crate::{Client, ClientError, ClientOptions, QueryOptions};

async fn serve(messages: Vec<FlightData>) -> Server {
    let (script, events) = Script::new();
    script.get(messages).serve(events).await
}

/// Reads the answer `messages` to its end; the error in it, at the start or later.
async fn error_of(messages: Vec<FlightData>) -> ClientError {
    let client = serve(messages).await.connect().await;
    let mut result = match soon(client.query("FROM t")).await {
        Ok(result) => result,
        Err(error) => return error,
    };
    loop {
        match soon(result.try_next()).await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("no error, but {result:?}"),
            Err(error) => {
                assert!(soon(result.next()).await.is_none(), "an error ends the stream");
                assert!(result.summary().is_none());
                return error;
            }
        }
    }
}

#[tokio::test]
async fn a_result_arrives_whole() {
    let batches = [batch(5), batch(0), batch(1000)];
    let messages = answer(&batches);
    let bytes = messages
        .iter()
        .map(|data| data.data_header.len() + data.data_body.len());
    let bytes = bytes.sum::<usize>() as u64;
    let client = serve(messages).await.connect().await;
    let mut result = soon(client.query("FROM t")).await.unwrap();
    assert_eq!(result.schema(), batches[0].schema());
    assert!(result.summary().is_none());
    let first = soon(result.try_next()).await.unwrap().unwrap();
    assert_eq!(first, batches[0]);
    let rest: Vec<_> = soon(result.by_ref().try_collect()).await.unwrap();
    assert_eq!(rest, [batches[2].clone()], "batches without rows are left out");
    assert_eq!(result.summary(), Some(&summary(1005)));
    assert_eq!(result.rows_received(), 1005);
    assert_eq!(result.bytes_received(), bytes);
}

#[tokio::test]
async fn results_without_batches_or_columns_are_results() {
    let schema = batch(0).schema();
    let client = serve(vec![schema_message(&schema), summary_message(summary(0))])
        .await
        .connect()
        .await;
    let result = soon(client.query("FROM t")).await.unwrap();
    assert_eq!(result.schema(), schema);
    assert!(soon(result.try_collect::<Vec<_>>()).await.unwrap().is_empty());

    let options = RecordBatchOptions::new().with_row_count(Some(3));
    let bare = RecordBatch::try_new_with_options(Arc::new(Schema::empty()), vec![], &options).unwrap();
    let client = serve(answer(&[bare])).await.connect().await;
    let result = soon(client.query("FROM t")).await.unwrap();
    let batches: Vec<_> = soon(result.try_collect()).await.unwrap();
    assert_eq!(batches.iter().map(RecordBatch::num_rows).sum::<usize>(), 3);
}

#[tokio::test]
async fn statements_are_numbered_and_executing_returns_the_count() {
    let (script, events) = Script::new();
    let notes = script.events();
    let script = script.on_get(move |request| {
        let _ = notes.send(format!(
            "{} {} {}",
            request.statement_id, request.sql, request.begin_transaction
        ));
        let changed = StatementSummary {
            result_kind: ResultKind::ChangedRows.into(),
            rows_changed: Some(4),
            ..summary(1)
        };
        let count = batch(1);
        super::server::all(vec![
            schema_message(&count.schema()),
            batch_message(&count),
            summary_message(changed),
        ])
    });
    let mut server = script.serve(events).await;
    let client = server.connect().await;
    assert_eq!(soon(client.execute("DELETE")).await.unwrap(), 4);
    let options = QueryOptions {
        begin_transaction: true,
        ..QueryOptions::default()
    };
    assert_eq!(
        soon(client.session().execute_with("UPDATE", options))
            .await
            .unwrap()
            .rows_changed,
        Some(4)
    );
    assert_eq!(soon(client.query("FROM t")).await.unwrap().statement_id(), 3);
    for event in ["1 DELETE false", "2 UPDATE true", "3 FROM t false"] {
        server.saw(event).await;
    }
}

#[tokio::test]
async fn duckdb_errors_come_through_before_and_amid_rows() {
    let mut error = RemoteError::new(ExceptionType::Binder, "no column x");
    error.extra_info.insert("position".to_owned(), "7".to_owned());
    let (script, events) = Script::new();
    let script = script.on_get({
        let error = error.clone();
        move |request| {
            let status = Status::from(error.clone());
            if request.sql == "bind" {
                return Err(status);
            }
            let start = [schema_message(&batch(1).schema()), batch_message(&batch(1))];
            Ok(stream::iter(start.into_iter().map(Ok).chain([Err(status)])).boxed())
        }
    });
    let client = script.serve(events).await.connect().await;
    let found = soon(client.query("bind")).await.unwrap_err();
    assert!(matches!(found, ClientError::Remote(found) if found == error));
    let mut result = soon(client.query("run")).await.unwrap();
    assert!(soon(result.try_next()).await.unwrap().is_some());
    let found = soon(result.try_next()).await.unwrap_err();
    assert!(matches!(found, ClientError::Remote(found) if found == error));
}

#[tokio::test]
async fn short_results_are_errors() {
    let whole = answer(&[batch(5), batch(6)]);
    let without_summary = error_of(whole[..3].to_vec()).await;
    assert!(
        without_summary.to_string().contains("without its summary"),
        "{without_summary}"
    );
    let empty = error_of(vec![]).await;
    assert!(empty.to_string().contains("before its schema"), "{empty}");
    let without_batch = error_of(vec![whole[0].clone(), whole[1].clone(), whole[3].clone()]).await;
    assert!(
        without_batch.to_string().contains("says 11 rows, 5 arrived"),
        "{without_batch}"
    );
    for error in [without_summary, empty, without_batch] {
        assert_protocol_error(&error, "Execute");
        assert_eq!(error.to_remote_error().kind, ExceptionType::Io);
    }
}

#[tokio::test]
async fn nonsense_is_an_error() {
    let whole = answer(&[batch(5)]);
    let garbage = FlightData {
        data_header: vec![7; 40].into(),
        data_body: vec![7; 40].into(),
        ..Default::default()
    };
    let headless = FlightData {
        data_header: "".into(),
        ..whole[1].clone()
    };
    let bodyless = FlightData {
        data_body: "".into(),
        ..whole[1].clone()
    };
    let cut = FlightData {
        data_body: whole[1].data_body.slice(8..),
        ..whole[1].clone()
    };
    let not_a_summary = FlightData {
        app_metadata: vec![0xff; 9].into(),
        ..Default::default()
    };
    let other_batch = batch_message(&batch(1).project(&[1]).unwrap());
    for (name, messages) in [
        ("garbage first", vec![garbage.clone()]),
        ("batch first", vec![whole[1].clone()]),
        ("summary first", vec![whole[2].clone()]),
        ("garbage later", vec![whole[0].clone(), garbage]),
        ("schema twice", vec![whole[0].clone(), whole[0].clone()]),
        ("no header", vec![whole[0].clone(), headless]),
        ("no body", vec![whole[0].clone(), bodyless]),
        ("short body", vec![whole[0].clone(), cut]),
        ("batch of another schema", vec![whole[0].clone(), other_batch]),
    ] {
        let error = error_of(messages).await;
        assert!(matches!(error, ClientError::Decode { .. }), "{name}: {error:?}");
        assert_eq!(error.to_remote_error().kind, ExceptionType::Io);
    }
    for (name, messages) in [
        ("bad summary", vec![whole[0].clone(), not_a_summary]),
        ("empty message", vec![whole[0].clone(), FlightData::default()]),
        (
            "rows after the end",
            vec![whole[0].clone(), whole[1].clone(), whole[2].clone(), whole[1].clone()],
        ),
        (
            "two ends",
            vec![whole[0].clone(), whole[1].clone(), whole[2].clone(), whole[2].clone()],
        ),
    ] {
        let error = error_of(messages).await;
        assert!(matches!(error, ClientError::Protocol { .. }), "{name}: {error:?}");
    }
}

#[tokio::test]
async fn dropping_a_stream_tells_the_server() {
    let (script, events) = Script::new();
    let noted = script.note_drop("stream dropped");
    let script = script.on_get(move |_| {
        let noted = noted();
        let endless = stream::repeat_with(move || {
            let _ = &noted;
            Ok(batch_message(&batch(1000)))
        });
        Ok(stream::iter([Ok(schema_message(&batch(1).schema()))])
            .chain(endless)
            .boxed())
    });
    let mut server = script.serve(events).await;
    let client = server.connect().await;
    let mut result = soon(client.query("FROM endless")).await.unwrap();
    assert!(soon(result.try_next()).await.unwrap().is_some());
    drop(result);
    server.saw("stream dropped").await;
}

#[tokio::test]
async fn dropping_a_query_that_has_not_started_tells_the_server() {
    let (script, events) = Script::new();
    let notes = script.events();
    let noted = script.note_drop("request dropped");
    let script = script.on_get_later(move |_| {
        let (noted, notes) = (noted(), notes.clone());
        Box::pin(async move {
            let _noted = noted;
            let _ = notes.send("request arrived".to_owned());
            std::future::pending().await
        })
    });
    let mut server = script.serve(events).await;
    let client = server.connect().await;
    let mut query = client.query("FROM locked").boxed();
    assert!(futures::poll!(&mut query).is_pending());
    server.saw("request arrived").await;
    drop(query);
    server.saw("request dropped").await;
}

#[tokio::test]
async fn a_stream_keeps_its_session_open() {
    let mut server = serve(answer(&[batch(1)])).await;
    let client = server.connect().await;
    let mut result = soon(client.query("FROM t")).await.unwrap();
    drop(client);
    assert!(soon(result.try_next()).await.unwrap().is_some());
    assert_eq!(server.log(), ["Hello"]);
    drop(result);
    server.saw("CloseSession").await;
}

/// A port that leads to `server` until the sender is used.
async fn cable(server: &Server) -> (u16, oneshot::Sender<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (cut, is_cut) = oneshot::channel();
    let address = server.address;
    tokio::spawn(async move {
        let (mut near, _) = listener.accept().await.unwrap();
        let mut far = TcpStream::connect(address).await.unwrap();
        tokio::select! {
            _ = copy_bidirectional(&mut near, &mut far) => {}
            _ = is_cut => {}
        }
    });
    (port, cut)
}

#[tokio::test]
async fn a_cut_connection_is_lost_amid_rows_and_at_the_next_statement() {
    let (script, events) = Script::new();
    let script = script.on_get(|_| {
        let start = [schema_message(&batch(1).schema()), batch_message(&batch(1))];
        Ok(stream::iter(start.map(Ok)).chain(stream::pending()).boxed())
    });
    let server = script.serve(events).await;
    let (port, cut) = cable(&server).await;
    let client = soon(Client::connect(ClientOptions::new("127.0.0.1", port)))
        .await
        .unwrap();
    let mut result = soon(client.query("FROM t")).await.unwrap();
    assert!(soon(result.try_next()).await.unwrap().is_some());
    cut.send(()).unwrap();
    let error = soon(result.try_next()).await.unwrap_err();
    assert!(
        matches!(
            error,
            ClientError::Lost {
                operation: "Execute",
                ..
            }
        ),
        "{error:?}"
    );
    let error = soon(client.execute("FROM t")).await.unwrap_err();
    assert!(matches!(error, ClientError::Lost { .. }), "{error:?}");
    assert!(error.to_string().contains("refused"), "{error}");
}
