//! Every job of the server: those that wait, the one that runs, those that ended.

use std::{
    collections::BTreeMap,
    io,
    num::NonZeroUsize,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::{SystemTime, UNIX_EPOCH},
};

use anchorite_index::Cancel;
use anchorite_ingest::{IngestRequest, Reach};
use axum::http::StatusCode;
use tokio::sync::{Semaphore, oneshot};

use super::{
    Filling, JobOptions, JobsError,
    record::{Job, JobError, JobProgress, JobReport, MAX_STARTS, Records, State, now},
    run,
    upload::{self, Received},
};
use crate::{
    Limits,
    app::{App, panic_text},
    error::ApiError,
};

/// How a job is filled in when it ends.
pub(crate) struct Ending {
    pub(crate) state: State,
    pub(crate) report: Option<JobReport>,
    pub(crate) error: Option<JobError>,
}

impl Ending {
    pub(crate) fn failed(code: &str, message: impl Into<String>) -> Self {
        let error = JobError { code: code.to_owned(), message: message.into() };
        Self { state: State::Failed, report: None, error: Some(error) }
    }
}

/// Every job.
#[derive(Debug)]
pub(crate) struct Jobs {
    pub(crate) records: Records,
    pub(crate) reach: Option<Reach>,
    pub(crate) fillings: Vec<Filling>,
    pub(crate) workers: NonZeroUsize,
    /// One permit for each upload that is being received.
    pub(crate) uploads: Arc<Semaphore>,
    max_waiting: usize,
    max_kept: usize,
    inner: Mutex<Inner>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Inner {
    jobs: BTreeMap<String, Job>,
    /// Raised to end the job that runs.
    running: Option<(String, Cancel)>,
    stopping: bool,
}

impl Inner {
    fn waiting(&self) -> usize {
        self.jobs.values().filter(|job| job.state == State::Queued).count()
    }
}

impl Jobs {
    /// Reads the jobs of earlier servers; those that were not over wait again.
    pub(crate) fn open(options: &JobOptions, fillings: Vec<Filling>, limits: &Limits) -> Result<Self, JobsError> {
        let (records, found) = Records::open(&options.folder)?;
        let reach = options
            .sources
            .as_ref()
            .map(|path| Reach::beneath(path).map_err(|source| JobsError::Sources { path: path.clone(), source }));
        let failed = |source| JobsError::Folder { path: options.folder.clone(), source };
        let mut jobs = BTreeMap::new();
        for mut job in found {
            if !job.state.is_over() {
                take_up(&mut job);
                records.save(&job).map_err(failed)?;
            }
            jobs.insert(job.id.clone(), job);
        }
        upload::make_folder(&records.uploads()).map_err(failed)?;
        let all = Self {
            records,
            reach: reach.transpose()?,
            fillings,
            workers: limits.job_workers,
            uploads: Arc::new(Semaphore::new(limits.max_uploads)),
            max_waiting: limits.max_jobs_waiting,
            max_kept: limits.max_jobs_kept,
            inner: Mutex::new(Inner { jobs, ..Inner::default() }),
            changed: Condvar::new(),
        };
        all.try_sweep(&all.lock()).map_err(failed)?;
        Ok(all)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Every change under this lock is one assignment or one insertion: a panic leaves no half of one.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn filling(&self, pool: &str) -> Option<&Filling> {
        self.fillings.iter().find(|filling| filling.pool == pool)
    }

    /// Every job, newest first.
    pub(crate) fn all(&self) -> Vec<Job> {
        self.lock().jobs.values().rev().cloned().collect()
    }

    pub(crate) fn get(&self, id: &str) -> Result<Job, ApiError> {
        self.lock().jobs.get(id).cloned().ok_or_else(|| no_job(id))
    }

    /// Refuses where as many jobs wait as may. [`Jobs::add`] asks again; this spares the upload.
    pub(crate) fn check_room(&self) -> Result<(), ApiError> {
        if self.lock().waiting() < self.max_waiting { Ok(()) } else { Err(full(self.max_waiting)) }
    }

    /// Takes a job; it is on disk when this returns.
    pub(crate) fn add(&self, pool: &str, request: IngestRequest, upload: Option<Received>) -> Result<Job, ApiError> {
        let mut inner = self.lock();
        if inner.waiting() >= self.max_waiting {
            return Err(full(self.max_waiting));
        }
        let job = Job {
            id: free_id(&inner.jobs),
            pool: pool.to_owned(),
            state: State::Queued,
            cancelling: false,
            created: now(),
            started: None,
            ended: None,
            starts: 0,
            request,
            upload: upload.as_ref().map(|received| received.name().to_owned()),
            progress: None,
            report: None,
            error: None,
        };
        let failed = |e| ApiError::internal("job_not_kept", e);
        // Under the lock, so that no sweep comes between the file and the job that needs it.
        upload.map(|received| received.keep()).transpose().map_err(failed)?;
        self.records.save(&job).map_err(failed)?;
        inner.jobs.insert(job.id.clone(), job.clone());
        self.forget_old(&mut inner);
        self.changed.notify_all();
        Ok(job)
    }

    /// Ends a job: at once if it waits, soon if it runs.
    pub(crate) fn cancel(&self, id: &str) -> Result<Job, ApiError> {
        let mut inner = self.lock();
        let running = inner.running.clone();
        let job = inner.jobs.get_mut(id).ok_or_else(|| no_job(id))?;
        match job.state {
            State::Queued => {
                (job.state, job.ended) = (State::Cancelled, Some(now()));
                self.keep(job);
            }
            State::Running => {
                job.cancelling = true;
                self.keep(job);
                if let Some((_, cancel)) = running.filter(|(at, _)| at == id) {
                    cancel.cancel();
                }
            }
            _ => {
                let message = format!("job {id} is over; there is nothing to end");
                return Err(ApiError::new(StatusCode::CONFLICT, "job_over", message));
            }
        }
        let job = job.clone();
        self.sweep_uploads(&inner);
        Ok(job)
    }

    /// Notes how far the running job is.
    pub(crate) fn progress(&self, id: &str, note: impl FnOnce(&mut JobProgress)) {
        if let Some(job) = self.lock().jobs.get_mut(id) {
            note(job.progress.get_or_insert_default());
        }
    }

    /// Whether the server ends, so that a job that was ended early goes on with the next one.
    pub(crate) fn is_stopping(&self) -> bool {
        self.lock().stopping
    }

    /// Asks the running job to end, and takes no next one.
    pub(crate) fn stop(&self) {
        let mut inner = self.lock();
        inner.stopping = true;
        if let Some((_, cancel)) = &inner.running {
            cancel.cancel();
        }
        self.changed.notify_all();
    }

    /// Waits for the next job and marks it running; none when the server ends.
    fn next(&self) -> Option<(Job, Cancel)> {
        let mut inner = self.lock();
        loop {
            if inner.stopping {
                return None;
            }
            let waiting = inner.jobs.values_mut().find(|job| job.state == State::Queued);
            if let Some(job) = waiting {
                (job.state, job.started) = (State::Running, Some(now()));
                job.starts += 1;
                job.progress = Some(JobProgress::default());
                self.keep(job);
                let (job, cancel) = (job.clone(), Cancel::default());
                inner.running = Some((job.id.clone(), cancel.clone()));
                return Some((job, cancel));
            }
            inner = self.changed.wait(inner).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn end(&self, id: &str, ending: Ending) {
        let mut inner = self.lock();
        inner.running = None;
        if let Some(job) = inner.jobs.get_mut(id) {
            job.state = ending.state;
            (job.report, job.error) = (ending.report, ending.error);
            if ending.state == State::Queued {
                // The server ended well: this start does not count against the job.
                job.starts = job.starts.saturating_sub(1);
            } else {
                (job.ended, job.cancelling) = (Some(now()), false);
            }
            self.keep(job);
        }
        self.sweep_uploads(&inner);
    }

    /// Puts a job's new state on disk. Where that fails the work goes on: a server that starts finds the state before, and doing a job
    /// again does nothing twice.
    fn keep(&self, job: &Job) {
        if let Err(error) = self.records.save(job) {
            tracing::error!(job = job.id, %error, "the state of a job could not be put on disk");
        }
    }

    /// Forgets the oldest of the jobs that are over, beyond those that are kept.
    fn forget_old(&self, inner: &mut Inner) {
        let over: Vec<String> = inner.jobs.values().filter(|job| job.state.is_over()).map(|job| job.id.clone()).collect();
        for id in over.iter().take(over.len().saturating_sub(self.max_kept)) {
            inner.jobs.remove(id);
            if let Err(error) = self.records.remove(id) {
                tracing::warn!(job = id, %error, "the record of an old job could not be removed");
            }
        }
    }

    /// Removes uploads that no job needs any more. Under the lock: who sees that a job is over sees its upload gone.
    fn sweep_uploads(&self, inner: &Inner) {
        if let Err(error) = self.try_sweep(inner) {
            tracing::warn!(%error, "uploads of ended jobs could not be removed");
        }
    }

    fn try_sweep(&self, inner: &Inner) -> io::Result<()> {
        let needed = |name: &str| inner.jobs.values().any(|job| !job.state.is_over() && job.upload.as_deref() == Some(name));
        for entry in std::fs::read_dir(self.records.uploads())? {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            // What is still received has another ending, and who receives it removes it.
            if name.ends_with(upload::ENDING) && !needed(&name) {
                std::fs::remove_file(path)?;
            }
        }
        Ok(())
    }
}

/// A job that a server ended under.
fn take_up(job: &mut Job) {
    if job.cancelling {
        (job.state, job.ended, job.cancelling) = (State::Cancelled, Some(now()), false);
    } else if job.starts >= MAX_STARTS {
        let message = format!("the server ended {MAX_STARTS} times while this job ran; posted again, it goes on where it was");
        (job.state, job.ended) = (State::Interrupted, Some(now()));
        job.error = Some(JobError { code: "server_ended".to_owned(), message });
    } else {
        job.state = State::Queued;
    }
}

fn no_job(id: &str) -> ApiError {
    let shown: String = id.chars().take(80).collect();
    ApiError::not_found("job_not_found", format!("there is no job {shown:?}; GET /v1/jobs lists those there are"))
}

fn full(waiting: usize) -> ApiError {
    let message = format!("{waiting} jobs wait already; try again when some are through");
    ApiError::new(StatusCode::TOO_MANY_REQUESTS, "too_many_jobs", message)
}

/// Milliseconds since 1970 and a counter, so that ids sort by age and none is given twice.
fn free_id(jobs: &BTreeMap<String, Job>) -> String {
    let millis = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |age| age.as_millis() as u64);
    let last = jobs.last_key_value().and_then(|(id, _)| u64::from_str_radix(id, 16).ok()).unwrap_or(0);
    format!("{:016x}", (millis << 16).max(last.saturating_add(1)))
}

/// Runs jobs on a thread of their own until [`Jobs::stop`]; resolves when the thread has ended.
pub(crate) fn work(app: &Arc<App>) -> oneshot::Receiver<()> {
    let (ended, end) = oneshot::channel();
    let app = Arc::clone(app);
    std::thread::spawn(move || {
        while let Some(jobs) = &app.jobs
            && let Some((job, cancel)) = jobs.next()
        {
            tracing::info!(job = job.id, pool = job.pool, "a job begins");
            let ending = catch_unwind(AssertUnwindSafe(|| run::run(&app, jobs, &job, &cancel))).unwrap_or_else(|panic| {
                app.metrics.panics.inc();
                tracing::error!(job = job.id, reason = panic_text(&*panic), "a job panicked");
                Ending::failed("panic", "the server failed on this job (a defect); its log has the reason")
            });
            tracing::info!(job = job.id, state = ?ending.state, "a job ended");
            jobs.end(&job.id, ending);
        }
        drop(app);
        // Nobody waiting for the end means that the server has gone on without it.
        let _ = ended.send(());
    });
    end
}
