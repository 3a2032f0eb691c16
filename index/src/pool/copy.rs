//! A pool copied whole: a snapshot taken while others read and write, or a snapshot put back. Every file is compared with its
//! checksum on the way, so that damage is not copied on.

use std::{fs::File, io, path::Path, sync::Arc};

use super::{
    generations::{Generations, names},
    lock::lock,
    reader::{OpenOptions, Pool},
    writer::publish_manifest,
};
use crate::{
    Cancel, StoreError,
    disk::{Disk, OsMedium},
    format::{
        bytes::Damage,
        manifest::{FileEntry, Manifest},
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

/// Copies the newest generation in `from` to the folder `to`, which must be missing or empty. The copy is a pool; its manifest is
/// written last, so that a copy that was cut short is none. A writer may be at work in `from`.
///
/// # Errors
/// No pool in `from`, something in `to`, damage (nothing usable is left in `to` then), a failed write, or [`StoreError::Cancelled`].
pub fn copy(
    from: impl AsRef<Path>,
    to: impl AsRef<Path>,
    cancel: &Cancel,
    report: &mut dyn FnMut(Copied),
) -> Result<Copied, StoreError> {
    let (from, to) = (from.as_ref(), to.as_ref());
    let (manifest, sources) = open_all(from)?;
    let disk = Disk::new(to, Arc::new(OsMedium));
    disk.create_dir()?;
    if let Some(found) = names(to)?.into_iter().next() {
        return Err(StoreError::NotAPool { folder: to.display().to_string(), found });
    }
    let _lock = lock(to)?;
    let mut copied = Copied { generation: manifest.generation, ..Copied::default() };
    for (entry, mut source) in sources {
        if cancel.is_cancelled() {
            return Err(StoreError::Cancelled);
        }
        let name = entry.id.name();
        let (len, crc) = disk.copy(&name, &mut source)?;
        if len != entry.len || crc != entry.crc {
            return Err(Damage::new(0, format!("{len} bytes with checksum {crc:08x}, the manifest says otherwise")).of(&name));
        }
        copied.files += 1;
        copied.bytes += len;
        report(copied);
    }
    disk.sync_dir()?;
    publish_manifest(&disk, &manifest)?;
    Ok(copied)
}

/// The newest manifest and its files, open: a writer may unlink them from now on.
fn open_all(dir: &Path) -> Result<(Manifest, Vec<(FileEntry, File)>), StoreError> {
    let mut attempts = Limits::STANDARD.reopen_attempts;
    loop {
        let manifest = Pool::open(dir, &OpenOptions::default())?.manifest().clone();
        let open = |entry: &FileEntry| File::open(dir.join(entry.id.name())).map(|file| (*entry, file));
        let opened: Result<Vec<_>, io::Error> = manifest.segments.iter().flat_map(|s| &s.files).map(open).collect();
        match opened {
            Ok(files) => return Ok((manifest, files)),
            Err(error) if error.kind() == io::ErrorKind::NotFound && attempts > 0 && moved_on(dir, manifest.generation)? => {
                attempts -= 1;
            }
            Err(source) => return Err(StoreError::Io { action: "open the files of", file: dir.display().to_string(), source }),
        }
    }
}

fn moved_on(dir: &Path, generation: u64) -> Result<bool, StoreError> {
    Ok(Generations::read(dir)?.is_some_and(|found| found.highest > generation))
}
