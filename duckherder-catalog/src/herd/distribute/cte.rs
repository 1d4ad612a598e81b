//! Common table expressions: made once, read by all references.

use std::collections::{BTreeMap, BTreeSet};

use super::super::plan::{Binding, Node, NodeId, Op, Route, Step};
use super::super::query::StageId;
use super::distribution::{Distribution, Equal};
use super::{Context, DistributeError, Fallback, Placed, Planner, has_scan, invalid, two_children};

/// How a common table expression is read. The rows of one that workers made are in one query's stages, so everything that
/// reads them has to end in the same gather.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Reading {
    /// On workers, and what uses it ends where it likes.
    Workers,
    /// On workers, and what uses it stays there as long as it can.
    OnlyWorkers,
    /// On the coordinator.
    Coordinator,
}

/// The rows of a common table expression that references read.
#[derive(Debug, Clone)]
pub(super) struct SharedRows {
    /// The stage that makes them; none if they are where the expression is.
    stage: Option<StageId>,
    distribution: Distribution,
    equal: Equal,
    columns: Vec<Binding>,
}

/// Takes the next reading of a common table expression. False if there is none.
pub(super) fn escalate(readings: &mut BTreeMap<NodeId, Reading>, node: NodeId) -> bool {
    let reading = readings.entry(node).or_insert(Reading::Workers);
    *reading = match reading {
        Reading::Workers => Reading::OnlyWorkers,
        Reading::OnlyWorkers => Reading::Coordinator,
        Reading::Coordinator => return false,
    };
    true
}

/// Finds the operators whose rows end up on the coordinator for certain: those that have to run there, and all above.
/// Says whether this one does. `ctes` has what is known of common table expressions, by table index.
pub(super) fn find_bound(
    node: &Node,
    readings: &BTreeMap<NodeId, Reading>,
    ctes: &mut BTreeMap<u64, bool>,
    bound: &mut BTreeSet<NodeId>,
) -> bool {
    let mut is_bound = matches!(node.op, Op::Other { .. });
    match (&node.op, node.children.as_slice()) {
        (Op::Cte { index }, [definition, child]) => {
            let gathered = readings.get(&node.id) == Some(&Reading::Coordinator);
            let defined = find_bound(definition, readings, ctes, bound) || gathered;
            ctes.insert(*index, defined);
            is_bound |= defined | find_bound(child, readings, ctes, bound);
        }
        // What no operator of the plan defines belongs to one that has to run on the coordinator.
        (Op::CteRef { index }, _) => is_bound |= ctes.get(index).copied().unwrap_or(true),
        (_, children) => {
            is_bound |= node.local;
            for child in children {
                is_bound |= find_bound(child, readings, ctes, bound);
            }
        }
    }
    if is_bound {
        bound.insert(node.id);
    }
    is_bound
}

impl Planner<'_> {
    pub(super) fn cte(&mut self, node: &Node, index: u64, context: Context) -> Result<Placed, DistributeError> {
        let (definition, child) = two_children(node)?;
        let reading = self.readings.get(&node.id).copied().unwrap_or(Reading::Workers);
        let wanted = if reading == Reading::Coordinator {
            Context::COORDINATOR
        } else {
            Context::WORKERS
        };
        let defined = self.place(definition, wanted)?;
        match defined.distribution {
            Distribution::Coordinator => self.cte_gathered(node, index, defined, child, context),
            // Nobody reads it: the coordinator skips it.
            _ if !is_read(child, index) => self.cte_gathered(node, index, defined, child, context),
            _ if reading == Reading::Coordinator => {
                self.fallbacks.push(Fallback {
                    node: node.id,
                    reason: "several parts of the query that end on the coordinator read a common table expression"
                        .into(),
                });
                self.cte_gathered(node, index, defined, child, context)
            }
            Distribution::Anywhere if !self.reads_workers(child, index) => {
                self.cte_anywhere(node, index, defined, child, context)
            }
            _ => self.cte_on_workers(
                node,
                index,
                defined,
                child,
                match reading {
                    Reading::Workers => context,
                    _ => Context {
                        on_workers: true,
                        ..context
                    },
                },
            ),
        }
    }

    pub(super) fn cte_ref(&self, node: &Node, index: u64) -> Placed {
        let Some(shared) = self.shared.get(&index) else {
            return self.leaf(node, Distribution::Coordinator);
        };
        let positions = |columns: &BTreeSet<Binding>| {
            let pairs = shared.columns.iter().zip(&node.columns);
            pairs
                .filter(|(defined, _)| columns.contains(*defined))
                .map(|(_, column)| *column)
                .collect()
        };
        let mut placed = self.leaf(node, shared.distribution.clone().map_keys(positions));
        placed.equal = shared.equal.clone().map(positions);
        if let Some(stage) = shared.stage {
            placed.step = Step::ExchangeRef { node: node.id, stage };
        }
        placed
    }

    /// The coordinator has the rows of the definition.
    fn cte_gathered(
        &mut self,
        node: &Node,
        index: u64,
        defined: Placed,
        child: &Node,
        context: Context,
    ) -> Result<Placed, DistributeError> {
        let defined = self.gather(defined)?;
        self.shared.remove(&index);
        let child = self.place(child, context)?;
        let child = self.gather(child)?;
        let mut placed = self.leaf(node, Distribution::Coordinator);
        placed.reasons = defined.reasons;
        placed.reasons.extend(child.reasons);
        placed.step = Step::Operator {
            node: node.id,
            children: vec![defined.step, child.step],
        };
        Ok(placed)
    }

    /// Neither the definition nor what uses it needs a worker.
    fn cte_anywhere(
        &mut self,
        node: &Node,
        index: u64,
        defined: Placed,
        child: &Node,
        context: Context,
    ) -> Result<Placed, DistributeError> {
        self.share(index, None, &defined);
        // Nothing of it may be a worker's alone: a reference cannot be apart from its expression.
        let child = self.place(
            child,
            Context {
                on_workers: false,
                ..context
            },
        )?;
        let mut placed = self.leaf(node, child.distribution);
        placed.reasons = child.reasons;
        placed.step = Step::Operator {
            node: node.id,
            children: vec![defined.step, child.step],
        };
        Ok(placed)
    }

    /// Workers keep the rows of the definition where they were made.
    fn cte_on_workers(
        &mut self,
        node: &Node,
        index: u64,
        defined: Placed,
        child: &Node,
        context: Context,
    ) -> Result<Placed, DistributeError> {
        let distribution = match defined.distribution.clone() {
            Distribution::Anywhere => Distribution::Replicated(self.workers.live.clone()),
            other => other,
        };
        let defined = self.exchange(defined, Route::Forward, distribution)?;
        let Step::Exchange { stage, .. } = &defined.step else {
            return Err(invalid(node, "its definition is no stage"));
        };
        self.share(index, Some(*stage), &defined);
        let child = self.place(child, context)?;
        Ok(Placed {
            step: Step::SharedCte {
                node: node.id,
                definition: Box::new(defined.step),
                child: Box::new(child.step),
            },
            ..child
        })
    }

    fn share(&mut self, index: u64, stage: Option<StageId>, defined: &Placed) {
        let shared = SharedRows {
            stage,
            distribution: defined.distribution.clone(),
            equal: defined.equal.clone(),
            columns: defined.columns.clone(),
        };
        self.shared.insert(index, shared);
    }

    /// Whether any part of this may run on workers, when `index` need not.
    fn reads_workers(&self, node: &Node, index: u64) -> bool {
        let here = match &node.op {
            Op::CteRef { index: other } if *other != index => {
                self.shared.get(other).is_some_and(|shared| shared.stage.is_some())
            }
            _ => false,
        };
        here || has_scan(node) || node.children.iter().any(|child| self.reads_workers(child, index))
    }
}

fn is_read(node: &Node, index: u64) -> bool {
    matches!(node.op, Op::CteRef { index: read } if read == index)
        || node.children.iter().any(|child| is_read(child, index))
}

/// Common table expressions made by workers that are not read within exactly one gather.
pub(super) fn read_in_several_gathers(step: &Step) -> BTreeSet<NodeId> {
    let mut readers = Readers::default();
    readers.walk(step, Place::Coordinator);
    let mut scattered = BTreeSet::new();
    for (stage, node) in &readers.shared {
        if readers.gathers(*stage, &mut BTreeSet::new()).len() != 1 {
            scattered.insert(*node);
        }
    }
    scattered
}

/// What a step is part of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Place {
    Coordinator,
    /// The gather of this stage.
    Gather(StageId),
    /// The definition of this stage, outside of any gather.
    Definition(StageId),
}

/// Who reads what.
#[derive(Debug, Default)]
struct Readers {
    /// The common table expression of each stage that is one.
    shared: BTreeMap<StageId, NodeId>,
    places: BTreeMap<StageId, BTreeSet<Place>>,
}

impl Readers {
    fn walk(&mut self, step: &Step, place: Place) {
        match step {
            Step::Operator { children, .. } => children.iter().for_each(|child| self.walk(child, place)),
            Step::Partial { child, .. } => self.walk(child, place),
            Step::Exchange { stage, child, .. } => {
                let inner = if place == Place::Coordinator {
                    Place::Gather(*stage)
                } else {
                    place
                };
                self.walk(child, inner);
            }
            Step::SharedCte {
                node,
                definition,
                child,
            } => {
                if let Step::Exchange {
                    stage, child: defined, ..
                } = definition.as_ref()
                {
                    self.shared.insert(*stage, *node);
                    let inner = if place == Place::Coordinator {
                        Place::Definition(*stage)
                    } else {
                        place
                    };
                    self.walk(defined, inner);
                }
                self.walk(child, place);
            }
            Step::ExchangeRef { stage, .. } => {
                self.places.entry(*stage).or_default().insert(place);
            }
        }
    }

    /// The gathers that the rows of a stage end in.
    fn gathers(&self, stage: StageId, seen: &mut BTreeSet<StageId>) -> BTreeSet<Place> {
        let mut gathers = BTreeSet::new();
        if !seen.insert(stage) {
            return gathers;
        }
        for place in self.places.get(&stage).into_iter().flatten() {
            match place {
                Place::Definition(reader) => gathers.extend(self.gathers(*reader, seen)),
                place => {
                    gathers.insert(*place);
                }
            }
        }
        gathers
    }
}
