//! Descriptions of remote tables.

use std::ffi::c_void;
use std::sync::Arc;

use duckherder_catalog::SchemaPath;
use duckherder_proto::v1::{ColumnDescription, DefinitionDescription, DefinitionKind, TableDescription};

use crate::error::{ForUser, Result};

use super::remote::DhSession;
use super::{DhBuffer, DhInterrupt, DhStatus, DhText, guard};

/// Schemas and tables; what its views point at lives as long as it.
pub struct DhTables {
    /// As SQL.
    schemas: Vec<String>,
    tables: Vec<ListedTable>,
}

/// A table, and the path of its schema as SQL.
struct ListedTable {
    schema_path: String,
    description: Arc<TableDescription>,
}

impl ListedTable {
    fn new(description: Arc<TableDescription>) -> Self {
        Self {
            schema_path: SchemaPath::new(&description.parent_schemas, &description.schema_name).to_string(),
            description,
        }
    }
}

/// Entries of the catalog that are no tables; what its views point at lives as long as it.
pub struct DhDefinitions(Vec<ListedDefinition>);

/// One of them, and the path of its schema as SQL.
struct ListedDefinition {
    schema_path: String,
    description: Arc<DefinitionDescription>,
}

impl DhDefinitions {
    fn new(definitions: impl Iterator<Item = Arc<DefinitionDescription>>) -> Self {
        let listed = definitions.map(|description| ListedDefinition {
            schema_path: SchemaPath::new(&description.parent_schemas, &description.schema_name).to_string(),
            description,
        });
        Self(listed.collect())
    }
}

/// Result columns; what its views point at lives as long as it.
pub struct DhColumns(Vec<ColumnDescription>);

/// One table or view.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct DhTableView {
    /// The path of its schema, as SQL in which every name is quoted.
    pub schema_path: DhText,
    /// Name.
    pub table_name: DhText,
    /// Whether it has a comment.
    pub has_comment: bool,
    /// Comment.
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
    /// The number of the entry on the server.
    pub oid: u64,
    /// Indexes, those of keys included.
    pub index_count: u64,
    /// Columns.
    pub columns_len: usize,
    /// Triggers.
    pub triggers_len: usize,
    /// Tags.
    pub tags_len: usize,
}

/// One index in which a value may be once.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct DhUniqueIndexView {
    /// Where its columns are among the table's, if the server is right.
    pub columns: *const u32,
    /// Number of `columns`.
    pub columns_len: usize,
    /// Whether it is that of the primary key.
    pub is_primary_key: bool,
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
    /// Whether it has a comment.
    pub has_comment: bool,
    /// Comment.
    pub comment: DhText,
}

/// Entries of a catalog that are no tables.
#[expect(
    clippy::enum_variant_names,
    reason = "C has one name space for the values of all enumerations"
)]
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DhDefinitionKind {
    /// Sequences.
    DhSequence = 0,
    /// Indexes.
    DhIndex = 1,
    /// Types.
    DhType = 2,
    /// Scalar macros.
    DhMacro = 3,
    /// Table macros.
    DhTableMacro = 4,
}

/// One entry that is no table.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct DhDefinitionView {
    /// The path of its schema, as SQL in which every name is quoted.
    pub schema_path: DhText,
    /// Name.
    pub name: DhText,
    /// Whether it has a comment.
    pub has_comment: bool,
    /// Comment.
    pub comment: DhText,
    /// The CREATE statement.
    pub definition_sql: DhText,
    /// The table of an index.
    pub table_name: DhText,
    /// The number of the entry on the server.
    pub oid: u64,
    /// Where a sequence began.
    pub start_value: i64,
    /// Whether it is a sequence that has been used.
    pub has_last_value: bool,
    /// Its last value.
    pub last_value: i64,
    /// Two views of the same identity are of one and the same description, as long as one of the lists lives.
    pub identity: *const c_void,
    /// Tags.
    pub tags_len: usize,
}

fn path(text: &str) -> Result<SchemaPath> {
    text.parse().map_err(ForUser::for_user)
}

fn text(text: Option<&String>) -> DhText {
    DhText::of(text.map_or("", String::as_str))
}

impl From<DhDefinitionKind> for DefinitionKind {
    fn from(kind: DhDefinitionKind) -> Self {
        match kind {
            DhDefinitionKind::DhSequence => Self::Sequence,
            DhDefinitionKind::DhIndex => Self::Index,
            DhDefinitionKind::DhType => Self::Type,
            DhDefinitionKind::DhMacro => Self::Macro,
            DhDefinitionKind::DhTableMacro => Self::TableMacro,
        }
    }
}

fn definition_view(schema_path: &str, definition: &DefinitionDescription) -> DhDefinitionView {
    DhDefinitionView {
        schema_path: DhText::of(schema_path),
        name: DhText::of(&definition.name),
        has_comment: definition.comment.is_some(),
        comment: text(definition.comment.as_ref()),
        definition_sql: DhText::of(&definition.definition_sql),
        table_name: DhText::of(&definition.table_name),
        oid: definition.oid,
        start_value: definition.start_value,
        has_last_value: definition.last_value.is_some(),
        last_value: definition.last_value.unwrap_or(0),
        identity: (&raw const *definition).cast(),
        tags_len: definition.tags.len(),
    }
}

pub(super) fn columns(description: Vec<ColumnDescription>) -> *mut DhColumns {
    Box::into_raw(Box::new(DhColumns(description)))
}

fn column_view(column: &ColumnDescription) -> DhColumnView {
    DhColumnView {
        name: DhText::of(&column.name),
        type_text: DhText::of(&column.type_text),
        default_sql: text(column.default_sql.as_ref()),
        not_null: column.not_null,
        has_comment: column.comment.is_some(),
        comment: text(column.comment.as_ref()),
    }
}

/// Looks a table or view up by name, in the schema of that path, which is SQL. `DhEnd` if there is none. With `validate`,
/// never an outdated answer.
///
/// # Safety
/// `session` is live, texts are valid for the call, `tables` (which gets one table) and `error` are places for one each.
pub(super) unsafe extern "C" fn lookup_table(
    session: *const DhSession,
    schema_path: DhText,
    table_name: DhText,
    validate: bool,
    interrupt: DhInterrupt,
    tables: *mut *mut DhTables,
    error: *mut DhBuffer,
) -> DhStatus {
    guard(error, || {
        // SAFETY: the caller's promise.
        let (session, schema_path, table_name) =
            unsafe { (&(*session).0, schema_path.to_owned()?, table_name.to_owned()?) };
        let found = session.lookup_table(&interrupt, &path(&schema_path)?, &table_name, validate)?;
        let Some(table) = found else { return Ok(DhStatus::DhEnd) };
        let found = DhTables {
            schemas: Vec::new(),
            tables: vec![ListedTable::new(table)],
        };
        // SAFETY: the caller's promise.
        unsafe { tables.write(Box::into_raw(Box::new(found))) };
        Ok(DhStatus::DhOk)
    })
}

/// Whether the schema of that path, which is SQL, exists: `DhOk`, or `DhEnd` if not.
///
/// # Safety
/// `session` is live, `schema_path` is valid for the call, `error` is a place for one buffer.
pub(super) unsafe extern "C" fn lookup_schema(
    session: *const DhSession,
    schema_path: DhText,
    interrupt: DhInterrupt,
    error: *mut DhBuffer,
) -> DhStatus {
    guard(error, || {
        // SAFETY: the caller's promise.
        let (session, schema_path) = unsafe { (&(*session).0, schema_path.to_owned()?) };
        let exists = session.lookup_schema(&interrupt, &path(&schema_path)?)?;
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
        let (schemas, listed) = session.list_tables(&interrupt)?;
        let listed = DhTables {
            schemas: schemas.iter().map(SchemaPath::to_string).collect(),
            tables: listed.into_iter().map(ListedTable::new).collect(),
        };
        // SAFETY: the caller's promise.
        unsafe { tables.write(Box::into_raw(Box::new(listed))) };
        Ok(DhStatus::DhOk)
    })
}

/// Lists the entries of one kind. Triggers are with their tables.
///
/// # Safety
/// `session` is live; `definitions` and `error` are places for one each.
pub(super) unsafe extern "C" fn list_definitions(
    session: *const DhSession,
    kind: DhDefinitionKind,
    interrupt: DhInterrupt,
    definitions: *mut *mut DhDefinitions,
    error: *mut DhBuffer,
) -> DhStatus {
    guard(error, || {
        // SAFETY: the caller's promise.
        let session = unsafe { &(*session).0 };
        let listed = session.list_definitions(&interrupt, kind.into())?;
        let listed = DhDefinitions::new(listed.into_iter().map(Arc::new));
        // SAFETY: the caller's promise.
        unsafe { definitions.write(Box::into_raw(Box::new(listed))) };
        Ok(DhStatus::DhOk)
    })
}

/// Looks a type or macro up by name, in the schema of that path, which is SQL. `DhEnd` if there is none. With `validate`,
/// never an outdated answer.
///
/// # Safety
/// `session` is live, texts are valid for the call, `definitions` (which gets one) and `error` are places for one each.
pub(super) unsafe extern "C" fn lookup_definition(
    session: *const DhSession,
    kind: DhDefinitionKind,
    schema_path: DhText,
    name: DhText,
    validate: bool,
    interrupt: DhInterrupt,
    definitions: *mut *mut DhDefinitions,
    error: *mut DhBuffer,
) -> DhStatus {
    guard(error, || {
        // SAFETY: the caller's promise.
        let (session, schema_path, name) = unsafe { (&(*session).0, schema_path.to_owned()?, name.to_owned()?) };
        let found = session.lookup_definition(&interrupt, kind.into(), &path(&schema_path)?, &name, validate)?;
        let Some(found) = found else { return Ok(DhStatus::DhEnd) };
        let found = DhDefinitions::new(std::iter::once(found));
        // SAFETY: the caller's promise.
        unsafe { definitions.write(Box::into_raw(Box::new(found))) };
        Ok(DhStatus::DhOk)
    })
}

/// Frees a list of definitions.
///
/// # Safety
/// `definitions` is null or came from this library, and is not used again.
pub(super) unsafe extern "C" fn definitions_free(definitions: *mut DhDefinitions) {
    if !definitions.is_null() {
        // SAFETY: made by `Box::into_raw`, freed once; dropping plain data cannot panic.
        drop(unsafe { Box::from_raw(definitions) });
    }
}

/// One definition. `DhEnd` past the end.
///
/// # Safety
/// `definitions` is live; `view` is a place for one.
pub(super) unsafe extern "C" fn definitions_get(
    definitions: *const DhDefinitions,
    index: usize,
    view: *mut DhDefinitionView,
) -> DhStatus {
    // SAFETY: the caller's promise.
    let Some(listed) = unsafe { &*definitions }.0.get(index) else {
        return DhStatus::DhEnd;
    };
    // SAFETY: the caller's promise.
    unsafe { view.write(definition_view(&listed.schema_path, &listed.description)) };
    DhStatus::DhOk
}

/// One tag of a definition. `DhEnd` past the end.
///
/// # Safety
/// `definitions` is live; `name` and `value` are places for one each.
pub(super) unsafe extern "C" fn definitions_tag(
    definitions: *const DhDefinitions,
    index: usize,
    tag: usize,
    name: *mut DhText,
    value: *mut DhText,
) -> DhStatus {
    // SAFETY: the caller's promise.
    let definition = unsafe { &*definitions }.0.get(index);
    let Some(found) = definition.and_then(|listed| listed.description.tags.iter().nth(tag)) else {
        return DhStatus::DhEnd;
    };
    // SAFETY: the caller's promise.
    unsafe {
        name.write(DhText::of(found.0));
        value.write(DhText::of(found.1));
    }
    DhStatus::DhOk
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
    unsafe { &*tables }.schemas.len()
}

/// Path of a schema, as SQL in which every name is quoted; empty past the end.
///
/// # Safety
/// `tables` is live.
pub(super) unsafe extern "C" fn tables_schema(tables: *const DhTables, index: usize) -> DhText {
    // SAFETY: the caller's promise.
    text(unsafe { &*tables }.schemas.get(index))
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
    let Some(listed) = unsafe { &*tables }.tables.get(index) else {
        return DhStatus::DhEnd;
    };
    let table = &listed.description;
    let found = DhTableView {
        schema_path: DhText::of(&listed.schema_path),
        table_name: DhText::of(&table.table_name),
        has_comment: table.comment.is_some(),
        comment: text(table.comment.as_ref()),
        definition_sql: DhText::of(&table.definition_sql),
        identity: Arc::as_ptr(table).cast(),
        is_view: table.is_view,
        has_estimated_rows: table.estimated_rows.is_some(),
        estimated_rows: table.estimated_rows.unwrap_or(0),
        oid: table.oid,
        index_count: table.index_count,
        columns_len: table.columns.len(),
        triggers_len: table.triggers.len(),
        tags_len: table.tags.len(),
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
    let Some(found) = tables
        .tables
        .get(table)
        .and_then(|listed| listed.description.columns.get(column))
    else {
        return DhStatus::DhEnd;
    };
    // SAFETY: the caller's promise.
    unsafe { view.write(column_view(found)) };
    DhStatus::DhOk
}

/// One index of a table in which a value may be once. `DhEnd` past the end.
///
/// # Safety
/// `tables` is live; `view` is a place for one.
pub(super) unsafe extern "C" fn tables_unique_index(
    tables: *const DhTables,
    table: usize,
    index: usize,
    view: *mut DhUniqueIndexView,
) -> DhStatus {
    // SAFETY: the caller's promise.
    let table = unsafe { &*tables }.tables.get(table);
    let Some(found) = table.and_then(|listed| listed.description.unique_indexes.get(index)) else {
        return DhStatus::DhEnd;
    };
    let found = DhUniqueIndexView {
        columns: found.columns.as_ptr(),
        columns_len: found.columns.len(),
        is_primary_key: found.is_primary_key,
    };
    // SAFETY: the caller's promise.
    unsafe { view.write(found) };
    DhStatus::DhOk
}

/// One trigger of a table. `DhEnd` past the end.
///
/// # Safety
/// `tables` is live; `view` is a place for one.
pub(super) unsafe extern "C" fn tables_trigger(
    tables: *const DhTables,
    table: usize,
    trigger: usize,
    view: *mut DhDefinitionView,
) -> DhStatus {
    // SAFETY: the caller's promise.
    let Some(listed) = unsafe { &*tables }.tables.get(table) else {
        return DhStatus::DhEnd;
    };
    let Some(found) = listed.description.triggers.get(trigger) else {
        return DhStatus::DhEnd;
    };
    // SAFETY: the caller's promise.
    unsafe { view.write(definition_view(&listed.schema_path, found)) };
    DhStatus::DhOk
}

/// One tag of a table. `DhEnd` past the end.
///
/// # Safety
/// `tables` is live; `name` and `value` are places for one each.
pub(super) unsafe extern "C" fn tables_tag(
    tables: *const DhTables,
    table: usize,
    tag: usize,
    name: *mut DhText,
    value: *mut DhText,
) -> DhStatus {
    // SAFETY: the caller's promise.
    let table = unsafe { &*tables }.tables.get(table);
    let Some(found) = table.and_then(|listed| listed.description.tags.iter().nth(tag)) else {
        return DhStatus::DhEnd;
    };
    // SAFETY: the caller's promise.
    unsafe {
        name.write(DhText::of(found.0));
        value.write(DhText::of(found.1));
    }
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
