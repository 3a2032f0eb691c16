//! A graph and its rows as slices: the same search runs over a map and over a graph under repair.

use super::walk::Scorer;
use crate::{
    distance::Cpu,
    format::{graph::NONE, vectors::ZERO},
    quantize::QuantizedQuery,
    sketch::{SketchQuery, SketchView, Z},
};

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
    /// One bit per value of every row; graphs of earlier versions have none.
    pub(crate) sketches: Option<SketchView<'a>>,
}

impl<'a> GraphView<'a> {
    /// Links of a node that was checked to be one.
    pub(crate) fn links(&self, node: u32) -> &'a [u32] {
        let start = node as usize * self.width;
        &self.level0[start..start + self.width]
    }

    /// Links of a node, each checked to lead to one.
    pub(crate) fn checked_links(&self, node: u32) -> impl Iterator<Item = Result<u32, Fault>> + 'a {
        let (nodes, first) = (self.nodes, node as usize * self.width);
        self.links(node).iter().take_while(|&&link| link != NONE).enumerate().map(move |(place, &link)| {
            if (link as usize) < nodes {
                Ok(link)
            } else {
                Err(Fault { part: FaultPart::Level0, index: first + place, value: link })
            }
        })
    }

    pub(crate) fn prefetch_links(&self, node: u32, cpu: Cpu) {
        cpu.prefetch(bytemuck::cast_slice(self.links(node)));
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
        self.cpu.prefetch_value(&self.scales[node as usize]);
        self.cpu.prefetch(self.row(node));
    }

    /// The row in f32, without its padding.
    pub(crate) fn values(&self, node: u32, dim: usize) -> Vec<f32> {
        let scale = self.scales[node as usize];
        self.row(node)[..dim].iter().map(|&b| (f32::from(b) - f32::from(ZERO)) * scale).collect()
    }
}

/// A query against the rows of a graph.
#[derive(Clone, Debug)]
pub(crate) struct RowScorer<'a> {
    rows: RowsView<'a>,
    query: &'a QuantizedQuery,
    sketch: Option<SketchQuery<'a>>,
}

impl<'a> RowScorer<'a> {
    pub(crate) fn new(graph: &GraphView<'a>, rows: &RowsView<'a>, query: &'a QuantizedQuery) -> Self {
        Self::trusting(graph, rows, query, Z)
    }

    /// As [`RowScorer::new`], with sketches trusted within `errors` standard errors.
    pub(crate) fn trusting(graph: &GraphView<'a>, rows: &RowsView<'a>, query: &'a QuantizedQuery, errors: f32) -> Self {
        let sketch = graph.sketches.map(|view| SketchQuery::new(view, query, errors));
        Self { rows: *rows, query, sketch }
    }

    pub(crate) fn cpu(&self) -> Cpu {
        self.rows.cpu
    }
}

impl Scorer for RowScorer<'_> {
    fn sift(&self, nodes: &mut Vec<u32>, floor: f32) {
        if let Some(sketch) = &self.sketch {
            sketch.sift(nodes, floor);
        }
    }

    fn sift_surely(&self, nodes: &mut Vec<u32>, floor: f32) {
        if let Some(sketch) = &self.sketch {
            sketch.sift_surely(nodes, floor);
        }
    }

    fn score(&self, node: u32) -> f32 {
        self.rows.score(self.query, node)
    }

    fn prefetch_sketch(&self, node: u32) {
        match &self.sketch {
            Some(sketch) => sketch.prefetch(node),
            None => self.rows.prefetch(node),
        }
    }

    fn prefetch(&self, node: u32) {
        self.rows.prefetch(node);
    }
}
