//! Pairs in, files out. Rows go to the files as they come; in memory stay the keys, offsets and row numbers of the segment
//! being written (about 150 bytes a pair).

use std::{collections::HashMap, time::Instant};

use half::f16;

use super::{
    calibrate::Calibration,
    files::PairsFile,
    order::{Rows, near_together},
    vectors::VectorsFile,
};
use crate::{
    Cancel, ContentHash, Key, Pair, Precision, Side, StoreError,
    disk::{Disk, SectionWriter},
    distance::Cpu,
    format::{
        effort::EffortTable,
        graph::{EFFORTS, GraphLayout, LEVEL0, LEVELS, UPPER_LINKS, UPPER_NODES},
        header::{FileId, FileKind, HEADER_BYTES},
        manifest::{DeadCounts, FileEntry, SegmentEntry, side_index},
        pairs::{KEY_ORDER, OFFSETS, PICTURES, PairsLayout, PictureRef, RECORDS, encode},
        sketches::{CENTRE, SKETCHES},
        vectors::{F16, NODES, ORDER, Q8, ROWS, SCALES, VectorsLayout, f16_stride},
    },
    hnsw::{BuildJob, Built, Plan, build},
    map::Map,
    quantize::quantize_row,
};

/// A segment that still takes pairs.
pub(crate) struct Pending {
    disk: Disk,
    id: u64,
    shape: Shape,
    keys: HashMap<Key, u32>,
    /// Rows that were deleted or replaced since, with their keys.
    buried: Vec<(Key, u32)>,
    contents: Vec<ContentHash>,
    pairs: SectionWriter,
    offsets: Vec<u64>,
    pictures: Option<SectionWriter>,
    sides: [Option<SideWriter>; 2],
    record: Vec<u8>,
}

/// What the vectors of a pool are.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    /// Values of each.
    pub(crate) dim: usize,
    /// What is kept of them.
    pub(crate) precision: Precision,
}

/// f16 rows as they come: at the beginning of the vectors file, or in a file of their own that goes when the 7-bit rows are made.
struct SideWriter {
    file: SectionWriter,
    rows: Vec<u32>,
}

impl Pending {
    pub(crate) fn create(disk: &Disk, id: u64, shape: Shape) -> Result<Self, StoreError> {
        let mut pairs = disk.create(FileId::new(id, FileKind::Pairs, None))?;
        pairs.begin(RECORDS)?;
        Ok(Self {
            disk: disk.clone(),
            id,
            shape,
            keys: HashMap::new(),
            buried: Vec::new(),
            contents: Vec::new(),
            pairs,
            offsets: Vec::new(),
            pictures: None,
            sides: [None, None],
            record: Vec::new(),
        })
    }

    pub(crate) fn rows(&self) -> u64 {
        self.offsets.len() as u64
    }

    /// The segment's number.
    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    /// Row and content hash of the pair of this key, if it is here and was not buried.
    pub(crate) fn find(&self, key: &Key) -> Option<(u32, ContentHash)> {
        let row = *self.keys.get(key)?;
        Some((row, *self.contents.get(row as usize)?))
    }

    /// Forgets the pair of this key, whose row the caller counts as dead; the key may come again.
    pub(crate) fn bury(&mut self, key: &Key) {
        self.buried.extend(self.keys.remove_entry(key));
    }

    /// Takes a pair that was checked.
    pub(crate) fn put(&mut self, pair: &Pair) -> Result<(), StoreError> {
        let row = self.offsets.len() as u32;
        let picture = pair.picture.as_deref().map(|bytes| self.put_picture(bytes)).transpose()?;
        self.offsets.push(self.pairs.section_len());
        self.record.clear();
        encode(pair, picture, &mut self.record);
        self.pairs.put(&self.record)?;
        for (side, vector) in [(Side::Image, &pair.image), (Side::Text, &pair.text)] {
            if let Some(vector) = vector {
                self.put_vector(side, vector, row)?;
            }
        }
        self.keys.insert(pair.key.clone(), row);
        self.contents.push(pair.content);
        Ok(())
    }

    fn put_picture(&mut self, bytes: &[u8]) -> Result<PictureRef, StoreError> {
        let file = match &mut self.pictures {
            Some(file) => file,
            none => {
                let mut file = self.disk.create(FileId::new(self.id, FileKind::Pictures, None))?;
                file.begin(PICTURES)?;
                none.insert(file)
            }
        };
        let offset = file.section_len();
        file.put(bytes)?;
        Ok(PictureRef { offset, len: bytes.len() as u64, crc: crc32c::crc32c(bytes) })
    }

    fn put_vector(&mut self, side: Side, vector: &[f32], row: u32) -> Result<(), StoreError> {
        let writer = match &mut self.sides[side_index(side)] {
            Some(writer) => writer,
            none => {
                let id = FileId::new(self.id, FileKind::Vectors, Some(side));
                let mut file = match self.shape.precision {
                    Precision::SevenBit => self.disk.create_passing(id)?,
                    Precision::Half | Precision::Single => self.disk.create(id)?,
                };
                file.begin(F16)?;
                none.insert(SideWriter { file, rows: Vec::new() })
            }
        };
        self.record.clear();
        self.record.extend(vector.iter().flat_map(|&v| f16::from_f32(v).to_le_bytes()));
        self.record.resize(f16_stride(self.shape.dim), 0);
        writer.rows.push(row);
        writer.file.put(&self.record)
    }

    /// Finishes every file but the graphs.
    pub(crate) fn seal(self) -> Result<Sealed, StoreError> {
        let rows = self.rows();
        let mut files = vec![seal_pairs(self.pairs, self.offsets, self.keys.into_iter().chain(self.buried).collect())?];
        if let Some(pictures) = self.pictures {
            files.push(pictures.finish([0; _])?);
        }
        let mut sides = [0; 2];
        for (count, side) in sides.iter_mut().zip(self.sides) {
            if let Some(writer) = side {
                *count = writer.rows.len() as u64;
                files.push(seal_vectors(&self.disk, writer, self.shape)?);
            }
        }
        let pairs = PairsFile::open(self.disk.dir(), &files[0], rows)?;
        let entry = SegmentEntry { id: self.id, rows, sides, dead: DeadCounts::default(), files };
        Ok(Sealed { entry, pairs, dim: self.shape.dim })
    }
}

fn seal_pairs(mut file: SectionWriter, mut offsets: Vec<u64>, mut order: Vec<(Key, u32)>) -> Result<FileEntry, StoreError> {
    let rows = offsets.len();
    offsets.push(file.section_len());
    file.begin(OFFSETS)?;
    file.put(bytemuck::cast_slice(&offsets))?;
    order.sort_unstable();
    let order: Vec<u32> = order.into_iter().map(|(_, row)| row).collect();
    file.begin(KEY_ORDER)?;
    file.put(bytemuck::cast_slice(&order))?;
    file.finish(PairsLayout::numbers(rows))
}

/// Maps the f16 rows as they are on disk and quantizes those, near ones side by side: what is searched is made from what is
/// stored, or would have been.
fn seal_vectors(disk: &Disk, side: SideWriter, shape: Shape) -> Result<FileEntry, StoreError> {
    let SideWriter { mut file, rows } = side;
    file.flush()?;
    let written = Map::open(disk.dir(), file.name(), HEADER_BYTES as u64 + file.section_len())?;
    let values: &[f16] = bytemuck::cast_slice(written.slice(&(HEADER_BYTES..written.bytes().len())));
    let cut = Rows { cpu: Cpu::detect(), width: f16_stride(shape.dim) / 2, values };
    // Sealing is not cancelled: it takes a small part of the time of the graph, and a sealed segment can be gone on with.
    let order = near_together(&cut, &Cancel::default())?;
    if shape.precision != Precision::SevenBit {
        put_derived(&mut file, &cut, (&rows, &order), shape.dim)?;
        return file.finish(VectorsLayout::numbers(rows.len(), shape.dim));
    }
    let mut kept = disk.create(file.id())?;
    put_derived(&mut kept, &cut, (&rows, &order), shape.dim)?;
    let mut nodes = vec![0u32; order.len()];
    order.iter().zip(0..).for_each(|(&position, node)| nodes[position as usize] = node);
    kept.begin(NODES)?;
    kept.put(bytemuck::cast_slice(&nodes))?;
    let entry = kept.finish(VectorsLayout::numbers(rows.len(), shape.dim))?;
    drop(written);
    disk.remove(file.name())?;
    Ok(entry)
}

/// Everything behind the f16 rows, which determine all of it but the row numbers.
pub(super) fn put_derived(
    file: &mut SectionWriter,
    cut: &Rows<'_>,
    (rows, order): (&[u32], &[u32]),
    dim: usize,
) -> Result<(), StoreError> {
    let (mut row, mut scales) = (Vec::new(), Vec::with_capacity(rows.len()));
    file.begin(Q8)?;
    for &position in order {
        scales.push(quantize_row(cut.row(position), dim, &mut row));
        file.put(&row)?;
    }
    for (tag, bytes) in
        [(SCALES, bytemuck::cast_slice(&scales)), (ROWS, bytemuck::cast_slice(rows)), (ORDER, bytemuck::cast_slice(order))]
    {
        file.begin(tag)?;
        file.put(bytes)?;
    }
    Ok(())
}

/// A segment whose pairs and vectors are on disk, without graphs, known to no manifest.
pub(crate) struct Sealed {
    entry: SegmentEntry,
    pairs: PairsFile,
    dim: usize,
}

impl Sealed {
    pub(crate) fn entry(&self) -> &SegmentEntry {
        &self.entry
    }

    /// Row and content hash of the pair of this key, if it is here and alive.
    pub(crate) fn find(&self, key: &Key, alive: impl Fn(u32) -> bool) -> Result<Option<(u32, ContentHash)>, StoreError> {
        let row = self.pairs.find(key, alive)?;
        row.map(|row| Ok((row, self.pairs.record(row as usize)?.content))).transpose()
    }

    pub(crate) fn pairs(&self) -> &PairsFile {
        &self.pairs
    }

    /// Builds the graphs that are not there yet; after [`StoreError::Cancelled`] it can be called again.
    pub(crate) fn build_graphs(&mut self, disk: &Disk, plan: &Plan) -> Result<(), StoreError> {
        for side in Side::ALL {
            let there = self.entry.file(FileKind::Graph, Some(side)).is_some();
            if !there && self.entry.file(FileKind::Vectors, Some(side)).is_some() {
                let file = build_graph(disk, &self.entry, side, 0, (self.dim, plan))?;
                self.entry.files.push(file);
            }
        }
        Ok(())
    }
}

/// Builds and calibrates the graph of one side of a segment from its vectors. The file has the revision `generation`: 0 when it is
/// written with its segment.
pub(crate) fn build_graph(
    disk: &Disk,
    segment: &SegmentEntry,
    side: Side,
    generation: u64,
    (dim, plan): (usize, &Plan),
) -> Result<FileEntry, StoreError> {
    let open = |side| {
        segment.file(FileKind::Vectors, Some(side)).map(|file| VectorsFile::open(disk.dir(), file, segment.side_rows(side), dim))
    };
    let vectors = open(side).ok_or_else(|| segment.missing("vectors"))??;
    // A damaged other side is found where it is asked for; this graph can do without its questions.
    let other = open(side.other()).and_then(Result::ok);
    let cpu = Cpu::detect();
    let asking = other.as_ref().map(|other| (other.view(cpu), other.nodes()));
    let built = build(&BuildJob { side, rows: vectors.view(cpu), nodes: vectors.nodes(), dim, asking }, plan)?;
    let started = Instant::now();
    let job = Calibration { side, graph: built.view(cpu), vectors: &vectors, cancel: &plan.cancel };
    let efforts = job.run(other.as_ref())?;
    tracing::info!(segment = segment.id, %side, seconds = started.elapsed().as_secs_f64(), "calibrated");
    let id = FileId { revision: generation, ..FileId::new(segment.id, FileKind::Graph, Some(side)) };
    write_graph(disk, id, &built, &efforts)
}

fn write_graph(disk: &Disk, id: FileId, built: &Built, efforts: &EffortTable) -> Result<FileEntry, StoreError> {
    let mut file = disk.create(id)?;
    file.begin(LEVEL0)?;
    file.put(bytemuck::cast_slice(&built.level0))?;
    file.begin(LEVELS)?;
    file.put(&GraphLayout::encode_levels(built.upper.iter().map(|level| level.nodes.len() as u32)))?;
    file.begin(UPPER_NODES)?;
    for level in &built.upper {
        file.put(bytemuck::cast_slice(&level.nodes))?;
    }
    file.begin(UPPER_LINKS)?;
    for level in &built.upper {
        file.put(bytemuck::cast_slice(&level.links))?;
    }
    file.begin(EFFORTS)?;
    file.put(&efforts.encode())?;
    if let Some(sketches) = &built.sketches {
        file.begin(SKETCHES)?;
        file.put(&sketches.bytes)?;
        file.begin(CENTRE)?;
        file.put(bytemuck::cast_slice(&sketches.centre))?;
    }
    file.finish(GraphLayout::numbers(built.level0.len() / built.width, built.entry, &built.facts))
}
