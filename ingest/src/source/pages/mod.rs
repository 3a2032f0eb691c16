//! What the pages of a column chunk would take in memory, found from their headers before any is allocated or unpacked.
//!
//! ```text
//!   column chunk ──headers, one by one──► sizes checked ──► ChunkPages: bytes by rows, longest value ──► rows read at once
//!                       │ codecs without a bound: unpacked once into nothing
//!                       └ dictionary, delta lengths: read once, counts checked
//! ```
//!
//! | file | |
//! | --- | --- |
//! | `header.rs` | a page's header, thrift's compact protocol |
//! | `delta.rs` | counts in pages of delta-encoded texts |
//!
//! The parquet crate allocates a page as its header declares it (at most 2 GiB), unpacks gzip, brotli and LZ4 frames to their end
//! whatever was declared, and allocates dictionaries and lists of lengths by their counts. So each is checked here first.

mod delta;
mod header;

use std::{fs::File, io, os::unix::fs::FileExt, sync::Arc};

use parquet::{
    basic::{Compression, Type},
    column::page::{Page, PageReader},
    file::{metadata::ColumnChunkMetaData, serialized_reader::SerializedPageReader},
};

use super::parquet::{corrupt, limit};
use crate::{Limits, SourceError};
use header::{DELTA_BYTE_ARRAY, DICTIONARY, HeaderError, PageHeader};

/// Bytes read of a file at once for headers; most have under 100, and small pages follow each other in one window.
const WINDOW: usize = 4 << 10;
/// A page above [`Limits::free_page_bytes`] may have so many times its bytes in the file: pictures and vectors do not pack.
const LARGE_PAGE_RATIO: u64 = 2;
/// Values that the lists of a chunk may have whatever their bytes (16 Mi: 128 MiB of levels and numbers), and beyond that a byte of the
/// file: runs of nulls and of one value cost nothing in the file.
const FREE_LIST_VALUES: u64 = 16 << 20;
const LIST_VALUES_A_BYTE: u64 = 4;

/// The pages of one column chunk, checked.
pub(crate) struct ChunkPages {
    /// Values and unpacked bytes, page by page; of a column without lists its rows.
    pages: Vec<(u64, u64)>,
    rows: u64,
    values: u64,
    bytes: u64,
    /// The most that one value can have beyond its share of the page, where pages hold references.
    longest: u64,
    lists: bool,
}

impl ChunkPages {
    /// Reads every page header of `chunk`.
    ///
    /// # Errors
    /// [`SourceError::Limit`] and [`SourceError::Corrupt`]: what a page declares, and what it may.
    pub(crate) fn check(place: &Place<'_>, chunk: &ColumnChunkMetaData, rows: u64) -> Result<Self, SourceError> {
        let mut walk = Walk::new(place, chunk);
        let mut found =
            Self { pages: Vec::new(), rows, values: 0, bytes: 0, longest: 0, lists: chunk.column_descr().max_rep_level() > 0 };
        let (mut dictionary, mut delta) = (None, false);
        while let Some((header, at)) = walk.next()? {
            place.check_page(chunk, &header, at)?;
            let bytes = if is_packed(chunk) { header.unpacked as u64 } else { header.packed as u64 };
            found.bytes += bytes;
            if header.kind == DICTIONARY {
                place.check_dictionary(chunk, &header, bytes)?;
                dictionary = Some(());
                continue;
            }
            delta |= [DELTA_BYTE_ARRAY - 1, DELTA_BYTE_ARRAY].contains(&header.encoding);
            if header.encoding == DELTA_BYTE_ARRAY {
                found.longest = found.longest.max(bytes);
            }
            found.add(header.values.max(0) as u64, bytes);
        }
        found.check_lists(place, chunk)?;
        if chunk.column_type() == Type::BYTE_ARRAY && (dictionary.is_some() || delta) {
            found.longest = found.longest.max(place.contents(chunk, rows, delta)?);
        }
        Ok(found)
    }

    fn add(&mut self, values: u64, bytes: u64) {
        self.values += values;
        match self.pages.last_mut() {
            // Pages without values, however many, are one.
            Some(last) if values == 0 => last.1 += bytes,
            _ => self.pages.push((values, bytes)),
        }
    }

    fn check_lists(&self, place: &Place<'_>, chunk: &ColumnChunkMetaData) -> Result<(), SourceError> {
        let most = FREE_LIST_VALUES.max(chunk.byte_range().1.saturating_mul(LIST_VALUES_A_BYTE));
        if self.lists { limit(place.name, "the number of values in the lists of a row group", self.values, most) } else { Ok(()) }
    }

    /// The most bytes of any `count` rows that are read together, counted evenly within a page.
    fn most_bytes(&self, count: u64) -> u64 {
        let references = self.longest.saturating_mul(count);
        if self.lists {
            let a_row = self.bytes.max(self.values.saturating_mul(8)) / self.rows.max(1);
            let values = self.values / self.rows.max(1);
            return a_row.max(1).saturating_mul(count).saturating_add(references.saturating_mul(values.max(1)));
        }
        let (mut most, mut batch, mut left) = (0, 0, count);
        for &(mut rows, mut bytes) in &self.pages {
            while rows >= left {
                let part = u64::try_from(u128::from(bytes) * u128::from(left) / u128::from(rows.max(1))).unwrap_or(bytes);
                most = most.max(batch + part);
                (rows, bytes, batch) = (rows - left, bytes - part, 0);
                left = count;
                if rows > 2 * count {
                    // The rest of the page is alike.
                    let whole = (rows / count - 1) * count;
                    bytes -= u64::try_from(u128::from(bytes) * u128::from(whole) / u128::from(rows)).unwrap_or(bytes);
                    rows -= whole;
                }
            }
            batch += bytes;
            left -= rows;
        }
        most.max(batch).saturating_add(references)
    }
}

/// How many rows of these chunks to read at once: as many as `most`, and as fit [`Limits::record_batch_bytes`].
pub(crate) fn batch_rows(chunks: &[ChunkPages], limits: &Limits, most: usize) -> usize {
    let fits =
        |rows: usize| chunks.iter().map(|chunk| chunk.most_bytes(rows as u64)).sum::<u64>() <= limits.record_batch_bytes as u64;
    let mut rows = most.max(1);
    while rows > 1 && !fits(rows) {
        rows = rows.div_ceil(2);
    }
    rows
}

fn is_packed(chunk: &ColumnChunkMetaData) -> bool {
    chunk.compression() != Compression::UNCOMPRESSED
}

/// A file that is looked through.
pub(crate) struct Place<'a> {
    pub(crate) file: &'a File,
    pub(crate) name: &'a str,
    pub(crate) limits: &'a Limits,
}

impl Place<'_> {
    fn read(&self, at: u64, bytes: usize) -> Result<Vec<u8>, SourceError> {
        let mut buffer = vec![0; bytes];
        self.file.read_exact_at(&mut buffer, at).map_err(|source| match source.kind() {
            io::ErrorKind::UnexpectedEof => corrupt(self.name, "it ends before its footer says; it was cut short"),
            _ => SourceError::Read { file: self.name.to_owned(), source },
        })?;
        Ok(buffer)
    }

    fn refuse<T>(&self, chunk: &ColumnChunkMetaData, reason: impl std::fmt::Display) -> Result<T, SourceError> {
        Err(corrupt(self.name, format!("column {}: {reason}", chunk.column_path())))
    }

    /// A page's sizes, and with a codec that knows no bound what it really unpacks to.
    fn check_page(&self, chunk: &ColumnChunkMetaData, header: &PageHeader, at: u64) -> Result<(), SourceError> {
        let (packed, unpacked) = (header.packed as u64, header.unpacked as u64);
        limit(self.name, "the size of a page in bytes", packed.max(unpacked), self.limits.max_page_bytes)?;
        if unpacked > self.limits.free_page_bytes && unpacked > packed.saturating_mul(LARGE_PAGE_RATIO) {
            let reason = format!(
                "a page of {packed} bytes declares {unpacked} unpacked; above {} it may have {LARGE_PAGE_RATIO} times its bytes in the file",
                self.limits.free_page_bytes
            );
            return self.refuse(chunk, reason);
        }
        if header.levels > header.unpacked || header.levels > header.packed {
            return self.refuse(chunk, format!("{} bytes of levels in a page of {packed}", header.levels));
        }
        let may_be_endless = matches!(chunk.compression(), Compression::GZIP(_) | Compression::BROTLI(_) | Compression::LZ4);
        if may_be_endless && header.is_packed && packed > 0 {
            self.check_unpacked(chunk, header, at)?;
        }
        Ok(())
    }

    fn check_unpacked(&self, chunk: &ColumnChunkMetaData, header: &PageHeader, at: u64) -> Result<(), SourceError> {
        let (levels, declared) = (header.levels as usize, (header.unpacked - header.levels) as u64);
        let bytes = self.read(at + levels as u64, header.packed as usize - levels)?;
        let mut nothing = io::sink();
        let most = declared + 1;
        // What is no such stream is the parquet crate's to refuse; it allocates only what comes out.
        let found = match chunk.compression() {
            Compression::GZIP(_) => {
                io::copy(&mut io::Read::take(flate2::read::MultiGzDecoder::new(&bytes[..]), most), &mut nothing)
            }
            Compression::BROTLI(_) => {
                io::copy(&mut io::Read::take(brotli::Decompressor::new(&bytes[..], WINDOW), most), &mut nothing)
            }
            _ => io::copy(&mut io::Read::take(lz4_flex::frame::FrameDecoder::new(&bytes[..]), most), &mut nothing),
        };
        match found {
            Ok(found) if found > declared => {
                self.refuse(chunk, format!("a page unpacks to more than the {declared} bytes it declares"))
            }
            _ => Ok(()),
        }
    }

    /// A dictionary's entries, which are allocated by their count, against its bytes.
    fn check_dictionary(&self, chunk: &ColumnChunkMetaData, header: &PageHeader, bytes: u64) -> Result<(), SourceError> {
        let width = match chunk.column_type() {
            Type::INT64 | Type::DOUBLE => 8,
            Type::INT96 => 12,
            Type::FIXED_LEN_BYTE_ARRAY => chunk.column_descr().type_length().max(1) as u64,
            Type::BOOLEAN => 1,
            Type::INT32 | Type::FLOAT | Type::BYTE_ARRAY => 4,
        };
        match u64::try_from(header.values) {
            Ok(values) if values.saturating_mul(width) <= bytes => Ok(()),
            _ => self.refuse(chunk, format!("a dictionary of {bytes} bytes claims {} entries", header.values)),
        }
    }

    /// The longest entry of the chunk's dictionary. With `delta`, the counts of delta-encoded pages are checked as well.
    fn contents(&self, chunk: &ColumnChunkMetaData, rows: u64, delta: bool) -> Result<u64, SourceError> {
        let failed = |e: parquet::errors::ParquetError| corrupt(self.name, e);
        let file = self.file.try_clone().map_err(|source| SourceError::Read { file: self.name.to_owned(), source })?;
        let mut reader = SerializedPageReader::new(Arc::new(file), chunk, rows as usize, None).map_err(failed)?;
        let mut longest = 0;
        while let Some(page) = reader.get_next_page().map_err(failed)? {
            match &page {
                Page::DictionaryPage { buf, .. } => longest = longest.max(longest_entry(buf)),
                page if delta => {
                    if !delta::claims_its_values(page, chunk.column_descr()) {
                        return self.refuse(chunk, "the lengths of a delta-encoded page do not fit its values");
                    }
                }
                _ => break,
            }
        }
        Ok(longest)
    }
}

/// The longest of a dictionary's texts, each behind its length.
fn longest_entry(mut bytes: &[u8]) -> u64 {
    let mut longest = 0;
    while let Some((length, rest)) = bytes.split_first_chunk::<4>() {
        let length = u32::from_le_bytes(*length) as usize;
        let Some(after) = rest.get(length..) else { break };
        longest = longest.max(length as u64);
        bytes = after;
    }
    longest
}

/// Page headers from a chunk's start to its end.
struct Walk<'a> {
    place: &'a Place<'a>,
    chunk: &'a ColumnChunkMetaData,
    at: u64,
    end: u64,
    window: Vec<u8>,
    window_at: u64,
}

impl<'a> Walk<'a> {
    fn new(place: &'a Place<'a>, chunk: &'a ColumnChunkMetaData) -> Self {
        let (start, length) = chunk.byte_range();
        Self { place, chunk, at: start, end: start + length, window: Vec::new(), window_at: start }
    }

    /// The next header and where its page begins.
    fn next(&mut self) -> Result<Option<(PageHeader, u64)>, SourceError> {
        if self.at >= self.end {
            return Ok(None);
        }
        let header = self.header()?;
        let begins = self.at + header.length as u64;
        let ends = u64::try_from(header.packed).ok().and_then(|packed| begins.checked_add(packed));
        match ends.filter(|ends| *ends <= self.end && header.unpacked >= 0) {
            Some(ends) => self.at = ends,
            None => {
                let sizes = format!("a page declares {} bytes in the file and {} unpacked", header.packed, header.unpacked);
                return self.place.refuse(self.chunk, format!("{sizes}, {} are left", self.end - begins.min(self.end)));
            }
        }
        Ok(Some((header, begins)))
    }

    fn header(&mut self) -> Result<PageHeader, SourceError> {
        let mut bytes = WINDOW;
        loop {
            let from = usize::try_from(self.at - self.window_at).unwrap_or(usize::MAX);
            match PageHeader::read(self.window.get(from..).unwrap_or_default()) {
                Ok(header) => return Ok(header),
                Err(HeaderError::Broken(reason)) => return self.place.refuse(self.chunk, reason),
                Err(HeaderError::Short) => {}
            }
            let left = self.end - self.at;
            if from == 0 && (self.window.len() as u64 == left || self.window.len() >= self.place.limits.max_page_header_bytes) {
                return self.place.refuse(self.chunk, format!("a page header does not end within {} bytes", self.window.len()));
            }
            let length = u64::min(left, bytes as u64) as usize;
            (self.window, self.window_at) = (self.place.read(self.at, length)?, self.at);
            bytes = (bytes * 8).min(self.place.limits.max_page_header_bytes);
        }
    }
}
