//! What the catalog holds, read on a session's connection, so that it sees what the session sees.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, StringArray};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use duckherder_proto::v1::{
    ColumnDescription, DefinitionDescription, DefinitionKind, SchemaDescription, TableDescription,
    UniqueIndexDescription,
};
use duckherder_proto::{ExceptionType, RemoteError};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::duckdb::{BatchSize, Connection, ResultTypes, for_each_row};
use crate::herd;

/// Schemas and tables of the session's database.
#[derive(Debug)]
pub struct Snapshot {
    pub schemas: Vec<SchemaDescription>,
    pub tables: Vec<TableDescription>,
}

/// The table or view of that name, compared as DuckDB compares (ignoring case). An empty `schema_name` means `main`.
pub fn lookup_table(
    connection: &mut Connection,
    parent_schemas: &[String],
    schema_name: &str,
    table_name: &str,
) -> Result<Option<TableDescription>, RemoteError> {
    let schema_name = if schema_name.is_empty() { "main" } else { schema_name };
    let Some(path) = schema_path(parent_schemas, schema_name) else {
        return Ok(None);
    };
    let found: Option<Table> = read(&connection.lookup_table(&path, table_name)?)?;
    Ok(found.map(Into::into))
}

/// Whether the session's database has a schema of that name.
pub fn schema_exists(
    connection: &mut Connection,
    parent_schemas: &[String],
    schema_name: &str,
) -> Result<bool, RemoteError> {
    match schema_path(parent_schemas, schema_name) {
        Some(path) => connection.schema_exists(&path),
        None => Ok(false),
    }
}

/// All schemas, tables and views of the session's database, but for what it keeps as a member of a herd: copies of the
/// database are not that member.
pub fn snapshot(connection: &mut Connection) -> Result<Snapshot, RemoteError> {
    #[derive(Deserialize)]
    struct Listed {
        schemas: Vec<Vec<String>>,
        tables: Vec<Table>,
    }
    let listed: Listed = read(&connection.list_tables()?)?;
    let is_listed = |path: &[String]| path.first().is_none_or(|schema| schema != herd::SCHEMA);
    let schemas = listed.schemas.into_iter().filter(|path| is_listed(path));
    let tables = listed
        .tables
        .into_iter()
        .filter(|table| is_listed(&table.entry.schema_path));
    Ok(Snapshot {
        schemas: schemas.map(schema).collect(),
        tables: tables.map(Into::into).collect(),
    })
}

/// All else in the session's database that is of these kinds.
pub fn definitions(
    connection: &mut Connection,
    kinds: &[DefinitionKind],
) -> Result<Vec<DefinitionDescription>, RemoteError> {
    let kinds: Vec<_> = kinds.iter().filter_map(|kind| kind_name(*kind)).collect();
    let listed: Vec<Definition> = read(&connection.list_definitions(&kinds.join(","))?)?;
    Ok(listed.into_iter().map(Into::into).collect())
}

fn kind_name(kind: DefinitionKind) -> Option<&'static str> {
    match kind {
        DefinitionKind::Sequence => Some("sequence"),
        DefinitionKind::Index => Some("index"),
        DefinitionKind::Type => Some("type"),
        DefinitionKind::Macro => Some("macro"),
        DefinitionKind::TableMacro => Some("table_macro"),
        // Triggers are with their tables.
        DefinitionKind::Trigger | DefinitionKind::Unspecified => None,
    }
}

/// What `cpp/catalog_listing.cpp` has written.
fn read<T: DeserializeOwned>(text: &str) -> Result<T, RemoteError> {
    serde_json::from_str(text).map_err(|error| {
        RemoteError::new(
            ExceptionType::Serialization,
            format!("the catalog is not readable: {error}"),
        )
    })
}

/// The path of a schema as SQL; `None` if a name is empty, as no schema's is.
fn schema_path(parent_schemas: &[String], schema_name: &str) -> Option<String> {
    let names = parent_schemas.iter().map(String::as_str).chain([schema_name]);
    let quoted: Option<Vec<_>> = names.map(|name| (!name.is_empty()).then(|| identifier(name))).collect();
    quoted.map(|names| names.join("."))
}

fn schema(mut path: Vec<String>) -> SchemaDescription {
    SchemaDescription {
        schema_name: path.pop().unwrap_or_default(),
        parent_schemas: path,
    }
}

/// A table or view in JSON.
#[derive(Deserialize)]
struct Table {
    #[serde(flatten)]
    entry: Entry,
    is_view: bool,
    estimated_rows: Option<u64>,
    #[serde(default)]
    index_count: u64,
    #[serde(default)]
    unique_indexes: Vec<UniqueIndex>,
    columns: Vec<Column>,
    #[serde(default)]
    triggers: Vec<Definition>,
}

/// An index in JSON.
#[derive(Deserialize)]
struct UniqueIndex {
    columns: Vec<u32>,
    is_primary_key: bool,
}

/// A column in JSON.
#[derive(Deserialize)]
struct Column {
    name: String,
    type_text: String,
    not_null: bool,
    default_sql: Option<String>,
    comment: Option<String>,
}

/// Something else in JSON.
#[derive(Deserialize)]
struct Definition {
    #[serde(flatten)]
    entry: Entry,
    kind: String,
    #[serde(default)]
    table_name: String,
    #[serde(default)]
    start_value: i64,
    last_value: Option<i64>,
}

/// What all entries have, in JSON.
#[derive(Deserialize)]
struct Entry {
    schema_path: Vec<String>,
    name: String,
    oid: u64,
    comment: Option<String>,
    tags: BTreeMap<String, String>,
    sql: String,
}

impl From<Table> for TableDescription {
    fn from(table: Table) -> Self {
        let schema = schema(table.entry.schema_path);
        Self {
            schema_name: schema.schema_name,
            parent_schemas: schema.parent_schemas,
            table_name: table.entry.name,
            is_view: table.is_view,
            columns: table.columns.into_iter().map(Into::into).collect(),
            estimated_rows: table.estimated_rows,
            comment: table.entry.comment,
            definition_sql: table.entry.sql,
            tags: table.entry.tags,
            oid: table.entry.oid,
            index_count: table.index_count,
            unique_indexes: table.unique_indexes.into_iter().map(Into::into).collect(),
            triggers: table.triggers.into_iter().map(Into::into).collect(),
        }
    }
}

impl From<UniqueIndex> for UniqueIndexDescription {
    fn from(index: UniqueIndex) -> Self {
        Self {
            columns: index.columns,
            is_primary_key: index.is_primary_key,
        }
    }
}

impl From<Column> for ColumnDescription {
    fn from(column: Column) -> Self {
        Self {
            name: column.name,
            type_text: column.type_text,
            not_null: column.not_null,
            default_sql: column.default_sql,
            comment: column.comment,
        }
    }
}

impl From<Definition> for DefinitionDescription {
    fn from(definition: Definition) -> Self {
        let schema = schema(definition.entry.schema_path);
        let kind = match definition.kind.as_str() {
            "sequence" => DefinitionKind::Sequence,
            "index" => DefinitionKind::Index,
            "type" => DefinitionKind::Type,
            "macro" => DefinitionKind::Macro,
            "table_macro" => DefinitionKind::TableMacro,
            "trigger" => DefinitionKind::Trigger,
            _ => DefinitionKind::Unspecified,
        };
        Self {
            kind: kind.into(),
            schema_name: schema.schema_name,
            parent_schemas: schema.parent_schemas,
            name: definition.entry.name,
            oid: definition.entry.oid,
            comment: definition.entry.comment,
            tags: definition.entry.tags,
            definition_sql: definition.entry.sql,
            table_name: definition.table_name,
            start_value: definition.start_value,
            last_value: definition.last_value,
        }
    }
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
            let mut result = connection.run_with(statement, &parameters, BatchSize::default(), ResultTypes::Arrow)?;
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
