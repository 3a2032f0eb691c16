//! [`Pool`]: one generation of a folder, mapped.

use std::{
    io,
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
};

use rayon::prelude::*;

use super::MAX_EF;
use super::generations::{DamagedManifest, Generations, names};
use crate::{
    Answer, Cancel, Effort, Field, Filter, Hit, Key, PairStore, Parts, Precision, Query, Record, RowId, Side, Spec, StoreError,
    StoreStatus,
    distance::Cpu,
    filter::{FilterCache, Plan, Schema},
    format::manifest::{Manifest, SegmentEntry},
    hnsw::ScratchPool,
    limits::Limits,
    map::Access,
    segment::{Beam, PreparedQuery, Segment, SegmentAnswer, Selection, check_file, exact, search_segments},
    topk::Scored,
};

/// How much of a pool is read before it answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Verify {
    /// Manifest and headers: milliseconds at any size. What lies behind them is checked where it is used.
    #[default]
    Header,
    /// Every byte against its checksum.
    Full,
}

/// How to open a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenOptions {
    /// How much is read first.
    pub verify: Verify,
    /// What a damaged newest manifest means.
    pub damaged_manifest: DamagedManifest,
    /// What the system is told of how the files will be read.
    pub access: Access,
}

impl Default for OpenOptions {
    fn default() -> Self {
        Self { verify: Verify::Header, damaged_manifest: DamagedManifest::UsePrevious, access: Access::System }
    }
}

/// Queries that one thread takes at a time. 32: enough to keep its turns full, few enough that threads end together.
const GRAPH_RUN: usize = 32;

/// One generation of a pool, mapped. A later commit does not change it: open the folder again to see that.
#[derive(Debug)]
pub struct Pool {
    dir: PathBuf,
    manifest: Manifest,
    damaged: Vec<StoreError>,
    segments: Vec<Segment>,
    cpu: Cpu,
    scratch: ScratchPool,
    /// Which metadata fields there are; read from every record when the first filter comes.
    schema: OnceLock<Schema>,
    filtered: FilterCache<Selection>,
}

/// A query ready to be searched for, and where its answer goes.
struct Placed {
    place: usize,
    side: Side,
    selection: Option<Arc<Selection>>,
    query: PreparedQuery,
}

impl Placed {
    /// Whether one pass can answer both.
    fn goes_with(&self, other: &Self) -> bool {
        let same = match (&self.selection, &other.selection) {
            (None, None) => true,
            (Some(a), Some(b)) => Arc::ptr_eq(a, b),
            _ => false,
        };
        same && self.side == other.side
    }
}

/// Queries that go together, in order.
fn groups(placed: Vec<Placed>) -> Vec<Vec<Placed>> {
    let mut groups: Vec<Vec<Placed>> = Vec::new();
    for placed in placed {
        match groups.iter_mut().find(|group| group[0].goes_with(&placed)) {
            Some(group) => group.push(placed),
            None => groups.push(vec![placed]),
        }
    }
    groups
}

impl Pool {
    /// Opens the newest generation in `dir`.
    ///
    /// # Errors
    /// No folder, no pool in it, or damage.
    pub fn open(dir: impl AsRef<Path>, options: &OpenOptions) -> Result<Self, StoreError> {
        let dir = dir.as_ref();
        let mut attempts = Limits::STANDARD.reopen_attempts;
        loop {
            // A writer that publishes while we open removes files of the generation before the last. Then the manifest we
            // read is out of date, and the newer one is there.
            let (generation, opened) = Self::open_once(dir, options)?;
            match opened {
                Err(StoreError::Io { source, .. })
                    if source.kind() == io::ErrorKind::NotFound && attempts > 0 && is_outdated(dir, generation)? =>
                {
                    attempts -= 1;
                }
                other => return other,
            }
        }
    }

    fn open_once(dir: &Path, options: &OpenOptions) -> Result<(u64, Result<Self, StoreError>), StoreError> {
        let Some(found) = Generations::read(dir)? else { return Err(no_pool(dir)) };
        let highest = found.highest;
        let (manifest, damaged) = match found.newest(options.damaged_manifest) {
            Ok(newest) => newest,
            Err(error) => return Ok((highest, Err(error))),
        };
        let opened = Self::of(dir, manifest, damaged, options.verify);
        Ok((highest, opened.inspect(|pool| pool.segments.iter().for_each(|segment| segment.advise(options.access)))))
    }

    pub(super) fn of(dir: &Path, manifest: Manifest, damaged: Vec<StoreError>, verify: Verify) -> Result<Self, StoreError> {
        if verify == Verify::Full {
            check_all(dir, &manifest)?;
        }
        let mut first_row = 0;
        let mut segments = Vec::with_capacity(manifest.segments.len());
        for entry in &manifest.segments {
            let segment = Segment::open(dir, entry, first_row, manifest.spec.dim)?;
            segment.check_precision(manifest.precision)?;
            segments.push(segment);
            first_row += entry.rows;
        }
        Ok(Self {
            dir: dir.to_owned(),
            manifest,
            damaged,
            segments,
            cpu: Cpu::detect(),
            scratch: ScratchPool::default(),
            schema: OnceLock::new(),
            filtered: FilterCache::new(Limits::STANDARD.filter_cache_bytes),
        })
    }

    /// The folder.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The writer's watermark as of this generation.
    #[must_use]
    pub fn progress(&self) -> &[u8] {
        &self.manifest.progress
    }

    /// What is wrong with manifests newer than the one in use; empty unless the pool was damaged.
    #[must_use]
    pub fn damaged_manifests(&self) -> &[StoreError] {
        &self.damaged
    }

    /// Graph answers with a beam of `ef`, whatever the queries' effort says, on this thread. For calibration and benchmarks:
    /// which `ef` gives which recall depends on the pool, and callers of the seam should not have to know it.
    ///
    /// # Errors
    /// As [`PairStore::search`]; [`StoreError::Parameter`] when `ef` is 0 or above [`MAX_EF`].
    pub fn search_ef_many(&self, queries: &[Query], ef: usize, cancel: &Cancel) -> Result<Vec<Answer>, StoreError> {
        if ef == 0 || ef > MAX_EF {
            return Err(StoreError::Parameter { name: "ef", value: ef as u64, min: 1, max: MAX_EF as u64 });
        }
        let mut placed = self.placed(queries, cancel)?;
        placed.iter_mut().for_each(|placed| placed.query.beam = Beam::Width(ef));
        let mut answers = vec![Answer::default(); queries.len()];
        for group in groups(placed) {
            for (placed, answer) in group.iter().zip(self.search_graph(&group, cancel)?) {
                answers[placed.place] = answer;
            }
        }
        Ok(answers)
    }

    /// As [`Pool::search_ef_many`], one query.
    ///
    /// # Errors
    /// As there.
    pub fn search_ef(&self, query: &Query, ef: usize, cancel: &Cancel) -> Result<Answer, StoreError> {
        let found = self.search_ef_many(std::slice::from_ref(query), ef, cancel)?;
        Ok(found.into_iter().next().unwrap_or_default())
    }

    pub(super) fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    pub(super) fn segments(&self) -> impl Iterator<Item = (&SegmentEntry, &Segment)> {
        self.manifest.segments.iter().zip(&self.segments)
    }

    fn side_rows(&self, side: Side) -> u64 {
        self.manifest.segments.iter().map(|s| s.live_side_rows(side)).sum()
    }

    fn rows(&self) -> u64 {
        self.manifest.segments.iter().map(SegmentEntry::live_rows).sum()
    }

    /// How many living rows match: what [`PairSink::delete_where`](crate::PairSink::delete_where) would delete.
    ///
    /// # Errors
    /// As a search with this filter.
    pub fn count(&self, filter: &Filter, cancel: &Cancel) -> Result<u64, StoreError> {
        if self.segments.is_empty() {
            return Ok(0);
        }
        self.schema(cancel)?.check(filter)?;
        let plan = Plan::new(filter);
        self.segments.iter().try_fold(0, |count, segment| Ok(count + segment.select(&plan, cancel)?.count() as u64))
    }

    fn prepare(&self, query: &Query) -> Result<PreparedQuery, StoreError> {
        let dim = self.manifest.spec.dim;
        let unit = unit_length(&query.vector, dim)?;
        let max = self.max_k();
        if query.k == 0 || query.k > max {
            return Err(StoreError::K { k: query.k, max });
        }
        if self.side_rows(query.side) == 0 && self.rows() > 0 {
            return Err(StoreError::NoSide { side: query.side });
        }
        Ok(PreparedQuery::new(unit, dim, query.k, Beam::Promise(query.effort, query.asked)))
    }

    /// The rows that the query's filter selects; `None` without one. Kept for the next query with an equal filter.
    fn selection(&self, query: &Query, cancel: &Cancel) -> Result<Option<Arc<Selection>>, StoreError> {
        let Some(filter) = query.filter.as_ref().filter(|_| !self.segments.is_empty()) else { return Ok(None) };
        if let Some(kept) = self.filtered.get(filter) {
            return Ok(Some(kept));
        }
        self.schema(cancel)?.check(filter)?;
        let selection = Arc::new(Selection::of(&self.segments, &Plan::new(filter), cancel)?);
        self.filtered.put(filter, &selection, selection.bytes() + filter.bytes());
        Ok(Some(selection))
    }

    pub(super) fn schema(&self, cancel: &Cancel) -> Result<&Schema, StoreError> {
        if let Some(schema) = self.schema.get() {
            return Ok(schema);
        }
        let mut schema = Schema::default();
        for segment in &self.segments {
            schema = schema.unite(segment.schema(cancel)?);
        }
        Ok(self.schema.get_or_init(|| schema))
    }

    /// Every query with its place and the rows it may find.
    fn placed(&self, queries: &[Query], cancel: &Cancel) -> Result<Vec<Placed>, StoreError> {
        let placed = queries.iter().enumerate().map(|(place, query)| {
            if cancel.is_cancelled() {
                return Err(StoreError::Cancelled);
            }
            let prepared = self.prepare(query)?;
            Ok(Placed { place, side: query.side, selection: self.selection(query, cancel)?, query: prepared })
        });
        placed.collect()
    }

    /// Graph answers of queries of one side and one selection over all segments, on this thread.
    fn search_graph(&self, group: &[Placed], cancel: &Cancel) -> Result<Vec<Answer>, StoreError> {
        let Some(Placed { side, selection, .. }) = group.first() else { return Ok(Vec::new()) };
        let queries: Vec<&PreparedQuery> = group.iter().map(|placed| &placed.query).collect();
        let searched = (*side, selection.as_deref());
        let found = search_segments(&self.segments, searched, &queries, &self.scratch, (self.cpu, cancel))?;
        let answer = |(query, SegmentAnswer { hits, mut degraded, .. }): (&&PreparedQuery, SegmentAnswer)| {
            if degraded {
                let selected = selection.as_ref().map(|selection| selection.count(&self.segments, *side));
                degraded = (hits.len() as u64) < selected.unwrap_or(Ok(self.side_rows(*side)))?.min(query.k as u64);
            }
            Ok(Answer { degraded, hits: to_hits(&hits) })
        };
        queries.iter().zip(found).map(answer).collect()
    }

    /// One query stays on the caller's thread; several share the cores, in runs.
    fn search_graph_on_cores(&self, group: &[Placed], cancel: &Cancel) -> Result<Vec<Answer>, StoreError> {
        let run = group.len().div_ceil(rayon::current_num_threads()).clamp(1, GRAPH_RUN);
        match group {
            [_] => self.search_graph(group, cancel),
            many => Ok(many.par_chunks(run).map(|run| self.search_graph(run, cancel)).collect::<Result<Vec<_>, _>>()?.concat()),
        }
    }

    /// Exact answers of queries of one side and one selection, in passes of bounded memory.
    fn search_exact(&self, queries: &[Placed], cancel: &Cancel, answers: &mut [Answer]) -> Result<(), StoreError> {
        for pass in queries.chunks(Limits::STANDARD.exact_queries) {
            let prepared: Vec<PreparedQuery> = pass.iter().map(|placed| placed.query.clone()).collect();
            let searched = (pass[0].side, pass[0].selection.as_deref());
            let found = exact(&self.segments, searched, &prepared, (self.cpu, cancel))?;
            for (placed, hits) in pass.iter().zip(found) {
                answers[placed.place] = Answer { hits: to_hits(&hits), degraded: false };
            }
        }
        Ok(())
    }
}

impl PairStore for Pool {
    fn spec(&self) -> &Spec {
        &self.manifest.spec
    }

    fn model(&self) -> Option<&str> {
        Some(self.manifest.model.as_str()).filter(|name| !name.is_empty())
    }

    fn precision(&self) -> Precision {
        self.manifest.precision
    }

    fn max_k(&self) -> usize {
        Limits::STANDARD.k
    }

    fn status(&self) -> StoreStatus {
        StoreStatus {
            rows: self.rows(),
            image_rows: self.side_rows(Side::Image),
            text_rows: self.side_rows(Side::Text),
            positions: self.manifest.segments.iter().map(|s| s.rows).sum(),
            generation: self.manifest.generation,
        }
    }

    fn identity(&self) -> Option<Vec<u8>> {
        Some(self.manifest.encode())
    }

    fn search(&self, queries: &[Query], cancel: &Cancel) -> Result<Vec<Answer>, StoreError> {
        let mut answers = vec![Answer::default(); queries.len()];
        let placed = self.placed(queries, cancel)?;
        let (by_scan, by_graph) = placed.into_iter().partition(|placed| queries[placed.place].effort == Effort::Exact);
        for group in groups(by_scan) {
            self.search_exact(&group, cancel, &mut answers)?;
        }
        for group in groups(by_graph) {
            for (placed, answer) in group.iter().zip(self.search_graph_on_cores(&group, cancel)?) {
                answers[placed.place] = answer;
            }
        }
        Ok(answers)
    }

    fn get(&self, rows: &[RowId], parts: Parts) -> Result<Vec<Option<Record>>, StoreError> {
        let one = |row: &RowId| {
            let segment = self.segments.iter().find(|s| s.contains(*row) && s.is_alive(*row));
            segment.map(|s| s.record(*row, parts)).transpose()
        };
        rows.iter().map(one).collect()
    }

    fn find(&self, keys: &[Key]) -> Result<Vec<Option<RowId>>, StoreError> {
        let one = |key: &Key| {
            for segment in &self.segments {
                if let Some(row) = segment.find(key)? {
                    return Ok(Some(row));
                }
            }
            Ok(None)
        };
        keys.iter().map(one).collect()
    }

    fn fields(&self, cancel: &Cancel) -> Result<Vec<Field>, StoreError> {
        Ok(self.schema(cancel)?.list())
    }
}

fn to_hits(scored: &[Scored]) -> Vec<Hit> {
    scored.iter().map(|s| Hit { row: RowId(s.row), score: s.score }).collect()
}

/// Whether a manifest newer than `generation` has appeared.
fn is_outdated(dir: &Path, generation: u64) -> Result<bool, StoreError> {
    Ok(Generations::read(dir)?.is_some_and(|found| found.highest > generation))
}

fn no_pool(dir: &Path) -> StoreError {
    let first = names(dir).ok().and_then(|names| names.into_iter().next());
    let found = first.unwrap_or_else(|| "nothing".to_owned());
    StoreError::NotAPool { folder: dir.display().to_string(), found }
}

fn check_all(dir: &Path, manifest: &Manifest) -> Result<(), StoreError> {
    for segment in &manifest.segments {
        for file in &segment.files {
            if let Some(error) = check_file(dir, segment, file, manifest.spec.dim).into_iter().next() {
                return Err(error);
            }
        }
    }
    Ok(())
}

/// Finite, of the right dimension, not zero; scaled to unit length.
fn unit_length(vector: &[f32], dim: usize) -> Result<Vec<f32>, StoreError> {
    if vector.len() != dim {
        return Err(StoreError::Dimension { expected: dim, found: vector.len() });
    }
    if let Some(position) = vector.iter().position(|v| !v.is_finite()) {
        return Err(StoreError::NotFinite { position });
    }
    // Eight running sums, so that additions do not wait for each other.
    let mut sums = [0f64; 8];
    for values in vector.chunks(8) {
        sums.iter_mut().zip(values).for_each(|(sum, &v)| *sum += f64::from(v) * f64::from(v));
    }
    let length = sums.iter().sum::<f64>().sqrt();
    if length < 1e-30 {
        return Err(StoreError::Length { length: length as f32 });
    }
    let scale = 1.0 / length;
    Ok(vector.iter().map(|&v| (f64::from(v) * scale) as f32).collect())
}
