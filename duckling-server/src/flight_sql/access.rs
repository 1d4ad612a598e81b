//! Who asks, and which session that means.
//!
//! A client is recognized by a bearer token, which it got from a handshake, or by a cookie, which it got with its first
//! answer. One that sends neither is served too: what it names by handle (a ticket, a prepared statement, a
//! transaction) says which session is meant, and everything else gets a session that is closed as soon as it holds
//! nothing.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use duckherder_proto::v1::Compression;
use duckherder_proto::{ExceptionType, RemoteError};
use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::{Response, Status};

use super::cookie::{COOKIE, Cookie};
use super::handle::Handle;
use super::headers::{AUTHORIZATION, Authorization, BASIC_BYTES_MAX, Presented, unauthenticated};
use crate::running::blocking;
use crate::session::{Session, SessionId, Sessions};
use crate::settings::Settings;

/// The library beneath clients of which one, of LanceDB, takes no result that has more than one endpoint.
const ONE_ENDPOINT: &str = "grpc-node-js";

const SET_COOKIE: &str = "set-cookie";

/// What a request says about its sender.
enum Credentials {
    /// A name and a password: nobody checks them yet.
    Basic,
    Bearer(Arc<Session>),
    /// `fresh`, if the client does not know yet that the session will be kept.
    Cookie {
        session: Arc<Session>,
        fresh: bool,
    },
    /// The cookie of a session that held nothing and was closed, with its id, if this server has given it out.
    FreshCookie(Option<SessionId>),
    None,
}

/// The sender of one request.
pub struct Caller {
    sessions: Arc<Sessions>,
    credentials: Credentials,
    pub address: Option<SocketAddr>,
    /// It may not know what to do with a result of several endpoints.
    pub wants_one_endpoint: bool,
    /// The session that the request uses, if none is told by its credentials.
    visited: Mutex<Option<Visit>>,
}

impl Caller {
    /// Looks at a request's headers.
    ///
    /// # Errors
    /// `UNAUTHENTICATED` for a token that is not known or a header that is malformed; `UNAVAILABLE` for the cookie of a
    /// session that is not open any more.
    pub fn of(sessions: &Arc<Sessions>, headers: &MetadataMap, address: Option<SocketAddr>) -> Result<Self, Status> {
        Ok(Self {
            sessions: Arc::clone(sessions),
            credentials: credentials(sessions, headers)?,
            address,
            wants_one_endpoint: headers
                .get("user-agent")
                .and_then(|agent| agent.to_str().ok())
                .is_some_and(|agent| agent.contains(ONE_ENDPOINT)),
            visited: Mutex::default(),
        })
    }

    /// The session that the credentials name.
    pub fn known(&self) -> Option<&Arc<Session>> {
        match &self.credentials {
            Credentials::Bearer(session) | Credentials::Cookie { session, .. } => Some(session),
            Credentials::Basic | Credentials::FreshCookie(_) | Credentials::None => None,
        }
    }

    /// The session that the request means, opened if there is none yet.
    ///
    /// # Errors
    /// There are too many.
    pub async fn session(&self) -> Result<Arc<Session>, RemoteError> {
        if let Some(session) = self.known() {
            return Ok(Arc::clone(session));
        }
        if let Some(visit) = &*self.lock() {
            return Ok(Arc::clone(&visit.session));
        }
        let sessions = Arc::clone(&self.sessions);
        let known = match self.credentials {
            Credentials::FreshCookie(session) => session,
            _ => None,
        };
        let session = blocking(move || match known {
            Some(id) => sessions.open_as(id, default_settings(), Compression::None),
            None => sessions.open(default_settings(), Compression::None),
        })
        .await?;
        session.touch();
        if !matches!(self.credentials, Credentials::FreshCookie(_)) {
            // Whether anybody comes back for it is not known.
            session.set_unconfirmed();
        }
        self.visit(&session);
        Ok(session)
    }

    /// The session that a handle belongs to.
    ///
    /// # Errors
    /// It is closed, or another one than the credentials name.
    pub fn owner_of(&self, handle: Handle) -> Result<Arc<Session>, RemoteError> {
        if let Some(session) = self.known() {
            if session.number == handle.session {
                return Ok(Arc::clone(session));
            }
            return Err(RemoteError::new(
                ExceptionType::Permission,
                "this handle belongs to another session",
            ));
        }
        let session = self.sessions.by_number(handle.session)?;
        self.visit(&session);
        Ok(session)
    }

    fn visit(&self, session: &Arc<Session>) {
        self.lock().get_or_insert_with(|| Visit {
            sessions: Arc::clone(&self.sessions),
            session: Arc::clone(session),
        });
    }

    /// Keeps the session open for as long as an answer streams.
    pub fn take_visit(&self) -> Option<Visit> {
        self.lock().take()
    }

    /// The answer, with the cookie that the client is to send from now on, unless it says already what to do with that.
    pub fn answer<T>(&self, mut response: Response<T>) -> Response<T> {
        if !response.metadata().contains_key(SET_COOKIE)
            && let Some(cookie) = self.cookie()
        {
            set_cookie(response.metadata_mut(), &cookie.header());
        }
        response
    }

    fn cookie(&self) -> Option<Cookie> {
        match &self.credentials {
            Credentials::Bearer(_) | Credentials::Cookie { fresh: false, .. } => None,
            Credentials::Cookie { session, fresh: true } => Some(Cookie::Session(session.id)),
            Credentials::FreshCookie(_) => self.lock().as_ref().map(|visit| Cookie::Session(visit.session.id)),
            Credentials::Basic | Credentials::None => Some(match &*self.lock() {
                Some(visit) if visit.session.holds_something() => Cookie::Session(visit.session.id),
                Some(visit) => self.first_cookie(visit.session.id),
                // Of a session that is not open yet.
                None => self.first_cookie(*uuid::Uuid::new_v4().as_bytes()),
            }),
        }
    }

    fn first_cookie(&self, session: SessionId) -> Cookie {
        let seal = self.sessions.cookie_seal().of(&session);
        Cookie::New { session, seal }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Visit>> {
        self.visited.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The use of a session that nobody may come back for. Dropped, it closes the session if that holds nothing.
pub struct Visit {
    sessions: Arc<Sessions>,
    session: Arc<Session>,
}

impl Drop for Visit {
    fn drop(&mut self) {
        self.sessions.close_unclaimed(&self.session);
    }
}

/// Settings that sessions of Flight SQL clients begin with: what a client gets must not depend on the server's place.
fn default_settings() -> Settings {
    Settings::from([("TimeZone".to_owned(), "UTC".to_owned())])
}

/// Adds a cookie to an answer's headers.
fn set_cookie(headers: &mut MetadataMap, cookie: &str) {
    if let Ok(value) = MetadataValue::try_from(cookie) {
        headers.append(SET_COOKIE, value);
    }
}

/// Has the client forget its cookie.
pub fn expire_cookie(headers: &mut MetadataMap) {
    set_cookie(headers, &format!("{COOKIE}=; Path=/; Max-Age=0"));
}

fn token(session: &Session) -> String {
    uuid::Uuid::from_bytes(session.id).simple().to_string()
}

fn credentials(sessions: &Sessions, headers: &MetadataMap) -> Result<Credentials, Status> {
    match Presented::read(headers)? {
        Presented::Bearer(session) => bearer(sessions, session).map(Credentials::Bearer),
        Presented::Cookie(Cookie::New { session: id, seal }) => Ok(match sessions.claim(&id) {
            Ok(session) => Credentials::Cookie { session, fresh: true },
            // It promised nothing.
            Err(_) => Credentials::FreshCookie((sessions.cookie_seal().of(&id) == seal).then_some(id)),
        }),
        Presented::Cookie(Cookie::Session(id)) => match sessions.claim(&id) {
            Ok(session) => Ok(Credentials::Cookie { session, fresh: false }),
            Err(error) => {
                let mut status = Status::from(error);
                expire_cookie(status.metadata_mut());
                Err(status)
            }
        },
        Presented::Basic => Ok(Credentials::Basic),
        Presented::Nothing => Ok(Credentials::None),
    }
}

fn bearer(sessions: &Sessions, session: Option<SessionId>) -> Result<Arc<Session>, Status> {
    session
        .and_then(|id| sessions.get(&id).ok())
        .ok_or_else(|| unauthenticated("this bearer token is not known, or its session has ended: log in again"))
}

/// Answers a handshake: the bearer token of a new session for a name and a password, or that of the header.
///
/// # Errors
/// `UNAUTHENTICATED`.
pub async fn handshake(
    sessions: &Arc<Sessions>,
    headers: &MetadataMap,
    payload: impl Future<Output = Result<bytes::Bytes, Status>>,
) -> Result<String, Status> {
    let log_in = || {
        let sessions = Arc::clone(sessions);
        blocking(move || sessions.open(default_settings(), Compression::None))
    };
    if let Some(header) = headers.get(AUTHORIZATION) {
        return match Authorization::read(header)? {
            Authorization::Bearer(session) => bearer(sessions, session).map(|session| token(&session)),
            Authorization::Basic => Ok(token(&*log_in().await?)),
        };
    }
    let payload = payload.await?;
    let basic = <arrow_flight::BasicAuth as duckherder_proto::Message>::decode(&*payload).ok();
    match basic {
        Some(basic) if !basic.username.is_empty() && payload.len() <= BASIC_BYTES_MAX => Ok(token(&*log_in().await?)),
        _ => Err(unauthenticated("a handshake needs Basic or Bearer authorization")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{IN_MEMORY, Limits};
    use crate::duckdb::{Database, DatabaseOptions};
    use crate::herd::{Herd, Registry};
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn hostile_headers_never_panic(
            name in prop::sample::select(vec![AUTHORIZATION, "cookie"]),
            value in "((Basic|Bearer|arrow_flight_session_id=([ns]-([0-9a-f]{32}-?)?)?) ?)?[ -~]{0,80}",
        ) {
            // One database for all cases: opening it is what takes time.
            static SESSIONS: std::sync::LazyLock<Arc<Sessions>> = std::sync::LazyLock::new(|| {
                let database = Database::open(IN_MEMORY, &DatabaseOptions::default()).unwrap();
                let limits = Arc::new(Limits::default());
                let registry = Registry::open(database.clone(), false, Arc::clone(&limits)).unwrap();
                let herd = Herd::new(Arc::new(registry), std::env::temp_dir());
                Arc::new(Sessions::new(database, limits, herd))
            });
            let mut headers = MetadataMap::new();
            headers.insert(name, value.parse().unwrap());
            if let Ok(caller) = Caller::of(&SESSIONS, &headers, None) {
                prop_assert!(caller.known().is_none());
            }
        }
    }
}
