//! Bounds that both ends of the link agree on.

use std::time::Duration;

/// Largest gRPC message either end accepts, in bytes. A record batch is cut far below it; one row can be large.
pub const MESSAGE_BYTES_MAX: usize = 1 << 30;

/// Largest header block either end accepts, in bytes: errors travel in gRPC trailers.
pub const HEADER_BYTES_MAX: u32 = 256 * 1024;

/// Longest error text that is sent, in bytes; the rest is cut. Base64 and two copies must fit in [`HEADER_BYTES_MAX`].
pub const ERROR_TEXT_BYTES_MAX: usize = 16 * 1024;

/// HTTP/2 flow-control window of one stream, in bytes: what an unread result may hold at its receiver.
pub const STREAM_WINDOW_BYTES: u32 = 4 * 1024 * 1024;

/// HTTP/2 flow-control window of one connection, in bytes. Larger than all its streams' together: unread results must not
/// hold up the others on the same connection.
pub const CONNECTION_WINDOW_BYTES: u32 = 1024 * 1024 * 1024;

/// Largest HTTP/2 frame, in bytes: HTTP/2's default of 16 KiB costs a good part of the throughput.
pub const FRAME_BYTES_MAX: u32 = 1024 * 1024;

/// How often an idle connection is probed.
pub const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(20);

/// How long a probe may go unanswered before the connection counts as lost.
pub const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(20);

/// Streams that may read one result, the first one included.
pub const RESULT_STREAMS_MAX: u32 = 16;
