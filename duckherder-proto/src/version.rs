//! The version handshake.

use crate::error::{ExceptionType, RemoteError};
use crate::v1::HelloRequest;

/// The newest protocol version this crate speaks.
pub const PROTOCOL_VERSION: u32 = 1;

/// The oldest protocol version this crate speaks.
pub const PROTOCOL_VERSION_MIN: u32 = 1;

/// The server's choice: the newest version that both sides speak.
///
/// # Errors
/// A `Connection` error that names both ranges and says which side to upgrade, if the ranges do not meet.
pub fn negotiate(request: &HelloRequest) -> Result<u32, RemoteError> {
    let (client_min, client_max) = (request.protocol_version_min, request.protocol_version_max);
    let version = client_max.min(PROTOCOL_VERSION);
    if client_min <= client_max && version >= client_min && version >= PROTOCOL_VERSION_MIN {
        return Ok(version);
    }
    let older = if client_max < PROTOCOL_VERSION_MIN {
        "client"
    } else {
        "server"
    };
    Err(RemoteError::new(
        ExceptionType::Connection,
        format!(
            "protocol versions do not match: the client speaks {client_min} to {client_max}, this duckling speaks \
             {PROTOCOL_VERSION_MIN} to {PROTOCOL_VERSION}; upgrade the {older}"
        ),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hello(min: u32, max: u32) -> HelloRequest {
        HelloRequest {
            protocol_version_min: min,
            protocol_version_max: max,
            ..Default::default()
        }
    }

    #[test]
    fn newest_common_version_wins() {
        assert_eq!(negotiate(&hello(1, 1)).unwrap(), 1);
        assert_eq!(negotiate(&hello(1, 9)).unwrap(), 1);
    }

    #[test]
    fn no_common_version_names_the_side_to_upgrade() {
        assert!(
            negotiate(&hello(7, 9))
                .unwrap_err()
                .message
                .contains("upgrade the server")
        );
        assert!(
            negotiate(&hello(0, 0))
                .unwrap_err()
                .message
                .contains("upgrade the client")
        );
        assert!(negotiate(&hello(9, 1)).is_err());
    }
}
