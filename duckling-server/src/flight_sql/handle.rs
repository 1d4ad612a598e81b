//! What clients name things by.

use bytes::Bytes;
use duckherder_proto::{ExceptionType, RemoteError};

/// Bytes of a handle: the session's number, and what nobody can guess.
const HANDLE_BYTES: usize = 24;

/// What a client names things by. It is no key to the session: what somebody else may do with it is what it names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Handle {
    /// Which session it belongs to.
    pub session: u64,
    secret: [u8; 16],
}

impl Handle {
    /// A new one for something of a session's.
    pub fn new(session: u64) -> Self {
        Self {
            session,
            secret: *uuid::Uuid::new_v4().as_bytes(),
        }
    }

    /// What a client has sent.
    ///
    /// # Errors
    /// `Invalid Input`, if it is no handle of ours.
    pub fn decode(bytes: &[u8]) -> Result<Self, RemoteError> {
        let (session, secret) = bytes.split_first_chunk::<8>().ok_or_else(malformed)?;
        Ok(Self {
            session: u64::from_be_bytes(*session),
            secret: secret.try_into().map_err(|_| malformed())?,
        })
    }

    /// What a client has sent for an endpoint of a result: the handle, and the endpoint's number behind it unless that
    /// is zero.
    ///
    /// # Errors
    /// `Invalid Input`, if it is nothing of ours.
    pub fn decode_endpoint(bytes: &[u8]) -> Result<(Self, u8), RemoteError> {
        let (handle, endpoint) = bytes.split_at_checked(HANDLE_BYTES).ok_or_else(malformed)?;
        match endpoint {
            [] => Ok((Self::decode(handle)?, 0)),
            [endpoint] if *endpoint > 0 => Ok((Self::decode(handle)?, *endpoint)),
            _ => Err(malformed()),
        }
    }

    /// What clients get for an endpoint of a result.
    pub fn encode_endpoint(self, endpoint: u8) -> Bytes {
        let mut bytes = self.encode().to_vec();
        bytes.extend((endpoint > 0).then_some(endpoint));
        bytes.into()
    }

    /// What clients get.
    pub fn encode(self) -> Bytes {
        let mut bytes = Vec::with_capacity(HANDLE_BYTES);
        bytes.extend_from_slice(&self.session.to_be_bytes());
        bytes.extend_from_slice(&self.secret);
        bytes.into()
    }
}

/// It is no handle of ours.
pub fn malformed() -> RemoteError {
    RemoteError::new(ExceptionType::InvalidInput, "this is no handle of this server's")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_told_apart() {
        let handle = Handle::new(7);
        assert_eq!(Handle::decode(&handle.encode()).unwrap(), handle);
        for endpoint in [0, 1, 255] {
            let encoded = handle.encode_endpoint(endpoint);
            assert_eq!(Handle::decode_endpoint(&encoded).unwrap(), (handle, endpoint));
        }
        assert_eq!(handle.encode_endpoint(0), handle.encode());
        let bytes = |last: &[u8]| [&handle.encode(), last].concat();
        for malformed in [bytes(&[0]), bytes(&[1, 1]), bytes(&[])[..23].to_vec(), Vec::new()] {
            assert!(Handle::decode_endpoint(&malformed).is_err(), "{malformed:?}");
        }
        assert!(Handle::decode(&bytes(&[1])).is_err());
    }
}
