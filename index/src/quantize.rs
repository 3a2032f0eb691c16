//! Unit vectors to 7-bit rows and queries to signed bytes.
//!
//! A stored byte is `64 + round(value / scale)` with `scale = max|value| / 63`, so 1 to 127: unsigned, for the byte
//! multiply of AVX2 and VNNI, and 7 bits, so that its pair sums cannot saturate. A query uses all of -127..=127.

use half::f16;

use crate::format::vectors::{ZERO, q8_stride};

/// Writes the 7-bit row of `values` into `row` and returns its scale.
pub(crate) fn quantize_row(values: &[f16], dim: usize, row: &mut Vec<u8>) -> f32 {
    let values = &values[..dim];
    let largest = values.iter().fold(0f32, |m, v| m.max(v.to_f32().abs()));
    let scale = if largest > 0.0 { largest / 63.0 } else { 1.0 };
    row.clear();
    row.extend(values.iter().map(|v| (f32::from(ZERO) + (v.to_f32() / scale).round().clamp(-63.0, 63.0)) as u8));
    row.resize(q8_stride(dim), ZERO);
    scale
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
}

impl QuantizedQuery {
    pub(crate) fn new(query: &[f32], dim: usize) -> Self {
        let mut largest = [0f32; 16];
        for values in query.chunks(16) {
            largest.iter_mut().zip(values).for_each(|(m, v)| *m = if v.abs() > *m { v.abs() } else { *m });
        }
        let largest = largest.into_iter().fold(0f32, f32::max);
        let scale = if largest > 0.0 { 127.0 / largest } else { 0.0 };
        let mut values: Vec<i8> = query.iter().take(dim).map(|v| nearest(v * scale) as i8).collect();
        values.resize(q8_stride(dim), 0);
        let bias = i32::from(ZERO) * values.iter().map(|&v| i32::from(v)).sum::<i32>();
        Self { values, bias, unit: largest / 127.0 }
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

/// The values of a 7-bit row as f32; `out` is as long as a padded f16 row, which is no longer than a padded 7-bit row. Quantizing them
/// again, rounded to f16, gives the same bytes and the same scale (`largest |value|` is an f16 value, `tests/pool/precision.rs`), so that a
/// row that is copied from segment to segment stays what it is.
pub(crate) fn widen_row(row: &[u8], scale: f32, out: &mut [f32]) {
    out.iter_mut().zip(row).for_each(|(value, &byte)| *value = (f32::from(byte) - f32::from(ZERO)) * scale);
}
