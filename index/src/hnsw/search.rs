//! Greedy descent through the upper levels, then a beam over level 0.
//!
//! A search compares every node at most once and stops at its budget, so that no damage to a graph can make it hang.

use super::{
    beam::compare,
    view::{Fault, GraphView, RowsView},
    visited::Scratch,
};
use crate::{Cancel, format::graph::NONE, quantize::QuantizedQuery};

/// How far to go.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SearchPlan<'a> {
    /// Beam width.
    pub(crate) ef: usize,
    /// Most nodes to compare.
    pub(crate) budget: usize,
    pub(crate) cancel: &'a Cancel,
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

/// Leaves the found nodes in `scratch.beam`, best first.
pub(crate) fn search(
    graph: &GraphView<'_>,
    rows: &RowsView<'_>,
    query: &QuantizedQuery,
    plan: SearchPlan<'_>,
    scratch: &mut Scratch,
) -> Result<Outcome, Fault> {
    let start = descend(graph, rows, query)?;
    let Scratch { visited, beam, fresh, .. } = scratch;
    visited.start(graph.nodes);
    beam.start(plan.ef);
    visited.insert(start);
    beam.insert(rows.score(query, start), start);
    let mut budget = plan.budget;
    while let Some(node) = beam.expand() {
        if plan.cancel.is_cancelled() {
            return Ok(Outcome::Cancelled);
        }
        fresh.clear();
        for (place, &link) in graph.links(node).iter().enumerate() {
            if link == NONE {
                break;
            }
            graph.check(node, place, link)?;
            if visited.insert(link) {
                fresh.push(link);
            }
        }
        if fresh.len() > budget {
            return Ok(Outcome::Budget);
        }
        budget -= fresh.len();
        compare(rows, fresh, |node| beam.insert(rows.score(query, node), node));
        if let Some(next) = beam.peek() {
            rows.cpu.prefetch(bytemuck::cast_slice(graph.links(next)));
        }
    }
    Ok(Outcome::Done)
}

/// At each upper level, walks to the nearest node as long as a link leads nearer.
pub(super) fn descend(graph: &GraphView<'_>, rows: &RowsView<'_>, query: &QuantizedQuery) -> Result<u32, Fault> {
    let mut node = graph.entry;
    let mut best = rows.score(query, node);
    for level in graph.upper.iter().rev() {
        // The node came down from the level above, which is a subset of this one. In a damaged graph it may be missing;
        // then this level is of no use and the next is tried.
        let Ok(mut position) = level.nodes.binary_search(&node) else { continue };
        loop {
            let before = position;
            for link in graph.upper_links(level, before) {
                let link = link?;
                let score = rows.score(query, graph.upper_node(level, link)?);
                if score > best {
                    (best, position) = (score, link);
                }
            }
            if position == before {
                break;
            }
        }
        node = graph.upper_node(level, position)?;
    }
    Ok(node)
}
