//! A file of captions by key: parquet, CSV, TSV or JSON lines.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
};

use anchorite_index::Value;
use anchorite_ingest::{ColumnChoice, ColumnOptions, Limits, Rows, VectorMode};

use super::DataError;
use crate::runner::Captions;

/// Captions by the key of their picture, several in file order.
#[derive(Debug)]
pub(crate) struct CaptionFile {
    path: PathBuf,
    by_key: HashMap<String, Vec<String>>,
}

impl CaptionFile {
    pub(crate) fn read(path: &Path, columns: &Captions) -> Result<Self, DataError> {
        let absent = ColumnChoice::Absent;
        let caption = ColumnChoice::Named(columns.file_caption.clone());
        let options =
            ColumnOptions { image: absent.clone(), caption, key: None, image_vector: absent.clone(), text_vector: absent };
        let mut rows = Rows::open(&[path.to_owned()], options, VectorMode::Encode, Limits::default())?;
        let mut by_key: HashMap<String, Vec<String>> = HashMap::new();
        let mut first = None;
        while let Some(row) = rows.next_row()? {
            // A row without a caption is none; whether its picture has another shows when captions are looked for.
            let Ok(row) = row else { continue };
            first.get_or_insert_with(|| row.fields.keys().cloned().collect::<Vec<_>>().join(", "));
            let Some((key, caption)) = row.fields.get(&columns.file_key).map(ToString::to_string).zip(row.caption) else {
                continue;
            };
            by_key.entry(key).or_default().push(caption.replace('\0', " "));
        }
        if by_key.is_empty() {
            let (column, columns) = (columns.file_key.clone(), first.unwrap_or_default());
            return Err(DataError::NoColumn { set: "captions", column, field: "captions.file_key", columns });
        }
        Ok(Self { path: path.to_owned(), by_key })
    }

    /// The captions of the picture with this key.
    pub(crate) fn of(&self, key: &Value) -> Option<&[String]> {
        self.by_key.get(&key.to_string()).map(Vec::as_slice)
    }

    pub(crate) fn no_matches(&self, example: String) -> DataError {
        DataError::NoCaptionMatches { path: self.path.clone(), captions: self.by_key.len(), example }
    }
}
