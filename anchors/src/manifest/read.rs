//! The anchors of a manifest, read back and checked.

use std::{
    fs::File,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
};

use anchorite_index::{ContentHash, Key, RowId};
use arrow_array::{Array, RecordBatch, cast::AsArray, types::UInt64Type};
use parquet::{
    arrow::{ProjectionMask, arrow_reader::ParquetRecordBatchReaderBuilder},
    file::metadata::KeyValue,
};
use sha2::{Digest, Sha256};

use super::{BATCH, FORMAT, HEADER_KEY, Header, MAX_HEADER_BYTES, ManifestError, VALIDATION};
use crate::questions::hex;

/// An anchor as a manifest names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    /// The pair's name.
    pub key: Key,
    /// Its position when the manifest was made.
    pub row: RowId,
    /// What it was made from.
    pub content: ContentHash,
    /// Whether it is set aside for validation.
    pub validation: bool,
}

/// A manifest read back: what it says of itself, and its anchors in file order.
#[derive(Clone, Debug, PartialEq)]
pub struct Manifest {
    /// What it says of itself.
    pub header: Header,
    /// The anchors; hits that were passed over are not among them.
    pub anchors: Vec<Named>,
}

/// Reads a manifest, and checks that its anchors are those its header names.
///
/// # Errors
/// [`ManifestError::Corrupt`] and [`ManifestError::Version`].
pub fn read(path: &Path) -> Result<Manifest, ManifestError> {
    let corrupt = |reason: String| ManifestError::Corrupt { path: path.to_owned(), reason };
    let file = File::open(path).map_err(|source| ManifestError::Io { action: "open", path: path.to_owned(), source })?;
    // The parquet crate panics on some damaged files.
    let read = catch_unwind(AssertUnwindSafe(|| read_file(file, path)));
    let manifest = read.unwrap_or_else(|_| Err(corrupt("its parquet structure is damaged".to_owned())))?;
    let mut anchors = Sha256::new();
    manifest.anchors.iter().for_each(|a| anchors.update(a.content.0));
    match hex(&anchors.finalize()) == manifest.header.anchors {
        true => Ok(manifest),
        false => Err(corrupt("its anchors are not those its header names".to_owned())),
    }
}

fn read_file(file: File, path: &Path) -> Result<Manifest, ManifestError> {
    let corrupt = |reason: String| ManifestError::Corrupt { path: path.to_owned(), reason };
    let builder = ParquetRecordBatchReaderBuilder::try_new(file).map_err(|e| corrupt(e.to_string()))?;
    let header = header_of(builder.metadata().file_metadata().key_value_metadata(), path)?;
    let schema = builder.parquet_schema();
    let mask = ProjectionMask::columns(schema, ["key", "row", "content", "kept", "split"]);
    let reader = builder.with_projection(mask).with_batch_size(BATCH).build().map_err(|e| corrupt(e.to_string()))?;
    let mut anchors = Vec::new();
    for batch in reader {
        named(&batch.map_err(|e| corrupt(e.to_string()))?, &mut anchors).map_err(corrupt)?;
    }
    Ok(Manifest { header, anchors })
}

fn header_of(metadata: Option<&Vec<KeyValue>>, path: &Path) -> Result<Header, ManifestError> {
    let corrupt = |reason: String| ManifestError::Corrupt { path: path.to_owned(), reason };
    let entry = metadata.into_iter().flatten().find(|entry| entry.key == HEADER_KEY);
    let json = entry.and_then(|e| e.value.as_deref()).ok_or_else(|| corrupt(format!("it has no {HEADER_KEY} metadata")))?;
    if json.len() > MAX_HEADER_BYTES {
        return Err(corrupt(format!("its header has {} bytes", json.len())));
    }
    let value: serde_json::Value = serde_json::from_str(json).map_err(|e| corrupt(e.to_string()))?;
    match value["format"].as_u64() {
        Some(format) if format == u64::from(FORMAT) => serde_json::from_value(value).map_err(|e| corrupt(e.to_string())),
        Some(found) => Err(ManifestError::Version { path: path.to_owned(), found }),
        None => Err(corrupt("its header names no format".to_owned())),
    }
}

fn named(batch: &RecordBatch, anchors: &mut Vec<Named>) -> Result<(), String> {
    let column = |name: &str| batch.column_by_name(name).ok_or_else(|| format!("it has no column {name}"));
    let wrong = |name: &str| format!("its column {name} has another type");
    let (keys, contents) = (column("key")?, column("content")?);
    let keys = keys.as_string_opt::<i32>().ok_or_else(|| wrong("key"))?;
    let contents = contents.as_string_opt::<i32>().ok_or_else(|| wrong("content"))?;
    let rows = column("row")?.as_primitive_opt::<UInt64Type>().ok_or_else(|| wrong("row"))?;
    let kept = column("kept")?.as_boolean_opt().ok_or_else(|| wrong("kept"))?;
    let splits = column("split")?.as_string_opt::<i32>().ok_or_else(|| wrong("split"))?;
    if keys.null_count() + contents.null_count() + rows.null_count() + kept.null_count() > 0 {
        return Err("one of its key, content, row and kept is null".to_owned());
    }
    for i in (0..batch.num_rows()).filter(|&i| kept.value(i)) {
        let key = Key::new(keys.value(i)).map_err(|e| e.to_string())?;
        let content = unhex(contents.value(i)).ok_or_else(|| format!("{:?} is no content hash", contents.value(i)))?;
        let validation = splits.is_valid(i) && splits.value(i) == VALIDATION;
        anchors.push(Named { key, row: RowId(rows.value(i)), content, validation });
    }
    Ok(())
}

fn unhex(text: &str) -> Option<ContentHash> {
    let mut bytes = [0; 32];
    let digits = text.as_bytes();
    if digits.len() != 64 {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        let digit = |c: u8| char::from(c).to_digit(16).and_then(|d| u8::try_from(d).ok());
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(ContentHash(bytes))
}
