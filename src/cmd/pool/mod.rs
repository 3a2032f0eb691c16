//! `anchorite pool ...`: what a pool holds, whether every byte of it is as written, and what is done to a pool as a whole.
//!
//! | file | commands |
//! | --- | --- |
//! | `look` | `info`, `verify`, `warm` |
//! | `change` | `compact`, `delete`, `merge` |
//! | `copies` | `snapshot`, `restore` |

mod change;
mod copies;
mod look;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use anchorite::index::{
    BuildParams, Builder, Cancel, PairStore, StoreError,
    pool::{PoolWriter, ProgressReport, WriterOptions},
};
use anyhow::{Context, Result};
use clap::{Args, Subcommand, builder::FalseyValueParser};

use crate::{exit::Exit, interrupt, open, progress::Shown};

/// What to do with the pool.
#[derive(Subcommand, Debug)]
pub(crate) enum Command {
    /// Rows, segments, sizes, graph parameters, memory. Reads headers only.
    Info(Which),
    /// Reads every byte and compares it with its checksum.
    Verify(look::Verify),
    /// Reads the pool into memory ahead of its questions.
    Warm(look::Warm),
    /// Joins segments into few large ones and drops dead rows.
    Compact(change::Compact),
    /// Deletes pairs by key, source or filter; `compact` gives their room back.
    Delete(change::Delete),
    /// Puts the pairs of other pools of the same encoder into this one.
    Merge(change::Merge),
    /// Copies the pool, checked, while others read and write it.
    Snapshot(copies::Snapshot),
    /// Makes a pool of a snapshot, checked.
    Restore(copies::Restore),
}

/// Which pool.
#[derive(Args, Debug)]
pub(crate) struct Which {
    /// The pool's folder.
    dir: PathBuf,
    #[command(flatten)]
    form: Form,
}

/// How the outcome is told.
#[derive(Args, Debug)]
struct Form {
    /// Print JSON.
    #[arg(long, env = "ANCHORITE_JSON", value_parser = FalseyValueParser::new())]
    json: bool,
}

/// Who builds the graphs of rewritten segments.
#[derive(Args, Debug)]
struct Graphs {
    /// What builds a graph: hnsw-rs, or own, which takes a third of the time for nearly the same recall.
    #[arg(long, env = "ANCHORITE_BUILDER", value_enum, default_value_t)]
    builder: super::ingest::GraphBuilder,
}

pub(crate) fn run(command: &Command) -> Result<Exit> {
    match command {
        Command::Info(which) => look::info(which),
        Command::Verify(args) => look::verify(args),
        Command::Warm(args) => look::warm(args),
        Command::Compact(args) => change::compact(args),
        Command::Delete(args) => change::delete(args),
        Command::Merge(args) => change::merge(args),
        Command::Snapshot(args) => copies::snapshot(args),
        Command::Restore(args) => copies::restore(args),
    }
}

/// A writer's options that show how far graphs are.
fn writer_options(graphs: &Graphs) -> WriterOptions {
    let shown = Arc::new(Shown::new("index"));
    let on_build: ProgressReport = Arc::new(move |at| shown.at(at.done, at.total, &format!("{} graph", at.side)));
    let build = BuildParams { builder: Builder::from(graphs.builder), ..BuildParams::default() };
    WriterOptions { build, on_build: Some(on_build), ..WriterOptions::default() }
}

/// Opens a pool that is there for writing.
fn writer(dir: &Path, graphs: &Graphs) -> Result<PoolWriter> {
    let spec = open::pool(dir)?.spec().clone();
    PoolWriter::open(dir, &spec, &writer_options(graphs)).with_context(|| format!("open the pool {} for writing", dir.display()))
}

/// Runs long work that Ctrl-C ends; what ends it so is no failure.
fn interruptible(work: impl FnOnce(&Cancel) -> Result<()>) -> Result<Exit> {
    let cancel = interrupt::on_signal()?;
    match work(&cancel) {
        Err(error) if matches!(error.downcast_ref(), Some(StoreError::Cancelled)) => Ok(Exit::Interrupted),
        done => done.map(|()| Exit::Done),
    }
}
