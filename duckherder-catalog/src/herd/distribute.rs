//! Which part of a query runs where.
//!
//! [`distribute`] goes through a plan from the leaves up and gives every operator's output a distribution: on the
//! coordinator, on every one of some workers, on one, or divided among several, by the hash of columns or by nothing
//! known. Where an operator needs another distribution than its input has, an exchange comes between, the one that moves
//! the fewest bytes. What is gathered stays on the coordinator, and so does everything above it; so rows are gathered as
//! late as can be.
//!
//! Two things are decided from above. `Context::ordered` says that the order of rows can be seen, which no exchange
//! keeps: sorting is then the coordinator's. `Context::on_workers` says that rows are wanted on workers, since a join or
//! another operator above can run there; without it, an aggregate of few groups is finished on the coordinator, which
//! saves an exchange.

mod aggregate;
mod cte;
mod distribution;
mod join;
mod order;
mod set_operation;
mod summary;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use thiserror::Error;

use self::aggregate::Aggregate;
use self::cte::{Reading, SharedRows};
use self::distribution::{Distribution, Equal, Hashed, WorkerSet};
pub use self::summary::{Distributed, Estimate, Fallback, MergeStrategy, Tier};
use super::placement::{Placement, WorkerId};
use super::plan::{Binding, Key, Node, NodeId, Op, PLAN_DEPTH_MAX, Route, Step, with_stack};
use super::query::StageId;

/// With no more groups than this, an aggregate is finished on the coordinator, if nothing above it would rather have its
/// rows on workers.
const GATHERED_GROUPS_MAX: u64 = 200_000;

/// Operators that take a query's rows elsewhere and are the coordinator's anyway: gathering for them is no fallback.
const SINKS: [&str; 9] = [
    "INSERT",
    "CREATE_TABLE",
    "COPY_TO_FILE",
    "EXPLAIN",
    "PREPARE",
    "EXECUTE",
    "EXPORT",
    "COPY_DATABASE",
    "RESULT_COLLECTOR",
];

/// The workers of a herd, as they are when a statement is planned.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Workers {
    /// Those that answer.
    pub live: BTreeSet<WorkerId>,
    /// How exchanges hash: [`hash_version`](super::placement::hash_version).
    pub hash_version: String,
    /// Chooses among workers that would do equally well. Callers vary it from statement to statement, to spread the work.
    pub spread: u64,
}

/// Why a plan cannot be distributed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum DistributeError {
    /// A worker that has needed rows does not answer.
    #[error("table {table} has rows on worker {}, which does not answer", worker.0)]
    WorkerDown {
        /// Schema and name.
        table: String,
        /// Which.
        worker: WorkerId,
    },
    /// A statement changes rows that it cannot meet where they are.
    #[error("rows of table {table} can only be changed on the workers that have them, but {reason}")]
    Target {
        /// Schema and name.
        table: String,
        /// What needs them elsewhere.
        reason: String,
    },
    /// No worker answers, and one is needed.
    #[error("no worker of the herd answers")]
    NoWorkers,
    /// The plan has more operators upon each other than [`PLAN_DEPTH_MAX`].
    #[error("the plan is more than {PLAN_DEPTH_MAX} operators deep")]
    TooDeep,
    /// The plan contradicts its own description.
    #[error("operator {node} of the plan: {reason}")]
    Plan {
        /// Which.
        node: NodeId,
        /// What is wrong.
        reason: &'static str,
    },
}

/// Divides a query between the workers and the coordinator. `None` if it reads no table of the herd: nothing is to be
/// done then.
///
/// A plan with a `target` is what is below UPDATE, DELETE or MERGE INTO. Its result is one `Gather` exchange, whose
/// `workers` are all that have to make the change, over steps that let no row of the target through another exchange.
///
/// # Errors
///
/// [`DistributeError`]; never because something could not be distributed, except for a `target`.
pub fn distribute(plan: &Node, workers: &Workers) -> Result<Option<Distributed>, DistributeError> {
    let depth = check(plan, &mut BTreeSet::new(), 1)?;
    with_stack(depth, || attempts(plan, workers)).unwrap_or(Err(DistributeError::TooDeep))
}

fn attempts(plan: &Node, workers: &Workers) -> Result<Option<Distributed>, DistributeError> {
    if !has_scan(plan) {
        return Ok(None);
    }
    let mut readings = BTreeMap::new();
    // Every round but the last moves one common table expression to a later one of its three readings.
    loop {
        let mut planner = Planner::new(plan, workers, &readings);
        let step = planner.root(plan)?;
        let (estimates, fallbacks) = (planner.estimates, planner.fallbacks);
        let scattered = cte::read_in_several_gathers(&step);
        let moved = scattered
            .iter()
            .filter(|node| cte::escalate(&mut readings, **node))
            .count();
        if moved == 0 {
            return Ok(Some(summary::summarize(step, estimates, fallbacks)));
        }
    }
}

/// What is wanted of an operator's output from above.
#[derive(Debug, Clone, Copy)]
struct Context {
    /// Whether the order of its rows can be seen.
    ordered: bool,
    /// Whether its rows are wanted on workers.
    on_workers: bool,
}

impl Context {
    const COORDINATOR: Self = Self {
        ordered: false,
        on_workers: false,
    };
    const WORKERS: Self = Self {
        ordered: false,
        on_workers: true,
    };
    const RESULT: Self = Self {
        ordered: true,
        on_workers: false,
    };

    fn unordered(self) -> Self {
        Self { ordered: false, ..self }
    }
}

/// An operator with its inputs, distributed.
#[derive(Debug, Clone)]
struct Placed {
    step: Step,
    distribution: Distribution,
    equal: Equal,
    columns: Vec<Binding>,
    rows: u64,
    row_bytes: u64,
    /// The table whose rows must not be moved.
    target: Option<String>,
    /// Why it is on the coordinator, where it could be better: a fallback as soon as an operator above loses by it.
    reasons: Vec<Fallback>,
}

impl Placed {
    fn bytes(&self) -> u128 {
        bytes(self.rows, self.row_bytes)
    }

    fn is_on(&self, distribution: &Distribution) -> bool {
        self.distribution == *distribution
    }
}

/// One attempt at a plan.
struct Planner<'a> {
    workers: &'a Workers,
    /// How each common table expression is to be read, where not the first way.
    readings: &'a BTreeMap<NodeId, Reading>,
    /// Operators whose rows end up on the coordinator for certain.
    bound: BTreeSet<NodeId>,
    /// Common table expressions in scope that a reference can read, by table index.
    shared: BTreeMap<u64, SharedRows>,
    /// Whether nothing may go to a worker: what is being placed refers to a common table expression that is no stage.
    without_workers: bool,
    /// What is expected to go through each exchange.
    estimates: BTreeMap<StageId, Estimate>,
    fallbacks: Vec<Fallback>,
}

impl<'a> Planner<'a> {
    fn new(plan: &Node, workers: &'a Workers, readings: &'a BTreeMap<NodeId, Reading>) -> Self {
        let mut bound = BTreeSet::new();
        cte::find_bound(plan, readings, &mut BTreeMap::new(), &mut bound);
        Self {
            workers,
            readings,
            bound,
            shared: BTreeMap::new(),
            without_workers: false,
            estimates: BTreeMap::new(),
            fallbacks: Vec::new(),
        }
    }

    fn root(&mut self, plan: &Node) -> Result<Step, DistributeError> {
        let placed = self.place(plan, Context::RESULT)?;
        match placed.distribution {
            Distribution::Coordinator | Distribution::Anywhere => Ok(placed.step),
            // The one exchange that rows of a target may pass, and all replicas have to make the change.
            _ if placed.target.is_some() => {
                let workers = placed.distribution.workers();
                Ok(self.exchange_from(placed, workers, Route::Gather))
            }
            _ => Ok(self.gather(placed)?.step),
        }
    }

    fn place(&mut self, node: &Node, context: Context) -> Result<Placed, DistributeError> {
        match &node.op {
            Op::Scan { .. } => self.scan(node),
            Op::Cte { index } => self.cte(node, *index, context),
            Op::CteRef { index } => Ok(self.cte_ref(node, *index)),
            _ if node.local || matches!(node.op, Op::Other { .. }) => self.on_coordinator(node),
            Op::Constant => Ok(self.leaf(node, Distribution::Anywhere)),
            Op::Filter | Op::Unnest => {
                let child = self.place(only_child(node)?, context)?;
                Ok(operator(node, child))
            }
            Op::Projection { passes } => self.projection(node, passes, context),
            Op::Join {
                join_type,
                equalities,
                row_wise,
            } => {
                let description = join::Description {
                    join_type: *join_type,
                    equalities,
                    row_wise: *row_wise,
                };
                self.join(node, &description, context)
            }
            Op::Aggregate {
                groups,
                two_phase,
                single_set,
                order_free,
                distinct,
            } => {
                let aggregate = Aggregate {
                    groups,
                    two_phase: *two_phase,
                    single_set: *single_set,
                    order_free: *order_free,
                    distinct: *distinct,
                };
                self.aggregate(node, aggregate, context)
            }
            Op::Distinct { targets, plain } => self.distinct(node, targets, *plain, context),
            Op::Window { partitions } => self.window(node, partitions, context),
            Op::Order => self.order(node, context),
            Op::TopN | Op::Limit => self.limit(node, context),
            Op::SetOperation { union_all } => self.set_operation(node, *union_all),
            Op::Other { .. } => self.on_coordinator(node),
        }
    }

    fn leaf(&self, node: &Node, distribution: Distribution) -> Placed {
        Placed {
            step: Step::Operator {
                node: node.id,
                children: Vec::new(),
            },
            distribution,
            equal: Equal::default(),
            columns: node.columns.clone(),
            rows: node.rows,
            row_bytes: node.row_bytes,
            target: None,
            reasons: Vec::new(),
        }
    }

    fn scan(&mut self, node: &Node) -> Result<Placed, DistributeError> {
        let Op::Scan {
            table,
            placement,
            keys,
            partitions,
            target,
        } = &node.op
        else {
            return Err(invalid(node, "is no scan"));
        };
        if node.local {
            return Err(invalid(node, "a scan of a herd's table cannot run on the coordinator"));
        }
        let distribution = match placement {
            Placement::Hash {
                partitions: buckets,
                hash_version,
                ..
            } => {
                let workers = match partitions {
                    Some(pruned) if *hash_version == self.workers.hash_version => self.pruned(node, buckets, pruned)?,
                    _ => buckets.iter().cloned().collect(),
                };
                let column = |key: &Option<Binding>| key.iter().copied().collect();
                let keys = keys.iter().map(column).collect();
                let (buckets, version) = (buckets.clone(), hash_version.clone());
                Distribution::Hash(Hashed {
                    keys,
                    buckets,
                    version,
                    workers,
                })
            }
            Placement::Even { partitions } => Distribution::Spread(partitions.iter().cloned().collect()),
            // A replica that does not hear of a change would differ from the others.
            Placement::Replicated { workers } if *target => Distribution::Replicated(workers.iter().cloned().collect()),
            Placement::Replicated { workers } => {
                let live: WorkerSet = workers.iter().filter(|worker| self.is_live(worker)).cloned().collect();
                // With none alive, the check below names one of them.
                Distribution::Replicated(if live.is_empty() {
                    workers.iter().cloned().collect()
                } else {
                    live
                })
            }
        };
        let workers = distribution.workers();
        if workers.is_empty() {
            return Err(invalid(node, "the table has no partitions"));
        }
        if let Some(down) = workers.iter().find(|worker| !self.is_live(worker)) {
            return Err(DistributeError::WorkerDown {
                table: table.clone(),
                worker: down.clone(),
            });
        }
        let mut placed = self.leaf(node, distribution.simplified());
        placed.target = target.then(|| table.clone());
        Ok(placed)
    }

    /// The workers of these partitions. If there are none, no row can be found, which one worker can do alone.
    fn pruned(&self, node: &Node, buckets: &[WorkerId], partitions: &[u32]) -> Result<WorkerSet, DistributeError> {
        let mut workers = WorkerSet::new();
        for partition in partitions {
            let bucket = usize::try_from(*partition).ok().and_then(|index| buckets.get(index));
            workers.insert(
                bucket
                    .ok_or_else(|| invalid(node, "there is no such partition"))?
                    .clone(),
            );
        }
        if workers.is_empty() {
            let all: WorkerSet = buckets.iter().cloned().collect();
            let live: WorkerSet = all.iter().filter(|worker| self.is_live(worker)).cloned().collect();
            workers.extend(self.choose(if live.is_empty() { &all } else { &live }));
        }
        Ok(workers)
    }

    fn projection(
        &mut self,
        node: &Node,
        passes: &[Option<Binding>],
        context: Context,
    ) -> Result<Placed, DistributeError> {
        let mut child = self.place(only_child(node)?, context)?;
        let outputs = |inputs: &BTreeSet<Binding>| passed(inputs, passes, &node.columns);
        child.distribution = child.distribution.map_keys(outputs);
        child.equal = child.equal.map(outputs);
        // A column that is passed twice equals itself.
        for input in passes.iter().flatten() {
            let mut same = outputs(&BTreeSet::from([*input])).into_iter();
            if let Some(first) = same.next() {
                same.for_each(|other| child.equal.merge(first, other));
            }
        }
        Ok(operator(node, child))
    }

    /// An operator that has to run on the coordinator.
    fn on_coordinator(&mut self, node: &Node) -> Result<Placed, DistributeError> {
        let mut children = Vec::new();
        for child in &node.children {
            children.push(self.place(child, Context::RESULT)?);
        }
        let moved = children
            .iter()
            .any(|child| !matches!(child.distribution, Distribution::Coordinator | Distribution::Anywhere));
        let is_sink = matches!(&node.op, Op::Other { kind } if SINKS.contains(&kind.as_str()));
        let mut placed = self.leaf(node, Distribution::Coordinator);
        if moved && !is_sink {
            placed.reasons.push(Fallback {
                node: node.id,
                reason: format!("{} has to run on the coordinator", name(&node.op)),
            });
        }
        let mut steps = Vec::new();
        for child in children {
            let child = self.gather(child)?;
            placed.reasons.extend(child.reasons);
            steps.push(child.step);
        }
        placed.step = Step::Operator {
            node: node.id,
            children: steps,
        };
        if loses_on_coordinator(node) {
            self.fallbacks.append(&mut placed.reasons);
        }
        Ok(placed)
    }

    /// The same rows on the coordinator.
    fn gather(&mut self, mut placed: Placed) -> Result<Placed, DistributeError> {
        match placed.distribution {
            Distribution::Coordinator => Ok(placed),
            Distribution::Anywhere => {
                placed.distribution = Distribution::Coordinator;
                Ok(placed)
            }
            _ => self.exchange(placed, Route::Gather, Distribution::Coordinator),
        }
    }

    /// The same rows on the coordinator, and a note of why, if workers had them.
    fn gather_because(&mut self, placed: Placed, node: &Node, reason: &str) -> Result<Placed, DistributeError> {
        if !matches!(placed.distribution, Distribution::Coordinator | Distribution::Anywhere) {
            if let Some(table) = placed.target {
                return Err(DistributeError::Target {
                    table,
                    reason: reason.to_owned(),
                });
            }
            self.fallbacks.push(Fallback {
                node: node.id,
                reason: reason.to_owned(),
            });
        }
        self.gather(placed)
    }

    /// The same rows on one worker.
    fn collect(&mut self, placed: Placed, worker: &WorkerId) -> Result<Placed, DistributeError> {
        let single = Distribution::Single(worker.clone());
        if placed.distribution.whole_on([worker]) {
            return narrow(placed, worker);
        }
        self.exchange(
            placed,
            Route::Broadcast {
                to: vec![worker.clone()],
            },
            single,
        )
    }

    /// All rows in one place, on which one node alone works: for what cannot be done in parts, or not in copies either.
    /// `reason` is noted if they were in parts before.
    fn in_one_place(
        &mut self,
        placed: Placed,
        node: &Node,
        context: Context,
        reason: &str,
    ) -> Result<Placed, DistributeError> {
        match &placed.distribution {
            Distribution::Coordinator | Distribution::Single(_) => Ok(placed),
            Distribution::Anywhere if !context.on_workers || self.without_workers => self.gather(placed),
            Distribution::Anywhere => {
                let worker = self.choose(&self.workers.live).ok_or(DistributeError::NoWorkers)?;
                narrow(placed, &worker)
            }
            Distribution::Replicated(workers) => match self.choose(workers) {
                Some(worker) => narrow(placed, &worker),
                None => Err(DistributeError::NoWorkers),
            },
            Distribution::Hash(_) | Distribution::Spread(_) if context.on_workers => {
                let worker = self
                    .choose(&placed.distribution.workers())
                    .ok_or(DistributeError::NoWorkers)?;
                if let Some(table) = placed.target {
                    return Err(DistributeError::Target {
                        table,
                        reason: reason.to_owned(),
                    });
                }
                self.fallbacks.push(Fallback {
                    node: node.id,
                    reason: reason.to_owned(),
                });
                self.collect(placed, &worker)
            }
            Distribution::Hash(_) | Distribution::Spread(_) => self.gather_because(placed, node, reason),
        }
    }

    /// The same rows by the hash of these keys, which are `columns` where they are plain.
    fn hash(
        &mut self,
        placed: Placed,
        keys: Vec<Key>,
        columns: Vec<BTreeSet<Binding>>,
        buckets: Vec<WorkerId>,
    ) -> Result<Placed, DistributeError> {
        let version = self.workers.hash_version.clone();
        let workers = buckets.iter().cloned().collect();
        let keyed = Hashed {
            keys: columns,
            buckets: buckets.clone(),
            version,
            workers,
        };
        let distribution = Distribution::Hash(keyed).simplified();
        self.exchange(placed, Route::Hash { keys, buckets }, distribution)
    }

    fn exchange(
        &mut self,
        placed: Placed,
        route: Route,
        distribution: Distribution,
    ) -> Result<Placed, DistributeError> {
        if let Some(table) = placed.target {
            let reason = "this statement needs them elsewhere".to_owned();
            return Err(DistributeError::Target { table, reason });
        }
        let all = placed.distribution.workers();
        let workers = match &placed.distribution {
            Distribution::Hash(_) | Distribution::Spread(_) | Distribution::Single(_) => all,
            // What each of these has must be sent once only.
            Distribution::Replicated(_) if !matches!(route, Route::Forward) => self.choose(&all).into_iter().collect(),
            Distribution::Replicated(_) => all,
            Distribution::Anywhere if !matches!(route, Route::Forward) => {
                self.choose(&self.workers.live).into_iter().collect()
            }
            Distribution::Anywhere => self.workers.live.clone(),
            Distribution::Coordinator => WorkerSet::new(),
        };
        if workers.is_empty() {
            return Err(DistributeError::NoWorkers);
        }
        let (equal, columns, rows, row_bytes) = (
            placed.equal.clone(),
            placed.columns.clone(),
            placed.rows,
            placed.row_bytes,
        );
        let step = self.exchange_from(placed, workers, route);
        Ok(Placed {
            step,
            distribution,
            equal,
            columns,
            rows,
            row_bytes,
            target: None,
            reasons: Vec::new(),
        })
    }

    fn exchange_from(&mut self, placed: Placed, workers: WorkerSet, route: Route) -> Step {
        // The numbers of stages are put in order at the end.
        let stage = StageId::try_from(self.estimates.len()).unwrap_or(StageId::MAX);
        let estimate = Estimate {
            stage,
            rows: placed.rows,
            row_bytes: placed.row_bytes,
        };
        self.estimates.insert(stage, estimate);
        let workers = workers.into_iter().collect();
        Step::Exchange {
            stage,
            workers,
            route,
            child: Box::new(placed.step),
        }
    }

    /// One of these, always the same one in a statement: what is there then is together.
    fn choose(&self, workers: &WorkerSet) -> Option<WorkerId> {
        let count = u64::try_from(workers.len()).ok().filter(|count| *count > 0)?;
        workers
            .iter()
            .nth(usize::try_from(self.workers.spread % count).ok()?)
            .cloned()
    }

    fn is_live(&self, worker: &WorkerId) -> bool {
        self.workers.live.contains(worker)
    }

    /// For the inputs of an operator that can run on workers: whether they are wanted there.
    fn inputs(&self, node: &Node) -> Context {
        let bound = node.children.iter().any(|child| self.bound.contains(&child.id));
        if bound { Context::COORDINATOR } else { Context::WORKERS }
    }

    /// Notes that an operator which could run on workers runs on the coordinator, since its input is there for `reasons`.
    fn note_loss(&mut self, placed: &mut Placed) {
        self.fallbacks.append(&mut placed.reasons);
    }
}

/// An operator with one input, where its input is. Columns that its output does not have are forgotten.
fn operator(node: &Node, child: Placed) -> Placed {
    let kept: BTreeSet<Binding> = node.columns.iter().copied().collect();
    let keep = |columns: &BTreeSet<Binding>| columns & &kept;
    Placed {
        step: Step::Operator {
            node: node.id,
            children: vec![child.step],
        },
        distribution: child.distribution.map_keys(keep),
        equal: child.equal.map(keep),
        columns: node.columns.clone(),
        rows: node.rows,
        row_bytes: node.row_bytes,
        target: child.target,
        reasons: child.reasons,
    }
}

/// The first phase of an operator, where its input is.
fn partial(node: &Node, child: Placed, rows: u64) -> Placed {
    Placed {
        step: Step::Partial {
            node: node.id,
            child: Box::new(child.step),
        },
        columns: node.columns.clone(),
        rows: rows.min(child.rows),
        row_bytes: node.row_bytes,
        ..child
    }
}

/// Rows that several workers have, or can have, taken from this one only.
fn narrow(mut placed: Placed, worker: &WorkerId) -> Result<Placed, DistributeError> {
    if let (Some(table), Distribution::Replicated(_)) = (&placed.target, &placed.distribution) {
        let reason = "this statement would change one copy only".to_owned();
        return Err(DistributeError::Target {
            table: table.clone(),
            reason,
        });
    }
    placed.distribution = Distribution::Single(worker.clone());
    Ok(placed)
}

/// The output columns that are one of `inputs`.
fn passed(inputs: &BTreeSet<Binding>, passes: &[Option<Binding>], outputs: &[Binding]) -> BTreeSet<Binding> {
    let pairs = passes.iter().zip(outputs);
    pairs
        .filter(|(pass, _)| pass.is_some_and(|input| inputs.contains(&input)))
        .map(|(_, output)| *output)
        .collect()
}

fn bytes(rows: u64, row_bytes: u64) -> u128 {
    u128::from(rows) * u128::from(row_bytes.max(1))
}

/// Keys that are one column each.
fn singletons(columns: &[Binding]) -> Vec<BTreeSet<Binding>> {
    columns.iter().map(|column| BTreeSet::from([*column])).collect()
}

fn has_scan(node: &Node) -> bool {
    matches!(node.op, Op::Scan { .. }) || node.children.iter().any(has_scan)
}

/// Whether it would have been better run on workers than on rows that were gathered for it.
fn loses_on_coordinator(node: &Node) -> bool {
    let by_kind = matches!(
        node.op,
        Op::Join { .. }
            | Op::Aggregate { .. }
            | Op::Distinct { .. }
            | Op::Window { .. }
            | Op::SetOperation { .. }
            | Op::Filter
    );
    by_kind || node.children.len() > 1
}

/// What users call it.
fn name(op: &Op) -> &str {
    match op {
        Op::Scan { .. } => "SCAN",
        Op::Constant => "VALUES",
        Op::Filter => "FILTER",
        Op::Projection { .. } => "PROJECTION",
        Op::Join { .. } => "JOIN",
        Op::Aggregate { .. } => "AGGREGATE",
        Op::Distinct { .. } => "DISTINCT",
        Op::Window { .. } => "WINDOW",
        Op::Order => "ORDER BY",
        Op::TopN => "TOP N",
        Op::Limit => "LIMIT",
        Op::SetOperation { union_all: true } => "UNION ALL",
        Op::SetOperation { .. } => "SET OPERATION",
        Op::Cte { .. } => "CTE",
        Op::CteRef { .. } => "CTE REFERENCE",
        Op::Unnest => "UNNEST",
        Op::Other { kind } => kind,
    }
}

fn invalid(node: &Node, reason: &'static str) -> DistributeError {
    DistributeError::Plan { node: node.id, reason }
}

fn only_child(node: &Node) -> Result<&Node, DistributeError> {
    match node.children.as_slice() {
        [child] => Ok(child),
        _ => Err(invalid(node, "has to have one input")),
    }
}

fn two_children(node: &Node) -> Result<(&Node, &Node), DistributeError> {
    match node.children.as_slice() {
        [left, right] => Ok((left, right)),
        _ => Err(invalid(node, "has to have two inputs")),
    }
}

/// That numbers are unique, and that the plan is not too deep. Says how deep it is.
fn check(node: &Node, seen: &mut BTreeSet<NodeId>, depth: usize) -> Result<usize, DistributeError> {
    if depth > PLAN_DEPTH_MAX {
        return Err(DistributeError::TooDeep);
    }
    if !seen.insert(node.id) {
        return Err(invalid(node, "its number is not unique"));
    }
    let mut deepest = depth;
    for child in &node.children {
        deepest = deepest.max(check(child, seen, depth + 1)?);
    }
    Ok(deepest)
}
