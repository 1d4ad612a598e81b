//! Commands to the terminal itself: they begin with a backslash, and end with their line.

use clap::ValueEnum;

use super::output::Format;

/// What `\?` prints.
pub const HELP: &str = "\
Statements end with a semicolon. Ctrl-C stops a running one, or empties the prompt.

  \\d             tables and views
  \\d NAME        the columns of a table or view
  \\format [F]    how results are printed: box, csv, json or arrow
  \\rows [N]      how many rows a box shows at most
  \\timing [on|off]
                 whether to print how long statements take
  \\o [FILE]      results go to a file; without one, to the screen again
  \\? or \\h       this help
  \\q             the end; so does Ctrl-D
";

/// Lists tables and views.
const TABLES_SQL: &str = "\
    SELECT database_name AS \"database\", schema_name AS \"schema\", name, type, rows FROM (\
        SELECT database_name, schema_name, table_name AS name, \
            CASE WHEN temporary THEN 'temporary table' ELSE 'table' END AS type, estimated_size AS rows \
        FROM duckdb_tables() WHERE NOT internal \
        UNION ALL \
        SELECT database_name, schema_name, view_name, 'view', NULL FROM duckdb_views() WHERE NOT internal\
    ) ORDER BY ALL";

/// A command.
#[derive(Debug, PartialEq, Eq)]
pub enum Command {
    /// Run this statement.
    Run(String),
    /// Print results so, or say how.
    Format(Option<Format>),
    /// Show so many rows, or say how many.
    Rows(Option<usize>),
    /// Print times, or not; without either, the other way round.
    Timing(Option<bool>),
    /// Print results to a file, or to the screen.
    Output(Option<String>),
    /// Print [`HELP`].
    Help,
    /// The end.
    Quit,
}

impl Command {
    /// Whether a line is one.
    pub fn is_one(line: &str) -> bool {
        line.trim_start().starts_with('\\')
    }

    /// Reads a line.
    ///
    /// # Errors
    /// What is wrong with it, for people.
    pub fn parse(line: &str) -> Result<Self, String> {
        let line = line.trim().trim_end_matches(';').trim_end();
        let (name, argument) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        let argument = Some(argument.trim()).filter(|argument| !argument.is_empty());
        match (name, argument) {
            ("\\q", None) => Ok(Self::Quit),
            ("\\?" | "\\h", None) => Ok(Self::Help),
            ("\\d", None) => Ok(Self::Run(TABLES_SQL.to_owned())),
            ("\\d", Some(table)) => Ok(Self::Run(format!("DESCRIBE {table}"))),
            ("\\timing", None) => Ok(Self::Timing(None)),
            ("\\timing", Some("on")) => Ok(Self::Timing(Some(true))),
            ("\\timing", Some("off")) => Ok(Self::Timing(Some(false))),
            ("\\timing", Some(_)) => Err("\\timing is on or off".to_owned()),
            ("\\format", None) => Ok(Self::Format(None)),
            ("\\format", Some(format)) => Format::from_str(format, true)
                .map(|format| Self::Format(Some(format)))
                .map_err(|_| format!("'{format}' is no format: box, csv, json, arrow are")),
            ("\\rows", None) => Ok(Self::Rows(None)),
            ("\\rows", Some(rows)) => match rows.parse() {
                Ok(rows) if rows >= 2 => Ok(Self::Rows(Some(rows))),
                _ => Err("\\rows wants a number, 2 or more".to_owned()),
            },
            ("\\o", path) => Ok(Self::Output(path.map(str::to_owned))),
            _ => Err(format!("there is no command '{line}'; \\? lists those that there are")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_read() {
        assert_eq!(Command::parse(" \\q "), Ok(Command::Quit));
        assert_eq!(Command::parse("\\format JSON"), Ok(Command::Format(Some(Format::Json))));
        assert_eq!(Command::parse("\\d s.t;"), Ok(Command::Run("DESCRIBE s.t".to_owned())));
        assert_eq!(Command::parse("\\timing on"), Ok(Command::Timing(Some(true))));
        assert_eq!(
            Command::parse("\\o a b.csv"),
            Ok(Command::Output(Some("a b.csv".to_owned())))
        );
        for wrong in [
            "\\",
            "\\x",
            "\\format xml",
            "\\rows 1",
            "\\rows many",
            "\\timing maybe",
            "\\q now",
        ] {
            assert!(Command::parse(wrong).is_err(), "{wrong}");
        }
    }
}
