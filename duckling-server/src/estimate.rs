//! What DuckDB's plan says of a result that is not there yet: how many rows, and whether they have an order.

use arrow::array::{Array, AsArray, RecordBatch};
use serde_json::Value;

use crate::duckdb::{Connection, Statement};

/// Operators that put rows into an order.
const ORDERING: &[&str] = &["ORDER_BY", "TOP_N"];

/// What an operator calls its number of rows.
const ROWS: &str = "Estimated Cardinality";

/// Guesses about a result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Estimate {
    pub rows: u64,
    /// Something in the plan orders rows, maybe not those of the result.
    pub ordered: bool,
}

impl Estimate {
    /// Of one statement, which is planned and not run; `None` if DuckDB plans nothing for it.
    pub fn of(connection: &mut Connection, statement: &Statement) -> Option<Self> {
        let explain = format!("EXPLAIN (FORMAT json) {}", statement.text());
        let (_, batches) = connection.collect(&explain).ok()?;
        Self::parse(last_text(&batches)?)
    }

    fn parse(plan: &str) -> Option<Self> {
        let plan: Value = serde_json::from_str(plan).ok()?;
        let root = plan.get(0).filter(|root| root["name"].is_string())?;
        Some(Self {
            rows: rows(root),
            ordered: orders(root),
        })
    }
}

fn last_text(batches: &[RecordBatch]) -> Option<&str> {
    let batch = batches.last()?;
    let column = batch.columns().last()?.as_string_opt::<i32>()?;
    let row = batch.num_rows().checked_sub(1)?;
    column.is_valid(row).then(|| column.value(row))
}

// Both recurse as deep as the parser went, which is 128 levels: plans beyond that are not understood.

/// Operators without a number of their own, such as UNION, get that of their inputs.
fn rows(operator: &Value) -> u64 {
    let own = operator["extra_info"][ROWS].as_str();
    own.and_then(|own| own.parse().ok())
        .unwrap_or_else(|| inputs(operator).map(rows).fold(0, u64::saturating_add))
}

fn orders(operator: &Value) -> bool {
    let name = operator["name"].as_str().unwrap_or_default();
    ORDERING.contains(&name.trim()) || inputs(operator).any(orders)
}

fn inputs(operator: &Value) -> impl Iterator<Item = &Value> {
    operator["children"].as_array().into_iter().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::IN_MEMORY;
    use crate::duckdb::{Database, DatabaseOptions};

    #[test]
    fn duckdbs_plans_are_understood() {
        let database = Database::open(IN_MEMORY, &DatabaseOptions::default()).unwrap();
        let mut connection = database.connect().unwrap();
        connection
            .execute(
                "CREATE TABLE t AS SELECT range AS i FROM range(100_000); CREATE VIEW o AS FROM t ORDER BY i; \
                 CREATE SEQUENCE s",
            )
            .unwrap();
        let mut of = |sql: &str| {
            let statements = connection.parse(sql).unwrap();
            Estimate::of(&mut connection, &statements[0])
        };
        for (sql, rows, ordered) in [
            ("FROM t", 100_000, false),
            ("FROM t;", 100_000, false),
            ("-- a comment\nFROM t -- and another", 100_000, false),
            ("FROM t UNION ALL FROM t", 200_000, false),
            ("FROM o", 100_000, true),
            ("SELECT 1", 1, false),
            ("SELECT count(*) FROM t", 1, false),
            ("SELECT nextval('s')", 1, false),
        ] {
            assert_eq!(of(sql), Some(Estimate { rows, ordered }), "{sql}");
        }
        assert!(of("FROM t ORDER/**/BY i LIMIT 10").unwrap().ordered);
        assert_eq!(of("EXPLAIN FROM t"), None);
        // Nothing has run.
        let (_, batches) = connection.collect("SELECT nextval('s')").unwrap();
        assert_eq!(
            batches[0]
                .column(0)
                .as_primitive::<arrow::datatypes::Int64Type>()
                .value(0),
            1
        );
    }

    #[test]
    fn what_is_no_plan_is_none() {
        let deep = r#"[{"name": "X", "children": "#.repeat(10_000);
        for text in ["", "null", "{}", "[]", "[{}]", "[{\"name\": 1}]", &deep] {
            assert_eq!(Estimate::parse(text), None);
        }
        let odd =
            r#"[{"name": "X", "extra_info": {"Estimated Cardinality": ["7"]}, "children": [{"name": "ORDER_BY"}]}]"#;
        assert_eq!(Estimate::parse(odd), Some(Estimate { rows: 0, ordered: true }));
    }
}
