//! How well embeddings by a faster form of a model agree with those of the model itself, on somebody's own data.
//!
//! Embeddings of one tower share a large mean (the cosine of two unrelated pictures is 0.5 to 0.85), so plain cosines flatter any
//! approximation. So means are taken off first, and neighbours are compared, which is what a search depends on.

use crate::Embedding;

/// Neighbours that are compared.
const NEIGHBOURS: usize = 10;

/// What two forms of a model make of the same items.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub struct Agreement {
    /// Items compared.
    pub items: usize,
    /// Lowest cosine of an item's two embeddings, less each form's mean.
    pub lowest_cosine: f64,
    /// Mean of the same.
    pub mean_cosine: f64,
    /// Share of each item's ten nearest others by the one that are among its ten nearest by the other.
    pub recall: f64,
}

/// What an approximation has to reach.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AgreementLimits {
    /// Of the mean of centred cosines; 0.98. An 8-bit ViT-B/32 of random weights has 0.997, the two preprocessing pipelines of the
    /// field 0.98 between them.
    pub min_mean_cosine: f64,
    /// Of the lowest one; 0.90.
    pub min_cosine: f64,
    /// Of recall@10 among the sample; 0.90. Neighbours of a sample lie far apart, so those of a pool agree less.
    pub min_recall: f64,
    /// Items below which no figure means anything; 32.
    pub min_items: usize,
}

impl Default for AgreementLimits {
    fn default() -> Self {
        Self { min_mean_cosine: 0.98, min_cosine: 0.90, min_recall: 0.90, min_items: 32 }
    }
}

/// An approximation that is not good enough.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Disagreement {
    /// Too few items to say.
    #[error("{found} items could be compared; at least {min} are needed")]
    Few {
        /// Compared.
        found: usize,
        /// Wanted.
        min: usize,
    },
    /// A figure below its limit.
    #[error("{what} is {found:.4} on {items} items; at least {min} is wanted")]
    Below {
        /// Which figure.
        what: &'static str,
        /// Its value.
        found: f64,
        /// Its limit.
        min: f64,
        /// Items compared.
        items: usize,
    },
}

impl Agreement {
    /// Compares embeddings of the same items, in the same order.
    #[must_use]
    pub fn between(exact: &[Embedding], approximate: &[Embedding]) -> Self {
        let (exact, approximate) = (centred(exact), centred(approximate));
        let items = exact.len().min(approximate.len());
        let cosines: Vec<f64> = exact.iter().zip(&approximate).map(|(a, b)| dot(a, b)).collect();
        let nearest = NEIGHBOURS.min(items.saturating_sub(1));
        let common = |at: usize| {
            let (one, other) = (neighbours(&exact, at, nearest), neighbours(&approximate, at, nearest));
            one.iter().filter(|neighbour| other.contains(neighbour)).count()
        };
        let found: usize = (0..items).map(common).sum();
        Self {
            items,
            lowest_cosine: cosines.iter().copied().fold(1.0, f64::min),
            mean_cosine: cosines.iter().sum::<f64>() / items.max(1) as f64,
            recall: found as f64 / (items * nearest).max(1) as f64,
        }
    }

    /// Whether it is good enough.
    ///
    /// # Errors
    /// [`Disagreement`]: the first figure that is not.
    pub fn check(&self, limits: &AgreementLimits) -> Result<(), Disagreement> {
        if self.items < limits.min_items {
            return Err(Disagreement::Few { found: self.items, min: limits.min_items });
        }
        let figures = [
            ("the mean centred cosine", self.mean_cosine, limits.min_mean_cosine),
            ("the lowest centred cosine", self.lowest_cosine, limits.min_cosine),
            ("recall@10", self.recall, limits.min_recall),
        ];
        let below = figures.into_iter().find(|(_, found, min)| found.is_nan() || found < min);
        below.map_or(Ok(()), |(what, found, min)| Err(Disagreement::Below { what, found, min, items: self.items }))
    }
}

/// Less their mean, of unit length; what is the mean stays zero.
fn centred(all: &[Embedding]) -> Vec<Vec<f64>> {
    let Some(first) = all.first() else { return Vec::new() };
    let mut mean = vec![0.0; first.as_slice().len()];
    for embedding in all {
        for (mean, &value) in mean.iter_mut().zip(embedding.as_slice()) {
            *mean += f64::from(value) / all.len() as f64;
        }
    }
    let one = |embedding: &Embedding| {
        let mut less: Vec<f64> = embedding.as_slice().iter().zip(&mean).map(|(&value, mean)| f64::from(value) - mean).collect();
        let length = dot(&less, &less).sqrt();
        if length > 0.0 {
            less.iter_mut().for_each(|value| *value /= length);
        }
        less
    };
    all.iter().map(one).collect()
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// The nearest others, by cosine; of equal ones the earlier.
fn neighbours(all: &[Vec<f64>], of: usize, count: usize) -> Vec<usize> {
    let mut others: Vec<(usize, f64)> =
        (0..all.len()).filter(|&other| other != of).map(|other| (other, dot(&all[of], &all[other]))).collect();
    others.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    others.into_iter().take(count).map(|(other, _)| other).collect()
}
