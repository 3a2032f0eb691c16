//! A graph and its rows as slices: the same search runs over a map and over a graph under repair.

use crate::{distance::Cpu, format::graph::NONE, quantize::QuantizedQuery};

/// A value that points nowhere, met during a search.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) part: FaultPart,
    /// Index of the u32 within its part.
    pub(crate) index: usize,
    pub(crate) value: u32,
}

/// Where the value stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FaultPart {
    Level0,
    UpperNodes,
    UpperLinks,
}

/// One upper level.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Level<'a> {
    /// Node ids, ascending.
    pub(crate) nodes: &'a [u32],
    /// `width` positions per node.
    pub(crate) links: &'a [u32],
    /// Where `nodes` begins among all upper nodes.
    pub(crate) first: usize,
}

/// Adjacency.
#[derive(Clone, Debug)]
pub(crate) struct GraphView<'a> {
    pub(crate) nodes: usize,
    pub(crate) entry: u32,
    /// Links per node on level 0; half as many above.
    pub(crate) width: usize,
    pub(crate) level0: &'a [u32],
    /// From level 1 up.
    pub(crate) upper: Vec<Level<'a>>,
}

impl<'a> GraphView<'a> {
    /// Links of a node that was checked to be one.
    pub(crate) fn links(&self, node: u32) -> &'a [u32] {
        let start = node as usize * self.width;
        &self.level0[start..start + self.width]
    }

    /// Checks the link at `place` of `node`.
    pub(crate) fn check(&self, node: u32, place: usize, link: u32) -> Result<(), Fault> {
        if (link as usize) < self.nodes {
            return Ok(());
        }
        Err(Fault { part: FaultPart::Level0, index: node as usize * self.width + place, value: link })
    }

    /// Links at `position` of an upper level, each checked.
    pub(crate) fn upper_links(&self, level: &Level<'a>, position: usize) -> impl Iterator<Item = Result<usize, Fault>> + 'a {
        let width = self.width / 2;
        let start = position * width;
        let (count, first) = (level.nodes.len(), level.first * width + start);
        let links = &level.links[start..start + width];
        links.iter().take_while(|&&link| link != NONE).enumerate().map(move |(place, &link)| {
            if (link as usize) < count {
                Ok(link as usize)
            } else {
                Err(Fault { part: FaultPart::UpperLinks, index: first + place, value: link })
            }
        })
    }

    /// The node at `position` of an upper level.
    pub(crate) fn upper_node(&self, level: &Level<'a>, position: usize) -> Result<u32, Fault> {
        let node = level.nodes[position];
        if (node as usize) < self.nodes {
            return Ok(node);
        }
        Err(Fault { part: FaultPart::UpperNodes, index: level.first + position, value: node })
    }
}

/// 7-bit rows.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RowsView<'a> {
    pub(crate) cpu: Cpu,
    pub(crate) stride: usize,
    pub(crate) q8: &'a [u8],
    pub(crate) scales: &'a [f32],
}

impl<'a> RowsView<'a> {
    pub(crate) fn row(&self, node: u32) -> &'a [u8] {
        let start = node as usize * self.stride;
        &self.q8[start..start + self.stride]
    }

    /// Larger is nearer; comparable within one query. A scale that is no number ranks last.
    pub(crate) fn score(&self, query: &QuantizedQuery, node: u32) -> f32 {
        let dot = self.cpu.dot_query(self.row(node), &query.values).wrapping_sub(query.bias);
        let score = dot as f32 * self.scales[node as usize];
        if score.is_nan() { f32::NEG_INFINITY } else { score }
    }

    pub(crate) fn prefetch(&self, node: u32) {
        self.cpu.prefetch(self.row(node));
    }
}
