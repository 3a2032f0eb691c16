//! Which nodes a search has seen, and the pool of such memory.

use std::sync::{Mutex, PoisonError};

use super::beam::Beam;
use crate::format::graph::NONE;

/// Nodes seen by one search, in a table of its own size: it stays in the nearest cache, where an array of one mark per node
/// would not.
#[derive(Debug, Default)]
pub(crate) struct Visited {
    /// [`NONE`] or a node; a power of two in length, at most half full.
    table: Vec<u32>,
    seen: usize,
    /// Takes a hash to a place.
    shift: u32,
}

/// Places to begin with, as a power of two, at least. 2,048: a beam of 24 sees about 700 nodes.
const PLACES: u32 = 11;
/// Places for each slot of a wider beam, so that the table seldom grows during a search.
const PLACES_PER_SLOT: usize = 40;
/// Most places to begin with, as a power of two. 65,536: 256 KiB, which takes some microseconds to clear.
const MOST_PLACES: u32 = 16;

/// The place of a node that was forgotten: others may lie behind it. No node has this number.
const GONE: u32 = NONE - 1;
/// Spreads numbers: 2^32 over the golden ratio.
const SPREAD: u32 = 0x9E37_79B1;

impl Visited {
    /// Forgets everything; a beam of `ef` follows.
    pub(crate) fn start(&mut self, ef: usize) {
        self.resize(ef.saturating_mul(PLACES_PER_SLOT).next_power_of_two().ilog2().clamp(PLACES, MOST_PLACES));
    }

    /// Marks a node; true when it was new.
    pub(crate) fn insert(&mut self, node: u32) -> bool {
        let mask = self.table.len() - 1;
        let mut place = (node.wrapping_mul(SPREAD) >> self.shift) as usize;
        loop {
            let found = self.table[place & mask];
            if found == node {
                return false;
            }
            if found == NONE {
                break;
            }
            place += 1;
        }
        self.table[place & mask] = node;
        self.seen += 1;
        if self.seen * 2 > self.table.len() {
            self.grow();
        }
        true
    }

    fn resize(&mut self, places: u32) {
        self.table.clear();
        self.table.resize(1 << places, NONE);
        self.shift = u32::BITS - places;
        self.seen = 0;
    }

    #[cold]
    fn grow(&mut self) {
        let places = u32::BITS - self.shift + 1;
        let seen: Vec<u32> = self.table.iter().copied().filter(|&node| node < GONE).collect();
        self.resize(places);
        for node in seen {
            self.insert(node);
        }
    }

    /// Takes a node's mark back.
    pub(super) fn forget(&mut self, node: u32) {
        let mask = self.table.len() - 1;
        let mut place = (node.wrapping_mul(SPREAD) >> self.shift) as usize;
        while self.table[place & mask] != NONE {
            if self.table[place & mask] == node {
                self.table[place & mask] = GONE;
                return;
            }
            place += 1;
        }
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
    /// Ready for a beam of `ef`; `seen` are not to be found.
    pub(crate) fn start(&mut self, ef: usize, seen: impl IntoIterator<Item = u32>) {
        self.visited.start(ef);
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
        let mut scratch = self.take();
        let out = search(&mut scratch);
        self.give(scratch);
        out
    }

    pub(super) fn take(&self) -> Scratch {
        // A panic elsewhere cannot leave the list half changed, so a poisoned lock is used as it is.
        self.0.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or_default()
    }

    pub(super) fn give(&self, scratch: Scratch) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(scratch);
    }
}
