//! The linear probe: `mean cross-entropy of softmax(W x + b) + l2 / 2 |W|^2` over frozen unit embeddings, minimised to rest. It is strictly convex
//! in `W`, so the predictions do not depend on the way there.

use rayon::prelude::*;

use super::{
    lbfgs::{self, Minimum},
    matrix::Matrix,
    measure::{Outcome, outcome},
};

/// No part of the gradient is larger where the search ends.
pub(crate) const TOLERANCE: f64 = 1e-8;
/// Steps before the search is given up.
pub(crate) const MAX_STEPS: usize = 5_000;
/// Parts of the images whose gradients are summed apart: fixed, so that sums do not depend on the number of threads, and few, since each
/// holds a gradient.
const BLOCKS: usize = 32;

/// Whether a probe has a constant for each label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Intercept {
    /// It has.
    Fitted,
    /// All are 0.
    None,
}

/// A fitted probe.
#[derive(Clone, Debug)]
pub(crate) struct Probe {
    /// One row per label.
    weights: Vec<f64>,
    bias: Vec<f64>,
    dim: usize,
    /// Where the search ended.
    pub(crate) minimum: Minimum,
}

impl Probe {
    /// Fits `labels` classes.
    pub(crate) fn fit(images: &Matrix, labels: &[usize], classes: usize, l2: f64, intercept: Intercept) -> Self {
        let (dim, n) = (images.dim, images.rows());
        let function = |x: &[f64], gradient: &mut [f64]| {
            let (weights, bias) = x.split_at(classes * dim);
            let blocks: Vec<(f64, Vec<f64>)> =
                (0..BLOCKS).into_par_iter().map(|b| block(images, labels, weights, bias, b)).collect();
            gradient.fill(0.0);
            let mut loss = 0.0;
            for (part, part_gradient) in blocks {
                loss += part / n as f64;
                gradient.iter_mut().zip(part_gradient).for_each(|(g, p)| *g += p / n as f64);
            }
            gradient.iter_mut().zip(weights).for_each(|(g, w)| *g += l2 * w);
            if intercept == Intercept::None {
                gradient[classes * dim..].fill(0.0);
            }
            loss + 0.5 * l2 * weights.iter().map(|w| w * w).sum::<f64>()
        };
        let minimum = lbfgs::minimise(function, vec![0.0; classes * (dim + 1)], TOLERANCE, MAX_STEPS);
        let (weights, bias) = minimum.at.split_at(classes * dim);
        Self { weights: weights.to_vec(), bias: bias.to_vec(), dim, minimum }
    }

    /// Whether the search came to rest: at the tolerance, or where float64 sees no further decrease.
    pub(crate) fn converged(&self) -> bool {
        self.minimum.gradient <= TOLERANCE * 100.0
    }

    /// One row per label.
    pub(crate) fn weights(&self) -> &[f64] {
        &self.weights
    }

    /// How each image fares.
    pub(crate) fn outcomes(&self, images: &Matrix, labels: &[usize]) -> Vec<Outcome> {
        let one = |at: usize| outcome(&scores(&self.weights, &self.bias, self.dim, images.row(at)), labels[at], 1.0);
        (0..images.rows()).into_par_iter().map(one).collect()
    }
}

fn scores(weights: &[f64], bias: &[f64], dim: usize, image: &[f32]) -> Vec<f64> {
    let one = |(row, bias): (&[f64], &f64)| row.iter().zip(image).map(|(w, &x)| w * f64::from(x)).sum::<f64>() + bias;
    weights.chunks_exact(dim).zip(bias).map(one).collect()
}

/// Summed loss and gradient of one block of images.
fn block(images: &Matrix, labels: &[usize], weights: &[f64], bias: &[f64], block: usize) -> (f64, Vec<f64>) {
    let classes = bias.len();
    let mut gradient = vec![0.0; weights.len() + classes];
    let (to_weights, to_bias) = gradient.split_at_mut(weights.len());
    let mut loss = 0.0;
    let (first, end) = (images.rows() * block / BLOCKS, images.rows() * (block + 1) / BLOCKS);
    for (at, &label) in labels.iter().enumerate().take(end).skip(first) {
        let image = images.row(at);
        let scores = scores(weights, bias, images.dim, image);
        let top = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let sum: f64 = scores.iter().map(|s| (s - top).exp()).sum();
        loss += sum.ln() + top - scores[label];
        for class in 0..classes {
            let error = (scores[class] - top).exp() / sum - f64::from(u8::from(class == label));
            to_bias[class] += error;
            let row = &mut to_weights[class * images.dim..(class + 1) * images.dim];
            row.iter_mut().zip(image).for_each(|(g, &x)| *g += error * f64::from(x));
        }
    }
    (loss, gradient)
}
