//! The peer's distance, and the exact answers': a dot product of f32.

#[expect(unsafe_code, reason = "a distance kernel compiled for AVX2, so that the peer is not held back by its distance")]
pub(super) fn dot(a: &[f32], b: &[f32]) -> f32 {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
        // SAFETY: both features were found.
        return unsafe { dot_avx2(a, b) };
    }
    lanes(a, b, |x, y, sum| x * y + sum)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
pub(super) fn dot_avx2(a: &[f32], b: &[f32]) -> f32 {
    lanes(a, b, f32::mul_add)
}

/// Sums in 32 lanes, which the compiler puts into vector registers; lengths are multiples of 32.
#[inline(always)]
pub(super) fn lanes(a: &[f32], b: &[f32], step: impl Fn(f32, f32, f32) -> f32) -> f32 {
    let mut sums = [0f32; 32];
    for (a, b) in a.chunks_exact(32).zip(b.chunks_exact(32)) {
        for i in 0..32 {
            sums[i] = step(a[i], b[i], sums[i]);
        }
    }
    sums.iter().sum()
}
