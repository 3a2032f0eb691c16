//! Ingest over HTTP: jobs that fill a pool while the server answers.
//!
//! ```text
//!   POST .../ingest ─► Request ─► Job on disk ─► queue ─► one thread: open the pool's writer, ingest, reload ─► Job on disk
//!                        │ upload: body ─► file by its hash                  ▲ DELETE, shutdown: cancel
//! ```
//!
//! | file | |
//! | --- | --- |
//! | `request.rs` | which sources and uploads go together |
//! | `record.rs` | [`record::Job`]: a job as it is shown and as it is kept on disk |
//! | `queue.rs` | [`queue::Jobs`]: every job of the server, one of them running |
//! | `run.rs` | one job, from the pool's writer to its report |
//! | `upload.rs` | a body that is a parquet file, to disk |
//! | `routes.rs` | the handlers |
//! | `rejects.rs` | the rows that a job left out: kept when it ends, shown in pages |
//!
//! What holds: one job runs at a time, because a pool has one writer and encoding takes the cores; a job is on disk before its client is
//! told; a server that starts goes on with the jobs it finds, which costs nothing twice, because a pool keeps in each commit how far its
//! sources were read; a job that a server did not survive [`record::MAX_STARTS`] times is left `interrupted`; sources lie beneath one
//! folder ([`anchorite_ingest::Reach`]) and messages name no path above it; a job that says `done` is answered from.

mod queue;
mod record;
mod rejects;
mod request;
mod routes;
mod run;
mod upload;

use std::{fmt, io, path::PathBuf, sync::Arc};

use anchorite_encoder::Encode;
use anchorite_index::{PairSink, StoreError, pool::ProgressReport};

pub(crate) use queue::{Jobs, work};
pub(crate) use rejects::{__path_rejects, rejects};
pub(crate) use routes::{__path_cancel, __path_ingest, __path_list, __path_show, cancel, ingest, list, show};

/// Opens a pool for writing. The argument is to be told how far the graph build is.
pub type OpenWriter = Box<dyn Fn(ProgressReport) -> Result<Box<dyn PairSink + Send>, StoreError> + Send + Sync>;

/// Opens the model itself where the server's is a faster form of it; the error is in words.
pub type OpenExact = Box<dyn Fn() -> Result<Arc<dyn Encode>, String> + Send + Sync>;

/// How a pool is filled.
pub struct Filling {
    /// The pool's name on this server.
    pub pool: String,
    /// Opens its writer.
    pub open: OpenWriter,
    /// Where the server's model computes in another arithmetic: each job's first rows are encoded by both, and a job on whose rows they do
    /// not agree is refused before the pool is touched.
    pub exact: Option<OpenExact>,
    /// Where its rows left out are listed: the same file as the command line's, so that each goes on where the other was.
    pub rejects: PathBuf,
    /// Where the summary of the last run that filled it lies, likewise.
    pub summary: PathBuf,
}

impl fmt::Debug for Filling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Filling").field("pool", &self.pool).field("rejects", &self.rejects).finish_non_exhaustive()
    }
}

/// Where jobs live, and what they may read.
#[derive(Clone, Debug)]
pub struct JobOptions {
    /// Records of jobs, and uploads until they are ingested. Made when missing. One server at a time.
    pub folder: PathBuf,
    /// The folder beneath which sources lie; none means that only uploads are taken.
    pub sources: Option<PathBuf>,
}

/// Why jobs cannot be taken.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JobsError {
    /// The folder of jobs.
    #[error("cannot use the folder of jobs {}", path.display())]
    Folder {
        /// The folder, or a file in it.
        path: PathBuf,
        /// The system's word.
        source: io::Error,
    },
    /// Another server has it.
    #[error("another server works on the jobs in {}; give each server its own folder", path.display())]
    InUse {
        /// The folder.
        path: PathBuf,
    },
    /// A record that is none.
    #[error("{} is no job of this program ({reason}); remove it, and post the job again", path.display())]
    Record {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The folder of sources.
    #[error("cannot open the folder of sources {}", path.display())]
    Sources {
        /// The folder.
        path: PathBuf,
        /// The system's word.
        source: io::Error,
    },
    /// No such pool.
    #[error("there is no pool {name:?} to fill")]
    Unknown {
        /// As given.
        name: String,
    },
}
