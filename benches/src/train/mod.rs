//! Training: steps against PyTorch eager, memory of large batches, and whole runs of the program on the bundled pairs.
//!
//! | file | part |
//! |---|---|
//! | `steps.rs` | `small`, `b32` (time and memory of a step against PyTorch), `chunks` (a large batch in chunks) |
//! | `runs.rs` | `overfit` (64 pairs by heart), `pretrain` (from noise, and what it finds on held-out pairs), `wait` (anchors over HTTP) |
//!
//! Not here: that a run killed twenty times has the curve of one that was not, which is a test
//! (`ANCHORITE_LONG_RUN=20 cargo test --workspace --test system a_run_killed_at_any_step`).

mod runs;
mod steps;

pub(crate) use steps::child;

use std::path::Path;

use anyhow::{Result, ensure};

use crate::{
    figure::{Figure, Sheet},
    peers::Python,
};

const THREADS: usize = 2;
/// Of PyTorch's side, and of the script that makes the models.
const PACKAGES: [&str; 4] = ["torch==2.15.0", "transformers==5.23.0", "onnx==1.23.2", "numpy"];

/// What every part needs.
struct Rig<'a> {
    cache: &'a Path,
    python: Python,
    quick: bool,
}

type Part = fn(&Rig<'_>, &mut Sheet) -> Result<()>;

/// The parts, sized for at most five minutes each on a quiet machine.
const PARTS: [(&str, Part); 6] = [
    ("small", steps::small),
    ("b32", steps::b32),
    ("chunks", steps::chunks),
    ("wait", runs::wait),
    ("overfit", runs::overfit),
    ("pretrain", runs::pretrain),
];

/// All figures of this benchmark, or of one of its parts.
pub(crate) fn run(cache: &Path, quick: bool, part: Option<&str>) -> Result<Vec<Figure>> {
    let parts: Vec<_> = PARTS.iter().filter(|(name, _)| part.is_none_or(|part| part == *name)).collect();
    ensure!(!parts.is_empty(), "train has no such part; there are {}", PARTS.map(|(name, _)| name).join(", "));
    let rig = Rig { cache, python: Python::with(cache, "train", &PACKAGES)?, quick };
    let mut sheet = Sheet::default();
    parts.into_iter().try_for_each(|(_, part)| part(&rig, &mut sheet))?;
    Ok(sheet.into_figures())
}
