//! A store in memory that compares every row: the oracle that tests hold other stores against.

use std::collections::HashMap;

use crate::{
    Answer, Cancel, ContentHash, Filter, FilterError, Hit, Key, Pair, PairSink, PairStore, Parts, Query, Record, RowId, RowSet,
    Side, Spec, StoreError, StoreStatus,
    filter::{Plan, Schema},
};

/// Brute force over a vector of pairs. Vectors are kept in f32 as given.
#[derive(Debug)]
pub struct MemoryStore {
    spec: Spec,
    pairs: Vec<Pair>,
    committed: usize,
    generation: u64,
    rows: HashMap<Key, RowId>,
}

impl MemoryStore {
    /// Largest `k`: every row of any test, and the pool's own limit.
    pub const MAX_K: usize = 10_000;

    /// An empty store.
    #[must_use]
    pub fn new(spec: Spec) -> Self {
        Self { spec, pairs: Vec::new(), committed: 0, generation: 0, rows: HashMap::new() }
    }

    fn visible(&self) -> &[Pair] {
        &self.pairs[..self.committed]
    }
}

fn vector(pair: &Pair, side: Side) -> Option<&[f32]> {
    match side {
        Side::Image => pair.image.as_deref(),
        Side::Text => pair.text.as_deref(),
    }
}

/// Finite, of the right dimension; returns the Euclidean length.
fn check(vector: &[f32], dim: usize) -> Result<f32, StoreError> {
    if vector.len() != dim {
        return Err(StoreError::Dimension { expected: dim, found: vector.len() });
    }
    if let Some(position) = vector.iter().position(|v| !v.is_finite()) {
        return Err(StoreError::NotFinite { position });
    }
    Ok(vector.iter().map(|v| v * v).sum::<f32>().sqrt())
}

impl PairStore for MemoryStore {
    fn spec(&self) -> &Spec {
        &self.spec
    }

    fn max_k(&self) -> usize {
        Self::MAX_K
    }

    fn status(&self) -> StoreStatus {
        let count = |side| self.visible().iter().filter(|p| vector(p, side).is_some()).count() as u64;
        StoreStatus {
            rows: self.committed as u64,
            image_rows: count(Side::Image),
            text_rows: count(Side::Text),
            generation: self.generation,
        }
    }

    fn search(&self, queries: &[Query], cancel: &Cancel) -> Result<Vec<Answer>, StoreError> {
        queries.iter().map(|q| self.search_one(q, cancel)).collect()
    }

    fn get(&self, rows: &[RowId], parts: Parts) -> Result<Vec<Option<Record>>, StoreError> {
        let at = |row: &RowId| usize::try_from(row.0).ok().and_then(|i| self.visible().get(i)).map(|p| record(*row, p, parts));
        Ok(rows.iter().map(at).collect())
    }

    fn find(&self, keys: &[Key]) -> Result<Vec<Option<RowId>>, StoreError> {
        Ok(keys.iter().map(|k| self.rows.get(k).copied().filter(|r| r.0 < self.committed as u64)).collect())
    }
}

impl MemoryStore {
    fn search_one(&self, query: &Query, cancel: &Cancel) -> Result<Answer, StoreError> {
        let length = check(&query.vector, self.spec.dim)?;
        if length == 0.0 {
            return Err(StoreError::Length { length });
        }
        if query.k == 0 || query.k > Self::MAX_K {
            return Err(StoreError::K { k: query.k, max: Self::MAX_K });
        }
        if cancel.is_cancelled() {
            return Err(StoreError::Cancelled);
        }
        if self.committed > 0 && !self.visible().iter().any(|pair| vector(pair, query.side).is_some()) {
            return Err(StoreError::NoSide { side: query.side });
        }
        let matching = self.matching(query.filter.as_deref())?;
        let mut hits: Vec<Hit> = Vec::new();
        for (row, pair) in self.visible().iter().enumerate() {
            if let Some(stored) = vector(pair, query.side).filter(|_| matching.contains(row)) {
                let dot: f32 = stored.iter().zip(&query.vector).map(|(a, b)| a * b).sum();
                hits.push(Hit { row: RowId(row as u64), score: (dot / length).clamp(-1.0, 1.0) });
            }
        }
        hits.sort_by(|a, b| b.score.total_cmp(&a.score).then(a.row.cmp(&b.row)));
        hits.truncate(query.k);
        Ok(Answer { hits, degraded: false })
    }

    /// The rows that pass the filter.
    fn matching(&self, filter: Option<&Filter>) -> Result<RowSet, FilterError> {
        let pairs = self.visible();
        let Some(filter) = filter.filter(|_| !pairs.is_empty()) else { return Ok(RowSet::full(pairs.len())) };
        let mut schema = Schema::default();
        pairs.iter().for_each(|pair| pair.each_value(&mut |column, value| schema.observe(column, value)));
        schema.check(filter)?;
        Ok(Plan::new(filter).select_from(pairs.len(), |row, take| pairs[row].each_value(take)))
    }

    fn check_pair(&self, pair: &Pair) -> Result<(), StoreError> {
        if pair.image.is_none() && pair.text.is_none() {
            return Err(StoreError::NoVector { key: pair.key.clone() });
        }
        for stored in [&pair.image, &pair.text].into_iter().flatten() {
            let length = check(stored, self.spec.dim)?;
            if (length - 1.0).abs() > 1e-3 {
                return Err(StoreError::Length { length });
            }
        }
        Ok(())
    }
}

impl PairSink for MemoryStore {
    fn content(&self, key: &Key) -> Result<Option<ContentHash>, StoreError> {
        let at = |row: &RowId| usize::try_from(row.0).ok().and_then(|i| self.pairs.get(i));
        Ok(self.rows.get(key).and_then(at).map(|pair| pair.content))
    }

    fn append(&mut self, batch: &[Pair]) -> Result<(), StoreError> {
        let mut seen = std::collections::HashSet::new();
        for pair in batch {
            self.check_pair(pair)?;
            if self.rows.contains_key(&pair.key) || !seen.insert(&pair.key) {
                return Err(StoreError::Duplicate { key: pair.key.clone() });
            }
        }
        for pair in batch {
            self.rows.insert(pair.key.clone(), RowId(self.pairs.len() as u64));
            self.pairs.push(pair.clone());
        }
        Ok(())
    }

    fn commit(&mut self, _cancel: &Cancel) -> Result<u64, StoreError> {
        if self.committed < self.pairs.len() {
            self.committed = self.pairs.len();
            self.generation += 1;
        }
        Ok(self.generation)
    }
}

fn record(row: RowId, pair: &Pair, parts: Parts) -> Record {
    Record {
        row,
        key: pair.key.clone(),
        source: pair.source.clone(),
        content: pair.content,
        caption: pair.caption.clone(),
        fields: pair.fields.clone(),
        picture: pair.picture.clone().filter(|_| parts.picture),
        image: pair.image.clone().filter(|_| parts.vectors),
        text: pair.text.clone().filter(|_| parts.vectors),
    }
}
