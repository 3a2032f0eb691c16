//! Why a run ends early. What is wrong with a single row is a [`crate::Reject`], not an error.

use std::path::PathBuf;

use anchorite_encoder::EncodeError;
use anchorite_index::StoreError;

use crate::{IngestReport, SampleDisagreement};

/// Why a source cannot be read (on).
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SourceError {
    /// The argument does not exist or cannot be looked at.
    #[error("cannot open {}", path.display())]
    Open {
        /// The path as given or found.
        path: PathBuf,
        /// The system's word.
        source: std::io::Error,
    },
    /// An argument that names nothing beneath the folder that sources are confined to.
    #[error("{} is refused: {reason}; name a path below the folder of sources, without links", argument.display())]
    Refused {
        /// As given.
        argument: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A picture by itself.
    #[error("{} is a picture; name its folder, and every picture in it is taken with the caption beside it", path.display())]
    Picture {
        /// The picture.
        path: PathBuf,
    },
    /// A folder with nothing in it that ingest reads.
    #[error(
        "{}: nothing to ingest found: no parquet file (*.parquet), tar (*.tar, *.tar.gz), table (*.jsonl, *.csv, *.tsv), picture \
         (*.jpg, *.png, *.webp) or clip-retrieval folder (img_emb/, text_emb/)",
        path.display()
    )]
    NothingFound {
        /// The folder.
        path: PathBuf,
    },
    /// No source given at all.
    #[error("no source given: name a parquet file, a tar, a table, a folder, or a pattern such as 'data/{{00000..00331}}.tar'")]
    NoSources,
    /// A pattern that matches nothing or is malformed.
    #[error("{pattern:?}: {reason}")]
    Pattern {
        /// As given.
        pattern: String,
        /// What is wrong.
        reason: String,
    },
    /// A source outside the folder that names are relative to.
    #[error("{} does not lie below --source-root {}", path.display(), root.display())]
    OutsideRoot {
        /// The source.
        path: PathBuf,
        /// The folder.
        root: PathBuf,
    },
    /// Sources without a single row.
    #[error("the dataset is empty: 0 rows in {sources}")]
    Empty {
        /// Their names.
        sources: String,
    },
    /// Two files of one run have one name, so that their rows would have the same keys.
    #[error(
        "two files are called {name}; rows are known by the file's name, its folder's and the row, so name the folder above both \
         with --source-root"
    )]
    SameName {
        /// The name.
        name: String,
    },
    /// More files than [`crate::Limits::max_shards`].
    #[error("{}: more than {max} files; ingest its subfolders one by one", path.display())]
    TooManyShards {
        /// The folder.
        path: PathBuf,
        /// The limit.
        max: usize,
    },
    /// A file that is damaged, cut short or of another kind.
    #[error("{file} is damaged or no such file: {reason}")]
    Corrupt {
        /// Its name.
        file: String,
        /// What was found.
        reason: String,
    },
    /// The system failed to read.
    #[error("cannot read {file}")]
    Read {
        /// Its name.
        file: String,
        /// The system's word.
        source: std::io::Error,
    },
    /// No column could be found for a part that is needed.
    #[error("{file}: no {part} column found; name it with {flag} (columns: {columns})")]
    NoColumn {
        /// The file's name.
        file: String,
        /// "image", "caption", ...
        part: &'static str,
        /// The command-line flag that names it.
        flag: &'static str,
        /// The columns that are there, with types.
        columns: String,
    },
    /// More than one column would do.
    #[error("{file}: {candidates} could each be the {part} column; choose one with {flag} (columns: {columns})")]
    AmbiguousColumn {
        /// The file's name.
        file: String,
        /// "image", "caption", ...
        part: &'static str,
        /// The command-line flag that names it.
        flag: &'static str,
        /// The candidates.
        candidates: String,
        /// The columns that are there, with types.
        columns: String,
    },
    /// A named column is not there.
    #[error("{file}: there is no column {name:?} for {flag} (columns: {columns})")]
    UnknownColumn {
        /// The file's name.
        file: String,
        /// As named.
        name: String,
        /// The command-line flag.
        flag: &'static str,
        /// The columns that are there, with types.
        columns: String,
    },
    /// A named column has a type that cannot serve.
    #[error("{file}: column {name:?} is {found}, but {flag} needs {expected} (columns: {columns})")]
    ColumnType {
        /// The file's name.
        file: String,
        /// As named.
        name: String,
        /// Its type.
        found: Box<str>,
        /// What would do.
        expected: &'static str,
        /// The command-line flag.
        flag: &'static str,
        /// The columns that are there, with types.
        columns: Box<str>,
    },
    /// Ready-made vectors of another dimension than the pool's.
    #[error("{file}: the vectors in {column} have {found} values, the pool's have {expected}")]
    Dimension {
        /// The file's name.
        file: String,
        /// Column or array.
        column: String,
        /// Found.
        found: usize,
        /// The pool's.
        expected: usize,
    },
    /// The parts of a clip-retrieval partition do not fit together.
    #[error("{folder}: {detail}")]
    Partition {
        /// The folder's name.
        folder: String,
        /// Which files, which counts.
        detail: String,
    },
    /// A source without pictures or captions was given to an encoder.
    #[error("{file} holds ready-made vectors, not pictures; ingest it as ready-made embeddings")]
    OnlyVectors {
        /// Its name.
        file: String,
    },
    /// A file that was written to while it was read.
    #[error("{file} changed while it was read; ingest it again when whatever writes it is through")]
    Changed {
        /// Its name.
        file: String,
    },
    /// A number in a file is above a limit.
    #[error("{file}: {what} is {found}; at most {max} is allowed")]
    Limit {
        /// The file's name.
        file: String,
        /// What was counted.
        what: &'static str,
        /// Found.
        found: u64,
        /// The limit.
        max: u64,
    },
}

/// Why a run ended early.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IngestError {
    /// A source could not be read; rows before the fault are in the pool.
    #[error(transparent)]
    Source(Box<SourceError>),
    /// The pool refused or failed.
    #[error("the pool failed")]
    Store(#[from] StoreError),
    /// The model cannot do what is asked of it.
    #[error("the encoder cannot be used")]
    Encoder(#[from] EncodeError),
    /// The encoder fails on every row.
    #[error("the encoder failed on {rows} rows one after another; the last time: {last}")]
    EncoderFailing {
        /// How many.
        rows: u64,
        /// The last message.
        last: String,
    },
    /// A faster form of the model changes too much on the first rows.
    #[error("the faster form of the model is refused on these rows; ingest with the model itself: {0}")]
    Disagreement(#[from] SampleDisagreement),
    /// The model itself could not be opened beside its faster form.
    #[error("the model itself, to check its faster form against, could not be opened: {reason}")]
    ModelItself {
        /// Why.
        reason: String,
    },
    /// The reject list could not be written.
    #[error("cannot write the reject list {}", path.display())]
    Rejects {
        /// Its path.
        path: PathBuf,
        /// The system's word.
        source: std::io::Error,
    },
    /// The summary could not be written. Rows and reject list are safe.
    #[error("cannot write the summary {}", path.display())]
    Summary {
        /// Its path.
        path: PathBuf,
        /// The system's word.
        source: std::io::Error,
    },
    /// A thread of the pipeline ended by a panic: a defect of this program.
    #[error("a worker ended unexpectedly (a defect; please report it): {reason}")]
    Worker {
        /// The panic's message.
        reason: String,
    },
    /// The options contradict themselves.
    #[error("{reason}")]
    Options {
        /// What to change.
        reason: &'static str,
    },
}

impl From<SourceError> for IngestError {
    fn from(error: SourceError) -> Self {
        Self::Source(Box::new(error))
    }
}

/// An error, and what had been done by then. Everything in the report as accepted is committed, unless the error is
/// [`IngestError::Store`].
#[derive(Debug)]
pub struct IngestFailure {
    /// What went wrong.
    pub error: IngestError,
    /// What was done before; none when nothing was read.
    pub report: Option<Box<IngestReport>>,
}

impl std::fmt::Display for IngestFailure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.error.fmt(f)
    }
}

impl std::error::Error for IngestFailure {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.error.source()
    }
}

impl<E: Into<IngestError>> From<E> for IngestFailure {
    fn from(error: E) -> Self {
        Self { error: error.into(), report: None }
    }
}
