//! HTTP/2 to one duckling, for gRPC.
//!
//! tonic's own channel hands every request to a task that hands it to a second one, and its answer comes back through a third.
//! A short statement spends more time in between, waking threads, than on its way. Here a request is written into its
//! connection's frames where it is made, and its answer read where it is awaited; only the connection itself is a task.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use duckherder_proto::limits;
use futures::future::BoxFuture;
use futures::{FutureExt, poll};
use h2::client::{Builder, SendRequest};
use h2::{Ping, PingPong, Reason, RecvStream, SendStream};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderValue, Request, Response, Uri, header};
use http_body::{Body as _, Frame};
use hyper_util::client::legacy::connect::HttpConnector;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{Mutex, oneshot};
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::Status;
use tonic::body::Body;
use tower_service::Service;

use crate::contain::contained_async;
use crate::error::{BoxError, ClientError};

/// Bytes of a request's body that may wait for the connection to write them.
const UNWRITTEN_BYTES_MAX: usize = 1024 * 1024;

/// Requests at a time, until the server has said how many it takes: what HTTP/2 wants a server to take at least.
const FIRST_REQUESTS_MAX: usize = 100;

const USER_AGENT: HeaderValue = HeaderValue::from_static(concat!("duckherder/", env!("CARGO_PKG_VERSION")));

/// A connection, shared by all its clones. It is made anew when it has broken; what was under way is lost.
#[derive(Debug, Clone)]
pub(crate) struct Channel(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    endpoint: Endpoint,
    open: Mutex<Open>,
}

/// Where connections are made to.
#[derive(Debug, Clone)]
pub(crate) struct Endpoint {
    authority: Authority,
    connect_timeout: Duration,
}

/// A connection that was made.
#[derive(Debug, Clone)]
struct Open {
    requests: SendRequest<Bytes>,
    is_closed: Arc<AtomicBool>,
    /// Closes the connection when nothing is under way any more.
    _released: Arc<DropGuard>,
}

impl Endpoint {
    /// A host and a port.
    ///
    /// # Errors
    /// [`ClientError::Address`] if that is not what it is.
    pub(crate) fn new(address: &str, connect_timeout: Duration) -> Result<Self, ClientError> {
        let authority = Authority::try_from(address).map_err(|source| ClientError::Address {
            address: address.to_owned(),
            source,
        })?;
        Ok(Self {
            authority,
            connect_timeout,
        })
    }

    fn uri(&self, path: Option<PathAndQuery>) -> Result<Uri, http::Error> {
        Uri::builder()
            .scheme(Scheme::HTTP)
            .authority(self.authority.clone())
            .path_and_query(path.unwrap_or_else(|| PathAndQuery::from_static("/")))
            .build()
    }

    /// Makes a connection. Its task runs on the runtime that this is called on.
    ///
    /// # Errors
    /// Nobody is there, or it takes too long.
    pub(crate) async fn connect(&self) -> Result<Channel, BoxError> {
        Ok(Channel(Arc::new(Shared {
            endpoint: self.clone(),
            open: Mutex::new(self.open().await?),
        })))
    }

    async fn open(&self) -> Result<Open, BoxError> {
        timeout(self.connect_timeout, self.open_without_deadline()).await?
    }

    async fn open_without_deadline(&self) -> Result<Open, BoxError> {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(self.connect_timeout));
        poll_fn(|context| connector.poll_ready(context)).await?;
        // An address that does not answer leaves time for the host's next.
        let stream = connector.call(self.uri(None)?).await?.into_inner();
        let heard = Arc::new(AtomicBool::new(false));
        let io = Listening {
            io: stream,
            heard: Arc::clone(&heard),
        };
        let (requests, mut connection) = Builder::new()
            .initial_window_size(limits::STREAM_WINDOW_BYTES)
            .initial_connection_window_size(limits::CONNECTION_WINDOW_BYTES)
            .max_frame_size(limits::FRAME_BYTES_MAX)
            .max_header_list_size(limits::HEADER_BYTES_MAX)
            .max_send_buffer_size(UNWRITTEN_BYTES_MAX)
            .initial_max_send_streams(FIRST_REQUESTS_MAX)
            .enable_push(false)
            .handshake(io)
            .await?;
        let is_lost = probe(
            connection.ping_pong(),
            heard,
            limits::KEEPALIVE_INTERVAL,
            limits::KEEPALIVE_TIMEOUT,
        );
        let is_closed = Arc::new(AtomicBool::new(false));
        let released = CancellationToken::new();
        tokio::spawn({
            let (is_closed, released) = (Arc::clone(&is_closed), released.clone());
            async move {
                drive(connection, is_lost, released).await;
                is_closed.store(true, Ordering::Release);
            }
        });
        Ok(Open {
            requests,
            is_closed,
            _released: Arc::new(released.drop_guard()),
        })
    }
}

/// Writes and reads a connection's frames until it is closed, by either side, or lost.
async fn drive<T: AsyncRead + AsyncWrite + Unpin>(
    connection: h2::client::Connection<T>,
    is_lost: impl Future<Output = ()>,
    released: CancellationToken,
) {
    let (mut connection, is_lost, released) = (pin!(connection), pin!(is_lost), pin!(released.cancelled().fuse()));
    let ended = async {
        let mut released = released;
        loop {
            // It does not notice by itself that nobody can make requests any more: it is to look again then.
            tokio::select! {
                biased;
                ended = &mut connection => return ended,
                () = &mut released => {}
            }
        }
    };
    tokio::select! {
        biased;
        ended = ended => {
            if let Err(error) = ended {
                tracing::debug!(%error, "a connection has failed");
            }
        }
        () = is_lost => tracing::debug!("a connection does not answer any more"),
    }
}

/// Asks for a sign of life when a connection has been silent for a while, and returns when there is none.
async fn probe(pings: Option<PingPong>, heard: Arc<AtomicBool>, pause: Duration, patience: Duration) {
    let Some(mut pings) = pings else {
        return futures::future::pending().await;
    };
    let mut ticks = interval(pause);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // The first one comes at once.
    ticks.tick().await;
    let mut is_asked = false;
    loop {
        ticks.tick().await;
        if heard.swap(false, Ordering::Relaxed) {
            continue;
        }
        if !is_asked && pings.send_ping(Ping::opaque()).is_err() {
            return;
        }
        is_asked = true;
        match timeout(patience, poll_fn(|context| pings.poll_pong(context))).await {
            Ok(Ok(_)) => is_asked = false,
            // Behind much data, an answer may be late.
            Err(_) if heard.load(Ordering::Relaxed) => {}
            _ => return,
        }
    }
}

impl Channel {
    /// The connection, which is made if it has broken.
    async fn open(&self) -> Result<Open, Status> {
        let mut open = self.0.open.lock().await;
        if open.is_closed.load(Ordering::Acquire) {
            *open = self.0.endpoint.open().await.map_err(unavailable)?;
        }
        Ok(open.clone())
    }

    /// For one request.
    async fn ready(&self) -> Result<SendRequest<Bytes>, Status> {
        let open = self.open().await?;
        if let Ok(requests) = open.requests.ready().await {
            return Ok(requests);
        }
        // It takes no more.
        open.is_closed.store(true, Ordering::Release);
        self.open().await?.requests.ready().await.map_err(failed)
    }

    async fn send(self, request: Request<Body>) -> Result<Response<Answer>, Status> {
        let (mut head, body) = request.into_parts();
        let uri = self.0.endpoint.uri(head.uri.into_parts().path_and_query);
        head.uri = uri.map_err(|error| Status::internal(error.to_string()))?;
        head.headers.insert(header::USER_AGENT, USER_AGENT);
        let (answer, stream) = self
            .ready()
            .await?
            .send_request(Request::from_parts(head, ()), false)
            .map_err(failed)?;
        let (awaited, not_awaited) = oneshot::channel();
        let mut sending = Box::pin(send_body(body, stream, not_awaited));
        // What is there of it leaves with the request's head: mostly all of it.
        let sending = poll!(&mut sending).is_pending().then(|| {
            tokio::spawn(sending);
            awaited
        });
        let answer = answer.await.map_err(failed)?;
        Ok(answer.map(|data| Answer {
            data,
            has_all_data: false,
            _sending: sending,
        }))
    }
}

impl Service<Request<Body>> for Channel {
    type Response = Response<Answer>;
    type Error = Status;
    type Future = BoxFuture<'static, Result<Response<Answer>, Status>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Status>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        self.clone().send(request).boxed()
    }
}

/// Sends a request's body to its end, unless nobody awaits the answer any more. One that panics ends the request.
async fn send_body(body: Body, mut stream: SendStream<Bytes>, not_awaited: oneshot::Receiver<()>) {
    let outcome = tokio::select! {
        biased;
        outcome = contained_async(send_all(body, &mut stream)) => outcome.unwrap_or(Err(Reason::INTERNAL_ERROR)),
        _ = not_awaited => Err(Reason::CANCEL),
    };
    if let Err(reason) = outcome {
        stream.send_reset(reason);
    }
}

async fn send_all(mut body: Body, stream: &mut SendStream<Bytes>) -> Result<(), Reason> {
    let mut next = next_data(&mut body).await;
    // The first data need not wait for the connection: there is no more of it than is in memory already.
    let mut is_first = true;
    while let Some(data) = next {
        let data = data.map_err(|_| Reason::INTERNAL_ERROR)?;
        if !is_first && !data.is_empty() {
            capacity(stream).await?;
        }
        is_first = false;
        let following = next_data(&mut body).now_or_never();
        let is_last = matches!(following, Some(None));
        stream.send_data(data, is_last).map_err(reason)?;
        if is_last {
            return Ok(());
        }
        next = match following {
            Some(following) => following,
            None => next_data(&mut body).await,
        };
    }
    stream.send_data(Bytes::new(), true).map_err(reason)
}

async fn next_data(body: &mut Body) -> Option<Result<Bytes, Status>> {
    loop {
        let frame = poll_fn(|context| Pin::new(&mut *body).poll_frame(context)).await?;
        // gRPC has no trailers in requests.
        if let Some(data) = frame.map(|frame| frame.into_data().ok()).transpose() {
            return Some(data);
        }
    }
}

/// Waits until something may be written.
async fn capacity(stream: &mut SendStream<Bytes>) -> Result<(), Reason> {
    stream.reserve_capacity(1);
    while stream.capacity() == 0 {
        let more = poll_fn(|context| stream.poll_capacity(context)).await;
        more.ok_or(Reason::CANCEL)?.map_err(reason)?;
    }
    Ok(())
}

fn reason(error: h2::Error) -> Reason {
    error.reason().unwrap_or(Reason::CANCEL)
}

fn failed(error: h2::Error) -> Status {
    Status::from_error(error.into())
}

fn unavailable(error: BoxError) -> Status {
    let mut status = Status::unavailable(error.to_string());
    status.set_source(error.into());
    status
}

/// The body of an answer. Dropped before its end, it ends the request.
#[derive(Debug)]
pub(crate) struct Answer {
    data: RecvStream,
    has_all_data: bool,
    /// Dropped, it breaks off what is still being sent.
    _sending: Option<oneshot::Sender<()>>,
}

impl http_body::Body for Answer {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if !self.has_all_data {
            match ready!(self.data.poll_data(context)) {
                Some(Ok(data)) => {
                    let released = self.data.flow_control().release_capacity(data.len());
                    return Poll::Ready(Some(released.map(|()| Frame::data(data)).map_err(failed)));
                }
                // All has been said, and no more of the request is wanted.
                Some(Err(error)) if error.reason() == Some(Reason::NO_ERROR) => return Poll::Ready(None),
                Some(Err(error)) => return Poll::Ready(Some(Err(failed(error)))),
                None => self.has_all_data = true,
            }
        }
        let trailers = ready!(self.data.poll_trailers(context)).map_err(failed);
        Poll::Ready(trailers.transpose().map(|trailers| trailers.map(Frame::trailers)))
    }

    fn is_end_stream(&self) -> bool {
        self.data.is_end_stream()
    }
}

/// Notes that something was heard from the other side.
struct Listening<T> {
    io: T,
    heard: Arc<AtomicBool>,
}

impl<T: AsyncRead + Unpin> AsyncRead for Listening<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.io).poll_read(context, buffer))?;
        if buffer.filled().len() > before {
            self.heard.store(true, Ordering::Relaxed);
        }
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Listening<T> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(context, data)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(context, data)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use futures::stream::{self, StreamExt};
    use http_body_util::{BodyExt, StreamBody};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    const DEADLINE: Duration = Duration::from_secs(20);

    type Server = h2::server::Connection<TcpStream, Bytes>;

    async fn listen() -> (TcpListener, Endpoint) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        (listener, Endpoint::new(&address, DEADLINE).unwrap())
    }

    async fn accept(listener: &TcpListener) -> Server {
        let (io, _) = listener.accept().await.unwrap();
        h2::server::Builder::new()
            .initial_window_size(64 * 1024)
            .handshake(io)
            .await
            .unwrap()
    }

    async fn request(channel: &Channel, body: Body) -> Result<Response<Answer>, Status> {
        let request = Request::post("/service/method").body(body).unwrap();
        timeout(DEADLINE, channel.clone().send(request)).await.unwrap()
    }

    /// Answers requests without a body, until the client hangs up.
    async fn answer_all(mut server: Server) {
        while let Some(Ok((_, mut respond))) = server.accept().await {
            respond.send_response(Response::new(()), true).unwrap();
        }
    }

    /// A body that yields these, one by one.
    fn streamed(items: impl futures::Stream<Item = Result<Bytes, Status>> + Send + 'static) -> Body {
        Body::new(StreamBody::new(items.map(|item| item.map(Frame::data))))
    }

    /// Reads a request's body.
    async fn read(mut body: RecvStream) -> Result<Vec<Bytes>, h2::Error> {
        let mut all = Vec::new();
        while let Some(data) = body.data().await.transpose()? {
            body.flow_control().release_capacity(data.len())?;
            all.push(data);
        }
        Ok(all)
    }

    #[tokio::test]
    async fn the_end_of_a_request_leaves_with_its_last_data() {
        let (listener, endpoint) = listen().await;
        let server = tokio::spawn(async move {
            let mut server = accept(&listener).await;
            let (request, mut respond) = server.accept().await.unwrap().unwrap();
            let head = request.headers().get(header::USER_AGENT).cloned();
            assert_eq!(request.uri().path(), "/service/method");
            let mut body = request.into_body();
            let data = body.data().await.unwrap().unwrap();
            let is_last = body.is_end_stream();
            respond.send_response(Response::new(()), true).unwrap();
            tokio::spawn(answer_all(server));
            (head, data, is_last)
        });
        let channel = endpoint.connect().await.unwrap();
        let body = streamed(stream::iter([Ok(Bytes::from_static(b"all"))]));
        request(&channel, body).await.unwrap();
        let (agent, data, is_last) = server.await.unwrap();
        assert_eq!(agent, Some(USER_AGENT));
        assert_eq!((&*data, is_last), (&b"all"[..], true));
    }

    #[tokio::test]
    async fn large_bodies_go_both_ways_as_they_are_read() {
        const PIECE: usize = 100_000;
        const PIECES: usize = 40;
        let (listener, endpoint) = listen().await;
        tokio::spawn(async move {
            let mut server = accept(&listener).await;
            while let Some(Ok((request, mut respond))) = server.accept().await {
                tokio::spawn(async move {
                    let mut answer = respond.send_response(Response::new(()), false).unwrap();
                    let mut body = request.into_body();
                    while let Some(data) = body.data().await.transpose().unwrap() {
                        body.flow_control().release_capacity(data.len()).unwrap();
                        answer.send_data(data, false).unwrap();
                    }
                    let mut trailers = http::HeaderMap::new();
                    trailers.insert("grpc-status", HeaderValue::from_static("0"));
                    answer.send_trailers(trailers).unwrap();
                });
            }
        });
        let channel = endpoint.connect().await.unwrap();
        let pieces = stream::iter(0..PIECES).then(|piece| async move {
            tokio::task::yield_now().await;
            Ok(Bytes::from(vec![u8::try_from(piece).unwrap(); PIECE]))
        });
        let answer = request(&channel, streamed(pieces)).await.unwrap();
        let collected = timeout(DEADLINE, answer.into_body().collect()).await.unwrap().unwrap();
        assert_eq!(collected.trailers().unwrap().get("grpc-status").unwrap(), "0");
        let bytes = collected.to_bytes();
        assert_eq!(bytes.len(), PIECE * PIECES);
        assert!(
            bytes
                .chunks(PIECE)
                .zip(0..)
                .all(|(chunk, piece)| chunk.iter().all(|byte| *byte == piece))
        );
    }

    /// How a server's reading of this body ends.
    async fn read_failing(body: Body) -> Option<Reason> {
        let (listener, endpoint) = listen().await;
        let server = tokio::spawn(async move {
            let mut server = accept(&listener).await;
            let (request, _respond) = server.accept().await.unwrap().unwrap();
            let reading = tokio::spawn(read(request.into_body()));
            tokio::spawn(answer_all(server));
            reading.await.unwrap()
        });
        let channel = endpoint.connect().await.unwrap();
        assert!(request(&channel, body).await.is_err());
        timeout(DEADLINE, server).await.unwrap().unwrap().unwrap_err().reason()
    }

    #[tokio::test]
    async fn a_body_that_fails_resets_the_request_and_is_not_its_end() {
        let items = stream::iter([Ok(Bytes::from_static(b"a part")), Err(Status::aborted("broken off"))]);
        assert_eq!(read_failing(streamed(items)).await, Some(Reason::INTERNAL_ERROR));
    }

    #[tokio::test]
    async fn a_body_that_panics_later_does_so_too() {
        let panics = stream::once(async {
            tokio::task::yield_now().await;
            panic!("expected")
        });
        let items = stream::iter([Ok(Bytes::from_static(b"a part"))]).chain(panics);
        assert_eq!(read_failing(streamed(items)).await, Some(Reason::INTERNAL_ERROR));
    }

    #[tokio::test]
    async fn an_answer_that_nobody_reads_ends_its_request() {
        let (listener, endpoint) = listen().await;
        let server = tokio::spawn(async move {
            let mut server = accept(&listener).await;
            let (request, mut respond) = server.accept().await.unwrap().unwrap();
            let _answer = respond.send_response(Response::new(()), false).unwrap();
            let reading = tokio::spawn(read(request.into_body()));
            tokio::spawn(answer_all(server));
            reading.await.unwrap()
        });
        let channel = endpoint.connect().await.unwrap();
        // It never ends by itself.
        let body = streamed(stream::iter([Ok(Bytes::from_static(b"a part"))]).chain(stream::pending()));
        drop(request(&channel, body).await.unwrap());
        let read = timeout(DEADLINE, server).await.unwrap().unwrap();
        assert_eq!(read.unwrap_err().reason(), Some(Reason::CANCEL));
    }

    #[tokio::test]
    async fn a_connection_that_is_closed_is_made_anew() {
        let (listener, endpoint) = listen().await;
        let channel = endpoint.connect().await.unwrap();
        // The first one takes one request, and no more.
        let mut first = accept(&listener).await;
        let serving = tokio::spawn(async move {
            let (_, mut respond) = first.accept().await.unwrap().unwrap();
            respond.send_response(Response::new(()), true).unwrap();
            first.graceful_shutdown();
            answer_all(first).await;
        });
        request(&channel, Body::empty()).await.unwrap();
        serving.await.unwrap();
        let again = tokio::spawn({
            let channel = channel.clone();
            async move { request(&channel, Body::empty()).await.map(drop) }
        });
        tokio::spawn(answer_all(accept(&listener).await));
        again.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn nobody_there_any_more_is_an_error_of_each_request() {
        let (listener, endpoint) = listen().await;
        let channel = endpoint.connect().await.unwrap();
        drop((accept(&listener).await, listener));
        for _ in 0..3 {
            assert!(request(&channel, Body::empty()).await.is_err());
        }
        let refused = request(&channel, Body::empty()).await.unwrap_err();
        assert_eq!(refused.code(), tonic::Code::Unavailable, "{refused:?}");
    }

    #[tokio::test]
    async fn dropped_it_is_closed_when_the_last_answer_has_been_read() {
        let (listener, endpoint) = listen().await;
        let channel = endpoint.connect().await.unwrap();
        let mut server = accept(&listener).await;
        let asking = tokio::spawn({
            let channel = channel.clone();
            async move { request(&channel, Body::empty()).await.unwrap() }
        });
        let (_, mut respond) = server.accept().await.unwrap().unwrap();
        let mut answering = respond.send_response(Response::new(()), false).unwrap();
        let serving = tokio::spawn(answer_all(server));
        let answer = asking.await.unwrap();
        drop(channel);
        answering.send_data(Bytes::from_static(b"rows"), true).unwrap();
        assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), &b"rows"[..]);
        timeout(DEADLINE, serving).await.unwrap().unwrap();
    }

    /// Whether a connection counts as lost within a second, if it is probed all the time.
    async fn is_lost(io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, heard: Arc<AtomicBool>) -> bool {
        let (_requests, mut connection) = h2::client::handshake(io).await.unwrap();
        let millisecond = Duration::from_millis(1);
        let lost = probe(connection.ping_pong(), heard, millisecond, 20 * millisecond);
        let driving = drive(connection, lost, CancellationToken::new());
        timeout(Duration::from_secs(1), driving).await.is_ok()
    }

    #[tokio::test]
    async fn silence_is_asked_for_a_sign_of_life() {
        let (ours, theirs) = tokio::io::duplex(1 << 20);
        assert!(is_lost(ours, Arc::default()).await);
        drop(theirs);

        let (ours, theirs) = tokio::io::duplex(1 << 20);
        tokio::spawn(async move {
            let mut server = h2::server::handshake(theirs).await.unwrap();
            while server.accept().await.is_some() {}
        });
        assert!(!is_lost(ours, Arc::default()).await);
    }

    #[tokio::test]
    async fn who_sends_much_may_answer_late() {
        let heard = Arc::new(AtomicBool::new(false));
        let (ours, _theirs) = tokio::io::duplex(1 << 20);
        let hearing = tokio::spawn({
            let heard = Arc::clone(&heard);
            async move {
                loop {
                    heard.store(true, Ordering::Relaxed);
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            }
        });
        assert!(!is_lost(ours, heard).await);
        hearing.abort();
    }
}
