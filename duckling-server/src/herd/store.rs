//! What a member of a herd keeps in its own database: the schema `duckherder`, made when there is something to keep.
//!
//! Table `node` has one row: the duckling's id, and the id of the coordinator that it belongs to. Table `workers` is a
//! coordinator's registry.

use duckherder_catalog::herd::placement::WorkerId;
use duckherder_proto::RemoteError;

use super::membership::{Origin, Registration, Versions};
use crate::catalog::{Row, current_database, identifier, literal, rows};
use crate::duckdb::Connection;
use crate::statement::in_own_transaction;

/// Where it is.
pub const SCHEMA: &str = "duckherder";

/// What is kept.
#[derive(Debug, Default)]
pub struct Kept {
    /// The duckling's id, and whom it belongs to.
    pub node: Option<(WorkerId, Option<WorkerId>)>,
    /// The workers, and whether each has left.
    pub workers: Vec<(Registration, bool)>,
}

/// Reads what is kept.
///
/// # Errors
/// DuckDB's, for tables that somebody has changed.
pub fn read(connection: &mut Connection) -> Result<Kept, RemoteError> {
    let tables = rows(
        connection,
        "SELECT table_name FROM duckdb_tables() WHERE database_name = current_database() AND schema_name = 'duckherder'",
    )?;
    let has = |name: &str| tables.iter().any(|row| row.text(0) == Some(name));
    let (has_node, has_workers) = (has("node"), has("workers"));
    let schema = schema(connection)?;
    let mut kept = Kept::default();
    if has_node {
        let found = rows(connection, &format!("SELECT id, coordinator FROM {schema}.node"))?;
        kept.node = found.first().and_then(|row| Some((id(row, 0)?, id(row, 1))));
    }
    if has_workers {
        let sql = format!(
            "SELECT id, address, duckdb_version, protocol_version, registered, has_left FROM {schema}.workers ORDER BY id"
        );
        kept.workers = rows(connection, &sql)?.iter().filter_map(worker).collect();
    }
    Ok(kept)
}

/// Keeps who this duckling is.
///
/// # Errors
/// DuckDB's.
pub fn keep_node(
    connection: &mut Connection,
    id: &WorkerId,
    coordinator: Option<&WorkerId>,
) -> Result<(), RemoteError> {
    let schema = schema(connection)?;
    in_own_transaction(connection, |connection| {
        connection.execute(&format!(
            "CREATE SCHEMA IF NOT EXISTS {schema}; \
             CREATE TABLE IF NOT EXISTS {schema}.node (id VARCHAR NOT NULL, coordinator VARCHAR); \
             DELETE FROM {schema}.node; \
             INSERT INTO {schema}.node VALUES ({}, {})",
            literal(&id.0),
            coordinator.map_or_else(|| "NULL".to_owned(), |id| literal(&id.0)),
        ))
    })
    .map(|_| ())
}

/// Keeps a worker, in the place of what was kept of it before.
///
/// # Errors
/// DuckDB's.
pub fn keep_worker(connection: &mut Connection, worker: &Registration) -> Result<(), RemoteError> {
    let schema = schema(connection)?;
    let Registration {
        id,
        address,
        versions,
        origin,
        ..
    } = worker;
    in_own_transaction(connection, |connection| {
        connection.execute(&format!(
            "CREATE SCHEMA IF NOT EXISTS {schema}; \
             CREATE TABLE IF NOT EXISTS {schema}.workers (id VARCHAR NOT NULL, address VARCHAR NOT NULL, \
             registered VARCHAR NOT NULL, duckdb_version VARCHAR NOT NULL, protocol_version UINTEGER NOT NULL, \
             has_left BOOLEAN NOT NULL); \
             DELETE FROM {schema}.workers WHERE id = {id}; \
             INSERT INTO {schema}.workers VALUES ({id}, {}, {}, {}, {}, false)",
            literal(address),
            literal(origin.name()),
            literal(&versions.duckdb),
            versions.protocol,
            id = literal(&id.0),
        ))
    })
    .map(|_| ())
}

/// Keeps that a worker has left.
///
/// # Errors
/// DuckDB's.
pub fn keep_leave(connection: &mut Connection, id: &WorkerId) -> Result<(), RemoteError> {
    let schema = schema(connection)?;
    let sql = format!(
        "UPDATE {schema}.workers SET has_left = true WHERE id = {}",
        literal(&id.0)
    );
    connection.execute(&sql).map(|_| ())
}

/// Forgets a worker.
///
/// # Errors
/// DuckDB's.
pub fn forget_worker(connection: &mut Connection, id: &WorkerId) -> Result<(), RemoteError> {
    let schema = schema(connection)?;
    let sql = format!("DELETE FROM {schema}.workers WHERE id = {}", literal(&id.0));
    connection.execute(&sql).map(|_| ())
}

/// With the database's name in front, which may be the schema's as well.
fn schema(connection: &mut Connection) -> Result<String, RemoteError> {
    Ok(format!("{}.duckherder", identifier(&current_database(connection)?)))
}

fn id(row: &Row, index: usize) -> Option<WorkerId> {
    row.text(index).map(|text| WorkerId(text.to_owned()))
}

fn worker(row: &Row) -> Option<(Registration, bool)> {
    let registration = Registration {
        id: id(row, 0)?,
        incarnation: Vec::new(),
        address: row.text(1)?.to_owned(),
        versions: Versions {
            duckdb: row.text(2)?.to_owned(),
            protocol: row.text(3)?.parse().ok()?,
        },
        origin: Origin::from_name(row.text(4)?)?,
    };
    Some((registration, row.flag(5)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::IN_MEMORY;
    use crate::duckdb::{Database, DatabaseOptions};

    fn registration(name: &str, address: &str) -> Registration {
        Registration {
            id: WorkerId(name.to_owned()),
            incarnation: Vec::new(),
            address: address.to_owned(),
            versions: Versions {
                duckdb: "v2.0.0".to_owned(),
                protocol: 1,
            },
            origin: Origin::Named,
        }
    }

    fn kept_in(path: &str) {
        let open = || {
            let database = Database::open(path, &DatabaseOptions::default()).unwrap();
            database.connect().unwrap()
        };
        let mut connection = open();
        let kept = read(&mut connection).unwrap();
        assert!(kept.node.is_none() && kept.workers.is_empty());
        let (a, b) = (registration("a", "h:1"), registration("b'", "h:2"));
        keep_node(&mut connection, &a.id, None).unwrap();
        keep_node(&mut connection, &a.id, Some(&b.id)).unwrap();
        for worker in [&a, &b, &a] {
            keep_worker(&mut connection, worker).unwrap();
        }
        keep_leave(&mut connection, &b.id).unwrap();
        if path != IN_MEMORY {
            drop(connection);
            connection = open();
        }
        let kept = read(&mut connection).unwrap();
        assert_eq!(kept.node, Some((a.id.clone(), Some(b.id.clone()))));
        assert_eq!(kept.workers, [(a.clone(), false), (b.clone(), true)]);
        // Registered again, it is back.
        keep_worker(&mut connection, &b).unwrap();
        forget_worker(&mut connection, &a.id).unwrap();
        assert_eq!(read(&mut connection).unwrap().workers, [(b, false)]);
    }

    #[test]
    fn what_is_kept_is_read_again() {
        kept_in(IN_MEMORY);
        let directory = tempfile::tempdir().unwrap();
        for name in ["herd.duckdb", "duckherder.duckdb", "od\"d.duckdb"] {
            kept_in(&directory.path().join(name).to_string_lossy());
        }
    }
}
