//! Hits of one segment: by its graph, or by comparing every row where that costs less or the graph gives too few.

use super::{
    files::VectorsFile,
    reader::{Segment, SideFiles},
    scan::finite,
    select::Selected,
};
use crate::{
    Cancel, Effort, Side, StoreError,
    distance::Cpu,
    format::{effort::EffortTable, vectors::f16_stride},
    hnsw::{Allowed, Outcome, ScratchPool, SearchPlan, search, search_among},
    limits::Limits,
    quantize::QuantizedQuery,
    topk::{Scored, TopK},
};

/// A query of unit length in the forms the kernels take.
#[derive(Clone, Debug)]
pub(crate) struct PreparedQuery {
    pub(super) padded: Vec<f32>,
    pub(super) quantized: QuantizedQuery,
    pub(crate) k: usize,
    pub(crate) beam: Beam,
}

/// How wide the beam is.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Beam {
    /// As wide as this effort needs on each graph for queries of this modality.
    Promise(Effort, Option<Side>),
    /// This wide on every graph.
    Width(usize),
}

impl Beam {
    /// Width on one graph for the best `k`; 0 to compare every row.
    fn on(self, efforts: &EffortTable, k: usize) -> usize {
        let least = match self {
            Self::Width(width) => return width.max(k),
            Self::Promise(effort, asked) => efforts.ef(asked, effort).unwrap_or_else(|| unmeasured(effort)),
        };
        if least == 0 { 0 } else { least.max(k + (k / 4).min(MOST_MORE)) }
    }
}

/// Beam width of an effort on a graph that was never measured: those of pools written before graphs were.
///
/// Recall@10 on 100,000 CLIP-like vectors of 512 values: image against image 0.972, 0.994, 0.999; text against image 0.918, 0.977,
/// 0.997.
fn unmeasured(effort: Effort) -> usize {
    match effort {
        Effort::Fast => 24,
        Effort::Normal => 64,
        Effort::High => 256,
        Effort::Exact => 0,
    }
}

/// A large `k` widens the beam by a quarter of `k` beyond `k`, at most by this.
const MOST_MORE: usize = 1_000;

impl PreparedQuery {
    /// `unit` has `dim` values and unit length.
    pub(crate) fn new(mut unit: Vec<f32>, dim: usize, k: usize, beam: Beam) -> Self {
        let quantized = QuantizedQuery::new(&unit, dim);
        unit.resize(f16_stride(dim) / 2, 0.0);
        Self { padded: unit, quantized, k, beam }
    }
}

/// Hits of one segment, rows counted within the pool.
#[derive(Debug, Default)]
pub(crate) struct SegmentAnswer {
    pub(crate) hits: Vec<Scored>,
    pub(crate) degraded: bool,
}

impl Segment {
    /// Hits among the selected rows (without a selection: the living ones).
    pub(crate) fn search(
        &self,
        (side, selected): (Side, Option<&Selected>),
        query: &PreparedQuery,
        scratch: &ScratchPool,
        (cpu, cancel): (Cpu, &Cancel),
    ) -> Result<SegmentAnswer, StoreError> {
        let Some(files) = self.side(side) else { return Ok(SegmentAnswer::default()) };
        let allowed = self.allowed(side, selected)?;
        let ef = width(files.vectors.nodes(), allowed, files.graph.efforts(), query);
        if ef > 0
            && graph_is_cheaper(allowed, files.vectors.nodes(), ef)
            && let Some(answer) = self.search_graph(files, allowed, (query, ef), scratch, (cpu, cancel))?
        {
            return Ok(answer);
        }
        self.scan(side, allowed, query, (cpu, cancel))
    }

    /// Hits by the graph; `None` when the search ended with fewer nodes than its beam has room for although there are more: what it
    /// reached is then an island, and says nothing of the rest.
    fn search_graph(
        &self,
        SideFiles { vectors, graph }: &SideFiles,
        allowed: Option<&Allowed>,
        (query, ef): (&PreparedQuery, usize),
        scratch: &ScratchPool,
        (cpu, cancel): (Cpu, &Cancel),
    ) -> Result<Option<SegmentAnswer>, StoreError> {
        let plan = SearchPlan { ef, budget: Limits::STANDARD.node_budget(ef), cancel };
        let (view, rows) = (graph.view(), vectors.view(cpu));
        let there = allowed.map_or(vectors.nodes(), |allowed| allowed.count);
        let wanted = query.k.min(there);
        scratch.with(|scratch| {
            let outcome = match allowed {
                None => search(&view, &rows, &query.quantized, plan, scratch),
                Some(allowed) => search_among(&view, &rows, &query.quantized, (plan, allowed), scratch),
            };
            let outcome = outcome.map_err(|fault| graph.fault(fault))?;
            if outcome == Outcome::Cancelled {
                return Err(StoreError::Cancelled);
            }
            if outcome == Outcome::Done && scratch.beam.len() < ef.min(there) {
                return Ok(None);
            }
            let best = rerank(vectors, query, cpu, (scratch.beam.nodes(), &|node| self.row_of(vectors, node)))?;
            Ok(Some(SegmentAnswer { degraded: best.len() < wanted, hits: best }))
        })
    }
}

/// What a node counts as among the hits.
pub(super) type RowOf<'a> = &'a dyn Fn(usize) -> Result<u64, StoreError>;

/// The best k of a beam by their f16 rows. The 7-bit scores order it well enough that they are among the first 2k.
pub(super) fn rerank(
    vectors: &VectorsFile,
    query: &PreparedQuery,
    cpu: Cpu,
    (beam, row): (impl Iterator<Item = u32>, RowOf<'_>),
) -> Result<Vec<Scored>, StoreError> {
    let mut best = TopK::new(query.k);
    let nodes: Vec<usize> = beam.take(query.k.saturating_mul(2).max(16)).map(|node| node as usize).collect();
    for (i, &node) in nodes.iter().enumerate() {
        if let Some(&ahead) = nodes.get(i + 2) {
            cpu.prefetch(bytemuck::cast_slice(vectors.f16_row(ahead)));
        }
        let score = finite(cpu.dot_f16(vectors.f16_row(node), &query.padded), vectors, node)?;
        best.push(score, row(node)?);
    }
    Ok(best.into_sorted())
}

/// Whether so many nodes may not be found that a search is one of the allowed nodes around the others: a tenth or more.
fn is_sparse(nodes: usize, allowed: Option<&Allowed>) -> bool {
    allowed.is_some_and(|allowed| allowed.count < nodes / 10 * 9)
}

/// Beam width for the allowed nodes. Where many may not be found, what may can lie away from the query, whatever tower that came from: then
/// twice the width of a query that does not say. With twice the width for pictures recall@10 fell to 0.93 for filters that
/// select the quarter or fifth of the pairs on the far side (`tests/pool/filter.rs`, `benches -- filters`).
fn width(nodes: usize, allowed: Option<&Allowed>, efforts: &EffortTable, query: &PreparedQuery) -> usize {
    match (is_sparse(nodes, allowed), query.beam) {
        (true, Beam::Promise(effort, _)) => Beam::Promise(effort, None).on(efforts, query.k).saturating_mul(2),
        (_, beam) => beam.on(efforts, query.k),
    }
}

/// Rows that are compared one by one rather than searched among others that may not be found. 2,000: they take about as long as
/// the narrowest useful beam that walks around the others, whose recall is lowest when so few are strewn over a large graph.
const FEW: usize = 2_000;

/// Whether a beam of `ef` over the graph is expected to cost less than comparing every allowed row, which at about 0.1 us a row is what
/// a beam of `ef` costs for four rows a slot when all may be found, and for twelve when it walks around others (`benches -- filters`).
fn graph_is_cheaper(allowed: Option<&Allowed>, nodes: usize, ef: usize) -> bool {
    match allowed {
        Some(allowed) if is_sparse(nodes, Some(allowed)) => allowed.count > FEW.max(ef.saturating_mul(12)),
        _ => allowed.map_or(nodes, |allowed| allowed.count) > ef.saturating_mul(4),
    }
}
