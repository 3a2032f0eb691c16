//! No links at all: every node that may be found is looked at by its sketch, and compared where that lets it into the beam.
//!
//! ```text
//!   a spread sample of the nodes ─► beam (its floor is near the last one already)
//!   the others, in the order they lie in ──sift by sketch──► the few that may enter ──compare by row──► beam
//! ```
//!
//! A sketch is one cache line, and lines are read front to back: about 16 ns a node on one thread, comparisons included, where a comparison of f16 rows takes
//! 100. So this costs less than a walk that must find its way around most of a graph's nodes, and it loses nothing.

use super::{
    among::Allowed,
    search::{Outcome, SearchPlan},
    view::{GraphView, RowScorer, RowsView},
    visited::Scratch,
};
use crate::{quantize::QuantizedQuery, sketch::Z_ALL};

/// Nodes sifted together: their lines are 16 KiB, half of the nearest cache.
const BLOCK: usize = 256;
/// Nodes of the sample, about.
const SAMPLE: usize = 256;

/// Leaves the best nodes in `scratch.beam`, best first; `allowed` are those that may be found, without it all.
pub(crate) fn search_all(
    graph: &GraphView<'_>,
    rows: &RowsView<'_>,
    query: &QuantizedQuery,
    (plan, allowed): (SearchPlan<'_>, Option<&Allowed>),
    scratch: &mut Scratch,
) -> Outcome {
    let scorer = RowScorer::trusting(graph, rows, query, Z_ALL);
    scratch.start(plan.ef, []);
    match allowed {
        Some(allowed) => among(&scorer, allowed.count, || allowed.nodes().iter().map(|node| node as u32), plan, scratch),
        None => among(&scorer, graph.nodes, || 0..graph.nodes as u32, plan, scratch),
    }
}

fn among<I: Iterator<Item = u32>>(
    scorer: &RowScorer<'_>,
    count: usize,
    nodes: impl Fn() -> I,
    plan: SearchPlan<'_>,
    scratch: &mut Scratch,
) -> Outcome {
    let step = count.div_ceil(SAMPLE).max(1);
    let sample = nodes().step_by(step);
    // Counted down rather than divided: a division takes as long as looking at a sketch.
    let mut until_sampled = 0;
    let others = nodes().filter(move |_| {
        let sampled = until_sampled == 0;
        until_sampled = if sampled { step - 1 } else { until_sampled - 1 };
        !sampled
    });
    let mut nodes = sample.chain(others);
    loop {
        if plan.cancel.is_cancelled() {
            return Outcome::Cancelled;
        }
        scratch.take_block(scorer, nodes.by_ref().take(BLOCK));
        if scratch.fresh.is_empty() {
            return Outcome::Done;
        }
        scratch.sift(scorer);
        scratch.compare(scorer);
    }
}
