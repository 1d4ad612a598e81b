//! UNION, EXCEPT and INTERSECT.

use std::collections::BTreeSet;

use super::super::placement::WorkerId;
use super::super::plan::{Binding, Key, Node, Step};
use super::distribution::{Distribution, Equal, Hashed, WorkerSet};
use super::{DistributeError, Placed, Planner, invalid};

/// A hash of columns by their position, the same for all inputs.
#[derive(Debug, Clone)]
struct Positional {
    positions: Vec<usize>,
    buckets: Vec<WorkerId>,
    version: String,
}

impl Planner<'_> {
    pub(super) fn set_operation(&mut self, node: &Node, union_all: bool) -> Result<Placed, DistributeError> {
        let context = self.inputs(node);
        let mut children = Vec::new();
        for child in &node.children {
            let child = self.place(child, context)?;
            if child.columns.len() != node.columns.len() {
                return Err(invalid(node, "its inputs have another number of columns"));
            }
            children.push(child);
        }
        if children.is_empty() {
            return Err(invalid(node, "has no inputs"));
        }
        let on_coordinator = children.iter().any(|child| child.is_on(&Distribution::Coordinator));
        if on_coordinator || node.columns.is_empty() {
            let reason = if on_coordinator {
                "another input of the set operation is on the coordinator"
            } else {
                "a set operation has no columns"
            };
            return self.combine_gathered(node, children, reason);
        }
        if let Some(distribution) = where_they_are(node, &children) {
            return Ok(combined(node, children, distribution));
        }
        let workers: WorkerSet = children
            .iter()
            .filter_map(|child| child.distribution.parts())
            .flatten()
            .cloned()
            .collect();
        if workers.is_empty() {
            return self.combine_on_one(node, children);
        }
        if union_all {
            self.append(node, children)
        } else {
            self.combine_by_hash(node, children, workers)
        }
    }

    fn combine_gathered(
        &mut self,
        node: &Node,
        children: Vec<Placed>,
        reason: &str,
    ) -> Result<Placed, DistributeError> {
        let mut gathered = Vec::new();
        for mut child in children {
            self.note_loss(&mut child);
            gathered.push(self.gather_because(child, node, reason)?);
        }
        Ok(combined(node, gathered, Distribution::Coordinator))
    }

    /// All inputs on the worker of the biggest one that is on one worker. None is in parts.
    fn combine_on_one(&mut self, node: &Node, children: Vec<Placed>) -> Result<Placed, DistributeError> {
        let single = |child: &&Placed| matches!(child.distribution, Distribution::Single(_));
        let biggest = children
            .iter()
            .filter(single)
            .max_by_key(|child| child.bytes())
            .unwrap_or(&children[0]);
        let worker = self
            .choose(&biggest.distribution.workers())
            .ok_or(DistributeError::NoWorkers)?;
        let mut collected = Vec::new();
        for child in children {
            collected.push(self.collect(child, &worker)?);
        }
        Ok(combined(node, collected, Distribution::Single(worker)))
    }

    /// UNION ALL: one input stays in its parts, and the others are divided among the same workers. Rows that several
    /// workers have come from one of them, and so count once.
    fn append(&mut self, node: &Node, children: Vec<Placed>) -> Result<Placed, DistributeError> {
        let mut workers = WorkerSet::new();
        let mut bytes_most = None;
        for candidate in children.iter().filter_map(|child| child.distribution.parts()) {
            let alike = children
                .iter()
                .filter(|child| child.distribution.parts() == Some(candidate));
            let bytes = Some(alike.map(Placed::bytes).fold(0, u128::saturating_add));
            if bytes > bytes_most {
                (workers, bytes_most) = (candidate.clone(), bytes);
            }
        }
        let buckets: Vec<WorkerId> = workers.iter().cloned().collect();
        let mut inputs = Vec::new();
        for child in children {
            inputs.push(if child.distribution.parts() == Some(&workers) {
                child
            } else {
                self.hash_columns(child, &(0..node.columns.len()).collect::<Vec<_>>(), &buckets)?
            });
        }
        Ok(combined(node, inputs, Distribution::spread(workers)))
    }

    /// Equal rows of all inputs on the same worker.
    fn combine_by_hash(
        &mut self,
        node: &Node,
        children: Vec<Placed>,
        workers: WorkerSet,
    ) -> Result<Placed, DistributeError> {
        let version = self.workers.hash_version.clone();
        let positions = (0..node.columns.len()).collect();
        let mut ways = vec![Positional {
            positions,
            buckets: workers.into_iter().collect(),
            version: version.clone(),
        }];
        ways.extend(
            children
                .iter()
                .filter_map(positional)
                .filter(|way| way.version == version),
        );
        let cost = |way: &Positional| {
            let moved = children.iter().filter(|child| !way.fits(child));
            moved.map(Placed::bytes).fold(0, u128::saturating_add)
        };
        let Some(way) = ways.iter().min_by_key(|way| cost(way)) else {
            return self.combine_gathered(node, children, "a set operation needs all rows in one place");
        };
        let mut inputs = Vec::new();
        for child in children {
            inputs.push(if way.fits(&child) {
                child
            } else {
                self.hash_columns(child, &way.positions, &way.buckets)?
            });
        }
        Ok(combined(node, inputs, way.distribution(node)))
    }

    fn hash_columns(
        &mut self,
        child: Placed,
        positions: &[usize],
        buckets: &[WorkerId],
    ) -> Result<Placed, DistributeError> {
        let columns: Vec<Binding> = positions
            .iter()
            .filter_map(|position| child.columns.get(*position))
            .copied()
            .collect();
        let keys = columns
            .iter()
            .map(|binding| Key::Column { binding: *binding })
            .collect();
        let columns = columns.iter().map(|binding| child.equal.class(*binding)).collect();
        self.hash(child, keys, columns, buckets.to_vec())
    }
}

impl Positional {
    /// Whether an input's rows are where this says.
    fn fits(&self, child: &Placed) -> bool {
        let Distribution::Hash(hashed) = &child.distribution else {
            return false;
        };
        let holds = |(key, position): (&BTreeSet<Binding>, &usize)| {
            child.columns.get(*position).is_some_and(|column| key.contains(column))
        };
        hashed.is_whole()
            && hashed.buckets == self.buckets
            && hashed.version == self.version
            && hashed.keys.len() == self.positions.len()
            && hashed.keys.iter().zip(&self.positions).all(holds)
    }

    fn distribution(&self, node: &Node) -> Distribution {
        let output = |position: &usize| node.columns.get(*position).copied().into_iter().collect();
        Distribution::Hash(Hashed {
            keys: self.positions.iter().map(output).collect(),
            buckets: self.buckets.clone(),
            version: self.version.clone(),
            workers: self.buckets.iter().cloned().collect(),
        })
        .simplified()
    }
}

/// How an input's rows are hashed, by position.
fn positional(child: &Placed) -> Option<Positional> {
    let Distribution::Hash(hashed) = &child.distribution else {
        return None;
    };
    let position = |key: &BTreeSet<Binding>| child.columns.iter().position(|column| key.contains(column));
    Some(Positional {
        positions: hashed.keys.iter().map(position).collect::<Option<_>>()?,
        buckets: hashed.buckets.clone(),
        version: hashed.version.clone(),
    })
    .filter(|way| way.fits(child))
}

/// Without moving anything.
fn where_they_are(node: &Node, children: &[Placed]) -> Option<Distribution> {
    let (first, others) = children.split_first()?;
    if children.iter().all(|child| child.distribution.is_copied()) {
        let mut common = Distribution::Anywhere;
        for child in children {
            common = match (common, &child.distribution) {
                (Distribution::Replicated(before), Distribution::Replicated(workers)) => {
                    Distribution::Replicated(&before & workers)
                }
                (Distribution::Anywhere, other) => other.clone(),
                (before, _) => before,
            };
        }
        let apart = matches!(&common, Distribution::Replicated(workers) if workers.is_empty());
        return (!apart).then_some(common);
    }
    let single = children
        .iter()
        .find(|child| matches!(child.distribution, Distribution::Single(_)));
    if let Some(single) = single {
        let workers = single.distribution.workers();
        let together = children.iter().all(|child| child.distribution.whole_on(&workers));
        return together.then(|| single.distribution.clone());
    }
    let way = positional(first)?;
    others
        .iter()
        .all(|child| way.fits(child))
        .then(|| way.distribution(node))
}

fn combined(node: &Node, children: Vec<Placed>, distribution: Distribution) -> Placed {
    let target = children.iter().find_map(|child| child.target.clone());
    Placed {
        step: Step::Operator {
            node: node.id,
            children: children.into_iter().map(|child| child.step).collect(),
        },
        distribution,
        equal: Equal::default(),
        columns: node.columns.clone(),
        rows: node.rows,
        row_bytes: node.row_bytes,
        target,
        reasons: Vec::new(),
    }
}
