//! The file that lists rows that were not ingested: every one of every source that the pool has been given.
//!
//! The list streams to a temporary file beside its place and takes the place by rename, so that a reader sees the old list
//! or the whole new one, and memory does not grow with the number of rejects. It takes the place before every commit of the pool,
//! and the commit notes how long it was and its digest: what a run that dies has listed beyond its last commit is found again by the next
//! one, which drops it and goes on from there. Entries of a source that is read again from its start are dropped too.

use std::{
    borrow::Cow,
    collections::HashSet,
    fs::{self, File},
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::Arc,
};

use arrow_array::{ArrayRef, RecordBatch, StringArray, UInt64Array, cast::AsArray, types::UInt64Type};
use parquet::arrow::{ArrowWriter, arrow_reader::ParquetRecordBatchReaderBuilder};
use sha2::{Digest, Sha256};

use crate::{Reject, resume::ListMark};

/// Rows held before they are written to the list.
const BATCH: usize = 1_024;

/// One row of the list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Listed {
    pub(crate) file: String,
    pub(crate) row: u64,
    pub(crate) code: Cow<'static, str>,
    message: Cow<'static, str>,
}

impl From<Reject> for Listed {
    fn from(reject: Reject) -> Self {
        Self { file: reject.source.file, row: reject.source.row, code: reject.code.into(), message: reject.message }
    }
}

/// An entry of a reject list, as readers get it.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct ListedReject {
    /// The file's name, as in the pool.
    pub source_file: String,
    /// Its row there, from 0.
    pub row: u64,
    /// Stable short name of the reason.
    pub code: String,
    /// The reason in words.
    pub message: String,
}

/// Entries `from..from + most` of the list in `path`; fewer at its end, none where there is no list.
///
/// # Errors
/// The list cannot be read, or is damaged.
pub fn read_rejects(path: &Path, from: u64, most: usize) -> io::Result<Vec<ListedReject>> {
    let mut found = Vec::new();
    let mut at = 0;
    let rows = from.saturating_add(most as u64);
    let read = read(path, rows, &mut |entry| {
        if at >= from {
            found.push(ListedReject {
                source_file: entry.file,
                row: entry.row,
                code: entry.code.into_owned(),
                message: entry.message.into_owned(),
            });
        }
        at += 1;
        Ok(())
    });
    match read {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(found),
        read => read.map(|()| found),
    }
}

/// Copies the entries of the list in `from` whose rows are of one of `files`, or of loose pictures below a folder among them, into a list
/// of their own, and says how many they are.
///
/// # Errors
/// A list that cannot be read or written.
pub fn copy_rejects(from: &Path, to: &Path, files: &HashSet<String>) -> io::Result<u64> {
    let mut list = RejectList::create(to, ListMark::default(), &mut |_| false)?;
    let is_of = |name: &str| Path::new(name).ancestors().filter_map(Path::to_str).any(|part| files.contains(part));
    let copied = read(from, u64::MAX, &mut |entry| if is_of(&entry.file) { list.put(entry) } else { Ok(()) });
    match copied {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    Ok(list.publish()?.rows)
}

/// A digest of rows in order, as far as they have come.
#[derive(Clone, Default)]
struct Rolling {
    rows: u64,
    hash: Sha256,
}

impl Rolling {
    fn add(&mut self, entry: &Listed) {
        self.rows += 1;
        self.hash.update(entry.row.to_le_bytes());
        for text in [entry.file.as_str(), &entry.code, &entry.message] {
            self.hash.update((text.len() as u64).to_le_bytes());
            self.hash.update(text);
        }
    }

    fn mark(&self) -> ListMark {
        let whole: [u8; 32] = self.hash.clone().finalize().into();
        // A list without rows has no digest, as no list has.
        let digest = if self.rows == 0 { [0; 16] } else { std::array::from_fn(|at| whole[at]) };
        ListMark { rows: self.rows, digest }
    }
}

/// Whether `path` begins with the list that `mark` is of, and that has rows.
pub(crate) fn is_at_hand(path: Option<&Path>, mark: ListMark) -> bool {
    let Some(path) = path.filter(|_| mark.rows > 0) else { return false };
    let mut rolling = Rolling::default();
    let read = read(path, mark.rows, &mut |entry| {
        rolling.add(&entry);
        Ok(())
    });
    read.is_ok() && rolling.mark() == mark
}

/// Gives the first `rows` rows of a list to `take`. A damaged list is an error.
fn read(path: &Path, rows: u64, take: &mut dyn FnMut(Listed) -> io::Result<()>) -> io::Result<()> {
    // The parquet crate panics on some damaged files; nothing of its state is used after that.
    let read = catch_unwind(AssertUnwindSafe(|| {
        let reader = ParquetRecordBatchReaderBuilder::try_new(File::open(path)?).map_err(io::Error::other)?;
        let mut left = rows;
        for batch in reader.with_batch_size(BATCH).build().map_err(io::Error::other)? {
            for entry in entries(&batch.map_err(io::Error::other)?)? {
                if left == 0 {
                    return Ok(());
                }
                left -= 1;
                take(entry)?;
            }
        }
        Ok(())
    }));
    read.unwrap_or_else(|_| Err(io::Error::other("the list is damaged")))
}

fn entries(batch: &RecordBatch) -> io::Result<Vec<Listed>> {
    let other = || io::Error::other("the list has other columns");
    let text = |name: &str| batch.column_by_name(name).and_then(|c| c.as_string_opt::<i32>()).ok_or_else(other);
    let (files, codes, messages) = (text("source_file")?, text("code")?, text("message")?);
    let rows = batch.column_by_name("row").and_then(|c| c.as_primitive_opt::<UInt64Type>()).ok_or_else(other)?;
    let entry = |at: usize| Listed {
        file: files.value(at).to_owned(),
        row: rows.value(at),
        code: codes.value(at).to_owned().into(),
        message: messages.value(at).to_owned().into(),
    };
    Ok((0..batch.num_rows()).map(entry).collect())
}

/// The reject list while it is written.
pub(crate) struct RejectList {
    path: PathBuf,
    unfinished: PathBuf,
    writer: Option<ArrowWriter<File>>,
    pending: Vec<Listed>,
    rolling: Rolling,
}

impl RejectList {
    /// A list that begins with what `keep` says of the first `mark.rows` rows of the one that is there.
    pub(crate) fn create(path: &Path, mark: ListMark, keep: &mut dyn FnMut(&Listed) -> bool) -> io::Result<Self> {
        let name = path.file_name().ok_or_else(|| io::Error::other("the reject list's path has no file name"))?;
        let unfinished = path.with_file_name(format!(".{}.{}.unfinished", name.to_string_lossy(), std::process::id()));
        let mut list = Self { path: path.to_owned(), unfinished, writer: None, pending: Vec::new(), rolling: Rolling::default() };
        list.open()?;
        if mark.rows > 0 {
            read(path, mark.rows, &mut |entry| if keep(&entry) { list.put(entry) } else { Ok(()) })?;
        }
        Ok(list)
    }

    fn open(&mut self) -> io::Result<()> {
        let empty = columns(&[]).map_err(io::Error::other)?;
        let file = File::create(&self.unfinished)?;
        self.writer = Some(ArrowWriter::try_new(file, empty.schema(), None).map_err(io::Error::other)?);
        Ok(())
    }

    pub(crate) fn add(&mut self, reject: Reject) -> io::Result<()> {
        if self.writer.is_none() {
            // The list has taken its place; what follows is written behind a copy of it.
            self.open()?;
            let (path, rows) = (self.path.clone(), std::mem::take(&mut self.rolling).rows);
            read(&path, rows, &mut |entry| self.put(entry))?;
        }
        self.put(reject.into())
    }

    fn put(&mut self, entry: Listed) -> io::Result<()> {
        self.rolling.add(&entry);
        self.pending.push(entry);
        if self.pending.len() < BATCH { Ok(()) } else { self.flush() }
    }

    fn flush(&mut self) -> io::Result<()> {
        let batch = columns(&self.pending).map_err(io::Error::other)?;
        self.pending.clear();
        match &mut self.writer {
            Some(writer) => writer.write(&batch).map_err(io::Error::other),
            None => Ok(()),
        }
    }

    /// Puts the list in its place, over an earlier one, if anything was added since.
    pub(crate) fn publish(&mut self) -> io::Result<ListMark> {
        if self.writer.is_some() {
            self.flush()?;
        }
        if let Some(writer) = self.writer.take() {
            writer.into_inner().map_err(io::Error::other)?.sync_all()?;
            fs::rename(&self.unfinished, &self.path)?;
            sync_folder_of(&self.path)?;
        }
        Ok(self.rolling.mark())
    }
}

impl Drop for RejectList {
    fn drop(&mut self) {
        if self.writer.is_some() {
            // Unfinished: the earlier list stays. A failure here leaves a hidden file behind, nothing worse.
            let _ = fs::remove_file(&self.unfinished);
        }
    }
}

fn sync_folder_of(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()
}

fn columns(entries: &[Listed]) -> Result<RecordBatch, arrow_schema::ArrowError> {
    let text = |f: fn(&Listed) -> &str| Arc::new(StringArray::from_iter_values(entries.iter().map(f))) as ArrayRef;
    RecordBatch::try_from_iter([
        ("source_file", text(|e| &e.file)),
        ("row", Arc::new(UInt64Array::from_iter_values(entries.iter().map(|e| e.row))) as ArrayRef),
        ("code", text(|e| &e.code)),
        ("message", text(|e| &e.message)),
    ])
}
