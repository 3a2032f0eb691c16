//! A pool copied whole: a snapshot taken while others read and write, or a snapshot put back. Every file is compared with its
//! checksum on the way, so that damage is not copied on.
//!
//! ```text
//!   folder ──Opened: one generation, its files held open──┬─► Landing: folder, manifest written last
//!                                                         └─► stream.rs: tar, manifest first ──► Landing
//! ```

use std::{
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    generations::{Generations, names},
    lock::lock,
    reader::{OpenOptions, Pool},
    writer::{publish_manifest, refuse_foreign, remove_leftovers},
};
use crate::{
    Cancel, StoreError,
    disk::{Disk, Medium, OsMedium},
    format::{
        bytes::Damage,
        manifest::{FileEntry, Manifest, generation_of},
    },
    limits::Limits,
};

/// What was copied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Copied {
    /// Generation copied.
    pub generation: u64,
    /// Files, the manifest not counted.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// Where a copy goes: a folder that is missing, empty, or holds no more than what a copy that was cut short left there.
#[derive(Clone)]
pub struct CopyTo {
    /// The folder.
    pub dir: PathBuf,
    /// What changes it. [`OsMedium`]: others are for tests of failed writes.
    pub medium: Arc<dyn Medium>,
}

impl<P: AsRef<Path>> From<P> for CopyTo {
    fn from(dir: P) -> Self {
        Self { dir: dir.as_ref().to_owned(), medium: Arc::new(OsMedium) }
    }
}

/// Copies the newest generation in `from` to a folder. The copy is a pool; its manifest is written last, so that a copy that was cut short
/// is none. A writer may be at work in `from`.
///
/// # Errors
/// No pool in `from`, something in `to`, damage, a failed write, or [`StoreError::Cancelled`]; what was written is removed again then, but for the lock file.
pub fn copy(
    from: impl AsRef<Path>,
    to: impl Into<CopyTo>,
    cancel: &Cancel,
    report: &mut dyn FnMut(Copied),
) -> Result<Copied, StoreError> {
    let Opened { manifest, files } = Opened::newest(from.as_ref())?;
    let mut landing = Landing::prepare(to.into())?;
    landing.take(&manifest, cancel, report, |landing| {
        files.into_iter().try_for_each(|(entry, mut source)| landing.file(&entry, &mut source))
    })
}

/// The newest generation of a folder, its files open: a writer may unlink them from now on.
pub(super) struct Opened {
    pub(super) manifest: Manifest,
    pub(super) files: Vec<(FileEntry, File)>,
}

impl Opened {
    pub(super) fn newest(dir: &Path) -> Result<Self, StoreError> {
        let mut attempts = Limits::STANDARD.reopen_attempts;
        loop {
            let manifest = Pool::open(dir, &OpenOptions::default())?.manifest().clone();
            let open = |entry: &FileEntry| File::open(dir.join(entry.id.name())).map(|file| (*entry, file));
            let opened: Result<Vec<_>, io::Error> = manifest.segments.iter().flat_map(|s| &s.files).map(open).collect();
            match opened {
                Ok(files) => return Ok(Self { manifest, files }),
                Err(error) if error.kind() == io::ErrorKind::NotFound && attempts > 0 && moved_on(dir, manifest.generation)? => {
                    attempts -= 1;
                }
                Err(source) => {
                    return Err(StoreError::Io { action: "open the files of", file: dir.display().to_string(), source });
                }
            }
        }
    }
}

fn moved_on(dir: &Path, generation: u64) -> Result<bool, StoreError> {
    Ok(Generations::read(dir)?.is_some_and(|found| found.highest > generation))
}

/// What a copied file must be, or what is wrong with it.
pub(super) fn compare(entry: &FileEntry, (len, crc): (u64, u32)) -> Result<(), StoreError> {
    if len == entry.len && crc == entry.crc {
        return Ok(());
    }
    let said = format!("{} and {:08x}", entry.len, entry.crc);
    Err(Damage::new(0, format!("{len} bytes with checksum {crc:08x}, the manifest says {said}")).of(&entry.id.name()))
}

/// A folder that becomes a pool when everything has arrived, and when not is left as it was but for its lock file.
pub(super) struct Landing<'a> {
    disk: Disk,
    /// Held for its lock.
    _lock: File,
    written: Vec<String>,
    copied: Copied,
    report: Option<&'a mut dyn FnMut(Copied)>,
    cancel: Cancel,
}

impl<'a> Landing<'a> {
    /// Takes the folder.
    pub(super) fn prepare(to: CopyTo) -> Result<Self, StoreError> {
        let disk = Disk::new(&to.dir, to.medium);
        disk.create_dir()?;
        refuse_foreign(disk.dir())?;
        if let Some(found) = names(disk.dir())?.into_iter().find(|name| generation_of(name).is_some()) {
            return Err(StoreError::NotAPool { folder: disk.dir().display().to_string(), found });
        }
        let lock = lock(disk.dir())?;
        remove_leftovers(&disk, &[])?;
        let (written, copied) = (Vec::new(), Copied::default());
        Ok(Self { disk, _lock: lock, written, copied, report: None, cancel: Cancel::default() })
    }

    /// Has `files` put every file, then publishes the manifest. Removes what was written when anything fails.
    pub(super) fn take(
        &mut self,
        manifest: &Manifest,
        cancel: &Cancel,
        report: &'a mut dyn FnMut(Copied),
        files: impl FnOnce(&mut Self) -> Result<(), StoreError>,
    ) -> Result<Copied, StoreError> {
        self.copied.generation = manifest.generation;
        (self.report, self.cancel) = (Some(report), cancel.clone());
        let done = files(self).and_then(|()| {
            self.disk.sync_dir()?;
            publish_manifest(&self.disk, manifest)
        });
        if let Err(error) = done {
            self.clear(manifest);
            return Err(error);
        }
        Ok(self.copied)
    }

    /// Writes one file and compares it with its checksum.
    pub(super) fn file(&mut self, entry: &FileEntry, from: &mut dyn Read) -> Result<(), StoreError> {
        if self.cancel.is_cancelled() {
            return Err(StoreError::Cancelled);
        }
        let name = entry.id.name();
        self.written.push(name.clone());
        compare(entry, self.disk.copy(&name, from)?)?;
        self.copied.files += 1;
        self.copied.bytes += entry.len;
        let copied = self.copied;
        self.report.iter_mut().for_each(|report| report(copied));
        Ok(())
    }

    /// Best effort: what stays is removed by the next copy into this folder, and is no pool. The lock file stays: unlinking it would let two
    /// processes each hold a file of that name.
    fn clear(&self, manifest: &Manifest) {
        let temporary = format!("{}.tmp", crate::format::manifest::file_name(manifest.generation));
        for name in self.written.iter().map(String::as_str).chain([temporary.as_str()]) {
            if let Err(error) = self.disk.remove(name) {
                tracing::warn!(%error, "a part of a copy that failed stays behind");
            }
        }
    }
}
