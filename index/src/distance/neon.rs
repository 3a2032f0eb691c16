//! NEON kernels, plain and with the dot-product instruction. Each equals its twin in `scalar`.
//!
//! NEON is part of every 64-bit ARM processor; the instruction for sums of four byte products (FEAT_DotProd, of most since 2018) is
//! asked for. That instruction and those that widen f16 are written in assembly: their intrinsics are not stable in the
//! oldest compiler that this workspace takes.
#![expect(unsafe_code, reason = "vector intrinsics")]

use std::arch::{aarch64::*, asm};

use half::f16;

use super::{
    Cpu,
    blocks::{Tile, blocks, pad},
};

pub(super) fn dot_query_neon(_proof: Cpu, row: &[u8], query: &[i8]) -> i32 {
    // SAFETY: `Cpu::detect` found NEON; lengths are equal multiples of 64 (asserted by the caller).
    unsafe { bytes::<false>(row.as_ptr(), query.as_ptr(), row.len()) }
}

pub(super) fn dot_rows_neon(_proof: Cpu, a: &[u8], b: &[u8]) -> i32 {
    // SAFETY: as above.
    unsafe { bytes::<true>(a.as_ptr(), b.as_ptr().cast(), a.len()) }
}

pub(super) fn dot_query_dotprod(_proof: Cpu, row: &[u8], query: &[i8]) -> i32 {
    // SAFETY: as above, with FEAT_DotProd.
    unsafe { bytes_dotprod::<false>(row.as_ptr(), query.as_ptr(), row.len()) }
}

pub(super) fn dot_rows_dotprod(_proof: Cpu, a: &[u8], b: &[u8]) -> i32 {
    // SAFETY: as above.
    unsafe { bytes_dotprod::<true>(a.as_ptr(), b.as_ptr().cast(), a.len()) }
}

/// Sum of `a[i] * s[i]` with `s` signed, or `b - 64` when `BIASED`. `a` is at most 127, so that two products are within
/// 127 * 128 * 2 = 32,512 and fit sixteen bits.
///
/// # Safety
/// NEON is there; both pointers have `len` readable bytes; `len` is a multiple of 64.
#[target_feature(enable = "neon")]
unsafe fn bytes<const BIASED: bool>(a: *const u8, b: *const i8, len: usize) -> i32 {
    let mut sums = [vdupq_n_s32(0); 4];
    let mut at = 0;
    while at < len {
        for (part, sum) in sums.iter_mut().enumerate() {
            // SAFETY: at + 64 <= len, by the contract.
            let (row, other) = unsafe { pair::<BIASED>(a.add(at + part * 16), b.add(at + part * 16)) };
            let low = vmull_s8(vget_low_s8(row), vget_low_s8(other));
            *sum = vpadalq_s16(*sum, vmlal_high_s8(low, row, other));
        }
        at += 64;
    }
    total(sums)
}

/// As [`bytes`], four products an instruction and lane.
///
/// # Safety
/// NEON and FEAT_DotProd are there; otherwise as [`bytes`].
#[target_feature(enable = "neon,dotprod")]
unsafe fn bytes_dotprod<const BIASED: bool>(a: *const u8, b: *const i8, len: usize) -> i32 {
    // Four sums: an addition that waits for the one before takes several times as long as one that does not.
    let mut sums = [vdupq_n_s32(0); 4];
    let mut at = 0;
    while at < len {
        for (part, sum) in sums.iter_mut().enumerate() {
            // SAFETY: at + 64 <= len, by the contract.
            let (row, other) = unsafe { pair::<BIASED>(a.add(at + part * 16), b.add(at + part * 16)) };
            *sum = sdot(*sum, row, other);
        }
        at += 64;
    }
    total(sums)
}

/// Sixteen bytes of both, as signed numbers: those of `a` are at most 127.
///
/// # Safety
/// NEON is there; both pointers have 16 readable bytes.
#[inline]
#[target_feature(enable = "neon")]
unsafe fn pair<const BIASED: bool>(a: *const u8, b: *const i8) -> (int8x16_t, int8x16_t) {
    // SAFETY: by the contract.
    let (row, other) = unsafe { (vld1q_s8(a.cast()), vld1q_s8(b)) };
    (row, if BIASED { vsubq_s8(other, vdupq_n_s8(64)) } else { other })
}

#[inline]
#[target_feature(enable = "neon")]
fn total(sums: [int32x4_t; 4]) -> i32 {
    vaddvq_s32(vaddq_s32(vaddq_s32(sums[0], sums[1]), vaddq_s32(sums[2], sums[3])))
}

#[inline]
#[target_feature(enable = "neon,dotprod")]
fn sdot(mut sum: int32x4_t, a: int8x16_t, b: int8x16_t) -> int32x4_t {
    // SAFETY: registers alone; the feature is on in this function.
    unsafe {
        asm!("sdot {sum:v}.4s, {a:v}.16b, {b:v}.16b", sum = inout(vreg) sum, a = in(vreg) a, b = in(vreg) b,
            options(pure, nomem, nostack, preserves_flags));
    }
    sum
}

pub(super) fn dot_bits(_proof: Cpu, row: &[u8], planes: &[u64]) -> i32 {
    // SAFETY: `Cpu::detect` found NEON; the row is a multiple of 64 bytes and there are four planes of its length (asserted by
    // the caller).
    unsafe { bits(row.as_ptr(), planes.as_ptr().cast(), row.len()) }
}

/// # Safety
/// NEON is there; `row` has `len` readable bytes, a multiple of 64, and `planes` four times as many.
#[inline]
#[target_feature(enable = "neon")]
unsafe fn bits(row: *const u8, planes: *const u8, len: usize) -> i32 {
    let mut counts = [vdupq_n_u32(0); 4];
    let mut at = 0;
    while at < len {
        for (plane, count) in counts.iter_mut().enumerate() {
            // At most 8 a byte and register, 32 of four: no byte overflows.
            let mut ones = vdupq_n_u8(0);
            for part in 0..4 {
                let at = at + part * 16;
                // SAFETY: at + 16 <= len, and there are four planes of `len` bytes, by the contract.
                let shared = unsafe { vandq_u8(vld1q_u8(row.add(at)), vld1q_u8(planes.add(plane * len + at))) };
                ones = vaddq_u8(ones, vcntq_u8(shared));
            }
            *count = vpadalq_u16(*count, vpaddlq_u8(ones));
        }
        at += 64;
    }
    let [one, two, four, minus_eight] = counts.map(|count| vaddvq_u32(count) as i32);
    one + 2 * two + 4 * four - 8 * minus_eight
}

pub(super) fn dot_f16(_proof: Cpu, row: &[f16], query: &[f32]) -> f32 {
    // SAFETY: `Cpu::detect` found NEON; lengths are equal multiples of 32 (asserted by the caller).
    unsafe { f16_many(row, [query])[0] }
}

pub(super) fn dot_f16_x4(_proof: Cpu, row: &[f16], queries: [&[f32]; 4]) -> [f32; 4] {
    // SAFETY: as above.
    unsafe { f16_many(row, queries) }
}

/// # Safety
/// NEON is there; every query is as long as `row`, a multiple of 16.
#[target_feature(enable = "neon")]
unsafe fn f16_many<const N: usize>(row: &[f16], queries: [&[f32]; N]) -> [f32; N] {
    let mut sums = [[vdupq_n_f32(0.0); 4]; N];
    let values: *const u16 = row.as_ptr().cast();
    let mut at = 0;
    while at + 16 <= row.len() {
        // SAFETY: at + 16 values are within the row, by the loop's test.
        let (a, b) = unsafe { (vld1q_u16(values.add(at)), vld1q_u16(values.add(at + 8))) };
        let wide = [widen_low(a), widen_high(a), widen_low(b), widen_high(b)];
        for (sums, query) in sums.iter_mut().zip(&queries) {
            for (part, (sum, row)) in sums.iter_mut().zip(wide).enumerate() {
                // SAFETY: queries are as long as the row, by the contract.
                let query = unsafe { vld1q_f32(query.as_ptr().add(at + part * 4)) };
                *sum = vfmaq_f32(*sum, row, query);
            }
        }
        at += 16;
    }
    let mut out = [0.0; N];
    for (out, sums) in out.iter_mut().zip(sums) {
        *out = fold(sums);
    }
    out
}

/// Sixteen sums to one, pairwise.
#[inline]
#[target_feature(enable = "neon")]
fn fold(sums: [float32x4_t; 4]) -> f32 {
    let sum = vaddq_f32(vaddq_f32(sums[0], sums[2]), vaddq_f32(sums[1], sums[3]));
    vpadds_f32(vadd_f32(vget_low_f32(sum), vget_high_f32(sum)))
}

/// The first four of eight f16 values.
#[inline]
#[target_feature(enable = "neon")]
fn widen_low(half: uint16x8_t) -> float32x4_t {
    let wide: float32x4_t;
    // SAFETY: registers alone; the instruction is part of NEON.
    unsafe {
        asm!("fcvtl {wide:v}.4s, {half:v}.4h", wide = lateout(vreg) wide, half = in(vreg) half,
            options(pure, nomem, nostack, preserves_flags));
    }
    wide
}

/// The last four.
#[inline]
#[target_feature(enable = "neon")]
fn widen_high(half: uint16x8_t) -> float32x4_t {
    let wide: float32x4_t;
    // SAFETY: as above.
    unsafe {
        asm!("fcvtl2 {wide:v}.4s, {half:v}.8h", wide = lateout(vreg) wide, half = in(vreg) half,
            options(pure, nomem, nostack, preserves_flags));
    }
    wide
}

pub(super) fn widen(_proof: Cpu, from: &[f16], to: &mut [f32]) {
    // SAFETY: `Cpu::detect` found NEON.
    unsafe { widen_eights(from, to) }
}

/// Of equal lengths, multiples of 8.
#[target_feature(enable = "neon")]
fn widen_eights(from: &[f16], to: &mut [f32]) {
    for (from, to) in from.chunks_exact(8).zip(to.chunks_exact_mut(8)) {
        // SAFETY: both chunks have eight values.
        unsafe {
            let half = vld1q_u16(from.as_ptr().cast());
            vst1q_f32(to.as_mut_ptr(), widen_low(half));
            vst1q_f32(to.as_mut_ptr().add(4), widen_high(half));
        }
    }
}

/// Rows and queries of one register block: six scores of four registers each, three operands; five registers to spare.
const SHAPE: (usize, usize) = (2, 3);

/// As the kernels of `tile`.
pub(super) fn dot_tile(_proof: Cpu, rows: &[f32], queries: &[f32], (width, out): (usize, &mut [f32])) {
    const R: usize = SHAPE.0;
    const Q: usize = SHAPE.1;
    let counts = (rows.len() / width, queries.len() / width);
    let tile = Tile { rows: rows.as_ptr(), queries: queries.as_ptr(), width };
    // SAFETY: `Cpu::detect` found NEON; rows and queries are whole (asserted by the caller), and `blocks` stays within their
    // counts.
    blocks::<R, Q>(counts, out, &|row, query, shape| unsafe {
        let at = Tile { rows: tile.rows.add(row * width), queries: tile.queries.add(query * width), width };
        match shape {
            (true, true) => pad(block::<R, Q>(at)),
            (true, false) => pad(block::<R, 1>(at)),
            (false, true) => pad(block::<1, Q>(at)),
            (false, false) => pad(block::<1, 1>(at)),
        }
    });
}

/// # Safety
/// NEON is there; `R` rows and `Q` queries of `width` values, a multiple of 16, are readable.
#[target_feature(enable = "neon")]
unsafe fn block<const R: usize, const Q: usize>(tile: Tile) -> [[f32; Q]; R] {
    let mut sums = [[[vdupq_n_f32(0.0); 4]; Q]; R];
    let mut at = 0;
    while at < tile.width {
        for part in 0..4 {
            let at = at + part * 4;
            let mut rows = [vdupq_n_f32(0.0); R];
            for (r, row) in rows.iter_mut().enumerate() {
                // SAFETY: at + 4 values are within the row, by the contract.
                *row = unsafe { vld1q_f32(tile.rows.add(r * tile.width + at)) };
            }
            for q in 0..Q {
                // SAFETY: as above, within the query.
                let query = unsafe { vld1q_f32(tile.queries.add(q * tile.width + at)) };
                for (sums, row) in sums.iter_mut().zip(rows) {
                    sums[q][part] = vfmaq_f32(sums[q][part], row, query);
                }
            }
        }
        at += 16;
    }
    let mut out = [[0.0; Q]; R];
    for (score, sums) in out.as_flattened_mut().iter_mut().zip(sums.as_flattened()) {
        *score = fold(*sums);
    }
    out
}

pub(super) fn prefetch(bytes: &[u8]) {
    for line in bytes.chunks(64) {
        prefetch_value(&line[0]);
    }
}

pub(super) fn prefetch_value<T>(value: &T) {
    // SAFETY: the address is that of a value; a prefetch changes nothing and cannot fault.
    unsafe {
        asm!("prfm pldl1keep, [{at}]", at = in(reg) std::ptr::from_ref(value), options(readonly, nostack, preserves_flags));
    }
}
