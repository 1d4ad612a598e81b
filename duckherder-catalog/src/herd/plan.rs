//! The optimized plan of a query, as the planner sees it, and the distributed plan that it makes of it.
//!
//! The C++ layer writes the first as JSON from DuckDB's logical operators and reads the second back; the serde names are
//! the format.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::placement::{Placement, WorkerId};
use super::query::StageId;

/// A column of an operator's output: DuckDB's `ColumnBinding`, table index and column index.
pub type Binding = (u64, u64);

/// Number of an operator in its plan.
pub type NodeId = u32;

/// The most operators that may be upon each other in a plan that is to be distributed.
pub const PLAN_DEPTH_MAX: usize = 500;

/// A logical operator.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Node {
    /// Unique within the plan.
    pub id: NodeId,
    /// What it does.
    pub op: Op,
    /// Its inputs.
    #[serde(default)]
    pub children: Vec<Node>,
    /// Its output columns.
    pub columns: Vec<Binding>,
    /// DuckDB's estimate of its rows.
    pub rows: u64,
    /// Estimated bytes of one row.
    pub row_bytes: u64,
    /// Whether it must run on the coordinator: it has a volatile expression, or one that means something else elsewhere,
    /// or cannot be written as SQL. Never so for a scan of a herd's table; of no meaning for a common table expression
    /// and its references.
    #[serde(default)]
    pub local: bool,
}

/// Why the description of a plan cannot be read.
#[derive(Debug, Error)]
pub enum PlanError {
    /// It has more operators upon each other than [`PLAN_DEPTH_MAX`].
    #[error("the plan is more than {PLAN_DEPTH_MAX} operators deep")]
    TooDeep,
    /// It is not what the C++ layer writes.
    #[error("the description of the plan cannot be read")]
    Json(#[from] serde_json::Error),
}

impl Node {
    /// Reads what the C++ layer writes. `serde_json` alone refuses what is nested deeper than 128 times, which plans are.
    ///
    /// # Errors
    ///
    /// [`PlanError`]
    pub fn from_json(json: &str) -> Result<Self, PlanError> {
        // Two a operator, its object and the array of its inputs, and a few within.
        if nesting(json) > 2 * PLAN_DEPTH_MAX + 8 {
            return Err(PlanError::TooDeep);
        }
        let mut reader = serde_json::Deserializer::from_str(json);
        reader.disable_recursion_limit();
        let node = Self::deserialize(&mut reader)?;
        reader.end()?;
        Ok(node)
    }
}

/// How deep brackets are within brackets, not counting those in strings.
fn nesting(json: &str) -> usize {
    let (mut depth, mut most) = (0_usize, 0);
    let (mut in_string, mut escaped) = (false, false);
    for byte in json.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = in_string,
            b'"' => in_string = !in_string,
            b'[' | b'{' if !in_string => {
                depth += 1;
                most = most.max(depth);
            }
            b']' | b'}' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    most
}

/// The kinds of logical operators that the planner tells apart.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "name", rename_all = "snake_case")]
pub enum Op {
    /// A scan of a herd's table.
    Scan {
        /// Schema and name, for messages.
        table: String,
        /// Where its rows are.
        placement: Placement,
        /// For `Placement::Hash`: the output column of each key, where the scan yields it.
        keys: Vec<Option<Binding>>,
        /// If filters fix all keys: the partitions that can have such rows.
        #[serde(default)]
        partitions: Option<Vec<u32>>,
        /// It is what a DML statement changes: the rows must be met where they are.
        #[serde(default)]
        target: bool,
    },
    /// Rows that are the same, and in the same order, wherever they are made: constants, an empty result.
    Constant,
    /// FILTER
    Filter,
    /// PROJECTION
    Projection {
        /// For each output column the input column that it is, unless it is computed.
        passes: Vec<Option<Binding>>,
    },
    /// A join on comparisons; also without any (cross product), or on any condition, with `equalities` empty.
    Join {
        /// Its type.
        join_type: JoinType,
        /// Its equality conditions, by their number among all conditions.
        equalities: Vec<Equality>,
        /// Whether there is nothing but the comparisons and conditions that a hash join or nested loop can check row by
        /// row; not for ASOF and positional joins.
        row_wise: bool,
    },
    /// Groups and aggregates. Output: the groups, then the aggregates.
    Aggregate {
        /// For each group the input column that it is, unless it is computed.
        groups: Vec<Option<Binding>>,
        /// Whether every aggregate can be computed in two phases. With several grouping sets: the first phase has one,
        /// of all groups, and the second all of them.
        two_phase: bool,
        /// Whether it has one grouping set only.
        single_set: bool,
        /// Whether every aggregate gives the same, to the last bit, whatever the order of its input: `count`, `min`,
        /// `max`, sums of integers and decimals. Otherwise several copies of the same rows may give different results,
        /// so one is taken.
        #[serde(default)]
        order_free: bool,
    },
    /// DISTINCT and DISTINCT ON.
    Distinct {
        /// For each target the input column that it is, unless it is computed.
        targets: Vec<Option<Binding>>,
        /// Whether it is a plain DISTINCT over all its columns.
        plain: bool,
    },
    /// Window functions. Output: the input's columns, then one a function.
    Window {
        /// For each function the input columns of its PARTITION BY; `None` if one of them is computed.
        partitions: Vec<Option<Vec<Binding>>>,
    },
    /// ORDER BY
    Order,
    /// ORDER BY with LIMIT
    TopN,
    /// LIMIT with constants
    Limit,
    /// UNION, EXCEPT, INTERSECT
    SetOperation {
        /// Whether it is UNION ALL.
        union_all: bool,
    },
    /// A common table expression: its definition, then what uses it.
    Cte {
        /// Its table index.
        index: u64,
    },
    /// The rows of a common table expression.
    CteRef {
        /// Its table index.
        index: u64,
    },
    /// UNNEST and the like: rows out of a row.
    Unnest,
    /// Anything else, a scan of a table of the coordinator among it: it runs there.
    Other {
        /// DuckDB's name of it.
        kind: String,
    },
}

/// DuckDB's join types. The right side of `RightSemi` and `RightAnti` is what comes out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JoinType {
    /// INNER, and cross products
    Inner,
    /// LEFT
    Left,
    /// RIGHT
    Right,
    /// FULL OUTER
    Outer,
    /// SEMI
    Semi,
    /// ANTI
    Anti,
    /// MARK: the left side's rows with whether there is a match
    Mark,
    /// SINGLE: the left side's rows with the one match, an error if there are more
    Single,
    /// RIGHT_SEMI
    RightSemi,
    /// RIGHT_ANTI
    RightAnti,
}

/// An equality condition of a join, both sides of the same type.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Equality {
    /// Its number among the join's conditions.
    pub condition: u32,
    /// The left side's column, unless it is computed.
    pub left: Option<Binding>,
    /// The right side's column, unless it is computed.
    pub right: Option<Binding>,
    /// Whether NULL equals NULL (IS NOT DISTINCT FROM).
    #[serde(default)]
    pub nulls_equal: bool,
}

/// The distributed plan: the given operators, with exchanges between them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "step", rename_all = "snake_case")]
pub enum Step {
    /// The operator, on these inputs, one for each child in order.
    Operator {
        /// Which.
        node: NodeId,
        /// Its inputs.
        children: Vec<Step>,
    },
    /// The first phase of a two-phase aggregate, of a plain DISTINCT, Top-N or LIMIT: yields no fewer rows than needed for
    /// the second phase, which is the `Operator` step of the same node right above the exchange that is right above this.
    /// An aggregate's has its groups, all of them in one grouping set, then a state for each aggregate; without groups it
    /// is one row, if there is no input as well. Top-N and LIMIT keep limit and offset together. The columns are new
    /// ones, whose bindings nothing here names: exchanges hash it by `Key::Group`.
    Partial {
        /// Which.
        node: NodeId,
        /// Its one input.
        child: Box<Step>,
    },
    /// Below, the workers run; above, others do: the coordinator if the route is `Gather`, which is so exactly if no other
    /// exchange is further up, else those of the next exchange further up. Of them, each reads what was sent to it, which
    /// may be nothing, from a stage that did not run there too. What was sent to a worker that does not read is not needed.
    Exchange {
        /// Its stage.
        stage: StageId,
        /// Who runs what is below.
        workers: Vec<WorkerId>,
        /// Where the rows go.
        route: Route,
        /// What is below.
        child: Box<Step>,
    },
    /// A common table expression whose definition is a stage of its own: `definition` is an `Exchange` by `Forward`, and
    /// each reference below `child` an `ExchangeRef`. It may be above gathers, on the coordinator; but all references, and
    /// those in definitions of others that it is needed for, end in the same gather, and it is a stage of that query.
    SharedCte {
        /// Which.
        node: NodeId,
        /// The definition.
        definition: Box<Step>,
        /// What uses it.
        child: Box<Step>,
    },
    /// Rows of a stage that is defined elsewhere in the plan. Its columns are those of the `CteRef`, the definition's in
    /// the same order.
    ExchangeRef {
        /// The `CteRef` it stands for.
        node: NodeId,
        /// The stage.
        stage: StageId,
    },
}

/// Where the rows of an exchange go.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Route {
    /// To the coordinator.
    Gather,
    /// By the hash of keys, to the worker of the bucket.
    Hash {
        /// The keys, in order.
        keys: Vec<Key>,
        /// The worker of each bucket.
        buckets: Vec<WorkerId>,
    },
    /// To all of these.
    Broadcast {
        /// Workers.
        to: Vec<WorkerId>,
    },
    /// Nowhere: whoever made a row reads it.
    Forward,
}

/// What a row is hashed by: a column of the exchange's input, or an expression of the operator above.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "of", rename_all = "snake_case")]
pub enum Key {
    /// An output column of what is below the exchange.
    Column {
        /// Which.
        binding: Binding,
    },
    /// One side of a join's condition.
    JoinCondition {
        /// The join.
        node: NodeId,
        /// Whether it is the left side.
        left: bool,
        /// The condition's number.
        condition: u32,
    },
    /// A group of an aggregate, or a target of a DISTINCT: the column of that number of what its first phase yields, if
    /// that is right below the exchange, else computed of the operator's input.
    Group {
        /// The operator.
        node: NodeId,
        /// The group's number.
        index: u32,
    },
}
