//! Parameters that come as dense unions.
//!
//! Some clients (flightsql-dbapi) wrap each value in a union of everything that a value may be. DuckDB reads sparse unions
//! only, and would bind a UNION value: what was meant is the member.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, NullArray, RecordBatch, RecordBatchOptions, UInt32Array, UnionArray};
use arrow::compute::{TakeOptions, take};
use arrow::datatypes::{DataType, FieldRef, Schema, UnionMode};
use arrow::error::ArrowError;

/// The batch with the chosen members in the place of dense unions.
///
/// # Errors
/// If the rows of a column choose different members, or one that is not there.
pub fn unwrapped(batch: RecordBatch) -> Result<RecordBatch, ArrowError> {
    let schema = batch.schema();
    if !schema.fields().iter().any(is_dense) {
        return Ok(batch);
    }
    let mut fields: Vec<FieldRef> = Vec::with_capacity(batch.num_columns());
    let mut columns: Vec<ArrayRef> = Vec::with_capacity(batch.num_columns());
    for (field, column) in schema.fields().iter().zip(batch.columns()) {
        if !is_dense(field) {
            fields.push(Arc::clone(field));
            columns.push(Arc::clone(column));
            continue;
        }
        let member = chosen(column.as_union()).map_err(|problem| {
            ArrowError::InvalidArgumentError(format!("parameter \"{}\" is a union whose {problem}", field.name()))
        })?;
        let field = field.as_ref().clone().with_data_type(member.data_type().clone());
        fields.push(Arc::new(field.with_nullable(true)));
        columns.push(member);
    }
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), columns, &options)
}

fn is_dense(field: &FieldRef) -> bool {
    matches!(field.data_type(), DataType::Union(_, UnionMode::Dense))
}

fn chosen(union: &UnionArray) -> Result<ArrayRef, String> {
    let Some(&id) = union.type_ids().first() else {
        return Ok(Arc::new(NullArray::new(0)));
    };
    if union.type_ids().iter().any(|other| *other != id) {
        return Err("rows have different types: bind them one by one".to_owned());
    }
    let DataType::Union(members, _) = union.data_type() else {
        return Err("type is another one".to_owned());
    };
    if !members.iter().any(|(member, _)| member == id) {
        return Err(format!("member {id} is not there"));
    }
    let offsets = union.offsets().ok_or("rows have no offsets")?;
    // As the format has it. Rows that share values could be far more than what was sent.
    if offsets.windows(2).any(|pair| pair[1] <= pair[0]) {
        return Err("rows are malformed: their offsets do not rise".to_owned());
    }
    let rows: UInt32Array = offsets
        .iter()
        .map(|offset| u32::try_from(*offset))
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| format!("rows are malformed: {error}"))?
        .into();
    let options = TakeOptions { check_bounds: true };
    take(union.child(id), &rows, Some(options)).map_err(|error| format!("rows are malformed: {error}"))
}

#[cfg(test)]
mod tests {
    use arrow::array::{Int64Array, StringArray};
    use arrow::datatypes::{Field, UnionFields};

    use super::*;

    fn batch(ids: &[i8], offsets: &[i32]) -> RecordBatch {
        let members = UnionFields::from_fields(vec![
            Field::new("n", DataType::Int64, true),
            Field::new("s", DataType::Utf8, true),
        ]);
        let children: Vec<ArrayRef> = vec![
            Arc::new(Int64Array::from(vec![7, 8])),
            Arc::new(StringArray::from(vec![Some("a"), None])),
        ];
        let union = UnionArray::try_new(members, ids.to_vec().into(), Some(offsets.to_vec().into()), children);
        let plain = Int64Array::from_iter_values(0..ids.len() as i64);
        RecordBatch::try_from_iter([("u", Arc::new(union.unwrap()) as ArrayRef), ("p", Arc::new(plain))]).unwrap()
    }

    #[test]
    fn members_take_the_place_of_unions() {
        let texts = unwrapped(batch(&[1, 1], &[0, 1])).unwrap();
        assert_eq!(
            texts.column(0).as_string::<i32>(),
            &StringArray::from(vec![Some("a"), None])
        );
        assert_eq!(texts.column(1).len(), 2);
        let numbers = unwrapped(batch(&[0], &[1]).slice(0, 1)).unwrap();
        assert_eq!(numbers.schema().field(0).data_type(), &DataType::Int64);
        assert_eq!(unwrapped(batch(&[], &[])).unwrap().num_rows(), 0);
    }

    #[test]
    fn rows_that_share_a_value_are_refused() {
        assert!(unwrapped(batch(&[1, 1, 1], &[0, 0, 0])).is_err());
    }

    #[test]
    fn rows_of_different_types_are_refused() {
        let error = unwrapped(batch(&[0, 1], &[0, 0])).unwrap_err();
        assert!(error.to_string().contains("\"u\""), "{error}");
    }
}
