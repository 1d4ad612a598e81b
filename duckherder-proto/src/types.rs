//! Exact DuckDB types beside Arrow types.
//!
//! Arrow has no ENUM, TUPLE or VARIANT, so every field of a result on our own link carries the DuckDB type as text;
//! the receiving DuckDB casts where the Arrow type alone would say something else.

use std::collections::HashMap;

use arrow::datatypes::{Field, Schema};

/// Key of the field metadata that holds DuckDB's text of the type, for example `ENUM('a', 'b')`.
pub const TYPE_METADATA_KEY: &str = "duckdb:type";

/// `schema` with the DuckDB type texts in its fields' metadata; `type_texts` runs parallel to the fields.
#[must_use]
pub fn with_type_texts(schema: &Schema, type_texts: &[String]) -> Schema {
    let fields: Vec<Field> = schema
        .fields()
        .iter()
        .enumerate()
        .map(|(index, field)| {
            let mut metadata: HashMap<String, String> = field.metadata().clone().into();
            if let Some(text) = type_texts.get(index) {
                metadata.insert(TYPE_METADATA_KEY.to_owned(), text.clone());
            }
            field.as_ref().clone().with_metadata(metadata)
        })
        .collect();
    Schema::new_with_metadata(fields, schema.metadata().clone())
}

/// The DuckDB type text of a field, if the sender gave one.
#[must_use]
pub fn type_text(field: &Field) -> Option<&str> {
    field.metadata().get(TYPE_METADATA_KEY).map(String::as_str)
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::datatypes::DataType;

    #[test]
    fn texts_land_on_their_fields() {
        let schema = Schema::new(vec![
            Field::new("a", DataType::Utf8, true),
            Field::new("b", DataType::Int32, true),
        ]);
        let schema = with_type_texts(&schema, &["ENUM('x')".to_owned(), "INTEGER".to_owned()]);
        assert_eq!(type_text(schema.field(0)), Some("ENUM('x')"));
        assert_eq!(type_text(schema.field(1)), Some("INTEGER"));
    }
}
