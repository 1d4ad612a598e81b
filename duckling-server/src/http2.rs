//! HTTP/2 on the connections of a listener.
//!
//! What tonic's own server does, but for three things. A connection's requests run in its own task: rows on their way are
//! handed from one to the other some thousand times a second, and would go from thread to thread each time. What they have to
//! say together leaves with one write to the network, and wakes the client once. And more of a result may wait for the
//! connection to write it.

use std::future::{Future, poll_fn};
use std::io;
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use duckherder_proto::limits;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use futures::task::AtomicWaker;
use futures::{FutureExt, Stream, StreamExt};
use http::Request;
use hyper::body::Incoming;
use hyper::rt::Executor;
use hyper::server::conn::http2::Builder;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::sync::{mpsc, watch};
use tokio::task::coop::has_budget_remaining;
use tonic::body::Body;
use tonic::transport::server::{Connected, TcpConnectInfo};
use tower_service::Service;
use tracing::debug;

use crate::connections::Connection;
use crate::get::Services;
use crate::presence::on_connection;

/// Bytes of a request's answer that may wait for the connection to write them. With fewer, one message more is taken.
const UNWRITTEN_BYTES_MAX: usize = 1024 * 1024;

/// How often a connection's task goes on at once with what has woken itself, before other tasks get their turn.
const ROUNDS_MAX: usize = 32;

/// Requests of a connection at a time. A herd's nodes read all their exchanges over few connections, and those that wait for each
/// other must all find room.
const REQUESTS_MAX: u32 = 16 * 1024;

/// Answers the requests of `connections` with `services` until `stopped` resolves. Then no more are accepted, and those that are
/// being answered have as long as they take.
pub async fn serve(
    connections: impl Stream<Item = io::Result<Connection>>,
    services: Services,
    stopped: impl Future<Output = ()>,
) {
    let (stop, stopping) = watch::channel(());
    {
        // With the listener, which is to be closed before the last requests have ended: who connects then is refused.
        let mut connections = pin!(connections.take_until(stopped));
        while let Some(connection) = connections.next().await {
            // Errors are logged where they come up.
            if let Ok(connection) = connection {
                let requests = serve_one(connection, services.clone(), stopping.clone());
                tokio::spawn(on_connection(requests));
            }
        }
    }
    let _ = stop.send(());
    drop(stopping);
    stop.closed().await;
}

async fn serve_one(connection: Connection, services: Services, mut stopping: watch::Receiver<()>) {
    let service = TowerToHyperService::new(FromClient {
        client: connection.connect_info(),
        services,
    });
    // At most REQUESTS_MAX.
    let (begin, mut begun) = mpsc::unbounded_channel();
    let mut builder = Builder::new(InTask(begin));
    builder
        .timer(TokioTimer::new())
        .initial_stream_window_size(limits::STREAM_WINDOW_BYTES)
        .initial_connection_window_size(limits::CONNECTION_WINDOW_BYTES)
        .max_frame_size(limits::FRAME_BYTES_MAX)
        .max_header_list_size(limits::HEADER_BYTES_MAX)
        .max_concurrent_streams(REQUESTS_MAX)
        .max_send_buf_size(UNWRITTEN_BYTES_MAX)
        .keep_alive_interval(limits::KEEPALIVE_INTERVAL)
        .keep_alive_timeout(limits::KEEPALIVE_TIMEOUT);
    let cork = connection.cork();
    cork.put_in();
    let mut serving = pin!(builder.serve_connection(TokioIo::new(connection), service));
    let mut requests = FuturesUnordered::new();
    let mut stop = pin!(stopping.changed());
    let mut is_stopping = false;
    let rounds = Arc::new(Rounds::default());
    let waker = Waker::from(Arc::clone(&rounds));
    let ended = poll_fn(|task| {
        rounds.begin(task);
        let mut context = Context::from_waker(&waker);
        let mut ended = Poll::Pending;
        for _ in 0..ROUNDS_MAX {
            rounds.next();
            if !is_stopping && stop.as_mut().poll(&mut context).is_ready() {
                is_stopping = true;
                serving.as_mut().graceful_shutdown();
            }
            // Requests first: the connection writes what they yield.
            while let Poll::Ready(Some(())) = requests.poll_next_unpin(&mut context) {}
            ended = serving.as_mut().poll(&mut context);
            while let Poll::Ready(Some(request)) = begun.poll_recv(&mut context) {
                requests.push(request);
                rounds.go_on();
            }
            if ended.is_pending() && cork.holds_something() && !rounds.has_more() {
                // It flushes, whatever else it does.
                cork.take_out();
                ended = serving.as_mut().poll(&mut context);
                cork.put_in();
            }
            if ended.is_ready() || !rounds.has_more() || !has_budget_remaining() {
                break;
            }
        }
        rounds.end(task);
        ended
    });
    if let Err(error) = ended.await {
        debug!(%error, "a connection has failed");
    }
}

/// Polls what wakes itself again, without a detour: tokio would have another thread woken for it.
#[derive(Default)]
struct Rounds {
    task: AtomicWaker,
    is_polling: AtomicBool,
    is_woken: AtomicBool,
}

impl Rounds {
    fn begin(&self, task: &Context<'_>) {
        self.task.register(task.waker());
        self.is_polling.store(true, Ordering::SeqCst);
    }

    fn next(&self) {
        self.is_woken.store(false, Ordering::SeqCst);
    }

    /// There is more to poll.
    fn go_on(&self) {
        self.is_woken.store(true, Ordering::SeqCst);
    }

    /// Whether there is.
    fn has_more(&self) -> bool {
        self.is_woken.load(Ordering::SeqCst)
    }

    fn end(&self, task: &Context<'_>) {
        self.is_polling.store(false, Ordering::SeqCst);
        if self.has_more() {
            task.waker().wake_by_ref();
        }
    }
}

impl Wake for Rounds {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.go_on();
        // Else the task looks before it ends.
        if !self.is_polling.load(Ordering::SeqCst) {
            self.task.wake();
        }
    }
}

/// Runs requests in the task of their connection.
#[derive(Clone)]
struct InTask(mpsc::UnboundedSender<BoxFuture<'static, ()>>);

impl<F> Executor<F> for InTask
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, request: F) {
        // One that panics is gone, and its stream reset; the others go on. Without a connection nobody waits for it.
        let _ = self.0.send(AssertUnwindSafe(request).catch_unwind().map(drop).boxed());
    }
}

/// Tells the service who asks.
#[derive(Clone)]
struct FromClient {
    client: TcpConnectInfo,
    services: Services,
}

impl Service<Request<Incoming>> for FromClient {
    type Response = <Services as Service<Request<Body>>>::Response;
    type Error = <Services as Service<Request<Body>>>::Error;
    type Future = <Services as Service<Request<Body>>>::Future;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.services.poll_ready(context)
    }

    fn call(&mut self, request: Request<Incoming>) -> Self::Future {
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(self.client.clone());
        self.services.call(request)
    }
}
