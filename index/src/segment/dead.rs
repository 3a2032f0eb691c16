//! Which rows of a segment are dead: gathered as bits in memory, published as a file of its own beside the segment.
//!
//! ```text
//!   upsert, delete ──► RowSet ──commit: with those dead before──► dead file of generation N ──► RowSet in memory
//! ```
//!
//! The file is small (one bit per row), so it is read and compared with its checksum whenever a pool is opened: a deleted row
//! must not come back by a flipped bit.

use std::{collections::BTreeMap, path::Path};

use super::files::{open_checked, range, typed};
use crate::{
    RowSet, StoreError,
    disk::Disk,
    format::{
        bytes::Damage,
        dead::{BITS, DeadLayout},
        header::FileId,
        manifest::{DeadCounts, FileEntry, SegmentEntry},
    },
};

/// Rows by segment number.
pub(crate) type RowsBySegment = BTreeMap<u64, RowSet>;

/// Reads a published dead file; every bit counts.
pub(super) fn read_dead(dir: &Path, entry: &FileEntry, segment: &SegmentEntry) -> Result<RowSet, StoreError> {
    let (map, header) = open_checked(dir, entry)?;
    let layout = DeadLayout::of(&header).map_err(|damage| map.corrupt(damage))?;
    if layout.rows != segment.rows || layout.counts != segment.dead {
        let (found, said) = (layout.counts, segment.dead);
        let reason = format!("{found:?} of {} rows, the manifest says {said:?} of {}", layout.rows, segment.rows);
        return Err(map.corrupt(Damage::new(32, reason)));
    }
    let corrupt = |reason: String| Err(map.corrupt(Damage::new(layout.bits.offset, reason)));
    if crc32c::crc32c(map.slice(&range(&layout.bits))) != layout.bits.crc {
        return corrupt("the checksum of the dead rows differs".to_owned());
    }
    let words: &[u64] = typed(&map, &layout.bits);
    let dead = RowSet::from_words(words.to_vec(), layout.rows as usize);
    if dead.words() != words || dead.count() as u64 != layout.counts.rows {
        return corrupt(format!("{} bits are set for {} dead rows", dead.count(), layout.counts.rows));
    }
    Ok(dead)
}

/// Writes the dead file of a segment.
pub(super) fn write_dead(disk: &Disk, id: FileId, dead: &RowSet, counts: &DeadCounts) -> Result<FileEntry, StoreError> {
    let mut file = disk.create(id)?;
    file.begin(BITS)?;
    file.put(bytemuck::cast_slice(dead.words()))?;
    file.finish(DeadLayout::numbers(dead.positions() as u64, counts))
}
