//! The rows that a job left out: `GET /v1/jobs/{id}/rejects`.
//!
//! ```text
//!   job ends ─► the pool's list of rejects ──rows of the job's files──► ID.rejects.parquet beside its record ─► pages
//! ```
//!
//! A pool has one list, in which later jobs drop what they read again; a job's own rows are put aside when it ends, and go with its record.

use std::{collections::HashSet, io, path::PathBuf, sync::Arc};

use anchorite_ingest::{IngestOptions, ListedReject, copy_rejects, file_names, read_rejects};
use axum::{
    extract::{
        Path, Query, State,
        rejection::{PathRejection, QueryRejection},
    },
    http::StatusCode,
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{queue::Jobs, record::Job, routes::some_jobs};
use crate::{
    app::App,
    body::{self, JsonBytes},
    error::{ApiError, ErrorBody},
    pools::plain,
};

/// Rows of a page, unless asked otherwise.
const PAGE: usize = 1_000;
/// Most rows of a page: some 2 MB.
const MAX_PAGE: usize = 10_000;

/// Which page.
#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct PageQuery {
    from: u64,
    limit: usize,
}

impl Default for PageQuery {
    fn default() -> Self {
        Self { from: 0, limit: PAGE }
    }
}

/// A row that a job left out.
#[derive(Serialize, ToSchema)]
pub(crate) struct JobReject {
    /// The file's name, as in the pool.
    source_file: String,
    /// Its row there, from 0.
    row: u64,
    /// Stable short name of the reason; `filtered_...` where a filter of the request left it out.
    #[schema(example = "image_damaged")]
    code: String,
    /// The reason in words.
    message: String,
}

impl From<ListedReject> for JobReject {
    fn from(listed: ListedReject) -> Self {
        Self { source_file: listed.source_file, row: listed.row, code: listed.code, message: listed.message }
    }
}

/// Rows that a job left out.
#[derive(Serialize, ToSchema)]
pub(crate) struct JobRejects {
    /// In the order of the sources.
    rejects: Vec<JobReject>,
    /// `from` of the next page; null after the last.
    next: Option<u64>,
}

/// The rows of a job's files that are not in the pool, and why: those that it refused or filtered, and those that earlier jobs had settled. As
/// of the job's end.
#[utoipa::path(
    get, path = "/v1/jobs/{id}/rejects", tag = "jobs",
    params(("id" = String, Path, description = "The job's id"),
        ("from" = Option<u64>, Query, description = "Rows to pass over; `next` of the page before"),
        ("limit" = Option<usize>, Query, description = "Rows of a page, 1 to 10,000; 1,000 when left out")),
    responses(
        (status = 200, description = "A page of them", body = JobRejects),
        (status = 400, description = "The path is not UTF-8", body = ErrorBody),
        (status = 404, description = "No such job", body = ErrorBody),
        (status = 409, description = "The job is not over", body = ErrorBody),
        (status = 422, description = "A parameter is wrong", body = ErrorBody),
        (status = 429, description = "Working at the limit; see Retry-After", body = ErrorBody),
        (status = 504, description = "Took longer than allowed", body = ErrorBody),
    )
)]
pub(crate) async fn rejects(
    State(app): State<Arc<App>>,
    path: Result<Path<String>, PathRejection>,
    query: Result<Query<PageQuery>, QueryRejection>,
) -> Result<JsonBytes, ApiError> {
    let id = plain(path)?;
    let refuse = |message: String| ApiError::unprocessable("query_parameter", message);
    let Query(page) = query.map_err(|e| body::bad_parameters(&e, "?from= and ?limit="))?;
    if !(1..=MAX_PAGE).contains(&page.limit) {
        return Err(refuse(format!("limit is {}; 1 to {MAX_PAGE} rows make a page", page.limit)));
    }
    app.compute(move |app, _| JsonBytes::of(&read_page(some_jobs(app, &id)?, &id, &page)?)).await
}

fn read_page(jobs: &Jobs, id: &str, page: &PageQuery) -> Result<JobRejects, ApiError> {
    let job = jobs.get(id)?;
    if !job.state.is_over() {
        let message = format!("job {id} is not over; its rejects are known when it is");
        return Err(ApiError::new(StatusCode::CONFLICT, "job_not_over", message));
    }
    let read = read_rejects(&jobs.records.rejects(id), page.from, page.limit + 1);
    let mut rejects = read.map_err(|e| ApiError::internal("rejects_unreadable", e))?;
    let more = rejects.len() > page.limit;
    rejects.truncate(page.limit);
    let next = more.then(|| page.from + rejects.len() as u64);
    Ok(JobRejects { rejects: rejects.into_iter().map(JobReject::from).collect(), next })
}

/// Puts the rejects of a job's files aside. A failure is told in the log: the pool's own list has them all.
pub(super) fn keep(jobs: &Jobs, job: &Job, sources: &[PathBuf], options: &IngestOptions) {
    let Some(list) = &options.rejects else { return };
    let copied = file_names(sources, options)
        .map_err(io::Error::other)
        .and_then(|names| copy_rejects(list, &jobs.records.rejects(&job.id), &HashSet::from_iter(names)));
    if let Err(error) = copied {
        tracing::warn!(job = job.id, %error, "the rejects of a job could not be put aside");
    }
}
