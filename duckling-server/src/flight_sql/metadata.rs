//! What the catalog holds, in the shapes and orders that Flight SQL prescribes.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use arrow::array::{ArrayRef, Int32Array, RecordBatch, StringArray, UInt8Array};
use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
use arrow_flight::error::FlightError;
use arrow_flight::sql::{
    Command, CommandGetCatalogs, CommandGetDbSchemas, CommandGetTableTypes, CommandGetTables, UpdateDeleteRules,
};
use duckherder_proto::types::type_text;
use duckherder_proto::{ExceptionType, RemoteError};
use tonic::Status;

use super::FlightSql;
use super::access::Caller;
use crate::catalog::{Row, identifier, rows_with};
use crate::duckdb::Connection;
use crate::plain::{Mapping, Plain, described};
use crate::running::blocking;

/// How patterns match: as names do, ignoring case, with a backslash in front of a `%` or `_` that means itself.
macro_rules! like {
    ($column:literal, $parameter:literal) => {
        concat!(
            "(",
            $parameter,
            "::VARCHAR IS NULL OR ",
            $column,
            " ILIKE ",
            $parameter,
            " ESCAPE '\\')"
        )
    };
}

/// Databases that clients see: those attached, and that of temporary tables if there are any.
macro_rules! catalogs {
    () => {
        "SELECT database_name FROM duckdb_databases() WHERE NOT internal OR (database_name = 'temp' AND \
         EXISTS (FROM duckdb_tables() WHERE database_name = 'temp'))"
    };
}

const CATALOGS: &str = concat!(catalogs!(), " ORDER BY ALL");

const SCHEMAS: &str = concat!(
    "SELECT database_name, schema_name FROM duckdb_schemas() WHERE database_name IN (",
    catalogs!(),
    ") AND schema_name NOT IN ('information_schema', 'pg_catalog') AND \
     ($1::VARCHAR IS NULL OR database_name = $1) AND ",
    like!("schema_name", "$2"),
    " ORDER BY ALL"
);

const TABLES: &str = concat!(
    "SELECT * FROM (SELECT database_name, schema_name, table_name, \
     CASE WHEN temporary THEN 'LOCAL TEMPORARY' ELSE 'TABLE' END AS kind, comment FROM duckdb_tables() WHERE NOT internal \
     UNION ALL SELECT database_name, schema_name, view_name, 'VIEW', comment FROM duckdb_views() WHERE NOT internal) \
     WHERE ($1::VARCHAR IS NULL OR database_name = $1) AND ",
    like!("schema_name", "$2"),
    " AND ",
    like!("table_name", "$3"),
    " ORDER BY ALL"
);

/// Kinds of tables, in order.
const TABLE_TYPES: &[&str] = &["LOCAL TEMPORARY", "TABLE", "VIEW"];

const PRIMARY_KEYS: &str = "SELECT database_name, schema_name, table_name, unnest(constraint_column_names), \
     unnest(range(1, len(constraint_column_names) + 1)) AS key_sequence, constraint_name FROM duckdb_constraints() \
     WHERE constraint_type = 'PRIMARY KEY' AND ($1::VARCHAR IS NULL OR database_name = $1) AND \
     ($2::VARCHAR IS NULL OR lower(schema_name) = lower($2)) AND lower(table_name) = lower($3) \
     ORDER BY database_name, schema_name, table_name, constraint_name, key_sequence";

/// Foreign keys, which DuckDB has within one schema only. $1 to $3 are of the table referenced, $4 to $6 of the other.
const FOREIGN_KEYS: &str = "SELECT pk_catalog, pk_schema, pk_table, unnest(pk_columns), fk_catalog, fk_schema, fk_table, \
     unnest(fk_columns), unnest(range(1, len(fk_columns) + 1)) AS key_sequence, fk_name, pk_name FROM (\
     SELECT f.database_name AS pk_catalog, f.schema_name AS pk_schema, f.referenced_table AS pk_table, \
     f.referenced_column_names AS pk_columns, f.database_name AS fk_catalog, f.schema_name AS fk_schema, \
     f.table_name AS fk_table, f.constraint_column_names AS fk_columns, f.constraint_name AS fk_name, \
     (SELECT min(p.constraint_name) FROM duckdb_constraints() AS p WHERE p.database_name = f.database_name AND \
     p.schema_name = f.schema_name AND p.table_name = f.referenced_table AND p.constraint_type IN ('PRIMARY KEY', \
     'UNIQUE') AND p.constraint_column_names = f.referenced_column_names) AS pk_name FROM duckdb_constraints() AS f \
     WHERE f.constraint_type = 'FOREIGN KEY') WHERE ($1::VARCHAR IS NULL OR pk_catalog = $1) AND \
     ($2::VARCHAR IS NULL OR lower(pk_schema) = lower($2)) AND ($3::VARCHAR IS NULL OR lower(pk_table) = lower($3)) AND \
     ($4::VARCHAR IS NULL OR fk_catalog = $4) AND ($5::VARCHAR IS NULL OR lower(fk_schema) = lower($5)) AND \
     ($6::VARCHAR IS NULL OR lower(fk_table) = lower($6)) ORDER BY ";

/// Whose keys come in which order.
const BY_FOREIGN_TABLE: &str = "fk_catalog, fk_schema, fk_table, fk_name, key_sequence";
const BY_PRIMARY_TABLE: &str = "pk_catalog, pk_schema, pk_table, pk_name, key_sequence";

/// The columns of the tables that [`TABLES`] yields for the same parameters, read once for all of them.
const COLUMNS: &str = concat!(
    "SELECT database_name, schema_name, table_name, column_name, is_nullable, comment FROM duckdb_columns() WHERE NOT \
     internal AND ($1::VARCHAR IS NULL OR database_name = $1) AND ",
    like!("schema_name", "$2"),
    " AND ",
    like!("table_name", "$3")
);

static PRIMARY_KEYS_SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
    Arc::new(Schema::new(vec![
        Field::new("catalog_name", DataType::Utf8, true),
        Field::new("db_schema_name", DataType::Utf8, true),
        Field::new("table_name", DataType::Utf8, false),
        Field::new("column_name", DataType::Utf8, false),
        Field::new("key_sequence", DataType::Int32, false),
        Field::new("key_name", DataType::Utf8, true),
    ]))
});

static FOREIGN_KEYS_SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
    Arc::new(Schema::new(vec![
        Field::new("pk_catalog_name", DataType::Utf8, true),
        Field::new("pk_db_schema_name", DataType::Utf8, true),
        Field::new("pk_table_name", DataType::Utf8, false),
        Field::new("pk_column_name", DataType::Utf8, false),
        Field::new("fk_catalog_name", DataType::Utf8, true),
        Field::new("fk_db_schema_name", DataType::Utf8, true),
        Field::new("fk_table_name", DataType::Utf8, false),
        Field::new("fk_column_name", DataType::Utf8, false),
        Field::new("key_sequence", DataType::Int32, false),
        Field::new("fk_key_name", DataType::Utf8, true),
        Field::new("pk_key_name", DataType::Utf8, true),
        Field::new("update_rule", DataType::UInt8, false),
        Field::new("delete_rule", DataType::UInt8, false),
    ]))
});

impl FlightSql {
    /// The columns of a metadata command's answer.
    pub fn metadata_schema(&self, command: &Command) -> Result<SchemaRef, Status> {
        Ok(match command {
            Command::CommandGetCatalogs(command) => command.into_builder().schema(),
            Command::CommandGetDbSchemas(command) => command.clone().into_builder().schema(),
            Command::CommandGetTables(command) => command.clone().into_builder().schema(),
            Command::CommandGetTableTypes(command) => command.into_builder().schema(),
            Command::CommandGetSqlInfo(_) => self.sql_info.schema(),
            Command::CommandGetXdbcTypeInfo(_) => self.type_info.schema(),
            Command::CommandGetPrimaryKeys(_) => Arc::clone(&PRIMARY_KEYS_SCHEMA),
            Command::CommandGetExportedKeys(_)
            | Command::CommandGetImportedKeys(_)
            | Command::CommandGetCrossReference(_) => Arc::clone(&FOREIGN_KEYS_SCHEMA),
            other => return Err(not_for_rows(other)),
        })
    }

    /// The answer of a metadata command: at least one batch, also without rows.
    pub async fn metadata(&self, caller: &Caller, command: Command) -> Result<Vec<RecordBatch>, Status> {
        let batch = match command {
            Command::CommandGetSqlInfo(command) => {
                let all = command.info.is_empty();
                let mut wanted = command.info;
                wanted.retain(|info| *info < super::sql_info::INFO_MAX);
                wanted.sort_unstable();
                wanted.dedup();
                // An empty list would mean everything.
                let rows = if wanted.is_empty() && !all { 0 } else { usize::MAX };
                let found = self.sql_info.record_batch(wanted).map_err(flight)?;
                found.slice(0, rows.min(found.num_rows()))
            }
            Command::CommandGetXdbcTypeInfo(command) => {
                self.type_info.record_batch(command.data_type).map_err(flight)?
            }
            Command::CommandGetTableTypes(_) => {
                let mut builder = CommandGetTableTypes {}.into_builder();
                TABLE_TYPES.iter().for_each(|kind| builder.append(kind));
                builder.build().map_err(flight)?
            }
            Command::CommandGetCatalogs(_) => {
                let mut builder = CommandGetCatalogs {}.into_builder();
                for row in self.read(caller, CATALOGS, vec![]).await? {
                    builder.append(text(&row, 0));
                }
                builder.build().map_err(flight)?
            }
            Command::CommandGetDbSchemas(command) => {
                let parameters = vec![command.catalog, command.db_schema_filter_pattern];
                let rows = self.read(caller, SCHEMAS, parameters).await?;
                let mut builder = CommandGetDbSchemas::default().into_builder();
                rows.iter().for_each(|row| builder.append(text(row, 0), text(row, 1)));
                builder.build().map_err(flight)?
            }
            Command::CommandGetTables(command) => self.tables(caller, command).await?,
            Command::CommandGetPrimaryKeys(command) => {
                let parameters = vec![command.catalog, command.db_schema, Some(command.table)];
                primary_keys(&self.read(caller, PRIMARY_KEYS, parameters).await?)?
            }
            Command::CommandGetExportedKeys(command) => {
                let pk = [command.catalog, command.db_schema, Some(command.table)];
                self.foreign_keys(caller, pk, [None, None, None], BY_FOREIGN_TABLE)
                    .await?
            }
            Command::CommandGetImportedKeys(command) => {
                let fk = [command.catalog, command.db_schema, Some(command.table)];
                self.foreign_keys(caller, [None, None, None], fk, BY_PRIMARY_TABLE)
                    .await?
            }
            Command::CommandGetCrossReference(command) => {
                let pk = [command.pk_catalog, command.pk_db_schema, Some(command.pk_table)];
                let fk = [command.fk_catalog, command.fk_db_schema, Some(command.fk_table)];
                self.foreign_keys(caller, pk, fk, BY_PRIMARY_TABLE).await?
            }
            other => return Err(not_for_rows(&other)),
        };
        Ok(vec![batch])
    }

    /// Catalog, schema and name of the tables whose names match a pattern, unless it is empty.
    pub async fn table_paths(
        &self,
        caller: &Caller,
        pattern: &str,
        tables_max: usize,
    ) -> Result<Vec<Vec<String>>, RemoteError> {
        let pattern = (!pattern.is_empty()).then(|| pattern.to_owned());
        let rows = self.read(caller, TABLES, vec![None, None, pattern]).await?;
        let path = |row: &Row| (0..3).map(|index| text(row, index).to_owned()).collect();
        Ok(rows.iter().take(tables_max).map(path).collect())
    }

    async fn read(&self, caller: &Caller, sql: &str, parameters: Vec<Option<String>>) -> Result<Vec<Row>, RemoteError> {
        let sql = sql.to_owned();
        self.with_catalog(caller, move |connection| rows_with(connection, &sql, &parameters))
            .await
    }

    /// Runs `work` with a connection that sees what the session sees.
    async fn with_catalog<T: Send + 'static>(
        &self,
        caller: &Caller,
        work: impl FnOnce(&mut Connection) -> Result<T, RemoteError> + Send + 'static,
    ) -> Result<T, RemoteError> {
        let session = caller.session().await?;
        let _place = self.sessions.admission().part().await?;
        let mut lease = session.lease_catalog().await?;
        blocking(move || {
            lease.apply_settings()?;
            work(lease.connection()?)
        })
        .await
    }

    async fn tables(&self, caller: &Caller, command: CommandGetTables) -> Result<RecordBatch, Status> {
        let include_schema = command.include_schema;
        let kinds = command.table_types;
        let parameters = vec![
            command.catalog,
            command.db_schema_filter_pattern,
            command.table_name_filter_pattern,
        ];
        let tables = self.with_catalog(caller, move |connection| {
            let mut tables = rows_with(connection, TABLES, &parameters)?;
            tables.retain(|row| kinds.is_empty() || kinds.iter().any(|kind| kind == text(row, 3)));
            if !include_schema {
                return Ok(tables.into_iter().map(|row| (row, Schema::empty())).collect());
            }
            let columns = rows_with(connection, COLUMNS, &parameters)?;
            let known: HashMap<_, _> = columns
                .iter()
                .map(|row| ([0, 1, 2, 3].map(|index| text(row, index)), row))
                .collect();
            let with_schema = |row: Row| {
                // A view may not bind any more: it is still there.
                let schema = table_schema(connection, &row, &known).unwrap_or_else(|_| Schema::empty());
                (row, schema)
            };
            Ok(tables.into_iter().map(with_schema).collect::<Vec<_>>())
        });
        let unfiltered = CommandGetTables {
            include_schema,
            ..CommandGetTables::default()
        };
        let mut builder = unfiltered.into_builder();
        for (row, schema) in tables.await? {
            builder
                .append(text(&row, 0), text(&row, 1), text(&row, 2), text(&row, 3), &schema)
                .map_err(flight)?;
        }
        Ok(builder.build().map_err(flight)?)
    }

    async fn foreign_keys(
        &self,
        caller: &Caller,
        primary: [Option<String>; 3],
        foreign: [Option<String>; 3],
        order: &str,
    ) -> Result<RecordBatch, RemoteError> {
        let sql = format!("{FOREIGN_KEYS}{order}");
        let rows = self
            .read(caller, &sql, primary.into_iter().chain(foreign).collect())
            .await?;
        // DuckDB knows no other rule.
        let rules: ArrayRef = Arc::new(UInt8Array::from(vec![UpdateDeleteRules::NoAction as u8; rows.len()]));
        let mut columns: Vec<ArrayRef> = (0..8).map(|index| texts(&rows, index)).collect();
        columns.extend([numbers(&rows, 8), texts(&rows, 9), texts(&rows, 10)]);
        columns.extend([Arc::clone(&rules), rules]);
        batch(&FOREIGN_KEYS_SCHEMA, columns)
    }
}

fn primary_keys(rows: &[Row]) -> Result<RecordBatch, RemoteError> {
    let mut columns: Vec<ArrayRef> = (0..4).map(|index| texts(rows, index)).collect();
    columns.extend([numbers(rows, 4), texts(rows, 5)]);
    batch(&PRIMARY_KEYS_SCHEMA, columns)
}

/// A table's columns as a query of them would yield them, with what the catalog knows of them besides.
fn table_schema(
    connection: &mut Connection,
    table: &Row,
    known: &HashMap<[&str; 4], &Row>,
) -> Result<Schema, RemoteError> {
    let names = [0, 1, 2].map(|index| text(table, index));
    let statements = connection.parse(&format!("FROM {}", names.map(identifier).join(".")))?;
    let statement = statements.first().ok_or_else(|| error("no statement"))?;
    let exact = connection.plan(statement)?.columns.unwrap_or_else(Schema::empty);
    let fields: Vec<Field> = exact
        .fields()
        .iter()
        .map(|field| {
            let field = plain_column(field);
            let row = known.get(&[names[0], names[1], names[2], field.name().as_str()]);
            let mut metadata: HashMap<String, String> = field.metadata().clone().into();
            for (key, value) in ["CATALOG_NAME", "SCHEMA_NAME", "TABLE_NAME"].into_iter().zip(names) {
                metadata.insert(format!("ARROW:FLIGHT:SQL:{key}"), value.to_owned());
            }
            if let Some(remarks) = row.and_then(|row| row.text(5)) {
                metadata.insert("ARROW:FLIGHT:SQL:REMARKS".to_owned(), remarks.to_owned());
            }
            let nullable = row.is_none_or(|row| row.flag(4));
            field.with_metadata(metadata).with_nullable(nullable)
        })
        .collect();
    Ok(Schema::new(fields))
}

/// The column as a query would yield it. One of a type that has no plain one is told as it is stored.
fn plain_column(field: &FieldRef) -> Field {
    let schema = Arc::new(Schema::new(vec![Arc::clone(field)]));
    match Plain::new(&schema, Mapping::Generic) {
        Ok(plain) => plain.schema().field(0).clone(),
        Err(_) => described(field, type_text(field).unwrap_or_default()),
    }
}

fn text(row: &Row, index: usize) -> &str {
    row.text(index).unwrap_or_default()
}

fn texts(rows: &[Row], index: usize) -> ArrayRef {
    Arc::new(rows.iter().map(|row| row.text(index)).collect::<StringArray>())
}

fn numbers(rows: &[Row], index: usize) -> ArrayRef {
    let number = |row: &Row| row.text(index).and_then(|text| text.parse::<i32>().ok());
    Arc::new(rows.iter().map(number).collect::<Int32Array>())
}

fn batch(schema: &SchemaRef, columns: Vec<ArrayRef>) -> Result<RecordBatch, RemoteError> {
    RecordBatch::try_new(Arc::clone(schema), columns).map_err(error)
}

fn error(error: impl std::fmt::Display) -> RemoteError {
    RemoteError::new(ExceptionType::Serialization, error.to_string())
}

fn flight(failed: FlightError) -> RemoteError {
    error(failed)
}

fn not_for_rows(command: &Command) -> Status {
    Status::invalid_argument(format!("{} asks for no rows", command.type_url()))
}
