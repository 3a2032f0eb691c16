//! The choice as a file: a parquet table of every hit that was looked at, and in its metadata all that is needed to make it again.
//!
//! A row is a hit of a query: `query, class, rank, score, direction, key, row, content, caption, kept, reason, detail, group, split`.
//! Rows stand by query, in the order in which the query looked at its hits. `content` is the pair's content hash in hexadecimal: a
//! manifest names bytes, not places. The metadata key [`HEADER_KEY`] holds a [`Header`] as JSON. Nothing of the file depends on time, place or
//! threads, so that equal work gives equal bytes.

use std::{
    collections::HashMap,
    fs::{self, File},
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::Arc,
};

use anchorite_index::{Cancel, ContentHash, Effort, Key, PairStore, Parts, RowId, StoreError};
use arrow_array::{
    Array, ArrayRef, BooleanArray, Float32Array, RecordBatch, StringArray, UInt32Array, UInt64Array, cast::AsArray,
    types::UInt64Type,
};
use arrow_schema::ArrowError;
use parquet::{
    arrow::{ArrowWriter, ProjectionMask, arrow_reader::ParquetRecordBatchReaderBuilder},
    basic::{Compression, ZstdLevel},
    errors::ParquetError,
    file::{metadata::KeyValue, properties::WriterProperties},
};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{Curated, Entry, Limits, Policy, Protected, Questions, Report, policy::Control, questions::hex};

/// The metadata key of the [`Header`].
pub const HEADER_KEY: &str = "anchorite.manifest";
/// The version of the format that this program reads and writes.
pub const FORMAT: u32 = 1;
/// Rows of one record batch while writing and reading.
const BATCH: usize = 8_192;
/// What [`Header::search`] and the direction column say of pairs that were chosen by hand.
pub const CHOSEN: &str = "chosen";
/// The split of anchors that are set aside.
const VALIDATION: &str = "validation";
/// Bytes of a header that are parsed: ten times what 100,000 matches take.
const MAX_HEADER_BYTES: usize = 256 << 20;

/// What a manifest says of itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Header {
    /// [`FORMAT`].
    pub format: u32,
    /// What wrote it.
    pub written_by: String,
    /// The policy in full.
    pub policy: Policy,
    /// The pool as it was.
    pub pool: PoolRef,
    /// The queries.
    pub queries: QueriesRef,
    /// SHA-256 over the bytes of all protected pictures, in order.
    pub protected: String,
    /// Whether every row was compared: `exact` or `approximate`; [`CHOSEN`] where no search decided.
    pub search: String,
    /// SHA-256 over the anchors' content hashes, in file order: two manifests of one choice agree in it.
    pub anchors: String,
    /// Counts.
    pub report: Report,
}

/// The pool that a manifest chose from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolRef {
    /// Fingerprint of the encoder.
    pub encoder: String,
    /// Values of a vector.
    pub dim: usize,
    /// The generation that answered.
    pub generation: u64,
    /// Its rows.
    pub rows: u64,
}

/// The queries of a manifest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueriesRef {
    /// How many.
    pub count: u64,
    /// [`Questions::hash`].
    pub sha256: String,
}

/// Why a manifest could not be written or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ManifestError {
    /// The operating system said no.
    #[error("{action} {}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's word.
        source: io::Error,
    },
    /// It could not be put into parquet.
    #[error("write the manifest: {reason}")]
    Write {
        /// The writer's word.
        reason: String,
    },
    /// No manifest, or a damaged one.
    #[error("{} is no manifest that can be read: {reason}", path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// Another version of the format.
    #[error("{} has manifest format {found}; this program reads format {FORMAT}: use the program that wrote it", path.display())]
    Version {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u64,
    },
    /// The pool.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Header {
    /// Describes a finished run.
    #[must_use]
    pub fn new(store: &dyn PairStore, policy: &Policy, questions: &Questions, protected: &Protected, curated: &Curated) -> Self {
        let mut anchors = Sha256::new();
        curated.entries.iter().filter(|e| e.reason.is_none()).for_each(|e| anchors.update(e.content.0));
        let status = store.status();
        Self {
            format: FORMAT,
            written_by: concat!("anchorite ", env!("CARGO_PKG_VERSION")).to_owned(),
            policy: policy.clone(),
            pool: PoolRef {
                encoder: store.spec().encoder.clone(),
                dim: store.spec().dim,
                generation: status.generation,
                rows: status.rows,
            },
            queries: QueriesRef { count: questions.list.len() as u64, sha256: questions.hash() },
            protected: protected.hash(),
            search: if policy.effort == Effort::Exact { "exact" } else { "approximate" }.to_owned(),
            anchors: hex(&anchors.finalize()),
            report: curated.report.clone(),
        }
    }
}

/// Writes `curated` to `path`, over an earlier file, when it is complete and on disk; a failure leaves the earlier file.
///
/// # Errors
/// [`ManifestError::Io`] and [`ManifestError::Write`].
pub fn write(path: &Path, header: &Header, questions: &Questions, curated: &Curated) -> Result<(), ManifestError> {
    let failed = |action| move |source| ManifestError::Io { action, path: path.to_owned(), source };
    let name = path.file_name().ok_or_else(|| failed("write")(io::ErrorKind::InvalidFilename.into()))?;
    let unfinished = path.with_file_name(format!(".{}.{}.unfinished", name.to_string_lossy(), std::process::id()));
    let written = File::create(&unfinished)
        .map_err(failed("create"))
        .and_then(|file| write_to(file, header, questions, curated))
        .and_then(|file| file.sync_all().map_err(failed("sync")))
        .and_then(|()| fs::rename(&unfinished, path).map_err(failed("rename")));
    if written.is_err() {
        // The first failure is what is told; a file left behind is hidden and harmless.
        let _ = fs::remove_file(&unfinished);
    }
    written
}

/// The file's bytes.
///
/// # Errors
/// [`ManifestError::Write`].
pub fn to_bytes(header: &Header, questions: &Questions, curated: &Curated) -> Result<Vec<u8>, ManifestError> {
    write_to(Vec::new(), header, questions, curated)
}

fn write_to<W: io::Write + Send>(to: W, header: &Header, questions: &Questions, curated: &Curated) -> Result<W, ManifestError> {
    let refused = |e: ParquetError| ManifestError::Write { reason: e.to_string() };
    let json = serde_json::to_string(header).map_err(|e| ManifestError::Write { reason: e.to_string() })?;
    let properties = WriterProperties::builder()
        .set_created_by(header.written_by.clone())
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        .set_key_value_metadata(Some(vec![KeyValue::new(HEADER_KEY.to_owned(), json)]))
        .build();
    let direction = if header.search == CHOSEN { CHOSEN.to_owned() } else { direction(&header.policy) };
    let table =
        |entries: &[Entry]| columns(entries, questions, &direction).map_err(|e| ManifestError::Write { reason: e.to_string() });
    let mut writer = ArrowWriter::try_new(to, table(&[])?.schema(), Some(properties)).map_err(refused)?;
    for part in curated.entries.chunks(BATCH) {
        writer.write(&table(part)?).map_err(refused)?;
    }
    writer.into_inner().map_err(refused)
}

/// The policy's comparison in words: `image->image`, or `0.5 image->image + 0.5 text->image`, or the control's name.
fn direction(policy: &Policy) -> String {
    match policy.control {
        Control::Random => "random".to_owned(),
        Control::StratifiedRandom { .. } => "stratified-random".to_owned(),
        Control::None if policy.directions.len() == 1 => policy.directions[0].to_string(),
        Control::None => {
            let parts: Vec<String> = policy.directions.iter().map(|d| format!("{} {d}", d.weight)).collect();
            parts.join(" + ")
        }
    }
}

fn columns(entries: &[Entry], questions: &Questions, direction: &str) -> Result<RecordBatch, ArrowError> {
    let question = |e: &Entry| e.query.and_then(|place| questions.list.get(place));
    let text = |f: &dyn Fn(&Entry) -> Option<String>| Arc::new(entries.iter().map(f).collect::<StringArray>()) as ArrayRef;
    let split = |e: &Entry| e.reason.is_none().then(|| if e.validation { VALIDATION } else { "train" }.to_owned());
    RecordBatch::try_from_iter_with_nullable([
        ("query", text(&|e| question(e).map(|q| q.id.clone())), true),
        ("class", text(&|e| question(e).and_then(|q| q.class.clone())), true),
        ("rank", Arc::new(UInt64Array::from_iter_values(entries.iter().map(|e| e.rank as u64))), false),
        ("score", Arc::new(entries.iter().map(|e| e.score).collect::<Float32Array>()), true),
        ("direction", text(&|_| Some(direction.to_owned())), false),
        ("key", text(&|e| Some(e.key.to_string())), false),
        ("row", Arc::new(UInt64Array::from_iter_values(entries.iter().map(|e| e.row.0))), false),
        ("content", text(&|e| Some(hex(&e.content.0))), false),
        ("caption", text(&|e| e.caption.clone()), true),
        ("kept", Arc::new(BooleanArray::from_iter(entries.iter().map(|e| Some(e.reason.is_none())))), false),
        ("reason", text(&|e| e.reason.as_ref().map(|r| r.code().to_owned())), true),
        ("detail", text(&|e| e.detail.clone()), true),
        ("group", Arc::new(entries.iter().map(|e| e.group).collect::<UInt32Array>()), true),
        ("split", text(&split), true),
    ])
}

/// An anchor as a manifest names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    /// The pair's name.
    pub key: Key,
    /// Its position when the manifest was made.
    pub row: RowId,
    /// What it was made from.
    pub content: ContentHash,
    /// Whether it is set aside for validation.
    pub validation: bool,
}

/// A manifest read back: what it says of itself, and its anchors in file order.
#[derive(Clone, Debug, PartialEq)]
pub struct Manifest {
    /// What it says of itself.
    pub header: Header,
    /// The anchors; hits that were passed over are not among them.
    pub anchors: Vec<Named>,
}

/// Reads a manifest, and checks that its anchors are those its header names.
///
/// # Errors
/// [`ManifestError::Corrupt`] and [`ManifestError::Version`].
pub fn read(path: &Path) -> Result<Manifest, ManifestError> {
    let corrupt = |reason: String| ManifestError::Corrupt { path: path.to_owned(), reason };
    let file = File::open(path).map_err(|source| ManifestError::Io { action: "open", path: path.to_owned(), source })?;
    // The parquet crate panics on some damaged files.
    let read = catch_unwind(AssertUnwindSafe(|| read_file(file, path)));
    let manifest = read.unwrap_or_else(|_| Err(corrupt("its parquet structure is damaged".to_owned())))?;
    let mut anchors = Sha256::new();
    manifest.anchors.iter().for_each(|a| anchors.update(a.content.0));
    match hex(&anchors.finalize()) == manifest.header.anchors {
        true => Ok(manifest),
        false => Err(corrupt("its anchors are not those its header names".to_owned())),
    }
}

fn read_file(file: File, path: &Path) -> Result<Manifest, ManifestError> {
    let corrupt = |reason: String| ManifestError::Corrupt { path: path.to_owned(), reason };
    let builder = ParquetRecordBatchReaderBuilder::try_new(file).map_err(|e| corrupt(e.to_string()))?;
    let header = header_of(builder.metadata().file_metadata().key_value_metadata(), path)?;
    let schema = builder.parquet_schema();
    let mask = ProjectionMask::columns(schema, ["key", "row", "content", "kept", "split"]);
    let reader = builder.with_projection(mask).with_batch_size(BATCH).build().map_err(|e| corrupt(e.to_string()))?;
    let mut anchors = Vec::new();
    for batch in reader {
        named(&batch.map_err(|e| corrupt(e.to_string()))?, &mut anchors).map_err(corrupt)?;
    }
    Ok(Manifest { header, anchors })
}

fn header_of(metadata: Option<&Vec<KeyValue>>, path: &Path) -> Result<Header, ManifestError> {
    let corrupt = |reason: String| ManifestError::Corrupt { path: path.to_owned(), reason };
    let entry = metadata.into_iter().flatten().find(|entry| entry.key == HEADER_KEY);
    let json = entry.and_then(|e| e.value.as_deref()).ok_or_else(|| corrupt(format!("it has no {HEADER_KEY} metadata")))?;
    if json.len() > MAX_HEADER_BYTES {
        return Err(corrupt(format!("its header has {} bytes", json.len())));
    }
    let value: serde_json::Value = serde_json::from_str(json).map_err(|e| corrupt(e.to_string()))?;
    match value["format"].as_u64() {
        Some(format) if format == u64::from(FORMAT) => serde_json::from_value(value).map_err(|e| corrupt(e.to_string())),
        Some(found) => Err(ManifestError::Version { path: path.to_owned(), found }),
        None => Err(corrupt("its header names no format".to_owned())),
    }
}

fn named(batch: &RecordBatch, anchors: &mut Vec<Named>) -> Result<(), String> {
    let column = |name: &str| batch.column_by_name(name).ok_or_else(|| format!("it has no column {name}"));
    let wrong = |name: &str| format!("its column {name} has another type");
    let (keys, contents) = (column("key")?, column("content")?);
    let keys = keys.as_string_opt::<i32>().ok_or_else(|| wrong("key"))?;
    let contents = contents.as_string_opt::<i32>().ok_or_else(|| wrong("content"))?;
    let rows = column("row")?.as_primitive_opt::<UInt64Type>().ok_or_else(|| wrong("row"))?;
    let kept = column("kept")?.as_boolean_opt().ok_or_else(|| wrong("kept"))?;
    let splits = column("split")?.as_string_opt::<i32>().ok_or_else(|| wrong("split"))?;
    if keys.null_count() + contents.null_count() + rows.null_count() + kept.null_count() > 0 {
        return Err("one of its key, content, row and kept is null".to_owned());
    }
    for i in (0..batch.num_rows()).filter(|&i| kept.value(i)) {
        let key = Key::new(keys.value(i)).map_err(|e| e.to_string())?;
        let content = unhex(contents.value(i)).ok_or_else(|| format!("{:?} is no content hash", contents.value(i)))?;
        let validation = splits.is_valid(i) && splits.value(i) == VALIDATION;
        anchors.push(Named { key, row: RowId(rows.value(i)), content, validation });
    }
    Ok(())
}

fn unhex(text: &str) -> Option<ContentHash> {
    let mut bytes = [0; 32];
    let digits = text.as_bytes();
    if digits.len() != 64 {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        let digit = |c: u8| char::from(c).to_digit(16).and_then(|d| u8::try_from(d).ok());
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(ContentHash(bytes))
}

/// How much of a manifest a pool still has.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Coverage {
    /// Anchors the manifest names.
    pub anchors: u64,
    /// Found under their key with the same content.
    pub same: u64,
    /// Of those, found at another position.
    pub moved: u64,
    /// Not under their key, but the same content is there under another.
    pub renamed: u64,
    /// Their key is there with other content, and theirs is nowhere.
    pub changed: u64,
    /// Neither their key nor their content is there.
    pub missing: u64,
    /// Share of anchors whose content is there, from 0 to 1.
    pub coverage: f64,
    /// Whether the pool's encoder is the manifest's: otherwise the same policy would choose otherwise.
    pub same_encoder: bool,
    /// The manifest's generation.
    pub manifest_generation: u64,
    /// The pool's.
    pub pool_generation: u64,
    /// Keys of the first anchors that are changed or missing.
    pub examples: Vec<Key>,
}

/// Anchors named as examples.
const EXAMPLES: usize = 20;

/// Looks for every anchor of a manifest in a pool: by key, and where that fails by content.
///
/// # Errors
/// [`StoreError`].
pub fn verify(manifest: &Manifest, store: &dyn PairStore, limits: &Limits, cancel: &Cancel) -> Result<Coverage, ManifestError> {
    let mut coverage = Coverage {
        anchors: manifest.anchors.len() as u64,
        same_encoder: manifest.header.pool.encoder == store.spec().encoder,
        manifest_generation: manifest.header.pool.generation,
        pool_generation: store.status().generation,
        ..Coverage::default()
    };
    let mut lost: Vec<(&Named, bool)> = Vec::new();
    for part in manifest.anchors.chunks(limits.read_batch.max(1)) {
        alive(cancel)?;
        let keys: Vec<Key> = part.iter().map(|a| a.key.clone()).collect();
        let rows = store.find(&keys)?;
        let present: Vec<RowId> = rows.iter().flatten().copied().collect();
        let records = store.get(&present, Parts::default())?;
        let contents: HashMap<RowId, ContentHash> = records.into_iter().flatten().map(|r| (r.row, r.content)).collect();
        for (anchor, row) in part.iter().zip(rows) {
            match row.and_then(|row| Some((row, *contents.get(&row)?))) {
                Some((row, content)) if content == anchor.content => {
                    coverage.same += 1;
                    coverage.moved += u64::from(row != anchor.row);
                }
                found => lost.push((anchor, found.is_some())),
            }
        }
    }
    coverage.look_for(&lost, store, limits, cancel)?;
    let there = coverage.same + coverage.renamed;
    coverage.coverage = if coverage.anchors == 0 { 1.0 } else { there as f64 / coverage.anchors as f64 };
    Ok(coverage)
}

impl Coverage {
    /// Reads the whole pool once for content that is not under its key.
    fn look_for(
        &mut self,
        lost: &[(&Named, bool)],
        store: &dyn PairStore,
        limits: &Limits,
        cancel: &Cancel,
    ) -> Result<(), ManifestError> {
        let mut there: HashMap<ContentHash, bool> = lost.iter().map(|(anchor, _)| (anchor.content, false)).collect();
        let rows = if lost.is_empty() { 0 } else { store.status().positions };
        let step = limits.read_batch.max(1);
        for first in (0..rows).step_by(step) {
            alive(cancel)?;
            let numbers: Vec<RowId> = (first..rows.min(first.saturating_add(step as u64))).map(RowId).collect();
            for record in store.get(&numbers, Parts::default())?.into_iter().flatten() {
                if let Some(found) = there.get_mut(&record.content) {
                    *found = true;
                }
            }
        }
        for (anchor, has_key) in lost {
            match (there.get(&anchor.content).copied().unwrap_or(false), has_key) {
                (true, _) => self.renamed += 1,
                (false, true) => self.changed += 1,
                (false, false) => self.missing += 1,
            }
            if !there.get(&anchor.content).copied().unwrap_or(false) && self.examples.len() < EXAMPLES {
                self.examples.push(anchor.key.clone());
            }
        }
        Ok(())
    }
}

fn alive(cancel: &Cancel) -> Result<(), StoreError> {
    if cancel.is_cancelled() { Err(StoreError::Cancelled) } else { Ok(()) }
}
