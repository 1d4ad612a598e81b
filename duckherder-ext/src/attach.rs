//! The options of `ATTACH … (TYPE duckherder, …)`.

use std::time::Duration;

use duckherder_client::ClientOptions;
use duckherder_proto::limits::RESULT_STREAMS_MAX;
use duckherder_proto::v1::Compression;

use crate::error::{Result, invalid_input};

/// The options there are, for the error message.
const KNOWN: &str = "server_host, server_port, connect_timeout_ms, compression, streams, ask_workers";

/// Where a duckling is, as the user says it.
#[derive(Debug, PartialEq, Eq)]
pub struct AttachOptions {
    /// Host name or address.
    pub server_host: String,
    /// TCP port.
    pub server_port: u16,
    /// How long to try to connect.
    pub connect_timeout: Duration,
    /// How rows are compressed on the wire.
    pub compression: Compression,
    /// Over how many connections a large result comes; `None` leaves it to the client.
    pub streams: Option<u32>,
    /// Whether look-ups in a herd's tables may go to the workers themselves.
    pub ask_workers: bool,
}

impl AttachOptions {
    /// From the `(name, value)` pairs after ATTACH, values as text. Names ignore case.
    ///
    /// # Errors
    /// An unknown name (the message lists the known ones), a missing one, a value that does not fit.
    pub fn parse(options: &[(&str, &str)]) -> Result<Self> {
        let mut server_host = None;
        let mut server_port = None;
        let mut connect_timeout = Duration::from_secs(10);
        let mut compression = Compression::None;
        let mut streams = None;
        let mut ask_workers = true;
        for (name, value) in options {
            match name.to_ascii_lowercase().as_str() {
                "server_host" => server_host = Some((*value).to_owned()),
                "server_port" => server_port = Some(parse_port(value)?),
                "connect_timeout_ms" => connect_timeout = parse_timeout(value)?,
                "compression" => compression = parse_compression(value)?,
                "streams" => streams = Some(parse_streams(value)?),
                "ask_workers" => ask_workers = parse_flag("ask_workers", value)?,
                _ => {
                    return Err(invalid_input(format!(
                        "unknown option '{name}' for ATTACH (TYPE duckherder); known are {KNOWN}"
                    )));
                }
            }
        }
        let missing = |name| {
            invalid_input(format!(
                "ATTACH (TYPE duckherder) needs the option {name}, as in: ATTACH 'dh' (TYPE duckherder, server_host 'localhost', server_port 8815)"
            ))
        };
        Ok(Self {
            server_host: server_host
                .filter(|host| !host.trim().is_empty())
                .ok_or_else(|| missing("server_host"))?,
            server_port: server_port.ok_or_else(|| missing("server_port"))?,
            connect_timeout,
            compression,
            streams,
            ask_workers,
        })
    }

    /// As the client takes them.
    pub fn client_options(&self, duckdb_version: &str) -> ClientOptions {
        let options = ClientOptions::new(self.server_host.clone(), self.server_port)
            .connect_timeout(self.connect_timeout)
            .client_name(concat!("duckherder-ext ", env!("CARGO_PKG_VERSION")))
            .duckdb_version(duckdb_version)
            .compression(self.compression)
            .ask_workers(self.ask_workers);
        match self.streams {
            Some(streams) => options.streams(streams),
            None => options,
        }
    }
}

fn parse_port(value: &str) -> Result<u16> {
    value
        .parse::<u16>()
        .ok()
        .filter(|port| *port > 0)
        .ok_or_else(|| invalid_input(format!("server_port must be a number from 1 to 65535, not '{value}'")))
}

fn parse_timeout(value: &str) -> Result<Duration> {
    value
        .parse::<u64>()
        .ok()
        .filter(|milliseconds| (1..=3_600_000).contains(milliseconds))
        .map(Duration::from_millis)
        .ok_or_else(|| {
            invalid_input(format!(
                "connect_timeout_ms must be a number from 1 to 3600000, not '{value}'"
            ))
        })
}

fn parse_compression(value: &str) -> Result<Compression> {
    value
        .parse()
        .map_err(|_| invalid_input(format!("compression must be 'none', 'lz4' or 'zstd', not '{value}'")))
}

fn parse_streams(value: &str) -> Result<u32> {
    value
        .parse()
        .ok()
        .filter(|streams| (1..=RESULT_STREAMS_MAX).contains(streams))
        .ok_or_else(|| {
            invalid_input(format!(
                "streams must be a number from 1 to {RESULT_STREAMS_MAX}, not '{value}'"
            ))
        })
}

fn parse_flag(name: &str, value: &str) -> Result<bool> {
    match value.to_ascii_lowercase().as_str() {
        "true" | "1" => Ok(true),
        "false" | "0" => Ok(false),
        _ => Err(invalid_input(format!("{name} must be true or false, not '{value}'"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_and_port_are_enough() {
        let options = AttachOptions::parse(&[("SERVER_HOST", "h"), ("server_port", "8815")]).unwrap();
        assert_eq!((options.server_host.as_str(), options.server_port), ("h", 8815));
        assert!(options.ask_workers);
        let options = AttachOptions::parse(&[("server_host", "h"), ("server_port", "1"), ("ask_workers", "False")]);
        assert!(!options.unwrap().ask_workers);
    }

    #[test]
    fn mistakes_say_what_to_do() {
        let message = |options: &[(&str, &str)]| AttachOptions::parse(options).unwrap_err().message;
        assert!(message(&[("server_prot", "1")]).contains("known are server_host, server_port"));
        assert!(message(&[("server_host", "h")]).contains("needs the option server_port"));
        assert!(message(&[("server_host", "h"), ("server_port", "70000")]).contains("1 to 65535"));
        let compression = [("server_host", "h"), ("server_port", "1"), ("compression", "gzip")];
        assert!(message(&compression).contains("'none', 'lz4' or 'zstd'"));
        let streams = [("server_host", "h"), ("server_port", "1"), ("streams", "17")];
        assert!(message(&streams).contains("from 1 to 16"));
        let ask_workers = [("server_host", "h"), ("server_port", "1"), ("ask_workers", "maybe")];
        assert!(message(&ask_workers).contains("true or false"));
        assert!(message(&[("server_host", " "), ("server_port", "1")]).contains("needs the option server_host"));
    }
}
