//! How a graph is built.

use std::sync::Arc;

use crate::{Cancel, Side, StoreError, format::graph::MAX_M};

/// How many threads insert.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Threads {
    /// All of rayon's; the links then depend on the order of arrival.
    #[default]
    All,
    /// One: the same rows give the same bytes.
    One,
}

/// Who makes the links.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Builder {
    /// hnsw_rs: the reference that tests compare with.
    HnswRs,
    /// Our own inserter over the mapped 7-bit rows: the default. On 100,000 CLIP-like vectors the whole build, refinement
    /// included, takes a fifth of hnsw_rs's time, for the same recall at equal beams to within what two builds differ by.
    #[default]
    Own,
}

/// What is done to the links after the last insertion.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Refine {
    /// Nothing.
    Off,
    /// One pass that looks for every node's neighbours again and keeps a wider choice of them.
    #[default]
    Alpha,
}

/// Parameters of the graph build.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BuildParams {
    /// Who makes the links.
    pub builder: Builder,
    /// What the levels of [`Builder::Own`] are drawn from; hnsw_rs has a seed of its own.
    pub seed: u64,
    /// Links per node on upper levels; level 0 has twice as many. 16: with 32 links a node's list is two cache lines, and on
    /// CLIP-like data more links cost more per hop than they save in hops.
    pub m: usize,
    /// Beam width while inserting. 100: recall at equal search effort changes little above it while build time grows
    /// linearly.
    pub ef_construction: usize,
    /// Threads that insert.
    pub threads: Threads,
    /// The pass after the last insertion. `Alpha`: on CLIP-like data it takes a fraction of the time of the insertions and
    /// lets every search find more with the same beam.
    pub refine: Refine,
}

impl Default for BuildParams {
    fn default() -> Self {
        Self { builder: Builder::default(), seed: 0, m: 16, ef_construction: 100, threads: Threads::All, refine: Refine::Alpha }
    }
}

impl BuildParams {
    /// # Errors
    /// [`StoreError::Parameter`].
    pub(crate) fn check(&self) -> Result<(), StoreError> {
        let between = |name, value: usize, min: u64, max: u64| {
            let value = value as u64;
            if (min..=max).contains(&value) { Ok(()) } else { Err(StoreError::Parameter { name, value, min, max }) }
        };
        between("m", self.m, 4, MAX_M as u64)?;
        between("ef_construction", self.ef_construction, 8, 10_000)
    }
}

/// How far a graph build is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BuildProgress {
    /// Whose graph.
    pub side: Side,
    /// Steps done: each vector is inserted, then refined ([`Refine`]).
    pub done: u64,
    /// Steps in all.
    pub total: u64,
}

/// Parameters plus how to report and how to stop.
#[derive(Clone)]
pub(crate) struct Plan {
    pub(crate) params: BuildParams,
    pub(crate) cancel: Cancel,
    pub(crate) report: Option<Arc<dyn Fn(BuildProgress) + Send + Sync>>,
}
