//! Statements, prepared statements, uploads, transactions.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow_flight::error::FlightError;
use arrow_flight::sql::{
    ActionCreatePreparedStatementRequest, CommandStatementIngest, EndTransaction, TableExistsOption,
    TableNotExistOption,
};
use arrow_flight::{CancelStatus, FlightData};
use bytes::Bytes;
use duckherder_proto::history;
use duckherder_proto::types::type_text;
use duckherder_proto::{ExceptionType, RemoteError};
use futures::StreamExt;
use futures::stream::BoxStream;
use tonic::Status;

use super::access::Caller;
use super::handle::Handle;
use super::state::{ENDPOINTS_MAX, Fetch, Outlook, Prepared, Ticketed};
use super::{FlightSql, schema_bytes, unions};
use crate::arrow_check;
use crate::duckdb::StatementKind;
use crate::history::{Recording, Sender};
use crate::ingest::{Create, Target, Upload};
use crate::plain::{Mapping, Plain};
use crate::running::{self, Answer, UploadJob, blocking, checked_batches, next_batch, unless_cancelled};
use crate::session::{Place, Session};
use crate::statement::{self, Job, Planned, Routing, Values};

/// Rows from which on a result is large.
const LARGE_ROWS: u64 = 1_000_000;

type Flight = BoxStream<'static, Result<FlightData, FlightError>>;

/// What a client may know of a statement before it runs.
pub struct Announced {
    pub handle: Handle,
    /// How many streams the result comes in.
    pub endpoints: u8,
    /// `None` if it is known only when the statement runs.
    pub schema: Option<SchemaRef>,
    pub ordered: bool,
}

impl FlightSql {
    /// Binds a query, and keeps it until its result is fetched.
    pub async fn announce(
        &self,
        caller: &Caller,
        sql: String,
        transaction: Option<&Bytes>,
    ) -> Result<Announced, RemoteError> {
        let session = self.session_of(caller, transaction).await?;
        let place = place(&session, transaction)?;
        let planned = self.plan_to_run(caller, &session, &sql, place).await?;
        let schema = result_schema(&planned, session.flight_sql.mapping())?;
        let outlook = outlook(&planned, &sql, schema.as_ref());
        let endpoints = self.endpoints(caller, &session, outlook);
        let repeatable = is_repeatable(planned.kind, &sql);
        let in_transaction = given(transaction).is_some();
        let handle =
            session
                .flight_sql
                .keep_ticket(session.number, sql, None, in_transaction, repeatable, endpoints)?;
        Ok(Announced {
            handle,
            endpoints,
            schema,
            ordered: outlook.ordered,
        })
    }

    /// Keeps a run of a prepared statement, with the values bound now, until its result is fetched.
    pub fn announce_prepared(&self, caller: &Caller, handle: &[u8]) -> Result<Announced, RemoteError> {
        let (session, prepared) = prepared(caller, handle)?;
        let parameters = prepared.bound();
        check_bound(&prepared, parameters.is_some())?;
        let endpoints = self.endpoints(caller, &session, prepared.outlook);
        let handle = session.flight_sql.keep_ticket(
            session.number,
            prepared.sql.clone(),
            parameters,
            prepared.in_transaction,
            prepared.repeatable,
            endpoints,
        )?;
        Ok(Announced {
            handle,
            endpoints,
            schema: prepared.schema.clone(),
            ordered: prepared.outlook.ordered,
        })
    }

    /// The columns of a query's result.
    pub async fn query_schema(
        &self,
        caller: &Caller,
        sql: &str,
        transaction: Option<&Bytes>,
    ) -> Result<Option<SchemaRef>, RemoteError> {
        let session = self.session_of(caller, transaction).await?;
        let place = place(&session, transaction)?;
        let planned = self.plan(caller, &session, sql, place, false).await?;
        result_schema(&planned, session.flight_sql.mapping())
    }

    /// Runs what a ticket stands for, unless another endpoint's ticket has begun it.
    pub async fn fetch(&self, caller: &Caller, handle: &[u8]) -> Result<Answer, Status> {
        let (handle, endpoint) = Handle::decode_endpoint(handle)?;
        let session = caller.owner_of(handle)?;
        let ticket = session.flight_sql.ticket(handle)?;
        let job = |ticket: &Ticketed| {
            let transaction = ticket.transaction.map(Handle::encode);
            Ok::<_, RemoteError>(Job {
                sql: ticket.sql.clone(),
                place: place(&session, transaction.as_ref())?,
                parameters: ticket.parameters.clone(),
                mapping: ticket.mapping,
                further_streams: 0,
                routing: Routing::None,
            })
        };
        match ticket.fetch(endpoint, self.sessions.queues())? {
            Fetch::Alone => self.stream(caller, &session, job(&ticket)?, ticket.statement_id).await,
            Fetch::First(parts, producer) => {
                let job = job(&ticket)?;
                let recording = self.record(caller, &session, &job.sql);
                let shared = (parts, producer);
                running::stream_parts(&self.sessions, &session, job, ticket.statement_id, recording, shared).await
            }
            Fetch::Further(part) => part.start().await,
        }
    }

    /// How many streams a result comes in.
    fn endpoints(&self, caller: &Caller, session: &Session, outlook: Outlook) -> u8 {
        if outlook.spread {
            self.endpoints_at_most(caller, session)
        } else {
            1
        }
    }

    fn endpoints_at_most(&self, caller: &Caller, session: &Session) -> u8 {
        let default = if caller.wants_one_endpoint {
            1
        } else {
            self.sessions.limits().result_endpoints
        };
        session
            .flight_sql
            .endpoints()
            .unwrap_or(default)
            .clamp(1, ENDPOINTS_MAX)
    }

    /// Runs a query that was not announced.
    pub async fn query(&self, caller: &Caller, sql: String, transaction: Option<&Bytes>) -> Result<Answer, Status> {
        let session = self.session_of(caller, transaction).await?;
        let job = Job {
            sql,
            place: place(&session, transaction)?,
            parameters: None,
            mapping: session.flight_sql.mapping(),
            further_streams: 0,
            routing: Routing::None,
        };
        let statement_id = session.flight_sql.next_statement_id();
        self.stream(caller, &session, job, statement_id).await
    }

    async fn stream(
        &self,
        caller: &Caller,
        session: &Arc<Session>,
        job: Job,
        statement_id: u64,
    ) -> Result<Answer, Status> {
        let recording = self.record(caller, session, &job.sql);
        running::stream(&self.sessions, session, job, statement_id, recording).await
    }

    /// Runs a statement to its end; the number of rows changed, -1 if that says nothing.
    pub async fn update(&self, caller: &Caller, sql: String, transaction: Option<&Bytes>) -> Result<i64, RemoteError> {
        let session = self.session_of(caller, transaction).await?;
        let place = place(&session, transaction)?;
        self.complete(caller, &session, sql, place, None).await
    }

    async fn complete(
        &self,
        caller: &Caller,
        session: &Arc<Session>,
        sql: String,
        place: Place,
        parameters: Option<Arc<Values>>,
    ) -> Result<i64, RemoteError> {
        let recording = self.record(caller, session, &sql);
        let job = Job {
            sql,
            place,
            parameters,
            mapping: session.flight_sql.mapping(),
            further_streams: 0,
            routing: Routing::None,
        };
        let statement_id = session.flight_sql.next_statement_id();
        let changed = running::complete(&self.sessions, session, job, statement_id, recording).await?;
        Ok(changed.map_or(0, |rows| i64::try_from(rows).unwrap_or(i64::MAX)))
    }

    /// Prepares a statement: binds it, and keeps it for the session.
    pub async fn prepare(
        &self,
        caller: &Caller,
        request: ActionCreatePreparedStatementRequest,
    ) -> Result<super::messages::PreparedStatementResult, RemoteError> {
        let transaction = request.transaction_id.as_ref();
        let session = self.session_of(caller, transaction).await?;
        let place = place(&session, transaction)?;
        let sql = request.query;
        let planned = self.plan_to_run(caller, &session, &sql, place).await?;
        let mapping = session.flight_sql.mapping();
        let schema = result_schema(&planned, mapping)?;
        let outlook = outlook(&planned, &sql, schema.as_ref());
        let is_update = is_update(&planned, &sql);
        let parameters = planned.plan.as_ref().map(|plan| &plan.parameters);
        let parameter_schema = parameters.map_or_else(Schema::empty, parameter_schema);
        let repeatable = is_repeatable(planned.kind, &sql);
        let memory = session.flight_sql.reserve(sql.len())?;
        let prepared = Prepared::new(
            sql,
            given(transaction).is_some(),
            repeatable,
            outlook,
            schema.clone(),
            parameters.map(|schema| schema.fields().len()),
            memory,
        );
        let handle = session.flight_sql.keep_prepared(session.number, prepared)?;
        let dataset_schema = match &schema {
            // Clients take a statement with columns for a query.
            Some(schema) if !is_update => schema_bytes(schema)?,
            _ => Bytes::new(),
        };
        Ok(super::messages::PreparedStatementResult {
            prepared_statement_handle: handle.encode(),
            dataset_schema,
            parameter_schema: schema_bytes(&parameter_schema)?,
            is_update: Some(is_update),
        })
    }

    /// Closes a prepared statement; no error if there is none.
    pub fn close_prepared(&self, caller: &Caller, handle: &[u8]) -> Result<(), RemoteError> {
        let handle = Handle::decode(handle)?;
        caller.owner_of(handle)?.flight_sql.close_prepared(handle);
        Ok(())
    }

    /// Keeps the values that a prepared statement runs with from now on.
    pub async fn bind(&self, caller: &Caller, handle: &[u8], data: Flight) -> Result<(), RemoteError> {
        let (session, prepared) = prepared(caller, handle)?;
        let values = read_parameters(&session, &prepared, data).await?;
        let none = || Values {
            batches: Vec::new(),
            memory: Vec::new(),
        };
        prepared.bind(Arc::new(values.unwrap_or_else(none)));
        Ok(())
    }

    /// Runs a prepared statement for every row of values that come with the request, or else for those bound.
    pub async fn update_prepared(&self, caller: &Caller, handle: &[u8], data: Flight) -> Result<i64, RemoteError> {
        let (session, prepared) = prepared(caller, handle)?;
        let parameters = match read_parameters(&session, &prepared, data).await? {
            Some(parameters) => Some(Arc::new(parameters)),
            None => prepared.bound(),
        };
        check_bound(&prepared, parameters.is_some())?;
        let place = prepared_place(&session, &prepared)?;
        self.complete(caller, &session, prepared.sql.clone(), place, parameters)
            .await
    }

    /// Runs a prepared statement that was not announced, with the values bound.
    pub async fn query_prepared(&self, caller: &Caller, handle: &[u8]) -> Result<Answer, Status> {
        let (session, prepared) = prepared(caller, handle)?;
        let parameters = prepared.bound();
        check_bound(&prepared, parameters.is_some())?;
        let job = Job {
            sql: prepared.sql.clone(),
            place: prepared_place(&session, &prepared)?,
            parameters,
            mapping: session.flight_sql.mapping(),
            further_streams: 0,
            routing: Routing::None,
        };
        let statement_id = session.flight_sql.next_statement_id();
        self.stream(caller, &session, job, statement_id).await
    }

    /// Takes rows in; the number of them.
    pub async fn ingest(
        &self,
        caller: &Caller,
        command: CommandStatementIngest,
        data: Flight,
    ) -> Result<i64, RemoteError> {
        let transaction = command.transaction_id.clone();
        let target = target(command)?;
        let session = self.session_of(caller, transaction.as_ref()).await?;
        let text = history::upload_text(target.schema.as_deref().unwrap_or_default(), &target.table);
        let recording = self.record(caller, &session, &text);
        recording.is_a(StatementKind::Write.name());
        let place = match given(transaction.as_ref()) {
            Some(_) => place(&session, transaction.as_ref())?,
            // The Go driver of ADBC leaves out the transaction that its user is in.
            None => Place::Session,
        };
        let upload = UploadJob {
            target,
            place,
            statement_id: session.flight_sql.next_statement_id(),
            // The stream ends when the client has sent everything; one that breaks off is an error.
            end: Box::new(|| Some(Upload::End { rows: None })),
        };
        let outcome = running::upload(&self.sessions, &session, upload, &recording, data).await;
        recording.end(outcome.as_ref().map(|rows| Some(*rows)));
        outcome.map(|rows| i64::try_from(rows).unwrap_or(i64::MAX))
    }

    /// Begins a transaction on the session's own connection.
    pub async fn begin_transaction(&self, caller: &Caller) -> Result<Bytes, RemoteError> {
        let session = caller.session().await?;
        let mut lease = session.lease_primary().await?;
        if session.in_transaction() {
            return Err(RemoteError::new(
                ExceptionType::Transaction,
                "this session has an open transaction, and DuckDB nests none: end it, or open another session",
            ));
        }
        blocking(move || {
            statement::begin(&mut lease)?;
            let session = &lease.session;
            Ok(session.flight_sql.begin_transaction(session.number).encode())
        })
        .await
    }

    /// Commits or rolls back.
    pub async fn end_transaction(&self, caller: &Caller, id: &Bytes, action: i32) -> Result<(), RemoteError> {
        let sql = match EndTransaction::try_from(action) {
            Ok(EndTransaction::Commit) => "COMMIT",
            Ok(EndTransaction::Rollback) => "ROLLBACK",
            Ok(EndTransaction::Unspecified) | Err(_) => {
                return Err(RemoteError::new(
                    ExceptionType::InvalidInput,
                    "a transaction ends with COMMIT or ROLLBACK",
                ));
            }
        };
        let session = self.session_of(caller, Some(id)).await?;
        let place = place(&session, Some(id))?;
        let outcome = self.complete(caller, &session, sql.to_owned(), place, None).await;
        if !session.in_transaction() {
            session.flight_sql.end_transaction();
        }
        outcome.map(|_| ())
    }

    /// # Errors
    /// The ticket is not known, or another session's.
    pub fn check_ticket(&self, caller: &Caller, handle: &[u8]) -> Result<(), RemoteError> {
        let (handle, _) = Handle::decode_endpoint(handle)?;
        caller.owner_of(handle)?.flight_sql.ticket(handle).map(|_| ())
    }

    /// The columns of a prepared statement's result.
    pub fn prepared_schema(&self, caller: &Caller, handle: &[u8]) -> Result<Option<SchemaRef>, RemoteError> {
        prepared(caller, handle).map(|(_, prepared)| prepared.schema.clone())
    }

    /// Stops what a ticket stands for.
    pub fn cancel(&self, caller: &Caller, handle: Handle) -> Result<CancelStatus, RemoteError> {
        let session = caller.owner_of(handle)?;
        let ticket = session.flight_sql.ticket(handle)?;
        if !ticket.has_begun() {
            session.flight_sql.drop_ticket(handle);
            return Ok(CancelStatus::Cancelled);
        }
        Ok(if session.cancel(ticket.statement_id) {
            CancelStatus::Cancelled
        } else {
            CancelStatus::NotCancellable
        })
    }

    /// The session that a request means: that of the transaction that it names, else its sender's.
    async fn session_of(&self, caller: &Caller, transaction: Option<&Bytes>) -> Result<Arc<Session>, RemoteError> {
        match given(transaction) {
            Some(id) => caller.owner_of(Handle::decode(id)?),
            None => caller.session().await,
        }
    }

    /// Plans a statement whose result is going to be fetched.
    async fn plan_to_run(
        &self,
        caller: &Caller,
        session: &Arc<Session>,
        sql: &str,
        place: Place,
    ) -> Result<Planned, RemoteError> {
        // What has an order, or is wanted in one stream, need not be estimated.
        let estimates = self.endpoints_at_most(caller, session) > 1 && !is_ordered(sql);
        self.plan(caller, session, sql, place, estimates).await
    }

    async fn plan(
        &self,
        caller: &Caller,
        session: &Arc<Session>,
        sql: &str,
        place: Place,
        estimates: bool,
    ) -> Result<Planned, RemoteError> {
        let mut lease = session.lease(sql, place).await?;
        let text = sql.to_owned();
        let planned = blocking(move || statement::plan(&mut lease, &text, estimates)).await;
        if let Err(error) = &planned {
            // Nobody goes on to run such a statement: this is its end.
            let recording = self.record(caller, session, sql);
            recording.traffic().add_received(0, sql.len() as u64);
            recording.end(Err(error));
        }
        planned
    }

    fn record(&self, caller: &Caller, session: &Session, sql: &str) -> Recording {
        let sender = Sender {
            session: session.number,
            client: caller.address.map(|address| address.to_string().into()),
        };
        self.sessions.history().arrived(&[], sender, sql)
    }
}

/// The id, if one is given: some clients send empty ones.
fn given(transaction: Option<&Bytes>) -> Option<&Bytes> {
    transaction.filter(|id| !id.is_empty())
}

/// Where a statement runs that names this transaction, or none.
fn place(session: &Session, transaction: Option<&Bytes>) -> Result<Place, RemoteError> {
    let open = session.flight_sql.transaction().filter(|_| session.in_transaction());
    match (given(transaction), open) {
        (None, None) => Ok(Place::Session),
        (None, Some(_)) => Ok(Place::Outside),
        (Some(id), Some(open)) if Handle::decode(id)? == open => Ok(Place::Session),
        (Some(_), _) => Err(RemoteError::new(
            ExceptionType::Transaction,
            "this transaction is not open (any more)",
        )),
    }
}

/// A statement that was prepared in a transaction runs in the one that is open now.
fn prepared_place(session: &Session, prepared: &Prepared) -> Result<Place, RemoteError> {
    if !prepared.in_transaction {
        return place(session, None);
    }
    if session.flight_sql.transaction().is_some() && session.in_transaction() {
        return Ok(Place::Session);
    }
    Err(RemoteError::new(
        ExceptionType::Transaction,
        "the transaction that this statement was prepared in has ended, and its session is in no other: prepare it \
         again, or have the client log in or send cookies, so that its transactions share a session",
    ))
}

fn prepared(caller: &Caller, handle: &[u8]) -> Result<(Arc<Session>, Arc<Prepared>), RemoteError> {
    let handle = Handle::decode(handle)?;
    let session = caller.owner_of(handle)?;
    let prepared = session.flight_sql.prepared(handle)?;
    Ok((session, prepared))
}

fn check_bound(prepared: &Prepared, bound: bool) -> Result<(), RemoteError> {
    match prepared.parameters {
        Some(count) if count > 0 && !bound => Err(RemoteError::new(
            ExceptionType::InvalidInput,
            format!("the statement has {count} parameters, and no values were bound"),
        )),
        _ => Ok(()),
    }
}

/// The rows of values in an upload, checked; `None` if it holds no schema, or one without columns.
async fn read_parameters(session: &Session, prepared: &Prepared, data: Flight) -> Result<Option<Values>, RemoteError> {
    // A descriptor alone is no Arrow message.
    let data = data.filter(|message| {
        let empty = message
            .as_ref()
            .is_ok_and(|message| message.data_header.is_empty() && message.data_body.is_empty());
        futures::future::ready(!empty)
    });
    let mut batches = checked_batches(data.boxed());
    let mut values = Values {
        batches: Vec::new(),
        memory: Vec::new(),
    };
    while let Some(batch) = next_batch(&mut batches).await? {
        values
            .memory
            .push(session.flight_sql.reserve(batch.get_array_memory_size())?);
        let batch = unions::unwrapped(batch)
            .map_err(|error| RemoteError::new(ExceptionType::InvalidInput, error.to_string()))?;
        arrow_check::check(&batch)?;
        values.batches.push(batch);
    }
    unless_cancelled().await;
    let columns = batches.schema().map_or(0, |schema| schema.fields().len());
    if columns == 0 {
        return Ok(None);
    }
    match prepared.parameters {
        Some(count) if count != columns => Err(RemoteError::new(
            ExceptionType::InvalidInput,
            format!("the statement has {count} parameters, and {columns} values were given"),
        )),
        _ => Ok(Some(values)),
    }
}

fn result_schema(planned: &Planned, mapping: Mapping) -> Result<Option<SchemaRef>, RemoteError> {
    let columns = planned.plan.as_ref().and_then(|plan| plan.columns.clone());
    columns
        .map(|columns| Ok(Arc::clone(Plain::new(&Arc::new(columns), mapping)?.schema())))
        .transpose()
}

/// Parameters have the names and types that DuckDB gives them; what it does not know yet takes anything.
fn parameter_schema(parameters: &Schema) -> Schema {
    Plain::new(&Arc::new(parameters.clone()), Mapping::Generic)
        .map_or_else(|_| parameters.clone(), |plain| plain.schema().as_ref().clone())
}

/// Whether the statement has nothing to fetch but a count, or success.
fn is_update(planned: &Planned, sql: &str) -> bool {
    match planned.kind {
        StatementKind::Read => false,
        StatementKind::Write => !sql.to_ascii_lowercase().contains("returning"),
        StatementKind::Transaction | StatementKind::Catalog => true,
        StatementKind::Other => {
            let columns = planned.plan.as_ref().and_then(|plan| plan.columns.as_ref());
            columns.is_some_and(|columns| match columns.fields().as_ref() {
                [] => true,
                [only] => matches!(
                    (only.name().as_str(), type_text(only)),
                    ("Success", Some("BOOLEAN")) | ("Count", Some("BIGINT"))
                ),
                _ => false,
            })
        }
    }
}

/// Whether running it twice does no more than running it once.
fn is_repeatable(kind: StatementKind, sql: &str) -> bool {
    // EXPLAIN ANALYZE runs what it explains.
    let sql = sql.to_ascii_lowercase();
    kind == StatementKind::Read && !["nextval", "analyze", "analyse"].iter().any(|word| sql.contains(word))
}

/// What is known of a result, as far as it decides about its streams.
fn outlook(planned: &Planned, sql: &str, schema: Option<&SchemaRef>) -> Outlook {
    let ordered = is_ordered(sql) || planned.estimate.is_some_and(|estimate| estimate.ordered);
    let large = planned.estimate.is_some_and(|estimate| estimate.rows >= LARGE_ROWS);
    // Dictionaries of ENUM columns come once, and all streams would need them.
    let simple = schema.is_some_and(|schema| {
        let has_dictionary = |field: &Arc<Field>| matches!(field.data_type(), DataType::Dictionary(..));
        !schema.fields().iter().any(has_dictionary)
    });
    Outlook {
        ordered,
        spread: large && simple && !ordered,
    }
}

/// Whether the statement says in which order its rows come.
fn is_ordered(sql: &str) -> bool {
    let words: Vec<_> = sql.split_ascii_whitespace().map(str::to_ascii_lowercase).collect();
    words
        .windows(2)
        .any(|pair| pair[0].ends_with("order") && pair[1] == "by")
}

fn target(command: CommandStatementIngest) -> Result<Target, RemoteError> {
    let refuse = |message: &str| RemoteError::new(ExceptionType::InvalidInput, message);
    let definition = command
        .table_definition_options
        .as_ref()
        .ok_or_else(|| refuse("an ingest must say what happens if the table exists, and if not"))?;
    let create = match (definition.if_not_exist(), definition.if_exists()) {
        (TableNotExistOption::Create, TableExistsOption::Fail) => Create::Yes,
        (TableNotExistOption::Create, TableExistsOption::Append) => Create::IfMissing,
        (TableNotExistOption::Create, TableExistsOption::Replace) => Create::OrReplace,
        (TableNotExistOption::Fail, TableExistsOption::Append) => Create::No,
        (TableNotExistOption::Fail, TableExistsOption::Replace) => Create::Replace,
        (TableNotExistOption::Fail, TableExistsOption::Fail) => {
            return Err(refuse("an ingest that fails whether the table exists or not"));
        }
        (TableNotExistOption::Unspecified, _) | (_, TableExistsOption::Unspecified) => {
            return Err(refuse(
                "an ingest must say what happens if the table exists, and if not",
            ));
        }
    };
    if command.table.is_empty() {
        return Err(refuse("an ingest must name its table"));
    }
    if let Some(option) = command.options.keys().next() {
        return Err(refuse(&format!("there is no option '{option}' of ingests")));
    }
    if command.temporary && (command.catalog.is_some() || command.schema.is_some()) {
        return Err(refuse("a temporary table has no catalog and no schema"));
    }
    Ok(Target {
        catalog: command.catalog.filter(|name| !name.is_empty()),
        schema: command.schema.filter(|name| !name.is_empty()),
        parent_schemas: Vec::new(),
        table: command.table,
        temporary: command.temporary,
        create,
        table_clauses: String::new(),
        by_name: true,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ordered_queries_are_told_apart() {
        for sql in [
            "FROM t ORDER BY 1",
            "from t\norder\n by x",
            "SELECT (SELECT 1)ORDER BY 1",
        ] {
            assert!(is_ordered(sql), "{sql}");
        }
        assert!(!is_ordered("SELECT orders FROM by_now"));
    }
}
