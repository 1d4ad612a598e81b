//! A Flight server that says what a test tells it to say.

use std::net::SocketAddr;
use std::sync::Arc;

use arrow_flight::flight_service_server::{FlightService, FlightServiceServer};
use arrow_flight::{
    Action, ActionType, Criteria, Empty, FlightData, FlightDescriptor, FlightInfo, HandshakeRequest, HandshakeResponse,
    PollInfo, PutResult, SchemaResult, Ticket,
};
use bytes::Bytes;
use duckherder_proto::Message;
use duckherder_proto::action::ActionRequest;
use duckherder_proto::command::Command;
use duckherder_proto::v1;
use futures::future::BoxFuture;
use futures::stream::{self, BoxStream, StreamExt};
use tokio::net::TcpListener;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status, Streaming};

use super::soon;
use crate::{Client, ClientError, ClientOptions};

pub(super) type Answers<T> = Result<BoxStream<'static, Result<T, Status>>, Status>;
type OnAction = Arc<dyn Fn(Bytes) -> Answers<Bytes> + Send + Sync>;
type OnGet = Arc<dyn Fn(v1::ExecuteRequest) -> BoxFuture<'static, Answers<FlightData>> + Send + Sync>;
type OnJoin = Arc<dyn Fn(v1::ReadResultRequest) -> Answers<FlightData> + Send + Sync>;
type OnPut = Arc<dyn Fn(Streaming<FlightData>) -> BoxFuture<'static, Answers<PutResult>> + Send + Sync>;

/// What the server says to what. By default it opens, keeps alive and closes sessions, and knows nothing else.
#[derive(Clone)]
pub(super) struct Script {
    actions: Vec<(&'static str, OnAction)>,
    get: OnGet,
    join: OnJoin,
    put: OnPut,
    events: UnboundedSender<String>,
}

/// A running server, and what has happened there: the names of the actions, and what a script notes.
pub(super) struct Server {
    pub(super) address: SocketAddr,
    events: UnboundedReceiver<String>,
}

pub(super) fn hello() -> v1::HelloResponse {
    v1::HelloResponse {
        protocol_version: 1,
        session_id: Bytes::from_static(b"secret"),
        server_version: "0.1.0".to_owned(),
        duckdb_version: "v2.0.0".to_owned(),
        database_name: "pond".to_owned(),
        catalog_epoch: 1,
        session_idle_timeout_ms: 60_000,
        ..v1::HelloResponse::default()
    }
}

/// Messages as they are, then the end of the stream.
pub(super) fn all<T: Send + 'static>(messages: Vec<T>) -> Answers<T> {
    Ok(stream::iter(messages.into_iter().map(Ok)).boxed())
}

/// Notes an event when it is dropped.
pub(super) struct Noted(UnboundedSender<String>, &'static str);

impl Drop for Noted {
    fn drop(&mut self) {
        let _ = self.0.send(self.1.to_owned());
    }
}

impl Script {
    pub(super) fn new() -> (Self, UnboundedReceiver<String>) {
        let (events, receiver) = unbounded_channel();
        let script = Self {
            actions: Vec::new(),
            get: Arc::new(|_| Box::pin(async { Err(Status::unimplemented("DoGet")) })),
            join: Arc::new(|_| Err(Status::invalid_argument("there is no such result"))),
            put: Arc::new(|_| Box::pin(async { Err(Status::unimplemented("DoPut")) })),
            events,
        };
        let script = script
            .answers::<v1::HelloRequest>(vec![hello()])
            .answers::<v1::CloseSessionRequest>(vec![v1::CloseSessionResponse {}])
            .answers::<v1::KeepAliveRequest>(vec![v1::KeepAliveResponse { catalog_epoch: 7 }]);
        (script, receiver)
    }

    pub(super) fn answers<R: ActionRequest>(self, answers: Vec<R::Response>) -> Self {
        let bodies: Vec<Bytes> = answers.iter().map(|answer| answer.encode_to_vec().into()).collect();
        self.on_action::<R>(move |_| all(bodies.clone()))
    }

    pub(super) fn on_action<R: ActionRequest>(
        mut self,
        handler: impl Fn(R) -> Answers<Bytes> + Send + Sync + 'static,
    ) -> Self {
        let handler = move |body: Bytes| handler(R::decode(body).unwrap());
        self.actions.retain(|(name, _)| *name != R::TYPE);
        self.actions.push((R::TYPE, Arc::new(handler)));
        self
    }

    pub(super) fn get(self, messages: Vec<FlightData>) -> Self {
        self.on_get(move |_| all(messages.clone()))
    }

    pub(super) fn on_get(
        self,
        handler: impl Fn(v1::ExecuteRequest) -> Answers<FlightData> + Send + Sync + 'static,
    ) -> Self {
        self.on_get_later(move |request| Box::pin(std::future::ready(handler(request))))
    }

    pub(super) fn on_get_later(
        mut self,
        handler: impl Fn(v1::ExecuteRequest) -> BoxFuture<'static, Answers<FlightData>> + Send + Sync + 'static,
    ) -> Self {
        self.get = Arc::new(handler);
        self
    }

    /// What a further stream of a result says.
    pub(super) fn on_join(
        mut self,
        handler: impl Fn(v1::ReadResultRequest) -> Answers<FlightData> + Send + Sync + 'static,
    ) -> Self {
        self.join = Arc::new(handler);
        self
    }

    pub(super) fn on_put<F>(mut self, handler: impl Fn(Streaming<FlightData>) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Answers<PutResult>> + Send + 'static,
    {
        self.put = Arc::new(move |messages| Box::pin(handler(messages)));
        self
    }

    pub(super) fn events(&self) -> UnboundedSender<String> {
        self.events.clone()
    }

    pub(super) fn note_drop(&self, event: &'static str) -> impl Fn() -> Noted + Send + Sync + 'static {
        let events = self.events();
        move || Noted(events.clone(), event)
    }

    pub(super) async fn serve(self, events: UnboundedReceiver<String>) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let service = FlightServiceServer::new(self).max_decoding_message_size(usize::MAX);
        let server = tonic::transport::Server::builder().add_service(service);
        tokio::spawn(server.serve_with_incoming(TcpIncoming::from(listener)));
        Server { address, events }
    }
}

impl Server {
    pub(super) fn options(&self) -> ClientOptions {
        ClientOptions::new(self.address.ip().to_string(), self.address.port())
    }

    pub(super) async fn connect(&self) -> Client {
        self.try_connect().await.unwrap()
    }

    pub(super) async fn try_connect(&self) -> Result<Client, ClientError> {
        soon(Client::connect(self.options())).await
    }

    /// Waits for an event, skipping others.
    pub(super) async fn saw(&mut self, event: &str) {
        soon(async { while self.events.recv().await.expect("the server has gone") != event {} }).await;
    }

    /// How the next upload ends.
    pub(super) async fn ended(&mut self) -> String {
        loop {
            let event = self.events.recv().await.expect("the server has gone");
            if event == "commit" || event == "rollback" {
                return event;
            }
        }
    }

    /// What happened since.
    pub(super) fn log(&mut self) -> Vec<String> {
        std::iter::from_fn(|| self.events.try_recv().ok()).collect()
    }
}

type Reply<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl FlightService for Script {
    type HandshakeStream = BoxStream<'static, Result<HandshakeResponse, Status>>;
    type ListFlightsStream = BoxStream<'static, Result<FlightInfo, Status>>;
    type DoGetStream = BoxStream<'static, Result<FlightData, Status>>;
    type DoPutStream = BoxStream<'static, Result<PutResult, Status>>;
    type DoExchangeStream = BoxStream<'static, Result<FlightData, Status>>;
    type DoActionStream = BoxStream<'static, Result<arrow_flight::Result, Status>>;
    type ListActionsStream = BoxStream<'static, Result<ActionType, Status>>;

    async fn do_action(&self, request: Request<Action>) -> Reply<Self::DoActionStream> {
        let action = request.into_inner();
        let name = action.r#type.rsplit('.').next().unwrap_or_default();
        let _ = self.events.send(name.to_owned());
        let Some((_, handler)) = self.actions.iter().find(|(name, _)| *name == action.r#type) else {
            return Err(Status::unimplemented(format!("no action {name}")));
        };
        let bodies = handler(action.body)?;
        Ok(Response::new(
            bodies
                .map(|body| body.map(|body| arrow_flight::Result { body }))
                .boxed(),
        ))
    }

    async fn do_get(&self, request: Request<Ticket>) -> Reply<Self::DoGetStream> {
        match Command::decode(&request.into_inner().ticket) {
            Ok(Some(Command::Execute(request))) => (self.get)(request).await.map(Response::new),
            Ok(Some(Command::ReadResult(request))) => {
                let _ = self.events.send("join".to_owned());
                (self.join)(request).map(Response::new)
            }
            _ => Err(Status::invalid_argument("not a statement")),
        }
    }

    async fn do_put(&self, request: Request<Streaming<FlightData>>) -> Reply<Self::DoPutStream> {
        (self.put)(request.into_inner()).await.map(Response::new)
    }

    async fn handshake(&self, _: Request<Streaming<HandshakeRequest>>) -> Reply<Self::HandshakeStream> {
        Err(Status::unimplemented(""))
    }

    async fn list_flights(&self, _: Request<Criteria>) -> Reply<Self::ListFlightsStream> {
        Err(Status::unimplemented(""))
    }

    async fn get_flight_info(&self, _: Request<FlightDescriptor>) -> Reply<FlightInfo> {
        Err(Status::unimplemented(""))
    }

    async fn poll_flight_info(&self, _: Request<FlightDescriptor>) -> Reply<PollInfo> {
        Err(Status::unimplemented(""))
    }

    async fn get_schema(&self, _: Request<FlightDescriptor>) -> Reply<SchemaResult> {
        Err(Status::unimplemented(""))
    }

    async fn do_exchange(&self, _: Request<Streaming<FlightData>>) -> Reply<Self::DoExchangeStream> {
        Err(Status::unimplemented(""))
    }

    async fn list_actions(&self, _: Request<Empty>) -> Reply<Self::ListActionsStream> {
        Err(Status::unimplemented(""))
    }
}
