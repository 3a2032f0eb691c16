//! What earlier runs did, so that the same command goes on where it was: the watermark that is committed with the rows.
//!
//! ```text
//!   pool's progress bytes ──decode──► Watermark ──starts──► from which row each shard is read
//!          ▲                                                              │
//!          └────encode, in the same commit as the rows────── Done ◄── rows written
//! ```
//!
//! A shard is passed over, or read from the middle, when its file is as it was (length and time of last change of each of its
//! files), the settings that decide rows are as they were, its rows depend on no other file (no paths to pictures), and the reject
//! list that has its rejects is at hand. Otherwise it is read again from its start, which is always right: rows that the pool has
//! are known by their content and are not encoded again.
//!
//! Only names' digests are kept: 49 bytes a shard, at most [`MAX_SOURCES`] of them.

use std::collections::BTreeMap;

use sha2::{Digest, Sha256};

/// Sources a watermark holds; 300,000, which is 14 MiB. Of more, those of other runs are forgotten and would be read again.
const MAX_SOURCES: usize = 300_000;
const MAGIC: &[u8; 8] = b"ingest1\n";
const ENTRY_BYTES: usize = 49;

/// The first bytes of a SHA-256.
pub(crate) fn digest<const N: usize>(parts: &[&[u8]]) -> [u8; N] {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    let whole: [u8; 32] = hash.finalize().into();
    std::array::from_fn(|at| whole[at])
}

/// A reject list as of a commit: how many rows, and a digest of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ListMark {
    pub(crate) rows: u64,
    pub(crate) digest: [u8; 16],
}

/// What was done with one source.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Done {
    /// Digest of the path it was read from.
    pub(crate) place: [u8; 8],
    /// Digest of the file's state and the settings.
    pub(crate) stamp: [u8; 8],
    /// Rows decided, from the first on.
    pub(crate) rows: u64,
    /// How many of them were rejected.
    pub(crate) rejected: u32,
    /// How many were filtered out.
    pub(crate) filtered: u32,
    /// Whether these are all.
    pub(crate) finished: bool,
    /// Whether its rows are its own file's alone.
    pub(crate) resumable: bool,
}

/// What was done with every source.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Watermark {
    sources: BTreeMap<[u8; 16], Done>,
    pub(crate) list: ListMark,
}

impl Watermark {
    /// What a pool has; nothing where it has none or another program's, since reading everything again is always right.
    pub(crate) fn decode(bytes: &[u8]) -> Self {
        Self::try_decode(bytes).unwrap_or_default()
    }

    fn try_decode(bytes: &[u8]) -> Option<Self> {
        let mut rest = bytes.strip_prefix(MAGIC)?;
        let list = ListMark { rows: u64::from_le_bytes(take(&mut rest)?), digest: take(&mut rest)? };
        let mut sources = BTreeMap::new();
        while !rest.is_empty() {
            let name = take(&mut rest)?;
            let (place, stamp, rows) = (take(&mut rest)?, take(&mut rest)?, u64::from_le_bytes(take(&mut rest)?));
            let (rejected, filtered) = (u32::from_le_bytes(take(&mut rest)?), u32::from_le_bytes(take(&mut rest)?));
            let [flags] = take::<1>(&mut rest)?;
            let (finished, resumable) = (flags & 1 != 0, flags & 2 != 0);
            sources.insert(name, Done { place, stamp, rows, rejected, filtered, finished, resumable });
        }
        Some(Self { sources, list })
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(MAGIC.len() + 24 + self.sources.len() * ENTRY_BYTES);
        out.extend(MAGIC);
        out.extend(self.list.rows.to_le_bytes());
        out.extend(self.list.digest);
        for (name, done) in &self.sources {
            out.extend(name);
            out.extend(done.place);
            out.extend(done.stamp);
            out.extend(done.rows.to_le_bytes());
            out.extend(done.rejected.to_le_bytes());
            out.extend(done.filtered.to_le_bytes());
            out.push(u8::from(done.finished) | u8::from(done.resumable) << 1);
        }
        out
    }

    pub(crate) fn get(&self, name: &str) -> Option<&Done> {
        self.sources.get(&digest::<16>(&[name.as_bytes()]))
    }

    pub(crate) fn set(&mut self, name: &str, done: Done) {
        self.sources.insert(digest(&[name.as_bytes()]), done);
    }

    /// Forgets sources that are not named, if there are too many.
    pub(crate) fn forget_all_but<'a>(&mut self, names: impl Iterator<Item = &'a str>) {
        if self.sources.len() > MAX_SOURCES {
            let kept: std::collections::HashSet<[u8; 16]> = names.map(|name| digest(&[name.as_bytes()])).collect();
            self.sources.retain(|name, _| kept.contains(name));
        }
    }
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (first, after) = rest.split_first_chunk::<N>()?;
    *rest = after;
    Some(*first)
}

/// Where reading a shard begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Start {
    /// At its first row.
    First,
    /// After as many rows as an earlier run has decided.
    After(u64),
    /// Nowhere: an earlier run has decided them all.
    Finished,
}

/// A shard as it is now.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Now {
    pub(crate) place: [u8; 8],
    /// None where no file says whether it has changed.
    pub(crate) stamp: Option<[u8; 8]>,
}

impl Done {
    /// Where the next run begins. `list` says whether the reject list with this source's rejects is at hand.
    pub(crate) fn start(&self, now: Now, list: bool) -> Start {
        let listed = list || self.rejected + self.filtered == 0;
        if !self.resumable || !listed || now.stamp != Some(self.stamp) {
            return Start::First;
        }
        match (self.finished, self.rows) {
            (true, _) => Start::Finished,
            (false, 0) => Start::First,
            (false, rows) => Start::After(rows),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn marked() -> (Watermark, Done) {
        let done = Done { stamp: [2; 8], rows: 70_000, rejected: 3, finished: true, resumable: true, ..Done::default() };
        let mut watermark = Watermark { list: ListMark { rows: 3, digest: [7; 16] }, ..Watermark::default() };
        watermark.set("cc3m/00000.tar", done);
        watermark.set("cc3m/00001.tar", Done { filtered: 1, ..Done::default() });
        (watermark, done)
    }

    #[test]
    fn a_watermark_comes_back_and_anything_else_is_none() {
        let (watermark, done) = marked();
        let bytes = watermark.encode();
        assert_eq!(Watermark::decode(&bytes), watermark);
        assert_eq!(Watermark::decode(&bytes).get("cc3m/00000.tar"), Some(&done));
        assert_eq!(bytes.len(), MAGIC.len() + 24 + 2 * ENTRY_BYTES);
        for damaged in [&bytes[..bytes.len() - 1], &bytes[1..], b"", b"something else"] {
            assert_eq!(Watermark::decode(damaged), Watermark::default());
        }
    }

    #[test]
    fn only_an_unchanged_source_whose_rejects_are_listed_is_passed_over() {
        let (_, done) = marked();
        let now = Now { place: [0; 8], stamp: Some([2; 8]) };
        assert_eq!(done.start(now, true), Start::Finished);
        assert_eq!(done.start(now, false), Start::First);
        assert_eq!(done.start(Now { stamp: Some([3; 8]), ..now }, true), Start::First);
        assert_eq!(done.start(Now { stamp: None, ..now }, true), Start::First);
        assert_eq!(Done { resumable: false, ..done }.start(now, true), Start::First);
        assert_eq!(Done { finished: false, ..done }.start(now, true), Start::After(70_000));
        assert_eq!(Done { rejected: 0, ..done }.start(now, false), Start::Finished);
    }
}
