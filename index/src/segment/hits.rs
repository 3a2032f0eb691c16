//! Hits of one segment: by its graph, or by comparing every row where that costs less or the graph gives too few.

use super::{
    files::VectorsFile,
    reader::{Segment, SideFiles},
    scan::finite,
    select::Selected,
};
use crate::{
    Cancel, Side, StoreError,
    distance::Cpu,
    format::vectors::f16_stride,
    hnsw::{Allowed, Outcome, ScratchPool, SearchPlan, search, search_among},
    limits::Limits,
    quantize::QuantizedQuery,
    topk::{Scored, TopK},
};

/// A query of unit length in the forms the kernels take.
#[derive(Clone, Debug)]
pub(crate) struct PreparedQuery {
    pub(super) padded: Vec<f32>,
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
        let ef = width(files.vectors.nodes(), allowed, query.ef);
        if graph_is_cheaper(allowed, files.vectors.nodes(), ef)
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
            // The 7-bit scores order the beam well enough that the best k are among twice as many.
            let again = scratch.beam.nodes().take(query.k.saturating_mul(2).max(16));
            let best = self.rerank(vectors, query, cpu, again)?;
            Ok(Some(SegmentAnswer { degraded: best.len() < wanted, hits: best }))
        })
    }

    fn rerank(
        &self,
        vectors: &VectorsFile,
        query: &PreparedQuery,
        cpu: Cpu,
        nodes: impl Iterator<Item = u32>,
    ) -> Result<Vec<Scored>, StoreError> {
        let mut best = TopK::new(query.k);
        let nodes: Vec<usize> = nodes.map(|node| node as usize).collect();
        for (i, &node) in nodes.iter().enumerate() {
            if let Some(&ahead) = nodes.get(i + 2) {
                cpu.prefetch(bytemuck::cast_slice(vectors.f16_row(ahead)));
            }
            let score = finite(cpu.dot_f16(vectors.f16_row(node), &query.padded), vectors, node)?;
            best.push(score, self.row_of(vectors, node)?);
        }
        Ok(best.into_sorted())
    }
}

/// Beam width for the allowed nodes. Twice the usual where a tenth of the nodes or more may not be found: what is allowed may lie
/// away from the query, and with the usual width recall@10 fell to 0.93 for filters that select a fifth of the pairs on the
/// far side (`benches -- filters`).
fn width(nodes: usize, allowed: Option<&Allowed>, ef: usize) -> usize {
    let few = allowed.is_some_and(|allowed| allowed.count < nodes / 10 * 9);
    if few { ef.saturating_mul(2) } else { ef }
}

/// Whether a beam of `ef` over the graph is expected to cost less than comparing every allowed row. A beam compares about ten rows
/// per slot, and comparing rows one after the other costs less for each: four times less when they lie in one run. Walking around
/// nodes that may not be found costs as much again: measured, a beam of 64 and a scan of 600 rows take the same time.
fn graph_is_cheaper(allowed: Option<&Allowed>, nodes: usize, ef: usize) -> bool {
    match allowed {
        None => nodes > ef.saturating_mul(4),
        Some(allowed) => allowed.count > ef.saturating_mul(if allowed.count < nodes / 10 * 9 { 10 } else { 4 }),
    }
}
