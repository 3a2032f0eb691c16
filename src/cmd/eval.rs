//! `anchorite eval`: zero-shot evaluation as a file says.
//!
//! ```text
//!   eval.toml ──► Evaluator ──one model after the other──► Evaluation ──► evaluation.json, .md, .html, predictions.parquet
//! ```

use std::{
    fs,
    path::{Path, PathBuf},
};

use anchorite::{
    encoder::{Encode, Encoder, model::SimilaritySource},
    index::Cancel,
    train::{
        eval::{Cache, EvalConfig, EvalLimits, Evaluation, Evaluator, ModelOutcome, ModelSource, ModelUnderTest, Plan},
        report,
    },
};
use anyhow::{Context, Result, bail};
use clap::builder::FalseyValueParser;

use crate::{
    exit::Exit,
    interrupt,
    open::{ModelArgs, Use},
    output::{json, line},
    progress::{Shown, say},
};

/// What to evaluate.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// The evaluation: sets, class lists, models. Relative paths start from its folder.
    #[arg(value_name = "EVAL.TOML")]
    config: PathBuf,
    /// A model, besides the file's: NAME=DIR or NAME=ORG/NAME. The first of all is what others are compared with.
    #[arg(long = "add", value_name = "NAME=MODEL")]
    add: Vec<String>,
    /// The folder for results. Made if it is not there; results in it are replaced.
    #[arg(short, long, value_name = "DIR")]
    output: Option<PathBuf>,
    /// Look at the first rows of every set, and encode nothing.
    #[arg(long)]
    dry_run: bool,
    /// Print JSON.
    #[arg(long, env = "ANCHORITE_JSON", value_parser = FalseyValueParser::new())]
    json: bool,
    #[command(flatten)]
    model: ModelArgs,
}

pub(crate) fn run(args: &Args) -> Result<Exit> {
    let mut config = read_config(&args.config)?;
    for model in &args.add {
        let (name, source) = model.split_once('=').with_context(|| format!("--add {model:?}: give NAME=MODEL"))?;
        config.models.push(ModelSource { name: name.to_owned(), model: source.to_owned() });
    }
    if config.models.is_empty()
        && let Some(model) = &args.model.model
    {
        config.models.push(ModelSource { name: "model".to_owned(), model: model.clone() });
    }
    let evaluator = Evaluator::new(config, EvalLimits::default())?;
    let cancel = interrupt::on_signal()?;
    if args.dry_run {
        return plan(&evaluator.plan(&cancel)?, args.json);
    }
    let output = args.output.as_deref().context("where to? give -o DIR")?;
    if evaluator.config().models.is_empty() {
        bail!("which model? list it under [[models]], or give --add NAME=MODEL");
    }
    fs::create_dir_all(output).with_context(|| format!("create {}", output.display()))?;
    let bench = Bench { evaluator: &evaluator, cache: cache_folder(evaluator.config(), output), cancel: &cancel };
    let outcomes = evaluator
        .config()
        .models
        .iter()
        .map(|model| bench.measure(&model.name, &args.model.for_path(&located(evaluator.config(), &model.model))))
        .collect::<Result<Vec<_>>>()?;
    let evaluation = evaluator.finish(&outcomes)?;
    write(output, &evaluation)?;
    evaluator.write_predictions(&outcomes, &output.join("predictions.parquet"))?;
    fs::copy(&args.config, output.join("eval.toml")).with_context(|| format!("copy {}", args.config.display()))?;
    match args.json {
        true => json(&evaluation)?,
        false => {
            line(&evaluation.to_markdown());
            say(&format!("written to {}", output.display()));
        }
    }
    Ok(Exit::Done)
}

/// Reads `eval.toml`; its folder is where its paths start from.
pub(crate) fn read_config(path: &Path) -> Result<EvalConfig> {
    let text = fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
    let base = path.parent().unwrap_or(Path::new("."));
    EvalConfig::from_toml(&text, base).with_context(|| format!("read {}", path.display()))
}

/// Where embeddings are kept.
pub(crate) fn cache_folder(config: &EvalConfig, output: &Path) -> PathBuf {
    config.cache.as_ref().map_or_else(|| output.join("embeddings"), |cache| config.path(cache))
}

/// A model's folder beside the configuration when there is one, else what was written (a hub id).
fn located(config: &EvalConfig, model: &str) -> String {
    let beside = config.path(model);
    if beside.is_dir() { beside.display().to_string() } else { model.to_owned() }
}

/// Writes the results in their three forms.
pub(crate) fn write(output: &Path, evaluation: &Evaluation) -> Result<()> {
    let put = |name: &str, text: String| {
        let path = output.join(name);
        fs::write(&path, text).with_context(|| format!("write {}", path.display()))
    };
    put("evaluation.json", serde_json::to_string_pretty(evaluation)? + "\n")?;
    put("evaluation.md", evaluation.to_markdown())?;
    put("evaluation.html", report::evaluation_page(evaluation))
}

/// An evaluator and where embeddings are kept.
pub(crate) struct Bench<'a> {
    pub(crate) evaluator: &'a Evaluator,
    pub(crate) cache: PathBuf,
    pub(crate) cancel: &'a Cancel,
}

impl Bench<'_> {
    /// Opens a model and measures it.
    pub(crate) fn measure(&self, name: &str, model: &ModelArgs) -> Result<ModelOutcome> {
        let encoder = model.open(Use::Ingest)?;
        self.measure_encoder(under_test(name, &encoder))
    }

    /// Measures an open model.
    pub(crate) fn measure_encoder(&self, model: ModelUnderTest<'_>) -> Result<ModelOutcome> {
        let mut cache = self.open_cache(model.encoder)?;
        let shown = Shown::new("eval");
        let told = |set: &str, rows: u64| shown.at(rows, rows, &format!("rows of {set}, {}", model.name));
        let outcome = self.evaluator.run(model, &mut cache, self.cancel, &told)?;
        shown.finish();
        Ok(outcome)
    }

    /// The model's kept embeddings.
    pub(crate) fn open_cache(&self, encoder: &dyn Encode) -> Result<Cache> {
        let cache = Cache::open(&self.cache, encoder.fingerprint(), encoder.dim())?;
        if cache.damaged() > 0 {
            say(&format!("{} kept embeddings are damaged and are made again", cache.damaged()));
        }
        Ok(cache)
    }
}

/// An open model with the scale that its folder states.
pub(crate) fn under_test<'a>(name: &'a str, encoder: &'a Encoder) -> ModelUnderTest<'a> {
    let similarity = encoder.similarity();
    let scale_assumed = similarity.source == SimilaritySource::Assumed;
    ModelUnderTest { name, encoder, scale: f64::from(similarity.scale), scale_assumed, heads: None }
}

fn plan(plan: &Plan, as_json: bool) -> Result<Exit> {
    if as_json {
        json(plan)?;
        return Ok(Exit::Done);
    }
    for set in &plan.sets {
        let labels = if set.labels > 0 { format!(", {} labels", set.labels) } else { String::new() };
        line(&format!("{}: {} of the first {} rows usable{labels}", set.name, set.usable, set.looked_at));
        if let Some(problem) = &set.problem {
            line(&format!("  the first that is not: {problem}"));
        }
    }
    line(&format!("{} prompts; nothing was encoded", plan.prompts));
    Ok(Exit::Done)
}
