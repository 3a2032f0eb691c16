//! A pool that is being filled, and the one line that says how far it is: rows, and the graphs that commits build behind them.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use anchorite::{
    index::{
        BuildParams, BuildProgress, Builder, Cancel, Precision, Side, Spec,
        pool::{PoolWriter, ProgressReport, WriterOptions},
    },
    ingest::{
        ColumnsUsed, IngestFailure, IngestJob, IngestOptions, IngestReport, Outcome, Progress, ProgressUpdate, SourceUsed,
        Vectors, ingest,
    },
};
use anyhow::{Context, Result};

use super::show::{columns, duration};
use crate::{
    interrupt,
    progress::{Shown, say},
};

/// The pool that is filled.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Target<'a> {
    pub(crate) dir: &'a Path,
    pub(crate) spec: &'a Spec,
    pub(crate) builder: Builder,
    /// Whether commits join small segments.
    pub(crate) merge: bool,
    /// What is kept of every vector; `None` for what the pool keeps.
    pub(crate) precision: Option<Precision>,
}

/// A pool that is open for filling, with its progress on the terminal.
pub(crate) struct Filling<'a> {
    writer: PoolWriter,
    vectors: Vectors<'a>,
    options: &'a IngestOptions,
    board: Arc<Board>,
    cancel: Cancel,
}

impl<'a> Filling<'a> {
    /// Opens the pool; from now on Ctrl-C is a wish to end well. Call once.
    pub(crate) fn open(target: &Target<'_>, vectors: Vectors<'a>, options: &'a IngestOptions) -> Result<Self> {
        let Target { dir, spec, builder, merge, precision } = *target;
        let cancel = interrupt::on_signal()?;
        let board = Arc::new(Board::default());
        let shown = Arc::clone(&board);
        let on_build: ProgressReport = Arc::new(move |at| shown.building(at));
        let build = BuildParams { builder, ..BuildParams::default() };
        let model = match vectors {
            Vectors::Encode(encoder) => encoder.name().to_owned(),
            Vectors::Ready { .. } => String::new(),
        };
        let writer_options = WriterOptions { build, model, precision, on_build: Some(on_build), ..WriterOptions::default() };
        let writer_options = if merge { writer_options } else { WriterOptions { merge: None, ..writer_options } };
        let writer = PoolWriter::open(dir, spec, &writer_options).with_context(|| format!("open the pool {}", dir.display()))?;
        Ok(Self { writer, vectors, options, board, cancel })
    }

    /// Raised by Ctrl-C.
    pub(crate) fn cancel(&self) -> &Cancel {
        &self.cancel
    }

    /// Ingests `sources`, showing progress.
    pub(crate) fn ingest(&mut self, sources: &[PathBuf]) -> Result<IngestReport, IngestFailure> {
        let job = IngestJob { sources, vectors: self.vectors, options: self.options };
        let result = ingest(job, &mut self.writer, &mut &*self.board, &self.cancel);
        self.board.shown.finish();
        if matches!(&result, Ok(report) if report.outcome == Outcome::Interrupted) {
            say("interrupted: what was accepted is in the pool; the same command again does the rest");
        }
        result
    }
}

/// Ingests `sources` into the pool, showing progress.
pub(crate) fn fill(
    sources: &[PathBuf],
    target: &Target<'_>,
    vectors: Vectors<'_>,
    options: &IngestOptions,
) -> Result<IngestReport> {
    Filling::open(target, vectors, options)?.ingest(sources).map_err(|failure| {
        if let Some(report) = &failure.report {
            say(&format!("kept before the failure: {} pairs, {} rejected", report.accepted, report.rejected));
        }
        anyhow::Error::new(failure)
    })
}

/// What is shown while a pool is filled: the same line for rows and for the index, so that its count is of the whole.
struct Board {
    shown: Shown,
    at: Mutex<At>,
}

/// What was last told.
#[derive(Default)]
struct At {
    rows: ProgressUpdate,
    columns: Option<ColumnsUsed>,
    /// The graph that is being built, and since when.
    graph: Option<(Side, Instant)>,
}

impl Default for Board {
    fn default() -> Self {
        Self { shown: Shown::saying_what_is_left("ingest"), at: Mutex::default() }
    }
}

impl Board {
    fn at(&self) -> std::sync::MutexGuard<'_, At> {
        self.at.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn building(&self, graph: BuildProgress) {
        let mut at = self.at();
        let since = match at.graph {
            // The next graph of the same side begins anew.
            Some((side, since)) if side == graph.side && graph.done > 0 => since,
            _ => Instant::now(),
        };
        if at.graph.is_none() {
            self.shown.another_stage();
        }
        at.graph = Some((graph.side, since));
        let share = graph.done as f64 / graph.total.max(1) as f64;
        let left = (share > 0.0).then(|| since.elapsed().mul_f64((1.0 - share).max(0.0) / share));
        let left = left.map_or_else(String::new, |left| format!(", {} of it left", duration(left)));
        let remark = format!("{}; building the index: {} graph {:.0} %{left}", rate(&at.rows), graph.side, share * 100.0);
        self.shown.at(at.rows.rows_done, at.rows.rows_total.unwrap_or(0), &remark);
    }
}

impl Progress for &Board {
    fn update(&mut self, update: &ProgressUpdate) {
        let mut at = self.at();
        at.rows = *update;
        if at.graph.take().is_some() {
            self.shown.another_stage();
        }
        let slowest = update.bottleneck.map_or_else(String::new, |stage| format!(", most time in {}", stage.name()));
        let remark = format!("{}{}{slowest}", rate(update), left(update));
        self.shown.at(update.rows_done, update.rows_total.unwrap_or(0), &remark);
    }

    /// Which columns serve is said once for all files that are alike.
    fn opened(&mut self, source: &SourceUsed) {
        let mut at = self.at();
        if at.columns.as_ref() != Some(&source.columns) {
            self.shown.say(&format!("{}: {}", source.name, columns(&source.columns)));
            at.columns = Some(source.columns.clone());
        }
    }
}

fn rate(at: &ProgressUpdate) -> String {
    format!("{:.1} rows/s, {} rejected", at.rows_per_second, at.rejected)
}

fn left(at: &ProgressUpdate) -> String {
    match at.remaining {
        Some(left) if at.commits_counted => format!(", {} left", duration(left)),
        Some(left) if left > Duration::ZERO => format!(", {} left and the index", duration(left)),
        Some(_) => ", the index is left".to_owned(),
        None => String::new(),
    }
}
