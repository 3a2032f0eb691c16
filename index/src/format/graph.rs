//! Layout of a graph file: fixed-width adjacency of level 0, and the few upper levels.
//!
//! Links of level 0 are node ids. Links of an upper level are positions in that level's own list of nodes, so that a hop
//! needs no lookup; [`NONE`] fills unused places and ends a list.

use super::{
    bytes::{Damage, FieldReader, PutFields},
    effort::EFFORT_BYTES,
    header::{Header, NUMBERS, Section},
};
use crate::limits::Limits;

/// Tag: level 0, `2 * m` u32 per node.
pub const LEVEL0: u32 = 16;
/// Tag: nodes per upper level, from level 1 up, u32 each.
pub const LEVELS: u32 = 17;
/// Tag: node ids of every upper level, level 1 first, ascending within a level.
pub const UPPER_NODES: u32 = 18;
/// Tag: `m` u32 per entry of [`UPPER_NODES`].
pub const UPPER_LINKS: u32 = 19;

/// Tag: the table of efforts ([`super::effort`]); absent where nothing was measured.
pub const EFFORTS: u32 = 20;

/// No link.
pub const NONE: u32 = u32::MAX;
/// Most upper levels; hnsw_rs makes at most 16 levels in all.
pub const MAX_LEVELS: usize = 16;
/// Largest `m`.
pub const MAX_M: usize = 128;

/// How a graph was built; kept in its file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct GraphFacts {
    /// Links per node on upper levels; level 0 has twice as many.
    pub m: u32,
    /// Beam width while building.
    pub ef_construction: u32,
    /// Links on level 0.
    pub links: u64,
    /// Nodes that the builder left unreachable and that got a link in the repair.
    pub orphans_repaired: u64,
    /// Nodes whose row equals that of another node before them; they hang below it and are no part of the graph proper.
    pub duplicates: u64,
}

/// Where everything lies in a graph file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GraphLayout {
    /// Nodes on level 0.
    pub nodes: usize,
    /// Where a search begins.
    pub entry: u32,
    /// How the graph was built.
    pub facts: GraphFacts,
    /// Level 0.
    pub level0: Section,
    /// Counts of the upper levels.
    pub levels: Section,
    /// Nodes of the upper levels.
    pub upper_nodes: Section,
    /// Links of the upper levels.
    pub upper_links: Section,
    /// Beam widths by effort.
    pub efforts: Option<Section>,
}

impl GraphLayout {
    /// The numbers of the header.
    #[must_use]
    pub fn numbers(nodes: usize, entry: u32, facts: &GraphFacts) -> [u64; NUMBERS] {
        let mut numbers = [0; NUMBERS];
        numbers[..7].copy_from_slice(&[
            nodes as u64,
            u64::from(entry),
            u64::from(facts.m),
            u64::from(facts.ef_construction),
            facts.links,
            facts.orphans_repaired,
            facts.duplicates,
        ]);
        numbers
    }

    /// Links per node on level 0.
    #[must_use]
    pub fn width(&self) -> usize {
        self.facts.m as usize * 2
    }

    /// Checks counts against section lengths.
    ///
    /// # Errors
    /// Counts out of bounds or sections of another length.
    pub fn of(header: &Header) -> Result<Self, Damage> {
        let [nodes, entry, m, ef, links, orphans_repaired, duplicates, ..] = header.numbers;
        if nodes == 0 || nodes > Limits::STANDARD.segment_rows {
            return Err(Damage::new(32, format!("{nodes} nodes")));
        }
        if entry >= nodes {
            return Err(Damage::new(40, format!("entry {entry} of {nodes} nodes")));
        }
        if m == 0 || m > MAX_M as u64 {
            return Err(Damage::new(48, format!("m is {m}")));
        }
        let ef_construction = u32::try_from(ef).map_err(|_| Damage::new(56, format!("ef_construction is {ef}")))?;
        let level0 = nodes.checked_mul(m * 8).ok_or_else(|| Damage::new(32, format!("{nodes} nodes")))?;
        let levels = header.section(LEVELS, None)?;
        if levels.len % 4 != 0 || levels.len > MAX_LEVELS as u64 * 4 {
            return Err(Damage::new(levels.offset, format!("level table of {} bytes", levels.len)));
        }
        Ok(Self {
            nodes: usize::try_from(nodes).map_err(|_| Damage::new(32, format!("{nodes} nodes")))?,
            entry: u32::try_from(entry).map_err(|_| Damage::new(40, format!("entry {entry}")))?,
            facts: GraphFacts { m: m as u32, ef_construction, links, orphans_repaired, duplicates },
            level0: header.section(LEVEL0, Some(level0))?,
            levels,
            upper_nodes: header.section(UPPER_NODES, None)?,
            upper_links: header.section(UPPER_LINKS, None)?,
            efforts: match header.section(EFFORTS, None) {
                Ok(_) => Some(header.section(EFFORTS, Some(EFFORT_BYTES))?),
                Err(_) => None,
            },
        })
    }

    /// Reads the table of upper levels and checks it against the sections it describes.
    ///
    /// # Errors
    /// Counts that do not fit.
    pub fn level_counts(&self, table: &[u8]) -> Result<Vec<usize>, Damage> {
        let mut fields = FieldReader::new(table, self.levels.offset);
        let mut counts = Vec::with_capacity(table.len() / 4);
        let mut total = 0u64;
        while fields.left() > 0 {
            let at = fields.offset();
            let count = fields.u32()?;
            if count == 0 || count as usize > self.nodes {
                return Err(Damage::new(at, format!("a level of {count} nodes")));
            }
            total += u64::from(count);
            counts.push(count as usize);
        }
        if self.upper_nodes.len != total * 4 || self.upper_links.len != total * 4 * u64::from(self.facts.m) {
            return Err(Damage::new(self.upper_nodes.offset, format!("{total} upper nodes do not fit their sections")));
        }
        Ok(counts)
    }

    /// The table of upper levels.
    #[must_use]
    pub fn encode_levels(counts: impl IntoIterator<Item = u32>) -> Vec<u8> {
        let mut out = Vec::new();
        for count in counts {
            out.put_u32(count);
        }
        out
    }
}
