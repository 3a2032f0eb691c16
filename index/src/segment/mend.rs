//! Damaged vectors files written anew, where what is lost follows from what is not: a checksum proves each byte that is put back.
//!
//! ```text
//!   f16 rows ──quantized──► 7-bit rows, scales        row numbers, where every row has a vector: 0, 1, 2, ...
//!      └─near ones together─► order                   order ◄──inverse──► places (7-bit pools)
//!   header ◄── layout, and sections whose checksums the manifest confirms
//! ```
//!
//! What has no such source (f16 rows; the rows of a 7-bit pool) is named and left alone: 7-bit rows do not determine f16 rows, and a vector
//! that is nearly right would be served without anyone knowing.

use half::f16;

use super::{
    check::check_file,
    files::{open_header, open_raw, range, typed},
    order::{Rows, near_together},
    vectors::widths,
};
use crate::{
    Cancel, Precision, Side, StoreError,
    disk::{Disk, SectionWriter},
    distance::Cpu,
    format::{
        bytes::Damage,
        header::{ALIGN, FileId, FileKind, HEADER_BYTES, Header, RESIDUE, Section, checksum},
        manifest::{FileEntry, SegmentEntry},
        vectors::{F16, NODES, ORDER, Q8, ROWS, SCALES, VectorsLayout, f16_stride},
    },
    map::Map,
    quantize::quantize_row,
};

/// Writes the vectors file of a side anew with the revision `generation`, equal to the byte to what it was but for its header's revision.
///
/// # Errors
/// [`StoreError::Corrupt`] for what cannot be put back, a failed write, or [`StoreError::Cancelled`].
pub(crate) fn mend_vectors(
    disk: &Disk,
    segment: &SegmentEntry,
    side: Side,
    (dim, precision): (usize, Precision),
    (generation, cancel): (u64, &Cancel),
) -> Result<FileEntry, StoreError> {
    let entry = segment.file(FileKind::Vectors, Some(side)).ok_or_else(|| segment.missing("vectors"))?;
    let map = open_raw(disk.dir(), entry)?;
    let nodes = segment.side_rows(side) as usize;
    let header = match open_header(&map, entry) {
        Ok(header) => header,
        Err(damage) => rebuilt_header(&map, entry, (nodes, dim, precision)).ok_or(damage)?,
    };
    let old = Damaged { map: &map, sound: header.sections.iter().map(|s| is_sound(&map, s)).collect(), header, nodes, dim };
    let sources = old.sources(segment.rows as usize, cancel)?;
    let id = FileId { revision: generation, ..entry.id };
    let mut file = disk.create(id)?;
    old.write(&mut file, &sources)?;
    let mended = file.finish(old.header.numbers)?;
    let proved =
        old.proved(disk, &mended).and_then(|()| match check_file(disk.dir(), segment, &mended, dim).into_iter().next() {
            None => Ok(()),
            Some(error) => Err(error),
        });
    if let Err(error) = proved {
        disk.remove(&id.name())?;
        return Err(error);
    }
    Ok(mended)
}

fn is_sound(map: &Map, section: &Section) -> bool {
    crc32c::crc32c(map.slice(&range(section))) == section.crc
}

/// The header that a file of these counts has, if the manifest's checksum of it agrees: then every section is sound too.
fn rebuilt_header(map: &Map, entry: &FileEntry, (nodes, dim, precision): (usize, usize, Precision)) -> Option<Header> {
    let tags: [&[u32]; 2] = match precision {
        Precision::SevenBit => [&[Q8, SCALES, ROWS, ORDER, NODES]; 2],
        // Files of earlier versions have no order.
        _ => [&[F16, Q8, SCALES, ROWS, ORDER], &[F16, Q8, SCALES, ROWS]],
    };
    let of = |tags: &[u32]| -> Option<Header> {
        let mut end = HEADER_BYTES as u64;
        let mut sections = Vec::new();
        for &tag in tags {
            let offset = end.next_multiple_of(ALIGN);
            let mut section = Section { tag, crc: 0, offset, len: (nodes * widths(tag, dim)) as u64 };
            end = offset + section.len;
            if end > entry.len {
                return None;
            }
            section.crc = crc32c::crc32c(map.slice(&range(&section)));
            sections.push(section);
        }
        let header = Header { id: entry.id, numbers: VectorsLayout::numbers(nodes, dim), sections };
        // The file's checksum proves the body, and so the sections' checksums; the header's own says nothing in manifests before version 3.
        let bytes = header.encode();
        let file = crc32c::crc32c_append(crc32c::crc32c(&bytes), &map.bytes()[HEADER_BYTES..]);
        let same = [checksum(&bytes), RESIDUE].contains(&entry.header_crc) && file == entry.crc;
        (end == entry.len && same).then_some(header)
    };
    tags.into_iter().find_map(of)
}

/// A file some of whose sections do not agree with their checksums.
struct Damaged<'a> {
    map: &'a Map,
    header: Header,
    /// Whether each section does.
    sound: Vec<bool>,
    nodes: usize,
    dim: usize,
}

/// Row numbers and orders, as they are or worked out.
struct Sources {
    rows: Vec<u32>,
    order: Option<Vec<u32>>,
    places: Option<Vec<u32>>,
}

impl Damaged<'_> {
    fn section(&self, tag: u32) -> Option<(&Section, bool)> {
        self.header.sections.iter().zip(&self.sound).find(|(s, _)| s.tag == tag).map(|(s, sound)| (s, *sound))
    }

    /// A sound section of u32.
    fn numbers(&self, tag: u32) -> Option<Vec<u32>> {
        let (section, _) = self.section(tag).filter(|(_, sound)| *sound)?;
        Some(typed::<u32>(self.map, section).to_vec())
    }

    fn is_lost(&self, tag: u32) -> bool {
        self.section(tag).is_some_and(|(_, sound)| !sound)
    }

    fn lost(&self, tag: u32, what: &str) -> StoreError {
        let offset = self.section(tag).map_or(0, |(section, _)| section.offset);
        self.map.corrupt(Damage::new(offset, format!("the checksum of {what}; they cannot be worked out from the rest")))
    }

    /// f16 rows, where there are any and they are sound.
    fn cut(&self) -> Option<Rows<'_>> {
        let (section, _) = self.section(F16).filter(|(_, sound)| *sound)?;
        Some(Rows { cpu: Cpu::detect(), width: f16_stride(self.dim) / 2, values: typed::<f16>(self.map, section) })
    }

    fn sources(&self, segment_rows: usize, cancel: &Cancel) -> Result<Sources, StoreError> {
        if self.is_lost(F16) {
            let seven = if self.is_lost(Q8) || self.is_lost(SCALES) { "" } else { ", although the 7-bit rows are sound" };
            return Err(self.lost(F16, &format!("the f16 rows differs{seven}")));
        }
        if self.section(F16).is_none() && (self.is_lost(Q8) || self.is_lost(SCALES)) {
            return Err(
                self.lost(if self.is_lost(Q8) { Q8 } else { SCALES }, "the 7-bit rows differs, and the pool keeps nothing else")
            );
        }
        let rows = match self.numbers(ROWS) {
            Some(rows) => rows,
            None if self.nodes == segment_rows => (0..self.nodes as u32).collect(),
            None => return Err(self.lost(ROWS, "the row numbers differs, and not every row has a vector")),
        };
        let (mut order, mut places) = (self.numbers(ORDER), self.numbers(NODES));
        if self.is_lost(ORDER) {
            order = match (self.cut(), &places) {
                (Some(cut), _) => Some(near_together(&cut, cancel)?),
                (None, Some(places)) => inverse(places),
                (None, None) => return Err(self.lost(ORDER, "both orders differs")),
            };
        }
        if self.is_lost(NODES) {
            places = order.as_deref().and_then(inverse);
        }
        Ok(Sources { rows, order, places })
    }

    /// Every section, from the old file or from what it is made of.
    fn write(&self, file: &mut SectionWriter, sources: &Sources) -> Result<(), StoreError> {
        let (mut row, mut scales) = (Vec::new(), Vec::new());
        for (section, &sound) in self.header.sections.iter().zip(&self.sound) {
            file.begin(section.tag)?;
            match (section.tag, sound) {
                (_, true) => file.put(self.map.slice(&range(section)))?,
                (Q8, false) => self.quantized(sources, |_| {}, |row| file.put(row), &mut row)?,
                (SCALES, false) => {
                    self.quantized(sources, |scale| scales.push(scale), |_| Ok(()), &mut row)?;
                    file.put(bytemuck::cast_slice(&scales))?;
                }
                (ROWS, false) => file.put(bytemuck::cast_slice(&sources.rows))?,
                (ORDER, false) => file.put(bytemuck::cast_slice(sources.order.as_deref().unwrap_or_default()))?,
                (NODES, false) => file.put(bytemuck::cast_slice(sources.places.as_deref().unwrap_or_default()))?,
                (tag, false) => return Err(self.lost(tag, "a section of unknown meaning differs")),
            }
        }
        Ok(())
    }

    /// The 7-bit rows and scales that the f16 rows give, one by one.
    fn quantized(
        &self,
        sources: &Sources,
        mut scale: impl FnMut(f32),
        mut put: impl FnMut(&[u8]) -> Result<(), StoreError>,
        row: &mut Vec<u8>,
    ) -> Result<(), StoreError> {
        let Some(cut) = self.cut() else { return Err(self.lost(Q8, "the 7-bit rows differs")) };
        for node in 0..self.nodes as u32 {
            let position = sources.order.as_ref().map_or(Some(node), |order| order.get(node as usize).copied());
            let Some(position) = position.filter(|position| (*position as usize) < self.nodes) else {
                return Err(self.lost(ORDER, "the order differs"));
            };
            scale(quantize_row(cut.row(position), self.dim, row));
            put(row)?;
        }
        Ok(())
    }

    /// Whether every section of the new file has the checksum that the old header says.
    fn proved(&self, disk: &Disk, mended: &FileEntry) -> Result<(), StoreError> {
        let map = open_raw(disk.dir(), mended)?;
        let header = open_header(&map, mended)?;
        for (old, new) in self.header.sections.iter().zip(&header.sections) {
            if old != new {
                return Err(self.lost(old.tag, &format!("section {} differs, also from what was worked out for it", old.tag)));
            }
        }
        Ok(())
    }
}

fn inverse(of: &[u32]) -> Option<Vec<u32>> {
    let mut inverse = vec![0; of.len()];
    for (&to, from) in of.iter().zip(0..) {
        *inverse.get_mut(to as usize)? = from;
    }
    Some(inverse)
}
