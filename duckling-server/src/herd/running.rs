//! As a worker: the query whose stages a connection runs, and the exchanges that they read.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write;
use std::sync::{Arc, Mutex};

use arrow::datatypes::{Schema, SchemaRef};
use duckherder_catalog::herd::query::{Column, Estimates, StageId};
use duckherder_proto::error::HERD_WORKER;
use duckherder_proto::v1::{ColumnDescription, HerdExchange, ReadExchangeRequest};
use duckherder_proto::{ExceptionType, RemoteError};
use futures::TryStreamExt;
use serde::Serialize;
use tokio::task::JoinSet;

use super::exchange::{Outputs, QueryId};
use super::merge::{Merge, Merged};
use super::peers::named;
use super::session::lock;
use super::{BatchSource, Herd};
use crate::catalog::identifier;
use crate::duckdb::Connection;
use crate::plain::{Mapping, Plain};
use crate::running::blocking;
use crate::session::STOP_GRACE;

/// See the module.
pub struct RunningQuery {
    id: QueryId,
    /// Which worker this is.
    worker: String,
    exchanges: HashMap<StageId, Exchange>,
    addresses: BTreeMap<String, String>,
    outputs: Arc<Outputs>,
    /// Readers opened so far.
    readers: Mutex<HashMap<StageId, u32>>,
    /// The first error of an exchange: why a stage has failed that has read it.
    failure: Mutex<Option<RemoteError>>,
}

/// The columns of an exchange, and what is known of its rows.
#[derive(Debug, Clone, Serialize)]
pub struct ExchangeColumns {
    pub columns: Vec<Column>,
    #[serde(flatten)]
    pub estimates: Estimates,
}

struct Exchange {
    columns: Vec<ColumnDescription>,
    estimates: Estimates,
    schema: SchemaRef,
    producers: Vec<String>,
}

impl RunningQuery {
    /// `connection` is one with the settings that the stages will have.
    ///
    /// # Errors
    /// DuckDB's, for a type that there is not.
    pub fn new(
        connection: &mut Connection,
        id: QueryId,
        worker: String,
        exchanges: Vec<HerdExchange>,
        addresses: BTreeMap<String, String>,
        outputs: Arc<Outputs>,
    ) -> Result<Arc<Self>, RemoteError> {
        let mut by_stage = HashMap::new();
        for exchange in exchanges {
            let schema = schema_of(connection, &exchange.columns)?;
            by_stage.insert(
                exchange.stage,
                Exchange {
                    columns: exchange.columns,
                    estimates: Estimates {
                        rows: exchange.rows,
                        distinct: exchange.distinct_counts,
                    },
                    schema,
                    producers: exchange.producers,
                },
            );
        }
        Ok(Arc::new(Self {
            id,
            worker,
            exchanges: by_stage,
            addresses,
            outputs,
            readers: Mutex::default(),
            failure: Mutex::default(),
        }))
    }

    fn exchange(&self, stage: StageId) -> Result<&Exchange, RemoteError> {
        self.exchanges.get(&stage).ok_or_else(|| {
            RemoteError::new(
                ExceptionType::InvalidInput,
                format!("the stages of this query that run here read no exchange {stage}"),
            )
        })
    }

    /// The columns of an exchange, and what is known of its rows.
    ///
    /// # Errors
    /// There is no such exchange.
    pub fn columns(&self, stage: StageId) -> Result<ExchangeColumns, RemoteError> {
        let exchange = self.exchange(stage)?;
        let columns = exchange.columns.iter().map(|column| Column {
            name: column.name.clone(),
            type_text: column.type_text.clone(),
        });
        Ok(ExchangeColumns {
            columns: columns.collect(),
            estimates: exchange.estimates.clone(),
        })
    }

    /// The rows of an exchange for this worker.
    ///
    /// # Errors
    /// There is no such exchange.
    pub fn open(self: &Arc<Self>, herd: &Arc<Herd>, stage: StageId) -> Result<Arc<dyn BatchSource>, RemoteError> {
        let exchange = self.exchange(stage)?;
        let reader = {
            let mut readers = lock(&self.readers);
            let next = readers.entry(stage).or_insert(0);
            *next += 1;
            *next - 1
        };
        let merge = Merge::new(herd.limits().read_ahead_bytes);
        merge.begin(&exchange.schema)?;
        let task = herd.runtime()?.spawn(Arc::clone(self).feed(
            Arc::clone(herd),
            stage,
            reader,
            exchange.producers.clone(),
            Arc::clone(&merge),
        ));
        Ok(Arc::new(Merged::new(
            merge,
            Arc::clone(&exchange.schema),
            vec![task.abort_handle()],
        )))
    }

    /// Reads from all producers at once, until one fails or all have ended.
    async fn feed(
        self: Arc<Self>,
        herd: Arc<Herd>,
        stage: StageId,
        reader: u32,
        producers: Vec<String>,
        merge: Arc<Merge>,
    ) {
        let mut feeds = JoinSet::new();
        for producer in producers {
            let (query, herd, merge) = (Arc::clone(&self), Arc::clone(&herd), Arc::clone(&merge));
            feeds.spawn(async move {
                if producer == query.worker {
                    query.feed_own(stage, reader, &merge).await
                } else {
                    query.feed_from(&herd, &producer, stage, reader, &merge).await
                }
            });
        }
        let mut outcome = Ok(());
        while let Some(ended) = feeds.join_next().await {
            outcome = ended.unwrap_or_else(|_| {
                Err(RemoteError::new(
                    ExceptionType::Io,
                    "reading an exchange failed in an unexpected way",
                ))
            });
            if outcome.is_err() {
                break;
            }
        }
        if let Err(error) = &outcome
            && error.kind == ExceptionType::Interrupt
        {
            // The query is over there, and soon will be here too: who stops without an error keeps the transaction.
            tokio::time::sleep(STOP_GRACE).await;
        }
        if let Err(error) = &outcome
            && !merge.is_closed()
        {
            lock(&self.failure).get_or_insert_with(|| error.clone());
        }
        merge.finish(outcome);
    }

    async fn feed_own(&self, stage: StageId, reader: u32, merge: &Merge) -> Result<(), RemoteError> {
        let mut reader = self.outputs.open(stage, &self.worker, reader)?;
        while let Some(stored) = reader.next().await? {
            let batch = if stored.is_on_disk() {
                blocking(move || stored.batch()).await?
            } else {
                stored.batch()?
            };
            merge.push(batch).await?;
        }
        Ok(())
    }

    async fn feed_from(
        &self,
        herd: &Herd,
        producer: &str,
        stage: StageId,
        reader: u32,
        merge: &Merge,
    ) -> Result<(), RemoteError> {
        let address = self.addresses.get(producer).ok_or_else(|| {
            RemoteError::new(
                ExceptionType::InvalidInput,
                format!("the address of worker {producer} was not told"),
            )
        })?;
        let of_producer = |mut error: RemoteError| {
            if error.kind == ExceptionType::Connection && !error.extra_info.contains_key(HERD_WORKER) {
                // It may be only these two that do not reach each other.
                let _ = write!(error.message, " (worker {} was reading from it)", self.worker);
            }
            named(producer, address, error)
        };
        let client = herd
            .peers()
            .client(herd.registry(), address)
            .await
            .map_err(of_producer)?;
        let request = ReadExchangeRequest {
            query_id: self.id.to_vec().into(),
            stage,
            destination: self.worker.clone(),
            reader,
        };
        let failed = |error| {
            herd.peers().failed(address, &error);
            of_producer(error.to_remote_error())
        };
        let mut rows = client.read_exchange(request).await.map_err(failed)?;
        merge.begin(&rows.schema()).map_err(of_producer)?;
        while let Some(batch) = rows.try_next().await.map_err(failed)? {
            merge.push(batch).await?;
        }
        Ok(())
    }

    /// Why a stage has failed, if an exchange that it has read is to blame.
    pub fn failure(&self) -> Option<RemoteError> {
        lock(&self.failure).clone()
    }
}

/// The Arrow columns of DuckDB's types, as they go over the link.
///
/// # Errors
/// DuckDB's, for a type that there is not.
pub fn schema_of(connection: &mut Connection, columns: &[ColumnDescription]) -> Result<SchemaRef, RemoteError> {
    if columns.is_empty() {
        return Ok(Arc::new(Schema::empty()));
    }
    let nulls: Vec<_> = columns
        .iter()
        .map(|column| format!("CAST(NULL AS {}) AS {}", column.type_text, identifier(&column.name)))
        .collect();
    let statements = connection.parse(&format!("SELECT {}", nulls.join(", ")))?;
    let [statement] = statements.as_slice() else {
        return Err(RemoteError::new(
            ExceptionType::InvalidInput,
            "the columns of an exchange have types that are none",
        ));
    };
    let schema = connection.plan_stored(statement)?.unwrap_or_else(Schema::empty);
    let plain = Plain::new(&Arc::new(schema), Mapping::Stored)?;
    Ok(Arc::clone(plain.schema()))
}
