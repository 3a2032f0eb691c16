//! `GET /v1/pools...`: what is served, one pair, its stored picture.

use std::{collections::BTreeMap, sync::Arc, time::Instant};

use anchorite_anchors::hex;
use anchorite_index::{Field, Key, Kind, Parts, Record, RowId, Value};
use axum::{
    extract::{
        Path, Query, State,
        rejection::{PathRejection, QueryRejection},
    },
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse as _, Response},
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    app::App,
    body::{self, JsonBytes},
    error::{ApiError, ErrorBody},
    refresh::{Reloaded, Snapshot},
    search::Source,
};

/// A stored picture may do nothing but be looked at, whatever its bytes claim to be.
const PICTURE_CSP: HeaderValue = HeaderValue::from_static("default-src 'none'; sandbox");

/// The pools of this server.
#[derive(Serialize, ToSchema)]
pub(crate) struct PoolList {
    /// In the server's order; the first is searched when a request names none.
    pools: Vec<PoolInfo>,
}

/// What is known of a pool.
#[derive(Serialize, ToSchema)]
pub(crate) struct PoolInfo {
    /// The name requests use.
    name: String,
    /// Pairs.
    rows: u64,
    /// Pairs with a picture vector.
    image_rows: u64,
    /// Pairs with a caption vector.
    text_rows: u64,
    /// Counts up with every commit.
    generation: u64,
    /// Values of an embedding.
    dim: usize,
    /// What is kept of them, and scores are computed from: `f32`, `f16`, or `7-bit`.
    precision: String,
    /// The model's name.
    model: String,
    /// Its fingerprint: equal fingerprints give comparable vectors.
    fingerprint: String,
    /// Largest `k`.
    max_k: usize,
}

impl PoolInfo {
    fn of(pool: &Snapshot, app: &App) -> Self {
        let (store, encoder) = (pool.retriever.store(), pool.retriever.encoder());
        let status = store.status();
        Self {
            name: pool.name.clone(),
            rows: status.rows,
            image_rows: status.image_rows,
            text_rows: status.text_rows,
            generation: status.generation,
            dim: store.spec().dim,
            precision: store.precision().to_string(),
            model: encoder.name().to_owned(),
            fingerprint: encoder.fingerprint().to_owned(),
            max_k: store.max_k().min(app.limits().max_k),
        }
    }
}

/// One pair.
#[derive(Serialize, ToSchema)]
pub(crate) struct PairBody {
    /// Row number.
    id: u64,
    /// Stable name.
    key: String,
    caption: Option<String>,
    /// Metadata columns.
    #[schema(value_type = std::collections::HashMap<String, serde_json::Value>)]
    fields: BTreeMap<String, Value>,
    source: Source,
    /// Where the stored picture is, or null when none is stored.
    image_url: Option<String>,
}

/// How the last part of the path names a pair.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct By {
    /// `key` when the name is a key made of digits only; otherwise digits are a row number and anything else is a key.
    by: Option<ByName>,
}

#[derive(Clone, Copy, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum ByName {
    /// A row number.
    Id,
    /// A key.
    Key,
}

/// Lists the pools.
#[utoipa::path(
    get, path = "/v1/pools", tag = "pools",
    responses(
        (status = 200, description = "Every pool", body = PoolList),
        (status = 429, description = "Working at the limit; see Retry-After", body = ErrorBody),
        (status = 504, description = "Took longer than allowed", body = ErrorBody),
    )
)]
pub(crate) async fn list(State(app): State<Arc<App>>) -> Result<JsonBytes, ApiError> {
    app.compute(|app, _| JsonBytes::of(&PoolList { pools: app.pools.iter().map(|p| PoolInfo::of(&p.snapshot(), app)).collect() }))
        .await
}

/// Describes one pool.
#[utoipa::path(
    get, path = "/v1/pools/{pool}", tag = "pools", params(("pool" = String, Path, description = "Its name")),
    responses(
        (status = 200, description = "The pool", body = PoolInfo),
        (status = 400, description = "The path is not UTF-8", body = ErrorBody),
        (status = 404, description = "No such pool", body = ErrorBody),
        (status = 429, description = "Working at the limit; see Retry-After", body = ErrorBody),
        (status = 504, description = "Took longer than allowed", body = ErrorBody),
    )
)]
pub(crate) async fn describe(
    State(app): State<Arc<App>>,
    path: Result<Path<String>, PathRejection>,
) -> Result<JsonBytes, ApiError> {
    let pool = plain(path)?;
    app.compute(move |app, _| JsonBytes::of(&PoolInfo::of(&app.pool(Some(&pool))?, app))).await
}

/// The fields of a pool.
#[derive(Serialize, ToSchema)]
pub(crate) struct FieldList {
    /// By name. Besides them, filters know `key`, `caption`, `source` and `source.row` of every pair.
    fields: Vec<FieldInfo>,
}

/// A metadata column.
#[derive(Serialize, ToSchema)]
pub(crate) struct FieldInfo {
    /// As `columns` of a search and `fields` of its hits name it.
    name: String,
    /// As filters name it: the same, or `fields.` before a name that means something else there.
    filter: String,
    /// The kinds of its values: usually one.
    kinds: Vec<KindName>,
}

/// A kind of value.
#[derive(Clone, Copy, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum KindName {
    /// True or false.
    Bool,
    /// A whole number or a fraction.
    Number,
    /// Text.
    Text,
}

impl From<Kind> for KindName {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Bool => Self::Bool,
            Kind::Number => Self::Number,
            Kind::Text => Self::Text,
        }
    }
}

/// Lists the metadata columns of a pool.
#[utoipa::path(
    get, path = "/v1/pools/{pool}/fields", tag = "pools", params(("pool" = String, Path, description = "Its name")),
    responses(
        (status = 200, description = "Its columns", body = FieldList),
        (status = 400, description = "The path is not UTF-8", body = ErrorBody),
        (status = 404, description = "No such pool", body = ErrorBody),
        (status = 429, description = "Working at the limit; see Retry-After", body = ErrorBody),
        (status = 500, description = "The server failed", body = ErrorBody),
        (status = 504, description = "Took longer than allowed", body = ErrorBody),
    )
)]
pub(crate) async fn fields(
    State(app): State<Arc<App>>,
    path: Result<Path<String>, PathRejection>,
) -> Result<JsonBytes, ApiError> {
    let pool = plain(path)?;
    app.compute(move |app, cancel| {
        let fields = app.pool(Some(&pool))?.retriever.store().fields(cancel)?;
        let info = |Field { name, asked, kinds }: Field| FieldInfo {
            name,
            filter: asked,
            kinds: kinds.into_iter().map(Into::into).collect(),
        };
        JsonBytes::of(&FieldList { fields: fields.into_iter().map(info).collect() })
    })
    .await
}

/// What a reload did.
#[derive(Serialize, ToSchema)]
pub(crate) struct ReloadBody {
    /// The generation that answers.
    generation: u64,
    /// Whether it is another than before.
    changed: bool,
}

/// Takes the newest generation of a pool now; requests that are being answered keep theirs.
#[utoipa::path(
    post, path = "/v1/pools/{pool}/reload", tag = "pools", params(("pool" = String, Path, description = "Its name")),
    responses(
        (status = 200, description = "The generation that answers", body = ReloadBody),
        (status = 400, description = "The path is not UTF-8", body = ErrorBody),
        (status = 404, description = "No such pool", body = ErrorBody),
        (status = 429, description = "Working at the limit; see Retry-After", body = ErrorBody),
        (status = 500, description = "The new generation cannot be opened; the present one goes on answering", body = ErrorBody),
        (status = 504, description = "Took longer than allowed", body = ErrorBody),
    )
)]
pub(crate) async fn reload(
    State(app): State<Arc<App>>,
    path: Result<Path<String>, PathRejection>,
) -> Result<JsonBytes, ApiError> {
    let pool = plain(path)?;
    app.compute(move |app, _| {
        let Reloaded { generation, changed } = app.served(Some(&pool))?.reload()?;
        JsonBytes::of(&ReloadBody { generation, changed })
    })
    .await
}

/// Gives one pair without its picture.
#[utoipa::path(
    get, path = "/v1/pools/{pool}/pairs/{id}", tag = "pools",
    params(("pool" = String, Path, description = "Its name"), ("id" = String, Path, description = "Row number or key"),
        ("by" = Option<ByName>, Query, description = "`key` when the name is a key of digits only; otherwise digits are a row number")),
    responses(
        (status = 200, description = "The pair", body = PairBody),
        (status = 400, description = "The path is not UTF-8", body = ErrorBody),
        (status = 404, description = "No such pool or pair", body = ErrorBody),
        (status = 422, description = "Neither a row number nor a key, or an unknown parameter", body = ErrorBody),
        (status = 429, description = "Working at the limit; see Retry-After", body = ErrorBody),
        (status = 500, description = "The server failed", body = ErrorBody),
        (status = 504, description = "Took longer than allowed", body = ErrorBody),
    )
)]
pub(crate) async fn pair(
    State(app): State<Arc<App>>,
    path: Result<Path<(String, String)>, PathRejection>,
    by: Result<Query<By>, QueryRejection>,
) -> Result<JsonBytes, ApiError> {
    let ((pool, id), by) = (plain(path)?, checked(by)?);
    app.compute(move |app, _| {
        let record = record(app, &pool, (&id, by), Parts::default())?;
        let image_url = record.has_picture.then(|| image_path(&pool, record.row));
        let source = Source { file: record.source.file, row: record.source.row, content: hex(&record.content.0) };
        let (id, key) = (record.row.0, record.key.into());
        JsonBytes::of(&PairBody { id, key, caption: record.caption, fields: record.fields, source, image_url })
    })
    .await
}

/// Gives a pair's picture as it was ingested.
#[utoipa::path(
    get, path = "/v1/pools/{pool}/pairs/{id}/image", tag = "pools",
    params(("pool" = String, Path, description = "Its name"), ("id" = String, Path, description = "Row number or key"),
        ("by" = Option<ByName>, Query, description = "`key` when the name is a key of digits only; otherwise digits are a row number")),
    responses(
        (status = 200, description = "The picture's bytes", body = Vec<u8>, content_type = "image/*"),
        (status = 304, description = "Not changed since the ETag in If-None-Match"),
        (status = 400, description = "The path is not UTF-8", body = ErrorBody),
        (status = 404, description = "No such pool or pair, or no picture stored", body = ErrorBody),
        (status = 422, description = "Neither a row number nor a key, or an unknown parameter", body = ErrorBody),
        (status = 429, description = "Working at the limit; see Retry-After", body = ErrorBody),
        (status = 500, description = "The server failed", body = ErrorBody),
        (status = 504, description = "Took longer than allowed", body = ErrorBody),
    )
)]
pub(crate) async fn image(
    State(app): State<Arc<App>>,
    path: Result<Path<(String, String)>, PathRejection>,
    by: Result<Query<By>, QueryRejection>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let ((pool, id), by) = (plain(path)?, checked(by)?);
    let record = app.compute(move |app, _| record(app, &pool, (&id, by), Parts { picture: true, vectors: false })).await?;
    let etag = format!("\"{}\"", hex(&record.content.0));
    let bytes = record.picture.ok_or_else(|| {
        let message = format!("row {} has no stored picture; its record says where it came from", record.row.0);
        ApiError::not_found("no_picture", message)
    })?;
    let unchanged = headers.get(header::IF_NONE_MATCH).and_then(|v| v.to_str().ok()).is_some_and(|sent| sent.contains(&etag));
    let mut response = if unchanged { StatusCode::NOT_MODIFIED.into_response() } else { picture_response(bytes) };
    let caching = HeaderValue::from_static("private, max-age=300");
    response.headers_mut().insert(header::CACHE_CONTROL, caching);
    if let Ok(etag) = HeaderValue::from_str(&etag) {
        response.headers_mut().insert(header::ETAG, etag);
    }
    Ok(response)
}

fn picture_response(bytes: Vec<u8>) -> Response {
    let headers =
        [(header::CONTENT_TYPE, HeaderValue::from_static(picture_type(&bytes))), (header::CONTENT_SECURITY_POLICY, PICTURE_CSP)];
    (headers, bytes).into_response()
}

/// By content; what is no picture we know is sent as plain bytes.
pub(crate) fn picture_type(bytes: &[u8]) -> &'static str {
    match bytes {
        [0xff, 0xd8, 0xff, ..] => "image/jpeg",
        [0x89, b'P', b'N', b'G', ..] => "image/png",
        [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => "image/webp",
        _ => "application/octet-stream",
    }
}

/// The path of a pair's stored picture.
pub(crate) fn image_path(pool: &str, row: RowId) -> String {
    format!("/v1/pools/{pool}/pairs/{}/image", row.0)
}

pub(crate) fn plain<T>(path: Result<Path<T>, PathRejection>) -> Result<T, ApiError> {
    let malformed = |_| ApiError::new(StatusCode::BAD_REQUEST, "path_malformed", "the path is not UTF-8; escape it as URLs do");
    path.map(|Path(parts)| parts).map_err(malformed)
}

fn checked(by: Result<Query<By>, QueryRejection>) -> Result<Option<ByName>, ApiError> {
    let Query(By { by }) = by.map_err(|e| body::bad_parameters(&e, "?by=id and ?by=key"))?;
    Ok(by)
}

fn record(app: &App, pool: &str, (id, by): (&str, Option<ByName>), parts: Parts) -> Result<Record, ApiError> {
    let retriever = app.pool(Some(pool))?.retriever;
    let store = retriever.store();
    let started = Instant::now();
    let missing = || {
        let shown: String = id.chars().take(Key::MAX_BYTES + 1).collect();
        ApiError::not_found(
            "pair_not_found",
            format!("there is no pair {shown:?} in this pool; give a row number or a key of it"),
        )
    };
    let digits = !id.is_empty() && id.bytes().all(|b| b.is_ascii_digit());
    let row = match by {
        Some(ByName::Key) => None,
        Some(ByName::Id) if !digits => {
            return Err(ApiError::unprocessable("pair_id", "a row number is made of digits; leave ?by=id out to ask by key"));
        }
        _ if digits => Some(RowId(id.parse().map_err(|_| missing())?)),
        _ => None,
    };
    let row = match row {
        Some(row) => row,
        None => {
            let key = Key::new(id).map_err(|e| ApiError::unprocessable("key_malformed", e.to_string()))?;
            store.find(&[key])?.into_iter().next().flatten().ok_or_else(missing)?
        }
    };
    let records = store.get(&[row], parts)?;
    app.metrics.metadata(started.elapsed());
    records.into_iter().next().flatten().ok_or_else(missing)
}
