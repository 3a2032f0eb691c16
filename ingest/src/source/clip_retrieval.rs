//! The folder that `clip-retrieval inference` writes: ready-made vectors and a table of the same rows beside them.
//!
//! ```text
//! img_emb/img_emb_<p>.npy    text_emb/text_emb_<p>.npy    metadata/metadata_<p>.parquet
//! ```
//!
//! Row i of every file of partition `<p>` is the same sample. A folder exists only if that part was enabled; the counts must
//! agree, and every partition must have every part that the folder has.

use std::{
    collections::{BTreeMap, VecDeque},
    path::{Path, PathBuf},
    sync::Arc,
};

use anchorite_index::SourceRef;
use arrow_schema::Schema;

use super::{
    Reach, Rows, Settings, VectorMode,
    columns::ColumnsUsed,
    npy::NpyRows,
    parquet::{ParquetRows, Purpose, unit_vector},
};
use crate::{Reject, Row, RowResult, SourceError};

/// Rows taken from the npy files at once when there is no metadata table to set the pace.
const ROWS_AT_ONCE: usize = 256;

/// The files of one partition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Partition {
    pub(crate) image: Option<PathBuf>,
    pub(crate) text: Option<PathBuf>,
    pub(crate) metadata: Option<PathBuf>,
}

/// Whether the folder looks like clip-retrieval's.
pub(crate) fn is_clip_retrieval(folder: &Path, reach: &Reach) -> bool {
    ["img_emb", "text_emb"].iter().any(|part| reach.is_folder(&folder.join(part)).unwrap_or(false))
}

/// The folder's partitions by label, in the order of their names.
pub(crate) fn partitions(folder: &Path, name: &str, reach: &Reach) -> Result<Vec<(String, Partition)>, SourceError> {
    let parts = [("img_emb", ".npy"), ("text_emb", ".npy"), ("metadata", ".parquet")];
    let mut found: BTreeMap<String, Partition> = BTreeMap::new();
    for (part, ending) in parts {
        for (label, path) in files(folder, part, ending, reach)? {
            let partition = found.entry(label).or_default();
            match part {
                "img_emb" => partition.image = Some(path),
                "text_emb" => partition.text = Some(path),
                _ => partition.metadata = Some(path),
            }
        }
    }
    let has = |of: fn(&Partition) -> &Option<PathBuf>| found.values().any(|p| of(p).is_some());
    for (part, of) in [("img_emb", image as fn(&Partition) -> &_), ("text_emb", text), ("metadata", metadata)] {
        if let Some((label, _)) = found.iter().find(|(_, p)| has(of) && of(p).is_none()) {
            let detail = format!("partition {label} has no file in {part}/, other partitions have; the folder is incomplete");
            return Err(SourceError::Partition { folder: name.to_owned(), detail });
        }
    }
    if !has(image) && !has(text) {
        return Err(SourceError::NothingFound { path: folder.to_owned() });
    }
    Ok(found.into_iter().collect())
}

fn image(partition: &Partition) -> &Option<PathBuf> {
    &partition.image
}

fn text(partition: &Partition) -> &Option<PathBuf> {
    &partition.text
}

fn metadata(partition: &Partition) -> &Option<PathBuf> {
    &partition.metadata
}

/// `<part>/<part>_<label><ending>`, by label.
fn files(folder: &Path, part: &str, ending: &str, reach: &Reach) -> Result<Vec<(String, PathBuf)>, SourceError> {
    let inner = folder.join(part);
    if !reach.is_folder(&inner).unwrap_or(false) {
        return Ok(Vec::new());
    }
    let failed = |source| SourceError::Open { path: inner.clone(), source };
    let mut found = Vec::new();
    for name in reach.names(&inner).map_err(failed)? {
        let name = name.map_err(failed)?;
        let label = name.strip_prefix(part).and_then(|n| n.strip_prefix('_')).and_then(|n| n.strip_suffix(ending));
        if let Some(label) = label.filter(|l| !l.is_empty()) {
            found.push((label.to_owned(), inner.join(&name)));
        }
    }
    Ok(found)
}

/// One partition, read from its first row to its last.
pub(crate) struct ClipRows {
    name: String,
    image: Option<NpyRows>,
    text: Option<NpyRows>,
    metadata: Option<ParquetRows>,
    settings: Arc<Settings>,
    row: u64,
    rows: u64,
    described: VecDeque<RowResult>,
}

impl ClipRows {
    pub(crate) fn open(name: &str, partition: &Partition, settings: &Arc<Settings>) -> Result<Self, SourceError> {
        let VectorMode::Ready { dim } = settings.mode else {
            return Err(SourceError::OnlyVectors { file: name.to_owned() });
        };
        let npy = |path: &Option<PathBuf>| path.as_ref().map(|p| NpyRows::open(p, &part_name(name, p), settings)).transpose();
        let (image, text) = (npy(&partition.image)?, npy(&partition.text)?);
        let metadata = partition.metadata.as_ref();
        let metadata =
            metadata.map(|p| ParquetRows::open(p, &part_name(name, p), Purpose::BesideVectors, settings)).transpose()?;
        let rows = agreed_rows(name, image.as_ref(), text.as_ref(), metadata.as_ref())?;
        for (part, array) in [("img_emb", &image), ("text_emb", &text)] {
            if let (Some(array), Some(expected)) = (array, dim)
                && array.dim() != expected
            {
                let (file, column) = (name.to_owned(), part.to_owned());
                return Err(SourceError::Dimension { file, column, found: array.dim(), expected });
            }
        }
        let settings = Arc::clone(settings);
        Ok(Self { name: name.to_owned(), image, text, metadata, settings, row: 0, rows, described: VecDeque::new() })
    }

    /// The metadata of the present row.
    fn describe(&mut self) -> Result<RowResult, SourceError> {
        let source = SourceRef { file: self.name.clone(), row: self.row };
        let Some(metadata) = &mut self.metadata else { return Ok(Ok(Row::at(source))) };
        while self.described.is_empty() {
            match metadata.next_rows()? {
                Some(more) => self.described.extend(more),
                None => break,
            }
        }
        match self.described.pop_front() {
            Some(Ok(row)) => Ok(Ok(Row { source, ..row })),
            Some(Err(reject)) => Ok(Err(Reject { source, ..reject })),
            None => {
                let detail = format!("the metadata ends before row {}", self.row);
                Err(SourceError::Partition { folder: self.name.clone(), detail })
            }
        }
    }

    fn join(&self, row: Row, image: Option<Vec<f32>>, text: Option<Vec<f32>>) -> RowResult {
        let mode = self.settings.mode;
        let unit = |vector: Option<Vec<f32>>| vector.map(|v| unit_vector(v, mode)).transpose();
        match (unit(image), unit(text)) {
            (Ok(image_vector), Ok(text_vector)) => Ok(Row { image_vector, text_vector, ..row }),
            (Err(problem), _) | (_, Err(problem)) => Err(Reject::new(row.source, problem.code, problem.message)),
        }
    }
}

impl Rows for ClipRows {
    fn are_own(&self) -> bool {
        true
    }

    fn next_rows(&mut self) -> Result<Option<Vec<RowResult>>, SourceError> {
        let count = ROWS_AT_ONCE.min(usize::try_from(self.rows - self.row).unwrap_or(ROWS_AT_ONCE));
        if count == 0 {
            return Ok(None);
        }
        let vectors = |array: &mut Option<NpyRows>| -> Result<Vec<Option<Vec<f32>>>, SourceError> {
            match array {
                Some(array) => Ok(array.read(count)?.into_iter().map(Some).collect()),
                None => Ok(vec![None; count]),
            }
        };
        let (images, texts) = (vectors(&mut self.image)?, vectors(&mut self.text)?);
        let mut rows = Vec::with_capacity(count);
        for (image, text) in images.into_iter().zip(texts) {
            let described = self.describe()?;
            rows.push(described.and_then(|row| self.join(row, image, text)));
            self.row += 1;
        }
        Ok(Some(rows))
    }

    fn rows(&self) -> Option<u64> {
        Some(self.rows)
    }

    fn columns(&self) -> ColumnsUsed {
        ColumnsUsed {
            image_vector: self.image.as_ref().map(|_| "img_emb".to_owned()),
            text_vector: self.text.as_ref().map(|_| "text_emb".to_owned()),
            ..self.metadata.as_ref().map(ParquetRows::columns).unwrap_or_default()
        }
    }

    fn schema(&self) -> Option<&Schema> {
        self.metadata.as_ref().and_then(ParquetRows::schema)
    }

    fn dim(&self) -> Option<usize> {
        self.image.as_ref().or(self.text.as_ref()).map(NpyRows::dim)
    }
}

fn part_name(name: &str, path: &Path) -> String {
    format!("{name} ({})", path.file_name().unwrap_or_default().to_string_lossy())
}

fn agreed_rows(
    name: &str,
    image: Option<&NpyRows>,
    text: Option<&NpyRows>,
    metadata: Option<&ParquetRows>,
) -> Result<u64, SourceError> {
    let counts = [
        ("img_emb", image.map(NpyRows::rows)),
        ("text_emb", text.map(NpyRows::rows)),
        ("metadata", metadata.map(ParquetRows::count)),
    ];
    let known: Vec<(&str, u64)> = counts.into_iter().filter_map(|(part, rows)| rows.map(|r| (part, r))).collect();
    let rows = known.first().map_or(0, |(_, rows)| *rows);
    if known.iter().all(|(_, r)| *r == rows) {
        return Ok(rows);
    }
    let detail = known.iter().map(|(part, r)| format!("{r} rows in {part}")).collect::<Vec<_>>().join(", ");
    Err(SourceError::Partition { folder: name.to_owned(), detail: format!("the files do not belong together: {detail}") })
}
