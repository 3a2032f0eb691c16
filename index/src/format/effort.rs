//! What each effort means in a graph: beam widths measured when it was built, with the recall they reached.

use super::bytes::{Damage, FieldReader, PutFields};
use crate::{Effort, Side, format::manifest::side_index};

/// Bytes of a table: for each modality of the query the number of queries measured, then width and recall of each effort.
pub const EFFORT_BYTES: u64 = 2 * (4 + 3 * 8);

/// Widest beam a table may name; wider ones cost more than comparing every row of most segments.
pub const MAX_EF: usize = 65_536;

/// Efforts that a table holds; the fourth, exact, compares every row.
pub const MEASURED: [Effort; 3] = [Effort::Fast, Effort::Normal, Effort::High];

/// A beam width and what it found.
#[derive(Clone, Copy, Debug, Default, PartialEq, serde::Serialize)]
pub struct Width {
    /// Beam width; 0 compares every row: the graph is so small, or so hard, that no width keeps the promise for less.
    pub ef: u32,
    /// Recall@10 that the sample shows with 95 % confidence (the lower bound of the mean), 1 where every row is compared.
    pub recall: f32,
}

/// Queries of one modality against this graph.
#[derive(Clone, Copy, Debug, Default, PartialEq, serde::Serialize)]
pub struct Measured {
    /// Queries measured; 0 where every row is compared anyway.
    pub queries: u32,
    /// In the order of [`MEASURED`].
    pub widths: [Width; 3],
}

/// The table of one graph, by the modality of the query; `None` where the segment held no vectors of that modality to ask with.
#[derive(Clone, Copy, Debug, Default, PartialEq, serde::Serialize)]
pub struct EffortTable {
    /// Queries that are pictures.
    pub image: Option<Measured>,
    /// Queries that are texts.
    pub text: Option<Measured>,
}

/// How much wider a beam is for queries of a modality that could not be measured, against the other's. 4: text needs 3.7 times the
/// beam of pictures for the same recall on CLIP-like data.
const UNMEASURED: u32 = 4;

impl EffortTable {
    /// A table by modality, image first.
    #[must_use]
    pub fn new([image, text]: [Option<Measured>; 2]) -> Self {
        Self { image, text }
    }

    fn by_modality(&self) -> [Option<Measured>; 2] {
        [self.image, self.text]
    }

    /// Beam width for queries of modality `asked` (unknown: whichever needs more); `None` where nothing was measured, and 0 to
    /// compare every row.
    #[must_use]
    pub fn ef(&self, asked: Option<Side>, effort: Effort) -> Option<usize> {
        let place = MEASURED.iter().position(|&e| e == effort)?;
        let width = |measured: Option<Measured>| measured.map(|m| m.widths[place].ef);
        let [image, text] = self.by_modality().map(width);
        let widen = |other: Option<u32>| other.map(|ef| ef.saturating_mul(UNMEASURED).min(MAX_EF as u32));
        let each = [image.or(widen(text))?, text.or(widen(image))?];
        let ef = match asked {
            Some(side) => each[side_index(side)],
            None if each.contains(&0) => 0,
            None => each[0].max(each[1]),
        };
        Some(ef as usize)
    }

    /// The bytes in the file.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        for measured in self.by_modality() {
            // No modality without queries has widths, so this tells "absent" from "every row compared".
            out.put_u32(measured.map_or(u32::MAX, |m| m.queries));
            for width in measured.unwrap_or_default().widths {
                out.put_u32(width.ef);
                out.put_u32(width.recall.to_bits());
            }
        }
        out
    }

    /// Reads the bytes, which begin at `offset` in their file.
    ///
    /// # Errors
    /// Too few or too many bytes, a width beyond [`MAX_EF`], a recall that is no share.
    pub fn decode(bytes: &[u8], offset: u64) -> Result<Self, Damage> {
        let mut fields = FieldReader::new(bytes, offset);
        let mut found = [None; 2];
        for slot in &mut found {
            let queries = fields.u32()?;
            let mut widths = [Width::default(); 3];
            for width in &mut widths {
                let at = fields.offset();
                *width = Width { ef: fields.u32()?, recall: f32::from_bits(fields.u32()?) };
                if width.ef as usize > MAX_EF || !(0.0..=1.0).contains(&width.recall) {
                    return Err(Damage::new(at, format!("beam width {} with recall {}", width.ef, width.recall)));
                }
            }
            *slot = (queries != u32::MAX).then_some(Measured { queries, widths });
        }
        if fields.left() != 0 {
            return Err(fields.damage(format!("{} bytes too many in the table of efforts", fields.left())));
        }
        Ok(Self::new(found))
    }
}
