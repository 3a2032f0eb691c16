//! The manifest: the one file that says what a pool is made of.

use super::{
    bytes::{Damage, FieldReader, PutFields},
    header::{FileId, FileKind, HEADER_BYTES, side_code, side_from_code},
};
use crate::{Precision, Side, Spec, StoreError, limits::Limits};

/// First eight bytes.
pub const MAGIC: [u8; 8] = *b"ANCHPOOL";
/// Version written by this code; it reads [`OLDEST`] and later.
pub const VERSION: u32 = 3;
/// Oldest version read: it has no dead rows, no revisions and no model name.
pub const OLDEST: u32 = 1;

const PREFIX: &str = "manifest-";
/// Least bytes of a file entry.
const FILE_ENTRY_BYTES: usize = 24;

/// Name of a generation's manifest.
#[must_use]
pub fn file_name(generation: u64) -> String {
    format!("{PREFIX}{generation:016x}")
}

/// The generation of a manifest's file name.
#[must_use]
pub fn generation_of(name: &str) -> Option<u64> {
    let digits = name.strip_prefix(PREFIX)?;
    let canonical = digits.len() == 16 && digits.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    if canonical { u64::from_str_radix(digits, 16).ok() } else { None }
}

/// One file of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileEntry {
    /// Which one.
    pub id: FileId,
    /// Its length in bytes.
    pub len: u64,
    /// CRC-32C over all of it.
    pub crc: u32,
    /// [`super::header::checksum`] of its header, which binds a header check to this manifest without reading the rest; [`super::header::RESIDUE`] in
    /// manifests before version 3.
    pub header_crc: u32,
}

/// Rows that were deleted or replaced.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DeadCounts {
    /// How many.
    pub rows: u64,
    /// How many of them have an image vector, how many a text vector.
    pub sides: [u64; 2],
}

/// One segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentEntry {
    /// Its number.
    pub id: u64,
    /// Pairs in it, dead ones included.
    pub rows: u64,
    /// How many have an image vector, how many a text vector, dead ones included.
    pub sides: [u64; 2],
    /// Which of these are dead; the dead file says which rows.
    pub dead: DeadCounts,
    /// Its files.
    pub files: Vec<FileEntry>,
}

impl SegmentEntry {
    /// The file of a kind and side.
    #[must_use]
    pub fn file(&self, kind: FileKind, side: Option<Side>) -> Option<&FileEntry> {
        self.files.iter().find(|f| f.id.kind == kind && f.id.side == side)
    }

    /// Rows that have this side, dead ones included.
    #[must_use]
    pub fn side_rows(&self, side: Side) -> u64 {
        self.sides[side_index(side)]
    }

    /// Rows that are alive.
    #[must_use]
    pub fn live_rows(&self) -> u64 {
        self.rows - self.dead.rows
    }

    /// Rows that are alive and have this side.
    #[must_use]
    pub fn live_side_rows(&self, side: Side) -> u64 {
        self.sides[side_index(side)] - self.dead.sides[side_index(side)]
    }

    /// Puts a file in the place of the one of its kind and side.
    pub(crate) fn put(&mut self, file: FileEntry) {
        self.files.retain(|other| other.id.kind != file.id.kind || other.id.side != file.id.side);
        self.files.push(file);
    }

    /// The damage of a manifest that does not name a file it must.
    pub(crate) fn missing(&self, kind: &str) -> StoreError {
        let reason = format!("the manifest names no {kind} file");
        StoreError::Corrupt { file: format!("segment {}", self.id), offset: 0, reason }
    }

    /// Bytes of its files.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.len).sum()
    }
}

/// Position of a side in arrays of two.
#[must_use]
pub fn side_index(side: Side) -> usize {
    match side {
        Side::Image => 0,
        Side::Text => 1,
    }
}

/// A generation of a pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// Counts up with every commit.
    pub generation: u64,
    /// The number the next segment gets; never used twice, not even for segments whose commit failed.
    pub next_segment: u64,
    /// What the pool is bound to.
    pub spec: Spec,
    /// What is kept of every vector: [`Precision::Half`], or [`Precision::SevenBit`] since version 3.
    pub precision: Precision,
    /// Name of the encoder's model, for people; empty when it is not known.
    pub model: String,
    /// The writer's own watermark, opaque here.
    pub progress: Vec<u8>,
    /// Segments in row order.
    pub segments: Vec<SegmentEntry>,
}

impl Manifest {
    /// Generation 0: a pool without rows.
    #[must_use]
    pub fn empty(spec: Spec, precision: Precision) -> Self {
        let (model, progress, segments) = (String::new(), Vec::new(), Vec::new());
        Self { generation: 0, next_segment: 1, spec, precision, model, progress, segments }
    }

    /// The file's bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        out.extend_from_slice(&MAGIC);
        out.put_u32(VERSION);
        out.put_u32(u32::from(self.precision == Precision::SevenBit));
        out.put_u64(self.generation);
        out.put_u64(self.next_segment);
        out.put_u32(self.spec.dim as u32);
        out.put_u32(self.spec.encoder.len() as u32);
        out.extend_from_slice(self.spec.encoder.as_bytes());
        out.put_u32(self.model.len() as u32);
        out.extend_from_slice(self.model.as_bytes());
        out.put_u32(self.progress.len() as u32);
        out.extend_from_slice(&self.progress);
        out.put_u32(self.segments.len() as u32);
        for segment in &self.segments {
            put_segment(segment, &mut out);
        }
        let crc = crc32c::crc32c(&out);
        out.put_u32(crc);
        out
    }

    /// Checks the bytes of the manifest of `generation`.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] naming the field, or [`StoreError::Version`] for a newer format.
    pub fn decode(bytes: &[u8], generation: u64) -> Result<Self, StoreError> {
        let name = file_name(generation);
        let corrupt = |damage: Damage| damage.of(&name);
        let fields = check_frame(bytes).map_err(corrupt)?;
        let (mut fields, version) = fields;
        if !(OLDEST..=VERSION).contains(&version) {
            return Err(StoreError::Version { file: name, found: version, supported: VERSION });
        }
        let manifest = Self::read(&mut fields, version).map_err(corrupt)?;
        if manifest.generation != generation {
            return Err(corrupt(Damage::new(16, format!("generation {} under this name", manifest.generation))));
        }
        Ok(manifest)
    }

    fn read(fields: &mut FieldReader<'_>, version: u32) -> Result<Self, Damage> {
        let limits = Limits::STANDARD;
        let bits = fields.u32()?;
        let precision = match (version, bits) {
            (1 | 2, _) | (_, 0) => Precision::Half,
            (_, 1) => Precision::SevenBit,
            _ => return Err(fields.damage(format!("precision {bits}"))),
        };
        let generation = fields.u64()?;
        let next_segment = fields.u64()?;
        let dim = fields.u32()? as usize;
        if dim == 0 || dim > limits.dim {
            return Err(fields.damage(format!("dimension {dim}")));
        }
        let encoder_len = fields.u32()?;
        let encoder = fields.text(encoder_len.into(), limits.encoder_bytes, "encoder fingerprint")?.to_owned();
        let model_len = if version >= 2 { fields.u32()? } else { 0 };
        let model = fields.text(model_len.into(), limits.model_bytes, "model name")?.to_owned();
        let progress_len = fields.u32()?;
        let progress = fields.bounded(progress_len.into(), limits.progress_bytes, "progress")?.to_vec();
        let count = fields.u32()?;
        let mut segments = Vec::new();
        for _ in 0..count {
            segments.push(read_segment(fields, version)?);
        }
        if fields.left() != 0 {
            return Err(fields.damage(format!("{} bytes too many", fields.left())));
        }
        check_ids(&segments, next_segment).map_err(|reason| fields.damage(reason))?;
        Ok(Self { generation, next_segment, spec: Spec { encoder, dim }, precision, model, progress, segments })
    }
}

/// Magic, checksum and version; everything else is read only behind these.
fn check_frame(bytes: &[u8]) -> Result<(FieldReader<'_>, u32), Damage> {
    let body_len = bytes.len().checked_sub(4).ok_or_else(|| Damage::new(0, "the manifest is cut short"))?;
    let mut fields = FieldReader::new(&bytes[..body_len], 0);
    if fields.take(MAGIC.len())? != MAGIC {
        return Err(Damage::new(0, "no manifest: the magic bytes differ"));
    }
    let stored = FieldReader::new(&bytes[body_len..], body_len as u64).u32()?;
    if crc32c::crc32c(&bytes[..body_len]) != stored {
        return Err(Damage::new(0, "the manifest's checksum differs"));
    }
    let version = fields.u32()?;
    Ok((fields, version))
}

fn check_ids(segments: &[SegmentEntry], next_segment: u64) -> Result<(), String> {
    let mut seen = std::collections::HashSet::new();
    let mut rows = 0u64;
    for segment in segments {
        if segment.id >= next_segment || !seen.insert(segment.id) {
            return Err(format!("segment number {} twice or out of order", segment.id));
        }
        rows = rows.checked_add(segment.rows).ok_or("row counts overflow")?;
    }
    Ok(())
}

fn put_segment(segment: &SegmentEntry, out: &mut Vec<u8>) {
    out.put_u64(segment.id);
    out.put_u64(segment.rows);
    out.put_u64(segment.sides[0]);
    out.put_u64(segment.sides[1]);
    out.put_u64(segment.dead.rows);
    out.put_u64(segment.dead.sides[0]);
    out.put_u64(segment.dead.sides[1]);
    out.put_u32(segment.files.len() as u32);
    for file in &segment.files {
        out.put_u32(file.id.kind.code());
        out.put_u32(side_code(file.id.side));
        out.put_u64(file.id.revision);
        out.put_u64(file.len);
        out.put_u32(file.crc);
        out.put_u32(file.header_crc);
    }
}

fn read_segment(fields: &mut FieldReader<'_>, version: u32) -> Result<SegmentEntry, Damage> {
    let (id, rows) = (fields.u64()?, fields.u64()?);
    let sides = [fields.u64()?, fields.u64()?];
    if rows == 0 || rows > Limits::STANDARD.segment_rows || sides.iter().any(|&s| s > rows) {
        return Err(fields.damage(format!("segment {id} of {rows} rows with {sides:?} vectors")));
    }
    let dead = if version >= 2 {
        DeadCounts { rows: fields.u64()?, sides: [fields.u64()?, fields.u64()?] }
    } else {
        DeadCounts::default()
    };
    if dead.rows > rows || dead.sides.iter().zip(sides).any(|(&dead_side, side)| dead_side > side.min(dead.rows)) {
        return Err(fields.damage(format!("segment {id} has {rows} rows and {sides:?} vectors, of which dead: {dead:?}")));
    }
    let count = fields.u32()? as usize;
    if count > fields.left() / FILE_ENTRY_BYTES {
        return Err(fields.damage(format!("{count} files do not fit")));
    }
    let mut files = Vec::with_capacity(count);
    for _ in 0..count {
        files.push(read_file(fields, id, version)?);
    }
    let segment = SegmentEntry { id, rows, sides, dead, files };
    check_files(&segment).map_err(|reason| fields.damage(reason))?;
    Ok(segment)
}

fn read_file(fields: &mut FieldReader<'_>, segment: u64, version: u32) -> Result<FileEntry, Damage> {
    let kind = fields.u32()?;
    let kind = FileKind::from_code(kind).ok_or_else(|| fields.damage(format!("unknown file kind {kind}")))?;
    let side = fields.u32()?;
    let side = side_from_code(side).ok_or_else(|| fields.damage(format!("unknown side {side}")))?;
    let revision = if version >= 2 { fields.u64()? } else { 0 };
    let len = fields.u64()?;
    if kind.has_side() != side.is_some() || len < HEADER_BYTES as u64 {
        return Err(fields.damage(format!("a {kind:?} file of {len} bytes with side {side:?}")));
    }
    Ok(FileEntry { id: FileId { segment, kind, side, revision }, len, crc: fields.u32()?, header_crc: fields.u32()? })
}

/// Exactly the files that the counts call for, each once.
fn check_files(segment: &SegmentEntry) -> Result<(), String> {
    let count = |kind, side| segment.files.iter().filter(|f| f.id.kind == kind && f.id.side == side).count();
    let mut good = count(FileKind::Pairs, None) == 1 && count(FileKind::Pictures, None) <= 1;
    good &= count(FileKind::Dead, None) == usize::from(segment.dead.rows > 0);
    for side in Side::ALL {
        let wanted = usize::from(segment.side_rows(side) > 0);
        good &= count(FileKind::Vectors, Some(side)) == wanted && count(FileKind::Graph, Some(side)) == wanted;
    }
    if good { Ok(()) } else { Err(format!("segment {} does not name the files its counts call for", segment.id)) }
}
