//! Dataset rows to pairs in a pool: sources, pipeline, rejects.
//!
//! ```text
//!   file ──source──► Row ──prepare, encode (workers)──► Pair ──append, commit──► pool
//!                     │                │
//!                     └────────────────┴──► Reject ──► rejects.parquet
//! ```
//!
//! Not here: how pictures are decoded or vectors made (`anchorite-encoder`), how they are stored and searched
//! (`anchorite-index`), downloading. Both are used through their traits, [`anchorite_encoder::Encode`] and
//! [`anchorite_index::PairSink`].
//!
//! | file | |
//! | --- | --- |
//! | `source/` | files and folders to [`Row`]s |
//! | `row.rs` | a row as its source gives it |
//! | `rows.rs` | rows of sources without a pool: [`Rows`] |
//! | `prepare.rs` | rows to pairs, a chunk at a time (what a worker does) |
//! | `reader.rs` | the thread that reads |
//! | `pipeline/` | threads, queues, order, commits, cancellation: [`ingest`] |
//! | `journal.rs`, `resume.rs` | how far each shard is; what earlier runs did, committed with the rows |
//! | `plan.rs` | what a run would do: [`plan`] |
//! | `filter.rs`, `near.rs` | rows that the caller does not want; near duplicates |
//! | `reject.rs`, `reject_list.rs` | rows refused: reasons and their list |
//! | `report.rs` | what was done, and how far it is |
//! | `request.rs` | what a run may be asked for, by flags and by requests |
//! | `summary.rs` | the file beside the pool that says what was done |
//! | `limits.rs`, `error.rs` | bounds; why a run ends early |
//!
//! Vocabulary: *source* (an argument: a file or a folder), *shard* (one file of it), *row*, *chunk* (rows that travel together),
//! *reject* (a row refused, with a stable code).
//!
//! Keys: without a key column a row is known by its source's name and its number there. A source is called after its folder and
//! itself (`cc3m/00000.tar`), however it was named and wherever it lies, or by its path below a given source root; a loose
//! picture is a source of its own. So a moved dataset keeps its keys, and two datasets with a `00000.tar` each do not meet. Rename
//! the last folder and the rows are new ones.
//!
//! Invariants: every row is accepted, rejected, filtered or already present; the pool's content and order depend on the sources and not on
//! the number of workers; ingesting again adds nothing; an error takes back nothing that was accepted before it.

mod error;
mod filter;
mod journal;
mod limits;
mod near;
mod pipeline;
mod plan;
mod prepare;
mod reader;
mod reject;
mod reject_list;
mod report;
mod request;
mod resume;
mod row;
mod rows;
mod sample;
mod source;
mod summary;

pub use error::{IngestError, IngestFailure, SourceError};
pub use filter::{Filters, Script, UnknownScript};
pub use journal::Earlier;
pub use limits::Limits;
pub use pipeline::{BadPart, IngestJob, IngestOptions, Missing, OnChange, Part, Vectors, chunks_in_flight, ingest};
pub use plan::{CheckedRow, Estimate, Plan, PlannedColumn, PlannedSource, count_files, file_names, holds_only_vectors, plan};
pub use reject::{Reject, code};
pub use reject_list::{ListedReject, copy_rejects, read_rejects};
pub use report::{IngestReport, NoProgress, Outcome, Progress, ProgressUpdate, SourceUsed, Stage, StageSeconds};
pub use request::IngestRequest;
pub use row::{Row, RowResult};
pub use rows::Rows;
pub use sample::{AGREEMENT_ROWS, SampleAgreement, SampleDisagreement, sample_agreement};
pub use source::hub::{Fetched, HubSource};
pub use source::{
    Reach, VectorMode,
    columns::{
        CAPTION_NAMES, ColumnChoice, ColumnOptions, ColumnsUsed, IMAGE_NAMES, IMAGE_VECTOR_NAMES, PATH_NAMES, TEXT_VECTOR_NAMES,
    },
};
pub use summary::Summary;

/// What a panic said.
fn panic_message(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("no message").to_owned()
}
