//! The two passes of `resample.rs` by hand for AVX2, with the same result to the last bit.
//!
//! A weight has [`WEIGHT_BITS`] + 1 bits, too many for the 16-bit multiply-and-add that does two taps of eight channels in one
//! instruction. So it is cut in two, `weight = high * 2^LOW_BITS + low`, and each part is summed for itself:
//!
//! ```text
//!   sum(level * weight) = sum(level * high) * 2^LOW_BITS + sum(level * low)      exact, modulo 2^32
//! ```
//!
//! The whole sum fits 32 bits (`resample::clip` says why), so a part that wraps on the way does no harm.
//!
//! The pass over columns takes four rows at a time, each padded so that four taps (twelve bytes) can always be read as sixteen.
//! What it writes has rows of whole blocks, so that the pass over rows has no rest to care for.

use std::arch::x86_64::{
    __m128i, __m256i, _mm_extract_epi32, _mm_loadu_si128, _mm256_add_epi32, _mm256_castsi128_si256, _mm256_castsi256_si128,
    _mm256_extracti128_si256, _mm256_inserti128_si256, _mm256_loadu_si256, _mm256_madd_epi16, _mm256_packs_epi32,
    _mm256_packus_epi16, _mm256_set1_epi32, _mm256_setr_epi8, _mm256_setzero_si256, _mm256_shuffle_epi8, _mm256_slli_epi32,
    _mm256_srai_epi32, _mm256_storeu_si256, _mm256_unpackhi_epi8, _mm256_unpacklo_epi8,
};

use super::resample::{CHANNELS, HALF, Passes, Taps, WEIGHT_BITS};

/// Bits of a weight's lower part; it has no sign, so one less than fits 16 bits.
const LOW_BITS: i32 = 15;
const SHIFT: i32 = WEIGHT_BITS as i32;
/// Taps that the pass over columns takes from one load.
const QUAD: usize = 4;
/// Bytes that the pass over rows sums at a time.
const BLOCK: usize = 32;
/// Bytes behind a row that may be read or written and mean nothing.
const PAD: usize = 32;
/// Rows of the picture that go through the pass over columns together.
const ROWS: usize = 4;

/// Weights of two neighbouring taps, each part as two 16-bit numbers in one word.
#[derive(Clone, Copy)]
struct Pair {
    low: i32,
    high: i32,
}

impl Pair {
    fn of(first: i32, second: i32) -> Self {
        let word = |a: i32, b: i32| (a & 0xffff) | (b << 16);
        let low = |w: i32| w & ((1 << LOW_BITS) - 1);
        Self { low: word(low(first), low(second)), high: word(first >> LOW_BITS, second >> LOW_BITS) }
    }
}

/// The weights of every output as pairs, filled up with zeros to whole groups of `group` taps.
struct Pairs {
    pairs: Vec<Pair>,
    stride: usize,
}

impl Pairs {
    fn of(taps: &Taps, group: usize) -> Self {
        let longest = taps.iter().map(|(_, weights)| weights.len()).max().unwrap_or(0);
        let stride = longest.next_multiple_of(group) / 2;
        let mut pairs = Vec::with_capacity(stride * taps.outputs());
        for (_, weights) in taps.iter() {
            let at = |tap: usize| weights.get(tap).copied().unwrap_or(0);
            pairs.extend((0..stride).map(|pair| Pair::of(at(2 * pair), at(2 * pair + 1))));
        }
        Self { pairs, stride }
    }

    /// Of an output with `taps` taps: as many pairs as its taps need, in whole groups.
    fn of_output(&self, output: usize, taps: usize, group: usize) -> &[Pair] {
        let all = &self.pairs[output * self.stride..][..self.stride];
        &all[..taps.next_multiple_of(group) / 2]
    }
}

/// Both passes.
#[target_feature(enable = "avx2")]
pub(super) fn run(passes: &Passes<'_>) -> Vec<u8> {
    let narrow_bytes = passes.columns.outputs() * CHANNELS;
    let stride = (narrow_bytes + 1).next_multiple_of(BLOCK);
    let narrow = pass_columns(passes, stride);
    pass_rows(passes, &narrow, stride, narrow_bytes)
}

#[target_feature(enable = "avx2")]
fn load16(bytes: &[u8], at: usize) -> __m128i {
    let bytes: &[u8; 16] = bytes[at..].first_chunk().expect("rows are padded");
    #[expect(unsafe_code, reason = "a load takes a pointer")]
    // SAFETY: the reference is to 16 bytes; the load wants no alignment.
    unsafe {
        _mm_loadu_si128(bytes.as_ptr().cast())
    }
}

#[target_feature(enable = "avx2")]
fn load32(bytes: &[u8], at: usize) -> __m256i {
    let bytes: &[u8; BLOCK] = bytes[at..].first_chunk().expect("rows are whole blocks");
    #[expect(unsafe_code, reason = "a load takes a pointer")]
    // SAFETY: the reference is to 32 bytes; the load wants no alignment.
    unsafe {
        _mm256_loadu_si256(bytes.as_ptr().cast())
    }
}

#[target_feature(enable = "avx2")]
fn store32(bytes: &mut [u8; BLOCK], value: __m256i) {
    #[expect(unsafe_code, reason = "a store takes a pointer")]
    // SAFETY: the reference is to 32 bytes; the store wants no alignment.
    unsafe {
        _mm256_storeu_si256(bytes.as_mut_ptr().cast(), value);
    }
}

/// Four finished sums a lane as levels, not yet narrowed.
#[target_feature(enable = "avx2")]
fn levels(low: __m256i, high: __m256i) -> __m256i {
    let sum = _mm256_add_epi32(low, _mm256_slli_epi32::<LOW_BITS>(high));
    _mm256_srai_epi32::<SHIFT>(_mm256_add_epi32(sum, _mm256_set1_epi32(HALF)))
}

/// Resamples every row that is read to the wanted columns; the rows of the result are `stride` bytes apart.
#[target_feature(enable = "avx2")]
fn pass_columns(passes: &Passes<'_>, stride: usize) -> Vec<u8> {
    let (taps, row_bytes) = (&passes.columns, passes.row_bytes);
    let pairs = Pairs::of(taps, QUAD);
    let rows = passes.read.len() / row_bytes;
    let mut narrow = vec![0; rows.next_multiple_of(ROWS) * stride];
    let padded = row_bytes + PAD;
    let mut wide = vec![0; ROWS * padded];
    for (four, output) in passes.read.chunks(ROWS * row_bytes).zip(narrow.chunks_exact_mut(ROWS * stride)) {
        for (row, into) in four.chunks_exact(row_bytes).zip(wide.chunks_exact_mut(padded)) {
            into[..row_bytes].copy_from_slice(row);
        }
        four_rows(&wide, padded, taps, &pairs, output, stride);
    }
    narrow
}

#[target_feature(enable = "avx2")]
fn four_rows(wide: &[u8], padded: usize, taps: &Taps, pairs: &Pairs, output: &mut [u8], stride: usize) {
    let zero = _mm256_setzero_si256();
    // Of twelve bytes r0 g0 b0 r1 g1 b1 ...: the channels of taps 0 and 1 side by side in 16 bits each, and those of 2 and 3.
    #[rustfmt::skip]
    let first_two = _mm256_setr_epi8(
        0, -1, 3, -1, 1, -1, 4, -1, 2, -1, 5, -1, -1, -1, -1, -1,
        0, -1, 3, -1, 1, -1, 4, -1, 2, -1, 5, -1, -1, -1, -1, -1,
    );
    #[rustfmt::skip]
    let last_two = _mm256_setr_epi8(
        6, -1, 9, -1, 7, -1, 10, -1, 8, -1, 11, -1, -1, -1, -1, -1,
        6, -1, 9, -1, 7, -1, 10, -1, 8, -1, 11, -1, -1, -1, -1, -1,
    );
    let (upper, lower) = wide.split_at(2 * padded);
    let halves = [upper.split_at(padded), lower.split_at(padded)];
    for (at, (first, weights)) in taps.iter().enumerate() {
        let mut low = [zero; 2];
        let mut high = [zero; 2];
        let quads = pairs.of_output(at, weights.len(), QUAD).as_chunks::<2>().0;
        let bytes = (first * CHANNELS..).step_by(QUAD * CHANNELS);
        for ([left, right], byte) in quads.iter().zip(bytes) {
            let (left_low, left_high) = (_mm256_set1_epi32(left.low), _mm256_set1_epi32(left.high));
            let (right_low, right_high) = (_mm256_set1_epi32(right.low), _mm256_set1_epi32(right.high));
            for ((upper, lower), (low, high)) in halves.into_iter().zip(low.iter_mut().zip(&mut high)) {
                let both = _mm256_castsi128_si256(load16(upper, byte));
                let both = _mm256_inserti128_si256::<1>(both, load16(lower, byte));
                let (left, right) = (_mm256_shuffle_epi8(both, first_two), _mm256_shuffle_epi8(both, last_two));
                let sum = _mm256_add_epi32(_mm256_madd_epi16(left, left_low), _mm256_madd_epi16(right, right_low));
                *low = _mm256_add_epi32(*low, sum);
                let sum = _mm256_add_epi32(_mm256_madd_epi16(left, left_high), _mm256_madd_epi16(right, right_high));
                *high = _mm256_add_epi32(*high, sum);
            }
        }
        let words = _mm256_packs_epi32(levels(low[0], high[0]), levels(low[1], high[1]));
        let bytes = _mm256_packus_epi16(words, words);
        // The lower lane now holds rows 0 and 2, the upper one rows 1 and 3: four bytes each, the fourth to be overwritten.
        let (even, odd) = (_mm256_castsi256_si128(bytes), _mm256_extracti128_si256::<1>(bytes));
        let rows = [
            _mm_extract_epi32::<0>(even),
            _mm_extract_epi32::<0>(odd),
            _mm_extract_epi32::<1>(even),
            _mm_extract_epi32::<1>(odd),
        ];
        for (value, row) in rows.into_iter().zip(output.chunks_exact_mut(stride)) {
            row[at * CHANNELS..][..4].copy_from_slice(&value.to_le_bytes());
        }
    }
}

/// Resamples rows to the wanted rows; gives them without padding.
#[target_feature(enable = "avx2")]
fn pass_rows(passes: &Passes<'_>, narrow: &[u8], stride: usize, narrow_bytes: usize) -> Vec<u8> {
    let taps = &passes.rows;
    let pairs = Pairs::of(taps, 2);
    let zero = _mm256_setzero_si256();
    let mut window = Vec::with_capacity(taps.outputs() * narrow_bytes);
    let mut line = vec![0; stride];
    for (at, (first, weights)) in taps.iter().enumerate() {
        // An odd number of taps is filled up with a weight of zero; the row it meets exists, as rows come in whole fours or
        // is then the last one itself.
        let start = (first - passes.first_row) * stride;
        let last = narrow.len() - stride;
        for (block, into) in line.as_chunks_mut::<BLOCK>().0.iter_mut().enumerate() {
            let mut low = [zero; 4];
            let mut high = [zero; 4];
            let mut upper = start + block * BLOCK;
            for pair in pairs.of_output(at, weights.len(), 2) {
                let lower = (upper + stride).min(last + block * BLOCK);
                let (a, b) = (load32(narrow, upper), load32(narrow, lower));
                upper += 2 * stride;
                let (left, right) = (_mm256_unpacklo_epi8(a, b), _mm256_unpackhi_epi8(a, b));
                let columns = [
                    _mm256_unpacklo_epi8(left, zero),
                    _mm256_unpackhi_epi8(left, zero),
                    _mm256_unpacklo_epi8(right, zero),
                    _mm256_unpackhi_epi8(right, zero),
                ];
                let (weight_low, weight_high) = (_mm256_set1_epi32(pair.low), _mm256_set1_epi32(pair.high));
                for (columns, (low, high)) in columns.into_iter().zip(low.iter_mut().zip(&mut high)) {
                    *low = _mm256_add_epi32(*low, _mm256_madd_epi16(columns, weight_low));
                    *high = _mm256_add_epi32(*high, _mm256_madd_epi16(columns, weight_high));
                }
            }
            let left = _mm256_packs_epi32(levels(low[0], high[0]), levels(low[1], high[1]));
            let right = _mm256_packs_epi32(levels(low[2], high[2]), levels(low[3], high[3]));
            store32(into, _mm256_packus_epi16(left, right));
        }
        window.extend_from_slice(&line[..narrow_bytes]);
    }
    window
}
