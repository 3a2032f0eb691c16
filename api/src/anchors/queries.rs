//! The queries of a request, as questions of a policy: words and pictures go through the encoder, stored pairs bring their vectors.

use anchorite_anchors::{AskError, Given, Limits, Policy, Questions, RetrieveError, Retriever, encode_questions, hex};
use anchorite_encoder::Embedding;
use anchorite_index::{Cancel, Key, Parts, Record, RowId};
use serde::Deserialize;
use sha2::{Digest, Sha256};
use utoipa::ToSchema;

use crate::{
    body,
    error::ApiError,
    vector::{Vector, VectorForm},
};

/// One query. Words and a picture may come together, for policies with several directions; `embedding`, `id` and `key` stand alone.
#[derive(Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct AnchorQuery {
    /// What the answer calls it. Default: a hash of what it asks with, so that equal queries have equal names. Draws depend on it.
    name: Option<String>,
    /// Its class, for policies that speak of classes.
    class: Option<String>,
    /// Words.
    #[schema(example = "a red apple")]
    text: Option<String>,
    /// A JPEG, PNG or WebP picture: the file's bytes in base64, with or without a `data:` prefix.
    image: Option<String>,
    /// A vector of this pool's model, for any direction, as numbers or as base64 of little-endian float32; any length but zero.
    #[schema(value_type = Option<VectorForm>)]
    embedding: Option<Vector>,
    /// A pair of this pool, by row number: its stored vectors ask.
    #[schema(minimum = 0)]
    id: Option<u64>,
    /// A pair of this pool, by key.
    key: Option<String>,
}

/// Longest name of a query, in bytes.
const NAME_BYTES: usize = 1024;

/// Encodes and looks up every query.
pub(super) fn questions(
    queries: Vec<AnchorQuery>,
    policy: &Policy,
    retriever: &Retriever,
    limits: &Limits,
    cancel: &Cancel,
) -> Result<Questions, ApiError> {
    let asks = queries.len();
    let mut given = Vec::with_capacity(asks);
    let mut stored = Vec::new();
    for (place, query) in queries.into_iter().enumerate() {
        let (query, pair) = query.into_given(place, retriever)?;
        stored.extend(pair.map(|pair| (place, pair)));
        given.push(query);
    }
    fill_stored(&mut given, stored, retriever)?;
    let questions = encode_questions(given, policy, retriever.encoder(), limits, cancel)?;
    match questions.first_reject {
        None => Ok(questions),
        Some(first) => Err(refused(&first, questions.rejected)),
    }
}

pub(crate) fn refused(first: &str, rejected: u64) -> ApiError {
    let more = if rejected > 1 { format!(" ({} more)", rejected - 1) } else { String::new() };
    let message = format!("query {first}{more}; each query needs what the policy's directions start from, readable");
    ApiError::unprocessable("query_refused", message)
}

/// A pair that asks.
enum Pair {
    Row(RowId),
    Key(Key),
}

impl AnchorQuery {
    fn into_given(self, place: usize, retriever: &Retriever) -> Result<(Given, Option<Pair>), ApiError> {
        let wrong = |code, message: String| Err(ApiError::unprocessable(code, format!("query {place}: {message}")));
        let alone = [self.embedding.is_some(), self.id.is_some(), self.key.is_some()].into_iter().filter(|is| *is).count();
        let together = self.text.is_some() || self.image.is_some();
        let classed = self.class.is_some();
        if alone > 1 || (alone == 1 && together) || (alone == 0 && !together && !classed) {
            let message = "give text, image or both, or one of embedding, id or key alone".to_owned();
            return wrong("query_input", message);
        }
        if self.name.as_ref().is_some_and(|name| name.is_empty() || name.len() > NAME_BYTES) {
            return wrong("query_name", format!("a name has 1 to {NAME_BYTES} bytes"));
        }
        let hash = self.hash();
        let picture = match self.image.as_deref().map(body::picture).transpose() {
            Ok(picture) => picture,
            Err(e) => return wrong(e.code, e.message),
        };
        let vector = self.embedding.map(|Vector(values)| unit(values, place, retriever)).transpose()?;
        let pair = match (self.id, self.key.map(Key::new)) {
            (Some(row), _) => Some(Pair::Row(RowId(row))),
            (None, Some(Ok(key))) => Some(Pair::Key(key)),
            (None, Some(Err(e))) => return wrong("key_malformed", e.to_string()),
            (None, None) => None,
        };
        let id = self.name.unwrap_or(hash);
        Ok((Given { id, class: self.class, caption: self.text, picture, image: vector.clone(), text: vector }, pair))
    }

    /// 64 bits of SHA-256 over what it asks with, in hexadecimal.
    fn hash(&self) -> String {
        let mut hash = Sha256::new();
        let mut part = |name: &str, bytes: Option<&[u8]>| {
            if let Some(bytes) = bytes {
                hash.update(name);
                hash.update((bytes.len() as u64).to_le_bytes());
                hash.update(bytes);
            }
        };
        part("class", self.class.as_deref().map(str::as_bytes));
        part("text", self.text.as_deref().map(str::as_bytes));
        part("image", self.image.as_deref().map(str::as_bytes));
        let values = self.embedding.as_ref().map(|v| v.0.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>());
        part("embedding", values.as_deref());
        part("id", self.id.map(u64::to_le_bytes).as_ref().map(<[u8; 8]>::as_slice));
        part("key", self.key.as_deref().map(str::as_bytes));
        hex(&hash.finalize()[..8])
    }
}

fn named(place: usize, source: AskError) -> ApiError {
    // A request of one query is named by its position too: batches are what this route is for.
    RetrieveError::Ask { ask: place, asks: usize::MAX, source }.into()
}

fn unit(values: Vec<f32>, place: usize, retriever: &Retriever) -> Result<Vec<f32>, ApiError> {
    let expected = retriever.store().spec().dim;
    if values.len() != expected {
        return Err(named(place, AskError::Dimension { expected, found: values.len() }));
    }
    Embedding::normalized(values).map(Embedding::into_vec).map_err(|e| named(place, AskError::Embedding(e)))
}

/// Gives the queries that are pairs of the pool those pairs' vectors.
fn fill_stored(given: &mut [Given], stored: Vec<(usize, Pair)>, retriever: &Retriever) -> Result<(), ApiError> {
    if stored.is_empty() {
        return Ok(());
    }
    let store = retriever.store();
    let keys: Vec<Key> =
        stored.iter().filter_map(|(_, p)| if let Pair::Key(key) = p { Some(key.clone()) } else { None }).collect();
    let mut found = if keys.is_empty() { Vec::new() } else { store.find(&keys)? }.into_iter();
    let mut rows = Vec::with_capacity(stored.len());
    for (place, pair) in &stored {
        rows.push(match pair {
            Pair::Row(row) => *row,
            Pair::Key(key) => found.next().flatten().ok_or_else(|| named(*place, AskError::NoKey { key: key.clone() }))?,
        });
    }
    let records = store.get(&rows, Parts { vectors: true, picture: false })?;
    for (((place, _), row), record) in stored.into_iter().zip(rows).zip(records) {
        let missing = || named(place, AskError::NoRow { row, rows: store.status().rows });
        let Record { image, text, .. } = record.ok_or_else(missing)?;
        (given[place].image, given[place].text) = (image, text);
    }
    Ok(())
}
