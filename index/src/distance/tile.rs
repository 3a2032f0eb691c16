//! Many f32 rows against many f32 queries: a register-blocked kernel whose every score equals that of `scalar::dot_tile`.
//!
//! A matrix product usually keeps one column of results a lane and adds along the inner dimension one value at a time; that order
//! of sums would not be the one in which a single score is computed. Here the sixteen running sums of a score lie in one AVX-512
//! register (two of AVX2), and a block of rows and queries shares its loads: 24 scores of AVX-512 take ten loads for 24
//! multiply-adds a step, six of AVX2 ten for twelve, so that arithmetic and not loading is the limit.
#![expect(unsafe_code, reason = "vector intrinsics")]

use std::arch::x86_64::*;

use half::f16;

use super::{
    Cpu,
    blocks::{Block, Tile, blocks, pad},
};

/// Rows and queries of one register block: 24 sums of sixteen, six operands, two registers to spare.
const WIDE: (usize, usize) = (4, 6);
/// The same for AVX2: six sums of two registers each.
const NARROW: (usize, usize) = (2, 3);

pub(super) fn avx512(_proof: Cpu, rows: &[f32], queries: &[f32], (width, out): (usize, &mut [f32])) {
    const R: usize = WIDE.0;
    const Q: usize = WIDE.1;
    let counts = (rows.len() / width, queries.len() / width);
    let tile = Tile { rows: rows.as_ptr(), queries: queries.as_ptr(), width };
    // SAFETY: `Cpu::detect` found AVX-512 F; rows and queries are whole (asserted by the caller), and `blocks` stays within
    // their counts.
    blocks::<R, Q>(counts, out, &|row, query, shape| unsafe {
        let at = Tile { rows: tile.rows.add(row * width), queries: tile.queries.add(query * width), width };
        match shape {
            (true, true) => pad(block512::<R, Q>(at)),
            (true, false) => pad(block512::<R, 1>(at)),
            (false, true) => pad(block512::<1, Q>(at)),
            (false, false) => pad(block512::<1, 1>(at)),
        }
    });
}

pub(super) fn avx2(_proof: Cpu, rows: &[f32], queries: &[f32], (width, out): (usize, &mut [f32])) {
    const R: usize = NARROW.0;
    const Q: usize = NARROW.1;
    let counts = (rows.len() / width, queries.len() / width);
    let tile = Tile { rows: rows.as_ptr(), queries: queries.as_ptr(), width };
    // SAFETY: `Cpu::detect` found AVX2 and FMA; otherwise as above.
    blocks::<R, Q>(counts, out, &|row, query, shape| unsafe {
        let at = Tile { rows: tile.rows.add(row * width), queries: tile.queries.add(query * width), width };
        match shape {
            (true, true) => pad(block256::<R, Q>(at)),
            (true, false) => pad(block256::<R, 1>(at)),
            (false, true) => pad(block256::<1, Q>(at)),
            (false, false) => pad(block256::<1, 1>(at)),
        }
    });
}

/// # Safety
/// AVX-512 F is there; `R` rows and `Q` queries of `width` values, a multiple of 16, are readable.
#[target_feature(enable = "avx512f")]
unsafe fn block512<const R: usize, const Q: usize>(tile: Tile) -> Block<R, Q> {
    let mut sums = [[_mm512_setzero_ps(); Q]; R];
    let mut at = 0;
    while at < tile.width {
        let mut queries = [_mm512_setzero_ps(); Q];
        for (q, query) in queries.iter_mut().enumerate() {
            // SAFETY: at + 16 values are within the query, by the contract.
            *query = unsafe { _mm512_loadu_ps(tile.queries.add(q * tile.width + at)) };
        }
        for (r, sums) in sums.iter_mut().enumerate() {
            // SAFETY: as above, within the row.
            let row = unsafe { _mm512_loadu_ps(tile.rows.add(r * tile.width + at)) };
            for (sum, query) in sums.iter_mut().zip(&queries) {
                *sum = _mm512_fmadd_ps(row, *query, *sum);
            }
        }
        at += 16;
    }
    let mut out = [[0.0; Q]; R];
    let (eights, rest) = sums.as_flattened().as_chunks::<8>();
    let (eight_scores, rest_scores) = out.as_flattened_mut().as_chunks_mut::<8>();
    for (scores, sums) in eight_scores.iter_mut().zip(eights) {
        *scores = fold_eight(sums);
    }
    for (score, &sum) in rest_scores.iter_mut().zip(rest) {
        let high = _mm256_castpd_ps(_mm512_extractf64x4_pd::<1>(_mm512_castps_pd(sum)));
        *score = fold(_mm512_castps512_ps256(sum), high);
    }
    out
}

/// As [`fold`], eight at once: the halves to be added of two registers lie in one, so that an addition serves both. A third of
/// the instructions.
#[target_feature(enable = "avx512f")]
fn fold_eight(sums: &[__m512; 8]) -> [f32; 8] {
    // Value i and value i + 8, of two sums; then i and i + 4, of four; i and i + 2, of eight; i and i + 1.
    let eights = |a, b| _mm512_add_ps(_mm512_shuffle_f32x4::<0b01_00_01_00>(a, b), _mm512_shuffle_f32x4::<0b11_10_11_10>(a, b));
    let fours = |a, b| _mm512_add_ps(_mm512_shuffle_f32x4::<0b10_00_10_00>(a, b), _mm512_shuffle_f32x4::<0b11_01_11_01>(a, b));
    let first = _mm512_castps_pd(fours(eights(sums[0], sums[1]), eights(sums[2], sums[3])));
    let second = _mm512_castps_pd(fours(eights(sums[4], sums[5]), eights(sums[6], sums[7])));
    let twos =
        _mm512_add_ps(_mm512_castpd_ps(_mm512_unpacklo_pd(first, second)), _mm512_castpd_ps(_mm512_unpackhi_pd(first, second)));
    let ones = _mm512_add_ps(twos, _mm512_movehdup_ps(twos));
    // Lane by lane: a sum of the first four, nothing of use, one of the second four, nothing of use.
    let mut lanes = [0f32; 16];
    // SAFETY: sixteen values are written into an array of sixteen.
    unsafe { _mm512_storeu_ps(lanes.as_mut_ptr(), ones) };
    std::array::from_fn(|i| lanes[i % 4 * 4 + i / 4 * 2])
}

/// # Safety
/// AVX2 and FMA are there; otherwise as [`block512`].
#[target_feature(enable = "avx2,fma")]
#[expect(clippy::needless_range_loop, reason = "one index runs over memory and registers alike")]
unsafe fn block256<const R: usize, const Q: usize>(tile: Tile) -> Block<R, Q> {
    let mut sums = [[[_mm256_setzero_ps(); 2]; Q]; R];
    let mut at = 0;
    while at < tile.width {
        for half in 0..2 {
            let mut rows = [_mm256_setzero_ps(); R];
            for (r, row) in rows.iter_mut().enumerate() {
                // SAFETY: at + 16 values are within the row, by the contract.
                *row = unsafe { _mm256_loadu_ps(tile.rows.add(r * tile.width + at + half * 8)) };
            }
            for q in 0..Q {
                // SAFETY: as above, within the query.
                let query = unsafe { _mm256_loadu_ps(tile.queries.add(q * tile.width + at + half * 8)) };
                for r in 0..R {
                    sums[r][q][half] = _mm256_fmadd_ps(rows[r], query, sums[r][q][half]);
                }
            }
        }
        at += 16;
    }
    let mut out = [[0.0; Q]; R];
    for (line, sums) in out.iter_mut().zip(&sums) {
        for (score, [low, high]) in line.iter_mut().zip(sums) {
            *score = fold(*low, *high);
        }
    }
    out
}

/// Sixteen sums to one, pairwise.
#[target_feature(enable = "avx2")]
fn fold(low: __m256, high: __m256) -> f32 {
    let sum = _mm256_add_ps(low, high);
    let sum = _mm_add_ps(_mm256_castps256_ps128(sum), _mm256_extractf128_ps::<1>(sum));
    let sum = _mm_add_ps(sum, _mm_movehl_ps(sum, sum));
    _mm_cvtss_f32(_mm_add_ss(sum, _mm_shuffle_ps::<1>(sum, sum)))
}

pub(super) fn widen(_proof: Cpu, from: &[f16], to: &mut [f32]) {
    // SAFETY: `Cpu::detect` found F16C; lengths are equal multiples of 32 (asserted by the caller).
    unsafe { widen_f16c(from, to) }
}

/// # Safety
/// F16C is there; `to` is as long as `from`, a multiple of 8.
#[target_feature(enable = "avx2,f16c")]
unsafe fn widen_f16c(from: &[f16], to: &mut [f32]) {
    for (from, to) in from.chunks_exact(8).zip(to.chunks_exact_mut(8)) {
        // SAFETY: both chunks have eight values.
        unsafe { _mm256_storeu_ps(to.as_mut_ptr(), _mm256_cvtph_ps(_mm_loadu_si128(from.as_ptr().cast()))) };
    }
}
