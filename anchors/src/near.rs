//! Whether vectors are near each other: of most pairs it is told from a quarter of their values.
//!
//! ```text
//!   vectors ──push──► Heads (first quarters, side by side) ──dot_tile──► pairs that may be near ──whole vectors──► cosines
//! ```
//!
//! The rest of two unit vectors adds at most the product of its lengths to what their first quarters give. What is left is compared in whole, in
//! the one order of sums of [`diversity::dot`], so that kernels and blocks change time and no cosine.

use std::{
    collections::{HashMap, HashSet, hash_map::Entry},
    ops::Range,
};

use anchorite_index::{ContentHash, distance::Cpu};
use rayon::prelude::*;

use crate::diversity;

/// What rounding may add to a bound.
const SLACK: f32 = 1e-4;
/// The kernel takes values by so many.
const STEP: usize = 32;
/// Rows that a thread compares with all queries at once: 128 KiB of first quarters of 512 values, 512 KiB of products with 512 queries.
const ROWS: usize = 256;

/// First quarters of vectors, and the lengths of what is left of them.
#[derive(Default)]
pub(crate) struct Heads {
    /// Values of each head, padded; 0 before the first.
    width: usize,
    values: Vec<f32>,
    tails: Vec<f32>,
}

/// A pair of a query and a row, and its cosine.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Near {
    pub(crate) query: usize,
    pub(crate) row: usize,
    pub(crate) cosine: f32,
}

impl Heads {
    pub(crate) fn of<'a>(vectors: impl Iterator<Item = &'a [f32]>) -> Self {
        let mut heads = Self::default();
        vectors.for_each(|values| heads.push(values));
        heads
    }

    /// Adds a vector, as long as those before.
    pub(crate) fn push(&mut self, values: &[f32]) {
        let (head, rest) = values.split_at(values.len() / 4);
        self.width = head.len().next_multiple_of(STEP).max(STEP);
        self.values.extend_from_slice(head);
        self.tails.push(diversity::dot(rest, rest).sqrt());
        self.values.resize(self.tails.len() * self.width, 0.0);
    }

    pub(crate) fn len(&self) -> usize {
        self.tails.len()
    }

    /// Moves a head to an earlier place.
    fn keep(&mut self, from: usize, to: usize) {
        let width = self.width;
        self.values.copy_within(from * width..(from + 1) * width, to * width);
        self.tails[to] = self.tails[from];
    }

    fn truncate(&mut self, len: usize) {
        self.values.truncate(len * self.width);
        self.tails.truncate(len);
    }

    /// Every pair of a query and a row whose cosine is not below `limit`, by row. `vectors` gives whole queries and rows.
    pub(crate) fn near<'a>(&self, queries: &Self, limit: f32, vectors: (Whole<'a, '_>, Whole<'a, '_>)) -> Vec<Near> {
        let starts: Vec<usize> = (0..self.len()).step_by(ROWS).collect();
        let part = |products: &mut Vec<f32>, start: usize| {
            self.near_in(start..(start + ROWS).min(self.len()), queries, (limit, products), vectors)
        };
        // Threads are worth their while from some thousand pairs on.
        if self.len() * queries.len() < 4 * ROWS {
            let mut products = Vec::new();
            return starts.into_iter().flat_map(|start| part(&mut products, start)).collect();
        }
        let parts: Vec<Vec<Near>> = starts.into_par_iter().map_init(Vec::new, part).collect();
        parts.into_iter().flatten().collect()
    }

    /// `products` is room that is used again.
    fn near_in(
        &self,
        rows: Range<usize>,
        queries: &Self,
        (limit, products): (f32, &mut Vec<f32>),
        (query, row): (Whole<'_, '_>, Whole<'_, '_>),
    ) -> Vec<Near> {
        let many = queries.len();
        products.resize(rows.len() * many, 0.0);
        let heads = &self.values[rows.start * self.width..rows.end * self.width];
        Cpu::detect().dot_tile(heads, &queries.values, self.width, products);
        let bound = limit - SLACK;
        let mut found = Vec::new();
        for (at, products) in rows.zip(products.chunks_exact(many.max(1))) {
            let tail = self.tails[at];
            let may = |(product, other): (&f32, &f32)| product + tail * other >= bound;
            // Few rows have any; counting has no branch, and is done many at a time.
            if products.iter().zip(&queries.tails).map(|both| u32::from(may(both))).sum::<u32>() == 0 {
                continue;
            }
            for (asked, both) in products.iter().zip(&queries.tails).enumerate() {
                if !may(both) {
                    continue;
                }
                let cosine = diversity::dot(query(asked), row(at));
                if cosine >= limit {
                    found.push(Near { query: asked, row: at, cosine });
                }
            }
        }
        found
    }
}

/// Which items are near each other, of those that were ever compared. Each two of them are compared once, however often a selection is made.
#[derive(Default)]
pub(crate) struct Nearness {
    memory: Memory,
    heads: Heads,
    /// The items, by their place among the heads.
    members: Vec<usize>,
    /// What is near to each member, and its cosine.
    near: HashMap<usize, Vec<(usize, f32)>>,
    /// Near pairs held.
    pairs: usize,
    /// Members before the last that were learned.
    settled: usize,
}

/// What is remembered of items that were compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Memory {
    /// All of them: another selection among them will follow.
    #[default]
    All,
    /// Those that were taken: a selection's own question. Where everything is near everything, all others would make its time quadratic.
    Taken,
}

/// Near pairs that are held. 4 million: 128 MiB. A low limit makes every pair of thousands near; beyond this only what was taken is remembered.
const MAX_PAIRS: usize = 4 << 20;

impl Nearness {
    /// Remembers only what is taken.
    pub(crate) fn of_taken() -> Self {
        Self { memory: Memory::Taken, ..Self::default() }
    }

    /// Whether it holds more than it should: then [`Nearness::forget`] comes before the next comparison.
    pub(crate) fn is_full(&self) -> bool {
        self.pairs > MAX_PAIRS
    }

    /// Knows nothing but `taken`, no two of which are near each other.
    pub(crate) fn forget<'a>(&mut self, taken: impl Iterator<Item = (usize, &'a [f32])>) {
        *self = Self { memory: self.memory, ..Self::default() };
        for (item, values) in taken {
            self.heads.push(values);
            self.members.push(item);
            self.near.insert(item, Vec::new());
        }
        self.settled = self.members.len();
    }

    /// Of the members learned last, forgets those that were not taken, if that is its [`Memory`].
    pub(crate) fn settle(&mut self, taken: impl Fn(usize) -> bool) {
        if self.memory == Memory::All {
            return;
        }
        let last = self.members.split_off(self.settled);
        self.pairs = 0;
        for (place, item) in (self.settled..).zip(last) {
            self.near.remove(&item);
            if taken(item) {
                self.near.insert(item, Vec::new());
                self.heads.keep(place, self.members.len());
                self.members.push(item);
            }
        }
        self.heads.truncate(self.members.len());
        self.settled = self.members.len();
    }

    /// Compares those of `asked` that have a vector and are new with each other and with all members.
    pub(crate) fn learn<'a>(&mut self, asked: &[usize], limit: f32, vector: &(dyn Fn(usize) -> Option<&'a [f32]> + Sync)) {
        let mut fresh: Vec<usize> = Vec::new();
        for &item in asked.iter().filter(|item| vector(**item).is_some()) {
            if let Entry::Vacant(place) = self.near.entry(item) {
                place.insert(Vec::new());
                fresh.push(item);
            }
        }
        if fresh.is_empty() {
            return;
        }
        let first = self.members.len();
        self.members.extend(&fresh);
        let whole = |item: usize| vector(item).unwrap_or_default();
        let heads = Heads::of(fresh.iter().map(|&item| whole(item)));
        fresh.iter().for_each(|&item| self.heads.push(whole(item)));
        let members = &self.members;
        let vectors: (Whole<'a, '_>, Whole<'a, '_>) = (&|place| whole(fresh[place]), &|place| whole(members[place]));
        for Near { query, row, cosine } in self.heads.near(&heads, limit, vectors) {
            // Of two new ones, and of one with itself, the first place is enough.
            if row < first + query {
                let (one, other) = (fresh[query], self.members[row]);
                self.near.entry(one).or_default().push((other, cosine));
                // What is taken is not asked about again.
                if row >= first || self.memory == Memory::All {
                    self.near.entry(other).or_default().push((one, cosine));
                }
                self.pairs += 1;
            }
        }
    }

    /// Members near to an item, with their cosines.
    pub(crate) fn of(&self, item: usize) -> &[(usize, f32)] {
        self.near.get(&item).map_or(&[], Vec::as_slice)
    }
}

/// Whole vectors by their place among the heads.
pub(crate) type Whole<'a, 'f> = &'f (dyn Fn(usize) -> &'a [f32] + Sync);

/// Takes pairs one after the other, and refuses those that repeat one taken before.
pub(crate) struct Sieve {
    limit: f32,
    contents: HashSet<ContentHash>,
    heads: Heads,
    vectors: Vec<Vec<f32>>,
}

impl Sieve {
    /// Refuses pairs whose cosine with a taken one is `limit` or above.
    pub(crate) fn new(limit: f32) -> Self {
        Self { limit, contents: HashSet::new(), heads: Heads::default(), vectors: Vec::new() }
    }

    /// Whether the pair is taken. One without a vector repeats only equal content.
    pub(crate) fn takes(&mut self, content: ContentHash, vector: Option<Vec<f32>>) -> bool {
        if self.contents.contains(&content) {
            return false;
        }
        if let Some(values) = vector {
            let asked = Heads::of([values.as_slice()].into_iter());
            let whole: (Whole<'_, '_>, Whole<'_, '_>) = (&|_| &values, &|row| &self.vectors[row]);
            if !self.heads.near(&asked, self.limit, whole).is_empty() {
                return false;
            }
            self.heads.push(&values);
            self.vectors.push(values);
        }
        self.contents.insert(content)
    }
}
