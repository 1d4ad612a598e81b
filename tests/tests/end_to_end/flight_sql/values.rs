//! Values of every type: plain Arrow, or an error that says what to write instead.

use std::sync::Arc;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{DataType, Field, Fields, IntervalUnit, TimeUnit, UInt8Type};
use arrow_flight::sql::CommandStatementQuery;
use tonic::{Code, Status};

use super::support::{Raw, assert_code, query, start, texts};

async fn fetch(raw: &mut Raw, sql: &str) -> Result<Vec<RecordBatch>, Status> {
    let command = CommandStatementQuery {
        query: sql.to_owned(),
        transaction_id: None,
    };
    raw.fetch(&command).await
}

/// The Arrow type of an expression, and its value as text.
async fn value(raw: &mut Raw, expression: &str) -> (DataType, String) {
    let batches = fetch(raw, &format!("SELECT {expression} AS c")).await.unwrap();
    let text = texts(&batches)[0][0].clone();
    (batches[0].schema().field(0).data_type().clone(), text)
}

#[tokio::test]
async fn every_type_has_a_plain_arrow_type() {
    let (duckling, _client) = start().await;
    let mut raw = Raw::logged_in(&duckling).await;
    let item = |data_type: DataType| Arc::new(Field::new("l", data_type, true));
    for (expression, data_type, text) in [
        ("true", DataType::Boolean, "true"),
        ("1::TINYINT", DataType::Int8, "1"),
        ("-2::SMALLINT", DataType::Int16, "-2"),
        ("3::INTEGER", DataType::Int32, "3"),
        ("4::BIGINT", DataType::Int64, "4"),
        ("5::UTINYINT", DataType::UInt8, "5"),
        ("6::USMALLINT", DataType::UInt16, "6"),
        ("7::UINTEGER", DataType::UInt32, "7"),
        ("8::UBIGINT", DataType::UInt64, "8"),
        ("-9::HUGEINT", DataType::Decimal128(38, 0), "-9"),
        ("10::UHUGEINT", DataType::Decimal128(38, 0), "10"),
        ("1.5::FLOAT", DataType::Float32, "1.5"),
        ("-0.25::DOUBLE", DataType::Float64, "-0.25"),
        ("1.50::DECIMAL(4,2)", DataType::Decimal128(4, 2), "1.50"),
        (
            "repeat('9', 38)::DECIMAL(38,0)",
            DataType::Decimal128(38, 0),
            &"9".repeat(38),
        ),
        ("'ä'", DataType::Utf8, "ä"),
        ("'\\xAA'::BLOB", DataType::Binary, "aa"),
        ("'101'::BIT", DataType::Utf8, "101"),
        ("'{\"a\": 1}'::JSON", DataType::Utf8, "{\"a\": 1}"),
        (
            "'00112233-4455-6677-8899-aabbccddeeff'::UUID",
            DataType::Utf8,
            "00112233-4455-6677-8899-aabbccddeeff",
        ),
        (
            "'12345678901234567890123'::BIGNUM",
            DataType::Utf8,
            "12345678901234567890123",
        ),
        ("DATE '2020-02-29'", DataType::Date32, "2020-02-29"),
        ("TIME '12:34:56'", DataType::Time64(TimeUnit::Microsecond), "12:34:56"),
        ("'12:34:56+02'::TIMETZ", DataType::Utf8, "12:34:56+02"),
        (
            "TIMESTAMP '2020-01-01'",
            DataType::Timestamp(TimeUnit::Microsecond, None),
            "2020-01-01T00:00:00",
        ),
        (
            "TIMESTAMP_S '2020-01-01'",
            DataType::Timestamp(TimeUnit::Second, None),
            "2020-01-01T00:00:00",
        ),
        (
            "TIMESTAMP_MS '2020-01-01'",
            DataType::Timestamp(TimeUnit::Millisecond, None),
            "2020-01-01T00:00:00",
        ),
        (
            "TIMESTAMP_NS '2020-01-01'",
            DataType::Timestamp(TimeUnit::Nanosecond, None),
            "2020-01-01T00:00:00",
        ),
        (
            "INTERVAL '1 month 2 days 3 seconds'",
            DataType::Interval(IntervalUnit::MonthDayNano),
            "1 mons 2 days 3.000000000 secs",
        ),
        ("NULL", DataType::Null, ""),
        (
            "[1::HUGEINT, NULL]",
            DataType::List(item(DataType::Decimal128(38, 0))),
            "[1, ]",
        ),
        ("['x'::ENUM ('x')]", DataType::List(item(DataType::Utf8)), "[x]"),
        (
            "{'a': '1'::BIT}",
            DataType::Struct(Fields::from(vec![Field::new("a", DataType::Utf8, true)])),
            "{a: 1}",
        ),
    ] {
        assert_eq!(
            value(&mut raw, expression).await,
            (data_type, text.to_owned()),
            "{expression}"
        );
    }
    for expression in [
        "MAP {'a': true}",
        "union_value(n := 1::HUGEINT)",
        "array_value(true, false)",
        "row(1, 'x')",
    ] {
        value(&mut raw, expression).await;
    }
}

#[tokio::test]
async fn enums_are_dictionaries_over_all_batches() {
    let (duckling, _client) = start().await;
    let mut raw = Raw::logged_in(&duckling).await;
    let sql = "SELECT CASE WHEN i % 2 = 0 THEN 'even' END::ENUM ('odd', 'even') AS e FROM range(200000) AS t(i)";
    let batches = fetch(&mut raw, sql).await.unwrap();
    assert!(batches.len() > 1);
    let mut even = 0;
    for batch in &batches {
        let column = batch.column(0).as_dictionary::<UInt8Type>();
        let values = column.downcast_dict::<arrow::array::StringArray>().unwrap();
        even += values.into_iter().flatten().filter(|text| *text == "even").count();
        assert_eq!(column.null_count(), batch.num_rows() / 2);
    }
    assert_eq!(even, 100_000);
}

#[tokio::test]
async fn texts_of_exact_types_are_duckdbs() {
    let (_duckling, mut client) = start().await;
    for sql in [
        "SELECT v, v::VARCHAR FROM (SELECT unnest(['0', '1', '-1', '255', '-256', '999999999', '1000000000', \
         '-1000000000000000000', repeat('9', 300), '-' || repeat('123456789', 50)])::BIGNUM AS v)",
        "SELECT v, v::VARCHAR FROM (SELECT unnest(['0', '1', '10101010', '101010101', repeat('01', 100)])::BIT AS v)",
        "SELECT v, v::VARCHAR FROM (SELECT unnest(['00:00:00+00', '23:59:59.999999-15:59:59', '12:00:00.5+05:30', \
         '24:00:00-01', '01:02:03+15:59:59'])::TIMETZ AS v)",
        "SELECT v, v::VARCHAR FROM (SELECT unnest(['ffffffff-ffff-ffff-ffff-ffffffffffff', \
         '00000000-0000-0000-0000-000000000000'])::UUID AS v)",
        "SELECT v, v::VARCHAR FROM (SELECT unnest([repeat('9', 38), '-' || repeat('9', 38), '-1'])::HUGEINT AS v)",
        "SELECT v, v::VARCHAR FROM (SELECT uuid() AS v FROM range(1000))",
        "SELECT v, v::VARCHAR FROM (SELECT (i * 7919 * (2::HUGEINT ** 60)::HUGEINT)::HUGEINT AS v FROM range(-500, 500) AS t(i))",
    ] {
        let rows = query(&mut client, sql).await.unwrap();
        assert!(rows.len() > 1);
        for row in rows {
            assert_eq!(row[0], row[1], "{sql}");
        }
    }
}

#[tokio::test]
async fn what_has_no_plain_value_is_an_error_with_the_cast_to_write() {
    let (duckling, mut client) = start().await;
    let mut raw = Raw::logged_in(&duckling).await;
    for expression in [
        "'170141183460469231731687303715884105727'::HUGEINT",
        "'-170141183460469231731687303715884105728'::HUGEINT",
        "'340282366920938463463374607431768211455'::UHUGEINT",
        "['340282366920938463463374607431768211455'::UHUGEINT]",
        "{'a': ['170141183460469231731687303715884105727'::HUGEINT]}",
        "repeat('9', 20000)::BIGNUM",
        "1::VARIANT",
        "to_microseconds(9223372036854775807)",
        "to_microseconds(-9223372036854775807)",
        "[to_hours(99999999)]",
        "{'a': to_hours(-99999999)}",
        "MAP {'a': to_hours(-99999999)}",
        "array_value(to_hours(1), to_hours(-99999999))",
        "union_value(i := to_hours(-99999999))",
    ] {
        let sql = format!("SELECT 1 AS other, {expression} AS \"the column\"");
        let message = assert_code(fetch(&mut raw, &sql).await, Code::InvalidArgument);
        for part in ["column \"the column\"", "CAST(\"the column\" AS VARCHAR)"] {
            assert!(message.contains(part), "{expression}: {message}");
        }
        let cast = format!("SELECT CAST(\"the column\" AS VARCHAR) FROM ({sql})");
        fetch(&mut raw, &cast).await.unwrap();
    }
    // Nothing of it harms the database.
    assert_eq!(query(&mut client, "SELECT 1").await.unwrap(), [["1"]]);
    assert_eq!(
        query(
            &mut client,
            "SELECT to_hours(2500000), to_microseconds(-9223372036854775)"
        )
        .await
        .unwrap(),
        [["2500000 hours", "-2562047 hours -47 mins -16.854775000 secs"]]
    );
}

#[tokio::test]
async fn intervals_in_transactions_and_from_writes() {
    let (duckling, mut client) = start().await;
    query(&mut client, "CREATE TABLE t (i INTERVAL)").await.unwrap();
    query(&mut client, "BEGIN").await.unwrap();
    let inserted = query(&mut client, "INSERT INTO t VALUES ('1 day'), (NULL) RETURNING i")
        .await
        .unwrap();
    assert_eq!(inserted, [["1 days"], [""]]);
    assert_eq!(query(&mut client, "SELECT i, 1 FROM t").await.unwrap().len(), 2);
    query(&mut client, "COMMIT").await.unwrap();
    assert_eq!(
        query(&mut client, "SELECT count(*) FROM t WHERE i = '1 day'")
            .await
            .unwrap(),
        [["1"]]
    );
    let refused = query(&mut client, "INSERT INTO t VALUES (to_hours(99999999)) RETURNING i").await;
    assert_code(refused, Code::InvalidArgument);
    assert_eq!(query(&mut client, "SELECT count(*) FROM t").await.unwrap(), [["2"]]);
    // Many rows, in as many batches as it takes, and on our own link.
    let many = "SELECT to_seconds(i) FROM range(100000) AS t(i)";
    assert_eq!(query(&mut client, many).await.unwrap().len(), 100_000);
    let own = duckherder_client::Client::connect(duckling.options()).await.unwrap();
    let stream = own.query(many).await.unwrap();
    let batches: Vec<_> = futures::TryStreamExt::try_collect(stream).await.unwrap();
    assert_eq!(batches.iter().map(RecordBatch::num_rows).sum::<usize>(), 100_000);
    let stream = own.query("SELECT to_microseconds(9223372036854775807)").await;
    let outcome: Result<Vec<RecordBatch>, _> = match stream {
        Ok(stream) => futures::TryStreamExt::try_collect(stream).await,
        Err(error) => Err(error),
    };
    assert!(outcome.unwrap_err().to_string().contains("CAST"));
}

#[tokio::test]
async fn columns_of_equal_names_stay_apart() {
    let (duckling, _client) = start().await;
    let mut raw = Raw::logged_in(&duckling).await;
    let batches = fetch(&mut raw, "SELECT 1 AS a, 2 AS a, 3 AS \"A\"").await.unwrap();
    assert_eq!(texts(&batches), [["1", "2", "3"]]);
    let names: Vec<_> = batches[0]
        .schema()
        .fields()
        .iter()
        .map(|field| field.name().clone())
        .collect();
    assert_eq!(names, ["a", "a", "A"]);
}
