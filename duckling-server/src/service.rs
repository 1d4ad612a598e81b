//! The Flight service: requests in, streams out. Decides nothing about SQL; blocking work goes to blocking threads.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow_flight::decode::FlightRecordBatchStream;
use arrow_flight::error::FlightError;
use arrow_flight::flight_service_server::FlightService;
use arrow_flight::{
    Action, ActionType, Criteria, Empty, FlightData, FlightDescriptor, FlightInfo, HandshakeRequest, HandshakeResponse,
    PollInfo, PutResult, SchemaResult, Ticket,
};
use duckherder_proto::action::{self, ActionRequest};
use duckherder_proto::command::Command;
use duckherder_proto::history::{self, Traffic};
use duckherder_proto::v1::{
    CancelRequest, CancelResponse, ChangeSettingsRequest, ChangeSettingsResponse, CloseSessionRequest,
    CloseSessionResponse, DescribeRequest, DescribeResponse, ExecuteRequest, HelloRequest, HelloResponse, IngestEnd,
    IngestRequest, IngestResponse, KeepAliveRequest, KeepAliveResponse, ListTablesRequest, ListTablesResponse,
    LoadExtensionRequest, LoadExtensionResponse, LookupSchemaRequest, LookupSchemaResponse, LookupTableRequest,
    LookupTableResponse,
};
use duckherder_proto::{ExceptionType, Message, RemoteError, version};
use futures::stream::{self, BoxStream};
use futures::{Stream, StreamExt, TryStreamExt};
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tonic::{Request, Response, Status, Streaming};
use tracing::{Instrument, debug, info, info_span};

use crate::duckdb::{Connection, StatementKind};
use crate::history::{Recording, Sender};
use crate::ingest::Upload;
use crate::queue::{self, Consumer};
use crate::session::{Lease, Registration, Session, Sessions};
use crate::{catalog, ingest, settings, statement};

/// Tables described in one answer of `ListTables`.
const TABLES_PER_ANSWER: usize = 256;

/// An upload is, to the session, an INSERT.
const INGEST_SQL: &str = "INSERT";

/// Batches of an upload read ahead of the database.
const INGEST_BATCHES_AHEAD: usize = 4;

/// Arrow Flight, answered from one database.
pub struct DucklingService {
    sessions: Arc<Sessions>,
}

impl DucklingService {
    pub fn new(sessions: Arc<Sessions>) -> Self {
        Self { sessions }
    }

    async fn hello(&self, request: HelloRequest) -> Result<HelloResponse, RemoteError> {
        let protocol_version = version::negotiate(&request)?;
        settings::check(&request.settings)?;
        let sessions = Arc::clone(&self.sessions);
        let (session, database_name, duckdb_version) = blocking(move || {
            let session = sessions.open(request.settings)?;
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
            session.lease(sql, false).await?
        };
        blocking(move || work(&mut lease)).await
    }

    async fn list_tables(&self, request: ListTablesRequest) -> Result<Vec<ListTablesResponse>, RemoteError> {
        let catalog_epoch = self.sessions.epoch();
        let snapshot = self.on_session(&request.session_id, catalog::snapshot).await?;
        let mut answers = vec![ListTablesResponse {
            catalog_epoch,
            schema_names: snapshot.schema_names,
            tables: Vec::new(),
        }];
        let mut tables = snapshot.tables.into_iter().peekable();
        while tables.peek().is_some() {
            let tables = tables.by_ref().take(TABLES_PER_ANSWER).collect();
            answers.push(ListTablesResponse {
                catalog_epoch,
                schema_names: Vec::new(),
                tables,
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
        } = request;
        let table = self
            .on_session(&session_id, move |connection| {
                catalog::lookup_table(connection, &schema_name, &table_name)
            })
            .await?;
        Ok(LookupTableResponse { catalog_epoch, table })
    }

    async fn lookup_schema(&self, request: LookupSchemaRequest) -> Result<LookupSchemaResponse, RemoteError> {
        let catalog_epoch = self.sessions.epoch();
        let LookupSchemaRequest {
            session_id,
            schema_name,
        } = request;
        let exists = self
            .on_session(&session_id, move |connection| {
                catalog::schema_exists(connection, &schema_name)
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

    async fn execute(
        &self,
        request: ExecuteRequest,
        client: Option<SocketAddr>,
    ) -> Result<BoxStream<'static, Result<FlightData, Status>>, Status> {
        let session = self.sessions.get(&request.session_id)?;
        let recording = self.record(&request.history_id, &session, client, &request.sql);
        recording.traffic().add_received(0, request.sql.len() as u64);
        let turn = Turn::wait(
            &self.sessions,
            &session,
            &request.sql,
            request.begin_transaction,
            request.statement_id,
        );
        let (recording, turn) = recorded(recording, turn.await)?;
        let Turn {
            permit,
            mut lease,
            registration,
        } = turn;
        let (producer, consumer) = queue::bounded(self.sessions.limits().read_ahead_bytes);
        let answer = AnswerStream::new(consumer, &registration);
        let sessions = Arc::clone(&self.sessions);
        let span = info_span!("statement", id = request.statement_id);
        drop(tokio::task::spawn_blocking(move || {
            let _entered = span.entered();
            debug!(sql = request.sql, "running");
            recording.runs();
            let outcome = statement::run(&sessions, &mut lease, &request, &registration, &recording, &producer);
            if let Err(error) = &outcome {
                debug!(%error, "failed");
            }
            // The connection is free, the statement no longer to be cancelled, and in the history as it ended, before
            // its end is told.
            drop((registration, lease, permit));
            recording.end(outcome.as_ref().copied());
            producer.finish(outcome.map(|_| ()));
        }));
        answer.start().await
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
        let outcome = self.ingest_recorded(request, &session, &recording, data).await;
        recording.end(outcome.as_ref().map(|response| Some(response.rows)));
        outcome
    }

    async fn ingest_recorded(
        &self,
        request: IngestRequest,
        session: &Arc<Session>,
        recording: &Recording,
        data: BoxStream<'static, Result<FlightData, FlightError>>,
    ) -> Result<IngestResponse, RemoteError> {
        let end = Arc::new(OnceLock::new());
        let data = until_end(data, Arc::clone(&end), Arc::clone(recording.traffic()));
        let mut batches = FlightRecordBatchStream::new_from_flight_data(data);
        // The first item tells the schema, also of a stream without batches.
        let first = batches.next().await.transpose().map_err(|error| upload_error(&error))?;
        let schema = batches.schema().cloned().ok_or_else(|| {
            RemoteError::new(
                ExceptionType::InvalidInput,
                "an upload must begin with an Arrow schema message",
            )
        })?;
        let turn = Turn::wait(
            &self.sessions,
            session,
            INGEST_SQL,
            request.begin_transaction,
            request.statement_id,
        );
        let Turn {
            permit,
            lease,
            registration,
        } = turn.await?;
        recording.runs();
        let started = Instant::now();
        let (sender, receiver) = mpsc::channel(INGEST_BATCHES_AHEAD);
        let feed = feed(first, batches, end, Arc::clone(recording.traffic()), sender);
        let work = ingest_work(Arc::clone(&self.sessions), lease, request, schema, receiver);
        let cancel = CancelOnDrop::new(registration.abandoner());
        let (rows, ()) = futures::join!(blocking(work), feed);
        cancel.disarm();
        drop((registration, permit));
        Ok(IngestResponse {
            rows: rows?,
            catalog_epoch: self.sessions.epoch(),
            elapsed_us: u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX),
        })
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
            DescribeRequest::TYPE => one(self.describe(action::decode(body)?, client).await?),
            LookupSchemaRequest::TYPE => one(self.lookup_schema(action::decode(body)?).await?),
            LookupTableRequest::TYPE => one(self.lookup_table(action::decode(body)?).await?),
            ListTablesRequest::TYPE => Ok(self
                .list_tables(action::decode(body)?)
                .await?
                .iter()
                .map(answer)
                .collect()),
            LoadExtensionRequest::TYPE => one(self.load_extension(action::decode(body)?).await?),
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

/// What a statement needs to run.
struct Turn {
    permit: OwnedSemaphorePermit,
    lease: Lease,
    registration: Registration,
}

impl Turn {
    /// Waits for a place among the running statements, and for a connection fit for `sql`.
    async fn wait(
        sessions: &Sessions,
        session: &Arc<Session>,
        sql: &str,
        begin_transaction: bool,
        statement_id: u64,
    ) -> Result<Self, RemoteError> {
        let permit = sessions.admit().await?;
        let lease = session.lease(sql, begin_transaction).await?;
        let interrupter = lease
            .interrupter()
            .ok_or_else(|| RemoteError::new(ExceptionType::Io, "the leased connection is gone"))?;
        let registration = session.register(statement_id, interrupter);
        Ok(Self {
            permit,
            lease,
            registration,
        })
    }
}

/// Records a failure as the statement's end.
fn recorded<T>(recording: Recording, outcome: Result<T, RemoteError>) -> Result<(Recording, T), RemoteError> {
    match outcome {
        Ok(value) => Ok((recording, value)),
        Err(error) => {
            recording.end(Err(&error));
            Err(error)
        }
    }
}

/// Runs `work` on a thread that may block. A panic there is an error here.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, RemoteError> + Send + 'static,
) -> Result<T, RemoteError> {
    let span = tracing::Span::current();
    tokio::task::spawn_blocking(move || span.in_scope(work))
        .in_current_span()
        .await
        .map_err(|_| RemoteError::new(ExceptionType::Io, "the server failed while running this request"))?
}

fn ingest_work(
    sessions: Arc<Sessions>,
    mut lease: Lease,
    request: IngestRequest,
    schema: SchemaRef,
    mut receiver: mpsc::Receiver<Result<Upload, RemoteError>>,
) -> impl FnOnce() -> Result<u64, RemoteError> + Send + 'static {
    move || ingest::run(&sessions, &mut lease, &request, &schema, &mut receiver)
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

/// Moves batches from the network to the database thread until either end is done.
async fn feed(
    first: Option<RecordBatch>,
    batches: FlightRecordBatchStream,
    end: Arc<OnceLock<IngestEnd>>,
    traffic: Arc<Traffic>,
    sender: mpsc::Sender<Result<Upload, RemoteError>>,
) {
    let rest = batches.map_err(|error| upload_error(&error));
    let mut all = stream::iter(first.map(Ok)).chain(rest);
    while let Some(batch) = all.next().await {
        let failed = batch.is_err();
        traffic.add_received(batch.as_ref().map_or(0, |batch| batch.num_rows() as u64), 0);
        if sender.send(batch.map(Upload::Batch)).await.is_err() || failed {
            return;
        }
    }
    // Without it the stream was cut off; dropping the sender says so.
    if let Some(end) = end.get() {
        let _ = sender.send(Ok(Upload::End { rows: end.rows })).await;
    }
}

fn upload_error(error: &FlightError) -> RemoteError {
    match error {
        FlightError::Tonic(status) => RemoteError::new(
            ExceptionType::Interrupt,
            format!("the upload broke off and was rolled back: {}", status.message()),
        ),
        other => RemoteError::new(
            ExceptionType::InvalidInput,
            format!("the uploaded Arrow data is not valid: {other}"),
        ),
    }
}

/// The answer to a statement; dropped before its end, it interrupts the statement.
struct AnswerStream {
    consumer: Consumer,
    cancel: CancelOnDrop,
}

impl AnswerStream {
    fn new(consumer: Consumer, registration: &Registration) -> Self {
        Self {
            consumer,
            cancel: CancelOnDrop::new(registration.abandoner()),
        }
    }

    /// Waits for the first message, so that it leaves together with the response's headers.
    async fn start(self) -> Result<BoxStream<'static, Result<FlightData, Status>>, Status> {
        let (first, rest) = self.next().await;
        let first = first.transpose()?;
        let rest = stream::unfold(rest, |answer| async move {
            let (item, rest) = answer?.next().await;
            item.map(|item| (item, rest))
        });
        Ok(stream::iter(first.map(Ok)).chain(rest).boxed())
    }

    /// The next message, and what answers after it: nothing after the end or an error.
    async fn next(mut self) -> (Option<Result<FlightData, Status>>, Option<Self>) {
        match self.consumer.next().await {
            Some(Ok(message)) => (Some(Ok(message)), Some(self)),
            Some(Err(error)) => {
                self.cancel.disarm();
                (Some(Err(Status::from(error))), None)
            }
            None => {
                self.cancel.disarm();
                (None, None)
            }
        }
    }
}

/// Cancels a statement when its client goes away.
struct CancelOnDrop(Option<Box<dyn FnOnce() + Send>>);

impl CancelOnDrop {
    fn new(cancel: impl FnOnce() + Send + 'static) -> Self {
        Self(Some(Box::new(cancel)))
    }

    fn disarm(mut self) {
        self.0 = None;
    }
}

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        if let Some(cancel) = self.0.take() {
            cancel();
        }
    }
}

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

fn not_yet(what: &str) -> Status {
    Status::unimplemented(format!(
        "{what} is not supported by this duckling; it serves Duckherder clients"
    ))
}

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
        let client = request.remote_addr();
        match Command::decode(&request.into_inner().ticket)? {
            Some(Command::Execute(request)) => Ok(Response::new(self.execute(request, client).await?)),
            Some(Command::Ingest(_)) => Err(Status::invalid_argument("an ingest command belongs into DoPut")),
            None => Err(not_yet("this ticket (Arrow Flight SQL)")),
        }
    }

    async fn do_put(&self, request: Request<Streaming<FlightData>>) -> Result<Response<Self::DoPutStream>, Status> {
        let client = request.remote_addr();
        let mut data = request.into_inner();
        let first = data
            .message()
            .await?
            .ok_or_else(|| Status::invalid_argument("an upload without a message"))?;
        let command = first
            .flight_descriptor
            .as_ref()
            .map(|descriptor| Command::decode(&descriptor.cmd))
            .transpose()?;
        let Some(Some(Command::Ingest(request))) = command else {
            return Err(not_yet("this upload (Arrow Flight SQL)"));
        };
        let rest = data.map_err(|status| FlightError::Tonic(Box::new(status)));
        let all = stream::iter([Ok(first)]).chain(rest).boxed();
        let response = self.ingest(request, client, all).await?;
        let result = PutResult {
            app_metadata: response.encode_to_vec().into(),
        };
        Ok(Response::new(stream::iter([Ok(result)]).boxed()))
    }

    async fn do_action(&self, request: Request<Action>) -> Result<Response<Self::DoActionStream>, Status> {
        let client = request.remote_addr();
        let answers = self.act(request.into_inner(), client).await?;
        Ok(Response::new(stream::iter(answers.into_iter().map(Ok)).boxed()))
    }

    async fn list_actions(&self, _request: Request<Empty>) -> Result<Response<Self::ListActionsStream>, Status> {
        let actions = action::ACTIONS.iter().map(|(name, description)| {
            Ok(ActionType {
                r#type: (*name).into(),
                description: (*description).into(),
            })
        });
        Ok(Response::new(stream::iter(actions).boxed()))
    }

    async fn handshake(
        &self,
        _request: Request<Streaming<HandshakeRequest>>,
    ) -> Result<Response<Self::HandshakeStream>, Status> {
        Err(not_yet("Handshake"))
    }

    async fn list_flights(&self, _request: Request<Criteria>) -> Result<Response<Self::ListFlightsStream>, Status> {
        Err(not_yet("ListFlights"))
    }

    async fn get_flight_info(&self, _request: Request<FlightDescriptor>) -> Result<Response<FlightInfo>, Status> {
        Err(not_yet("GetFlightInfo"))
    }

    async fn poll_flight_info(&self, _request: Request<FlightDescriptor>) -> Result<Response<PollInfo>, Status> {
        Err(not_yet("PollFlightInfo"))
    }

    async fn get_schema(&self, _request: Request<FlightDescriptor>) -> Result<Response<SchemaResult>, Status> {
        Err(not_yet("GetSchema"))
    }

    async fn do_exchange(
        &self,
        _request: Request<Streaming<FlightData>>,
    ) -> Result<Response<Self::DoExchangeStream>, Status> {
        Err(not_yet("DoExchange"))
    }
}
