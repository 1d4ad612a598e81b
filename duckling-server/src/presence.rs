//! Whether the client of a session is still connected.

use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

/// A connection that is open.
pub struct Open;

tokio::task_local! {
    /// The connection whose requests the task answers.
    static CONNECTION: Arc<Open>;
}

/// Answers the requests of one connection, which is open for as long as that takes: sessions that they use remember it.
pub async fn on_connection<T>(requests: impl Future<Output = T>) -> T {
    CONNECTION.scope(Arc::new(Open), requests).await
}

/// The connections that a session has been used on.
#[derive(Default)]
pub struct Presence(Mutex<State>);

#[derive(Default)]
struct State {
    /// Those that were open when the latest came, so no more than `Limits::connections_max`. None for a session that is not
    /// used over the network.
    connections: Vec<Weak<Open>>,
    gone_since: Option<Instant>,
}

impl Presence {
    /// A request uses the session.
    pub fn touch(&self) {
        // Elsewhere than in the task of a connection no client shows itself.
        let _ = CONNECTION.try_with(|connection| self.add(connection));
    }

    fn add(&self, connection: &Arc<Open>) {
        let mut state = self.lock();
        state.gone_since = None;
        if !state
            .connections
            .iter()
            .any(|known| known.as_ptr() == Arc::as_ptr(connection))
        {
            state.connections.retain(|known| known.strong_count() > 0);
            state.connections.push(Arc::downgrade(connection));
        }
    }

    /// How long ago it was found, by this function, that all connections are closed. `None`, while one is open.
    pub fn gone_for(&self) -> Option<Duration> {
        let mut state = self.lock();
        let is_open = |known: &Weak<Open>| known.strong_count() > 0;
        if state.connections.is_empty() || state.connections.iter().any(is_open) {
            return None;
        }
        Some(state.gone_since.get_or_insert_with(Instant::now).elapsed())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_client_is_gone_with_its_last_connection() {
        let presence = Presence::default();
        presence.touch();
        assert_eq!(presence.gone_for(), None, "not used over the network");
        on_connection(async {
            presence.touch();
            on_connection(async {
                presence.touch();
                presence.touch();
            })
            .await;
            assert_eq!(presence.gone_for(), None, "one is open");
        })
        .await;
        assert!(presence.gone_for().is_some());
        tokio::time::sleep(Duration::from_millis(2)).await;
        assert!(presence.gone_for() >= Some(Duration::from_millis(2)), "it counts");
        on_connection(async {
            presence.touch();
            assert_eq!(presence.gone_for(), None, "it has come back");
        })
        .await;
        assert_eq!(
            presence.lock().connections.len(),
            1,
            "those that are closed are forgotten"
        );
    }
}
