//! One job, from the pool's writer to its report.

use std::sync::Arc;

use anchorite_encoder::{AgreementLimits, Encode};
use anchorite_index::{BuildProgress, Cancel, StoreError};
use anchorite_ingest::{
    IngestError, IngestFailure, IngestJob, IngestOptions, IngestReport, Outcome, ProgressUpdate, Reach, Vectors, ingest,
    sample_agreement,
};

use super::{
    Filling, OpenExact,
    queue::{Ending, Jobs},
    record::{Job, JobReport, Phase, State},
    rejects,
};
use crate::{app::App, error::chain};

/// Runs a job to its end. The pool answers with its rows when this returns.
pub(crate) fn run(app: &Arc<App>, jobs: &Jobs, job: &Job, cancel: &Cancel) -> Ending {
    match fill(app, jobs, job, cancel) {
        Ok(report) => {
            serve_newest(app, job);
            ended(report, jobs, job)
        }
        Err(failure) => {
            serve_newest(app, job);
            tracing::warn!(job = job.id, error = &failure.error as &dyn std::error::Error, "a job failed");
            let (code, message) = explain(&failure.error, jobs);
            Ending { report: failure.report.map(|report| (*report).into()), ..Ending::failed(code, message) }
        }
    }
}

fn fill(app: &Arc<App>, jobs: &Jobs, job: &Job, cancel: &Cancel) -> Result<IngestReport, IngestFailure> {
    // Both were there when the job was taken; a server that starts with other pools has none for it.
    let gone = |reason| IngestFailure::from(IngestError::Options { reason });
    let filling = jobs.filling(&job.pool).ok_or_else(|| gone("this server does not fill that pool any more"))?;
    let pool = app.pool(Some(&job.pool)).map_err(|_| gone("this server has no such pool any more"))?;
    let encoder = pool.retriever.shared_encoder();
    let (sources, options) = sources(jobs, job, filling)?;
    let vectors = match job.request.names_vectors() {
        true => Vectors::Ready { dim: Some(encoder.dim()) },
        false => Vectors::Encode(&*encoder),
    };
    if let (Vectors::Encode(quick), Some(open)) = (vectors, &filling.exact) {
        check_agreement(open, quick, &sources, &options)?;
    }
    let mut sink = (filling.open)(building(app, &job.id))?;
    let mut progress = |at: &ProgressUpdate| jobs.progress(&job.id, |shown| shown.take(at));
    let filled = ingest(IngestJob { sources: &sources, vectors, options: &options }, &mut *sink, &mut progress, cancel);
    rejects::keep(jobs, job, &sources, &options);
    filled
}

/// Refuses a job on whose first rows the server's form of the model gives other vectors than the model itself.
fn check_agreement(
    open: &OpenExact,
    quick: &dyn Encode,
    sources: &[std::path::PathBuf],
    options: &IngestOptions,
) -> Result<(), IngestFailure> {
    let exact = open().map_err(|reason| IngestError::ModelItself { reason })?;
    let found = sample_agreement(sources, options, &*exact, quick)?;
    Ok(found.check(&AgreementLimits::default()).map_err(IngestError::from)?)
}

/// What is read, and how: an upload, or sources below the server's folder.
fn sources(jobs: &Jobs, job: &Job, filling: &Filling) -> Result<(Vec<std::path::PathBuf>, IngestOptions), IngestFailure> {
    let gone = |reason| IngestFailure::from(IngestError::Options { reason });
    let (sources, reach) = match (&job.upload, &jobs.reach) {
        (Some(name), _) => (vec![jobs.records.upload(name)], Reach::default()),
        (None, Some(reach)) => (job.request.sources.clone(), reach.clone()),
        (None, None) => return Err(gone("this server has no folder of sources any more")),
    };
    let options = job.request.options().map_err(|_| gone("the job's options are not known to this server"))?;
    let (rejects, summary) = (Some(filling.rejects.clone()), Some(filling.summary.clone()));
    Ok((sources, IngestOptions { reach, rejects, summary, workers: Some(jobs.workers), ..options }))
}

/// Notes how far a graph build is.
fn building(app: &Arc<App>, id: &str) -> anchorite_index::pool::ProgressReport {
    let (app, id) = (Arc::clone(app), id.to_owned());
    Arc::new(move |at: BuildProgress| {
        let Some(jobs) = &app.jobs else { return };
        jobs.progress(&id, |shown| {
            shown.phase = Phase::Indexing;
            shown.graph_done = Some(at.done as f64 / at.total.max(1) as f64);
        });
    })
}

/// The pool answers with what the job has put in. Where it cannot be opened, the server tries again as it does for every pool.
fn serve_newest(app: &App, job: &Job) {
    let Ok(pool) = app.served(Some(&job.pool)) else { return };
    if let Err(error) = pool.reload() {
        tracing::warn!(job = job.id, error = &error as &dyn std::error::Error, "the new generation cannot be opened");
    }
}

fn ended(report: IngestReport, jobs: &Jobs, job: &Job) -> Ending {
    let (outcome, rejected) = (report.outcome, report.rejected);
    let report = Some(JobReport::from(report));
    match outcome {
        Outcome::Interrupted if jobs.is_stopping() => Ending { state: State::Queued, report: None, error: None },
        Outcome::Interrupted => Ending { state: State::Cancelled, report, error: None },
        Outcome::TooManyRejects => {
            let message = format!("{rejected} rows were rejected, more than max_rejects allows; the others are in the pool");
            tracing::info!(job = job.id, rejected, "too many rejects");
            Ending { report, ..Ending::failed("too_many_rejects", message) }
        }
        _ => Ending { state: State::Done, report, error: None },
    }
}

/// A code and a sentence for the job's owner, in which no path above the folder of sources stands.
fn explain(error: &IngestError, jobs: &Jobs) -> (&'static str, String) {
    match error {
        IngestError::Source(source) => ("source", without_root(&chain(source), jobs)),
        IngestError::Store(StoreError::Locked { .. }) => {
            ("pool_locked", "another writer has the pool; post the job again when that is through".to_owned())
        }
        IngestError::Store(StoreError::Io { source, .. }) if source.kind() == std::io::ErrorKind::StorageFull => {
            ("disk_full", "the disk of the pool is full; make room, and post the job again: it goes on where it was".to_owned())
        }
        IngestError::Store(_) => ("pool_failed", "the pool could not be written; the server's log has the reason".to_owned()),
        IngestError::Rejects { .. } => {
            ("rejects_failed", "the list of rejects could not be written; the server's log has the reason".to_owned())
        }
        IngestError::Summary { .. } => (
            "summary_failed",
            "the rows are in, but their summary could not be written; the server's log has the reason".to_owned(),
        ),
        IngestError::Encoder(_) | IngestError::EncoderFailing { .. } => ("encoder", chain(error)),
        IngestError::Disagreement(_) => ("model_disagrees", chain(error)),
        IngestError::ModelItself { .. } => {
            ("model_itself", "the model itself could not be opened; the server's log has the reason".to_owned())
        }
        IngestError::Options { reason } => ("options", (*reason).to_owned()),
        _ => ("ingest_failed", "the server failed on this job; its log has the reason".to_owned()),
    }
}

/// The words of a source's error, for whoever may not know where the folder of sources lies.
pub(crate) fn without_root(text: &str, jobs: &Jobs) -> String {
    let uploads = jobs.records.uploads();
    let roots = jobs.reach.iter().filter_map(Reach::root).chain([&*uploads]);
    roots.fold(text.to_owned(), |text, root| {
        let root = root.display().to_string();
        text.replace(&format!("{root}/"), "").replace(&root, "the folder of sources")
    })
}
