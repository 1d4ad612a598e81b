//! Descriptions of remote tables.

use std::ffi::c_void;
use std::sync::Arc;

use duckherder_proto::v1::{ColumnDescription, TableDescription};

use crate::session::{INDEXES, SEQUENCES};

use super::remote::DhSession;
use super::{DhBuffer, DhInterrupt, DhStatus, DhText, guard};

/// Schemas and tables; what its views point at lives as long as it.
pub struct DhTables {
    schema_names: Vec<String>,
    tables: Vec<Arc<TableDescription>>,
}

/// Result columns; what its views point at lives as long as it.
pub struct DhColumns(Vec<ColumnDescription>);

/// One table or view.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct DhTableView {
    /// Schema.
    pub schema_name: DhText,
    /// Name.
    pub table_name: DhText,
    /// Comment; empty for none.
    pub comment: DhText,
    /// The CREATE statement; empty if unknown.
    pub definition_sql: DhText,
    /// Two views of the same identity are of one and the same description, as long as one of the lists lives.
    pub identity: *const c_void,
    /// A view, not a table.
    pub is_view: bool,
    /// Whether `estimated_rows` is known.
    pub has_estimated_rows: bool,
    /// Rows, about.
    pub estimated_rows: u64,
    /// Columns.
    pub columns_len: usize,
}

/// One column.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct DhColumnView {
    /// Name.
    pub name: DhText,
    /// DuckDB's text of the type.
    pub type_text: DhText,
    /// SQL of the default; empty for none.
    pub default_sql: DhText,
    /// NOT NULL.
    pub not_null: bool,
}

pub(super) fn columns(description: Vec<ColumnDescription>) -> *mut DhColumns {
    Box::into_raw(Box::new(DhColumns(description)))
}

fn column_view(column: &ColumnDescription) -> DhColumnView {
    DhColumnView {
        name: DhText::of(&column.name),
        type_text: DhText::of(&column.type_text),
        default_sql: DhText::of(column.default_sql.as_deref().unwrap_or("")),
        not_null: column.not_null,
    }
}

/// Looks a table or view up by name. `DhEnd` if there is none. With `validate`, never an outdated answer.
///
/// # Safety
/// `session` is live, texts are valid for the call, `tables` (which gets one table) and `error` are places for one each.
pub(super) unsafe extern "C" fn lookup_table(
    session: *const DhSession,
    schema_name: DhText,
    table_name: DhText,
    validate: bool,
    interrupt: DhInterrupt,
    tables: *mut *mut DhTables,
    error: *mut DhBuffer,
) -> DhStatus {
    guard(error, || {
        // SAFETY: the caller's promise.
        let (session, schema_name, table_name) =
            unsafe { (&(*session).0, schema_name.to_owned()?, table_name.to_owned()?) };
        let found = session.lookup_table(&interrupt, &schema_name, &table_name, validate)?;
        let Some(table) = found else { return Ok(DhStatus::DhEnd) };
        let found = DhTables {
            schema_names: Vec::new(),
            tables: vec![table],
        };
        // SAFETY: the caller's promise.
        unsafe { tables.write(Box::into_raw(Box::new(found))) };
        Ok(DhStatus::DhOk)
    })
}

/// Whether a schema exists: `DhOk`, or `DhEnd` if not.
///
/// # Safety
/// `session` is live, `schema_name` is valid for the call, `error` is a place for one buffer.
pub(super) unsafe extern "C" fn lookup_schema(
    session: *const DhSession,
    schema_name: DhText,
    interrupt: DhInterrupt,
    error: *mut DhBuffer,
) -> DhStatus {
    guard(error, || {
        // SAFETY: the caller's promise.
        let (session, schema_name) = unsafe { (&(*session).0, schema_name.to_owned()?) };
        let exists = session.lookup_schema(&interrupt, &schema_name)?;
        Ok(if exists { DhStatus::DhOk } else { DhStatus::DhEnd })
    })
}

/// Whether the server has a function of this name: `DhOk`, or `DhEnd` if not.
///
/// # Safety
/// `session` is live, `name` is valid for the call, `error` is a place for one buffer.
pub(super) unsafe extern "C" fn has_function(
    session: *const DhSession,
    name: DhText,
    interrupt: DhInterrupt,
    error: *mut DhBuffer,
) -> DhStatus {
    guard(error, || {
        // SAFETY: the caller's promise.
        let (session, name) = unsafe { (&(*session).0, name.to_owned()?) };
        let found = session.has_function(&interrupt, &name)?;
        Ok(if found { DhStatus::DhOk } else { DhStatus::DhEnd })
    })
}

/// Lists everything in the remote database.
///
/// # Safety
/// `session` is live; `tables` and `error` are places for one each.
pub(super) unsafe extern "C" fn list_tables(
    session: *const DhSession,
    interrupt: DhInterrupt,
    tables: *mut *mut DhTables,
    error: *mut DhBuffer,
) -> DhStatus {
    guard(error, || {
        // SAFETY: the caller's promise.
        let session = unsafe { &(*session).0 };
        let (schema_names, listed) = session.list_tables(&interrupt)?;
        let listed = DhTables {
            schema_names,
            tables: listed,
        };
        // SAFETY: the caller's promise.
        unsafe { tables.write(Box::into_raw(Box::new(listed))) };
        Ok(DhStatus::DhOk)
    })
}

/// What [`list_definitions`] lists.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub enum DhDefinitionKind {
    /// Sequences.
    DhSequences = 0,
    /// Indexes.
    DhIndexes = 1,
}

/// Lists definitions that are not tables, with names, comments and SQL.
///
/// # Safety
/// `session` is live; `tables` and `error` are places for one each.
pub(super) unsafe extern "C" fn list_definitions(
    session: *const DhSession,
    kind: DhDefinitionKind,
    interrupt: DhInterrupt,
    tables: *mut *mut DhTables,
    error: *mut DhBuffer,
) -> DhStatus {
    guard(error, || {
        // SAFETY: the caller's promise.
        let session = unsafe { &(*session).0 };
        let sql = match kind {
            DhDefinitionKind::DhSequences => SEQUENCES,
            DhDefinitionKind::DhIndexes => INDEXES,
        };
        let listed = DhTables {
            schema_names: Vec::new(),
            tables: session
                .list_definitions(&interrupt, sql)?
                .into_iter()
                .map(Arc::new)
                .collect(),
        };
        // SAFETY: the caller's promise.
        unsafe { tables.write(Box::into_raw(Box::new(listed))) };
        Ok(DhStatus::DhOk)
    })
}

/// Frees a list.
///
/// # Safety
/// `tables` is null or came from this library, and is not used again.
pub(super) unsafe extern "C" fn tables_free(tables: *mut DhTables) {
    if !tables.is_null() {
        // SAFETY: made by `Box::into_raw`, freed once; dropping plain data cannot panic.
        drop(unsafe { Box::from_raw(tables) });
    }
}

/// Number of schemas.
///
/// # Safety
/// `tables` is live.
pub(super) unsafe extern "C" fn tables_schemas_len(tables: *const DhTables) -> usize {
    // SAFETY: the caller's promise.
    unsafe { &*tables }.schema_names.len()
}

/// Name of a schema; empty past the end.
///
/// # Safety
/// `tables` is live.
pub(super) unsafe extern "C" fn tables_schema(tables: *const DhTables, index: usize) -> DhText {
    // SAFETY: the caller's promise.
    DhText::of(unsafe { &*tables }.schema_names.get(index).map_or("", String::as_str))
}

/// Number of tables.
///
/// # Safety
/// `tables` is live.
pub(super) unsafe extern "C" fn tables_len(tables: *const DhTables) -> usize {
    // SAFETY: the caller's promise.
    unsafe { &*tables }.tables.len()
}

/// One table. `DhEnd` past the end.
///
/// # Safety
/// `tables` is live; `view` is a place for one.
pub(super) unsafe extern "C" fn tables_get(tables: *const DhTables, index: usize, view: *mut DhTableView) -> DhStatus {
    // SAFETY: the caller's promise.
    let Some(table) = unsafe { &*tables }.tables.get(index) else {
        return DhStatus::DhEnd;
    };
    let found = DhTableView {
        schema_name: DhText::of(&table.schema_name),
        table_name: DhText::of(&table.table_name),
        comment: DhText::of(&table.comment),
        definition_sql: DhText::of(&table.definition_sql),
        identity: Arc::as_ptr(table).cast(),
        is_view: table.is_view,
        has_estimated_rows: table.estimated_rows.is_some(),
        estimated_rows: table.estimated_rows.unwrap_or(0),
        columns_len: table.columns.len(),
    };
    // SAFETY: the caller's promise.
    unsafe { view.write(found) };
    DhStatus::DhOk
}

/// One column of a table. `DhEnd` past the end.
///
/// # Safety
/// `tables` is live; `view` is a place for one.
pub(super) unsafe extern "C" fn tables_column(
    tables: *const DhTables,
    table: usize,
    column: usize,
    view: *mut DhColumnView,
) -> DhStatus {
    // SAFETY: the caller's promise.
    let tables = unsafe { &*tables };
    let Some(found) = tables.tables.get(table).and_then(|table| table.columns.get(column)) else {
        return DhStatus::DhEnd;
    };
    // SAFETY: the caller's promise.
    unsafe { view.write(column_view(found)) };
    DhStatus::DhOk
}

/// Frees result columns.
///
/// # Safety
/// `columns` is null or came from this library, and is not used again.
pub(super) unsafe extern "C" fn columns_free(columns: *mut DhColumns) {
    if !columns.is_null() {
        // SAFETY: made by `Box::into_raw`, freed once; dropping plain data cannot panic.
        drop(unsafe { Box::from_raw(columns) });
    }
}

/// One result column. `DhEnd` past the end.
///
/// # Safety
/// `columns` is live; `view` is a place for one.
pub(super) unsafe extern "C" fn columns_get(
    columns: *const DhColumns,
    index: usize,
    view: *mut DhColumnView,
) -> DhStatus {
    // SAFETY: the caller's promise.
    let Some(column) = unsafe { &*columns }.0.get(index) else {
        return DhStatus::DhEnd;
    };
    // SAFETY: the caller's promise.
    unsafe { view.write(column_view(column)) };
    DhStatus::DhOk
}
