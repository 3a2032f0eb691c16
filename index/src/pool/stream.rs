//! A snapshot as one tar stream: to a pipe, a file, another machine.
//!
//! ```text
//!   folder ──export──► manifest, then every file it names ──import──► folder, manifest published last
//! ```
//!
//! The manifest comes first, so that whoever reads the stream knows each name, length and checksum before it arrives. An entry that is no
//! plain file of one of those names is refused before a byte of it is written: no path of the stream is ever used as a path.
//! Entries have no owner, no time and mode 0444, so that two exports of one generation are equal to the byte.

use std::{
    collections::BTreeMap,
    io::{self, Read, Write},
    path::Path,
};

use tar::{Archive, Builder, EntryType, Header};

use super::copy::{Copied, CopyTo, Landing, Opened, compare};
use crate::{
    Cancel, StoreError,
    format::manifest::{FileEntry, Manifest, file_name, generation_of},
    limits::Limits,
};

/// Bytes of the stream that are copied between two looks at the cancel flag. 1 MiB.
const BLOCK: usize = 1 << 20;

/// Writes the newest generation in `from` to `to` as a tar. A writer may be at work in `from`. Every file is compared with its checksum on
/// the way; when one differs the stream ends before its end mark, and [`import`] refuses it.
///
/// # Errors
/// No pool in `from`, damage, a failed write, or [`StoreError::Cancelled`].
pub fn export(
    from: impl AsRef<Path>,
    to: &mut dyn Write,
    cancel: &Cancel,
    report: &mut dyn FnMut(Copied),
) -> Result<Copied, StoreError> {
    let Opened { manifest, files } = Opened::newest(from.as_ref())?;
    let mut copied = Copied { generation: manifest.generation, ..Copied::default() };
    let mut tar = Builder::new(to);
    let bytes = manifest.encode();
    append(&mut tar, &file_name(manifest.generation), bytes.len() as u64, &mut bytes.as_slice())?;
    for (entry, file) in files {
        let name = entry.id.name();
        let mut source = Checked { source: file, crc: 0, len: 0, cancel };
        let appended = append(&mut tar, &name, entry.len, &mut (&mut source).take(entry.len));
        if cancel.is_cancelled() {
            return Err(StoreError::Cancelled);
        }
        appended?;
        compare(&entry, (source.len, source.crc))?;
        copied.files += 1;
        copied.bytes += entry.len;
        report(copied);
    }
    tar.into_inner().and_then(Write::flush).map_err(failed("write"))?;
    Ok(copied)
}

/// Makes a pool of a stream that [`export`] wrote. Unless every file arrived and agrees with its checksum the folder is left as
/// it was, but for a lock file.
///
/// # Errors
/// [`StoreError::Stream`] for what is no whole snapshot, something in `to`, damage, a failed write, or [`StoreError::Cancelled`].
pub fn import(
    from: &mut dyn Read,
    to: impl Into<CopyTo>,
    cancel: &Cancel,
    report: &mut dyn FnMut(Copied),
) -> Result<Copied, StoreError> {
    let mut archive = Archive::new(from);
    // Raw: an entry that says what the next one is called, or that it has holes, comes as itself and is refused.
    let mut entries = archive.entries().map_err(failed("read"))?.raw(true);
    let manifest = read_manifest(&mut entries)?;
    let mut missing: BTreeMap<String, FileEntry> =
        manifest.segments.iter().flat_map(|s| &s.files).map(|file| (file.id.name(), *file)).collect();
    let mut landing = Landing::prepare(to.into())?;
    landing.take(&manifest, cancel, report, |landing| {
        for entry in entries {
            let mut entry = entry.map_err(broken)?;
            let name = plain_name(&entry)?;
            let Some(wanted) = missing.remove(&name) else {
                return Err(refuse(&name, "the manifest does not name it, or it came before"));
            };
            if entry.size() != wanted.len {
                return Err(refuse(&name, &format!("{} bytes, the manifest says {}", entry.size(), wanted.len)));
            }
            let mut source = Checked { source: &mut entry, crc: 0, len: 0, cancel };
            let arrived = landing.file(&wanted, &mut source);
            let came = source.len;
            match arrived {
                _ if cancel.is_cancelled() => return Err(StoreError::Cancelled),
                Err(StoreError::Corrupt { .. }) if came < wanted.len => {
                    return Err(refuse(&name, &format!("it ends after {came} of {} bytes", wanted.len)));
                }
                Err(StoreError::Io { action: "read", source, .. }) => return Err(broken(source)),
                arrived => arrived?,
            }
        }
        match missing.keys().next() {
            None => Ok(()),
            Some(name) => Err(refuse(name, "it is missing; the stream was cut short")),
        }
    })
}

fn read_manifest<R: Read>(entries: &mut tar::Entries<'_, R>) -> Result<Manifest, StoreError> {
    let first = entries.next().ok_or_else(|| refuse("the first entry", "it is missing"))?;
    let entry = first.map_err(broken)?;
    let name = plain_name(&entry)?;
    let Some(generation) = generation_of(&name) else { return Err(refuse(&name, "the first entry is no manifest")) };
    let (size, max) = (entry.size(), Limits::STANDARD.manifest_bytes);
    if size > max {
        return Err(refuse(&name, &format!("{size} bytes, at most {max} are allowed")));
    }
    let mut bytes = Vec::new();
    entry.take(max).read_to_end(&mut bytes).map_err(broken)?;
    if bytes.len() as u64 != size {
        return Err(refuse(&name, "it is cut short"));
    }
    Manifest::decode(&bytes, generation)
}

/// The name of an entry that is a plain file.
fn plain_name<R: Read>(entry: &tar::Entry<'_, R>) -> Result<String, StoreError> {
    let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
    match entry.header().entry_type() {
        EntryType::Regular => Ok(name),
        other => Err(refuse(&name, &format!("it is no plain file ({other:?})"))),
    }
}

/// Longest name that is repeated in an error: twice as long as ours are.
const NAME_SHOWN: usize = 80;

fn refuse(entry: &str, reason: &str) -> StoreError {
    let shown: String = entry.chars().take(NAME_SHOWN).collect();
    StoreError::Stream { entry: format!("{shown:?}"), reason: reason.to_owned() }
}

/// What the tar itself says is wrong.
fn broken(error: io::Error) -> StoreError {
    match error.kind() {
        io::ErrorKind::Other | io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData => {
            StoreError::Stream { entry: "the tar".to_owned(), reason: error.to_string() }
        }
        _ => failed("read")(error),
    }
}

fn failed(action: &'static str) -> impl FnOnce(io::Error) -> StoreError {
    move |source| StoreError::Io { action, file: "the stream".to_owned(), source }
}

fn append(tar: &mut Builder<&mut dyn Write>, name: &str, len: u64, from: &mut dyn Read) -> Result<(), StoreError> {
    let mut header = Header::new_gnu();
    header.set_entry_type(EntryType::Regular);
    header.set_size(len);
    header.set_mode(0o444);
    header.set_mtime(0);
    header.set_path(name).map_err(failed("name an entry of"))?;
    header.set_cksum();
    tar.append(&header, from).map_err(failed("write"))
}

/// What is read, counted and summed up; ends early when cancelled.
struct Checked<'a, R> {
    source: R,
    crc: u32,
    len: u64,
    cancel: &'a Cancel,
}

impl<R: Read> Read for Checked<'_, R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if self.cancel.is_cancelled() {
            return Err(io::Error::other("cancelled"));
        }
        let most = out.len().min(BLOCK);
        let read = self.source.read(&mut out[..most])?;
        self.crc = crc32c::crc32c_append(self.crc, &out[..read]);
        self.len += read as u64;
        Ok(read)
    }
}
