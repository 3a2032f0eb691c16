//! A manifest's rows for people: every hit that was looked at, kept or not, with its score.

use std::{
    fs::File,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
};

use arrow_array::{Array, RecordBatch, StringArray, cast::AsArray, types::Float32Type};
use parquet::arrow::{ProjectionMask, arrow_reader::ParquetRecordBatchReaderBuilder};

use crate::manifest::ManifestError;

/// A hit as a manifest has it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ManifestHit {
    /// The query's name; none for a control.
    pub query: Option<String>,
    /// The query's class.
    pub class: Option<String>,
    /// Its score; none for a control.
    pub score: Option<f32>,
    /// The pair's key.
    pub key: String,
    /// The pair's caption.
    pub caption: Option<String>,
    /// Why it is no anchor; none for an anchor.
    pub reason: Option<String>,
}

/// Every row of a manifest, in file order, at most `max` of them.
///
/// # Errors
/// [`ManifestError::Io`], [`ManifestError::Corrupt`].
pub fn hits(path: &Path, max: usize) -> Result<Vec<ManifestHit>, ManifestError> {
    let corrupt = |reason: String| ManifestError::Corrupt { path: path.to_owned(), reason };
    let file = File::open(path).map_err(|source| ManifestError::Io { action: "open", path: path.to_owned(), source })?;
    // The parquet crate panics on some damaged files.
    let read = catch_unwind(AssertUnwindSafe(|| read(file, max)));
    read.unwrap_or_else(|_| Err("its parquet structure is damaged".to_owned())).map_err(corrupt)
}

fn read(file: File, max: usize) -> Result<Vec<ManifestHit>, String> {
    let builder = ParquetRecordBatchReaderBuilder::try_new(file).map_err(|e| e.to_string())?;
    let mask = ProjectionMask::columns(builder.parquet_schema(), ["query", "class", "score", "key", "caption", "reason"]);
    let mut found = Vec::new();
    for batch in builder.with_projection(mask).build().map_err(|e| e.to_string())? {
        let batch = batch.map_err(|e| e.to_string())?;
        take(&batch, &mut found)?;
        if found.len() >= max {
            break;
        }
    }
    found.truncate(max);
    Ok(found)
}

fn take(batch: &RecordBatch, found: &mut Vec<ManifestHit>) -> Result<(), String> {
    let column = |name: &str| batch.column_by_name(name).ok_or_else(|| format!("it has no column {name}"));
    let texts = |name: &str| column(name)?.as_string_opt::<i32>().ok_or_else(|| format!("its column {name} has another type"));
    let (query, class, key) = (texts("query")?, texts("class")?, texts("key")?);
    let (caption, reason) = (texts("caption")?, texts("reason")?);
    let scores = column("score")?.as_primitive_opt::<Float32Type>().ok_or("its column score has another type")?;
    let text = |column: &StringArray, i: usize| column.is_valid(i).then(|| column.value(i).to_owned());
    found.extend((0..batch.num_rows()).map(|i| ManifestHit {
        query: text(query, i),
        class: text(class, i),
        score: scores.is_valid(i).then(|| scores.value(i)),
        key: key.value(i).to_owned(),
        caption: text(caption, i),
        reason: text(reason, i),
    }));
    Ok(())
}
