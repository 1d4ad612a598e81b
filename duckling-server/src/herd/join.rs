//! A worker that belongs to a herd by itself: it registers, sends heartbeats, and says when it stops.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use backon::{ExponentialBuilder, Retryable};
use duckherder_catalog::herd::placement::WorkerId;
use duckherder_client::Node;
use duckherder_proto::v1::{HeartbeatAnswer, HeartbeatRequest, RegisterWorkerRequest};
use duckherder_proto::{ExceptionType, RemoteError};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tracing::{error, info, warn};

use super::registry::{Place, Registry};

/// Pauses between attempts to register.
const RETRY_DELAY_MIN: Duration = Duration::from_millis(100);
const RETRY_DELAY_MAX: Duration = Duration::from_secs(2);

/// How long a duckling may take to serve, before it can be told to join, and how often it is looked whether it does.
const SERVE_TIMEOUT: Duration = Duration::from_secs(5);
const SERVE_LOOK_INTERVAL: Duration = Duration::from_millis(5);

/// How long the farewell may take.
const FAREWELL_TIMEOUT: Duration = Duration::from_secs(3);

/// Bounds of the pause between heartbeats, whatever the coordinator says.
const HEARTBEAT_INTERVAL_MIN: Duration = Duration::from_millis(10);
const HEARTBEAT_INTERVAL_MAX: Duration = Duration::from_secs(60);

/// Whom to join, and as what.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct JoinConfig {
    /// The coordinator, `host:port`.
    pub coordinator: String,
    /// Where the others reach this duckling, `host:port`. By default, what it listens on; if that is no address in
    /// particular (`0.0.0.0`), the port, on the host that the coordinator sees it come from.
    pub advertise: Option<String>,
}

/// What keeps a duckling in a herd; nothing at first.
#[derive(Default)]
pub(super) struct Joining(Mutex<Option<Task>>);

struct Task {
    stop: watch::Sender<bool>,
    running: JoinHandle<()>,
}

impl Joining {
    fn replace(&self, task: Option<Task>) -> Option<Task> {
        let mut slot = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::replace(&mut *slot, task)
    }
}

/// A registration that stands.
struct Joined {
    node: Node,
    coordinator: WorkerId,
    interval: Duration,
}

/// Why heartbeats have ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// The coordinator cannot be reached, or wants another registration.
    Again,
    /// The worker was unregistered.
    Released,
    /// The duckling stops.
    Stopped,
}

/// Joins, and stays: registers as often as it takes, however long the coordinator is away.
///
/// # Errors
/// What is configured is no address.
pub fn join(registry: &Arc<Registry>, config: &JoinConfig) -> Result<(), RemoteError> {
    let Some(place) = registry.place() else {
        return Err(not_serving());
    };
    registry.peer(&config.coordinator)?;
    if let Some(advertise) = &config.advertise {
        registry.peer(advertise)?;
    }
    start(registry, place, config.clone(), None);
    Ok(())
}

/// Joins under an id, in the place of whoever has it, and returns when that is done; then it stays.
///
/// # Errors
/// The coordinator cannot be reached, or refuses.
pub async fn join_as(registry: &Arc<Registry>, config: &JoinConfig, id: WorkerId) -> Result<(), RemoteError> {
    // Whoever has just started a duckling may be quicker than it.
    let serving = async {
        loop {
            if let Some(place) = registry.place() {
                return place;
            }
            tokio::time::sleep(SERVE_LOOK_INTERVAL).await;
        }
    };
    let place = timeout(SERVE_TIMEOUT, serving).await.map_err(|_| not_serving())?;
    registry.take_id(id).await?;
    let joined = register(registry, place, config, true).await?;
    stop(registry, false).await;
    start(registry, place, config.clone(), Some(joined));
    Ok(())
}

fn start(registry: &Arc<Registry>, place: &Place, config: JoinConfig, joined: Option<Joined>) {
    let (stop, stopped) = watch::channel(false);
    let work = stay(Arc::clone(registry), place.clone(), config, joined, stopped);
    let running = place.runtime.spawn(work);
    if let Some(before) = registry.joining().replace(Some(Task { stop, running })) {
        before.running.abort();
    }
}

/// Ends what keeps the duckling in a herd, with a farewell or without.
pub async fn stop(registry: &Registry, farewell: bool) {
    if let Some(task) = registry.joining().replace(None) {
        if !farewell {
            task.running.abort();
            return;
        }
        let _ = task.stop.send(true);
        let mut running = task.running;
        // A farewell is polite, and not worth to wait for.
        if timeout(2 * FAREWELL_TIMEOUT, &mut running).await.is_err() {
            running.abort();
        }
    }
}

/// Runs until the duckling stops or is unregistered.
async fn stay(
    registry: Arc<Registry>,
    place: Place,
    config: JoinConfig,
    mut joined: Option<Joined>,
    mut stopped: watch::Receiver<bool>,
) {
    loop {
        let current = match joined.take() {
            Some(joined) => joined,
            None => tokio::select! {
                joined = keep_registering(&registry, &place, &config) => joined,
                _ = stopped.wait_for(|stopped| *stopped) => return,
            },
        };
        match heartbeats(&registry, &current, &mut stopped).await {
            End::Again => {}
            End::Released => {
                info!(
                    coordinator = config.coordinator,
                    "unregistered: this duckling is no worker until it is told to join again"
                );
                return;
            }
            End::Stopped => {
                let farewell = heartbeat(&registry, true);
                if !matches!(
                    timeout(FAREWELL_TIMEOUT, current.node.request(&farewell)).await,
                    Ok(Ok(_))
                ) {
                    warn!(
                        coordinator = config.coordinator,
                        "the coordinator could not be told that this worker stops"
                    );
                }
                return;
            }
        }
    }
}

/// Registers, however often it takes. The log has each reason that it fails for once.
async fn keep_registering(registry: &Registry, place: &Place, config: &JoinConfig) -> Joined {
    let delays = ExponentialBuilder::default()
        .with_min_delay(RETRY_DELAY_MIN)
        .with_max_delay(RETRY_DELAY_MAX)
        .with_jitter()
        .without_max_times();
    let mut told = String::new();
    loop {
        let attempts =
            (|| register(registry, place, config, false))
                .retry(delays)
                .notify(|problem: &RemoteError, _| {
                    if told != problem.message {
                        told.clone_from(&problem.message);
                        if problem.kind == ExceptionType::Connection {
                            warn!(coordinator = config.coordinator, %problem, "cannot join yet");
                        } else {
                            error!(coordinator = config.coordinator, %problem, "cannot join");
                        }
                    }
                });
        // Without a bound on its attempts it ends well, or never.
        if let Ok(joined) = attempts.await {
            return joined;
        }
    }
}

async fn register(
    registry: &Registry,
    place: &Place,
    config: &JoinConfig,
    replace: bool,
) -> Result<Joined, RemoteError> {
    let request = RegisterWorkerRequest {
        address: config.advertise.clone().unwrap_or_else(|| advertised(place)),
        worker_id: registry.own_id().0,
        replace,
    };
    // The coordinator answers when it has reached this duckling, for which it has as long as this one for it.
    let patience = 3 * registry.limits().worker_suspected_after;
    let node = Node::connect(&registry.peer(&config.coordinator)?)
        .await
        .map_err(|error| error.to_remote_error())?
        .request_timeout(patience);
    let answer = node.request(&request).await.map_err(|error| error.to_remote_error())?;
    info!(
        coordinator = answer.coordinator_id,
        worker = answer.worker_id,
        address = answer.address,
        "joined"
    );
    let interval = Duration::from_millis(answer.heartbeat_interval_ms);
    let interval = interval.clamp(HEARTBEAT_INTERVAL_MIN, HEARTBEAT_INTERVAL_MAX);
    Ok(Joined {
        // One that is not answered before the one after the next counts as lost.
        node: node.request_timeout(2 * interval),
        coordinator: WorkerId(answer.coordinator_id),
        interval,
    })
}

/// What a duckling listens on, without the host if that is no address in particular.
fn advertised(place: &Place) -> String {
    if place.listen.ip().is_unspecified() {
        format!(":{}", place.listen.port())
    } else {
        place.listen.to_string()
    }
}

fn heartbeat(registry: &Registry, leaving: bool) -> HeartbeatRequest {
    HeartbeatRequest {
        worker_id: registry.own_id().0,
        incarnation: registry.incarnation().to_vec().into(),
        leaving,
    }
}

/// Sends heartbeats as long as they are answered well.
async fn heartbeats(registry: &Registry, joined: &Joined, stopped: &mut watch::Receiver<bool>) -> End {
    let mut ticks = interval(joined.interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let request = heartbeat(registry, false);
        let (sent, answer) = tokio::select! {
            _ = stopped.wait_for(|stopped| *stopped) => return End::Stopped,
            answer = async {
                ticks.tick().await;
                let sent = Instant::now();
                (sent, joined.node.request(&request).await)
            } => answer,
        };
        let answer = match answer {
            Ok(answer) => answer,
            Err(problem) => {
                warn!(coordinator = joined.node.address(), %problem, "a heartbeat failed");
                return End::Again;
            }
        };
        let coordinator = WorkerId(answer.coordinator_id.clone());
        match answer.answer() {
            HeartbeatAnswer::Known => registry.coordinator_is_there(&coordinator, sent),
            // Unknown to the coordinator that it registered with: it was unregistered. To another one it is new.
            HeartbeatAnswer::Unknown if coordinator == joined.coordinator => {
                if let Err(problem) = registry.be_released(&coordinator).await {
                    warn!(%problem, "cannot keep that this duckling is no worker any more");
                }
                return End::Released;
            }
            _ => return End::Again,
        }
    }
}

fn not_serving() -> RemoteError {
    RemoteError::new(
        ExceptionType::InvalidInput,
        "the duckling does not serve yet, and cannot join a herd",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_listens_everywhere_leaves_the_host_out() {
        let at = |listen: &str| {
            advertised(&Place {
                listen: listen.parse().unwrap(),
                runtime: tokio::runtime::Handle::current(),
            })
        };
        assert_eq!(at("10.0.0.7:8815"), "10.0.0.7:8815");
        assert_eq!(at("[::1]:8815"), "[::1]:8815");
        assert_eq!(at("0.0.0.0:8815"), ":8815");
        assert_eq!(at("[::]:8815"), ":8815");
    }
}
