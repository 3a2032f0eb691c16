//! Why a question is refused. Codes are stable: programs match on them, people read the sentence.

use std::path::PathBuf;

use anchorite_encoder::{EmbeddingError, EncodeError, ImageError, TextError};
use anchorite_index::{Key, RowId, Side, StoreError};
use anchorite_ingest::SourceError;

/// What is wrong with one question.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AskError {
    /// Nothing but white space.
    #[error("the text is empty; give at least one word")]
    EmptyText,
    /// The tokenizer refused it.
    #[error(transparent)]
    Text(TextError),
    /// The decoder refused it.
    #[error(transparent)]
    Picture(ImageError),
    /// A vector of the wrong length.
    #[error("the embedding has {found} values; this pool's have {expected}, so make it with this pool's model")]
    Dimension {
        /// The pool's dimension.
        expected: usize,
        /// The caller's.
        found: usize,
    },
    /// NaN, infinity, or a vector without a direction.
    #[error("{0}; give finite numbers that are not all zero")]
    Embedding(EmbeddingError),
    /// `k` of zero or above the store's limit.
    #[error("k is {k}; give a number between 1 and {max}")]
    K {
        /// As asked.
        k: usize,
        /// The store's limit.
        max: usize,
    },
    /// NaN or infinity.
    #[error("the threshold is not a finite number; give a cosine between -1 and 1, or leave it out")]
    Threshold,
    /// No cosine.
    #[error("near_duplicate is {value}; give a cosine between -1 and 1 (0.95 is usual), or leave it out")]
    NearDuplicate {
        /// As asked.
        value: f32,
    },
    /// NaN or infinity.
    #[error("a weight is not a finite number; give 1 for \"like this\", -1 for \"not like this\", or a share of it")]
    Weight,
    /// Inputs whose weighted sum is about zero.
    #[error("the inputs cancel each other out, so that nothing is left to look for; change their weights, or leave one out")]
    Cancelling,
    /// No such row.
    #[error("there is no row {row}; this pool's rows are 0 to {last}", row = row.0, last = rows.saturating_sub(1))]
    NoRow {
        /// As asked.
        row: RowId,
        /// Rows in the pool.
        rows: u64,
    },
    /// No such key.
    #[error("there is no pair with the key {key}; rows can be asked for by number as well")]
    NoKey {
        /// As asked.
        key: Key,
    },
    /// The pair lacks the vector asked for.
    #[error("row {row} has no {side} vector; ask from its other side, or by text or picture", row = row.0)]
    NoVector {
        /// The pair.
        row: RowId,
        /// The side asked for.
        side: Side,
    },
}

impl AskError {
    /// A stable short name for programs.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::EmptyText => "text_empty",
            Self::Text(e) => e.code(),
            Self::Picture(e) => e.code(),
            Self::Dimension { .. } => "embedding_dimension",
            Self::Embedding(_) => "embedding_values",
            Self::K { .. } => "k_out_of_range",
            Self::Threshold => "threshold_not_finite",
            Self::NearDuplicate { .. } => "near_duplicate_out_of_range",
            Self::Weight => "weight_not_finite",
            Self::Cancelling => "inputs_cancel",
            Self::NoRow { .. } | Self::NoKey { .. } => "pair_not_found",
            Self::NoVector { .. } => "pair_without_vector",
        }
    }
}

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RetrieveError {
    /// A question is wrong; the others were not answered either.
    #[error("{}{source}", position(*ask, *asks))]
    Ask {
        /// Which one, counted from 0.
        ask: usize,
        /// Of how many.
        asks: usize,
        /// What is wrong with it.
        source: AskError,
    },
    /// A batch could not be encoded.
    #[error(transparent)]
    Encode(#[from] EncodeError),
    /// The store refused or failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

fn position(ask: usize, asks: usize) -> String {
    if asks == 1 { String::new() } else { format!("query {ask}: ") }
}

impl RetrieveError {
    /// A stable short name for programs.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Ask { source, .. } => source.code(),
            Self::Encode(EncodeError::NoTower { .. }) => "no_tower",
            Self::Encode(_) => "encoder_failed",
            Self::Store(e) => store_code(e),
        }
    }
}

fn store_code(error: &StoreError) -> &'static str {
    match error {
        StoreError::Dimension { .. } => "embedding_dimension",
        StoreError::NotFinite { .. } | StoreError::Length { .. } => "embedding_values",
        StoreError::K { .. } => "k_out_of_range",
        StoreError::NoSide { .. } => "no_such_side",
        StoreError::Filter(e) => e.code(),
        StoreError::SpecMismatch { .. } => "encoder_mismatch",
        StoreError::Cancelled => "cancelled",
        StoreError::Corrupt { .. } => "pool_damaged",
        _ => "pool_failed",
    }
}

/// Why a policy is refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PolicyError {
    /// No JSON or TOML, an unknown field, or a value of the wrong type.
    #[error("the policy cannot be read: {reason}")]
    Syntax {
        /// The parser's word, with the place.
        reason: String,
    },
    /// Another version of the format.
    #[error("the policy has format {found}; this program reads format {supported}")]
    Format {
        /// As given.
        found: u32,
        /// Ours.
        supported: u32,
    },
    /// A value that makes no sense.
    #[error("the policy's {field} is refused; it is taken when it {rule}")]
    Value {
        /// Which field.
        field: &'static str,
        /// What it may be.
        rule: &'static str,
    },
}

/// Why anchors could not be curated.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CurateError {
    /// The policy.
    #[error(transparent)]
    Policy(#[from] PolicyError),
    /// The query file or a protected set.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The encoder.
    #[error(transparent)]
    Encode(#[from] EncodeError),
    /// The pool.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A text file of queries.
    #[error("read {}", path.display())]
    ReadQueries {
        /// The file.
        path: PathBuf,
        /// The system's word.
        source: std::io::Error,
    },
    /// Nothing to ask.
    #[error("no row of the query file is a query: {rejected} were refused, the first because {first}")]
    NoQueries {
        /// Rows refused.
        rejected: u64,
        /// Why the first was.
        first: String,
    },
    /// A class is needed and not there.
    #[error("query {query} has no class, and the policy speaks of classes; name their column with queries.class_column")]
    NoClass {
        /// The query.
        query: String,
    },
    /// A class number without a name.
    #[error("query {query} has label {label}, but queries.class_names has {names} names")]
    NoClassName {
        /// The query.
        query: String,
        /// Its number.
        label: i64,
        /// Names there are.
        names: usize,
    },
    /// Class minima that do not fit.
    #[error(
        "a minimum of {minimum} for each of {classes} classes is more than the target of {target}; lower one or raise the other"
    )]
    MinimumAboveTarget {
        /// For each class.
        minimum: usize,
        /// Classes there are.
        classes: usize,
        /// In all.
        target: usize,
    },
    /// More than [`crate::Limits`] allows.
    #[error("more than {max} {what}; split the work")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// The limit.
        max: usize,
    },
    /// A protected set without a single picture that can be read.
    #[error("protected set {set} has no picture that can be read; nothing would be protected by it")]
    EmptyProtected {
        /// Its name.
        set: String,
    },
}
