//! Which nodes a search has seen, and the pool of such memory.

use std::sync::{Mutex, PoisonError};

use super::beam::Beam;

/// Nodes seen by one search: one bit each. Near rows have near numbers, so that what a search marks lies in few cache lines, and marking
/// takes no branch that depends on what is there.
#[derive(Debug, Default)]
pub(crate) struct Visited {
    bits: Vec<u64>,
    /// Words that are not zero, some more than once: what the next search clears.
    marked: Vec<u32>,
}

impl Visited {
    /// Forgets everything.
    pub(crate) fn start(&mut self) {
        if self.marked.len() > self.bits.len() {
            self.bits.fill(0);
        } else {
            self.marked.iter().for_each(|&word| self.bits[word as usize] = 0);
        }
        self.marked.clear();
    }

    /// Marks a node; true when it was new.
    #[inline]
    pub(crate) fn insert(&mut self, node: u32) -> bool {
        let place = (node / u64::BITS) as usize;
        if place >= self.bits.len() {
            self.grow(place);
        }
        let word = &mut self.bits[place];
        let new = *word >> (node % u64::BITS) & 1 == 0;
        *word |= 1 << (node % u64::BITS);
        push_if(&mut self.marked, place as u32, new);
        new
    }

    #[cold]
    fn grow(&mut self, place: usize) {
        self.bits.resize((place + 1).next_power_of_two(), 0);
    }

    /// Takes a node's mark back.
    pub(super) fn forget(&mut self, node: u32) {
        if let Some(word) = self.bits.get_mut((node / u64::BITS) as usize) {
            *word &= !(1 << (node % u64::BITS));
        }
    }
}

/// Pushes without a branch on `keep`, which no processor could foretell here.
#[inline]
pub(super) fn push_if(into: &mut Vec<u32>, value: u32, keep: bool) {
    let before = into.len();
    into.push(value);
    into.truncate(before + usize::from(keep));
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
        self.visited.start();
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
