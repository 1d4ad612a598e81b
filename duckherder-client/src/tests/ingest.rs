use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow_flight::{FlightData, PutResult};
use duckherder_proto::command::Command;
use duckherder_proto::v1::{IngestEnd, IngestMode, IngestResponse};
use duckherder_proto::{ExceptionType, Message, RemoteError};
use futures::channel::mpsc;
use futures::future::{self, BoxFuture};
use futures::stream::{self, BoxStream, StreamExt};
use futures::{FutureExt, SinkExt, TryStreamExt};
use tokio::sync::mpsc::UnboundedSender;
use tonic::{Status, Streaming};

use super::server::{Answers, Script, Server, all};
use super::{assert_protocol_error, batch, soon};
use crate::decode::Decoder;
use crate::{BoxError, ClientError, IngestOptions, IngestTarget};

fn kept(rows: u64) -> PutResult {
    PutResult {
        app_metadata: IngestResponse {
            rows,
            catalog_epoch: 2,
            elapsed_us: 3,
        }
        .encode_to_vec()
        .into(),
    }
}

/// Reads an upload as a server does: the `IngestEnd` is what makes it commit.
async fn read(mut messages: Streaming<FlightData>, notes: &UnboundedSender<String>) -> Result<u64, Status> {
    let first = messages.message().await?.expect("a schema");
    let decoder = Decoder::new(&first).unwrap();
    let _ = notes.send("began".to_owned());
    let mut rows = 0;
    while let Some(message) = messages.message().await? {
        if message.data_header.is_empty() {
            let end = IngestEnd::decode(&*message.app_metadata).unwrap();
            assert_eq!(end.rows, rows);
            assert!(messages.message().await?.is_none());
            return Ok(rows);
        }
        rows += decoder.batch(message).unwrap().num_rows() as u64;
    }
    Err(Status::aborted("cut off"))
}

/// A server that notes how each upload ended. It answers its headers after the upload, or (`early`) before it.
async fn serve(early: bool) -> Server {
    let (script, events) = Script::new();
    let notes = script.events();
    let script = script.on_put(move |messages| {
        let notes = notes.clone();
        let reading = async move {
            let outcome = read(messages, &notes).await;
            let _ = notes.send(if outcome.is_ok() { "commit" } else { "rollback" }.to_owned());
            Ok(kept(outcome?))
        };
        async move {
            if early {
                // On a task of its own, so that a reset response does not hide how the request ended.
                let reading = tokio::spawn(reading);
                return Ok(stream::once(async { reading.await.unwrap() }).boxed());
            }
            tokio::spawn(reading)
                .await
                .unwrap()
                .and_then(|answer| all(vec![answer]))
        }
    });
    script.serve(events).await
}

fn good(batches: Vec<RecordBatch>) -> BoxStream<'static, Result<RecordBatch, BoxError>> {
    stream::iter(batches.into_iter().map(Ok)).boxed()
}

#[tokio::test]
async fn rows_arrive_whole() {
    for early in [false, true] {
        let server = serve(early).await;
        let client = server.connect().await;
        assert_eq!(
            soon(client.ingest("t", good(vec![batch(5), batch(500_000)])))
                .await
                .unwrap(),
            500_005
        );
        assert_eq!(soon(client.ingest("t", good(vec![]))).await.unwrap(), 0);
        let target = IngestTarget::create("t");
        let answer = soon(client.session().ingest(target, batch(0).schema(), good(vec![])))
            .await
            .unwrap();
        assert_eq!(
            answer,
            IngestResponse {
                rows: 0,
                catalog_epoch: 2,
                elapsed_us: 3
            }
        );
    }
}

#[tokio::test]
async fn the_request_names_session_statement_and_table() {
    let (script, events) = Script::new();
    let (arrived, arrived_bytes) = std::sync::mpsc::channel();
    let script = script.on_put(move |mut messages| {
        let arrived = arrived.clone();
        async move {
            let first = messages.message().await?.expect("a schema");
            let Ok(Some(Command::Ingest(request))) = Command::decode(&first.flight_descriptor.unwrap().cmd) else {
                return Err(Status::invalid_argument("not an ingestion"));
            };
            assert_eq!((&*request.session_id, request.statement_id), (&b"secret"[..], 1));
            assert_eq!((&*request.schema_name, &*request.table_name), ("s", "t"));
            assert_eq!((request.mode(), request.begin_transaction), (IngestMode::Create, true));
            assert_eq!(&*request.history_id, &[7; 16]);
            let mut bytes = first.data_header.len() + first.data_body.len();
            while let Some(data) = messages.message().await? {
                bytes += data.data_header.len() + data.data_body.len();
            }
            let _ = arrived.send(bytes as u64);
            all(vec![kept(1)])
        }
    });
    let client = script.serve(events).await.connect().await;
    let options = IngestOptions {
        history_id: Some([7; 16]),
        ..IngestOptions::default()
    };
    let traffic = Arc::clone(&options.traffic);
    let target = IngestTarget {
        schema: "s".to_owned(),
        begin_transaction: true,
        ..IngestTarget::create("t")
    };
    let batches = good(vec![batch(1)]);
    soon(
        client
            .session()
            .ingest_with(target, batch(1).schema(), batches, options),
    )
    .await
    .unwrap();
    assert_eq!(traffic.sent(), (1, arrived_bytes.recv().unwrap()));
}

type Rows = mpsc::Sender<Result<RecordBatch, BoxError>>;

/// Starts an upload, and leaves it under way: the server has begun to read it.
async fn begin(server: &mut Server) -> (BoxFuture<'static, Result<u64, ClientError>>, Rows) {
    let client = server.connect().await;
    let (mut rows, batches) = mpsc::channel(0);
    let mut upload = async move { client.ingest("t", batches).await }.boxed();
    let feed = async { while rows.send(Ok(batch(1000))).await.is_ok() {} };
    tokio::select! {
        _ = &mut upload => panic!("it has not ended"),
        () = feed => panic!("it is still wanted"),
        () = server.saw("began") => {}
    }
    (upload, rows)
}

#[tokio::test]
async fn an_error_in_the_callers_rows_breaks_the_upload_off() {
    for early in [false, true] {
        let mut server = serve(early).await;
        let (upload, mut rows) = begin(&mut server).await;
        let own = RemoteError::new(ExceptionType::DivideByZero, "on this side");
        let (outcome, _) = soon(future::join(upload, rows.send(Err(own.clone().into())))).await;
        let error = outcome.unwrap_err();
        assert!(matches!(error, ClientError::Input(_)), "{error:?}");
        assert_eq!(error.to_remote_error(), own);
        assert_eq!(soon(server.ended()).await, "rollback", "early: {early}");
    }
}

#[tokio::test]
async fn a_batch_that_does_not_fit_breaks_the_upload_off() {
    let mut server = serve(false).await;
    let (upload, mut rows) = begin(&mut server).await;
    let (outcome, _) = soon(future::join(upload, rows.send(Ok(batch(5).project(&[1]).unwrap())))).await;
    assert!(matches!(outcome, Err(ClientError::Encode(_))), "{outcome:?}");
    assert_eq!(soon(server.ended()).await, "rollback");
}

#[tokio::test]
async fn dropping_the_future_breaks_the_upload_off() {
    for early in [false, true] {
        let mut server = serve(early).await;
        let (upload, _rows) = begin(&mut server).await;
        drop(upload);
        assert_eq!(soon(server.ended()).await, "rollback", "early: {early}");
    }
}

#[tokio::test]
async fn dropping_the_future_after_the_last_row_cancels_the_request() {
    let (script, events) = Script::new();
    let notes = script.events();
    let noted = script.note_drop("dropped");
    let script = script.on_put(move |messages| {
        let (notes, noted) = (notes.clone(), noted());
        async move {
            let _noted = noted;
            read(messages, &notes).await?;
            let _ = notes.send("all read".to_owned());
            std::future::pending().await
        }
    });
    let mut server = script.serve(events).await;
    let client = server.connect().await;
    let upload = client.ingest("t", good(vec![batch(1)]));
    tokio::select! {
        _ = upload => panic!("it has not ended"),
        () = server.saw("all read") => {}
    }
    server.saw("dropped").await;
}

async fn refusal(put: impl Fn() -> Answers<PutResult> + Send + Sync + 'static) -> ClientError {
    let (script, events) = Script::new();
    // The request is dropped unread.
    let client = script
        .on_put(move |_| std::future::ready(put()))
        .serve(events)
        .await
        .connect()
        .await;
    let endless = stream::repeat_with(|| Ok::<_, BoxError>(batch(10_000)));
    soon(client.ingest("t", endless)).await.unwrap_err()
}

#[tokio::test]
async fn a_server_may_refuse_before_it_has_read_everything() {
    let error = RemoteError::new(ExceptionType::Catalog, "no such table");
    let sent = error.clone();
    let found = refusal(move || Err(sent.clone().into())).await;
    assert!(
        matches!(&found, ClientError::Remote(found) if *found == error),
        "{found:?}"
    );
    let sent = error.clone();
    let found = refusal(move || Ok(stream::iter([Err(sent.clone().into())]).boxed())).await;
    assert!(
        matches!(&found, ClientError::Remote(found) if *found == error),
        "{found:?}"
    );
}

#[tokio::test]
async fn wrong_answers_are_errors() {
    for answers in [vec![], vec![kept(1), kept(1)], vec![kept(1)]] {
        let error = refusal(move || all(answers.clone())).await;
        assert_protocol_error(&error, "Ingest");
    }
    let (script, events) = Script::new();
    let script = script.on_put(|messages| async move {
        let _: Vec<_> = messages.try_collect().await?;
        all(vec![PutResult {
            app_metadata: vec![0xff; 20].into(),
        }])
    });
    let client = script.serve(events).await.connect().await;
    let error = soon(client.ingest("t", good(vec![batch(1)]))).await.unwrap_err();
    assert_protocol_error(&error, "Ingest");
}

#[tokio::test]
async fn views_and_nested_columns_arrive_as_they_were() {
    use arrow::array::{ListArray, StringViewArray, StructArray, UnionArray};
    use arrow::datatypes::{DataType, Field, Int32Type, UnionFields};
    let long = "a text too long to be inlined in a view";
    let views = StringViewArray::from(vec![Some(long), None, Some("short")]);
    let lists = ListArray::from_iter_primitive::<Int32Type, _, _>([Some(vec![Some(1), None]), None, Some(vec![])]);
    let inner: StructArray = batch(3).into();
    let member = UnionFields::try_new([0], [Field::new("n", DataType::Int64, true)]).unwrap();
    let children = vec![Arc::clone(batch(3).column(1))];
    let dense = UnionArray::try_new(member, vec![0, 0, 0].into(), Some(vec![2, 1, 0].into()), children).unwrap();
    let whole = RecordBatch::try_from_iter([
        ("views", Arc::new(views) as _),
        ("lists", Arc::new(lists) as _),
        ("structs", Arc::new(inner) as _),
        ("unions", Arc::new(dense) as _),
    ])
    .unwrap();
    let (script, events) = Script::new();
    let expected = whole.slice(1, 2);
    let script = script.on_put(move |messages| {
        let expected = expected.clone();
        async move {
            let mut messages: Vec<_> = messages.try_collect().await?;
            let decoder = Decoder::new(&messages[0]).unwrap();
            assert_eq!(decoder.batch(messages.remove(1)).unwrap(), expected);
            all(vec![kept(2)])
        }
    });
    let client = script.serve(events).await.connect().await;
    assert_eq!(
        soon(client.ingest("t", good(vec![whole.slice(1, 2)]))).await.unwrap(),
        2
    );
}
