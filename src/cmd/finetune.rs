//! `anchorite finetune` and `anchorite pretrain`: a run file to a trained model.
//!
//! ```text
//!   flags, run.toml ──► RunConfig ──► model, data, anchors ──► train ──► export
//! ```

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use anchorite::{
    encoder::{
        hub::{self, Variant},
        runtime::Provider,
    },
    index::Cancel,
    train::{
        data::{PairSet, Reading, Streams, StreamsPlan, anchors::AnchorSource, read_task},
        runner::{
            Anchors, Asked, Ended, Finished, HeadSource, Job, Machine, Metrics, Opened, RunConfig, Start, TaskText, Told,
            anchor_source, finish, train,
        },
    },
};
use anyhow::{Context, Result, bail};
use clap::builder::FalseyValueParser;
use serde::Serialize;

use crate::{
    exit::Exit,
    interrupt,
    open::{self, ModelArgs, RuntimeArgs, Use},
    output::{bytes, json, line},
    progress::{Shown, say},
};

/// What to train, and how.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct Args {
    /// The run file.
    run: PathBuf,
    /// Overrides a field of the run file: `schedule.rate=1e-4`. May be given many times.
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Go on from the newest checkpoint in the run's output folder.
    #[arg(long)]
    resume: bool,
    /// Read and check everything, say what it will take, and train nothing.
    #[arg(long, env = "ANCHORITE_DRY_RUN", value_parser = FalseyValueParser::new())]
    dry_run: bool,
    /// Print the run file with every default, as TOML, and do nothing.
    #[arg(long)]
    print_config: bool,
    /// Print the result as JSON.
    #[arg(long, env = "ANCHORITE_JSON", value_parser = FalseyValueParser::new())]
    json: bool,
    #[command(flatten)]
    runtime: RuntimeArgs,
}

/// Which of the two commands it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// From a trained model, by classes or captions, with anchors.
    Finetune,
    /// By captions alone, from noise where the run file says so.
    Pretrain,
}

/// What `--json` prints at the end.
#[derive(Serialize)]
struct Outcome<'a> {
    outcome: &'static str,
    steps: u64,
    checkpoint: &'a Path,
    model: Option<&'a Path>,
    /// Greatest difference of a component between the written and the live model's embeddings.
    difference: Option<f32>,
}

/// What `--dry-run` prints.
#[derive(Serialize)]
struct Plan {
    pairs: usize,
    classes: usize,
    rejected: u64,
    first_reject: Option<String>,
    anchors: Option<String>,
    steps: u64,
    steps_per_epoch: u64,
    warmup_steps: u64,
    parameters: u64,
    trained: u64,
    peak_bytes: u64,
    /// Making one batch, on one thread.
    batch_seconds: f64,
    /// One optimizer step, measured on the first batch; nothing of it is kept. None where the provider is not there.
    step_seconds: Option<f64>,
    /// Steps times the longer of the two, data being made beside the step.
    total_seconds: Option<f64>,
}

pub(crate) fn run(args: &Args, kind: Kind) -> Result<Exit> {
    let config = read(args, kind)?;
    if args.print_config {
        line(config.to_toml().trim_end());
        return Ok(Exit::Done);
    }
    let cancel = interrupt::on_signal()?;
    let runtime = args.runtime.load()?;
    // Before any data is read: a provider that is not there is known at once. A dry run checks everything else first, on the processor.
    let absent = runtime.check_provider(args.runtime.provider).err();
    let args = &match absent {
        Some(error) if !args.dry_run => return Err(error.into()),
        Some(_) => Args { runtime: RuntimeArgs { provider: Provider::Cpu, ..args.runtime.clone() }, ..args.clone() },
        None => args.clone(),
    };
    let machine = Machine { runtime, provider: args.runtime.provider };
    std::fs::create_dir_all(&config.output).with_context(|| format!("create {}", config.output.display()))?;
    let folder = hub::resolve(&config.model, &Variant { suffix: String::new() }, &args.runtime.hub_options(), &say)?;
    let mut opened = Opened::open(&folder, &config, machine)?;
    let streams = match streams(args, &config, &opened, &cancel) {
        Err(_) if cancel.is_cancelled() => return Ok(Exit::Interrupted),
        streams => Arc::new(streams?),
    };
    let head = HeadSource { config: &config, folder: &folder, task: streams.task(), machine, cancel: &cancel };
    match opened.give_head(&head) {
        Err(_) if cancel.is_cancelled() => return Ok(Exit::Interrupted),
        given => given?,
    }
    if args.dry_run {
        plan(args, &config, (&mut opened, &streams), absent.is_none(), &cancel)?;
        return absent.map_or(Ok(Exit::Done), |error| Err(error.into()));
    }
    go(args, &config, (&folder, &mut opened, &streams), machine, &cancel)
}

fn read(args: &Args, kind: Kind) -> Result<RunConfig> {
    let config = RunConfig::read(&args.run, &args.set)?;
    match kind {
        Kind::Finetune if config.start == Start::Random => {
            bail!("start = \"random\" is for `anchorite pretrain`: there is nothing to finetune")
        }
        Kind::Pretrain if config.task.text != TaskText::Caption => {
            bail!("pretraining pairs pictures with captions: set task.text = \"caption\", or use `anchorite finetune`")
        }
        Kind::Pretrain if config.anchors.is_some() || config.captions.is_some() => {
            bail!(
                "pretraining has one stream, the task's captions: leave out [anchors] and [captions], or use `anchorite finetune`"
            )
        }
        _ => Ok(config),
    }
}

fn streams(args: &Args, config: &RunConfig, opened: &Opened, cancel: &Cancel) -> Result<Streams> {
    let shown = Shown::new("read");
    let told = |set: &'static str, rows: u64| shown.at(rows, 0, set);
    let reading = Reading { folder: &config.output, cancel, told: &told };
    let task = read_task(config, reading)?;
    say_set(&task);
    let anchors = config.anchors.as_ref().map(|anchors| source(args, config, anchors, reading)).transpose()?;
    if let Some(anchors) = &anchors {
        say(&format!("anchors: {}", anchors.describe()));
    }
    shown.finish();
    let preparer = Arc::clone(&opened.preparer);
    Ok(Streams::new(config, StreamsPlan { task, anchors, preparer, cancel: cancel.clone() }))
}

fn say_set(task: &PairSet) {
    say(&format!("task: {} pairs of {} classes or captions", task.spool.len(), task.spool.groups()));
    if let Some(first) = &task.first_reject {
        say(&format!("task: {} rows are unusable and left out; the first: {first}", task.rejected));
    }
}

fn source(args: &Args, config: &RunConfig, anchors: &Anchors, reading: Reading<'_>) -> Result<Box<dyn AnchorSource>> {
    let asked = match (&anchors.manifest, &anchors.pool) {
        (Some(_), Some(pool)) => Asked::Manifest(Box::new(open::pool(pool)?)),
        (None, Some(pool)) => {
            let model = anchors.encoder.clone().unwrap_or_else(|| config.model.clone());
            let encoder = ModelArgs::of(model, args.runtime.clone()).open(Use::Queries)?;
            Asked::Pool(open::retriever(encoder, open::pool(pool)?)?)
        }
        _ => Asked::Server(anchors.server_key_file.as_deref().map(key).transpose()?),
    };
    Ok(anchor_source(config, anchors, asked, reading)?)
}

fn key(path: &Path) -> Result<String> {
    let text = std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
    Ok(text.trim().to_owned())
}

type Ready<'a> = (&'a Path, &'a mut Opened, &'a Arc<Streams>);

fn go(
    args: &Args,
    config: &RunConfig,
    (folder, opened, streams): Ready<'_>,
    machine: Machine<'_>,
    cancel: &Cancel,
) -> Result<Exit> {
    let shown = Shown::new("train");
    let told = |told: &Told<'_>| tell(&shown, told);
    let fingerprint = opened.fingerprint.clone();
    let estimate = opened.trainer.estimate(config.rows())?;
    say(&format!("{} of {} parameters are trained", estimate.trained, estimate.parameters));
    say(&format!("memory: about {} beside the program's own", bytes(estimate.peak_bytes)));
    let job = Job { config, model: &fingerprint, streams: Arc::clone(streams), resume: args.resume, cancel, told: &told };
    let ended = train(&job, &mut opened.trainer)?;
    shown.finish();
    match ended {
        Ended::Interrupted { step, checkpoint } => {
            say(&format!("interrupted after step {step}; go on with --resume"));
            report(
                args,
                &Outcome { outcome: "interrupted", steps: step, checkpoint: &checkpoint, model: None, difference: None },
            )?;
            Ok(Exit::Interrupted)
        }
        Ended::Done { steps, checkpoint } => {
            let Finished { model, difference } = finish(config, (folder, opened, streams), steps, machine, cancel)?;
            let (model, difference) = (Some(model.as_path()), Some(difference));
            report(args, &Outcome { outcome: "done", steps, checkpoint: &checkpoint, model, difference })?;
            Ok(Exit::Done)
        }
    }
}

fn tell(shown: &Shown, told: &Told<'_>) {
    match told {
        Told::Step { metrics, steps, left } => shown.at(metrics.step, *steps, &describe(metrics, *left)),
        Told::Saved(path) => say(&format!("checkpoint: {}", path.display())),
        Told::Resumed(step) => say(&format!("going on after step {step}")),
        Told::Note(note) => say(note),
    }
}

fn describe(metrics: &Metrics, left: Duration) -> String {
    let losses: Vec<String> = metrics.losses.iter().map(|(stream, loss)| format!("{stream} {loss:.4}")).collect();
    format!(
        "loss {:.4} ({}) scale {:.1} grad {:.3} {:.1} pairs/s waiting {:.1} % left {}",
        metrics.loss,
        losses.join(", "),
        metrics.logit_scale,
        metrics.grad_norm,
        metrics.examples_per_second,
        metrics.waiting * 100.0,
        time(left.as_secs_f64())
    )
}

/// A time as a person reads it.
fn time(seconds: f64) -> String {
    match seconds {
        s if s < 100.0 => format!("{s:.0} s"),
        s if s < 6_000.0 => format!("{:.0} min", s / 60.0),
        s => format!("{:.1} h", s / 3_600.0),
    }
}

fn report(args: &Args, outcome: &Outcome<'_>) -> Result<()> {
    if args.json {
        return json(outcome);
    }
    line(&format!("{} after {} steps; checkpoint {}", outcome.outcome, outcome.steps, outcome.checkpoint.display()));
    if let (Some(model), Some(difference)) = (outcome.model, outcome.difference) {
        line(&format!("model {} (opened again; embeddings equal the live ones within {difference:.1e})", model.display()));
    }
    Ok(())
}

/// Says what a run will take; `runs`: whether a step can be measured where it would run.
fn plan(args: &Args, config: &RunConfig, (opened, streams): (&mut Opened, &Streams), runs: bool, cancel: &Cancel) -> Result<()> {
    let started = Instant::now();
    let batch = streams.batch(0)?;
    let batch_seconds = started.elapsed().as_secs_f64();
    let step_seconds = runs.then(|| measured(config, opened, &batch.streams, cancel)).transpose()?;
    let (steps, estimate) = (config.total_steps(streams.per_epoch()), opened.trainer.estimate(config.rows())?);
    let made = batch_seconds * config.accumulate as f64 / config.data.workers as f64;
    let plan = Plan {
        pairs: streams.task().spool.len(),
        classes: streams.task().spool.groups(),
        rejected: streams.task().rejected,
        first_reject: streams.task().first_reject.clone(),
        anchors: streams.anchors().map(AnchorSource::describe),
        steps,
        steps_per_epoch: streams.per_epoch().div_ceil(config.accumulate as u64),
        warmup_steps: config.schedule.over(steps).warmup_steps,
        parameters: estimate.parameters,
        trained: estimate.trained,
        peak_bytes: estimate.peak_bytes,
        batch_seconds,
        step_seconds,
        total_seconds: step_seconds.map(|step| step.max(made) * steps as f64),
    };
    if args.json {
        return json(&plan);
    }
    describe_plan(&plan);
    Ok(())
}

/// Seconds of a step: the second of two, since the first makes the sessions. At rate 0 and in a trainer that is dropped.
fn measured(
    config: &RunConfig,
    opened: &mut Opened,
    streams: &[anchorite::train::step::StreamBatch],
    cancel: &Cancel,
) -> Result<f64> {
    opened.trainer.step(streams, 0.0, cancel.flag())?;
    let started = Instant::now();
    opened.trainer.step(streams, 0.0, cancel.flag())?;
    Ok(started.elapsed().as_secs_f64() * config.accumulate as f64)
}

fn describe_plan(plan: &Plan) {
    line(&format!("{} pairs of {} classes or captions, {} unusable", plan.pairs, plan.classes, plan.rejected));
    if let Some(anchors) = &plan.anchors {
        line(&format!("anchors: {anchors}"));
    }
    line(&format!("{} steps, {} an epoch, {} of warm-up", plan.steps, plan.steps_per_epoch, plan.warmup_steps));
    line(&format!("{} of {} parameters are trained", plan.trained, plan.parameters));
    line(&format!("peak memory of tensors about {}", bytes(plan.peak_bytes)));
    let batch = plan.batch_seconds;
    line(&match (plan.step_seconds, plan.total_seconds) {
        (Some(step), Some(total)) => {
            format!("a step takes {step:.2} s, a batch is made in {batch:.2} s on one thread; in all {}", time(total))
        }
        _ => format!("a batch is made in {batch:.2} s on one thread; a step was not tried, the provider not being there"),
    });
    line("dry run: nothing was trained");
}
