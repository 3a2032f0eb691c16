//! Which rows of a segment are dead: gathered as bits in memory, published as a file of its own beside the segment.
//!
//! ```text
//!   upsert, delete ──► RowBits ──commit: with those dead before──► dead file of generation N ──► DeadFile::contains
//! ```
//!
//! The file is small (one bit per row), so it is read and compared with its checksum whenever a pool is opened: a deleted row
//! must not come back by a flipped bit.

use std::{collections::BTreeMap, path::Path};

use super::files::{open_checked, range, typed};
use crate::{
    StoreError,
    disk::Disk,
    format::{
        bytes::Damage,
        dead::{BITS, DeadLayout, WORD},
        header::FileId,
        manifest::{DeadCounts, FileEntry, SegmentEntry},
    },
    map::Map,
};

/// Rows of one segment, as bits in memory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct RowBits {
    words: Vec<u64>,
}

impl RowBits {
    pub(crate) fn contains(&self, row: u32) -> bool {
        self.words.get(row as usize / WORD).is_some_and(|word| word >> (row as usize % WORD) & 1 == 1)
    }

    /// Adds a row; true when it is new.
    pub(crate) fn insert(&mut self, row: u32) -> bool {
        let (place, bit) = (row as usize / WORD, 1 << (row as usize % WORD));
        if self.words.len() <= place {
            self.words.resize(place + 1, 0);
        }
        let new = self.words[place] & bit == 0;
        self.words[place] |= bit;
        new
    }

    /// Adds every row of `other`.
    pub(crate) fn extend(&mut self, other: &Self) {
        self.words.resize(self.words.len().max(other.words.len()), 0);
        self.words.iter_mut().zip(&other.words).for_each(|(word, more)| *word |= more);
    }

    pub(crate) fn count(&self) -> u64 {
        self.words.iter().map(|word| u64::from(word.count_ones())).sum()
    }

    /// Rows, ascending.
    pub(crate) fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        let of_word = |(place, &word): (usize, &u64)| {
            (0..WORD).filter(move |bit| word >> bit & 1 == 1).map(move |bit| (place * WORD + bit) as u32)
        };
        self.words.iter().enumerate().flat_map(of_word)
    }
}

/// Rows by segment number.
pub(crate) type RowsBySegment = BTreeMap<u64, RowBits>;

/// A published dead file, mapped.
#[derive(Debug)]
pub(crate) struct DeadFile {
    map: Map,
    layout: DeadLayout,
}

impl DeadFile {
    /// Opens and reads it; every bit counts.
    pub(super) fn open(dir: &Path, entry: &FileEntry, segment: &SegmentEntry) -> Result<Self, StoreError> {
        let (map, header) = open_checked(dir, entry)?;
        let layout = DeadLayout::of(&header).map_err(|damage| map.corrupt(damage))?;
        if layout.rows != segment.rows || layout.counts != segment.dead {
            let found =
                format!("{:?} of {} rows, the manifest says {:?} of {}", layout.counts, layout.rows, segment.dead, segment.rows);
            return Err(map.corrupt(Damage::new(32, found)));
        }
        let file = Self { map, layout };
        file.check_bits()?;
        Ok(file)
    }

    fn words(&self) -> &[u64] {
        typed(&self.map, &self.layout.bits)
    }

    fn check_bits(&self) -> Result<(), StoreError> {
        let corrupt = |reason: String| Err(self.map.corrupt(Damage::new(self.layout.bits.offset, reason)));
        if crc32c::crc32c(self.map.slice(&range(&self.layout.bits))) != self.layout.bits.crc {
            return corrupt("the checksum of the dead rows differs".to_owned());
        }
        let set: u64 = self.words().iter().map(|word| u64::from(word.count_ones())).sum();
        let in_last = self.layout.rows as usize % WORD;
        let beyond = in_last > 0 && self.words().last().is_some_and(|word| word >> in_last != 0);
        if set != self.layout.counts.rows || beyond {
            return corrupt(format!("{set} bits are set for {} dead rows", self.layout.counts.rows));
        }
        Ok(())
    }

    pub(crate) fn contains(&self, row: u32) -> bool {
        self.words().get(row as usize / WORD).is_some_and(|word| word >> (row as usize % WORD) & 1 == 1)
    }

    /// A copy that can be added to.
    pub(super) fn bits(&self) -> RowBits {
        RowBits { words: self.words().to_vec() }
    }
}

/// Writes the dead file of a segment.
pub(super) fn write_dead(
    disk: &Disk,
    id: FileId,
    rows: u64,
    (bits, counts): (&RowBits, &DeadCounts),
) -> Result<FileEntry, StoreError> {
    let mut file = disk.create(id)?;
    file.begin(BITS)?;
    let mut words = bits.words.clone();
    words.resize((rows as usize).div_ceil(WORD), 0);
    file.put(bytemuck::cast_slice(&words))?;
    file.finish(DeadLayout::numbers(rows, counts))
}
