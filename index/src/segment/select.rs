//! Which rows of the segments, and which nodes of their vectors, a filtered search may find.

use std::sync::OnceLock;

use rayon::prelude::*;

use super::{Segment, files::PairsFile, vectors::VectorsFile};
use crate::{
    Cancel, RowSet, Side, StoreError,
    filter::{Plan, Schema},
    format::{bytes::Damage, manifest::side_index},
    hnsw::Allowed,
};

/// Records read between two looks at the cancel flag, and the unit of work of a thread. A multiple of 64, so that the sets of
/// neighbouring runs join word by word.
const RUN: usize = 4_096;

/// The selected rows of every segment, in order.
#[derive(Debug)]
pub(crate) struct Selection {
    pub(crate) segments: Vec<Selected>,
}

/// The selected rows of one segment.
#[derive(Debug)]
pub(crate) struct Selected {
    rows: RowSet,
    /// The same as nodes of each side.
    nodes: [OnceLock<Allowed>; 2],
}

impl Selection {
    /// Asks every record of every segment, on all cores.
    pub(crate) fn of(segments: &[Segment], plan: &Plan, cancel: &Cancel) -> Result<Self, StoreError> {
        let select = |segment: &Segment| Ok(Selected::new(segment.select(plan, cancel)?));
        Ok(Self { segments: segments.iter().map(select).collect::<Result<_, StoreError>>()? })
    }

    /// Bytes it takes once both sides were asked for.
    pub(crate) fn bytes(&self) -> usize {
        self.segments.iter().map(|s| s.rows.words().len() * 5 * size_of::<u64>() + size_of::<Selected>()).sum()
    }

    /// Vectors of one side that it selects.
    pub(crate) fn count(&self, segments: &[Segment], side: Side) -> Result<u64, StoreError> {
        let mut count = 0;
        for (segment, selected) in segments.iter().zip(&self.segments) {
            count += segment.nodes(side, selected)?.map_or(0, |nodes| nodes.count as u64);
        }
        Ok(count)
    }
}

impl Selected {
    pub(crate) fn new(rows: RowSet) -> Self {
        Self { rows, nodes: Default::default() }
    }

    pub(crate) fn rows(&self) -> &RowSet {
        &self.rows
    }
}

impl PairsFile {
    fn runs(&self) -> impl IndexedParallelIterator<Item = std::ops::Range<usize>> {
        let rows = self.rows();
        (0..rows.div_ceil(RUN)).into_par_iter().map(move |run| run * RUN..rows.min((run + 1) * RUN))
    }

    /// The rows that a filter selects, dead ones included, on all cores.
    pub(crate) fn select(&self, plan: &Plan, cancel: &Cancel) -> Result<RowSet, StoreError> {
        let runs = self.runs().map(|run| {
            alive(cancel)?;
            plan.select(run.len(), |row, take| self.each_value(run.start + row, take))
        });
        let runs = runs.collect::<Result<Vec<RowSet>, StoreError>>()?;
        let words = runs.iter().flat_map(RowSet::words).copied().collect();
        Ok(RowSet::from_words(words, self.rows()))
    }

    /// The metadata fields of the records.
    pub(crate) fn schema(&self, cancel: &Cancel) -> Result<Schema, StoreError> {
        let runs = self.runs().map(|run| {
            alive(cancel)?;
            let mut schema = Schema::default();
            for row in run {
                self.each_value(row, &mut |column, value| schema.observe(column, value))?;
            }
            Ok(schema)
        });
        runs.try_reduce(Schema::default, |a, b| Ok(a.unite(b)))
    }
}

impl Segment {
    /// The living rows that a filter selects.
    pub(crate) fn select(&self, plan: &Plan, cancel: &Cancel) -> Result<RowSet, StoreError> {
        let mut rows = self.pairs().select(plan, cancel)?;
        self.live().inspect(|live| rows.intersect(live));
        Ok(rows)
    }

    /// The metadata fields of the segment's records, dead ones included.
    pub(crate) fn schema(&self, cancel: &Cancel) -> Result<Schema, StoreError> {
        self.pairs().schema(cancel)
    }

    /// The selected nodes of a side; `None` where the segment has none of that side. Worked out once.
    pub(crate) fn nodes<'a>(&self, side: Side, selected: &'a Selected) -> Result<Option<&'a Allowed>, StoreError> {
        let Some(vectors) = self.vectors(side) else { return Ok(None) };
        let kept = &selected.nodes[side_index(side)];
        if let Some(nodes) = kept.get() {
            return Ok(Some(nodes));
        }
        let nodes = self.nodes_of(vectors, &selected.rows)?;
        Ok(Some(kept.get_or_init(|| nodes)))
    }

    /// The nodes a search of this side may find; `None` when that is all of them.
    pub(super) fn allowed<'a>(&'a self, side: Side, selected: Option<&'a Selected>) -> Result<Option<&'a Allowed>, StoreError> {
        let selected = selected.or(self.living());
        Ok(selected.map(|selected| self.nodes(side, selected)).transpose()?.flatten())
    }

    fn nodes_of(&self, vectors: &VectorsFile, rows: &RowSet) -> Result<Allowed, StoreError> {
        let mut set = RowSet::empty(vectors.nodes());
        for (node, &row) in vectors.rows().iter().enumerate() {
            if row as usize >= rows.positions() {
                let reason = format!("row {row} of {}", rows.positions());
                return Err(vectors.corrupt(Damage::new(vectors.rows_offset(node), reason)));
            }
            if rows.contains(row as usize) {
                set.insert(node);
            }
        }
        let positions = set;
        let mut set = RowSet::empty(vectors.nodes());
        for node in 0..vectors.nodes() as u32 {
            if positions.contains(vectors.position(node)?) {
                set.insert(node as usize);
            }
        }
        Ok(Allowed::new(set, positions))
    }
}

fn alive(cancel: &Cancel) -> Result<(), StoreError> {
    if cancel.is_cancelled() { Err(StoreError::Cancelled) } else { Ok(()) }
}
