//! Arrow Flight SQL, for clients that know nothing of us: <https://arrow.apache.org/docs/format/FlightSql.html>.
//!
//! Commands are decoded here and dispatched by hand. `arrow-flight`'s own service trait fixes what it answers to
//! GetSchema, PollFlightInfo, ListFlights and session options: `UNIMPLEMENTED`.

mod access;
mod cookie;
mod handle;
mod headers;
mod messages;
mod metadata;
mod options;
mod sql_info;
mod state;
mod statements;
mod type_info;
mod unions;

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{Schema, SchemaRef};
use arrow::ipc::writer::IpcWriteOptions;
use arrow_flight::error::FlightError;
use arrow_flight::flight_descriptor::DescriptorType;
use arrow_flight::sql::metadata::{SqlInfoData, XdbcTypeInfoData};
use arrow_flight::sql::{
    ActionBeginTransactionResult, ActionCancelQueryRequest, ActionCancelQueryResult, Any, Command,
    DoPutPreparedStatementResult, DoPutUpdateResult, ProstMessageExt, TicketStatementQuery,
};
use arrow_flight::{
    Action, CancelFlightInfoRequest, CancelFlightInfoResult, CancelStatus, Criteria, FlightData, FlightDescriptor,
    FlightEndpoint, FlightInfo, HandshakeResponse, IpcMessage, PollInfo, PutResult, RenewFlightEndpointRequest,
    SchemaAsIpc, SchemaResult, Ticket,
};
use bytes::Bytes;
use duckherder_proto::{ExceptionType, Message as _, RemoteError};
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use tonic::{Response, Status};

pub use access::Caller;
pub use cookie::CookieSeal;
pub use state::State;

use crate::catalog::identifier;
use crate::encode::BatchEncoder;
use crate::message::Message;
use crate::running::Answer;
use crate::session::Sessions;
use handle::Handle;
use messages::{CloseSessionResult, CloseSessionStatus, GetSessionOptionsResult, SetSessionOptionsRequest};
use statements::Announced;

/// The actions, for `ListActions`.
pub const ACTIONS: &[(&str, &str)] = &[
    ("CreatePreparedStatement", "Prepare a statement."),
    ("ClosePreparedStatement", "Close a prepared statement."),
    ("BeginTransaction", "Begin a transaction."),
    ("EndTransaction", "Commit or roll back a transaction."),
    ("CancelQuery", "Stop a query."),
    ("CancelFlightInfo", "Stop a query."),
    ("RenewFlightEndpoint", "Ask whether an endpoint is still good."),
    ("SetSessionOptions", "Set options of the session."),
    ("GetSessionOptions", "The options of the session."),
    ("CloseSession", "Close the session."),
];

/// A longer descriptor is not sent back: the client knows it, and might not accept a message of that size.
const DESCRIPTOR_BYTES_ECHOED: usize = 64 * 1024;

/// Flights that `ListFlights` lists.
const FLIGHTS_MAX: usize = 10_000;

/// Arrow Flight SQL on one database.
pub struct FlightSql {
    sessions: Arc<Sessions>,
    sql_info: SqlInfoData,
    type_info: XdbcTypeInfoData,
}

impl FlightSql {
    /// # Errors
    /// None that is known: the tables that it builds are constants.
    pub fn new(sessions: Arc<Sessions>) -> Result<Self, FlightError> {
        Ok(Self {
            sessions,
            sql_info: sql_info::build()?,
            type_info: type_info::build()?,
        })
    }

    /// A handshake: the answer carries the bearer token twice, as clients look for it in either place.
    pub async fn handshake(
        &self,
        headers: &tonic::metadata::MetadataMap,
        payload: impl Future<Output = Result<Bytes, Status>>,
    ) -> Result<Response<BoxStream<'static, Result<HandshakeResponse, Status>>>, Status> {
        let token = access::handshake(&self.sessions, headers, payload).await?;
        let answer = HandshakeResponse {
            protocol_version: 0,
            payload: token.clone().into(),
        };
        let mut response = Response::new(stream::iter([Ok(answer)]).boxed());
        let header = format!("Bearer {token}").parse();
        let header = header.map_err(|_| Status::internal("the token is no header value"))?;
        response.metadata_mut().insert("authorization", header);
        Ok(response)
    }

    pub async fn get_flight_info(&self, caller: &Caller, descriptor: FlightDescriptor) -> Result<FlightInfo, Status> {
        match query_of(&descriptor)? {
            Command::CommandStatementQuery(query) => {
                let announced = self
                    .announce(caller, query.query, query.transaction_id.as_ref())
                    .await?;
                announced_info(descriptor, announced)
            }
            Command::CommandPreparedStatementQuery(query) => {
                let announced = self.announce_prepared(caller, &query.prepared_statement_handle)?;
                announced_info(descriptor, announced)
            }
            command => {
                let schema = self.metadata_schema(&command)?;
                let ticket = command.into_any().encode_to_vec().into();
                info(descriptor, Some(&schema), [ticket], true)
            }
        }
    }

    pub async fn get_schema(&self, caller: &Caller, descriptor: &FlightDescriptor) -> Result<SchemaResult, Status> {
        let schema = match query_of(descriptor)? {
            Command::CommandStatementQuery(query) => {
                self.query_schema(caller, &query.query, query.transaction_id.as_ref())
                    .await?
            }
            Command::CommandPreparedStatementQuery(query) => {
                self.prepared_schema(caller, &query.prepared_statement_handle)?
            }
            command => Some(self.metadata_schema(&command)?),
        };
        let schema = schema.ok_or_else(|| {
            RemoteError::new(
                ExceptionType::NotImplemented,
                "the columns of this statement are known only when it runs",
            )
        })?;
        Ok(SchemaResult {
            schema: schema_bytes(&schema)?,
        })
    }

    /// The query runs when its result is fetched, so there is nothing to wait for.
    pub async fn poll_flight_info(&self, caller: &Caller, descriptor: FlightDescriptor) -> Result<PollInfo, Status> {
        Ok(PollInfo {
            info: Some(self.get_flight_info(caller, descriptor).await?),
            flight_descriptor: None,
            progress: Some(1.0),
            expiration_time: None,
        })
    }

    /// All tables and views, each with the path `catalog, schema, table`; the criteria are a pattern for the last.
    pub async fn list_flights(
        &self,
        caller: &Caller,
        criteria: Criteria,
    ) -> Result<BoxStream<'static, Result<FlightInfo, Status>>, Status> {
        let pattern = String::from_utf8(criteria.expression.to_vec())
            .map_err(|_| Status::invalid_argument("criteria are a pattern for table names, in UTF-8"))?;
        let tables = self.table_paths(caller, &pattern, FLIGHTS_MAX).await?;
        let flights = tables.into_iter().map(|path| {
            let ticket = path_query(&path)?.as_any().encode_to_vec().into();
            info(FlightDescriptor::new_path(path), None, [ticket], false)
        });
        Ok(stream::iter(flights.collect::<Vec<_>>()).boxed())
    }

    pub async fn do_get(&self, caller: &Caller, ticket: Ticket) -> Result<Response<Answer>, Status> {
        let answer = match decode(&ticket.ticket, "ticket")? {
            Command::TicketStatementQuery(ticket) => self.fetch(caller, &ticket.statement_handle).await?,
            Command::CommandStatementQuery(query) => {
                self.query(caller, query.query, query.transaction_id.as_ref()).await?
            }
            Command::CommandPreparedStatementQuery(query) => {
                self.query_prepared(caller, &query.prepared_statement_handle).await?
            }
            command => {
                let batches = self.metadata(caller, command).await?;
                encoded(&batches, self.sessions.limits().message_bytes)?
            }
        };
        let response = caller.answer(Response::new(answer));
        // The session stays open for as long as its result is read.
        let visit = caller.take_visit();
        let keep = move |_: &Result<Message, Status>| {
            let _ = &visit;
        };
        Ok(response.map(|answer| answer.inspect(keep).boxed()))
    }

    pub async fn do_put(
        &self,
        caller: &Caller,
        command: &[u8],
        data: BoxStream<'static, Result<FlightData, FlightError>>,
    ) -> Result<PutResult, Status> {
        let updated = |record_count: i64| PutResult {
            app_metadata: DoPutUpdateResult { record_count }.encode_to_vec().into(),
        };
        match decode(command, "descriptor")? {
            Command::CommandStatementUpdate(update) => Ok(updated(
                self.update(caller, update.query, update.transaction_id.as_ref())
                    .await?,
            )),
            Command::CommandPreparedStatementUpdate(update) => {
                let handle = update.prepared_statement_handle;
                Ok(updated(self.update_prepared(caller, &handle, data).await?))
            }
            Command::CommandPreparedStatementQuery(query) => {
                let handle = query.prepared_statement_handle;
                self.bind(caller, &handle, data).await?;
                let result = DoPutPreparedStatementResult {
                    prepared_statement_handle: Some(handle),
                };
                Ok(PutResult {
                    app_metadata: result.encode_to_vec().into(),
                })
            }
            Command::CommandStatementIngest(ingest) => Ok(updated(self.ingest(caller, ingest, data).await?)),
            Command::CommandStatementSubstraitPlan(_) => Err(no_substrait()),
            other => Err(Status::invalid_argument(format!(
                "{} does not belong into DoPut",
                other.type_url()
            ))),
        }
    }

    /// Answers an action; `None` if it is none of Flight SQL's.
    pub async fn do_action(&self, caller: &Caller, action: &Action) -> Result<Option<Response<Vec<Bytes>>>, Status> {
        let body = &action.body;
        let answers = match action.r#type.as_str() {
            "CreatePreparedStatement" => {
                let result = self.prepare(caller, unpack(body)?).await?;
                vec![packed("ActionCreatePreparedStatementResult", &result)]
            }
            "ClosePreparedStatement" => {
                let request: arrow_flight::sql::ActionClosePreparedStatementRequest = unpack(body)?;
                self.close_prepared(caller, &request.prepared_statement_handle)?;
                Vec::new()
            }
            "BeginTransaction" => {
                let _: arrow_flight::sql::ActionBeginTransactionRequest = unpack(body)?;
                let transaction_id = self.begin_transaction(caller).await?;
                vec![
                    ActionBeginTransactionResult { transaction_id }
                        .as_any()
                        .encode_to_vec()
                        .into(),
                ]
            }
            "EndTransaction" => {
                let request: arrow_flight::sql::ActionEndTransactionRequest = unpack(body)?;
                self.end_transaction(caller, &request.transaction_id, request.action)
                    .await?;
                Vec::new()
            }
            "CancelQuery" => {
                let request: ActionCancelQueryRequest = unpack(body)?;
                let info = FlightInfo::decode(request.info).map_err(|error| malformed("query information", &error))?;
                // The two results number their outcomes alike.
                let result = self.cancel_info(caller, &info)? as i32;
                vec![ActionCancelQueryResult { result }.as_any().encode_to_vec().into()]
            }
            "CancelFlightInfo" => {
                let request: CancelFlightInfoRequest = raw(body)?;
                let status = self.cancel_info(caller, &request.info.unwrap_or_default())? as i32;
                vec![CancelFlightInfoResult { status }.encode_to_vec().into()]
            }
            "RenewFlightEndpoint" => {
                let request: RenewFlightEndpointRequest = raw(body)?;
                vec![
                    self.renew(caller, request.endpoint.unwrap_or_default())?
                        .encode_to_vec()
                        .into(),
                ]
            }
            "SetSessionOptions" => {
                let request: SetSessionOptionsRequest = raw(body)?;
                let session = caller.session().await?;
                vec![options::set(&session, request).await?.encode_to_vec().into()]
            }
            "GetSessionOptions" => {
                let result = match caller.known() {
                    Some(session) => options::get(session).await?,
                    // Asking does not open a session.
                    None => GetSessionOptionsResult::default(),
                };
                vec![result.encode_to_vec().into()]
            }
            "CloseSession" => return Ok(Some(self.close_session(caller))),
            "BeginSavepoint" | "EndSavepoint" => {
                return Err(Status::unimplemented("DuckDB has no savepoints"));
            }
            "CreatePreparedSubstraitPlan" => return Err(no_substrait()),
            _ => return Ok(None),
        };
        Ok(Some(Response::new(answers)))
    }

    fn close_session(&self, caller: &Caller) -> Response<Vec<Bytes>> {
        let status = match caller.known() {
            Some(session) => {
                self.sessions.close(&session.id);
                CloseSessionStatus::Closed
            }
            // There is none to close.
            None => CloseSessionStatus::NotCloseable,
        };
        let result = CloseSessionResult { status: status.into() };
        let mut response = Response::new(vec![result.encode_to_vec().into()]);
        access::expire_cookie(response.metadata_mut());
        response
    }

    fn cancel_info(&self, caller: &Caller, info: &FlightInfo) -> Result<CancelStatus, Status> {
        let mut outcome = None;
        let mut cancelled = None;
        for endpoint in &info.endpoint {
            let ticket = endpoint
                .ticket
                .as_ref()
                .map(|ticket| &ticket.ticket[..])
                .unwrap_or_default();
            let Command::TicketStatementQuery(ticket) = decode(ticket, "ticket")? else {
                outcome = Some(CancelStatus::NotCancellable);
                continue;
            };
            let (handle, _) = Handle::decode_endpoint(&ticket.statement_handle)?;
            // The endpoints of one result are of one statement, which is stopped once.
            if cancelled.replace(handle) != Some(handle) {
                outcome = Some(self.cancel(caller, handle)?);
            }
        }
        outcome.ok_or_else(|| Status::invalid_argument("this information has no endpoint"))
    }

    /// An endpoint is good until its session is closed: nothing has to be renewed, if it is known.
    fn renew(&self, caller: &Caller, endpoint: FlightEndpoint) -> Result<FlightEndpoint, Status> {
        let ticket = endpoint
            .ticket
            .as_ref()
            .map(|ticket| &ticket.ticket[..])
            .unwrap_or_default();
        if let Command::TicketStatementQuery(ticket) = decode(ticket, "ticket")? {
            self.check_ticket(caller, &ticket.statement_handle)?;
        }
        Ok(endpoint)
    }
}

/// The command in a descriptor that asks for rows. A path is a table's.
fn query_of(descriptor: &FlightDescriptor) -> Result<Command, Status> {
    match descriptor.r#type() {
        DescriptorType::Cmd => match decode(&descriptor.cmd, "descriptor")? {
            Command::CommandStatementSubstraitPlan(_) => Err(no_substrait()),
            Command::CommandStatementUpdate(_)
            | Command::CommandPreparedStatementUpdate(_)
            | Command::CommandStatementIngest(_) => Err(Status::invalid_argument("this command belongs into DoPut")),
            command => Ok(command),
        },
        DescriptorType::Path => Ok(Command::CommandStatementQuery(path_query(&descriptor.path)?)),
        DescriptorType::Unknown => Err(Status::invalid_argument("a descriptor is a command or a path")),
    }
}

fn path_query(path: &[String]) -> Result<arrow_flight::sql::CommandStatementQuery, Status> {
    if path.is_empty() || path.len() > 3 {
        return Err(Status::invalid_argument(
            "a path is a table's name, with its schema and catalog in front or not",
        ));
    }
    let name: Vec<_> = path.iter().map(|part| identifier(part)).collect();
    Ok(arrow_flight::sql::CommandStatementQuery {
        query: format!("FROM {}", name.join(".")),
        transaction_id: None,
    })
}

fn decode(bytes: &[u8], what: &str) -> Result<Command, Status> {
    let any = Any::decode(bytes).map_err(|error| malformed(what, &error))?;
    match Command::try_from(any) {
        Ok(Command::Unknown(any)) => Err(Status::invalid_argument(format!(
            "this {what} holds no command of Flight SQL's, but '{}'",
            any.type_url.chars().take(200).collect::<String>()
        ))),
        Ok(command) => Ok(command),
        Err(error) => Err(malformed(what, &error)),
    }
}

/// The message that an action's body wraps in `Any`.
fn unpack<M: ProstMessageExt>(body: &Bytes) -> Result<M, Status> {
    let any = Any::decode(body.clone()).map_err(|error| malformed("action", &error))?;
    any.unpack()
        .map_err(|error| malformed("action", &error))?
        .ok_or_else(|| Status::invalid_argument(format!("this action takes a {}", M::type_url())))
}

/// The message that an action's body is.
fn raw<M: prost::Message + Default>(body: &Bytes) -> Result<M, Status> {
    M::decode(body.clone()).map_err(|error| malformed("action", &error))
}

fn packed(name: &str, message: &impl prost::Message) -> Bytes {
    let any = Any {
        type_url: format!("type.googleapis.com/arrow.flight.protocol.sql.{name}"),
        value: message.encode_to_vec().into(),
    };
    any.encode_to_vec().into()
}

fn malformed(what: &str, error: &dyn std::fmt::Display) -> Status {
    Status::invalid_argument(format!("malformed {what}: {error}"))
}

fn no_substrait() -> Status {
    Status::unimplemented("Substrait plans are not supported: send SQL")
}

/// A schema as an encapsulated IPC message.
fn schema_bytes(schema: &Schema) -> Result<Bytes, RemoteError> {
    let options = IpcWriteOptions::default();
    let message: Result<IpcMessage, _> = SchemaAsIpc::new(schema, &options).try_into();
    message
        .map(|IpcMessage(bytes)| bytes)
        .map_err(|error| RemoteError::new(ExceptionType::Serialization, error.to_string()))
}

fn announced_info(descriptor: FlightDescriptor, announced: Announced) -> Result<FlightInfo, Status> {
    let ticket = |endpoint| {
        let ticket = TicketStatementQuery {
            statement_handle: announced.handle.encode_endpoint(endpoint),
        };
        ticket.as_any().encode_to_vec().into()
    };
    let tickets = (0..announced.endpoints).map(ticket);
    info(descriptor, announced.schema.as_ref(), tickets, announced.ordered)
}

/// Endpoints without a location: the connection that asked, or another to this server.
fn info(
    descriptor: FlightDescriptor,
    schema: Option<&SchemaRef>,
    tickets: impl IntoIterator<Item = Bytes>,
    ordered: bool,
) -> Result<FlightInfo, Status> {
    let endpoint = |ticket| FlightEndpoint {
        ticket: Some(Ticket { ticket }),
        ..FlightEndpoint::default()
    };
    Ok(FlightInfo {
        schema: schema
            .map(|schema| schema_bytes(schema))
            .transpose()?
            .unwrap_or_default(),
        flight_descriptor: (descriptor.encoded_len() <= DESCRIPTOR_BYTES_ECHOED).then_some(descriptor),
        endpoint: tickets.into_iter().map(endpoint).collect(),
        total_records: -1,
        total_bytes: -1,
        ordered,
        app_metadata: Bytes::new(),
    })
}

/// A small result as a stream.
fn encoded(batches: &[RecordBatch], message_bytes: usize) -> Result<Answer, RemoteError> {
    let mut encoder = BatchEncoder::new(message_bytes);
    let mut messages: Vec<Result<Message, Status>> = Vec::new();
    for (index, batch) in batches.iter().enumerate() {
        if index == 0 {
            messages.push(Ok(encoder.schema(&batch.schema())));
        }
        encoder.encode(batch, &mut |message| {
            messages.push(Ok(message));
            Ok(())
        })?;
    }
    Ok(stream::iter(messages).boxed())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn hostile_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..256)) {
            let _ = decode(&bytes, "ticket");
            let body = Bytes::from(bytes.clone());
            let _ = unpack::<arrow_flight::sql::ActionEndTransactionRequest>(&body);
            let _ = raw::<SetSessionOptionsRequest>(&body);
            let _ = raw::<CancelFlightInfoRequest>(&body);
            let _ = Handle::decode(&bytes);
            let _ = Handle::decode_endpoint(&bytes);
        }

        #[test]
        fn hostile_values_of_known_commands_never_panic(
            name in "Command(GetTables|StatementIngest|StatementQuery|GetSqlInfo|GetCrossReference)|TicketStatementQuery",
            value in proptest::collection::vec(any::<u8>(), 0..256),
        ) {
            let any = Any {
                type_url: format!("type.googleapis.com/arrow.flight.protocol.sql.{name}"),
                value: value.into(),
            };
            let _ = decode(&any.encode_to_vec(), "ticket");
        }
    }
}
