//! What a coordinator does all the time: it asks the workers that send no heartbeats how they are, and tells the log what
//! has become of whom.

use std::collections::HashMap;
use std::sync::Arc;

use duckherder_catalog::herd::placement::WorkerId;
use duckherder_client::Node;
use duckherder_proto::RemoteError;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::time::{MissedTickBehavior, interval};
use tracing::{info, warn};

use super::membership::{Origin, WorkerInfo, WorkerState};
use super::registry::Registry;

/// A connection to a worker, and where it goes.
struct Line {
    address: String,
    /// `None` while it is in use, and before there is one.
    node: Option<Node>,
    is_busy: bool,
}

/// Watches a coordinator's workers, until it is dropped.
pub async fn watch_workers(registry: Arc<Registry>) {
    let mut ticks = interval(registry.limits().worker_heartbeat_interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut lines: HashMap<WorkerId, Line> = HashMap::new();
    let mut states: HashMap<WorkerId, WorkerState> = HashMap::new();
    // Not tasks: they end with this one.
    let mut probes = FuturesUnordered::new();
    loop {
        tokio::select! {
            _ = ticks.tick() => {
                let workers = registry.workers();
                tell(&workers, &mut states);
                lines.retain(|id, line| line.is_busy || workers.iter().any(|worker| worker.id == *id));
                for worker in workers.into_iter().filter(|worker| worker.origin == Origin::Named) {
                    let line = lines.entry(worker.id.clone()).or_insert_with(|| Line {
                        address: worker.address.clone(),
                        node: None,
                        is_busy: false,
                    });
                    if line.is_busy {
                        continue;
                    }
                    if line.address != worker.address {
                        line.address.clone_from(&worker.address);
                        line.node = None;
                    }
                    line.is_busy = true;
                    probes.push(probe(&registry, worker, line.node.take()));
                }
            }
            Some((id, node)) = probes.next() => {
                if let Some(line) = lines.get_mut(&id) {
                    line.node = node;
                    line.is_busy = false;
                }
            }
        }
    }
}

/// Asks a worker how it is. The connection comes back if it is still good.
async fn probe(registry: &Registry, worker: WorkerInfo, node: Option<Node>) -> (WorkerId, Option<Node>) {
    let outcome = ask(registry, &worker, node).await;
    if let Err(error) = &outcome {
        registry.failed(&worker.id, error);
    }
    (worker.id, outcome.ok())
}

async fn ask(registry: &Registry, worker: &WorkerInfo, node: Option<Node>) -> Result<Node, RemoteError> {
    let node = match node {
        Some(node) => node,
        None => {
            let options = registry.peer(&worker.address)?;
            let connected = Node::connect(&options).await;
            let timeout = 2 * registry.limits().worker_heartbeat_interval;
            connected
                .map_err(|error| error.to_remote_error())?
                .request_timeout(timeout)
        }
    };
    let answer = registry.probe(worker, &node).await?;
    registry.answered(worker, &answer).await?;
    Ok(node)
}

/// Tells the log what has changed.
fn tell(workers: &[WorkerInfo], states: &mut HashMap<WorkerId, WorkerState>) {
    states.retain(|id, _| workers.iter().any(|worker| worker.id == *id));
    for worker in workers {
        let before = states.insert(worker.id.clone(), worker.state);
        if before == Some(worker.state) {
            continue;
        }
        let (id, address) = (&worker.id.0, &worker.address);
        match worker.state {
            WorkerState::Alive => info!(worker = id, address, "worker is alive"),
            WorkerState::Suspected => warn!(worker = id, address, "worker is silent"),
            WorkerState::Down => warn!(worker = id, address, "worker is down"),
            WorkerState::Left => info!(worker = id, address, "worker is away"),
        }
    }
}
