//! Plans that can be run: on one node, and in the steps that the planner makes of them, on workers that are maps.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use super::super::super::placement::{Placement, WorkerId};
use super::super::super::plan::{Binding, Equality, JoinType, Key, Node, NodeId, Op, Route, Step};
use super::super::super::query::StageId;

pub type Value = Option<i64>;
pub type Row = Vec<Value>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expression {
    Column(Binding),
    /// Computed: the remainder of a column.
    Remainder(Binding, i64),
}

#[derive(Debug, Clone, Copy)]
pub enum Condition {
    Equal {
        left: Expression,
        right: Expression,
        nulls: bool,
    },
    Less {
        left: Expression,
        right: Expression,
    },
}

#[derive(Debug, Clone, Copy)]
pub enum Aggregate {
    Count,
    Sum(Binding),
    Min(Binding),
    /// Has no first phase.
    CountDistinct(Binding),
}

#[derive(Debug, Clone, Copy)]
pub enum Function {
    RowNumber,
    Sum(Binding),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SetKind {
    UnionAll,
    Union,
    Except,
    ExceptAll,
    Intersect,
    IntersectAll,
}

#[derive(Debug, Clone)]
pub struct Table {
    pub name: String,
    pub rows: Vec<Row>,
    pub placement: Placement,
    /// Of a hash placement: the positions of the keys.
    pub keys: Vec<usize>,
}

/// What an operator does.
#[derive(Debug, Clone)]
pub enum What {
    /// Rows of a table in which the one key, if `only` is given, has one of these values.
    Scan {
        table: Table,
        only: Option<Vec<Value>>,
        output: Vec<usize>,
        target: bool,
    },
    Values(Vec<Row>),
    /// A table of the coordinator.
    Local(Vec<Row>),
    /// Something that runs on the coordinator.
    PassLocal,
    /// Where the column is an even number.
    Filter(Binding),
    Project(Vec<Expression>),
    Join {
        join_type: JoinType,
        conditions: Vec<Condition>,
        row_wise: bool,
    },
    Aggregate {
        groups: Vec<Expression>,
        sets: Vec<Vec<usize>>,
        aggregates: Vec<Aggregate>,
        order_free: bool,
    },
    Distinct {
        targets: Vec<Expression>,
        plain: bool,
    },
    Window(Vec<(Vec<Expression>, Function)>),
    Order,
    TopN(usize),
    Limit(usize),
    Set(SetKind),
    Cte(u64),
    CteRef(u64),
    Unnest,
}

#[derive(Debug, Clone)]
pub struct Plan {
    pub id: NodeId,
    pub what: What,
    pub children: Vec<Plan>,
    pub columns: Vec<Binding>,
    pub rows: u64,
    pub row_bytes: u64,
    pub local: bool,
}

#[derive(Debug, Clone)]
pub struct Relation {
    pub columns: Vec<Binding>,
    pub rows: Vec<Row>,
    /// Whose first phase made it.
    pub partial: Option<NodeId>,
}

/// The version whose hash exchanges use.
pub const HASH_VERSION: &str = "v1";

/// The bucket of a row, for tables and exchanges alike.
pub fn bucket(version: &str, keys: &[Value], buckets: usize) -> usize {
    let mut hash = if version == HASH_VERSION { 17_u64 } else { 4_711 };
    for key in keys {
        let key = key.map_or(0x9e37, |key| key.cast_unsigned().wrapping_mul(31).wrapping_add(7));
        hash = hash.rotate_left(13) ^ key;
        hash = hash.wrapping_mul(0xff51_afd7_ed55_8ccd);
        hash ^= hash >> 33;
    }
    usize::try_from(hash % u64::try_from(buckets).unwrap()).unwrap()
}

fn plain(expression: &Expression) -> Option<Binding> {
    match expression {
        Expression::Column(binding) => Some(*binding),
        Expression::Remainder(..) => None,
    }
}

impl Table {
    /// The rows of one worker.
    fn part(&self, worker: &WorkerId) -> Vec<Row> {
        assert!(
            self.placement.workers().contains(worker),
            "{} is not on {}",
            self.name,
            worker.0
        );
        let at = |index: usize, row: &Row| match &self.placement {
            Placement::Hash {
                partitions,
                hash_version,
                ..
            } => {
                let keys: Vec<Value> = self.keys.iter().map(|key| row[*key]).collect();
                partitions[bucket(hash_version, &keys, partitions.len())] == *worker
            }
            Placement::Even { partitions } => partitions[index % partitions.len()] == *worker,
            Placement::Replicated { .. } => true,
        };
        let rows = self.rows.iter().enumerate().filter(|(index, row)| at(*index, row));
        rows.map(|(_, row)| row.clone()).collect()
    }
}

impl What {
    /// Whether two nodes may make different rows of the same input.
    fn depends_on_order(&self) -> bool {
        match self {
            Self::TopN(_) | Self::Limit(_) | Self::Window(_) => true,
            Self::Join { row_wise, .. } => !row_wise,
            Self::Aggregate { order_free, .. } => !order_free,
            Self::Distinct { plain, .. } => !plain,
            _ => false,
        }
    }
}

impl Plan {
    /// What the planner is told.
    pub fn node(&self) -> Node {
        Node {
            id: self.id,
            op: self.op(),
            children: self.children.iter().map(Self::node).collect(),
            columns: self.columns.clone(),
            rows: self.rows,
            row_bytes: self.row_bytes,
            local: self.local,
        }
    }

    fn op(&self) -> Op {
        match &self.what {
            What::Scan {
                table,
                only,
                output,
                target,
            } => {
                let column = |key: &usize| output.iter().position(|out| out == key).map(|at| self.columns[at]);
                let partitions = only.as_ref().map(|only| match &table.placement {
                    Placement::Hash {
                        partitions,
                        hash_version,
                        ..
                    } => {
                        let part =
                            |value: &Value| u32::try_from(bucket(hash_version, &[*value], partitions.len())).unwrap();
                        only.iter().map(part).collect::<BTreeSet<_>>().into_iter().collect()
                    }
                    _ => panic!("pruned without a hash"),
                });
                Op::Scan {
                    table: table.name.clone(),
                    placement: table.placement.clone(),
                    keys: table.keys.iter().map(column).collect(),
                    partitions,
                    target: *target,
                }
            }
            What::Values(_) => Op::Constant,
            What::Local(_) | What::PassLocal => Op::Other {
                kind: "SEQ_SCAN".into(),
            },
            What::Filter(_) => Op::Filter,
            What::Project(expressions) => Op::Projection {
                passes: expressions.iter().map(plain).collect(),
            },
            What::Join {
                join_type,
                conditions,
                row_wise,
            } => {
                let equality = |(condition, which): (u32, &Condition)| match which {
                    Condition::Equal { left, right, nulls } => Some(Equality {
                        condition,
                        left: plain(left),
                        right: plain(right),
                        nulls_equal: *nulls,
                    }),
                    Condition::Less { .. } => None,
                };
                let equalities = (0..).zip(conditions).filter_map(equality).collect();
                Op::Join {
                    join_type: *join_type,
                    equalities,
                    row_wise: *row_wise,
                }
            }
            What::Aggregate {
                groups,
                sets,
                aggregates,
                order_free,
            } => Op::Aggregate {
                groups: groups.iter().map(plain).collect(),
                two_phase: !aggregates
                    .iter()
                    .any(|aggregate| matches!(aggregate, Aggregate::CountDistinct(_))),
                single_set: sets.len() == 1,
                order_free: *order_free,
            },
            What::Distinct { targets, plain: all } => Op::Distinct {
                targets: targets.iter().map(plain).collect(),
                plain: *all,
            },
            What::Window(functions) => {
                let columns = |(by, _): &(Vec<Expression>, Function)| by.iter().map(plain).collect();
                Op::Window {
                    partitions: functions.iter().map(columns).collect(),
                }
            }
            What::Order => Op::Order,
            What::TopN(_) => Op::TopN,
            What::Limit(_) => Op::Limit,
            What::Set(kind) => Op::SetOperation {
                union_all: *kind == SetKind::UnionAll,
            },
            What::Cte(index) => Op::Cte { index: *index },
            What::CteRef(index) => Op::CteRef { index: *index },
            What::Unnest => Op::Unnest,
        }
    }

    /// All operators, by number.
    pub fn index(&self) -> BTreeMap<NodeId, &Self> {
        let mut index = BTreeMap::new();
        self.add_to(&mut index);
        index
    }

    fn add_to<'a>(&'a self, index: &mut BTreeMap<NodeId, &'a Self>) {
        assert!(index.insert(self.id, self).is_none());
        self.children.iter().for_each(|child| child.add_to(index));
    }

    /// The rows, on one node that has all tables.
    pub fn run(&self, ctes: &mut BTreeMap<u64, Relation>) -> Relation {
        match &self.what {
            What::Cte(index) => {
                let defined = self.children[0].run(ctes);
                ctes.insert(*index, defined);
                self.children[1].run(ctes)
            }
            What::CteRef(index) => self.renamed(&ctes[index]),
            What::Scan { table, .. } => self.scanned(table.rows.clone()),
            _ => {
                let children = self.children.iter().map(|child| child.run(ctes)).collect();
                self.apply(children)
            }
        }
    }

    /// The rows, and how many each operator below has for input.
    fn count_inputs(&self, ctes: &mut BTreeMap<u64, Relation>, counts: &mut BTreeMap<NodeId, usize>) -> Relation {
        match &self.what {
            What::Cte(index) => {
                let defined = self.children[0].count_inputs(ctes, counts);
                ctes.insert(*index, defined);
                self.children[1].count_inputs(ctes, counts)
            }
            What::CteRef(_) | What::Scan { .. } => self.run(ctes),
            _ => {
                let children: Vec<_> = self
                    .children
                    .iter()
                    .map(|child| child.count_inputs(ctes, counts))
                    .collect();
                counts.insert(self.id, children.iter().map(|child| child.rows.len()).sum());
                self.apply(children)
            }
        }
    }

    fn scanned(&self, rows: Vec<Row>) -> Relation {
        let What::Scan {
            table, only, output, ..
        } = &self.what
        else {
            panic!("no scan")
        };
        let kept = |row: &Row| only.as_ref().is_none_or(|only| only.contains(&row[table.keys[0]]));
        let rows = rows.into_iter().filter(kept);
        self.relation(
            rows.map(|row| output.iter().map(|column| row[*column]).collect())
                .collect(),
        )
    }

    fn renamed(&self, defined: &Relation) -> Relation {
        self.relation(defined.rows.clone())
    }

    fn relation(&self, rows: Vec<Row>) -> Relation {
        assert!(rows.iter().all(|row| row.len() == self.columns.len()));
        Relation {
            columns: self.columns.clone(),
            rows,
            partial: None,
        }
    }

    /// What the operator makes of its inputs.
    fn apply(&self, mut children: Vec<Relation>) -> Relation {
        if let [child] = children.as_slice()
            && child.partial.is_some()
        {
            assert_eq!(child.partial, Some(self.id), "a first phase without its second");
            return self.finish(&children.remove(0));
        }
        match &self.what {
            What::Values(rows) | What::Local(rows) => self.relation(rows.clone()),
            What::PassLocal => self.keep(&children[0], children[0].rows.clone()),
            What::Filter(column) => {
                let child = &children[0];
                let even = |row: &&Row| child.value(row, *column).is_some_and(|value| value % 2 == 0);
                self.keep(child, child.rows.iter().filter(even).cloned().collect())
            }
            What::Project(expressions) => {
                let child = &children[0];
                let project = |row: &Row| expressions.iter().map(|one| child.evaluate(row, one)).collect();
                self.relation(child.rows.iter().map(project).collect())
            }
            What::Join {
                join_type, conditions, ..
            } => self.join(&children[0], &children[1], *join_type, conditions),
            What::Aggregate {
                groups,
                sets,
                aggregates,
                ..
            } => {
                let child = &children[0];
                self.relation(aggregate(child, groups, sets, aggregates))
            }
            What::Distinct { targets, .. } => self.keep(&children[0], distinct(&children[0], targets)),
            What::Window(functions) => self.relation(window(&children[0], functions)),
            What::Order => self.keep(&children[0], sorted(children[0].rows.clone())),
            What::TopN(count) | What::Limit(count) => {
                let mut rows = sorted(children[0].rows.clone());
                rows.truncate(*count);
                self.keep(&children[0], rows)
            }
            What::Set(kind) => {
                let right = children.remove(1).rows;
                self.relation(combine(*kind, children.remove(0).rows, right))
            }
            What::Unnest => {
                let rows = children[0].rows.iter();
                let twice = |row: &Row| [0, 1].map(|extra| row.iter().copied().chain([Some(extra)]).collect());
                self.relation(rows.flat_map(twice).collect())
            }
            What::Scan { .. } | What::Cte(_) | What::CteRef(_) => panic!("not applied to inputs"),
        }
    }

    /// Rows of an input whose columns pass, as many as the output has.
    fn keep(&self, child: &Relation, rows: Vec<Row>) -> Relation {
        let columns: Vec<usize> = self.columns.iter().map(|column| child.position(*column)).collect();
        self.relation(
            rows.iter()
                .map(|row| columns.iter().map(|at| row[*at]).collect())
                .collect(),
        )
    }

    fn join(&self, left: &Relation, right: &Relation, join_type: JoinType, conditions: &[Condition]) -> Relation {
        let mut rows: Vec<Row> = Vec::new();
        let mut right_matched = vec![false; right.rows.len()];
        for l in &left.rows {
            let verdicts: Vec<Option<bool>> = right
                .rows
                .iter()
                .map(|r| verdict(left, l, right, r, conditions))
                .collect();
            let matches: Vec<usize> = (0..verdicts.len()).filter(|at| verdicts[*at] == Some(true)).collect();
            matches.iter().for_each(|at| right_matched[*at] = true);
            let with = |r: Row| l.iter().copied().chain(r).collect::<Row>();
            let nulls = vec![None; right.columns.len()];
            match join_type {
                JoinType::Semi if !matches.is_empty() => rows.push(l.clone()),
                JoinType::Anti if matches.is_empty() => rows.push(l.clone()),
                JoinType::Mark => {
                    let unknown = verdicts.contains(&None);
                    let mark = if !matches.is_empty() {
                        Some(1)
                    } else if unknown {
                        None
                    } else {
                        Some(0)
                    };
                    rows.push(l.iter().copied().chain([mark]).collect());
                }
                // Which one is chosen must not depend on their order here.
                JoinType::Single => {
                    rows.push(with(
                        matches.iter().map(|at| right.rows[*at].clone()).min().unwrap_or(nulls),
                    ));
                }
                JoinType::Inner | JoinType::Left | JoinType::Right | JoinType::Outer => {
                    rows.extend(matches.iter().map(|at| with(right.rows[*at].clone())));
                    if matches.is_empty() && matches!(join_type, JoinType::Left | JoinType::Outer) {
                        rows.push(with(nulls));
                    }
                }
                _ => {}
            }
        }
        for (r, matched) in right.rows.iter().zip(&right_matched) {
            match join_type {
                JoinType::RightSemi if *matched => rows.push(r.clone()),
                JoinType::RightAnti if !*matched => rows.push(r.clone()),
                JoinType::Right | JoinType::Outer if !*matched => {
                    rows.push(left.columns.iter().map(|_| None).chain(r.iter().copied()).collect());
                }
                _ => {}
            }
        }
        let columns: Vec<Binding> = match join_type {
            JoinType::Semi | JoinType::Anti => left.columns.clone(),
            JoinType::RightSemi | JoinType::RightAnti => right.columns.clone(),
            JoinType::Mark => left
                .columns
                .iter()
                .copied()
                .chain([(u64::from(self.id) + 1_000_000, 0)])
                .collect(),
            _ => left.columns.iter().chain(&right.columns).copied().collect(),
        };
        self.keep(
            &Relation {
                columns,
                rows: Vec::new(),
                partial: None,
            },
            rows,
        )
    }

    /// The first phase.
    fn begin(&self, child: &Relation) -> Relation {
        let (columns, rows) = match &self.what {
            What::Aggregate { groups, aggregates, .. } => {
                let all = (0..groups.len()).collect();
                (self.columns.clone(), aggregate(child, groups, &[all], aggregates))
            }
            What::Distinct { targets, plain: true } => (child.columns.clone(), distinct(child, targets)),
            What::TopN(count) | What::Limit(count) => {
                let mut rows = sorted(child.rows.clone());
                rows.truncate(*count);
                (child.columns.clone(), rows)
            }
            other => panic!("{other:?} has no first phase"),
        };
        Relation {
            columns,
            rows,
            partial: Some(self.id),
        }
    }

    /// The second phase.
    fn finish(&self, child: &Relation) -> Relation {
        let What::Aggregate {
            groups,
            sets,
            aggregates,
            ..
        } = &self.what
        else {
            let child = Relation {
                partial: None,
                ..child.clone()
            };
            return self.apply(vec![child]);
        };
        let at = |index: usize| self.columns[index];
        let grouped: Vec<Expression> = (0..groups.len()).map(|index| Expression::Column(at(index))).collect();
        let again = |(index, aggregate): (usize, &Aggregate)| match aggregate {
            Aggregate::Count | Aggregate::Sum(_) => Aggregate::Sum(at(groups.len() + index)),
            Aggregate::Min(_) => Aggregate::Min(at(groups.len() + index)),
            Aggregate::CountDistinct(_) => panic!("has no first phase"),
        };
        let merging: Vec<Aggregate> = aggregates.iter().enumerate().map(again).collect();
        let mut rows = aggregate(child, &grouped, sets, &merging);
        for row in &mut rows {
            for (value, aggregate) in row[groups.len()..].iter_mut().zip(aggregates) {
                if matches!(aggregate, Aggregate::Count) {
                    *value = value.or(Some(0));
                }
            }
        }
        self.relation(rows)
    }
}

impl Relation {
    fn position(&self, column: Binding) -> usize {
        let at = self.columns.iter().position(|known| *known == column);
        at.unwrap_or_else(|| panic!("{column:?} is not in {:?}", self.columns))
    }

    fn value(&self, row: &Row, column: Binding) -> Value {
        row[self.position(column)]
    }

    fn evaluate(&self, row: &Row, expression: &Expression) -> Value {
        match expression {
            Expression::Column(binding) => self.value(row, *binding),
            Expression::Remainder(binding, by) => self.value(row, *binding).map(|value| value.rem_euclid(*by)),
        }
    }
}

fn verdict(left: &Relation, l: &Row, right: &Relation, r: &Row, conditions: &[Condition]) -> Option<bool> {
    let mut all = Some(true);
    for condition in conditions {
        let one = match condition {
            Condition::Equal {
                left: a,
                right: b,
                nulls: true,
            } => Some(left.evaluate(l, a) == right.evaluate(r, b)),
            Condition::Equal {
                left: a,
                right: b,
                nulls: false,
            } => left.evaluate(l, a).zip(right.evaluate(r, b)).map(|(a, b)| a == b),
            Condition::Less { left: a, right: b } => left.evaluate(l, a).zip(right.evaluate(r, b)).map(|(a, b)| a < b),
        };
        all = match (all, one) {
            (Some(false), _) | (_, Some(false)) => Some(false),
            (Some(true), Some(true)) => Some(true),
            _ => None,
        };
    }
    all
}

fn aggregate(child: &Relation, groups: &[Expression], sets: &[Vec<usize>], aggregates: &[Aggregate]) -> Vec<Row> {
    let mut result = Vec::new();
    for set in sets {
        let mut grouped: BTreeMap<Row, Vec<&Row>> = BTreeMap::new();
        if set.is_empty() {
            grouped.insert(vec![None; groups.len()], Vec::new());
        }
        for row in &child.rows {
            let value = |(index, group)| {
                if set.contains(&index) {
                    child.evaluate(row, group)
                } else {
                    None
                }
            };
            grouped
                .entry(groups.iter().enumerate().map(value).collect())
                .or_default()
                .push(row);
        }
        for (mut group, rows) in grouped {
            for aggregate in aggregates {
                let values = |column: Binding| rows.iter().filter_map(move |row| child.value(row, column));
                group.push(match aggregate {
                    Aggregate::Count => Some(i64::try_from(rows.len()).unwrap()),
                    Aggregate::Sum(column) => values(*column).reduce(i64::wrapping_add),
                    Aggregate::Min(column) => values(*column).min(),
                    Aggregate::CountDistinct(column) => {
                        Some(i64::try_from(values(*column).collect::<BTreeSet<_>>().len()).unwrap())
                    }
                });
            }
            result.push(group);
        }
    }
    result
}

/// Of equal targets the smallest row.
fn distinct(child: &Relation, targets: &[Expression]) -> Vec<Row> {
    let mut first: BTreeMap<Row, Row> = BTreeMap::new();
    for row in sorted(child.rows.clone()) {
        let key = targets.iter().map(|target| child.evaluate(&row, target)).collect();
        first.entry(key).or_insert(row);
    }
    first.into_values().collect()
}

fn window(child: &Relation, functions: &[(Vec<Expression>, Function)]) -> Vec<Row> {
    let rows = sorted(child.rows.clone());
    let mut result = rows.clone();
    for (by, function) in functions {
        let key = |row: &Row| -> Row { by.iter().map(|one| child.evaluate(row, one)).collect() };
        let mut seen: BTreeMap<Row, i64> = BTreeMap::new();
        let mut sums: BTreeMap<Row, Value> = BTreeMap::new();
        if let Function::Sum(column) = function {
            for row in &rows {
                let sum = sums.entry(key(row)).or_default();
                if let Some(value) = child.value(row, *column) {
                    *sum = Some(sum.unwrap_or(0).wrapping_add(value));
                }
            }
        }
        for (row, out) in rows.iter().zip(&mut result) {
            let count = seen.entry(key(row)).or_insert(0);
            *count += 1;
            out.push(match function {
                Function::RowNumber => Some(*count),
                Function::Sum(_) => sums[&key(row)],
            });
        }
    }
    result
}

fn combine(kind: SetKind, left: Vec<Row>, right: Vec<Row>) -> Vec<Row> {
    let once = |rows: Vec<Row>| rows.into_iter().collect::<BTreeSet<_>>();
    match kind {
        SetKind::UnionAll => left.into_iter().chain(right).collect(),
        SetKind::Union => once(left.into_iter().chain(right).collect()).into_iter().collect(),
        SetKind::Except => (&once(left) - &once(right)).into_iter().collect(),
        SetKind::Intersect => (&once(left) & &once(right)).into_iter().collect(),
        SetKind::ExceptAll | SetKind::IntersectAll => {
            let mut right = right;
            let mut rows = Vec::new();
            for row in left {
                let found = right.iter().position(|other| *other == row);
                if let Some(at) = found {
                    right.swap_remove(at);
                }
                if found.is_some() == (kind == SetKind::IntersectAll) {
                    rows.push(row);
                }
            }
            rows
        }
    }
}

pub fn sorted(mut rows: Vec<Row>) -> Vec<Row> {
    rows.sort();
    rows
}

/// Where something runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place<'a> {
    Coordinator,
    Worker(&'a WorkerId),
}

/// A herd that runs steps.
pub struct Herd<'a> {
    nodes: BTreeMap<NodeId, &'a Plan>,
    live: &'a BTreeSet<WorkerId>,
    definitions: RefCell<BTreeMap<StageId, &'a Step>>,
    /// What each stage sent to whom.
    sent: RefCell<BTreeMap<StageId, BTreeMap<Option<WorkerId>, Relation>>>,
    ctes: RefCell<BTreeMap<(u64, Option<WorkerId>), Relation>>,
    /// How many rows each operator whose result depends on their order had, on all workers together.
    ordered: RefCell<BTreeMap<NodeId, usize>>,
}

impl<'a> Herd<'a> {
    pub fn new(plan: &'a Plan, live: &'a BTreeSet<WorkerId>) -> Self {
        Self {
            nodes: plan.index(),
            live,
            definitions: RefCell::default(),
            sent: RefCell::default(),
            ctes: RefCell::default(),
            ordered: RefCell::default(),
        }
    }

    /// That no operator which may give another result on each copy of its input had several copies.
    pub fn check_copies(&self, plan: &'a Plan) {
        let mut counts = BTreeMap::new();
        plan.count_inputs(&mut BTreeMap::new(), &mut counts);
        for (node, rows) in self.ordered.borrow().iter() {
            assert!(*rows <= counts[node], "{:?} had copies", self.nodes[node].what);
        }
    }

    pub fn run(&self, step: &'a Step, place: Place<'a>) -> Relation {
        match step {
            Step::Operator { node, children } => self.operator(self.nodes[node], children, place),
            Step::Partial { node, child } => self.nodes[node].begin(&self.run(child, place)),
            Step::Exchange { stage, .. } => {
                self.run_stage(step);
                self.read(*stage, place)
            }
            Step::SharedCte { definition, child, .. } => {
                let Step::Exchange {
                    stage,
                    route: Route::Forward,
                    ..
                } = definition.as_ref()
                else {
                    panic!("the definition is no stage")
                };
                self.definitions.borrow_mut().insert(*stage, definition);
                self.run(child, place)
            }
            Step::ExchangeRef { node, stage } => {
                assert_ne!(place, Place::Coordinator, "read without a gather");
                let definition = self.definitions.borrow()[stage];
                self.run_stage(definition);
                self.nodes[node].renamed(&self.read(*stage, place))
            }
        }
    }

    fn operator(&self, node: &'a Plan, children: &'a [Step], place: Place<'a>) -> Relation {
        assert!(
            !node.local || place == Place::Coordinator,
            "must run on the coordinator"
        );
        match &node.what {
            What::Scan { table, .. } => match place {
                Place::Coordinator => panic!("the coordinator has no rows"),
                Place::Worker(worker) => node.scanned(table.part(worker)),
            },
            What::Cte(index) => {
                let defined = self.run(&children[0], place);
                self.ctes.borrow_mut().insert((*index, place.worker()), defined);
                self.run(&children[1], place)
            }
            What::CteRef(index) => node.renamed(&self.ctes.borrow()[&(*index, place.worker())]),
            What::Local(_) | What::PassLocal if place != Place::Coordinator => panic!("not on a worker"),
            _ => {
                assert_eq!(children.len(), node.children.len());
                let children: Vec<Relation> = children.iter().map(|child| self.run(child, place)).collect();
                if node.what.depends_on_order() && children.iter().all(|child| child.partial.is_none()) {
                    let rows = children.iter().map(|child| child.rows.len()).sum::<usize>();
                    *self.ordered.borrow_mut().entry(node.id).or_default() += rows;
                }
                node.apply(children)
            }
        }
    }

    /// Runs a stage, unless that is done.
    fn run_stage(&self, step: &'a Step) {
        let Step::Exchange {
            stage,
            workers,
            route,
            child,
        } = step
        else {
            panic!("no stage")
        };
        if self.sent.borrow().contains_key(stage) {
            return;
        }
        assert!(!workers.is_empty() && workers.iter().all(|worker| self.live.contains(worker)));
        assert_eq!(workers.iter().collect::<BTreeSet<_>>().len(), workers.len());
        let mut sent: BTreeMap<Option<WorkerId>, Relation> = BTreeMap::new();
        for worker in workers {
            let made = self.run(child, Place::Worker(worker));
            let empty = Relation {
                rows: Vec::new(),
                ..made.clone()
            };
            // So that everybody knows the columns.
            for reader in self.live.iter().cloned().map(Some).chain([None]) {
                sent.entry(reader).or_insert_with(|| empty.clone());
            }
            for row in &made.rows {
                for reader in self.readers(route, &made, row, worker) {
                    sent.get_mut(&reader).unwrap().rows.push(row.clone());
                }
            }
        }
        self.sent.borrow_mut().insert(*stage, sent);
    }

    fn readers(&self, route: &Route, made: &Relation, row: &Row, worker: &WorkerId) -> Vec<Option<WorkerId>> {
        match route {
            Route::Gather => vec![None],
            Route::Forward => vec![Some(worker.clone())],
            Route::Broadcast { to } => to.iter().cloned().map(Some).collect(),
            Route::Hash { keys, buckets } => {
                let keys: Vec<Value> = keys.iter().map(|key| self.key(key, made, row)).collect();
                vec![Some(buckets[bucket(HASH_VERSION, &keys, buckets.len())].clone())]
            }
        }
    }

    fn key(&self, key: &Key, made: &Relation, row: &Row) -> Value {
        match key {
            Key::Column { binding } => {
                assert_eq!(made.partial, None, "a first phase has its own columns");
                made.value(row, *binding)
            }
            Key::JoinCondition { node, left, condition } => {
                let What::Join { conditions, .. } = &self.nodes[node].what else {
                    panic!("no join")
                };
                match &conditions[usize::try_from(*condition).unwrap()] {
                    Condition::Equal { left: a, right: b, .. } => made.evaluate(row, if *left { a } else { b }),
                    Condition::Less { .. } => panic!("no equality"),
                }
            }
            Key::Group { node, index } => {
                let index = usize::try_from(*index).unwrap();
                let groups = match &self.nodes[node].what {
                    What::Aggregate { groups, .. } if made.partial == Some(*node) => return row[index % groups.len()],
                    What::Aggregate { groups, .. } => groups,
                    What::Distinct { targets, .. } => targets,
                    other => panic!("{other:?} has no groups"),
                };
                made.evaluate(row, &groups[index])
            }
        }
    }

    fn read(&self, stage: StageId, place: Place<'_>) -> Relation {
        self.sent.borrow()[&stage][&place.worker()].clone()
    }
}

impl Place<'_> {
    fn worker(&self) -> Option<WorkerId> {
        match self {
            Self::Coordinator => None,
            Self::Worker(worker) => Some((*worker).clone()),
        }
    }
}

/// What holds for every distributed plan.
pub fn check_step(step: &Step) {
    let mut numbers = Vec::new();
    check_stages(step, None, &mut numbers);
    check_gathers(step, None, &mut BTreeMap::new(), &mut BTreeMap::new());
    numbers.sort_unstable();
    let expected: Vec<StageId> = (0..).take(numbers.len()).collect();
    assert_eq!(numbers, expected, "stages are numbered from 0");
}

/// That every stage which several references read is read in one query only: within one gather.
fn check_gathers(
    step: &Step,
    gather: Option<StageId>,
    definitions: &mut BTreeMap<StageId, Step>,
    readers: &mut BTreeMap<StageId, StageId>,
) {
    match step {
        Step::Operator { children, .. } => {
            children
                .iter()
                .for_each(|child| check_gathers(child, gather, definitions, readers));
        }
        Step::Partial { child, .. } => check_gathers(child, gather, definitions, readers),
        Step::Exchange { stage, child, .. } => check_gathers(child, gather.or(Some(*stage)), definitions, readers),
        Step::SharedCte { definition, child, .. } => {
            if let Step::Exchange {
                stage, child: defined, ..
            } = definition.as_ref()
            {
                definitions.insert(*stage, (**defined).clone());
                check_gathers(child, gather, definitions, readers);
                assert!(readers.contains_key(stage), "made for nobody");
            }
        }
        Step::ExchangeRef { stage, .. } => {
            let gather = gather.expect("read by the coordinator");
            assert_eq!(*readers.entry(*stage).or_insert(gather), gather, "read in two queries");
            let defined = definitions[stage].clone();
            check_gathers(&defined, Some(gather), definitions, readers);
        }
    }
}

/// `reader` is the stage that a step is part of.
fn check_stages(step: &Step, reader: Option<StageId>, numbers: &mut Vec<StageId>) {
    let earlier = |stage: StageId| assert!(reader.is_none_or(|reader| stage < reader), "read before it is made");
    match step {
        Step::Operator { children, .. } => children.iter().for_each(|child| check_stages(child, reader, numbers)),
        Step::Partial { .. } => panic!("a first phase without an exchange"),
        Step::Exchange {
            stage, route, child, ..
        } => {
            assert_eq!(
                reader.is_none(),
                *route == Route::Gather,
                "only the coordinator gathers, and nothing else"
            );
            earlier(*stage);
            numbers.push(*stage);
            let made = if let Step::Partial { child, .. } = child.as_ref() {
                child
            } else {
                child
            };
            check_stages(made, Some(*stage), numbers);
        }
        Step::SharedCte { definition, child, .. } => {
            let Step::Exchange {
                stage,
                route: Route::Forward,
                child: defined,
                ..
            } = definition.as_ref()
            else {
                panic!("the definition is no stage")
            };
            earlier(*stage);
            numbers.push(*stage);
            check_stages(defined, Some(*stage), numbers);
            check_stages(child, reader, numbers);
        }
        Step::ExchangeRef { stage, .. } => {
            assert!(reader.is_some(), "read by the coordinator");
            earlier(*stage);
        }
    }
}
