//! Rows that are compressed on the wire.

use arrow::array::RecordBatch;
use arrow_flight::FlightData;
use arrow_flight::flight_service_client::FlightServiceClient;
use duckherder_client::v1::Compression;
use duckherder_client::{Client, ClientError, IngestTarget};
use duckherder_proto::command::Command;
use duckherder_proto::limits::MESSAGE_BYTES_MAX;
use duckherder_proto::v1::{IngestMode, IngestRequest};
use duckherder_tests::duckling::LocalDuckling;
use futures::{TryStreamExt, stream};
use tonic::transport::Channel;

use crate::support::{number, start};

const ALL: [Compression; 3] = [Compression::None, Compression::Lz4Frame, Compression::Zstd];

/// Every kind of buffer: none, empty, of few bytes that do not get smaller, nested, of fixed and of varying length.
const VALUES: &str = "SELECT i, i % 7 = 0 AS flag, CASE WHEN i % 3 > 0 THEN 'the same text, again and again' END AS text, \
                      [i, NULL, i] AS list, {'a': i::VARCHAR, 'b': NULL::INTEGER} AS s, \
                      CASE WHEN i % 2 = 0 THEN union_value(n := i) END AS u, md5(i::VARCHAR)::BLOB AS hash, \
                      NULL AS nothing, MAP {i: i::DECIMAL(30, 2)} AS m, [i, i]::BIGINT[2] AS a, uuid() AS id, \
                      INTERVAL (i) DAY AS span, i::VARIANT AS v";

async fn connect(duckling: &LocalDuckling, compression: Compression) -> Client {
    Client::connect(duckling.options().compression(compression))
        .await
        .unwrap()
}

async fn rows(client: &Client, sql: &str) -> (Vec<RecordBatch>, u64) {
    let mut result = client.query(sql).await.unwrap();
    let mut batches = Vec::new();
    while let Some(batch) = result.try_next().await.unwrap() {
        batches.push(batch);
    }
    (batches, result.bytes_received())
}

#[tokio::test]
async fn compressed_results_are_the_same_and_smaller() {
    let (duckling, client) = start().await;
    client
        .execute(format!("CREATE TABLE t AS {VALUES} FROM range(20_000) r(i)"))
        .await
        .unwrap();
    for sql in ["FROM t ORDER BY i", "FROM t WHERE i = 7", "FROM t WHERE i < 0"] {
        let (expected, plain_bytes) = rows(&client, sql).await;
        for compression in [Compression::Lz4Frame, Compression::Zstd] {
            let (found, bytes) = rows(&connect(&duckling, compression).await, sql).await;
            assert_eq!(found, expected, "{compression:?}: {sql}");
            if plain_bytes > 1 << 20 {
                assert!(bytes * 3 < plain_bytes * 2, "{compression:?}: {bytes} of {plain_bytes}");
            }
        }
    }
}

#[tokio::test]
async fn compressed_uploads_arrive() {
    let (duckling, client) = start().await;
    client
        .execute(format!("CREATE TABLE t AS {VALUES} FROM range(20_000) r(i)"))
        .await
        .unwrap();
    for compression in ALL {
        let (batches, _) = rows(&client, "FROM t").await;
        let schema = batches[0].schema();
        let table = format!("up_{}", compression as i32);
        let taken = connect(&duckling, compression)
            .await
            .session()
            .ingest(
                IngestTarget::create(&table),
                schema,
                stream::iter(batches.into_iter().map(Ok::<_, ClientError>)),
            )
            .await
            .unwrap();
        assert_eq!(taken.rows, 20_000);
        let same = format!("SELECT count(*) FROM (FROM t EXCEPT ALL FROM {table})");
        assert_eq!(number(&client, &same).await, 0, "{compression:?}");
    }
}

#[tokio::test]
async fn a_bomb_is_refused_before_it_is_unpacked() {
    let (duckling, client) = start().await;
    client.execute("CREATE TABLE t (i BIGINT)").await.unwrap();
    let options = Compression::Zstd.write_options().unwrap();
    let numbers = arrow::array::Int64Array::from(vec![7; 10_000]);
    let batch = RecordBatch::try_from_iter([("i", std::sync::Arc::new(numbers) as _)]).unwrap();
    let request = IngestRequest {
        session_id: client.session().id().clone(),
        table_name: "t".to_owned(),
        mode: IngestMode::Append.into(),
        ..IngestRequest::default()
    };
    let descriptor = arrow_flight::FlightDescriptor::new_cmd(Command::Ingest(request).encode());
    let messages: Vec<FlightData> = arrow_flight::encode::FlightDataEncoderBuilder::new()
        .with_options(options)
        .with_flight_descriptor(Some(descriptor))
        .build(stream::iter([Ok(batch)]))
        .map_ok(|mut message| {
            let length = 80_000_i64.to_le_bytes();
            let mut body = message.data_body.to_vec();
            if let Some(at) = body.windows(8).position(|window| window == length) {
                body[at..at + 8].copy_from_slice(&(MESSAGE_BYTES_MAX as i64 * 1000).to_le_bytes());
                message.data_body = body.into();
            }
            message
        })
        .try_collect()
        .await
        .unwrap();
    let address = format!("http://127.0.0.1:{}", duckling.port());
    let channel = Channel::from_shared(address).unwrap().connect().await.unwrap();
    let status = match FlightServiceClient::new(channel).do_put(stream::iter(messages)).await {
        Err(status) => status,
        Ok(answer) => answer.into_inner().message().await.unwrap_err(),
    };
    assert!(status.message().contains("the limit, when it is unpacked"), "{status}");
    assert_eq!(number(&client, "SELECT count(*) FROM t").await, 0);
}
