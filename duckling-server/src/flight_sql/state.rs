//! What a session keeps for its Flight SQL client: prepared statements, results that have not been fetched, the
//! transaction it has begun, options. All of it is bounded, and gone with the session.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arrow::datatypes::SchemaRef;
use bytes::Bytes;
use duckherder_proto::{ExceptionType, RemoteError};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::plain::Mapping;
use crate::statement::Values;

/// Prepared statements of one session.
pub const PREPARED_MAX: usize = 1000;

/// Results of one session that were announced and not fetched yet; beyond it, the oldest are forgotten.
pub const TICKETS_MAX: usize = 1000;

/// Bytes that a session may have kept: values for parameters, and SQL.
const KEPT_BYTES_MAX: usize = 256 * 1024 * 1024;

/// What the bytes that are kept are counted in.
const KEPT_UNIT: usize = 1024;

/// Bytes of a handle: the session's number, and what nobody can guess.
const HANDLE_BYTES: usize = 24;

/// What a client names things by. It is no key to the session: what somebody else may do with it is what it names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Handle {
    /// Which session it belongs to.
    pub session: u64,
    secret: [u8; 16],
}

impl Handle {
    fn new(session: u64) -> Self {
        Self {
            session,
            secret: *uuid::Uuid::new_v4().as_bytes(),
        }
    }

    /// What a client has sent.
    ///
    /// # Errors
    /// `Invalid Input`, if it is no handle of ours.
    pub fn decode(bytes: &[u8]) -> Result<Self, RemoteError> {
        let malformed = || RemoteError::new(ExceptionType::InvalidInput, "this is no handle of this server's");
        let (session, secret) = bytes.split_first_chunk::<8>().ok_or_else(malformed)?;
        Ok(Self {
            session: u64::from_be_bytes(*session),
            secret: secret.try_into().map_err(|_| malformed())?,
        })
    }

    /// What clients get.
    pub fn encode(self) -> Bytes {
        let mut bytes = Vec::with_capacity(HANDLE_BYTES);
        bytes.extend_from_slice(&self.session.to_be_bytes());
        bytes.extend_from_slice(&self.secret);
        bytes.into()
    }
}

/// A prepared statement.
pub struct Prepared {
    pub sql: String,
    /// It was prepared to run in a transaction.
    pub in_transaction: bool,
    /// May run more than once for one request.
    pub repeatable: bool,
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
        schema: Option<SchemaRef>,
        parameters: Option<usize>,
        memory: OwnedSemaphorePermit,
    ) -> Self {
        Self {
            sql,
            in_transaction,
            repeatable,
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
    fetched: AtomicBool,
    _memory: OwnedSemaphorePermit,
}

impl Ticketed {
    /// Takes the right to run the statement.
    ///
    /// # Errors
    /// `Invalid Input`, if it has run and must not run again.
    pub fn fetch(&self) -> Result<(), RemoteError> {
        if self.fetched.swap(true, Ordering::SeqCst) && !self.repeatable {
            return Err(RemoteError::new(
                ExceptionType::InvalidInput,
                "the result of this ticket has been fetched: the statement is not run again",
            ));
        }
        Ok(())
    }

    pub fn is_fetched(&self) -> bool {
        self.fetched.load(Ordering::SeqCst)
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
            fetched: AtomicBool::new(false),
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
