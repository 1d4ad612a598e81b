//! Connections as they come in. A client that connects and says nothing, or cannot be heard any more, must not keep its
//! place for ever: until HTTP/2 has begun, and its pings with it, a deadline does that here.

use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
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

/// Bytes that a cork holds back, at most.
const CORKED_BYTES_MAX: usize = 16 * 1024;

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
    cork: Cork,
    /// What it holds back.
    held: BytesMut,
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
            cork: Cork::default(),
            held: BytesMut::new(),
            linger: None,
            _place: place,
        }
    }

    /// Holds back a little of what is written, even if it is flushed, from when it is [put in](Cork::put_in) until it is
    /// taken out. HTTP/2's side flushes after each piece of an answer, and each write to the network takes the system as long
    /// as the answer itself, and wakes the client.
    pub fn cork(&self) -> Cork {
        self.cork.clone()
    }
}

/// That of a [`Connection`].
#[derive(Clone, Default)]
pub struct Cork(Arc<CorkState>);

#[derive(Default)]
struct CorkState {
    is_in: AtomicBool,
    holds_something: AtomicBool,
}

impl Cork {
    pub fn put_in(&self) {
        self.0.is_in.store(true, Ordering::Relaxed);
    }

    /// What is held back leaves with the next flush.
    pub fn take_out(&self) {
        self.0.is_in.store(false, Ordering::Relaxed);
    }

    fn is_in(&self) -> bool {
        self.0.is_in.load(Ordering::Relaxed)
    }

    /// Whether something is held back, or waits for the network since.
    pub fn holds_something(&self) -> bool {
        self.0.holds_something.load(Ordering::Relaxed)
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

    /// Gives the network what is held back, and `parts`, as far as it takes them: how many bytes of `parts` are done with.
    fn poll_pass_on(&mut self, context: &mut Context<'_>, parts: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let polled = self.poll_write_through(context, parts);
        self.note_held();
        polled
    }

    fn poll_write_through(&mut self, context: &mut Context<'_>, parts: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let Self {
            stream, cutter, held, ..
        } = self;
        let mut write = |parts: &[IoSlice<'_>]| Pin::new(&mut *stream).poll_write_vectored(context, parts);
        if held.is_empty() {
            return cutter.poll_write(parts, write);
        }
        loop {
            let all: Vec<_> = std::iter::once(IoSlice::new(held))
                .chain(parts.iter().map(|part| IoSlice::new(part)))
                .collect();
            let done = ready!(cutter.poll_write(&all, &mut write))?;
            let of_held = done.min(held.len());
            held.advance(of_held);
            if held.is_empty() && (done > of_held || parts.is_empty()) {
                return Poll::Ready(Ok(done - of_held));
            }
        }
    }

    /// Tells the cork whether a flush has something to do.
    fn note_held(&self) {
        let holds_something = !self.held.is_empty() || self.cutter.has_begun_head();
        self.cork.0.holds_something.store(holds_something, Ordering::Relaxed);
    }

    /// The rest of what was written.
    fn poll_finish(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.held.is_empty() {
            ready!(self.poll_pass_on(context, &[]))?;
        }
        let Self { stream, cutter, .. } = self;
        let polled = cutter.poll_finish(|parts| Pin::new(&mut *stream).poll_write_vectored(context, parts));
        self.note_held();
        polled
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
        let this = self.get_mut();
        let bytes = parts.iter().map(|part| part.len()).sum::<usize>();
        if this.cork.is_in() && this.held.len().saturating_add(bytes) <= CORKED_BYTES_MAX {
            for part in parts {
                this.held.extend_from_slice(part);
            }
            this.note_held();
            return Poll::Ready(Ok(bytes));
        }
        this.poll_pass_on(context, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.cork.is_in() {
            return Poll::Ready(Ok(()));
        }
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

    const HEAD_BYTES: usize = 9;

    /// One of DATA.
    fn frame(length: usize, fill: u8) -> Vec<u8> {
        let [.., high, middle, low] = length.to_be_bytes();
        let mut frame = vec![high, middle, low, 0, 0, 0, 0, 0, 1];
        frame.resize(HEAD_BYTES + length, fill);
        frame
    }

    /// With the cork put in and taken out all the time, or never.
    async fn all_arrive_in_order(uses_cork: bool) {
        let (mut client, mut connection) = connect(Duration::from_secs(10)).await;
        let sizes = [9, 16_384, 131_072, 0, 1 << 20, 16_385, 100_000];
        let sizes = sizes
            .into_iter()
            .chain(std::iter::repeat_n(131_072, 50))
            .chain([3, 300, 3, 4000, 3]);
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
            let cork = connection.cork();
            for (size, fill) in frames {
                if uses_cork {
                    cork.put_in();
                }
                connection.write_all(&frame(size, fill)).await.unwrap();
                if fill % 3 == 0 {
                    cork.take_out();
                }
                connection.flush().await.unwrap();
            }
            cork.take_out();
            connection.flush().await.unwrap();
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
    async fn frames_of_all_sizes_arrive_in_order() {
        all_arrive_in_order(false).await;
        all_arrive_in_order(true).await;
    }

    #[tokio::test]
    async fn a_cork_holds_back_a_little_until_it_is_taken_out() {
        let (mut client, mut connection) = connect(Duration::from_secs(10)).await;
        let cork = connection.cork();
        cork.put_in();
        let small = frame(100, 1);
        for _ in 0..2 {
            connection.write_all(&small).await.unwrap();
            connection.flush().await.unwrap();
        }
        assert!(cork.holds_something());
        let mut received = vec![0; 4096];
        let early = tokio::time::timeout(Duration::from_millis(50), client.read(&mut received));
        assert!(early.await.is_err(), "it was held back");
        cork.take_out();
        connection.flush().await.unwrap();
        assert!(!cork.holds_something());
        let read = client.read(&mut received).await.unwrap();
        assert_eq!(received[..read], [small.as_slice(), &small].concat());
        // More than a little takes along what is held back.
        cork.put_in();
        connection.write_all(&small).await.unwrap();
        connection.write_all(&frame(CORKED_BYTES_MAX, 2)).await.unwrap();
        assert!(!cork.holds_something());
        let mut received = vec![0; small.len() + HEAD_BYTES + CORKED_BYTES_MAX];
        client.read_exact(&mut received).await.unwrap();
        assert_eq!(received[..small.len()], small);
    }

    #[tokio::test]
    async fn an_end_takes_out_the_cork() {
        let (mut client, mut connection) = connect(Duration::from_secs(10)).await;
        connection.cork().put_in();
        connection.write_all(&frame(100, 1)).await.unwrap();
        let ending = tokio::spawn(async move { connection.shutdown().await });
        let mut received = Vec::new();
        client.read_to_end(&mut received).await.unwrap();
        assert_eq!(received, frame(100, 1));
        drop(client);
        ending.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn an_end_loses_nothing_of_what_was_sent() {
        let (client, mut connection) = connect(Duration::from_secs(10)).await;
        let (mut from_server, mut to_server) = client.into_split();
        let sent = frame(1 << 20, 7);
        // With the heads of the frames that it is cut into.
        let expected = sent.len() + 63 * HEAD_BYTES;
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
