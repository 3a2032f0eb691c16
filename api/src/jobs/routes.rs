//! `POST /v1/pools/{pool}/ingest`, `/v1/jobs`.

use std::sync::Arc;

use anchorite_index::Cancel;
use anchorite_ingest::{IngestOptions, IngestRequest};
use axum::{
    body::Body,
    extract::{
        Path, Query, State,
        rejection::{PathRejection, QueryRejection},
    },
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse as _, Response},
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{
    queue::Jobs,
    record::{Job, State as JobState},
    request::check_sources,
    run::without_root,
    upload::{self, Received},
};
use crate::{
    app::App,
    body::{self, JsonBytes},
    error::{ApiError, ErrorBody},
    pools::plain,
};

/// The media type of a body that is a parquet file.
const PARQUET: &str = "application/vnd.apache.parquet";

/// How an upload is to be ingested.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct UploadQuery {
    /// The fields of a request but `sources`, as JSON.
    options: Option<String>,
}

/// The jobs of this server.
#[derive(Serialize, ToSchema)]
pub(crate) struct JobList {
    /// Newest first.
    jobs: Vec<Job>,
}

/// Starts filling a pool, from files below the server's folder of sources or from the parquet file that is sent. The pool answers while the
/// job runs, and with its rows as soon as it is done. A job posted again goes on where it was, and adds nothing twice.
#[utoipa::path(
    post, path = "/v1/pools/{pool}/ingest", tag = "jobs",
    params(("pool" = String, Path, description = "Its name"),
        ("options" = Option<String>, Query, description = "With an upload: the fields of IngestRequest but `sources`, as JSON")),
    request_body(content((IngestRequest = "application/json"), (Vec<u8> = "application/vnd.apache.parquet"))),
    responses(
        (status = 202, description = "The job; its Location asks how far it is", body = Job,
            headers(("location" = String, description = "The job's path"))),
        (status = 400, description = "The path is not UTF-8, or the body is not JSON or was cut short", body = ErrorBody),
        (status = 404, description = "No such pool", body = ErrorBody),
        (status = 408, description = "The body came too slowly", body = ErrorBody),
        (status = 409, description = "This server fills no pools, or takes uploads only", body = ErrorBody),
        (status = 413, description = "The body is too large", body = ErrorBody),
        (status = 422, description = "A field, a source or the upload is wrong; the message names it", body = ErrorBody),
        (status = 429, description = "As many jobs wait, or uploads are received, as may; see Retry-After", body = ErrorBody),
        (status = 500, description = "The server failed", body = ErrorBody),
        (status = 504, description = "Took longer than allowed", body = ErrorBody),
    )
)]
pub(crate) async fn ingest(
    State(app): State<Arc<App>>,
    path: Result<Path<String>, PathRejection>,
    query: Result<Query<UploadQuery>, QueryRejection>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let pool = plain(path)?;
    app.served(Some(&pool))?;
    let jobs = fillable(&app, &pool)?;
    let Query(UploadQuery { options }) = query.map_err(|e| body::bad_parameters(&e, "?options="))?;
    jobs.check_room()?;
    let (request, upload) = if is_parquet(&headers) {
        let request: IngestRequest = body::json(options.as_deref().unwrap_or("{}").as_bytes())?;
        check_sources(&request, true, jobs.reach.is_some())?;
        (request, Some(upload::receive(Arc::clone(&jobs), body, app.limits()).await?))
    } else {
        if options.is_some() {
            return Err(ApiError::unprocessable("query_parameter", "?options= is for uploads; send the fields in the body"));
        }
        let body = body::read(&app, body, app.limits().small_body_bytes).await?;
        (body::json::<IngestRequest>(&body.bytes)?, None)
    };
    let accepted = app.compute(move |_, cancel| accept(&jobs, &pool, request, upload, cancel)).await?;
    let location = HeaderValue::from_str(&format!("/v1/jobs/{}", accepted.id)).map_err(ApiError::panicked)?;
    let mut response = JsonBytes::of(&accepted)?.into_response();
    *response.status_mut() = StatusCode::ACCEPTED;
    response.headers_mut().insert(header::LOCATION, location);
    Ok(response)
}

/// Looks at the names of the sources, so that most mistakes are told at once, and takes the job.
fn accept(jobs: &Jobs, pool: &str, request: IngestRequest, upload: Option<Received>, cancel: &Cancel) -> Result<Job, ApiError> {
    check_sources(&request, upload.is_some(), jobs.reach.is_some())?;
    let options = request.options().map_err(|e| ApiError::unprocessable("caption_scripts", format!("caption_scripts: {e}")))?;
    let options = IngestOptions { reach: jobs.reach.clone().unwrap_or_default(), ..options };
    if upload.is_none() {
        let refuse =
            |e: anchorite_ingest::SourceError| ApiError::unprocessable("ingest_sources", without_root(&e.to_string(), jobs));
        anchorite_ingest::count_files(&request.sources, &options).map_err(refuse)?;
    }
    // Whoever asked has been told that it took too long.
    if cancel.is_cancelled() {
        return Err(ApiError::deadline());
    }
    jobs.add(pool, request, upload)
}

/// Every job, newest first.
#[utoipa::path(
    get, path = "/v1/jobs", tag = "jobs",
    responses(
        (status = 200, description = "The jobs that wait or run, and the latest of those that are over", body = JobList),
        (status = 429, description = "Working at the limit; see Retry-After", body = ErrorBody),
        (status = 504, description = "Took longer than allowed", body = ErrorBody),
    )
)]
pub(crate) async fn list(State(app): State<Arc<App>>) -> Result<JsonBytes, ApiError> {
    app.compute(|app, _| JsonBytes::of(&JobList { jobs: app.jobs.as_ref().map(|jobs| jobs.all()).unwrap_or_default() })).await
}

/// How far a job is, or how it ended.
#[utoipa::path(
    get, path = "/v1/jobs/{id}", tag = "jobs", params(("id" = String, Path, description = "The job's id")),
    responses(
        (status = 200, description = "The job", body = Job),
        (status = 400, description = "The path is not UTF-8", body = ErrorBody),
        (status = 404, description = "No such job", body = ErrorBody),
        (status = 429, description = "Working at the limit; see Retry-After", body = ErrorBody),
        (status = 504, description = "Took longer than allowed", body = ErrorBody),
    )
)]
pub(crate) async fn show(State(app): State<Arc<App>>, path: Result<Path<String>, PathRejection>) -> Result<JsonBytes, ApiError> {
    let id = plain(path)?;
    app.compute(move |app, _| JsonBytes::of(&some_jobs(app, &id)?.get(&id)?)).await
}

/// Ends a job. One that waits is cancelled at once; one that runs commits what is complete and is cancelled soon after.
#[utoipa::path(
    delete, path = "/v1/jobs/{id}", tag = "jobs", params(("id" = String, Path, description = "The job's id")),
    responses(
        (status = 200, description = "The job, cancelled", body = Job),
        (status = 202, description = "The job, which ends as soon as what it has is safe", body = Job),
        (status = 400, description = "The path is not UTF-8", body = ErrorBody),
        (status = 404, description = "No such job", body = ErrorBody),
        (status = 409, description = "The job is over", body = ErrorBody),
        (status = 429, description = "Working at the limit; see Retry-After", body = ErrorBody),
        (status = 504, description = "Took longer than allowed", body = ErrorBody),
    )
)]
pub(crate) async fn cancel(State(app): State<Arc<App>>, path: Result<Path<String>, PathRejection>) -> Result<Response, ApiError> {
    let id = plain(path)?;
    let job = app.compute(move |app, _| some_jobs(app, &id)?.cancel(&id)).await?;
    let status = if job.state == JobState::Cancelled { StatusCode::OK } else { StatusCode::ACCEPTED };
    let mut response = JsonBytes::of(&job)?.into_response();
    *response.status_mut() = status;
    Ok(response)
}

pub(super) fn some_jobs<'a>(app: &'a App, id: &str) -> Result<&'a Arc<Jobs>, ApiError> {
    let shown: String = id.chars().take(80).collect();
    app.jobs
        .as_ref()
        .ok_or_else(|| ApiError::not_found("job_not_found", format!("there is no job {shown:?}; this server takes none")))
}

fn fillable(app: &App, pool: &str) -> Result<Arc<Jobs>, ApiError> {
    let off = || {
        ApiError::new(
            StatusCode::CONFLICT,
            "ingest_off",
            "this server fills no pools; its operator allows it with serve --jobs DIR",
        )
    };
    let jobs = app.jobs.as_ref().ok_or_else(off)?;
    jobs.filling(pool).map(|_| Arc::clone(jobs)).ok_or_else(off)
}

fn is_parquet(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    kind.split(';').next().is_some_and(|kind| kind.trim().eq_ignore_ascii_case(PARQUET))
}
