//! The last two steps of a JPEG, colour planes to RGB, as libjpeg computes them and at the speed of vectors.
//!
//! ```text
//!   luma ────────────────────────────────┐
//!   blue, red difference ──widen (fancy)─┴──to RGB──► rows of red, green, blue
//! ```
//!
//! libjpeg-turbo's vector code wants an assembler that a bare machine does not have, and its plain C takes a third of a picture's time
//! for these two steps. Both are a few sums; here they are plain Rust that the compiler turns into vectors, compiled for any
//! machine of the target and for AVX2. Names as in libjpeg: h2v2 is half the columns and half the rows.
//!
//! Widening is libjpeg's "fancy" one: a sample weighs 3/4 of the nearer and 1/4 of the farther, in each halved direction, with
//! the rounding turned by position so that it does not drift; at an edge the farther is the nearer. Colours are those of JFIF with
//! 16 fractional bits.

use crate::image::{Window, buffer_bytes};

/// One plane: rows of `stride` samples, of which `width` from `left` on mean something.
pub(super) struct Plane {
    pub(super) samples: Vec<u8>,
    pub(super) stride: usize,
    pub(super) left: usize,
    pub(super) width: usize,
    pub(super) height: usize,
}

impl Plane {
    fn row(&self, row: usize) -> &[u8] {
        &self.samples[row * self.stride + self.left..][..self.width]
    }
}

/// A picture as three planes: luma at full size, both differences halved or not in each direction.
pub(super) struct Planes {
    pub(super) luma: Plane,
    /// Blue, red.
    pub(super) differences: [Plane; 2],
    pub(super) halved: Halved,
}

/// In which directions the differences have half the samples.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Halved {
    pub(super) columns: bool,
    pub(super) rows: bool,
}

impl Planes {
    /// The window's rows of red, green, blue; `None` when a plane has fewer samples than its size says, or the window leaves it.
    pub(super) fn into_rgb(self, window: Window) -> Option<Vec<u8>> {
        let complete =
            |plane: &Plane| plane.left + plane.width <= plane.stride && plane.samples.len() >= plane.stride * plane.height;
        let all = [&self.luma, &self.differences[0], &self.differences[1]];
        let inside = window.top + window.height <= self.luma.height && window.left + window.width <= self.luma.width;
        if !inside || !all.into_iter().all(complete) {
            return None;
        }
        let mut rgb = vec![0; buffer_bytes("JPEG", window.width, window.height, 3).ok()?];
        convert(&self, window, &mut rgb);
        Some(rgb)
    }

    #[inline(always)]
    fn convert(&self, window: Window, rgb: &mut [u8]) {
        let columns = window.left..window.left + window.width;
        let mut scratch = Scratch::new(self.luma.width);
        for (row, out) in (window.top..).zip(rgb.chunks_exact_mut(window.width * 3)) {
            let [blue, red] = &self.differences;
            self.widen(blue, row, &mut scratch.sums, &mut scratch.blue);
            self.widen(red, row, &mut scratch.sums, &mut scratch.red);
            to_rgb(&self.luma.row(row)[columns.clone()], &scratch.blue[columns.clone()], &scratch.red[columns.clone()], out);
        }
    }

    /// One full row of a difference.
    #[inline(always)]
    fn widen(&self, plane: &Plane, row: usize, sums: &mut [u16], out: &mut [u8]) {
        let Halved { columns, rows } = self.halved;
        let near = plane.row(if rows { row / 2 } else { row });
        let far = plane.row(if rows { other_row(row, plane.height) } else { row });
        let below = row % 2 == 1;
        match (columns, rows) {
            (false, false) => out[..near.len()].copy_from_slice(near),
            (false, true) => h1v2(near, far, below, out),
            (true, false) => {
                for (sum, &sample) in inner(sums, near.len()).iter_mut().zip(near) {
                    *sum = u16::from(sample);
                }
                wide(sums, near.len(), Rounding { left: 1, right: 2, bits: 2 }, out);
            }
            (true, true) => {
                for (sum, (&near, &far)) in inner(sums, near.len()).iter_mut().zip(near.iter().zip(far)) {
                    *sum = 3 * u16::from(near) + u16::from(far);
                }
                wide(sums, near.len(), Rounding { left: 8, right: 7, bits: 4 }, out);
            }
        }
    }
}

/// Buffers of one row, reused.
struct Scratch {
    /// Sums over two rows, with the first and the last repeated around them.
    sums: Vec<u16>,
    blue: Vec<u8>,
    red: Vec<u8>,
}

impl Scratch {
    fn new(width: usize) -> Self {
        // Widening gives an even number of columns.
        Self { sums: vec![0; width + 3], blue: vec![0; width + 1], red: vec![0; width + 1] }
    }
}

/// The halved row on the other side of full row `row` than its own.
fn other_row(row: usize, height: usize) -> usize {
    if row % 2 == 1 { (row / 2 + 1).min(height - 1) } else { (row / 2).saturating_sub(1) }
}

#[inline(always)]
fn inner(sums: &mut [u16], width: usize) -> &mut [u16] {
    &mut sums[1..=width]
}

#[inline(always)]
fn h1v2(near: &[u8], far: &[u8], below: bool, out: &mut [u8]) {
    let rounding = if below { 2 } else { 1 };
    for ((out, &near), &far) in out.iter_mut().zip(near).zip(far) {
        *out = ((3 * u16::from(near) + u16::from(far) + rounding) >> 2) as u8;
    }
}

/// How the two samples that come from one are rounded.
#[derive(Clone, Copy)]
struct Rounding {
    left: u16,
    right: u16,
    bits: u32,
}

/// Each sum to two samples, the left one leaning to its left neighbour and the right one to its right.
#[inline(always)]
fn wide(sums: &mut [u16], width: usize, rounding: Rounding, out: &mut [u8]) {
    sums[0] = sums[1];
    sums[width + 1] = sums[width];
    let Rounding { left, right, bits } = rounding;
    let (before, here, after) = (&sums[..width], &sums[1..=width], &sums[2..width + 2]);
    let two = out.as_chunks_mut::<2>().0.iter_mut();
    for (((out, &before), &here), &after) in two.zip(before).zip(here).zip(after) {
        // At most 4 x 4 x 255 + 8.
        let three = here.wrapping_mul(3);
        let one = three.wrapping_add(before).wrapping_add(left) >> bits;
        let other = three.wrapping_add(after).wrapping_add(right) >> bits;
        *out = [one as u8, other as u8];
    }
}

/// Pixels converted at a time.
const BLOCK: usize = 32;

#[inline(always)]
fn to_rgb(luma: &[u8], blue: &[u8], red: &[u8], out: &mut [u8]) {
    let whole = luma.len() / BLOCK * BLOCK;
    let blocks = luma.as_chunks::<BLOCK>().0.iter().zip(blue.as_chunks::<BLOCK>().0).zip(red.as_chunks::<BLOCK>().0);
    for (((luma, blue), red), out) in blocks.zip(out.as_chunks_mut::<{ 3 * BLOCK }>().0) {
        block_to_rgb(luma, blue, red, out);
    }
    let rest = luma.len() - whole;
    if rest > 0 {
        let padded = |samples: &[u8]| {
            let mut block = [0; BLOCK];
            block[..rest].copy_from_slice(&samples[whole..]);
            block
        };
        let mut last = [0; 3 * BLOCK];
        block_to_rgb(&padded(luma), &padded(blue), &padded(red), &mut last);
        out[whole * 3..].copy_from_slice(&last[..rest * 3]);
    }
}

/// 65,536ths: 1.402 less 1; 1.772 less 2; 0.34414; 1 less 0.71414. What was taken off keeps them within 16 bits.
const RED: i32 = 91_881 - 65_536;
const BLUE: i32 = 116_130 - 131_072;
const GREEN_BLUE: i32 = -22_554;
const GREEN_RED: i32 = 65_536 - 46_802;

#[inline(always)]
fn block_to_rgb(luma: &[u8; BLOCK], blue: &[u8; BLOCK], red: &[u8; BLOCK], out: &mut [u8; 3 * BLOCK]) {
    let mut channels = [[0_u8; BLOCK]; 3];
    for at in 0..BLOCK {
        let y = i16::from(luma[at]);
        let (b, r) = (i16::from(blue[at]).wrapping_sub(128), i16::from(red[at]).wrapping_sub(128));
        let green = i32::from(b).wrapping_mul(GREEN_BLUE).wrapping_add(i32::from(r).wrapping_mul(GREEN_RED));
        let green = (green.wrapping_add(1 << 15) >> 16) as i16;
        channels[0][at] = level(y.wrapping_add(r).wrapping_add(rounded(r, RED)));
        channels[1][at] = level(y.wrapping_sub(r).wrapping_add(green));
        channels[2][at] = level(y.wrapping_add(b).wrapping_add(b).wrapping_add(rounded(b, BLUE)));
    }
    for (at, pixel) in out.as_chunks_mut::<3>().0.iter_mut().enumerate() {
        *pixel = [channels[0][at], channels[1][at], channels[2][at]];
    }
}

/// `(value * factor + 2^15) >> 16`, by way of the upper half of a 16-bit product.
#[inline(always)]
fn rounded(value: i16, factor: i32) -> i16 {
    let upper = (i32::from(value.wrapping_mul(2)).wrapping_mul(factor) >> 16) as i16;
    upper.wrapping_add(1) >> 1
}

#[inline(always)]
fn level(value: i16) -> u8 {
    value.clamp(0, 255) as u8
}

#[cfg(target_arch = "x86_64")]
fn convert(planes: &Planes, window: Window, rgb: &mut [u8]) {
    #[target_feature(enable = "avx2")]
    fn with_avx2(planes: &Planes, window: Window, rgb: &mut [u8]) {
        planes.convert(window, rgb);
    }
    if is_x86_feature_detected!("avx2") {
        #[expect(unsafe_code, reason = "code compiled for a processor feature is called after a check for that feature")]
        // SAFETY: the processor has AVX2, as checked on the line above.
        unsafe {
            with_avx2(planes, window, rgb);
        }
        return;
    }
    planes.convert(window, rgb);
}

#[cfg(not(target_arch = "x86_64"))]
fn convert(planes: &Planes, window: Window, rgb: &mut [u8]) {
    planes.convert(window, rgb);
}
