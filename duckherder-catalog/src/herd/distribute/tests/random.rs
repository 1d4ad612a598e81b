//! Random plans over random tables: the steps on workers have to give what one node gives.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::super::super::placement::{Placement, WorkerId};
use super::super::super::plan::{Binding, JoinType, NodeId, Route, Step};
use super::super::{DistributeError, Workers, distribute};
use super::simulation::{
    Aggregate, Condition, Expression, Function, HASH_VERSION, Herd, Place, Plan, Row, SetKind, Table, Value, What,
    check_step, sorted,
};

const JOIN_TYPES: [JoinType; 10] = [
    JoinType::Inner,
    JoinType::Left,
    JoinType::Right,
    JoinType::Outer,
    JoinType::Semi,
    JoinType::Anti,
    JoinType::Mark,
    JoinType::Single,
    JoinType::RightSemi,
    JoinType::RightAnti,
];

const SET_KINDS: [SetKind; 6] = [
    SetKind::UnionAll,
    SetKind::Union,
    SetKind::Except,
    SetKind::ExceptAll,
    SetKind::Intersect,
    SetKind::IntersectAll,
];

/// Joins grow; no case may take long.
const ROWS_MAX: usize = 3_000;

pub fn worker(number: usize) -> WorkerId {
    WorkerId(format!("w{number}"))
}

/// Makes choices of bytes: fewer and smaller bytes make a smaller plan.
struct Choices<'a> {
    bytes: &'a [u8],
    next_id: NodeId,
    next_table: u64,
    tables: Vec<Table>,
    /// Common table expressions in scope: index and number of columns.
    ctes: Vec<(u64, usize)>,
    locals: bool,
}

impl Choices<'_> {
    fn below(&mut self, limit: usize) -> usize {
        let Some((first, rest)) = self.bytes.split_first() else {
            return 0;
        };
        self.bytes = rest;
        usize::from(*first) % limit
    }

    fn one_in(&mut self, many: usize) -> bool {
        self.below(many) == many - 1
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }

    fn value(&mut self) -> Value {
        // Skewed, and with NULLs.
        self.pick(&[Some(0), Some(1), Some(2), Some(3), None, Some(0), Some(0), Some(5)])
    }

    fn rows(&mut self, columns: usize, most: usize) -> Vec<Row> {
        let count = self.below(most + 1);
        (0..count)
            .map(|_| (0..columns).map(|_| self.value()).collect())
            .collect()
    }

    fn table(&mut self, name: usize) -> Table {
        let columns = 2 + self.below(2);
        let rows = self.rows(columns, 9);
        // Few different ones, so that tables are colocated.
        let layouts: [&[usize]; 6] = [&[0, 1, 2], &[0, 1, 2, 0, 1], &[1, 2], &[2, 0], &[1], &[0, 1, 2, 2]];
        let partitions: Vec<WorkerId> = self.pick(&layouts).iter().map(|number| worker(*number)).collect();
        let (placement, keys) = match self.below(8) {
            0..=4 => {
                let keys: &[usize] = self.pick(&[&[0], &[0], &[1], &[0, 1], &[1, 0]]);
                let names = keys.iter().map(|key| format!("c{key}")).collect();
                let hash_version = if self.one_in(12) { "old" } else { HASH_VERSION }.to_owned();
                (
                    Placement::Hash {
                        keys: names,
                        partitions,
                        hash_version,
                    },
                    keys.to_vec(),
                )
            }
            5 => (Placement::Even { partitions }, Vec::new()),
            _ => (
                Placement::Replicated {
                    workers: Placement::Even { partitions }.workers(),
                },
                Vec::new(),
            ),
        };
        Table {
            name: format!("t{name}"),
            rows,
            placement,
            keys,
        }
    }

    fn columns(&mut self, count: usize) -> Vec<Binding> {
        self.next_table += 1;
        (0..).take(count).map(|column| (self.next_table, column)).collect()
    }

    fn plan(&mut self, what: What, children: Vec<Plan>, columns: Vec<Binding>) -> Plan {
        self.next_id += 1;
        let can_be_local = !matches!(what, What::Scan { .. } | What::Cte(_) | What::CteRef(_));
        let local = self.locals && can_be_local && self.one_in(40);
        let rows = self.pick(&[1, 10, 1_000, 100_000, 300_000, 5_000_000]);
        let row_bytes = self.pick(&[8, 100, 0]);
        Plan {
            id: self.next_id,
            what,
            children,
            columns,
            rows,
            row_bytes,
            local,
        }
    }

    fn column(&mut self, of: &Plan) -> Binding {
        self.pick(&of.columns)
    }

    fn expression(&mut self, of: &Plan) -> Expression {
        let column = self.column(of);
        if self.one_in(5) {
            Expression::Remainder(column, 2)
        } else {
            Expression::Column(column)
        }
    }

    fn expressions(&mut self, of: &Plan, most: usize) -> Vec<Expression> {
        let count = self.below(most + 1);
        (0..count).map(|_| self.expression(of)).collect()
    }

    fn scan(&mut self, target: bool) -> Plan {
        let at = self.below(self.tables.len());
        let table = self.tables[at].clone();
        let width = table.placement_width();
        let prunes = matches!(table.placement, Placement::Hash { .. }) && table.keys.len() == 1 && self.one_in(4);
        let only = prunes.then(|| {
            let count = self.below(3);
            (0..count).map(|_| self.value()).collect()
        });
        let mut output: Vec<usize> = (0..width).collect();
        if self.one_in(4) {
            output.remove(self.below(width));
        }
        let columns = self.columns(output.len());
        self.plan(
            What::Scan {
                table,
                only,
                output,
                target,
            },
            Vec::new(),
            columns,
        )
    }

    fn leaf(&mut self) -> Plan {
        match self.below(12) {
            9 if !self.ctes.is_empty() => self.reference(),
            10 => {
                let rows = self.rows(2, 3);
                let columns = self.columns(2);
                self.plan(What::Values(rows), Vec::new(), columns)
            }
            11 if self.locals => {
                let rows = self.rows(2, 4);
                let columns = self.columns(2);
                self.plan(What::Local(rows), Vec::new(), columns)
            }
            4..=8 if !self.ctes.is_empty() => self.reference(),
            _ => self.scan(false),
        }
    }

    fn reference(&mut self) -> Plan {
        let at = self.below(self.ctes.len());
        let (index, count) = self.ctes[at];
        let columns = self.columns(count);
        self.plan(What::CteRef(index), Vec::new(), columns)
    }

    fn tree(&mut self, depth: usize) -> Plan {
        if depth == 0 {
            return self.leaf();
        }
        match self.below(17) {
            0 => self.leaf(),
            1..=4 => {
                let (left, right) = (self.tree(depth - 1), self.tree(depth - 1));
                self.join(left, right)
            }
            5..=7 => {
                let child = self.tree(depth - 1);
                self.aggregate(child)
            }
            8 => {
                let child = self.tree(depth - 1);
                let plain = !self.one_in(3);
                let targets = if plain {
                    child.columns.iter().map(|column| Expression::Column(*column)).collect()
                } else {
                    self.expressions(&child, 2)
                };
                let columns = child.columns.clone();
                self.plan(What::Distinct { targets, plain }, vec![child], columns)
            }
            9 => {
                let child = self.tree(depth - 1);
                self.window(child)
            }
            10 => {
                let child = self.tree(depth - 1);
                let what = match self.below(4) {
                    0 => What::Order,
                    1 => What::TopN(3),
                    2 => What::Limit(2),
                    _ if self.locals && self.one_in(4) => What::PassLocal,
                    _ => What::Filter(self.column(&child)),
                };
                let columns = child.columns.clone();
                self.plan(what, vec![child], columns)
            }
            11 | 12 => {
                let child = self.tree(depth - 1);
                let count = 1 + self.below(3);
                let expressions: Vec<Expression> = (0..count).map(|_| self.expression(&child)).collect();
                let columns = self.columns(count);
                self.plan(What::Project(expressions), vec![child], columns)
            }
            13 | 14 => self.set_operation(depth),
            15 => {
                let child = self.tree(depth - 1);
                let mut columns = child.columns.clone();
                columns.extend(self.columns(1));
                self.plan(What::Unnest, vec![child], columns)
            }
            _ => self.cte(depth),
        }
    }

    fn join(&mut self, left: Plan, right: Plan) -> Plan {
        let join_type = self.pick(&JOIN_TYPES);
        let row_wise = !self.one_in(15);
        let count = self.pick(&[1, 1, 1, 2, 2, 0]);
        let conditions = (0..count).map(|_| self.condition(&left, &right)).collect();
        let mut columns = match join_type {
            JoinType::Semi | JoinType::Anti | JoinType::Mark => left.columns.clone(),
            JoinType::RightSemi | JoinType::RightAnti => right.columns.clone(),
            _ => left.columns.iter().chain(&right.columns).copied().collect(),
        };
        if columns.len() > 1 && self.one_in(4) {
            columns.remove(self.below(columns.len()));
        }
        let mut plan = self.plan(
            What::Join {
                join_type,
                conditions,
                row_wise,
            },
            vec![left, right],
            columns,
        );
        if join_type == JoinType::Mark {
            plan.columns.push((u64::from(plan.id) + 1_000_000, 0));
        }
        plan
    }

    fn condition(&mut self, left: &Plan, right: &Plan) -> Condition {
        // The first columns are the keys more often than not.
        let (mut l, mut r) = (
            Expression::Column(left.columns[0]),
            Expression::Column(right.columns[0]),
        );
        if self.one_in(2) {
            (l, r) = (self.expression(left), self.expression(right));
        }
        match self.below(6) {
            5 => Condition::Less { left: l, right: r },
            4 => Condition::Equal {
                left: l,
                right: r,
                nulls: true,
            },
            _ => Condition::Equal {
                left: l,
                right: r,
                nulls: false,
            },
        }
    }

    fn aggregate(&mut self, child: Plan) -> Plan {
        let groups = self.expressions(&child, 2);
        let all: Vec<usize> = (0..groups.len()).collect();
        let mut sets = vec![all];
        if !groups.is_empty() && self.one_in(6) {
            sets.extend([vec![], vec![0]]);
        }
        let column = self.column(&child);
        let several = [
            Aggregate::Count,
            Aggregate::Sum(column),
            Aggregate::Min(column),
            Aggregate::CountDistinct(column),
        ];
        let count = self.below(3) + usize::from(groups.is_empty());
        let aggregates: Vec<Aggregate> = (0..count).map(|_| self.pick(&several)).collect();
        let mut columns = self.columns(groups.len());
        columns.extend(self.columns(aggregates.len()));
        let order_free = self.one_in(2);
        let what = What::Aggregate {
            groups,
            sets,
            aggregates,
            order_free,
        };
        self.plan(what, vec![child], columns)
    }

    fn window(&mut self, child: Plan) -> Plan {
        let count = 1 + self.below(2);
        let mut functions = Vec::new();
        let first = self.expression(&child);
        for _ in 0..count {
            let mut by = self.expressions(&child, 2);
            if self.one_in(2) {
                by.push(first);
            }
            let column = self.column(&child);
            functions.push((by, self.pick(&[Function::RowNumber, Function::Sum(column)])));
        }
        let mut columns = child.columns.clone();
        columns.extend(self.columns(count));
        self.plan(What::Window(functions), vec![child], columns)
    }

    fn set_operation(&mut self, depth: usize) -> Plan {
        let (left, right) = (self.tree(depth - 1), self.tree(depth - 1));
        let count = left.columns.len().min(right.columns.len());
        let mut children = Vec::new();
        for child in [left, right] {
            if child.columns.len() == count {
                children.push(child);
                continue;
            }
            let expressions = child
                .columns
                .iter()
                .take(count)
                .map(|column| Expression::Column(*column))
                .collect();
            let columns = self.columns(count);
            children.push(self.plan(What::Project(expressions), vec![child], columns));
        }
        let kind = self.pick(&SET_KINDS);
        let columns = self.columns(count);
        self.plan(What::Set(kind), children, columns)
    }

    fn cte(&mut self, depth: usize) -> Plan {
        let definition = self.tree(depth - 1);
        self.next_table += 1;
        let index = self.next_table;
        self.ctes.push((index, definition.columns.len()));
        let child = self.tree(depth);
        self.ctes.pop();
        let columns = child.columns.clone();
        self.plan(What::Cte(index), vec![definition, child], columns)
    }
}

impl Table {
    fn placement_width(&self) -> usize {
        // Empty tables have two columns, which all have.
        self.rows.first().map_or(2, Vec::len)
    }
}

fn choices(bytes: &[u8], locals: bool) -> Choices<'_> {
    let mut choices = Choices {
        bytes,
        next_id: 0,
        next_table: 0,
        tables: Vec::new(),
        ctes: Vec::new(),
        locals,
    };
    choices.tables = (0..4).map(|name| choices.table(name)).collect();
    choices
}

fn herd() -> Workers {
    Workers {
        live: (0..3).map(worker).collect(),
        hash_version: HASH_VERSION.into(),
        spread: 1,
    }
}

/// Whether a plan has no operator with more rows than a test has time for.
fn is_small(plan: &Plan, ctes: &mut BTreeMap<u64, usize>) -> Option<usize> {
    let sizes: Option<Vec<usize>> = match &plan.what {
        What::Cte(index) => {
            let defined = is_small(&plan.children[0], ctes)?;
            ctes.insert(*index, defined);
            return is_small(&plan.children[1], ctes);
        }
        _ => plan.children.iter().map(|child| is_small(child, ctes)).collect(),
    };
    let sizes = sizes?;
    let rows = match &plan.what {
        What::Scan { table, .. } => table.rows.len(),
        What::Values(rows) | What::Local(rows) => rows.len(),
        What::CteRef(index) => ctes[index],
        What::Join { .. } => sizes[0] * sizes[1] + sizes[0] + sizes[1],
        What::Unnest => sizes[0] * 2,
        What::Aggregate { sets, .. } => sizes[0] * sets.len() + 1,
        _ => sizes.iter().sum(),
    };
    (rows <= ROWS_MAX).then_some(rows)
}

fn compare(plan: &Plan) -> Result<(), TestCaseError> {
    let workers = herd();
    let expected = plan.run(&mut BTreeMap::new());
    let Some(distributed) =
        distribute(&plan.node(), &workers).map_err(|error| TestCaseError::fail(error.to_string()))?
    else {
        return Ok(());
    };
    check_step(&distributed.step);
    let run = Herd::new(plan, &workers.live);
    let result = run.run(&distributed.step, Place::Coordinator);
    run.check_copies(plan);
    prop_assert_eq!(&result.columns, &expected.columns);
    if matches!(plan.what, What::Order | What::TopN(_)) {
        prop_assert_eq!(&result.rows, &expected.rows, "order of {:#?}", distributed.step);
    }
    prop_assert_eq!(
        sorted(result.rows),
        sorted(expected.rows),
        "steps {:#?}",
        distributed.step
    );
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4_000))]

    #[test]
    fn steps_give_what_one_node_gives(bytes in prop::collection::vec(any::<u8>(), 0..400), depth in 0_usize..5) {
        let plan = choices(&bytes, false).tree(depth);
        prop_assume!(is_small(&plan, &mut BTreeMap::new()).is_some());
        compare(&plan)?;
    }

    #[test]
    fn steps_and_a_coordinator_give_what_one_node_gives(
        bytes in prop::collection::vec(any::<u8>(), 0..400),
        depth in 0_usize..5,
    ) {
        let plan = choices(&bytes, true).tree(depth);
        prop_assume!(is_small(&plan, &mut BTreeMap::new()).is_some());
        compare(&plan)?;
    }

    #[test]
    fn rows_of_a_target_are_met_where_they_are(bytes in prop::collection::vec(any::<u8>(), 0..200), depth in 0_usize..3) {
        let mut choices = choices(&bytes, false);
        let mut plan = choices.scan(true);
        for _ in 0..=depth {
            let other = choices.tree(depth);
            plan = if choices.one_in(2) { choices.join(plan, other) } else { choices.join(other, plan) };
        }
        prop_assume!(is_small(&plan, &mut BTreeMap::new()).is_some());
        let workers = herd();
        let distributed = match distribute(&plan.node(), &workers) {
            Err(DistributeError::Target { .. }) => return Ok(()),
            other => other.map_err(|error| TestCaseError::fail(error.to_string()))?.unwrap(),
        };
        check_step(&distributed.step);
        let Step::Exchange { workers: changing, route: Route::Gather, child, .. } = &distributed.step else {
            return Err(TestCaseError::fail("no gather"));
        };
        let target = choices.tables.iter().find(|table| scans_target(&plan, table)).unwrap();
        prop_assert!(contains_target(child, &plan), "the rows are exchanged");
        let expected = sorted(plan.run(&mut BTreeMap::new()).rows);
        let run = Herd::new(&plan, &workers.live);
        if let Placement::Replicated { workers: all } = &target.placement {
            prop_assert_eq!(changing.iter().collect::<BTreeSet<_>>(), all.iter().collect::<BTreeSet<_>>());
            for worker in changing {
                let rows = sorted(run.run(child, Place::Worker(worker)).rows);
                prop_assert_eq!(&rows, &expected, "steps {:#?}", &distributed.step);
            }
        } else {
            prop_assert_eq!(sorted(run.run(&distributed.step, Place::Coordinator).rows), expected);
        }
    }
}

fn scans_target(plan: &Plan, table: &Table) -> bool {
    matches!(&plan.what, What::Scan { table: scanned, target: true, .. } if scanned.name == table.name)
        || plan.children.iter().any(|child| scans_target(child, table))
}

/// Whether the target's scan is in this fragment.
fn contains_target(step: &Step, plan: &Plan) -> bool {
    match step {
        Step::Operator { node, children } => {
            matches!(plan.index()[node].what, What::Scan { target: true, .. })
                || children.iter().any(|child| contains_target(child, plan))
        }
        Step::Partial { child, .. } | Step::SharedCte { child, .. } => contains_target(child, plan),
        Step::Exchange { .. } | Step::ExchangeRef { .. } => false,
    }
}
