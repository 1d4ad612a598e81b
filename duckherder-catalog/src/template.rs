//! Statements that differ in their literals only, told from the text alone.
//!
//! Clients repeat a statement with other keys, and where the rows of a key are is all that differs between its plans. A
//! [`Template`] is what such statements have in common.

use std::borrow::Cow;

/// The longest statement that has a template, in bytes.
pub const SQL_BYTES_MAX: usize = 4 * 1024;

/// What stands for an integer in a template.
const INTEGER: char = '\u{1}';

/// What stands for a string in a template.
const STRING: char = '\u{2}';

/// A statement without its integers and strings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template<'sql> {
    /// The text, with a mark in the place of each literal: equal only for statements of the same tokens otherwise.
    pub text: String,
    /// The literals, in order.
    pub literals: Vec<Literal<'sql>>,
}

/// A literal that was taken out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Literal<'sql> {
    /// Where it begins in the statement, in bytes.
    pub offset: usize,
    /// What it is.
    pub kind: LiteralKind,
    /// Its digits, without a sign; or the string that it means.
    pub text: Cow<'sql, str>,
}

impl Literal<'_> {
    /// As it is written in SQL.
    #[must_use]
    pub fn source(&self) -> Cow<'_, str> {
        match self.kind {
            LiteralKind::Integer => Cow::Borrowed(&self.text),
            LiteralKind::String => Cow::Owned(format!("'{}'", self.text.replace('\'', "''"))),
        }
    }
}

/// What a literal is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LiteralKind {
    /// Decimal digits and nothing else.
    Integer,
    /// A string in single quotes.
    String,
}

impl<'sql> Template<'sql> {
    /// The template of a single statement. `None` for one that is too long, or has comments, parameters, strings in dollars
    /// or with prefixes, several statements, or quotes without an end: what such a text means is left to DuckDB.
    #[must_use]
    pub fn of(sql: &'sql str) -> Option<Self> {
        if sql.len() > SQL_BYTES_MAX {
            return None;
        }
        let mut template = Self {
            text: String::with_capacity(sql.len()),
            literals: Vec::new(),
        };
        let bytes = sql.as_bytes();
        let mut at = 0;
        while let Some(&byte) = bytes.get(at) {
            let next = bytes.get(at + 1).copied();
            let end = match byte {
                b'\'' => {
                    let end = quoted(bytes, at)?;
                    template.literals.push(Literal {
                        offset: at,
                        kind: LiteralKind::String,
                        text: unescaped(&sql[at + 1..end - 1]),
                    });
                    template.text.push(STRING);
                    at = end;
                    continue;
                }
                b'"' => quoted(bytes, at)?,
                b'0'..=b'9' => {
                    let end = run(bytes, at, is_word);
                    let follows_point = at > 0 && bytes[at - 1] == b'.';
                    let is_plain = sql[at..end].bytes().all(|byte| byte.is_ascii_digit());
                    if is_plain && !follows_point && bytes.get(end) != Some(&b'.') {
                        template.literals.push(Literal {
                            offset: at,
                            kind: LiteralKind::Integer,
                            text: Cow::Borrowed(&sql[at..end]),
                        });
                        template.text.push(INTEGER);
                        at = end;
                        continue;
                    }
                    end
                }
                _ if is_word(byte) => {
                    let end = run(bytes, at, is_word);
                    // E'…', X'…' and their like.
                    if bytes.get(end) == Some(&b'\'') {
                        return None;
                    }
                    end
                }
                b'-' if next == Some(b'-') => return None,
                b'/' if next == Some(b'*') => return None,
                b'$' | b'?' | b';' | b'&' | b'#' => return None,
                _ if byte.is_ascii_control() && !byte.is_ascii_whitespace() => return None,
                _ => at + 1,
            };
            template.text.push_str(&sql[at..end]);
            at = end;
        }
        Some(template)
    }
}

/// The end of what is in quotes from `start` on, behind the closing one; two quotes in it are one. `None` if there is none.
fn quoted(bytes: &[u8], start: usize) -> Option<usize> {
    let quote = bytes[start];
    let mut at = start + 1;
    loop {
        match bytes.get(at)? {
            byte if *byte != quote => at += 1,
            _ if bytes.get(at + 1) == Some(&quote) => at += 2,
            _ => return Some(at + 1),
        }
    }
}

fn unescaped(text: &str) -> Cow<'_, str> {
    if text.contains('\'') {
        Cow::Owned(text.replace("''", "'"))
    } else {
        Cow::Borrowed(text)
    }
}

/// The end of the run of bytes from `start` on that are such.
fn run(bytes: &[u8], start: usize, is_such: fn(u8) -> bool) -> usize {
    let length = bytes[start..].iter().position(|byte| !is_such(*byte));
    length.map_or(bytes.len(), |length| start + length)
}

/// Of a name, a keyword or a number.
fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || !byte.is_ascii()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn shape(sql: &str) -> Option<(String, Vec<String>)> {
        let template = Template::of(sql)?;
        let text = template.text.replace(INTEGER, "<i>").replace(STRING, "<s>");
        let literals = template.literals.iter().map(|literal| {
            assert!(sql[literal.offset..].starts_with(match literal.kind {
                LiteralKind::Integer => &literal.text,
                LiteralKind::String => "'",
            }));
            literal.text.to_string()
        });
        Some((text, literals.collect()))
    }

    #[test]
    fn literals_are_taken_out() {
        let of = |sql: &str| shape(sql).unwrap();
        assert_eq!(
            of("SELECT a1 FROM t WHERE ((k = 42) AND (s = 'it''s')) LIMIT 3"),
            (
                "SELECT a1 FROM t WHERE ((k = <i>) AND (s = <s>)) LIMIT <i>".to_owned(),
                vec!["42".to_owned(), "it's".to_owned(), "3".to_owned()]
            )
        );
        assert_eq!(of("SELECT \"a\"\"1 'x'\" FROM \"2\"").1, Vec::<String>::new());
        assert_eq!(of("SELECT -5").0, "SELECT -<i>");
        assert_eq!(of("''").1, [""]);
        assert_eq!(of("SELECT 'ä', ö1, 7").1, ["ä", "7"]);
    }

    #[test]
    fn numbers_that_are_no_integers_stay() {
        for sql in [
            "SELECT 1.5",
            "SELECT .5",
            "SELECT 1e3",
            "SELECT 0x1F",
            "SELECT 1_000",
            "SELECT 1.",
            "SELECT 1ä",
        ] {
            assert_eq!(shape(sql).unwrap(), (sql.to_owned(), Vec::new()), "{sql}");
        }
    }

    #[test]
    fn what_is_not_understood_has_no_template() {
        for sql in [
            "SELECT 1 -- x",
            "SELECT /* 1 */ 2",
            "SELECT $1",
            "SELECT $$1$$",
            "SELECT ?",
            "SELECT 1; SELECT 2",
            "SELECT E'\\''",
            "SELECT X'00'",
            "SELECT U&'x'",
            "SELECT 'x",
            "SELECT \"x",
            "SELECT '\u{1}' \u{1}",
        ] {
            assert_eq!(shape(sql), None, "{sql}");
        }
        assert_eq!(shape(&"x".repeat(SQL_BYTES_MAX + 1)), None);
    }

    proptest! {
        #[test]
        fn statements_with_one_template_differ_in_literals_only(sql in "[a-z0-9'\". =()-]{0,40}") {
            if let Some(template) = Template::of(&sql) {
                let mut rebuilt = String::new();
                let mut literals = template.literals.iter();
                for char in template.text.chars() {
                    match char {
                        INTEGER | STRING => rebuilt += &literals.next().unwrap().source(),
                        other => rebuilt.push(other),
                    }
                }
                prop_assert_eq!(literals.next(), None);
                prop_assert_eq!(rebuilt, sql);
            }
        }

        #[test]
        fn any_text_is_fine(sql in "\\PC{0,60}") {
            let _ = Template::of(&sql);
        }
    }
}
