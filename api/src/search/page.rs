//! Pages of a search's hits. A cursor names the generation, the request (as a digest of its body without the cursor) and the first hit of the
//! page. The search is made again for each page, with the whole `k`, so that the pages of one generation are pieces of one list.

use anchorite_anchors::hex;
use anchorite_index::Hit;
use sha2::{Digest as _, Sha256};

use super::SearchRequest;
use crate::{error::ApiError, refresh::Snapshot};

/// Bytes of the digest: it tells mistakes, and keeps no secret.
const DIGEST_BYTES: usize = 8;

/// Which of the hits are sent.
pub(super) struct Page {
    generation: u64,
    digest: String,
    first: usize,
    /// Hits of a page; none where the request has no pages.
    length: Option<usize>,
}

impl Page {
    /// The page that is asked for; `body` is the request as it came.
    pub(super) fn of(request: &SearchRequest, body: &[u8], pool: &Snapshot) -> Result<Self, ApiError> {
        let generation = pool.retriever.store().status().generation;
        let Some(length) = request.page else {
            return match &request.cursor {
                None => Ok(Self { generation, digest: String::new(), first: 0, length: None }),
                Some(_) => Err(malformed("a cursor needs the page of the request that it came from")),
            };
        };
        if length == 0 {
            return Err(ApiError::unprocessable(
                "page_out_of_range",
                "page is 0; give the number of hits on a page, or leave it out",
            ));
        }
        let digest = digest(body);
        let first = match &request.cursor {
            None => 0,
            Some(cursor) => first_of(cursor, &digest, pool)?,
        };
        Ok(Self { generation, digest, first, length: Some(length) })
    }

    /// This page of a query's hits.
    pub(super) fn cut(&self, hits: Vec<Hit>) -> Vec<Hit> {
        match self.length {
            None => hits,
            Some(length) => hits.into_iter().skip(self.first).take(length).collect(),
        }
    }

    /// The cursor of the page after this one, where a query has `longest` hits and none has more.
    pub(super) fn next(&self, longest: usize) -> Option<String> {
        let next = self.first.saturating_add(self.length?);
        (next < longest).then(|| format!("{}-{next}-{}", self.generation, self.digest))
    }
}

fn first_of(cursor: &str, digest: &str, pool: &Snapshot) -> Result<usize, ApiError> {
    let unreadable = || malformed("this is no cursor");
    let mut parts = cursor.split('-');
    let mut part = || parts.next().ok_or_else(unreadable);
    let generation: u64 = part()?.parse().map_err(|_| unreadable())?;
    let first: usize = part()?.parse().map_err(|_| unreadable())?;
    if part()? != digest {
        return Err(malformed("this cursor came from another request; only the cursor may differ between pages"));
    }
    pool.still_at(generation)?;
    Ok(first)
}

fn malformed(what: &str) -> ApiError {
    ApiError::unprocessable(
        "cursor_refused",
        format!("{what}; send the same body as before with the answer's next as its cursor"),
    )
}

/// Of the request's fields, in whatever order they came, without the cursor.
fn digest(body: &[u8]) -> String {
    // The body was read as a request before, so that it is an object.
    let mut fields: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(body).unwrap_or_default();
    fields.remove("cursor");
    let ordered: std::collections::BTreeMap<&String, &serde_json::Value> = fields.iter().collect();
    let text = serde_json::to_vec(&ordered).unwrap_or_default();
    hex(&Sha256::digest(text)[..DIGEST_BYTES])
}
