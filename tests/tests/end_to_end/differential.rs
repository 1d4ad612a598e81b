//! Random data and statements: what goes in comes out, and the extension does what DuckDB does.

use std::sync::{Arc, LazyLock, Mutex};

use arrow::array::{
    ArrayRef, BinaryArray, BooleanArray, Date32Array, Decimal128Array, Float64Array, Int8Array, Int32Array, Int64Array,
    ListArray, RecordBatch, StringArray, StructArray, TimestampMicrosecondArray, UInt64Array,
};
use arrow::compute::concat_batches;
use arrow::datatypes::{Field, Fields, Int32Type, Schema};
use duckherder_client::{ClientError, IngestTarget, blocking};
use duckherder_tests::duckdb::{Connection, DuckDb};
use duckherder_tests::duckling::{LocalDuckling, config};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use crate::support::attach;

/// One duckling for all cases: a case makes its own table.
static DUCKLING: LazyLock<LocalDuckling> = LazyLock::new(|| LocalDuckling::start().unwrap());

fn column(rows: usize) -> BoxedStrategy<ArrayRef> {
    fn array<T: std::fmt::Debug + Clone + 'static, A: From<Vec<Option<T>>> + arrow::array::Array + 'static>(
        value: impl Strategy<Value = T> + 'static,
        rows: usize,
    ) -> BoxedStrategy<ArrayRef> {
        vec(option::of(value), rows)
            .prop_map(|values| Arc::new(A::from(values)) as ArrayRef)
            .boxed()
    }
    prop_oneof![
        array::<bool, BooleanArray>(any::<bool>(), rows),
        array::<i8, Int8Array>(any::<i8>(), rows),
        array::<i32, Int32Array>(any::<i32>(), rows),
        array::<i64, Int64Array>(any::<i64>(), rows),
        array::<u64, UInt64Array>(any::<u64>(), rows),
        array::<f64, Float64Array>(any::<f64>(), rows),
        array::<String, StringArray>("\\PC{0,20}", rows),
        array::<i32, Date32Array>(-700_000..2_000_000, rows),
        array::<i64, TimestampMicrosecondArray>(-60_000_000_000_000_000..250_000_000_000_000_000_i64, rows),
        vec(option::of(-10_i128.pow(18)..10_i128.pow(18)), rows).prop_map(|values| {
            let array = Decimal128Array::from(values).with_precision_and_scale(19, 3).unwrap();
            Arc::new(array) as ArrayRef
        }),
        vec(option::of(vec(any::<u8>(), 0..20)), rows)
            .prop_map(|values| Arc::new(values.iter().map(Option::as_deref).collect::<BinaryArray>()) as ArrayRef),
        vec(option::of(vec(option::of(any::<i32>()), 0..5)), rows)
            .prop_map(|values| Arc::new(ListArray::from_iter_primitive::<Int32Type, _, _>(values)) as ArrayRef),
        vec((option::of(any::<i32>()), option::of("[a-z]{0,8}")), rows).prop_map(|values| {
            let (numbers, texts): (Vec<_>, Vec<_>) = values.into_iter().unzip();
            let columns: Vec<ArrayRef> = vec![Arc::new(Int32Array::from(numbers)), Arc::new(StringArray::from(texts))];
            let fields: Fields = columns
                .iter()
                .zip(["a", "b"])
                .map(|(column, name)| Field::new(name, column.data_type().clone(), true))
                .collect();
            Arc::new(StructArray::new(fields, columns, None)) as ArrayRef
        }),
    ]
    .boxed()
}

fn table() -> impl Strategy<Value = RecordBatch> {
    (0..40_usize)
        .prop_flat_map(|rows| vec(column(rows), 1..6))
        .prop_map(|columns| {
            let fields: Fields = columns
                .iter()
                .enumerate()
                .map(|(index, column)| Field::new(format!("c{index}"), column.data_type().clone(), true))
                .collect();
            RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).unwrap()
        })
}

/// Without the metadata that the server adds.
fn plain(batch: &RecordBatch, schema: &Arc<Schema>) -> RecordBatch {
    let columns = batch
        .columns()
        .iter()
        .zip(schema.fields())
        .map(|(column, field)| arrow::compute::cast(column, field.data_type()).unwrap())
        .collect();
    RecordBatch::try_new(Arc::clone(schema), columns).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, max_shrink_iters: 200, ..ProptestConfig::default() })]

    #[test]
    fn what_is_ingested_is_read_back(batch in table()) {
        static CLIENT: LazyLock<blocking::Client> =
            LazyLock::new(|| blocking::Client::connect(DUCKLING.options()).unwrap());
        CLIENT.execute("DROP TABLE IF EXISTS random").unwrap();
        let schema = batch.schema();
        let rows = CLIENT
            .session()
            .ingest(IngestTarget::create("random"), Arc::clone(&schema), [Ok::<_, ClientError>(batch.clone())])
            .unwrap()
            .rows;
        prop_assert_eq!(rows, batch.num_rows() as u64);
        let read: Vec<_> = CLIENT.query("FROM random").unwrap().map(|batch| plain(&batch.unwrap(), &schema)).collect();
        let read = concat_batches(&schema, &read).unwrap();
        prop_assert_eq!(read, batch);
    }
}

/// A statement on table `t (k INTEGER PRIMARY KEY, v VARCHAR, n DOUBLE)` of the catalog `dh`, and `here (k INTEGER)`.
fn statement() -> impl Strategy<Value = String> {
    let key = 0..12_i32;
    let text = prop_oneof![
        Just("NULL".to_owned()),
        "[a-c']{0,3}".prop_map(|text| format!("'{}'", text.replace('\'', "''")))
    ];
    let number = prop_oneof![Just("NULL".to_owned()), (-50..50_i32).prop_map(|n| format!("{n} / 8"))];
    let row = (key.clone(), text.clone(), number.clone()).prop_map(|(k, v, n)| format!("({k}, {v}, {n})"));
    prop_oneof![
        3 => vec(row.clone(), 1..4).prop_map(|rows| format!("INSERT INTO dh.t VALUES {}", rows.join(", "))),
        2 => vec(row, 1..4).prop_map(|rows| format!("INSERT OR REPLACE INTO dh.t VALUES {}", rows.join(", "))),
        1 => (key.clone(), text.clone()).prop_map(|(k, v)| format!("UPDATE dh.t SET v = {v} WHERE k > {k} RETURNING k, v")),
        1 => key.clone().prop_map(|k| format!("UPDATE dh.t SET k = k + 1 WHERE k = {k}")),
        1 => key.clone().prop_map(|k| format!("DELETE FROM dh.t WHERE k = {k}")),
        1 => key.clone().prop_map(|k| format!("INSERT INTO dh.t (k) SELECT k FROM here WHERE k < {k}")),
        1 => Just("BEGIN".to_owned()),
        1 => Just("COMMIT".to_owned()),
        1 => Just("ROLLBACK".to_owned()),
        1 => text.prop_map(|v| format!("SELECT k, v FROM dh.t WHERE v >= {v}")),
        1 => number.prop_map(|n| format!("SELECT t.k, sum(n) FROM dh.t JOIN here USING (k) WHERE n > {n} GROUP BY t.k")),
        1 => key.prop_map(|k| format!("SELECT count(*), (SELECT max(k) FROM here) FROM dh.t WHERE k <> {k}")),
        1 => Just("SELECT h.k, t.v FROM here h LEFT JOIN dh.t ON t.k = h.k".to_owned()),
    ]
}

/// The result, its rows sorted; of an error its class, which is what programs act on.
fn outcome(connection: &mut Connection, sql: &str) -> Result<Vec<String>, String> {
    let mut lines = connection
        .lines(sql)
        .map_err(|error| error.0.split(':').next().unwrap_or_default().to_owned())?;
    lines.sort();
    Ok(lines)
}

const TABLES: &str = "DROP TABLE IF EXISTS dh.t; CREATE TABLE dh.t (k INTEGER PRIMARY KEY, v VARCHAR, n DOUBLE); \
                      CREATE OR REPLACE TABLE here AS SELECT i::INTEGER AS k FROM range(2, 9) r(i)";

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, max_shrink_iters: 100, ..ProptestConfig::default() })]

    #[test]
    fn the_extension_does_what_duckdb_does(statements in vec(statement(), 1..25)) {
        static CONNECTIONS: LazyLock<Mutex<(Connection, Connection)>> = LazyLock::new(|| {
            let (_, remote) = attach(DUCKLING.port());
            let mut plain = DuckDb::plain().unwrap().connect().unwrap();
            plain.run("ATTACH ':memory:' AS dh").unwrap();
            Mutex::new((remote, plain))
        });
        let mut connections = CONNECTIONS.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let (remote, plain) = &mut *connections;
        for connection in [&mut *remote, &mut *plain] {
            let _ = connection.run("ROLLBACK");
            connection.run(TABLES).unwrap();
        }
        for sql in statements.iter().map(String::as_str).chain(["FROM dh.t"]) {
            prop_assert_eq!(outcome(remote, sql), outcome(plain, sql), "{}", sql);
        }
    }
}

/// Values of a row `i`, some of them NULL.
const ELEMENTS: [&str; 20] = [
    "(i % 3 = 0)",
    "(i % 100)::TINYINT",
    "i::UHUGEINT",
    "(-i)::HUGEINT",
    "(i || '123456789012345678901234567890')::BIGNUM",
    "(i / 17)::DECIMAL(5, 2)",
    "(i / 7)::DECIMAL(30, 10)",
    "i::DOUBLE",
    "'a string that is not inlined ' || i",
    "i::VARCHAR::BLOB",
    "(i % 1000)::INTEGER::BIT",
    "hash(i)::UHUGEINT::UUID",
    "DATE '2020-01-01' + i::INTEGER",
    "TIME '00:00:00' + to_microseconds(i)",
    "TIMETZ '00:00:00+02' + to_microseconds(i)",
    "TIMESTAMP '2020-01-01' + to_hours(i)",
    "(TIMESTAMP '2020-01-01' + to_hours(i))::TIMESTAMPTZ",
    "to_days(i::INTEGER)",
    "(['sad', 'ok'])[1 + i % 2]::ENUM('ok', 'sad')",
    "union_value(a := i)::UNION(a BIGINT, b VARCHAR)",
];

/// DuckDB's chunks and the arrays that rows come in end at different rows, and each type has its own way to be divided.
#[test]
fn rows_are_whole_wherever_a_batch_ends() {
    let mut config = config();
    config.limits.batch_rows = 1000;
    let duckling = LocalDuckling::start_with(config).unwrap();
    let (_database, mut connection) = attach(duckling.port());
    for element in ELEMENTS {
        let value = format!("CASE WHEN i % 11 <> 0 THEN {element} END");
        let values = [
            value.clone(),
            format!("[{value}, NULL, {value}]"),
            format!("array_value({value}, NULL, {value})"),
            format!("array_value(array_value({value}), array_value({value}))"),
            format!("{{'s': {{'a': {value}}}, 'b': array_value({value}, NULL)}}"),
            format!("MAP {{i: {value}}}"),
        ];
        let columns: Vec<_> = values
            .iter()
            .enumerate()
            .map(|(c, value)| format!("{value} AS c{c}"))
            .collect();
        let rows = format!(
            "SELECT i, {} FROM range(9000) r(i) WHERE i % 7 <> 3",
            columns.join(", ")
        );
        let remote = format!("FROM dh.query('{}')", rows.replace('\'', "''"));
        connection
            .run(&format!("CREATE OR REPLACE TEMP TABLE remote AS {remote}"))
            .unwrap();
        connection
            .run(&format!("CREATE OR REPLACE TEMP TABLE here AS {rows}"))
            .unwrap();
        let texts: Vec<_> = (0..values.len())
            .map(|c| format!("md5(string_agg(c{c}::VARCHAR, '|' ORDER BY i))"))
            .collect();
        let seen = |table: &str| format!("SELECT count(*), {} FROM {table}", texts.join(", "));
        let expected = connection.lines(&seen("here")).unwrap();
        assert_eq!(connection.lines(&seen("remote")).unwrap(), expected, "{element}");
    }
}
