//! Hits of one segment: by its graph, or by sketches or every row where that costs less (`cost`) or the graph gives too few.

use super::{
    cost::{Terrain, Way},
    many::trusted,
    reader::{Segment, SideFiles},
    scan::finite,
    select::Selected,
    vectors::VectorsFile,
};
use crate::{
    Cancel, Effort, Side, StoreError,
    distance::Cpu,
    format::{effort::EffortTable, vectors::f16_stride},
    hnsw::{Allowed, Fault, Limit, Outcome, Scratch, ScratchPool, SearchPlan, search_all, search_among, search_many},
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
    /// This wide on a pool's only graph; of several each takes its share.
    Width(usize),
}

impl Beam {
    /// Width on one graph for the best `k`; 0 where its beams do not keep the promise.
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
    /// Whether the beam was narrowed to the segment's share of the hits.
    pub(crate) narrow: bool,
    /// Scores of the beam that found them, best first, as [`Known::near`].
    pub(super) near: Vec<f32>,
}

/// What other segments gave one query.
#[derive(Clone, Debug)]
pub(super) struct Known {
    /// Scores of 7-bit rows that beams found, best first.
    pub(super) near: Vec<f32>,
    /// The score that a hit must reach to be among the best.
    pub(super) kth: f32,
}

impl Default for Known {
    fn default() -> Self {
        Self { near: Vec::new(), kth: f32::NEG_INFINITY }
    }
}

/// How many beams' nodes other segments must have given before they bound the next. 2: the graph of all rows would need a wider beam than one of a
/// part. On 100,000 rows in 8 segments recall@10 at High was .9924 with 1, .9974 with 2, .9980 with 3 and without a bound.
const BEAMS: usize = 2;
/// Nodes that a beam follows at least, a quarter of it, even where others gave better ones. 8: with 4, 16 segments found .974 at Fast in place
/// of .992.
const LEAST_LED: usize = 8;
/// And at most: wider beams are wide for the hits that are hard to find, not to find the way.
const MOST_LED: usize = 16;

/// Standard errors of a score of a 7-bit row and a rounded query within which a row may still be among the best k. 4: one in 30,000 such rows is missed.
const RERANK_ERRORS: f32 = 4.0;

/// How many f16 rows are asked for ahead of the one being scored: each is sixteen lines at 512 values.
const SCORED_AHEAD: usize = 2;

/// A query on its way through the graph.
struct Attempt<'a> {
    place: usize,
    query: &'a PreparedQuery,
    ef: usize,
    narrow: bool,
    known: &'a Known,
    limit: Limit,
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
    /// Hits of every query among the selected rows (without a selection: the living ones), on this thread. `share` is the part of the
    /// rows searched that this segment holds: its beams are as wide as that part of the hits needs.
    pub(super) fn search(
        &self,
        (side, selected): (Side, Option<&Selected>),
        (queries, known, share): (&[&PreparedQuery], &[&Known], f64),
        scratch: &ScratchPool,
        (cpu, cancel): (Cpu, &Cancel),
    ) -> Result<Vec<SegmentAnswer>, StoreError> {
        let mut answers: Vec<Option<SegmentAnswer>> = queries.iter().map(|_| None).collect();
        let Some(files) = self.side(side) else { return Ok(answers.into_iter().map(Option::unwrap_or_default).collect()) };
        let allowed = self.allowed(side, selected)?;
        let (mut by_graph, mut by_sketches) = (Vec::new(), Vec::new());
        for (place, (query, known)) in queries.iter().zip(known).enumerate() {
            let attempt = Attempt { place, query, ef: 0, narrow: false, known, limit: Limit::default() };
            match way(files, allowed, query, share) {
                (Way::Graph(ef), whole) => by_graph.push(attempt.by_graph(ef, whole, allowed.is_none())),
                (Way::Sketches(ef), _) => by_sketches.push(Attempt { ef, ..attempt }),
                (Way::Rows, _) => {}
            }
        }
        let (view, rows) = (files.graph.view(cpu), files.vectors.view(cpu));
        let mut found = |attempt: &Attempt<'_>, outcome, scratch: &Scratch| {
            answers[attempt.place] = self.found((&files.vectors, allowed), attempt, cpu, (outcome, scratch))?;
            Ok(())
        };
        let searched = match allowed {
            None => {
                let asked = by_graph.iter().map(|attempt| (&attempt.query.quantized, attempt.plan(cancel)));
                search_many(&view, &rows, asked, scratch, |nth, outcome, scratch| found(&by_graph[nth], outcome, scratch))
            }
            Some(allowed) => one_by_one(&by_graph, scratch, &mut found, |attempt, scratch| {
                search_among(&view, &rows, &attempt.query.quantized, (attempt.plan(cancel), allowed), scratch)
            }),
        };
        let searched = searched.and_then(|()| {
            one_by_one(&by_sketches, scratch, &mut found, |attempt, scratch| {
                let plan = SearchPlan::new(attempt.ef, cancel);
                Ok(search_all(&view, &rows, &attempt.query.quantized, (plan, allowed), scratch))
            })
        });
        searched.map_err(|ended| match ended {
            Ended::Fault(fault) => files.graph.fault(fault),
            Ended::Error(error) => error,
        })?;
        let scanned = |(query, answer): (&&PreparedQuery, Option<SegmentAnswer>)| match answer {
            Some(answer) => Ok(answer),
            None => self.scan(side, allowed, query, (cpu, cancel)),
        };
        queries.iter().zip(answers).map(scanned).collect()
    }

    /// The answer of a search; `None` when it ended with fewer nodes than its beam has room for although there are more: what it
    /// reached is then an island, and says nothing of the rest.
    fn found(
        &self,
        (vectors, allowed): (&VectorsFile, Option<&Allowed>),
        &Attempt { query, ef, narrow, known, limit, .. }: &Attempt<'_>,
        cpu: Cpu,
        (outcome, scratch): (Outcome, &Scratch),
    ) -> Result<Option<SegmentAnswer>, StoreError> {
        let there = allowed.map_or(vectors.nodes(), |allowed| allowed.count);
        let (found, full) = (scratch.beam.len(), if limit == Limit::default() { ef } else { limit.least });
        match outcome {
            Outcome::Cancelled => return Err(StoreError::Cancelled),
            Outcome::Done if found < full.min(there) => return Ok(None),
            Outcome::Done | Outcome::Budget => {}
        }
        let hits = rerank(vectors, (query, known.kth), cpu, (scratch, &|place| self.row_of(vectors, place)))?;
        let near = scratch.beam.scored().map(|(score, _)| score).collect();
        Ok(Some(SegmentAnswer { degraded: found < query.k.min(full).min(there), hits, narrow, near }))
    }
}

/// What the row at a place counts as among the hits.
pub(super) type RowOf<'a> = &'a dyn Fn(usize) -> Result<u64, StoreError>;

/// The best k of a beam by the most precise rows there are, of those that may reach `least`. Behind the first k only those are looked at
/// whose 7-bit score is within [`RERANK_ERRORS`] of the k-th.
pub(super) fn rerank(
    vectors: &VectorsFile,
    (query, least): (&PreparedQuery, f32),
    cpu: Cpu,
    (scratch, row): (&Scratch, RowOf<'_>),
) -> Result<Vec<Scored>, StoreError> {
    // The 7-bit scores order the beam well enough that the best k are among twice as many.
    let most = query.k.saturating_mul(2).max(16);
    let reaches =
        |score: f32, scale: f32, least: f32| score * query.quantized.unit + RERANK_ERRORS * query.quantized.error(scale) >= least;
    let scaled = scratch.beam.scored().take(most).map(|(score, node)| (score, vectors.scale(node), node));
    let scaled: Vec<_> = scaled.filter(|&(score, scale, _)| reaches(score, scale, least)).collect();
    scaled.iter().for_each(|&(.., node)| vectors.prefetch_place(node, cpu));
    let near = |(score, scale, node)| Ok(Near { score, scale, place: vectors.place(node)? });
    let mut found = scaled.into_iter().map(near).collect::<Result<Vec<_>, StoreError>>()?;
    let mut best = TopK::new(query.k);
    let rest = found.split_off(query.k.min(found.len()));
    score_again(vectors, query, cpu, (&found, &mut best, row))?;
    if let Some(kth) = best.kth() {
        let rest: Vec<Near> = rest.into_iter().filter(|near| reaches(near.score, near.scale, kth)).collect();
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
    found.iter().take(SCORED_AHEAD).for_each(|near| vectors.prefetch(near.place, cpu));
    for (i, near) in found.iter().enumerate() {
        if let Some(ahead) = found.get(i + SCORED_AHEAD) {
            vectors.prefetch(ahead.place, cpu);
        }
        let score = finite(vectors.score(near.place, &query.padded, &mut widened, cpu), vectors, near.place)?;
        best.push(score, row(near.place)?);
    }
    Ok(())
}

/// Searches one after the other, each with memory of its own for the time; `found` gets how each ended, and its beam.
fn one_by_one<'a>(
    attempts: &[Attempt<'a>],
    pool: &ScratchPool,
    found: &mut impl FnMut(&Attempt<'a>, Outcome, &Scratch) -> Result<(), Ended>,
    search: impl Fn(&Attempt<'a>, &mut Scratch) -> Result<Outcome, Fault>,
) -> Result<(), Ended> {
    attempts.iter().try_for_each(|attempt| {
        pool.with(|scratch| {
            let outcome = search(attempt, scratch)?;
            found(attempt, outcome, scratch)
        })
    })
}

impl Attempt<'_> {
    /// How far its search of the graph goes.
    fn plan<'c>(&self, cancel: &'c Cancel) -> SearchPlan<'c> {
        SearchPlan { budget: Limits::STANDARD.node_budget(self.ef), limit: self.limit, ..SearchPlan::new(self.ef, cancel) }
    }

    /// With a beam of `ef`, where one of `whole` finds all hits. Where other segments gave as many nodes as that has room for, it goes no
    /// further than they did: all beams together are then as wide as one.
    fn by_graph(self, ef: usize, whole: usize, may_stop: bool) -> Self {
        match self.known.near.get(whole * BEAMS - 1) {
            Some(&bound) if may_stop && bound > f32::NEG_INFINITY => {
                let least = (whole / 4).clamp(LEAST_LED, MOST_LED).min(whole);
                Self { ef: whole, limit: Limit { bound, least }, ..self }
            }
            _ => Self { ef, narrow: ef < whole, ..self },
        }
    }
}

/// The way to a query's hits, and the width of a beam that finds all of them; that of the graph may be narrower.
fn way(SideFiles { vectors, graph }: &SideFiles, allowed: Option<&Allowed>, query: &PreparedQuery, share: f64) -> (Way, usize) {
    let nodes = vectors.nodes();
    // Who names a width means the graph's beam.
    let sketched = graph.has_sketches() && !matches!(query.beam, Beam::Width(_));
    let terrain = Terrain { nodes, allowed: allowed.map_or(nodes, |allowed| allowed.count), sketched };
    let whole = width(terrain, graph.efforts(), query);
    if whole == 0 {
        return (terrain.way(0, query.k), whole);
    }
    let hits = trusted(query.k, share);
    let narrow = (whole * hits).div_ceil(query.k).max(hits).max(LEAST_BEAM.min(whole));
    (terrain.way(narrow, query.k), whole)
}

/// Narrowest beam of a segment that holds a share of the hits. 12: the descent ends beside the best node, not always on it.
const LEAST_BEAM: usize = 12;

/// Beam width for the nodes that may be found. Where many may not be found, what may can lie away from the query, whatever tower that came from:
/// then twice the width of a query that does not say. With twice the width for pictures recall@10 fell to 0.93 for filters that
/// select the quarter or fifth of the pairs on the far side (`tests/pool/filter.rs`, `benches -- filters`).
fn width(terrain: Terrain, efforts: &EffortTable, query: &PreparedQuery) -> usize {
    match (terrain.is_sparse(), query.beam) {
        (true, Beam::Promise(effort, _)) => Beam::Promise(effort, None).on(efforts, query.k).saturating_mul(2),
        (_, beam) => beam.on(efforts, query.k),
    }
}
