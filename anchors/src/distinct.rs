//! The search itself: thresholds, and near duplicates left out with further hits fetched in their place.
//!
//! ```text
//!   Query, k doubled ──store──► hits ──threshold──► Sieve ──► k distinct? ──no, and there is more: k doubled again──┐
//!          ▲                                                                                                       │
//!          └───────────────────────────────────────────────────────────────────────────────────────────────────────┘
//! ```
//!
//! A hit is compared with the better ones that were kept, so what is kept does not depend on how many hits were fetched.

use anchorite_index::{Answer, Cancel, Parts, Query, RowId, Side, StoreError};

use crate::{Ask, Found, Retriever, near::Sieve, retriever::alive};

/// Records read between two looks at the cancel flag.
const READ_STEP: usize = 64;

/// An answer, and whether a larger one could bring more.
struct Cut {
    found: Found,
    more: bool,
}

impl Retriever {
    /// Answers `queries`, which are the vectors of `asks`, in order.
    pub(crate) fn search(&self, asks: &[Ask], mut queries: Vec<Query>, cancel: &Cancel) -> Result<Vec<Found>, StoreError> {
        let max = self.store().max_k();
        for (ask, query) in asks.iter().zip(&mut queries).filter(|(ask, _)| ask.near_duplicate.is_some()) {
            query.k = ask.k.saturating_mul(2).min(max);
        }
        let answers = if queries.is_empty() { Vec::new() } else { self.store().search(&queries, cancel)? };
        let cut = |((ask, query), answer)| self.cut(ask, query, answer, cancel);
        let mut cuts = asks.iter().zip(&queries).zip(answers).map(cut).collect::<Result<Vec<Cut>, StoreError>>()?;
        loop {
            let short: Vec<usize> = (0..cuts.len()).filter(|&i| cuts[i].more).collect();
            if short.is_empty() {
                return Ok(cuts.into_iter().map(|cut| cut.found).collect());
            }
            for &i in &short {
                queries[i].k = queries[i].k.saturating_mul(2).min(max);
            }
            let wider: Vec<Query> = short.iter().map(|&i| queries[i].clone()).collect();
            for (i, answer) in short.into_iter().zip(self.store().search(&wider, cancel)?) {
                cuts[i] = self.cut(&asks[i], &queries[i], answer, cancel)?;
            }
        }
    }

    /// Drops what scores below the threshold (hits come best first, so that is a tail), near duplicates, and what is beyond `k`.
    fn cut(&self, ask: &Ask, query: &Query, answer: Answer, cancel: &Cancel) -> Result<Cut, StoreError> {
        let Answer { mut hits, degraded } = answer;
        let full = hits.len() == query.k;
        let before = hits.len();
        if let Some(threshold) = ask.threshold {
            hits.retain(|h| h.score >= threshold);
        }
        let below = before - hits.len();
        let near_duplicates = match ask.near_duplicate {
            Some(limit) => self.sift(&mut hits, limit, ask, cancel)?,
            None => 0,
        };
        let missing = ask.k.saturating_sub(hits.len());
        let more = ask.near_duplicate.is_some() && missing > 0 && full && below == 0;
        let limited = more && query.k == self.store().max_k();
        let found =
            Found { hits, degraded: degraded || limited, requested: ask.k, below_threshold: below.min(missing), near_duplicates };
        Ok(Cut { found, more: more && !limited })
    }

    /// Keeps the first `k` distinct hits; the number of near duplicates among and before them.
    fn sift(&self, hits: &mut Vec<anchorite_index::Hit>, limit: f32, ask: &Ask, cancel: &Cancel) -> Result<usize, StoreError> {
        let mut sieve = Sieve::new(limit);
        let mut kept = Vec::with_capacity(ask.k.min(hits.len()));
        let mut dropped = 0;
        'reading: for part in hits.chunks(READ_STEP) {
            alive(cancel)?;
            let rows: Vec<RowId> = part.iter().map(|h| h.row).collect();
            for (hit, record) in part.iter().zip(self.store().get(&rows, Parts { vectors: true, picture: false })?) {
                if kept.len() == ask.k {
                    break 'reading;
                }
                let Some(record) = record else { continue };
                let vector = if ask.side == Side::Image { record.image } else { record.text };
                if sieve.takes(record.content, vector) {
                    kept.push(*hit);
                } else {
                    dropped += 1;
                }
            }
        }
        *hits = kept;
        Ok(dropped)
    }
}
