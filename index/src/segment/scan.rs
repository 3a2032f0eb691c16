//! Exact search: every row compared, many queries at once, over several segments and all cores.
//!
//! ```text
//!   mapped rows ─32 at a time, widened─► tile ─times all queries of the pass─► scores ─► the best k of each query, per thread
//! ```
//!
//! Memory: a tile and a list of at most 2k rows for each query and thread, whatever the pool's size.

use std::ops::Range;

use rayon::prelude::*;

use super::{
    hits::{PreparedQuery, SegmentAnswer},
    reader::Segment,
    select::Selection,
    vectors::VectorsFile,
};
use crate::{
    Cancel, Side, StoreError,
    distance::Cpu,
    format::bytes::Damage,
    hnsw::Allowed,
    topk::{Scored, TopK},
};

impl Segment {
    /// Every node compared, or every allowed one, on this thread.
    pub(super) fn scan(
        &self,
        side: Side,
        allowed: Option<&Allowed>,
        query: &PreparedQuery,
        (cpu, cancel): (Cpu, &Cancel),
    ) -> Result<SegmentAnswer, StoreError> {
        let asked = Asked::new(std::slice::from_ref(query));
        let mut best = Best::new(asked.queries);
        for range in ranges(self.vectors(side).map_or(0, VectorsFile::nodes)) {
            self.scan_range(side, &asked, (range, allowed), (cpu, cancel, &mut best))?;
        }
        let hits = best.tops.pop().map(TopK::into_sorted).unwrap_or_default();
        Ok(SegmentAnswer { hits, degraded: false })
    }

    /// Compares a run of nodes with every query.
    fn scan_range(
        &self,
        side: Side,
        asked: &Asked<'_>,
        (nodes, allowed): (Range<usize>, Option<&Allowed>),
        (cpu, cancel, best): (Cpu, &Cancel, &mut Best),
    ) -> Result<(), StoreError> {
        let Some(vectors) = self.vectors(side) else { return Ok(()) };
        if cancel.is_cancelled() {
            return Err(StoreError::Cancelled);
        }
        let nodes: Vec<usize> = match allowed {
            None => nodes.collect(),
            Some(allowed) => vectors.places(allowed).iter_in(nodes).collect(),
        };
        best.scan(vectors, &nodes, asked, (cpu, &|node| self.row_of(vectors, node)))
    }
}

/// The nodes nearest to each query, by number, every one compared, on all cores.
pub(super) fn nearest(
    vectors: &VectorsFile,
    queries: &[PreparedQuery],
    (cpu, cancel): (Cpu, &Cancel),
) -> Result<Vec<Vec<Scored>>, StoreError> {
    let asked = Asked::new(queries);
    let ranges: Vec<Range<usize>> = ranges(vectors.nodes()).collect();
    let parts = ranges.par_iter().map(|range| {
        if cancel.is_cancelled() {
            return Err(StoreError::Cancelled);
        }
        let mut best = Best::new(queries);
        best.scan(vectors, &range.clone().collect::<Vec<_>>(), &asked, (cpu, &|node| Ok(node as u64)))?;
        Ok(best)
    });
    let best = parts.try_reduce(|| Best::new(queries), |a, b| Ok(a.merge(b)))?;
    Ok(best.tops.into_iter().map(TopK::into_sorted).collect())
}

/// Queries of one pass, also one behind the other as the tile kernel takes them.
struct Asked<'a> {
    queries: &'a [PreparedQuery],
    packed: Vec<f32>,
}

impl<'a> Asked<'a> {
    fn new(queries: &'a [PreparedQuery]) -> Self {
        Self { queries, packed: queries.iter().flat_map(|query| &query.padded).copied().collect() }
    }
}

/// The best rows of one thread so far, and its working memory.
struct Best {
    tops: Vec<TopK>,
    /// Widened rows of a tile.
    rows: Vec<f32>,
    /// Scores of a tile, all queries of a row together.
    scores: Vec<f32>,
}

impl Best {
    fn new(queries: &[PreparedQuery]) -> Self {
        Self { tops: queries.iter().map(|query| TopK::new(query.k)).collect(), rows: Vec::new(), scores: Vec::new() }
    }

    /// Compares nodes with every query; `row` is what a node counts as.
    fn scan(
        &mut self,
        vectors: &VectorsFile,
        nodes: &[usize],
        asked: &Asked<'_>,
        (cpu, row): (Cpu, &dyn Fn(usize) -> Result<u64, StoreError>),
    ) -> Result<(), StoreError> {
        for tile in nodes.chunks(TILE) {
            self.compare(vectors, tile, asked, cpu);
            for (&node, scores) in tile.iter().zip(self.scores.chunks_exact(asked.queries.len())) {
                let row = row(node)?;
                for (&score, top) in scores.iter().zip(&mut self.tops) {
                    top.push(finite(score, vectors, node)?, row);
                }
            }
        }
        Ok(())
    }

    /// Leaves the scores of a tile's nodes in `self.scores`.
    fn compare(&mut self, vectors: &VectorsFile, tile: &[usize], asked: &Asked<'_>, cpu: Cpu) {
        let queries = asked.queries;
        self.scores.resize(tile.len() * queries.len(), 0.0);
        if queries.len() < FEW {
            for (i, (&node, scores)) in tile.iter().zip(self.scores.chunks_exact_mut(queries.len())).enumerate() {
                tile.get(i + AHEAD).inspect(|&&ahead| vectors.prefetch(ahead, cpu));
                for (score, query) in scores.iter_mut().zip(queries) {
                    *score = vectors.score(node, &query.padded, &mut self.rows, cpu);
                }
            }
            return;
        }
        let width = queries[0].padded.len();
        self.rows.resize(tile.len() * width, 0.0);
        for (&node, row) in tile.iter().zip(self.rows.chunks_exact_mut(width)) {
            vectors.widen(node, row, cpu);
        }
        cpu.dot_tile(&self.rows, &asked.packed, width, &mut self.scores);
    }

    fn merge(self, other: Self) -> Self {
        Self { tops: self.tops.into_iter().zip(other.tops).map(|(a, b)| a.merge(b)).collect(), ..self }
    }
}

/// Rows widened together: with 512 values 64 KiB, a part of the second cache beside the 128 KiB of 64 queries.
const TILE: usize = 32;

/// Below this many queries reading the rows costs more than comparing them, and they are not widened first.
const FEW: usize = 4;

/// Rows asked for ahead of the one that is compared.
const AHEAD: usize = 2;

/// Nodes compared between two looks at the cancel flag, and the unit of work of a thread: 4 MiB of 512-d rows.
const RANGE: usize = 4_096;

fn ranges(nodes: usize) -> impl Iterator<Item = Range<usize>> {
    (0..nodes).step_by(RANGE).map(move |start| start..nodes.min(start + RANGE))
}

pub(super) fn finite(score: f32, vectors: &VectorsFile, node: usize) -> Result<f32, StoreError> {
    if score.is_finite() {
        return Ok(score.clamp(-1.0, 1.0));
    }
    Err(vectors.corrupt(Damage::new(vectors.offset(node), format!("node {node} has a value that is not finite"))))
}

/// Exact answers of several queries at once over all segments, on all cores. The same rows give the same answer whatever the
/// number of threads: each score is computed one way and the order is total.
pub(crate) fn exact(
    segments: &[Segment],
    (side, selection): (Side, Option<&Selection>),
    queries: &[PreparedQuery],
    (cpu, cancel): (Cpu, &Cancel),
) -> Result<Vec<Vec<Scored>>, StoreError> {
    let nodes = |segment: &Segment| segment.vectors(side).map_or(0, VectorsFile::nodes);
    let mut units = Vec::new();
    for (place, segment) in segments.iter().enumerate() {
        let allowed = segment.allowed(side, selection.map(|selection| &selection.segments[place]))?;
        units.extend(ranges(nodes(segment)).map(|range| (segment, range, allowed)));
    }
    let asked = Asked::new(queries);
    let empty = || Best::new(queries);
    // One run of units per two threads' worth: bounds how many candidate lists exist at once.
    let run = units.len().div_ceil(rayon::current_num_threads() * 2).max(1);
    let parts = units.par_chunks(run).map(|run| {
        let mut best = empty();
        for (segment, range, allowed) in run {
            segment.scan_range(side, &asked, (range.clone(), *allowed), (cpu, cancel, &mut best))?;
        }
        Ok::<_, StoreError>(best)
    });
    let best = parts.try_reduce(empty, |a, b| Ok(a.merge(b)))?;
    Ok(best.tops.into_iter().map(TopK::into_sorted).collect())
}
