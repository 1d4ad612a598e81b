//! CREATE, ALTER and DROP of a herd's tables: here, where they are empty, and on the workers that hold their rows, in one
//! transaction.

use std::sync::Arc;

use duckherder_catalog::herd::placement::{Placement, WorkerId};
use duckherder_catalog::herd::spread::{
    Clauses, NewColumn, Shape, SpreadError, check_column, check_unique, spread, spread_by_default,
};
use duckherder_proto::{ExceptionType, RemoteError};
use serde::Deserialize;

use super::session::HerdSession;
use crate::catalog::identifier;
use crate::duckdb::{Connection, Statement, StatementKind};

/// What the coordinator's statements do with their results.
pub type Run<'run> = dyn FnMut(&mut Connection, &Statement) -> Result<(), RemoteError> + 'run;

/// What is done in a transaction.
pub type Work<'run> = dyn FnMut(&mut Connection) -> Result<(), RemoteError> + 'run;

/// Runs work in the connection's transaction, or in one of its own if there is none.
pub type InTransaction<'run> = dyn FnMut(&mut Connection, &mut Work<'_>) -> Result<(), RemoteError> + 'run;

/// What a statement does to the definitions of a herd's tables: `cpp/herd_ddl.cpp` writes it.
#[derive(Debug, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
enum Ddl {
    None,
    CreateTable(Box<CreateTable>),
    CreateIndex {
        table: Table,
        unique: bool,
        columns: Vec<Option<String>>,
        sql: String,
    },
    CreateTrigger {
        table: Table,
    },
    Alter(Box<Alter>),
    Drop {
        /// All of the herd, before.
        tables: Vec<Table>,
    },
    DropIndex {
        table: Table,
        name: String,
    },
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
struct Table {
    schema: String,
    name: String,
    /// JSON; none if it is no table of the herd.
    placement: Option<String>,
}

impl Table {
    fn qualified(&self) -> String {
        qualified(&self.schema, &self.name)
    }

    fn placement(&self) -> Result<Option<Placement>, RemoteError> {
        self.placement
            .as_deref()
            .map(|json| serde_json::from_str(json).map_err(|error| unreadable(&self.qualified(), &error)))
            .transpose()
    }

    /// Of a table of the herd.
    fn placed(&self) -> Result<Placement, RemoteError> {
        self.placement()?
            .ok_or_else(|| RemoteError::new(ExceptionType::Catalog, format!("{} has no placement", self.qualified())))
    }
}

#[derive(Debug, Deserialize)]
struct CreateTable {
    catalog: String,
    schema: String,
    name: String,
    /// Whether the schema lies in another one.
    nested: bool,
    exists: bool,
    existing: Option<Table>,
    replace: bool,
    from_query: bool,
    sorted: bool,
    partitioned_by: Vec<Option<String>>,
    options: Vec<(String, String)>,
    foreign_keys: Vec<Option<Table>>,
    default_partitions: usize,
    /// These four only if the table may become one of the herd.
    #[serde(default)]
    columns: Vec<NewColumn>,
    #[serde(default)]
    uniques: Vec<Vec<String>>,
    #[serde(default)]
    primary_key: Option<Vec<String>>,
    #[serde(default)]
    definition: String,
}

#[derive(Debug, Deserialize)]
struct Alter {
    table: Table,
    action: String,
    column: String,
    columns: Vec<String>,
    sql: String,
}

/// Runs a statement if it changes the definition of a table of the herd, or makes one; whether it did.
///
/// `run` runs the coordinator's part and hands its result on.
///
/// # Errors
/// It cannot be done, here or on a worker: then it is done nowhere.
pub fn run(
    connection: &mut Connection,
    herd: &Arc<HerdSession>,
    statement: &Statement,
    in_transaction: &mut InTransaction<'_>,
    run: &mut Run<'_>,
) -> Result<bool, RemoteError> {
    if !matches!(statement.kind(), StatementKind::Catalog | StatementKind::Other) {
        return Ok(false);
    }
    let parts = connection.alter_parts(statement)?;
    let runner = Runner { herd };
    if parts.is_empty() {
        return runner.run(connection, statement, in_transaction, run);
    }
    in_transaction(connection, &mut |connection| {
        let last = parts.len() - 1;
        for (place, part) in parts.iter().enumerate() {
            let mut quietly =
                |connection: &mut Connection, statement: &Statement| connection.run(statement)?.drain().map(|_| ());
            let run: &mut Run<'_> = if place == last { run } else { &mut quietly };
            let mut already = |connection: &mut Connection, work: &mut Work<'_>| work(connection);
            if !runner.run(connection, part, &mut already, run)? {
                run(connection, part)?;
            }
        }
        Ok(())
    })?;
    Ok(true)
}

struct Runner<'run> {
    herd: &'run Arc<HerdSession>,
}

impl Runner<'_> {
    fn run(
        &self,
        connection: &mut Connection,
        statement: &Statement,
        in_transaction: &mut InTransaction<'_>,
        run: &mut Run<'_>,
    ) -> Result<bool, RemoteError> {
        let description = connection.describe_ddl(statement)?;
        let ddl = serde_json::from_str(&description).map_err(|error| unreadable("a statement", &error))?;
        let mut change = |workers: Vec<WorkerId>, sql: Vec<String>| {
            in_transaction(connection, &mut |connection| {
                connection.changing_definitions(|connection| run(connection, statement))?;
                self.on_workers(&workers, &sql)
            })?;
            Ok(true)
        };
        match ddl {
            Ddl::None => Ok(false),
            Ddl::CreateTable(create) => self.create_table(connection, statement, &create, in_transaction, run),
            Ddl::CreateIndex {
                table,
                unique,
                columns,
                sql,
            } => {
                let placement = table.placed()?;
                if unique {
                    let columns: Vec<_> = columns.into_iter().flatten().collect();
                    check_unique(&placement, &columns).map_err(spread_error)?;
                }
                change(placement.workers(), vec![sql])
            }
            Ddl::CreateTrigger { table } => Err(not_implemented(format!(
                "triggers on the herd's table {}: its rows are changed on the workers",
                table.qualified()
            ))),
            Ddl::Alter(alter) => {
                let placement = alter.table.placed()?;
                let on_workers = alter.check(&placement)?;
                let sql = if on_workers {
                    vec![alter.sql.clone()]
                } else {
                    Vec::new()
                };
                change(placement.workers(), sql)
            }
            Ddl::DropIndex { table, name } => {
                let sql = format!("DROP INDEX IF EXISTS {}", qualified(&table.schema, &name));
                change(table.placed()?.workers(), vec![sql])
            }
            Ddl::Drop { tables } => {
                in_transaction(connection, &mut |connection| {
                    connection.changing_definitions(|connection| run(connection, statement))?;
                    let left = connection.describe_herd_tables()?;
                    let left: Vec<Table> =
                        serde_json::from_str(&left).map_err(|error| unreadable("the catalog", &error))?;
                    for table in tables.iter().filter(|table| !left.contains(table)) {
                        self.drop_on_workers(table)?;
                    }
                    Ok(())
                })?;
                Ok(true)
            }
        }
    }

    fn create_table(
        &self,
        connection: &mut Connection,
        statement: &Statement,
        create: &CreateTable,
        in_transaction: &mut InTransaction<'_>,
        run: &mut Run<'_>,
    ) -> Result<bool, RemoteError> {
        let mut targets = create.foreign_keys.iter().flatten();
        if let Some(table) = targets.find(|table| table.placement.is_some()) {
            return Err(not_implemented(format!(
                "FOREIGN KEY to the herd's table {}: nothing could check it",
                table.qualified()
            )));
        }
        let clauses = Clauses {
            partitioned_by: create.partitioned_by.clone(),
            options: create.options.clone(),
        };
        if create.exists && !create.replace {
            // DuckDB says what becomes of it, if it gets a statement without our clauses.
            if clauses.is_empty() {
                return Ok(false);
            }
            let plain = connection.shadow_table(statement, "", None)?;
            run(connection, &plain)?;
            return Ok(true);
        }
        let replaced = create.existing.as_ref().filter(|table| table.placement.is_some());
        let Some(placement) = self.placement(create, &clauses)? else {
            let Some(replaced) = replaced else { return Ok(false) };
            in_transaction(connection, &mut |connection| {
                connection.changing_definitions(|connection| run(connection, statement))?;
                self.drop_on_workers(replaced)
            })?;
            return Ok(true);
        };
        // The query may read the table that it replaces.
        let beside =
            (create.replace && create.from_query && create.exists).then(|| format!("__duckherder_new_{}", create.name));
        let tag = serde_json::to_string(&placement)
            .map_err(|error| RemoteError::new(ExceptionType::Serialization, error.to_string()))?;
        let shadow = connection.shadow_table(statement, &tag, beside.as_deref())?;
        let made = beside.as_deref().unwrap_or(&create.name);
        let workers = placement.workers();
        self.herd.place_on(&workers)?;
        in_transaction(connection, &mut |connection| {
            connection.changing_definitions(|connection| {
                if create.from_query {
                    connection.run(&shadow)?.drain().map(|_| ())
                } else {
                    run(connection, &shadow)
                }
            })?;
            if let Some(replaced) = replaced.filter(|_| beside.is_none()) {
                self.drop_on_workers(replaced)?;
            }
            let mut sql = vec![format!(
                "CREATE TABLE {} {}",
                qualified(&create.schema, made),
                create.definition
            )];
            if create.schema != "main" {
                sql.insert(0, format!("CREATE SCHEMA IF NOT EXISTS {}", identifier(&create.schema)));
            }
            self.on_workers(&workers, &sql)?;
            if create.from_query {
                let fill = connection.fill_table(statement, beside.as_deref())?;
                run(connection, &fill)?;
            }
            match &beside {
                Some(beside) => self.take_place(connection, create, beside, replaced, &workers),
                None => Ok(()),
            }
        })?;
        Ok(true)
    }

    /// Where the table's rows go; `None` if it is to be a plain one.
    fn placement(&self, create: &CreateTable, clauses: &Clauses) -> Result<Option<Placement>, RemoteError> {
        let shape = Shape {
            columns: create.columns.clone(),
            uniques: create.uniques.clone(),
            primary_key: create.primary_key.clone(),
        };
        let registry = self.herd.herd().registry();
        let live = registry.live();
        let has_foreign_keys = !create.foreign_keys.is_empty();
        if clauses.is_empty() {
            if create.default_partitions == 0 || create.sorted || create.nested || has_foreign_keys {
                return Ok(None);
            }
            let version = registry.hash_version();
            return Ok(spread_by_default(create.default_partitions, &shape, &live, &version));
        }
        let refuse = |what: &str| Err(not_implemented(format!("{what} for a table of the herd")));
        if create.sorted {
            return refuse("SORTED BY");
        }
        if create.nested {
            return refuse("a schema in a schema");
        }
        if has_foreign_keys {
            return refuse("FOREIGN KEY");
        }
        let version = registry.hash_version();
        spread(clauses, &shape, &live, &version).map(Some).map_err(spread_error)
    }

    /// Lets the table that was made beside take the place of the one that it replaces.
    fn take_place(
        &self,
        connection: &mut Connection,
        create: &CreateTable,
        beside: &str,
        replaced: Option<&Table>,
        workers: &[WorkerId],
    ) -> Result<(), RemoteError> {
        let here = |name: &str| format!("{}.{}", identifier(&create.catalog), qualified(&create.schema, name));
        connection.changing_definitions(|connection| {
            connection.execute(&format!("DROP TABLE {}", here(&create.name)))?;
            connection.execute(&format!(
                "ALTER TABLE {} RENAME TO {}",
                here(beside),
                identifier(&create.name)
            ))
        })?;
        if let Some(replaced) = replaced {
            self.drop_on_workers(replaced)?;
        }
        let rename = format!(
            "ALTER TABLE {} RENAME TO {}",
            qualified(&create.schema, beside),
            identifier(&create.name)
        );
        self.on_workers(workers, &[rename])
    }

    fn drop_on_workers(&self, table: &Table) -> Result<(), RemoteError> {
        let sql = format!("DROP TABLE IF EXISTS {}", table.qualified());
        // What a lost worker had of it is gone.
        let workers = self.herd.herd().registry().members_of(table.placed()?.workers());
        self.on_workers(&workers, &[sql])
    }

    /// Runs statements on each of these workers, one after the other.
    fn on_workers(&self, workers: &[WorkerId], sql: &[String]) -> Result<(), RemoteError> {
        let writing = self.herd.writing();
        for sql in sql {
            writing.execute_on(workers, sql)?;
        }
        Ok(())
    }
}

impl Alter {
    /// Whether the workers do it too.
    fn check(&self, placement: &Placement) -> Result<bool, RemoteError> {
        let key = |done| check_column(placement, &self.column, done).map_err(spread_error);
        match self.action.as_str() {
            "rename_table" | "add_column" | "set_not_null" | "add_constraint" => {}
            "add_computed_column" => {
                return Err(not_implemented(
                    "ADD COLUMN IF NOT EXISTS with a computed DEFAULT for a table of the herd; leave IF NOT EXISTS out"
                        .to_owned(),
                ));
            }
            "rename_column" => key("renamed")?,
            "drop_column" => key("dropped")?,
            "change_type" => key("given another type")?,
            "change_field" => key("changed")?,
            "add_unique" => check_unique(placement, &self.columns).map_err(spread_error)?,
            // Defaults are filled in here.
            "set_default" | "comment" => return Ok(false),
            _ => {
                return Err(not_implemented(format!(
                    "this ALTER of the herd's table {}; make a new table with CREATE TABLE AS",
                    self.table.qualified()
                )));
            }
        }
        Ok(true)
    }
}

fn qualified(schema: &str, name: &str) -> String {
    format!("{}.{}", identifier(schema), identifier(name))
}

fn not_implemented(what: String) -> RemoteError {
    RemoteError::new(ExceptionType::NotImplemented, what)
}

fn spread_error(error: SpreadError) -> RemoteError {
    let kind = match error {
        SpreadError::NoWorkers => ExceptionType::InvalidInput,
        SpreadError::KeyColumn(..) => ExceptionType::NotImplemented,
        _ => ExceptionType::Binder,
    };
    RemoteError::new(kind, error.to_string())
}

fn unreadable(what: &str, error: &serde_json::Error) -> RemoteError {
    RemoteError::new(
        ExceptionType::Serialization,
        format!("what is known of {what} is not readable: {error}"),
    )
}
