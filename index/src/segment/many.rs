//! A query over several segments: each looks for its share of the hits, and whoever gave more than that looks again.
//!
//! ```text
//!   segment after segment ──beam for its share──► hits, scores ─► the best k of all ──a segment gave more than it was
//!             ▲   once these fill a beam: no further than its last    │                  trusted with──► that one again, with the whole beam
//!             └──────────────────────────────────────────────────────┘
//! ```
//!
//! A beam is measured for finding k hits in its segment. Of a pool's k hits a segment of a tenth of the rows holds about a tenth, and fewer
//! hits need a narrower beam: so many segments cost little more than one where rows are spread over them, and where they are not
//! (each segment a dataset of its own), the few that hold the answer are searched as if they were alone. As soon as the segments before gave as
//! many nodes as a whole beam has room for, the next one may use the whole beam and stops where nothing is left that would enter theirs, and only
//! rows that may be among the best k are scored again.

use super::{
    hits::{Known, PreparedQuery, SegmentAnswer},
    reader::Segment,
    select::{Selected, Selection},
};
use crate::{
    Cancel, Side, StoreError,
    distance::Cpu,
    hnsw::ScratchPool,
    topk::{Scored, TopK, order},
};

/// Standard deviations of the number of hits that a segment is trusted with above its share. 2: where rows are spread by chance
/// one segment in fifty looks twice.
const SPREAD: f64 = 2.0;

/// Most scores of a query that are kept: no beam has room for more.
const MOST_NEAR: usize = 4_096;

/// How many of `k` hits a segment is trusted with that holds this share of the rows.
pub(super) fn trusted(k: usize, share: f64) -> usize {
    let expected = k as f64 * share;
    ((expected + SPREAD * expected.sqrt()).ceil() as usize).clamp(1, k)
}

/// A hit and the place of its segment.
type Found = (Scored, usize);

/// The best hits of every query among the selected rows of all segments (without a selection: the living ones), on this thread.
pub(crate) fn search_segments(
    segments: &[Segment],
    (side, selection): (Side, Option<&Selection>),
    queries: &[&PreparedQuery],
    scratch: &ScratchPool,
    run: (Cpu, &Cancel),
) -> Result<Vec<SegmentAnswer>, StoreError> {
    let selected = |place: usize| selection.map(|selection| &selection.segments[place]);
    let counts = segments.iter().enumerate().map(|(place, segment)| segment.findable(side, selected(place)));
    let counts = counts.collect::<Result<Vec<usize>, StoreError>>()?;
    let total = counts.iter().sum::<usize>().max(1) as f64;
    let mut round = Round::new(queries);
    let shares: Vec<f64> = counts.iter().map(|&count| count as f64 / total).collect();
    for (place, segment) in segments.iter().enumerate().filter(|(place, _)| counts[*place] > 0) {
        let known: Vec<&Known> = round.known.iter().collect();
        let answers = segment.search((side, selected(place)), (queries, &known, shares[place]), scratch, run)?;
        round.learn(&answers);
        round.take(place, (0..queries.len()).zip(answers));
    }
    for (place, asked) in round.doubtful(queries, &shares) {
        let again: Vec<&PreparedQuery> = asked.iter().map(|&nth| queries[nth]).collect();
        let known: Vec<&Known> = asked.iter().map(|&nth| &round.known[nth]).collect();
        let answers = segments[place].search((side, selected(place)), (&again, &known, 1.0), scratch, run)?;
        round.take(place, asked.into_iter().zip(answers));
    }
    Ok(round.best(queries))
}

impl Segment {
    /// Vectors of a side that a search may find.
    fn findable(&self, side: Side, selected: Option<&Selected>) -> Result<usize, StoreError> {
        let all = || self.vectors(side).map_or(0, super::vectors::VectorsFile::nodes);
        Ok(self.allowed(side, selected)?.map_or_else(all, |allowed| allowed.count))
    }
}

/// What was found so far, by query.
struct Round {
    found: Vec<Vec<Found>>,
    /// The best k of the first round.
    best: Vec<TopK>,
    known: Vec<Known>,
    degraded: Vec<bool>,
    /// Segments and queries whose beams were narrower than for all hits.
    again: Vec<(usize, usize)>,
}

/// Both lists in one, best first.
fn merged(a: &[f32], b: &[f32]) -> Vec<f32> {
    let mut all = Vec::with_capacity(a.len() + b.len());
    let (mut a, mut b) = (a.iter().copied().peekable(), b.iter().copied().peekable());
    while all.len() < MOST_NEAR {
        let from_a = match (a.peek(), b.peek()) {
            (Some(x), Some(y)) => x >= y,
            (x, _) => x.is_some(),
        };
        let Some(next) = (if from_a { a.next() } else { b.next() }) else { break };
        all.push(next);
    }
    all
}

impl Round {
    fn new(queries: &[&PreparedQuery]) -> Self {
        let (found, known) = (vec![Vec::new(); queries.len()], vec![Known::default(); queries.len()]);
        let best = queries.iter().map(|query| TopK::new(query.k)).collect();
        Self { found, best, known, degraded: vec![false; queries.len()], again: Vec::new() }
    }

    /// What the next segments may go by. Not from segments that look again: their nodes would count twice.
    fn learn(&mut self, answers: &[SegmentAnswer]) {
        for (answer, (known, best)) in answers.iter().zip(self.known.iter_mut().zip(&mut self.best)) {
            known.near = merged(&known.near, &answer.near);
            answer.hits.iter().for_each(|hit| best.push(hit.score, hit.row));
            known.kth = best.kth().unwrap_or(f32::NEG_INFINITY);
        }
    }

    fn take(&mut self, place: usize, answers: impl Iterator<Item = (usize, SegmentAnswer)>) {
        for (nth, answer) in answers {
            self.degraded[nth] |= answer.degraded;
            self.found[nth].extend(answer.hits.into_iter().map(|hit| (hit, place)));
            if answer.narrow {
                self.again.push((place, nth));
            }
        }
    }

    /// Segments, each with the queries of whose best hits it gave more than it was trusted with.
    fn doubtful(&mut self, queries: &[&PreparedQuery], shares: &[f64]) -> Vec<(usize, Vec<usize>)> {
        for (found, query) in self.found.iter_mut().zip(queries) {
            found.sort_unstable_by(|a, b| order(&a.0, &b.0));
            found.truncate(query.k);
        }
        let gave = |place: usize, nth: usize| self.found[nth].iter().filter(|(_, from)| *from == place).count();
        let mut doubtful: Vec<(usize, Vec<usize>)> = Vec::new();
        for &(place, nth) in &self.again {
            if gave(place, nth) > trusted(queries[nth].k, shares[place]) {
                match doubtful.last_mut().filter(|(last, _)| *last == place) {
                    Some((_, asked)) => asked.push(nth),
                    None => doubtful.push((place, vec![nth])),
                }
            }
        }
        doubtful
    }

    fn best(self, queries: &[&PreparedQuery]) -> Vec<SegmentAnswer> {
        let one = |((mut found, degraded), query): ((Vec<Found>, bool), &&PreparedQuery)| {
            found.sort_unstable_by(|a, b| order(&a.0, &b.0));
            // A segment that looked again found most of its hits again.
            found.dedup_by_key(|(hit, _)| hit.row);
            found.truncate(query.k);
            SegmentAnswer { hits: found.into_iter().map(|(hit, _)| hit).collect(), degraded, ..SegmentAnswer::default() }
        };
        self.found.into_iter().zip(self.degraded).zip(queries).map(one).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::trusted;

    #[test]
    fn a_segment_is_trusted_with_its_share_and_some_more_and_never_with_more_than_all() {
        assert_eq!(trusted(10, 1.0), 10);
        assert_eq!(trusted(10, 0.125), 4);
        assert_eq!(trusted(100, 0.125), 20);
        assert_eq!(trusted(1, 0.001), 1);
    }
}
