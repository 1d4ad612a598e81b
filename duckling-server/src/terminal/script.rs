//! Statements out of a text that arrives line by line.

use std::io::{self, BufRead};

use duckherder_proto::RemoteError;

use super::command::Command;
use super::text::Splitter;

/// Bytes of one statement.
const STATEMENT_BYTES_MAX: usize = 64 << 20;

/// Why a script could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ScriptError {
    /// The file, or the other end of the pipe.
    #[error("cannot read the script: {0}")]
    Read(#[from] io::Error),
    /// Something that never ends.
    #[error("a statement is longer than {STATEMENT_BYTES_MAX} bytes")]
    TooLong,
    /// DuckDB's tokenizer.
    #[error(transparent)]
    Split(#[from] RemoteError),
}

/// A part of a script.
#[derive(Debug, PartialEq, Eq)]
pub enum Part {
    /// One SQL statement.
    Statement(String),
    /// A line for the terminal itself.
    Command(String),
}

/// Reads a script, and no further than the statement it has come to.
pub struct Script<R> {
    input: R,
    splitter: Splitter,
    /// What was read and not given out.
    pending: String,
    /// Statements that are whole, the next one last.
    ready: Vec<String>,
    ended: bool,
}

impl<R: BufRead> Script<R> {
    /// The script in `input`.
    pub fn new(input: R, splitter: Splitter) -> Self {
        Self {
            input,
            splitter,
            pending: String::new(),
            ready: Vec::new(),
            ended: false,
        }
    }

    /// The next part; the last statement needs no semicolon.
    pub fn next_part(&mut self) -> Result<Option<Part>, ScriptError> {
        loop {
            if let Some(statement) = self.ready.pop() {
                return Ok(Some(Part::Statement(statement)));
            }
            if self.ended {
                return Ok(None);
            }
            let start = self.pending.len();
            let limit = (STATEMENT_BYTES_MAX - start) as u64;
            if io::Read::take(&mut self.input, limit).read_line(&mut self.pending)? == 0 {
                if limit == 0 {
                    return Err(ScriptError::TooLong);
                }
                self.ended = true;
            }
            if Command::is_one(&self.pending[start..]) && self.splitter.split(&self.pending[..start])?.is_complete() {
                let line = self.pending.split_off(start);
                self.pending.clear();
                return Ok(Some(Part::Command(line)));
            }
            // Without a new semicolon there is no new end, and looking for one would read all of it once more.
            if self.ended || self.pending[start..].contains(';') {
                self.split()?;
            }
        }
    }

    fn split(&mut self) -> Result<(), ScriptError> {
        let split = self.splitter.split(&self.pending)?;
        let text = |range: std::ops::Range<usize>| self.pending[range].trim().to_owned();
        let consumed = split.statements.last().map_or(0, |last| last.end);
        self.ready = split.statements.into_iter().map(text).collect();
        if self.ended {
            self.ready.extend(split.rest.map(text));
        }
        self.ready.reverse();
        self.pending.drain(..consumed);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::terminal::text::TextDatabase;

    fn parts(text: &str) -> Vec<Part> {
        let splitter = TextDatabase::open().unwrap().splitter().unwrap();
        let mut script = Script::new(text.as_bytes(), splitter);
        std::iter::from_fn(|| script.next_part().unwrap()).collect()
    }

    #[test]
    fn statements_come_one_by_one() {
        let statement = |text: &str| Part::Statement(text.to_owned());
        let text = "SELECT 1; SELECT\n ';\n\\q' -- \\d;\n;\n-- times;\n\\timing on\n\n-- end;\nSELECT 3";
        assert_eq!(
            parts(text),
            [
                statement("SELECT 1;"),
                statement("SELECT\n ';\n\\q' -- \\d;\n;"),
                Part::Command("\\timing on\n".to_owned()),
                statement("-- end;\nSELECT 3"),
            ]
        );
        assert_eq!(parts(" ;;\n-- nothing"), []);
        // What never ends is the server's to refuse.
        assert_eq!(parts("SELECT 'a;\n"), [statement("SELECT 'a;")]);
    }
}
