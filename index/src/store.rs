//! The seam between an index and everything above it. Two stores implement it (the on-disk pool and [`crate::memory`]),
//! and one conformance suite (`tests/store_conformance/`) runs on both. A distributed engine is the third, later.
//!
//! The traits are blocking: searching is computation and page faults. Async callers cross over on a bounded blocking pool.

use crate::{Answer, Cancel, ContentHash, Field, Filter, FilterError, Key, Pair, Query, Record, RowId, Side};

/// What a pool is bound to for life.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Spec {
    /// Fingerprint of the encoder whose vectors these are (hex SHA-256 over model, preprocessing and tokenizer).
    pub encoder: String,
    /// Values per vector.
    pub dim: usize,
}

/// What a store keeps of every vector, and so what its scores are computed from, those of an exact search included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Precision {
    /// As given.
    #[serde(rename = "f32")]
    Single,
    /// Rounded to half precision: cosines are off by less than 0.001. The default of a pool on disk.
    #[default]
    #[serde(rename = "f16")]
    Half,
    /// 7 bits a value and a scale a vector: a third of the bytes, and cosines that are off by 0.0006 (one standard deviation at
    /// 512 values; 0.004 at most among 5 x 10^7). Neighbours that are nearer to each other than that may change places, in exact answers too.
    #[serde(rename = "7-bit")]
    SevenBit,
}

impl std::fmt::Display for Precision {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Single => "f32",
            Self::Half => "f16",
            Self::SevenBit => "7-bit",
        })
    }
}

/// Which parts of a record to read besides key, source, caption and fields.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Parts {
    /// The stored picture bytes.
    pub picture: bool,
    /// Both vectors.
    pub vectors: bool,
}

/// What [`PairSink::upsert`] did with a batch; the sum is the batch's length.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Upserted {
    /// Pairs whose key was new.
    pub added: u64,
    /// Pairs that took the place of another of the same key.
    pub replaced: u64,
    /// Pairs that were there already with the same content hash; nothing was written for them.
    pub unchanged: u64,
}

/// What a store says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreStatus {
    /// Rows that are alive.
    pub rows: u64,
    /// Rows that are alive and have an image vector.
    pub image_rows: u64,
    /// Rows that are alive and have a text vector.
    pub text_rows: u64,
    /// Row numbers given out: every [`RowId`] is below it. Above `rows` by the dead rows, which keep their numbers until the
    /// store is compacted.
    pub positions: u64,
    /// The generation that answers.
    pub generation: u64,
}

/// Why a store refused or failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// A vector of the wrong length.
    #[error("the vector has {found} values, the pool's have {expected}")]
    Dimension {
        /// The pool's dimension.
        expected: usize,
        /// The caller's.
        found: usize,
    },
    /// NaN or infinity.
    #[error("value {position} of the vector is not finite")]
    NotFinite {
        /// Index of the first such value.
        position: usize,
    },
    /// A stored vector must be of unit length (1 within 1e-3); a query must not be zero.
    #[error("the vector's length is {length}, which is not allowed here")]
    Length {
        /// Euclidean length.
        length: f32,
    },
    /// `k` of zero or above the store's limit.
    #[error("k is {k}; it must be between 1 and {max}")]
    K {
        /// As asked.
        k: usize,
        /// The store's limit.
        max: usize,
    },
    /// No row has a vector of this side.
    #[error("this pool has no {side} vectors")]
    NoSide {
        /// The side asked for.
        side: Side,
    },
    /// A filter that is malformed, or does not fit what the pairs hold.
    #[error(transparent)]
    Filter(#[from] FilterError),
    /// A pair without any vector.
    #[error("pair {key} has neither an image nor a text vector")]
    NoVector {
        /// The pair.
        key: Key,
    },
    /// A key twice in one batch, or already in the store.
    #[error("key {key} is there already")]
    Duplicate {
        /// The key.
        key: Key,
    },
    /// The pool belongs to another encoder or has another dimension.
    #[error(
        "the pool was built by encoder {}, not by {}; use that model, or a new pool",
        named(.pool_model, .pool, .pool_dim),
        named(.encoder_model, .encoder, .encoder_dim)
    )]
    SpecMismatch {
        /// The pool's fingerprint.
        pool: String,
        /// Name of the pool's model; empty when it is not known.
        pool_model: String,
        /// The pool's dimension.
        pool_dim: usize,
        /// The caller's fingerprint.
        encoder: String,
        /// Name of the caller's model; empty when it is not known.
        encoder_model: String,
        /// The caller's dimension.
        encoder_dim: usize,
    },
    /// A pool keeps vectors as it was made to.
    #[error(
        "the pool keeps {pool} vectors, not {asked} ones; leave the choice to the pool, or merge it into a new one that keeps {asked} vectors"
    )]
    PrecisionFixed {
        /// The pool's.
        pool: Precision,
        /// The caller's.
        asked: Precision,
    },
    /// Vectors that were rounded more than this pool's are.
    #[error(
        "{part} keeps {found} vectors and this pool {kept} ones; what was rounded away does not come back: merge into a pool that keeps {found} vectors"
    )]
    Rounded {
        /// The pool whose pairs were to be taken.
        part: String,
        /// What it keeps.
        found: Precision,
        /// What this pool keeps.
        kept: Precision,
    },
    /// The caller raised its [`Cancel`].
    #[error("cancelled")]
    Cancelled,
    /// Damage on disk, named.
    #[error("{file} is damaged at byte {offset}: {reason}")]
    Corrupt {
        /// File name within the pool.
        file: String,
        /// Where.
        offset: u64,
        /// What is wrong.
        reason: String,
    },
    /// A stream that is no snapshot, or not all of one.
    #[error("the stream is no whole snapshot: {entry}: {reason}; nothing of it was kept")]
    Stream {
        /// The entry, quoted.
        entry: String,
        /// What is wrong.
        reason: String,
    },
    /// The operating system said no.
    #[error("{action} {file}")]
    Io {
        /// What was tried ("write", "open", ...).
        action: &'static str,
        /// File name within the pool.
        file: String,
        /// The system's word.
        source: std::io::Error,
    },
    /// An earlier write failed; the writer takes no more until the pool is opened again.
    #[error("an earlier write to this pool failed; open it again")]
    Latched,
    /// Another writer has the pool.
    #[error("another writer holds {file} ({holder}); a pool has one writer at a time: wait for it or stop it")]
    Locked {
        /// The lock file.
        file: String,
        /// What the lock file says of its holder.
        holder: String,
    },
    /// The folder has other things in it and no manifest.
    #[error("{folder} is no pool: it has no manifest but holds {found}; name an empty folder or a pool")]
    NotAPool {
        /// As given.
        folder: String,
        /// One of the other things.
        found: String,
    },
    /// A file of another format version.
    #[error("{file} has format version {found}, this program reads version {supported}; use the program that wrote it")]
    Version {
        /// File name within the pool.
        file: String,
        /// Its version.
        found: u32,
        /// Ours.
        supported: u32,
    },
    /// Something longer or more than [`crate::Limits`] allows.
    #[error("{what} of {found} is over the limit of {max}")]
    TooLarge {
        /// What it is ("caption", "picture", ...).
        what: &'static str,
        /// Its size.
        found: u64,
        /// The limit.
        max: u64,
    },
    /// A metadata number that is NaN or infinite.
    #[error("field {field} of pair {key} is not finite")]
    FieldNotFinite {
        /// The pair.
        key: Key,
        /// The field.
        field: String,
    },
    /// Build parameters that make no graph.
    #[error("{name} is {value}; it must be between {min} and {max}")]
    Parameter {
        /// Which.
        name: &'static str,
        /// As given.
        value: u64,
        /// Smallest allowed.
        min: u64,
        /// Largest allowed.
        max: u64,
    },
}

/// An encoder for people: fingerprint, dimension, and its model's name where there is one.
fn named(model: &str, fingerprint: &str, dim: &usize) -> String {
    if model.is_empty() {
        return format!("{fingerprint} (dimension {dim})");
    }
    format!("{fingerprint} (model {model}, dimension {dim})")
}

/// Reading: many threads at once, always one generation per call.
pub trait PairStore: Send + Sync {
    /// What the store is bound to.
    fn spec(&self) -> &Spec;

    /// Name of the model behind [`Spec::encoder`], for people; `None` when the store does not know it.
    fn model(&self) -> Option<&str> {
        None
    }

    /// What scores are computed from.
    fn precision(&self) -> Precision;

    /// Largest `k` a query may ask for.
    fn max_k(&self) -> usize;

    /// Counts and generation.
    fn status(&self) -> StoreStatus;

    /// Bytes that name this generation's files with their lengths and checksums: equal bytes mean an equal index, graph and all. `None` for a
    /// store without files.
    fn identity(&self) -> Option<Vec<u8>> {
        None
    }

    /// Answers every query, in order. Scores are cosine; ties by row.
    ///
    /// # Errors
    /// Bad queries ([`StoreError::Dimension`], [`StoreError::NotFinite`], [`StoreError::Length`], [`StoreError::K`],
    /// [`StoreError::NoSide`], [`StoreError::Filter`] unless the store is empty), damage met on the way, or [`StoreError::Cancelled`].
    fn search(&self, queries: &[Query], cancel: &Cancel) -> Result<Vec<Answer>, StoreError>;

    /// Records by position, in order; `None` for a row that is not there or dead.
    ///
    /// # Errors
    /// Damage met on the way.
    fn get(&self, rows: &[RowId], parts: Parts) -> Result<Vec<Option<Record>>, StoreError>;

    /// Positions by key, in order.
    ///
    /// # Errors
    /// Damage met on the way.
    fn find(&self, keys: &[Key]) -> Result<Vec<Option<RowId>>, StoreError>;

    /// The metadata fields that pairs have, by name: what a filter may compare, besides the names every pair has. The first call may read
    /// every record.
    ///
    /// # Errors
    /// Damage met on the way, or [`StoreError::Cancelled`].
    fn fields(&self, cancel: &Cancel) -> Result<Vec<Field>, StoreError>;
}

/// Writing: one writer at a time. A batch that is refused leaves the store as it was. Nothing is visible or durable before
/// [`PairSink::commit`], and one commit shows all of it at once: a replaced row dies in the commit that brings its successor.
pub trait PairSink {
    /// The content hash of the pair of this key, if one was appended or committed before and is alive: tells a row that is there already from
    /// another row of the same name.
    ///
    /// # Errors
    /// Damage met on the way.
    fn content(&self, key: &Key) -> Result<Option<ContentHash>, StoreError>;

    /// Takes a batch of pairs whose keys are new.
    ///
    /// # Errors
    /// Bad pairs ([`StoreError::Dimension`], [`StoreError::NotFinite`], [`StoreError::Length`], [`StoreError::NoVector`],
    /// [`StoreError::Duplicate`]) or a failed write, after which the sink is [`StoreError::Latched`].
    fn append(&mut self, batch: &[Pair]) -> Result<(), StoreError>;

    /// Takes a batch; a pair whose key is there with another content hash takes the other's place, one with the same content hash
    /// changes nothing.
    ///
    /// # Errors
    /// As [`PairSink::append`]; [`StoreError::Duplicate`] only for a key twice in the batch.
    fn upsert(&mut self, batch: &[Pair]) -> Result<Upserted, StoreError>;

    /// Deletes the pairs of these keys, appended ones included, and returns how many there were; a key that is not there is no
    /// error.
    ///
    /// # Errors
    /// Damage met on the way, or [`StoreError::Latched`]; then nothing is deleted.
    fn delete(&mut self, keys: &[Key]) -> Result<u64, StoreError>;

    /// Deletes every pair that matches, appended ones included, and returns how many there were.
    ///
    /// # Errors
    /// [`StoreError::Filter`] for a filter that does not fit what the pairs hold, unless there are none; damage met on the way, a
    /// failed write or [`StoreError::Cancelled`]. Then nothing is deleted.
    fn delete_where(&mut self, filter: &Filter, cancel: &Cancel) -> Result<u64, StoreError>;

    /// What was committed, for searching while it is written to; none where the sink cannot be asked.
    fn searchable(&self) -> Option<&dyn PairStore> {
        None
    }

    /// The owner's watermark as last committed or set.
    fn progress(&self) -> &[u8];

    /// As [`PairSink::commit`], with a new watermark: opaque bytes that are stored in the same commit, so that rows and watermark
    /// cannot disagree. A changed watermark alone is a commit.
    ///
    /// # Errors
    /// As [`PairSink::commit`]; [`StoreError::TooLarge`] for a watermark over [`crate::Limits::progress_bytes`].
    fn commit_with(&mut self, progress: &[u8], cancel: &Cancel) -> Result<u64, StoreError>;

    /// Makes everything appended, replaced and deleted so far durable and searchable by readers that open or reload after this returns, and
    /// returns the new generation. With nothing to do it changes nothing and returns the present one.
    ///
    /// # Errors
    /// A failed write, after which nothing of this commit is visible and the sink is [`StoreError::Latched`].
    fn commit(&mut self, cancel: &Cancel) -> Result<u64, StoreError>;
}
