//! What is compared: each arm's run, from the seed's base to its weights, and what they do on every test picture.

use std::{fmt, time::Instant};

use anchorite::{
    index::Cancel,
    train::{
        data::{
            DataError, Reading,
            anchors::{AnchorPair, AnchorSource, Query, Wanted},
        },
        frozen::{self, Weights},
        graph::Tensor,
        runner::{Anchors, Asked, Captions, RunConfig, SameClass, Schedule, Task, anchor_source},
        select::TowerChoice,
        step::Objective,
    },
};
use anyhow::{Context, Result};
use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use super::{
    Lab,
    base::{plan, pretrained, run_defaults, templates, trained},
    bench::{CATEGORIES, Role},
    manifests::{Choice, chosen},
    measure::{self, Measured},
};
use crate::{open, progress::say};

/// A classifier's head among weights.
pub(crate) const HEAD: &str = "head";

/// What is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Arm {
    /// The base, not finetuned.
    ZeroShot,
    /// Cross-entropy from the zero-shot head.
    CrossEntropy,
    /// A linear probe first, then cross-entropy of everything.
    LpFt,
    /// Contrastive, against class prompts.
    Flyp,
    /// The same at twice the batch: the pictures and texts that an arm with anchors sees.
    FlypCompute,
    /// And a caption of each picture (TCAG).
    Captions,
    /// And retrieved pairs (ITAR).
    Retrieved,
    /// Captions and retrieved pairs: ARF.
    Arf,
    /// ARF with random pairs of the pool in place of retrieved ones.
    Random,
    /// ARF with the retrieved pairs' captions shuffled among them.
    Shuffled,
    /// ARF from a pool without the styles of any test set.
    NoTestStyles,
    /// ARF from a pool that has all test pictures in it.
    Raw,
    /// The same pool with the test sets protected.
    Protected,
}

impl Arm {
    pub(crate) const FINETUNED: [Self; 12] = [
        Self::CrossEntropy,
        Self::LpFt,
        Self::Flyp,
        Self::FlypCompute,
        Self::Captions,
        Self::Retrieved,
        Self::Arf,
        Self::Random,
        Self::Shuffled,
        Self::NoTestStyles,
        Self::Raw,
        Self::Protected,
    ];

    fn choice(self) -> Option<Choice> {
        match self {
            Self::Retrieved | Self::Arf | Self::Shuffled => Some(Choice::Nearest),
            Self::Random => Some(Choice::Random),
            Self::NoTestStyles => Some(Choice::NoTestStyles),
            Self::Raw => Some(Choice::Raw),
            Self::Protected => Some(Choice::Protected),
            _ => None,
        }
    }

    fn captioned(self) -> bool {
        self == Self::Captions || (self.choice().is_some() && self != Self::Retrieved)
    }

    pub(crate) fn classifies(self) -> bool {
        matches!(self, Self::CrossEntropy | Self::LpFt)
    }

    /// Whether its mixes with the base are measured.
    pub(crate) fn mixed(self) -> bool {
        matches!(self, Self::Flyp | Self::Retrieved | Self::Arf | Self::Random)
    }
}

impl fmt::Display for Arm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.to_possible_value().as_ref().map_or("", |value| value.get_name()))
    }
}

/// What a run has beside its file.
#[derive(Default)]
pub(crate) struct Anchored {
    pub(crate) source: Option<Box<dyn AnchorSource>>,
    /// A classifier's head to start from.
    pub(crate) head: Option<Tensor>,
}

/// What an arm did with a seed.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct ArmResult {
    pub(crate) arm: Arm,
    pub(crate) seed: u64,
    pub(crate) rate: f64,
    /// Wall time of training and of measuring.
    pub(crate) seconds: (f64, f64),
    /// SHA-256 of its anchors.
    pub(crate) anchors: Option<String>,
    /// By share of the finetuned weights.
    pub(crate) measured: Vec<Measured>,
}

/// Runs the arm and measures it, when that is not done.
pub(crate) fn result(lab: &Lab<'_>, arm: Arm, seed: u64, rate: f64) -> Result<ArmResult> {
    super::stage(&lab.setting.out.join(format!("seed-{seed}/results/{arm}.json")), || {
        let base = pretrained(lab, seed)?;
        let start = Instant::now();
        let tuned = weights(lab, arm, &Job { seed, base_seed: seed, rate, name: arm.to_string() })?;
        let middle = Instant::now();
        let evaluator = measure::evaluator(lab, |role| !matches!(role, Role::Train | Role::Validation))?;
        let tenths: Vec<f64> = if arm.mixed() { (0..=10).map(|i| f64::from(i) / 10.0).collect() } else { vec![1.0] };
        let one = |&alpha: &f64| {
            let mixed = if arm.mixed() { frozen::mix(&base, &tuned, alpha) } else { tuned.clone() };
            Ok(Measured { alpha, sets: measure::hits(lab, &evaluator, &mixed)? })
        };
        let measured = tenths.iter().map(one).collect::<Result<Vec<_>>>()?;
        let seconds = ((middle - start).as_secs_f64(), middle.elapsed().as_secs_f64());
        say(&format!("seed {seed}, {arm}: trained in {:.0} s, measured in {:.0} s", seconds.0, seconds.1));
        let anchors = arm.choice().map(|choice| chosen(lab, seed, choice)).transpose()?.map(|c| c.anchors);
        Ok(ArmResult { arm, seed, rate, seconds, anchors, measured })
    })
}

/// Which run of an arm.
pub(crate) struct Job {
    pub(crate) seed: u64,
    /// Whose base it starts from.
    pub(crate) base_seed: u64,
    pub(crate) rate: f64,
    /// Its folder's name.
    pub(crate) name: String,
}

/// The arm's weights; trained when they are not there.
pub(crate) fn weights(lab: &Lab<'_>, arm: Arm, job: &Job) -> Result<Weights> {
    let base = pretrained(lab, job.base_seed)?;
    if arm == Arm::ZeroShot {
        return Ok(base);
    }
    let folder = lab.setting.out.join(format!("seed-{}/runs/{}", job.base_seed, job.name));
    let path = folder.join("weights.safetensors");
    if path.is_file() {
        return Ok(frozen::load(&path)?);
    }
    let mut config = config(lab, arm, job);
    config.output.clone_from(&folder);
    let tuned = match arm.classifies() {
        true => classifier(lab, arm, &config, &base)?,
        false => {
            let source = arm.choice().map(|choice| source(lab, &mut config, arm, job, choice)).transpose()?;
            trained(lab, &config, &base, Some(Anchored { source, head: None }))?
        }
    };
    frozen::save(&tuned, &path)?;
    Ok(tuned)
}

fn config(lab: &Lab<'_>, arm: Arm, job: &Job) -> RunConfig {
    let size = &lab.setting.size;
    let mut step = plan(lab);
    if arm.classifies() {
        step.objective = Objective::Classifier;
    }
    RunConfig {
        model: lab.setting.model.display().to_string(),
        seed: job.seed,
        steps: Some(size.steps),
        batch: if arm == Arm::FlypCompute { 2 * size.batch } else { size.batch },
        task: Task {
            sources: vec![lab.sets.path("train")],
            label: "category".to_owned(),
            class_names: lab.sets.classes[CATEGORIES].clone(),
            templates: templates(),
            same_class: SameClass::Grouped,
            ..Task::default()
        },
        captions: arm.captioned().then(|| Captions { column: Some("rich".to_owned()), ..Captions::default() }),
        step,
        schedule: Schedule { rate: job.rate, ..Schedule::default() },
        ..run_defaults()
    }
}

fn source(lab: &Lab<'_>, config: &mut RunConfig, arm: Arm, job: &Job, choice: Choice) -> Result<Box<dyn AnchorSource>> {
    let chosen = chosen(lab, job.base_seed, choice)?;
    let anchors = Anchors { manifest: Some(chosen.manifest.clone()), pool: Some(chosen.pool.clone()), ..Anchors::default() };
    std::fs::create_dir_all(&config.output).with_context(|| format!("create {}", config.output.display()))?;
    let reading = Reading { folder: &config.output, cancel: &lab.cancel, told: &|_, _| () };
    let asked = Asked::Manifest(Box::new(open::pool(&chosen.pool)?));
    let source = anchor_source(config, &anchors, asked, reading)?;
    config.anchors = Some(anchors);
    Ok(if arm == Arm::Shuffled { Box::new(Shuffled(source)) } else { source })
}

/// Cross-entropy of the heads and a classifier that starts as the zero-shot head, or as a linear probe of it.
fn classifier(lab: &Lab<'_>, arm: Arm, config: &RunConfig, base: &Weights) -> Result<Weights> {
    let mut head = measure::zero_shot_head(lab, base)?;
    if arm == Arm::LpFt {
        let mut probe = config.clone();
        probe.output = config.output.join("probe");
        probe.step.train.towers = TowerChoice::Neither;
        let probed = trained(lab, &probe, base, Some(Anchored { source: None, head: Some(head.clone()) }))?;
        head = probed.get(HEAD).cloned().context("the linear probe gave no head")?;
    }
    trained(lab, config, base, Some(Anchored { source: None, head: Some(head) }))
}

/// Anchors of which each has another's caption.
#[derive(Debug)]
struct Shuffled(Box<dyn AnchorSource>);

impl AnchorSource for Shuffled {
    fn batch(&self, wanted: Wanted, queries: &[Query<'_>], cancel: &Cancel) -> Result<Vec<AnchorPair>, DataError> {
        let mut pairs = self.0.batch(wanted, queries, cancel)?;
        let mut captions: Vec<String> = pairs.iter_mut().map(|pair| std::mem::take(&mut pair.caption)).collect();
        // A batch's order is random already: the next one's caption is any other's.
        captions.rotate_left(1);
        pairs.iter_mut().zip(captions).for_each(|(pair, caption)| pair.caption = caption);
        Ok(pairs)
    }

    fn fingerprint(&self) -> String {
        format!("shuffled {}", self.0.fingerprint())
    }

    fn describe(&self) -> String {
        format!("{}, captions shuffled", self.0.describe())
    }
}
