//! The best k of many scored rows under one total order: score descending, then row ascending.

use std::cmp::Ordering;

/// A scored row.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Scored {
    pub(crate) score: f32,
    pub(crate) row: u64,
}

/// Better first.
pub(crate) fn order(a: &Scored, b: &Scored) -> Ordering {
    b.score.total_cmp(&a.score).then(a.row.cmp(&b.row))
}

/// Keeps the best `k` in a buffer of twice that, thinned when it is full.
#[derive(Clone, Debug)]
pub(crate) struct TopK {
    k: usize,
    kept: Vec<Scored>,
    floor: Option<Scored>,
}

impl TopK {
    pub(crate) fn new(k: usize) -> Self {
        Self { k, kept: Vec::new(), floor: None }
    }

    pub(crate) fn push(&mut self, score: f32, row: u64) {
        // Most rows end here; what follows breaks ties.
        if self.floor.is_some_and(|floor| score < floor.score) {
            return;
        }
        let scored = Scored { score, row };
        if self.floor.is_some_and(|floor| order(&scored, &floor) != Ordering::Less) {
            return;
        }
        self.kept.push(scored);
        if self.kept.len() >= self.k.saturating_mul(2).max(64) {
            self.thin();
        }
    }

    /// A score below this is not among the best; minus infinity as long as that is not known.
    pub(crate) fn floor(&self) -> f32 {
        self.floor.map_or(f32::NEG_INFINITY, |floor| floor.score)
    }

    fn thin(&mut self) {
        if self.kept.len() > self.k {
            self.kept.select_nth_unstable_by(self.k - 1, order);
            self.kept.truncate(self.k);
            self.floor = self.kept.last().copied();
        }
    }

    /// The score of the k-th best so far, when there are as many.
    pub(crate) fn kth(&mut self) -> Option<f32> {
        self.thin();
        match self.floor {
            None if self.kept.len() == self.k => self.kept.iter().map(|s| s.score).min_by(f32::total_cmp),
            floor => floor.map(|floor| floor.score),
        }
    }

    pub(crate) fn merge(mut self, other: Self) -> Self {
        for scored in other.kept {
            self.push(scored.score, scored.row);
        }
        self
    }

    pub(crate) fn into_sorted(mut self) -> Vec<Scored> {
        self.kept.sort_unstable_by(order);
        self.kept.truncate(self.k);
        self.kept
    }
}
