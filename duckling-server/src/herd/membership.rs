//! Who belongs to a herd: functions of what has been heard and of the time. No clock, no network, no database.
//!
//! [`Membership`] is a coordinator's view of its workers. It knows of no ticking: a worker's state follows from when it
//! was heard of last. [`Belonging`] is a worker's view of its coordinator.

use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime};

use duckherder_catalog::herd::placement::WorkerId;
use duckherder_proto::{ExceptionType, RemoteError};

/// Bytes of a worker's id.
pub const ID_BYTES_MAX: usize = 128;

/// Characters kept of why a worker could not be reached.
const PROBLEM_CHARS_MAX: usize = 300;

/// A point in time, on the clock that only goes forward and on that of the wall.
#[derive(Debug, Clone, Copy)]
pub struct Moment {
    /// What durations are measured with.
    pub instant: Instant,
    /// What people are shown.
    pub wall: SystemTime,
}

impl Moment {
    /// Now.
    pub fn now() -> Self {
        Self {
            instant: Instant::now(),
            wall: SystemTime::now(),
        }
    }

    fn since(&self, earlier: &Self) -> Duration {
        self.instant.saturating_duration_since(earlier.instant)
    }

    fn after(&self, duration: Duration) -> SystemTime {
        self.wall.checked_add(duration).unwrap_or(self.wall)
    }
}

/// How a worker is, as far as the coordinator knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WorkerState {
    /// It was heard of just now.
    Alive,
    /// It has been silent for a while. It may be slow: statements still go there.
    Suspected,
    /// It has been silent for too long: statements that need it fail at once.
    Down,
    /// It has said that it stops.
    Left,
}

impl WorkerState {
    /// The word that SQL shows.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Alive => "alive",
            Self::Suspected => "suspected",
            Self::Down => "down",
            Self::Left => "left",
        }
    }

    /// Whether statements are sent to such a worker.
    #[must_use]
    pub fn is_usable(self) -> bool {
        matches!(self, Self::Alive | Self::Suspected)
    }
}

/// How a worker has become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// It has joined by itself, and sends heartbeats.
    Joined,
    /// Somebody has named its address; the coordinator asks it how it is.
    Named,
}

impl Origin {
    /// The word that SQL shows, and that the registry keeps.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Joined => "joined",
            Self::Named => "named",
        }
    }

    /// The origin with that name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Joined, Self::Named]
            .into_iter()
            .find(|origin| origin.name() == name)
    }
}

/// The versions that all members of a herd must have in common.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Versions {
    /// DuckDB's, for example `v2.0.0`: hashes, plans and SQL texts are those of one version.
    pub duckdb: String,
    /// The protocol's.
    pub protocol: u32,
}

/// Whether `id` may be a worker's id.
///
/// # Errors
/// It is empty or too long, or has characters besides ASCII letters, digits, `-`, `_` and `.`.
pub fn check_id(id: &WorkerId) -> Result<(), RemoteError> {
    let is_fine = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    if id.0.is_empty() || id.0.len() > ID_BYTES_MAX || !id.0.bytes().all(is_fine) {
        return Err(invalid(format!(
            "'{:.ID_BYTES_MAX$}' cannot be the id of a worker: use up to {ID_BYTES_MAX} letters, digits, '-', '_' and '.'",
            id.0
        )));
    }
    Ok(())
}

/// How long silence may last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// A worker that has been silent for so long is suspected.
    pub suspected_after: Duration,
    /// A worker that has been silent for so long is down.
    pub down_after: Duration,
}

/// A worker that registers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registration {
    /// Its id.
    pub id: WorkerId,
    /// Tells its processes apart: chosen anew at each start.
    pub incarnation: Vec<u8>,
    /// `host:port`, at which it has just answered.
    pub address: String,
    /// Its versions.
    pub versions: Versions,
    /// How it has become a worker.
    pub origin: Origin,
}

/// What is known of a worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkerInfo {
    /// Its id.
    pub id: WorkerId,
    /// `host:port`
    pub address: String,
    /// How it is.
    pub state: WorkerState,
    /// Since when it is so.
    pub since: SystemTime,
    /// When it was heard of last; `None` if that was before the coordinator was started.
    pub last_heartbeat: Option<SystemTime>,
    /// Its versions.
    pub versions: Versions,
    /// How it has become a worker.
    pub origin: Origin,
}

/// How a worker has gone, if it has.
#[derive(Debug, Clone, Copy)]
enum Gone {
    /// It has said so.
    Left(Moment),
    /// Another one answers at its address.
    Displaced(Moment),
}

#[derive(Debug, Clone)]
struct Member {
    registration: Registration,
    /// When it was heard of last, or was read from the registry if that is `None` below.
    heard: Moment,
    is_heard: bool,
    /// Since when it has been alive without a break.
    alive_since: Moment,
    gone: Option<Gone>,
    /// Why it could not be reached, since it was heard of last.
    problem: Option<String>,
}

impl Member {
    fn state(&self, now: &Moment, patience: &Patience) -> (WorkerState, SystemTime) {
        let silent = now.since(&self.heard);
        match self.gone {
            Some(Gone::Left(moment)) => (WorkerState::Left, moment.wall),
            Some(Gone::Displaced(moment)) => (WorkerState::Down, moment.wall),
            None if silent >= patience.down_after => (WorkerState::Down, self.heard.after(patience.down_after)),
            // Nobody can say yet.
            None if !self.is_heard => (WorkerState::Suspected, self.heard.wall),
            None if silent >= patience.suspected_after => {
                (WorkerState::Suspected, self.heard.after(patience.suspected_after))
            }
            None => (WorkerState::Alive, self.alive_since.wall),
        }
    }

    fn hear(&mut self, now: Moment, patience: &Patience) {
        if self.state(&now, patience).0 != WorkerState::Alive {
            self.alive_since = now;
        }
        self.heard = now;
        self.is_heard = true;
        self.gone = None;
        self.problem = None;
    }

    fn info(&self, now: &Moment, patience: &Patience) -> WorkerInfo {
        let (state, since) = self.state(now, patience);
        let Registration {
            id,
            address,
            versions,
            origin,
            ..
        } = self.registration.clone();
        WorkerInfo {
            id,
            address,
            state,
            since,
            last_heartbeat: self.is_heard.then_some(self.heard.wall),
            versions,
            origin,
        }
    }
}

/// What a heartbeat is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heard {
    /// The worker is registered.
    Known,
    /// The worker is registered, but not this process of it, or as one that has gone: it has to register again.
    Outdated,
    /// There is no such worker.
    Unknown,
}

/// A coordinator's workers.
#[derive(Debug, Clone)]
pub struct Membership {
    members: BTreeMap<WorkerId, Member>,
    patience: Patience,
    workers_max: usize,
}

impl Membership {
    /// No workers.
    #[must_use]
    pub fn new(patience: Patience, workers_max: usize) -> Self {
        Self {
            members: BTreeMap::new(),
            patience,
            workers_max,
        }
    }

    /// Adds a worker that was registered before the coordinator was started, and has left since or not.
    pub fn restore(&mut self, now: Moment, registration: Registration, has_left: bool) {
        let member = Member {
            heard: now,
            is_heard: false,
            alive_since: now,
            gone: has_left.then_some(Gone::Left(now)),
            problem: None,
            registration,
        };
        self.members.insert(member.registration.id.clone(), member);
    }

    /// Whether a worker that has answered at its address may register. With `replace`, also in the place of one with
    /// the same id that is alive elsewhere.
    ///
    /// # Errors
    /// Its versions are not the herd's, its id is taken, or there are too many.
    pub fn check(
        &self,
        now: &Moment,
        registration: &Registration,
        versions: &Versions,
        replace: bool,
    ) -> Result<(), RemoteError> {
        let Registration { id, address, .. } = registration;
        check_id(id)?;
        let theirs = &registration.versions;
        if theirs != versions {
            return Err(invalid(format!(
                "the duckling at {address} cannot be a worker here: it has DuckDB {} and protocol version {}, the \
                 coordinator has DuckDB {} and protocol version {}; a herd needs the same everywhere",
                theirs.duckdb, theirs.protocol, versions.duckdb, versions.protocol
            )));
        }
        match self.members.get(id) {
            Some(member)
                if !replace
                    && member.registration.address != *address
                    && member.registration.incarnation != registration.incarnation
                    && member.state(now, &self.patience).0 == WorkerState::Alive =>
            {
                Err(invalid(format!(
                    "the duckling at {address} has the id {id}, and so has the worker at {}, which is alive: is its \
                     database a copy of that one's? Each needs one of its own",
                    member.registration.address,
                    id = id.0,
                )))
            }
            None if self.members.len() >= self.workers_max => Err(invalid(format!(
                "this coordinator has {} workers, its limit: unregister one first",
                self.members.len()
            ))),
            _ => Ok(()),
        }
    }

    /// A worker has registered, and is alive. Whoever was registered with its address is not there any more.
    pub fn register(&mut self, now: Moment, registration: Registration) {
        for member in self.members.values_mut() {
            let before = &member.registration;
            if before.address == registration.address && before.id != registration.id && member.gone.is_none() {
                member.gone = Some(Gone::Displaced(now));
            }
        }
        let patience = self.patience;
        let id = registration.id.clone();
        let member = self.members.entry(id).or_insert_with(|| Member {
            registration: registration.clone(),
            heard: now,
            is_heard: true,
            alive_since: now,
            gone: None,
            problem: None,
        });
        member.hear(now, &patience);
        member.registration = registration;
    }

    /// A worker has sent a sign of life, or answered.
    pub fn hear(&mut self, now: Moment, id: &WorkerId, incarnation: &[u8]) -> Heard {
        let patience = self.patience;
        let Some(member) = self.members.get_mut(id) else {
            return Heard::Unknown;
        };
        if member.registration.incarnation != incarnation || member.gone.is_some() {
            return Heard::Outdated;
        }
        member.hear(now, &patience);
        Heard::Known
    }

    /// A worker could not be reached: one more reason to say so if it stays silent.
    pub fn fail(&mut self, id: &WorkerId, problem: &str) {
        if let Some(member) = self.members.get_mut(id) {
            member.problem = Some(problem.chars().take(PROBLEM_CHARS_MAX).collect());
        }
    }

    /// A worker has said that it stops; whether that is news.
    pub fn leave(&mut self, now: Moment, id: &WorkerId, incarnation: &[u8]) -> bool {
        match self.members.get_mut(id) {
            // A word of an earlier process must not count against the one that has come after it.
            Some(member) if member.registration.incarnation == incarnation => {
                let is_news = !matches!(member.gone, Some(Gone::Left(_)));
                if is_news {
                    member.gone = Some(Gone::Left(now));
                }
                is_news
            }
            _ => false,
        }
    }

    /// The worker with that id, or else the one with that address.
    #[must_use]
    pub fn find(&self, now: &Moment, id_or_address: &str) -> Option<WorkerInfo> {
        let by_id = self.members.get(&WorkerId(id_or_address.to_owned()));
        let mut by_address: Vec<_> = self
            .members
            .values()
            .filter(|member| member.registration.address == id_or_address)
            .collect();
        // An address may have had several: the one that is there now is meant.
        by_address.sort_by_key(|member| (member.gone.is_some(), std::cmp::Reverse(member.heard.instant)));
        let member = by_id.or_else(|| by_address.first().copied())?;
        Some(member.info(now, &self.patience))
    }

    /// Forgets a worker.
    pub fn remove(&mut self, id: &WorkerId) {
        self.members.remove(id);
    }

    /// All workers, in order of their ids.
    #[must_use]
    pub fn workers(&self, now: &Moment) -> Vec<WorkerInfo> {
        let infos = self.members.values().map(|member| member.info(now, &self.patience));
        infos.collect()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// Where a worker is to be reached by statements.
    ///
    /// # Errors
    /// A `Connection` error that names it and its state, if it is not there.
    pub fn address(&self, now: &Moment, id: &WorkerId) -> Result<String, RemoteError> {
        let unusable = |text: String| Err(RemoteError::new(ExceptionType::Connection, text));
        let Some(member) = self.members.get(id) else {
            return unusable(format!(
                "worker {} is not registered here: start it with --join, or register it with \
                 duckherder_register_worker()",
                id.0
            ));
        };
        let address = &member.registration.address;
        let name = format!("worker {} at {address}", id.0);
        let why = member
            .problem
            .as_ref()
            .map_or(String::new(), |problem| format!(" ({problem})"));
        match (member.state(now, &self.patience).0, member.gone) {
            (WorkerState::Alive | WorkerState::Suspected, _) => Ok(address.clone()),
            (WorkerState::Left, _) => unusable(format!("{name} has left: it was shut down, and is not back yet")),
            (WorkerState::Down, Some(_)) => unusable(format!("{name} is down: another duckling is there now")),
            (WorkerState::Down, None) if member.is_heard => unusable(format!(
                "{name} is down: nothing was heard of it for {} s{why}",
                now.since(&member.heard).as_secs()
            )),
            (WorkerState::Down, None) => unusable(format!(
                "{name} is down: nothing was heard of it since this coordinator was started{why}"
            )),
        }
    }
}

/// Whom a worker belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    /// The coordinator's id.
    pub id: WorkerId,
    /// Whether the coordinator comes back under that id when it is restarted: it has a database file.
    pub is_lasting: bool,
}

/// A worker's side of membership: one coordinator at most.
#[derive(Debug, Clone)]
pub struct Belonging {
    owner: Option<(Owner, Instant)>,
    /// A coordinator that does not last is given up when it has been silent for so long.
    give_up_after: Duration,
    /// So long after this worker was there, the coordinator does not give it up.
    lease: Duration,
    /// When the coordinator found it there last.
    found: Option<Instant>,
    term: u64,
}

impl Belonging {
    /// As kept from before.
    #[must_use]
    pub fn new(owner: Option<WorkerId>, now: Instant, patience: Patience) -> Self {
        let lasting = |id| (Owner { id, is_lasting: true }, now);
        Self {
            owner: owner.map(lasting),
            give_up_after: patience.down_after,
            lease: patience.suspected_after,
            found: None,
            term: 0,
        }
    }

    /// Counts the times that the worker has been found by a coordinator after it had none, another one, or one that might have given
    /// it up. `None` if it may have given it up by now: what it holds may be no part of the herd any more.
    #[must_use]
    pub fn term(&self, now: Instant) -> Option<u64> {
        let is_found = self
            .found
            .is_some_and(|found| now.saturating_duration_since(found) < self.lease);
        (is_found && self.owner.is_some()).then_some(self.term)
    }

    /// The coordinator, if there is one.
    #[must_use]
    pub fn owner(&self, now: Instant) -> Option<&Owner> {
        let (owner, heard) = self.owner.as_ref()?;
        let is_given_up = !owner.is_lasting && now.saturating_duration_since(*heard) >= self.give_up_after;
        (!is_given_up).then_some(owner)
    }

    /// Whether `coordinator` may have this worker, or has it.
    ///
    /// # Errors
    /// Another one has it.
    pub fn check(&self, now: Instant, coordinator: &WorkerId) -> Result<(), RemoteError> {
        match self.owner(now) {
            Some(owner) if owner.id != *coordinator => Err(RemoteError::new(
                ExceptionType::ResourceInUse,
                format!(
                    "this duckling is a worker of coordinator {}, and not of coordinator {}: unregister it there first, \
                     with duckherder_unregister_worker()",
                    owner.id.0, coordinator.0
                ),
            )),
            _ => Ok(()),
        }
    }

    /// `coordinator`, which may, takes this worker, or has been heard of again; it has found it there no earlier than at `found`.
    pub fn claim(&mut self, found: Instant, coordinator: Owner) {
        let before = self.owner.as_ref().filter(|(owner, _)| owner.id == coordinator.id);
        let heard = before.map_or(found, |(_, heard)| found.max(*heard));
        let goes_on = before.is_some() && self.term(found).is_some();
        self.term += u64::from(!goes_on);
        self.found = self.found.max(Some(found));
        self.owner = Some((coordinator, heard));
    }

    /// `coordinator` lets go of this worker; whether it had it.
    pub fn release(&mut self, coordinator: &WorkerId) -> bool {
        let had = matches!(&self.owner, Some((owner, _)) if owner.id == *coordinator);
        if had {
            self.owner = None;
            self.found = None;
        }
        had
    }
}

fn invalid(message: String) -> RemoteError {
    RemoteError::new(ExceptionType::InvalidInput, message)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PATIENCE: Patience = Patience {
        suspected_after: Duration::from_secs(3),
        down_after: Duration::from_secs(5),
    };

    fn start() -> Moment {
        Moment {
            instant: Instant::now(),
            wall: SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000),
        }
    }

    fn at(start: Moment, seconds: f64) -> Moment {
        let passed = Duration::from_secs_f64(seconds);
        Moment {
            instant: start.instant + passed,
            wall: start.wall + passed,
        }
    }

    fn id(text: &str) -> WorkerId {
        WorkerId(text.to_owned())
    }

    fn versions() -> Versions {
        Versions {
            duckdb: "v2.0.0".to_owned(),
            protocol: 1,
        }
    }

    fn registration(name: &str, incarnation: u8, address: &str) -> Registration {
        Registration {
            id: id(name),
            incarnation: vec![incarnation],
            address: address.to_owned(),
            versions: versions(),
            origin: Origin::Joined,
        }
    }

    fn membership() -> Membership {
        Membership::new(PATIENCE, 3)
    }

    fn state(membership: &Membership, now: Moment, name: &str) -> WorkerState {
        membership.find(&now, name).unwrap().state
    }

    fn refusal(membership: &Membership, now: Moment, registration: &Registration) -> String {
        let refused = membership.check(&now, registration, &versions(), false);
        refused.unwrap_err().message
    }

    #[test]
    fn silence_makes_suspected_and_then_down() {
        let start = start();
        let mut members = membership();
        members.register(start, registration("a", 1, "h:1"));
        let expected = [
            (2.9, WorkerState::Alive, 0.0),
            (3.0, WorkerState::Suspected, 3.0),
            (4.9, WorkerState::Suspected, 3.0),
            (5.0, WorkerState::Down, 5.0),
            (500.0, WorkerState::Down, 5.0),
        ];
        for (seconds, state, since) in expected {
            let info = members.find(&at(start, seconds), "a").unwrap();
            assert_eq!((info.state, info.since), (state, at(start, since).wall), "{seconds}");
            assert_eq!(info.last_heartbeat, Some(start.wall));
        }
        // A late heartbeat makes it alive again, from then on.
        assert_eq!(members.hear(at(start, 600.0), &id("a"), &[1]), Heard::Known);
        assert_eq!(members.hear(at(start, 601.0), &id("a"), &[1]), Heard::Known);
        let info = members.find(&at(start, 602.0), "a").unwrap();
        assert_eq!((info.state, info.since), (WorkerState::Alive, at(start, 600.0).wall));
    }

    proptest! {
        /// Nothing that a worker sends has a time in it, and the coordinator's own clock may be set: only what has passed
        /// on the clock that goes forward counts.
        #[test]
        fn no_clock_on_the_wall_decides_anything(
            times in proptest::collection::vec((0.0_f64..20.0, any::<bool>(), -1e9_f64..1e9), 1..30),
        ) {
            let start = start();
            let (mut plain, mut skewed) = (membership(), membership());
            plain.register(start, registration("a", 1, "h:1"));
            skewed.register(start, registration("a", 1, "h:1"));
            let mut passed = 0.0;
            for (seconds, is_heard, skew) in times {
                passed += seconds;
                let now = at(start, passed);
                let wall = match Duration::try_from_secs_f64(skew.abs()) {
                    Ok(by) if skew < 0.0 => now.wall.checked_sub(by),
                    Ok(by) => now.wall.checked_add(by),
                    Err(_) => None,
                };
                let wrong = Moment { wall: wall.unwrap_or(now.wall), ..now };
                if is_heard {
                    prop_assert_eq!(plain.hear(now, &id("a"), &[1]), skewed.hear(wrong, &id("a"), &[1]));
                }
                prop_assert_eq!(state(&plain, now, "a"), state(&skewed, wrong, "a"));
                prop_assert_eq!(plain.address(&now, &id("a")), skewed.address(&wrong, &id("a")));
            }
        }
    }

    #[test]
    fn statements_go_to_the_suspected_and_not_to_the_dead() {
        let start = start();
        let mut members = membership();
        members.register(start, registration("a", 1, "h:1"));
        assert_eq!(members.address(&at(start, 4.0), &id("a")).unwrap(), "h:1");
        let error = members.address(&at(start, 7.5), &id("a")).unwrap_err();
        assert_eq!(
            error.message,
            "worker a at h:1 is down: nothing was heard of it for 7 s"
        );
        members.fail(&id("a"), "connection refused");
        let down = "worker a at h:1 is down: nothing was heard of it for 7 s (connection refused)";
        assert_eq!(members.address(&at(start, 7.5), &id("a")).unwrap_err().message, down);
        let error = members.address(&start, &id("b")).unwrap_err();
        assert!(error.message.starts_with("worker b is not registered here"), "{error}");
        members.leave(at(start, 1.0), &id("a"), &[1]);
        let error = members.address(&at(start, 1.0), &id("a")).unwrap_err();
        assert_eq!(error.kind, ExceptionType::Connection);
        assert!(error.message.starts_with("worker a at h:1 has left"), "{error}");
    }

    #[test]
    fn a_worker_leaves_and_returns_under_its_id() {
        let start = start();
        let mut members = membership();
        members.register(start, registration("a", 1, "h:1"));
        assert!(members.leave(at(start, 1.0), &id("a"), &[1]));
        assert!(!members.leave(at(start, 2.0), &id("a"), &[1]), "it is no news");
        let info = members.find(&at(start, 90.0), "a").unwrap();
        assert_eq!((info.state, info.since), (WorkerState::Left, at(start, 1.0).wall));
        // Another process, at another port.
        let again = registration("a", 2, "h:2");
        members.check(&at(start, 90.0), &again, &versions(), false).unwrap();
        members.register(at(start, 90.0), again);
        assert_eq!(members.workers(&at(start, 90.0)).len(), 1);
        assert_eq!(members.address(&at(start, 90.0), &id("a")).unwrap(), "h:2");
        // What the first process said is over.
        assert_eq!(members.hear(at(start, 91.0), &id("a"), &[1]), Heard::Outdated);
        assert!(!members.leave(at(start, 91.0), &id("a"), &[1]));
        assert_eq!(state(&members, at(start, 91.0), "a"), WorkerState::Alive);
    }

    #[test]
    fn an_id_belongs_to_one_living_worker() {
        let start = start();
        let mut members = membership();
        members.register(start, registration("a", 1, "h:1"));
        let copy = registration("a", 2, "h:2");
        assert!(refusal(&members, at(start, 1.0), &copy).contains("h:1, which is alive"));
        // The first is silent, is at the same address, or is to be replaced.
        members.check(&at(start, 3.0), &copy, &versions(), false).unwrap();
        members.check(&at(start, 1.0), &copy, &versions(), true).unwrap();
        let restarted = registration("a", 2, "h:1");
        members.check(&at(start, 1.0), &restarted, &versions(), false).unwrap();
        for wrong in ["", "a b", "ü", "a'", &"x".repeat(ID_BYTES_MAX + 1)] {
            refusal(&members, start, &registration(wrong, 1, "h:9"));
        }
    }

    #[test]
    fn versions_must_be_the_same() {
        let mut other = registration("a", 1, "h:1");
        other.versions.duckdb = "v2.0.1".to_owned();
        assert_eq!(
            refusal(&membership(), start(), &other),
            "the duckling at h:1 cannot be a worker here: it has DuckDB v2.0.1 and protocol version 1, the coordinator \
             has DuckDB v2.0.0 and protocol version 1; a herd needs the same everywhere"
        );
        other.versions = Versions {
            protocol: 2,
            ..versions()
        };
        assert!(refusal(&membership(), start(), &other).contains("protocol version 2"));
    }

    #[test]
    fn their_number_is_bounded() {
        let start = start();
        let mut members = membership();
        for name in ["a", "b", "c"] {
            members.register(start, registration(name, 1, name));
        }
        assert!(refusal(&members, start, &registration("d", 1, "d")).contains("has 3 workers, its limit"));
        members
            .check(&start, &registration("a", 2, "a"), &versions(), false)
            .unwrap();
        members.remove(&id("b"));
        members
            .check(&start, &registration("d", 1, "d"), &versions(), false)
            .unwrap();
    }

    #[test]
    fn who_answers_at_an_address_displaces_who_was_there() {
        let start = start();
        let mut members = membership();
        members.register(start, registration("a", 1, "h:1"));
        members.register(at(start, 1.0), registration("b", 1, "h:1"));
        assert_eq!(state(&members, at(start, 1.0), "a"), WorkerState::Down);
        assert_eq!(members.find(&at(start, 1.0), "h:1").unwrap().id, id("b"));
        let error = members.address(&at(start, 1.0), &id("a")).unwrap_err();
        assert!(error.message.contains("another duckling is there now"), "{error}");
        // It is elsewhere: it has to say where.
        assert_eq!(members.hear(at(start, 2.0), &id("a"), &[1]), Heard::Outdated);
        members.register(at(start, 3.0), registration("a", 1, "h:2"));
        assert_eq!(state(&members, at(start, 3.0), "a"), WorkerState::Alive);
        assert_eq!(state(&members, at(start, 3.0), "b"), WorkerState::Alive);
    }

    #[test]
    fn the_registered_are_expected_after_a_restart() {
        let start = start();
        let mut members = membership();
        members.restore(start, registration("a", 0, "h:1"), false);
        members.restore(start, registration("b", 0, "h:2"), true);
        let info = members.find(&at(start, 1.0), "a").unwrap();
        assert_eq!((info.state, info.last_heartbeat), (WorkerState::Suspected, None));
        assert_eq!(state(&members, at(start, 1.0), "b"), WorkerState::Left);
        // Its process is not known any more: it registers again.
        assert_eq!(members.hear(at(start, 1.0), &id("a"), &[1]), Heard::Outdated);
        let error = members.address(&at(start, 5.0), &id("a")).unwrap_err();
        assert!(error.message.contains("since this coordinator was started"), "{error}");
        members.register(at(start, 6.0), registration("a", 1, "h:1"));
        assert_eq!(state(&members, at(start, 6.0), "a"), WorkerState::Alive);
        assert_eq!(members.hear(at(start, 7.0), &id("c"), &[1]), Heard::Unknown);
    }

    #[test]
    fn the_clock_of_the_wall_decides_nothing() {
        let start = start();
        let mut members = membership();
        members.register(start, registration("a", 1, "h:1"));
        let mut later = at(start, 1.0);
        later.wall = SystemTime::UNIX_EPOCH;
        assert_eq!(state(&members, later, "a"), WorkerState::Alive);
        later.wall = start.wall + Duration::from_secs(1_000_000);
        assert_eq!(state(&members, later, "a"), WorkerState::Alive);
    }

    #[test]
    fn a_worker_has_one_coordinator() {
        let now = Instant::now();
        let later = now + PATIENCE.down_after;
        let owner = |name, is_lasting| Owner {
            id: id(name),
            is_lasting,
        };
        let mut belonging = Belonging::new(None, now, PATIENCE);
        belonging.check(now, &id("a")).unwrap();
        belonging.claim(now, owner("a", true));
        belonging.check(later, &id("a")).unwrap();
        let error = belonging.check(later, &id("b")).unwrap_err();
        assert_eq!(error.kind, ExceptionType::ResourceInUse);
        assert!(
            error.message.contains("coordinator a, and not of coordinator b"),
            "{error}"
        );
        assert!(!belonging.release(&id("b")));
        assert!(belonging.release(&id("a")));
        belonging.check(later, &id("b")).unwrap();
        // One without a file does not come back.
        belonging.claim(now, owner("memory", false));
        belonging.check(now, &id("b")).unwrap_err();
        belonging.check(later, &id("b")).unwrap();
        assert_eq!(belonging.owner(later), None);
        // What was kept from before lasts.
        let belonging = Belonging::new(Some(id("a")), now, PATIENCE);
        belonging.check(later, &id("b")).unwrap_err();
    }

    #[test]
    fn a_worker_that_may_have_been_given_up_does_not_go_on_as_before() {
        let start = start();
        let at = |seconds| at(start, seconds).instant;
        let owner = |name: &str| Owner {
            id: id(name),
            is_lasting: true,
        };
        let mut belonging = Belonging::new(Some(id("a")), at(0.0), PATIENCE);
        assert_eq!(belonging.term(at(0.0)), None, "it was not found since it was started");
        belonging.claim(at(1.0), owner("a"));
        let first = belonging.term(at(1.0));
        assert!(first.is_some());
        belonging.claim(at(3.5), owner("a"));
        assert_eq!(belonging.term(at(6.0)), first, "it was found in time");
        // Answered late, a heartbeat says no more than that it was there when it was sent.
        belonging.claim(at(4.0), owner("a"));
        assert_eq!(belonging.term(at(6.9)), first);
        assert_eq!(belonging.term(at(7.1)), None);
        belonging.claim(at(3.9), owner("a"));
        assert_eq!(belonging.term(at(7.1)), None);
        belonging.claim(at(8.0), owner("a"));
        let second = belonging.term(at(8.0));
        assert!(second > first, "it may have been given up in between");
        belonging.claim(at(9.0), owner("b"));
        let third = belonging.term(at(9.0));
        assert!(third > second, "it has another coordinator");
        assert!(belonging.release(&id("b")));
        assert_eq!(belonging.term(at(9.0)), None, "it has none");
        belonging.claim(at(9.5), owner("b"));
        assert!(belonging.term(at(9.5)) > third);
    }

    #[derive(Debug, Clone)]
    enum Event {
        Pass(f64),
        Register(usize, u8, usize),
        Hear(usize, u8),
        Leave(usize, u8),
        Remove(usize),
    }

    fn event() -> impl Strategy<Value = Event> {
        prop_oneof![
            (0.0..4.0).prop_map(Event::Pass),
            (0..3usize, 0..3u8, 0..3usize).prop_map(|(who, process, place)| Event::Register(who, process, place)),
            (0..3usize, 0..3u8).prop_map(|(who, process)| Event::Hear(who, process)),
            (0..3usize, 0..3u8).prop_map(|(who, process)| Event::Leave(who, process)),
            (0..3usize).prop_map(Event::Remove),
        ]
    }

    proptest! {
        /// Whatever happens: who is alive was heard of lately, states only go down by silence, and no two usable
        /// workers have one address.
        #[test]
        fn states_follow_from_what_was_heard(events in proptest::collection::vec(event(), 0..60)) {
            let start = start();
            let mut seconds = 0.0;
            let mut members = membership();
            let names = ["a", "b", "c"];
            for event in events {
                let now = at(start, seconds);
                match event {
                    Event::Pass(more) => seconds += more,
                    Event::Register(who, process, place) => {
                        let wanted = registration(names[who], process, ["h:1", "h:2", "h:3"][place]);
                        if members.check(&now, &wanted, &versions(), false).is_ok() {
                            members.register(now, wanted);
                        }
                    }
                    Event::Hear(who, process) => {
                        members.hear(now, &id(names[who]), &[process]);
                    }
                    Event::Leave(who, process) => {
                        members.leave(now, &id(names[who]), &[process]);
                    }
                    Event::Remove(who) => members.remove(&id(names[who])),
                }
                let now = at(start, seconds);
                let workers = members.workers(&now);
                let mut addresses = Vec::new();
                for worker in &workers {
                    let silent = now.wall.duration_since(worker.last_heartbeat.unwrap()).unwrap();
                    prop_assert_eq!(worker.state == WorkerState::Alive, worker.state.is_usable() && silent < PATIENCE.suspected_after);
                    prop_assert!(!worker.state.is_usable() || silent < PATIENCE.down_after);
                    prop_assert_eq!(members.address(&now, &worker.id).is_ok(), worker.state.is_usable());
                    prop_assert!(worker.since <= now.wall);
                    if worker.state.is_usable() {
                        prop_assert!(!addresses.contains(&worker.address), "{:?}", workers);
                        addresses.push(worker.address.clone());
                    }
                }
            }
        }
    }
}
