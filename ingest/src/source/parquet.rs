//! Rows of one parquet file, in bounded record batches, reading only the columns that are needed.
//!
//! The footer is checked against the file before anything is read by it. The parquet crate panics on some damaged files, so
//! every call into it is guarded: a panic is a damaged file. It allocates pages as they declare themselves, so `pages/` looks at every
//! page of a row group's used columns before the group is read.

use std::{
    cell::Cell,
    fs::File,
    io::{Read, Seek, SeekFrom},
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    sync::Arc,
};

use anchorite_encoder::{Embedding, EmbeddingError};
use anchorite_index::{SourceRef, Value};
use arrow_array::{Array, RecordBatch};
use arrow_schema::{DataType, Schema};
use parquet::arrow::{
    ProjectionMask,
    arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder},
};

use super::{
    Rows, Settings, VectorMode,
    columns::{Columns, ColumnsUsed, Detector, IMAGE_NAMES},
    confined::{Folder, RelPath},
    cut,
    pages::{ChunkPages, Place, batch_rows},
    values::{CaptionColumn, FieldColumn, PictureColumn, PictureRef, VectorColumn},
};
use crate::{
    Reject, Row, RowResult, SourceError,
    reject::{RowProblem, code},
};

/// A checked parquet file, read from its first row to its last.
pub(crate) struct ParquetRows {
    name: String,
    file: File,
    folder: Folder,
    metadata: ArrowReaderMetadata,
    columns: Columns,
    settings: Arc<Settings>,
    next_group: usize,
    reader: Option<ParquetRecordBatchReader>,
    row: u64,
    group_end: u64,
    /// Whether a picture was read from another file.
    followed_path: Cell<bool>,
}

/// What a table's columns are looked at for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Pictures, captions or vectors: a source of its own.
    Whole,
    /// Caption and metadata beside vectors that lie elsewhere.
    BesideVectors,
}

impl ParquetRows {
    pub(crate) fn open(path: &Path, name: &str, purpose: Purpose, settings: &Arc<Settings>) -> Result<Self, SourceError> {
        let mut file = settings.reach.open(path).map_err(|source| SourceError::Open { path: path.to_owned(), source })?;
        check_ends(&mut file, name, settings)?;
        let metadata =
            guarded(name, || ArrowReaderMetadata::load(&file, ArrowReaderOptions::new()).map_err(|e| corrupt(name, e)))?;
        guarded(name, || check_footer(&file, name, &metadata, settings))?;
        let (options, mode) = (&settings.columns, settings.mode);
        let detector = Detector { file: name, schema: metadata.schema(), options, mode, image_names: &IMAGE_NAMES };
        let columns = match purpose {
            Purpose::Whole => detector.detect()?,
            Purpose::BesideVectors => detector.detect_beside_vectors()?,
        };
        check_width(metadata.schema(), name, &columns, settings)?;
        let parent = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let folder = settings.reach.folder(parent).map_err(|source| SourceError::Open { path: parent.to_owned(), source })?;
        Ok(Self {
            name: name.to_owned(),
            file,
            folder,
            metadata,
            columns,
            settings: Arc::clone(settings),
            next_group: 0,
            reader: None,
            row: 0,
            group_end: 0,
            followed_path: Cell::new(false),
        })
    }

    /// Rows as the footer counts them.
    pub(crate) fn count(&self) -> u64 {
        self.metadata.metadata().row_groups().iter().map(|g| g.num_rows().max(0) as u64).sum()
    }

    fn read_rows(&mut self) -> Result<Option<Vec<RowResult>>, SourceError> {
        loop {
            if self.reader.is_none() && !self.open_group()? {
                return Ok(None);
            }
            match self.reader.as_mut().and_then(Iterator::next) {
                Some(batch) => {
                    let batch = batch.map_err(|e| corrupt(&self.name, e))?;
                    return Ok(Some(self.rows_of(&batch)));
                }
                None => self.close_group()?,
            }
        }
    }

    fn open_group(&mut self) -> Result<bool, SourceError> {
        let Some(group) = self.metadata.metadata().row_groups().get(self.next_group) else { return Ok(false) };
        let roots = self.columns.read();
        let schema = self.metadata.parquet_schema();
        let used = group.columns().iter().enumerate().filter(|(leaf, _)| roots.contains(&schema.get_column_root_idx(*leaf)));
        let rows = group.num_rows().max(0) as u64;
        let place = Place { file: &self.file, name: &self.name, limits: &self.settings.limits };
        let chunks = used.map(|(_, chunk)| ChunkPages::check(&place, chunk, rows)).collect::<Result<Vec<_>, _>>()?;
        let file = self.file.try_clone().map_err(|source| SourceError::Read { file: self.name.clone(), source })?;
        let reader = ParquetRecordBatchReaderBuilder::new_with_metadata(file, self.metadata.clone())
            .with_row_groups(vec![self.next_group])
            .with_projection(ProjectionMask::roots(schema, roots))
            .with_batch_size(self.batch_rows(&chunks))
            .build()
            .map_err(|e| corrupt(&self.name, e))?;
        self.next_group += 1;
        self.group_end += rows;
        self.reader = Some(reader);
        Ok(true)
    }

    /// Rows that by the group's pages fit the byte budget.
    fn batch_rows(&self, chunks: &[ChunkPages]) -> usize {
        let limits = &self.settings.limits;
        // Pictures vary within a page, so their rows are bounded by count as well; small rows need only enough at once to make the
        // calls cheap.
        let most =
            if self.columns.image.is_some() { limits.record_batch_rows } else { limits.record_batch_rows.saturating_mul(8) };
        batch_rows(chunks, limits, most)
    }

    fn close_group(&mut self) -> Result<(), SourceError> {
        self.reader = None;
        if self.row == self.group_end {
            return Ok(());
        }
        let reason = format!("row group {} ends at row {}, its footer says {}", self.next_group - 1, self.row, self.group_end);
        Err(SourceError::Corrupt { file: self.name.clone(), reason })
    }

    fn rows_of(&mut self, batch: &RecordBatch) -> Vec<RowResult> {
        let first = self.row;
        self.row += batch.num_rows() as u64;
        let view = BatchView::new(batch, self);
        (0..batch.num_rows()).map(|i| view.row(i, first + i as u64)).collect()
    }
}

impl Rows for ParquetRows {
    fn next_rows(&mut self) -> Result<Option<Vec<RowResult>>, SourceError> {
        let name = self.name.clone();
        guarded(&name, || self.read_rows())
    }

    fn rows(&self) -> Option<u64> {
        Some(self.count())
    }

    fn columns(&self) -> ColumnsUsed {
        self.columns.names(self.metadata.schema())
    }

    fn schema(&self) -> Option<&Schema> {
        Some(self.metadata.schema())
    }

    /// Whole row groups.
    fn skip_some(&mut self, rows: u64) -> u64 {
        let groups = self.metadata.metadata().row_groups();
        while let Some(group) = groups.get(self.next_group) {
            let end = self.row + group.num_rows().max(0) as u64;
            if end > rows {
                break;
            }
            (self.row, self.group_end) = (end, end);
            self.next_group += 1;
        }
        self.row
    }

    fn are_own(&self) -> bool {
        !self.followed_path.get()
    }

    /// Values of a fixed-size vector column, if one is used.
    fn dim(&self) -> Option<usize> {
        let columns = [self.columns.image_vector, self.columns.text_vector];
        columns.into_iter().flatten().find_map(|at| width(self.metadata.schema(), at))
    }
}

/// One record batch with its columns by purpose.
struct BatchView<'a> {
    file: &'a ParquetRows,
    picture: Option<PictureColumn<'a>>,
    caption: Option<CaptionColumn<'a>>,
    key: Option<FieldColumn<'a>>,
    image_vector: Option<VectorColumn<'a>>,
    text_vector: Option<VectorColumn<'a>>,
    fields: Vec<(&'a str, FieldColumn<'a>)>,
}

impl<'a> BatchView<'a> {
    fn new(batch: &'a RecordBatch, file: &'a ParquetRows) -> Self {
        let read = file.columns.read();
        // The batch holds the columns that were read, in the file's order.
        let array = |at: usize| -> Option<&'a dyn Array> {
            read.binary_search(&at).ok().and_then(|i| batch.columns().get(i)).map(AsRef::as_ref)
        };
        let columns = &file.columns;
        let field = |at: &usize| array(*at).map(|a| (file.metadata.schema().field(*at).name().as_str(), FieldColumn::new(a)));
        Self {
            file,
            picture: columns.image.and_then(|(at, _)| array(at)).map(PictureColumn::new),
            caption: columns.caption.and_then(array).map(CaptionColumn::new),
            key: columns.key.and_then(array).map(FieldColumn::new),
            image_vector: columns.image_vector.and_then(array).and_then(VectorColumn::new),
            text_vector: columns.text_vector.and_then(array).and_then(VectorColumn::new),
            fields: columns.fields.iter().filter_map(field).collect(),
        }
    }

    fn row(&self, i: usize, number: u64) -> RowResult {
        let source = SourceRef { file: self.file.name.clone(), row: number };
        self.parts(i, &source).map_err(|problem| Reject::new(source, problem.code, problem.message))
    }

    fn parts(&self, i: usize, source: &SourceRef) -> Result<Row, RowProblem> {
        let limits = &self.file.settings.limits;
        let caption = self.caption.as_ref().and_then(|c| c.get(i));
        if let Some(text) = caption.filter(|t| t.len() > limits.max_caption_bytes) {
            let message = format!("the caption has {} bytes; at most {} are allowed", text.len(), limits.max_caption_bytes);
            return Err(RowProblem { code: code::TEXT_TOO_LONG, message });
        }
        let mut row = Row {
            key: self.key.as_ref().and_then(|k| k.get(i)).and_then(key_text),
            picture: self.picture(i)?,
            caption: caption.map(str::to_owned),
            image_vector: self.vector(self.image_vector.as_ref(), i)?,
            text_vector: self.vector(self.text_vector.as_ref(), i)?,
            ..Row::at(source.clone())
        };
        for (name, column) in &self.fields {
            let Some(mut value) = column.get(i) else { continue };
            row.fields_cut += u64::from(cut(&mut value, limits.max_field_bytes));
            row.fields.insert((*name).to_owned(), value);
        }
        Ok(row)
    }

    fn picture(&self, i: usize) -> Result<Option<Vec<u8>>, RowProblem> {
        let max = self.file.settings.limits.max_picture_bytes;
        match self.picture.as_ref().and_then(|p| p.get(i)) {
            None => Ok(None),
            Some(PictureRef::Path(path)) => {
                self.file.followed_path.set(true);
                self.file.folder.read(&RelPath::parse(path)?, max).map(Some)
            }
            Some(PictureRef::Bytes(bytes)) if bytes.len() > max => Err(RowProblem {
                code: code::IMAGE_TOO_MANY_BYTES,
                message: format!("the picture has {} bytes; at most {max} are allowed", bytes.len()),
            }),
            Some(PictureRef::Bytes(bytes)) => Ok(Some(bytes.to_vec())),
        }
    }

    fn vector(&self, column: Option<&VectorColumn<'_>>, i: usize) -> Result<Option<Vec<f32>>, RowProblem> {
        let Some(values) = column.and_then(|c| c.get(i)) else { return Ok(None) };
        unit_vector(values, self.file.settings.mode).map(Some)
    }
}

/// Checks a ready-made vector and scales it to unit length.
pub(crate) fn unit_vector(values: Vec<f32>, mode: VectorMode) -> Result<Vec<f32>, RowProblem> {
    if let VectorMode::Ready { dim: Some(dim) } = mode
        && values.len() != dim
    {
        let message = format!("the vector has {} values, the pool's have {dim}", values.len());
        return Err(RowProblem { code: code::VECTOR_DIMENSION, message });
    }
    Embedding::normalized(values).map(Embedding::into_vec).map_err(|e| RowProblem {
        code: if matches!(e, EmbeddingError::NotFinite { .. }) { code::VECTOR_NOT_FINITE } else { code::VECTOR_ZERO },
        message: e.to_string(),
    })
}

fn key_text(value: Value) -> Option<String> {
    match value {
        Value::Text(text) => Some(text),
        Value::Int(number) => Some(number.to_string()),
        Value::Bool(_) | Value::Float(_) => None,
    }
}

/// Both ends of the file: the mark, and a footer that is no longer than the file and the limit.
fn check_ends(file: &mut File, name: &str, settings: &Settings) -> Result<(), SourceError> {
    let failed = |source| SourceError::Read { file: name.to_owned(), source };
    let refuse = |reason: String| Err(SourceError::Corrupt { file: name.to_owned(), reason });
    let info = file.metadata().map_err(failed)?;
    if !info.is_file() {
        return refuse("it is no plain file".to_owned());
    }
    let bytes = info.len();
    if bytes < 12 {
        return refuse(format!("it has only {bytes} bytes"));
    }
    let mut tail = [0; 8];
    file.seek(SeekFrom::End(-8)).map_err(failed)?;
    file.read_exact(&mut tail).map_err(failed)?;
    let [a, b, c, d, mark @ ..] = tail;
    if &mark != b"PAR1" && &mark != b"PARE" {
        return refuse("it does not end with a parquet footer; it was cut short, or is another kind of file".to_owned());
    }
    let footer = u64::from(u32::from_le_bytes([a, b, c, d]));
    if footer > bytes - 12 {
        return refuse(format!("its footer claims {footer} bytes of a file of {bytes}"));
    }
    limit(name, "the footer's length in bytes", footer, settings.limits.max_footer_bytes)
}

/// Row groups and column chunks as the footer claims them against the file.
fn check_footer(file: &File, name: &str, metadata: &ArrowReaderMetadata, settings: &Settings) -> Result<(), SourceError> {
    let bytes = file.metadata().map_err(|source| SourceError::Read { file: name.to_owned(), source })?.len();
    let refuse = |reason: String| Err(SourceError::Corrupt { file: name.to_owned(), reason });
    limit(name, "the number of columns", metadata.schema().fields().len() as u64, settings.limits.max_columns as u64)?;
    let mut rows: i64 = 0;
    for (number, group) in metadata.metadata().row_groups().iter().enumerate() {
        rows = match rows.checked_add(group.num_rows()) {
            Some(sum) if group.num_rows() >= 0 => sum,
            _ => return refuse(format!("row group {number} claims {} rows", group.num_rows())),
        };
        for chunk in group.columns() {
            let (start, length) = chunk.byte_range();
            if start.checked_add(length).is_none_or(|end| end > bytes) {
                return refuse(format!("row group {number}, column {} lies beyond the end of the file", chunk.column_path()));
            }
        }
    }
    let said = metadata.metadata().file_metadata().num_rows();
    if said == rows { Ok(()) } else { refuse(format!("its footer says {said} rows, its row groups have {rows}")) }
}

/// A fixed-size vector column of the wrong size is one error, not a reject for every row.
fn check_width(schema: &Schema, name: &str, columns: &Columns, settings: &Settings) -> Result<(), SourceError> {
    let VectorMode::Ready { dim } = settings.mode else { return Ok(()) };
    for at in [columns.image_vector, columns.text_vector].into_iter().flatten() {
        let Some(found) = width(schema, at) else { continue };
        limit(name, "the vectors' dimension", found as u64, settings.limits.max_dim as u64)?;
        if let Some(expected) = dim.filter(|&d| d != found) {
            let column = schema.field(at).name().clone();
            return Err(SourceError::Dimension { file: name.to_owned(), column, found, expected });
        }
    }
    Ok(())
}

fn width(schema: &Schema, at: usize) -> Option<usize> {
    match schema.field(at).data_type() {
        DataType::FixedSizeList(_, width) => usize::try_from(*width).ok(),
        _ => None,
    }
}

pub(crate) fn limit(file: &str, what: &'static str, found: u64, max: u64) -> Result<(), SourceError> {
    if found <= max { Ok(()) } else { Err(SourceError::Limit { file: file.to_owned(), what, found, max }) }
}

pub(crate) fn corrupt(name: &str, error: impl std::fmt::Display) -> SourceError {
    SourceError::Corrupt { file: name.to_owned(), reason: error.to_string() }
}

/// Runs `f`; its panic is a damaged file. Nothing of `f`'s state is used after a panic: the error ends the source.
fn guarded<T>(name: &str, f: impl FnOnce() -> Result<T, SourceError>) -> Result<T, SourceError> {
    catch_unwind(AssertUnwindSafe(f)).unwrap_or_else(|panic| {
        Err(SourceError::Corrupt {
            file: name.to_owned(),
            reason: format!("the reader gave up: {}", crate::panic_message(&*panic)),
        })
    })
}
