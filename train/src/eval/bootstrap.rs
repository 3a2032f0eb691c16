//! Resampling. The draws of a set depend on the seed, the set's name and the number of the resample, not on the model: what two
//! models differ by in a resample is therefore a paired difference.

use rayon::prelude::*;
use sha2::{Digest, Sha256};

use super::evaluation::Metric;
use crate::data::Draw;

/// One figure's values over the resamples.
pub(crate) type Replicates = Vec<(Metric, Vec<f64>)>;

/// The draws.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bootstrap {
    pub(crate) seed: u64,
    pub(crate) resamples: usize,
    pub(crate) confidence: f64,
}

impl Bootstrap {
    /// `figures` of each resample of `n` items of the set called `set`.
    pub(crate) fn of(&self, set: &str, n: usize, figures: impl Fn(&[usize]) -> Vec<(Metric, f64)> + Sync) -> Replicates {
        let one = |resample: usize| {
            let mut random = stream(self.seed, set, resample);
            let drawn: Vec<usize> = (0..n).map(|_| random.below(n)).collect();
            figures(&drawn)
        };
        let all: Vec<Vec<(Metric, f64)>> = (0..self.resamples).into_par_iter().map(one).collect();
        let metrics: Vec<Metric> = all.first().map(|first| first.iter().map(|(metric, _)| *metric).collect()).unwrap_or_default();
        let column = |at: usize| all.iter().map(|figures| figures[at].1).collect();
        metrics.into_iter().enumerate().map(|(at, metric)| (metric, column(at))).collect()
    }

    /// The interval that holds the middle share of the replicates.
    pub(crate) fn interval(&self, replicates: &[f64]) -> Option<(f64, f64)> {
        let mut sorted = replicates.to_vec();
        sorted.sort_by(f64::total_cmp);
        let tail = (1.0 - self.confidence) / 2.0;
        Some((quantile(&sorted, tail)?, quantile(&sorted, 1.0 - tail)?))
    }
}

/// Twice the share of differences on the rarer side of zero, at most 1.
pub(crate) fn two_sided(differences: &[f64]) -> Option<f64> {
    let share = |keep: fn(&f64) -> bool| differences.iter().copied().filter(keep).count() as f64 / differences.len() as f64;
    (!differences.is_empty()).then(|| (2.0 * share(|d| *d <= 0.0).min(share(|d| *d >= 0.0))).min(1.0))
}

pub(super) fn stream(seed: u64, set: &str, resample: usize) -> Draw {
    let digest = Sha256::digest(format!("{seed}/{set}/{resample}"));
    let mut first = [0; 8];
    first.copy_from_slice(&digest[..8]);
    Draw::from_state(u64::from_le_bytes(first))
}

/// With linear interpolation between neighbours, as NumPy has it.
pub(super) fn quantile(sorted: &[f64], q: f64) -> Option<f64> {
    let place = q * sorted.len().checked_sub(1)? as f64;
    let (low, high) = (sorted[place.floor() as usize], sorted[place.ceil() as usize]);
    Some(low + (high - low) * place.fract())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_depend_on_seed_set_and_number_alone() {
        let bootstrap = |seed| Bootstrap { seed, resamples: 3, confidence: 0.9 };
        let sum = |drawn: &[usize]| vec![(Metric::Top1, drawn.iter().enumerate().map(|(i, d)| (i * d) as f64).sum())];
        assert_eq!(bootstrap(1).of("a", 50, sum), bootstrap(1).of("a", 50, sum));
        assert_ne!(bootstrap(1).of("a", 50, sum), bootstrap(1).of("b", 50, sum));
        assert_ne!(bootstrap(1).of("a", 50, sum), bootstrap(2).of("a", 50, sum));
    }
}
