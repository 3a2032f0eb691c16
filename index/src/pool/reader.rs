//! [`Pool`]: one generation of a folder, mapped.

use std::{
    io,
    path::{Path, PathBuf},
};

use rayon::prelude::*;

use super::generations::{DamagedManifest, Generations, names};
use crate::{
    Answer, Cancel, Effort, Hit, Key, PairStore, Parts, Query, Record, RowId, Side, Spec, StoreError, StoreStatus,
    distance::Cpu,
    format::manifest::{Manifest, SegmentEntry, side_index},
    hnsw::ScratchPool,
    limits::Limits,
    segment::{PreparedQuery, Segment, SegmentAnswer, check_file, exact},
    topk::{self, Scored},
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
}

impl Default for OpenOptions {
    fn default() -> Self {
        Self { verify: Verify::Header, damaged_manifest: DamagedManifest::UsePrevious }
    }
}

/// Widest beam that [`Pool::search_ef`] takes; wider ones cost more than comparing every row of most segments.
pub const MAX_EF: usize = 65_536;

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
        Ok((highest, Self::of(dir, manifest, damaged, options.verify)))
    }

    pub(super) fn of(dir: &Path, manifest: Manifest, damaged: Vec<StoreError>, verify: Verify) -> Result<Self, StoreError> {
        if verify == Verify::Full {
            check_all(dir, &manifest)?;
        }
        let mut first_row = 0;
        let mut segments = Vec::with_capacity(manifest.segments.len());
        for entry in &manifest.segments {
            segments.push(Segment::open(dir, entry, first_row, manifest.spec.dim)?);
            first_row += entry.rows;
        }
        Ok(Self { dir: dir.to_owned(), manifest, damaged, segments, cpu: Cpu::detect(), scratch: ScratchPool::default() })
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
        let mut answers = Vec::with_capacity(queries.len());
        for run in queries.chunk_by(|a, b| a.side == b.side).flat_map(|run| run.chunks(GRAPH_RUN)) {
            let prepared = run.iter().map(|query| {
                let mut prepared = self.prepare(query)?;
                prepared.ef = ef.max(query.k);
                Ok(prepared)
            });
            let prepared = prepared.collect::<Result<Vec<_>, StoreError>>()?;
            answers.extend(self.search_graph(run[0].side, &prepared, cancel)?);
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
        self.manifest.segments.iter().map(|s| s.sides[side_index(side)]).sum()
    }

    fn rows(&self) -> u64 {
        self.manifest.segments.iter().map(|s| s.rows).sum()
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
        Ok(PreparedQuery::new(unit, dim, query.k, beam_width(query.effort, query.k)))
    }

    /// Graph answers over all segments.
    fn search_graph(&self, side: Side, queries: &[PreparedQuery], cancel: &Cancel) -> Result<Vec<Answer>, StoreError> {
        let mut found: Vec<SegmentAnswer> = queries.iter().map(|_| SegmentAnswer::default()).collect();
        for segment in &self.segments {
            let answers = segment.search(side, queries, &self.scratch, (self.cpu, cancel))?;
            for (all, one) in found.iter_mut().zip(answers) {
                all.degraded |= one.degraded;
                all.hits.extend(one.hits);
            }
        }
        let answer = |(query, SegmentAnswer { mut hits, degraded }): (&PreparedQuery, SegmentAnswer)| {
            hits.sort_unstable_by(topk::order);
            hits.truncate(query.k);
            let few = (hits.len() as u64) < self.side_rows(side).min(query.k as u64);
            Answer { degraded: degraded && few, hits: to_hits(&hits) }
        };
        Ok(queries.iter().zip(found).map(answer).collect())
    }

    /// One query stays on the caller's thread; several share the cores, in runs.
    fn search_graph_on_cores(&self, side: Side, queries: &[PreparedQuery], cancel: &Cancel) -> Result<Vec<Answer>, StoreError> {
        if queries.len() < 2 {
            return self.search_graph(side, queries, cancel);
        }
        let run = queries.len().div_ceil(rayon::current_num_threads()).min(GRAPH_RUN);
        let parts = queries.par_chunks(run).map(|run| self.search_graph(side, run, cancel));
        Ok(parts.collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect())
    }

    /// Exact answers of all queries of one side, in passes of bounded memory.
    fn search_exact(
        &self,
        side: Side,
        queries: &[(usize, PreparedQuery)],
        cancel: &Cancel,
        answers: &mut [Answer],
    ) -> Result<(), StoreError> {
        for pass in queries.chunks(Limits::STANDARD.exact_queries) {
            let prepared: Vec<PreparedQuery> = pass.iter().map(|(_, query)| query.clone()).collect();
            let found = exact(&self.segments, side, &prepared, (self.cpu, cancel))?;
            for ((place, _), hits) in pass.iter().zip(found) {
                answers[*place] = Answer { hits: to_hits(&hits), degraded: false };
            }
        }
        Ok(())
    }
}

impl PairStore for Pool {
    fn spec(&self) -> &Spec {
        &self.manifest.spec
    }

    fn max_k(&self) -> usize {
        Limits::STANDARD.k
    }

    fn status(&self) -> StoreStatus {
        StoreStatus {
            rows: self.rows(),
            image_rows: self.side_rows(Side::Image),
            text_rows: self.side_rows(Side::Text),
            generation: self.manifest.generation,
        }
    }

    fn search(&self, queries: &[Query], cancel: &Cancel) -> Result<Vec<Answer>, StoreError> {
        let mut answers = vec![Answer::default(); queries.len()];
        let mut by_scan: [Vec<(usize, PreparedQuery)>; 2] = Default::default();
        let mut by_graph: [Vec<(usize, PreparedQuery)>; 2] = Default::default();
        for (place, query) in queries.iter().enumerate() {
            let prepared = self.prepare(query)?;
            match query.effort {
                Effort::Exact => by_scan[side_index(query.side)].push((place, prepared)),
                _ => by_graph[side_index(query.side)].push((place, prepared)),
            }
        }
        if cancel.is_cancelled() {
            return Err(StoreError::Cancelled);
        }
        for side in Side::ALL {
            self.search_exact(side, &by_scan[side_index(side)], cancel, &mut answers)?;
        }
        for side in Side::ALL {
            let (places, queries): (Vec<usize>, Vec<PreparedQuery>) = std::mem::take(&mut by_graph[side_index(side)]).into_iter().unzip();
            for (place, answer) in places.into_iter().zip(self.search_graph_on_cores(side, &queries, cancel)?) {
                answers[place] = answer;
            }
        }
        Ok(answers)
    }

    fn get(&self, rows: &[RowId], parts: Parts) -> Result<Vec<Option<Record>>, StoreError> {
        let one = |row: &RowId| self.segments.iter().find(|s| s.contains(*row)).map(|s| s.record(*row, parts)).transpose();
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

/// Beam width (`ef`) of an effort; 0 means that every row is compared.
///
/// Measured recall@10 on 100,000 CLIP-like vectors of 512 values (the seeded generator of the benches), default
/// [`BuildParams`](crate::BuildParams):
///
/// | | `Fast` | `Normal` | `High` |
/// | --- | --- | --- | --- |
/// | image queries against images | 0.972 | 0.994 | 0.999 |
/// | text queries against images | 0.918 | 0.977 | 0.997 |
///
/// A query does not say from which tower it came. Text against images needs a beam about four times as wide as images against
/// images for the same recall: ask with the next higher effort. A large `k` widens the beam by a quarter of `k`, at most 1,000, beyond `k`.
#[must_use]
pub fn beam_width(effort: Effort, k: usize) -> usize {
    let least = match effort {
        Effort::Fast => 24,
        Effort::Normal => 64,
        Effort::High => 256,
        Effort::Exact => return 0,
    };
    least.max(k + (k / 4).min(1_000))
}
