//! The interactive prompt.

use std::cell::RefCell;
use std::path::PathBuf;

use rustyline::completion::Completer;
use rustyline::error::ReadlineError;
use rustyline::highlight::Highlighter;
use rustyline::hint::Hinter;
use rustyline::history::FileHistory;
use rustyline::validate::{ValidationContext, ValidationResult, Validator};
use rustyline::{Config, Editor, Helper};

use super::command::Command;
use super::text::Splitter;

/// Entries of the history file.
const HISTORY_ENTRIES_MAX: usize = 10_000;

/// Names another history file; empty for none.
const HISTORY_VARIABLE: &str = "DUCKLING_HISTORY";
const HISTORY_FILE: &str = ".duckling_history";

/// What was typed.
pub enum Typed {
    /// Whole statements, or a command.
    Text(String),
    /// Ctrl-C: what was there is gone.
    Nothing,
    /// Ctrl-D.
    End,
}

/// Reads what people type.
pub struct Prompt {
    editor: Editor<Ends, FileHistory>,
    history: Option<PathBuf>,
}

impl Prompt {
    /// Opens the terminal and the history. A history that cannot be read is said, and left alone.
    ///
    /// # Errors
    /// There is no terminal to talk to.
    pub fn open(splitter: Splitter) -> rustyline::Result<Self> {
        let config = Config::builder()
            .max_history_size(HISTORY_ENTRIES_MAX)?
            .history_ignore_space(true)
            .build();
        let mut editor = Editor::with_config(config)?;
        editor.set_helper(Some(Ends(RefCell::new(splitter))));
        let mut history = history_path();
        if let Some(path) = history.as_ref().filter(|path| path.exists())
            && let Err(error) = editor.load_history(path)
        {
            super::report(&format!("the history {} is not used: {error}", path.display()));
            history = None;
        }
        Ok(Self { editor, history })
    }

    /// Reads until statements are whole.
    ///
    /// # Errors
    /// The terminal's.
    pub fn read(&mut self, prompt: &str) -> rustyline::Result<Typed> {
        match self.editor.readline(prompt) {
            Ok(text) => {
                self.remember(&text);
                Ok(Typed::Text(text))
            }
            Err(ReadlineError::Interrupted) => Ok(Typed::Nothing),
            Err(ReadlineError::Eof) => Ok(Typed::End),
            Err(error) => Err(error),
        }
    }

    /// At once, so that a program that is killed has lost nothing.
    fn remember(&mut self, text: &str) {
        let added = self.editor.add_history_entry(text.trim_end());
        if let (Ok(true), Some(path)) = (added, &self.history)
            && let Err(error) = self.editor.append_history(path)
        {
            super::report(&format!(
                "the history {} is not written any more: {error}",
                path.display()
            ));
            self.history = None;
        }
    }
}

fn history_path() -> Option<PathBuf> {
    match std::env::var_os(HISTORY_VARIABLE) {
        Some(path) if path.is_empty() => None,
        Some(path) => Some(path.into()),
        None => std::env::home_dir().map(|home| home.join(HISTORY_FILE)),
    }
}

/// Says whether Enter ends the input.
struct Ends(RefCell<Splitter>);

impl Validator for Ends {
    fn validate(&self, context: &mut ValidationContext) -> rustyline::Result<ValidationResult> {
        let text = context.input();
        let is_whole = Command::is_one(text)
            // What cannot be split is for the server to refuse.
            || self.0.borrow_mut().split(text).is_ok_and(|split| split.is_complete());
        Ok(if is_whole {
            ValidationResult::Valid(None)
        } else {
            ValidationResult::Incomplete
        })
    }
}

impl Helper for Ends {}
impl Highlighter for Ends {}
impl Hinter for Ends {
    type Hint = String;
}
impl Completer for Ends {
    type Candidate = String;
}
