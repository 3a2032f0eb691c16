//! Rows that were not ingested: their reasons, and the file that lists them.
//!
//! The list streams to a temporary file beside its place and takes the place by rename, so that a reader sees the old list
//! or the whole new one, and memory does not grow with the number of rejects.

use std::{
    borrow::Cow,
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use anchorite_index::SourceRef;
use arrow_array::{ArrayRef, RecordBatch, StringArray, UInt64Array};
use parquet::arrow::ArrowWriter;

/// One row that was not ingested.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reject {
    /// Which row.
    pub source: SourceRef,
    /// Stable short name of the reason: one of [`code`], or an encoder's own (`image_damaged`, `text_too_long`, ...).
    pub code: &'static str,
    /// The reason in words.
    pub message: Cow<'static, str>,
}

impl Reject {
    pub(crate) fn new(source: SourceRef, code: &'static str, message: impl Into<Cow<'static, str>>) -> Self {
        Self { source, code, message: message.into() }
    }

    /// Whether the row was filtered out at the caller's wish, and nothing is wrong with it.
    #[must_use]
    pub fn is_filtered(&self) -> bool {
        self.code.starts_with("filtered_")
    }
}

/// A reject whose row is not known yet at the place where it is found out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RowProblem {
    pub(crate) code: &'static str,
    pub(crate) message: String,
}

impl RowProblem {
    pub(crate) fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }
}

/// The reasons that ingest itself gives. Pictures and captions that the encoder refuses carry its codes
/// (`ImageError::code`, `TextError::code`).
pub mod code {
    /// The picture column is null (and the path, in a struct column).
    pub const IMAGE_NULL: &str = "image_null";
    /// The caption column is null, an empty list, or blank.
    pub const CAPTION_NULL: &str = "caption_null";
    /// More bytes than [`crate::Limits::max_picture_bytes`].
    pub const IMAGE_TOO_MANY_BYTES: &str = "image_too_many_bytes";
    /// More bytes than [`crate::Limits::max_caption_bytes`].
    pub const TEXT_TOO_LONG: &str = "text_too_long";
    /// A path that is absolute, has `..`, a control character or the like.
    pub const PATH_INVALID: &str = "path_invalid";
    /// A path with a URL in it.
    pub const PATH_IS_URL: &str = "path_is_url";
    /// A path with a symbolic link in it, out of the folder, or to something that is no plain file.
    pub const PATH_REFUSED: &str = "path_refused";
    /// A path to nothing.
    pub const PATH_MISSING: &str = "path_missing";
    /// A file that could not be read.
    pub const PATH_UNREADABLE: &str = "path_unreadable";
    /// The key column is null.
    pub const KEY_NULL: &str = "key_null";
    /// The key has other characters than keys have, or is too long.
    pub const KEY_INVALID: &str = "key_invalid";
    /// The pool has a pair of this key that was made from something else.
    pub const KEY_CHANGED: &str = "key_changed";
    /// An earlier row of the same source has this key.
    pub const KEY_DUPLICATE: &str = "key_duplicate";
    /// A ready-made vector is null.
    pub const VECTOR_NULL: &str = "vector_null";
    /// A ready-made vector has another number of values than the pool's.
    pub const VECTOR_DIMENSION: &str = "vector_dimension";
    /// NaN or infinity in a ready-made vector.
    pub const VECTOR_NOT_FINITE: &str = "vector_not_finite";
    /// A ready-made vector of length zero.
    pub const VECTOR_ZERO: &str = "vector_zero";
    /// The downloader that made the dataset could not fetch or resize the picture.
    pub const DOWNLOAD_FAILED: &str = "download_failed";
    /// A caption that is no UTF-8.
    pub const TEXT_INVALID: &str = "text_invalid";
    /// Metadata that is no JSON object, or too long.
    pub const METADATA_INVALID: &str = "metadata_invalid";
    /// A line of a table with another number of values than its header, or no UTF-8.
    pub const ROW_INVALID: &str = "row_invalid";
    /// Two members of one kind in a tar's sample.
    pub const MEMBER_DUPLICATE: &str = "member_duplicate";
    /// Fewer words than [`crate::Filters::min_caption_words`].
    pub const FILTERED_CAPTION_SHORT: &str = "filtered_caption_short";
    /// More words than [`crate::Filters::max_caption_words`].
    pub const FILTERED_CAPTION_LONG: &str = "filtered_caption_long";
    /// A picture smaller than [`crate::Filters::min_image_edge`].
    pub const FILTERED_IMAGE_SMALL: &str = "filtered_image_small";
    /// An earlier row of the run has the same picture and caption.
    pub const FILTERED_DUPLICATE: &str = "filtered_duplicate";
    /// Picture and caption less alike than [`crate::Filters::min_clip_score`].
    pub const FILTERED_CLIP_SCORE: &str = "filtered_clip_score";
    /// The encoder failed on this row alone.
    pub const ENCODE_FAILED: &str = "encode_failed";
}

/// Rows held before they are written to the list.
const BATCH: usize = 1_024;

/// The reject list while it is written.
pub(crate) struct RejectsFile {
    path: PathBuf,
    unfinished: PathBuf,
    writer: Option<ArrowWriter<File>>,
    pending: Vec<Reject>,
}

impl RejectsFile {
    pub(crate) fn create(path: &Path) -> io::Result<Self> {
        let name = path.file_name().ok_or_else(|| io::Error::other("the reject list's path has no file name"))?;
        let unfinished = path.with_file_name(format!(".{}.{}.unfinished", name.to_string_lossy(), std::process::id()));
        let file = File::create(&unfinished)?;
        let empty = columns(&[]).map_err(io::Error::other)?;
        let writer = ArrowWriter::try_new(file, empty.schema(), None).map_err(io::Error::other)?;
        Ok(Self { path: path.to_owned(), unfinished, writer: Some(writer), pending: Vec::new() })
    }

    pub(crate) fn add(&mut self, reject: Reject) -> io::Result<()> {
        self.pending.push(reject);
        if self.pending.len() < BATCH { Ok(()) } else { self.flush() }
    }

    fn flush(&mut self) -> io::Result<()> {
        let batch = columns(&self.pending).map_err(io::Error::other)?;
        self.pending.clear();
        match &mut self.writer {
            Some(writer) => writer.write(&batch).map_err(io::Error::other),
            None => Ok(()),
        }
    }

    /// Puts the list in its place, over an earlier one.
    pub(crate) fn finish(mut self) -> io::Result<()> {
        self.flush()?;
        if let Some(writer) = self.writer.take() {
            writer.into_inner().map_err(io::Error::other)?.sync_all()?;
            fs::rename(&self.unfinished, &self.path)?;
            sync_folder_of(&self.path)?;
        }
        Ok(())
    }
}

impl Drop for RejectsFile {
    fn drop(&mut self) {
        if self.writer.is_some() {
            // Unfinished: the earlier list stays. A failure here leaves a hidden file behind, nothing worse.
            let _ = fs::remove_file(&self.unfinished);
        }
    }
}

fn sync_folder_of(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()
}

fn columns(rejects: &[Reject]) -> Result<RecordBatch, arrow_schema::ArrowError> {
    let text = |f: fn(&Reject) -> &str| Arc::new(StringArray::from_iter_values(rejects.iter().map(f))) as ArrayRef;
    RecordBatch::try_from_iter([
        ("source_file", text(|r| &r.source.file)),
        ("row", Arc::new(UInt64Array::from_iter_values(rejects.iter().map(|r| r.source.row))) as ArrayRef),
        ("code", text(|r| r.code)),
        ("message", text(|r| &r.message)),
    ])
}
