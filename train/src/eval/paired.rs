//! Differences between arms of an experiment: resampled over seeds and, within them, over images.
//!
//! One draw takes seeds with replacement, and for each set images with replacement; it is the same for all arms, so that their differences
//! are paired. Draws depend on seed and number alone, as those of [`super::bootstrap`].

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::bootstrap::{quantile, stream, two_sided};

/// The draws.
#[derive(Clone, Copy, Debug)]
pub struct TwoLevel {
    /// Decides the draws.
    pub seed: u64,
    /// How many.
    pub resamples: usize,
    /// Share of resamples inside an interval.
    pub confidence: f64,
}

/// One draw.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Draw {
    /// Numbers of seeds, some several times.
    pub seeds: Vec<usize>,
    /// For each set, how often each of its images was drawn.
    pub images: Vec<Vec<u32>>,
}

impl Draw {
    /// Everything once.
    #[must_use]
    pub fn whole(seeds: usize, sets: &[usize]) -> Self {
        Self { seeds: (0..seeds).collect(), images: sets.iter().map(|&n| vec![1; n]).collect() }
    }

    /// Share of hits of a set in this draw.
    #[must_use]
    pub fn share(&self, set: usize, hits: &[bool]) -> f64 {
        let counts = &self.images[set];
        let (mut found, mut all) = (0_u64, 0_u64);
        for (&count, &hit) in counts.iter().zip(hits) {
            all += u64::from(count);
            found += if hit { u64::from(count) } else { 0 };
        }
        found as f64 / all.max(1) as f64
    }
}

/// A figure with its interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Paired {
    /// Over all seeds and images.
    pub value: f64,
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
    /// Twice the share of resamples on the rarer side of zero, at least one resample's.
    pub p: f64,
}

impl TwoLevel {
    /// `figure` of all seeds and images, and of each draw.
    pub fn of(&self, seeds: usize, sets: &[usize], figure: impl Fn(&Draw) -> f64 + Sync) -> Paired {
        let values: Vec<f64> =
            (0..self.resamples).into_par_iter().map(|number| figure(&self.draw(number, seeds, sets))).collect();
        let value = figure(&Draw::whole(seeds, sets));
        let mut sorted = values.clone();
        sorted.sort_by(f64::total_cmp);
        let tail = (1.0 - self.confidence) / 2.0;
        let end = |q| quantile(&sorted, q).unwrap_or(value);
        let least = 1.0 / self.resamples.max(1) as f64;
        Paired { value, low: end(tail), high: end(1.0 - tail), p: two_sided(&values).unwrap_or(1.0).max(least) }
    }

    /// Draw `number`.
    #[must_use]
    pub fn draw(&self, number: usize, seeds: usize, sets: &[usize]) -> Draw {
        let mut random = stream(self.seed, "two levels", number);
        let drawn = (0..seeds).map(|_| random.below(seeds)).collect();
        let images = sets.iter().map(|&n| {
            let mut counts = vec![0; n];
            (0..n).for_each(|_| counts[random.below(n)] += 1);
            counts
        });
        Draw { seeds: drawn, images: images.collect() }
    }
}

/// Holm's step-down adjustment of p-values: in the order they came in, none below its own, at most 1.
#[must_use]
pub fn holm(p: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..p.len()).collect();
    order.sort_by(|&a, &b| p[a].total_cmp(&p[b]));
    let (mut adjusted, mut largest) = (vec![0.0; p.len()], 0.0_f64);
    for (rank, &at) in order.iter().enumerate() {
        largest = largest.max((p.len() - rank) as f64 * p[at]).min(1.0);
        adjusted[at] = largest;
    }
    adjusted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holm_gives_the_textbook_values() {
        let adjusted = holm(&[0.01, 0.04, 0.03, 0.005]);
        let expected = [0.03, 0.06, 0.06, 0.02];
        assert!(adjusted.iter().zip(expected).all(|(a, e)| (a - e).abs() < 1e-12), "{adjusted:?}");
    }

    #[test]
    fn a_sure_difference_has_a_narrow_interval_and_equal_arms_have_none() {
        let level = TwoLevel { seed: 0, resamples: 400, confidence: 0.95 };
        // Two arms, three seeds, 200 images: the one is right on every third, the other on all of these and every fifth.
        let hits = |also: usize| -> Vec<bool> { (0..200).map(|i| i % 3 == 0 || (also > 0 && i % also == 0)).collect() };
        let (a, b) = (hits(0), hits(5));
        let found = level.of(3, &[200], |d| d.seeds.iter().map(|_| d.share(0, &b) - d.share(0, &a)).sum::<f64>() / 3.0);
        assert!((found.value - 26.0 / 200.0).abs() < 1e-12, "{found:?}");
        // One sure seed: what is left is a share of 26 in 200, whose normal interval is 0.13 -+ 0.0466.
        assert!((found.low - 0.0834).abs() < 0.01 && (found.high - 0.1766).abs() < 0.01, "{found:?}");
        assert!(found.p <= 1.0 / 400.0, "{found:?}");
        let same = level.of(3, &[200], |d| d.share(0, &a) - d.share(0, &a));
        assert_eq!((same.low, same.high, same.p), (0.0, 0.0, 1.0));
    }
}
