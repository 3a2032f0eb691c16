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
}

impl QuantizedQuery {
    pub(crate) fn new(query: &[f32], dim: usize) -> Self {
        let largest = query.iter().fold(0f32, |m, v| m.max(v.abs()));
        let scale = if largest > 0.0 { 127.0 / largest } else { 0.0 };
        let mut values: Vec<i8> = query.iter().take(dim).map(|v| (v * scale).round() as i8).collect();
        values.resize(q8_stride(dim), 0);
        let bias = i32::from(ZERO) * values.iter().map(|&v| i32::from(v)).sum::<i32>();
        Self { values, bias }
    }
}
