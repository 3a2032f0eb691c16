//! Layout of the sketches of a graph file: one line of 64 bytes per about 512 values, signs first, two i16 at the end.

/// Tag: sketches, [`SketchLayout::stride`] bytes per node.
pub const SKETCHES: u32 = 21;
/// Tag: the centre that rows are sketched around, f32 per value.
pub const CENTRE: u32 = 22;

/// Bits of a line's last four bytes, which hold the two numbers.
const NUMBER_BITS: usize = 32;
const LINE_BITS: usize = 512;
/// Values of the narrowest rows that are sketched. 256: narrower ones are at most four lines themselves, and an estimate from few
/// signs is poor.
const LEAST_DIM: usize = 256;

/// How many bits of a row are kept, and in how many bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SketchLayout {
    dim: usize,
}

impl SketchLayout {
    /// For rows of `dim` values.
    #[must_use]
    pub fn new(dim: usize) -> Self {
        Self { dim }
    }

    /// Whether sketches are made of such rows: from [`LEAST_DIM`] values on.
    #[must_use]
    pub fn pays(self) -> bool {
        self.dim >= LEAST_DIM
    }

    /// Values per row.
    #[must_use]
    pub fn dim(self) -> usize {
        self.dim
    }

    /// Bytes per sketch, whole lines. Up to a sixteenth of the values may be left out to save a line: 512 values take one.
    #[must_use]
    pub fn stride(self) -> usize {
        (self.dim - self.dim / 16).div_ceil(LINE_BITS - NUMBER_BITS) * (LINE_BITS / 8)
    }

    /// Signs per sketch.
    #[must_use]
    pub fn bits(self) -> usize {
        self.dim.min(self.stride() * 8 - NUMBER_BITS)
    }
}
