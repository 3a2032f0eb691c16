//! Where rows come from: files and folders to a stream of [`crate::Row`]s.
//!
//! ```text
//!   argument ──find──► Shard (one file, or one clip-retrieval partition) ──open──► ShardRows ──next_rows──► Row or Reject
//! ```
//!
//! | file | |
//! | --- | --- |
//! | `hub.rs` | datasets of the Hugging Face hub to files |
//! | `find.rs`, `pattern.rs` | arguments to shards and their names; braces, wildcards, order |
//! | `columns.rs` | which column is what |
//! | `parquet.rs`, `pages/` | rows of a parquet file; what its pages would take, before they are read |
//! | `values.rs` | arrow arrays to plain values |
//! | `tar/` | samples of a WebDataset tar |
//! | `pictures.rs`, `table.rs` | loose pictures with their captions beside them, or in a table |
//! | `json.rs`, `sidecar.rs` | JSON metadata; img2dataset's files beside its shards |
//! | `clip_retrieval.rs`, `npy.rs` | ready-made vectors with their metadata |
//! | `confined.rs`, `reach.rs` | paths that come as data; the folder beneath which sources must lie |
//!
//! A source gives rows in a fixed order and never skips one silently: what is no row is a reject. A damaged file is an error
//! that names it, after the rows before the damage.

mod clip_retrieval;
pub(crate) mod columns;
mod confined;
mod find;
pub(crate) mod hub;
mod json;
mod npy;
mod pages;
mod parquet;
mod pattern;
mod pictures;
mod reach;
mod sidecar;
mod table;
mod tar;
mod values;

use std::{path::PathBuf, sync::Arc};

use anchorite_index::Value;

use crate::{Limits, RowResult, SourceError, resume::digest};
use clip_retrieval::{ClipRows, Partition};
use columns::{ColumnOptions, ColumnsUsed};
use parquet::{ParquetRows, Purpose};
use pictures::PictureRows;
use table::TableRows;
use tar::TarRows;

pub(crate) use find::find;
pub use reach::Reach;

/// Whether vectors are made or taken as they come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VectorMode {
    /// An encoder makes them from pictures and captions; vector columns are ignored.
    Encode,
    /// The source has them. They must be by the encoder the pool is bound to; nothing here can check that.
    Ready {
        /// The pool's dimension; none accepts any.
        dim: Option<usize>,
    },
}

/// What readers need to know.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) columns: ColumnOptions,
    pub(crate) mode: VectorMode,
    pub(crate) limits: Limits,
    pub(crate) reach: Reach,
}

/// One file, one folder of loose pictures, or one partition of a clip-retrieval folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Shard {
    /// As [`anchorite_index::SourceRef::file`] has it: never absolute, and the same however the shard was found.
    pub(crate) name: String,
    /// The file or folder; shards of one argument are read in the natural order of these.
    place: PathBuf,
    kind: ShardKind,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum ShardKind {
    Parquet(PathBuf),
    Tar(PathBuf),
    /// CSV, TSV or JSON lines with the paths of pictures.
    Table(PathBuf),
    /// A folder of pictures; how many there are.
    Pictures(PathBuf, u64),
    ClipRetrieval(Partition),
}

/// A shard being read.
pub(crate) trait Rows {
    /// The next rows in order; none after the last.
    fn next_rows(&mut self) -> Result<Option<Vec<RowResult>>, SourceError>;

    /// How many there are, where headers or a file beside it say so.
    fn rows(&self) -> Option<u64>;

    /// What is used, as far as it is known by now.
    fn columns(&self) -> ColumnsUsed;

    /// The columns, where the file declares them.
    fn schema(&self) -> Option<&arrow_schema::Schema> {
        None
    }

    /// Values of a ready-made vector, where the headers say.
    fn dim(&self) -> Option<usize> {
        None
    }

    /// Bytes read of the file, and all of them, where rows can only be estimated.
    fn position(&self) -> Option<(u64, u64)> {
        None
    }

    /// Passes over at most `rows` rows where that is cheaper than reading them; says how many. Only before the first row.
    fn skip_some(&mut self, _rows: u64) -> u64 {
        0
    }

    /// Whether every row so far came from the shard's own files, so that these say whether it has changed.
    fn are_own(&self) -> bool {
        false
    }
}

impl Shard {
    pub(crate) fn open(&self, settings: &Arc<Settings>) -> Result<Box<dyn Rows>, SourceError> {
        Ok(match &self.kind {
            ShardKind::Parquet(path) => Box::new(ParquetRows::open(path, &self.name, Purpose::Whole, settings)?),
            ShardKind::Tar(path) => Box::new(TarRows::open(path, &self.name, settings)?),
            ShardKind::Table(path) => Box::new(TableRows::open(path, &self.name, settings)?),
            ShardKind::Pictures(folder, _) => Box::new(PictureRows::open(folder, &self.name, settings)?),
            ShardKind::ClipRetrieval(partition) => Box::new(ClipRows::open(&self.name, partition, settings)?),
        })
    }

    /// Rows, where they can be told without reading all of it; none also when it cannot be opened.
    pub(crate) fn rows(&self, settings: &Arc<Settings>) -> Option<u64> {
        match &self.kind {
            ShardKind::Tar(path) => sidecar::counted(path, &settings.reach).map(|counted| counted.successes),
            ShardKind::Table(_) => None,
            ShardKind::Pictures(_, count) => Some(*count),
            ShardKind::Parquet(_) | ShardKind::ClipRetrieval(_) => self.open(settings).ok()?.rows(),
        }
    }

    /// Rows that img2dataset could not download or resize, and that its tar or folder of pictures therefore has not.
    pub(crate) fn failed_before(&self, reach: &Reach) -> u64 {
        match &self.kind {
            ShardKind::Tar(path) | ShardKind::Pictures(path, _) => sidecar::counted(path, reach).map_or(0, |c| c.failures),
            ShardKind::Parquet(_) | ShardKind::Table(_) | ShardKind::ClipRetrieval(_) => 0,
        }
    }

    /// Bytes of the file, where it is one.
    pub(crate) fn file_bytes(&self) -> Option<u64> {
        match &self.kind {
            ShardKind::Parquet(path) | ShardKind::Tar(path) | ShardKind::Table(path) => Some(path.metadata().ok()?.len()),
            ShardKind::Pictures(..) | ShardKind::ClipRetrieval(_) => None,
        }
    }

    /// A digest of the length and the time of the last change of each of its files; none where it is no file, or cannot be
    /// looked at. Whoever puts other bytes of the same length into a file and sets its time back is not noticed.
    pub(crate) fn state(&self) -> Option<[u8; 8]> {
        let files: Vec<&PathBuf> = match &self.kind {
            ShardKind::Parquet(path) | ShardKind::Tar(path) | ShardKind::Table(path) => vec![path],
            ShardKind::Pictures(..) => return None,
            ShardKind::ClipRetrieval(parts) => [&parts.image, &parts.text, &parts.metadata].into_iter().flatten().collect(),
        };
        let mut states = Vec::new();
        for file in files {
            let info = file.metadata().ok()?;
            let changed = info.modified().ok()?.duration_since(std::time::UNIX_EPOCH).ok()?;
            states.extend(info.len().to_le_bytes());
            states.extend(changed.as_nanos().to_le_bytes());
        }
        Some(digest(&[&states]))
    }

    /// A digest of where it lies.
    pub(crate) fn place(&self) -> [u8; 8] {
        match hub::fetched(&self.place) {
            // The same whatever the commit, so that rows that a later one changed are changed rows.
            Some((repository, _, path)) => digest(&[b"hub dataset", repository.as_bytes(), path.as_bytes()]),
            None => digest(&[self.place.as_os_str().as_encoded_bytes()]),
        }
    }

    /// The commit of the hub's that it comes from.
    pub(crate) fn revision(&self) -> Option<String> {
        hub::fetched(&self.place).map(|(_, commit, _)| commit)
    }

    /// Whether it has vectors and nothing that an encoder could use.
    pub(crate) fn has_only_vectors(&self) -> bool {
        matches!(self.kind, ShardKind::ClipRetrieval(_))
    }
}

/// Cuts a text at the last character that fits; says whether it did.
pub(crate) fn cut(value: &mut Value, max: usize) -> bool {
    let Value::Text(text) = value else { return false };
    let too_long = text.len() > max;
    text.truncate(text.floor_char_boundary(max));
    too_long
}
