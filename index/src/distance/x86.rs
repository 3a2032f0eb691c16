//! AVX2 and AVX-512 VNNI kernels. Each takes the [`Cpu`] that proves the features, and equals its twin in `scalar`.
#![expect(unsafe_code, reason = "vector intrinsics")]

use std::arch::x86_64::*;

use half::f16;

use super::{BitQuery, Cpu, Floor};

pub(super) fn dot_query_avx2(_proof: Cpu, row: &[u8], query: &[i8]) -> i32 {
    // SAFETY: `Cpu::detect` found AVX2; lengths are equal multiples of 64 (asserted by the caller).
    unsafe { avx2::<false>(row.as_ptr(), query.as_ptr().cast(), row.len()) }
}

pub(super) fn dot_rows_avx2(_proof: Cpu, a: &[u8], b: &[u8]) -> i32 {
    // SAFETY: as above.
    unsafe { avx2::<true>(a.as_ptr(), b.as_ptr(), a.len()) }
}

pub(super) fn dot_query_vnni(_proof: Cpu, row: &[u8], query: &[i8]) -> i32 {
    // SAFETY: `Cpu::detect` found AVX-512 F, BW and VNNI; lengths are equal multiples of 64 (asserted by the caller).
    unsafe { vnni::<false>(row.as_ptr(), query.as_ptr().cast(), row.len()) }
}

pub(super) fn dot_rows_vnni(_proof: Cpu, a: &[u8], b: &[u8]) -> i32 {
    // SAFETY: as above.
    unsafe { vnni::<true>(a.as_ptr(), b.as_ptr(), a.len()) }
}

/// Sum of `a[i] * s[i]` with `s` signed, or `b - 64` when `BIASED`. `a` is at most 127, so that the pair sums of `maddubs` stay
/// within 127 * 128 * 2 = 32,512 and never saturate.
///
/// # Safety
/// AVX2 is there; both pointers have `len` readable bytes; `len` is a multiple of 64.
#[target_feature(enable = "avx2")]
unsafe fn avx2<const BIASED: bool>(a: *const u8, b: *const u8, len: usize) -> i32 {
    let ones = _mm256_set1_epi16(1);
    let bias = _mm256_set1_epi8(64);
    let mut sums = [_mm256_setzero_si256(); 2];
    let mut at = 0;
    while at < len {
        for (half, sum) in sums.iter_mut().enumerate() {
            // SAFETY: at + 64 <= len, by the contract.
            let (row, mut other) =
                unsafe { (_mm256_loadu_si256(a.add(at + half * 32).cast()), _mm256_loadu_si256(b.add(at + half * 32).cast())) };
            if BIASED {
                other = _mm256_sub_epi8(other, bias);
            }
            *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(_mm256_maddubs_epi16(row, other), ones));
        }
        at += 64;
    }
    let sum = _mm256_add_epi32(sums[0], sums[1]);
    let sum = _mm_add_epi32(_mm256_castsi256_si128(sum), _mm256_extracti128_si256::<1>(sum));
    let sum = _mm_add_epi32(sum, _mm_shuffle_epi32::<0b00_00_11_10>(sum));
    let sum = _mm_add_epi32(sum, _mm_shuffle_epi32::<0b00_00_00_01>(sum));
    _mm_cvtsi128_si32(sum)
}

/// As [`avx2`], 64 bytes an instruction.
///
/// # Safety
/// AVX-512 F, BW and VNNI are there; both pointers have `len` readable bytes; `len` is a multiple of 64.
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
unsafe fn vnni<const BIASED: bool>(a: *const u8, b: *const u8, len: usize) -> i32 {
    let bias = _mm512_set1_epi8(64);
    let step = |sum, at: usize| {
        // SAFETY: at + 64 <= len, by the loop's test.
        let (row, mut other) = unsafe { (_mm512_loadu_si512(a.add(at).cast()), _mm512_loadu_si512(b.add(at).cast())) };
        if BIASED {
            other = _mm512_sub_epi8(other, bias);
        }
        _mm512_dpbusd_epi32(sum, row, other)
    };
    // Four sums: an addition that waits for the one before takes four times as long as one that does not.
    let mut sums = [_mm512_setzero_si512(); 4];
    let mut at = 0;
    while at + 256 <= len {
        for (part, sum) in sums.iter_mut().enumerate() {
            *sum = step(*sum, at + part * 64);
        }
        at += 256;
    }
    while at < len {
        sums[0] = step(sums[0], at);
        at += 64;
    }
    let sum = _mm512_add_epi32(_mm512_add_epi32(sums[0], sums[1]), _mm512_add_epi32(sums[2], sums[3]));
    _mm512_reduce_add_epi32(sum)
}

pub(super) fn dot_bits_avx2(_proof: Cpu, row: &[u8], planes: &[u64]) -> i32 {
    // SAFETY: `Cpu::detect` found AVX2; the row is a multiple of 64 bytes and there are four planes of its length (asserted
    // by the caller).
    unsafe { bits_avx2(row.as_ptr(), planes.as_ptr().cast(), row.len()) }
}

pub(super) fn dot_bits_avx512(_proof: Cpu, row: &[u8], planes: &[u64]) -> i32 {
    // SAFETY: as above, with AVX-512 F and VPOPCNTDQ.
    unsafe { bits_avx512(row.as_ptr(), planes.as_ptr().cast(), row.len()) }
}

/// The whole loop with the features on, so that the kernel becomes part of it.
pub(super) fn sift_avx512(_proof: Cpu, lines: &[u8], query: &BitQuery, nodes: &mut Vec<u32>, floor: Floor) {
    #[target_feature(enable = "avx512f,avx512vpopcntdq")]
    fn with_features(lines: &[u8], query: &BitQuery, nodes: &mut Vec<u32>, floor: Floor) {
        query.sift(lines, nodes, floor, |line, planes| {
            // SAFETY: a line is a quarter as long as the planes, which are a multiple of four lines (asserted by the caller).
            unsafe { bits_avx512(line.as_ptr(), planes.as_ptr().cast(), line.len()) }
        });
    }
    // SAFETY: `Cpu::detect` found the features.
    unsafe { with_features(lines, query, nodes, floor) }
}

/// Ones in `row & plane` for four planes, weighted 1, 2, 4 and -8; bytes are counted by two look-ups of half a byte.
///
/// # Safety
/// AVX2 is there; `row` has `len` readable bytes, a multiple of 64, and `planes` four times as many.
#[target_feature(enable = "avx2")]
unsafe fn bits_avx2(row: *const u8, planes: *const u8, len: usize) -> i32 {
    let ones = _mm256_setr_epi8(0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4, 0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4);
    let low = _mm256_set1_epi8(15);
    let mut counts = [_mm256_setzero_si256(); 4];
    let mut at = 0;
    while at < len {
        // SAFETY: at + 32 <= len, by the contract.
        let bits = unsafe { _mm256_loadu_si256(row.add(at).cast()) };
        for (plane, count) in counts.iter_mut().enumerate() {
            // SAFETY: four planes of `len` bytes, by the contract.
            let plane = unsafe { _mm256_loadu_si256(planes.add(plane * len + at).cast()) };
            let shared = _mm256_and_si256(bits, plane);
            let of_low = _mm256_shuffle_epi8(ones, _mm256_and_si256(shared, low));
            let of_high = _mm256_shuffle_epi8(ones, _mm256_and_si256(_mm256_srli_epi16::<4>(shared), low));
            let sums = _mm256_sad_epu8(_mm256_add_epi8(of_low, of_high), _mm256_setzero_si256());
            *count = _mm256_add_epi64(*count, sums);
        }
        at += 32;
    }
    let positive = _mm256_add_epi64(counts[0], _mm256_slli_epi64::<1>(counts[1]));
    let positive = _mm256_add_epi64(positive, _mm256_slli_epi64::<2>(counts[2]));
    let sum = _mm256_sub_epi64(positive, _mm256_slli_epi64::<3>(counts[3]));
    let sum = _mm_add_epi64(_mm256_castsi256_si128(sum), _mm256_extracti128_si256::<1>(sum));
    _mm_cvtsi128_si32(_mm_add_epi64(sum, _mm_unpackhi_epi64(sum, sum)))
}

/// As [`bits_avx2`], with the instruction that counts.
///
/// # Safety
/// AVX-512 F and VPOPCNTDQ are there; `row` has `len` readable bytes, a multiple of 64, and `planes` four times as many.
#[inline]
#[target_feature(enable = "avx512f,avx512vpopcntdq")]
unsafe fn bits_avx512(row: *const u8, planes: *const u8, len: usize) -> i32 {
    let mut counts = [_mm512_setzero_si512(); 4];
    let mut at = 0;
    while at < len {
        // SAFETY: at + 64 <= len, by the contract.
        let bits = unsafe { _mm512_loadu_si512(row.add(at).cast()) };
        for (plane, count) in counts.iter_mut().enumerate() {
            // SAFETY: four planes of `len` bytes, by the contract.
            let plane = unsafe { _mm512_loadu_si512(planes.add(plane * len + at).cast()) };
            *count = _mm512_add_epi64(*count, _mm512_popcnt_epi64(_mm512_and_si512(bits, plane)));
        }
        at += 64;
    }
    let positive = _mm512_add_epi64(counts[0], _mm512_slli_epi64::<1>(counts[1]));
    let positive = _mm512_add_epi64(positive, _mm512_slli_epi64::<2>(counts[2]));
    _mm512_reduce_add_epi64(_mm512_sub_epi64(positive, _mm512_slli_epi64::<3>(counts[3]))) as i32
}

pub(super) fn dot_f16(_proof: Cpu, row: &[f16], query: &[f32]) -> f32 {
    // SAFETY: `Cpu::detect` found AVX2, FMA and F16C; lengths are equal multiples of 32 (asserted by the caller).
    unsafe { f16_many(row, [query])[0] }
}

pub(super) fn dot_f16_x4(_proof: Cpu, row: &[f16], queries: [&[f32]; 4]) -> [f32; 4] {
    // SAFETY: as above.
    unsafe { f16_many(row, queries) }
}

/// # Safety
/// AVX2, FMA and F16C are there; every query is as long as `row`, a multiple of 16.
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn f16_many<const N: usize>(row: &[f16], queries: [&[f32]; N]) -> [f32; N] {
    let mut low = [_mm256_setzero_ps(); N];
    let mut high = [_mm256_setzero_ps(); N];
    let values: *const u16 = row.as_ptr().cast();
    let mut at = 0;
    while at + 16 <= row.len() {
        // SAFETY: at + 16 values are within the row, by the loop's test.
        let (a, b) = unsafe {
            (_mm256_cvtph_ps(_mm_loadu_si128(values.add(at).cast())), _mm256_cvtph_ps(_mm_loadu_si128(values.add(at + 8).cast())))
        };
        for i in 0..N {
            // SAFETY: queries are as long as the row, by the contract.
            let (x, y) = unsafe {
                let query = queries[i].as_ptr();
                (_mm256_loadu_ps(query.add(at)), _mm256_loadu_ps(query.add(at + 8)))
            };
            low[i] = _mm256_fmadd_ps(a, x, low[i]);
            high[i] = _mm256_fmadd_ps(b, y, high[i]);
        }
        at += 16;
    }
    let mut out = [0.0; N];
    for i in 0..N {
        let sum = _mm256_add_ps(low[i], high[i]);
        let sum = _mm_add_ps(_mm256_castps256_ps128(sum), _mm256_extractf128_ps::<1>(sum));
        let sum = _mm_add_ps(sum, _mm_movehl_ps(sum, sum));
        let sum = _mm_add_ss(sum, _mm_shuffle_ps::<1>(sum, sum));
        out[i] = _mm_cvtss_f32(sum);
    }
    out
}

pub(super) fn prefetch_value<T>(value: &T) {
    // SAFETY: the address is that of a value; a prefetch reads nothing and cannot fault.
    unsafe { _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(value).cast()) };
}

pub(super) fn prefetch(bytes: &[u8]) {
    let mut at = 0;
    while at < bytes.len() {
        // SAFETY: at < len, so the address is within the slice; a prefetch reads nothing and cannot fault.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(bytes.as_ptr().add(at).cast()) };
        at += 64;
    }
}
