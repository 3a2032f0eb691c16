//! `anchorite wise-ft` and `anchorite soup`: models mixed in weight space, evaluated, written.
//!
//! ```text
//!   --from, --to ──► Towers ──mix at each alpha──► folder ──open, evaluate──► Curve ──► wise-ft.json, curve.svg, chosen/
//! ```

use std::{
    fs,
    path::{Path, PathBuf},
};

use anchorite::{
    encoder::Encode,
    train::{
        eval::{EvalLimits, Evaluator, Heads, ModelOutcome},
        wise_ft::{Alphas, Curve, CurvePoint, Towers, Which, ema_shares},
    },
};
use anyhow::{Context, Result, bail};
use clap::{ValueEnum, builder::FalseyValueParser};

use super::eval::{Bench, cache_folder, read_config, under_test, write};
use crate::{
    exit::Exit,
    interrupt,
    open::{ModelArgs, Use},
    output::{json, line},
    progress::say,
};

/// What is mixed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Mixed {
    /// All weights of both towers; the head is made by the mixed text tower.
    #[default]
    Both,
    /// The image tower; the text tower is the first model's.
    Image,
    /// The text tower; the image tower is the first model's.
    Text,
    /// The image tower and the two zero-shot heads, as WiSE-FT and CaRot. Evaluated only.
    ImageHead,
}

impl Mixed {
    fn which(self) -> Which {
        match self {
            Self::Both => Which::Both,
            Self::Image => Which::Image,
            Self::Text => Which::Text,
            Self::ImageHead => Which::ImageHead,
        }
    }
}

/// Between which models, and how it is judged.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// The model that finetuning started from (alpha 0).
    #[arg(long, value_name = "DIR")]
    from: PathBuf,
    /// The finetuned model (alpha 1).
    #[arg(long, value_name = "DIR")]
    to: PathBuf,
    /// Shares of the finetuned model: start:end:step, or numbers with commas.
    #[arg(long, default_value = "0:1:0.1", value_name = "LIST")]
    alphas: Alphas,
    /// What is mixed.
    #[arg(long, value_enum, default_value_t)]
    towers: Mixed,
    /// The evaluation; its models are not used.
    #[arg(long, value_name = "EVAL.TOML")]
    eval: PathBuf,
    /// The group (or set) across the curve.
    #[arg(long, default_value = "id", value_name = "NAME")]
    id: String,
    /// The groups (or sets) up the curve. Default: every other group, but for that of the set of --choose-by alone.
    #[arg(long, value_name = "NAME")]
    against: Vec<String>,
    /// The set whose best alpha is written as `chosen`. Give a validation set, never a test set.
    #[arg(long, value_name = "SET")]
    choose_by: Option<String>,
    /// Alphas that are kept as model folders `alpha-A`.
    #[arg(long, value_name = "LIST")]
    keep: Option<Alphas>,
    /// The folder for results.
    #[arg(short, long, value_name = "DIR")]
    output: PathBuf,
    /// Print JSON.
    #[arg(long, env = "ANCHORITE_JSON", value_parser = FalseyValueParser::new())]
    json: bool,
    #[command(flatten)]
    model: ModelArgs,
}

pub(crate) fn run(args: &Args) -> Result<Exit> {
    let which = args.towers.which();
    if which == Which::ImageHead && (args.keep.is_some() || args.choose_by.is_some()) {
        bail!(
            "image-head mixes heads, for which there is no text tower: nothing can be written; leave out --keep and --choose-by"
        );
    }
    let evaluator = Evaluator::new(read_config(&args.eval)?, EvalLimits::default())?;
    let cancel = interrupt::on_signal()?;
    let (from, to) = (Towers::open(&args.from)?, Towers::open(&args.to)?);
    // Models that do not fit are refused before anything is evaluated.
    Towers::mean(&[&from, &to], &[0.5, 0.5], which)?;
    fs::create_dir_all(&args.output).with_context(|| format!("create {}", args.output.display()))?;
    let bench = Bench { evaluator: &evaluator, cache: cache_folder(evaluator.config(), &args.output), cancel: &cancel };
    let heads =
        if which == Which::ImageHead { Some([args.heads(&bench, &args.from)?, args.heads(&bench, &args.to)?]) } else { None };
    let mut outcomes: Vec<ModelOutcome> = Vec::new();
    let mut points = Vec::new();
    for &alpha in args.alphas.values() {
        let model = format!("alpha {alpha}");
        let folder = args.folder(alpha);
        save(&[&from, &to], &[1.0 - alpha, alpha], which, &folder)?;
        let mixed = heads.as_ref().map(|[a, b]| Heads::mix(a, b, alpha));
        outcomes.push(args.measure(&bench, &model, &folder, mixed.as_ref())?);
        points.push(CurvePoint { alpha, model });
    }
    let evaluation = evaluator.finish(&outcomes)?;
    let (from, to) = (name(&args.from), name(&args.to));
    let mut curve = Curve { from, to, which, chosen_by: args.choose_by.clone(), chosen: None, points, evaluation };
    if let Some(set) = &args.choose_by {
        let best = curve.best_on(set).with_context(|| format!("--choose-by {set:?}: no such set, or it is not measured"))?;
        curve.chosen = Some(best);
        replace(&args.folder(best), &args.output.join("chosen"))?;
    }
    args.tidy()?;
    args.finish(&curve)
}

impl Args {
    fn folder(&self, alpha: f64) -> PathBuf {
        self.output.join(format!("alpha-{alpha}"))
    }

    fn heads(&self, bench: &Bench<'_>, folder: &Path) -> Result<Heads> {
        let encoder = self.model.for_path(&folder.display().to_string()).open(Use::Ingest)?;
        let mut cache = bench.open_cache(encoder.as_ref() as &dyn Encode)?;
        Ok(bench.evaluator.heads(under_test("heads", &encoder), &mut cache, bench.cancel)?)
    }

    fn measure(&self, bench: &Bench<'_>, name: &str, folder: &Path, heads: Option<&Heads>) -> Result<ModelOutcome> {
        let encoder = self.model.for_path(&folder.display().to_string()).open(Use::Ingest)?;
        let mut model = under_test(name, &encoder);
        model.heads = heads;
        bench.measure_encoder(model)
    }

    /// Removes the mixed models that nobody asked for.
    fn tidy(&self) -> Result<()> {
        for &alpha in self.alphas.values() {
            if !self.keep.as_ref().is_some_and(|keep| keep.values().contains(&alpha)) {
                let folder = self.folder(alpha);
                fs::remove_dir_all(&folder).with_context(|| format!("remove {}", folder.display()))?;
            }
        }
        Ok(())
    }

    fn finish(&self, curve: &Curve) -> Result<Exit> {
        write(&self.output, &curve.evaluation)?;
        let path = self.output.join("wise-ft.json");
        fs::write(&path, serde_json::to_string_pretty(curve)? + "\n").with_context(|| format!("write {}", path.display()))?;
        let groups = curve.evaluation.groups();
        let against: Vec<&str> =
            if self.against.is_empty() { curve.others(&self.id) } else { self.against.iter().map(String::as_str).collect() };
        match curve.chart(&self.id, &against).filter(|_| !against.is_empty()) {
            Some(chart) => {
                let path = self.output.join("curve.svg");
                fs::write(&path, chart.to_svg()).with_context(|| format!("write {}", path.display()))?;
            }
            None => say(&format!(
                "no curve.svg: it needs the group {:?} (--id) and another (--against); there are: {}",
                self.id,
                groups.join(", ")
            )),
        }
        match self.json {
            true => json(curve)?,
            false => {
                line(&curve.evaluation.to_markdown());
                if let (Some(alpha), Some(set)) = (curve.chosen, &curve.chosen_by) {
                    line(&format!("alpha {alpha} does best on {set}; it is in {}", self.output.join("chosen").display()));
                }
                say(&format!("written to {}", self.output.display()));
            }
        }
        Ok(Exit::Done)
    }
}

fn name(path: &Path) -> String {
    path.file_name().map_or_else(|| path.display().to_string(), |n| n.to_string_lossy().into_owned())
}

/// Writes the mix; a folder of an earlier run is replaced.
fn save(towers: &[&Towers], shares: &[f64], which: Which, folder: &Path) -> Result<()> {
    if folder.exists() {
        fs::remove_dir_all(folder).with_context(|| format!("remove {}", folder.display()))?;
    }
    Ok(Towers::mean(towers, shares, which)?.save(folder)?)
}

fn replace(from: &Path, to: &Path) -> Result<()> {
    if to.exists() {
        fs::remove_dir_all(to).with_context(|| format!("remove {}", to.display()))?;
    }
    Towers::open(from)?.save(to)?;
    Ok(())
}

/// How several models become one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Recipe {
    /// Each counts the same.
    #[default]
    Uniform,
    /// Taken in turn, the best on `--choose-by` first, and kept where the mean does not get worse on it.
    Greedy,
    /// Checkpoints in order, the oldest first: an exponential moving average.
    Ema,
}

/// Which models.
#[derive(clap::Args, Debug)]
pub(crate) struct SoupArgs {
    /// Model folders of one architecture, or with --base checkpoints of runs; for `ema` in order of training.
    #[arg(required = true, num_args = 2.., value_name = "DIR")]
    models: Vec<PathBuf>,
    /// The model that the runs started from: what is mixed are checkpoints (folders or safetensors files).
    #[arg(long, value_name = "DIR")]
    base: Option<PathBuf>,
    /// How they become one.
    #[arg(long, value_enum, default_value_t)]
    recipe: Recipe,
    /// The average's memory, for `ema`.
    #[arg(long, default_value_t = 0.9, value_name = "SHARE")]
    decay: f64,
    /// The evaluation that has the set of `--choose-by`, for `greedy`.
    #[arg(long, value_name = "EVAL.TOML")]
    eval: Option<PathBuf>,
    /// The set that decides, for `greedy`. Give a validation set, never a test set.
    #[arg(long, value_name = "SET")]
    choose_by: Option<String>,
    /// The folder of the mixed model; must not be there.
    #[arg(short, long, value_name = "DIR")]
    output: PathBuf,
    /// Print JSON.
    #[arg(long, env = "ANCHORITE_JSON", value_parser = FalseyValueParser::new())]
    json: bool,
    #[command(flatten)]
    model: ModelArgs,
}

pub(crate) fn soup(args: &SoupArgs) -> Result<Exit> {
    if args.output.exists() {
        bail!("{} is there already; name another folder", args.output.display());
    }
    if !(0.0..1.0).contains(&args.decay) {
        bail!("--decay {}: give a number from 0 to below 1", args.decay);
    }
    let base = args.base.as_deref().map(Towers::open).transpose()?;
    let open = |path: &PathBuf| match &base {
        Some(base) => Ok(base.at_checkpoint(path)?),
        None => Ok(Towers::open(path)?),
    };
    let towers = args.models.iter().map(open).collect::<Result<Vec<_>>>()?;
    let all: Vec<&Towers> = towers.iter().collect();
    let shares = match args.recipe {
        Recipe::Uniform => uniform(all.len(), &(0..all.len()).collect::<Vec<_>>()),
        Recipe::Ema => ema_shares(all.len(), args.decay),
        Recipe::Greedy => greedy(args, &all)?,
    };
    Towers::mean(&all, &shares, Which::Both)?.save(&args.output)?;
    let rows: Vec<(String, f64)> = args.models.iter().map(|m| m.display().to_string()).zip(shares).collect();
    match args.json {
        true => json(&rows)?,
        false => rows.iter().for_each(|(model, share)| line(&format!("{share:.4}  {model}"))),
    }
    say(&format!("written to {}", args.output.display()));
    Ok(Exit::Done)
}

/// Equal shares of those in `members`.
fn uniform(models: usize, members: &[usize]) -> Vec<f64> {
    (0..models).map(|i| if members.contains(&i) { 1.0 / members.len() as f64 } else { 0.0 }).collect()
}

/// Model soups' greedy recipe (Wortsman et al. 2022b).
fn greedy(args: &SoupArgs, all: &[&Towers]) -> Result<Vec<f64>> {
    let (Some(eval), Some(set)) = (&args.eval, &args.choose_by) else {
        bail!("greedy needs --eval EVAL.TOML and --choose-by SET");
    };
    let mut config = read_config(eval)?;
    config.sets.retain(|s| &s.name == set);
    config.probes.clear();
    config.compare.clear();
    config.bootstrap = 0;
    if config.sets.is_empty() {
        bail!("--choose-by {set:?}: {} has no such set", eval.display());
    }
    let evaluator = Evaluator::new(config, EvalLimits::default())?;
    let cancel = interrupt::on_signal()?;
    let scratch = args.output.with_extension("unfinished");
    let bench = Bench { evaluator: &evaluator, cache: scratch.join("embeddings"), cancel: &cancel };
    let folder = scratch.join("model");
    fs::create_dir_all(&scratch).with_context(|| format!("create {}", scratch.display()))?;
    let judge = |members: &[usize]| -> Result<f64> {
        save(all, &uniform(all.len(), members), Which::Both, &folder)?;
        let outcome = bench.measure("soup", &args.model.for_path(&folder.display().to_string()))?;
        let evaluation = evaluator.finish(&[outcome])?;
        let lead = evaluation.lead(set).with_context(|| format!("{set} is not measured"))?;
        evaluation.figure("soup", set, lead).map(|e| e.value).with_context(|| format!("{set} is not measured"))
    };
    let mut alone = (0..all.len()).map(|i| Ok((judge(&[i])?, i))).collect::<Result<Vec<_>>>()?;
    alone.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
    let mut members = vec![alone[0].1];
    let mut best = alone[0].0;
    for &(_, candidate) in &alone[1..] {
        members.push(candidate);
        let found = judge(&members)?;
        say(&format!("{} with {}: {found:.4} (before {best:.4})", set, args.models[candidate].display()));
        if found >= best {
            best = found;
        } else {
            members.pop();
        }
    }
    fs::remove_dir_all(&scratch).with_context(|| format!("remove {}", scratch.display()))?;
    Ok(uniform(all.len(), &members))
}
