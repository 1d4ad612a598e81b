//! Table names, as DuckDB compares them: without regard to case.

use std::fmt;
use std::str::FromStr;

/// A table's name, with its schema where one was given.
///
/// Parsed from SQL notation: `orders`, `sales.orders`, `"odd.name"."a ""quoted"" one"`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableName {
    /// The schema, or none for the default one.
    pub schema: Option<String>,
    /// The table.
    pub table: String,
}

/// The names of a schema and of those that it is nested in, outermost first.
///
/// Parsed from SQL notation, as [`TableName`] is.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SchemaPath(Vec<String>);

impl SchemaPath {
    /// The schema of that name in these.
    #[must_use]
    pub fn new(parent_schemas: &[String], schema_name: &str) -> Self {
        let mut names = parent_schemas.to_vec();
        names.push(schema_name.to_owned());
        Self(names)
    }

    /// All names.
    #[must_use]
    pub fn names(&self) -> Vec<&str> {
        self.0.iter().map(String::as_str).collect()
    }

    /// The schemas that it is nested in, and its own name.
    #[must_use]
    pub fn split(mut self) -> (Vec<String>, String) {
        let name = self.0.pop().unwrap_or_default();
        (self.0, name)
    }

    /// The form in which paths are compared.
    pub(crate) fn fold(&self) -> Self {
        Self(self.0.iter().map(|name| fold(name)).collect())
    }
}

impl FromStr for SchemaPath {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        split(text).map(Self).ok_or_else(|| NameError { text: text.to_owned() })
    }
}

impl fmt::Display for SchemaPath {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, name) in self.0.iter().enumerate() {
            let dot = if index == 0 { "" } else { "." };
            write!(formatter, "{dot}\"{}\"", name.replace('"', "\"\""))?;
        }
        Ok(())
    }
}

/// Why a text is no table name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{text}' is not a table name: expected table or schema.table, quoted with \"…\" where needed")]
pub struct NameError {
    text: String,
}

impl FromStr for TableName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let error = || NameError { text: text.to_owned() };
        let mut parts = split(text).ok_or_else(error)?;
        let table = parts.pop().ok_or_else(error)?;
        let schema = parts.pop();
        if parts.is_empty() {
            Ok(Self { schema, table })
        } else {
            Err(error())
        }
    }
}

impl fmt::Display for TableName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(schema) = &self.schema {
            write!(formatter, "\"{}\".", schema.replace('"', "\"\""))?;
        }
        write!(formatter, "\"{}\"", self.table.replace('"', "\"\""))
    }
}

/// The dot-separated parts, unquoted; `None` if one is empty or a quote is left open.
fn split(text: &str) -> Option<Vec<String>> {
    let mut parts = Vec::new();
    let mut rest = text.trim();
    loop {
        let (part, after) = if let Some(quoted) = rest.strip_prefix('"') {
            unquote(quoted)?
        } else {
            let end = rest.find(['.', '"']).unwrap_or(rest.len());
            (rest[..end].to_owned(), &rest[end..])
        };
        if part.is_empty() {
            return None;
        }
        parts.push(part);
        match after.strip_prefix('.') {
            Some(next) => rest = next,
            None if after.is_empty() => return Some(parts),
            None => return None,
        }
    }
}

/// The text up to the closing quote, and what follows it.
fn unquote(text: &str) -> Option<(String, &str)> {
    let mut part = String::new();
    let mut rest = text;
    loop {
        let end = rest.find('"')?;
        part.push_str(&rest[..end]);
        rest = &rest[end + 1..];
        match rest.strip_prefix('"') {
            Some(next) => {
                part.push('"');
                rest = next;
            }
            None => return Some((part, rest)),
        }
    }
}

/// The form in which names are compared.
pub(crate) fn fold(name: &str) -> String {
    name.to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn sql_notation_is_understood() {
        let name: TableName = r#"sales."a ""b"".c""#.parse().unwrap();
        assert_eq!(
            name,
            TableName {
                schema: Some("sales".into()),
                table: "a \"b\".c".into()
            }
        );
        assert_eq!("orders".parse::<TableName>().unwrap().schema, None);
    }

    #[test]
    fn what_is_no_name_is_refused() {
        for text in ["", ".", "a.", ".a", "a.b.c", "\"a", "\"a\"b", "\"\""] {
            assert!(text.parse::<TableName>().is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn paths_round_trip(parents in proptest::collection::vec(".{1,9}", 0..4), name in ".{1,9}") {
            let path = SchemaPath::new(&parents, &name);
            prop_assert_eq!(path.to_string().parse::<SchemaPath>(), Ok(path.clone()));
            prop_assert_eq!(path.split(), (parents, name));
        }

        #[test]
        fn names_round_trip(schema in proptest::option::of(".{1,20}"), table in ".{1,20}") {
            let name = TableName { schema, table };
            prop_assert_eq!(name.to_string().parse::<TableName>(), Ok(name));
        }
    }
}
