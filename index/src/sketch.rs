//! One bit per value: a first look at a row that costs one cache line where the 7-bit row costs eight.
//!
//! ```text
//!   row - centre ──turn──► signs, and two numbers that undo what the signs lose      (64 bytes per 512 values)
//!   query        ──turn──► four bit planes ──popcount with the signs──► estimate ± error ──► compare the row, or leave it
//! ```
//!
//! The estimate is RaBitQ's (Gao and Long, SIGMOD 2024): after a random rotation the signs of a vector have a known share of
//! its direction, so that `<q, o>` is about `<q, signs> * |o|^2 / <signs, o>`, with an error that shrinks with the square root
//! of the dimension. A search leaves out rows whose estimate plus [`Z`] standard errors cannot enter its beam; what it
//! does look at is compared by 7-bit rows as before. Query and row are taken apart along the centre first, which makes what is
//! estimated small: vectors of one modality lie in a cone.

use rayon::prelude::*;

use crate::{
    distance::{BitQuery, Cpu, Floor},
    format::sketches::SketchLayout,
    hnsw::RowsView,
    quantize::{QuantizedQuery, nearest},
};

/// Standard errors that an estimate is trusted within. 1.5, on 100,000 CLIP-like vectors and a beam of 24: of 386 rows met, 147 are
/// compared for a picture query; at 2 it is 170 for 0.0008 more recall@10, at 1 it is 126 for 0.002 less (text queries: 0.0004 and
/// 0.009).
pub(crate) const Z: f32 = 1.5;
/// The same where a row that is passed over is lost: where every sketch is looked at and no links are followed, and on the way down to level 0. 4: one in 30,000 rows that
/// score just what the beam asks for, and the best score more than that.
pub(crate) const Z_ALL: f32 = 4.0;
/// What one step of a line's two numbers is worth. Both are within -2 and 2: rows have unit length.
const NUMBER: f32 = 2.0 / 32_768.0;
/// What the signs of a normal variable leave of its variance, as a standard deviation: sqrt(1 - 2 / pi).
const SIGN_ERROR: f32 = 0.602_81;
/// Bit planes of a query, a signed number of four bits per value.
const PLANES: usize = 4;
/// Step of that number in standard deviations: the best uniform quantizer of four bits for a normal variable.
const STEP: f32 = 0.335;
/// Rows looked at for the centre, evenly spread.
const CENTRE_ROWS: usize = 16_384;
/// Rounds of the turn. 2: one round of signs and Hadamard mixes power-of-two dimensions fully; others take two.
const ROUNDS: u64 = 2;

/// Sketches of all rows of a graph, from a map or in memory.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SketchView<'a> {
    pub(crate) cpu: Cpu,
    pub(crate) layout: SketchLayout,
    pub(crate) bytes: &'a [u8],
    /// Where rows are taken apart, turned.
    pub(crate) centre: &'a [f32],
    pub(crate) turn: &'a Turn,
}

impl<'a> SketchView<'a> {
    fn line(&self, node: u32) -> &'a [u8] {
        let stride = self.layout.stride();
        &self.bytes[node as usize * stride..][..stride]
    }

    pub(crate) fn prefetch(&self, node: u32) {
        self.cpu.prefetch(self.line(node));
    }
}

/// Sketches in memory.
#[derive(Debug)]
pub(crate) struct Sketches {
    layout: SketchLayout,
    pub(crate) bytes: Vec<u8>,
    pub(crate) centre: Vec<f32>,
    turned_centre: Vec<f32>,
    turn: Turn,
}

impl Sketches {
    /// Sketches of the first `nodes` rows, of `dim` values; none where they do not pay.
    pub(crate) fn of(rows: &RowsView<'_>, nodes: usize, dim: usize) -> Option<Self> {
        let layout = SketchLayout::new(dim);
        if !layout.pays() {
            return None;
        }
        let centre = centre(rows, nodes, dim);
        let turn = Turn::new(dim);
        let mut bytes = vec![0; nodes * layout.stride()];
        let along = dot(&centre, &centre).max(f32::MIN_POSITIVE);
        bytes.par_chunks_exact_mut(layout.stride()).enumerate().for_each(|(node, line)| {
            let mut rest = rows.values(node as u32, dim);
            rest.iter_mut().zip(&centre).for_each(|(v, c)| *v -= c);
            let share = dot(&rest, &centre);
            add(&mut rest, &centre, -share / along);
            turn.apply(&mut rest);
            write_line(line, &rest, share, layout);
        });
        Some(Self { layout, bytes, turned_centre: turn.applied(&centre), centre, turn })
    }

    pub(crate) fn view(&self, cpu: Cpu) -> SketchView<'_> {
        SketchView { cpu, layout: self.layout, bytes: &self.bytes, centre: &self.turned_centre, turn: &self.turn }
    }
}

fn write_line(line: &mut [u8], rest: &[f32], share: f32, layout: SketchLayout) {
    let kept = &rest[..layout.bits()];
    for (byte, values) in line.iter_mut().zip(kept.chunks(8)) {
        *byte = values.iter().enumerate().map(|(i, v)| u8::from(*v >= 0.0) << i).sum();
    }
    let signs: f32 = kept.iter().map(|v| v.abs()).sum();
    let factor = if signs > 0.0 { dot(rest, rest) / signs } else { 0.0 };
    let numbers = line.len() - 4;
    for (place, number) in line[numbers..].chunks_exact_mut(2).zip([share, factor]) {
        place.copy_from_slice(&((number / NUMBER) as i16).to_le_bytes());
    }
}

fn centre(rows: &RowsView<'_>, nodes: usize, dim: usize) -> Vec<f32> {
    let mut sum = vec![0f32; dim];
    let step = nodes.div_ceil(CENTRE_ROWS).max(1);
    let taken = (0..nodes as u32).step_by(step);
    let count = taken.len().max(1) as f32;
    taken.for_each(|node| add(&mut sum, &rows.values(node, dim), 1.0 / count));
    sum
}

/// A query against sketches. Bounds are in the units of the 7-bit scores of the same query.
#[derive(Clone, Debug)]
pub(crate) struct SketchQuery<'a> {
    view: SketchView<'a>,
    bits: BitQuery,
    /// Standard errors that estimates are trusted within.
    trust: f32,
}

impl<'a> SketchQuery<'a> {
    /// `query` as the 7-bit kernel takes it; estimates are trusted within `trust` standard errors.
    pub(crate) fn new(view: SketchView<'a>, query: &QuantizedQuery, trust: f32) -> Self {
        let (dim, bits) = (view.layout.dim(), view.layout.bits());
        // A turn changes neither products nor lengths, so that all of it can be done with what was turned.
        let mut rest = query.turned(view.turn).to_vec();
        let base = dot(&rest, view.centre);
        let share = base / dot(view.centre, view.centre).max(f32::MIN_POSITIVE);
        add(&mut rest, view.centre, -share);
        let length = dot(&rest, &rest).sqrt();
        let step = (STEP * length / (dim as f32).sqrt()).max(f32::MIN_POSITIVE);
        let (planes, sum) = planes(&rest[..bits], 1.0 / step, view.layout.stride() / 8);
        let error = SIGN_ERROR * (bits as f32 / dim as f32).sqrt() * length;
        let (weight, offset) = (2.0 * step * NUMBER, -step * sum as f32 * NUMBER);
        let bits = BitQuery { planes, base, share: share * NUMBER, weight, offset, error: error * NUMBER };
        Self { view, bits, trust }
    }

    /// Leaves out the nodes whose bound is not above `floor`.
    pub(crate) fn sift(&self, nodes: &mut Vec<u32>, floor: f32) {
        self.view.cpu.sift(self.view.bytes, &self.bits, nodes, Floor { least: floor, errors: self.trust });
    }

    /// Leaves out the nodes that are as good as sure to score no more than `floor`, within [`Z_ALL`].
    pub(crate) fn sift_surely(&self, nodes: &mut Vec<u32>, floor: f32) {
        self.view.cpu.sift(self.view.bytes, &self.bits, nodes, Floor { least: floor, errors: Z_ALL });
    }

    pub(crate) fn prefetch(&self, node: u32) {
        self.view.prefetch(node);
    }
}

/// Values as signed numbers of four bits, plane by plane, and their sum.
fn planes(values: &[f32], scale: f32, words: usize) -> (Vec<u64>, i32) {
    let mut whole = vec![0u8; words * 64];
    let mut sum = 0;
    for (out, v) in whole.iter_mut().zip(values) {
        let number = nearest((v * scale).clamp(-8.0, 7.0));
        sum += number;
        *out = number as u8;
    }
    let mut planes = vec![0u64; words * PLANES];
    for (word, values) in whole.chunks_exact(64).enumerate() {
        for (i, eight) in values.chunks_exact(8).enumerate() {
            let mut bytes = [0; 8];
            bytes.copy_from_slice(eight);
            let bytes = u64::from_le_bytes(bytes);
            for plane in 0..PLANES {
                // The lowest bit of each byte, gathered into one byte by a multiplication.
                let gathered = ((bytes >> plane) & 0x0101_0101_0101_0101).wrapping_mul(0x0102_0408_1020_4080) >> 56;
                planes[plane * words + word] |= gathered << (8 * i);
            }
        }
    }
    (planes, sum)
}

/// A fixed random rotation: signs, then Hadamard transforms over the first and the last power of two of values.
#[derive(Clone, Debug)]
pub(crate) struct Turn {
    signs: Vec<f32>,
    dim: usize,
}

impl Turn {
    pub(crate) fn new(dim: usize) -> Self {
        let sign = |n: u64| if splitmix(n) >> 63 == 0 { 1.0 } else { -1.0 };
        Self { signs: (0..ROUNDS * dim as u64).map(sign).collect(), dim }
    }

    /// Values it turns.
    pub(crate) fn dim(&self) -> usize {
        self.dim
    }

    /// `values` turned.
    pub(crate) fn applied(&self, values: &[f32]) -> Vec<f32> {
        let mut turned = values.to_vec();
        self.apply(&mut turned);
        turned
    }

    pub(crate) fn apply(&self, values: &mut [f32]) {
        let power = 1 << self.dim.ilog2();
        for signs in self.signs.chunks_exact(self.dim) {
            values.iter_mut().zip(signs).for_each(|(v, s)| *v *= s);
            hadamard(&mut values[..power]);
            if power == self.dim {
                return;
            }
            hadamard(&mut values[self.dim - power..]);
        }
    }
}

/// Of unit length rows: lengths stay. `values.len()` is a power of two.
fn hadamard(values: &mut [f32]) {
    let mut width = 1;
    while width < values.len() {
        for pair in values.chunks_exact_mut(width * 2) {
            let (a, b) = pair.split_at_mut(width);
            for (a, b) in a.iter_mut().zip(b) {
                (*a, *b) = (*a + *b, *a - *b);
            }
        }
        width *= 2;
    }
    let scale = 1.0 / (values.len() as f32).sqrt();
    values.iter_mut().for_each(|v| *v *= scale);
}

/// The n-th output of splitmix64.
pub(crate) fn splitmix(n: u64) -> u64 {
    let mut draw = (n + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    draw = (draw ^ (draw >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    draw = (draw ^ (draw >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    draw ^ (draw >> 31)
}

/// Sixteen running sums, so that the compiler can use vectors.
fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut sums = [0f32; 16];
    let (whole, rest) = (a.chunks_exact(16).zip(b.chunks_exact(16)), a.len() / 16 * 16);
    for (a, b) in whole {
        sums.iter_mut().zip(a).zip(b).for_each(|((sum, a), b)| *sum += a * b);
    }
    sums.iter().sum::<f32>() + a[rest..].iter().zip(&b[rest..]).map(|(a, b)| a * b).sum::<f32>()
}

fn add(into: &mut [f32], from: &[f32], weight: f32) {
    into.iter_mut().zip(from).for_each(|(a, b)| *a += weight * b);
}
