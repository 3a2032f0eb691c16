//! The portable kernels: what the fast ones must equal.

use half::f16;

pub(super) fn dot_query(row: &[u8], query: &[i8]) -> i32 {
    row.iter().zip(query).map(|(&a, &b)| i32::from(a) * i32::from(b)).sum()
}

pub(super) fn dot_rows(a: &[u8], b: &[u8]) -> i32 {
    a.iter().zip(b).map(|(&a, &b)| i32::from(a) * (i32::from(b) - 64)).sum()
}

pub(super) fn dot_f16(row: &[f16], query: &[f32]) -> f32 {
    dot(row.iter().map(|v| v.to_f32()), query)
}

pub(super) fn dot_tile(rows: &[f32], queries: &[f32], width: usize, out: &mut [f32]) {
    let pairs = rows.chunks_exact(width).flat_map(|row| queries.chunks_exact(width).map(move |query| (row, query)));
    for (out, (row, query)) in out.iter_mut().zip(pairs) {
        *out = dot(row.iter().copied(), query);
    }
}

/// Sixteen running sums, folded pairwise: the order of two 8-wide registers.
fn dot(row: impl Iterator<Item = f32>, query: &[f32]) -> f32 {
    let mut sums = [0f32; 16];
    for (i, (a, b)) in row.zip(query).enumerate() {
        sums[i % 16] = a.mul_add(*b, sums[i % 16]);
    }
    let mut width = 8;
    while width > 0 {
        for i in 0..width {
            sums[i] += sums[i + width];
        }
        width /= 2;
    }
    sums[0]
}

/// Ones that the row shares with each plane of a signed four-bit number, weighted: 1, 2, 4, and -8 for the sign.
pub(super) fn dot_bits(row: &[u8], planes: &[u64]) -> i32 {
    let words = row.len() / 8;
    let shared = |plane: usize| -> i32 {
        let plane = &planes[plane * words..][..words];
        let ones = |(bytes, plane): (&[u8], &u64)| {
            let mut word = [0; 8];
            word.copy_from_slice(bytes);
            (u64::from_le_bytes(word) & plane).count_ones() as i32
        };
        row.chunks_exact(8).zip(plane).map(ones).sum()
    };
    shared(0) + 2 * shared(1) + 4 * shared(2) - 8 * shared(3)
}
