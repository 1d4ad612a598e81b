//! What result columns look like to whom.
//!
//! DuckDB exports exact types ([`crate::exact`]), and ENUM columns as Arrow dictionaries. On our own link the type text
//! says what is an ENUM, and values travel as plain strings: that saves the receiver from keeping dictionaries along a
//! stream. Clients of Arrow Flight SQL get plain Arrow types, or an error that says which CAST makes one.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayData, ArrayRef, RecordBatch, RecordBatchOptions, make_array};
use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
use duckherder_proto::parts::{replace_data, replace_fields, values_data, values_field};
use duckherder_proto::types::{TYPE_METADATA_KEY, type_text};
use duckherder_proto::{ExceptionType, RemoteError};

use crate::exact::{Exact, column_error};

/// Who reads the result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mapping {
    /// A client that speaks our protocol: exact types, type texts, no dictionaries.
    Link,
    /// The same, and UNION, VARIANT and INTERVAL as the structs that DuckDB keeps them in.
    Stored,
    /// A client of Arrow Flight SQL: plain types, and dictionaries for ENUM columns.
    Generic,
    /// One that has asked for exact types.
    Lossless,
}

/// Turns batches of one schema into those that a reader gets.
pub struct Plain {
    mapping: Mapping,
    original: SchemaRef,
    /// `None` if there is nothing to do.
    schema: Option<SchemaRef>,
}

impl Plain {
    /// For batches of `schema`.
    ///
    /// # Errors
    /// `Invalid Input`, if a column has no type that the reader understands.
    pub fn new(schema: &SchemaRef, mapping: Mapping) -> Result<Self, RemoteError> {
        let fields = schema
            .fields()
            .iter()
            .map(|field| plain_column_field(field, mapping))
            .collect::<Result<Vec<_>, _>>()?;
        let plain = Schema::new_with_metadata(fields, schema.metadata().clone());
        Ok(Self {
            mapping,
            original: Arc::clone(schema),
            schema: (plain != **schema).then(|| Arc::new(plain)),
        })
    }

    /// The schema of the plain batches.
    pub fn schema(&self) -> &SchemaRef {
        self.schema.as_ref().unwrap_or(&self.original)
    }

    /// The plain batch.
    ///
    /// # Errors
    /// Which column holds a value that has no place in the plain type, and which CAST helps.
    pub fn batch(&self, batch: RecordBatch) -> Result<RecordBatch, RemoteError> {
        let Some(schema) = &self.schema else { return Ok(batch) };
        let columns = batch
            .columns()
            .iter()
            .zip(self.original.fields().iter().zip(schema.fields()))
            .map(|(column, (from, to))| self.column(column, from, to))
            .collect::<Result<Vec<_>, _>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options)
            .map_err(|error| RemoteError::new(ExceptionType::Serialization, format!("sending the result: {error}")))
    }

    fn column(&self, column: &ArrayRef, from: &Field, to: &Field) -> Result<ArrayRef, RemoteError> {
        if column.data_type() == to.data_type() {
            return Ok(Arc::clone(column));
        }
        let data = plain_data(column.to_data(), from, to, self.mapping).map_err(|error| {
            let name = from.name();
            column_error(
                ExceptionType::Conversion,
                name,
                &format!("{error}; write CAST(\"{name}\" AS VARCHAR), or ask for exact types"),
            )
        })?;
        Ok(make_array(data))
    }
}

/// The data as `to`, which is the plain field of `from`.
fn plain_data(data: ArrayData, from: &Field, to: &Field, mapping: Mapping) -> Result<ArrayData, String> {
    replace_data(data, from, to, &|data, from, to| match Exact::of(from) {
        Some(exact) if mapping == Mapping::Generic => exact.to_plain(data.clone()).map(Some),
        _ => values_data(data, to),
    })
}

fn plain_column_field(field: &FieldRef, mapping: Mapping) -> Result<FieldRef, RemoteError> {
    let refuse = |exact: Exact| {
        let name = field.name();
        column_error(
            ExceptionType::InvalidInput,
            name,
            &format!(
                "a {} has no plain Arrow type; write CAST(\"{name}\" AS VARCHAR), or ask for exact types",
                exact.name()
            ),
        )
    };
    let plain = match (field.data_type(), mapping) {
        (DataType::Dictionary(..), Mapping::Generic | Mapping::Lossless) => Arc::clone(field),
        _ => plain_field(field, mapping).map_err(refuse)?,
    };
    if mapping == Mapping::Generic {
        return Ok(Arc::new(described(&plain, type_text(field).unwrap_or_default())));
    }
    Ok(plain)
}

/// The field with the column metadata of Arrow Flight SQL instead of ours.
pub fn described(field: &Field, type_text: &str) -> Field {
    let mut metadata: HashMap<String, String> = field.metadata().clone().into();
    metadata.remove(TYPE_METADATA_KEY);
    let mut tell = |key: &str, value: String| metadata.insert(format!("ARROW:FLIGHT:SQL:{key}"), value);
    if !type_text.is_empty() {
        tell("TYPE_NAME", type_text.to_owned());
    }
    if let Some((precision, scale)) = precision_and_scale(field.data_type()) {
        tell("PRECISION", precision.to_string());
        tell("SCALE", scale.to_string());
    }
    let is_text = matches!(field.data_type(), DataType::Utf8 | DataType::Dictionary(..));
    tell("IS_CASE_SENSITIVE", flag(is_text));
    tell("IS_AUTO_INCREMENT", flag(false));
    tell("IS_SEARCHABLE", flag(true));
    field.clone().with_metadata(metadata)
}

fn flag(value: bool) -> String {
    (if value { "1" } else { "0" }).to_owned()
}

/// Digits in all, and behind the point.
fn precision_and_scale(data_type: &DataType) -> Option<(u8, i8)> {
    Some(match data_type {
        DataType::Decimal32(precision, scale)
        | DataType::Decimal64(precision, scale)
        | DataType::Decimal128(precision, scale) => (*precision, *scale),
        DataType::Int8 | DataType::UInt8 => (3, 0),
        DataType::Int16 | DataType::UInt16 => (5, 0),
        DataType::Int32 | DataType::UInt32 => (10, 0),
        DataType::Int64 => (19, 0),
        DataType::UInt64 => (20, 0),
        _ => return None,
    })
}

fn plain_field(field: &FieldRef, mapping: Mapping) -> Result<FieldRef, Exact> {
    replace_fields(field, &|field| match Exact::of(field) {
        Some(exact) if mapping == Mapping::Generic => {
            let plain = exact.plain_type().ok_or(exact)?;
            let mut metadata: HashMap<String, String> = field.metadata().clone().into();
            metadata.retain(|key, _| !key.starts_with("ARROW:extension:"));
            Ok(Some(Arc::new(
                field.as_ref().clone().with_data_type(plain).with_metadata(metadata),
            )))
        }
        _ => Ok(values_field(field)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{AsArray, DictionaryArray, Int32Array, ListArray, UnionArray};
    use arrow::datatypes::{Int32Type, UInt8Type, UnionFields};

    #[test]
    fn nested_dictionaries_become_values() {
        let values: DictionaryArray<UInt8Type> = vec!["b", "a", "b"].into_iter().collect();
        let item = Arc::new(Field::new("item", values.data_type().clone(), true));
        let offsets = arrow::buffer::OffsetBuffer::from_lengths([2, 1]);
        let list = ListArray::new(item, offsets, Arc::new(values), None);
        let batch = RecordBatch::try_from_iter([("l", Arc::new(list) as ArrayRef)]).unwrap();
        let plain = Plain::new(&batch.schema(), Mapping::Link)
            .unwrap()
            .batch(batch)
            .unwrap();
        let list = plain.column(0).as_list::<i32>();
        assert_eq!(
            list.value(0).as_string::<i32>().iter().flatten().collect::<Vec<_>>(),
            ["b", "a"]
        );
    }

    #[test]
    fn dictionaries_in_unions_become_values() {
        let values: DictionaryArray<UInt8Type> = vec![Some("b"), None, Some("a"), None].into_iter().collect();
        let numbers = Int32Array::from(vec![None, Some(7), None, None]);
        let fields = UnionFields::from_fields(vec![
            Field::new("mood", values.data_type().clone(), true),
            Field::new("number", DataType::Int32, true),
        ]);
        let tags = vec![0_i8, 1, 0, 1].into();
        let union = UnionArray::try_new(fields, tags, None, vec![Arc::new(values), Arc::new(numbers)]).unwrap();
        let item = Arc::new(Field::new("item", union.data_type().clone(), true));
        let offsets = arrow::buffer::OffsetBuffer::from_lengths([3, 1]);
        let list = ListArray::new(item, offsets, Arc::new(union), None);
        let batch = RecordBatch::try_from_iter([("l", Arc::new(list) as ArrayRef)]).unwrap();

        let plain = Plain::new(&batch.schema(), Mapping::Link)
            .unwrap()
            .batch(batch.slice(0, 1))
            .unwrap();

        let item = plain.column(0).as_list::<i32>().value(0);
        let union = item.as_any().downcast_ref::<UnionArray>().unwrap();
        assert_eq!(union.value(0).as_string::<i32>().value(0), "b");
        assert_eq!(union.value(1).as_primitive::<Int32Type>().value(0), 7);
        assert_eq!(union.value(2).as_string::<i32>().value(0), "a");
    }

    #[test]
    fn plain_batches_stay_as_they_are() {
        let column: arrow::array::PrimitiveArray<Int32Type> = vec![1, 2].into();
        let batch = RecordBatch::try_from_iter([("i", Arc::new(column) as ArrayRef)]).unwrap();
        assert_eq!(
            Plain::new(&batch.schema(), Mapping::Link)
                .unwrap()
                .batch(batch.clone())
                .unwrap(),
            batch
        );
    }
}
