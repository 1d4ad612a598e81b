//! What a statement came to, and whether two outcomes are the same.

use duckherder_tests::duckdb::{Connection, Output, SqlError};

use super::statements::Shape;

/// More rows than this are not written out in reports.
const ROWS_SHOWN_MAX: usize = 30;

/// What a statement came to, as far as it counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    Rows {
        /// Name and type.
        columns: Vec<(String, String)>,
        /// Sorted, unless the order counts.
        rows: Vec<String>,
    },
    Changes(Option<u64>),
    Done,
    Error {
        /// `Binder Error`.
        class: String,
        message: String,
    },
}

impl Outcome {
    /// Runs a statement.
    pub fn of(connection: &mut Connection, sql: &str, shape: Shape) -> Self {
        match connection.run(sql) {
            Ok(output) => Self::of_output(&output, shape),
            Err(error) => Self::of_error(&error),
        }
    }

    fn of_output(output: &Output, shape: Shape) -> Self {
        match shape {
            Shape::Nothing => Self::Done,
            Shape::Changes => Self::Changes(output.rows_changed()),
            Shape::Rows | Shape::Ordered => {
                let mut rows = output.lines();
                if shape == Shape::Rows {
                    rows.sort();
                }
                Self::Rows {
                    columns: output.columns.clone(),
                    rows,
                }
            }
        }
    }

    /// Whether both are rows, and the other's are more.
    pub fn has_fewer_rows(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Rows { rows: own, .. }, Self::Rows { rows: others, .. }) => own.len() < others.len(),
            _ => false,
        }
    }

    fn of_error(error: &SqlError) -> Self {
        let (class, message) = error.0.split_once(": ").unwrap_or((error.0.as_str(), ""));
        Self::Error {
            class: class.to_owned(),
            message: without_worker(without_place(message)),
        }
    }

    pub fn is_error(&self) -> bool {
        matches!(self, Self::Error { .. })
    }

    /// The class, if it is an error.
    pub fn class(&self) -> Option<&str> {
        match self {
            Self::Error { class, .. } => Some(class),
            _ => None,
        }
    }

    /// DuckDB's own failure: nothing that follows on this instance means anything.
    pub fn is_internal_error(&self) -> bool {
        matches!(self, Self::Error { class, message }
            if class.contains("INTERNAL") || class.contains("FATAL") || message.contains("INTERNAL Error") || message.contains("database has been invalidated"))
    }

    /// It is an error that says this.
    pub fn fails_with(&self, text: &str) -> bool {
        matches!(self, Self::Error { message, .. } if message.contains(text))
    }

    /// It is as good an example of what this was: rows, a count, or an error of the same class.
    pub fn is_like(&self, other: &Self) -> bool {
        std::mem::discriminant(self) == std::mem::discriminant(other) && self.class() == other.class()
    }

    /// All is the same but names of columns without a name of their own.
    pub fn differs_in_expression_names(&self, other: &Self) -> bool {
        self.differs_in_columns(other, |(name, data_type), (other_name, other_type)| {
            data_type == other_type && (name == other_name || name.contains('('))
        })
    }

    /// All is the same but types of integers.
    pub fn differs_in_integer_types(&self, other: &Self) -> bool {
        let is_integer = |data_type: &str| data_type.ends_with("INT") || data_type.ends_with("INTEGER");
        self.differs_in_columns(other, |(name, data_type), (other_name, other_type)| {
            name == other_name && (data_type == other_type || (is_integer(data_type) && is_integer(other_type)))
        })
    }

    /// The rows are the same, and all columns, name and type, are alike.
    fn differs_in_columns(
        &self,
        other: &Self,
        is_alike: impl Fn(&(String, String), &(String, String)) -> bool,
    ) -> bool {
        let (
            Self::Rows { columns, rows },
            Self::Rows {
                columns: others,
                rows: other_rows,
            },
        ) = (self, other)
        else {
            return false;
        };
        let mut pairs = columns.iter().zip(others);
        rows == other_rows && columns.len() == others.len() && pairs.all(|(column, other)| is_alike(column, other))
    }

    /// For people: of rows, those that `other` has not.
    pub fn describe(&self, other: &Self) -> String {
        match self {
            Self::Rows { columns, rows } => {
                let columns: Vec<_> = columns
                    .iter()
                    .map(|(name, data_type)| format!("{name} {data_type}"))
                    .collect();
                let mut text = format!("{} rows of ({})", rows.len(), columns.join(", "));
                let others: &[String] = match other {
                    Self::Rows { rows, .. } => rows,
                    _ => &[],
                };
                let is_reordered = rows.len() == others.len() && rows.iter().all(|row| others.contains(row));
                let own = rows.iter().filter(|row| is_reordered || !others.contains(row));
                for row in own.take(ROWS_SHOWN_MAX) {
                    text.push_str(&format!("\n    {row}"));
                }
                text
            }
            Self::Changes(count) => format!("rows changed: {count:?}"),
            Self::Done => "done".to_owned(),
            Self::Error { class, message } => format!("{class}: {message}"),
        }
    }
}

/// Without the name of the worker that a herd's errors begin with: `worker <id> at <address>: `.
fn without_worker(message: String) -> String {
    const FAILED_TO_COMMIT: &str = "Failed to commit: ";
    if let Some(rest) = message.strip_prefix(FAILED_TO_COMMIT) {
        return FAILED_TO_COMMIT.to_owned() + &without_worker(rest.to_owned());
    }
    let rest = message.strip_prefix("worker ").and_then(|named| named.split_once(": "));
    match rest {
        Some((worker, rest)) if worker.contains(" at ") => rest.to_owned(),
        _ => message,
    }
}

/// The message without what depends on how the statement is written: its place in the text, and the name of the
/// catalog, which a duckling does not know; nor hints, which depend on what else there is.
fn without_place(message: &str) -> String {
    let message = message.split("\n\nLINE ").next().unwrap_or_default();
    let message = message.split("\nDid you mean").next().unwrap_or_default();
    let message = message
        .split(" when casting from source column")
        .next()
        .unwrap_or_default();
    message.replace("\"dh\".", "").replace("dh.", "")
}
