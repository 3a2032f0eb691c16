//! Rows to links, by our own inserter: the HNSW algorithm over 7-bit rows that stay where they are.
//!
//! Nodes with upper levels go in first, so that the upper levels are finished before the great mass of nodes comes, and so that
//! a descent never ends on a node that level 0 does not have yet. Links are atomics in fixed places: searches read them
//! without a lock while other threads insert; who changes a list holds its node's lock. A search may thus see half of a
//! changed list, which costs it a link and nothing else.
//!
//! With one thread the same rows and seed give the same links; with several they depend on who comes first.

use std::sync::{
    Mutex, PoisonError,
    atomic::{AtomicU32, Ordering},
};

use rayon::prelude::*;

use super::{
    build::{Built, BuiltLevel, RowDistance, RowQuery, STEP, upper_levels},
    params::{Plan, Threads},
    refine::{Near, prune},
    visited::{Scratch, ScratchPool},
    walk::{Scorer, nearer},
};
use crate::{
    StoreError,
    format::graph::{GraphFacts, MAX_LEVELS, NONE},
};

/// Nodes inserted one by one before threads come in: threads that meet in an almost empty graph do not see each other.
const SEQUENTIAL: usize = 500;
/// What a list that overflows is pruned with. 1: the graph stays sparse and insertion fast; the refinement widens it.
const ALPHA: f32 = 1.0;

/// Links of one level, in fixed places.
struct Layer {
    width: usize,
    links: Vec<AtomicU32>,
}

impl Layer {
    fn new(nodes: usize, width: usize) -> Self {
        Self { width, links: (0..nodes * width).map(|_| AtomicU32::new(NONE)).collect() }
    }

    fn slots(&self) -> usize {
        self.links.len() / self.width
    }

    fn places(&self, slot: usize) -> &[AtomicU32] {
        &self.links[slot * self.width..][..self.width]
    }

    fn links(&self, slot: usize) -> impl Iterator<Item = u32> + '_ {
        self.places(slot).iter().map(|link| link.load(Ordering::Relaxed)).take_while(|&link| link != NONE)
    }

    fn write(&self, slot: usize, links: &[u32]) {
        let rest = std::iter::repeat(NONE);
        for (place, link) in self.places(slot).iter().zip(links.iter().copied().chain(rest)) {
            place.store(link, Ordering::Relaxed);
        }
    }
}

/// A graph under construction.
struct Growing<'a> {
    distance: &'a RowDistance<'a>,
    m: usize,
    ef: usize,
    /// Nodes by falling top level, else ascending. Those of a level are a prefix.
    order: Vec<u32>,
    /// Place in `order` of the nodes that have upper levels; [`NONE`] for the others.
    rank: Vec<u32>,
    /// Level 0 by node, upper levels by rank.
    layers: Vec<Layer>,
    locks: Vec<Mutex<()>>,
    scratch: ScratchPool,
}

/// Builds the graph of `ids` among `nodes` rows; `report` is told how many are in.
pub(super) fn insert_all(
    distance: &RowDistance<'_>,
    ids: &[u32],
    nodes: usize,
    plan: &Plan,
    report: &dyn Fn(usize),
) -> Result<Built, StoreError> {
    let growing = Growing::new(distance, ids, nodes, plan);
    let (tall, flat) = growing.order.split_at(growing.tall());
    let (first, tall) = tall.split_at(tall.len().min(SEQUENTIAL));
    let mut done = 0;
    for (alone, step) in
        [(true, first)].into_iter().chain([tall, flat].into_iter().flat_map(|part| part.chunks(STEP)).map(|step| (false, step)))
    {
        if plan.cancel.is_cancelled() {
            return Err(StoreError::Cancelled);
        }
        let insert = |&node: &u32| growing.scratch.with(|scratch| growing.insert(node, scratch));
        if alone || plan.params.threads == Threads::One {
            step.iter().for_each(insert);
        } else {
            step.par_iter().for_each(insert);
        }
        done += step.len();
        report(done);
    }
    Ok(growing.finish(nodes, plan))
}

impl<'a> Growing<'a> {
    fn new(distance: &'a RowDistance<'a>, ids: &[u32], nodes: usize, plan: &Plan) -> Self {
        let m = plan.params.m;
        let mut levelled: Vec<(usize, u32)> = ids.iter().map(|&id| (level(id, plan.params.seed, m), id)).collect();
        levelled.sort_unstable_by(|a, b| b.0.cmp(&a.0).then(a.1.cmp(&b.1)));
        let top = levelled.first().map_or(0, |(level, _)| *level);
        let counts = (1..=top).map(|level| levelled.partition_point(|l| l.0 >= level));
        let layers: Vec<Layer> = [Layer::new(nodes, m * 2)].into_iter().chain(counts.map(|count| Layer::new(count, m))).collect();
        let mut rank = vec![NONE; nodes];
        let order: Vec<u32> = levelled.into_iter().map(|(_, id)| id).collect();
        let tall = layers.get(1).map_or(0, Layer::slots);
        order.iter().take(tall).zip(0..).for_each(|(&node, place)| rank[node as usize] = place);
        let locks = (0..nodes).map(|_| Mutex::new(())).collect();
        Self { distance, m, ef: plan.params.ef_construction, order, rank, layers, locks, scratch: ScratchPool::default() }
    }

    /// How many nodes have upper levels.
    fn tall(&self) -> usize {
        self.layers.get(1).map_or(0, Layer::slots)
    }

    fn top_level(&self, node: u32) -> usize {
        let rank = self.rank[node as usize] as usize;
        self.layers.iter().skip(1).take_while(|layer| rank < layer.slots()).count()
    }

    fn slot(&self, level: usize, node: u32) -> usize {
        if level == 0 { node as usize } else { self.rank[node as usize] as usize }
    }

    fn links(&self, level: usize, node: u32) -> impl Iterator<Item = u32> + '_ {
        self.layers[level].links(self.slot(level, node))
    }

    fn insert(&self, node: u32, scratch: &mut Scratch) {
        let mut start = self.order[0];
        if node == start {
            return;
        }
        let own = RowQuery::new(self.distance, node);
        let top = self.top_level(node);
        for level in (top + 1..self.layers.len()).rev() {
            start = self.walk(&own, start, level, &mut scratch.fresh);
        }
        let mut chosen: Vec<Vec<u32>> = vec![Vec::new(); top + 1];
        for level in (0..=top).rev() {
            let mut near = self.near(&own, start, level, scratch);
            start = near.first().map_or(start, |nearest| nearest.1);
            chosen[level] = prune(self.distance, &mut near, self.m, ALPHA);
        }
        // From level 0 up: who comes down to this node must find it linked on the level below.
        for (level, links) in chosen.iter().enumerate() {
            self.layers[level].write(self.slot(level, node), links);
            links.iter().for_each(|&host| self.link_back(level, host, node));
        }
    }

    /// To the nearest node that can be reached by links that each lead nearer.
    fn walk(&self, own: &RowQuery<'_>, start: u32, level: usize, nodes: &mut Vec<u32>) -> u32 {
        let (mut node, mut best) = (start, own.score(start));
        loop {
            nodes.clear();
            nodes.extend(self.links(level, node));
            match nearer(own, nodes, &mut best) {
                Some(nearest) => node = nearest,
                None => return node,
            }
        }
    }

    /// What a beam over one level finds, nearest first.
    fn near(&self, own: &RowQuery<'_>, start: u32, level: usize, scratch: &mut Scratch) -> Vec<Near> {
        scratch.start(self.ef, [own.node]);
        let ask = |node| own.ask_for(self.layers[level].places(self.slot(level, node)));
        scratch.explore(own, [start].into_iter(), (|node| self.links(level, node), ask), usize::MAX);
        scratch.beam.scored().map(|(score, other)| (-score, other)).collect()
    }

    fn link_back(&self, level: usize, host: u32, node: u32) {
        let (layer, slot) = (&self.layers[level], self.slot(level, host));
        // What the lock guards is in place at every moment, so a poisoned lock is used as it is.
        let _guard = self.locks[host as usize].lock().unwrap_or_else(PoisonError::into_inner);
        let linked: Vec<u32> = layer.links(slot).collect();
        if linked.contains(&node) {
            return;
        }
        if let Some(free) = layer.places(slot).get(linked.len()) {
            free.store(node, Ordering::Relaxed);
            return;
        }
        let others = linked.into_iter().chain([node]);
        let mut near: Vec<Near> = others.map(|other| (self.distance.between(host, other), other)).collect();
        near.sort_unstable_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        layer.write(slot, &prune(self.distance, &mut near, layer.width, ALPHA));
    }

    fn finish(self, nodes: usize, plan: &Plan) -> Built {
        let entry = self.order[0];
        let mut upper = Vec::new();
        for (layer, level) in self.layers.iter().skip(1).zip(1u8..) {
            upper.extend((0..layer.slots()).map(|rank| (level, self.order[rank], layer.links(rank).collect::<Vec<u32>>())));
        }
        let upper: Vec<BuiltLevel> = upper_levels(upper, self.m);
        let level0: Vec<u32> = self.layers.into_iter().take(1).flat_map(|l| l.links).map(AtomicU32::into_inner).collect();
        debug_assert_eq!(level0.len(), nodes * self.m * 2);
        let facts = GraphFacts { m: self.m as u32, ef_construction: plan.params.ef_construction as u32, ..GraphFacts::default() };
        Built { entry, width: self.m * 2, level0, upper, facts, sketches: None }
    }
}

/// Top level of a node: each level has one in `m` of the nodes of the level below. Whole numbers only, so that every machine
/// gives the same.
fn level(node: u32, seed: u64, m: usize) -> usize {
    let mut draw = seed.wrapping_add((u64::from(node) + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15));
    // The finishing steps of splitmix64.
    draw = (draw ^ (draw >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    draw = (draw ^ (draw >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    draw ^= draw >> 31;
    let mut level = 0;
    let mut below = u64::MAX / m as u64;
    while draw < below && level + 1 < MAX_LEVELS {
        level += 1;
        below /= m as u64;
    }
    level
}
