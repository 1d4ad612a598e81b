use std::collections::BTreeMap;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, StringArray, UInt64Array};
use arrow::datatypes::{DataType, Field, Int64Type, Schema};
use arrow_flight::FlightData;
use duckherder_proto::Message as _;
use duckherder_proto::v1::{ExchangeSummary, HerdDestination, ReadExchangeRequest};
use futures::StreamExt;
use proptest::prelude::*;

use super::*;
use crate::message::Message;

const ID: QueryId = [7; 16];
const SESSION: SessionId = [1; 16];
const MOMENT: Duration = Duration::from_millis(20);
const LONG: Duration = Duration::from_secs(20);

fn limits() -> Limits {
    Limits {
        exchange_wait_timeout: MOMENT,
        ..Limits::default()
    }
}

fn store(limits: &Limits) -> Arc<Exchanges> {
    Exchanges::new(limits, std::env::temp_dir())
}

/// A store without any memory: all goes to disk.
fn on_disk() -> Arc<Exchanges> {
    store(&Limits {
        exchange_memory_bytes: 0,
        ..limits()
    })
}

fn stage(number: StageId, output: OutputKind, destinations: &[(&str, u32)], buckets: &[u32]) -> HerdStage {
    HerdStage {
        stage: number,
        output: output.into(),
        destinations: destinations
            .iter()
            .map(|(worker, readers)| HerdDestination {
                worker_id: (*worker).to_owned(),
                readers: *readers,
            })
            .collect(),
        buckets: buckets.to_vec(),
        ..HerdStage::default()
    }
}

/// Rows (n, text of n, bucket).
fn rows(values: &[(i64, u64)]) -> RecordBatch {
    let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values(values.iter().map(|(n, _)| *n)));
    let texts: ArrayRef = Arc::new(StringArray::from_iter(
        values.iter().map(|(n, _)| (n % 5 != 0).then(|| format!("row {n}"))),
    ));
    let buckets: ArrayRef = Arc::new(UInt64Array::from_iter_values(values.iter().map(|(_, bucket)| *bucket)));
    RecordBatch::try_from_iter_with_nullable([("n", numbers, true), ("s", texts, true), ("bucket", buckets, true)])
        .unwrap()
}

fn plain(first: i64, count: i64) -> RecordBatch {
    let values: Vec<_> = (first..first + count).map(|n| (n, 0)).collect();
    rows(&values).project(&[0, 1]).unwrap()
}

fn numbers(batch: &RecordBatch) -> Vec<i64> {
    for row in 0..batch.num_rows() {
        let n = batch.column(0).as_primitive::<Int64Type>().value(row);
        let text = batch.column(1).as_string::<i32>();
        assert_eq!(text.is_null(row), n % 5 == 0);
        assert!(text.is_null(row) || text.value(row) == format!("row {n}"));
    }
    batch.column(0).as_primitive::<Int64Type>().values().to_vec()
}

async fn all(mut reader: LogReader) -> Result<Vec<i64>, RemoteError> {
    let mut found = Vec::new();
    while let Some(stored) = reader.next().await? {
        found.extend(numbers(&stored.batch()?));
    }
    Ok(found)
}

fn write(part: &Part, stage: StageId, batches: &[RecordBatch]) -> Result<Written, RemoteError> {
    let mut writer = part.outputs.write(stage, &batches[0].schema(), 1 << 20)?;
    for batch in batches {
        writer.batch(batch.clone())?;
    }
    writer.finish()
}

fn is_empty(store: &Exchanges) -> bool {
    let holdings = store.holdings();
    let taken = holdings.taken;
    holdings.queries == 0 && taken.memory_bytes == 0 && taken.disk_bytes == 0
}

#[tokio::test]
async fn rows_go_to_the_destination_of_their_bucket_in_order() {
    for store in [store(&limits()), on_disk()] {
        let stages = [stage(1, OutputKind::Hash, &[("a", 1), ("b", 1), ("c", 1)], &[0, 1, 0])];
        let part = store.begin(ID, SESSION, "a", &stages).unwrap();
        let batches = [
            rows(&[(1, 0), (2, 1), (3, 2), (4, 1)]),
            rows(&[(5, 1), (6, 0)]),
            rows(&[(7, 2), (8, 2)]),
        ];
        let written = write(&part, 1, &batches).unwrap();
        assert_eq!(
            (
                written.rows,
                written.edges[0].rows,
                written.edges[1].rows,
                written.edges[2].rows
            ),
            (8, 5, 3, 0)
        );
        let read = async |worker| all(store.open(ID, 1, worker, 0).await.unwrap()).await.unwrap();
        assert_eq!(read("a").await, [1, 3, 6, 7, 8]);
        assert_eq!(read("b").await, [2, 4, 5]);
        assert_eq!(read("c").await, [0; 0]);
        part.outputs.drained(LONG).await.unwrap();
        drop(part);
        assert!(is_empty(&store));
    }
}

#[tokio::test]
async fn a_broadcast_is_kept_once_and_read_by_all() {
    let store = store(&limits());
    let stages = [stage(4, OutputKind::Broadcast, &[("a", 2), ("b", 1)], &[])];
    let part = store.begin(ID, SESSION, "x", &stages).unwrap();
    write(&part, 4, &[plain(0, 100)]).unwrap();
    let kept = store.holdings().taken.memory_bytes;
    assert!(kept > 0 && kept < 2 * plain(0, 100).get_array_memory_size() as u64);
    for (worker, reader) in [("a", 0), ("a", 1), ("b", 0)] {
        assert!(store.holdings().taken.memory_bytes > 0);
        let found = all(store.open(ID, 4, worker, reader).await.unwrap()).await.unwrap();
        assert_eq!(found, (0..100).collect::<Vec<_>>());
    }
    assert_eq!(store.holdings().taken.memory_bytes, 0, "the last reader frees it");
    part.outputs.drained(LONG).await.unwrap();
}

#[tokio::test]
async fn rows_come_while_they_are_made_and_what_all_have_read_is_gone() {
    let store = store(&limits());
    let part = store
        .begin(ID, SESSION, "a", &[stage(1, OutputKind::Forward, &[("a", 1)], &[])])
        .unwrap();
    let mut reader = store.open(ID, 1, "a", 0).await.unwrap();
    let schema = plain(0, 1).schema();
    let mut writer = part.outputs.write(1, &schema, 1 << 20).unwrap();
    assert_eq!(reader.schema().await.unwrap(), schema);
    let large = plain(0, 64 * 1024);
    writer.batch(large.clone()).unwrap();
    let first = reader.next().await.unwrap().unwrap();
    assert_eq!(first.batch().unwrap(), large);
    assert!(store.holdings().taken.memory_bytes > 0, "it is still held here");
    drop(first);
    assert_eq!(store.holdings().taken.memory_bytes, 0);
    let waiting = tokio::spawn(async move { reader.next().await.map(|stored| stored.is_none()) });
    tokio::task::yield_now().await;
    writer.finish().unwrap();
    assert!(waiting.await.unwrap().unwrap());
}

#[tokio::test]
async fn memory_stays_below_its_bound_and_the_rest_is_on_disk() {
    let one = plain(0, 64 * 1024).get_array_memory_size() as u64;
    let store = store(&Limits {
        exchange_memory_bytes: 2 * one + one / 2,
        ..limits()
    });
    let part = store
        .begin(ID, SESSION, "a", &[stage(1, OutputKind::Forward, &[("a", 1)], &[])])
        .unwrap();
    let batches: Vec<_> = (0..6).map(|n| plain(n * 64 * 1024, 64 * 1024)).collect();
    let written = write(&part, 1, &batches).unwrap();
    let taken = store.holdings().taken;
    assert!(taken.memory_bytes_most <= 2 * one + one / 2);
    assert!(written.spilled_bytes > 2 * one, "{written:?}");
    assert_eq!(taken.disk_bytes, written.spilled_bytes);
    let found = all(store.open(ID, 1, "a", 0).await.unwrap()).await.unwrap();
    assert_eq!(found, (0..6 * 64 * 1024).collect::<Vec<_>>());
    drop(part);
    assert!(is_empty(&store));
}

#[tokio::test]
async fn disk_has_a_bound_too() {
    let store = store(&Limits {
        exchange_memory_bytes: 0,
        exchange_disk_bytes: 1000,
        ..limits()
    });
    let part = store
        .begin(ID, SESSION, "a", &[stage(1, OutputKind::Forward, &[("a", 1)], &[])])
        .unwrap();
    let error = write(&part, 1, &[plain(0, 1000)]).unwrap_err();
    assert_eq!(error.kind, ExceptionType::OutOfMemory);
}

#[tokio::test]
async fn a_directory_that_is_not_there_is_an_error() {
    let limits = Limits {
        exchange_memory_bytes: 0,
        ..limits()
    };
    let store = Exchanges::new(&limits, "/no/such/directory".into());
    let part = store
        .begin(ID, SESSION, "a", &[stage(1, OutputKind::Forward, &[("a", 1)], &[])])
        .unwrap();
    let error = write(&part, 1, &[plain(0, 10)]).unwrap_err();
    assert_eq!(error.kind, ExceptionType::Io);
    assert!(error.message.contains("/no/such/directory"), "{error}");
}

#[tokio::test]
async fn a_failure_reaches_readers_at_once_and_those_who_come_late() {
    let store = store(&limits());
    let part = store
        .begin(ID, SESSION, "a", &[stage(1, OutputKind::Forward, &[("a", 2)], &[])])
        .unwrap();
    let reader = store.open(ID, 1, "a", 0).await.unwrap();
    let waiting = tokio::spawn(all(reader));
    tokio::task::yield_now().await;
    let why = RemoteError::new(ExceptionType::DivideByZero, "why");
    part.outputs.fail(&why);
    assert_eq!(waiting.await.unwrap().unwrap_err(), why);
    assert_eq!(all(store.open(ID, 1, "a", 1).await.unwrap()).await.unwrap_err(), why);
    assert_eq!(part.outputs.drained(LONG).await.unwrap_err(), why);
    drop(part);
    assert_eq!(store.open(ID, 1, "a", 1).await.err().unwrap(), why);
}

#[tokio::test]
async fn a_reader_waits_for_its_query_and_not_forever() {
    let unknown = store(&limits());
    let error = unknown.open(ID, 1, "a", 0).await.err().unwrap();
    assert_eq!(error.kind, ExceptionType::Connection);

    let store = store(&Limits::default());
    let waiting = tokio::spawn({
        let store = Arc::clone(&store);
        async move { store.open(ID, 1, "a", 0).await.map(|_| ()) }
    });
    tokio::task::yield_now().await;
    let _part = store
        .begin(ID, SESSION, "a", &[stage(1, OutputKind::Forward, &[("a", 1)], &[])])
        .unwrap();
    waiting.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_released_query_is_over_for_all() {
    let store = on_disk();
    let stages = [stage(1, OutputKind::Forward, &[("a", 1)], &[])];
    let part = store.begin(ID, SESSION, "a", &stages).unwrap();
    let (stop, stopped) = std::sync::mpsc::channel();
    part.outputs.stop_with(move || stop.send(()).unwrap());
    write(&part, 1, &[plain(0, 10)]).unwrap();
    let reader = store.open(ID, 1, "a", 0).await.unwrap();
    assert!(store.release(ID));
    stopped.recv().unwrap();
    assert!(all(reader).await.is_err());
    assert!(is_empty(&store));
    assert!(!store.release(ID));
    assert!(store.begin(ID, SESSION, "a", &stages).is_err(), "it comes too late");
    drop(part);
    // One that was released before it came.
    assert!(!store.release([8; 16]));
    assert!(store.begin([8; 16], SESSION, "a", &stages).is_err());
}

#[tokio::test]
async fn a_session_takes_its_queries_along() {
    let store = store(&limits());
    let stages = [stage(1, OutputKind::Forward, &[("a", 1)], &[])];
    let part = store.begin(ID, SESSION, "a", &stages).unwrap();
    let other = store.begin([8; 16], [2; 16], "a", &stages).unwrap();
    store.release_session(&SESSION);
    assert!(part.outputs.failure().is_some() && other.outputs.failure().is_none());
}

#[tokio::test]
async fn what_nobody_reads_goes_after_a_while() {
    let store = store(&limits());
    let stages = [stage(1, OutputKind::Forward, &[("a", 1)], &[])];
    let part = store.begin(ID, SESSION, "a", &stages).unwrap();
    write(&part, 1, &[plain(0, 10)]).unwrap();
    assert_eq!(part.outputs.drained(MOMENT).await.unwrap_err().kind, ExceptionType::Io);
    assert_eq!(store.holdings().taken.memory_bytes, 0);
}

#[tokio::test]
async fn an_exchange_that_is_not_read_keeps_nothing() {
    let store = store(&limits());
    let stages = [stage(1, OutputKind::Forward, &[("a", 0)], &[])];
    let part = store.begin(ID, SESSION, "a", &stages).unwrap();
    assert_eq!(write(&part, 1, &[plain(0, 10)]).unwrap().rows, 10);
    assert_eq!(store.holdings().taken.memory_bytes, 0);
    part.outputs.drained(LONG).await.unwrap();
}

#[tokio::test]
async fn a_reader_that_wants_no_more_frees_the_rest() {
    let store = store(&limits());
    let stages = [stage(1, OutputKind::Forward, &[("a", 1)], &[])];
    let part = store.begin(ID, SESSION, "a", &stages).unwrap();
    write(&part, 1, &[plain(0, 64 * 1024), plain(0, 64 * 1024)]).unwrap();
    drop(store.open(ID, 1, "a", 0).await.unwrap());
    part.outputs.drained(LONG).await.unwrap();
    assert_eq!(store.holdings().taken.memory_bytes, 0);
}

#[tokio::test]
async fn requests_that_make_no_sense_are_refused() {
    let store = store(&limits());
    let begin = |stages: &[HerdStage]| store.begin(ID, SESSION, "a", stages).map(|_| ()).unwrap_err().kind;
    let wrong: [&[HerdStage]; 9] = [
        &[stage(1, OutputKind::Unspecified, &[], &[])],
        &[stage(1, OutputKind::Gather, &[("a", 1)], &[])],
        &[stage(1, OutputKind::Forward, &[("b", 1)], &[])],
        &[stage(1, OutputKind::Forward, &[], &[])],
        &[stage(1, OutputKind::Hash, &[("a", 1)], &[])],
        &[stage(1, OutputKind::Hash, &[("a", 1)], &[1])],
        &[stage(1, OutputKind::Hash, &[], &[0])],
        &[stage(1, OutputKind::Broadcast, &[("a", 1), ("a", 1)], &[])],
        &[
            stage(1, OutputKind::Gather, &[], &[]),
            stage(1, OutputKind::Gather, &[], &[]),
        ],
    ];
    for stages in wrong {
        assert_eq!(begin(stages), ExceptionType::InvalidInput, "{stages:?}");
    }
    assert!(is_empty(&store));
    assert!(query_id(b"short").is_err());

    let stages = [stage(1, OutputKind::Hash, &[("a", 1)], &[0, 0])];
    let part = store.begin(ID, SESSION, "a", &stages).unwrap();
    assert!(store.begin(ID, SESSION, "a", &stages).is_err(), "there is one");
    for (number, worker, reader) in [(2, "a", 0), (1, "b", 0), (1, "a", 1)] {
        let error = store.open(ID, number, worker, reader).await.err().unwrap();
        assert_eq!(error.kind, ExceptionType::InvalidInput);
    }
    let _first = store.open(ID, 1, "a", 0).await.unwrap();
    assert!(store.open(ID, 1, "a", 0).await.is_err(), "each reads once");
    assert!(part.outputs.write(2, &plain(0, 1).schema(), 1).is_err());
    assert!(part.outputs.write(1, &plain(0, 1).schema(), 1).is_err(), "no bucket");
    assert_eq!(
        write(&part, 1, &[rows(&[(1, 2)])]).unwrap_err().kind,
        ExceptionType::InvalidInput
    );
    let schema = Arc::new(Schema::new(vec![Field::new("bucket", DataType::UInt64, true)]));
    let null: ArrayRef = Arc::new(UInt64Array::from(vec![None]));
    let nulls = RecordBatch::try_new(schema, vec![null]).unwrap();
    assert_eq!(write(&part, 1, &[nulls]).unwrap_err().kind, ExceptionType::InvalidInput);
}

#[tokio::test]
async fn peers_are_served_messages_and_a_summary() {
    for store in [store(&limits()), on_disk()] {
        let part = store
            .begin(ID, SESSION, "a", &[stage(1, OutputKind::Broadcast, &[("b", 1)], &[])])
            .unwrap();
        write(&part, 1, &[plain(0, 70_000), plain(70_000, 5)]).unwrap();
        let request = ReadExchangeRequest {
            query_id: ID.to_vec().into(),
            stage: 1,
            destination: "b".into(),
            reader: 0,
        };
        let messages: Vec<_> = store.serve(request, 64 * 1024).await.unwrap().collect().await;
        let messages: Vec<_> = messages.into_iter().map(Result::unwrap).collect();
        let (summary, arrow) = messages.split_last().unwrap();
        let summary = ExchangeSummary::decode(&*summary.app_metadata).unwrap();
        assert_eq!(summary.rows, 70_005);
        let bytes: usize = arrow.iter().map(Message::arrow_bytes).sum();
        assert_eq!(summary.bytes, bytes as u64);
        let arrow: Vec<FlightData> = arrow.iter().cloned().map(FlightData::from).collect();
        let batches = arrow_flight::utils::flight_data_to_batches(&arrow).unwrap();
        let found: Vec<_> = batches.iter().flat_map(numbers).collect();
        assert_eq!(found, (0..70_005).collect::<Vec<_>>());
        part.outputs.drained(LONG).await.unwrap();
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Every row arrives once, where its bucket says, in order, whatever the batches and the memory.
    #[test]
    fn no_row_is_lost_or_doubled(
        batches in prop::collection::vec(prop::collection::vec(0_u64..8, 1..400), 1..8),
        buckets in prop::collection::vec(0_u32..3, 8),
        memory in prop_oneof![Just(0_u64), 1000..100_000_u64, Just(u64::MAX)],
        readers in 1_u32..3,
    ) {
        let store = store(&Limits { exchange_memory_bytes: memory, ..limits() });
        let workers = ["a", "b", "c"];
        let destinations = workers.map(|worker| (worker, readers));
        let stages = [stage(1, OutputKind::Hash, &destinations, &buckets)];
        let part = store.begin(ID, SESSION, "a", &stages).unwrap();
        let mut expected: BTreeMap<&str, Vec<i64>> = BTreeMap::new();
        let mut next = 0;
        let mut written = Vec::new();
        for batch in batches {
            let values: Vec<_> = batch
                .into_iter()
                .map(|bucket| {
                    next += 1;
                    let worker = workers[buckets[usize::try_from(bucket).unwrap()] as usize];
                    expected.entry(worker).or_default().push(next);
                    (next, bucket)
                })
                .collect();
            written.push(rows(&values));
        }
        write(&part, 1, &written).unwrap();
        prop_assert!(store.holdings().taken.memory_bytes_most <= memory);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        for worker in workers {
            for reader in 0..readers {
                let found = runtime.block_on(async {
                    all(store.open(ID, 1, worker, reader).await.unwrap()).await.unwrap()
                });
                prop_assert_eq!(&found, expected.entry(worker).or_default());
            }
        }
        prop_assert_eq!(store.holdings().taken.memory_bytes, 0);
        drop(part);
        prop_assert!(is_empty(&store));
    }
}
