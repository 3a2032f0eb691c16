//! The table of a manifest as a file: parquet, or JSON for people and programs that read no parquet.

use std::{
    fs::{self, File},
    io,
    path::Path,
    sync::Arc,
};

use arrow_array::{ArrayRef, BooleanArray, Float32Array, RecordBatch, StringArray, UInt32Array, UInt64Array};
use arrow_schema::ArrowError;
use parquet::{
    arrow::ArrowWriter,
    basic::{Compression, ZstdLevel},
    errors::ParquetError,
    file::{metadata::KeyValue, properties::WriterProperties},
};
use serde::Serialize;

use super::{BATCH, CHOSEN, HEADER_KEY, Header, ManifestError, VALIDATION};
use crate::{Curated, Entry, Policy, Questions, policy::Control, questions::hex, reason::Reason};

/// Writes `curated` to `path`, over an earlier file, when it is complete and on disk; a failure leaves the earlier file.
///
/// # Errors
/// [`ManifestError::Io`] and [`ManifestError::Write`].
pub fn write(path: &Path, header: &Header, questions: &Questions, curated: &Curated) -> Result<(), ManifestError> {
    let failed = |action| move |source| ManifestError::Io { action, path: path.to_owned(), source };
    let name = path.file_name().ok_or_else(|| failed("write")(io::ErrorKind::InvalidFilename.into()))?;
    let unfinished = path.with_file_name(format!(".{}.{}.unfinished", name.to_string_lossy(), std::process::id()));
    let written = File::create(&unfinished)
        .map_err(failed("create"))
        .and_then(|file| write_to(file, header, questions, curated))
        .and_then(|file| file.sync_all().map_err(failed("sync")))
        .and_then(|()| fs::rename(&unfinished, path).map_err(failed("rename")));
    if written.is_err() {
        // The first failure is what is told; a file left behind is hidden and harmless.
        let _ = fs::remove_file(&unfinished);
    }
    written
}

/// The file's bytes.
///
/// # Errors
/// [`ManifestError::Write`].
pub fn to_bytes(header: &Header, questions: &Questions, curated: &Curated) -> Result<Vec<u8>, ManifestError> {
    write_to(Vec::new(), header, questions, curated)
}

fn write_to<W: io::Write + Send>(to: W, header: &Header, questions: &Questions, curated: &Curated) -> Result<W, ManifestError> {
    let refused = |e: ParquetError| ManifestError::Write { reason: e.to_string() };
    let json = serde_json::to_string(header).map_err(|e| ManifestError::Write { reason: e.to_string() })?;
    let properties = WriterProperties::builder()
        .set_created_by(header.written_by.clone())
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        .set_key_value_metadata(Some(vec![KeyValue::new(HEADER_KEY.to_owned(), json)]))
        .build();
    let direction = direction_of(header);
    let table = |entries: &[Entry]| {
        let rows: Vec<Row<'_>> = entries.iter().map(|entry| row(entry, questions, &direction)).collect();
        columns(&rows).map_err(|e| ManifestError::Write { reason: e.to_string() })
    };
    let mut writer = ArrowWriter::try_new(to, table(&[])?.schema(), Some(properties)).map_err(refused)?;
    for part in curated.entries.chunks(BATCH) {
        writer.write(&table(part)?).map_err(refused)?;
    }
    writer.into_inner().map_err(refused)
}

fn direction_of(header: &Header) -> String {
    if header.search == CHOSEN { CHOSEN.to_owned() } else { direction(&header.policy) }
}

/// The policy's comparison in words: `image->image`, or `0.5 image->image + 0.5 text->image`, or the control's name.
fn direction(policy: &Policy) -> String {
    match policy.control {
        Control::Random => "random".to_owned(),
        Control::StratifiedRandom { .. } => "stratified-random".to_owned(),
        Control::None if policy.directions.len() == 1 => policy.directions[0].to_string(),
        Control::None => {
            let parts: Vec<String> = policy.directions.iter().map(|d| format!("{} {d}", d.weight)).collect();
            parts.join(" + ")
        }
    }
}

fn columns(rows: &[Row<'_>]) -> Result<RecordBatch, ArrowError> {
    macro_rules! text {
        ($column:ident) => {
            Arc::new(rows.iter().map(|row| Option::<&str>::from(row.$column)).collect::<StringArray>()) as ArrayRef
        };
    }
    RecordBatch::try_from_iter_with_nullable([
        ("query", text!(query), true),
        ("class", text!(class), true),
        ("rank", Arc::new(UInt64Array::from_iter_values(rows.iter().map(|row| row.rank as u64))), false),
        ("score", Arc::new(rows.iter().map(|row| row.score).collect::<Float32Array>()), true),
        ("direction", text!(direction), false),
        ("key", text!(key), false),
        ("row", Arc::new(UInt64Array::from_iter_values(rows.iter().map(|row| row.row))), false),
        ("content", Arc::new(StringArray::from_iter_values(rows.iter().map(|row| &row.content))), false),
        ("caption", text!(caption), true),
        ("kept", Arc::new(BooleanArray::from_iter(rows.iter().map(|row| Some(row.kept)))), false),
        ("reason", text!(reason), true),
        ("detail", text!(detail), true),
        ("group", Arc::new(rows.iter().map(|row| row.group).collect::<UInt32Array>()), true),
        ("split", text!(split), true),
    ])
}

/// A manifest as JSON.
#[derive(Serialize)]
struct Document<'a> {
    header: &'a Header,
    rows: Vec<Row<'a>>,
}

/// A row of the table; the columns of the parquet file, in their order.
#[derive(Serialize)]
struct Row<'a> {
    query: Option<&'a str>,
    class: Option<&'a str>,
    rank: usize,
    score: Option<f32>,
    direction: &'a str,
    key: &'a str,
    row: u64,
    content: String,
    caption: Option<&'a str>,
    kept: bool,
    reason: Option<&'a str>,
    detail: Option<&'a str>,
    group: Option<u32>,
    split: Option<&'a str>,
}

/// The same as JSON: `{"header": ..., "rows": [...]}`, a row an object of the file's columns.
///
/// # Errors
/// [`ManifestError::Write`].
pub fn to_json(header: &Header, questions: &Questions, curated: &Curated) -> Result<Vec<u8>, ManifestError> {
    let direction = direction_of(header);
    let row = |entry| row(entry, questions, &direction);
    let document = Document { header, rows: curated.entries.iter().map(row).collect() };
    serde_json::to_vec(&document).map_err(|e| ManifestError::Write { reason: e.to_string() })
}

fn row<'a>(entry: &'a Entry, questions: &'a Questions, direction: &'a str) -> Row<'a> {
    let question = entry.query.and_then(|place| questions.list.get(place));
    Row {
        query: question.map(|q| q.id.as_str()),
        class: question.and_then(|q| q.class.as_deref()),
        rank: entry.rank,
        score: entry.score,
        direction,
        key: entry.key.as_str(),
        row: entry.row.0,
        content: hex(&entry.content.0),
        caption: entry.caption.as_deref(),
        kept: entry.reason.is_none(),
        reason: entry.reason.as_ref().map(Reason::code),
        detail: entry.detail.as_deref(),
        group: entry.group,
        split: split(entry),
    }
}

/// Which split an anchor is in; none for what was passed over.
fn split(entry: &Entry) -> Option<&'static str> {
    entry.reason.is_none().then_some(if entry.validation { VALIDATION } else { "train" })
}
