//! Where the rows of an operator's output are.

use std::collections::BTreeSet;

use super::super::placement::WorkerId;
use super::super::plan::Binding;

/// Workers, in order of their names, so that every choice among them is repeatable.
pub(super) type WorkerSet = BTreeSet<WorkerId>;

/// Where the rows of an operator's output are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Distribution {
    /// On the coordinator.
    Coordinator,
    /// They can be made wherever they are wanted.
    Anywhere,
    /// All of them on each of these.
    Replicated(WorkerSet),
    /// All of them on this one.
    Single(WorkerId),
    /// By the hash of keys.
    Hash(Hashed),
    /// Each on one of these; which one, nothing says.
    Spread(WorkerSet),
}

/// Rows that are where the hash of their keys says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Hashed {
    /// For each key, in order, the output columns that hold it.
    pub keys: Vec<BTreeSet<Binding>>,
    /// The worker of each bucket.
    pub buckets: Vec<WorkerId>,
    /// The version of DuckDB whose `hash` it is.
    pub version: String,
    /// Those that can have rows: filters may leave fewer than `buckets` names.
    pub workers: WorkerSet,
}

impl Hashed {
    /// Whether rows may be in every bucket, so that rows sent there meet whatever is there.
    pub fn is_whole(&self) -> bool {
        self.buckets.iter().collect::<BTreeSet<_>>() == self.workers.iter().collect()
    }

    /// Whether a value is in the same bucket here and there.
    pub fn same_buckets(&self, other: &Self) -> bool {
        self.buckets == other.buckets && self.version == other.version && self.keys.len() == other.keys.len()
    }
}

impl Distribution {
    /// Rows each on one of `workers`, by nothing known.
    pub fn spread(workers: WorkerSet) -> Self {
        Self::Spread(workers).simplified()
    }

    /// The same, said in the strongest way: rows on one worker are `Single`, and a hash of a column that is gone says
    /// nothing.
    pub fn simplified(self) -> Self {
        let workers = match &self {
            Self::Hash(hashed) => &hashed.workers,
            Self::Spread(workers) => workers,
            _ => return self,
        };
        let mut iter = workers.iter();
        if let (Some(only), None) = (iter.next(), iter.next()) {
            return Self::Single(only.clone());
        }
        match self {
            Self::Hash(hashed) if hashed.keys.iter().any(BTreeSet::is_empty) => Self::Spread(hashed.workers),
            other => other,
        }
    }

    /// The workers among which the rows are divided, if they are.
    pub fn parts(&self) -> Option<&WorkerSet> {
        match self {
            Self::Hash(hashed) => Some(&hashed.workers),
            Self::Spread(workers) => Some(workers),
            _ => None,
        }
    }

    /// Whether every one of these workers has, or can make, all rows.
    pub fn whole_on<'a>(&self, workers: impl IntoIterator<Item = &'a WorkerId>) -> bool {
        match self {
            Self::Anywhere => true,
            Self::Replicated(all) => workers.into_iter().all(|worker| all.contains(worker)),
            Self::Single(only) => workers.into_iter().all(|worker| worker == only),
            Self::Coordinator | Self::Hash(_) | Self::Spread(_) => false,
        }
    }

    /// Whether several workers can each have all rows.
    pub fn is_copied(&self) -> bool {
        matches!(self, Self::Anywhere | Self::Replicated(_))
    }

    /// Every worker that has rows.
    pub fn workers(&self) -> WorkerSet {
        match self {
            Self::Coordinator | Self::Anywhere => WorkerSet::new(),
            Self::Replicated(workers) | Self::Spread(workers) => workers.clone(),
            Self::Single(worker) => WorkerSet::from([worker.clone()]),
            Self::Hash(hashed) => hashed.workers.clone(),
        }
    }

    /// With every key column replaced by those that `map` says it is in the output above.
    pub fn map_keys(self, map: impl Fn(&BTreeSet<Binding>) -> BTreeSet<Binding>) -> Self {
        match self {
            Self::Hash(mut hashed) => {
                hashed.keys = hashed.keys.iter().map(map).collect();
                Self::Hash(hashed).simplified()
            }
            other => other,
        }
    }
}

/// Columns that hold the same value, or are all NULL, in every row.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Equal(Vec<BTreeSet<Binding>>);

impl Equal {
    /// A column and all that equal it.
    pub fn class(&self, column: Binding) -> BTreeSet<Binding> {
        let class = self.0.iter().find(|class| class.contains(&column));
        class.cloned().unwrap_or_else(|| BTreeSet::from([column]))
    }

    /// These columns and all that equal one of them.
    pub fn expand(&self, columns: &BTreeSet<Binding>) -> BTreeSet<Binding> {
        columns.iter().flat_map(|column| self.class(*column)).collect()
    }

    /// Notes that two columns are equal.
    pub fn merge(&mut self, left: Binding, right: Binding) {
        let mut class = self.class(left);
        class.extend(self.class(right));
        self.0.retain(|known| known.is_disjoint(&class));
        self.0.push(class);
    }

    /// Of both sides of a join.
    pub fn union(mut self, other: Self) -> Self {
        self.0.extend(other.0);
        self
    }

    /// With every column replaced by those that it is in the output above.
    pub fn map(self, map: impl Fn(&BTreeSet<Binding>) -> BTreeSet<Binding>) -> Self {
        Self(self.0.iter().map(map).filter(|class| class.len() > 1).collect())
    }
}
