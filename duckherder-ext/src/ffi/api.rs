//! The table of functions that C++ calls.
//!
//! C++ gets it when the extension is loaded. Nothing is looked up by name, so the shared library exports its entry point
//! and nothing else.

use super::catalog::{
    DhColumnView, DhColumns, DhDefinitionKind, DhDefinitionView, DhDefinitions, DhTableView, DhTables,
    DhUniqueIndexView,
};
use super::query::{ArrowArray, ArrowSchema, DhGroup, DhScan};
use super::remote::{DhOption, DhRemote, DhSession};
use super::types::{DhBuffer, DhInterrupt, DhStatus, DhText, DhWaker};
use super::upload::{DhIngestMode, DhUpload};
use super::{catalog, herd, local, query, remote, types, upload};

/// What C++ can ask for. What each function promises and asks for is documented with its definition.
#[repr(C)]
pub struct DhApi {
    /// Frees a buffer. Null is fine; twice is not.
    pub buffer_free: unsafe extern "C" fn(buffer: DhBuffer),
    /// Starts the duckling inside this process, and workers for it; its address goes to `address`.
    pub local_server_start: unsafe extern "C" fn(
        port: u16,
        workers: u32,
        interrupt: DhInterrupt,
        address: *mut DhBuffer,
        error: *mut DhBuffer,
    ) -> DhStatus,
    /// Stops all ducklings inside this process; the address that the server had, empty if there was none, goes to
    /// `address`, the number of workers to `workers`.
    pub local_server_stop: unsafe extern "C" fn(
        interrupt: DhInterrupt,
        address: *mut DhBuffer,
        workers: *mut u64,
        error: *mut DhBuffer,
    ) -> DhStatus,
    /// Starts a duckling inside this process that is to be somebody's worker; its address goes to `address`.
    pub local_worker_start: unsafe extern "C" fn(
        port: u16,
        interrupt: DhInterrupt,
        address: *mut DhBuffer,
        error: *mut DhBuffer,
    ) -> DhStatus,
    /// Makes a duckling inside this process a worker of the coordinator at that address, under that id; its own address
    /// goes to `address`.
    pub local_worker_join: unsafe extern "C" fn(
        id: DhText,
        coordinator: DhText,
        interrupt: DhInterrupt,
        address: *mut DhBuffer,
        error: *mut DhBuffer,
    ) -> DhStatus,
    /// Makes the duckling at an address a worker of a coordinator; its id goes to `id`, its address to `address`.
    pub worker_register: unsafe extern "C" fn(
        remote: *const DhRemote,
        worker: DhText,
        interrupt: DhInterrupt,
        id: *mut DhBuffer,
        address: *mut DhBuffer,
        error: *mut DhBuffer,
    ) -> DhStatus,
    /// Takes a worker, named by its id or its address, out of a herd, one that is `lost` with its rows; its id goes to
    /// `id`, its address to `address`.
    pub worker_unregister: unsafe extern "C" fn(
        remote: *const DhRemote,
        worker: DhText,
        lost: bool,
        interrupt: DhInterrupt,
        id: *mut DhBuffer,
        address: *mut DhBuffer,
        error: *mut DhBuffer,
    ) -> DhStatus,
    /// How many workers of a coordinator statements can use.
    pub worker_count: unsafe extern "C" fn(
        remote: *const DhRemote,
        interrupt: DhInterrupt,
        count: *mut u64,
        error: *mut DhBuffer,
    ) -> DhStatus,
    /// Forgets the query history.
    pub history_clear: unsafe extern "C" fn(error: *mut DhBuffer) -> DhStatus,
    /// Connects to a duckling.
    pub remote_attach: unsafe extern "C" fn(
        catalog_name: DhText,
        duckdb_version: DhText,
        options: *const DhOption,
        options_len: usize,
        interrupt: DhInterrupt,
        remote: *mut *mut DhRemote,
        error: *mut DhBuffer,
    ) -> DhStatus,
    /// Drops an attached duckling. Sessions and scans under way keep what they need.
    pub remote_free: unsafe extern "C" fn(remote: *mut DhRemote),
    /// `host:port` of an attached duckling, valid as long as it is.
    pub remote_address: unsafe extern "C" fn(remote: *const DhRemote) -> DhText,
    /// Sets an alias.
    pub alias_register: unsafe extern "C" fn(
        remote: *const DhRemote,
        local_name: DhText,
        remote_name: DhText,
        error: *mut DhBuffer,
    ) -> DhStatus,
    /// Removes an alias.
    pub alias_unregister:
        unsafe extern "C" fn(remote: *const DhRemote, local_name: DhText, error: *mut DhBuffer) -> DhStatus,
    /// What an alias stands for: schema (empty for the default one) and table. `DhEnd` if it is no alias.
    pub alias_resolve: unsafe extern "C" fn(
        remote: *const DhRemote,
        local_name: DhText,
        schema_name: *mut DhBuffer,
        table_name: *mut DhBuffer,
        error: *mut DhBuffer,
    ) -> DhStatus,
    /// Makes a session, which is opened on the duckling with its first request.
    pub session_open:
        unsafe extern "C" fn(remote: *const DhRemote, session: *mut *mut DhSession, error: *mut DhBuffer) -> DhStatus,
    /// Closes a session; the server rolls back what is open.
    pub session_free: unsafe extern "C" fn(session: *mut DhSession),
    /// Commits the server's part of the transaction, if it has one.
    pub session_commit:
        unsafe extern "C" fn(session: *const DhSession, interrupt: DhInterrupt, error: *mut DhBuffer) -> DhStatus,
    /// Rolls the server's part of the transaction back, if it has one. Never fails.
    pub session_rollback: unsafe extern "C" fn(session: *const DhSession),
    /// Drops a temporary table of the session, if it can. Never fails.
    pub session_drop_temporary: unsafe extern "C" fn(session: *const DhSession, name: DhText),
    /// Loads a DuckDB extension on the server.
    pub load_extension: unsafe extern "C" fn(
        session: *const DhSession,
        name: DhText,
        interrupt: DhInterrupt,
        error: *mut DhBuffer,
    ) -> DhStatus,
    /// Starts a statement and waits for its result's schema. `typed` is the user's text, if the statement was made of that
    /// alone, and empty otherwise.
    pub scan_start: unsafe extern "C" fn(
        session: *const DhSession,
        sql: DhText,
        typed: DhText,
        transactional: bool,
        writes: bool,
        interrupt: DhInterrupt,
        scan: *mut *mut DhScan,
        error: *mut DhBuffer,
    ) -> DhStatus,
    /// The columns that a statement's result will most likely have, if it was sent ahead: a result of these without rows.
    /// Else `DhEnd`.
    pub scan_foreseen: unsafe extern "C" fn(
        session: *const DhSession,
        sql: DhText,
        scan: *mut *mut DhScan,
        error: *mut DhBuffer,
    ) -> DhStatus,
    /// Whether two results have the same columns.
    pub scan_has_columns_of: unsafe extern "C" fn(scan: *const DhScan, other: *const DhScan) -> bool,
    /// Whether all of a result is there, and one group at most.
    pub scan_is_one_group: unsafe extern "C" fn(scan: *const DhScan) -> bool,
    /// Reads the query history.
    pub scan_history: unsafe extern "C" fn(scan: *mut *mut DhScan, error: *mut DhBuffer) -> DhStatus,
    /// The Arrow schema of a result; the caller releases it.
    pub scan_schema:
        unsafe extern "C" fn(scan: *const DhScan, schema: *mut ArrowSchema, error: *mut DhBuffer) -> DhStatus,
    /// The DuckDB type text of a result column, valid as long as the result; empty if the Arrow type says it all.
    pub scan_type_text: unsafe extern "C" fn(scan: *const DhScan, column: usize) -> DhText,
    /// The next group of batches, for one thread. `DhEnd` after the last one.
    pub scan_next: unsafe extern "C" fn(
        scan: *const DhScan,
        interrupt: DhInterrupt,
        group: *mut *mut DhGroup,
        error: *mut DhBuffer,
    ) -> DhStatus,
    /// As `scan_next`, but `DhPending` instead of waiting: then `waker` is called.
    pub scan_next_or_wake: unsafe extern "C" fn(
        scan: *const DhScan,
        waker: DhWaker,
        group: *mut *mut DhGroup,
        error: *mut DhBuffer,
    ) -> DhStatus,
    /// The place of a group in its result: 0, 1, 2 …
    pub group_index: unsafe extern "C" fn(group: *const DhGroup) -> u64,
    /// Takes the next batch out of a group: a struct array the caller releases. `DhEnd` after the last one.
    pub group_next: unsafe extern "C" fn(group: *mut DhGroup, array: *mut ArrowArray, error: *mut DhBuffer) -> DhStatus,
    /// Lets go of a group.
    pub group_free: unsafe extern "C" fn(group: *mut DhGroup),
    /// Rows handed out so far.
    pub scan_rows_read: unsafe extern "C" fn(scan: *const DhScan) -> u64,
    /// How far the statement is, from 0 to 1, as the duckling estimates it; -1 if that is not known.
    pub scan_progress: unsafe extern "C" fn(scan: *const DhScan) -> f64,
    /// Ends a result; the statement is cancelled if it still runs.
    pub scan_free: unsafe extern "C" fn(scan: *mut DhScan),
    /// The columns of a statement's result, without running it.
    pub describe: unsafe extern "C" fn(
        session: *const DhSession,
        sql: DhText,
        interrupt: DhInterrupt,
        described: *mut *mut DhColumns,
        error: *mut DhBuffer,
    ) -> DhStatus,
    /// Looks a table or view up by name, in the schema of that path, which is SQL. `DhEnd` if there is none. With
    /// `validate`, never an outdated answer.
    pub lookup_table: unsafe extern "C" fn(
        session: *const DhSession,
        schema_path: DhText,
        table_name: DhText,
        validate: bool,
        interrupt: DhInterrupt,
        tables: *mut *mut DhTables,
        error: *mut DhBuffer,
    ) -> DhStatus,
    /// Whether the schema of that path, which is SQL, exists: `DhOk`, or `DhEnd` if not.
    pub lookup_schema: unsafe extern "C" fn(
        session: *const DhSession,
        schema_path: DhText,
        interrupt: DhInterrupt,
        error: *mut DhBuffer,
    ) -> DhStatus,
    /// Whether the server has a function of this name, in lower case: `DhOk`, or `DhEnd` if not.
    pub has_function: unsafe extern "C" fn(
        session: *const DhSession,
        name: DhText,
        interrupt: DhInterrupt,
        error: *mut DhBuffer,
    ) -> DhStatus,
    /// Lists the entries of one kind. Triggers are with their tables.
    pub list_definitions: unsafe extern "C" fn(
        session: *const DhSession,
        kind: DhDefinitionKind,
        interrupt: DhInterrupt,
        definitions: *mut *mut DhDefinitions,
        error: *mut DhBuffer,
    ) -> DhStatus,
    /// Looks a type or macro up by name, in the schema of that path, which is SQL. `DhEnd` if there is none. With
    /// `validate`, never an outdated answer.
    pub lookup_definition: unsafe extern "C" fn(
        session: *const DhSession,
        kind: DhDefinitionKind,
        schema_path: DhText,
        name: DhText,
        validate: bool,
        interrupt: DhInterrupt,
        definitions: *mut *mut DhDefinitions,
        error: *mut DhBuffer,
    ) -> DhStatus,
    /// Frees a list of definitions.
    pub definitions_free: unsafe extern "C" fn(definitions: *mut DhDefinitions),
    /// One definition. `DhEnd` past the end.
    pub definitions_get:
        unsafe extern "C" fn(definitions: *const DhDefinitions, index: usize, view: *mut DhDefinitionView) -> DhStatus,
    /// One tag of a definition. `DhEnd` past the end.
    pub definitions_tag: unsafe extern "C" fn(
        definitions: *const DhDefinitions,
        index: usize,
        tag: usize,
        name: *mut DhText,
        value: *mut DhText,
    ) -> DhStatus,
    /// Lists everything in the remote database.
    pub list_tables: unsafe extern "C" fn(
        session: *const DhSession,
        interrupt: DhInterrupt,
        tables: *mut *mut DhTables,
        error: *mut DhBuffer,
    ) -> DhStatus,
    /// Frees a list.
    pub tables_free: unsafe extern "C" fn(tables: *mut DhTables),
    /// Number of schemas.
    pub tables_schemas_len: unsafe extern "C" fn(tables: *const DhTables) -> usize,
    /// Path of a schema, as SQL in which every name is quoted; empty past the end.
    pub tables_schema: unsafe extern "C" fn(tables: *const DhTables, index: usize) -> DhText,
    /// Number of tables.
    pub tables_len: unsafe extern "C" fn(tables: *const DhTables) -> usize,
    /// One table. `DhEnd` past the end.
    pub tables_get: unsafe extern "C" fn(tables: *const DhTables, index: usize, view: *mut DhTableView) -> DhStatus,
    /// One column of a table. `DhEnd` past the end.
    pub tables_column:
        unsafe extern "C" fn(tables: *const DhTables, table: usize, column: usize, view: *mut DhColumnView) -> DhStatus,
    /// One index of a table in which a value may be once. `DhEnd` past the end.
    pub tables_unique_index: unsafe extern "C" fn(
        tables: *const DhTables,
        table: usize,
        index: usize,
        view: *mut DhUniqueIndexView,
    ) -> DhStatus,
    /// One trigger of a table. `DhEnd` past the end.
    pub tables_trigger: unsafe extern "C" fn(
        tables: *const DhTables,
        table: usize,
        trigger: usize,
        view: *mut DhDefinitionView,
    ) -> DhStatus,
    /// One tag of a table. `DhEnd` past the end.
    pub tables_tag: unsafe extern "C" fn(
        tables: *const DhTables,
        table: usize,
        tag: usize,
        name: *mut DhText,
        value: *mut DhText,
    ) -> DhStatus,
    /// Frees result columns.
    pub columns_free: unsafe extern "C" fn(columns: *mut DhColumns),
    /// One result column. `DhEnd` past the end.
    pub columns_get: unsafe extern "C" fn(columns: *const DhColumns, index: usize, view: *mut DhColumnView) -> DhStatus,
    /// Says what the settings of the client connection are that change what a statement means.
    pub session_settings: unsafe extern "C" fn(
        session: *const DhSession,
        settings: *const DhOption,
        settings_len: usize,
        error: *mut DhBuffer,
    ) -> DhStatus,
    /// Whether what the user has written is like a read that has been sent before. Never fails.
    pub session_foresees: unsafe extern "C" fn(session: *const DhSession, typed: DhText) -> bool,
    /// Sends what the query that begins will most likely become; whether it was sent. Never fails.
    pub session_send_ahead: unsafe extern "C" fn(session: *const DhSession, typed: DhText) -> bool,
    /// Cancels what was sent ahead, if it has not been asked for. Never fails.
    pub session_drop_ahead: unsafe extern "C" fn(session: *const DhSession),
    /// Begins the server's part of the transaction now.
    pub session_begin:
        unsafe extern "C" fn(session: *const DhSession, interrupt: DhInterrupt, error: *mut DhBuffer) -> DhStatus,
    /// Starts sending rows of an Arrow schema to a table.
    pub upload_start: unsafe extern "C" fn(
        session: *const DhSession,
        schema_path: DhText,
        table_name: DhText,
        mode: DhIngestMode,
        table_clauses: DhText,
        transactional: bool,
        schema: *const ArrowSchema,
        type_texts: *const DhText,
        interrupt: DhInterrupt,
        upload: *mut *mut DhUpload,
        error: *mut DhBuffer,
    ) -> DhStatus,
    /// Sends a batch: a struct array, which is taken over.
    pub upload_push: unsafe extern "C" fn(
        upload: *const DhUpload,
        array: *mut ArrowArray,
        interrupt: DhInterrupt,
        error: *mut DhBuffer,
    ) -> DhStatus,
    /// Ends an upload and waits until the server has kept it; the number of rows goes to `rows`.
    pub upload_finish: unsafe extern "C" fn(
        upload: *mut DhUpload,
        interrupt: DhInterrupt,
        rows: *mut u64,
        error: *mut DhBuffer,
    ) -> DhStatus,
    /// Frees an upload; one that was not finished is broken off.
    pub upload_free: unsafe extern "C" fn(upload: *mut DhUpload),
}

/// The functions of this library.
pub(super) static API: DhApi = DhApi {
    buffer_free: types::buffer_free,
    local_server_start: local::local_server_start,
    local_server_stop: local::local_server_stop,
    local_worker_start: local::local_worker_start,
    local_worker_join: local::local_worker_join,
    worker_register: herd::worker_register,
    worker_unregister: herd::worker_unregister,
    worker_count: herd::worker_count,
    history_clear: local::history_clear,
    remote_attach: remote::remote_attach,
    remote_free: remote::remote_free,
    remote_address: remote::remote_address,
    alias_register: remote::alias_register,
    alias_unregister: remote::alias_unregister,
    alias_resolve: remote::alias_resolve,
    session_open: remote::session_open,
    session_free: remote::session_free,
    session_commit: remote::session_commit,
    session_rollback: remote::session_rollback,
    session_drop_temporary: remote::session_drop_temporary,
    load_extension: remote::load_extension,
    scan_start: query::scan_start,
    scan_foreseen: query::scan_foreseen,
    scan_has_columns_of: query::scan_has_columns_of,
    scan_is_one_group: query::scan_is_one_group,
    scan_history: query::scan_history,
    scan_schema: query::scan_schema,
    scan_type_text: query::scan_type_text,
    scan_next: query::scan_next,
    scan_next_or_wake: query::scan_next_or_wake,
    group_index: query::group_index,
    group_next: query::group_next,
    group_free: query::group_free,
    scan_rows_read: query::scan_rows_read,
    scan_progress: query::scan_progress,
    scan_free: query::scan_free,
    describe: query::describe,
    lookup_table: catalog::lookup_table,
    lookup_schema: catalog::lookup_schema,
    has_function: catalog::has_function,
    list_tables: catalog::list_tables,
    list_definitions: catalog::list_definitions,
    lookup_definition: catalog::lookup_definition,
    definitions_free: catalog::definitions_free,
    definitions_get: catalog::definitions_get,
    definitions_tag: catalog::definitions_tag,
    tables_free: catalog::tables_free,
    tables_schemas_len: catalog::tables_schemas_len,
    tables_schema: catalog::tables_schema,
    tables_len: catalog::tables_len,
    tables_get: catalog::tables_get,
    tables_column: catalog::tables_column,
    tables_unique_index: catalog::tables_unique_index,
    tables_trigger: catalog::tables_trigger,
    tables_tag: catalog::tables_tag,
    columns_free: catalog::columns_free,
    columns_get: catalog::columns_get,
    session_settings: remote::session_settings,
    session_foresees: remote::session_foresees,
    session_send_ahead: remote::session_send_ahead,
    session_drop_ahead: remote::session_drop_ahead,
    session_begin: remote::session_begin,
    upload_start: upload::upload_start,
    upload_push: upload::upload_push,
    upload_finish: upload::upload_finish,
    upload_free: upload::upload_free,
};
