//! [`PoolWriter`]: appends to files that no manifest names, then publishes them with one rename.

use std::{
    collections::HashSet,
    fs::{self, File},
    path::Path,
    sync::Arc,
};

use super::{
    accept::{bounded, check_pair, check_spec},
    generations::{DamagedManifest, Generations, is_ours, leftovers, names},
    lock::lock,
    reader::{Pool, Verify},
};
use crate::{
    BuildParams, BuildProgress, Cancel, ContentHash, Filter, Key, Pair, PairSink, PairStore, RowSet, Spec, StoreError, Upserted,
    disk::{Disk, IoHook},
    filter::Plan as FilterPlan,
    format::manifest::{Manifest, file_name},
    hnsw::Plan,
    limits::Limits,
    segment::{Pending, RowsBySegment, Sealed, Segment},
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
            model: String::new(),
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
    /// Rows deleted or replaced since the last commit, in committed and in new segments.
    deaths: RowsBySegment,
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
        check_spec(spec, options.segment_rows)?;
        bounded("model name", options.model.len(), Limits::STANDARD.model_bytes)?;
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
        let before = self.committed.manifest().clone();
        let mut manifest = Manifest {
            generation: self.next_generation,
            next_segment: self.next_segment,
            progress: self.progress.clone(),
            ..before.clone()
        };
        if !self.options.model.is_empty() {
            manifest.model.clone_from(&self.options.model);
        }
        manifest.segments.extend(self.sealed.iter().map(|s| s.entry().clone()));
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

/// A pair that is alive for the writer: where it lies and what it was made from.
struct Place {
    segment: u64,
    row: u32,
    content: ContentHash,
}

impl PoolWriter {
    fn is_buried(&self, segment: u64, row: u32) -> bool {
        self.deaths.get(&segment).is_some_and(|rows| rows.contains(row as usize))
    }

    /// Where the pair of a key is, if it is alive.
    fn locate(&self, key: &Key) -> Result<Option<Place>, StoreError> {
        if let Some(pending) = &self.pending
            && let Some((row, content)) = pending.find(key)
        {
            return Ok(Some(Place { segment: pending.id(), row, content }));
        }
        for sealed in &self.sealed {
            let segment = sealed.entry().id;
            if let Some((row, content)) = sealed.find(key, |row| !self.is_buried(segment, row))? {
                return Ok(Some(Place { segment, row, content }));
            }
        }
        for (entry, segment) in self.committed.segments() {
            if let Some(row) = segment.find_local(key, |row| !self.is_buried(entry.id, row))? {
                return Ok(Some(Place { segment: entry.id, row, content: segment.content(row)? }));
            }
        }
        Ok(None)
    }

    fn bury_place(&mut self, key: &Key, place: &Place) {
        if let Some(pending) = self.pending.as_mut().filter(|pending| pending.id() == place.segment) {
            pending.bury(key);
        }
        let dead = self.deaths.entry(place.segment).or_default();
        dead.grow(place.row as usize + 1);
        dead.insert(place.row as usize);
    }

    /// Rows that match and are alive; the pending segment must be sealed.
    fn matching(&self, filter: &Filter, cancel: &Cancel) -> Result<RowsBySegment, StoreError> {
        let mut schema = self.committed.schema(cancel)?.clone();
        for sealed in &self.sealed {
            schema = schema.unite(sealed.pairs().schema(cancel)?);
        }
        schema.check(filter)?;
        let plan = FilterPlan::new(filter);
        let mut found = RowsBySegment::new();
        for sealed in &self.sealed {
            found.insert(sealed.entry().id, sealed.pairs().select(&plan, cancel)?);
        }
        for (entry, segment) in self.committed.segments() {
            found.insert(entry.id, segment.select(&plan, cancel)?);
        }
        for (segment, rows) in &mut found {
            self.deaths.get(segment).into_iter().flat_map(RowSet::iter).for_each(|row| rows.remove(row));
        }
        Ok(found)
    }

    /// Writes the dead rows of every segment that has new ones.
    fn bury(&self, manifest: &mut Manifest) -> Result<(), StoreError> {
        let (dir, dim, generation) = (self.disk.dir(), manifest.spec.dim, manifest.generation);
        for entry in &mut manifest.segments {
            if let Some(rows) = self.deaths.get(&entry.id) {
                *entry = Segment::open(dir, entry, 0, dim)?.bury(&self.disk, entry, rows, generation)?;
            }
        }
        Ok(())
    }

    fn check_batch(&self, batch: &[Pair]) -> Result<(), StoreError> {
        if self.latched {
            return Err(StoreError::Latched);
        }
        let mut seen = HashSet::with_capacity(batch.len());
        for pair in batch {
            check_pair(pair, self.committed.spec().dim)?;
            if !seen.insert(&pair.key) {
                return Err(StoreError::Duplicate { key: pair.key.clone() });
            }
        }
        Ok(())
    }
}

impl PairSink for PoolWriter {
    fn content(&self, key: &Key) -> Result<Option<ContentHash>, StoreError> {
        Ok(self.locate(key)?.map(|place| place.content))
    }

    fn append(&mut self, batch: &[Pair]) -> Result<(), StoreError> {
        self.check_batch(batch)?;
        for pair in batch {
            if self.locate(&pair.key)?.is_some() {
                return Err(StoreError::Duplicate { key: pair.key.clone() });
            }
        }
        self.latching(|this| batch.iter().try_for_each(|pair| this.put(pair)))
    }

    fn upsert(&mut self, batch: &[Pair]) -> Result<Upserted, StoreError> {
        self.check_batch(batch)?;
        // Looked up first: damage met on the way must not leave half a batch.
        let places = batch.iter().map(|pair| self.locate(&pair.key)).collect::<Result<Vec<_>, _>>()?;
        self.latching(|this| {
            let mut done = Upserted::default();
            for (pair, place) in batch.iter().zip(places) {
                match place {
                    Some(place) if place.content == pair.content => {
                        done.unchanged += 1;
                        continue;
                    }
                    Some(place) => {
                        this.bury_place(&pair.key, &place);
                        done.replaced += 1;
                    }
                    None => done.added += 1,
                }
                this.put(pair)?;
            }
            Ok(done)
        })
    }

    fn delete(&mut self, keys: &[Key]) -> Result<u64, StoreError> {
        if self.latched {
            return Err(StoreError::Latched);
        }
        let mut places = Vec::new();
        let mut seen = HashSet::new();
        for key in keys.iter().filter(|key| seen.insert(*key)) {
            places.extend(self.locate(key)?.map(|place| (key, place)));
        }
        places.iter().for_each(|(key, place)| self.bury_place(key, place));
        Ok(places.len() as u64)
    }

    fn delete_where(&mut self, filter: &Filter, cancel: &Cancel) -> Result<u64, StoreError> {
        // Records of pending pairs are in their file alone, which can be read once it is sealed.
        self.latching(Self::seal)?;
        if self.committed.status().positions == 0 && self.sealed.is_empty() {
            return Ok(0);
        }
        let found = self.matching(filter, cancel)?;
        let count = found.values().map(|rows| rows.count() as u64).sum();
        for (segment, rows) in found.iter().filter(|(_, rows)| !rows.is_empty()) {
            let dead = self.deaths.entry(*segment).or_default();
            dead.grow(rows.positions());
            dead.unite(rows);
        }
        Ok(count)
    }

    fn progress(&self) -> &[u8] {
        &self.progress
    }

    fn commit_with(&mut self, progress: &[u8], cancel: &Cancel) -> Result<u64, StoreError> {
        self.set_progress(progress)?;
        self.commit(cancel)
    }

    fn commit(&mut self, cancel: &Cancel) -> Result<u64, StoreError> {
        let unchanged = self.pending_rows() == 0 && self.deaths.is_empty() && self.progress == self.committed.progress();
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
            pool_model: manifest.model,
            pool_dim: manifest.spec.dim,
            encoder: spec.encoder.clone(),
            encoder_model: options.model.clone(),
            encoder_dim: spec.dim,
        });
    }
    Ok((manifest, highest, kept))
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
