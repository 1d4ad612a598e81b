//! Taking rows in: one Arrow stream into one table, whole or not at all.

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use duckherder_proto::types::type_text;
use duckherder_proto::v1::{IngestMode, IngestRequest};
use duckherder_proto::{ExceptionType, RemoteError};
use tokio::sync::mpsc;

use crate::catalog::identifier;
use crate::duckdb::{Appender, Connection};
use crate::session::{Lease, Sessions};
use crate::statement::begin;

/// What arrives.
pub enum Upload {
    /// Rows.
    Batch(RecordBatch),
    /// All rows have been sent.
    End {
        /// How many there were.
        rows: u64,
    },
}

/// Appends what `batches` yields, on a blocking thread; the number of rows taken.
pub fn run(
    sessions: &Sessions,
    lease: &mut Lease,
    request: &IngestRequest,
    schema: &SchemaRef,
    batches: &mut mpsc::Receiver<Result<Upload, RemoteError>>,
) -> Result<u64, RemoteError> {
    if request.begin_transaction {
        begin(lease)?;
    }
    lease.apply_settings()?;
    if request.mode() == IngestMode::CreateTemporary {
        lease.session.set_stateful();
    }
    let own_transaction = !lease.session.in_transaction();
    let connection = lease.connection()?;
    if own_transaction {
        connection.execute("BEGIN TRANSACTION")?;
    }
    let outcome = take(connection, request, schema, batches);
    if creates(request) {
        sessions.advance_epoch();
    }
    if !own_transaction {
        return outcome;
    }
    match outcome {
        Ok(rows) => connection.execute("COMMIT").map(|_| rows),
        Err(error) => {
            // The first error is the one to report. The interrupt that ended the upload may hit the rollback too.
            if connection.execute("ROLLBACK").is_err() {
                let _ = connection.execute("ROLLBACK");
            }
            Err(error)
        }
    }
}

fn take(
    connection: &mut Connection,
    request: &IngestRequest,
    schema: &SchemaRef,
    batches: &mut mpsc::Receiver<Result<Upload, RemoteError>>,
) -> Result<u64, RemoteError> {
    let temporary = request.mode() == IngestMode::CreateTemporary;
    let schema_name = if request.schema_name.is_empty() || temporary {
        "main"
    } else {
        &request.schema_name
    };
    if creates(request) || temporary {
        connection.execute(&create_table(schema_name, request, schema)?)?;
    }
    let catalog_name = temporary.then_some("temp");
    let mut appender = Appender::new(connection, catalog_name, schema_name, &request.table_name, schema)?;
    let mut rows = 0;
    loop {
        match batches.blocking_recv().transpose()? {
            Some(Upload::Batch(batch)) => {
                appender.append(&batch)?;
                rows += batch.num_rows() as u64;
            }
            Some(Upload::End { rows: rows_sent }) if rows == rows_sent => break,
            Some(Upload::End { rows: rows_sent }) => {
                return Err(RemoteError::new(
                    ExceptionType::Io,
                    format!("{rows_sent} rows were sent, {rows} arrived; the upload was rolled back"),
                ));
            }
            None => {
                return Err(RemoteError::new(
                    ExceptionType::Interrupt,
                    "the upload broke off before its end and was rolled back",
                ));
            }
        }
    }
    appender.finish()?;
    Ok(rows)
}

fn creates(request: &IngestRequest) -> bool {
    matches!(request.mode(), IngestMode::Create | IngestMode::CreateOrReplace)
}

fn create_table(schema_name: &str, request: &IngestRequest, schema: &Schema) -> Result<String, RemoteError> {
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
    let create = match request.mode() {
        IngestMode::CreateOrReplace => "CREATE OR REPLACE TABLE",
        IngestMode::CreateTemporary => "CREATE OR REPLACE TEMP TABLE",
        _ => "CREATE TABLE",
    };
    Ok(format!(
        "{create} {}.{} ({})",
        identifier(if request.mode() == IngestMode::CreateTemporary {
            "temp"
        } else {
            schema_name
        }),
        identifier(&request.table_name),
        columns.join(", ")
    ))
}

/// The DuckDB type of a field: what its metadata says, else what its Arrow type is closest to.
fn sql_type(field: &Field) -> Result<String, RemoteError> {
    if let Some(text) = type_text(field) {
        return Ok(text.to_owned());
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
        DataType::Dictionary(_, value) => sql_type(&Field::new(field.name(), value.as_ref().clone(), true))?,
        other => {
            return Err(RemoteError::new(
                ExceptionType::NotImplemented,
                format!(
                    "column \"{}\" has Arrow type {other}, for which no DuckDB type is chosen automatically; create \
                     the table first and append to it",
                    field.name()
                ),
            ));
        }
    };
    Ok(text)
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
        let request = IngestRequest {
            table_name: "t".to_owned(),
            ..IngestRequest::default()
        };
        assert_eq!(
            create_table("main", &request, &schema).unwrap(),
            "CREATE TABLE \"main\".\"t\" (\"a\"\"b\" INTEGER, \"l\" DECIMAL(10,2)[])"
        );
        assert!(create_table("main", &request, &Schema::empty()).is_err());
    }
}
