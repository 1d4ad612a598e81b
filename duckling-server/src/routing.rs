//! Which of a session's connections a statement may use, told from its text alone.

/// Whether a statement may run on another connection than the session's own, while that one is busy.
///
/// True only for single statements whose first word shows that they neither depend on nor change session state that
/// another connection lacks. The answer is a guess on the safe side: `false` costs a wait, never a wrong result.
#[must_use]
pub fn may_run_beside(sql: &str) -> bool {
    let sql = skip_blank(sql).trim_end();
    let sql = sql.strip_suffix(';').unwrap_or(sql);
    if sql.contains(';') {
        return false;
    }
    // What begins with a parenthesis is a query.
    let mut inner = sql;
    while let Some(rest) = inner.strip_prefix('(') {
        inner = skip_blank(rest);
    }
    let word = inner.split(|c: char| !c.is_ascii_alphabetic()).next().unwrap_or("");
    [
        "SELECT", "FROM", "WITH", "VALUES", "INSERT", "UPDATE", "DELETE", "MERGE",
    ]
    .iter()
    .any(|known| known.eq_ignore_ascii_case(word))
}

/// What a transaction-control statement does, told from its text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TransactionControl {
    /// BEGIN, START TRANSACTION
    Begin,
    /// COMMIT, END
    Commit,
    /// ROLLBACK, ABORT
    Rollback,
}

impl TransactionControl {
    /// The control that a text begins with, if it does.
    #[must_use]
    pub fn first_in(sql: &str) -> Option<Self> {
        let word = skip_blank(sql)
            .split(|c: char| !c.is_ascii_alphabetic())
            .next()
            .unwrap_or("")
            .to_ascii_uppercase();
        match word.as_str() {
            "BEGIN" | "START" => Some(Self::Begin),
            "COMMIT" | "END" => Some(Self::Commit),
            "ROLLBACK" | "ABORT" => Some(Self::Rollback),
            _ => None,
        }
    }

    /// The control in the text of a statement that DuckDB has parsed as a transaction statement.
    #[must_use]
    pub fn of(sql: &str) -> Self {
        Self::first_in(sql).unwrap_or(Self::Rollback)
    }
}

/// `sql` without the whitespace and comments in front.
fn skip_blank(mut sql: &str) -> &str {
    loop {
        let trimmed = sql.trim_start();
        sql = if let Some(comment) = trimmed.strip_prefix("--") {
            comment.find('\n').map_or("", |end| &comment[end..])
        } else if let Some(comment) = trimmed.strip_prefix("/*") {
            comment.find("*/").map_or("", |end| &comment[end + 2..])
        } else {
            return trimmed;
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_queries_may_run_beside() {
        for sql in [
            "SELECT 1",
            "from t;",
            " -- c\n/* d */ insert into t values (1)",
            "WITH x AS (SELECT 1) FROM x",
            "( (SELECT 1) UNION ALL (SELECT 2))",
        ] {
            assert!(may_run_beside(sql), "{sql}");
        }
    }

    #[test]
    fn session_state_stays_on_its_connection() {
        for sql in [
            "SET x = 1",
            "SELECT 1; SET x = 1",
            "CREATE TEMP TABLE t (i INT)",
            "",
            "(",
            "PRAGMA x",
        ] {
            assert!(!may_run_beside(sql), "{sql}");
        }
    }

    #[test]
    fn transaction_control_is_told_apart() {
        assert_eq!(TransactionControl::of("/* x */ begin"), TransactionControl::Begin);
        assert_eq!(TransactionControl::of("START TRANSACTION"), TransactionControl::Begin);
        assert_eq!(TransactionControl::of("commit;"), TransactionControl::Commit);
        assert_eq!(TransactionControl::of("ABORT"), TransactionControl::Rollback);
        assert_eq!(TransactionControl::first_in("-- x\nSELECT 1"), None);
    }
}
