//! What is printed of a result, in which format.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::io::{self, Write};

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, SchemaRef};
use arrow::error::ArrowError;
use arrow::ipc::writer::StreamWriter;
use clap::ValueEnum;
use duckherder_client::ResultKind;
use duckherder_proto::types::type_text;
use duckherder_proto::{ExceptionType, RemoteError};

use super::engine::Summary;
use super::table::Table;
use super::text::{Style, TextDatabase, Texts};

/// How results are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// A box for people: head and tail of the rows
    Box,
    /// Comma-separated values with a header; NULL is nothing, an empty text is ""
    Csv,
    /// An array of objects
    Json,
    /// An Arrow IPC stream
    Arrow,
}

/// Why a result could not be printed.
#[derive(Debug, thiserror::Error)]
pub enum PrintError {
    /// Values that do not become texts.
    #[error(transparent)]
    Values(#[from] RemoteError),
    /// Where it should go.
    #[error("cannot write the result: {0}")]
    Write(#[from] io::Error),
}

impl From<ArrowError> for PrintError {
    fn from(error: ArrowError) -> Self {
        match error {
            ArrowError::IoError(_, source) => Self::Write(source),
            other => Self::Values(RemoteError::new(
                ExceptionType::Serialization,
                format!("writing Arrow: {other}"),
            )),
        }
    }
}

/// Prints one result.
///
/// All formats but the box print rows as they come. Nothing is printed of statements that give no rows back.
pub struct Printer<'a> {
    format: Format,
    schema: SchemaRef,
    text: &'a mut TextDatabase,
    out: &'a mut dyn Write,
    sample: Sample,
    /// The columns have been printed.
    begun: bool,
    rows: u64,
    /// A row that may be a count of changed rows, which only the end of the result will tell.
    held: Option<RecordBatch>,
    /// Made with the first rows.
    arrow: Option<StreamWriter<Vec<u8>>>,
}

impl<'a> Printer<'a> {
    /// For a result with those columns. `rows_max` is for boxes.
    pub fn new(
        format: Format,
        schema: SchemaRef,
        rows_max: usize,
        text: &'a mut TextDatabase,
        out: &'a mut dyn Write,
    ) -> Result<Self, PrintError> {
        if format != Format::Arrow {
            text.begin(&schema)?;
        }
        Ok(Self {
            format,
            schema,
            text,
            out,
            sample: Sample::new(rows_max),
            begun: false,
            rows: 0,
            held: None,
            arrow: None,
        })
    }

    /// Takes rows; prints those it has to.
    pub fn rows(&mut self, batch: RecordBatch) -> Result<(), PrintError> {
        self.rows += batch.num_rows() as u64;
        if self.format == Format::Box {
            self.sample.take(batch);
            return Ok(());
        }
        if self.rows == 1 && looks_like_a_count(&self.schema) {
            self.held = Some(batch);
            return Ok(());
        }
        if let Some(held) = self.held.take() {
            self.print(&held)?;
        }
        self.print(&batch)
    }

    /// Prints what is left, when all rows have come. `width` is the screen's.
    pub fn finish(mut self, summary: Summary, width: Option<usize>) -> Result<(), PrintError> {
        if summary.kind != ResultKind::Rows {
            if let (Format::Box, Some(rows)) = (self.format, summary.rows_changed) {
                writeln!(self.out, "{rows} row{} changed", if rows == 1 { "" } else { "s" })?;
            }
            return Ok(self.out.flush()?);
        }
        if let Some(held) = self.held.take() {
            self.print(&held)?;
        }
        match self.format {
            Format::Box => self.finish_box(width)?,
            _ => {
                self.begin()?;
                self.end()?;
            }
        }
        Ok(self.out.flush()?)
    }

    /// Prints what comes before the first row, once.
    fn begin(&mut self) -> Result<(), PrintError> {
        if self.begun {
            return Ok(());
        }
        self.begun = true;
        match self.format {
            Format::Box => {}
            Format::Csv => {
                let names = self.schema.fields().iter().map(|field| Some(field.name().as_str()));
                write_csv(self.out, names)?;
            }
            Format::Json => self.out.write_all(b"[")?,
            Format::Arrow => self.arrow = Some(StreamWriter::try_new(Vec::new(), &self.schema)?),
        }
        Ok(())
    }

    fn print(&mut self, batch: &RecordBatch) -> Result<(), PrintError> {
        let is_first = !self.begun;
        self.begin()?;
        match self.format {
            Format::Box => {}
            Format::Csv => {
                for texts in self.text.write(std::slice::from_ref(batch), Style::Text)? {
                    (0..texts.rows()).try_for_each(|row| write_csv(self.out, texts.row(row)))?;
                }
            }
            Format::Json => {
                let names: Vec<String> = self
                    .schema
                    .fields()
                    .iter()
                    .map(|field| serde_json::Value::from(field.name().as_str()).to_string())
                    .collect();
                let mut separator: &[u8] = if is_first { b"" } else { b",\n" };
                for texts in self.text.write(std::slice::from_ref(batch), Style::Json)? {
                    for row in 0..texts.rows() {
                        self.out.write_all(separator)?;
                        write_json(self.out, &names, texts.row(row))?;
                        separator = b",\n";
                    }
                }
            }
            Format::Arrow => {
                if let Some(writer) = &mut self.arrow {
                    writer.write(batch)?;
                    let bytes = std::mem::take(writer.get_mut());
                    self.out.write_all(&bytes)?;
                }
            }
        }
        Ok(self.out.flush()?)
    }

    fn end(&mut self) -> Result<(), PrintError> {
        match self.format {
            Format::Box | Format::Csv => {}
            Format::Json => self.out.write_all(b"]\n")?,
            Format::Arrow => {
                if let Some(mut writer) = self.arrow.take() {
                    writer.finish()?;
                    self.out.write_all(writer.get_ref())?;
                }
            }
        }
        Ok(())
    }

    fn finish_box(&mut self, width: Option<usize>) -> Result<(), PrintError> {
        let is_plan = self
            .schema
            .fields()
            .iter()
            .map(|field| field.name().as_str())
            .eq(["explain_key", "explain_value"]);
        let (batches, gap) = std::mem::take(&mut self.sample).shown();
        let texts = self.text.write(&batches, Style::Text)?;
        let rows: Vec<Vec<Option<String>>> = texts.iter().flat_map(owned_rows).collect();
        if is_plan {
            for plan in rows.iter().filter_map(|row| row.last()).flatten() {
                writeln!(self.out, "{}", plan.trim_end_matches('\n'))?;
            }
            return Ok(());
        }
        let columns = self
            .schema
            .fields()
            .iter()
            .map(|field| (field.name().clone(), type_text(field).unwrap_or_default().to_owned()))
            .collect();
        let table = Table {
            columns,
            rows,
            gap,
            rows_total: self.rows,
        };
        self.out.write_all(table.draw(width).as_bytes())?;
        Ok(())
    }
}

fn owned_rows(texts: &Texts) -> impl Iterator<Item = Vec<Option<String>>> {
    (0..texts.rows()).map(|row| texts.row(row).map(|text| text.map(str::to_owned)).collect())
}

/// INSERT and its like give back one row with one number, and say only at the end that it is no row of a query.
fn looks_like_a_count(schema: &SchemaRef) -> bool {
    let [field] = schema.fields().as_ref() else {
        return false;
    };
    field.name() == "Count" && *field.data_type() == DataType::Int64
}

fn write_csv<'t>(out: &mut dyn Write, texts: impl Iterator<Item = Option<&'t str>>) -> io::Result<()> {
    for (index, text) in texts.enumerate() {
        if index > 0 {
            out.write_all(b",")?;
        }
        let Some(text) = text else { continue };
        let needs_quotes = text.is_empty() || text.contains([',', '"', '\n', '\r']);
        if needs_quotes {
            write!(out, "\"{}\"", text.replace('"', "\"\""))?;
        } else {
            out.write_all(text.as_bytes())?;
        }
    }
    out.write_all(b"\n")
}

fn write_json<'t>(
    out: &mut dyn Write,
    names: &[String],
    values: impl Iterator<Item = Option<&'t str>>,
) -> io::Result<()> {
    for (index, (name, value)) in names.iter().zip(values).enumerate() {
        let open = if index == 0 { '{' } else { ',' };
        write!(out, "{open}{name}:{}", finite(value.unwrap_or("null")))?;
    }
    out.write_all(if names.is_empty() { b"{}" } else { b"}" })
}

/// DuckDB's JSON with numbers that JSON does not have, such as NaN, as texts. Outside of texts, JSON has no capitals.
fn finite(json: &str) -> Cow<'_, str> {
    if !json.contains(['N', 'I']) {
        return Cow::Borrowed(json);
    }
    let mut finite = String::with_capacity(json.len());
    let (mut in_text, mut escaped) = (false, false);
    let mut rest = json;
    while let Some(character) = rest.chars().next() {
        let number = ["NaN", "Infinity", "-Infinity"]
            .into_iter()
            .find(|name| rest.starts_with(name));
        if let Some(number) = number.filter(|_| !in_text) {
            finite.extend(["\"", number, "\""]);
            rest = &rest[number.len()..];
            continue;
        }
        match character {
            '"' if !escaped => in_text = !in_text,
            _ => {}
        }
        escaped = character == '\\' && !escaped;
        finite.push(character);
        rest = &rest[character.len_utf8()..];
    }
    Cow::Owned(finite)
}

/// The first and the last rows of a result, in bounded memory.
#[derive(Default)]
struct Sample {
    rows_max: usize,
    head: Vec<RecordBatch>,
    head_rows: usize,
    tail: VecDeque<RecordBatch>,
    tail_rows: usize,
    rows: usize,
}

impl Sample {
    fn new(rows_max: usize) -> Self {
        Self {
            rows_max: rows_max.max(2),
            head: Vec::new(),
            head_rows: 0,
            tail: VecDeque::new(),
            tail_rows: 0,
            rows: 0,
        }
    }

    fn tail_rows_max(&self) -> usize {
        self.rows_max / 2
    }

    fn take(&mut self, batch: RecordBatch) {
        self.rows += batch.num_rows();
        let wanted = (self.rows_max - self.head_rows).min(batch.num_rows());
        if wanted > 0 {
            self.head.push(batch.slice(0, wanted));
            self.head_rows += wanted;
        }
        let last = self.tail_rows_max().min(batch.num_rows());
        self.tail.push_back(batch.slice(batch.num_rows() - last, last));
        self.tail_rows += last;
        while let Some(oldest) = self.tail.pop_front() {
            let surplus = self.tail_rows - self.tail_rows_max().min(self.tail_rows);
            if surplus >= oldest.num_rows() {
                self.tail_rows -= oldest.num_rows();
                continue;
            }
            self.tail_rows -= surplus;
            self.tail.push_front(oldest.slice(surplus, oldest.num_rows() - surplus));
            break;
        }
    }

    /// The rows to show, and after how many of them some are missing.
    fn shown(self) -> (Vec<RecordBatch>, Option<usize>) {
        if self.rows <= self.rows_max {
            return (self.head, None);
        }
        let gap = self.rows_max - self.tail_rows_max();
        let mut shown = Vec::new();
        let mut missing = gap;
        for batch in self.head {
            let rows = batch.num_rows().min(missing);
            shown.push(batch.slice(0, rows));
            missing -= rows;
        }
        shown.extend(self.tail);
        (shown, Some(gap))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{AsArray, Int32Array};
    use arrow::datatypes::Int32Type;

    use super::*;

    fn sampled(rows_max: usize, sizes: &[i32]) -> (Vec<i32>, Option<usize>) {
        let mut sample = Sample::new(rows_max);
        let mut first = 0;
        for size in sizes {
            let numbers = Int32Array::from_iter_values(first..first + size);
            sample.take(RecordBatch::try_from_iter([("i", Arc::new(numbers) as _)]).unwrap());
            first += size;
        }
        assert!(sample.tail_rows <= rows_max && sample.head_rows <= rows_max);
        let (batches, gap) = sample.shown();
        let rows = batches
            .iter()
            .flat_map(|batch| batch.column(0).as_primitive::<Int32Type>().values().to_vec())
            .collect();
        (rows, gap)
    }

    #[test]
    fn a_box_shows_head_and_tail() {
        assert_eq!(sampled(4, &[3, 1]), (vec![0, 1, 2, 3], None));
        assert_eq!(sampled(4, &[3, 2]), (vec![0, 1, 3, 4], Some(2)));
        assert_eq!(sampled(4, &[1; 9]), (vec![0, 1, 7, 8], Some(2)));
        assert_eq!(sampled(5, &[1, 100, 1, 1]), (vec![0, 1, 2, 101, 102], Some(3)));
        assert_eq!(sampled(4, &[100]), (vec![0, 1, 98, 99], Some(2)));
        assert_eq!(sampled(40, &[]), (vec![], None));
    }

    #[test]
    fn json_has_no_capitals_outside_of_texts() {
        assert_eq!(finite("[NaN,-Infinity,1]"), "[\"NaN\",\"-Infinity\",1]");
        let texts = r#"{"NaN":"I \"Infinity\\","b":null}"#;
        assert_eq!(finite(texts), texts);
        assert_eq!(finite(r#"{"\\\"NaN":Infinity}"#), r#"{"\\\"NaN":"Infinity"}"#);
    }

    #[test]
    fn csv_tells_null_from_nothing() {
        let mut out = Vec::new();
        let row = [Some("a"), None, Some(""), Some("b,\"c\""), Some("d\ne")];
        write_csv(&mut out, row.into_iter()).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), "a,,\"\",\"b,\"\"c\"\"\",\"d\ne\"\n");
    }
}
