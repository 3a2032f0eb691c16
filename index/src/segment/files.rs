//! Mapped files of a segment as typed slices. Opening checks length, header and section bounds, and reads nothing else.

use std::{ops::Range, path::Path, sync::OnceLock};

use crate::{
    Key, StoreError,
    distance::Cpu,
    filter::{ColumnRef, ValueRef},
    format::{
        bytes::Damage,
        effort::EffortTable,
        graph::{GraphFacts, GraphLayout},
        header::{Header, RESIDUE, Section, checksum},
        manifest::FileEntry,
        pairs::{self, PICTURES, PairsLayout, PictureRef, StoredPair},
        sketches::{CENTRE, SKETCHES, SketchLayout},
    },
    hnsw::{GraphView, Level},
    map::{Access, Map},
    sketch::{SketchView, Turn},
};

#[cfg(target_endian = "big")]
compile_error!("mapped sections are little-endian and are used in place; a big-endian machine needs a decoding reader");

/// A file whose header was checked against its manifest entry.
pub(super) fn open_checked(dir: &Path, entry: &FileEntry) -> Result<(Map, Header), StoreError> {
    let map = open_raw(dir, entry)?;
    let header = open_header(&map, entry)?;
    Ok((map, header))
}

/// A file of the length that its manifest entry says.
pub(super) fn open_raw(dir: &Path, entry: &FileEntry) -> Result<Map, StoreError> {
    Map::open(dir, &entry.id.name(), entry.len)
}

/// The header of a file, checked against its manifest entry.
pub(super) fn open_header(map: &Map, entry: &FileEntry) -> Result<Header, StoreError> {
    let header = Header::decode(map.bytes(), entry.id, entry.len)?;
    if entry.header_crc != RESIDUE && checksum(map.bytes()) != entry.header_crc {
        return Err(map.corrupt(Damage::new(0, "the header is not the one the manifest names")));
    }
    Ok(header)
}

pub(super) fn range(section: &Section) -> Range<usize> {
    // The header's check put the section inside the file, and the file is mapped, so both fit.
    section.offset as usize..(section.offset + section.len) as usize
}

/// Sections begin at multiples of 64 bytes of a page-aligned map (`Header::decode`), so any value type is aligned.
pub(super) fn typed<'a, T: bytemuck::AnyBitPattern>(map: &'a Map, section: &Section) -> &'a [T] {
    bytemuck::cast_slice(map.slice(&range(section)))
}

/// Keys, sources, captions, fields.
#[derive(Debug)]
pub(crate) struct PairsFile {
    map: Map,
    layout: PairsLayout,
}

impl PairsFile {
    pub(crate) fn open(dir: &Path, entry: &FileEntry, rows: u64) -> Result<Self, StoreError> {
        let (map, header) = open_checked(dir, entry)?;
        let layout = PairsLayout::of(&header).map_err(|damage| map.corrupt(damage))?;
        if layout.rows as u64 != rows {
            return Err(map.corrupt(Damage::new(32, format!("{} rows, the manifest says {rows}", layout.rows))));
        }
        Ok(Self { map, layout })
    }

    pub(crate) fn rows(&self) -> usize {
        self.layout.rows
    }

    pub(super) fn corrupt(&self, damage: Damage) -> StoreError {
        self.map.corrupt(damage)
    }

    /// The bytes of a record, and where they begin in the file.
    fn record_bytes(&self, row: usize) -> Result<(&[u8], u64), StoreError> {
        let offsets: &[u64] = typed(&self.map, &self.layout.offsets);
        let records = &self.layout.records;
        let bounds = offsets.get(row).zip(offsets.get(row + 1));
        let inside = bounds.filter(|(start, end)| start <= end && **end <= records.len);
        let Some((&start, &end)) = inside else {
            let at = self.layout.offsets.offset + row as u64 * 8;
            return Err(self.corrupt(Damage::new(at, format!("the record of row {row} does not lie in the file"))));
        };
        let at = records.offset + start;
        Ok((self.map.slice(&(at as usize..(records.offset + end) as usize)), at))
    }

    pub(super) fn record(&self, row: usize) -> Result<StoredPair, StoreError> {
        let (bytes, at) = self.record_bytes(row)?;
        pairs::decode(bytes, at).map_err(|damage| self.corrupt(damage))
    }

    /// Gives every value of a row that a filter can name.
    pub(super) fn each_value(&self, row: usize, take: &mut dyn FnMut(ColumnRef<'_>, ValueRef<'_>)) -> Result<(), StoreError> {
        let (bytes, at) = self.record_bytes(row)?;
        pairs::walk(bytes, at, &mut |column, value| take(column, value)).map(drop).map_err(|damage| self.corrupt(damage))
    }

    /// The bytes of a record's picture, if it has one.
    pub(super) fn picture<'a>(
        &self,
        stored: &StoredPair,
        row: usize,
        pictures: Option<&'a PicturesFile>,
    ) -> Result<Option<&'a [u8]>, StoreError> {
        match (stored.picture, pictures) {
            (None, _) => Ok(None),
            (Some(picture), Some(file)) => file.picture(picture).map(Some),
            (Some(_), None) => Err(self.corrupt(Damage::new(0, format!("row {row} has a picture, the segment has none")))),
        }
    }

    fn key_at(&self, place: usize) -> Result<(u32, &[u8]), StoreError> {
        let order: &[u32] = typed(&self.map, &self.layout.key_order);
        let row = order[place];
        if row as usize >= self.layout.rows {
            let at = self.layout.key_order.offset + place as u64 * 4;
            return Err(self.corrupt(Damage::new(at, format!("row {row} of {} in the key order", self.layout.rows))));
        }
        let (bytes, at) = self.record_bytes(row as usize)?;
        let key = pairs::key_bytes(bytes, at).map_err(|damage| self.corrupt(damage))?;
        Ok((row, key))
    }

    /// The row of a key that is alive, by binary search. A key that was replaced before its segment was committed has dead rows
    /// beside it.
    pub(crate) fn find(&self, key: &Key, alive: impl Fn(u32) -> bool) -> Result<Option<u32>, StoreError> {
        let wanted = key.as_str().as_bytes();
        let (mut low, mut high) = (0, self.layout.rows);
        while low < high {
            let middle = low + (high - low) / 2;
            let (_, found) = self.key_at(middle)?;
            if found < wanted { low = middle + 1 } else { high = middle }
        }
        for place in low..self.layout.rows {
            let (row, found) = self.key_at(place)?;
            if found != wanted {
                break;
            }
            if alive(row) {
                return Ok(Some(row));
            }
        }
        Ok(None)
    }

    /// Whether keys ascend along the key order, equal ones by row, and no two equal ones are alive.
    pub(super) fn check_key_order(&self, alive: impl Fn(u32) -> bool) -> Result<(), StoreError> {
        let mut before: Option<(&[u8], u32)> = None;
        let mut living = false;
        for place in 0..self.layout.rows {
            let (row, key) = self.key_at(place)?;
            let at = self.layout.key_order.offset + place as u64 * 4;
            if before.is_some_and(|before| before >= (key, row)) {
                return Err(self.corrupt(Damage::new(at, "keys do not ascend")));
            }
            let same = before.is_some_and(|(before, _)| before == key);
            if same && living && alive(row) {
                return Err(self.corrupt(Damage::new(at, format!("row {row} has the key of another row that is alive"))));
            }
            living = alive(row) || (same && living);
            before = Some((key, row));
        }
        Ok(())
    }
}

/// Encoded pictures.
#[derive(Debug)]
pub(super) struct PicturesFile {
    map: Map,
    section: Section,
}

impl PicturesFile {
    pub(super) fn open(dir: &Path, entry: &FileEntry) -> Result<Self, StoreError> {
        let (map, header) = open_checked(dir, entry)?;
        let section = header.section(PICTURES, None).map_err(|damage| map.corrupt(damage))?;
        Ok(Self { map, section })
    }

    pub(super) fn picture(&self, picture: PictureRef) -> Result<&[u8], StoreError> {
        let end = picture.offset.checked_add(picture.len).filter(|&end| end <= self.section.len);
        let Some(end) = end else {
            let damage = Damage::new(self.section.offset, format!("a picture at {} does not lie in the file", picture.offset));
            return Err(self.map.corrupt(damage));
        };
        let at = self.section.offset + picture.offset;
        let bytes = self.map.slice(&(at as usize..(self.section.offset + end) as usize));
        if crc32c::crc32c(bytes) != picture.crc {
            return Err(self.map.corrupt(Damage::new(at, "the picture's checksum differs")));
        }
        Ok(bytes)
    }
}

/// Graph of one side.
#[derive(Debug)]
pub(super) struct GraphFile {
    map: Map,
    layout: GraphLayout,
    levels: Vec<usize>,
    efforts: EffortTable,
    sketches: Option<SketchFacts>,
}

/// Where sketches lie, and how queries are turned for them.
#[derive(Debug)]
struct SketchFacts {
    layout: SketchLayout,
    bytes: Section,
    centre: Section,
    /// The centre turned, from the first search on.
    turned: OnceLock<Vec<f32>>,
    turn: Turn,
}

impl SketchFacts {
    fn of(header: &Header, nodes: usize, dim: usize) -> Result<Option<Self>, Damage> {
        if !header.sections.iter().any(|section| section.tag == SKETCHES) {
            return Ok(None);
        }
        let layout = SketchLayout::new(dim);
        let bytes = header.section(SKETCHES, Some((nodes * layout.stride()) as u64))?;
        let centre = header.section(CENTRE, Some(dim as u64 * 4))?;
        Ok(Some(Self { layout, bytes, centre, turned: OnceLock::new(), turn: Turn::new(dim) }))
    }
}

impl GraphFile {
    pub(super) fn open(dir: &Path, entry: &FileEntry, nodes: usize, dim: usize) -> Result<Self, StoreError> {
        let (map, header) = open_checked(dir, entry)?;
        let corrupt = |damage| map.corrupt(damage);
        let layout = GraphLayout::of(&header).map_err(corrupt)?;
        if layout.nodes != nodes {
            return Err(corrupt(Damage::new(32, format!("{} nodes, the vectors file has {nodes}", layout.nodes))));
        }
        let levels = layout.level_counts(map.slice(&range(&layout.levels))).map_err(corrupt)?;
        // Small, and no answer would show that it is wrong: so it is the one section whose checksum is tested here.
        let table = |s: &Section| {
            let bytes = map.slice(&range(s));
            if crc32c::crc32c(bytes) != s.crc {
                return Err(corrupt(Damage::new(s.offset, "the checksum of the table of efforts differs")));
            }
            EffortTable::decode(bytes, s.offset).map_err(corrupt)
        };
        let efforts = layout.efforts.as_ref().map(table).transpose()?.unwrap_or_default();
        let sketches = SketchFacts::of(&header, nodes, dim).map_err(corrupt)?;
        Ok(Self { map, layout, levels, efforts, sketches })
    }

    /// Tells the system how it will be read: all of it is searched.
    pub(super) fn advise(&self, access: Access) {
        self.map.advise(&(0..self.map.bytes().len()), access, true);
    }

    pub(super) fn facts(&self) -> GraphFacts {
        self.layout.facts
    }

    /// Whether there is one bit per value of every row.
    pub(super) fn has_sketches(&self) -> bool {
        self.sketches.is_some()
    }

    /// What each effort means here; empty where it was not measured.
    pub(super) fn efforts(&self) -> &EffortTable {
        &self.efforts
    }

    pub(super) fn corrupt(&self, damage: Damage) -> StoreError {
        self.map.corrupt(damage)
    }

    pub(super) fn view(&self, cpu: Cpu) -> GraphView<'_> {
        let nodes: &[u32] = typed(&self.map, &self.layout.upper_nodes);
        let links: &[u32] = typed(&self.map, &self.layout.upper_links);
        let m = self.layout.facts.m as usize;
        let mut first = 0;
        let mut upper = Vec::with_capacity(self.levels.len());
        for &count in &self.levels {
            let end = first + count;
            upper.push(Level { nodes: &nodes[first..end], links: &links[first * m..end * m], first });
            first = end;
        }
        GraphView {
            nodes: self.layout.nodes,
            entry: self.layout.entry,
            width: self.layout.width(),
            level0: typed(&self.map, &self.layout.level0),
            upper,
            sketches: self.sketches.as_ref().map(|sketches| SketchView {
                cpu,
                layout: sketches.layout,
                bytes: self.map.slice(&range(&sketches.bytes)),
                centre: sketches.turned.get_or_init(|| sketches.turn.applied(typed(&self.map, &sketches.centre))),
                turn: &sketches.turn,
            }),
        }
    }

    /// What a search met, as an error with the place in the file.
    pub(super) fn fault(&self, fault: crate::hnsw::Fault) -> StoreError {
        use crate::hnsw::FaultPart;
        let section = match fault.part {
            FaultPart::Level0 => &self.layout.level0,
            FaultPart::UpperNodes => &self.layout.upper_nodes,
            FaultPart::UpperLinks => &self.layout.upper_links,
        };
        let offset = section.offset + fault.index as u64 * 4;
        self.corrupt(Damage::new(offset, format!("link to {}, of {} nodes", fault.value, self.layout.nodes)))
    }
}

/// Checks sections against their checksums; returns what differs.
pub(super) fn check_sections(map: &Map, header: &Header) -> Vec<Damage> {
    let bad = |s: &&Section| crc32c::crc32c(map.slice(&range(s))) != s.crc;
    let damage = |s: &Section| Damage::new(s.offset, format!("the checksum of section {} ({} bytes) differs", s.tag, s.len));
    header.sections.iter().filter(bad).map(damage).collect()
}
