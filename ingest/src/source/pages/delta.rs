//! How many values the lengths of a delta-encoded page claim, before the parquet crate allocates them.
//!
//! ```text
//!   page ──past the levels──► stream of lengths ──(a second one for DELTA_BYTE_ARRAY)──► each claims at most the page's values
//! ```
//!
//! Source: parquet's Encodings.md, "Delta Encoding" and the two that are built on it.

use parquet::{basic::Encoding, column::page::Page, schema::types::ColumnDescriptor};

/// Whether the delta streams at the start of `page` claim no more values than it has. `false` also for what is no such stream.
pub(super) fn claims_its_values(page: &Page, column: &ColumnDescriptor) -> bool {
    let streams = match page.encoding() {
        Encoding::DELTA_LENGTH_BYTE_ARRAY => 1,
        Encoding::DELTA_BYTE_ARRAY => 2,
        _ => return true,
    };
    let Some(mut bytes) = values_of(page, column) else { return false };
    for _ in 0..streams {
        match after_stream(bytes, u64::from(page.num_values())) {
            Some(rest) => bytes = rest,
            None => return false,
        }
    }
    true
}

/// A page's bytes after its levels.
fn values_of<'a>(page: &'a Page, column: &ColumnDescriptor) -> Option<&'a [u8]> {
    match page {
        Page::DataPage { buf, def_level_encoding, rep_level_encoding, .. } => {
            let mut bytes: &[u8] = buf;
            for (levels, encoding) in [(column.max_rep_level(), rep_level_encoding), (column.max_def_level(), def_level_encoding)]
            {
                if levels > 0 {
                    let length = bytes.first_chunk::<4>().filter(|_| *encoding == Encoding::RLE)?;
                    bytes = bytes.get(4 + u32::from_le_bytes(*length) as usize..)?;
                }
            }
            Some(bytes)
        }
        Page::DataPageV2 { buf, def_levels_byte_len, rep_levels_byte_len, .. } => {
            buf.get(*def_levels_byte_len as usize + *rep_levels_byte_len as usize..)
        }
        Page::DictionaryPage { .. } => None,
    }
}

/// What follows a stream of at most `most` values.
fn after_stream(bytes: &[u8], most: u64) -> Option<&[u8]> {
    let (block, bytes) = varint(bytes)?;
    let (parts, bytes) = varint(bytes)?;
    let (values, bytes) = varint(bytes)?;
    let (_first, mut bytes) = varint(bytes)?;
    if parts == 0 || block == 0 || values > most {
        return None;
    }
    let in_part = block / parts;
    let mut left = values.saturating_sub(1);
    while left > 0 && in_part > 0 {
        let (_min, rest) = varint(bytes)?;
        let (widths, rest) = rest.split_at_checked(usize::try_from(parts).ok()?)?;
        bytes = rest;
        // A part that holds no value has a width and no bits.
        for width in widths {
            if left == 0 {
                break;
            }
            bytes = bytes.get(usize::try_from(in_part.checked_mul(u64::from(*width))? / 8).ok()?..)?;
            left = left.saturating_sub(in_part);
        }
    }
    (left == 0).then_some(bytes)
}

fn varint(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let length = bytes.iter().take(10).position(|byte| *byte < 0x80)? + 1;
    let (number, rest) = bytes.split_at(length);
    Some((number.iter().rev().fold(0, |sum, byte| sum << 7 | u64::from(byte & 0x7f)), rest))
}
