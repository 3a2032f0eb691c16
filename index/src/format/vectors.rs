//! Layout of a vectors file: f16 rows, and which row of the segment each is; 7-bit rows and scales, near ones side by side, and
//! which f16 row each is. A file of a 7-bit pool has no f16 rows, and says where each 7-bit row is instead.

use super::{
    bytes::Damage,
    header::{Header, Section},
};
use crate::{Precision, limits::Limits};

/// Tag: f16 rows, `f16_stride` bytes each, zero-filled behind the last value.
pub const F16: u32 = 1;
/// Tag: 7-bit unsigned rows, `q8_stride` bytes each, [`ZERO`] behind the last value.
pub const Q8: u32 = 2;
/// Tag: one f32 scale per node.
pub const SCALES: u32 = 3;
/// Tag: one u32 per f16 row, the row within the segment, strictly ascending.
pub const ROWS: u32 = 4;
/// Tag: one u32 per 7-bit row, the position of its f16 row. Missing where both are in one order.
pub const ORDER: u32 = 5;

/// Tag: one u32 per vector in ascending order of rows, the 7-bit row it is; only in files without f16 rows, where it is the
/// inverse of [`ORDER`].
pub const NODES: u32 = 6;

/// The stored byte that means 0.0.
pub const ZERO: u8 = 64;

/// Bytes of a 7-bit row.
#[must_use]
pub fn q8_stride(dim: usize) -> usize {
    dim.next_multiple_of(64)
}

/// Bytes of an f16 row.
#[must_use]
pub fn f16_stride(dim: usize) -> usize {
    (dim * 2).next_multiple_of(64)
}

/// Where everything lies in a vectors file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VectorsLayout {
    /// Vectors in the file.
    pub nodes: usize,
    /// Values per vector.
    pub dim: usize,
    /// f16 rows; `None` in a file of 7-bit rows alone.
    pub f16: Option<Section>,
    /// 7-bit rows.
    pub q8: Section,
    /// Scales.
    pub scales: Section,
    /// Rows.
    pub rows: Section,
    /// Positions of the f16 rows.
    pub order: Option<Section>,
    /// The 7-bit row of each position; only where there are no f16 rows.
    pub nodes_of: Option<Section>,
}

impl VectorsLayout {
    /// The numbers of the header.
    #[must_use]
    pub fn numbers(nodes: usize, dim: usize) -> [u64; super::header::NUMBERS] {
        let mut numbers = [0; super::header::NUMBERS];
        numbers[0] = nodes as u64;
        numbers[1] = dim as u64;
        numbers
    }

    /// What the file keeps of each vector.
    #[must_use]
    pub fn precision(&self) -> Precision {
        if self.f16.is_some() { Precision::Half } else { Precision::SevenBit }
    }

    /// Checks counts against section lengths.
    ///
    /// # Errors
    /// Counts out of bounds or sections of another length.
    pub fn of(header: &Header) -> Result<Self, Damage> {
        let [nodes, dim, ..] = header.numbers;
        let limits = Limits::STANDARD;
        if nodes == 0 || nodes > limits.segment_rows {
            return Err(Damage::new(32, format!("{nodes} vectors")));
        }
        if dim == 0 || dim > limits.dim as u64 {
            return Err(Damage::new(40, format!("{dim} values per vector")));
        }
        let width = dim as usize;
        let bytes = |each: usize| nodes.checked_mul(each as u64).ok_or_else(|| Damage::new(32, format!("{nodes} vectors")));
        let optional = |tag, each| match header.sections.iter().any(|section| section.tag == tag) {
            true => header.section(tag, Some(bytes(each)?)).map(Some),
            false => Ok(None),
        };
        let (f16, nodes_of) = (optional(F16, f16_stride(width))?, optional(NODES, 4)?);
        let order = optional(ORDER, 4)?;
        if f16.is_none() && (order.is_none() || nodes_of.is_none()) {
            return Err(Damage::new(128, "neither f16 rows nor the places of the 7-bit rows"));
        }
        Ok(Self {
            nodes: usize::try_from(nodes).map_err(|_| Damage::new(32, format!("{nodes} vectors")))?,
            dim: width,
            f16,
            q8: header.section(Q8, Some(bytes(q8_stride(width))?))?,
            scales: header.section(SCALES, Some(bytes(4)?))?,
            rows: header.section(ROWS, Some(bytes(4)?))?,
            order,
            nodes_of,
        })
    }
}
