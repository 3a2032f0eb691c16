//! Finds nodes that no search can reach, and gives each a link from a near node that can be reached.
//!
//! hnsw_rs drops the farthest link of a full list, which in tight clusters (near-duplicate pictures) cuts whole groups off.
//! The audit walks level 0 from the entry and remembers by which link each node was reached first: these links form a tree.
//! A repair overwrites free or non-tree links only, so that it never cuts off what was reached before.

use std::collections::VecDeque;

use super::{
    build::Built,
    search::{SearchPlan, search},
    view::RowsView,
    visited::Scratch,
};
use crate::{Cancel, StoreError, format::graph::NONE, quantize::QuantizedQuery};

/// Beam width when looking for hosts of an orphan.
const HOST_EF: usize = 64;

/// Walk of level 0.
struct Walk {
    /// The node each node was reached from; the entry is its own. [`NONE`] means not reached.
    parent: Vec<u32>,
    queue: VecDeque<u32>,
}

impl Walk {
    fn new(nodes: usize) -> Self {
        Self { parent: vec![NONE; nodes], queue: VecDeque::new() }
    }

    fn reached(&self, node: u32) -> bool {
        self.parent[node as usize] != NONE
    }

    fn reach(&mut self, built: &Built, node: u32, from: u32) {
        self.parent[node as usize] = from;
        self.queue.push_back(node);
        while let Some(node) = self.queue.pop_front() {
            for &link in built.links(node) {
                if link != NONE && !self.reached(link) {
                    self.parent[link as usize] = node;
                    self.queue.push_back(link);
                }
            }
        }
    }

    /// A place in `host`'s list that can be overwritten: a free one, or else the last that the tree does not need.
    fn place(&self, built: &Built, host: u32) -> Option<usize> {
        let list = built.links(host);
        let free = list.iter().position(|&link| link == NONE);
        free.or_else(|| list.iter().rposition(|&link| self.parent[link as usize] != host))
    }
}

/// Links every node into the reach of the entry; returns how many were out of it.
pub(super) fn repair(built: &mut Built, rows: &RowsView<'_>, cancel: &Cancel) -> Result<u64, StoreError> {
    let mut walk = Walk::new(built.nodes());
    walk.reach(built, built.entry, built.entry);
    let orphans: Vec<u32> = (0..built.nodes() as u32).filter(|&node| !walk.reached(node)).collect();
    let mut scratch = Scratch::default();
    let mut latest = built.entry;
    for &orphan in &orphans {
        if cancel.is_cancelled() {
            return Err(StoreError::Cancelled);
        }
        if walk.reached(orphan) {
            continue;
        }
        let host = find_host(built, rows, &walk, orphan, (latest, &mut scratch));
        attach(built, &mut walk, host, orphan);
        latest = orphan;
    }
    Ok(orphans.len() as u64)
}

/// A near node with a place for the link, and the place. When every near node is full (thousands of equal vectors), the
/// orphan attached last takes it: its list is short, so such orphans form chains.
fn find_host(built: &Built, rows: &RowsView<'_>, walk: &Walk, orphan: u32, rest: (u32, &mut Scratch)) -> (u32, usize) {
    let (latest, scratch) = rest;
    let near = candidates(built, rows, orphan, scratch);
    let found = near.into_iter().find_map(|host| Some((host, walk.place(built, host)?)));
    let found = found.or_else(|| Some((latest, walk.place(built, latest)?)));
    // A tree over n nodes uses n - 1 links, and there are at least 8 n places.
    let any = || (0..built.nodes() as u32).filter(|&n| walk.reached(n)).find_map(|n| Some((n, walk.place(built, n)?)));
    found.or_else(any).unwrap_or((built.entry, built.width - 1))
}

/// Reachable nodes near the orphan, nearest first. A search follows links from the entry, so all it finds can be reached.
fn candidates(built: &Built, rows: &RowsView<'_>, orphan: u32, scratch: &mut Scratch) -> Vec<u32> {
    let query = as_query(rows, orphan);
    let cancel = Cancel::default();
    let plan = SearchPlan::new(HOST_EF, &cancel);
    let view = built.view(rows.cpu);
    // Upper levels may lead the descent to a node that level 0 does not reach; level 0 alone keeps the promise above.
    let level0_only = super::view::GraphView { upper: Vec::new(), ..view };
    match search(&level0_only, rows, &query, plan, scratch) {
        Ok(_) => scratch.beam.nodes().collect(),
        Err(_) => Vec::new(),
    }
}

/// A stored row as a query.
fn as_query(rows: &RowsView<'_>, node: u32) -> QuantizedQuery {
    let values: Vec<f32> = rows.row(node).iter().map(|&b| f32::from(b) - f32::from(crate::format::vectors::ZERO)).collect();
    QuantizedQuery::new(&values, values.len())
}

fn attach(built: &mut Built, walk: &mut Walk, (host, place): (u32, usize), orphan: u32) {
    let width = built.width;
    built.level0[host as usize * width + place] = orphan;
    walk.reach(built, orphan, host);
    // The way back, so that a search that lands on the orphan gets away again.
    if !built.links(orphan).contains(&host)
        && let Some(back) = walk.place(built, orphan)
    {
        built.level0[orphan as usize * width + back] = host;
    }
}
