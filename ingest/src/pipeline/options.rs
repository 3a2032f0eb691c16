//! What a run is told: where vectors come from, which rows, how often to commit.

use std::{num::NonZeroUsize, path::PathBuf, time::Duration};

use anchorite_encoder::Encode;
use serde::{Deserialize, Serialize};

use crate::{ColumnOptions, Earlier, Filters, Limits, Reach, VectorMode};

/// Where vectors come from.
#[derive(Clone, Copy)]
pub enum Vectors<'a> {
    /// This encoder makes them from pictures and captions.
    Encode(&'a dyn Encode),
    /// The sources have them. That they are by the pool's encoder is the caller's word.
    Ready {
        /// The pool's dimension; none accepts any, which only [`crate::plan`] should.
        dim: Option<usize>,
    },
}

impl Vectors<'_> {
    pub(crate) fn mode(self) -> VectorMode {
        match self {
            Self::Encode(_) => VectorMode::Encode,
            Self::Ready { dim } => VectorMode::Ready { dim },
        }
    }
}

/// What happens to a row that lacks one half (a null picture or caption, or a null vector).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Missing {
    /// It is rejected: a pool of pairs is for pairs.
    #[default]
    Reject,
    /// Its other half is kept. A row with neither is rejected all the same.
    KeepHalf,
}

/// Every `of`-th shard, from number `index` on: of several machines, one's part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    index: usize,
    of: usize,
}

/// A part that is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no part; write i/n with i from 0 to n - 1, as in 0/4")]
pub struct BadPart(String);

impl std::str::FromStr for Part {
    type Err = BadPart;

    fn from_str(text: &str) -> Result<Self, BadPart> {
        let numbers = text.split_once('/').and_then(|(i, n)| Some((i.trim().parse().ok()?, n.trim().parse().ok()?)));
        let part = numbers.map(|(index, of)| Self { index, of }).filter(|part| part.index < part.of);
        part.ok_or_else(|| BadPart(text.to_owned()))
    }
}

impl Part {
    pub(super) fn keep<T>(self, all: &mut Vec<T>) {
        let mut number = 0;
        all.retain(|_| {
            number += 1;
            (number - 1) % self.of == self.index
        });
    }
}

/// What happens to a row whose key the pool has for another picture or caption.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "clap", derive(clap::ValueEnum))]
#[cfg_attr(feature = "utoipa", derive(utoipa::ToSchema))]
pub enum OnChange {
    /// It takes the other's place if it is surely the same row: keys come from a key column, or the source was ingested before from
    /// the same path. Else it is a reject: two datasets may well have files of one name (`data/train-00000-of-00001.parquet`), and
    /// the second must not overwrite the first.
    #[default]
    SameSource,
    /// It takes the other's place.
    Upsert,
    /// It is a reject.
    Reject,
}

/// How to ingest.
#[derive(Clone, Debug)]
pub struct IngestOptions {
    /// Which columns serve.
    pub columns: ColumnOptions,
    /// Rows with one half.
    pub missing: Missing,
    /// Which rows are wanted.
    pub filters: Filters,
    /// Whether encoded picture bytes go into the pool. On by default.
    pub store_pictures: bool,
    /// Threads that decode and encode; none means one for each core.
    pub workers: Option<NonZeroUsize>,
    /// Pictures or captions that the encoder gets at once. 16.
    pub batch: NonZeroUsize,
    /// Accepted rows after which there is a commit before the end. 100,000: each commit is a segment, and many small ones make
    /// searching slower.
    pub commit_rows: u64,
    /// Time after which there is a commit likewise. 15 minutes: what a crash can cost where encoding is slow.
    pub commit_every: Duration,
    /// Changed rows.
    pub on_change: OnChange,
    /// Sources that earlier runs have read.
    pub earlier: Earlier,
    /// Rejects above which the outcome is [`crate::Outcome::TooManyRejects`]; none means any number.
    pub max_rejects: Option<u64>,
    /// Where the list of rejects goes (parquet); none means nowhere.
    pub rejects: Option<PathBuf>,
    /// Where the [`crate::Summary`] of the run goes (JSON); none means nowhere.
    pub summary: Option<PathBuf>,
    /// The part of the shards that this run is for; none means all of them.
    pub part: Option<Part>,
    /// The folder that the names of sources are relative to. None means that a source is called after its folder and itself.
    pub source_root: Option<PathBuf>,
    /// Where sources may lie. Anywhere.
    pub reach: Reach,
    /// Bounds.
    pub limits: Limits,
}

impl Default for IngestOptions {
    fn default() -> Self {
        Self {
            columns: ColumnOptions::default(),
            missing: Missing::default(),
            filters: Filters::default(),
            store_pictures: true,
            workers: None,
            batch: const { NonZeroUsize::new(16).expect("16 is not zero") },
            commit_rows: 100_000,
            commit_every: Duration::from_secs(15 * 60),
            on_change: OnChange::default(),
            earlier: Earlier::default(),
            max_rejects: None,
            rejects: None,
            summary: None,
            part: None,
            source_root: None,
            reach: Reach::default(),
            limits: Limits::default(),
        }
    }
}

/// What to ingest, and how.
#[derive(Clone, Copy)]
pub struct IngestJob<'a> {
    /// Parquet files, tars, tables, folders of them or of pictures, clip-retrieval folders, and patterns of these.
    pub sources: &'a [PathBuf],
    /// Where vectors come from.
    pub vectors: Vectors<'a>,
    /// How.
    pub options: &'a IngestOptions,
}
