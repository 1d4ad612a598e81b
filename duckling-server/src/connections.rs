//! Connections as they come in. A client that connects and says nothing, or cannot be heard any more, must not keep its
//! place for ever: until HTTP/2 has begun, and its pings with it, a deadline does that here.

use std::future::Future;
use std::io::{self, IoSlice};
use std::ops::RangeInclusive;
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

use crate::in_flight;
use crate::message::Parts;

/// What a client of HTTP/2 begins with: `PRI * HTTP/2.0` and so on.
const PREFACE_BYTES: usize = 24;

/// How long it may take to send that.
const PREFACE_TIMEOUT: Duration = Duration::from_secs(10);

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
                    let connection = Connection::new(stream, place, PREFACE_TIMEOUT);
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

/// HTTP/2's frames, where a client takes no larger ones: 16 KiB, and a head. What is written in such pieces is gathered;
/// smaller ones are not parts of something large, larger ones are worth a call of the system each.
const GATHERED_PIECES: RangeInclusive<usize> = 8 * 1024..=32 * 1024;

/// Pieces are gathered up to this.
const GATHERED_BYTES: usize = 128 * 1024;

/// Parts of pieces that are given to the system in one call, at most: of all pieces their heads and the rest.
const PARTS_MAX: usize = 2 * GATHERED_BYTES / *GATHERED_PIECES.start();

/// Pieces that go to the system together. HTTP/2's side flushes after each of them.
#[derive(Default)]
struct Gathered {
    parts: Parts,
    /// More may follow at once: a flush has been put off until the connection's task runs again.
    is_put_off: bool,
    /// The last piece was one of many.
    is_open: bool,
}

impl Gathered {
    fn takes(&self, length: usize) -> bool {
        GATHERED_PIECES.contains(&length) && self.parts.remaining() + length <= GATHERED_BYTES
    }

    fn take(&mut self, parts: &[IoSlice<'_>]) {
        for part in parts.iter().filter(|part| !part.is_empty()) {
            let shared = in_flight::find(part);
            self.parts.push(shared.unwrap_or_else(|| Bytes::copy_from_slice(part)));
        }
        self.is_open = true;
        self.is_put_off = false;
    }

    /// Whether a flush is to do nothing: then the task runs again soon.
    fn puts_off(&mut self, context: &Context<'_>) -> bool {
        let is_full = self.parts.remaining() + GATHERED_PIECES.start() > GATHERED_BYTES;
        if !self.is_open || self.is_put_off || is_full {
            return false;
        }
        self.is_put_off = true;
        context.waker().wake_by_ref();
        true
    }

    fn poll_write_to(&mut self, stream: &mut TcpStream, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.parts.has_remaining() {
            let mut slices = [IoSlice::new(&[]); PARTS_MAX];
            let count = self.parts.chunks_vectored(&mut slices);
            let written = ready!(Pin::new(&mut *stream).poll_write_vectored(context, &slices[..count]))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.parts.advance(written);
        }
        self.is_open = false;
        Poll::Ready(Ok(()))
    }
}

/// A client's connection.
pub struct Connection {
    stream: TcpStream,
    gathered: Gathered,
    /// Until HTTP/2 has begun: the bytes that are still to come, and their deadline.
    preface: Option<(usize, Pin<Box<Sleep>>)>,
    /// Since the server has ended it.
    linger: Option<Pin<Box<Sleep>>>,
    _place: OwnedSemaphorePermit,
}

impl Connection {
    fn new(stream: TcpStream, place: OwnedSemaphorePermit, preface_timeout: Duration) -> Self {
        // Small answers must not wait for larger ones; a socket that refuses still works.
        let _ = stream.set_nodelay(true);
        Self {
            stream,
            gathered: Gathered::default(),
            preface: Some((PREFACE_BYTES, Box::pin(tokio::time::sleep(preface_timeout)))),
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

impl AsyncRead for Connection {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if let Some((_, deadline)) = &mut this.preface
            && deadline.as_mut().poll(context).is_ready()
        {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        let before = buffer.filled().len();
        let outcome = Pin::new(&mut this.stream).poll_read(context, buffer);
        if let Some((missing, _)) = &mut this.preface {
            *missing = missing.saturating_sub(buffer.filled().len() - before);
            if *missing == 0 {
                this.preface = None;
            }
        }
        outcome
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
        let this = self.get_mut();
        let length = parts.iter().map(|part| part.len()).sum();
        if !this.gathered.takes(length) {
            ready!(this.gathered.poll_write_to(&mut this.stream, context))?;
        }
        if this.gathered.takes(length) {
            this.gathered.take(parts);
            return Poll::Ready(Ok(length));
        }
        Pin::new(&mut this.stream).poll_write_vectored(context, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.gathered.puts_off(context) {
            return Poll::Ready(Ok(()));
        }
        ready!(this.gathered.poll_write_to(&mut this.stream, context))?;
        Pin::new(&mut this.stream).poll_flush(context)
    }

    /// Ends when the client has ended its side too. What it still sends has to be taken: the system would answer it with a
    /// reset, at which the client's system forgets what the client has not read yet.
    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.linger.is_none() {
            ready!(this.gathered.poll_write_to(&mut this.stream, context))?;
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
    async fn connect(preface_timeout: Duration) -> (TcpStream, Connection) {
        let (listener, address) = listener().await;
        let client = TcpStream::connect(address).await.unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        let place = Arc::new(Semaphore::new(1)).acquire_owned().await.unwrap();
        (client, Connection::new(stream, place, preface_timeout))
    }

    #[tokio::test]
    async fn who_says_too_little_is_let_go() {
        let (mut client, mut connection) = connect(Duration::from_millis(20)).await;
        client.write_all(&[7; PREFACE_BYTES - 1]).await.unwrap();
        let read = connection.read_exact(&mut [0; PREFACE_BYTES]).await;
        assert_eq!(read.unwrap_err().kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test]
    async fn who_has_begun_has_time() {
        let timeout = Duration::from_millis(200);
        let (mut client, mut connection) = connect(timeout).await;
        client.write_all(&[7; PREFACE_BYTES]).await.unwrap();
        connection.read_exact(&mut [0; PREFACE_BYTES]).await.unwrap();
        let mut byte = [0];
        let read = tokio::time::timeout(2 * timeout, connection.read_exact(&mut byte));
        assert!(read.await.is_err(), "it waits for more");
        client.write_all(&[8]).await.unwrap();
        assert_eq!(connection.read_u8().await.unwrap(), 8);
    }

    #[tokio::test]
    async fn pieces_of_all_sizes_arrive_in_order() {
        let (mut client, mut connection) = connect(Duration::from_secs(10)).await;
        let sizes = [9, 16_393, 16_393, 5, 1 << 20, 16_393, 100_000, 8192, 32_768, 32_769, 1];
        let sizes = sizes.into_iter().chain(std::iter::repeat_n(16_393, 200)).chain([3]);
        let pieces: Vec<_> = sizes
            .enumerate()
            .map(|(number, size)| vec![u8::try_from(number % 251).unwrap(); size])
            .collect();
        let expected = pieces.concat();
        let server = tokio::spawn(async move {
            for piece in &pieces {
                connection.write_all(piece).await.unwrap();
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
    async fn a_flush_is_put_off_once() {
        let (mut client, mut connection) = connect(Duration::from_secs(10)).await;
        let piece = [7; 16_393];
        connection.write_all(&piece).await.unwrap();
        // As HTTP/2's side does, whose task is woken by the first.
        connection.flush().await.unwrap();
        let none = tokio::time::timeout(Duration::from_millis(50), client.readable()).await;
        assert!(none.is_err(), "more may follow");
        connection.flush().await.unwrap();
        client.read_exact(&mut [0; 16_393]).await.unwrap();
    }

    #[tokio::test]
    async fn an_end_loses_nothing_of_what_was_sent() {
        let (client, mut connection) = connect(Duration::from_secs(10)).await;
        let (mut from_server, mut to_server) = client.into_split();
        let sent = vec![7; 1 << 20];
        let expected = sent.len();
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
