use arrow::array::RecordBatch;
use arrow_flight::PutResult;
use duckherder_proto::Message;
use duckherder_proto::v1::IngestResponse;
use tokio::runtime::Runtime;

use super::server::{Script, Server, all};
use super::{answer, batch, summary};
use crate::blocking::Client;
use crate::{BoxError, ClientError, IngestTarget};

/// A server on a runtime of its own, as in another process.
fn serve() -> (Runtime, Server) {
    let runtime = Runtime::new().unwrap();
    let (script, events) = Script::new();
    let script = script
        .get(answer(&[batch(5), batch(6)]))
        .on_put(|mut messages| async move {
            let mut received = 0;
            while messages.message().await?.is_some() {
                received += 1;
            }
            let answer = IngestResponse {
                rows: received,
                catalog_epoch: 1,
                ..IngestResponse::default()
            };
            all(vec![PutResult {
                app_metadata: answer.encode_to_vec().into(),
            }])
        });
    let server = runtime.block_on(script.serve(events));
    (runtime, server)
}

fn batches(count: usize) -> impl Iterator<Item = Result<RecordBatch, BoxError>> {
    std::iter::repeat_with(|| Ok(batch(10))).take(count)
}

#[test]
fn the_blocking_client_does_what_the_async_one_does() {
    let (runtime, mut server) = serve();
    for owned in [true, false] {
        let client = match owned {
            true => Client::connect(server.options()),
            false => Client::connect_on(runtime.handle().clone(), server.options()),
        };
        let client = client.unwrap();
        assert_eq!(client.server().database_name, "pond");
        let mut result = client.query("FROM t").unwrap();
        assert_eq!(result.schema(), batch(0).schema());
        let rows: Vec<_> = result.by_ref().map(|batch| batch.unwrap().num_rows()).collect();
        assert_eq!(rows, [5, 6]);
        assert_eq!(result.summary(), Some(&summary(11)));
        assert_eq!(client.execute("FROM t").unwrap(), 0);

        // One message for the schema, one for each batch, one for the end.
        assert_eq!(client.ingest("t", batches(20)).unwrap(), 22);
        let session = client.open_session().unwrap();
        let schema = batch(0).schema();
        assert_eq!(
            session
                .ingest(IngestTarget::append("t"), schema, batches(0))
                .unwrap()
                .rows,
            2
        );
        let failing = [Ok(batch(1)), Err("the disk is on fire".into())];
        let error = client.ingest::<_, BoxError>("t", failing).unwrap_err();
        assert!(matches!(error, ClientError::Input(_)), "{error:?}");

        drop((session, result));
        server.log();
        drop(client);
        runtime.block_on(server.saw("CloseSession"));
    }
}

#[test]
fn inside_an_async_runtime_it_refuses_instead_of_panicking() {
    let (runtime, server) = serve();
    let client = Client::connect(server.options()).unwrap();
    runtime.block_on(async {
        assert!(matches!(client.query("FROM t"), Err(ClientError::Runtime(_))));
        assert!(matches!(
            Client::connect(server.options()),
            Err(ClientError::Runtime(_))
        ));
        drop(client);
    });
}
