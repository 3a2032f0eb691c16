//! A pool read into memory ahead of its questions, and what of this process's memory is whose.
//!
//! Maps are made without advice: the system reads ahead of a scan and keeps what is asked for often. A graph search touches rows
//! at random; a pool that fits memory is best read once, front to back, which is what [`Pool::warm`] does.

use std::{fs::File, io::Read};

use super::reader::Pool;
use crate::{Cancel, StoreError, format::header::FileKind};

/// Bytes read at once. 4 MiB: the disk is kept busy, and a raised cancel flag is seen within milliseconds.
const BLOCK: usize = 4 << 20;

/// Files in the order in which searches need them.
const ORDER: [FileKind; 4] = [FileKind::Graph, FileKind::Vectors, FileKind::Dead, FileKind::Pairs];

/// What was read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Warmed {
    /// Files read.
    pub files: u64,
    /// Bytes read.
    pub bytes: u64,
    /// Bytes to read.
    pub total: u64,
}

impl Pool {
    /// Reads graphs, vectors and records, not pictures, front to back, so that the system has them in memory.
    ///
    /// # Errors
    /// A failed read, or [`StoreError::Cancelled`].
    pub fn warm(&self, cancel: &Cancel, report: &mut dyn FnMut(Warmed)) -> Result<Warmed, StoreError> {
        let files = || self.manifest().segments.iter().flat_map(|segment| &segment.files);
        let total = files().filter(|file| ORDER.contains(&file.id.kind)).map(|file| file.len).sum();
        let mut warmed = Warmed { total, ..Warmed::default() };
        let mut block = vec![0; BLOCK];
        for file in ORDER.into_iter().flat_map(|kind| files().filter(move |file| file.id.kind == kind)) {
            let name = file.id.name();
            let failed = |source| StoreError::Io { action: "read", file: name.clone(), source };
            let mut opened = File::open(self.dir().join(&name)).map_err(failed)?;
            loop {
                if cancel.is_cancelled() {
                    return Err(StoreError::Cancelled);
                }
                let read = opened.read(&mut block).map_err(failed)?;
                if read == 0 {
                    break;
                }
                warmed.bytes += read as u64;
                report(warmed);
            }
            warmed.files += 1;
        }
        Ok(warmed)
    }
}

/// Memory of this process, as the system counts it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Memory {
    /// Bytes that are this process's alone and can only be swapped.
    pub anonymous: u64,
    /// Resident bytes of mapped files, which the system can drop and read again.
    pub file_backed: u64,
}

impl Memory {
    /// As of now; `None` where the system does not tell.
    #[must_use]
    pub fn now() -> Option<Self> {
        let status = std::fs::read_to_string("/proc/self/status").ok()?;
        let bytes = |name: &str| -> Option<u64> {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            line.trim_start_matches(':').trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
        };
        Some(Self { anonymous: bytes("RssAnon")?, file_backed: bytes("RssFile")? })
    }
}
