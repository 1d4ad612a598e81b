//! Connections as they come in. A client that connects and says nothing, or cannot be heard any more, must not keep its
//! place for ever: until HTTP/2 has begun, and its pings with it, a deadline does that here.

use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use futures::{Stream, stream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Sleep;
use tonic::transport::server::{Connected, TcpConnectInfo};
use tracing::warn;

use crate::frames::{FrameCutter, Opening};

/// How long a client may take to say the first that HTTP/2 has it say.
const OPENING_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a connection that the server ends stays half open.
const LINGER_TIMEOUT: Duration = Duration::from_millis(500);

/// How long nobody is accepted after an error: of too many open files, for one, which does not go away by trying again.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The connections of a listener, up to so many at a time; more wait in the listener's queue.
pub fn incoming(listener: TcpListener, connections_max: usize) -> impl Stream<Item = io::Result<Connection>> {
    let places = Arc::new(Semaphore::new(connections_max));
    stream::unfold((listener, places), |(listener, places)| async {
        // Nobody closes the semaphore.
        let place = Arc::clone(&places).acquire_owned().await.ok()?;
        loop {
            match listener.accept().await {
                Ok((stream, _)) => {
                    let connection = Connection::new(stream, place, OPENING_TIMEOUT);
                    return Some((Ok(connection), (listener, places)));
                }
                Err(error) => {
                    warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    })
}

/// A client's connection.
pub struct Connection {
    stream: TcpStream,
    /// Until HTTP/2 has begun: what the client has said, and its deadline.
    opening: Option<(Opening, Pin<Box<Sleep>>)>,
    /// Then: the part of it that is still to be read here.
    opened: Bytes,
    cutter: FrameCutter,
    /// Since the server has ended it.
    linger: Option<Pin<Box<Sleep>>>,
    _place: OwnedSemaphorePermit,
}

impl Connection {
    fn new(stream: TcpStream, place: OwnedSemaphorePermit, opening_timeout: Duration) -> Self {
        // Small answers must not wait for larger ones; a socket that refuses still works.
        let _ = stream.set_nodelay(true);
        Self {
            stream,
            opening: Some((Opening::default(), Box::pin(tokio::time::sleep(opening_timeout)))),
            opened: Bytes::new(),
            cutter: FrameCutter::default(),
            linger: None,
            _place: place,
        }
    }
}

impl Connected for Connection {
    type ConnectInfo = TcpConnectInfo;

    fn connect_info(&self) -> TcpConnectInfo {
        self.stream.connect_info()
    }
}

impl Connection {
    /// Takes in what the client says first.
    fn poll_open(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some((opening, deadline)) = &mut self.opening else {
            return Poll::Ready(Ok(()));
        };
        if deadline.as_mut().poll(context).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        let mut bytes = [0; 256];
        while opening.missing() > 0 {
            let missing = opening.missing().min(bytes.len());
            let mut buffer = ReadBuf::new(&mut bytes[..missing]);
            ready!(Pin::new(&mut self.stream).poll_read(context, &mut buffer))?;
            if buffer.filled().is_empty() {
                break;
            }
            opening.push(buffer.filled());
        }
        let (opened, frame_bytes_max) = std::mem::take(opening).finish();
        self.opening = None;
        self.opened = opened;
        self.cutter.set_frame_bytes_max(frame_bytes_max);
        Poll::Ready(Ok(()))
    }

    /// The rest of what was written.
    fn poll_finish(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self { stream, cutter, .. } = self;
        cutter.poll_finish(|parts| Pin::new(&mut *stream).poll_write_vectored(context, parts))
    }
}

impl AsyncRead for Connection {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_open(context))?;
        if this.opened.has_remaining() {
            let bytes = this.opened.split_to(this.opened.len().min(buffer.remaining()));
            buffer.put_slice(&bytes);
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut this.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(context, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let Self { stream, cutter, .. } = self.get_mut();
        cutter.poll_write(parts, |parts| {
            Pin::new(&mut *stream).poll_write_vectored(context, parts)
        })
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_finish(context))?;
        Pin::new(&mut this.stream).poll_flush(context)
    }

    /// Ends when the client has ended its side too. What it still sends has to be taken: the system would answer it with a
    /// reset, at which the client's system forgets what the client has not read yet.
    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.linger.is_none() {
            ready!(this.poll_finish(context))?;
            ready!(Pin::new(&mut this.stream).poll_shutdown(context))?;
        }
        let linger = this
            .linger
            .get_or_insert_with(|| Box::pin(tokio::time::sleep(LINGER_TIMEOUT)));
        let mut bytes = [0; 4096];
        while linger.as_mut().poll(context).is_pending() {
            let mut buffer = ReadBuf::new(&mut bytes);
            match ready!(Pin::new(&mut this.stream).poll_read(context, &mut buffer)) {
                Ok(()) if !buffer.filled().is_empty() => {}
                _ => break,
            }
        }
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use futures::StreamExt;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    async fn listener() -> (TcpListener, std::net::SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        (listener, address)
    }

    /// A client, and its connection here.
    async fn connect(opening_timeout: Duration) -> (TcpStream, Connection) {
        let (listener, address) = listener().await;
        let client = TcpStream::connect(address).await.unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        let place = Arc::new(Semaphore::new(1)).acquire_owned().await.unwrap();
        (client, Connection::new(stream, place, opening_timeout))
    }

    /// The preface, and no settings.
    const OPENING: &[u8; 33] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

    /// As HTTP/2's side is to read it.
    const OPENED_BYTES: usize = OPENING.len() + 6;

    #[tokio::test]
    async fn who_says_too_little_is_let_go() {
        let (mut client, mut connection) = connect(Duration::from_millis(20)).await;
        client.write_all(&OPENING[..OPENING.len() - 1]).await.unwrap();
        let read = connection.read_exact(&mut [0; OPENED_BYTES]).await;
        assert_eq!(read.unwrap_err().kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test]
    async fn who_has_begun_has_time() {
        let timeout = Duration::from_millis(200);
        let (mut client, mut connection) = connect(timeout).await;
        client.write_all(OPENING).await.unwrap();
        connection.read_exact(&mut [0; OPENED_BYTES]).await.unwrap();
        let mut byte = [0];
        let read = tokio::time::timeout(2 * timeout, connection.read_exact(&mut byte));
        assert!(read.await.is_err(), "it waits for more");
        client.write_all(&[8]).await.unwrap();
        assert_eq!(connection.read_u8().await.unwrap(), 8);
    }

    #[tokio::test]
    async fn what_is_not_http2_is_passed_on() {
        let (mut client, mut connection) = connect(Duration::from_secs(10)).await;
        client.write_all(b"GET / HTTP/1.1\r\n").await.unwrap();
        client.shutdown().await.unwrap();
        let mut received = Vec::new();
        connection.read_to_end(&mut received).await.unwrap();
        assert_eq!(received, b"GET / HTTP/1.1\r\n");
    }

    #[tokio::test]
    async fn who_ends_early_is_passed_on() {
        let (mut client, mut connection) = connect(Duration::from_secs(10)).await;
        client.write_all(&OPENING[..30]).await.unwrap();
        client.shutdown().await.unwrap();
        let mut received = Vec::new();
        connection.read_to_end(&mut received).await.unwrap();
        assert_eq!(received, OPENING[..30]);
    }

    /// One of DATA.
    fn frame(length: usize, fill: u8) -> Vec<u8> {
        let [.., high, middle, low] = length.to_be_bytes();
        let mut frame = vec![high, middle, low, 0, 0, 0, 0, 0, 1];
        frame.resize(9 + length, fill);
        frame
    }

    #[tokio::test]
    async fn frames_of_all_sizes_arrive_in_order() {
        let (mut client, mut connection) = connect(Duration::from_secs(10)).await;
        let sizes = [9, 16_384, 131_072, 0, 1 << 20, 16_385, 100_000];
        let sizes = sizes.into_iter().chain(std::iter::repeat_n(131_072, 50)).chain([3]);
        let frames: Vec<_> = sizes
            .enumerate()
            .map(|(fill, size)| (size, u8::try_from(fill).unwrap()))
            .collect();
        let expected: Vec<u8> = frames
            .iter()
            .flat_map(|(size, fill)| {
                let pieces = (0..*size).step_by(16_384).map(|from| (*size - from).min(16_384));
                let pieces: Vec<_> = if *size == 0 { vec![0] } else { pieces.collect() };
                pieces
                    .into_iter()
                    .flat_map(|length| frame(length, *fill))
                    .collect::<Vec<_>>()
            })
            .collect();
        let server = tokio::spawn(async move {
            for (size, fill) in frames {
                connection.write_all(&frame(size, fill)).await.unwrap();
                connection.flush().await.unwrap();
            }
            connection
        });
        let mut received = vec![0; expected.len()];
        tokio::time::timeout(Duration::from_secs(10), client.read_exact(&mut received))
            .await
            .unwrap()
            .unwrap();
        assert!(received == expected, "something else has arrived");
        drop(server.await.unwrap());
    }

    #[tokio::test]
    async fn an_end_loses_nothing_of_what_was_sent() {
        let (client, mut connection) = connect(Duration::from_secs(10)).await;
        let (mut from_server, mut to_server) = client.into_split();
        let sent = frame(1 << 20, 7);
        // With the heads of the frames that it is cut into.
        let expected = sent.len() + 63 * 9;
        let server = tokio::spawn(async move {
            connection.write_all(&sent).await.unwrap();
            // Drops it afterwards.
            connection.shutdown().await.unwrap();
        });
        // The server reads none of this before its end.
        for _ in 0..100 {
            to_server.write_all(&[8; 13]).await.unwrap();
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let mut received = Vec::new();
        from_server.read_to_end(&mut received).await.unwrap();
        assert_eq!(received.len(), expected);
        drop(to_server);
        server.await.unwrap();
    }

    #[tokio::test]
    async fn who_does_not_end_is_not_waited_for() {
        let (_client, mut connection) = connect(Duration::from_secs(10)).await;
        let ended = tokio::time::timeout(10 * LINGER_TIMEOUT, connection.shutdown());
        ended.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn places_are_given_back() {
        let (listener, address) = listener().await;
        let mut incoming = pin!(incoming(listener, 1));
        let _clients = (TcpStream::connect(address).await, TcpStream::connect(address).await);
        let first = incoming.next().await.unwrap().unwrap();
        assert!(futures::poll!(incoming.next()).is_pending());
        drop(first);
        incoming.next().await.unwrap().unwrap();
    }
}
