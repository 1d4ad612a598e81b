//! Where in a statement an error is.

use duckherder_proto::RemoteError;
use unicode_width::UnicodeWidthStr;

/// Characters of the line before and behind the place.
const CONTEXT_CHARS: usize = 60;

/// The error as DuckDB's command line writes it: with the line that it is about, and a mark below.
pub fn in_statement(error: &RemoteError, sql: &str) -> String {
    let position = error
        .extra_info
        .get("position")
        .and_then(|position| position.parse().ok());
    let Some((number, line, place)) = position.and_then(|position| line_at(sql, position)) else {
        return error.to_string();
    };
    if error.message.contains("\nLINE ") {
        return error.to_string();
    }
    let skipped = line[..place].chars().count().saturating_sub(CONTEXT_CHARS);
    let start = line.char_indices().nth(skipped).map_or(0, |(index, _)| index);
    let behind = line[place..].char_indices().nth(CONTEXT_CHARS);
    let end = behind.map_or(line.len(), |(index, _)| place + index);
    let dots = |cut: bool| if cut { "..." } else { "" };
    let head = format!("LINE {number}: {}", dots(start > 0));
    let mark = " ".repeat(head.width() + line[start..place].width());
    let shown: String = line[start..end]
        .chars()
        .map(|character| if character.is_control() { ' ' } else { character })
        .collect();
    format!("{error}\n\n{head}{shown}{}\n{mark}^", dots(end < line.len()))
}

/// The line that a byte of the text is in, its number, and the byte's place in it.
fn line_at(sql: &str, position: usize) -> Option<(usize, &str, usize)> {
    if position >= sql.len() || !sql.is_char_boundary(position) {
        return None;
    }
    let start = sql[..position].rfind('\n').map_or(0, |newline| newline + 1);
    let line = sql[start..].lines().next()?;
    (position - start <= line.len()).then(|| (sql[..start].matches('\n').count() + 1, line, position - start))
}

#[cfg(test)]
mod tests {
    use duckherder_proto::ExceptionType;

    use super::*;

    fn marked(sql: &str, position: &str) -> String {
        let mut error = RemoteError::new(ExceptionType::Binder, "no x");
        error.extra_info.insert("position".to_owned(), position.to_owned());
        in_statement(&error, sql)
    }

    #[test]
    fn the_place_is_marked() {
        assert_eq!(
            marked("SELECT\n  'ö', x", "15"),
            "Binder Error: no x\n\nLINE 2:   'ö', x\n               ^"
        );
        let long = format!("SELECT {}x{}", "1, ".repeat(100), ", 2".repeat(100));
        let text = marked(&long, "307");
        let mut lines = text.lines().skip(2);
        let (line, mark) = (lines.next().unwrap(), lines.next().unwrap());
        assert_eq!(line.chars().nth(mark.len() - 1), Some('x'), "{text}");
        assert!(line.len() < 150 && line.ends_with("..."), "{text}");
    }

    #[test]
    fn places_that_are_not_there_are_left_out() {
        for position in ["99", "-1", "x", "1"] {
            assert_eq!(marked("öx", position), "Binder Error: no x", "{position}");
        }
    }
}
