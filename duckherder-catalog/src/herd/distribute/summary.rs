//! What is said of a distributed plan, in EXPLAIN and in statistics.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::super::placement::WorkerId;
use super::super::plan::{NodeId, Route, Step};
use super::super::query::StageId;

/// A distributed plan, and what there is to say of it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Distributed {
    /// The plan. Stages are numbered from 0, each after those that it reads.
    pub step: Step,
    /// How far it is distributed.
    pub tier: Tier,
    /// What the coordinator does with what workers send.
    pub merge: MergeStrategy,
    /// What was brought to one place although more of the query was to be done, and why. Empty if nothing was.
    pub fallbacks: Vec<Fallback>,
    /// What is expected of each stage, in order.
    pub estimates: Vec<Estimate>,
}

impl Distributed {
    /// The reasons of all fallbacks, each once. `None` if there are none.
    #[must_use]
    pub fn fallback_reason(&self) -> Option<String> {
        let mut reasons: Vec<&str> = Vec::new();
        for fallback in &self.fallbacks {
            if !reasons.contains(&fallback.reason.as_str()) {
                reasons.push(&fallback.reason);
            }
        }
        (!reasons.is_empty()).then(|| reasons.join("; "))
    }
}

/// How far a query is distributed; the last that applies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Tier {
    /// One worker does it all.
    Router,
    /// Every worker does it on its own rows.
    Colocated,
    /// Every worker does a first phase on its own rows.
    TwoPhase,
    /// Workers exchange rows.
    Shuffle,
    /// Rows were brought to one place before the query was done with them.
    Gather,
}

impl Tier {
    /// The name in statistics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Router => "router",
            Self::Colocated => "colocated",
            Self::TwoPhase => "two_phase",
            Self::Shuffle => "shuffle",
            Self::Gather => "gather",
        }
    }
}

/// What the coordinator does with the rows that workers send.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum MergeStrategy {
    /// They are the result, but for operators that the coordinator runs upon them.
    Concatenate,
    /// It runs the second phase of an aggregate, DISTINCT, Top-N or LIMIT.
    Finish,
    /// It runs what is left of the query on several inputs.
    Combine,
}

impl MergeStrategy {
    /// The name in statistics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Concatenate => "concatenate",
            Self::Finish => "finish",
            Self::Combine => "combine",
        }
    }
}

/// Something that was brought to one place early.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Fallback {
    /// The operator that needed it.
    pub node: NodeId,
    /// Why, in words for users.
    pub reason: String,
}

/// What is expected to go through an exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Estimate {
    /// The exchange.
    pub stage: StageId,
    /// Rows, of all workers together, before they are copied.
    pub rows: u64,
    /// Bytes of one row.
    pub row_bytes: u64,
}

/// What exchanges and phases a plan has.
#[derive(Debug, Default)]
struct Traits {
    /// Workers that run something.
    workers: BTreeSet<WorkerId>,
    gathers: usize,
    shuffles: usize,
    partials: usize,
    gathered_partials: usize,
}

/// Numbers the stages, and says what there is to say.
pub(super) fn summarize(
    mut step: Step,
    estimates: BTreeMap<StageId, Estimate>,
    mut fallbacks: Vec<Fallback>,
) -> Distributed {
    let mut numbers = BTreeMap::new();
    number(&mut step, &mut numbers);
    let renumbered = |(old, new): (StageId, StageId)| {
        let estimate = estimates.get(&old).copied();
        estimate.map(|estimate| (new, Estimate { stage: new, ..estimate }))
    };
    let estimates: BTreeMap<StageId, Estimate> = numbers.into_iter().filter_map(renumbered).collect();
    let mut traits = Traits::default();
    traits.add(&step);
    fallbacks.dedup();
    Distributed {
        tier: traits.tier(!fallbacks.is_empty()),
        merge: traits.merge(),
        step,
        fallbacks,
        estimates: estimates.into_values().collect(),
    }
}

/// Gives every stage its number: inputs before readers.
fn number(step: &mut Step, numbers: &mut BTreeMap<StageId, StageId>) {
    match step {
        Step::Operator { children, .. } => children.iter_mut().for_each(|child| number(child, numbers)),
        Step::Partial { child, .. } => number(child, numbers),
        Step::Exchange { stage, child, .. } => {
            number(child, numbers);
            let next = StageId::try_from(numbers.len()).unwrap_or(StageId::MAX);
            *stage = *numbers.entry(*stage).or_insert(next);
        }
        Step::SharedCte { definition, child, .. } => {
            number(definition, numbers);
            number(child, numbers);
        }
        Step::ExchangeRef { stage, .. } => {
            if let Some(number) = numbers.get(stage) {
                *stage = *number;
            }
        }
    }
}

impl Traits {
    fn add(&mut self, step: &Step) {
        match step {
            Step::Operator { children, .. } => children.iter().for_each(|child| self.add(child)),
            Step::Partial { child, .. } => {
                self.partials += 1;
                self.add(child);
            }
            Step::Exchange {
                workers, route, child, ..
            } => {
                self.workers.extend(workers.iter().cloned());
                match route {
                    Route::Gather => self.gathers += 1,
                    Route::Forward => {}
                    Route::Hash { .. } | Route::Broadcast { .. } => self.shuffles += 1,
                }
                if matches!(route, Route::Gather) && matches!(child.as_ref(), Step::Partial { .. }) {
                    self.gathered_partials += 1;
                }
                self.add(child);
            }
            Step::SharedCte { definition, child, .. } => {
                self.add(definition);
                self.add(child);
            }
            Step::ExchangeRef { .. } => {}
        }
    }

    fn tier(&self, fell_back: bool) -> Tier {
        match self {
            _ if fell_back => Tier::Gather,
            Self { shuffles: 1.., .. } => Tier::Shuffle,
            Self { workers, .. } if workers.len() <= 1 => Tier::Router,
            Self { partials: 1.., .. } => Tier::TwoPhase,
            _ => Tier::Colocated,
        }
    }

    fn merge(&self) -> MergeStrategy {
        match self {
            Self { gathers: 2.., .. } => MergeStrategy::Combine,
            Self {
                gathered_partials: 1.., ..
            } => MergeStrategy::Finish,
            _ => MergeStrategy::Concatenate,
        }
    }
}
