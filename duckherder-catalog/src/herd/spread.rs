//! Where the rows of a new table go, and what may be done to it afterwards without rows being in the wrong place.

use serde::Deserialize;

use super::placement::{PARTITIONS_MAX, Placement, WorkerId};
use crate::name::fold;

/// Partitions for each worker, where the statement does not say how many there are.
const PARTITIONS_PER_WORKER: usize = 4;

/// What CREATE TABLE says about where rows go.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Clauses {
    /// `PARTITIONED BY`: column names; `None` for an expression.
    pub partitioned_by: Vec<Option<String>>,
    /// `WITH`: names in lower case, and values.
    pub options: Vec<(String, String)>,
}

impl Clauses {
    /// Whether the statement says nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.partitioned_by.is_empty() && self.options.is_empty()
    }
}

/// A column of a new table.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct NewColumn {
    /// Its name.
    pub name: String,
    /// Its type, as DuckDB writes it.
    #[serde(rename = "type")]
    pub type_text: String,
    /// Whether equal values of it have equal hashes, for good.
    pub hashable: bool,
    /// Whether it is computed.
    pub generated: bool,
}

/// What matters of a new table.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Shape {
    /// Its columns.
    pub columns: Vec<NewColumn>,
    /// The columns of its UNIQUE constraints, the primary key among them.
    pub uniques: Vec<Vec<String>>,
    /// The columns of the primary key.
    pub primary_key: Option<Vec<String>>,
}

/// Why a table cannot be spread as asked, or be changed as asked once it is spread.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum SpreadError {
    #[error(
        "PARTITIONED BY takes columns, not expressions; add a column with that value to the table and name it there"
    )]
    Expression,
    #[error("PARTITIONED BY names column \"{0}\", which the table does not have")]
    UnknownColumn(String),
    #[error("PARTITIONED BY names column \"{0}\" twice")]
    DoubleColumn(String),
    #[error("a table cannot be PARTITIONED BY the generated column \"{0}\"")]
    GeneratedColumn(String),
    #[error(
        "a table cannot be PARTITIONED BY column \"{name}\" of type {type_text}: equal values of that type may have \
         different hashes"
    )]
    NotHashable { name: String, type_text: String },
    #[error("unknown table option \"{0}\"; a herd's table has \"partitions\" and \"distribution\"")]
    UnknownOption(String),
    #[error("table option \"{0}\" is given twice")]
    DoubleOption(String),
    #[error("table option \"partitions\" must be a number from 1 to {PARTITIONS_MAX}, not \"{0}\"")]
    PartitionCount(String),
    #[error("table option \"distribution\" must be 'hash', 'even' or 'replicated', not \"{0}\"")]
    UnknownDistribution(String),
    #[error("a table with distribution = '{0}' takes no {1}")]
    Contradiction(&'static str, &'static str),
    #[error(
        "distribution = 'hash' needs PARTITIONED BY with the columns to hash, or a PRIMARY KEY, whose columns are then \
         hashed"
    )]
    NoKeys,
    #[error("the herd has no live worker that could hold the table's rows; register one first")]
    NoWorkers,
    #[error(
        "UNIQUE and PRIMARY KEY of a partitioned table must contain all columns that it is PARTITIONED BY ({keys}), or \
         nothing could check them over all workers; ({columns}) does not"
    )]
    UniqueWithoutKeys { columns: String, keys: String },
    #[error(
        "a table that is spread evenly cannot have UNIQUE or PRIMARY KEY ({0}): nothing could check it over all \
         workers; use PARTITIONED BY with columns of it"
    )]
    UniqueOfEven(String),
    #[error(
        "column \"{0}\" says in which partition a row is, and cannot be {1}; make a new table with CREATE TABLE AS"
    )]
    KeyColumn(String, &'static str),
}

/// Where the rows of a new table go, by its clauses, of which there must be some.
///
/// `workers` are those that live, in an order that is always the same: so tables with the same number of partitions have
/// the same partitions on the same workers.
///
/// # Errors
/// The clauses contradict themselves or the table.
pub fn spread(
    clauses: &Clauses,
    shape: &Shape,
    workers: &[WorkerId],
    hash_version: &str,
) -> Result<Placement, SpreadError> {
    let options = Options::parse(&clauses.options)?;
    if workers.is_empty() {
        return Err(SpreadError::NoWorkers);
    }
    let named = keys(clauses, shape)?;
    if options.distribution == Some(Distribution::Replicated) {
        if !named.is_empty() {
            return Err(SpreadError::Contradiction("replicated", "PARTITIONED BY"));
        }
        if options.partitions.is_some() {
            return Err(SpreadError::Contradiction("replicated", "partitions"));
        }
        return Ok(Placement::Replicated {
            workers: workers.to_vec(),
        });
    }
    if options.distribution == Some(Distribution::Even) && !named.is_empty() {
        return Err(SpreadError::Contradiction("even", "PARTITIONED BY"));
    }
    let count = options.partitions.unwrap_or_else(|| default_partitions(workers));
    let keys = match options.distribution {
        Some(Distribution::Even) => Vec::new(),
        _ if !named.is_empty() => named,
        _ => match &shape.primary_key {
            Some(columns) => hashable(columns, shape)?,
            None if options.distribution == Some(Distribution::Hash) => return Err(SpreadError::NoKeys),
            None => Vec::new(),
        },
    };
    let placement = divide(keys, count, workers, hash_version);
    for columns in &shape.uniques {
        check_unique(&placement, columns)?;
    }
    Ok(placement)
}

/// Where the rows of a new table go that has no clauses, if the herd spreads such tables over `partitions`: by primary
/// key, or else evenly. `None` if that cannot be: the table then stays on the coordinator.
#[must_use]
pub fn spread_by_default(
    partitions: usize,
    shape: &Shape,
    workers: &[WorkerId],
    hash_version: &str,
) -> Option<Placement> {
    let clauses = Clauses {
        partitioned_by: Vec::new(),
        options: vec![("partitions".to_owned(), partitions.to_string())],
    };
    spread(&clauses, shape, workers, hash_version).ok()
}

/// Whether a UNIQUE constraint or index over these columns can be checked by each worker alone.
///
/// # Errors
/// It cannot.
pub fn check_unique(placement: &Placement, columns: &[String]) -> Result<(), SpreadError> {
    match placement {
        Placement::Replicated { .. } => Ok(()),
        Placement::Even { .. } => Err(SpreadError::UniqueOfEven(columns.join(", "))),
        Placement::Hash { keys, .. } => {
            if keys.iter().all(|key| contains(columns, key)) {
                return Ok(());
            }
            Err(SpreadError::UniqueWithoutKeys {
                columns: columns.join(", "),
                keys: keys.join(", "),
            })
        }
    }
}

/// Whether a column may be changed in a way that its values, or what it is called, are others afterwards. `done` says in
/// which: "dropped".
///
/// # Errors
/// Its values say where rows are.
pub fn check_column(placement: &Placement, column: &str, done: &'static str) -> Result<(), SpreadError> {
    match placement {
        Placement::Hash { keys, .. } if contains(keys, column) => Err(SpreadError::KeyColumn(column.to_owned(), done)),
        _ => Ok(()),
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Distribution {
    Hash,
    Even,
    Replicated,
}

#[derive(Default)]
struct Options {
    partitions: Option<usize>,
    distribution: Option<Distribution>,
}

impl Options {
    fn parse(options: &[(String, String)]) -> Result<Self, SpreadError> {
        let mut parsed = Self::default();
        for (name, value) in options {
            let double = match name.as_str() {
                "partitions" => parsed.partitions.replace(partition_count(value)?).is_some(),
                "distribution" => parsed.distribution.replace(distribution(value)?).is_some(),
                _ => return Err(SpreadError::UnknownOption(name.clone())),
            };
            if double {
                return Err(SpreadError::DoubleOption(name.clone()));
            }
        }
        Ok(parsed)
    }
}

fn partition_count(value: &str) -> Result<usize, SpreadError> {
    value
        .parse()
        .ok()
        .filter(|count| (1..=PARTITIONS_MAX).contains(count))
        .ok_or_else(|| SpreadError::PartitionCount(value.to_owned()))
}

fn distribution(value: &str) -> Result<Distribution, SpreadError> {
    match value.to_ascii_lowercase().as_str() {
        "hash" => Ok(Distribution::Hash),
        "even" => Ok(Distribution::Even),
        "replicated" => Ok(Distribution::Replicated),
        _ => Err(SpreadError::UnknownDistribution(value.to_owned())),
    }
}

fn default_partitions(workers: &[WorkerId]) -> usize {
    (workers.len() * PARTITIONS_PER_WORKER).clamp(1, PARTITIONS_MAX)
}

/// The columns of `PARTITIONED BY`, as the table spells them.
fn keys(clauses: &Clauses, shape: &Shape) -> Result<Vec<String>, SpreadError> {
    let named = clauses
        .partitioned_by
        .iter()
        .map(|column| column.clone().ok_or(SpreadError::Expression))
        .collect::<Result<Vec<_>, _>>()?;
    hashable(&named, shape)
}

fn hashable(names: &[String], shape: &Shape) -> Result<Vec<String>, SpreadError> {
    let mut keys: Vec<String> = Vec::new();
    for name in names {
        let column = shape
            .columns
            .iter()
            .find(|column| fold(&column.name) == fold(name))
            .ok_or_else(|| SpreadError::UnknownColumn(name.clone()))?;
        if column.generated {
            return Err(SpreadError::GeneratedColumn(name.clone()));
        }
        if !column.hashable {
            return Err(SpreadError::NotHashable {
                name: name.clone(),
                type_text: column.type_text.clone(),
            });
        }
        if contains(&keys, name) {
            return Err(SpreadError::DoubleColumn(name.clone()));
        }
        keys.push(column.name.clone());
    }
    Ok(keys)
}

/// Partition `b` goes to worker `b % workers.len()`.
fn divide(keys: Vec<String>, count: usize, workers: &[WorkerId], hash_version: &str) -> Placement {
    let partitions = workers.iter().cycle().take(count).cloned().collect();
    if keys.is_empty() {
        return Placement::Even { partitions };
    }
    Placement::Hash {
        keys,
        partitions,
        hash_version: hash_version.to_owned(),
    }
}

fn contains(names: &[String], name: &str) -> bool {
    names.iter().any(|other| fold(other) == fold(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    const VERSION: &str = "v2.0.0";

    fn workers(count: usize) -> Vec<WorkerId> {
        (0..count).map(|number| WorkerId(format!("w{number}"))).collect()
    }

    fn texts(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    fn shape(primary_key: Option<&[&str]>, uniques: &[&[&str]]) -> Shape {
        let column = |name: &str, type_text: &str, hashable, generated| NewColumn {
            name: name.to_owned(),
            type_text: type_text.to_owned(),
            hashable,
            generated,
        };
        let mut all: Vec<_> = uniques.iter().map(|columns| texts(columns)).collect();
        all.extend(primary_key.map(texts));
        Shape {
            columns: vec![
                column("Id", "INTEGER", true, false),
                column("name", "VARCHAR", true, false),
                column("tags", "VARCHAR[]", false, false),
                column("twice", "INTEGER", true, true),
            ],
            uniques: all,
            primary_key: primary_key.map(texts),
        }
    }

    fn clauses(partitioned_by: &[&str], options: &[(&str, &str)]) -> Clauses {
        Clauses {
            partitioned_by: partitioned_by.iter().map(|name| Some((*name).to_owned())).collect(),
            options: options
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect(),
        }
    }

    fn spread_by(partitioned_by: &[&str], options: &[(&str, &str)]) -> Result<Placement, SpreadError> {
        spread(
            &clauses(partitioned_by, options),
            &shape(None, &[]),
            &workers(3),
            VERSION,
        )
    }

    #[test]
    fn keys_are_spelled_as_the_table_spells_them() {
        let placement = spread_by(&["id", "NAME"], &[("partitions", "4")]).unwrap();
        assert_eq!(
            placement,
            Placement::Hash {
                keys: texts(&["Id", "name"]),
                partitions: ["w0", "w1", "w2", "w0"].map(|name| WorkerId(name.to_owned())).to_vec(),
                hash_version: VERSION.to_owned(),
            }
        );
        assert_eq!(placement.workers(), workers(3));
    }

    #[test]
    fn a_primary_key_is_hashed_where_nothing_else_is_said() {
        let by_key = |options: &[(&str, &str)]| {
            spread(&clauses(&[], options), &shape(Some(&["id"]), &[]), &workers(2), VERSION).unwrap()
        };
        assert!(matches!(by_key(&[("partitions", "2")]), Placement::Hash { keys, .. } if keys == ["Id"]));
        assert!(
            matches!(by_key(&[("distribution", "HASH")]), Placement::Hash { partitions, .. } if partitions.len() == 8)
        );
        assert!(matches!(
            spread_by(&[], &[("partitions", "2")]),
            Ok(Placement::Even { partitions }) if partitions.len() == 2
        ));
        assert!(
            matches!(by_key(&[("distribution", "replicated")]), Placement::Replicated { workers } if workers.len() == 2)
        );
    }

    #[test]
    fn what_cannot_be_is_refused() {
        use SpreadError as E;
        let expression = Clauses {
            partitioned_by: vec![None],
            options: Vec::new(),
        };
        assert_eq!(
            spread(&expression, &shape(None, &[]), &workers(1), VERSION),
            Err(E::Expression)
        );
        for (partitioned_by, options, error) in [
            (&["x"][..], &[][..], E::UnknownColumn("x".into())),
            (&["id", "ID"], &[], E::DoubleColumn("ID".into())),
            (&["twice"], &[], E::GeneratedColumn("twice".into())),
            (
                &["tags"],
                &[],
                E::NotHashable {
                    name: "tags".into(),
                    type_text: "VARCHAR[]".into(),
                },
            ),
            (&[], &[("replicas", "2")], E::UnknownOption("replicas".into())),
            (&[], &[("partitions", "0")], E::PartitionCount("0".into())),
            (&[], &[("partitions", "1025")], E::PartitionCount("1025".into())),
            (&[], &[("partitions", "-1")], E::PartitionCount("-1".into())),
            (
                &[],
                &[("distribution", "round")],
                E::UnknownDistribution("round".into()),
            ),
            (
                &["id"],
                &[("distribution", "even")],
                E::Contradiction("even", "PARTITIONED BY"),
            ),
            (
                &["id"],
                &[("distribution", "replicated")],
                E::Contradiction("replicated", "PARTITIONED BY"),
            ),
            (
                &[],
                &[("distribution", "replicated"), ("partitions", "2")],
                E::Contradiction("replicated", "partitions"),
            ),
            (&[], &[("distribution", "hash")], E::NoKeys),
        ] {
            assert_eq!(spread_by(partitioned_by, options), Err(error));
        }
        assert_eq!(
            spread(&clauses(&["id"], &[]), &shape(None, &[]), &[], VERSION),
            Err(E::NoWorkers)
        );
    }

    #[test]
    fn unique_columns_must_say_where_the_row_is() {
        let spread_unique =
            |uniques: &[&[&str]], clauses| spread(&clauses, &shape(None, uniques), &workers(2), VERSION);
        assert!(spread_unique(&[&["NAME", "id"]], clauses(&["id"], &[])).is_ok());
        assert!(matches!(
            spread_unique(&[&["name"]], clauses(&["id"], &[])),
            Err(SpreadError::UniqueWithoutKeys { .. })
        ));
        assert!(matches!(
            spread_unique(&[&["name"]], clauses(&[], &[("partitions", "2")])),
            Err(SpreadError::UniqueOfEven(_))
        ));
        assert!(spread_unique(&[&["name"]], clauses(&[], &[("distribution", "replicated")])).is_ok());
    }

    #[test]
    fn by_default_a_table_is_spread_only_if_it_can_be() {
        let by_default = |shape: &Shape| spread_by_default(4, shape, &workers(2), VERSION);
        assert!(matches!(
            by_default(&shape(Some(&["id"]), &[])),
            Some(Placement::Hash { .. })
        ));
        assert!(matches!(by_default(&shape(None, &[])), Some(Placement::Even { .. })));
        assert_eq!(by_default(&shape(None, &[&["name"]])), None);
        assert_eq!(by_default(&shape(Some(&["id"]), &[&["name"]])), None);
        assert_eq!(spread_by_default(4, &shape(None, &[]), &[], VERSION), None);
    }

    #[test]
    fn keys_cannot_be_changed() {
        let placement = spread_by(&["id"], &[]).unwrap();
        assert!(check_column(&placement, "ID", "dropped").is_err());
        assert!(check_column(&placement, "name", "dropped").is_ok());
        assert!(check_column(&spread_by(&[], &[("partitions", "1")]).unwrap(), "id", "dropped").is_ok());
    }
}
