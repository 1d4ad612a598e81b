//! Where the tables of a coordinator have their rows: read from the tags of its catalog.

use std::collections::BTreeMap;

use duckherder_catalog::herd::placement::{PLACEMENT_TAG, Placement, WorkerId};
use duckherder_proto::{ExceptionType, RemoteError};

use crate::catalog::{identifier, literal, rows};
use crate::duckdb::Connection;

/// Names in a message before the rest is counted.
const NAMES_MAX: usize = 5;

/// A table of the herd.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlacedTable {
    /// Its schema.
    pub schema: String,
    /// Its name.
    pub table: String,
    /// Where its rows are.
    pub placement: Placement,
}

impl PlacedTable {
    /// Its name, as SQL has it.
    #[must_use]
    pub fn qualified(&self) -> String {
        format!("{}.{}", identifier(&self.schema), identifier(&self.table))
    }

    /// How many of its partitions a worker has; a whole copy counts as one.
    fn partitions_on(&self, worker: &WorkerId) -> u64 {
        let all = match &self.placement {
            Placement::Hash { partitions, .. } | Placement::Even { partitions } => partitions,
            Placement::Replicated { workers } => workers,
        };
        all.iter().filter(|holder| *holder == worker).count() as u64
    }
}

/// All tables of the herd.
///
/// # Errors
/// DuckDB's; a placement that somebody has spoilt.
pub fn read(connection: &mut Connection) -> Result<Vec<PlacedTable>, RemoteError> {
    let tag = literal(PLACEMENT_TAG);
    let sql = format!(
        "SELECT schema_name, table_name, tags[{tag}] FROM duckdb_tables() \
         WHERE database_name = current_database() AND NOT internal AND tags[{tag}] IS NOT NULL \
         ORDER BY schema_name, table_name"
    );
    let found = rows(connection, &sql)?;
    found
        .iter()
        .map(|row| {
            let (schema, table) = (row.text(0).unwrap_or_default(), row.text(1).unwrap_or_default());
            let placement = serde_json::from_str(row.text(2).unwrap_or_default()).map_err(|error| {
                RemoteError::new(
                    ExceptionType::Serialization,
                    format!("the placement of table {schema}.{table} cannot be read: {error}"),
                )
            })?;
            Ok(PlacedTable {
                schema: schema.to_owned(),
                table: table.to_owned(),
                placement,
            })
        })
        .collect()
}

/// The tables that have rows on a worker.
///
/// # Errors
/// As [`read`].
pub fn tables_on(connection: &mut Connection, worker: &WorkerId) -> Result<Vec<String>, RemoteError> {
    let tables = read(connection)?.into_iter();
    let there = tables.filter(|table| table.partitions_on(worker) > 0);
    Ok(there.map(|table| format!("{}.{}", table.schema, table.table)).collect())
}

/// Names for a message: the first few, and how many more there are.
#[must_use]
pub fn list(names: &[String]) -> String {
    let shown = names[..names.len().min(NAMES_MAX)].join(", ");
    match names.len().saturating_sub(NAMES_MAX) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

/// How many partitions each of these workers has.
#[must_use]
pub fn count(tables: &[PlacedTable], workers: &[WorkerId]) -> BTreeMap<WorkerId, u64> {
    let of = |worker: &WorkerId| tables.iter().map(|table| table.partitions_on(worker)).sum();
    workers.iter().map(|worker| (worker.clone(), of(worker))).collect()
}

/// The query for the rows of all these tables, of which there is at least one, on a worker that has part of each.
#[must_use]
pub fn rows_sql(tables: &[&PlacedTable]) -> String {
    let counts = tables
        .iter()
        .map(|table| format!("SELECT count(*) AS n FROM {}", table.qualified()));
    format!(
        "SELECT sum(n)::BIGINT FROM ({})",
        counts.collect::<Vec<_>>().join(" UNION ALL ")
    )
}

/// The tables with rows on a worker.
#[must_use]
pub fn on<'tables>(tables: &'tables [PlacedTable], worker: &WorkerId) -> Vec<&'tables PlacedTable> {
    tables.iter().filter(|table| table.partitions_on(worker) > 0).collect()
}

/// One partition of a table, or one copy of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Partition {
    /// Its number; a copy has none.
    pub number: Option<u64>,
    /// Who has it.
    pub worker: WorkerId,
}

/// The partitions of a table, or its copies.
#[must_use]
pub fn partitions(placement: &Placement) -> Vec<Partition> {
    match placement {
        Placement::Hash { partitions, .. } | Placement::Even { partitions } => {
            let numbered = partitions.iter().zip(0..);
            let partition = |(worker, number): (&WorkerId, u64)| Partition {
                number: Some(number),
                worker: worker.clone(),
            };
            numbered.map(partition).collect()
        }
        Placement::Replicated { workers } => {
            let copy = |worker: &WorkerId| Partition {
                number: None,
                worker: worker.clone(),
            };
            workers.iter().map(copy).collect()
        }
    }
}

/// The partition of a row of a table that is divided by the hash of `keys`, as SQL.
pub fn partition_sql(keys: &[String], partitions: usize) -> String {
    let keys: Vec<_> = keys.iter().map(|key| identifier(key)).collect();
    format!("(hash(hash({})) % {partitions})", keys.join(", "))
}

/// The query for the number of a partition and that of its rows, on a worker. Only a hash tells which partition a row is
/// in: for other tables the number is NULL, and stands for all rows there.
#[must_use]
pub fn partition_rows_sql(table: &PlacedTable) -> String {
    let from = table.qualified();
    match &table.placement {
        Placement::Hash { keys, partitions, .. } => {
            let partition = partition_sql(keys, partitions.len());
            format!("SELECT {partition}::BIGINT, count(*) FROM {from} GROUP BY ALL")
        }
        Placement::Even { .. } | Placement::Replicated { .. } => {
            format!("SELECT NULL::BIGINT, count(*) FROM {from}")
        }
    }
}

/// The rows of a partition, as its worker has counted them; `None` if that cannot be known.
#[must_use]
pub fn rows_of(table: &PlacedTable, partition: &Partition, counted: &[(Option<u64>, u64)]) -> Option<u64> {
    let of = |number| {
        counted
            .iter()
            .find(|(counted, _)| *counted == number)
            .map(|(_, rows)| *rows)
    };
    match &table.placement {
        // One that nobody counted has none.
        Placement::Hash { .. } => Some(of(partition.number).unwrap_or(0)),
        Placement::Even { .. } if table.partitions_on(&partition.worker) > 1 => None,
        Placement::Even { .. } | Placement::Replicated { .. } => of(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(names: &[&str]) -> Vec<WorkerId> {
        names.iter().map(|name| WorkerId((*name).to_owned())).collect()
    }

    fn table(name: &str, placement: Placement) -> PlacedTable {
        PlacedTable {
            schema: "main".to_owned(),
            table: name.to_owned(),
            placement,
        }
    }

    fn tables() -> [PlacedTable; 3] {
        let hash = Placement::Hash {
            keys: vec!["a".to_owned(), "b\"".to_owned()],
            partitions: ids(&["x", "y", "x", "x"]),
            hash_version: "v2.0.0".to_owned(),
        };
        let even = Placement::Even {
            partitions: ids(&["y", "x", "x"]),
        };
        let replicated = Placement::Replicated {
            workers: ids(&["x", "z"]),
        };
        [table("h", hash), table("e", even), table("r", replicated)]
    }

    #[test]
    fn partitions_are_counted_by_worker() {
        let counts = count(&tables(), &ids(&["x", "y", "z", "nobody"]));
        assert_eq!(counts.into_values().collect::<Vec<_>>(), [0, 6, 2, 1]);
        let tables = tables();
        assert_eq!(on(&tables, &ids(&["z"])[0]), [&tables[2]]);
        assert_eq!(
            rows_sql(&on(&tables, &ids(&["y"])[0])),
            "SELECT sum(n)::BIGINT FROM (SELECT count(*) AS n FROM \"main\".\"h\" UNION ALL SELECT count(*) AS n FROM \
             \"main\".\"e\")"
        );
    }

    #[test]
    fn rows_are_known_by_partition_where_a_hash_tells() {
        let [hash, even, replicated] = tables();
        assert_eq!(
            partition_rows_sql(&hash),
            "SELECT (hash(hash(\"a\", \"b\"\"\")) % 4)::BIGINT, count(*) FROM \"main\".\"h\" GROUP BY ALL"
        );
        let of = |table: &PlacedTable, counted: &[(Option<u64>, u64)]| {
            let partitions = partitions(&table.placement);
            partitions
                .iter()
                .map(|partition| rows_of(table, partition, counted))
                .collect::<Vec<_>>()
        };
        let counted = [(Some(0), 7), (Some(3), 9)];
        assert_eq!(of(&hash, &counted), [Some(7), Some(0), Some(0), Some(9)]);
        assert_eq!(of(&even, &[(None, 5)]), [Some(5), None, None]);
        assert_eq!(of(&replicated, &[(None, 5)]), [Some(5), Some(5)]);
    }

    #[test]
    fn long_lists_are_cut() {
        let names: Vec<_> = (0..8).map(|n| format!("t{n}")).collect();
        assert_eq!(list(&names[..2]), "t0, t1");
        assert_eq!(list(&names), "t0, t1, t2, t3, t4 and 3 more");
    }
}
