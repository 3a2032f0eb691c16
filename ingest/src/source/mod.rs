//! Where rows come from: files and folders to a stream of [`crate::Row`]s.
//!
//! ```text
//!   argument ──find──► Shard (one file, or one clip-retrieval partition) ──open──► ShardRows ──next_rows──► Row or Reject
//! ```
//!
//! | file | |
//! | --- | --- |
//! | `columns.rs` | which column is what |
//! | `parquet.rs` | rows of a parquet file |
//! | `values.rs` | arrow arrays to plain values |
//! | `clip_retrieval.rs`, `npy.rs` | ready-made vectors with their metadata |
//! | `confined.rs` | paths that come as data |
//!
//! A source gives rows in a fixed order and never skips one silently: what is no row is a reject. A damaged file is an error
//! that names it, after the rows before the damage.

mod clip_retrieval;
pub(crate) mod columns;
mod confined;
mod npy;
mod parquet;
mod values;

use std::{
    collections::HashSet,
    path::{Path, PathBuf},
    sync::Arc,
};

use crate::{Limits, RowResult, SourceError};
use clip_retrieval::{ClipRows, Partition};
use columns::{ColumnOptions, ColumnsUsed};
use parquet::{ParquetRows, Purpose};

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
}

/// One file, or one partition of a clip-retrieval folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Shard {
    /// As [`anchorite_index::SourceRef::file`] has it: relative to the argument, never absolute.
    pub(crate) name: String,
    kind: ShardKind,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum ShardKind {
    Parquet(PathBuf),
    ClipRetrieval(Partition),
}

/// The shards of all arguments, in order; those of a folder by name.
pub(crate) fn find(arguments: &[PathBuf], limits: &Limits) -> Result<Vec<Shard>, SourceError> {
    if arguments.is_empty() {
        return Err(SourceError::NoSources);
    }
    let mut shards = Vec::new();
    for path in arguments {
        let info = std::fs::metadata(path).map_err(|source| SourceError::Open { path: path.clone(), source })?;
        match info.is_dir() {
            true if clip_retrieval::is_clip_retrieval(path) => shards.extend(of_clip_retrieval(path)?),
            true => shards.extend(of_folder(path, limits)?),
            false => shards.push(Shard { name: file_name(path), kind: ShardKind::Parquet(path.clone()) }),
        }
    }
    let mut names = HashSet::new();
    match shards.iter().find(|shard| !names.insert(shard.name.as_str())) {
        Some(shard) => Err(SourceError::SameName { name: shard.name.clone() }),
        None => Ok(shards),
    }
}

/// Partitions are called after the folder: every such folder's files have the same names.
fn of_clip_retrieval(folder: &Path) -> Result<Vec<Shard>, SourceError> {
    let full = folder.canonicalize().map_err(|source| SourceError::Open { path: folder.to_owned(), source })?;
    let name = file_name(&full);
    let shard = |(label, partition)| Shard { name: format!("{name}/{label}"), kind: ShardKind::ClipRetrieval(partition) };
    Ok(clip_retrieval::partitions(folder, &name)?.into_iter().map(shard).collect())
}

fn of_folder(folder: &Path, limits: &Limits) -> Result<Vec<Shard>, SourceError> {
    let mut found = Vec::new();
    walk(folder, "", limits.max_folder_depth, &mut |name, path| {
        let room = found.len() <= limits.max_shards;
        if room {
            found.push(Shard { name, kind: ShardKind::Parquet(path) });
        }
        room
    })?;
    if found.len() > limits.max_shards {
        return Err(SourceError::TooManyShards { path: folder.to_owned(), max: limits.max_shards });
    }
    if found.is_empty() {
        return Err(SourceError::NothingFound { path: folder.to_owned() });
    }
    found.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(found)
}

/// Calls `take` with each parquet file until it says no. Hidden entries and our own reject lists are passed over.
fn walk(folder: &Path, prefix: &str, depth: usize, take: &mut dyn FnMut(String, PathBuf) -> bool) -> Result<(), SourceError> {
    let failed = |source| SourceError::Open { path: folder.to_owned(), source };
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let name = file_name(&path);
        if name.starts_with('.') {
            continue;
        }
        let full_name = format!("{prefix}{name}");
        if path.is_dir() {
            if depth > 0 {
                walk(&path, &format!("{full_name}/"), depth - 1, take)?;
            }
        } else if name.ends_with(".parquet") && !name.ends_with("rejects.parquet") && !take(full_name, path) {
            return Ok(());
        }
    }
    Ok(())
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// A shard being read.
pub(crate) enum ShardRows {
    Parquet(Box<ParquetRows>),
    ClipRetrieval(Box<ClipRows>),
}

impl Shard {
    pub(crate) fn open(&self, settings: &Arc<Settings>) -> Result<ShardRows, SourceError> {
        Ok(match &self.kind {
            ShardKind::Parquet(path) => {
                ShardRows::Parquet(Box::new(ParquetRows::open(path, &self.name, Purpose::Whole, settings)?))
            }
            ShardKind::ClipRetrieval(partition) => {
                ShardRows::ClipRetrieval(Box::new(ClipRows::open(&self.name, partition, settings)?))
            }
        })
    }

    /// Whether it has vectors and nothing that an encoder could use.
    pub(crate) fn has_only_vectors(&self) -> bool {
        matches!(self.kind, ShardKind::ClipRetrieval(_))
    }
}

impl ShardRows {
    /// The next rows in order; none after the last.
    pub(crate) fn next_rows(&mut self) -> Result<Option<Vec<RowResult>>, SourceError> {
        match self {
            Self::Parquet(rows) => rows.next_rows(),
            Self::ClipRetrieval(rows) => rows.next_rows(),
        }
    }

    /// Rows as the files' headers count them.
    pub(crate) fn rows(&self) -> u64 {
        match self {
            Self::Parquet(rows) => rows.rows(),
            Self::ClipRetrieval(rows) => rows.rows(),
        }
    }

    pub(crate) fn columns(&self) -> ColumnsUsed {
        match self {
            Self::Parquet(rows) => rows.columns(),
            Self::ClipRetrieval(rows) => rows.columns(),
        }
    }

    pub(crate) fn schema(&self) -> Option<&arrow_schema::Schema> {
        match self {
            Self::Parquet(rows) => Some(rows.schema()),
            Self::ClipRetrieval(rows) => rows.schema(),
        }
    }

    /// Values of a ready-made vector, where the headers say.
    pub(crate) fn dim(&self) -> Option<usize> {
        match self {
            Self::Parquet(rows) => rows.dim(),
            Self::ClipRetrieval(rows) => rows.dim(),
        }
    }
}
