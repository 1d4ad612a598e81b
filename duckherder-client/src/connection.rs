//! One HTTP/2 connection to a duckling, and requests with short answers over it.

use std::sync::Arc;
use std::time::Duration;

use arrow_flight::flight_service_client::FlightServiceClient;
use duckherder_proto::action::{self, ActionRequest};
use duckherder_proto::{Message, limits};
use tokio::time::timeout;

use crate::channel::{Channel, Endpoint};
use crate::contain::contained_async;
use crate::direct::Connections;
use crate::error::{Call, ClientError};
use crate::options::ClientOptions;
use crate::pool::{Pool, Used};

/// A connection, shared by all its clones. It is made anew when it has broken; what was under way is lost.
#[derive(Debug, Clone)]
pub(crate) struct Connection {
    channel: Channel,
    address: Arc<str>,
    request_timeout: Duration,
    pool: Arc<Pool>,
    /// Those to the workers of its herd.
    workers: Arc<Connections>,
}

impl Connection {
    /// Connects once, without a deadline of its own.
    pub(crate) async fn open(options: &ClientOptions) -> Result<Self, ClientError> {
        let address = options.address();
        let endpoint = Endpoint::new(&address, options.connect_timeout)?;
        let channel = endpoint.connect().await.map_err(|source| ClientError::Connect {
            address: address.clone(),
            source,
        })?;
        let further = options.streams.saturating_sub(1);
        Ok(Self {
            channel,
            address: address.into(),
            request_timeout: options.request_timeout,
            pool: Arc::new(Pool::new(endpoint, options.connect_timeout, further)),
            workers: Arc::default(),
        })
    }

    /// How many further connections there may be, for as many further streams of a result.
    pub(crate) fn further_max(&self) -> u32 {
        self.pool.connections_max()
    }

    /// One of the further connections, at that place; what is returned with it says that it is used. `None` if it cannot be
    /// made.
    pub(crate) async fn further(&self, place: usize) -> Option<(Self, Used)> {
        let (channel, used) = self.pool.connection(place).await?;
        Some((
            Self {
                channel,
                ..self.clone()
            },
            used,
        ))
    }

    pub(crate) fn workers(&self) -> Arc<Connections> {
        Arc::clone(&self.workers)
    }

    pub(crate) fn request_timeout(&self) -> Duration {
        self.request_timeout
    }

    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// For this clone of it, and those that are made of it.
    pub(crate) fn set_request_timeout(&mut self, timeout: Duration) {
        self.request_timeout = timeout;
    }

    pub(crate) fn channel(&self) -> Channel {
        self.channel.clone()
    }

    pub(crate) fn flight(&self) -> FlightServiceClient<Channel> {
        FlightServiceClient::new(self.channel())
            .max_decoding_message_size(limits::MESSAGE_BYTES_MAX)
            .max_encoding_message_size(limits::MESSAGE_BYTES_MAX)
    }

    /// Notes the start of `operation`, for its errors.
    pub(crate) fn start(&self, operation: &'static str) -> Call {
        Call::start(Arc::clone(&self.address), operation)
    }

    /// Sends a request that has exactly one answer.
    pub(crate) async fn request<R: ActionRequest>(&self, request: &R) -> Result<R::Response, ClientError> {
        let call = self.start(operation::<R>());
        let mut answers = self.bounded(&call, request).await?;
        match (answers.pop(), answers.len()) {
            (Some(answer), 0) => Ok(answer),
            (None, _) => Err(call.protocol("there is none")),
            (Some(_), more) => Err(call.protocol(format!("one was expected, {} arrived", more + 1))),
        }
    }

    /// Sends a request that has any number of answers.
    pub(crate) async fn request_many<R: ActionRequest>(&self, request: &R) -> Result<Vec<R::Response>, ClientError> {
        self.bounded(&self.start(operation::<R>()), request).await
    }

    async fn bounded<R: ActionRequest>(&self, call: &Call, request: &R) -> Result<Vec<R::Response>, ClientError> {
        match timeout(self.request_timeout, contained_async(self.answers(call, request))).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(panicked)) => Err(call.protocol(panicked.0)),
            Err(_) => Err(call.timed_out()),
        }
    }

    async fn answers<R: ActionRequest>(&self, call: &Call, request: &R) -> Result<Vec<R::Response>, ClientError> {
        let response = self.flight().do_action(action::encode(request)).await;
        let mut stream = response.map_err(|status| call.failed(status))?.into_inner();
        let mut answers = Vec::new();
        let mut bytes = 0;
        while let Some(result) = stream.message().await.map_err(|status| call.failed(status))? {
            bytes += result.body.len() + size_of::<R::Response>();
            if bytes > limits::MESSAGE_BYTES_MAX {
                return Err(call.protocol(format!("it is larger than {} bytes", limits::MESSAGE_BYTES_MAX)));
            }
            let answer = R::Response::decode(result.body);
            answers.push(answer.map_err(|error| call.protocol(format!("it is malformed: {error}")))?);
        }
        Ok(answers)
    }
}

/// `Describe` of `duckherder.v1.Describe`.
fn operation<R: ActionRequest>() -> &'static str {
    R::TYPE.rsplit('.').next().unwrap_or(R::TYPE)
}
