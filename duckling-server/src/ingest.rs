//! Taking rows in: one Arrow stream into one table, whole or not at all.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use duckherder_catalog::herd::placement::PLACEMENT_TAG;
use duckherder_catalog::herd::query::Column;
use duckherder_proto::types::type_text;
use duckherder_proto::v1::{IngestMode, IngestRequest};
use duckherder_proto::{ExceptionType, RemoteError};
use tokio::sync::mpsc;

use crate::arrow_check;
use crate::catalog::{current_place, identifier, literal, rows};
use crate::duckdb::{Appender, Connection, Statement};
use crate::exact::Exact;
use crate::herd::session::UPLOAD;
use crate::herd::upload::UploadSource;
use crate::herd::{HerdSession, ddl};
use crate::session::{Lease, Place, Sessions};
use crate::statement::{begin, in_own_transaction};

/// What arrives.
pub enum Upload {
    /// Rows.
    Batch(RecordBatch),
    /// All rows have been sent.
    End {
        /// How many there were, if the sender tells.
        rows: Option<u64>,
    },
}

/// Where rows go.
pub struct Target {
    /// The session's default if absent.
    pub catalog: Option<String>,
    /// The session's default if absent.
    pub schema: Option<String>,
    /// The schemas that the schema is nested in, outermost first.
    pub parent_schemas: Vec<String>,
    pub table: String,
    pub temporary: bool,
    pub create: Create,
    /// What stands behind the columns of a table that is made, as SQL.
    pub table_clauses: String,
    /// Columns of the upload are those of the same name, not those at the same place.
    pub by_name: bool,
}

/// Whether the table is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Create {
    /// It exists, or the upload fails.
    No,
    /// It does not exist, or the upload fails.
    Yes,
    /// If it does not exist.
    IfMissing,
    /// Also if it exists: it is replaced.
    OrReplace,
    /// It exists, or the upload fails; it is replaced.
    Replace,
}

impl From<IngestRequest> for Target {
    fn from(request: IngestRequest) -> Self {
        let mode = request.mode();
        Self {
            catalog: None,
            schema: Some(if request.schema_name.is_empty() {
                "main".to_owned()
            } else {
                request.schema_name
            }),
            parent_schemas: request.parent_schemas,
            table: request.table_name,
            temporary: mode == IngestMode::CreateTemporary,
            create: match mode {
                IngestMode::Create => Create::Yes,
                IngestMode::CreateOrReplace | IngestMode::CreateTemporary => Create::OrReplace,
                _ => Create::No,
            },
            table_clauses: request.table_clauses,
            by_name: mode == IngestMode::AppendByName,
        }
    }
}

impl Target {
    /// Catalog, schema and table, in SQL.
    fn qualified(&self) -> String {
        let parents = self.parent_schemas.iter().map(String::as_str);
        let parts = self.catalog.as_deref().into_iter().chain(parents);
        let parts = parts.chain(self.schema.as_deref()).chain([self.table.as_str()]);
        let quoted: Vec<_> = parts.map(identifier).collect();
        quoted.join(".")
    }

    fn by_name_sql(&self) -> &str {
        if self.by_name { " BY NAME" } else { "" }
    }
}

/// Appends what `batches` yields, on a blocking thread; the number of rows taken.
pub fn run(
    sessions: &Sessions,
    lease: &mut Lease,
    target: Target,
    place: Place,
    schema: &SchemaRef,
    batches: &mut mpsc::Receiver<Result<Upload, RemoteError>>,
) -> Result<u64, RemoteError> {
    lease.apply_settings()?;
    if place == Place::Begin {
        begin(lease)?;
    }
    if target.temporary {
        lease.session.set_stateful();
    }
    let in_transaction = lease.in_transaction();
    let herd = lease.herd()?;
    let connection = lease.connection()?;
    let target = resolve(connection, target)?;
    let defines = target.create != Create::No && !target.temporary;
    let _changing = defines.then(|| sessions.definitions().changing());
    if in_transaction {
        herd.begin_everywhere()?;
    }
    let mut work = |connection: &mut Connection| take(connection, &herd, &target, schema, batches);
    let outcome = if in_transaction {
        let outcome = work(connection);
        if outcome.is_err() && herd.has_written() {
            lease.session.abort_transaction();
        }
        outcome
    } else {
        let outcome = in_own_transaction(connection, |connection| herd.end_writes(work(connection)));
        herd.ended();
        outcome
    };
    if defines {
        sessions.advance_epoch();
    }
    outcome
}

/// The target with all names that it leaves out.
fn resolve(connection: &mut Connection, target: Target) -> Result<Target, RemoteError> {
    if target.temporary {
        return Ok(Target {
            catalog: Some("temp".to_owned()),
            schema: Some("main".to_owned()),
            parent_schemas: Vec::new(),
            ..target
        });
    }
    let (catalog, schema) = (target.catalog.clone(), target.schema.clone());
    let (catalog, schema) = match (catalog, schema) {
        (Some(catalog), None) => (Some(catalog), Some("main".to_owned())),
        (None, None) => {
            let (catalog, schema) = current_place(connection)?;
            (Some(catalog), Some(schema))
        }
        given => given,
    };
    Ok(Target {
        catalog,
        schema,
        ..target
    })
}

fn take(
    connection: &mut Connection,
    herd: &Arc<HerdSession>,
    target: &Target,
    schema: &SchemaRef,
    batches: &mut mpsc::Receiver<Result<Upload, RemoteError>>,
) -> Result<u64, RemoteError> {
    for sql in create_table(target, schema)? {
        for statement in connection.parse(&sql)? {
            define(connection, herd, &statement)?;
        }
    }
    if let Some(source) = rows_of_insert(connection, target, schema)? {
        return take_as_insert(connection, herd, target, &source, schema, batches);
    }
    if target.create == Create::No {
        // The appender's own error would say less.
        let statements = connection.parse(&format!("FROM {}", target.qualified()))?;
        statements
            .first()
            .map_or(Ok(()), |table| connection.plan(table).map(|_| ()))?;
    }
    let schema_name = target.schema.as_deref().unwrap_or("main");
    let catalog_name = target.catalog.as_deref();
    let mut appender = Appender::new(connection, catalog_name, schema_name, &target.table, schema)?;
    if target.by_name {
        appender.set_columns(schema.fields().iter().map(|field| field.name().as_str()))?;
    }
    let mut rows = 0;
    loop {
        match batches.blocking_recv().transpose()? {
            Some(Upload::Batch(batch)) => {
                arrow_check::check(&batch)?;
                appender.append(&batch)?;
                rows += batch.num_rows() as u64;
            }
            Some(Upload::End { rows: rows_sent }) => {
                check_end(rows_sent, rows)?;
                break;
            }
            None => return Err(broken_off()),
        }
    }
    if rows == 0 && target.create == Create::No {
        // The appender would not ask the table, which another transaction may have altered.
        drop(appender);
        let nothing = insert_of_nothing(target, schema);
        return connection.execute(&nothing).map(|_| 0);
    }
    appender.finish()?;
    Ok(rows)
}

/// An INSERT of no rows, for which DuckDB looks at the table all the same.
fn insert_of_nothing(target: &Target, schema: &Schema) -> String {
    let columns = schema
        .fields()
        .iter()
        .map(|field| format!("NULL AS {}", identifier(field.name())));
    format!(
        "INSERT INTO {}{} SELECT {} WHERE false",
        target.qualified(),
        target.by_name_sql(),
        columns.collect::<Vec<_>>().join(", ")
    )
}

/// Whether all rows that were sent have arrived.
pub fn check_end(rows_sent: Option<u64>, rows: u64) -> Result<(), RemoteError> {
    match rows_sent {
        Some(sent) if sent != rows => Err(RemoteError::new(
            ExceptionType::Io,
            format!("{sent} rows were sent, {rows} arrived; the upload was rolled back"),
        )),
        _ => Ok(()),
    }
}

/// The upload has ended without its end.
pub fn broken_off() -> RemoteError {
    RemoteError::new(
        ExceptionType::Interrupt,
        "the upload broke off before its end and was rolled back",
    )
}

/// Makes or drops a table, in the transaction that is open, on the workers too if it is one of the herd's.
fn define(connection: &mut Connection, herd: &Arc<HerdSession>, statement: &Statement) -> Result<(), RemoteError> {
    let mut run = |connection: &mut Connection, statement: &Statement| connection.run(statement)?.drain().map(|_| ());
    let mut in_transaction = |connection: &mut Connection, work: &mut ddl::Work<'_>| work(connection);
    if ddl::run(connection, herd, statement, &mut in_transaction, &mut run)? {
        return Ok(());
    }
    run(connection, statement)
}

/// What an INSERT into the target reads the upload's rows from; `None` if the appender can do it.
fn rows_of_insert(
    connection: &mut Connection,
    target: &Target,
    schema: &Schema,
) -> Result<Option<String>, RemoteError> {
    const IN_ORDER: &str = "duckherder_upload()";
    // The appender knows no tables in nested schemas, and would cast what is stored.
    let is_stored = schema.fields().iter().any(|field| is_stored(field));
    let in_order = (!target.parent_schemas.is_empty() || is_stored).then(|| IN_ORDER.to_owned());
    if target.temporary || !target.parent_schemas.is_empty() {
        return Ok(in_order);
    }
    // Nor does it find the sequences and macros of defaults in the table's own schema.
    let sql = format!(
        "SELECT tags[{}] IS NOT NULL FROM duckdb_tables() WHERE database_name = {} AND lower(schema_name) = lower({}) \
         AND lower(table_name) = lower({}) AND (tags[{}] IS NOT NULL OR contains(sql, ' DEFAULT('))",
        literal(PLACEMENT_TAG),
        target
            .catalog
            .as_deref()
            .map_or("current_database()".to_owned(), literal),
        literal(target.schema.as_deref().unwrap_or("main")),
        literal(&target.table),
        literal(PLACEMENT_TAG)
    );
    let found = rows(connection, &sql)?.first().map(|table| {
        if table.flag(0) {
            format!("duckherder_exchange({UPLOAD}::UINTEGER)")
        } else {
            IN_ORDER.to_owned()
        }
    });
    Ok(found.or(in_order))
}

/// As rows of an INSERT, which sends those of a herd's table to the workers.
fn take_as_insert(
    connection: &mut Connection,
    herd: &Arc<HerdSession>,
    target: &Target,
    source_sql: &str,
    schema: &SchemaRef,
    batches: &mut mpsc::Receiver<Result<Upload, RemoteError>>,
) -> Result<u64, RemoteError> {
    let columns = schema
        .fields()
        .iter()
        .map(|field| {
            Ok(Column {
                name: field.name().clone(),
                type_text: sql_type(field)?,
            })
        })
        .collect::<Result<Vec<_>, RemoteError>>()?;
    // Whoever sends finds out when this one is dropped.
    let (_, nothing) = mpsc::channel(1);
    let batches = std::mem::replace(batches, nothing);
    let source = Arc::new(UploadSource::new(
        SchemaRef::clone(schema),
        herd.herd().runtime()?,
        batches,
    ));
    herd.set_upload(Some((columns, Arc::clone(&source) as _)));
    let outcome = connection.execute(&format!(
        "INSERT INTO {}{} FROM {source_sql}",
        target.qualified(),
        target.by_name_sql()
    ));
    herd.set_upload(None);
    outcome?;
    source.rows()
}

/// Whether a column has UNION, VARIANT or INTERVAL values as the structs that DuckDB keeps them in: their types are in the text only.
fn is_stored(field: &Field) -> bool {
    let is_named = |text: &str| ["UNION", "VARIANT", "INTERVAL"].iter().any(|name| text.contains(name));
    type_text(field).is_some_and(is_named) && !has_arrow_types(field)
}

/// Whether in a field there is one of Arrow's own types for them.
fn has_arrow_types(field: &Field) -> bool {
    if Exact::of(field) == Some(Exact::Variant) {
        return true;
    }
    match field.data_type() {
        DataType::Union(..) | DataType::Interval(_) => true,
        DataType::List(item)
        | DataType::LargeList(item)
        | DataType::FixedSizeList(item, _)
        | DataType::Map(item, _) => has_arrow_types(item),
        DataType::Struct(fields) => fields.iter().any(|field| has_arrow_types(field)),
        _ => false,
    }
}

/// The statements that make the table.
fn create_table(target: &Target, schema: &Schema) -> Result<Vec<String>, RemoteError> {
    if target.create == Create::No {
        return Ok(Vec::new());
    }
    if schema.fields().is_empty() {
        return Err(RemoteError::new(
            ExceptionType::InvalidInput,
            "a table needs at least one column",
        ));
    }
    let columns = schema
        .fields()
        .iter()
        .map(|field| Ok(format!("{} {}", identifier(field.name()), sql_type(field)?)))
        .collect::<Result<Vec<_>, RemoteError>>()?;
    let table = target.qualified();
    let definition = format!("{table} ({}) {}", columns.join(", "), target.table_clauses);
    let definition = definition.trim_end();
    let kind = if target.temporary { "TEMP TABLE" } else { "TABLE" };
    Ok(match target.create {
        Create::OrReplace => vec![format!("CREATE OR REPLACE {kind} {definition}")],
        Create::IfMissing => vec![format!("CREATE {kind} IF NOT EXISTS {definition}")],
        Create::Replace => vec![format!("DROP TABLE {table}"), format!("CREATE {kind} {definition}")],
        Create::Yes | Create::No => vec![format!("CREATE {kind} {definition}")],
    })
}

/// The DuckDB type of a field: what its metadata says, else what its Arrow type is closest to.
fn sql_type(field: &Field) -> Result<String, RemoteError> {
    if let Some(text) = type_text(field) {
        return Ok(text.to_owned());
    }
    if let Some(exact) = Exact::of(field) {
        return Ok(exact.name().to_owned());
    }
    let text = match field.data_type() {
        DataType::Boolean => "BOOLEAN".to_owned(),
        DataType::Int8 => "TINYINT".to_owned(),
        DataType::Int16 => "SMALLINT".to_owned(),
        DataType::Int32 => "INTEGER".to_owned(),
        DataType::Int64 => "BIGINT".to_owned(),
        DataType::UInt8 => "UTINYINT".to_owned(),
        DataType::UInt16 => "USMALLINT".to_owned(),
        DataType::UInt32 => "UINTEGER".to_owned(),
        DataType::UInt64 => "UBIGINT".to_owned(),
        DataType::Float16 | DataType::Float32 => "FLOAT".to_owned(),
        DataType::Float64 => "DOUBLE".to_owned(),
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View | DataType::Null => "VARCHAR".to_owned(),
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => {
            "BLOB".to_owned()
        }
        DataType::Date32 | DataType::Date64 => "DATE".to_owned(),
        DataType::Time32(_) | DataType::Time64(_) => "TIME".to_owned(),
        DataType::Timestamp(_, Some(_)) => "TIMESTAMPTZ".to_owned(),
        DataType::Timestamp(TimeUnit::Second, None) => "TIMESTAMP_S".to_owned(),
        DataType::Timestamp(TimeUnit::Millisecond, None) => "TIMESTAMP_MS".to_owned(),
        DataType::Timestamp(TimeUnit::Microsecond, None) => "TIMESTAMP".to_owned(),
        DataType::Timestamp(TimeUnit::Nanosecond, None) => "TIMESTAMP_NS".to_owned(),
        DataType::Interval(_) | DataType::Duration(_) => "INTERVAL".to_owned(),
        DataType::Decimal32(width, scale) | DataType::Decimal64(width, scale) | DataType::Decimal128(width, scale) => {
            format!("DECIMAL({width},{scale})")
        }
        DataType::List(item) | DataType::LargeList(item) => format!("{}[]", sql_type(item)?),
        DataType::FixedSizeList(item, size) => format!("{}[{size}]", sql_type(item)?),
        DataType::Struct(fields) => {
            let fields = fields
                .iter()
                .map(|field| Ok(format!("{} {}", identifier(field.name()), sql_type(field)?)))
                .collect::<Result<Vec<_>, RemoteError>>()?;
            format!("STRUCT({})", fields.join(", "))
        }
        DataType::Map(entries, _) => match entries.data_type() {
            DataType::Struct(fields) if fields.len() == 2 => {
                format!("MAP({}, {})", sql_type(&fields[0])?, sql_type(&fields[1])?)
            }
            _ => return Err(no_type(field)),
        },
        DataType::Dictionary(_, value) => sql_type(&Field::new(field.name(), value.as_ref().clone(), true))?,
        _ => return Err(no_type(field)),
    };
    Ok(text)
}

fn no_type(field: &Field) -> RemoteError {
    RemoteError::new(
        ExceptionType::NotImplemented,
        format!(
            "column \"{}\" has Arrow type {}, for which no DuckDB type is chosen automatically; create the table first \
             and append to it",
            field.name(),
            field.data_type()
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_statement_quotes_names_and_nests_types() {
        let item = Field::new("item", DataType::Decimal128(10, 2), true);
        let schema = Schema::new(vec![
            Field::new("a\"b", DataType::Int32, true),
            Field::new("l", DataType::List(item.into()), true),
        ]);
        let target = Target::from(IngestRequest {
            table_name: "t".to_owned(),
            mode: IngestMode::Create.into(),
            ..IngestRequest::default()
        });
        assert_eq!(
            create_table(&target, &schema).unwrap(),
            ["CREATE TABLE \"main\".\"t\" (\"a\"\"b\" INTEGER, \"l\" DECIMAL(10,2)[])"]
        );
        assert!(create_table(&target, &Schema::empty()).is_err());
    }
}
