//! What a run would do, without doing it: sources, columns, row counts, and how the first rows fare.

use std::{collections::BTreeMap, num::NonZeroUsize, path::PathBuf, sync::Arc, thread, time::Instant};

use anchorite_encoder::Encode;
use anchorite_index::{Cancel, Pair, Value};
use serde::{Deserialize, Serialize};

use crate::{
    ColumnsUsed, IngestError, IngestJob, IngestOptions, Limits, Reach, Reject, Row, RowResult, SourceError, Vectors,
    pipeline::derived_key,
    prepare::{Chunk, Decision, Expected, Slot, Workshop, missing_part},
    source::{self, Rows, Settings},
};

/// A column of a source.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedColumn {
    /// Its name.
    pub name: String,
    /// Its Arrow type.
    pub data_type: String,
}

/// A source as it would be read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedSource {
    /// Its name.
    pub name: String,
    /// Rows by its headers, or estimated.
    pub rows: u64,
    /// Whether `rows` is estimated by the size of the file and its first rows: a tar or a table does not say.
    pub estimated: bool,
    /// Every column.
    pub schema: Vec<PlannedColumn>,
    /// Which would serve.
    pub columns: ColumnsUsed,
}

/// How a row fared.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckedRow {
    /// Source.
    pub file: String,
    /// Row within it.
    pub row: u64,
    /// Why it would be refused; none when picture and caption could be prepared.
    pub problem: Option<String>,
}

/// What a run would do.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// The sources in the order in which they would be read.
    pub sources: Vec<PlannedSource>,
    /// Rows of all of them.
    pub rows: u64,
    /// Whether that is estimated in part.
    pub estimated: bool,
    /// Values of a ready-made vector, when the sources have such.
    pub dim: Option<usize>,
    /// The first rows of the first source.
    pub checked: Vec<CheckedRow>,
    /// How long and how big; none for ready-made vectors, which cost little more than reading them, and where no rows were
    /// asked to be checked.
    pub estimate: Option<Estimate>,
}

/// What the whole would cost, by its first rows, encoded with all workers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Estimate {
    /// Rows that were encoded for it. By few rows it is rough.
    pub sampled_rows: u64,
    /// Of these, accepted.
    pub accepted: u64,
    /// Rows that go through decoding and encoding a second. Reading, writing and the index build are not in it.
    pub rows_per_second: f64,
    /// `rows` at this rate.
    pub seconds: f64,
    /// Bytes of the pool: pictures, captions, metadata and vectors as they would be stored, without its neighbour graphs.
    pub pool_bytes: u64,
}

/// Looks at every source's headers, prepares the first `check_rows` rows, and encodes some for an estimate.
///
/// # Errors
/// As [`crate::ingest`] would fail on sources: missing, damaged, without usable columns, or empty.
pub fn plan(job: IngestJob<'_>, check_rows: usize) -> Result<Plan, IngestError> {
    let options = job.options;
    let settings = Arc::new(Settings {
        columns: options.columns.clone(),
        mode: job.vectors.mode(),
        limits: options.limits.clone(),
        reach: options.reach.clone(),
    });
    let mut plan = Plan::default();
    let mut sample = Sample::default();
    let found =
        source::find(job.sources, options.source_root.as_deref(), &options.limits, &options.reach)?.with_distinct_names()?;
    // By ending: a packed tar has more rows in a byte than a plain one, and a table more than either.
    let mut rates = BTreeMap::new();
    for shard in found.shards {
        let mut rows = shard.open(&settings)?;
        plan.dim = plan.dim.or(rows.dim());
        let known = rows.rows();
        let mut seen = 0;
        if plan.checked.len() < check_rows || (known.is_none() && !rates.contains_key(ending(&shard.name))) {
            seen = plan.look_at(&mut *rows, check_rows, job, &mut sample)?;
        }
        if let Some(rate) = rows_per_byte(&*rows, seen) {
            rates.entry(ending(&shard.name).to_owned()).or_insert(rate);
        }
        let rate = rates.get(ending(&shard.name)).copied().unwrap_or(0.0);
        let counted = known.or(rows.rows());
        let guessed = || (shard.file_bytes().unwrap_or(0) as f64 * rate).round() as u64;
        let count = counted.unwrap_or_else(guessed);
        plan.rows += count;
        plan.estimated |= counted.is_none();
        plan.sources.push(PlannedSource {
            name: shard.name.clone(),
            rows: count,
            estimated: counted.is_none(),
            schema: schema(&*rows),
            columns: rows.columns(),
        });
    }
    if plan.rows == 0 {
        let sources = plan.sources.iter().map(|s| s.name.as_str()).collect::<Vec<_>>().join(", ");
        return Err(SourceError::Empty { sources }.into());
    }
    plan.estimate = sample.estimate(job, plan.rows)?;
    Ok(plan)
}

/// How many files the sources stand for. Looks at names only.
///
/// # Errors
/// As [`crate::ingest`] would fail before it reads: missing, refused, without anything to ingest, or two of one name.
pub fn count_files(sources: &[PathBuf], options: &IngestOptions) -> Result<usize, SourceError> {
    let found = source::find(sources, options.source_root.as_deref(), &options.limits, &options.reach)?;
    Ok(found.with_distinct_names()?.shards.len())
}

/// The names of the files that the sources stand for, as rows of the pool and rejects have them. Looks at names only.
///
/// # Errors
/// As [`count_files`].
pub fn file_names(sources: &[PathBuf], options: &IngestOptions) -> Result<Vec<String>, SourceError> {
    let found = source::find(sources, options.source_root.as_deref(), &options.limits, &options.reach)?;
    Ok(found.with_distinct_names()?.shards.into_iter().map(|shard| shard.name).collect())
}

/// Whether the sources are clip-retrieval folders, which hold ready-made vectors and no pictures.
///
/// # Errors
/// A source that is not there.
pub fn holds_only_vectors(sources: &[PathBuf]) -> Result<bool, SourceError> {
    Ok(source::find(sources, None, &Limits::default(), &Reach::default())?.shards.iter().all(source::Shard::has_only_vectors))
}

impl Plan {
    /// Rows that were looked at.
    fn look_at(
        &mut self,
        rows: &mut dyn Rows,
        check_rows: usize,
        job: IngestJob<'_>,
        sample: &mut Sample,
    ) -> Result<u64, SourceError> {
        let expected = Expected::of(&rows.columns(), job.vectors);
        let Some(first) = rows.next_rows()? else { return Ok(0) };
        let room = check_rows.saturating_sub(self.checked.len());
        for row in first.iter().take(room) {
            self.dim = self.dim.or_else(|| row.as_ref().ok().and_then(vector_dim));
            self.checked.push(check(row, job, expected));
        }
        let mut seen = first.len() as u64;
        if check_rows > 0 && sample.rows.is_empty() && matches!(job.vectors, Vectors::Encode(_)) {
            sample.expected = expected;
            sample.rows = first;
            while sample.rows.len() < SAMPLE_ROWS
                && let Ok(Some(more)) = rows.next_rows()
            {
                seen += more.len() as u64;
                sample.rows.extend(more);
            }
            sample.rows.truncate(SAMPLE_ROWS);
        }
        Ok(seen)
    }
}

/// Rows encoded for an estimate: four batches, so that as many workers have one each.
const SAMPLE_ROWS: usize = 64;
/// Bytes of one value of a stored vector: f16 and int8.
const VALUE_BYTES: u64 = 3;

/// The first rows, to be encoded.
#[derive(Default)]
struct Sample {
    rows: Vec<RowResult>,
    expected: Expected,
}

impl Sample {
    fn estimate(self, job: IngestJob<'_>, rows: u64) -> Result<Option<Estimate>, IngestError> {
        let sampled = self.rows.len();
        if sampled == 0 {
            return Ok(None);
        }
        let (options, stop) = (job.options, Cancel::default());
        let workers = options.workers.or_else(|| thread::available_parallelism().ok()).map_or(1, NonZeroUsize::get);
        let workshop = Workshop {
            vectors: job.vectors,
            missing: options.missing,
            filters: &options.filters,
            store_pictures: options.store_pictures,
            batch: options.batch.get(),
            cancel: &stop,
            stop: &stop,
        };
        let chunks = self.chunks(workers);
        // The first batch of a model is slower than those after it.
        workshop.work(chunk(self.rows.iter().take(1).cloned(), self.expected))?;
        let start = Instant::now();
        let done = thread::scope(|scope| {
            let working: Vec<_> = chunks.into_iter().map(|chunk| scope.spawn(|| workshop.work(chunk))).collect();
            let panicked = |panic: Box<dyn std::any::Any + Send>| IngestError::Worker { reason: crate::panic_message(&*panic) };
            working.into_iter().map(|worker| Ok(worker.join().map_err(panicked)??)).collect::<Result<Vec<_>, IngestError>>()
        })?;
        let took = start.elapsed().as_secs_f64().max(1e-9);
        let (mut accepted, mut bytes) = (0, 0);
        for decision in done.into_iter().flat_map(|chunk| chunk.decisions) {
            if let Decision::Accepted(one) = decision {
                accepted += 1;
                bytes += stored_bytes(&one.pair);
            }
        }
        let rows_per_second = sampled as f64 / took;
        Ok(Some(Estimate {
            sampled_rows: sampled as u64,
            accepted,
            rows_per_second,
            seconds: rows as f64 / rows_per_second,
            pool_bytes: (bytes as f64 * rows as f64 / sampled as f64) as u64,
        }))
    }

    /// One part of the rows for each worker.
    fn chunks(&self, workers: usize) -> Vec<Chunk> {
        let share = self.rows.len().div_ceil(workers.max(1)).max(1);
        self.rows.chunks(share).map(|part| chunk(part.iter().cloned(), self.expected)).collect()
    }
}

fn chunk(rows: impl Iterator<Item = RowResult>, expected: Expected) -> Chunk {
    let slot = |row: RowResult| match row {
        Ok(row) => Slot::Todo { key: derived_key(&row.source), row: Box::new(row), replaces: false },
        Err(reject) => Slot::Decided(Decision::Rejected(reject)),
    };
    Chunk { sequence: 0, shard: 0, slots: rows.map(slot).collect(), expected }
}

fn stored_bytes(pair: &Pair) -> u64 {
    let values = [&pair.image, &pair.text].into_iter().flatten().map(|vector| vector.len() as u64 * VALUE_BYTES).sum::<u64>();
    let text = |value: &Value| if let Value::Text(text) = value { text.len() } else { 8 };
    let fields: usize = pair.fields.iter().map(|(name, value)| name.len() + text(value)).sum();
    let parts = pair.picture.as_ref().map_or(0, Vec::len) + pair.caption.as_ref().map_or(0, String::len) + fields;
    values + parts as u64
}

fn ending(name: &str) -> &str {
    name.rsplit('.').next().unwrap_or_default()
}

fn rows_per_byte(rows: &dyn Rows, seen: u64) -> Option<f64> {
    let (read, _) = rows.position().filter(|(read, _)| *read > 0 && seen > 0)?;
    Some(seen as f64 / read as f64)
}

fn schema(rows: &dyn Rows) -> Vec<PlannedColumn> {
    let fields = rows.schema().map(|schema| schema.fields().iter()).into_iter().flatten();
    fields.map(|f| PlannedColumn { name: f.name().clone(), data_type: f.data_type().to_string() }).collect()
}

fn vector_dim(row: &Row) -> Option<usize> {
    row.image_vector.as_ref().or(row.text_vector.as_ref()).map(Vec::len)
}

fn check(row: &RowResult, job: IngestJob<'_>, expected: Expected) -> CheckedRow {
    let refused = |reject: &Reject| format!("{}: {}", reject.code, reject.message);
    let (source, problem) = match row {
        Err(reject) => (&reject.source, Some(refused(reject))),
        Ok(row) => {
            let missing = missing_part(row, job.vectors, job.options.missing, expected);
            let missing = missing.or_else(|| job.options.filters.row(row));
            let problem = match (missing, job.vectors) {
                (Some(reject), _) => Some(refused(&reject)),
                (None, Vectors::Encode(encoder)) => prepare(row, encoder).err(),
                (None, Vectors::Ready { .. }) => None,
            };
            (&row.source, problem)
        }
    };
    CheckedRow { file: source.file.clone(), row: source.row, problem }
}

fn prepare(row: &Row, encoder: &dyn Encode) -> Result<(), String> {
    if let Some(picture) = &row.picture {
        encoder.prepare_image(picture).map_err(|e| format!("{}: {e}", e.code()))?;
    }
    if let Some(caption) = &row.caption {
        encoder.prepare_text(caption).map_err(|e| format!("{}: {e}", e.code()))?;
    }
    Ok(())
}
