//! One pair's record in the pairs file, and the layout of that file.
//!
//! A record carries its own checksum, so that a damaged caption is found when it is read and not only by a full check.

use std::collections::BTreeMap;

use super::{
    bytes::{Damage, FieldReader, PutFields},
    header::{Header, NUMBERS, Section},
};
use crate::{
    ContentHash, Key, Pair, SourceRef, Value,
    filter::{ColumnRef, ValueRef},
    limits::Limits,
};

/// Tag: records, one behind the other.
pub const RECORDS: u32 = 32;
/// Tag: `rows + 1` u64, where each record begins within [`RECORDS`], and its length.
pub const OFFSETS: u32 = 33;
/// Tag: `rows` u32, rows in ascending order of their keys' bytes.
pub const KEY_ORDER: u32 = 34;
/// Tag (pictures file): pictures, one behind the other.
pub const PICTURES: u32 = 48;

const NO_CAPTION: u32 = u32::MAX;
const CRC_BYTES: usize = 4;

/// Where everything lies in a pairs file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PairsLayout {
    /// Rows.
    pub rows: usize,
    /// Records.
    pub records: Section,
    /// Record offsets.
    pub offsets: Section,
    /// Rows by key.
    pub key_order: Section,
}

impl PairsLayout {
    /// The numbers of the header.
    #[must_use]
    pub fn numbers(rows: usize) -> [u64; NUMBERS] {
        let mut numbers = [0; NUMBERS];
        numbers[0] = rows as u64;
        numbers
    }

    /// Checks counts against section lengths.
    ///
    /// # Errors
    /// Counts out of bounds or sections of another length.
    pub fn of(header: &Header) -> Result<Self, Damage> {
        let rows = header.numbers[0];
        if rows == 0 || rows > Limits::STANDARD.segment_rows {
            return Err(Damage::new(32, format!("{rows} rows")));
        }
        Ok(Self {
            rows: usize::try_from(rows).map_err(|_| Damage::new(32, format!("{rows} rows")))?,
            records: header.section(RECORDS, None)?,
            offsets: header.section(OFFSETS, Some((rows + 1) * 8))?,
            key_order: header.section(KEY_ORDER, Some(rows * 4))?,
        })
    }
}

/// Where a picture lies in the pictures file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PictureRef {
    /// Offset within the [`PICTURES`] section.
    pub offset: u64,
    /// Bytes.
    pub len: u64,
    /// CRC-32C over them.
    pub crc: u32,
}

/// A record as stored: everything of a pair but its vectors and the picture's bytes.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredPair {
    /// Stable name.
    pub key: Key,
    /// Origin.
    pub source: SourceRef,
    /// Hash of what it was made from.
    pub content: ContentHash,
    /// The caption.
    pub caption: Option<String>,
    /// Metadata.
    pub fields: BTreeMap<String, Value>,
    /// The picture, when one is stored.
    pub picture: Option<PictureRef>,
}

/// Appends the record of `pair` to `out`. The pair's texts are within [`Limits`] (the writer checks).
pub fn encode(pair: &Pair, picture: Option<PictureRef>, out: &mut Vec<u8>) {
    let start = out.len();
    out.put_u32(0);
    out.put_u8(pair.key.as_str().len() as u8);
    out.extend_from_slice(pair.key.as_str().as_bytes());
    out.put_u16(pair.source.file.len() as u16);
    out.extend_from_slice(pair.source.file.as_bytes());
    out.put_u64(pair.source.row);
    out.extend_from_slice(&pair.content.0);
    match &pair.caption {
        Some(caption) => put_text(caption, out),
        None => out.put_u32(NO_CAPTION),
    }
    out.put_u16(pair.fields.len() as u16);
    for (name, value) in &pair.fields {
        out.put_u8(name.len() as u8);
        out.extend_from_slice(name.as_bytes());
        put_value(value, out);
    }
    match picture {
        Some(picture) => {
            out.put_u8(1);
            out.put_u64(picture.offset);
            out.put_u64(picture.len);
            out.put_u32(picture.crc);
        }
        None => out.put_u8(0),
    }
    let crc = crc32c::crc32c(&out[start + CRC_BYTES..]);
    out[start..start + CRC_BYTES].copy_from_slice(&crc.to_le_bytes());
}

fn put_text(text: &str, out: &mut Vec<u8>) {
    out.put_u32(text.len() as u32);
    out.extend_from_slice(text.as_bytes());
}

fn put_value(value: &Value, out: &mut Vec<u8>) {
    match value {
        Value::Bool(v) => {
            out.put_u8(0);
            out.put_u8(u8::from(*v));
        }
        Value::Int(v) => {
            out.put_u8(1);
            out.extend_from_slice(&v.to_le_bytes());
        }
        Value::Float(v) => {
            out.put_u8(2);
            out.extend_from_slice(&v.to_le_bytes());
        }
        Value::Text(v) => {
            out.put_u8(3);
            put_text(v, out);
        }
    }
}

/// Reads one record, which begins at `offset` in its file.
///
/// # Errors
/// A checksum that differs, or a field that does not fit.
pub fn decode(bytes: &[u8], offset: u64) -> Result<StoredPair, Damage> {
    let (mut key, mut file, mut row, mut caption) = ("", "", 0, None);
    let mut fields = BTreeMap::new();
    let rest = walk(bytes, offset, &mut |column, value| match (column, value) {
        (ColumnRef::Key, ValueRef::Text(text)) => key = text,
        (ColumnRef::SourceFile, ValueRef::Text(text)) => file = text,
        (ColumnRef::SourceRow, ValueRef::Count(number)) => row = number,
        (ColumnRef::Caption, ValueRef::Text(text)) => caption = Some(text),
        (ColumnRef::Field(name), value) => drop(value.to_value().map(|value| fields.insert(name.to_owned(), value))),
        _ => {}
    })?;
    Ok(StoredPair {
        key: Key::new(key).map_err(|e| Damage::new(offset, e.to_string()))?,
        source: SourceRef { file: file.to_owned(), row },
        content: rest.content,
        caption: caption.map(str::to_owned),
        fields,
        picture: rest.picture,
    })
}

/// What of a record is no value that a filter can name.
pub(crate) struct Rest {
    content: ContentHash,
    picture: Option<PictureRef>,
}

/// Gives every value of the record that begins at `offset` in its file, without copying any.
///
/// # Errors
/// As [`decode`].
pub(crate) fn walk<'a>(bytes: &'a [u8], offset: u64, take: &mut dyn FnMut(ColumnRef<'a>, ValueRef<'a>)) -> Result<Rest, Damage> {
    let limits = Limits::STANDARD;
    let mut fields = FieldReader::new(bytes, offset);
    let stored = fields.u32()?;
    if crc32c::crc32c(&bytes[CRC_BYTES..]) != stored {
        return Err(Damage::new(offset, "the record's checksum differs"));
    }
    let len = fields.u8()?;
    take(ColumnRef::Key, ValueRef::Text(fields.text(len.into(), Key::MAX_BYTES, "key")?));
    let len = fields.u16()?;
    take(ColumnRef::SourceFile, ValueRef::Text(fields.text(len.into(), limits.source_bytes, "source name")?));
    take(ColumnRef::SourceRow, ValueRef::Count(fields.u64()?));
    let mut content = [0; 32];
    content.copy_from_slice(fields.take(32)?);
    match fields.u32()? {
        NO_CAPTION => {}
        len => take(ColumnRef::Caption, ValueRef::Text(fields.text(len.into(), limits.caption_bytes, "caption")?)),
    }
    for _ in 0..fields.u16()? {
        let len = fields.u8()?;
        let name = fields.text(len.into(), limits.field_name_bytes, "field name")?;
        take(ColumnRef::Field(name), read_value(&mut fields)?);
    }
    let picture = match fields.u8()? {
        0 => None,
        1 => Some(PictureRef { offset: fields.u64()?, len: fields.u64()?, crc: fields.u32()? }),
        other => return Err(fields.damage(format!("unknown picture form {other}"))),
    };
    if fields.left() != 0 {
        return Err(fields.damage(format!("{} bytes too many in the record", fields.left())));
    }
    Ok(Rest { content: ContentHash(content), picture })
}

fn read_value<'a>(fields: &mut FieldReader<'a>) -> Result<ValueRef<'a>, Damage> {
    Ok(match fields.u8()? {
        0 => ValueRef::Bool(fields.u8()? != 0),
        1 => ValueRef::Int(fields.u64()?.cast_signed()),
        2 => ValueRef::Float(f64::from_bits(fields.u64()?)),
        3 => {
            let len = fields.u32()?;
            ValueRef::Text(fields.text(len.into(), Limits::STANDARD.field_text_bytes, "field text")?)
        }
        other => return Err(fields.damage(format!("unknown field type {other}"))),
    })
}

/// The key bytes of a record, without checking the rest of it: what a key lookup compares.
///
/// # Errors
/// The record is too short.
pub fn key_bytes(bytes: &[u8], offset: u64) -> Result<&[u8], Damage> {
    let mut fields = FieldReader::new(bytes, offset);
    fields.take(CRC_BYTES)?;
    let len = fields.u8()?;
    fields.take(len.into())
}
