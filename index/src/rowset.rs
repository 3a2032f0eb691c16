//! A set of rows (or of nodes) as one bit each: what a filter selects, and which rows are alive.
//!
//! One type for both, so that "matches the filter", "is not deleted" and their intersection are the same thing to a search.

const WORD: usize = u64::BITS as usize;

/// Positions `0..len`, each in or out. One bit a position; counting and intersecting go a word at a time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RowSet {
    words: Vec<u64>,
    len: usize,
}

impl RowSet {
    /// No position of `len`.
    #[must_use]
    pub fn empty(len: usize) -> Self {
        Self { words: vec![0; len.div_ceil(WORD)], len }
    }

    /// Every position of `len`.
    #[must_use]
    pub fn full(len: usize) -> Self {
        let mut set = Self { words: vec![u64::MAX; len.div_ceil(WORD)], len };
        set.trim();
        set
    }

    /// Words of 64 positions each, lowest first, as [`RowSet::words`] gives them. Bits at and beyond `len` are cleared; missing
    /// words are taken as empty.
    #[must_use]
    pub fn from_words(mut words: Vec<u64>, len: usize) -> Self {
        words.resize(len.div_ceil(WORD), 0);
        let mut set = Self { words, len };
        set.trim();
        set
    }

    /// Makes room for positions up to `len`; new ones are out. A set never shrinks.
    pub fn grow(&mut self, len: usize) {
        if len > self.len {
            self.len = len;
            self.words.resize(len.div_ceil(WORD), 0);
        }
    }

    /// How many positions there are, in or out.
    #[must_use]
    pub fn positions(&self) -> usize {
        self.len
    }

    /// Whether no position is in.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.words.iter().all(|&word| word == 0)
    }

    /// How many positions are in.
    #[must_use]
    pub fn count(&self) -> usize {
        self.words.iter().map(|word| word.count_ones() as usize).sum()
    }

    /// Whether a position is in; one beyond the end is not.
    #[must_use]
    pub fn contains(&self, position: usize) -> bool {
        self.words.get(position / WORD).is_some_and(|word| word >> (position % WORD) & 1 == 1)
    }

    /// Puts a position in; one beyond the end is ignored.
    pub fn insert(&mut self, position: usize) {
        if position < self.len {
            self.words[position / WORD] |= 1 << (position % WORD);
        }
    }

    /// Takes a position out.
    pub fn remove(&mut self, position: usize) {
        if let Some(word) = self.words.get_mut(position / WORD) {
            *word &= !(1 << (position % WORD));
        }
    }

    /// Keeps what is in both; positions that `other` lacks go out.
    pub fn intersect(&mut self, other: &Self) {
        for (place, word) in self.words.iter_mut().enumerate() {
            *word &= other.words.get(place).copied().unwrap_or(0);
        }
    }

    /// Adds what is in `other`.
    pub fn unite(&mut self, other: &Self) {
        for (word, more) in self.words.iter_mut().zip(&other.words) {
            *word |= more;
        }
        self.trim();
    }

    /// What was in goes out, what was out comes in.
    pub fn complement(&mut self) {
        self.words.iter_mut().for_each(|word| *word = !*word);
        self.trim();
    }

    /// The positions that are in, ascending.
    pub fn iter(&self) -> impl Iterator<Item = usize> + '_ {
        self.iter_in(0..self.len)
    }

    /// The positions within `range` that are in, ascending.
    pub fn iter_in(&self, range: std::ops::Range<usize>) -> impl Iterator<Item = usize> + '_ {
        let words = range.start / WORD..range.end.div_ceil(WORD).min(self.words.len());
        let bits = words.flat_map(|place| ones(self.words[place]).map(move |bit| place * WORD + bit));
        bits.skip_while(move |&position| position < range.start).take_while(move |&position| position < range.end)
    }

    /// 64 positions a word, lowest first; bits beyond the end are 0.
    #[must_use]
    pub fn words(&self) -> &[u64] {
        &self.words
    }

    fn trim(&mut self) {
        if let Some(last) = self.words.last_mut()
            && !self.len.is_multiple_of(WORD)
        {
            *last &= (1 << (self.len % WORD)) - 1;
        }
    }
}

/// The set bits of a word, lowest first.
fn ones(mut word: u64) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        (word != 0).then(|| {
            let bit = word.trailing_zeros() as usize;
            word &= word - 1;
            bit
        })
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::RowSet;

    fn of(len: usize, rows: &BTreeSet<usize>) -> RowSet {
        let mut set = RowSet::empty(len);
        rows.iter().for_each(|&row| set.insert(row));
        set
    }

    fn listed(set: &RowSet) -> BTreeSet<usize> {
        set.iter().collect()
    }

    proptest! {
        #[test]
        fn it_is_a_set(len in 0_usize..200, a in prop::collection::btree_set(0_usize..220, 0..90), b in prop::collection::btree_set(0_usize..220, 0..90)) {
            let inside = |rows: &BTreeSet<usize>| rows.iter().copied().filter(|&r| r < len).collect::<BTreeSet<_>>();
            let (a, b) = (inside(&a), inside(&b));
            let (sa, sb) = (of(len, &a), of(len, &b));
            prop_assert_eq!(listed(&sa), a.clone());
            let within = |from: usize, to: usize| a.iter().copied().filter(|r| (from..to).contains(r)).collect::<Vec<_>>();
            for (from, to) in [(0, 64), (3, 70), (64, 128), (100, 100), (90, 1_000)] {
                prop_assert_eq!(sa.iter_in(from..to).collect::<Vec<_>>(), within(from, to));
            }
            prop_assert_eq!((sa.count(), sa.is_empty(), sa.positions()), (a.len(), a.is_empty(), len));
            prop_assert!((0..220).all(|row| sa.contains(row) == a.contains(&row)));
            let with = |change: &dyn Fn(&mut RowSet)| { let mut set = sa.clone(); change(&mut set); listed(&set) };
            prop_assert_eq!(with(&|s| s.intersect(&sb)), &a & &b);
            prop_assert_eq!(with(&|s| s.unite(&sb)), &a | &b);
            prop_assert_eq!(with(&RowSet::complement), (0..len).filter(|row| !a.contains(row)).collect::<BTreeSet<_>>());
            prop_assert_eq!(with(&|s| b.iter().for_each(|&row| s.remove(row))), &a - &b);
            prop_assert_eq!(RowSet::from_words(sa.words().to_vec(), len), sa);
            prop_assert_eq!(RowSet::full(len).count(), len);
        }
    }
}
