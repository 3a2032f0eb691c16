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
    hnsw::{Allowed, Fault, Outcome, Scratch, ScratchPool, SearchPlan, search_among, search_many},
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

/// Standard errors of a 7-bit score within which a row may still be among the best k. 4: one in 30,000 such rows is missed.
const RERANK_ERRORS: f32 = 4.0;

/// A query on its way through the graph.
struct Attempt<'a> {
    place: usize,
    query: &'a PreparedQuery,
    ef: usize,
}

/// A vector that a beam found.
struct Near {
    /// Of the 7-bit row, and its scale.
    score: f32,
    scale: f32,
    /// Of the f16 row.
    position: usize,
}

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

impl Segment {
    /// Hits of every query among the selected rows (without a selection: the living ones), on this thread.
    pub(crate) fn search(
        &self,
        (side, selected): (Side, Option<&Selected>),
        queries: &[&PreparedQuery],
        scratch: &ScratchPool,
        (cpu, cancel): (Cpu, &Cancel),
    ) -> Result<Vec<SegmentAnswer>, StoreError> {
        let mut answers: Vec<Option<SegmentAnswer>> = queries.iter().map(|_| None).collect();
        let Some(files) = self.side(side) else { return Ok(answers.into_iter().map(Option::unwrap_or_default).collect()) };
        let allowed = self.allowed(side, selected)?;
        let nodes = files.vectors.nodes();
        let attempts =
            queries.iter().enumerate().map(|(place, query)| Attempt { place, query, ef: width(nodes, allowed, query.ef) });
        let attempts: Vec<Attempt<'_>> = attempts.filter(|attempt| graph_is_cheaper(allowed, nodes, attempt.ef)).collect();
        self.search_graph(files, allowed, &attempts, (scratch, &mut answers), (cpu, cancel)).map_err(|ended| match ended {
            Ended::Fault(fault) => files.graph.fault(fault),
            Ended::Error(error) => error,
        })?;
        let scanned = |(query, answer): (&&PreparedQuery, Option<SegmentAnswer>)| match answer {
            Some(answer) => Ok(answer),
            None => self.scan(side, allowed, query, (cpu, cancel)),
        };
        queries.iter().zip(answers).map(scanned).collect()
    }

    /// Fills in the answers that the graph gives.
    fn search_graph(
        &self,
        SideFiles { vectors, graph }: &SideFiles,
        allowed: Option<&Allowed>,
        attempts: &[Attempt<'_>],
        (scratch, answers): (&ScratchPool, &mut [Option<SegmentAnswer>]),
        (cpu, cancel): (Cpu, &Cancel),
    ) -> Result<(), Ended> {
        let (view, rows) = (graph.view(cpu), vectors.view(cpu));
        let plan = |ef| SearchPlan { ef, budget: Limits::STANDARD.node_budget(ef), cancel };
        let mut found = |attempt: &Attempt<'_>, outcome, scratch: &Scratch| {
            answers[attempt.place] = self.found((vectors, allowed), attempt, cpu, (outcome, scratch))?;
            Ok(())
        };
        let Some(allowed) = allowed else {
            let asked = attempts.iter().map(|attempt| (&attempt.query.quantized, plan(attempt.ef)));
            return search_many(&view, &rows, asked, scratch, |nth, outcome, scratch| found(&attempts[nth], outcome, scratch));
        };
        attempts.iter().try_for_each(|attempt| {
            scratch.with(|scratch| {
                let outcome = search_among(&view, &rows, &attempt.query.quantized, (plan(attempt.ef), allowed), scratch)?;
                found(attempt, outcome, scratch)
            })
        })
    }

    /// The answer of a search; `None` when it ended with fewer nodes than its beam has room for although there are more: what it
    /// reached is then an island, and says nothing of the rest.
    fn found(
        &self,
        (vectors, allowed): (&VectorsFile, Option<&Allowed>),
        &Attempt { query, ef, .. }: &Attempt<'_>,
        cpu: Cpu,
        (outcome, scratch): (Outcome, &Scratch),
    ) -> Result<Option<SegmentAnswer>, StoreError> {
        let there = allowed.map_or(vectors.nodes(), |allowed| allowed.count);
        match outcome {
            Outcome::Cancelled => return Err(StoreError::Cancelled),
            Outcome::Done if scratch.beam.len() < ef.min(there) => return Ok(None),
            Outcome::Done | Outcome::Budget => {}
        }
        // The 7-bit scores order the beam well enough that the best k are among twice as many.
        let most = query.k.saturating_mul(2).max(16);
        scratch.beam.nodes().take(most).for_each(|node| vectors.prefetch_position(node, cpu));
        let near = scratch
            .beam
            .scored()
            .take(most)
            .map(|(score, node)| Ok(Near { score, scale: vectors.scale(node), position: vectors.position(node)? }));
        let near = near.collect::<Result<Vec<_>, StoreError>>()?;
        let best = self.rerank(vectors, query, cpu, near)?;
        Ok(Some(SegmentAnswer { degraded: best.len() < query.k.min(there), hits: best }))
    }

    /// Scores by f16 rows. Behind the first k only those are looked at whose 7-bit score is within [`RERANK_ERRORS`] of the k-th.
    fn rerank(
        &self,
        vectors: &VectorsFile,
        query: &PreparedQuery,
        cpu: Cpu,
        mut found: Vec<Near>,
    ) -> Result<Vec<Scored>, StoreError> {
        let mut best = TopK::new(query.k);
        let rest = found.split_off(query.k.min(found.len()));
        self.score_again(vectors, query, cpu, (&found, &mut best))?;
        if let Some(kth) = best.kth() {
            let near = |near: &Near| near.score * query.quantized.unit + RERANK_ERRORS * query.quantized.error(near.scale) >= kth;
            let rest: Vec<Near> = rest.into_iter().filter(near).collect();
            self.score_again(vectors, query, cpu, (&rest, &mut best))?;
        }
        Ok(best.into_sorted())
    }

    fn score_again(
        &self,
        vectors: &VectorsFile,
        query: &PreparedQuery,
        cpu: Cpu,
        (found, best): (&[Near], &mut TopK),
    ) -> Result<(), StoreError> {
        for (i, near) in found.iter().enumerate() {
            if let Some(ahead) = found.get(i + 2) {
                cpu.prefetch(bytemuck::cast_slice(vectors.f16_row(ahead.position)));
                cpu.prefetch_value(&vectors.rows()[ahead.position]);
            }
            let score = finite(cpu.dot_f16(vectors.f16_row(near.position), &query.padded), vectors, near.position)?;
            best.push(score, self.row_of(vectors, near.position)?);
        }
        Ok(())
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
