//! Results as boxes, in the looks of DuckDB's command line.

use std::fmt::Write as _;

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// Columns are not made narrower than that; then some are left out.
const COLUMN_WIDTH_MIN: usize = 8;

/// Characters of a value, however wide the screen is.
const VALUE_CHARS_MAX: usize = 1000;

/// What stands for rows, columns and ends of texts that are left out.
const DOTS: &str = "·";
const ELLIPSIS: &str = "…";

/// A result, or its head and tail.
pub struct Table {
    /// Name and DuckDB type of each column.
    pub columns: Vec<(String, String)>,
    /// The rows to show; `None` is NULL.
    pub rows: Vec<Vec<Option<String>>>,
    /// How many of `rows` come before the gap, if there is one.
    pub gap: Option<usize>,
    /// How many rows there are.
    pub rows_total: u64,
}

struct Column {
    name: String,
    type_name: String,
    right: bool,
    width: usize,
    texts: Vec<String>,
}

impl Table {
    /// Draws it, no wider than `width` if that is possible.
    pub fn draw(self, width: Option<usize>) -> String {
        let columns_total = self.columns.len();
        let rows_shown = self.rows.len();
        let mut columns: Vec<Column> = self
            .columns
            .iter()
            .enumerate()
            .map(|(index, (name, type_text))| Column::new(name, type_text, self.rows.iter().map(|row| &row[index])))
            .collect();
        let hidden = width.map_or(0, |width| fit(&mut columns, width));

        let mut text = String::new();
        rule(&mut text, &columns, ['┌', '┬', '┐']);
        line(&mut text, &columns, |column| centred(&column.name, column.width));
        line(&mut text, &columns, |column| centred(&column.type_name, column.width));
        rule(
            &mut text,
            &columns,
            if rows_shown == 0 {
                ['├', '┴', '┤']
            } else {
                ['├', '┼', '┤']
            },
        );
        for row in 0..rows_shown {
            if self.gap == Some(row) {
                for _ in 0..3 {
                    line(&mut text, &columns, |column| aligned(DOTS, column));
                }
            }
            line(&mut text, &columns, |column| aligned(&column.texts[row], column));
        }
        if rows_shown == 0 {
            let inner = columns
                .iter()
                .map(|column| column.width + 3)
                .sum::<usize>()
                .saturating_sub(1);
            let _ = writeln!(text, "│{}│", centred("0 rows", inner));
            let bar = "─".repeat(inner);
            let _ = writeln!(text, "└{bar}┘");
        } else {
            rule(&mut text, &columns, ['└', '┴', '┘']);
        }
        self.footer(&mut text, rows_shown, columns_total, hidden);
        text
    }

    /// Counts, where the box does not show them at a glance.
    fn footer(&self, text: &mut String, rows_shown: usize, columns_total: usize, hidden: usize) {
        let mut parts = Vec::new();
        if self.gap.is_some() {
            parts.push(format!("{} rows ({rows_shown} shown)", self.rows_total));
        } else if self.rows_total >= 10 {
            parts.push(format!("{} rows", self.rows_total));
        }
        if hidden > 0 {
            parts.push(format!("{columns_total} columns ({} shown)", columns_total - hidden));
        }
        if !parts.is_empty() {
            let _ = writeln!(text, "  {}", parts.join("   "));
        }
    }
}

impl Column {
    fn new<'a>(name: &str, type_text: &str, values: impl Iterator<Item = &'a Option<String>>) -> Self {
        let name = printable(name);
        let type_name = printable(&type_name(type_text));
        let texts: Vec<String> = values
            .map(|value| value.as_deref().map_or_else(|| "NULL".to_owned(), printable))
            .collect();
        let widest = texts.iter().map(|text| text.width()).max().unwrap_or(0);
        Self {
            width: widest.max(name.width()).max(type_name.width()),
            right: is_number(type_text),
            name,
            type_name,
            texts,
        }
    }

    fn omission(rows: usize) -> Self {
        Self {
            name: ELLIPSIS.to_owned(),
            type_name: String::new(),
            right: false,
            width: 1,
            texts: vec![ELLIPSIS.to_owned(); rows],
        }
    }

    fn narrow(&mut self, width: usize) {
        if self.width > width {
            self.width = width;
            shorten(&mut self.name, width);
            shorten(&mut self.type_name, width);
            self.texts.iter_mut().for_each(|text| shorten(text, width));
        }
    }
}

/// Makes the columns fit, the widest narrower first; returns how many in the middle had to go.
fn fit(columns: &mut Vec<Column>, width: usize) -> usize {
    let rows = columns.first().map_or(0, |column| column.texts.len());
    let count = columns.len();
    // Each column costs two blanks and a bar, and there is one bar more.
    let drawn = |columns: &[Column], width_max: usize| {
        columns
            .iter()
            .map(|column| column.width.min(width_max) + 3)
            .sum::<usize>()
            + 1
    };
    let mut hidden = 0;
    if drawn(columns, COLUMN_WIDTH_MIN) > width {
        while columns.len() > 2 && drawn(columns, COLUMN_WIDTH_MIN) + 4 > width {
            columns.remove(columns.len() / 2);
        }
        hidden = count - columns.len();
        if hidden > 0 {
            columns.insert(columns.len() / 2, Column::omission(rows));
        }
    }
    let widest = columns.iter().map(|column| column.width).max().unwrap_or(0);
    // The largest width that lets all of them fit; the function is monotone.
    let (mut fits, mut too_wide) = (COLUMN_WIDTH_MIN, widest + 1);
    while fits + 1 < too_wide {
        let middle = fits.midpoint(too_wide);
        if drawn(columns, middle) <= width {
            fits = middle;
        } else {
            too_wide = middle;
        }
    }
    columns.iter_mut().for_each(|column| column.narrow(fits));
    hidden
}

fn rule(text: &mut String, columns: &[Column], [left, middle, right]: [char; 3]) {
    text.push(left);
    for (index, column) in columns.iter().enumerate() {
        if index > 0 {
            text.push(middle);
        }
        text.extend(std::iter::repeat_n('─', column.width + 2));
    }
    text.push(right);
    text.push('\n');
}

fn line(text: &mut String, columns: &[Column], cell: impl Fn(&Column) -> String) {
    text.push('│');
    for column in columns {
        let _ = write!(text, " {} │", cell(column));
    }
    text.push('\n');
}

fn aligned(text: &str, column: &Column) -> String {
    let padding = " ".repeat(column.width.saturating_sub(text.width()));
    if text == DOTS {
        centred(text, column.width)
    } else if column.right {
        format!("{padding}{text}")
    } else {
        format!("{text}{padding}")
    }
}

fn centred(text: &str, width: usize) -> String {
    let padding = width.saturating_sub(text.width());
    let left = padding / 2;
    format!("{}{text}{}", " ".repeat(left), " ".repeat(padding - left))
}

fn shorten(text: &mut String, width: usize) {
    if text.width() <= width {
        return;
    }
    let mut used = ELLIPSIS.width();
    let end = text.char_indices().find(|(_, character)| {
        used += character.width().unwrap_or(0);
        used > width
    });
    if let Some((end, _)) = end {
        text.truncate(end);
    }
    text.push_str(ELLIPSIS);
}

/// The text on one line, without anything that a terminal would obey.
fn printable(text: &str) -> String {
    let mut printable = String::with_capacity(text.len());
    for (count, character) in text.chars().enumerate() {
        if count == VALUE_CHARS_MAX {
            printable.push_str(ELLIPSIS);
            break;
        }
        match character {
            '\n' => printable.push_str("\\n"),
            '\r' => printable.push_str("\\r"),
            '\t' => printable.push_str("\\t"),
            // Control characters, and those that turn the direction of writing.
            _ if character.is_control() || matches!(character, '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{2069}') => {
                let _ = write!(printable, "\\u{{{:X}}}", u32::from(character));
            }
            _ => printable.push(character),
        }
    }
    printable
}

/// The type as DuckDB's boxes name it.
fn type_name(type_text: &str) -> String {
    let base = type_text.trim_end_matches("[]");
    let lists = &type_text[base.len()..];
    let name = match base {
        "TINYINT" => "int8",
        "SMALLINT" => "int16",
        "INTEGER" => "int32",
        "BIGINT" => "int64",
        "HUGEINT" => "int128",
        "UTINYINT" => "uint8",
        "USMALLINT" => "uint16",
        "UINTEGER" => "uint32",
        "UBIGINT" => "uint64",
        "UHUGEINT" => "uint128",
        _ => return lower_outside_quotes(type_text),
    };
    format!("{name}{lists}")
}

fn lower_outside_quotes(text: &str) -> String {
    let mut quote = None;
    text.chars()
        .map(|character| {
            match quote {
                Some(open) if open == character => quote = None,
                None if matches!(character, '"' | '\'') => quote = Some(character),
                _ => {}
            }
            if quote.is_some() {
                character
            } else {
                character.to_ascii_lowercase()
            }
        })
        .collect()
}

fn is_number(type_text: &str) -> bool {
    let is_decimal = type_text.starts_with("DECIMAL(") && type_text.ends_with(')');
    is_decimal
        || matches!(
            type_text,
            "TINYINT"
                | "SMALLINT"
                | "INTEGER"
                | "BIGINT"
                | "HUGEINT"
                | "UTINYINT"
                | "USMALLINT"
                | "UINTEGER"
                | "UBIGINT"
                | "UHUGEINT"
                | "FLOAT"
                | "DOUBLE"
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(columns: &[(&str, &str)], rows: &[&[Option<&str>]]) -> Table {
        Table {
            columns: columns
                .iter()
                .map(|(name, kind)| ((*name).to_owned(), (*kind).to_owned()))
                .collect(),
            rows: rows
                .iter()
                .map(|row| row.iter().map(|value| value.map(str::to_owned)).collect())
                .collect(),
            gap: None,
            rows_total: rows.len() as u64,
        }
    }

    #[test]
    fn numbers_are_on_the_right_and_texts_on_the_left() {
        let drawn = table(
            &[("id", "INTEGER"), ("name", "VARCHAR")],
            &[&[Some("1"), Some("bread")], &[None, Some("größe")]],
        )
        .draw(None);
        let expected = "\
┌───────┬─────────┐
│  id   │  name   │
│ int32 │ varchar │
├───────┼─────────┤
│     1 │ bread   │
│  NULL │ größe   │
└───────┴─────────┘
";
        assert_eq!(drawn, expected);
    }

    #[test]
    fn rows_that_are_left_out_are_counted() {
        let mut table = table(&[("i", "BIGINT[]")], &[&[Some("[1]")], &[Some("[9]")]]);
        table.gap = Some(1);
        table.rows_total = 9;
        let drawn = table.draw(None);
        assert!(drawn.contains("│ int64[] │\n"), "{drawn}");
        assert_eq!(drawn.matches("│    ·    │\n").count(), 3, "{drawn}");
        assert!(drawn.ends_with("  9 rows (2 shown)\n"), "{drawn}");
    }

    #[test]
    fn nothing_is_wider_than_the_screen() {
        let long = "x".repeat(300);
        let columns: Vec<(String, &str)> = (0..40).map(|index| (format!("column{index}"), "VARCHAR")).collect();
        let columns: Vec<(&str, &str)> = columns.iter().map(|(name, kind)| (name.as_str(), *kind)).collect();
        let row = vec![Some(long.as_str()); 40];
        for (count, width) in [(1, 20), (3, 60), (3, 500), (40, 80), (40, 200), (0, 80)] {
            let drawn = table(&columns[..count], &[&row[..count]]).draw(Some(width));
            let widest = drawn.lines().map(UnicodeWidthStr::width).max().unwrap();
            assert!(widest <= width, "{count} columns, {width} wide: {widest}\n{drawn}");
            assert_eq!(drawn.contains("40 columns ("), count == 40, "{drawn}");
        }
    }

    #[test]
    fn values_cannot_command_the_terminal() {
        let drawn = table(
            &[("a\u{1b}[2J", "VARCHAR")],
            &[&[Some("\u{1b}]0;x\u{7}\r\n\u{202E}\u{9b}")]],
        )
        .draw(None);
        assert!(
            drawn
                .chars()
                .all(|character| character == '\n' || !character.is_control()),
            "{drawn:?}"
        );
        assert!(drawn.contains("\\u{1B}]0;x\\u{7}\\r\\n\\u{202E}\\u{9B}"), "{drawn}");
        assert!(
            table(&[("a", "VARCHAR")], &[&[Some(&"y".repeat(5000))]])
                .draw(None)
                .len()
                < 20_000
        );
    }

    #[test]
    fn wide_characters_take_two_places() {
        let mut text = "鸭子鸭子".to_owned();
        shorten(&mut text, 6);
        assert_eq!(text, "鸭子…");
        assert_eq!(lower_outside_quotes("ENUM('Ab', 'c')[]"), "enum('Ab', 'c')[]");
    }
}
