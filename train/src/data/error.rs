//! Why data is not what a run needs.

use std::path::PathBuf;

use anchorite_anchors::{CurateError, manifest::ManifestError};
use anchorite_encoder::EncodeError;
use anchorite_index::StoreError;
use anchorite_ingest::SourceError;

/// Why there is no batch.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DataError {
    /// A source.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The run's own file of rows.
    #[error("{action} the run's file of rows (in its output folder; it takes as much room as the pictures)")]
    Spool {
        /// What was tried.
        action: &'static str,
        /// The system's word.
        source: std::io::Error,
    },
    /// More than a run can have.
    #[error("more than 4,294,967,295 {what}; split the set")]
    TooMany {
        /// Of what.
        what: &'static str,
    },
    /// More unusable rows than allowed.
    #[error("{set}: {rejected} rows are unusable, data.max_rejects allows {allowed}; the first: {first}")]
    Rejects {
        /// Which set.
        set: &'static str,
        /// How many.
        rejected: u64,
        /// As configured.
        allowed: u64,
        /// The first, with its reason.
        first: String,
    },
    /// A set that fills no batch.
    #[error("{set}: {rows} rows are fewer than the {batch} of a batch; {remedy}")]
    FewerThanBatch {
        /// Which set.
        set: &'static str,
        /// Found.
        rows: usize,
        /// Needed.
        batch: usize,
        /// What to do.
        remedy: &'static str,
    },
    /// Nothing to tell apart.
    #[error(
        "task: all {rows} rows are of one class, {class:?}; a contrastive loss needs at least two (is {column:?} the right column?)"
    )]
    OneClass {
        /// Rows.
        rows: usize,
        /// The class.
        class: String,
        /// Where it was looked for.
        column: String,
    },
    /// A file of names or keys.
    #[error("read {}", path.display())]
    ReadFile {
        /// The file.
        path: PathBuf,
        /// The system's word.
        source: std::io::Error,
    },
    /// A column that no row has.
    #[error("{set}: no row has a column {column:?}; name it with {field} (columns of the first row: {columns})")]
    NoColumn {
        /// Which set.
        set: &'static str,
        /// The name.
        column: String,
        /// The field of the run file.
        field: &'static str,
        /// What is there.
        columns: String,
    },
    /// Captions that fit no picture.
    #[error("captions: {}: none of its {captions} keys is a key of the finetune set (such as {example:?}); is task.key the right column?", path.display())]
    NoCaptionMatches {
        /// The file.
        path: PathBuf,
        /// Keys in it.
        captions: usize,
        /// One of the finetune set's.
        example: String,
    },
    /// The manifest.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// The pool.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The policy.
    #[error(transparent)]
    Curate(#[from] CurateError),
    /// The encoder of queries.
    #[error(transparent)]
    Encode(#[from] EncodeError),
    /// A manifest whose pairs are not in the pool.
    #[error(
        "anchors: {missing} of {anchors} anchors of the manifest are not in the pool with the same content (the first: {first}); \
             `anchorite anchors verify` says more"
    )]
    AnchorsGone {
        /// Not found.
        missing: usize,
        /// In all.
        anchors: usize,
        /// A key.
        first: String,
    },
    /// A policy that found too little for a batch.
    #[error(
        "anchors: batch {batch}: the policy found {found} anchors for {queries} queries, fewer than 2; loosen its threshold or exclusions"
    )]
    NoAnchors {
        /// Which batch.
        batch: u64,
        /// Anchors.
        found: usize,
        /// Queries.
        queries: usize,
    },
    /// The server could not be asked, again and again.
    #[error("anchors: {url} gave no answer in {tries} tries; the last: {reason}")]
    Server {
        /// Its address.
        url: String,
        /// Requests made.
        tries: u32,
        /// The last failure.
        reason: String,
    },
    /// The server refused.
    #[error("anchors: {url} refused: {reason}")]
    Refused {
        /// Its address.
        url: String,
        /// Its word.
        reason: String,
    },
    /// The server's pool changed.
    #[error(
        "anchors: the pool behind {url} changed from generation {before} to {now} while training, so that the run could not be \
         repeated; go on with --resume and --set anchors.follow_generations=true, or make a manifest"
    )]
    GenerationChanged {
        /// Its address.
        url: String,
        /// At the start.
        before: u64,
        /// Now.
        now: u64,
    },
    /// The server's encoder is another's.
    #[error(
        "anchors: the pool behind {url} was filled by encoder {found}, not by {expected}; set anchors.encoder or take its pool"
    )]
    OtherEncoder {
        /// Its address.
        url: String,
        /// The server's.
        found: String,
        /// The run's.
        expected: String,
    },
    /// A row that was readable at the start no longer is.
    #[error("{set}, row {row}: {reason}")]
    Row {
        /// Which set.
        set: &'static str,
        /// Its number among the accepted.
        row: usize,
        /// What is wrong.
        reason: String,
    },
    /// Cancelled.
    #[error("cancelled")]
    Cancelled,
}
