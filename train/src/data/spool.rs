//! Pairs of a run at hand by number: one file in the run's folder that has no name any more, so that nothing is left behind.
//!
//! Sources are read once, front to back, whatever they are (parquet, tars, tables); training reads in random order. Memory is 24 bytes a
//! row; pictures and texts are read from the file, which the system caches.

use std::{
    fs::{File, OpenOptions},
    io::{self, BufWriter, Write},
    os::unix::fs::FileExt,
    path::Path,
};

use sha2::{Digest, Sha256};

use super::DataError;

/// A row with its picture and its texts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PairData {
    /// Encoded picture.
    pub picture: Vec<u8>,
    /// Its class name or its own captions; never none.
    pub texts: Vec<String>,
    /// Captions made for it beside its class; none where the run has no such stream.
    pub captions: Vec<String>,
    /// Its class, or what its pair is grouped by.
    pub group: u32,
}

/// Where a row's bytes lie.
#[derive(Clone, Copy, Debug)]
struct Entry {
    at: u64,
    picture: u32,
    texts: u32,
    captions: u32,
    group: u32,
}

/// Rows on their way into the file.
#[derive(Debug)]
pub struct SpoolWriter {
    file: BufWriter<File>,
    entries: Vec<Entry>,
    at: u64,
    hash: Sha256,
}

/// Rows by number. Shared among threads.
#[derive(Debug)]
pub struct Spool {
    file: File,
    entries: Vec<Entry>,
    fingerprint: String,
}

impl Entry {
    fn bytes(&self) -> u64 {
        u64::from(self.picture) + u64::from(self.texts) + u64::from(self.captions)
    }
}

fn failed(action: &'static str) -> impl FnOnce(io::Error) -> DataError {
    move |source| DataError::Spool { action, source }
}

impl SpoolWriter {
    /// A file in `folder`, without a name.
    ///
    /// # Errors
    /// [`DataError::Spool`].
    pub fn create(folder: &Path, name: &str) -> Result<Self, DataError> {
        let path = folder.join(format!(".{name}.{}.rows", std::process::id()));
        let open = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(&path);
        let file = open.map_err(failed("create"))?;
        std::fs::remove_file(&path).map_err(failed("unlink"))?;
        Ok(Self { file: BufWriter::with_capacity(1 << 20, file), entries: Vec::new(), at: 0, hash: Sha256::new() })
    }

    /// Adds a row; texts hold no NUL.
    ///
    /// # Errors
    /// [`DataError::Spool`], [`DataError::TooMany`].
    pub fn push(&mut self, row: &PairData) -> Result<(), DataError> {
        let (texts, captions) = (row.texts.join("\0"), row.captions.join("\0"));
        let length = |bytes: usize| u32::try_from(bytes).map_err(|_| DataError::TooMany { what: "bytes of one row" });
        let (picture, text) = (length(row.picture.len())?, length(texts.len())?);
        let entry = Entry { at: self.at, picture, texts: text, captions: length(captions.len())?, group: row.group };
        u32::try_from(self.entries.len() + 1).map_err(|_| DataError::TooMany { what: "rows" })?;
        for part in [entry.picture, entry.texts, entry.captions, entry.group] {
            self.hash.update(part.to_le_bytes());
        }
        for bytes in [&row.picture[..], texts.as_bytes(), captions.as_bytes()] {
            self.hash.update(bytes);
            self.file.write_all(bytes).map_err(failed("write"))?;
        }
        self.at += entry.bytes();
        self.entries.push(entry);
        Ok(())
    }

    /// Rows so far.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is none yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// All rows are in.
    ///
    /// # Errors
    /// [`DataError::Spool`].
    pub fn finish(self) -> Result<Spool, DataError> {
        let file = self.file.into_inner().map_err(|e| failed("write")(e.into_error()))?;
        Ok(Spool { file, entries: self.entries, fingerprint: super::hex(&self.hash.finalize()) })
    }
}

impl Spool {
    /// Rows.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// SHA-256 over all rows: equal sets in equal order agree in it.
    #[must_use]
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// The row's class or group.
    #[must_use]
    pub fn group(&self, row: usize) -> u32 {
        self.entries[row].group
    }

    /// Different groups.
    #[must_use]
    pub fn groups(&self) -> usize {
        self.entries.iter().map(|e| e.group).collect::<std::collections::BTreeSet<u32>>().len()
    }

    /// A row, which is below [`Spool::len`].
    ///
    /// # Errors
    /// [`DataError::Spool`].
    pub fn get(&self, row: usize) -> Result<PairData, DataError> {
        let entry = self.entries[row];
        let mut bytes = vec![0; entry.bytes() as usize];
        self.file.read_exact_at(&mut bytes, entry.at).map_err(failed("read"))?;
        let captions = bytes.split_off(bytes.len() - entry.captions as usize);
        let texts = bytes.split_off(entry.picture as usize);
        let parts = |bytes: &[u8]| String::from_utf8_lossy(bytes).split('\0').map(str::to_owned).collect();
        let captions = if captions.is_empty() { Vec::new() } else { parts(&captions) };
        Ok(PairData { picture: bytes, texts: parts(&texts), captions, group: entry.group })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_come_back_in_any_order_and_nothing_is_left_in_the_folder() {
        let folder = tempfile::tempdir().unwrap();
        let mut writer = SpoolWriter::create(folder.path(), "task").unwrap();
        let row = |i: u32| PairData {
            picture: vec![i as u8; i as usize],
            texts: vec![format!("a {i}"), String::new()],
            captions: vec!["c".to_owned(); (i % 2) as usize],
            group: i % 3,
        };
        (0..50).for_each(|i| writer.push(&row(i)).unwrap());
        let spool = writer.finish().unwrap();
        assert_eq!((spool.len(), spool.groups()), (50, 3));
        (0..50).rev().for_each(|i| assert_eq!(spool.get(i as usize).unwrap(), row(i)));
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
