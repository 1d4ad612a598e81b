//! What the statement histories of both ends have in common: a client keeps what it has sent, a server what it was
//! asked to run, and one id says which entries are the same statement.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::{ExceptionType, RemoteError};

/// A statement's id in both histories: the bytes of a UUID. Clients choose one of version 7, so that ids rise.
pub type HistoryId = [u8; 16];

/// Statements that a history remembers by default; the oldest are forgotten first.
pub const STATEMENTS_MAX: usize = 10_000;

/// Bytes that a history takes by default, texts included; the oldest statements are forgotten first.
pub const BYTES_MAX: usize = 64 * 1024 * 1024;

/// Longest SQL text kept, in bytes; the rest is cut.
pub const SQL_BYTES_MAX: usize = 64 * 1024;

/// Longest error text kept, in bytes; the rest is cut.
pub const ERROR_BYTES_MAX: usize = 4 * 1024;

/// What is kept of a statement that makes a secret.
const SECRET_TEXT: &str = "CREATE SECRET (text withheld)";

/// What is kept of such a statement's error, which may quote it.
const SECRET_ERROR: &str = "(message withheld)";

/// How far a statement is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// It waits for its turn on the server.
    Waiting,
    /// It runs.
    Running,
    /// It ended well.
    Finished,
    /// It ended with an error.
    Failed,
    /// Somebody stopped it, or did not want the rest of its result.
    Cancelled,
}

impl State {
    /// The word in the history.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Running => "running",
            Self::Finished => "finished",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }

    /// The end that an error means: an interrupt is somebody's wish, anything else a failure.
    #[must_use]
    pub fn after(error: &RemoteError) -> Self {
        if error.kind == ExceptionType::Interrupt {
            Self::Cancelled
        } else {
            Self::Failed
        }
    }
}

/// What a statement has moved so far, counted without a lock. Rows are rows; bytes are those of the SQL text on the way
/// to the server, and of Arrow messages (header and body) either way. What gRPC adds to them is not counted.
#[derive(Debug, Default)]
pub struct Traffic {
    sent: Counts,
    received: Counts,
}

#[derive(Debug, Default)]
struct Counts {
    rows: AtomicU64,
    bytes: AtomicU64,
}

impl Counts {
    fn add(&self, rows: u64, bytes: u64) {
        self.rows.fetch_add(rows, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    fn get(&self) -> (u64, u64) {
        (self.rows.load(Ordering::Relaxed), self.bytes.load(Ordering::Relaxed))
    }
}

impl Traffic {
    /// Counts what has gone out.
    pub fn add_sent(&self, rows: u64, bytes: u64) {
        self.sent.add(rows, bytes);
    }

    /// Counts what has come in.
    pub fn add_received(&self, rows: u64, bytes: u64) {
        self.received.add(rows, bytes);
    }

    /// Rows and bytes that have gone out.
    #[must_use]
    pub fn sent(&self) -> (u64, u64) {
        self.sent.get()
    }

    /// Rows and bytes that have come in.
    #[must_use]
    pub fn received(&self) -> (u64, u64) {
        self.received.get()
    }
}

/// A statement's text as a history keeps it: cut to [`SQL_BYTES_MAX`], and without what must stay secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptText {
    sql: String,
    withheld: bool,
}

impl KeptText {
    /// What is kept of `sql`.
    #[must_use]
    pub fn of(sql: &str) -> Self {
        // Looked for in the whole text: what is behind the cut may be quoted by an error.
        let withheld = makes_secret(sql);
        let sql = if withheld { SECRET_TEXT } else { cut(sql, SQL_BYTES_MAX) };
        Self {
            sql: sql.to_owned(),
            withheld,
        }
    }

    /// The text.
    #[must_use]
    pub fn sql(&self) -> &str {
        &self.sql
    }

    /// What is kept of the statement's error: class and message as DuckDB prints them.
    #[must_use]
    pub fn error(&self, error: &RemoteError) -> String {
        if self.withheld {
            return format!("{} Error: {SECRET_ERROR}", error.kind.name());
        }
        cut(&error.to_string(), ERROR_BYTES_MAX).to_owned()
    }
}

/// The text of an upload, which has no SQL. An empty schema name means `main`.
#[must_use]
pub fn upload_text(schema_name: &str, table_name: &str) -> String {
    if schema_name.is_empty() || schema_name == "main" {
        format!("INSERT INTO {table_name} (uploaded rows)")
    } else {
        format!("INSERT INTO {schema_name}.{table_name} (uploaded rows)")
    }
}

fn cut(text: &str, bytes_max: usize) -> &str {
    &text[..text.floor_char_boundary(bytes_max)]
}

/// Whether a text has the words `CREATE … SECRET` in it, with nothing between them but what SQL allows there. A text
/// that only quotes such a statement is taken for one: the safe side.
fn makes_secret(sql: &str) -> bool {
    let mut after_create = false;
    for word in words(sql) {
        let is = |known: &str| word.eq_ignore_ascii_case(known);
        if after_create && is("SECRET") {
            return true;
        }
        let between = ["OR", "REPLACE", "PERSISTENT", "TEMPORARY", "TEMP", "LOCAL", "GLOBAL"];
        after_create = is("CREATE") || (after_create && between.iter().any(|known| is(known)));
    }
    false
}

/// The words of a text and, as empty ones, whatever else is not space or comment.
fn words(mut sql: &str) -> impl Iterator<Item = &str> {
    std::iter::from_fn(move || {
        loop {
            sql = sql.trim_start();
            sql = if let Some(comment) = sql.strip_prefix("--") {
                comment.find('\n').map_or("", |end| &comment[end..])
            } else if let Some(comment) = sql.strip_prefix("/*") {
                comment.find("*/").map_or("", |end| &comment[end + 2..])
            } else {
                break;
            };
        }
        let first = sql.chars().next()?;
        let end = sql
            .find(|c: char| !c.is_alphanumeric() && c != '_')
            .unwrap_or(sql.len());
        let (word, rest) = if end > 0 {
            sql.split_at(end)
        } else {
            ("", &sql[first.len_utf8()..])
        };
        sql = rest;
        Some(word)
    })
}

/// The newest entries, as many as two bounds allow: a number and a size.
#[derive(Debug)]
pub struct Ring<T> {
    entries: VecDeque<Entry<T>>,
    /// The key of the first of `entries`; keys rise by one along them.
    first: u64,
    bytes: usize,
    entries_max: usize,
    bytes_max: usize,
}

#[derive(Debug)]
struct Entry<T> {
    entry: T,
    /// Its own size and that of its texts.
    bytes: usize,
}

impl<T> Ring<T> {
    /// An empty one that holds `entries_max` entries of `bytes_max` bytes in all. 0 of either: nothing is kept.
    #[must_use]
    pub const fn new(entries_max: usize, bytes_max: usize) -> Self {
        Self {
            entries: VecDeque::new(),
            first: 0,
            bytes: 0,
            entries_max,
            bytes_max,
        }
    }

    /// Adds an entry whose texts take `text_bytes`, and returns its key. Older ones make room.
    pub fn push(&mut self, entry: T, text_bytes: usize) -> u64 {
        let key = self.first + self.entries.len() as u64;
        let bytes = size_of::<Entry<T>>() + text_bytes;
        self.entries.push_back(Entry { entry, bytes });
        self.bytes += bytes;
        self.shrink();
        key
    }

    /// Changes an entry, unless it is forgotten. `change` returns by how many bytes the entry's texts have grown.
    pub fn update(&mut self, key: u64, change: impl FnOnce(&mut T) -> usize) {
        let found = key
            .checked_sub(self.first)
            .and_then(|index| self.entries.get_mut(usize::try_from(index).ok()?));
        if let Some(found) = found {
            let grown = change(&mut found.entry);
            found.bytes += grown;
            self.bytes += grown;
            self.shrink();
        }
    }

    fn shrink(&mut self) {
        while self.entries.len() > self.entries_max || self.bytes > self.bytes_max {
            let Some(oldest) = self.entries.pop_front() else { return };
            self.first += 1;
            self.bytes -= oldest.bytes;
        }
    }

    /// Forgets all entries.
    pub fn clear(&mut self) {
        self.first += self.entries.len() as u64;
        self.entries.clear();
        self.bytes = 0;
    }

    /// The entries, oldest first.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &T> {
        self.entries.iter().map(|held| &held.entry)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn secrets_are_withheld_with_their_errors() {
        for sql in [
            "CREATE SECRET s (TYPE s3, SECRET 'hunter2')",
            "create or replace persistent secret s (TYPE s3, SECRET 'hunter2')",
            "SELECT 1; /* x */ CREATE -- y\n TEMPORARY\tSECRET (TYPE http, BEARER_TOKEN 'hunter2')",
        ] {
            let kept = KeptText::of(sql);
            let error = kept.error(&RemoteError::new(ExceptionType::Parser, "at or near \"hunter2\""));
            assert!(!kept.sql().contains("hunter2"), "{sql}");
            assert_eq!(error, "Parser Error: (message withheld)", "{sql}");
        }
        for sql in [
            "SELECT secret FROM t",
            "CREATE TABLE secret (i INTEGER)",
            "CREATE TABLE t AS SELECT secret",
            "DROP SECRET s",
            "CREATE OR REPLACE TABLE \"or\" (secret INTEGER)",
        ] {
            assert_eq!(KeptText::of(sql).sql(), sql);
        }
    }

    #[test]
    fn texts_are_cut_between_characters() {
        let kept = KeptText::of(&"ä".repeat(SQL_BYTES_MAX));
        assert_eq!(kept.sql().len(), SQL_BYTES_MAX);
        let error = kept.error(&RemoteError::new(ExceptionType::Io, "ä".repeat(ERROR_BYTES_MAX)));
        assert!(error.len() <= ERROR_BYTES_MAX && error.len() > ERROR_BYTES_MAX - 2);
    }

    #[test]
    fn an_interrupt_is_a_cancellation() {
        let state = |kind| State::after(&RemoteError::new(kind, "")).name();
        assert_eq!(state(ExceptionType::Interrupt), "cancelled");
        assert_eq!(state(ExceptionType::Binder), "failed");
    }

    #[test]
    fn both_bounds_hold_and_the_oldest_go() {
        let mut ring = Ring::new(3, 10_000);
        let keys: Vec<u64> = (0..5).map(|n| ring.push(n, 0)).collect();
        assert_eq!(ring.iter().copied().collect::<Vec<_>>(), [2, 3, 4]);
        ring.update(keys[0], |_| panic!("it is forgotten"));
        ring.update(keys[3], |entry| {
            *entry = 33;
            9_990
        });
        assert_eq!(
            ring.iter().copied().collect::<Vec<_>>(),
            [4],
            "33 was too large, and older than 4"
        );
        ring.clear();
        ring.update(keys[4], |_| panic!("it is forgotten"));
        let key = ring.push(6, 0);
        ring.update(key, |entry| {
            *entry = 7;
            0
        });
        assert_eq!(ring.iter().copied().collect::<Vec<_>>(), [7]);
    }

    #[test]
    fn a_ring_without_room_keeps_nothing() {
        for mut ring in [Ring::new(0, usize::MAX), Ring::new(9, 0)] {
            let key = ring.push("x", 1);
            ring.update(key, |_| panic!("it is forgotten"));
            assert_eq!(ring.iter().len(), 0);
        }
    }

    proptest! {
        #[test]
        fn any_text_is_kept_within_the_bound(sql in ".*") {
            prop_assert!(KeptText::of(&sql).sql().len() <= SQL_BYTES_MAX);
        }

        #[test]
        fn the_sum_of_bytes_is_kept(pushes in proptest::collection::vec((0usize..500, 0usize..500), 0..60)) {
            let mut ring = Ring::new(20, 5_000);
            for (text, more) in pushes {
                let key = ring.push((), text);
                ring.update(key, |()| more);
                prop_assert!(ring.bytes <= 5_000);
                prop_assert_eq!(ring.bytes, ring.entries.iter().map(|held| held.bytes).sum::<usize>());
            }
        }
    }
}
