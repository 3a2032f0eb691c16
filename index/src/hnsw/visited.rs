//! Which nodes a search has seen, and the pool of such memory.

use std::sync::{Mutex, PoisonError};

use super::beam::Beam;

/// Marks by epoch, so that a new search clears nothing.
#[derive(Debug, Default)]
pub(crate) struct Visited {
    marks: Vec<u16>,
    epoch: u16,
}

impl Visited {
    /// Forgets everything; room for `nodes`.
    pub(crate) fn start(&mut self, nodes: usize) {
        if self.marks.len() < nodes {
            self.marks.resize(nodes, 0);
        }
        self.epoch = self.epoch.wrapping_add(1);
        if self.epoch == 0 {
            self.marks.fill(0);
            self.epoch = 1;
        }
    }

    /// Marks a node; true when it was new.
    pub(crate) fn insert(&mut self, node: u32) -> bool {
        let mark = &mut self.marks[node as usize];
        let new = *mark != self.epoch;
        *mark = self.epoch;
        new
    }

    /// Takes a node's mark back.
    pub(super) fn forget(&mut self, node: u32) {
        // No search has this number.
        self.marks[node as usize] = 0;
    }
}

/// Memory of one search.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    pub(crate) visited: Visited,
    pub(crate) beam: Beam,
    pub(crate) fresh: Vec<u32>,
    /// Nodes whose links are followed although they may not be found.
    pub(super) through: Vec<u32>,
    /// Nodes near the query, whether they may be found or not.
    pub(super) guide: Beam,
}

impl Scratch {
    /// Ready for a beam of `ef` among `nodes`; `seen` are not to be found.
    pub(crate) fn start(&mut self, nodes: usize, ef: usize, seen: impl IntoIterator<Item = u32>) {
        self.visited.start(nodes);
        self.beam.start(ef);
        seen.into_iter().for_each(|node| {
            self.visited.insert(node);
        });
    }
}

/// Scratch memory, one per search under way, kept for the next.
#[derive(Debug, Default)]
pub(crate) struct ScratchPool(Mutex<Vec<Scratch>>);

impl ScratchPool {
    /// Runs `search` with scratch memory of its own.
    pub(crate) fn with<T>(&self, search: impl FnOnce(&mut Scratch) -> T) -> T {
        // A panic elsewhere cannot leave the list half changed, so a poisoned lock is used as it is.
        let taken = self.0.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut scratch = taken.unwrap_or_default();
        let out = search(&mut scratch);
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(scratch);
        out
    }
}
