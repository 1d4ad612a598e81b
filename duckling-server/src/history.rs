//! The server's history: what its clients have asked it to run, bounded, and readable by any of them as
//! `FROM duckling_history()`.

use std::ffi::CStr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use duckherder_proto::RemoteError;
use duckherder_proto::history::{HistoryId, KeptText, Ring, State, Traffic};

use crate::config::Limits;
use crate::duckdb::{Cell, ColumnType, TableSource};

/// The table function that reads the history.
pub const FUNCTION: &CStr = c"duckling_history";

/// Who sent a statement.
#[derive(Debug, Clone)]
pub struct Sender {
    /// The session's number. Not its id: that is a secret.
    pub session: u64,
    /// Address and port, if known.
    pub client: Option<Arc<str>>,
}

/// One statement.
struct Entry {
    id: HistoryId,
    sender: Sender,
    sql: Arc<str>,
    /// `None` until it is parsed.
    kind: Option<&'static str>,
    started: SystemTime,
    arrived: Instant,
    queued: Option<Duration>,
    traffic: Arc<Traffic>,
    state: State,
    duration: Option<Duration>,
    rows_changed: Option<u64>,
    error: Option<(&'static str, Arc<str>)>,
}

/// The statements of one server.
pub struct History {
    ring: Mutex<Ring<Entry>>,
}

impl History {
    /// An empty one.
    pub fn new(limits: &Limits) -> Self {
        Self {
            ring: Mutex::new(Ring::new(limits.history_statements_max, limits.history_bytes_max)),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Ring<Entry>> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records that a statement has arrived. `id` is the client's for it; one is made up if it is no UUID.
    pub fn arrived(self: &Arc<Self>, id: &[u8], sender: Sender, sql: &str) -> Recording {
        self.arrived_at(Instant::now(), id, sender, sql)
    }

    /// Records that a statement has arrived a while ago.
    pub fn arrived_at(self: &Arc<Self>, arrived: Instant, id: &[u8], sender: Sender, sql: &str) -> Recording {
        let now = SystemTime::now();
        let text = KeptText::of(sql);
        let traffic = Arc::new(Traffic::default());
        let id = HistoryId::try_from(id).unwrap_or_else(|_| uuid::Uuid::now_v7().into_bytes());
        let entry = Entry {
            id,
            sender,
            sql: text.sql().into(),
            kind: None,
            started: now.checked_sub(arrived.elapsed()).unwrap_or(now),
            arrived,
            queued: None,
            traffic: Arc::clone(&traffic),
            state: State::Waiting,
            duration: None,
            rows_changed: None,
            error: None,
        };
        let key = self.lock().push(entry, text.sql().len());
        Recording {
            history: Arc::clone(self),
            id,
            key,
            arrived,
            text,
            traffic,
            ended: false,
        }
    }
}

/// A statement on its way through the server. One that is dropped without an outcome counts as cancelled.
pub struct Recording {
    history: Arc<History>,
    id: HistoryId,
    key: u64,
    arrived: Instant,
    text: KeptText,
    traffic: Arc<Traffic>,
    ended: bool,
}

impl Recording {
    /// The statement's id.
    pub fn id(&self) -> HistoryId {
        self.id
    }

    /// The statement has its connection, and runs from now on.
    pub fn runs(&self) {
        let queued = self.arrived.elapsed();
        self.update(|entry| {
            entry.queued = Some(queued);
            entry.state = State::Running;
            0
        });
    }

    /// What kind of statement it has turned out to be.
    pub fn is_a(&self, kind: &'static str) {
        self.update(|entry| {
            entry.kind = Some(kind);
            0
        });
    }

    /// What it moves.
    pub fn traffic(&self) -> &Arc<Traffic> {
        &self.traffic
    }

    /// The statement has ended, having changed so many rows if it is one that does.
    pub fn end(mut self, outcome: Result<Option<u64>, &RemoteError>) {
        match outcome {
            Ok(rows_changed) => self.set_end(State::Finished, rows_changed, None),
            Err(error) => {
                let text = self.text.error(error);
                self.set_end(State::after(error), None, Some((error.kind.name(), text.into())));
            }
        }
    }

    fn set_end(&mut self, state: State, rows_changed: Option<u64>, error: Option<(&'static str, Arc<str>)>) {
        self.ended = true;
        let duration = self.arrived.elapsed();
        self.update(|entry| {
            entry.state = state;
            entry.duration = Some(duration);
            entry.rows_changed = rows_changed;
            entry.error = error;
            entry.error.as_ref().map_or(0, |(_, text)| text.len())
        });
    }

    fn update(&self, change: impl FnOnce(&mut Entry) -> usize) {
        self.history.lock().update(self.key, change);
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        if !self.ended {
            let state = if std::thread::panicking() {
                State::Failed
            } else {
                State::Cancelled
            };
            self.set_end(state, None, None);
        }
    }
}

/// Reads the history.
pub struct HistoryTable(pub Arc<History>);

impl TableSource for HistoryTable {
    fn columns(&self) -> &'static [(&'static CStr, ColumnType)] {
        &[
            (c"id", ColumnType::Uuid),
            (c"session", ColumnType::Unsigned),
            (c"client", ColumnType::Text),
            (c"sql", ColumnType::Text),
            (c"kind", ColumnType::Text),
            (c"state", ColumnType::Text),
            (c"start_time", ColumnType::Timestamp),
            (c"duration_us", ColumnType::Signed),
            (c"queued_us", ColumnType::Signed),
            (c"rows_sent", ColumnType::Unsigned),
            (c"rows_received", ColumnType::Unsigned),
            (c"bytes_sent", ColumnType::Unsigned),
            (c"bytes_received", ColumnType::Unsigned),
            (c"rows_changed", ColumnType::Signed),
            (c"error_type", ColumnType::Text),
            (c"error", ColumnType::Text),
        ]
    }

    fn rows(&self, _: &[String]) -> Result<Vec<Vec<Cell>>, RemoteError> {
        Ok(self.0.lock().iter().map(row).collect())
    }
}

fn row(entry: &Entry) -> Vec<Cell> {
    let text = |text: &str| Cell::Text(text.into());
    let us = |duration: Duration| Cell::Signed(i64::try_from(duration.as_micros()).unwrap_or(i64::MAX));
    let so_far = || entry.arrived.elapsed();
    let ((rows_sent, bytes_sent), (rows_received, bytes_received)) = (entry.traffic.sent(), entry.traffic.received());
    let started = entry.started.duration_since(UNIX_EPOCH).unwrap_or_default();
    let rows_changed = entry.rows_changed.and_then(|rows| i64::try_from(rows).ok());
    vec![
        Cell::Uuid(entry.id),
        Cell::Unsigned(entry.sender.session),
        entry.sender.client.clone().map_or(Cell::Null, Cell::Text),
        Cell::Text(Arc::clone(&entry.sql)),
        entry.kind.map_or(Cell::Null, text),
        text(entry.state.name()),
        i64::try_from(started.as_micros()).map_or(Cell::Null, Cell::Timestamp),
        us(entry.duration.unwrap_or_else(so_far)),
        us(entry.queued.or(entry.duration).unwrap_or_else(so_far)),
        Cell::Unsigned(rows_sent),
        Cell::Unsigned(rows_received),
        Cell::Unsigned(bytes_sent),
        Cell::Unsigned(bytes_received),
        rows_changed.map_or(Cell::Null, Cell::Signed),
        entry.error.as_ref().map_or(Cell::Null, |(kind, _)| text(kind)),
        entry
            .error
            .as_ref()
            .map_or(Cell::Null, |(_, error)| Cell::Text(Arc::clone(error))),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use duckherder_proto::ExceptionType;

    fn sender() -> Sender {
        Sender {
            session: 7,
            client: Some("127.0.0.1:1".into()),
        }
    }

    fn history() -> Arc<History> {
        Arc::new(History::new(&Limits::default()))
    }

    /// Column `name` of all rows.
    fn column(history: &Arc<History>, name: &CStr) -> Vec<Cell> {
        let table = HistoryTable(Arc::clone(history));
        let index = table.columns().iter().position(|(column, _)| *column == name).unwrap();
        let rows = table.rows(&[]).unwrap();
        assert!(rows.iter().all(|row| row.len() == table.columns().len()));
        rows.into_iter().map(|mut row| row.swap_remove(index)).collect()
    }

    fn text(text: &str) -> Cell {
        Cell::Text(text.into())
    }

    #[test]
    fn a_statement_is_seen_on_its_way() {
        let history = history();
        let recording = history.arrived(&[1; 16], sender(), "FROM t");
        recording.traffic().add_received(0, 6);
        assert_eq!(column(&history, c"state"), [text("waiting")]);
        recording.runs();
        recording.is_a("read");
        recording.traffic().add_sent(3, 100);
        assert_eq!(column(&history, c"state"), [text("running")]);
        assert_eq!(column(&history, c"rows_sent"), [Cell::Unsigned(3)]);
        recording.end(Ok(None));
        assert_eq!(column(&history, c"id"), [Cell::Uuid([1; 16])]);
        assert_eq!(column(&history, c"state"), [text("finished")]);
        assert_eq!(column(&history, c"bytes_received"), [Cell::Unsigned(6)]);
        assert_eq!(column(&history, c"rows_changed"), [Cell::Null]);
        assert_eq!(column(&history, c"error"), [Cell::Null]);
    }

    #[test]
    fn ends_are_told_apart() {
        let history = history();
        let error = |kind| RemoteError::new(kind, "why");
        history.arrived(b"", sender(), "A").end(Ok(Some(2)));
        history
            .arrived(b"", sender(), "B")
            .end(Err(&error(ExceptionType::Binder)));
        history
            .arrived(b"", sender(), "C")
            .end(Err(&error(ExceptionType::Interrupt)));
        drop(history.arrived(b"", sender(), "D"));
        let states = ["finished", "failed", "cancelled", "cancelled"];
        assert_eq!(column(&history, c"state"), states.map(text));
        let null = || Cell::Null;
        let changed = [Cell::Signed(2), null(), null(), null()];
        assert_eq!(column(&history, c"rows_changed"), changed);
        let types = [null(), text("Binder"), text("INTERRUPT"), null()];
        assert_eq!(column(&history, c"error_type"), types);
        assert_eq!(column(&history, c"error")[1], text("Binder Error: why"));
        let ids = column(&history, c"id");
        assert!(
            ids.iter().all(|id| *id != ids[0] || std::ptr::eq(id, &ids[0])),
            "made up, and unique"
        );
    }

    #[test]
    fn it_is_bounded() {
        let limits = Limits {
            history_statements_max: 3,
            ..Limits::default()
        };
        let history = Arc::new(History::new(&limits));
        let first = history.arrived(b"", sender(), "first");
        for _ in 0..3 {
            history.arrived(b"", sender(), "later").end(Ok(None));
        }
        first.end(Ok(None));
        assert_eq!(column(&history, c"sql"), [text("later"), text("later"), text("later")]);
    }
}
