//! Arrow data from clients, before DuckDB sees it.
//!
//! Decoding has checked lengths, offsets, dictionary keys and UTF-8. What is left are values that fit their storage but
//! not their type: DuckDB 2.0.0 takes them as they are, and some invalidate the database when they are used.

use arrow::array::{ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::{
    DataType, Decimal32Type, Decimal64Type, Decimal128Type, DecimalType, Field, FieldRef, Time32MillisecondType,
    Time32SecondType, Time64MicrosecondType, Time64NanosecondType, TimeUnit,
};
use duckherder_proto::{ExceptionType, RemoteError};

use crate::exact::{Exact, column_error};

/// Seconds of a day.
const DAY_SECONDS: i64 = 24 * 60 * 60;

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

fn times(mut values: impl Iterator<Item = i64>, per_second: i64) -> Result<(), String> {
    match values.find(|value| !(0..=DAY_SECONDS * per_second).contains(value)) {
        Some(value) => Err(format!("{value} is no time of day")),
        None => Ok(()),
    }
}
