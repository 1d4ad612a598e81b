//! Arrow data from clients, before DuckDB sees it.
//!
//! Decoding has checked lengths, offsets, dictionary keys and UTF-8. What is left are values that fit their storage but
//! not their type: DuckDB 2.0.0 takes them as they are, and some invalidate the database when they are used.

use arrow::array::{ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::{
    DataType, Date32Type, Date64Type, Decimal32Type, Decimal64Type, Decimal128Type, DecimalType, Field, FieldRef,
    Time32MillisecondType, Time32SecondType, Time64MicrosecondType, Time64NanosecondType, TimeUnit,
    TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType, TimestampSecondType,
};
use duckherder_proto::{ExceptionType, RemoteError};

use crate::exact::{Exact, column_error};

/// Seconds of a day.
const DAY_SECONDS: i64 = 24 * 60 * 60;

/// The first day of TIMESTAMP, in microseconds: 290309-12-22 (BC). DuckDB 2.0.0 (`Timestamp::MinimumTimestamp`) has no
/// calendar before it, and what is outside of it cannot be cast without invalidating the database.
const TIMESTAMP_MICROSECONDS_MIN: i64 = -9_223_372_022_400_000_000;

/// The first day of TIMESTAMP_NS, in nanoseconds: 1677-09-22.
const TIMESTAMP_NANOSECONDS_MIN: i64 = -9_223_286_400_000_000_000;

/// Whether all values of `batch` are values of their types.
///
/// # Errors
/// `Invalid Input`, naming the column.
pub fn check(batch: &RecordBatch) -> Result<(), RemoteError> {
    for (column, field) in batch.columns().iter().zip(batch.schema().fields()) {
        check_array(column, field).map_err(|error| column_error(ExceptionType::InvalidInput, field.name(), &error))?;
    }
    Ok(())
}

fn check_array(array: &ArrayRef, field: &Field) -> Result<(), String> {
    if let Some(exact) = Exact::of(field) {
        return exact.check(array);
    }
    match field.data_type() {
        DataType::Decimal32(precision, scale) => decimals::<Decimal32Type>(array, *precision, *scale),
        DataType::Decimal64(precision, scale) => decimals::<Decimal64Type>(array, *precision, *scale),
        DataType::Decimal128(precision, scale) => decimals::<Decimal128Type>(array, *precision, *scale),
        DataType::Time32(unit) => {
            let (values, per_second): (Box<dyn Iterator<Item = Option<i32>>>, _) = match unit {
                TimeUnit::Second => (Box::new(array.as_primitive::<Time32SecondType>().iter()), 1),
                _ => (Box::new(array.as_primitive::<Time32MillisecondType>().iter()), 1_000),
            };
            times(values.flatten().map(i64::from), per_second)
        }
        DataType::Time64(unit) => {
            let (values, per_second): (Box<dyn Iterator<Item = Option<i64>>>, _) = match unit {
                TimeUnit::Microsecond => (
                    Box::new(array.as_primitive::<Time64MicrosecondType>().iter()),
                    1_000_000,
                ),
                _ => (
                    Box::new(array.as_primitive::<Time64NanosecondType>().iter()),
                    1_000_000_000,
                ),
            };
            times(values.flatten(), per_second)
        }
        DataType::Timestamp(unit, _) => match unit {
            TimeUnit::Second => timestamps(array.as_primitive::<TimestampSecondType>().iter().flatten(), 1_000_000),
            TimeUnit::Millisecond => {
                timestamps(array.as_primitive::<TimestampMillisecondType>().iter().flatten(), 1_000)
            }
            TimeUnit::Microsecond => timestamps(array.as_primitive::<TimestampMicrosecondType>().iter().flatten(), 1),
            TimeUnit::Nanosecond => {
                let mut values = array.as_primitive::<TimestampNanosecondType>().iter().flatten();
                refuse(values.find(|value| !is_infinite(*value) && *value < TIMESTAMP_NANOSECONDS_MIN))
            }
        },
        DataType::Date32 => {
            let mut days = array.as_primitive::<Date32Type>().iter().flatten();
            refuse(days.find(|days| *days == i32::MIN).map(i64::from))
        }
        DataType::Date64 => {
            let mut milliseconds = array.as_primitive::<Date64Type>().iter().flatten();
            // DuckDB counts days in 32 bits, whose ends are infinite.
            let is_date =
                |value: i64| (value / (DAY_SECONDS * 1000)).unsigned_abs() < u64::from(i32::MAX.unsigned_abs());
            refuse(milliseconds.find(|value| !is_date(*value)))
        }
        DataType::List(item) => check_array(array.as_list::<i32>().values(), item),
        DataType::LargeList(item) => check_array(array.as_list::<i64>().values(), item),
        DataType::FixedSizeList(item, _) => check_array(array.as_fixed_size_list().values(), item),
        DataType::Struct(fields) => check_all(array.as_struct().columns(), fields.iter()),
        DataType::Map(_, _) => {
            let map = array.as_map();
            check_all(map.entries().columns(), map.entries().fields().iter())
        }
        DataType::Union(fields, _) => fields
            .iter()
            .try_for_each(|(id, field)| check_array(array.as_union().child(id), field)),
        DataType::Dictionary(_, value) => {
            let values = array.as_any_dictionary().values();
            check_array(values, &Field::new("", value.as_ref().clone(), true))
        }
        DataType::RunEndEncoded(..) => Err("run-end encoded data is not taken; send it plain".to_owned()),
        _ => Ok(()),
    }
}

fn check_all<'a>(arrays: &[ArrayRef], fields: impl Iterator<Item = &'a FieldRef>) -> Result<(), String> {
    arrays
        .iter()
        .zip(fields)
        .try_for_each(|(array, field)| check_array(array, field))
}

fn decimals<T: DecimalType>(array: &ArrayRef, precision: u8, scale: i8) -> Result<(), String> {
    if scale < 0 || scale.unsigned_abs() > precision {
        return Err(format!("DECIMAL({precision},{scale}) is no type of DuckDB's"));
    }
    array
        .as_primitive::<T>()
        .validate_decimal_precision(precision)
        .map_err(|error| error.to_string())
}

/// Those that count `microseconds` each.
fn timestamps(mut values: impl Iterator<Item = i64>, microseconds: i64) -> Result<(), String> {
    let is_valid = |value: i64| {
        let value = value.checked_mul(microseconds);
        value.is_some_and(|value| value >= TIMESTAMP_MICROSECONDS_MIN)
    };
    refuse(values.find(|value| !is_infinite(*value) && !is_valid(*value)))
}

/// DuckDB's `infinity` and `-infinity`, in whatever unit.
fn is_infinite(timestamp: i64) -> bool {
    timestamp == i64::MAX || timestamp == -i64::MAX
}

fn refuse(found: Option<i64>) -> Result<(), String> {
    found.map_or(Ok(()), |value| Err(format!("{value} is out of the range of its type")))
}

fn times(mut values: impl Iterator<Item = i64>, per_second: i64) -> Result<(), String> {
    match values.find(|value| !(0..=DAY_SECONDS * per_second).contains(value)) {
        Some(value) => Err(format!("{value} is no time of day")),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{
        Date32Array, Date64Array, TimestampMicrosecondArray, TimestampMillisecondArray, TimestampNanosecondArray,
        TimestampSecondArray,
    };

    use super::*;

    fn accepts(array: impl arrow::array::Array + 'static) -> bool {
        let batch = RecordBatch::try_from_iter([("v", Arc::new(array) as ArrayRef)]).unwrap();
        check(&batch).is_ok()
    }

    #[test]
    fn times_outside_of_the_calendar_are_refused() {
        for infinite in [i64::MAX, -i64::MAX] {
            assert!(accepts(TimestampSecondArray::from(vec![infinite])));
            assert!(accepts(TimestampMicrosecondArray::from(vec![Some(infinite), None])));
        }
        assert!(accepts(TimestampSecondArray::from(vec![
            9_223_372_036_854,
            -9_223_372_022_400
        ])));
        assert!(!accepts(TimestampSecondArray::from(vec![9_223_372_036_855])));
        assert!(!accepts(TimestampSecondArray::from(vec![-9_223_372_022_401])));
        assert!(!accepts(TimestampMillisecondArray::from(vec![i64::MAX - 1])));
        assert!(!accepts(TimestampMicrosecondArray::from(vec![i64::MIN])));
        assert!(accepts(TimestampNanosecondArray::from(vec![TIMESTAMP_NANOSECONDS_MIN])));
        assert!(!accepts(TimestampNanosecondArray::from(vec![i64::MIN])));
        assert!(accepts(Date32Array::from(vec![i32::MAX, -i32::MAX])));
        assert!(!accepts(Date32Array::from(vec![i32::MIN])));
        assert!(accepts(Date64Array::from(vec![0, 86_400_000])));
        assert!(!accepts(Date64Array::from(vec![i64::MAX])));
    }
}
