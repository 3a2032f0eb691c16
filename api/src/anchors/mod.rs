//! `POST /v1/anchors`: a batch of queries and a policy to anchors, for training loops and for people.
//!
//! ```text
//!   body ─► AnchorsRequest ─queries.rs─► Questions ─anchors::curate─► Curated ─► groups by query
//!                                                                                │
//!                     JSON (one piece, bounded bytes) ◄──── answer.rs ───────────┤
//!                     Arrow IPC stream (a batch at a time, backpressure) ◄ stream.rs
//! ```
//!
//! An answer is of one generation of the pool, and names it and the encoder.

mod answer;
mod queries;
mod stream;

use std::{sync::Arc, time::Instant};

use anchorite_anchors::{
    Curated, Entry, Limits as CurateLimits, Policy, Protected, Questions, Report, Retriever, Sample, Surroundings, curate,
    curate_sample,
};
use anchorite_index::{Cancel, Effort};
use axum::{
    body::Body,
    extract::State,
    http::{HeaderMap, header},
    response::{IntoResponse as _, Response},
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    Limits,
    app::App,
    body::{self, ReadBody},
    error::{ApiError, ErrorBody},
};
use queries::AnchorQuery;
pub(crate) use queries::refused;

/// The media type of Arrow's streaming format.
pub(crate) const ARROW_STREAM: &str = "application/vnd.apache.arrow.stream";

/// Queries, what is asked of their anchors, and how the answer comes.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct AnchorsRequest {
    /// What to find anchors for; 1 to 512.
    #[schema(min_items = 1, max_items = 512)]
    queries: Vec<AnchorQuery>,
    /// The retrieval policy, as `anchorite anchors --print-policy` prints it; what is left out has its default there. Files have no place
    /// in it: `protect.sets` must be empty.
    #[serde(default)]
    #[schema(value_type = Object, example = json!({"directions": [{"from": "text", "to": "image"}], "select": {"k": 8}}))]
    policy: Policy,
    /// Draw `k` of each query's candidates (the policy's `select.k`), other ones each epoch. Each query is then answered by itself:
    /// the same query, policy, pool, seed and epoch give the same anchors in any batch.
    #[serde(default)]
    #[schema(value_type = Option<SampleBody>)]
    sample: Option<Sample>,
    /// The pool; the server's first one by default.
    #[serde(default)]
    pool: Option<String>,
    /// What to send of each anchor besides `id`, `key`, `score`, `rank`, `caption`, `content`, `group` and `validation`.
    #[serde(default)]
    include: Vec<AnchorPart>,
    /// Arrow only: queries of one record batch, at least 1. Default 16. Batches are smaller where pictures would make them large.
    #[serde(default = "queries_per_batch")]
    #[schema(minimum = 1, default = 16)]
    queries_per_batch: usize,
}

fn queries_per_batch() -> usize {
    16
}

/// A draw from each query's candidates.
#[derive(ToSchema)]
#[expect(dead_code, reason = "the schema of anchorite_anchors::Sample, which knows no OpenAPI")]
struct SampleBody {
    /// Anchors of each query.
    #[schema(minimum = 1)]
    k: usize,
    /// Decides the draws.
    #[schema(minimum = 0, default = 0)]
    seed: Option<u64>,
    /// Counts passes over the data; each draws anew.
    #[schema(minimum = 0, default = 0)]
    epoch: Option<u64>,
}

/// A part of an anchor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum AnchorPart {
    /// The stored picture: base64 in JSON, bytes in Arrow.
    Image,
    /// Arrow only: the picture as the model takes it, float32 of shape (3, height, width).
    Pixels,
    /// The metadata columns.
    Fields,
    /// Both stored vectors.
    Vectors,
}

/// Gives the anchors of a batch of queries.
#[utoipa::path(
    post, path = "/v1/anchors", tag = "anchors", request_body = AnchorsRequest,
    responses(
        (status = 200, description = "The anchors of each query: JSON, or an Arrow IPC stream where Accept asks for it", content(
            (answer::AnchorsResponse = "application/json"),
            (Vec<u8> = "application/vnd.apache.arrow.stream"),
        )),
        (status = 400, description = "The body is not JSON", body = ErrorBody),
        (status = 404, description = "No such pool, row or key", body = ErrorBody),
        (status = 408, description = "The body came too slowly", body = ErrorBody),
        (status = 413, description = "The body is too large", body = ErrorBody),
        (status = 422, description = "A query, the policy or another field is wrong; the message names it", body = ErrorBody),
        (status = 429, description = "Working at the limit; see Retry-After", body = ErrorBody),
        (status = 500, description = "The server failed", body = ErrorBody),
        (status = 504, description = "Took longer than allowed", body = ErrorBody),
    )
)]
pub(crate) async fn anchors(State(app): State<Arc<App>>, headers: HeaderMap, body: Body) -> Result<Response, ApiError> {
    let body = body::read(&app, body, app.limits().anchors_body_bytes).await?;
    if wants_arrow(&headers) {
        return stream::answer(&app, body).await;
    }
    let json = app.compute(move |app, cancel| answer::json(&Chosen::of(app, &body, Shape::Json, cancel)?, app, cancel)).await?;
    Ok(json.into_response())
}

fn wants_arrow(headers: &HeaderMap) -> bool {
    headers.get_all(header::ACCEPT).iter().any(|v| v.to_str().is_ok_and(|accepted| accepted.contains(ARROW_STREAM)))
}

/// How the answer will be written.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Shape {
    Json,
    Arrow,
}

/// The anchors of one request, and what is still to be read of them.
struct Chosen {
    retriever: Retriever,
    questions: Questions,
    curated: Curated,
    include: Vec<AnchorPart>,
    queries_per_batch: usize,
    head: Head,
}

/// What an answer says of itself.
#[derive(Clone, Serialize, ToSchema)]
struct Head {
    /// The pool that answered.
    pool: String,
    /// Its generation; all of the answer is of it.
    generation: u64,
    /// Fingerprint of the encoder: equal fingerprints give comparable scores.
    encoder: String,
    /// The model's name.
    model: String,
    /// `exact` where every row was compared, otherwise `approximate`.
    search: String,
    /// How many were asked for, found, and dropped for which reason.
    #[schema(value_type = Object)]
    report: Report,
}

/// The anchors of one query, as places in [`Curated::entries`].
struct Group {
    /// The query's place; none for a control.
    query: Option<usize>,
    entries: Vec<usize>,
}

impl Chosen {
    fn of(app: &App, body: &ReadBody, shape: Shape, cancel: &Cancel) -> Result<Self, ApiError> {
        let request: AnchorsRequest = body::json(&body.bytes)?;
        check(&request, shape, app.limits())?;
        let pool = app.pool(request.pool.as_deref())?;
        let retriever = pool.retriever.clone();
        let generation = retriever.store().status().generation;
        let limits = app.limits().curation();
        let started = Instant::now();
        let questions = queries::questions(request.queries, &request.policy, &retriever, &limits, cancel)?;
        app.metrics.stage("anchor_queries", started.elapsed(), None);
        let started = Instant::now();
        let curated = carry_out(&retriever, &request.policy, &questions, request.sample.as_ref(), (&limits, cancel))?;
        app.metrics.stage("anchor_curation", started.elapsed(), None);
        let head = Head {
            pool: pool.name.clone(),
            generation,
            encoder: retriever.encoder().fingerprint().to_owned(),
            model: retriever.encoder().name().to_owned(),
            search: if request.policy.effort == Effort::Exact { "exact" } else { "approximate" }.to_owned(),
            report: curated.report.clone(),
        };
        let AnchorsRequest { include, queries_per_batch, .. } = request;
        Ok(Self { retriever, questions, curated, include, queries_per_batch, head })
    }

    fn has(&self, part: AnchorPart) -> bool {
        self.include.contains(&part)
    }

    fn entry(&self, place: usize) -> &Entry {
        &self.curated.entries[place]
    }

    /// One group for each query, those without anchors included; a control has one group without a query.
    fn groups(&self) -> Vec<Group> {
        let queries = self.questions.list.len();
        let is_control = self.curated.ends.is_empty();
        let mut groups: Vec<Group> = match is_control {
            true => vec![Group { query: None, entries: Vec::new() }],
            false => (0..queries).map(|query| Group { query: Some(query), entries: Vec::new() }).collect(),
        };
        for (place, entry) in self.curated.entries.iter().enumerate().filter(|(_, e)| e.reason.is_none()) {
            groups[entry.query.unwrap_or(0)].entries.push(place);
        }
        groups
    }
}

fn carry_out(
    retriever: &Retriever,
    policy: &Policy,
    questions: &Questions,
    sample: Option<&Sample>,
    (limits, cancel): (&CurateLimits, &Cancel),
) -> Result<Curated, ApiError> {
    let surroundings = Surroundings { limits, cancel, told: &|_, _| {} };
    let curated = match sample {
        Some(sample) => curate_sample(retriever.store(), policy, questions, sample, surroundings),
        None => curate(retriever.store(), policy, questions, &Protected::default(), surroundings),
    };
    Ok(curated?)
}

/// What can be refused before anything is encoded.
fn check(request: &AnchorsRequest, shape: Shape, limits: &Limits) -> Result<(), ApiError> {
    let queries = request.queries.len();
    if queries == 0 || queries > limits.max_anchor_queries {
        let message = format!("there are {queries} queries; send between 1 and {}", limits.max_anchor_queries);
        return Err(ApiError::unprocessable("query_count", message));
    }
    if request.queries_per_batch == 0 {
        return Err(ApiError::unprocessable("batch_size", "queries_per_batch is 0; give at least 1, or leave it out"));
    }
    if shape == Shape::Json && request.include.contains(&AnchorPart::Pixels) {
        let message = format!("pixels come as an Arrow stream only; send the header Accept: {ARROW_STREAM}, or include image");
        return Err(ApiError::unprocessable("pixels_need_arrow", message));
    }
    if !request.policy.protect.sets.is_empty() {
        let message = "policy.protect.sets names files, which a server does not open for its clients; make a manifest with `anchorite anchors`";
        return Err(ApiError::unprocessable("policy_refused", message));
    }
    check_counts(&request.policy, request.sample.as_ref(), queries, limits)
}

fn check_counts(policy: &Policy, sample: Option<&Sample>, queries: usize, limits: &Limits) -> Result<(), ApiError> {
    let candidates = policy.select.k.map_or(usize::MAX, |k| k.saturating_mul(queries));
    let wanted = match sample {
        Some(sample) => sample.k.saturating_mul(queries),
        None => candidates.min(policy.select.target.unwrap_or(usize::MAX)),
    };
    if wanted > limits.max_anchors {
        let message = format!(
            "the policy asks for more than the {} anchors one answer may have; lower select.k or select.target, or send fewer queries",
            limits.max_anchors
        );
        return Err(ApiError::unprocessable("too_many_anchors", message));
    }
    // Twice the candidates are fetched at first, and what diversity reorders.
    let fetched = candidates.min(usize::MAX / 4).saturating_add(policy.select.diversity.shortlist().saturating_mul(queries));
    if policy.select.k.is_some() && fetched.saturating_mul(2) > limits.max_anchor_hits {
        let message = format!(
            "the policy looks at more than the {} hits one request may; lower select.k or the shortlist, or send fewer queries",
            limits.max_anchor_hits
        );
        return Err(ApiError::unprocessable("too_many_hits", message));
    }
    Ok(())
}
