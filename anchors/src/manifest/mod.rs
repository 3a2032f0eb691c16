//! The choice as a file: a parquet table of every hit that was looked at, and in its metadata all that is needed to make it again.
//!
//! A row is a hit of a query: `query, class, rank, score, direction, key, row, content, caption, kept, reason, detail, group, split`.
//! Rows stand by query, in the order in which the query looked at its hits. `content` is the pair's content hash in hexadecimal: a
//! manifest names bytes, not places. The metadata key [`HEADER_KEY`] holds a [`Header`] as JSON. Nothing of the file depends on time, place or
//! threads, so that equal work gives equal bytes.
//!
//! | file | what |
//! |---|---|
//! | `write.rs` | the table, as parquet or JSON |
//! | `read.rs` | the anchors read back |
//! | `verify.rs` | whether a pool still has them |

mod read;
mod verify;
mod write;

use std::{io, path::PathBuf};

use anchorite_index::{Effort, PairStore, StoreError};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{Curated, Policy, Protected, Questions, Report, questions::hex};
pub use read::{Manifest, Named, read};
pub use verify::{Coverage, verify};
pub use write::{to_bytes, to_json, write};

/// The metadata key of the [`Header`].
pub const HEADER_KEY: &str = "anchorite.manifest";
/// The version of the format that this program reads and writes.
pub const FORMAT: u32 = 1;
/// Rows of one record batch while writing and reading.
const BATCH: usize = 8_192;
/// What [`Header::search`] and the direction column say of pairs that were chosen by hand.
pub const CHOSEN: &str = "chosen";
/// The split of anchors that are set aside.
const VALIDATION: &str = "validation";
/// Bytes of a header that are parsed: ten times what 100,000 matches take.
const MAX_HEADER_BYTES: usize = 256 << 20;

/// What a manifest says of itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Header {
    /// [`FORMAT`].
    pub format: u32,
    /// What wrote it.
    pub written_by: String,
    /// The policy in full.
    pub policy: Policy,
    /// The pool as it was.
    pub pool: PoolRef,
    /// The queries.
    pub queries: QueriesRef,
    /// SHA-256 over the bytes of all protected pictures, in order.
    pub protected: String,
    /// Fingerprint of the copy-detection model, where one took part.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub copy_model: Option<String>,
    /// Whether every row was compared: `exact` or `approximate`; [`CHOSEN`] where no search decided.
    pub search: String,
    /// SHA-256 over the anchors' content hashes, in file order: two manifests of one choice agree in it.
    pub anchors: String,
    /// Counts.
    pub report: Report,
}

/// The pool that a manifest chose from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolRef {
    /// Fingerprint of the encoder.
    pub encoder: String,
    /// Values of a vector.
    pub dim: usize,
    /// The generation that answered.
    pub generation: u64,
    /// SHA-256 of what names every file of that generation with its checksum ([`PairStore::identity`]): the index, its graphs included.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub index: Option<String>,
    /// Its rows.
    pub rows: u64,
}

/// The queries of a manifest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueriesRef {
    /// How many.
    pub count: u64,
    /// [`Questions::hash`].
    pub sha256: String,
}

/// Why a manifest could not be written or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ManifestError {
    /// The operating system said no.
    #[error("{action} {}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's word.
        source: io::Error,
    },
    /// It could not be put into parquet.
    #[error("write the manifest: {reason}")]
    Write {
        /// The writer's word.
        reason: String,
    },
    /// No manifest, or a damaged one.
    #[error("{} is no manifest that can be read: {reason}", path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// Another version of the format.
    #[error("{} has manifest format {found}; this program reads format {FORMAT}: use the program that wrote it", path.display())]
    Version {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u64,
    },
    /// The pool.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Header {
    /// Describes a finished run.
    #[must_use]
    pub fn new(store: &dyn PairStore, policy: &Policy, questions: &Questions, protected: &Protected, curated: &Curated) -> Self {
        let mut anchors = Sha256::new();
        curated.entries.iter().filter(|e| e.reason.is_none()).for_each(|e| anchors.update(e.content.0));
        let status = store.status();
        Self {
            format: FORMAT,
            written_by: concat!("anchorite ", env!("CARGO_PKG_VERSION")).to_owned(),
            policy: policy.clone(),
            pool: PoolRef {
                encoder: store.spec().encoder.clone(),
                dim: store.spec().dim,
                generation: status.generation,
                index: store.identity().map(|bytes| hex(&Sha256::digest(bytes))),
                rows: status.rows,
            },
            queries: QueriesRef { count: questions.list.len() as u64, sha256: questions.hash() },
            protected: protected.hash(),
            copy_model: protected.copy_model().map(str::to_owned),
            search: if policy.effort == Effort::Exact { "exact" } else { "approximate" }.to_owned(),
            anchors: hex(&anchors.finalize()),
            report: curated.report.clone(),
        }
    }
}
