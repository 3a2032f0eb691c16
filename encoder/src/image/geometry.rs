//! Which size to resize a picture to and which window of it the tower sees, as torchvision and open_clip compute them.

use super::resample::Axis;

/// How a picture of any size becomes one of the tower's size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Geometry {
    /// Resize so that the shorter edge has `edge` pixels (the longer `floor(edge * long / short)`), then cut `height x width` from the
    /// centre. CLIP's own.
    ShortestEdge {
        /// Pixels of the shorter edge.
        edge: usize,
        /// Rows.
        height: usize,
        /// Columns.
        width: usize,
    },
    /// Resize, keeping the aspect ratio, until `height x width` is covered, then cut that from the centre.
    Cover {
        /// Rows.
        height: usize,
        /// Columns.
        width: usize,
    },
    /// Resize, keeping the aspect ratio, until it fits into `height x width`, then fill what is left with `fill` on all channels.
    Fit {
        /// Rows.
        height: usize,
        /// Columns.
        width: usize,
        /// Level of the border.
        fill: u8,
    },
    /// Resize to `resized` (rows, columns) whatever the aspect ratio, then cut `height x width` from the centre.
    Squash {
        /// Rows and columns of the resized picture.
        resized: (usize, usize),
        /// Rows.
        height: usize,
        /// Columns.
        width: usize,
    },
    /// No resize: cut `height x width` from the centre.
    CropOnly {
        /// Rows.
        height: usize,
        /// Columns.
        width: usize,
    },
}

impl Geometry {
    /// Rows and columns of what comes out, whatever goes in.
    #[must_use]
    pub fn output(&self) -> (usize, usize) {
        match *self {
            Self::ShortestEdge { height, width, .. }
            | Self::Cover { height, width }
            | Self::Fit { height, width, .. }
            | Self::Squash { height, width, .. }
            | Self::CropOnly { height, width } => (height, width),
        }
    }

    /// Level of what the picture does not cover; zero, as torchvision's `CenterCrop` pads, but where a border is asked for.
    pub(super) fn fill(&self) -> u8 {
        if let Self::Fit { fill, .. } = *self { fill } else { 0 }
    }

    /// Rows and columns of the whole resized picture.
    fn resized(&self, rows: usize, columns: usize) -> (usize, usize) {
        match *self {
            Self::ShortestEdge { edge, .. } if rows < columns => (edge, long_edge(edge, columns, rows)),
            Self::ShortestEdge { edge, .. } => (long_edge(edge, rows, columns), edge),
            Self::Cover { height, width } => keep_ratio(rows, columns, f64::min(ratio(rows, height), ratio(columns, width))),
            Self::Fit { height, width, .. } => keep_ratio(rows, columns, f64::max(ratio(rows, height), ratio(columns, width))),
            Self::Squash { resized, .. } => resized,
            Self::CropOnly { .. } => (rows, columns),
        }
    }

    /// Where the output's rows and columns come from, for a picture of `rows x columns`.
    pub(super) fn place(&self, rows: usize, columns: usize) -> (Placed, Placed) {
        let (resized_rows, resized_columns) = self.resized(rows, columns);
        let (height, width) = self.output();
        (Placed::centred(rows, resized_rows, height), Placed::centred(columns, resized_columns, width))
    }
}

/// Python's `int(edge * long / short)`: the product is exact, the quotient rounded once, the rest cut off.
fn long_edge(edge: usize, long: usize, short: usize) -> usize {
    ((edge * long) as f64 / short as f64) as usize
}

fn ratio(pixels: usize, wanted: usize) -> f64 {
    pixels as f64 / wanted as f64
}

/// open_clip's `ResizeKeepRatio`, with Python's rounding of halves to even. A very long picture would get an edge of no pixels, at
/// which Pillow fails; it keeps one here.
fn keep_ratio(rows: usize, columns: usize, ratio: f64) -> (usize, usize) {
    let scaled = |pixels: usize| ((pixels as f64 / ratio).round_ties_even() as usize).max(1);
    (scaled(rows), scaled(columns))
}

/// One axis of the output: some of the resized picture, perhaps with a border on both sides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Placed {
    /// The part that comes from the picture.
    pub(super) axis: Axis,
    /// Border before it.
    pub(super) before: usize,
    /// Length of the output.
    pub(super) out: usize,
}

impl Placed {
    /// torchvision's `CenterCrop`: pads what is too small, smaller half first, then cuts at Python's `round(rest / 2)`.
    fn centred(from: usize, to: usize, out: usize) -> Self {
        if to < out {
            return Self { axis: Axis { from, to, start: 0, len: to }, before: (out - to) / 2, out };
        }
        let start = ((to - out) as f64 / 2.0).round_ties_even() as usize;
        Self { axis: Axis { from, to, start, len: out }, before: 0, out }
    }
}
