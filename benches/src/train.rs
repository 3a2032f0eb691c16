//! Training steps against PyTorch eager: time and peak memory, on the same shapes, batches and threads.
//!
//! Each side is a process of its own, so that its peak memory is its own, and is asked for one step at a time, in turns, so that a
//! busy machine meets both alike. Peak memory is the whole process's, libraries included.

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

use crate::figure::{Figure, Sheet};
use crate::peers::Python;
use crate::process;

const THREADS: usize = 2;
const PACKAGES: [&str; 4] = ["torch==2.15.0", "transformers==5.23.0", "onnx==1.23.2", "numpy"];

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

/// All figures.
pub(crate) fn run(cache: &Path, quick: bool) -> Result<Vec<Figure>> {
    let python = Python::with(cache, "train", &PACKAGES)?;
    let mut sheet = Sheet::default();
    let steps = if quick { 3 } else { 12 };
    against(cache, &python, ("small", 128), steps, &mut sheet)?;
    if !quick {
        against(cache, &python, ("b32", 32), 5, &mut sheet)?;
    }
    let large = if quick { 256 } else { 1_024 };
    let one = alone(cache, "small", 64, 64)?;
    let many = alone(cache, "small", large, 64)?;
    let figure = Figure::new("peak memory, large batch in chunks of 64", many / 1e6, "MB", format!("small, batch {large}"));
    sheet.add(figure.against("batch 64", one / 1e6).goal("<= 1.3", many <= 1.3 * one));
    Ok(sheet.into_figures())
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

    fn ours(cache: &Path, case: &str, batch: usize, chunk: usize, recompute: &str) -> Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("train").arg("--cache").arg(cache).args(["--train-case", &format!("{case}:{batch}:{chunk}:{recompute}")]);
        Self::new(command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?)
    }

    fn ask(&mut self, request: &str) -> Result<Value> {
        writeln!(self.requests, "{request}")?;
        self.requests.flush()?;
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        ensure!(!line.is_empty(), "the process ended; its message is above");
        Ok(serde_json::from_str(&line)?)
    }

    fn number(&mut self, request: &str, name: &str) -> Result<f64> {
        let said = self.ask(request)?;
        said[name].as_f64().with_context(|| format!("the answer has no {name}"))
    }

    /// Peak memory in bytes; the process ends.
    fn end(mut self) -> Result<f64> {
        let peak = self.number("end", "peak")?;
        self.child.wait()?;
        Ok(peak)
    }
}

fn against(cache: &Path, python: &Python, (case, batch): (&str, usize), steps: usize, sheet: &mut Sheet) -> Result<()> {
    let folder = model(cache, case);
    if !folder.join("config.json").exists() {
        python.run(&script(), &["export", case, folder.to_str().context("the cache folder's name is not UTF-8")?])?;
    }
    let mut ours = Side::ours(cache, case, batch, batch, "cheap")?;
    let mut keeping = Side::ours(cache, case, batch, batch, "nothing")?;
    let mut theirs = Side::new(python.start(&script(), &["train", case, &batch.to_string()])?)?;
    let (mut a, mut b, mut c) = (Vec::new(), Vec::new(), Vec::new());
    let (mut first, mut second) = (Value::Null, Value::Null);
    for _ in 0..=steps {
        first = ours.ask("step")?;
        second = theirs.ask("step")?;
        a.push(first.clone());
        b.push(second.clone());
        c.push(keeping.ask("step")?);
    }
    let loss = |said: &Value| said["loss"].as_f64().unwrap_or(f64::NAN);
    ensure!((loss(&first) - loss(&second)).abs() < 0.5, "the losses differ: {first} and {second}");
    let data = format!("{case}, batch {batch}, {THREADS} threads, median of {steps} steps in turns");
    for (field, unit) in [("wall", "s/step"), ("cpu", "CPU s/step")] {
        let (x, y) = (median(&a[1..], field)?, median(&b[1..], field)?);
        let figure =
            Figure::new(format!("training step, {case}, {field}"), x, unit, &data).against("PyTorch eager, fused AdamW", y);
        sheet.add(if field == "wall" { figure.goal("<= 1.05", x <= 1.05 * y) } else { figure });
    }
    let (x, y) = (median(&a[1..], "cpu")?, median(&c[1..], "cpu")?);
    let figure = Figure::new(format!("training step, {case}, cpu, nothing recomputed"), y, "CPU s/step", &data);
    sheet.add(figure.against("with recomputation", x));
    let (end, kept, y) = (ours.ask("end")?, keeping.end()?, theirs.end()?);
    let number = |name: &str| end[name].as_f64().with_context(|| format!("the answer has no {name}"));
    let (x, stated) = (number("peak")?, number("own")? + number("stated")?);
    let figure = Figure::new(format!("peak memory, {case}"), x / 1e6, "MB", &data).against("PyTorch eager", y / 1e6);
    sheet.add(figure.goal("<= 0.6", x <= 0.6 * y));
    let figure = Figure::new(format!("peak memory, {case}, nothing recomputed"), kept / 1e6, "MB", &data);
    sheet.add(figure.against("with recomputation", x / 1e6));
    let figure =
        Figure::new(format!("peak memory, {case}, as stated before"), stated / 1e6, "MB", data).against("as it was", x / 1e6);
    sheet.add(figure.goal("0.75 to 1.25", (0.75 * x..=1.25 * x).contains(&stated)));
    Ok(())
}

/// Peak memory of a few steps of ours.
fn alone(cache: &Path, case: &str, batch: usize, chunk: usize) -> Result<f64> {
    let mut side = Side::ours(cache, case, batch, chunk, "cheap")?;
    side.ask("step")?;
    side.ask("step")?;
    side.end()
}

fn median(answers: &[Value], field: &str) -> Result<f64> {
    let mut values: Vec<f64> = answers.iter().filter_map(|said| said[field].as_f64()).collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().with_context(|| format!("no answer has {field}"))
}

/// The child: one step a line, until "end".
#[expect(clippy::print_stdout, reason = "answers go to the parent")]
pub(crate) fn child(cache: &Path, case: &str) -> Result<()> {
    let parts: Vec<&str> = case.split(':').collect();
    let [name, batch, chunk, recompute] = parts[..] else { anyhow::bail!("a case is NAME:BATCH:CHUNK:RECOMPUTE") };
    let (batch, chunk): (usize, usize) = (batch.parse()?, chunk.parse()?);
    let recompute: Recompute = serde_json::from_value(json!(recompute))?;
    let case = CASES.iter().find(|c| c.name == name).context("no such case")?;
    let plan = Plan { chunk, threads: THREADS, recompute, ..Plan::default() };
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
