//! The differential fuzzer: random schemas, data and statements on plain DuckDB and through duckherder, which must not
//! be told apart.
//!
//! A case is a fresh pair of databases and some hundred statements from one seed. Plain DuckDB has an in-memory database
//! attached as `dh`, the other a duckling, so both get the same text. Every outcome is compared: rows, names and types
//! of columns, counts of changed rows, errors.
//!
//! With a herd, the duckling is a coordinator whose workers have the rows of all tables that can be spread, in every way in
//! which they can be. What a herd refuses is not run on the other side.
//!
//! `cargo xtask fuzz [--herd]` runs it. `DUCKHERDER_FUZZ_SEED` is the first case's seed, the next case has the next number;
//! `DUCKHERDER_FUZZ_SECONDS` is for how long cases are begun. A difference is reported with the statements that lead to
//! it, as few as deleting can make them.

mod compare;
mod gaps;
mod model;
mod query;
mod statements;
mod types;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::PathBuf;
use std::sync::mpsc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use duckherder_tests::duckdb::{Connection, DuckDb};
use duckherder_tests::duckling::{LocalDuckling, config};
use duckling_server::DucklingConfig;

use self::compare::Outcome;
use self::statements::{CONNECTIONS, Generator, Shape, Statement};

const SEED: &str = "DUCKHERDER_FUZZ_SEED";
const SECONDS: &str = "DUCKHERDER_FUZZ_SECONDS";
/// The duckling is a herd, if it is set.
const HERD: &str = "DUCKHERDER_FUZZ_HERD";
/// At most so many cases, if it is set.
const CASES: &str = "DUCKHERDER_FUZZ_CASES";
const DEFAULT_SECONDS: u64 = 60;

/// Statements of a case.
const STATEMENTS: std::ops::Range<usize> = 40..160;
/// A statement that takes longer hangs.
const STATEMENT_TICKS: u32 = 90;
/// Counted, and not the time of day: the process may be stopped meanwhile.
const TICK: Duration = Duration::from_secs(1);
/// For how long a difference is made smaller.
const MINIMISING: Duration = Duration::from_secs(60);

/// A herd's workers.
const WORKERS: usize = 3;
/// Partitions of its tables, where nothing else is said: not as many on each worker.
const PARTITIONS: usize = 5;

/// Without it DuckDB 2.0.0 joins rowids by a Bloom filter, and writes outside of its memory; a duckling has no such filters
/// (`duckling-server/cpp/join_filters.hpp`).
const NO_LATE_MATERIALIZATION: &str = "SET GLOBAL late_materialization_max_rows = 0";

/// Plain DuckDB and Duckherder, side by side.
struct Pair {
    plain: Vec<Connection>,
    duckherder: Vec<Connection>,
    is_herd: bool,
    _ducklings: Vec<LocalDuckling>,
}

impl Pair {
    fn new(is_herd: bool) -> Self {
        let duckling = LocalDuckling::start_with(DucklingConfig {
            default_partitions: if is_herd { PARTITIONS } else { 0 },
            ..config()
        });
        let duckling = duckling.unwrap();
        let open = |database: &DuckDb, attach: &str| {
            let mut connections: Vec<_> = (0..CONNECTIONS).map(|_| database.connect().unwrap()).collect();
            connections[0].run(NO_LATE_MATERIALIZATION).unwrap();
            connections[0].run(attach).unwrap();
            connections
        };
        let attach = format!(
            "ATTACH 'dh' (TYPE duckherder, server_host '127.0.0.1', server_port {})",
            duckling.port()
        );
        let plain = open(&DuckDb::plain().unwrap(), "ATTACH ':memory:' AS dh");
        let mut duckherder = open(&DuckDb::with_duckherder().unwrap(), &attach);
        let mut ducklings = vec![duckling];
        for _ in 0..if is_herd { WORKERS } else { 0 } {
            let worker = LocalDuckling::start().unwrap();
            let register = format!("SELECT duckherder_register_worker('127.0.0.1:{}')", worker.port());
            duckherder[0].run(&register).unwrap();
            ducklings.push(worker);
        }
        Self {
            plain,
            duckherder,
            is_herd,
            _ducklings: ducklings,
        }
    }

    /// The outcomes on plain DuckDB and Duckherder; what a herd refuses has the same one twice.
    fn run(&mut self, statement: &Statement) -> (Outcome, Outcome) {
        let connection = statement.connection;
        if self.is_herd {
            let duckherder = Outcome::of(&mut self.duckherder[connection], &statement.on_herd(), statement.shape);
            if gaps::is_refused_by_herd(&duckherder) {
                return (duckherder.clone(), duckherder);
            }
            let plain = Outcome::of(&mut self.plain[connection], &statement.sql, statement.shape);
            return (plain, duckherder);
        }
        (
            Outcome::of(&mut self.plain[connection], &statement.sql, statement.shape),
            Outcome::of(&mut self.duckherder[connection], &statement.sql, statement.shape),
        )
    }
}

/// How the two outcomes of a statement relate.
enum Verdict {
    Same,
    /// Known, by this name.
    Known(&'static str),
    /// DuckDB itself is at fault, on both sides alike or not: the case has no meaning from here on.
    Broken,
    Different,
}

fn judge(statement: &Statement, plain: &Outcome, duckherder: &Outcome) -> Verdict {
    if plain.is_internal_error() {
        return Verdict::Broken;
    }
    if plain == duckherder {
        return Verdict::Same;
    }
    match gaps::known(statement, plain, duckherder) {
        Some(name) => Verdict::Known(name),
        None => Verdict::Different,
    }
}

/// What was found, and the statements that lead there.
struct Difference {
    is_herd: bool,
    log: Vec<Statement>,
    plain: Outcome,
    duckherder: Outcome,
}

/// Counts of a run.
#[derive(Default)]
struct Tally {
    cases: u64,
    statements: u64,
    errors: u64,
    broken: u64,
    known: BTreeMap<&'static str, u64>,
}

/// The statements of the case that runs, also in a file: the process may not survive the next one.
struct Log {
    statements: Vec<Statement>,
    file: std::fs::File,
    alive: mpsc::Sender<String>,
}

impl Log {
    fn path() -> PathBuf {
        PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("fuzz-{}.sql", std::process::id()))
    }

    fn begin(seed: u64, alive: mpsc::Sender<String>) -> Self {
        let mut file = std::fs::File::create(Self::path()).unwrap();
        writeln!(file, "-- seed {seed}").unwrap();
        Self {
            statements: Vec::new(),
            file,
            alive,
        }
    }

    fn add(&mut self, statement: &Statement) {
        writeln!(self.file, "{}", as_script(std::slice::from_ref(statement)).trim_end()).unwrap();
        self.alive.send(statement.sql.clone()).unwrap();
        self.statements.push(statement.clone());
    }
}

/// Runs one case.
fn case(seed: u64, is_herd: bool, tally: &mut Tally, alive: &mpsc::Sender<String>) -> Result<(), Box<Difference>> {
    let mut generator = Generator::new(seed, is_herd);
    let mut pair = Pair::new(is_herd);
    let mut log = Log::begin(seed, alive.clone());
    let count = generator.rng.usize(STATEMENTS);
    tally.cases += 1;
    for _ in 0..count {
        let step = generator.step();
        let Some(went_well) = compare_one(&mut pair, &step.statement, &mut log, tally)? else {
            return Ok(());
        };
        generator.note(step, went_well);
    }
    for statement in generator.final_look() {
        if compare_one(&mut pair, &statement, &mut log, tally)?.is_none() {
            break;
        }
    }
    Ok(())
}

/// Runs one statement on both sides: whether it went well, or nothing if the case should end here.
fn compare_one(
    pair: &mut Pair,
    statement: &Statement,
    log: &mut Log,
    tally: &mut Tally,
) -> Result<Option<bool>, Box<Difference>> {
    log.add(statement);
    let (plain, duckherder) = pair.run(statement);
    tally.statements += 1;
    tally.errors += u64::from(plain.is_error());
    if pair.is_herd && gaps::is_refused_by_herd(&duckherder) {
        *tally.known.entry("refused by the herd").or_default() += 1;
        // A transaction is lost by it.
        return Ok((!in_transaction(&log.statements, statement.connection)).then_some(false));
    }
    match judge(statement, &plain, &duckherder) {
        Verdict::Same => Ok(Some(!plain.is_error())),
        Verdict::Known(name) => {
            *tally.known.entry(name).or_default() += 1;
            Ok(gaps::is_harmless(statement, &plain, &duckherder).then_some(false))
        }
        Verdict::Broken => {
            tally.broken += 1;
            Ok(None)
        }
        Verdict::Different => Err(Box::new(Difference {
            is_herd: pair.is_herd,
            log: std::mem::take(&mut log.statements),
            plain,
            duckherder,
        })),
    }
}

/// Whether these statements leave the connection in a transaction.
fn in_transaction(statements: &[Statement], connection: usize) -> bool {
    let mut of_connection = statements
        .iter()
        .rev()
        .filter(|statement| statement.connection == connection);
    let last = of_connection.find(|statement| matches!(statement.sql.as_str(), "BEGIN" | "COMMIT" | "ROLLBACK"));
    last.is_some_and(|statement| statement.sql == "BEGIN")
}

/// The outcomes of the last of `statements`, if they differ on a fresh pair, and the ones before it do not.
fn replay(statements: &[Statement], is_herd: bool, alive: &mpsc::Sender<String>) -> Option<(Outcome, Outcome)> {
    let mut pair = Pair::new(is_herd);
    let (last, before) = statements.split_last()?;
    for statement in before {
        alive.send(statement.sql.clone()).unwrap();
        let (plain, duckherder) = pair.run(statement);
        let is_over = match judge(statement, &plain, &duckherder) {
            Verdict::Same => false,
            Verdict::Known(_) => !gaps::is_harmless(statement, &plain, &duckherder),
            Verdict::Broken | Verdict::Different => true,
        };
        if is_over {
            return None;
        }
    }
    alive.send(last.sql.clone()).unwrap();
    let (plain, duckherder) = pair.run(last);
    matches!(judge(last, &plain, &duckherder), Verdict::Different).then_some((plain, duckherder))
}

/// Leaves out what can be left out: `is_needed` says whether what remains still shows it.
fn minimise<T: Clone>(mut items: Vec<T>, mut still_shows: impl FnMut(&[T]) -> bool, deadline: Instant) -> Vec<T> {
    let mut size = items.len() / 2;
    while size > 0 {
        // The last one stays: it is what differs.
        let mut end = items.len().saturating_sub(1);
        while end > 0 {
            if Instant::now() > deadline {
                return items;
            }
            let start = end.saturating_sub(size);
            let fewer: Vec<_> = items[..start].iter().chain(&items[end..]).cloned().collect();
            if still_shows(&fewer) {
                items = fewer;
            }
            end = start;
        }
        size /= 2;
    }
    items
}

fn as_script(statements: &[Statement]) -> String {
    let mut script = String::new();
    for statement in statements {
        let connection = match statement.connection {
            0 => String::new(),
            number => format!("-- on connection {number}:\n"),
        };
        let herd = match &statement.herd_clause {
            None => String::new(),
            Some(_) => format!("-- on the herd: {}\n", statement.on_herd()),
        };
        writeln!(script, "{connection}{herd}{};", statement.sql).unwrap();
    }
    script
}

fn report(seed: u64, difference: Difference, alive: &mpsc::Sender<String>) -> String {
    let Difference {
        is_herd,
        log,
        mut plain,
        mut duckherder,
    } = difference;
    let all = log.len();
    let (log, note) = match replay(&log, is_herd, alive) {
        None => (log, "it does not show again on fresh databases"),
        Some(_) => {
            let shown = |log: &[Statement]| {
                replay(log, is_herd, alive).is_some_and(|(a, b)| a.is_like(&plain) && b.is_like(&duckherder))
            };
            (minimise(log, shown, Instant::now() + MINIMISING), "made smaller")
        }
    };
    if let Some(outcomes) = replay(&log, is_herd, alive) {
        (plain, duckherder) = outcomes;
    }
    format!(
        "a difference with seed {seed}, after {all} statements ({note}):\n\n{}\nplain DuckDB: {}\n\nduckherder: {}\n\n\
         again: cargo xtask fuzz{} --seed {seed} --seconds 0\n",
        as_script(&log),
        plain.describe(&duckherder),
        duckherder.describe(&plain),
        if is_herd { " --herd" } else { "" }
    )
}

fn number(variable: &str) -> Option<u64> {
    let value = std::env::var(variable).ok()?;
    Some(
        value
            .parse()
            .unwrap_or_else(|_| panic!("{variable} is not a number: {value}")),
    )
}

/// Runs cases until the time is over; the first difference as a report.
fn run(
    first: u64,
    cases: u64,
    duration: Duration,
    is_herd: bool,
    alive: &mpsc::Sender<String>,
) -> Result<Tally, String> {
    let started = Instant::now();
    let mut tally = Tally::default();
    let mut seed = first;
    loop {
        case(seed, is_herd, &mut tally, alive).map_err(|difference| report(seed, *difference, alive))?;
        seed = seed.wrapping_add(1);
        if started.elapsed() >= duration || seed.wrapping_sub(first) >= cases {
            return Ok(tally);
        }
    }
}

#[test]
#[ignore = "takes a minute: cargo xtask fuzz"]
fn nothing_differs_from_plain_duckdb() {
    let seed = number(SEED).unwrap_or_else(|| {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        u64::from(now.subsec_nanos()) << 20 | now.as_secs() & 0xf_ffff
    });
    let duration = Duration::from_secs(number(SECONDS).unwrap_or(DEFAULT_SECONDS));
    println!(
        "fuzzing for {} s with seed {seed}; statements go to {}",
        duration.as_secs(),
        Log::path().display()
    );
    let (alive, heartbeats) = mpsc::channel();
    let cases = number(CASES).unwrap_or(u64::MAX);
    let is_herd = std::env::var_os(HERD).is_some();
    let worker = std::thread::spawn(move || run(seed, cases, duration, is_herd, &alive));
    let mut last = String::new();
    let mut silent_ticks = 0;
    loop {
        match heartbeats.recv_timeout(TICK) {
            Ok(sql) => {
                last = sql;
                silent_ticks = 0;
            }
            Err(mpsc::RecvTimeoutError::Disconnected) => break,
            Err(mpsc::RecvTimeoutError::Timeout) => silent_ticks += 1,
        }
        assert!(
            silent_ticks < STATEMENT_TICKS,
            "seed {seed}: this hangs, statements before it are in {}:\n{last}",
            Log::path().display()
        );
    }
    match worker.join().unwrap() {
        Err(report) => panic!("{report}"),
        Ok(tally) => {
            let _ = std::fs::remove_file(Log::path());
            println!(
                "no difference: {} cases, {} statements of which {} failed alike; known differences {:?}, \
                 DuckDB's own failures {}",
                tally.cases, tally.statements, tally.errors, tally.known, tally.broken
            );
        }
    }
}

#[test]
fn what_is_not_needed_is_left_out() {
    let far = Instant::now() + Duration::from_secs(60);
    let shows = |items: &[u32]| items.contains(&3) && items.contains(&7) && items.last() == Some(&20);
    assert_eq!(minimise((0..=20).collect(), shows, far), [3, 7, 20]);
}

#[test]
fn a_difference_is_seen_and_made_small() {
    let statement = |sql: &str, shape| Statement {
        connection: 0,
        sql: sql.to_owned(),
        herd_clause: None,
        shape,
    };
    let (alive, _heartbeats) = mpsc::channel();
    let mut log = vec![
        statement("CREATE TABLE dh.t (i INTEGER)", Shape::Nothing),
        statement("INSERT INTO dh.t VALUES (1), (2)", Shape::Changes),
        statement("SELECT i FROM dh.t", Shape::Rows),
    ];
    for is_herd in [false, true] {
        assert!(replay(&log, is_herd, &alive).is_none());
    }
    // Only one of the two has this function.
    log.push(statement(
        "SELECT count(*) FROM duckherder_get_query_history()",
        Shape::Rows,
    ));
    let (plain, duckherder) = replay(&log, false, &alive).unwrap();
    let difference = Difference {
        is_herd: false,
        log,
        plain,
        duckherder,
    };
    let report = report(7, difference, &alive);
    assert!(report.contains("seed 7"), "{report}");
    assert!(!report.contains("CREATE TABLE"), "{report}");
    assert!(report.contains("plain DuckDB: Catalog Error"), "{report}");
}
