//! Whether two vectors are near each other: of most pairs it is told from a quarter of their values.

use std::collections::HashSet;

use anchorite_index::ContentHash;

use crate::diversity;

/// A unit vector whose first quarter mostly says that another is not near: the rest adds at most the product of both lengths.
pub(crate) struct Split<'a> {
    values: &'a [f32],
    /// Length of all but the first quarter.
    tail: f32,
}

impl<'a> Split<'a> {
    /// What rounding may add to a bound.
    const SLACK: f32 = 1e-4;

    pub(crate) fn new(values: &'a [f32]) -> Self {
        let rest = &values[values.len() / 4..];
        Self { values, tail: diversity::dot(rest, rest).sqrt() }
    }

    /// Of values whose tail's length is known already.
    pub(crate) fn with_tail(values: &'a [f32], tail: f32) -> Self {
        Self { values, tail }
    }

    pub(crate) fn tail(&self) -> f32 {
        self.tail
    }

    /// The cosine, if it is not below the limit.
    pub(crate) fn at_least(&self, other: &Self, limit: f32) -> Option<f32> {
        let quarter = (self.values.len() / 4).min(other.values.len());
        let start = diversity::dot(&self.values[..quarter], &other.values[..quarter]);
        if start + self.tail * other.tail + Self::SLACK < limit {
            return None;
        }
        let cosine = diversity::dot(self.values, other.values);
        (cosine >= limit).then_some(cosine)
    }
}

/// Takes pairs one after the other, and refuses those that repeat one taken before.
pub(crate) struct Sieve {
    limit: f32,
    contents: HashSet<ContentHash>,
    /// What was taken, each with its tail's length.
    vectors: Vec<(Vec<f32>, f32)>,
}

impl Sieve {
    /// Refuses pairs whose cosine with a taken one is `limit` or above.
    pub(crate) fn new(limit: f32) -> Self {
        Self { limit, contents: HashSet::new(), vectors: Vec::new() }
    }

    /// Whether the pair is taken. One without a vector repeats only equal content.
    pub(crate) fn takes(&mut self, content: ContentHash, vector: Option<Vec<f32>>) -> bool {
        if self.contents.contains(&content) {
            return false;
        }
        if let Some(values) = vector {
            let split = Split::new(&values);
            let near = |(taken, tail): &(Vec<f32>, f32)| split.at_least(&Split::with_tail(taken, *tail), self.limit).is_some();
            if self.vectors.iter().any(near) {
                return false;
            }
            let tail = split.tail();
            self.vectors.push((values, tail));
        }
        self.contents.insert(content)
    }
}
