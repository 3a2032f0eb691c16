//! clip-retrieval's back end, as its own client and page use it: `/knn-service`, `/metadata`, `/indices-list`, `/config.json`,
//! `/metrics-summary`.
//!
//! Kept from upstream: bodies are JSON whatever their Content-Type, unknown keys are ignored, `null` is absent, an embedding is
//! used at its own length (scores scale with it), results past `num_images` are bare, near-duplicates are removed without a
//! refill, any origin may ask (on these routes only).
//!
//! Different on purpose: errors are 400, 404 or 422 with `{"message"}` that says what is wrong, not 500; a caption is never null
//! and a number never NaN, which blank upstream's page; `image` is the stored file as it is (JPEG, PNG or WebP; browsers and PIL
//! look at the bytes), not encoded again as JPEG; a pair without a `url` column gets the URL of its stored picture here;
//! `image_url` is refused, because this server fetches nothing; safety and aesthetic settings are accepted and do nothing; a pool
//! of one kind of vectors is searched by those, whatever `modality` says; a pair without a picture shows one that says so, in web
//! pages alone (`columns.rs`).
//!
//! | file | subject |
//! |---|---|
//! | `mod` | the routes: a body to hits to rows |
//! | `dedup` | upstream's rule of near-duplicates |
//! | `columns` | what a row says of its pair |
//! | `summary` | where the time of searches went |

mod columns;
mod dedup;
mod summary;

use std::{sync::Arc, time::Instant};

use anchorite_anchors::{Ask, Found, Input};
use anchorite_index::{Cancel, Hit, Parts, RowId, Side, StoreStatus};
use axum::{
    body::Body,
    extract::{Request, State},
    http::{HeaderMap, HeaderValue, Method, StatusCode, header},
    middleware::Next,
    response::{IntoResponse as _, Response},
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Number, Value as Json};
use utoipa::ToSchema;

use crate::{
    app::App,
    body::{self, JsonBytes},
    clip_retrieval::columns::{Caller, Columns},
    error::{ApiError, LegacyErrorBody},
    refresh::Snapshot,
};

/// Records read between two looks at the cancel flag and the byte budget.
const READ_STEP: usize = 64;

/// Whether errors of this path speak upstream's dialect.
pub(crate) fn is_route(path: &str) -> bool {
    matches!(path, "/knn-service" | "/metadata" | "/indices-list" | "/config.json" | "/metrics-summary")
}

/// A search, as clip-retrieval's client and page send it. One of `text`, `image`, `embedding_input`, in this order.
#[derive(Deserialize, ToSchema)]
pub(crate) struct KnnRequest {
    /// Words to look for.
    #[serde(default)]
    text: Option<String>,
    /// A picture file's bytes in base64.
    #[serde(default)]
    image: Option<String>,
    /// Refused: this server fetches nothing.
    #[serde(default)]
    image_url: Option<String>,
    /// A vector of the pool's model, used as it is.
    #[serde(default)]
    embedding_input: Option<Vec<f32>>,
    /// `image` searches the pictures' vectors, anything else the captions'. A pool that has one kind alone is searched by that.
    modality: String,
    /// How many results carry metadata.
    num_images: usize,
    /// How many results; `num_images` by default.
    #[serde(default)]
    num_result_ids: Option<usize>,
    /// The pool; the first one by default.
    #[serde(default)]
    indice_name: Option<String>,
    /// Whether near-duplicates are removed.
    #[serde(default)]
    deduplicate: Option<bool>,
}

/// Records by row number.
#[derive(Deserialize, ToSchema)]
pub(crate) struct MetadataRequest {
    /// Row numbers.
    ids: Vec<u64>,
    /// The pool; the first one by default.
    #[serde(default)]
    indice_name: Option<String>,
}

/// What the page asks for first.
#[derive(Serialize, ToSchema)]
pub(crate) struct FrontConfig {
    /// This server.
    #[serde(rename = "defaultBackend")]
    default_backend: String,
    /// Empty: the first pool.
    #[serde(rename = "defaultIndex")]
    default_index: String,
    /// The column with a picture's address.
    #[serde(rename = "urlColumn")]
    url_column: String,
}

/// Finds pairs (clip-retrieval).
#[utoipa::path(
    post, path = "/knn-service", tag = "clip-retrieval", request_body = KnnRequest,
    responses(
        (status = 200, description = "An array, best first: metadata columns, image, id, similarity", body = Vec<std::collections::HashMap<String, serde_json::Value>>),
        (status = 400, description = "The body is not JSON", body = LegacyErrorBody),
        (status = 404, description = "No such index", body = LegacyErrorBody),
        (status = 408, description = "The body came too slowly", body = LegacyErrorBody),
        (status = 413, description = "The body is too large", body = LegacyErrorBody),
        (status = 422, description = "A field is wrong; the message names it", body = LegacyErrorBody),
        (status = 429, description = "Working at the limit; see Retry-After", body = LegacyErrorBody),
        (status = 500, description = "The server failed", body = LegacyErrorBody),
        (status = 504, description = "Took longer than allowed", body = LegacyErrorBody),
    )
)]
pub(crate) async fn knn_service(State(app): State<Arc<App>>, headers: HeaderMap, body: Body) -> Result<JsonBytes, ApiError> {
    let caller = Caller::of(&headers);
    let body = body::read(&app, body, app.limits().search_body_bytes).await?;
    app.compute(move |app, cancel| knn(app, &body::json(&body.bytes)?, &caller, cancel)).await
}

/// Gives records by row number (clip-retrieval).
#[utoipa::path(
    post, path = "/metadata", tag = "clip-retrieval", request_body = MetadataRequest,
    responses(
        (status = 200, description = "An array of {id, metadata}, in request order", body = Vec<std::collections::HashMap<String, serde_json::Value>>),
        (status = 400, description = "The body is not JSON", body = LegacyErrorBody),
        (status = 404, description = "No such index or row", body = LegacyErrorBody),
        (status = 408, description = "The body came too slowly", body = LegacyErrorBody),
        (status = 413, description = "The body is too large", body = LegacyErrorBody),
        (status = 422, description = "A field is wrong; the message names it", body = LegacyErrorBody),
        (status = 429, description = "Working at the limit; see Retry-After", body = LegacyErrorBody),
        (status = 500, description = "The server failed", body = LegacyErrorBody),
        (status = 504, description = "Took longer than allowed", body = LegacyErrorBody),
    )
)]
pub(crate) async fn metadata(State(app): State<Arc<App>>, headers: HeaderMap, body: Body) -> Result<JsonBytes, ApiError> {
    let caller = Caller::of(&headers);
    let body = body::read(&app, body, app.limits().small_body_bytes).await?;
    app.compute(move |app, cancel| records(app, &body::json(&body.bytes)?, &caller, cancel)).await
}

/// Names the pools (clip-retrieval).
#[utoipa::path(get, path = "/indices-list", tag = "clip-retrieval", responses((status = 200, description = "The pools' names", body = Vec<String>)))]
pub(crate) async fn indices_list(State(app): State<Arc<App>>) -> Result<JsonBytes, ApiError> {
    JsonBytes::of(&app.pools.iter().map(|p| p.name.as_str()).collect::<Vec<_>>())
}

/// Configures clip-retrieval's page.
#[utoipa::path(get, path = "/config.json", tag = "clip-retrieval", responses((status = 200, description = "The page's settings", body = FrontConfig)))]
pub(crate) async fn config(headers: HeaderMap) -> Result<JsonBytes, ApiError> {
    let default_backend = format!("{}/", Caller::of(&headers).here);
    JsonBytes::of(&FrontConfig { default_backend, default_index: String::new(), url_column: "url".to_owned() })
}

/// Says where the time of searches went, for people (clip-retrieval).
#[utoipa::path(
    get, path = "/metrics-summary", tag = "clip-retrieval",
    responses((status = 200, description = "Searches so far, and what their steps took on average, the dearest first", body = String, content_type = "text/plain"))
)]
pub(crate) async fn metrics_summary(State(app): State<Arc<App>>) -> String {
    let (whole, steps) = app.metrics.legacy_steps();
    summary::summary(&whole, steps)
}

/// Any origin may ask on these routes, and on no other: upstream's page is served from elsewhere, and nothing here needs
/// credentials.
pub(crate) async fn any_origin(request: Request, next: Next) -> Response {
    if !is_route(request.uri().path()) {
        return next.run(request).await;
    }
    let preflight = request.method() == Method::OPTIONS;
    let mut response = if preflight { StatusCode::NO_CONTENT.into_response() } else { next.run(request).await };
    let headers = response.headers_mut();
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    if preflight {
        headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET, POST, OPTIONS"));
        headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static("Content-Type"));
    }
    response
}

fn knn(app: &App, request: &KnnRequest, caller: &Caller, cancel: &Cancel) -> Result<JsonBytes, ApiError> {
    let started = Instant::now();
    let pool = app.pool(request.indice_name.as_deref())?;
    let side = side(&request.modality, &pool.retriever.store().status());
    let k = request.num_result_ids.unwrap_or(request.num_images);
    if k > app.limits().max_k {
        let message = format!("num_result_ids is {k}; give a number between 1 and {}", app.limits().max_k);
        return Err(ApiError::unprocessable("k_out_of_range", message));
    }
    let input = input(request)?;
    if matches!(&input, Input::Picture(picture) if picture == columns::NO_PICTURE) {
        return JsonBytes::of(&Json::Array(Vec::new()));
    }
    let length = length(&input);
    let answers = pool.retriever.find(&[Ask { side, k, ..Ask::new(input) }], cancel)?;
    app.metrics.retrieval(&answers.times);
    let found = answers.found.into_iter().next().unwrap_or_default();
    let hits = if request.deduplicate == Some(true) { distinct(app, &pool, &found, side, cancel)? } else { found.hits };
    let rows: Vec<RowId> = hits.iter().take(request.num_images).map(|hit| hit.row).collect();
    let started_reading = Instant::now();
    let columns = Columns::new(app, &pool, caller).read(&rows, cancel)?;
    app.metrics.metadata(started_reading.elapsed());
    let results = described(&hits, columns, length);
    app.metrics.knn_request(started.elapsed());
    JsonBytes::of(&results)
}

/// The vectors that are searched: those asked for, or the only ones there are. Upstream's page asks for pictures first, whatever a pool holds.
fn side(modality: &str, pool: &StoreStatus) -> Side {
    match (modality, pool.image_rows, pool.text_rows) {
        ("image", 0, 1..) => Side::Text,
        ("image", ..) => Side::Image,
        (_, 1.., 0) => Side::Image,
        _ => Side::Text,
    }
}

/// Upstream's precedence: words, then picture, then its URL, then the vector.
fn input(request: &KnnRequest) -> Result<Input, ApiError> {
    match request {
        KnnRequest { text: Some(text), .. } if !text.is_empty() => Ok(Input::Text(text.clone())),
        KnnRequest { image: Some(image), .. } => Ok(Input::Picture(body::picture(image)?)),
        KnnRequest { image_url: Some(_), .. } => {
            let message = "image_url is not offered: this server fetches nothing; send the picture itself in image, as base64";
            Err(ApiError::unprocessable("image_url_not_offered", message))
        }
        KnnRequest { embedding_input: Some(values), .. } => Ok(Input::Embedding(values.clone())),
        _ => Err(ApiError::unprocessable("query_input", "there is nothing to search for; give text, image or embedding_input")),
    }
}

/// Upstream's similarity is an inner product with the embedding as it was sent; ours is a cosine, so the length is put back.
fn length(input: &Input) -> f64 {
    match input {
        Input::Embedding(values) => values.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>().sqrt(),
        _ => 1.0,
    }
}

fn distinct(app: &App, pool: &Snapshot, found: &Found, side: Side, cancel: &Cancel) -> Result<Vec<Hit>, ApiError> {
    let started = Instant::now();
    let mut vectors = Vec::new();
    for first in (0..found.hits.len()).step_by(READ_STEP) {
        if cancel.is_cancelled() {
            return Err(ApiError::deadline());
        }
        let rows: Vec<RowId> = found.hits[first..].iter().take(READ_STEP).map(|h| h.row).collect();
        let stored = pool.retriever.store().get(&rows, Parts { vectors: true, picture: false })?;
        vectors.extend(stored.into_iter().map(|record| record.and_then(|r| if side == Side::Image { r.image } else { r.text })));
    }
    let kept = dedup::best_of_each_group(&vectors, cancel).ok_or_else(ApiError::deadline)?;
    app.metrics.dedup(started.elapsed());
    Ok(kept.into_iter().map(|i| found.hits[i]).collect())
}

/// The hits with the columns of the first of them; scores are multiplied by `length`.
fn described(hits: &[Hit], columns: Vec<Option<Map<String, Json>>>, length: f64) -> Vec<Json> {
    let mut columns = columns.into_iter();
    let result = |hit: &Hit| {
        let mut result = columns.next().flatten().unwrap_or_default();
        result.insert("id".to_owned(), hit.row.0.into());
        result.insert("similarity".to_owned(), number(f64::from(hit.score) * length));
        Json::Object(result)
    };
    hits.iter().map(result).collect()
}

fn records(app: &App, request: &MetadataRequest, caller: &Caller, cancel: &Cancel) -> Result<JsonBytes, ApiError> {
    if request.ids.is_empty() {
        return JsonBytes::of(&Json::Array(Vec::new()));
    }
    let max = app.limits().max_ids;
    if request.ids.len() > max {
        let message = format!("there are {} ids; send at most {max} at once", request.ids.len());
        return Err(ApiError::unprocessable("too_many_ids", message));
    }
    let pool = app.pool(request.indice_name.as_deref())?;
    let started = Instant::now();
    let rows: Vec<RowId> = request.ids.iter().copied().map(RowId).collect();
    let columns = Columns::new(app, &pool, caller).read(&rows, cancel)?;
    app.metrics.metadata(started.elapsed());
    let one = |(id, columns): (&u64, Option<Map<String, Json>>)| {
        let missing = || ApiError::not_found("pair_not_found", format!("there is no row {id} in this index"));
        Ok(serde_json::json!({"id": id, "metadata": columns.ok_or_else(missing)?}))
    };
    JsonBytes::of(&request.ids.iter().zip(columns).map(one).collect::<Result<Vec<_>, ApiError>>()?)
}

fn number(x: f64) -> Json {
    Number::from_f64(x).map_or_else(|| 0.into(), Json::Number)
}
