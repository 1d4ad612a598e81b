//! The Flight service: requests in, streams out. Decides nothing about SQL; blocking work goes to blocking threads.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use arrow_flight::error::FlightError;
use arrow_flight::flight_service_server::FlightService;
use arrow_flight::{
    Action, ActionType, Criteria, Empty, FlightData, FlightDescriptor, FlightInfo, HandshakeRequest, HandshakeResponse,
    PollInfo, PutResult, SchemaResult, Ticket,
};
use duckherder_catalog::herd::placement::WorkerId;
use duckherder_proto::action::{self, ActionRequest};
use duckherder_proto::command::Command;
use duckherder_proto::history::{self, Traffic};
use duckherder_proto::v1::{
    CancelRequest, CancelResponse, ChangeSettingsRequest, ChangeSettingsResponse, ClaimWorkerRequest,
    CloseSessionRequest, CloseSessionResponse, DescribeRequest, DescribeResponse, ExecuteRequest, HeartbeatRequest,
    HelloRequest, HelloResponse, IngestEnd, IngestRequest, IngestResponse, KeepAliveRequest, KeepAliveResponse,
    ListDefinitionsRequest, ListDefinitionsResponse, ListTablesRequest, ListTablesResponse, ListWorkersRequest,
    ListWorkersResponse, LoadExtensionRequest, LoadExtensionResponse, LookupSchemaRequest, LookupSchemaResponse,
    LookupTableRequest, LookupTableResponse, ProgressRequest, ProgressResponse, RegisterWorkerRequest,
    RegisterWorkerResponse, ReleaseQueryRequest, ReleaseQueryResponse, ReleaseWorkerRequest, ReleaseWorkerResponse,
    UnregisterWorkerRequest, WorkerDescription,
};
use duckherder_proto::{ExceptionType, Message, RemoteError, version};
use futures::stream::{self, BoxStream};
use futures::{Stream, StreamExt, TryStreamExt};
use tonic::{Request, Response, Status, Streaming};
use tracing::info;

use crate::duckdb::{Connection, StatementKind};
use crate::flight_sql::{self, Caller, FlightSql};
use crate::herd::{Registry, WorkerInfo, exchange, stages};
use crate::history::{Recording, Sender};
use crate::ingest::Upload;
use crate::plain::Mapping;
use crate::running::{self, Answer, UploadJob, blocking};
use crate::session::{Lease, Place, Session, Sessions};
use crate::statement::{Job, Routing};
use crate::{catalog, settings, statement};

/// Entries of the catalog that are described in one answer.
const ENTRIES_PER_ANSWER: usize = 256;

/// How long a handshake without a header may take to say who it is.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// Arrow Flight, answered from one database.
pub struct DucklingService {
    sessions: Arc<Sessions>,
    registry: Arc<Registry>,
    flight_sql: FlightSql,
}

impl DucklingService {
    /// # Errors
    /// None that is known.
    pub fn new(sessions: Arc<Sessions>, registry: Arc<Registry>) -> Result<Self, FlightError> {
        Ok(Self {
            flight_sql: FlightSql::new(Arc::clone(&sessions))?,
            sessions,
            registry,
        })
    }

    fn caller<T>(&self, request: &Request<T>) -> Result<Caller, Status> {
        Caller::of(&self.sessions, request.metadata(), request.remote_addr())
    }

    async fn hello(&self, request: HelloRequest) -> Result<HelloResponse, RemoteError> {
        let protocol_version = version::negotiate(&request)?;
        settings::check(&request.settings)?;
        // One that is not known is as none.
        let compression = request.compression();
        let sessions = Arc::clone(&self.sessions);
        let (session, database_name, duckdb_version) = blocking(move || {
            let session = sessions.open(request.settings, compression)?;
            let mut connection = sessions.database().connect()?;
            let database_name = catalog::current_database(&mut connection)?;
            Ok((session, database_name, catalog::duckdb_version(&mut connection)?))
        })
        .await?;
        info!(
            client = request.client_name,
            client_duckdb = request.duckdb_version,
            "session opened"
        );
        Ok(HelloResponse {
            protocol_version,
            session_id: session.id.to_vec().into(),
            server_version: env!("CARGO_PKG_VERSION").to_owned(),
            duckdb_version,
            database_name,
            catalog_epoch: self.sessions.epoch(),
            compression: session.compression.into(),
            session_idle_timeout_ms: u64::try_from(self.sessions.limits().session_idle_timeout.as_millis())
                .unwrap_or(u64::MAX),
        })
    }

    /// Runs `work` on the session's own connection, which sees its open transaction.
    async fn on_session<T: Send + 'static>(
        &self,
        session_id: &[u8],
        work: impl FnOnce(&mut Connection) -> Result<T, RemoteError> + Send + 'static,
    ) -> Result<T, RemoteError> {
        self.on_lease(session_id, "", |lease| work(lease.connection()?)).await
    }

    /// Runs `work` with a connection fit for `sql`.
    async fn on_lease<T: Send + 'static>(
        &self,
        session_id: &[u8],
        sql: &str,
        work: impl FnOnce(&mut Lease) -> Result<T, RemoteError> + Send + 'static,
    ) -> Result<T, RemoteError> {
        let session = self.sessions.get(session_id)?;
        let mut lease = if sql.is_empty() {
            session.lease_catalog().await?
        } else {
            session.lease(sql, Place::Session).await?
        };
        blocking(move || work(&mut lease)).await
    }

    async fn list_tables(&self, request: ListTablesRequest) -> Result<Vec<ListTablesResponse>, RemoteError> {
        let catalog_epoch = self.sessions.epoch();
        let snapshot = self.on_session(&request.session_id, catalog::snapshot).await?;
        let mut answers = vec![ListTablesResponse {
            catalog_epoch,
            schemas: snapshot.schemas,
            tables: Vec::new(),
        }];
        answers.extend(parts(snapshot.tables).map(|tables| ListTablesResponse {
            catalog_epoch,
            schemas: Vec::new(),
            tables,
        }));
        Ok(answers)
    }

    async fn list_definitions(
        &self,
        request: ListDefinitionsRequest,
    ) -> Result<Vec<ListDefinitionsResponse>, RemoteError> {
        let catalog_epoch = self.sessions.epoch();
        let kinds: Vec<_> = request.kinds().collect();
        let definitions = self
            .on_session(&request.session_id, move |connection| {
                catalog::definitions(connection, &kinds)
            })
            .await?;
        let mut answers: Vec<_> = parts(definitions)
            .map(|definitions| ListDefinitionsResponse {
                catalog_epoch,
                definitions,
            })
            .collect();
        if answers.is_empty() {
            answers.push(ListDefinitionsResponse {
                catalog_epoch,
                definitions: Vec::new(),
            });
        }
        Ok(answers)
    }

    async fn lookup_table(&self, request: LookupTableRequest) -> Result<LookupTableResponse, RemoteError> {
        // Read before the lookup: a change in between makes the answer look old, never new.
        let catalog_epoch = self.sessions.epoch();
        let LookupTableRequest {
            session_id,
            schema_name,
            table_name,
            parent_schemas,
        } = request;
        let table = self
            .on_session(&session_id, move |connection| {
                catalog::lookup_table(connection, &parent_schemas, &schema_name, &table_name)
            })
            .await?;
        Ok(LookupTableResponse { catalog_epoch, table })
    }

    async fn lookup_schema(&self, request: LookupSchemaRequest) -> Result<LookupSchemaResponse, RemoteError> {
        let catalog_epoch = self.sessions.epoch();
        let LookupSchemaRequest {
            session_id,
            schema_name,
            parent_schemas,
        } = request;
        let exists = self
            .on_session(&session_id, move |connection| {
                catalog::schema_exists(connection, &parent_schemas, &schema_name)
            })
            .await?;
        Ok(LookupSchemaResponse { catalog_epoch, exists })
    }

    async fn describe(
        &self,
        request: DescribeRequest,
        client: Option<SocketAddr>,
    ) -> Result<DescribeResponse, RemoteError> {
        let DescribeRequest {
            session_id,
            sql,
            history_id,
        } = request;
        let session = self.sessions.get(&session_id)?;
        let arrived = Instant::now();
        let text = sql.clone();
        let described = self
            .on_lease(&session_id, &text, move |lease| statement::describe(lease, &sql))
            .await;
        if let Err(error) = &described {
            // Nobody goes on to run such a statement: this is its end.
            let sender = sender(&session, client);
            let recording = self.sessions.history().arrived_at(arrived, &history_id, sender, &text);
            recording.traffic().add_received(0, text.len() as u64);
            recording.end(Err(error));
        }
        described.map(|columns| DescribeResponse { columns })
    }

    async fn load_extension(&self, request: LoadExtensionRequest) -> Result<LoadExtensionResponse, RemoteError> {
        let name = request.extension_name;
        self.on_session(&request.session_id, move |connection| {
            catalog::load_extension(connection, &name)
        })
        .await?;
        self.sessions.advance_epoch();
        Ok(LoadExtensionResponse {
            catalog_epoch: self.sessions.epoch(),
        })
    }

    async fn execute(&self, request: ExecuteRequest, client: Option<SocketAddr>) -> Result<Answer, Status> {
        let session = self.sessions.get(&request.session_id)?;
        let recording = self.record(&request.history_id, &session, client, &request.sql);
        let job = Job {
            sql: request.sql,
            place: place(request.begin_transaction),
            parameters: None,
            mapping: if request.stored_types {
                Mapping::Stored
            } else {
                Mapping::Link
            },
            further_streams: request.further_streams,
            routing: match request.definitions {
                Some(known) => Routing::Known(known),
                None if request.wants_route => Routing::Wanted,
                None => Routing::None,
            },
        };
        running::stream(&self.sessions, &session, job, request.statement_id, recording).await
    }

    /// Answers `DoGet`: [`crate::get`] sends the messages.
    pub async fn get(&self, request: Request<Ticket>) -> Result<Response<Answer>, Status> {
        let client = request.remote_addr();
        match Command::decode(&request.get_ref().ticket)? {
            Some(Command::Execute(request)) => Ok(Response::new(self.execute(request, client).await?)),
            Some(Command::ReadResult(request)) => {
                let session = self.sessions.get(&request.session_id)?;
                Ok(Response::new(session.join(request.statement_id)?.start().await?))
            }
            Some(Command::RunStages(request)) => Ok(Response::new(stages::run(&self.sessions, request, client).await?)),
            Some(Command::ReadExchange(request)) => {
                let message_bytes = self.sessions.limits().message_bytes;
                let exchanges = self.sessions.herd().exchanges();
                Ok(Response::new(exchanges.serve(request, message_bytes).await?))
            }
            Some(Command::Ingest(_)) => Err(Status::invalid_argument("an ingest command belongs into DoPut")),
            None => {
                let caller = self.caller(&request)?;
                self.flight_sql.do_get(&caller, request.into_inner()).await
            }
        }
    }

    async fn ingest(
        &self,
        request: IngestRequest,
        client: Option<SocketAddr>,
        data: BoxStream<'static, Result<FlightData, FlightError>>,
    ) -> Result<IngestResponse, RemoteError> {
        let session = self.sessions.get(&request.session_id)?;
        let text = history::upload_text(&request.schema_name, &request.table_name);
        let recording = self.record(&request.history_id, &session, client, &text);
        recording.is_a(StatementKind::Write.name());
        let started = Instant::now();
        let end = Arc::new(OnceLock::new());
        let data = until_end(data, Arc::clone(&end), Arc::clone(recording.traffic()));
        let upload = UploadJob {
            place: place(request.begin_transaction),
            statement_id: request.statement_id,
            target: request.into(),
            end: Box::new(move || {
                let end: &IngestEnd = end.get()?;
                Some(Upload::End { rows: Some(end.rows) })
            }),
        };
        let outcome = running::upload(&self.sessions, &session, upload, &recording, data.boxed()).await;
        recording.end(outcome.as_ref().map(|rows| Some(*rows)));
        Ok(IngestResponse {
            rows: outcome?,
            catalog_epoch: self.sessions.epoch(),
            elapsed_us: u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX),
        })
    }

    fn list_workers(&self) -> ListWorkersResponse {
        let describe = |worker: WorkerInfo| WorkerDescription {
            worker_id: worker.id.0,
            address: worker.address,
            state: worker.state.name().to_owned(),
            registered: worker.origin.name().to_owned(),
            duckdb_version: worker.versions.duckdb,
            protocol_version: worker.versions.protocol,
        };
        ListWorkersResponse {
            workers: self.registry.workers().into_iter().map(describe).collect(),
        }
    }

    async fn register_worker(
        &self,
        request: RegisterWorkerRequest,
        client: Option<SocketAddr>,
    ) -> Result<RegisterWorkerResponse, RemoteError> {
        let response = self
            .registry
            .register(request, client.map(|client| client.ip()))
            .await?;
        // The first one makes the registry's tables.
        self.sessions.advance_epoch();
        Ok(response)
    }

    fn record(&self, id: &[u8], session: &Session, client: Option<SocketAddr>, sql: &str) -> Recording {
        self.sessions.history().arrived(id, sender(session, client), sql)
    }

    async fn act(&self, action: Action, client: Option<SocketAddr>) -> Result<Vec<arrow_flight::Result>, RemoteError> {
        let body = &action.body;
        match action.r#type.as_str() {
            HelloRequest::TYPE => one(self.hello(action::decode(body)?).await?),
            CloseSessionRequest::TYPE => {
                self.sessions
                    .close(&action::decode::<CloseSessionRequest>(body)?.session_id);
                one(CloseSessionResponse {})
            }
            ChangeSettingsRequest::TYPE => {
                let request: ChangeSettingsRequest = action::decode(body)?;
                settings::check(&request.settings)?;
                self.sessions
                    .get(&request.session_id)?
                    .change_settings(request.settings);
                one(ChangeSettingsResponse {})
            }
            KeepAliveRequest::TYPE => {
                self.sessions
                    .get(&action::decode::<KeepAliveRequest>(body)?.session_id)?;
                one(KeepAliveResponse {
                    catalog_epoch: self.sessions.epoch(),
                })
            }
            CancelRequest::TYPE => {
                let request: CancelRequest = action::decode(body)?;
                one(CancelResponse {
                    found: self.sessions.get(&request.session_id)?.cancel(request.statement_id),
                })
            }
            ProgressRequest::TYPE => {
                let request: ProgressRequest = action::decode(body)?;
                one(ProgressResponse {
                    fraction: self.sessions.get(&request.session_id)?.progress(request.statement_id),
                })
            }
            DescribeRequest::TYPE => one(self.describe(action::decode(body)?, client).await?),
            LookupSchemaRequest::TYPE => one(self.lookup_schema(action::decode(body)?).await?),
            LookupTableRequest::TYPE => one(self.lookup_table(action::decode(body)?).await?),
            ListTablesRequest::TYPE => Ok(self
                .list_tables(action::decode(body)?)
                .await?
                .iter()
                .map(answer)
                .collect()),
            ListDefinitionsRequest::TYPE => Ok(self
                .list_definitions(action::decode(body)?)
                .await?
                .iter()
                .map(answer)
                .collect()),
            LoadExtensionRequest::TYPE => one(self.load_extension(action::decode(body)?).await?),
            ReleaseQueryRequest::TYPE => {
                let request: ReleaseQueryRequest = action::decode(body)?;
                let id = exchange::query_id(&request.query_id)?;
                one(ReleaseQueryResponse {
                    found: self.sessions.herd().exchanges().release(id),
                })
            }
            RegisterWorkerRequest::TYPE => one(self.register_worker(action::decode(body)?, client).await?),
            HeartbeatRequest::TYPE => one(self.registry.heartbeat(action::decode(body)?).await?),
            UnregisterWorkerRequest::TYPE => one(self.registry.unregister(action::decode(body)?).await?),
            ListWorkersRequest::TYPE => one(self.list_workers()),
            ClaimWorkerRequest::TYPE => one(self.registry.be_claimed(action::decode(body)?).await?),
            ReleaseWorkerRequest::TYPE => {
                let request: ReleaseWorkerRequest = action::decode(body)?;
                self.registry.be_released(&WorkerId(request.coordinator_id)).await?;
                one(ReleaseWorkerResponse {})
            }
            other => Err(RemoteError::new(
                ExceptionType::NotImplemented,
                format!("unknown action '{other}'"),
            )),
        }
    }
}

fn sender(session: &Session, client: Option<SocketAddr>) -> Sender {
    Sender {
        session: session.number,
        client: client.map(|address| address.to_string().into()),
    }
}

fn one(message: impl Message) -> Result<Vec<arrow_flight::Result>, RemoteError> {
    Ok(vec![answer(&message)])
}

fn answer(message: &impl Message) -> arrow_flight::Result {
    arrow_flight::Result {
        body: message.encode_to_vec().into(),
    }
}

/// A long list as several short ones.
fn parts<T>(entries: Vec<T>) -> impl Iterator<Item = Vec<T>> {
    let mut entries = entries.into_iter().peekable();
    std::iter::from_fn(move || {
        entries.peek()?;
        Some(entries.by_ref().take(ENTRIES_PER_ANSWER).collect())
    })
}

fn place(begin_transaction: bool) -> Place {
    if begin_transaction {
        Place::Begin
    } else {
        Place::Session
    }
}

/// The messages up to the one that ends the upload, whose content goes to `end`. Their bytes are counted in `traffic`.
fn until_end(
    data: BoxStream<'static, Result<FlightData, FlightError>>,
    end: Arc<OnceLock<IngestEnd>>,
    traffic: Arc<Traffic>,
) -> impl Stream<Item = Result<FlightData, FlightError>> + Send + 'static {
    stream::unfold(data, move |mut data| {
        let (end, traffic) = (Arc::clone(&end), Arc::clone(&traffic));
        async move {
            let message = data.next().await?;
            if let Ok(message) = &message {
                traffic.add_received(0, (message.data_header.len() + message.data_body.len()) as u64);
            }
            if let Ok(last) = &message
                && last.data_header.is_empty()
                && last.data_body.is_empty()
                && let Ok(found) = IngestEnd::decode(&*last.app_metadata)
            {
                let _ = end.set(found);
                return None;
            }
            Some((message, data))
        }
    })
}

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl FlightService for DucklingService {
    type HandshakeStream = Answers<HandshakeResponse>;
    type ListFlightsStream = Answers<FlightInfo>;
    type DoGetStream = Answers<FlightData>;
    type DoPutStream = Answers<PutResult>;
    type DoActionStream = Answers<arrow_flight::Result>;
    type ListActionsStream = Answers<ActionType>;
    type DoExchangeStream = Answers<FlightData>;

    async fn do_get(&self, request: Request<Ticket>) -> Result<Response<Self::DoGetStream>, Status> {
        // The trait asks for it. On the network, `get::Services` answers before it comes to this.
        let answer = self.get(request).await?;
        Ok(answer.map(|messages| messages.map_ok(FlightData::from).boxed()))
    }

    async fn do_put(&self, request: Request<Streaming<FlightData>>) -> Result<Response<Self::DoPutStream>, Status> {
        let client = request.remote_addr();
        let caller = self.caller(&request)?;
        let mut data = request.into_inner();
        let first = data
            .message()
            .await?
            .ok_or_else(|| Status::invalid_argument("an upload without a message"))?;
        let command = first
            .flight_descriptor
            .as_ref()
            .map(|descriptor| descriptor.cmd.clone())
            .unwrap_or_default();
        let ours = Command::decode(&command)?;
        let rest = data.map_err(|status| FlightError::Tonic(Box::new(status)));
        let all = stream::iter([Ok(first)]).chain(rest).boxed();
        let result = match ours {
            Some(Command::Ingest(request)) => PutResult {
                app_metadata: self.ingest(request, client, all).await?.encode_to_vec().into(),
            },
            Some(Command::Execute(_) | Command::ReadResult(_) | Command::RunStages(_) | Command::ReadExchange(_)) => {
                return Err(Status::invalid_argument("a statement belongs into DoGet"));
            }
            None => self.flight_sql.do_put(&caller, &command, all).await?,
        };
        Ok(caller.answer(Response::new(stream::iter([Ok(result)]).boxed())))
    }

    async fn do_action(&self, request: Request<Action>) -> Result<Response<Self::DoActionStream>, Status> {
        let client = request.remote_addr();
        if !request.get_ref().r#type.starts_with(action::PREFIX) {
            let caller = self.caller(&request)?;
            let answer = self.flight_sql.do_action(&caller, request.get_ref()).await?;
            if let Some(bodies) = answer {
                let answer = bodies.map(|bodies| {
                    let results = bodies.into_iter().map(|body| Ok(arrow_flight::Result { body }));
                    stream::iter(results.collect::<Vec<_>>()).boxed()
                });
                return Ok(caller.answer(answer));
            }
        }
        let answers = self.act(request.into_inner(), client).await?;
        Ok(Response::new(stream::iter(answers.into_iter().map(Ok)).boxed()))
    }

    async fn list_actions(&self, _request: Request<Empty>) -> Result<Response<Self::ListActionsStream>, Status> {
        let actions = action::ACTIONS.iter().chain(flight_sql::ACTIONS);
        let actions = actions.map(|(name, description)| {
            Ok(ActionType {
                r#type: (*name).into(),
                description: (*description).into(),
            })
        });
        Ok(Response::new(stream::iter(actions).boxed()))
    }

    async fn handshake(
        &self,
        request: Request<Streaming<HandshakeRequest>>,
    ) -> Result<Response<Self::HandshakeStream>, Status> {
        let (headers, _, mut requests) = request.into_parts();
        let payload = async {
            let first = tokio::time::timeout(HANDSHAKE_TIMEOUT, requests.message()).await;
            let first = first.map_err(|_| Status::deadline_exceeded("the handshake sent nothing"))??;
            Ok(first.unwrap_or_default().payload)
        };
        self.flight_sql.handshake(&headers, payload).await
    }

    async fn list_flights(&self, request: Request<Criteria>) -> Result<Response<Self::ListFlightsStream>, Status> {
        let caller = self.caller(&request)?;
        let flights = self.flight_sql.list_flights(&caller, request.into_inner()).await?;
        Ok(caller.answer(Response::new(flights)))
    }

    async fn get_flight_info(&self, request: Request<FlightDescriptor>) -> Result<Response<FlightInfo>, Status> {
        let caller = self.caller(&request)?;
        let info = self.flight_sql.get_flight_info(&caller, request.into_inner()).await?;
        Ok(caller.answer(Response::new(info)))
    }

    async fn poll_flight_info(&self, request: Request<FlightDescriptor>) -> Result<Response<PollInfo>, Status> {
        let caller = self.caller(&request)?;
        let info = self.flight_sql.poll_flight_info(&caller, request.into_inner()).await?;
        Ok(caller.answer(Response::new(info)))
    }

    async fn get_schema(&self, request: Request<FlightDescriptor>) -> Result<Response<SchemaResult>, Status> {
        let caller = self.caller(&request)?;
        let schema = self.flight_sql.get_schema(&caller, request.get_ref()).await?;
        Ok(caller.answer(Response::new(schema)))
    }

    async fn do_exchange(
        &self,
        _request: Request<Streaming<FlightData>>,
    ) -> Result<Response<Self::DoExchangeStream>, Status> {
        Err(Status::unimplemented("nothing here is done by DoExchange"))
    }
}
