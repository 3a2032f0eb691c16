//! `POST /v1/manifest`: pairs that somebody chose, as a manifest file that `anchorite anchors verify` and training read.

use std::sync::Arc;

use anchorite_anchors::{Choice, ChoiceError, Form, choose};
use anchorite_index::{Cancel, Key, RowId};
use axum::{
    body::Body,
    extract::State,
    http::{HeaderMap, header},
    response::{IntoResponse as _, Response},
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    app::App,
    body,
    error::{ApiError, ErrorBody},
    refresh::Snapshot,
};

/// Apache Parquet's registered media type.
const PARQUET: &str = "application/vnd.apache.parquet";
const JSON: &str = "application/json";
/// Longest name of a query, in bytes: a sentence.
const QUERY_BYTES: usize = 1024;

/// Pairs of one pool.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ManifestRequest {
    /// The pool; the server's first one by default.
    pool: Option<String>,
    /// The generation that the pairs were found in. Where it is given and the pool has gone on, the request is refused: row numbers may
    /// then name other pairs.
    #[schema(minimum = 0)]
    generation: Option<u64>,
    /// The pairs, in the order in which they are to stand.
    #[schema(min_items = 1, max_items = 10000)]
    pairs: Vec<ChosenPair>,
}

/// A pair, by row number or by key.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct ChosenPair {
    /// Row number.
    #[schema(minimum = 0)]
    id: Option<u64>,
    /// Key.
    key: Option<String>,
    /// What it was chosen for, in words. Default: nothing.
    #[schema(max_length = 1024)]
    query: Option<String>,
    /// The score it was shown with.
    score: Option<f32>,
}

/// A manifest as JSON.
#[derive(Serialize, ToSchema)]
pub(crate) struct ManifestDocument {
    /// What it says of itself: policy, pool, queries, counts.
    header: serde_json::Map<String, serde_json::Value>,
    /// A pair each, with the columns of the parquet file.
    rows: Vec<serde_json::Map<String, serde_json::Value>>,
}

/// Writes chosen pairs as a manifest.
#[utoipa::path(
    post, path = "/v1/manifest", tag = "anchors", request_body = ManifestRequest,
    responses(
        (status = 200, description = "The manifest: a parquet file, or its header and rows as JSON where Accept asks for JSON", content(
            (Vec<u8> = "application/vnd.apache.parquet"), (ManifestDocument = "application/json"))),
        (status = 400, description = "The body is not JSON", body = ErrorBody),
        (status = 404, description = "No such pool, row or key", body = ErrorBody),
        (status = 408, description = "The body came too slowly", body = ErrorBody),
        (status = 410, description = "The generation that was named no longer answers", body = ErrorBody),
        (status = 413, description = "The body is too large", body = ErrorBody),
        (status = 422, description = "A field is wrong; the message names it", body = ErrorBody),
        (status = 429, description = "Working at the limit; see Retry-After", body = ErrorBody),
        (status = 500, description = "The server failed", body = ErrorBody),
        (status = 504, description = "Took longer than allowed", body = ErrorBody),
    )
)]
pub(crate) async fn manifest(State(app): State<Arc<App>>, headers: HeaderMap, body: Body) -> Result<Response, ApiError> {
    let body = body::read(&app, body, app.limits().small_body_bytes).await?;
    let (form, content_type, name) = match wants_json(&headers) {
        true => (Form::Json, JSON, "attachment; filename=\"anchors.json\""),
        false => (Form::Parquet, PARQUET, "attachment; filename=\"anchors.parquet\""),
    };
    let file = app.compute(move |app, cancel| file(app, body::json(&body.bytes)?, form, cancel)).await?;
    Ok(([(header::CONTENT_TYPE, content_type), (header::CONTENT_DISPOSITION, name)], file).into_response())
}

/// Whether Accept names JSON; a client that takes anything gets parquet.
fn wants_json(headers: &HeaderMap) -> bool {
    headers.get_all(header::ACCEPT).iter().any(|v| v.to_str().is_ok_and(|accepted| accepted.contains(JSON)))
}

fn file(app: &App, request: ManifestRequest, form: Form, cancel: &Cancel) -> Result<Vec<u8>, ApiError> {
    let pool = app.pool(request.pool.as_deref())?;
    if let Some(generation) = request.generation {
        pool.still_at(generation)?;
    }
    let limits = app.limits();
    if request.pairs.len() > limits.max_ids {
        let message = format!("there are {} pairs; a manifest by hand has at most {}", request.pairs.len(), limits.max_ids);
        return Err(ApiError::unprocessable("too_many_ids", message));
    }
    let choices = choices(&pool, request.pairs)?;
    Ok(choose(pool.retriever.store(), &choices, form, &limits.curation(), cancel)?)
}

fn choices(pool: &Snapshot, pairs: Vec<ChosenPair>) -> Result<Vec<Choice>, ApiError> {
    let wrong = |place: usize, code, message: &str| ApiError::unprocessable(code, format!("pairs[{place}]: {message}"));
    let mut keys = Vec::new();
    for (place, pair) in pairs.iter().enumerate() {
        if pair.id.is_some() == pair.key.is_some() {
            return Err(wrong(place, "pair_id", "give either id or key"));
        }
        if pair.query.as_ref().is_some_and(|query| query.is_empty() || query.len() > QUERY_BYTES) {
            return Err(wrong(
                place,
                "query_name",
                &format!("a query has 1 to {QUERY_BYTES} bytes; leave it out where there is none"),
            ));
        }
        if pair.score.is_some_and(|score| !score.is_finite()) {
            return Err(wrong(place, "score_not_finite", "the score is not a finite number; leave it out where there is none"));
        }
        if let Some(key) = &pair.key {
            keys.push(Key::new(key.clone()).map_err(|e| wrong(place, "key_malformed", &e.to_string()))?);
        }
    }
    let mut found = if keys.is_empty() { Vec::new() } else { pool.retriever.store().find(&keys)? }.into_iter();
    let mut choices = Vec::with_capacity(pairs.len());
    for (place, pair) in pairs.into_iter().enumerate() {
        let missing =
            || ApiError::not_found("pair_not_found", format!("pairs[{place}]: there is no pair of this key in this pool"));
        let row = match pair.id {
            Some(row) => RowId(row),
            None => found.next().flatten().ok_or_else(missing)?,
        };
        choices.push(Choice { row, query: pair.query, score: pair.score });
    }
    Ok(choices)
}

impl From<ChoiceError> for ApiError {
    fn from(error: ChoiceError) -> Self {
        match error {
            ChoiceError::Empty => Self::unprocessable("no_pairs", error.to_string()),
            ChoiceError::Twice { .. } => Self::unprocessable("pair_twice", error.to_string()),
            ChoiceError::NoRow { .. } => Self::not_found("pair_not_found", error.to_string()),
            ChoiceError::Manifest(anchorite_anchors::manifest::ManifestError::Store(e)) => e.into(),
            e => Self::internal("manifest_failed", e),
        }
    }
}
