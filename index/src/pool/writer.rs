//! [`PoolWriter`]: appends to files that no manifest names, then publishes them with one rename.

use std::{fs::File, path::Path, sync::Arc};

use super::{
    accept::{bounded, check_spec},
    generations::{DamagedManifest, Generations, is_ours, leftovers, names},
    lock::lock,
    merge::MergePolicy,
    reader::{Pool, Verify},
};
use crate::{
    BuildParams, BuildProgress, Cancel, Pair, Precision, Spec, StoreError,
    disk::{Disk, Medium, OsMedium},
    format::manifest::{Manifest, SegmentEntry, file_name},
    hnsw::Plan,
    limits::Limits,
    segment::{Pending, RowsBySegment, Sealed, Shape},
};

/// Told how far a graph build is, from the thread that commits.
pub type ProgressReport = Arc<dyn Fn(BuildProgress) + Send + Sync>;

/// How to write.
#[derive(Clone)]
pub struct WriterOptions {
    /// Graph parameters.
    pub build: BuildParams,
    /// Name of the encoder's model, kept for people beside the fingerprint. Empty: the pool's own stays.
    pub model: String,
    /// Called as a graph grows.
    pub on_build: Option<ProgressReport>,
    /// What is kept of every vector. `None`: what the pool keeps, and [`Precision::Half`] for a new pool. A pool keeps to what it was made with:
    /// 7-bit pools take a third of the room of vectors, but their exact answers are those of the rounded rows.
    pub precision: Option<Precision>,
    /// Rows per segment; when as many are pending, a new segment begins. 1,000,000: hnsw_rs, where it is asked for, needs
    /// about 4 KiB per row while it builds, so that a build stays near 4 GiB.
    pub segment_rows: u64,
    /// When a commit joins small segments into one. `None`: never, until [`PoolWriter::compact`].
    pub merge: Option<MergePolicy>,
    /// What a damaged newest manifest means. `Refuse`: a writer that went on from an older generation would remove the
    /// files of the newer one.
    pub damaged_manifest: DamagedManifest,
    /// What changes the folder. [`OsMedium`]: others are for tests of failed writes and lost power.
    pub medium: Arc<dyn Medium>,
}

impl Default for WriterOptions {
    fn default() -> Self {
        Self {
            build: BuildParams::default(),
            model: String::new(),
            on_build: None,
            precision: None,
            segment_rows: 1_000_000,
            merge: Some(MergePolicy::default()),
            damaged_manifest: DamagedManifest::Refuse,
            medium: Arc::new(OsMedium),
        }
    }
}

/// The one writer of a pool.
pub struct PoolWriter {
    pub(super) disk: Disk,
    pub(super) options: WriterOptions,
    /// Held for its lock, which the system drops with it.
    _lock: File,
    pub(super) committed: Pool,
    pub(super) pending: Option<Pending>,
    pub(super) sealed: Vec<Sealed>,
    /// Rows deleted or replaced since the last commit, in committed and in new segments.
    pub(super) deaths: RowsBySegment,
    pub(super) next_segment: u64,
    pub(super) progress: Vec<u8>,
    pub(super) next_generation: u64,
    pub(super) latched: bool,
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
        check_spec(spec, options.segment_rows)?;
        if options.precision == Some(Precision::Single) {
            // No pool on disk keeps vectors as they are given.
            return Err(StoreError::PrecisionFixed { pool: Precision::Half, asked: Precision::Single });
        }
        bounded("model name", options.model.len(), Limits::STANDARD.model_bytes)?;
        let disk = Disk::new(dir, Arc::clone(&options.medium));
        disk.create_dir()?;
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
            deaths: RowsBySegment::new(),
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

    /// Sets the watermark that the next commit stores beside the rows, so that rows and watermark cannot disagree.
    ///
    /// # Errors
    /// Longer than [`Limits::progress_bytes`].
    pub fn set_progress(&mut self, progress: &[u8]) -> Result<(), StoreError> {
        bounded("progress", progress.len(), Limits::STANDARD.progress_bytes)?;
        self.progress = progress.to_vec();
        Ok(())
    }

    /// Rows appended since the last commit, those deleted again included.
    #[must_use]
    pub fn pending_rows(&self) -> u64 {
        self.pending.as_ref().map_or(0, Pending::rows) + self.sealed.iter().map(|s| s.entry().rows).sum::<u64>()
    }

    /// Runs a change; a failed one latches. Cancelling is no failure: what was built stays and a later commit goes on.
    pub(super) fn latching<T>(&mut self, change: impl FnOnce(&mut Self) -> Result<T, StoreError>) -> Result<T, StoreError> {
        if self.latched {
            return Err(StoreError::Latched);
        }
        let out = change(self);
        self.latched = matches!(&out, Err(error) if !matches!(error, StoreError::Cancelled));
        out
    }

    pub(super) fn begin_segment(&mut self) -> Result<Pending, StoreError> {
        let manifest = self.committed.manifest();
        let shape = Shape { dim: manifest.spec.dim, precision: manifest.precision };
        let pending = Pending::create(&self.disk, self.next_segment, shape)?;
        self.next_segment += 1;
        Ok(pending)
    }

    pub(super) fn put(&mut self, pair: &Pair) -> Result<(), StoreError> {
        let pending = match self.pending.take() {
            Some(pending) => pending,
            None => self.begin_segment()?,
        };
        let pending = self.pending.insert(pending);
        pending.put(pair)?;
        if pending.rows() >= self.options.segment_rows {
            self.seal()?;
        }
        Ok(())
    }

    pub(super) fn seal(&mut self) -> Result<(), StoreError> {
        if let Some(pending) = self.pending.take() {
            self.sealed.push(pending.seal()?);
        }
        Ok(())
    }

    pub(super) fn publish(&mut self, cancel: &Cancel) -> Result<u64, StoreError> {
        self.seal()?;
        let mut joined = self.join_tail(cancel)?;
        let plan = self.plan(cancel);
        let fresh = joined.as_mut().map_or(self.sealed.as_mut_slice(), |joined| joined.segments.as_mut_slice());
        for sealed in fresh.iter_mut() {
            sealed.build_graphs(&self.disk, &plan)?;
        }
        if cancel.is_cancelled() {
            return Err(StoreError::Cancelled);
        }
        let fresh: Vec<SegmentEntry> = fresh.iter().map(|sealed| sealed.entry().clone()).collect();
        let mut segments = self.committed.manifest().segments.clone();
        segments.truncate(joined.map_or(segments.len(), |joined| joined.kept));
        segments.extend(fresh);
        self.switch_to(segments)
    }

    pub(super) fn plan(&self, cancel: &Cancel) -> Plan {
        Plan { params: self.options.build, cancel: cancel.clone(), report: self.options.on_build.clone() }
    }

    /// Publishes a manifest of these segments, whose files are complete, and goes on from it.
    pub(super) fn switch_to(&mut self, segments: Vec<SegmentEntry>) -> Result<u64, StoreError> {
        let before = self.committed.manifest().clone();
        let mut manifest = Manifest {
            generation: self.next_generation,
            next_segment: self.next_segment,
            progress: self.progress.clone(),
            segments,
            ..before.clone()
        };
        if !self.options.model.is_empty() {
            manifest.model.clone_from(&self.options.model);
        }
        self.bury(&mut manifest)?;
        // Names of new files must be durable before a manifest speaks of them.
        self.disk.sync_dir()?;
        publish_manifest(&self.disk, &manifest)?;
        // The commit stands. What cannot be removed now is removed by the next writer.
        if let Err(error) = remove_leftovers(&self.disk, &[&manifest, &before]) {
            tracing::warn!(%error, "files of an older generation stay behind");
        }
        let generation = manifest.generation;
        self.committed = Pool::of(self.disk.dir(), manifest, Vec::new(), Verify::Header)?;
        self.sealed.clear();
        self.deaths.clear();
        self.next_generation = generation + 1;
        Ok(generation)
    }
}

pub(super) fn remove_leftovers(disk: &Disk, kept: &[&Manifest]) -> Result<(), StoreError> {
    leftovers(&names(disk.dir())?, kept).iter().try_for_each(|name| disk.remove(name))
}

pub(super) fn publish_manifest(disk: &Disk, manifest: &Manifest) -> Result<(), StoreError> {
    let bytes = manifest.encode();
    bounded("manifest", bytes.len(), Limits::STANDARD.manifest_bytes as usize)?;
    disk.publish(&file_name(manifest.generation), &bytes)
}

/// The manifest to go on from, the highest number in use, and the manifests to keep.
pub(super) fn current(disk: &Disk, spec: &Spec, options: &WriterOptions) -> Result<(Manifest, u64, Vec<Manifest>), StoreError> {
    let Some(found) = Generations::read(disk.dir())? else {
        let manifest = Manifest::empty(spec.clone(), options.precision.unwrap_or_default());
        publish_manifest(disk, &manifest)?;
        return Ok((manifest.clone(), 0, vec![manifest]));
    };
    let (highest, kept) = (found.highest, found.good.clone());
    let (manifest, _) = found.newest(options.damaged_manifest)?;
    if manifest.spec != *spec {
        return Err(StoreError::SpecMismatch {
            pool: manifest.spec.encoder,
            pool_model: manifest.model,
            pool_dim: manifest.spec.dim,
            encoder: spec.encoder.clone(),
            encoder_model: options.model.clone(),
            encoder_dim: spec.dim,
        });
    }
    match options.precision {
        Some(asked) if asked != manifest.precision => {
            return Err(StoreError::PrecisionFixed { pool: manifest.precision, asked });
        }
        _ => {}
    }
    Ok((manifest, highest, kept))
}

/// A folder without manifest may hold what a writer left that died before its first one, and nothing else.
pub(super) fn refuse_foreign(dir: &Path) -> Result<(), StoreError> {
    let names = names(dir)?;
    let has_manifest = names.iter().any(|name| crate::format::manifest::generation_of(name).is_some());
    match names.into_iter().find(|name| !is_ours(name)) {
        Some(found) if !has_manifest => Err(StoreError::NotAPool { folder: dir.display().to_string(), found }),
        _ => Ok(()),
    }
}
