//! Greedy descent through the upper levels, then a beam over level 0.
//!
//! A search compares every node at most once and stops at its budget, so that no damage to a graph can make it hang.

use super::{
    beam::Limit,
    view::{Fault, GraphView, Level, RowScorer, RowsView},
    visited::{Scratch, ScratchPool},
    walk::{Scorer, nearer},
};
use crate::{Cancel, quantize::QuantizedQuery};

/// How far to go.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SearchPlan<'a> {
    /// Beam width.
    pub(crate) ef: usize,
    /// Most nodes to compare.
    pub(crate) budget: usize,
    /// A node that is not walked through and not found.
    pub(crate) without: Option<u32>,
    /// What need not be looked at.
    pub(crate) limit: Limit,
    pub(crate) cancel: &'a Cancel,
}

impl<'a> SearchPlan<'a> {
    /// A beam of `ef` over everything.
    pub(crate) fn new(ef: usize, cancel: &'a Cancel) -> Self {
        Self { ef, budget: usize::MAX, without: None, limit: Limit::default(), cancel }
    }
}

/// How a search ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Nothing nearer was left to look at.
    Done,
    /// The budget was spent.
    Budget,
    /// The caller raised its flag.
    Cancelled,
}

/// A search of one query under way. Each call of [`Search::advance`] ends where the next must wait for memory.
pub(crate) struct Search<'a> {
    graph: &'a GraphView<'a>,
    scorer: RowScorer<'a>,
    plan: SearchPlan<'a>,
    part: Part,
}

/// What comes next.
#[derive(Clone, Copy, Debug)]
enum Part {
    Descend,
    Gather,
    Sift,
    Compare,
}

impl<'a> Search<'a> {
    pub(crate) fn new(graph: &'a GraphView<'a>, rows: &RowsView<'a>, query: &'a QuantizedQuery, plan: SearchPlan<'a>) -> Self {
        Self { graph, scorer: RowScorer::new(graph, rows, query), plan, part: Part::Descend }
    }

    /// One part further; the outcome when that was the last. The nodes found are in `scratch.beam`, best first.
    pub(crate) fn advance(&mut self, scratch: &mut Scratch) -> Result<Option<Outcome>, Fault> {
        self.part = match self.part {
            Part::Descend => {
                let start = descend(self.graph, &self.scorer, &mut scratch.fresh)?;
                scratch.start(self.plan.ef, [start].into_iter().chain(self.plan.without));
                scratch.beam.limit(self.plan.limit);
                scratch.beam.insert(self.scorer.score(start), start);
                Part::Gather
            }
            Part::Gather => {
                let Some(node) = scratch.beam.expand() else { return Ok(Some(Outcome::Done)) };
                if self.plan.cancel.is_cancelled() {
                    return Ok(Some(Outcome::Cancelled));
                }
                scratch.gather(&self.scorer, self.graph.checked_links(node))?;
                if scratch.fresh.len() > self.plan.budget {
                    return Ok(Some(Outcome::Budget));
                }
                self.plan.budget -= scratch.fresh.len();
                Part::Sift
            }
            Part::Sift => {
                scratch.sift(&self.scorer);
                Part::Compare
            }
            Part::Compare => {
                scratch.compare(&self.scorer);
                if let Some(next) = scratch.beam.peek() {
                    self.graph.prefetch_links(next, self.scorer.cpu());
                }
                Part::Gather
            }
        };
        Ok(None)
    }
}

/// Searches that one thread runs in turns. 4: on 100,000 rows 5 to 30 % faster than one after the other; 8 gained nothing more.
const TURNS: usize = 4;

/// Leaves the found nodes in `scratch.beam`, best first.
pub(crate) fn search(
    graph: &GraphView<'_>,
    rows: &RowsView<'_>,
    query: &QuantizedQuery,
    plan: SearchPlan<'_>,
    scratch: &mut Scratch,
) -> Result<Outcome, Fault> {
    let mut search = Search::new(graph, rows, query, plan);
    loop {
        if let Some(outcome) = search.advance(scratch)? {
            return Ok(outcome);
        }
    }
}

/// Runs the searches of `queries`, a few at a time in turns, so that one computes while the rows of the others come from memory.
/// `done` gets the place of a query, how its search ended, and the beam.
pub(crate) fn search_many<'a, E: From<Fault>>(
    graph: &'a GraphView<'a>,
    rows: &RowsView<'a>,
    queries: impl Iterator<Item = (&'a QuantizedQuery, SearchPlan<'a>)>,
    pool: &ScratchPool,
    mut done: impl FnMut(usize, Outcome, &Scratch) -> Result<(), E>,
) -> Result<(), E> {
    let mut waiting = queries.enumerate().map(|(place, (query, plan))| (place, Search::new(graph, rows, query, plan)));
    let mut running: Vec<_> = waiting.by_ref().take(TURNS).map(|(place, search)| (place, search, pool.take())).collect();
    while !running.is_empty() {
        let mut lane = 0;
        while let Some((place, search, scratch)) = running.get_mut(lane) {
            if let Some(outcome) = search.advance(scratch)? {
                done(*place, outcome, scratch)?;
                match waiting.next() {
                    Some(next) => (*place, *search) = next,
                    None => pool.give(running.swap_remove(lane).2),
                }
            } else {
                lane += 1;
            }
        }
    }
    Ok(())
}

/// At each upper level, walks to the nearest node as long as a link leads nearer. `nodes` is working memory.
pub(super) fn descend(graph: &GraphView<'_>, scorer: &impl Scorer, nodes: &mut Vec<u32>) -> Result<u32, Fault> {
    let mut node = graph.entry;
    let mut best = scorer.score(node);
    for level in graph.upper.iter().rev() {
        // The node came down from the level above, which is a subset of this one. In a damaged graph it may be missing;
        // then this level is of no use and the next is tried.
        let Ok(mut position) = level.nodes.binary_search(&node) else { continue };
        while let Some(nearer) = nearest_link(graph, level, (scorer, nodes), (position, &mut best))? {
            position = nearer;
        }
        node = graph.upper_node(level, position)?;
    }
    Ok(node)
}

/// The position of the nearest node that `position` links to, when it is nearer than `best`.
fn nearest_link(
    graph: &GraphView<'_>,
    level: &Level<'_>,
    (scorer, nodes): (&impl Scorer, &mut Vec<u32>),
    (position, best): (usize, &mut f32),
) -> Result<Option<usize>, Fault> {
    nodes.clear();
    for link in graph.upper_links(level, position) {
        nodes.push(graph.upper_node(level, link?)?);
    }
    let Some(nearest) = nearer(scorer, nodes, best) else { return Ok(None) };
    Ok(graph.upper_links(level, position).flatten().find(|&link| level.nodes[link] == nearest))
}
