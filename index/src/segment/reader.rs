//! Records and hits of one segment, and the exact search over several.

use std::path::Path;

use half::f16;
use rayon::prelude::*;

use super::files::{GraphFile, PairsFile, PicturesFile, VectorsFile};
use crate::{
    Cancel, Parts, Record, RowId, Side, StoreError,
    distance::Cpu,
    format::{
        bytes::Damage,
        graph::GraphFacts,
        header::FileKind,
        manifest::{FileEntry, SegmentEntry, side_index},
        vectors::f16_stride,
    },
    hnsw::{Fault, Outcome, Scratch, ScratchPool, SearchPlan, search_many},
    limits::Limits,
    quantize::QuantizedQuery,
    topk::{Scored, TopK},
};

/// A query of unit length in the forms the kernels take.
#[derive(Clone, Debug)]
pub(crate) struct PreparedQuery {
    padded: Vec<f32>,
    quantized: QuantizedQuery,
    pub(crate) k: usize,
    /// Beam width; 0 for exact.
    pub(crate) ef: usize,
}

impl PreparedQuery {
    /// `unit` has `dim` values and unit length.
    pub(crate) fn new(mut unit: Vec<f32>, dim: usize, k: usize, ef: usize) -> Self {
        let quantized = QuantizedQuery::new(&unit, dim);
        unit.resize(f16_stride(dim) / 2, 0.0);
        Self { padded: unit, quantized, k, ef }
    }
}

/// Hits of one segment, rows counted within the pool.
#[derive(Debug, Default)]
pub(crate) struct SegmentAnswer {
    pub(crate) hits: Vec<Scored>,
    pub(crate) degraded: bool,
}

#[derive(Debug)]
struct SideFiles {
    vectors: VectorsFile,
    graph: GraphFile,
}

/// An open segment.
#[derive(Debug)]
pub(crate) struct Segment {
    first_row: u64,
    rows: u64,
    pairs: PairsFile,
    pictures: Option<PicturesFile>,
    sides: [Option<SideFiles>; 2],
}

impl Segment {
    pub(crate) fn open(dir: &Path, entry: &SegmentEntry, first_row: u64, dim: usize) -> Result<Self, StoreError> {
        let missing = |kind: &str| StoreError::Corrupt {
            file: format!("segment {}", entry.id),
            offset: 0,
            reason: format!("the manifest names no {kind} file"),
        };
        let pairs = entry.file(FileKind::Pairs, None).ok_or_else(|| missing("pairs"))?;
        let open_side = |side| -> Result<Option<SideFiles>, StoreError> {
            let nodes = entry.side_rows(side);
            if nodes == 0 {
                return Ok(None);
            }
            let file = |kind, name| entry.file(kind, Some(side)).ok_or_else(|| missing(name));
            let vectors = VectorsFile::open(dir, file(FileKind::Vectors, "vectors")?, nodes, dim)?;
            let graph = GraphFile::open(dir, file(FileKind::Graph, "graph")?, vectors.nodes(), dim)?;
            Ok(Some(SideFiles { vectors, graph }))
        };
        let pictures = |file: &FileEntry| PicturesFile::open(dir, file);
        Ok(Self {
            first_row,
            rows: entry.rows,
            pairs: PairsFile::open(dir, pairs, entry.rows)?,
            pictures: entry.file(FileKind::Pictures, None).map(pictures).transpose()?,
            sides: [open_side(Side::Image)?, open_side(Side::Text)?],
        })
    }

    fn side(&self, side: Side) -> Option<&SideFiles> {
        self.sides[side_index(side)].as_ref()
    }

    /// Pool rows of this segment.
    pub(crate) fn contains(&self, row: RowId) -> bool {
        row.0 >= self.first_row && row.0 - self.first_row < self.rows
    }

    pub(crate) fn facts(&self, side: Side) -> Option<GraphFacts> {
        self.side(side).map(|files| files.graph.facts())
    }

    pub(crate) fn find(&self, key: &crate::Key) -> Result<Option<RowId>, StoreError> {
        Ok(self.pairs.find(key)?.map(|row| RowId(self.first_row + u64::from(row))))
    }

    pub(crate) fn record(&self, row: RowId, parts: Parts) -> Result<Record, StoreError> {
        let local = (row.0 - self.first_row) as usize;
        let stored = self.pairs.record(local)?;
        let picture = match (stored.picture, &self.pictures) {
            (Some(picture), Some(file)) if parts.picture => Some(file.picture(picture)?.to_vec()),
            (Some(_), None) => {
                return Err(self.pairs.corrupt(Damage::new(0, format!("row {local} has a picture, the segment has none"))));
            }
            _ => None,
        };
        let vector = |side| if parts.vectors { self.vector(side, local) } else { None };
        Ok(Record {
            row,
            key: stored.key,
            source: stored.source,
            content: stored.content,
            caption: stored.caption,
            fields: stored.fields,
            picture,
            image: vector(Side::Image),
            text: vector(Side::Text),
        })
    }

    fn vector(&self, side: Side, local: usize) -> Option<Vec<f32>> {
        let vectors = &self.side(side)?.vectors;
        let node = vectors.rows().binary_search(&(local as u32)).ok()?;
        Some(vectors.f16_row(node)[..vectors.dim()].iter().map(|v| v.to_f32()).collect())
    }

    /// Pool row of a node.
    fn row_of(&self, vectors: &VectorsFile, node: usize) -> Result<u64, StoreError> {
        let row = u64::from(vectors.rows()[node]);
        if row < self.rows {
            return Ok(self.first_row + row);
        }
        Err(vectors.corrupt(Damage::new(vectors.rows_offset(node), format!("row {row} of {}", self.rows))))
    }

    /// Hits by the graph; by comparing every row where that costs no more, or where the graph gives too few.
    pub(crate) fn search(
        &self,
        side: Side,
        queries: &[PreparedQuery],
        scratch: &ScratchPool,
        (cpu, cancel): (Cpu, &Cancel),
    ) -> Result<Vec<SegmentAnswer>, StoreError> {
        let mut answers: Vec<Option<SegmentAnswer>> = queries.iter().map(|_| None).collect();
        let Some(SideFiles { vectors, graph }) = self.side(side) else {
            return Ok(queries.iter().map(|_| SegmentAnswer::default()).collect());
        };
        let view = graph.view(cpu);
        // A beam compares about ten rows per slot; below four rows per slot a plain scan is cheaper, and exact.
        let by_graph = queries.iter().enumerate().filter(|(_, query)| vectors.nodes() > query.ef.saturating_mul(4));
        let (places, by_graph): (Vec<usize>, Vec<&PreparedQuery>) = by_graph.unzip();
        let plan = |query: &&'_ PreparedQuery| SearchPlan { ef: query.ef, budget: Limits::STANDARD.node_budget(query.ef), cancel };
        let asked = by_graph.iter().map(|query| (&query.quantized, plan(query)));
        let ended = search_many(&view, &vectors.view(cpu), asked, scratch, |nth, outcome, scratch| {
            answers[places[nth]] = self.found(vectors, by_graph[nth], cpu, (outcome, scratch))?;
            Ok(())
        });
        ended.map_err(|ended| match ended {
            Ended::Fault(fault) => graph.fault(fault),
            Ended::Error(error) => error,
        })?;
        // The rest is small, or its graph is whole and yet this start does not reach enough of it.
        let scanned = |(query, answer): (&PreparedQuery, Option<SegmentAnswer>)| match answer {
            Some(answer) => Ok(answer),
            None => self.scan(side, query, (cpu, cancel)),
        };
        queries.iter().zip(answers).map(scanned).collect()
    }

    /// The answer of a search that ended; none when it found too few.
    fn found(
        &self,
        vectors: &VectorsFile,
        query: &PreparedQuery,
        cpu: Cpu,
        (outcome, scratch): (Outcome, &Scratch),
    ) -> Result<Option<SegmentAnswer>, StoreError> {
        let wanted = query.k.min(vectors.nodes());
        match outcome {
            Outcome::Cancelled => return Err(StoreError::Cancelled),
            Outcome::Done if scratch.beam.len() < wanted => return Ok(None),
            Outcome::Done | Outcome::Budget => {}
        }
        // The 7-bit scores order the beam well enough that the best k are among twice as many.
        let again = scratch.beam.scored().take(query.k.saturating_mul(2).max(16)).collect();
        let best = self.rerank(vectors, query, cpu, again)?;
        Ok(Some(SegmentAnswer { degraded: best.len() < wanted, hits: best }))
    }

    /// Scores by f16 rows. Behind the first k only those are looked at whose 7-bit score is within [`RERANK_ERRORS`] of the k-th.
    fn rerank(
        &self,
        vectors: &VectorsFile,
        query: &PreparedQuery,
        cpu: Cpu,
        mut scored: Vec<(f32, u32)>,
    ) -> Result<Vec<Scored>, StoreError> {
        let mut best = TopK::new(query.k);
        let rest = scored.split_off(query.k.min(scored.len()));
        self.rerank_all(vectors, query, cpu, (&scored, &mut best))?;
        if let Some(kth) = best.kth() {
            let scales = vectors.view(cpu).scales;
            let near = |(score, node): &(f32, u32)| {
                let margin = RERANK_ERRORS * query.quantized.error(scales[*node as usize]);
                score * query.quantized.unit + margin >= kth
            };
            let rest: Vec<(f32, u32)> = rest.into_iter().filter(near).collect();
            self.rerank_all(vectors, query, cpu, (&rest, &mut best))?;
        }
        Ok(best.into_sorted())
    }

    fn rerank_all(
        &self,
        vectors: &VectorsFile,
        query: &PreparedQuery,
        cpu: Cpu,
        (nodes, best): (&[(f32, u32)], &mut TopK),
    ) -> Result<(), StoreError> {
        for (i, &(_, node)) in nodes.iter().enumerate() {
            if let Some(&(_, ahead)) = nodes.get(i + 2) {
                cpu.prefetch(bytemuck::cast_slice(vectors.f16_row(ahead as usize)));
                cpu.prefetch_value(&vectors.rows()[ahead as usize]);
            }
            let node = node as usize;
            let score = finite(cpu.dot_f16(vectors.f16_row(node), &query.padded), vectors, node)?;
            best.push(score, self.row_of(vectors, node)?);
        }
        Ok(())
    }

    /// Every row compared, on this thread.
    fn scan(&self, side: Side, query: &PreparedQuery, (cpu, cancel): (Cpu, &Cancel)) -> Result<SegmentAnswer, StoreError> {
        let mut best = vec![TopK::new(query.k)];
        for range in ranges(self.side(side).map_or(0, |files| files.vectors.nodes())) {
            self.scan_range(side, std::slice::from_ref(query), range, (cpu, cancel, &mut best))?;
        }
        let hits = best.pop().map(TopK::into_sorted).unwrap_or_default();
        Ok(SegmentAnswer { hits, degraded: false })
    }

    /// Compares a run of nodes with every query, four queries at a time.
    fn scan_range(
        &self,
        side: Side,
        queries: &[PreparedQuery],
        nodes: std::ops::Range<usize>,
        (cpu, cancel, best): (Cpu, &Cancel, &mut [TopK]),
    ) -> Result<(), StoreError> {
        let Some(SideFiles { vectors, .. }) = self.side(side) else { return Ok(()) };
        if cancel.is_cancelled() {
            return Err(StoreError::Cancelled);
        }
        let (mut start, end) = (nodes.start, nodes.end);
        while start < end {
            let block = start..end.min(start + BLOCK);
            start = block.end;
            for (four, tops) in queries.chunks(4).zip(best.chunks_mut(4)) {
                self.scan_block(vectors, block.clone(), four, (cpu, &mut *tops))?;
            }
        }
        Ok(())
    }

    /// Compares a few nodes with up to four queries.
    fn scan_block(
        &self,
        vectors: &VectorsFile,
        nodes: std::ops::Range<usize>,
        queries: &[PreparedQuery],
        (cpu, best): (Cpu, &mut [TopK]),
    ) -> Result<(), StoreError> {
        for node in nodes {
            let values: &[f16] = vectors.f16_row(node);
            let row = self.row_of(vectors, node)?;
            if let ([a, b, c, d], [ta, tb, tc, td]) = (queries, &mut *best) {
                let scores = cpu.dot_f16_x4(values, [&a.padded, &b.padded, &c.padded, &d.padded]);
                for (score, top) in scores.into_iter().zip([ta, tb, tc, td]) {
                    top.push(finite(score, vectors, node)?, row);
                }
            } else {
                for (query, top) in queries.iter().zip(&mut *best) {
                    top.push(finite(cpu.dot_f16(values, &query.padded), vectors, node)?, row);
                }
            }
        }
        Ok(())
    }
}

/// Standard errors of a 7-bit score within which a row may still be among the best k. 4: one in 30,000 such rows is missed.
const RERANK_ERRORS: f32 = 4.0;

/// Why a run of searches stopped.
enum Ended {
    Fault(Fault),
    Error(StoreError),
}

impl From<Fault> for Ended {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

impl From<StoreError> for Ended {
    fn from(error: StoreError) -> Self {
        Self::Error(error)
    }
}

/// Nodes compared between two looks at the cancel flag, and the unit of work of a thread: 4 MiB of 512-d rows.
const RANGE: usize = 4_096;

/// Nodes compared with one group of four queries before the next group. 16: with 512 values the rows and the four queries take
/// 24 KiB and stay in the nearest cache, while all 64 queries of a pass would not.
const BLOCK: usize = 16;

fn ranges(nodes: usize) -> impl Iterator<Item = std::ops::Range<usize>> {
    (0..nodes).step_by(RANGE).map(move |start| start..nodes.min(start + RANGE))
}

fn finite(score: f32, vectors: &VectorsFile, node: usize) -> Result<f32, StoreError> {
    if score.is_finite() {
        return Ok(score.clamp(-1.0, 1.0));
    }
    Err(vectors.corrupt(Damage::new(vectors.f16_offset(node), format!("node {node} has a value that is not finite"))))
}

/// Exact answers of several queries at once over all segments, on all cores. The same rows give the same answer whatever the
/// number of threads: each score is computed one way and the order is total.
pub(crate) fn exact(
    segments: &[Segment],
    side: Side,
    queries: &[PreparedQuery],
    (cpu, cancel): (Cpu, &Cancel),
) -> Result<Vec<Vec<Scored>>, StoreError> {
    let nodes = |segment: &Segment| segment.side(side).map_or(0, |files| files.vectors.nodes());
    let units: Vec<_> = segments.iter().flat_map(|s| ranges(nodes(s)).map(move |range| (s, range))).collect();
    let empty = || queries.iter().map(|q| TopK::new(q.k)).collect::<Vec<_>>();
    // One run of units per two threads' worth: bounds how many candidate lists exist at once.
    let run = units.len().div_ceil(rayon::current_num_threads() * 2).max(1);
    let parts = units.par_chunks(run).map(|run| {
        let mut best = empty();
        for (segment, range) in run {
            segment.scan_range(side, queries, range.clone(), (cpu, cancel, &mut best))?;
        }
        Ok(best)
    });
    let merge = |a: Vec<TopK>, b: Vec<TopK>| a.into_iter().zip(b).map(|(a, b)| a.merge(b)).collect();
    let best = parts.try_reduce(empty, |a, b| Ok(merge(a, b)))?;
    Ok(best.into_iter().map(TopK::into_sorted).collect())
}
