//! Actions: one request message, one or more response messages, by name.

use arrow_flight::Action;
use prost::Message;
use prost::bytes::Bytes;

use crate::error::{ExceptionType, RemoteError};
use crate::v1;

/// How the names of the protocol's own actions begin.
pub const PREFIX: &str = "duckherder.";

/// A request of the protocol that travels as a Flight `Action`.
pub trait ActionRequest: Message + Default {
    /// `Action.type`.
    const TYPE: &'static str;
    /// What each `Result.body` of the answer holds.
    type Response: Message + Default;
}

macro_rules! actions {
    ($($request:ident => $response:ident, $name:literal, $description:literal;)*) => {
        $(impl ActionRequest for v1::$request {
            const TYPE: &'static str = $name;
            type Response = v1::$response;
        })*

        /// All actions of the protocol: name and description, for `ListActions`.
        pub const ACTIONS: &[(&str, &str)] = &[$(($name, $description)),*];
    };
}

actions! {
    HelloRequest => HelloResponse, "duckherder.v1.Hello", "Open a session.";
    CloseSessionRequest => CloseSessionResponse, "duckherder.v1.CloseSession", "Close a session.";
    ChangeSettingsRequest => ChangeSettingsResponse, "duckherder.v1.ChangeSettings", "The session's DuckDB settings.";
    KeepAliveRequest => KeepAliveResponse, "duckherder.v1.KeepAlive", "Keep an idle session open.";
    DescribeRequest => DescribeResponse, "duckherder.v1.Describe", "The result shape of a statement, not run.";
    CancelRequest => CancelResponse, "duckherder.v1.Cancel", "Stop a running statement.";
    ProgressRequest => ProgressResponse, "duckherder.v1.Progress", "How far a running statement is.";
    LookupSchemaRequest => LookupSchemaResponse, "duckherder.v1.LookupSchema", "Whether a schema exists.";
    LookupTableRequest => LookupTableResponse, "duckherder.v1.LookupTable", "One table or view by name.";
    ListTablesRequest => ListTablesResponse, "duckherder.v1.ListTables", "All schemas, tables and views.";
    ListDefinitionsRequest => ListDefinitionsResponse, "duckherder.v1.ListDefinitions", "All sequences, indexes, types, macros.";
    LoadExtensionRequest => LoadExtensionResponse, "duckherder.v1.LoadExtension", "Load a DuckDB extension.";
    ReleaseQueryRequest => ReleaseQueryResponse, "duckherder.v1.ReleaseQuery", "End a worker's part of a query.";
    RegisterWorkerRequest => RegisterWorkerResponse, "duckherder.v1.RegisterWorker", "Make a duckling a worker of this one.";
    HeartbeatRequest => HeartbeatResponse, "duckherder.v1.Heartbeat", "A worker's sign of life.";
    UnregisterWorkerRequest => UnregisterWorkerResponse, "duckherder.v1.UnregisterWorker", "Take a worker out of the herd.";
    ListWorkersRequest => ListWorkersResponse, "duckherder.v1.ListWorkers", "The workers of a coordinator.";
    ClaimWorkerRequest => ClaimWorkerResponse, "duckherder.v1.ClaimWorker", "From a coordinator: be its worker.";
    ReleaseWorkerRequest => ReleaseWorkerResponse, "duckherder.v1.ReleaseWorker", "From a coordinator: be its worker no more.";
}

/// The Flight action that carries `request`.
pub fn encode<R: ActionRequest>(request: &R) -> Action {
    Action {
        r#type: R::TYPE.to_owned(),
        body: Bytes::from(request.encode_to_vec()),
    }
}

/// The request in an action's body.
///
/// # Errors
/// An `Invalid Input` error that names the action, if the body is not that message.
pub fn decode<R: ActionRequest>(body: &[u8]) -> Result<R, RemoteError> {
    R::decode(body).map_err(|error| {
        RemoteError::new(
            ExceptionType::InvalidInput,
            format!("malformed body of action {}: {error}", R::TYPE),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_action_comes_back_as_it_was() {
        let request = v1::CancelRequest {
            session_id: Bytes::from_static(b"s"),
            statement_id: 7,
        };
        let action = encode(&request);
        assert_eq!(action.r#type, "duckherder.v1.Cancel");
        assert_eq!(decode::<v1::CancelRequest>(&action.body).unwrap(), request);
    }

    proptest! {
        #[test]
        fn hostile_bodies_never_panic(body in proptest::collection::vec(any::<u8>(), 0..256)) {
            let _ = decode::<v1::HelloRequest>(&body);
            let _ = decode::<v1::LookupTableRequest>(&body);
        }
    }
}
