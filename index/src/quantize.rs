//! Unit vectors to 7-bit rows and queries to signed bytes.
//!
//! A stored byte is `64 + round(value / scale)` with `scale = max|value| / 63`, so 1 to 127: unsigned, for the byte
//! multiply of AVX2 and VNNI, and 7 bits, so that its pair sums cannot saturate. A query uses all of -127..=127.

use std::sync::OnceLock;

use crate::{
    format::vectors::{ZERO, q8_stride},
    sketch::Turn,
};

/// Writes the 7-bit row of `values` (widened) into `row`, which has its padded length, and returns its scale.
pub(crate) fn quantize_row(values: &[f32], row: &mut [u8]) -> f32 {
    let largest = largest(values);
    let scale = if largest > 0.0 { largest / 63.0 } else { 1.0 };
    row.fill(ZERO);
    for (place, v) in row.iter_mut().zip(values) {
        *place = (i32::from(ZERO) + rounded((v / scale).clamp(-63.0, 63.0))) as u8;
    }
    scale
}

/// As `f32::round`, halves away from zero, of a small value and without a call: rows are derived anew when a file is mended, to the bit.
fn rounded(value: f32) -> i32 {
    let whole = value as i32;
    let rest = value - whole as f32;
    whole + i32::from(rest >= 0.5) - i32::from(rest <= -0.5)
}

/// The largest absolute value; sixteen running ones, so that the compiler can use vectors.
fn largest(values: &[f32]) -> f32 {
    let mut largest = [0f32; 16];
    for values in values.chunks(16) {
        largest.iter_mut().zip(values).for_each(|(m, v)| *m = if v.abs() > *m { v.abs() } else { *m });
    }
    largest.into_iter().fold(0f32, f32::max)
}

/// A query ready for the 7-bit kernel: comparing scores of one query needs no query scale.
#[derive(Clone, Debug)]
pub(crate) struct QuantizedQuery {
    /// Padded with zeros.
    pub(crate) values: Vec<i8>,
    /// What the stored bias of 64 adds to every dot product.
    pub(crate) bias: i32,
    /// What a step of [`QuantizedQuery::values`] is worth: takes scores to cosines.
    pub(crate) unit: f32,
    /// The values turned for sketches: one turn for all segments and beams.
    turned: OnceLock<Vec<f32>>,
}

impl QuantizedQuery {
    pub(crate) fn new(query: &[f32], dim: usize) -> Self {
        let largest = largest(query);
        let scale = if largest > 0.0 { 127.0 / largest } else { 0.0 };
        let mut values: Vec<i8> = query.iter().take(dim).map(|v| nearest(v * scale) as i8).collect();
        values.resize(q8_stride(dim), 0);
        let bias = i32::from(ZERO) * values.iter().map(|&v| i32::from(v)).sum::<i32>();
        Self::of(values, bias, largest / 127.0)
    }

    /// Of these bytes, padded with zeros, what the bias adds to dot products with them, and what their step is worth.
    pub(crate) fn of(values: Vec<i8>, bias: i32, unit: f32) -> Self {
        Self { values, bias, unit, turned: OnceLock::new() }
    }

    /// The values, without padding, by `turn`, which depends on how many they are alone.
    pub(crate) fn turned(&self, turn: &Turn) -> &[f32] {
        self.turned.get_or_init(|| {
            let values: Vec<f32> = self.values[..turn.dim()].iter().map(|&v| f32::from(v)).collect();
            turn.applied(&values)
        })
    }

    /// How far a score may be from the cosine of the f16 row, as a standard deviation: both sides are rounded to steps, and an
    /// error that is spread evenly over a step deviates by the step over the root of 12.
    pub(crate) fn error(&self, row_scale: f32) -> f32 {
        ((row_scale * row_scale + self.unit * self.unit) / 12.0).sqrt()
    }
}

/// The nearest whole number of a value below `2^22`, without the call that `f32::round` is on plain x86-64.
pub(crate) fn nearest(value: f32) -> i32 {
    /// `1.5 * 2^23`: beside it only whole numbers fit.
    const WHOLE: f32 = 12_582_912.0;
    (value + WHOLE - WHOLE) as i32
}

/// The scale that gives a 7-bit row unit length; 1 for a row of zeros.
pub(crate) fn unit_scale(row: &[u8]) -> f32 {
    // At most 63^2 * 16,384 values: exact.
    let squares: u32 = row.iter().map(|&byte| u32::from(byte.abs_diff(ZERO)).pow(2)).sum();
    if squares == 0 { 1.0 } else { (1.0 / f64::from(squares).sqrt()) as f32 }
}

/// The values of a 7-bit row as f32; `out` is as long as a padded f16 row, which is no longer than a padded 7-bit row. Quantizing them
/// again, rounded to f16, gives the same bytes (the largest is 63 steps, and rounding moves none by more than a tenth of a step), and so the same
/// [`unit_scale`]: a row that is copied from segment to segment stays what it is (`tests/pool/precision.rs`).
pub(crate) fn widen_row(row: &[u8], scale: f32, out: &mut [f32]) {
    out.iter_mut().zip(row).for_each(|(value, &byte)| *value = (f32::from(byte) - f32::from(ZERO)) * scale);
}
