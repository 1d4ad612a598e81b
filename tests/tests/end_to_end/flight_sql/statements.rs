//! Queries and updates: each runs once, whichever way it came.

use arrow::datatypes::{DataType, Schema};
use arrow_flight::sql::{
    ActionCancelQueryRequest, ActionCancelQueryResult, CommandStatementQuery, CommandStatementUpdate, ProstMessageExt,
};
use arrow_flight::{
    CancelFlightInfoRequest, CancelFlightInfoResult, CancelStatus, Criteria, FlightDescriptor, IpcMessage,
    RenewFlightEndpointRequest,
};
use duckherder_proto::Message;
use futures::TryStreamExt;
use tonic::Code;

use super::support::{Raw, assert_code, descriptor, log_in, number, query, start, status, sum, texts, ticket, update};
use crate::support::{DEADLINE, within};

fn statement(sql: &str) -> CommandStatementQuery {
    CommandStatementQuery {
        query: sql.to_owned(),
        transaction_id: None,
    }
}

#[tokio::test]
async fn a_query_is_announced_then_fetched() {
    let (_duckling, mut client) = start().await;
    let info = client
        .execute("SELECT 42 AS answer, 'x' AS s ORDER BY 1".to_owned(), None)
        .await
        .unwrap();
    assert!(info.ordered);
    assert_eq!((info.total_records, info.total_bytes), (-1, -1));
    assert!(info.endpoint[0].location.is_empty());
    let announced = info.clone().try_decode_schema().unwrap();
    assert_eq!(announced.field(0).data_type(), &DataType::Int32);
    let metadata = announced.field(0).metadata();
    assert_eq!(
        metadata.get("ARROW:FLIGHT:SQL:TYPE_NAME").map(String::as_str),
        Some("INTEGER")
    );
    let stream = client.do_get(ticket(&info)).await.unwrap();
    let batches: Vec<_> = stream.try_collect().await.unwrap();
    assert_eq!(texts(&batches), [["42", "x"]]);
    // Clients compare the two.
    assert_eq!(*batches[0].schema(), announced);
}

#[tokio::test]
async fn updates_count_their_rows_and_run_once() {
    let (_duckling, mut client) = start().await;
    assert_eq!(update(&mut client, "CREATE TABLE t (i INTEGER)").await, 0);
    assert_eq!(update(&mut client, "INSERT INTO t FROM range(5)").await, 5);
    assert_eq!(update(&mut client, "UPDATE t SET i = 7 WHERE i > 2").await, 2);
    assert_eq!(update(&mut client, "DELETE FROM t WHERE i = 7").await, 2);
    assert_eq!(update(&mut client, "INSERT INTO t VALUES (1) RETURNING i").await, 1);
    assert_eq!(number(&mut client, "SELECT count(*) FROM t").await, 4);
}

#[tokio::test]
async fn statements_on_the_query_path_run_when_they_are_fetched_and_once() {
    let (duckling, mut client) = start().await;
    update(&mut client, "CREATE TABLE t (i INTEGER)").await;
    let mut raw = Raw::logged_in(&duckling).await;
    let info = raw.info(&statement("INSERT INTO t VALUES (1), (2)")).await.unwrap();
    assert_eq!(number(&mut client, "SELECT count(*) FROM t").await, 0);
    assert_eq!(texts(&raw.get(ticket(&info)).await.unwrap()), [["2"]]);
    let message = assert_code(raw.get(ticket(&info)).await, Code::InvalidArgument);
    assert!(message.contains("not run again"), "{message}");
    assert_eq!(number(&mut client, "SELECT count(*) FROM t").await, 2);
    // DDL, and a result that is never fetched.
    raw.fetch(&statement("CREATE TABLE u (i INTEGER)")).await.unwrap();
    raw.info(&statement("DROP TABLE u")).await.unwrap();
    assert_eq!(number(&mut client, "SELECT count(*) FROM u").await, 0);
    assert_eq!(
        query(&mut client, "INSERT INTO u VALUES (3) RETURNING i")
            .await
            .unwrap(),
        [["3"]]
    );
}

#[tokio::test]
async fn what_only_reads_may_be_fetched_again() {
    let (duckling, _client) = start().await;
    let mut raw = Raw::logged_in(&duckling).await;
    let info = raw.info(&statement("SELECT 1::BIGINT")).await.unwrap();
    for _ in 0..2 {
        assert_eq!(sum(&raw.get(ticket(&info)).await.unwrap()), 1);
    }
    raw.fetch(&statement("CREATE SEQUENCE s")).await.unwrap();
    let info = raw.info(&statement("SELECT nextval('s')")).await.unwrap();
    raw.get(ticket(&info)).await.unwrap();
    assert_code(raw.get(ticket(&info)).await, Code::InvalidArgument);
}

#[tokio::test]
async fn several_statements_and_pivot_are_told_when_they_run() {
    let (duckling, mut client) = start().await;
    let rows = query(&mut client, "CREATE TABLE t AS SELECT 'a' AS k, 2 AS v; FROM t")
        .await
        .unwrap();
    assert_eq!(rows, [["a", "2"]]);
    let mut raw = Raw::logged_in(&duckling).await;
    let pivot = statement("PIVOT t ON k USING sum(v)");
    let info = raw.info(&pivot).await.unwrap();
    assert!(info.schema.is_empty());
    assert_eq!(texts(&raw.get(ticket(&info)).await.unwrap()), [["2"]]);
    let request = raw.request(descriptor(&pivot));
    let refused = raw.service().get_schema(request).await;
    assert_eq!(refused.unwrap_err().code(), Code::Unimplemented);
}

#[tokio::test]
async fn an_empty_result_has_its_columns() {
    let (duckling, _client) = start().await;
    let mut raw = Raw::logged_in(&duckling).await;
    let batches = raw.fetch(&statement("SELECT 1 AS i WHERE false")).await.unwrap();
    assert!(texts(&batches).is_empty());
}

#[tokio::test]
async fn errors_are_duckdbs_and_come_before_the_result() {
    let (duckling, mut client) = start().await;
    let mut raw = Raw::logged_in(&duckling).await;
    let message = assert_code(raw.info(&statement("SELEC 1")).await, Code::InvalidArgument);
    assert!(message.starts_with("Parser Error"), "{message}");
    assert_code(raw.info(&statement("FROM nothing")).await, Code::NotFound);
    assert_code(raw.info(&statement("")).await, Code::InvalidArgument);
    // It binds, and fails when it runs.
    let late = raw.fetch(&statement("SELECT error('late')")).await;
    assert!(assert_code(late, Code::InvalidArgument).contains("late"));
    let refused = client
        .execute_update("INSERT INTO nothing VALUES (1)".to_owned(), None)
        .await;
    assert_code(refused.map_err(status), Code::NotFound);
    assert_eq!(number(&mut client, "SELECT 1").await, 1);
}

#[tokio::test]
async fn schemas_polls_and_renewals() {
    let (duckling, _client) = start().await;
    let mut raw = Raw::logged_in(&duckling).await;
    let select = statement("SELECT 1 AS a");
    let request = raw.request(descriptor(&select));
    let schema = raw.service().get_schema(request).await.unwrap().into_inner();
    let schema = Schema::try_from(IpcMessage(schema.schema)).unwrap();
    assert_eq!(schema.field(0).name(), "a");
    let request = raw.request(descriptor(&select));
    let poll = raw.service().poll_flight_info(request).await.unwrap().into_inner();
    assert_eq!((poll.flight_descriptor, poll.progress), (None, Some(1.0)));
    let info = poll.info.unwrap();
    let renew = RenewFlightEndpointRequest {
        endpoint: info.endpoint.first().cloned(),
    };
    let renewed = raw.act("RenewFlightEndpoint", renew.encode_to_vec()).await.unwrap();
    assert_eq!(renewed[0], info.endpoint[0].encode_to_vec());
    assert_eq!(texts(&raw.get(ticket(&info)).await.unwrap()), [["1"]]);
    let nothing = RenewFlightEndpointRequest::default().encode_to_vec();
    assert_code(raw.act("RenewFlightEndpoint", nothing).await, Code::InvalidArgument);
}

#[tokio::test]
async fn tables_are_flights() {
    let (duckling, mut client) = start().await;
    update(
        &mut client,
        "CREATE TABLE \"a \"\"b\" AS SELECT 7::BIGINT AS n; CREATE VIEW v AS SELECT 1",
    )
    .await;
    let mut raw = Raw::logged_in(&duckling).await;
    let request = raw.request(Criteria {
        expression: "a%".into(),
    });
    let flights = raw.service().list_flights(request).await.unwrap().into_inner();
    let flights: Vec<_> = flights.try_collect().await.unwrap();
    assert_eq!(flights.len(), 1);
    let path = flights[0].flight_descriptor.clone().unwrap();
    assert_eq!(path.path, ["memory", "main", "a \"b"]);
    assert_eq!(sum(&raw.get(ticket(&flights[0])).await.unwrap()), 7);
    let request = raw.request(path);
    let info = raw.service().get_flight_info(request).await.unwrap().into_inner();
    assert_eq!(sum(&raw.get(ticket(&info)).await.unwrap()), 7);
    for path in [vec![], vec!["a".to_owned(); 4]] {
        let request = raw.request(FlightDescriptor::new_path(path));
        let refused = raw.service().get_flight_info(request).await;
        assert_eq!(refused.unwrap_err().code(), Code::InvalidArgument);
    }
}

const ENDLESS: &str = "SELECT count(*) FROM range(1000000) AS a, range(1000000) AS b WHERE a.range * b.range % 7 = 3";

#[tokio::test]
async fn cancelling_stops_the_query() {
    let (duckling, _client) = start().await;
    let raw = Raw::logged_in(&duckling).await;
    for wrapped in [true, false] {
        let mut reader = raw.clone();
        let mut canceller = raw.clone();
        let info = reader.info(&statement(ENDLESS)).await.unwrap();
        let fetched = ticket(&info);
        let reading = tokio::spawn(async move { reader.get(fetched).await });
        let mut watcher = log_in(&duckling).await;
        let running = "SELECT count(*) FROM duckling_history() WHERE state = 'running' AND sql LIKE '%range * b.range%' AND \
                       sql NOT LIKE '%history%'";
        within(DEADLINE, async { while number(&mut watcher, running).await == 0 {} }).await;
        let status = if wrapped {
            let request = ActionCancelQueryRequest {
                info: info.encode_to_vec().into(),
            };
            let result: ActionCancelQueryResult = canceller.act_wrapped("CancelQuery", &request).await.unwrap();
            result.result
        } else {
            let request = CancelFlightInfoRequest { info: Some(info) };
            let bodies = canceller
                .act("CancelFlightInfo", request.encode_to_vec())
                .await
                .unwrap();
            CancelFlightInfoResult::decode(&*bodies[0]).unwrap().status
        };
        assert_eq!(status, CancelStatus::Cancelled as i32);
        let outcome = within(DEADLINE, reading).await.unwrap();
        assert_code(outcome, Code::Cancelled);
    }
}

#[tokio::test]
async fn what_was_not_fetched_is_cancelled_for_good() {
    let (duckling, _client) = start().await;
    let mut raw = Raw::logged_in(&duckling).await;
    let info = raw.info(&statement("SELECT 1")).await.unwrap();
    let request = CancelFlightInfoRequest {
        info: Some(info.clone()),
    };
    let bodies = raw.act("CancelFlightInfo", request.encode_to_vec()).await.unwrap();
    let result = CancelFlightInfoResult::decode(&*bodies[0]).unwrap();
    assert_eq!(result.status, CancelStatus::Cancelled as i32);
    assert_code(raw.get(ticket(&info)).await, Code::InvalidArgument);
    assert_code(
        raw.act("CancelFlightInfo", request.encode_to_vec()).await,
        Code::InvalidArgument,
    );
}

#[tokio::test]
async fn messages_stay_below_what_every_client_accepts() {
    let (duckling, _client) = start().await;
    let mut raw = Raw::logged_in(&duckling).await;
    // The rows are of very different sizes: one piece of a batch holds nearly all its bytes.
    let skewed =
        statement("SELECT repeat('x', CASE WHEN i < 20 THEN 1000000 ELSE 1 END) AS s FROM range(5000) AS t(i)");
    let info = raw.info(&skewed).await.unwrap();
    let request = raw.request(ticket(&info));
    let messages: Vec<_> = raw
        .service()
        .clone()
        .max_decoding_message_size(4 * 1024 * 1024)
        .do_get(request)
        .await
        .unwrap()
        .into_inner()
        .try_collect()
        .await
        .unwrap();
    assert!(messages.len() > 5);
}

#[tokio::test]
async fn a_ticket_can_be_the_query_itself() {
    let (duckling, _client) = start().await;
    let mut raw = Raw::logged_in(&duckling).await;
    let ticket = arrow_flight::Ticket::new(statement("SELECT 5::BIGINT").as_any().encode_to_vec());
    assert_eq!(sum(&raw.get(ticket).await.unwrap()), 5);
    let update = CommandStatementUpdate {
        query: "SELECT 1".to_owned(),
        transaction_id: None,
    };
    let ticket = arrow_flight::Ticket::new(update.as_any().encode_to_vec());
    assert_code(raw.get(ticket).await, Code::InvalidArgument);
}
