//! Where statements end, without parsing them.

use std::ops::Range;
use std::ptr;

use duckherder_proto::RemoteError;
use libduckdb_sys::v2 as ffi;

use super::connection::Connection;
use super::error::check;
use super::view;

use ffi::DUCKDB_V2_TOKEN_TYPE as Type;

/// The statements in a text that may still grow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Split {
    /// The bytes of each statement that has its `;`, which is included. Empty ones are left out.
    pub statements: Vec<Range<usize>>,
    /// The bytes behind the last `;`, if there is more than blanks and comments.
    pub rest: Option<Range<usize>>,
    /// The text ends inside a string, a quoted name or a comment.
    pub is_open: bool,
}

impl Split {
    /// Whether nothing but whole statements has been typed.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.rest.is_none() && !self.is_open
    }
}

struct Tokens(ffi::duckdb_v2_token_iterator_handle);

impl Drop for Tokens {
    fn drop(&mut self) {
        // SAFETY: the handle came from `tokenize_sql` and is destroyed only here.
        unsafe { ffi::duckdb_v2_token_iterator_destroy(&raw mut self.0) };
    }
}

impl Connection {
    /// Splits a text at the semicolons that end statements, as DuckDB's own tokenizer sees it. Malformed text is no error.
    ///
    /// # Errors
    /// DuckDB's, if it is out of memory.
    pub fn split(&mut self, sql: &str) -> Result<Split, RemoteError> {
        // To DuckDB, a comment at the end of a text is open until its line ends.
        let text = format!("{sql}\n");
        let text = view(&text);
        let mut tokens = Tokens(ptr::null_mut());
        // SAFETY: the connection is live; the text is borrowed for the call.
        check(|error| unsafe { ffi::duckdb_v2_tokenize_sql(self.raw(), &raw const text, &raw mut tokens.0, error) })?;
        let mut split = Split {
            statements: Vec::new(),
            rest: None,
            is_open: false,
        };
        // SAFETY: the iterator is live.
        check(|error| unsafe {
            ffi::duckdb_v2_token_iterator_ends_unterminated(tokens.0, &raw mut split.is_open, error)
        })?;
        let mut start = 0;
        let mut has_tokens = false;
        loop {
            let (mut kind, mut token_start, mut token_bytes) = (Type::DUCKDB_V2_TOKEN_TYPE_INVALID, 0, 0);
            check(|error| {
                // SAFETY: the iterator is live.
                unsafe {
                    ffi::duckdb_v2_token_iterator_next(
                        tokens.0,
                        &raw mut kind,
                        &raw mut token_start,
                        &raw mut token_bytes,
                        error,
                    )
                }
            })?;
            match kind {
                Type::DUCKDB_V2_TOKEN_TYPE_END_OF_INPUT => break,
                Type::DUCKDB_V2_TOKEN_TYPE_TERMINATOR => {
                    let end = (token_start + token_bytes) as usize;
                    if has_tokens {
                        split.statements.push(start..end);
                    }
                    start = end;
                    has_tokens = false;
                }
                Type::DUCKDB_V2_TOKEN_TYPE_COMMENT => {}
                _ => has_tokens = true,
            }
        }
        split.rest = has_tokens.then_some(start..sql.len());
        Ok(split)
    }
}

#[cfg(test)]
mod tests {
    use crate::config::IN_MEMORY;
    use crate::duckdb::{Database, DatabaseOptions};

    fn split(sql: &str) -> (Vec<&str>, Option<&str>, bool) {
        let database = Database::open(IN_MEMORY, &DatabaseOptions::default()).unwrap();
        let split = database.connect().unwrap().split(sql).unwrap();
        let statements = split.statements.iter().map(|range| sql[range.clone()].trim()).collect();
        (statements, split.rest.map(|range| sql[range].trim()), split.is_open)
    }

    #[test]
    fn semicolons_in_quotes_and_comments_end_nothing() {
        assert_eq!(
            split("SELECT ';'; SELECT 2"),
            (vec!["SELECT ';';"], Some("SELECT 2"), false)
        );
        assert_eq!(
            split("SELECT \";\" /* ; */ -- ;\n;"),
            (vec!["SELECT \";\" /* ; */ -- ;\n;"], None, false)
        );
        assert_eq!(split("SELECT $a$ ; $b$ ; $a$;").0.len(), 1);
        assert_eq!(split("SELECT e'\\';';").0.len(), 1);
    }

    #[test]
    fn open_texts_are_told_from_whole_ones() {
        for open in [
            "SELECT 'a;",
            "SELECT \"a;",
            "SELECT 1 /* ;",
            "SELECT $$;",
            "SELECT $x$ $$;",
            "/* ;",
        ] {
            let (statements, _, is_open) = split(open);
            assert!(is_open && statements.is_empty(), "{open}");
        }
        assert_eq!(split("SELECT 1; -- done"), (vec!["SELECT 1;"], None, false));
        assert_eq!(split(" ; ;; -- nothing\n"), (vec![], None, false));
        assert_eq!(split("größe \u{1F986};").0, ["größe \u{1F986};"]);
    }
}
