//! Whole runs of the program on the bundled pairs, with a small CLIP of the demo's tokenizer (`reference/small_clip.py`).
//!
//! ```text
//!   run.toml ──anchorite pretrain──► metrics.jsonl ──► loss, waiting
//!                                    checkpoints ──anchorite soup──► folders ──anchorite eval──► recall@10, its curve
//! ```

use std::{
    fs,
    path::{Path, PathBuf},
    process::Stdio,
};

use anchorite_train::{
    eval::{Evaluation, Metric},
    runner::{METRICS_FILE, Metrics},
};
use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::{Rig, THREADS};
use crate::{
    figure::{Figure, Sheet},
    program::Program,
    serve::child::Running,
};

const SEED: u64 = 7;
const MODEL: &str = "ViT 128 wide, 4 layers, 64 px; text 128 wide, 3 layers, 12 tokens";
/// Evaluations along the curve of pretraining.
const POINTS: u64 = 6;

/// The demo's files, the small model, and a folder for runs.
struct Bench {
    program: Program,
    demo: PathBuf,
    folder: PathBuf,
}

impl Bench {
    fn of(rig: &Rig<'_>) -> Result<Self> {
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        let (folder, demo) = (std::path::absolute(rig.cache)?.join("train-runs"), here.join("../demo").canonicalize()?);
        fs::create_dir_all(&folder)?;
        let bench = Self { program: Program::built()?, demo, folder };
        if !bench.folder.join("model/config.json").exists() {
            let (from, to) = (bench.demo.join("model"), bench.folder.join("model"));
            rig.python.run(&here.join("reference/small_clip.py"), &[utf8(&from)?, utf8(&to)?])?;
        }
        Ok(bench)
    }

    fn pairs(&self) -> PathBuf {
        self.demo.join("pairs.parquet")
    }

    /// Runs `command` to its end with a run file of these lines; the folder that it leaves.
    fn train(&self, command: &str, name: &str, lines: &str) -> Result<PathBuf> {
        let output = self.folder.join(name);
        if output.exists() {
            fs::remove_dir_all(&output)?;
        }
        let file = self.folder.join(format!("{name}.toml"));
        let model = self.folder.join("model");
        fs::write(&file, format!("model = {model:?}\noutput = {output:?}\nseed = {SEED}\n{lines}"))?;
        let status = self.program.command().arg(command).arg(&file).stdout(Stdio::null()).status()?;
        ensure!(status.success(), "anchorite {command} {} failed; its message is above", file.display());
        Ok(output)
    }
}

fn utf8(path: &Path) -> Result<&str> {
    path.to_str().with_context(|| format!("{} is not UTF-8", path.display()))
}

fn metrics(run: &Path) -> Result<Vec<Metrics>> {
    let text = fs::read_to_string(run.join(METRICS_FILE))?;
    Ok(text.lines().map(serde_json::from_str).collect::<Result<_, _>>()?)
}

/// Sixty-four pairs with captions of their own, from noise, until they are known by heart.
pub(super) fn overfit(rig: &Rig<'_>, sheet: &mut Sheet) -> Result<()> {
    let bench = Bench::of(rig)?;
    let steps = if rig.quick { 100 } else { 300 };
    let ids = distinct(&bench.demo.join("heldout.json"), 64)?;
    let lines = format!(
        "start = \"random\"\nbatch = 64\nsteps = {steps}\n[task]\nsources = [{:?}]\ntext = \"caption\"\nonly = {{ id = {ids:?} }}\n\
         [schedule]\nrate = 1e-3\nwarmup = 20\n[step]\nthreads = {THREADS}\nchunk = 64\n\
         [step.optimizer]\nweight_decay = 0.0\nclip_norm = 1.0\n[log]\ntensorboard = false\n",
        bench.pairs()
    );
    let curve = metrics(&bench.train("pretrain", "overfit", &lines)?)?;
    let last = curve.last().context("no step")?.loss;
    let data = format!("64 bundled pairs with distinct captions, from noise, {steps} steps of all 64; {MODEL}");
    sheet.add(Figure::new("overfit, last loss", last, "", &data).goal("< 0.05", last < 0.05).seed(SEED));
    if let Some(reached) = curve.iter().find(|m| m.loss < 0.05) {
        sheet.add(Figure::new("overfit, steps to a loss under 0.05", reached.step as f64, "steps", data).seed(SEED));
    }
    Ok(())
}

/// Names of pairs no two of which have the same caption.
fn distinct(held_out: &Path, count: usize) -> Result<Vec<String>> {
    let list: Vec<Value> = serde_json::from_slice(&fs::read(held_out)?)?;
    let mut seen = std::collections::BTreeSet::new();
    let new = list.iter().filter(|pair| seen.insert(pair["caption"].as_str().unwrap_or_default().to_lowercase()));
    let ids: Vec<String> = new.filter_map(|pair| pair["id"].as_str().map(str::to_owned)).take(count).collect();
    ensure!(ids.len() == count, "{} has {} distinct captions", held_out.display(), ids.len());
    Ok(ids)
}

/// The bundled pairs but the held-out ones, from noise; recall@10 among the held-out ones along the way.
pub(super) fn pretrain(rig: &Rig<'_>, sheet: &mut Sheet) -> Result<()> {
    let bench = Bench::of(rig)?;
    let steps: u64 = if rig.quick { 60 } else { 900 };
    let lines = format!(
        "start = \"random\"\nbatch = 128\nsteps = {steps}\n[task]\nsources = [{:?}]\ntext = \"caption\"\nonly = {{ split = [\"train\"] }}\n\
         same_class = \"grouped\"\n[augment]\nscale = [0.6, 1.0]\n[schedule]\nrate = 1e-3\nwarmup = 60\n[step]\nthreads = {THREADS}\nchunk = 128\n\
         [step.optimizer]\nweight_decay = 0.2\nclip_norm = 1.0\n[checkpoint]\nevery = {}\nkeep = {POINTS}\n[log]\ntensorboard = false\n",
        bench.pairs(),
        steps / POINTS,
    );
    let run = bench.train("pretrain", "pretrain", &lines)?;
    let curve = metrics(&run)?;
    let seconds: f64 = curve.iter().map(|m| m.seconds).sum();
    let evaluation = bench.along(&run, steps / POINTS)?;
    let images = evaluation.sets.first().context("no set")?.images as f64;
    for model in &evaluation.models {
        let data =
            format!("{images} held-out pairs, after {} of {steps} steps of 128 on the others, from noise; {MODEL}", model.name);
        for (way, metric) in [("captions to pictures", Metric::TextToImageR10), ("pictures to captions", Metric::ImageToTextR10)]
        {
            let found = evaluation.figure(&model.name, "held-out", metric).context("the evaluation lacks recall@10")?.value;
            let chance = 10.0 / images;
            let figure = Figure::new(format!("pretraining, recall@10, {way}"), found, "", &data).against("chance", chance);
            let last = model.name == steps.to_string();
            let figure = if last { figure.goal("several times chance: 3", found >= 3.0 * chance) } else { figure };
            sheet.add(figure.seed(SEED));
        }
    }
    let data = format!("{steps} steps of 128; {MODEL}; {THREADS} threads");
    sheet.add(Figure::new("pretraining, pairs a second", steps as f64 * 128.0 / seconds, "1/s", &data).seed(SEED));
    let last = curve.last().context("no step")?.loss;
    sheet.add(Figure::new("pretraining, last loss", last, "", data).against("chance, ln 128", 128.0_f64.ln()).seed(SEED));
    Ok(())
}

impl Bench {
    /// Every checkpoint of a run, as a model of its step's name, measured on the held-out pairs.
    fn along(&self, run: &Path, every: u64) -> Result<Evaluation> {
        let out = self.folder.join("along");
        if out.exists() {
            fs::remove_dir_all(&out)?;
        }
        fs::create_dir_all(&out)?;
        let config = format!(
            "bootstrap = 0\n[[sets]]\nname = \"held-out\"\nsources = [{:?}]\nonly = {{ split = [\"heldout\"] }}\n",
            self.pairs()
        );
        let file = out.join("eval.toml");
        fs::write(&file, config)?;
        let mut arguments = vec!["eval".to_owned(), utf8(&file)?.to_owned(), "--json".to_owned()];
        arguments.extend(["--output".to_owned(), utf8(&out.join("results"))?.to_owned()]);
        for step in (1..=POINTS).map(|point| point * every) {
            let (checkpoint, model) = (run.join(format!("checkpoints/step-{step:09}")), out.join(step.to_string()));
            let base = self.folder.join("model");
            // The mean of a checkpoint with itself is the checkpoint, as a model folder.
            let same = utf8(&checkpoint)?;
            self.program.run(&["soup", "--base", utf8(&base)?, same, same, "--output", utf8(&model)?])?;
            arguments.extend(["--add".to_owned(), format!("{step}={}", utf8(&model)?)]);
        }
        let found = serde_json::from_str(&self.program.run(&arguments)?)?;
        // Half a gigabyte that has served.
        fs::remove_dir_all(run.join("checkpoints"))?;
        fs::remove_dir_all(out)?;
        Ok(found)
    }
}

/// Fast steps with as many anchors as pairs, asked of a server in another process: what share of the time a step waits for them.
///
/// The pool is the bundled model's, not that of the small model, whose noise puts all pictures within the near-duplicate limit of each other.
pub(super) fn wait(rig: &Rig<'_>, sheet: &mut Sheet) -> Result<()> {
    let bench = Bench::of(rig)?;
    let (pool, model, pairs) = (bench.folder.join("pool-bundled"), bench.demo.join("model"), bench.pairs());
    // Pairs that are there are passed over, so that a pool that was left half filled is filled.
    bench.program.run(&["ingest", utf8(&pairs)?, "--pool", utf8(&pool)?, "--model", utf8(&model)?])?;
    let server = Running::of(&pool, Some(&model))?;
    let steps = if rig.quick { 30 } else { 200 };
    let lines = format!(
        "batch = 64\nsteps = {steps}\n[task]\nsources = [{pairs:?}]\nlabel = \"style\"\ntemplates = [\"a {{}}\"]\nonly = {{ split = [\"train\"] }}\n\
         [anchors]\nserver = \"http://{}\"\nbatch = 64\n[step]\nthreads = {THREADS}\nchunk = 64\n[log]\ntensorboard = false\n",
        server.address
    );
    let curve = metrics(&bench.train("finetune", "wait", &lines)?)?;
    let share = |steps: &[Metrics]| {
        let seconds: f64 = steps.iter().map(|m| m.seconds).sum();
        (steps.iter().map(|m| m.waiting * m.seconds).sum::<f64>() / seconds, seconds / steps.len() as f64)
    };
    let (waiting, seconds) = share(&curve);
    let data = format!(
        "{steps} steps of 64 pairs and 64 anchors, {THREADS} threads, the server (bundled model and pairs) beside it; {MODEL}"
    );
    let figure = Figure::new("waiting for anchors over HTTP, share of the time", waiting, "", &data);
    sheet.add(figure.goal("< 0.02", waiting < 0.02).seed(SEED));
    let (later, _) = share(curve.get(1..).context("no second step")?);
    sheet.add(Figure::new("waiting for anchors over HTTP, after the first step", later, "", &data).seed(SEED));
    sheet.add(Figure::new("finetuning with anchors over HTTP", seconds * 1e3, "ms/step", data).seed(SEED));
    Ok(())
}
