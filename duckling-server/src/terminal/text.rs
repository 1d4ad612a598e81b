//! Values as DuckDB writes them: a DuckDB in memory turns rows into texts.
//!
//! Rows arrive as Arrow, exact, with DuckDB's text of each column's type. Writing them here, for every type there is,
//! would be a copy of DuckDB's casts; so they are put into a table, and cast.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, StringArray};
use arrow::datatypes::{Field, Schema, SchemaRef};
use duckherder_proto::types::type_text;
use duckherder_proto::{ExceptionType, RemoteError};
use duckling_server::duckdb::{Appender, Connection, Database, DatabaseOptions, Split};

const TABLE: &str = "result";

/// How a value is to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// As `CAST(… AS VARCHAR)` writes it.
    Text,
    /// As `to_json` writes it; NULL is null.
    Json,
}

/// A DuckDB that turns rows into texts.
pub struct TextDatabase {
    database: Database,
    connection: Connection,
    /// The schema of the table that is there, its columns numbered.
    schema: SchemaRef,
}

impl TextDatabase {
    /// Opens it.
    pub fn open() -> Result<Self, RemoteError> {
        let options = DatabaseOptions {
            threads: Some(1),
            ..DatabaseOptions::default()
        };
        let database = Database::open(duckling_server::IN_MEMORY, &options)?;
        let connection = database.connect()?;
        Ok(Self {
            database,
            connection,
            schema: Arc::new(Schema::empty()),
        })
    }

    /// Something that finds the ends of statements.
    pub fn splitter(&self) -> Result<Splitter, RemoteError> {
        self.database.connect().map(Splitter)
    }

    /// The machine's time zone; `None` without ICU.
    pub fn time_zone(&mut self) -> Option<String> {
        let (_, batches) = self.connection.collect("SELECT current_setting('TimeZone')").ok()?;
        let texts = batches.first()?.column(0).as_string_opt::<i32>()?;
        (!texts.is_empty()).then(|| texts.value(0).to_owned())
    }

    /// Has times written in that time zone from now on.
    pub fn set_time_zone(&mut self, zone: &str) -> Result<(), RemoteError> {
        self.connection
            .execute(&format!("SET TimeZone = '{}'", zone.replace('\'', "''")))
            .map(|_| ())
    }

    /// Makes ready for rows of `schema`.
    pub fn begin(&mut self, schema: &Schema) -> Result<(), RemoteError> {
        let mut columns = Vec::new();
        let mut fields = Vec::new();
        for (index, field) in schema.fields().iter().enumerate() {
            let name = format!("c{index}");
            let text = type_text(field).ok_or_else(|| {
                RemoteError::new(
                    ExceptionType::Serialization,
                    format!("the result does not say of what type column \"{}\" is", field.name()),
                )
            })?;
            columns.push(format!("{name} {text}"));
            fields.push(Field::clone(field).with_name(name));
        }
        self.schema = Arc::new(Schema::new(fields));
        if !columns.is_empty() {
            let sql = format!("CREATE OR REPLACE TEMP TABLE {TABLE} ({})", columns.join(", "));
            self.connection.execute(&sql)?;
        }
        Ok(())
    }

    /// The rows of `batches` as texts, a column of them for each column.
    pub fn write(&mut self, batches: &[RecordBatch], style: Style) -> Result<Vec<Texts>, RemoteError> {
        if self.schema.fields().is_empty() {
            return Ok(Vec::new());
        }
        let mut appender = Appender::new(&mut self.connection, Some("temp"), "main", TABLE, &self.schema)?;
        for batch in batches {
            let renamed = RecordBatch::try_new(Arc::clone(&self.schema), batch.columns().to_vec());
            appender.append(&renamed.map_err(|error| unreadable(&error))?)?;
        }
        appender.finish()?;
        let casts: Vec<String> = (0..self.schema.fields().len())
            .map(|index| match style {
                Style::Text => format!("CAST(c{index} AS VARCHAR)"),
                Style::Json => format!("coalesce(CAST(to_json(c{index}) AS VARCHAR), 'null')"),
            })
            .collect();
        let (_, batches) = self
            .connection
            .collect(&format!("SELECT {} FROM temp.{TABLE}", casts.join(", ")))?;
        self.connection.execute(&format!("TRUNCATE temp.{TABLE}"))?;
        batches.iter().map(Texts::new).collect()
    }
}

/// Rows of texts.
pub struct Texts(Vec<StringArray>);

impl Texts {
    fn new(batch: &RecordBatch) -> Result<Self, RemoteError> {
        let columns: Option<Vec<StringArray>> = batch.columns().iter().map(strings).collect();
        columns.map(Self).ok_or_else(|| {
            RemoteError::new(
                ExceptionType::Serialization,
                "casting to VARCHAR gave something else than texts",
            )
        })
    }

    /// How many.
    pub fn rows(&self) -> usize {
        self.0.first().map_or(0, Array::len)
    }

    /// The texts of one row; `None` for NULL.
    pub fn row(&self, row: usize) -> impl Iterator<Item = Option<&str>> {
        self.0
            .iter()
            .map(move |column| column.is_valid(row).then(|| column.value(row)))
    }
}

fn strings(column: &ArrayRef) -> Option<StringArray> {
    column.as_string_opt::<i32>().cloned()
}

fn unreadable(error: &arrow::error::ArrowError) -> RemoteError {
    RemoteError::new(ExceptionType::Serialization, format!("reading the result: {error}"))
}

/// Finds the ends of statements.
pub struct Splitter(Connection);

impl Splitter {
    /// The statements in `sql`.
    pub fn split(&mut self, sql: &str) -> Result<Split, RemoteError> {
        self.0.split(sql)
    }
}
