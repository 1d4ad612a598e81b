//! Aggregates, DISTINCT and window functions: what needs all rows of a group in one place.

use std::collections::BTreeSet;

use super::super::placement::WorkerId;
use super::super::plan::{Binding, Key, Node, Step};
use super::distribution::{Distribution, Equal, WorkerSet};
use super::{
    Context, DistributeError, GATHERED_GROUPS_MAX, Placed, Planner, only_child, operator, partial, passed, singletons,
};

/// An operator that makes one row, or a few, of the rows of a group.
struct Grouping<'a> {
    node: &'a Node,
    /// The input column that each group is, unless it is computed.
    groups: &'a [Option<Binding>],
    /// The output column of each group.
    outputs: Vec<Binding>,
    /// Whether equal groups in one place are enough.
    by_parts: bool,
    /// Whether there is a first phase.
    two_phase: bool,
}

impl Planner<'_> {
    pub(super) fn aggregate(
        &mut self,
        node: &Node,
        aggregate: Aggregate<'_>,
        context: Context,
    ) -> Result<Placed, DistributeError> {
        let groups = aggregate.groups;
        let mut child = self.place(only_child(node)?, self.inputs(node))?;
        let mut grouping = Grouping {
            node,
            groups,
            outputs: node.columns.iter().take(groups.len()).copied().collect(),
            by_parts: aggregate.single_set && !groups.is_empty(),
            two_phase: aggregate.two_phase,
        };
        if child.distribution.is_copied() && !aggregate.order_free {
            // Copies need not agree on what comes first, or on the last digit of a sum.
            child = self.in_one_place(child, node, context, "")?;
        }
        if let Some(done) = grouping.where_it_is(self, &child) {
            let rename = |columns: &BTreeSet<Binding>| passed(columns, groups, &node.columns);
            child.distribution = done.map_keys(rename);
            child.equal = child.equal.map(rename);
            return Ok(operator(node, child));
        }
        if let Some(argument) = aggregate.distinct
            && aggregate.single_set
        {
            child = self.apart(child, &mut grouping, argument)?;
        }
        self.group(
            &grouping,
            child,
            context,
            match (groups.is_empty(), aggregate.single_set) {
                (true, _) => "an AGGREGATE that has no groups cannot be computed in two phases",
                (_, false) => "an AGGREGATE with grouping sets cannot be computed in two phases",
                (_, true) => "an AGGREGATE needs all its rows in one place",
            },
        )
    }

    /// Sees to it that DISTINCT values of different workers differ, if that is the way to compute the aggregate.
    fn apart(
        &mut self,
        child: Placed,
        grouping: &mut Grouping<'_>,
        argument: Binding,
    ) -> Result<Placed, DistributeError> {
        grouping.two_phase = grouping.is_together(&child, Some(argument));
        if grouping.two_phase || grouping.by_parts {
            return Ok(child);
        }
        grouping.two_phase = true;
        let columns = vec![child.equal.class(argument)];
        let buckets = child.distribution.workers().into_iter().collect();
        self.hash(child, vec![Key::Column { binding: argument }], columns, buckets)
    }

    pub(super) fn distinct(
        &mut self,
        node: &Node,
        targets: &[Option<Binding>],
        plain: bool,
        context: Context,
    ) -> Result<Placed, DistributeError> {
        let mut child = self.place(only_child(node)?, self.inputs(node))?;
        // The output has the input's columns; a computed target is none of them.
        let outputs = targets.iter().flatten().copied().collect::<Vec<_>>();
        let computed = outputs.len() < targets.len();
        let grouping = Grouping {
            node,
            groups: targets,
            outputs: if computed { Vec::new() } else { outputs },
            by_parts: !targets.is_empty(),
            two_phase: plain,
        };
        if child.distribution.is_copied() && !plain {
            child = self.in_one_place(child, node, context, "")?;
        }
        if grouping.where_it_is(self, &child).is_some() {
            return Ok(operator(node, child));
        }
        self.group(&grouping, child, context, "a DISTINCT needs all rows in one place")
    }

    /// Brings the rows of every group to one place, and makes of them what is to be made.
    fn group(
        &mut self,
        grouping: &Grouping<'_>,
        child: Placed,
        context: Context,
        reason: &str,
    ) -> Result<Placed, DistributeError> {
        let node = grouping.node;
        let workers = child.distribution.workers();
        let partial_rows = grouping.partial_rows(&workers).min(child.rows);
        let few = !grouping.by_parts || node.rows <= GATHERED_GROUPS_MAX;
        if grouping.two_phase && few && !context.on_workers {
            let gathered = self.gather(partial(node, child, partial_rows))?;
            return Ok(finished(node, gathered));
        }
        if grouping.two_phase && !grouping.by_parts {
            let worker = self.choose(&workers).ok_or(DistributeError::NoWorkers)?;
            let collected = self.collect(partial(node, child, partial_rows), &worker)?;
            return Ok(finished(node, collected));
        }
        if !grouping.by_parts {
            let child = self.in_one_place(child, node, context, reason)?;
            return Ok(finished(node, child));
        }
        // A first phase that reduces nothing costs less than one that is missing: the number of groups is an estimate.
        let first = grouping.two_phase;
        let keys = grouping.keys(first);
        let columns = grouping.hashed_columns();
        let input = if first {
            partial(node, child, partial_rows)
        } else {
            child
        };
        let buckets: Vec<WorkerId> = workers.into_iter().collect();
        let hashed = self.hash(input, keys, columns, buckets)?;
        Ok(finished(node, hashed))
    }

    pub(super) fn window(
        &mut self,
        node: &Node,
        partitions: &[Option<Vec<Binding>>],
        context: Context,
    ) -> Result<Placed, DistributeError> {
        // Without columns in common all rows go to one place: if few groups are finished on the coordinator, that one.
        let in_parts = !common_partition(partitions, &Equal::default()).is_empty();
        let wanted = if in_parts {
            self.inputs(node)
        } else {
            context.unordered()
        };
        let mut child = self.place(only_child(node)?, wanted)?;
        if child.distribution.is_copied() {
            // Copies need not agree on which row is the first.
            child = self.in_one_place(child, node, context, "")?;
        }
        if child.is_on(&Distribution::Coordinator) {
            self.note_loss(&mut child);
            return Ok(operator(node, child));
        }
        if matches!(child.distribution, Distribution::Single(_)) {
            return Ok(operator(node, child));
        }
        let common = common_partition(partitions, &child.equal);
        if let Distribution::Hash(hashed) = &child.distribution
            && hashed
                .keys
                .iter()
                .all(|key| !key.is_disjoint(&child.equal.expand(&common)))
        {
            return Ok(operator(node, child));
        }
        if common.is_empty() {
            let child = self.in_one_place(
                child,
                node,
                context,
                "WINDOW functions have no PARTITION BY column in common",
            )?;
            return Ok(operator(node, child));
        }
        let keys = common.iter().map(|binding| Key::Column { binding: *binding }).collect();
        let columns = common.iter().map(|binding| child.equal.class(*binding)).collect();
        let buckets = child.distribution.workers().into_iter().collect();
        let child = self.hash(child, keys, columns, buckets)?;
        Ok(operator(node, child))
    }
}

/// What an aggregate's operator says.
#[derive(Debug, Clone, Copy)]
pub(super) struct Aggregate<'a> {
    pub groups: &'a [Option<Binding>],
    pub two_phase: bool,
    pub single_set: bool,
    pub order_free: bool,
    pub distinct: Option<Binding>,
}

impl Grouping<'_> {
    /// The input's distribution, if groups are whole where they are.
    fn where_it_is(&self, planner: &mut Planner<'_>, child: &Placed) -> Option<Distribution> {
        match &child.distribution {
            Distribution::Coordinator => {
                planner.fallbacks.extend(child.reasons.iter().cloned());
                Some(Distribution::Coordinator)
            }
            Distribution::Hash(_) => {
                (self.by_parts && self.is_together(child, None)).then(|| child.distribution.clone())
            }
            Distribution::Spread(_) => None,
            whole => Some(whole.clone()),
        }
    }

    /// Whether rows that are equal in all groups, and in `argument` too if there is one, are on one worker.
    fn is_together(&self, child: &Placed, argument: Option<Binding>) -> bool {
        let Distribution::Hash(hashed) = &child.distribution else {
            return false;
        };
        let plain: BTreeSet<Binding> = self.groups.iter().flatten().copied().chain(argument).collect();
        let plain = child.equal.expand(&plain);
        hashed.keys.iter().all(|key| !key.is_disjoint(&plain))
    }

    /// No more rows than this come out of the first phase, if every worker has every group.
    fn partial_rows(&self, workers: &WorkerSet) -> u64 {
        self.node
            .rows
            .max(1)
            .saturating_mul(u64::try_from(workers.len()).unwrap_or(u64::MAX))
    }

    /// What rows are hashed by, before or after the first phase.
    fn keys(&self, after_first: bool) -> Vec<Key> {
        let key = |(index, group): (u32, &Option<Binding>)| match group {
            Some(binding) if !after_first => Key::Column { binding: *binding },
            _ => Key::Group {
                node: self.node.id,
                index,
            },
        };
        (0..).zip(self.groups).map(key).collect()
    }

    /// The output columns that rows are then hashed by.
    fn hashed_columns(&self) -> Vec<BTreeSet<Binding>> {
        if self.outputs.len() < self.groups.len() {
            // One of the keys cannot be seen any more.
            return vec![BTreeSet::new()];
        }
        singletons(&self.outputs)
    }
}

/// The operator upon rows of which each group is in one place. Their distribution is in the operator's columns already.
fn finished(node: &Node, child: Placed) -> Placed {
    Placed {
        step: Step::Operator {
            node: node.id,
            children: vec![child.step],
        },
        equal: Equal::default(),
        columns: node.columns.clone(),
        rows: node.rows,
        row_bytes: node.row_bytes,
        ..child
    }
}

/// The input columns by which every function's partitions are made.
fn common_partition(partitions: &[Option<Vec<Binding>>], equal: &Equal) -> BTreeSet<Binding> {
    let mut common: Option<BTreeSet<Binding>> = None;
    for partition in partitions {
        let columns: BTreeSet<Binding> = partition.iter().flatten().copied().collect();
        let alike = equal.expand(&columns);
        common = Some(match common {
            None => columns,
            Some(before) => &before & &alike,
        });
    }
    common.unwrap_or_default()
}
