//! Joins: which side moves, and where to.

use std::collections::BTreeSet;

use super::super::placement::WorkerId;
use super::super::plan::{Binding, Equality, JoinType, Key, Node, Route, Step};
use super::distribution::{Distribution, Hashed, WorkerSet};
use super::{Context, DistributeError, Placed, Planner, two_children};

/// What a join's operator says.
#[derive(Debug, Clone, Copy)]
pub(super) struct Description<'a> {
    pub join_type: JoinType,
    pub equalities: &'a [Equality],
    pub row_wise: bool,
}

impl JoinType {
    /// Whether a left row's result depends on nothing but the row and all of the right side, and a right row comes out
    /// only with a left one: then the left side can be in parts, if the right side is whole at each.
    fn keeps_left(self) -> bool {
        matches!(
            self,
            Self::Inner | Self::Left | Self::Semi | Self::Anti | Self::Mark | Self::Single
        )
    }

    /// The same for the right side.
    fn keeps_right(self) -> bool {
        matches!(self, Self::Inner | Self::Right | Self::RightSemi | Self::RightAnti)
    }

    /// Whether parts of both sides can be joined, if rows with equal keys are in the same part. A MARK join also looks
    /// at whether the right side has a NULL, which is in one part only.
    fn by_parts(self) -> bool {
        self != Self::Mark
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Left,
    Right,
}

impl Side {
    fn other(self) -> Self {
        match self {
            Self::Left => Self::Right,
            Self::Right => Self::Left,
        }
    }
}

/// How the rows of one side get to where they are joined.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Move {
    Stay,
    Broadcast(Vec<WorkerId>),
    Hash {
        keys: Vec<Key>,
        columns: Vec<BTreeSet<Binding>>,
        buckets: Vec<WorkerId>,
    },
}

/// One way to run a join.
#[derive(Debug, Clone)]
struct Way {
    cost: u128,
    left: Move,
    right: Move,
    distribution: Distribution,
}

/// A join whose sides are distributed.
struct Sides<'a> {
    node: &'a Node,
    description: &'a Description<'a>,
    left: &'a Placed,
    right: &'a Placed,
}

impl Planner<'_> {
    pub(super) fn join(
        &mut self,
        node: &Node,
        description: &Description<'_>,
        context: Context,
    ) -> Result<Placed, DistributeError> {
        let (left, right) = two_children(node)?;
        let inputs = self.inputs(node);
        let mut left = self.place(left, inputs)?;
        let mut right = self.place(right, inputs)?;
        if !description.row_wise && left.distribution.is_copied() && right.distribution.is_copied() {
            // Which rows meet depends on their order, which copies need not agree on.
            left = self.in_one_place(left, node, context, "")?;
        }
        if left.is_on(&Distribution::Coordinator) || right.is_on(&Distribution::Coordinator) {
            self.note_loss(&mut left);
            self.note_loss(&mut right);
            return self.join_gathered(node, left, right, "the other side of the JOIN is on the coordinator");
        }
        let sides = Sides {
            node,
            description,
            left: &left,
            right: &right,
        };
        let Some(way) = sides.best(self) else {
            let reason = sides.hindrance();
            if context.on_workers {
                return self.join_collected(node, left, right, reason);
            }
            return self.join_gathered(node, left, right, reason);
        };
        let left = self.move_side(left, way.left)?;
        let right = self.move_side(right, way.right)?;
        Ok(joined(node, description, left, right, way.distribution))
    }

    fn join_gathered(
        &mut self,
        node: &Node,
        left: Placed,
        right: Placed,
        reason: &str,
    ) -> Result<Placed, DistributeError> {
        let left = self.gather_because(left, node, reason)?;
        let right = self.gather_because(right, node, reason)?;
        Ok(Placed {
            step: Step::Operator {
                node: node.id,
                children: vec![left.step, right.step],
            },
            ..self.leaf(node, Distribution::Coordinator)
        })
    }

    /// Both sides on one worker.
    fn join_collected(
        &mut self,
        node: &Node,
        left: Placed,
        right: Placed,
        reason: &str,
    ) -> Result<Placed, DistributeError> {
        let left = self.in_one_place(left, node, Context::WORKERS, reason)?;
        let worker = self
            .choose(&left.distribution.workers())
            .ok_or(DistributeError::NoWorkers)?;
        let right = self.collect(right, &worker)?;
        Ok(Placed {
            step: Step::Operator {
                node: node.id,
                children: vec![left.step, right.step],
            },
            ..self.leaf(node, Distribution::Single(worker))
        })
    }

    fn move_side(&mut self, placed: Placed, how: Move) -> Result<Placed, DistributeError> {
        match how {
            Move::Stay => Ok(placed),
            Move::Broadcast(to) => {
                let copies = Distribution::Replicated(to.iter().cloned().collect());
                self.exchange(placed, Route::Broadcast { to }, copies)
            }
            Move::Hash { keys, columns, buckets } => self.hash(placed, keys, columns, buckets),
        }
    }
}

/// The join of sides that are where they have to be. `distribution` has the columns of both sides.
fn joined(
    node: &Node,
    description: &Description<'_>,
    left: Placed,
    right: Placed,
    distribution: Distribution,
) -> Placed {
    let mut equal = left.equal.union(right.equal);
    if description.join_type == JoinType::Inner {
        let columns = |equality: &Equality| Some((equality.left?, equality.right?));
        for (left, right) in description.equalities.iter().filter_map(columns) {
            equal.merge(left, right);
        }
    }
    let kept: BTreeSet<Binding> = node.columns.iter().copied().collect();
    let distribution = distribution.map_keys(|key| &equal.expand(key) & &kept);
    Placed {
        step: Step::Operator {
            node: node.id,
            children: vec![left.step, right.step],
        },
        distribution,
        equal: equal.map(|class| class & &kept),
        columns: node.columns.clone(),
        rows: node.rows,
        row_bytes: node.row_bytes,
        target: left.target.or(right.target),
        reasons: Vec::new(),
    }
}

impl Sides<'_> {
    fn side(&self, side: Side) -> &Placed {
        match side {
            Side::Left => self.left,
            Side::Right => self.right,
        }
    }

    fn keeps(&self, side: Side) -> bool {
        match side {
            Side::Left => self.description.join_type.keeps_left(),
            Side::Right => self.description.join_type.keeps_right(),
        }
    }

    /// Why there is no way to join in parts.
    fn hindrance(&self) -> &'static str {
        if !self.description.row_wise {
            "ASOF and positional JOINs need all rows in one place"
        } else if self.left.target.is_some() || self.right.target.is_some() {
            "the JOIN with them needs an equality on the table's keys"
        } else {
            "a JOIN that keeps rows without a match needs an equality"
        }
    }

    /// The way that moves the fewest bytes; of equal ones the first.
    fn best(&self, planner: &Planner<'_>) -> Option<Way> {
        if let Some(distribution) = self.where_they_are() {
            return Some(Way {
                cost: 0,
                left: Move::Stay,
                right: Move::Stay,
                distribution,
            });
        }
        let mut ways = Vec::new();
        for stays in [Side::Left, Side::Right] {
            ways.extend(self.broadcast(stays));
            ways.extend(self.hash_one(stays, planner));
            ways.extend(self.to_one_worker(stays, planner));
            ways.extend(self.to_every_copy(stays));
        }
        ways.extend(self.hash_both(planner));
        ways.retain(|way| self.leaves_target(way));
        ways.into_iter().min_by_key(|way| way.cost)
    }

    /// Whether the rows of a target stay where they are.
    fn leaves_target(&self, way: &Way) -> bool {
        (self.left.target.is_none() || way.left == Move::Stay)
            && (self.right.target.is_none() || way.right == Move::Stay)
    }

    /// Whether this side has to be joined on each of its workers, wherever else it could be done.
    fn is_copied_target(&self, side: Side) -> bool {
        let placed = self.side(side);
        placed.target.is_some() && placed.distribution.is_copied()
    }

    /// Without moving anything.
    fn where_they_are(&self) -> Option<Distribution> {
        let (left, right) = (&self.left.distribution, &self.right.distribution);
        for (here, there, side) in [(left, right, Side::Left), (right, left, Side::Right)] {
            if self.is_copied_target(side) {
                return there.whole_on(&here.workers()).then(|| here.clone());
            }
        }
        match (left, right) {
            (Distribution::Anywhere, other) | (other, Distribution::Anywhere) if other.is_copied() => {
                return Some(other.clone());
            }
            (Distribution::Replicated(left), Distribution::Replicated(right)) => {
                let common: WorkerSet = left & right;
                return (!common.is_empty()).then_some(Distribution::Replicated(common));
            }
            (Distribution::Single(worker), other) | (other, Distribution::Single(worker))
                if other.whole_on([worker]) =>
            {
                return Some(Distribution::Single(worker.clone()));
            }
            _ => {}
        }
        if !self.description.row_wise {
            return None;
        }
        let in_parts = |here: &Distribution, there: &Distribution, side| {
            here.parts()
                .is_some_and(|workers| self.keeps(side) && there.whole_on(workers))
        };
        if in_parts(left, right, Side::Left) {
            return Some(left.clone());
        }
        if in_parts(right, left, Side::Right) {
            return Some(right.clone());
        }
        self.colocated()
    }

    /// Both sides by the same hash of what the join compares.
    fn colocated(&self) -> Option<Distribution> {
        let (Distribution::Hash(left), Distribution::Hash(right)) = (&self.left.distribution, &self.right.distribution)
        else {
            return None;
        };
        let paired = left.keys.iter().zip(&right.keys).all(|(left, right)| {
            let pairs = |equality: &Equality| {
                equality.left.is_some_and(|column| left.contains(&column))
                    && equality.right.is_some_and(|column| right.contains(&column))
            };
            self.description.equalities.iter().any(pairs)
        });
        if !left.same_buckets(right) || !paired || !self.description.join_type.by_parts() {
            return None;
        }
        // Never where a side has not been made: an aggregate without groups, say, would yield one more row there.
        let workers = match self.description.join_type {
            JoinType::Inner | JoinType::Semi | JoinType::RightSemi => &left.workers & &right.workers,
            JoinType::Left | JoinType::Anti | JoinType::Single | JoinType::Mark => {
                left.workers.is_subset(&right.workers).then(|| left.workers.clone())?
            }
            JoinType::Right | JoinType::RightAnti => {
                right.workers.is_subset(&left.workers).then(|| right.workers.clone())?
            }
            JoinType::Outer => (left.workers == right.workers).then(|| left.workers.clone())?,
        };
        let columns = |hashed: &Hashed| hashed.keys.clone();
        (!workers.is_empty()).then(|| {
            self.by_hash(
                columns(left),
                columns(right),
                left.buckets.clone(),
                &left.version,
                workers,
            )
        })
    }

    /// What comes out where both sides are by the same hash.
    fn by_hash(
        &self,
        left: Vec<BTreeSet<Binding>>,
        right: Vec<BTreeSet<Binding>>,
        buckets: Vec<WorkerId>,
        version: &str,
        workers: WorkerSet,
    ) -> Distribution {
        let keys = match self.description.join_type {
            JoinType::Inner => left.iter().zip(&right).map(|(left, right)| left | right).collect(),
            JoinType::Left | JoinType::Semi | JoinType::Anti | JoinType::Mark | JoinType::Single => left,
            JoinType::Right | JoinType::RightSemi | JoinType::RightAnti => right,
            // A row without a match has NULLs for the other side's keys, and is not where they hash to.
            JoinType::Outer => return Distribution::spread(workers),
        };
        Distribution::Hash(Hashed {
            keys,
            buckets,
            version: version.to_owned(),
            workers,
        })
        .simplified()
    }

    /// One side stays in its parts, the other is sent to each of them.
    fn broadcast(&self, stays: Side) -> Option<Way> {
        let (here, there) = (self.side(stays), self.side(stays.other()));
        let workers = here.distribution.parts()?;
        if !self.description.row_wise || !self.keeps(stays) {
            return None;
        }
        let receivers = u128::try_from(workers.len()).unwrap_or(u128::MAX);
        let to = Move::Broadcast(workers.iter().cloned().collect());
        let cost = there.bytes().saturating_mul(receivers);
        Some(way(stays, cost, to, here.distribution.clone()))
    }

    /// One side is by the hash of what the join compares, and the other is sent after it.
    fn hash_one(&self, stays: Side, planner: &Planner<'_>) -> Option<Way> {
        let there = self.side(stays.other());
        let Distribution::Hash(hashed) = &self.side(stays).distribution else {
            return None;
        };
        let possible = self.description.row_wise
            && self.description.join_type.by_parts()
            && hashed.version == planner.workers.hash_version
            && hashed.is_whole();
        if !possible {
            return None;
        }
        let find = |key: &BTreeSet<Binding>| {
            let holds = |equality: &&Equality| column(equality, stays).is_some_and(|column| key.contains(&column));
            self.description.equalities.iter().find(holds)
        };
        let equalities: Vec<&Equality> = hashed.keys.iter().map(find).collect::<Option<_>>()?;
        let (keys, columns) = self.keys(&equalities, stays.other());
        let (stay, moved) = (hashed.keys.clone(), columns.clone());
        let (left, right) = if stays == Side::Left {
            (stay, moved)
        } else {
            (moved, stay)
        };
        let buckets = hashed.buckets.clone();
        let distribution = self.by_hash(left, right, buckets.clone(), &hashed.version, hashed.workers.clone());
        Some(way(
            stays,
            there.bytes(),
            Move::Hash { keys, columns, buckets },
            distribution,
        ))
    }

    /// Both sides are sent by the hash of what the join compares.
    fn hash_both(&self, planner: &Planner<'_>) -> Option<Way> {
        let equalities: Vec<&Equality> = self.description.equalities.iter().collect();
        if equalities.is_empty() || !self.description.row_wise || !self.description.join_type.by_parts() {
            return None;
        }
        let in_parts = |side| self.side(side).distribution.parts().cloned().unwrap_or_default();
        let workers = &in_parts(Side::Left) | &in_parts(Side::Right);
        if workers.is_empty() {
            return None;
        }
        let buckets: Vec<WorkerId> = workers.iter().cloned().collect();
        let moved = |side| {
            let (keys, columns) = self.keys(&equalities, side);
            Move::Hash {
                keys,
                columns,
                buckets: buckets.clone(),
            }
        };
        let columns = |side| self.keys(&equalities, side).1;
        let (left, right) = (columns(Side::Left), columns(Side::Right));
        let version = &planner.workers.hash_version;
        let distribution = self.by_hash(left, right, buckets.clone(), version, workers);
        Some(Way {
            cost: self.left.bytes().saturating_add(self.right.bytes()),
            left: moved(Side::Left),
            right: moved(Side::Right),
            distribution,
        })
    }

    /// One side has all its rows on one worker, or can have; the other is sent there.
    fn to_one_worker(&self, stays: Side, planner: &Planner<'_>) -> Option<Way> {
        let (here, there) = (self.side(stays), self.side(stays.other()));
        let worker = match &here.distribution {
            Distribution::Single(worker) => worker.clone(),
            Distribution::Replicated(workers) if here.target.is_none() => planner.choose(workers)?,
            Distribution::Anywhere => planner.choose(&there.distribution.workers())?,
            _ => return None,
        };
        // One worker then does the work of several.
        let parts = there.distribution.parts().map_or(1, WorkerSet::len);
        let cost = there.bytes().saturating_mul(u128::try_from(parts).unwrap_or(u128::MAX));
        Some(way(
            stays,
            cost,
            Move::Broadcast(vec![worker.clone()]),
            Distribution::Single(worker),
        ))
    }

    /// Copies of a target all have to be joined with everything.
    fn to_every_copy(&self, stays: Side) -> Option<Way> {
        if !self.is_copied_target(stays) {
            return None;
        }
        let (here, there) = (self.side(stays), self.side(stays.other()));
        let to: Vec<WorkerId> = here.distribution.workers().into_iter().collect();
        Some(way(
            stays,
            there.bytes(),
            Move::Broadcast(to),
            here.distribution.clone(),
        ))
    }

    /// One side's part of these equalities.
    fn keys(&self, equalities: &[&Equality], side: Side) -> (Vec<Key>, Vec<BTreeSet<Binding>>) {
        let key = |equality: &&Equality| match column(equality, side) {
            Some(binding) => (Key::Column { binding }, self.side(side).equal.class(binding)),
            None => {
                let (node, left) = (self.node.id, side == Side::Left);
                (
                    Key::JoinCondition {
                        node,
                        left,
                        condition: equality.condition,
                    },
                    BTreeSet::new(),
                )
            }
        };
        equalities.iter().map(key).unzip()
    }
}

fn column(equality: &Equality, side: Side) -> Option<Binding> {
    match side {
        Side::Left => equality.left,
        Side::Right => equality.right,
    }
}

/// One side stays, the other moves.
fn way(stays: Side, cost: u128, moved: Move, distribution: Distribution) -> Way {
    match stays {
        Side::Left => Way {
            cost,
            left: Move::Stay,
            right: moved,
            distribution,
        },
        Side::Right => Way {
            cost,
            left: moved,
            right: Move::Stay,
            distribution,
        },
    }
}
