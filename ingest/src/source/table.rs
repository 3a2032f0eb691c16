//! A table of picture paths and captions: CSV or TSV (open_clip's `filepath`, `title`), or JSON lines (`metadata.jsonl` of a
//! Hugging Face ImageFolder).
//!
//! The separator is the one of tab, comma, semicolon and bar that splits the header into most columns. Columns are found by name
//! as in parquet. Paths are read below the table's folder, by [`super::confined`]. One line is held at a time; one that never
//! ends (an open quote) is an error before it fills the memory.

use std::{
    cell::Cell,
    fs::File,
    io::{self, BufRead, BufReader, Read},
    path::Path,
    rc::Rc,
    sync::Arc,
};

use anchorite_index::{SourceRef, Value};
use arrow_schema::{DataType, Field, Schema};
use csv::StringRecord;

use super::{
    Rows, Settings, VectorMode,
    columns::{Columns, ColumnsUsed, Detector, PATH_NAMES},
    confined::{Folder, RelPath},
    json::{self, Object},
};
use crate::{
    Limits, Reject, Row, RowResult, SourceError,
    reject::{RowProblem, code},
};

/// Rows given at once. Pictures are large.
const ROWS_AT_ONCE: usize = 8;
/// Separators, the likeliest first.
const SEPARATORS: [u8; 4] = *b"\t,;|";

/// A table being read.
pub(crate) struct TableRows {
    name: String,
    lines: Lines,
    folder: Folder,
    schema: Schema,
    columns: Columns,
    settings: Arc<Settings>,
    row: u64,
    failed: Option<SourceError>,
    ended: bool,
    position: Rc<Position>,
    file_bytes: u64,
}

enum Lines {
    Csv(Box<csv::Reader<Bounded>>),
    Json { reader: BufReader<Bounded>, first: Option<Vec<u8>> },
}

/// One line's values.
enum Line {
    Csv(StringRecord),
    Json(Object),
}

/// How much was read, and how much one line may still take.
#[derive(Default)]
struct Position {
    read: Cell<u64>,
    allowed: Cell<u64>,
}

/// A file of which one line can only take so much.
struct Bounded {
    file: File,
    position: Rc<Position>,
}

impl Read for Bounded {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Position { read, allowed } = &*self.position;
        let count = self.file.read(buffer)? as u64;
        if count > allowed.get() {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a line is too long; a quote may be open"));
        }
        allowed.set(allowed.get() - count);
        read.set(read.get() + count);
        Ok(count as usize)
    }
}

/// Read at once.
const BUFFER: usize = 1 << 16;

impl TableRows {
    pub(crate) fn open(path: &Path, name: &str, settings: &Arc<Settings>) -> Result<Self, SourceError> {
        let failed = |source| SourceError::Open { path: path.to_owned(), source };
        let file = settings.reach.open(path).map_err(failed)?;
        let info = file.metadata().map_err(failed)?;
        if !info.is_file() {
            return Err(SourceError::Corrupt { file: name.to_owned(), reason: "it is no plain file".to_owned() });
        }
        let position = Rc::new(Position::default());
        allow_a_line(&position, &settings.limits);
        let bounded = Bounded { file, position: Rc::clone(&position) };
        let json = path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("jsonl"));
        let (lines, schema) =
            if json { json_lines(bounded, name)? } else { csv_lines(bounded, settings.reach.head(path, BUFFER as u64), name)? };
        let detector = Detector {
            file: name,
            schema: &schema,
            options: &settings.columns,
            mode: VectorMode::Encode,
            image_names: &PATH_NAMES,
        };
        if let VectorMode::Ready { .. } = settings.mode {
            return Err(detector.no_vectors());
        }
        let columns = detector.detect()?;
        let parent = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let folder = settings.reach.folder(parent).map_err(|source| SourceError::Open { path: parent.to_owned(), source })?;
        let settings = Arc::clone(settings);
        let (name, file_bytes) = (name.to_owned(), info.len());
        Ok(Self { name, lines, folder, schema, columns, settings, row: 0, failed: None, ended: false, position, file_bytes })
    }

    /// The next line; a line that is wrong in itself is a problem of its row.
    fn line(&mut self) -> Result<Option<Result<Line, RowProblem>>, SourceError> {
        allow_a_line(&self.position, &self.settings.limits);
        let invalid = |reason: String| RowProblem::new(code::ROW_INVALID, reason);
        match &mut self.lines {
            Lines::Csv(reader) => {
                let mut record = StringRecord::new();
                match reader.read_record(&mut record) {
                    Ok(false) => Ok(None),
                    Ok(true) if record.len() == self.schema.fields().len() => Ok(Some(Ok(Line::Csv(record)))),
                    Ok(true) => {
                        let (found, expected) = (record.len(), self.schema.fields().len());
                        Ok(Some(Err(invalid(format!("the line has {found} values, the header {expected}")))))
                    }
                    Err(error) if error.is_io_error() => Err(table_error(&self.name, error.into())),
                    Err(error) => Ok(Some(Err(invalid(error.to_string())))),
                }
            }
            Lines::Json { reader, first } => {
                let line = match first.take() {
                    Some(line) => Some(line),
                    None => json_line(reader).map_err(|e| table_error(&self.name, e))?,
                };
                let Some(line) = line else { return Ok(None) };
                Ok(Some(json::object(&line).map(Line::Json).map_err(|e| invalid(format!("the line is no JSON object: {e}")))))
            }
        }
    }

    fn row(&mut self, line: Result<Line, RowProblem>) -> RowResult {
        let source = SourceRef { file: self.name.clone(), row: self.row };
        self.row += 1;
        let row = line.and_then(|line| self.parts(line, source.clone()));
        row.map_err(|problem| Reject::new(source, problem.code, problem.message))
    }

    fn parts(&self, line: Line, source: SourceRef) -> Result<Row, RowProblem> {
        let (columns, limits) = (&self.columns, &self.settings.limits);
        let name = |at: usize| self.schema.field(at).name().as_str();
        let text = |at: usize| match &line {
            Line::Csv(record) => record.get(at).map(str::trim).filter(|text| !text.is_empty()),
            Line::Json(object) => object.get(name(at)).and_then(json::caption),
        };
        let mut row = Row::at(source);
        if let Some(caption) = columns.caption.and_then(text) {
            if caption.len() > limits.max_caption_bytes {
                let message =
                    format!("the caption has {} bytes; at most {} are allowed", caption.len(), limits.max_caption_bytes);
                return Err(RowProblem::new(code::TEXT_TOO_LONG, message));
            }
            row.caption = Some(caption.to_owned());
        }
        if let Some(path) = columns.image.and_then(|(at, _)| text(at)) {
            let path = path.strip_prefix("./").unwrap_or(path);
            row.picture = Some(self.folder.read(&RelPath::parse(path)?, limits.max_picture_bytes)?);
        }
        row.key = columns.key.and_then(|at| match &line {
            Line::Csv(record) => record.get(at).filter(|text| !text.is_empty()).map(str::to_owned),
            Line::Json(object) => object.get(name(at)).and_then(json::key),
        });
        let image = columns.image.map(|(at, _)| at);
        match line {
            Line::Csv(record) => {
                for &at in &columns.fields {
                    let Some(value) = record.get(at).filter(|value| !value.is_empty()) else { continue };
                    let mut value = Value::Text(value.to_owned());
                    row.fields_cut += u64::from(super::cut(&mut value, limits.max_field_bytes));
                    row.fields.insert(name(at).to_owned(), value);
                }
            }
            Line::Json(object) => {
                let taken: Vec<&str> = [image, columns.caption, columns.key].into_iter().flatten().map(name).collect();
                json::fields_into(&mut row, object, &taken, limits);
            }
        }
        Ok(row)
    }
}

impl Rows for TableRows {
    fn next_rows(&mut self) -> Result<Option<Vec<RowResult>>, SourceError> {
        let mut rows = Vec::new();
        while !self.ended && rows.len() < ROWS_AT_ONCE {
            match self.line() {
                Ok(Some(line)) => rows.push(self.row(line)),
                end => {
                    self.ended = true;
                    self.failed = end.err();
                }
            }
        }
        match (rows.is_empty(), self.failed.is_some()) {
            (false, _) => Ok(Some(rows)),
            (true, true) => Err(self.failed.take().expect("there is one")),
            (true, false) => Ok(None),
        }
    }

    fn rows(&self) -> Option<u64> {
        self.ended.then_some(self.row)
    }

    fn columns(&self) -> ColumnsUsed {
        self.columns.names(&self.schema)
    }

    fn schema(&self) -> Option<&Schema> {
        Some(&self.schema)
    }

    fn position(&self) -> Option<(u64, u64)> {
        let used = match &self.lines {
            Lines::Csv(reader) => reader.position().byte(),
            Lines::Json { reader, .. } => self.position.read.get().saturating_sub(reader.buffer().len() as u64),
        };
        Some((used, self.file_bytes))
    }
}

fn allow_a_line(position: &Position, limits: &Limits) {
    position.allowed.set((limits.max_metadata_bytes + limits.max_caption_bytes + 2 * BUFFER) as u64);
}

fn table_error(name: &str, error: io::Error) -> SourceError {
    match error.kind() {
        io::ErrorKind::InvalidData => SourceError::Corrupt { file: name.to_owned(), reason: error.to_string() },
        _ => SourceError::Read { file: name.to_owned(), source: error },
    }
}

fn text_columns<'a>(names: impl Iterator<Item = &'a str>) -> Schema {
    Schema::new(names.map(|name| Field::new(name, DataType::Utf8, true)).collect::<Vec<_>>())
}

fn csv_lines(bounded: Bounded, head: Vec<u8>, name: &str) -> Result<(Lines, Schema), SourceError> {
    let first = head.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let pieces = |separator: &u8| first.iter().filter(|byte| *byte == separator).count();
    // Of equal counts the earlier: `max_by_key` takes the last.
    let separator = SEPARATORS.into_iter().rev().max_by_key(pieces).unwrap_or(b',');
    let mut reader = csv::ReaderBuilder::new().delimiter(separator).flexible(true).buffer_capacity(BUFFER).from_reader(bounded);
    let header = reader.headers().map_err(|e| match e.is_io_error() {
        true => table_error(name, e.into()),
        false => SourceError::Corrupt { file: name.to_owned(), reason: format!("its header: {e}") },
    })?;
    let schema = text_columns(header.iter().map(|name| name.trim_start_matches('\u{feff}').trim()));
    Ok((Lines::Csv(Box::new(reader)), schema))
}

/// The columns of JSON lines are the fields of the first.
fn json_lines(bounded: Bounded, name: &str) -> Result<(Lines, Schema), SourceError> {
    let mut reader = BufReader::with_capacity(BUFFER, bounded);
    let first = json_line(&mut reader).map_err(|e| table_error(name, e))?;
    let corrupt = |reason| SourceError::Corrupt { file: name.to_owned(), reason };
    let object = first.as_deref().map(json::object).transpose().map_err(|e| corrupt(format!("its first line: {e}")))?;
    let object = object.ok_or_else(|| SourceError::Empty { sources: name.to_owned() })?;
    let schema = text_columns(object.keys().map(String::as_str));
    Ok((Lines::Json { reader, first }, schema))
}

/// The next line that is not blank.
fn json_line(reader: &mut BufReader<Bounded>) -> io::Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    loop {
        line.clear();
        if reader.read_until(b'\n', &mut line)? == 0 {
            return Ok(None);
        }
        if !line.trim_ascii().is_empty() {
            return Ok(Some(line));
        }
    }
}
