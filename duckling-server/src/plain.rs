//! Results without dictionaries.
//!
//! DuckDB exports ENUM columns as Arrow dictionaries. On our own link the type text says what is an ENUM, and values
//! travel as plain strings: that saves the receiver from keeping dictionaries along a stream.

use std::sync::Arc;

use arrow::array::{Array, ArrayData, ArrayRef, RecordBatch, RecordBatchOptions, make_array};
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
        return Ok(Arc::clone(column));
    }
    Ok(make_array(plain_data(column.to_data(), field.data_type())?))
}

/// The data as `plain`, which is its own type without dictionaries. `cast` would do it too, but not through unions.
fn plain_data(data: ArrayData, plain: &DataType) -> Result<ArrayData, ArrowError> {
    if data.data_type() == plain {
        return Ok(data);
    }
    if let DataType::Dictionary(..) = data.data_type() {
        return Ok(cast(&make_array(data), plain)?.to_data());
    }
    let children: Vec<&FieldRef> = match plain {
        DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _) => vec![item],
        DataType::Map(entries, _) => vec![entries],
        DataType::Struct(fields) => fields.iter().collect(),
        DataType::Union(fields, _) => fields.iter().map(|(_, field)| field).collect(),
        _ => Vec::new(),
    };
    let children = data
        .child_data()
        .iter()
        .zip(children)
        .map(|(child, field)| plain_data(child.clone(), field.data_type()))
        .collect::<Result<Vec<_>, _>>()?;
    data.into_builder()
        .data_type(plain.clone())
        .child_data(children)
        .build()
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
        DataType::Union(fields, mode) => {
            let fields = fields.iter().map(|(id, field)| (id, plain_field(field))).collect();
            DataType::Union(fields, *mode)
        }
        other => other.clone(),
    }
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
        let plain = Plain::new(&batch.schema()).batch(batch).unwrap();
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

        let plain = Plain::new(&batch.schema()).batch(batch.slice(0, 1)).unwrap();

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
        assert_eq!(Plain::new(&batch.schema()).batch(batch.clone()).unwrap(), batch);
    }
}
