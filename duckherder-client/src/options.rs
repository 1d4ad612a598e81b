//! How to reach a duckling.

use std::str::FromStr;
use std::time::Duration;

use duckherder_proto::limits;
use duckherder_proto::v1::Compression;

/// The port of a duckling that was told no other.
const PORT_DEFAULT: u16 = 8815;

/// Bytes of a host's name; DNS has 253.
const HOST_BYTES_MAX: usize = 255;

const STREAMS_DEFAULT: u32 = 4;

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
    pub(crate) compression: Compression,
    pub(crate) streams: u32,
    pub(crate) asks_workers: bool,
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
            compression: Compression::None,
            streams: STREAMS_DEFAULT,
            asks_workers: true,
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

    /// How rows are compressed on the wire, in both directions, if the duckling can. Default: not at all, which is the
    /// fastest within a machine or a fast network.
    #[must_use]
    pub fn compression(mut self, compression: Compression) -> Self {
        self.compression = compression;
        self
    }

    /// How many streams may read a large result, each over a connection of its own; 16 at most. Default: 4.
    ///
    /// One connection is about one core's work at either end, and on a network no faster than a window a round trip. The rows
    /// come in the result's order all the same, and small results come in one stream. The further connections are shared by all
    /// sessions of a client.
    #[must_use]
    pub fn streams(mut self, streams: u32) -> Self {
        self.streams = streams.clamp(1, limits::RESULT_STREAMS_MAX);
        self
    }

    /// Whether look-ups by partition key in a herd's tables go to the worker that has their rows, and not by way of the coordinator.
    /// They still do where the worker cannot be reached from here. Default: yes.
    #[must_use]
    pub fn ask_workers(mut self, ask: bool) -> Self {
        self.asks_workers = ask;
        self
    }

    /// The same for a worker of the duckling's herd, at `host:port`. `None` if that is no address.
    pub(crate) fn of_worker(&self, address: &str) -> Option<Self> {
        let Self { host, port, .. } = address.parse().ok()?;
        Some(Self {
            host,
            port,
            asks_workers: false,
            ..self.clone()
        })
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

/// Why a text is no address of a duckling.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{text}' is no HOST:PORT")]
pub struct AddressError {
    text: String,
}

/// `host:port`, `host`, `[::1]:port` or `::1`, with `grpc://` or `grpc+tcp://` in front or not.
impl FromStr for ClientOptions {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let wrong = || AddressError {
            text: text.chars().take(HOST_BYTES_MAX).collect(),
        };
        let address = ["grpc://", "grpc+tcp://"]
            .into_iter()
            .find_map(|scheme| text.strip_prefix(scheme))
            .unwrap_or(text);
        let (host, port) = match address.strip_prefix('[') {
            Some(rest) => {
                let (host, rest) = rest.split_once(']').ok_or_else(wrong)?;
                (host, (!rest.is_empty()).then(|| rest.strip_prefix(':').unwrap_or("")))
            }
            None if address.matches(':').count() > 1 => (address, None),
            None => address
                .split_once(':')
                .map_or((address, None), |(host, port)| (host, Some(port))),
        };
        let port = port.map_or(Ok(PORT_DEFAULT), str::parse).map_err(|_| wrong())?;
        if host.is_empty() || host.len() > HOST_BYTES_MAX {
            return Err(wrong());
        }
        Ok(Self::new(host, port))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_hosts_and_ports() {
        let of = |text: &str| text.parse::<ClientOptions>().map(|options| options.address()).ok();
        let is = |address: &str| Some(address.to_owned());
        assert_eq!(of("duck.example:9"), is("duck.example:9"));
        assert_eq!(of("duck.example"), is("duck.example:8815"));
        assert_eq!(of("[::1]:9"), is("[::1]:9"));
        assert_eq!(of("::1"), is("[::1]:8815"));
        assert_eq!(of("grpc://localhost:50051"), is("localhost:50051"));
        assert_eq!(of("grpc+tcp://[::1]"), is("[::1]:8815"));
        for wrong in [
            "",
            ":9",
            "a:b",
            "a:99999",
            "[::1",
            "[::1]9",
            "grpc://",
            &"x".repeat(300),
        ] {
            assert_eq!(of(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_result_has_one_stream_at_least() {
        let streams = |count| ClientOptions::new("h", 1).streams(count).streams;
        assert_eq!((streams(0), streams(4), streams(1000)), (1, 4, 16));
    }

    #[test]
    fn ipv6_addresses_get_brackets() {
        assert_eq!(ClientOptions::new("::1", 8815).address(), "[::1]:8815");
        assert_eq!(ClientOptions::new("127.0.0.1", 1).address(), "127.0.0.1:1");
    }
}
