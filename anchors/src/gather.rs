//! Queries to hits, over one direction or several fused ones.
//!
//! Fused hits are exact too (Fagin's threshold): what no direction has among its first n scores at most the weighted mean of the n-th
//! cosines, so every pair at or above that bound is in its final place, and only those are given.

use std::collections::{BTreeSet, HashMap};

use anchorite_index::{Cancel, Effort, Hit, PairStore, Parts, Query, Record, RowId, Side, StoreError};

use crate::{diversity::dot, policy::Policy, questions::Question};

/// Rows whose two vectors are held at once while directions are fused: 128 MiB at 512 values.
const FUSED_ROWS: usize = 32_768;
/// The store's kernels and ours round differently; a bound is cleared by more than that.
const ROUNDING: f32 = 1e-5;

/// The hits of one query.
#[derive(Clone, Debug, Default)]
pub(crate) struct Gathered {
    /// Best first.
    pub(crate) hits: Vec<Hit>,
    /// Nothing follows.
    pub(crate) complete: bool,
    /// The store could not say for sure.
    pub(crate) degraded: bool,
}

/// Asks a store along a policy's directions.
pub(crate) struct Gatherer<'a> {
    store: &'a dyn PairStore,
    /// From, to, share of the score.
    directions: Vec<(Side, Side, f32)>,
    effort: Effort,
    block: usize,
}

impl<'a> Gatherer<'a> {
    pub(crate) fn new(store: &'a dyn PairStore, policy: &Policy, block: usize) -> Self {
        let sum: f32 = policy.directions.iter().map(|d| d.weight).sum();
        let directions = policy.directions.iter().map(|d| (d.from, d.to, d.weight / sum)).collect();
        Self { store, directions, effort: policy.effort, block: block.max(1) }
    }

    /// The best `depth` hits of each query (fused: those that are sure), a block at a time.
    pub(crate) fn gather(&self, questions: &[&Question], depth: usize, cancel: &Cancel) -> Result<Vec<Gathered>, StoreError> {
        let depth = depth.clamp(1, self.store.max_k());
        let block = match self.directions.len() {
            1 => self.block,
            _ => self.block.min(FUSED_ROWS / (depth * self.directions.len())).max(1),
        };
        let mut all = Vec::with_capacity(questions.len());
        for part in questions.chunks(block) {
            let mut answers = Vec::new();
            for direction in &self.directions {
                answers.push(self.search(part, *direction, depth, cancel)?);
            }
            match answers.len() {
                1 => all.extend(answers.remove(0)),
                _ => all.extend(self.fuse(part, &answers)?),
            }
        }
        Ok(all)
    }

    fn search(
        &self,
        part: &[&Question],
        (from, side, _): (Side, Side, f32),
        depth: usize,
        cancel: &Cancel,
    ) -> Result<Vec<Gathered>, StoreError> {
        let vector = |q: &&Question| q.vector(from).expect("a question without this side was refused").to_vec();
        let queries: Vec<Query> = part.iter().map(|q| Query::new(side, vector(q), depth, self.effort)).collect();
        let answers = self.store.search(&queries, cancel)?;
        let gathered = |answer: anchorite_index::Answer| Gathered {
            complete: answer.hits.len() < depth && !answer.degraded,
            degraded: answer.degraded,
            hits: answer.hits,
        };
        Ok(answers.into_iter().map(gathered).collect())
    }

    fn fuse(&self, part: &[&Question], answers: &[Vec<Gathered>]) -> Result<Vec<Gathered>, StoreError> {
        let rows: BTreeSet<RowId> = answers.iter().flatten().flat_map(|g| g.hits.iter().map(|h| h.row)).collect();
        let rows: Vec<RowId> = rows.into_iter().collect();
        let records = self.store.get(&rows, Parts { vectors: true, picture: false })?;
        let records: HashMap<RowId, Record> = records.into_iter().flatten().map(|r| (r.row, r)).collect();
        let score = |question: &Question, row: &RowId| {
            let record = records.get(row)?;
            let mut sum = 0.0;
            for (from, to, weight) in &self.directions {
                let stored = if *to == Side::Image { &record.image } else { &record.text };
                sum += weight * dot(question.vector(*from)?, stored.as_deref()?);
            }
            Some(sum)
        };
        let one = |(place, question): (usize, &&Question)| {
            let lists: Vec<&Gathered> = answers.iter().map(|direction| &direction[place]).collect();
            fuse_one(&lists, &self.directions, &|row| score(question, row))
        };
        Ok(part.iter().enumerate().map(one).collect())
    }
}

fn fuse_one(lists: &[&Gathered], directions: &[(Side, Side, f32)], score: &dyn Fn(&RowId) -> Option<f32>) -> Gathered {
    // A pair that a complete list lacks has no vector there, and no fused score: then nothing is unseen.
    let complete = lists.iter().any(|list| list.complete);
    let bound: f32 = lists
        .iter()
        .zip(directions)
        .map(|(list, (_, _, weight))| weight * list.hits.last().map_or(-1.0, |hit| hit.score))
        .sum::<f32>()
        + ROUNDING;
    let rows: BTreeSet<RowId> = lists.iter().flat_map(|list| list.hits.iter().map(|hit| hit.row)).collect();
    let mut hits: Vec<Hit> = rows
        .into_iter()
        .filter_map(|row| score(&row).map(|score| Hit { row, score }))
        .filter(|hit| complete || hit.score >= bound)
        .collect();
    hits.sort_by(|a, b| b.score.total_cmp(&a.score).then(a.row.cmp(&b.row)));
    Gathered { hits, complete, degraded: lists.iter().any(|list| list.degraded) }
}
