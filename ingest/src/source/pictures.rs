//! Loose pictures of one folder with their captions beside them: `img.jpg`, `img.txt`, `img.json` (img2dataset's "files").
//!
//! Each picture is a source of its own, `<shard>/<picture>` row 0, so that adding or removing one moves no other. The list of
//! names is read when the folder's turn comes; memory is that of its longest folder's names.

use std::{path::Path, sync::Arc, vec::IntoIter};

use anchorite_index::SourceRef;

use super::{
    Rows, Settings, VectorMode,
    columns::{ColumnChoice, ColumnsUsed},
    confined::{Folder, RelPath},
    json,
    pattern::natural,
};
use crate::{
    Reject, Row, RowResult, SourceError,
    reject::{RowProblem, code},
};

/// Rows given at once. Pictures are large.
const ROWS_AT_ONCE: usize = 8;

/// Whether the name is a picture's that ingest reads.
pub(crate) fn is_picture_name(name: &str) -> bool {
    let ending = name.rsplit_once('.').map(|(stem, ending)| (stem.is_empty(), ending));
    let usual = |ending: &str| ["jpg", "jpeg", "png", "webp"].iter().any(|e| ending.eq_ignore_ascii_case(e));
    ending.is_some_and(|(hidden, ending)| !hidden && usual(ending))
}

/// A folder of pictures being read.
pub(crate) struct PictureRows {
    name: String,
    folder: Folder,
    rest: IntoIter<String>,
    count: u64,
    settings: Arc<Settings>,
    fields: std::collections::BTreeSet<String>,
}

impl PictureRows {
    pub(crate) fn open(path: &Path, name: &str, settings: &Arc<Settings>) -> Result<Self, SourceError> {
        if let VectorMode::Ready { .. } = settings.mode {
            return Err(SourceError::NoColumn {
                file: name.to_owned(),
                part: "image vector",
                flag: "--image-vector-column",
                columns: "none; it is a folder of pictures".to_owned(),
            });
        }
        let failed = |source| SourceError::Open { path: path.to_owned(), source };
        let folder = settings.reach.folder(path).map_err(failed)?;
        let mut names = Vec::new();
        for name in settings.reach.names(path).map_err(failed)? {
            let name = name.map_err(failed)?;
            if is_picture_name(&name) && !name.starts_with('.') {
                names.push(name);
            }
        }
        names.sort_by(|a, b| natural(a, b));
        let count = names.len() as u64;
        let fields = std::collections::BTreeSet::new();
        Ok(Self { name: name.to_owned(), folder, rest: names.into_iter(), count, settings: Arc::clone(settings), fields })
    }

    fn row(&mut self, name: &str) -> RowResult {
        let file = if self.name.is_empty() { name.to_owned() } else { format!("{}/{name}", self.name) };
        let source = SourceRef { file, row: 0 };
        self.parts(name, &source).map_err(|problem| Reject::new(source, problem.code, problem.message))
    }

    fn parts(&mut self, name: &str, source: &SourceRef) -> Result<Row, RowProblem> {
        let (columns, limits) = (&self.settings.columns, &self.settings.limits);
        let mut row = Row::at(source.clone());
        if columns.image != ColumnChoice::Absent {
            row.picture = Some(self.folder.read(&RelPath::parse(name)?, limits.max_picture_bytes)?);
        }
        let stem = name.rsplit_once('.').map_or(name, |(stem, _)| stem);
        if columns.caption == ColumnChoice::Auto {
            let (max, code) = (limits.max_caption_bytes, code::TEXT_TOO_LONG);
            let text = self.beside(stem, "txt", max, code)?.map(String::from_utf8).transpose();
            let text = text.map_err(|e| RowProblem::new(code::TEXT_INVALID, format!("the .txt beside it is no UTF-8: {e}")))?;
            row.caption = text.map(|t| t.trim().to_owned()).filter(|t| !t.is_empty());
        }
        if let Some(bytes) = self.beside(stem, "json", limits.max_metadata_bytes, code::METADATA_INVALID)? {
            let invalid = |r| RowProblem::new(code::METADATA_INVALID, format!("the .json beside it is no JSON object: {r}"));
            let object = json::object(&bytes).map_err(invalid)?;
            json::object_into(&mut row, object, (&columns.caption, columns.key.as_deref()), limits);
        }
        json::noted(row, &mut self.fields, limits)
    }

    /// The file of the same stem, if there is one.
    fn beside(&self, stem: &str, ending: &str, max: usize, too_long: &'static str) -> Result<Option<Vec<u8>>, RowProblem> {
        let name = format!("{stem}.{ending}");
        match self.folder.read(&RelPath::parse(&name)?, max) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(problem) if problem.code == code::PATH_MISSING => Ok(None),
            Err(problem) if problem.code == code::IMAGE_TOO_MANY_BYTES => {
                Err(RowProblem::new(too_long, format!("{name:?} has more than the {max} bytes that are allowed")))
            }
            Err(problem) => Err(problem),
        }
    }
}

impl Rows for PictureRows {
    fn next_rows(&mut self) -> Result<Option<Vec<RowResult>>, SourceError> {
        let names: Vec<String> = self.rest.by_ref().take(ROWS_AT_ONCE).collect();
        let rows: Vec<RowResult> = names.iter().map(|name| self.row(name)).collect();
        Ok((!rows.is_empty()).then_some(rows))
    }

    fn rows(&self) -> Option<u64> {
        Some(self.count)
    }

    fn columns(&self) -> ColumnsUsed {
        let caption = match &self.settings.columns.caption {
            ColumnChoice::Auto => Some("txt, or a field of json".to_owned()),
            ColumnChoice::Named(name) => Some(name.clone()),
            ColumnChoice::Absent => None,
        };
        ColumnsUsed {
            image: (self.settings.columns.image != ColumnChoice::Absent).then(|| "file".to_owned()),
            caption,
            key: self.settings.columns.key.clone(),
            fields: self.fields.iter().cloned().collect(),
            ..ColumnsUsed::default()
        }
    }
}
