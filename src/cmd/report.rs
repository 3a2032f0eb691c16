//! `anchorite report`: runs as one page.

use std::{fs, path::PathBuf};

use anchorite::train::report::{ReportLimits, RunFolder, report};
use anyhow::{Context, Result};

use super::gallery::GalleryArgs;
use crate::{exit::Exit, output::bytes, progress::say};

/// Which runs.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// Folders that `eval`, `wise-ft` or a training run wrote.
    #[arg(required = true, value_name = "RUN")]
    runs: Vec<PathBuf>,
    /// The page.
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// Its title.
    #[arg(long, default_value = "anchorite: results", value_name = "TEXT")]
    title: String,
    /// The model that forgetting is counted from, by its name in the evaluations. Default: each one's first.
    #[arg(long, value_name = "NAME")]
    base: Option<String>,
    #[command(flatten)]
    gallery: GalleryArgs,
}

pub(crate) fn run(args: &Args) -> Result<Exit> {
    let limits = ReportLimits::default();
    let runs = args.runs.iter().map(|path| Ok(RunFolder::read(path, &limits)?)).collect::<Result<Vec<_>>>()?;
    let anchors = args.gallery.views()?;
    let page = report(&args.title, &runs, args.base.as_deref(), &anchors, &limits);
    fs::write(&args.output, &page).with_context(|| format!("write {}", args.output.display()))?;
    say(&format!("written to {} ({})", args.output.display(), bytes(page.len() as u64)));
    Ok(Exit::Done)
}
