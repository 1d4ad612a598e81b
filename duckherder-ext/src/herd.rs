//! What SQL says about the workers of an attached coordinator.

use duckherder_client::Node;
use duckherder_client::v1::{ListWorkersRequest, RegisterWorkerRequest, UnregisterWorkerRequest};

use crate::error::{ForUser, Result};
use crate::remote::Remote;
use crate::runtime::{self, InterruptCheck};

/// Makes the duckling at an address a worker of the attached one. Returns its id and its address.
///
/// # Errors
/// The coordinator does not reach it, or refuses.
pub fn register_worker(interrupt: &dyn InterruptCheck, remote: &Remote, address: &str) -> Result<(String, String)> {
    let node = node(remote)?;
    let request = RegisterWorkerRequest {
        address: address.to_owned(),
        ..RegisterWorkerRequest::default()
    };
    runtime::wait(interrupt, async move {
        let answer = node.request(&request).await.map_err(ForUser::for_user)?;
        Ok((answer.worker_id, answer.address))
    })
}

/// Takes a worker, named by its id or its address, out of the herd; one that is lost with the rows that it holds. Returns
/// its id and its address.
///
/// # Errors
/// There is none, it holds rows and is not lost, or is there and should be.
pub fn unregister_worker(
    interrupt: &dyn InterruptCheck,
    remote: &Remote,
    worker: &str,
    lost: bool,
) -> Result<(String, String)> {
    let node = node(remote)?;
    let request = UnregisterWorkerRequest {
        worker: worker.to_owned(),
        lost,
    };
    runtime::wait(interrupt, async move {
        let answer = node.request(&request).await.map_err(ForUser::for_user)?;
        Ok((answer.worker_id, answer.address))
    })
}

/// How many workers statements can use.
///
/// # Errors
/// Those of the connection.
pub fn worker_count(interrupt: &dyn InterruptCheck, remote: &Remote) -> Result<u64> {
    let node = node(remote)?;
    runtime::wait(interrupt, async move {
        let answer = node.request(&ListWorkersRequest {}).await.map_err(ForUser::for_user)?;
        let usable = |state: &str| matches!(state, "alive" | "suspected");
        let workers = answer.workers.iter().filter(|worker| usable(&worker.state));
        Ok(workers.count() as u64)
    })
}

fn node(remote: &Remote) -> Result<Node> {
    Ok(remote.client()?.node())
}
