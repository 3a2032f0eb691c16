//! What a run did, and how far it is.

use std::{collections::BTreeMap, time::Duration};

use serde::{Deserialize, Serialize};

use crate::ColumnsUsed;

/// How a run ended that met no error.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Outcome {
    /// Every row was read.
    #[default]
    Done,
    /// Every row was read, and more were rejected than `max_rejects` allows. What was accepted is in the pool.
    TooManyRejects,
    /// The caller raised its flag; what was complete by then is in the pool.
    Interrupted,
}

/// One source as it was read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceUsed {
    /// Its name.
    pub name: String,
    /// Rows by its own headers; of a tar or table those that were read.
    pub rows: u64,
    /// Which columns served.
    pub columns: ColumnsUsed,
    /// The commit of the Hugging Face hub's that it comes from; none for other files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<String>,
}

/// Seconds spent, stage by stage. Stages overlap; preparing and encoding add up over the workers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct StageSeconds {
    /// Reading and decompressing the sources.
    pub reading: f64,
    /// Decoding pictures, tokenizing captions.
    pub preparing: f64,
    /// In the encoder.
    pub encoding: f64,
    /// In the pool: append and commit, and the search for near duplicates.
    pub writing: f64,
    /// How long reading stood still because what comes after it had enough: back-pressure. Near zero where reading is the bottleneck.
    #[serde(default)]
    pub reading_held_up: f64,
    /// How long workers, added up, had nothing to do because no rows came.
    #[serde(default)]
    pub workers_idle: f64,
}

/// A stage of the pipeline.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Stage {
    /// Reading and decompressing the sources, on one thread.
    Reading,
    /// Decoding pictures and tokenizing captions, on every worker.
    Preparing,
    /// In the encoder, on every worker.
    Encoding,
    /// In the pool, on one thread.
    Writing,
}

impl Stage {
    /// As JSON has it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Reading => "reading",
            Self::Preparing => "preparing",
            Self::Encoding => "encoding",
            Self::Writing => "writing",
        }
    }
}

impl IngestReport {
    /// Adds what a later run did; how it ended is the later one's.
    pub fn absorb(&mut self, later: &Self) {
        self.outcome = later.outcome;
        for (sum, one) in [
            (&mut self.rows_read, later.rows_read),
            (&mut self.accepted, later.accepted),
            (&mut self.already_present, later.already_present),
            (&mut self.replaced, later.replaced),
            (&mut self.rows_passed_over, later.rows_passed_over),
            (&mut self.rejected, later.rejected),
            (&mut self.filtered, later.filtered),
            (&mut self.truncated_captions, later.truncated_captions),
            (&mut self.cut_fields, later.cut_fields),
            (&mut self.images, later.images),
            (&mut self.sidecars, later.sidecars),
            (&mut self.failed_before, later.failed_before),
            (&mut self.owned_pictures, later.owned_pictures),
        ] {
            *sum += one;
        }
        let reasons = [
            (&mut self.rejected_by_reason, &later.rejected_by_reason),
            (&mut self.filtered_by_reason, &later.filtered_by_reason),
            (&mut self.ignored_files, &later.ignored_files),
        ];
        for (sums, counts) in reasons {
            counts.iter().for_each(|(reason, count)| *sums.entry(reason.clone()).or_default() += count);
        }
        self.seconds += later.seconds;
        self.images_per_second = self.images as f64 / self.seconds.max(1e-9);
        self.stages.absorb(&later.stages);
        self.sources.extend(later.sources.iter().cloned());
        self.generation = later.generation.or(self.generation);
    }
}

impl StageSeconds {
    fn absorb(&mut self, later: &Self) {
        self.reading += later.reading;
        self.preparing += later.preparing;
        self.encoding += later.encoding;
        self.writing += later.writing;
        self.reading_held_up += later.reading_held_up;
        self.workers_idle += later.workers_idle;
    }

    /// The stage that has been busy for the longest part of the time, by its threads: the one that more speed would help. None before any
    /// has begun.
    #[must_use]
    pub fn slowest(&self, workers: usize) -> Option<Stage> {
        let shared = workers.max(1) as f64;
        let busy = [
            (Stage::Reading, self.reading),
            (Stage::Preparing, self.preparing / shared),
            (Stage::Encoding, self.encoding / shared),
            (Stage::Writing, self.writing),
        ];
        let slowest = busy.into_iter().max_by(|a, b| a.1.total_cmp(&b.1));
        slowest.filter(|(_, seconds)| *seconds > 0.0).map(|(stage, _)| stage)
    }
}

/// What a run did. `rows_read == accepted + replaced + rejected + filtered + already_present`, always. Rows that earlier runs settled and
/// that were therefore not read again ([`IngestReport::rows_passed_over`]) count as if they had been.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct IngestReport {
    /// How it ended; [`Outcome::Done`] in the report of a failure means nothing.
    pub outcome: Outcome,
    /// Rows read and decided on.
    pub rows_read: u64,
    /// Pairs that are in the pool now and were not before.
    pub accepted: u64,
    /// Rows whose key the pool had already; they were left as they are.
    pub already_present: u64,
    /// Pairs that took the place of others of the same key, whose rows had changed.
    #[serde(default)]
    pub replaced: u64,
    /// Rows that were not read, since an earlier run had settled them and their file is as it was.
    #[serde(default)]
    pub rows_passed_over: u64,
    /// Rows refused.
    pub rejected: u64,
    /// The same by reason.
    pub rejected_by_reason: BTreeMap<String, u64>,
    /// Rows that [`crate::Filters`] left out.
    pub filtered: u64,
    /// The same by reason.
    pub filtered_by_reason: BTreeMap<String, u64>,
    /// Accepted captions that were longer than the text tower reads, and were cut.
    pub truncated_captions: u64,
    /// Metadata texts of accepted rows that were cut at the limit.
    pub cut_fields: u64,
    /// Pairs accepted with a picture's vector.
    pub images: u64,
    /// `images` over `seconds`.
    pub images_per_second: f64,
    /// Wall time of the whole run.
    pub seconds: f64,
    /// Where it went.
    pub stages: StageSeconds,
    /// img2dataset's statistics and lists beside its shards, which are no sources.
    pub sidecars: u64,
    /// Rows that img2dataset says it could not download or resize, by its statistics beside tars and folders of pictures. Its lists name
    /// them; they were never rows of these files. In its parquet output they are rows, and rejects.
    #[serde(default)]
    pub failed_before: u64,
    /// Pictures below a folder with a table or parquet file. They are read as that names them; what it does not name is no row.
    pub owned_pictures: u64,
    /// Files in folders and matched by patterns that are of no kind that is read (a GIF beside JPEGs, a README), by ending.
    #[serde(default)]
    pub ignored_files: BTreeMap<String, u64>,
    /// The sources, in order, as far as they were opened.
    pub sources: Vec<SourceUsed>,
    /// The pool's generation after the last commit; none when nothing was committed.
    pub generation: Option<u64>,
}

/// How far a run is.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ProgressUpdate {
    /// Rows decided on.
    pub rows_done: u64,
    /// Rows there are, when every source's header could be read.
    pub rows_total: Option<u64>,
    /// Pairs accepted so far.
    pub accepted: u64,
    /// Rows refused so far.
    pub rejected: u64,
    /// Rows the pool had already.
    pub already_present: u64,
    /// Rows decided on per second since the start, without those that were passed over.
    pub rows_per_second: f64,
    /// Time the rest takes: rows at the rate at which they have gone through, commits (the index among them) at what those of this run have
    /// cost a row. Where files do not say how many rows they have, by the share of their bytes that has been read.
    pub remaining: Option<Duration>,
    /// Whether commits are in that. Before the first of a run nobody knows what they will cost.
    pub commits_counted: bool,
    /// The stage that everything waits for.
    pub bottleneck: Option<Stage>,
}

/// Is told how far a run is, on the thread that called [`crate::ingest`].
pub trait Progress {
    /// Takes note, after every chunk of rows.
    fn update(&mut self, update: &ProgressUpdate);

    /// A source is begun, of which these columns serve as far as is known by now.
    fn opened(&mut self, _source: &SourceUsed) {}
}

/// Takes no note.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoProgress;

impl Progress for NoProgress {
    fn update(&mut self, _update: &ProgressUpdate) {}
}

impl<F: FnMut(&ProgressUpdate)> Progress for F {
    fn update(&mut self, update: &ProgressUpdate) {
        self(update);
    }
}
