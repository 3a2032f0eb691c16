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
    limit: Limit,
}

/// How far a search goes that knows what was found elsewhere: nodes that score no more than `bound` are of no use, but for the best `least`,
/// which lead to others.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Limit {
    pub(crate) bound: f32,
    pub(crate) least: usize,
}

/// Nothing is known.
impl Default for Limit {
    fn default() -> Self {
        Self { bound: f32::NEG_INFINITY, least: 1 }
    }
}

impl Beam {
    pub(crate) fn start(&mut self, width: usize) {
        self.slots.clear();
        self.slots.reserve(width + 1);
        self.width = width;
        self.next = 0;
        self.limit = Limit::default();
    }

    /// Goes no further than this; `least` is at least 1.
    pub(crate) fn limit(&mut self, limit: Limit) {
        self.limit = limit;
    }

    /// The score that a node must exceed to be kept; minus infinity while every node is.
    pub(crate) fn floor(&self) -> f32 {
        let full = if self.slots.len() < self.width { None } else { self.slots.last() };
        let full = full.map_or(f32::NEG_INFINITY, |worst| worst.score);
        let led = self.slots.get(self.limit.least - 1).map_or(f32::NEG_INFINITY, |slot| slot.score);
        full.max(led.min(self.limit.bound))
    }

    pub(crate) fn insert(&mut self, score: f32, node: u32) {
        let floor = self.floor();
        if score <= floor && floor > f32::NEG_INFINITY {
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
            if self.next >= self.limit.least && slot.score <= self.limit.bound {
                return None;
            }
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
