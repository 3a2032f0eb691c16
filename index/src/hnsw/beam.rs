//! The best `ef` nodes so far, in one sorted array: insertion moves memory, which is cheaper here than two heaps.

/// Top bit of a node: its links were followed.
const EXPANDED: u32 = 1 << 31;

#[derive(Clone, Copy, Debug)]
struct Slot {
    score: f32,
    node: u32,
}

/// Sorted by score, best first; among equals the earlier found first.
#[derive(Debug, Default)]
pub(crate) struct Beam {
    slots: Vec<Slot>,
    width: usize,
    /// No slot before this one is left to expand.
    next: usize,
}

impl Beam {
    pub(crate) fn start(&mut self, width: usize) {
        self.slots.clear();
        self.slots.reserve(width + 1);
        self.width = width;
        self.next = 0;
    }

    /// Whether a node of this score would be kept.
    pub(crate) fn takes(&self, score: f32) -> bool {
        self.slots.len() < self.width || self.slots.last().is_none_or(|worst| score > worst.score)
    }

    /// The score that a node must exceed to be kept.
    pub(crate) fn floor(&self) -> f32 {
        if self.slots.len() < self.width {
            return f32::NEG_INFINITY;
        }
        self.slots.last().map_or(f32::NEG_INFINITY, |worst| worst.score)
    }

    pub(crate) fn insert(&mut self, score: f32, node: u32) {
        if !self.takes(score) {
            return;
        }
        if self.slots.len() == self.width {
            self.slots.pop();
        }
        let place = self.slots.partition_point(|slot| slot.score >= score);
        self.slots.insert(place, Slot { score, node });
        self.next = self.next.min(place);
    }

    /// The best node whose links were not followed yet; it counts as followed from now on.
    pub(crate) fn expand(&mut self) -> Option<u32> {
        while let Some(slot) = self.slots.get_mut(self.next) {
            self.next += 1;
            if slot.node & EXPANDED == 0 {
                slot.node |= EXPANDED;
                return Some(slot.node & !EXPANDED);
            }
        }
        None
    }

    /// Best first.
    pub(crate) fn nodes(&self) -> impl Iterator<Item = u32> + '_ {
        self.slots.iter().map(|slot| slot.node & !EXPANDED)
    }

    /// Scores and nodes, best first.
    pub(crate) fn scored(&self) -> impl Iterator<Item = (f32, u32)> + '_ {
        self.slots.iter().map(|slot| (slot.score, slot.node & !EXPANDED))
    }

    pub(crate) fn len(&self) -> usize {
        self.slots.len()
    }

    /// The node that will be expanded next, if nothing better is found.
    pub(crate) fn peek(&self) -> Option<u32> {
        let slots = self.slots.get(self.next..)?;
        slots.iter().find(|slot| slot.node & EXPANDED == 0).map(|slot| slot.node)
    }
}
