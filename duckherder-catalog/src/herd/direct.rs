//! Look-ups that a client sends to the worker of their key itself, and not by way of the coordinator.
//!
//! A coordinator says of a look-up which literal of its text is the key, and where the rows of each key are
//! ([`StatementRoute`]); the client keeps that by the statement's [`Template`]. What it knows can be out of date, so each request
//! names the version of the worker's definitions that the route was found with, and the worker runs it with that one only: no
//! table has been made, dropped or changed there since, so its rows are where they were.
//!
//! What else a statement's meaning depends on is the session at the coordinator: its settings, its temporary tables, whether it
//! is in a transaction. The coordinator gives routes only where there is nothing of that, and whatever may change it makes
//! [`DirectRoutes`] forget all.

use std::collections::HashMap;

use duckherder_proto::v1::{DefinitionsVersion, KeyHash, StatementRoute};

use super::placement::PARTITIONS_MAX;
use crate::template::{Literal, LiteralKind, Template};

/// Statements whose routes are kept; if there are more, all are forgotten.
const ROUTES_MAX: usize = 128;

/// Workers of a route, and bytes of the address of each.
const WORKERS_MAX: usize = 1024;
const ADDRESS_BYTES_MAX: usize = 300;

/// Statements that begin with one of these read or change rows, and leave the session as it was.
const HARMLESS: [&str; 7] = ["SELECT", "FROM", "WITH", "INSERT", "UPDATE", "DELETE", "MERGE"];

/// The types of integers, with the largest value of each.
const INTEGERS: [(&str, u64); 8] = [
    ("TINYINT", i8::MAX as u64),
    ("SMALLINT", i16::MAX as u64),
    ("INTEGER", i32::MAX as u64),
    ("BIGINT", i64::MAX as u64),
    ("UTINYINT", u8::MAX as u64),
    ("USMALLINT", u16::MAX as u64),
    ("UINTEGER", u32::MAX as u64),
    ("UBIGINT", u64::MAX),
];

/// A key of which it is known how DuckDB hashes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Key {
    hash: KeyHash,
    /// The largest value of an integer.
    largest: u64,
}

impl Key {
    /// Of a column of that type, as DuckDB writes it, and a literal. `None` for others than integers and strings.
    #[must_use]
    pub fn of(type_text: &str, literal: LiteralKind) -> Option<Self> {
        match literal {
            LiteralKind::Integer => {
                let (_, largest) = INTEGERS.iter().find(|(name, _)| *name == type_text)?;
                Some(Self {
                    hash: KeyHash::Integer,
                    largest: *largest,
                })
            }
            LiteralKind::String => (type_text == "VARCHAR").then_some(Self {
                hash: KeyHash::String,
                largest: 0,
            }),
        }
    }

    /// As a route tells it: the hash, and the largest integer.
    #[must_use]
    pub fn told(self) -> (KeyHash, u64) {
        (self.hash, self.largest)
    }

    /// Of a route. `None` if it is of a kind that is not known.
    fn of_route(route: &StatementRoute) -> Option<Self> {
        let hash = route.key_hash();
        (hash != KeyHash::Unspecified).then_some(Self {
            hash,
            largest: route.key_max,
        })
    }

    /// The hash that says which partition has the rows of a key: DuckDB's `hash(hash(key))` (`duckdb/common/types/hash.hpp`).
    /// `None` if the literal is none of the column's values.
    #[must_use]
    pub fn partition_hash(self, literal: &Literal<'_>) -> Option<u64> {
        let inner = match (self.hash, literal.kind) {
            (KeyHash::Integer, LiteralKind::Integer) => {
                let key = literal.text.parse().ok().filter(|key| *key <= self.largest)?;
                hash(key)
            }
            (KeyHash::String, LiteralKind::String) => hash_of_string(literal.text.as_bytes()),
            _ => return None,
        };
        Some(hash(inner))
    }
}

const FACTOR: u64 = 0xd6e8_feb8_6659_fd93;

/// `MurmurHash64` of `duckdb/common/types/hash.hpp`.
fn hash(mut value: u64) -> u64 {
    value ^= value >> 32;
    value = value.wrapping_mul(FACTOR);
    value ^= value >> 32;
    value = value.wrapping_mul(FACTOR);
    value ^ value >> 32
}

/// `Hash(string_t)` of `duckdb/common/types/hash.cpp`.
fn hash_of_string(bytes: &[u8]) -> u64 {
    let seed = 0xe17a_1465 ^ (bytes.len() as u64).wrapping_mul(0xc6a4_a793_5bd1_e995);
    let mixed = bytes.chunks(8).fold(seed, |mixed, chunk| {
        let mut block = [0; 8];
        block[..chunk.len()].copy_from_slice(chunk);
        (mixed ^ u64::from_le_bytes(block)).wrapping_mul(FACTOR)
    });
    hash(mixed)
}

/// The routes that a session's client knows.
#[derive(Debug, Default)]
pub struct DirectRoutes {
    /// Counts how often all were forgotten.
    generation: u64,
    by_template: HashMap<String, Route>,
}

#[derive(Debug)]
struct Route {
    route: StatementRoute,
    /// Of each worker, once it is known.
    definitions: Vec<Option<DefinitionsVersion>>,
}

/// A statement whose route may be learnt, and when it was sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lesson {
    template: String,
    generation: u64,
}

/// Where to send a statement.
#[derive(Debug, Clone, PartialEq)]
pub enum Way {
    /// To this worker, if it can be reached: `host:port`, and what its definitions have to be.
    Worker(String, DefinitionsVersion, Lesson),
    /// To the coordinator, whose answer may say how to send the next one.
    Learn(Lesson),
    /// To the coordinator.
    Coordinator,
}

impl DirectRoutes {
    /// How to send a statement. Tells it too: one that may change what statements mean has all routes forgotten.
    pub fn way(&mut self, sql: &str) -> Way {
        let template = Template::of(sql).filter(|template| is_harmless(&template.text));
        let Some(template) = template else {
            self.forget_all();
            return Way::Coordinator;
        };
        let known = self.by_template.get(&template.text);
        let target = known.and_then(|known| known.target(&template));
        let lesson = Lesson {
            template: template.text,
            generation: self.generation,
        };
        match target {
            Some((address, definitions)) => Way::Worker(address, definitions, lesson),
            None => Way::Learn(lesson),
        }
    }

    /// The session may be another one from here on: what is known, and what is being learnt, does not hold any more.
    pub fn forget_all(&mut self) {
        self.generation += 1;
        self.by_template.clear();
    }

    /// The coordinator has said how to send statements like that one. What makes no sense is left alone.
    pub fn learn(&mut self, lesson: Lesson, route: StatementRoute) {
        if lesson.generation != self.generation || !is_sound(&route) {
            return;
        }
        let Ok(worker) = usize::try_from(route.worker) else {
            return;
        };
        if self.by_template.len() >= ROUTES_MAX && !self.by_template.contains_key(&lesson.template) {
            self.by_template.clear();
        }
        let definitions = route.definitions;
        let known = self.by_template.entry(lesson.template).or_insert_with(|| Route {
            definitions: vec![None; route.workers.len()],
            route: route.clone(),
        });
        if !known.is_of(&route) {
            // What was known of other workers was found with another one.
            *known = Route {
                definitions: vec![None; route.workers.len()],
                route,
            };
        }
        if let Some(place) = known.definitions.get_mut(worker) {
            *place = definitions;
        }
    }

    /// A worker has not run a statement that was sent there: its like goes to the coordinator, until that says again how to
    /// send it.
    pub fn refused(&mut self, lesson: &Lesson, address: &str) {
        let Some(known) = self.by_template.get_mut(&lesson.template) else {
            return;
        };
        for (worker, definitions) in known.route.workers.iter().zip(&mut known.definitions) {
            if worker == address {
                *definitions = None;
            }
        }
    }
}

impl Route {
    /// The worker of a statement's key, with its definitions.
    fn target(&self, template: &Template<'_>) -> Option<(String, DefinitionsVersion)> {
        let literal = template.literals.get(usize::try_from(self.route.key_literal).ok()?)?;
        let hash = Key::of_route(&self.route)?.partition_hash(literal)?;
        let partitions = &self.route.partitions;
        let partition = usize::try_from(hash.checked_rem(partitions.len() as u64)?).ok()?;
        let worker = usize::try_from(*partitions.get(partition)?).ok()?;
        let definitions = (*self.definitions.get(worker)?)?;
        Some((self.route.workers.get(worker)?.clone(), definitions))
    }

    /// Whether it is the same route, but for the worker that has answered.
    fn is_of(&self, route: &StatementRoute) -> bool {
        let known = &self.route;
        (known.key_literal, known.key_hash, known.key_max) == (route.key_literal, route.key_hash, route.key_max)
            && known.partitions == route.partitions
            && known.workers == route.workers
    }
}

/// Whether everything in it is there, and of a kind that is known.
fn is_sound(route: &StatementRoute) -> bool {
    let is_worker = |worker: &u32| usize::try_from(*worker).is_ok_and(|worker| worker < route.workers.len());
    Key::of_route(route).is_some()
        && (1..=PARTITIONS_MAX).contains(&route.partitions.len())
        && route.workers.len() <= route.partitions.len().min(WORKERS_MAX)
        && route.workers.iter().all(|address| address.len() <= ADDRESS_BYTES_MAX)
        && route.partitions.iter().all(is_worker)
        && is_worker(&route.worker)
        && route.definitions.is_some()
}

/// Whether the text, without its literals, is that of one statement that leaves the session as it was: wrong only to the safe
/// side.
fn is_harmless(template: &str) -> bool {
    let word = template
        .trim_start()
        .split(|letter: char| !letter.is_ascii_alphabetic())
        .next();
    word.is_some_and(|word| HARMLESS.iter().any(|harmless| word.eq_ignore_ascii_case(harmless)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SQL: &str = "SELECT * FROM t WHERE k = 5";

    fn version(instance: u64) -> DefinitionsVersion {
        DefinitionsVersion {
            instance,
            catalog_version: 3,
            term: 1,
        }
    }

    /// Four partitions on two workers.
    fn route(worker: u32) -> StatementRoute {
        StatementRoute {
            key_literal: 0,
            key_hash: KeyHash::Integer.into(),
            key_max: i64::MAX as u64,
            partitions: vec![0, 1, 0, 1],
            workers: vec!["a:1".to_owned(), "b:2".to_owned()],
            worker,
            definitions: Some(version(u64::from(worker))),
        }
    }

    fn lesson(routes: &mut DirectRoutes, sql: &str) -> Lesson {
        match routes.way(sql) {
            Way::Learn(lesson) | Way::Worker(_, _, lesson) => lesson,
            Way::Coordinator => panic!("{sql}"),
        }
    }

    fn address(routes: &mut DirectRoutes, key: u64) -> Option<String> {
        match routes.way(&format!("SELECT * FROM t WHERE k = {key}")) {
            Way::Worker(address, definitions, _) => {
                let number = if address == "a:1" { 0 } else { 1 };
                assert_eq!(definitions, version(number));
                Some(address)
            }
            _ => None,
        }
    }

    #[test]
    fn a_statement_goes_to_the_worker_of_its_key_once_that_one_has_answered() {
        let mut routes = DirectRoutes::default();
        let first = lesson(&mut routes, SQL);
        routes.learn(first, route(0));
        let known: Vec<_> = (0..100).filter_map(|key| address(&mut routes, key)).collect();
        assert!((20..80).contains(&known.len()), "{}", known.len());
        assert!(known.iter().all(|address| address == "a:1"));
        let second = lesson(&mut routes, SQL);
        routes.learn(second, route(1));
        for key in 0..100 {
            let key_of = Key::of("BIGINT", LiteralKind::Integer).unwrap();
            let text = key.to_string();
            let template = Template::of(&text).unwrap();
            let partition = key_of.partition_hash(&template.literals[0]).unwrap() % 4;
            let expected = ["a:1", "b:2"][usize::try_from(partition % 2).unwrap()];
            assert_eq!(address(&mut routes, key).as_deref(), Some(expected));
        }
        // One that refuses is not asked any more.
        let again = lesson(&mut routes, SQL);
        routes.refused(&again, "a:1");
        assert!(
            (0..100)
                .filter_map(|key| address(&mut routes, key))
                .all(|address| address == "b:2")
        );
    }

    #[test]
    fn another_route_makes_what_was_known_of_other_workers_void() {
        let mut routes = DirectRoutes::default();
        let lesson = lesson(&mut routes, SQL);
        routes.learn(lesson.clone(), route(0));
        let moved = StatementRoute {
            partitions: vec![1, 0, 0, 1],
            ..route(1)
        };
        routes.learn(lesson, moved);
        let found: Vec<_> = (0..100).filter_map(|key| address(&mut routes, key)).collect();
        assert!(found.iter().all(|address| address == "b:2"), "{found:?}");
    }

    #[test]
    fn what_may_change_the_session_makes_all_void() {
        for other in [
            "SET search_path = 'x'",
            "BEGIN",
            "CREATE TEMP TABLE t (k BIGINT)",
            "SELECT 1; DROP TABLE t",
            "/* SELECT */ DROP TABLE t",
            "selection",
            "PRAGMA x",
            "",
        ] {
            let mut routes = DirectRoutes::default();
            let before = lesson(&mut routes, SQL);
            routes.learn(before.clone(), route(0));
            routes.learn(before.clone(), route(1));
            assert!(address(&mut routes, 1).is_some());
            assert_eq!(routes.way(other), Way::Coordinator, "{other}");
            assert_eq!(address(&mut routes, 1), None, "{other}");
            // An answer that comes late is of before.
            routes.learn(before, route(0));
            assert_eq!((0..100).find_map(|key| address(&mut routes, key)), None, "{other}");
        }
    }

    #[test]
    fn reading_and_changing_rows_leaves_routes_alone() {
        let mut routes = DirectRoutes::default();
        let first = lesson(&mut routes, SQL);
        routes.learn(first.clone(), route(0));
        routes.learn(first, route(1));
        for other in [
            "insert into t values (1)",
            " FROM t",
            "WITH x AS (FROM t) FROM x",
            "DELETE FROM t",
        ] {
            assert_ne!(routes.way(other), Way::Coordinator, "{other}");
        }
        assert!(address(&mut routes, 1).is_some());
    }

    #[test]
    fn keys_that_are_none_go_to_the_coordinator() {
        let mut routes = DirectRoutes::default();
        let first = lesson(&mut routes, "SELECT * FROM t WHERE k = 5");
        let route = |worker| StatementRoute {
            key_max: 100,
            ..route(worker)
        };
        routes.learn(first.clone(), route(0));
        routes.learn(first, route(1));
        assert!(matches!(routes.way(SQL), Way::Worker(..)));
        for key in ["101", "99999999999999999999999", "'5'", "-5", "5.0", "NULL"] {
            let way = routes.way(&format!("SELECT * FROM t WHERE k = {key}"));
            assert!(matches!(way, Way::Learn(_)), "{key}: {way:?}");
        }
    }

    #[test]
    fn strings_are_keys_too() {
        let mut routes = DirectRoutes::default();
        let first = lesson(&mut routes, "SELECT * FROM t WHERE k = 'a'");
        let route = |worker| StatementRoute {
            key_hash: KeyHash::String.into(),
            ..route(worker)
        };
        routes.learn(first.clone(), route(0));
        routes.learn(first, route(1));
        for key in ["'a'", "''", "'it''s'", "'🦆 and more than twelve bytes'"] {
            let way = routes.way(&format!("SELECT * FROM t WHERE k = {key}"));
            assert!(matches!(way, Way::Worker(..)), "{key}: {way:?}");
        }
        for key in ["5", "NULL", "x"] {
            let way = routes.way(&format!("SELECT * FROM t WHERE k = {key}"));
            assert!(matches!(way, Way::Learn(_)), "{key}: {way:?}");
        }
    }

    #[test]
    fn nonsense_is_not_learnt() {
        let change = |change: &dyn Fn(&mut StatementRoute)| {
            let mut routes = DirectRoutes::default();
            let first = lesson(&mut routes, SQL);
            let mut wrong = route(0);
            change(&mut wrong);
            routes.learn(first, wrong);
            (0..100).find_map(|key| address(&mut routes, key))
        };
        assert!(change(&|_| {}).is_some());
        assert_eq!(change(&|route| route.partitions = Vec::new()), None);
        assert_eq!(change(&|route| route.partitions = vec![0; PARTITIONS_MAX + 1]), None);
        assert_eq!(change(&|route| route.partitions[3] = 2), None);
        assert_eq!(change(&|route| route.worker = 2), None);
        assert_eq!(change(&|route| route.definitions = None), None);
        assert_eq!(change(&|route| route.key_hash = 7), None);
        assert_eq!(change(&|route| route.key_literal = 7), None);
        assert_eq!(change(&|route| route.workers = vec!["a:1".to_owned(); 9]), None);
        assert_eq!(change(&|route| route.workers[1] = "a".repeat(301)), None);
    }

    #[test]
    fn statements_that_are_many_are_forgotten() {
        let mut routes = DirectRoutes::default();
        for column in 0..3 * ROUTES_MAX {
            let lesson = lesson(&mut routes, &format!("SELECT c{column} FROM t WHERE k = 5"));
            routes.learn(lesson, route(0));
            assert!(routes.by_template.len() <= ROUTES_MAX);
        }
    }

    proptest! {
        #[test]
        fn any_text_has_a_way(sql in any::<String>(), other in "(SELECT|FROM|SET) [ -~]{0,40}") {
            let mut routes = DirectRoutes::default();
            for sql in [sql.as_str(), other.as_str()] {
                if let Way::Learn(lesson) = routes.way(sql) {
                    routes.learn(lesson, route(0));
                    routes.way(sql);
                }
            }
        }
    }
}
