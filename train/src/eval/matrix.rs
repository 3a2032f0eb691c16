//! Rows of vectors, and their products in float64.

/// `rows x dim` values of float32, row by row.
#[derive(Clone, Debug, Default)]
pub(crate) struct Matrix {
    pub(crate) dim: usize,
    pub(crate) values: Vec<f32>,
}

impl Matrix {
    pub(crate) fn new(dim: usize) -> Self {
        Self { dim, values: Vec::new() }
    }

    pub(crate) fn push(&mut self, row: &[f32]) {
        self.values.extend_from_slice(row);
    }

    pub(crate) fn rows(&self) -> usize {
        self.values.len() / self.dim.max(1)
    }

    pub(crate) fn row(&self, at: usize) -> &[f32] {
        &self.values[at * self.dim..(at + 1) * self.dim]
    }
}

/// The dot product in float64. Eight sums side by side, so that the compiler can keep them in vector registers; the order of
/// additions is fixed.
pub(crate) fn dot(a: &[f32], b: &[f32]) -> f64 {
    let (heads_a, tail_a) = a.as_chunks::<8>();
    let (heads_b, tail_b) = b.as_chunks::<8>();
    let mut sums = [0.0_f64; 8];
    for (x, y) in heads_a.iter().zip(heads_b) {
        for (sum, (&x, &y)) in sums.iter_mut().zip(x.iter().zip(y)) {
            *sum += f64::from(x) * f64::from(y);
        }
    }
    let tail: f64 = tail_a.iter().zip(tail_b).map(|(&x, &y)| f64::from(x) * f64::from(y)).sum();
    sums.iter().sum::<f64>() + tail
}

/// How many of `scores` come before the one at `at`: larger ones, and equal ones that stand before it.
pub(crate) fn rank(scores: &[f64], at: usize) -> usize {
    let own = scores[at];
    scores.iter().enumerate().filter(|&(i, &s)| s > own || (s == own && i < at)).count()
}
