//! The first 512 bytes of every segment file: what it is, whose it is, and where its sections lie.

use super::bytes::{Damage, FieldReader, PutFields};
use crate::{Side, StoreError};

/// First eight bytes of every segment file.
pub const MAGIC: [u8; 8] = *b"ANCHSEG\n";
/// Version written and read by this code.
pub const VERSION: u32 = 1;
/// Bytes of a header.
pub const HEADER_BYTES: usize = 512;
/// Sections begin at multiples of this: one cache line, and what an aligned 512-bit load needs.
pub const ALIGN: u64 = 64;
/// Most sections in one file.
pub const MAX_SECTIONS: usize = 8;
/// Kind-specific numbers in a header. The twelfth place is the revision, whatever the kind.
pub const NUMBERS: usize = 11;
const CRC_AT: usize = HEADER_BYTES - 4;

/// CRC-32C of any bytes with their own CRC-32C behind them, whatever the bytes: what manifests before version 3 noted of every header, and
/// which so told no header from another.
pub const RESIDUE: u32 = 0x4867_4BC7;

/// The checksum that tells a header from others: over all of it but its own.
#[must_use]
pub fn checksum(header: &[u8]) -> u32 {
    crc32c::crc32c(header.get(..CRC_AT).unwrap_or(header))
}

/// What a segment file holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FileKind {
    /// Keys, sources, captions, fields.
    Pairs,
    /// Encoded pictures.
    Pictures,
    /// Vectors of one side.
    Vectors,
    /// Graph of one side.
    Graph,
    /// Which rows are dead.
    Dead,
}

impl FileKind {
    /// All kinds, in storage order.
    pub const ALL: [Self; 5] = [Self::Pairs, Self::Pictures, Self::Vectors, Self::Graph, Self::Dead];

    /// The number on disk.
    #[must_use]
    pub fn code(self) -> u32 {
        match self {
            Self::Pairs => 1,
            Self::Pictures => 2,
            Self::Vectors => 3,
            Self::Graph => 4,
            Self::Dead => 5,
        }
    }

    /// The kind of a number on disk.
    #[must_use]
    pub fn from_code(code: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.code() == code)
    }

    /// Whether there is one such file for each side.
    #[must_use]
    pub fn has_side(self) -> bool {
        matches!(self, Self::Vectors | Self::Graph)
    }

    fn suffix(self) -> &'static str {
        match self {
            Self::Pairs => "pairs",
            Self::Pictures => "pictures",
            Self::Vectors => "vectors",
            Self::Graph => "graph",
            Self::Dead => "dead",
        }
    }
}

/// The number of a side on disk; 2 stands for "neither".
#[must_use]
pub fn side_code(side: Option<Side>) -> u32 {
    match side {
        Some(Side::Image) => 0,
        Some(Side::Text) => 1,
        None => 2,
    }
}

/// The side of a number on disk.
#[must_use]
pub fn side_from_code(code: u32) -> Option<Option<Side>> {
    match code {
        0 => Some(Some(Side::Image)),
        1 => Some(Some(Side::Text)),
        2 => Some(None),
        _ => None,
    }
}

/// Which file of which segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FileId {
    /// The segment's number.
    pub segment: u64,
    /// What the file holds.
    pub kind: FileKind,
    /// Whose vectors; `None` for files of the whole pair.
    pub side: Option<Side>,
    /// 0 for a file written with its segment; the generation that wrote it for one that came later (dead rows, a graph built
    /// anew), since a published file is never changed.
    pub revision: u64,
}

impl FileId {
    /// A file written with its segment.
    #[must_use]
    pub fn new(segment: u64, kind: FileKind, side: Option<Side>) -> Self {
        Self { segment, kind, side, revision: 0 }
    }

    /// The file's name within the pool.
    #[must_use]
    pub fn name(&self) -> String {
        let side = self.side.map_or_else(String::new, |side| format!("{side}."));
        let revision = if self.revision == 0 { String::new() } else { format!("-{:016x}", self.revision) };
        format!("seg-{:016x}.{side}{}{revision}", self.segment, self.kind.suffix())
    }

    /// Whether a file's name is one that [`FileId::name`] gives.
    #[must_use]
    pub fn is_name(name: &str) -> bool {
        let hex = |digits: &str| digits.len() == 16 && digits.bytes().all(|b| b.is_ascii_hexdigit());
        let Some((segment, rest)) = name.strip_prefix("seg-").and_then(|rest| rest.split_once('.')) else { return false };
        let (kind, revision) = rest.split_once('-').map_or((rest, None), |(kind, revision)| (kind, Some(revision)));
        let sides = [None, Some(Side::Image), Some(Side::Text)];
        let known = |kind: &str| {
            let all = FileKind::ALL.into_iter().flat_map(|k| sides.map(|side| (k, side)));
            all.filter(|(k, side)| k.has_side() == side.is_some()).any(|(k, side)| {
                let side = side.map_or_else(String::new, |side| format!("{side}."));
                format!("{side}{}", k.suffix()) == kind
            })
        };
        hex(segment) && known(kind) && revision.is_none_or(hex)
    }
}

/// One section: a run of bytes with a meaning and a checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Section {
    /// What it is; the tags are those of [`super::vectors`], [`super::graph`], [`super::pairs`] and [`super::dead`].
    pub tag: u32,
    /// CRC-32C over its bytes.
    pub crc: u32,
    /// Where it begins, a multiple of [`ALIGN`].
    pub offset: u64,
    /// Its length.
    pub len: u64,
}

/// A checked header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// Which file this is.
    pub id: FileId,
    /// Kind-specific numbers.
    pub numbers: [u64; NUMBERS],
    /// Sections by offset.
    pub sections: Vec<Section>,
}

impl Header {
    /// The 512 bytes.
    #[must_use]
    pub fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut out = Vec::with_capacity(HEADER_BYTES);
        out.extend_from_slice(&MAGIC);
        out.put_u32(VERSION);
        out.put_u32(self.id.kind.code());
        out.put_u64(self.id.segment);
        out.put_u32(side_code(self.id.side));
        out.put_u32(self.sections.len() as u32);
        for number in self.numbers {
            out.put_u64(number);
        }
        out.put_u64(self.id.revision);
        for section in &self.sections {
            out.put_u32(section.tag);
            out.put_u32(section.crc);
            out.put_u64(section.offset);
            out.put_u64(section.len);
        }
        out.resize(CRC_AT, 0);
        let crc = crc32c::crc32c(&out);
        out.put_u32(crc);
        let mut header = [0; HEADER_BYTES];
        header.copy_from_slice(&out);
        header
    }

    /// Checks a header against the file it should be and the length the file has.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] naming the field, or [`StoreError::Version`] for a file of a newer format.
    pub fn decode(bytes: &[u8], id: FileId, file_len: u64) -> Result<Self, StoreError> {
        let name = id.name();
        let header = Self::parse(bytes, file_len).map_err(|e| e.into_store_error(&name))?;
        if header.id != id {
            return Err(Damage::new(12, format!("the header belongs to {}", header.id.name())).of(&name));
        }
        Ok(header)
    }

    fn parse(bytes: &[u8], file_len: u64) -> Result<Self, HeaderError> {
        let bytes = bytes.get(..HEADER_BYTES).ok_or_else(|| Damage::new(bytes.len() as u64, "the header is cut short"))?;
        let mut fields = FieldReader::new(bytes, 0);
        if fields.take(MAGIC.len())? != MAGIC {
            return Err(Damage::new(0, "no segment file: the magic bytes differ").into());
        }
        let stored = FieldReader::new(&bytes[CRC_AT..], CRC_AT as u64).u32()?;
        if crc32c::crc32c(&bytes[..CRC_AT]) != stored {
            return Err(Damage::new(0, "the header's checksum differs").into());
        }
        let version = fields.u32()?;
        if version != VERSION {
            return Err(HeaderError::Version(version));
        }
        let kind = fields.u32()?;
        let kind = FileKind::from_code(kind).ok_or_else(|| Damage::new(12, format!("unknown file kind {kind}")))?;
        let segment = fields.u64()?;
        let side = fields.u32()?;
        let side = side_from_code(side).ok_or_else(|| Damage::new(24, format!("unknown side {side}")))?;
        let count = fields.u32()? as usize;
        if count > MAX_SECTIONS {
            return Err(Damage::new(28, format!("{count} sections; at most {MAX_SECTIONS} are allowed")).into());
        }
        let mut numbers = [0; NUMBERS];
        for number in &mut numbers {
            *number = fields.u64()?;
        }
        let revision = fields.u64()?;
        let mut sections = Vec::with_capacity(count);
        let mut free_from = HEADER_BYTES as u64;
        for _ in 0..count {
            let at = fields.offset();
            let section = Section { tag: fields.u32()?, crc: fields.u32()?, offset: fields.u64()?, len: fields.u64()? };
            let end = section.offset.checked_add(section.len).filter(|&end| end <= file_len);
            match end {
                Some(end) if section.offset >= free_from && section.offset.is_multiple_of(ALIGN) => free_from = end,
                _ => return Err(Damage::new(at, format!("section {} does not lie in the file", section.tag)).into()),
            }
            sections.push(section);
        }
        Ok(Self { id: FileId { segment, kind, side, revision }, numbers, sections })
    }

    /// The section of a tag, whose length must be `len`.
    ///
    /// # Errors
    /// Missing, or of another length.
    pub fn section(&self, tag: u32, len: Option<u64>) -> Result<Section, Damage> {
        let found = self.sections.iter().find(|s| s.tag == tag);
        let section = *found.ok_or_else(|| Damage::new(128, format!("section {tag} is missing")))?;
        match len {
            Some(len) if len != section.len => {
                Err(Damage::new(section.offset, format!("section {tag} has {} bytes, its counts need {len}", section.len)))
            }
            _ => Ok(section),
        }
    }
}

enum HeaderError {
    Damage(Damage),
    Version(u32),
}

impl HeaderError {
    fn into_store_error(self, name: &str) -> StoreError {
        match self {
            Self::Damage(damage) => damage.of(name),
            Self::Version(found) => StoreError::Version { file: name.to_owned(), found, supported: VERSION },
        }
    }
}

impl From<Damage> for HeaderError {
    fn from(damage: Damage) -> Self {
        Self::Damage(damage)
    }
}
