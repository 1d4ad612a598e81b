//! What a session keeps for its Flight SQL client: prepared statements, results that have not been fetched, the
//! transaction it has begun, options. All of it is bounded, and gone with the session.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arrow::datatypes::SchemaRef;
use duckherder_proto::{ExceptionType, RemoteError};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::handle::{Handle, malformed};
use crate::parts::{Part, Parts};
use crate::plain::Mapping;
use crate::queue::{Producer, Queues};
use crate::statement::Values;

/// Prepared statements of one session.
pub const PREPARED_MAX: usize = 1000;

/// Streams that one result can be shared by.
pub const ENDPOINTS_MAX: u8 = 16;

/// Results of one session that were announced and not fetched yet; beyond it, the oldest are forgotten.
pub const TICKETS_MAX: usize = 1000;

/// Bytes that a session may have kept: values for parameters, and SQL.
const KEPT_BYTES_MAX: usize = 256 * 1024 * 1024;

/// What the bytes that are kept are counted in.
const KEPT_UNIT: usize = 1024;

/// What a result will be like.
#[derive(Debug, Clone, Copy)]
pub struct Outlook {
    /// Its rows come in an order that the statement asks for.
    pub ordered: bool,
    /// It is large, and several streams may share it.
    pub spread: bool,
}

/// A prepared statement.
pub struct Prepared {
    pub sql: String,
    /// It was prepared to run in a transaction.
    pub in_transaction: bool,
    /// May run more than once for one request.
    pub repeatable: bool,
    pub outlook: Outlook,
    /// The result's columns, if known.
    pub schema: Option<SchemaRef>,
    /// How many parameters it has; `None` if that is known only when it runs.
    pub parameters: Option<usize>,
    bound: Mutex<Option<Arc<Values>>>,
    _memory: OwnedSemaphorePermit,
}

impl Prepared {
    pub fn new(
        sql: String,
        in_transaction: bool,
        repeatable: bool,
        outlook: Outlook,
        schema: Option<SchemaRef>,
        parameters: Option<usize>,
        memory: OwnedSemaphorePermit,
    ) -> Self {
        Self {
            sql,
            in_transaction,
            repeatable,
            outlook,
            schema,
            parameters,
            bound: Mutex::default(),
            _memory: memory,
        }
    }

    /// The values that the next query runs with.
    pub fn bound(&self) -> Option<Arc<Values>> {
        lock(&self.bound).clone()
    }

    pub fn bind(&self, values: Arc<Values>) {
        *lock(&self.bound) = Some(values);
    }
}

/// A statement that was announced, and runs when its result is fetched.
pub struct Ticketed {
    pub sql: String,
    pub parameters: Option<Arc<Values>>,
    /// The transaction that it was announced for.
    pub transaction: Option<Handle>,
    pub mapping: Mapping,
    /// Reading again does no harm.
    pub repeatable: bool,
    pub statement_id: u64,
    /// How many streams share the result.
    pub endpoints: u8,
    fetched: Mutex<Fetched>,
    _memory: OwnedSemaphorePermit,
}

/// What has been fetched of a result.
#[derive(Default)]
struct Fetched {
    /// One bit for each endpoint.
    endpoints: u32,
    /// What the streams of several endpoints share, while some of them are still to come.
    parts: Option<Arc<Parts>>,
}

/// What fetching an endpoint means.
pub enum Fetch {
    /// The statement is to be run, for this stream alone.
    Alone,
    /// The statement is to be run, for this stream and others to come.
    First(Arc<Parts>, Producer),
    /// It runs, or has run.
    Further(Part),
}

impl Ticketed {
    /// Takes the right to read an endpoint. A result that streams share is put into one of `queues`.
    ///
    /// # Errors
    /// `Invalid Input`, if there is no such endpoint, or it must not be read again.
    pub fn fetch(&self, endpoint: u8, queues: &Queues) -> Result<Fetch, RemoteError> {
        if endpoint >= self.endpoints {
            return Err(malformed());
        }
        let mut fetched = lock(&self.fetched);
        let bit = 1 << endpoint;
        let alone = self.endpoints == 1;
        if fetched.endpoints & bit != 0 && !(alone && self.repeatable) {
            return Err(RemoteError::new(
                ExceptionType::InvalidInput,
                "the result of this ticket has been fetched: the statement is not run again",
            ));
        }
        fetched.endpoints |= bit;
        if alone {
            return Ok(Fetch::Alone);
        }
        let fetch = match &fetched.parts {
            Some(parts) => Fetch::Further(parts.part()),
            None => {
                let (producer, consumer) = queues.open();
                let parts = Arc::new(Parts::new(consumer));
                fetched.parts = Some(Arc::clone(&parts));
                Fetch::First(parts, producer)
            }
        };
        if fetched.endpoints.count_ones() == u32::from(self.endpoints) {
            fetched.parts = None;
        }
        Ok(fetch)
    }

    /// Whether the statement was run.
    pub fn has_begun(&self) -> bool {
        lock(&self.fetched).endpoints != 0
    }

    /// Whether nothing is left to be fetched.
    pub fn is_fetched(&self) -> bool {
        lock(&self.fetched).endpoints.count_ones() == u32::from(self.endpoints)
    }
}

#[derive(Default)]
struct Inner {
    prepared: HashMap<Handle, Arc<Prepared>>,
    tickets: VecDeque<(Handle, Arc<Ticketed>)>,
    transaction: Option<Handle>,
    /// Default catalog and schema, as the client has set them.
    catalog: Option<String>,
    schema: Option<String>,
    lossless: bool,
    /// How many streams a large result is offered in, if the client has said.
    endpoints: Option<u8>,
    has_options: bool,
}

/// See the module.
pub struct State {
    inner: Mutex<Inner>,
    statements: AtomicU64,
    memory: Arc<Semaphore>,
}

impl Default for State {
    fn default() -> Self {
        Self {
            inner: Mutex::default(),
            statements: AtomicU64::new(0),
            memory: Arc::new(Semaphore::new(KEPT_BYTES_MAX / KEPT_UNIT)),
        }
    }
}

impl State {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        lock(&self.inner)
    }

    /// An id for a statement, unique in the session.
    pub fn next_statement_id(&self) -> u64 {
        self.statements.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Room for so many bytes to keep.
    ///
    /// # Errors
    /// `Out of Memory`, if the session keeps too many.
    pub fn reserve(&self, bytes: usize) -> Result<OwnedSemaphorePermit, RemoteError> {
        let refuse = || {
            RemoteError::new(
                ExceptionType::OutOfMemory,
                format!(
                    "this session has {} MiB of statements and their parameters, its limit: close some, or ingest the \
                     rows instead",
                    KEPT_BYTES_MAX >> 20
                ),
            )
        };
        let units = u32::try_from(bytes.div_ceil(KEPT_UNIT)).map_err(|_| refuse())?;
        let acquire = || Arc::clone(&self.memory).try_acquire_many_owned(units);
        acquire().or_else(|_| {
            // Results that have been fetched are kept only in case they are asked for again.
            self.lock().tickets.retain(|(_, ticket)| !ticket.is_fetched());
            acquire().map_err(|_| refuse())
        })
    }

    /// Whether something would be lost with the session.
    pub fn is_in_use(&self) -> bool {
        let inner = self.lock();
        !inner.prepared.is_empty()
            || inner.transaction.is_some()
            || inner.has_options
            || inner.tickets.iter().any(|(_, ticket)| !ticket.is_fetched())
    }

    /// Keeps a prepared statement of session `number`.
    ///
    /// # Errors
    /// `Out of Range`, if the session has too many.
    pub fn keep_prepared(&self, number: u64, prepared: Prepared) -> Result<Handle, RemoteError> {
        let mut inner = self.lock();
        if inner.prepared.len() >= PREPARED_MAX {
            return Err(RemoteError::new(
                ExceptionType::OutOfMemory,
                format!("this session has {PREPARED_MAX} prepared statements, its limit: close some"),
            ));
        }
        let handle = Handle::new(number);
        inner.prepared.insert(handle, Arc::new(prepared));
        Ok(handle)
    }

    /// # Errors
    /// `Invalid Input`, if there is none of that handle.
    pub fn prepared(&self, handle: Handle) -> Result<Arc<Prepared>, RemoteError> {
        self.lock().prepared.get(&handle).cloned().ok_or_else(|| {
            RemoteError::new(
                ExceptionType::InvalidInput,
                "there is no prepared statement of this handle: it was closed, or belongs to another session",
            )
        })
    }

    /// Whether there was one.
    pub fn close_prepared(&self, handle: Handle) -> bool {
        self.lock().prepared.remove(&handle).is_some()
    }

    /// Keeps a statement of session `number` until its result is fetched.
    ///
    /// # Errors
    /// `Out of Memory`, if the session keeps too much.
    pub fn keep_ticket(
        &self,
        number: u64,
        sql: String,
        parameters: Option<Arc<Values>>,
        in_transaction: bool,
        repeatable: bool,
        endpoints: u8,
    ) -> Result<Handle, RemoteError> {
        let memory = self.reserve(sql.len())?;
        let statement_id = self.next_statement_id();
        let mut inner = self.lock();
        let ticketed = Ticketed {
            sql,
            parameters,
            transaction: inner.transaction.filter(|_| in_transaction),
            mapping: inner.mapping(),
            repeatable,
            statement_id,
            endpoints,
            fetched: Mutex::default(),
            _memory: memory,
        };
        if inner.tickets.len() >= TICKETS_MAX {
            inner.tickets.pop_front();
        }
        let handle = Handle::new(number);
        inner.tickets.push_back((handle, Arc::new(ticketed)));
        Ok(handle)
    }

    /// # Errors
    /// `Invalid Input`, if there is none of that handle.
    pub fn ticket(&self, handle: Handle) -> Result<Arc<Ticketed>, RemoteError> {
        let inner = self.lock();
        let found = inner.tickets.iter().find(|(of, _)| *of == handle);
        found.map(|(_, ticket)| Arc::clone(ticket)).ok_or_else(|| {
            RemoteError::new(
                ExceptionType::InvalidInput,
                "this ticket is not known (any more): its statement was cancelled, its session was closed, or too many \
                 results came after it",
            )
        })
    }

    /// Forgets a ticket: its statement cannot be run (again).
    pub fn drop_ticket(&self, handle: Handle) {
        self.lock().tickets.retain(|(of, _)| *of != handle);
    }

    /// The transaction that the client has begun, by handle.
    pub fn transaction(&self) -> Option<Handle> {
        self.lock().transaction
    }

    /// A transaction of session `number` has begun.
    pub fn begin_transaction(&self, number: u64) -> Handle {
        let handle = Handle::new(number);
        self.lock().transaction = Some(handle);
        handle
    }

    pub fn end_transaction(&self) {
        self.lock().transaction = None;
    }

    /// What results look like.
    pub fn mapping(&self) -> Mapping {
        self.lock().mapping()
    }

    pub fn set_lossless(&self, lossless: bool) {
        let mut inner = self.lock();
        inner.lossless = lossless;
        inner.has_options = true;
    }

    pub fn is_lossless(&self) -> bool {
        self.lock().lossless
    }

    /// How many streams the client wants a large result in, if it has said.
    pub fn endpoints(&self) -> Option<u8> {
        self.lock().endpoints
    }

    pub fn set_endpoints(&self, endpoints: Option<u8>) {
        let mut inner = self.lock();
        inner.endpoints = endpoints;
        inner.has_options = true;
    }

    /// The client has set some option.
    pub fn set_has_options(&self) {
        self.lock().has_options = true;
    }

    /// The catalog and schema that the client has set.
    pub fn place(&self) -> (Option<String>, Option<String>) {
        let inner = self.lock();
        (inner.catalog.clone(), inner.schema.clone())
    }

    pub fn set_place(&self, catalog: Option<String>, schema: Option<String>) {
        let mut inner = self.lock();
        (inner.catalog, inner.schema) = (catalog, schema);
        inner.has_options = true;
    }
}

impl Inner {
    fn mapping(&self) -> Mapping {
        if self.lossless {
            Mapping::Lossless
        } else {
            Mapping::Generic
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
