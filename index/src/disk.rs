//! The write edge: every change to a pool's folder goes through here and from here through a [`Medium`], so that a test can fail
//! any single one of them, or lose what was not synced.
//!
//! Not here: reading (`map.rs`, `pool`), and what the bytes mean (`format`).

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use crate::{
    StoreError,
    format::{
        header::{ALIGN, FileId, HEADER_BYTES, Header, NUMBERS, Section, checksum},
        manifest::FileEntry,
    },
};

/// What a pool asks of the system to change its folder. [`OsMedium`] is the operating system; tests put others in its place that
/// fail calls or forget what was not synced. Reading goes past it, so every change must be made on the real folder too.
pub trait Medium: Send + Sync {
    /// Creates a folder and those above it, durably.
    ///
    /// # Errors
    /// The system's.
    fn create_dir(&self, dir: &Path) -> io::Result<()>;

    /// Creates a file for writing. One that is there already is emptied when `replace` says so, and an error otherwise.
    ///
    /// # Errors
    /// The system's.
    fn create(&self, path: &Path, replace: bool) -> io::Result<Box<dyn MediumFile>>;

    /// Gives a file another name in the same folder, replacing what had it.
    ///
    /// # Errors
    /// The system's.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Unlinks a file.
    ///
    /// # Errors
    /// The system's.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Makes the names in a folder durable.
    ///
    /// # Errors
    /// The system's.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
}

/// A file that is being written.
pub trait MediumFile: Send {
    /// Writes all of `bytes` from `at` on.
    ///
    /// # Errors
    /// The system's.
    fn write(&mut self, at: u64, bytes: &[u8]) -> io::Result<()>;

    /// Makes what was written durable.
    ///
    /// # Errors
    /// The system's.
    fn sync(&mut self) -> io::Result<()>;

    /// Takes everybody's right to write it.
    ///
    /// # Errors
    /// The system's.
    fn protect(&mut self) -> io::Result<()>;
}

/// The operating system.
#[derive(Clone, Copy, Debug, Default)]
pub struct OsMedium;

impl Medium for OsMedium {
    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        let missing: Vec<&Path> = dir.ancestors().take_while(|above| !above.as_os_str().is_empty() && !above.exists()).collect();
        fs::create_dir_all(dir)?;
        // A folder is durable when its name in the one above is.
        missing
            .iter()
            .try_for_each(|made| self.sync_dir(made.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."))))
    }

    fn create(&self, path: &Path, replace: bool) -> io::Result<Box<dyn MediumFile>> {
        let mut options = OpenOptions::new();
        options.write(true);
        let options = if replace { options.create(true).truncate(true) } else { options.create_new(true) };
        Ok(Box::new(options.open(path)?))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        File::open(dir)?.sync_all()
    }
}

impl MediumFile for File {
    fn write(&mut self, at: u64, bytes: &[u8]) -> io::Result<()> {
        self.write_all_at(bytes, at)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.sync_all()
    }

    fn protect(&mut self) -> io::Result<()> {
        let mut permissions = self.metadata()?.permissions();
        permissions.set_readonly(true);
        self.set_permissions(permissions)
    }
}

/// Bytes gathered before a write.
const BUFFER_BYTES: usize = 1 << 20;

/// A pool's folder, for writing.
#[derive(Clone)]
pub(crate) struct Disk {
    dir: PathBuf,
    medium: Arc<dyn Medium>,
}

/// The system's error with what was tried on which file.
fn failed(action: &'static str, file: &str) -> impl FnOnce(io::Error) -> StoreError {
    move |source| StoreError::Io { action, file: file.to_owned(), source }
}

impl Disk {
    pub(crate) fn new(dir: &Path, medium: Arc<dyn Medium>) -> Self {
        Self { dir: dir.to_owned(), medium }
    }

    /// Creates the folder where there is none.
    pub(crate) fn create_dir(&self) -> Result<(), StoreError> {
        self.medium.create_dir(&self.dir).map_err(failed("create", &self.dir.display().to_string()))
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Makes entries of the folder durable.
    pub(crate) fn sync_dir(&self) -> Result<(), StoreError> {
        self.medium.sync_dir(&self.dir).map_err(failed("sync", "."))
    }

    /// Replaces `name` as a whole: temporary file, sync, rename, sync of the folder.
    pub(crate) fn publish(&self, name: &str, bytes: &[u8]) -> Result<(), StoreError> {
        let temporary = format!("{name}.tmp");
        let (from, to) = (self.dir.join(&temporary), self.dir.join(name));
        let mut file = self.medium.create(&from, true).map_err(failed("create", &temporary))?;
        file.write(0, bytes).map_err(failed("write", &temporary))?;
        file.sync().map_err(failed("sync", &temporary))?;
        self.medium.rename(&from, &to).map_err(failed("rename", &temporary))?;
        // The name is new (generations are never reused), so taking it back leaves what was there before. Best effort: if the
        // name stays, it names a complete generation, whose files were all synced before.
        self.sync_dir().inspect_err(|_| drop(self.medium.remove(&to)))
    }

    /// Unlinks a file; one that is gone already is fine.
    pub(crate) fn remove(&self, name: &str) -> Result<(), StoreError> {
        match self.medium.remove(&self.dir.join(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed("remove", name)(error)),
            _ => Ok(()),
        }
    }

    /// Writes a file as it is elsewhere; returns its length and checksum.
    pub(crate) fn copy(&self, name: &str, from: &mut dyn io::Read) -> Result<(u64, u32), StoreError> {
        let mut file = self.medium.create(&self.dir.join(name), false).map_err(failed("create", name))?;
        let mut block = vec![0; BUFFER_BYTES];
        let (mut at, mut crc) = (0, 0);
        loop {
            let read = match from.read(&mut block) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                read => read.map_err(failed("read", name))?,
            };
            if read == 0 {
                break;
            }
            file.write(at, &block[..read]).map_err(failed("write", name))?;
            crc = crc32c::crc32c_append(crc, &block[..read]);
            at += read as u64;
        }
        file.sync().map_err(failed("sync", name))?;
        file.protect().map_err(failed("protect", name))?;
        Ok((at, crc))
    }

    /// Begins a segment file.
    pub(crate) fn create(&self, id: FileId) -> Result<SectionWriter, StoreError> {
        self.create_as(id, id.name())
    }

    /// Begins a file that its writer removes again, beside the segment file that is made of it; the next writer removes it if this
    /// one dies.
    pub(crate) fn create_passing(&self, id: FileId) -> Result<SectionWriter, StoreError> {
        self.create_as(id, format!("{}.tmp", id.name()))
    }

    fn create_as(&self, id: FileId, name: String) -> Result<SectionWriter, StoreError> {
        let file = self.medium.create(&self.dir.join(&name), false).map_err(failed("create", &name))?;
        let mut writer = SectionWriter {
            id,
            name,
            file,
            buffer: Vec::with_capacity(BUFFER_BYTES),
            at: 0,
            body_crc: 0,
            section_crc: 0,
            sections: Vec::new(),
        };
        writer.put_raw(&[0; HEADER_BYTES])?;
        writer.body_crc = 0;
        Ok(writer)
    }
}

/// Writes a segment file front to back; the header's place is kept free and filled at the end.
pub(crate) struct SectionWriter {
    id: FileId,
    name: String,
    file: Box<dyn MediumFile>,
    buffer: Vec<u8>,
    at: u64,
    body_crc: u32,
    section_crc: u32,
    sections: Vec<Section>,
}

impl SectionWriter {
    /// Begins the next section.
    pub(crate) fn begin(&mut self, tag: u32) -> Result<(), StoreError> {
        let offset = self.at.next_multiple_of(ALIGN);
        let padding = (offset - self.at) as usize;
        self.put_raw(&[0; ALIGN as usize][..padding])?;
        self.section_crc = 0;
        self.sections.push(Section { tag, crc: 0, offset, len: 0 });
        Ok(())
    }

    /// Bytes of the present section.
    pub(crate) fn put(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        self.section_crc = crc32c::crc32c_append(self.section_crc, bytes);
        if let Some(section) = self.sections.last_mut() {
            section.len += bytes.len() as u64;
            section.crc = self.section_crc;
        }
        self.put_raw(bytes)
    }

    fn put_raw(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        self.body_crc = crc32c::crc32c_append(self.body_crc, bytes);
        self.at += bytes.len() as u64;
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= BUFFER_BYTES { self.flush() } else { Ok(()) }
    }

    /// Hands everything put so far to the operating system, so that the file can be read back.
    pub(crate) fn flush(&mut self) -> Result<(), StoreError> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let at = self.at - self.buffer.len() as u64;
        self.file.write(at, &self.buffer).map_err(failed("write", &self.name))?;
        self.buffer.clear();
        Ok(())
    }

    /// Bytes in the present section.
    pub(crate) fn section_len(&self) -> u64 {
        self.sections.last().map_or(0, |s| s.len)
    }

    /// Which file it is, or will be made of it.
    pub(crate) fn id(&self) -> FileId {
        self.id
    }

    /// Name of the file.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Writes the header, makes the file durable and read-only, and describes it for the manifest.
    pub(crate) fn finish(mut self, numbers: [u64; NUMBERS]) -> Result<FileEntry, StoreError> {
        self.flush()?;
        let header = Header { id: self.id, numbers, sections: std::mem::take(&mut self.sections) }.encode();
        self.file.write(0, &header).map_err(failed("write", &self.name))?;
        self.file.sync().map_err(failed("sync", &self.name))?;
        self.file.protect().map_err(failed("protect", &self.name))?;
        let body_len = (self.at - HEADER_BYTES as u64) as usize;
        let crc = crc32c::crc32c_combine(crc32c::crc32c(&header), self.body_crc, body_len);
        Ok(FileEntry { id: self.id, len: self.at, crc, header_crc: checksum(&header) })
    }
}
