//! One client connection's session on an attached duckling.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use duckherder_client::{QueryOptions, Session};
use duckherder_proto::v1::{ColumnDescription, TableDescription};
use duckherder_proto::{ExceptionType, RemoteError};

use crate::error::{ExtError, ForUser, Result};
use crate::history::Recording;
use crate::remote::Remote;
use crate::runtime::{self, InterruptCheck, Never};
use crate::scan::Scan;

/// A DuckDB connection on the server that belongs to one DuckDB connection here.
pub struct RemoteSession {
    remote: Arc<Remote>,
    session: Session,
    /// The server has begun this connection's transaction.
    in_transaction: AtomicBool,
}

/// Whether a statement changes something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// It does not.
    Read,
    /// It does, or may.
    Write,
}

impl Access {
    /// The word in the history.
    fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
        }
    }
}

impl RemoteSession {
    /// Opens a session.
    ///
    /// # Errors
    /// The server is gone or refuses.
    pub fn open(interrupt: &dyn InterruptCheck, remote: Arc<Remote>) -> Result<Self> {
        let client = remote.client()?.clone();
        let session = runtime::wait(interrupt, async move {
            client.open_session().await.map_err(ForUser::for_user)
        })?;
        Ok(Self {
            remote,
            session,
            in_transaction: AtomicBool::new(false),
        })
    }

    /// Starts a statement and waits for its result's schema. `transactional`: the client connection is in an explicit
    /// transaction, which the server joins with this statement at the latest.
    ///
    /// # Errors
    /// The server's, or the connection's.
    pub fn start(
        &self,
        interrupt: &dyn InterruptCheck,
        sql: &str,
        transactional: bool,
        access: Access,
    ) -> Result<Scan> {
        self.remote.check_process()?;
        let begin_transaction = transactional && !self.in_transaction.load(Ordering::SeqCst);
        let recording = Recording::start(self.remote.catalog_name(), self.remote.address(), sql, access.name());
        let session = self.session.clone();
        let text = sql.to_owned();
        let outcome = runtime::wait(interrupt, async move {
            let options = QueryOptions { begin_transaction };
            session.query_with(text, options).await.map_err(ForUser::for_user)
        });
        if begin_transaction {
            // Even if the statement failed: the server may have begun before it did. A rollback is harmless if not.
            self.in_transaction.store(true, Ordering::SeqCst);
        }
        match outcome {
            Ok(stream) => Scan::stream(Arc::clone(&self.remote), stream, recording),
            Err(error) => {
                self.forget_stale_catalog(&error);
                recording.finish(Err(error.to_string()));
                Err(error)
            }
        }
    }

    /// The columns of a statement's result, without running it.
    ///
    /// # Errors
    /// The server's, or the connection's.
    pub fn describe(&self, interrupt: &dyn InterruptCheck, sql: &str) -> Result<Vec<ColumnDescription>> {
        self.remote.check_process()?;
        let session = self.session.clone();
        let sql = sql.to_owned();
        let shape = runtime::wait(interrupt, async move {
            session.describe(sql).await.map_err(ForUser::for_user)
        })?;
        Ok(shape.columns)
    }

    /// Ends the server's part of the client connection's transaction, if it has one.
    ///
    /// # Errors
    /// A COMMIT's. The transaction is over all the same.
    pub fn commit(&self, interrupt: &dyn InterruptCheck) -> Result<()> {
        if !self.in_transaction.swap(false, Ordering::SeqCst) {
            return Ok(());
        }
        self.run_control(interrupt, "COMMIT")
    }

    /// Undoes the server's part of the client connection's transaction, if it has one. Never fails: a server that
    /// cannot be told rolls back by itself when it misses the session.
    pub fn rollback(&self) {
        if self.in_transaction.swap(false, Ordering::SeqCst) {
            let _ = self.run_control(&Never, "ROLLBACK");
        }
    }

    fn run_control(&self, interrupt: &dyn InterruptCheck, sql: &'static str) -> Result<()> {
        self.remote.check_process()?;
        let session = self.session.clone();
        let epoch = runtime::wait(interrupt, async move {
            let deadline = std::time::Duration::from_secs(60);
            let outcome = tokio::time::timeout(deadline, session.execute_with(sql, QueryOptions::default())).await;
            let summary = outcome
                .map_err(|_| {
                    ExtError::new(
                        ExceptionType::Connection,
                        format!("the duckling did not answer {sql} in time"),
                    )
                })?
                .map_err(ForUser::for_user)?;
            Ok(summary.catalog_epoch)
        })?;
        self.remote.cache().observe(epoch);
        Ok(())
    }

    /// A table or view by name. With `validate`, what is cached is first checked to be current.
    ///
    /// # Errors
    /// The server's, or the connection's.
    pub fn lookup_table(
        &self,
        interrupt: &dyn InterruptCheck,
        schema_name: &str,
        table_name: &str,
        validate: bool,
    ) -> Result<Option<Arc<TableDescription>>> {
        self.remote.check_process()?;
        let cached = self.remote.cache().get(schema_name, table_name);
        if cached.is_some() && !validate {
            return Ok(cached);
        }
        if cached.is_some() && self.cache_is_current(interrupt)? {
            return Ok(cached);
        }
        let session = self.session.clone();
        let (schema_name, table_name) = (schema_name.to_owned(), table_name.to_owned());
        let lookup = runtime::wait(interrupt, async move {
            session
                .lookup_table(schema_name, table_name)
                .await
                .map_err(ForUser::for_user)
        })?;
        let mut cache = self.remote.cache();
        cache.observe(lookup.epoch);
        Ok(lookup.table.map(|table| cache.insert(lookup.epoch, table)))
    }

    /// Whether a schema exists.
    ///
    /// # Errors
    /// The server's, or the connection's.
    pub fn lookup_schema(&self, interrupt: &dyn InterruptCheck, schema_name: &str) -> Result<bool> {
        self.remote.check_process()?;
        let session = self.session.clone();
        let schema_name = schema_name.to_owned();
        let (epoch, exists) = runtime::wait(interrupt, async move {
            session.lookup_schema(schema_name).await.map_err(ForUser::for_user)
        })?;
        self.remote.cache().observe(epoch);
        Ok(exists)
    }

    fn cache_is_current(&self, interrupt: &dyn InterruptCheck) -> Result<bool> {
        let session = self.session.clone();
        let epoch = runtime::wait(interrupt, async move {
            session.keep_alive().await.map_err(ForUser::for_user)
        })?;
        Ok(!self.remote.cache().observe(epoch))
    }

    /// Everything in the remote database.
    ///
    /// # Errors
    /// The server's, or the connection's.
    pub fn list_tables(&self, interrupt: &dyn InterruptCheck) -> Result<(Vec<String>, Vec<Arc<TableDescription>>)> {
        self.remote.check_process()?;
        let session = self.session.clone();
        let snapshot = runtime::wait(interrupt, async move {
            session.list_tables().await.map_err(ForUser::for_user)
        })?;
        let mut cache = self.remote.cache();
        cache.observe(snapshot.epoch);
        let tables = snapshot
            .tables
            .into_iter()
            .map(|table| cache.insert(snapshot.epoch, table))
            .collect();
        Ok((snapshot.schema_names, tables))
    }

    /// Loads a DuckDB extension on the server.
    ///
    /// # Errors
    /// The server's, or the connection's.
    pub fn load_extension(&self, interrupt: &dyn InterruptCheck, name: &str) -> Result<()> {
        self.remote.check_process()?;
        let session = self.session.clone();
        let name = name.to_owned();
        runtime::wait(interrupt, async move {
            session.load_extension(name).await.map_err(ForUser::for_user)?;
            Ok(())
        })?;
        self.remote.cache().clear();
        Ok(())
    }

    /// A catalog or binder error may mean that what is cached is out of date: look again next time.
    fn forget_stale_catalog(&self, error: &RemoteError) {
        if matches!(error.kind, ExceptionType::Catalog | ExceptionType::Binder) {
            self.remote.cache().clear();
        }
    }
}
