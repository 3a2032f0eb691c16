//! The model that every arm starts from: packaged towers, heads from noise, aligned on the pool's pairs by our own runner.

use std::{path::PathBuf, sync::Arc};

use anchorite::{
    anchors::policy::Templates,
    ingest::{ColumnChoice, ColumnOptions, Limits, Rows, VectorMode},
    train::{
        data::{Reading, Streams, StreamsPlan, read_task},
        frozen::{self, Weights},
        loss::SameGroup,
        runner::{Checkpoints, Data, Ended, Job, Log, RunConfig, SameClass, Schedule, Start, Task, TaskText, train},
        step::Plan,
    },
};
use anyhow::{Context, Result, bail};

use super::{Lab, bench::Role};
use crate::progress::{Shown, say};

/// Peak rate of the base. Heads of some hundred thousand numbers take a hundred times what whole towers do.
const RATE: f64 = 2e-3;
/// Rows whose features are made before progress is told.
const TOLD_EVERY: usize = 512;
/// Prompts around a class name, in training and evaluation alike.
pub(crate) const TEMPLATES: [&str; 5] = ["{}", "a picture of a {}", "a drawing of a {}", "an icon of a {}", "clip art of a {}"];

/// Prompts around a class name.
pub(crate) fn templates() -> Templates {
    Templates::Own(TEMPLATES.iter().map(|&t| t.to_owned()).collect())
}

/// Where a seed's base is.
pub(crate) fn folder(lab: &Lab<'_>, seed: u64) -> PathBuf {
    lab.setting.out.join(format!("seed-{seed}/base"))
}

/// Runs the towers once on every picture and text there is.
pub(crate) fn fill_features(lab: &Lab<'_>) -> Result<()> {
    super::stage(&lab.setting.out.join("features/done.json"), || {
        let shown = Shown::new("features");
        for set in &lab.sets.list {
            fill_set(lab, &set.name, &shown)?;
        }
        let prompts: Vec<String> = lab.sets.classes.values().flatten().flat_map(|name| templates().prompts(name)).collect();
        lab.frozen.features().add_texts(&prompts.iter().map(String::as_str).collect::<Vec<_>>())?;
        shown.finish();
        Ok(true)
    })
    .map(|_| ())
}

fn fill_set(lab: &Lab<'_>, name: &str, shown: &Shown) -> Result<()> {
    let columns = ColumnOptions { caption: ColumnChoice::Named("caption".to_owned()), ..ColumnOptions::default() };
    let mut rows = Rows::open(&[lab.sets.path(name)], columns, VectorMode::Encode, Limits::default())?;
    let (mut pictures, mut texts, mut done) = (Vec::new(), Vec::new(), 0);
    loop {
        let row = rows.next_row()?;
        if pictures.len() >= TOLD_EVERY || (row.is_none() && !pictures.is_empty()) {
            done += pictures.len() as u64;
            lab.frozen.features().add_pictures(&pictures.iter().map(Vec::as_slice).collect::<Vec<_>>())?;
            lab.frozen.features().add_texts(&texts.iter().map(String::as_str).collect::<Vec<_>>())?;
            (pictures, texts) = (Vec::new(), Vec::new());
            shown.at(done, 0, &format!("rows of {name}"));
        }
        let Some(row) = row else { return Ok(()) };
        if lab.cancel.is_cancelled() {
            bail!("interrupted; the same command goes on");
        }
        let row = row.map_err(|reject| anyhow::anyhow!("{name}: {}", reject.message))?;
        pictures.extend(row.picture);
        texts.extend(row.caption);
        for column in ["rich", "either"] {
            if let Some(anchorite::index::Value::Text(text)) = row.fields.get(column) {
                texts.push(text.clone());
            }
        }
    }
}

/// The base's heads; pretrained when they are not there.
pub(crate) fn pretrained(lab: &Lab<'_>, seed: u64) -> Result<Weights> {
    let folder = folder(lab, seed);
    let path = folder.join("weights.safetensors");
    if path.is_file() {
        return Ok(frozen::load(&path)?);
    }
    say(&format!("seed {seed}: pretraining the base"));
    let start = lab.frozen.noise(seed);
    let state = trained(lab, &config(lab, seed), &start, None)?;
    frozen::save(&state, &path)?;
    Ok(state)
}

fn config(lab: &Lab<'_>, seed: u64) -> RunConfig {
    let size = &lab.setting.size;
    RunConfig {
        model: lab.setting.model.display().to_string(),
        output: folder(lab, seed),
        seed,
        steps: Some(size.base_steps),
        batch: size.base_batch,
        start: Start::Random,
        task: Task {
            sources: vec![lab.sets.path("pool")],
            text: TaskText::Caption,
            caption: Some("either".to_owned()),
            same_class: SameClass::Grouped,
            ..Task::default()
        },
        step: plan(lab),
        schedule: Schedule { rate: RATE, ..Schedule::default() },
        ..run_defaults()
    }
}

/// What all runs have in common.
pub(crate) fn run_defaults() -> RunConfig {
    RunConfig {
        data: Data { workers: 2, ..Data::default() },
        checkpoint: Checkpoints { every: 1_000_000, keep: 1 },
        log: Log { every: 10, tensorboard: false },
        ..RunConfig::default()
    }
}

/// A step over both heads: pairs of one class or caption are each other's positives.
pub(crate) fn plan(lab: &Lab<'_>) -> Plan {
    Plan { same_group: SameGroup::Positive, chunk: 4_096, threads: lab.setting.threads, ..Plan::default() }
}

/// Trains from `start`, or goes on; the weights at the end.
pub(crate) fn trained(
    lab: &Lab<'_>,
    config: &RunConfig,
    start: &Weights,
    anchors: Option<super::arms::Anchored>,
) -> Result<Weights> {
    let config = config.clone().checked()?;
    std::fs::create_dir_all(&config.output).with_context(|| format!("create {}", config.output.display()))?;
    let head = anchors.as_ref().and_then(|a| a.head.clone());
    let mut trainer = lab.frozen.trainer(start, &config.step, head)?;
    let told = |_: &'static str, _: u64| ();
    let reading = Reading { folder: &config.output, cancel: &lab.cancel, told: &told };
    let task = read_task(&config, reading)?;
    let source = anchors.and_then(|a| a.source);
    let plan = StreamsPlan { task, anchors: source, preparer: lab.frozen.preparer(), cancel: lab.cancel.clone() };
    let streams = Arc::new(Streams::new(&config, plan));
    let model = lab.frozen.fingerprint(start);
    let resume = config.output.join("checkpoints").is_dir();
    let job = Job { config: &config, model: &model, streams, resume, cancel: &lab.cancel, told: &|_| () };
    match train(&job, &mut trainer)? {
        Ended::Interrupted { .. } => bail!("interrupted; the same command goes on"),
        Ended::Done { .. } => {}
    }
    let state = trainer.state();
    let mut weights = lab.frozen.taken(&state, start);
    // A classifier's head is no part of the towers, and is measured all the same.
    weights.extend(state.parameters.get(super::arms::HEAD).map(|head| (super::arms::HEAD.to_owned(), head.clone())));
    Ok(weights)
}

/// Rows of a role, for people.
pub(crate) fn rows(lab: &Lab<'_>, role: Role) -> usize {
    lab.sets.of(role).map(|set| set.rows).sum()
}
