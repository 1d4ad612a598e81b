//! Further connections to one duckling, for the further streams of large results. Made when the first result needs them,
//! shared by all after it, and closed when none has used them for a while, or with the client's first connection.

use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::timeout;

use crate::channel::{Channel, Endpoint};

/// How often connections are looked at: one that nobody has used in between is closed.
const LOOK_INTERVAL: Duration = Duration::from_secs(15);

/// The connections of a client besides its first.
#[derive(Debug)]
pub(crate) struct Pool {
    endpoint: Endpoint,
    connect_timeout: Duration,
    look_interval: Duration,
    /// One for each further stream of a result; the streams of different results share them.
    places: Vec<Mutex<Option<Open>>>,
}

#[derive(Debug)]
struct Open {
    channel: Channel,
    /// Its users hold it too.
    used: Arc<()>,
    was_used: bool,
}

/// A connection is used as long as this is there.
pub(crate) struct Used(#[expect(dead_code, reason = "held, not read")] Arc<()>);

impl Pool {
    /// Up to so many connections to `endpoint`, each made within the timeout.
    pub(crate) fn new(endpoint: Endpoint, connect_timeout: Duration, connections_max: u32) -> Self {
        Self {
            endpoint,
            connect_timeout,
            look_interval: LOOK_INTERVAL,
            places: (0..connections_max).map(|_| Mutex::new(None)).collect(),
        }
    }

    /// How many connections there may be.
    pub(crate) fn connections_max(&self) -> u32 {
        u32::try_from(self.places.len()).unwrap_or(u32::MAX)
    }

    /// The connection at that place, from 0, which is made if it is not there. `None` if it cannot be made.
    pub(crate) async fn connection(self: &Arc<Self>, place: usize) -> Option<(Channel, Used)> {
        let mut open = self.places.get(place)?.lock().await;
        let open = match &mut *open {
            Some(open) => open,
            none => {
                let channel = self.connect().await?;
                tokio::spawn(close_when_unused(Arc::downgrade(self), place, self.look_interval));
                none.insert(Open {
                    channel,
                    used: Arc::default(),
                    was_used: true,
                })
            }
        };
        open.was_used = true;
        Some((open.channel.clone(), Used(Arc::clone(&open.used))))
    }

    async fn connect(&self) -> Option<Channel> {
        match timeout(self.connect_timeout, self.endpoint.connect()).await {
            Ok(Ok(channel)) => Some(channel),
            Ok(Err(error)) => {
                tracing::debug!(%error, "a further connection could not be made");
                None
            }
            Err(_) => {
                tracing::debug!("a further connection could not be made in time");
                None
            }
        }
    }
}

async fn close_when_unused(pool: Weak<Pool>, place: usize, look_interval: Duration) {
    loop {
        tokio::time::sleep(look_interval).await;
        let Some(pool) = pool.upgrade() else { return };
        let Some(place) = pool.places.get(place) else { return };
        let mut place = place.lock().await;
        let Some(open) = &mut *place else { return };
        let is_used = Arc::strong_count(&open.used) > 1;
        if !is_used && !open.was_used {
            *place = None;
            return;
        }
        open.was_used = is_used;
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    const DEADLINE: Duration = Duration::from_secs(20);

    async fn pool(look_interval: Duration) -> (Arc<Pool>, TcpListener) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let pool = Pool {
            look_interval,
            ..Pool::new(Endpoint::new(&address, DEADLINE).unwrap(), DEADLINE, 2)
        };
        (Arc::new(pool), listener)
    }

    async fn accept(listener: &TcpListener) -> TcpStream {
        tokio::time::timeout(DEADLINE, listener.accept())
            .await
            .unwrap()
            .unwrap()
            .0
    }

    async fn is_closed(mut connection: TcpStream) {
        let mut said = Vec::new();
        tokio::time::timeout(DEADLINE, connection.read_to_end(&mut said))
            .await
            .unwrap()
            .unwrap();
    }

    #[tokio::test]
    async fn who_comes_later_shares_and_there_are_no_more_than_may_be() {
        let (pool, listener) = pool(DEADLINE).await;
        let _used = (pool.connection(0).await.unwrap(), pool.connection(0).await.unwrap());
        let _other = pool.connection(1).await.unwrap();
        assert!(pool.connection(2).await.is_none());
        let _connections = (accept(&listener).await, accept(&listener).await);
        let more = tokio::time::timeout(Duration::from_millis(50), listener.accept());
        assert!(more.await.is_err());
    }

    #[tokio::test]
    async fn what_is_not_used_is_closed_and_made_again() {
        let (pool, listener) = pool(Duration::from_millis(20)).await;
        let used = pool.connection(0).await.unwrap();
        let mut connection = accept(&listener).await;
        let mut preface = [0; 24];
        connection.read_exact(&mut preface).await.unwrap();
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert!(pool.places[0].lock().await.is_some());
        drop(used);
        is_closed(connection).await;
        pool.connection(0).await.unwrap();
        accept(&listener).await;
    }

    #[tokio::test]
    async fn without_the_pool_there_are_none() {
        let (pool, listener) = pool(DEADLINE).await;
        pool.connection(0).await.unwrap();
        let connection = accept(&listener).await;
        drop(pool);
        is_closed(connection).await;
    }

    #[tokio::test]
    async fn nobody_there_is_no_connection() {
        let (pool, listener) = pool(DEADLINE).await;
        drop(listener);
        assert!(pool.connection(0).await.is_none());
    }
}
