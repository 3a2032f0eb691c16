//! [`PoolWriter`]: appends to files that no manifest names, then publishes them with one rename.

use std::{
    fs::{self, File},
    io::{self, Read, Seek, Write},
    path::{Path, PathBuf},
    sync::Arc,
};

use rustix::fs::{FlockOperation, flock};

use super::{
    generations::{DamagedManifest, Generations, LOCK, is_ours, leftovers, names},
    reader::{Pool, Verify},
};
use crate::{
    BuildParams, BuildProgress, Cancel, ContentHash, Key, Pair, PairSink, PairStore, Parts, Spec, StoreError, Value,
    disk::{Disk, IoHook},
    format::manifest::{Manifest, file_name},
    hnsw::Plan,
    limits::Limits,
    segment::{Pending, Sealed},
};

/// Told how far a graph build is, from the thread that commits.
pub type ProgressReport = Arc<dyn Fn(BuildProgress) + Send + Sync>;

/// How to write.
#[derive(Clone)]
pub struct WriterOptions {
    /// Graph parameters.
    pub build: BuildParams,
    /// Called as a graph grows.
    pub on_build: Option<ProgressReport>,
    /// Rows per segment; when as many are pending, a new segment begins. 1,000,000: hnsw_rs, where it is asked for, needs
    /// about 4 KiB per row while it builds, so that a build stays near 4 GiB.
    pub segment_rows: u64,
    /// What a damaged newest manifest means. `Refuse`: a writer that went on from an older generation would remove the
    /// files of the newer one.
    pub damaged_manifest: DamagedManifest,
    /// For tests of failed writes.
    pub io_hook: Option<IoHook>,
}

impl Default for WriterOptions {
    fn default() -> Self {
        Self {
            build: BuildParams::default(),
            on_build: None,
            segment_rows: 1_000_000,
            damaged_manifest: DamagedManifest::Refuse,
            io_hook: None,
        }
    }
}

/// The one writer of a pool.
pub struct PoolWriter {
    disk: Disk,
    options: WriterOptions,
    /// Held for its lock, which the system drops with it.
    _lock: File,
    committed: Pool,
    pending: Option<Pending>,
    sealed: Vec<Sealed>,
    next_segment: u64,
    progress: Vec<u8>,
    next_generation: u64,
    latched: bool,
}

impl PoolWriter {
    /// Opens the pool in `dir` for writing, or creates it there when the folder is missing or empty.
    ///
    /// # Errors
    /// [`StoreError::Locked`] when another writer has it, [`StoreError::SpecMismatch`] when it belongs to another encoder,
    /// [`StoreError::NotAPool`] when the folder holds something else, or damage, or a failed write.
    pub fn open(dir: impl AsRef<Path>, spec: &Spec, options: &WriterOptions) -> Result<Self, StoreError> {
        let dir = dir.as_ref();
        options.build.check()?;
        check_spec(spec, options)?;
        let disk = Disk::new(dir, options.io_hook.clone());
        create_folder(dir)?;
        refuse_foreign(dir)?;
        let lock = lock(dir)?;
        let (manifest, highest, kept) = current(&disk, spec, options)?;
        remove_leftovers(&disk, &kept.iter().collect::<Vec<_>>())?;
        let next_segment = kept.iter().map(|m| m.next_segment).max().unwrap_or(manifest.next_segment);
        let progress = manifest.progress.clone();
        let committed = Pool::of(dir, manifest, Vec::new(), Verify::Header)?;
        let options = options.clone();
        Ok(Self {
            disk,
            options,
            _lock: lock,
            committed,
            pending: None,
            sealed: Vec::new(),
            next_segment,
            progress,
            next_generation: highest + 1,
            latched: false,
        })
    }

    /// The pool as of the last commit.
    #[must_use]
    pub fn committed(&self) -> &Pool {
        &self.committed
    }

    /// The watermark as last set or committed.
    #[must_use]
    pub fn progress(&self) -> &[u8] {
        &self.progress
    }

    /// Sets the watermark that the next commit stores beside the rows, so that rows and watermark cannot disagree.
    ///
    /// # Errors
    /// Longer than [`Limits::progress_bytes`].
    pub fn set_progress(&mut self, progress: &[u8]) -> Result<(), StoreError> {
        bounded("progress", progress.len(), Limits::STANDARD.progress_bytes)?;
        self.progress = progress.to_vec();
        Ok(())
    }

    /// Rows appended since the last commit.
    #[must_use]
    pub fn pending_rows(&self) -> u64 {
        self.pending.as_ref().map_or(0, Pending::rows) + self.sealed.iter().map(|s| s.entry().rows).sum::<u64>()
    }

    /// Runs a change; a failed one latches. Cancelling is no failure: what was built stays and a later commit goes on.
    fn latching<T>(&mut self, change: impl FnOnce(&mut Self) -> Result<T, StoreError>) -> Result<T, StoreError> {
        if self.latched {
            return Err(StoreError::Latched);
        }
        let out = change(self);
        self.latched = matches!(&out, Err(error) if !matches!(error, StoreError::Cancelled));
        out
    }

    fn put(&mut self, pair: &Pair) -> Result<(), StoreError> {
        let pending = match &mut self.pending {
            Some(pending) => pending,
            none => {
                let pending = Pending::create(&self.disk, self.next_segment, self.committed.spec().dim)?;
                self.next_segment += 1;
                none.insert(pending)
            }
        };
        pending.put(pair)?;
        if pending.rows() >= self.options.segment_rows {
            self.seal()?;
        }
        Ok(())
    }

    fn seal(&mut self) -> Result<(), StoreError> {
        if let Some(pending) = self.pending.take() {
            self.sealed.push(pending.seal()?);
        }
        Ok(())
    }

    fn publish(&mut self, cancel: &Cancel) -> Result<u64, StoreError> {
        self.seal()?;
        let plan = Plan { params: self.options.build, cancel: cancel.clone(), report: self.options.on_build.clone() };
        for sealed in &mut self.sealed {
            sealed.build_graphs(&self.disk, &plan)?;
        }
        if cancel.is_cancelled() {
            return Err(StoreError::Cancelled);
        }
        let before = self.committed.manifest();
        let mut manifest = Manifest {
            generation: self.next_generation,
            next_segment: self.next_segment,
            progress: self.progress.clone(),
            ..before.clone()
        };
        manifest.segments.extend(self.sealed.iter().map(|s| s.entry().clone()));
        // Names of new files must be durable before a manifest speaks of them.
        self.disk.sync_dir()?;
        publish_manifest(&self.disk, &manifest)?;
        // The commit stands. What cannot be removed now is removed by the next writer.
        if let Err(error) = remove_leftovers(&self.disk, &[&manifest, before]) {
            tracing::warn!(%error, "files of an older generation stay behind");
        }
        let generation = manifest.generation;
        self.committed = Pool::of(self.disk.dir(), manifest, Vec::new(), Verify::Header)?;
        self.sealed.clear();
        self.next_generation = generation + 1;
        Ok(generation)
    }
}

impl PairSink for PoolWriter {
    fn content(&self, key: &Key) -> Result<Option<ContentHash>, StoreError> {
        if let Some(content) = self.pending.as_ref().and_then(|pending| pending.content(key)) {
            return Ok(Some(content));
        }
        for sealed in &self.sealed {
            if let Some(content) = sealed.content(key)? {
                return Ok(Some(content));
            }
        }
        let Some(row) = self.committed.find(std::slice::from_ref(key))?[0] else { return Ok(None) };
        let records = self.committed.get(&[row], Parts::default())?;
        Ok(records.into_iter().flatten().next().map(|record| record.content))
    }

    fn append(&mut self, batch: &[Pair]) -> Result<(), StoreError> {
        if self.latched {
            return Err(StoreError::Latched);
        }
        let dim = self.committed.spec().dim;
        let mut seen = std::collections::HashSet::with_capacity(batch.len());
        for pair in batch {
            check_pair(pair, dim)?;
            if !seen.insert(&pair.key) || self.content(&pair.key)?.is_some() {
                return Err(StoreError::Duplicate { key: pair.key.clone() });
            }
        }
        self.latching(|this| batch.iter().try_for_each(|pair| this.put(pair)))
    }

    fn commit(&mut self, cancel: &Cancel) -> Result<u64, StoreError> {
        let unchanged = self.pending_rows() == 0 && self.progress == self.committed.progress();
        if unchanged && !self.latched {
            return Ok(self.committed.manifest().generation);
        }
        self.latching(|this| this.publish(cancel))
    }
}

fn remove_leftovers(disk: &Disk, kept: &[&Manifest]) -> Result<(), StoreError> {
    leftovers(&names(disk.dir())?, kept).iter().try_for_each(|name| disk.remove(name))
}

fn publish_manifest(disk: &Disk, manifest: &Manifest) -> Result<(), StoreError> {
    let bytes = manifest.encode();
    bounded("manifest", bytes.len(), Limits::STANDARD.manifest_bytes as usize)?;
    disk.publish(&file_name(manifest.generation), &bytes)
}

/// The manifest to go on from, the highest number in use, and the manifests to keep.
fn current(disk: &Disk, spec: &Spec, options: &WriterOptions) -> Result<(Manifest, u64, Vec<Manifest>), StoreError> {
    let Some(found) = Generations::read(disk.dir())? else {
        let manifest = Manifest::empty(spec.clone());
        publish_manifest(disk, &manifest)?;
        return Ok((manifest.clone(), 0, vec![manifest]));
    };
    let (highest, kept) = (found.highest, found.good.clone());
    let (manifest, _) = found.newest(options.damaged_manifest)?;
    if manifest.spec != *spec {
        return Err(StoreError::SpecMismatch {
            pool: manifest.spec.encoder,
            pool_dim: manifest.spec.dim,
            encoder: spec.encoder.clone(),
            encoder_dim: spec.dim,
        });
    }
    Ok((manifest, highest, kept))
}

fn check_spec(spec: &Spec, options: &WriterOptions) -> Result<(), StoreError> {
    let limits = Limits::STANDARD;
    bounded("encoder fingerprint", spec.encoder.len(), limits.encoder_bytes)?;
    let between = |name, value, max| {
        if (1..=max).contains(&value) { Ok(()) } else { Err(StoreError::Parameter { name, value, min: 1, max }) }
    };
    between("dimension", spec.dim as u64, limits.dim as u64)?;
    between("segment_rows", options.segment_rows, limits.segment_rows)
}

fn create_folder(dir: &Path) -> Result<(), StoreError> {
    fs::create_dir_all(dir).map_err(|source| StoreError::Io { action: "create", file: dir.display().to_string(), source })
}

/// A folder without manifest may hold what a writer left that died before its first one, and nothing else.
fn refuse_foreign(dir: &Path) -> Result<(), StoreError> {
    let names = names(dir)?;
    let has_manifest = names.iter().any(|name| crate::format::manifest::generation_of(name).is_some());
    match names.into_iter().find(|name| !is_ours(name)) {
        Some(found) if !has_manifest => Err(StoreError::NotAPool { folder: dir.display().to_string(), found }),
        _ => Ok(()),
    }
}

/// Takes the writer's lock. The system releases it when the process ends, however it ends; the file stays.
fn lock(dir: &Path) -> Result<File, StoreError> {
    let path: PathBuf = dir.join(LOCK);
    let failed = |action| move |source| StoreError::Io { action, file: LOCK.to_owned(), source };
    let options = File::options().read(true).write(true).create(true).truncate(false).open(&path);
    let mut file = options.map_err(failed("open"))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(rustix::io::Errno::WOULDBLOCK) => {
            let mut holder = String::new();
            // Only a hint for people: the lock itself decides.
            let _ = (&file).take(200).read_to_string(&mut holder);
            let holder = if holder.trim().is_empty() { "an unnamed process".to_owned() } else { holder.trim().to_owned() };
            return Err(StoreError::Locked { file: path.display().to_string(), holder });
        }
        Err(error) => return Err(failed("lock")(io::Error::from(error))),
    }
    let holder = format!("process {}\n", std::process::id());
    let write = |file: &mut File| {
        file.set_len(0)?;
        file.rewind()?;
        file.write_all(holder.as_bytes())
    };
    write(&mut file).map_err(failed("write"))?;
    Ok(file)
}

fn bounded(what: &'static str, found: usize, max: usize) -> Result<(), StoreError> {
    if found <= max {
        return Ok(());
    }
    Err(StoreError::TooLarge { what, found: found as u64, max: max as u64 })
}

fn check_pair(pair: &Pair, dim: usize) -> Result<(), StoreError> {
    if pair.image.is_none() && pair.text.is_none() {
        return Err(StoreError::NoVector { key: pair.key.clone() });
    }
    for vector in [&pair.image, &pair.text].into_iter().flatten() {
        check_vector(vector, dim)?;
    }
    let limits = Limits::STANDARD;
    bounded("source name", pair.source.file.len(), limits.source_bytes)?;
    bounded("caption", pair.caption.as_ref().map_or(0, String::len), limits.caption_bytes)?;
    bounded("picture", pair.picture.as_ref().map_or(0, Vec::len), limits.picture_bytes)?;
    bounded("number of fields", pair.fields.len(), limits.fields)?;
    for (name, value) in &pair.fields {
        bounded("field name", name.len(), limits.field_name_bytes)?;
        match value {
            Value::Text(text) => bounded("field text", text.len(), limits.field_text_bytes)?,
            Value::Float(number) if !number.is_finite() => {
                return Err(StoreError::FieldNotFinite { key: pair.key.clone(), field: name.clone() });
            }
            _ => {}
        }
    }
    Ok(())
}

fn check_vector(vector: &[f32], dim: usize) -> Result<(), StoreError> {
    if vector.len() != dim {
        return Err(StoreError::Dimension { expected: dim, found: vector.len() });
    }
    if let Some(position) = vector.iter().position(|v| !v.is_finite()) {
        return Err(StoreError::NotFinite { position });
    }
    let length = vector.iter().map(|v| v * v).sum::<f32>().sqrt();
    if (length - 1.0).abs() > 1e-3 {
        return Err(StoreError::Length { length });
    }
    Ok(())
}
