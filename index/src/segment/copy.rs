//! Rows of a segment one by one, as pairs that can be put into another: graphs are neither needed nor looked at.

use std::path::Path;

use super::{
    dead::read_dead,
    files::{PairsFile, PicturesFile},
    vectors::VectorsFile,
};
use crate::{
    Pair, RowSet, Side, StoreError,
    format::{
        header::FileKind,
        manifest::{SegmentEntry, side_index},
    },
};

/// A segment to copy from.
#[derive(Debug)]
pub(crate) struct Source {
    pairs: PairsFile,
    pictures: Option<PicturesFile>,
    vectors: [Option<VectorsFile>; 2],
    alive: RowSet,
}

impl Source {
    /// Opens everything but the graphs. Rows in `buried` count as dead.
    pub(crate) fn open(dir: &Path, entry: &SegmentEntry, dim: usize, buried: Option<&RowSet>) -> Result<Self, StoreError> {
        let mut dead = match entry.file(FileKind::Dead, None) {
            Some(file) => read_dead(dir, file, entry)?,
            None => RowSet::empty(entry.rows as usize),
        };
        buried.into_iter().for_each(|more| dead.unite(more));
        dead.complement();
        let vectors = |side| -> Result<Option<VectorsFile>, StoreError> {
            let file = entry.file(FileKind::Vectors, Some(side));
            file.map(|file| VectorsFile::open(dir, file, entry.side_rows(side), dim)).transpose()
        };
        let pairs = entry.file(FileKind::Pairs, None).ok_or_else(|| entry.missing("pairs"))?;
        let pictures = entry.file(FileKind::Pictures, None);
        Ok(Self {
            pairs: PairsFile::open(dir, pairs, entry.rows)?,
            pictures: pictures.map(|file| PicturesFile::open(dir, file)).transpose()?,
            vectors: [vectors(Side::Image)?, vectors(Side::Text)?],
            alive: dead,
        })
    }

    /// Rows that are alive, ascending.
    pub(crate) fn rows(&self) -> impl Iterator<Item = usize> + '_ {
        self.alive.iter()
    }

    /// A row with its stored vectors and picture. What is stored of the vectors survives the way through f32
    /// exactly: f16 values as they are, 7-bit rows as `quantize::widen_row` says.
    pub(crate) fn pair(&self, row: usize) -> Result<Pair, StoreError> {
        let stored = self.pairs.record(row)?;
        let picture = self.pairs.picture(&stored, row, self.pictures.as_ref())?.map(<[u8]>::to_vec);
        let vector = |side| match &self.vectors[side_index(side)] {
            Some(vectors) => vectors.vector(row),
            None => Ok(None),
        };
        Ok(Pair {
            picture,
            image: vector(Side::Image)?,
            text: vector(Side::Text)?,
            key: stored.key,
            source: stored.source,
            content: stored.content,
            caption: stored.caption,
            fields: stored.fields,
        })
    }
}
