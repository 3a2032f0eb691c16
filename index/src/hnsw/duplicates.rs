//! Equal rows: one of each kind goes into the graph, the others hang below it in a tree.
//!
//! Why: a picture that occurs ten thousand times ("image not available") fills every candidate list of its copies with copies,
//! the choice of diverse links then keeps one of them, and a search that lands among them does not get out again. Measured
//! on 2,000 vectors plus 10,000 copies of one: only 114 of 200 vectors were found by themselves.

use std::hash::{DefaultHasher, Hash, Hasher};

use super::{build::Built, view::RowsView};
use crate::format::graph::NONE;

/// Children of a copy; with its way up that leaves most of its places free for the audit.
const FAN: usize = 8;

/// Nodes by equal rows.
pub(super) struct Kinds {
    /// The first node of each kind, ascending: what is inserted.
    pub(super) first: Vec<u32>,
    /// The kinds that have copies: the first node, then the others, ascending.
    copies: Vec<Vec<u32>>,
}

impl Kinds {
    pub(super) fn of(rows: &RowsView<'_>, nodes: usize) -> Self {
        let mut hashed: Vec<(u64, u32)> = (0..nodes as u32).map(|node| (hash(rows, node), node)).collect();
        hashed.sort_unstable();
        let mut kinds = Self { first: Vec::with_capacity(nodes), copies: Vec::new() };
        for same_hash in hashed.chunk_by(|a, b| a.0 == b.0) {
            kinds.add(rows, same_hash);
        }
        kinds.first.sort_unstable();
        kinds.copies.sort_unstable();
        kinds
    }

    /// Nodes of one hash: equal to the first, but for collisions, which count as kinds of their own.
    fn add(&mut self, rows: &RowsView<'_>, same_hash: &[(u64, u32)]) {
        let first = same_hash[0].1;
        let (copies, others): (Vec<u32>, Vec<u32>) =
            same_hash.iter().map(|(_, node)| *node).partition(|&node| key(rows, node) == key(rows, first));
        self.first.push(first);
        self.first.extend(others);
        if copies.len() > 1 {
            self.copies.push(copies);
        }
    }

    /// Links the copies; returns how many.
    pub(super) fn attach(&self, built: &mut Built) -> u64 {
        for kind in &self.copies {
            link_first_copy(built, kind[0], kind[1]);
            for (i, &copy) in kind.iter().enumerate().skip(1) {
                // Places in `kind` as a heap: 0 is the first node, whose only child is 1; below that each has FAN children.
                let parent = if i == 1 { 0 } else { (i - 2) / FAN + 1 };
                let start = (i - 1) * FAN + 2;
                let children = kind.iter().skip(start).take(FAN);
                let links = [kind[parent]].into_iter().chain(children.copied());
                for (place, link) in built.level0[copy as usize * built.width..][..built.width].iter_mut().zip(links) {
                    *place = link;
                }
            }
        }
        self.copies.iter().map(|kind| kind.len() as u64 - 1).sum()
    }
}

/// In a free place, or else in the place of the farthest link.
fn link_first_copy(built: &mut Built, first: u32, copy: u32) {
    let list = &mut built.level0[first as usize * built.width..][..built.width];
    let place = list.iter().position(|&link| link == NONE).unwrap_or(list.len() - 1);
    list[place] = copy;
}

fn key<'a>(rows: &RowsView<'a>, node: u32) -> (&'a [u8], u32) {
    (rows.row(node), rows.scales[node as usize].to_bits())
}

fn hash(rows: &RowsView<'_>, node: u32) -> u64 {
    let mut hasher = DefaultHasher::new();
    key(rows, node).hash(&mut hasher);
    hasher.finish()
}
