//! A pool read into memory ahead of its questions, and what of this process's memory is whose.
//!
//! A pool that fits memory is read whole. One that does not is read in the order in which searches need it, up to a bound: links and sketches,
//! 7-bit rows, records, f16 rows. Reading on beyond memory would push out what was read before.

use std::{fs::File, ops::Range, os::unix::fs::FileExt};

use super::reader::Pool;
use crate::{Cancel, StoreError, format::header::FileKind};

/// Bytes read at once. 4 MiB: the disk is kept busy, and a raised cancel flag is seen within milliseconds.
const BLOCK: usize = 4 << 20;

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

/// A run of a file.
struct Run {
    name: String,
    bytes: Range<u64>,
}

impl Pool {
    /// Reads graphs, vectors and records, not pictures, so that the system has them in memory: what searches need most first, and at most
    /// `most` bytes.
    ///
    /// # Errors
    /// A failed read, or [`StoreError::Cancelled`].
    pub fn warm(&self, most: u64, cancel: &Cancel, report: &mut dyn FnMut(Warmed)) -> Result<Warmed, StoreError> {
        let runs = self.runs();
        let all: u64 = runs.iter().map(|run| run.bytes.end - run.bytes.start).sum();
        let mut warmed = Warmed { total: all.min(most), ..Warmed::default() };
        let mut block = vec![0; BLOCK];
        for Run { name, bytes } in runs {
            let failed = |source| StoreError::Io { action: "read", file: name.clone(), source };
            let opened = File::open(self.dir().join(&name)).map_err(failed)?;
            let mut at = bytes.start;
            while at < bytes.end && warmed.bytes < warmed.total {
                if cancel.is_cancelled() {
                    return Err(StoreError::Cancelled);
                }
                let wanted = (bytes.end - at).min(BLOCK as u64).min(warmed.total - warmed.bytes) as usize;
                let read = opened.read_at(&mut block[..wanted], at).map_err(failed)?;
                if read == 0 {
                    break;
                }
                at += read as u64;
                warmed.bytes += read as u64;
                report(warmed);
            }
            // A file counts with the run that begins it.
            warmed.files += u64::from(bytes.start == 0 && at > 0);
        }
        Ok(warmed)
    }

    /// What there is to read, what searches need most first.
    fn runs(&self) -> Vec<Run> {
        let (mut graphs, mut searched, mut records, mut rest) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for (entry, segment) in self.segments() {
            for file in &entry.files {
                let run = |bytes| Run { name: file.id.name(), bytes };
                match (file.id.kind, file.id.side.and_then(|side| segment.searched(side))) {
                    (FileKind::Graph, _) => graphs.push(run(0..file.len)),
                    (FileKind::Vectors, Some(hot)) => {
                        searched.push(run(hot.clone()));
                        rest.push(run(0..hot.start));
                        rest.push(run(hot.end..file.len));
                    }
                    (FileKind::Pairs | FileKind::Dead | FileKind::Vectors, _) => records.push(run(0..file.len)),
                    (FileKind::Pictures, _) => {}
                }
            }
        }
        [graphs, searched, records, rest].into_iter().flatten().collect()
    }
}

/// Memory of this process, as the system counts it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Memory {
    /// Bytes that are this process's alone and can only be swapped.
    pub anonymous: u64,
    /// Resident bytes of mapped files, which the system can drop and read again.
    pub file_backed: u64,
}

impl Memory {
    /// Bytes that this process may still fill: what the system has free or can free, or less where the process's group has a limit; `None` where
    /// the system does not tell.
    #[must_use]
    pub fn available() -> Option<u64> {
        let text = std::fs::read_to_string("/proc/meminfo").ok()?;
        let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
        let free = line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)?;
        Some(group_limits().into_iter().fold(free, u64::min))
    }

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

/// Memory limits of this process's control group, of either version. In a container the group's files lie at the root.
fn group_limits() -> Vec<u64> {
    let own = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let groups = own.lines().filter_map(|line| line.split_once(':')?.1.split_once(':'));
    let files = groups.filter_map(|(kinds, path)| match kinds {
        "" => Some(("/sys/fs/cgroup", path, "memory.max")),
        "memory" => Some(("/sys/fs/cgroup/memory", path, "memory.limit_in_bytes")),
        _ => None,
    });
    let read = |(root, path, file): (&str, &str, &str)| {
        [format!("{root}{path}/{file}"), format!("{root}/{file}")]
            .map(|file| std::fs::read_to_string(file).ok()?.trim().parse().ok())
    };
    files.flat_map(read).flatten().collect()
}
