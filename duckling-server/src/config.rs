//! What a duckling is started with.

use std::path::PathBuf;
use std::time::Duration;

use duckherder_proto::history;

use crate::duckdb::{BatchSize, DatabaseOptions};
use crate::herd::JoinConfig;

/// The path that means a database without a file.
pub const IN_MEMORY: &str = ":memory:";

/// Configuration of a [`Duckling`](crate::Duckling).
#[derive(Debug, Clone)]
pub struct DucklingConfig {
    /// Path of the database file, or `:memory:`.
    pub database: String,
    /// Threads and memory of DuckDB.
    pub database_options: DatabaseOptions,
    /// The memory that the whole process may take, for example `4GB`: bounds of other things are lowered to their shares of
    /// it, and what is left is DuckDB's, in the place of its own option. For a process that does nothing else.
    pub memory_limit: Option<String>,
    /// Bounds on what clients can make the server hold.
    pub limits: Limits,
    /// Where exchanges go that do not fit into memory; the system's directory for temporary files if `None`.
    pub exchange_directory: Option<PathBuf>,
    /// Partitions of a new table without clauses, as a coordinator; 0: it stays on the coordinator.
    pub default_partitions: usize,
    /// The herd to be a worker in, if any.
    pub join: Option<JoinConfig>,
}

impl Default for DucklingConfig {
    fn default() -> Self {
        Self {
            database: IN_MEMORY.to_owned(),
            database_options: DatabaseOptions::default(),
            memory_limit: None,
            limits: Limits::default(),
            exchange_directory: None,
            default_partitions: 0,
            join: None,
        }
    }
}

/// Bounds on queues, waits and counts. Every one has a default that suits one machine with some dozens of clients.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Open connections; more wait until others are closed.
    pub connections_max: usize,
    /// Open sessions; the next client is refused.
    pub sessions_max: usize,
    /// A session that nobody has used or kept alive for so long is closed, its transaction rolled back.
    pub session_idle_timeout: Duration,
    /// A session in a transaction is closed, too, so long after its client's connections were found to be closed: others would
    /// meet conflicts with a client that has died.
    pub gone_client_timeout: Duration,
    /// Statements running at once; more wait.
    pub statements_max: usize,
    /// How long a statement waits for its turn, or for its session's connection, before it fails.
    pub statement_wait_timeout: Duration,
    /// Statements of one session that may run beside each other outside a transaction.
    pub session_statements_max: usize,
    /// Arrow bytes that a result comes to be read ahead of its reader.
    pub read_ahead_bytes: usize,
    /// Arrow bytes of all results that are waiting for their readers; beyond it each is read ahead by one message only.
    pub results_bytes_max: usize,
    /// Arrow bytes of an unread result held when the session's next statement needs its connection.
    pub transaction_buffer_bytes: usize,
    /// Rows in one record batch, at most.
    pub batch_rows: usize,
    /// Arrow bytes in one message, about; single rows may be larger.
    pub message_bytes: usize,
    /// Streams that a large result without an order is offered in to clients of Arrow Flight SQL, from 1 to 16. A client
    /// may open all of them on one connection and read one after the other: those that wait then fill their windows, and
    /// must leave room in the connection's. Two windows of 2 MiB in 5 MiB are what clients in Rust have by default.
    pub result_endpoints: u8,
    /// Statements that the history remembers; 0 turns it off.
    pub history_statements_max: usize,
    /// Bytes that the history takes, texts included.
    pub history_bytes_max: usize,
    /// How long running statements may take to finish after a shutdown began; then they are interrupted.
    pub drain_timeout: Duration,
    /// Arrow bytes of exchanges that a worker keeps in memory; more go to disk. At most an eighth of the memory limit, if
    /// one is given.
    pub exchange_memory_bytes: u64,
    /// Bytes of exchanges that a worker keeps on disk.
    pub exchange_disk_bytes: u64,
    /// How long a worker that reads from another one waits for that one to know of the query.
    pub exchange_wait_timeout: Duration,
    /// What a worker keeps of a query is dropped when nobody has read any of it for so long.
    pub exchange_idle_timeout: Duration,
    /// Workers that a coordinator has.
    pub workers_max: usize,
    /// How often a worker and its coordinator hear of each other.
    pub worker_heartbeat_interval: Duration,
    /// A worker that has been silent for so long is suspected: no new tables go there.
    pub worker_suspected_after: Duration,
    /// A worker that has been silent for so long is down: statements that need it fail at once.
    pub worker_down_after: Duration,
}

impl Limits {
    /// What a statement yields at a time: a message, as a rule. What it comes to is known about.
    pub(crate) fn batch_size(&self) -> BatchSize {
        BatchSize {
            rows: self.batch_rows,
            bytes: self.message_bytes / 8 * 7,
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections_max: 4096,
            sessions_max: 4096,
            session_idle_timeout: Duration::from_secs(15 * 60),
            gone_client_timeout: Duration::from_secs(30),
            statements_max: 256,
            statement_wait_timeout: Duration::from_secs(60),
            session_statements_max: 16,
            read_ahead_bytes: 16 * 1024 * 1024,
            results_bytes_max: 2 * 1024 * 1024 * 1024,
            transaction_buffer_bytes: 1024 * 1024 * 1024,
            // A quarter of DuckDB's row group.
            batch_rows: 30 * 1024,
            // Messages have their price, for clients too; all of them accept 4 MiB.
            message_bytes: 15 * 256 * 1024,
            result_endpoints: 3,
            history_statements_max: history::STATEMENTS_MAX,
            history_bytes_max: history::BYTES_MAX,
            drain_timeout: Duration::from_secs(10),
            exchange_memory_bytes: 256 * 1024 * 1024,
            exchange_disk_bytes: 64 * 1024 * 1024 * 1024,
            exchange_wait_timeout: Duration::from_secs(20),
            exchange_idle_timeout: Duration::from_secs(15 * 60),
            workers_max: 256,
            worker_heartbeat_interval: Duration::from_secs(1),
            worker_suspected_after: Duration::from_secs(3),
            worker_down_after: Duration::from_secs(5),
        }
    }
}
