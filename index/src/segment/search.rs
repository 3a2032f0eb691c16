//! Queries to hits of one segment, by its graph: beams of 7-bit scores, the best of them scored again by f16 rows.

use super::{
    files::VectorsFile,
    reader::{PreparedQuery, Segment, SegmentAnswer, SideFiles, finite},
    select::{Nodes, Selected},
};
use crate::{
    Cancel, Side, StoreError,
    distance::Cpu,
    hnsw::{Fault, Outcome, Scratch, ScratchPool, SearchPlan, search_many},
    limits::Limits,
    topk::{Scored, TopK},
};

/// Standard errors of a 7-bit score within which a row may still be among the best k. 4: one in 30,000 such rows is missed.
const RERANK_ERRORS: f32 = 4.0;

/// A query on its way, with the beam it gets next.
struct Attempt {
    place: usize,
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
    /// Hits by the graph; by comparing every row where that costs no more, or where the graph gives too few. On this thread.
    pub(crate) fn search(
        &self,
        (side, selected): (Side, Option<&Selected>),
        queries: &[&PreparedQuery],
        scratch: &ScratchPool,
        (cpu, cancel): (Cpu, &Cancel),
    ) -> Result<Vec<SegmentAnswer>, StoreError> {
        let mut answers: Vec<Option<SegmentAnswer>> = queries.iter().map(|_| None).collect();
        let Some(files) = self.side(side) else { return Ok(answers.into_iter().map(Option::unwrap_or_default).collect()) };
        let allowed = match selected.or(self.live_rows()) {
            Some(selected) => self.nodes(side, selected)?,
            None => None,
        };
        let nodes = files.vectors.nodes();
        let count = allowed.map_or(nodes, |allowed| allowed.count);
        // Nodes that may not be found are walked through and take places in the beam, so it is wider by as much as they are many.
        let wider = |ef: usize| (ef as u64).saturating_mul(nodes as u64).div_ceil(count.max(1) as u64) as usize;
        let mut attempts: Vec<Attempt> =
            queries.iter().enumerate().map(|(place, query)| Attempt { place, ef: wider(query.ef) }).collect();
        loop {
            // A beam compares about ten rows per slot; below four rows per slot a plain scan is cheaper, and exact.
            attempts.retain(|attempt| answers[attempt.place].is_none() && count > attempt.ef.saturating_mul(4));
            if attempts.is_empty() {
                break;
            }
            self.search_graph(files, allowed, (queries, &attempts), (scratch, &mut answers), (cpu, cancel))?;
            if count == nodes {
                // The graph is whole; whoever got too few starts where it does not reach enough of it.
                break;
            }
            // Those that may not be found lie thick around these queries.
            attempts.iter_mut().for_each(|attempt| attempt.ef = attempt.ef.saturating_mul(2));
        }
        let scanned = |(query, answer): (&&PreparedQuery, Option<SegmentAnswer>)| match answer {
            Some(answer) => Ok(answer),
            None => self.scan(side, allowed.map(|allowed| &allowed.set), query, (cpu, cancel)),
        };
        queries.iter().zip(answers).map(scanned).collect()
    }

    /// Fills in the answers of the attempts that found enough.
    fn search_graph(
        &self,
        SideFiles { vectors, graph }: &SideFiles,
        allowed: Option<&Nodes>,
        (queries, attempts): (&[&PreparedQuery], &[Attempt]),
        (scratch, answers): (&ScratchPool, &mut [Option<SegmentAnswer>]),
        (cpu, cancel): (Cpu, &Cancel),
    ) -> Result<(), StoreError> {
        let view = graph.view(cpu);
        let asked = attempts.iter().map(|&Attempt { place, ef }| {
            let plan = SearchPlan { ef, budget: Limits::STANDARD.node_budget(ef), cancel };
            (&queries[place].quantized, plan)
        });
        let ended = search_many(&view, &vectors.view(cpu), asked, scratch, |nth, outcome, scratch| {
            let place = attempts[nth].place;
            answers[place] = self.found((vectors, allowed), queries[place], cpu, (outcome, scratch))?;
            Ok(())
        });
        ended.map_err(|ended| match ended {
            Ended::Fault(fault) => graph.fault(fault),
            Ended::Error(error) => error,
        })
    }

    /// The answer of a search that ended; `None` when too few nodes that may be found were in its beam.
    fn found(
        &self,
        (vectors, allowed): (&VectorsFile, Option<&Nodes>),
        query: &PreparedQuery,
        cpu: Cpu,
        (outcome, scratch): (Outcome, &Scratch),
    ) -> Result<Option<SegmentAnswer>, StoreError> {
        let wanted = query.k.min(allowed.map_or(vectors.nodes(), |allowed| allowed.count));
        // Where some may not be found, three quarters of the beam that was asked for: beyond that recall no longer differs.
        let least = allowed.map_or(wanted, |allowed| wanted.max(query.ef.min(allowed.count) * 3 / 4));
        if outcome == Outcome::Cancelled {
            return Err(StoreError::Cancelled);
        }
        scratch.beam.nodes().for_each(|node| vectors.prefetch_position(node, cpu));
        // The 7-bit scores order the beam well enough that the best k are among twice as many.
        let most = query.k.saturating_mul(2).max(16);
        let mut found = Vec::new();
        for (score, node) in scratch.beam.scored() {
            let position = vectors.position(node)?;
            if allowed.is_none_or(|allowed| allowed.set.contains(position)) {
                found.push(Near { score, scale: vectors.scale(node), position });
            }
            if found.len() >= most.max(least) {
                break;
            }
        }
        if outcome == Outcome::Done && found.len() < least {
            return Ok(None);
        }
        found.truncate(most);
        let best = self.rerank(vectors, query, cpu, found)?;
        Ok(Some(SegmentAnswer { degraded: best.len() < wanted, hits: best }))
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
