//! Results without dictionaries.
//!
//! DuckDB exports ENUM columns as Arrow dictionaries. On our own link the type text says what is an ENUM, and values
//! travel as plain strings: that saves the receiver from keeping dictionaries along a stream.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch, RecordBatchOptions};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
use arrow::error::ArrowError;

/// Turns batches of one schema into batches without dictionaries.
pub struct Plain {
    /// `None` if there is nothing to do.
    schema: Option<SchemaRef>,
}

impl Plain {
    /// For batches of `schema`.
    pub fn new(schema: &SchemaRef) -> Self {
        let fields: Vec<FieldRef> = schema.fields().iter().map(plain_field).collect();
        let plain = Schema::new_with_metadata(fields, schema.metadata().clone());
        Self {
            schema: (plain != **schema).then(|| Arc::new(plain)),
        }
    }

    /// The schema of the plain batches.
    pub fn schema<'a>(&'a self, schema: &'a SchemaRef) -> &'a SchemaRef {
        self.schema.as_ref().unwrap_or(schema)
    }

    /// The plain batch.
    pub fn batch(&self, batch: RecordBatch) -> Result<RecordBatch, ArrowError> {
        let Some(schema) = &self.schema else { return Ok(batch) };
        let columns = batch
            .columns()
            .iter()
            .zip(schema.fields())
            .map(|(column, field)| plain_column(column, field))
            .collect::<Result<Vec<_>, _>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options)
    }
}

fn plain_column(column: &ArrayRef, field: &Field) -> Result<ArrayRef, ArrowError> {
    if column.data_type() == field.data_type() {
        Ok(Arc::clone(column))
    } else {
        cast(column, field.data_type())
    }
}

fn plain_field(field: &FieldRef) -> FieldRef {
    let plain = plain_type(field.data_type());
    if plain == *field.data_type() {
        return Arc::clone(field);
    }
    Arc::new(field.as_ref().clone().with_data_type(plain))
}

fn plain_type(data_type: &DataType) -> DataType {
    match data_type {
        DataType::Dictionary(_, value) => plain_type(value),
        DataType::List(item) => DataType::List(plain_field(item)),
        DataType::LargeList(item) => DataType::LargeList(plain_field(item)),
        DataType::FixedSizeList(item, size) => DataType::FixedSizeList(plain_field(item), *size),
        DataType::Struct(fields) => DataType::Struct(fields.iter().map(plain_field).collect()),
        DataType::Map(entries, sorted) => DataType::Map(plain_field(entries), *sorted),
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{AsArray, DictionaryArray, ListArray};
    use arrow::datatypes::{Int32Type, UInt8Type};

    #[test]
    fn nested_dictionaries_become_values() {
        let values: DictionaryArray<UInt8Type> = vec!["b", "a", "b"].into_iter().collect();
        let item = Arc::new(Field::new("item", values.data_type().clone(), true));
        let offsets = arrow::buffer::OffsetBuffer::from_lengths([2, 1]);
        let list = ListArray::new(item, offsets, Arc::new(values), None);
        let batch = RecordBatch::try_from_iter([("l", Arc::new(list) as ArrayRef)]).unwrap();
        let plain = Plain::new(&batch.schema()).batch(batch).unwrap();
        let list = plain.column(0).as_list::<i32>();
        assert_eq!(
            list.value(0).as_string::<i32>().iter().flatten().collect::<Vec<_>>(),
            ["b", "a"]
        );
    }

    #[test]
    fn plain_batches_stay_as_they_are() {
        let column: arrow::array::PrimitiveArray<Int32Type> = vec![1, 2].into();
        let batch = RecordBatch::try_from_iter([("i", Arc::new(column) as ArrayRef)]).unwrap();
        assert_eq!(Plain::new(&batch.schema()).batch(batch.clone()).unwrap(), batch);
    }
}
