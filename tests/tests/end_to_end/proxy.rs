//! A network that can fail.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// What becomes of the connections through a [`Proxy`] that are not spared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Link {
    /// All is well.
    Good,
    /// Every piece takes so long.
    Slow(Duration),
    /// After so many bytes of answers, nothing more arrives, and nobody is told.
    SilentAfter(usize),
    /// After so many bytes of answers, connections are closed, and new ones refused.
    CutAfter(usize),
}

/// A network between a duckling and those who connect to it.
pub struct Proxy {
    /// The port to connect to.
    pub port: u16,
    link: watch::Sender<Link>,
    /// Connections that were made before this number are spared.
    spared: Arc<AtomicUsize>,
    /// Bytes of answers that each connection has carried, in the order in which they were made.
    answered: Arc<Mutex<Vec<usize>>>,
    /// In how many pieces they came: no more than servers have written.
    pieces: Arc<AtomicUsize>,
}

impl Proxy {
    /// In front of this port.
    pub async fn start(target: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (link, state) = watch::channel(Link::Good);
        let (spared, answered) = (Arc::new(AtomicUsize::new(0)), Arc::new(Mutex::new(Vec::new())));
        let (of_connections, counts) = (Arc::clone(&spared), Arc::clone(&answered));
        let pieces = Arc::new(AtomicUsize::new(0));
        let all_pieces = Arc::clone(&pieces);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let number = {
                    let mut counts = counts.lock().unwrap();
                    counts.push(0);
                    counts.len() - 1
                };
                let counts = Arc::clone(&counts);
                let pieces = Arc::clone(&all_pieces);
                let mut state = state.clone();
                let spared = Arc::clone(&of_connections);
                tokio::spawn(async move {
                    // The first end of either direction closes both.
                    let (from_client, to_client) = client.into_split();
                    let Ok(server) = TcpStream::connect(("127.0.0.1", target)).await else {
                        return;
                    };
                    let (from_server, to_server) = server.into_split();
                    let is_spared = move || number < spared.load(Ordering::SeqCst);
                    let asking = state.clone();
                    let count = move |bytes| {
                        pieces.fetch_add(1, Ordering::SeqCst);
                        let count = &mut counts.lock().unwrap()[number];
                        *count += bytes;
                        *count
                    };
                    tokio::select! {
                        () = forward(from_client, to_server, asking, is_spared.clone(), |_| 0) => {}
                        () = forward(from_server, to_client, state.clone(), is_spared.clone(), count) => {}
                        () = async {
                            let cut = |link: &Link| *link == Link::CutAfter(0) && !is_spared();
                            if state.wait_for(cut).await.is_err() {
                                std::future::pending::<()>().await;
                            }
                        } => {}
                    }
                });
            }
        });
        Self {
            port,
            link,
            spared,
            answered,
            pieces,
        }
    }

    /// From here on the link is this, for connections that are made later.
    pub fn becomes(&self, link: Link) {
        self.spares(self.answered().len());
        self.link.send_replace(link);
    }

    /// Cuts all connections that are not spared.
    pub fn cut(&self) {
        self.link.send_replace(Link::CutAfter(0));
    }

    /// So many connections, those that were made first, are spared.
    pub fn spares(&self, connections: usize) {
        self.spared.store(connections, Ordering::SeqCst);
    }

    /// Bytes of answers that each connection has carried, in the order in which they were made.
    pub fn answered(&self) -> Vec<usize> {
        self.answered.lock().unwrap().clone()
    }

    /// In how many pieces answers have come, over all connections.
    pub fn pieces(&self) -> usize {
        self.pieces.load(Ordering::SeqCst)
    }
}

async fn forward(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut state: watch::Receiver<Link>,
    is_spared: impl Fn() -> bool,
    count: impl Fn(usize) -> usize,
) {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let Ok(bytes @ 1..) = from.read(&mut buffer).await else {
            return;
        };
        let link = if is_spared() { Link::Good } else { *state.borrow() };
        let answered = count(bytes);
        match link {
            Link::Good => {}
            Link::Slow(pause) => tokio::time::sleep(pause).await,
            Link::CutAfter(bytes_max) if answered > bytes_max => return,
            Link::SilentAfter(bytes_max) if answered > bytes_max => {
                let silent = |link: &Link| !matches!(link, Link::SilentAfter(_));
                if state.wait_for(silent).await.is_err() {
                    return;
                }
                // What has been held back is lost with the connection.
                return;
            }
            Link::CutAfter(_) | Link::SilentAfter(_) => {}
        }
        if to.write_all(&buffer[..bytes]).await.is_err() {
            return;
        }
    }
}
