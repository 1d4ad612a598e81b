//! Results that several streams share: every row once, however they are read, and an order where there is one.

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::Int64Type;
use arrow_flight::error::FlightError;
use arrow_flight::sql::{
    ActionBeginTransactionRequest, ActionBeginTransactionResult, ActionCreatePreparedStatementRequest,
    ActionCreatePreparedStatementResult, CommandPreparedStatementQuery, CommandStatementQuery,
};
use arrow_flight::{CancelFlightInfoRequest, FlightInfo, Ticket};
use duckherder_proto::Message;
use duckherder_tests::duckling::{LocalDuckling, config};
use futures::TryStreamExt;
use tonic::{Code, Status, Streaming};

use super::support::{Client, Raw, assert_code, numbers, query, read, start};
use crate::support::{DEADLINE, within};

const ROWS: i64 = 3_000_000;

const LARGE: &str = "SELECT range::BIGINT AS n FROM range(3_000_000)";

fn statement(sql: &str) -> CommandStatementQuery {
    CommandStatementQuery {
        query: sql.to_owned(),
        transaction_id: None,
    }
}

fn tickets(info: &FlightInfo) -> Vec<Ticket> {
    info.endpoint
        .iter()
        .map(|endpoint| {
            assert!(endpoint.location.is_empty());
            endpoint.ticket.clone().unwrap()
        })
        .collect()
}

fn values(batches: &[RecordBatch]) -> Vec<i64> {
    batches
        .iter()
        .flat_map(|batch| batch.column(0).as_primitive::<Int64Type>().values().to_vec())
        .collect()
}

async fn open(raw: &mut Raw, ticket: Ticket) -> Streaming<arrow_flight::FlightData> {
    let request = raw.request(ticket);
    raw.service().do_get(request).await.unwrap().into_inner()
}

async fn rest(stream: Streaming<arrow_flight::FlightData>) -> Result<Vec<RecordBatch>, Status> {
    within(
        DEADLINE,
        read(stream.map_err(|status| FlightError::Tonic(Box::new(status)))),
    )
    .await
}

fn assert_each_once(mut values: Vec<i64>) {
    values.sort_unstable();
    assert_eq!(values.len() as i64, ROWS);
    assert!(values.into_iter().eq(0..ROWS), "each row once");
}

async fn running(client: &mut Client) -> String {
    let running = "SELECT count(*) FROM duckling_history() WHERE state = 'running' AND NOT contains(sql, 'history')";
    query(client, running).await.unwrap()[0][0].clone()
}

#[tokio::test]
async fn large_results_without_an_order_have_several() {
    let (duckling, mut client) = start().await;
    let mut raw = Raw::logged_in(&duckling).await;
    let setup = "CREATE TABLE t AS SELECT range AS i FROM range(1_000_000); CREATE VIEW by_i AS FROM t ORDER BY i; \
                 CREATE TYPE mood AS ENUM ('sad', 'happy'); CREATE TABLE moods AS SELECT 'sad'::mood AS m, i FROM t";
    query(&mut client, setup).await.unwrap();
    for (sql, endpoints, ordered) in [
        ("FROM t", 3, false),
        ("SELECT i + 1 FROM t WHERE i >= 0 -- all\n;", 3, false),
        ("FROM t UNION ALL FROM t", 3, false),
        ("FROM t ORDER BY i", 1, true),
        ("FROM t ORDER/* by what? */BY i", 1, true),
        ("FROM by_i", 1, true),
        ("SELECT (FROM t ORDER BY i LIMIT 1), i FROM t", 1, true),
        ("SELECT count(*) FROM t", 1, false),
        ("FROM t LIMIT 10", 1, false),
        // The dictionary of an ENUM column comes once.
        ("FROM moods", 1, false),
        ("EXPLAIN FROM t", 1, false),
        ("SET VARIABLE x = 1; FROM t", 1, false),
        ("PIVOT moods ON m USING count(*)", 1, false),
        ("INSERT INTO t FROM t RETURNING i", 1, false),
        ("CREATE TABLE u AS FROM t", 1, false),
    ] {
        let info = raw.info(&statement(sql)).await.unwrap();
        assert_eq!((info.endpoint.len(), info.ordered), (endpoints, ordered), "{sql}");
    }
}

#[tokio::test]
async fn side_by_side_on_several_connections() {
    let (duckling, _client) = start().await;
    let mut raw = Raw::logged_in(&duckling).await;
    let info = raw.info(&statement(LARGE)).await.unwrap();
    let announced = info.clone().try_decode_schema().unwrap();
    let mut reading = Vec::new();
    for ticket in tickets(&info) {
        let mut raw = raw.reconnected(&duckling).await;
        reading.push(tokio::spawn(async move { raw.get(ticket).await.unwrap() }));
    }
    let mut all = Vec::new();
    for part in reading {
        let batches = within(DEADLINE, part).await.unwrap();
        assert!(batches.iter().all(|batch| *batch.schema() == announced));
        all.extend(values(&batches));
    }
    assert_each_once(all);
}

#[tokio::test]
async fn one_after_the_other_in_any_order() {
    let (duckling, _client) = start().await;
    let mut raw = Raw::logged_in(&duckling).await;
    for backwards in [false, true] {
        let info = raw.info(&statement(LARGE)).await.unwrap();
        let mut tickets = tickets(&info);
        if backwards {
            tickets.reverse();
        }
        let mut all = Vec::new();
        for ticket in tickets {
            // Reading checks that those without rows have a schema too.
            all.extend(values(&within(DEADLINE, raw.get(ticket)).await.unwrap()));
        }
        assert_each_once(all);
    }
}

#[tokio::test]
async fn a_client_that_reads_one_only_gets_all() {
    let (duckling, mut client) = start().await;
    let mut raw = Raw::logged_in(&duckling).await;
    for index in 0..3 {
        let info = raw.info(&statement(LARGE)).await.unwrap();
        let ticket = tickets(&info).swap_remove(index);
        assert_each_once(values(&within(DEADLINE, raw.get(ticket)).await.unwrap()));
    }
    within(DEADLINE, async { while running(&mut client).await != "0" {} }).await;
}

/// With the windows that clients in Rust have if nobody sets others, on one connection.
#[tokio::test]
async fn all_open_and_read_one_after_the_other() {
    let (duckling, _client) = start().await;
    let mut raw = Raw::logged_in(&duckling).await;
    let info = raw.info(&statement(LARGE)).await.unwrap();
    let mut streams = Vec::new();
    for ticket in tickets(&info) {
        streams.push(open(&mut raw, ticket).await);
    }
    let mut all = Vec::new();
    for stream in streams {
        all.extend(values(&rest(stream).await.unwrap()));
    }
    assert_each_once(all);
}

#[tokio::test]
async fn one_that_is_given_up_ends_the_result() {
    let (duckling, mut client) = start().await;
    let mut raw = Raw::logged_in(&duckling).await;
    let endless = statement("SELECT range::BIGINT AS n FROM range(1_000_000_000_000)");
    let info = raw.info(&endless).await.unwrap();
    let tickets = tickets(&info);
    let reading = open(&mut raw, tickets[0].clone()).await;
    let mut given_up = open(&mut raw, tickets[1].clone()).await;
    given_up.message().await.unwrap().unwrap();
    drop(given_up);
    let message = assert_code(rest(reading).await, Code::Internal);
    assert!(message.contains("given up"), "{message}");
    let late = within(DEADLINE, raw.get(tickets[2].clone())).await;
    assert_code(late, Code::Internal);
    within(DEADLINE, async { while running(&mut client).await != "0" {} }).await;
}

#[tokio::test]
async fn all_are_told_of_an_error() {
    let (duckling, _client) = start().await;
    let mut raw = Raw::logged_in(&duckling).await;
    let fails = "SELECT CASE WHEN range = 2_900_000 THEN error('in the middle') ELSE range END::BIGINT AS n \
                 FROM range(3_000_000)";
    let info = raw.info(&statement(fails)).await.unwrap();
    let mut reading = Vec::new();
    for ticket in tickets(&info) {
        let mut raw = raw.clone();
        reading.push(tokio::spawn(async move { raw.get(ticket).await }));
    }
    assert_eq!(reading.len(), 3);
    for part in reading {
        let message = assert_code(within(DEADLINE, part).await.unwrap(), Code::InvalidArgument);
        assert!(message.contains("in the middle"), "{message}");
    }
}

#[tokio::test]
async fn each_is_read_once_and_by_its_session_only() {
    let (duckling, _client) = start().await;
    let mut raw = Raw::logged_in(&duckling).await;
    let info = raw.info(&statement(LARGE)).await.unwrap();
    let tickets = tickets(&info);
    let mut other = Raw::logged_in(&duckling).await;
    assert_code(other.get(tickets[1].clone()).await, Code::PermissionDenied);
    assert_each_once(values(&raw.get(tickets[1].clone()).await.unwrap()));
    // Rows would come twice.
    let message = assert_code(raw.get(tickets[1].clone()).await, Code::InvalidArgument);
    assert!(message.contains("has been fetched"), "{message}");
    assert!(raw.get(tickets[0].clone()).await.unwrap().is_empty());
    // No such endpoint.
    let mut ticket = tickets[2].ticket.to_vec();
    *ticket.last_mut().unwrap() = 3;
    assert_code(raw.get(Ticket::new(ticket)).await, Code::InvalidArgument);
}

#[tokio::test]
async fn cancelling_stops_all_of_them() {
    let (duckling, mut client) = start().await;
    let mut raw = Raw::logged_in(&duckling).await;
    let endless = statement("SELECT range::BIGINT AS n FROM range(1_000_000_000_000)");
    for fetched_first in [true, false] {
        let info = raw.info(&endless).await.unwrap();
        let tickets = tickets(&info);
        let mut reading = None;
        if fetched_first {
            reading = Some(open(&mut raw, tickets[2].clone()).await);
        }
        let request = CancelFlightInfoRequest { info: Some(info) };
        let bodies = raw.act("CancelFlightInfo", request.encode_to_vec()).await.unwrap();
        // CANCEL_STATUS_CANCELLED is 1.
        assert_eq!(bodies[0], [8, 1].as_slice());
        if let Some(reading) = reading {
            assert_code(rest(reading).await, Code::Cancelled);
            assert_code(raw.get(tickets[0].clone()).await, Code::Cancelled);
        } else {
            assert_code(raw.get(tickets[0].clone()).await, Code::InvalidArgument);
        }
    }
    within(DEADLINE, async { while running(&mut client).await != "0" {} }).await;
}

#[tokio::test]
async fn prepared_statements_have_several_too() {
    let (duckling, _client) = start().await;
    let mut raw = Raw::logged_in(&duckling).await;
    for (sql, endpoints) in [(LARGE, 3), ("SELECT range::BIGINT + ? FROM range(3_000_000)", 1)] {
        let request = ActionCreatePreparedStatementRequest {
            query: sql.to_owned(),
            transaction_id: None,
        };
        let created: ActionCreatePreparedStatementResult =
            raw.act_wrapped("CreatePreparedStatement", &request).await.unwrap();
        let command = CommandPreparedStatementQuery {
            prepared_statement_handle: created.prepared_statement_handle,
        };
        if endpoints == 1 {
            raw.put(&command, Some(vec![numbers([0])])).await.unwrap();
        }
        for _ in 0..2 {
            let info = raw.info(&command).await.unwrap();
            assert_eq!((info.endpoint.len(), info.ordered), (endpoints, false));
            let mut all = Vec::new();
            for ticket in tickets(&info) {
                all.extend(values(&raw.get(ticket).await.unwrap()));
            }
            assert_each_once(all);
        }
    }
}

#[tokio::test]
async fn in_a_transaction_beside_other_statements() {
    let (duckling, _client) = start().await;
    let mut raw = Raw::logged_in(&duckling).await;
    let begun: ActionBeginTransactionResult = raw
        .act_wrapped("BeginTransaction", &ActionBeginTransactionRequest {})
        .await
        .unwrap();
    let select = |sql: &str| CommandStatementQuery {
        query: sql.to_owned(),
        transaction_id: Some(begun.transaction_id.clone()),
    };
    let info = raw.info(&select(LARGE)).await.unwrap();
    let tickets = tickets(&info);
    let first = open(&mut raw, tickets[0].clone()).await;
    let second = open(&mut raw, tickets[1].clone()).await;
    // The transaction's next statement does not wait for the streams' readers.
    assert_eq!(values(&raw.fetch(&select("SELECT 7::BIGINT")).await.unwrap()), [7]);
    let mut all = values(&rest(second).await.unwrap());
    all.extend(values(&rest(first).await.unwrap()));
    all.extend(values(&raw.get(tickets[2].clone()).await.unwrap()));
    assert_each_once(all);
}

/// One that names its session by nothing but the tickets.
#[tokio::test]
async fn for_clients_without_a_token_or_cookies() {
    let mut config = config();
    config.limits.sessions_max = 2;
    let duckling = LocalDuckling::start_with(config).unwrap();
    let mut raw = Raw::anonymous(&duckling).await;
    for _ in 0..4 {
        let info = raw.info(&statement(LARGE)).await.unwrap();
        let mut all = Vec::new();
        for ticket in tickets(&info) {
            let mut connection = Raw::anonymous(&duckling).await;
            all.extend(values(&connection.get(ticket).await.unwrap()));
        }
        assert_each_once(all);
    }
}

#[tokio::test]
async fn a_server_may_have_one_only() {
    let mut config = config();
    config.limits.result_endpoints = 1;
    let duckling = LocalDuckling::start_with(config).unwrap();
    let mut raw = Raw::logged_in(&duckling).await;
    let info = raw.info(&statement(LARGE)).await.unwrap();
    assert_eq!(info.endpoint.len(), 1);
    // DuckDB keeps the order of rows, and so does one stream.
    assert!(
        values(&raw.get(tickets(&info).remove(0)).await.unwrap())
            .into_iter()
            .eq(0..ROWS)
    );
}
