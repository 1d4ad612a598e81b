//! What the catalog holds, read with SQL on a session's connection, so that it sees what the session sees.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, StringArray};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use duckherder_proto::v1::{ColumnDescription, TableDescription};
use duckherder_proto::{ExceptionType, RemoteError};

use crate::duckdb::{Connection, for_each_row};

/// Schemas and tables of the session's database.
pub struct Snapshot {
    pub schema_names: Vec<String>,
    pub tables: Vec<TableDescription>,
}

/// The table or view of that name, compared as DuckDB compares (ignoring case).
pub fn lookup_table(
    connection: &mut Connection,
    schema_name: &str,
    table_name: &str,
) -> Result<Option<TableDescription>, RemoteError> {
    let schema_name = if schema_name.is_empty() { "main" } else { schema_name };
    // Not found must not be an error: that would abort the session's transaction.
    let about = rows(
        connection,
        &format!(
            "SELECT table_name, estimated_size, comment, false, sql FROM duckdb_tables() WHERE {0} \
             AND lower(table_name) = lower({1}) UNION ALL \
             SELECT view_name, NULL, comment, true, sql FROM duckdb_views() WHERE {0} AND lower(view_name) = lower({1})",
            format_args!(
                "database_name = current_database() AND NOT internal AND lower(schema_name) = lower({})",
                literal(schema_name)
            ),
            literal(table_name)
        ),
    )?;
    let Some(about) = about.into_iter().next() else {
        return Ok(None);
    };
    let table_name = about.text(0).unwrap_or(table_name);
    let qualified = literal(&format!(".{}.{}", identifier(schema_name), identifier(table_name)));
    let columns = rows(
        connection,
        &format!(
            "SELECT name, type, \"notnull\", dflt_value FROM \
             pragma_table_info('\"' || replace(current_database(), '\"', '\"\"') || '\"' || {qualified})"
        ),
    )?;
    Ok(Some(TableDescription {
        schema_name: schema_name.to_owned(),
        table_name: table_name.to_owned(),
        is_view: about.flag(3),
        estimated_rows: about.text(1).and_then(|text| text.parse().ok()),
        comment: about.text(2).unwrap_or_default().to_owned(),
        definition_sql: about.text(4).unwrap_or_default().to_owned(),
        columns: columns.iter().map(|row| column(row, 0)).collect(),
    }))
}

/// Whether the session's database has a schema of that name.
pub fn schema_exists(connection: &mut Connection, schema_name: &str) -> Result<bool, RemoteError> {
    let found = rows(
        connection,
        &format!(
            "SELECT schema_name FROM duckdb_schemas() WHERE database_name = current_database() \
             AND lower(schema_name) = lower({})",
            literal(schema_name)
        ),
    )?;
    Ok(!found.is_empty())
}

/// Everything in the session's database, but for what it keeps as a member of a herd: copies of the database are not that
/// member.
pub fn snapshot(connection: &mut Connection) -> Result<Snapshot, RemoteError> {
    let schemas = rows(
        connection,
        "SELECT schema_name FROM duckdb_schemas() WHERE database_name = current_database() AND NOT internal \
         AND schema_name <> 'duckherder'",
    )?;
    let mut schema_names: Vec<String> = schemas.iter().filter_map(|row| Some(row.text(0)?.to_owned())).collect();
    if !schema_names.iter().any(|name| name == "main") {
        schema_names.push("main".to_owned());
    }
    let relations = rows(
        connection,
        "SELECT schema_name, table_name, false, estimated_size, comment, sql FROM duckdb_tables() \
         WHERE database_name = current_database() AND NOT internal AND schema_name <> 'duckherder' \
         UNION ALL SELECT schema_name, view_name, true, NULL, comment, sql FROM duckdb_views() \
         WHERE database_name = current_database() AND NOT internal",
    )?;
    let columns = rows(
        connection,
        "SELECT schema_name, table_name, column_name, data_type, NOT is_nullable, column_default FROM duckdb_columns() \
         WHERE database_name = current_database() AND NOT internal ORDER BY table_oid, column_index",
    )?;
    let mut columns_of: HashMap<(&str, &str), Vec<ColumnDescription>> = HashMap::new();
    for row in &columns {
        let key = (row.text(0).unwrap_or_default(), row.text(1).unwrap_or_default());
        columns_of.entry(key).or_default().push(column(row, 2));
    }
    let tables = relations
        .iter()
        .map(|row| {
            let (schema_name, table_name) = (row.text(0).unwrap_or_default(), row.text(1).unwrap_or_default());
            TableDescription {
                schema_name: schema_name.to_owned(),
                table_name: table_name.to_owned(),
                is_view: row.flag(2),
                columns: columns_of.remove(&(schema_name, table_name)).unwrap_or_default(),
                estimated_rows: row.text(3).and_then(|text| text.parse().ok()),
                comment: row.text(4).unwrap_or_default().to_owned(),
                definition_sql: row.text(5).unwrap_or_default().to_owned(),
            }
        })
        .collect();
    Ok(Snapshot { schema_names, tables })
}

/// The database that the connection's unqualified names mean.
pub fn current_database(connection: &mut Connection) -> Result<String, RemoteError> {
    let rows = rows(connection, "SELECT current_database()")?;
    Ok(rows.first().and_then(|row| row.text(0)).unwrap_or_default().to_owned())
}

/// The database and the schema that the connection's unqualified names mean.
pub fn current_place(connection: &mut Connection) -> Result<(String, String), RemoteError> {
    let rows = rows(connection, "SELECT current_database(), current_schema()")?;
    let text = |index| {
        rows.first()
            .and_then(|row: &Row| row.text(index))
            .unwrap_or_default()
            .to_owned()
    };
    Ok((text(0), text(1)))
}

/// DuckDB's version, for example `v2.0.0`.
pub fn duckdb_version(connection: &mut Connection) -> Result<String, RemoteError> {
    let rows = rows(connection, "SELECT version()")?;
    Ok(rows.first().and_then(|row| row.text(0)).unwrap_or_default().to_owned())
}

/// Loads an extension, installing it where it is not.
pub fn load_extension(connection: &mut Connection, name: &str) -> Result<(), RemoteError> {
    let load = format!("LOAD {}", literal(name));
    match connection.execute(&load) {
        Ok(_) => Ok(()),
        Err(first) => connection
            .execute(&format!("INSTALL {}", literal(name)))
            .and_then(|_| connection.execute(&load))
            .map(|_| ())
            .map_err(|second| RemoteError {
                message: format!("{}\nInstalling it failed as well: {}", first.message, second.message),
                ..first
            }),
    }
}

/// `text` as a quoted SQL identifier.
pub fn identifier(text: &str) -> String {
    format!("\"{}\"", text.replace('"', "\"\""))
}

/// `text` as a SQL string literal.
pub fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

fn column(row: &Row, first: usize) -> ColumnDescription {
    ColumnDescription {
        name: row.text(first).unwrap_or_default().to_owned(),
        type_text: row.text(first + 1).unwrap_or_default().to_owned(),
        not_null: row.flag(first + 2),
        default_sql: row.text(first + 3).map(str::to_owned),
    }
}

/// One row of a small result, every value as text.
pub struct Row(Vec<Option<String>>);

impl Row {
    pub fn text(&self, index: usize) -> Option<&str> {
        self.0.get(index)?.as_deref()
    }

    /// A BOOLEAN, which lossless Arrow results hold as an 8-bit number.
    pub fn flag(&self, index: usize) -> bool {
        matches!(self.text(index), Some("1" | "true"))
    }
}

/// The rows of `sql`'s last statement.
pub fn rows(connection: &mut Connection, sql: &str) -> Result<Vec<Row>, RemoteError> {
    let (_, batches) = connection.collect(sql)?;
    let mut rows = Vec::new();
    for batch in &batches {
        append_rows(batch, &mut rows)?;
    }
    Ok(rows)
}

/// The rows of one statement, with values for its parameters, of which it has at least one unless there are none.
pub fn rows_with(
    connection: &mut Connection,
    sql: &str,
    parameters: &[Option<String>],
) -> Result<Vec<Row>, RemoteError> {
    if parameters.is_empty() {
        return rows(connection, sql);
    }
    let columns = parameters.iter().enumerate().map(|(index, value)| {
        let column: ArrayRef = Arc::new(StringArray::from(vec![value.clone()]));
        (index.to_string(), column, true)
    });
    let values = RecordBatch::try_from_iter_with_nullable(columns)
        .map_err(|error| RemoteError::new(ExceptionType::Serialization, error.to_string()))?;
    let mut rows = Vec::new();
    let statements = connection.parse(sql)?;
    for statement in &statements {
        for_each_row(connection, &values, |connection, parameters| {
            let mut result = connection.run_with(statement, &parameters, 0)?;
            while let Some(batch) = result.next_batch(&|| false)? {
                append_rows(&batch, &mut rows)?;
            }
            Ok(())
        })?;
    }
    Ok(rows)
}

fn append_rows(batch: &RecordBatch, rows: &mut Vec<Row>) -> Result<(), RemoteError> {
    let columns = batch
        .columns()
        .iter()
        .map(|column| cast(column, &DataType::Utf8))
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| RemoteError::new(ExceptionType::Serialization, error.to_string()))?;
    for index in 0..batch.num_rows() {
        let value = |column: &std::sync::Arc<dyn Array>| {
            column
                .is_valid(index)
                .then(|| column.as_string::<i32>().value(index).to_owned())
        };
        rows.push(Row(columns.iter().map(value).collect()));
    }
    Ok(())
}
