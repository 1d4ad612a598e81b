//! An attached duckling.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arrow::datatypes::SchemaRef;
use duckherder_catalog::{AliasRegistry, Rewrites, SchemaCache, TableName};
use duckherder_client::Client;
use duckherder_proto::ExceptionType;

use crate::attach::AttachOptions;
use crate::error::{ExtError, ForUser, Result};
use crate::runtime::{self, InterruptCheck};

/// What ATTACH makes and DETACH drops. Scans under way keep it alive.
pub struct Remote {
    catalog_name: String,
    client: Client,
    /// The network side belongs to the process that made it.
    process_id: u32,
    aliases: Mutex<AliasRegistry>,
    cache: Mutex<SchemaCache>,
    functions: Mutex<Option<HashSet<String>>>,
    rewrites: Mutex<Rewrites<SchemaRef>>,
}

impl Remote {
    /// Connects.
    ///
    /// # Errors
    /// Nobody answers there, or nobody that speaks our protocol.
    pub fn attach(
        interrupt: &dyn InterruptCheck,
        catalog_name: &str,
        options: &AttachOptions,
        duckdb_version: &str,
    ) -> Result<Arc<Self>> {
        let client_options = options.client_options(duckdb_version);
        let client = runtime::wait(interrupt, async move {
            Client::connect(client_options).await.map_err(ForUser::for_user)
        })?;
        Ok(Arc::new(Self {
            catalog_name: catalog_name.to_owned(),
            client,
            process_id: std::process::id(),
            aliases: Mutex::default(),
            cache: Mutex::default(),
            functions: Mutex::default(),
            rewrites: Mutex::default(),
        }))
    }

    /// The name it is attached under.
    pub fn catalog_name(&self) -> &str {
        &self.catalog_name
    }

    /// `host:port`
    pub fn address(&self) -> &str {
        &self.client.server().address
    }

    /// The client, unless this process is a fork of the one that connected.
    ///
    /// # Errors
    /// In a forked process.
    pub fn client(&self) -> Result<&Client> {
        self.check_process()?;
        Ok(&self.client)
    }

    /// # Errors
    /// In a forked process.
    pub fn check_process(&self) -> Result<()> {
        if self.process_id == std::process::id() {
            return Ok(());
        }
        Err(ExtError::new(
            ExceptionType::Connection,
            format!(
                "'{0}' was attached before this process was forked, and a connection cannot be shared with the parent: \
                 open a new DuckDB in this process and ATTACH there",
                self.catalog_name
            ),
        ))
    }

    /// The aliases, locked.
    pub fn aliases(&self) -> MutexGuard<'_, AliasRegistry> {
        self.aliases.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The cached schema, locked.
    pub fn cache(&self) -> MutexGuard<'_, SchemaCache> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The names of the server's functions if they have been read, locked.
    pub fn functions(&self) -> MutexGuard<'_, Option<HashSet<String>>> {
        self.functions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What reads have become on their way to the server, and the columns of their results, locked.
    pub fn rewrites(&self) -> MutexGuard<'_, Rewrites<SchemaRef>> {
        self.rewrites.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets an alias; the remote name may name a schema.
    ///
    /// # Errors
    /// The alias exists; the remote name is none.
    pub fn register_alias(&self, local: &str, remote: &str) -> Result<()> {
        let remote: TableName = remote.parse().map_err(ForUser::for_user)?;
        // A local name is one name: its quoting is SQL's, not the alias's.
        let local: TableName = local.parse().map_err(ForUser::for_user)?;
        self.aliases().register(&local.table, remote).map_err(ForUser::for_user)
    }

    /// Removes an alias.
    ///
    /// # Errors
    /// There is none of that name.
    pub fn unregister_alias(&self, local: &str) -> Result<()> {
        let local: TableName = local.parse().map_err(ForUser::for_user)?;
        self.aliases().unregister(&local.table).map_err(ForUser::for_user)
    }
}

impl Drop for Remote {
    fn drop(&mut self) {
        if self.process_id != std::process::id() {
            // The parent's sockets and tasks: closing them here would disturb its runtime's state.
            std::mem::forget(self.client.clone());
        }
    }
}
