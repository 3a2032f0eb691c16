//! Near duplicates: a row whose picture is too much like an earlier one's, of this run or of the pool.
//!
//! ```text
//!   decided rows, in source order ──nearest in the pool (searched), nearest since the last commit (all compared)──► kept, or filtered
//! ```
//!
//! The pool is asked as a question is answered, so a near row may be missed as often as its recall promise allows; rows since the last commit
//! are all compared. Decided where order is restored, so that what is kept does not depend on the number of workers.

use anchorite_index::{Cancel, Effort, Hit, Key, PairStore, Parts, Query, RowId, Side, StoreError};

use crate::{
    Filters, Reject,
    prepare::{Accepted, Decision},
    reject::code,
};

/// Nearest pairs of the pool that are looked at: one may be the row itself, which is about to be replaced.
const NEAREST: usize = 2;

/// Compares rows with those before them.
pub(crate) struct NearRows {
    /// Least cosine that makes a near duplicate.
    least: f32,
    /// Rows that are kept and not committed: keys, and vectors one after another.
    keys: Vec<Key>,
    vectors: Vec<f32>,
}

impl NearRows {
    /// None where near duplicates are wanted.
    pub(crate) fn of(filters: &Filters) -> Option<Self> {
        filters.near_duplicate.map(|least| Self { least, keys: Vec::new(), vectors: Vec::new() })
    }

    /// Rows that are compared one by one; a commit makes them the pool's.
    pub(crate) fn uncommitted(&self) -> usize {
        self.keys.len()
    }

    /// The pool has them now.
    pub(crate) fn committed(&mut self) {
        self.keys.clear();
        self.vectors.clear();
    }

    /// Turns accepted rows that are near duplicates into filtered ones.
    pub(crate) fn sift(&mut self, decisions: &mut [Decision], pool: Option<&dyn PairStore>) -> Result<(), StoreError> {
        let pictures: Vec<Vec<f32>> = decisions.iter().filter_map(picture).map(<[f32]>::to_vec).collect();
        let mut nearest = self.nearest_in_pool(pool, pictures)?.into_iter();
        for decision in decisions {
            if picture(decision).is_none() {
                continue;
            }
            let in_pool = nearest.next().flatten();
            let Decision::Accepted(one) = decision else { continue };
            if let Some(reject) = self.against(one, in_pool) {
                *decision = Decision::Rejected(reject);
            }
        }
        Ok(())
    }

    /// Why the row is left out; else it is kept and compared with those after it.
    fn against(&mut self, one: &Accepted, in_pool: Option<Vec<(Key, f32)>>) -> Option<Reject> {
        let vector = one.pair.image.as_deref()?;
        let known = in_pool.unwrap_or_default().into_iter().find(|(key, _)| *key != one.pair.key);
        if let Some((key, score)) = known.or_else(|| self.nearest_uncommitted(vector)) {
            let message = format!(
                "its picture has a cosine of {score:.4} with that of pair {key}; from {} on it is one too many",
                self.least
            );
            return Some(Reject::new(one.pair.source.clone(), code::FILTERED_NEAR_DUPLICATE, message));
        }
        self.keys.push(one.pair.key.clone());
        self.vectors.extend_from_slice(vector);
        None
    }

    fn nearest_uncommitted(&self, vector: &[f32]) -> Option<(Key, f32)> {
        let scores = self.vectors.chunks_exact(vector.len().max(1)).map(|other| dot(vector, other));
        let (at, score) = scores.enumerate().find(|(_, score)| *score >= self.least)?;
        Some((self.keys.get(at)?.clone(), score))
    }

    /// For each vector, the pool's pairs that are near enough, nearest first; none where there is nothing to ask.
    fn nearest_in_pool(&self, pool: Option<&dyn PairStore>, vectors: Vec<Vec<f32>>) -> Result<Vec<Near>, StoreError> {
        let asked = vectors.len();
        let Some(pool) = pool.filter(|pool| asked > 0 && pool.status().image_rows > 0) else { return Ok(vec![None; asked]) };
        let query = |vector| Query { asked: Some(Side::Image), ..Query::new(Side::Image, vector, NEAREST, Effort::High) };
        let queries: Vec<Query> = vectors.into_iter().map(query).collect();
        let answers = pool.search(&queries, &Cancel::default())?;
        let near = |hit: &&Hit| hit.score >= self.least;
        let rows: Vec<RowId> = answers.iter().flat_map(|answer| answer.hits.iter().filter(near).map(|hit| hit.row)).collect();
        let mut records = pool.get(&rows, Parts { picture: false, vectors: false })?.into_iter();
        let named = answers.iter().map(|answer| {
            let hits = answer.hits.iter().filter(near);
            Some(hits.filter_map(|hit| Some((records.next()??.key, hit.score))).collect())
        });
        Ok(named.collect())
    }
}

type Near = Option<Vec<(Key, f32)>>;

/// The picture's vector of a row that is to be kept.
fn picture(decision: &Decision) -> Option<&[f32]> {
    let Decision::Accepted(one) = decision else { return None };
    one.pair.image.as_deref()
}

/// Eight sums side by side, which the compiler makes one instruction.
fn dot(a: &[f32], b: &[f32]) -> f32 {
    let (whole, rest) = (a.as_chunks::<8>(), b.as_chunks::<8>());
    let mut sums = [0.0_f32; 8];
    for (x, y) in whole.0.iter().zip(rest.0) {
        for ((sum, x), y) in sums.iter_mut().zip(x).zip(y) {
            *sum += x * y;
        }
    }
    let tail: f32 = whole.1.iter().zip(rest.1).map(|(x, y)| x * y).sum();
    sums.iter().sum::<f32>() + tail
}
