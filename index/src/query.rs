//! What is asked of a store, and what it answers.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use serde::{Deserialize, Serialize};

use crate::{Filter, RowId, Side};

/// How hard a search tries. What each step means in `ef` is the index's business.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Effort {
    /// Lowest latency.
    Fast,
    /// The default: about 0.98 recall@10.
    #[default]
    Normal,
    /// Close to exact.
    High,
    /// Every row compared; deterministic, total order (score descending, then row ascending).
    Exact,
}

/// One nearest-neighbour question.
#[derive(Clone, Debug, PartialEq)]
pub struct Query {
    /// Which vector of the pairs is compared.
    pub side: Side,
    /// `dim` finite values; any length but zero, scaled to unit length by the store.
    pub vector: Vec<f32>,
    /// How many hits, at least 1.
    pub k: usize,
    /// How hard to try.
    pub effort: Effort,
    /// Which pairs may be found; all of them by default. Queries of one call that share it have it evaluated once.
    pub filter: Option<Arc<Filter>>,
}

impl Query {
    /// A question without a filter.
    #[must_use]
    pub fn new(side: Side, vector: Vec<f32>, k: usize, effort: Effort) -> Self {
        Self { side, vector, k, effort, filter: None }
    }
}

/// One answer row.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Hit {
    /// Which pair.
    pub row: RowId,
    /// Cosine in [-1, 1], higher is nearer.
    pub score: f32,
}

/// The hits of one query, best first; ties by row.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Answer {
    /// At most `k` hits.
    pub hits: Vec<Hit>,
    /// True when fewer hits than asked came back although more rows have this side and pass the filter (a search cut short by its budget).
    pub degraded: bool,
}

/// A flag that ends a long search early. Clones share the flag.
#[derive(Clone, Debug, Default)]
pub struct Cancel(Arc<AtomicBool>);

impl Cancel {
    /// Raises the flag.
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// The flag itself, for code that knows no pools.
    #[must_use]
    pub fn flag(&self) -> &AtomicBool {
        &self.0
    }

    /// Whether it was raised.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}
