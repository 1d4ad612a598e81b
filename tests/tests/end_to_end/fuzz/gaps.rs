//! What is known to differ. Delete an entry when it no longer does.

use super::compare::Outcome;
use super::statements::{Shape, Statement};

/// What the generator can do and leaves out while it is listed in [`NOT_GENERATED`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Feature {
    /// ROLLUP and its like over expressions with constants: these are folded in one place and not in the other.
    ConstantGroups,
    /// Views in schemas other than `main`: `dh.t` in their text is `t` there, which is found where DuckDB finds nothing.
    ViewsInSchemas,
    /// CREATE VIEW … AS … PIVOT: the catalog stays in the text.
    PivotInView,
    /// `'1'::INTEGER` and `3 - 2` in statements that run here: DuckDB's optimizer for remote catalogs folds them to `1`, which
    /// adapts its type, also where nothing is remote.
    IntegerCasts,
    /// BEGIN followed by something else than a table of `dh`. The transaction there begins with the first statement that
    /// is sent, in plain DuckDB also with a look at the catalog.
    LazyBegin,
    /// ARRAY with elements of varying length: hash tables in DuckDB 2.0.0 sometimes copy those of arrays that are NULL, and
    /// crash (`SELECT row(a, 1) FROM t EXCEPT ALL SELECT NULL`).
    ArrayOfText,
    /// `row(…)` with an ARRAY in it: hash tables in DuckDB 2.0.0 take the tuple for a struct of other parts, and crash (`SELECT
    /// DISTINCT row([1]::INTEGER[1], 1)`).
    ArrayInTuple,
    /// Subqueries that are correlated by an ARRAY: DuckDB 2.0.0 yields another row's value (`SELECT (SELECT max(i.b) FROM t AS i
    /// WHERE i.b = t.b) FROM t` with several equal `b`).
    CorrelatedArray,
    /// INSERT OR REPLACE … RETURNING into a table of keys alone: DuckDB 2.0.0 counts rows that were there, and does not return
    /// them; a herd does, and so does a duckling that gets the rows from here.
    ReplacedKeys,
    /// RETURNING of what changes rows that are there (MERGE, ON CONFLICT, OR REPLACE), in a table with a STRUCT: DuckDB 2.0.0 copies
    /// the fields of those that were not there, and crashes if they are text (`PipelineBroadcastExchange::ChunkPool::Acquire`).
    ReturningOfStructs,
    /// UNION with members of varying length: joins in DuckDB 2.0.0 sometimes copy those that are not set, and crash.
    UnionOfText,
}

/// Features that the extension does not have yet.
pub const NOT_GENERATED: &[Feature] = &[
    Feature::ConstantGroups,
    Feature::ViewsInSchemas,
    Feature::PivotInView,
    Feature::IntegerCasts,
    Feature::LazyBegin,
    Feature::ArrayOfText,
    Feature::ArrayInTuple,
    Feature::CorrelatedArray,
    Feature::ReplacedKeys,
    Feature::ReturningOfStructs,
    Feature::UnionOfText,
];

/// Whether the generator may use it.
pub fn has(feature: Feature) -> bool {
    !NOT_GENERATED.contains(&feature)
}

/// A difference that is known: its name, and how to tell it.
type Known = (&'static str, fn(&Statement, &Outcome, &Outcome) -> bool);

/// Looked through when plain DuckDB (first outcome) and Duckherder (second) differ.
const DIFFERENCES: &[Known] = &[
    // In statements that run here, constants are folded before the name is made.
    ("names of expressions", |_, plain, duckherder| {
        plain.differs_in_expression_names(duckherder)
    }),
    ("macros of dh beside local rows", |_, _, duckherder| {
        duckherder.fails_with("Function with name")
            || duckherder.fails_with("in a transaction that has already modified database")
    }),
    // A folded constant is shipped as a literal, which fits more types, or with its type, which fits fewer (`typeof(a)` is a literal
    // for DuckDB's binder).
    ("types of folded constants", |_, plain, duckherder| {
        [plain, duckherder].iter().any(|outcome| outcome.fails_with("_LITERAL"))
            || plain.differs_in_integer_types(duckherder)
    }),
    // PREPARE plans less here, mostly; without the types of its parameters plain DuckDB sometimes stops before the error.
    (
        "errors of PREPARE that come with EXECUTE",
        |statement, plain, duckherder| {
            statement.sql.starts_with("PREPARE")
                && [plain, duckherder].iter().any(|outcome| {
                    matches!(
                        outcome.class(),
                        Some("Conversion Error" | "Binder Error" | "Catalog Error" | "Serialization Error")
                    )
                })
        },
    ),
    // Whether DuckDB looks at the table before there are rows depends on the plan: `INSERT INTO t FROM range(0)` does not. Nor does
    // a MERGE that has none to insert, while a herd asks its definitions first.
    (
        "INSERT of no rows into a table that another transaction has altered",
        |_, plain, duckherder| {
            [(plain, duckherder), (duckherder, plain)].iter().any(|(one, other)| {
                one.fails_with("attempting to insert into table") && **other == Outcome::Changes(Some(0))
            })
        },
    ),
    // In DuckDB a COMMENT in an open transaction is in the way of others' rows. A herd's comments are on the coordinator, its
    // rows on workers.
    ("rows beside an open COMMENT", |_, plain, duckherder| {
        plain.fails_with("another transaction has no changes this table") && !duckherder.is_error()
    }),
    // An UPDATE of a herd's key deletes rows in one place and inserts them in another. In DuckDB another transaction's DELETE goes
    // together with an UPDATE, and not with a DELETE; and so does its UPDATE of another column.
    ("changes beside an UPDATE that moves rows", |_, plain, duckherder| {
        let conflicts = ["Conflict on tuple deletion!", "Conflict on update!"];
        !plain.is_error() && conflicts.iter().any(|conflict| duckherder.fails_with(conflict))
    }),
    // See [`Feature::ReplacedKeys`]: the generator does not always know that there are no other columns.
    ("RETURNING of replaced keys", |statement, plain, duckherder| {
        statement.sql.starts_with("INSERT OR REPLACE INTO")
            && statement.sql.contains(" RETURNING ")
            && plain.has_fewer_rows(duckherder)
    }),
    // In DuckDB 2.0.0 an ALTER that fails for a conflict spoils the table for those who had changed it: they cannot insert, and
    // nobody can make an index any more. In a herd it fails before it gets to the workers' tables.
    ("tables that an ALTER that failed has spoilt", |_, plain, duckherder| {
        let is_spoilt = plain.fails_with("cannot add an index to a table that has been altered or dropped")
            || plain.fails_with("but it has been altered by a different transaction");
        is_spoilt && !duckherder.is_error()
    }),
    // DuckDB 2.0.0 looks at lists that are not there, on either side.
    ("casts of NULL to ARRAY", |_, plain, duckherder| {
        [plain, duckherder]
            .iter()
            .any(|outcome| outcome.fails_with("Cannot cast list with length"))
    }),
    // DuckDB 2.0.0 writes -0.5 as -.5 if a DECIMAL has as many digits behind the point as there are. As a folded constant it is
    // JSON that is read again.
    (
        "JSON of DECIMAL without a leading digit",
        |statement, plain, duckherder| {
            !plain.is_error()
                && duckherder.fails_with("no digit after minus sign")
                && statement.sql.to_ascii_lowercase().contains("json")
        },
    ),
    // DuckDB 2.0.0 takes casts of BIGNUM for such as cannot fail, and ends with an internal error where one does: when it is
    // folded, which PREPARE does sooner or later.
    ("casts of BIGNUM that are said not to fail", |_, plain, duckherder| {
        [plain, duckherder]
            .iter()
            .any(|outcome| outcome.fails_with("but the function is not marked as fallible"))
    }),
    // An impossible cast fails with the first row that gets there, which depends on the plan.
    ("casts that do not exist", |_, plain, duckherder| {
        [plain, duckherder]
            .iter()
            .any(|outcome| outcome.fails_with("Unimplemented type for cast"))
    }),
    // DuckDB 2.0.0 knows no BETWEEN of GEOMETRY, but where it becomes a filter of a scan.
    ("BETWEEN of GEOMETRY", |_, plain, duckherder| {
        [plain, duckherder]
            .iter()
            .any(|outcome| outcome.fails_with("Invalid type for BETWEEN"))
    }),
    // As with casts that do not exist, whether a row gets to a conversion that fails depends on the plan, which plain DuckDB makes
    // with statistics of the tables' values, and a herd in its own way: '1' where a value of another type is wanted, text that
    // a join compares with numbers.
    (
        "conversions of rows that a plan may leave out",
        |statement, plain, duckherder| {
            let may_leave_out = |message: &Outcome| {
                // The latter two join with what is there.
                [" JOIN ", "EXISTS (", " OR REPLACE INTO", " ON CONFLICT "]
                    .iter()
                    .any(|word| statement.sql.contains(word))
                    // What it executes is not known here.
                    || statement.sql.starts_with("EXECUTE ")
                    || message.fails_with("'1'")
                    || message.fails_with("\"1\"")
            };
            [(plain, duckherder), (duckherder, plain)]
                .iter()
                .any(|(one, other)| one.class() == Some("Conversion Error") && !other.is_error() && may_leave_out(one))
        },
    ),
    ("NULL keys of a MAP", |_, plain, duckherder| {
        plain.fails_with("Map keys can not be NULL") && duckherder.is_error()
    }),
    // Of several things that are wrong, either side names the one that it meets first.
    ("the first of several errors", |_, plain, duckherder| {
        let is_binding = |outcome: &Outcome| matches!(outcome.class(), Some("Catalog Error" | "Binder Error"));
        (is_binding(plain) && duckherder.class() == Some("TransactionContext Error"))
            || (is_binding(duckherder) && plain.is_error())
            // A herd asks its definitions first, and its rows then.
            || (matches!(duckherder.class(), Some("Dependency Error" | "TransactionContext Error"))
                && matches!(plain.class(), Some("Constraint Error" | "Conversion Error")))
            || [plain, duckherder]
                .iter()
                .all(|outcome| matches!(outcome.class(), Some("Conversion Error" | "Constraint Error" | "Out of Range Error")))
    }),
    // DuckDB finds conflicts at COMMIT: some workers have committed by then.
    ("commits that fail on some workers", |_, plain, duckherder| {
        plain.is_error() && duckherder.fails_with(COMMITTED_IN_PART)
    }),
    (
        "DESCRIBE of a view whose tables are gone or changed",
        |statement, plain, _| {
            statement.sql.contains("DESCRIBE") && matches!(plain.class(), Some("Catalog Error" | "Binder Error"))
        },
    ),
];

/// What a herd refuses, for all rows of a table are not in one place.
const REFUSED_BY_HERD: &[&str] = &[
    "the herd's table",
    "table of the herd",
    "says in which partition a row is",
    "of a partitioned table must contain",
    "a table that is spread evenly cannot have",
    "a table cannot be PARTITIONED BY",
];

/// Whether a herd has refused a statement, and done nothing.
pub fn is_refused_by_herd(duckherder: &Outcome) -> bool {
    REFUSED_BY_HERD.iter().any(|text| duckherder.fails_with(text))
}

/// The name of the known difference that this is.
pub fn known(statement: &Statement, plain: &Outcome, duckherder: &Outcome) -> Option<&'static str> {
    DIFFERENCES
        .iter()
        .find(|(_, applies)| applies(statement, plain, duckherder))
        .map(|(name, _)| *name)
}

/// What a commit says that some workers have done and others not.
const COMMITTED_IN_PART: &str = "on a part of the workers only";

/// After this known difference both sides still hold the same data.
pub fn is_harmless(statement: &Statement, plain: &Outcome, duckherder: &Outcome) -> bool {
    if duckherder.fails_with(COMMITTED_IN_PART) {
        return false;
    }
    let is_query = matches!(statement.shape, Shape::Rows | Shape::Ordered) && !statement.sql.contains(" RETURNING ");
    is_query || (plain.is_error() && duckherder.is_error())
}
