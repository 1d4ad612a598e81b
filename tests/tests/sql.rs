//! Runs the SQL files under `sql/`, each against a duckling of its own, each as a test of its own.
//!
//! - `sql/both/x.slt` runs twice, as `duckherder::x` and `plain::x`: through the extension, and on DuckDB alone, where
//!   `dh` is one more in-memory database. So a file checks itself: DuckDB says what is right.
//! - `sql/duckherder/x.slt` runs once, as `duckherder_only::x`: it is about what DuckDB alone does not have.
//!
//! A file finds the duckling attached as `dh`. With `control substitution on` it can use `${PORT}` and, for the port of
//! a second, empty duckling, `${PORT2}`. The labels for `onlyif` and `skipif` are `plain` and `duckherder`.
//!
//! `DUCKHERDER_TESTS_UPDATE=1 cargo test -p duckherder-tests --test sql -- x` writes the results into the file: from
//! plain DuckDB, where that can say what is right.

use std::path::{Path, PathBuf};

use duckherder_tests::duckdb::{Connection, DuckDb, SqlError};
use duckherder_tests::duckling::LocalDuckling;
use libtest_mimic::{Arguments, Failed, Trial};
use sqllogictest::{
    DBOutput, DefaultColumnType, MakeConnection, Runner, default_normalizer, default_validator, strict_column_validator,
};

/// With this environment variable the files are rewritten with what the statements give back: to be read before use.
const UPDATE: &str = "DUCKHERDER_TESTS_UPDATE";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Engine {
    Plain,
    Duckherder,
}

impl Engine {
    fn label(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Duckherder => "duckherder",
        }
    }
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::from_args();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("sql");
    let mut trials = Vec::new();
    for (directory, engine, prefix) in [
        ("both", Engine::Duckherder, "duckherder"),
        ("both", Engine::Plain, "plain"),
        ("duckherder", Engine::Duckherder, "duckherder_only"),
    ] {
        for file in files(&root.join(directory))? {
            let stem = file.file_stem().unwrap_or_default().to_string_lossy();
            let name = format!("{prefix}::{stem}");
            trials.push(Trial::test(name, move || run(&file, engine)));
        }
    }
    libtest_mimic::run(&arguments, trials).exit();
}

fn files(directory: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut files = std::fs::read_dir(directory)?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<Vec<_>, _>>()?;
    files.retain(|path| path.extension().is_some_and(|extension| extension == "slt"));
    files.sort();
    Ok(files)
}

fn run(file: &Path, engine: Engine) -> Result<(), Failed> {
    let database = match engine {
        Engine::Plain => DuckDb::plain()?,
        Engine::Duckherder => DuckDb::with_duckherder()?,
    };
    let duckling = (engine == Engine::Duckherder).then(LocalDuckling::start).transpose()?;
    let second = (engine == Engine::Duckherder && std::fs::read_to_string(file)?.contains("${PORT2}"))
        .then(LocalDuckling::start)
        .transpose()?;
    let attach = match &duckling {
        Some(duckling) => format!(
            "ATTACH DATABASE 'dh' (TYPE duckherder, server_host '127.0.0.1', server_port {})",
            duckling.port()
        ),
        None => "ATTACH ':memory:' AS dh".to_owned(),
    };
    database.connect()?.run(&attach)?;
    let mut runner = Runner::new(|| {
        let connection = database.connect();
        async move { Ok(Client(connection?)) }
    });
    runner.add_label(engine.label());
    for (name, duckling) in [("PORT", &duckling), ("PORT2", &second)] {
        if let Some(duckling) = duckling {
            runner.set_var(name.to_owned(), duckling.port().to_string());
        }
    }
    if std::env::var_os(UPDATE).is_some() {
        return update(runner, file, engine);
    }
    runner
        .run_file(file)
        .map_err(|error| Failed::from(error.display(false).to_string()))
}

/// Writes what the statements give back into the file. What DuckDB alone can say is taken from it.
fn update<M>(mut runner: Runner<Client, M>, file: &Path, engine: Engine) -> Result<(), Failed>
where
    M: MakeConnection<Conn = Client>,
{
    let is_differential = file.parent().is_some_and(|directory| directory.ends_with("both"));
    if is_differential && engine != Engine::Plain {
        return Ok(());
    }
    let updating = runner.update_test_file(
        file,
        " ",
        default_validator,
        default_normalizer,
        strict_column_validator,
    );
    futures::executor::block_on(updating).map_err(|error| Failed::from(error.to_string()))
}

/// A connection, as the test files see it.
struct Client(Connection);

impl sqllogictest::DB for Client {
    type Error = SqlError;
    type ColumnType = DefaultColumnType;

    fn run(&mut self, sql: &str) -> Result<DBOutput<Self::ColumnType>, SqlError> {
        let output = self.0.run(sql)?;
        if let Some(rows) = output.rows_changed() {
            return Ok(DBOutput::StatementComplete(rows));
        }
        let types = output
            .columns
            .iter()
            .map(|(_, data_type)| column_type(data_type))
            .collect();
        let rows = output.rows.iter().map(|row| row.iter().map(value).collect()).collect();
        Ok(DBOutput::Rows { types, rows })
    }
}

fn column_type(data_type: &str) -> DefaultColumnType {
    match data_type {
        "TINYINT" | "SMALLINT" | "INTEGER" | "BIGINT" | "HUGEINT" | "UTINYINT" | "USMALLINT" | "UINTEGER"
        | "UBIGINT" | "UHUGEINT" => DefaultColumnType::Integer,
        "FLOAT" | "DOUBLE" => DefaultColumnType::FloatingPoint,
        _ if data_type.starts_with("DECIMAL") => DefaultColumnType::FloatingPoint,
        _ => DefaultColumnType::Text,
    }
}

fn value(value: &Option<String>) -> String {
    match value {
        None => "NULL".to_owned(),
        Some(text) if text.is_empty() => "(empty)".to_owned(),
        Some(text) => text.clone(),
    }
}
