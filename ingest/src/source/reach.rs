//! Which files sources may be: any that the process can read, or only those beneath one folder.
//!
//! ```text
//!   argument (a request's text) ──RelPath──► path beneath the root ──openat2, no links──► file, names of a folder
//! ```
//!
//! Every look at a source goes through [`Reach`]. Beneath a root the kernel resolves each path anew from a handle on the root and
//! refuses links and `..`, so that a file that is swapped for a link between finding and opening is refused too.

use std::{
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
    sync::Arc,
};

use rustix::fs::FileType;

use super::confined::{Folder, RelPath};
use crate::SourceError;

/// The folder beneath which sources must lie; by default they may lie anywhere.
#[derive(Clone, Debug, Default)]
pub struct Reach(Option<Arc<Root>>);

#[derive(Debug)]
struct Root {
    path: PathBuf,
    folder: Folder,
}

impl Reach {
    /// Only what lies beneath `root`, which itself may be a link. Arguments are then relative to it; links, `..`, absolute paths,
    /// devices and pipes are refused.
    ///
    /// # Errors
    /// The folder cannot be opened.
    pub fn beneath(root: &Path) -> io::Result<Self> {
        let path = root.canonicalize()?;
        let folder = Folder::open(&path)?;
        Ok(Self(Some(Arc::new(Root { path, folder }))))
    }

    /// The root; none where sources may lie anywhere.
    #[must_use]
    pub fn root(&self) -> Option<&Path> {
        self.0.as_ref().map(|root| root.path.as_path())
    }

    /// The argument as a path; of a root, one beneath it. Patterns are still in it.
    pub(crate) fn place(&self, argument: &Path) -> Result<PathBuf, SourceError> {
        let Some(root) = &self.0 else { return Ok(argument.to_owned()) };
        let refuse = |reason: String| SourceError::Refused { argument: argument.to_owned(), reason };
        let text = argument.to_str().ok_or_else(|| refuse("it is no UTF-8".to_owned()))?;
        let trimmed = text.strip_suffix('/').unwrap_or(text);
        RelPath::parse(trimmed).map_err(|problem| refuse(problem.message))?;
        Ok(root.path.join(trimmed))
    }

    /// Whether it is a folder. A link or a thing that is neither folder nor plain file is an error beneath a root.
    pub(crate) fn is_folder(&self, path: &Path) -> io::Result<bool> {
        let Some(_) = &self.0 else { return Ok(std::fs::metadata(path)?.is_dir()) };
        match self.kind(path)? {
            FileType::Directory => Ok(true),
            FileType::RegularFile => Ok(false),
            _ => Err(io::Error::other("it is neither a plain file nor a folder")),
        }
    }

    /// Whether there is something of this name.
    pub(crate) fn exists(&self, path: &Path) -> bool {
        self.0.as_ref().map_or_else(|| path.exists(), |_| self.kind(path).is_ok())
    }

    /// The path without links in it: resolved where they are allowed, known to have none where they are not.
    pub(crate) fn canonical(&self, path: &Path) -> io::Result<PathBuf> {
        if self.0.is_none() {
            return path.canonicalize();
        }
        self.kind(path)?;
        Ok(path.to_owned())
    }

    /// Opens a file for reading.
    pub(crate) fn open(&self, path: &Path) -> io::Result<File> {
        let Some(root) = &self.0 else { return File::open(path) };
        let file = File::from(root.folder.open_path(&root.below(path)?)?);
        match file.metadata()?.is_file() {
            true => Ok(file),
            false => Err(io::Error::other("it is no plain file")),
        }
    }

    /// Opens a folder, to read files beneath it.
    pub(crate) fn folder(&self, path: &Path) -> io::Result<Folder> {
        let Some(root) = &self.0 else { return Ok(Folder::open(path)?) };
        if path == root.path {
            return Ok(Folder::open(path)?);
        }
        Ok(root.folder.folder(&root.below(path)?)?)
    }

    /// The names in a folder, in no order.
    pub(crate) fn names(&self, path: &Path) -> io::Result<Names> {
        match &self.0 {
            None => Ok(Names::Anywhere(std::fs::read_dir(path)?)),
            Some(_) => Ok(Names::Beneath(self.folder(path)?.names()?)),
        }
    }

    /// The first bytes of a file; none where it cannot be read.
    pub(crate) fn head(&self, path: &Path, bytes: u64) -> Vec<u8> {
        let mut head = Vec::new();
        // What cannot be read here cannot be read by who opens it, who says so.
        let _ = self.open(path).and_then(|file| file.take(bytes).read_to_end(&mut head));
        head
    }

    fn kind(&self, path: &Path) -> io::Result<FileType> {
        let Some(root) = &self.0 else { return Err(io::ErrorKind::Unsupported.into()) };
        if path == root.path {
            return Ok(FileType::Directory);
        }
        Ok(root.folder.kind(&root.below(path)?)?)
    }
}

impl Root {
    fn below(&self, path: &Path) -> io::Result<String> {
        let outside = || io::Error::new(io::ErrorKind::PermissionDenied, "it lies outside the folder of sources");
        let below = path.strip_prefix(&self.path).ok().and_then(Path::to_str).ok_or_else(outside)?;
        RelPath::parse(below).map_err(|_| outside())?;
        Ok(below.to_owned())
    }
}

/// Names as they are read from a folder. What is no UTF-8 has its bad bytes replaced.
pub(crate) enum Names {
    Anywhere(std::fs::ReadDir),
    Beneath(rustix::fs::Dir),
}

impl Iterator for Names {
    type Item = io::Result<String>;

    fn next(&mut self) -> Option<Self::Item> {
        match self {
            Self::Anywhere(entries) => entries.next().map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())),
            Self::Beneath(entries) => loop {
                match entries.next()? {
                    Err(error) => return Some(Err(error.into())),
                    Ok(entry) if matches!(entry.file_name().to_bytes(), b"." | b"..") => {}
                    Ok(entry) => return Some(Ok(entry.file_name().to_string_lossy().into_owned())),
                }
            },
        }
    }
}
