//! Opening and reading the files of a model folder, and nothing outside it.
//!
//! Every file is opened component by component relative to a directory handle, never following a symbolic link, and must be a
//! regular file. That is what `openat2` with `BENEATH | NO_SYMLINKS` promises, without needing a kernel that has it; an error
//! on the way is an error, never a weaker check.
//!
//! One exception: the cache of the Hugging Face hub is made of symbolic links, `<repo>/snapshots/<revision>/.../file ->
//! .../<repo>/blobs/<name>`. When the folder lies in such a cache, a link whose last two components are `blobs/<plain name>` is
//! read as "the file of that name in this repository's own `blobs`", which is then opened by the strict rule. The rest of the
//! link's text is not followed.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;
use sha2::{Digest, Sha256};

use super::scan::is_plain_name;
use super::{FileError, FileProblem};

/// SHA-256 of a file's contents.
pub(crate) type FileDigest = [u8; 32];

/// A model folder, held open: later changes of its path do not change what is read.
#[derive(Debug)]
pub(crate) struct Root {
    path: PathBuf,
    dir: File,
    blobs: Option<File>,
}

/// Whether a file's other names matter. A hard link needs no permission to read its target, so in a folder that others can
/// write to, one may be a way to have a foreign file read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Links {
    OnlyName,
    Any,
}

impl Root {
    pub(crate) fn open(path: &Path) -> Result<Self, FileError> {
        let fail = |source| FileError { path: path.to_owned(), problem: FileProblem::Io(source) };
        // The folder itself is the user's word, links in its path included.
        let real = path.canonicalize().map_err(fail)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let open = |path: &Path, flags| rustix::fs::open(path, flags, Mode::empty()).map(File::from);
        let dir = open(&real, flags).map_err(|e| fail(e.into()))?;
        let blobs = hub_blobs(&real).and_then(|path| open(&path, flags | OFlags::NOFOLLOW).ok());
        Ok(Self { path: path.to_owned(), dir, blobs })
    }

    /// The folder as it was named.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    fn fail(&self, name: &str, problem: impl Into<FileProblem>) -> FileError {
        FileError { path: self.path.join(name), problem: problem.into() }
    }

    /// Whether something of that name is there, whatever it is: a link that will be refused should be refused by name, not
    /// taken for a missing file.
    pub(crate) fn has(&self, name: &str) -> bool {
        let Some((folder, last)) = self.parent(name).ok() else { return false };
        rustix::fs::statat(&folder, last, AtFlags::SYMLINK_NOFOLLOW).is_ok()
    }

    /// Names of the files in `folder` (one level; "" for the root) that end in `ending`.
    pub(crate) fn list(&self, folder: &str, ending: &str) -> Vec<String> {
        let path = if folder.is_empty() { self.path.clone() } else { self.path.join(folder) };
        let Ok(entries) = std::fs::read_dir(path) else { return Vec::new() };
        let name = |entry: std::fs::DirEntry| entry.file_name().into_string().ok();
        let mut names: Vec<String> = entries.flatten().filter_map(name).filter(|n| n.ends_with(ending)).collect();
        names.sort();
        names
    }

    /// The directory handle of all but the last component, and the last component.
    fn parent<'n>(&self, name: &'n str) -> Result<(File, &'n str), FileError> {
        let mut folder = self.dir.try_clone().map_err(|e| self.fail(name, FileProblem::Io(e)))?;
        let mut components = name.split('/').peekable();
        loop {
            let component = components.next().filter(|c| is_plain_name(c)).ok_or_else(|| self.fail(name, FileProblem::Name))?;
            if components.peek().is_none() {
                return Ok((folder, component));
            }
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let next = rustix::fs::openat(&folder, component, flags, Mode::empty());
            folder = next.map(File::from).map_err(|e| self.fail(name, e))?;
        }
    }

    /// Opens the regular file `name` (components separated by `/`) and gives it with its length.
    pub(crate) fn open_file(&self, name: &str, links: Links) -> Result<(File, u64), FileError> {
        let (folder, last) = self.parent(name)?;
        let file = match open_plain(&folder, last) {
            Err(Errno::LOOP) => self.open_blob(&folder, last).map_err(|problem| self.fail(name, problem))?,
            opened => opened.map_err(|e| self.fail(name, e))?,
        };
        let stat = file.metadata().map_err(|e| self.fail(name, FileProblem::Io(e)))?;
        if !stat.is_file() {
            return Err(self.fail(name, FileProblem::NotRegular));
        }
        if links == Links::OnlyName && stat.nlink() != 1 {
            return Err(self.fail(name, FileProblem::HardLink { links: stat.nlink() }));
        }
        Ok((file, stat.len()))
    }

    fn open_blob(&self, folder: &File, name: &str) -> Result<File, FileProblem> {
        let blobs = self.blobs.as_ref().ok_or(FileProblem::Symlink)?;
        let target = rustix::fs::readlinkat(folder, name, Vec::new())?;
        let target = target.to_str().map_err(|_| FileProblem::Symlink)?;
        let mut backwards = target.rsplit('/');
        let blob = backwards.next().filter(|b| is_plain_name(b)).ok_or(FileProblem::Symlink)?;
        if backwards.next() != Some("blobs") {
            return Err(FileProblem::Symlink);
        }
        Ok(open_plain(blobs, blob)?)
    }

    /// Reads a whole file of at most `max` bytes, hashing as it goes.
    pub(crate) fn read(&self, name: &str, max: u64, links: Links) -> Result<(Vec<u8>, FileDigest), FileError> {
        let (file, len) = self.open_file(name, links)?;
        self.within(name, len, max)?;
        let room = usize::try_from(len).map_err(|_| self.fail(name, FileProblem::TooLarge { bytes: len, max }))?;
        let mut bytes = Vec::new();
        bytes.try_reserve_exact(room).map_err(|_| self.fail(name, FileProblem::NoMemory { bytes: len }))?;
        let digest = self.stream(name, file, max, |chunk| bytes.extend_from_slice(chunk))?;
        Ok((bytes, digest))
    }

    /// Hashes a file without holding it. Gives its length and digest.
    pub(crate) fn hash(&self, name: &str, max: u64, links: Links) -> Result<(u64, FileDigest), FileError> {
        let (file, len) = self.open_file(name, links)?;
        self.within(name, len, max)?;
        let mut read = 0_u64;
        let digest = self.stream(name, file, max, |chunk| read += chunk.len() as u64)?;
        Ok((read, digest))
    }

    /// Reads byte ranges (offset, length) of a file in one pass, hashing the whole of it as it goes.
    pub(crate) fn read_ranges(
        &self,
        name: &str,
        max: u64,
        ranges: &[(u64, u64)],
    ) -> Result<(Vec<Vec<u8>>, FileDigest), FileError> {
        let (file, len) = self.open_file(name, Links::OnlyName)?;
        self.within(name, len, max)?;
        let mut parts = Vec::new();
        for &(offset, bytes) in ranges {
            if offset.checked_add(bytes).is_none_or(|end| end > len) {
                return Err(self.fail(name, FileProblem::Short { offset, bytes, len }));
            }
            let room = usize::try_from(bytes).map_err(|_| self.fail(name, FileProblem::NoMemory { bytes }))?;
            let mut part: Vec<u8> = Vec::new();
            part.try_reserve_exact(room).map_err(|_| self.fail(name, FileProblem::NoMemory { bytes }))?;
            parts.push(part);
        }
        let mut at = 0_u64;
        let digest = self.stream(name, file, max, |chunk| {
            for (part, &(offset, bytes)) in parts.iter_mut().zip(ranges) {
                part.extend_from_slice(overlap(chunk, at, offset, bytes));
            }
            at += chunk.len() as u64;
        })?;
        Ok((parts, digest))
    }

    fn within(&self, name: &str, bytes: u64, max: u64) -> Result<(), FileError> {
        if bytes > max { Err(self.fail(name, FileProblem::TooLarge { bytes, max })) } else { Ok(()) }
    }

    /// The limit holds for what is read, not only for the length the file had when it was opened.
    fn stream(&self, name: &str, file: File, max: u64, mut take: impl FnMut(&[u8])) -> Result<FileDigest, FileError> {
        let (mut hash, mut chunk, mut total) = (Sha256::new(), vec![0_u8; 1 << 18], 0_u64);
        let mut file = file.take(max.saturating_add(1));
        loop {
            let read = file.read(&mut chunk).map_err(|e| self.fail(name, FileProblem::Io(e)))?;
            let Some(bytes) = chunk.get(..read).filter(|b| !b.is_empty()) else {
                return Ok(hash.finalize().into());
            };
            total += bytes.len() as u64;
            self.within(name, total, max)?;
            hash.update(bytes);
            take(bytes);
        }
    }
}

/// The part of `chunk`, which begins at `at` in its file, that lies in the range.
fn overlap(chunk: &[u8], at: u64, offset: u64, bytes: u64) -> &[u8] {
    let inside = |position: u64| position.saturating_sub(at).min(chunk.len() as u64) as usize;
    chunk.get(inside(offset)..inside(offset.saturating_add(bytes))).unwrap_or_default()
}

/// `O_NONBLOCK` so that a named pipe put in a file's place cannot hang us.
fn open_plain(folder: &File, name: &str) -> Result<File, Errno> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    rustix::fs::openat(folder, name, flags, Mode::empty()).map(File::from)
}

/// The `blobs` folder beside `snapshots`, when `folder` is a revision in a hub cache.
fn hub_blobs(folder: &Path) -> Option<PathBuf> {
    let snapshots = folder.parent()?;
    let repo = snapshots.parent()?;
    let is_hub = snapshots.file_name()? == "snapshots" && repo.file_name()?.to_str()?.starts_with("models--");
    let blobs = repo.join("blobs");
    let stat = rustix::fs::lstat(&blobs).ok()?;
    (is_hub && FileType::from_raw_mode(stat.st_mode) == FileType::Directory).then_some(blobs)
}
