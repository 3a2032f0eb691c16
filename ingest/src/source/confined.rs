//! Paths that come as data: checked as text, then opened beneath one folder, without following any link.
//!
//! A path column says where a picture lies beside its parquet file. Its text is whoever wrote the dataset, so it gets no
//! chance to name anything outside: [`RelPath`] refuses the forms that could, and the kernel (`openat2` with
//! `RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS`) refuses them again while it resolves. Where `openat2` is missing, each component is
//! opened with `O_NOFOLLOW` in turn, which holds the same. Anything unexpected is a refusal.

use std::{fs::File, io::Read, os::fd::OwnedFd, path::Path};

use rustix::{
    fs::{FileType, Mode, OFlags},
    io::Errno,
};

use crate::reject::{RowProblem, code};

/// Longest path, as the kernel has it.
const MAX_PATH_BYTES: usize = 4_096;

/// A relative path of plain names: no `..`, `.`, empty name, NUL, control character, backslash, absolute or drive form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RelPath<'a>(&'a str);

impl<'a> RelPath<'a> {
    pub(crate) fn parse(text: &'a str) -> Result<Self, RowProblem> {
        let shown = || text.chars().take(120).collect::<String>();
        if text.contains("://") || text.starts_with("data:") {
            return Err(RowProblem::new(
                code::PATH_IS_URL,
                format!("{:?} is a URL; nothing is downloaded (img2dataset fetches pictures into parquet)", shown()),
            ));
        }
        let plain = |name: &str| !matches!(name, "" | "." | "..") && !name.chars().any(|c| c.is_control() || c == '\\');
        let drive = text.as_bytes().get(1) == Some(&b':');
        if text.len() > MAX_PATH_BYTES || drive || !text.split('/').all(plain) {
            return Err(RowProblem::new(
                code::PATH_INVALID,
                format!("{:?} is no relative path beneath the parquet file's folder", shown()),
            ));
        }
        Ok(Self(text))
    }
}

/// The folder of a parquet file, held open from before its first row is read.
#[derive(Debug)]
pub(crate) struct Folder(OwnedFd);

impl Folder {
    pub(crate) fn open(path: &Path) -> Result<Self, Errno> {
        rustix::fs::open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).map(Self)
    }

    /// The bytes of a plain file beneath the folder, at most `max`.
    pub(crate) fn read(&self, path: &RelPath<'_>, max: usize) -> Result<Vec<u8>, RowProblem> {
        let fd = self.open_beneath(path).map_err(|errno| refused(path, errno))?;
        let stat = rustix::fs::fstat(&fd).map_err(|errno| refused(path, errno))?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(RowProblem::new(code::PATH_REFUSED, format!("{:?} is no plain file", path.0)));
        }
        // The limit holds for what is read, whatever the size says: the file may grow.
        let mut bytes = Vec::new();
        let read = File::from(fd).take(max as u64 + 1).read_to_end(&mut bytes);
        read.map_err(|e| RowProblem::new(code::PATH_UNREADABLE, format!("{:?}: {e}", path.0)))?;
        if bytes.len() > max {
            return Err(RowProblem::new(
                code::IMAGE_TOO_MANY_BYTES,
                format!("{:?} has more than the {max} bytes that a picture may have", path.0),
            ));
        }
        Ok(bytes)
    }

    /// Opens a plain file or folder beneath the folder; `path` is a [`RelPath`]'s text.
    pub(super) fn open_path(&self, path: &str) -> Result<OwnedFd, Errno> {
        self.open_beneath(&RelPath(path))
    }

    /// What lies there.
    pub(super) fn kind(&self, path: &str) -> Result<FileType, Errno> {
        Ok(FileType::from_raw_mode(rustix::fs::fstat(self.open_path(path)?)?.st_mode))
    }

    /// A folder beneath the folder.
    pub(super) fn folder(&self, path: &str) -> Result<Self, Errno> {
        let opened = self.open_path(path)?;
        let kind = FileType::from_raw_mode(rustix::fs::fstat(&opened)?.st_mode);
        if kind == FileType::Directory { Ok(Self(opened)) } else { Err(Errno::NOTDIR) }
    }

    /// The names in it, `.` and `..` among them.
    pub(super) fn names(&self) -> Result<rustix::fs::Dir, Errno> {
        rustix::fs::Dir::read_from(&self.0)
    }

    #[cfg(target_os = "linux")]
    fn open_beneath(&self, path: &RelPath<'_>) -> Result<OwnedFd, Errno> {
        use rustix::fs::ResolveFlags;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        match rustix::fs::openat2(&self.0, path.0, FILE, Mode::empty(), resolve) {
            Err(Errno::NOSYS) => self.open_by_steps(path),
            other => other,
        }
    }

    #[cfg(not(target_os = "linux"))]
    fn open_beneath(&self, path: &RelPath<'_>) -> Result<OwnedFd, Errno> {
        self.open_by_steps(path)
    }

    fn open_by_steps(&self, path: &RelPath<'_>) -> Result<OwnedFd, Errno> {
        let (folders, name) = path.0.rsplit_once('/').unwrap_or(("", path.0));
        let mut at: Option<OwnedFd> = None;
        for folder in folders.split('/').filter(|f| !f.is_empty()) {
            let next = rustix::fs::openat(at.as_ref().unwrap_or(&self.0), folder, FILE | OFlags::DIRECTORY, Mode::empty())?;
            at = Some(next);
        }
        rustix::fs::openat(at.as_ref().unwrap_or(&self.0), name, FILE, Mode::empty())
    }
}

/// `NONBLOCK`, so that a FIFO or device in the way cannot hold the reader up before it is recognised.
const FILE: OFlags = OFlags::RDONLY.union(OFlags::CLOEXEC).union(OFlags::NOFOLLOW).union(OFlags::NONBLOCK);

fn refused(path: &RelPath<'_>, errno: Errno) -> RowProblem {
    let code = match errno {
        Errno::NOENT => code::PATH_MISSING,
        Errno::LOOP | Errno::XDEV | Errno::NOTDIR | Errno::ISDIR | Errno::NXIO | Errno::MLINK => code::PATH_REFUSED,
        _ => code::PATH_UNREADABLE,
    };
    let word = match errno {
        Errno::LOOP | Errno::MLINK => "a symbolic link is in the way; links are not followed".to_owned(),
        other => std::io::Error::from(other).to_string(),
    };
    RowProblem::new(code, format!("{:?}: {word}", path.0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn texts_that_could_leave_the_folder_are_refused() {
        let bad = [
            "",
            "/",
            "/etc/passwd",
            "..",
            "../x",
            "a/../b",
            "a/..",
            "./a",
            "a/.",
            ".",
            "a//b",
            "a/",
            "//a",
            "\\a",
            "a\\b",
            "..\\x",
            "C:",
            "C:/x",
            "c:\\x",
            "a\0b",
            "a\nb",
            "\u{7f}",
            "a/\u{1}",
            "\u{85}",
        ];
        for text in bad {
            assert_eq!(RelPath::parse(text).unwrap_err().code, code::PATH_INVALID, "{text:?}");
        }
        assert_eq!(RelPath::parse(&"a/".repeat(2_048)).unwrap_err().code, code::PATH_INVALID);
        for text in ["http://x/y.jpg", "https://x", "file:///etc/passwd", "s3://b/k", "data:image/png;base64,AA"] {
            assert_eq!(RelPath::parse(text).unwrap_err().code, code::PATH_IS_URL, "{text:?}");
        }
        for text in ["a", "a/b.jpg", "...", "..a", "a..", "%2e%2e/x", "ü/日本.png", " a", "~"] {
            assert!(RelPath::parse(text).is_ok(), "{text:?}");
        }
    }

    #[test]
    fn links_devices_and_folders_are_refused_by_both_ways_of_opening() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        std::fs::create_dir_all(root.join("in/ner")).unwrap();
        std::fs::write(dir.path().join("secret"), b"secret").unwrap();
        std::fs::write(root.join("in/ner/ok"), b"fine").unwrap();
        symlink(dir.path().join("secret"), root.join("absolute")).unwrap();
        symlink("../secret", root.join("up")).unwrap();
        symlink("in/ner/ok", root.join("harmless")).unwrap();
        symlink("in", root.join("linked")).unwrap();
        symlink("/", root.join("slash")).unwrap();
        let fifo = rustix::fs::mknodat(
            rustix::fs::open(&root, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap(),
            "fifo",
            FileType::Fifo,
            Mode::RUSR,
            0,
        );
        fifo.unwrap();

        let folder = Folder::open(&root).unwrap();
        let by = |text: &str| folder.read(&RelPath::parse(text).unwrap(), 100).map_err(|p| p.code);
        assert_eq!(by("in/ner/ok"), Ok(b"fine".to_vec()));
        for text in ["absolute", "up", "harmless", "linked/ner/ok", "slash/etc/passwd", "fifo", "in", "in/ner/ok/x"] {
            assert_eq!(by(text), Err(code::PATH_REFUSED), "{text}");
            let stepped = folder.open_by_steps(&RelPath(text));
            let plain =
                stepped.is_ok_and(|fd| FileType::from_raw_mode(rustix::fs::fstat(fd).unwrap().st_mode) == FileType::RegularFile);
            assert!(!plain, "{text}");
        }
        assert!(folder.open_by_steps(&RelPath("in/ner/ok")).is_ok());
        assert_eq!(by("missing"), Err(code::PATH_MISSING));
        std::fs::write(root.join("long"), vec![0; 101]).unwrap();
        assert_eq!(by("long"), Err(code::IMAGE_TOO_MANY_BYTES));
    }
}
