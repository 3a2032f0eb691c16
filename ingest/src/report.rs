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
    /// In the pool: append and commit.
    pub writing: f64,
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

impl StageSeconds {
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
    /// Pictures below a folder with a table or parquet file. They are read as that names them; what it does not name is no row.
    pub owned_pictures: u64,
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
    /// Time the rest takes at that rate, where the number of rows is known.
    pub remaining: Option<Duration>,
    /// The stage that everything waits for.
    pub bottleneck: Option<Stage>,
}

/// Is told how far a run is, on the thread that called [`crate::ingest`], after every chunk of rows.
pub trait Progress {
    /// Takes note.
    fn update(&mut self, update: &ProgressUpdate);
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
