//! Arrow columns with other types in some of their parts: within lists, structs, maps and unions.
//!
//! All else stays as it is: names, nullability and metadata of every part. arrow-flight's own encoder makes a union in a list
//! one that cannot be NULL, and `cast` does not go through unions.

use std::convert::Infallible;
use std::sync::Arc;

use arrow::array::{Array, ArrayData, RecordBatch, RecordBatchOptions, make_array};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
use arrow::error::ArrowError;

/// The field with each part replaced for which there is a `replacement`; the parts of that one are not looked at.
///
/// # Errors
/// The first one of `replacement`.
pub fn replace_fields<E>(
    field: &FieldRef,
    replacement: &dyn Fn(&FieldRef) -> Result<Option<FieldRef>, E>,
) -> Result<FieldRef, E> {
    if let Some(replaced) = replacement(field)? {
        return Ok(replaced);
    }
    let part = |field: &FieldRef| replace_fields(field, replacement);
    let data_type = match field.data_type() {
        DataType::List(item) => DataType::List(part(item)?),
        DataType::LargeList(item) => DataType::LargeList(part(item)?),
        DataType::FixedSizeList(item, size) => DataType::FixedSizeList(part(item)?, *size),
        DataType::Struct(fields) => DataType::Struct(fields.iter().map(part).collect::<Result<_, _>>()?),
        DataType::Map(entries, sorted) => DataType::Map(part(entries)?, *sorted),
        DataType::Union(fields, mode) => {
            let fields = fields.iter().map(|(id, field)| Ok((id, part(field)?)));
            DataType::Union(fields.collect::<Result<_, _>>()?, *mode)
        }
        _ => return Ok(Arc::clone(field)),
    };
    if data_type == *field.data_type() {
        return Ok(Arc::clone(field));
    }
    Ok(Arc::new(field.as_ref().clone().with_data_type(data_type)))
}

/// Makes the data of the first field, a part, that of the second, if it is one to be replaced.
pub type Replacement<'a> = dyn Fn(&ArrayData, &Field, &Field) -> Result<Option<ArrayData>, String> + 'a;

/// The data of `from` as `to`, which [`replace_fields`] has made of it: `replacement` makes what is replaced.
///
/// # Errors
/// The first one of `replacement`; the data is not of `from`.
pub fn replace_data(
    data: ArrayData,
    from: &Field,
    to: &Field,
    replacement: &Replacement<'_>,
) -> Result<ArrayData, String> {
    if data.data_type() == to.data_type() {
        return Ok(data);
    }
    if let Some(replaced) = replacement(&data, from, to)? {
        return Ok(replaced);
    }
    let fields = fields_of(from.data_type()).into_iter().zip(fields_of(to.data_type()));
    let parts = data
        .child_data()
        .iter()
        .zip(fields)
        .map(|(part, (from, to))| replace_data(part.clone(), from, to, replacement))
        .collect::<Result<Vec<_>, _>>()?;
    data.into_builder()
        .data_type(to.data_type().clone())
        .child_data(parts)
        .build()
        .map_err(|error| error.to_string())
}

/// The field of a dictionary's values; `None` if it is no dictionary.
#[must_use]
pub fn values_field(field: &FieldRef) -> Option<FieldRef> {
    match field.data_type() {
        DataType::Dictionary(_, values) => {
            Some(Arc::new(field.as_ref().clone().with_data_type(values.as_ref().clone())))
        }
        _ => None,
    }
}

/// The values of a dictionary, one a row; `None` if it is no dictionary.
///
/// # Errors
/// Arrow's.
pub fn values_data(data: &ArrayData, to: &Field) -> Result<Option<ArrayData>, String> {
    match data.data_type() {
        DataType::Dictionary(..) => cast(&make_array(data.clone()), to.data_type())
            .map(|values| Some(values.to_data()))
            .map_err(|error| error.to_string()),
        _ => Ok(None),
    }
}

/// Batches with the values of their dictionaries in the place of these.
#[derive(Debug, Clone)]
pub struct Values {
    from: SchemaRef,
    to: SchemaRef,
}

impl Values {
    /// For batches of `from`.
    #[must_use]
    pub fn of(from: &SchemaRef) -> Self {
        let replacement = |field: &FieldRef| Ok::<_, Infallible>(values_field(field));
        let fields = from.fields().iter().map(|field| {
            let Ok(values) = replace_fields(field, &replacement);
            values
        });
        let to = Schema::new_with_metadata(fields.collect::<Vec<_>>(), from.metadata().clone());
        Self {
            from: Arc::clone(from),
            to: Arc::new(to),
        }
    }

    /// What the batches become.
    #[must_use]
    pub fn schema(&self) -> &SchemaRef {
        &self.to
    }

    /// A batch with values.
    ///
    /// # Errors
    /// It has another schema.
    pub fn batch(&self, batch: &RecordBatch) -> Result<RecordBatch, ArrowError> {
        if batch.schema_ref() != &self.from {
            return Err(ArrowError::SchemaError(format!(
                "a batch has the columns {} instead of {}",
                batch.schema_ref(),
                self.from
            )));
        }
        let fields = self.from.fields().iter().zip(self.to.fields());
        let columns = batch.columns().iter().zip(fields).map(|(column, (from, to))| {
            if column.data_type() == to.data_type() {
                return Ok(Arc::clone(column));
            }
            replace_data(column.to_data(), from, to, &|data, _, to| values_data(data, to))
                .map(make_array)
                .map_err(ArrowError::InvalidArgumentError)
        });
        let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        RecordBatch::try_new_with_options(Arc::clone(&self.to), columns.collect::<Result<_, _>>()?, &options)
    }
}

fn fields_of(data_type: &DataType) -> Vec<&FieldRef> {
    match data_type {
        DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _) => vec![item],
        DataType::Map(entries, _) => vec![entries],
        DataType::Struct(fields) => fields.iter().collect(),
        DataType::Union(fields, _) => fields.iter().map(|(_, field)| field).collect(),
        _ => Vec::new(),
    }
}
