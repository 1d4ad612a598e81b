//! The cookie that names a client's session.
//!
//! Its first letter says whether the session holds anything. `n`, for new, is given out with the first answer, whatever
//! was asked, and promises nothing: the session may be closed by now or was never open, but opens under this id. So the
//! client does not need the next cookie, which some lose: arrow-go's middleware may miss the headers of an answer that
//! streams, such as that of an ingest; its first request, for the server's properties, is none that streams. `s` names a
//! session that the client would miss.

use siphasher::sip128::SipHasher24;

use super::headers::session_id;

/// The name that other Flight servers use too.
pub const COOKIE: &str = "arrow_flight_session_id";

/// What a cookie says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cookie {
    /// `n-<id>-<seal>`: the client was not told yet that the session would be kept.
    New { session: [u8; 16], seal: u128 },
    /// `s-<id>`.
    Session([u8; 16]),
}

impl Cookie {
    /// Reads the value of a cookie; `None`, if it is not one of ours.
    pub fn read(value: &str) -> Option<Self> {
        let (kind, token) = value.trim_matches('"').split_once('-')?;
        match kind {
            "n" => {
                let (token, seal) = token.split_once('-')?;
                Some(Self::New {
                    session: session_id(token)?,
                    seal: u128::from_str_radix(seal, 16).ok()?,
                })
            }
            "s" => session_id(token).map(Self::Session),
            _ => None,
        }
    }

    /// The value of the header `set-cookie`.
    pub fn header(&self) -> String {
        let hex = |id: &[u8; 16]| uuid::Uuid::from_bytes(*id).simple();
        match self {
            Self::New { session, seal } => format!("{COOKIE}=n-{}-{seal:032x}; Path=/; HttpOnly", hex(session)),
            Self::Session(session) => format!("{COOKIE}=s-{}; Path=/; HttpOnly", hex(session)),
        }
    }
}

/// Tells the ids that this server has given out, so that no session opens under an id of a client's choosing.
///
/// A message authentication code of the id, SipHash-2-4 with 128 bits, under a key that ends with the server.
pub struct CookieSeal {
    key: [u8; 16],
}

impl CookieSeal {
    pub fn new() -> Self {
        Self {
            key: *uuid::Uuid::new_v4().as_bytes(),
        }
    }

    pub fn of(&self, session: &[u8; 16]) -> u128 {
        SipHasher24::new_with_key(&self.key).hash(session).as_u128()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(cookie: Cookie) -> String {
        let header = cookie.header();
        let value = header.strip_prefix("arrow_flight_session_id=").unwrap();
        value.split(';').next().unwrap().to_owned()
    }

    #[test]
    fn a_cookie_reads_as_it_was_written() {
        let session = *uuid::Uuid::new_v4().as_bytes();
        for cookie in [
            Cookie::Session(session),
            Cookie::New { session, seal: 1 },
            Cookie::New {
                session,
                seal: u128::MAX,
            },
        ] {
            assert_eq!(Cookie::read(&value(cookie)), Some(cookie));
            assert_eq!(Cookie::read(&format!("\"{}\"", value(cookie))), Some(cookie));
        }
        for other in ["", "n", "n-", "s-", "n-1-2", "x-y", &format!("n-{}", "0".repeat(32))] {
            assert_eq!(Cookie::read(other), None, "{other}");
        }
    }

    #[test]
    fn another_server_seals_otherwise() {
        let (one, other) = (CookieSeal::new(), CookieSeal::new());
        assert_eq!(one.of(&[1; 16]), one.of(&[1; 16]));
        assert_ne!(one.of(&[1; 16]), one.of(&[2; 16]));
        assert_ne!(one.of(&[1; 16]), other.of(&[1; 16]));
    }
}
