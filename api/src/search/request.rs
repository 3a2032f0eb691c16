//! What a search may ask, and the questions it means.

use std::sync::Arc;

use anchorite_anchors::{Ask, Input, Part};
use anchorite_index::{Effort, Filter, Key, RowId, Side, StoreError};
use serde::Deserialize;
use utoipa::ToSchema;

use super::Include;
use crate::{
    Limits, body,
    error::ApiError,
    filter::FilterForm,
    vector::{Vector, VectorForm},
};

/// Hits of a query that does not say how many.
const DEFAULT_K: usize = 10;
/// Inputs of one blended query: a person's likes and dislikes of one page of results.
const MAX_INPUTS: usize = 64;

/// A search. Give the query's one input here, or several inputs in `blend`, or several queries in `queries`.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SearchRequest {
    /// Words to look for.
    #[schema(example = "a red apple")]
    text: Option<String>,
    /// A JPEG, PNG or WebP picture to look for: the file's bytes in base64, with or without a `data:` prefix.
    image: Option<String>,
    /// A vector of this pool's model, as numbers or as base64 of little-endian float32; any length but zero.
    #[schema(value_type = Option<VectorForm>)]
    embedding: Option<Vector>,
    /// A pair of this pool, by row number: its stored vector is looked for.
    #[schema(minimum = 0)]
    id: Option<u64>,
    /// A pair of this pool, by key.
    key: Option<String>,
    /// Several inputs as one query: the sum of their unit vectors times their weights, so that a negative weight says "not like this".
    #[schema(min_items = 1, max_items = 64)]
    blend: Option<Vec<WeightedInput>>,
    /// Several queries, answered in order.
    queries: Option<Vec<QueryInput>>,
    /// The pool to search; the server's first one by default.
    pub(super) pool: Option<String>,
    /// Hits for each query. Default 10.
    #[schema(minimum = 1, maximum = 10000, default = 10)]
    k: Option<usize>,
    /// Which vectors are searched. Default: the pictures'.
    side: Option<SideName>,
    /// How hard to try. Default: normal.
    effort: Option<EffortName>,
    /// Drop hits whose score (a cosine) is below this.
    threshold: Option<f32>,
    /// Leave out hits whose searched vector is this near (a cosine; 0.95 is usual) to a better hit's, or that were made from the same content;
    /// further hits take their places. Default: none are left out.
    #[schema(minimum = -1, maximum = 1)]
    near_duplicate: Option<f32>,
    /// Which stored vector of `id` or `key` is the query. Default: the picture's, or the caption's where there is none. Of an `embedding` it says
    /// what it was made from; by default that is told by what it is like, and where that does not tell, the search is wider and takes longer.
    from: Option<SideName>,
    /// Which pairs may be found, such as `{"and": [{"eq": {"field": "lang", "value": "en"}}, {"range": {"field": "width", "gte": 256}}]}`.
    /// Fields are the metadata columns, `key`, `caption`, `source` and `source.row`. Default: all pairs.
    #[schema(value_type = Option<FilterForm>)]
    filter: Option<serde_json::Value>,
    /// What to send of the first `limit` hits besides `id`, `score` and `key`.
    pub(super) include: Option<Vec<Include>>,
    /// Metadata columns to send in `fields`. Default: all of them where `include` names `fields`, otherwise none.
    #[schema(max_items = 1000)]
    pub(super) columns: Option<Vec<String>>,
    /// How many hits of each query carry their key and what `include` names. Default 100; those of a page are counted from its first.
    #[schema(minimum = 0, default = 100)]
    pub(super) limit: Option<usize>,
    /// Hits on a page. The answer then has the first so many of the `k` hits, and a cursor for those after them. Default: all `k` at once.
    #[schema(minimum = 1)]
    pub(super) page: Option<usize>,
    /// The `next` of an answer to this same request: gives the page after it, of the same generation, or says that it is gone.
    pub(super) cursor: Option<String>,
}

/// One of many queries: exactly one of the six.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct QueryInput {
    /// Words to look for.
    text: Option<String>,
    /// A picture file's bytes in base64.
    image: Option<String>,
    /// A vector of this pool's model.
    #[schema(value_type = Option<VectorForm>)]
    embedding: Option<Vector>,
    /// A pair, by row number.
    #[schema(minimum = 0)]
    id: Option<u64>,
    /// A pair, by key.
    key: Option<String>,
    /// Several inputs as one query.
    #[schema(min_items = 1, max_items = 64)]
    blend: Option<Vec<WeightedInput>>,
}

/// One input of a blended query: exactly one of the five, and its weight.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct WeightedInput {
    /// Words.
    text: Option<String>,
    /// A picture file's bytes in base64.
    image: Option<String>,
    /// A vector of this pool's model.
    #[schema(value_type = Option<VectorForm>)]
    embedding: Option<Vector>,
    /// A pair, by row number.
    #[schema(minimum = 0)]
    id: Option<u64>,
    /// A pair, by key.
    key: Option<String>,
    /// Its share: any finite number, below zero for "not like this". Default 1.
    #[schema(default = 1.0)]
    weight: Option<f32>,
    /// Which stored vector of `id` or `key` is meant, or what `embedding` was made from. Default: as the request says.
    from: Option<SideName>,
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

impl SearchRequest {
    /// Hits for each query.
    pub(super) fn k(&self) -> usize {
        self.k.unwrap_or(DEFAULT_K)
    }

    /// How many queries there are.
    pub(super) fn count(&self) -> usize {
        self.queries.as_ref().map_or(1, Vec::len)
    }

    /// Checks what the retriever cannot know: how many queries, and that each has one input.
    pub(super) fn into_asks(self, limits: &Limits) -> Result<Vec<Ask>, ApiError> {
        let k = self.k();
        let single = QueryInput {
            text: self.text,
            image: self.image,
            embedding: self.embedding,
            id: self.id,
            key: self.key,
            blend: self.blend,
        };
        let queries = match self.queries {
            None => vec![single],
            Some(queries) if single.inputs().is_empty() => queries,
            Some(_) => {
                let message = "the body has both queries and a query of its own; move it into queries";
                return Err(ApiError::unprocessable("query_input", message));
            }
        };
        check_counts(queries.len(), k, limits)?;
        let filter = self.filter.map(Filter::try_from).transpose().map_err(StoreError::from)?.map(Arc::new);
        let from = self.from.map(Side::from);
        let many = queries.len() > 1;
        let ask = |(i, query): (usize, QueryInput)| {
            let place = if many { format!("query {i}: ") } else { String::new() };
            let mut parts = query.into_parts(&place, from)?.into_iter();
            let empty = || ApiError::unprocessable("query_input", format!("{place}blend is empty; give at least one input"));
            let Part { input, weight, from } = parts.next().ok_or_else(empty)?;
            Ok(Ask {
                weight,
                and: parts.collect(),
                side: self.side.map_or(Side::Image, Into::into),
                k,
                effort: self.effort.map_or(Effort::Normal, Into::into),
                threshold: self.threshold,
                near_duplicate: self.near_duplicate,
                from,
                filter: filter.clone(),
                ..Ask::new(input)
            })
        };
        queries.into_iter().enumerate().map(ask).collect()
    }
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
            ("blend", self.blend.is_some()),
        ];
        there.into_iter().filter_map(|(name, there)| there.then_some(name)).collect()
    }

    /// The inputs of the query, weighted: one, or those of its blend.
    fn into_parts(mut self, place: &str, from: Option<Side>) -> Result<Vec<Part>, ApiError> {
        let alone = self.inputs() == ["blend"];
        match self.blend.take_if(|_| alone) {
            None => Ok(vec![Part { input: self.into_input(place)?, weight: 1.0, from }]),
            Some(inputs) if inputs.len() > MAX_INPUTS => {
                let message = format!("{place}blend has {} inputs; give at most {MAX_INPUTS}", inputs.len());
                Err(ApiError::unprocessable("query_input", message))
            }
            Some(inputs) => {
                let part = |(i, input): (usize, WeightedInput)| input.into_part(&format!("{place}blend[{i}]: "), from);
                inputs.into_iter().enumerate().map(part).collect()
            }
        }
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
            Self { embedding: Some(Vector(values)), .. } => Some(Input::Embedding(values)),
            Self { id: Some(row), .. } => Some(Input::Row(RowId(row))),
            Self { key: Some(key), .. } => {
                Some(Input::Key(Key::new(key).map_err(|e| ApiError::unprocessable("key_malformed", format!("{place}{e}")))?))
            }
            _ => None,
        };
        one.ok_or_else(|| {
            let there = if inputs.is_empty() { "nothing to search for".to_owned() } else { inputs.join(" and ") };
            let message = format!("{place}there is {there}; give exactly one of text, image, embedding, id, key or blend");
            ApiError::unprocessable("query_input", message)
        })
    }
}

impl WeightedInput {
    fn into_part(self, place: &str, from: Option<Side>) -> Result<Part, ApiError> {
        let Self { text, image, embedding, id, key, weight, from: own } = self;
        let input = QueryInput { text, image, embedding, id, key, blend: None }.into_input(place)?;
        Ok(Part { input, weight: weight.unwrap_or(1.0), from: own.map(Side::from).or(from) })
    }
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
