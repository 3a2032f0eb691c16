//! The write edge: every change to a pool's folder goes through here, so that a test can fail any single one of them.
//!
//! Not here: reading (`map.rs`, `pool`), and what the bytes mean (`format`).

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
    sync::Arc,
};

use crate::{
    StoreError,
    format::{
        header::{ALIGN, FileId, HEADER_BYTES, Header, NUMBERS, Section},
        manifest::FileEntry,
    },
};

/// Called before each change to the folder with what and to which file; an error is treated as the operating system's own.
/// For tests of failed writes.
pub type IoHook = Arc<dyn Fn(&'static str, &str) -> io::Result<()> + Send + Sync>;

/// Bytes gathered before a write.
const BUFFER_BYTES: usize = 1 << 20;

/// A pool's folder, for writing.
#[derive(Clone)]
pub(crate) struct Disk {
    dir: PathBuf,
    hook: Option<IoHook>,
}

impl Disk {
    pub(crate) fn new(dir: &Path, hook: Option<IoHook>) -> Self {
        Self { dir: dir.to_owned(), hook }
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    fn change<T>(&self, action: &'static str, file: &str, change: impl FnOnce() -> io::Result<T>) -> Result<T, StoreError> {
        let hooked = self.hook.as_ref().map_or(Ok(()), |hook| hook(action, file));
        hooked.and_then(|()| change()).map_err(|source| StoreError::Io { action, file: file.to_owned(), source })
    }

    /// Makes entries of the folder durable.
    pub(crate) fn sync_dir(&self) -> Result<(), StoreError> {
        self.change("sync", ".", || File::open(&self.dir)?.sync_all())
    }

    /// Replaces `name` as a whole: temporary file, sync, rename, sync of the folder.
    pub(crate) fn publish(&self, name: &str, bytes: &[u8]) -> Result<(), StoreError> {
        let temporary = format!("{name}.tmp");
        let path = self.dir.join(&temporary);
        let mut file = self.change("create", &temporary, || File::create(&path))?;
        self.change("write", &temporary, || file.write_all(bytes))?;
        self.change("sync", &temporary, || file.sync_all())?;
        self.change("rename", &temporary, || fs::rename(&path, self.dir.join(name)))?;
        // The name is new (generations are never reused), so taking it back leaves what was there before. Best effort: if the
        // name stays, it names a complete generation, whose files were all synced before.
        self.sync_dir().inspect_err(|_| drop(fs::remove_file(self.dir.join(name))))
    }

    /// Unlinks a file; one that is gone already is fine.
    pub(crate) fn remove(&self, name: &str) -> Result<(), StoreError> {
        self.change("remove", name, || match fs::remove_file(self.dir.join(name)) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
            _ => Ok(()),
        })
    }

    /// Begins a segment file.
    pub(crate) fn create(&self, id: FileId) -> Result<SectionWriter, StoreError> {
        let name = id.name();
        let path = self.dir.join(&name);
        let file = self.change("create", &name, || OpenOptions::new().write(true).create_new(true).open(path))?;
        let mut writer = SectionWriter {
            disk: self.clone(),
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
    disk: Disk,
    id: FileId,
    name: String,
    file: File,
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
        let (file, buffer) = (&mut self.file, &self.buffer);
        self.disk.change("write", &self.name, || file.write_all(buffer))?;
        self.buffer.clear();
        Ok(())
    }

    /// Bytes in the present section.
    pub(crate) fn section_len(&self) -> u64 {
        self.sections.last().map_or(0, |s| s.len)
    }

    /// Name of the file.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Writes the header, makes the file durable and read-only, and describes it for the manifest.
    pub(crate) fn finish(mut self, numbers: [u64; NUMBERS]) -> Result<FileEntry, StoreError> {
        self.flush()?;
        let header = Header { id: self.id, numbers, sections: std::mem::take(&mut self.sections) }.encode();
        let file = &self.file;
        self.disk.change("write", &self.name, || write_at_start(file, &header))?;
        self.disk.change("sync", &self.name, || file.sync_all())?;
        self.disk.change("protect", &self.name, || {
            let mut permissions = file.metadata()?.permissions();
            permissions.set_readonly(true);
            file.set_permissions(permissions)
        })?;
        let header_crc = crc32c::crc32c(&header);
        let body_len = (self.at - HEADER_BYTES as u64) as usize;
        let crc = crc32c::crc32c_combine(header_crc, self.body_crc, body_len);
        Ok(FileEntry { id: self.id, len: self.at, crc, header_crc })
    }
}

fn write_at_start(mut file: &File, bytes: &[u8]) -> io::Result<()> {
    use std::io::Seek;
    file.rewind()?;
    file.write_all(bytes)
}
