//! AdamW (Loshchilov and Hutter 2019): decay decoupled from the gradient.
//!
//! m = b1 m + (1 - b1) g, v = b2 v + (1 - b2) g^2,
//! p = p (1 - rate decay) - rate (m / (1 - b1^t)) / (sqrt(v / (1 - b2^t)) + epsilon).

use rayon::prelude::*;

/// Settings of the optimizer.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AdamW {
    /// Decay rate of the first moment. Default 0.9, as everyone has it.
    pub beta1: f64,
    /// Decay rate of the second moment. Default 0.999, as FLYP finetunes; CLIP was pretrained with 0.98.
    pub beta2: f64,
    /// Added to the root of the second moment. Default 1e-6, as CLIP and open_clip have it for transformers: gradients that are zero
    /// but for rounding (attention's key biases) become steps of the full rate with PyTorch's 1e-8.
    pub epsilon: f64,
    /// Weight decay per unit of rate, on weights of two or more axes larger than 1 only. Default 0.1, FLYP's.
    pub weight_decay: f64,
    /// Largest norm of all gradients together; beyond it all are scaled down. Default none, as FLYP; WiSE-FT has 1.0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clip_norm: Option<f64>,
}

impl Default for AdamW {
    fn default() -> Self {
        Self { beta1: 0.9, beta2: 0.999, epsilon: 1e-6, weight_decay: 0.1, clip_norm: None }
    }
}

impl AdamW {
    /// What is wrong with the settings, if anything.
    #[must_use]
    pub fn problem(&self) -> Option<String> {
        let share = |name: &str, value: f64| {
            (!(0.0..1.0).contains(&value)).then(|| format!("{name} is {value}; it must be at least 0 and below 1"))
        };
        let positive = |name: &str, value: f64, zero: bool| {
            let fine = value.is_finite() && (value > 0.0 || (zero && value == 0.0));
            (!fine).then(|| format!("{name} is {value}; it must be {}", if zero { "zero or more" } else { "more than zero" }))
        };
        share("beta1", self.beta1)
            .or_else(|| share("beta2", self.beta2))
            .or_else(|| positive("epsilon", self.epsilon, false))
            .or_else(|| positive("weight_decay", self.weight_decay, true))
            .or_else(|| self.clip_norm.and_then(|norm| positive("clip_norm", norm, false)))
    }

    /// The numbers of one update; `step` counts from 1, `scale` multiplies every gradient (clipping, accumulation).
    #[must_use]
    pub fn update(&self, step: u64, rate: f64, scale: f64) -> Update {
        let exponent = i32::try_from(step).unwrap_or(i32::MAX);
        Update {
            beta1: self.beta1 as f32,
            beta2: self.beta2 as f32,
            epsilon: self.epsilon as f32,
            first: (rate / (1.0 - self.beta1.powi(exponent))) as f32,
            second: (1.0 / (1.0 - self.beta2.powi(exponent)).sqrt()) as f32,
            keep: (1.0 - rate * self.weight_decay) as f32,
            scale: scale as f32,
        }
    }
}

/// The numbers of one update, the same for every parameter. Worked out in float64.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Update {
    /// Decay rate of the first moment.
    pub beta1: f32,
    /// Decay rate of the second moment.
    pub beta2: f32,
    /// Added to the root of the second moment.
    pub epsilon: f32,
    /// rate / (1 - beta1^t).
    pub first: f32,
    /// 1 / sqrt(1 - beta2^t).
    pub second: f32,
    /// 1 - rate decay: what is left of a decaying weight.
    pub keep: f32,
    /// Factor of every gradient.
    pub scale: f32,
}

impl Update {
    /// Its numbers under the names that [`super::adamw_model`] is fed them by.
    #[must_use]
    pub fn named(&self) -> [(&'static str, f32); 7] {
        let Self { beta1, beta2, epsilon, first, second, keep, scale } = *self;
        [
            ("beta1", beta1),
            ("beta2", beta2),
            ("epsilon", epsilon),
            ("first", first),
            ("second", second),
            ("keep", keep),
            ("scale", scale),
        ]
    }
}

/// Whether weight decay is for a parameter of this shape: matrices and kernels, not norms, biases, class tokens or scalars. Axes of
/// size 1 do not count, since exporters add them.
#[must_use]
pub fn decays(shape: &[usize]) -> bool {
    shape.iter().filter(|&&size| size > 1).count() > 1
}

/// Elements of one piece of work: 64 KiB of each of four arrays stay in a core's own cache.
pub(crate) const PIECE: usize = 1 << 14;

/// Sum of squares, in float64: a float32 sum over 10^8 small squares loses them.
#[must_use]
pub fn squared_norm(values: &[f32]) -> f64 {
    values.par_chunks(PIECE).map(squares).collect::<Vec<_>>().iter().sum()
}

/// In eight sums, whose additions need not wait for each other.
fn squares(piece: &[f32]) -> f64 {
    let square = |v: f32| f64::from(v) * f64::from(v);
    let (rows, rest) = piece.as_chunks::<8>();
    let mut sums = [0.0; 8];
    for row in rows {
        sums.iter_mut().zip(row).for_each(|(sum, &v)| *sum += square(v));
    }
    sums.iter().sum::<f64>() + rest.iter().map(|&v| square(v)).sum::<f64>()
}

/// What gradients of this norm are multiplied by.
#[must_use]
pub fn clip_factor(norm: f64, max: Option<f64>) -> f64 {
    // PyTorch's clip_grad_norm_, its 1e-6 included.
    max.map_or(1.0, |max| (max / (norm + 1e-6)).min(1.0))
}

/// Updates one parameter in place, in one pass over the four arrays, which have the same length.
pub fn update(u: &Update, decay: bool, parameter: &mut [f32], [first, second]: [&mut [f32]; 2], gradient: &[f32]) {
    let keep = if decay { u.keep } else { 1.0 };
    let pieces = parameter.par_chunks_mut(PIECE).zip(first.par_chunks_mut(PIECE)).zip(second.par_chunks_mut(PIECE));
    pieces.zip(gradient.par_chunks(PIECE)).for_each(|(((p, m), v), g)| piece(u, keep, p, (m, v), g));
}

fn piece(u: &Update, keep: f32, p: &mut [f32], (m, v): (&mut [f32], &mut [f32]), g: &[f32]) {
    let (rest1, rest2) = (1.0 - u.beta1, 1.0 - u.beta2);
    for (((p, m), v), &g) in p.iter_mut().zip(m.iter_mut()).zip(v.iter_mut()).zip(g) {
        let g = g * u.scale;
        *m = u.beta1 * *m + rest1 * g;
        *v = u.beta2 * *v + rest2 * g * g;
        *p = *p * keep - u.first * *m / (v.sqrt() * u.second + u.epsilon);
    }
}
