//! What one message costs, at each of its stations: `cargo bench --workspace --bench micro`.

#![expect(clippy::unwrap_used, reason = "a benchmark fails by panicking")]
#![expect(missing_docs, reason = "criterion makes a public function")]

#[path = "../../duckherder-client/src/contain.rs"]
#[expect(dead_code, reason = "the client's, of which a part is measured")]
mod contain;
#[path = "../../duckherder-client/src/decode.rs"]
#[expect(
    dead_code,
    unused_imports,
    reason = "the client's, with its tests, of which a part is measured"
)]
mod decode;
#[path = "../../duckling-server/src/encode.rs"]
mod encode;
#[path = "../../duckling-server/src/message.rs"]
#[expect(
    dead_code,
    unused_imports,
    reason = "the server's, with its tests, of which a part is measured"
)]
mod message;

use std::hint::black_box;

use arrow::array::RecordBatch;
use arrow_flight::FlightData;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use duckherder_proto::command::Command;
use duckherder_proto::ipc::check_message;
use duckherder_proto::v1::{Compression, ExecuteRequest};
use duckling_server::IN_MEMORY;
use duckling_server::duckdb::{Appender, Connection, Database, DatabaseOptions};

/// Arrow data in one message, as servers send it.
const MESSAGE_BYTES: usize = 2 << 20;

/// Rows like lineitem's: numbers, decimals, dates, short texts and a longer one.
const ROWS: &str = "SELECT i AS orderkey, i % 7 AS linenumber, (i % 50)::DECIMAL(15, 2) AS quantity, \
                    (i * 37 % 100_000)::DECIMAL(15, 2) AS price, DATE '1992-01-01' + (i % 2500)::INTEGER AS shipdate, \
                    ['R', 'A', 'N'][i % 3 + 1] AS returnflag, 'DELIVER IN PERSON' AS shipinstruct, \
                    'a comment of some length, number ' || i AS comment FROM range(16_384) r(i)";

fn connect() -> Connection {
    let options = DatabaseOptions::default();
    Database::open(IN_MEMORY, &options).unwrap().connect().unwrap()
}

fn rows() -> RecordBatch {
    let (schema, batches) = connect().collect(ROWS).unwrap();
    arrow::compute::concat_batches(&schema, &batches).unwrap()
}

fn encoded(batch: &RecordBatch, compression: Compression) -> Vec<message::Message> {
    let mut encoder = encode::BatchEncoder::compressed(MESSAGE_BYTES, compression).unwrap();
    let mut messages = vec![encoder.schema(batch.schema_ref())];
    encoder
        .encode(batch, &mut |message| {
            messages.push(message);
            Ok(())
        })
        .unwrap();
    messages
}

fn wire(criterion: &mut Criterion) {
    let batch = rows();
    let mut group = criterion.benchmark_group("wire");
    group.throughput(Throughput::Bytes(batch.get_array_memory_size() as u64));
    for compression in [Compression::None, Compression::Lz4Frame, Compression::Zstd] {
        let name = compression.as_str_name();
        group.bench_function(format!("encode {name}"), |bencher| {
            bencher.iter(|| encoded(black_box(&batch), compression));
        });
        let messages: Vec<FlightData> = encoded(&batch, compression).into_iter().map(FlightData::from).collect();
        group.bench_function(format!("decode {name}"), |bencher| {
            let decoder = decode::Decoder::new(&messages[0]).unwrap();
            bencher.iter_batched(
                || messages[1..].to_vec(),
                |messages| -> Vec<_> { messages.into_iter().map(|data| decoder.batch(data).unwrap()).collect() },
                BatchSize::SmallInput,
            );
        });
        group.bench_function(format!("check {name}"), |bencher| {
            bencher.iter(|| messages.iter().for_each(|message| check_message(message).unwrap()));
        });
    }
    group.finish();
}

fn import(criterion: &mut Criterion) {
    let batch = rows();
    let mut connection = connect();
    connection
        .execute(&format!("CREATE TABLE t AS {ROWS} LIMIT 0"))
        .unwrap();
    let mut group = criterion.benchmark_group("DuckDB");
    group.throughput(Throughput::Bytes(batch.get_array_memory_size() as u64));
    group.bench_function("append", |bencher| {
        bencher.iter(|| {
            connection.execute("BEGIN").unwrap();
            let mut appender = Appender::new(&mut connection, None, "main", "t", batch.schema_ref()).unwrap();
            appender.append(&batch).unwrap();
            appender.finish().unwrap();
            connection.execute("ROLLBACK").unwrap();
        });
    });
    group.bench_function("export", |bencher| {
        connection.execute("BEGIN").unwrap();
        let mut appender = Appender::new(&mut connection, None, "main", "t", batch.schema_ref()).unwrap();
        appender.append(&batch).unwrap();
        appender.finish().unwrap();
        connection.execute("COMMIT").unwrap();
        bencher.iter(|| connection.collect("FROM t").unwrap());
    });
    group.finish();
}

fn tickets(criterion: &mut Criterion) {
    let request = ExecuteRequest {
        session_id: vec![7; 16].into(),
        statement_id: 12_345,
        sql: "SELECT * FROM accounts WHERE id = 4711".to_owned(),
        begin_transaction: false,
        history_id: vec![9; 16].into(),
        stored_types: true,
        further_streams: 3,
        ..ExecuteRequest::default()
    };
    let ticket = Command::Execute(request.clone()).encode();
    let mut group = criterion.benchmark_group("ticket");
    group.bench_function("encode", |bencher| {
        bencher.iter(|| Command::Execute(black_box(&request).clone()).encode());
    });
    group.bench_function("decode", |bencher| {
        bencher.iter(|| Command::decode(black_box(&ticket)).unwrap())
    });
    group.finish();
}

criterion_group!(benches, wire, import, tickets);
criterion_main!(benches);
