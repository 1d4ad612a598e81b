//! A client of Arrow Flight SQL: the one of `arrow-flight`, and the protobuf messages beneath it.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch};
use arrow::datatypes::Int64Type;
use arrow::util::display::array_value_to_string;
use arrow_flight::decode::FlightRecordBatchStream;
use arrow_flight::encode::FlightDataEncoderBuilder;
use arrow_flight::error::FlightError;
use arrow_flight::flight_service_client::FlightServiceClient;
use arrow_flight::sql::client::FlightSqlServiceClient;
use arrow_flight::sql::{Any, ProstMessageExt};
use arrow_flight::{Action, FlightData, FlightDescriptor, FlightInfo, PutResult, Ticket};
use duckherder_proto::Message;
use duckherder_tests::duckling::LocalDuckling;
use futures::{StreamExt, TryStreamExt, stream};
use tonic::transport::Channel;
use tonic::{Code, Request, Status};

/// A client that has logged in.
pub type Client = FlightSqlServiceClient<Channel>;

/// The protobuf messages, with headers of our choice.
#[derive(Clone)]
pub struct Raw {
    client: FlightServiceClient<Channel>,
    headers: Vec<(&'static str, String)>,
}

pub async fn channel(duckling: &LocalDuckling) -> Channel {
    let address = format!("http://127.0.0.1:{}", duckling.port());
    Channel::from_shared(address).unwrap().connect().await.unwrap()
}

pub async fn log_in(duckling: &LocalDuckling) -> Client {
    let mut client = FlightSqlServiceClient::new(channel(duckling).await);
    client.handshake("somebody", "secret").await.unwrap();
    client
}

/// A duckling and a client that has logged in.
pub async fn start() -> (LocalDuckling, Client) {
    let duckling = LocalDuckling::start().unwrap();
    let client = log_in(&duckling).await;
    (duckling, client)
}

impl Raw {
    /// One that says nothing about itself.
    pub async fn anonymous(duckling: &LocalDuckling) -> Self {
        Self {
            client: FlightServiceClient::new(channel(duckling).await),
            headers: Vec::new(),
        }
    }

    /// One that has logged in.
    pub async fn logged_in(duckling: &LocalDuckling) -> Self {
        let client = log_in(duckling).await;
        let token = client.token().unwrap().clone();
        Self::anonymous(duckling)
            .await
            .with("authorization", format!("Bearer {token}"))
    }

    pub fn with(mut self, header: &'static str, value: String) -> Self {
        self.headers.push((header, value));
        self
    }

    /// The same over a connection of its own.
    pub async fn reconnected(&self, duckling: &LocalDuckling) -> Self {
        Self {
            client: FlightServiceClient::new(channel(duckling).await),
            headers: self.headers.clone(),
        }
    }

    pub fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        for (name, value) in &self.headers {
            request.metadata_mut().insert(*name, value.parse().unwrap());
        }
        request
    }

    pub fn service(&mut self) -> &mut FlightServiceClient<Channel> {
        &mut self.client
    }

    pub async fn info(&mut self, command: &impl ProstMessageExt) -> Result<FlightInfo, Status> {
        let request = self.request(descriptor(command));
        Ok(self.client.get_flight_info(request).await?.into_inner())
    }

    pub async fn get(&mut self, ticket: Ticket) -> Result<Vec<RecordBatch>, Status> {
        let request = self.request(ticket);
        let stream = self.client.do_get(request).await?.into_inner();
        read(stream.map_err(|status| FlightError::Tonic(Box::new(status)))).await
    }

    /// `GetFlightInfo`, then `DoGet` of its one endpoint.
    pub async fn fetch(&mut self, command: &impl ProstMessageExt) -> Result<Vec<RecordBatch>, Status> {
        let info = self.info(command).await?;
        self.get(ticket(&info)).await
    }

    /// `DoPut` of a command, with rows or without.
    pub async fn put(
        &mut self,
        command: &impl ProstMessageExt,
        batches: Option<Vec<RecordBatch>>,
    ) -> Result<PutResult, Status> {
        self.put_messages(messages(command, batches).await).await
    }

    pub async fn put_messages(&mut self, messages: Vec<FlightData>) -> Result<PutResult, Status> {
        let request = self.request(stream::iter(messages));
        let mut answers = self.client.do_put(request).await?.into_inner();
        Ok(answers.message().await?.unwrap())
    }

    /// An action; the bodies of its results.
    pub async fn act(&mut self, name: &str, body: Vec<u8>) -> Result<Vec<bytes::Bytes>, Status> {
        let request = self.request(Action::new(name, body));
        let answers = self.client.do_action(request).await?.into_inner();
        answers.map_ok(|result| result.body).try_collect().await
    }

    /// An action of Flight SQL, whose request and result are wrapped.
    pub async fn act_wrapped<M: ProstMessageExt>(
        &mut self,
        name: &str,
        request: &impl ProstMessageExt,
    ) -> Result<M, Status> {
        let bodies = self.act(name, request.as_any().encode_to_vec()).await?;
        let any = Any::decode(&*bodies[0]).unwrap();
        Ok(any.unpack().unwrap().unwrap())
    }
}

pub fn descriptor(command: &impl ProstMessageExt) -> FlightDescriptor {
    FlightDescriptor::new_cmd(command.as_any().encode_to_vec())
}

/// What a client uploads for a command.
pub async fn messages(command: &impl ProstMessageExt, batches: Option<Vec<RecordBatch>>) -> Vec<FlightData> {
    let descriptor = descriptor(command);
    let Some(batches) = batches else {
        return vec![FlightData::new().with_descriptor(descriptor)];
    };
    FlightDataEncoderBuilder::new()
        .with_flight_descriptor(Some(descriptor))
        .build(stream::iter(batches.into_iter().map(Ok)))
        .try_collect()
        .await
        .unwrap()
}

pub fn ticket(info: &FlightInfo) -> Ticket {
    assert_eq!(info.endpoint.len(), 1);
    info.endpoint[0].ticket.clone().unwrap()
}

pub async fn read(
    messages: impl futures::Stream<Item = Result<FlightData, FlightError>> + Send + 'static,
) -> Result<Vec<RecordBatch>, Status> {
    let mut stream = FlightRecordBatchStream::new_from_flight_data(messages.boxed());
    let mut batches = Vec::new();
    while let Some(batch) = stream.next().await {
        match batch {
            Ok(batch) => batches.push(batch),
            Err(FlightError::Tonic(status)) => return Err(*status),
            Err(other) => panic!("no valid stream: {other}"),
        }
    }
    // Also a result without rows tells its columns.
    assert!(stream.schema().is_some());
    Ok(batches)
}

/// All values as text.
pub fn texts(batches: &[RecordBatch]) -> Vec<Vec<String>> {
    let row = |batch: &RecordBatch, row: usize| {
        let value = |column: &ArrayRef| array_value_to_string(column, row).unwrap();
        batch.columns().iter().map(value).collect()
    };
    batches
        .iter()
        .flat_map(|batch| (0..batch.num_rows()).map(move |index| row(batch, index)))
        .collect()
}

/// `GetFlightInfo` and `DoGet` with the client of `arrow-flight`, all values as text.
pub async fn query(client: &mut Client, sql: &str) -> Result<Vec<Vec<String>>, Status> {
    let info = client.execute(sql.to_owned(), None).await.map_err(status)?;
    let stream = client.do_get(ticket(&info)).await.map_err(status)?;
    let batches: Vec<_> = stream.try_collect().await.map_err(|error| match error {
        FlightError::Tonic(status) => *status,
        other => panic!("no valid stream: {other}"),
    })?;
    Ok(texts(&batches))
}

/// The one number that a query yields.
pub async fn number(client: &mut Client, sql: &str) -> i64 {
    query(client, sql).await.unwrap()[0][0].parse().unwrap()
}

pub async fn update(client: &mut Client, sql: &str) -> i64 {
    client.execute_update(sql.to_owned(), None).await.unwrap()
}

/// The server's status in an error of `arrow-flight`'s client, which keeps its text only.
pub fn status(error: arrow_flight::error::FlightError) -> Status {
    match error {
        FlightError::Tonic(status) => *status,
        other => Status::unknown(other.to_string()),
    }
}

pub fn assert_code<T: std::fmt::Debug>(outcome: Result<T, Status>, code: Code) -> String {
    let status = outcome.unwrap_err();
    assert_eq!(status.code(), code, "{status:?}");
    status.message().to_owned()
}

pub fn numbers(values: impl IntoIterator<Item = i64>) -> RecordBatch {
    let column: ArrayRef = Arc::new(Int64Array::from_iter_values(values));
    RecordBatch::try_from_iter([("n", column)]).unwrap()
}

pub fn sum(batches: &[RecordBatch]) -> i64 {
    batches
        .iter()
        .flat_map(|batch| batch.column(0).as_primitive::<Int64Type>().values().to_vec())
        .sum()
}
