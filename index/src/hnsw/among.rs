//! A beam over the nodes that may be found, walking through the others.
//!
//! ```text
//!   descent over all nodes ─► start ─(not allowed: a small ordinary beam around it)─┐
//!   a spread sample of those allowed ───────────────────────────────────────────────┴─► beam of allowed nodes ─expand─► links:
//!                                            allowed ones are compared, the others' own links are followed unseen
//! ```
//!
//! Nodes that may not be found (deleted, or refused by a filter) take no place in the beam and are not compared by it; their links
//! are followed only until enough allowed nodes were met, so that an expansion costs about the same at any share of allowed
//! nodes. The sample helps where what is allowed lies far from the query: the descent then ends among nodes that lead nowhere.
//! The approach is ACORN's (Patel et al., SIGMOD 2024), with a breadth-first walk of bounded length in place of its fixed two hops.

use super::{
    search::{Outcome, SearchPlan, descend},
    view::{Fault, GraphView, RowScorer, RowsView},
    visited::Scratch,
    walk::{Scorer, compare_each},
};
use crate::{RowSet, quantize::QuantizedQuery};

/// Nodes that may be found, among all of a graph.
#[derive(Debug)]
pub(crate) struct Allowed {
    set: RowSet,
    /// The same as positions, which count vectors in another order.
    pub(crate) positions: RowSet,
    /// How many they are.
    pub(crate) count: usize,
    /// Some of them, spread evenly over the node numbers.
    seeds: Vec<u32>,
}

/// Allowed nodes that a search begins with, besides the end of the descent.
const SEEDS: usize = 32;

/// An expansion stops following links of nodes that are not allowed once it met this many that are: about as many as a list has
/// without a filter.
const ENOUGH: usize = 16;

/// Lists of links that one expansion reads at most.
const MOST_LISTS: usize = 64;

/// Widest beam of the first phase, [`approach`]. 64: the neighbourhood it sees then is some hundred nodes.
const MOST_GUIDE: usize = 64;

impl Allowed {
    /// The nodes of `set`, which are at `positions`.
    pub(crate) fn new(set: RowSet, positions: RowSet) -> Self {
        let count = set.count();
        let seeds = set.iter().step_by(count.div_ceil(SEEDS).max(1)).map(|node| node as u32).collect();
        Self { set, positions, count, seeds }
    }

    /// The nodes themselves.
    pub(crate) fn nodes(&self) -> &RowSet {
        &self.set
    }

    fn contains(&self, node: u32) -> bool {
        self.set.contains(node as usize)
    }
}

/// Leaves the found nodes in `scratch.beam`, best first; all of them are allowed.
pub(crate) fn search_among(
    graph: &GraphView<'_>,
    rows: &RowsView<'_>,
    query: &QuantizedQuery,
    (plan, allowed): (SearchPlan<'_>, &Allowed),
    scratch: &mut Scratch,
) -> Result<Outcome, Fault> {
    let scorer = RowScorer::new(graph, rows, query);
    let start = descend(graph, &scorer, &mut scratch.fresh)?;
    scratch.start(plan.ef, []);
    let mut budget = plan.budget;
    if !allowed.contains(start) {
        budget = budget.saturating_sub(approach(graph, &scorer, (start, plan, allowed), scratch)?);
    }
    scratch.fresh.clear();
    for node in allowed.seeds.iter().copied().chain([start]) {
        if allowed.contains(node) && scratch.visited.insert(node) {
            scratch.fresh.push(node);
        }
    }
    loop {
        if scratch.fresh.len() > budget {
            return Ok(Outcome::Budget);
        }
        budget -= scratch.fresh.len();
        scratch.sift(&scorer);
        scratch.compare(&scorer);
        if plan.cancel.is_cancelled() {
            return Ok(Outcome::Cancelled);
        }
        let Some(node) = scratch.beam.expand() else { return Ok(Outcome::Done) };
        if let Some(next) = scratch.beam.peek() {
            graph.prefetch_links(next, scorer.cpu());
        }
        scratch.fresh.clear();
        gather(graph, &scorer, allowed, node, scratch)?;
    }
}

/// An ordinary beam search around `start`, which may not be found: allowed nodes that it meets go into `scratch.beam`, and so what lies
/// just around a forbidden neighbourhood is found from all its sides. Returns how many nodes were compared.
fn approach(
    graph: &GraphView<'_>,
    scorer: &RowScorer<'_>,
    (start, plan, allowed): (u32, SearchPlan<'_>, &Allowed),
    scratch: &mut Scratch,
) -> Result<usize, Fault> {
    scratch.guide.start(plan.ef.min(MOST_GUIDE));
    scratch.visited.insert(start);
    scratch.guide.insert(scorer.score(start), start);
    scratch.through.clear();
    let mut compared = 1;
    while let Some(node) = scratch.guide.expand() {
        scratch.gather(scorer, graph.checked_links(node))?;
        compared += scratch.fresh.len();
        // No sketches here: what the guide has no room for may be among the nearest of those allowed.
        let Scratch { beam, fresh, through, guide, .. } = scratch;
        compare_each(scorer, fresh, |score, node| {
            guide.insert(score, node);
            if allowed.contains(node) {
                beam.insert(score, node);
            } else {
                through.push(node);
            }
        });
    }
    // Not all of these were expanded; the search may walk through them.
    let Scratch { visited, through, .. } = scratch;
    through.iter().for_each(|&node| visited.forget(node));
    Ok(compared)
}

/// Collects allowed nodes not met before: those that `node` links to, and those behind links that are not allowed, nearest first,
/// until [`ENOUGH`] were met.
fn gather(
    graph: &GraphView<'_>,
    scorer: &RowScorer<'_>,
    allowed: &Allowed,
    node: u32,
    Scratch { visited, fresh, through, .. }: &mut Scratch,
) -> Result<(), Fault> {
    through.clear();
    through.push(node);
    let (mut read, mut met) = (0, 0);
    while read < through.len() && met < ENOUGH {
        let via = through[read];
        read += 1;
        for link in graph.checked_links(via) {
            let link = link?;
            if allowed.contains(link) {
                met += 1;
                if visited.insert(link) {
                    scorer.prefetch_sketch(link);
                    fresh.push(link);
                }
            } else if through.len() < MOST_LISTS && visited.insert(link) {
                graph.prefetch_links(link, scorer.cpu());
                through.push(link);
            }
        }
    }
    // What was not read may be walked through from elsewhere.
    through[read..].iter().for_each(|&unread| visited.forget(unread));
    Ok(())
}
