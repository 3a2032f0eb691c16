//! `POST /v1/search`: one query or many, by text, picture, embedding or a stored pair. Ids and scores come for every hit;
//! records for the first `limit` of each query, so that a large `k` stays cheap.

mod page;
mod request;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Instant,
};

use anchorite_anchors::{Anchor, Found, hex};
use anchorite_index::{Cancel, PairStore, Parts, Record, RowId, Value};
use axum::{body::Body, extract::State};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    Limits,
    app::App,
    body::{self, JsonBytes},
    error::{ApiError, ErrorBody},
    refresh::Snapshot,
};
use page::Page;
pub(crate) use request::SearchRequest;

/// Records read between two looks at the cancel flag and the byte budget.
const READ_STEP: usize = 64;

/// A part of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum Include {
    /// The caption.
    Caption,
    /// The metadata columns.
    Fields,
    /// The stored picture, base64.
    Image,
    /// Both stored vectors.
    Vectors,
    /// Where the pair came from, and its content hash.
    Source,
}

/// The answer to a search.
#[derive(Serialize, ToSchema)]
pub(crate) struct SearchResponse {
    /// The pool that answered.
    pool: String,
    /// Its generation when the search began.
    generation: u64,
    /// What scores are computed from, those of exact searches included: `f32`, `f16`, or `7-bit`.
    precision: String,
    /// One for each query, in order.
    results: Vec<SearchResult>,
    /// Where the request has pages and a query has more hits: the cursor of the next page.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

/// The hits of one query.
#[derive(Serialize, ToSchema)]
struct SearchResult {
    /// Best first.
    hits: Vec<SearchHit>,
    /// True when the search was cut short, so that rows which belong here may be missing.
    degraded: bool,
    /// The `k` that was asked for.
    requested: usize,
    /// Of the hits asked for, those that are missing since what was found instead scores below `threshold`.
    below_threshold: usize,
    /// Hits left out as near duplicates of better ones.
    near_duplicates: usize,
    /// Milliseconds of the whole call (encoding and search; queries of one call share them).
    took_ms: f64,
}

/// One pair that was found.
#[derive(Serialize, ToSchema)]
struct SearchHit {
    /// Row number.
    id: u64,
    /// Cosine, from -1 to 1.
    score: f32,
    /// Stable name; for the first `limit` hits.
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    /// Whether `/v1/pools/{pool}/pairs/{id}/image` has its picture; for the first `limit` hits.
    #[serde(skip_serializing_if = "Option::is_none")]
    has_image: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    caption: Option<String>,
    /// Metadata columns.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<std::collections::HashMap<String, serde_json::Value>>)]
    fields: Option<BTreeMap<String, Value>>,
    /// The stored picture, base64.
    #[serde(skip_serializing_if = "Option::is_none")]
    image: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    vectors: Option<Vectors>,
    #[serde(skip_serializing_if = "Option::is_none")]
    source: Option<Source>,
}

/// Stored vectors; a side the pair lacks is left out.
#[derive(Serialize, ToSchema)]
pub(crate) struct Vectors {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) image: Option<Vec<f32>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) text: Option<Vec<f32>>,
}

/// Where a pair came from.
#[derive(Serialize, ToSchema)]
pub(crate) struct Source {
    /// The source's name.
    pub(crate) file: String,
    /// Row within it, counted from 0.
    pub(crate) row: u64,
    /// SHA-256 of what the pair was made from.
    pub(crate) content: String,
}

/// Finds the pairs nearest to each query.
#[utoipa::path(
    post, path = "/v1/search", tag = "search", request_body = SearchRequest,
    responses(
        (status = 200, description = "The hits of each query, best first", body = SearchResponse),
        (status = 400, description = "The body is not JSON", body = ErrorBody),
        (status = 404, description = "No such pool, row or key", body = ErrorBody),
        (status = 408, description = "The body came too slowly", body = ErrorBody),
        (status = 410, description = "The cursor's generation no longer answers", body = ErrorBody),
        (status = 413, description = "The body is too large", body = ErrorBody),
        (status = 422, description = "A field is wrong; the message names it", body = ErrorBody),
        (status = 429, description = "Working at the limit; see Retry-After", body = ErrorBody),
        (status = 500, description = "The server failed", body = ErrorBody),
        (status = 504, description = "Took longer than allowed", body = ErrorBody),
    )
)]
pub(crate) async fn search(State(app): State<Arc<App>>, body: Body) -> Result<JsonBytes, ApiError> {
    let body = body::read(&app, body, app.limits().search_body_bytes).await?;
    app.compute(move |app, cancel| answer(app, &body.bytes, cancel)).await
}

fn answer(app: &App, body: &[u8], cancel: &Cancel) -> Result<JsonBytes, ApiError> {
    let started = Instant::now();
    let request: SearchRequest = body::json(body)?;
    let pool = app.pool(request.pool.as_deref())?;
    let store = pool.retriever.store();
    let wanted = Wanted::of(&request, store, app.limits(), cancel)?;
    let page = Page::of(&request, body, &pool)?;
    let asks = request.into_asks(app.limits())?;
    let answers = pool.retriever.find(&asks, cancel)?;
    app.metrics.retrieval(&answers.times);
    let took_ms = millis(started);
    let reading = Instant::now();
    let mut budget = app.limits().answer_bytes;
    let next = page.next(answers.found.iter().map(|found| found.hits.len()).max().unwrap_or(0));
    let paged = |found: Found| Found { hits: page.cut(found.hits), ..found };
    let results = answers.found.into_iter().map(|found| result(&pool, &paged(found), &wanted, &mut budget, cancel, took_ms));
    let results = results.collect::<Result<Vec<_>, ApiError>>()?;
    app.metrics.metadata(reading.elapsed());
    let (generation, precision) = (store.status().generation, store.precision().to_string());
    JsonBytes::of(&SearchResponse { pool: pool.name.clone(), generation, precision, results, next })
}

/// Milliseconds since `started`, to the microsecond.
fn millis(started: Instant) -> f64 {
    (started.elapsed().as_secs_f64() * 1e6).round() / 1e3
}

/// What is sent of the hits.
struct Wanted {
    include: Vec<Include>,
    /// Those of the metadata columns that are sent; none for all.
    columns: Option<BTreeSet<String>>,
    limit: usize,
}

impl Wanted {
    const DEFAULT_LIMIT: usize = 100;

    fn of(request: &SearchRequest, store: &dyn PairStore, limits: &Limits, cancel: &Cancel) -> Result<Self, ApiError> {
        let limit = request.limit.unwrap_or(Self::DEFAULT_LIMIT).min(request.page.unwrap_or(usize::MAX)).min(request.k());
        let queries = request.count();
        if limit.saturating_mul(queries) > limits.max_records {
            let message = format!(
                "{queries} queries with {limit} records each are more than the {} records one answer may have; lower limit, \
                 or ask in several requests",
                limits.max_records
            );
            return Err(ApiError::unprocessable("too_many_records", message));
        }
        let mut include = request.include.clone().unwrap_or_default();
        let columns: Option<BTreeSet<String>> = request.columns.clone().map(|names| names.into_iter().collect());
        if let Some(columns) = &columns {
            check_columns(columns, store, cancel)?;
            include.push(Include::Fields);
        }
        Ok(Self { include, columns, limit })
    }

    fn has(&self, part: Include) -> bool {
        self.include.contains(&part)
    }

    fn parts(&self) -> Parts {
        Parts { picture: self.has(Include::Image), vectors: self.has(Include::Vectors) }
    }
}

/// Refuses columns that no pair has.
fn check_columns(columns: &BTreeSet<String>, store: &dyn PairStore, cancel: &Cancel) -> Result<(), ApiError> {
    let there: Vec<String> = store.fields(cancel)?.into_iter().map(|field| field.name).collect();
    let Some(unknown) = columns.iter().find(|name| !there.contains(name)) else { return Ok(()) };
    let unknown: String = unknown.chars().take(80).collect();
    let some = there.iter().take(NAMED_COLUMNS).map(String::as_str).collect::<Vec<_>>().join(", ");
    let named = match there.len() {
        0 => "its pairs have none".to_owned(),
        all if all > NAMED_COLUMNS => format!("there are {some} and {} more", all - NAMED_COLUMNS),
        _ => format!("there are {some}"),
    };
    Err(ApiError::unprocessable("column_unknown", format!("this pool has no metadata column {unknown:?}; {named}")))
}

/// Columns that a refusal names.
const NAMED_COLUMNS: usize = 20;

fn result(
    pool: &Snapshot,
    found: &Found,
    wanted: &Wanted,
    budget: &mut usize,
    cancel: &Cancel,
    took_ms: f64,
) -> Result<SearchResult, ApiError> {
    let bare = |h: &anchorite_index::Hit| SearchHit::bare(h.row, h.score);
    let mut hits: Vec<SearchHit> = found.hits.iter().map(bare).collect();
    let end = wanted.limit.min(hits.len());
    for first in (0..end).step_by(READ_STEP) {
        if cancel.is_cancelled() {
            return Err(ApiError::deadline());
        }
        for anchor in pool.retriever.anchors_in(found, wanted.parts(), first..end.min(first + READ_STEP))? {
            *budget = budget.checked_sub(record_bytes(&anchor.record)).ok_or_else(|| answer_too_large(wanted))?;
            hits[anchor.rank].fill(anchor, wanted);
        }
    }
    let Found { degraded, requested, below_threshold, near_duplicates, .. } = *found;
    Ok(SearchResult { hits, degraded, requested, below_threshold, near_duplicates, took_ms })
}

/// What a record's picture and vectors add to an answer.
pub(crate) fn record_bytes(record: &Record) -> usize {
    let vector = |v: &Option<Vec<f32>>| v.as_ref().map_or(0, |v| v.len() * size_of::<f32>());
    record.picture.as_ref().map_or(0, Vec::len) + vector(&record.image) + vector(&record.text)
}

fn answer_too_large(wanted: &Wanted) -> ApiError {
    let message = format!(
        "pictures and vectors of {} records are more than one answer may carry; lower limit, or fetch pictures by their own URL",
        wanted.limit
    );
    ApiError::unprocessable("answer_too_large", message)
}

impl SearchHit {
    fn bare(row: RowId, score: f32) -> Self {
        Self {
            id: row.0,
            score,
            key: None,
            has_image: None,
            caption: None,
            fields: None,
            image: None,
            vectors: None,
            source: None,
        }
    }

    fn fill(&mut self, anchor: Anchor, wanted: &Wanted) {
        let record = anchor.record;
        self.key = Some(record.key.into());
        self.has_image = Some(record.has_picture);
        self.caption = record.caption.filter(|_| wanted.has(Include::Caption));
        let sent = |name: &String| wanted.columns.as_ref().is_none_or(|columns| columns.contains(name));
        self.fields = wanted.has(Include::Fields).then(|| record.fields.into_iter().filter(|(name, _)| sent(name)).collect());
        self.image = record.picture.filter(|_| wanted.has(Include::Image)).map(|bytes| body::base64(&bytes));
        self.vectors = wanted.has(Include::Vectors).then_some(Vectors { image: record.image, text: record.text });
        self.source = wanted.has(Include::Source).then(|| Source {
            file: record.source.file,
            row: record.source.row,
            content: hex(&record.content.0),
        });
    }
}
