//! The JSON answer: all anchors at once, within a budget of bytes.

use std::collections::BTreeMap;

use anchorite_anchors::{Entry, hex};
use anchorite_index::{Cancel, Parts, Record, RowId, Value};
use serde::Serialize;
use utoipa::ToSchema;

use super::{AnchorPart, Chosen, Head};
use crate::{
    app::App,
    body::{self, JsonBytes},
    error::ApiError,
    search::{Vectors, record_bytes},
};

/// Records read between two looks at the cancel flag and the byte budget.
const READ_STEP: usize = 64;

/// The anchors of every query.
#[derive(Serialize, ToSchema)]
pub(super) struct AnchorsResponse {
    #[serde(flatten)]
    head: Head,
    /// One for each query, in order; for a control, one of all its pairs.
    results: Vec<AnchorsOfQuery>,
}

/// The anchors of one query.
#[derive(Serialize, ToSchema)]
pub(super) struct AnchorsOfQuery {
    #[serde(flatten)]
    query: QueryHead,
    /// In the order in which they were chosen.
    anchors: Vec<AnchorBody>,
}

/// What is said of a query.
#[derive(Clone, Serialize, ToSchema)]
pub(super) struct QueryHead {
    /// Its name; null for a control.
    pub(super) name: Option<String>,
    /// Its class.
    pub(super) class: Option<String>,
    /// Its anchors.
    pub(super) found: usize,
    /// What ended its list: `met`, `pool_exhausted`, `search_limit`, `below_threshold` and so on; null for a control.
    pub(super) ended: Option<&'static str>,
}

/// A chosen pair.
#[derive(Serialize, ToSchema)]
struct AnchorBody {
    /// Row number.
    id: u64,
    /// Stable name.
    key: String,
    /// Cosine, or the weighted mean of several; null for a control.
    score: Option<f32>,
    /// Place among the query's hits, counted from 0.
    rank: usize,
    caption: Option<String>,
    /// SHA-256 of what the pair was made from.
    content: String,
    /// Anchors of one caption share a number: to each other they are no negatives.
    group: Option<u32>,
    /// Whether it is set aside for validation.
    validation: bool,
    /// Metadata columns.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<std::collections::HashMap<String, serde_json::Value>>)]
    fields: Option<BTreeMap<String, Value>>,
    /// The stored picture, base64; null where the pool kept none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    image: Option<Option<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    vectors: Option<Vectors>,
}

/// Reads what is wanted of every anchor, and writes it all.
pub(super) fn json(chosen: &Chosen, app: &App, cancel: &Cancel) -> Result<JsonBytes, ApiError> {
    let mut budget = app.limits().answer_bytes;
    let mut results = Vec::new();
    for group in chosen.groups() {
        let mut anchors = Vec::with_capacity(group.entries.len());
        for part in group.entries.chunks(READ_STEP) {
            if cancel.is_cancelled() {
                return Err(ApiError::deadline());
            }
            let records = chosen.records(part)?;
            for (place, record) in part.iter().zip(records) {
                let heavy = record.as_ref().map_or(0, record_bytes);
                budget = budget.checked_sub(heavy).ok_or_else(too_large)?;
                anchors.push(chosen.body(chosen.entry(*place), record));
            }
        }
        results.push(AnchorsOfQuery { query: chosen.query_head(group.query, anchors.len()), anchors });
    }
    JsonBytes::of(&AnchorsResponse { head: chosen.head.clone(), results })
}

fn too_large() -> ApiError {
    let message = "pictures and vectors of these anchors are more than one JSON answer may carry; ask for an Arrow stream, or send fewer queries";
    ApiError::unprocessable("answer_too_large", message)
}

impl Chosen {
    /// What answers say of a query.
    pub(super) fn query_head(&self, query: Option<usize>, found: usize) -> QueryHead {
        let question = query.map(|place| &self.questions.list[place]);
        QueryHead {
            name: question.map(|q| q.id.clone()),
            class: question.and_then(|q| q.class.clone()),
            found,
            ended: query.and_then(|place| self.curated.ends.get(place)).map(|end| end.code()),
        }
    }

    /// The records of these anchors, as far as they are asked for; nothing is read where curation has read it all.
    pub(super) fn records(&self, places: &[usize]) -> Result<Vec<Option<Record>>, ApiError> {
        let picture = self.has(AnchorPart::Image) || self.has(AnchorPart::Pixels);
        let parts = Parts { picture, vectors: self.has(AnchorPart::Vectors) };
        if !picture && !parts.vectors && !self.has(AnchorPart::Fields) {
            return Ok(vec![None; places.len()]);
        }
        let rows: Vec<RowId> = places.iter().map(|&place| self.entry(place).row).collect();
        Ok(self.retriever.store().get(&rows, parts)?)
    }

    fn body(&self, entry: &Entry, record: Option<Record>) -> AnchorBody {
        let (fields, picture, image, text) = match record {
            Some(r) => (Some(r.fields), r.picture, r.image, r.text),
            None => (None, None, None, None),
        };
        AnchorBody {
            id: entry.row.0,
            key: entry.key.to_string(),
            score: entry.score,
            rank: entry.rank,
            caption: entry.caption.clone(),
            content: hex(&entry.content.0),
            group: entry.group,
            validation: entry.validation,
            fields: fields.filter(|_| self.has(AnchorPart::Fields)),
            image: self.has(AnchorPart::Image).then(|| picture.as_deref().map(body::base64)),
            vectors: self.has(AnchorPart::Vectors).then_some(Vectors { image, text }),
        }
    }
}
