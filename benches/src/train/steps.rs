//! Training steps against PyTorch eager: time and peak memory, on the same shapes, batches and threads.
//!
//! Each side is a process of its own, so that its peak memory is its own, and the sides take turns, so that a busy machine meets both
//! alike: step by step where memory has room for both, else process by process. Peak memory is the whole process's, libraries included.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use anchorite_encoder::model::{Folder, ModelOptions};
use anchorite_encoder::runtime::{self, RuntimeOptions};
use anchorite_encoder::session::Engine;
use anchorite_train::Limits;
use anchorite_train::step::{InputSizes, Pictures, Plan, Recompute, StreamBatch, Towers, Trainer};
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::{Rig, THREADS};
use crate::figure::{Figure, Sheet};
use crate::process;

/// A model's shapes; the reference script has the same under the same name.
struct Case {
    name: &'static str,
    sizes: InputSizes,
    vocabulary: i64,
}

const CASES: [Case; 2] = [
    Case { name: "small", sizes: InputSizes { height: 64, width: 64, tokens: 32 }, vocabulary: 8_192 },
    Case { name: "b32", sizes: InputSizes { height: 224, width: 224, tokens: 77 }, vocabulary: 49_408 },
];

fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("reference/train_torch.py")
}

fn model(cache: &Path, case: &str) -> PathBuf {
    cache.join(format!("train-{case}"))
}

/// A small ViT at batch 128, the sides step by step; with and without recomputation.
pub(super) fn small(rig: &Rig<'_>, sheet: &mut Sheet) -> Result<()> {
    let (case, batch) = ("small", 128);
    exported(rig, case)?;
    let steps = if rig.quick { 3 } else { 12 };
    let ours = |how| Side::ours(rig.cache, case, batch, batch, how);
    let sides = [ours("cheap")?, Side::theirs(rig, case, batch)?, ours("nothing")?, ours("spin")?];
    let [ours, theirs, kept, spun] = together(sides, steps)?;
    let data = format!("{case}, batch {batch}, {THREADS} threads, median of {steps} steps in turns");
    compared(case, &data, &ours, &theirs, sheet)?;
    let figure = Figure::new(format!("training step, {case}, cpu, nothing recomputed"), kept.median("cpu")?, "CPU s/step", &data);
    sheet.add(figure.against("with recomputation", ours.median("cpu")?));
    let figure = Figure::new(format!("peak memory, {case}, nothing recomputed"), kept.peak / 1e6, "MB", &data);
    sheet.add(figure.against("with recomputation", ours.peak / 1e6));
    spinning(case, &data, &spun, &theirs, sheet)
}

/// ViT-B/32 at batch 32: 151 million parameters with gradients and moments are 2.4 GB, so that one side is there at a time.
pub(super) fn b32(rig: &Rig<'_>, sheet: &mut Sheet) -> Result<()> {
    let (case, batch) = ("b32", 32);
    exported(rig, case)?;
    let (rounds, steps) = if rig.quick { (1, 1) } else { (2, 2) };
    let (mut ours, mut theirs) = (Taken::default(), Taken::default());
    for _ in 0..rounds {
        ours.add(Side::ours(rig.cache, case, batch, batch, "cheap")?, steps)?;
        theirs.add(Side::theirs(rig, case, batch)?, steps)?;
    }
    let data = format!(
        "{case}, batch {batch}, {THREADS} threads, median of {steps} steps in each of {rounds} processes a side, in turns"
    );
    compared(case, &data, &ours, &theirs, sheet)?;
    let mut spun = Taken::default();
    spun.add(Side::ours(rig.cache, case, batch, batch, "spin")?, steps)?;
    spinning(case, &data, &spun, &theirs, sheet)
}

/// Steps whose idle threads spin, as PyTorch's do.
fn spinning(case: &str, data: &str, ours: &Taken, theirs: &Taken, sheet: &mut Sheet) -> Result<()> {
    let (x, y) = (ours.median("wall")?, theirs.median("wall")?);
    let figure = Figure::new(format!("training step, {case}, wall, spinning"), x, "s/step", data);
    sheet.add(figure.against("PyTorch eager, fused AdamW", y).goal("<= 1.05", x <= 1.05 * y));
    Ok(())
}

/// What a batch of 1,024 takes in chunks of 64, beside a batch of 64 alone.
pub(super) fn chunks(rig: &Rig<'_>, sheet: &mut Sheet) -> Result<()> {
    exported(rig, "small")?;
    let large = if rig.quick { 256 } else { 1_024 };
    let peak = |batch| -> Result<f64> {
        let mut taken = Taken::default();
        taken.add(Side::ours(rig.cache, "small", batch, 64, "cheap")?, 1)?;
        Ok(taken.peak)
    };
    let (one, many) = (peak(64)?, peak(large)?);
    let figure = Figure::new("peak memory, large batch in chunks of 64", many / 1e6, "MB", format!("small, batch {large}"));
    sheet.add(figure.against("batch 64", one / 1e6).goal("<= 1.3", many <= 1.3 * one));
    Ok(())
}

fn exported(rig: &Rig<'_>, case: &str) -> Result<()> {
    let folder = model(rig.cache, case);
    if !folder.join("config.json").exists() {
        rig.python.run(&script(), &["export", case, folder.to_str().context("the cache folder's name is not UTF-8")?])?;
    }
    Ok(())
}

/// A process that is asked for steps.
struct Side {
    child: Child,
    requests: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Side {
    fn new(mut child: Child) -> Result<Self> {
        let requests = child.stdin.take().context("stdin is piped")?;
        let answers = BufReader::new(child.stdout.take().context("stdout is piped")?);
        Ok(Self { child, requests, answers })
    }

    /// `how`: what is recomputed, or `spin` for what is by default with spinning threads.
    fn ours(cache: &Path, case: &str, batch: usize, chunk: usize, how: &str) -> Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("train").arg("--cache").arg(cache).args(["--train-case", &format!("{case}:{batch}:{chunk}:{how}")]);
        Self::new(command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?)
    }

    fn theirs(rig: &Rig<'_>, case: &str, batch: usize) -> Result<Self> {
        Self::new(rig.python.start(&script(), &["train", case, &batch.to_string()])?)
    }

    fn ask(&mut self, request: &str) -> Result<Value> {
        writeln!(self.requests, "{request}")?;
        self.requests.flush()?;
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        ensure!(!line.is_empty(), "the process ended; its message is above");
        Ok(serde_json::from_str(&line)?)
    }

    /// What it says of itself at its end: peak memory, and of ours what was stated before.
    fn end(mut self) -> Result<Value> {
        let said = self.ask("end")?;
        self.child.wait()?;
        Ok(said)
    }
}

/// What a side took.
#[derive(Default)]
struct Taken {
    /// Answers, first steps left out.
    steps: Vec<Value>,
    /// Bytes.
    peak: f64,
    /// Bytes of the process before it had the model, and what it stated then; nothing of PyTorch's.
    stated: Option<f64>,
}

impl Taken {
    /// Asks a process for its steps and lets it end.
    fn add(&mut self, mut side: Side, steps: usize) -> Result<()> {
        side.ask("step")?;
        for _ in 0..steps {
            self.steps.push(side.ask("step")?);
        }
        self.ended(&side.end()?)
    }

    fn ended(&mut self, said: &Value) -> Result<()> {
        self.peak = self.peak.max(said["peak"].as_f64().context("the answer has no peak")?);
        self.stated = said["own"].as_f64().zip(said["stated"].as_f64()).map(|(own, stated)| own + stated);
        Ok(())
    }

    fn median(&self, field: &str) -> Result<f64> {
        let mut values: Vec<f64> = self.steps.iter().filter_map(|said| said[field].as_f64()).collect();
        values.sort_by(f64::total_cmp);
        values.get(values.len() / 2).copied().with_context(|| format!("no answer has {field}"))
    }

    /// The last step's loss.
    fn loss(&self) -> f64 {
        self.steps.last().and_then(|said| said["loss"].as_f64()).unwrap_or(f64::NAN)
    }
}

/// Sides that are there at once and take turns step by step.
fn together<const N: usize>(mut sides: [Side; N], steps: usize) -> Result<[Taken; N]> {
    let mut taken = std::array::from_fn(|_| Taken::default());
    for step in 0..=steps {
        for (side, taken) in sides.iter_mut().zip(&mut taken) {
            let said = side.ask("step")?;
            // The first prepares what the others find.
            if step > 0 {
                taken.steps.push(said);
            }
        }
    }
    for (side, taken) in sides.into_iter().zip(&mut taken) {
        taken.ended(&side.end()?)?;
    }
    Ok(taken)
}

fn compared(case: &str, data: &str, ours: &Taken, theirs: &Taken, sheet: &mut Sheet) -> Result<()> {
    let (a, b) = (ours.loss(), theirs.loss());
    ensure!((a - b).abs() < 0.5, "the losses differ: {a} and {b}");
    for (field, unit) in [("wall", "s/step"), ("cpu", "CPU s/step")] {
        let (x, y) = (ours.median(field)?, theirs.median(field)?);
        let figure =
            Figure::new(format!("training step, {case}, {field}"), x, unit, data).against("PyTorch eager, fused AdamW", y);
        sheet.add(if field == "wall" { figure.goal("<= 1.05", x <= 1.05 * y) } else { figure });
    }
    let figure =
        Figure::new(format!("peak memory, {case}"), ours.peak / 1e6, "MB", data).against("PyTorch eager", theirs.peak / 1e6);
    sheet.add(figure.goal("<= 0.6", ours.peak <= 0.6 * theirs.peak));
    let (x, stated) = (ours.peak, ours.stated.context("nothing was stated")?);
    let figure =
        Figure::new(format!("peak memory, {case}, as stated before"), stated / 1e6, "MB", data).against("as it was", x / 1e6);
    sheet.add(figure.goal("0.75 to 1.25", (0.75 * x..=1.25 * x).contains(&stated)));
    Ok(())
}

/// The child: one step a line, until "end".
#[expect(clippy::print_stdout, reason = "answers go to the parent")]
pub(crate) fn child(cache: &Path, case: &str) -> Result<()> {
    let parts: Vec<&str> = case.split(':').collect();
    let [name, batch, chunk, how] = parts[..] else { anyhow::bail!("a case is NAME:BATCH:CHUNK:HOW") };
    let (batch, chunk): (usize, usize) = (batch.parse()?, chunk.parse()?);
    let spin = how == "spin";
    let recompute = if spin { Recompute::default() } else { serde_json::from_value(json!(how))? };
    let case = CASES.iter().find(|c| c.name == name).context("no such case")?;
    let plan = Plan { chunk, threads: THREADS, recompute, spin, ..Plan::default() };
    let stream = stream(case, batch);
    let runtime = runtime::init(&RuntimeOptions::from_env(), &|_| ())?;
    let own = process::memory("VmRSS")?;
    let mut trainer = trainer(cache, case, &plan, &Engine::cpu(runtime.environment().clone()))?;
    for line in std::io::stdin().lines() {
        if line?.trim() == "end" {
            let stated = trainer.estimate([batch, batch])?.peak_bytes;
            println!("{}", json!({ "peak": process::memory("VmHWM")?, "own": own, "stated": stated }));
            return Ok(());
        }
        let (start, cpu) = (Instant::now(), process::process_cpu());
        let report = trainer.step(std::slice::from_ref(&stream), 1e-4, &AtomicBool::new(false))?;
        let cpu = (process::process_cpu() - cpu).as_secs_f64();
        println!("{}", json!({ "loss": report.loss, "wall": start.elapsed().as_secs_f64(), "cpu": cpu, "times": report.times }));
    }
    Ok(())
}

fn trainer(cache: &Path, case: &Case, plan: &Plan, engine: &Engine) -> Result<Trainer> {
    let folder = Folder::open(&model(cache, case.name), &ModelOptions::default())?;
    let towers = Towers { log_scale: 1.5, ..Towers::open(&folder, &Limits::default())? };
    Ok(Trainer::new(towers, plan, case.sizes, engine, &Limits::default())?)
}

fn stream(case: &Case, batch: usize) -> StreamBatch {
    let pixels = (0..batch * 3 * case.sizes.height * case.sizes.width).map(|i| (i as f32 * 0.37).sin()).collect();
    let last = |i: usize| (i + 1).is_multiple_of(case.sizes.tokens);
    let id = |i: usize| if last(i) { case.vocabulary - 1 } else { i as i64 * 7 % (case.vocabulary - 3) };
    StreamBatch {
        name: "pairs".to_owned(),
        weight: 1.0,
        pairs: batch,
        pictures: Pictures::Own(pixels),
        tokens: (0..batch * case.sizes.tokens).map(id).collect(),
        mask: None,
        groups: None,
    }
}
