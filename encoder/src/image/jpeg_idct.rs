//! libjpeg's accurate integer inverse DCT ("islow") for AVX2: coefficients of one block and their quantization steps to 8 x 8 samples.
//!
//! ```text
//!   coefficients * steps ──columns──► 8 x 8 ──transpose──► rows ──transpose, + 128──► samples
//! ```
//!
//! The arithmetic is that of libjpeg-turbo's own AVX2 code, which Pillow runs: products of two 16-bit numbers summed in 32 bits, sums
//! before a product in 16 bits, narrowing that saturates. For every block that an encoder writes that equals libjpeg's plain C; for
//! corrupt ones, whose numbers leave 16 bits, it equals Pillow. Each pair of products is one instruction (`madd`), so factors stand
//! in pairs, rotations multiplied out.

use std::arch::x86_64::{
    __m128i, __m256i, _mm_add_epi16, _mm_loadu_si128, _mm_mullo_epi16, _mm_or_si128, _mm_packs_epi16, _mm_set1_epi8,
    _mm_slli_epi16, _mm_storeu_si128, _mm_sub_epi16, _mm_testz_si128, _mm_unpackhi_epi16, _mm_unpackhi_epi32, _mm_unpackhi_epi64,
    _mm_unpacklo_epi16, _mm_unpacklo_epi32, _mm_unpacklo_epi64, _mm_xor_si128, _mm256_add_epi32, _mm256_castsi256_si128,
    _mm256_cvtepi16_epi32, _mm256_extracti128_si256, _mm256_madd_epi16, _mm256_packs_epi32, _mm256_permute4x64_epi64,
    _mm256_set_m128i, _mm256_set1_epi32, _mm256_slli_epi32, _mm256_srai_epi32, _mm256_sub_epi32,
};

/// Samples along a block's edge.
pub(super) const EDGE: usize = 8;
/// Coefficients of a block, and its samples.
pub(super) const AREA: usize = EDGE * EDGE;

/// Fractional bits of the factors below.
const FACTOR_BITS: i32 = 13;
/// Fractional bits that the first pass leaves for the second.
const BETWEEN_BITS: i32 = 2;
/// Bits that each pass cuts off; the two-dimensional transform is scaled by 8.
const AFTER_COLUMNS: i32 = FACTOR_BITS - BETWEEN_BITS;
const AFTER_ROWS: i32 = FACTOR_BITS + BETWEEN_BITS + 3;

/// libjpeg's factors (jidctint.c): sums of cosines times the root of 2, in 8,192nds.
const F_0_298: i16 = 2446;
const F_0_390: i16 = 3196;
const F_0_541: i16 = 4433;
const F_0_765: i16 = 6270;
const F_0_899: i16 = 7373;
const F_1_175: i16 = 9633;
const F_1_501: i16 = 12299;
const F_1_847: i16 = 15137;
const F_1_961: i16 = 16069;
const F_2_053: i16 = 16819;
const F_2_562: i16 = 20995;
const F_3_072: i16 = 25172;

/// Eight rows, or columns, of eight 16-bit numbers.
type Square = [__m128i; EDGE];

/// Coefficients in natural order (row by row) to samples, row by row.
#[target_feature(enable = "avx2")]
pub(super) fn inverse(coefficients: &[i16; AREA], steps: &[u16; AREA]) -> [u8; AREA] {
    let (found, _) = coefficients.as_chunks::<EDGE>();
    let (steps, _) = steps.as_chunks::<EDGE>();
    let mut rows: Square = std::array::from_fn(|at| load(found[at]));
    let below = rows[1..].iter().fold(rows[1], |any, &row| _mm_or_si128(any, row));
    for (row, &step) in rows.iter_mut().zip(steps) {
        *row = _mm_mullo_epi16(*row, load(step.map(u16::cast_signed)));
    }
    // Often only the first row is not zero; then every column is flat, as the first pass would find.
    let columns = if _mm_testz_si128(below, below) == 1 {
        [_mm_slli_epi16::<BETWEEN_BITS>(rows[0]); EDGE]
    } else {
        pass::<AFTER_COLUMNS>(rows)
    };
    samples(transposed(pass::<AFTER_ROWS>(transposed(columns))))
}

/// The one-dimensional transform of each lane, cut off by `DOWN` bits with rounding.
#[target_feature(enable = "avx2")]
fn pass<const DOWN: i32>(lanes: Square) -> Square {
    let [y0, y1, y2, y3, y4, y5, y6, y7] = lanes;
    let even = Pair::of(y2, y6);
    let rotated = [even.sum(F_0_541 + F_0_765, F_0_541), even.sum(F_0_541, F_0_541 - F_1_847)];
    let straight =
        [_mm_add_epi16(y0, y4), _mm_sub_epi16(y0, y4)].map(|sum| _mm256_slli_epi32::<FACTOR_BITS>(_mm256_cvtepi16_epi32(sum)));
    let even = [
        _mm256_add_epi32(straight[0], rotated[0]),
        _mm256_add_epi32(straight[1], rotated[1]),
        _mm256_sub_epi32(straight[1], rotated[1]),
        _mm256_sub_epi32(straight[0], rotated[0]),
    ];
    let crossed = Pair::of(_mm_add_epi16(y7, y3), _mm_add_epi16(y5, y1));
    let (z3, z4) = (crossed.sum(F_1_175 - F_1_961, F_1_175), crossed.sum(F_1_175, F_1_175 - F_0_390));
    let (outer, inner) = (Pair::of(y7, y1), Pair::of(y5, y3));
    let odd = [
        _mm256_add_epi32(outer.sum(-F_0_899, F_1_501 - F_0_899), z4),
        _mm256_add_epi32(inner.sum(-F_2_562, F_3_072 - F_2_562), z3),
        _mm256_add_epi32(inner.sum(F_2_053 - F_2_562, -F_2_562), z4),
        _mm256_add_epi32(outer.sum(F_0_298 - F_0_899, -F_0_899), z3),
    ];
    let mut out = lanes;
    for at in 0..EDGE / 2 {
        let (sum, difference) = (_mm256_add_epi32(even[at], odd[at]), _mm256_sub_epi32(even[at], odd[at]));
        (out[at], out[EDGE - 1 - at]) = narrowed(cut::<DOWN>(sum), cut::<DOWN>(difference));
    }
    out
}

#[target_feature(enable = "avx2")]
fn cut<const DOWN: i32>(sums: __m256i) -> __m256i {
    _mm256_srai_epi32::<DOWN>(_mm256_add_epi32(sums, _mm256_set1_epi32(1 << (DOWN - 1))))
}

/// Two numbers a lane, side by side, as `madd` wants them.
#[derive(Clone, Copy)]
struct Pair(__m256i);

impl Pair {
    #[target_feature(enable = "avx2")]
    fn of(first: __m128i, second: __m128i) -> Self {
        Self(_mm256_set_m128i(_mm_unpackhi_epi16(first, second), _mm_unpacklo_epi16(first, second)))
    }

    /// `first * a + second * b` of each lane.
    #[target_feature(enable = "avx2")]
    fn sum(self, a: i16, b: i16) -> __m256i {
        let word = i32::from(a) & 0xffff | i32::from(b) << 16;
        _mm256_madd_epi16(self.0, _mm256_set1_epi32(word))
    }
}

/// Both narrowed to 16 bits, saturating.
#[target_feature(enable = "avx2")]
fn narrowed(first: __m256i, second: __m256i) -> (__m128i, __m128i) {
    // The instruction narrows each half for itself.
    let both = _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_packs_epi32(first, second));
    (_mm256_castsi256_si128(both), _mm256_extracti128_si256::<1>(both))
}

#[target_feature(enable = "avx2")]
fn transposed(square: Square) -> Square {
    let [a, b, c, d, e, f, g, h] = square;
    let twos = [(a, b), (c, d), (e, f), (g, h)].map(|(x, y)| (_mm_unpacklo_epi16(x, y), _mm_unpackhi_epi16(x, y)));
    let fours = |upper: __m128i, lower: __m128i| (_mm_unpacklo_epi32(upper, lower), _mm_unpackhi_epi32(upper, lower));
    let [first, second, third, fourth] = twos;
    let (left01, left23) = fours(first.0, second.0);
    let (left45, left67) = fours(first.1, second.1);
    let (right01, right23) = fours(third.0, fourth.0);
    let (right45, right67) = fours(third.1, fourth.1);
    let mut out = square;
    for (at, (left, right)) in
        [(left01, right01), (left23, right23), (left45, right45), (left67, right67)].into_iter().enumerate()
    {
        out[2 * at] = _mm_unpacklo_epi64(left, right);
        out[2 * at + 1] = _mm_unpackhi_epi64(left, right);
    }
    out
}

/// Rows of numbers around zero to bytes around 128.
#[target_feature(enable = "avx2")]
fn samples(rows: Square) -> [u8; AREA] {
    let mut out = [0; AREA];
    for (two, out) in rows.as_chunks::<2>().0.iter().zip(out.as_chunks_mut::<{ 2 * EDGE }>().0) {
        store(out, _mm_xor_si128(_mm_packs_epi16(two[0], two[1]), _mm_set1_epi8(i8::MIN)));
    }
    out
}

#[target_feature(enable = "avx2")]
fn load(row: [i16; EDGE]) -> __m128i {
    #[expect(unsafe_code, reason = "a load takes a pointer")]
    // SAFETY: the array has 16 bytes; the load wants no alignment.
    unsafe {
        _mm_loadu_si128(row.as_ptr().cast())
    }
}

#[target_feature(enable = "avx2")]
fn store(bytes: &mut [u8; 2 * EDGE], value: __m128i) {
    #[expect(unsafe_code, reason = "a store takes a pointer")]
    // SAFETY: the reference is to 16 bytes; the store wants no alignment.
    unsafe {
        _mm_storeu_si128(bytes.as_mut_ptr().cast(), value);
    }
}
