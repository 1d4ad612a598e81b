//! Statements whose plan is known to be one worker's, and which one that is.
//!
//! A look-up by partition key is one statement of one worker. To find that out takes the coordinator longer than the
//! worker needs to answer. So what was found out is kept by the statement's [`Template`]: a later one, with other
//! literals, goes straight to the worker of its keys, as it is written. It is neither parsed nor planned here.
//!
//! A route is right as long as the definitions are those that it was found with: it is of one epoch of the catalog, and of
//! one set of settings. It is only kept if the worker that it leads to is the one that the planner has chosen. If anything
//! is not as it was, the statement is planned.

use std::collections::HashMap;
use std::fmt::Write;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use arrow::datatypes::SchemaRef;
use duckherder_catalog::herd::direct;
use duckherder_catalog::herd::placement::{Placement, WorkerId};
use duckherder_catalog::herd::query::Summary;
use duckherder_catalog::template::Template;
use duckherder_client::{SchemaMessage, StagesStream};
use duckherder_proto::RemoteError;
use duckherder_proto::v1::{DefinitionsVersion, StatementRoute};
use serde::Deserialize;

use super::gather::GatherStatistics;
use crate::duckdb::{Connection, Statement, partition_hash};
use crate::settings::Settings;

/// Statements that are known.
const ROUTES_MAX: usize = 1024;

/// The tier of statements that one worker answers.
pub(super) const ROUTER: &str = "router";

/// What the statistics say of a statement that has gone straight to its worker.
const FORWARD: &str = "forward";

/// The routes that a coordinator knows.
#[derive(Default)]
pub struct Routes(Mutex<Known>);

#[derive(Default)]
struct Known {
    epoch: u64,
    /// `None` for a statement that has to be planned.
    by_template: HashMap<String, Option<Arc<Route>>>,
}

/// How to find the worker of a statement.
#[derive(Debug)]
pub struct Route {
    keys: Vec<Key>,
    partitions: Vec<WorkerId>,
    /// The result's columns.
    pub schema: SchemaRef,
    /// As a worker has sent them: most send the same.
    sent: OnceLock<SchemaMessage>,
    /// What the planner says of it.
    pub summary: Summary,
}

#[derive(Debug)]
struct Key {
    /// Which of the statement's literals it is.
    literal: usize,
    type_text: String,
    /// If it is known how DuckDB hashes it.
    known: Option<direct::Key>,
}

/// A statement, as far as its text tells.
pub struct Candidate<'sql> {
    template: Template<'sql>,
    /// Its place among the routes.
    name: String,
    epoch: u64,
}

/// What is known of a statement.
pub enum Found {
    /// This worker has its rows.
    Worker(Arc<Route>, WorkerId),
    /// It has to be planned, as the ones like it.
    Planned,
    /// Nothing yet.
    Unknown,
}

/// `DescribeRoute` of `cpp/herd_route.cpp`.
#[derive(Deserialize)]
struct Description {
    keys: Vec<KeyDescription>,
    placement: Placement,
}

#[derive(Deserialize)]
struct KeyDescription {
    offset: usize,
    text: String,
    #[serde(rename = "type")]
    type_text: String,
}

impl Route {
    /// The columns as they are probably sent, once that is known.
    pub fn schema_message(&self) -> Option<&SchemaMessage> {
        self.sent.get()
    }

    /// Whether the rows of `stream` have the columns that are expected.
    pub fn is_of(&self, stream: &StagesStream) -> bool {
        let sent = stream.schema_message();
        if self.sent.get().is_some_and(|known| known.is(&sent)) {
            return true;
        }
        let is = stream.schema() == self.schema;
        if is {
            self.sent.get_or_init(|| sent);
        }
        is
    }
}

impl Route {
    /// As clients are told it, which ask the workers themselves: `worker` has just answered, and had these definitions. `None` if
    /// the keys are none that clients know the partition of, or a worker is down.
    pub fn of_client(
        &self,
        worker: &WorkerId,
        definitions: DefinitionsVersion,
        address: impl Fn(&WorkerId) -> Option<String>,
    ) -> Option<StatementRoute> {
        let [key] = self.keys.as_slice() else { return None };
        let (key_hash, key_max) = key.known?.told();
        let mut workers: Vec<_> = self.partitions.iter().collect();
        workers.sort_unstable();
        workers.dedup();
        let place = |worker: &WorkerId| u32::try_from(workers.binary_search(&worker).ok()?).ok();
        Some(StatementRoute {
            key_literal: u32::try_from(key.literal).ok()?,
            key_hash: key_hash.into(),
            key_max,
            partitions: self.partitions.iter().map(place).collect::<Option<_>>()?,
            worker: place(worker)?,
            workers: workers.iter().map(|worker| address(worker)).collect::<Option<_>>()?,
            definitions: Some(definitions),
        })
    }
}

impl<'sql> Candidate<'sql> {
    /// `None` if the text alone says that it cannot be routed.
    pub fn of(sql: &'sql str, settings: &Settings, epoch: u64) -> Option<Self> {
        let template = Template::of(sql)?;
        let mut name = template.text.clone();
        for (setting, value) in settings {
            // No template has a NUL in it, and no setting.
            let _ = write!(name, "\0{setting}\0{value}");
        }
        Some(Self { template, name, epoch })
    }

    /// The worker of its keys.
    fn worker(&self, route: &Route) -> Result<Option<WorkerId>, RemoteError> {
        let literals = &self.template.literals;
        let hash = match route.keys.as_slice() {
            // What most keys are.
            [
                Key {
                    literal,
                    known: Some(known),
                    ..
                },
            ] => {
                let literal = literals.get(*literal);
                let Some(hash) = literal.and_then(|literal| known.partition_hash(literal)) else {
                    return Ok(None);
                };
                hash
            }
            keys => partition_hash(keys.iter().filter_map(|key| {
                let literal = literals.get(key.literal)?;
                Some((key.type_text.as_str(), literal.text.as_ref()))
            }))?,
        };
        let count = route.partitions.len() as u64;
        let partition = hash
            .checked_rem(count)
            .and_then(|partition| usize::try_from(partition).ok());
        Ok(partition.and_then(|partition| route.partitions.get(partition).cloned()))
    }

    /// The route of a statement that has been planned, if it has one.
    fn route(
        &self,
        connection: &mut Connection,
        statement: &Statement,
        schema: &SchemaRef,
        gathered: &GatherStatistics,
    ) -> Option<Route> {
        let summary = gathered.summary.clone()?;
        let [planned] = gathered.workers.as_slice() else {
            return None;
        };
        if summary.tier != ROUTER || summary.fallback.is_some() {
            return None;
        }
        let description: Description = serde_json::from_str(&connection.describe_route(statement).ok()?).ok()?;
        let Placement::Hash { partitions, .. } = description.placement else {
            return None;
        };
        let keys = description.keys.into_iter().map(|key| {
            let mut literals = self.template.literals.iter();
            let literal = literals.position(|literal| literal.offset == key.offset && literal.text == key.text)?;
            let kind = self.template.literals.get(literal)?.kind;
            Some(Key {
                literal,
                known: direct::Key::of(&key.type_text, kind),
                type_text: key.type_text,
            })
        });
        let route = Route {
            keys: keys.collect::<Option<_>>()?,
            partitions,
            schema: Arc::clone(schema),
            sent: OnceLock::new(),
            summary: Summary {
                merge: FORWARD.to_owned(),
                ..summary
            },
        };
        let found = self.worker(&route).ok().flatten()?;
        (found == *planned).then_some(route)
    }
}

impl Routes {
    /// What is known of a statement.
    pub fn find(&self, candidate: &Candidate<'_>) -> Found {
        let route = {
            let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            if known.epoch != candidate.epoch {
                return Found::Unknown;
            }
            match known.by_template.get(&candidate.name) {
                None => return Found::Unknown,
                Some(None) => return Found::Planned,
                Some(Some(route)) => Arc::clone(route),
            }
        };
        match candidate.worker(&route) {
            Ok(Some(worker)) => Found::Worker(route, worker),
            // A key that is none of its column's values: the planner knows what that means.
            Ok(None) | Err(_) => Found::Planned,
        }
    }

    /// Remembers how a statement was run that nothing was known of.
    pub fn learn(
        &self,
        candidate: Candidate<'_>,
        connection: &mut Connection,
        statement: &Statement,
        schema: Option<&SchemaRef>,
        gathered: Option<&GatherStatistics>,
    ) {
        let route = schema
            .zip(gathered)
            .and_then(|(schema, gathered)| candidate.route(connection, statement, schema, gathered));
        self.set(candidate, route.map(Arc::new));
    }

    /// A statement has turned out to be none for its route.
    pub fn forget(&self, candidate: Candidate<'_>) {
        self.set(candidate, None);
    }

    fn set(&self, candidate: Candidate<'_>, route: Option<Arc<Route>>) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.epoch > candidate.epoch {
            return;
        }
        if known.epoch < candidate.epoch || known.by_template.len() >= ROUTES_MAX {
            known.by_template.clear();
            known.epoch = candidate.epoch;
        }
        known.by_template.insert(candidate.name, route);
    }
}

#[cfg(test)]
mod tests {
    use duckherder_catalog::template::Literal;
    use proptest::prelude::*;

    use super::*;

    fn check(kind: &str, literal: &Literal<'_>) -> Result<(), TestCaseError> {
        let known = direct::Key::of(kind, literal.kind).unwrap().partition_hash(literal);
        let expected = partition_hash([(kind, literal.text.as_ref())].into_iter()).ok();
        prop_assert_eq!(known, expected, "{} {}", kind, literal.text);
        Ok(())
    }

    proptest! {
        #[test]
        fn integers_have_the_hash_that_duckdb_gives_them(key in any::<u64>(), shift in 0_u32..64) {
            let digits = (key >> shift).to_string();
            let template = Template::of(&digits).unwrap();
            for kind in [
                "TINYINT", "SMALLINT", "INTEGER", "BIGINT", "UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT",
            ] {
                check(kind, &template.literals[0])?;
            }
        }

        #[test]
        fn strings_have_the_hash_that_duckdb_gives_them(key in "\\PC{0,30}") {
            let text = format!("'{}'", key.replace('\'', "''"));
            let template = Template::of(&text).unwrap();
            check("VARCHAR", &template.literals[0])?;
        }
    }
}
