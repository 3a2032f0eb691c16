//! An engine: builds an index of the vectors and answers queries; what that took, and rounds over all engines.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::{
    BUILD_THREADS, EFS, ENOUGH, K, REORDER, ROUNDS,
    data::{Data, Queries},
    progress,
    rates::{Point, front},
};
use crate::process;

/// What a build cost.
#[derive(Clone, Debug, Default)]
pub(super) struct BuildCost {
    pub(super) wall: f64,
    pub(super) cpu: f64,
    /// Bytes, 0 where the engine was not stored.
    pub(super) disk: f64,
    /// Seconds, 0 where the engine was not stored.
    pub(super) open: f64,
    pub(super) version: String,
}

/// Runs `work` on [`BUILD_THREADS`] threads and says what it took.
pub(super) fn built<T: Send>(work: impl FnOnce() -> Result<T> + Send) -> Result<(T, BuildCost)> {
    let threads = rayon::ThreadPoolBuilder::new().num_threads(BUILD_THREADS).build()?;
    let (start, before) = (Instant::now(), process::process_cpu());
    let out = threads.install(work)?;
    let cpu = (process::process_cpu() - before).as_secs_f64();
    Ok((out, BuildCost { wall: start.elapsed().as_secs_f64(), cpu, ..BuildCost::default() }))
}

pub(super) trait Engine {
    fn build(&mut self, data: &Data) -> Result<BuildCost>;
    /// Rows per query, and the time all of them took.
    fn search(&mut self, queries: &Queries, asked: Asked) -> Result<(Vec<Vec<u64>>, Spent)>;
    /// Seconds of each query asked alone; empty where a call costs more than a query.
    fn latencies(&mut self, _queries: &Queries, _asked: Asked) -> Result<Vec<f64>> {
        Ok(Vec::new())
    }
}

/// How to search.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Asked {
    pub(super) ef: usize,
    /// Candidates that ScaNN scores again.
    pub(super) reorder: usize,
    pub(super) k: usize,
    pub(super) threads: usize,
}

/// What a search took.
#[derive(Clone, Copy, Debug)]
pub(super) struct Spent {
    /// Processor time of all threads.
    pub(super) cpu: Duration,
    pub(super) wall: Duration,
}

impl Spent {
    /// Times `work`; with the clock of all threads, since an engine may use some that outlive it.
    pub(super) fn on<T>(work: impl FnOnce() -> Result<T>) -> Result<(T, Self)> {
        let (start, before) = (Instant::now(), process::process_cpu());
        let out = work()?;
        Ok((out, Self { cpu: process::process_cpu() - before, wall: start.elapsed() }))
    }
}

/// An engine and what it reached.
pub(super) struct Entry {
    pub(super) name: String,
    pub(super) engine: Box<dyn Engine>,
    pub(super) built: BuildCost,
    /// Second settings to try beside the beam width.
    pub(super) reorder: &'static [usize],
    /// By modality; best rate of all rounds per setting.
    pub(super) points: Vec<Vec<((usize, usize), Point)>>,
}

impl Entry {
    pub(super) fn new(name: impl Into<String>, engine: impl Engine + 'static) -> Self {
        let (name, built) = (name.into(), BuildCost::default());
        let reorder: &[usize] = if name == "scann" { &REORDER } else { &[0] };
        Self { name, engine: Box::new(engine), built, reorder, points: Vec::new() }
    }

    pub(super) fn measure(&mut self, part: usize, queries: &Queries, ef: usize) -> Result<()> {
        self.points.resize(self.points.len().max(part + 1), Vec::new());
        for &reorder in self.reorder {
            let earlier = |(at, p): &&((usize, usize), Point)| at.1 == reorder && at.0 < ef && p.recall >= ENOUGH;
            if self.points[part].iter().any(|p| earlier(&p)) {
                continue;
            }
            let (found, spent) = self.engine.search(queries, Asked { ef, reorder, k: K, threads: 1 })?;
            let rate = queries.count() as f64 / spent.cpu.as_secs_f64().max(1e-9);
            let point = Point { recall: queries.recall(&found, K), rate };
            match self.points[part].iter_mut().find(|(at, _)| *at == (ef, reorder)) {
                Some((_, best)) => best.rate = best.rate.max(point.rate),
                None => self.points[part].push(((ef, reorder), point)),
            }
        }
        Ok(())
    }

    pub(super) fn front(&self, part: usize) -> Vec<Point> {
        front(self.points[part].iter().map(|(_, point)| *point).collect())
    }
}

pub(super) fn rounds(engines: &mut [Entry], data: &Data) -> Result<()> {
    for round in 0..ROUNDS {
        for (part, queries) in data.queries.iter().enumerate() {
            for ef in EFS {
                for entry in &mut *engines {
                    entry.measure(part, queries, ef).with_context(|| format!("search {}", entry.name))?;
                }
            }
        }
        progress(&format!("round {} of {ROUNDS} done", round + 1));
    }
    for entry in engines {
        for (part, queries) in data.queries.iter().enumerate() {
            for ((ef, reorder), point) in &entry.points[part] {
                let name = &entry.name;
                let setting = format!("{name} {} ef {ef} reorder {reorder}", queries.name);
                progress(&format!("{setting}: recall {:.4}, {:.0}/CPU-s", point.recall, point.rate));
            }
        }
    }
    Ok(())
}
