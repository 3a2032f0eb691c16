//! Layout of a dead file: one bit per row of its segment, set for the rows that were deleted or replaced.

use super::{
    bytes::Damage,
    header::{Header, NUMBERS, Section},
    manifest::DeadCounts,
};
use crate::limits::Limits;

/// Tag: one bit per row, in u64 words, lowest bit first; bits behind the last row are 0.
pub const BITS: u32 = 64;

/// Rows per word.
pub const WORD: usize = 64;

/// Where everything lies in a dead file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLayout {
    /// Rows of the segment.
    pub rows: u64,
    /// How many bits are set.
    pub counts: DeadCounts,
    /// The bits.
    pub bits: Section,
}

impl DeadLayout {
    /// The numbers of the header.
    #[must_use]
    pub fn numbers(rows: u64, counts: &DeadCounts) -> [u64; NUMBERS] {
        let mut numbers = [0; NUMBERS];
        numbers[..4].copy_from_slice(&[rows, counts.rows, counts.sides[0], counts.sides[1]]);
        numbers
    }

    /// Checks counts against the section's length.
    ///
    /// # Errors
    /// Counts out of bounds or a section of another length.
    pub fn of(header: &Header) -> Result<Self, Damage> {
        let [rows, dead, image, text, ..] = header.numbers;
        if rows == 0 || rows > Limits::STANDARD.segment_rows {
            return Err(Damage::new(32, format!("{rows} rows")));
        }
        if dead == 0 || dead > rows || image > dead || text > dead {
            return Err(Damage::new(40, format!("{dead} of {rows} rows are dead, {image} and {text} with vectors")));
        }
        let bits = header.section(BITS, Some(rows.div_ceil(WORD as u64) * 8))?;
        Ok(Self { rows, counts: DeadCounts { rows: dead, sides: [image, text] }, bits })
    }
}
