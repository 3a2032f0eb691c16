//! Records and hits of one segment, and the exact search over several.

use std::path::Path;

use half::f16;
use rayon::prelude::*;

use super::{
    dead::{read_dead, write_dead},
    files::{GraphFile, PairsFile, PicturesFile, VectorsFile},
    select::{Selected, Selection},
};
use crate::{
    Cancel, ContentHash, Parts, Record, RowId, RowSet, Side, StoreError,
    disk::Disk,
    distance::Cpu,
    format::{
        bytes::Damage,
        graph::GraphFacts,
        header::{FileId, FileKind},
        manifest::{FileEntry, SegmentEntry, side_index},
        vectors::f16_stride,
    },
    quantize::QuantizedQuery,
    topk::{Scored, TopK},
};

/// A query of unit length in the forms the kernels take.
#[derive(Clone, Debug)]
pub(crate) struct PreparedQuery {
    pub(super) padded: Vec<f32>,
    pub(super) quantized: QuantizedQuery,
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
pub(super) struct SideFiles {
    pub(super) vectors: VectorsFile,
    pub(super) graph: GraphFile,
}

/// An open segment.
#[derive(Debug)]
pub(crate) struct Segment {
    first_row: u64,
    rows: u64,
    /// Rows that are alive, where some are not.
    live: Option<Selected>,
    pairs: PairsFile,
    pictures: Option<PicturesFile>,
    sides: [Option<SideFiles>; 2],
}

impl Segment {
    pub(crate) fn open(dir: &Path, entry: &SegmentEntry, first_row: u64, dim: usize) -> Result<Self, StoreError> {
        let pairs = entry.file(FileKind::Pairs, None).ok_or_else(|| entry.missing("pairs"))?;
        let open_side = |side| -> Result<Option<SideFiles>, StoreError> {
            let nodes = entry.side_rows(side);
            if nodes == 0 {
                return Ok(None);
            }
            let file = |kind, name| entry.file(kind, Some(side)).ok_or_else(|| entry.missing(name));
            let vectors = VectorsFile::open(dir, file(FileKind::Vectors, "vectors")?, nodes, dim)?;
            let graph = GraphFile::open(dir, file(FileKind::Graph, "graph")?, vectors.nodes(), dim)?;
            Ok(Some(SideFiles { vectors, graph }))
        };
        let pictures = |file: &FileEntry| PicturesFile::open(dir, file);
        Ok(Self {
            first_row,
            rows: entry.rows,
            live: entry.file(FileKind::Dead, None).map(|file| live_rows(dir, file, entry)).transpose()?,
            pairs: PairsFile::open(dir, pairs, entry.rows)?,
            pictures: entry.file(FileKind::Pictures, None).map(pictures).transpose()?,
            sides: [open_side(Side::Image)?, open_side(Side::Text)?],
        })
    }

    pub(super) fn side(&self, side: Side) -> Option<&SideFiles> {
        self.sides[side_index(side)].as_ref()
    }

    pub(super) fn pairs(&self) -> &PairsFile {
        &self.pairs
    }

    pub(super) fn vectors(&self, side: Side) -> Option<&VectorsFile> {
        self.side(side).map(|files| &files.vectors)
    }

    /// Pool rows of this segment.
    pub(crate) fn contains(&self, row: RowId) -> bool {
        row.0 >= self.first_row && row.0 - self.first_row < self.rows
    }

    pub(crate) fn facts(&self, side: Side) -> Option<GraphFacts> {
        self.side(side).map(|files| files.graph.facts())
    }

    /// Whether a row of this segment was deleted or replaced.
    pub(crate) fn is_dead(&self, local: u32) -> bool {
        self.live.as_ref().is_some_and(|live| !live.rows().contains(local as usize))
    }

    /// Whether a pool row of this segment is alive.
    pub(crate) fn is_alive(&self, row: RowId) -> bool {
        !self.is_dead((row.0 - self.first_row) as u32)
    }

    /// The row of a key within the segment, if it is alive and `alive` has nothing against it.
    pub(crate) fn find_local(&self, key: &crate::Key, alive: impl Fn(u32) -> bool) -> Result<Option<u32>, StoreError> {
        self.pairs.find(key, |row| !self.is_dead(row) && alive(row))
    }

    pub(crate) fn find(&self, key: &crate::Key) -> Result<Option<RowId>, StoreError> {
        Ok(self.find_local(key, |_| true)?.map(|row| RowId(self.first_row + u64::from(row))))
    }

    /// The rows that are alive, where some are not, with their nodes.
    pub(super) fn live_rows(&self) -> Option<&Selected> {
        self.live.as_ref()
    }

    /// The rows that are alive, where some are not.
    pub(super) fn live(&self) -> Option<&RowSet> {
        self.live.as_ref().map(Selected::rows)
    }

    /// Content hash of a row.
    pub(crate) fn content(&self, local: u32) -> Result<ContentHash, StoreError> {
        Ok(self.pairs.record(local as usize)?.content)
    }

    /// Writes the segment's dead rows with `more` added; returns the segment as the manifest of `generation` names it.
    pub(crate) fn bury(
        &self,
        disk: &Disk,
        entry: &SegmentEntry,
        more: &RowSet,
        generation: u64,
    ) -> Result<SegmentEntry, StoreError> {
        let mut dead = self.live().cloned().unwrap_or_else(|| RowSet::full(entry.rows as usize));
        dead.complement();
        let mut counts = entry.dead;
        for row in more.iter().take_while(|row| *row < entry.rows as usize) {
            if !dead.contains(row) {
                dead.insert(row);
                counts.rows += 1;
                for side in Side::ALL {
                    let node = self.side(side).and_then(|files| files.vectors.node_of(row));
                    counts.sides[side_index(side)] += u64::from(node.is_some());
                }
            }
        }
        if counts.rows == entry.dead.rows {
            return Ok(entry.clone());
        }
        let id = FileId { revision: generation, ..FileId::new(entry.id, FileKind::Dead, None) };
        let file = write_dead(disk, id, &dead, &counts)?;
        let kept = entry.files.iter().filter(|file| file.id.kind != FileKind::Dead).copied();
        Ok(SegmentEntry { dead: counts, files: kept.chain([file]).collect(), ..entry.clone() })
    }

    pub(crate) fn record(&self, row: RowId, parts: Parts) -> Result<Record, StoreError> {
        let local = (row.0 - self.first_row) as usize;
        let stored = self.pairs.record(local)?;
        let picture = match parts.picture {
            true => self.pairs.picture(&stored, local, self.pictures.as_ref())?.map(<[u8]>::to_vec),
            false => None,
        };
        let vector = |side| self.side(side).filter(|_| parts.vectors).and_then(|files| files.vectors.vector(local));
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

    /// Pool row of a node.
    pub(super) fn row_of(&self, vectors: &VectorsFile, node: usize) -> Result<u64, StoreError> {
        let row = u64::from(vectors.rows()[node]);
        if row < self.rows {
            return Ok(self.first_row + row);
        }
        Err(vectors.corrupt(Damage::new(vectors.rows_offset(node), format!("row {row} of {}", self.rows))))
    }

    /// Every node compared, or every one of `nodes`, on this thread.
    pub(super) fn scan(
        &self,
        side: Side,
        nodes: Option<&RowSet>,
        query: &PreparedQuery,
        (cpu, cancel): (Cpu, &Cancel),
    ) -> Result<SegmentAnswer, StoreError> {
        let mut best = vec![TopK::new(query.k)];
        for range in ranges(self.side(side).map_or(0, |files| files.vectors.nodes())) {
            self.scan_range(side, std::slice::from_ref(query), (range, nodes), (cpu, cancel, &mut best))?;
        }
        let hits = best.pop().map(TopK::into_sorted).unwrap_or_default();
        Ok(SegmentAnswer { hits, degraded: false })
    }

    /// Compares a run of nodes with every query, four queries at a time.
    fn scan_range(
        &self,
        side: Side,
        queries: &[PreparedQuery],
        (nodes, selected): (std::ops::Range<usize>, Option<&RowSet>),
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
                let nodes = block.clone().filter(|&node| selected.is_none_or(|set| set.contains(node)));
                self.scan_block(vectors, nodes, four, (cpu, &mut *tops))?;
            }
        }
        Ok(())
    }

    /// Compares a few nodes with up to four queries.
    fn scan_block(
        &self,
        vectors: &VectorsFile,
        nodes: impl Iterator<Item = usize>,
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

/// Nodes compared between two looks at the cancel flag, and the unit of work of a thread: 4 MiB of 512-d rows.
const RANGE: usize = 4_096;

/// Nodes compared with one group of four queries before the next group. 16: with 512 values the rows and the four queries take
/// 24 KiB and stay in the nearest cache, while all 64 queries of a pass would not.
const BLOCK: usize = 16;

fn ranges(nodes: usize) -> impl Iterator<Item = std::ops::Range<usize>> {
    (0..nodes).step_by(RANGE).map(move |start| start..nodes.min(start + RANGE))
}

fn live_rows(dir: &Path, file: &FileEntry, segment: &SegmentEntry) -> Result<Selected, StoreError> {
    let mut rows = read_dead(dir, file, segment)?;
    rows.complement();
    Ok(Selected::new(rows))
}

pub(super) fn finite(score: f32, vectors: &VectorsFile, node: usize) -> Result<f32, StoreError> {
    if score.is_finite() {
        return Ok(score.clamp(-1.0, 1.0));
    }
    Err(vectors.corrupt(Damage::new(vectors.f16_offset(node), format!("node {node} has a value that is not finite"))))
}

/// Exact answers of several queries at once over all segments, on all cores. The same rows give the same answer whatever the
/// number of threads: each score is computed one way and the order is total.
pub(crate) fn exact(
    segments: &[Segment],
    (side, selection): (Side, Option<&Selection>),
    queries: &[PreparedQuery],
    (cpu, cancel): (Cpu, &Cancel),
) -> Result<Vec<Vec<Scored>>, StoreError> {
    let nodes = |segment: &Segment| segment.side(side).map_or(0, |files| files.vectors.nodes());
    let mut units = Vec::new();
    for (place, segment) in segments.iter().enumerate() {
        let selected = selection.map(|selection| &selection.segments[place]).or(segment.live.as_ref());
        let selected = selected.map(|selected| segment.nodes(side, selected)).transpose()?.flatten();
        units.extend(ranges(nodes(segment)).map(|range| (segment, range, selected.map(|nodes| &nodes.set))));
    }
    let empty = || queries.iter().map(|q| TopK::new(q.k)).collect::<Vec<_>>();
    // One run of units per two threads' worth: bounds how many candidate lists exist at once.
    let run = units.len().div_ceil(rayon::current_num_threads() * 2).max(1);
    let parts = units.par_chunks(run).map(|run| {
        let mut best = empty();
        for (segment, range, selected) in run {
            segment.scan_range(side, queries, (range.clone(), *selected), (cpu, cancel, &mut best))?;
        }
        Ok::<_, StoreError>(best)
    });
    let merge = |a: Vec<TopK>, b: Vec<TopK>| a.into_iter().zip(b).map(|(a, b)| a.merge(b)).collect();
    let best = parts.try_reduce(empty, |a, b| Ok(merge(a, b)))?;
    Ok(best.into_iter().map(TopK::into_sorted).collect())
}
