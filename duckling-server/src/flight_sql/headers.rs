//! What a request's headers say of its sender, before anybody looks whether it is true.

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use tonic::Status;
use tonic::metadata::{Ascii, MetadataMap, MetadataValue};

use super::cookie::{COOKIE, Cookie};

pub const AUTHORIZATION: &str = "authorization";

/// Where clients put a token that came out of a handshake without an `authorization` header.
const LEGACY_TOKEN: &str = "auth-token-bin";

/// Padded and unpadded: clients send both.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Bytes of a user name and password.
pub const BASIC_BYTES_MAX: usize = 8 * 1024;

/// What the headers name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presented {
    /// A bearer token, of this session if it is one of ours.
    Bearer(Option<[u8; 16]>),
    Cookie(Cookie),
    /// No session, but a name and a password: nobody checks them yet.
    Basic,
    Nothing,
}

impl Presented {
    /// Reads a request's headers.
    ///
    /// # Errors
    /// `UNAUTHENTICATED` for an authorization that is malformed, or of no kind that is known.
    pub fn read(headers: &MetadataMap) -> Result<Self, Status> {
        if let Some(header) = headers.get(AUTHORIZATION) {
            return match Authorization::read(header)? {
                Authorization::Bearer(session) => Ok(Self::Bearer(session)),
                Authorization::Basic => Ok(cookie(headers).unwrap_or(Self::Basic)),
            };
        }
        if let Some(header) = headers.get_bin(LEGACY_TOKEN) {
            let malformed = || unauthenticated("the token is malformed");
            let bytes = header.to_bytes().map_err(|_| malformed())?;
            let token = std::str::from_utf8(&bytes).map_err(|_| malformed())?;
            return Ok(Self::Bearer(session_id(token)));
        }
        Ok(cookie(headers).unwrap_or(Self::Nothing))
    }
}

fn cookie(headers: &MetadataMap) -> Option<Presented> {
    let (_, value) = headers
        .get_all("cookie")
        .iter()
        .filter_map(|header| header.to_str().ok())
        .flat_map(|header| header.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .find(|(name, _)| *name == COOKIE)?;
    Cookie::read(value).map(Presented::Cookie)
}

/// What an `authorization` header holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Authorization {
    /// A name and a password: which ones, nobody asks yet.
    Basic,
    /// A token, of this session if it is one of ours.
    Bearer(Option<[u8; 16]>),
}

impl Authorization {
    /// # Errors
    /// `UNAUTHENTICATED`, if it is malformed or of no kind that is known.
    pub fn read(header: &MetadataValue<Ascii>) -> Result<Self, Status> {
        let (scheme, value) = header
            .to_str()
            .ok()
            .and_then(|header| header.trim().split_once(' '))
            .map(|(scheme, value)| (scheme, value.trim()))
            .ok_or_else(|| unauthenticated("the authorization header is malformed"))?;
        if scheme.eq_ignore_ascii_case("bearer") {
            return Ok(Self::Bearer(session_id(value)));
        }
        if !scheme.eq_ignore_ascii_case("basic") {
            return Err(unauthenticated("only Basic and Bearer authorization are supported"));
        }
        check_basic(value).map(|()| Self::Basic)
    }
}

fn check_basic(value: &str) -> Result<(), Status> {
    let malformed = || unauthenticated("the Basic authorization is malformed");
    if value.len() > BASIC_BYTES_MAX {
        return Err(malformed());
    }
    let decoded = BASE64.decode(value).map_err(|_| malformed())?;
    let text = String::from_utf8(decoded).map_err(|_| malformed())?;
    text.split_once(':').map(|_| ()).ok_or_else(malformed)
}

pub fn session_id(token: &str) -> Option<[u8; 16]> {
    uuid::Uuid::try_parse(token).ok().map(|uuid| *uuid.as_bytes())
}

pub fn unauthenticated(message: &str) -> Status {
    Status::unauthenticated(message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn basic(scheme: &str, value: &str) -> Result<Authorization, Status> {
        Authorization::read(&format!("{scheme} {value}").parse().unwrap())
    }

    #[test]
    fn basic_is_taken_padded_and_unpadded() {
        for (scheme, value) in [("Basic", "dTpw"), ("basic", "dXM6cA=="), ("BASIC", "dXM6cA")] {
            assert_eq!(basic(scheme, value).unwrap(), Authorization::Basic);
        }
        for (scheme, value) in [
            ("Basic", "dXM"),
            ("Basic", "!!"),
            ("Digest", "dTpw"),
            ("Basic", "/////w=="),
        ] {
            assert_eq!(basic(scheme, value).unwrap_err().code(), tonic::Code::Unauthenticated);
        }
    }

    #[test]
    fn a_login_may_come_with_a_cookie() {
        let session = std::array::from_fn(|index| index as u8 + 1);
        let mut headers = MetadataMap::new();
        headers.insert(AUTHORIZATION, "Basic dTpw".parse().unwrap());
        assert_eq!(Presented::read(&headers).unwrap(), Presented::Basic);
        for cookie in [Cookie::Session(session), Cookie::New { session, seal: 7 }] {
            headers.insert("cookie", format!("a=b; {}", cookie.header()).parse().unwrap());
            assert_eq!(Presented::read(&headers).unwrap(), Presented::Cookie(cookie));
        }
    }
}
