//! Anchors of a server, asked over HTTP for the rows of each batch: `POST /v1/anchors`, answered as an Arrow stream.
//!
//! The same policy, seed and names as [`super::PoolAnchors`], so that a pool gives the same anchors from behind a server. A request that
//! fails in a way that may pass (no connection, a cut answer, 429, 5xx) is made again with growing pauses; one that is refused is not.

use std::{
    io::Read,
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use anchorite_anchors::{Policy, policy::TextSource};
use anchorite_index::{Cancel, Side};
use arrow_array::{Array, RecordBatch, cast::AsArray};
use arrow_ipc::reader::StreamReader;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value as Json, json};
use sha2::{Digest, Sha256};

use super::{
    AnchorPair, AnchorSource, Query, Wanted, fill,
    pool::{enough, per_query},
};
use crate::data::{DataError, Draw, hex, stream};

/// The media type of Arrow's streaming format.
const ARROW_STREAM: &str = "application/vnd.apache.arrow.stream";
/// The schema's metadata entry in which an answer says what answered.
const HEAD_KEY: &str = "anchorite.anchors";
/// Queries of one request: half of what a server takes.
const QUERIES: usize = 256;
/// Picture bytes of one request: in base64 half of what a server takes.
const PICTURE_BYTES: usize = 24 << 20;
/// Bytes of an answer: a request's anchors, a hundred kilobytes each.
const ANSWER_BYTES: u64 = 4 << 30;
/// Bytes of a refusal that are read.
const REFUSAL_BYTES: u64 = 64 << 10;
/// The first pause before a request is made again; each next is twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// How often a pause looks at the cancel flag.
const LOOK: Duration = Duration::from_millis(100);

/// How a server is asked.
#[derive(Clone, Debug)]
pub struct ServerOptions {
    /// Its address, such as `http://127.0.0.1:7801`.
    pub url: String,
    /// Its pool; none is its first.
    pub pool: Option<String>,
    /// The key it wants, if it wants one.
    pub key: Option<String>,
    /// Which pairs are anchors.
    pub policy: Policy,
    /// The run's seed.
    pub seed: u64,
    /// What one request may take.
    pub timeout: Duration,
    /// Times that a request is made again.
    pub retries: u32,
    /// Whether the pool may change while training.
    pub follow_generations: bool,
}

/// A server that is asked while training.
#[derive(Debug)]
pub struct ServerAnchors {
    options: ServerOptions,
    agent: ureq::Agent,
    encoder: String,
    pool: String,
    generation: AtomicU64,
    needs: [bool; 2],
}

/// Why one request failed.
enum Failure {
    /// It may pass.
    Passing(String),
    /// It will not.
    Lasting(DataError),
}

impl ServerAnchors {
    /// Asks the server for its pool: generation and encoder.
    ///
    /// # Errors
    /// [`DataError::Server`], [`DataError::Refused`].
    pub fn connect(options: ServerOptions, cancel: &Cancel) -> Result<Self, DataError> {
        let config = ureq::Agent::config_builder().http_status_as_error(false).timeout_global(Some(options.timeout));
        let from = |side| options.policy.directions.iter().any(|d| d.from == side);
        let needs = [from(Side::Image), from(Side::Text)];
        let agent = config.build().new_agent();
        let (encoder, pool, generation) = (String::new(), String::new(), AtomicU64::new(0));
        let mut server = Self { options, agent, encoder, pool, generation, needs };
        let list: Json = server.again(cancel, || server.pools())?;
        let wanted = server.options.pool.clone();
        let fits = |pool: &&Json| wanted.as_deref().is_none_or(|name| pool["name"] == name);
        let found = list["pools"].as_array().and_then(|pools| pools.iter().find(fits)).cloned();
        let found = found.ok_or_else(|| server.refused(format!("it has no pool {}", wanted.unwrap_or_default())))?;
        let text = |field: &str| found[field].as_str().unwrap_or_default().to_owned();
        (server.encoder, server.pool) = (text("fingerprint"), text("name"));
        server.generation.store(found["generation"].as_u64().unwrap_or_default(), Ordering::Relaxed);
        Ok(server)
    }

    /// Fingerprint of the encoder that filled the pool.
    #[must_use]
    pub fn encoder(&self) -> &str {
        &self.encoder
    }

    fn refused(&self, reason: String) -> DataError {
        DataError::Refused { url: self.options.url.clone(), reason }
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.options.url.trim_end_matches('/'))
    }

    fn pools(&self) -> Result<Json, Failure> {
        let request = self.agent.get(self.url("/v1/pools"));
        let answer = self.with_key(request).call().map_err(|e| Failure::Passing(e.to_string()))?;
        let mut body = self.accepted(answer)?;
        body.body_mut().read_json().map_err(|e| Failure::Passing(e.to_string()))
    }

    fn with_key<B>(&self, request: ureq::RequestBuilder<B>) -> ureq::RequestBuilder<B> {
        match &self.options.key {
            Some(key) => request.header("authorization", format!("Bearer {key}")),
            None => request,
        }
    }

    /// The answer, unless its status is one of failure.
    fn accepted(&self, mut answer: ureq::http::Response<ureq::Body>) -> Result<ureq::http::Response<ureq::Body>, Failure> {
        let status = answer.status().as_u16();
        if status == 200 {
            return Ok(answer);
        }
        let body = answer.body_mut().with_config().limit(REFUSAL_BYTES).read_to_string().unwrap_or_default();
        let message = serde_json::from_str::<Json>(&body).ok().and_then(|j| j["error"]["message"].as_str().map(str::to_owned));
        let reason = format!("status {status}: {}", message.unwrap_or(body));
        match status {
            408 | 429 | 500..=599 => Err(Failure::Passing(reason)),
            _ => Err(Failure::Lasting(self.refused(reason))),
        }
    }

    /// Makes a request, and again while its failure may pass.
    fn again<T>(&self, cancel: &Cancel, request: impl Fn() -> Result<T, Failure>) -> Result<T, DataError> {
        let mut wait = FIRST_PAUSE;
        for tries in 1.. {
            match request() {
                Ok(answer) => return Ok(answer),
                Err(Failure::Lasting(error)) => return Err(error),
                Err(Failure::Passing(reason)) if tries > self.options.retries => {
                    return Err(DataError::Server { url: self.options.url.clone(), tries, reason });
                }
                Err(Failure::Passing(_)) => pause(wait, cancel)?,
            }
            wait *= 2;
        }
        Err(DataError::Cancelled)
    }

    fn body(&self, wanted: Wanted, queries: &[Query<'_>], k: usize) -> Json {
        let classes = self.options.policy.queries.text == TextSource::ClassName;
        let query = |query: &Query<'_>| {
            let mut body = json!({ "name": format!("task#{}", query.row), "class": query.class });
            if self.needs[0] {
                body["image"] = STANDARD.encode(query.picture).into();
            }
            if let (true, false, Some(caption)) = (self.needs[1], classes, query.caption) {
                body["text"] = caption.into();
            }
            body
        };
        json!({
            "queries": queries.iter().map(query).collect::<Vec<_>>(),
            "policy": self.options.policy,
            "sample": { "k": k, "seed": self.options.seed, "epoch": wanted.epoch },
            "pool": self.pool,
            "include": ["image"],
        })
    }

    fn ask(&self, body: &Json) -> Result<Vec<AnchorPair>, Failure> {
        let passing = |e: &dyn std::fmt::Display| Failure::Passing(e.to_string());
        let request = self.with_key(self.agent.post(self.url("/v1/anchors")).header("accept", ARROW_STREAM));
        let answer = self.accepted(request.send_json(body).map_err(|e| passing(&e))?)?;
        let reader = answer.into_body().into_with_config().limit(ANSWER_BYTES).reader();
        let batches = StreamReader::try_new(reader, None).map_err(|e| passing(&e))?;
        let head = batches.schema().metadata().get(HEAD_KEY).cloned().unwrap_or_default();
        let head: Json = serde_json::from_str(&head).map_err(|e| passing(&e))?;
        self.check(&head).map_err(Failure::Lasting)?;
        read(batches).map_err(Failure::Passing)
    }

    /// The pool must be the one that the run began with.
    fn check(&self, head: &Json) -> Result<(), DataError> {
        let url = self.options.url.clone();
        let found = head["encoder"].as_str().unwrap_or_default();
        if found != self.encoder {
            return Err(DataError::OtherEncoder { url, found: found.to_owned(), expected: self.encoder.clone() });
        }
        let now = head["generation"].as_u64().unwrap_or_default();
        let before = self.generation.load(Ordering::Relaxed);
        if now == before {
            return Ok(());
        }
        if self.options.follow_generations {
            self.generation.store(now, Ordering::Relaxed);
            return Ok(());
        }
        Err(DataError::GenerationChanged { url, before, now })
    }
}

/// The pairs of an answer that have a picture and a caption.
fn read<R: Read>(batches: StreamReader<R>) -> Result<Vec<AnchorPair>, String> {
    let mut pairs = Vec::new();
    for batch in batches {
        let batch = batch.map_err(|e| e.to_string())?;
        append(&batch, &mut pairs).ok_or("the answer lacks a column of captions or pictures")?;
    }
    Ok(pairs)
}

fn append(batch: &RecordBatch, pairs: &mut Vec<AnchorPair>) -> Option<()> {
    let captions = batch.column_by_name("caption")?.as_string_opt::<i32>()?;
    let pictures = batch.column_by_name("image")?.as_binary_opt::<i32>()?;
    for row in (0..batch.num_rows()).filter(|&row| captions.is_valid(row) && pictures.is_valid(row)) {
        let caption = captions.value(row).replace('\0', " ");
        if !caption.trim().is_empty() {
            pairs.push(AnchorPair { picture: pictures.value(row).to_vec(), caption });
        }
    }
    Some(())
}

/// Waits, unless cancelled.
fn pause(length: Duration, cancel: &Cancel) -> Result<(), DataError> {
    let end = Instant::now() + length;
    let nothing = crossbeam_channel::never::<()>();
    loop {
        if cancel.is_cancelled() {
            return Err(DataError::Cancelled);
        }
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(());
        }
        // Nothing ever comes: this is the wait.
        let _ = nothing.recv_timeout(left.min(LOOK));
    }
}

/// Queries that fit one request each.
fn requests<'q, 'p>(queries: &'q [Query<'p>]) -> Vec<&'q [Query<'p>]> {
    let mut parts = Vec::new();
    let (mut start, mut bytes) = (0, 0);
    for (place, query) in queries.iter().enumerate() {
        let full = place - start == QUERIES || bytes + query.picture.len() > PICTURE_BYTES;
        if full && place > start {
            parts.push(&queries[start..place]);
            (start, bytes) = (place, 0);
        }
        bytes += query.picture.len();
    }
    parts.push(&queries[start..]);
    parts
}

impl AnchorSource for ServerAnchors {
    fn batch(&self, wanted: Wanted, queries: &[Query<'_>], cancel: &Cancel) -> Result<Vec<AnchorPair>, DataError> {
        let k = per_query(wanted.count, queries.len());
        let mut found = Vec::new();
        for part in requests(queries) {
            let body = self.body(wanted, part, k);
            found.extend(self.again(cancel, || self.ask(&body))?);
        }
        enough(&found, wanted, queries.len())?;
        Ok(fill(&found, wanted.count, &mut Draw::at(&[self.options.seed, stream::ANCHORS, wanted.number])))
    }

    fn fingerprint(&self) -> String {
        let policy = hex(&Sha256::digest(self.options.policy.to_json()));
        format!("pool {} policy {policy}", self.encoder)
    }

    fn generation(&self) -> Option<u64> {
        (!self.options.follow_generations).then(|| self.generation.load(Ordering::Relaxed))
    }

    fn describe(&self) -> String {
        let generation = self.generation.load(Ordering::Relaxed);
        format!("pool {} (generation {generation}) of {}, asked while training", self.pool, self.options.url)
    }
}
