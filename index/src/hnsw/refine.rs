//! One pass that widens the choice of links on level 0.
//!
//! hnsw_rs fills about half of the places and, when a list overflows, drops the farthest link whatever it is good for. The pass
//! looks for each node's neighbourhood again in the finished graph and prunes it with [`ALPHA`] (as DiskANN does): a link is
//! dropped only if a kept one is clearly nearer to its target. Lists fill up, long links survive, and a search needs a
//! narrower beam for the same recall, most of all for queries of the other modality.
//!
//! The graph is read as it was while the new lists are made, so the outcome does not depend on the number of threads.

use rayon::prelude::*;

use super::{
    build::{Built, RowDistance, RowQuery},
    params::Plan,
    search::descend,
    view::GraphView,
    visited::{Scratch, ScratchPool},
};
use crate::{StoreError, format::graph::NONE};

/// How much nearer a kept link must be to a candidate than the node is, on squared distances, to replace it. 1.2: DiskANN's.
const ALPHA: f32 = 1.2;
/// Beam width of the search for neighbours. 64: on 60,000 CLIP-like vectors 40 saved a twentieth of the build and cost 0.003 to
/// 0.009 of the recall of text queries.
const EF: usize = 64;
/// Lists of links that this search reads at most. 32: what the second half of the beam leads to is seldom kept. All 64 took 0.3 more of the
/// pass and found 0.001 to 0.002 more of pictures' and texts' answers at a beam of 24 or 64, which is what two builds differ by.
const LISTS: usize = 32;
/// Nodes between two looks at the cancel flag.
const STEP: usize = 4_096;

/// A node at a distance.
pub(super) type Near = (f32, u32);

/// Replaces the links of `nodes`; `report` is told how many are done.
pub(super) fn refine(
    built: &mut Built,
    distance: &RowDistance<'_>,
    nodes: &[u32],
    plan: &Plan,
    report: &dyn Fn(usize),
) -> Result<(), StoreError> {
    let scratch = ScratchPool::default();
    let view = built.view(distance.rows.cpu);
    let mut lists: Vec<Vec<u32>> = Vec::with_capacity(nodes.len());
    for step in nodes.chunks(STEP) {
        if plan.cancel.is_cancelled() {
            return Err(StoreError::Cancelled);
        }
        lists.par_extend(step.par_iter().map(|&node| {
            let own = RowQuery::new(distance, node);
            let mut near = scratch.with(|scratch| neighbours(built, &view, &own, scratch));
            prune(distance, &mut near, built.width, ALPHA)
        }));
        report(lists.len());
    }
    let backward = reverse(nodes, &lists, built.nodes());
    let both = |(&node, list): (&u32, &Vec<u32>)| join(distance, node, list, &backward[node as usize], built.width);
    let lists: Vec<Vec<u32>> = nodes.par_iter().zip(&lists).map(both).collect();
    for (&node, list) in nodes.iter().zip(&lists) {
        let places = &mut built.level0[node as usize * built.width..][..built.width];
        places.fill(NONE);
        places[..list.len()].copy_from_slice(list);
    }
    Ok(())
}

/// What a beam finds, and the present links, nearest first. The beam starts at the links, which are where the neighbours are,
/// and where a descent from the entry ends: a group that nothing else leads to finds its surroundings that way.
fn neighbours(built: &Built, view: &GraphView<'_>, own: &RowQuery<'_>, scratch: &mut Scratch) -> Vec<Near> {
    let node = own.node;
    let from_entry = descend(view, own, &mut scratch.fresh).ok();
    let links = |node: u32| built.links(node).iter().copied().take_while(|&link| link != NONE);
    scratch.start(EF, [node]);
    scratch.explore(own, links(node).chain(from_entry), (links, |node| own.ask_for(built.links(node))), LISTS);
    let mut near: Vec<Near> = scratch.beam.scored().map(|(score, other)| (-score, other)).collect();
    let missing: Vec<u32> = links(node).filter(|&link| !near.iter().any(|n| n.1 == link)).collect();
    near.extend(missing.into_iter().map(|link| (own.distance(link), link)));
    near.sort_unstable_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
    near
}

/// Nearest first, each once, without the node itself.
fn at_distance(distance: &RowDistance<'_>, node: u32, mut others: Vec<u32>) -> Vec<Near> {
    others.sort_unstable();
    others.dedup();
    let mut near: Vec<Near> = others.into_iter().filter(|&o| o != node).map(|o| (distance.between(node, o), o)).collect();
    near.sort_unstable_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
    near
}

/// Keeps at most `width` of them, each of which no kept one makes needless.
pub(super) fn prune(distance: &RowDistance<'_>, near: &mut Vec<Near>, width: usize, alpha: f32) -> Vec<u32> {
    let mut kept: Vec<u32> = Vec::with_capacity(width);
    for (to_node, candidate) in near.drain(..) {
        if kept.len() == width {
            break;
        }
        if kept.iter().all(|&k| alpha * distance.between(k, candidate) > to_node) {
            kept.push(candidate);
        }
    }
    kept
}

/// Who links to each node.
fn reverse(nodes: &[u32], lists: &[Vec<u32>], count: usize) -> Vec<Vec<u32>> {
    let mut backward: Vec<Vec<u32>> = vec![Vec::new(); count];
    for (&node, list) in nodes.iter().zip(lists) {
        for &link in list {
            backward[link as usize].push(node);
        }
    }
    backward
}

/// Both directions in one list, pruned only if they do not fit.
fn join(distance: &RowDistance<'_>, node: u32, forward: &[u32], backward: &[u32], width: usize) -> Vec<u32> {
    let mut near = at_distance(distance, node, [forward, backward].concat());
    if near.len() <= width {
        return near.into_iter().map(|(_, other)| other).collect();
    }
    prune(distance, &mut near, width, ALPHA)
}
