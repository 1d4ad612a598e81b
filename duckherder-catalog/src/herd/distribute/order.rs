//! ORDER BY, LIMIT and both together.

use super::super::plan::Node;
use super::distribution::Distribution;
use super::{Context, DistributeError, Placed, Planner, only_child, operator, partial};

impl Planner<'_> {
    pub(super) fn order(&mut self, node: &Node, context: Context) -> Result<Placed, DistributeError> {
        let child = self.place(only_child(node)?, context.unordered())?;
        let stays = context.on_workers && !context.ordered;
        if stays && child.distribution.is_copied() {
            return Ok(operator(node, child));
        }
        // Sorting is all that one node does here alone, so it is no fallback.
        let child = match stays.then(|| self.choose(&child.distribution.workers())).flatten() {
            Some(worker) => self.collect(child, &worker)?,
            None => self.gather(child)?,
        };
        Ok(operator(node, child))
    }

    /// Each worker finds as many rows as are wanted in all; one place then chooses among them.
    pub(super) fn limit(&mut self, node: &Node, context: Context) -> Result<Placed, DistributeError> {
        let sorts = matches!(node.op, super::Op::TopN);
        let inner = Context {
            ordered: context.ordered && !sorts,
            ..context
        };
        let mut child = self.place(only_child(node)?, inner)?;
        let stays = context.on_workers && !context.ordered;
        if child.distribution.is_copied() {
            // Copies need not agree on which rows come first.
            child = self.in_one_place(child, node, context, "")?;
        }
        let is_single = matches!(child.distribution, Distribution::Single(_));
        if child.is_on(&Distribution::Coordinator) || (is_single && (stays || !sorts)) {
            return Ok(operator(node, child));
        }
        let workers = child.distribution.workers();
        let copies = u64::try_from(workers.len()).unwrap_or(u64::MAX);
        let child = partial(node, child, node.rows.saturating_mul(copies));
        let child = match stays.then(|| self.choose(&workers)).flatten() {
            Some(worker) => self.collect(child, &worker)?,
            None => self.gather(child)?,
        };
        Ok(operator(node, child))
    }
}
