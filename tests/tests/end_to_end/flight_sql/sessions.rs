//! Who is who: handshakes, bearer tokens, cookies, and clients that send neither.

use std::time::Duration;

use arrow_flight::sql::{
    ActionBeginTransactionRequest, ActionBeginTransactionResult, ActionCreatePreparedStatementRequest,
    CommandGetCatalogs, CommandGetSqlInfo, CommandStatementQuery, CommandStatementUpdate, ProstMessageExt,
};
use arrow_flight::{Action, HandshakeRequest};
use duckherder_proto::Message;
use duckherder_tests::duckling::{LocalDuckling, config};
use futures::stream;
use tonic::{Code, Response, Status};

use super::support::{Raw, assert_code, descriptor, messages, start, sum, ticket};
use crate::support::{DEADLINE, within};

fn statement(sql: &str) -> CommandStatementQuery {
    CommandStatementQuery {
        query: sql.to_owned(),
        transaction_id: None,
    }
}

async fn handshake(raw: &mut Raw) -> Result<(String, String), Status> {
    let request = raw.request(stream::iter([HandshakeRequest::default()]));
    let response = raw.service().handshake(request).await?;
    let header = response
        .metadata()
        .get("authorization")
        .unwrap()
        .to_str()
        .unwrap()
        .to_owned();
    let payload = response.into_inner().message().await?.unwrap().payload;
    Ok((header, String::from_utf8(payload.to_vec()).unwrap()))
}

async fn handshake_with(duckling: &LocalDuckling, header: &str) -> Result<(String, String), Status> {
    let mut raw = Raw::anonymous(duckling).await.with("authorization", header.to_owned());
    handshake(&mut raw).await
}

fn cookie<T>(response: &Response<T>) -> Option<String> {
    let header = response.metadata().get("set-cookie")?.to_str().unwrap();
    Some(header.split(';').next().unwrap().to_owned())
}

/// The id in a cookie, `name=kind-id` or `name=kind-id-seal`.
fn session_of(cookie: &str) -> String {
    cookie.split('-').nth(1).unwrap().to_owned()
}

/// A statement with a cookie, or none, and the cookie that comes back.
async fn update_with(raw: &mut Raw, cookie_sent: Option<&str>, sql: &str) -> Result<Option<String>, Status> {
    let command = CommandStatementUpdate {
        query: sql.to_owned(),
        transaction_id: None,
    };
    let mut request = raw.request(stream::iter(messages(&command, None).await));
    if let Some(cookie) = cookie_sent {
        request.metadata_mut().insert("cookie", cookie.parse().unwrap());
    }
    raw.service().do_put(request).await.map(|response| cookie(&response))
}

#[tokio::test]
async fn handshakes_with_basic_padded_and_unpadded_and_with_bearer() {
    let duckling = LocalDuckling::start().unwrap();
    let mut tokens = Vec::new();
    for header in ["Basic dXM6cA==", "Basic dXM6cA", "basic dTpw"] {
        let (header, token) = handshake_with(&duckling, header).await.unwrap();
        assert_eq!(header, format!("Bearer {token}"));
        tokens.push(token);
    }
    assert!(tokens[0] != tokens[1], "each log-in is a session of its own");
    let (again, _) = handshake_with(&duckling, &format!("Bearer {}", tokens[0]))
        .await
        .unwrap();
    assert_eq!(again, format!("Bearer {}", tokens[0]));
    for header in [
        "Basic",
        "Basic !!!",
        "Basic dXM",
        "Digest dTpw",
        "Bearer x",
        "Bearer 00000000000000000000000000000000",
    ] {
        assert_code(handshake_with(&duckling, header).await, Code::Unauthenticated);
    }
    assert_code(
        handshake(&mut Raw::anonymous(&duckling).await).await,
        Code::Unauthenticated,
    );
}

#[tokio::test]
async fn a_bearer_token_is_a_session() {
    let (duckling, _client) = start().await;
    let mut raw = Raw::logged_in(&duckling).await;
    raw.fetch(&statement("CREATE TEMP TABLE t AS SELECT 1::BIGINT AS n"))
        .await
        .unwrap();
    assert_eq!(sum(&raw.fetch(&statement("FROM t")).await.unwrap()), 1);
    let bodies = raw.act("CloseSession", Vec::new()).await.unwrap();
    // CLOSED is 1.
    assert_eq!(bodies[0], [8, 1].as_slice());
    assert_code(raw.info(&statement("FROM t")).await, Code::Unauthenticated);
    let mut unknown = Raw::anonymous(&duckling)
        .await
        .with("authorization", format!("Bearer {}", "0".repeat(32)));
    assert_code(unknown.fetch(&CommandGetCatalogs {}).await, Code::Unauthenticated);
}

#[tokio::test]
async fn a_cookie_is_a_session_once_it_holds_something() {
    let duckling = LocalDuckling::start().unwrap();
    let mut raw = Raw::anonymous(&duckling).await;
    let first = update_with(&mut raw, None, "SELECT 1").await.unwrap().unwrap();
    assert!(first.contains("=n-"), "it promises nothing: {first}");
    let second = update_with(&mut raw, Some(&first), "SELECT 1").await.unwrap().unwrap();
    assert!(second.contains("=s-"), "the session is kept from now on: {second}");
    assert_eq!(update_with(&mut raw, Some(&second), "SELECT 1").await.unwrap(), None);
    let at_once = update_with(&mut raw, None, "SET VARIABLE x = 1")
        .await
        .unwrap()
        .unwrap();
    assert!(at_once.contains("=s-"), "{at_once}");
    let mut raw = raw.with("cookie", format!("other=1; {second}"));
    raw.fetch(&statement("CREATE TEMP TABLE t AS SELECT 5::BIGINT AS n"))
        .await
        .unwrap();
    assert_eq!(sum(&raw.fetch(&statement("FROM t")).await.unwrap()), 5);
    // Nonsense is no cookie of ours.
    let mut other = Raw::anonymous(&duckling).await;
    let renewed = update_with(&mut other, Some("arrow_flight_session_id=nonsense"), "SELECT 1")
        .await
        .unwrap();
    assert!(renewed.is_some());
}

#[tokio::test]
async fn the_cookie_of_a_session_that_was_lost_is_an_error_once() {
    let duckling = LocalDuckling::start().unwrap();
    let mut raw = Raw::anonymous(&duckling).await;
    let lost = format!("arrow_flight_session_id=s-{}", "0".repeat(32));
    let status = update_with(&mut raw, Some(&lost), "SELECT 1").await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    let expired = status.metadata().get("set-cookie").unwrap().to_str().unwrap();
    assert!(expired.contains("Max-Age=0"), "{expired}");
}

#[tokio::test]
async fn the_first_cookie_is_good_for_as_long_as_a_client_keeps_to_it() {
    let duckling = LocalDuckling::start().unwrap();
    let mut raw = Raw::anonymous(&duckling).await;
    let first = update_with(&mut raw, None, "SELECT 1").await.unwrap().unwrap();
    assert!(first.contains("=n-"), "{first}");
    // The session that it came with is closed; this client does not see the cookie of the next answer.
    let missed = update_with(&mut raw, Some(&first), "CREATE TEMP TABLE t AS SELECT 5::BIGINT AS n").await;
    assert!(missed.unwrap().unwrap().contains("=s-"));
    let mut same = Raw::anonymous(&duckling).await.with("cookie", first.clone());
    assert_eq!(sum(&same.fetch(&statement("FROM t")).await.unwrap()), 5);
    // Requests at once get one session.
    let second = update_with(&mut raw, None, "SELECT 1").await.unwrap().unwrap();
    let seen = futures::future::join_all((0..8).map(async |_| {
        let mut raw = Raw::anonymous(&duckling).await;
        update_with(&mut raw, Some(&second), "SELECT 1").await.unwrap().unwrap()
    }));
    let seen = seen.await;
    assert!(seen.iter().all(|cookie| *cookie == seen[0]), "{seen:?}");
    assert_eq!(session_of(&seen[0]), session_of(&second));
}

/// The first request of ADBC's driver, which is for the server's properties, needs no session. An ingest may follow, of
/// whose answer arrow-go may miss the headers.
#[tokio::test]
async fn any_answer_brings_the_first_cookie() {
    let duckling = LocalDuckling::start().unwrap();
    let mut raw = Raw::anonymous(&duckling).await;
    let request = raw.request(descriptor(&CommandGetSqlInfo::default()));
    let first = cookie(&raw.service().get_flight_info(request).await.unwrap()).unwrap();
    assert!(first.contains("=n-"), "{first}");
    let mut same = Raw::anonymous(&duckling).await.with("cookie", first);
    same.fetch(&statement("CREATE TEMP TABLE t AS SELECT 5::BIGINT AS n"))
        .await
        .unwrap();
    assert_eq!(sum(&same.fetch(&statement("FROM t")).await.unwrap()), 5);
}

#[tokio::test]
async fn a_session_that_is_closed_takes_its_cookie_with_it() {
    let duckling = LocalDuckling::start().unwrap();
    let mut raw = Raw::anonymous(&duckling).await;
    for saw_the_second in [false, true] {
        let first = update_with(&mut raw, None, "SELECT 1").await.unwrap().unwrap();
        let second = update_with(&mut raw, Some(&first), "SELECT 1").await.unwrap().unwrap();
        let sent = if saw_the_second { second } else { first };
        let mut same = Raw::anonymous(&duckling).await.with("cookie", sent);
        let request = same.request(Action::new("CloseSession", Vec::new()));
        let closed = same.service().do_action(request).await.unwrap();
        let cookies: Vec<_> = closed.metadata().get_all("set-cookie").iter().collect();
        assert_eq!(cookies.len(), 1, "{cookies:?}");
        assert!(cookies[0].to_str().unwrap().contains("Max-Age=0"), "{cookies:?}");
    }
}

#[tokio::test]
async fn no_client_chooses_the_id_of_its_session() {
    let duckling = LocalDuckling::start().unwrap();
    let mut raw = Raw::anonymous(&duckling).await;
    let mut seen = vec!["0".repeat(32)];
    for seal in [String::new(), "-".to_owned() + &"0".repeat(32)] {
        let chosen = format!("arrow_flight_session_id=n-{}{seal}", "0".repeat(32));
        for _ in 0..2 {
            let given = update_with(&mut raw, Some(&chosen), "SELECT 1").await.unwrap().unwrap();
            let id = session_of(&given);
            assert!(!seen.contains(&id), "{given}");
            seen.push(id);
        }
    }
}

#[tokio::test]
async fn a_client_without_cookies_goes_by_its_handles() {
    let duckling = LocalDuckling::start().unwrap();
    let mut raw = Raw::anonymous(&duckling).await;
    assert_eq!(sum(&raw.fetch(&statement("SELECT 3::BIGINT")).await.unwrap()), 3);
    raw.fetch(&statement("CREATE TABLE t (n BIGINT)")).await.unwrap();
    let begun: ActionBeginTransactionResult = raw
        .act_wrapped("BeginTransaction", &ActionBeginTransactionRequest {})
        .await
        .unwrap();
    let insert = CommandStatementUpdate {
        query: "INSERT INTO t VALUES (1)".to_owned(),
        transaction_id: Some(begun.transaction_id.clone()),
    };
    raw.put(&insert, None).await.unwrap();
    assert_eq!(
        sum(&raw.fetch(&statement("SELECT count(*)::BIGINT FROM t")).await.unwrap()),
        0
    );
    let mut end = arrow_flight::sql::ActionEndTransactionRequest {
        transaction_id: begun.transaction_id,
        action: 1,
    };
    raw.act("EndTransaction", end.as_any().encode_to_vec()).await.unwrap();
    assert_eq!(
        sum(&raw.fetch(&statement("SELECT count(*)::BIGINT FROM t")).await.unwrap()),
        1
    );
    end.transaction_id = vec![0; 24].into();
    assert_code(
        raw.act("EndTransaction", end.as_any().encode_to_vec()).await,
        Code::Unavailable,
    );
}

#[tokio::test]
async fn sessions_of_clients_without_cookies_do_not_pile_up() {
    let mut config = config();
    config.limits.sessions_max = 4;
    let duckling = LocalDuckling::start_with(config).unwrap();
    let mut raw = Raw::anonymous(&duckling).await;
    for _ in 0..20 {
        raw.fetch(&statement("SELECT 1")).await.unwrap();
        raw.fetch(&CommandGetCatalogs {}).await.unwrap();
        raw.act("GetSessionOptions", Vec::new()).await.unwrap();
    }
    // Those that were never fetched are kept for a while.
    let mut infos = Vec::new();
    for _ in 0..4 {
        infos.push(raw.info(&statement("SELECT 1::BIGINT")).await.unwrap());
    }
    let message = assert_code(raw.info(&statement("SELECT 1")).await, Code::Unavailable);
    assert!(message.contains("open sessions"), "{message}");
    assert_eq!(sum(&raw.get(ticket(&infos[0])).await.unwrap()), 1);
    within(DEADLINE, async {
        while raw.info(&statement("SELECT 1")).await.is_err() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn closing_nothing_is_said() {
    let duckling = LocalDuckling::start().unwrap();
    let mut raw = Raw::anonymous(&duckling).await;
    let bodies = raw.act("CloseSession", Vec::new()).await.unwrap();
    // NOT_CLOSEABLE is 3.
    assert_eq!(bodies[0], [8, 3].as_slice());
}

#[tokio::test]
async fn a_prepared_statement_goes_with_its_session() {
    let (duckling, _client) = start().await;
    let mut raw = Raw::logged_in(&duckling).await;
    let request = ActionCreatePreparedStatementRequest {
        query: "SELECT 1".to_owned(),
        transaction_id: None,
    };
    let created: arrow_flight::sql::ActionCreatePreparedStatementResult =
        raw.act_wrapped("CreatePreparedStatement", &request).await.unwrap();
    raw.act("CloseSession", Vec::new()).await.unwrap();
    let mut anonymous = Raw::anonymous(&duckling).await;
    let command = arrow_flight::sql::CommandPreparedStatementQuery {
        prepared_statement_handle: created.prepared_statement_handle,
    };
    assert_code(anonymous.info(&command).await, Code::Unavailable);
}
