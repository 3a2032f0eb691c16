//! Which beam width keeps each effort's promise on one new graph, measured against exact answers.
//!
//! ```text
//!   stored vectors of either modality ─sample─► queries ─┬─ every row compared ─► truth
//!                                                        └─ beams of rising width ─► recall ─► the first that keeps the promise
//! ```
//!
//! Queries are vectors of the segment itself, spread evenly over it: its pictures as picture queries, its captions as text queries.
//! One that is searched among its own kind is not counted as its own answer, and not walked through: its links lead to just what it asks
//! for, which no stranger has. What they cannot show is how queries fare that are
//! unlike anything in the segment. The promise is kept by the lower end of a 95 % confidence interval of the sample's mean recall,
//! so that a lucky sample does not narrow a beam.

use rayon::prelude::*;

use super::{
    hits::{Beam, PreparedQuery, rerank},
    scan::nearest,
    vectors::VectorsFile,
};
use crate::{
    Cancel, Side, StoreError,
    distance::Cpu,
    format::{
        effort::{EffortTable, MEASURED, Measured, Width},
        manifest::side_index,
    },
    hnsw::{Fault, GraphView, Outcome, ScratchPool, SearchPlan, search},
    limits::Limits,
};

/// Recall@10 that each of [`MEASURED`] promises. Fast 0.90: what a page of pictures shows looks the same; Normal 0.98: a missing pair in
/// every fifth answer; High 0.995: one in twenty, near what quantization itself costs.
const PROMISED: [f64; MEASURED.len()] = [0.90, 0.98, 0.995];
/// How much of what a promise lets miss the sample may miss. A half: stored vectors find their own neighbours more easily than strangers
/// do. On 100,000 CLIP-like vectors a beam whose sample kept 0.98 found 0.973 for pictures that are not in the pool.
const SHARE_OF_MISSES: f64 = 0.5;
/// Hits that recall counts.
const K: usize = 10;
/// Queries of each modality. 256: 2,560 hits, so that the mean of a recall near 0.98 is known to about 0.005; the exact answers cost
/// 256 comparisons a row, a hundredth of the build.
const QUERIES: usize = 256;
/// Widths tried, narrowest first; each at most half as wide again as the one before.
const WIDTHS: [u32; 15] = [16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1_024, 1_536, 2_048];
/// Graphs of fewer nodes are not searched: comparing every row takes as long as a beam of 64.
const SMALL: usize = 1_000;
/// One-sided 95 % of the normal distribution.
const CONFIDENCE: f64 = 1.645;

/// A graph not yet on disk, and its vectors.
pub(super) struct Calibration<'a> {
    pub(super) side: Side,
    pub(super) graph: GraphView<'a>,
    pub(super) vectors: &'a VectorsFile,
    pub(super) cancel: &'a Cancel,
}

/// One query and what counts as found.
struct Probe {
    query: PreparedQuery,
    /// Place of the row that is the query itself, and its node.
    own: Option<(u64, u32)>,
    /// Score of the last of the true hits: whatever scores as much is as good.
    bar: f32,
    /// How many true hits there are.
    hits: usize,
}

impl Calibration<'_> {
    /// Measures queries of both modalities; `other` holds the segment's vectors of the other side.
    pub(super) fn run(&self, other: Option<&VectorsFile>) -> Result<EffortTable, StoreError> {
        if self.vectors.nodes() < SMALL {
            let every = Measured { queries: 0, widths: [Width { ef: 0, recall: 1.0 }; 3] };
            return Ok(EffortTable::new([Some(every); 2]));
        }
        let mut found = [None; 2];
        found[side_index(self.side)] = Some(self.measure(self.vectors, true)?);
        found[side_index(self.side.other())] = other.map(|other| self.measure(other, false)).transpose()?;
        Ok(EffortTable::new(found))
    }

    fn measure(&self, from: &VectorsFile, same: bool) -> Result<Measured, StoreError> {
        let probes = self.probes(from, same)?;
        let mut widths = [Width { ef: 0, recall: 1.0 }; 3];
        let mut kept = 0;
        for ef in WIDTHS {
            // Beyond this every row is compared anyway.
            if kept == widths.len() || self.vectors.nodes() <= ef as usize * 4 {
                break;
            }
            let recall = lower_bound(&self.recalls(&probes, ef as usize)?);
            while kept < widths.len() && 1.0 - recall <= (1.0 - PROMISED[kept]) * SHARE_OF_MISSES {
                widths[kept] = Width { ef, recall: recall as f32 };
                kept += 1;
            }
        }
        Ok(Measured { queries: probes.len() as u32, widths })
    }

    fn probes(&self, from: &VectorsFile, same: bool) -> Result<Vec<Probe>, StoreError> {
        let count = from.nodes().min(QUERIES);
        let nodes = (0..count).map(|i| (i * from.nodes() / count) as u32);
        let places = nodes.map(|node| Ok((from.place(node)? as u64, node))).collect::<Result<Vec<_>, StoreError>>()?;
        let queries: Vec<PreparedQuery> = places.iter().map(|place| self.query(&from.values(place.0 as usize))).collect();
        let mut probes = Vec::with_capacity(count);
        let step = Limits::STANDARD.exact_queries;
        for (queries, places) in queries.chunks(step).zip(places.chunks(step)) {
            let truth = nearest(self.vectors, queries, (Cpu::detect(), self.cancel))?;
            for ((query, &place), mut hits) in queries.iter().zip(places).zip(truth) {
                let own = same.then_some(place);
                hits.retain(|hit| own.is_none_or(|own| hit.row != own.0));
                hits.truncate(K);
                let bar = hits.last().map_or(f32::INFINITY, |hit| hit.score);
                probes.push(Probe { query: query.clone(), own, bar, hits: hits.len() });
            }
        }
        Ok(probes)
    }

    fn query(&self, values: &[f32]) -> PreparedQuery {
        let length = values.iter().map(|v| v * v).sum::<f32>().sqrt().max(f32::MIN_POSITIVE);
        let unit = values.iter().map(|v| v / length).collect();
        PreparedQuery::new(unit, self.vectors.dim(), K + 1, Beam::Width(0))
    }

    /// The share of its true hits that each probe finds with a beam of `ef`.
    fn recalls(&self, probes: &[Probe], ef: usize) -> Result<Vec<f64>, StoreError> {
        let scratch = ScratchPool::default();
        let cpu = Cpu::detect();
        let rows = self.vectors.view(cpu);
        let plan = SearchPlan { budget: Limits::STANDARD.node_budget(ef), ..SearchPlan::new(ef, self.cancel) };
        let one = |probe: &Probe| {
            scratch.with(|scratch| {
                let plan = SearchPlan { without: probe.own.map(|own| own.1), ..plan };
                let outcome = search(&self.graph, &rows, &probe.query.quantized, plan, scratch).map_err(broken)?;
                if outcome == Outcome::Cancelled {
                    return Err(StoreError::Cancelled);
                }
                let found =
                    rerank(self.vectors, (&probe.query, f32::NEG_INFINITY), cpu, (&*scratch, &|position| Ok(position as u64)))?;
                let counts =
                    found.iter().filter(|hit| probe.own.is_none_or(|own| hit.row != own.0) && hit.score >= probe.bar).count();
                Ok(counts.min(probe.hits) as f64 / probe.hits.max(1) as f64)
            })
        };
        probes.par_iter().map(one).collect()
    }
}

/// A graph just built has no links that lead nowhere: [`crate::hnsw::build`] audits it.
fn broken(fault: Fault) -> StoreError {
    StoreError::Corrupt { file: "a graph just built".to_owned(), offset: 0, reason: format!("{fault:?}") }
}

/// The lower end of the mean's confidence interval.
fn lower_bound(shares: &[f64]) -> f64 {
    let count = shares.len().max(1) as f64;
    let mean = shares.iter().sum::<f64>() / count;
    let variance = shares.iter().map(|share| (share - mean).powi(2)).sum::<f64>() / (count - 1.0).max(1.0);
    (mean - CONFIDENCE * (variance / count).sqrt()).clamp(0.0, 1.0)
}

#[cfg(test)]
mod tests {
    use super::lower_bound;

    #[test]
    fn the_bound_lies_below_the_mean_by_what_the_sample_leaves_open() {
        assert!((lower_bound(&[1.0; 50]) - 1.0).abs() < 1e-12);
        let half = lower_bound(&[[1.0; 32], [0.0; 32]].concat());
        assert!((half - (0.5 - 1.645 * 0.5039 / 8.0)).abs() < 1e-3, "{half}");
        assert!((lower_bound(&[]) - 0.0).abs() < 1e-12);
    }
}
