//! Pillow's 8-bit resampling, arithmetic included, evaluated only for the window that is wanted.
//!
//! What makes the result equal level for level: the weights of each output pixel are computed in f64 over the *whole* picture and
//! normalised, then rounded to [`WEIGHT_BITS`] fractional bits; columns are resampled first, then rows; each of the two passes
//! rounds and clips to u8. Only the rows that the window's rows read go through the first pass.
//!
//! The passes here are plain Rust that the compiler turns into vectors; `resample_avx2.rs` has them by hand for AVX2, chosen at run
//! time. The two give the same bytes, which a test checks.
//!
//! The inner loops use wrapping arithmetic because the release profile checks overflow, which would keep them scalar; see
//! [`clip`] for why nothing wraps.

use super::{Part, Rgb, Window};

/// How neighbouring pixels are weighed; Pillow's names and numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filter {
    /// The nearest pixel; 0 in Hugging Face files.
    Nearest,
    /// Windowed sinc over 6 pixels; 1.
    Lanczos,
    /// Linear; 2.
    Bilinear,
    /// Cubic with a = -0.5; 3. CLIP's own.
    Bicubic,
    /// The mean; 4.
    Box,
    /// Hamming window over 2 pixels; 5.
    Hamming,
}

impl Filter {
    /// The filter that Pillow and Hugging Face files know by this number.
    #[must_use]
    pub fn from_pillow(number: u64) -> Option<Self> {
        [Self::Nearest, Self::Lanczos, Self::Bilinear, Self::Bicubic, Self::Box, Self::Hamming]
            .get(usize::try_from(number).ok()?)
            .copied()
    }

    /// How far the filter reaches from its centre, in pixels of the smaller of the two sizes.
    fn support(self) -> f64 {
        match self {
            Self::Nearest => 0.0,
            Self::Box => 0.5,
            Self::Bilinear | Self::Hamming => 1.0,
            Self::Bicubic => 2.0,
            Self::Lanczos => 3.0,
        }
    }

    /// The weight at a distance, as Pillow computes it (the order of operations matters to the last bit).
    fn weight(self, distance: f64) -> f64 {
        let x = distance.abs();
        match self {
            Self::Nearest => 1.0,
            // Half open, as in Pillow, so that a pixel between two outputs counts once.
            Self::Box if distance > -0.5 && distance <= 0.5 => 1.0,
            Self::Bilinear if x < 1.0 => 1.0 - x,
            Self::Hamming if x == 0.0 => 1.0,
            Self::Hamming if x < 1.0 => {
                let turn = x * std::f64::consts::PI;
                turn.sin() / turn * (0.54 + 0.46 * turn.cos())
            }
            Self::Bicubic if x < 1.0 => ((CUBIC + 2.0) * x - (CUBIC + 3.0)) * x * x + 1.0,
            Self::Bicubic if x < 2.0 => (((x - 5.0) * x + 8.0) * x - 4.0) * CUBIC,
            Self::Lanczos if (-3.0..3.0).contains(&distance) => sinc(distance) * sinc(distance / 3.0),
            _ => 0.0,
        }
    }
}

/// The free parameter of the cubic filter.
const CUBIC: f64 = -0.5;

fn sinc(x: f64) -> f64 {
    if x == 0.0 {
        return 1.0;
    }
    let turn = x * std::f64::consts::PI;
    turn.sin() / turn
}

/// One axis of a resize of which only a window is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Axis {
    /// Pixels of the picture.
    pub(super) from: usize,
    /// Pixels of the whole resized picture.
    pub(super) to: usize,
    /// First resized pixel that is wanted.
    pub(super) start: usize,
    /// How many are wanted; `start + len` is at most `to`.
    pub(super) len: usize,
}

/// A resize of which only a window is wanted: which pixels each of the window's reads.
pub(super) struct Resize {
    columns: Taps,
    rows: Taps,
    filter: Filter,
}

impl Resize {
    /// Of a picture of `columns.from` x `rows.from` to `columns.to` x `rows.to`, whatever it shows.
    pub(super) fn new(filter: Filter, columns: Axis, rows: Axis) -> Self {
        Self { columns: Taps::new(filter, columns), rows: Taps::new(filter, rows), filter }
    }

    /// The part of the picture that is read.
    pub(super) fn reads(&self) -> Window {
        let ((top, bottom), (left, right)) = (self.rows.reads(), self.columns.reads());
        Window { top, left, height: bottom - top, width: right - left }
    }

    /// The wanted window, `rows.len * columns.len` pixels of three bytes, from a part of the picture that holds [`Resize::reads`].
    pub(super) fn run(mut self, part: &Part) -> Vec<u8> {
        self.columns.start_from(part.left);
        self.rows.start_from(part.top);
        let picture = &part.pixels;
        if self.filter == Filter::Nearest {
            return nearest(picture, &self.columns, &self.rows);
        }
        let (first, end) = self.rows.reads();
        let row_bytes = picture.width() * CHANNELS;
        let read = picture.values().get(first * row_bytes..end * row_bytes).expect("the part holds what is read");
        run_passes(&Passes { read, row_bytes, columns: self.columns, rows: self.rows, first_row: first })
    }
}

/// All that the two passes work on.
pub(super) struct Passes<'a> {
    /// The rows of the picture that are read.
    pub(super) read: &'a [u8],
    pub(super) row_bytes: usize,
    pub(super) columns: Taps,
    pub(super) rows: Taps,
    /// Which row of the picture `read` starts with.
    pub(super) first_row: usize,
}

impl Passes<'_> {
    fn run(&self) -> Vec<u8> {
        let narrow = pass_columns(self.read, self.row_bytes, &self.columns);
        pass_rows(&narrow, self.columns.outputs() * CHANNELS, self.first_row, &self.rows)
    }
}

#[cfg(target_arch = "x86_64")]
fn run_passes(passes: &Passes<'_>) -> Vec<u8> {
    if is_x86_feature_detected!("avx2") {
        #[expect(unsafe_code, reason = "code compiled for a processor feature is called after a check for that feature")]
        // SAFETY: the processor has AVX2, as checked on the line above.
        return unsafe { super::resample_avx2::run(passes) };
    }
    passes.run()
}

#[cfg(not(target_arch = "x86_64"))]
fn run_passes(passes: &Passes<'_>) -> Vec<u8> {
    passes.run()
}

/// Red, green, blue.
pub(super) const CHANNELS: usize = 3;

/// Fractional bits of a weight: 8 of 32 bits are the pixel's, 2 are room for filters that overshoot.
pub(super) const WEIGHT_BITS: u32 = 32 - 8 - 2;
const ONE: i32 = 1 << WEIGHT_BITS;
/// Added once to a sum, so that cutting the fraction off rounds.
pub(super) const HALF: i32 = 1 << (WEIGHT_BITS - 1);

/// A finished sum as a level. Sums stay within i32: weights add up to [`ONE`], and no filter's absolute weights add up to 1.9,
/// which is where 255 times that would leave it.
#[inline(always)]
fn clip(sum: i32) -> u8 {
    (sum >> WEIGHT_BITS).clamp(0, 255) as u8
}

/// For each wanted output pixel of one axis: which input pixels it reads and how they are weighed.
pub(super) struct Taps {
    first: Vec<usize>,
    /// `stride` per output; those past `counts` are zero.
    weights: Vec<i32>,
    counts: Vec<usize>,
    stride: usize,
}

impl Taps {
    fn new(filter: Filter, axis: Axis) -> Self {
        if filter == Filter::Nearest {
            return Self::single(nearest_inputs(axis));
        }
        // An axis that keeps its size is not resampled.
        if axis.from == axis.to {
            return Self::single((axis.start..axis.start + axis.len).collect());
        }
        let scale = axis.from as f64 / axis.to as f64;
        let stretch = scale.max(1.0);
        let support = filter.support() * stretch;
        let stride = support.ceil() as usize * 2 + 1;
        let mut taps = Self { first: Vec::new(), weights: vec![0; stride * axis.len], counts: Vec::new(), stride };
        let mut exact = Vec::with_capacity(stride);
        for (output, weights) in (axis.start..axis.start + axis.len).zip(taps.weights.chunks_exact_mut(stride)) {
            let centre = (output as f64 + 0.5) * scale;
            // `as` cuts towards zero and stops at zero, which is Pillow's cast and clamp in one.
            let first = (centre - support + 0.5) as usize;
            let end = ((centre + support + 0.5) as usize).min(axis.from);
            let step = 1.0 / stretch;
            exact.clear();
            exact.extend((first..end).map(|input| {
                // Pillow adds the whole numbers first.
                filter.weight(((input as f64) - centre + 0.5) * step)
            }));
            let total: f64 = exact.iter().sum();
            for (fixed, weight) in weights.iter_mut().zip(&exact) {
                *fixed = to_fixed(if total == 0.0 { *weight } else { weight / total });
            }
            taps.first.push(first);
            taps.counts.push(end - first);
        }
        taps
    }

    /// Each output is one input.
    fn single(first: Vec<usize>) -> Self {
        let outputs = first.len();
        Self { first, weights: vec![ONE; outputs], counts: vec![1; outputs], stride: 1 }
    }

    /// Counts inputs from `start` on.
    fn start_from(&mut self, start: usize) {
        for first in &mut self.first {
            *first -= start;
        }
    }

    pub(super) fn outputs(&self) -> usize {
        self.first.len()
    }

    /// The range of input pixels that any output reads; outputs are in order, and so are their first and last inputs.
    fn reads(&self) -> (usize, usize) {
        let first = self.first.first().copied().unwrap_or(0);
        let end = self.iter().map(|(first, weights)| first + weights.len()).max().unwrap_or(0);
        (first, end)
    }

    /// First input and weights of each output.
    #[inline(always)]
    pub(super) fn iter(&self) -> impl Iterator<Item = (usize, &[i32])> {
        let used = self.weights.chunks_exact(self.stride).zip(&self.counts).map(|(weights, &count)| &weights[..count]);
        self.first.iter().copied().zip(used)
    }
}

fn to_fixed(weight: f64) -> i32 {
    let rounding = if weight < 0.0 { -0.5 } else { 0.5 };
    (weight * f64::from(ONE) + rounding) as i32
}

/// Resamples every row to the wanted columns, two rows at a time.
#[inline(always)]
fn pass_columns(rows: &[u8], row_bytes: usize, taps: &Taps) -> Vec<u8> {
    let narrow_bytes = taps.outputs() * CHANNELS;
    let mut narrow = vec![0; rows.len() / row_bytes * narrow_bytes];
    // One pixel of both rows is one vector: four lanes a row, the fourth stays zero.
    let mut wide = vec![[0_i32; 8]; row_bytes / CHANNELS];
    for (pair, output) in rows.chunks(2 * row_bytes).zip(narrow.chunks_mut(2 * narrow_bytes)) {
        let (upper, lower) = pair.split_at(row_bytes);
        let (upper_out, lower_out) = output.split_at_mut(narrow_bytes);
        // An odd last row is resampled with itself, into nothing.
        let lower = if lower.is_empty() { upper } else { lower };
        let pixels = upper.as_chunks::<CHANNELS>().0.iter().zip(lower.as_chunks::<CHANNELS>().0);
        for (lanes, (&[r0, g0, b0], &[r1, g1, b1])) in wide.iter_mut().zip(pixels) {
            *lanes = [r0.into(), g0.into(), b0.into(), 0, r1.into(), g1.into(), b1.into(), 0];
        }
        let (upper_out, _) = upper_out.as_chunks_mut::<CHANNELS>();
        let mut lower_out = lower_out.as_chunks_mut::<CHANNELS>().0.iter_mut();
        for ((first, weights), upper) in taps.iter().zip(upper_out) {
            let mut sums = [HALF; 8];
            for (lanes, &weight) in wide[first..first + weights.len()].iter().zip(weights) {
                for (sum, &lane) in sums.iter_mut().zip(lanes) {
                    *sum = sum.wrapping_add(lane.wrapping_mul(weight));
                }
            }
            let [r0, g0, b0, _, r1, g1, b1, _] = sums.map(clip);
            *upper = [r0, g0, b0];
            if let Some(lower) = lower_out.next() {
                *lower = [r1, g1, b1];
            }
        }
    }
    narrow
}

/// Bytes of a row that are summed at a time: enough to fill the vector registers, few enough to stay in them.
const BLOCK: usize = 32;

/// Resamples rows to the wanted rows. `picture` starts at input row `first_row`.
#[inline(always)]
fn pass_rows(picture: &[u8], row_bytes: usize, first_row: usize, taps: &Taps) -> Vec<u8> {
    let mut window = vec![0; taps.outputs() * row_bytes];
    for ((first, weights), output) in taps.iter().zip(window.chunks_exact_mut(row_bytes)) {
        let read = &picture[(first - first_row) * row_bytes..][..weights.len() * row_bytes];
        let mut blocks = output.chunks_exact_mut(BLOCK);
        let mut at = 0;
        for block in &mut blocks {
            let mut sums = [HALF; BLOCK];
            for (row, &weight) in read.chunks_exact(row_bytes).zip(weights) {
                add_weighted(&mut sums, &row[at..at + BLOCK], weight);
            }
            write_clipped(block, &sums);
            at += BLOCK;
        }
        let rest = blocks.into_remainder();
        let mut sums = [HALF; BLOCK];
        for (row, &weight) in read.chunks_exact(row_bytes).zip(weights) {
            add_weighted(&mut sums, &row[at..], weight);
        }
        write_clipped(rest, &sums);
    }
    window
}

#[inline(always)]
fn add_weighted(sums: &mut [i32; BLOCK], levels: &[u8], weight: i32) {
    for (sum, &level) in sums.iter_mut().zip(levels) {
        *sum = sum.wrapping_add(i32::from(level).wrapping_mul(weight));
    }
}

#[inline(always)]
fn write_clipped(levels: &mut [u8], sums: &[i32; BLOCK]) {
    for (level, &sum) in levels.iter_mut().zip(sums) {
        *level = clip(sum);
    }
}

fn nearest(picture: &Rgb, columns: &Taps, rows: &Taps) -> Vec<u8> {
    let mut window = Vec::with_capacity(columns.outputs() * rows.outputs() * CHANNELS);
    for row in &rows.first {
        let start = row * picture.width();
        for column in &columns.first {
            let at = (start + column) * CHANNELS;
            window.extend_from_slice(&picture.values()[at..at + CHANNELS]);
        }
    }
    window
}

/// Pillow walks the axis by adding the scale again and again; so must we, to round the same way.
fn nearest_inputs(axis: Axis) -> Vec<usize> {
    let scale = axis.from as f64 / axis.to as f64;
    let mut position = scale * 0.5;
    let mut inputs = Vec::with_capacity(axis.len);
    for output in 0..axis.start + axis.len {
        if output >= axis.start {
            inputs.push((position as usize).min(axis.from - 1));
        }
        position += scale;
    }
    inputs
}

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    use super::*;

    #[test]
    fn the_passes_compiled_for_avx2_give_the_same_bytes() {
        // Every level meets every kind of weight: extremes side by side make the sums overshoot both ends.
        let (width, height) = (97, 83);
        let values = (0..width * height * CHANNELS).map(|at| [0, 255, (at * 31 % 256) as u8][at / 7 % 3]).collect::<Vec<u8>>();
        for filter in [Filter::Lanczos, Filter::Bilinear, Filter::Bicubic, Filter::Box, Filter::Hamming] {
            for (columns, rows) in [(40, 30), (97, 50), (150, 201), (33, 83)] {
                let axis = |from, to| Taps::new(filter, Axis { from, to, start: 1, len: to - 2 });
                let (columns, rows) = (axis(width, columns), axis(height, rows));
                let (first_row, end) = rows.reads();
                let read = &values[first_row * width * CHANNELS..end * width * CHANNELS];
                let passes = Passes { read, row_bytes: width * CHANNELS, columns, rows, first_row };
                assert_eq!(run_passes(&passes), passes.run(), "{filter:?}");
            }
        }
    }
}
