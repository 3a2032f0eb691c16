//! Our pool as an engine.

use std::{path::PathBuf, time::Instant};

use anchorite_index::{
    BuildParams, Cancel, Effort, Precision, Query, Side,
    pool::{Access, OpenOptions, Pool, WriterOptions},
};
use anyhow::{Context, Result};
use rayon::prelude::*;

use super::{
    data::{Data, Queries},
    engine::{Asked, BuildCost, Engine, Spent, built},
};
use crate::demo::fill;

/// The pool whose pairs have texts too: its picture graph is made with them in mind. Building it makes two graphs.
pub(super) const PAIRS: &str = "anchorite (pairs)";

/// The pool of which searches read a copy in huge pages.
pub(super) const RESIDENT: &str = "anchorite (resident)";

/// The pool that keeps no f16 rows: what it saves on disk.
pub(super) const SEVEN_BIT: &str = "anchorite (7-bit)";

/// What the pairs of a pool have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sides {
    Images,
    Both,
}

/// A pool, asked with a raw beam width.
pub(super) struct Ours {
    pub(super) dir: PathBuf,
    /// How the pool is built; `None` where an engine before this one built it.
    pub(super) build: Option<BuildParams>,
    pub(super) sides: Sides,
    pub(super) access: Access,
    pub(super) precision: Precision,
    pub(super) pool: Option<Pool>,
}

impl Engine for Ours {
    fn build(&mut self, data: &Data) -> Result<BuildCost> {
        let cost = match self.build {
            Some(build) => self.fill(data, build)?,
            None => BuildCost::default(),
        };
        let mut open = f64::INFINITY;
        for _ in 0..3 {
            let start = Instant::now();
            self.pool = Some(Pool::open(&self.dir, &OpenOptions { access: self.access, ..OpenOptions::default() })?);
            open = open.min(start.elapsed().as_secs_f64());
        }
        let mut disk = 0;
        for file in std::fs::read_dir(&self.dir)? {
            let file = file?;
            // Keys, captions and the rest of a row are what peers do not store.
            if file.file_name().to_string_lossy().contains(".image.") {
                disk += file.metadata()?.len();
            }
        }
        Ok(BuildCost { disk: disk as f64, open, version: env!("CARGO_PKG_VERSION").to_owned(), ..cost })
    }

    fn search(&mut self, queries: &Queries, asked: Asked) -> Result<(Vec<Vec<u64>>, Spent)> {
        let pool = self.pool.as_ref().context("built first")?;
        let questions = self.questions(queries, asked.k);
        let run = questions.len().div_ceil(asked.threads);
        let threads = rayon::ThreadPoolBuilder::new().num_threads(asked.threads).build()?;
        let (answers, spent) = Spent::on(|| {
            let parts = || questions.par_chunks(run).map(|run| pool.search_ef_many(run, asked.ef, &Cancel::default()));
            Ok(threads.install(|| parts().collect::<Result<Vec<_>, _>>())?.concat())
        })?;
        Ok((answers.into_iter().map(|a| a.hits.into_iter().map(|h| h.row.0).collect()).collect(), spent))
    }

    fn latencies(&mut self, queries: &Queries, asked: Asked) -> Result<Vec<f64>> {
        let pool = self.pool.as_ref().context("built first")?;
        let one = |query: &Query| {
            let start = Instant::now();
            pool.search_ef(query, asked.ef, &Cancel::default())?;
            Ok(start.elapsed().as_secs_f64())
        };
        self.questions(queries, asked.k).iter().map(one).collect()
    }
}

impl Ours {
    fn fill(&self, data: &Data, build: BuildParams) -> Result<BuildCost> {
        if self.dir.exists() {
            std::fs::remove_dir_all(&self.dir)?;
        }
        let options = WriterOptions { build, precision: Some(self.precision), ..WriterOptions::default() };
        let texts: &[f32] = if self.sides == Sides::Both { &data.texts } else { &[] };
        Ok(built(|| fill(&self.dir, data.dim, &data.base, texts, &options))?.1)
    }

    pub(super) fn questions(&self, queries: &Queries, k: usize) -> Vec<Query> {
        let ask = |v: &[f32]| Query::new(Side::Image, v.to_vec(), k, Effort::Normal);
        queries.each().map(ask).collect()
    }
}
