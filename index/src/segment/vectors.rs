//! Vectors of one side, mapped: what a search compares, and what its scores are computed from.
//!
//! ```text
//!   node ──► 7-bit row (searched)
//!    └─► place ──► the most precise row there is (scored): f16 rows in the order of arrival, else the 7-bit rows themselves
//!          └─► position ──► row of the segment
//! ```
//!
//! A *node* counts 7-bit rows, near ones side by side. A *position* counts vectors by ascending row. A *place* is where the row lies that
//! scores are computed from: a position where the file has f16 rows, a node where it has none.

use std::path::Path;

use half::f16;

use super::files::{open_checked, range, typed};
use crate::{
    Precision, RowSet, StoreError,
    distance::Cpu,
    format::{
        bytes::Damage,
        manifest::FileEntry,
        vectors::{F16, Q8, VectorsLayout, f16_stride, q8_stride},
    },
    hnsw::{Allowed, RowsView},
    map::{Access, Map},
    quantize::widen_row,
};

/// Vectors of one side.
#[derive(Debug)]
pub(crate) struct VectorsFile {
    map: Map,
    layout: VectorsLayout,
}

impl VectorsFile {
    pub(crate) fn open(dir: &Path, entry: &FileEntry, nodes: u64, dim: usize) -> Result<Self, StoreError> {
        let (map, header) = open_checked(dir, entry)?;
        let layout = VectorsLayout::of(&header).map_err(|damage| map.corrupt(damage))?;
        if layout.nodes as u64 != nodes || layout.dim != dim {
            let found = format!("{} x {}, the manifest says {nodes} x {dim}", layout.nodes, layout.dim);
            return Err(map.corrupt(Damage::new(32, found)));
        }
        Ok(Self { map, layout })
    }

    /// Tells the system how it will be read: 7-bit rows and their scales by every search, f16 rows for the best of it.
    pub(super) fn advise(&self, access: Access) {
        let std::ops::Range { start, end } = self.searched();
        self.map.advise(&(start as usize..end as usize), access, true);
        if let Some(f16) = &self.layout.f16 {
            self.map.advise(&range(f16), access, false);
        }
    }

    /// The part of the file that every search reads.
    pub(super) fn searched(&self) -> std::ops::Range<u64> {
        self.layout.q8.offset..self.layout.scales.offset + self.layout.scales.len
    }

    pub(crate) fn nodes(&self) -> usize {
        self.layout.nodes
    }

    pub(super) fn dim(&self) -> usize {
        self.layout.dim
    }

    /// What scores are computed from.
    pub(crate) fn precision(&self) -> Precision {
        self.layout.precision()
    }

    pub(crate) fn corrupt(&self, damage: Damage) -> StoreError {
        self.map.corrupt(damage)
    }

    /// The f16 row at a place, padded with zeros; `None` where there are none.
    pub(super) fn f16_row(&self, place: usize) -> Option<&[f16]> {
        let width = self.width();
        let all: &[f16] = typed(&self.map, self.layout.f16.as_ref()?);
        Some(&all[place * width..(place + 1) * width])
    }

    /// Values per padded row.
    fn width(&self) -> usize {
        f16_stride(self.layout.dim) / 2
    }

    /// The 7-bit row of a node, padded.
    fn q8_row(&self, node: usize) -> &[u8] {
        let stride = q8_stride(self.layout.dim);
        &self.map.slice(&range(&self.layout.q8))[node * stride..(node + 1) * stride]
    }

    /// The values at a place as f32 into `out`, which is as long as a padded f16 row.
    pub(super) fn widen(&self, place: usize, out: &mut [f32], cpu: Cpu) {
        match self.f16_row(place) {
            Some(row) => cpu.widen(row, out),
            None => widen_row(self.q8_row(place), self.scale(place as u32), out),
        }
    }

    /// The values at a place, without padding.
    pub(super) fn values(&self, place: usize) -> Vec<f32> {
        let mut values = vec![0.0; self.width()];
        self.widen(place, &mut values, Cpu::detect());
        values.truncate(self.dim());
        values
    }

    /// Score of the row at a place. Equal to the bit to what [`Cpu::dot_tile`] says of the widened row; `buffer` is working memory.
    pub(super) fn score(&self, place: usize, query: &[f32], buffer: &mut Vec<f32>, cpu: Cpu) -> f32 {
        if let Some(row) = self.f16_row(place) {
            return cpu.dot_f16(row, query);
        }
        buffer.resize(query.len(), 0.0);
        self.widen(place, buffer, cpu);
        let mut score = [0.0];
        cpu.dot_tile(buffer, query, query.len(), &mut score);
        score[0]
    }

    /// Asks for what [`VectorsFile::score`] and [`VectorsFile::position_at`] read, and where the first gives the second, for the row's number.
    pub(super) fn prefetch(&self, place: usize, cpu: Cpu) {
        match self.f16_row(place) {
            Some(row) => {
                cpu.prefetch_value(&self.rows()[place]);
                cpu.prefetch(bytemuck::cast_slice(row));
            }
            None => {
                self.prefetch_place(place as u32, cpu);
                cpu.prefetch(self.q8_row(place));
            }
        }
    }

    /// Where the row at a place begins in the file.
    pub(super) fn offset(&self, place: usize) -> u64 {
        let (section, stride) = match &self.layout.f16 {
            Some(f16) => (f16, f16_stride(self.layout.dim)),
            None => (&self.layout.q8, q8_stride(self.layout.dim)),
        };
        section.offset + (place * stride) as u64
    }

    /// The places that may be found.
    pub(super) fn places<'a>(&self, allowed: &'a Allowed) -> &'a RowSet {
        if self.layout.f16.is_some() { &allowed.positions } else { allowed.nodes() }
    }

    /// The place of a node's row.
    pub(super) fn place(&self, node: u32) -> Result<usize, StoreError> {
        if self.layout.f16.is_some() { self.position(node) } else { Ok(node as usize) }
    }

    /// The position of the row at a place.
    pub(super) fn position_at(&self, place: usize) -> Result<usize, StoreError> {
        if self.layout.f16.is_some() { Ok(place) } else { self.position(place as u32) }
    }

    /// The place of the row at a position.
    fn place_of(&self, position: usize) -> Result<usize, StoreError> {
        let Some(section) = self.layout.nodes_of.as_ref().filter(|_| self.layout.f16.is_none()) else { return Ok(position) };
        let node = typed::<u32>(&self.map, section)[position] as usize;
        if node < self.layout.nodes {
            return Ok(node);
        }
        let at = section.offset + position as u64 * 4;
        Err(self.corrupt(Damage::new(at, format!("7-bit row {node} of {}", self.layout.nodes))))
    }

    /// The position of a row of the segment.
    pub(super) fn find(&self, row: usize) -> Option<usize> {
        self.rows().binary_search(&(row as u32)).ok()
    }

    /// The stored vector of a row of the segment.
    pub(super) fn vector(&self, row: usize) -> Result<Option<Vec<f32>>, StoreError> {
        let Some(position) = self.find(row) else { return Ok(None) };
        Ok(Some(self.values(self.place_of(position)?)))
    }

    /// Row of the segment of each position.
    pub(super) fn rows(&self) -> &[u32] {
        typed(&self.map, &self.layout.rows)
    }

    /// Position of a node.
    pub(super) fn position(&self, node: u32) -> Result<usize, StoreError> {
        let Some(order) = &self.layout.order else { return Ok(node as usize) };
        let position = typed::<u32>(&self.map, order)[node as usize] as usize;
        if position < self.layout.nodes {
            return Ok(position);
        }
        let reason = format!("position {position} of {} vectors", self.layout.nodes);
        Err(self.corrupt(Damage::new(self.order_offset(node), reason)))
    }

    /// Where a node's position stands in the file.
    pub(super) fn order_offset(&self, node: u32) -> u64 {
        self.layout.order.map_or(0, |order| order.offset) + u64::from(node) * 4
    }

    /// Asks for what [`VectorsFile::place`] reads.
    pub(super) fn prefetch_place(&self, node: u32, cpu: Cpu) {
        if let Some(order) = &self.layout.order {
            cpu.prefetch_value(&typed::<u32>(&self.map, order)[node as usize]);
        }
    }

    /// Where a position's row number stands in the file.
    pub(super) fn rows_offset(&self, position: usize) -> u64 {
        self.layout.rows.offset + position as u64 * 4
    }

    pub(crate) fn view(&self, cpu: Cpu) -> RowsView<'_> {
        RowsView {
            cpu,
            stride: q8_stride(self.layout.dim),
            q8: self.map.slice(&range(&self.layout.q8)),
            scales: typed(&self.map, &self.layout.scales),
        }
    }

    /// Scale of a node's 7-bit row.
    pub(super) fn scale(&self, node: u32) -> f32 {
        typed::<f32>(&self.map, &self.layout.scales)[node as usize]
    }

    pub(super) fn scales_offset(&self) -> u64 {
        self.layout.scales.offset
    }

    pub(super) fn q8_offset(&self) -> u64 {
        self.layout.q8.offset
    }

    /// Whether the places of positions are the inverse of the positions of nodes; where it is not, the offset.
    pub(super) fn wrong_inverse(&self) -> Result<Option<u64>, StoreError> {
        let Some(section) = &self.layout.nodes_of else { return Ok(None) };
        let nodes: &[u32] = typed(&self.map, section);
        for node in 0..self.layout.nodes as u32 {
            let position = self.position(node)?;
            if nodes[position] != node {
                return Ok(Some(section.offset + position as u64 * 4));
            }
        }
        Ok(None)
    }
}

/// Bytes that each vector has in a section.
pub(super) fn widths(tag: u32, dim: usize) -> usize {
    match tag {
        F16 => f16_stride(dim),
        Q8 => q8_stride(dim),
        _ => 4,
    }
}
