//! A job: what was asked, how far it is, how it ended. The same JSON is shown and kept in a file of its own, which is written beside and
//! renamed, so that it is always a whole one.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Write as _},
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use anchorite_ingest::{IngestReport, IngestRequest, ProgressUpdate};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::JobsError;

/// Starts that a job gets. 3: a machine may be rebooted, but a job that takes its server down is not to do so for ever.
pub(crate) const MAX_STARTS: u32 = 3;
/// Bytes of a record that are read. 4 MiB: a thousand sources with long names.
const MAX_RECORD_BYTES: u64 = 4 << 20;

/// What a job is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum State {
    /// Waits for the jobs before it.
    Queued,
    /// Is at work.
    Running,
    /// Every row is accepted, listed as left out, or was there; the pool answers with them.
    Done,
    /// Ended early; `error` says why. What was accepted before is in the pool.
    Failed,
    /// Ended by DELETE; what was accepted before is in the pool.
    Cancelled,
    /// The server ended under it too often. Posted again, it goes on where it was.
    Interrupted,
}

impl State {
    pub(crate) fn is_over(self) -> bool {
        !matches!(self, Self::Queued | Self::Running)
    }
}

/// What a running job is busy with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Phase {
    /// The pool's writer is being opened.
    #[default]
    Opening,
    /// Rows go through the pipeline.
    Ingesting,
    /// Rows are in, and the neighbour graphs are being built.
    Indexing,
}

/// A job of filling a pool.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[schema(as = Job)]
pub(crate) struct Job {
    /// Its name; ids sort by age.
    #[schema(example = "018f3a5c2d7e0001")]
    pub(crate) id: String,
    /// The pool that is filled.
    pub(crate) pool: String,
    pub(crate) state: State,
    /// Whether it was asked to end and has not yet.
    #[serde(default)]
    pub(crate) cancelling: bool,
    /// When it was asked for, in seconds since 1970.
    pub(crate) created: u64,
    /// When it was last started.
    pub(crate) started: Option<u64>,
    /// When it ended.
    pub(crate) ended: Option<u64>,
    /// How often it was started; more than once when the server ended under it.
    pub(crate) starts: u32,
    /// What was asked for.
    pub(crate) request: IngestRequest,
    /// The uploaded file, by its content.
    pub(crate) upload: Option<String>,
    /// How far it is; null before it begins.
    pub(crate) progress: Option<JobProgress>,
    /// What it did; null before it ends.
    pub(crate) report: Option<JobReport>,
    /// Why it failed.
    pub(crate) error: Option<JobError>,
}

/// How far a job is.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, ToSchema)]
pub(crate) struct JobProgress {
    pub(crate) phase: Phase,
    /// Rows decided on.
    pub(crate) rows_done: u64,
    /// Rows there are, where every source says.
    pub(crate) rows_total: Option<u64>,
    pub(crate) accepted: u64,
    pub(crate) rejected: u64,
    /// Rows the pool had.
    pub(crate) already_present: u64,
    /// Rows decided on a second.
    pub(crate) rows_per_second: f64,
    /// Seconds that the rest takes: rows at the rate so far, and, once there was a commit, graphs at what those before have cost a row.
    pub(crate) eta_seconds: Option<f64>,
    /// The stage that the others wait for: `reading`, `preparing`, `encoding` or `writing`.
    #[schema(value_type = Option<String>)]
    pub(crate) bottleneck: Option<anchorite_ingest::Stage>,
    /// While indexing: the share of the present graph that is built, 0 to 1.
    pub(crate) graph_done: Option<f64>,
}

impl JobProgress {
    pub(crate) fn take(&mut self, at: &ProgressUpdate) {
        *self = Self {
            phase: Phase::Ingesting,
            rows_done: at.rows_done,
            rows_total: at.rows_total,
            accepted: at.accepted,
            rejected: at.rejected,
            already_present: at.already_present,
            rows_per_second: at.rows_per_second,
            eta_seconds: at.remaining.map(|left| left.as_secs_f64()),
            bottleneck: at.bottleneck,
            graph_done: None,
        };
    }
}

/// What a job did. `rows` is the sum of accepted, replaced, already_present, rejected and filtered.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct JobReport {
    rows: u64,
    /// Pairs that are new in the pool.
    accepted: u64,
    /// Pairs that took the place of others of the same key.
    replaced: u64,
    /// Rows that the pool had.
    already_present: u64,
    /// Of these, rows of files that were settled by earlier jobs and not read again.
    passed_over: u64,
    rejected: u64,
    rejected_by_reason: BTreeMap<String, u64>,
    filtered: u64,
    filtered_by_reason: BTreeMap<String, u64>,
    /// Captions that were longer than the text tower reads.
    truncated_captions: u64,
    /// Rows that img2dataset says it could not download or resize, which its tars and folders of pictures therefore do not have.
    #[serde(default)]
    failed_before: u64,
    /// Files of kinds that are not read, by ending.
    #[serde(default)]
    ignored_files: BTreeMap<String, u64>,
    seconds: f64,
    /// The pool's generation with these rows; null when nothing was committed.
    generation: Option<u64>,
}

impl From<IngestReport> for JobReport {
    fn from(report: IngestReport) -> Self {
        Self {
            rows: report.rows_read,
            accepted: report.accepted,
            replaced: report.replaced,
            already_present: report.already_present,
            passed_over: report.rows_passed_over,
            rejected: report.rejected,
            rejected_by_reason: report.rejected_by_reason,
            filtered: report.filtered,
            filtered_by_reason: report.filtered_by_reason,
            truncated_captions: report.truncated_captions,
            failed_before: report.failed_before,
            ignored_files: report.ignored_files,
            seconds: report.seconds,
            generation: report.generation,
        }
    }
}

/// Why a job failed.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct JobError {
    /// Stable; programs match on it.
    pub(crate) code: String,
    /// For people.
    pub(crate) message: String,
}

/// Seconds since 1970.
pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |age| age.as_secs())
}

/// The folder with a file for each job.
#[derive(Debug)]
pub(crate) struct Records {
    pub(crate) folder: PathBuf,
    /// Held for its lock.
    _lock: File,
}

impl Records {
    /// Opens the folder for this server alone, and reads what is in it, oldest first.
    pub(crate) fn open(folder: &Path) -> Result<(Self, Vec<Job>), JobsError> {
        let failed = |source| JobsError::Folder { path: folder.to_owned(), source };
        fs::create_dir_all(folder).map_err(failed)?;
        let lock = File::create(folder.join("lock")).map_err(failed)?;
        lock.try_lock().map_err(|_| JobsError::InUse { path: folder.to_owned() })?;
        let mut jobs = Vec::new();
        for entry in fs::read_dir(folder).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            if path.extension().is_some_and(|ending| ending == "json") {
                jobs.push(read(&path)?);
            }
        }
        jobs.sort_by(|a, b| a.id.cmp(&b.id));
        Ok((Self { folder: folder.to_owned(), _lock: lock }, jobs))
    }

    /// Where an upload of this name lies.
    pub(crate) fn upload(&self, name: &str) -> PathBuf {
        self.uploads().join(name)
    }

    /// The folder of uploads. Rows of an upload are known by its name and this folder's.
    pub(crate) fn uploads(&self) -> PathBuf {
        self.folder.join("uploads")
    }

    /// Puts the job on disk: when this returns, a server that starts knows it.
    pub(crate) fn save(&self, job: &Job) -> io::Result<()> {
        let path = self.folder.join(format!("{}.json", job.id));
        let unfinished = path.with_extension("unfinished");
        let mut file = File::create(&unfinished)?;
        file.write_all(&serde_json::to_vec(job)?)?;
        file.sync_all()?;
        fs::rename(&unfinished, &path)?;
        File::open(&self.folder)?.sync_all()
    }

    /// Where the rows lie that a job left out.
    pub(crate) fn rejects(&self, id: &str) -> PathBuf {
        self.folder.join(format!("{id}.rejects.parquet"))
    }

    /// Forgets a job.
    pub(crate) fn remove(&self, id: &str) -> io::Result<()> {
        match fs::remove_file(self.rejects(id)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        fs::remove_file(self.folder.join(format!("{id}.json")))
    }
}

fn read(path: &Path) -> Result<Job, JobsError> {
    let failed = |source| JobsError::Folder { path: path.to_owned(), source };
    let refuse = |reason: String| JobsError::Record { path: path.to_owned(), reason };
    if fs::metadata(path).map_err(failed)?.len() > MAX_RECORD_BYTES {
        return Err(refuse(format!("it has more than {MAX_RECORD_BYTES} bytes")));
    }
    let job: Job = serde_json::from_slice(&fs::read(path).map_err(failed)?).map_err(|e| refuse(e.to_string()))?;
    let named = path.file_stem().is_some_and(|stem| stem == job.id.as_str());
    if named { Ok(job) } else { Err(refuse("it is called otherwise than its job".to_owned())) }
}
