//! A store in memory that compares every row: the oracle that tests hold other stores against.

use std::collections::{HashMap, HashSet};

use crate::{
    Answer, Cancel, ContentHash, Field, Filter, FilterError, Hit, Key, Pair, PairSink, PairStore, Parts, Precision, Query,
    Record, RowId, RowSet, Side, Spec, StoreError, StoreStatus, Upserted,
    filter::{Plan, Schema},
};

/// Brute force over a vector of pairs. Vectors are kept in f32 as given.
#[derive(Debug)]
pub struct MemoryStore {
    spec: Spec,
    pairs: Vec<Pair>,
    generation: u64,
    /// As of the last commit.
    visible: View,
    /// With what was done since.
    working: View,
}

/// Which pairs count.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct View {
    positions: usize,
    rows: HashMap<Key, RowId>,
    dead: HashSet<usize>,
    progress: Vec<u8>,
}

impl View {
    fn bury(&mut self, key: &Key) -> bool {
        let row = self.rows.remove(key);
        row.is_some_and(|row| self.dead.insert(row.0 as usize))
    }
}

impl MemoryStore {
    /// Largest `k`: every row of any test, and the pool's own limit.
    pub const MAX_K: usize = 10_000;

    /// An empty store.
    #[must_use]
    pub fn new(spec: Spec) -> Self {
        Self { spec, pairs: Vec::new(), generation: 0, visible: View::default(), working: View::default() }
    }

    /// Rows that are alive as of the last commit.
    fn visible(&self) -> impl Iterator<Item = (RowId, &Pair)> {
        let pairs = self.pairs[..self.visible.positions].iter().enumerate();
        pairs.filter(|(row, _)| !self.visible.dead.contains(row)).map(|(row, pair)| (RowId(row as u64), pair))
    }

    /// Forgets what was done since the last commit, as a store does that is closed and opened again.
    pub fn roll_back(&mut self) {
        self.pairs.truncate(self.visible.positions);
        self.working = self.visible.clone();
    }

    /// The watermark as of the last commit.
    #[must_use]
    pub fn committed_progress(&self) -> &[u8] {
        &self.visible.progress
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

    fn precision(&self) -> Precision {
        Precision::Single
    }

    fn max_k(&self) -> usize {
        Self::MAX_K
    }

    fn status(&self) -> StoreStatus {
        let count = |side| self.visible().filter(|(_, pair)| vector(pair, side).is_some()).count() as u64;
        StoreStatus {
            rows: self.visible.rows.len() as u64,
            positions: self.visible.positions as u64,
            image_rows: count(Side::Image),
            text_rows: count(Side::Text),
            generation: self.generation,
        }
    }

    fn search(&self, queries: &[Query], cancel: &Cancel) -> Result<Vec<Answer>, StoreError> {
        queries.iter().map(|q| self.search_one(q, cancel)).collect()
    }

    fn get(&self, rows: &[RowId], parts: Parts) -> Result<Vec<Option<Record>>, StoreError> {
        let alive = |row: &usize| *row < self.visible.positions && !self.visible.dead.contains(row);
        let at = |row: &RowId| usize::try_from(row.0).ok().filter(alive).map(|i| record(*row, &self.pairs[i], parts));
        Ok(rows.iter().map(at).collect())
    }

    fn find(&self, keys: &[Key]) -> Result<Vec<Option<RowId>>, StoreError> {
        Ok(keys.iter().map(|k| self.visible.rows.get(k).copied()).collect())
    }

    fn fields(&self, _: &Cancel) -> Result<Vec<Field>, StoreError> {
        Ok(self.schema(self.visible().map(|(row, _)| row.0 as usize)).list())
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
        if !self.visible.rows.is_empty() && !self.visible().any(|(_, pair)| vector(pair, query.side).is_some()) {
            return Err(StoreError::NoSide { side: query.side });
        }
        let matching = self.matching(query.filter.as_deref(), &self.visible)?;
        let mut hits: Vec<Hit> = Vec::new();
        for (row, pair) in self.visible() {
            if let Some(stored) = vector(pair, query.side).filter(|_| matching.contains(row.0 as usize)) {
                let dot: f32 = stored.iter().zip(&query.vector).map(|(a, b)| a * b).sum();
                hits.push(Hit { row, score: (dot / length).clamp(-1.0, 1.0) });
            }
        }
        hits.sort_by(|a, b| b.score.total_cmp(&a.score).then(a.row.cmp(&b.row)));
        hits.truncate(query.k);
        Ok(Answer { hits, degraded: false })
    }

    /// The fields of these rows.
    fn schema(&self, rows: impl Iterator<Item = usize>) -> Schema {
        let mut schema = Schema::default();
        rows.for_each(|row| self.pairs[row].each_value(&mut |column, value| schema.observe(column, value)));
        schema
    }

    /// The rows of `view` that are alive and pass the filter.
    fn matching(&self, filter: Option<&Filter>, view: &View) -> Result<RowSet, FilterError> {
        let pairs = &self.pairs[..view.positions];
        let mut alive = RowSet::full(pairs.len());
        view.dead.iter().for_each(|row| alive.remove(*row));
        let Some(filter) = filter.filter(|_| !view.rows.is_empty()) else { return Ok(alive) };
        self.schema(alive.iter()).check(filter)?;
        alive.intersect(&Plan::new(filter).select_from(pairs.len(), |row, take| pairs[row].each_value(take)));
        Ok(alive)
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

impl MemoryStore {
    fn check_batch(&self, batch: &[Pair], refused: impl Fn(&Key) -> bool) -> Result<(), StoreError> {
        let mut seen = HashSet::new();
        for pair in batch {
            self.check_pair(pair)?;
            if refused(&pair.key) || !seen.insert(&pair.key) {
                return Err(StoreError::Duplicate { key: pair.key.clone() });
            }
        }
        Ok(())
    }

    fn put(&mut self, pair: &Pair) {
        self.working.rows.insert(pair.key.clone(), RowId(self.pairs.len() as u64));
        self.pairs.push(pair.clone());
        self.working.positions = self.pairs.len();
    }
}

impl PairSink for MemoryStore {
    fn searchable(&self) -> Option<&dyn PairStore> {
        Some(self)
    }

    fn content(&self, key: &Key) -> Result<Option<ContentHash>, StoreError> {
        let at = |row: &RowId| usize::try_from(row.0).ok().and_then(|i| self.pairs.get(i));
        Ok(self.working.rows.get(key).and_then(at).map(|pair| pair.content))
    }

    fn append(&mut self, batch: &[Pair]) -> Result<(), StoreError> {
        self.check_batch(batch, |key| self.working.rows.contains_key(key))?;
        batch.iter().for_each(|pair| self.put(pair));
        Ok(())
    }

    fn upsert(&mut self, batch: &[Pair]) -> Result<Upserted, StoreError> {
        self.check_batch(batch, |_| false)?;
        let mut done = Upserted::default();
        for pair in batch {
            if self.content(&pair.key)? == Some(pair.content) {
                done.unchanged += 1;
                continue;
            }
            let replaced = self.working.bury(&pair.key);
            self.put(pair);
            if replaced { done.replaced += 1 } else { done.added += 1 }
        }
        Ok(done)
    }

    fn delete(&mut self, keys: &[Key]) -> Result<u64, StoreError> {
        Ok(keys.iter().filter(|key| self.working.bury(key)).count() as u64)
    }

    fn delete_where(&mut self, filter: &Filter, cancel: &Cancel) -> Result<u64, StoreError> {
        if cancel.is_cancelled() {
            return Err(StoreError::Cancelled);
        }
        let doomed = self.matching(Some(filter), &self.working)?;
        let keys: Vec<Key> = doomed.iter().map(|row| self.pairs[row].key.clone()).collect();
        self.delete(&keys)
    }

    fn progress(&self) -> &[u8] {
        &self.working.progress
    }

    fn commit_with(&mut self, progress: &[u8], cancel: &Cancel) -> Result<u64, StoreError> {
        self.working.progress = progress.to_vec();
        self.commit(cancel)
    }

    fn commit(&mut self, cancel: &Cancel) -> Result<u64, StoreError> {
        if cancel.is_cancelled() {
            return Err(StoreError::Cancelled);
        }
        if self.visible != self.working {
            self.visible = self.working.clone();
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
        has_picture: pair.picture.is_some(),
        picture: pair.picture.clone().filter(|_| parts.picture),
        image: pair.image.clone().filter(|_| parts.vectors),
        text: pair.text.clone().filter(|_| parts.vectors),
    }
}
