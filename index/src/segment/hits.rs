//! Hits of one segment: by its graph, or by comparing every row where that costs less or the graph gives too few.

use super::{
    reader::{Segment, SideFiles},
    scan::finite,
    select::Selected,
    vectors::VectorsFile,
};
use crate::{
    Cancel, Effort, Side, StoreError,
    distance::Cpu,
    format::{effort::EffortTable, vectors::f16_stride},
    hnsw::{Allowed, Fault, Outcome, Scratch, ScratchPool, SearchPlan, search_among, search_many},
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

/// Standard errors of a score of a 7-bit row and a rounded query within which a row may still be among the best k. 4: one in 30,000 such rows is missed.
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
    /// Of the row that it is scored by.
    place: usize,
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
        let attempts = queries.iter().enumerate().map(|(place, query)| Attempt {
            place,
            query,
            ef: width(nodes, allowed, files.graph.efforts(), query),
        });
        let pays = |attempt: &Attempt<'_>| attempt.ef > 0 && graph_is_cheaper(allowed, nodes, attempt.ef);
        let attempts: Vec<Attempt<'_>> = attempts.filter(pays).collect();
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
        let best = rerank(vectors, query, cpu, (scratch, &|place| self.row_of(vectors, place)))?;
        Ok(Some(SegmentAnswer { degraded: best.len() < query.k.min(there), hits: best }))
    }
}

/// What the row at a place counts as among the hits.
pub(super) type RowOf<'a> = &'a dyn Fn(usize) -> Result<u64, StoreError>;

/// The best k of a beam by the most precise rows there are. Behind the first k only those are looked at whose 7-bit score is within
/// [`RERANK_ERRORS`] of the k-th.
pub(super) fn rerank(
    vectors: &VectorsFile,
    query: &PreparedQuery,
    cpu: Cpu,
    (scratch, row): (&Scratch, RowOf<'_>),
) -> Result<Vec<Scored>, StoreError> {
    // The 7-bit scores order the beam well enough that the best k are among twice as many.
    let most = query.k.saturating_mul(2).max(16);
    scratch.beam.nodes().take(most).for_each(|node| vectors.prefetch_place(node, cpu));
    let near = |(score, node)| Ok(Near { score, scale: vectors.scale(node), place: vectors.place(node)? });
    let mut found = scratch.beam.scored().take(most).map(near).collect::<Result<Vec<_>, StoreError>>()?;
    let mut best = TopK::new(query.k);
    let rest = found.split_off(query.k.min(found.len()));
    score_again(vectors, query, cpu, (&found, &mut best, row))?;
    if let Some(kth) = best.kth() {
        let near = |near: &Near| near.score * query.quantized.unit + RERANK_ERRORS * query.quantized.error(near.scale) >= kth;
        let rest: Vec<Near> = rest.into_iter().filter(near).collect();
        score_again(vectors, query, cpu, (&rest, &mut best, row))?;
    }
    Ok(best.into_sorted())
}

fn score_again(
    vectors: &VectorsFile,
    query: &PreparedQuery,
    cpu: Cpu,
    (found, best, row): (&[Near], &mut TopK, RowOf<'_>),
) -> Result<(), StoreError> {
    let mut widened = Vec::new();
    for (i, near) in found.iter().enumerate() {
        if let Some(ahead) = found.get(i + 2) {
            vectors.prefetch(ahead.place, cpu);
        }
        let score = finite(vectors.score(near.place, &query.padded, &mut widened, cpu), vectors, near.place)?;
        best.push(score, row(near.place)?);
    }
    Ok(())
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
