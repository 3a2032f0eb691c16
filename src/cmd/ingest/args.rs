//! What `ingest` is told: what may be asked of every run ([`IngestRequest`]), and what is the operator's.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use anchorite::{
    encoder::{Encode, Encoder},
    index::{Builder, Precision, Spec},
    ingest::{IngestJob, IngestOptions, IngestRequest, Part, Vectors, plan},
};
use anyhow::{Context, Result};
use clap::builder::FalseyValueParser;

use super::{VECTORS_FROM, filling::Target};
use crate::open::ModelArgs;

/// What builds a segment's graph.
#[derive(Clone, Copy, Debug, Default, clap::ValueEnum)]
pub(crate) enum GraphBuilder {
    /// The crate hnsw_rs.
    HnswRs,
    /// Our own inserter.
    #[default]
    Own,
}

impl From<GraphBuilder> for Builder {
    fn from(builder: GraphBuilder) -> Self {
        match builder {
            GraphBuilder::HnswRs => Self::HnswRs,
            GraphBuilder::Own => Self::Own,
        }
    }
}

/// What a pool keeps of every vector.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum KeptVectors {
    /// Half precision beside the 7-bit rows that are searched: scores are those of half precision.
    F16,
    /// The 7-bit rows alone: a third of the bytes of vectors, and all scores are theirs, those of exact searches too.
    #[value(name = "7-bit")]
    SevenBit,
}

impl From<KeptVectors> for Precision {
    fn from(kept: KeptVectors) -> Self {
        match kept {
            KeptVectors::F16 => Self::Half,
            KeptVectors::SevenBit => Self::SevenBit,
        }
    }
}

/// What to ingest, and where to.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    #[command(flatten)]
    pub(super) request: IngestRequest,
    /// Take the names of shards from standard input, one a line, and print a JSON line for each when its rows are safe in the pool.
    #[arg(long, env = "ANCHORITE_TASKS", value_name = "-", value_parser = ["-"], conflicts_with_all = ["sources", "dry_run", "part"])]
    pub(super) tasks: Option<String>,
    /// Ingest every n-th file only, beginning with number i (from 0): of n machines, each its part. Pools are put together afterwards.
    #[arg(long = "shard", env = "ANCHORITE_SHARD", value_name = "I/N")]
    part: Option<Part>,
    /// The pool's folder; made when missing.
    #[arg(long, env = "ANCHORITE_POOL", value_name = "DIR")]
    pub(super) pool: PathBuf,
    /// The folder that the names of sources are relative to. Default: a source is called after its folder and itself.
    #[arg(long, env = "ANCHORITE_SOURCE_ROOT", value_name = "DIR")]
    source_root: Option<PathBuf>,
    /// A name for whatever made the ready vectors, where its model is not at hand. Such a pool answers no words or pictures.
    #[arg(long, env = "ANCHORITE_VECTORS_FROM", value_name = "NAME")]
    pub(super) vectors_from: Option<String>,
    /// Rows after which what was accepted is made safe; beside that, it is every 15 minutes and at the end. Default: 100000.
    #[arg(long, env = "ANCHORITE_COMMIT_ROWS", value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    commit_rows: Option<u64>,
    /// What builds the graph: own, or hnsw-rs, which takes five times as long for the same recall.
    #[arg(long, env = "ANCHORITE_BUILDER", value_enum, default_value_t)]
    builder: GraphBuilder,
    /// What a new pool keeps of every vector; one that is there keeps to what it was made with. Default: f16.
    #[arg(long, env = "ANCHORITE_PRECISION", value_enum)]
    precision: Option<KeptVectors>,
    /// Leave segments as commits make them: faster now, slower to search until `anchorite pool compact`.
    #[arg(long, env = "ANCHORITE_NO_MERGE", value_parser = FalseyValueParser::new())]
    no_merge: bool,
    /// Where rejected rows are listed. Default: POOL.rejects.parquet, beside the pool.
    #[arg(long, env = "ANCHORITE_REJECTS", value_name = "FILE")]
    rejects: Option<PathBuf>,
    /// Where the summary of the run is put, as JSON. Default: POOL.ingest.json, beside the pool.
    #[arg(long, env = "ANCHORITE_SUMMARY", value_name = "FILE")]
    summary: Option<PathBuf>,
    /// Say what would be done, and do nothing.
    #[arg(long, env = "ANCHORITE_DRY_RUN", value_parser = FalseyValueParser::new())]
    pub(super) dry_run: bool,
    /// Print JSON.
    #[arg(long, env = "ANCHORITE_JSON", value_parser = FalseyValueParser::new())]
    pub(super) json: bool,
    #[command(flatten)]
    pub(super) model: ModelArgs,
}

impl Args {
    /// Whether the flags say that vectors are ready made.
    pub(super) fn names_vectors(&self) -> bool {
        self.vectors_from.is_some() || self.request.names_vectors()
    }

    /// Where the summary goes.
    pub(super) fn summary(&self) -> PathBuf {
        self.summary.clone().unwrap_or_else(|| summary_beside(&self.pool))
    }

    pub(super) fn options(&self) -> Result<IngestOptions> {
        let asked = self.request.options()?;
        Ok(IngestOptions {
            workers: Some(self.model.thread_count()),
            source_root: self.source_root.clone(),
            part: self.part,
            commit_rows: self.commit_rows.unwrap_or(asked.commit_rows),
            rejects: Some(self.rejects.clone().unwrap_or_else(|| rejects_beside(&self.pool))),
            // Of a list of tasks there is one summary, of all.
            summary: self.tasks.is_none().then(|| self.summary()),
            ..asked
        })
    }

    pub(super) fn target<'a>(&'a self, spec: &'a Spec) -> Target<'a> {
        Target {
            dir: &self.pool,
            spec,
            builder: self.builder.into(),
            merge: !self.no_merge,
            precision: self.precision.map(Into::into),
        }
    }

    /// What the pool is bound to: the model, or the name given for ready vectors and the dimension they have.
    pub(super) fn spec(&self, encoder: Option<&Arc<Encoder>>, sources: &[PathBuf], options: &IngestOptions) -> Result<Spec> {
        if let Some(encoder) = encoder {
            return Ok(Spec { encoder: encoder.fingerprint().to_owned(), dim: encoder.dim() });
        }
        let name = self.vectors_from.as_deref().context("name what made the vectors with --vectors-from")?;
        let found = plan(IngestJob { sources, vectors: Vectors::Ready { dim: None }, options }, 1)?;
        let dim = found.dim.context("the first source has no vector in its first rows")?;
        Ok(Spec { encoder: format!("{VECTORS_FROM}{name}"), dim })
    }
}

/// The list of rejects beside the pool `dir`.
pub(crate) fn rejects_beside(dir: &Path) -> PathBuf {
    beside(dir, ".rejects.parquet")
}

/// The summary of the last run beside the pool `dir`.
pub(crate) fn summary_beside(dir: &Path) -> PathBuf {
    beside(dir, ".ingest.json")
}

fn beside(dir: &Path, ending: &str) -> PathBuf {
    // A slash at the end of the pool's name would put the file inside it.
    let mut name = dir.components().as_path().as_os_str().to_owned();
    name.push(ending);
    PathBuf::from(name)
}
