//! How to reach a duckling.

use std::time::Duration;

const CONNECT_TIMEOUT_DEFAULT: Duration = Duration::from_secs(10);
const REQUEST_TIMEOUT_DEFAULT: Duration = Duration::from_secs(30);

/// Where a duckling is, and how long to wait for it.
///
/// ```
/// use std::time::Duration;
/// use duckherder_client::ClientOptions;
///
/// let options = ClientOptions::new("localhost", 8815)
///     .connect_timeout(Duration::from_secs(3))
///     .client_name("nightly-report 1.4");
/// assert_eq!(options.address(), "localhost:8815");
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientOptions {
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) connect_timeout: Duration,
    pub(crate) request_timeout: Duration,
    pub(crate) client_name: String,
    pub(crate) duckdb_version: String,
}

impl ClientOptions {
    /// The duckling on `host` (a name, an IPv4 or an IPv6 address, without brackets) and `port`, with default timeouts.
    pub fn new(host: impl Into<String>, port: u16) -> Self {
        Self {
            host: host.into(),
            port,
            connect_timeout: CONNECT_TIMEOUT_DEFAULT,
            request_timeout: REQUEST_TIMEOUT_DEFAULT,
            client_name: concat!("duckherder-client ", env!("CARGO_PKG_VERSION")).to_owned(),
            duckdb_version: String::new(),
        }
    }

    /// Bounds the whole of [`Client::connect`](crate::Client::connect), repeated attempts included. Default: 10 s.
    #[must_use]
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// Bounds each short request: opening a session, describing, looking up, cancelling. Default: 30 s.
    ///
    /// How long a statement or an ingestion runs is *not* bounded by it: drop the future or the stream to stop one.
    #[must_use]
    pub fn request_timeout(mut self, timeout: Duration) -> Self {
        self.request_timeout = timeout;
        self
    }

    /// Name and version of the program, for the server's log. Default: this crate's.
    #[must_use]
    pub fn client_name(mut self, name: impl Into<String>) -> Self {
        self.client_name = name.into();
        self
    }

    /// The version of the DuckDB in this process, for example `v2.0.0`. Default: empty, for a client without DuckDB.
    #[must_use]
    pub fn duckdb_version(mut self, version: impl Into<String>) -> Self {
        self.duckdb_version = version.into();
        self
    }

    /// `host:port`, with brackets around an IPv6 address, as it appears in error messages.
    #[must_use]
    pub fn address(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ipv6_addresses_get_brackets() {
        assert_eq!(ClientOptions::new("::1", 8815).address(), "[::1]:8815");
        assert_eq!(ClientOptions::new("127.0.0.1", 1).address(), "127.0.0.1:1");
    }
}
