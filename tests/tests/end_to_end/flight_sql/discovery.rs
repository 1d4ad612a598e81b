//! What tools find out by themselves: health, reflection, the list of actions.

use std::time::Duration;

use arrow_flight::Empty;
use arrow_flight::flight_service_client::FlightServiceClient;
use duckherder_proto::Message;
use duckherder_tests::duckling::{LocalDuckling, config};
use futures::{StreamExt, TryStreamExt, stream};
use prost_types::FileDescriptorProto;
use tonic::Code;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
use tonic_reflection::pb::v1::{ServerReflectionRequest, ServerReflectionResponse};

use super::support::channel;
use crate::support::{DEADLINE, within};

const SERVICE: &str = "arrow.flight.protocol.FlightService";

fn about(service: &str) -> HealthCheckRequest {
    HealthCheckRequest {
        service: service.to_owned(),
    }
}

#[tokio::test]
async fn health_is_told_and_watched_to_the_end() {
    let mut config = config();
    // Longer than the test may take: nothing waits for it.
    config.limits.drain_timeout = Duration::from_secs(600);
    let mut duckling = LocalDuckling::start_with(config).unwrap();
    let mut health = HealthClient::new(channel(&duckling).await);
    for service in ["", SERVICE] {
        let status = health.check(about(service)).await.unwrap().into_inner();
        assert_eq!(status.status(), ServingStatus::Serving);
    }
    let unknown = health.check(about("nothing")).await.unwrap_err();
    assert_eq!(unknown.code(), Code::NotFound);
    let mut watch = health.watch(about(SERVICE)).await.unwrap().into_inner();
    assert_eq!(watch.message().await.unwrap().unwrap().status(), ServingStatus::Serving);
    duckling.begin_stop();
    let last = within(DEADLINE, watch.message()).await.unwrap().unwrap();
    assert_eq!(last.status(), ServingStatus::NotServing);
    within(DEADLINE, duckling.stop()).await.unwrap();
}

async fn reflect(duckling: &LocalDuckling, request: MessageRequest) -> ServerReflectionResponse {
    let request = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(request),
    };
    let mut reflection = ServerReflectionClient::new(channel(duckling).await);
    let answers = reflection
        .server_reflection_info(stream::iter([request]))
        .await
        .unwrap();
    answers.into_inner().next().await.unwrap().unwrap()
}

#[tokio::test]
async fn services_describe_themselves() {
    let duckling = LocalDuckling::start().unwrap();
    let answer = reflect(&duckling, MessageRequest::ListServices(String::new())).await;
    let Some(MessageResponse::ListServicesResponse(list)) = answer.message_response else {
        panic!("no list of services: {answer:?}");
    };
    let names: Vec<_> = list.service.into_iter().map(|service| service.name).collect();
    for name in [SERVICE, "grpc.health.v1.Health", "grpc.reflection.v1.ServerReflection"] {
        assert!(names.iter().any(|known| known == name), "{names:?}");
    }
    let answer = reflect(&duckling, MessageRequest::FileContainingSymbol(SERVICE.to_owned())).await;
    let Some(MessageResponse::FileDescriptorResponse(file)) = answer.message_response else {
        panic!("no file: {answer:?}");
    };
    let file = FileDescriptorProto::decode(&*file.file_descriptor_proto[0]).unwrap();
    assert_eq!(file.service[0].method.len(), 10);
    let known: Vec<_> = file
        .message_type
        .iter()
        .map(|message| format!(".{}.{}", file.package(), message.name()))
        .collect();
    for field in file.message_type.iter().flat_map(|message| &message.field) {
        let type_name = field.type_name();
        assert!(
            type_name.is_empty()
                || known.iter().any(|name| type_name.starts_with(name.as_str()))
                || type_name == ".google.protobuf.Timestamp",
            "{type_name}"
        );
    }
}

#[tokio::test]
async fn actions_are_listed() {
    let duckling = LocalDuckling::start().unwrap();
    let mut flight = FlightServiceClient::new(channel(&duckling).await);
    let actions = flight.list_actions(Empty {}).await.unwrap().into_inner();
    let actions: Vec<_> = actions.map_ok(|action| action.r#type).try_collect().await.unwrap();
    for name in [
        "CreatePreparedStatement",
        "CancelFlightInfo",
        "SetSessionOptions",
        "duckherder.v1.Hello",
    ] {
        assert!(actions.iter().any(|action| action == name), "{actions:?}");
    }
}
