//! `POST /v1/search`: one query or many, by text, picture, embedding or a stored pair. Ids and scores come for every hit;
//! records for the first `limit` of each query, so that a large `k` stays cheap.

use std::{collections::BTreeMap, sync::Arc, time::Instant};

use anchorite_anchors::{Anchor, Ask, Found, Input};
use anchorite_index::{Cancel, Effort, Filter, Key, Parts, Record, RowId, Side, StoreError, Value};
use axum::{body::Body, extract::State};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    Limits,
    app::App,
    body::{self, JsonBytes},
    error::{ApiError, ErrorBody},
    filter::FilterForm,
    refresh::Snapshot,
};

/// Records read between two looks at the cancel flag and the byte budget.
const READ_STEP: usize = 64;

/// A search. Give the query's one input here, or several in `queries`.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SearchRequest {
    /// Words to look for.
    #[schema(example = "a red apple")]
    text: Option<String>,
    /// A JPEG, PNG or WebP picture to look for: the file's bytes in base64, with or without a `data:` prefix.
    image: Option<String>,
    /// A vector of this pool's model; any length but zero.
    embedding: Option<Vec<f32>>,
    /// A pair of this pool, by row number: its stored vector is looked for.
    #[schema(minimum = 0)]
    id: Option<u64>,
    /// A pair of this pool, by key.
    key: Option<String>,
    /// Several queries, answered in order.
    queries: Option<Vec<QueryInput>>,
    /// The pool to search; the server's first one by default.
    pool: Option<String>,
    /// Hits for each query. Default 10.
    #[schema(minimum = 1, maximum = 10000, default = 10)]
    k: Option<usize>,
    /// Which vectors are searched. Default: the pictures'.
    side: Option<SideName>,
    /// How hard to try. Default: normal.
    effort: Option<EffortName>,
    /// Drop hits whose score (a cosine) is below this.
    threshold: Option<f32>,
    /// Which stored vector of `id` or `key` is the query. Default: the picture's, or the caption's where there is none.
    from: Option<SideName>,
    /// Which pairs may be found, such as `{"and": [{"eq": {"field": "lang", "value": "en"}}, {"range": {"field": "width", "gte": 256}}]}`.
    /// Fields are the metadata columns, `key`, `caption`, `source` and `source.row`. Default: all pairs.
    #[schema(value_type = Option<FilterForm>)]
    filter: Option<serde_json::Value>,
    /// What to send of the first `limit` hits besides `id`, `score` and `key`.
    include: Option<Vec<Include>>,
    /// How many hits of each query carry their key and what `include` names. Default 100.
    #[schema(minimum = 0, default = 100)]
    limit: Option<usize>,
}

/// One of many queries: exactly one of the five.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct QueryInput {
    /// Words to look for.
    text: Option<String>,
    /// A picture file's bytes in base64.
    image: Option<String>,
    /// A vector of this pool's model.
    embedding: Option<Vec<f32>>,
    /// A pair, by row number.
    #[schema(minimum = 0)]
    id: Option<u64>,
    /// A pair, by key.
    key: Option<String>,
}

/// Which vector of a pair.
#[derive(Clone, Copy, Debug, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum SideName {
    /// The picture's.
    Image,
    /// The caption's.
    Text,
}

/// How hard a search tries.
#[derive(Clone, Copy, Debug, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum EffortName {
    /// Lowest latency.
    Fast,
    /// The default.
    Normal,
    /// Close to exact.
    High,
    /// Every row compared.
    Exact,
}

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
    /// Hits that `threshold` removed.
    below_threshold: usize,
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
        (status = 413, description = "The body is too large", body = ErrorBody),
        (status = 422, description = "A field is wrong; the message names it", body = ErrorBody),
        (status = 429, description = "Working at the limit; see Retry-After", body = ErrorBody),
        (status = 500, description = "The server failed", body = ErrorBody),
        (status = 504, description = "Took longer than allowed", body = ErrorBody),
    )
)]
pub(crate) async fn search(State(app): State<Arc<App>>, body: Body) -> Result<JsonBytes, ApiError> {
    let body = body::read(&app, body, app.limits().search_body_bytes).await?;
    app.compute(move |app, cancel| answer(app, body::json(&body.bytes)?, cancel)).await
}

fn answer(app: &App, request: SearchRequest, cancel: &Cancel) -> Result<JsonBytes, ApiError> {
    let started = Instant::now();
    let pool = app.pool(request.pool.as_deref())?;
    let wanted = Wanted::of(&request, app.limits())?;
    let asks = asks(request, app.limits())?;
    let generation = pool.retriever.store().status().generation;
    let precision = pool.retriever.store().precision().to_string();
    let answers = pool.retriever.find(&asks, cancel)?;
    app.metrics.retrieval(&answers.times);
    let took_ms = millis(started);
    let reading = Instant::now();
    let mut budget = app.limits().answer_bytes;
    let results = answers.found.into_iter().map(|found| result(&pool, &found, &wanted, &mut budget, cancel, took_ms));
    let results = results.collect::<Result<Vec<_>, ApiError>>()?;
    app.metrics.metadata(reading.elapsed());
    JsonBytes::of(&SearchResponse { pool: pool.name.clone(), generation, precision, results })
}

/// Milliseconds since `started`, to the microsecond.
fn millis(started: Instant) -> f64 {
    (started.elapsed().as_secs_f64() * 1e6).round() / 1e3
}

/// What is sent of the hits.
struct Wanted {
    include: Vec<Include>,
    limit: usize,
}

impl Wanted {
    const DEFAULT_LIMIT: usize = 100;

    fn of(request: &SearchRequest, limits: &Limits) -> Result<Self, ApiError> {
        let limit = request.limit.unwrap_or(Self::DEFAULT_LIMIT).min(request.k.unwrap_or(DEFAULT_K));
        let queries = request.queries.as_ref().map_or(1, Vec::len);
        if limit.saturating_mul(queries) > limits.max_records {
            let message = format!(
                "{queries} queries with {limit} records each are more than the {} records one answer may have; lower limit, \
                 or ask in several requests",
                limits.max_records
            );
            return Err(ApiError::unprocessable("too_many_records", message));
        }
        Ok(Self { include: request.include.clone().unwrap_or_default(), limit })
    }

    fn has(&self, part: Include) -> bool {
        self.include.contains(&part)
    }

    fn parts(&self) -> Parts {
        Parts { picture: self.has(Include::Image), vectors: self.has(Include::Vectors) }
    }
}

const DEFAULT_K: usize = 10;

/// Checks what the retriever cannot know: how many queries, and that each has one input.
fn asks(request: SearchRequest, limits: &Limits) -> Result<Vec<Ask>, ApiError> {
    let single =
        QueryInput { text: request.text, image: request.image, embedding: request.embedding, id: request.id, key: request.key };
    let k = request.k.unwrap_or(DEFAULT_K);
    let queries = match request.queries {
        None => vec![single],
        Some(queries) if single.inputs().is_empty() => queries,
        Some(_) => {
            let message = "the body has both queries and a query of its own; move it into queries";
            return Err(ApiError::unprocessable("query_input", message));
        }
    };
    check_counts(queries.len(), k, limits)?;
    let filter = request.filter.map(Filter::try_from).transpose().map_err(StoreError::from)?.map(Arc::new);
    let many = queries.len() > 1;
    let ask = |(i, query): (usize, QueryInput)| {
        let place = if many { format!("query {i}: ") } else { String::new() };
        Ok(Ask {
            side: request.side.map_or(Side::Image, Into::into),
            k,
            effort: request.effort.map_or(Effort::Normal, Into::into),
            threshold: request.threshold,
            from: request.from.map(Into::into),
            filter: filter.clone(),
            ..Ask::new(query.into_input(&place)?)
        })
    };
    queries.into_iter().enumerate().map(ask).collect()
}

fn check_counts(queries: usize, k: usize, limits: &Limits) -> Result<(), ApiError> {
    if queries == 0 || queries > limits.max_queries {
        let message = format!("there are {queries} queries; send between 1 and {}", limits.max_queries);
        return Err(ApiError::unprocessable("query_count", message));
    }
    if k > limits.max_k {
        let message = format!("k is {k}; give a number between 1 and {}", limits.max_k);
        return Err(ApiError::unprocessable("k_out_of_range", message));
    }
    if queries.saturating_mul(k) > limits.max_hits {
        let message = format!(
            "{queries} queries with k = {k} are more than the {} hits one answer may have; ask in several requests",
            limits.max_hits
        );
        return Err(ApiError::unprocessable("too_many_hits", message));
    }
    Ok(())
}

impl QueryInput {
    /// The names of the inputs that are there.
    fn inputs(&self) -> Vec<&'static str> {
        let there = [
            ("text", self.text.is_some()),
            ("image", self.image.is_some()),
            ("embedding", self.embedding.is_some()),
            ("id", self.id.is_some()),
            ("key", self.key.is_some()),
        ];
        there.into_iter().filter_map(|(name, there)| there.then_some(name)).collect()
    }

    fn into_input(self, place: &str) -> Result<Input, ApiError> {
        let inputs = self.inputs();
        let one = match self {
            _ if inputs.len() != 1 => None,
            Self { text: Some(text), .. } => Some(Input::Text(text)),
            Self { image: Some(image), .. } => {
                let picture = body::picture(&image).map_err(|e| ApiError { message: format!("{place}{}", e.message), ..e })?;
                Some(Input::Picture(picture))
            }
            Self { embedding: Some(values), .. } => Some(Input::Embedding(values)),
            Self { id: Some(row), .. } => Some(Input::Row(RowId(row))),
            Self { key: Some(key), .. } => {
                Some(Input::Key(Key::new(key).map_err(|e| ApiError::unprocessable("key_malformed", format!("{place}{e}")))?))
            }
            _ => None,
        };
        one.ok_or_else(|| {
            let there = if inputs.is_empty() { "nothing to search for".to_owned() } else { inputs.join(" and ") };
            let message = format!("{place}there is {there}; give exactly one of text, image, embedding, id or key");
            ApiError::unprocessable("query_input", message)
        })
    }
}

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
    let Found { degraded, requested, below_threshold, .. } = *found;
    Ok(SearchResult { hits, degraded, requested, below_threshold, took_ms })
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
        Self { id: row.0, score, key: None, caption: None, fields: None, image: None, vectors: None, source: None }
    }

    fn fill(&mut self, anchor: Anchor, wanted: &Wanted) {
        let record = anchor.record;
        self.key = Some(record.key.into());
        self.caption = record.caption.filter(|_| wanted.has(Include::Caption));
        self.fields = wanted.has(Include::Fields).then_some(record.fields);
        self.image = record.picture.filter(|_| wanted.has(Include::Image)).map(|bytes| body::base64(&bytes));
        self.vectors = wanted.has(Include::Vectors).then_some(Vectors { image: record.image, text: record.text });
        let source = Source { file: record.source.file, row: record.source.row, content: hex(&record.content.0) };
        self.source = Some(source).filter(|_| wanted.has(Include::Source));
    }
}

/// Lower-case hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

impl From<SideName> for Side {
    fn from(name: SideName) -> Self {
        match name {
            SideName::Image => Self::Image,
            SideName::Text => Self::Text,
        }
    }
}

impl From<EffortName> for Effort {
    fn from(name: EffortName) -> Self {
        match name {
            EffortName::Fast => Self::Fast,
            EffortName::Normal => Self::Normal,
            EffortName::High => Self::High,
            EffortName::Exact => Self::Exact,
        }
    }
}
