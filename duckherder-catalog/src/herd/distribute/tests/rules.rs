//! Rules one by one. Plans are written as text: `hash[0,1](…)` is an exchange that workers 0 and 1 run.

use std::collections::BTreeSet;

use super::super::super::placement::{Placement, WorkerId};
use super::super::super::plan::{
    Binding, Equality, JoinType, Key, Node, NodeId, Op, PLAN_DEPTH_MAX, PlanError, Route, Step,
};
use super::super::{DistributeError, Distributed, MergeStrategy, Tier, Workers, distribute};
use super::random::worker;
use super::simulation::check_step;

const FEW: u64 = 10;
const MANY: u64 = 1_000_000;

fn herd() -> Workers {
    Workers {
        live: (0..3).map(worker).collect(),
        hash_version: "v1".into(),
        spread: 0,
    }
}

fn list(workers: &[usize]) -> Vec<WorkerId> {
    workers.iter().map(|number| worker(*number)).collect()
}

fn hashed(workers: &[usize]) -> Placement {
    Placement::Hash {
        keys: vec!["k".into()],
        partitions: list(workers),
        hash_version: "v1".into(),
    }
}

fn even() -> Placement {
    Placement::Even {
        partitions: list(&[0, 1, 2]),
    }
}

fn replicated(workers: &[usize]) -> Placement {
    Placement::Replicated { workers: list(workers) }
}

/// An operator without inputs, to be numbered; its rows have 10 bytes.
fn node(op: Op, children: Vec<Node>, columns: Vec<Binding>, rows: u64) -> Node {
    Node {
        id: 0,
        op,
        children,
        columns,
        rows,
        row_bytes: 10,
        local: false,
    }
}

/// A scan of columns `(table, 0)`, the key, and `(table, 1)`.
fn scan(table: u64, placement: Placement, rows: u64) -> Node {
    let keys = if matches!(placement, Placement::Hash { .. }) {
        vec![Some((table, 0))]
    } else {
        Vec::new()
    };
    let op = Op::Scan {
        table: format!("t{table}"),
        placement,
        keys,
        partitions: None,
        target: false,
    };
    node(op, Vec::new(), vec![(table, 0), (table, 1)], rows)
}

fn pruned(mut scan: Node, to: &[u32]) -> Node {
    if let Op::Scan { partitions, .. } = &mut scan.op {
        *partitions = Some(to.to_vec());
    }
    scan
}

fn as_target(mut scan: Node) -> Node {
    if let Op::Scan { target, .. } = &mut scan.op {
        *target = true;
    }
    scan
}

fn local(mut node: Node) -> Node {
    node.local = true;
    node
}

fn constant(table: u64) -> Node {
    node(Op::Constant, Vec::new(), vec![(table, 0), (table, 1)], 1)
}

fn plain_table(table: u64) -> Node {
    node(
        Op::Other {
            kind: "SEQ_SCAN".into(),
        },
        Vec::new(),
        vec![(table, 0), (table, 1)],
        FEW,
    )
}

fn on(left: Binding, right: Binding) -> Equality {
    Equality {
        condition: 0,
        left: Some(left),
        right: Some(right),
        nulls_equal: false,
    }
}

fn join(join_type: JoinType, left: Node, right: Node, equalities: Vec<Equality>) -> Node {
    let columns = match join_type {
        JoinType::Semi | JoinType::Anti => left.columns.clone(),
        JoinType::RightSemi | JoinType::RightAnti => right.columns.clone(),
        JoinType::Mark => left.columns.iter().copied().chain([(900, 0)]).collect(),
        _ => left.columns.iter().chain(&right.columns).copied().collect(),
    };
    let rows = left.rows.max(right.rows);
    node(
        Op::Join {
            join_type,
            equalities,
            row_wise: true,
        },
        vec![left, right],
        columns,
        rows,
    )
}

fn keyed_join(join_type: JoinType, left: Node, right: Node) -> Node {
    let (l, r) = (left.columns[0], right.columns[0]);
    join(join_type, left, right, vec![on(l, r)])
}

fn cross(left: Node, right: Node) -> Node {
    join(JoinType::Inner, left, right, Vec::new())
}

/// Groups become `(table, i)`, one aggregate `(table + 1, 0)`.
fn aggregate(table: u64, child: Node, groups: &[Option<Binding>], rows: u64) -> Node {
    let op = Op::Aggregate {
        groups: groups.to_vec(),
        two_phase: true,
        single_set: true,
        order_free: true,
        distinct: None,
    };
    let columns = (0..)
        .take(groups.len())
        .map(|group| (table, group))
        .chain([(table + 1, 0)])
        .collect();
    node(op, vec![child], columns, rows)
}

fn in_one_phase(mut aggregate: Node) -> Node {
    if let Op::Aggregate { two_phase, .. } = &mut aggregate.op {
        *two_phase = false;
    }
    aggregate
}

fn unary(op: Op, child: Node) -> Node {
    let (columns, rows) = (child.columns.clone(), child.rows);
    node(op, vec![child], columns, rows)
}

fn distinct(child: Node) -> Node {
    let targets = child.columns.iter().map(|column| Some(*column)).collect();
    unary(Op::Distinct { targets, plain: true }, child)
}

fn window(child: Node, partitions: Vec<Option<Vec<Binding>>>) -> Node {
    let mut node = unary(Op::Window { partitions }, child);
    node.columns.push((800, 0));
    node
}

fn union_all(left: Node, right: Node) -> Node {
    node(
        Op::SetOperation { union_all: true },
        vec![left, right],
        vec![(700, 0), (700, 1)],
        MANY,
    )
}

fn except(left: Node, right: Node) -> Node {
    node(
        Op::SetOperation { union_all: false },
        vec![left, right],
        vec![(700, 0), (700, 1)],
        MANY,
    )
}

fn cte(index: u64, definition: Node, child: Node) -> Node {
    let (columns, rows) = (child.columns.clone(), child.rows);
    node(Op::Cte { index }, vec![definition, child], columns, rows)
}

fn cte_ref(index: u64, table: u64) -> Node {
    node(Op::CteRef { index }, Vec::new(), vec![(table, 0), (table, 1)], MANY)
}

fn numbered(mut plan: Node) -> Node {
    fn number(node: &mut Node, next: &mut NodeId) {
        node.id = *next;
        *next += 1;
        node.children.iter_mut().for_each(|child| number(child, next));
    }
    number(&mut plan, &mut 0);
    plan
}

fn find(node: &Node, id: NodeId) -> Option<&Node> {
    if node.id == id {
        return Some(node);
    }
    node.children.iter().find_map(|child| find(child, id))
}

fn name(plan: &Node, id: NodeId) -> String {
    let node = find(plan, id).unwrap();
    match &node.op {
        Op::Scan { table, .. } => table.clone(),
        Op::CteRef { index } => format!("ref{index}"),
        op => super::super::name(op).to_lowercase().replace(' ', "_"),
    }
}

fn numbers(workers: &[WorkerId]) -> String {
    workers
        .iter()
        .map(|worker| &worker.0[1..])
        .collect::<Vec<_>>()
        .join(",")
}

fn show(plan: &Node, step: &Step) -> String {
    match step {
        Step::Operator { node, children } if children.is_empty() => name(plan, *node),
        Step::Operator { node, children } => {
            let children: Vec<String> = children.iter().map(|child| show(plan, child)).collect();
            format!("{}({})", name(plan, *node), children.join(", "))
        }
        Step::Partial { node, child } => format!("partial_{}({})", name(plan, *node), show(plan, child)),
        Step::Exchange {
            workers, route, child, ..
        } => {
            let (workers, child) = (numbers(workers), show(plan, child));
            match route {
                Route::Gather => format!("gather[{workers}]({child})"),
                Route::Forward => format!("forward[{workers}]({child})"),
                Route::Broadcast { to } => format!("broadcast[{workers}>{}]({child})", numbers(to)),
                Route::Hash { keys, buckets } => {
                    let keys: Vec<String> = keys.iter().map(show_key).collect();
                    format!("hash[{workers}>{}]{{{}}}({child})", numbers(buckets), keys.join(" "))
                }
            }
        }
        Step::SharedCte { definition, child, .. } => {
            format!("shared({}, {})", show(plan, definition), show(plan, child))
        }
        Step::ExchangeRef { node, .. } => name(plan, *node),
    }
}

fn show_key(key: &Key) -> String {
    match key {
        Key::Column {
            binding: (table, column),
        } => format!("{table}.{column}"),
        Key::JoinCondition { left, condition, .. } => format!("{}{condition}", if *left { "left" } else { "right" }),
        Key::Group { index, .. } => format!("group{index}"),
    }
}

fn distributed(plan: Node) -> (Node, Distributed) {
    let plan = numbered(plan);
    let distributed = distribute(&plan, &herd()).unwrap().unwrap();
    check_step(&distributed.step);
    (plan, distributed)
}

fn steps(plan: Node) -> String {
    let (plan, distributed) = distributed(plan);
    show(&plan, &distributed.step)
}

fn tier(plan: Node) -> Tier {
    distributed(plan).1.tier
}

fn reason(plan: Node) -> Option<String> {
    distributed(plan).1.fallback_reason()
}

fn error(plan: Node) -> DistributeError {
    distribute(&numbered(plan), &herd()).unwrap_err()
}

#[test]
fn plans_without_tables_of_the_herd_are_left_alone() {
    let plans = [
        constant(1),
        plain_table(1),
        cross(constant(1), plain_table(2)),
        cte(9, constant(1), cte_ref(9, 2)),
        unary(Op::Order, aggregate(3, union_all(constant(1), plain_table(2)), &[], 1)),
    ];
    for plan in plans {
        assert_eq!(distribute(&numbered(plan), &herd()), Ok(None));
    }
    // Nor does it matter then that no worker answers.
    assert_eq!(distribute(&numbered(constant(1)), &Workers::default()), Ok(None));
}

#[test]
fn a_scan_is_gathered_from_all_its_workers() {
    assert_eq!(steps(scan(1, hashed(&[2, 0, 2, 1]), MANY)), "gather[0,1,2](t1)");
    assert_eq!(steps(scan(1, even(), MANY)), "gather[0,1,2](t1)");
    assert_eq!(tier(scan(1, even(), MANY)), Tier::Colocated);
}

#[test]
fn a_scan_of_one_partition_goes_to_one_worker() {
    let one = || pruned(scan(1, hashed(&[0, 1, 2]), FEW), &[2]);
    assert_eq!(steps(one()), "gather[2](t1)");
    assert_eq!(steps(aggregate(5, one(), &[], 1)), "gather[2](aggregate(t1))");
    let ordered = || unary(Op::Order, unary(Op::Filter, one()));
    assert_eq!(steps(ordered()), "order_by(gather[2](filter(t1)))");
    assert_eq!(tier(ordered()), Tier::Router);
    assert_eq!(
        steps(keyed_join(
            JoinType::Outer,
            one(),
            pruned(scan(2, hashed(&[0, 2]), FEW), &[1])
        )),
        "gather[2](join(t1, t2))"
    );
}

#[test]
fn a_scan_that_finds_nothing_goes_to_one_worker_that_answers() {
    let plan = numbered(pruned(scan(1, hashed(&[3, 2]), MANY), &[]));
    let distributed = distribute(&plan, &herd()).unwrap().unwrap();
    assert_eq!(show(&plan, &distributed.step), "gather[2](t1)");
}

#[test]
fn a_copy_is_read_on_one_worker_in_turn() {
    let plan = numbered(scan(1, replicated(&[0, 2]), FEW));
    let chosen = |spread| {
        let herd = Workers { spread, ..herd() };
        show(&plan, &distribute(&plan, &herd).unwrap().unwrap().step)
    };
    assert_eq!(chosen(0), "gather[0](t1)");
    assert_eq!(chosen(1), "gather[2](t1)");
    assert_eq!(chosen(2), "gather[0](t1)");
}

#[test]
fn a_worker_that_does_not_answer_fails_what_needs_it() {
    let down = DistributeError::WorkerDown {
        table: "t1".into(),
        worker: worker(3),
    };
    assert_eq!(error(scan(1, hashed(&[0, 3]), MANY)), down);
    assert_eq!(error(scan(1, Placement::Even { partitions: list(&[3]) }, MANY)), down);
    assert_eq!(error(scan(1, replicated(&[3]), MANY)), down);
    assert_eq!(error(as_target(scan(1, replicated(&[0, 3]), MANY))), down);
    assert_eq!(
        down.to_string(),
        "table t1 has rows on worker w3, which does not answer"
    );
    // What does not need it goes on.
    assert_eq!(steps(pruned(scan(1, hashed(&[0, 3]), MANY), &[0])), "gather[0](t1)");
    assert_eq!(steps(scan(1, replicated(&[3, 1]), MANY)), "gather[1](t1)");
}

#[test]
fn tables_by_the_same_hash_are_joined_where_they_are() {
    for join_type in [
        JoinType::Inner,
        JoinType::Left,
        JoinType::Right,
        JoinType::Outer,
        JoinType::Semi,
        JoinType::Anti,
        JoinType::Single,
        JoinType::RightSemi,
        JoinType::RightAnti,
    ] {
        let join = keyed_join(
            join_type,
            scan(1, hashed(&[0, 1, 2]), MANY),
            scan(2, hashed(&[0, 1, 2]), MANY),
        );
        assert_eq!(steps(join), "gather[0,1,2](join(t1, t2))");
    }
    let mark = keyed_join(
        JoinType::Mark,
        scan(1, hashed(&[0, 1, 2]), MANY),
        scan(2, hashed(&[0, 1, 2]), MANY),
    );
    assert_eq!(steps(mark), "gather[0,1,2](join(t1, broadcast[0,1,2>0,1,2](t2)))");
}

#[test]
fn only_the_same_hash_is_the_same_place() {
    let joined = |placement| {
        keyed_join(
            JoinType::Inner,
            scan(1, hashed(&[0, 1, 2]), MANY),
            scan(2, placement, FEW),
        )
    };
    assert_eq!(
        steps(joined(hashed(&[0, 1]))),
        "gather[0,1,2](join(t1, hash[0,1>0,1,2]{2.0}(t2)))"
    );
    let old = Placement::Hash {
        keys: vec!["k".into()],
        partitions: list(&[0, 1, 2]),
        hash_version: "v0".into(),
    };
    assert_eq!(
        steps(joined(old.clone())),
        "gather[0,1,2](join(t1, hash[0,1,2>0,1,2]{2.0}(t2)))"
    );
    // Nor is it known which worker has the rows of a key.
    assert_eq!(steps(pruned(scan(1, old.clone(), FEW), &[2])), "gather[0,1,2](t1)");
    // And rows cannot be sent by a hash that is none of ours.
    let both_old = keyed_join(JoinType::Outer, scan(1, old.clone(), MANY), scan(2, even(), FEW));
    assert_eq!(
        steps(both_old),
        "gather[0,1,2](join(hash[0,1,2>0,1,2]{1.0}(t1), hash[0,1,2>0,1,2]{2.0}(t2)))"
    );
    assert_eq!(
        steps(keyed_join(
            JoinType::Inner,
            scan(1, old.clone(), MANY),
            scan(2, old, MANY)
        )),
        "gather[0,1,2](join(t1, t2))"
    );
}

#[test]
fn a_join_on_other_columns_moves_the_fewest_bytes() {
    let table = |number, rows| scan(number, hashed(&[0, 1, 2]), rows);
    let joined = |left, right| {
        join(
            JoinType::Inner,
            table(1, left),
            table(2, right),
            vec![on((1, 1), (2, 1))],
        )
    };
    assert_eq!(
        steps(joined(MANY, FEW)),
        "gather[0,1,2](join(t1, broadcast[0,1,2>0,1,2](t2)))"
    );
    assert_eq!(
        steps(joined(FEW, MANY)),
        "gather[0,1,2](join(broadcast[0,1,2>0,1,2](t1), t2))"
    );
    assert_eq!(
        steps(joined(MANY, MANY)),
        "gather[0,1,2](join(hash[0,1,2>0,1,2]{1.1}(t1), hash[0,1,2>0,1,2]{2.1}(t2)))"
    );
    assert_eq!(tier(joined(MANY, MANY)), Tier::Shuffle);
    // One side's key is the table's: the other is sent after it.
    let half = join(JoinType::Left, table(1, MANY), table(2, FEW), vec![on((1, 1), (2, 0))]);
    assert_eq!(steps(half), "gather[0,1,2](join(t1, broadcast[0,1,2>0,1,2](t2)))");
    let half = join(JoinType::Outer, table(1, FEW), table(2, MANY), vec![on((1, 1), (2, 0))]);
    assert_eq!(steps(half), "gather[0,1,2](join(hash[0,1,2>0,1,2]{1.1}(t1), t2))");
}

#[test]
fn computed_keys_are_those_of_the_condition() {
    let computed = Equality {
        condition: 3,
        left: None,
        right: Some((2, 0)),
        nulls_equal: true,
    };
    let joined = join(
        JoinType::Outer,
        scan(1, even(), MANY),
        scan(2, hashed(&[0, 1, 2]), MANY),
        vec![computed],
    );
    assert_eq!(steps(joined), "gather[0,1,2](join(hash[0,1,2>0,1,2]{left3}(t1), t2))");
}

#[test]
fn columns_that_joins_make_equal_are_all_keys() {
    let table = |number| scan(number, hashed(&[0, 1, 2]), MANY);
    let two = keyed_join(JoinType::Inner, table(1), table(2));
    let three = join(JoinType::Inner, two, table(3), vec![on((2, 0), (3, 0))]);
    assert_eq!(
        steps(aggregate(5, three, &[Some((3, 0))], FEW)),
        "gather[0,1,2](aggregate(join(join(t1, t2), t3)))"
    );
    // But not what is NULL where there was no match.
    let two = keyed_join(JoinType::Left, table(1), table(2));
    let three = join(JoinType::Inner, two.clone(), table(3), vec![on((2, 0), (3, 0))]);
    assert!(steps(three).contains("hash"));
    let grouped = aggregate(5, two, &[Some((2, 0))], FEW);
    assert_eq!(
        steps(grouped),
        "aggregate(gather[0,1,2](partial_aggregate(join(t1, t2))))"
    );
    let full = keyed_join(JoinType::Outer, table(1), table(2));
    assert!(steps(aggregate(5, full, &[Some((1, 0))], FEW)).contains("partial"));
}

#[test]
fn copies_are_joined_where_rows_do_not_come_out_twice() {
    let fact = || scan(1, even(), MANY);
    let copy = || scan(2, replicated(&[0, 1, 2]), FEW);
    for join_type in [
        JoinType::Inner,
        JoinType::Left,
        JoinType::Semi,
        JoinType::Anti,
        JoinType::Mark,
        JoinType::Single,
    ] {
        assert_eq!(
            steps(keyed_join(join_type, fact(), copy())),
            "gather[0,1,2](join(t1, t2))"
        );
    }
    for join_type in [
        JoinType::Inner,
        JoinType::Right,
        JoinType::RightSemi,
        JoinType::RightAnti,
    ] {
        assert_eq!(
            steps(keyed_join(join_type, copy(), fact())),
            "gather[0,1,2](join(t2, t1))"
        );
    }
    for join_type in [
        JoinType::Right,
        JoinType::Outer,
        JoinType::RightSemi,
        JoinType::RightAnti,
    ] {
        let by_hash = "gather[0,1,2](join(hash[0,1,2>0,1,2]{1.0}(t1), hash[0>0,1,2]{2.0}(t2)))";
        assert_eq!(steps(keyed_join(join_type, fact(), copy())), by_hash);
    }
    // A copy that is not on all workers is sent from one.
    let few = scan(2, replicated(&[1, 2]), FEW);
    assert_eq!(
        steps(keyed_join(JoinType::Left, fact(), few)),
        "gather[0,1,2](join(t1, broadcast[1>0,1,2](t2)))"
    );
    let both = keyed_join(
        JoinType::Outer,
        scan(1, replicated(&[0, 1]), FEW),
        scan(2, replicated(&[1, 2]), FEW),
    );
    assert_eq!(steps(both), "gather[1](join(t1, t2))");
    assert_eq!(
        steps(keyed_join(JoinType::Left, fact(), constant(2))),
        "gather[0,1,2](join(t1, values))"
    );
}

#[test]
fn what_cannot_be_joined_in_parts_is_joined_in_one_place() {
    let table = |number| scan(number, even(), MANY);
    let outer = || join(JoinType::Outer, table(1), table(2), Vec::new());
    assert_eq!(steps(outer()), "join(gather[0,1,2](t1), gather[0,1,2](t2))");
    assert_eq!(tier(outer()), Tier::Gather);
    assert_eq!(
        reason(outer()).unwrap(),
        "a JOIN that keeps rows without a match needs an equality"
    );
    assert_eq!(
        steps(aggregate(5, outer(), &[], 1)),
        "gather[0](aggregate(join(broadcast[0,1,2>0](t1), broadcast[0,1,2>0](t2))))"
    );
    let op = Op::Join {
        join_type: JoinType::Left,
        equalities: vec![on((1, 0), (2, 0))],
        row_wise: false,
    };
    let asof = node(op, vec![table(1), table(2)], vec![(1, 0), (2, 0)], MANY);
    assert_eq!(steps(asof), "join(gather[0,1,2](t1), gather[0,1,2](t2))");
}

#[test]
fn what_meets_the_coordinator_is_gathered() {
    let joined = || {
        keyed_join(
            JoinType::Inner,
            unary(Op::Filter, scan(1, even(), MANY)),
            plain_table(2),
        )
    };
    assert_eq!(steps(joined()), "join(gather[0,1,2](filter(t1)), seq_scan)");
    assert_eq!(
        reason(joined()).unwrap(),
        "the other side of the JOIN is on the coordinator"
    );
    // An aggregate next to it may as well be finished there.
    let grouped = aggregate(5, scan(1, even(), MANY), &[Some((1, 1))], FEW);
    let joined = keyed_join(JoinType::Inner, grouped, plain_table(2));
    assert_eq!(
        steps(joined),
        "join(aggregate(gather[0,1,2](partial_aggregate(t1))), seq_scan)"
    );
}

#[test]
fn what_must_run_on_the_coordinator_is_a_fallback_if_more_follows() {
    let volatile = || {
        local(unary(
            Op::Projection {
                passes: vec![None, None],
            },
            scan(1, even(), MANY),
        ))
    };
    assert_eq!(steps(volatile()), "projection(gather[0,1,2](t1))");
    assert_eq!(reason(volatile()), None);
    let grouped = aggregate(5, volatile(), &[Some((1, 0))], FEW);
    assert_eq!(steps(grouped.clone()), "aggregate(projection(gather[0,1,2](t1)))");
    assert_eq!(reason(grouped).unwrap(), "PROJECTION has to run on the coordinator");
    let sink = unary(
        Op::Other {
            kind: "CREATE_TABLE".into(),
        },
        aggregate(5, scan(1, even(), MANY), &[], 1),
    );
    assert_eq!(
        steps(sink.clone()),
        "create_table(aggregate(gather[0,1,2](partial_aggregate(t1))))"
    );
    assert_eq!(reason(sink), None);
    let scan = local(scan(1, even(), MANY));
    assert!(matches!(error(scan), DistributeError::Plan { .. }));
}

#[test]
fn groups_that_are_in_one_place_are_made_there() {
    let fact = || scan(1, hashed(&[0, 1, 2]), MANY);
    let grouped = |groups: &[Option<Binding>]| aggregate(5, fact(), groups, MANY);
    assert_eq!(steps(grouped(&[None, Some((1, 0))])), "gather[0,1,2](aggregate(t1))");
    assert_eq!(
        steps(in_one_phase(grouped(&[Some((1, 0))]))),
        "gather[0,1,2](aggregate(t1))"
    );
    // And the groups are then the keys.
    let again = aggregate(10, grouped(&[None, Some((1, 0))]), &[Some((5, 1))], FEW);
    assert_eq!(steps(again), "gather[0,1,2](aggregate(aggregate(t1)))");
    let again = aggregate(10, grouped(&[None, Some((1, 0))]), &[Some((5, 0))], FEW);
    assert_eq!(
        steps(again),
        "aggregate(gather[0,1,2](partial_aggregate(aggregate(t1))))"
    );
}

#[test]
fn few_groups_are_finished_on_the_coordinator_and_many_on_workers() {
    let grouped = |rows| aggregate(5, scan(1, even(), 10 * MANY), &[Some((1, 1)), None], rows);
    let (plan, few) = distributed(grouped(FEW));
    assert_eq!(
        show(&plan, &few.step),
        "aggregate(gather[0,1,2](partial_aggregate(t1)))"
    );
    assert_eq!((few.tier, few.merge), (Tier::TwoPhase, MergeStrategy::Finish));
    assert_eq!(
        steps(grouped(MANY)),
        "gather[0,1,2](aggregate(hash[0,1,2>0,1,2]{group0 group1}(partial_aggregate(t1))))"
    );
    // There is a first phase also where it seems to make no fewer rows: that is an estimate.
    assert_eq!(steps(grouped(9 * MANY)), steps(grouped(MANY)));
    assert_eq!(
        steps(in_one_phase(grouped(FEW))),
        "gather[0,1,2](aggregate(hash[0,1,2>0,1,2]{1.1 group1}(t1)))"
    );
}

#[test]
fn an_aggregate_without_groups_has_two_phases_or_one_place() {
    let total = || aggregate(5, scan(1, even(), MANY), &[], 1);
    assert_eq!(steps(total()), "aggregate(gather[0,1,2](partial_aggregate(t1)))");
    assert_eq!(steps(in_one_phase(total())), "aggregate(gather[0,1,2](t1))");
    assert_eq!(
        reason(in_one_phase(total())).unwrap(),
        "an AGGREGATE that has no groups cannot be computed in two phases"
    );
    // One row for a join on workers stays with them.
    assert_eq!(
        steps(cross(scan(2, even(), MANY), total())),
        "gather[0,1,2](join(t2, broadcast[0>0,1,2](aggregate(broadcast[0,1,2>0](partial_aggregate(t1))))))"
    );
}

#[test]
fn distinct_values_of_different_workers_are_added_up() {
    let counted = |argument, groups: &[Option<Binding>], rows| {
        let mut node = in_one_phase(aggregate(5, scan(1, hashed(&[0, 1, 2]), MANY), groups, rows));
        if let Op::Aggregate { distinct, .. } = &mut node.op {
            *distinct = Some((1, argument));
        }
        node
    };
    assert_eq!(
        steps(counted(0, &[], 1)),
        "aggregate(gather[0,1,2](partial_aggregate(t1)))"
    );
    assert_eq!(
        steps(counted(1, &[], 1)),
        "aggregate(gather[0,1,2](partial_aggregate(hash[0,1,2>0,1,2]{1.1}(t1))))"
    );
    assert_eq!(reason(counted(1, &[], 1)), None);
    assert_eq!(
        steps(counted(0, &[Some((1, 1))], FEW)),
        "aggregate(gather[0,1,2](partial_aggregate(t1)))"
    );
    assert_eq!(
        steps(counted(1, &[Some((1, 1))], FEW)),
        "gather[0,1,2](aggregate(hash[0,1,2>0,1,2]{1.1}(t1)))"
    );
    // A set that leaves a group out adds up values that are equal.
    let mut sets = counted(0, &[Some((1, 1))], FEW);
    if let Op::Aggregate { single_set, .. } = &mut sets.op {
        *single_set = false;
    }
    assert_eq!(steps(sets), "aggregate(gather[0,1,2](t1))");
}

#[test]
fn grouping_sets_are_finished_in_one_place() {
    let mut sets = aggregate(5, scan(1, hashed(&[0, 1, 2]), MANY), &[Some((1, 0)), Some((1, 1))], FEW);
    if let Op::Aggregate { single_set, .. } = &mut sets.op {
        *single_set = false;
    }
    assert_eq!(steps(sets.clone()), "aggregate(gather[0,1,2](partial_aggregate(t1)))");
    assert_eq!(reason(sets.clone()), None);
    let sets = in_one_phase(sets);
    assert_eq!(steps(sets.clone()), "aggregate(gather[0,1,2](t1))");
    assert!(reason(sets).is_some());
}

#[test]
fn copies_whose_results_may_differ_are_used_once() {
    let copy = || scan(1, replicated(&[0, 1, 2]), FEW);
    let mut any_value = aggregate(5, copy(), &[], 1);
    let with = |node: Node| steps(cross(scan(2, even(), MANY), node));
    assert_eq!(with(any_value.clone()), "gather[0,1,2](join(t2, aggregate(t1)))");
    if let Op::Aggregate { order_free, .. } = &mut any_value.op {
        *order_free = false;
    }
    assert_eq!(
        with(any_value),
        "gather[0,1,2](join(t2, broadcast[0>0,1,2](aggregate(t1))))"
    );
    assert_eq!(
        with(unary(Op::Limit, copy())),
        "gather[0,1,2](join(t2, broadcast[0>0,1,2](limit(t1))))"
    );
    assert_eq!(
        with(unary(Op::TopN, copy())),
        "gather[0,1,2](join(t2, broadcast[0>0,1,2](top_n(t1))))"
    );
    let numbered_rows = window(copy(), vec![Some(vec![(1, 0)])]);
    assert_eq!(
        with(numbered_rows),
        "gather[0,1,2](join(t2, broadcast[0>0,1,2](window(t1))))"
    );
    assert_eq!(with(distinct(copy())), "gather[0,1,2](join(t2, distinct(t1)))");
    let first = unary(
        Op::Distinct {
            targets: vec![Some((1, 0))],
            plain: false,
        },
        copy(),
    );
    assert_eq!(with(first), "gather[0,1,2](join(t2, broadcast[0>0,1,2](distinct(t1))))");
}

#[test]
fn distinct_rows_are_made_by_parts() {
    assert_eq!(
        steps(distinct(scan(1, hashed(&[0, 1, 2]), MANY))),
        "gather[0,1,2](distinct(t1))"
    );
    let mut few = distinct(scan(1, even(), MANY));
    assert_eq!(
        steps(few.clone()),
        "gather[0,1,2](distinct(hash[0,1,2>0,1,2]{group0 group1}(partial_distinct(t1))))"
    );
    few.rows = FEW;
    assert_eq!(steps(few), "distinct(gather[0,1,2](partial_distinct(t1)))");
    let first = unary(
        Op::Distinct {
            targets: vec![Some((1, 1)), None],
            plain: false,
        },
        scan(1, even(), MANY),
    );
    assert_eq!(
        steps(first),
        "gather[0,1,2](distinct(hash[0,1,2>0,1,2]{1.1 group1}(t1)))"
    );
}

#[test]
fn window_functions_run_by_partition() {
    let fact = || scan(1, hashed(&[0, 1, 2]), MANY);
    let by = |columns: &[Binding]| Some(columns.to_vec());
    assert_eq!(
        steps(window(fact(), vec![by(&[(1, 0)]), by(&[(1, 1), (1, 0)])])),
        "gather[0,1,2](window(t1))"
    );
    assert_eq!(
        steps(window(fact(), vec![by(&[(1, 1)]), by(&[(1, 1), (1, 0)])])),
        "gather[0,1,2](window(hash[0,1,2>0,1,2]{1.1}(t1)))"
    );
    let apart = || window(fact(), vec![by(&[(1, 1)]), by(&[(1, 0)])]);
    assert_eq!(steps(apart()), "window(gather[0,1,2](t1))");
    assert_eq!(
        reason(apart()).unwrap(),
        "WINDOW functions have no PARTITION BY column in common"
    );
    assert_eq!(steps(window(fact(), vec![None])), "window(gather[0,1,2](t1))");
    // Groups that are few anyway are no loss there.
    let ranked = window(aggregate(5, scan(1, even(), MANY), &[Some((1, 1))], FEW), vec![None]);
    assert_eq!(
        steps(ranked.clone()),
        "window(aggregate(gather[0,1,2](partial_aggregate(t1))))"
    );
    assert_eq!(reason(ranked), None);
}

#[test]
fn rows_are_sorted_on_the_coordinator_and_chosen_on_workers_first() {
    let fact = || scan(1, even(), MANY);
    assert_eq!(steps(unary(Op::Order, fact())), "order_by(gather[0,1,2](t1))");
    assert_eq!(
        steps(unary(Op::TopN, fact())),
        "top_n(gather[0,1,2](partial_top_n(t1)))"
    );
    assert_eq!(
        steps(unary(Op::Limit, fact())),
        "limit(gather[0,1,2](partial_limit(t1)))"
    );
    assert_eq!(
        steps(unary(Op::Limit, unary(Op::Order, fact()))),
        "limit(order_by(gather[0,1,2](t1)))"
    );
    assert_eq!(tier(unary(Op::TopN, fact())), Tier::TwoPhase);
    // Rows of one worker come in any order all the same.
    let one = || pruned(scan(1, hashed(&[0, 1, 2]), FEW), &[1]);
    assert_eq!(steps(unary(Op::TopN, one())), "top_n(gather[1](partial_top_n(t1)))");
    assert_eq!(steps(unary(Op::Limit, one())), "gather[1](limit(t1))");
    // Nobody sees the order of what is joined.
    let first = keyed_join(JoinType::Semi, scan(2, even(), MANY), unary(Op::TopN, fact()));
    assert!(steps(first).contains("top_n(broadcast[0,1,2>0](partial_top_n(t1)))"));
}

#[test]
fn unions_count_copies_once() {
    let fact = |number| scan(number, even(), MANY);
    assert_eq!(steps(union_all(fact(1), fact(2))), "gather[0,1,2](union_all(t1, t2))");
    let copy = scan(2, replicated(&[0, 1, 2]), FEW);
    assert_eq!(
        steps(union_all(fact(1), copy.clone())),
        "gather[0,1,2](union_all(t1, hash[0>0,1,2]{2.0 2.1}(t2)))"
    );
    assert_eq!(
        steps(union_all(copy.clone(), copy_of(&copy, 3))),
        "gather[0](union_all(t2, t3))"
    );
    assert_eq!(
        steps(union_all(constant(1), fact(2))),
        "gather[0,1,2](union_all(hash[0>0,1,2]{1.0 1.1}(values), t2))"
    );
    let gathered = union_all(fact(1), plain_table(2));
    assert_eq!(steps(gathered.clone()), "union_all(gather[0,1,2](t1), seq_scan)");
    assert!(reason(gathered).is_some());
    // Parts on other workers are sent to the bigger ones.
    let two = scan(
        2,
        Placement::Even {
            partitions: list(&[0, 1]),
        },
        FEW,
    );
    assert_eq!(
        steps(union_all(fact(1), two)),
        "gather[0,1,2](union_all(t1, hash[0,1>0,1,2]{2.0 2.1}(t2)))"
    );
}

fn copy_of(scan: &Node, number: u64) -> Node {
    let mut scan = scan.clone();
    if let Op::Scan { table, .. } = &mut scan.op {
        *table = format!("t{number}");
    }
    scan.columns = vec![(number, 0), (number, 1)];
    scan
}

#[test]
fn unions_by_the_same_hash_keep_it() {
    let table = |number| scan(number, hashed(&[0, 1, 2]), MANY);
    let grouped = aggregate(5, union_all(table(1), table(2)), &[Some((700, 0))], FEW);
    assert_eq!(steps(grouped), "gather[0,1,2](aggregate(union_all(t1, t2)))");
}

#[test]
fn other_set_operations_bring_equal_rows_together() {
    let table = |number| scan(number, hashed(&[0, 1, 2]), MANY);
    assert_eq!(
        steps(except(table(1), table(2))),
        "gather[0,1,2](set_operation(t1, t2))"
    );
    assert_eq!(
        steps(except(table(1), scan(2, even(), FEW))),
        "gather[0,1,2](set_operation(t1, hash[0,1,2>0,1,2]{2.0}(t2)))"
    );
    assert_eq!(
        steps(except(scan(1, even(), MANY), scan(2, replicated(&[0, 1]), FEW))),
        "gather[0,1,2](set_operation(hash[0,1,2>0,1,2]{1.0 1.1}(t1), hash[0>0,1,2]{2.0 2.1}(t2)))"
    );
}

#[test]
fn every_reference_reads_the_rows_that_were_made_once() {
    let shared = |child| cte(9, scan(1, hashed(&[0, 1, 2]), MANY), child);
    let twice = shared(keyed_join(JoinType::Inner, cte_ref(9, 2), cte_ref(9, 3)));
    assert_eq!(
        steps(twice),
        "gather[0,1,2](shared(forward[0,1,2](t1), join(ref9, ref9)))"
    );
    let apart = shared(join(
        JoinType::Inner,
        cte_ref(9, 2),
        cte_ref(9, 3),
        vec![on((2, 1), (3, 1))],
    ));
    assert_eq!(
        steps(apart),
        "gather[0,1,2](shared(forward[0,1,2](t1), \
         join(hash[0,1,2>0,1,2]{2.1}(ref9), hash[0,1,2>0,1,2]{3.1}(ref9))))"
    );
    // What the coordinator does upon them is none of a worker's business.
    let sorted = shared(unary(Op::Order, cte_ref(9, 2)));
    assert_eq!(
        steps(sorted),
        "shared(forward[0,1,2](t1), order_by(gather[0,1,2](ref9)))"
    );
    let copies = cte(
        9,
        scan(1, replicated(&[0, 2]), FEW),
        keyed_join(JoinType::Outer, cte_ref(9, 2), cte_ref(9, 3)),
    );
    assert_eq!(steps(copies), "gather[0](shared(forward[0,2](t1), join(ref9, ref9)))");
    let constant = cte(
        9,
        constant(1),
        keyed_join(JoinType::Left, scan(2, even(), MANY), cte_ref(9, 3)),
    );
    assert_eq!(
        steps(constant),
        "gather[0,1,2](shared(forward[0,1,2](values), join(t2, ref9)))"
    );
    let unread = cte(9, scan(1, even(), MANY), scan(2, even(), MANY));
    assert_eq!(steps(unread), "cte(gather[0,1,2](t1), gather[0,1,2](t2))");
}

#[test]
fn references_to_constants_stay_with_their_expression() {
    let first = unary(Op::Limit, cte_ref(9, 2));
    let constants = cte(9, constant(1), cross(first, cte_ref(9, 3)));
    assert_eq!(
        steps(cross(scan(4, even(), MANY), constants)),
        "join(gather[0,1,2](t4), cte(values, join(limit(ref9), ref9)))"
    );
}

#[test]
fn rows_made_once_are_read_within_one_gather() {
    // Both aggregates could be finished on the coordinator, next to a table of its own, but not in one query.
    let part = |table, column| aggregate(table, cte_ref(9, table + 2), &[Some((table + 2, column))], FEW);
    let pair = || keyed_join(JoinType::Inner, part(10, 0), part(20, 1));
    let (plan, both) = distributed(cte(9, scan(1, even(), MANY), unary(Op::Order, pair())));
    assert_eq!(both.step_text(&plan).matches("gather").count(), 1);
    assert_eq!(both.fallback_reason(), None);
    let mixed = cte(
        9,
        scan(1, even(), MANY),
        keyed_join(JoinType::Inner, pair(), plain_table(3)),
    );
    assert!(!steps(mixed).starts_with("cte("), "the pair is one gather");
    let apart = keyed_join(
        JoinType::Inner,
        keyed_join(JoinType::Inner, part(10, 0), plain_table(3)),
        part(20, 1),
    );
    let apart = cte(9, scan(1, even(), MANY), apart);
    assert!(steps(apart.clone()).starts_with("cte(gather[0,1,2](t1), join("));
    assert!(reason(apart).unwrap().contains("common table expression"));
}

impl Distributed {
    fn step_text(&self, plan: &Node) -> String {
        show(plan, &self.step)
    }
}

#[test]
fn definitions_may_read_each_other() {
    let inner = cte(
        8,
        aggregate(5, cte_ref(9, 2), &[Some((2, 1))], FEW),
        keyed_join(JoinType::Left, cte_ref(9, 3), cte_ref(8, 4)),
    );
    let (plan, nested) = distributed(cte(9, scan(1, hashed(&[0, 1, 2]), MANY), inner));
    assert_eq!(
        show(&plan, &nested.step),
        // The groups are where the hash of the table's key is, so they meet its rows there.
        "gather[0,1,2](shared(forward[0,1,2](t1), shared(forward[0,1,2](aggregate(hash[0,1,2>0,1,2]{group0}\
         (partial_aggregate(ref9)))), join(ref9, ref8))))"
    );
    let stages: Vec<u32> = nested.estimates.iter().map(|estimate| estimate.stage).collect();
    assert_eq!(stages, [0, 1, 2, 3]);
}

#[test]
fn a_target_stays_where_it_is() {
    let target = || as_target(scan(1, hashed(&[0, 1, 2]), FEW));
    let source = || scan(2, even(), MANY);
    assert_eq!(steps(unary(Op::Filter, target())), "gather[0,1,2](filter(t1))");
    // However big the other side is.
    let other_columns = join(JoinType::Inner, target(), source(), vec![on((1, 1), (2, 1))]);
    assert_eq!(
        steps(other_columns),
        "gather[0,1,2](join(t1, broadcast[0,1,2>0,1,2](t2)))"
    );
    let keys = keyed_join(JoinType::Inner, source(), target());
    assert_eq!(steps(keys), "gather[0,1,2](join(hash[0,1,2>0,1,2]{2.0}(t2), t1))");
    // MERGE with rows that match nothing
    let merge = keyed_join(JoinType::Left, source(), target());
    assert_eq!(steps(merge), "gather[0,1,2](join(hash[0,1,2>0,1,2]{2.0}(t2), t1))");
    let copies = keyed_join(JoinType::Left, source(), as_target(scan(1, replicated(&[0, 2]), FEW)));
    assert_eq!(steps(copies), "gather[0,2](join(broadcast[0,1,2>0,2](t2), t1))");
    let subquery = cross(target(), aggregate(5, source(), &[], 1));
    assert_eq!(
        steps(subquery),
        "gather[0,1,2](join(t1, broadcast[0>0,1,2](aggregate(broadcast[0,1,2>0](partial_aggregate(t2))))))"
    );
}

#[test]
fn a_target_that_would_have_to_move_is_refused() {
    let target = || as_target(scan(1, hashed(&[0, 1, 2]), FEW));
    let refused = [
        join(
            JoinType::Left,
            scan(2, even(), MANY),
            target(),
            vec![on((2, 1), (1, 1))],
        ),
        cross(target(), plain_table(2)),
        aggregate(5, target(), &[Some((1, 1))], FEW),
        unary(Op::TopN, target()),
        local(unary(Op::Filter, target())),
        cte(9, target(), cte_ref(9, 2)),
        unary(Op::Limit, as_target(scan(1, replicated(&[0, 1]), FEW))),
    ];
    for plan in refused {
        let error = error(plan);
        let text = error.to_string();
        assert!(
            text.starts_with("rows of table t1 can only be changed on the workers that have them, but "),
            "{text}"
        );
    }
}

#[test]
fn stages_are_numbered_after_those_they_read() {
    let table = |number| scan(number, hashed(&[0, 1, 2]), MANY);
    let two = join(JoinType::Inner, table(1), table(2), vec![on((1, 1), (2, 1))]);
    let three = join(JoinType::Inner, two, table(3), vec![on((1, 0), (3, 1))]);
    let (_, distributed) = distributed(aggregate(5, three, &[], 1));
    let Step::Operator { children, .. } = &distributed.step else {
        panic!("no operator")
    };
    let Step::Exchange { stage, .. } = &children[0] else {
        panic!("no exchange")
    };
    let last = u32::try_from(distributed.estimates.len()).unwrap() - 1;
    assert_eq!(*stage, last);
    let stages: BTreeSet<u32> = distributed.estimates.iter().map(|estimate| estimate.stage).collect();
    assert_eq!(stages, (0..=last).collect());
}

#[test]
fn decisions_are_the_same_every_time() {
    let table = |number| scan(number, even(), MANY);
    let plan = numbered(keyed_join(JoinType::Inner, table(1), table(2)));
    assert_eq!(distribute(&plan, &herd()), distribute(&plan, &herd()));
}

#[test]
fn contradictions_are_errors() {
    let mut twice = numbered(cross(scan(1, even(), FEW), scan(2, even(), FEW)));
    twice.children[1].id = 1;
    assert_eq!(
        distribute(&twice, &herd()),
        Err(DistributeError::Plan {
            node: 1,
            reason: "its number is not unique"
        })
    );
    let mut childless = unary(Op::Filter, scan(1, even(), FEW));
    childless.children.push(scan(2, even(), FEW));
    assert!(matches!(error(childless), DistributeError::Plan { .. }));
    assert!(matches!(
        error(pruned(scan(1, hashed(&[0]), FEW), &[7])),
        DistributeError::Plan { .. }
    ));
    assert!(matches!(error(scan(1, hashed(&[]), FEW)), DistributeError::Plan { .. }));
    let none = Workers {
        live: BTreeSet::new(),
        ..herd()
    };
    let plan = numbered(scan(1, hashed(&[0]), FEW));
    assert!(matches!(
        distribute(&plan, &none),
        Err(DistributeError::WorkerDown { .. })
    ));
}

/// A plan of so many operators upon each other.
fn deep(depth: usize, upon: fn(Node) -> Node) -> Node {
    let mut plan = scan(1, even(), FEW);
    for _ in 1..depth {
        plan = upon(plan);
    }
    numbered(plan)
}

fn filtered(child: Node) -> Node {
    unary(Op::Filter, child)
}

fn grouped(child: Node) -> Node {
    let column = child.columns[0];
    aggregate(1, child, &[Some(column)], FEW)
}

fn joined_again(child: Node) -> Node {
    let mut join = join(JoinType::Left, child, scan(2, even(), FEW), vec![on((1, 1), (2, 1))]);
    join.columns = vec![(1, 0), (1, 1)];
    join
}

fn appended(child: Node) -> Node {
    union_all(child, scan(2, replicated(&[0]), FEW))
}

#[test]
fn deep_plans_pass_and_deeper_ones_are_refused() {
    // As small a stack as any thread that plans has.
    let thread = std::thread::Builder::new().stack_size(2 << 20);
    let run = move || {
        for upon in [filtered, grouped, joined_again, appended] {
            let plan = deep(PLAN_DEPTH_MAX, upon);
            let read = Node::from_json(&serde_json::to_string(&plan).unwrap()).unwrap();
            assert_eq!(read, plan);
            let distributed = distribute(&read, &herd()).unwrap().unwrap();
            serde_json::to_string(&distributed).unwrap();
            let plan = deep(PLAN_DEPTH_MAX + 1, upon);
            assert_eq!(distribute(&plan, &herd()), Err(DistributeError::TooDeep));
        }
        let json = serde_json::to_string(&deep(PLAN_DEPTH_MAX + 20, filtered)).unwrap();
        assert!(matches!(Node::from_json(&json), Err(PlanError::TooDeep)));
    };
    thread.spawn(run).unwrap().join().unwrap();
}

#[test]
fn brackets_in_names_are_no_depth() {
    let mut plan = numbered(scan(1, even(), FEW));
    if let Op::Scan { table, .. } = &mut plan.op {
        *table = format!("\\\"{}", "[{".repeat(5_000));
    }
    assert_eq!(Node::from_json(&serde_json::to_string(&plan).unwrap()).unwrap(), plan);
    assert!(matches!(Node::from_json("{} {}"), Err(PlanError::Json(_))));
}

#[test]
fn the_format_is_what_the_other_layer_writes() {
    let json = r#"{"id": 0, "op": {"name": "join", "join_type": "right_semi", "row_wise": true,
        "equalities": [{"condition": 0, "left": [1, 0], "right": null}]}, "columns": [[2, 0]], "rows": 1, "row_bytes": 8,
        "children": [
            {"id": 1, "op": {"name": "scan", "table": "main.t", "keys": [[1, 0]],
                "placement": {"distribution": "hash", "keys": ["k"], "partitions": ["w0", "w1"], "hash_version": "v1"}},
                "columns": [[1, 0]], "rows": 5, "row_bytes": 8},
            {"id": 2, "op": {"name": "constant"}, "columns": [[2, 0]], "rows": 5, "row_bytes": 8}]}"#;
    let plan = Node::from_json(json).unwrap();
    let distributed = distribute(&plan, &herd()).unwrap().unwrap();
    let json = serde_json::to_value(&distributed).unwrap();
    assert_eq!(json["tier"], "shuffle");
    assert_eq!(json["step"]["step"], "exchange");
    assert_eq!(json["step"]["route"]["kind"], "gather");
    let step: Step = serde_json::from_value(json["step"].clone()).unwrap();
    assert_eq!(step, distributed.step);
}
