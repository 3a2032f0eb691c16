//! Records of one segment, and which of them are alive.

use std::path::Path;

use super::{
    dead::{read_dead, write_dead},
    files::{GraphFile, PairsFile, PicturesFile},
    select::Selected,
    vectors::VectorsFile,
};
use crate::{
    ContentHash, Parts, Precision, Record, RowId, RowSet, Side, StoreError,
    disk::Disk,
    format::{
        bytes::Damage,
        effort::EffortTable,
        graph::GraphFacts,
        header::{FileId, FileKind},
        manifest::{FileEntry, SegmentEntry, side_index},
    },
    map::Access,
};

/// Vectors of one side and their graph.
#[derive(Debug)]
pub(super) struct SideFiles {
    pub(super) vectors: VectorsFile,
    pub(super) graph: GraphFile,
}

/// An open segment.
#[derive(Debug)]
pub(crate) struct Segment {
    first_row: u64,
    rows: u64,
    /// Rows that are alive, where some are not.
    live: Option<Selected>,
    pairs: PairsFile,
    pictures: Option<PicturesFile>,
    sides: [Option<SideFiles>; 2],
}

impl Segment {
    pub(crate) fn open(dir: &Path, entry: &SegmentEntry, first_row: u64, dim: usize) -> Result<Self, StoreError> {
        let pairs = entry.file(FileKind::Pairs, None).ok_or_else(|| entry.missing("pairs"))?;
        let open_side = |side| -> Result<Option<SideFiles>, StoreError> {
            let nodes = entry.side_rows(side);
            if nodes == 0 {
                return Ok(None);
            }
            let file = |kind, name| entry.file(kind, Some(side)).ok_or_else(|| entry.missing(name));
            let vectors = VectorsFile::open(dir, file(FileKind::Vectors, "vectors")?, nodes, dim)?;
            let graph = GraphFile::open(dir, file(FileKind::Graph, "graph")?, vectors.nodes(), dim)?;
            Ok(Some(SideFiles { vectors, graph }))
        };
        let pictures = |file: &FileEntry| PicturesFile::open(dir, file);
        Ok(Self {
            first_row,
            rows: entry.rows,
            live: entry.file(FileKind::Dead, None).map(|file| live_rows(dir, file, entry)).transpose()?,
            pairs: PairsFile::open(dir, pairs, entry.rows)?,
            pictures: entry.file(FileKind::Pictures, None).map(pictures).transpose()?,
            sides: [open_side(Side::Image)?, open_side(Side::Text)?],
        })
    }

    /// Tells the system how the vectors and graphs will be read.
    pub(crate) fn advise(&self, access: Access) {
        for SideFiles { vectors, graph } in self.sides.iter().flatten() {
            vectors.advise(access);
            graph.advise(access);
        }
    }

    /// The part of a side's vectors file that every search reads.
    pub(crate) fn searched(&self, side: Side) -> Option<std::ops::Range<u64>> {
        self.side(side).map(|files| files.vectors.searched())
    }

    pub(super) fn side(&self, side: Side) -> Option<&SideFiles> {
        self.sides[side_index(side)].as_ref()
    }

    pub(super) fn pairs(&self) -> &PairsFile {
        &self.pairs
    }

    pub(super) fn vectors(&self, side: Side) -> Option<&VectorsFile> {
        self.side(side).map(|files| &files.vectors)
    }

    /// Pool rows of this segment.
    pub(crate) fn contains(&self, row: RowId) -> bool {
        row.0 >= self.first_row && row.0 - self.first_row < self.rows
    }

    /// What each effort means on the graph of a side.
    pub(crate) fn efforts(&self, side: Side) -> Option<EffortTable> {
        self.side(side).map(|files| *files.graph.efforts())
    }

    pub(crate) fn facts(&self, side: Side) -> Option<GraphFacts> {
        self.side(side).map(|files| files.graph.facts())
    }

    /// A vectors file that keeps other rows than the pool does.
    pub(crate) fn check_precision(&self, pool: Precision) -> Result<(), StoreError> {
        let files = self.sides.iter().flatten().map(|side| &side.vectors);
        match files.into_iter().find(|vectors| vectors.precision() != pool) {
            None => Ok(()),
            Some(vectors) => {
                let reason = format!("it keeps {} vectors, the manifest says {pool}", vectors.precision());
                Err(vectors.corrupt(Damage::new(128, reason)))
            }
        }
    }

    /// Whether a row of this segment was deleted or replaced.
    pub(crate) fn is_dead(&self, local: u32) -> bool {
        self.live.as_ref().is_some_and(|live| !live.rows().contains(local as usize))
    }

    /// Whether a pool row of this segment is alive.
    pub(crate) fn is_alive(&self, row: RowId) -> bool {
        !self.is_dead((row.0 - self.first_row) as u32)
    }

    /// The row of a key within the segment, if it is alive and `alive` has nothing against it.
    pub(crate) fn find_local(&self, key: &crate::Key, alive: impl Fn(u32) -> bool) -> Result<Option<u32>, StoreError> {
        self.pairs.find(key, |row| !self.is_dead(row) && alive(row))
    }

    pub(crate) fn find(&self, key: &crate::Key) -> Result<Option<RowId>, StoreError> {
        Ok(self.find_local(key, |_| true)?.map(|row| RowId(self.first_row + u64::from(row))))
    }

    /// The living rows as a selection, where some are dead.
    pub(super) fn living(&self) -> Option<&Selected> {
        self.live.as_ref()
    }

    /// The rows that are alive, where some are not.
    pub(super) fn live(&self) -> Option<&RowSet> {
        self.live.as_ref().map(Selected::rows)
    }

    /// Content hash of a row.
    pub(crate) fn content(&self, local: u32) -> Result<ContentHash, StoreError> {
        Ok(self.pairs.record(local as usize)?.content)
    }

    /// Writes the segment's dead rows with `more` added; returns the segment as the manifest of `generation` names it.
    pub(crate) fn bury(
        &self,
        disk: &Disk,
        entry: &SegmentEntry,
        more: &RowSet,
        generation: u64,
    ) -> Result<SegmentEntry, StoreError> {
        let mut dead = self.live().cloned().unwrap_or_else(|| RowSet::full(entry.rows as usize));
        dead.complement();
        let mut counts = entry.dead;
        for row in more.iter().take_while(|row| *row < entry.rows as usize) {
            if !dead.contains(row) {
                dead.insert(row);
                counts.rows += 1;
                for side in Side::ALL {
                    let node = self.side(side).and_then(|files| files.vectors.find(row));
                    counts.sides[side_index(side)] += u64::from(node.is_some());
                }
            }
        }
        if counts.rows == entry.dead.rows {
            return Ok(entry.clone());
        }
        let id = FileId { revision: generation, ..FileId::new(entry.id, FileKind::Dead, None) };
        let file = write_dead(disk, id, &dead, &counts)?;
        let kept = entry.files.iter().filter(|file| file.id.kind != FileKind::Dead).copied();
        Ok(SegmentEntry { dead: counts, files: kept.chain([file]).collect(), ..entry.clone() })
    }

    pub(crate) fn record(&self, row: RowId, parts: Parts) -> Result<Record, StoreError> {
        let local = (row.0 - self.first_row) as usize;
        let stored = self.pairs.record(local)?;
        let picture = match parts.picture {
            true => self.pairs.picture(&stored, local, self.pictures.as_ref())?.map(<[u8]>::to_vec),
            false => None,
        };
        let vector = |side| match self.side(side).filter(|_| parts.vectors) {
            Some(files) => files.vectors.vector(local),
            None => Ok(None),
        };
        Ok(Record {
            row,
            key: stored.key,
            source: stored.source,
            content: stored.content,
            caption: stored.caption,
            fields: stored.fields,
            has_picture: stored.picture.is_some(),
            picture,
            image: vector(Side::Image)?,
            text: vector(Side::Text)?,
        })
    }

    /// Pool row of the vector at a place.
    pub(super) fn row_of(&self, vectors: &VectorsFile, place: usize) -> Result<u64, StoreError> {
        let position = vectors.position_at(place)?;
        let row = u64::from(vectors.rows()[position]);
        if row < self.rows {
            return Ok(self.first_row + row);
        }
        Err(vectors.corrupt(Damage::new(vectors.rows_offset(position), format!("row {row} of {}", self.rows))))
    }
}

fn live_rows(dir: &Path, file: &FileEntry, segment: &SegmentEntry) -> Result<Selected, StoreError> {
    let mut rows = read_dead(dir, file, segment)?;
    rows.complement();
    Ok(Selected::new(rows))
}
