//! The ARF experiment in miniature: does a finetune with anchors keep what the model knew, and is it the retrieval that does it?
//!
//! ```text
//!   data ──split──► sets ──┬─ features ─► base (pretrain) ─► preconditions
//!                          │                │
//!                          │                ├─ pool ─► manifests (ITAR) ─┐
//!                          └─ captions ─────┴────────────────────────────┴─► arms ─► hits per image ─► claims ─► page
//! ```
//!
//! | file | stage |
//! |---|---|
//! | `packages` | the data out of the packages that hold them |
//! | `bench` | rows to sets, by the committed split |
//! | `duplicates` | no test picture or its near-duplicate in the pool |
//! | `base` | towers kept as they are, heads pretrained on the pool |
//! | `manifests` | pools and anchors |
//! | `arms` | what is compared, and each arm's run |
//! | `measure` | weights to hits per image |
//! | `tune` | rates by ID validation, before any test set is opened |
//! | `claims` | hits to claims, with intervals |
//! | `page` | Markdown and HTML |
//! | `models` | the first seed's base and ARF as whole model folders, its anchors as a page |
//!
//! Every stage writes a file when it is done and is passed over where that file is there.

mod arms;
mod base;
mod bench;
mod claims;
mod duplicates;
mod manifests;
mod measure;
mod models;
pub(crate) mod packages;
mod page;
mod tune;

use std::{
    fs,
    path::{Path, PathBuf},
};

use anchorite::{
    index::Cancel,
    train::{frozen::Frozen, runner::Machine},
};
use anyhow::{Context, Result, bail};
use serde::{Serialize, de::DeserializeOwned};

pub(crate) use arms::Arm;
pub(crate) use bench::Style;

use crate::progress::say;

/// What is run.
#[derive(Clone, Debug)]
pub(crate) struct Setting {
    /// Folder with `pool.parquet` and `bench.parquet`.
    pub(crate) data: PathBuf,
    /// Folder for everything that comes out.
    pub(crate) out: PathBuf,
    /// The model whose towers are taken.
    pub(crate) model: PathBuf,
    /// Paired seeds: as many, from [`Self::first_seed`] on.
    pub(crate) seeds: u64,
    /// The first of them; rates are tuned on its base.
    pub(crate) first_seed: u64,
    /// What is compared, besides the base.
    pub(crate) arms: Vec<Arm>,
    /// Which drawings the finetune sees.
    pub(crate) style: Style,
    /// Steps, rows and resamples.
    pub(crate) size: Size,
    /// Threads that compute.
    pub(crate) threads: usize,
    /// One learning rate for every arm; none to choose them by validation.
    pub(crate) rate: Option<f64>,
}

impl Setting {
    /// The seeds that are compared.
    pub(crate) fn every_seed(&self) -> std::ops::Range<u64> {
        self.first_seed..self.first_seed + self.seeds
    }
}

/// How much of it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Size {
    /// Steps of the base. Default 150 at a batch of 512, three passes over the pool, by what the base knows of the finetune set before it is
    /// trained on (734 pictures): 29.4 % after 150 steps, 28.2 % after 300, less after 900, when the pool is learned by heart.
    pub(crate) base_steps: u64,
    /// Pairs of a step of the base.
    pub(crate) base_batch: usize,
    /// Steps of a finetune. Default 1,000 at a batch of 128: a hundred passes and more over the finetune set, so that what can be forgotten is.
    pub(crate) steps: u64,
    /// Pairs of a finetune step.
    pub(crate) batch: usize,
    /// Anchors that a finetune picture asks for. Default 8: their union is then several times the finetune set.
    pub(crate) anchors: usize,
    /// Pool rows; 0 for all.
    pub(crate) pool_rows: usize,
    /// Rows of each set; 0 for all.
    pub(crate) set_rows: usize,
    /// Bootstrap draws.
    pub(crate) resamples: usize,
}

impl Size {
    /// Everything: a seed takes some five minutes of two cores.
    pub(crate) const FULL: Self = Self {
        base_steps: 150,
        base_batch: 512,
        steps: 1_000,
        batch: 128,
        anchors: 8,
        pool_rows: 0,
        set_rows: 0,
        resamples: 2_000,
    };
    /// Enough to see every stage run, not to see an effect.
    pub(crate) const QUICK: Self =
        Self { base_steps: 40, base_batch: 64, steps: 12, batch: 32, anchors: 4, pool_rows: 400, set_rows: 60, resamples: 200 };
}

/// The experiment at work.
pub(crate) struct Lab<'a> {
    pub(crate) setting: &'a Setting,
    pub(crate) frozen: Frozen,
    pub(crate) sets: bench::Sets,
    pub(crate) machine: Machine<'a>,
    pub(crate) cancel: Cancel,
}

/// The arms' weights that are trained: everything of both heads whose name begins so, behind the fixed projection of the pictures.
pub(crate) fn is_trained(name: &str) -> bool {
    name.starts_with("head.") && !name.starts_with("head.reduce.")
}

/// Runs every stage that is not done; the page's place, and none when interrupted.
pub(crate) fn run(setting: &Setting, machine: Machine<'_>, cancel: &Cancel) -> Result<Option<PathBuf>> {
    fs::create_dir_all(&setting.out).with_context(|| format!("create {}", setting.out.display()))?;
    remember(setting)?;
    let sets = bench::prepare(setting)?;
    let kept = setting.out.join("features");
    let frozen = Frozen::open(&setting.model, &is_trained, Some(&kept), machine, setting.threads)?;
    say(&format!("{} numbers are trained: both heads; the towers stay as packaged", frozen.trained()));
    let lab = Lab { setting, frozen, sets, machine, cancel: cancel.clone() };
    base::fill_features(&lab)?;
    duplicates::check(&lab)?;
    say(&claims::base_alone(&lab)?);
    let rates = tune::rates(&lab)?;
    for seed in setting.every_seed() {
        base::pretrained(&lab, seed)?;
    }
    for seed in setting.every_seed() {
        for arm in &setting.arms {
            if cancel.is_cancelled() {
                return Ok(None);
            }
            arms::result(&lab, *arm, seed, rates.of(*arm))?;
        }
    }
    let found = claims::all(&lab)?;
    let path = page::write(&lab, &found, &rates)?;
    models::write(&lab, &rates)?;
    Ok(Some(path))
}

/// Refuses a folder of another experiment, which would mix two.
fn remember(setting: &Setting) -> Result<()> {
    let mut about = serde_json::json!({ "model": setting.model, "data": setting.data, "style": setting.style, "size": setting.size, "first_seed": setting.first_seed });
    if let Some(rate) = setting.rate {
        about["rate"] = rate.into();
    }
    let path = setting.out.join("experiment.json");
    match fs::read_to_string(&path) {
        Ok(text) if serde_json::from_str::<serde_json::Value>(&text)? == about => Ok(()),
        Ok(_) => {
            bail!("{} holds another experiment (experiment.json differs); name another folder with --out", setting.out.display())
        }
        Err(_) => write_json(&path, &about),
    }
}

/// The file's content; made and written when it is not there.
pub(crate) fn stage<T: Serialize + DeserializeOwned>(path: &Path, make: impl FnOnce() -> Result<T>) -> Result<T> {
    if let Ok(text) = fs::read_to_string(path) {
        return serde_json::from_str(&text).with_context(|| format!("{}: damaged; delete it to make it again", path.display()));
    }
    let made = make()?;
    write_json(path, &made)?;
    Ok(made)
}

/// Writes whole or not at all.
pub(crate) fn write_json(path: &Path, value: &impl Serialize) -> Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))?;
    }
    let unfinished = path.with_extension("unfinished");
    fs::write(&unfinished, serde_json::to_string(value)? + "\n").with_context(|| format!("write {}", unfinished.display()))?;
    fs::rename(&unfinished, path).with_context(|| format!("write {}", path.display()))
}
