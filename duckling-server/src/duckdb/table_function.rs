//! Table functions whose rows this process makes.
//!
//! Through the C API v1, whose interface for them is stable. Nothing unwinds into DuckDB: a panic becomes an error.

use std::ffi::{CStr, CString, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use duckherder_proto::{ExceptionType, RemoteError};
use libduckdb_sys as ffi;

use super::connection::Connection;

/// The type of a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ColumnType {
    /// UUID
    Uuid,
    /// UBIGINT
    Unsigned,
    /// BIGINT
    Signed,
    /// VARCHAR
    Text,
    /// DOUBLE
    Double,
    /// TIMESTAMP
    Timestamp,
}

/// One value. In a column of another type it reads as NULL.
#[derive(Debug, Clone, PartialEq)]
pub enum Cell {
    /// NULL
    Null,
    /// For [`ColumnType::Uuid`].
    Uuid([u8; 16]),
    /// For [`ColumnType::Unsigned`].
    Unsigned(u64),
    /// For [`ColumnType::Signed`].
    Signed(i64),
    /// For [`ColumnType::Text`].
    Text(Arc<str>),
    /// For [`ColumnType::Double`].
    Double(f64),
    /// For [`ColumnType::Timestamp`]: microseconds since 1970, UTC.
    Timestamp(i64),
}

/// What a table function yields.
pub trait TableSource: Send + Sync + 'static {
    /// How many arguments it takes, all of them VARCHAR and not NULL.
    fn arguments(&self) -> usize {
        0
    }

    /// Names and types of the columns.
    fn columns(&self) -> &'static [(&'static CStr, ColumnType)];

    /// The rows as they are now, with one cell a column. Asked once per scan, on one of DuckDB's threads, which may
    /// wait.
    ///
    /// # Errors
    /// Whatever the statement is to fail with; it becomes an `Invalid Input` error.
    fn rows(&self, arguments: &[String]) -> Result<Vec<Vec<Cell>>, RemoteError>;
}

/// The rows of one scan, and how many of them have been read.
struct Scan {
    columns: &'static [(&'static CStr, ColumnType)],
    rows: Vec<Vec<Cell>>,
    read: AtomicUsize,
}

struct Function(ffi::duckdb_table_function);

impl Drop for Function {
    fn drop(&mut self) {
        // SAFETY: the handle came from `duckdb_create_table_function` and is destroyed only here. What has been
        // registered is DuckDB's own copy.
        unsafe { ffi::duckdb_destroy_table_function(&raw mut self.0) };
    }
}

struct Value(ffi::duckdb_value);

impl Drop for Value {
    fn drop(&mut self) {
        // SAFETY: the handle came from DuckDB, which made it for us, and is destroyed only here.
        unsafe { ffi::duckdb_destroy_value(&raw mut self.0) };
    }
}

impl Value {
    /// A VARCHAR; `None` for NULL.
    fn text(&self) -> Option<String> {
        // SAFETY: the value is live; its text is ours, and freed once.
        unsafe {
            if self.0.is_null() || ffi::duckdb_is_null_value(self.0) {
                return None;
            }
            let text = ffi::duckdb_get_varchar(self.0);
            if text.is_null() {
                return None;
            }
            let owned = CStr::from_ptr(text).to_string_lossy().into_owned();
            ffi::duckdb_free(text.cast());
            Some(owned)
        }
    }
}

struct LogicalType(ffi::duckdb_logical_type);

impl Drop for LogicalType {
    fn drop(&mut self) {
        // SAFETY: the handle came from `duckdb_create_logical_type` and is destroyed only here.
        unsafe { ffi::duckdb_destroy_logical_type(&raw mut self.0) };
    }
}

impl Connection {
    /// Makes a table function known to all connections of the database, until the database is closed.
    ///
    /// # Errors
    /// DuckDB gives no reason.
    pub fn register_table_function(&mut self, name: &CStr, source: Arc<dyn TableSource>) -> Result<(), RemoteError> {
        // SAFETY: all calls get a live function; the source is DuckDB's, which frees it with the function's last copy.
        let state = unsafe {
            let function = Function(ffi::duckdb_create_table_function());
            ffi::duckdb_table_function_set_name(function.0, name.as_ptr());
            let text = LogicalType(ffi::duckdb_create_logical_type(type_number(ColumnType::Text)));
            for _ in 0..source.arguments() {
                ffi::duckdb_table_function_add_parameter(function.0, text.0);
            }
            let source = Box::into_raw(Box::new(source));
            ffi::duckdb_table_function_set_extra_info(function.0, source.cast(), Some(free::<Arc<dyn TableSource>>));
            ffi::duckdb_table_function_set_bind(function.0, Some(bind));
            ffi::duckdb_table_function_set_init(function.0, Some(init));
            ffi::duckdb_table_function_set_function(function.0, Some(read));
            ffi::duckdb_register_table_function(self.v1(), function.0)
        };
        if state == ffi::duckdb_state_DuckDBSuccess {
            return Ok(());
        }
        Err(RemoteError::new(
            ExceptionType::Catalog,
            format!("the table function {} could not be made", name.to_string_lossy()),
        ))
    }
}

/// What an argument that is NULL is reported as.
const NULL_ARGUMENT: &CStr = c"the arguments of this function must not be NULL";

/// What a panic is reported as.
const PANICKED: &CStr = c"the server failed while producing the rows";

/// # Safety
/// `data` came from `Box::into_raw` of a `Box<T>` and is not used again.
unsafe extern "C" fn free<T>(data: *mut c_void) {
    // A panic in a destructor has nobody to be reported to.
    let _ = catch_unwind(AssertUnwindSafe(|| {
        // SAFETY: the caller's promise.
        drop(unsafe { Box::from_raw(data.cast::<T>()) });
    }));
}

/// # Safety
/// Called by DuckDB, with the extra information of [`Connection::register_table_function`].
unsafe extern "C" fn bind(info: ffi::duckdb_bind_info) {
    let bound = catch_unwind(AssertUnwindSafe(|| {
        // SAFETY: the extra information is a live `Arc<dyn TableSource>`.
        let source = unsafe { &*ffi::duckdb_bind_get_extra_info(info).cast::<Arc<dyn TableSource>>() };
        for (name, column_type) in source.columns() {
            // SAFETY: any known type number is fine; DuckDB copies name and type.
            unsafe {
                let logical_type = LogicalType(ffi::duckdb_create_logical_type(type_number(*column_type)));
                ffi::duckdb_bind_add_result_column(info, name.as_ptr(), logical_type.0);
            }
        }
        let argument = |index| {
            // SAFETY: the value is ours; DuckDB has checked the number of arguments.
            Value(unsafe { ffi::duckdb_bind_get_parameter(info, index) }).text()
        };
        let arguments: Option<Vec<String>> = (0..source.arguments() as u64).map(argument).collect();
        let Some(arguments) = arguments else {
            // SAFETY: DuckDB copies the text.
            unsafe { ffi::duckdb_bind_set_error(info, NULL_ARGUMENT.as_ptr()) };
            return;
        };
        let arguments = Box::into_raw(Box::new(arguments));
        // SAFETY: DuckDB frees the arguments once, with the last copy of the plan.
        unsafe { ffi::duckdb_bind_set_bind_data(info, arguments.cast(), Some(free::<Vec<String>>)) };
    }));
    if bound.is_err() {
        // SAFETY: DuckDB copies the text.
        unsafe { ffi::duckdb_bind_set_error(info, PANICKED.as_ptr()) };
    }
}

fn type_number(column_type: ColumnType) -> ffi::duckdb_type {
    match column_type {
        ColumnType::Uuid => ffi::DUCKDB_TYPE_DUCKDB_TYPE_UUID,
        ColumnType::Unsigned => ffi::DUCKDB_TYPE_DUCKDB_TYPE_UBIGINT,
        ColumnType::Signed => ffi::DUCKDB_TYPE_DUCKDB_TYPE_BIGINT,
        ColumnType::Text => ffi::DUCKDB_TYPE_DUCKDB_TYPE_VARCHAR,
        ColumnType::Double => ffi::DUCKDB_TYPE_DUCKDB_TYPE_DOUBLE,
        ColumnType::Timestamp => ffi::DUCKDB_TYPE_DUCKDB_TYPE_TIMESTAMP,
    }
}

/// # Safety
/// As for [`bind`].
unsafe extern "C" fn init(info: ffi::duckdb_init_info) {
    let started = catch_unwind(AssertUnwindSafe(|| {
        // SAFETY: the extra information is a live `Arc<dyn TableSource>`.
        let source = unsafe { &*ffi::duckdb_init_get_extra_info(info).cast::<Arc<dyn TableSource>>() };
        // SAFETY: the bind data is the live list of arguments, which is only read.
        let arguments = unsafe { &*ffi::duckdb_init_get_bind_data(info).cast::<Vec<String>>() };
        let rows = match source.rows(arguments) {
            Ok(rows) => rows,
            Err(error) => {
                let text = CString::new(error.message.replace('\0', " ")).unwrap_or_default();
                // SAFETY: DuckDB copies the text.
                unsafe { ffi::duckdb_init_set_error(info, text.as_ptr()) };
                return;
            }
        };
        let scan = Box::into_raw(Box::new(Scan {
            columns: source.columns(),
            rows,
            read: AtomicUsize::new(0),
        }));
        // SAFETY: DuckDB frees the scan once, when it has ended.
        unsafe { ffi::duckdb_init_set_init_data(info, scan.cast(), Some(free::<Scan>)) };
    }));
    if started.is_err() {
        // SAFETY: DuckDB copies the text.
        unsafe { ffi::duckdb_init_set_error(info, PANICKED.as_ptr()) };
    }
}

/// # Safety
/// Called by DuckDB, with the data of [`init`] and a chunk of the columns that [`bind`] has told.
unsafe extern "C" fn read(info: ffi::duckdb_function_info, chunk: ffi::duckdb_data_chunk) {
    let done = catch_unwind(AssertUnwindSafe(|| {
        // SAFETY: the data is a live `Scan`, which is only read.
        let scan = unsafe { &*ffi::duckdb_function_get_init_data(info).cast::<Scan>() };
        // SAFETY: a constant of DuckDB.
        let rows_max = unsafe { ffi::duckdb_vector_size() } as usize;
        let first = scan.read.fetch_add(rows_max, Ordering::Relaxed).min(scan.rows.len());
        let rows = &scan.rows[first..scan.rows.len().min(first + rows_max)];
        for (index, (_, column_type)) in scan.columns.iter().enumerate() {
            // SAFETY: the chunk has this column; the vector lives as long as the chunk.
            let vector = unsafe { ffi::duckdb_data_chunk_get_vector(chunk, index as u64) };
            for (row, cells) in rows.iter().enumerate() {
                // SAFETY: `row` is below the vector size, and the vector of this type.
                unsafe { write(vector, row, *column_type, cells.get(index).unwrap_or(&Cell::Null)) };
            }
        }
        // SAFETY: so many rows have been written.
        unsafe { ffi::duckdb_data_chunk_set_size(chunk, rows.len() as u64) };
    }));
    if done.is_err() {
        // SAFETY: DuckDB copies the text.
        unsafe { ffi::duckdb_function_set_error(info, PANICKED.as_ptr()) };
    }
}

/// # Safety
/// `vector` is a flat vector of `column_type` with room for `row`.
unsafe fn write(vector: ffi::duckdb_vector, row: usize, column_type: ColumnType, cell: &Cell) {
    // SAFETY: the caller's promise, for this and what follows: each arm writes the type that DuckDB keeps for the column
    // type, `VARCHAR` through DuckDB, which copies the text.
    unsafe {
        let data = ffi::duckdb_vector_get_data(vector);
        match (column_type, cell) {
            (ColumnType::Uuid, Cell::Uuid(id)) => data.cast::<ffi::duckdb_hugeint>().add(row).write(uuid(*id)),
            (ColumnType::Unsigned, Cell::Unsigned(value)) => data.cast::<u64>().add(row).write(*value),
            (ColumnType::Signed, Cell::Signed(value)) | (ColumnType::Timestamp, Cell::Timestamp(value)) => {
                data.cast::<i64>().add(row).write(*value);
            }
            (ColumnType::Double, Cell::Double(value)) => data.cast::<f64>().add(row).write(*value),
            (ColumnType::Text, Cell::Text(text)) => ffi::duckdb_vector_assign_string_element_len(
                vector,
                row as u64,
                text.as_ptr().cast(),
                text.len() as u64,
            ),
            _ => {
                ffi::duckdb_vector_ensure_validity_writable(vector);
                ffi::duckdb_validity_set_row_invalid(ffi::duckdb_vector_get_validity(vector), row as u64);
            }
        }
    }
}

/// DuckDB keeps a UUID as a signed number that sorts as the UUID's bytes do: with its first bit flipped.
fn uuid(id: [u8; 16]) -> ffi::duckdb_hugeint {
    let number = u128::from_be_bytes(id) ^ (1 << 127);
    ffi::duckdb_hugeint {
        lower: number as u64,
        upper: (number >> 64) as i64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::duckdb::{Database, DatabaseOptions};

    struct Numbers;

    impl TableSource for Numbers {
        fn columns(&self) -> &'static [(&'static CStr, ColumnType)] {
            &[
                (c"id", ColumnType::Uuid),
                (c"n", ColumnType::Unsigned),
                (c"z", ColumnType::Signed),
                (c"s", ColumnType::Text),
                (c"moment", ColumnType::Timestamp),
                (c"half", ColumnType::Double),
            ]
        }

        fn arguments(&self) -> usize {
            1
        }

        fn rows(&self, arguments: &[String]) -> Result<Vec<Vec<Cell>>, RemoteError> {
            let rows = arguments[0]
                .parse()
                .map_err(|_| RemoteError::new(ExceptionType::InvalidInput, format!("{} is no number", arguments[0])))?;
            let row = |n: u64| {
                vec![
                    Cell::Uuid(u128::from(n).to_be_bytes()),
                    Cell::Unsigned(n),
                    Cell::Signed(-(n as i64)),
                    if n == 1 {
                        Cell::Null
                    } else {
                        Cell::Text(format!("row {n}, longer than twelve bytes").into())
                    },
                    Cell::Timestamp(n as i64 * 1_000_000),
                    Cell::Double(n as f64 / 2.0),
                ]
            };
            Ok((0..rows).map(row).collect())
        }
    }

    struct Panics;

    impl TableSource for Panics {
        fn columns(&self) -> &'static [(&'static CStr, ColumnType)] {
            &[(c"n", ColumnType::Unsigned)]
        }

        fn rows(&self, _: &[String]) -> Result<Vec<Vec<Cell>>, RemoteError> {
            panic!("no rows")
        }
    }

    #[test]
    fn rows_arrive_whole_on_every_connection() {
        let database = Database::open(":memory:", &DatabaseOptions::default()).unwrap();
        let mut connection = database.connect().unwrap();
        connection
            .register_table_function(c"numbers", Arc::new(Numbers))
            .unwrap();
        let mut other = database.connect().unwrap();
        let check = "SELECT CASE WHEN count(*) = 5000 AND count(s) = 4999 AND sum(n) = 12497500 AND sum(z) = -12497500 \
                     AND count(DISTINCT s) = 4999 AND max(id) = '00000000-0000-0000-0000-000000001387' \
                     AND max(moment) = TIMESTAMP '1970-01-01 01:23:19' \
                     AND bool_and(s = 'row ' || n || ', longer than twelve bytes') AND bool_and(half = n / 2) \
                     THEN 1 ELSE error('they did not') END FROM numbers('5000')";
        for _ in 0..2 {
            other.execute(check).unwrap();
        }
        for wrong in ["FROM numbers()", "FROM numbers('1', '2')", "FROM numbers(NULL)"] {
            let error = other.execute(wrong).unwrap_err();
            assert_eq!(error.kind, ExceptionType::Binder, "{error}");
        }
        let error = other.execute("FROM numbers('many')").unwrap_err();
        assert_eq!(error.message, "many is no number");
    }

    #[test]
    fn a_panic_is_an_error() {
        let database = Database::open(":memory:", &DatabaseOptions::default()).unwrap();
        let mut connection = database.connect().unwrap();
        connection.register_table_function(c"panics", Arc::new(Panics)).unwrap();
        let error = connection.execute("FROM panics()").unwrap_err();
        assert_eq!(error.kind, ExceptionType::InvalidInput, "{error}");
        connection.execute("SELECT 1").unwrap();
    }
}
