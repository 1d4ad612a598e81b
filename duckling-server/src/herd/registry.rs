//! The members of a herd, as a duckling knows them: the shell around [`Membership`] and [`Belonging`], with a clock, a
//! database to keep them in, and the network.
//!
//! A duckling is a coordinator as soon as a worker registers, and a worker as soon as a coordinator claims it; it is not
//! both.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use duckherder_catalog::herd::placement::{WorkerId, hash_version};
use duckherder_client::{ClientOptions, Node};
use duckherder_proto::v1::{
    ClaimWorkerRequest, ClaimWorkerResponse, HeartbeatAnswer, HeartbeatRequest, HeartbeatResponse,
    RegisterWorkerRequest, RegisterWorkerResponse, ReleaseWorkerRequest, UnregisterWorkerRequest,
    UnregisterWorkerResponse,
};
use duckherder_proto::version::PROTOCOL_VERSION;
use duckherder_proto::{ExceptionType, RemoteError};
use tokio::runtime::Handle;
use tokio::sync::{Mutex as AsyncMutex, RwLock};
use tracing::{info, warn};

use super::join::{self, JoinConfig, Joining};
use super::membership::{
    Belonging, Heard, Membership, Moment, Origin, Owner, Patience, Registration, Versions, WorkerInfo, check_id,
};
use super::{placements, store};
use crate::catalog::duckdb_version;
use crate::config::Limits;
use crate::duckdb::{Connection, Database};
use crate::running::blocking;

/// How often those who wait for a worker to go look whether it has.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// How long a worker that is unregistered may take to hear of it.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(2);

/// Where a duckling's server is: known once it serves.
#[derive(Debug, Clone)]
pub struct Place {
    /// What it listens on.
    pub listen: SocketAddr,
    /// The runtime of its network.
    pub runtime: Handle,
}

/// Where tables that are being made are to have rows.
#[derive(Default)]
struct Placing {
    /// By how many such tables each worker is held.
    held: BTreeMap<WorkerId, usize>,
    /// The worker that is being unregistered.
    leaving: Option<WorkerId>,
}

/// Holds workers for a table that is being made; see [`Registry::place_on`].
pub struct PlaceHold {
    workers: Vec<WorkerId>,
    placing: Arc<Mutex<Placing>>,
}

impl Drop for PlaceHold {
    fn drop(&mut self) {
        let mut placing = self.placing.lock().unwrap_or_else(PoisonError::into_inner);
        for worker in &self.workers {
            if let Some(count) = placing.held.get_mut(worker) {
                *count -= 1;
                if *count == 0 {
                    placing.held.remove(worker);
                }
            }
        }
    }
}

/// A worker is being unregistered. There is one at most, as `Registry::changing` is held.
struct Leaving(Arc<Mutex<Placing>>);

impl Drop for Leaving {
    fn drop(&mut self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).leaving = None;
    }
}

/// Who this duckling is.
struct Own {
    id: WorkerId,
    /// Whether the database has the id.
    is_kept: bool,
    belonging: Belonging,
}

/// A duckling's part in a herd.
pub struct Registry {
    database: Database,
    /// Whether what is kept outlives the process.
    is_lasting: bool,
    limits: Arc<Limits>,
    versions: Versions,
    /// Tells this process from others with the same id.
    incarnation: [u8; 16],
    own: Mutex<Own>,
    members: Mutex<Membership>,
    placing: Arc<Mutex<Placing>>,
    /// Held while what is kept changes.
    changing: AsyncMutex<()>,
    /// Read while a worker is asked how it is.
    probing: RwLock<()>,
    place: OnceLock<Place>,
    joining: Joining,
}

impl Registry {
    /// With what the database has kept.
    ///
    /// # Errors
    /// DuckDB's, if that cannot be read.
    pub fn open(database: Database, is_lasting: bool, limits: Arc<Limits>) -> Result<Self, RemoteError> {
        let mut connection = database.connect()?;
        let versions = Versions {
            duckdb: duckdb_version(&mut connection)?,
            protocol: PROTOCOL_VERSION,
        };
        let kept = store::read(&mut connection)?;
        let patience = Patience {
            suspected_after: limits.worker_suspected_after,
            down_after: limits.worker_down_after,
        };
        let now = Moment::now();
        let mut members = Membership::new(patience, limits.workers_max);
        for (registration, has_left) in kept.workers {
            members.restore(now, registration, has_left);
        }
        let is_kept = kept.node.is_some();
        let (id, owner) = kept.node.unwrap_or_else(|| (new_id(), None));
        Ok(Self {
            own: Mutex::new(Own {
                id,
                is_kept,
                belonging: Belonging::new(owner, now.instant, patience),
            }),
            database,
            is_lasting,
            versions,
            incarnation: *uuid::Uuid::new_v4().as_bytes(),
            members: Mutex::new(members),
            placing: Arc::default(),
            changing: AsyncMutex::default(),
            probing: RwLock::default(),
            place: OnceLock::new(),
            joining: Joining::default(),
            limits,
        })
    }

    /// The server's bounds.
    #[must_use]
    pub fn limits(&self) -> &Arc<Limits> {
        &self.limits
    }

    /// Where the duckling serves; `None` before it does.
    #[must_use]
    pub fn place(&self) -> Option<&Place> {
        self.place.get()
    }

    /// It serves from now on.
    pub fn serves(&self, place: Place) {
        // A duckling serves once.
        let _ = self.place.set(place);
    }

    /// What keeps this duckling in a herd.
    pub(super) fn joining(&self) -> &Joining {
        &self.joining
    }

    /// A connection to the duckling's database.
    ///
    /// # Errors
    /// DuckDB's.
    pub fn connect(&self) -> Result<Connection, RemoteError> {
        self.database.connect()
    }

    fn own(&self) -> MutexGuard<'_, Own> {
        self.own.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn members(&self) -> MutexGuard<'_, Membership> {
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// This duckling's id, as a coordinator's and as a worker's: lasting if its database is.
    #[must_use]
    pub fn own_id(&self) -> WorkerId {
        self.own().id.clone()
    }

    /// Tells this process of the duckling from others.
    #[must_use]
    pub fn incarnation(&self) -> &[u8] {
        &self.incarnation
    }

    /// The coordinator that this duckling is a worker of.
    #[must_use]
    pub fn coordinator(&self) -> Option<WorkerId> {
        self.own().belonging.owner(Instant::now()).map(|owner| owner.id.clone())
    }

    /// Since when this duckling has been a worker that its coordinator counts on, as a number: [`Belonging::term`]. `None` if it may
    /// not be one any more.
    #[must_use]
    pub fn term(&self) -> Option<u64> {
        self.own().belonging.term(Instant::now())
    }

    /// Whether this duckling does what `coordinator` asks a worker for.
    ///
    /// # Errors
    /// It is a worker of another one.
    pub fn check_coordinator(&self, coordinator: &WorkerId) -> Result<(), RemoteError> {
        self.own().belonging.check(Instant::now(), coordinator)
    }

    /// All workers, in order of their ids.
    #[must_use]
    pub fn workers(&self) -> Vec<WorkerInfo> {
        self.members().workers(&Moment::now())
    }

    /// Whether this duckling is a coordinator.
    #[must_use]
    pub fn has_workers(&self) -> bool {
        !self.members().is_empty()
    }

    /// How this duckling divides rows.
    #[must_use]
    pub fn hash_version(&self) -> String {
        hash_version(&self.versions.duckdb)
    }

    /// The workers that are alive, in order of their ids: where new tables may go.
    #[must_use]
    pub fn live(&self) -> Vec<WorkerId> {
        let alive = |worker: &WorkerInfo| worker.state == super::membership::WorkerState::Alive;
        let workers = self.workers().into_iter().filter(alive);
        workers.map(|worker| worker.id).collect()
    }

    /// Where a worker is to be reached, `host:port`. One that is silent, and not yet for long, counts as there.
    ///
    /// # Errors
    /// A `Connection` error that names the worker and its state.
    pub fn address(&self, worker: &WorkerId) -> Result<String, RemoteError> {
        self.members().address(&Moment::now(), worker)
    }

    /// What comes of `work`, which waits for this worker.
    ///
    /// # Errors
    /// Its own, or that the worker is not to be reached any more.
    pub async fn unless_gone<T>(
        &self,
        worker: &WorkerId,
        work: impl Future<Output = Result<T, RemoteError>>,
    ) -> Result<T, RemoteError> {
        tokio::select! {
            biased;
            outcome = work => outcome,
            error = self.gone(std::slice::from_ref(worker)) => Err(error),
        }
    }

    /// Resolves when one of these workers is not to be reached any more, to the error that says so. For whoever waits
    /// for them.
    pub async fn gone(&self, workers: &[WorkerId]) -> RemoteError {
        loop {
            for worker in workers {
                if let Err(error) = self.address(worker) {
                    return error;
                }
            }
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
    }

    /// Makes this duckling a worker of a coordinator under an id, in the place of whoever has that id, and returns when
    /// that is done. From then on it stays in the herd, as with [`DucklingConfig::join`](crate::DucklingConfig::join).
    ///
    /// # Errors
    /// The duckling does not serve, has workers of its own or another coordinator; the coordinator cannot be reached, or
    /// refuses.
    pub async fn join_as(self: &Arc<Self>, config: &JoinConfig, id: WorkerId) -> Result<(), RemoteError> {
        join::join_as(self, config, id).await
    }

    /// How to reach another member, with waits that fit the failure detector.
    ///
    /// # Errors
    /// It is no address.
    pub(super) fn peer(&self, address: &str) -> Result<ClientOptions, RemoteError> {
        let options: ClientOptions = address
            .parse()
            .map_err(|error: duckherder_client::AddressError| invalid(error.to_string()))?;
        Ok(options
            .connect_timeout(self.limits.worker_suspected_after)
            .request_timeout(self.limits.worker_suspected_after)
            // A herd's rows come by other ways.
            .streams(1)
            .ask_workers(false)
            .client_name(concat!("duckling ", env!("CARGO_PKG_VERSION")))
            .duckdb_version(self.versions.duckdb.clone()))
    }

    /// Runs `work` on the database, on a thread that may block.
    async fn on_database<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Connection) -> Result<T, RemoteError> + Send + 'static,
    ) -> Result<T, RemoteError> {
        let database = self.database.clone();
        blocking(move || work(&mut database.connect()?)).await
    }

    /// Keeps this duckling's id, and its coordinator if that one lasts too.
    async fn keep_own(&self, id: WorkerId, coordinator: Option<WorkerId>) -> Result<(), RemoteError> {
        if self.is_lasting {
            let kept = id.clone();
            self.on_database(move |connection| store::keep_node(connection, &kept, coordinator.as_ref()))
                .await?;
        }
        let mut own = self.own();
        own.id = id;
        own.is_kept = true;
        Ok(())
    }

    // What a coordinator is asked.

    /// Makes the duckling at an address a worker of this one. `from` is where the request comes from.
    ///
    /// # Errors
    /// It cannot be reached there, or must not be a worker of this one.
    pub async fn register(
        &self,
        request: RegisterWorkerRequest,
        from: Option<IpAddr>,
    ) -> Result<RegisterWorkerResponse, RemoteError> {
        if let Some(coordinator) = self.coordinator() {
            return Err(invalid(format!(
                "this duckling is a worker of coordinator {} and cannot have workers of its own",
                coordinator.0
            )));
        }
        let options = self.peer(&with_host(&request.address, from)?)?;
        let address = options.address();
        let node = Node::connect(&options)
            .await
            .map_err(|error| unreachable(&request, error.to_remote_error()))?;
        let own_id = {
            let _changing = self.changing.lock().await;
            let (id, is_kept) = {
                let own = self.own();
                (own.id.clone(), own.is_kept)
            };
            if !is_kept {
                self.keep_own(id.clone(), None).await?;
            }
            id
        };
        let claimed = self.claim(&node).await;
        let claimed = claimed.map_err(|error| unreachable(&request, error))?;
        let registration = registration(&claimed, address.clone(), origin(&request));
        if registration.id == own_id {
            return Err(invalid(format!(
                "the duckling at {address} is this coordinator itself; a worker is another one"
            )));
        }
        let outcome = self.admit(&request, registration.clone()).await;
        if let Err(error) = outcome {
            if !self.is_member(&registration.id) {
                // It is not ours after all. One that cannot be told gives up or is told the next time.
                let release = ReleaseWorkerRequest {
                    coordinator_id: own_id.0,
                };
                let _ = node.request(&release).await;
            }
            return Err(error);
        }
        info!(worker = registration.id.0, address, "worker registered");
        Ok(RegisterWorkerResponse {
            worker_id: registration.id.0,
            address,
            coordinator_id: own_id.0,
            heartbeat_interval_ms: millis(self.limits.worker_heartbeat_interval),
        })
    }

    /// Keeps a worker that is there.
    async fn admit(&self, request: &RegisterWorkerRequest, worker: Registration) -> Result<(), RemoteError> {
        if !request.worker_id.is_empty() && request.worker_id != worker.id.0 {
            return Err(invalid(format!(
                "worker {} says that it is at {}, but there is worker {}: is what it advertises right?",
                request.worker_id, worker.address, worker.id.0
            )));
        }
        let _changing = self.changing.lock().await;
        self.members()
            .check(&Moment::now(), &worker, &self.versions, request.replace)?;
        if self.is_lasting {
            let kept = worker.clone();
            self.on_database(move |connection| store::keep_worker(connection, &kept))
                .await?;
        }
        self.members().register(Moment::now(), worker);
        Ok(())
    }

    fn is_member(&self, id: &WorkerId) -> bool {
        self.members().find(&Moment::now(), &id.0).is_some()
    }

    /// Asks a duckling to be a worker of this one.
    async fn claim(&self, node: &Node) -> Result<ClaimWorkerResponse, RemoteError> {
        let request = ClaimWorkerRequest {
            coordinator_id: self.own_id().0,
            coordinator_is_lasting: self.is_lasting,
        };
        node.request(&request).await.map_err(|error| error.to_remote_error())
    }

    /// Asks a worker how it is.
    ///
    /// # Errors
    /// It does not answer, or has been unregistered: it would be claimed again.
    pub(super) async fn probe(&self, worker: &WorkerInfo, node: &Node) -> Result<ClaimWorkerResponse, RemoteError> {
        let _probing = self.probing.read().await;
        if !self.is_member(&worker.id) {
            return Err(invalid(format!("worker {} has been unregistered", worker.id.0)));
        }
        self.claim(node).await
    }

    /// A worker has answered when it was asked how it is.
    ///
    /// # Errors
    /// It is another one, or another process, and cannot be registered.
    pub(super) async fn answered(&self, worker: &WorkerInfo, answer: &ClaimWorkerResponse) -> Result<(), RemoteError> {
        if answer.worker_id != worker.id.0 {
            return Err(invalid(format!(
                "another duckling is there now, with the id {}",
                answer.worker_id
            )));
        }
        let heard = self.members().hear(Moment::now(), &worker.id, &answer.incarnation);
        if heard == Heard::Outdated {
            let request = RegisterWorkerRequest::default();
            let registration = registration(answer, worker.address.clone(), worker.origin);
            self.admit(&request, registration).await?;
            info!(worker = worker.id.0, address = worker.address, "worker is back");
        }
        Ok(())
    }

    /// A worker could not be reached.
    pub(super) fn failed(&self, worker: &WorkerId, error: &RemoteError) {
        self.members().fail(worker, &error.message);
    }

    /// A sign of life has come in, or a farewell.
    ///
    /// # Errors
    /// DuckDB's, if a farewell cannot be kept.
    pub async fn heartbeat(&self, request: HeartbeatRequest) -> Result<HeartbeatResponse, RemoteError> {
        let worker = WorkerId(request.worker_id);
        let now = Moment::now();
        let answer = if request.leaving {
            let _changing = self.changing.lock().await;
            let is_news = self.members().leave(now, &worker, &request.incarnation);
            if is_news {
                info!(worker = worker.0, "worker has left");
                if self.is_lasting {
                    self.on_database(move |connection| store::keep_leave(connection, &worker))
                        .await?;
                }
            }
            HeartbeatAnswer::Known
        } else {
            match self.members().hear(now, &worker, &request.incarnation) {
                Heard::Known => HeartbeatAnswer::Known,
                Heard::Outdated => HeartbeatAnswer::Outdated,
                Heard::Unknown => HeartbeatAnswer::Unknown,
            }
        };
        Ok(HeartbeatResponse {
            answer: answer.into(),
            coordinator_id: self.own_id().0,
        })
    }

    fn placing(&self) -> MutexGuard<'_, Placing> {
        self.placing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A table with rows on these workers is being made: none of them can be unregistered until what is returned is
    /// dropped, after the transaction that makes it.
    ///
    /// # Errors
    /// One of them has just been unregistered, or is about to be.
    pub fn place_on(&self, workers: &[WorkerId]) -> Result<PlaceHold, RemoteError> {
        let members = self.members();
        let now = Moment::now();
        let mut placing = self.placing();
        for worker in workers {
            if placing.leaving.as_ref() == Some(worker) || members.find(&now, &worker.0).is_none() {
                return Err(RemoteError::new(
                    ExceptionType::Connection,
                    format!(
                        "worker {} is being unregistered: the table can be made without it now",
                        worker.0
                    ),
                ));
            }
        }
        for worker in workers {
            *placing.held.entry(worker.clone()).or_default() += 1;
        }
        Ok(PlaceHold {
            workers: workers.to_vec(),
            placing: Arc::clone(&self.placing),
        })
    }

    /// From here on no table is placed on a worker. Held until that is not to be so any more.
    fn leaving(&self, worker: &WorkerId) -> Result<Leaving, RemoteError> {
        let mut placing = self.placing();
        if placing.held.contains_key(worker) {
            return Err(RemoteError::new(
                ExceptionType::Dependency,
                format!(
                    "worker {} is to hold rows of a table that is being made by a transaction which has not ended",
                    worker.0
                ),
            ));
        }
        placing.leaving = Some(worker.clone());
        Ok(Leaving(Arc::clone(&self.placing)))
    }

    /// Those of these workers that the herd has. The others were lost, with their rows.
    #[must_use]
    pub fn members_of(&self, workers: Vec<WorkerId>) -> Vec<WorkerId> {
        workers.into_iter().filter(|worker| self.is_member(worker)).collect()
    }

    /// Takes a worker out of the herd.
    ///
    /// # Errors
    /// There is none with that id or address, or tables have partitions there and it is not lost; or it should be lost,
    /// and is there.
    pub async fn unregister(&self, request: UnregisterWorkerRequest) -> Result<UnregisterWorkerResponse, RemoteError> {
        let _changing = self.changing.lock().await;
        let named = request.worker.parse::<ClientOptions>().map(|options| options.address());
        let now = Moment::now();
        let found = {
            let members = self.members();
            members
                .find(&now, &request.worker)
                .or_else(|| members.find(&now, &named.ok()?))
        };
        let Some(worker) = found else {
            return Err(invalid(format!(
                "there is no worker '{}' here; FROM duckherder_workers() lists those that there are",
                request.worker
            )));
        };
        if request.lost && worker.state.is_usable() {
            return Err(invalid(format!(
                "worker {} at {} is {}, and not lost: drop what is there, and unregister it",
                worker.id.0,
                worker.address,
                worker.state.name()
            )));
        }
        let _leaving = self.leaving(&worker.id)?;
        let (id, is_lasting) = (worker.id.clone(), self.is_lasting);
        self.on_database(move |connection| {
            let tables = placements::tables_on(connection, &id)?;
            if !tables.is_empty() && !request.lost {
                return Err(RemoteError::new(
                    ExceptionType::Dependency,
                    format!(
                        "worker {} holds rows of {}: drop what is there first, or, if it is gone for good, call \
                         duckherder_forget_worker()",
                        id.0,
                        placements::list(&tables)
                    ),
                ));
            }
            if is_lasting {
                store::forget_worker(connection, &id)?;
            }
            Ok(())
        })
        .await?;
        self.members().remove(&worker.id);
        info!(worker = worker.id.0, address = worker.address, "worker unregistered");
        // A probe under way would claim it once more. It is told also if it counts as down: it may be back, and not heard yet.
        drop(self.probing.write().await);
        if let Err(error) = self.release(&worker.address).await {
            warn!(
                worker = worker.id.0,
                %error, "the worker could not be told that it is unregistered"
            );
        }
        Ok(UnregisterWorkerResponse {
            worker_id: worker.id.0,
            address: worker.address,
        })
    }

    /// Lets go of a worker, if it is there.
    async fn release(&self, address: &str) -> Result<(), RemoteError> {
        let request = ReleaseWorkerRequest {
            coordinator_id: self.own_id().0,
        };
        let peer = self.peer(address)?;
        let released = tokio::time::timeout(RELEASE_TIMEOUT, async {
            Node::connect(&peer).await?.request(&request).await
        });
        match released.await {
            Ok(released) => released.map(|_| ()).map_err(|error| error.to_remote_error()),
            Err(_) => Err(RemoteError::new(
                ExceptionType::Connection,
                format!("no answer within {} s", RELEASE_TIMEOUT.as_secs()),
            )),
        }
    }

    // What a worker is asked.

    /// A coordinator wants this duckling for a worker, or wants to know how it is.
    ///
    /// # Errors
    /// This duckling has another coordinator, or is one.
    pub async fn be_claimed(&self, request: ClaimWorkerRequest) -> Result<ClaimWorkerResponse, RemoteError> {
        let owner = Owner {
            id: WorkerId(request.coordinator_id),
            is_lasting: request.coordinator_is_lasting,
        };
        check_id(&owner.id)?;
        if owner.id != self.own_id() {
            let is_known = {
                let mut own = self.own();
                let now = Instant::now();
                own.belonging.check(now, &owner.id)?;
                let is_known = own.belonging.owner(now) == Some(&owner);
                if is_known {
                    own.belonging.claim(now, owner.clone());
                }
                is_known
            };
            if !is_known {
                self.become_worker(owner).await?;
            }
        }
        Ok(ClaimWorkerResponse {
            worker_id: self.own_id().0,
            incarnation: self.incarnation.to_vec().into(),
            duckdb_version: self.versions.duckdb.clone(),
            protocol_version: self.versions.protocol,
        })
    }

    async fn become_worker(&self, owner: Owner) -> Result<(), RemoteError> {
        let _changing = self.changing.lock().await;
        if self.has_workers() {
            return Err(invalid(format!(
                "this duckling, {}, has workers of its own and cannot be a worker",
                self.own_id().0
            )));
        }
        // Another one may have come first.
        self.check_coordinator(&owner.id)?;
        let kept = owner.is_lasting.then(|| owner.id.clone());
        self.keep_own(self.own_id(), kept).await?;
        info!(coordinator = owner.id.0, "this duckling is a worker now");
        self.own().belonging.claim(Instant::now(), owner);
        Ok(())
    }

    /// A coordinator lets go of this duckling.
    ///
    /// # Errors
    /// DuckDB's, if that cannot be kept.
    pub async fn be_released(&self, coordinator: &WorkerId) -> Result<(), RemoteError> {
        let _changing = self.changing.lock().await;
        let had = self.own().belonging.release(coordinator);
        if had {
            self.keep_own(self.own_id(), None).await?;
            info!(coordinator = coordinator.0, "this duckling is no worker any more");
        }
        Ok(())
    }

    /// The coordinator has answered a heartbeat, which was sent at `sent`.
    pub(super) fn coordinator_is_there(&self, coordinator: &WorkerId, sent: Instant) {
        let mut own = self.own();
        let owner = own
            .belonging
            .owner(Instant::now())
            .filter(|owner| owner.id == *coordinator);
        if let Some(owner) = owner.cloned() {
            own.belonging.claim(sent, owner);
        }
    }

    /// Gives this duckling another id.
    ///
    /// # Errors
    /// The id cannot be one, the duckling is a coordinator, or DuckDB's.
    pub(super) async fn take_id(&self, id: WorkerId) -> Result<(), RemoteError> {
        check_id(&id)?;
        let _changing = self.changing.lock().await;
        if self.own_id() == id {
            return Ok(());
        }
        if self.has_workers() {
            return Err(invalid(format!(
                "this duckling, {}, has workers of its own and cannot be a worker",
                self.own_id().0
            )));
        }
        if let Some(coordinator) = self.coordinator() {
            return Err(invalid(format!(
                "this duckling is worker {} of coordinator {}: unregister it there first, with \
                 duckherder_unregister_worker()",
                self.own_id().0,
                coordinator.0
            )));
        }
        self.keep_own(id, None).await
    }
}

/// What a coordinator knows of a worker that has answered.
fn registration(claimed: &ClaimWorkerResponse, address: String, origin: Origin) -> Registration {
    Registration {
        id: WorkerId(claimed.worker_id.clone()),
        incarnation: claimed.incarnation.to_vec(),
        address,
        versions: Versions {
            duckdb: claimed.duckdb_version.clone(),
            protocol: claimed.protocol_version,
        },
        origin,
    }
}

/// Who registers itself knows its id.
fn origin(request: &RegisterWorkerRequest) -> Origin {
    if request.worker_id.is_empty() {
        Origin::Named
    } else {
        Origin::Joined
    }
}

/// The address, with the host that the request comes from if it has none.
fn with_host(address: &str, from: Option<IpAddr>) -> Result<String, RemoteError> {
    if !address.starts_with(':') {
        return Ok(address.to_owned());
    }
    match from.map(|ip| ip.to_canonical()) {
        Some(IpAddr::V6(ip)) => Ok(format!("[{ip}]{address}")),
        Some(IpAddr::V4(ip)) => Ok(format!("{ip}{address}")),
        None => Err(invalid(format!(
            "'{address}' has no host, and where it comes from is not known"
        ))),
    }
}

/// The error of a coordinator that does not get through to a worker. One that has registered itself may be elsewhere.
fn unreachable(request: &RegisterWorkerRequest, mut error: RemoteError) -> RemoteError {
    if error.kind == ExceptionType::Connection && !request.worker_id.is_empty() {
        error.message = format!(
            "the coordinator does not reach this worker at the address that it gives: {}; if the address is not right, \
             start the worker with --advertise HOST:PORT",
            error.message
        );
    }
    error
}

fn new_id() -> WorkerId {
    WorkerId(uuid::Uuid::new_v4().to_string())
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn invalid(message: String) -> RemoteError {
    RemoteError::new(ExceptionType::InvalidInput, message)
}
