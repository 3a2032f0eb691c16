//! The only memory map: read-only, of files that are never modified or truncated after they are published, and, while
//! one is written, of rows behind which its writer goes on. Everything above
//! sees `&[u8]`.

use std::{fs::File, io, ops::Range, path::Path, sync::OnceLock};

use memmap2::Advice;

use crate::{StoreError, format::bytes::Damage};

/// What the system is told of how a pool's files will be read; answers are the same. Measured in `benches -- scale`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Access {
    /// Nothing: it reads ahead of every fault as it sees fit (128 KiB on Linux). The default, best for pools that fit memory: the first
    /// questions bring their surroundings in.
    #[default]
    System,
    /// Rows are asked for at random: a fault reads one page. For pools beyond memory, where what is read ahead pushes out what is in use.
    Random,
    /// As [`Access::Random`], and links, sketches and 7-bit rows are read at once, in the background. For pools of which these fit memory.
    Searched,
    /// Links, sketches and 7-bit rows are copied into memory of the process's own, in huge pages where the system has them: up to 1.2 times the
    /// queries a second (100,000 rows of 512 values, narrow beams), for 0.7 KB a vector beside what the system keeps of the files, and for an opening that
    /// reads all of them. For pools that are asked all day on a machine with memory to spare.
    Resident,
}

/// Bytes of a file in memory of our own.
#[derive(Debug)]
struct Held {
    /// Where they begin in the file.
    start: usize,
    copy: memmap2::Mmap,
    len: usize,
}

/// What the smallest huge page holds; less is not worth a copy of its own.
const HUGE_PAGE: usize = 2 << 20;

impl Held {
    fn new(start: usize, bytes: &[u8]) -> io::Result<Self> {
        let mut copy = memmap2::MmapOptions::new().len(bytes.len().next_multiple_of(HUGE_PAGE)).map_anon()?;
        #[cfg(target_os = "linux")]
        if let Err(error) = copy.advise(Advice::HugePage) {
            tracing::debug!(%error, "the system has no huge pages to give");
        }
        copy[..bytes.len()].copy_from_slice(bytes);
        Ok(Self { start, copy: copy.make_read_only()?, len: bytes.len() })
    }

    fn slice(&self, range: &Range<usize>) -> Option<&[u8]> {
        let first = range.start.checked_sub(self.start)?;
        self.copy[..self.len].get(first..first + range.len())
    }
}

impl Access {
    /// What suits pools of `bytes` where `available` bytes of memory are left; `None`: the system does not tell. Reading ahead helps as
    /// long as all fits, and beyond that pushes out what is in use (ARCHITECTURE.md, "Large pools").
    #[must_use]
    pub fn fitting(bytes: u64, available: Option<u64>) -> Self {
        match available {
            Some(available) if bytes > available => Self::Random,
            _ => Self::System,
        }
    }

    /// What it is called on the command line and in metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::Random => "random",
            Self::Searched => "searched",
            Self::Resident => "resident",
        }
    }
}

/// A mapped file.
#[derive(Debug)]
pub(crate) struct Map {
    name: String,
    map: memmap2::Mmap,
    /// What searches read, where that is asked for.
    held: OnceLock<Held>,
}

impl Map {
    /// Maps `name` in `dir`, whose length must be `len`.
    pub(crate) fn open(dir: &Path, name: &str, len: u64) -> Result<Self, StoreError> {
        let failed = |action: &'static str| move |source: io::Error| StoreError::Io { action, file: name.to_owned(), source };
        let file = File::open(dir.join(name)).map_err(failed("open"))?;
        let found = file.metadata().map_err(failed("read the length of"))?.len();
        if found != len {
            return Err(Damage::new(found.min(len), format!("{found} bytes long, the manifest says {len}")).of(name));
        }
        let map = map_file(&file).map_err(failed("map"))?;
        if map.len() as u64 != len {
            return Err(Damage::new(0, "its length changed while it was opened").of(name));
        }
        Ok(Self { name: name.to_owned(), map, held: OnceLock::new() })
    }

    /// Tells the system how a run of bytes will be read; `searched` is what every search reads. It is a wish: a system that refuses it
    /// serves the same bytes.
    pub(crate) fn advise(&self, range: &Range<usize>, access: Access, searched: bool) {
        let advice: &[Advice] = match access {
            Access::Resident if searched => return self.hold(range),
            Access::System | Access::Resident => &[],
            Access::Searched if searched => &[Advice::WillNeed, Advice::Random],
            Access::Random | Access::Searched => &[Advice::Random],
        };
        for &advice in advice {
            if let Err(error) = self.map.advise_range(advice, range.start, range.len()) {
                tracing::debug!(file = self.name, %error, ?advice, "the system takes no advice");
            }
        }
    }

    /// Copies a run of bytes; where there is no memory for it the file serves them.
    fn hold(&self, range: &Range<usize>) {
        match Held::new(range.start, &self.map[range.clone()]) {
            // Only the first copy is kept: a file has one run that searches read.
            Ok(held) => drop(self.held.set(held)),
            Err(error) => tracing::warn!(file = self.name, %error, "not copied into memory"),
        }
    }

    /// All bytes.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.map
    }

    /// A run of bytes that was checked against the file's length when the file was opened.
    pub(crate) fn slice(&self, range: &Range<usize>) -> &[u8] {
        let held = self.held.get().and_then(|held| held.slice(range));
        held.unwrap_or_else(|| &self.map[range.clone()])
    }

    /// Damage in this file.
    pub(crate) fn corrupt(&self, damage: Damage) -> StoreError {
        damage.of(&self.name)
    }
}

#[expect(unsafe_code, clippy::disallowed_methods, reason = "the one memory map of the crate")]
fn map_file(file: &File) -> io::Result<memmap2::Mmap> {
    // SAFETY: the bytes must not change while the map lives. A writer that maps what it has written appends behind that and
    // drops the map before it fills in the header (`seal_vectors`). Published files are written once, made read-only, never
    // truncated and never reopened for writing by this crate (`disk.rs`, FORMAT.md "Assumptions"); deletion only unlinks.
    // Another process that truncates one all the same kills this one by SIGBUS, as FORMAT.md says; no memory is corrupted.
    unsafe { memmap2::Mmap::map(file) }
}
